//! The graph of a collection: made when asked for, kept in a file of `@vectors`, and changed with
//! every commit once it is open.
//!
//! The file names the sequence that it contains. What was changed after it is brought in when it is
//! opened, and a new file is written when the store is closed and much has changed. One that is made
//! has another file until it is whole. All of it can be deleted: without a graph, all vectors are
//! compared.
//!
//! Searches go on while vectors are linked: how to link them is found out under the lock of readers,
//! and only what changes in rows is written under that of writers.

mod all;
mod keyed;
mod link;
mod place;
mod search;

use std::num::NonZero;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;

use xxhash_rust::xxh3::Xxh3;

use super::collection::Collection;
use super::watch::Place;
use super::{Store, lock};
use crate::arena::NumaPolicy;
use crate::db::state::Mutation;
use crate::error::{Error, ErrorKind, Result};
use crate::index::{GraphIndex, GraphSearch, Measured};
use crate::layout::{damaged_mark, graph_file, graph_unfinished};
use crate::os::file::remove_if_there;
use crate::segment::graph_file::GraphContent;
use keyed::{Changes, KeyedGraph};
pub use link::LinkOptions;
use place::place_beside_searches;

/// A new file is written at close when more than one vector of so many has changed: fewer are
/// brought in faster than the file is written.
const WRITTEN_PARTS: u64 = 64;

/// Where the graph of a collection is, if it is open.
#[derive(Default)]
pub(super) struct GraphSlot {
    graph: RwLock<Option<KeyedGraph>>,
    /// Held by whoever changes it, so that what was planned is what is changed.
    changing: Mutex<()>,
    /// Whether it was looked for in its file.
    is_sought: AtomicBool,
    is_repairing: AtomicBool,
    /// Memory of searches that are over.
    idle: Mutex<Vec<GraphSearch>>,
    /// Whoever brings it to where hot memory lies.
    placing: Mutex<Option<JoinHandle<()>>>,
}

impl GraphSlot {
    fn read(&self) -> RwLockReadGuard<'_, Option<KeyedGraph>> {
        self.graph.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Option<KeyedGraph>> {
        self.graph.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_open(&self) -> bool {
        self.read().is_some()
    }

    /// Where its memory lies, of each copy.
    pub(super) fn addresses(&self) -> Vec<Range<usize>> {
        self.read().as_ref().map(|graph| graph.index.addresses()).unwrap_or_default()
    }

    /// A bug to be planted: what vertices know of their neighbours is wrong.
    #[cfg(test)]
    pub(super) fn spoil(&self) {
        if let Some(graph) = &mut *self.write() {
            graph.index.spoil();
        }
    }

    /// Bytes of memory that it takes, and vectors in it; none if it is not open.
    pub(super) fn measured(&self) -> Option<(usize, usize)> {
        self.read().as_ref().map(|graph| (graph.index.memory_bytes(), graph.index.len()))
    }
}

/// A graph that was read from a file.
struct Kept<'a> {
    graph: KeyedGraph,
    /// Sequence that it contains.
    since: u64,
    /// While it lives, what comes after is not trimmed.
    _held: Place<'a>,
}

impl Store {
    /// Removes the graph of a collection, whose searches then compare all vectors; says whether there
    /// was one.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such collection; what the disk refuses.
    pub fn unlink(&self, collection: &str) -> Result<bool> {
        self.require_writable()?;
        self.remove_graph(&*self.collection(collection)?)
    }

    pub(super) fn remove_graph(&self, collection: &Collection) -> Result<bool> {
        let _changing = lock(&collection.graph.changing);
        let mut slot = collection.graph.write();
        let path = self.graph_path(collection);
        let there = slot.take().is_some() || path.exists();
        collection.graph.is_sought.store(true, Ordering::Relaxed);
        remove_if_there(&path)?;
        remove_if_there(&graph_unfinished(&path))?;
        Ok(there)
    }

    /// Opens the graph of a collection if it has one that is not open.
    pub(super) fn open_graph(&self, collection: &Arc<Collection>) {
        let slot = &collection.graph;
        if slot.is_sought.load(Ordering::Acquire) {
            return;
        }
        let _changing = lock(&slot.changing);
        if slot.is_sought.load(Ordering::Acquire) {
            return;
        }
        let mut graph = slot.write();
        match self.read_graph(collection) {
            Ok(found) => *graph = found,
            Err(error) => {
                drop(graph);
                self.drop_graph(collection, &error);
            }
        }
        slot.is_sought.store(true, Ordering::Release);
        if self.placement.policy() != NumaPolicy::Off {
            place_beside_searches(collection);
        }
    }

    fn read_graph(&self, collection: &Collection) -> Result<Option<KeyedGraph>> {
        let path = self.graph_path(collection);
        let Some(mut kept) = self.read_kept(collection, &path)? else { return Ok(None) };
        self.bring_in(collection, &mut kept.graph, kept.since)?;
        Ok(Some(kept.graph))
    }

    /// Reads the graph of a collection from a file, if there is one.
    fn read_kept(&self, collection: &Collection, path: &Path) -> Result<Option<Kept<'_>>> {
        let mark = damaged_mark(path);
        if mark.exists() {
            self.require_writable()?;
            remove_if_there(path)?;
            remove_if_there(&mark)?;
        }
        let (mut index, since, keys) =
            match GraphIndex::open_with_keys(path, self.owner(collection)) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                opened => opened?,
            };
        index.place_on(&self.placement);
        let is_fit = index.dimensions() == collection.spec.dimensions as usize
            && index.options().metric == collection.spec.metric
            && (keys.is_some() || index.is_empty())
            && since <= self.commits.last_sequence();
        match self.hold_changes(since) {
            Some(held) if is_fit => {
                Ok(Some(Kept { graph: KeyedGraph::mapped(index, keys), since, _held: held }))
            }
            _ => {
                let context = format!("{} is of another time", path.display());
                Err(Error::new(ErrorKind::Invalid, context))
            }
        }
    }

    /// Brings in what was committed after this sequence.
    fn bring_in(&self, collection: &Collection, graph: &mut KeyedGraph, since: u64) -> Result<()> {
        graph.change(&self.changes_after(collection, since)?, self.threads)
    }

    fn changes_after(&self, collection: &Collection, since: u64) -> Result<Changes> {
        let keys = self.state.changed_keys(collection.spec.id, since)?;
        let mut changes = Changes::default();
        for key in keys {
            let vector = self.vector_of_record(collection, &key)?;
            changes.note(key, vector);
        }
        Ok(changes)
    }

    /// Shows committed mutations to the graph of their collection, if it is open.
    pub(super) fn graph_mutations(&self, collection: &Arc<Collection>, own: &[&Mutation<'_>]) {
        let slot = &collection.graph;
        if own.is_empty() || !slot.is_open() {
            return;
        }
        let _changing = lock(&slot.changing);
        let mut changes = Changes::default();
        for mutation in own {
            let vector = mutation.vector().map(<[f32]>::to_vec);
            changes.note(mutation.record.key().to_vec(), vector);
        }
        if let Err(error) = change_beside_searches(slot, &changes, self.threads) {
            self.drop_graph(collection, &error);
        }
        drop(_changing);
        repair_beside_searches(collection);
    }

    /// Writes graphs of which much has changed.
    pub(super) fn save_graphs(&self) {
        for collection in self.all_collections() {
            let _changing = lock(&collection.graph.changing);
            let mut slot = collection.graph.write();
            let Some(graph) = &mut *slot else { continue };
            if graph.changes_count * WRITTEN_PARTS <= graph.index.len() as u64 {
                continue;
            }
            let (path, sequence) = (self.graph_path(&collection), self.commits.last_sequence());
            if let Err(error) = self.write_graph(&collection, graph, &path, sequence) {
                tracing::warn!(collection = %collection.name, %error, "its graph is not written");
            }
        }
    }

    fn write_graph(
        &self,
        collection: &Collection,
        graph: &mut KeyedGraph,
        path: &Path,
        sequence: u64,
    ) -> Result<()> {
        let needed = (graph.index.file_bytes() + graph.keys_bytes()?) as u64;
        self.segments.require_room(needed)?;
        let content = GraphContent { owner: self.owner(collection), sequence };
        graph.save(path, content)
    }

    /// Does without a graph from now on. The records are safe.
    fn drop_graph(&self, collection: &Collection, error: &Error) {
        tracing::warn!(
            collection = %collection.name, %error,
            "its graph cannot be used and is removed; all vectors are compared"
        );
        *collection.graph.write() = None;
        if self.require_writable().is_err() {
            return;
        }
        let path = self.graph_path(collection);
        for path in [&path, &damaged_mark(&path)] {
            if let Err(error) = remove_if_there(path) {
                tracing::warn!(%error, "a useless file stays");
            }
        }
    }

    pub(super) fn graph_path(&self, collection: &Collection) -> PathBuf {
        graph_file(&self.layout.vectors(), collection.spec.id.0)
    }

    /// What a file of the collection's graph says it is of.
    fn owner(&self, collection: &Collection) -> [u8; 16] {
        let mut hasher = Xxh3::with_seed(self.hash_seed);
        hasher.update(&collection.spec.id.0.to_le_bytes());
        hasher.update(&collection.spec.created_unix_ms.to_le_bytes());
        hasher.update(&collection.spec.model.map_or([0; 16], |model| model.0));
        hasher.digest128().to_le_bytes()
    }
}

/// Changes a graph while searches go on; whoever calls holds the lock of changes.
fn change_beside_searches(
    slot: &GraphSlot,
    changes: &Changes,
    threads: NonZero<usize>,
) -> Result<()> {
    let Some(mut rest) = slot.write().as_mut().map(|graph| graph.place(changes)).transpose()?
    else {
        return Ok(());
    };
    while !rest.is_empty() {
        let plan = match &*slot.read() {
            Some(graph) => graph.plan(&mut rest, threads),
            None => return Ok(()),
        };
        if let Some(graph) = &mut *slot.write() {
            graph.index.link(&plan)?;
        }
    }
    Ok(())
}

/// Repairs links and measures anew what searches find, beside searches and commits, on a thread of its
/// own, if it is worth it.
fn repair_beside_searches(collection: &Arc<Collection>) {
    let needs_any =
        |graph: &KeyedGraph| graph.index.needs_repair() || graph.index.needs_calibration();
    if !collection.graph.read().as_ref().is_some_and(needs_any)
        || collection.graph.is_repairing.swap(true, Ordering::AcqRel)
    {
        return;
    }
    let repaired = Arc::clone(collection);
    let spawned = std::thread::Builder::new().name("op-dbus-repair".to_owned()).spawn(move || {
        repaired.graph.read().as_ref().inspect(|graph| graph.index.placement().settle_thread());
        if let Err(error) = repair(&repaired.graph) {
            tracing::warn!(collection = %repaired.name, %error, "links are not repaired");
        }
        calibrate(&repaired.graph);
        repaired.graph.is_repairing.store(false, Ordering::Release);
    });
    if let Err(error) = spawned {
        // The next commit tries again.
        tracing::warn!(%error, "cannot start a thread");
        collection.graph.is_repairing.store(false, Ordering::Release);
    }
}

fn calibrate(slot: &GraphSlot) {
    let Some((identity, questions)) = slot.read().as_ref().and_then(|graph| {
        let needs = graph.index.needs_calibration();
        needs.then(|| (graph.identity, graph.index.questions()))
    }) else {
        return;
    };
    let (mut all, mut search) = (Measured::default(), GraphSearch::default());
    for question in questions {
        // Commits come between.
        match &*slot.read() {
            Some(graph) if graph.identity == identity => {
                all.add(&graph.index.measure(question, search.scratch()));
            }
            _ => return,
        }
    }
    match &mut *slot.write() {
        Some(graph) if graph.identity == identity => graph.index.set_calibration(&all),
        _ => {}
    }
}

fn repair(slot: &GraphSlot) -> Result<()> {
    let removed = match &*slot.read() {
        Some(graph) if graph.index.needs_repair() => graph.index.removed(),
        _ => return Ok(()),
    };
    let identity = slot.read().as_ref().map(|graph| graph.identity);
    let (mut next, one) = (0, NonZero::<usize>::MIN);
    loop {
        // Commits come between.
        let _changing = lock(&slot.changing);
        let plan = match &*slot.read() {
            Some(graph) if Some(graph.identity) == identity => {
                graph.index.plan_repair(&mut next, one)
            }
            // Another has come in its place.
            _ => return Ok(()),
        };
        let mut graph = slot.write();
        let Some(graph) = &mut *graph else { return Ok(()) };
        match plan {
            Some(plan) => {
                graph.index.apply(&plan);
                graph.index.renew_copies();
            }
            None => return graph.index.end_repair(&removed),
        }
    }
}
