//! Graphs of collections: with one, a store answers as without one, whatever was put, removed,
//! reopened or damaged meanwhile, and nearly all of the nearest are found.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZero;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use op_dbus_engine::{
    Answer, CollectionOptions, Encoding, Error, ErrorKind, LinkOptions, Metric, Plan, Profile,
    Query, Record, ScrubOptions, Store, StoreConfig,
};
use support::random::Random;
use support::scratch;

const NAME: &str = "vectors";
const DIMENSIONS: usize = 24;
const METRICS: [Metric; 3] = [Metric::Cosine, Metric::Dot, Metric::Euclidean];

/// What the collection holds.
type Model = BTreeMap<Vec<u8>, Vec<f32>>;

fn open(path: &Path) -> Store {
    Store::open(StoreConfig::new(path)).unwrap()
}

fn create(store: &Store, metric: Metric) {
    let dimensions = DIMENSIONS as u32;
    let options = CollectionOptions::Given { dimensions, metric, encoding: Encoding::F32 };
    store.create_collection(NAME, options).unwrap();
}

fn link(store: &Store, profile: Profile) -> Result<usize, Error> {
    let options = LinkOptions { profile, threads: NonZero::new(2).unwrap() };
    store.link(NAME, options, &mut |_, _| Ok(()))
}

/// Vectors that differ in few directions; some are equal, and some have no length.
fn vector(random: &mut Random) -> Vec<f32> {
    let mut vector = vec![0.0; DIMENSIONS];
    match random.below(30) {
        0 => {}
        1 => vector[random.below(2)] = 0.5,
        _ => {
            for (index, number) in random.vector(5).into_iter().enumerate() {
                for (place, element) in vector.iter_mut().enumerate() {
                    *element += number * ((place * (index + 1)) as f32).sin() * 0.3;
                }
            }
        }
    }
    vector
}

fn put(store: &Store, model: &mut Model, random: &mut Random, count: usize, keys: usize) {
    let record = |_| {
        let key = format!("key {}", random.below(keys));
        let vector = vector(random);
        model.insert(key.clone().into_bytes(), vector.clone());
        Record::new(key).with_vector(vector)
    };
    let records: Vec<Record> = (0..count).map(record).collect();
    store.put_batch(NAME, &records).unwrap();
}

fn remove(store: &Store, model: &mut Model, random: &mut Random, count: usize) {
    for _ in 0..count.min(model.len()) {
        let key = model.keys().nth(random.below(model.len())).unwrap().clone();
        model.remove(&key);
        assert!(store.remove(NAME, &key).unwrap());
    }
}

fn nearness(metric: Metric, a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    match metric {
        Metric::Dot => dot(a, b),
        Metric::Euclidean => 2.0 * dot(a, b) - dot(a, a) - dot(b, b),
        Metric::Cosine => {
            let norms = (dot(a, a) * dot(b, b)).sqrt();
            if norms > 0.0 { dot(a, b) / norms } else { 0.0 }
        }
    }
}

/// Compares an answer with the model; returns how many of it are among the nearest.
fn check(answer: &Answer, model: &Model, metric: Metric, query: &[f32], limit: usize) -> usize {
    let mut expected: Vec<f64> =
        model.values().map(|vector| nearness(metric, query, vector)).collect();
    expected.sort_unstable_by(|a, b| b.total_cmp(a));
    expected.truncate(limit);
    assert_eq!(answer.hits.len(), expected.len());
    assert!(answer.hits.is_sorted_by(|a, b| a.score >= b.score));
    let least = expected.last().copied().unwrap_or_default() - 1e-5;
    let is_near = |key: &Vec<u8>| {
        let vector = model.get(key).unwrap_or_else(|| panic!("{key:?} is not stored"));
        nearness(metric, query, vector) >= least
    };
    answer.hits.iter().filter(|hit| is_near(&hit.key)).count()
}

/// Asks ten times; returns the part of the nearest that was found.
fn ask(store: &Store, model: &Model, metric: Metric, random: &mut Random, is_exact: bool) -> f64 {
    let (mut hits_count, mut all_count) = (0, 0);
    for limit in [1, 5, 10, 10, 10, 10, 10, 10, 10, 40] {
        let vector = vector(random);
        let query = Query::vector(vector.clone()).collection(NAME).limit(limit);
        let query = if is_exact { query.exact() } else { query };
        let answer = store.search(&query).unwrap();
        hits_count += check(&answer, model, metric, &vector, limit);
        all_count += answer.hits.len();
        if is_exact {
            assert_eq!(hits_count, all_count, "{metric:?}");
        }
    }
    if all_count == 0 { 1.0 } else { hits_count as f64 / all_count as f64 }
}

fn plan(store: &Store) -> Plan {
    let answer = store.search(&Query::vector(vec![0.5; DIMENSIONS]).collection(NAME)).unwrap();
    answer.explain.collections[0].plan
}

fn graph_file(base: &Path) -> Option<PathBuf> {
    let files = fs::read_dir(base.join("@vectors")).unwrap().map(|entry| entry.unwrap().path());
    files.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "graph"))
}

#[test]
fn a_graph_follows_whatever_happens() {
    for (seed, metric) in (1..).zip(METRICS.into_iter().cycle().take(6)) {
        let directory = scratch::in_memory();
        let mut store = open(directory.path());
        create(&store, metric);
        let (mut model, mut random) = (Model::new(), Random::new(seed));
        assert_eq!(link(&store, Profile::Speed).unwrap_err().kind(), ErrorKind::NotFound);
        put(&store, &mut model, &mut random, 400, 900);
        let profile = Profile::ALL[seed as usize % 2];
        assert_eq!(link(&store, profile).unwrap(), model.len());
        for _ in 0..40 {
            match random.below(10) {
                0..4 => put(&store, &mut model, &mut random, 30, 900),
                4..7 => remove(&store, &mut model, &mut random, 40),
                7 => {
                    store.close();
                    store = open(directory.path());
                }
                8 => {
                    drop(store);
                    store = open(directory.path());
                }
                _ => remove(&store, &mut model, &mut random, 400),
            }
            ask(&store, &model, metric, &mut random, true);
            let recall = ask(&store, &model, metric, &mut random, false);
            assert!(recall > 0.8, "{metric:?} {}: {recall}", model.len());
        }
        remove(&store, &mut model, &mut random, usize::MAX);
        ask(&store, &model, metric, &mut random, false);
        put(&store, &mut model, &mut random, 50, 900);
        ask(&store, &model, metric, &mut random, true);
        // A graph of dot products ends with the first vector that is longer than all before.
        assert!(metric == Metric::Dot || plan(&store) != Plan::Exact);
        let had_graph = store.unlink(NAME).unwrap();
        assert!(metric == Metric::Dot || had_graph);
        assert_eq!((store.unlink(NAME).unwrap(), plan(&store)), (false, Plan::Exact));
        ask(&store, &model, metric, &mut random, true);
    }
}

#[test]
fn what_is_lost_of_a_graph_is_no_loss() {
    let directory = scratch::in_memory();
    let (mut model, mut random) = (Model::new(), Random::new(7));
    let store = open(directory.path());
    create(&store, Metric::Euclidean);
    put(&store, &mut model, &mut random, 500, 10_000);
    type Damage = fn(&Path);
    let damages: [(Damage, Plan); 4] = [
        (|path| fs::remove_file(path).unwrap(), Plan::Exact),
        (|path| fs::write(path, b"no graph").unwrap(), Plan::Exact),
        (|path| fs::write(path.with_extension("graph.damaged"), b"").unwrap(), Plan::Exact),
        (|_| {}, Plan::Graph),
    ];
    drop(store);
    for (damage, expected) in damages {
        let store = open(directory.path());
        link(&store, Profile::Compact).unwrap();
        let path = graph_file(directory.path()).unwrap();
        drop(store);
        damage(&path);
        let store = open(directory.path());
        assert_eq!(plan(&store), expected);
        ask(&store, &model, Metric::Euclidean, &mut random, true);
        assert_eq!(graph_file(directory.path()).is_some(), expected == Plan::Graph);
    }
    // A byte that a search comes by, and one that nobody but scrub does.
    let path = graph_file(directory.path()).unwrap();
    let bytes = fs::read(&path).unwrap();
    for at in (20_000..bytes.len()).step_by(16_384) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        fs::write(&path, &damaged).unwrap();
        let store = open(directory.path());
        ask(&store, &model, Metric::Euclidean, &mut random, true);
        drop(store);
        link(&open(directory.path()), Profile::Compact).unwrap();
        fs::write(&path, &damaged).unwrap();
        let store = open(directory.path());
        let report =
            store.scrub(&ScrubOptions::default(), &mut |_| ControlFlow::Continue(())).unwrap();
        assert!(report.faults.iter().any(|fault| fault.path.ends_with("1.graph")), "{report:?}");
        drop(store);
        fs::write(&path, &damaged).unwrap();
        let store = open(directory.path());
        ask(&store, &model, Metric::Euclidean, &mut random, true);
        drop(store);
        fs::write(&path, &bytes).unwrap();
    }
}

#[test]
fn searches_go_on_while_vectors_come_and_go() {
    let directory = scratch::in_memory();
    let store = open(directory.path());
    create(&store, Metric::Cosine);
    let (mut model, mut random) = (Model::new(), Random::new(8));
    put(&store, &mut model, &mut random, 2000, 100_000);
    link(&store, Profile::Speed).unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random::new(9);
            let mut asked_count = 0;
            while !is_over.load(Ordering::Relaxed) || asked_count < 100 {
                let query = Query::vector(vector(&mut random)).collection(NAME);
                // One that is removed after it was found is not told of.
                assert!(store.search(&query).unwrap().hits.len() >= 7);
                asked_count += 1;
            }
        });
        for _ in 0..30 {
            put(&store, &mut model, &mut random, 50, 100_000);
            remove(&store, &mut model, &mut random, 60);
        }
        is_over.store(true, Ordering::Relaxed);
    });
    ask(&store, &model, Metric::Cosine, &mut random, true);
    let recall = ask(&store, &model, Metric::Cosine, &mut random, false);
    assert!(recall > 0.95, "{recall}");
}

#[test]
fn cold_vectors_are_read_and_found_as_hot_ones_are() {
    let directory = scratch::in_memory();
    let (mut model, mut random) = (Model::new(), Random::new(10));
    let store = open(directory.path());
    create(&store, Metric::Cosine);
    put(&store, &mut model, &mut random, 3000, 100_000);
    link(&store, Profile::Compact).unwrap();
    let vector = vector(&mut random);
    let query = Query::vector(vector).collection(NAME);
    let search = |store: &Store| {
        let mut answer = store.search(&query).unwrap();
        (answer.hits, answer.explain.collections.remove(0))
    };
    // Nothing was read before, so nothing is hot, until it is.
    let (cold_hits, cold) = search(&store);
    let (hot_hits, hot) = search(&store);
    assert_eq!(cold_hits, hot_hits);
    assert!(cold.full_hot == 0 && (10..=12).contains(&cold.full_cold), "{cold:?}");
    assert_eq!((hot.full_hot, hot.full_cold), (cold.full_cold, 0));
    assert_eq!((cold.plan, cold.expanded, cold.compared), (hot.plan, hot.expanded, hot.compared));
}

/// Links until so many are in; returns how many were in at first, if it was ended.
fn link_some(store: &Store, profile: Profile, until: usize, count: usize) -> Option<usize> {
    let options = LinkOptions { profile, threads: NonZero::new(2).unwrap() };
    let mut heard = Vec::new();
    let ended = store.link(NAME, options, &mut |done, of| {
        heard.push((done, of));
        if done >= until { Err(Error::new(ErrorKind::Busy, "enough")) } else { Ok(()) }
    });
    assert!(heard.iter().all(|(_, of)| *of == count), "{heard:?}, not {count}");
    assert!(heard.is_sorted());
    match ended {
        Ok(linked_count) => {
            assert_eq!((linked_count, heard.last().unwrap().0), (count, count));
            None
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Busy);
            Some(heard[0].0)
        }
    }
}

#[test]
fn a_link_that_is_ended_goes_on_and_leaves_what_was() {
    let directory = scratch::in_memory();
    let (mut model, mut random) = (Model::new(), Random::new(11));
    let mut store = open(directory.path());
    create(&store, Metric::Cosine);
    put(&store, &mut model, &mut random, 1500, 100_000);
    for profile in Profile::ALL {
        link(&store, profile).unwrap();
        let path = graph_file(directory.path()).unwrap();
        let at_once = fs::read(&path).unwrap();
        assert!(store.unlink(NAME).unwrap());
        // Some end about where how much searches find is measured: when 1200 are linked.
        let mut last = 0;
        for until in [0, 40, 700, 1190, 1200, 1220, 1400] {
            let first = link_some(&store, profile, until, model.len()).unwrap();
            assert!(first >= last, "{first} were linked, and {last} before");
            last = until;
            assert!(graph_file(directory.path()).is_none() && plan(&store) == Plan::Exact);
            store.close();
            store = open(directory.path());
        }
        assert_eq!(link_some(&store, profile, usize::MAX, model.len()), None);
        assert!(fs::read(&path).unwrap() == at_once, "{profile:?}: another graph");
        // And the file that says whose they are.
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 2);
        store.unlink(NAME).unwrap();
    }
    for name in ["nothing", ""] {
        assert_eq!(store.unlink(name).unwrap_err().kind(), ErrorKind::NotFound);
    }
}

#[test]
fn a_link_goes_on_with_what_was_changed_meanwhile_or_begins_anew() {
    let directory = scratch::in_memory();
    let (mut model, mut random) = (Model::new(), Random::new(12));
    let mut store = open(directory.path());
    create(&store, Metric::Euclidean);
    put(&store, &mut model, &mut random, 2000, 2500);
    link_some(&store, Profile::Speed, 600, model.len()).unwrap();
    for round in 0..3 {
        remove(&store, &mut model, &mut random, 200);
        put(&store, &mut model, &mut random, 150, 2500);
        if round == 1 {
            store.close();
            store = open(directory.path());
        }
        let first = link_some(&store, Profile::Speed, 600 + 100 * round, model.len());
        assert!(first.unwrap() > 400, "{first:?}");
    }
    assert_eq!(link_some(&store, Profile::Speed, usize::MAX, model.len()), None);
    ask(&store, &model, Metric::Euclidean, &mut random, true);
    let recall = ask(&store, &model, Metric::Euclidean, &mut random, false);
    assert!(plan(&store) == Plan::Graph && recall > 0.95, "{recall}");
    // What is of no use is made from the beginning: of another profile, damaged, or removed.
    link_some(&store, Profile::Speed, 600, model.len()).unwrap();
    assert_eq!(link_some(&store, Profile::Compact, 600, model.len()), Some(0));
    let unfinished = graph_file(directory.path()).unwrap().with_extension("unfinished");
    let mut bytes = fs::read(&unfinished).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&unfinished, bytes).unwrap();
    let report = store.scrub(&ScrubOptions::default(), &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(report.faults.iter().any(|fault| fault.path.ends_with("1.unfinished")), "{report:?}");
    assert_eq!(link_some(&store, Profile::Compact, 600, model.len()), Some(0));
    assert!(store.unlink(NAME).unwrap() && !unfinished.exists());
    assert_eq!(link_some(&store, Profile::Compact, usize::MAX, model.len()), None);
    ask(&store, &model, Metric::Euclidean, &mut random, true);
}
