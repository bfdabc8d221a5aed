//! Plain text: a record for each line that is not blank, named by its place.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use op_dbus_daemon::Phrases;
use op_dbus_engine::Record;
use op_dbus_formats::record::TEXT_LEN_MAX_BYTES;

use super::lines::Lines;
use super::{DOCUMENTS_COLLECTION, Read, Source};
use crate::error::{Error, Result};

pub(super) fn open(path: &Path) -> Result<Source> {
    let count = Lines::count(path);
    let lines = Lines::open(path, TEXT_LEN_MAX_BYTES)?;
    let name = lines.name().to_owned();
    let records = lines.filter_map(move |line| {
        let record = line.and_then(|line| {
            let text = std::str::from_utf8(&line.bytes).map_err(|error| {
                let (number, column) = (line.number, error.valid_up_to() + 1);
                Error::input(&name, &format!("line {number}: byte {column} is not UTF-8"))
            })?;
            let text = text.trim();
            // A name that is no UTF-8 must not become that of another file.
            let mut key = name.as_os_str().as_bytes().to_vec();
            key.extend_from_slice(format!(":{}", line.number).as_bytes());
            let record = Record::new(key).with_text(text);
            Ok((!text.is_empty()).then_some(Read { record, ends_batch: line.is_last_at_hand }))
        });
        record.transpose()
    });
    let default_collection = DOCUMENTS_COLLECTION;
    let phrases = Phrases::default();
    Ok(Source { records: Box::new(records), count, default_collection, phrases })
}
