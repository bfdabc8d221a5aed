//! sled 0.34: a lock-free B-tree over a log, in Rust.
//!
//! On Linux its flush is `sync_file_range`, which does not empty the cache of a disk: its puts promise
//! less than those of the others.

use std::io;
use std::path::Path;

use sled::{Config, Db};
use zerocopy::IntoBytes;

use crate::engine::{Batch, Engine, Reader, Room, lost};
use crate::traffic::{DIMENSIONS, key};

/// A database, of which the tree without a name is used.
pub(crate) struct Sled(Db);

impl Engine for Sled {
    const NAME: &'static str = "sled";

    type Reader<'a> = &'a Self;

    fn open(directory: &Path, room: Room) -> io::Result<Self> {
        let config = Config::new().path(directory).cache_capacity(room.cache_bytes());
        config.open().map(Self).map_err(io::Error::from)
    }

    fn put_batch(&self, batch: &Batch) -> io::Result<()> {
        let mut writes = sled::Batch::default();
        for (index, vector) in (batch.first..).zip(batch.vectors.chunks_exact(DIMENSIONS)) {
            writes.insert(&key(index), vector.as_bytes());
        }
        self.0.apply_batch(writes)?;
        self.0.flush()?;
        Ok(())
    }

    fn reader(&self) -> io::Result<&Self> {
        Ok(self)
    }
}

impl Reader for &Sled {
    #[inline]
    fn get<T>(&self, index: u32, read: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
        let found = self.0.get(key(index))?;
        found.map(|value| read(&value)).ok_or_else(|| lost(Sled::NAME, index))
    }
}
