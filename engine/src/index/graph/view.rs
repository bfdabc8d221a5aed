//! Reading rows: what a search does all the time. It knows where they lie, without asking each time
//! whether that is in memory or in the map of a file.

use std::ops::Range;

use zerocopy::{FromBytes, Immutable};

use super::rows::{HOLLOW, Header, Shape};
use super::storage::MappedRows;
use crate::distance::quantized::{BLOCK_COUNT, Planes};
use crate::error::{Error, ErrorKind, Result};
use crate::os::cpu::{CACHE_LINE_BYTES, prefetch};

/// Rows, to be read.
#[derive(Clone, Copy)]
pub(super) struct RowsView<'a> {
    bytes: &'a [u8],
    stride_bytes: usize,
    shape: Shape,
    /// If they are in a file.
    mapped: Option<&'a MappedRows>,
}

/// The vector of a vertex, as bytes.
#[derive(Clone, Copy)]
pub(super) struct Vertex<'a> {
    pub(super) planes: Planes<'a>,
    pub(super) header: &'a Header,
}

/// What a vertex knows of 32 of its neighbours.
pub(super) struct Block<'a> {
    pub(super) links: &'a [u32; BLOCK_COUNT],
    pub(super) add: &'a [u16; BLOCK_COUNT],
    pub(super) multiply: &'a [u16; BLOCK_COUNT],
    pub(super) signs: &'a [u8],
}

impl<'a> RowsView<'a> {
    #[inline]
    pub(super) fn new(shape: Shape, bytes: &'a [u8], mapped: Option<&'a MappedRows>) -> Self {
        Self { bytes, stride_bytes: shape.stride_bytes(), shape, mapped }
    }

    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() / self.stride_bytes
    }

    /// Whether a row may be read. One in memory always may.
    #[inline]
    pub(super) fn is_ready(&self, id: u32) -> bool {
        self.mapped.is_none_or(|rows| {
            rows.is_checked(id) || rows.check(id, |part| self.check_rows(part, self.len()))
        })
    }

    /// Brings in a row and those that follow it, which will all be read; returns the first that was left
    /// out.
    pub(super) fn populate(&self, id: u32) -> u32 {
        self.mapped.map_or(u32::MAX, |rows| rows.populate(id))
    }

    /// Refuses rows that were not made by a graph, whose links lead to numbers below `links_end`.
    pub(super) fn check_rows(&self, ids: Range<u32>, links_end: usize) -> Result<()> {
        for id in ids {
            let header = self.header(id);
            let is_vertex = header.scale.is_finite()
                && header.norm_squared.is_finite()
                && header.state <= HOLLOW
                && usize::from(header.links_count) <= self.shape.degree;
            if !is_vertex || !self.links(id).iter().all(|link| (*link as usize) < links_end) {
                return Err(Error::new(ErrorKind::Corrupt, format!("row {id} is no vertex")));
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn row(&self, id: u32) -> &'a [u8] {
        &self.bytes[id as usize * self.stride_bytes..][..self.stride_bytes]
    }

    #[inline(always)]
    pub(super) fn header(&self, id: u32) -> &'a Header {
        &array::<Header>(&self.row(id)[..size_of::<Header>()])[0]
    }

    /// The signs of a vertex's vector.
    #[inline(always)]
    pub(super) fn sketch(&self, id: u32) -> &'a [u8] {
        &self.row(id)[size_of::<Header>()..self.shape.upper_at()]
    }

    #[inline(always)]
    pub(super) fn vertex(&self, id: u32) -> Vertex<'a> {
        let (row, shape) = (self.row(id), self.shape);
        let (upper, lower) = row[shape.upper_at()..shape.links_at()].split_at(shape.padded / 2);
        Vertex { planes: Planes { upper, lower }, header: self.header(id) }
    }

    /// The neighbours there are, in no order that means anything.
    #[inline]
    pub(super) fn links(&self, id: u32) -> &'a [u32] {
        let (row, shape) = (self.row(id), self.shape);
        let links = array(&row[shape.links_at()..shape.add_at()]);
        &links[..usize::from(self.header(id).links_count)]
    }

    #[inline]
    pub(super) fn block(&self, id: u32, block: usize) -> Block<'a> {
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

    /// Fetches what an expansion reads of a row: all of it with signs, and else what was not read when
    /// it became a candidate.
    #[inline]
    pub(super) fn prefetch_to_expand(&self, id: u32) {
        let start = if self.shape.has_signs { 0 } else { self.shape.lower_at() };
        self.prefetch_part(id, start, self.stride_bytes);
    }

    /// Fetches the vector of a vertex.
    #[inline]
    pub(super) fn prefetch_vertex(&self, id: u32) {
        self.prefetch_part(id, 0, self.shape.links_at());
    }

    /// Fetches the header and the sketch of a vertex.
    #[inline]
    pub(super) fn prefetch_sketch(&self, id: u32) {
        self.prefetch_part(id, 0, self.shape.upper_at());
    }

    /// Fetches the upper plane of a vertex, whose header and sketch were read.
    #[inline]
    pub(super) fn prefetch_upper(&self, id: u32) {
        let upper_at = self.shape.upper_at();
        let start = upper_at.next_multiple_of(CACHE_LINE_BYTES);
        self.prefetch_part(id, start, upper_at + self.shape.padded / 2);
    }

    #[inline(always)]
    fn prefetch_part(&self, id: u32, start: usize, end: usize) {
        let row = self.row(id);
        for at in (start..end).step_by(CACHE_LINE_BYTES) {
            prefetch(row[at..].as_ptr());
        }
    }
}

/// Parts are aligned, and whole arrays.
#[inline]
fn array<T: FromBytes + Immutable>(bytes: &[u8]) -> &[T] {
    <[T]>::ref_from_bytes(bytes).expect("a part of a row is aligned and whole")
}
