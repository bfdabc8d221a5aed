//! redb: a copy-on-write B-tree in Rust.

use std::io;
use std::path::Path;

use redb::{Database, ReadableDatabase, TableDefinition};
use zerocopy::IntoBytes;

use crate::engine::{Batch, Engine, Reader, Room, lost};
use crate::traffic::{DIMENSIONS, key};

const VALUES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("values");

/// A database of one table.
pub(crate) struct Redb(Database);

impl Redb {
    fn try_put_batch(&self, first: u32, vectors: &[f32]) -> Result<(), redb::Error> {
        let transaction = self.0.begin_write()?;
        {
            let mut values = transaction.open_table(VALUES)?;
            for (index, vector) in (first..).zip(vectors.chunks_exact(DIMENSIONS)) {
                values.insert(&key(index)[..], vector.as_bytes())?;
            }
        }
        Ok(transaction.commit()?)
    }
}

impl Engine for Redb {
    const NAME: &'static str = "redb";

    type Reader<'a> = &'a Self;

    fn open(directory: &Path, room: Room) -> io::Result<Self> {
        let cache_bytes = usize::try_from(room.cache_bytes()).map_err(io::Error::other)?;
        let database =
            Database::builder().set_cache_size(cache_bytes).create(directory.join("values"));
        database.map(Self).map_err(io::Error::other)
    }

    fn put_batch(&self, batch: &Batch) -> io::Result<()> {
        self.try_put_batch(batch.first, &batch.vectors).map_err(io::Error::other)
    }

    fn reader(&self) -> io::Result<&Self> {
        Ok(self)
    }
}

impl Reader for &Redb {
    #[inline]
    fn get<T>(&self, index: u32, read: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
        let get = || -> Result<Option<T>, redb::Error> {
            let values = self.0.begin_read()?.open_table(VALUES)?;
            Ok(values.get(&key(index)[..])?.map(|value| read(value.value())))
        };
        get().map_err(io::Error::other)?.ok_or_else(|| lost(Redb::NAME, index))
    }
}
