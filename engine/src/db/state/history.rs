//! Versions of records: a key's last ones, oldest first, under the sequences of their changes.
//!
//! The length stands before the record key, because keys are any bytes: behind it, or behind a
//! terminator that a key may contain, `a` with its versions would have keys that begin with `a`
//! among them. So all versions of one key are one range, and nothing else is in it.

use std::collections::BTreeMap;

use op_dbus_formats::collection::CollectionId;
use op_dbus_formats::history::HistoryEntry;

use super::{Action, HISTORY, Mutation, StateDatabase};
use crate::db::{Batch, Pinned};
use crate::error::{Error, ErrorKind, Result};

/// Versions that one batch adds.
#[derive(Default)]
pub(super) struct Additions {
    by_key: BTreeMap<Vec<u8>, Addition>,
}

/// Versions of one key, oldest first.
struct Addition {
    versions_kept: usize,
    versions: Vec<(u64, Vec<u8>)>,
}

impl Additions {
    /// Adds what a mutation makes of its record, if its collection keeps versions.
    pub(super) fn add(
        &mut self,
        mutation: &Mutation<'_>,
        sequence: u64,
        written_at_unix_ms: u64,
    ) -> Result<()> {
        if mutation.versions_kept == 0 {
            return Ok(());
        }
        let record = match &mutation.action {
            Action::Put { record, .. } => Some(&record[..]),
            Action::Remove | Action::Expire { .. } => None,
        };
        let version = HistoryEntry { written_at_unix_ms, record }.encode().map_err(|error| {
            Error::new(ErrorKind::Invalid, "cannot encode a version").with_source(error)
        })?;
        let key = history_key(mutation.record.collection(), mutation.record.key());
        let versions_kept = usize::from(mutation.versions_kept);
        let addition =
            self.by_key.entry(key).or_insert(Addition { versions_kept, versions: Vec::new() });
        addition.versions.push((sequence, version));
        Ok(())
    }
}

impl StateDatabase {
    /// Writes versions, and removes the oldest of what is more than is kept.
    pub(super) fn write_versions(&self, additions: Additions, batch: &mut Batch<'_>) -> Result<()> {
        for (key, Addition { versions_kept, versions }) in additions.by_key {
            let numbered = |number: u64| [&key[..], &number.to_be_bytes()].concat();
            let stored = self.version_numbers(&key)?;
            let excess = (stored.len() + versions.len()).saturating_sub(versions_kept);
            for number in stored.iter().take(excess) {
                batch.remove(HISTORY, &numbered(*number));
            }
            for (number, version) in versions.iter().skip(excess.saturating_sub(stored.len())) {
                batch.put(HISTORY, &numbered(*number), version);
            }
        }
        Ok(())
    }

    fn version_numbers(&self, prefix: &[u8]) -> Result<Vec<u64>> {
        let mut numbers = Vec::new();
        let mut walk = self.db.iterate(HISTORY, prefix);
        while let Some(number) = walk.next_with(|key, _| self.number(key))? {
            numbers.push(number?);
        }
        Ok(numbers)
    }

    fn number(&self, key: &[u8]) -> Result<u64> {
        let number = key.last_chunk().ok_or_else(|| self.corrupt("the key of a version"))?;
        Ok(u64::from_be_bytes(*number))
    }

    /// Hands the versions of a record to `read`, oldest first: number and encoded entry.
    pub(crate) fn versions(
        &self,
        id: CollectionId,
        key: &[u8],
        mut read: impl FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut walk = self.db.iterate(HISTORY, &history_key(id, key));
        while let Some(done) = walk.next_with(|key, entry| read(self.number(key)?, entry))? {
            done?;
        }
        Ok(())
    }

    /// Reads one version of a record, encoded.
    pub(crate) fn version(
        &self,
        id: CollectionId,
        key: &[u8],
        number: u64,
    ) -> Result<Option<Pinned<'_>>> {
        let key = [&history_key(id, key)[..], &number.to_be_bytes()].concat();
        self.db.get(HISTORY, &key)
    }
}

/// What the keys of all versions of a record begin with.
fn history_key(CollectionId(id): CollectionId, key: &[u8]) -> Vec<u8> {
    // A key has at most 4,096 bytes.
    let len = key.len() as u16;
    [&id.to_be_bytes()[..], &len.to_be_bytes(), key].concat()
}
