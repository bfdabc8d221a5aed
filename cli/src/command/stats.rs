//! `op-dbus stats`: what the store holds and has done.

use std::io::Write;

use op_dbus_engine::Stats;

use super::cache::render_stats;
use super::numa;
use crate::args;
use crate::config::Config;
use crate::error::Result;
use crate::exit::Exit;
use crate::output::{Output, bytes, grouped};

pub(super) fn run(config: &Config, output: &Output, arguments: &args::Stats) -> Result<Exit> {
    let store = config.open_at(&arguments.at)?;
    let stats = store.stats()?;
    output.answer(&stats, |out| render(out, &store.path().display().to_string(), &stats))?;
    store.close();
    Ok(Exit::Success)
}

fn render(out: &mut dyn Write, path: &str, stats: &Stats) -> std::io::Result<()> {
    writeln!(out, "store            {path}")?;
    writeln!(out, "sequence         {}", grouped(stats.sequence))?;
    writeln!(out, "on disk          {}", bytes(stats.bytes_disk))?;
    writeln!(out, "in memory        {}", bytes(stats.bytes_memory))?;
    let why = match (stats.memory.configured_bytes, stats.memory.cgroup_bytes) {
        (_, Some(limit)) if limit == stats.memory.effective_bytes => {
            "70 % of the control group's limit"
        }
        (Some(_), _) => "as configured",
        (None, _) => "a quarter of the machine's memory",
    };
    writeln!(out, "memory cap       {}, {why}", bytes(stats.memory.effective_bytes))?;
    writeln!(out, "\ncollections")?;
    let width = stats.collections.iter().map(|known| known.name.len()).max().unwrap_or(0);
    for collection in &stats.collections {
        let model = match &collection.model {
            Some(model) => format!("model {}", &model[..8.min(model.len())]),
            None => format!("vectors given, as {}", collection.encoding),
        };
        let space = match collection.dimensions {
            0 => "documents without vectors".to_owned(),
            dimensions => format!("{dimensions:>5} dimensions  {}  {model}", collection.metric),
        };
        writeln!(
            out,
            "  {:width$}  {:>11} records  {space}",
            collection.name,
            grouped(collection.records),
        )?;
        if let Some(graph) = collection.graph {
            let (count, bytes) = (grouped(graph.vectors), bytes(graph.bytes));
            writeln!(out, "  {:width$}  {count:>11} linked   {bytes}", "")?;
        }
    }
    writeln!(out, "\nembedding cache")?;
    render_stats(out, "  ", &stats.cache)?;
    numa::render(out, &stats.numa)
}
