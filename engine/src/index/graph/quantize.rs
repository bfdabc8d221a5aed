//! Vectors as bytes, and what a vertex knows of how its neighbours differ from it.

use half::f16;

use super::rows::{Header, Neighbourhood};
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
        let sums = (kernels().quantize)(rotated, inverse, &mut self.bytes);
        let norm_squared = scale * scale * sums.squares as f32;
        let sketch_scale = scale * sums.squares as f32 / sums.magnitudes.max(1) as f32;
        self.header = Header { scale, norm_squared, sketch_scale, ..Header::default() };
        self.sum = sums.bytes;
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

/// What lower planes hold about, where they are not read.
const LOWER_MEAN: f32 = 7.5;
const UPPER_STEP: f32 = 16.0;

impl Vertex<'_> {
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
        let rest = LOWER_MEAN - PLANES_OFFSET as f32;
        self.distance_of(other, UPPER_STEP * dot + rest * other.sum as f32)
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
