//! The table: key → slot, probed without a lock.
//!
//! A bucket is one cache line of eight entries; an entry is half a hash, to tell keys apart without
//! looking at their slots, and the number of a slot. A key lies in its first bucket, or in its
//! second if the first was full when it came. (Two-choice hashing with buckets: Azar et al. 1994;
//! one relocation when both are full: Pagh & Rodler 2001.)
//!
//! One writer at a time; readers need nothing but the memory to stay. While an entry moves to its
//! first bucket, a reader may miss it: for a cache that is a detour, not a wrong answer.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Placement, Slot};
use crate::error::Result;
use crate::os::memory::{Pages, REGION_BYTES, Reservation};

const BUCKET_ENTRIES: usize = 8;

#[repr(C, align(64))]
struct Bucket([AtomicU64; BUCKET_ENTRIES]);

impl Bucket {
    /// The entries that have a tag: a bit for each.
    ///
    /// Looks at all, because where the right one is cannot be predicted: a loop that ends there
    /// keeps the processor from reading ahead.
    #[inline]
    fn tagged(&self, tag: u32) -> u32 {
        let tags = self.0.iter().map(|entry| (entry.load(Ordering::Relaxed) >> 32) as u32);
        tags.zip(0..).fold(0, |tagged, (found, bit)| tagged | u32::from(found == tag) << bit)
    }
}

/// Buckets in memory of their own, which begins as zeros.
pub(super) struct Table {
    memory: Reservation,
    buckets_count: usize,
    /// Known to the writer only.
    used: AtomicU64,
}

/// No slot: what memory begins with.
const EMPTY: u64 = 0;
const _: () = assert!(size_of::<Bucket>() == 64);
/// The first table: whoever asks one question must not touch the pages of a large one.
const LEN_MIN_BYTES: usize = 64 << 10;

impl Table {
    /// Makes a table of few buckets, or of twice as many as `smaller` has.
    pub(super) fn larger_than(smaller: Option<&Self>, placement: &Placement) -> Result<Self> {
        let len_bytes = smaller.map_or(LEN_MIN_BYTES, |smaller| 2 * smaller.memory_bytes());
        let memory = placement.reserve(len_bytes)?;
        let pages = if len_bytes < REGION_BYTES { Pages::Ordinary } else { Pages::Huge };
        memory.commit(0, len_bytes.next_multiple_of(REGION_BYTES), pages)?;
        let buckets_count = len_bytes / size_of::<Bucket>();
        Ok(Self { memory, buckets_count, used: AtomicU64::new(0) })
    }

    /// Where it lies.
    pub(super) fn addresses(&self) -> Range<usize> {
        self.memory.addresses()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.buckets_count * size_of::<Bucket>()
    }

    #[inline]
    fn buckets(&self) -> &[Bucket] {
        #[expect(unsafe_code, reason = "typed access to mapped memory")]
        // SAFETY: the whole reservation is committed, aligned, as long as so many buckets at least, and
        // reads as zeros from the beginning, which atomics may.
        unsafe {
            std::slice::from_raw_parts(self.memory.base().as_ptr().cast(), self.buckets_count)
        }
    }

    #[inline]
    fn first_bucket(&self, key: u128) -> usize {
        key as usize & (self.buckets_count - 1)
    }

    /// The other bucket of a key; the same function leads back.
    #[inline]
    fn other_bucket(&self, bucket: usize, tag: u32) -> usize {
        // An odd multiplier spreads the tag over the buckets; never 0, so the two differ.
        let step = (tag as usize).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20 | 1;
        (bucket ^ step) & (self.buckets_count - 1)
    }

    /// Finds the slot of a key; `is_it` compares a slot's key with it.
    #[inline]
    pub(super) fn find(&self, key: u128, mut is_it: impl FnMut(Slot) -> bool) -> Option<Slot> {
        let tag = tag(key);
        let buckets = self.buckets();
        let first = self.first_bucket(key);
        for bucket in [first, self.other_bucket(first, tag)] {
            let bucket = &buckets[bucket];
            let mut tagged = bucket.tagged(tag);
            while tagged != 0 {
                // Pairs with the release of `insert`: what is in the slot is seen with it.
                let entry = bucket.0[tagged.trailing_zeros() as usize].load(Ordering::Acquire);
                // By now it may be another, or none.
                if let Some(slot) = slot_of(entry)
                    && is_it(slot)
                {
                    return Some(slot);
                }
                tagged &= tagged - 1;
            }
        }
        None
    }

    /// Publishes a slot under a key that is not there; `false` if the table must grow first.
    pub(super) fn insert(&self, key: u128, slot: Slot) -> bool {
        // Beyond this, more and more keys would lie in their second bucket.
        let entries = (self.buckets_count * BUCKET_ENTRIES) as u64;
        if self.used.load(Ordering::Relaxed) * 4 >= entries * 3 {
            return false;
        }
        let tag = tag(key);
        let entry = entry_of(tag, slot);
        let first = self.first_bucket(key);
        let second = self.other_bucket(first, tag);
        let placed = self.place(first, entry)
            || self.place(second, entry)
            || self.make_room(first, entry)
            || self.make_room(second, entry);
        if placed {
            self.used.fetch_add(1, Ordering::Relaxed);
        }
        placed
    }

    fn place(&self, bucket: usize, entry: u64) -> bool {
        let bucket = &self.buckets()[bucket].0;
        let Some(free) = bucket.iter().find(|entry| entry.load(Ordering::Relaxed) == EMPTY) else {
            return false;
        };
        free.store(entry, Ordering::Release);
        true
    }

    /// Moves one entry of a full bucket to that entry's other bucket.
    fn make_room(&self, bucket: usize, entry: u64) -> bool {
        for place in &self.buckets()[bucket].0 {
            let resident = place.load(Ordering::Relaxed);
            if self.place(self.other_bucket(bucket, (resident >> 32) as u32), resident) {
                // It can be found at its other place before it vanishes here.
                place.store(entry, Ordering::Release);
                return true;
            }
        }
        false
    }

    /// Takes a slot out; says whether it was there.
    pub(super) fn remove(&self, key: u128, slot: Slot) -> bool {
        let tag = tag(key);
        let first = self.first_bucket(key);
        for bucket in [first, self.other_bucket(first, tag)] {
            for entry in &self.buckets()[bucket].0 {
                if entry.load(Ordering::Relaxed) == entry_of(tag, slot) {
                    entry.store(EMPTY, Ordering::Release);
                    self.used.fetch_sub(1, Ordering::Relaxed);
                    return true;
                }
            }
        }
        false
    }

    /// Hands every slot to `visit`, until it answers `false`; says whether it never did.
    pub(super) fn visit(&self, mut visit: impl FnMut(Slot) -> bool) -> bool {
        let entries = self.buckets().iter().flat_map(|bucket| &bucket.0);
        let mut slots = entries.filter_map(|entry| slot_of(entry.load(Ordering::Acquire)));
        slots.all(&mut visit)
    }
}

/// The part of a key that an entry repeats; apart from the bits that choose the bucket. Never that
/// of an empty entry.
#[inline]
fn tag(key: u128) -> u32 {
    (key >> 96) as u32 | 1
}

#[inline]
fn entry_of(tag: u32, slot: Slot) -> u64 {
    u64::from(tag) << 32 | (u64::from(slot.0) + 1)
}

#[inline]
fn slot_of(entry: u64) -> Option<Slot> {
    (entry as u32).checked_sub(1).map(Slot)
}
