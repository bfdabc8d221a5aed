//! Traversal: from the hub to ever nearer vertices, by what vertices know of their neighbours.
//!
//! Where that are signs, a vertex looks nearer from one neighbour than from another, and from near by
//! it is known best. So it is a candidate once for each that leads to it, and is expanded when the
//! first of these has its turn: to keep the first estimate alone made some searches expand twice as
//! many for the same recall.

use std::cmp::Ordering;
use std::collections::VecDeque;

use op_dbus_formats::graph_file::DEGREE_MAX;

use super::filter::Findable;
use super::hub::Hub;
use super::pool::{Entry, Pool, Seen};
use super::query::PreparedQuery;
use super::rows::{LIVE, NO_LINK, Rows};
use super::search::SearchCounts;
use crate::distance::quantized::{BLOCK_COUNT, kernels};

/// Rows that are fetched while one is read. With fewer a search waits for memory; more make it
/// expand what a nearer candidate would have spared.
const FETCHED_COUNT: usize = 3;

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

/// Memory of a search, to be used again.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) query: PreparedQuery,
    pool: Pool,
    seen: Seen,
    fetched: VecDeque<u32>,
    new: Vec<Entry>,
    /// What was found, in no order.
    pub(super) found: Vec<Near>,
    pub(super) counts: SearchCounts,
}

impl Scratch {
    /// Finds vertices near the prepared query; says whether it came to an end.
    pub(super) fn search(
        &mut self,
        rows: &Rows,
        hub: &Hub,
        effort: Effort,
        findable: &Findable<'_>,
    ) -> bool {
        self.pool.reset(effort.kept);
        self.seen.reset(rows.len());
        self.found.clear();
        self.fetched.clear();
        match (rows.shape().has_signs, findable.is_all()) {
            (true, true) => self.traverse::<true, true>(rows, hub, effort, findable),
            (true, false) => self.traverse::<true, false>(rows, hub, effort, findable),
            (false, true) => self.traverse::<false, true>(rows, hub, effort, findable),
            (false, false) => self.traverse::<false, false>(rows, hub, effort, findable),
        }
    }

    fn traverse<const SIGNS: bool, const ALL_PASS: bool>(
        &mut self,
        rows: &Rows,
        hub: &Hub,
        effort: Effort,
        findable: &Findable<'_>,
    ) -> bool {
        if let Some(entry) = hub.nearest(&self.query) {
            if !SIGNS {
                self.seen.insert(entry.id);
            }
            self.note::<ALL_PASS>(entry, findable);
            self.keep_new::<ALL_PASS>();
        }
        let mut expanded_count = 0;
        // What is fetched is expanded first, even if a nearer one has come meanwhile: sooner or
        // later it would be.
        loop {
            while self.fetched.len() < FETCHED_COUNT
                && let Some(next) = self.pool.expand_next::<ALL_PASS>(effort.width)
            {
                // By signs it may have been a candidate more than once.
                if (!SIGNS || self.seen.insert(next)) && rows.is_ready(next) {
                    rows.prefetch(next);
                    self.fetched.push_back(next);
                }
            }
            let Some(id) = self.fetched.pop_front() else { break };
            match SIGNS {
                true => self.expand_by_signs::<ALL_PASS>(rows, id, findable),
                false => self.expand_by_bytes::<ALL_PASS>(rows, id, findable),
            }
            expanded_count += 1;
            if expanded_count > effort.expanded_max {
                self.counts.expanded += expanded_count as u64;
                return false;
            }
        }
        self.counts.expanded += expanded_count as u64;
        self.compare_rest::<SIGNS>(rows);
        true
    }

    /// Makes a candidate of a vertex.
    #[inline]
    fn note<const ALL_PASS: bool>(&mut self, near: Near, findable: &Findable<'_>) {
        let is_passing = ALL_PASS || findable.has(near.id);
        self.new.push(Entry::new(near.distance, near.id, is_passing));
    }

    #[inline]
    fn keep_new<const ALL_PASS: bool>(&mut self) {
        self.pool.insert::<ALL_PASS>(&mut self.new);
        self.new.clear();
    }

    #[inline]
    fn expand_by_signs<const ALL_PASS: bool>(
        &mut self,
        rows: &Rows,
        id: u32,
        findable: &Findable<'_>,
    ) {
        let vertex = rows.vertex(id);
        let base = vertex.distance(&self.query.quantized.vertex());
        if vertex.header.state == LIVE && (ALL_PASS || findable.has(id)) {
            self.found.push(Near { distance: base, id });
        }
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
                if link != NO_LINK && !self.seen.contains(link) {
                    self.note::<ALL_PASS>(Near { distance: distances[slot], id: link }, findable);
                }
            }
            self.keep_new::<ALL_PASS>();
        }
    }

    #[inline]
    fn expand_by_bytes<const ALL_PASS: bool>(
        &mut self,
        rows: &Rows,
        id: u32,
        findable: &Findable<'_>,
    ) {
        let mut unseen = [0; DEGREE_MAX as usize];
        let mut unseen_count = 0;
        for &link in rows.links(id) {
            if self.seen.insert(link) && rows.is_ready(link) {
                rows.prefetch_vertex(link);
                unseen[unseen_count] = link;
                unseen_count += 1;
            }
        }
        let unseen = &unseen[..unseen_count];
        let bound = self.pool.bound();
        for &link in unseen {
            let distance = self.distance(rows, link);
            if distance < bound {
                self.note::<ALL_PASS>(Near { distance, id: link }, findable);
            }
        }
        self.counts.compared += unseen_count as u64;
        self.keep_new::<ALL_PASS>();
        if rows.header(id).state == LIVE && (ALL_PASS || findable.has(id)) {
            self.found.push(Near { distance: self.distance(rows, id), id });
        }
    }

    #[inline]
    fn distance(&self, rows: &Rows, id: u32) -> f32 {
        rows.vertex(id).distance(&self.query.quantized.vertex())
    }

    /// Compares by their bytes what was kept and not expanded.
    fn compare_rest<const SIGNS: bool>(&mut self, rows: &Rows) {
        let query = self.query.quantized.vertex();
        for id in self.pool.unexpanded() {
            rows.prefetch_vertex(id);
        }
        for id in self.pool.unexpanded() {
            if (SIGNS && !self.seen.insert(id)) || !rows.is_ready(id) {
                continue;
            }
            self.counts.compared += 1;
            let vertex = rows.vertex(id);
            if vertex.header.state == LIVE {
                self.found.push(Near { distance: vertex.distance(&query), id });
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
