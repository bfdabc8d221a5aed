//! The journal as records, so that people can ask who did what. It grows with what strangers try, so
//! only so many entries are indexed a minute, and the rest later.

use std::sync::Arc;
use std::time::Duration;

use op_dbus_engine::{ErrorKind, JournalRecord, Payload, Record, Result, Store};
use tokio::time::{Instant, sleep};

use super::describe::sentence;
use super::writer::found;
use super::{Indexer, JOURNAL_COLLECTION};

/// How often new entries are looked for.
const INTERVAL: Duration = Duration::from_secs(3);
/// Until it is tried again after an error.
const RETRY_AFTER: Duration = Duration::from_secs(60);
const MINUTE: Duration = Duration::from_secs(60);
/// Entries that are indexed in a minute.
const PER_MINUTE_COUNT: usize = 1_000;
/// Entries that are read at a time, those that are passed over included.
const READ_COUNT: usize = 2_000;
const BATCH_COUNT: usize = 256;
/// Digits of a key: numbers are found in their order.
const DIGITS: usize = 12;

/// Indexes what was not yet, and then what comes.
pub(super) async fn follow(indexer: Arc<Indexer>) {
    let mut allowance = Allowance::new(Instant::now());
    let mut last = None;
    loop {
        match index_some(&indexer, &mut last, &mut allowance).await {
            Ok(true) => {}
            Ok(false) => sleep(INTERVAL).await,
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                return tracing::error!(%error, "the journal is not indexed any more");
            }
            Err(error) => {
                tracing::warn!(%error, "the journal is not indexed now");
                sleep(RETRY_AFTER).await;
            }
        }
    }
}

/// Indexes some entries after the last; says whether there may be more at once.
async fn index_some(
    indexer: &Indexer,
    last: &mut Option<u64>,
    allowance: &mut Allowance,
) -> Result<bool> {
    let after = match *last {
        Some(last) => last,
        None => indexer.writer.with(last_indexed).await?,
    };
    *last = Some(after);
    let wanted = allowance.left(Instant::now()).min(BATCH_COUNT);
    if wanted == 0 || indexer.service.store.journal_len() <= after {
        return Ok(false);
    }
    let (records, read_to) = indexer.writer.with(move |store| read(store, after, wanted)).await?;
    allowance.use_up(records.len());
    indexer.writer.put(JOURNAL_COLLECTION, records).await?;
    *last = Some(read_to);
    Ok(read_to > after)
}

/// How many may be indexed now.
struct Allowance {
    since: Instant,
    used: usize,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self { since: now, used: 0 }
    }

    fn left(&mut self, now: Instant) -> usize {
        if now.duration_since(self.since) >= MINUTE {
            *self = Self::new(now);
        }
        PER_MINUTE_COUNT - self.used
    }

    fn use_up(&mut self, count: usize) {
        self.used = PER_MINUTE_COUNT.min(self.used + count);
    }
}

/// Reads entries after a number until there are so many that are told; returns them as records, and
/// the number of the last one that was read.
fn read(store: &Store, after: u64, wanted: usize) -> Result<(Vec<Record>, u64)> {
    let (mut records, mut read_to) = (Vec::new(), after);
    store.journal(after + 1, |entry| {
        read_to = entry.number;
        records.extend(record(&entry));
        records.len() < wanted && read_to - after < READ_COUNT as u64
    })?;
    Ok((records, read_to))
}

/// An intent has an outcome, which says more.
fn record(entry: &JournalRecord) -> Option<Record> {
    if entry.kind == "intent" {
        return None;
    }
    let payload = serde_json::to_string(entry).ok()?;
    let record = Record::new(format!("{:0DIGITS$}", entry.number));
    Some(record.with_text(sentence(entry)).with_payload(Payload::Json(payload.into())))
}

/// The number of the last entry that is indexed: digit by digit, because records are read from the
/// first on, of which there may be millions.
fn last_indexed(store: &Store) -> Result<u64> {
    let mut prefix = String::new();
    while prefix.len() < DIGITS {
        let mut found_one = false;
        for digit in ('0'..='9').rev() {
            prefix.push(digit);
            let mut scan = found(store.scan(JOURNAL_COLLECTION, prefix.as_bytes()))?;
            found_one = scan.as_mut().and_then(Iterator::next).transpose()?.is_some();
            if found_one {
                break;
            }
            prefix.pop();
        }
        if !found_one {
            return Ok(0);
        }
    }
    let last = prefix.parse().unwrap_or(0);
    // One that the journal does not have was put there by somebody.
    Ok(if last > store.journal_len() { 0 } else { last })
}

#[cfg(test)]
mod tests {
    use super::*;
    use op_dbus_engine::{JournalKind, JournalNote, StoreConfig};

    fn note(kind: JournalKind) -> JournalNote {
        let (action, details) = ("read".to_owned(), "{}".to_owned());
        JournalNote { kind, intent: None, actor: None, action, details }
    }

    #[test]
    fn entries_are_read_from_the_last_on_and_intents_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(StoreConfig::new(directory.path())).unwrap();
        assert_eq!(last_indexed(&store).unwrap(), 0);
        let kinds = [JournalKind::Denial, JournalKind::Intent, JournalKind::Event];
        let notes: Vec<JournalNote> = kinds.iter().cycle().take(36).copied().map(note).collect();
        store.append_journal(&notes).unwrap();
        let mut after = 0;
        let mut sizes = Vec::new();
        loop {
            let (records, read_to) = read(&store, after, 10).unwrap();
            if read_to == after {
                break;
            }
            sizes.push(records.len());
            let bare: Vec<Record> =
                records.into_iter().map(|record| Record { text: None, ..record }).collect();
            store.put_batch(JOURNAL_COLLECTION, &bare).unwrap();
            after = read_to;
            assert_eq!(last_indexed(&store).unwrap(), after);
        }
        assert_eq!((sizes, after), (vec![10, 10, 4], 36));
        assert!(store.get(JOURNAL_COLLECTION, b"000000000036").unwrap().is_some());
        assert!(store.get(JOURNAL_COLLECTION, b"000000000035").unwrap().is_none());
        store.put(JOURNAL_COLLECTION, &Record::new("999999999999")).unwrap();
        assert_eq!(last_indexed(&store).unwrap(), 0);
        store.close();
    }

    #[test]
    fn a_flood_is_indexed_later() {
        let now = Instant::now();
        let mut allowance = Allowance::new(now);
        assert_eq!(allowance.left(now), PER_MINUTE_COUNT);
        allowance.use_up(PER_MINUTE_COUNT - 1);
        assert_eq!(allowance.left(now + MINUTE / 2), 1);
        allowance.use_up(1);
        assert_eq!(allowance.left(now + MINUTE / 2), 0);
        assert_eq!(allowance.left(now + MINUTE), PER_MINUTE_COUNT);
    }
}
