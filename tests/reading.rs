//! Stores that are opened to read: fast, beside others, and nothing is written before they are closed.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use op_dbus_engine::{ErrorKind, Query, Record, Store, StoreConfig};
use support::random::Random;
use support::{model, scratch};

const DIMENSIONS: usize = 16;

fn config(directory: &Path) -> StoreConfig {
    StoreConfig::new(directory).with_embedder(model::config())
}

fn reader(directory: &Path) -> Store {
    Store::open(config(directory).to_read()).unwrap()
}

/// Makes a store with some records, and closes it.
fn make(directory: &Path) {
    let store = Store::open(config(directory)).unwrap();
    put(&store, 0..100);
    store.close();
}

fn put(store: &Store, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let record = Record::new(number.to_string()).with_vector(vector(number));
        store.put("vectors", &record).unwrap();
    }
}

fn vector(number: u64) -> Vec<f32> {
    Random::new(number).vector(DIMENSIONS)
}

fn nearest(store: &Store, number: u64) -> Vec<u8> {
    let answer = store.search(&Query::vector(vector(number)).limit(1)).unwrap();
    answer.hits[0].key.clone()
}

/// Every file but the lock, with what is in it.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = walkdir(directory);
    entries.into_iter().map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
}

fn walkdir(directory: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.file_name().unwrap() != "LOCK")
        .flat_map(|path| if path.is_dir() { walkdir(&path) } else { vec![path] })
        .collect()
}

/// Bytes of the logs of both databases.
fn log_bytes(directory: &Path) -> u64 {
    let logs =
        walkdir(directory).into_iter().filter(|path| path.extension() == Some("log".as_ref()));
    logs.map(|path| path.metadata().unwrap().len()).sum()
}

#[test]
fn what_is_read_is_what_was_written_and_no_byte_changes() {
    let directory = scratch::on_disk();
    make(directory.path());
    let before = files(directory.path());
    let store = reader(directory.path());
    for number in 0..100 {
        assert_eq!(nearest(&store, number), number.to_string().as_bytes());
        let record = store.get("vectors", number.to_string().as_bytes()).unwrap().unwrap();
        assert_eq!(record.vector.unwrap(), vector(number));
    }
    for error in [
        store.put("vectors", &Record::new("101").with_vector(vector(101))).unwrap_err(),
        store.remove("vectors", b"1").unwrap_err(),
        store.clear_cache().unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert_eq!(error.remedy(), Some("open it to write"));
    }
    drop(store);
    assert_eq!(files(directory.path()), before);
}

#[test]
fn readers_are_beside_each_other_and_never_beside_a_writer() {
    let directory = scratch::on_disk();
    make(directory.path());
    let [first, second] = [reader(directory.path()), reader(directory.path())];
    assert_eq!(nearest(&first, 7), nearest(&second, 7));
    let error = Store::open(config(directory.path())).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    // Closing waits for nobody, and leaves the other undisturbed.
    first.close();
    assert_eq!(nearest(&second, 8), b"8");
    second.close();
    let writer = Store::open(config(directory.path())).unwrap();
    let error = Store::open(config(directory.path()).to_read()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    writer.close();
}

#[test]
fn what_was_computed_and_counted_is_there_the_next_time() {
    let directory = scratch::on_disk();
    make(directory.path());
    let store = reader(directory.path());
    let computed = store.embed("restart the network").unwrap();
    assert!(!computed.hit);
    store.close();
    let store = reader(directory.path());
    let found = store.embed("restart the network").unwrap();
    assert!(found.hit, "it was not kept");
    assert_eq!(found.vector, computed.vector);
    store.close();
    // Nobody else may be reading when something is kept.
    let store = reader(directory.path());
    let other = reader(directory.path());
    assert!(!store.embed("another text").unwrap().hit);
    store.close();
    other.close();
    let store = reader(directory.path());
    assert!(store.embedding("another text").unwrap().is_none());
    let stats = store.cache_stats().unwrap();
    // One computed and one found, by two processes before; the third kept nothing.
    assert_eq!((stats.hits, stats.misses), (1, 2), "and the lookup just now");
}

#[test]
fn a_counter_file_that_is_damaged_costs_the_count_alone() {
    let directory = scratch::on_disk();
    make(directory.path());
    let store = reader(directory.path());
    let _ = store.embed("counted").unwrap();
    store.close();
    let counters = directory.path().join("@cache/COUNTERS");
    let mut bytes = fs::read(&counters).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&counters, bytes).unwrap();
    let store = reader(directory.path());
    assert_eq!(store.cache_stats().unwrap().misses, 0);
    assert!(store.embed("counted").unwrap().hit);
    store.close();
    let store = reader(directory.path());
    assert_eq!(store.cache_stats().unwrap().hits, 1);
}

#[test]
fn who_reads_a_store_that_crashed_recovers_it_once() {
    let directory = scratch::on_disk();
    let store = Store::open(config(directory.path())).unwrap();
    // Random numbers, of which more than a MiB lies in the log.
    for number in 0..2_000 {
        let record = Record::new(format!("{number}")).with_vector(Random::new(number).vector(256));
        store.put("long", &record).unwrap();
    }
    // As a process that is killed leaves it.
    drop(store);
    let left = log_bytes(directory.path());
    assert!(left > 1 << 20, "{left} bytes in the logs");
    let store = reader(directory.path());
    assert_eq!(store.last_sequence(), 2_000);
    let denied = store.remove("long", b"1").unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::Denied, "though it is open to be written");
    store.close();
    assert!(log_bytes(directory.path()) < 1 << 20);
    // What is derived comes back with whoever comes first.
    for part in ["@cache", "@vectors", "@timing"] {
        fs::remove_dir_all(directory.path().join(part)).unwrap();
        let store = reader(directory.path());
        assert_eq!(store.last_sequence(), 2_000);
        store.close();
        assert!(directory.path().join(part).is_dir(), "{part}");
    }
}

#[test]
fn a_store_that_is_not_there_is_not_made() {
    let directory = scratch::on_disk();
    let missing = directory.path().join("missing");
    let error = Store::open(config(&missing).to_read()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(!missing.exists());
}
