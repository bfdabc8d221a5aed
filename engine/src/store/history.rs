//! What records were: the last versions of each, in collections that keep them.

use op_dbus_formats::FormatError;
use op_dbus_formats::change::Operation;
use op_dbus_formats::history::HistoryEntry;
use op_dbus_formats::record as format;

use super::Store;
use super::collection::Collection;
use crate::error::{Error, ErrorKind, Result};
use crate::os::clock::unix_ms;
use crate::record::{Record, is_past, validate_key};

/// One version of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// The sequence of the change that made it; greater is newer.
    pub number: u64,
    /// When it was written, in milliseconds since 1970-01-01 UTC, by the clock of that moment.
    pub written_at_unix_ms: u64,
    /// Whether the record was put or removed.
    pub operation: Operation,
    /// Bytes of the record as it is stored; 0 for a removal.
    pub len_bytes: u64,
}

impl Store {
    /// Lists the versions of a record, newest first, the present one among them.
    ///
    /// They stay after a removal, which is a version of its own. Writing a record anew as it is
    /// makes none. A version that has expired is not there, as its record would not be.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such collection, [`ErrorKind::Invalid`] if it keeps
    /// no versions, [`ErrorKind::Corrupt`] if one is damaged.
    pub fn history(&self, collection: &str, key: &[u8]) -> Result<Vec<Version>> {
        let collection = self.versioned(collection, key)?;
        let now_unix_ms = unix_ms();
        let mut versions = Vec::new();
        self.state.versions(collection.spec.id, key, |number, entry| {
            let damaged = |error| self.damaged(&collection, "history", key, error);
            let entry = HistoryEntry::decode(entry).map_err(damaged)?;
            let record = entry.record.unwrap_or_default();
            if !is_visible(&entry, now_unix_ms).map_err(damaged)? {
                return Ok(());
            }
            versions.push(Version {
                number,
                written_at_unix_ms: entry.written_at_unix_ms,
                operation: entry.operation(),
                len_bytes: record.len() as u64,
            });
            Ok(())
        })?;
        versions.reverse();
        Ok(versions)
    }

    /// Reads a version of a record by its number; `None` if there is none, or it is a removal.
    ///
    /// It has no vector: one that a caller gave is kept only with the present record.
    ///
    /// # Errors
    /// As [`Store::history`].
    pub fn get_version(&self, collection: &str, key: &[u8], number: u64) -> Result<Option<Record>> {
        let collection = self.versioned(collection, key)?;
        let Some(entry) = self.state.version(collection.spec.id, key, number)? else {
            return Ok(None);
        };
        let damaged = |error| self.damaged(&collection, "history", key, error);
        let entry = HistoryEntry::decode(&entry).map_err(damaged)?;
        let Some(record) = entry.record else { return Ok(None) };
        let record = format::Record::decode(record).map_err(damaged)?;
        if is_past(record.expires_at_unix_ms, unix_ms()) {
            return Ok(None);
        }
        Ok(Some(Record {
            key: key.to_vec(),
            text: record.text.map(Into::into),
            vector: None,
            payload: record.payload.into_owned(),
            expires_at_unix_ms: record.expires_at_unix_ms,
        }))
    }

    fn versioned(&self, collection: &str, key: &[u8]) -> Result<std::sync::Arc<Collection>> {
        validate_key(key)?;
        let collection = self.collection(collection)?;
        if collection.spec.versions_kept > 0 {
            return Ok(collection);
        }
        Err(Error::new(
            ErrorKind::Invalid,
            format!("collection {} keeps no versions of its records", collection.name),
        )
        .with_remedy("use a collection that was created to keep some, as state is"))
    }
}

fn is_visible(entry: &HistoryEntry<'_>, now_unix_ms: u64) -> Result<bool, FormatError> {
    let Some(record) = entry.record else { return Ok(true) };
    let expires_at_unix_ms = format::Record::decode_expiry(record)?;
    Ok(!is_past(expires_at_unix_ms, now_unix_ms))
}
