//! Kernels for aarch64 with NEON: four floats an instruction.
//!
//! Eight accumulators, because the wide cores start up to four FMAs a cycle and
//! finish each in four.

use super::{Kernels, assert_same_length, assert_whole_rows};
use std::arch::aarch64::{
    float32x4_t, vaddq_f32, vaddvq_f32, vdupq_n_f32, vfmaq_f32, vld1q_f32, vsubq_f32,
};
use std::arch::is_aarch64_feature_detected;

/// Floats in one register.
const LANES: usize = 4;
/// Accumulators of one sum.
const ACCUMULATORS: usize = 8;
/// Floats that one step of the main loop takes from each vector.
const STEP: usize = LANES * ACCUMULATORS;

/// The only way to [`KERNELS`]: none without the instructions.
pub(super) fn detect() -> Option<&'static Kernels> {
    is_aarch64_feature_detected!("neon").then_some(&KERNELS)
}

static KERNELS: Kernels = Kernels {
    name: "neon",
    dot: pair::<false>,
    squared_euclidean: pair::<true>,
    dot_rows: rows::<false>,
    squared_euclidean_rows: rows::<true>,
};

#[expect(unsafe_code, reason = "calls a function of detected instructions")]
fn pair<const EUCLIDEAN: bool>(a: &[f32], b: &[f32]) -> f32 {
    assert_same_length(a, b);
    // SAFETY: only `KERNELS` leads here and only `detect` leads to it, after it
    // has seen NEON.
    unsafe { reduce::<EUCLIDEAN>(a, b) }
}

#[expect(unsafe_code, reason = "calls a function of detected instructions")]
fn rows<const EUCLIDEAN: bool>(query: &[f32], rows: &[f32], values: &mut [f32]) {
    assert_whole_rows(query, rows, values);
    // SAFETY: only `KERNELS` leads here and only `detect` leads to it, after it
    // has seen NEON.
    unsafe { reduce_rows::<EUCLIDEAN>(query, rows, values) }
}

#[target_feature(enable = "neon")]
fn reduce_rows<const EUCLIDEAN: bool>(query: &[f32], rows: &[f32], values: &mut [f32]) {
    for (index, value) in values.iter_mut().enumerate() {
        let row = &rows[index * query.len()..][..query.len()];
        *value = reduce::<EUCLIDEAN>(query, row);
    }
}

/// Sums the products, or the squared differences, of `a` and `b`.
#[inline]
#[target_feature(enable = "neon")]
fn reduce<const EUCLIDEAN: bool>(a: &[f32], b: &[f32]) -> f32 {
    let (a_steps, a_rest) = a.as_chunks::<STEP>();
    let (b_steps, b_rest) = b.as_chunks::<STEP>();
    let mut sums = [vdupq_n_f32(0.0); ACCUMULATORS];
    for (a_step, b_step) in a_steps.iter().zip(b_steps) {
        let (a_lanes, _) = a_step.as_chunks::<LANES>();
        let (b_lanes, _) = b_step.as_chunks::<LANES>();
        for lane in 0..ACCUMULATORS {
            let (x, y) = (load(&a_lanes[lane]), load(&b_lanes[lane]));
            sums[lane] = fold::<EUCLIDEAN>(sums[lane], x, y);
        }
    }
    let (a_lanes, a_tail) = a_rest.as_chunks::<LANES>();
    let (b_lanes, b_tail) = b_rest.as_chunks::<LANES>();
    for (x, y) in a_lanes.iter().zip(b_lanes) {
        sums[0] = fold::<EUCLIDEAN>(sums[0], load(x), load(y));
    }
    a_tail.iter().zip(b_tail).fold(total(sums), |sum, (&x, &y)| {
        if EUCLIDEAN { (x - y).mul_add(x - y, sum) } else { x.mul_add(y, sum) }
    })
}

#[inline]
#[target_feature(enable = "neon")]
fn fold<const EUCLIDEAN: bool>(sum: float32x4_t, x: float32x4_t, y: float32x4_t) -> float32x4_t {
    if EUCLIDEAN {
        let difference = vsubq_f32(x, y);
        vfmaq_f32(sum, difference, difference)
    } else {
        vfmaq_f32(sum, x, y)
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn total(sums: [float32x4_t; ACCUMULATORS]) -> f32 {
    let [a, b, c, d, e, f, g, h] = sums;
    let first = vaddq_f32(vaddq_f32(a, b), vaddq_f32(c, d));
    let second = vaddq_f32(vaddq_f32(e, f), vaddq_f32(g, h));
    vaddvq_f32(vaddq_f32(first, second))
}

#[inline]
#[target_feature(enable = "neon")]
#[expect(unsafe_code, reason = "loads through a pointer")]
fn load(lanes: &[f32; LANES]) -> float32x4_t {
    // SAFETY: the array is as large as the register, and the load asks for no
    // alignment beyond that of a float.
    unsafe { vld1q_f32(lanes.as_ptr()) }
}
