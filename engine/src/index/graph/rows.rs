//! Vertices in memory: one row each, with all that a step of a search reads.
//!
//! | size | part | |
//! |---|---|---|
//! | padded | vector | bytes, see [`Vertex`] |
//! | 4 each | links | numbers of neighbours, [`NO_LINK`] where there is none |
//! | 2 each | add | 16-bit floats, for each neighbour |
//! | 2 each | multiply | the same |
//! | padded / 8 for each neighbour | signs | of how each neighbour differs, in blocks of 32 |
//! | 16 | header | |
//!
//! The rows of the compact profile have neither signs nor what belongs to them.
//!
//! A row begins at a cache line, and its parts, but the header, at cache lines too.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::storage::{MappedRows, Storage};
use crate::distance::quantized::{BLOCK_COUNT, DIMENSIONS_MULTIPLE};
use crate::error::{Error, ErrorKind, Result};
use crate::os::cpu::{CACHE_LINE_BYTES, prefetch};

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

    fn links_at(self) -> usize {
        self.padded
    }

    fn add_at(self) -> usize {
        self.links_at() + self.degree * size_of::<u32>()
    }

    fn multiply_at(self) -> usize {
        self.add_at() + self.degree * size_of::<u16>()
    }

    fn signs_at(self) -> usize {
        self.multiply_at() + self.degree * size_of::<u16>()
    }

    /// Bytes of the signs of one block.
    pub(super) fn block_bytes(self) -> usize {
        self.padded / 8 * BLOCK_COUNT
    }

    fn header_at(self) -> usize {
        match self.has_signs {
            true => self.signs_at() + self.degree / BLOCK_COUNT * self.block_bytes(),
            false => self.add_at(),
        }
    }

    /// Bytes from one row to the next.
    pub(super) fn stride_bytes(self) -> usize {
        (self.header_at() + size_of::<Header>()).next_multiple_of(CACHE_LINE_BYTES)
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
    /// The sum of the bytes.
    pub(super) sum: i32,
    pub(super) links_count: u16,
    /// One of [`LIVE`], [`REMOVED`], [`VACANT`] and [`APART`].
    pub(super) state: u16,
}

/// A vector that can be found.
pub(super) const LIVE: u16 = 0;
/// One that was removed, whose row still leads on.
pub(super) const REMOVED: u16 = 1;
/// None: no link leads here, and the row can be used.
pub(super) const VACANT: u16 = 2;
/// A vector without direction, where directions are compared: as near to one query as to another, it
/// is nowhere.
pub(super) const APART: u16 = 3;

/// The vector of a vertex, as bytes.
#[derive(Clone, Copy)]
pub(super) struct Vertex<'a> {
    pub(super) bytes: &'a [i8],
    pub(super) header: &'a Header,
}

/// What a vertex knows of 32 of its neighbours.
pub(super) struct Block<'a> {
    pub(super) links: &'a [u32; BLOCK_COUNT],
    pub(super) add: &'a [u16; BLOCK_COUNT],
    pub(super) multiply: &'a [u16; BLOCK_COUNT],
    pub(super) signs: &'a [u8],
}

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
    header_at: usize,
    bytes: Storage,
    len: usize,
}

impl Rows {
    /// Rows of zeros.
    pub(super) fn new(shape: Shape, len: usize) -> Result<Self> {
        let stride_bytes = shape.stride_bytes();
        let bytes = Storage::zeros(len * stride_bytes)?;
        Ok(Self { shape, stride_bytes, header_at: shape.header_at(), bytes, len })
    }

    /// Rows of a file.
    pub(super) fn mapped(shape: Shape, len: usize, rows: MappedRows) -> Self {
        let (stride_bytes, header_at) = (shape.stride_bytes(), shape.header_at());
        Self { shape, stride_bytes, header_at, bytes: Storage::Mapped(rows), len }
    }

    /// Whether they can be changed.
    pub(super) fn is_in_memory(&self) -> bool {
        matches!(self.bytes, Storage::Memory(_))
    }

    /// Copies the rows of a file, so that they can be changed.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if the file is damaged.
    pub(super) fn to_memory(&self) -> Result<Self> {
        self.check_all()?;
        let mut copy = Self::new(self.shape, self.len)?;
        let len_bytes = self.memory_bytes();
        copy.bytes.bytes_mut()[..len_bytes].copy_from_slice(&self.bytes[..len_bytes]);
        Ok(copy)
    }

    /// Adds rows of zeros.
    pub(super) fn grow_to(&mut self, len: usize) -> Result<()> {
        self.bytes.grow_to(len * self.stride_bytes)?;
        self.len = self.len.max(len);
        Ok(())
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.len * self.stride_bytes
    }

    /// All rows, one behind the other.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len * self.stride_bytes]
    }

    /// Whether a row may be read. One in memory always may.
    #[inline]
    pub(super) fn is_ready(&self, id: u32) -> bool {
        match &self.bytes {
            Storage::Memory(_) => true,
            Storage::Mapped(rows) => {
                rows.is_checked(id) || rows.check(id, |part| self.check_rows(part))
            }
        }
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
            let mut id = 0;
            while (id as usize) < self.len && self.is_ready(id) {
                id = rows.part_of(id).end;
            }
        }
        self.failure()
    }

    /// Refuses rows that were not made by a graph.
    fn check_rows(&self, ids: std::ops::Range<u32>) -> Result<()> {
        for id in ids {
            let header = self.header(id);
            let is_vertex = header.scale.is_finite()
                && header.norm_squared.is_finite()
                && header.state <= APART
                && usize::from(header.links_count) <= self.shape.degree;
            if !is_vertex || !self.links(id).iter().all(|link| (*link as usize) < self.len) {
                return Err(Error::new(ErrorKind::Corrupt, format!("row {id} is no vertex")));
            }
        }
        Ok(())
    }

    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    fn row(&self, id: u32) -> &[u8] {
        let stride = self.stride_bytes;
        &self.bytes[id as usize * stride..][..stride]
    }

    fn row_mut(&mut self, id: u32) -> &mut [u8] {
        let stride = self.stride_bytes;
        &mut self.bytes.bytes_mut()[id as usize * stride..][..stride]
    }

    #[inline]
    pub(super) fn vertex(&self, id: u32) -> Vertex<'_> {
        let row = self.row(id);
        Vertex { bytes: array(&row[..self.shape.padded]), header: self.header(id) }
    }

    #[inline]
    pub(super) fn header(&self, id: u32) -> &Header {
        let row = self.row(id);
        &array::<Header>(&row[self.header_at..][..size_of::<Header>()])[0]
    }

    /// The neighbours there are, in no order that means anything.
    #[inline]
    pub(super) fn links(&self, id: u32) -> &[u32] {
        let (row, shape) = (self.row(id), self.shape);
        let links = array(&row[shape.links_at()..shape.add_at()]);
        &links[..usize::from(self.header(id).links_count)]
    }

    #[inline]
    pub(super) fn block(&self, id: u32, block: usize) -> Block<'_> {
        let (row, shape) = (self.row(id), self.shape);
        let of = |at: usize| array::<[u16; BLOCK_COUNT]>(&row[at..][..2 * shape.degree]);
        let links = array::<[u32; BLOCK_COUNT]>(&row[shape.links_at()..shape.add_at()]);
        let signs = &row[shape.signs_at() + block * shape.block_bytes()..][..shape.block_bytes()];
        Block {
            links: &links[block],
            add: &of(shape.add_at())[block],
            multiply: &of(shape.multiply_at())[block],
            signs,
        }
    }

    /// Writes the vector of a vertex without neighbours.
    pub(super) fn set_vertex(&mut self, id: u32, bytes: &[i8], header: Header) {
        let shape = self.shape;
        let row = self.row_mut(id);
        row[..shape.padded].copy_from_slice(bytes.as_bytes());
        row[shape.header_at()..][..size_of::<Header>()].copy_from_slice(header.as_bytes());
        row[shape.links_at()..shape.add_at()].fill(0xFF);
    }

    pub(super) fn set_state(&mut self, id: u32, state: u16) {
        self.neighbourhood(id).header.state = state;
    }

    /// The neighbours of a vertex, to be written.
    pub(super) fn neighbourhood(&mut self, id: u32) -> Neighbourhood<'_> {
        let shape = self.shape;
        let row = self.row_mut(id);
        let (row, header) = row.split_at_mut(shape.header_at());
        let (_, rest) = row.split_at_mut(shape.links_at());
        let (links, rest) = rest.split_at_mut(shape.degree * size_of::<u32>());
        let halves_bytes = if shape.has_signs { shape.degree * size_of::<u16>() } else { 0 };
        let (add, rest) = rest.split_at_mut(halves_bytes);
        let (multiply, signs) = rest.split_at_mut(halves_bytes);
        Neighbourhood {
            links: array_mut(links),
            add: array_mut(add),
            multiply: array_mut(multiply),
            signs,
            header: &mut array_mut::<Header>(&mut header[..size_of::<Header>()])[0],
        }
    }

    /// Fetches all of a row.
    #[inline]
    pub(super) fn prefetch(&self, id: u32) {
        let row = self.row(id);
        for line in row.chunks(CACHE_LINE_BYTES) {
            prefetch(line.as_ptr());
        }
    }

    /// Fetches the vector of a vertex.
    #[inline]
    pub(super) fn prefetch_vertex(&self, id: u32) {
        let row = self.row(id);
        for line in row[..self.shape.padded].chunks(CACHE_LINE_BYTES) {
            prefetch(line.as_ptr());
        }
        prefetch(row[self.header_at..].as_ptr());
    }
}

/// Parts lie at multiples of a cache line, and are whole arrays.
#[inline]
fn array<T: FromBytes + Immutable>(bytes: &[u8]) -> &[T] {
    <[T]>::ref_from_bytes(bytes).expect("a part of a row is aligned and whole")
}

fn array_mut<T: FromBytes + IntoBytes + Immutable>(bytes: &mut [u8]) -> &mut [T] {
    <[T]>::mut_from_bytes(bytes).expect("a part of a row is aligned and whole")
}
