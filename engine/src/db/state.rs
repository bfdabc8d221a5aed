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

use std::collections::BTreeSet;
use std::path::Path;

use op_dbus_formats::acknowledged::{ACKNOWLEDGED_LEN_BYTES, Acknowledged};
use op_dbus_formats::change::{Change, Operation};
use op_dbus_formats::collection::{CollectionId, CollectionName, CollectionSpec};
use rocksdb::DBCompressionType::{Lz4, None as Uncompressed};

use super::{Creation, Database, Family, Pinned, Sync, Walk};
use crate::error::{Error, ErrorKind, Result};
use crate::layout::{acknowledged_file, database};
use crate::os::file::{SmallFile, read_bounded};

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

/// The database in `@state`, and beside it how far writes were acknowledged.
pub(crate) struct StateDatabase {
    db: Database,
    acknowledged: SmallFile,
}

/// One record to write or to remove, encoded.
pub(crate) struct Mutation {
    pub(crate) collection: CollectionId,
    pub(crate) key: Vec<u8>,
    pub(crate) action: Action,
}

/// A record as it is stored, and the vector that was given with it.
pub(crate) struct StoredRecord {
    pub(crate) record: Vec<u8>,
    pub(crate) vector: Option<Vec<u8>>,
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
    pub(crate) fn open(state: &Path, creation: Creation) -> Result<Self> {
        let path = acknowledged_file(state);
        let db = Database::open(&database(state), &FAMILIES, creation)?;
        let this = Self { db, acknowledged: SmallFile::open(&path)? };
        this.check_acknowledged(&path)?;
        Ok(this)
    }

    /// Refuses a database whose log ends before what was acknowledged: that is damage, and what
    /// is lost must be said.
    fn check_acknowledged(&self, path: &Path) -> Result<()> {
        let bytes = read_bounded(path, ACKNOWLEDGED_LEN_BYTES as u64)?;
        if bytes.is_empty() {
            return Ok(());
        }
        let damaged = |context: String| {
            let remedy = format!(
                "restore the store from an export, or remove {} to go on with what is left",
                path.display()
            );
            Error::new(ErrorKind::Corrupt, context).with_remedy(remedy)
        };
        let acknowledged = Acknowledged::decode(&bytes).map_err(|error| {
            damaged(format!("{} is damaged", path.display())).with_source(error)
        })?;
        let (found, expected) = (self.last_sequence()?, acknowledged.sequence);
        if found >= expected {
            return Ok(());
        }
        let database = self.path().display();
        Err(damaged(format!(
            "the log of {database} is damaged: it ends at change {found}, and {expected} was \
             acknowledged"
        )))
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
        if mutations.is_empty() {
            return Ok(());
        }
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
        self.db.write(batch, Sync::Yes)?;
        self.note_acknowledged(first_sequence + mutations.len() as u64 - 1);
        Ok(())
    }

    /// After the sync, so that it never says more than what is durable. Not synced itself: after a
    /// power cut it may say less, which hides damage and invents none.
    fn note_acknowledged(&self, sequence: u64) {
        if let Err(error) = self.acknowledged.overwrite(&Acknowledged { sequence }.encode()) {
            tracing::debug!(%error, "cannot note how far writes were acknowledged");
        }
    }

    pub(crate) fn put_collection(&self, name: &CollectionName, spec: &[u8]) -> Result<()> {
        let mut batch = self.db.batch();
        batch.put(COLLECTIONS, name.as_str().as_bytes(), spec);
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

    /// Reads a record and the vector that was given with it, as they are at one moment.
    pub(crate) fn record_and_vector(
        &self,
        id: CollectionId,
        key: &[u8],
    ) -> Result<Option<StoredRecord>> {
        let view = self.db.view();
        let key = record_key(id, key);
        let Some(record) = view.get(RECORDS, &key)? else { return Ok(None) };
        let vector = view.get(VECTORS, &key)?;
        let vector = vector.map(|vector| vector.to_vec());
        Ok(Some(StoredRecord { record: record.to_vec(), vector }))
    }

    /// Walks the records of a collection whose keys start with `prefix`, with their vectors.
    pub(crate) fn records(&self, id: CollectionId, prefix: &[u8]) -> Records<'_> {
        let prefix = record_key(id, prefix);
        let [records, vectors] = self.db.iterate_both([RECORDS, VECTORS], &prefix);
        Records { records, vectors }
    }

    /// The keys of a collection that were changed after `sequence`, each once.
    pub(crate) fn changed_keys(
        &self,
        id: CollectionId,
        sequence: u64,
    ) -> Result<BTreeSet<Vec<u8>>> {
        let mut keys = BTreeSet::new();
        let mut changes = self.db.iterate_from(CHANGES, &(sequence + 1).to_be_bytes());
        while let Some(change) = changes.next_with(|_, change| {
            Change::decode(change).map(|change| {
                if change.collection == id {
                    keys.insert(change.key.to_vec());
                }
            })
        })? {
            change.map_err(|error| self.corrupt("a change").with_source(error))?;
        }
        Ok(keys)
    }

    /// Writes out what is in memory, so that what was removed can be compacted away.
    pub(crate) fn flush(&self) -> Result<()> {
        self.db.flush(&FAMILIES)
    }

    /// Refuses if the database does, which writing nothing shows.
    pub(crate) fn check_accepts_writes(&self) -> Result<()> {
        self.db.check_accepts_writes()
    }

    pub(crate) fn path(&self) -> &Path {
        self.db.path()
    }

    /// Begins no more compactions, and waits a little for one that runs.
    pub(crate) fn pause_compactions(&self) {
        self.db.pause_compactions(&FAMILIES);
    }

    pub(crate) fn resume_compactions(&self) {
        self.db.resume_compactions(&FAMILIES);
    }

    pub(crate) fn tables_bytes(&self) -> u64 {
        self.db.tables_bytes(&FAMILIES)
    }

    pub(crate) fn unflushed_bytes(&self) -> u64 {
        self.db.unflushed_bytes(&FAMILIES)
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        self.db.memory_bytes(&FAMILIES)
    }

    fn corrupt(&self, what: &str) -> Error {
        Error::new(ErrorKind::Corrupt, format!("{what} is damaged in {}", self.path().display()))
            .with_remedy("restore the store from an export")
    }
}

/// Records of one collection in key order, as they were when the walk began.
pub(crate) struct Records<'a> {
    records: Walk<'a>,
    vectors: Walk<'a>,
}

impl Records<'_> {
    /// Hands the next key, record and given vector to `read`; `None` at the end.
    pub(crate) fn next_with<T>(
        &mut self,
        read: impl FnOnce(&[u8], &[u8], Option<&[u8]>) -> T,
    ) -> Result<Option<T>> {
        let vectors = &mut self.vectors;
        self.records
            .next_with(|key, record| {
                let vector = vectors.value_at(key)?;
                Ok(read(&key[size_of::<CollectionId>()..], record, vector))
            })?
            .transpose()
    }
}

fn record_key(CollectionId(id): CollectionId, key: &[u8]) -> Vec<u8> {
    [&id.to_be_bytes()[..], key].concat()
}
