//! Traversal: from the hub to ever nearer vertices, by what vertices know of their neighbours.

use std::cmp::Ordering;
use std::collections::VecDeque;

use op_dbus_formats::collection::Metric;
use op_dbus_formats::embedding::check_finite;

use super::GraphIndex;
use super::hub::Hub;
use super::pool::{Pool, Seen};
use super::query::PreparedQuery;
use super::rows::{NO_LINK, Rows};
use super::space::{Space, norm};
use crate::distance::kernels as exact_kernels;
use crate::distance::quantized::{BLOCK_COUNT, kernels};
use crate::error::{Error, ErrorKind, Result};
use crate::os::cpu::{CACHE_LINE_BYTES, prefetch};

/// Rows that are fetched while one is read. With fewer a search waits for memory; more make it
/// expand what a nearer candidate would have spared.
const FETCHED_COUNT: usize = 3;
/// Candidates that are compared by their bytes beyond those that are expanded.
const COMPARED_COUNT: usize = 8;
/// Of those that are nearest by their bytes so many more than asked for are compared in full: bytes
/// are nearly exact, and six more have found no more of the nearest than two.
const FULL_COUNT: usize = 2;

/// How much a search does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    /// Of the nearest candidates so many are expanded.
    pub(super) width: usize,
    /// Candidates that are kept, and compared by their bytes in the end.
    pub(super) kept: usize,
}

/// A vertex and its squared distance from the query, by its bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Near {
    pub(super) distance: f32,
    pub(super) id: u32,
}

impl Near {
    /// The nearest first.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        self.distance.total_cmp(&other.distance).then(self.id.cmp(&other.id))
    }
}

/// One vector of an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbour {
    /// The number of the vector.
    pub id: u32,
    /// What answers are ordered by, larger is nearer: the cosine, the dot product, or the negative
    /// squared distance.
    pub nearness: f32,
}

/// What searches did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SearchCounts {
    /// Vertices whose neighbours were looked at.
    pub expanded: u64,
    /// Vectors that were compared by their bytes.
    pub compared: u64,
    /// Vectors that were compared in full.
    pub full: u64,
}

/// Memory of searches, one after the other, and what they did.
#[derive(Default)]
pub struct GraphSearch {
    scratch: Scratch,
    nearest: Vec<Neighbour>,
}

impl GraphSearch {
    /// What all searches did so far.
    #[must_use]
    pub fn counts(&self) -> SearchCounts {
        self.scratch.counts
    }
}

impl std::fmt::Debug for GraphSearch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GraphSearch").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

impl GraphIndex {
    /// Returns vectors near a query, nearest first: the more effort, the more of the nearest.
    ///
    /// `vectors` are those that the graph was made of, of which a few more than `limit` are read.
    /// Among vectors as near as each other, the first comes first.
    ///
    /// Shapes: `query` is `[dimensions]`, `vectors` is `[len, dimensions]`; the answer holds at most
    /// `limit`.
    /// Cost: about `effort` vertices are expanded.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the query or the vectors have another shape, or a number of the
    /// query is not finite.
    pub fn search<'s>(
        &self,
        search: &'s mut GraphSearch,
        query: &[f32],
        (limit, effort): (usize, usize),
        vectors: &[f32],
    ) -> Result<&'s [Neighbour]> {
        self.check(query, vectors)?;
        let scratch = &mut search.scratch;
        self.space.place_query(query, &mut scratch.query.rotated);
        scratch.query.rotated.resize(self.rows.shape().padded, 0.0);
        scratch.query.prepare(&self.rotation);
        let width = effort.max(1);
        let kept = width.max(limit).saturating_add(COMPARED_COUNT).min(self.len());
        scratch.search(&self.rows, &self.hub, Effort { width, kept });
        scratch.keep_nearest(limit + FULL_COUNT);
        self.compare_in_full(search, query, vectors);
        search.nearest.truncate(limit);
        Ok(&search.nearest)
    }

    fn check(&self, query: &[f32], vectors: &[f32]) -> Result<()> {
        let dimensions = self.dimensions();
        if query.len() != dimensions || vectors.len() != self.len() * dimensions {
            let (query, numbers, count) = (query.len(), vectors.len(), self.len());
            let context = format!(
                "a query of {query} numbers among {numbers}; the graph is of {count} vectors of \
                 {dimensions}"
            );
            return Err(Error::new(ErrorKind::Invalid, context)
                .with_remedy("search with vectors of as many numbers, among those of the graph"));
        }
        check_finite(query).map_err(|error| {
            Error::new(ErrorKind::Invalid, "the query is no vector").with_source(error)
        })
    }

    fn compare_in_full(&self, search: &mut GraphSearch, query: &[f32], vectors: &[f32]) {
        let dimensions = self.dimensions();
        let vector = |id: u32| &vectors[id as usize * dimensions..][..dimensions];
        for near in &search.scratch.found {
            let line_floats = CACHE_LINE_BYTES / size_of::<f32>();
            vector(near.id).chunks(line_floats).for_each(|line| prefetch(line.as_ptr().cast()));
        }
        let query_norm = norm(query);
        search.nearest.clear();
        for near in &search.scratch.found {
            let nearness = self.space.nearness(query, query_norm, vector(near.id));
            search.nearest.push(Neighbour { id: near.id, nearness });
        }
        search.scratch.counts.full += search.nearest.len() as u64;
        let order =
            |a: &Neighbour, b: &Neighbour| b.nearness.total_cmp(&a.nearness).then(a.id.cmp(&b.id));
        search.nearest.sort_unstable_by(order);
    }
}

/// Memory of a search, to be used again.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) query: PreparedQuery,
    pool: Pool,
    seen: Seen,
    fetched: VecDeque<u32>,
    /// What was found, in no order.
    pub(super) found: Vec<Near>,
    counts: SearchCounts,
}

impl Scratch {
    /// Finds vertices near the prepared query.
    pub(super) fn search(&mut self, rows: &Rows, hub: &Hub, effort: Effort) {
        self.pool.reset(effort.kept);
        self.seen.reset(rows.len());
        self.found.clear();
        if let Some(entry) = hub.nearest(&self.query) {
            self.seen.insert(entry.id);
            self.pool.insert(entry.distance, entry.id);
        }
        // What is fetched is expanded first, even if a nearer one has come meanwhile: sooner or
        // later it would be.
        loop {
            while self.fetched.len() < FETCHED_COUNT
                && let Some(next) = self.pool.expand_next(effort.width)
            {
                rows.prefetch(next);
                self.fetched.push_back(next);
            }
            let Some(id) = self.fetched.pop_front() else { break };
            match rows.shape().has_signs {
                true => self.expand_by_signs(rows, id),
                false => self.expand_by_bytes(rows, id),
            }
        }
        self.counts.expanded += self.found.len() as u64;
        self.compare_rest(rows);
    }

    #[inline]
    fn expand_by_signs(&mut self, rows: &Rows, id: u32) {
        let vertex = rows.vertex(id);
        let base = vertex.distance(&self.query.quantized.vertex());
        self.found.push(Near { distance: base, id });
        let mut distances = [0.0; BLOCK_COUNT];
        for block in 0..usize::from(vertex.header.links_count).div_ceil(BLOCK_COUNT) {
            let block = rows.block(id, block);
            let line = self.query.line(base, block.add, block.multiply);
            let (tables, bound) = (&self.query.tables, self.pool.bound());
            let mut below = (kernels().estimate)(block.signs, tables, &line, bound, &mut distances);
            while below != 0 {
                let slot = below.trailing_zeros() as usize;
                below &= below - 1;
                let link = block.links[slot];
                if link != NO_LINK
                    && self.seen.insert(link)
                    && let Some(out) = self.pool.insert(distances[slot], link)
                {
                    // It may look nearer from elsewhere.
                    self.seen.remove(out);
                }
            }
        }
    }

    fn expand_by_bytes(&mut self, rows: &Rows, id: u32) {
        let query = self.query.quantized.vertex();
        let links = rows.links(id);
        for &link in links {
            rows.prefetch_vertex(link);
        }
        for &link in links {
            if self.seen.insert(link) {
                self.counts.compared += 1;
                let distance = rows.vertex(link).distance(&query);
                if distance < self.pool.bound() {
                    self.pool.insert(distance, link);
                }
            }
        }
        self.found.push(Near { distance: rows.vertex(id).distance(&query), id });
    }

    /// Compares by their bytes what was kept and not expanded.
    fn compare_rest(&mut self, rows: &Rows) {
        let query = self.query.quantized.vertex();
        for id in self.pool.unexpanded() {
            rows.prefetch_vertex(id);
        }
        for id in self.pool.unexpanded() {
            self.counts.compared += 1;
            self.found.push(Near { distance: rows.vertex(id).distance(&query), id });
        }
    }

    /// Leaves the nearest of what was found.
    fn keep_nearest(&mut self, limit: usize) {
        if limit < self.found.len() {
            self.found.select_nth_unstable_by(limit, Near::order);
            self.found.truncate(limit);
        }
    }
}

impl Space {
    /// What an answer is ordered by, from full vectors.
    fn nearness(&self, query: &[f32], query_norm: f64, vector: &[f32]) -> f32 {
        let kernels = exact_kernels();
        match self.metric {
            Metric::Dot => (kernels.dot)(query, vector),
            Metric::Euclidean => -(kernels.squared_euclidean)(query, vector),
            Metric::Cosine => {
                let norms = query_norm * norm(vector);
                let dot = f64::from((kernels.dot)(query, vector));
                if norms > 0.0 { (dot / norms) as f32 } else { 0.0 }
            }
        }
    }
}
