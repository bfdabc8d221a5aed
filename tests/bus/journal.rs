//! What the journal has of calls: who wanted what, whether they might, and what became of it.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;

use op_dbus_engine::{JournalRecord, Store};

use crate::life::{has, open};
use crate::{World, as_nobody, can_be_nobody, failure, put, python};

/// All entries of a journal, which is one chain.
fn read(store: &Store) -> Vec<JournalRecord> {
    let mut records = Vec::new();
    store
        .journal(1, |record| {
            records.push(record);
            true
        })
        .unwrap();
    assert_eq!(store.verify_journal().unwrap().entries, records.len() as u64);
    records
}

/// Intents, and the details of the outcome that each has.
fn intents(records: &[JournalRecord]) -> Vec<(&JournalRecord, Option<&str>)> {
    let outcomes: BTreeMap<u64, &str> =
        records.iter().filter_map(|record| Some((record.intent?, record.details.get()))).collect();
    let intents = records.iter().filter(|record| record.kind == "intent");
    intents.map(|intent| (intent, outcomes.get(&intent.number).copied())).collect()
}

pub(crate) fn assert_every_intent_has_an_outcome(store: &Store) {
    let records = read(store);
    for (intent, outcome) in intents(&records) {
        assert!(outcome.is_some(), "{intent:?}");
    }
}

/// Whatever was begun was done or refused, and the journal knows which.
pub(crate) fn assert_none_was_broken_off(store: &Store) {
    let records = read(store);
    let broken_off = |(_, outcome): &&(_, Option<&str>)| outcome.unwrap().contains("null");
    let intents = intents(&records);
    let found = intents.iter().find(broken_off);
    assert!(found.is_none(), "{found:?}");
}

pub(crate) fn assert_ends_with_stop(store: &Store) {
    let records = read(store);
    let last = records.last().unwrap();
    assert_eq!((last.kind, last.action.as_str()), ("event", "stop"));
}

#[tokio::test]
async fn every_change_has_an_intent_and_an_outcome_with_who_asked() {
    let World { served, bus, place } = World::plain();
    let (one, other) = (bus.connect().await, bus.connect().await);
    put(&one, "a").await.unwrap();
    put(&other, "b").await.unwrap();
    assert!(put(&one, "").await.is_err());
    let names = [&one, &other].map(|client| client.unique_name().unwrap().to_string());
    let _ = served.terminate().succeeded();

    let store = open(&place);
    let records = read(&store);
    let own_uid = rustix::process::geteuid().as_raw();
    let own_program = std::env::current_exe().unwrap().canonicalize().unwrap();
    let mut seen = Vec::new();
    for (intent, outcome) in intents(&records) {
        let actor = intent.actor.as_ref().unwrap();
        assert_eq!(actor.uid, own_uid);
        assert_eq!(actor.executable, own_program.to_string_lossy());
        let outcome: serde_json::Value = serde_json::from_str(outcome.unwrap()).unwrap();
        seen.push((intent.action.clone(), actor.sender.clone(), outcome["succeeded"].clone()));
    }
    let expected = [("put state a", 0, true), ("put state b", 1, true), ("put state ", 0, false)];
    let expected =
        expected.map(|(what, who, is_done)| (what.to_owned(), names[who].clone(), is_done.into()));
    assert_eq!(seen, expected);
    // Outcomes are of the same actor as their intents.
    for outcome in records.iter().filter(|record| record.kind == "outcome") {
        let intent = &records[usize::try_from(outcome.intent.unwrap()).unwrap() - 1];
        assert_eq!((&outcome.actor, &outcome.action), (&intent.actor, &intent.action));
    }
    let events = records.iter().filter(|record| record.kind == "event");
    let events: Vec<_> = events.map(|record| record.action.as_str()).collect();
    assert_eq!(events, ["start", "read", "stop"]);
}

#[test]
fn every_denial_is_journaled() {
    if !can_be_nobody("every_denial_is_journaled") {
        return;
    }
    let world = World::with(&["--group", "nogroup"]);
    let put =
        ["busctl", "--address=@BUS@", "call", "org.opdbus", "/org/opdbus", "org.opdbus.State1"];
    let put = [&put[..], &["Put", "ss", "key", "{}"]].concat();
    for _ in 0..3 {
        let _ = failure(world.tool(&as_nobody(&put)).run());
    }
    let World { served, place, bus: _bus } = world;
    let _ = served.terminate().succeeded();
    let store = open(&place);
    assert!(!has(&store, "key"));
    let denials: Vec<_> =
        read(&store).into_iter().filter(|record| record.kind == "denial").collect();
    assert_eq!(denials.len(), 3, "{denials:?}");
    for denial in denials {
        let actor = denial.actor.unwrap();
        assert_eq!((actor.uid, denial.action.as_str()), (65534, "put state key"));
        assert!(actor.sender.starts_with(':'), "{actor:?}");
        assert!(denial.details.get().contains("another user"), "{}", denial.details);
    }
}

#[test]
fn a_put_whose_caller_is_killed_at_once_has_its_outcome() {
    const CALLERS_COUNT: usize = 10;
    let world = World::plain();
    let keys: Vec<_> = (0..CALLERS_COUNT).map(|number| format!("killed/{number}")).collect();
    for key in &keys {
        let ended = world.tool(&python(&["die", "@BUS@", key])).run();
        assert_eq!(ended.status.signal(), Some(9), "{}", ended.stderr);
    }
    let World { served, place, bus: _bus } = world;
    let _ = served.terminate().succeeded();
    let store = open(&place);
    let records = read(&store);
    let mut done_count = 0;
    for (intent, outcome) in intents(&records) {
        let outcome: serde_json::Value = serde_json::from_str(outcome.unwrap()).unwrap();
        let key = intent.action.strip_prefix("put state ").unwrap();
        assert_eq!(outcome["succeeded"] == true, has(&store, key), "{intent:?} {outcome}");
        assert!(intent.actor.as_ref().unwrap().sender.starts_with(':'), "{intent:?}");
        done_count += usize::from(outcome["succeeded"] == true);
    }
    // Of whom the bus no longer knows anything when the service asks, nothing is done.
    assert_eq!(keys.iter().filter(|key| has(&store, key)).count(), done_count);
    assert!(done_count > 0, "{records:?}");
}

/// What was noted once is still there, through the service and without it; another journal is not it.
#[test]
fn what_was_noted_of_a_journal_is_compared_with_it() {
    let World { served, bus, place } = World::plain();
    let address = bus.address();
    let verify = |noted: &[String], is_served: bool| {
        let line: &[&str] = if is_served { &["--bus", &address] } else { &[] };
        let options = noted.iter().map(|noted| format!("--noted={noted}"));
        place.op(line).arguments(["journal", "verify", "--json"]).arguments(options).run()
    };
    let head = verify(&[], true).succeeded().json();
    let (number, hash) = (head["entries"].as_u64().unwrap(), head["hash"].as_str().unwrap());
    let noted = format!("{number}:{hash}");
    let other = format!("{number}:{}", hash.chars().rev().collect::<String>());
    let beyond = format!("{}:{hash}", number + 1000);
    let _ = place.op(["--bus", &address]).arguments(["snapshot", "create"]).run().succeeded();
    let _ = verify(&[noted.clone(), noted.clone()], true).succeeded();
    verify(&[noted.clone(), other.clone()], true).refused(7, &[&format!("entry {number}")]);
    let _ = served.terminate().succeeded();
    let _ = verify(&[noted], false).succeeded();
    verify(&[other], false).refused(7, &["another than was noted"]);
    verify(&[beyond], false).refused(7, &["ends before entry"]);
    verify(&["1:abc".to_owned()], false).refused(2, &["64 hexadecimal digits"]);
}
