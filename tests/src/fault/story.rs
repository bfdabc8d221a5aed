//! The fixed workload: a store made, written in batches, removed from, and reopened many times.
//!
//! Reopening is what makes RocksDB write tables here: it writes what it replays from its log, and
//! from the fourth such table on it compacts.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use op_dbus_engine::{Error, ErrorKind, Record, Store, StoreConfig};

use crate::crash::check::{COLLECTION, Finding, LINK, Session};
use crate::crash::workload::{Operation, State, Workload, record};
use crate::random::Random;

const SEED: u64 = 1;
const SESSIONS_COUNT: usize = 6;
const STEPS_OF_SESSION: usize = 5;
const BATCH_COUNT_MAX: usize = 6;

/// Sessions that begin with making the graph of the collection, which those that follow change.
const LINKED_SESSIONS: [usize; 2] = [1, 4];

/// Noted for each step that the store has acknowledged.
const ACKNOWLEDGED: u8 = b'.';
/// Noted before the reason why the story ended early.
const FAILED: u8 = b'!';

/// Operations that succeed or fail together: puts, or one removal.
type Step = Vec<Operation>;

/// What is written, in order.
pub struct Story {
    steps: Vec<Step>,
}

impl Default for Story {
    fn default() -> Self {
        Self::new()
    }
}

impl Story {
    /// The story; it is the same every time.
    #[must_use]
    pub fn new() -> Self {
        let mut random = Random::new(SEED);
        let workload = Workload::new(Random::new(SEED), 0, 0, State::new());
        let workload = workload.with_removes().with_few_keys(BATCH_COUNT_MAX);
        let mut workload = workload.peekable();
        let mut steps = Vec::new();
        while steps.len() < SESSIONS_COUNT * STEPS_OF_SESSION {
            let first = workload.next().expect("it has no end");
            let mut step = vec![first];
            let count = 1 + random.below(BATCH_COUNT_MAX);
            while step[0].version.is_some() && step.len() < count {
                let Some(put) = workload.next_if(|next| next.version.is_some()) else { break };
                step.push(put);
            }
            steps.push(step);
        }
        Self { steps }
    }

    /// Plays it above a store, and notes how far it comes.
    ///
    /// It ends with the first failure, once that is seen to have had the promised effect.
    ///
    /// # Panics
    /// If a failure has another effect, or the notes cannot be written.
    pub fn play(&self, store: &Path, notes: &Path) {
        let mut notes = File::create(notes).expect("the notes can be made");
        let mut left = BTreeMap::new();
        for (number, session) in self.steps.chunks(STEPS_OF_SESSION).enumerate() {
            let played = Store::open(StoreConfig::new(store)).and_then(|store| {
                check_vectors(&store, &left);
                if LINKED_SESSIONS.contains(&number) {
                    link(&store);
                }
                play_session(&store, session, &mut notes)?;
                left.extend(
                    session
                        .iter()
                        .flatten()
                        .map(|operation| (&operation.key[..], operation.version)),
                );
                check_vectors(&store, &left);
                // The next opening finds a log after some sessions, and tables after others.
                if number % 2 == 1 {
                    store.close();
                }
                Ok(())
            });
            if let Err(error) = played {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                write!(notes, "{}{error}: {cause:?}", char::from(FAILED)).expect("a note");
                return;
            }
        }
    }

    /// What was sent and, by the notes, acknowledged.
    #[must_use]
    pub fn session(&self, notes: &[u8]) -> Session {
        let acknowledged = notes.iter().take_while(|note| **note == ACKNOWLEDGED).count();
        Session {
            before: State::new(),
            sent: self.steps.iter().flatten().cloned().collect(),
            acknowledged_count: self.steps[..acknowledged].iter().map(Vec::len).sum(),
        }
    }

    /// Complains if the operations that took effect end in the middle of a step.
    ///
    /// # Errors
    /// [`Finding::Writer`] then.
    pub fn check_whole_steps(&self, sequence: u64) -> Result<(), Finding> {
        let mut end = 0;
        let ends = self.steps.iter().map(|step| {
            end += step.len() as u64;
            end
        });
        if std::iter::once(0).chain(ends).any(|end| end == sequence) {
            return Ok(());
        }
        Err(Finding::Writer(format!("a batch is there in part: the sequence is {sequence}")))
    }
}

/// Whether the notes say that every step was acknowledged.
#[must_use]
pub fn is_whole(notes: &[u8]) -> bool {
    notes == [ACKNOWLEDGED; SESSIONS_COUNT * STEPS_OF_SESSION]
}

fn play_session(store: &Store, steps: &[Step], notes: &mut File) -> op_dbus_engine::Result<()> {
    for step in steps {
        if let Err(error) = apply(store, step) {
            check_refusal(store, &error);
            return Err(error);
        }
        notes.write_all(&[ACKNOWLEDGED]).expect("the notes can be written");
    }
    Ok(())
}

/// Reads the vectors of these versions until they are hot: so there is warmth to be kept, and what
/// was kept is seen.
fn check_vectors(store: &Store, left: &BTreeMap<&str, Option<u64>>) {
    if left.is_empty() {
        return;
    }
    let vectors = store.vectors(COLLECTION).expect("the collection is there");
    for (key, version) in left {
        let expected = version.map(|version| record(key, version).vector.expect("it has one"));
        for _ in 0..2 {
            let found = vectors.get(key.as_bytes()).expect("reads go on");
            assert_eq!(found.as_deref(), expected.as_deref(), "{key}");
        }
    }
}

/// Makes the graph, or fails: records do not depend on it.
fn link(store: &Store) {
    match store.link(COLLECTION, LINK, &mut |_, _| Ok(())) {
        Ok(_) => {}
        Err(error) if matches!(error.kind(), ErrorKind::Io | ErrorKind::Full) => {}
        Err(error) => panic!("a link that failed: {error:?}"),
    }
}

fn apply(store: &Store, step: &Step) -> op_dbus_engine::Result<()> {
    let put =
        |operation: &Operation| operation.version.map(|version| record(&operation.key, version));
    let records: Vec<Record> = step.iter().filter_map(put).collect();
    if records.is_empty() {
        let found = store.remove(COLLECTION, step[0].key.as_bytes())?;
        assert!(found, "{} was there to be removed", step[0].key);
        return Ok(());
    }
    store.put_batch(COLLECTION, &records).map(drop)
}

/// After a write that failed, reads go on and writes are refused: nobody knows what the failed one
/// has left. Only for want of room may the store have refused before it tried.
fn check_refusal(store: &Store, error: &Error) {
    const NEVER_SENT: &str = "w0-refused";
    let refused = store.put(COLLECTION, &record(NEVER_SENT, u64::MAX));
    let refusal = refused.expect_err("a store whose write has failed takes no other").kind();
    let expected = [ErrorKind::Poisoned, error.kind()];
    let full = error.kind() == ErrorKind::Full;
    assert!(refusal == expected[0] || full && refusal == expected[1], "{refusal:?} after {error}");
    match store.scan(COLLECTION, b"") {
        Ok(records) => {
            for record in records {
                record.expect("reads go on");
            }
        }
        // The write that failed would have made the collection.
        Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
    }
}
