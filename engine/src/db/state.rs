//! The authority: everything the store must not lose.
//!
//! | family | key | value |
//! |---|---|---|
//! | `meta` | name | `sequence`: the last one (u64 big-endian); `first-free-id`, once a collection was dropped (u32 big-endian) |
//! | `collections` | collection name | [`CollectionSpec`] |
//! | `records` | collection id (u32 big-endian), record key | encoded record |
//! | `vectors` | the same | encoded embedding that a caller gave |
//! | `changes` | sequence of the last of them (u64 big-endian) | [changes](op_dbus_formats::change) |
//! | `history` | collection id, length of the key (u16 big-endian), record key, sequence | [`HistoryEntry`](op_dbus_formats::HistoryEntry) |
//! | `journal` | number (u64 big-endian) | [`JournalEntry`](op_dbus_formats::JournalEntry) |
//! | `expiries` | time in Unix milliseconds (u64 big-endian), collection id, record key | nothing |
//!
//! Integers in keys are big-endian, so that RocksDB's byte order is their order.

mod changes;
mod collections;
mod expiry;
mod history;
mod journal;
mod mutation;
mod pairs;
mod stored;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{self, AtomicBool};

use op_dbus_formats::FormatError;
use op_dbus_formats::acknowledged::{ACKNOWLEDGED_LEN_BYTES, Acknowledged};
use op_dbus_formats::collection::CollectionId;
use rocksdb::DBCompressionType::{Lz4, None as Uncompressed};

use super::{Batch, Creation, Database, DatabaseMemory, Family, Pinned, Sync, Walk};
use crate::error::{Error, ErrorKind, Result};
use crate::layout::{acknowledged_file, database};
use crate::os::file::{SmallFile, read_bounded};

pub(crate) use changes::{LoggedChanges, sequence_of};
pub(crate) use expiry::Due;
use expiry::{Settled, expiry_key};
use history::Additions;
pub(crate) use mutation::{Action, Mutation, PutVector, RecordKey, of_each_collection};
pub(crate) use pairs::Pair;

const META: Family = Family { name: "meta", compression: Lz4 };
const COLLECTIONS: Family = Family { name: "collections", compression: Lz4 };
const RECORDS: Family = Family { name: "records", compression: Lz4 };
/// Embeddings look random to a compressor: LZ4 would only cost time.
const VECTORS: Family = Family { name: "vectors", compression: Uncompressed };
const CHANGES: Family = Family { name: "changes", compression: Lz4 };
const HISTORY: Family = Family { name: "history", compression: Lz4 };
const JOURNAL: Family = Family { name: "journal", compression: Lz4 };
const EXPIRIES: Family = Family { name: "expiries", compression: Lz4 };
/// RocksDB insists on this one; it stays empty.
const DEFAULT: Family = Family { name: "default", compression: Lz4 };
const FAMILIES: [Family; 9] =
    [DEFAULT, META, COLLECTIONS, RECORDS, VECTORS, CHANGES, HISTORY, EXPIRIES, JOURNAL];

const SEQUENCE_KEY: &[u8] = b"sequence";

/// The database in `@state`, and beside it how far writes were acknowledged.
pub(crate) struct StateDatabase {
    db: Database,
    /// None where nothing is written.
    acknowledged: Option<SmallFile>,
    /// Whether a record may expire; until one does, no commit looks for what expires.
    has_expiries: AtomicBool,
    /// Of collections that were written to: no record lies behind this key.
    last_keys: Mutex<HashMap<CollectionId, RecordKey>>,
}

/// A record as it is stored, and the vector that was given with it.
pub(crate) struct StoredRecord {
    pub(crate) record: Vec<u8>,
    pub(crate) vector: Option<Vec<u8>>,
}

impl StateDatabase {
    pub(crate) fn open(state: &Path, creation: Creation, memory: DatabaseMemory) -> Result<Self> {
        let db = Database::open(&database(state), &FAMILIES, creation, memory)?;
        Self::of_database(db, state)
    }

    /// Opens a copy that nobody writes to.
    pub(crate) fn open_to_read(state: &Path, memory: DatabaseMemory) -> Result<Self> {
        Self::of_database(Database::open_to_read(&database(state), &FAMILIES, memory)?, state)
    }

    fn of_database(db: Database, state: &Path) -> Result<Self> {
        let path = acknowledged_file(state);
        let has_expiries = AtomicBool::new(db.last_key(EXPIRIES, b"")?.is_some());
        let acknowledged = db.is_written().then(|| SmallFile::open(&path)).transpose()?;
        let this = Self { db, acknowledged, has_expiries, last_keys: Mutex::default() };
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
        let newest = match self.db.last_key(CHANGES, b"")? {
            None => stored,
            Some(key) => {
                u64::from_be_bytes(key.try_into().map_err(|_| self.corrupt("the newest change"))?)
            }
        };
        if newest == stored { Ok(stored) } else { Err(self.corrupt("the last sequence")) }
    }

    /// Commits mutations as one batch, numbered from `first_sequence`, durable on return.
    ///
    /// Drops those of [`Action::Expire`] that are not true any more.
    pub(crate) fn commit(
        &self,
        mutations: &mut Vec<Mutation<'_>>,
        first_sequence: u64,
        now_unix_ms: u64,
    ) -> Result<()> {
        if mutations.is_empty() {
            return Ok(());
        }
        let settled = self.settle(mutations)?;
        self.db
            .write(Sync::Yes, || self.batch_of(mutations, &settled, first_sequence, now_unix_ms))?;
        self.note_last_keys(mutations);
        if !mutations.is_empty() {
            self.note_acknowledged(first_sequence + mutations.len() as u64 - 1);
        }
        Ok(())
    }

    fn batch_of(
        &self,
        mutations: &[Mutation<'_>],
        settled: &Settled,
        first_sequence: u64,
        now_unix_ms: u64,
    ) -> Result<Batch<'_>> {
        let capacity_bytes = mutations.iter().map(Mutation::batch_bytes).sum();
        let mut batch = self.db.batch_with_capacity(capacity_bytes);
        for entry in &settled.stale {
            batch.remove(EXPIRIES, entry);
        }
        // Family by family, which costs a sixteenth less than record by record.
        let mut buffer = Vec::new();
        for mutation in mutations {
            write_vector(&mut batch, mutation, &mut buffer).map_err(cannot_encode)?;
        }
        for mutation in mutations {
            write_record(&mut batch, mutation);
        }
        let mut versions = Additions::default();
        let mut changes = Vec::with_capacity(mutations.len());
        let mut sequence = first_sequence;
        for (mutation, before) in mutations.iter().zip(&settled.expired_before) {
            write_expiry(&mut batch, mutation, *before);
            changes.push(mutation.change());
            versions.add(mutation, sequence, now_unix_ms)?;
            sequence += 1;
        }
        self.write_versions(versions, &mut batch)?;
        changes::log(&mut batch, &changes, first_sequence)?;
        if !mutations.is_empty() {
            batch.put(META, SEQUENCE_KEY, &(sequence - 1).to_be_bytes());
        }
        Ok(batch)
    }

    /// After the sync, so that it never says more than what is durable. Not synced itself: after a
    /// power cut it may say less, which hides damage and invents none.
    fn note_acknowledged(&self, sequence: u64) {
        let Some(acknowledged) = &self.acknowledged else { return };
        if let Err(error) = acknowledged.overwrite(&Acknowledged { sequence }.encode()) {
            tracing::debug!(%error, "cannot note how far writes were acknowledged");
        }
    }

    /// Keys of a collection, the first ones, at most so many.
    pub(crate) fn first_keys(&self, id: CollectionId, count: usize) -> Result<Vec<RecordKey>> {
        let mut walk = self.db.iterate(RECORDS, &RecordKey::prefix(id, b""));
        let mut keys = Vec::new();
        while keys.len() < count
            && let Some(key) = walk.next_with(|key, _| RecordKey::of_stored(key.to_vec()))?
        {
            keys.push(key);
        }
        Ok(keys)
    }

    pub(crate) fn record(&self, id: CollectionId, key: &[u8]) -> Result<Option<Pinned<'_>>> {
        self.db.get(RECORDS, RecordKey::new(id, key).as_ref())
    }

    pub(crate) fn vector(&self, id: CollectionId, key: &[u8]) -> Result<Option<Pinned<'_>>> {
        self.db.get(VECTORS, RecordKey::new(id, key).as_ref())
    }

    /// Looks up given vectors of keys, which must ascend.
    pub(crate) fn vectors<'k>(
        &self,
        id: CollectionId,
        keys: impl Iterator<Item = &'k [u8]>,
    ) -> impl Iterator<Item = Result<Option<Pinned<'_>>>> {
        let keys: Vec<RecordKey> = keys.map(|key| RecordKey::new(id, key)).collect();
        self.db.get_ascending(VECTORS, &keys).collect::<Vec<_>>().into_iter()
    }

    /// Reads a record and the vector that was given with it, as they are at one moment.
    pub(crate) fn record_and_vector(
        &self,
        id: CollectionId,
        key: &[u8],
    ) -> Result<Option<StoredRecord>> {
        let view = self.db.view();
        let key = RecordKey::new(id, key);
        let Some(record) = view.get(RECORDS, key.as_ref())? else { return Ok(None) };
        let vector = view.get(VECTORS, key.as_ref())?;
        let vector = vector.map(|vector| vector.to_vec());
        Ok(Some(StoredRecord { record: record.to_vec(), vector }))
    }

    /// Walks the records of a collection whose keys start with `prefix`, with their vectors.
    pub(crate) fn records(&self, id: CollectionId, prefix: &[u8]) -> Records<'_> {
        let prefix = RecordKey::prefix(id, prefix);
        let [records, vectors] = self.db.iterate_both([RECORDS, VECTORS], prefix.as_ref());
        Records { records, vectors }
    }

    /// Walks the records of a collection without their vectors.
    pub(crate) fn records_alone(&self, id: CollectionId) -> RecordsAlone<'_> {
        RecordsAlone { records: self.db.iterate(RECORDS, &RecordKey::prefix(id, b"")) }
    }

    /// As [`Database::write_out`].
    pub(crate) fn write_out(&self) {
        self.db.write_out(&FAMILIES);
    }

    /// Writes out what is in memory, so that what was removed can be compacted away.
    pub(crate) fn flush(&self) -> Result<()> {
        self.db.flush(&FAMILIES)
    }

    /// Refuses if the database does, which writing nothing shows.
    pub(crate) fn check_accepts_writes(&self) -> Result<()> {
        self.db.check_accepts_writes()
    }

    /// Whether any record expires, ever.
    pub(crate) fn has_expiries(&self) -> bool {
        self.has_expiries.load(atomic::Ordering::Relaxed)
    }

    /// Walks the changes from a key on, as they are encoded.
    pub(crate) fn changes_from(&self, key: &[u8]) -> Walk<'_> {
        self.db.iterate_from(CHANGES, key)
    }

    /// Checks the file that says how far writes were acknowledged.
    pub(crate) fn check_acknowledged_file(&self, state: &Path) -> Result<()> {
        self.check_acknowledged(&acknowledged_file(state))
    }

    pub(crate) fn database(&self) -> &Database {
        &self.db
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

    /// The same, and what exactly is wrong.
    fn damaged(&self, what: &str, how: &str) -> Error {
        let path = self.path().display();
        Error::new(ErrorKind::Corrupt, format!("{what} is damaged in {path}: {how}"))
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

/// As [`Records`], without vectors.
pub(crate) struct RecordsAlone<'a> {
    records: Walk<'a>,
}

impl RecordsAlone<'_> {
    /// Hands the next key and record to `read`; `None` at the end.
    pub(crate) fn next_with<T>(
        &mut self,
        read: impl FnOnce(&[u8], &[u8]) -> T,
    ) -> Result<Option<T>> {
        self.records.next_with(|key, record| read(&key[size_of::<CollectionId>()..], record))
    }
}

fn write_vector(
    batch: &mut Batch<'_>,
    mutation: &Mutation<'_>,
    buffer: &mut Vec<u8>,
) -> std::result::Result<(), FormatError> {
    let key = mutation.record.as_ref();
    let encoded = match &mutation.action {
        Action::Put { vector: Some(vector), .. } => vector.encoded(buffer)?,
        Action::Put { vector: None, .. } | Action::Remove | Action::Expire { .. } => None,
    };
    match encoded {
        Some(encoded) => batch.put(VECTORS, key, encoded),
        None => batch.remove(VECTORS, key),
    }
    Ok(())
}

/// Of what was checked before it came here.
fn cannot_encode(error: FormatError) -> Error {
    Error::new(ErrorKind::Invalid, "cannot encode a vector").with_source(error)
}

fn write_record(batch: &mut Batch<'_>, mutation: &Mutation<'_>) {
    let key = mutation.record.as_ref();
    match &mutation.action {
        Action::Put { record, .. } => batch.put(RECORDS, key, record),
        Action::Remove | Action::Expire { .. } => batch.remove(RECORDS, key),
    }
}

/// Replaces when the record before expires by when this one does.
fn write_expiry(batch: &mut Batch<'_>, mutation: &Mutation<'_>, before: Option<u64>) {
    let key = mutation.record.as_ref();
    if let Some(before) = before {
        batch.remove(EXPIRIES, &expiry_key(before, key));
    }
    if let Action::Put { expires_at_unix_ms: Some(at), .. } = &mutation.action {
        batch.put(EXPIRIES, &expiry_key(*at, key), b"");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use op_dbus_formats::record::Record;
    use rocksdb::{DB, Options};
    use tempfile::TempDir;

    use super::*;

    pub(super) const COLLECTION: CollectionId = CollectionId(1);

    pub(super) fn state() -> (TempDir, StateDatabase) {
        let directory = tempfile::tempdir().unwrap();
        let state =
            StateDatabase::open(directory.path(), Creation::Create, DatabaseMemory::of(0)).unwrap();
        (directory, state)
    }

    pub(super) fn put(key: &[u8], expires_at_unix_ms: Option<u64>) -> Mutation<'static> {
        let record = Record { expires_at_unix_ms, ..Record::default() }.encode().unwrap();
        let action = Action::Put { record, vector: None, expires_at_unix_ms };
        Mutation { record: RecordKey::new(COLLECTION, key), action, versions_kept: 2 }
    }

    fn expire(
        key: &[u8],
        expires_at_unix_ms: u64,
        removed_count: &Arc<AtomicU64>,
    ) -> Mutation<'static> {
        let removed_count = Arc::clone(removed_count);
        let action = Action::Expire { expires_at_unix_ms, removed_count };
        Mutation { record: RecordKey::new(COLLECTION, key), action, versions_kept: 2 }
    }

    fn due(state: &StateDatabase) -> Vec<(u64, Vec<u8>)> {
        let due = state.due(u64::MAX, usize::MAX).unwrap();
        due.into_iter().map(|due| (due.expires_at_unix_ms, due.key)).collect()
    }

    fn has(state: &StateDatabase, key: &[u8]) -> bool {
        state.record(COLLECTION, key).unwrap().is_some()
    }

    #[test]
    fn an_expiration_drops_out_if_the_record_was_replaced() {
        let (directory, state) = state();
        let commit = |mut mutations: Vec<Mutation<'_>>| {
            let first_sequence = state.last_sequence().unwrap() + 1;
            state.commit(&mut mutations, first_sequence, 0).unwrap();
            mutations.len()
        };
        let removed = Arc::new(AtomicU64::new(0));
        commit(vec![put(b"a", Some(7)), put(b"b", Some(5)), put(b"c", Some(5))]);
        assert_eq!(due(&state), [(5, b"b".to_vec()), (5, b"c".to_vec()), (7, b"a".to_vec())]);
        // Before the batch, within it, and not at all.
        commit(vec![put(b"a", None)]);
        let batch = vec![
            expire(b"a", 7, &removed),
            put(b"b", Some(9)),
            expire(b"b", 5, &removed),
            expire(b"c", 5, &removed),
            expire(b"c", 5, &removed),
        ];
        assert_eq!(commit(batch), 2);
        assert_eq!(removed.load(Ordering::Relaxed), 1);
        assert_eq!((has(&state, b"a"), has(&state, b"b"), has(&state, b"c")), (true, true, false));
        assert_eq!(due(&state), [(9, b"b".to_vec())]);
        // A batch of which nothing is left takes no sequence.
        assert_eq!(commit(vec![expire(b"b", 5, &removed)]), 0);
        assert_eq!(state.last_sequence().unwrap(), 6);
        drop(state);
        let state =
            StateDatabase::open(directory.path(), Creation::Refuse, DatabaseMemory::of(0)).unwrap();
        assert_eq!((state.last_sequence().unwrap(), due(&state).len()), (6, 1));
    }

    #[test]
    fn a_damaged_record_that_expires_can_be_replaced_and_collected() {
        let (_directory, state) = state();
        let removed = Arc::new(AtomicU64::new(0));
        state.commit(&mut vec![put(b"a", Some(5)), put(b"b", Some(5))], 1, 0).unwrap();
        let damage = || {
            let mut damage = state.db.batch();
            damage.put(RECORDS, RecordKey::new(COLLECTION, b"a").as_ref(), b"damaged");
            damage.put(RECORDS, RecordKey::new(COLLECTION, b"b").as_ref(), b"damaged");
            Ok(damage)
        };
        state.db.write(Sync::Yes, damage).unwrap();
        state.commit(&mut vec![put(b"a", None), expire(b"b", 5, &removed)], 3, 0).unwrap();
        assert_eq!((due(&state).len(), removed.load(Ordering::Relaxed)), (0, 1));
        assert!(has(&state, b"a") && !has(&state, b"b"));
    }

    #[test]
    fn versions_of_one_batch_are_trimmed_with_those_before() {
        let (_directory, state) = state();
        let numbers = |key: &[u8]| {
            let mut numbers = Vec::new();
            let mut note = |number, _: &[u8]| {
                numbers.push(number);
                Ok(())
            };
            state.versions(COLLECTION, key, &mut note).unwrap();
            numbers
        };
        state.commit(&mut vec![put(b"a", None), put(b"a\0", None)], 1, 0).unwrap();
        assert_eq!((numbers(b"a"), numbers(b"a\0")), (vec![1], vec![2]));
        state.commit(&mut vec![put(b"a", None), put(b"a", None), put(b"a", None)], 3, 0).unwrap();
        assert_eq!((numbers(b"a"), numbers(b"a\0")), (vec![4, 5], vec![2]));
    }

    /// As versions before history and expiry made a store.
    #[test]
    fn families_that_a_store_has_not_got_are_made() {
        let directory = tempfile::tempdir().unwrap();
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        let old = ["default", "meta", "collections", "records", "vectors", "changes"];
        let db = DB::open_cf(&options, database(directory.path()), old).unwrap();
        let key = RecordKey::new(COLLECTION, b"a");
        db.put_cf(db.cf_handle("records").unwrap(), &key, Record::default().encode().unwrap())
            .unwrap();
        drop(db);
        let state =
            StateDatabase::open(directory.path(), Creation::Refuse, DatabaseMemory::of(0)).unwrap();
        assert!(has(&state, b"a"));
        state.commit(&mut vec![put(b"b", Some(5))], 1, 0).unwrap();
        assert_eq!(due(&state).len(), 1);
    }

    #[test]
    fn a_store_of_a_later_version_is_refused_with_the_remedy() {
        let (directory, state) = state();
        drop(state);
        let path = database(directory.path());
        let names = DB::list_cf(&Options::default(), &path).unwrap();
        let mut db = DB::open_cf(&Options::default(), &path, names).unwrap();
        db.create_cf("later", &Options::default()).unwrap();
        drop(db);
        let error = StateDatabase::open(directory.path(), Creation::Refuse, DatabaseMemory::of(0))
            .err()
            .unwrap();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.remedy().unwrap().contains("newer"), "{error:?}");
    }
}
