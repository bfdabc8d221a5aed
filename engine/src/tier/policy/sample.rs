//! Residents drawn at random.
//!
//! A slot is drawn, not a resident, so that the fewer residents there are, the longer it takes.

use super::{Access, Residents};

/// Slots that are looked at for each resident wanted. A pool at its marks is nearly full, unless
/// others have taken its memory over.
const TRIES_PER_RESIDENT: u32 = 8;

/// Draws residents; the same ones in every run.
#[derive(Debug)]
pub(in crate::tier) struct Sampler {
    state: u64,
}

impl Sampler {
    pub(in crate::tier) fn new() -> Self {
        Self { state: 1 }
    }

    /// Hands up to `wanted` residents to `read`, some perhaps twice; none where there are few.
    pub(in crate::tier) fn draw(
        &mut self,
        residents: &dyn Residents,
        wanted: u32,
        wants: impl Fn(u32) -> bool,
        mut read: impl FnMut(u32, Access),
    ) -> u32 {
        let end = residents.slots_end();
        let mut drawn = 0;
        for _ in 0..wanted * TRIES_PER_RESIDENT {
            if drawn == wanted || end == 0 {
                break;
            }
            let slot = self.below(end);
            if let Some(access) = residents.access(slot).filter(|_| wants(slot)) {
                read(slot, access);
                drawn += 1;
            }
        }
        drawn
    }

    /// The same, but at least one if there is one that `wants` wants: looks everywhere for it.
    pub(in crate::tier) fn draw_some(
        &mut self,
        residents: &dyn Residents,
        wanted: u32,
        wants: impl Fn(u32) -> bool,
        mut read: impl FnMut(u32, Access),
    ) {
        let end = residents.slots_end();
        if end == 0 || self.draw(residents, wanted, &wants, &mut read) > 0 {
            return;
        }
        let start = self.below(end);
        let resident = |slot: u32| residents.access(slot).filter(|_| wants(slot));
        let found = (start..end).chain(0..start).find_map(|slot| Some((slot, resident(slot)?)));
        if let Some((slot, access)) = found {
            read(slot, access);
        }
    }

    /// A number below `end`, which is not 0. Source: xorshift64* (Vigna 2016).
    fn below(&mut self, end: u32) -> u32 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let random = self.state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32;
        ((random * u64::from(end)) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Many slots, of which one is taken.
    struct Sparse {
        resident: u32,
        looks_count: Cell<u32>,
    }

    impl Residents for Sparse {
        fn slots_end(&self) -> u32 {
            1_000_000
        }

        fn access(&self, slot: u32) -> Option<Access> {
            self.looks_count.set(self.looks_count.get() + 1);
            (slot == self.resident).then_some(Access(7))
        }

        fn set_access(&self, _: u32, _: Access) {}

        fn key_hash(&self, _: u32) -> u64 {
            0
        }

        fn now(&self) -> u32 {
            0
        }
    }

    #[test]
    fn only_who_needs_somebody_looks_everywhere() {
        let sparse = Sparse { resident: 3, looks_count: Cell::new(0) };
        let mut sampler = Sampler::new();
        assert_eq!(sampler.draw(&sparse, 8, |_| true, |_, _| panic!("one of a million")), 0);
        assert_eq!(sparse.looks_count.get(), 8 * TRIES_PER_RESIDENT);
        let mut found = Vec::new();
        sampler.draw_some(&sparse, 8, |_| true, |slot, _| found.push(slot));
        assert_eq!(found, [3]);
        sampler.draw_some(&sparse, 8, |slot| slot != 3, |_, _| panic!("nobody is wanted"));
    }
}
