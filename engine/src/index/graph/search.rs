//! What is asked of a graph, and how it is answered: by traversal, or by a scan of what may be found.

use std::num::NonZero;

use op_dbus_formats::embedding::check_finite;

use super::GraphIndex;
use super::filter::{Findable, GraphFilter};
use super::full::FullVectors;
use super::rows::{APART, HOLLOW, LIVE, TWIN, WAITING};
use super::space::norm;
use super::traverse::{Effort, Near, Scratch};
use crate::error::{Error, ErrorKind, Result};

/// Candidates that are compared by their bytes beyond those that are expanded.
const COMPARED_COUNT: usize = 8;
/// By signs a vertex is a candidate more than once, and where many are asked for, this many places in
/// the list hold one of them. Of ten the expanded ones are enough.
const COMPARED_PER_WANTED: usize = 5;
const FEW_WANTED: usize = 10;
/// Of those that are nearest by their bytes so many more than asked for are compared in full, and one
/// more for this much effort: bytes are nearly exact, and only who wants nearly all misses the rest.
const FULL_COUNT: usize = 2;
const EFFORT_PER_FULL: usize = 64;
/// Vectors that are compared by their bytes in the time of an expansion.
const SCANNED_PER_EXPANDED: usize = 16;
/// Vectors that a filter is asked about in the time that one is compared.
const ASKED_PER_SCANNED: usize = 4;
/// Vectors that a filter is asked about to learn how many pass.
const SAMPLE_COUNT: usize = 256;
/// How often a search goes to find as many as were asked for, before all are compared.
const TRIES_COUNT: usize = 2;
/// So many times the effort is made the next time.
const TRIED_AGAIN_TIMES: usize = 4;
/// The longest list of candidates of a filtered traversal, beyond which it costs more than it finds.
const KEPT_MAX: usize = 16 << 10;

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
    /// Vectors that were compared by their bytes, or by half of them, on the way.
    pub compared: u64,
    /// Vectors that were compared by their bytes in scans.
    pub scanned: u64,
    /// Vectors that were compared in full.
    pub full: u64,
}

/// What to find.
#[derive(Clone, Copy, Debug)]
pub struct SearchOptions<'a> {
    /// So many at most.
    pub limit: usize,
    /// So many of the nearest candidates are looked at: the more, the more of the nearest are found.
    pub effort: usize,
    /// Among which.
    pub filter: GraphFilter<'a>,
}

/// How a search was answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SearchPlan {
    /// By links.
    #[default]
    Traversal,
    /// By links, on which only some were wanted.
    FilteredTraversal,
    /// By comparing all that were wanted, which is exact.
    Scan,
}

/// Memory of searches, one after the other, and what they did.
pub struct GraphSearch {
    /// On which all vectors are compared.
    threads: NonZero<usize>,
    pub(super) scratch: Scratch,
    ids: Vec<u32>,
    nearest: Vec<Neighbour>,
    plan: SearchPlan,
}

impl Default for GraphSearch {
    fn default() -> Self {
        Self::on_threads(NonZero::<usize>::MIN)
    }
}

impl GraphSearch {
    /// For searches that compare, where all vectors have to be, on at most so many threads.
    #[must_use]
    pub fn on_threads(threads: NonZero<usize>) -> Self {
        let (scratch, plan) = (Scratch::default(), SearchPlan::default());
        Self { threads, scratch, ids: Vec::new(), nearest: Vec::new(), plan }
    }

    /// What all searches did so far.
    #[must_use]
    pub fn counts(&self) -> SearchCounts {
        self.scratch.counts
    }

    pub(crate) fn scratch(&mut self) -> &mut Scratch {
        &mut self.scratch
    }

    /// Puts what was found in order.
    fn nearest_first(&mut self, limit: usize) -> &[Neighbour] {
        let order =
            |a: &Neighbour, b: &Neighbour| b.nearness.total_cmp(&a.nearness).then(a.id.cmp(&b.id));
        self.nearest.sort_unstable_by(order);
        self.nearest.truncate(limit);
        &self.nearest
    }

    /// How the last search was answered.
    #[must_use]
    pub fn plan(&self) -> SearchPlan {
        self.plan
    }
}

impl std::fmt::Debug for GraphSearch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GraphSearch").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

impl GraphIndex {
    /// Returns vectors near a query, nearest first: the more effort, the more of the nearest. There
    /// are as many as asked for if so many pass the filter.
    ///
    /// `vectors` are those that the graph is of; a few more than the limit are read. Among vectors
    /// as near as each other, the first comes first.
    ///
    /// Shape: `query` is `[dimensions]`.
    /// Cost: at most about `effort` vertices are expanded, more where a filter lets few pass; where it lets
    /// very few pass, those are compared instead.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the query has another shape, or a number of it is not finite;
    /// [`ErrorKind::Corrupt`] if the graph's file is damaged; what reading full vectors refuses.
    pub fn search<'s>(
        &self,
        search: &'s mut GraphSearch,
        query: &[f32],
        options: &SearchOptions<'_>,
        vectors: &dyn FullVectors,
    ) -> Result<&'s [Neighbour]> {
        self.find(search, query, options, vectors)?;
        Ok(search.nearest_first(options.limit))
    }

    /// Returns the vectors nearest to a query, nearest first, of those that pass.
    ///
    /// Shapes and order are those of [`GraphIndex::search`].
    /// Cost: all vectors that pass are compared by their bytes, and in full those for which that
    /// does not prove that they are too far.
    ///
    /// # Errors
    /// Those of [`GraphIndex::search`].
    pub fn search_exact<'s>(
        &self,
        search: &'s mut GraphSearch,
        query: &[f32],
        (limit, filter): (usize, GraphFilter<'_>),
        vectors: &dyn FullVectors,
    ) -> Result<&'s [Neighbour]> {
        self.find_exactly(search, query, (limit, filter), vectors)?;
        Ok(search.nearest_first(limit))
    }

    /// As [`GraphIndex::search`], in no order, and with some more that are farther.
    pub(crate) fn find<'s>(
        &self,
        search: &'s mut GraphSearch,
        query: &[f32],
        options: &SearchOptions<'_>,
        vectors: &dyn FullVectors,
    ) -> Result<&'s [Neighbour]> {
        self.prepare(search, query)?;
        if self.space.is_nowhere(query) {
            return Ok(self.answer_nowhere(search, &options.filter));
        }
        let wanted_count = self.wanted_count(&options.filter);
        search.plan = self.traverse(search, options, wanted_count);
        if search.plan != SearchPlan::Scan {
            let full_count = FULL_COUNT + options.effort / EFFORT_PER_FULL;
            search.scratch.keep_nearest(options.limit.saturating_add(full_count));
        }
        self.answer(search, query, &options.filter, vectors)
    }

    /// As [`GraphIndex::search_exact`], in no order, and with some more that are as far or farther.
    pub(crate) fn find_exactly<'s>(
        &self,
        search: &'s mut GraphSearch,
        query: &[f32],
        (limit, filter): (usize, GraphFilter<'_>),
        vectors: &dyn FullVectors,
    ) -> Result<&'s [Neighbour]> {
        self.prepare(search, query)?;
        if self.space.is_nowhere(query) {
            return Ok(self.answer_nowhere(search, &filter));
        }
        search.plan = SearchPlan::Scan;
        search.scratch.scan(self.rows.nearest_view(), limit, &filter, search.threads);
        self.answer(search, query, &filter, vectors)
    }

    fn prepare(&self, search: &mut GraphSearch, query: &[f32]) -> Result<()> {
        self.check_dimensions(query)?;
        check_finite(query).map_err(|error| {
            Error::new(ErrorKind::Invalid, "the query is no vector").with_source(error)
        })?;
        let prepared = &mut search.scratch.query;
        self.space.place_query(query, &mut prepared.rotated);
        prepared.rotated.resize(self.rows.shape().padded, 0.0);
        prepared.prepare(&self.rotation);
        Ok(())
    }

    /// Whether a search would compare all that pass, as far as a sample tells how many these are.
    pub(crate) fn would_scan(&self, options: &SearchOptions<'_>) -> bool {
        self.plan_search(options, self.wanted_count(&options.filter)).0 == SearchPlan::Scan
    }

    /// Finds candidates; a scan finds them all.
    fn traverse(
        &self,
        search: &mut GraphSearch,
        options: &SearchOptions<'_>,
        wanted_count: usize,
    ) -> SearchPlan {
        let SearchOptions { limit, filter, .. } = options;
        let (plan, mut effort) = self.plan_search(options, wanted_count);
        // How many pass a predicate is not known, so all that were asked for must be found.
        let is_counted = !matches!(filter, GraphFilter::Where(_));
        let needed = if is_counted { wanted_count.min(*limit) } else { *limit };
        let (scratch, rows) = (&mut search.scratch, self.rows.nearest_view());
        let tries_count = match plan {
            SearchPlan::Scan => 0,
            SearchPlan::FilteredTraversal => 1,
            // By signs a few vertices, each a candidate many times, may fill the list.
            SearchPlan::Traversal => TRIES_COUNT,
        };
        for _ in 0..tries_count {
            let is_done = scratch.search(rows, &self.hub, effort, &self.findable(*filter));
            self.add_twins(&mut scratch.found, *limit, *filter);
            // Those apart are known without being found.
            if is_done && scratch.found.len() + self.apart.len() >= needed {
                return plan;
            }
            let more = |count: usize| (count * TRIED_AGAIN_TIMES).min(self.rows.len());
            effort = Effort { width: more(effort.width), kept: more(effort.kept), ..effort };
        }
        scratch.scan(rows, *limit, filter, search.threads);
        SearchPlan::Scan
    }

    /// How to answer, and with how much effort unless all are compared.
    fn plan_search(
        &self,
        options: &SearchOptions<'_>,
        wanted_count: usize,
    ) -> (SearchPlan, Effort) {
        let SearchOptions { limit, effort, filter } = options;
        // A list is never longer than there are vertices.
        let width = (*effort).clamp(1, self.rows.len().max(1));
        let scan_cost = match filter {
            GraphFilter::Where(_) => wanted_count + self.len() / ASKED_PER_SCANNED,
            _ => wanted_count,
        };
        // Each expansion finds one that is wanted only so often. Those that were removed lead on.
        let vertices_count = self.len().max(1) + self.removed.len();
        let part = (vertices_count as f64 / wanted_count.max(1) as f64).max(1.0);
        let expanded = (width as f64 * part) as usize;
        let plan = if scan_cost / SCANNED_PER_EXPANDED <= expanded {
            SearchPlan::Scan
        } else if filter.is_all() {
            SearchPlan::Traversal
        } else {
            SearchPlan::FilteredTraversal
        };
        let kept = self.kept_count(width, (*limit).min(self.rows.len()));
        let effort = match filter.is_all() {
            true => self.effort_among_removed(Effort { width, kept, expanded_max: usize::MAX }),
            false => Effort {
                width,
                kept: (kept as f64 * part * 2.0) as usize,
                // By then a scan costs no more than what was spent.
                expanded_max: expanded.max(scan_cost / SCANNED_PER_EXPANDED),
            },
        };
        let kept_max = KEPT_MAX.max(effort.width.saturating_add(*limit)).min(self.rows.len());
        (plan, Effort { kept: effort.kept.min(kept_max), ..effort })
    }

    /// Candidates that a search keeps which expands so many and is asked for so many.
    pub(super) fn kept_count(&self, width: usize, limit: usize) -> usize {
        let many = if self.rows.shape().has_signs { limit.saturating_sub(FEW_WANTED) } else { 0 };
        width.max(limit) + COMPARED_COUNT + COMPARED_PER_WANTED * many
    }

    /// Adds the twins of vertices that were found, and leaves out those that were removed or do not
    /// pass themselves.
    pub(super) fn add_twins(&self, found: &mut Vec<Near>, limit: usize, filter: GraphFilter<'_>) {
        if self.twins.is_empty() {
            return;
        }
        for place in 0..found.len() {
            let Near { distance, id } = found[place];
            let passing = self.twins.of(id).iter().filter(|twin| filter.passes(**twin));
            found.extend(passing.take(limit).map(|id| Near { distance, id: *id }));
        }
        let rows = self.rows.view();
        found.retain(|near| rows.header(near.id).state != HOLLOW && filter.passes(near.id));
    }

    /// As much as finds what another effort would if none was removed: those that were lead on, and are
    /// expanded and kept like others.
    pub(super) fn effort_among_removed(&self, effort: Effort) -> Effort {
        let more = |count: usize| count + count * self.removed.len() / self.findable_count().max(1);
        Effort { width: more(effort.width), kept: more(effort.kept), ..effort }
    }

    pub(super) fn findable<'a>(&'a self, filter: GraphFilter<'a>) -> Findable<'a> {
        Findable { filter, removed: &self.removed, twins: &self.twins }
    }

    /// How many vectors pass, exactly or about.
    fn wanted_count(&self, filter: &GraphFilter<'_>) -> usize {
        match filter {
            GraphFilter::All => self.len(),
            GraphFilter::Among(set) => set.len().min(self.len()),
            GraphFilter::Where(passes) => {
                let step = (self.rows.len() / SAMPLE_COUNT).max(1);
                let sample = (0..self.rows.len() as u32).step_by(step);
                let (asked_count, passing_count) = sample.fold((0, 0), |(asked, passing), id| {
                    (asked + 1, passing + usize::from(passes(id)))
                });
                // One at least, which keeps a filter that lets nobody of the sample pass possible.
                self.len() * passing_count.max(1) / asked_count.max(1)
            }
        }
    }

    pub(super) fn check_dimensions(&self, vector: &[f32]) -> Result<()> {
        let dimensions = self.dimensions();
        if vector.len() == dimensions {
            return Ok(());
        }
        let context =
            format!("a vector of {} numbers; those of the graph have {dimensions}", vector.len());
        Err(Error::new(ErrorKind::Invalid, context)
            .with_remedy("use vectors of as many numbers as those of the graph"))
    }

    /// Compares candidates in full.
    fn answer<'s>(
        &self,
        search: &'s mut GraphSearch,
        query: &[f32],
        filter: &GraphFilter<'_>,
        vectors: &dyn FullVectors,
    ) -> Result<&'s [Neighbour]> {
        // What could not be read was passed over.
        self.rows.failure()?;
        let GraphSearch { scratch, ids, nearest, .. } = search;
        ids.clear();
        ids.extend(scratch.found.iter().map(|near| near.id));
        nearest.clear();
        let query_norm = norm(query);
        vectors.read(ids, &mut |place, vector| {
            let nearness = self.space.nearness(query, query_norm, vector);
            nearest.push(Neighbour { id: ids[place], nearness });
        })?;
        scratch.counts.full += nearest.len() as u64;
        let apart = self.apart.iter().filter(|id| filter.passes(**id));
        nearest.extend(apart.map(|id| Neighbour { id: *id, nearness: 0.0 }));
        Ok(nearest)
    }

    /// To a query without direction all are as near.
    fn answer_nowhere<'s>(
        &self,
        search: &'s mut GraphSearch,
        filter: &GraphFilter<'_>,
    ) -> &'s [Neighbour] {
        search.plan = SearchPlan::Scan;
        let ids = (0..self.rows.len() as u32).filter(|id| filter.passes(*id) && self.contains(*id));
        let near = ids.map(|id| Neighbour { id, nearness: 0.0 });
        search.nearest.clear();
        search.nearest.extend(near);
        &search.nearest
    }

    /// Whether a number is that of a vector that can be found.
    #[must_use]
    pub fn contains(&self, id: u32) -> bool {
        matches!(self.state(id), Some(LIVE | APART | TWIN))
    }

    /// Whether a number is that of a vector, whether it can be found or is not linked yet.
    pub(crate) fn has_vector(&self, id: u32) -> bool {
        matches!(self.state(id), Some(LIVE | APART | TWIN | WAITING))
    }

    fn state(&self, id: u32) -> Option<u16> {
        let rows = self.rows.view();
        ((id as usize) < rows.len() && rows.is_ready(id)).then(|| rows.header(id).state)
    }
}
