//! Whoever follows a store hears of every change once, in order, and of none that is not durable.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use op_dbus_engine::{
    Change, ErrorKind, Operation, Payload, Record, ScrubOptions, Store, StoreConfig,
};
use support::scratch;

const NOW: Duration = Duration::ZERO;
const SOON: Duration = Duration::from_secs(20);

fn record(key: &str, version: u64) -> Record {
    Record::new(key).with_payload(Payload::Json(version.to_string().into()))
}

fn change(sequence: u64, collection: &str, key: &str, operation: Operation) -> Change {
    let (collection, key) = (collection.to_owned(), key.as_bytes().to_vec());
    Change { sequence, collection, key, operation }
}

#[test]
fn a_follower_hears_of_what_it_asked_for() {
    use Operation::{Put, Remove};
    let directory = scratch::in_memory();
    let store = Store::open(StoreConfig::new(directory.path())).unwrap();
    store.put("a", &record("x1", 1)).unwrap();
    store.put_batch("b", &[record("x2", 1), record("y1", 1)]).unwrap();
    store.remove("a", b"x1").unwrap();
    let all = |collection, prefix: &[u8], after| {
        let mut watch = store.watch(collection, prefix, after).unwrap();
        let changes: Vec<Change> = std::iter::from_fn(|| watch.next(NOW).unwrap()).collect();
        (changes, watch.seen())
    };
    let everything = [
        change(1, "a", "x1", Put),
        change(2, "b", "x2", Put),
        change(3, "b", "y1", Put),
        change(4, "a", "x1", Remove),
    ];
    assert_eq!(all(None, b"", 0), (everything.to_vec(), 4));
    assert_eq!(all(None, b"", 2), (everything[2..].to_vec(), 4));
    assert_eq!(all(Some("b"), b"", 0), (everything[1..3].to_vec(), 4));
    assert_eq!(all(None, b"x", 2), (everything[3..].to_vec(), 4));
    let mut watch = store.watch(None, b"", 0).unwrap();
    watch.next(NOW).unwrap();
    assert_eq!(watch.seen(), 1, "what was read ahead is not seen");
    assert_eq!(store.watch(None, b"", 5).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(store.watch(Some("c"), b"", 0).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_follower_waits_for_what_comes() {
    let directory = scratch::in_memory();
    let store = Store::open(StoreConfig::new(directory.path())).unwrap();
    store.put("a", &record("before", 1)).unwrap();
    std::thread::scope(|scope| {
        let follower = scope.spawn(|| {
            let mut watch = store.watch(Some("a"), b"", 1).unwrap();
            (0..100).map(|_| watch.next(SOON).unwrap().unwrap().sequence).collect::<Vec<_>>()
        });
        for version in 0..100 {
            store.put("a", &record("key", version)).unwrap();
        }
        assert_eq!(follower.join().unwrap(), (2..102).collect::<Vec<_>>());
    });
    let started = Instant::now();
    let mut watch = store.watch(None, b"", 101).unwrap();
    assert_eq!(watch.next(Duration::from_millis(50)).unwrap(), None);
    assert!(started.elapsed() >= Duration::from_millis(50));
}

#[test]
fn old_changes_go_but_not_under_a_follower() {
    let directory = scratch::in_memory();
    let store = Store::open(StoreConfig::new(directory.path())).unwrap();
    let put = |store: &Store, versions: std::ops::Range<u64>| {
        for version in versions {
            let batch: Vec<Record> =
                (0..1000).map(|number| record(&format!("{number}"), version)).collect();
            store.put_batch("a", &batch).unwrap();
        }
    };
    put(&store, 0..1);
    let mut slow = store.watch(None, b"", 10).unwrap();
    put(&store, 1..130);
    assert_eq!(slow.next(NOW).unwrap().unwrap().sequence, 11);
    drop(slow);
    put(&store, 130..131);
    let error = store.watch(None, b"", 10).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    store.close();
    let store = Store::open(StoreConfig::new(directory.path())).unwrap();
    assert_eq!(store.watch(None, b"", 10).unwrap_err().kind(), ErrorKind::NotFound);
    let mut watch = store.watch(None, b"", 131_000 - 100_000).unwrap();
    assert_eq!(watch.next(NOW).unwrap().unwrap().sequence, 31_001);
    put(&store, 131..132);
    assert_eq!(store.stats().unwrap().sequence, 132_000);
}

#[test]
fn many_changes_of_one_batch_are_followed_from_any_of_them() {
    // More than lie together, and one alone at the end.
    const COUNT: u64 = 2 * 1024 + 1;
    let directory = scratch::in_memory();
    let store = Store::open(StoreConfig::new(directory.path())).unwrap();
    let batch: Vec<Record> = (1..=COUNT).map(|number| record(&number.to_string(), 1)).collect();
    store.put_batch("a", &batch).unwrap();
    store.close();
    let store = Store::open(StoreConfig::new(directory.path())).unwrap();
    assert_eq!(store.stats().unwrap().sequence, COUNT);
    for after in [0, 1, 1023, 1024, 1025, 1500, COUNT - 2, COUNT - 1, COUNT] {
        let mut watch = store.watch(None, b"", after).unwrap();
        let changes: Vec<Change> = std::iter::from_fn(|| watch.next(NOW).unwrap()).collect();
        let expected = (after + 1..=COUNT)
            .map(|number| change(number, "a", &number.to_string(), Operation::Put));
        assert!(changes.iter().cloned().eq(expected), "after {after}");
    }
    let report = store.scrub(&ScrubOptions::default(), &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((report.changes, report.faults), (COUNT, vec![]));
}

#[test]
fn a_scrub_goes_on_where_changes_were_trimmed_meanwhile() {
    let directory = scratch::in_memory();
    let store = Store::open(StoreConfig::new(directory.path())).unwrap();
    // So long that a step of a scrub reads but a part of what will be trimmed.
    let key = |number: u64| format!("{number:0>500}");
    let put = |batches: std::ops::Range<u64>| {
        for version in batches {
            let batch: Vec<Record> =
                (0..1000).map(|number| record(&key(number), version)).collect();
            store.put_batch("a", &batch).unwrap();
        }
    };
    put(0..20);
    let begun = store.scrub(&ScrubOptions::default(), &mut |progress| {
        if progress.part == "changes" { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let begun = begun.unwrap();
    assert!((1..20_000).contains(&begun.changes), "{}", begun.changes);
    put(20..131);
    assert_eq!(store.watch(None, b"", begun.changes).unwrap_err().kind(), ErrorKind::NotFound);
    let resume = ScrubOptions { resume: true, ..ScrubOptions::default() };
    let report = store.scrub(&resume, &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(report.resumed && report.finished);
    assert_eq!(report.faults, []);
    assert!(report.changes > 100_000, "{}", report.changes);
}
