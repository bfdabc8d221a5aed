//! Kernels for x86-64 with AVX-512F: sixteen floats an instruction.
//!
//! The shape is that of the AVX2 kernels, but the tail is a masked load: no
//! float is added alone.

use super::{Kernels, assert_same_length, assert_whole_rows};
use std::arch::x86_64::{
    __m512, _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_maskz_loadu_ps,
    _mm512_reduce_add_ps, _mm512_setzero_ps, _mm512_sub_ps,
};

/// Floats in one register.
const LANES: usize = 16;
/// Accumulators of one sum.
const ACCUMULATORS: usize = 4;
/// Floats that one step of the main loop takes from each vector.
const STEP: usize = LANES * ACCUMULATORS;

/// The only way to [`KERNELS`]: none without the instructions.
pub(super) fn detect() -> Option<&'static Kernels> {
    is_x86_feature_detected!("avx512f").then_some(&KERNELS)
}

static KERNELS: Kernels = Kernels {
    name: "avx512",
    dot: pair::<false>,
    squared_euclidean: pair::<true>,
    dot_rows: rows::<false>,
    squared_euclidean_rows: rows::<true>,
};

#[expect(unsafe_code, reason = "calls a function of detected instructions")]
fn pair<const EUCLIDEAN: bool>(a: &[f32], b: &[f32]) -> f32 {
    assert_same_length(a, b);
    // SAFETY: only `KERNELS` leads here and only `detect` leads to it, after it
    // has seen AVX-512F.
    unsafe { reduce::<EUCLIDEAN>(a, b) }
}

#[expect(unsafe_code, reason = "calls a function of detected instructions")]
fn rows<const EUCLIDEAN: bool>(query: &[f32], rows: &[f32], values: &mut [f32]) {
    assert_whole_rows(query, rows, values);
    // SAFETY: only `KERNELS` leads here and only `detect` leads to it, after it
    // has seen AVX-512F.
    unsafe { reduce_rows::<EUCLIDEAN>(query, rows, values) }
}

#[target_feature(enable = "avx512f")]
fn reduce_rows<const EUCLIDEAN: bool>(query: &[f32], rows: &[f32], values: &mut [f32]) {
    for (index, value) in values.iter_mut().enumerate() {
        let row = &rows[index * query.len()..][..query.len()];
        *value = reduce::<EUCLIDEAN>(query, row);
    }
}

/// Sums the products, or the squared differences, of `a` and `b`.
#[inline]
#[target_feature(enable = "avx512f")]
fn reduce<const EUCLIDEAN: bool>(a: &[f32], b: &[f32]) -> f32 {
    let (a_steps, a_rest) = a.as_chunks::<STEP>();
    let (b_steps, b_rest) = b.as_chunks::<STEP>();
    let mut sums = [_mm512_setzero_ps(); ACCUMULATORS];
    for (a_step, b_step) in a_steps.iter().zip(b_steps) {
        let (a_lanes, _) = a_step.as_chunks::<LANES>();
        let (b_lanes, _) = b_step.as_chunks::<LANES>();
        for lane in 0..ACCUMULATORS {
            let (x, y) = (load(&a_lanes[lane]), load(&b_lanes[lane]));
            sums[lane] = fold::<EUCLIDEAN>(sums[lane], x, y);
        }
    }
    for (lane, (x, y)) in a_rest.chunks(LANES).zip(b_rest.chunks(LANES)).enumerate() {
        sums[lane] = fold::<EUCLIDEAN>(sums[lane], load_some(x), load_some(y));
    }
    total(sums)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn fold<const EUCLIDEAN: bool>(sum: __m512, x: __m512, y: __m512) -> __m512 {
    if EUCLIDEAN {
        let difference = _mm512_sub_ps(x, y);
        _mm512_fmadd_ps(difference, difference, sum)
    } else {
        _mm512_fmadd_ps(x, y, sum)
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn total(sums: [__m512; ACCUMULATORS]) -> f32 {
    let [a, b, c, d] = sums;
    _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d)))
}

#[inline]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "loads through a pointer")]
fn load(lanes: &[f32; LANES]) -> __m512 {
    // SAFETY: the array is as large as the register, and the load asks for no
    // alignment.
    unsafe { _mm512_loadu_ps(lanes.as_ptr()) }
}

/// Loads the first floats, at most [`LANES`], and zeros behind them.
#[inline]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "loads through a pointer")]
fn load_some(floats: &[f32]) -> __m512 {
    let mask = ((1_u32 << floats.len().min(LANES)) - 1) as u16;
    // SAFETY: the mask selects no float behind the slice, what it does not
    // select is not touched, and the load asks for no alignment.
    unsafe { _mm512_maskz_loadu_ps(mask, floats.as_ptr()) }
}
