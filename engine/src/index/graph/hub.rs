//! Where searches begin: some vertices in all regions, of which those nearest to a query are found at
//! once.
//!
//! They are in groups about some of them, the *tops*. Rows say of tops how they differ from the
//! center, and of the members of a group how they differ from its top, 32 to a row as in a graph
//! with signs.
//!
//! The first rows have the vector of the center, and links to rows of tops. A row of a top has links
//! to vertices, and the first to that of the top.

use std::sync::Arc;

use super::batch::slots;
use super::quantize::{Quantized, write_signs};
use super::query::PreparedQuery;
use super::rows::{NO_LINK, Rows, Shape};
use super::traverse::Near;
use super::view::RowsView;
use crate::arena::Placement;
use crate::distance::quantized::{BLOCK_COUNT, kernels};
use crate::error::Result;

/// Groups at most: as many as are worth comparing with each query.
const GROUPS_MAX: usize = 256;
/// One vertex of so many has a group in a small graph.
const GROUP_PARTS: usize = 64;
/// Vertices that groups are made of, for each group.
const SAMPLE_PER_GROUP: usize = 32;
/// One group of so many may be about a wanted vertex.
const WANTED_PARTS: usize = 4;
/// Groups that are looked at.
const SEARCHED_COUNT: usize = 3;
/// Vertices that a search begins at.
const ENTRIES_COUNT: usize = 2;

/// The vertices that searches may begin at.
pub(super) struct Hub {
    rows: Rows,
}

/// What looks nearest, in order; places without one are infinitely far.
struct Nearest<const COUNT: usize> {
    found: [Near; COUNT],
}

impl<const COUNT: usize> Nearest<COUNT> {
    fn new() -> Self {
        Self { found: [Near { distance: f32::INFINITY, id: NO_LINK }; COUNT] }
    }

    /// Looks at what a row leads to.
    #[inline]
    fn look(&mut self, rows: RowsView<'_>, row: u32, base: f32, query: &PreparedQuery) {
        let mut distances = [0.0; BLOCK_COUNT];
        let block = rows.block(row, 0);
        let line = query.line(base, block.add, block.multiply);
        let bound = self.found[COUNT - 1].distance;
        let below = (kernels().estimate)(block.signs, &query.tables, &line, bound, &mut distances);
        for slot in slots(below) {
            let near = Near { distance: distances[slot], id: block.links[slot] };
            if near.id != NO_LINK && self.found.iter().all(|other| other.id != near.id) {
                self.take(near);
            }
        }
    }

    fn take(&mut self, mut near: Near) {
        for other in &mut self.found {
            if near.distance < other.distance {
                std::mem::swap(&mut near, other);
            }
        }
    }

    fn found(&self) -> impl Iterator<Item = Near> + use<COUNT> {
        self.found.into_iter().filter(|near| near.id != NO_LINK)
    }
}

impl Hub {
    /// Chooses among vertices, which are in the order that they were linked in or in none: the last.
    /// The first ones lead farther, as there were few others when they came, so searches would begin
    /// there with a little more success; until they were removed.
    ///
    /// Some are tops before others: `wanted`, the most wanted first. They need not be near anything.
    pub(super) fn of(rows: &Rows, linked: &[u32], wanted: &[u32]) -> Result<Self> {
        let groups_count = linked.len().div_ceil(GROUP_PARTS).min(GROUPS_MAX);
        let sample_count = linked.len().min(groups_count * SAMPLE_PER_GROUP);
        let wanted = &wanted[..wanted.len().min(groups_count / WANTED_PARTS)];
        let last = &linked[linked.len() - sample_count..];
        let mut sample = wanted.to_vec();
        sample.extend(last.iter().filter(|id| !wanted.contains(id)));
        let tops = &sample[..groups_count];
        for id in &sample {
            if !rows.view().is_ready(*id) {
                rows.failure()?;
            }
        }
        let (rows, placement) = (rows.view(), rows.placement());
        let mut hub = Self { rows: Rows::new(shape(rows), rows_count(groups_count), placement)? };
        let firsts_count = groups_count.div_ceil(BLOCK_COUNT);
        let center = Quantized::zero(rows.shape().padded);
        for (row, tops) in (0..).zip(tops.chunks(BLOCK_COUNT)) {
            let first_top = firsts_count + row as usize * BLOCK_COUNT;
            let links = (first_top as u32..).zip(tops.iter().copied());
            hub.write(row, &center, rows, links);
        }
        for (row, top) in (firsts_count as u32..).zip(tops) {
            let vector = Quantized::of(&rows.vertex(*top));
            let members = members(rows, &vector, &sample);
            hub.write(row, &vector, rows, members.into_iter().map(|id| (id, id)));
        }
        hub.rows.renew_copies();
        Ok(hub)
    }

    /// Moves it.
    pub(super) fn place(&mut self, placement: &Arc<Placement>) {
        self.rows.place(placement);
        self.rows.renew_copies();
    }

    /// Writes a row: links, and the vertices that they are for.
    fn write(
        &mut self,
        row: u32,
        vector: &Quantized,
        rows: RowsView<'_>,
        links: impl Iterator<Item = (u32, u32)>,
    ) {
        self.rows.set_vertex(row, &vector.bytes, vector.header);
        let mut count = 0;
        for (slot, (link, id)) in links.enumerate() {
            let other = Quantized::of(&rows.vertex(id));
            let mut neighbourhood = self.rows.neighbourhood(row);
            neighbourhood.links[slot] = link;
            write_signs(&mut neighbourhood, slot, vector, &other);
            count = slot + 1;
        }
        self.rows.neighbourhood(row).header.links_count = count as u16;
    }

    /// Reads what [`Hub::as_bytes`] gave, for the rows of a graph.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] if it is no such.
    pub(super) fn from_bytes(bytes: &[u8], rows: RowsView<'_>) -> Result<Self> {
        let count = bytes.len() / shape(rows).stride_bytes();
        let hub = Self { rows: Rows::from_bytes(shape(rows), bytes, &Arc::default())? };
        let (view, firsts_count) = (hub.rows.view(), firsts_count(count));
        view.check_rows(0..firsts_count as u32, count)?;
        view.check_rows(firsts_count as u32..count as u32, rows.len())?;
        Ok(hub)
    }

    /// Rows that it is made of.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.rows.as_bytes()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.rows.memory_bytes()
    }

    /// The vertices that look nearest to a query, and about how far they are, the nearest first; none if
    /// there are none.
    #[inline]
    pub(super) fn nearest(&self, query: &PreparedQuery) -> impl Iterator<Item = Near> {
        let rows = self.rows.nearest_view();
        let mut tops = Nearest::<SEARCHED_COUNT>::new();
        for row in 0..firsts_count(rows.len()) as u32 {
            tops.look(rows, row, query.quantized.header.norm_squared, query);
        }
        tops.found().for_each(|top| rows.prefetch_to_expand(top.id));
        let mut nearest = Nearest::<ENTRIES_COUNT>::new();
        for top in tops.found() {
            let base = rows.vertex(top.id).distance(&query.quantized);
            nearest.look(rows, top.id, base, query);
        }
        nearest.found()
    }
}

/// Rows of so many groups.
fn rows_count(groups_count: usize) -> usize {
    groups_count + groups_count.div_ceil(BLOCK_COUNT)
}

/// The rows before those of the tops, of so many.
fn firsts_count(rows_count: usize) -> usize {
    rows_count.div_ceil(BLOCK_COUNT + 1)
}

fn shape(rows: RowsView<'_>) -> Shape {
    Shape::new(rows.shape().padded, BLOCK_COUNT, true)
}

/// Those of some vertices that are nearest to a vector, as many as a row has room for.
fn members(rows: RowsView<'_>, vector: &Quantized, sample: &[u32]) -> Vec<u32> {
    let distance = |id: &u32| Near { distance: rows.vertex(*id).distance(vector), id: *id };
    let mut nearest: Vec<Near> = sample.iter().map(distance).collect();
    if nearest.len() > BLOCK_COUNT {
        nearest.select_nth_unstable_by(BLOCK_COUNT, Near::order);
        nearest.truncate(BLOCK_COUNT);
    }
    nearest.sort_unstable_by(Near::order);
    nearest.into_iter().map(|near| near.id).collect()
}
