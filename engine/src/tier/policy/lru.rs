//! Approximate least recently used, with a doorkeeper.
//!
//! An exact order of use would need a write to shared memory at every hit. Instead some residents
//! are drawn at random and the one that was used longest ago goes; the oldest of the others are
//! kept for the next choice, which brings it within a point of exact LRU (as Redis does, see its
//! `maxmemory-policy`). When the pool is full, a key comes in only at its second request within
//! about a capacity's worth of misses, so that a scan does not wash out what is used.

use super::ghost::Ghost;
use super::sample::Sampler;
use super::{Policy, Residents};

/// Residents drawn for each choice.
const DRAWN_COUNT: u32 = 8;
/// Old residents kept from one choice to the next.
const KEPT_COUNT: usize = 16;

pub(super) struct Lru {
    doorkeeper: Ghost,
    sampler: Sampler,
    /// Slots and their ages, oldest last. Ages are read anew before they count, so a slot that has
    /// a new life is as young as that.
    candidates: Vec<(u32, u32)>,
}

impl Lru {
    pub(super) fn new(capacity_slots_hint: u32) -> Self {
        Self {
            doorkeeper: Ghost::new(capacity_slots_hint),
            sampler: Sampler::new(),
            candidates: Vec::with_capacity(KEPT_COUNT + DRAWN_COUNT as usize),
        }
    }
}

impl Policy for Lru {
    fn admit(&mut self, key_hash: u64, full: bool, _residents: &dyn Residents) -> bool {
        let admitted = !full || self.doorkeeper.take(key_hash);
        if !admitted {
            self.doorkeeper.note(key_hash);
        }
        admitted
    }

    fn inserted(&mut self, _slot: u32, _key_hash: u64) {}

    fn removed(&mut self, _slot: u32) {}

    fn choose(&mut self, residents: &dyn Residents) -> Option<u32> {
        let now = residents.now();
        let candidates = &mut self.candidates;
        candidates.retain_mut(|(slot, age)| match residents.access(*slot) {
            Some(access) => {
                *age = access.age(now);
                true
            }
            None => false,
        });
        self.sampler.draw_some(
            residents,
            DRAWN_COUNT,
            |_| true,
            |slot, access| {
                if !candidates.iter().any(|(known, _)| *known == slot) {
                    candidates.push((slot, access.age(now)));
                }
            },
        );
        candidates.sort_unstable_by_key(|(_, age)| *age);
        let (chosen, _) = candidates.pop()?;
        candidates.drain(..candidates.len().saturating_sub(KEPT_COUNT));
        Some(chosen)
    }
}
