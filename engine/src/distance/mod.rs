//! Distances between vectors of `f32`, by the fastest instructions of this CPU; those of quantized
//! vectors have a module of their own.
//!
//! Invariants: the kernels are chosen once per process, so equal inputs give
//! equal bits for its whole life; a `_rows` kernel gives, for every row, the
//! very bits its single-pair kernel gives, so a score never depends on where a
//! vector lies. Another CPU sums in another order and may differ in the last
//! bits. Nothing here allocates, reads a file, or knows of keys and metrics.
//!
//! [`scalar`] is the oracle that the other kernels are tested against, and the
//! fallback for a CPU that has none of their instructions.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
pub(crate) mod quantized;
pub mod scalar;

use std::sync::OnceLock;

/// A kernel over two vectors of the same length; it panics if they differ.
pub type Pair = fn(&[f32], &[f32]) -> f32;

/// A kernel over one query and many rows that lie one behind the other.
///
/// `rows` holds `values.len()` rows, each as long as the query; the kernel
/// panics if it does not. The value of row `i` is written to `values[i]`.
///
/// It saves the call for each row, which is a tenth of a scan in cache and a
/// twentieth of one in memory. It takes one row at a time and leaves prefetching
/// to the CPU: two or four rows to a load of the query were a fifth slower from
/// memory, and prefetches a tenth slower from cache, on a Zen 3.
pub type Rows = fn(query: &[f32], rows: &[f32], values: &mut [f32]);

/// The distance kernels of one instruction set.
#[derive(Clone, Copy, Debug)]
pub struct Kernels {
    /// The instruction set: `scalar`, `neon`, `avx2` or `avx512`.
    pub name: &'static str,
    /// The dot product.
    pub dot: Pair,
    /// The squared Euclidean distance, in the space's own unit squared.
    pub squared_euclidean: Pair,
    /// The dot product of the query with each row.
    pub dot_rows: Rows,
    /// The squared Euclidean distance of the query to each row.
    pub squared_euclidean_rows: Rows,
}

/// Returns the kernels of this process: the fastest the CPU has.
#[must_use]
pub fn kernels() -> &'static Kernels {
    static CHOSEN: OnceLock<&'static Kernels> = OnceLock::new();
    CHOSEN.get_or_init(|| available().next().unwrap_or(&scalar::KERNELS))
}

/// Returns every set of kernels this CPU can run, fastest first, `scalar` last.
pub fn available() -> impl Iterator<Item = &'static Kernels> {
    #[cfg(target_arch = "x86_64")]
    let detected = [avx512::detect(), avx2::detect()];
    #[cfg(target_arch = "aarch64")]
    let detected = [neon::detect()];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let detected: [Option<&'static Kernels>; 0] = [];
    detected.into_iter().flatten().chain([&scalar::KERNELS])
}

/// Panics unless the two vectors have the same length.
#[inline]
#[track_caller]
fn assert_same_length(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len(), "vectors of different lengths have no distance");
}

/// Panics unless `rows` holds one row as long as `query` for each value.
#[inline]
#[track_caller]
fn assert_whole_rows(query: &[f32], rows: &[f32], values: &[f32]) {
    assert_eq!(
        query.len().checked_mul(values.len()),
        Some(rows.len()),
        "the rows must be as long as the query and as many as the values",
    );
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Repeatable numbers (SplitMix64).
    pub(crate) struct Random(pub(crate) u64);

    impl Random {
        pub(crate) fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        }

        pub(crate) fn below(&mut self, bound: usize) -> usize {
            (self.next() % bound as u64) as usize
        }

        /// Fractions from −1 to 1.
        pub(crate) fn fractions(&mut self, len: usize) -> Vec<f32> {
            (0..len).map(|_| (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
        }

        /// Whole numbers from −8 to 8.
        pub(crate) fn whole(&mut self, len: usize) -> Vec<f32> {
            (0..len).map(|_| self.below(17) as f32 - 8.0).collect()
        }
    }

    fn lengths() -> impl Iterator<Item = usize> {
        (0..=130).chain([384, 768, 4096])
    }

    fn terms(a: &[f32], b: &[f32], term: Term) -> Vec<f64> {
        a.iter().zip(b).map(|(&x, &y)| term(x.into(), y.into())).collect()
    }

    type Term = fn(f64, f64) -> f64;

    /// The kernels of each distance, with the term that they add up.
    fn pairs(kernels: &Kernels) -> [(Pair, Rows, Term); 2] {
        [
            (kernels.dot, kernels.dot_rows, |x, y| x * y),
            (kernels.squared_euclidean, kernels.squared_euclidean_rows, |x, y| (x - y) * (x - y)),
        ]
    }

    #[test]
    fn whole_numbers_give_exact_values_at_every_alignment() {
        for kernels in available() {
            let mut random = Random(5);
            for len in lengths() {
                let (a, b) = (random.whole(len + 16), random.whole(len + 16));
                for offset in 0..16 {
                    let (a, b) = (&a[offset..][..len], &b[15 - offset..][..len]);
                    for (pair, _, term) in pairs(kernels) {
                        let expected: f64 = terms(a, b, term).iter().sum();
                        assert_eq!(f64::from(pair(a, b)), expected, "{} of {len}", kernels.name);
                    }
                }
            }
        }
    }

    #[test]
    fn fractions_err_no_more_than_theory_allows() {
        for kernels in available() {
            let mut random = Random(6);
            for len in lengths() {
                let (a, b) = (random.fractions(len + 1), random.fractions(len));
                let a = &a[1..];
                for (pair, _, term) in pairs(kernels) {
                    let terms = terms(a, &b, term);
                    let expected: f64 = terms.iter().sum();
                    let magnitude: f64 = terms.iter().map(|term| term.abs()).sum();
                    // A rounding for each addition, three in the term, and the
                    // product of all those errors.
                    let bound = (len + 4) as f64 * f64::from(f32::EPSILON / 2.0) * magnitude;
                    let error = (f64::from(pair(a, &b)) - expected).abs();
                    assert!(error <= bound, "{} of {len}: {error} > {bound}", kernels.name);
                }
            }
        }
    }

    #[test]
    fn rows_give_the_bits_of_pairs() {
        for kernels in available() {
            let mut random = Random(7);
            for len in lengths() {
                for rows_count in [0, 1, 2, 3, 5] {
                    let (query, rows) = (random.fractions(len), random.fractions(len * rows_count));
                    for (pair, rows_kernel, _) in pairs(kernels) {
                        let mut values = vec![f32::NAN; rows_count];
                        rows_kernel(&query, &rows, &mut values);
                        for (index, value) in values.iter().enumerate() {
                            let expected = pair(&query, &rows[index * len..][..len]);
                            assert_eq!(value.to_bits(), expected.to_bits(), "{}", kernels.name);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn kernels_refuse_lengths_that_differ() {
        let refuses =
            |call: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).is_err();
        for kernels in available() {
            for (pair, rows, _) in pairs(kernels) {
                assert!(refuses(&|| _ = pair(&[1.0; 40], &[1.0; 41])), "{}", kernels.name);
                assert!(refuses(&|| rows(&[1.0; 8], &[1.0; 17], &mut [0.0; 2])));
                assert!(refuses(&|| rows(&[1.0; 8], &[1.0; 15], &mut [0.0; 2])));
            }
        }
    }

    #[test]
    fn the_choice_is_the_first_available_and_scalar_the_last() {
        assert_eq!(available().next().map(|first| first.name), Some(kernels().name));
        assert_eq!(available().last().map(|last| last.name), Some("scalar"));
    }
}
