//! Changing a graph: vectors that come are linked at once, those that go are passed over at once,
//! and their rows are used again when no link leads to them any more.
//!
//! A vertex that was removed leads on until so many are that those which have links to them look for
//! others, among the neighbours of the removed. Then no link leads to their rows.
//!
//! Source: Singh et al., "FreshDiskANN", 2021 (arXiv 2105.09613).

use std::num::NonZero;

use op_dbus_formats::embedding::check_finite;
use op_dbus_formats::graph_file::VERTICES_MAX;

use super::GraphIndex;
use super::build::{Plan, shuffle};
use super::links::count_links;
use super::rows::{HOLLOW, Header, LIVE, REMOVED, Rows, TWIN, VACANT, WAITING};
use crate::error::{Error, ErrorKind, Result};
use crate::os::threads::in_parts;

/// Links are repaired when more than one vertex of so many was removed.
const REMOVED_PARTS: usize = 8;
/// Vertices whose links are repaired together.
const REPAIRED_COUNT: usize = 4096;
/// Others that a vertex may be linked with instead of a removed one, from the removed one.
const INSTEAD_COUNT: usize = 16;

/// Rows of a file. To copy them keeps nobody from anything.
pub(crate) struct Attached {
    rows: Rows,
}

/// A copy of rows of a file, and what is known of them as long as they are in memory.
pub(crate) struct Detached {
    rows: Rows,
    vacant: Vec<u32>,
    findable_count: usize,
    in_links_counts: Vec<u32>,
}

impl Attached {
    /// Copies the rows into memory.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if the file is damaged; [`ErrorKind::Full`] if memory is short.
    pub(crate) fn copy(self) -> Result<Detached> {
        let rows = self.rows.to_memory()?;
        let view = rows.view();
        let ids = 0..view.len() as u32;
        let vacant = ids.clone().filter(|id| view.header(*id).state == VACANT).collect();
        let findable_count = ids.filter(|id| view.header(*id).is_findable()).count();
        let in_links_counts = count_links(view);
        Ok(Detached { rows, vacant, findable_count, in_links_counts })
    }
}

impl GraphIndex {
    /// Adds vectors, which can be found from then on; returns their numbers, which may be those of
    /// removed ones.
    ///
    /// Shapes: `vectors` is `[count, dimensions]`.
    /// Cost of each: that of a search with an effort of some hundreds. Now and then links are
    /// repaired first, as by [`GraphIndex::repair`].
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the length is not a multiple, a number is not finite, or a vector is
    /// longer than all before where the metric is the dot product; [`ErrorKind::Full`] if memory is
    /// short; [`ErrorKind::Corrupt`] if the graph's file is damaged. None is added then.
    pub fn insert(&mut self, vectors: &[f32], threads: NonZero<usize>) -> Result<Vec<u32>> {
        self.check_new(vectors)?;
        self.detach()?;
        let count = vectors.len() / self.dimensions();
        if self.vacant.len() < count && self.needs_repair() {
            self.repair(threads)?;
        }
        let ids = self.place(vectors)?;
        let mut rest = self.waiting(&ids);
        while !rest.is_empty() {
            let batch: Vec<u32> = rest.drain(..rest.len().min(self.batch_len())).collect();
            self.link(&self.plan(&batch, threads))?;
        }
        self.calibrate_if_needed(threads);
        Ok(ids)
    }

    /// Removes a vector, which is not found from then on; says whether there was one.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if the graph's file is damaged; [`ErrorKind::Full`] if memory is short.
    pub fn remove(&mut self, id: u32) -> Result<bool> {
        if !self.has_vector(id) {
            return Ok(false);
        }
        self.detach()?;
        self.live_count -= 1;
        match self.rows.view().header(id).state {
            LIVE if !self.twins.of(id).is_empty() => self.rows.set_state(id, HOLLOW),
            LIVE => self.lead_on(id),
            TWIN => {
                let vertex = self.twins.remove(id);
                self.vacate(id);
                let is_alone = |id: &u32| {
                    self.rows.view().header(*id).state == HOLLOW && self.twins.of(*id).is_empty()
                };
                if let Some(vertex) = vertex.filter(is_alone) {
                    self.lead_on(vertex);
                }
            }
            _ => {
                self.apart.retain(|apart| *apart != id);
                self.vacate(id);
            }
        }
        Ok(true)
    }

    /// Leaves of a vertex only that it leads on.
    fn lead_on(&mut self, id: u32) {
        self.rows.set_state(id, REMOVED);
        self.removed.insert(id);
    }

    /// Whether enough were removed for it to be worth repairing links.
    #[must_use]
    pub fn needs_repair(&self) -> bool {
        self.removed.len() * REMOVED_PARTS > self.findable_count()
    }

    /// Links vertices with others where those they were linked with were removed, so that the rows
    /// of those can be used again. [`GraphIndex::insert`] does it by itself when it is worth it.
    ///
    /// Cost: all rows are read, and most are changed.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if the graph's file is damaged; [`ErrorKind::Full`] if memory is short.
    pub fn repair(&mut self, threads: NonZero<usize>) -> Result<()> {
        self.detach()?;
        let removed = self.removed();
        let mut next = 0;
        while let Some(plan) = self.plan_repair(&mut next, threads) {
            self.apply(&plan);
        }
        self.end_repair(&removed)
    }

    /// The vertices that were removed and still lead on.
    pub(crate) fn removed(&self) -> Vec<u32> {
        self.removed.iter().collect()
    }

    /// Copies rows of a file into memory, so that they can be changed.
    pub(crate) fn detach(&mut self) -> Result<()> {
        if let Some(attached) = self.attached() {
            self.go_on_with(attached.copy()?);
        }
        Ok(())
    }

    /// What there is to be copied into memory; none if it is there.
    pub(crate) fn attached(&self) -> Option<Attached> {
        self.rows.map_again().map(|rows| Attached { rows })
    }

    /// Puts a copy in place of rows of a file, of which it is a copy.
    pub(crate) fn go_on_with(&mut self, detached: Detached) {
        let Detached { rows, vacant, findable_count, in_links_counts } = detached;
        self.rows = rows;
        self.vacant = vacant;
        self.linked_count = self.removed.len() + findable_count;
        self.in_links_counts = in_links_counts;
    }

    /// Sees to it that copies on other nodes, if there are to be any, are like the rows.
    pub(crate) fn renew_copies(&mut self) {
        self.rows.renew_copies();
    }

    pub(crate) fn check_new(&self, vectors: &[f32]) -> Result<()> {
        let dimensions = self.dimensions();
        if !vectors.len().is_multiple_of(dimensions) {
            let context = format!("{} numbers are no vectors of {dimensions}", vectors.len());
            return Err(Error::new(ErrorKind::Invalid, context));
        }
        for vector in vectors.chunks_exact(dimensions) {
            check_finite(vector).map_err(|error| {
                Error::new(ErrorKind::Invalid, "a vector is none").with_source(error)
            })?;
            if self.space.is_too_long(vector) {
                let longest = self.space.norm_max;
                let context =
                    format!("a vector is longer than {longest}, the longest of the graph");
                return Err(Error::new(ErrorKind::Invalid, context)
                    .with_remedy("make the graph anew, of all vectors"));
            }
        }
        Ok(())
    }

    /// Writes vectors into rows that nobody is linked with yet.
    pub(crate) fn place(&mut self, vectors: &[f32]) -> Result<Vec<u32>> {
        let count = vectors.len() / self.dimensions();
        let new_count = count.saturating_sub(self.vacant.len());
        let rows_count = self.rows.len() + new_count;
        if rows_count > VERTICES_MAX as usize {
            let context = format!("a graph holds at most {VERTICES_MAX} vectors");
            return Err(Error::new(ErrorKind::Full, context));
        }
        let first_new = self.rows.len() as u32;
        self.rows.grow_to(rows_count)?;
        self.in_links_counts.resize(rows_count, 0);
        let reused = self.vacant.drain(self.vacant.len() - (count - new_count)..);
        let ids: Vec<u32> = reused.chain(first_new..rows_count as u32).collect();
        self.set_vertices(&ids, vectors);
        self.live_count += count;
        self.renew_copies();
        Ok(ids)
    }

    /// Those of some vectors that are to be linked.
    pub(crate) fn waiting(&self, ids: &[u32]) -> Vec<u32> {
        self.having(ids, |header| header.state == WAITING)
    }

    /// Those of some vectors that are linked.
    pub(super) fn vertices(&self, ids: &[u32]) -> Vec<u32> {
        self.having(ids, Header::is_findable)
    }

    fn having(&self, ids: &[u32], is_wanted: impl Fn(&Header) -> bool) -> Vec<u32> {
        ids.iter().copied().filter(|id| is_wanted(self.rows.view().header(*id))).collect()
    }

    /// Links as planned.
    pub(crate) fn link(&mut self, plan: &Plan) -> Result<()> {
        self.apply(plan);
        let (now, then) = (self.findable_count(), self.hub_of_count);
        if now >= 2 * then || now <= then / 4 {
            self.choose_hub()?;
        }
        self.renew_copies();
        Ok(())
    }

    fn choose_hub(&mut self) -> Result<()> {
        let ids: Vec<u32> = (0..self.rows.len() as u32).collect();
        let mut linked = self.vertices(&ids);
        shuffle(&mut linked, self.options.seed ^ self.rows.len() as u64);
        self.renew_hub(&linked)
    }

    /// Finds out how to repair the links of some vertices; none if all were seen.
    pub(crate) fn plan_repair(&self, next: &mut u32, threads: NonZero<usize>) -> Option<Plan> {
        let end = self.rows.len().min(*next as usize + REPAIRED_COUNT) as u32;
        let ids: Vec<u32> = (*next..end).collect();
        *next = end;
        if ids.is_empty() || self.removed.is_empty() {
            return None;
        }
        let repaired =
            in_parts(&ids, threads, |id, (): &mut ()| Some((*id, self.repaired_links(*id)?)));
        Some(Plan::of_linked(repaired.into_iter().flatten().collect()))
    }

    /// The links that a vertex is to have without removed ones; none if it has no such.
    fn repaired_links(&self, id: u32) -> Option<Vec<u32>> {
        let rows = self.rows.view();
        let is_findable = |id: &u32| rows.header(*id).is_findable();
        let links = rows.links(id);
        if !is_findable(&id) || links.iter().all(is_findable) {
            return None;
        }
        let mut others: Vec<u32> = links.iter().copied().filter(is_findable).collect();
        for removed in links.iter().filter(|link| !is_findable(link)) {
            let instead = rows.links(*removed).iter().copied();
            let instead: Vec<u32> =
                instead.filter(|other| *other != id && is_findable(other)).collect();
            let mut nearest: Vec<_> = self.nearnesses(id, &instead).collect();
            nearest.sort_unstable_by(super::traverse::Near::order);
            others.extend(nearest.iter().take(INSTEAD_COUNT).map(|near| near.id));
        }
        others.sort_unstable();
        others.dedup();
        Some(self.choose_among(id, &others))
    }

    /// Makes the rows of these vertices vacant, which were removed before links were repaired: no
    /// link leads to them any more.
    pub(crate) fn end_repair(&mut self, removed: &[u32]) -> Result<()> {
        self.linked_count -= removed.len();
        removed.iter().for_each(|id| _ = self.removed.remove(*id));
        self.choose_hub()?;
        for id in removed {
            let links = self.rows.view().links(*id).to_vec();
            self.vacate(*id);
            self.lead_to(&links);
        }
        self.renew_copies();
        Ok(())
    }

    fn vacate(&mut self, id: u32) {
        let links = self.rows.view().links(id).to_vec();
        self.forget_links(&links);
        let neighbourhood = self.rows.neighbourhood(id);
        neighbourhood.header.state = VACANT;
        neighbourhood.header.links_count = 0;
        self.vacant.push(id);
    }
}
