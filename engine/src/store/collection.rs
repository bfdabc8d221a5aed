//! Collections: which embedding space a record's vector belongs to, and who may add to it.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use op_dbus_formats::collection::{
    COLLECTION_SPEC_LEN_BYTES, CollectionId, CollectionName, CollectionNameError, CollectionSpec,
    Metric, ModelFingerprint,
};
use op_dbus_formats::embedding::Encoding;

use super::Store;
use super::open::unix_ms;
use crate::embed::Embedder;
use crate::error::{Error, ErrorKind, Result};
use crate::index::ExactIndex;

/// A collection of an opened store.
pub(super) struct Collection {
    pub(super) name: CollectionName,
    pub(super) spec: CollectionSpec,
    /// The collection's vectors; `None` until the first search.
    index: RwLock<Option<ExactIndex>>,
    /// Held while they are brought into memory, so that two searches do not do it twice.
    pub(super) loading: Mutex<()>,
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
    },
}

/// What a collection is.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectionInfo {
    /// Its name.
    pub name: String,
    /// Elements of every vector.
    pub dimensions: u32,
    /// How nearness is measured.
    pub metric: Metric,
    /// The model that its texts are embedded by; `None` if callers give the vectors.
    pub model: Option<ModelFingerprint>,
    /// When it was created, in milliseconds since 1970-01-01 UTC.
    pub created_unix_ms: u64,
}

impl Collection {
    pub(super) fn new(name: CollectionName, spec: CollectionSpec) -> Self {
        Self { name, spec, index: RwLock::new(None), loading: Mutex::new(()) }
    }

    pub(super) fn index(&self) -> RwLockReadGuard<'_, Option<ExactIndex>> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn index_mut(&self) -> RwLockWriteGuard<'_, Option<ExactIndex>> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes an index for the vectors of this collection, without any.
    pub(super) fn new_index(&self) -> Result<ExactIndex> {
        let dimensions = NonZeroUsize::new(self.spec.dimensions as usize).ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, format!("collection {} has no dimensions", self.name))
        })?;
        Ok(ExactIndex::new(dimensions, self.spec.metric))
    }

    pub(super) fn info(&self) -> CollectionInfo {
        CollectionInfo {
            name: self.name.to_string(),
            dimensions: self.spec.dimensions,
            metric: self.spec.metric,
            model: self.spec.model,
            created_unix_ms: self.spec.created_unix_ms,
        }
    }

    /// Refuses a vector of another length.
    pub(super) fn check_dimensions(&self, what: &str, found: usize) -> Result<()> {
        if found == self.spec.dimensions as usize {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Invalid,
            format!(
                "{what} has {found} elements; collection {} has {} dimensions",
                self.name, self.spec.dimensions
            ),
        )
        .with_remedy("use vectors of the collection's own model, or another collection"))
    }

    /// Refuses a model that did not make this collection's embedding space.
    pub(super) fn check_model(&self, embedder: &Embedder) -> Result<()> {
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
            .with_remedy("use the model it was made with, or index into another collection")),
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
    /// # Errors
    /// [`ErrorKind::Invalid`] if the name breaks the rule for names or is taken by a collection of
    /// another embedding space; those of a failed write.
    pub fn create_collection(&self, name: &str, options: CollectionOptions) -> Result<()> {
        let planned = self.plan_collection(name, options)?;
        self.admit_put(COLLECTION_SPEC_LEN_BYTES as u64)?;
        self.collection_or_create(name, &planned.spec).map(drop)
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
    ) -> Result<Collection> {
        let name = parse_name(name)?;
        let (dimensions, metric, model) = match options {
            CollectionOptions::OfModel => {
                let embedder = self.embedder()?;
                (embedder.dimensions()?, Metric::Cosine, Some(embedder.fingerprint()))
            }
            CollectionOptions::Given { dimensions, metric } => (dimensions, metric, None),
        };
        let spec = CollectionSpec {
            id: CollectionId(0),
            dimensions,
            metric,
            encoding: Encoding::F32,
            model,
            created_unix_ms: unix_ms(),
        };
        // A space that cannot be kept is refused before anything is embedded for it.
        encode(name.as_str(), &spec)?;
        Ok(Collection::new(name, spec))
    }

    /// Finds a collection of the same embedding space, or creates it durably.
    pub(super) fn collection_or_create(
        &self,
        name: &str,
        planned: &CollectionSpec,
    ) -> Result<Arc<Collection>> {
        let mut collections = self.collections.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = collections.get(name) {
            let space = |spec: &CollectionSpec| (spec.dimensions, spec.metric, spec.model);
            if space(&known.spec) == space(planned) {
                return Ok(Arc::clone(known));
            }
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("collection {name} exists with another embedding space"),
            )
            .with_remedy("use another name"));
        }
        let valid_name = parse_name(name)?;
        let id = collections.values().map(|known| known.spec.id.0 + 1).max().unwrap_or(1);
        let spec = CollectionSpec { id: CollectionId(id), ..*planned };
        let encoded = encode(name, &spec)?;
        self.commits.write_besides(|| self.state.put_collection(&valid_name, &encoded))?;
        let collection = Arc::new(Collection::new(valid_name, spec));
        collections.insert(name.to_owned(), Arc::clone(&collection));
        Ok(collection)
    }
}

fn parse_name(name: &str) -> Result<CollectionName> {
    name.parse().map_err(|error: CollectionNameError| {
        Error::new(ErrorKind::Invalid, error.to_string()).with_remedy("use another name")
    })
}

fn encode(name: &str, spec: &CollectionSpec) -> Result<[u8; COLLECTION_SPEC_LEN_BYTES]> {
    spec.encode().map_err(|error| {
        Error::new(ErrorKind::Invalid, format!("collection {name} cannot be created"))
            .with_source(error)
            .with_remedy("give vectors of at least one element")
    })
}
