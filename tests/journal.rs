//! The journal: whole after kills of its writer, and whatever is changed in it is found.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::path::Path;

use op_dbus_engine::{
    ErrorKind, JournalActor, JournalKind, JournalNote, ScrubOptions, Store, StoreConfig,
};
use rocksdb::{DB, Options};

fn open(base: &Path) -> Store {
    Store::open(StoreConfig::new(base)).unwrap()
}

fn note(kind: JournalKind, intent: Option<u64>, action: &str) -> JournalNote {
    JournalNote {
        kind,
        intent,
        actor: Some(JournalActor { uid: 1000, sender: ":1.7".to_owned(), ..Default::default() }),
        action: action.to_owned(),
        details: r#"{"argument":"web1"}"#.to_owned(),
    }
}

/// Writes an intent and its outcome, so often.
fn fill(store: &Store, count: u64) {
    for _ in 0..count {
        let intent =
            store.append_journal(&[note(JournalKind::Intent, None, "call a.b.C")]).unwrap();
        store.append_journal(&[note(JournalKind::Outcome, Some(intent), "call a.b.C")]).unwrap();
    }
}

#[test]
fn entries_are_numbered_chained_and_there_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    assert_eq!(store.verify_journal().unwrap().entries, 0);
    fill(&store, 3);
    let head = store.verify_journal().unwrap();
    assert_eq!(head.entries, 6);
    store.close();
    let store = open(directory.path());
    assert_eq!(store.verify_journal().unwrap(), head);
    let mut read = Vec::new();
    store
        .journal(5, |record| {
            read.push(record);
            true
        })
        .unwrap();
    assert_eq!(read.iter().map(|record| record.number).collect::<Vec<_>>(), [5, 6]);
    assert_eq!((read[1].kind, read[1].intent), ("outcome", Some(5)));
    assert_eq!(read[1].details.get(), r#"{"argument":"web1"}"#);
    assert_eq!(read[1].hash, head.hash);
    fill(&store, 1);
    assert_eq!(store.verify_journal().unwrap().entries, 8);
}

#[test]
fn writers_at_the_same_time_make_one_chain() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| fill(&store, 10));
        }
    });
    assert_eq!(store.verify_journal().unwrap().entries, 80);
}

#[test]
fn what_no_entry_can_hold_writes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let good = note(JournalKind::Event, None, "start");
    let bad = JournalNote { details: "[]".to_owned(), ..good.clone() };
    let error = store.append_journal(&[good, bad]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(store.verify_journal().unwrap().entries, 0);
}

/// Changes the journal's family as somebody could who may write the store's files.
fn behind_its_back(base: &Path, change: impl FnOnce(&DB)) {
    let path = base.join("@state/db");
    let options = Options::default();
    let families = DB::list_cf(&options, &path).unwrap();
    let db = DB::open_cf(&options, &path, families).unwrap();
    change(&db);
}

#[test]
fn what_is_changed_is_found() {
    type Change = fn(&DB);
    let changes: [(&str, u64, Change); 4] = [
        ("a byte of an entry", 3, |db| {
            let family = db.cf_handle("journal").unwrap();
            let mut entry = db.get_cf(family, 3_u64.to_be_bytes()).unwrap().unwrap();
            *entry.last_mut().unwrap() ^= 1;
            db.put_cf(family, 3_u64.to_be_bytes(), entry).unwrap();
        }),
        ("an entry in the place of another", 3, |db| {
            let family = db.cf_handle("journal").unwrap();
            let entry = db.get_cf(family, 5_u64.to_be_bytes()).unwrap().unwrap();
            db.put_cf(family, 3_u64.to_be_bytes(), entry).unwrap();
        }),
        ("an entry removed", 4, |db| {
            let family = db.cf_handle("journal").unwrap();
            db.delete_cf(family, 4_u64.to_be_bytes()).unwrap();
        }),
        ("one written anew, with a right hash", 4, |db| {
            let family = db.cf_handle("journal").unwrap();
            let entry = db.get_cf(family, 3_u64.to_be_bytes()).unwrap().unwrap();
            let (entry, _) = op_dbus_formats::JournalEntry::decode(&entry).unwrap();
            let forged = op_dbus_formats::JournalEntry { action: "call a.b.D", ..entry };
            db.put_cf(family, 3_u64.to_be_bytes(), forged.encode().unwrap().0).unwrap();
        }),
    ];
    for (what, broken, change) in changes {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        fill(&store, 3);
        store.close();
        behind_its_back(directory.path(), change);
        let store = open(directory.path());
        let error = store.verify_journal().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}");
        assert!(error.to_string().contains(&format!("at entry {broken}")), "{what}: {error}");
        let report = store
            .scrub(&ScrubOptions::default(), &mut |_| std::ops::ControlFlow::Continue(()))
            .unwrap();
        assert!(report.faults.iter().any(|fault| fault.what.contains("journal")), "{what}");
    }
}

#[test]
fn a_head_that_was_noted_tells_of_an_end_that_was_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    fill(&store, 3);
    let noted = store.verify_journal().unwrap();
    store.close();
    behind_its_back(directory.path(), |db| {
        db.delete_cf(db.cf_handle("journal").unwrap(), 6_u64.to_be_bytes()).unwrap();
    });
    let store = open(directory.path());
    assert_ne!(store.verify_journal().unwrap(), noted);
}
