//! foyer, the part in memory: a cache with counted references, of which only reads are measured.

use std::io;

use foyer::{Cache, CacheBuilder};
use zerocopy::IntoBytes;

use crate::engine::{Reader, Room, lost, vectors};
use crate::traffic::key;

pub(crate) const NAME: &str = "foyer";

/// A cache that holds all values.
pub(crate) struct Foyer(Cache<[u8; 8], Box<[u8]>>);

impl Foyer {
    pub(crate) fn fill(keys_count: u32) -> io::Result<Self> {
        let room = Room::ForAll(keys_count).cache_bytes();
        let cache = CacheBuilder::new(usize::try_from(room).map_err(io::Error::other)?)
            .with_weighter(weight)
            .build();
        for index in 0..keys_count {
            cache.insert(key(index), vectors(index, 1).as_bytes().into());
        }
        Ok(Self(cache))
    }
}

impl Reader for Foyer {
    #[inline]
    fn get<T>(&self, index: u32, read: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
        let found = self.0.get(&key(index));
        found.map(|entry| read(entry.value())).ok_or_else(|| lost(NAME, index))
    }
}

#[expect(clippy::borrowed_box, reason = "the cache hands out what it holds")]
fn weight(_: &[u8; 8], value: &Box<[u8]>) -> usize {
    value.len()
}
