//! Where searches begin: some vertices in all regions, of which a query's nearest are found at once.
//!
//! They are the neighbours of a vertex that is no vertex, at the center: what is said of 32 of them
//! at once is read in one pass that stays in the processor's cache.

use super::quantize::{Quantized, write_signs};
use super::query::PreparedQuery;
use super::rows::{NO_LINK, Rows, Shape};
use super::traverse::Near;
use crate::distance::quantized::{BLOCK_COUNT, kernels};
use crate::error::Result;

/// The vertices that searches may begin at.
pub(super) struct Hub {
    rows: Rows,
}

impl Hub {
    pub(super) fn of(rows: &Rows, ids: &[u32]) -> Result<Self> {
        let padded = rows.shape().padded;
        let mut hub = Rows::new(Shape::new(padded, ids.len().max(1), true), 1)?;
        let center = Quantized::zero(padded);
        hub.set_vertex(0, &center.bytes, center.header);
        for (slot, id) in ids.iter().enumerate() {
            if !rows.view().is_ready(*id) {
                rows.failure()?;
            }
            let other = Quantized::of(&rows.view().vertex(*id));
            let mut neighbourhood = hub.neighbourhood(0);
            neighbourhood.links[slot] = *id;
            write_signs(&mut neighbourhood, slot, &center, &other);
        }
        hub.neighbourhood(0).header.links_count = ids.len() as u16;
        Ok(Self { rows: hub })
    }

    pub(super) fn ids(&self) -> &[u32] {
        self.rows.view().links(0)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.rows.memory_bytes()
    }

    /// The vertex that looks nearest to a query, and about how far it is; none if there are none.
    #[inline]
    pub(super) fn nearest(&self, query: &PreparedQuery) -> Option<Near> {
        let base = query.quantized.header.norm_squared;
        let mut distances = [0.0; BLOCK_COUNT];
        // One that is too far for the numbers of estimates is better than none.
        let first = self.ids().first();
        let mut nearest = first.map(|id| Near { distance: f32::MAX, id: *id });
        for block in 0..self.ids().len().div_ceil(BLOCK_COUNT) {
            let block = self.rows.view().block(0, block);
            let line = query.line(base, block.add, block.multiply);
            let bound = nearest.map_or(f32::INFINITY, |near| near.distance);
            let mut below =
                (kernels().estimate)(block.signs, &query.tables, &line, bound, &mut distances);
            while below != 0 {
                let slot = below.trailing_zeros() as usize;
                below &= below - 1;
                let near = Near { distance: distances[slot], id: block.links[slot] };
                if near.id != NO_LINK && nearest.is_some_and(|best| near.distance < best.distance) {
                    nearest = Some(near);
                }
            }
        }
        nearest
    }
}
