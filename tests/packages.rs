//! Twenty questions to all packages of the distribution: does meaning find what people mean?
//!
//! The questions and the packages that count as answers, in `data/package_queries.tsv`, were
//! written before anybody looked at a result. The store is kept between runs in the user's cache:
//! the first run embeds some 60,000 texts and says how far it is, later ones embed none.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use op_dbus_engine::{PutReport, Query, Record, Store, StoreConfig};
use op_dbus_formats::exchange::jsonl;
use support::{model, scratch};

const COLLECTION: &str = "packages";
const QUERIES_COUNT: usize = 20;
/// How many questions must have an accepted package among the first [`RANK_MAX`] hits.
const ANSWERED_MIN: usize = 17;
const RANK_MAX: usize = 5;
/// How far the table looks for an accepted package.
const RANK_SHOWN_MAX: usize = 100;
/// Fewer would be the slice of the demonstration, or a broken list.
const PACKAGES_MIN: usize = 30_000;
const BATCH_COUNT: usize = 1024;
const NOTE_EVERY: Duration = Duration::from_secs(10);

struct Question {
    text: String,
    accepted: BTreeSet<Vec<u8>>,
}

fn questions() -> Vec<Question> {
    let text = fs::read_to_string(scratch::data("package_queries.tsv")).unwrap();
    let questions: Vec<_> = text
        .lines()
        .map(|line| {
            let (text, names) = line.split_once('\t').unwrap();
            let accepted = names.split(' ').map(|name| name.as_bytes().to_vec()).collect();
            Question { text: text.to_owned(), accepted }
        })
        .collect();
    assert_eq!(questions.len(), QUERIES_COUNT);
    questions
}

fn packages() -> Vec<Record> {
    let path = scratch::cache_directory().join("demo/packages.jsonl");
    let lines = fs::read(&path).unwrap_or_else(|error| {
        panic!(
            "{}: {error}; make it with `cli/demo/list_packages.py {}`",
            path.display(),
            path.parent().unwrap().display()
        )
    });
    let packages: Vec<Record> = lines
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .zip(1..)
        .map(|(line, number)| {
            let parsed = jsonl::parse_line(line, number)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            Record {
                key: parsed.key.into_owned(),
                text: parsed.text.map(Into::into),
                vector: parsed.vector,
                payload: parsed.payload.into_owned(),
                expires_at_unix_ms: parsed.expires_at_unix_ms,
            }
        })
        .collect();
    let count = packages.len();
    assert!(count >= PACKAGES_MIN, "{} has only {count} packages", path.display());
    packages
}

/// Opens the kept store. One that another model or another format made is made anew.
fn open_kept(path: &Path) -> Store {
    let config = StoreConfig::new(path).with_embedder(model::config());
    let opened = Store::open(config.clone()).and_then(|store| {
        let fingerprint = store.embedder()?.fingerprint();
        let same = store.collections().iter().all(|known| known.model == Some(fingerprint));
        Ok(same.then_some(store))
    });
    match opened {
        Ok(Some(store)) => return store,
        Ok(None) => println!("the kept store is of another model; making it anew"),
        Err(error) if error.kind() == op_dbus_engine::ErrorKind::Unsupported => {
            println!("the kept store has another format; making it anew");
        }
        Err(error) => panic!("{error}; if it lasts, remove {}", path.display()),
    }
    fs::remove_dir_all(path).unwrap();
    Store::open(config).unwrap()
}

/// Removes packages that the distribution no longer has.
fn remove_gone(store: &Store, packages: &[Record]) {
    let wanted: BTreeSet<&[u8]> = packages.iter().map(|package| &package.key[..]).collect();
    let known = store.collections().iter().any(|known| known.name == COLLECTION);
    let gone: Vec<Vec<u8>> = if known {
        store
            .scan(COLLECTION, b"")
            .unwrap()
            .map(|record| record.unwrap().key)
            .filter(|key| !wanted.contains(&key[..]))
            .collect()
    } else {
        Vec::new()
    };
    for key in gone {
        store.remove(COLLECTION, &key).unwrap();
    }
}

fn index(store: &Store, packages: &[Record]) -> PutReport {
    let started = Instant::now();
    let mut noted = started;
    let mut report = PutReport::default();
    for batch in packages.chunks(BATCH_COUNT) {
        report += store.put_batch(COLLECTION, batch).unwrap();
        if noted.elapsed() >= NOTE_EVERY {
            noted = Instant::now();
            let (done, all, took) = (report.records, packages.len(), started.elapsed().as_secs());
            // Standard error, which the test harness does not hold back from a person who waits.
            eprintln!("{done} of {all} packages after {took} s, {} embedded", report.embedded);
        }
    }
    report
}

/// The place of the first accepted package, from 1, and the first hit's name.
fn rank(store: &Store, question: &Question) -> (Option<usize>, String) {
    let query = Query::text(&*question.text).collection(COLLECTION).limit(RANK_SHOWN_MAX);
    let hits = store.search(&query).unwrap().hits;
    let place = hits.iter().position(|hit| question.accepted.contains(&hit.key));
    (place.map(|place| place + 1), String::from_utf8_lossy(&hits[0].key).into_owned())
}

fn kept_path() -> PathBuf {
    scratch::cache_directory().join("test/packages")
}

#[test]
fn questions_find_the_packages_people_mean() {
    let packages = packages();
    let questions = questions();
    let store = open_kept(&kept_path());
    remove_gone(&store, &packages);
    let first = index(&store, &packages);
    assert_eq!(first.records, packages.len() as u64);
    let again = index(&store, &packages);
    assert_eq!((again.embedded, again.unchanged), (0, packages.len() as u64));

    println!("{:>4}  {:<48}  first hit", "rank", "question");
    let mut answered = 0;
    for question in &questions {
        let (rank, first) = rank(&store, question);
        answered += usize::from(rank.is_some_and(|rank| rank <= RANK_MAX));
        let shown = rank.map_or_else(|| format!(">{RANK_SHOWN_MAX}"), |rank| rank.to_string());
        println!("{shown:>4}  {:<48}  {first}", question.text);
    }
    println!("{answered} of {QUERIES_COUNT} answered within the first {RANK_MAX}");
    store.close();
    assert!(answered >= ANSWERED_MIN, "only {answered} of {QUERIES_COUNT} were answered");
}

/// The questions must be answerable: each has an accepted package in the list.
#[test]
fn every_question_has_an_answer_in_the_list() {
    let packages = packages();
    let names: BTreeSet<&[u8]> = packages.iter().map(|package| &package.key[..]).collect();
    for question in questions() {
        let known = question.accepted.iter().any(|name| names.contains(&name[..]));
        assert!(known, "no package answers {:?}", question.text);
    }
}
