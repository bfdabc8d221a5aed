//! The plain kernels: the oracle of the others, and the fallback.

use half::f16;

use super::{
    BLOCK_COUNT, GROUP_BYTES, GROUP_DIMENSIONS, Line, Planes, QuantizedKernels, SKETCHES_COUNT,
    Steps, assert_parts, assert_signs,
};

pub(super) static KERNELS: QuantizedKernels = QuantizedKernels {
    name: "scalar",
    dot_planes,
    dot_upper,
    sum_sketched,
    estimate,
    transform,
    quantize,
    make_tables,
};

/// Added to a number that is small against it, it leaves that number, rounded, in its last bits.
const ROUNDS: f32 = 1.5 * (1 << 23) as f32;

fn dot_planes(planes: Planes<'_>, other: &[i8]) -> i32 {
    (dot_upper(planes.upper, other) << 4) + dot_upper(planes.lower, other)
}

fn dot_upper(upper: &[u8], other: &[i8]) -> i32 {
    assert_parts(upper, 2, other);
    let (first, second) = other.split_at(upper.len());
    let of = |nibble: u8, other: &i8| i32::from(nibble) * i32::from(*other);
    let others = first.iter().zip(second);
    upper.iter().zip(others).map(|(byte, (x, y))| of(byte & 0xF, x) + of(byte >> 4, y)).sum()
}

fn sum_sketched(sketches: [&[u8]; SKETCHES_COUNT], other: &[i8]) -> [i32; SKETCHES_COUNT] {
    sketches.map(|sketch| {
        assert_parts(sketch, 8, other);
        let eights = sketch.iter().zip(other.as_chunks::<8>().0);
        let of_eight = |(byte, eight): (&u8, &[i8; 8])| -> i32 {
            (0..8).map(|bit| i32::from(byte >> bit & 1) * i32::from(eight[bit])).sum()
        };
        eights.map(of_eight).sum()
    })
}

fn estimate(
    signs: &[u8],
    tables: &[u8],
    line: &Line<'_>,
    limit: f32,
    distances: &mut [f32; BLOCK_COUNT],
) -> u32 {
    assert_signs(signs, tables);
    let mut sums = [0_u32; BLOCK_COUNT];
    for (group, table) in signs.chunks(GROUP_BYTES).zip(tables.chunks(GROUP_BYTES)) {
        for (index, byte) in group.iter().enumerate() {
            sums[index] += u32::from(table[usize::from(byte & 0xF)]);
            sums[index + GROUP_BYTES] += u32::from(table[usize::from(byte >> 4)]);
        }
    }
    let mut below = 0;
    for (index, distance) in distances.iter_mut().enumerate() {
        let half = |halves: &[u16; BLOCK_COUNT]| f16::from_bits(halves[index]).to_f32();
        let signed = line.step * sums[index] as f32 + line.offset;
        *distance = line.base + half(line.add) + half(line.multiply) * signed;
        below |= u32::from(*distance < limit) << index;
    }
    below
}

// The bodies of what follows are made vector code for each instruction set.

#[inline(always)]
pub(super) fn transform(block: &mut [f32]) {
    let scale = (block.len() as f32).sqrt().recip();
    let (parts, _) = block.as_chunks_mut::<PART>();
    for part in parts {
        *part = exchange::<8>(&exchange::<4>(&exchange::<2>(&exchange::<1>(part))));
        part.iter_mut().for_each(|number| *number *= scale);
    }
    let mut half = PART;
    while half < block.len() {
        for pair in block.chunks_exact_mut(2 * half) {
            let (left, right) = pair.split_at_mut(half);
            for (a, b) in left.iter_mut().zip(right) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
}

/// Numbers of a block that are transformed without leaving registers.
const PART: usize = 16;

/// Sums of numbers and of those `HALF` before or behind them, and their differences.
#[inline(always)]
fn exchange<const HALF: usize>(part: &[f32; PART]) -> [f32; PART] {
    std::array::from_fn(|index| {
        let sign = if index & HALF == 0 { 1.0 } else { -1.0 };
        part[index] * sign + part[index ^ HALF]
    })
}

#[inline(always)]
pub(super) fn quantize(vector: &[f32], inverse: f32, bytes: &mut [i8]) -> (i32, i32) {
    let (mut sum, mut squares) = (0, 0);
    for (byte, number) in bytes.iter_mut().zip(vector) {
        let rounded = (number * inverse + ROUNDS).to_bits() as i8;
        *byte = rounded;
        sum += i32::from(rounded);
        squares += i32::from(rounded) * i32::from(rounded);
    }
    (sum, squares)
}

#[inline(always)]
pub(super) fn make_tables(vector: &[f32], tables: &mut [u8]) -> Steps {
    let (groups, _) = vector.as_chunks::<GROUP_DIMENSIONS>();
    let mut widest = f32::MIN_POSITIVE;
    let mut sum_of_least = 0.0;
    let mut sum = 0.0;
    for group in groups {
        let [a, b, c, d] = *group;
        widest = widest.max((a.abs() + b.abs()) + (c.abs() + d.abs()));
        sum_of_least += (a.min(0.0) + b.min(0.0)) + (c.min(0.0) + d.min(0.0));
        sum += (a + b) + (c + d);
    }
    let inverse = f32::from(u8::MAX) / widest;
    let (tables, _) = tables.as_chunks_mut::<GROUP_BYTES>();
    for (table, group) in tables.iter_mut().zip(groups) {
        let [a, b, c, d] = group.map(|number| number * inverse);
        let least = (a.min(0.0) + b.min(0.0)) + (c.min(0.0) + d.min(0.0));
        for (nibble, byte) in table.iter_mut().enumerate() {
            let has = |bit: usize| (nibble >> bit & 1) as f32;
            let entry = (a * has(0) + b * has(1)) + (c * has(2) + d * has(3)) - least;
            *byte = (entry + ROUNDS).to_bits() as u8;
        }
    }
    Steps { step: widest / f32::from(u8::MAX), least: sum_of_least, sum }
}
