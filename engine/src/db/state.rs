//! The authority: everything the store must not lose.
//!
//! | family | key | value |
//! |---|---|---|
//! | `meta` | name | the last sequence as u64 big-endian, under `sequence` |
//! | `collections` | collection name | [`CollectionSpec`] |
//! | `records` | collection id (u32 big-endian), record key | encoded record |
//! | `vectors` | the same | encoded embedding that a caller gave |
//! | `changes` | sequence (u64 big-endian) | encoded change |
//!
//! Integers in keys are big-endian, so that RocksDB's byte order is their order.

use std::path::Path;

use op_dbus_formats::change::{Change, Operation};
use op_dbus_formats::collection::{CollectionId, CollectionName, CollectionSpec};
use rocksdb::DBCompressionType::{Lz4, None as Uncompressed};

use super::{Creation, Database, Family, Pinned, PrefixIterator, Sync};
use crate::error::{Error, ErrorKind, Result};

const META: Family = Family { name: "meta", compression: Lz4 };
const COLLECTIONS: Family = Family { name: "collections", compression: Lz4 };
const RECORDS: Family = Family { name: "records", compression: Lz4 };
/// Embeddings look random to a compressor: LZ4 would only cost time.
const VECTORS: Family = Family { name: "vectors", compression: Uncompressed };
const CHANGES: Family = Family { name: "changes", compression: Lz4 };
/// RocksDB insists on this one; it stays empty.
const DEFAULT: Family = Family { name: "default", compression: Lz4 };
const FAMILIES: [Family; 6] = [DEFAULT, META, COLLECTIONS, RECORDS, VECTORS, CHANGES];

const SEQUENCE_KEY: &[u8] = b"sequence";

/// The database in `@state`.
pub(crate) struct StateDatabase {
    db: Database,
}

/// One record to write or to remove, encoded.
pub(crate) struct Mutation {
    pub(crate) collection: CollectionId,
    pub(crate) key: Vec<u8>,
    pub(crate) action: Action,
}

/// What a [`Mutation`] does to its key.
pub(crate) enum Action {
    /// Writes the record and, if the caller gave one, its vector.
    Put { record: Vec<u8>, given_vector: Option<Vec<u8>>, indexed: Option<Vec<f32>> },
    /// Removes the record and its vector.
    Remove,
}

impl Mutation {
    /// Bytes this adds to a write batch, keys of the other families included.
    pub(crate) fn batch_bytes(&self) -> usize {
        let key_bytes = self.key.len() + size_of::<CollectionId>();
        let value_bytes = match &self.action {
            Action::Put { record, given_vector, .. } => {
                record.len() + given_vector.as_ref().map_or(0, Vec::len)
            }
            Action::Remove => 0,
        };
        3 * key_bytes + value_bytes
    }
}

impl StateDatabase {
    pub(crate) fn open(path: &Path, creation: Creation) -> Result<Self> {
        Ok(Self { db: Database::open(path, &FAMILIES, creation)? })
    }

    /// The sequence of the last committed mutation; 0 in a new store.
    pub(crate) fn last_sequence(&self) -> Result<u64> {
        let stored = match self.db.get(META, SEQUENCE_KEY)? {
            None => 0,
            Some(bytes) => u64::from_be_bytes(
                bytes.as_ref().try_into().map_err(|_| self.corrupt("the last sequence"))?,
            ),
        };
        // Written in the same batch as the change, so a difference means a damaged database.
        let newest = match self.db.last_key(CHANGES)? {
            None => stored,
            Some(key) => {
                u64::from_be_bytes(key.try_into().map_err(|_| self.corrupt("the newest change"))?)
            }
        };
        if newest == stored { Ok(stored) } else { Err(self.corrupt("the last sequence")) }
    }

    /// Commits mutations as one batch, numbered from `first_sequence`, durable on return.
    pub(crate) fn commit(&self, mutations: &[Mutation], first_sequence: u64) -> Result<()> {
        let mut batch = self.db.batch();
        for (sequence, mutation) in (first_sequence..).zip(mutations) {
            let key = record_key(mutation.collection, &mutation.key);
            let operation = match &mutation.action {
                Action::Put { record, given_vector, .. } => {
                    batch.put(RECORDS, &key, record);
                    match given_vector {
                        Some(vector) => batch.put(VECTORS, &key, vector),
                        None => batch.remove(VECTORS, &key),
                    }
                    Operation::Put
                }
                Action::Remove => {
                    batch.remove(RECORDS, &key);
                    batch.remove(VECTORS, &key);
                    Operation::Remove
                }
            };
            let change = Change { operation, collection: mutation.collection, key: &mutation.key };
            let change = change.encode().map_err(|error| {
                Error::new(ErrorKind::Invalid, "cannot encode a change").with_source(error)
            })?;
            batch.put(CHANGES, &sequence.to_be_bytes(), &change);
            batch.put(META, SEQUENCE_KEY, &sequence.to_be_bytes());
        }
        self.db.write(batch, Sync::Yes)
    }

    pub(crate) fn put_collection(
        &self,
        name: &CollectionName,
        spec: &CollectionSpec,
    ) -> Result<()> {
        let mut batch = self.db.batch();
        let spec = spec.encode().map_err(|error| {
            Error::new(ErrorKind::Invalid, format!("collection {name} cannot be created"))
                .with_source(error)
        })?;
        batch.put(COLLECTIONS, name.as_str().as_bytes(), &spec);
        self.db.write(batch, Sync::Yes)
    }

    pub(crate) fn collections(&self) -> Result<Vec<(CollectionName, CollectionSpec)>> {
        let mut iterator = self.db.iterate(COLLECTIONS, b"");
        let mut collections = Vec::new();
        while let Some(entry) = iterator.next_with(|name, spec| self.collection(name, spec))? {
            collections.push(entry?);
        }
        Ok(collections)
    }

    fn collection(&self, name: &[u8], spec: &[u8]) -> Result<(CollectionName, CollectionSpec)> {
        let name = std::str::from_utf8(name)
            .ok()
            .and_then(|name| name.parse::<CollectionName>().ok())
            .ok_or_else(|| self.corrupt("the name of a collection"))?;
        let spec = CollectionSpec::decode(spec)
            .map_err(|error| self.corrupt(&format!("collection {name}")).with_source(error))?;
        Ok((name, spec))
    }

    pub(crate) fn record(&self, id: CollectionId, key: &[u8]) -> Result<Option<Pinned<'_>>> {
        self.db.get(RECORDS, &record_key(id, key))
    }

    pub(crate) fn vector(&self, id: CollectionId, key: &[u8]) -> Result<Option<Pinned<'_>>> {
        self.db.get(VECTORS, &record_key(id, key))
    }

    /// Walks the records of a collection whose keys start with `prefix`.
    pub(crate) fn records(&self, id: CollectionId, prefix: &[u8]) -> Records<'_> {
        Records(self.db.iterate(RECORDS, &record_key(id, prefix)))
    }

    pub(crate) fn path(&self) -> &Path {
        self.db.path()
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        self.db.memory_bytes(&FAMILIES)
    }

    fn corrupt(&self, what: &str) -> Error {
        Error::new(ErrorKind::Corrupt, format!("{what} is damaged in {}", self.path().display()))
            .with_remedy("restore the store from a snapshot or an export")
    }
}

/// Values of one collection in key order, without the collection's prefix.
pub(crate) struct Records<'a>(PrefixIterator<'a>);

impl Records<'_> {
    pub(crate) fn next_with<T>(
        &mut self,
        read: impl FnOnce(&[u8], &[u8]) -> T,
    ) -> Result<Option<T>> {
        self.0.next_with(|key, value| read(&key[size_of::<CollectionId>()..], value))
    }
}

fn record_key(CollectionId(id): CollectionId, key: &[u8]) -> Vec<u8> {
    [&id.to_be_bytes()[..], key].concat()
}
