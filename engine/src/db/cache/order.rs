//! In which order embeddings were written, so that the oldest can go when there are too many.
//!
//! The family `order` is a log with a head and a tail: an entry's key is the offset in bytes at
//! which its embedding begins among all that were ever written, then what is known of it. So the
//! first and the last entry tell how much there is, and nobody counts.
//!
//! An embedding that is replaced keeps its place. One that two callers compute at the same time has
//! two places; it goes with the first, and counts twice until the second has gone.

use std::sync::{Mutex, MutexGuard, PoisonError};

use op_dbus_formats::embedding::EmbeddingKey;

use super::{EMBEDDINGS, ORDER};
use crate::db::{Batch, Database, Sync};
use crate::error::{Error, ErrorKind, Result};

/// Offset, time and length, then the key of the embedding.
const ENTRY_LEN_BYTES: usize = 8 + 8 + 4 + 16;

/// Embeddings that are removed in one batch.
const REMOVED_COUNT_MAX: usize = 4096;

/// The log from the first entry that is left to the end of the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Extent {
    start_bytes: u64,
    end_bytes: u64,
}

/// Where one embedding stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    offset_bytes: u64,
    pub(crate) written_unix_ms: u64,
    pub(crate) len_bytes: u32,
    pub(crate) embedding: EmbeddingKey,
}

impl Entry {
    fn encode(&self) -> [u8; ENTRY_LEN_BYTES] {
        let mut key = [0; ENTRY_LEN_BYTES];
        key[..8].copy_from_slice(&self.offset_bytes.to_be_bytes());
        key[8..16].copy_from_slice(&self.written_unix_ms.to_be_bytes());
        key[16..20].copy_from_slice(&self.len_bytes.to_be_bytes());
        key[20..].copy_from_slice(&self.embedding.0.to_be_bytes());
        key
    }

    fn decode(key: &[u8]) -> Option<Self> {
        let (offset, key) = key.split_first_chunk()?;
        let (written, key) = key.split_first_chunk()?;
        let (len, key) = key.split_first_chunk()?;
        Some(Self {
            offset_bytes: u64::from_be_bytes(*offset),
            written_unix_ms: u64::from_be_bytes(*written),
            len_bytes: u32::from_be_bytes(*len),
            embedding: EmbeddingKey(u128::from_be_bytes(key.try_into().ok()?)),
        })
    }

    fn end_bytes(&self) -> u64 {
        self.offset_bytes.saturating_add(self.len_bytes.into())
    }
}

/// The log of one database.
pub(super) struct Order(Mutex<Extent>);

/// The log while nobody else changes it; what is appended counts once it is committed.
pub(super) struct Appender<'a> {
    committed: MutexGuard<'a, Extent>,
    extent: Extent,
}

impl Order {
    /// Finds the ends of the log. Embeddings of a version that kept none are entered as of now.
    pub(super) fn open(db: &Database, now_unix_ms: u64) -> Result<Self> {
        let order = Self(Mutex::default());
        let first = db.iterate(ORDER, b"").next_with(|key, _| decode(db, key))?.transpose()?;
        match (first, db.last_key(ORDER, b"")?) {
            (Some(first), Some(last)) => {
                let end_bytes = decode(db, &last)?.end_bytes();
                *order.extent() = Extent { start_bytes: first.offset_bytes, end_bytes };
            }
            _ if db.is_written() => order.enter_all(db, now_unix_ms)?,
            _ => {}
        }
        Ok(order)
    }

    fn enter_all(&self, db: &Database, now_unix_ms: u64) -> Result<()> {
        let mut appender = self.append();
        // Whole or not at all: a part would hide the rest.
        db.write(Sync::No, || {
            let mut batch = db.batch();
            appender.begin();
            let mut walk = db.iterate(EMBEDDINGS, b"");
            let mut enter = |key: &[u8], value: &[u8]| {
                if let Ok(key) = key.try_into() {
                    let embedding = EmbeddingKey(u128::from_be_bytes(key));
                    appender.enter(&mut batch, embedding, value.len(), now_unix_ms);
                }
            };
            while walk.next_with(&mut enter)?.is_some() {}
            drop(walk);
            Ok(batch)
        })?;
        appender.commit();
        Ok(())
    }

    fn extent(&self) -> MutexGuard<'_, Extent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the log for the caller until the appender is dropped.
    pub(super) fn append(&self) -> Appender<'_> {
        let committed = self.extent();
        Appender { extent: *committed, committed }
    }

    /// Bytes of the embeddings that are in the log.
    pub(super) fn bytes(&self) -> u64 {
        let extent = self.extent();
        extent.end_bytes - extent.start_bytes
    }

    /// Removes embeddings from the oldest on, as long as `may_go`, given how many bytes are left
    /// with this one, says so; at most so many that the caller should ask again.
    pub(super) fn remove_oldest(
        &self,
        db: &Database,
        may_go: impl Fn(&Entry, u64) -> bool,
    ) -> Result<Vec<Entry>> {
        let mut extent = self.extent();
        let mut removed = Vec::new();
        // From where it begins, past what was removed and is still in RocksDB's way.
        let mut walk = db.iterate_from(ORDER, &extent.start_bytes.to_be_bytes());
        while removed.len() < REMOVED_COUNT_MAX
            && let Some(entry) = walk.next_with(|key, _| decode(db, key))?.transpose()?
            && may_go(&entry, extent.end_bytes.saturating_sub(entry.offset_bytes))
        {
            removed.push(entry);
        }
        if let Some(last) = removed.last() {
            db.write(Sync::No, || {
                let mut batch = db.batch();
                for entry in &removed {
                    batch.remove(EMBEDDINGS, &entry.embedding.0.to_be_bytes());
                    batch.remove(ORDER, &entry.encode());
                }
                Ok(batch)
            })?;
            extent.start_bytes = last.end_bytes();
        }
        Ok(removed)
    }
}

impl Appender<'_> {
    /// Forgets what was appended to a batch that is made again.
    pub(super) fn begin(&mut self) {
        self.extent = *self.committed;
    }

    /// Adds an embedding to the end of the log.
    pub(super) fn enter(
        &mut self,
        batch: &mut Batch<'_>,
        embedding: EmbeddingKey,
        len_bytes: usize,
        written_unix_ms: u64,
    ) {
        // The longest vector has 256 KiB.
        let len_bytes = u32::try_from(len_bytes).unwrap_or(u32::MAX);
        let offset_bytes = self.extent.end_bytes;
        let entry = Entry { offset_bytes, written_unix_ms, len_bytes, embedding };
        batch.put(ORDER, &entry.encode(), b"");
        self.extent.end_bytes = entry.end_bytes();
    }

    /// Removes all entries.
    pub(super) fn clear(&mut self, batch: &mut Batch<'_>) {
        batch.remove_range(ORDER, &[], &[u8::MAX; ENTRY_LEN_BYTES + 1]);
        self.extent.start_bytes = self.extent.end_bytes;
    }

    /// Takes note that the batch was written.
    pub(super) fn commit(mut self) {
        *self.committed = self.extent;
    }
}

fn decode(db: &Database, key: &[u8]) -> Result<Entry> {
    Entry::decode(key).ok_or_else(|| {
        let database = db.path().display();
        Error::new(ErrorKind::Corrupt, format!("the order of embeddings in {database} is damaged"))
            .with_remedy(format!("remove {database}: what is in it is computed again"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_sort_by_their_offsets_and_come_back() {
        let entry = |offset_bytes, written_unix_ms| Entry {
            offset_bytes,
            written_unix_ms,
            len_bytes: 1552,
            embedding: EmbeddingKey(u128::MAX - 7),
        };
        let (first, second) = (entry(255, u64::MAX), entry(256, 0));
        assert!(first.encode() < second.encode());
        assert_eq!(Entry::decode(&first.encode()), Some(first));
        assert_eq!(Entry::decode(&first.encode()[1..]), None);
        assert_eq!(Entry::decode(&[0; ENTRY_LEN_BYTES + 1]), None);
    }
}
