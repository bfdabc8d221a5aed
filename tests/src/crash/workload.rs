//! What is written: operations from a seed, and the record that each version of a key must be.
//!
//! A version is never used twice, and the whole record follows from key and version. So a record
//! read back is whole exactly if it equals the one that its own version says.

use std::borrow::Cow;
use std::collections::BTreeMap;

use op_dbus_engine::{Payload, Record};

use crate::random::Random;

/// Elements of every vector.
pub const DIMENSIONS: usize = 16;

/// Keys of one writer.
const KEYS_COUNT: usize = 1024;

/// A key comes again after at least this many operations. No fewer than records in one batch of
/// an import: there, of equal keys in one batch only the last is written, and the sequence would
/// not count the others.
const REUSE_DISTANCE: u64 = 256;

/// Versions of one session start at its number times this.
const SESSION_VERSIONS: u64 = 1 << 32;

/// What a writer's keys are, by version.
pub type State = BTreeMap<String, u64>;

/// One write: a version of a key, or its removal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The key.
    pub key: String,
    /// The version to put; `None` removes the key.
    pub version: Option<u64>,
}

impl Operation {
    /// Does to `state` what the store should do to its records.
    pub fn apply(&self, state: &mut State) {
        match self.version {
            Some(version) => {
                state.insert(self.key.clone(), version);
            }
            None => {
                state.remove(&self.key);
            }
        }
    }
}

/// An endless sequence of operations of one writer.
#[derive(Clone, Debug)]
pub struct Workload {
    random: Random,
    prefix: String,
    state: State,
    removes: bool,
    next_version: u64,
    /// For each key, the number of operations before its next use.
    reusable_at: Vec<u64>,
    reuse_distance: u64,
    operations_count: u64,
}

impl Workload {
    /// Writes to the keys of `writer`, which are as `state` says now.
    #[must_use]
    pub fn new(random: Random, writer: usize, session: u64, state: State) -> Self {
        Self {
            random,
            prefix: prefix(writer),
            state,
            removes: false,
            next_version: session * SESSION_VERSIONS + 1,
            reusable_at: vec![0; KEYS_COUNT],
            reuse_distance: REUSE_DISTANCE,
            operations_count: 0,
        }
    }

    /// Writes to so few keys that each comes again soon, but not within a batch of so many.
    #[must_use]
    pub fn with_few_keys(mut self, batch_count_max: usize) -> Self {
        self.reusable_at = vec![0; 4 * batch_count_max];
        self.reuse_distance = batch_count_max as u64;
        self
    }

    /// Removes a key now and then, too.
    #[must_use]
    pub fn with_removes(mut self) -> Self {
        self.removes = true;
        self
    }

    fn key(&mut self) -> String {
        loop {
            let index = self.random.below(self.reusable_at.len());
            if self.reusable_at[index] <= self.operations_count {
                self.reusable_at[index] = self.operations_count + self.reuse_distance;
                return format!("{}{index:04}", self.prefix);
            }
        }
    }
}

impl Iterator for Workload {
    type Item = Operation;

    fn next(&mut self) -> Option<Operation> {
        const REMOVED_OF: usize = 6;
        self.operations_count += 1;
        let key = self.key();
        let wants_remove = self.removes && self.random.below(REMOVED_OF) == 0;
        let version = if wants_remove && self.state.contains_key(&key) {
            None
        } else {
            self.next_version += 1;
            Some(self.next_version)
        };
        let operation = Operation { key, version };
        operation.apply(&mut self.state);
        Some(operation)
    }
}

/// How the keys of a writer begin.
#[must_use]
pub fn prefix(writer: usize) -> String {
    format!("w{writer}-")
}

/// The record that a version of a key is.
#[must_use]
pub fn record(key: &str, version: u64) -> Record {
    let seed = key.bytes().fold(version, |seed, byte| Random::new(seed ^ u64::from(byte)).bits());
    let mut random = Random::new(seed);
    let vector = random.vector(DIMENSIONS);
    let filler_bytes = filler_bytes(&mut random);
    let filler = letters(&mut random, filler_bytes);
    let payload = format!(r#"{{"version":{version},"key":"{key}","filler":"{filler}"}}"#);
    let record = Record::new(key).with_vector(vector).with_payload(Payload::Json(payload.into()));
    if version.is_multiple_of(3) { record.with_text(format!("{key} at {version}")) } else { record }
}

/// The version that a record is.
///
/// # Errors
/// Says in what it is not the record of the version that its payload names.
pub fn whole_version(record: &Record) -> Result<u64, String> {
    let key = std::str::from_utf8(&record.key).map_err(|_| "its key is not UTF-8")?;
    let version = named_version(&record.payload).ok_or("its payload names no version")?;
    let whole = self::record(key, version);
    let parts = [
        ("payload", record.payload == whole.payload),
        ("vector", record.vector == whole.vector),
        ("text", record.text == whole.text),
    ];
    let torn: Vec<&str> = parts.iter().filter(|(_, same)| !same).map(|(part, _)| *part).collect();
    if torn.is_empty() {
        return Ok(version);
    }
    Err(format!("not version {version:#x} in its {}", torn.join(" and ")))
}

fn named_version(payload: &Payload<'_>) -> Option<u64> {
    let Payload::Json(payload) = payload else { return None };
    let payload: serde_json::Value = serde_json::from_str(payload).ok()?;
    payload.get("version")?.as_u64()
}

/// A record as a line of an import.
///
/// # Panics
/// If JSON lines cannot carry the record, which is none of the workload's then.
pub fn render(record: &Record, out: &mut Vec<u8>) {
    use op_dbus_formats::exchange::jsonl::{ExchangeRecord, render_line};
    let line = ExchangeRecord {
        key: Cow::Borrowed(&record.key[..]),
        text: record.text.as_deref().map(Cow::Borrowed),
        vector: record.vector.clone(),
        payload: record.payload.clone(),
        expires_at_unix_ms: None,
    };
    render_line(&line, out).expect("the workload's records fit a line");
}

/// Mostly small, sometimes across blocks of RocksDB's log (32 KiB) and several of them.
fn filler_bytes(random: &mut Random) -> usize {
    match random.below(64) {
        0 => 32_000 + random.below(200_000),
        1..=10 => 1_000 + random.below(7_000),
        _ => random.below(300),
    }
}

/// Letters that no compressor makes much smaller.
fn letters(random: &mut Random, count: usize) -> String {
    const LETTERS: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    const BITS_PER_LETTER: u32 = 6;
    const LETTERS_PER_NUMBER: usize = 10;
    let mut letters = String::with_capacity(count + LETTERS_PER_NUMBER);
    while letters.len() < count {
        let mut bits = random.bits();
        for _ in 0..LETTERS_PER_NUMBER {
            letters.push(char::from(LETTERS[(bits % 64) as usize]));
            bits >>= BITS_PER_LETTER;
        }
    }
    letters.truncate(count);
    letters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_workload_and_no_key_comes_again_soon() {
        let workload = || Workload::new(Random::new(7), 0, 1, State::new()).with_removes();
        let operations: Vec<Operation> = workload().take(5_000).collect();
        assert!(operations.iter().eq(&workload().take(5_000).collect::<Vec<_>>()));
        assert!(operations.iter().any(|operation| operation.version.is_none()));
        for window in operations.windows(REUSE_DISTANCE as usize) {
            let (first, others) = window.split_first().expect("a window is not empty");
            assert!(others.iter().all(|other| other.key != first.key));
        }
    }

    #[test]
    fn a_rendered_record_comes_back_whole() {
        for version in 1..200 {
            let record = record("w0-0001", version);
            let mut line = Vec::new();
            render(&record, &mut line);
            let parsed = op_dbus_formats::exchange::jsonl::parse_line(&line, 1).expect("it parses");
            assert_eq!(parsed.vector, record.vector);
            assert_eq!(parsed.payload, record.payload);
            assert_eq!(whole_version(&record), Ok(version));
        }
    }
}
