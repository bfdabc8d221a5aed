//! Vectors of one length, one behind the other, for kernels to run over.
//!
//! Invariants: each row begins at a cache line and is padded with zeros to whole
//! lines, so that kernels meet no tail; rows are dense, as a removal moves the
//! last row into the gap. Memory is taken in blocks, so growth never copies a
//! vector, and what is held is at most two blocks more than what is needed. A
//! block lies where the [`Placement`] says, all of it on one NUMA node if there
//! are several to spread over.

use std::ops::Range;
use std::sync::Arc;

use zerocopy::FromBytes;

use crate::arena::Placement;
use crate::error::Result;
use crate::os::memory::{GrowingBytes, Pages, REGION_BYTES, Reservation};

/// Floats in one cache line.
const LINE_FLOATS: usize = 16;
/// The size of a block at most, unless one row is larger.
const BLOCK_BYTES: usize = REGION_BYTES;

/// Rows of floats, padded and aligned to cache lines.
pub(super) struct Rows {
    dimensions: usize,
    stride: usize,
    block_rows: usize,
    blocks: Vec<GrowingBytes>,
    len: usize,
    placement: Arc<Placement>,
}

impl Rows {
    /// Creates no rows of `dimensions` floats, of which there is at least one.
    pub(super) fn new(dimensions: usize, placement: Arc<Placement>) -> Self {
        let stride = dimensions.next_multiple_of(LINE_FLOATS);
        let block_rows = (BLOCK_BYTES / size_of::<f32>() / stride).max(1);
        Self { dimensions, stride, block_rows, blocks: Vec::new(), len: 0, placement }
    }

    /// The floats of a vector.
    pub(super) fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// The floats from one row to the next: a vector and its padding.
    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    /// Rows of a block.
    pub(super) fn block_rows(&self) -> usize {
        self.block_rows
    }

    /// The bytes of memory that are touched.
    pub(super) fn memory_bytes(&self) -> usize {
        let (first_bytes, others) = match self.blocks.split_first() {
            // In ordinary pages.
            Some((_, others)) => {
                (self.len.min(self.block_rows) * self.stride * size_of::<f32>(), others)
            }
            None => (0, &[][..]),
        };
        let others_bytes: usize = others.iter().map(|block| block.len()).sum();
        first_bytes + others_bytes + self.blocks.capacity() * size_of::<GrowingBytes>()
    }

    /// Where blocks lie.
    pub(super) fn addresses(&self) -> impl Iterator<Item = Range<usize>> {
        self.blocks.iter().map(|block| block.reservation().addresses())
    }

    /// Returns `count` rows from `first` on with their padding, or only those up
    /// to the end of the block.
    pub(super) fn run(&self, first: usize, count: usize) -> &[f32] {
        debug_assert!(first + count <= self.len);
        let (block, start) = self.place(first);
        let count = count.min(self.block_rows - first % self.block_rows);
        &floats(&self.blocks[block])[start..][..count * self.stride]
    }

    /// Returns one row without its padding.
    pub(super) fn get(&self, row: usize) -> &[f32] {
        &self.run(row, 1)[..self.dimensions]
    }

    /// Replaces one row.
    pub(super) fn set(&mut self, row: usize, vector: &[f32]) {
        let (block, start) = self.place(row);
        floats_mut(&mut self.blocks[block])[start..][..self.dimensions].copy_from_slice(vector);
    }

    /// Adds a row behind the last.
    ///
    /// # Errors
    /// [`ErrorKind::Full`](crate::ErrorKind::Full) if there is no memory; nothing is added then.
    pub(super) fn push(&mut self, vector: &[f32]) -> Result<()> {
        if self.len == self.blocks.len() * self.block_rows {
            self.blocks.push(self.new_block()?);
        }
        self.len += 1;
        self.set(self.len - 1, vector);
        Ok(())
    }

    fn new_block(&self) -> Result<GrowingBytes> {
        let len_bytes = self.block_rows * self.stride * size_of::<f32>();
        let reservation = Reservation::new(len_bytes)?;
        self.placement.place_block(&reservation, self.blocks.len());
        // Few rows are not worth a huge page.
        let pages = if self.blocks.is_empty() { Pages::Ordinary } else { Pages::Huge };
        let mut block = GrowingBytes::new(reservation, pages);
        block.grow_to(len_bytes)?;
        Ok(block)
    }

    /// Moves the last row into the place of `row`, which is thereby removed.
    ///
    /// One empty block is kept, lest a row that comes and goes should take and
    /// free it each time.
    pub(super) fn swap_remove(&mut self, row: usize) {
        let last = self.len - 1;
        let (source, source_start) = self.place(last);
        let (target, target_start) = self.place(row);
        if source == target {
            let moved = source_start..source_start + self.stride;
            floats_mut(&mut self.blocks[source]).copy_within(moved, target_start);
        } else {
            let (before, from_source) = self.blocks.split_at_mut(source);
            let moved = &floats(&from_source[0])[source_start..][..self.stride];
            floats_mut(&mut before[target])[target_start..][..self.stride].copy_from_slice(moved);
        }
        self.len = last;
        self.blocks.truncate(last.div_ceil(self.block_rows) + 1);
    }

    /// The block of a row, and the row's first float in it.
    fn place(&self, row: usize) -> (usize, usize) {
        (row / self.block_rows, row % self.block_rows * self.stride)
    }
}

fn floats(block: &GrowingBytes) -> &[f32] {
    <[f32]>::ref_from_bytes(block).expect("regions are aligned and whole")
}

fn floats_mut(block: &mut GrowingBytes) -> &mut [f32] {
    <[f32]>::mut_from_bytes(block).expect("regions are aligned and whole")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_aligned_and_padded_with_zeros() {
        for dimensions in [1, 15, 16, 17, 384] {
            let mut rows = Rows::new(dimensions, Arc::default());
            for row in 0..2 * rows.block_rows + 1 {
                rows.push(&vec![1.0; dimensions]).unwrap();
                let run = rows.run(row, 1);
                assert_eq!(run.as_ptr().align_offset(LINE_FLOATS * size_of::<f32>()), 0);
                assert_eq!(run.len() % LINE_FLOATS, 0);
                assert_eq!(run.iter().sum::<f32>(), dimensions as f32);
            }
        }
    }

    #[test]
    fn a_run_ends_with_its_block() {
        let mut rows = Rows::new(384, Arc::default());
        let (block_rows, stride) = (rows.block_rows, rows.stride());
        (0..block_rows + 3).for_each(|row| rows.push(&[row as f32; 384]).unwrap());
        assert_eq!(rows.run(block_rows - 2, 5).len(), 2 * stride);
        assert_eq!(rows.run(block_rows, 3).len(), 3 * stride);
        assert_eq!(rows.run(block_rows, 3)[0], block_rows as f32);
    }

    #[test]
    fn removal_frees_blocks_but_keeps_one() {
        let mut rows = Rows::new(1 << 18, Arc::default());
        assert_eq!(rows.block_rows, 2);
        (0..8).for_each(|row| rows.push(&vec![row as f32; 1 << 18]).unwrap());
        assert_eq!(rows.blocks.len(), 4);
        for (removed, blocks) in [(7, 4), (0, 4), (2, 4), (1, 3), (3, 3), (2, 2), (0, 2), (0, 1)] {
            rows.swap_remove(removed);
            assert_eq!(rows.blocks.len(), blocks, "after {} rows are left", rows.len);
        }
    }
}
