//! The store against a model of it: after any operations both give the same answers.
//!
//! The model is a map for each collection, and a search that compares with every vector in double
//! precision. Operations that must fail are among them: they must fail in the right way and
//! change nothing. What is drawn is small on purpose, so that keys meet again, vectors are equal
//! and scores tie.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use op_dbus_engine::{
    Answer, CollectionOptions, Encoding, ErrorKind, Hit, LIMIT_MAX, Metric, Payload, PutReport,
    Query, Record, Result, Store, StoreConfig,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::FileFailurePersistence;
use support::scratch;

const METRICS: [Metric; 3] = [Metric::Cosine, Metric::Dot, Metric::Euclidean];
/// The last one is not a name.
const NAMES: [&str; 4] = ["alpha", "beta", "gamma", "Not a name"];
/// Each is a prefix of others, and some end where a prefix has no successor.
const KEYS: [&[u8]; 9] =
    [b"a", b"a\0", b"ab", b"abc", b"b", b"\xff", b"\xff\xff", b"\xff\xff\0", "ключ".as_bytes()];
const PREFIXES: [&[u8]; 6] = [b"", b"a", b"ab", b"\xff", b"\xff\xff", b"nothing"];
const JSON: [&str; 4] = ["null", "[1.0, 1e3]", r#"{"b":1,"a":{"":"\u00e9"}}"#, "\"text\""];
const NOT_JSON: &str = "{\"a\":}";

/// How many histories are played, unless `PROPTEST_CASES` says it.
const CASES_COUNT: u32 = 250;

#[derive(Clone, Debug)]
enum Operation {
    Create { name: &'static str, dimensions: u32, metric: Metric },
    Put { name: &'static str, records: Vec<Record> },
    Get { name: &'static str, key: &'static [u8] },
    Remove { name: &'static str, key: &'static [u8] },
    Scan { name: &'static str, prefix: &'static [u8] },
    Search(Search),
    Reopen { close: bool },
}

#[derive(Clone, Debug)]
struct Search {
    names: Vec<&'static str>,
    vector: Vec<f32>,
    limit: usize,
    min_score: Option<f32>,
}

fn number() -> impl Strategy<Value = f32> {
    prop_oneof![
        6 => (-2_i8..=2).prop_map(f32::from),
        1 => -1.0_f32..1.0,
        1 => select(vec![-0.0, 1e-3, 1.5]),
    ]
}

fn vector(dimensions: usize) -> impl Strategy<Value = Vec<f32>> {
    let wrong = select(vec![0, 1, dimensions + 1]).prop_flat_map(|wrong| vec(number(), wrong));
    prop_oneof![
        40 => vec(number(), dimensions),
        4 => Just(vec![0.0; dimensions]),
        4 => Just(vec![1.0; dimensions]),
        2 => wrong,
        1 => select(vec![f32::NAN, f32::INFINITY]).prop_map(move |bad| vec![bad; dimensions]),
    ]
}

fn payload() -> impl Strategy<Value = Payload<'static>> {
    prop_oneof![
        5 => Just(Payload::None),
        5 => select(&JSON[..]).prop_map(|json| Payload::Json(json.into())),
        5 => vec(any::<u8>(), 0..6).prop_map(|bytes| Payload::Bytes(bytes.into())),
        1 => Just(Payload::Json(NOT_JSON.into())),
    ]
}

fn record(dimensions: usize) -> impl Strategy<Value = Record> {
    let vector = prop_oneof![12 => vector(dimensions).prop_map(Some), 2 => Just(None)];
    let text = prop_oneof![8 => Just(None), 1 => Just(Some("words".to_owned()))];
    (select(&KEYS[..]), text, vector, payload()).prop_map(|(key, text, vector, payload)| Record {
        key: key.to_vec(),
        text,
        vector,
        payload,
        expires_at_unix_ms: None,
    })
}

fn search(dimensions: usize) -> impl Strategy<Value = Operation> {
    let limit = prop_oneof![8 => 1_usize..12, 1 => Just(LIMIT_MAX), 1 => Just(0)];
    let min_score = prop_oneof![4 => Just(None), 1 => (-1.0_f32..1.0).prop_map(Some)];
    let names = vec(select(&NAMES[..3]), 0..3);
    (names, vector(dimensions), limit, min_score).prop_map(|(names, vector, limit, min_score)| {
        Operation::Search(Search { names, vector, limit, min_score })
    })
}

fn operation(dimensions: usize) -> impl Strategy<Value = Operation> {
    // Few histories name the impossible collection, or nothing would ever be in one.
    let name = || prop_oneof![12 => select(&NAMES[..3]), 1 => Just(NAMES[3])];
    let key = || select(&KEYS[..]);
    let right = dimensions as u32;
    let dimensions_any = prop_oneof![10 => Just(right), 1 => Just(right + 1), 1 => Just(0)];
    prop_oneof![
        3 => (name(), dimensions_any, select(&METRICS[..])).prop_map(
            |(name, dimensions, metric)| Operation::Create { name, dimensions, metric }
        ),
        8 => (name(), vec(record(dimensions), 0..5))
            .prop_map(|(name, records)| Operation::Put { name, records }),
        2 => (name(), key()).prop_map(|(name, key)| Operation::Get { name, key }),
        3 => (name(), key()).prop_map(|(name, key)| Operation::Remove { name, key }),
        2 => (name(), select(&PREFIXES[..]))
            .prop_map(|(name, prefix)| Operation::Scan { name, prefix }),
        6 => search(dimensions),
        1 => any::<bool>().prop_map(|close| Operation::Reopen { close }),
    ]
}

fn history() -> impl Strategy<Value = Vec<Operation>> {
    // Below, at and above the lengths at which kernels change their stride.
    select(vec![1, 2, 3, 8, 17]).prop_flat_map(|dimensions| vec(operation(dimensions), 1..32))
}

/// What the store is, without files.
#[derive(Default)]
struct Model {
    collections: BTreeMap<&'static str, Collection>,
    sequence: u64,
}

#[derive(Clone)]
struct Collection {
    dimensions: u32,
    metric: Metric,
    records: BTreeMap<Vec<u8>, Record>,
}

impl Model {
    fn collection(&self, name: &str) -> Result<&Collection, ErrorKind> {
        self.collections.get(name).ok_or(ErrorKind::NotFound)
    }

    fn create(
        &mut self,
        name: &'static str,
        dimensions: u32,
        metric: Metric,
    ) -> Result<(), ErrorKind> {
        if let Some(known) = self.collections.get(name) {
            let same = (known.dimensions, known.metric) == (dimensions, metric);
            if known.dimensions > 0 || dimensions == 0 {
                return if same && dimensions > 0 { Ok(()) } else { Err(ErrorKind::Invalid) };
            }
        }
        if name == NAMES[3] || dimensions == 0 {
            return Err(ErrorKind::Invalid);
        }
        let known = self.collections.remove(name);
        let records = known.map(|known| known.records).unwrap_or_default();
        self.collections.insert(name, Collection { dimensions, metric, records });
        Ok(())
    }

    fn put(&mut self, name: &'static str, records: &[Record]) -> Result<PutReport, ErrorKind> {
        if records.is_empty() {
            return Ok(PutReport::default());
        }
        if records.iter().any(|record| !is_valid(record)) {
            return Err(ErrorKind::Invalid);
        }
        // The first record with something to embed decides what the vectors are.
        let first = records.iter().find(|one| one.vector.is_some() || one.text.is_some());
        let mut collection = match (self.collections.get(name), first) {
            (Some(collection), None) => collection.clone(),
            (Some(collection), Some(_)) if collection.dimensions > 0 => collection.clone(),
            (Some(collection), Some(first)) => {
                Collection { records: collection.records.clone(), ..new_collection(name, first)? }
            }
            (None, Some(first)) => new_collection(name, first)?,
            (None, None) if name == NAMES[3] => return Err(ErrorKind::Invalid),
            (None, None) => {
                Collection { dimensions: 0, metric: Metric::Cosine, records: BTreeMap::new() }
            }
        };
        let lengths = records.iter().filter_map(|record| Some(record.vector.as_ref()?.len()));
        if lengths.into_iter().any(|length| length != collection.dimensions as usize) {
            return Err(ErrorKind::Invalid);
        }
        if records.iter().any(|record| record.text.is_some() && record.vector.is_none()) {
            return Err(ErrorKind::Unavailable);
        }
        let mut report = PutReport { records: records.len() as u64, ..PutReport::default() };
        let last_of_each: BTreeMap<_, _> =
            records.iter().map(|record| (record.key.clone(), record)).collect();
        for (key, record) in last_of_each {
            match collection.records.insert(key, record.clone()) {
                Some(before) if is_same(&before, record) => report.unchanged += 1,
                _ => self.sequence += 1,
            }
        }
        self.collections.insert(name, collection);
        Ok(report)
    }

    fn remove(&mut self, name: &str, key: &[u8]) -> Result<bool, ErrorKind> {
        let collection = self.collections.get_mut(name).ok_or(ErrorKind::NotFound)?;
        let removed = collection.records.remove(key).is_some();
        self.sequence += u64::from(removed);
        Ok(removed)
    }

    /// The collections that a search looks at.
    fn searched(&self, search: &Search) -> Result<Vec<(&'static str, &Collection)>, ErrorKind> {
        let finite = search.vector.iter().all(|number| number.is_finite());
        if !(1..=LIMIT_MAX).contains(&search.limit) || !finite {
            return Err(ErrorKind::Invalid);
        }
        let fits = |collection: &Collection| {
            collection.dimensions > 0 && collection.dimensions as usize == search.vector.len()
        };
        let names: BTreeSet<_> = search.names.iter().copied().collect();
        for name in &search.names {
            self.collection(name)?;
        }
        if names.iter().any(|name| !fits(&self.collections[name])) {
            return Err(ErrorKind::Invalid);
        }
        let chosen: Vec<_> = self
            .collections
            .iter()
            .filter(|(name, _)| names.is_empty() || names.contains(*name))
            .map(|(name, collection)| (*name, collection))
            .filter(|(_, collection)| fits(collection))
            .collect();
        let Some((_, first)) = chosen.first() else { return Err(ErrorKind::NotFound) };
        if chosen.iter().any(|(_, collection)| collection.metric != first.metric) {
            return Err(ErrorKind::Invalid);
        }
        Ok(chosen)
    }
}

fn new_collection(name: &str, first: &Record) -> Result<Collection, ErrorKind> {
    match &first.vector {
        _ if name == NAMES[3] => Err(ErrorKind::Invalid),
        Some(vector) if vector.is_empty() => Err(ErrorKind::Invalid),
        Some(vector) => Ok(Collection {
            dimensions: vector.len() as u32,
            metric: Metric::Cosine,
            records: BTreeMap::new(),
        }),
        // It would be of the model, and the store has none.
        None => Err(ErrorKind::Unavailable),
    }
}

fn is_valid(record: &Record) -> bool {
    let finite = record.vector.iter().flatten().all(|number| number.is_finite());
    finite && record.payload != Payload::Json(NOT_JSON.into())
}

/// Equal in every bit: the negative zero is not the positive one.
fn is_same(a: &Record, b: &Record) -> bool {
    let bits = |record: &Record| -> Option<Vec<u32>> {
        Some(record.vector.as_ref()?.iter().map(|number| number.to_bits()).collect())
    };
    (&a.key, &a.text, &a.payload, bits(a)) == (&b.key, &b.text, &b.payload, bits(b))
}

fn assert_same<'a>(
    found: impl Iterator<Item = Result<Record>>,
    expected: impl Iterator<Item = &'a Record>,
) {
    let found: Vec<Record> = found.collect::<Result<_>>().unwrap();
    let expected: Vec<&Record> = expected.collect();
    let same = found.len() == expected.len()
        && found.iter().zip(&expected).all(|(found, expected)| is_same(found, expected));
    assert!(same, "found {found:?}\nexpected {expected:?}");
}

/// A record that could be found: how near it is, and what the answer says about that.
#[derive(Clone, Debug, PartialEq)]
struct Candidate<'a> {
    nearness: f64,
    score: f64,
    name: &'static str,
    record: &'a Record,
}

fn candidate<'a>(
    name: &'static str,
    metric: Metric,
    query: &[f32],
    record: &'a Record,
) -> Option<Candidate<'a>> {
    let vector = record.vector.as_ref()?;
    let sum = |term: &dyn Fn(f64, f64) -> f64| -> f64 {
        query.iter().zip(vector).map(|(&a, &b)| term(a.into(), b.into())).sum()
    };
    let (nearness, score) = match metric {
        Metric::Dot => (sum(&|a, b| a * b), sum(&|a, b| a * b)),
        Metric::Cosine => {
            let norms = (sum(&|a, _| a * a) * sum(&|_, b| b * b)).sqrt();
            let cosine = if norms == 0.0 { 0.0 } else { sum(&|a, b| a * b) / norms };
            (cosine, cosine)
        }
        Metric::Euclidean => {
            let square = sum(&|a, b| (a - b) * (a - b));
            (-square, 1.0 / (1.0 + square))
        }
    };
    // The negative zero would order before its equal.
    Some(Candidate { nearness: nearness + 0.0, score, name, record })
}

/// What single precision may make of a sum of a few dozen terms.
fn tolerance(value: f64) -> f64 {
    1e-5 * (1.0 + value.abs())
}

fn assert_answer(search: &Search, searched: &[(&'static str, &Collection)], answer: &Answer) {
    let metric = searched[0].1.metric;
    let mut candidates: Vec<_> = searched
        .iter()
        .flat_map(|(name, collection)| {
            collection.records.values().map(move |record| (name, record))
        })
        .filter_map(|(name, record)| candidate(name, metric, &search.vector, record))
        .collect();
    let compared = answer.explain.collections.iter().map(|done| done.full_hot);
    assert_eq!(compared.sum::<u64>(), candidates.len() as u64);
    assert_eq!(answer.explain.embedding_hit, None);
    candidates.sort_by(|a, b| {
        b.nearness
            .total_cmp(&a.nearness)
            .then_with(|| (a.name, &a.record.key).cmp(&(b.name, &b.record.key)))
    });
    let found: Vec<&Candidate<'_>> = answer.hits.iter().map(|hit| find(&candidates, hit)).collect();
    assert_count(search, &candidates, answer.hits.len());
    for (index, (hit, found)) in answer.hits.iter().zip(&found).enumerate() {
        assert!((f64::from(hit.score) - found.score).abs() <= tolerance(found.score), "{hit:?}");
        let best = &candidates[index];
        assert!(
            (found.nearness - best.nearness).abs() <= tolerance(best.nearness),
            "at {index} of {:?}: {found:?}, but {best:?} is nearer",
            answer.hits
        );
    }
    // Whole numbers have no rounding error, so here even the order of equals must be right.
    let whole = |vector: &[f32]| vector.iter().all(|number| number.fract() == 0.0);
    let exact = whole(&search.vector)
        && candidates.iter().all(|candidate| candidate.record.vector.as_deref().is_some_and(whole));
    if exact && metric != Metric::Cosine {
        assert!(found.iter().zip(&candidates).all(|(found, expected)| **found == *expected));
    }
    assert_ties(&answer.hits, &found, metric);
}

/// Finds what a hit is about, and checks that it says the truth about it.
fn find<'a, 'r>(candidates: &'a [Candidate<'r>], hit: &Hit) -> &'a Candidate<'r> {
    let candidate = candidates
        .iter()
        .find(|candidate| candidate.name == hit.collection && candidate.record.key == hit.key)
        .unwrap_or_else(|| panic!("{hit:?} is not stored"));
    let record = candidate.record;
    assert_eq!((&hit.text, &hit.payload), (&record.text, &record.payload));
    candidate
}

fn assert_count(search: &Search, candidates: &[Candidate<'_>], found: usize) {
    let at_least = |least: f64| {
        candidates.iter().filter(|candidate| candidate.score >= least).count().min(search.limit)
    };
    let (fewest, most) = match search.min_score.map(f64::from) {
        None => (at_least(f64::NEG_INFINITY), at_least(f64::NEG_INFINITY)),
        Some(least) => (at_least(least + tolerance(least)), at_least(least - tolerance(least))),
    };
    assert!((fewest..=most).contains(&found), "{found} hits, expected {fewest} to {most}");
}

/// Nothing is found twice; equal vectors score equally; equal scores are in order of their names.
fn assert_ties(hits: &[Hit], found: &[&Candidate<'_>], metric: Metric) {
    let distinct: BTreeSet<_> = hits.iter().map(|hit| (&hit.collection, &hit.key)).collect();
    assert_eq!(distinct.len(), hits.len(), "a record was found twice: {hits:?}");
    for (index, pair) in hits.windows(2).enumerate() {
        if found[index].record.vector == found[index + 1].record.vector {
            assert_eq!(pair[0].score.to_bits(), pair[1].score.to_bits(), "{pair:?}");
        }
        // A Euclidean score rounds what the order still tells apart.
        if pair[0].score == pair[1].score && metric != Metric::Euclidean {
            let name = |hit: &Hit| (hit.collection.clone(), hit.key.clone());
            assert!(name(&pair[0]) < name(&pair[1]), "{pair:?}");
        }
    }
}

fn open(path: &Path) -> Store {
    Store::open(StoreConfig::new(path)).unwrap()
}

fn kind<T>(result: Result<T>) -> Result<T, ErrorKind> {
    result.map_err(|error| error.kind())
}

/// Plays one operation on both and compares the answers.
fn play(store: Store, path: &Path, model: &mut Model, operation: &Operation) -> Store {
    match operation {
        Operation::Create { name, dimensions, metric } => {
            let options = CollectionOptions::Given {
                dimensions: *dimensions,
                metric: *metric,
                encoding: Encoding::F32,
            };
            let created = kind(store.create_collection(name, options));
            assert_eq!(created, model.create(name, *dimensions, *metric));
        }
        Operation::Put { name, records } => {
            let report = match &records[..] {
                [record] => store.put(name, record),
                records => store.put_batch(name, records),
            };
            assert_eq!(kind(report), model.put(name, records));
        }
        Operation::Get { name, key } => {
            let expected = model.collection(name).map(|collection| collection.records.get(*key));
            match (kind(store.get(name, key)), expected) {
                (Ok(found), Ok(expected)) => {
                    assert_same(found.into_iter().map(Ok), expected.into_iter());
                }
                (found, expected) => assert_eq!(found.err(), expected.err()),
            }
        }
        Operation::Remove { name, key } => {
            assert_eq!(kind(store.remove(name, key)), model.remove(name, key));
        }
        Operation::Scan { name, prefix } => {
            match (store.scan(name, prefix), model.collection(name)) {
                (Ok(scan), Ok(collection)) => {
                    let starts = |record: &&Record| record.key.starts_with(prefix);
                    assert_same(scan, collection.records.values().filter(starts));
                }
                (found, expected) => assert_eq!(kind(found.map(drop)).err(), expected.err()),
            }
        }
        Operation::Search(search) => play_search(&store, model, search),
        Operation::Reopen { close } => {
            if *close {
                store.close();
            } else {
                drop(store);
            }
            return open(path);
        }
    }
    store
}

fn play_search(store: &Store, model: &Model, search: &Search) {
    let mut query = Query::vector(search.vector.clone()).limit(search.limit);
    for name in &search.names {
        query = query.collection(*name);
    }
    if let Some(score) = search.min_score {
        query = query.min_score(score);
    }
    match (kind(store.search(&query)), model.searched(search)) {
        (Ok(answer), Ok(searched)) => assert_answer(search, &searched, &answer),
        (found, expected) => assert_eq!(found.err(), expected.err()),
    }
}

fn play_history(history: &[Operation]) {
    let directory = scratch::in_memory();
    let mut store = open(directory.path());
    let mut model = Model::default();
    for operation in history {
        store = play(store, directory.path(), &mut model, operation);
    }
    assert_equal(&store, &model);
    drop(store);
    assert_equal(&open(directory.path()), &model);
}

/// Compares everything there is.
fn assert_equal(store: &Store, model: &Model) {
    let stats = store.stats().unwrap();
    assert_eq!(stats.sequence, model.sequence);
    assert_eq!(stats.collections.len(), model.collections.len());
    let known = store.collections();
    for ((found, counted), (name, expected)) in
        known.iter().zip(&stats.collections).zip(&model.collections)
    {
        assert_eq!(
            (&*found.name, found.dimensions, found.metric, found.model),
            (*name, expected.dimensions, expected.metric, None)
        );
        assert_eq!((&*counted.name, counted.records), (*name, expected.records.len() as u64));
        assert_same(store.scan(name, b"").unwrap(), expected.records.values());
    }
}

fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").map_or(CASES_COUNT, |_| default.cases),
        max_shrink_iters: 2000,
        max_shrink_time: 60_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/data/model.proptest-regressions"
        )))),
        ..default
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_store_is_what_its_model_is(history in history()) {
        play_history(&history);
    }
}

/// What [`a_store_is_what_its_model_is`] has found, at its shortest.
#[test]
fn histories_that_once_failed() {
    let record = |vector: &[f32]| Record::new("a").with_vector(vector);
    let put = |records: Vec<Record>| Operation::Put { name: "alpha", records };
    // Named twice, a collection was searched twice.
    let names = vec!["alpha", "alpha"];
    let search = Search { names, vector: vec![0.0], limit: 1, min_score: None };
    play_history(&[put(vec![record(&[0.0])]), Operation::Search(search)]);
    // A put that failed left the collection it had made.
    play_history(&[put(vec![record(&[0.0]), record(&[])])]);
    // A collection that cannot be was found out only by the write, which then refused all others.
    let create = |dimensions| Operation::Create { name: "alpha", dimensions, metric: Metric::Dot };
    play_history(&[create(0), create(1)]);
}

/// Near vectors differ in distance where `1 / (1 + d²)` rounds to 1 for all of them.
#[test]
fn order_is_by_distance_where_scores_round() {
    let directory = scratch::in_memory();
    let store = open(directory.path());
    let options = CollectionOptions::Given {
        dimensions: 1,
        metric: Metric::Euclidean,
        encoding: Encoding::F32,
    };
    store.create_collection("near", options).unwrap();
    // The nearest has the last key, so that an order by key is the wrong one.
    for (key, distance) in [("a", 3e-5), ("b", 2e-5), ("c", 1e-5)] {
        store.put("near", &Record::new(key).with_vector([distance])).unwrap();
    }
    let answer = store.search(&Query::vector([0.0]).collection("near")).unwrap();
    let keys: Vec<_> = answer.hits.iter().map(|hit| &hit.key[..]).collect();
    assert_eq!(keys, [b"c", b"b", b"a"]);
    assert!(answer.hits.iter().all(|hit| hit.score == 1.0), "the test needs scores that round");
}

/// A search waits for no writer to finish, and finds every record that a writer was told about.
#[test]
fn what_was_acknowledged_is_found_while_others_write() {
    const WRITERS_COUNT: usize = 3;
    const RECORDS_COUNT: usize = 60;
    let directory = scratch::in_memory();
    let store = open(directory.path());
    store.put("all", &Record::new("first").with_vector([1.0, 0.0])).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS_COUNT {
            let store = &store;
            scope.spawn(move || {
                for number in 0..RECORDS_COUNT {
                    let key = format!("{writer}/{number}");
                    let direction = [1.0, (writer * RECORDS_COUNT + number) as f32];
                    store.put("all", &Record::new(&*key).with_vector(direction)).unwrap();
                    let answer = store.search(&Query::vector(direction).limit(1)).unwrap();
                    assert!(answer.hits[0].score > 0.999_999, "{key}: {answer:?}");
                }
            });
        }
    });
    let all = store.search(&Query::vector([1.0, 0.0]).limit(LIMIT_MAX)).unwrap();
    assert_eq!(all.hits.len(), 1 + WRITERS_COUNT * RECORDS_COUNT);
    assert_eq!(store.stats().unwrap().sequence, all.hits.len() as u64);
}
