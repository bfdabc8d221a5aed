//! The log of changes: read from any sequence on, trimmed at its beginning.

use std::collections::BTreeSet;

use op_dbus_formats::change::Change;
use op_dbus_formats::collection::CollectionId;

use super::super::Sync;
use super::{CHANGES, StateDatabase};
use crate::error::Result;

impl StateDatabase {
    /// The last change that is no longer kept; 0 while all are.
    pub(crate) fn last_trimmed(&self) -> Result<u64> {
        let mut changes = self.db.iterate_from(CHANGES, b"");
        let oldest = changes.next_with(|key, _| key.try_into().map(u64::from_be_bytes))?;
        match oldest {
            None => self.last_sequence(),
            Some(Ok(oldest)) => Ok(oldest.saturating_sub(1)),
            Some(Err(_)) => Err(self.corrupt("the oldest change")),
        }
    }

    /// Removes the changes up to this one. Not synced: after a crash they may be there again.
    pub(crate) fn trim_changes(&self, until: u64) -> Result<()> {
        let mut batch = self.db.batch();
        batch.remove_range(CHANGES, &0_u64.to_be_bytes(), &(until + 1).to_be_bytes());
        self.db.write(batch, Sync::No)
    }

    /// Hands the changes after `after` up to `last` to `take` until that answers `false`; returns
    /// the last one read.
    pub(crate) fn read_changes(
        &self,
        after: u64,
        last: u64,
        mut take: impl FnMut(u64, Change<'_>) -> bool,
    ) -> Result<u64> {
        let mut seen = after;
        let mut changes = self.db.iterate_from(CHANGES, &(after + 1).to_be_bytes());
        while seen < last {
            let read = changes.next_with(|_, change| {
                Change::decode(change).map(|change| take(seen + 1, change))
            })?;
            // The log has no gaps: one that ends early is damaged.
            let Some(Ok(goes_on)) = read else { return Err(self.corrupt("a change")) };
            seen += 1;
            if !goes_on {
                break;
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
        let mut changes = self.db.iterate_from(CHANGES, &(sequence + 1).to_be_bytes());
        while let Some(change) = changes.next_with(|_, change| {
            Change::decode(change).map(|change| {
                if change.collection == id {
                    keys.insert(change.key.to_vec());
                }
            })
        })? {
            change.map_err(|error| self.corrupt("a change").with_source(error))?;
        }
        Ok(keys)
    }

    /// Hands the changes after `sequence` to `take`; `false` if some of them are not known any more.
    pub(crate) fn for_each_change_after(
        &self,
        sequence: u64,
        mut take: impl FnMut(Change<'_>),
    ) -> Result<bool> {
        let mut expected = sequence + 1;
        let mut changes = self.db.iterate_from(CHANGES, &expected.to_be_bytes());
        let mut known = true;
        while let Some(change) = changes.next_with(|number, change| {
            known &= number == expected.to_be_bytes();
            expected += 1;
            Change::decode(change).map(&mut take)
        })? {
            change.map_err(|error| self.corrupt("a change").with_source(error))?;
        }
        // What was trimmed is missing at the beginning, or everywhere.
        Ok(known && expected == self.last_sequence()?.max(sequence) + 1)
    }
}
