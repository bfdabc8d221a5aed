//! The log of changes: read from any sequence on, trimmed at its beginning.
//!
//! What was committed together lies together, under the sequence of its last change: one entry of
//! RocksDB costs as much as several changes.

use std::collections::BTreeSet;

use op_dbus_formats::change::{self as format, CHANGES_COUNT_MAX, Change};
use op_dbus_formats::collection::CollectionId;

use super::super::{Batch, Sync};
use super::{CHANGES, StateDatabase};
use crate::error::{Error, ErrorKind, Result};

/// Changes that lie under one key.
pub(crate) struct LoggedChanges<'v> {
    first_sequence: u64,
    changes: Vec<Change<'v>>,
}

impl<'v> LoggedChanges<'v> {
    /// Decodes an entry of the log; says what is wrong with one that is damaged.
    pub(crate) fn decode(key: &[u8], value: &'v [u8]) -> std::result::Result<Self, String> {
        let last = sequence_of(key).ok_or("a change without a sequence")?;
        let damaged = |what: &dyn std::fmt::Display| {
            format!("the changes up to {last} that were committed together are damaged: {what}")
        };
        let changes = format::decode(value).map_err(|error| damaged(&error))?;
        let first_sequence = (changes.len() as u64)
            .checked_sub(1)
            .and_then(|others| last.checked_sub(others))
            .filter(|first| *first > 0)
            .ok_or_else(|| damaged(&"there were not so many before it"))?;
        Ok(Self { first_sequence, changes })
    }

    pub(crate) fn first_sequence(&self) -> u64 {
        self.first_sequence
    }

    pub(crate) fn len(&self) -> usize {
        self.changes.len()
    }

    /// The changes after this one, each with its sequence.
    fn after(self, sequence: u64) -> impl Iterator<Item = (u64, Change<'v>)> {
        (self.first_sequence..).zip(self.changes).filter(move |(found, _)| *found > sequence)
    }
}

/// The sequence that is a key of the log: that of the last change under it.
pub(crate) fn sequence_of(key: &[u8]) -> Option<u64> {
    key.try_into().ok().map(u64::from_be_bytes)
}

/// Adds to a batch what it changes, numbered from `first_sequence`.
pub(super) fn log(
    batch: &mut Batch<'_>,
    changes: &[Change<'_>],
    first_sequence: u64,
) -> Result<()> {
    let mut last = first_sequence - 1;
    for changes in changes.chunks(CHANGES_COUNT_MAX) {
        last += changes.len() as u64;
        let encoded = format::encode(changes).map_err(|error| {
            Error::new(ErrorKind::Invalid, "cannot encode a change").with_source(error)
        })?;
        batch.put(CHANGES, &last.to_be_bytes(), &encoded);
    }
    Ok(())
}

impl StateDatabase {
    /// The last change that is no longer kept, or cannot be read; 0 while all can.
    pub(crate) fn last_trimmed(&self) -> Result<u64> {
        let mut entries = self.db.iterate_from(CHANGES, b"");
        let oldest = entries.next_with(|key, value| match LoggedChanges::decode(key, value) {
            Ok(changes) => Some(changes.first_sequence - 1),
            Err(_) => sequence_of(key),
        })?;
        match oldest {
            None => self.last_sequence(),
            Some(Some(trimmed)) => Ok(trimmed),
            Some(None) => Err(self.corrupt("the oldest change")),
        }
    }

    /// Removes the changes up to this one, as far as none that comes after it lies with them. Not
    /// synced: after a crash they may be there again.
    pub(crate) fn trim_changes(&self, until: u64) -> Result<()> {
        self.db.write(Sync::No, || {
            let mut batch = self.db.batch();
            batch.remove_range(CHANGES, &0_u64.to_be_bytes(), &(until + 1).to_be_bytes());
            Ok(batch)
        })
    }

    /// Hands the changes after `after` up to `last` to `take` until that answers `false`; returns
    /// the last one read.
    pub(crate) fn read_changes(
        &self,
        after: u64,
        last: u64,
        mut take: impl FnMut(u64, Change<'_>) -> bool,
    ) -> Result<u64> {
        let (mut seen, mut goes_on) = (after, true);
        let mut entries = self.db.iterate_from(CHANGES, &(after + 1).to_be_bytes());
        while goes_on && seen < last {
            let before = seen;
            let read = entries.next_with(|key, value| {
                for (sequence, change) in LoggedChanges::decode(key, value)?.after(seen) {
                    // The log has no gaps: one that has is damaged.
                    if sequence != seen + 1 {
                        return Err(format!("the change {} is missing", seen + 1));
                    }
                    if !goes_on || sequence > last {
                        break;
                    }
                    seen = sequence;
                    goes_on = take(sequence, change);
                }
                Ok(())
            })?;
            match read {
                Some(Ok(())) if seen > before => {}
                Some(Ok(())) | None => return Err(self.damaged("a change", "it is missing")),
                Some(Err(what)) => return Err(self.damaged("a change", &what)),
            }
        }
        Ok(seen)
    }

    /// The keys of a collection that were changed after `sequence`, each once.
    pub(crate) fn changed_keys(
        &self,
        id: CollectionId,
        sequence: u64,
    ) -> Result<BTreeSet<Vec<u8>>> {
        let mut keys = BTreeSet::new();
        self.walk_changes_after(sequence, |change| {
            if change.collection == id {
                keys.insert(change.key.to_vec());
            }
        })?;
        Ok(keys)
    }

    /// Hands the changes after `sequence` to `take`; `false` if some of them are not known any more.
    ///
    /// For a store that nobody writes meanwhile.
    pub(crate) fn for_each_change_after(
        &self,
        sequence: u64,
        take: impl FnMut(Change<'_>),
    ) -> Result<bool> {
        let (seen, has_gap) = self.walk_changes_after(sequence, take)?;
        // What was trimmed is missing at the beginning, or everywhere.
        Ok(!has_gap && seen == self.last_sequence()?.max(sequence))
    }

    /// Hands the changes after `sequence` to `take`; returns the last, and whether one is missing
    /// before it.
    fn walk_changes_after(
        &self,
        sequence: u64,
        mut take: impl FnMut(Change<'_>),
    ) -> Result<(u64, bool)> {
        let (mut seen, mut has_gap) = (sequence, false);
        let mut entries = self.db.iterate_from(CHANGES, &(sequence + 1).to_be_bytes());
        while let Some(read) = entries.next_with(|key, value| {
            for (found, change) in LoggedChanges::decode(key, value)?.after(sequence) {
                has_gap |= found != seen + 1;
                seen = found;
                take(change);
            }
            Ok::<_, String>(())
        })? {
            read.map_err(|what| self.damaged("a change", &what))?;
        }
        Ok((seen, has_gap))
    }
}
