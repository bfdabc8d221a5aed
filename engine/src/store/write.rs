//! Putting and removing: validate, embed, encode, commit.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use op_dbus_formats::FormatError;
use op_dbus_formats::embedding::{self, EncodedEmbedding, Encoding, Packing, check_finite};
use op_dbus_formats::record::{self as format, EmbeddingSource};

use super::collection::{Collection, CollectionOptions};
use super::warmth::record_locator;
use super::{Admitted, Store};
use crate::arena::{Contents, NEVER};
use crate::cache::CachedEmbedding;
use crate::db::state::{Action, Mutation, PutVector, RecordKey, of_each_collection};
use crate::error::{Error, ErrorKind, Result};
use crate::index::ExactIndex;
use crate::os::clock::unix_ms;
use crate::record::{Record, is_past, validate_key};
use crate::tier::{Departure, Pool};

/// The most bytes one call may write; RocksDB takes a batch whole.
const PUT_BYTES_MAX: usize = 256 << 20;

/// What writing out what is in memory takes beyond it.
const WRITE_OUT_BYTES: u64 = 4 << 20;

/// What a put did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PutReport {
    /// Records given.
    pub records: u64,
    /// Texts whose embedding was computed.
    pub embedded: u64,
    /// Texts whose embedding was in the cache.
    pub cached: u64,
    /// Records that were stored already, the same in every byte, and were not written again.
    pub unchanged: u64,
    /// Texts of which the model saw only the beginning, among those embedded now.
    pub truncated: u64,
}

impl std::ops::AddAssign for PutReport {
    fn add_assign(&mut self, more: Self) {
        self.records += more.records;
        self.embedded += more.embedded;
        self.cached += more.cached;
        self.unchanged += more.unchanged;
        self.truncated += more.truncated;
    }
}

impl Store {
    /// Writes one record and returns when it is durable.
    ///
    /// # Errors
    /// See [`Store::put_batch`].
    pub fn put(&self, collection: &str, record: &Record) -> Result<PutReport> {
        self.put_batch(collection, std::slice::from_ref(record))
    }

    /// Writes records, all or none, and returns when they are durable.
    ///
    /// A collection that does not exist is created. It gets its embedding space with the first
    /// record that has a vector, for vectors of that length, or a text, for the store's model;
    /// until then it holds documents. Of records with equal keys the last counts.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if a record does not fit the collection and
    /// [`ErrorKind::Unavailable`] if a text has to be embedded and there is no model; nothing is
    /// written then, nor with [`ErrorKind::Full`] if they would not leave the room that the store
    /// needs. [`ErrorKind::Full`] or [`ErrorKind::Io`] if the disk refuses all the same: whether
    /// the records were written is known when the store is opened again, and until then later
    /// writes get [`ErrorKind::Poisoned`].
    pub fn put_batch(&self, collection: &str, records: &[Record]) -> Result<PutReport> {
        if records.is_empty() {
            return Ok(PutReport::default());
        }
        self.require_writable()?;
        records.iter().try_for_each(Record::validate)?;
        // Everything that can be refused is refused before a collection is made for it.
        let options = options_for(records)?;
        let planned = match self.find_collection(collection) {
            Some(known) if known.spec.has_space() || options == CollectionOptions::Documents => {
                known
            }
            _ => {
                // What is wrong with a vector is told before what is missing for a collection.
                records.iter().try_for_each(check_numbers)?;
                Arc::new(self.plan_collection(collection, options, None)?)
            }
        };
        let mut given = given_vectors(&planned, records)?;
        self.admit_put(records.iter().map(Record::stored_bytes).sum())?;
        let embeddings = self.embed_texts(&planned, records)?;
        let collection = self.collection_or_create(collection, &planned.spec)?;
        let _space = collection.hold_space()?;
        if collection.spec.encoding != planned.spec.encoding {
            // Somebody else has made it meanwhile.
            given = given_vectors(&collection, records)?;
        }
        let mut report = PutReport { records: records.len() as u64, ..PutReport::default() };
        let mut mutations = Vec::with_capacity(records.len());
        let (mut given, mut embeddings) = (given.into_iter(), embeddings.into_iter());
        for record in records {
            let embedding = if needs_embedding(record) { embeddings.next() } else { None };
            if let Some(embedding) = &embedding {
                report.cached += u64::from(embedding.hit);
                report.embedded += u64::from(!embedding.hit);
                report.truncated += u64::from(embedding.truncated);
            }
            let given = if record.vector.is_some() { given.next() } else { None };
            mutations.push(encode(&collection, record, given, embedding)?);
        }
        keep_last_of_equal_keys(&mut mutations);
        let distinct = mutations.len();
        let mut are_stored = self.state.are_stored(&mutations)?.into_iter();
        mutations.retain(|_| are_stored.next() == Some(false));
        report.unchanged = (distinct - mutations.len()) as u64;
        self.commit(mutations)?;
        self.trim_changes();
        self.collect_some_expired();
        Ok(report)
    }

    /// Removes a record durably; says whether there was one.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such collection; those of a failed write. A full disk
    /// is no reason as long as the store has its ballast.
    pub fn remove(&self, collection: &str, key: &[u8]) -> Result<bool> {
        validate_key(key)?;
        let collection = self.collection(collection)?;
        let Some(stored) = self.state.record(collection.spec.id, key)? else { return Ok(false) };
        // What is damaged can be removed.
        let expires_at_unix_ms = format::Record::decode_expiry(&stored).unwrap_or_default();
        drop(stored);
        if is_past(expires_at_unix_ms, unix_ms()) {
            return Ok(false);
        }
        let mutation = Mutation {
            record: RecordKey::new(collection.spec.id, key),
            action: Action::Remove,
            versions_kept: collection.spec.versions_kept,
        };
        self.admit_removal()?;
        self.commit(vec![mutation])?;
        Ok(true)
    }

    /// Refuses to put so many bytes where there is no room, before anything is tried.
    pub(super) fn admit_put(&self, bytes: u64) -> Result<()> {
        self.require_writable()?;
        let admitted = self
            .space
            .admit_put(bytes, || self.state.tables_bytes() + self.state.unflushed_bytes())
            .inspect_err(|_| self.write_out_removals())?;
        self.check_accepts_writes(admitted)
    }

    /// Records that were removed hold their room until RocksDB has written out the removals.
    fn write_out_removals(&self) {
        if !self.space.has_room_for(self.state.unflushed_bytes() + WRITE_OUT_BYTES) {
            return;
        }
        if let Err(error) = self.state.flush() {
            tracing::warn!(%error, "what was removed holds its room still");
        }
    }

    /// Makes room for a removal, before anything is tried.
    pub(super) fn admit_removal(&self) -> Result<()> {
        self.require_writable()?;
        if self.space.admit_removal() == Admitted::Freely {
            return Ok(());
        }
        if self.space.relieve() {
            // A compaction takes room before it gives some: it would take the ballast's, again
            // and again.
            self.state.pause_compactions();
            self.space.await_room()?;
        }
        self.check_accepts_writes(Admitted::AfterShortage)
    }

    /// After a shortage RocksDB refuses writes until it has recovered, which it tries by itself
    /// every five seconds. To hear that from a write would poison the store.
    fn check_accepts_writes(&self, admitted: Admitted) -> Result<()> {
        const PATIENCE: Duration = Duration::from_secs(12);
        const PAUSE: Duration = Duration::from_millis(50);
        if admitted == Admitted::Freely {
            return Ok(());
        }
        let started = Instant::now();
        loop {
            let accepts = self.state.check_accepts_writes();
            self.space.note_accepts_writes(accepts.is_ok());
            if accepts.is_ok() && self.space.is_relaxed() {
                self.state.resume_compactions();
            }
            match accepts {
                // While it tries, it says that it is busy.
                Err(error) if matches!(error.kind(), ErrorKind::Full | ErrorKind::Busy) => {
                    if started.elapsed() > PATIENCE {
                        return Err(not_recovered(error));
                    }
                    std::thread::sleep(PAUSE);
                }
                accepts => return accepts,
            }
        }
    }

    /// Embeds the texts that need it, in the order of their records.
    fn embed_texts(
        &self,
        collection: &Collection,
        records: &[Record],
    ) -> Result<Vec<CachedEmbedding>> {
        let texts: Vec<&str> = records
            .iter()
            .filter(|record| needs_embedding(record))
            .filter_map(|record| record.text.as_deref())
            .collect();
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let embedder = self.embedder()?;
        collection.check_model(&embedder)?;
        self.cache.get_or_embed(&embedder, &texts)
    }

    /// Commits mutations. Without any, waits for earlier ones, so that a caller who is told that
    /// a record is stored finds it.
    pub(super) fn commit(&self, mutations: Vec<Mutation<'_>>) -> Result<()> {
        let batch_bytes: usize = mutations.iter().map(Mutation::batch_bytes).sum();
        if batch_bytes > PUT_BYTES_MAX {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("{batch_bytes} bytes in one write; the most is {PUT_BYTES_MAX}"),
            )
            .with_remedy("write fewer records at a time"));
        }
        self.commits.commit(
            mutations,
            |mutations, first_sequence| self.state.commit(mutations, first_sequence, unix_ms()),
            |mutations| {
                self.writes.note(mutations);
                self.forget_passed(mutations);
                self.tier_mutations(mutations);
                self.index_mutations(mutations);
            },
        )
    }

    /// What passes filters is found out again in collections that have changed.
    fn forget_passed(&self, mutations: &[Mutation<'_>]) {
        for collection in self.all_collections() {
            if mutations.iter().any(|own| own.record.collection() == collection.spec.id) {
                collection.passed.forget();
            }
        }
    }

    /// Shows committed mutations to readers of hot vectors.
    fn tier_mutations(&self, mutations: &[Mutation<'_>]) {
        let collections = self.all_collections();
        for mutations in of_each_collection(mutations) {
            let id = mutations[0].record.collection();
            let Some(collection) = collections.iter().find(|known| known.spec.id == id) else {
                continue;
            };
            let Some(pool) = self.tier.existing_pool(collection.spec.dimensions as usize) else {
                continue;
            };
            for mutation in mutations {
                self.tier_mutation(mutation, collection, &pool);
            }
        }
    }

    fn tier_mutation(&self, mutation: &Mutation<'_>, collection: &Collection, pool: &Pool) {
        let key = mutation.record.key();
        let (tier_key, budget) = (collection.tier_key(key), self.tier.budget());
        match &mutation.action {
            Action::Put { vector: Some(vector), expires_at_unix_ms, .. } if vector.is_given() => {
                let expires_at_unix_ms = expires_at_unix_ms.unwrap_or(NEVER);
                let contents =
                    Contents { key: tier_key, expires_at_unix_ms, vector: vector.floats() };
                let locator = record_locator(collection.spec.id, key);
                pool.put(&contents, Some(&locator), budget);
            }
            Action::Put { .. } | Action::Remove => {
                pool.remove(tier_key, Departure::Change, budget);
            }
            Action::Expire { .. } => pool.remove(tier_key, Departure::Expiry, budget),
        }
    }

    /// Shows committed mutations to searches, in collections whose vectors are in memory.
    fn index_mutations(&self, mutations: &[Mutation<'_>]) {
        // One that is brought in after this question reads what was committed before it.
        let in_memory = |collection: &Arc<Collection>| collection.is_in_memory();
        for collection in self.all_collections().into_iter().filter(in_memory) {
            let is_own = |own: &&Mutation<'_>| own.record.collection() == collection.spec.id;
            let own: Vec<&Mutation<'_>> = mutations.iter().filter(is_own).collect();
            self.graph_mutations(&collection, &own);
            let mut loaded = collection.index_mut();
            let Some(index) = &mut *loaded else { continue };
            if let Err(error) = own.iter().try_for_each(|mutation| apply(index, mutation)) {
                // The records are safe; what is in memory is made anew by the next search.
                tracing::warn!(collection = %collection.name, %error, "reading the vectors again");
                *loaded = None;
            }
        }
    }
}

fn not_recovered(cause: Error) -> Error {
    Error::new(ErrorKind::Full, "the disk was full, and the database has not recovered from it yet")
        .with_source(cause)
        .with_remedy("free space on this file system and try again in a few seconds")
}

fn apply(index: &mut ExactIndex, mutation: &Mutation<'_>) -> Result<()> {
    match mutation.vector() {
        Some(vector) => {
            index.insert(mutation.record.key(), vector)?;
        }
        None => {
            index.remove(mutation.record.key());
        }
    }
    Ok(())
}

/// Makes the vectors of those records that have one ready to be written, in their order.
fn given_vectors<'v>(collection: &Collection, records: &'v [Record]) -> Result<Vec<PutVector<'v>>> {
    let prepare = |record: &'v Record| {
        let vector = record.vector.as_deref()?;
        let what = || format!("the vector of record {}", record.display_key());
        let given = collection.check_dimensions(what, vector.len()).and_then(|()| {
            given_vector(vector, collection.spec.encoding).map_err(|error| record.unfit(error))
        });
        Some(given)
    };
    records.iter().filter_map(prepare).collect()
}

fn given_vector(vector: &[f32], encoding: Encoding) -> Result<PutVector<'_>, FormatError> {
    match encoding {
        Encoding::F32 => {
            check_finite(vector)?;
            Ok(PutVector::Exact(Cow::Borrowed(vector)))
        }
        Encoding::F16 | Encoding::I8 => {
            let encoded = embedding::encode(vector, encoding, Packing::Plain)?;
            let decoded = EncodedEmbedding::parse(&encoded)?.to_vec()?;
            Ok(PutVector::Rounded { encoded, decoded })
        }
    }
}

fn check_numbers(record: &Record) -> Result<()> {
    let vector = record.vector.as_deref().unwrap_or_default();
    check_finite(vector).map_err(|error| record.unfit(error))
}

fn needs_embedding(record: &Record) -> bool {
    record.text.is_some() && record.vector.is_none()
}

/// What the first record that has something to embed asks for.
fn options_for(records: &[Record]) -> Result<CollectionOptions> {
    let embedded = |record: &&Record| record.vector.is_some() || record.text.is_some();
    let Some(first) = records.iter().find(embedded) else {
        return Ok(CollectionOptions::Documents);
    };
    Ok(match &first.vector {
        Some(vector) => CollectionOptions::Given {
            dimensions: u32::try_from(vector.len()).map_err(|_| {
                Error::new(ErrorKind::Invalid, format!("a vector of {} elements", vector.len()))
            })?,
            metric: op_dbus_formats::collection::Metric::Cosine,
            encoding: Encoding::F32,
        },
        None => CollectionOptions::OfModel,
    })
}

fn encode<'v>(
    collection: &Collection,
    record: &Record,
    given: Option<PutVector<'v>>,
    embedding: Option<CachedEmbedding>,
) -> Result<Mutation<'v>> {
    let source = match (&given, &embedding) {
        (Some(_), _) => EmbeddingSource::Given,
        (None, Some(_)) => EmbeddingSource::Text,
        (None, None) => EmbeddingSource::None,
    };
    let encoded = format::Record {
        payload: record.payload.clone(),
        text: record.text.as_deref().map(Into::into),
        embedding: source,
        expires_at_unix_ms: record.expires_at_unix_ms,
    }
    .encode()
    .map_err(|error| record.unfit(error))?;
    let made = || embedding.map(|embedding| PutVector::Made(embedding.vector));
    Ok(Mutation {
        record: RecordKey::new(collection.spec.id, &record.key),
        action: Action::Put {
            record: encoded,
            vector: given.or_else(made),
            expires_at_unix_ms: record.expires_at_unix_ms,
        },
        versions_kept: collection.spec.versions_kept,
    })
}

/// Keeps one mutation a key, the last, so that a report can compare each with what is stored.
fn keep_last_of_equal_keys(mutations: &mut Vec<Mutation<'_>>) {
    // As they are in most imports, which are spared a set of all keys.
    if mutations.is_sorted_by(|a, b| a.record < b.record) {
        return;
    }
    let mut seen = HashSet::with_capacity(mutations.len());
    let mut are_last: Vec<bool> =
        mutations.iter().rev().map(|mutation| seen.insert(&mutation.record)).collect();
    mutations.retain(|_| are_last.pop() == Some(true));
}
