//! What a commit writes: records, encoded, and what they lie under.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use op_dbus_formats::change::{Change, Operation};
use op_dbus_formats::collection::CollectionId;
use op_dbus_formats::embedding::floats_of;

/// What a batch takes for an entry beside its key and value, and what little values take.
const ENTRY_BYTES: usize = 32;

/// One record to write or to remove, encoded.
pub(crate) struct Mutation {
    pub(crate) record: RecordKey,
    pub(crate) action: Action,
    /// How many versions the collection keeps of a record.
    pub(crate) versions_kept: u16,
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
        [&id.to_be_bytes()[..], prefix].concat()
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
pub(crate) enum Action {
    /// Writes the record and, if the caller gave one, its vector.
    Put {
        record: Vec<u8>,
        given_vector: Option<Vec<u8>>,
        /// What searches see, where it is not what was given as it is.
        decoded: Option<Vec<f32>>,
        /// As in the record.
        expires_at_unix_ms: Option<u64>,
    },
    /// Removes the record and its vector.
    Remove,
    /// The same, if when it is committed the record still expires at this time.
    Expire { expires_at_unix_ms: u64, removed_count: Arc<AtomicU64> },
}

impl Mutation {
    /// What searches see of the record; `None` if it has no vector.
    pub(crate) fn vector(&self) -> Option<&[f32]> {
        let Action::Put { given_vector, decoded, .. } = &self.action else { return None };
        decoded.as_deref().or_else(|| floats_of(given_vector.as_deref()?))
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
            Action::Put { record, given_vector, .. } => {
                record.len() + given_vector.as_ref().map_or(0, Vec::len)
            }
            Action::Remove | Action::Expire { .. } => 0,
        };
        let copies_count = if self.versions_kept > 0 { 2 } else { 1 };
        5 * (key_bytes + ENTRY_BYTES) + copies_count * value_bytes
    }
}
