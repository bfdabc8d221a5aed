//! `op-dbus benchmark --numa-local N`: what it costs to reach memory of another node.

use std::io::{self, Write};

use op_dbus_benches::{NumaBenchmark, NumaReport};

use super::super::numa::render_nodes;
use super::Work;
use super::results::{NotMeasured, NumaSizes};
use crate::error::{Error, Result};
use crate::interrupt;
use crate::output::grouped;

/// Vectors in the store that is asked under each policy: more than caches hold, and soon linked.
const KEYS_COUNT: u32 = 30_000;

/// Measures; none if the user ended it.
pub(super) fn measure(work: &Work, sizes: &NumaSizes) -> Result<Option<NumaReport>> {
    let benchmark = NumaBenchmark { lookups_count: sizes.lookups, keys_count: KEYS_COUNT };
    let directory = work.directory("numa")?;
    let mut step = |doing: &str| work.step(&format!("NUMA nodes: {doing}"));
    match benchmark.run(&directory.path().join("store"), &mut step) {
        Ok(report) => Ok(Some(report)),
        Err(_) if interrupt::is_requested() => Ok(None),
        Err(error) => Err(Error::io("measure in", directory.path(), error)),
    }
}

/// What a machine of one node cannot show.
pub(super) fn not_measured(report: &NumaReport) -> Option<NotMeasured> {
    report.engine.is_empty().then(|| NotMeasured {
        what: "what memory of another NUMA node costs".to_owned(),
        why: "there is one node to be used: nothing is farther than anything else".to_owned(),
        remedy: None,
    })
}

pub(super) fn render(out: &mut dyn Write, report: &NumaReport) -> io::Result<()> {
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
        return Ok(());
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
