//! `op-dbus cache import`: records from files of other programs.

use std::borrow::Cow;
use std::io::Write;
use std::path::Path;

use op_dbus_engine::Record;

use super::ingest::{self, Ingest};
use crate::args::CacheImport;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::input;
use crate::output::Output;

pub(super) fn run(config: &Config, output: &Output, arguments: &CacheImport) -> Result<Exit> {
    let expires_at_unix_ms = arguments.expiry.at_unix_ms();
    let mut acknowledge = |records: &[Record]| match arguments.ack {
        true => acknowledge(records),
        false => Ok(()),
    };
    let collection = arguments.collection.as_deref();
    let (store, ingest, result) = if let Some(database) = &arguments.from_sqlite {
        input::refuse_unused(arguments, None)?;
        let legacy = input::LegacyCache::open(database, arguments.vectors.as_deref())?;
        let store = config.open_or_create()?;
        let mut ingest =
            Ingest::start(Some(legacy.count), Vec::new(), arguments.encoding).soon(arguments.ack);
        let (left_out, result) = legacy.read(|records| {
            let records = records.map(|read| read.map(|read| read.expiring(expires_at_unix_ms)));
            let collection = collection.unwrap_or(input::LEGACY_COLLECTION);
            ingest.run(&store, collection, records, &mut acknowledge)
        });
        ingest.leave_out(output, left_out);
        (store, ingest, result)
    } else {
        let source = input::to_import(arguments)?.expiring(expires_at_unix_ms);
        let store = config.open_or_create()?;
        let mut ingest =
            Ingest::start(source.count, Vec::new(), arguments.encoding).soon(arguments.ack);
        let collection = collection.unwrap_or(source.default_collection);
        let result = ingest.run(&store, collection, source.records, &mut acknowledge);
        (store, ingest, result)
    };
    // With --ack, standard output belongs to the keys.
    ingest::finish(store, output, ingest, result, arguments.ack)
}

fn acknowledge(records: &[Record]) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    let mut write = || {
        for record in records {
            writeln!(stdout, "{}", acknowledged_key(&record.key))?;
        }
        stdout.flush()
    };
    // Nobody reads them any more: to go on would store what nobody learns of.
    write().map_err(|error| {
        Error::io("write acknowledgements to", Path::new("standard output"), error)
    })
}

/// A key on a line of its own: one that would not fit on it is escaped.
fn acknowledged_key(key: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(key) {
        Ok(key) if !key.contains(char::is_control) => Cow::Borrowed(key),
        _ => Cow::Owned(key.escape_ascii().to_string()),
    }
}
