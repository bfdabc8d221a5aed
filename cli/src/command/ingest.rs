//! Putting many records: in batches, with progress, stoppable, nothing acknowledged lost.

use std::time::{Duration, Instant};

use op_dbus_engine::{
    CollectionOptions, Encoding, ErrorKind, Metric, Payload, PutReport, Record, Store,
};
use serde_json::json;

use super::cache::warn_of_truncation;
use crate::error::Result;
use crate::exit::Exit;
use crate::input::Read;
use crate::interrupt;
use crate::output::{Output, duration, grouped};
use crate::progress::Progress;

/// Enough texts that sorting them by length pays, few enough that Ctrl-C is answered soon.
const BATCH_TEXTS_MAX: usize = 256;
/// Enough bytes that the sync of a batch is a small part of it.
const BATCH_BYTES_MAX: usize = 8 << 20;
const BATCH_RECORDS_MIN: usize = 256;
const BATCH_RECORDS_MAX: usize = 8192;
/// Vectors that go into a graph take far longer than others: batches have as many as take no longer.
const BATCH_TIME_MAX: Duration = Duration::from_millis(250);
/// More notes than this tell a reader nothing new.
const NOTES_COUNT_MAX: usize = 10;

/// Records on their way into a store.
pub(super) struct Ingest {
    report: PutReport,
    /// Of keys, texts, vectors and payloads.
    content_bytes: u64,
    /// So many records make a batch, by the time that the last took.
    batch_records: usize,
    batch_records_max: usize,
    progress: Progress,
    started: Instant,
    interrupted: bool,
    /// Files that were not read, and why.
    left_out: Vec<String>,
    /// How vectors are to be stored, if the user says so.
    encoding: Option<Encoding>,
}

impl Ingest {
    /// Starts the clock and, on a terminal, a progress bar for `total` records.
    pub(super) fn start(
        total: Option<u64>,
        left_out: Vec<String>,
        encoding: Option<Encoding>,
    ) -> Self {
        interrupt::catch();
        Self {
            left_out,
            encoding,
            report: PutReport::default(),
            content_bytes: 0,
            batch_records: BATCH_RECORDS_MIN,
            batch_records_max: BATCH_RECORDS_MAX,
            progress: Progress::start_content(total),
            started: Instant::now(),
            interrupted: false,
        }
    }

    /// Makes small batches, for somebody who waits to hear of each record.
    pub(super) fn soon(mut self, is_awaited: bool) -> Self {
        if is_awaited {
            self.batch_records_max = BATCH_RECORDS_MIN;
        }
        self
    }

    /// Puts records until there are no more or the user presses Ctrl-C.
    ///
    /// `acknowledge` is given each batch once it is durable.
    pub(super) fn run(
        &mut self,
        store: &Store,
        collection: &str,
        records: impl Iterator<Item = Result<Read>>,
        acknowledge: &mut dyn FnMut(&[Record]) -> Result<()>,
    ) -> Result<()> {
        self.progress.say(collection);
        let mut batch = Vec::new();
        let (mut batch_bytes, mut texts) = (0, 0);
        for read in records {
            let (record, ends_batch) = match read {
                Ok(Read { record, ends_batch }) => (record, ends_batch),
                Err(error) => {
                    // What was read before the mistake is good: keep it.
                    self.put(store, collection, &mut batch, acknowledge)?;
                    return Err(error);
                }
            };
            batch_bytes += record_bytes(&record);
            texts += usize::from(record.text.is_some() && record.vector.is_none());
            batch.push(record);
            let is_full = texts >= BATCH_TEXTS_MAX
                || batch_bytes >= BATCH_BYTES_MAX
                || batch.len() >= self.batch_records;
            if ends_batch || is_full {
                self.put(store, collection, &mut batch, acknowledge)?;
                (batch_bytes, texts) = (0, 0);
            }
            if interrupt::is_requested() {
                break;
            }
        }
        self.interrupted = interrupt::is_requested();
        self.put(store, collection, &mut batch, acknowledge)
    }

    fn put(
        &mut self,
        store: &Store,
        collection: &str,
        batch: &mut Vec<Record>,
        acknowledge: &mut dyn FnMut(&[Record]) -> Result<()>,
    ) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        if let Some(encoding) = self.encoding {
            require_encoding(store, collection, batch, encoding)?;
        }
        let started = Instant::now();
        self.report += store.put_batch(collection, batch)?;
        self.batch_records = match started.elapsed() > BATCH_TIME_MAX {
            true => (self.batch_records / 2).max(BATCH_RECORDS_MIN),
            false => (self.batch_records * 2).min(self.batch_records_max),
        };
        acknowledge(batch)?;
        let bytes = batch.iter().map(|record| record_bytes(record) as u64).sum();
        self.content_bytes += bytes;
        self.progress.advance_content(batch.len() as u64, bytes);
        batch.clear();
        Ok(())
    }

    /// Adds to what was not read, and says so of the first of them.
    pub(super) fn leave_out(&mut self, output: &Output, left_out: Vec<String>) {
        for reason in left_out.iter().take(NOTES_COUNT_MAX) {
            output.note(&format!("left out: {reason}"));
        }
        if let more @ 1.. = left_out.len().saturating_sub(NOTES_COUNT_MAX) {
            output.note(&format!("left out: {} more, which --json lists", grouped(more as u64)));
        }
        self.left_out.extend(left_out);
    }

    /// Whether the user pressed Ctrl-C.
    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupted
    }
}

/// Says what was put, closes the store, and passes on what went wrong.
pub(super) fn finish(
    store: Store,
    output: &Output,
    ingest: Ingest,
    result: Result<()>,
    stdout_is_taken: bool,
) -> Result<Exit> {
    let Ingest { report, content_bytes, progress, started, interrupted, left_out, .. } = ingest;
    drop(progress);
    let took = started.elapsed();
    let text = summary(&report, content_bytes, took);
    if result.is_ok() && !stdout_is_taken {
        let answer = json!({
            "records": report.records,
            "embedded": report.embedded,
            "cached": report.cached,
            "skipped": report.unchanged,
            "seconds": took.as_secs_f64(),
            "bytes": content_bytes,
            "truncated": report.truncated,
            "left_out": left_out,
        });
        output.answer(&answer, |out| writeln!(out, "{text}"))?;
    } else {
        output.note(&text);
    }
    warn_of_truncation(output, report.truncated);
    store.close();
    result?;
    if interrupted {
        output.note("interrupted: these records are stored; the same command goes on from there");
        return Ok(Exit::Interrupted);
    }
    Ok(Exit::Success)
}

fn summary(report: &PutReport, content_bytes: u64, took: Duration) -> String {
    let texts = report.embedded + report.cached;
    let hits = match texts {
        0 => String::new(),
        _ => format!(" ({:.0} % hits)", 100.0 * report.cached as f64 / texts as f64),
    };
    let (seconds, took) = (took.as_secs_f64().max(1e-3), duration(took));
    let rate = grouped((report.records as f64 / seconds) as u64);
    let volume = content_bytes as f64 / seconds / 1e6;
    format!(
        "{} records in {took} ({rate}/s, {volume:.1} MB/s): {} texts embedded, {} from the \
         cache{hits}; {} unchanged",
        grouped(report.records),
        grouped(report.embedded),
        grouped(report.cached),
        grouped(report.unchanged),
    )
}

/// Makes the collection of these records store vectors so, or refuses if it exists and does not.
fn require_encoding(
    store: &Store,
    collection: &str,
    batch: &[Record],
    encoding: Encoding,
) -> Result<()> {
    let has_place = |record: &&Record| record.vector.is_some() || record.text.is_some();
    // Without any, there is nothing to store and no embedding space to make.
    let Some(first) = batch.iter().find(has_place) else { return Ok(()) };
    let Some(vector) = &first.vector else {
        let key = String::from_utf8_lossy(&first.key);
        let problem = format!("record {key} has a text to embed, and no vector to store as");
        let problem = format!("{problem} {}", encoding.name());
        return Err(op_dbus_engine::Error::new(ErrorKind::Invalid, problem)
            .with_remedy("leave --encoding out: embeddings of texts lie in the cache, as f32")
            .into());
    };
    let known = store.collections().into_iter().find(|known| known.name == collection);
    let (dimensions, metric) = match known {
        // A vector that does not fit it is for the put to refuse, which says more.
        Some(known) if known.dimensions > 0 => (known.dimensions, known.metric),
        _ => (u32::try_from(vector.len()).unwrap_or(u32::MAX), Metric::Cosine),
    };
    let options = CollectionOptions::Given { dimensions, metric, encoding };
    store.create_collection(collection, options)?;
    Ok(())
}

fn record_bytes(record: &Record) -> usize {
    let text_bytes = record.text.as_ref().map_or(0, String::len);
    let vector_bytes = record.vector.as_ref().map_or(0, |vector| size_of_val(&vector[..]));
    let payload_bytes = match &record.payload {
        Payload::None => 0,
        Payload::Json(json) => json.len(),
        Payload::Bytes(bytes) => bytes.len(),
    };
    record.key.len() + text_bytes + vector_bytes + payload_bytes
}
