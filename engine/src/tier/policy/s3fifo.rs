//! S3-FIFO: a small queue on probation, a main queue, and a memory of who left the small one.
//!
//! Most keys are asked for once. They pass through the small queue, a tenth of the pool, and leave
//! without having displaced anybody. Who was hit there more than once moves to the main queue, and
//! so does a key that comes back while it is remembered. The main queue gives everybody who was hit
//! another round for each hit, three at most.
//!
//! Source: Yang, Zhang, Qiu, Yue, Rashmi, "FIFO queues are all you need for cache eviction", SOSP
//! 2023, algorithm 1.

use super::ghost::Ghost;
use super::queue::Queue;
use super::{Policy, Residents};

/// The share of residents in the small queue.
const SMALL_PERCENT: u64 = 10;
/// Hits in the small queue that bring a resident into the main queue.
const HITS_TO_MAIN: u8 = 2;
/// Hits that count in the main queue: two bits in the paper.
const ROUNDS_MAX: u8 = 3;

pub(super) struct S3Fifo {
    small: Queue,
    main: Queue,
    ghost: Ghost,
}

impl S3Fifo {
    pub(super) fn new(capacity_slots_hint: u32) -> Self {
        let main_slots = u64::from(capacity_slots_hint) * (100 - SMALL_PERCENT) / 100;
        Self { small: Queue::new(), main: Queue::new(), ghost: Ghost::new(main_slots as u32) }
    }

    fn small_is_over(&self) -> bool {
        let (small, main) = (u64::from(self.small.len()), u64::from(self.main.len()));
        small * 100 >= (small + main) * SMALL_PERCENT
    }

    /// Takes the oldest of the small queue that was not hit enough; the others move on.
    fn choose_small(&mut self, residents: &dyn Residents) -> Option<u32> {
        while let Some(slot) = self.small.oldest() {
            self.small.remove(slot);
            let Some(access) = residents.access(slot) else { continue };
            if access.frequency() < HITS_TO_MAIN {
                self.ghost.note(residents.key_hash(slot));
                return Some(slot);
            }
            residents.set_access(slot, access.with_frequency(0));
            self.main.push(slot);
        }
        None
    }

    /// Takes the oldest of the main queue that has no round left.
    fn choose_main(&mut self, residents: &dyn Residents) -> Option<u32> {
        // Readers who go on hitting everybody must not keep us here for ever.
        let mut rounds_left = u64::from(self.main.len()) * u64::from(ROUNDS_MAX);
        while let Some(slot) = self.main.oldest() {
            self.main.remove(slot);
            let Some(access) = residents.access(slot) else { continue };
            let rounds = access.frequency().min(ROUNDS_MAX);
            if rounds == 0 || rounds_left == 0 {
                return Some(slot);
            }
            rounds_left -= 1;
            residents.set_access(slot, access.with_frequency(rounds - 1));
            self.main.push(slot);
        }
        None
    }
}

impl Policy for S3Fifo {
    fn admit(&mut self, _key_hash: u64, _full: bool, _residents: &dyn Residents) -> bool {
        // The small queue is the door.
        true
    }

    fn inserted(&mut self, slot: u32, key_hash: u64) {
        if self.ghost.take(key_hash) {
            self.main.push(slot);
        } else {
            self.small.push(slot);
        }
    }

    fn removed(&mut self, slot: u32) {
        if !self.small.remove(slot) {
            self.main.remove(slot);
        }
    }

    fn choose(&mut self, residents: &dyn Residents) -> Option<u32> {
        if self.small_is_over() {
            self.choose_small(residents).or_else(|| self.choose_main(residents))
        } else {
            self.choose_main(residents).or_else(|| self.choose_small(residents))
        }
    }
}
