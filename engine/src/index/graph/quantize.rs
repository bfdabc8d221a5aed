//! Vectors as bytes, and what a vertex knows of how its neighbours differ from it.

use half::f16;

use super::rows::{Header, Neighbourhood, SKETCH_PARTS, UPPER_PARTS};
use super::view::Vertex;
use crate::distance::quantized::{
    BLOCK_COUNT, GROUP_BYTES, GROUP_DIMENSIONS, PLANES_OFFSET, kernels, read_planes,
};

const BYTE_MAX: f32 = 127.0;

/// A vector as bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Quantized {
    pub(super) bytes: Vec<i8>,
    pub(super) header: Header,
    /// Of the bytes.
    pub(super) sum: i32,
}

impl Quantized {
    /// Quantizes a rotated vector.
    pub(super) fn set(&mut self, rotated: &[f32]) {
        let largest = rotated.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        let scale = largest / BYTE_MAX;
        let inverse = if scale > 0.0 { scale.recip() } else { 0.0 };
        self.bytes.resize(rotated.len(), 0);
        let (sum, squares) = (kernels().quantize)(rotated, inverse, &mut self.bytes);
        let norm_squared = scale * scale * squares as f32;
        self.header = Header { scale, norm_squared, ..Header::default() };
        self.sum = sum;
    }

    /// The header of a vertex with this vector.
    ///
    /// With `s` what is read instead of the vector `v`, the best that `s` alone says of a product
    /// `<v, q>` is `<s, q> * |v|² / <s, v>`: right for what is near `v`, whatever was left out.
    pub(super) fn vertex_header(&self) -> Header {
        let (mut squares, mut with_sketch, mut with_upper) = (0.0_f32, 0.0_f32, 0.0_f32);
        for byte in &self.bytes {
            let number = f32::from(*byte);
            let upper = (i32::from(*byte) + PLANES_OFFSET) >> 4;
            squares += number * number;
            with_sketch += number.abs();
            with_upper += number * (UPPER_STEP * upper as f32 + UPPER_REST);
        }
        let step = |with: f32, parts: f32| {
            let best = if with > 0.0 { squares / with } else { 1.0 };
            (best * parts).round() as u16
        };
        let (sketch_step, upper_step) =
            (step(with_sketch, SKETCH_PARTS), step(with_upper, UPPER_PARTS));
        Header { sketch_step, upper_step, ..self.header }
    }

    pub(super) fn of(vertex: &Vertex<'_>) -> Self {
        let mut bytes = vec![0; 2 * vertex.planes.upper.len()];
        read_planes(vertex.planes, &mut bytes);
        let sum = bytes.iter().map(|byte| i32::from(*byte)).sum();
        Self { bytes, header: *vertex.header, sum }
    }

    pub(super) fn zero(padded: usize) -> Self {
        Self { bytes: vec![0; padded], header: Header::default(), sum: 0 }
    }

    /// The numbers that the bytes stand for.
    pub(super) fn numbers(&self) -> impl Iterator<Item = f32> {
        self.bytes.iter().map(|byte| self.header.scale * f32::from(*byte))
    }
}

/// What one in the upper plane is worth, and what is added: half of what the lower one may hold, less
/// what was added to bytes.
const UPPER_STEP: f32 = 16.0;
const UPPER_REST: f32 = 7.5 - PLANES_OFFSET as f32;

impl<'a> Vertex<'a> {
    /// What vertices with the same vector have in common.
    pub(super) fn identity(&self) -> (u32, &'a [u8], &'a [u8]) {
        (self.header.scale.to_bits(), self.planes.upper, self.planes.lower)
    }

    /// The squared distance between what the bytes of two vectors stand for.
    #[inline]
    pub(super) fn distance(&self, other: &Quantized) -> f32 {
        let dot = (kernels().dot_planes)(self.planes, &other.bytes) - PLANES_OFFSET * other.sum;
        self.distance_of(other, dot as f32)
    }

    /// About that distance, by upper planes alone.
    #[inline]
    pub(super) fn distance_by_upper(&self, other: &Quantized) -> f32 {
        let dot = (kernels().dot_upper)(self.planes.upper, &other.bytes) as f32;
        let dot = UPPER_STEP * dot + UPPER_REST * other.sum as f32;
        self.distance_of(other, f32::from(self.header.upper_step) * UPPER_PARTS.recip() * dot)
    }

    #[inline]
    fn distance_of(&self, other: &Quantized, dot: f32) -> f32 {
        let product = self.header.scale * other.header.scale * dot;
        (self.header.norm_squared + other.header.norm_squared - 2.0 * product).max(0.0)
    }
}

/// Writes what a vertex knows of one of its neighbours.
///
/// With `r` how the neighbour differs and `s` the signs of that, the best that `s` alone says of a
/// dot product `<r, y>` is `<s, y> * |r|² / <s, r>`. So a distance from a query `q` to the
/// neighbour, which is that to the vertex `c` and `|r|² - 2 <r, q - c>`, is that to the vertex and
/// `add + multiply * <s, q>`.
///
/// Source: Gao and Long, "RaBitQ", SIGMOD 2024.
pub(super) fn write_signs(
    neighbourhood: &mut Neighbourhood<'_>,
    slot: usize,
    vertex: &Quantized,
    neighbour: &Quantized,
) {
    let (block, lane) = (slot / BLOCK_COUNT, slot % BLOCK_COUNT);
    let block_bytes = vertex.bytes.len() / 8 * BLOCK_COUNT;
    let signs = &mut neighbourhood.signs[block * block_bytes..][..block_bytes];
    let (groups, _) = signs.as_chunks_mut::<GROUP_BYTES>();
    let shift = lane / GROUP_BYTES * 4;
    let (centers, _) = vertex.bytes.as_chunks::<LANES_COUNT>();
    let (others, _) = neighbour.bytes.as_chunks::<LANES_COUNT>();
    let scales = (vertex.header.scale, neighbour.header.scale);
    let mut sums = Sums::default();
    let parts = groups.as_chunks_mut::<{ LANES_COUNT / GROUP_DIMENSIONS }>().0.iter_mut();
    for ((groups, center), other) in parts.zip(centers).zip(others) {
        let mut bits = sums.add(center, other, scales);
        for group in groups {
            let byte = &mut group[lane % GROUP_BYTES];
            *byte = *byte & !(0xF << shift) | ((bits & 0xF) as u8) << shift;
            bits >>= GROUP_DIMENSIONS;
        }
    }
    let [squares, absolutes, signed] = sums.0.map(|lanes| lanes.iter().sum::<f32>());
    let factor = if absolutes > 0.0 { squares / absolutes } else { 0.0 };
    neighbourhood.add[slot] = f16::from_f32(squares + 2.0 * factor * signed).to_bits();
    neighbourhood.multiply[slot] = f16::from_f32(-2.0 * factor).to_bits();
}

/// Numbers that are summed side by side, which a compiler makes vector code of.
const LANES_COUNT: usize = 16;

/// Squares and magnitudes of the differences, and the vertex along their signs.
#[derive(Default)]
struct Sums([[f32; LANES_COUNT]; 3]);

impl Sums {
    /// Adds some numbers, and returns a bit for each that is greater than the vertex's.
    #[inline]
    fn add(
        &mut self,
        center: &[i8; LANES_COUNT],
        other: &[i8; LANES_COUNT],
        (center_scale, other_scale): (f32, f32),
    ) -> u32 {
        let mut bits = 0;
        for lane in 0..LANES_COUNT {
            let center = center_scale * f32::from(center[lane]);
            let difference = other_scale * f32::from(other[lane]) - center;
            let is_plus = difference > 0.0;
            bits |= u32::from(is_plus) << lane;
            self.0[0][lane] += difference * difference;
            self.0[1][lane] += difference.abs();
            self.0[2][lane] += if is_plus { center } else { -center };
        }
        bits
    }
}

#[cfg(test)]
mod tests {
    use super::super::query::PreparedQuery;
    use super::super::rows::{Rows, Shape};
    use crate::distance::tests::Random;

    /// What is read of a vector alone must not be wrong about queries that are near it, however its
    /// numbers are spread.
    #[test]
    fn what_is_near_looks_near() {
        let mut random = Random(5);
        let mut vector = |spread: fn(f32) -> f32| -> Vec<f32> {
            random.fractions(128).into_iter().map(spread).collect()
        };
        let vectors = [
            vector(|x| x),
            vector(|x| x.powi(9)),
            vector(|x| if x > 0.0 { 1.0 } else { -1.0 }),
            vector(|x| if x.abs() > 0.9 { x } else { 0.01 * x }),
            vector(|x| x.abs()),
        ];
        for (index, rotated) in vectors.iter().enumerate() {
            let mut query = PreparedQuery::default();
            query.rotated.clone_from(rotated);
            query.prepare_rotated();
            let mut rows = Rows::new(Shape::new(128, 32, false), 1, &Default::default()).unwrap();
            rows.set_vertex(0, &query.quantized.bytes, query.quantized.vertex_header());
            let (rows, norm) = (rows.view(), query.quantized.header.norm_squared);
            let by_upper = rows.vertex(0).distance_by_upper(&query.quantized);
            assert!(by_upper <= 0.001 * norm, "{index}: {by_upper} of {norm}");
            let [sum, ..] = query.sum_sketched([rows.sketch(0); 4]);
            let by_sketch = query.least_by_sketch(rows.header(0), sum);
            assert!(by_sketch <= 0.01 * norm, "{index}: {by_sketch} of {norm}");
        }
    }
}
