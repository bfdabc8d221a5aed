//! What a store that is opened to read keeps when it is closed.
//!
//! Opening RocksDB to write takes longer than most questions, so it waits until there is something
//! to write, and nobody waits for it.

use std::sync::{Mutex, PoisonError};

use op_dbus_formats::embedding::EmbeddingKey;

use super::EmbeddingCache;
use crate::db::DatabaseMemory;
use crate::db::cache::CacheDatabase;
use crate::error::Result;

/// Embeddings that are kept in memory until then. More are computed again when they are needed again.
const EMBEDDINGS_COUNT_MAX: usize = 1024;

#[derive(Default)]
pub(super) struct Pending(Mutex<Writes>);

#[derive(Default)]
struct Writes {
    embeddings: Vec<(EmbeddingKey, Vec<u8>)>,
    notes: Vec<(String, Vec<u8>)>,
}

impl Pending {
    pub(super) fn add_embeddings(&self, more: Vec<(EmbeddingKey, Vec<u8>)>) {
        let mut writes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = EMBEDDINGS_COUNT_MAX.saturating_sub(writes.embeddings.len());
        writes.embeddings.extend(more.into_iter().take(room));
    }

    pub(super) fn add_note(&self, name: &str, note: Vec<u8>) {
        let mut writes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        writes.notes.push((name.to_owned(), note));
    }

    fn take(&self) -> Writes {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl EmbeddingCache {
    /// Writes what waited, for which the caller must have the store alone.
    pub(crate) fn write_pending(&self, memory: DatabaseMemory) -> Result<()> {
        let Writes { embeddings, notes } = self.pending.take();
        if embeddings.is_empty() && notes.is_empty() {
            return Ok(());
        }
        let db = CacheDatabase::open(self.db.path(), memory)?;
        notes.iter().try_for_each(|(name, note)| db.put_meta(name, note))?;
        db.put_embeddings(embeddings, &Default::default())
    }
}
