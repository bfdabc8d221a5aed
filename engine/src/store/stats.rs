//! What a store holds and has done, as measured now.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::audit::RecallStats;
use super::collection::Collection;
use super::latency::QueryStats;
use super::memory::MemoryCap;
use super::numa::NumaStats;
use super::{Store, lock};
use crate::cache::{CacheActivity, CacheStats};
use crate::db::state::{Action, Mutation};
use crate::error::Result;
use crate::os::clock::unix_ms;
use crate::os::file::used_bytes;

/// Records that are counted before it is asked whether to go on.
const COUNTED_AT_ONCE: usize = 4096;

/// Figures of an opened store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// The directory of the store.
    pub store: String,
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
    /// The queries that were answered.
    pub queries: QueryStats,
}

/// Figures of an opened store that are known without looking through it; as in [`Stats`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity {
    /// The directory of the store.
    pub store: String,
    /// The sequence of the last committed mutation.
    pub sequence: u64,
    /// Memory that the databases and the vectors in memory hold.
    pub bytes_memory: u64,
    /// Vectors in mapped files, of those that were hot when the store was closed.
    pub bytes_mapped: u64,
    /// Bytes on disk that the store's files use.
    pub bytes_disk: u64,
    /// Memory that the store may take.
    pub memory: MemoryCap,
    /// The embedding cache and the vectors in memory.
    pub cache: CacheActivity,
    /// On which NUMA nodes that memory lies.
    pub numa: NumaStats,
    /// The queries that were answered.
    pub queries: QueryStats,
    /// What was written.
    #[serde(default)]
    pub writes: WriteStats,
}

/// Records that were written since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteStats {
    /// Those that were put, and were not stored already.
    pub puts: u64,
    /// Those that were removed.
    pub removals: u64,
    /// Those whose time was over, and that were collected.
    pub expiries: u64,
}

/// Counts records as they are committed, on any thread.
#[derive(Default)]
pub(super) struct Writes {
    puts: AtomicU64,
    removals: AtomicU64,
    expiries: AtomicU64,
}

impl Writes {
    pub(super) fn note(&self, mutations: &[Mutation<'_>]) {
        for mutation in mutations {
            let counter = match mutation.action {
                Action::Put { .. } => &self.puts,
                Action::Remove => &self.removals,
                Action::Expire { .. } => &self.expiries,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn stats(&self) -> WriteStats {
        let [puts, removals, expiries] = [&self.puts, &self.removals, &self.expiries]
            .map(|counter| counter.load(Ordering::Relaxed));
        WriteStats { puts, removals, expiries }
    }
}

/// Figures of one collection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CollectionStats {
    /// Its name.
    pub name: String,
    /// Records in it.
    pub records: u64,
    /// Elements of every vector; 0 while it has no embedding space.
    pub dimensions: u32,
    /// How nearness is measured.
    pub metric: String,
    /// How vectors given by callers are stored.
    pub encoding: String,
    /// Fingerprint of the model its texts are embedded by; `None` if callers give the vectors.
    pub model: Option<String>,
    /// When it was created, in milliseconds since 1970-01-01 UTC.
    pub created_unix_ms: u64,
    /// How many versions of each record are kept; 0 for no history.
    pub versions_kept: u16,
    /// The graph that finds the nearest, if it is open.
    pub graph: Option<GraphStats>,
    /// How well it does, if that was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recall: Option<RecallStats>,
    /// What is known of the words of its records, once they were looked for.
    #[serde(default)]
    pub words: Option<WordsStats>,
}

/// Figures of the words of the records of a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WordsStats {
    /// Records whose words are known.
    pub records: u64,
    /// Memory.
    pub bytes: u64,
}

/// Figures of the graph of a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
        let expired = self.state.expired_keys(unix_ms())?;
        for collection in self.all_collections() {
            let expired = expired.of(collection.spec.id);
            let records = self.records_count(&collection, expired, &|| true)?.unwrap_or_default();
            self.open_graph(&collection);
            let graph = collection.graph.measured().map(|(bytes, vectors)| GraphStats {
                vectors: vectors as u64,
                bytes: bytes as u64,
            });
            collections.push(CollectionStats {
                name: collection.name.to_string(),
                records,
                dimensions: collection.spec.dimensions,
                metric: collection.spec.metric.name().to_owned(),
                encoding: collection.spec.encoding.name().to_owned(),
                model: collection.spec.model.map(|model| model.to_string()),
                created_unix_ms: collection.spec.created_unix_ms,
                versions_kept: collection.spec.versions_kept,
                graph,
                recall: Some(*lock(&collection.recall)).filter(|it| *it != RecallStats::default()),
                words: words_of(&collection),
            });
        }
        let cache = self.cache.stats()?;
        let Activity {
            store,
            sequence,
            bytes_memory,
            bytes_mapped: _,
            bytes_disk,
            memory,
            cache: _,
            numa,
            queries,
            writes: _,
        } = self.activity();
        Ok(Stats {
            store,
            sequence,
            collections,
            bytes_memory,
            bytes_disk,
            memory,
            cache,
            numa,
            queries,
        })
    }

    /// Counts the records of each collection; `None` as soon as `go_on` says no.
    ///
    /// Cost: reads every key.
    ///
    /// # Errors
    /// As [`Store::stats`].
    pub fn count_records(&self, go_on: &dyn Fn() -> bool) -> Result<Option<Vec<(String, u64)>>> {
        let expired = self.state.expired_keys(unix_ms())?;
        let mut counts = Vec::new();
        for collection in self.all_collections() {
            let expired = expired.of(collection.spec.id);
            match self.records_count(&collection, expired, go_on)? {
                Some(count) => counts.push((collection.name.to_string(), count)),
                None => return Ok(None),
            }
        }
        Ok(Some(counts))
    }

    fn records_count(
        &self,
        collection: &Collection,
        expired: Option<&HashSet<Vec<u8>>>,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Option<u64>> {
        let (mut walked_count, mut count) = (0_usize, 0);
        let mut walk = self.state.records(collection.spec.id, b"");
        let is_visible = |key: &[u8]| expired.is_none_or(|expired| !expired.contains(key));
        while let Some(is_visible) = walk.next_with(|key, _, _| is_visible(key))? {
            count += u64::from(is_visible);
            walked_count += 1;
            if walked_count.is_multiple_of(COUNTED_AT_ONCE) && !go_on() {
                return Ok(None);
            }
        }
        Ok(Some(count))
    }

    /// Measures what is known without looking through the store.
    ///
    /// Cost: asks the kernel about some thousand pages, the machine, and the size of each file, which
    /// takes milliseconds; waits for graphs that are being brought to their NUMA nodes.
    #[must_use]
    pub fn activity(&self) -> Activity {
        let cache = self.cache.activity();
        let vectors_bytes: usize = self
            .all_collections()
            .iter()
            .map(|collection| {
                let graph = collection.graph.measured().map_or(0, |(bytes, _)| bytes);
                let words = words_of(collection).map_or(0, |words| words.bytes as usize);
                let index = collection.index().as_ref().map_or(0, |index| index.memory_bytes());
                graph + index + words + collection.passed.memory_bytes()
            })
            .sum();
        let mapped = self.tier.pools().into_iter().filter_map(|pool| {
            Some(
                u64::from(pool.file()?.rows_count())
                    * (pool.dimensions() * size_of::<f32>()) as u64,
            )
        });
        Activity {
            store: self.path().display().to_string(),
            sequence: self.commits.last_sequence(),
            bytes_memory: self.state.memory_bytes()
                + cache.bytes_memory
                + cache.tier.memory_bytes
                + vectors_bytes as u64,
            bytes_mapped: mapped.sum(),
            bytes_disk: used_bytes(self.layout.base()),
            memory: self.memory,
            cache,
            numa: self.numa_stats(),
            queries: self.latencies.stats(),
            writes: self.writes.stats(),
        }
    }

    /// Measures the embedding cache.
    ///
    /// # Errors
    /// As [`Store::stats`].
    pub fn cache_stats(&self) -> Result<CacheStats> {
        self.cache.stats()
    }
}

fn words_of(collection: &Collection) -> Option<WordsStats> {
    #[cfg(feature = "keyword")]
    let measured = collection.keywords.measured();
    #[cfg(not(feature = "keyword"))]
    let (measured, _) = (None::<(usize, usize)>, collection);
    measured.map(|(bytes, records)| WordsStats { records: records as u64, bytes: bytes as u64 })
}

impl Stats {
    /// Takes over what is known now without looking through the store. What was counted stays: records,
    /// and embeddings.
    pub fn refresh(&mut self, now: Activity) {
        self.cache.refresh(now.cache);
        (self.store, self.sequence, self.memory) = (now.store, now.sequence, now.memory);
        (self.bytes_memory, self.bytes_disk) = (now.bytes_memory, now.bytes_disk);
        (self.numa, self.queries) = (now.numa, now.queries);
    }
}
