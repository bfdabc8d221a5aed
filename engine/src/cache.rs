//! The embedding cache: (model fingerprint, text) → embedding, so that no text is computed twice.
//!
//! Keys are XXH3-128 under a seed that only this store knows, so that nobody can prepare two texts
//! that share a key. Lookups count; the [counters] outlive the process when the store is closed
//! properly and lose at most one process's share otherwise: they are statistics, not state.

mod compute;
mod counters;
mod flights;
mod notes;
mod pending;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use op_dbus_formats::collection::ModelFingerprint;
use op_dbus_formats::embedding::{self, EmbeddingKey, EncodedEmbedding, Encoding, Packing};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::arena::{Contents, HotVector, NEVER, Wanted};
use crate::db::DatabaseMemory;
use crate::db::cache::{CacheDatabase, Entry};
use crate::embed::Embedder;
use crate::error::{Error, ErrorKind, Result};
use crate::os::file::used_bytes;
use crate::os::random;
use crate::tier::{Departure, Fence, Pool, Tier, TierStats};
use counters::Counters;
use flights::Flights;
use notes::read_meta;
use pending::Pending;

const GENERATION: &str = "generation";

/// What is left of the cap when the oldest have gone, so that it does not happen at every put.
const DISK_LOW_WATER_PERCENT: u64 = 90;

/// The embedding of one text, and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct CachedEmbedding {
    /// Shape: `[dimensions]`; unit length.
    pub vector: Vec<f32>,
    /// Whether the cache had it.
    pub hit: bool,
    /// Whether the model saw only the text's beginning. Known only when it was computed now.
    pub truncated: bool,
    pub(crate) key: EmbeddingKey,
}

/// Figures of the embedding cache, all measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CacheStats {
    /// Embeddings stored.
    pub embeddings: u64,
    /// Memory held for them.
    pub bytes_memory: u64,
    /// Bytes on disk that they use.
    pub bytes_disk: u64,
    /// Bytes of embeddings that may be stored; `None` without a limit.
    pub bytes_disk_max: Option<u64>,
    /// Embeddings that were removed from the disk because there were too many.
    pub evictions_disk: u64,
    /// Lookups that found their embedding.
    pub hits: u64,
    /// Lookups that did not.
    pub misses: u64,
    /// Hits by lookups; `None` when there were no lookups.
    pub hit_rate: Option<f64>,
    /// Bytes of the same embeddings as plain f32, by bytes on disk; `None` when there are none.
    pub compression_ratio: Option<f64>,
    /// Hits times the mean time that computing one embedding took here.
    pub embed_seconds_saved: f64,
    /// Vectors in memory, those of records included.
    pub tier: TierStats,
    /// Hits in memory by lookups; `None` when there were no lookups.
    pub tier_hit_rate: Option<f64>,
}

/// Figures of the embedding cache that are known without looking through it; as in [`CacheStats`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheActivity {
    /// Memory held for embeddings.
    pub bytes_memory: u64,
    /// Bytes on disk that they use.
    pub bytes_disk: u64,
    /// Embeddings that were removed from the disk because there were too many.
    pub evictions_disk: u64,
    /// Embeddings that the model has computed.
    #[serde(default)]
    pub computed: u64,
    /// Lookups that found their embedding.
    pub hits: u64,
    /// Lookups that did not.
    pub misses: u64,
    /// Vectors in memory, those of records included.
    pub tier: TierStats,
}

impl CacheStats {
    /// Takes over what is known now of what can change without notice; what was counted stays.
    pub(crate) fn refresh(&mut self, now: CacheActivity) {
        let seconds_a_hit = self.embed_seconds_saved / (self.hits.max(1)) as f64;
        self.embed_seconds_saved = now.hits as f64 * seconds_a_hit;
        self.hit_rate = now.hit_rate();
        self.tier_hit_rate = now.tier.hit_rate();
        let CacheActivity {
            bytes_memory,
            bytes_disk,
            evictions_disk,
            computed: _,
            hits,
            misses,
            tier,
        } = now;
        (self.bytes_memory, self.bytes_disk) = (bytes_memory, bytes_disk);
        (self.evictions_disk, self.hits, self.misses) = (evictions_disk, hits, misses);
        self.tier = tier;
    }
}

impl CacheActivity {
    /// Hits by lookups; `None` when there were no lookups.
    #[must_use]
    pub fn hit_rate(&self) -> Option<f64> {
        let lookups = self.hits + self.misses;
        (lookups > 0).then(|| self.hits as f64 / lookups as f64)
    }
}

/// What was removed from the embedding cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// Embeddings.
    pub embeddings: u64,
    /// Their bytes, as they were stored.
    pub bytes: u64,
}

pub(crate) struct EmbeddingCache {
    db: CacheDatabase,
    /// Bytes of embeddings above which the oldest are removed.
    disk_max_bytes: Option<u64>,
    /// Held while embeddings are written or removed and shown to readers of hot ones.
    writing: Mutex<()>,
    seed: u64,
    tier: Arc<Tier>,
    /// Where the model's embeddings are hot, once it is known how long they are.
    pool: OnceLock<Arc<Pool>>,
    /// Changes when embeddings were removed or replaced: copies of them elsewhere are then useless.
    generation: AtomicU64,
    /// Embeddings that are being computed.
    flights: Flights,
    counters: Counters,
    /// What waits for the end where nothing is written before.
    pending: Pending,
}

/// An embedding that is known, where it was found.
pub(crate) enum Found<'a> {
    Hot(HotVector<'a>),
    Cold(Vec<f32>),
}

/// Where the cache lies, and with what it is opened.
pub(crate) struct CacheConfig<'a> {
    /// The database.
    pub(crate) path: &'a Path,
    /// The file of its counters.
    pub(crate) counters: &'a Path,
    pub(crate) seed: u64,
    pub(crate) memory: DatabaseMemory,
    /// Bytes of embeddings above which the oldest are removed.
    pub(crate) disk_max_bytes: Option<u64>,
    pub(crate) tier: Arc<Tier>,
}

impl EmbeddingCache {
    /// Opens the cache, making it if it is missing and replacing it if it is damaged.
    pub(crate) fn open(config: CacheConfig<'_>) -> Result<Self> {
        Self::of_database(CacheDatabase::open(config.path, config.memory)?, config)
    }

    /// Opens the cache and writes nothing, unless [`EmbeddingCache::write_pending`] is asked to.
    pub(crate) fn open_to_read(config: CacheConfig<'_>) -> Result<Self> {
        Self::of_database(CacheDatabase::open_to_read(config.path, config.memory)?, config)
    }

    fn of_database(db: CacheDatabase, config: CacheConfig<'_>) -> Result<Self> {
        let generation = match read_meta(&db, GENERATION) {
            Some(generation) => generation,
            // One that cannot be kept is none.
            None if !db.database().is_written() => u64::from_le_bytes(random::bytes()?),
            None => begin_generation(&db)?,
        };
        let generation = AtomicU64::new(generation);
        Ok(Self {
            db,
            disk_max_bytes: config.disk_max_bytes,
            writing: Mutex::default(),
            seed: config.seed,
            tier: config.tier,
            pool: OnceLock::new(),
            generation,
            flights: Flights::default(),
            counters: Counters::go_on(config.counters),
            pending: Pending::default(),
        })
    }

    pub(crate) fn key(&self, model: ModelFingerprint, text: &str) -> EmbeddingKey {
        let mut hasher = Xxh3::with_seed(self.seed);
        hasher.update(&model.0);
        hasher.update(text.as_bytes());
        EmbeddingKey(hasher.digest128())
    }

    /// Where the embeddings of this model are hot; `None` while their length is not known.
    fn pool(&self, embedder: &Embedder) -> Option<&Pool> {
        if let Some(pool) = self.pool.get() {
            return Some(pool);
        }
        let dimensions = embedder.known().dimensions?;
        let pool = self.tier.pool(dimensions as usize).ok()?;
        Some(self.pool.get_or_init(|| pool))
    }

    /// Finds the embedding of one text, which counts as a lookup.
    pub(crate) fn find(&self, embedder: &Embedder, text: &str) -> Option<Found<'_>> {
        let key = self.key(embedder.fingerprint(), text);
        let pool = self.pool(embedder);
        if let Some(hot) = pool.and_then(|pool| pool.get(key.0, Wanted::Part)) {
            self.count(true);
            return Some(Found::Hot(hot));
        }
        let cold = self.find_cold(pool, &[key]).remove(&key);
        self.count(cold.is_some());
        cold.map(Found::Cold)
    }

    /// Finds embeddings, hot ones and others, which are then promoted.
    fn find_all(
        &self,
        embedder: &Embedder,
        keys: &[EmbeddingKey],
    ) -> HashMap<EmbeddingKey, Vec<f32>> {
        let pool = self.pool(embedder);
        let mut found = HashMap::with_capacity(keys.len());
        let mut cold = Vec::new();
        for &key in keys {
            match pool.and_then(|pool| pool.get(key.0, Wanted::Whole)) {
                Some(hot) => {
                    found.insert(key, hot.to_vec());
                }
                None => cold.push(key),
            }
        }
        found.extend(self.find_cold(pool, &cold));
        found
    }

    fn find_cold(
        &self,
        pool: Option<&Pool>,
        keys: &[EmbeddingKey],
    ) -> HashMap<EmbeddingKey, Vec<f32>> {
        let fences: Vec<Option<Fence>> =
            keys.iter().map(|key| pool.map(|pool| pool.fence(key.0))).collect();
        let mut found = HashMap::with_capacity(keys.len());
        if let Some(pool) = pool {
            let mapped = |key: &EmbeddingKey| Some((*key, pool.mapped(key.0)?.0));
            found.extend(keys.iter().filter_map(mapped));
        }
        let rest: Vec<_> = keys.iter().filter(|key| !found.contains_key(key)).copied().collect();
        found.extend(self.vectors(&rest));
        for (key, fence) in keys.iter().zip(fences) {
            if let (Some(pool), Some(fence), Some(vector)) = (pool, fence, found.get(key))
                && vector.len() == pool.dimensions()
            {
                pool.promote(&contents(*key, vector), None, fence, self.tier.budget());
            }
        }
        found
    }

    /// Stores embeddings and makes room for them. Those in `known` replace others.
    fn put(
        &self,
        embeddings: &[(EmbeddingKey, &[f32])],
        known: &HashSet<EmbeddingKey>,
    ) -> Result<()> {
        let encoded: Vec<_> = embeddings
            .iter()
            .map(|(key, vector)| {
                embedding::encode(vector, Encoding::F32, Packing::Plain)
                    .map(|encoded| (*key, encoded))
                    .map_err(|error| {
                        Error::new(ErrorKind::Invalid, "an embedding cannot be stored")
                            .with_source(error)
                    })
            })
            .collect::<Result<_>>()?;
        if !self.db.database().is_written() {
            self.pending.add_embeddings(encoded);
            return Ok(());
        }
        let _writing = self.writing();
        self.db.put_embeddings(encoded, known)?;
        self.warm(embeddings);
        if let Err(error) = self.keep_below_cap() {
            tracing::warn!(%error, "the embedding cache stays larger than it may be");
        }
        Ok(())
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep_below_cap(&self) -> Result<()> {
        let Some(max_bytes) = self.disk_max_bytes else { return Ok(()) };
        if self.db.embeddings_bytes() <= max_bytes {
            return Ok(());
        }
        let low_bytes = max_bytes / 100 * DISK_LOW_WATER_PERCENT;
        let removed = self.remove_oldest(|_, bytes| bytes > low_bytes)?;
        self.counters.evicted.fetch_add(removed.embeddings, Ordering::Relaxed);
        Ok(())
    }

    /// Removes embeddings that were written before this time. Those that follow one that was
    /// written by a clock that stood later stay.
    pub(crate) fn remove_written_before(&self, unix_ms: u64) -> Result<Removed> {
        let _writing = self.writing();
        let removed = self
            .remove_oldest(|entry, _| entry.written_unix_ms < unix_ms)
            .map_err(|error| self.with_remedy(error))?;
        if removed.embeddings > 0 {
            self.db.reclaim().map_err(|error| self.with_remedy(error))?;
        }
        Ok(removed)
    }

    /// Removes the oldest embeddings, as long as `may_go` says so of one and of the bytes that
    /// there are with it, from the disk and from memory.
    fn remove_oldest(&self, may_go: impl Fn(&Entry, u64) -> bool) -> Result<Removed> {
        let mut removed = Removed::default();
        // Before the first, so that nothing brings back a copy of what is gone.
        self.end_generation()?;
        loop {
            let gone = self.db.remove_oldest(&may_go)?;
            if gone.is_empty() {
                break;
            }
            let pools = self.tier.pools();
            for entry in &gone {
                removed.embeddings += 1;
                removed.bytes += u64::from(entry.len_bytes);
                for pool in &pools {
                    pool.remove(entry.embedding.0, Departure::Change, self.tier.budget());
                }
            }
        }
        Ok(removed)
    }

    /// Makes embeddings hot that were just stored, while there is room.
    fn warm(&self, vectors: &[(EmbeddingKey, &[f32])]) {
        for (key, vector) in vectors {
            if let Ok(pool) = self.tier.pool(vector.len()) {
                pool.put(&contents(*key, vector), None, self.tier.budget());
            }
        }
    }

    /// Stores the embedding that a caller computed elsewhere with the same model.
    pub(crate) fn put_text(
        &self,
        model: ModelFingerprint,
        text: &str,
        vector: &[f32],
    ) -> Result<()> {
        let key = self.key(model, text);
        let stored = self.vectors(&[key]);
        // It may replace one, of which there may be copies that outlive this process.
        if stored.get(&key).is_some_and(|stored| stored != vector) {
            self.end_generation()?;
        }
        self.put(&[(key, vector)], &stored.into_keys().collect())
    }

    /// Which life of the cache this is: copies of embeddings from another one are useless.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn end_generation(&self) -> Result<()> {
        self.generation.store(begin_generation(&self.db)?, Ordering::Release);
        Ok(())
    }

    /// Reads the embeddings that are here; what cannot be read counts as missing.
    pub(crate) fn vectors(&self, keys: &[EmbeddingKey]) -> HashMap<EmbeddingKey, Vec<f32>> {
        let mut ascending = keys.to_vec();
        ascending.sort_unstable();
        ascending.dedup();
        let values = self.db.embeddings(&ascending);
        let decoded = ascending.iter().zip(values).filter_map(|(key, value)| {
            let vector = match value {
                Ok(bytes) => self.decode(&bytes?)?,
                Err(error) => {
                    tracing::warn!(%error, "a cached embedding cannot be read");
                    return None;
                }
            };
            Some((*key, vector))
        });
        decoded.collect()
    }

    fn decode(&self, bytes: &[u8]) -> Option<Vec<f32>> {
        match EncodedEmbedding::parse(bytes).and_then(|embedding| embedding.to_vec()) {
            Ok(vector) => Some(vector),
            Err(error) => {
                tracing::warn!(
                    database = %self.db.path().display(),
                    %error,
                    "a cached embedding is damaged; computing it again"
                );
                None
            }
        }
    }

    fn with_remedy(&self, error: Error) -> Error {
        if error.kind() != ErrorKind::Corrupt {
            return error;
        }
        let database = self.db.path().display();
        error.with_remedy(format!("remove {database}: what is in it is computed again"))
    }

    fn count(&self, hit: bool) {
        let counter = if hit { &self.counters.hits } else { &self.counters.misses };
        counter.add_one();
    }

    pub(crate) fn clear(&self) -> Result<()> {
        let _writing = self.writing();
        self.end_generation()?;
        self.db.clear_embeddings().map_err(|error| self.with_remedy(error))?;
        // After it, so that nobody promotes again what was read before.
        self.tier.clear();
        Ok(())
    }

    /// The database, for whoever checks it.
    pub(crate) fn database(&self) -> &CacheDatabase {
        &self.db
    }

    /// As [`Database::write_out`](crate::db::Database::write_out).
    pub(crate) fn write_out(&self) {
        self.db.write_out();
    }

    /// Whether this file of counters can be read, or is not there.
    pub(crate) fn check_counters(path: &Path) -> Result<()> {
        Counters::check(path)
    }

    /// Keeps what was counted in this file.
    pub(crate) fn save_counters(&self, path: &Path) {
        self.counters.save(path, self.tier_stats());
    }

    fn tier_stats(&self) -> TierStats {
        let mut stats = self.tier.stats();
        stats.add_counts(self.counters.tier_before());
        stats
    }

    /// Measures what is known without looking through the embeddings.
    pub(crate) fn activity(&self) -> CacheActivity {
        CacheActivity {
            hits: self.counters.hits(),
            misses: self.counters.misses(),
            evictions_disk: self.counters.evicted.load(Ordering::Relaxed),
            computed: self.counters.computed.load(Ordering::Relaxed),
            bytes_memory: self.db.memory_bytes(),
            bytes_disk: used_bytes(self.db.path()),
            tier: self.tier_stats(),
        }
    }

    pub(crate) fn stats(&self) -> Result<CacheStats> {
        let (mut embeddings, mut plain_bytes) = (0_u64, 0_u64);
        let count = |bytes: &[u8]| {
            if let Ok(embedding) = EncodedEmbedding::parse(bytes) {
                embeddings += 1;
                plain_bytes += (embedding.dimensions() * size_of::<f32>()) as u64;
            }
        };
        self.db.for_each_embedding(count).map_err(|error| self.with_remedy(error))?;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let activity = self.activity();
        let CacheActivity { hits, misses, bytes_disk, .. } = activity;
        let computed = load(&self.counters.computed);
        let compute_seconds = load(&self.counters.compute_nanos) as f64 / 1e9;
        let ratio = |part: f64, whole: f64| (whole > 0.0 && part > 0.0).then(|| part / whole);
        Ok(CacheStats {
            hit_rate: activity.hit_rate(),
            tier_hit_rate: activity.tier.hit_rate(),
            tier: activity.tier,
            embeddings,
            bytes_memory: activity.bytes_memory,
            bytes_disk,
            bytes_disk_max: self.disk_max_bytes,
            evictions_disk: activity.evictions_disk,
            hits,
            misses,
            compression_ratio: ratio(plain_bytes as f64, bytes_disk as f64),
            embed_seconds_saved: hits as f64
                * ratio(compute_seconds, computed as f64).unwrap_or(0.0),
        })
    }
}

fn contents(key: EmbeddingKey, vector: &[f32]) -> Contents<'_> {
    Contents { key: key.0, expires_at_unix_ms: NEVER, vector }
}

/// Makes a number that no earlier life of the cache has had, and writes it down.
fn begin_generation(db: &CacheDatabase) -> Result<u64> {
    let generation = u64::from_le_bytes(random::bytes()?);
    db.put_meta(GENERATION, generation.to_string().as_bytes())?;
    Ok(generation)
}
