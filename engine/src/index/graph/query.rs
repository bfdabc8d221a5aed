//! What a search reads of its query, again and again.

use super::quantize::Quantized;
use super::rotation::Rotation;
use super::rows::{Header, SKETCH_PARTS};
use crate::distance::quantized::{
    BLOCK_COUNT, GROUP_BYTES, GROUP_DIMENSIONS, Line, SKETCHES_COUNT, kernels,
};

/// A query, rotated and quantized in both ways.
#[derive(Default)]
pub(super) struct PreparedQuery {
    pub(super) rotated: Vec<f32>,
    pub(super) quantized: Quantized,
    /// What each nibble of signs adds, as in [`crate::distance::quantized`].
    pub(super) tables: Vec<u8>,
    step: f32,
    offset: f32,
    /// Twice what a sum of bytes with bits in a sketch stands for, with signs as plus and minus one.
    sketch_step: f32,
    sketch_offset: f32,
}

/// How much nearer than by its sketch a vertex may be, in deviations of what sketches say.
const SKETCH_DEVIATIONS: f32 = 1.0;
/// The deviation of a product with a sketch, as a part of the query's norm: the signs of a vector
/// have an angle to it whose sine is about this, whatever the vector.
const SKETCH_DEVIATION: f32 = 0.6;

impl PreparedQuery {
    /// Prepares what `rotated` holds.
    pub(super) fn prepare(&mut self, rotation: &Rotation) {
        rotation.rotate(&mut self.rotated);
        self.prepare_rotated();
    }

    /// As [`Self::prepare`], of what is rotated already.
    pub(super) fn prepare_rotated(&mut self) {
        self.quantized.set(&self.rotated);
        let header = &self.quantized.header;
        self.sketch_step = 4.0 * header.scale / SKETCH_PARTS;
        let margin = SKETCH_DEVIATIONS * SKETCH_DEVIATION * header.norm_squared.sqrt();
        let all = header.scale * self.quantized.sum as f32;
        self.sketch_offset = 2.0 * (margin - all) / SKETCH_PARTS;
        self.make_tables();
    }

    fn make_tables(&mut self) {
        self.tables.resize(self.rotated.len() / GROUP_DIMENSIONS * GROUP_BYTES, 0);
        let steps = (kernels().make_tables)(&self.rotated, &mut self.tables);
        // With signs as plus and minus one, the dot product is twice what bits sum up to, less all.
        self.step = 2.0 * steps.step;
        self.offset = 2.0 * steps.least - steps.sum;
    }

    /// What sums over sketches are made of.
    #[inline]
    pub(super) fn sum_sketched(&self, sketches: [&[u8]; SKETCHES_COUNT]) -> [i32; SKETCHES_COUNT] {
        (kernels().sum_sketched)(sketches, &self.quantized.bytes)
    }

    /// The least squared distance that a vertex is likely to have, by the sum over its sketch.
    #[inline]
    pub(super) fn least_by_sketch(&self, header: &Header, sum: i32) -> f32 {
        let product = header.scale * f32::from(header.sketch_step);
        let product = product * (self.sketch_step * sum as f32 + self.sketch_offset);
        header.norm_squared + self.quantized.header.norm_squared - product
    }

    /// How the sums of signs of a vertex's neighbours become distances from the query.
    #[inline]
    pub(super) fn line<'a>(
        &self,
        base: f32,
        add: &'a [u16; BLOCK_COUNT],
        multiply: &'a [u16; BLOCK_COUNT],
    ) -> Line<'a> {
        Line { base, step: self.step, offset: self.offset, add, multiply }
    }
}
