//! One byte of a store is changed: it says so, or answers rightly and a scrub finds it.
//!
//! `OPDBUS_TEST_FLIPS` says how many bytes, or `all` (400 unless set); `OPDBUS_TEST_SEED` repeats
//! the choice. All of them are a campaign of hours, which a second run of the same command goes
//! on with.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use op_dbus_engine::{
    CollectionOptions, Encoding, ErrorKind, Metric, Record, ScrubOptions, ScrubReport, Store,
    StoreConfig,
};
use support::corruption::flips::{self, Flip, Outcome, Tally, copy};
use support::corruption::judge::Judge;
use support::corruption::sample;
use support::corruption::worker::{self, Worker};
use support::random::Random;
use support::scratch;

const FLIPS_DEFAULT: usize = 400;
/// Most of them wait: after an error in the background RocksDB takes a second to close.
const PROCESSES_COUNT: usize = 8;

#[test]
#[ignore = "the other tests run it, in processes of their own"]
fn judges_flips_for_another_process() {
    worker::serve();
}

/// Judges flips in several processes; `judged` is given each with its number.
fn judge_all(
    store: &Path,
    flips: &[(usize, Flip)],
    judged: impl FnMut(usize, &Flip, Outcome, &str) + Send,
) {
    let next = AtomicUsize::new(0);
    let judged = Mutex::new(judged);
    std::thread::scope(|scope| {
        for _ in 0..PROCESSES_COUNT {
            scope.spawn(|| {
                let mut worker = Worker::new(store);
                while let Some((number, flip)) = flips.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (outcome, why) = worker.judge(flip);
                    (judged.lock().unwrap())(*number, flip, outcome, &why);
                }
            });
        }
    });
}

#[test]
fn no_changed_byte_changes_an_answer() {
    let asked = std::env::var("OPDBUS_TEST_FLIPS").ok();
    if asked.as_deref() == Some("all") {
        return campaign();
    }
    let count = asked.map_or(FLIPS_DEFAULT, |count| count.parse().expect("a number or `all`"));
    let seed = std::env::var("OPDBUS_TEST_SEED").map_or_else(
        |_| u64::from(std::process::id()),
        |seed| seed.parse().expect("OPDBUS_TEST_SEED is a number"),
    );
    let mut random = Random::new(seed);
    let directory = scratch::in_memory();
    let store = directory.path().join("store");
    sample::write(&store).unwrap();
    let all = flips::all(&store, &mut random).unwrap();
    let chosen = flips::choose(&all, count, &mut random).into_iter().enumerate();
    let chosen: Vec<_> = chosen.collect();
    let started = Instant::now();
    let (mut tally, mut wrong) = (Tally::default(), Vec::new());
    judge_all(&store, &chosen, |_, flip, outcome, why| {
        tally.count(flip, outcome);
        if outcome == Outcome::Wrong {
            wrong.push(format!("{flip}: {why}"));
        }
    });
    finish(&tally, &wrong, started, &format!(", seed {seed}"));
}

fn finish(tally: &Tally, wrong: &[String], started: Instant, note: &str) {
    const SHOWN_COUNT: usize = 20;
    let [detected, tail, harmless, wrong_count] = tally.sums();
    println!("{tally}");
    println!(
        "ledger: flips: {} bytes changed, {detected} detected, {tail} of the log's tail, \
         {harmless} harmless, {wrong_count} wrong, {:.0} s{note}",
        detected + tail + harmless + wrong_count,
        started.elapsed().as_secs_f64()
    );
    let shown = &wrong[..wrong.len().min(SHOWN_COUNT)];
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), shown.join("\n"));
}

/// Every byte, twice. What was judged is kept in a file, and so is the store, whose random bytes
/// would be others the next time.
fn campaign() {
    let directory = scratch::cache_directory().join("test/corruption");
    let (store, judged) = (directory.join("store"), directory.join("judged"));
    if !judged.exists() {
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        sample::write(&store).unwrap();
    }
    let all = flips::all(&store, &mut Random::new(1)).unwrap();
    let mut is_judged = vec![false; all.len()];
    let (mut tally, mut wrong) = (Tally::default(), Vec::new());
    let mut file = File::options().create(true).append(true).read(true).open(&judged).unwrap();
    for line in BufReader::new(&file).lines() {
        let line = line.unwrap();
        // A line that was being written when the campaign was broken off is judged again.
        let mut fields = line.splitn(3, '\t');
        let mut next = || fields.next().unwrap_or_default();
        let (number, outcome, why) = (next().parse::<usize>(), next().parse(), next());
        if let (Ok(number), Ok(outcome)) = (number, outcome) {
            is_judged[number] = true;
            tally.count(&all[number], outcome);
            if outcome == Outcome::Wrong {
                wrong.push(format!("{}: {why}", all[number]));
            }
        }
    }
    let earlier = is_judged.iter().filter(|judged| **judged).count();
    let left = all.into_iter().enumerate().filter(|(number, _)| !is_judged[*number]);
    let left: Vec<_> = left.collect();
    let started = Instant::now();
    judge_all(&store, &left, |number, flip, outcome, why| {
        writeln!(file, "{number}\t{}\t{why}", outcome.name()).unwrap();
        tally.count(flip, outcome);
        if outcome == Outcome::Wrong {
            wrong.push(format!("{flip}: {why}"));
        }
    });
    finish(&tally, &wrong, started, &format!(", {earlier} of them judged earlier"));
    fs::remove_dir_all(directory).unwrap();
}

/// Changes a value in a database behind the engine's back: RocksDB's own checksums will be right.
fn tamper(database: &Path, family: &str, change: impl FnOnce(&mut Vec<(Vec<u8>, Vec<u8>)>)) {
    let options = rocksdb::Options::default();
    let families = rocksdb::DB::list_cf(&options, database).unwrap();
    let db = rocksdb::DB::open_cf(&options, database, families).unwrap();
    let handle = db.cf_handle(family).unwrap();
    let entries = db.iterator_cf(handle, rocksdb::IteratorMode::Start).map(Result::unwrap);
    let mut entries: Vec<(Vec<u8>, Vec<u8>)> =
        entries.map(|(key, value)| (key.into(), value.into())).collect();
    change(&mut entries);
    for (key, value) in entries {
        db.put_cf(handle, key, value).unwrap();
    }
    for family in rocksdb::DB::list_cf(&options, database).unwrap() {
        db.flush_cf(db.cf_handle(&family).unwrap()).unwrap();
    }
}

/// A sample in memory, and room for copies beside it.
struct Place {
    _directory: tempfile::TempDir,
    path: PathBuf,
    store: PathBuf,
}

impl Place {
    fn new() -> Self {
        let directory = scratch::in_memory();
        let path = directory.path().to_owned();
        let store = path.join("store");
        sample::write(&store).unwrap();
        Self { _directory: directory, path, store }
    }

    fn copy(&self) -> PathBuf {
        let copied = self.path.join("copy");
        copy(&self.store, &copied).unwrap();
        copied
    }
}

fn scrub(path: &Path) -> ScrubReport {
    let store = Store::open(StoreConfig::new(path).existing()).unwrap();
    let report = store.scrub(&ScrubOptions::default(), &mut |_| ControlFlow::Continue(())).unwrap();
    store.close();
    report
}

/// A collection has no sequence that would be missed with it.
#[test]
fn a_collection_that_was_the_last_write_is_not_lost_in_silence() {
    const END_LEN_BYTES: usize = 150;
    let place = Place::new();
    let config = || StoreConfig::new(&place.store).existing();
    let store = Store::open(config()).unwrap();
    let options =
        CollectionOptions::Given { dimensions: 2, metric: Metric::Dot, encoding: Encoding::F32 };
    store.put("given", &Record::new("before").with_vector([1.0; 4])).unwrap();
    store.create_collection("last", options).unwrap();
    drop(store);
    let logs = flips::all(&place.store, &mut Random::new(1)).unwrap();
    let logs = logs.into_iter().filter(|flip| flip.class() == "@state log" && flip.mask == 0xFF);
    let mut flips_count = 0;
    for flip in logs {
        let len = fs::metadata(place.store.join(&flip.file)).unwrap().len() as usize;
        if flip.offset + END_LEN_BYTES < len {
            continue;
        }
        flips_count += 1;
        let copied = place.copy();
        flip.apply(&copied).unwrap();
        match Store::open(StoreConfig::new(&copied).existing()) {
            Ok(store) => {
                let names: Vec<_> = store.collections().into_iter().map(|info| info.name).collect();
                assert!(names.contains(&"last".to_owned()), "{flip}: {names:?}");
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{flip}: {error}"),
        }
        fs::remove_dir_all(&copied).unwrap();
    }
    assert!(flips_count >= 50, "{flips_count}");
}

/// What the flips leave out.
#[test]
fn files_that_nobody_reads_may_as_well_be_missing() {
    let place = Place::new();
    let judge = Judge::new(&place.store, &place.path);
    let copied = place.copy();
    let mut removed_count = 0;
    for database in ["@state/db", "@cache/db"] {
        for entry in fs::read_dir(copied.join(database)).unwrap() {
            let entry = entry.unwrap();
            if flips::is_unread(entry.file_name().to_str().unwrap()) {
                fs::remove_file(entry.path()).unwrap();
                removed_count += 1;
            }
        }
    }
    assert!(removed_count >= 4, "{removed_count}");
    let (outcome, why) = judge.judge_store(&copied, |_| Ok(String::new()));
    assert_eq!(outcome, Outcome::Harmless, "{why}");
}

/// The first planted bug: without our own checksum of values nobody would notice this.
#[test]
fn a_value_that_was_changed_under_right_block_checksums_is_detected() {
    for (family, what) in [("records", "record"), ("vectors", "vector"), ("changes", "changes")] {
        let place = Place::new();
        let judge = Judge::new(&place.store, &place.path);
        let copied = place.copy();
        tamper(&copied.join("@state/db"), family, |entries| {
            let (_, value) = &mut entries[1];
            *value.last_mut().unwrap() ^= 1;
        });
        let found = |store: &Store| {
            let report = store.scrub(&ScrubOptions::default(), &mut |_| ControlFlow::Continue(()));
            Ok(report.unwrap().faults.remove(0).what)
        };
        let (outcome, why) = judge.judge_store(&copied, found);
        // Nobody reads an old change until an index is made from it.
        let expected = if family == "changes" { Outcome::Harmless } else { Outcome::Detected };
        assert_eq!(outcome, expected, "{family}: {why}");
        assert!(why.contains(&format!("the {what} ")), "{why}");
        assert_eq!(scrub(&copied).unrepaired_count, 1);
    }
}

/// The second: where every checksum is right and the answer is not, the judge must say so.
#[test]
fn the_judge_sees_a_wrong_answer_under_right_checksums() {
    let place = Place::new();
    let judge = Judge::new(&place.store, &place.path);
    let prove = |_: &Store| Ok(String::new());
    let whole = place.copy();
    assert_eq!(judge.judge_store(&whole, prove).0, Outcome::Harmless);
    fs::remove_dir_all(&whole).unwrap();

    let copied = place.copy();
    tamper(&copied.join("@state/db"), "records", |entries| entries[3].1 = entries[5].1.clone());
    let (outcome, why) = judge.judge_store(&copied, prove);
    assert_eq!(outcome, Outcome::Wrong, "{why}");
    assert!(why.starts_with("get key"), "{why}");
}

/// The third: a panic is caught, and a process that dies is noticed, named and replaced.
#[test]
fn a_panic_and_a_death_are_verdicts() {
    let place = Place::new();
    let mut worker = Worker::new(&place.store);
    let flip = |offset| Flip { file: "LOCK".into(), offset, mask: 1 };
    let (outcome, why) = worker.judge(&flip(usize::MAX));
    assert!(outcome == Outcome::Wrong && why.contains("panic"), "there is no such byte: {why}");
    assert_eq!(worker.judge(&flip(0)).0, Outcome::Harmless);
    let status = Command::new("kill").args(["-ABRT", &worker.id().unwrap().to_string()]).status();
    assert!(status.unwrap().success());
    let (outcome, why) = worker.judge(&flip(0));
    assert!(outcome == Outcome::Wrong && why.contains("signal: 6"), "{why}");
    assert_eq!(worker.judge(&flip(0)).0, Outcome::Harmless);
}

#[test]
fn a_damaged_cached_embedding_is_removed_and_computed_again() {
    let place = Place::new();
    let judge = Judge::new(&place.store, &place.path);
    let copied = place.copy();
    // Otherwise the embedding that is removed would be found there, and not be missed.
    let _ = fs::remove_dir_all(copied.join("@vectors"));
    tamper(&copied.join("@cache/db"), "embeddings", |entries| {
        *entries[0].1.last_mut().unwrap() ^= 1;
    });
    let report = scrub(&copied);
    assert_eq!((report.faults_count, report.unrepaired_count), (1, 0), "{report:?}");
    assert!(report.faults[0].what.contains("the embedding"), "{report:?}");
    assert_eq!(scrub(&copied).faults, []);
    let (outcome, why) = judge.judge_store(&copied, |_| Ok(String::new()));
    assert_eq!(outcome, Outcome::Harmless, "{why}");
    assert_eq!(scrub(&copied).embeddings, report.embeddings, "the embedding is back");
}

#[test]
fn a_damaged_file_of_the_cache_is_replaced_with_the_cache() {
    let place = Place::new();
    let judge = Judge::new(&place.store, &place.path);
    let copied = place.copy();
    // Opened once, so that no log has to be read again.
    drop(scrub(&copied));
    let table = largest_table(&copied.join("@cache/db"));
    change_byte(&table, 40);
    let report = scrub(&copied);
    assert_ne!(report.faults_count, 0);
    assert_eq!(report.unrepaired_count, 0, "{report:?}");
    assert_eq!(report.faults[0].path, table.strip_prefix(&copied).unwrap());
    assert_eq!(report.faults[0].offset, Some(0));
    let (outcome, why) = judge.judge_store(&copied, |_| Ok(String::new()));
    assert_eq!(outcome, Outcome::Harmless, "{why}");
    assert_eq!(scrub(&copied).faults, []);
}

/// The largest table holds embeddings, or records and vectors.
fn largest_table(database: &Path) -> PathBuf {
    let files = fs::read_dir(database).unwrap().map(|entry| entry.unwrap().path());
    let tables = files.filter(|path| path.extension().is_some_and(|found| found == "sst"));
    tables.max_by_key(|path| path.metadata().unwrap().len()).unwrap()
}

fn change_byte(path: &Path, offset: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[offset] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_block_of_records_is_named_with_its_keys_and_the_rest_is_verified() {
    let place = Place::new();
    let whole = scrub(&place.store);
    assert_eq!(whole.faults, []);
    assert!(whole.finished && !whole.resumed);
    let database = place.store.join("@state/db");
    let table = table_with(&database, b"\"replaced\"");
    change_byte(&table, 8);
    let report = scrub(&place.store);
    let fault = &report.faults[0];
    assert!(fault.what.contains("lost: records after"), "{fault:?}");
    assert!(fault.what.contains("of collection"), "{fault:?}");
    assert_eq!((report.faults_count, report.unrepaired_count), (1, 1), "{report:?}");
    assert_eq!(report.changes, whole.changes, "what comes after it is read");
    assert!(report.records < whole.records);
}

fn table_with(database: &Path, bytes: &[u8]) -> PathBuf {
    let files = fs::read_dir(database).unwrap().map(|entry| entry.unwrap().path());
    let mut tables = files.filter(|path| path.extension().is_some_and(|found| found == "sst"));
    let has = |path: &PathBuf| fs::read(path).unwrap().windows(bytes.len()).any(|at| at == bytes);
    tables.find(has).unwrap()
}

#[test]
fn a_scrub_that_was_broken_off_goes_on_and_tells_everything() {
    let place = Place::new();
    let whole = scrub(&place.store);
    let open = || Store::open(StoreConfig::new(&place.store).existing()).unwrap();
    let resume = ScrubOptions { resume: true, ..ScrubOptions::default() };
    let mut sessions_count = 0;
    let report = loop {
        let store = open();
        let mut steps_count = 0;
        let report = store.scrub(&resume, &mut |_| {
            steps_count += 1;
            // More than one file has, and less than all.
            if steps_count > 20 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let report = report.unwrap();
        sessions_count += 1;
        assert_eq!(report.resumed, sessions_count > 1);
        if report.finished {
            break report;
        }
        assert!(sessions_count < 50, "it does not get on");
    };
    assert!(sessions_count > 3, "{sessions_count}");
    let counts = |report: &ScrubReport| (report.records, report.embeddings, report.changes);
    assert_eq!(counts(&report), counts(&whole));
    assert_eq!(report.faults, []);

    // A finished one is not resumed.
    let again = open().scrub(&resume, &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(again.finished && !again.resumed);
    assert_eq!(counts(&again), counts(&whole));
}
