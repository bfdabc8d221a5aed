//! `op-dbus index`: read files into the store.

use crate::args;
use crate::config::Config;
use crate::error::Result;
use crate::exit::Exit;
use crate::input;
use crate::output::Output;

use super::ingest::{self, Ingest};

pub(super) fn run(config: &Config, output: &Output, arguments: &args::Index) -> Result<Exit> {
    let sources = input::sources(&arguments.sources, arguments.format)?;
    for left_out in &sources.left_out {
        output.note(&format!("left out: {left_out}"));
    }
    let total = sources.found.iter().map(|found| found.count).sum();
    let store = config.open_or_create()?;
    let mut ingest = Ingest::start(total, sources.left_out, arguments.encoding);
    let expires_at_unix_ms = arguments.expiry.at_unix_ms();
    let mut result = Ok(());
    for found in &sources.found {
        result = found.open().and_then(|source| {
            let source = source.expiring(expires_at_unix_ms);
            let collection = arguments.collection.as_deref().unwrap_or(source.default_collection);
            ingest.run(&store, collection, source.records, &mut |_| Ok(()))?;
            // Later, so that nobody who searches meanwhile misses both old phrases and new ones.
            for stale in source.phrases.stale(&store, collection)? {
                store.remove(collection, &stale)?;
            }
            Ok(())
        });
        if result.is_err() || ingest.is_interrupted() {
            break;
        }
    }
    ingest::finish(store, output, ingest, result, false)
}
