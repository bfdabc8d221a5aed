//! One verb a file.

mod cache;
mod index;
mod ingest;
mod query;
mod scrub;
mod stats;

use crate::args::Command;
use crate::config::Config;
use crate::error::Result;
use crate::exit::Exit;
use crate::output::Output;

pub(crate) fn run(config: &Config, output: &Output, command: Command) -> Result<Exit> {
    match command {
        Command::Index(arguments) => index::run(config, output, &arguments),
        Command::Query(arguments) => query::run(config, output, arguments),
        Command::Cache { command } => cache::run(config, output, command),
        Command::Scrub(arguments) => scrub::run(config, output, &arguments),
        Command::Stats(_) => stats::run(config, output),
    }
}
