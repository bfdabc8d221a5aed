//! Distances of quantized vectors, by the fastest instructions of this CPU.
//!
//! There are two kinds. *Bytes*: a vector as numbers from −127 to 127 times one scale. *Signs*: the
//! signs of how a vector differs from a neighbour, one bit for each number, of [`BLOCK_COUNT`]
//! vectors together.
//!
//! Signs lie for one pass over them. Four bits of one vector, for four numbers in a row, are a
//! *nibble*. The sixteen bytes of a *group*, one group for each four numbers, hold the nibble of
//! vector `i` in the lower half of byte `i` and that of vector `i + 16` in the upper half. What
//! each value of a nibble adds to the sum of a vector is looked up in a table of sixteen bytes,
//! one table for each group, which is made for a query.
//!
//! What is summed are whole numbers, the same on every CPU; estimates made of the sums differ in
//! their last bits where a CPU rounds once for a product and a sum.
//!
//! Source of the layout: André et al., "Cache locality is not enough", VLDB 2015.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod scalar;

use std::sync::OnceLock;

/// Vectors whose signs lie together.
pub(crate) const BLOCK_COUNT: usize = 32;
/// Numbers whose signs make a nibble.
pub(crate) const GROUP_DIMENSIONS: usize = 4;
/// Bytes of a group of signs, and of its table.
pub(crate) const GROUP_BYTES: usize = 16;
/// Numbers in a quantized vector are a multiple of this: a cache line of bytes.
pub(crate) const DIMENSIONS_MULTIPLE: usize = 64;

/// The dot product of two vectors of bytes, of which `b` has this sum.
pub(crate) type DotBytes = fn(a: &[i8], b: &[i8], b_sum: i32) -> i32;

/// The kernels of one instruction set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QuantizedKernels {
    #[cfg_attr(not(test), expect(dead_code, reason = "tests say which set failed"))]
    pub(crate) name: &'static str,
    pub(crate) dot_bytes: DotBytes,
    pub(crate) estimate: Estimate,
    pub(crate) transform: Transform,
    pub(crate) quantize: Quantize,
    pub(crate) make_tables: MakeTables,
}

/// Multiplies by Hadamard's matrix and divides by what that makes vectors longer. The length is a
/// power of two.
pub(crate) type Transform = fn(block: &mut [f32]);

/// Rounds a vector, multiplied by `inverse`, to bytes; returns their sum and that of their squares.
/// No product is beyond 127.
pub(crate) type Quantize = fn(vector: &[f32], inverse: f32, bytes: &mut [i8]) -> (i32, i32);

/// Makes the tables of a query: a nibble stands for the sum of those numbers whose bits it has, and
/// the byte is how much that is above the least of its group, in steps that suit the widest group.
pub(crate) type MakeTables = fn(vector: &[f32], tables: &mut [u8]) -> Steps;

/// What bytes of tables stand for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Steps {
    pub(crate) step: f32,
    /// The sum of the least of each group.
    pub(crate) least: f32,
    /// The sum of all numbers.
    pub(crate) sum: f32,
}

/// What turns sums of signs into distances: for each vector of a block `add + multiply * (step *
/// sum + offset)`, to which `base` is added.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line<'a> {
    pub(crate) base: f32,
    pub(crate) step: f32,
    pub(crate) offset: f32,
    /// As bits of 16-bit floats.
    pub(crate) add: &'a [u16; BLOCK_COUNT],
    pub(crate) multiply: &'a [u16; BLOCK_COUNT],
}

/// Estimates the distances of a block, and says in its bits which are below a limit.
pub(crate) type Estimate = fn(
    signs: &[u8],
    tables: &[u8],
    line: &Line<'_>,
    limit: f32,
    distances: &mut [f32; BLOCK_COUNT],
) -> u32;

/// Returns the kernels of this process: the fastest the CPU has.
pub(crate) fn kernels() -> &'static QuantizedKernels {
    static CHOSEN: OnceLock<&'static QuantizedKernels> = OnceLock::new();
    CHOSEN.get_or_init(|| available().next().unwrap_or(&scalar::KERNELS))
}

/// Returns every set of kernels this CPU can run, fastest first, `scalar` last.
pub(crate) fn available() -> impl Iterator<Item = &'static QuantizedKernels> {
    #[cfg(target_arch = "x86_64")]
    let detected = [avx512::detect(), avx2::detect()];
    #[cfg(not(target_arch = "x86_64"))]
    let detected: [Option<&'static QuantizedKernels>; 0] = [];
    detected.into_iter().flatten().chain([&scalar::KERNELS])
}

#[track_caller]
fn assert_signs(signs: &[u8], tables: &[u8]) {
    assert!(
        signs.len() == tables.len() && signs.len().is_multiple_of(DIMENSIONS_MULTIPLE * 4),
        "signs and tables are of as many groups"
    );
}

#[track_caller]
fn assert_bytes(a: &[i8], b: &[i8]) {
    assert!(
        a.len() == b.len() && a.len().is_multiple_of(DIMENSIONS_MULTIPLE),
        "vectors of bytes have the same length, a multiple of a cache line"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distance::tests::Random;
    use half::f16;

    fn lengths() -> impl Iterator<Item = usize> {
        [64, 128, 192, 384, 768, 1024, 1088, 2048, 4096].into_iter()
    }

    #[test]
    fn bytes_give_exact_sums() {
        for kernels in available() {
            let mut random = Random(1);
            for len in lengths() {
                for extreme in [false, true] {
                    let mut bytes = || -> Vec<i8> {
                        let any = |random: &mut Random| match extreme {
                            true => 127 * (random.below(2) as i8 * 2 - 1),
                            false => (random.below(255) as i16 - 127) as i8,
                        };
                        (0..len).map(|_| any(&mut random)).collect()
                    };
                    let (a, b) = (bytes(), bytes());
                    let b_sum = b.iter().map(|x| i32::from(*x)).sum();
                    let dot: i32 =
                        a.iter().zip(&b).map(|(x, y)| i32::from(*x) * i32::from(*y)).sum();
                    assert_eq!((kernels.dot_bytes)(&a, &b, b_sum), dot, "{} {len}", kernels.name);
                }
            }
        }
    }

    #[test]
    fn estimates_are_those_of_the_definition() {
        let mut random = Random(2);
        for len in lengths() {
            for full in [false, true] {
                let mut bytes = |count: usize| -> Vec<u8> {
                    (0..count).map(|_| if full { 255 } else { random.below(256) as u8 }).collect()
                };
                let (signs, tables) = (bytes(len * 4), bytes(len * 4));
                let mut halves = |by: f32| -> [u16; BLOCK_COUNT] {
                    std::array::from_fn(|_| f16::from_f32(random.fractions(1)[0] * by).to_bits())
                };
                let (add, multiply) = (halves(2.0), halves(0.1));
                let line =
                    Line { base: 0.75, step: 1e-3, offset: -1.5, add: &add, multiply: &multiply };
                let mut expected = [0.0; BLOCK_COUNT];
                let below = (scalar::KERNELS.estimate)(&signs, &tables, &line, 1.0, &mut expected);
                for (index, distance) in expected.iter().enumerate() {
                    assert_eq!(below >> index & 1 == 1, *distance < 1.0);
                }
                for kernels in available() {
                    let mut found = [0.0; BLOCK_COUNT];
                    let mask = (kernels.estimate)(&signs, &tables, &line, 1.0, &mut found);
                    for (found, expected) in found.iter().zip(expected) {
                        let error = (found - expected).abs();
                        assert!(error <= 1e-5 * (1.0 + expected.abs()), "{}", kernels.name);
                    }
                    assert!((mask ^ below).count_ones() <= 1, "{} {len}", kernels.name);
                }
            }
        }
    }
}
