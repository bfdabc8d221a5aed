//! One verb a file.

mod benchmark;
mod cache;
mod call;
mod collection;
mod daemon;
mod diff;
mod doctor;
mod documents;
mod export;
mod import;
mod index;
mod ingest;
mod journal;
mod layout;
mod link;
mod mcp;
mod model;
mod numa;
mod plugin;
mod query;
mod schema;
mod scrub;
mod settings;
mod shell;
mod simulate;
mod snapshot;
mod state;
mod stats;
mod top;
mod trace;
mod transfer;

use crate::args::{Command, LayoutCommand};
use crate::config::Config;
use crate::error::Result;
use crate::exit::Exit;
use crate::output::Output;

pub(crate) fn run(config: &Config, output: &Output, command: Command) -> Result<Exit> {
    match command {
        Command::Index(arguments) => index::run(config, output, &arguments),
        Command::Put(arguments) => documents::put(config, output, arguments),
        Command::Get(arguments) => documents::get(config, output, &arguments),
        Command::History(arguments) => documents::history(config, output, &arguments),
        Command::Remove(arguments) => documents::remove(config, output, &arguments),
        Command::Layout { command: LayoutCommand::Migrate } => layout::migrate(config, output),
        Command::Link(arguments) => link::run(config, output, &arguments),
        Command::Journal { command } => journal::run(config, output, command),
        Command::State { command } => state::run(config, output, command),
        Command::Plugin { command } => plugin::run(config, output, command),
        Command::Query(arguments) => query::run(config, output, arguments),
        Command::Cache { command } => cache::run(config, output, command),
        Command::Collection { command } => collection::run(config, output, command),
        Command::Model { command } => model::run(config, output, command),
        Command::Benchmark(arguments) => benchmark::run(config, output, &arguments),
        Command::Daemon(arguments) => daemon::run(config, &arguments),
        Command::Mcp(arguments) => mcp::run(config, arguments),
        Command::Diff(arguments) => diff::run(config, output, &arguments),
        Command::Settings { command } => settings::run(config, output, command),
        Command::Completions(arguments) => shell::completions(output, &arguments),
        Command::Man(arguments) => shell::man(output, &arguments),
        Command::Schema(arguments) => schema::run(output, &arguments),
        Command::Doctor(arguments) => doctor::run(config, output, &arguments),
        Command::Scrub(arguments) => scrub::run(config, output, &arguments),
        Command::Snapshot { command } => snapshot::run(config, output, command),
        Command::Stats(arguments) => stats::run(config, output, &arguments),
        Command::Top(arguments) => top::run(config, output, &arguments),
    }
}
