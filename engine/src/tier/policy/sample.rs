//! Residents drawn at random.

use super::{Access, Residents};

/// Empty slots that are looked at for each resident wanted. A pool at its marks is nearly full.
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

    /// Hands up to `wanted` residents to `read`, some perhaps twice; at least one if there is one
    /// that `wants` wants.
    pub(in crate::tier) fn draw(
        &mut self,
        residents: &dyn Residents,
        wanted: u32,
        wants: impl Fn(u32) -> bool,
        mut read: impl FnMut(u32, Access),
    ) {
        let end = residents.slots_end();
        let resident = |slot: u32| residents.access(slot).filter(|_| wants(slot));
        let mut drawn = 0;
        for _ in 0..wanted * TRIES_PER_RESIDENT {
            if drawn == wanted || end == 0 {
                return;
            }
            let slot = self.below(end);
            if let Some(access) = resident(slot) {
                read(slot, access);
                drawn += 1;
            }
        }
        if drawn == 0 {
            // Hardly anybody is there: look everywhere, from anywhere.
            let start = self.below(end);
            let found = (start..end).chain(0..start).find_map(|slot| Some((slot, resident(slot)?)));
            if let Some((slot, access)) = found {
                read(slot, access);
            }
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
