//! fjall: a log-structured merge tree in Rust.

use std::io;
use std::path::Path;

use fjall::config::CompressionPolicy;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use zerocopy::IntoBytes;

use crate::engine::{Batch, Engine, Reader, Room, lost};
use crate::traffic::{DIMENSIONS, key};

/// A database of one keyspace.
pub(crate) struct Fjall {
    database: Database,
    values: Keyspace,
}

impl Fjall {
    fn try_put_batch(&self, first: u32, vectors: &[f32]) -> fjall::Result<()> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for (index, vector) in (first..).zip(vectors.chunks_exact(DIMENSIONS)) {
            batch.insert(&self.values, key(index), vector.as_bytes());
        }
        batch.commit()
    }

    fn try_open(directory: &Path, room: Room) -> fjall::Result<Self> {
        let database = Database::builder(directory).cache_size(room.cache_bytes()).open()?;
        let values = database.keyspace("values", || {
            KeyspaceCreateOptions::default()
                .data_block_compression_policy(CompressionPolicy::disabled())
        })?;
        Ok(Self { database, values })
    }
}

impl Engine for Fjall {
    const NAME: &'static str = "fjall";

    type Reader<'a> = &'a Self;

    fn open(directory: &Path, room: Room) -> io::Result<Self> {
        Self::try_open(directory, room).map_err(io::Error::other)
    }

    fn put_batch(&self, batch: &Batch) -> io::Result<()> {
        self.try_put_batch(batch.first, &batch.vectors).map_err(io::Error::other)
    }

    fn reader(&self) -> io::Result<&Self> {
        Ok(self)
    }
}

impl Reader for &Fjall {
    #[inline]
    fn get<T>(&self, index: u32, read: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
        let found = self.values.get(key(index)).map_err(io::Error::other)?;
        found.map(|value| read(&value)).ok_or_else(|| lost(Fjall::NAME, index))
    }
}
