//! What a store holds and has done, as measured now.

use serde::Serialize;

use super::Store;
use super::memory::MemoryCap;
use super::numa::NumaStats;
use crate::cache::CacheStats;
use crate::error::Result;
use crate::os::clock::unix_ms;
use crate::os::file::used_bytes;

/// Figures of an opened store.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stats {
    /// The sequence of the last committed mutation.
    pub sequence: u64,
    /// The collections, by name.
    pub collections: Vec<CollectionStats>,
    /// Memory that the databases and the vectors in memory hold.
    pub bytes_memory: u64,
    /// Bytes on disk that the store's files use.
    pub bytes_disk: u64,
    /// Memory that the store may take.
    pub memory: MemoryCap,
    /// The embedding cache and the vectors in memory.
    pub cache: CacheStats,
    /// On which NUMA nodes that memory lies.
    pub numa: NumaStats,
}

/// Figures of one collection.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CollectionStats {
    /// Its name.
    pub name: String,
    /// Records in it.
    pub records: u64,
    /// Elements of every vector; 0 while it has no embedding space.
    pub dimensions: u32,
    /// How nearness is measured.
    pub metric: &'static str,
    /// How vectors given by callers are stored.
    pub encoding: &'static str,
    /// Fingerprint of the model its texts are embedded by; `None` if callers give the vectors.
    pub model: Option<String>,
    /// The graph that finds the nearest, if it is open.
    pub graph: Option<GraphStats>,
}

/// Figures of the graph of a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct GraphStats {
    /// Vectors in it.
    pub vectors: u64,
    /// Memory, or address space of its map.
    pub bytes: u64,
}

impl Store {
    /// Measures the store.
    ///
    /// Cost: reads every key, so that it takes time in proportion to the store; waits for graphs that are
    /// being brought to their NUMA nodes; asks the kernel about some thousand pages, and what the machine
    /// has, which takes milliseconds.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) or [`ErrorKind::Io`](crate::ErrorKind::Io)
    /// if the databases cannot be read.
    pub fn stats(&self) -> Result<Stats> {
        let mut collections = Vec::new();
        let mut vectors_bytes = 0;
        let expired = self.state.expired_keys(unix_ms())?;
        for collection in self.all_collections() {
            let mut records = 0;
            let mut walk = self.state.records(collection.spec.id, b"");
            let expired = expired.of(collection.spec.id);
            let is_visible = |key: &[u8]| expired.is_none_or(|expired| !expired.contains(key));
            while let Some(is_visible) = walk.next_with(|key, _, _| is_visible(key))? {
                records += u64::from(is_visible);
            }
            self.open_graph(&collection);
            let graph = collection.graph.measured().map(|(bytes, vectors)| GraphStats {
                vectors: vectors as u64,
                bytes: bytes as u64,
            });
            vectors_bytes += graph.map_or(0, |graph| graph.bytes as usize);
            vectors_bytes += collection.index().as_ref().map_or(0, |index| index.memory_bytes());
            collections.push(CollectionStats {
                name: collection.name.to_string(),
                records,
                dimensions: collection.spec.dimensions,
                metric: collection.spec.metric.name(),
                encoding: collection.spec.encoding.name(),
                model: collection.spec.model.map(|model| model.to_string()),
                graph,
            });
        }
        let cache = self.cache.stats()?;
        Ok(Stats {
            sequence: self.commits.last_sequence(),
            collections,
            bytes_memory: self.state.memory_bytes()
                + cache.bytes_memory
                + cache.tier.memory_bytes
                + vectors_bytes as u64,
            memory: self.memory,
            bytes_disk: used_bytes(self.layout.base()),
            cache,
            numa: self.numa_stats(),
        })
    }

    /// Measures the embedding cache.
    ///
    /// # Errors
    /// As [`Store::stats`].
    pub fn cache_stats(&self) -> Result<CacheStats> {
        self.cache.stats()
    }
}
