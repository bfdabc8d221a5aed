//! The plain kernels: the oracle of the others, and the fallback.
//!
//! They add from left to right, as the definition reads, and so no compiler may
//! vectorise them: their worth is that they are obviously right.

use super::{Kernels, assert_same_length, assert_whole_rows};

pub(super) static KERNELS: Kernels =
    Kernels { name: "scalar", dot, squared_euclidean, dot_rows, squared_euclidean_rows };

/// Returns the dot product of `a` and `b`.
///
/// # Panics
/// If the lengths differ.
#[must_use]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    assert_same_length(a, b);
    a.iter().zip(b).fold(0.0, |sum, (x, y)| sum + x * y)
}

/// Returns the squared Euclidean distance between `a` and `b`.
///
/// # Panics
/// If the lengths differ.
#[must_use]
pub fn squared_euclidean(a: &[f32], b: &[f32]) -> f32 {
    assert_same_length(a, b);
    a.iter().zip(b).fold(0.0, |sum, (x, y)| sum + (x - y) * (x - y))
}

/// Returns the dot product in double precision.
///
/// No finite input overflows or underflows here: the kernels' callers turn to it
/// for the rare vectors whose products leave the range of `f32`.
///
/// # Panics
/// If the lengths differ.
#[must_use]
pub fn dot_wide(a: &[f32], b: &[f32]) -> f64 {
    assert_same_length(a, b);
    a.iter().zip(b).fold(0.0, |sum, (&x, &y)| sum + f64::from(x) * f64::from(y))
}

fn dot_rows(query: &[f32], rows: &[f32], values: &mut [f32]) {
    each_row(dot, query, rows, values);
}

fn squared_euclidean_rows(query: &[f32], rows: &[f32], values: &mut [f32]) {
    each_row(squared_euclidean, query, rows, values);
}

fn each_row(pair: super::Pair, query: &[f32], rows: &[f32], values: &mut [f32]) {
    assert_whole_rows(query, rows, values);
    for (index, value) in values.iter_mut().enumerate() {
        *value = pair(query, &rows[index * query.len()..][..query.len()]);
    }
}
