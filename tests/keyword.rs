//! Searches by words beside meaning: what is found and in which order, whatever was changed, and
//! however the store is opened.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use op_dbus_engine::{
    Answer, EmbedderConfig, ErrorKind, Hit, KeywordExplain, Query, Record, Store, StoreConfig,
};
use support::random::Random;
use support::{model, scratch};

const DIMENSIONS: usize = 8;
/// As many are ranked by each order at least.
const RANKS_MIN: usize = 100;
const TEXTS: [(&str, &str); 6] = [
    ("method:org.freedesktop.login1.Manager.PowerOff", "stop the machine at once"),
    ("method:org.freedesktop.login1.Manager.Reboot", "start the machine again"),
    ("method:org.freedesktop.NetworkManager.ActivateConnection", "connect to a net"),
    ("signal:org.freedesktop.NetworkManager.StateChanged", "something is another way"),
    ("network-manager-gnome", "an applet for connections"),
    ("poweroff.target", "where the machine goes when it stops"),
];

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(scratch::on_disk());
        model::write_small(&place.0.path().join("model"), DIMENSIONS);
        place
    }

    fn config(&self) -> StoreConfig {
        let embedder = EmbedderConfig::new(self.0.path().join("model"));
        StoreConfig::new(self.store()).with_embedder(embedder)
    }

    fn store(&self) -> std::path::PathBuf {
        self.0.path().join("store")
    }

    fn open(&self) -> Store {
        Store::open(self.config()).unwrap()
    }
}

fn ask(text: &str) -> Query {
    Query::text(text).keyword()
}

fn keys(answer: &Answer) -> Vec<String> {
    let key = |hit: &Hit| String::from_utf8(hit.key.clone()).unwrap();
    answer.hits.iter().map(key).collect()
}

fn put_texts(store: &Store) {
    let record = |(key, text): &(&str, &str)| Record::new(*key).with_text(*text);
    store.put_batch("names", &TEXTS.iter().map(record).collect::<Vec<_>>()).unwrap();
}

#[test]
fn names_are_found_in_any_spelling() {
    let place = Place::new();
    let store = place.open();
    put_texts(&store);
    for (text, expected) in [
        ("power off", TEXTS[0].0),
        ("PowerOff login1", TEXTS[0].0),
        ("NetworkManager ActivateConnection", TEXTS[2].0),
        ("activateconnection", TEXTS[2].0),
        ("network-manager-gnome", TEXTS[4].0),
        ("poweroff.target", TEXTS[5].0),
    ] {
        let mut query = ask(text).limit(TEXTS.len());
        // The small model knows no meaning: what is found by words is what both find.
        let by_words = store.search(&query).unwrap();
        assert!(by_words.explain.keyword.unwrap().by_words >= 1);
        query = query.limit(2);
        assert!(keys(&store.search(&query).unwrap()).contains(&expected.to_owned()), "{text}");
    }
    // Nothing in it is an operator, and a text without words is no error.
    for text in ["\"unclosed (", "AND OR NOT", "key:[a TO z]", "*", "a^2~ /x/"] {
        store.search(&ask(text)).unwrap();
    }
    let words = store.stats().unwrap().collections[0].words.unwrap();
    assert_eq!(words.records, TEXTS.len() as u64);
    assert!(words.bytes > 100);
    store.close();
}

/// Words that are one each.
const VOCABULARY: [&str; 9] =
    ["stop", "start", "machine", "network", "the", "user", "disk", "clock", "sound"];

/// Records of two collections, by their place and key: the numbers of their words.
type Model = BTreeMap<(usize, String), Vec<usize>>;

const NAMES: [&str; 2] = ["aa", "bb"];

fn text_of(words: &[usize]) -> String {
    words.iter().map(|word| VOCABULARY[*word]).collect::<Vec<_>>().join(" ")
}

fn random_words(random: &mut Random) -> Vec<usize> {
    (0..=random.below(12)).map(|_| random.below(VOCABULARY.len())).collect()
}

/// BM25 as tantivy has it: k1 = 1.2, b = 0.75.
fn by_words(model: &Model, query: &[usize]) -> Vec<(usize, String)> {
    let count = model.len() as f32;
    // The key is two words: k7, and k.
    let length = |words: &Vec<usize>| words.len() + 2;
    let mean = model.values().map(length).sum::<usize>() as f32 / count;
    let mut scores: BTreeMap<&(usize, String), f32> = BTreeMap::new();
    let mut known = BTreeSet::new();
    for word in query {
        if !known.insert(word) {
            continue;
        }
        let frequency = |words: &Vec<usize>| words.iter().filter(|own| *own == word).count() as f32;
        let with_word = model.values().filter(|words| frequency(words) > 0.0).count() as f32;
        let weight = (1.0 + (count - with_word + 0.5) / (with_word + 0.5)).ln() * (1.0 + 1.2);
        for (place, words) in model {
            let frequency = frequency(words);
            let norm = 1.2 * (1.0 - 0.75 + 0.75 * length(words) as f32 / mean);
            if frequency > 0.0 {
                *scores.entry(place).or_insert(0.0) += weight * (frequency / (frequency + norm));
            }
        }
    }
    let mut order: Vec<_> = scores.into_iter().collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    order.into_iter().map(|(place, _)| place.clone()).collect()
}

/// Reciprocal rank fusion, so that the first of both has 1.
fn joined(orders: &[Vec<(usize, String)>]) -> Vec<((usize, String), f32)> {
    let mut scores: BTreeMap<&(usize, String), f32> = BTreeMap::new();
    for order in orders {
        for (place, rank) in order.iter().take(RANKS_MIN).zip(1_u16..) {
            *scores.entry(place).or_insert(0.0) += 61.0 / (60.0 + f32::from(rank)) / 2.0;
        }
    }
    let mut order: Vec<_> =
        scores.into_iter().map(|(place, score)| (place.clone(), score)).collect();
    // Of equal ones that is better which is further up in the last order that it is in.
    let rank = |place: &(usize, String)| {
        let in_order = |order: &&Vec<_>| order.iter().take(RANKS_MIN).position(|own| own == place);
        orders.iter().rev().find_map(|order| in_order(&order))
    };
    order.sort_by(|a, b| {
        (b.1.total_cmp(&a.1)).then_with(|| rank(&a.0).cmp(&rank(&b.0))).then_with(|| a.0.cmp(&b.0))
    });
    order
}

fn places(answer: &Answer) -> Vec<(usize, String)> {
    let collections = answer.hits.iter().map(|hit| hit.collection.as_str());
    let place = |name: &str| NAMES.iter().position(|known| *known == name).unwrap();
    collections.map(place).zip(keys(answer)).collect()
}

fn check(store: &Store, model: &Model, random: &mut Random) {
    for _ in 0..3 {
        let words = random_words(random);
        let text = text_of(&words);
        let near = store.search(&Query::text(&text).limit(RANKS_MIN)).unwrap();
        let by_words = by_words(model, &words);
        let expected = joined(&[places(&near), by_words.clone()]);
        let answer = store.search(&ask(&text).limit(50)).unwrap();
        let scores = answer.hits.iter().map(|hit| hit.score);
        let found: Vec<_> = places(&answer).into_iter().zip(scores).collect();
        assert_eq!(found, expected[..expected.len().min(50)], "{text}");
        let KeywordExplain { matched, by_meaning, by_words: ranked, by_both, .. } =
            answer.explain.keyword.unwrap();
        assert_eq!(matched, by_words.len() as u64);
        assert_eq!(ranked, by_words.len().min(RANKS_MIN) as u64);
        assert_eq!(by_meaning, near.hits.len() as u64);
        assert_eq!(by_meaning + ranked - by_both, expected.len() as u64);
    }
}

#[test]
fn the_order_is_that_of_both_whatever_was_changed() {
    let place = Place::new();
    let mut random = Random::new(5);
    let mut model = Model::new();
    let mut store = place.open();
    for round in 0..40 {
        for (at, name) in NAMES.into_iter().enumerate() {
            let mut records = BTreeMap::new();
            for _ in 0..=random.below(20) {
                records.insert(format!("k{}", random.below(150)), random_words(&mut random));
            }
            let record = |(key, words): (&String, &Vec<usize>)| {
                Record::new(key.as_bytes()).with_text(text_of(words))
            };
            store.put_batch(name, &records.iter().map(record).collect::<Vec<_>>()).unwrap();
            model.extend(records.into_iter().map(|(key, words)| ((at, key), words)));
            let key = format!("k{}", random.below(150));
            let is_there = model.remove(&(at, key.clone())).is_some();
            assert_eq!(store.remove(name, key.as_bytes()).unwrap(), is_there);
        }
        check(&store, &model, &mut random);
        if round % 10 == 9 {
            store.close();
            let reader = Store::open(place.config().to_read()).unwrap();
            check(&reader, &model, &mut random);
            reader.close();
            store = place.open();
        }
    }
    store.close();
}

#[test]
fn it_is_found_as_it_is_now_by_whoever_asks() {
    let place = Place::new();
    let store = place.open();
    put_texts(&store);
    let of_words = |store: &Store, text: &str| {
        let answer = store.search(&ask(text)).unwrap();
        answer.explain.keyword.unwrap().by_words
    };
    assert_eq!(of_words(&store, "reboot"), 1);
    let before = store.search(&ask("reboot")).unwrap().hits;
    let snapshot = store.take_snapshot("before the changes", false).unwrap();
    store.remove("names", TEXTS[1].0.as_bytes()).unwrap();
    assert_eq!(of_words(&store, "reboot"), 0);
    store.put("names", &Record::new("new").with_text("reboot, reboot")).unwrap();
    assert_eq!(of_words(&store, "reboot"), 1);
    store.put("names", &Record::new("new").with_text("nothing of it")).unwrap();
    assert_eq!(of_words(&store, "reboot"), 0);
    let now_unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let expiring = Record::new("gone").with_text("reboot soon").with_expiry(now_unix_ms + 300);
    store.put("names", &expiring).unwrap();
    assert_eq!(of_words(&store, "reboot"), 1);
    std::thread::sleep(Duration::from_millis(350));
    assert_eq!(of_words(&store, "reboot"), 0);
    assert!(!keys(&store.search(&ask("reboot soon")).unwrap()).contains(&"gone".to_owned()));
    let old = Store::open(place.config().at_snapshot(&snapshot)).unwrap();
    assert_eq!(old.search(&ask("reboot")).unwrap().hits, before);
    old.close();
    let after = store.search(&ask("machine")).unwrap().hits;
    store.close();
    let reader = Store::open(place.config().to_read()).unwrap();
    assert_eq!(reader.search(&ask("machine")).unwrap().hits, after);
    reader.close();
}

/// What the engine depends on, with what it has unless told otherwise, or with nothing that can be left out.
fn dependencies(more: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap();
    let tree = ["tree", "--offline", "--locked", "-p", "op-dbus-engine", "--edges", "normal"];
    let listed = Command::new(cargo).args(tree).args(more).output().unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    String::from_utf8(listed.stdout).unwrap()
}

#[test]
fn programs_that_need_no_words_get_no_tantivy() {
    assert!(dependencies(&[]).contains("tantivy v"));
    let without = dependencies(&["--no-default-features"]);
    assert!(without.contains("rocksdb v") && !without.contains("tantivy"), "{without}");
}

fn files(directory: &Path) -> BTreeSet<std::path::PathBuf> {
    let paths = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { [path].into() }).collect()
}

/// What cannot be old, damaged or half-written is no file.
#[test]
fn nothing_is_written_by_asking() {
    let place = Place::new();
    let store = place.open();
    put_texts(&store);
    store.close();
    let ask_once = |query: Query| {
        let reader = Store::open(place.config().to_read()).unwrap();
        reader.search(&query).unwrap();
        reader.close();
        files(&place.store())
    };
    ask_once(Query::text("machine"));
    let before = ask_once(Query::text("machine"));
    assert_eq!(ask_once(ask("machine")), before);
}

#[test]
fn filters_hold_for_what_words_find() {
    let place = Place::new();
    let store = place.open();
    let record = |number: usize| {
        let payload = format!("{{\"n\":{number}}}");
        Record::new(format!("r{number}"))
            .with_text(format!("{} number {number}", ["power", "clock"][number % 2]))
            .with_payload(op_dbus_engine::Payload::Json(payload.into()))
    };
    store.put_batch("names", &(0..2000).map(record).collect::<Vec<_>>()).unwrap();
    for (filter, expected) in [("n >= 1990", 10), ("n < 600", 10), ("n = 7", 1), ("n = 'x'", 0)] {
        let query = ask("power clock").filter(filter.parse().unwrap()).limit(10);
        let answer = store.search(&query).unwrap();
        assert_eq!(answer.hits.len(), expected, "{filter}");
        for hit in &answer.hits {
            let record = store.get("names", &hit.key).unwrap().unwrap();
            assert!(query.lets_pass("names", &record), "{filter}");
        }
        assert!(answer.explain.collections[0].filter.is_some());
        assert!(answer.explain.keyword.unwrap().by_words >= expected as u64);
    }
    store.close();
}

#[test]
fn what_has_no_words_and_what_has_no_unit_are_refused() {
    let place = Place::new();
    let store = place.open();
    put_texts(&store);
    store.put("other", &Record::new("secret").with_text("power off")).unwrap();
    let refused = |query: Query, part: &str| {
        let error = store.search(&query).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(part), "{error}");
    };
    refused(Query::vector([1.0; DIMENSIONS]).keyword(), "only a text has words");
    refused(Query::like("names", TEXTS[0].0).keyword(), "only a text has words");
    refused(ask("power").min_score(0.5), "hits have ranks");
    // What is left out is neither found nor counted.
    let alone = store.search(&ask("power off").collection("names")).unwrap();
    let without = store.search(&ask("power off").except("other")).unwrap();
    assert_eq!(without.hits, alone.hits);
    assert_eq!(without.explain.keyword.unwrap().matched, 1);
    assert_eq!(store.search(&ask("power off")).unwrap().explain.keyword.unwrap().matched, 2);
    store.close();
}

/// Changes are kept for whoever follows, and for others only the last hundred thousand.
#[test]
fn words_are_read_anew_where_changes_are_no_longer_kept() {
    let place = Place::new();
    let store = place.open();
    put_texts(&store);
    store.search(&ask("reboot")).unwrap();
    store.put("names", &Record::new("new").with_text("reboot twice")).unwrap();
    store.remove("names", TEXTS[1].0.as_bytes()).unwrap();
    let record = |number: u32| Record::new(number.to_string()).with_vector([1.0, 0.0]);
    for first in (0..130_000).step_by(10_000) {
        let records: Vec<Record> = (first..first + 10_000).map(record).collect();
        store.put_batch("vectors", &records).unwrap();
    }
    assert_eq!(store.watch(None, b"", 1).unwrap_err().kind(), ErrorKind::NotFound);
    let answer = store.search(&ask("reboot")).unwrap();
    let told = answer.explain.keyword.unwrap();
    assert_eq!((told.matched, told.by_words), (1, 1));
    assert_eq!(keys(&answer)[0], "new");
    store.close();
}

#[test]
fn askers_and_writers_do_not_wait_for_each_other() {
    let place = Place::new();
    let store = place.open();
    put_texts(&store);
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in 0..2 {
            let (store, is_done) = (&store, &is_done);
            scope.spawn(move || {
                let mut random = Random::new(seed);
                while !is_done.load(Ordering::Relaxed) {
                    let text = text_of(&random_words(&mut random));
                    let answer = store.search(&ask(&text)).unwrap();
                    assert!(!answer.hits.is_empty());
                }
            });
        }
        for number in 0..300 {
            let record =
                Record::new(format!("k{}", number % 40)).with_text(format!("disk {number}"));
            store.put("names", &record).unwrap();
        }
        is_done.store(true, Ordering::Relaxed);
    });
    let answer = store.search(&ask("disk").limit(100)).unwrap();
    assert_eq!(answer.explain.keyword.unwrap().matched, 40);
    store.close();
}
