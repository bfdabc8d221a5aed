//! A graph and the keys of its vectors.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Result;
use crate::index::{GraphIndex, GraphPlan};
use crate::segment::graph_file::{GraphContent, MappedKeys};

/// What became of records: their vectors, or that they have none.
#[derive(Default)]
pub(super) struct Changes {
    by_key: BTreeMap<Vec<u8>, Option<Vec<f32>>>,
}

impl Changes {
    /// The last counts.
    pub(super) fn note(&mut self, key: Vec<u8>, vector: Option<Vec<f32>>) {
        self.by_key.insert(key, vector);
    }
}

pub(super) struct KeyedGraph {
    pub(super) index: GraphIndex,
    keys: Keys,
    /// Vectors that came or went since the graph was written.
    pub(super) changes_count: u64,
    /// Tells it from another that comes in its place.
    pub(super) identity: u64,
}

enum Keys {
    /// As long as nothing changes.
    Mapped(MappedKeys),
    Memory {
        /// By row; none where there is no vector.
        by_id: Vec<Option<Arc<[u8]>>>,
        ids: HashMap<Arc<[u8]>, u32>,
    },
}

impl KeyedGraph {
    pub(super) fn new(index: GraphIndex, keys: Vec<Arc<[u8]>>) -> Self {
        let ids = keys.iter().cloned().zip(0..).collect();
        let by_id = keys.into_iter().map(Some).collect();
        Self::of(index, Keys::Memory { by_id, ids })
    }

    /// Without keys there is no vector that can be found.
    pub(super) fn mapped(index: GraphIndex, keys: Option<MappedKeys>) -> Self {
        let by_id = vec![None; index.rows_count()];
        let none = Keys::Memory { by_id, ids: HashMap::new() };
        Self::of(index, keys.map_or(none, Keys::Mapped))
    }

    fn of(index: GraphIndex, keys: Keys) -> Self {
        static MADE_COUNT: AtomicU64 = AtomicU64::new(0);
        let identity = MADE_COUNT.fetch_add(1, Ordering::Relaxed);
        Self { index, keys, changes_count: 0, identity }
    }

    /// The key of a vector that can be found.
    pub(super) fn key(&self, id: u32) -> Result<&[u8]> {
        match &self.keys {
            Keys::Mapped(keys) => keys.get(id),
            Keys::Memory { by_id, .. } => {
                let key = by_id.get(id as usize).and_then(Option::as_deref);
                Ok(key.unwrap_or_default())
            }
        }
    }

    /// Brings in changes, while nobody searches.
    pub(super) fn change(&mut self, changes: &Changes, threads: NonZero<usize>) -> Result<()> {
        if changes.by_key.is_empty() {
            return Ok(());
        }
        let mut rest = self.place(changes)?;
        while !rest.is_empty() {
            let plan = self.plan(&mut rest, threads);
            self.index.link(&plan)?;
        }
        if self.index.needs_repair() {
            self.index.repair(threads)?;
        }
        self.index.calibrate_if_needed(threads);
        Ok(())
    }

    /// Removes what went, and writes what came; returns what is to be linked.
    pub(super) fn place(&mut self, changes: &Changes) -> Result<Vec<u32>> {
        if changes.by_key.is_empty() {
            return Ok(Vec::new());
        }
        let came: Vec<(&Vec<u8>, &Vec<f32>)> = changes
            .by_key
            .iter()
            .filter_map(|(key, vector)| Some((key, vector.as_ref()?)))
            .collect();
        let vectors: Vec<f32> =
            came.iter().flat_map(|(_, vector)| vector.iter().copied()).collect();
        self.index.check_new(&vectors)?;
        self.detach()?;
        let Keys::Memory { by_id, ids } = &mut self.keys else {
            unreachable!("what was detached is in memory")
        };
        for key in changes.by_key.keys() {
            if let Some(id) = ids.remove(&key[..]) {
                self.index.remove(id)?;
                by_id[id as usize] = None;
                self.changes_count += 1;
            }
        }
        let placed = self.index.place(&vectors)?;
        by_id.resize(self.index.rows_count(), None);
        for (id, (key, _)) in placed.iter().zip(came) {
            let key: Arc<[u8]> = Arc::from(&key[..]);
            by_id[*id as usize] = Some(Arc::clone(&key));
            ids.insert(key, *id);
            self.changes_count += 1;
        }
        Ok(self.index.waiting(&placed))
    }

    /// Finds out how to link some of these.
    pub(super) fn plan(&self, rest: &mut Vec<u32>, threads: NonZero<usize>) -> GraphPlan {
        let batch: Vec<u32> = rest.drain(..rest.len().min(self.index.batch_len())).collect();
        // To start a thread takes as long as to link some vectors.
        let worth = NonZero::new(batch.len() / VECTORS_A_THREAD).unwrap_or(NonZero::<usize>::MIN);
        self.index.plan(&batch, threads.min(worth))
    }

    /// Brings everything into memory, so that it can be changed.
    pub(super) fn detach(&mut self) -> Result<()> {
        self.index.detach()?;
        let Keys::Mapped(mapped) = &self.keys else { return Ok(()) };
        let (mut by_id, mut ids) = (Vec::new(), HashMap::new());
        for id in 0..self.index.rows_count() as u32 {
            let key: Option<Arc<[u8]>> = match self.index.has_vector(id) {
                true => Some(Arc::from(mapped.get(id)?)),
                false => None,
            };
            ids.extend(key.clone().map(|key| (key, id)));
            by_id.push(key);
        }
        self.keys = Keys::Memory { by_id, ids };
        Ok(())
    }

    pub(super) fn keys_bytes(&self) -> Result<usize> {
        let ids = 0..self.index.rows_count() as u32;
        ids.map(|id| Ok(self.key(id)?.len() + size_of::<u64>())).sum()
    }

    /// Writes the file of the graph as it is.
    pub(super) fn save(&mut self, path: &Path, content: GraphContent) -> Result<()> {
        // Read before the file that they may lie in is replaced.
        let ids = 0..self.index.rows_count() as u32;
        let keys = ids.map(|id| self.key(id).map(Cow::Borrowed)).collect::<Result<Vec<_>>>()?;
        let key = |id: u32| keys[id as usize].to_vec();
        self.index.save_with_keys(path, content, Some(&key))?;
        self.changes_count = 0;
        Ok(())
    }
}

/// Vectors to link that are worth a thread.
const VECTORS_A_THREAD: usize = 8;
