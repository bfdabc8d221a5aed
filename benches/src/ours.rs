//! Our own engine: vectors read by key from a collection.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use op_dbus_engine::{Store, StoreConfig, Vectors};
use zerocopy::IntoBytes;

use crate::engine::{Batch, Copied, Engine, Reader, Room, lost};
use crate::traffic::key;

const COLLECTION: &str = "hits";
/// With so much the databases get all that they take at most.
const LITTLE_CAPACITY_BYTES: u64 = 1 << 30;
const HEAT_ROUNDS_COUNT: usize = 100;
const HEAT_PAUSE: Duration = Duration::from_millis(100);

/// A store of one collection.
pub(crate) struct Ours(Store);

impl Ours {
    /// Reads all vectors until all are hot; refuses to be measured for hits where there would be
    /// none.
    pub(crate) fn heat(&self, keys_count: u32) -> io::Result<()> {
        let vectors = self.reader()?;
        let is_cold =
            |index: &u32| !matches!(vectors.get(&key(*index)), Ok(Some(found)) if found.is_hot());
        let mut cold_count = keys_count as usize;
        // A vector is promoted when it is read, but not while the warm-up promotes another.
        for _ in 0..HEAT_ROUNDS_COUNT {
            cold_count = (0..keys_count).filter(is_cold).count();
            if cold_count == 0 {
                return Ok(());
            }
            std::thread::sleep(HEAT_PAUSE);
        }
        Err(io::Error::other(format!("{cold_count} of {keys_count} vectors stay cold")))
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

    fn put_batch(&self, batch: &Batch) -> io::Result<()> {
        self.0.put_batch(COLLECTION, &batch.records).map(drop).map_err(io::Error::other)
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

    #[inline]
    fn copy(&self, index: u32, out: &mut Copied) -> io::Result<()> {
        let is_there = self.copy_to(&key(index), out).map_err(io::Error::other)?;
        if is_there { Ok(()) } else { Err(lost(Ours::NAME, index)) }
    }
}
