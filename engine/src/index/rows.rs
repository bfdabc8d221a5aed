//! Vectors of one length, one behind the other, for kernels to run over.
//!
//! Invariants: each row begins at a cache line and is padded with zeros to whole
//! lines, so that kernels meet no tail; rows are dense, as a removal moves the
//! last row into the gap. Memory is taken in blocks, so growth never copies a
//! vector, and what is held is at most two blocks more than what is needed.

/// Floats in one cache line.
const LINE_FLOATS: usize = 16;
const LINE_BYTES: usize = LINE_FLOATS * size_of::<f32>();
/// The size of a block at most, unless one row is larger.
const BLOCK_BYTES: usize = 1 << 20;

/// Rows of floats, padded and aligned to cache lines.
pub(super) struct Rows {
    dimensions: usize,
    stride: usize,
    /// A power of two.
    block_rows: usize,
    blocks: Vec<Block>,
    len: usize,
}

/// One allocation. It is never resized, so its first aligned float stays where
/// it is.
struct Block {
    floats: Box<[f32]>,
    start: usize,
}

impl Block {
    fn new(floats_count: usize) -> Self {
        let floats = vec![0.0_f32; floats_count + LINE_FLOATS - 1].into_boxed_slice();
        // An offset is always found here; were it not, rows would be slower and
        // no less right.
        let start = floats.as_ptr().align_offset(LINE_BYTES);
        Self { start: if start < LINE_FLOATS { start } else { 0 }, floats }
    }
}

impl Rows {
    /// Creates no rows of `dimensions` floats, of which there is at least one.
    pub(super) fn new(dimensions: usize) -> Self {
        let stride = dimensions.next_multiple_of(LINE_FLOATS);
        let fitting = (BLOCK_BYTES / size_of::<f32>() / stride).max(1);
        let block_rows = 1 << fitting.ilog2();
        Self { dimensions, stride, block_rows, blocks: Vec::new(), len: 0 }
    }

    /// The floats of a vector.
    pub(super) fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// The floats from one row to the next: a vector and its padding.
    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    /// The bytes taken from the allocator.
    pub(super) fn memory_bytes(&self) -> usize {
        let block_bytes = |block: &Block| size_of_val(&*block.floats);
        self.blocks.capacity() * size_of::<Block>()
            + self.blocks.iter().map(block_bytes).sum::<usize>()
    }

    /// Returns `count` rows from `first` on with their padding, or only those up
    /// to the end of the block.
    pub(super) fn run(&self, first: usize, count: usize) -> &[f32] {
        debug_assert!(first + count <= self.len);
        let (block, start) = self.place(first);
        let count = count.min(self.block_rows - first % self.block_rows);
        &self.blocks[block].floats[start..][..count * self.stride]
    }

    /// Returns one row without its padding.
    pub(super) fn get(&self, row: usize) -> &[f32] {
        &self.run(row, 1)[..self.dimensions]
    }

    /// Replaces one row.
    pub(super) fn set(&mut self, row: usize, vector: &[f32]) {
        let (block, start) = self.place(row);
        self.blocks[block].floats[start..][..self.dimensions].copy_from_slice(vector);
    }

    /// Adds a row behind the last.
    pub(super) fn push(&mut self, vector: &[f32]) {
        if self.len == self.blocks.len() * self.block_rows {
            self.blocks.push(Block::new(self.block_rows * self.stride));
        }
        self.set(self.len, vector);
        self.len += 1;
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
            self.blocks[source].floats.copy_within(moved, target_start);
        } else {
            let (before, from_source) = self.blocks.split_at_mut(source);
            let moved = &from_source[0].floats[source_start..][..self.stride];
            before[target].floats[target_start..][..self.stride].copy_from_slice(moved);
        }
        self.len = last;
        self.blocks.truncate(last.div_ceil(self.block_rows) + 1);
    }

    /// The block of a row, and the row's first float in it.
    fn place(&self, row: usize) -> (usize, usize) {
        let block = row / self.block_rows;
        (block, self.blocks[block].start + row % self.block_rows * self.stride)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_aligned_and_padded_with_zeros() {
        for dimensions in [1, 15, 16, 17, 384] {
            let mut rows = Rows::new(dimensions);
            for row in 0..2 * rows.block_rows + 1 {
                rows.push(&vec![1.0; dimensions]);
                let run = rows.run(row, 1);
                assert_eq!(run.as_ptr().align_offset(LINE_BYTES), 0);
                assert_eq!(run.len() % LINE_FLOATS, 0);
                assert_eq!(run.iter().sum::<f32>(), dimensions as f32);
            }
        }
    }

    #[test]
    fn a_run_ends_with_its_block() {
        let mut rows = Rows::new(384);
        let (block_rows, stride) = (rows.block_rows, rows.stride());
        (0..block_rows + 3).for_each(|row| rows.push(&[row as f32; 384]));
        assert_eq!(rows.run(block_rows - 2, 5).len(), 2 * stride);
        assert_eq!(rows.run(block_rows, 3).len(), 3 * stride);
        assert_eq!(rows.run(block_rows, 3)[0], block_rows as f32);
    }

    #[test]
    fn removal_frees_blocks_but_keeps_one() {
        let mut rows = Rows::new(1 << 17);
        assert_eq!(rows.block_rows, 2);
        (0..8).for_each(|row| rows.push(&vec![row as f32; 1 << 17]));
        assert_eq!(rows.blocks.len(), 4);
        for (removed, blocks) in [(7, 4), (0, 4), (2, 4), (1, 3), (3, 3), (2, 2), (0, 2), (0, 1)] {
            rows.swap_remove(removed);
            assert_eq!(rows.blocks.len(), blocks, "after {} rows are left", rows.len);
        }
    }
}
