//! Versions and expiry against a model of them: after any operations both say the same.
//!
//! No clock is waited for: records expire long ago or in a far future.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeMap;
use std::path::Path;

use op_dbus_engine::{
    CollectionOptions, Encoding, ErrorKind, Metric, Operation, Payload, Query, Record,
    STATE_COLLECTION, STATE_VERSIONS_KEPT, Store, StoreConfig,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use support::scratch;

const NAME: &str = "versioned";
/// One begins another, with what could be a length or a number behind it.
const KEYS: [&[u8]; 7] = [
    b"a",
    b"a\0",
    b"a\0\0\0\0\0\0\0\x01",
    b"a\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x01",
    b"\0\x01a",
    b"\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff",
];
const PAST: [u64; 3] = [0, 1, 1_000_000_000_000];
const FUTURE: [u64; 2] = [9_000_000_000_000, u64::MAX];

#[derive(Clone, Debug)]
enum Step {
    Put(Vec<Record>),
    Remove(&'static [u8]),
    Collect(u64),
    Reopen,
}

fn record() -> impl Strategy<Value = Record> {
    let expiry = prop_oneof![
        3 => Just(None),
        2 => select(&PAST[..]).prop_map(Some),
        2 => select(&FUTURE[..]).prop_map(Some),
    ];
    (select(&KEYS[..]), 0_u8..4, expiry).prop_map(|(key, value, expires_at_unix_ms)| Record {
        payload: Payload::Json(value.to_string().into()),
        vector: Some(vec![f32::from(value)]),
        expires_at_unix_ms,
        ..Record::new(key)
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => vec(record(), 1..5).prop_map(Step::Put),
        3 => select(&KEYS[..]).prop_map(Step::Remove),
        2 => (0_u64..5).prop_map(Step::Collect),
        1 => Just(Step::Reopen),
    ];
    vec(step, 1..30)
}

/// Expired records that a put removes: more than there are here.
const COLLECTED_BY_PUT_COUNT: u64 = 256;

/// What the store is, without files.
struct Model {
    versions_kept: usize,
    records: BTreeMap<Vec<u8>, Record>,
    versions: BTreeMap<Vec<u8>, Vec<(u64, Option<Record>)>>,
    sequence: u64,
}

fn is_past(record: &Record) -> bool {
    record.expires_at_unix_ms.is_some_and(|at| PAST.contains(&at))
}

impl Model {
    fn put(&mut self, records: &[Record]) -> u64 {
        let mut unchanged_count = 0;
        for (index, record) in records.iter().enumerate() {
            if records[index + 1..].iter().any(|later| later.key == record.key) {
                continue;
            }
            if self.records.get(&record.key) == Some(record) {
                unchanged_count += 1;
                continue;
            }
            self.records.insert(record.key.clone(), record.clone());
            self.add_version(&record.key, Some(record.clone()));
        }
        unchanged_count
    }

    fn remove(&mut self, key: &[u8]) -> bool {
        let is_there = self.records.get(key).is_some_and(|record| !is_past(record));
        if is_there {
            self.records.remove(key);
            self.add_version(key, None);
        }
        is_there
    }

    fn collect(&mut self, limit: u64) -> u64 {
        let due = |(key, record): (&Vec<u8>, &Record)| {
            is_past(record).then(|| (record.expires_at_unix_ms, key.clone()))
        };
        let mut due: Vec<_> = self.records.iter().filter_map(due).collect();
        due.sort();
        due.truncate(usize::try_from(limit).unwrap());
        for (_, key) in &due {
            self.records.remove(key);
            self.add_version(key, None);
        }
        due.len() as u64
    }

    fn add_version(&mut self, key: &[u8], record: Option<Record>) {
        self.sequence += 1;
        let versions = self.versions.entry(key.to_vec()).or_default();
        versions.push((self.sequence, record));
        let excess = versions.len().saturating_sub(self.versions_kept);
        versions.drain(..excess);
    }

    fn visible(&self) -> impl Iterator<Item = &Record> {
        self.records.values().filter(|record| !is_past(record))
    }
}

fn open(path: &Path) -> Store {
    Store::open(StoreConfig::new(path)).unwrap()
}

fn play(steps: &[Step], versions_kept: u16) {
    let directory = scratch::in_memory();
    let mut store = open(directory.path());
    let options = CollectionOptions::Given {
        dimensions: 1,
        metric: Metric::Euclidean,
        encoding: Encoding::F32,
    };
    store.create_collection_with_versions(NAME, options, versions_kept).unwrap();
    let mut model = Model {
        versions_kept: versions_kept.into(),
        records: BTreeMap::new(),
        versions: BTreeMap::new(),
        sequence: 0,
    };
    for step in steps {
        match step {
            Step::Put(records) => {
                let report = store.put_batch(NAME, records).unwrap();
                assert_eq!(report.unchanged, model.put(records));
                // In passing, a put removes some of what has expired.
                if !records.is_empty() {
                    model.collect(COLLECTED_BY_PUT_COUNT);
                }
            }
            Step::Remove(key) => assert_eq!(store.remove(NAME, key).unwrap(), model.remove(key)),
            Step::Collect(limit) => {
                assert_eq!(store.collect_expired(*limit).unwrap(), model.collect(*limit));
            }
            Step::Reopen => {
                drop(store);
                store = open(directory.path());
            }
        }
        assert_records(&store, &model);
        assert_versions(&store, &model);
    }
}

fn assert_records(store: &Store, model: &Model) {
    for key in KEYS {
        let expected = model.records.get(key).filter(|record| !is_past(record));
        assert_eq!(store.get(NAME, key).unwrap().as_ref(), expected);
    }
    let scanned: Vec<Record> = store.scan(NAME, b"").unwrap().map(Result::unwrap).collect();
    assert!(scanned.iter().eq(model.visible()), "{scanned:?}");
    let stats = store.stats().unwrap();
    assert_eq!(stats.collections[0].records, model.visible().count() as u64);
    assert_eq!(stats.sequence, model.sequence);
    let distance = |record: &Record| record.vector.as_ref().unwrap()[0] as u32;
    let mut nearest: Vec<&Record> = model.visible().collect();
    nearest.sort_by_key(|record| (distance(record), record.key.clone()));
    for limit in [1, 2, KEYS.len()] {
        let answer = store.search(&Query::vector([0.0]).limit(limit)).unwrap();
        let found: Vec<&[u8]> = answer.hits.iter().map(|hit| &hit.key[..]).collect();
        let expected: Vec<&[u8]> =
            nearest.iter().take(limit).map(|record| &record.key[..]).collect();
        assert_eq!(found, expected);
    }
}

fn assert_versions(store: &Store, model: &Model) {
    for key in KEYS {
        let kept = model.versions.get(key).cloned().unwrap_or_default();
        let visible: Vec<_> =
            kept.iter().filter(|(_, record)| !record.as_ref().is_some_and(is_past)).collect();
        let found = store.history(NAME, key).unwrap();
        assert!(found.iter().all(|version| version.written_at_unix_ms > PAST[2]));
        let found: Vec<_> = found
            .iter()
            .map(|version| (version.number, version.operation, version.len_bytes > 0))
            .collect();
        let expected: Vec<_> = visible
            .iter()
            .rev()
            .map(|(number, record)| match record {
                Some(_) => (*number, Operation::Put, true),
                None => (*number, Operation::Remove, false),
            })
            .collect();
        assert_eq!(found, expected, "{key:?}");
        for number in 0..=model.sequence + 1 {
            let expected = visible.iter().find(|(known, _)| *known == number);
            let expected = expected.and_then(|(_, record)| record.clone());
            // A caller's vector lies beside the record, not in its versions.
            let expected = expected.map(|record| Record { vector: None, ..record });
            assert_eq!(store.get_version(NAME, key, number).unwrap(), expected);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, failure_persistence: None, ..Default::default() })]

    #[test]
    fn versions_and_expiries_are_those_of_the_model(steps in steps(), versions_kept in 1_u16..4) {
        play(&steps, versions_kept);
    }
}

#[test]
fn state_needs_no_model_and_keeps_ten_versions() {
    let directory = scratch::in_memory();
    let store = open(directory.path());
    for number in 0..15 {
        let payload = Payload::Json(format!("{{\"n\": {number}}}").into());
        store.put(STATE_COLLECTION, &Record::new("doc").with_payload(payload)).unwrap();
    }
    let versions = store.history(STATE_COLLECTION, b"doc").unwrap();
    assert_eq!(versions.len(), usize::from(STATE_VERSIONS_KEPT));
    assert_eq!((versions[0].number, versions[9].number), (15, 6));
    let oldest = store.get_version(STATE_COLLECTION, b"doc", 6).unwrap().unwrap();
    assert_eq!(oldest.payload, Payload::Json("{\"n\": 5}".into()));

    let info = &store.collections()[0];
    assert_eq!((info.dimensions, info.versions_kept), (0, STATE_VERSIONS_KEPT));
    let search = |query: Query| store.search(&query).unwrap_err().kind();
    assert_eq!(search(Query::vector([1.0]).collection(STATE_COLLECTION)), ErrorKind::Invalid);
    assert_eq!(search(Query::vector([])), ErrorKind::NotFound);
    // Beside others it is passed over.
    store.put("points", &Record::new("east").with_vector([1.0])).unwrap();
    assert_eq!(store.search(&Query::vector([1.0])).unwrap().hits.len(), 1);
    assert_eq!(store.history("points", b"east").unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn documents_get_their_space_from_the_first_record_that_has_one() {
    let directory = scratch::in_memory();
    let store = open(directory.path());
    let document = Record::new("a").with_payload(Payload::Json("1".into()));
    store.put("mixed", &document).unwrap();
    let text = store.put("mixed", &Record::new("b").with_text("words")).unwrap_err();
    assert_eq!(text.kind(), ErrorKind::Unavailable, "a text needs a model");
    store.put("mixed", &Record::new("b").with_vector([1.0, 0.0])).unwrap();
    let other = store.put("mixed", &Record::new("c").with_vector([1.0])).unwrap_err();
    assert_eq!(other.kind(), ErrorKind::Invalid);
    store.put("mixed", &Record::new("c").with_payload(Payload::Json("2".into()))).unwrap();
    // What was there before is there, also after a restart.
    drop(store);
    let store = open(directory.path());
    assert_eq!(store.collections()[0].dimensions, 2);
    assert_eq!(store.get("mixed", b"a").unwrap(), Some(document));
    assert_eq!(store.search(&Query::vector([1.0, 0.0])).unwrap().hits[0].key, b"b");
    assert_eq!(store.stats().unwrap().collections[0].records, 3);
    store.create_collection("mixed", CollectionOptions::Documents).unwrap();
    let options = CollectionOptions::Documents;
    let kept = store.create_collection_with_versions("mixed", options, 3).unwrap_err();
    assert_eq!(kept.kind(), ErrorKind::Invalid);
}

/// One that is longer than the text may be is stored in another form, which nobody notices.
#[test]
fn large_documents_come_back_in_every_byte() {
    let directory = scratch::in_memory();
    let store = open(directory.path());
    let row = r#"{"id": 1.50, "name": "\u00e9/é", "name": [1e5, -0, null, true], "o": {}}"#;
    let regular = format!("[{}]", vec![row; 40_000].join(", "));
    let irregular = regular.replacen(", ", " ,", 1);
    let deep = format!("{}{}", "[".repeat(128), "]".repeat(128));
    for (key, json) in [("regular", regular), ("irregular", irregular), ("deep", deep)] {
        let record = Record::new(key).with_payload(Payload::Json(json.into()));
        store.put(STATE_COLLECTION, &record).unwrap();
        assert!(store.get(STATE_COLLECTION, key.as_bytes()).unwrap() == Some(record), "{key}");
    }
    let len_bytes =
        |key: &str| store.history(STATE_COLLECTION, key.as_bytes()).unwrap()[0].len_bytes;
    assert!(len_bytes("regular") < len_bytes("irregular") / 2, "{}", len_bytes("regular"));
    let too_deep = format!("{}{}", "[".repeat(129), "]".repeat(129));
    let record = Record::new("deep").with_payload(Payload::Json(too_deep.into()));
    assert_eq!(store.put(STATE_COLLECTION, &record).unwrap_err().kind(), ErrorKind::Invalid);
}

/// Writers replace what expires while it is collected: none of what they put may go.
#[test]
fn what_is_put_anew_is_not_collected() {
    const KEYS_COUNT: usize = 20;
    const ROUNDS_COUNT: usize = 30;
    let directory = scratch::in_memory();
    let store = open(directory.path());
    let record = |key: usize| Record::new(key.to_string()).with_vector([key as f32, 1.0]);
    let expired: Vec<Record> = (0..KEYS_COUNT).map(|key| record(key).with_expiry(1)).collect();
    let lasting: Vec<Record> = (0..KEYS_COUNT).map(record).collect();
    for _ in 0..ROUNDS_COUNT {
        store.put_batch("all", &expired).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| store.collect_expired(u64::MAX).unwrap());
            scope.spawn(|| {
                for one in &lasting {
                    store.put("all", one).unwrap();
                }
            });
        });
        let found = store.search(&Query::vector([1.0, 1.0]).limit(2 * KEYS_COUNT)).unwrap();
        assert_eq!(found.hits.len(), KEYS_COUNT);
        assert!(
            lasting.iter().all(|one| store.get("all", &one.key).unwrap().as_ref() == Some(one))
        );
        assert_eq!(store.collect_expired(u64::MAX).unwrap(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// What a walk through two stores finds is what maps of them differ by.
    #[test]
    fn differences_are_those_of_maps(before in vec(record(), 0..8), after in vec(record(), 0..8)) {
        let directory = scratch::in_memory();
        let fill = |name: &str, records: &[Record]| {
            let store = Store::open(StoreConfig::new(directory.path().join(name))).unwrap();
            let options = CollectionOptions::Given {
                dimensions: 1,
                metric: Metric::Dot,
                encoding: Encoding::F32,
            };
            store.create_collection(NAME, options).unwrap();
            store.put_batch(NAME, records).unwrap();
            store
        };
        let (first, second) = (fill("first", &before), fill("second", &after));
        let map = |store: &Store| -> BTreeMap<Vec<u8>, Record> {
            let records = store.scan(NAME, b"").unwrap();
            records.map(|record| record.map(|record| (record.key.clone(), record)).unwrap()).collect()
        };
        let (mut expected, mut later) = (BTreeMap::new(), map(&second));
        for (key, record) in map(&first) {
            let after = later.remove(&key);
            if after.as_ref() != Some(&record) {
                expected.insert(key, (Some(record), after));
            }
        }
        expected.extend(later.into_iter().map(|(key, record)| (key, (None, Some(record)))));
        let found = first.differences(&second, NAME, b"").unwrap();
        let found: Vec<_> = found
            .map(|found| found.map(|found| (found.key, (found.before, found.after))).unwrap())
            .collect();
        prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
    }
}
