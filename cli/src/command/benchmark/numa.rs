//! `op-dbus benchmark --numa-local N`: what it costs to reach memory of another node.

use std::io::{self, Write};
use std::path::Path;

use op_dbus_benches::{NumaBenchmark, NumaReport};

use super::super::numa::render_nodes;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::interrupt;
use crate::output::{Output, grouped};
use crate::progress::Progress;

pub(super) fn run(output: &Output, base: &Path, benchmark: NumaBenchmark) -> Result<Exit> {
    let directory = tempfile::Builder::new().prefix("op-dbus-benchmark-").tempdir_in(base);
    let directory = directory.map_err(|error| Error::io("measure in", base, error))?;
    let progress = Progress::start(None);
    let report = benchmark.run(&directory.path().join("store"), &mut |doing| {
        progress.say(doing);
        if interrupt::is_requested() { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    });
    drop(progress);
    let report = match report {
        Ok(report) => report,
        Err(_) if interrupt::is_requested() => return Ok(Exit::Interrupted),
        Err(error) => return Err(Error::io("measure in", base, error)),
    };
    output.answer(&report, |out| render(out, &report))?;
    Ok(Exit::Success)
}

fn render(out: &mut dyn Write, report: &NumaReport) -> io::Result<()> {
    writeln!(out, "NUMA nodes")?;
    render_nodes(out, &report.nodes)?;
    writeln!(out, "\nPlain memory, by one thread; medians")?;
    writeln!(out, "  {:>8} {:>9} {:>12} {:>9}", "CPU of", "memory of", "latency ns", "GB/s")?;
    for row in &report.memory {
        writeln!(
            out,
            "  {:>8} {:>9} {:>12.1} {:>9.2}",
            row.cpu_node,
            row.memory_node,
            row.latency_ns,
            row.bytes_per_second / 1e9
        )?;
    }
    if report.engine.is_empty() {
        return writeln!(
            out,
            "\nThere is one node to be used: nothing is farther than anything else."
        );
    }
    writeln!(out, "\nThe store, asked by one thread; medians")?;
    writeln!(
        out,
        "  {:10} {:>9} {:>8} {:>10} {:>12}",
        "policy", "memory of", "CPU of", "hit ns", "searches/s"
    )?;
    for row in &report.engine {
        writeln!(
            out,
            "  {:10} {:>9} {:>8} {:>10.1} {:>12}",
            row.policy.name(),
            row.memory_nodes,
            row.cpu_node,
            row.hit_ns,
            grouped(row.searches_per_second as u64)
        )?;
    }
    Ok(())
}
