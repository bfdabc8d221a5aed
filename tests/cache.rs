//! The embedding cache on the disk: the oldest leave, and nothing that cannot be computed again.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use op_dbus_engine::{Record, Store, StoreConfig};
use support::random::Random;
use support::{model, scratch};

const DIMENSIONS: usize = 384;
/// A header of 16 bytes and 4 for each element.
const EMBEDDING_BYTES: u64 = 16 + 4 * DIMENSIONS as u64;
/// More than the clock's unit, and than it may be set right by meanwhile.
const PAUSE: Duration = Duration::from_millis(50);

fn config(directory: &Path) -> StoreConfig {
    StoreConfig::new(directory).with_embedder(model::config())
}

fn text(number: usize) -> String {
    format!("text {number}")
}

fn vector(seed: u64) -> Vec<f32> {
    let vector = Random::new(seed).vector(DIMENSIONS);
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector.iter().map(|x| x / length).collect()
}

fn put(store: &Store, numbers: std::ops::Range<usize>) {
    for number in numbers {
        store.put_embedding(&text(number), &vector(number as u64)).unwrap();
    }
}

/// Which of the texts have an embedding that is known, and is theirs.
fn known(store: &Store, count: usize) -> Vec<usize> {
    let is_known = |number: &usize| {
        let found = store.embedding(&text(*number)).unwrap();
        found.inspect(|found| assert_eq!(**found, vector(*number as u64))).is_some()
    };
    (0..count).filter(is_known).collect()
}

#[test]
fn the_oldest_leave_when_there_are_too_many() {
    let directory = scratch::on_disk();
    let capped = || config(directory.path()).with_cache_disk_bytes(100 * EMBEDDING_BYTES);
    let store = Store::open(capped()).unwrap();
    let given = Record::new("kept").with_vector(vec![0.5; 3]);
    store.put("given", &given).unwrap();
    put(&store, 0..100);
    assert_eq!(known(&store, 100).len(), 100, "what may stay has left");
    assert_eq!(store.cache_stats().unwrap().evictions_disk, 0);
    // One that is written again is no more than before.
    put(&store, 50..60);
    store.put_embedding(&text(0), &vector(1000)).unwrap();
    assert_eq!(store.cache_stats().unwrap().evictions_disk, 0);
    put(&store, 100..101);
    // Neither hot nor cold: they were all hot.
    assert_eq!(known(&store, 101), (11..101).collect::<Vec<_>>());
    put(&store, 101..350);
    let left = known(&store, 350);
    assert!((90..=100).contains(&left.len()), "{} are left", left.len());
    assert_eq!(left, (350 - left.len()..350).collect::<Vec<_>>());
    let stats = store.cache_stats().unwrap();
    assert_eq!(stats.embeddings, left.len() as u64);
    assert_eq!(stats.evictions_disk, 350 - left.len() as u64);
    assert_eq!(stats.bytes_disk_max, Some(100 * EMBEDDING_BYTES));
    store.close();
    // What was hot is not brought back, and the count goes on.
    let store = Store::open(capped()).unwrap();
    assert_eq!(known(&store, 350), left);
    put(&store, 350..361);
    let more = known(&store, 361);
    assert!((90..=100).contains(&more.len()), "{} are left", more.len());
    let evicted = store.cache_stats().unwrap().evictions_disk;
    assert_eq!(evicted, 361 - more.len() as u64);
    assert_eq!(store.get("given", b"kept").unwrap(), Some(given));
    assert_eq!(store.cache_stats().unwrap().tier.evictions.capacity, 0);
}

#[test]
fn what_was_written_long_ago_is_cleaned_away() {
    let directory = scratch::on_disk();
    let store = Store::open(config(directory.path())).unwrap();
    put(&store, 0..30);
    sleep(PAUSE);
    let between = Instant::now();
    sleep(PAUSE);
    put(&store, 30..50);
    store.close();
    let store = Store::open(config(directory.path())).unwrap();
    assert_eq!(store.clean_cache(Duration::from_secs(3600)).unwrap().embeddings, 0);
    let removed = store.clean_cache(between.elapsed()).unwrap();
    assert_eq!((removed.embeddings, removed.bytes), (30, 30 * EMBEDDING_BYTES));
    assert_eq!(known(&store, 50), (30..50).collect::<Vec<_>>());
    assert_eq!(store.cache_stats().unwrap().embeddings, 20);
    store.close();
    let store = Store::open(config(directory.path())).unwrap();
    assert_eq!(known(&store, 50), (30..50).collect::<Vec<_>>());
    store.clear_cache().unwrap();
    assert_eq!(store.clean_cache(Duration::ZERO).unwrap().embeddings, 0);
    put(&store, 0..3);
    sleep(PAUSE);
    assert_eq!(store.clean_cache(Duration::ZERO).unwrap().embeddings, 3);
}

#[test]
fn a_text_whose_embedding_has_left_is_embedded_again() {
    let directory = scratch::on_disk();
    let store = Store::open(config(directory.path())).unwrap();
    let record = Record::new("tar").with_text("pack a directory into one file");
    store.put("notes", &record).unwrap();
    let before = store.vectors("notes").unwrap().get(b"tar").unwrap().unwrap().to_vec();
    sleep(PAUSE);
    assert_eq!(store.clean_cache(Duration::ZERO).unwrap().embeddings, 1);
    assert_eq!(store.get("notes", b"tar").unwrap(), Some(record));
    let after = store.vectors("notes").unwrap().get(b"tar").unwrap().unwrap().to_vec();
    assert_eq!(after, before);
}
