//! LMDB, through heed: the fastest of the embedded key-value stores at reading.

use std::io;
use std::path::Path;

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvOpenOptions, WithTls};
use zerocopy::IntoBytes;

use crate::engine::{Batch, Engine, Reader, Room, lost};
use crate::traffic::{DIMENSIONS, key};

/// Address space for the file, which grows only as it is filled.
const MAP_BYTES: usize = 64 << 30;

type Values<'e> = Database<'e, Bytes, Bytes>;

/// An opened environment of one database. Its cache is the system's.
pub(crate) struct Lmdb(Env<WithTls>);

/// The way to the values.
pub(crate) struct LmdbReader<'e> {
    env: &'e Env<WithTls>,
    values: Values<'e>,
}

/// Opens an environment in a directory that nobody else opens.
///
/// # Errors
/// What LMDB refuses.
pub fn open(directory: &Path) -> heed::Result<Env<WithTls>> {
    let mut options = EnvOpenOptions::new();
    options.map_size(MAP_BYTES);
    #[expect(unsafe_code, reason = "LMDB leaves to its user who else opens the file")]
    // SAFETY: the directory is ours alone, so that nobody changes the file below the map.
    unsafe {
        options.open(directory)
    }
}

impl Lmdb {
    fn values(&self) -> heed::Result<Values<'_>> {
        let made: CommitOrAbort<_, ()> =
            self.0.create_databases_and_commit(self.0.write_txn()?, |databases, transaction| {
                databases.create_database(transaction, None).map(CommitOrAbort::Commit)
            })?;
        Ok(made.unwrap_commit())
    }

    fn try_put_batch(&self, first: u32, vectors: &[f32]) -> heed::Result<()> {
        let values = self.values()?;
        let mut transaction = self.0.write_txn()?;
        for (index, vector) in (first..).zip(vectors.chunks_exact(DIMENSIONS)) {
            values.put(&mut transaction, &key(index), vector.as_bytes())?;
        }
        transaction.commit()
    }
}

impl Engine for Lmdb {
    const NAME: &'static str = "LMDB";

    type Reader<'a> = LmdbReader<'a>;

    fn open(directory: &Path, _: Room) -> io::Result<Self> {
        open(directory).map(Self).map_err(io::Error::other)
    }

    fn put_batch(&self, batch: &Batch) -> io::Result<()> {
        self.try_put_batch(batch.first, &batch.vectors).map_err(io::Error::other)
    }

    fn reader(&self) -> io::Result<LmdbReader<'_>> {
        let values = self.values().map_err(io::Error::other)?;
        Ok(LmdbReader { env: &self.0, values })
    }
}

impl Reader for LmdbReader<'_> {
    #[inline]
    fn get<T>(&self, index: u32, read: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
        let get = || -> heed::Result<Option<T>> {
            let transaction = self.env.read_txn()?;
            Ok(self.values.get(&transaction, &key(index))?.map(read))
        };
        get().map_err(io::Error::other)?.ok_or_else(|| lost(Lmdb::NAME, index))
    }
}
