//! Writing what was found, in batches, so that those who ask hardly wait for it.
//!
//! Without a model records are written without their texts, until there is one: they can be read,
//! and not be searched for. One that has its text already keeps it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use op_dbus_engine::{Error, ErrorKind, Payload, PutReport, Record, Result, Store};

use crate::interfaces::PHRASE;

const BATCH_COUNT_MAX: usize = 256;
const BATCH_BYTES_MAX: usize = 8 << 20;
/// Removals that are done without a pause.
const REMOVED_COUNT_MAX: usize = 64;
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Work that took less was no burden.
const BURDEN_MIN: Duration = Duration::from_millis(10);

/// Writes into the store, on threads where nobody else waits.
pub(super) struct Writer {
    store: Arc<Store>,
    is_without_model: Arc<AtomicBool>,
}

impl Writer {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self { store, is_without_model: Arc::default() }
    }

    /// Tries again to embed texts: there may be a model now.
    pub(super) fn retry_model(&self) {
        self.is_without_model.store(false, Ordering::Relaxed);
    }

    /// Asks the store something.
    pub(super) async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = Arc::clone(&self.store);
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        done.unwrap_or_else(|error| Err(Error::new(ErrorKind::Io, format!("it failed: {error}"))))
    }

    /// Puts records, with a pause after each batch that took some time. Those that cannot be stored
    /// are left out, and logged.
    ///
    /// # Errors
    /// Those of the store, but for records that do not fit and a model that is not there.
    pub(super) async fn put(
        &self,
        collection: &'static str,
        records: Vec<Record>,
    ) -> Result<PutReport> {
        let mut report = PutReport::default();
        for batch in batches(records) {
            let is_without_model = Arc::clone(&self.is_without_model);
            let started = Instant::now();
            report += self
                .with(move |store| put_batch(store, collection, batch, &is_without_model))
                .await?;
            pause_after(started).await;
        }
        Ok(report)
    }

    /// Removes records; returns how many there were.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn remove(&self, collection: &'static str, keys: Vec<Vec<u8>>) -> Result<u64> {
        let mut removed = 0;
        for keys in keys.chunks(REMOVED_COUNT_MAX) {
            let keys = keys.to_vec();
            let started = Instant::now();
            removed += self
                .with(move |store| {
                    let mut removed = 0;
                    for key in keys {
                        removed += u64::from(store.remove(collection, &key)?);
                    }
                    Ok(removed)
                })
                .await?;
            pause_after(started).await;
        }
        Ok(removed)
    }
}

/// Leaves the processor to others for half as long.
async fn pause_after(started: Instant) {
    let took = started.elapsed();
    if took > BURDEN_MIN {
        tokio::time::sleep((took / 2).min(PAUSE_MAX)).await;
    }
}

fn batches(records: Vec<Record>) -> Vec<Vec<Record>> {
    let mut batches: Vec<Vec<Record>> = Vec::new();
    let mut len_bytes = 0;
    for record in records {
        len_bytes += record_bytes(&record);
        match batches.last_mut() {
            Some(batch) if batch.len() < BATCH_COUNT_MAX && len_bytes <= BATCH_BYTES_MAX => {
                batch.push(record);
            }
            _ => {
                len_bytes = record_bytes(&record);
                batches.push(vec![record]);
            }
        }
    }
    batches
}

fn record_bytes(record: &Record) -> usize {
    let payload = match &record.payload {
        Payload::None => 0,
        Payload::Json(json) => json.len(),
        Payload::Bytes(bytes) => bytes.len(),
    };
    record.key.len() + record.text.as_ref().map_or(0, String::len) + payload
}

fn put_batch(
    store: &Store,
    collection: &str,
    batch: Vec<Record>,
    is_without_model: &AtomicBool,
) -> Result<PutReport> {
    if !is_without_model.load(Ordering::Relaxed) {
        match store.put_batch(collection, &batch) {
            Err(error) if lacks_model(store, &error) => {
                if !is_without_model.swap(true, Ordering::Relaxed) && store.has_model() {
                    tracing::warn!(%error, "what is indexed is not found until there is a model");
                }
            }
            Err(error) if error.kind() == ErrorKind::Invalid => {
                return put_each(store, collection, &batch);
            }
            done => return done,
        }
    }
    put_each(store, collection, &without_texts(store, collection, batch)?)
}

/// Whether there is no model, or none that can be used.
fn lacks_model(store: &Store, error: &Error) -> bool {
    error.kind() == ErrorKind::Unavailable || store.embedder().is_err()
}

/// Puts records without those that do not fit.
fn put_each(store: &Store, collection: &str, batch: &[Record]) -> Result<PutReport> {
    match store.put_batch(collection, batch) {
        Err(error) if error.kind() == ErrorKind::Invalid => {}
        done => return done,
    }
    let mut report = PutReport::default();
    let (mut left_out, mut reason) = (0_u32, None);
    for record in batch {
        match store.put(collection, record) {
            Ok(put) => report += put,
            Err(error) if error.kind() == ErrorKind::Invalid => {
                left_out += 1;
                reason.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    if let Some(error) = reason {
        tracing::warn!(%error, collection, left_out, "some records are not indexed");
    }
    Ok(report)
}

/// What can be stored without a model.
fn without_texts(store: &Store, collection: &str, batch: Vec<Record>) -> Result<Vec<Record>> {
    let mut kept = Vec::with_capacity(batch.len());
    for record in batch {
        // It is nothing but its text.
        if record.key.starts_with(PHRASE.as_bytes()) {
            continue;
        }
        let stored = found(store.get(collection, &record.key))?.flatten();
        if stored.is_none_or(|stored| stored.text.is_none()) {
            kept.push(Record { text: None, ..record });
        }
    }
    Ok(kept)
}

/// Nothing is in a collection that is not there.
pub(super) fn found<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        answer => answer.map(Some),
    }
}

/// The keys of a collection.
///
/// # Errors
/// Those of the store.
pub(super) fn keys(store: &Store, collection: &str) -> Result<Vec<Vec<u8>>> {
    let Some(scan) = found(store.scan(collection, b""))? else { return Ok(Vec::new()) };
    scan.map(|record| Ok(record?.key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use op_dbus_engine::StoreConfig;

    #[test]
    fn without_a_model_records_are_kept_and_texts_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(StoreConfig::new(directory.path())).unwrap();
        let records = || {
            let record = |key: &str| Record::new(key).with_text("words");
            vec![record("a"), record("phrase:0:a")]
        };
        let is_without_model = AtomicBool::new(false);
        for unchanged in [0, 1] {
            let put = put_batch(&store, "c", records(), &is_without_model).unwrap();
            assert_eq!((put.records, put.unchanged), (1, unchanged));
            assert!(is_without_model.load(Ordering::Relaxed));
        }
        assert_eq!(keys(&store, "c").unwrap(), [b"a"]);
        assert_eq!(keys(&store, "none").unwrap(), Vec::<Vec<u8>>::new());
        store.close();
    }

    #[test]
    fn one_that_does_not_fit_keeps_nobody_else_out() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(StoreConfig::new(directory.path())).unwrap();
        let batch = [Record::new("a"), Record::new(""), Record::new("b")];
        assert_eq!(put_each(&store, "c", &batch).unwrap().records, 2);
        assert_eq!(keys(&store, "c").unwrap(), [b"a", b"b"]);
        store.close();
    }

    #[test]
    fn batches_are_small() {
        let large = |_| Record::new("k").with_text("x".repeat(3 << 20));
        let lengths = |records| batches(records).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(lengths((0..5).map(large).collect()), [2, 2, 1]);
        assert_eq!(lengths(vec![Record::new("k"); 600]), [256, 256, 88]);
        assert_eq!(lengths(Vec::new()), [0; 0]);
    }
}
