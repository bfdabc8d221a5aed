//! `op-dbus index`: read files into the store.

use crate::args;
use crate::config::Config;
use crate::error::Result;
use crate::exit::Exit;
use crate::input::{self, Source};
use crate::output::Output;

use super::ingest::{self, Ingest};

pub(super) fn run(config: &Config, output: &Output, arguments: &args::Index) -> Result<Exit> {
    // Everything that can be read first is, so that a mistake in the last file is found first.
    let sources = input::sources(&arguments.sources, arguments.format, output)?;
    let total = sources.iter().map(|source| source.count).sum();
    let store = config.open_or_create()?;
    let mut ingest = Ingest::start(total);
    let mut result = Ok(());
    for Source { records, default_collection, .. } in sources {
        let collection = arguments.collection.as_deref().unwrap_or(default_collection);
        result = ingest.run(&store, collection, records, &mut |_| Ok(()));
        if result.is_err() || ingest.is_interrupted() {
            break;
        }
    }
    ingest::finish(store, output, ingest, result, false)
}
