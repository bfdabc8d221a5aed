//! What a search reads of its query, again and again.

use super::quantize::Quantized;
use super::rotation::Rotation;
use crate::distance::quantized::{BLOCK_COUNT, GROUP_BYTES, GROUP_DIMENSIONS, Line, kernels};

/// A query, rotated and quantized in both ways.
#[derive(Default)]
pub(super) struct PreparedQuery {
    pub(super) rotated: Vec<f32>,
    pub(super) quantized: Quantized,
    /// What each nibble of signs adds, as in [`crate::distance::quantized`].
    pub(super) tables: Vec<u8>,
    step: f32,
    offset: f32,
}

impl PreparedQuery {
    /// Prepares what `rotated` holds.
    pub(super) fn prepare(&mut self, rotation: &Rotation) {
        rotation.rotate(&mut self.rotated);
        self.prepare_rotated();
    }

    /// As [`Self::prepare`], of what is rotated already.
    pub(super) fn prepare_rotated(&mut self) {
        self.quantized.set(&self.rotated);
        self.make_tables();
    }

    fn make_tables(&mut self) {
        self.tables.resize(self.rotated.len() / GROUP_DIMENSIONS * GROUP_BYTES, 0);
        let steps = (kernels().make_tables)(&self.rotated, &mut self.tables);
        // With signs as plus and minus one, the dot product is twice what bits sum up to, less all.
        self.step = 2.0 * steps.step;
        self.offset = 2.0 * steps.least - steps.sum;
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
