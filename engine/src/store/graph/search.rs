//! Searching by a graph: full vectors are read where they are, hot or cold.

use std::cell::Cell;
use std::sync::Arc;

use super::super::collection::Collection;
use super::super::{Store, Vectors, lock};
use super::keyed::KeyedGraph;
use crate::error::Result;
use crate::index::{
    Filter, FullVectors, GraphFilter, Neighbour, Scored, SearchOptions, SearchPlan,
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
    /// Searches a collection by its graph, if it has one that is open. Of keys that do not
    /// pass nothing may be found.
    pub(in super::super) fn search_graph(
        &self,
        collection: &Arc<Collection>,
        vector: &[f32],
        query: &Query,
        passes: Option<Filter<'_>>,
    ) -> Result<Option<(Vec<Scored>, CollectionExplain)>> {
        let found = match &*collection.graph.read() {
            None => return Ok(None),
            Some(graph) => match self.search_keyed(graph, collection, (vector, query, passes)) {
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
        (vector, query, passes): (&[f32], &Query, Option<Filter<'_>>),
    ) -> Result<(Vec<Scored>, CollectionExplain)> {
        let slot = &collection.graph;
        let vectors = RecordVectors {
            graph,
            vectors: self.vectors_of(Arc::clone(collection))?,
            hot_count: Cell::new(0),
            cold_count: Cell::new(0),
        };
        // One whose key cannot be read is found out when it is to be an answer.
        let is_visible = |id: u32| match (passes, graph.key(id)) {
            (Some(passes), Ok(key)) => passes(key),
            _ => true,
        };
        let filter =
            if passes.is_some() { GraphFilter::Where(&is_visible) } else { GraphFilter::All };
        let mut search = lock(&slot.idle).pop().unwrap_or_default();
        let before = search.counts();
        let limit = query.limit;
        let found = if query.exact {
            graph.index.find_exactly(&mut search, vector, (limit, filter), &vectors)
        } else {
            let effort = graph.index.effort_for(query.recall, limit).max(limit);
            let options = SearchOptions { limit, effort, filter };
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
        };
        lock(&slot.idle).push(search);
        Ok((scored, explain))
    }
}
