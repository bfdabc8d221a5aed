//! D-Bus introspection XML: a record for each member of each interface.

use std::io::Read as _;
use std::path::Path;
use std::sync::LazyLock;

use op_dbus_daemon::interfaces::{self, Origin};
use op_dbus_daemon::{Descriptions, Phrases};
use op_dbus_formats::introspection::{self, DOCUMENT_LEN_MAX_BYTES};

use super::stream::Stream;
use super::{Read, Source};
use crate::error::{Error, Result};

pub(super) fn open(path: &Path) -> Result<Source> {
    let xml = read(path)?;
    let node = introspection::parse(&xml).map_err(|error| Error::input(path, &error))?;
    let records = interfaces::records(&node, descriptions(), Origin::default());
    let (count, phrases) = (records.len() as u64, Phrases::of(&records));
    let records = records.into_iter().map(|record| Ok(Read { record, ends_batch: false }));
    Ok(Source {
        records: Box::new(records),
        count: Some(count),
        default_collection: interfaces::COLLECTION,
        phrases,
    })
}

/// Those that come with the program, read once.
fn descriptions() -> &'static Descriptions {
    static SHIPPED: LazyLock<Descriptions> = LazyLock::new(Descriptions::shipped);
    &SHIPPED
}

/// Reads one byte more than the parser takes, so that the parser refuses what is too long.
fn read(path: &Path) -> Result<Vec<u8>> {
    let limit = DOCUMENT_LEN_MAX_BYTES as u64 + 1;
    let mut xml = Vec::new();
    let read = Stream::open(path)?.take(limit).read_to_end(&mut xml);
    read.map_err(|error| Error::io("read", path, error))?;
    Ok(xml)
}
