//! LMDB, through heed: the fastest of the embedded key-value stores at reading.

use std::io;
use std::path::Path;

use heed::byteorder::BigEndian;
use heed::types::{Bytes, U64};
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, WithTls};

use crate::traffic::{DIMENSIONS, VALUE_BYTES, fill_vector};

/// Address space for the file, which grows only as it is filled.
const MAP_BYTES: usize = 64 << 30;
const BATCH_COUNT: u32 = 10_000;

/// An opened environment.
pub(crate) struct Environment(Env<WithTls>);

/// Its one database: u64 → vector.
pub(crate) struct Lmdb<'e> {
    env: &'e Env<WithTls>,
    values: Database<'e, U64<BigEndian>, Bytes>,
}

impl Environment {
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP_BYTES);
        #[expect(unsafe_code, reason = "LMDB leaves to its user what syncs and who else opens")]
        // SAFETY: a flag that only makes writing faster; all is synced before it is read.
        unsafe {
            options.flags(EnvFlags::NO_SYNC)
        };
        #[expect(unsafe_code, reason = "LMDB leaves to its user what syncs and who else opens")]
        // SAFETY: the directory is ours alone, so that nobody changes the file below the map.
        let env = unsafe { options.open(directory) };
        env.map(Self).map_err(io::Error::other)
    }
}

impl<'e> Lmdb<'e> {
    pub(crate) fn fill(environment: &'e Environment, keys_count: u32) -> io::Result<Self> {
        Self::try_fill(&environment.0, keys_count).map_err(io::Error::other)
    }

    fn try_fill(env: &'e Env<WithTls>, keys_count: u32) -> heed::Result<Self> {
        let made: CommitOrAbort<_, ()> =
            env.create_databases_and_commit(env.write_txn()?, |databases, transaction| {
                databases.create_database(transaction, None).map(CommitOrAbort::Commit)
            })?;
        let values = made.unwrap_commit();
        let mut vector = vec![0.0; DIMENSIONS];
        for first in (0..keys_count).step_by(BATCH_COUNT as usize) {
            let mut transaction = env.write_txn()?;
            for index in first..keys_count.min(first + BATCH_COUNT) {
                fill_vector(index, &mut vector);
                let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
                values.put(&mut transaction, &u64::from(index), &bytes[..])?;
            }
            transaction.commit()?;
        }
        env.force_sync()?;
        Ok(Self { env, values })
    }

    /// Hands the bytes of a value to `read`; a transaction each, as separate requests need.
    #[inline]
    pub(crate) fn get<T>(&self, index: u32, read: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
        let get = || -> heed::Result<Option<T>> {
            let transaction = self.env.read_txn()?;
            Ok(self.values.get(&transaction, &u64::from(index))?.map(read))
        };
        let found = get().map_err(io::Error::other)?;
        found.ok_or_else(|| io::Error::other(format!("LMDB has lost key {index}")))
    }
}

const _: () = assert!(VALUE_BYTES == 1536);
