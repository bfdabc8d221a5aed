//! W-TinyLFU: who is asked for more often stays.
//!
//! New keys come into a window, a hundredth of the pool, where they can show that they are wanted.
//! When one leaves the window it competes with a victim among the others: the one that was asked
//! for less goes, and at equality the newcomer. A sketch estimates how often keys were asked for
//! while they were not resident; hits of residents are counted in their [`Access`] words.
//!
//! The paper keeps the others in an order of use. Here, where a hit may move nothing, the victim is
//! the least asked for of some residents drawn at random, and of equals the one used longest ago.
//! Sketch and words are halved in turns, so that what was popular once does not stay for ever.
//!
//! Source: Einziger, Friedman, Manes, "TinyLFU: A Highly Efficient Cache Admission Policy", 2017.

use super::queue::Queue;
use super::sample::Sampler;
use super::sketch::Sketch;
use super::{Access, Policy, Residents};

/// The share of residents in the window.
const WINDOW_PERCENT: u64 = 1;
/// Residents drawn to find a victim.
const DRAWN_COUNT: u32 = 16;
/// Everything is halved once in so many capacities' worth of misses.
const CAPACITIES_PER_AGE: u64 = 10;
/// Words of the sketch for each slot: many more keys are asked for than are resident.
const SKETCH_WORDS_PER_SLOT: u32 = 2;

pub(super) struct TinyLfu {
    window: Queue,
    residents_count: u32,
    sketch: Sketch,
    sampler: Sampler,
    misses_per_age: u64,
    sketch_sweep: Sweep,
    slots_sweep: Sweep,
}

impl TinyLfu {
    pub(super) fn new(capacity_slots_hint: u32) -> Self {
        Self {
            window: Queue::new(),
            residents_count: 0,
            sketch: Sketch::new(capacity_slots_hint.saturating_mul(SKETCH_WORDS_PER_SLOT)),
            sampler: Sampler::new(),
            misses_per_age: u64::from(capacity_slots_hint.max(1)) * CAPACITIES_PER_AGE,
            sketch_sweep: Sweep::default(),
            slots_sweep: Sweep::default(),
        }
    }

    fn window_is_over(&self) -> bool {
        u64::from(self.window.len()) * 100 > u64::from(self.residents_count) * WINDOW_PERCENT
    }

    /// Halves what it is the turn of.
    fn age(&mut self, residents: &dyn Residents) {
        let blocks = self.sketch.blocks_count();
        for block in self.sketch_sweep.advance(blocks, self.misses_per_age) {
            self.sketch.halve(block);
        }
        for slot in self.slots_sweep.advance(residents.slots_end(), self.misses_per_age) {
            if let Some(access) = residents.access(slot).filter(|access| access.frequency() > 0) {
                residents.set_access(slot, access.with_frequency(access.frequency() / 2));
            }
        }
    }

    /// Lets the oldest of the window join the others without a contest: there is room.
    fn leave_window(&mut self, residents: &dyn Residents) {
        let Some(slot) = self.window.oldest() else { return };
        self.window.remove(slot);
        if let Some(access) = residents.access(slot) {
            let frequency = self.frequency(slot, access, residents);
            residents.set_access(slot, access.with_frequency(frequency));
        }
    }

    /// How often a resident was asked for, before and since it came in.
    fn frequency(&self, slot: u32, access: Access, residents: &dyn Residents) -> u8 {
        access.frequency().saturating_add(self.sketch.frequency(residents.key_hash(slot)))
    }

    /// Finds somebody outside the window who was asked for little.
    fn victim(&mut self, residents: &dyn Residents) -> Option<(u32, Access)> {
        if self.residents_count <= self.window.len() {
            return None;
        }
        let now = residents.now();
        let window = &self.window;
        let mut victim: Option<(u32, Access)> = None;
        self.sampler.draw_some(
            residents,
            DRAWN_COUNT,
            |slot| !window.contains(slot),
            |slot, access| {
                let rank = |access: Access| (access.frequency(), u32::MAX - access.age(now));
                if victim.is_none_or(|(_, weakest)| rank(access) < rank(weakest)) {
                    victim = Some((slot, access));
                }
            },
        );
        victim
    }

    /// Lets the oldest of the window compete with a victim; returns who lost.
    fn compete(&mut self, candidate: u32, residents: &dyn Residents) -> u32 {
        self.window.remove(candidate);
        let Some(access) = residents.access(candidate) else { return candidate };
        let frequency = self.frequency(candidate, access, residents);
        match self.victim(residents) {
            Some((victim, weakest)) if frequency > weakest.frequency() => {
                residents.set_access(candidate, access.with_frequency(frequency));
                self.sketch.raise(residents.key_hash(victim), weakest.frequency());
                victim
            }
            _ => {
                self.sketch.raise(residents.key_hash(candidate), frequency);
                candidate
            }
        }
    }
}

impl Policy for TinyLfu {
    fn admit(&mut self, key_hash: u64, full: bool, residents: &dyn Residents) -> bool {
        self.sketch.increment(key_hash);
        self.age(residents);
        while !full && self.window_is_over() {
            self.leave_window(residents);
        }
        // The window is the door.
        true
    }

    fn inserted(&mut self, slot: u32, _key_hash: u64) {
        self.window.push(slot);
        self.residents_count += 1;
    }

    fn removed(&mut self, slot: u32) {
        self.window.remove(slot);
        self.residents_count = self.residents_count.saturating_sub(1);
    }

    fn choose(&mut self, residents: &dyn Residents) -> Option<u32> {
        let candidate = self.window.oldest().filter(|_| self.window_is_over());
        let chosen = match candidate {
            Some(candidate) => self.compete(candidate, residents),
            None => match self.victim(residents) {
                Some((victim, access)) => {
                    self.sketch.raise(residents.key_hash(victim), access.frequency());
                    victim
                }
                None => {
                    let candidate = self.window.oldest()?;
                    self.window.remove(candidate);
                    candidate
                }
            },
        };
        self.residents_count = self.residents_count.saturating_sub(1);
        Some(chosen)
    }
}

/// Goes round and round over numbers, a little at each step.
#[derive(Debug, Default)]
struct Sweep {
    at: u32,
    due: u64,
}

impl Sweep {
    /// The numbers below `end` whose turn it is at this step, of `steps_per_round`.
    fn advance(&mut self, end: u32, steps_per_round: u64) -> impl Iterator<Item = u32> {
        self.due += u64::from(end);
        let count = self.due / steps_per_round;
        self.due %= steps_per_round;
        let start = if self.at < end { self.at } else { 0 };
        self.at = ((u64::from(start) + count) % u64::from(end.max(1))) as u32;
        (0..count).map(move |step| ((u64::from(start) + step) % u64::from(end)) as u32)
    }
}
