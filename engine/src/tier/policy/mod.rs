//! Who leaves a full pool, and who may come into it.
//!
//! A pool of vectors fills to its high-water mark and is then emptied to its low-water mark, one
//! [`Policy::choose`] a vector ([`Water`]). Readers take no lock and call nobody: a hit leaves its
//! trace in the slot's [`Access`] word, which a policy reads when it has to decide. Everything here
//! runs under the pool's one mutex, on behalf of misses and demotions alone.
//!
//! # What holds
//! - What a policy remembers is about slots that are resident, and about a number of keys in
//!   proportion to the pool's capacity: some tens of bytes a slot in all.
//! - A slot that was freed and is used again starts a new life: nothing that a policy knew about
//!   the earlier one counts against it.
//! - Decisions follow from the calls alone, so that a simulation can be repeated.
//!
//! What is deliberately lacking: the vectors and their sizes. All slots of a pool are of one size.

mod ghost;
mod lru;
mod queue;
mod s3fifo;
mod sample;
mod sketch;
mod tinylfu;

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};
pub(super) use sample::Sampler;

pub(crate) const HIGH_WATER_PERCENT: u64 = 90;
pub(crate) const LOW_WATER_PERCENT: u64 = 85;
/// How often the clock ticks while as many vectors come in as fit: the finest age that is told.
const TICKS_PER_CAPACITY: u32 = 4096;

/// How far a pool fills, how far it is emptied, and how fast insertions move the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Water {
    /// An insertion that makes more residents than this starts demotions.
    pub(crate) high_slots: u32,
    /// Demotions end when no more residents than this are left.
    pub(crate) low_slots: u32,
    /// The clock ticks once in so many insertions.
    pub(crate) inserts_per_tick: u32,
}

impl Water {
    /// The marks of a pool with this many slots.
    pub(crate) fn of(capacity_slots: u32) -> Self {
        let part = |percent: u64| (u64::from(capacity_slots) * percent / 100) as u32;
        Self {
            high_slots: part(HIGH_WATER_PERCENT),
            low_slots: part(LOW_WATER_PERCENT),
            inserts_per_tick: (capacity_slots / TICKS_PER_CAPACITY).max(1),
        }
    }

    /// Whether one more resident takes another's place.
    ///
    /// Between the marks it does: that room was made by demotions and is for the next to come.
    pub(crate) fn is_full(self, residents_count: u32) -> bool {
        residents_count >= self.low_slots
    }
}

/// What a reader leaves in a slot at each hit: when, and how often.
///
/// Bits 0 to 3 count hits and stop at 15; bits 4 to 31 are a clock, which wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access(pub(crate) u32);

impl Access {
    /// The highest frequency that is told apart.
    pub(crate) const FREQUENCY_MAX: u8 = 15;
    const FREQUENCY_BITS: u32 = 4;

    /// Of a vector that comes in at `now` and was not hit yet.
    #[inline]
    pub(crate) fn new(now: u32) -> Self {
        Self(now << Self::FREQUENCY_BITS)
    }

    /// After a hit at `now`.
    #[inline]
    pub(crate) fn touched(self, now: u32) -> Self {
        Self::new(now).with_frequency(self.frequency().saturating_add(1))
    }

    #[inline]
    pub(crate) fn frequency(self) -> u8 {
        (self.0 & u32::from(Self::FREQUENCY_MAX)) as u8
    }

    /// Ticks since the last hit, or since it came in.
    pub(crate) fn age(self, now: u32) -> u32 {
        let stamp_now = Self::new(now).0 >> Self::FREQUENCY_BITS;
        let wrapped = stamp_now.wrapping_sub(self.0 >> Self::FREQUENCY_BITS);
        wrapped & (u32::MAX >> Self::FREQUENCY_BITS)
    }

    #[inline]
    pub(crate) fn with_frequency(self, frequency: u8) -> Self {
        let frequency = u32::from(frequency.min(Self::FREQUENCY_MAX));
        Self(self.0 & !u32::from(Self::FREQUENCY_MAX) | frequency)
    }
}

/// The entries that a policy chooses among. Slots are numbered from 0 and used again.
pub(crate) trait Residents {
    /// Every resident's slot is below.
    fn slots_end(&self) -> u32;
    /// What was left at the last hit; `None` if nobody is in the slot.
    fn access(&self, slot: u32) -> Option<Access>;
    /// Replaces it. A hit at the same time may win.
    fn set_access(&self, slot: u32, access: Access);
    /// The hash of a resident's key.
    fn key_hash(&self, slot: u32) -> u64;
    /// The clock, in ticks.
    fn now(&self) -> u32;
}

/// Who comes in and who goes.
pub(crate) trait Policy: Send {
    /// Says whether a key that is not resident, and was asked for, should be brought in.
    ///
    /// `full` is [`Water::is_full`].
    fn admit(&mut self, key_hash: u64, full: bool, residents: &dyn Residents) -> bool;

    /// Hears that a key was brought into a slot.
    fn inserted(&mut self, slot: u32, key_hash: u64);

    /// Hears that a slot was emptied for another reason than this policy's choice.
    fn removed(&mut self, slot: u32);

    /// Chooses who goes next and forgets it; `None` only if nobody is resident.
    fn choose(&mut self, residents: &dyn Residents) -> Option<u32>;
}

/// The policies there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PolicyKind {
    /// Approximate least recently used; when full, a key comes in at its second request.
    #[default]
    Lru,
    /// Two FIFO queues and a memory of who left (Yang et al. 2023).
    S3Fifo,
    /// Estimated frequencies behind a small window (Einziger et al. 2017).
    TinyLfu,
}

impl PolicyKind {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 3] = [Self::Lru, Self::S3Fifo, Self::TinyLfu];

    /// Makes a policy for a pool of about this many slots.
    pub(crate) fn build(self, capacity_slots_hint: u32) -> Box<dyn Policy> {
        match self {
            Self::Lru => Box::new(lru::Lru::new(capacity_slots_hint)),
            Self::S3Fifo => Box::new(s3fifo::S3Fifo::new(capacity_slots_hint)),
            Self::TinyLfu => Box::new(tinylfu::TinyLfu::new(capacity_slots_hint)),
        }
    }
}

impl fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Lru => "lru",
            Self::S3Fifo => "s3fifo",
            Self::TinyLfu => "tinylfu",
        })
    }
}

impl FromStr for PolicyKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|kind| kind.to_string() == text).ok_or_else(|| {
            Error::new(ErrorKind::Invalid, format!("there is no eviction policy {text:?}"))
                .with_remedy("use one of lru, s3fifo, tinylfu")
        })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use xxhash_rust::xxh3::xxh3_64;

    use super::*;

    /// Slots with keys in them.
    #[derive(Default)]
    struct Slots {
        entries: Vec<Option<(u64, Cell<Access>)>>,
        now: u32,
    }

    impl Residents for Slots {
        fn slots_end(&self) -> u32 {
            self.entries.len() as u32
        }

        fn access(&self, slot: u32) -> Option<Access> {
            Some(self.entries.get(slot as usize)?.as_ref()?.1.get())
        }

        fn set_access(&self, slot: u32, access: Access) {
            self.entries[slot as usize].as_ref().unwrap().1.set(access);
        }

        fn key_hash(&self, slot: u32) -> u64 {
            self.entries[slot as usize].as_ref().unwrap().0
        }

        fn now(&self) -> u32 {
            self.now
        }
    }

    impl Slots {
        fn insert(&mut self, policy: &mut dyn Policy, slot: u32, key: u64) {
            let key_hash = xxh3_64(&key.to_le_bytes());
            let index = slot as usize;
            if index >= self.entries.len() {
                self.entries.resize_with(index + 1, || None);
            }
            assert!(self.entries[index].is_none());
            policy.admit(key_hash, false, self);
            self.entries[index] = Some((key_hash, Cell::new(Access::new(self.now))));
            policy.inserted(slot, key_hash);
            self.now += 1;
        }

        fn remove(&mut self, policy: &mut dyn Policy, slot: u32) {
            self.entries[slot as usize] = None;
            policy.removed(slot);
        }

        fn touch(&self, slot: u32) {
            self.set_access(slot, self.access(slot).unwrap().touched(self.now));
        }

        fn demote(&mut self, policy: &mut dyn Policy) -> Option<u32> {
            let slot = policy.choose(self)?;
            assert!(self.entries[slot as usize].take().is_some(), "nobody is in slot {slot}");
            Some(slot)
        }
    }

    #[test]
    fn a_word_counts_hits_and_tells_ages_across_the_end_of_the_clock() {
        let mut access = Access::new(u32::MAX);
        assert_eq!((access.frequency(), access.age(u32::MAX)), (0, 0));
        assert_eq!(access.age(2), 3);
        for expected in (1..=15).chain([15, 15]) {
            access = access.touched(7);
            assert_eq!((access.frequency(), access.age(7)), (expected, 0));
        }
        assert_eq!(access.touched(7), access, "a hit that changes nothing need not be stored");
        let lowered = access.with_frequency(3);
        assert_eq!((lowered.frequency(), lowered.age(9)), (3, 2));
        assert_eq!(access.with_frequency(u8::MAX).frequency(), Access::FREQUENCY_MAX);
    }

    #[test]
    fn marks_lie_within_the_pool() {
        for capacity in [0, 1, 2, 3, 10, 100, 4096, 1_000_000, u32::MAX] {
            let water = Water::of(capacity);
            assert!(water.low_slots <= water.high_slots, "{water:?}");
            assert!(
                water.high_slots < capacity.max(1),
                "an insertion beyond the mark needs a slot"
            );
            assert!(water.inserts_per_tick > 0);
        }
        let water = Water::of(100);
        assert_eq!((water.high_slots, water.low_slots), (90, 85));
        assert!(!water.is_full(84) && water.is_full(85));
    }

    #[test]
    fn names_parse_back_and_others_are_refused() {
        for kind in PolicyKind::ALL {
            assert_eq!(kind.to_string().parse::<PolicyKind>().unwrap(), kind);
        }
        let error = "LRU".parse::<PolicyKind>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("LRU"));
    }

    #[test]
    fn somebody_goes_as_long_as_somebody_is_there() {
        for kind in PolicyKind::ALL {
            let mut policy = kind.build(64);
            let mut slots = Slots::default();
            assert_eq!(slots.demote(&mut *policy), None, "{kind}");
            let mut random = 1_u64;
            let mut below = |end: u64| {
                random = xxh3_64(&random.to_le_bytes());
                random % end
            };
            for step in 0..20_000_u64 {
                let slot = below(64) as u32;
                match (below(4), slots.access(slot)) {
                    (0, Some(_)) => slots.remove(&mut *policy, slot),
                    (1, _) => {
                        let any = slots.entries.iter().any(Option::is_some);
                        assert_eq!(slots.demote(&mut *policy).is_some(), any, "{kind}");
                    }
                    (_, Some(_)) => slots.touch(slot),
                    (_, None) => slots.insert(&mut *policy, slot, step % 200),
                }
            }
            let residents = slots.entries.iter().flatten().count();
            for _ in 0..residents {
                assert!(slots.demote(&mut *policy).is_some(), "{kind}");
            }
            assert_eq!(slots.demote(&mut *policy), None, "{kind}");
        }
    }

    #[test]
    fn a_slot_used_again_does_not_pay_for_its_former_life() {
        // The third lets a newcomer go before others on purpose.
        for kind in [PolicyKind::Lru, PolicyKind::S3Fifo] {
            let mut policy = kind.build(16);
            let mut slots = Slots::default();
            for slot in 0..16 {
                slots.insert(&mut *policy, slot, slot.into());
            }
            // The oldest go first; the slots of the two oldest are given to new keys.
            for slot in [0, 1] {
                slots.remove(&mut *policy, slot);
                slots.insert(&mut *policy, slot, 100 + u64::from(slot));
            }
            let gone: Vec<u32> = (0..8).filter_map(|_| slots.demote(&mut *policy)).collect();
            assert!(!gone.contains(&0) && !gone.contains(&1), "{kind}: {gone:?}");
        }
    }

    #[test]
    fn a_slot_used_again_does_not_gain_from_its_former_life() {
        // The first draws residents at random and may miss the one that goes here.
        for kind in [PolicyKind::S3Fifo, PolicyKind::TinyLfu] {
            let mut policy = kind.build(16);
            let mut slots = Slots::default();
            for slot in 0..16 {
                slots.insert(&mut *policy, slot, slot.into());
                (0..2 + 13 * u32::from(slot == 0)).for_each(|_| slots.touch(slot));
            }
            slots.remove(&mut *policy, 0);
            slots.insert(&mut *policy, 0, 100);
            assert_eq!(slots.demote(&mut *policy), Some(0), "{kind}");
        }
    }

    #[test]
    fn what_is_used_stays() {
        for kind in PolicyKind::ALL {
            let mut policy = kind.build(40);
            let mut slots = Slots::default();
            for slot in 0..32 {
                slots.insert(&mut *policy, slot, slot.into());
            }
            let used = |slot: u32| slot.is_multiple_of(4);
            for _ in 0..4 {
                slots.now += 1;
                (0..32).filter(|slot| used(*slot)).for_each(|slot| slots.touch(slot));
            }
            let gone: Vec<u32> = (0..16).filter_map(|_| slots.demote(&mut *policy)).collect();
            assert!(!gone.iter().any(|slot| used(*slot)), "{kind}: {gone:?}");
        }
    }

    #[test]
    fn a_full_pool_under_lru_admits_at_the_second_request() {
        let mut policy = PolicyKind::Lru.build(10);
        let slots = Slots::default();
        let mut admit = |key: u64, full| policy.admit(xxh3_64(&key.to_le_bytes()), full, &slots);
        assert!(admit(1, false), "there is room");
        assert!(!admit(1, true) && admit(1, true));
        assert!(!admit(1, true), "it was admitted, which is forgotten");
        (100..120).for_each(|other| assert!(!admit(other, true)));
        assert!(!admit(1, true), "the second request came too late");
    }
}
