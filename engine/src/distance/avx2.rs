//! Kernels for x86-64 with AVX2 and FMA: eight floats an instruction.
//!
//! Four accumulators, because an FMA waits four cycles for the one it adds to
//! while the two loads of a cycle feed one FMA a cycle.

use super::{Kernels, assert_same_length, assert_whole_rows};
use std::arch::x86_64::{
    __m256, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_movehdup_ps, _mm_movehl_ps, _mm256_add_ps,
    _mm256_castps256_ps128, _mm256_extractf128_ps, _mm256_fmadd_ps, _mm256_loadu_ps,
    _mm256_setzero_ps, _mm256_sub_ps,
};

/// Floats in one register.
const LANES: usize = 8;
/// Accumulators of one sum.
const ACCUMULATORS: usize = 4;
/// Floats that one step of the main loop takes from each vector.
const STEP: usize = LANES * ACCUMULATORS;

/// The only way to [`KERNELS`]: none without the instructions.
pub(super) fn detect() -> Option<&'static Kernels> {
    let present = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    present.then_some(&KERNELS)
}

static KERNELS: Kernels = Kernels {
    name: "avx2",
    dot: pair::<false>,
    squared_euclidean: pair::<true>,
    dot_rows: rows::<false>,
    squared_euclidean_rows: rows::<true>,
};

#[expect(unsafe_code, reason = "calls a function of detected instructions")]
fn pair<const EUCLIDEAN: bool>(a: &[f32], b: &[f32]) -> f32 {
    assert_same_length(a, b);
    // SAFETY: only `KERNELS` leads here and only `detect` leads to it, after it
    // has seen AVX2 and FMA.
    unsafe { reduce::<EUCLIDEAN>(a, b) }
}

#[expect(unsafe_code, reason = "calls a function of detected instructions")]
fn rows<const EUCLIDEAN: bool>(query: &[f32], rows: &[f32], values: &mut [f32]) {
    assert_whole_rows(query, rows, values);
    // SAFETY: only `KERNELS` leads here and only `detect` leads to it, after it
    // has seen AVX2 and FMA.
    unsafe { reduce_rows::<EUCLIDEAN>(query, rows, values) }
}

#[target_feature(enable = "avx2,fma")]
fn reduce_rows<const EUCLIDEAN: bool>(query: &[f32], rows: &[f32], values: &mut [f32]) {
    for (index, value) in values.iter_mut().enumerate() {
        let row = &rows[index * query.len()..][..query.len()];
        *value = reduce::<EUCLIDEAN>(query, row);
    }
}

/// Sums the products, or the squared differences, of `a` and `b`.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn reduce<const EUCLIDEAN: bool>(a: &[f32], b: &[f32]) -> f32 {
    let (a_steps, a_rest) = a.as_chunks::<STEP>();
    let (b_steps, b_rest) = b.as_chunks::<STEP>();
    let mut sums = [_mm256_setzero_ps(); ACCUMULATORS];
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
#[target_feature(enable = "avx2,fma")]
fn fold<const EUCLIDEAN: bool>(sum: __m256, x: __m256, y: __m256) -> __m256 {
    if EUCLIDEAN {
        let difference = _mm256_sub_ps(x, y);
        _mm256_fmadd_ps(difference, difference, sum)
    } else {
        _mm256_fmadd_ps(x, y, sum)
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn total(sums: [__m256; ACCUMULATORS]) -> f32 {
    let [a, b, c, d] = sums;
    let eight = _mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d));
    let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

#[inline]
#[target_feature(enable = "avx2")]
#[expect(unsafe_code, reason = "loads through a pointer")]
fn load(lanes: &[f32; LANES]) -> __m256 {
    // SAFETY: the array is as large as the register, and the load asks for no
    // alignment.
    unsafe { _mm256_loadu_ps(lanes.as_ptr()) }
}
