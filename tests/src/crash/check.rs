//! The judge: compares what a store holds with what was sent and what was acknowledged.
//!
//! Writers send one operation after the other and the store commits in that order, so what it
//! holds after a crash must be the effect of a *prefix* of what each writer sent, no shorter than
//! what was acknowledged to it. The store's sequence must count exactly these operations.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZero;
use std::path::Path;

use op_dbus_engine::{ErrorKind, LinkOptions, Profile, Query, Record, Store, StoreConfig};

use super::workload::{Operation, State, prefix, whole_version};

/// The collection that all writers write to.
pub const COLLECTION: &str = "crash";

/// What one writer did between two openings of the store.
#[derive(Clone, Debug, Default)]
pub struct Session {
    /// Its keys before.
    pub before: State,
    /// What it sent, in order. The last ones may not have reached the store.
    pub sent: Vec<Operation>,
    /// How many of them, from the first on, were acknowledged.
    pub acknowledged_count: usize,
}

/// What a store holds.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// All records, in key order.
    pub records: Vec<Record>,
    /// The sequence of its last mutation.
    pub sequence: u64,
    /// How many records it says it has.
    pub counted: u64,
    /// Records that a search with their own vector does not find.
    pub unsearchable: Vec<String>,
    /// Records whose vector in memory, or in a file of hot vectors, is another.
    pub stale: Vec<String>,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The store cannot be opened or read.
    Unreadable(String),
    /// What was acknowledged is not there, nor anything newer.
    Lost {
        /// The key written.
        key: String,
        /// The version acknowledged; `None` if it was a removal.
        acknowledged: Option<u64>,
        /// The older version that is there.
        found: Option<u64>,
    },
    /// A record is not the one that was sent.
    Torn {
        /// The key found.
        key: String,
        /// In what it differs.
        problem: String,
    },
    /// A record has a version that nobody sent.
    NeverSent {
        /// The key found.
        key: String,
        /// The version found.
        version: u64,
    },
    /// A later operation of a writer is there and an earlier one is not.
    Disordered {
        /// Which writer.
        writer: usize,
    },
    /// The sequence does not count the operations that are there.
    Miscounted {
        /// The least right sequence.
        least: u64,
        /// The greatest right sequence.
        most: u64,
        /// The sequence of the store.
        sequence: u64,
    },
    /// The store's own count of its records is wrong.
    MiscountedRecords {
        /// Records that are there.
        records: u64,
        /// Records that the store counts.
        counted: u64,
    },
    /// What was kept of hot vectors is older than the record.
    Stale {
        /// The key of the record.
        key: String,
    },
    /// A search does not find a record that is there.
    Unsearchable {
        /// The key not found.
        key: String,
    },
    /// The writer ended before it was killed, or acknowledged what it was not given.
    Writer(String),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = |version: &Option<u64>| match version {
            Some(version) => format!("version {version:#x}"),
            None => "no record".to_owned(),
        };
        match self {
            Self::Unreadable(error) => write!(f, "the store cannot be read: {error}"),
            Self::Lost { key, acknowledged, found } => {
                let (acknowledged, found) = (what(acknowledged), what(found));
                write!(f, "lost: {key} was acknowledged as {acknowledged}; there is {found}")
            }
            Self::Torn { key, problem } => write!(f, "torn: {key} is {problem}"),
            Self::NeverSent { key, version } => {
                write!(f, "nobody sent version {version:#x} of {key}")
            }
            Self::Disordered { writer } => write!(
                f,
                "the keys of writer {writer} are no prefix of what it sent: an operation is \
                 missing before one that is there"
            ),
            Self::Miscounted { least, most, sequence } => {
                write!(f, "the sequence is {sequence}, not {least} to {most}")
            }
            Self::MiscountedRecords { records, counted } => {
                write!(f, "the store counts {counted} records and has {records}")
            }
            Self::Stale { key } => write!(f, "the vector of {key} in memory is not that on disk"),
            Self::Unsearchable { key } => write!(f, "no search finds {key}"),
            Self::Writer(problem) => write!(f, "the writer: {problem}"),
        }
    }
}

/// Opens the store after a crash and reads all of it.
///
/// # Errors
/// [`Finding::Unreadable`], whatever the reason.
pub fn observe(store: &Path) -> Result<Observed, Finding> {
    read(store).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        Finding::Unreadable(format!("{error}{}", cause.unwrap_or_default()))
    })
}

/// How collections are linked that are written to.
pub const LINK: LinkOptions =
    LinkOptions { profile: Profile::Compact, threads: NonZero::<usize>::MIN };

fn read(store: &Path) -> op_dbus_engine::Result<Observed> {
    const SEARCHED_COUNT: usize = 8;
    const MISSED_MAX: usize = 2;
    let store = Store::open(StoreConfig::new(store))?;
    let records: Vec<Record> = match store.scan(COLLECTION, b"") {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        scan => scan?.collect::<op_dbus_engine::Result<_>>()?,
    };
    let (mut missed, mut unsearchable) = (Vec::new(), Vec::new());
    for record in records.iter().step_by((records.len() / SEARCHED_COUNT).max(1)) {
        let Some(vector) = &record.vector else { continue };
        let query = Query::vector(&vector[..]).collection(COLLECTION).limit(1);
        for (query, unfound) in [(query.clone(), &mut missed), (query.exact(), &mut unsearchable)] {
            if store.search(&query)?.hits.first().is_none_or(|hit| hit.key != record.key) {
                unfound.push(String::from_utf8_lossy(&record.key).into_owned());
            }
        }
    }
    // With a graph nearly all are found, unless it is of another time.
    if missed.len() > MISSED_MAX {
        unsearchable.extend(missed);
    }
    let stale = stale(&store, &records)?;
    let stats = store.stats()?;
    if !records.is_empty() && stats.collections.iter().all(|known| known.graph.is_none()) {
        // From now on there is one, which every session changes and every opening brings up to date.
        store.link(COLLECTION, LINK, &mut |_, _| Ok(()))?;
    }
    let counted = stats.collections.iter().map(|collection| collection.records).sum();
    store.close();
    Ok(Observed { records, sequence: stats.sequence, counted, unsearchable, stale })
}

/// The keys whose vectors, read as hot ones are, differ from those of their records.
fn stale(store: &Store, records: &[Record]) -> op_dbus_engine::Result<Vec<String>> {
    let mut stale = Vec::new();
    if records.iter().all(|record| record.vector.is_none()) {
        return Ok(stale);
    }
    let vectors = store.vectors(COLLECTION)?;
    for Record { key, vector, .. } in records {
        if vector.is_some() && vectors.get(key)?.as_deref() != vector.as_deref() {
            stale.push(String::from_utf8_lossy(key).into_owned());
        }
    }
    Ok(stale)
}

/// Judges a store, given the sequence it had and, by writer, what was done to it since.
///
/// # Errors
/// All promises that were broken.
pub fn check(
    observed: &Observed,
    sequence_before: u64,
    sessions: &[Session],
) -> Result<Vec<State>, Vec<Finding>> {
    let mut findings = Vec::new();
    let mut states = Vec::new();
    let mut applied_least = 0;
    let mut applied_most = 0;
    let mut foreign: BTreeSet<&[u8]> =
        observed.records.iter().map(|record| &record.key[..]).collect();
    for (writer, session) in sessions.iter().enumerate() {
        let prefix = prefix(writer);
        foreign.retain(|key| !key.starts_with(prefix.as_bytes()));
        let (found, torn) = sort_out(&observed.records, &prefix);
        let prefixes = session.prefixes(&found);
        match (prefixes.first(), prefixes.last()) {
            (Some(least), Some(most)) => {
                applied_least += *least as u64;
                applied_most += *most as u64;
            }
            _ => findings.extend(session.blame(writer, &found, &torn)),
        }
        findings.extend(torn.into_iter().map(|(key, problem)| Finding::Torn { key, problem }));
        states.push(found);
    }
    findings.extend(foreign.into_iter().map(|key| {
        let key = String::from_utf8_lossy(key).into_owned();
        Finding::Torn { key, problem: "a key of no writer".to_owned() }
    }));
    findings.extend(observed.stale.iter().cloned().map(|key| Finding::Stale { key }));
    findings.extend(observed.unsearchable.iter().cloned().map(|key| Finding::Unsearchable { key }));
    if observed.counted != observed.records.len() as u64 {
        let (records, counted) = (observed.records.len() as u64, observed.counted);
        findings.push(Finding::MiscountedRecords { records, counted });
    }
    let (least, most) = (sequence_before + applied_least, sequence_before + applied_most);
    // With something lost the number of operations that are there is not known.
    if findings.is_empty() && !(least..=most).contains(&observed.sequence) {
        findings.push(Finding::Miscounted { least, most, sequence: observed.sequence });
    }
    if findings.is_empty() { Ok(states) } else { Err(findings) }
}

/// The versions of the keys that start with `prefix`, and what is wrong with those torn.
fn sort_out(records: &[Record], prefix: &str) -> (State, BTreeMap<String, String>) {
    let (mut found, mut torn) = (State::new(), BTreeMap::new());
    for record in records.iter().filter(|record| record.key.starts_with(prefix.as_bytes())) {
        let key = String::from_utf8_lossy(&record.key).into_owned();
        match whole_version(record) {
            Ok(version) => {
                found.insert(key, version);
            }
            Err(problem) => {
                torn.insert(key, problem);
            }
        }
    }
    (found, torn)
}

impl Session {
    /// Says after how many operations, of those acknowledged or more, the keys are as found.
    fn prefixes(&self, found: &State) -> Vec<usize> {
        let (acknowledged, rest) = self.sent.split_at(self.acknowledged_count);
        let mut state = self.before.clone();
        acknowledged.iter().for_each(|operation| operation.apply(&mut state));
        let keys: BTreeSet<&String> = state.keys().chain(found.keys()).collect();
        let mut differing: BTreeSet<String> =
            keys.into_iter().filter(|key| state.get(*key) != found.get(*key)).cloned().collect();
        let mut prefixes = Vec::new();
        if differing.is_empty() {
            prefixes.push(self.acknowledged_count);
        }
        for (index, operation) in rest.iter().enumerate() {
            operation.apply(&mut state);
            if state.get(&operation.key) == found.get(&operation.key) {
                differing.remove(&operation.key);
            } else {
                differing.insert(operation.key.clone());
            }
            if differing.is_empty() {
                prefixes.push(self.acknowledged_count + index + 1);
            }
        }
        prefixes
    }

    /// Says which keys are not what they may be.
    fn blame(&self, writer: usize, found: &State, torn: &BTreeMap<String, String>) -> Vec<Finding> {
        let (acknowledged, rest) = self.sent.split_at(self.acknowledged_count);
        let mut state = self.before.clone();
        acknowledged.iter().for_each(|operation| operation.apply(&mut state));
        let mut may_be: BTreeMap<&String, BTreeSet<Option<u64>>> = BTreeMap::new();
        for operation in rest {
            may_be.entry(&operation.key).or_default().insert(operation.version);
        }
        let sent_before: BTreeSet<(&String, u64)> = acknowledged
            .iter()
            .filter_map(|operation| Some((&operation.key, operation.version?)))
            .chain(self.before.iter().map(|(key, version)| (key, *version)))
            .collect();
        let mut findings = Vec::new();
        let keys: BTreeSet<&String> = state.keys().chain(found.keys()).collect();
        for key in keys.into_iter().filter(|key| !torn.contains_key(*key)) {
            let (due, is) = (state.get(key).copied(), found.get(key).copied());
            if is == due || may_be.get(key).is_some_and(|versions| versions.contains(&is)) {
                continue;
            }
            let key = key.clone();
            findings.push(match is {
                Some(version) if !sent_before.contains(&(&key, version)) => {
                    Finding::NeverSent { key, version }
                }
                found => Finding::Lost { key, acknowledged: due, found },
            });
        }
        if findings.is_empty() && torn.is_empty() {
            findings.push(Finding::Disordered { writer });
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crash::workload::record;
    use op_dbus_engine::Payload;

    fn put(key: &str, version: u64) -> Operation {
        Operation { key: key.to_owned(), version: Some(version) }
    }

    /// `a` and `b` were there; `a`, `b` and `c` were put and acknowledged, `a` and `d` put after.
    fn session() -> Session {
        Session {
            before: State::from([("w0-a".to_owned(), 1), ("w0-b".to_owned(), 2)]),
            sent: vec![
                put("w0-a", 11),
                put("w0-b", 12),
                put("w0-c", 13),
                put("w0-a", 14),
                put("w0-d", 15),
            ],
            acknowledged_count: 3,
        }
    }

    fn holding(records: &[(&str, u64)], sequence: u64) -> Observed {
        Observed {
            records: records.iter().map(|(key, version)| record(key, *version)).collect(),
            sequence,
            counted: records.len() as u64,
            unsearchable: Vec::new(),
            stale: Vec::new(),
        }
    }

    /// The three acknowledged, and nothing else.
    fn whole() -> Observed {
        holding(&[("w0-a", 11), ("w0-b", 12), ("w0-c", 13)], 103)
    }

    fn findings(observed: &Observed) -> Vec<Finding> {
        check(observed, 100, &[session()]).expect_err("something is wrong")
    }

    fn lost(key: &str, acknowledged: u64, found: Option<u64>) -> Finding {
        Finding::Lost { key: key.to_owned(), acknowledged: Some(acknowledged), found }
    }

    #[test]
    fn every_prefix_that_has_what_was_acknowledged_is_right() {
        for (records, sequence) in [
            (vec![("w0-a", 11), ("w0-b", 12), ("w0-c", 13)], 103),
            (vec![("w0-a", 14), ("w0-b", 12), ("w0-c", 13)], 104),
            (vec![("w0-a", 14), ("w0-b", 12), ("w0-c", 13), ("w0-d", 15)], 105),
        ] {
            let observed = holding(&records, sequence);
            let states = check(&observed, 100, &[session()]).expect("nothing is wrong");
            assert_eq!(states[0].len(), records.len());
        }
    }

    #[test]
    fn a_missing_record_is_lost() {
        let observed = holding(&[("w0-a", 11), ("w0-b", 12)], 102);
        assert_eq!(findings(&observed), [lost("w0-c", 13, None)]);
    }

    #[test]
    fn a_missing_record_of_an_earlier_session_is_lost() {
        let mut session = session();
        session.before.insert("w0-e".to_owned(), 3);
        let found = check(&whole(), 100, &[session]).expect_err("e is missing");
        assert_eq!(found, [lost("w0-e", 3, None)]);
    }

    #[test]
    fn an_old_version_is_lost() {
        let observed = holding(&[("w0-a", 11), ("w0-b", 2), ("w0-c", 13)], 103);
        assert_eq!(findings(&observed), [lost("w0-b", 12, Some(2))]);
    }

    #[test]
    fn a_record_that_was_removed_and_is_there_is_lost_too() {
        let mut session = session();
        session.sent[1].version = None;
        let found = check(&whole_with_b(2), 100, &[session]).expect_err("b was removed");
        let b = Finding::Lost { key: "w0-b".to_owned(), acknowledged: None, found: Some(2) };
        assert_eq!(found, [b]);
    }

    fn whole_with_b(version: u64) -> Observed {
        holding(&[("w0-a", 11), ("w0-b", version), ("w0-c", 13)], 103)
    }

    #[test]
    fn a_torn_record_is_told_by_its_part() {
        type Tear = fn(&mut Record);
        let tears: [(&str, Tear); 4] = [
            ("payload", |record| {
                let Payload::Json(json) = &record.payload else { panic!("it is JSON") };
                record.payload = Payload::Json(json.replace("\"}", "x\"}").into());
            }),
            ("vector", |record| record.vector.as_mut().expect("it has one")[7] += 0.5),
            ("vector", |record| record.vector = None),
            ("text", |record| record.text = Some("x".to_owned())),
        ];
        for (part, tear) in tears {
            let mut observed = whole();
            tear(&mut observed.records[2]);
            let found = findings(&observed);
            let [Finding::Torn { key, problem }] = &found[..] else { panic!("{found:?}") };
            assert_eq!(key, "w0-c");
            assert!(problem.contains(part), "{problem}");
        }
        let mut observed = whole();
        observed.records[2].payload = Payload::Json("{}".into());
        assert!(matches!(&findings(&observed)[0], Finding::Torn { .. }));
    }

    #[test]
    fn a_mix_of_two_versions_is_torn() {
        let mut observed = whole();
        observed.records[0].vector = record("w0-a", 14).vector;
        assert!(matches!(&findings(&observed)[0], Finding::Torn { key, .. } if key == "w0-a"));
    }

    #[test]
    fn versions_and_keys_that_nobody_sent_are_told() {
        let never = Finding::NeverSent { key: "w0-b".to_owned(), version: 99 };
        assert_eq!(findings(&whole_with_b(99)), [never]);
        let mut observed = whole();
        observed.records.push(record("x", 1));
        observed.counted += 1;
        assert!(matches!(&findings(&observed)[0], Finding::Torn { key, .. } if key == "x"));
    }

    #[test]
    fn a_gap_in_what_was_not_acknowledged_is_told() {
        let observed = holding(&[("w0-a", 11), ("w0-b", 12), ("w0-c", 13), ("w0-d", 15)], 104);
        assert_eq!(findings(&observed), [Finding::Disordered { writer: 0 }]);
    }

    #[test]
    fn a_wrong_sequence_and_wrong_counts_are_told() {
        let miscounted = Finding::Miscounted { least: 103, most: 103, sequence: 102 };
        assert_eq!(findings(&Observed { sequence: 102, ..whole() }), [miscounted]);
        let counts = Finding::MiscountedRecords { records: 3, counted: 4 };
        assert_eq!(findings(&Observed { counted: 4, ..whole() }), [counts]);
        let unsearchable = vec!["w0-b".to_owned()];
        let found = findings(&Observed { unsearchable, ..whole() });
        assert_eq!(found, [Finding::Unsearchable { key: "w0-b".to_owned() }]);
    }
}
