//! Coming back warm: what was hot when the store was closed is hot again soon after it is opened.
//!
//! An arena file holds the hot vectors themselves, and is mapped at once; heat says what they are
//! called and which are hottest, and is all that is needed where the file is missing. A thread of
//! its own brings both back into arenas, hottest first, while the store already answers.
//!
//! All of this is derived: deleted, damaged or outdated, it costs warmth and nothing else.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use op_dbus_formats::collection::CollectionId;
use op_dbus_formats::embedding::{EmbeddingKey, EncodedEmbedding};
use op_dbus_formats::record as format;

use super::Store;
use super::collection::Collection;
use crate::arena::{Contents, NEVER};
use crate::cache::EmbeddingCache;
use crate::db::state::StateDatabase;
use crate::error::{Error, ErrorKind, Result};
use crate::heat::{self, Count};
use crate::segment::{ArenaContent, ArenaRow, SegmentDirectory};
use crate::tier::{Access, Pool, Resident, Tier};

/// What a locator begins with: an embedding's key follows, or a collection's id and a record's key.
const OF_EMBEDDING: u8 = b'E';
const OF_RECORD: u8 = b'R';
/// Rows read from a file between two looks at whether the store is being closed.
const ROWS_COUNT: u32 = 512;
/// A new file is worth its writing when this part of what is hot is not in the old one.
const WORTH_PART: u64 = 8;

/// What is needed to bring vectors back, shared with the thread that does.
pub(super) struct Sources {
    pub(super) state: Arc<StateDatabase>,
    pub(super) cache: Arc<EmbeddingCache>,
    pub(super) tier: Arc<Tier>,
    pub(super) segments: Arc<SegmentDirectory>,
    pub(super) heat: PathBuf,
}

/// The thread that brings vectors back.
pub(super) struct WarmUp {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<bool>>,
}

impl Sources {
    /// Maps the arena files whose vectors are those of this state; others are useless.
    pub(super) fn map_files(&self, collections: &[Arc<Collection>], sequence: u64) {
        for file in self.segments.arena_files() {
            let dimensions = file.dimensions();
            let of_now =
                file.sequence() <= sequence && file.cache_generation() == self.cache.generation();
            let outdated = if of_now {
                self.changed_since(collections, dimensions, file.sequence())
            } else {
                Ok(None)
            };
            match (outdated, self.tier.pool(dimensions as usize)) {
                (Ok(Some(outdated)), Ok(pool)) => pool.map(file, outdated),
                (Ok(None), _) => {
                    tracing::info!(dimensions, "a file of vectors is of another time");
                    if let Err(error) = self.segments.discard() {
                        tracing::warn!(%error, "files of vectors cannot be removed");
                    }
                    return;
                }
                (Err(error), _) | (_, Err(error)) => {
                    tracing::warn!(%error, "a file of vectors is not used");
                }
            }
        }
    }

    /// What the tier knows those vectors by that were changed; `None` if that is not known any more.
    fn changed_since(
        &self,
        collections: &[Arc<Collection>],
        dimensions: u32,
        sequence: u64,
    ) -> Result<Option<HashSet<u128>>> {
        let mut outdated = HashSet::new();
        let known = self.state.for_each_change_after(sequence, |change| {
            let collection = collections.iter().find(|known| known.spec.id == change.collection);
            if let Some(collection) = collection
                && collection.spec.dimensions == dimensions
            {
                outdated.insert(collection.tier_key(change.key));
            }
        })?;
        Ok(known.then_some(outdated))
    }

    /// Begins to bring back what was hot.
    pub(super) fn warm_up(self, collections: Vec<Arc<Collection>>) -> Result<WarmUp> {
        let ended = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new()
            .name("op-dbus-warm-up".to_owned())
            .spawn({
                let ended = Arc::clone(&ended);
                move || self.bring_back(&collections, &ended)
            })
            .map_err(|error| {
                Error::new(ErrorKind::Full, "cannot start a thread")
                    .with_source(error)
                    .with_remedy("raise the limit of processes (ulimit -u, TasksMax)")
            })?;
        Ok(WarmUp { ended, thread: Some(thread) })
    }

    /// Returns whether it was done before the store was closed.
    fn bring_back(&self, collections: &[Arc<Collection>], ended: &AtomicBool) -> bool {
        let counts = heat::load(&self.heat);
        let mut hot: HashMap<u128, Count> = counts
            .into_iter()
            .filter_map(|(locator, heat)| {
                let key = locate(&locator, collections)?.key();
                Some((key, (locator, heat)))
            })
            .collect();
        for pool in self.tier.pools() {
            self.fill_from_file(&pool, &mut hot, ended);
            if ended.load(Ordering::Relaxed) {
                return false;
            }
            pool.unmap();
        }
        let mut rest: Vec<Count> = hot.into_values().collect();
        rest.sort_unstable_by_key(|(_, heat)| std::cmp::Reverse(*heat));
        for (locator, heat) in rest {
            if ended.load(Ordering::Relaxed) {
                return false;
            }
            if self.tier.budget().is_full() {
                break;
            }
            if let Err(error) = self.fill_from_database(&locator, heat, collections) {
                tracing::debug!(%error, "a vector stays cold");
            }
        }
        true
    }

    fn fill_from_file(&self, pool: &Pool, hot: &mut HashMap<u128, Count>, ended: &AtomicBool) {
        let Some(file) = pool.file() else { return };
        for first in (0..file.rows_count()).step_by(ROWS_COUNT as usize) {
            if ended.load(Ordering::Relaxed) || self.tier.budget().is_full() {
                return;
            }
            let read = file.read_rows(first, ROWS_COUNT, |key, expires_at_unix_ms, vector| {
                let contents = Contents { key, expires_at_unix_ms, vector };
                let (locator, heat) = hot.remove(&key).unzip();
                let locator = locator.as_deref().and_then(kept_locator);
                pool.warm_from_file(&contents, locator, access(heat), self.tier.budget());
            });
            if let Err(error) = read {
                tracing::warn!(%error, "a file of vectors is damaged; reading the rest from RocksDB");
                return;
            }
        }
    }

    fn fill_from_database(
        &self,
        locator: &[u8],
        heat: u32,
        collections: &[Arc<Collection>],
    ) -> Result<()> {
        let Some(located) = locate(locator, collections) else { return Ok(()) };
        let key = located.key();
        let read = |vector: Vec<f32>, expires_at_unix_ms: u64, pool: &Pool, fence| {
            let contents = Contents { key, expires_at_unix_ms, vector: &vector };
            let budget = self.tier.budget();
            pool.warm(&contents, kept_locator(locator), access(Some(heat)), fence, budget);
        };
        match located {
            Located::Embedding(key) => {
                let find = || self.cache.vectors(&[key]).remove(&key);
                let Some(vector) = find() else { return Ok(()) };
                let pool = self.tier.pool(vector.len())?;
                // Its length says in which pool; what is read before the fence may be outdated.
                let fence = pool.fence(key.0);
                if let Some(vector) = find().filter(|vector| vector.len() == pool.dimensions()) {
                    read(vector, NEVER, &pool, fence);
                }
            }
            Located::Record(collection, key) => {
                let pool = self.tier.pool(collection.spec.dimensions as usize)?;
                let fence = pool.fence(collection.tier_key(key));
                let stored = self.state.record_and_vector(collection.spec.id, key)?;
                let Some(stored) = stored else { return Ok(()) };
                let Some(vector) = stored.vector else { return Ok(()) };
                let damaged = |error: op_dbus_formats::FormatError| {
                    Error::new(ErrorKind::Corrupt, "a record is damaged").with_source(error)
                };
                let record = format::Record::decode(&stored.record).map_err(damaged)?;
                let vector = EncodedEmbedding::parse(&vector).and_then(|vector| vector.to_vec());
                let expires_at_unix_ms = record.expires_at_unix_ms.unwrap_or(NEVER);
                read(vector.map_err(damaged)?, expires_at_unix_ms, &pool, fence);
            }
        }
        Ok(())
    }
}

impl WarmUp {
    /// Waits until it is done, or stops it; returns whether it was done.
    fn stop(&mut self) -> bool {
        self.ended.store(true, Ordering::Relaxed);
        // It panics only by a defect, which its own message has told.
        self.thread.take().is_some_and(|thread| thread.join().unwrap_or(false))
    }

    /// Whether there is nothing left to bring back.
    pub(super) fn is_done(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for WarmUp {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Store {
    /// Whether everything that was hot when the store was closed is hot again.
    #[must_use]
    pub fn is_warm(&self) -> bool {
        self.warm_up.as_ref().is_none_or(WarmUp::is_done)
    }

    /// Keeps what is hot for the next time. What cannot be kept costs warmth.
    pub(super) fn save_warmth(&mut self) {
        let Some(mut warm_up) = self.warm_up.take() else { return };
        if !warm_up.stop() {
            // What was hot before is better known than what is hot now.
            return;
        }
        let mut counts = Vec::new();
        let mut changed = false;
        for pool in self.tier.pools() {
            // Before the residents are listed: what is committed after it is replayed.
            let sequence = self.commits.last_sequence();
            let residents = pool.residents();
            changed |= pool.was_used();
            if pool.changes_count() * WORTH_PART >= residents.len() as u64 {
                self.seal(&pool, sequence, &residents).unwrap_or_else(|error| {
                    tracing::warn!(%error, "hot vectors are not kept in a file");
                });
            }
            counts.extend(residents.iter().map(|resident| (locator(resident), heat_of(resident))));
        }
        if changed && let Err(error) = heat::save(&self.layout.heat(), counts.into_iter()) {
            tracing::warn!(%error, "what is hot is not kept");
        }
    }

    fn seal(&self, pool: &Pool, sequence: u64, residents: &[Resident]) -> Result<()> {
        if pool.changes_count() == 0 {
            return Ok(());
        }
        let unfit = |_| Error::new(ErrorKind::Invalid, "more vectors than a file can have");
        let content = ArenaContent {
            dimensions: u32::try_from(pool.dimensions()).map_err(unfit)?,
            sequence,
            cache_generation: self.cache.generation(),
            rows_count_max: u32::try_from(residents.len()).map_err(unfit)?,
        };
        let rows = residents.iter().filter_map(|resident| {
            let vector = pool.resolve(resident)?;
            let expires_at_unix_ms = vector.expires_at_unix_ms();
            Some(ArenaRow { key: resident.key, expires_at_unix_ms, vector })
        });
        self.segments.seal(&content, rows)
    }
}

/// What a locator names.
enum Located<'a> {
    Embedding(EmbeddingKey),
    Record(&'a Collection, &'a [u8]),
}

impl Located<'_> {
    /// What the tier knows it by.
    fn key(&self) -> u128 {
        match self {
            Self::Embedding(key) => key.0,
            Self::Record(collection, key) => collection.tier_key(key),
        }
    }
}

/// Understands a locator; `None` for one of a collection that is gone, or of another version.
fn locate<'a>(locator: &'a [u8], collections: &'a [Arc<Collection>]) -> Option<Located<'a>> {
    let (&tag, name) = locator.split_first()?;
    match tag {
        OF_EMBEDDING => {
            let key = name.try_into().ok()?;
            Some(Located::Embedding(EmbeddingKey(u128::from_be_bytes(key))))
        }
        OF_RECORD => {
            let (id, key) = name.split_first_chunk()?;
            let id = CollectionId(u32::from_be_bytes(*id));
            let collection = collections.iter().find(|known| known.spec.id == id)?;
            Some(Located::Record(collection, key))
        }
        _ => None,
    }
}

/// The locator of the vector of a record.
pub(super) fn record_locator(CollectionId(id): CollectionId, key: &[u8]) -> Vec<u8> {
    [&[OF_RECORD], &id.to_be_bytes()[..], key].concat()
}

/// The locator that a pool keeps beside a vector: none for an embedding, whose key says it all.
fn kept_locator(locator: &[u8]) -> Option<&[u8]> {
    (locator.first() != Some(&OF_EMBEDDING)).then_some(locator)
}

fn locator(resident: &Resident) -> Vec<u8> {
    match &resident.locator {
        Some(locator) => locator.to_vec(),
        None => [&[OF_EMBEDDING], &resident.key.to_be_bytes()[..]].concat(),
    }
}

/// How hot a vector is: how often it was used lately. Nothing that is kept has been used never.
fn heat_of(resident: &Resident) -> u32 {
    u32::from(resident.access.frequency()) + 1
}

/// What readers had left, as far as heat says it.
fn access(heat: Option<u32>) -> Access {
    let frequency = heat.map_or(0, |heat| heat.saturating_sub(1).min(u32::from(u8::MAX)) as u8);
    Access::new(0).with_frequency(frequency)
}
