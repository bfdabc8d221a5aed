//! Kernels for x86-64 with AVX-512: four groups of signs, or 64 numbers, an instruction.

use std::arch::x86_64::{
    __m128i, __m256i, __m512, __m512i, _CMP_LT_OQ, _mm_add_epi16, _mm_add_epi32, _mm_cvtsi128_si32,
    _mm_extract_epi32, _mm_unpackhi_epi16, _mm_unpacklo_epi16, _mm256_add_epi16, _mm256_add_epi32,
    _mm256_castsi256_si128, _mm256_extracti128_si256, _mm256_loadu_si256, _mm256_set_m128i,
    _mm512_add_epi16, _mm512_add_epi32, _mm512_add_ps, _mm512_and_si512, _mm512_castsi512_si256,
    _mm512_cmp_ps_mask, _mm512_cvtepi32_ps, _mm512_cvtepu16_epi32, _mm512_cvtph_ps,
    _mm512_dpbusd_epi32, _mm512_extracti64x4_epi64, _mm512_fmadd_ps, _mm512_loadu_si512,
    _mm512_maskz_loadu_epi8, _mm512_maskz_mov_epi8, _mm512_reduce_add_epi32, _mm512_set1_epi8,
    _mm512_set1_ps, _mm512_setzero_si512, _mm512_shuffle_epi8, _mm512_slli_epi16,
    _mm512_slli_epi32, _mm512_srli_epi16, _mm512_storeu_ps, _mm512_sub_epi16,
    _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

use zerocopy::IntoBytes;

use super::{
    BLOCK_COUNT, Line, Planes, QuantizedKernels, SKETCHES_COUNT, Steps, assert_parts, assert_signs,
    scalar,
};

const LANES: usize = 64;
/// Steps after which a sum of bytes may not fit 16 bits any more.
const STEPS_MAX: usize = 64;

/// The only way to [`KERNELS`]: none without the instructions.
pub(super) fn detect() -> Option<&'static QuantizedKernels> {
    let present = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni");
    present.then_some(&KERNELS)
}

static KERNELS: QuantizedKernels = QuantizedKernels {
    name: "avx512",
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
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    fn body(block: &mut [f32]) {
        scalar::transform(block);
    }
    // SAFETY: only `KERNELS` leads here, and only `detect` to it, after it has seen them.
    unsafe { body(block) }
}

#[expect(unsafe_code, reason = "calls a function of detected instructions")]
fn quantize(vector: &[f32], inverse: f32, bytes: &mut [i8]) -> (i32, i32) {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    fn body(vector: &[f32], inverse: f32, bytes: &mut [i8]) -> (i32, i32) {
        scalar::quantize(vector, inverse, bytes)
    }
    // SAFETY: only `KERNELS` leads here, and only `detect` to it, after it has seen them.
    unsafe { body(vector, inverse, bytes) }
}

#[expect(unsafe_code, reason = "calls a function of detected instructions")]
fn make_tables(vector: &[f32], tables: &mut [u8]) -> Steps {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    fn body(vector: &[f32], tables: &mut [u8]) -> Steps {
        scalar::make_tables(vector, tables)
    }
    // SAFETY: only `KERNELS` leads here, and only `detect` to it, after it has seen them.
    unsafe { body(vector, tables) }
}

#[expect(unsafe_code, reason = "calls a function of detected instructions")]
fn dot_planes(planes: Planes<'_>, other: &[i8]) -> i32 {
    assert_parts(planes.upper, 2, other);
    assert_parts(planes.lower, 2, other);
    // SAFETY: only `KERNELS` leads here, and only `detect` to it, after it has seen them.
    unsafe { dot_two(planes, other) }
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

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn dot_one(plane: &[u8], other: &[i8]) -> i32 {
    let (first, second) = other.split_at(plane.len());
    let (mut low_sums, mut high_sums) = (_mm512_setzero_si512(), _mm512_setzero_si512());
    let others = first.chunks(LANES).zip(second.chunks(LANES));
    for (plane, (first, second)) in plane.chunks(LANES).zip(others) {
        let [low, high] = nibbles(plane);
        low_sums = _mm512_dpbusd_epi32(low_sums, low, load_numbers(first));
        high_sums = _mm512_dpbusd_epi32(high_sums, high, load_numbers(second));
    }
    _mm512_reduce_add_epi32(_mm512_add_epi32(low_sums, high_sums))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn dot_two(planes: Planes<'_>, other: &[i8]) -> i32 {
    let (first, second) = other.split_at(planes.upper.len());
    let (mut upper_sums, mut lower_sums) = (_mm512_setzero_si512(), _mm512_setzero_si512());
    let others = first.chunks(LANES).zip(second.chunks(LANES));
    let planes = planes.upper.chunks(LANES).zip(planes.lower.chunks(LANES));
    for ((upper, lower), (first, second)) in planes.zip(others) {
        let (first, second) = (load_numbers(first), load_numbers(second));
        let [low, high] = nibbles(upper);
        upper_sums = _mm512_dpbusd_epi32(upper_sums, low, first);
        upper_sums = _mm512_dpbusd_epi32(upper_sums, high, second);
        let [low, high] = nibbles(lower);
        lower_sums = _mm512_dpbusd_epi32(lower_sums, low, first);
        lower_sums = _mm512_dpbusd_epi32(lower_sums, high, second);
    }
    _mm512_reduce_add_epi32(_mm512_add_epi32(_mm512_slli_epi32::<4>(upper_sums), lower_sums))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn sum_masked(sketches: [&[u8]; SKETCHES_COUNT], other: &[i8]) -> [i32; SKETCHES_COUNT] {
    let ones = _mm512_set1_epi8(1);
    let [mut a, mut b, mut c, mut d] = [_mm512_setzero_si512(); SKETCHES_COUNT];
    let add = |sums: __m512i, bits: &[u8; LANES / 8], numbers: __m512i| {
        let sketched = _mm512_maskz_mov_epi8(u64::from_le_bytes(*bits), numbers);
        _mm512_dpbusd_epi32(sums, ones, sketched)
    };
    let [bits_a, bits_b, bits_c, bits_d] = sketches;
    let bits = (bits_a.as_chunks().0.iter().zip(bits_b.as_chunks().0))
        .zip(bits_c.as_chunks().0.iter().zip(bits_d.as_chunks().0));
    for (((bits_a, bits_b), (bits_c, bits_d)), numbers) in bits.zip(other.chunks(LANES)) {
        let numbers = load_numbers(numbers);
        a = add(a, bits_a, numbers);
        b = add(b, bits_b, numbers);
        c = add(c, bits_c, numbers);
        d = add(d, bits_d, numbers);
    }
    reduce_four([a, b, c, d])
}

/// The sum of each of four registers.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn reduce_four([a, b, c, d]: [__m512i; 4]) -> [i32; 4] {
    let pairs = |a, b| _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let (ab, cd) = (pairs(a, b), pairs(c, d));
    let lanes = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    let half =
        _mm256_add_epi32(_mm512_castsi512_si256(lanes), _mm512_extracti64x4_epi64::<1>(lanes));
    let sums = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half));
    let (first, second) = (_mm_cvtsi128_si32(sums), _mm_extract_epi32::<1>(sums));
    [first, second, _mm_extract_epi32::<2>(sums), _mm_extract_epi32::<3>(sums)]
}

/// The lower and the upper halves of bytes, of which there may be fewer than fit.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn nibbles(bytes: &[u8]) -> [__m512i; 2] {
    let (bytes, lower) = (load_some(bytes), _mm512_set1_epi8(0xF));
    [_mm512_and_si512(bytes, lower), _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), lower)]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn load_numbers(numbers: &[i8]) -> __m512i {
    load_some(numbers.as_bytes())
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn estimate_block(
    signs: &[u8],
    tables: &[u8],
    line: &Line<'_>,
    limit: f32,
    distances: &mut [f32; BLOCK_COUNT],
) -> u32 {
    let mut sums = [_mm512_setzero_si512(); 2];
    let (signs, _) = signs.as_chunks::<LANES>();
    let (tables, _) = tables.as_chunks::<LANES>();
    for (signs, tables) in signs.chunks(STEPS_MAX).zip(tables.chunks(STEPS_MAX)) {
        let [low, high] = sum(signs, tables);
        sums[0] = _mm512_add_epi32(sums[0], _mm512_cvtepu16_epi32(low));
        sums[1] = _mm512_add_epi32(sums[1], _mm512_cvtepu16_epi32(high));
    }
    let (step, offset) = (_mm512_set1_ps(line.step), _mm512_set1_ps(line.offset));
    let (base, limit) = (_mm512_set1_ps(line.base), _mm512_set1_ps(limit));
    let mut below = 0;
    for (half, sums) in sums.into_iter().enumerate() {
        let signed = _mm512_fmadd_ps(step, _mm512_cvtepi32_ps(sums), offset);
        let add = _mm512_add_ps(base, floats(line.add, half));
        let found = _mm512_fmadd_ps(floats(line.multiply, half), signed, add);
        store(distances, half, found);
        below |= u32::from(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(found, limit)) << (16 * half);
    }
    below
}

/// Sums of the first and of the last sixteen vectors, of no more than [`STEPS_MAX`] steps.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn sum(signs: &[[u8; LANES]], tables: &[[u8; LANES]]) -> [__m256i; 2] {
    let lower = _mm512_set1_epi8(0xF);
    // Of the lower and the upper nibbles: pairs of bytes, and the second bytes of them.
    let mut pairs = [_mm512_setzero_si512(); 2];
    let mut seconds = [_mm512_setzero_si512(); 2];
    for (signs, table) in signs.iter().zip(tables) {
        let (signs, table) = (load(signs), load(table));
        let nibbles = [
            _mm512_and_si512(signs, lower),
            _mm512_and_si512(_mm512_srli_epi16::<4>(signs), lower),
        ];
        for half in 0..2 {
            let found = _mm512_shuffle_epi8(table, nibbles[half]);
            pairs[half] = _mm512_add_epi16(pairs[half], found);
            seconds[half] = _mm512_add_epi16(seconds[half], _mm512_srli_epi16::<8>(found));
        }
    }
    let mut sums = [fold(pairs[0], seconds[0]); 2];
    sums[1] = fold(pairs[1], seconds[1]);
    sums
}

/// Adds up the four groups of a register, and puts the vectors into their order.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn fold(pairs: __m512i, seconds: __m512i) -> __m256i {
    let firsts = _mm512_sub_epi16(pairs, _mm512_slli_epi16::<8>(seconds));
    let (firsts, seconds) = (quarter(firsts), quarter(seconds));
    _mm256_set_m128i(_mm_unpackhi_epi16(firsts, seconds), _mm_unpacklo_epi16(firsts, seconds))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn quarter(sums: __m512i) -> __m128i {
    let half = _mm256_add_epi16(_mm512_castsi512_si256(sums), _mm512_extracti64x4_epi64::<1>(sums));
    _mm_add_epi16(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn floats(halves: &[u16; BLOCK_COUNT], half: usize) -> __m512 {
    let (halves, _) = halves.as_chunks::<16>();
    _mm512_cvtph_ps(load_halves(&halves[half]))
}

#[inline]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "loads through a pointer")]
fn load_halves(halves: &[u16; 16]) -> __m256i {
    // SAFETY: the array is as large as the register, and the load asks for no alignment.
    unsafe { _mm256_loadu_si256(halves.as_ptr().cast()) }
}

/// As many bytes as there are, and zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
#[expect(unsafe_code, reason = "loads through a pointer")]
fn load_some(bytes: &[u8]) -> __m512i {
    let mask = u64::MAX.checked_shl(bytes.len() as u32).map_or(u64::MAX, |rest| !rest);
    // SAFETY: only bytes of the slice are read, as only they are in the mask.
    unsafe { _mm512_maskz_loadu_epi8(mask, bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "loads through a pointer")]
fn load(bytes: &[u8; LANES]) -> __m512i {
    // SAFETY: the array is as large as the register, and the load asks for no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "stores through a pointer")]
fn store(distances: &mut [f32; BLOCK_COUNT], half: usize, found: __m512) {
    let (halves, _) = distances.as_chunks_mut::<16>();
    // SAFETY: the array is as large as the register, and the store asks for no alignment.
    unsafe { _mm512_storeu_ps(halves[half].as_mut_ptr(), found) }
}
