//! Slots: places of one size for vectors, each with a header of one cache line before it.
//!
//! | offset | size | field | |
//! |---|---|---|---|
//! | 0 | 16 | key | |
//! | 16 | 8 | expires_at_unix_ms | 0 is never |
//! | 24 | 4 | access | what readers leave: whoever decides about eviction gives it its meaning |
//! | 28 | 4 | generation | counts beginnings and ends of lives: odd while somebody lives here |
//! | 64 | 4 each | vector | padded to a cache line |
//!
//! Key, expiry and vector are written only while a slot is a [`FreeSlot`], which has one owner and
//! no readers; access and generation are atomic and may change at any time.

use std::cell::UnsafeCell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Contents, Placement};
use crate::error::Result;
use crate::os::cpu::{CACHE_LINE_BYTES, prefetch};
use crate::os::memory::{Pages, REGION_BYTES, Reservation};

/// The number of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(pub(crate) u32);

/// A slot that nobody can read, to be written by its owner.
#[derive(Debug)]
pub(super) struct FreeSlot(u32);

impl FreeSlot {
    /// The slot, to be published.
    pub(super) fn slot(&self) -> Slot {
        Slot(self.0)
    }
}

/// Slots that can be filled, and what their memory was. There is one of these for an arena, with
/// its writer.
#[derive(Debug, Default)]
pub(super) struct FreeSlots {
    /// The lowest is used first, so that the end becomes free.
    slots: BTreeSet<u32>,
    /// Memory up to here may be touched.
    committed_bytes: usize,
    /// Where lives of new slots begin to be counted: above all that were ended with their memory.
    first_generation: u32,
}

impl FreeSlots {
    pub(super) fn take(&mut self) -> Option<FreeSlot> {
        self.slots.pop_first().map(FreeSlot)
    }

    /// Takes back a slot that was not published since it was taken.
    pub(super) fn give_back(&mut self, free: FreeSlot) {
        self.slots.insert(free.0);
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Makes a slot free.
    ///
    /// # Safety
    /// It must have been published and taken out once since it was free, and nobody may be able to
    /// read it any more.
    #[expect(unsafe_code, reason = "whether somebody reads is known to the caller")]
    pub(super) unsafe fn add(&mut self, slot: Slot) {
        self.slots.insert(slot.0);
    }
}

/// The cache line before a vector.
#[repr(C, align(64))]
pub(super) struct Header {
    key: UnsafeCell<u128>,
    expires_at_unix_ms: UnsafeCell<u64>,
    pub(super) access: AtomicU32,
    pub(super) generation: AtomicU32,
}

const HEADER_BYTES: usize = size_of::<Header>();
const _: () = assert!(HEADER_BYTES == CACHE_LINE_BYTES);

/// Of a vector that somebody is going to read, as much as is asked for at once; whoever reads on is
/// noticed by the processor itself.
const PREFETCH_BYTES_MAX: usize = 2048;

/// Slots of one size in one reservation, each at a fixed address.
pub(super) struct Slots {
    memory: Reservation,
    dimensions: usize,
    slot_bytes: usize,
    slots_max: u32,
    /// Slots below are in use or free; those from here on hold nothing and have no whole page.
    minted: AtomicU32,
}

// SAFETY: the cells are written only through a FreeSlot, which one thread owns, and read only
// after the slot was published, which orders the two.
#[expect(unsafe_code, reason = "cells are not Sync by themselves")]
unsafe impl Sync for Header {}

impl Slots {
    /// Reserves slots for vectors of so many elements in at most `capacity_bytes` of memory.
    pub(super) fn new(
        dimensions: usize,
        capacity_bytes: usize,
        placement: &Placement,
    ) -> Result<Self> {
        let slot_bytes = slot_bytes(dimensions);
        let slots_max = u32::try_from(capacity_bytes / slot_bytes).unwrap_or(u32::MAX);
        Ok(Self {
            memory: placement.reserve(slots_max as usize * slot_bytes)?,
            dimensions,
            slot_bytes,
            slots_max,
            minted: AtomicU32::new(0),
        })
    }

    pub(super) fn dimensions(&self) -> usize {
        self.dimensions
    }

    pub(super) fn slot_bytes(&self) -> usize {
        self.slot_bytes
    }

    /// No slot that is in use is at or beyond this.
    pub(super) fn end(&self) -> u32 {
        self.minted.load(Ordering::Acquire)
    }

    /// Where those lie that were minted.
    pub(super) fn addresses(&self) -> Range<usize> {
        let start = self.memory.addresses().start;
        start..start + self.end() as usize * self.slot_bytes
    }

    /// Memory that was taken from the kernel.
    pub(super) fn memory_bytes(&self) -> usize {
        (self.end() as usize * self.slot_bytes).next_multiple_of(REGION_BYTES)
    }

    pub(super) fn header(&self, slot: Slot) -> &Header {
        assert!(slot.0 < self.end(), "the slot has memory");
        self.header_of_linked(slot)
    }

    /// The same for a slot whose memory may have been given back; `None` if it was. If that
    /// happens meanwhile, the header reads as zeros.
    pub(super) fn header_if_minted(&self, slot: Slot) -> Option<&Header> {
        (slot.0 < self.end()).then(|| self.header_at(slot))
    }

    /// The same for a slot that the table names, which always has memory: without asking.
    #[inline]
    pub(super) fn header_of_linked(&self, slot: Slot) -> &Header {
        debug_assert!(slot.0 < self.slots_max);
        self.header_at(slot)
    }

    #[inline]
    fn header_at(&self, slot: Slot) -> &Header {
        let header = self.address(slot).cast::<Header>();
        #[expect(unsafe_code, reason = "typed access to mapped memory")]
        // SAFETY: a slot that anybody knows lies in committed memory, which is never uncommitted
        // and reads as a valid header of zeros before its first life and after its last, aligned
        // because regions and slots are; all its fields can be shared.
        unsafe {
            header.as_ref()
        }
    }

    #[inline]
    fn address(&self, slot: Slot) -> NonNull<u8> {
        let offset_bytes = slot.0 as usize * self.slot_bytes;
        #[expect(unsafe_code, reason = "an address inside the reservation")]
        // SAFETY: the reservation holds `slots_max` slots, and every slot is below that.
        unsafe {
            self.memory.base().add(offset_bytes)
        }
    }

    #[inline]
    fn floats(&self, slot: Slot) -> NonNull<f32> {
        #[expect(unsafe_code, reason = "an address inside the slot")]
        // SAFETY: a slot begins with its header, and the vector follows.
        let vector = unsafe { self.address(slot).add(HEADER_BYTES) };
        vector.cast()
    }

    /// Begins to fetch the vector of a slot.
    #[inline]
    pub(super) fn prefetch(&self, slot: Slot) {
        let vector = self.address(slot).as_ptr().wrapping_add(HEADER_BYTES);
        let len_bytes = (self.slot_bytes - HEADER_BYTES).min(PREFETCH_BYTES_MAX);
        for offset in (0..len_bytes).step_by(CACHE_LINE_BYTES) {
            prefetch(vector.wrapping_add(offset));
        }
    }

    /// The key of a slot.
    ///
    /// # Safety
    /// The slot must have been published, and cannot have become a [`FreeSlot`] since.
    #[inline]
    #[expect(unsafe_code, reason = "whether somebody writes is known to the caller")]
    pub(super) unsafe fn key(&self, slot: Slot) -> u128 {
        // SAFETY: nobody writes the cell, as the caller promises.
        unsafe { *self.header_of_linked(slot).key.get() }
    }

    /// The expiry of a slot; 0 is never.
    ///
    /// # Safety
    /// As [`Self::key`].
    #[inline]
    #[expect(unsafe_code, reason = "whether somebody writes is known to the caller")]
    pub(super) unsafe fn expires_at_unix_ms(&self, slot: Slot) -> u64 {
        // SAFETY: nobody writes the cell, as the caller promises.
        unsafe { *self.header_of_linked(slot).expires_at_unix_ms.get() }
    }

    /// The vector of a slot. Shape: `[dimensions]`.
    ///
    /// # Safety
    /// As [`Self::key`], for as long as the slice is used.
    #[inline]
    #[expect(unsafe_code, reason = "whether somebody writes is known to the caller")]
    pub(super) unsafe fn vector(&self, slot: Slot) -> &[f32] {
        // SAFETY: the floats lie in the slot, were written before it was published, and nobody
        // writes them now, as the caller promises.
        unsafe { std::slice::from_raw_parts(self.floats(slot).as_ptr(), self.dimensions) }
    }

    /// Makes a slot; `None` if there is no more room, or `may_take` refuses so many bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Full`](crate::ErrorKind::Full) if the kernel has no memory for it.
    pub(super) fn mint(
        &self,
        free: &mut FreeSlots,
        may_take: impl FnOnce(usize) -> bool,
    ) -> Result<Option<FreeSlot>> {
        let slot = self.minted.load(Ordering::Relaxed);
        if slot == self.slots_max {
            return Ok(None);
        }
        let end_bytes = (slot as usize + 1) * self.slot_bytes;
        if end_bytes > free.committed_bytes {
            let wanted_bytes = end_bytes.next_multiple_of(REGION_BYTES);
            let more_bytes = wanted_bytes - free.committed_bytes;
            self.memory.commit(free.committed_bytes, more_bytes, Pages::HugeBehindFirst)?;
            free.committed_bytes = wanted_bytes;
        }
        if !may_take(self.slot_bytes) {
            return Ok(None);
        }
        self.minted.store(slot + 1, Ordering::Release);
        self.header(Slot(slot)).generation.store(free.first_generation, Ordering::SeqCst);
        Ok(Some(FreeSlot(slot)))
    }

    /// Gives the memory of the slots from `end` on back to the kernel, if all of them are free;
    /// returns how many bytes.
    pub(super) fn unmint(&self, free: &mut FreeSlots, end: u32) -> usize {
        let minted = self.minted.load(Ordering::Relaxed);
        if end >= minted || free.slots.range(end..).count() < (minted - end) as usize {
            return 0;
        }
        let generation = |slot| &self.header(Slot(slot)).generation;
        let generations = (end..minted).map(|slot| generation(slot).load(Ordering::Relaxed));
        free.first_generation = generations.fold(free.first_generation, u32::max);
        let offset_bytes = |slot: u32| slot as usize * self.slot_bytes;
        #[expect(unsafe_code, reason = "nobody is left to use the memory")]
        // SAFETY: free slots have no readers and no other owner. Who holds an old handle to one
        // reads nothing but the generation, an atomic, which is even then or 0.
        let discarded = unsafe { self.memory.discard(offset_bytes(end)..offset_bytes(minted)) };
        if let Err(error) = discarded {
            tracing::debug!(%error, "memory of the arena is not given back");
            // A part of it may be gone.
            let first_generation = free.first_generation;
            (end..minted)
                .for_each(|slot| generation(slot).store(first_generation, Ordering::SeqCst));
            return 0;
        }
        self.minted.store(end, Ordering::SeqCst);
        while free.slots.last().is_some_and(|slot| *slot >= end) {
            free.slots.pop_last();
        }
        offset_bytes(minted - end)
    }

    /// Fills a free slot, which can then be published.
    ///
    /// # Panics
    /// If the vector has another length.
    pub(super) fn fill(&self, free: &mut FreeSlot, contents: &Contents<'_>, access: u32) {
        assert_eq!(contents.vector.len(), self.dimensions, "vectors of an arena have one length");
        let slot = Slot(free.0);
        let header = self.header(slot);
        header.access.store(access, Ordering::Relaxed);
        #[expect(unsafe_code, reason = "writing mapped memory")]
        // SAFETY: a free slot has no readers, and the caller owns it.
        unsafe {
            *header.key.get() = contents.key;
        }
        #[expect(unsafe_code, reason = "writing mapped memory")]
        // SAFETY: as above.
        unsafe {
            *header.expires_at_unix_ms.get() = contents.expires_at_unix_ms;
        }
        #[expect(unsafe_code, reason = "writing mapped memory")]
        // SAFETY: the slot has room for the vector, whose length was just checked; what is
        // written is nobody's and does not overlap what a caller borrowed.
        unsafe {
            self.floats(slot)
                .copy_from_nonoverlapping(NonNull::from(contents.vector).cast(), self.dimensions);
        }
    }
}

/// Memory that one vector takes, its header included.
pub(crate) fn slot_bytes(dimensions: usize) -> usize {
    HEADER_BYTES + (dimensions * size_of::<f32>()).next_multiple_of(HEADER_BYTES)
}
