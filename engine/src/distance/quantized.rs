//! Distances of quantized vectors, by the fastest instructions of this CPU.
//!
//! There are three kinds. *Bytes*: a vector as numbers from −127 to 127 times one scale. *Sketch*: the
//! signs of these numbers, one bit each. *Signs*: the signs of how a vector differs from a neighbour,
//! of [`BLOCK_COUNT`] vectors together.
//!
//! Bytes, plus 128, lie in two *planes*: the upper four bits of all numbers, then the lower four. The
//! upper plane alone is nearly as good and half as much to read. In both, the lower half of byte `i`
//! is of number `i`, and the upper half of that which is half a vector behind it.
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

/// The two planes of a vector of bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planes<'a> {
    pub(crate) upper: &'a [u8],
    pub(crate) lower: &'a [u8],
}

/// What is added to a byte that lies in planes.
pub(crate) const PLANES_OFFSET: i32 = 128;

/// The dot product of bytes, each [`PLANES_OFFSET`] greater, with others.
pub(crate) type DotPlanes = fn(planes: Planes<'_>, other: &[i8]) -> i32;

/// The dot product of the upper plane, as numbers from 0 to 15, with others.
pub(crate) type DotUpper = fn(upper: &[u8], other: &[i8]) -> i32;

/// For each of some sketches, the sum of those numbers whose bits it has.
pub(crate) type SumSketched =
    fn(sketches: [&[u8]; SKETCHES_COUNT], other: &[i8]) -> [i32; SKETCHES_COUNT];

/// Sketches that are read together.
pub(crate) const SKETCHES_COUNT: usize = 4;

/// Writes bytes as planes.
pub(crate) fn write_planes(bytes: &[i8], upper: &mut [u8], lower: &mut [u8]) {
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let planes = upper.iter_mut().zip(lower);
    for ((upper, lower), (first, second)) in planes.zip(first.iter().zip(second)) {
        let [first, second] = [first, second].map(|byte| byte.cast_unsigned() ^ 0x80);
        *upper = second & 0xF0 | first >> 4;
        *lower = second << 4 | first & 0xF;
    }
}

/// Reads the bytes that planes stand for.
pub(crate) fn read_planes(planes: Planes<'_>, bytes: &mut [i8]) {
    let (first, second) = bytes.split_at_mut(planes.upper.len());
    let planes = planes.upper.iter().zip(planes.lower);
    for ((upper, lower), (first, second)) in planes.zip(first.iter_mut().zip(second)) {
        *first = ((upper << 4 | lower & 0xF) ^ 0x80).cast_signed();
        *second = ((upper & 0xF0 | lower >> 4) ^ 0x80).cast_signed();
    }
}

/// Writes the sketch of bytes, in which zeros have no bit.
pub(crate) fn write_sketch(bytes: &[i8], sketch: &mut [u8]) {
    for (byte, eight) in sketch.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *byte = (0..8).map(|bit| u8::from(eight[bit] > 0) << bit).sum();
    }
}

/// The kernels of one instruction set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QuantizedKernels {
    #[cfg_attr(not(test), expect(dead_code, reason = "tests say which set failed"))]
    pub(crate) name: &'static str,
    pub(crate) dot_planes: DotPlanes,
    pub(crate) dot_upper: DotUpper,
    pub(crate) sum_sketched: SumSketched,
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

/// Parts of vectors, of `parts` numbers a byte, are of as many numbers as a vector of bytes.
#[track_caller]
fn assert_parts(part: &[u8], parts: usize, other: &[i8]) {
    assert!(
        part.len() * parts == other.len() && other.len().is_multiple_of(DIMENSIONS_MULTIPLE),
        "both are of the same length, a multiple of a cache line"
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
                    sums_are_exact(kernels, &a, &b);
                }
            }
        }
    }

    fn sums_are_exact(kernels: &QuantizedKernels, a: &[i8], b: &[i8]) {
        let (mut upper, mut lower) = (vec![0; a.len() / 2], vec![0; a.len() / 2]);
        let (mut sketch, none) = (vec![0; a.len() / 8], vec![0; a.len() / 8]);
        write_planes(a, &mut upper, &mut lower);
        write_sketch(a, &mut sketch);
        let sketches = [sketch.as_slice(), none.as_slice(), &[0xFF].repeat(none.len()), &sketch];
        let planes = Planes { upper: &upper, lower: &lower };
        let mut again = vec![0; a.len()];
        read_planes(planes, &mut again);
        assert_eq!(a, again);
        let sum_of = |number: fn(i32) -> i32| -> i32 {
            a.iter().zip(b).map(|(x, y)| number(i32::from(*x)) * i32::from(*y)).sum()
        };
        let what = (kernels.name, a.len());
        assert_eq!((kernels.dot_planes)(planes, b), sum_of(|x| x + PLANES_OFFSET), "{what:?}");
        assert_eq!(
            (kernels.dot_upper)(&upper, b),
            sum_of(|x| (x + PLANES_OFFSET) / 16),
            "{what:?}"
        );
        let sum = sum_of(|x| i32::from(x > 0));
        assert_eq!((kernels.sum_sketched)(sketches, b), [sum, 0, sum_of(|_| 1), sum], "{what:?}");
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
