//! What a commit writes: records, encoded, and what they lie under.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use op_dbus_formats::FormatError;
use op_dbus_formats::change::{Change, Operation};
use op_dbus_formats::collection::CollectionId;
use op_dbus_formats::embedding::{self, Encoding, Packing};

/// What a batch takes for an entry beside its key and value, and what little values take.
const ENTRY_BYTES: usize = 32;

/// One record to write or to remove.
pub(crate) struct Mutation<'v> {
    pub(crate) record: RecordKey,
    pub(crate) action: Action<'v>,
    /// How many versions the collection keeps of a record.
    pub(crate) versions_kept: u16,
}

/// Divides mutations into runs of the same collection, which most groups are one of.
pub(crate) fn of_each_collection<'m, 'v>(
    mutations: &'m [Mutation<'v>],
) -> impl Iterator<Item = &'m [Mutation<'v>]> {
    mutations.chunk_by(|a, b| a.record.collection() == b.record.collection())
}

/// What records lie under: their collection's id and their own key, in one piece.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RecordKey(Vec<u8>);

impl RecordKey {
    pub(crate) fn new(collection: CollectionId, key: &[u8]) -> Self {
        Self(Self::prefix(collection, key))
    }

    /// A key as it lies in the database.
    pub(crate) fn of_stored(key: Vec<u8>) -> Self {
        Self(key)
    }

    /// What the keys of those records begin with whose own keys begin with `prefix`.
    pub(crate) fn prefix(CollectionId(id): CollectionId, prefix: &[u8]) -> Vec<u8> {
        let mut key = Vec::with_capacity(size_of::<CollectionId>() + prefix.len());
        key.extend_from_slice(&id.to_be_bytes());
        key.extend_from_slice(prefix);
        key
    }

    pub(crate) fn collection(&self) -> CollectionId {
        let id = self.0.first_chunk().expect("every key begins with the id");
        CollectionId(u32::from_be_bytes(*id))
    }

    /// The key within the collection.
    pub(crate) fn key(&self) -> &[u8] {
        &self.0[size_of::<CollectionId>()..]
    }
}

impl AsRef<[u8]> for RecordKey {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// What a [`Mutation`] does to its key.
pub(crate) enum Action<'v> {
    /// Writes the record, encoded, and, if the caller gave one, its vector.
    Put {
        record: Vec<u8>,
        vector: Option<PutVector<'v>>,
        /// As in the record.
        expires_at_unix_ms: Option<u64>,
    },
    /// Removes the record and its vector.
    Remove,
    /// The same, if when it is committed the record still expires at this time.
    Expire { expires_at_unix_ms: u64, removed_count: Arc<AtomicU64> },
}

/// The vector of a record that is put.
pub(crate) enum PutVector<'v> {
    /// Given, finite, and written with every bit. It is encoded when the batch is made, a vector at
    /// a time: to encode all of them before costs a tenth of what a put takes.
    Exact(Cow<'v, [f32]>),
    /// Given, and written in an encoding that rounds: readers see what reading it back gives.
    Rounded { encoded: Vec<u8>, decoded: Vec<f32> },
    /// Made of the record's text: the cache of texts has it, and nothing is written.
    Made(Vec<f32>),
}

impl PutVector<'_> {
    pub(crate) fn is_given(&self) -> bool {
        match self {
            Self::Exact(_) | Self::Rounded { .. } => true,
            Self::Made(_) => false,
        }
    }

    /// What readers see of it.
    pub(crate) fn floats(&self) -> &[f32] {
        match self {
            Self::Exact(vector) => vector,
            Self::Rounded { decoded, .. } => decoded,
            Self::Made(vector) => vector,
        }
    }

    /// What is written of it, which may lie in `buffer`; `None` if nothing is.
    pub(super) fn encoded<'b>(
        &'b self,
        buffer: &'b mut Vec<u8>,
    ) -> Result<Option<&'b [u8]>, FormatError> {
        match self {
            Self::Exact(vector) => {
                embedding::encode_finite_to(vector, Encoding::F32, Packing::Plain, buffer)?;
                Ok(Some(buffer))
            }
            Self::Rounded { encoded, .. } => Ok(Some(encoded)),
            Self::Made(_) => Ok(None),
        }
    }

    fn encoded_len_bytes(&self) -> usize {
        match self {
            Self::Exact(vector) => embedding::plain_len_bytes(vector.len(), Encoding::F32),
            Self::Rounded { encoded, .. } => encoded.len(),
            Self::Made(_) => 0,
        }
    }

    fn into_owned(self) -> PutVector<'static> {
        match self {
            Self::Exact(vector) => PutVector::Exact(Cow::Owned(vector.into_owned())),
            Self::Rounded { encoded, decoded } => PutVector::Rounded { encoded, decoded },
            Self::Made(vector) => PutVector::Made(vector),
        }
    }
}

impl Mutation<'_> {
    /// What searches see of the record; `None` if it has no vector.
    pub(crate) fn vector(&self) -> Option<&[f32]> {
        let Action::Put { vector, .. } = &self.action else { return None };
        vector.as_ref().map(PutVector::floats)
    }

    /// For others than its caller to commit, at a time that the caller does not know.
    pub(crate) fn into_owned(self) -> Mutation<'static> {
        let Self { record, action, versions_kept } = self;
        let action = match action {
            Action::Put { record, vector, expires_at_unix_ms } => {
                let vector = vector.map(PutVector::into_owned);
                Action::Put { record, vector, expires_at_unix_ms }
            }
            Action::Remove => Action::Remove,
            Action::Expire { expires_at_unix_ms, removed_count } => {
                Action::Expire { expires_at_unix_ms, removed_count }
            }
        };
        Mutation { record, action, versions_kept }
    }

    /// What the log of changes says of it.
    pub(crate) fn change(&self) -> Change<'_> {
        let operation = match self.action {
            Action::Put { .. } => Operation::Put,
            Action::Remove | Action::Expire { .. } => Operation::Remove,
        };
        Change { operation, collection: self.record.collection(), key: self.record.key() }
    }

    /// Bytes this adds to a write batch, keys of the other families included.
    pub(crate) fn batch_bytes(&self) -> usize {
        let key_bytes = self.record.as_ref().len();
        let value_bytes = match &self.action {
            Action::Put { record, vector, .. } => {
                record.len() + vector.as_ref().map_or(0, PutVector::encoded_len_bytes)
            }
            Action::Remove | Action::Expire { .. } => 0,
        };
        let copies_count = if self.versions_kept > 0 { 2 } else { 1 };
        5 * (key_bytes + ENTRY_BYTES) + copies_count * value_bytes
    }
}
