//! A random rotation, the same whenever it is made of the same seed.
//!
//! After it the energy of any vector is spread over all its numbers, so that their signs say about
//! as much of one vector as of another, and one scale serves all numbers of a vector.
//!
//! A round changes random signs and transforms the first or, by turns, the last power of two of the
//! numbers by Hadamard's matrix. Signs change before each: two transforms in a row would undo much
//! of each other where they overlap.

use super::sequence::Sequence;
use crate::distance::quantized::kernels;

const ROUNDS_COUNT: usize = 4;

/// A rotation of vectors of one length, a multiple of 64.
pub(super) struct Rotation {
    /// Plus and minus one. Shape: `[ROUNDS_COUNT, padded]`.
    signs: Vec<f32>,
    padded: usize,
    block: usize,
}

impl Rotation {
    pub(super) fn new(padded: usize, seed: u64) -> Self {
        let mut random = Sequence::new(seed);
        let signs = (0..ROUNDS_COUNT * padded)
            .map(|_| if random.next() & 1 == 0 { 1.0 } else { -1.0 })
            .collect();
        Self { signs, padded, block: 1 << padded.ilog2() }
    }

    /// Rotates a vector where it lies. Shape: `[padded]`.
    pub(super) fn rotate(&self, vector: &mut [f32]) {
        let starts = [0, self.padded - self.block];
        for (signs, start) in self.signs.chunks_exact(self.padded).zip(starts.into_iter().cycle()) {
            for (number, sign) in vector.iter_mut().zip(signs) {
                *number *= sign;
            }
            (kernels().transform)(&mut vector[start..start + self.block]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distance::tests::Random;

    fn squares(vector: &[f32]) -> f64 {
        vector.iter().map(|number| f64::from(*number).powi(2)).sum()
    }

    #[test]
    fn distances_stay_and_energy_is_spread() {
        let mut random = Random(1);
        for padded in [64, 128, 192, 320, 384, 448, 1024, 1536] {
            let rotation = Rotation::new(padded, 7);
            let (mut a, mut b) = (random.fractions(padded), random.fractions(padded));
            let difference = |a: &[f32], b: &[f32]| -> Vec<f32> {
                a.iter().zip(b).map(|(x, y)| x - y).collect()
            };
            let before = squares(&difference(&a, &b));
            rotation.rotate(&mut a);
            rotation.rotate(&mut b);
            let after = squares(&difference(&a, &b));
            assert!((after / before - 1.0).abs() < 1e-4, "{padded}: {before} {after}");
            for hot in 0..padded {
                let mut one = vec![0.0; padded];
                one[hot] = 1.0;
                rotation.rotate(&mut one);
                let largest = one.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
                assert!(largest < 6.0 / (padded as f32).sqrt(), "{padded} {hot}: {largest}");
            }
        }
    }
}
