//! `op-dbus benchmark`: what this machine does with the engine, beside what else it could use.

mod collection;
mod embeddings;
mod numa;
mod search;

use std::io::{self, Write};
use std::path::Path;

use op_dbus_benches::{HitBenchmark, HitRow, NumaBenchmark};
use serde_json::json;

use crate::args::Benchmark;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::interrupt;
use crate::output::{Output, grouped};
use crate::progress::Progress;

/// Vectors in the store that is asked under each policy: more than caches hold, and soon linked.
const NUMA_KEYS_COUNT: u32 = 30_000;

pub(super) fn run(config: &Config, output: &Output, arguments: &Benchmark) -> Result<Exit> {
    interrupt::catch();
    if let Some(texts_count) = arguments.embeddings {
        return embeddings::run(config, output, texts_count as usize);
    }
    if let Some(lookups_count) = arguments.numa_local {
        let base = arguments.directory.clone().unwrap_or_else(std::env::temp_dir);
        let keys_count = NUMA_KEYS_COUNT;
        return numa::run(output, &base, NumaBenchmark { lookups_count, keys_count });
    }
    match (arguments.cache_hit, &arguments.search.collection) {
        (Some(lookups_count), _) => run_hits(output, arguments, lookups_count),
        (None, Some(name)) => collection::run(config, output, &arguments.search, name),
        (None, None) => search::run(output, &arguments.search),
    }
}

fn run_hits(output: &Output, arguments: &Benchmark, lookups_count: usize) -> Result<Exit> {
    let base = arguments.directory.clone().unwrap_or_else(std::env::temp_dir);
    let mut rows = Vec::new();
    for &keys_count in &arguments.keys {
        match hits(arguments, &base, lookups_count, keys_count) {
            Ok(measured) => rows.extend(measured),
            Err(_) if interrupt::is_requested() => return Ok(Exit::Interrupted),
            Err(error) => return Err(Error::io("measure in", &base, error)),
        }
    }
    output.answer(&json!({ "cache_hit": rows }), |out| render(out, &rows))?;
    Ok(Exit::Success)
}

fn hits(
    arguments: &Benchmark,
    base: &Path,
    lookups_count: usize,
    keys_count: u32,
) -> io::Result<Vec<HitRow>> {
    // Removed when it goes out of scope, also after Ctrl-C.
    let directory = tempfile::Builder::new().prefix("op-dbus-benchmark-").tempdir_in(base)?;
    let progress = Progress::start(None);
    let benchmark = HitBenchmark {
        keys_count,
        lookups_count,
        threads_counts: arguments.threads_at_once.clone(),
    };
    benchmark.run(directory.path(), &mut |doing| {
        progress.say(doing);
        if interrupt::is_requested() { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    })
}

fn render(out: &mut dyn Write, rows: &[HitRow]) -> io::Result<()> {
    writeln!(out, "A vector of 1,536 bytes by key, Zipf 0.99; medians, in nanoseconds")?;
    writeln!(
        out,
        "{:18} {:>10} {:>7} {:>8} {:>8} {:>8} {:>12}",
        "engine", "keys", "threads", "p50", "p99", "CPU", "lookups/s"
    )?;
    for row in rows {
        writeln!(
            out,
            "{:18} {:>10} {:>7} {:>8.0} {:>8.0} {:>8.0} {:>12}",
            row.engine,
            grouped(row.keys.into()),
            row.threads,
            row.p50_ns,
            row.p99_ns,
            row.cpu_ns,
            grouped(row.lookups_per_second as u64)
        )?;
    }
    Ok(())
}
