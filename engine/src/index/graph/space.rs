//! What near means, made one: in the space of a graph, all metrics are Euclidean.
//!
//! Vectors are compared by angle as unit vectors. For the dot product they get one more number, that
//! makes them all as long as the longest: the query has none there, so the nearest is the one with
//! the largest product. (Neyshabur and Srebro, "On Symmetric and Asymmetric LSHs for Inner Product
//! Search", ICML 2015.) Then the center is subtracted, and all is scaled, so that what is left has
//! norms about one, whatever the unit was.

use op_dbus_formats::collection::Metric;

use crate::distance::kernels;
use crate::distance::scalar::dot_wide;

/// Vectors that say where the center is.
const SAMPLE_COUNT: usize = 10_000;

pub(super) struct Space {
    pub(super) metric: Metric,
    pub(super) dimensions: usize,
    /// Shape: `[dimensions]`.
    pub(super) center: Vec<f32>,
    pub(super) unit: f32,
    /// The longest vector, for the dot product.
    pub(super) norm_max: f32,
}

impl Space {
    /// The space of some vectors, which lie one behind the other.
    pub(super) fn of(vectors: &[f32], dimensions: usize, metric: Metric) -> Self {
        let rows = vectors.chunks_exact(dimensions);
        let norm_max = match metric {
            Metric::Dot => rows.clone().map(norm).fold(0.0, f64::max) as f32,
            Metric::Cosine | Metric::Euclidean => 0.0,
        };
        let center = vec![0.0; dimensions];
        let mut space = Self { metric, dimensions, center, unit: 1.0, norm_max };
        let step = (rows.len() / SAMPLE_COUNT).max(1);
        let mut sums = vec![0.0_f64; dimensions];
        let mut count = 0.0;
        for vector in rows.clone().step_by(step) {
            let scale = space.scale(vector);
            for (sum, number) in sums.iter_mut().zip(vector) {
                *sum += f64::from(*number) * scale;
            }
            count += 1.0;
        }
        space.center = sums.iter().map(|sum| (sum / count) as f32).collect();
        let squares: f64 = rows.step_by(step).map(|vector| space.squares(vector)).sum();
        let unit = (squares / count).sqrt().recip() as f32;
        space.unit = if unit.is_finite() && unit > 0.0 { unit } else { 1.0 };
        space
    }

    /// The squared norm of a vector in this space, before the unit.
    fn squares(&self, vector: &[f32]) -> f64 {
        let scale = self.scale(vector);
        let square = |(number, center): (&f32, &f32)| {
            (f64::from(*number) * scale - f64::from(*center)).powi(2)
        };
        let rest = if self.metric == Metric::Dot { self.rest(vector) } else { 0.0 };
        vector.iter().zip(&self.center).map(square).sum::<f64>() + rest
    }

    /// The square of what makes a vector as long as the longest.
    fn rest(&self, vector: &[f32]) -> f64 {
        (f64::from(self.norm_max).powi(2) - norm(vector).powi(2)).max(0.0)
    }

    /// Whether a vector has no place: of length zero where only directions are compared.
    pub(super) fn is_nowhere(&self, vector: &[f32]) -> bool {
        self.metric == Metric::Cosine && norm(vector) == 0.0
    }

    /// Whether a vector is too long to be compared with the others by their dot products: what makes
    /// all as long as the longest would have to be imaginary.
    pub(super) fn is_too_long(&self, vector: &[f32]) -> bool {
        let longest = f64::from(self.norm_max) * (1.0 + NORM_TOLERANCE);
        self.metric == Metric::Dot && norm(vector) > longest
    }

    /// Numbers that a vector has in this space.
    pub(super) fn inner_dimensions(&self) -> usize {
        self.dimensions + usize::from(self.metric == Metric::Dot)
    }

    /// What a vector is multiplied with before the center is subtracted.
    fn scale(&self, vector: &[f32]) -> f64 {
        let norm = if self.metric == Metric::Cosine { norm(vector) } else { 1.0 };
        if norm > 0.0 { norm.recip() } else { 0.0 }
    }

    /// Puts a vector into the space. Shape of what is put: `[inner_dimensions]`.
    pub(super) fn place(&self, vector: &[f32], placed: &mut Vec<f32>) {
        self.place_scaled(vector, self.scale(vector), placed);
        if self.metric == Metric::Dot {
            placed.push((self.rest(vector).sqrt() * f64::from(self.unit)) as f32);
        }
    }

    /// Puts a query into the space.
    pub(super) fn place_query(&self, query: &[f32], placed: &mut Vec<f32>) {
        if self.metric != Metric::Dot {
            return self.place(query, placed);
        }
        // Of any length that is in the range of the others: the order is the same.
        let norm = norm(query);
        let scale = if norm > 0.0 { f64::from(self.norm_max) / norm } else { 0.0 };
        self.place_scaled(query, scale, placed);
        placed.push(0.0);
    }

    fn place_scaled(&self, vector: &[f32], scale: f64, placed: &mut Vec<f32>) {
        let unit = f64::from(self.unit);
        placed.clear();
        placed.extend(vector.iter().zip(&self.center).map(|(number, center)| {
            let placed = (f64::from(*number) * scale - f64::from(*center)) * unit;
            placed.clamp(f64::from(-PLACED_MAX), f64::from(PLACED_MAX)) as f32
        }));
    }
}

/// What rounding makes of equal lengths.
const NORM_TOLERANCE: f64 = 1e-5;

/// Far beyond all norms of about one, and yet no square of it overflows.
const PLACED_MAX: f32 = 1e12;

/// The Euclidean norm.
pub(super) fn norm(vector: &[f32]) -> f64 {
    let squares = f64::from((kernels().dot)(vector, vector));
    // Elsewhere the sum may have lost what it is made of.
    let squares = if ORDINARY.contains(&squares) { squares } else { dot_wide(vector, vector) };
    squares.sqrt()
}

/// Squared norms that `f32` sums up without loss.
const ORDINARY: std::ops::Range<f64> = 1e-24..1e30;
