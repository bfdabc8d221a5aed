//! A pool: the hot vectors of one length, and who among them comes and goes.
//!
//! Readers touch only the arena and a few counters. All that changes the arena happens at the
//! *desk*, which one thread has at a time; a reader who wants to promote and finds the desk taken
//! does not wait, but leaves the vector cold this once.
//!
//! A vector that is read from RocksDB may be replaced there before it is promoted. So every reader
//! takes a [`Fence`] *before* it reads, every change raises it *after* it was committed, and what
//! comes with an outdated fence is not promoted.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::TierStats;
use super::budget::Budget;
use super::counters::Counter;
use super::policy::{Access, Policy, PolicyKind, Residents, Sampler, Water};
use super::trace::Recorder;
use crate::arena::{self, Arena, Contents, Handle, HotVector, Placement, Slot, Wanted, Writer};
use crate::error::Result;
use crate::segment::ArenaFile;

/// Memory given back at a time: several of the largest slots, and copied in a millisecond.
const RELEASE_BYTES: usize = 1 << 20;
/// Fences; keys share them by hash, which costs a promotion now and then.
const FENCES_COUNT: usize = 1024;

/// The state of a key's place among the changes, before it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fence(u64);

/// Why a vector left its arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Departure {
    /// The policy chose it, to make room.
    Capacity,
    /// It was replaced or removed.
    Change,
    /// Its time was over.
    Expiry,
}

pub(crate) struct Pool {
    arena: Arena,
    /// Coarse time, the same for all pools: see [`Access`].
    clock: Arc<AtomicU32>,
    desk: Mutex<Desk>,
    fences: Box<[AtomicU64]>,
    recorder: Arc<Recorder>,
    mapped: RwLock<Option<Arc<Mapped>>>,
    pub(super) counters: Counters,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(super) hits: Counter,
    pub(super) misses: Counter,
    pub(super) promoted: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) skipped: AtomicU64,
    pub(super) departed: [AtomicU64; 3],
}

/// An arena file that is read until everything in it is in the arena.
struct Mapped {
    file: Arc<ArenaFile>,
    /// Keys whose vectors in the file are no longer theirs.
    outdated: Mutex<HashSet<u128>>,
}

impl Mapped {
    fn outdated(&self) -> MutexGuard<'_, HashSet<u128>> {
        self.outdated.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writers' side of a pool.
struct Desk {
    writer: Writer,
    policy: Box<dyn Policy>,
    sampler: Sampler,
    /// What names the vector in a slot beyond this process, where its key alone does not.
    locators: Vec<Option<Box<[u8]>>>,
    inserts_per_tick: u32,
    inserts_since_tick: u32,
}

/// A resident, as it is saved.
pub(crate) struct Resident {
    pub(crate) handle: Handle,
    pub(crate) key: u128,
    pub(crate) access: Access,
    pub(crate) locator: Option<Box<[u8]>>,
}

impl Pool {
    pub(super) fn new(
        dimensions: usize,
        budget: &Budget,
        kind: PolicyKind,
        clock: Arc<AtomicU32>,
        recorder: Arc<Recorder>,
        placement: Arc<Placement>,
    ) -> Result<Self> {
        let slot_bytes = arena::slot_bytes(dimensions);
        let capacity_slots =
            u32::try_from(budget.capacity_bytes() / slot_bytes).unwrap_or(u32::MAX);
        let (arena, writer) = arena::create(dimensions, budget.capacity_bytes(), placement)?;
        let desk = Desk {
            writer,
            policy: kind.build(capacity_slots),
            sampler: Sampler::new(),
            locators: Vec::new(),
            inserts_per_tick: Water::of(capacity_slots).inserts_per_tick,
            inserts_since_tick: 0,
        };
        Ok(Self {
            arena,
            clock,
            desk: Mutex::new(desk),
            fences: (0..FENCES_COUNT).map(|_| AtomicU64::new(0)).collect(),
            recorder,
            mapped: RwLock::new(None),
            counters: Counters::default(),
        })
    }

    /// Finds a hot vector and marks it as used.
    #[inline]
    pub(crate) fn get(&self, key: u128, wanted: Wanted) -> Option<HotVector<'_>> {
        self.recorder.record(key_hash(key), self.arena.dimensions() * size_of::<f32>());
        let Some(hot) = self.arena.find(key, wanted) else {
            self.counters.misses.add_one();
            return None;
        };
        self.counters.hits.add_one();
        let seen = Access(hot.access().load(Ordering::Relaxed));
        let touched = seen.touched(self.clock.load(Ordering::Relaxed));
        // Written only if it says something new, so that readers of what is hottest share its line.
        if touched != seen {
            hot.access().store(touched.0, Ordering::Relaxed);
        }
        Some(hot)
    }

    /// Finds a resident that was listed, without marking it as used.
    pub(crate) fn resolve(&self, resident: &Resident) -> Option<HotVector<'_>> {
        // It may have been moved since.
        self.arena.resolve(resident.handle).or_else(|| self.arena.find(resident.key, Wanted::Part))
    }

    pub(crate) fn dimensions(&self) -> usize {
        self.arena.dimensions()
    }

    pub(crate) fn fence(&self, key: u128) -> Fence {
        Fence(self.fence_of(key).load(Ordering::SeqCst))
    }

    fn fence_of(&self, key: u128) -> &AtomicU64 {
        &self.fences[(key >> 64) as usize % FENCES_COUNT]
    }

    /// Answers from this file, but for outdated keys, until it is [unmapped](Self::unmap).
    pub(crate) fn map(&self, file: Arc<ArenaFile>, outdated: HashSet<u128>) {
        let mapped = Mapped { file, outdated: Mutex::new(outdated) };
        *self.mapped.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(mapped));
    }

    /// Stops to answer from the file.
    pub(crate) fn unmap(&self) {
        *self.mapped.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The file that is being answered from.
    pub(crate) fn file(&self) -> Option<Arc<ArenaFile>> {
        Some(Arc::clone(&self.current_map()?.file))
    }

    fn current_map(&self) -> Option<Arc<Mapped>> {
        self.mapped.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads a cold vector and its expiry from the file; what cannot be read there is not there.
    pub(crate) fn mapped(&self, key: u128) -> Option<(Vec<f32>, u64)> {
        let mapped = self.current_map()?;
        if mapped.outdated().contains(&key) {
            return None;
        }
        match mapped.file.find(key) {
            Ok(found) => found.map(|found| (found.vector.to_vec(), found.expires_at_unix_ms)),
            Err(error) => {
                tracing::warn!(%error, "a file of vectors is damaged; reading from RocksDB");
                None
            }
        }
    }

    /// Brings back a vector that was hot before, from the file.
    pub(crate) fn warm_from_file(
        &self,
        contents: &Contents<'_>,
        locator: Option<&[u8]>,
        access: Access,
        budget: &Budget,
    ) {
        let mut desk = self.desk();
        // At the desk, so that no change comes between the question and the answer.
        let outdated = self.current_map().is_none_or(|map| map.outdated().contains(&contents.key));
        if !outdated && !budget.is_full() && desk.writer.find(contents.key).is_none() {
            self.insert(&mut desk, contents, locator, access, budget);
        }
    }

    /// Brings back a vector that was hot before, read from RocksDB after the fence was taken.
    pub(crate) fn warm(
        &self,
        contents: &Contents<'_>,
        locator: Option<&[u8]>,
        access: Access,
        fence: Fence,
        budget: &Budget,
    ) {
        let mut desk = self.desk();
        let changed = self.fence(contents.key) != fence;
        if !changed && !budget.is_full() && desk.writer.find(contents.key).is_none() {
            self.insert(&mut desk, contents, locator, access, budget);
        }
    }

    /// Brings in a vector that was read from RocksDB, if the policy admits it.
    pub(crate) fn promote(
        &self,
        contents: &Contents<'_>,
        locator: Option<&[u8]>,
        fence: Fence,
        budget: &Budget,
    ) {
        // A reader does not wait for another one, nor for a demotion.
        let Ok(mut desk) = self.desk.try_lock() else {
            self.counters.skipped.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let changed = self.fence(contents.key) != fence;
        if changed || desk.writer.find(contents.key).is_some() {
            return;
        }
        let hash = key_hash(contents.key);
        let now = self.clock.load(Ordering::Relaxed);
        let Desk { writer, policy, .. } = &mut *desk;
        if !policy.admit(hash, budget.is_full(), &View { writer, now }) {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let access = Access::new(now);
        self.insert(&mut desk, contents, locator, access, budget);
        self.counters.promoted.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes note that a vector was written; keeps the new one if the old one was hot.
    ///
    /// Others wait for their first reader: to bring in each that is written took a sixth of the
    /// time of a put, and a load of many would wash out what is hot.
    pub(crate) fn put(&self, contents: &Contents<'_>, locator: Option<&[u8]>, budget: &Budget) {
        let mut desk = self.desk();
        if self.forget(&mut desk, contents.key, Departure::Change, budget) {
            let access = Access::new(self.clock.load(Ordering::Relaxed));
            self.insert(&mut desk, contents, locator, access, budget);
            self.counters.promoted.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes note that a vector was removed, or its time was over.
    pub(crate) fn remove(&self, key: u128, why: Departure, budget: &Budget) {
        self.forget(&mut self.desk(), key, why, budget);
    }

    fn forget(&self, desk: &mut Desk, key: u128, why: Departure, budget: &Budget) -> bool {
        self.fence_of(key).fetch_add(1, Ordering::SeqCst);
        if let Some(mapped) = self.current_map() {
            mapped.outdated().insert(key);
        }
        let Some(slot) = desk.writer.find(key) else { return false };
        desk.policy.removed(slot.0);
        self.depart(desk, slot, why, budget);
        true
    }

    fn insert(
        &self,
        desk: &mut Desk,
        contents: &Contents<'_>,
        locator: Option<&[u8]>,
        access: Access,
        budget: &Budget,
    ) {
        let slot = match desk.writer.insert(contents, access.0, |bytes| budget.grant(bytes)) {
            Ok(Some(slot)) => slot,
            // Demotion has not caught up, or memory is short: it stays cold.
            Ok(None) => {
                self.counters.skipped.fetch_add(1, Ordering::Relaxed);
                return budget.ask_for_room();
            }
            Err(error) => {
                tracing::debug!(%error, "a vector stays cold");
                return;
            }
        };
        let index = slot.0 as usize;
        if desk.locators.len() <= index {
            desk.locators.resize_with(index + 1, || None);
        }
        desk.locators[index] = locator.map(Into::into);
        desk.policy.inserted(slot.0, key_hash(contents.key));
        desk.inserts_since_tick += 1;
        if desk.inserts_since_tick >= desk.inserts_per_tick {
            desk.inserts_since_tick = 0;
            self.clock.fetch_add(1, Ordering::Relaxed);
        }
        budget.add(desk.writer.slot_bytes());
    }

    /// Where the memory of its vectors lies.
    pub(crate) fn addresses(&self) -> [Range<usize>; 2] {
        self.arena.addresses()
    }

    /// Vectors that are hot.
    pub(super) fn residents_count(&self) -> u32 {
        self.desk().writer.residents_count()
    }

    /// How long vectors of this pool have not been used, in ticks: the mean of some; `None` if
    /// none is found soon, because there are few.
    pub(super) fn mean_age(&self) -> Option<u32> {
        const DRAWN_COUNT: u32 = 8;
        let mut desk = self.desk();
        let now = self.clock.load(Ordering::Relaxed);
        let Desk { writer, sampler, .. } = &mut *desk;
        let mut sum = 0_u64;
        let count = sampler.draw(
            &View { writer, now },
            DRAWN_COUNT,
            |_| true,
            |_, access| sum += u64::from(access.age(now)),
        );
        Some(sum.checked_div(count.into())? as u32)
    }

    /// Demotes up to `count` vectors by the policy's choice; returns how many it did.
    pub(super) fn demote(&self, count: usize, budget: &Budget) -> usize {
        let mut desk = self.desk();
        let now = self.clock.load(Ordering::Relaxed);
        for demoted in 0..count {
            let Desk { writer, policy, .. } = &mut *desk;
            let Some(slot) = policy.choose(&View { writer, now }) else { return demoted };
            self.depart(&mut desk, Slot(slot), Departure::Capacity, budget);
        }
        desk.writer.collect();
        count
    }

    /// Memory that holds nothing.
    pub(super) fn unused_bytes(&self) -> usize {
        let desk = self.desk();
        desk.writer.unused_count() as usize * desk.writer.slot_bytes()
    }

    /// Gives some of the memory that holds nothing back to the kernel: little at a time, so that
    /// nobody waits long for the desk.
    pub(super) fn release(&self, budget: &Budget) {
        let mut desk = self.desk();
        let Desk { writer, policy, locators, .. } = &mut *desk;
        let count_max = (RELEASE_BYTES / writer.slot_bytes()).max(1) as u32;
        let released = writer.shrink(count_max, |old, new, key| {
            // To the policy it is a newcomer, with the hits that it had.
            policy.removed(old.0);
            policy.inserted(new.0, key_hash(key));
            locators.swap(old.0 as usize, new.0 as usize);
        });
        match released {
            Ok(bytes) => budget.take_back(bytes),
            Err(error) => tracing::debug!(%error, "memory is not given back"),
        }
    }

    /// Takes out everything.
    pub(super) fn clear(&self, budget: &Budget) {
        let mut desk = self.desk();
        for fence in &self.fences {
            fence.fetch_add(1, Ordering::SeqCst);
        }
        self.unmap();
        for slot in (0..desk.writer.slots_end()).map(Slot) {
            if desk.writer.access(slot).is_some() {
                desk.policy.removed(slot.0);
                self.depart(&mut desk, slot, Departure::Change, budget);
            }
        }
        budget.take_back(desk.writer.shrink_to(0));
    }

    fn depart(&self, desk: &mut Desk, slot: Slot, why: Departure, budget: &Budget) {
        desk.writer.remove(slot);
        desk.locators[slot.0 as usize] = None;
        budget.subtract(desk.writer.slot_bytes());
        self.counters.departed[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many vectors came or went since the store was opened, those brought back apart.
    pub(crate) fn changes_count(&self) -> u64 {
        let departed = self.counters.departed.iter().map(|count| count.load(Ordering::Relaxed));
        self.counters.promoted.load(Ordering::Relaxed) + departed.sum::<u64>()
    }

    /// Whether anybody has read or changed anything.
    pub(crate) fn was_used(&self) -> bool {
        self.counters.hits.sum() > 0 || self.changes_count() > 0
    }

    /// The residents with what is known of them, hottest first.
    pub(crate) fn residents(&self) -> Vec<Resident> {
        let desk = self.desk();
        let now = self.clock.load(Ordering::Relaxed);
        let mut residents: Vec<Resident> = (0..desk.writer.slots_end())
            .map(Slot)
            .filter_map(|slot| {
                let access = Access(desk.writer.access(slot)?.load(Ordering::Relaxed));
                Some(Resident {
                    handle: desk.writer.handle(slot),
                    key: desk.writer.key(slot),
                    access,
                    locator: desk.locators[slot.0 as usize].clone(),
                })
            })
            .collect();
        drop(desk);
        residents.sort_unstable_by_key(|resident| {
            (std::cmp::Reverse(resident.access.frequency()), resident.access.age(now))
        });
        residents
    }

    /// Adds what this pool holds and has done.
    pub(super) fn add_to(&self, stats: &mut TierStats) {
        let desk = self.desk();
        let locators = desk.locators.iter().flatten().map(|locator| locator.len()).sum::<usize>()
            + desk.locators.capacity() * size_of::<Option<Box<[u8]>>>();
        stats.hot_vectors += u64::from(desk.writer.residents_count());
        drop(desk);
        let counters = &self.counters;
        let departed = |why: Departure| counters.departed[why as usize].load(Ordering::Relaxed);
        stats.memory_bytes += (self.arena.memory_bytes() + locators) as u64;
        stats.hits += counters.hits.sum();
        stats.misses += counters.misses.sum();
        stats.promotions += counters.promoted.load(Ordering::Relaxed);
        stats.refusals += counters.refused.load(Ordering::Relaxed);
        stats.skipped += counters.skipped.load(Ordering::Relaxed);
        stats.evictions.capacity += departed(Departure::Capacity);
        stats.evictions.change += departed(Departure::Change);
        stats.evictions.expiry += departed(Departure::Expiry);
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        // What a panicking thread left is whole: a slot is linked or free.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a policy and a trace know a key by.
fn key_hash(key: u128) -> u64 {
    key as u64
}

/// The desk as a policy sees it.
struct View<'a> {
    writer: &'a Writer,
    now: u32,
}

impl Residents for View<'_> {
    fn slots_end(&self) -> u32 {
        self.writer.slots_end()
    }

    fn access(&self, slot: u32) -> Option<Access> {
        let access = self.writer.access(Slot(slot))?;
        Some(Access(access.load(Ordering::Relaxed)))
    }

    fn set_access(&self, slot: u32, access: Access) {
        if let Some(place) = self.writer.access(Slot(slot)) {
            place.store(access.0, Ordering::Relaxed);
        }
    }

    fn key_hash(&self, slot: u32) -> u64 {
        key_hash(self.writer.key(Slot(slot)))
    }

    fn now(&self) -> u32 {
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_moved_keeps_its_name_and_its_hits() {
        const COUNT: u32 = 1000;
        let directory = tempfile::tempdir().unwrap();
        let recorder = Arc::new(Recorder::open(directory.path().join("trace"), [0; 16]));
        let budget = Budget::new(1 << 20);
        let policy = PolicyKind::S3Fifo;
        let pool = Pool::new(8, &budget, policy, Arc::default(), recorder, Arc::default()).unwrap();
        let name = |number: u32| number.to_le_bytes();
        for number in 0..COUNT {
            let vector = [number as f32; 8];
            let contents = Contents { key: number.into(), expires_at_unix_ms: 0, vector: &vector };
            pool.promote(&contents, Some(&name(number)), pool.fence(contents.key), &budget);
        }
        let kept = |number: u32| number % 4 == 3;
        for number in 0..COUNT {
            match kept(number) {
                true => drop(
                    (0..number % 9)
                        .map(|_| pool.get(number.into(), Wanted::Part))
                        .collect::<Vec<_>>(),
                ),
                false => pool.remove(number.into(), Departure::Change, &budget),
            }
        }
        let before = pool.residents();
        pool.release(&budget);
        assert!(pool.unused_bytes() < 600 * arena::slot_bytes(8), "nothing was given back");
        assert_eq!(pool.residents_count(), COUNT / 4);
        for resident in pool.residents() {
            let number = resident.key as u32;
            assert!(kept(number));
            assert_eq!(resident.locator.as_deref(), Some(&name(number)[..]));
            assert_eq!(u32::from(resident.access.frequency()), number % 9);
        }
        // Who was listed before is found where it is now.
        let moved = before.iter().filter(|before| pool.arena.resolve(before.handle).is_none());
        assert!(moved.count() > 0, "nobody was moved");
        for resident in &before {
            assert_eq!(pool.resolve(resident).unwrap()[0], resident.key as f32);
        }
        // The policy knows them all still.
        assert_eq!(pool.demote(COUNT as usize, &budget), COUNT as usize / 4);
    }
}
