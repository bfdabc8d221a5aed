//! Making the graph of a collection. What was linked is kept now and then, and when it is ended, so
//! that whoever makes it again goes on from there.

use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::super::collection::Collection;
use super::super::{Store, lock};
use super::keyed::KeyedGraph;
use super::{Kept, Place};
use crate::error::{Error, ErrorKind, Result};
use crate::index::{GraphIndex, GraphOptions, Linking, Profile, VectorBuffer};
use crate::layout::graph_unfinished;
use crate::os::file::remove_if_there;

/// Equal vectors that come in the same order have equal graphs.
const SEED: u64 = 0;
/// Vectors for which address space is taken, at first.
const VECTORS_MAX: usize = 1 << 28;
/// A kill costs no more than this; to keep a large graph takes some seconds.
const KEPT_EVERY: Duration = Duration::from_secs(60);

/// How to make the graph of a collection.
#[derive(Clone, Copy, Debug)]
pub struct LinkOptions {
    /// What vertices know: how much memory the graph takes, and how fast it is.
    pub profile: Profile,
    /// Threads that make it.
    pub threads: NonZero<usize>,
}

impl Store {
    /// Makes the graph of a collection, in place of the one that it has: its searches are then faster
    /// by orders of magnitude, and find nearly all of the nearest. `progress` hears how many vectors
    /// are in, and of how many; it may end it with an error. Whoever calls it again with the same
    /// profile goes on from there, with what was changed meanwhile.
    ///
    /// The graph is kept up to date by every commit, and with the store.
    ///
    /// Cost: full vectors of the whole collection in memory at first.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such collection, or no vector in it; those of reading
    /// vectors and of writing the file; what `progress` returns.
    pub fn link(
        &self,
        collection: &str,
        options: LinkOptions,
        progress: &mut dyn FnMut(usize, usize) -> Result<()>,
    ) -> Result<usize> {
        self.require_writable()?;
        let collection = self.collection(collection)?;
        let _loading = lock(&collection.loading);
        let _visit = self.placement.visit();
        let path = self.graph_path(&collection);
        let unfinished = graph_unfinished(&path);
        let mut making = match self.go_on(&collection, options, &unfinished) {
            Some(making) => making,
            None => self.begin(&collection, options)?,
        };
        self.link_all(&collection, &mut making, options.threads, (&unfinished, progress))?;
        let Making { mut graph, since, _held, .. } = making;
        let _changing = lock(&collection.graph.changing);
        let mut slot = collection.graph.write();
        self.bring_in(&collection, &mut graph, since)?;
        let sequence = self.commits.last_sequence();
        self.write_graph(&collection, &mut graph, &path, sequence)?;
        remove_if_there(&unfinished)?;
        graph.index.renew_copies();
        let linked_count = graph.index.len();
        collection.graph.is_sought.store(true, Ordering::Relaxed);
        *slot = Some(graph);
        // It needs no full vectors in memory.
        *collection.index_mut() = None;
        Ok(linked_count)
    }

    fn begin(&self, collection: &Collection, options: LinkOptions) -> Result<Making<'_>> {
        let since = self.commits.last_sequence();
        let held = self.hold_changes(since);
        let (keys, vectors) = self.all_vectors(collection)?;
        let none = || {
            Error::new(ErrorKind::NotFound, format!("{} has no vectors to link", collection.name))
                .with_remedy("put records with texts or vectors into it first")
        };
        let dimensions = NonZero::new(collection.spec.dimensions as usize).ok_or_else(none)?;
        if keys.is_empty() {
            return Err(none());
        }
        let options = graph_options(collection, options);
        let mut index = GraphIndex::unlinked(&vectors, dimensions, options)?;
        index.place_on(&self.placement);
        Ok(Making::of(KeyedGraph::new(index, keys), since, held))
    }

    /// What was kept of a graph that was not finished, if it can be gone on with.
    fn go_on(
        &self,
        collection: &Collection,
        options: LinkOptions,
        unfinished: &Path,
    ) -> Option<Making<'_>> {
        let read = || -> Result<Option<Making<'_>>> {
            let kept = self.read_kept(collection, unfinished)?;
            let Some(Kept { mut graph, since, _held }) = kept
                .filter(|kept| kept.graph.index.options() == graph_options(collection, options))
            else {
                return Ok(None);
            };
            let now = self.commits.last_sequence();
            let held = self.hold_changes(now);
            graph.detach()?;
            graph.place(&self.changes_after(collection, since)?)?;
            Ok((!graph.index.is_empty()).then(|| Making::of(graph, now, held)))
        };
        read().unwrap_or_else(|error| {
            tracing::warn!(
                collection = %collection.name, %error,
                "what was linked before cannot be used; the graph is made from the beginning"
            );
            None
        })
    }

    /// Links what is not linked yet, and keeps what is if it is ended.
    fn link_all(
        &self,
        collection: &Collection,
        making: &mut Making<'_>,
        threads: NonZero<usize>,
        (unfinished, progress): (&Path, &mut dyn FnMut(usize, usize) -> Result<()>),
    ) -> Result<()> {
        let mut linking = Linking::of(&making.graph.index);
        let (count, mut kept) = (making.graph.index.len(), Instant::now());
        loop {
            let told = progress(linking.linked_count(), count);
            if told.is_err() || kept.elapsed() > KEPT_EVERY {
                let Making { graph, since, .. } = making;
                if let Err(error) = self.write_graph(collection, graph, unfinished, *since) {
                    tracing::warn!(
                        collection = %collection.name, %error,
                        "what is linked so far is not kept"
                    );
                }
                kept = Instant::now();
            }
            told?;
            if !linking.step(&mut making.graph.index, threads)? {
                return progress(count, count);
            }
        }
    }

    /// Reads all vectors of a collection, and the keys of their records.
    fn all_vectors(&self, collection: &Collection) -> Result<(Vec<Arc<[u8]>>, VectorBuffer)> {
        let mut keys = Vec::new();
        let dimensions = collection.spec.dimensions as usize;
        // More than there can be: room in the address space costs nothing.
        let mut vectors = VectorBuffer::with_capacity(dimensions.max(1), VECTORS_MAX)
            .or_else(|_| VectorBuffer::with_capacity(dimensions.max(1), VECTORS_MAX >> 10))?;
        self.walk_vectors(collection, &mut |key, vector| {
            vectors.push(vector)?;
            keys.push(Arc::from(key));
            Ok(())
        })?;
        Ok((keys, vectors))
    }
}

/// A graph of which some vectors are linked.
struct Making<'a> {
    graph: KeyedGraph,
    /// Sequence that it contains.
    since: u64,
    /// While it lives, what comes after is not trimmed.
    _held: Option<Place<'a>>,
}

impl<'a> Making<'a> {
    fn of(graph: KeyedGraph, since: u64, held: Option<Place<'a>>) -> Self {
        Self { graph, since, _held: held }
    }
}

fn graph_options(collection: &Collection, options: LinkOptions) -> GraphOptions {
    GraphOptions { metric: collection.spec.metric, profile: options.profile, seed: SEED }
}
