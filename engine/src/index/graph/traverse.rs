//! Traversal: from the hub to ever nearer vertices, by what vertices know of their neighbours.
//!
//! Where that are signs, a vertex looks nearer from one neighbour than from another, and from near by
//! it is known best. So it is a candidate once for each that leads to it, and is expanded when the
//! first of these has its turn: to keep the first estimate alone made some searches expand twice as
//! many for the same recall.

use std::cmp::Ordering;
use std::collections::VecDeque;

use super::batch::{Batch, slots};
use super::filter::Findable;
use super::hub::Hub;
use super::pool::{Entry, Pool, Seen};
use super::query::PreparedQuery;
use super::rows::NO_LINK;
use super::search::SearchCounts;
use super::view::RowsView;
use crate::distance::quantized::{BLOCK_COUNT, SKETCHES_COUNT, kernels};

/// Rows that are fetched while one is read. With fewer a search waits for memory; more make it
/// expand what a nearer candidate would have spared.
const FETCHED_BY_SIGNS: usize = 3;
/// As above. What two more lead to is judged and compared at the same time.
const FETCHED_BY_BYTES: usize = 1;

/// How much a search does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    /// Of the nearest candidates that may be found so many are expanded.
    pub(super) width: usize,
    /// Candidates that are kept, and compared by their bytes in the end.
    pub(super) kept: usize,
    /// After so many expansions it gives up.
    pub(super) expanded_max: usize,
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

/// What a vertex is as a candidate, if it is one.
#[inline(always)]
fn candidate<const ALL_PASS: bool>(
    near: Near,
    is_one: bool,
    findable: &Findable<'_>,
) -> (Entry, bool) {
    let is_passing = ALL_PASS || (is_one && findable.has(near.id));
    (Entry::new(near.distance, near.id, is_passing), is_one)
}

/// Memory of a search, to be used again.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(super) query: PreparedQuery,
    pool: Pool,
    seen: Seen,
    fetched: VecDeque<u32>,
    new: Batch<Entry>,
    /// Vertices that were never looked at.
    met: Batch<u32>,
    /// Those that are near enough by their sketches.
    likely: Batch<u32>,
    /// What was found, in no order.
    pub(super) found: Vec<Near>,
    pub(super) counts: SearchCounts,
}

impl Scratch {
    /// Finds vertices near the prepared query; says whether it came to an end.
    pub(super) fn search(
        &mut self,
        rows: RowsView<'_>,
        hub: &Hub,
        effort: Effort,
        findable: &Findable<'_>,
    ) -> bool {
        self.search_without(None, rows, hub, effort, findable)
    }

    /// As [`Scratch::search`], as if there were not this vertex.
    pub(super) fn search_without(
        &mut self,
        without: Option<u32>,
        rows: RowsView<'_>,
        hub: &Hub,
        effort: Effort,
        findable: &Findable<'_>,
    ) -> bool {
        self.pool.reset(effort.kept);
        self.seen.reset(rows.len());
        without.map(|id| self.seen.insert(id));
        self.found.clear();
        self.fetched.clear();
        self.met.clear();
        self.likely.clear();
        match (rows.shape().has_signs, findable.is_all()) {
            (true, true) => self.traverse::<true, true>(rows, hub, effort, findable),
            (true, false) => self.traverse::<true, false>(rows, hub, effort, findable),
            (false, true) => self.traverse::<false, true>(rows, hub, effort, findable),
            (false, false) => self.traverse::<false, false>(rows, hub, effort, findable),
        }
    }

    fn traverse<const SIGNS: bool, const ALL_PASS: bool>(
        &mut self,
        rows: RowsView<'_>,
        hub: &Hub,
        effort: Effort,
        findable: &Findable<'_>,
    ) -> bool {
        self.new.extend_if(hub.nearest(&self.query).map(|near| {
            let is_one =
                if SIGNS { !self.seen.contains(near.id) } else { self.seen.insert(near.id) };
            candidate::<ALL_PASS>(near, is_one, findable)
        }));
        self.keep_new::<ALL_PASS>();
        let fetched_count = if SIGNS { FETCHED_BY_SIGNS } else { FETCHED_BY_BYTES };
        let mut expanded_count = 0;
        // What is fetched is expanded first, even if a nearer one has come meanwhile: sooner or
        // later it would be.
        loop {
            while self.fetched.len() < fetched_count
                && let Some(next) = self.pool.expand_next::<ALL_PASS>(effort.width)
            {
                // By signs it may have been a candidate more than once.
                if (!SIGNS || self.seen.insert(next)) && rows.is_ready(next) {
                    rows.prefetch_to_expand(next);
                    self.fetched.push_back(next);
                }
            }
            let next = self.fetched.pop_front();
            match next {
                Some(id) if SIGNS => self.expand_by_signs::<ALL_PASS>(rows, id, findable),
                None if self.met.is_empty() && self.likely.is_empty() => break,
                next => self.expand_by_bytes::<ALL_PASS>(rows, next, findable),
            }
            expanded_count += usize::from(next.is_some());
            if expanded_count > effort.expanded_max {
                self.counts.expanded += expanded_count as u64;
                return false;
            }
        }
        self.counts.expanded += expanded_count as u64;
        self.compare_rest::<SIGNS>(rows);
        true
    }

    #[inline]
    fn keep_new<const ALL_PASS: bool>(&mut self) {
        self.pool.insert::<ALL_PASS>(self.new.items_mut());
        self.new.clear();
    }

    #[inline]
    fn expand_by_signs<const ALL_PASS: bool>(
        &mut self,
        rows: RowsView<'_>,
        id: u32,
        findable: &Findable<'_>,
    ) {
        let vertex = rows.vertex(id);
        let base = vertex.distance(&self.query.quantized);
        if vertex.header.is_findable() && (ALL_PASS || findable.has(id)) {
            self.found.push(Near { distance: base, id });
        }
        let mut distances = [0.0; BLOCK_COUNT];
        for block in 0..usize::from(vertex.header.links_count).div_ceil(BLOCK_COUNT) {
            let block = rows.block(id, block);
            let line = self.query.line(base, block.add, block.multiply);
            let (tables, bound) = (&self.query.tables, self.pool.bound());
            let below = (kernels().estimate)(block.signs, tables, &line, bound, &mut distances);
            self.new.extend_if(slots(below).map(|slot| {
                let near = Near { distance: distances[slot], id: block.links[slot] };
                let is_one = near.id != NO_LINK && !self.seen.contains(near.id);
                candidate::<ALL_PASS>(near, is_one, findable)
            }));
            self.keep_new::<ALL_PASS>();
        }
    }

    /// Expands a vertex, if there is one: its neighbours are met, those met before are judged by their
    /// sketches, and those that were judged likely before that are compared. So each waits for memory
    /// while others are read.
    #[inline]
    fn expand_by_bytes<const ALL_PASS: bool>(
        &mut self,
        rows: RowsView<'_>,
        next: Option<u32>,
        findable: &Findable<'_>,
    ) {
        self.compare_likely::<ALL_PASS>(rows, findable);
        self.judge_met(rows);
        let Some(id) = next else { return };
        self.seen.insert_new(rows.links(id), &mut self.met);
        let mut are_ready = true;
        for &id in self.met.items() {
            rows.prefetch_sketch(id);
            are_ready &= rows.is_ready(id);
        }
        if !are_ready {
            // The search fails.
            self.met.clear();
        }
        if rows.header(id).is_findable() && (ALL_PASS || findable.has(id)) {
            let distance = rows.vertex(id).distance(&self.query.quantized);
            self.found.push(Near { distance, id });
        }
    }

    /// Makes candidates of those that are near enough by their upper planes.
    #[inline]
    fn compare_likely<const ALL_PASS: bool>(
        &mut self,
        rows: RowsView<'_>,
        findable: &Findable<'_>,
    ) {
        let bound = self.pool.bound();
        self.new.extend_if(self.likely.items().iter().map(|&id| {
            let distance = rows.vertex(id).distance_by_upper(&self.query.quantized);
            candidate::<ALL_PASS>(Near { distance, id }, distance < bound, findable)
        }));
        self.counts.compared += self.likely.items().len() as u64;
        self.likely.clear();
        self.keep_new::<ALL_PASS>();
    }

    /// Leaves out those that are too far by their sketches.
    #[inline]
    fn judge_met(&mut self, rows: RowsView<'_>) {
        let bound = self.pool.bound();
        for met in self.met.items().chunks(SKETCHES_COUNT) {
            let mut sketches = [rows.sketch(met[0]); SKETCHES_COUNT];
            for (sketch, id) in sketches.iter_mut().zip(met).skip(1) {
                *sketch = rows.sketch(*id);
            }
            let sums = self.query.sum_sketched(sketches);
            self.likely.extend_if(
                met.iter().zip(sums).map(|(id, sum)| {
                    (*id, self.query.least_by_sketch(rows.header(*id), sum) < bound)
                }),
            );
        }
        for &id in self.likely.items() {
            rows.prefetch_upper(id);
        }
        self.met.clear();
    }

    /// Compares by their bytes what was kept and not expanded.
    fn compare_rest<const SIGNS: bool>(&mut self, rows: RowsView<'_>) {
        let query = &self.query.quantized;
        for id in self.pool.unexpanded() {
            rows.prefetch_vertex(id);
        }
        for id in self.pool.unexpanded() {
            if (SIGNS && !self.seen.insert(id)) || !rows.is_ready(id) {
                continue;
            }
            self.counts.compared += 1;
            let vertex = rows.vertex(id);
            if vertex.header.is_findable() {
                self.found.push(Near { distance: vertex.distance(query), id });
            }
        }
    }

    /// Leaves the nearest of what was found.
    pub(super) fn keep_nearest(&mut self, limit: usize) {
        if limit < self.found.len() {
            self.found.select_nth_unstable_by(limit, Near::order);
            self.found.truncate(limit);
        }
    }
}
