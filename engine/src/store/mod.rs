//! The story: open, put, get, remove, scan, embed, search, close. Detail lives below.
//!
//! A record with text refers to its embedding through the embedding cache; a vector that a caller
//! gave lies beside the record in the authority. A collection's vectors are brought into memory by
//! the first search, or its graph is opened if it has one, and kept up to date by every commit after
//! that.

mod audit;
mod collection;
mod compression;
mod difference;
mod drop;
mod examine;
mod expiry;
mod filter;
mod graph;
mod history;
mod journal;
#[cfg(feature = "keyword")]
mod keyword;
mod latency;
mod memory;
mod migrate;
mod numa;
mod open;
mod parts;
mod passed;
mod reembed;
mod scrub;
mod search;
mod snapshot;
mod space;
mod stats;
mod trace;
mod vectors;
mod warmth;
mod watch;
mod write;

use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use op_dbus_formats::embedding::EncodedEmbedding;
use op_dbus_formats::record::{self as format, EmbeddingSource};

use crate::arena::{NumaConfig, Placement};
use crate::cache::{CachedEmbedding, EmbeddingCache, Found, Removed};
use crate::db::commit::CommitQueue;
use crate::db::state::{Records, StateDatabase};
use crate::embed::{Embedder, EmbedderConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::layout::{Layout, StorePart};
use crate::os::clock::unix_ms;
use crate::os::file::Lock;
use crate::record::{Record, is_past, validate_key};
use crate::segment::SegmentDirectory;
use crate::snapshot::{SnapshotInfo, Snapshots};
use crate::tier::{PolicyKind, Recorder, Tier};

use audit::Audits;
pub use audit::RecallStats;
use collection::Collection;
pub use collection::{CollectionInfo, CollectionOptions, STATE_COLLECTION, STATE_VERSIONS_KEPT};
pub use compression::{Compressor, MountCompression};
pub use difference::{Difference, Differences};
pub use drop::DropProgress;
pub use examine::{LayoutReport, PartReport, examine_layout};
pub use graph::LinkOptions;
pub use history::Version;
use journal::JournalEnd;
use latency::Latencies;
pub use latency::QueryStats;
pub use memory::MemoryCap;
pub use migrate::{PartKind, migrate_layout, request_compression};
pub use numa::{ArenaResidency, NumaNode, NumaStats, numa_nodes};
pub use open::store_address;
pub use reembed::{ReembedProgress, Reembedded};
pub use scrub::{Fault, ScrubOptions, ScrubProgress, ScrubReport};
use space::{Admitted, Space};
use stats::Writes;
pub use stats::{Activity, CollectionStats, GraphStats, Stats, WordsStats, WriteStats};
pub use vectors::{Vector, Vectors};
use warmth::WarmUp;
use watch::Followers;
pub use watch::{Change, Watch};
pub use write::PutReport;

/// How far a caller's embedding may be from length 1: what f16 makes of one.
const UNIT_LENGTH_TOLERANCE: f64 = 1e-2;

/// What a store is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// To be changed, by this process alone.
    Write,
    /// To be read, beside others who do.
    Read,
    /// The same of a snapshot, in which nothing at all is written.
    Snapshot,
}

/// How to open a store.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    base: PathBuf,
    embedder: Option<EmbedderConfig>,
    create: bool,
    capacity_bytes: Option<u64>,
    cache_disk_bytes: Option<u64>,
    policy: PolicyKind,
    warm: bool,
    numa: NumaConfig,
    subvolumes: Vec<StorePart>,
    access: Access,
    taken_unix_ms: Option<u64>,
}

impl StoreConfig {
    /// Names the directory of the store, which is made if it is missing.
    #[must_use]
    pub fn new(base: impl Into<PathBuf>) -> Self {
        Self {
            base: base.into(),
            embedder: None,
            create: true,
            capacity_bytes: None,
            cache_disk_bytes: None,
            policy: PolicyKind::default(),
            warm: true,
            numa: NumaConfig::default(),
            subvolumes: StorePart::ALL.to_vec(),
            access: Access::Write,
            taken_unix_ms: None,
        }
    }

    /// Sets the model that turns text into vectors. It is loaded when first needed.
    #[must_use]
    pub fn with_embedder(mut self, embedder: EmbedderConfig) -> Self {
        self.embedder = Some(embedder);
        self
    }

    /// Sets the memory that the store may take: hot vectors and what the databases buffer.
    ///
    /// Unless set, a quarter of the machine's memory. A control group's limit lowers it to 70 % of
    /// that. Vectors brought together by a search come on top.
    #[must_use]
    pub fn with_capacity_bytes(mut self, capacity_bytes: u64) -> Self {
        self.capacity_bytes = Some(capacity_bytes);
        self
    }

    /// Sets how many bytes of embeddings of texts may lie on the disk; no limit unless set.
    ///
    /// A put that exceeds it removes the oldest, down to 90 % of it. What RocksDB needs besides, and
    /// what it has not yet given back, comes on top.
    #[must_use]
    pub fn with_cache_disk_bytes(mut self, bytes: u64) -> Self {
        self.cache_disk_bytes = Some(bytes);
        self
    }

    /// Sets who leaves memory when it is full.
    #[must_use]
    pub fn with_policy(mut self, policy: PolicyKind) -> Self {
        self.policy = policy;
        self
    }

    /// Sets where hot memory lies on a machine of several NUMA nodes, and where threads of the store
    /// run. Unless set, the kernel decides.
    #[must_use]
    pub fn with_numa(mut self, numa: NumaConfig) -> Self {
        self.numa = numa;
        self
    }

    /// Sets which directories are made as subvolumes where the store lies on BTRFS; all unless set. Those
    /// that are there stay what they are.
    #[must_use]
    pub fn with_subvolumes(mut self, parts: impl Into<Vec<StorePart>>) -> Self {
        self.subvolumes = parts.into();
        self
    }

    /// Neither brings back what was hot before nor keeps what is hot for the next time.
    ///
    /// For a process that asks little and ends: it would pay for warmth it does not use.
    #[must_use]
    pub fn cold(mut self) -> Self {
        self.warm = false;
        self
    }

    /// Opens a store that exists to read it, which takes a fraction of the time. Any number of processes
    /// may read it so at once.
    ///
    /// Nothing in it can be changed. What was counted, and embeddings of texts that were computed, are
    /// kept when it is closed, if nobody else has it open then. A store that has something to recover,
    /// after a crash, is opened by this process alone, and that is done.
    #[must_use]
    pub fn to_read(mut self) -> Self {
        self.access = Access::Read;
        self.existing().cold()
    }

    /// Opens a snapshot of the store instead, of which nothing can be changed.
    ///
    /// Any number of processes may have it open, beside the one that has the store.
    #[must_use]
    pub fn at_snapshot(self, snapshot: &SnapshotInfo) -> Self {
        let directory = Snapshots::of(&self.base).path(&snapshot.name);
        Self { taken_unix_ms: Some(snapshot.taken_unix_ms), ..self.in_snapshot(directory) }
    }

    fn in_snapshot(mut self, directory: PathBuf) -> Self {
        self.base = directory;
        self.access = Access::Snapshot;
        self.existing().cold()
    }

    /// Refuses a store that does not exist instead of making it.
    #[must_use]
    pub fn existing(mut self) -> Self {
        self.create = false;
        self
    }
}

/// An opened store.
pub struct Store {
    // First, so that it is stopped before what it uses is closed. `None` for one that opens cold.
    warm_up: Option<WarmUp>,
    layout: Layout,
    state: Arc<StateDatabase>,
    cache: Arc<EmbeddingCache>,
    segments: Arc<SegmentDirectory>,
    tier: Arc<Tier>,
    memory: MemoryCap,
    hash_seed: u64,
    /// Threads that work is spread over, on the processors that the store may use: asked once, because
    /// the answer is read from files of the kernel.
    threads: NonZero<usize>,
    recorder: Arc<Recorder>,
    latencies: Latencies,
    writes: Writes,
    audits: Audits,
    commits: CommitQueue,
    followers: Followers,
    journal_end: Mutex<JournalEnd>,
    space: Space,
    collections: RwLock<BTreeMap<String, Arc<Collection>>>,
    placement: Arc<Placement>,
    /// Of a snapshot.
    taken_unix_ms: Option<u64>,
    embedder_config: Option<EmbedderConfig>,
    embedder: OnceLock<Arc<Embedder>>,
    opening_embedder: Mutex<()>,
    access: Access,
    // Last, so that the databases are closed before somebody else may open them. `None` for a
    // snapshot.
    lock: Option<Lock>,
}

impl Store {
    /// Opens a store, which replays what a crash left in its log.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] if another process has it open, [`ErrorKind::NotFound`] if it is missing
    /// and must exist, [`ErrorKind::Unsupported`] if a newer version wrote it,
    /// [`ErrorKind::Corrupt`] if `@state` is damaged.
    pub fn open(config: StoreConfig) -> Result<Self> {
        open::open(config)
    }

    /// The directory of the store.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.layout.base()
    }

    /// Reads the record with this key.
    ///
    /// The vector of a record is part of it only if a caller gave it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such collection, [`ErrorKind::Corrupt`] if the record
    /// is damaged.
    pub fn get(&self, collection: &str, key: &[u8]) -> Result<Option<Record>> {
        validate_key(key)?;
        let collection = self.collection(collection)?;
        let record = self
            .state
            .record_and_vector(collection.spec.id, key)?
            .map(|stored| self.decode(&collection, key, &stored.record, stored.vector.as_deref()))
            .transpose()?;
        Ok(record.filter(|record| !is_past(record.expires_at_unix_ms, unix_ms())))
    }

    /// Walks the records whose keys start with `prefix`, in key order, as they are now.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such collection.
    pub fn scan(&self, collection: &str, prefix: &[u8]) -> Result<Scan<'_>> {
        self.scan_at(collection, prefix, unix_ms())
    }

    /// The same with what had not expired by then.
    fn scan_at(&self, collection: &str, prefix: &[u8], now_unix_ms: u64) -> Result<Scan<'_>> {
        let collection = self.collection(collection)?;
        let records = self.state.records(collection.spec.id, prefix);
        Ok(Scan { store: self, collection, records, now_unix_ms })
    }

    /// Returns the embedding of a text by the store's model, from the cache if it is there.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if no model is configured or it cannot be loaded.
    pub fn embed(&self, text: &str) -> Result<CachedEmbedding> {
        let embedder = self.embedder()?;
        let mut embeddings = self.cache.get_or_embed(&embedder, &[text])?;
        Ok(embeddings.remove(0))
    }

    /// The same for several texts, in their order, as few batches as it takes.
    ///
    /// # Errors
    /// As [`Store::embed`].
    pub fn embed_all(&self, texts: &[&str]) -> Result<Vec<CachedEmbedding>> {
        let embedder = self.embedder()?;
        self.cache.get_or_embed(&embedder, texts)
    }

    /// The number of the last committed change; 0 in a new store.
    #[must_use]
    pub fn last_sequence(&self) -> u64 {
        self.commits.last_sequence()
    }

    /// Notes, for whoever finds the store locked, where to ask instead.
    pub fn note_address(&self, address: &str) {
        if let Some(lock) = &self.lock {
            lock.note(address);
        }
    }

    /// Stores the embedding of a text that was computed elsewhere by the same model.
    ///
    /// Shape: `vector` is `[dimensions]` of the model.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the length differs or an element is not finite,
    /// [`ErrorKind::Full`] if it would not leave the room that the store needs.
    pub fn put_embedding(&self, text: &str, vector: &[f32]) -> Result<()> {
        let embedder = self.embedder()?;
        let dimensions = embedder.dimensions()?;
        if vector.len() != dimensions as usize {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "the vector has {} elements; the model {} makes {dimensions}",
                    vector.len(),
                    embedder.name()
                ),
            )
            .with_remedy("give a vector that this model made"));
        }
        let length = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        if (length - 1.0).abs() > UNIT_LENGTH_TOLERANCE {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("the vector has length {length:.4}; embeddings have length 1"),
            )
            .with_remedy("divide the vector by its length"));
        }
        self.admit_put(size_of_val(vector) as u64)?;
        self.cache.put_text(embedder.fingerprint(), text, vector)
    }

    /// Refuses to change what is only read.
    fn require_writable(&self) -> Result<()> {
        let (what, remedy) = match self.access {
            Access::Write => return Ok(()),
            Access::Read => ("is open to be read alone", "open it to write"),
            Access::Snapshot => (
                "is a snapshot, which cannot be changed",
                "change the store itself, or restore the snapshot to another directory",
            ),
        };
        let path = self.path().display();
        Err(Error::new(ErrorKind::Denied, format!("{path} {what}")).with_remedy(remedy))
    }

    /// Removes every cached embedding; records and callers' vectors stay.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] or [`ErrorKind::Full`] if the disk refuses; [`ErrorKind::Denied`] for a
    /// snapshot, as from everything that changes something.
    pub fn clear_cache(&self) -> Result<()> {
        self.require_writable()?;
        self.cache.clear()?;
        self.segments.discard()
    }

    /// Removes cached embeddings that were written so long ago; records and callers' vectors stay.
    ///
    /// # Errors
    /// As [`Store::clear_cache`].
    pub fn clean_cache(&self, older_than: Duration) -> Result<Removed> {
        self.require_writable()?;
        let age_ms = u64::try_from(older_than.as_millis()).unwrap_or(u64::MAX);
        self.cache.remove_written_before(unix_ms().saturating_sub(age_ms))
    }

    /// Returns the embedding of a text if it is known, without computing it.
    ///
    /// Cost of a hot one: as [`Vectors::get`].
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if no model is configured.
    pub fn embedding(&self, text: &str) -> Result<Option<Vector<'_>>> {
        let embedder = match self.embedder.get() {
            Some(embedder) => embedder,
            None => &self.embedder()?,
        };
        Ok(self.cache.find(embedder, text).map(|found| match found {
            Found::Hot(vector) => Vector::hot(vector),
            Found::Cold(vector) => Vector::cold(vector),
        }))
    }

    /// The store's model, opened when first asked for.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if none is configured; those of [`Embedder::open`].
    pub fn embedder(&self) -> Result<Arc<Embedder>> {
        if let Some(embedder) = self.embedder.get() {
            return Ok(Arc::clone(embedder));
        }
        let _opening = lock(&self.opening_embedder);
        if let Some(embedder) = self.embedder.get() {
            return Ok(Arc::clone(embedder));
        }
        let config = self.embedder_config.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, "no embedding model is configured")
                .with_remedy("open the store with a model, whose directory --model names")
        })?;
        let known = self.cache.known_model(&config.model_dir);
        let opened = Embedder::open(config, known)?.placed(Arc::clone(&self.placement));
        let opened = Arc::new(opened);
        if known != Some(opened.known()) {
            self.cache.put_known_model(&config.model_dir, &opened.known());
        }
        Ok(Arc::clone(self.embedder.get_or_init(|| opened)))
    }

    /// Whether the store was opened with a model, be it there or not.
    #[must_use]
    pub fn has_model(&self) -> bool {
        self.embedder_config.is_some()
    }

    /// Closes the store and keeps its counters and what is hot.
    ///
    /// Nothing acknowledged depends on this; a store that is only dropped loses statistics and
    /// warmth, and is opened more slowly next time.
    pub fn close(mut self) {
        match self.access {
            Access::Write => {}
            Access::Read => return self.close_read(),
            Access::Snapshot => return,
        }
        // It may be the first to start threads of sled.
        let _visit = self.placement.visit();
        self.all_collections().iter().for_each(|known| known.graph.wait_until_placed());
        self.save_warmth();
        self.save_graphs();
        self.cache.save_counters(&self.layout.cache_counters());
        // On a full disk the room is for the next opening, which knows how to get more.
        if self.space.is_relaxed() {
            self.state.write_out();
            self.cache.write_out();
        }
    }

    /// Keeps what may be lost, unless others would notice.
    fn close_read(self) {
        let is_alone = self.lock.as_ref().is_some_and(Lock::hold_alone);
        if !is_alone || !self.space.is_relaxed() {
            return;
        }
        self.cache.save_counters(&self.layout.cache_counters());
        if let Err(error) = self.cache.write_pending(self.memory.database()) {
            tracing::warn!(%error, "embeddings are not kept and will be computed again");
        }
    }

    fn decode(
        &self,
        collection: &Collection,
        key: &[u8],
        record: &[u8],
        vector: Option<&[u8]>,
    ) -> Result<Record> {
        let record = format::Record::decode(record)
            .map_err(|error| self.damaged(collection, "record", key, error))?;
        let vector = match record.embedding {
            EmbeddingSource::None | EmbeddingSource::Text => None,
            EmbeddingSource::Given => Some(self.decode_given(collection, key, vector)?),
        };
        Ok(Record {
            key: key.to_vec(),
            text: record.text.map(Into::into),
            vector,
            payload: record.payload.into_owned(),
            expires_at_unix_ms: record.expires_at_unix_ms,
        })
    }

    fn decode_given(
        &self,
        collection: &Collection,
        key: &[u8],
        vector: Option<&[u8]>,
    ) -> Result<Vec<f32>> {
        // An empty encoding is refused by its decoder, as a missing one must be.
        EncodedEmbedding::parse(vector.unwrap_or_default())
            .and_then(|embedding| embedding.to_vec())
            .map_err(|error| self.damaged(collection, "vector", key, error))
    }

    fn damaged(
        &self,
        collection: &Collection,
        what: &str,
        key: &[u8],
        error: op_dbus_formats::FormatError,
    ) -> Error {
        let (key, name) = (String::from_utf8_lossy(key), &collection.name);
        let path = self.state.path().display();
        Error::new(
            ErrorKind::Corrupt,
            format!("the {what} of key {key} in collection {name} is damaged in {path}"),
        )
        .with_source(error)
        .with_remedy("write the record again, or restore the store from an export")
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.path()).finish_non_exhaustive()
    }
}

/// Records of a collection in key order. Made by [`Store::scan`].
pub struct Scan<'a> {
    store: &'a Store,
    collection: Arc<Collection>,
    records: Records<'a>,
    now_unix_ms: u64,
}

impl Iterator for Scan<'_> {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        let (store, collection) = (self.store, &self.collection);
        loop {
            let next = self
                .records
                .next_with(|key, record, vector| store.decode(collection, key, record, vector));
            match next.transpose()?.flatten() {
                Ok(record) if is_past(record.expires_at_unix_ms, self.now_unix_ms) => {}
                record => return Some(record),
            }
        }
    }
}

/// Locks; what a panicking thread left behind is whole, because nothing here is half-changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
