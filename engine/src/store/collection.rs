//! Collections: which embedding space a record's vector belongs to, and who may add to it.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use op_dbus_formats::collection::{
    COLLECTION_SPEC_LEN_BYTES, CollectionId, CollectionName, CollectionNameError, CollectionSpec,
    Metric, ModelFingerprint,
};
use op_dbus_formats::embedding::Encoding;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Store;
use super::audit::RecallStats;
use super::graph::GraphSlot;
#[cfg(feature = "keyword")]
use super::keyword::KeywordSlot;
use super::passed::PassedFilters;
use crate::arena::Placement;
use crate::embed::Embedder;
use crate::error::{Error, ErrorKind, Result};
use crate::index::ExactIndex;
use crate::os::clock::unix_ms;

/// The collection of state documents.
pub const STATE_COLLECTION: &str = "state";

/// How many versions of each record [`STATE_COLLECTION`] keeps unless told.
pub const STATE_VERSIONS_KEPT: u16 = 10;

/// A collection of an opened store.
pub(super) struct Collection {
    pub(super) name: CollectionName,
    pub(super) spec: CollectionSpec,
    /// Makes the tier's keys of this collection unlike those of any other.
    pub(super) tier_seed: u64,
    /// The collection's vectors; `None` until the first search.
    index: RwLock<Option<ExactIndex>>,
    /// Held while they are brought into memory, so that two searches do not do it twice.
    pub(super) loading: Mutex<()>,
    /// Finds the nearest of them faster, if there is one.
    pub(super) graph: GraphSlot,
    /// Which of its records pass filters that were asked.
    pub(super) passed: PassedFilters,
    /// Finds words in keys and texts.
    #[cfg(feature = "keyword")]
    pub(super) keywords: KeywordSlot,
    /// Whether it has this embedding space still; held by those who write vectors.
    pub(super) is_current: RwLock<bool>,
    /// How well the graph finds what it should.
    pub(super) recall: Mutex<RecallStats>,
}

/// The embedding space of a new collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CollectionOptions {
    /// Vectors come from the store's model: cosine similarity, the model's dimensions.
    OfModel,
    /// Vectors are given by callers.
    Given {
        /// Elements of every vector.
        dimensions: u32,
        /// How nearness is measured.
        metric: Metric,
        /// How vectors are stored, and so what is left of them: reads and searches see what came
        /// back from storage, whether it is hot or cold.
        encoding: Encoding,
    },
    /// There is none yet: the first record with a vector or a text decides it.
    Documents,
}

/// What a collection is.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectionInfo {
    /// Its name.
    pub name: String,
    /// Elements of every vector; 0 while it has no embedding space.
    pub dimensions: u32,
    /// How nearness is measured, once it has one.
    pub metric: Metric,
    /// How vectors given by callers are stored; embeddings of texts keep every bit.
    pub encoding: Encoding,
    /// The model that its texts are embedded by; `None` if callers give the vectors.
    pub model: Option<ModelFingerprint>,
    /// When it was created, in milliseconds since 1970-01-01 UTC.
    pub created_unix_ms: u64,
    /// How many versions of each record are kept; 0 for no history.
    pub versions_kept: u16,
}

impl Collection {
    /// `hash_seed` is the store's own, so that nobody can prepare keys that collide.
    pub(super) fn new(name: CollectionName, spec: CollectionSpec, hash_seed: u64) -> Self {
        // Vectors by another model are others.
        let model = spec.model.map_or([0; 16], |model| model.0);
        let space = [&spec.id.0.to_le_bytes()[..], &model].concat();
        let tier_seed = xxh3_64_with_seed(&space, hash_seed);
        let (index, loading) = (RwLock::new(None), Mutex::new(()));
        let (graph, is_current) = (GraphSlot::default(), RwLock::new(true));
        Self {
            name,
            spec,
            tier_seed,
            index,
            loading,
            graph,
            passed: PassedFilters::default(),
            #[cfg(feature = "keyword")]
            keywords: KeywordSlot::default(),
            is_current,
            recall: Mutex::default(),
        }
    }

    /// Keeps the embedding space as it is while vectors are written.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] if the collection was embedded anew or dropped since it was looked up.
    pub(super) fn hold_space(&self) -> Result<RwLockReadGuard<'_, bool>> {
        let is_current = self.is_current.read().unwrap_or_else(PoisonError::into_inner);
        if *is_current {
            return Ok(is_current);
        }
        let context = format!("collection {} was embedded anew or dropped meanwhile", self.name);
        Err(Error::new(ErrorKind::Busy, context).with_remedy("write the records again"))
    }

    pub(super) fn index(&self) -> RwLockReadGuard<'_, Option<ExactIndex>> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn index_mut(&self) -> RwLockWriteGuard<'_, Option<ExactIndex>> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether searches find its vectors in memory, and must hear of changes.
    pub(super) fn is_in_memory(&self) -> bool {
        self.index().is_some() || self.graph.is_open()
    }

    /// Makes an index for the vectors of this collection, without any.
    pub(super) fn new_index(&self, placement: &Arc<Placement>) -> Result<ExactIndex> {
        let dimensions = NonZeroUsize::new(self.spec.dimensions as usize).ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, format!("collection {} has no dimensions", self.name))
        })?;
        Ok(ExactIndex::new(dimensions, self.spec.metric, Arc::clone(placement)))
    }

    pub(super) fn info(&self) -> CollectionInfo {
        CollectionInfo {
            name: self.name.to_string(),
            dimensions: self.spec.dimensions,
            metric: self.spec.metric,
            encoding: self.spec.encoding,
            model: self.spec.model,
            created_unix_ms: self.spec.created_unix_ms,
            versions_kept: self.spec.versions_kept,
        }
    }

    /// Refuses a collection that exists and stores vectors otherwise than planned.
    fn check_encoding(&self, planned: &CollectionSpec) -> Result<()> {
        let (found, asked) = (self.spec.encoding, planned.encoding);
        if found == asked || !planned.has_space() {
            return Ok(());
        }
        let (name, found, asked) = (&self.name, found.name(), asked.name());
        let problem =
            format!("collection {name} exists and stores vectors as {found}, not {asked}");
        Err(Error::new(ErrorKind::Invalid, problem)
            .with_remedy(format!("use another name, or ask for {found}")))
    }

    /// Refuses a search where no record has a vector.
    fn check_space(&self) -> Result<()> {
        if self.spec.has_space() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Invalid,
            format!("collection {} holds documents without texts or vectors", self.name),
        )
        .with_remedy("get its records by key, or search another collection"))
    }

    /// Refuses a vector of another length.
    pub(super) fn check_dimensions(
        &self,
        what: impl FnOnce() -> String,
        found: usize,
    ) -> Result<()> {
        self.check_space()?;
        if found == self.spec.dimensions as usize {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Invalid,
            format!(
                "{} has {found} elements; collection {} has {} dimensions",
                what(),
                self.name,
                self.spec.dimensions
            ),
        )
        .with_remedy("use vectors of the collection's own model, or another collection"))
    }

    /// Refuses a model that did not make this collection's embedding space.
    pub(super) fn check_model(&self, embedder: &Embedder) -> Result<()> {
        self.check_space()?;
        let name = &self.name;
        match self.spec.model {
            Some(model) if model == embedder.fingerprint() => Ok(()),
            Some(model) => Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "collection {name} was embedded by model {model}; the model {} is {}",
                    embedder.name(),
                    embedder.fingerprint()
                ),
            )
            .with_remedy(format!(
                "use the model it was made with, or embed it anew: op-dbus collection reembed {name}"
            ))),
            None => Err(Error::new(
                ErrorKind::Invalid,
                format!("collection {name} holds vectors given by callers, of no known model"),
            )
            .with_remedy("give a vector instead of a text, or use another collection")),
        }
    }
}

impl Store {
    /// Creates a collection; one that exists with the same embedding space is left as it is.
    ///
    /// [`STATE_COLLECTION`] keeps [`STATE_VERSIONS_KEPT`] versions of its records, others none. A
    /// collection that has no embedding space yet gets the one asked for.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the name breaks the rule for names or is taken by a collection of
    /// another embedding space or encoding; those of a failed write.
    pub fn create_collection(&self, name: &str, options: CollectionOptions) -> Result<()> {
        let planned = self.plan_collection(name, options, None)?;
        self.admit_put(COLLECTION_SPEC_LEN_BYTES as u64)?;
        self.collection_or_create(name, &planned.spec)?.check_encoding(&planned.spec)
    }

    /// Creates a collection that keeps the last `versions_kept` versions of each record.
    ///
    /// # Errors
    /// As [`Store::create_collection`]; [`ErrorKind::Invalid`] also if the collection exists and
    /// keeps another number of versions.
    pub fn create_collection_with_versions(
        &self,
        name: &str,
        options: CollectionOptions,
        versions_kept: u16,
    ) -> Result<()> {
        let planned = self.plan_collection(name, options, Some(versions_kept))?;
        let created = self.collection_or_create(name, &planned.spec)?;
        created.check_encoding(&planned.spec)?;
        let found = created.spec.versions_kept;
        if found == versions_kept {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Invalid,
            format!("collection {name} exists and keeps {found} versions, not {versions_kept}"),
        )
        .with_remedy("use another name"))
    }

    /// Lists the collections by name.
    #[must_use]
    pub fn collections(&self) -> Vec<CollectionInfo> {
        self.all_collections().iter().map(|collection| collection.info()).collect()
    }

    pub(super) fn all_collections(&self) -> Vec<Arc<Collection>> {
        let collections = self.collections.read().unwrap_or_else(PoisonError::into_inner);
        collections.values().cloned().collect()
    }

    pub(super) fn find_collection(&self, name: &str) -> Option<Arc<Collection>> {
        let collections = self.collections.read().unwrap_or_else(PoisonError::into_inner);
        collections.get(name).cloned()
    }

    pub(super) fn collection(&self, name: &str) -> Result<Arc<Collection>> {
        self.find_collection(name).ok_or_else(|| {
            let names: Vec<_> =
                self.all_collections().iter().map(|known| known.name.to_string()).collect();
            let remedy = if names.is_empty() {
                "the store is empty: put something into it first".to_owned()
            } else {
                format!("there are: {}", names.join(", "))
            };
            Error::new(ErrorKind::NotFound, format!("there is no collection {name}"))
                .with_remedy(remedy)
        })
    }

    /// A collection as it would be, without its id.
    pub(super) fn plan_collection(
        &self,
        name: &str,
        options: CollectionOptions,
        versions_kept: Option<u16>,
    ) -> Result<Collection> {
        let name = parse_name(name)?;
        let (dimensions, metric, encoding, model) = match options {
            CollectionOptions::OfModel => {
                let embedder = self.embedder()?;
                let (dimensions, model) = (embedder.dimensions()?, embedder.fingerprint());
                (dimensions, Metric::Cosine, Encoding::F32, Some(model))
            }
            CollectionOptions::Given { dimensions: 0, .. } => return Err(no_dimensions(&name)),
            CollectionOptions::Given { dimensions, metric, encoding } => {
                (dimensions, metric, encoding, None)
            }
            CollectionOptions::Documents => (0, Metric::Cosine, Encoding::F32, None),
        };
        let versions_kept = versions_kept.unwrap_or(match name.as_str() {
            STATE_COLLECTION => STATE_VERSIONS_KEPT,
            _ => 0,
        });
        let spec = CollectionSpec {
            id: CollectionId(0),
            dimensions,
            metric,
            encoding,
            model,
            created_unix_ms: unix_ms(),
            versions_kept,
        };
        // A space that cannot be kept is refused before anything is embedded for it.
        encode(name.as_str(), &spec)?;
        Ok(Collection::new(name, spec, self.hash_seed))
    }

    /// Finds a collection of the same embedding space, or creates it durably. One that has no space
    /// gets it.
    pub(super) fn collection_or_create(
        &self,
        name: &str,
        planned: &CollectionSpec,
    ) -> Result<Arc<Collection>> {
        let mut collections = self.collections.write().unwrap_or_else(PoisonError::into_inner);
        let known = collections.get(name);
        let spec = match known {
            Some(known) => {
                let space = |spec: &CollectionSpec| (spec.dimensions, spec.metric, spec.model);
                if !planned.has_space() || space(&known.spec) == space(planned) {
                    return Ok(Arc::clone(known));
                }
                if known.spec.has_space() {
                    return Err(Error::new(
                        ErrorKind::Invalid,
                        format!("collection {name} exists with another embedding space"),
                    )
                    .with_remedy("use another name"));
                }
                let CollectionSpec { id, created_unix_ms, versions_kept, .. } = known.spec;
                CollectionSpec { id, created_unix_ms, versions_kept, ..*planned }
            }
            None => {
                let ids = collections.values().map(|known| known.spec.id.0 + 1);
                let first_free = self.state.first_free_id()?;
                CollectionSpec { id: CollectionId(ids.fold(first_free, u32::max)), ..*planned }
            }
        };
        let valid_name = parse_name(name)?;
        let encoded = encode(name, &spec)?;
        self.commits.write_besides(|| self.state.put_collection(&valid_name, &encoded))?;
        let collection = Arc::new(Collection::new(valid_name, spec, self.hash_seed));
        collections.insert(name.to_owned(), Arc::clone(&collection));
        Ok(collection)
    }
}

fn parse_name(name: &str) -> Result<CollectionName> {
    name.parse().map_err(|error: CollectionNameError| {
        Error::new(ErrorKind::Invalid, error.to_string()).with_remedy("use another name")
    })
}

fn no_dimensions(name: &CollectionName) -> Error {
    Error::new(ErrorKind::Invalid, format!("collection {name} cannot have vectors of 0 elements"))
        .with_remedy("give vectors of at least one element, or create it for documents")
}

pub(super) fn encode(name: &str, spec: &CollectionSpec) -> Result<[u8; COLLECTION_SPEC_LEN_BYTES]> {
    spec.encode().map_err(|error| {
        Error::new(ErrorKind::Invalid, format!("collection {name} cannot be created"))
            .with_source(error)
            .with_remedy("give vectors of 1 to 65,536 elements")
    })
}
