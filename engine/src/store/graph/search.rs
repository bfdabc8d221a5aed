//! Searching by a graph: full vectors are read where they are, hot or cold.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use super::super::collection::Collection;
use super::super::filter::Passing;
use super::super::{Store, Vectors, lock};
use super::keyed::KeyedGraph;
use crate::error::Result;
use crate::index::{
    FullVectors, GraphFilter, GraphSearch, Neighbour, Scored, SearchOptions, SearchPlan, VertexSet,
};
use crate::query::{CollectionExplain, Plan, Query};

/// Full vectors of the records that a graph is of.
struct RecordVectors<'a> {
    graph: &'a KeyedGraph,
    vectors: Vectors<'a>,
    hot_count: Cell<u64>,
    cold_count: Cell<u64>,
}

impl FullVectors for RecordVectors<'_> {
    fn read(&self, ids: &[u32], take: &mut dyn FnMut(usize, &[f32])) -> Result<()> {
        let mut cold = Vec::new();
        for (place, id) in ids.iter().enumerate() {
            let key = self.graph.key(*id)?;
            match self.vectors.get_hot(key) {
                Some(vector) => {
                    self.hot_count.set(self.hot_count.get() + 1);
                    take(place, &vector);
                }
                None => cold.push((key, place)),
            }
        }
        self.cold_count.set(self.cold_count.get() + cold.len() as u64);
        // In the order of keys they are found in one pass over the files.
        cold.sort_unstable();
        self.vectors.read_cold(&cold, take)
    }
}

impl Store {
    /// Searches a collection by its graph, if it has one that is open, for records that pass.
    pub(in super::super) fn search_graph(
        &self,
        collection: &Arc<Collection>,
        vector: &[f32],
        query: &Query,
        passing: &Passing<'_>,
    ) -> Result<Option<(Vec<Scored>, CollectionExplain)>> {
        let found = match &*collection.graph.read() {
            None => return Ok(None),
            Some(graph) => match self.search_keyed(graph, collection, (vector, query, passing)) {
                Err(error) if graph.index.is_damaged() => error,
                found => return found.map(Some),
            },
        };
        // The vectors themselves are elsewhere.
        self.drop_graph(collection, &found);
        Ok(None)
    }

    fn search_keyed(
        &self,
        graph: &KeyedGraph,
        collection: &Arc<Collection>,
        (vector, query, passing): (&[f32], &Query, &Passing<'_>),
    ) -> Result<(Vec<Scored>, CollectionExplain)> {
        let slot = &collection.graph;
        let vectors = RecordVectors {
            graph,
            vectors: self.vectors_of(Arc::clone(collection))?,
            hot_count: Cell::new(0),
            cold_count: Cell::new(0),
        };
        let limit = query.limit;
        let effort = graph.index.effort_for(query.recall, limit).max(limit);
        let asked = RefCell::new(Asked::default());
        let passes = |id: u32| asked.borrow_mut().or_ask(id, || may_be_found(graph, passing, id));
        let filter = match passing.is_needed() {
            true => GraphFilter::Where(&passes),
            false => GraphFilter::All,
        };
        let options = SearchOptions { limit, effort, filter };
        // A scan asks about all.
        let reads_many = || query.exact || graph.index.would_scan(&options);
        let walked: Option<VertexSet> =
            passing.prepare(graph.index.len(), reads_many)?.then(|| {
                let ids = 0..graph.index.rows_count() as u32;
                ids.filter(|id| may_be_found(graph, passing, *id)).collect()
            });
        let filter = walked.as_ref().map_or(filter, GraphFilter::Among);
        let search = lock(&slot.idle).pop();
        let mut search = search.unwrap_or_else(|| GraphSearch::on_threads(self.threads));
        let before = search.counts();
        let found = if query.exact {
            graph.index.find_exactly(&mut search, vector, (limit, filter), &vectors)
        } else {
            let options = SearchOptions { filter, ..options };
            graph.index.find(&mut search, vector, &options, &vectors)
        };
        let scored = |near: &Neighbour| {
            Ok(Scored { key: graph.key(near.id)?.into(), nearness: near.nearness })
        };
        let mut scored: Vec<Scored> = found?.iter().map(scored).collect::<Result<_>>()?;
        scored.sort_unstable_by(|a, b| {
            b.nearness.total_cmp(&a.nearness).then_with(|| a.key.cmp(&b.key))
        });
        scored.truncate(limit);
        let after = search.counts();
        let explain = CollectionExplain {
            name: collection.name.to_string(),
            plan: if search.plan() == SearchPlan::Scan { Plan::Scan } else { Plan::Graph },
            expanded: after.expanded - before.expanded,
            compared: after.compared + after.scanned - before.compared - before.scanned,
            full_hot: vectors.hot_count.get(),
            full_cold: vectors.cold_count.get(),
            filter: None,
        };
        lock(&slot.idle).push(search);
        Ok((scored, explain))
    }
}

/// What is known of vertices: a search asks about one again and again.
#[derive(Default)]
struct Asked {
    asked: VertexSet,
    passing: VertexSet,
}

impl Asked {
    fn or_ask(&mut self, id: u32, ask: impl FnOnce() -> bool) -> bool {
        if self.asked.insert(id) && ask() {
            self.passing.insert(id);
        }
        self.passing.contains(id)
    }
}

/// One whose key cannot be read is found out when it is to be an answer.
pub(super) fn may_be_found(graph: &KeyedGraph, passing: &Passing<'_>, id: u32) -> bool {
    graph.key(id).map_or(true, |key| passing.passes(key))
}
