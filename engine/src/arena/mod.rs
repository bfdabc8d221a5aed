//! Arenas: vectors of one length in memory of our own, found by key without a lock.
//!
//! Invariants:
//! - A reader takes no lock, allocates nothing and makes no system call. What it found stays as it
//!   is until its [`HotVector`] is dropped: a slot that is taken out is used again only after all
//!   who could have found it have gone (see `epoch`).
//! - There is one [`Writer`]. It never changes a vector in place.
//! - An arena is a copy: whatever it holds is in RocksDB first. It decides nothing: who comes and
//!   who goes is the tier's business.
//!
//! Where the memory lies on a machine of several NUMA nodes is said by a [`Placement`].

mod epoch;
mod placement;
mod slots;
mod table;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::ops::{Deref, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use crate::error::Result;
use epoch::Guard;
pub(crate) use placement::Placement;
pub use placement::{NumaConfig, NumaPolicy};
use slots::{FreeSlot, FreeSlots, Header, Slots};
pub(crate) use slots::{Slot, slot_bytes};
use table::Table;

/// The expiry of what never expires.
pub(crate) const NEVER: u64 = 0;

/// What is put into a slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contents<'a> {
    /// A hash of what names the vector, uniform in all its bits and never of two vectors.
    pub(crate) key: u128,
    /// When the vector stops to be valid, or [`NEVER`].
    pub(crate) expires_at_unix_ms: u64,
    /// Shape: `[dimensions]` of the arena.
    pub(crate) vector: &'a [f32],
}

/// What of a vector its reader is going to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All of it, as it is copied: it is fetched while its key is still being compared.
    Whole,
    /// Whatever it may be.
    Part,
}

/// One life of a slot. Keeps nothing alive: [`Arena::resolve`] says whether it still is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handle {
    slot: Slot,
    generation: u32,
}

/// The readers' side: any number of threads.
pub(crate) struct Arena {
    shared: Arc<Shared>,
}

/// The writer's side: one thread at a time.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    residents_count: u32,
    free: FreeSlots,
    /// Taken out, with the epoch until which somebody may be reading; oldest first.
    departed: VecDeque<(u64, Slot)>,
    replaced_tables: Vec<(u64, Arc<Table>)>,
    /// A bug to be planted.
    #[cfg(test)]
    ignores_readers: bool,
}

struct Shared {
    slots: Slots,
    /// From an `Arc`. Replaced by the writer, who keeps what it replaced until nobody reads it.
    table: AtomicPtr<Table>,
    placement: Arc<Placement>,
}

/// Makes an arena for vectors of so many elements, for at most `capacity_bytes` of memory.
///
/// # Errors
/// [`ErrorKind::Full`](crate::ErrorKind::Full) if there is no address space or no memory.
pub(crate) fn create(
    dimensions: usize,
    capacity_bytes: usize,
    placement: Arc<Placement>,
) -> Result<(Arena, Writer)> {
    let table = Arc::new(Table::larger_than(None, &placement)?);
    let shared = Arc::new(Shared {
        slots: Slots::new(dimensions, capacity_bytes, &placement)?,
        table: AtomicPtr::new(Arc::into_raw(table).cast_mut()),
        placement,
    });
    let writer = Writer {
        shared: Arc::clone(&shared),
        residents_count: 0,
        free: FreeSlots::default(),
        departed: VecDeque::new(),
        replaced_tables: Vec::new(),
        #[cfg(test)]
        ignores_readers: false,
    };
    Ok((Arena { shared }, writer))
}

/// A vector in an arena, which stays as it is while this lives.
///
/// Keep it short: until it is dropped, no slot of any arena is used again.
pub(crate) struct HotVector<'a> {
    vector: &'a [f32],
    header: &'a Header,
    expires_at_unix_ms: u64,
    // Not Send: it is this thread that is registered as reading.
    _guard: Guard,
}

impl Arena {
    /// Finds the vector of a key.
    #[inline]
    pub(crate) fn find(&self, key: u128, wanted: Wanted) -> Option<HotVector<'_>> {
        let guard = epoch::pin();
        let slot = self.shared.find(key, wanted, &guard)?;
        Some(self.hot(slot, guard))
    }

    /// Finds what a handle meant, unless its slot has been given to another vector.
    pub(crate) fn resolve(&self, handle: Handle) -> Option<HotVector<'_>> {
        let guard = epoch::pin();
        // Pinned before: a slot that has this generation now stays as it is.
        let header = self.shared.slots.header_if_minted(handle.slot)?;
        let generation = header.generation.load(Ordering::SeqCst);
        (generation == handle.generation).then(|| self.hot(handle.slot, guard))
    }

    #[inline]
    fn hot(&self, slot: Slot, guard: Guard) -> HotVector<'_> {
        let slots = &self.shared.slots;
        #[expect(unsafe_code, reason = "the guard is what makes reading sound")]
        // SAFETY: the slot was published when the guard was taken, and does not become free while
        // the guard is held.
        let expires_at_unix_ms = unsafe { slots.expires_at_unix_ms(slot) };
        #[expect(unsafe_code, reason = "the guard is what makes reading sound")]
        // SAFETY: as above; the guard goes where the slice goes, which is lent no longer than that.
        let vector = unsafe { slots.vector(slot) };
        let header = slots.header_of_linked(slot);
        HotVector { vector, header, expires_at_unix_ms, _guard: guard }
    }

    /// Elements of every vector.
    pub(crate) fn dimensions(&self) -> usize {
        self.shared.slots.dimensions()
    }

    /// Where its memory lies: slots, and the table.
    pub(crate) fn addresses(&self) -> [Range<usize>; 2] {
        let guard = epoch::pin();
        [self.shared.slots.addresses(), self.shared.table(&guard).addresses()]
    }

    /// Memory taken from the kernel, the table included.
    pub(crate) fn memory_bytes(&self) -> usize {
        let guard = epoch::pin();
        self.shared.slots.memory_bytes() + self.shared.table(&guard).memory_bytes()
    }
}

impl HotVector<'_> {
    /// What readers leave for the policy.
    #[inline]
    pub(crate) fn access(&self) -> &AtomicU32 {
        &self.header.access
    }

    /// When it stops to be valid, or [`NEVER`].
    #[inline]
    pub(crate) fn expires_at_unix_ms(&self) -> u64 {
        self.expires_at_unix_ms
    }
}

impl Deref for HotVector<'_> {
    type Target = [f32];

    #[inline]
    fn deref(&self) -> &[f32] {
        self.vector
    }
}

impl AsRef<[f32]> for HotVector<'_> {
    fn as_ref(&self) -> &[f32] {
        self
    }
}

impl Shared {
    #[inline]
    fn table<'g>(&self, _guard: &'g Guard) -> &'g Table {
        let table = self.table.load(Ordering::Acquire);
        #[expect(unsafe_code, reason = "the guard is what makes reading sound")]
        // SAFETY: there is always a table, and one that is replaced is freed only after the guards
        // that could have seen it are gone.
        unsafe {
            &*table
        }
    }

    #[inline]
    fn find(&self, key: u128, wanted: Wanted, guard: &Guard) -> Option<Slot> {
        self.table(guard).find(key, |slot| {
            if wanted == Wanted::Whole {
                self.slots.prefetch(slot);
            }
            #[expect(unsafe_code, reason = "the guard is what makes reading sound")]
            // SAFETY: the table names only published slots, and none of those becomes free while
            // the guard is held.
            let found = unsafe { self.slots.key(slot) };
            found == key
        })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "nobody is left to use the table")]
        // SAFETY: it came from an `Arc`, readers borrow the arena and the writer shares this: both
        // are gone.
        let table = unsafe { Arc::from_raw(*self.table.get_mut()) };
        drop(table);
    }
}

impl Writer {
    /// Finds the slot of a key.
    pub(crate) fn find(&self, key: u128) -> Option<Slot> {
        self.shared.find(key, Wanted::Part, &epoch::pin())
    }

    /// Puts a vector under a key that has none; `None` if there is no room, or `may_take` refuses
    /// so many bytes of new memory.
    ///
    /// # Errors
    /// [`ErrorKind::Full`](crate::ErrorKind::Full) if the kernel has no memory.
    pub(crate) fn insert(
        &mut self,
        contents: &Contents<'_>,
        access: u32,
        may_take: impl FnOnce(usize) -> bool,
    ) -> Result<Option<Slot>> {
        let Some(free) = self.free_slot(may_take)? else { return Ok(None) };
        self.begin_life(free, contents, access).map(Some)
    }

    fn begin_life(
        &mut self,
        mut free: FreeSlot,
        contents: &Contents<'_>,
        access: u32,
    ) -> Result<Slot> {
        self.shared.slots.fill(&mut free, contents, access);
        let slot = free.slot();
        let guard = epoch::pin();
        if !self.shared.table(&guard).insert(contents.key, slot)
            && let Err(error) = self.grow(contents.key, slot, &guard)
        {
            self.free.give_back(free);
            return Err(error);
        }
        // Begins a life. Handles are made after this, so nobody asks before.
        self.shared.slots.header(slot).generation.fetch_add(1, Ordering::SeqCst);
        self.residents_count += 1;
        Ok(slot)
    }

    fn free_slot(&mut self, may_take: impl FnOnce(usize) -> bool) -> Result<Option<FreeSlot>> {
        if self.free.len() == 0 {
            self.collect();
        }
        match self.free.take() {
            Some(free) => Ok(Some(free)),
            None => self.shared.slots.mint(&mut self.free, may_take),
        }
    }

    /// Gives memory that holds nothing back: that of half of the unused slots, `count_max` at most,
    /// after moving whoever is in the last ones to free ones. Returns how many bytes; 0 if somebody
    /// reads there.
    ///
    /// `moved` hears from where, to where, and by which key.
    ///
    /// # Errors
    /// [`ErrorKind::Full`](crate::ErrorKind::Full) if the kernel has no memory.
    pub(crate) fn shrink(
        &mut self,
        count_max: u32,
        mut moved: impl FnMut(Slot, Slot, u128),
    ) -> Result<usize> {
        self.collect();
        let end = self.slots_end() - (self.unused_count() / 2).min(count_max);
        for slot in (end..self.slots_end()).map(Slot) {
            if self.access(slot).is_none() {
                continue;
            }
            let Some(new) = self.relocate(slot, end)? else { return Ok(0) };
            moved(slot, new, self.key(new));
        }
        Ok(self.shrink_to(end))
    }

    /// Gives the memory of the slots from `end` on back, if nobody is or reads there; returns how
    /// many bytes.
    pub(crate) fn shrink_to(&mut self, end: u32) -> usize {
        self.collect();
        self.shared.slots.unmint(&mut self.free, end)
    }

    /// Moves a vector to a free slot below `end`; `None` if there is none.
    fn relocate(&mut self, slot: Slot, end: u32) -> Result<Option<Slot>> {
        let Some(free) = self.free.take() else { return Ok(None) };
        if free.slot().0 >= end {
            self.free.give_back(free);
            return Ok(None);
        }
        let shared = Arc::clone(&self.shared);
        let key = self.key(slot);
        #[expect(unsafe_code, reason = "only the writer frees slots")]
        // SAFETY: the slot is resident, and the writer, who is here, takes it out only below.
        let expires_at_unix_ms = unsafe { shared.slots.expires_at_unix_ms(slot) };
        #[expect(unsafe_code, reason = "only the writer frees slots")]
        // SAFETY: as above.
        let vector = unsafe { shared.slots.vector(slot) };
        let access = shared.slots.header(slot).access.load(Ordering::Relaxed);
        let contents = Contents { key, expires_at_unix_ms, vector };
        // For a moment both are found, and are the same.
        let new = self.begin_life(free, &contents, access)?;
        self.remove(slot);
        Ok(Some(new))
    }

    /// Slots that have memory and hold nothing, those included that somebody may be reading.
    pub(crate) fn unused_count(&self) -> u32 {
        self.slots_end() - self.residents_count
    }

    /// Replaces the table by one that is large enough for one more.
    fn grow(&mut self, key: u128, slot: Slot, guard: &Guard) -> Result<()> {
        let shared = &self.shared;
        let old = shared.table(guard);
        let mut larger = Table::larger_than(Some(old), &shared.placement)?;
        let insert = |table: &Table, slot: Slot| {
            #[expect(unsafe_code, reason = "slots in the table were published")]
            // SAFETY: only the writer frees slots, and it is here.
            let key = unsafe { shared.slots.key(slot) };
            table.insert(key, slot)
        };
        while !(old.visit(|slot| insert(&larger, slot)) && larger.insert(key, slot)) {
            larger = Table::larger_than(Some(&larger), &shared.placement)?;
        }
        let larger = Arc::into_raw(Arc::new(larger)).cast_mut();
        let old = shared.table.swap(larger, Ordering::AcqRel);
        #[expect(unsafe_code, reason = "the old table goes when its readers have gone")]
        // SAFETY: it came from an `Arc`, which nobody else takes back: the writer is here.
        let old = unsafe { Arc::from_raw(old) };
        self.replaced_tables.push((epoch::end(), old));
        Ok(())
    }

    /// Takes a vector out. Its slot becomes free when nobody reads it any more.
    pub(crate) fn remove(&mut self, slot: Slot) {
        let key = self.key(slot);
        if !self.shared.table(&epoch::pin()).remove(key, slot) {
            return;
        }
        self.residents_count -= 1;
        // Ends this life: a handle to it finds nothing from here on.
        self.shared.slots.header(slot).generation.fetch_add(1, Ordering::SeqCst);
        self.departed.push_back((epoch::end(), slot));
    }

    /// Makes slots free that were taken out and have no readers any more.
    pub(crate) fn collect(&mut self) {
        if self.departed.is_empty() && self.replaced_tables.is_empty() {
            return;
        }
        let unread = epoch::last_unread();
        #[cfg(test)]
        let unread = if self.ignores_readers { u64::MAX } else { unread };
        while let Some(&(_, slot)) = self.departed.front().filter(|(epoch, _)| *epoch <= unread) {
            self.departed.pop_front();
            #[expect(unsafe_code, reason = "the epoch says that nobody reads")]
            // SAFETY: it was taken out of the table in an epoch of which nobody reads any more.
            unsafe {
                self.free.add(slot);
            }
        }
        self.replaced_tables.retain(|(epoch, _)| *epoch > unread);
    }

    /// The key of a slot that is resident.
    pub(crate) fn key(&self, slot: Slot) -> u128 {
        let _ = self.shared.slots.header(slot);
        #[expect(unsafe_code, reason = "only the writer frees slots")]
        // SAFETY: the writer is here, and does not free the slot meanwhile.
        unsafe {
            self.shared.slots.key(slot)
        }
    }

    /// What readers left in a slot; `None` if nobody is resident there.
    pub(crate) fn access(&self, slot: Slot) -> Option<&AtomicU32> {
        // Who asks may remember a slot whose memory was given back.
        let header = self.shared.slots.header_if_minted(slot)?;
        let lives = header.generation.load(Ordering::Relaxed) % 2 == 1;
        lives.then_some(&header.access)
    }

    /// A handle to the vector that is in a slot now.
    pub(crate) fn handle(&self, slot: Slot) -> Handle {
        let generation = self.shared.slots.header(slot).generation.load(Ordering::SeqCst);
        Handle { slot, generation }
    }

    /// Vectors in the arena.
    pub(crate) fn residents_count(&self) -> u32 {
        self.residents_count
    }

    /// Every resident slot is below.
    pub(crate) fn slots_end(&self) -> u32 {
        self.shared.slots.end()
    }

    /// Memory that one vector takes.
    pub(crate) fn slot_bytes(&self) -> usize {
        self.shared.slots.slot_bytes()
    }
}
