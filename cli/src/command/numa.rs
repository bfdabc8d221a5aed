//! Where hot memory lies, as text.

use std::io::Write;

use op_dbus_engine::{ArenaResidency, NumaNode, NumaPolicy, NumaStats};

use crate::output::{bytes, grouped};

/// Nothing for a machine of one node that is left alone.
pub(super) fn render(out: &mut dyn Write, stats: &NumaStats) -> std::io::Result<()> {
    if stats.machine.len() < 2 && stats.policy == NumaPolicy::Off {
        return Ok(());
    }
    writeln!(out, "\nNUMA")?;
    write!(out, "  policy         {}", stats.policy)?;
    if stats.policy != NumaPolicy::Off {
        write!(out, ", nodes {}, CPUs {}", list(&stats.nodes), list(&stats.cpus))?;
    }
    writeln!(out)?;
    if let Some(refused) = &stats.refused {
        writeln!(out, "  refused        {refused}")?;
    }
    render_nodes(out, &stats.machine)?;
    if stats.arenas.is_empty() {
        return writeln!(out, "  no memory is hot");
    }
    write!(out, "  {:34} {:>10}", "where memory lies", "in use")?;
    for node in &stats.machine {
        write!(out, " {:>8}", format!("node {}", node.node))?;
    }
    writeln!(out)?;
    stats.arenas.iter().try_for_each(|arena| render_arena(out, arena, &stats.machine))
}

/// The nodes of a machine, each in a line.
pub(super) fn render_nodes(out: &mut dyn Write, machine: &[NumaNode]) -> std::io::Result<()> {
    for node in machine {
        let free = node.free_bytes.map_or_else(|| "–".to_owned(), bytes);
        let distances: Vec<String> = node.distances.iter().map(u32::to_string).collect();
        writeln!(
            out,
            "  node {:<9} CPUs {}, {} of which {free} free, distances {}{}",
            node.node,
            if node.cpus.is_empty() { "none" } else { &node.cpus },
            bytes(node.memory_bytes),
            if distances.is_empty() { "unknown".to_owned() } else { distances.join(" ") },
            if node.is_allowed { "" } else { ", outside the cpuset" },
        )?;
    }
    Ok(())
}

fn render_arena(
    out: &mut dyn Write,
    arena: &ArenaResidency,
    machine: &[NumaNode],
) -> std::io::Result<()> {
    write!(out, "  {:34} {:>10}", arena.arena, bytes(arena.bytes))?;
    let sampled: u64 = arena.pages_by_node.values().sum();
    for node in machine {
        let count = arena.pages_by_node.get(&node.node).copied().unwrap_or_default();
        match sampled {
            0 => write!(out, " {:>8}", "–")?,
            _ => write!(out, " {:>6.1} %", count as f64 * 100.0 / sampled as f64)?,
        }
    }
    match &arena.refused {
        Some(refused) => writeln!(out, "  {refused}"),
        None => writeln!(out, "  of {} pages", grouped(sampled)),
    }
}

fn list<'a>(numbers: impl IntoIterator<Item = &'a u32>) -> String {
    op_dbus_formats::numa_list::render(numbers)
}
