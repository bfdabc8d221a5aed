//! `op-dbus benchmark --cache-hit N`: a vector by key, here, in LMDB and in plain memory.

use std::io::{self, Write};

use op_dbus_benches::{HitBenchmark, HitRow};

use super::Work;
use super::results::HitSizes;
use crate::error::{Error, Result};
use crate::interrupt;
use crate::output::grouped;

/// Measures; none if the user ended it.
pub(super) fn measure(work: &Work, sizes: &HitSizes) -> Result<Option<Vec<HitRow>>> {
    let mut rows = Vec::new();
    for &keys_count in &sizes.keys {
        // A directory for each, as all engines keep their files until they are closed.
        let directory = work.directory("hits")?;
        let benchmark = HitBenchmark {
            keys_count,
            lookups_count: sizes.lookups,
            threads_counts: sizes.threads.clone(),
        };
        match benchmark.run(directory.path(), &mut |doing| work.step(&format!("hits: {doing}"))) {
            Ok(measured) => rows.extend(measured),
            Err(_) if interrupt::is_requested() => return Ok(None),
            Err(error) => return Err(Error::io("measure in", directory.path(), error)),
        }
    }
    Ok(Some(rows))
}

pub(super) fn render(out: &mut dyn Write, rows: &[HitRow]) -> io::Result<()> {
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
