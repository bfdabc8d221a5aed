//! Our own engine: vectors read by key from a collection.

use std::fs;
use std::io;
use std::path::Path;

use op_dbus_engine::{Record, Store, StoreConfig, Vectors};
use zerocopy::IntoBytes;

use crate::engine::{Engine, Reader, Room, lost};
use crate::traffic::{DIMENSIONS, key};

const COLLECTION: &str = "hits";
/// With so much the databases get all that they take at most.
const LITTLE_CAPACITY_BYTES: u64 = 1 << 30;

/// A store of one collection.
pub(crate) struct Ours(Store);

impl Ours {
    /// Refuses to be measured for hits where there would be none.
    pub(crate) fn check_all_hot(&self, keys_count: u32) -> io::Result<()> {
        let vectors = self.reader()?;
        let is_hot =
            |index: &u32| matches!(vectors.get(&key(*index)), Ok(Some(found)) if found.is_hot());
        match (0..keys_count).find(|index| !is_hot(index)) {
            None => Ok(()),
            Some(index) => Err(io::Error::other(format!("key {index} is not hot"))),
        }
    }
}

impl Engine for Ours {
    const NAME: &'static str = "op-dbus";

    type Reader<'a> = Vectors<'a>;

    fn open(directory: &Path, room: Room) -> io::Result<Self> {
        let config = StoreConfig::new(directory);
        if room == Room::Little {
            // Otherwise what was hot before is read from its file, and not from RocksDB.
            match fs::remove_dir_all(directory.join("@vectors")) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let config = match room {
            Room::ForAll(_) => config.with_capacity_bytes(room.cache_bytes()),
            Room::Little => config.with_capacity_bytes(LITTLE_CAPACITY_BYTES).cold(),
        };
        Store::open(config).map(Self).map_err(io::Error::other)
    }

    fn put_batch(&self, first: u32, vectors: &[f32]) -> io::Result<()> {
        let batch: Vec<Record> = (first..)
            .zip(vectors.chunks_exact(DIMENSIONS))
            .map(|(index, vector)| Record::new(key(index)).with_vector(vector.to_vec()))
            .collect();
        self.0.put_batch(COLLECTION, &batch).map(drop).map_err(io::Error::other)
    }

    fn reader(&self) -> io::Result<Vectors<'_>> {
        self.0.vectors(COLLECTION).map_err(io::Error::other)
    }

    fn close(self) {
        self.0.close();
    }
}

impl Reader for Vectors<'_> {
    #[inline]
    fn get<T>(&self, index: u32, read: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
        let found = Vectors::get(self, &key(index)).map_err(io::Error::other)?;
        found.map(|vector| read(vector.as_bytes())).ok_or_else(|| lost(Ours::NAME, index))
    }
}
