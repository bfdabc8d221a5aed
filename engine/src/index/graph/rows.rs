//! Vertices in memory: one row each, with all that a step of a search reads.
//!
//! | size | part | |
//! |---|---|---|
//! | 16 | header | |
//! | padded / 8 | sketch | the signs of the vector |
//! | padded / 2 | upper | plane of its bytes |
//! | padded / 2 | lower | plane |
//! | 4 each | links | numbers of neighbours, [`NO_LINK`] where there is none |
//! | 2 each | add | 16-bit floats, for each neighbour |
//! | 2 each | multiply | the same |
//! | padded / 8 for each neighbour | signs | of how each neighbour differs, in blocks of 32 |
//!
//! The rows of the compact profile have neither signs nor what belongs to them.
//!
//! A row begins at a cache line, and so do signs. Of 384 numbers, header and sketch are one cache
//! line, and that is all that is read of most vectors that are met.

use std::ops::Range;
use std::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::copies::Copies;
use super::storage::{MappedRows, Storage};
use super::view::RowsView;
use crate::arena::Placement;
use crate::distance::quantized::{BLOCK_COUNT, DIMENSIONS_MULTIPLE, write_planes, write_sketch};
use crate::error::Result;
use crate::os::cpu::CACHE_LINE_BYTES;

/// Where a vertex has fewer neighbours than it may have.
pub(super) const NO_LINK: u32 = u32::MAX;

/// Where the parts of a row lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Numbers of a rotated vector, a multiple of [`DIMENSIONS_MULTIPLE`].
    pub(super) padded: usize,
    /// Neighbours of a vertex at most, a multiple of [`BLOCK_COUNT`].
    pub(super) degree: usize,
    pub(super) has_signs: bool,
}

impl Shape {
    pub(super) fn new(dimensions: usize, degree: usize, has_signs: bool) -> Self {
        let padded = dimensions.next_multiple_of(DIMENSIONS_MULTIPLE);
        Self { padded, degree: degree.next_multiple_of(BLOCK_COUNT), has_signs }
    }

    pub(super) fn upper_at(self) -> usize {
        size_of::<Header>() + self.padded / 8
    }

    pub(super) fn lower_at(self) -> usize {
        self.upper_at() + self.padded / 2
    }

    pub(super) fn links_at(self) -> usize {
        self.lower_at() + self.padded / 2
    }

    pub(super) fn add_at(self) -> usize {
        self.links_at() + self.degree * size_of::<u32>()
    }

    pub(super) fn multiply_at(self) -> usize {
        self.add_at() + self.degree * size_of::<u16>()
    }

    pub(super) fn signs_at(self) -> usize {
        (self.multiply_at() + self.degree * size_of::<u16>()).next_multiple_of(CACHE_LINE_BYTES)
    }

    /// Bytes of the signs of one block.
    pub(super) fn block_bytes(self) -> usize {
        self.padded / 8 * BLOCK_COUNT
    }

    /// Bytes from one row to the next.
    pub(super) fn stride_bytes(self) -> usize {
        let len_bytes = match self.has_signs {
            true => self.signs_at() + self.degree / BLOCK_COUNT * self.block_bytes(),
            false => self.add_at(),
        };
        len_bytes.next_multiple_of(CACHE_LINE_BYTES)
    }
}

/// What of a vertex is no array.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct Header {
    /// What a byte of the vector stands for.
    pub(super) scale: f32,
    /// The squared norm of what the bytes stand for.
    pub(super) norm_squared: f32,
    /// What plus or minus one in the sketch stands for, for the best estimate of products with it: in
    /// parts of [`SKETCH_PARTS`] of the scale.
    pub(super) sketch_step: u16,
    /// The same for the upper plane, in parts of [`UPPER_PARTS`].
    pub(super) upper_step: u16,
    pub(super) links_count: u16,
    /// One of [`LIVE`], [`REMOVED`], [`VACANT`], [`APART`], [`WAITING`], [`TWIN`] and [`HOLLOW`].
    pub(super) state: u16,
}

impl Header {
    /// Whether searches may find it, for its own vector or for those of its twins.
    #[inline(always)]
    pub(super) fn is_findable(&self) -> bool {
        matches!(self.state, LIVE | HOLLOW)
    }
}

/// With these, steps fit and are exact enough not to be noticed beside what is left out.
pub(super) const SKETCH_PARTS: f32 = 512.0;
pub(super) const UPPER_PARTS: f32 = 32_768.0;

/// A vector that can be found.
pub(super) const LIVE: u16 = 0;
/// One that was removed, whose row still leads on.
pub(super) const REMOVED: u16 = 1;
/// None: no link leads here, and the row can be used.
pub(super) const VACANT: u16 = 2;
/// A vector without direction, where directions are compared: as near to one query as to another, it
/// is nowhere.
pub(super) const APART: u16 = 3;
/// A vector that is not linked yet: no link leads to it, and no search finds it.
pub(super) const WAITING: u16 = 4;
/// A vector that is beside a vertex with the same bytes: no link leads to it.
pub(super) const TWIN: u16 = 5;
/// A vertex that was removed, and has twins: it stays for these.
pub(super) const HOLLOW: u16 = 6;

/// All that can be written of a vertex's neighbours.
pub(super) struct Neighbourhood<'a> {
    pub(super) links: &'a mut [u32],
    pub(super) add: &'a mut [u16],
    pub(super) multiply: &'a mut [u16],
    pub(super) signs: &'a mut [u8],
    pub(super) header: &'a mut Header,
}

/// The rows of a graph.
pub(super) struct Rows {
    shape: Shape,
    // Of the shape, not to be reckoned again for each row.
    stride_bytes: usize,
    bytes: Storage,
    len: usize,
    copies: Copies,
}

impl Rows {
    /// Rows of zeros.
    pub(super) fn new(shape: Shape, len: usize, placement: &Arc<Placement>) -> Result<Self> {
        let bytes = Storage::zeros(len * shape.stride_bytes(), placement)?;
        Ok(Self::of(shape, len, bytes, placement))
    }

    fn of(shape: Shape, len: usize, bytes: Storage, placement: &Arc<Placement>) -> Self {
        let copies = Copies::new(Arc::clone(placement));
        Self { shape, stride_bytes: shape.stride_bytes(), bytes, len, copies }
    }

    /// A copy of rows.
    pub(super) fn from_bytes(
        shape: Shape,
        bytes: &[u8],
        placement: &Arc<Placement>,
    ) -> Result<Self> {
        let mut rows = Self::new(shape, bytes.len() / shape.stride_bytes(), placement)?;
        rows.bytes.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        Ok(rows)
    }

    /// Rows of a file.
    pub(super) fn mapped(
        shape: Shape,
        len: usize,
        rows: Arc<MappedRows>,
        placement: &Arc<Placement>,
    ) -> Self {
        Self::of(shape, len, Storage::Mapped(rows), placement)
    }

    /// The same rows of a file once more; none if they are in memory.
    pub(super) fn map_again(&self) -> Option<Self> {
        let Storage::Mapped(rows) = &self.bytes else { return None };
        Some(Self::mapped(self.shape, self.len, Arc::clone(rows), self.placement()))
    }

    /// Where they lie, or will when they are copied into memory.
    pub(super) fn placement(&self) -> &Arc<Placement> {
        self.copies.placement()
    }

    /// Moves them, unless they are in a file: then they go there when they are copied.
    pub(super) fn place(&mut self, placement: &Arc<Placement>) {
        if let Storage::Memory(bytes) = &self.bytes {
            placement.place_copy(bytes.reservation(), 0);
        }
        self.copies = Copies::new(Arc::clone(placement));
    }

    /// Sees to it that copies on other nodes, if there are to be any, are like these rows.
    pub(super) fn renew_copies(&mut self) {
        if let Storage::Memory(bytes) = &self.bytes {
            self.copies.renew(&bytes[..self.len * self.stride_bytes], self.stride_bytes);
        }
    }

    /// Where their memory lies: that of each copy.
    pub(super) fn addresses(&self) -> Vec<Range<usize>> {
        let Storage::Memory(bytes) = &self.bytes else { return Vec::new() };
        let (start, len_bytes) =
            (bytes.reservation().addresses().start, self.len * self.stride_bytes);
        let own = std::iter::once(start..start + len_bytes);
        own.chain(self.copies.addresses(len_bytes)).collect()
    }

    /// Copies the rows of a file, so that they can be changed.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if the file is damaged.
    pub(super) fn to_memory(&self) -> Result<Self> {
        self.check_all()?;
        let mut rows = Self::from_bytes(self.shape, self.as_bytes(), self.placement())?;
        rows.renew_copies();
        Ok(rows)
    }

    /// Adds rows of zeros.
    pub(super) fn grow_to(&mut self, len: usize) -> Result<()> {
        self.bytes.grow_to(len * self.stride_bytes, self.copies.placement())?;
        for id in self.len..len {
            self.copies.note(id as u32);
        }
        self.len = self.len.max(len);
        Ok(())
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.len * self.stride_bytes * (1 + self.copies.len())
    }

    /// All rows, one behind the other.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len * self.stride_bytes]
    }

    /// What made rows unfit to be read.
    pub(super) fn failure(&self) -> Result<()> {
        match &self.bytes {
            Storage::Mapped(rows) => rows.failure().map_or(Ok(()), Err),
            Storage::Memory(_) => Ok(()),
        }
    }

    /// Whether something is wrong with the file that they are in.
    pub(super) fn is_damaged(&self) -> bool {
        matches!(&self.bytes, Storage::Mapped(rows) if rows.is_damaged())
    }

    /// Sees to it that all rows may be read.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if one is damaged.
    pub(super) fn check_all(&self) -> Result<()> {
        if let Storage::Mapped(rows) = &self.bytes {
            let (view, mut id) = (self.view(), 0);
            while (id as usize) < self.len && view.is_ready(id) {
                id = rows.part_of(id).end;
            }
        }
        self.failure()
    }

    /// The rows, to be read.
    #[inline]
    pub(super) fn view(&self) -> RowsView<'_> {
        let mapped = match &self.bytes {
            Storage::Memory(_) => None,
            Storage::Mapped(rows) => Some(rows),
        };
        RowsView::new(self.shape, self.as_bytes(), mapped.map(|rows| &**rows))
    }

    /// The same, of the copy that is nearest to the CPU that this thread is on.
    #[inline]
    pub(super) fn nearest_view(&self) -> RowsView<'_> {
        match self.copies.nearest() {
            Some(copy) => RowsView::new(self.shape, &copy[..self.len * self.stride_bytes], None),
            None => self.view(),
        }
    }

    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn row_mut(&mut self, id: u32) -> &mut [u8] {
        let stride = self.stride_bytes;
        self.copies.note(id);
        &mut self.bytes.bytes_mut()[id as usize * stride..][..stride]
    }

    /// Writes the vector of a vertex without neighbours.
    pub(super) fn set_vertex(&mut self, id: u32, bytes: &[i8], header: Header) {
        let shape = self.shape;
        let row = self.row_mut(id);
        let (head, row) = row.split_at_mut(size_of::<Header>());
        head.copy_from_slice(header.as_bytes());
        let (sketch, row) = row.split_at_mut(shape.padded / 8);
        write_sketch(bytes, sketch);
        let (upper, row) = row.split_at_mut(shape.padded / 2);
        let (lower, row) = row.split_at_mut(shape.padded / 2);
        write_planes(bytes, upper, lower);
        row[..shape.add_at() - shape.links_at()].fill(0xFF);
    }

    pub(super) fn set_state(&mut self, id: u32, state: u16) {
        self.neighbourhood(id).header.state = state;
    }

    /// The neighbours of a vertex, to be written.
    pub(super) fn neighbourhood(&mut self, id: u32) -> Neighbourhood<'_> {
        let shape = self.shape;
        let row = self.row_mut(id);
        let (header, rest) = row.split_at_mut(size_of::<Header>());
        let (_, rest) = rest.split_at_mut(shape.links_at() - size_of::<Header>());
        let (links, rest) = rest.split_at_mut(shape.degree * size_of::<u32>());
        let halves_bytes = if shape.has_signs { shape.degree * size_of::<u16>() } else { 0 };
        let (add, rest) = rest.split_at_mut(halves_bytes);
        let (multiply, rest) = rest.split_at_mut(halves_bytes);
        let before_bytes = shape.signs_at() - shape.multiply_at() - shape.degree * size_of::<u16>();
        let signs = if shape.has_signs { &mut rest[before_bytes..] } else { &mut [] };
        Neighbourhood {
            links: array_mut(links),
            add: array_mut(add),
            multiply: array_mut(multiply),
            signs,
            header: &mut array_mut::<Header>(header)[0],
        }
    }
}

/// Parts are aligned, and whole arrays.
fn array_mut<T: FromBytes + IntoBytes + Immutable>(bytes: &mut [u8]) -> &mut [T] {
    <[T]>::mut_from_bytes(bytes).expect("a part of a row is aligned and whole")
}
