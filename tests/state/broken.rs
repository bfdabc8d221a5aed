//! What goes wrong in the middle: a plugin that fails, one that lies, one that cannot be taken back, two
//! at the same time, a service that is killed.

use std::time::{Duration, Instant};

use op_dbus_daemon::PluginOutcome::{Failed, RolledBack, Untouched};
use rustix::process::Signal;
use serde_json::{Value, json};
use support::bus::Served;
use support::thing::Answer::{Fails, Holds, Lies, Well};
use support::thing::Values;

use crate::{
    BUSY, NOT_AS_DECLARED, NOT_FOUND, World, colors, daemon, file, lines, outcomes, report, story,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// A world in which something was applied already, and what was.
async fn applied() -> (World, [Values; 3]) {
    let world = World::start().await;
    let before = file(&json!({
        "one": { "color": "a0" },
        "two": { "color": "b0", "size": 1 },
        "three": { "color": "c0" },
    }));
    let _ = world.with_file(&["apply"], &before).succeeded();
    let _ = world.take_sets();
    let values = world.values();
    (world, values)
}

fn wanted() -> Value {
    file(&json!({
        "one": { "color": "a1" },
        "two": { "color": "b1", "size": 2 },
        "three": { "color": "c1" },
    }))
}

/// The part of a story that began when it had so many parts.
fn since(world: &World, count: usize) -> Vec<String> {
    story(&world.journal()).split_off(count)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_fails_in_the_middle_is_taken_back_with_all_before_it() {
    let (world, before) = applied().await;
    let told = story(&world.journal()).len();
    world.things[1].script([Well, Fails]);
    let report = report(&world.with_file(&["apply"], &wanted()).exited(NOT_AS_DECLARED));
    let expected = [("one", RolledBack), ("two", RolledBack), ("three", Untouched)];
    assert_eq!(outcomes(&report), expected);
    assert!(!report.as_declared);
    let two = &report.plugins[1];
    let changed: Vec<&str> = two.changes.iter().map(|change| change.path.as_str()).collect();
    assert_eq!(changed, ["color"], "what was changed, not what would have been");
    let problem = two.problem.as_deref().unwrap();
    assert!(problem.contains("size") && problem.contains("stuck"), "{problem}");
    assert_eq!(report.plugins[0].problem, None);

    assert_eq!(world.values(), before);
    assert_eq!(world.take_sets(), [vec!["color"; 2], vec!["color", "size", "color"], vec![]]);
    let expected = [
        "intent apply state",
        "event checkpoint",
        "intent apply state of one",
        "outcome apply state of one true",
        "intent apply state of two",
        "outcome apply state of two false",
        "intent take back state of two",
        "outcome take back state of two true",
        "intent take back state of one",
        "outcome take back state of one true",
        "outcome apply state false",
    ];
    assert_eq!(since(&world, told), expected);
    // What counts is what was applied before, and that is so.
    let _ = world.state(&["verify"]).run().succeeded();
    let _ = world.with_file(&["verify"], &wanted()).exited(NOT_AS_DECLARED);
    let history = world.state(&["history"]).run().succeeded().json();
    assert_eq!(history["applied"].as_array().unwrap().len(), 1, "{history}");
    // And it can be applied as soon as nothing fails.
    let _ = world.with_file(&["apply"], &wanted()).succeeded();
    assert_eq!(colors(&world.values()), ["a1", "b1", "c1"]);
    let _ = world.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_and_the_last_plugin_may_fail_as_well() {
    let (world, before) = applied().await;
    for (failing, expected) in
        [(0, [RolledBack, Untouched, Untouched]), (2, [RolledBack, RolledBack, RolledBack])]
    {
        world.things[failing].script([Fails]);
        let report = report(&world.with_file(&["apply"], &wanted()).exited(NOT_AS_DECLARED));
        let outcomes: Vec<_> = report.plugins.iter().map(|plugin| plugin.outcome).collect();
        assert_eq!(outcomes, expected);
        assert_eq!(world.values(), before);
    }
    let _ = world.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_whose_service_lies_is_found_out() {
    let (world, before) = applied().await;
    world.things[1].script([Well, Lies]);
    let report = report(&world.with_file(&["apply"], &wanted()).exited(NOT_AS_DECLARED));
    let expected = [("one", RolledBack), ("two", RolledBack), ("three", Untouched)];
    assert_eq!(outcomes(&report), expected);
    let problem = report.plugins[1].problem.as_deref().unwrap();
    assert!(problem.contains("not as declared") && problem.contains("size"), "{problem}");
    assert_eq!(world.values(), before);
    let _ = world.state(&["verify"]).run().succeeded();
    let _ = world.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_taken_back_is_not_reported_as_taken_back() {
    for (back, words) in [(Fails, "stuck"), (Lies, "not what it was before")] {
        let (world, before) = applied().await;
        let told = story(&world.journal()).len();
        world.things[1].script([Well, Fails, back]);
        let report = report(&world.with_file(&["apply"], &wanted()).exited(NOT_AS_DECLARED));
        let expected = [("one", RolledBack), ("two", Failed), ("three", Untouched)];
        assert_eq!(outcomes(&report), expected);
        let problem = report.plugins[1].problem.as_deref().unwrap();
        assert!(problem.contains("cannot be taken back"), "{problem}");
        assert!(problem.contains("size") && problem.contains(words), "{problem}");
        let values = world.values();
        assert_eq!(colors(&values), ["a0", "b1", "c0"]);
        assert_eq!((&values[0], &values[2]), (&before[0], &before[2]));
        let story = since(&world, told);
        for entry in [
            "outcome take back state of two false",
            "outcome take back state of one true",
            "outcome apply state false",
        ] {
            assert!(story.iter().any(|told| told == entry), "{entry}: {story:?}");
        }
        let verified = crate::report(&world.state(&["verify"]).run().exited(NOT_AS_DECLARED));
        assert_eq!(verified.plugins[1].changes[0].path, "color");
        let _ = world.end();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_at_the_same_time_one_is_refused() {
    let (world, _) = applied().await;
    world.things[0].script([Holds]);
    let first = world.prepared(&["apply"], &wanted()).start();
    world.things[0].held().await;
    let other = file(&json!({ "three": { "color": "other" } }));
    let _ = world.with_file(&["apply"], &other).refused(BUSY, &["another state"]);
    // Whoever only looks is not held up.
    let _ = world.with_file(&["verify"], &other).exited(NOT_AS_DECLARED);
    assert_eq!(world.things[2].values().color, "c0");
    world.things[0].release();
    let _ = first.finish().succeeded();
    assert_eq!(colors(&world.values()), ["a1", "b1", "c1"]);
    let _ = world.with_file(&["apply"], &other).succeeded();
    let _ = world.end();
}

/// The outcomes that say nothing but that something was broken off.
fn broken_off(journal: &[Value]) -> Vec<&str> {
    let is_broken = |entry: &&Value| {
        let problem = entry["details"]["problem"].as_str().unwrap_or_default();
        entry["kind"] == "outcome" && problem == "broken off by the end of the service"
    };
    journal.iter().filter(is_broken).map(|entry| entry["action"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_killed_in_the_middle_says_so_when_it_is_back() {
    let (world, before) = applied().await;
    world.things[1].script([Holds]);
    let applying = world.prepared(&["apply"], &wanted()).start();
    world.things[1].held().await;
    world.served.signal(Signal::KILL);
    let World { served, things, _things: connection, bus, place, .. } = world;
    assert_eq!(served.finish().code(), None);
    assert_ne!(applying.finish().code(), Some(0));
    things[1].release();
    let deadline = Instant::now() + PATIENCE;
    while things[1].values().color != "b1" {
        assert!(Instant::now() < deadline, "the value is set, though nobody waits for it");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(things[0].values().color, "a1");

    let ended = Served::start(daemon(&place), &bus).terminate().succeeded();
    let told: Vec<_> = ended.stderr.lines().filter(|line| line.contains("broken off")).collect();
    assert_eq!(told.len(), 2, "{}", ended.stderr);
    let journal = lines(&place.done(["journal", "export"]));
    assert_eq!(broken_off(&journal), ["apply state", "apply state of two"]);
    let of_apply = journal.iter().rfind(|entry| entry["action"] == "apply state").unwrap();
    assert_eq!(of_apply["actor"]["uid"], rustix::process::geteuid().as_raw());
    assert_eq!(of_apply["details"]["succeeded"], Value::Null);
    place.done(["journal", "verify"]);
    // What was before is where it can be looked at.
    let checkpoint = place.done(["get", "checkpoint", "--collection", "declared"]).json();
    assert_eq!(checkpoint["intent"], of_apply["intent"]);
    let was = |name: &str| checkpoint["plugins"][name]["color"].as_str().unwrap().to_owned();
    assert_eq!([was("one"), was("two"), was("three")], colors(&before));

    // It is told once.
    let served = Served::start(daemon(&place), &bus);
    let address = bus.address();
    let state = |arguments: &[&str]| {
        place.op(["--json", "--bus", &address, "state"]).arguments(arguments).run()
    };
    let verified = report(&state(&["verify"]).exited(NOT_AS_DECLARED));
    let changed = |number: usize| verified.plugins[number].changes.len();
    assert_eq!([changed(0), changed(1), changed(2)], [1, 1, 0]);
    // What was applied last still can be.
    let history = state(&["history"]).succeeded().json();
    let number = history["applied"][0]["number"].to_string();
    let _ = state(&["rollback", &number]).succeeded();
    assert_eq!(things.each_ref().map(|thing| thing.values()), before);
    let _ = state(&["rollback", "77"]).refused(NOT_FOUND, &["77"]);
    let ended = served.terminate().succeeded();
    assert!(!ended.stderr.contains("broken off"), "{}", ended.stderr);
    let journal = lines(&place.done(["journal", "export"]));
    assert_eq!(broken_off(&journal).len(), 2);
    drop(connection);
}
