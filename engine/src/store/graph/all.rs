//! Comparing all that a graph has, in parts, between which commits and whoever is in a hurry come.

use std::sync::Arc;

use super::super::Store;
use super::super::collection::Collection;
use super::super::filter::Passing;
use super::keyed::KeyedGraph;
use super::search::may_be_found;
use crate::error::Result;
use crate::index::{FullVectors, GraphFilter, GraphSearch, Scored, VertexSet};

/// Vectors that are compared while commits wait: it takes milliseconds.
const PART_COUNT: u32 = 1 << 15;

/// Full vectors from where they are stored: to look at one is no use of it.
struct StoredVectors<'a> {
    store: &'a Store,
    collection: &'a Collection,
    graph: &'a KeyedGraph,
}

impl FullVectors for StoredVectors<'_> {
    fn read(&self, ids: &[u32], take: &mut dyn FnMut(usize, &[f32])) -> Result<()> {
        for (place, id) in ids.iter().enumerate() {
            let key = self.graph.key(*id)?;
            if let Some(vector) = self.store.vector_of_record(self.collection, key)? {
                take(place, &vector);
            }
        }
        Ok(())
    }
}

impl Store {
    /// Finds the nearest that pass, nearest first, by comparing all; `None` if `go_on` says no, or the
    /// graph is not there any more.
    pub(in super::super) fn compare_all(
        &self,
        collection: &Arc<Collection>,
        vector: &[f32],
        (limit, passing): (usize, &Passing<'_>),
        go_on: &dyn Fn() -> bool,
    ) -> Result<Option<Vec<Scored>>> {
        // A filter may have all records read: while commits go on.
        let Some((_, vectors_count)) = collection.graph.measured() else { return Ok(None) };
        passing.prepare(vectors_count, || true)?;
        let (mut search, mut nearest) = (GraphSearch::default(), Vec::new());
        let (mut identity, mut next) = (None, 0);
        while go_on() {
            let slot = collection.graph.read();
            let Some(graph) = &*slot else { return Ok(None) };
            if *identity.get_or_insert(graph.identity) != graph.identity {
                return Ok(None);
            }
            let rows_count = graph.index.rows_count() as u32;
            if next >= rows_count {
                return Ok(Some(nearest));
            }
            let end = next.saturating_add(PART_COUNT).min(rows_count);
            let ids = (next..end).filter(|id| may_be_found(graph, passing, *id));
            let part: VertexSet = ids.collect();
            let vectors = StoredVectors { store: self, collection, graph };
            let filter = GraphFilter::Among(&part);
            let found = graph.index.find_exactly(&mut search, vector, (limit, filter), &vectors)?;
            for near in found {
                nearest.push(Scored { key: graph.key(near.id)?.into(), nearness: near.nearness });
            }
            nearest.sort_unstable_by(|a, b| {
                b.nearness.total_cmp(&a.nearness).then_with(|| a.key.cmp(&b.key))
            });
            nearest.truncate(limit);
            next = end;
        }
        Ok(None)
    }
}
