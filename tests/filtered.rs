//! Searches with filters: as many are found as asked for if so many pass, by a graph nearly the
//! nearest of them and without one exactly, however few pass and wherever they are.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::num::NonZero;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use op_dbus_engine::{
    Answer, CollectionOptions, Encoding, ErrorKind, Filter, FilterExplain, FilterPlan, LinkOptions,
    Metric, Payload, Plan, Profile, Query, Record, Store, StoreConfig,
};
use support::random::Random;
use support::scratch;

const NAME: &str = "vectors";
const DIMENSIONS: usize = 32;
const RECORDS_COUNT: usize = 20_000;
const QUERIES_COUNT: usize = 40;
const LIMIT: usize = 10;
const RECALL_MIN: f64 = 0.95;

fn open(path: &Path) -> Store {
    Store::open(StoreConfig::new(path)).unwrap()
}

/// Vectors that differ in some directions more than in others.
fn vector(random: &mut Random) -> Vec<f32> {
    let mut vector: Vec<f32> = random.vector(DIMENSIONS).iter().map(|x| 0.2 * x).collect();
    for (index, number) in random.vector(8).into_iter().enumerate() {
        for (place, element) in vector.iter_mut().enumerate() {
            *element += number * ((place * (index + 1)) as f32).sin();
        }
    }
    vector
}

/// What the store holds: a vector, and a share that says whom filters let pass.
struct Item {
    vector: Vec<f32>,
    share: f64,
}

fn key(number: usize) -> Vec<u8> {
    format!("record {number}").into_bytes()
}

fn fill(store: &Store, count: usize) -> Vec<Item> {
    let options = CollectionOptions::Given {
        dimensions: DIMENSIONS as u32,
        metric: Metric::Euclidean,
        encoding: Encoding::F32,
    };
    store.create_collection(NAME, options).unwrap();
    let mut random = Random::new(3);
    let item = |_| {
        let share = f64::from(random.fraction() + 1.0) / 2.0;
        Item { vector: vector(&mut random), share }
    };
    let items: Vec<Item> = (0..count).map(item).collect();
    let records: Vec<Record> = items.iter().zip(0..).map(record).collect();
    records.chunks(2000).for_each(|records| _ = store.put_batch(NAME, records).unwrap());
    items
}

fn record((item, number): (&Item, usize)) -> Record {
    let payload = format!(
        r#"{{"kind":"record","share":{},"first":{},"number":{number},"about":"{}"}}"#,
        item.share,
        item.vector[1],
        "words that nobody asks for ".repeat(8)
    );
    Record::new(key(number))
        .with_vector(item.vector.clone())
        .with_payload(Payload::Json(payload.into()))
}

/// Puts a record that passes no filter, each time with another payload.
fn change_another_record(store: &Store) {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let payload = NUMBER.fetch_add(1, Ordering::Relaxed).to_string();
    let record = Record::new("another").with_payload(Payload::Json(payload.into()));
    store.put(NAME, &record).unwrap();
}

fn link(store: &Store, profile: Profile) {
    let options = LinkOptions { profile, threads: NonZero::new(2).unwrap() };
    store.link(NAME, options, &mut |_, _| Ok(())).unwrap();
}

fn query(vector: &[f32], filter: &str) -> Query {
    let query = Query::vector(vector).collection(NAME).limit(LIMIT);
    if filter.is_empty() { query } else { query.filter(filter.parse::<Filter>().unwrap()) }
}

/// The nearest of the items that pass, by comparing all.
fn expected(items: &[Item], query: &[f32], passes: &dyn Fn(&Item) -> bool) -> Vec<Vec<u8>> {
    let distance = |item: &Item| -> f64 {
        item.vector.iter().zip(query).map(|(a, b)| f64::from(a - b).powi(2)).sum()
    };
    let passing = items.iter().zip(0..).filter(|(item, _)| passes(item));
    let mut near: Vec<(f64, usize)> =
        passing.map(|(item, number)| (distance(item), number)).collect();
    near.sort_by(|a, b| a.0.total_cmp(&b.0));
    near.truncate(LIMIT);
    near.into_iter().map(|(_, number)| key(number)).collect()
}

fn explained(answer: &Answer) -> (Plan, FilterExplain) {
    let done = &answer.explain.collections[0];
    (done.plan, done.filter.unwrap())
}

/// A filter, and the same in Rust.
type Case = (&'static str, fn(&Item) -> bool);

const CASES: [Case; 7] = [
    ("share < 0.5", |item| item.share < 0.5),
    ("share < 0.1", |item| item.share < 0.1),
    ("share < 0.01", |item| item.share < 0.01),
    ("share < 0.001", |item| item.share < 0.001),
    ("share < 0.0001", |item| item.share < 0.0001),
    // Those that pass are near each other, and mostly far from a query.
    ("first > 2.5", |item| item.vector[1] > 2.5),
    ("first > 1.0 and not share >= 0.5", |item| item.vector[1] > 1.0 && item.share < 0.5),
];

/// Asks many times; returns the part of the nearest that was found, and the time for each.
fn ask(store: &Store, items: &[Item], case: Case) -> (f64, Duration) {
    ask_after(store, items, case, &|| ())
}

/// The same, each time after something was done that changes no answer.
fn ask_after(
    store: &Store,
    items: &[Item],
    (filter, passes): Case,
    before: &dyn Fn(),
) -> (f64, Duration) {
    let mut random = Random::new(4);
    let (mut found_count, mut all_count, mut took) = (0, 0, Duration::ZERO);
    for _ in 0..QUERIES_COUNT {
        let vector = vector(&mut random);
        before();
        let started = Instant::now();
        let answer = store.search(&query(&vector, filter)).unwrap();
        took += started.elapsed();
        let expected = expected(items, &vector, &passes);
        let found: Vec<&Vec<u8>> = answer.hits.iter().map(|hit| &hit.key).collect();
        assert_eq!(found.len(), expected.len(), "{filter}");
        found_count += expected.iter().filter(|key| found.contains(key)).count();
        all_count += expected.len();
        let exact = store.search(&query(&vector, filter).exact()).unwrap();
        let exact: Vec<Vec<u8>> = exact.hits.into_iter().map(|hit| hit.key).collect();
        assert_eq!(exact, expected, "{filter}");
    }
    let recall = if all_count == 0 { 1.0 } else { found_count as f64 / all_count as f64 };
    (recall, took / QUERIES_COUNT as u32)
}

#[test]
fn a_graph_finds_nearly_the_nearest_of_those_that_pass() {
    let directory = scratch::in_memory();
    let store = open(directory.path());
    let items = fill(&store, RECORDS_COUNT);
    for profile in Profile::ALL {
        link(&store, profile);
        let (_, without) = ask(&store, &items, ("", |_| true));
        println!("{profile:?}: without a filter {without:?}");
        // What was found out about filters is not known after that.
        let change = || change_another_record(&store);
        for case in CASES {
            for (when, before) in [("changed", &change as &dyn Fn()), ("again", &|| ())] {
                let (recall, took) = ask_after(&store, &items, case, before);
                before();
                let answer = store.search(&query(&items[0].vector, case.0)).unwrap();
                let (plan, filter) = explained(&answer);
                let ratio = took.as_secs_f64() / without.as_secs_f64();
                println!(
                    "{:<34} {when:<8} recall {recall:.3} {took:?} x{ratio:.1} {plan:?} {filter:?}",
                    case.0
                );
                assert!(recall >= RECALL_MIN, "{profile:?} {}: {recall}", case.0);
            }
        }
    }
}

#[test]
fn the_plan_of_a_filter_is_told() {
    const COUNT: usize = 6000;
    let directory = scratch::in_memory();
    let store = open(directory.path());
    let items = fill(&store, COUNT);
    let vector = &items[0].vector;
    let ask = |filter: &str| explained(&store.search(&query(vector, filter)).unwrap());
    for has_graph in [false, true] {
        if has_graph {
            link(&store, Profile::Speed);
        }
        let (plan, filter) = ask("share < 0.5");
        assert_eq!(plan, if has_graph { Plan::Graph } else { Plan::Exact });
        assert_eq!(filter.plan, FilterPlan::Met);
        assert!(filter.tested < COUNT as u64 / 3 && filter.passed < filter.tested, "{filter:?}");
        let (plan, filter) = ask("share < 0.002");
        assert_eq!(plan, if has_graph { Plan::Scan } else { Plan::Exact });
        let passed = items.iter().filter(|item| item.share < 0.002).count() as u64;
        let all = FilterExplain { plan: FilterPlan::All, tested: COUNT as u64, passed };
        assert_eq!(filter, all);
        // Nothing is read for another query, until something changes.
        let (plan, filter) = ask("share<0.002");
        assert_eq!(plan, if has_graph { Plan::Scan } else { Plan::Exact });
        assert_eq!(filter, FilterExplain { plan: FilterPlan::Known, tested: 0, passed });
        change_another_record(&store);
        let (_, filter) = ask("share < 0.002");
        assert_eq!((filter.plan, filter.passed), (FilterPlan::All, passed));
        assert!(store.remove(NAME, b"another").unwrap());
        // What asks for no more than names reads no record.
        assert_eq!(ask("@key = 'record 9'").1.plan, FilterPlan::Met);
        let without = store.search(&query(vector, "")).unwrap();
        assert_eq!(without.explain.collections[0].filter, None);
        // What few are is walked at once.
        assert_eq!(ask("kind = 'another'").1, FilterExplain { passed: 0, ..all });
    }
}

#[test]
fn without_a_graph_exactly_the_nearest_of_those_that_pass_are_found() {
    let directory = scratch::in_memory();
    let store = open(directory.path());
    let items = fill(&store, 3000);
    for case in CASES {
        assert_eq!(ask(&store, &items, case).0, 1.0, "{}", case.0);
    }
    let mut random = Random::new(5);
    for filter in ["share < 0.5", "share < 0.01"] {
        let query = query(&vector(&mut random), filter).limit(3000);
        let hits = store.search(&query).unwrap().hits;
        let passes: Filter = filter.parse().unwrap();
        let passing = store.scan(NAME, b"").unwrap().map(Result::unwrap);
        let passing = passing.filter(|record| query.lets_pass(NAME, record)).count();
        assert_eq!(hits.len(), passing, "{passes}");
    }
}

#[test]
fn what_was_replaced_removed_or_expired_is_not_taken_for_what_it_was() {
    let directory = scratch::in_memory();
    let store = open(directory.path());
    let mut items = fill(&store, 2000);
    for profile in [None, Some(Profile::Speed)] {
        profile.iter().for_each(|profile| link(&store, *profile));
        for round in 0..3 {
            let near = expected(&items, &[0.0; DIMENSIONS], &|item| item.share < 0.5);
            let number = |key: &[u8]| -> usize {
                std::str::from_utf8(key).unwrap()["record ".len()..].parse().unwrap()
            };
            // The nearest are the first to go.
            let replaced = number(&near[0]);
            items[replaced].share = 0.9;
            store.put(NAME, &record((&items[replaced], replaced))).unwrap();
            for (key, expires) in [(&near[1], false), (&near[2], true)] {
                let item = &mut items[number(key)];
                let record = record((item, number(key))).with_expiry(1);
                item.share = 2.0;
                match expires {
                    true => _ = store.put(NAME, &record).unwrap(),
                    false => assert!(store.remove(NAME, key).unwrap()),
                }
            }
            let (recall, _) = ask(&store, &items, ("share < 0.5", |item| item.share < 0.5));
            assert!(recall >= RECALL_MIN, "{profile:?} {round}: {recall}");
            let zero = query(&[0.0; DIMENSIONS], "share < 0.5").exact();
            let found: Vec<_> =
                store.search(&zero).unwrap().hits.into_iter().map(|hit| hit.key).collect();
            assert_eq!(found, expected(&items, &[0.0; DIMENSIONS], &|item| item.share < 0.5));
        }
    }
}

#[test]
fn payloads_that_differ_and_several_collections_are_no_trouble() {
    let directory = scratch::in_memory();
    let store = open(directory.path());
    let payloads = [
        Payload::None,
        Payload::Bytes(b"{\"safe\":true}"[..].into()),
        Payload::Json("true".into()),
        Payload::Json("{\"safe\":\"true\"}".into()),
        Payload::Json("{\"safe\":true,\"n\":1}".into()),
        Payload::Json("{\"safe\":true,\"n\":\"1\"}".into()),
        // Stored as a document.
        Payload::Json(format!("{{\"long\":\"{}\",\"safe\":true}}", "x".repeat(2 << 20)).into()),
    ];
    for name in ["one", "two"] {
        for (payload, number) in payloads.iter().zip(0..) {
            let record = Record::new(format!("{number}")).with_vector([1.0, number as f32]);
            store.put(name, &record.with_payload(payload.clone())).unwrap();
        }
    }
    let keys = |filter: &str| -> Vec<String> {
        let query = Query::vector([1.0, 0.0]).limit(20).filter(filter.parse().unwrap());
        let hits = store.search(&query).unwrap().hits;
        let key = |hit: op_dbus_engine::Hit| {
            format!("{}/{}", hit.collection, String::from_utf8(hit.key).unwrap())
        };
        hits.into_iter().map(key).collect()
    };
    assert_eq!(keys("safe"), ["one/4", "two/4", "one/5", "two/5", "one/6", "two/6"]);
    assert_eq!(keys("n = 1 and @collection = 'two'"), ["two/4"]);
    assert_eq!(keys("@collection = 'one' and @key < '2'"), ["one/0", "one/1"]);
    assert_eq!(keys("exists @text"), [""; 0]);
    let query = Query::vector([1.0]).filter("safe".parse().unwrap());
    assert_eq!(store.search(&query).unwrap_err().kind(), ErrorKind::NotFound);
}
