//! Kernels for x86-64 with AVX2, FMA and F16C: two groups of signs, or 16 numbers, an instruction.

use std::arch::x86_64::{
    __m128i, __m256, __m256i, _CMP_LT_OQ, _mm_add_epi16, _mm_loadu_si128, _mm_unpackhi_epi16,
    _mm_unpacklo_epi16, _mm256_add_epi16, _mm256_add_epi32, _mm256_add_ps, _mm256_and_si256,
    _mm256_castsi256_si128, _mm256_cmp_ps, _mm256_cmpeq_epi8, _mm256_cvtepi32_ps,
    _mm256_cvtepu16_epi32, _mm256_cvtph_ps, _mm256_extracti128_si256, _mm256_fmadd_ps,
    _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_movemask_ps,
    _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_epi64x, _mm256_set1_ps,
    _mm256_setr_epi64x, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_slli_epi16,
    _mm256_srli_epi16, _mm256_storeu_ps, _mm256_storeu_si256, _mm256_sub_epi16,
};

use super::{
    BLOCK_COUNT, Line, Planes, QuantizedKernels, SKETCHES_COUNT, Steps, assert_parts, assert_signs,
    scalar,
};

const LANES: usize = 32;
/// Steps after which a sum of bytes may not fit 16 bits any more.
const STEPS_MAX: usize = 128;

/// The only way to [`KERNELS`]: none without the instructions.
pub(super) fn detect() -> Option<&'static QuantizedKernels> {
    let present = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c");
    present.then_some(&KERNELS)
}

static KERNELS: QuantizedKernels = QuantizedKernels {
    name: "avx2",
    dot_planes,
    dot_upper,
    sum_sketched,
    estimate,
    transform,
    quantize,
    make_tables,
};

#[expect(unsafe_code, reason = "calls a function of detected instructions")]
fn transform(block: &mut [f32]) {
    #[target_feature(enable = "avx2,fma")]
    fn body(block: &mut [f32]) {
        scalar::transform(block);
    }
    // SAFETY: only `KERNELS` leads here, and only `detect` to it, after it has seen them.
    unsafe { body(block) }
}

#[expect(unsafe_code, reason = "calls a function of detected instructions")]
fn quantize(vector: &[f32], inverse: f32, bytes: &mut [i8]) -> (i32, i32) {
    #[target_feature(enable = "avx2,fma")]
    fn body(vector: &[f32], inverse: f32, bytes: &mut [i8]) -> (i32, i32) {
        scalar::quantize(vector, inverse, bytes)
    }
    // SAFETY: only `KERNELS` leads here, and only `detect` to it, after it has seen them.
    unsafe { body(vector, inverse, bytes) }
}

#[expect(unsafe_code, reason = "calls a function of detected instructions")]
fn make_tables(vector: &[f32], tables: &mut [u8]) -> Steps {
    #[target_feature(enable = "avx2,fma")]
    fn body(vector: &[f32], tables: &mut [u8]) -> Steps {
        scalar::make_tables(vector, tables)
    }
    // SAFETY: only `KERNELS` leads here, and only `detect` to it, after it has seen them.
    unsafe { body(vector, tables) }
}

fn dot_planes(planes: Planes<'_>, other: &[i8]) -> i32 {
    (dot_upper(planes.upper, other) << 4) + dot_upper(planes.lower, other)
}

#[expect(unsafe_code, reason = "calls a function of detected instructions")]
fn dot_upper(upper: &[u8], other: &[i8]) -> i32 {
    assert_parts(upper, 2, other);
    // SAFETY: only `KERNELS` leads here, and only `detect` to it, after it has seen them.
    unsafe { dot_one(upper, other) }
}

#[expect(unsafe_code, reason = "calls a function of detected instructions")]
fn sum_sketched(sketches: [&[u8]; SKETCHES_COUNT], other: &[i8]) -> [i32; SKETCHES_COUNT] {
    sketches.iter().for_each(|sketch| assert_parts(sketch, 8, other));
    // SAFETY: only `KERNELS` leads here, and only `detect` to it, after it has seen them.
    unsafe { sum_masked(sketches, other) }
}

#[expect(unsafe_code, reason = "calls a function of detected instructions")]
fn estimate(
    signs: &[u8],
    tables: &[u8],
    line: &Line<'_>,
    limit: f32,
    distances: &mut [f32; BLOCK_COUNT],
) -> u32 {
    assert_signs(signs, tables);
    // SAFETY: only `KERNELS` leads here, and only `detect` to it, after it has seen them.
    unsafe { estimate_block(signs, tables, line, limit, distances) }
}

#[target_feature(enable = "avx2")]
fn dot_one(plane: &[u8], other: &[i8]) -> i32 {
    let (first, second) = other.split_at(plane.len());
    let (lower, ones) = (_mm256_set1_epi8(0xF), _mm256_set1_epi16(1));
    let mut sums = [_mm256_setzero_si256(); 2];
    let others = first.as_chunks::<LANES>().0.iter().zip(second.as_chunks::<LANES>().0);
    for (plane, (first, second)) in plane.as_chunks::<LANES>().0.iter().zip(others) {
        let plane = load(plane);
        let low = _mm256_and_si256(plane, lower);
        let high = _mm256_and_si256(_mm256_srli_epi16::<4>(plane), lower);
        // Sums of two products of at most 15 and 127 fit 16 bits, and so do two such.
        let low = _mm256_maddubs_epi16(low, load_numbers(first));
        let high = _mm256_maddubs_epi16(high, load_numbers(second));
        let both = _mm256_madd_epi16(_mm256_add_epi16(low, high), ones);
        sums[1] = _mm256_add_epi32(sums[1], both);
        sums.swap(0, 1);
    }
    total(_mm256_add_epi32(sums[0], sums[1]))
}

#[target_feature(enable = "avx2")]
fn sum_masked(sketches: [&[u8]; SKETCHES_COUNT], other: &[i8]) -> [i32; SKETCHES_COUNT] {
    sketches.map(|sketch| sum_one(sketch, other))
}

#[inline]
#[target_feature(enable = "avx2")]
fn sum_one(sketch: &[u8], other: &[i8]) -> i32 {
    // Each byte of a register becomes that of the sketch that has its bit, and that bit alone.
    let lane_of = |lane: i64| lane * 0x0101_0101_0101_0101;
    let places = _mm256_setr_epi64x(lane_of(0), lane_of(1), lane_of(2), lane_of(3));
    let bits = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64.cast_signed());
    let ones = _mm256_set1_epi8(1);
    let mut sum = _mm256_setzero_si256();
    let sketch = sketch.as_chunks::<{ LANES / 8 }>().0.iter();
    for (sketched, other) in sketch.zip(other.as_chunks::<LANES>().0) {
        let sketched = _mm256_set1_epi32(i32::from_le_bytes(*sketched));
        let sketched = _mm256_and_si256(_mm256_shuffle_epi8(sketched, places), bits);
        let mask = _mm256_cmpeq_epi8(sketched, bits);
        let pairs = _mm256_maddubs_epi16(ones, _mm256_and_si256(mask, load_numbers(other)));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    total(sum)
}

#[inline]
#[target_feature(enable = "avx2")]
fn total(sums: __m256i) -> i32 {
    let mut lanes = [0_i32; 8];
    store_whole(&mut lanes, sums);
    lanes.iter().sum()
}

#[target_feature(enable = "avx2,fma,f16c")]
fn estimate_block(
    signs: &[u8],
    tables: &[u8],
    line: &Line<'_>,
    limit: f32,
    distances: &mut [f32; BLOCK_COUNT],
) -> u32 {
    let mut sums = [_mm256_setzero_si256(); 4];
    let (signs, _) = signs.as_chunks::<LANES>();
    let (tables, _) = tables.as_chunks::<LANES>();
    for (signs, tables) in signs.chunks(STEPS_MAX).zip(tables.chunks(STEPS_MAX)) {
        for (total, eight) in sums.iter_mut().zip(sum(signs, tables)) {
            *total = _mm256_add_epi32(*total, _mm256_cvtepu16_epi32(eight));
        }
    }
    let (step, offset) = (_mm256_set1_ps(line.step), _mm256_set1_ps(line.offset));
    let (base, limit) = (_mm256_set1_ps(line.base), _mm256_set1_ps(limit));
    let mut below = 0;
    for (eight, sums) in sums.into_iter().enumerate() {
        let signed = _mm256_fmadd_ps(step, _mm256_cvtepi32_ps(sums), offset);
        let add = _mm256_add_ps(base, floats(line.add, eight));
        let found = _mm256_fmadd_ps(floats(line.multiply, eight), signed, add);
        store(distances, eight, found);
        let mask = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(found, limit));
        below |= (mask as u32) << (8 * eight);
    }
    below
}

/// Sums of eight vectors each, of no more than [`STEPS_MAX`] steps.
#[inline]
#[target_feature(enable = "avx2")]
fn sum(signs: &[[u8; LANES]], tables: &[[u8; LANES]]) -> [__m128i; 4] {
    let lower = _mm256_set1_epi8(0xF);
    // Of the lower and the upper nibbles: pairs of bytes, and the second bytes of them.
    let mut pairs = [_mm256_setzero_si256(); 2];
    let mut seconds = [_mm256_setzero_si256(); 2];
    for (signs, table) in signs.iter().zip(tables) {
        let (signs, table) = (load(signs), load(table));
        let nibbles = [
            _mm256_and_si256(signs, lower),
            _mm256_and_si256(_mm256_srli_epi16::<4>(signs), lower),
        ];
        for half in 0..2 {
            let found = _mm256_shuffle_epi8(table, nibbles[half]);
            pairs[half] = _mm256_add_epi16(pairs[half], found);
            seconds[half] = _mm256_add_epi16(seconds[half], _mm256_srli_epi16::<8>(found));
        }
    }
    let [a, b] = fold(pairs[0], seconds[0]);
    let [c, d] = fold(pairs[1], seconds[1]);
    [a, b, c, d]
}

/// Adds up the two groups of a register, and puts the vectors into their order.
#[inline]
#[target_feature(enable = "avx2")]
fn fold(pairs: __m256i, seconds: __m256i) -> [__m128i; 2] {
    let firsts = _mm256_sub_epi16(pairs, _mm256_slli_epi16::<8>(seconds));
    let (firsts, seconds) = (halve(firsts), halve(seconds));
    [_mm_unpacklo_epi16(firsts, seconds), _mm_unpackhi_epi16(firsts, seconds)]
}

#[inline]
#[target_feature(enable = "avx2")]
fn halve(sums: __m256i) -> __m128i {
    _mm_add_epi16(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums))
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
#[expect(unsafe_code, reason = "loads through a pointer")]
fn floats(halves: &[u16; BLOCK_COUNT], eight: usize) -> __m256 {
    let (halves, _) = halves.as_chunks::<8>();
    // SAFETY: the array is as large as the register, and the load asks for no alignment.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(halves[eight].as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx2")]
#[expect(unsafe_code, reason = "loads through a pointer")]
fn load_numbers(numbers: &[i8; LANES]) -> __m256i {
    // SAFETY: the array is as large as the register, and the load asks for no alignment.
    unsafe { _mm256_loadu_si256(numbers.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
#[expect(unsafe_code, reason = "loads through a pointer")]
fn load(bytes: &[u8; LANES]) -> __m256i {
    // SAFETY: the array is as large as the register, and the load asks for no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
#[expect(unsafe_code, reason = "stores through a pointer")]
fn store(distances: &mut [f32; BLOCK_COUNT], eight: usize, found: __m256) {
    let (eights, _) = distances.as_chunks_mut::<8>();
    // SAFETY: the array is as large as the register, and the store asks for no alignment.
    unsafe { _mm256_storeu_ps(eights[eight].as_mut_ptr(), found) }
}

#[inline]
#[target_feature(enable = "avx2")]
#[expect(unsafe_code, reason = "stores through a pointer")]
fn store_whole(lanes: &mut [i32; 8], sums: __m256i) {
    // SAFETY: the array is as large as the register, and the store asks for no alignment.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), sums) }
}
