//! The journal's family: entries under their numbers, each with its hash in the next.

use op_dbus_formats::journal::{JournalEntry, JournalHash};

use super::{JOURNAL, StateDatabase};
use crate::db::Sync;
use crate::error::{Error, ErrorKind, Result};

impl StateDatabase {
    /// The number of the last entry and its hash; `None` while there is none.
    pub(crate) fn journal_head(&self) -> Result<Option<(u64, JournalHash)>> {
        let Some(key) = self.db.last_key(JOURNAL, b"")? else { return Ok(None) };
        let value = self.db.get(JOURNAL, &key)?.ok_or_else(|| self.corrupt("the journal"))?;
        let (entry, hash) = JournalEntry::decode(&value)
            .map_err(|error| self.corrupt("the newest entry of the journal").with_source(error))?;
        Ok(Some((entry.number, hash)))
    }

    /// Writes entries under their numbers, durably.
    pub(crate) fn put_journal(&self, entries: &[(u64, Vec<u8>)]) -> Result<()> {
        self.db.write(Sync::Yes, || {
            let mut batch = self.db.batch();
            for (number, entry) in entries {
                batch.put(JOURNAL, &number.to_be_bytes(), entry);
            }
            Ok(batch)
        })
    }

    /// Hands the entries from a number on to `take`, with their hashes, until that answers `false`.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] at one that is damaged, missing, or not chained to the one before.
    pub(crate) fn read_journal(
        &self,
        from: u64,
        mut take: impl FnMut(JournalEntry<'_>, JournalHash) -> bool,
    ) -> Result<()> {
        let mut expected = from.max(1);
        let mut previous = match expected {
            1 => Some([0; 32]),
            _ => None,
        };
        let mut entries = self.db.iterate_from(JOURNAL, &expected.to_be_bytes());
        loop {
            let read = entries.next_with(|key, value| {
                let (entry, hash) = JournalEntry::decode(value)
                    .map_err(|error| broken(expected).with_source(error))?;
                let is_chained = previous.is_none_or(|previous| previous == entry.previous);
                if entry.number != expected || key != expected.to_be_bytes() || !is_chained {
                    return Err(broken(expected));
                }
                Ok((take(entry, hash), hash))
            })?;
            match read.transpose()? {
                Some((true, hash)) => (expected, previous) = (expected + 1, Some(hash)),
                Some((false, _)) | None => return Ok(()),
            }
        }
    }
}

fn broken(number: u64) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!("the journal is broken at entry {number}: it was changed, or others were removed"),
    )
    .with_remedy(
        "compare it with a snapshot of the store, or with hashes that were noted elsewhere",
    )
}
