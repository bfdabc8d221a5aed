//! Filters on the command line and over the bus: the same answers, and the same words of what is
//! wrong.

use std::collections::HashMap;

use serde_json::{Value, json};
use support::bus::{BusLimits, PrivateBus, Served};
use support::model;
use support::program::{Ended, Workplace};
use zbus::Variant;

use crate::{INVALID, World, call, daemon, failure, workplace};

/// Methods that phrases lead to, of a service that is known.
const INTERFACE: &str = "<node><interface name='org.freedesktop.login1.Manager'>\
    <method name='Reboot'><arg name='interactive' type='b' direction='in'/></method>\
    <method name='PowerOff'><arg name='interactive' type='b' direction='in'/></method>\
    <method name='CanReboot'><arg name='result' type='s' direction='out'/></method>\
    <method name='ListSessions'><arg name='sessions' type='a(susso)' direction='out'/></method>\
    <property name='IdleHint' type='b' access='read'/></interface></node>";
const NOTES: &str = r#"{"key":"one","text":"restart the old machine","payload":{"safe":true,"n":1}}
{"key":"two","text":"restart the new machine","payload":{"safe":false,"n":2}}
{"key":"three","text":"restart any machine","payload":{"safe":"true","n":"3"}}
{"key":"four","text":"restart no machine"}
"#;
const TEXT: &str = "restart the computer";

fn indexed() -> Workplace {
    model::installed();
    let place = workplace();
    place.file("login1.xml", INTERFACE);
    place.file("notes.jsonl", NOTES);
    place.done(["index", "login1.xml"]);
    place.done(["index", "notes.jsonl", "--collection", "notes"]);
    place
}

fn ask(place: &Workplace, filter: &str, more: &[&str]) -> Ended {
    let command = ["query", TEXT, "-k", "4", "--filter", filter];
    place.op(command.iter().chain(more)).run()
}

fn keys(answer: &Value) -> Vec<&str> {
    answer["hits"].as_array().unwrap().iter().map(|hit| hit["key"].as_str().unwrap()).collect()
}

/// Filters, and the keys of what they let pass.
const FILTERS: [(&str, &[&str]); 9] = [
    ("member = 'Reboot'", &["method:org.freedesktop.login1.Manager.Reboot"]),
    (
        "service = \"org.freedesktop.login1\" and risk = \"safe\" and member contains \"Reboot\"",
        &["method:org.freedesktop.login1.Manager.CanReboot"],
    ),
    ("arguments.0.name = 'sessions'", &["method:org.freedesktop.login1.Manager.ListSessions"]),
    (
        "exists kind and kind not in ['method', 'signal']",
        &["property:org.freedesktop.login1.Manager.IdleHint"],
    ),
    ("@collection = 'notes' and safe", &["one"]),
    ("n >= 2", &["two"]),
    ("@key in ['two'] or n = \"3\"", &["two", "three"]),
    // Phrases are found for what they lead to alone.
    ("kind = 'phrase'", &[]),
    ("@key starts with 'phrase:'", &[]),
];

#[test]
fn filters_let_the_same_pass_through_the_service_and_without_it() {
    let place = indexed();
    let answers = |more: &[&str]| -> Vec<Value> {
        let answer = |(filter, expected): &(&str, &[&str])| {
            let ended = ask(&place, filter, &[&["--json"], more].concat());
            let ended = ended.exited(i32::from(expected.is_empty()));
            let mut answer = ended.json();
            let mut found = keys(&answer);
            let mut expected = expected.to_vec();
            found.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found, expected, "{filter}");
            answer.as_object_mut().unwrap().remove("took_us");
            answer
        };
        FILTERS.iter().map(answer).collect()
    };
    let alone = answers(&[]);
    let told = ask(&place, "safe", &["--explain"]).succeeded().text();
    assert!(told.contains("the filter was asked about 4 records, all of"), "{told}");
    assert!(told.contains("; 1 passed\n"), "{told}");

    let bus = PrivateBus::start(BusLimits::Raised);
    let line = ["daemon", "--plugins", "no-plugins", "--index-live=false"];
    let served = Served::start(place.op(line), &bus);
    let address = bus.address();
    assert_eq!(answers(&["--bus", &address]), alone);
    let explained = ["--explain", "--json", "-c", "notes", "--bus", &address];
    let explained = ask(&place, "safe", &explained).succeeded().json();
    let filter = &explained["explain"]["collections"][0]["filter"];
    assert_eq!(*filter, json!({ "plan": "all", "tested": 4, "passed": 1 }));
    let _ = served.terminate().succeeded();
}

#[test]
fn a_wrong_filter_is_shown_with_a_caret_whoever_answers() {
    let world = World::plain();
    let address = world.bus.address();
    for (filter, picture) in [
        ("service == \"x\"", "\n  service == \"x\"\n          ^\n"),
        ("zürich and 5", "\n  zürich and 5\n             ^\n"),
        ("safe and\nrisk = low", "\n  risk = low\n         ^\n"),
    ] {
        for more in [&["--bus", &address[..]][..], &[]] {
            let told = ask(&world.place, filter, more).exited(2);
            assert_eq!(told.stdout, b"");
            let told = told.stderr;
            assert!(told.starts_with("error: the filter is wrong at "), "{told}");
            assert!(told.contains(picture) && told.contains("\nremedy: op-dbus query"), "{told}");
            let ended = ask(&world.place, filter, &[more, &["--json"]].concat()).exited(2);
            assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        }
    }
    let column = "column 9: \"==\" is no operator; did you mean =?";
    let told = ask(&world.place, "service == 5", &["--json"]).exited(2).stderr;
    let report: Value = serde_json::from_str(&told).unwrap();
    assert!(report["error"]["message"].as_str().unwrap().contains(column), "{report}");

    let gdbus = ["gdbus", "call", "--address=@BUS@", "--dest", "org.opdbus"];
    let method = ["--object-path", "/org/opdbus", "--method", "org.opdbus.Query1.Similar"];
    let options = ["<[1.0, 2.0]>", "{'filter': <'service == 5'>}"];
    let told = failure(world.tool(&[&gdbus[..], &method, &options].concat()).run());
    assert!(told.contains(INVALID) && told.contains(column), "{told}");
}

#[tokio::test]
async fn similar_ones_pass_the_filter_too() {
    let place = workplace();
    let record = |number: usize| {
        format!("{{\"key\":\"{number}\",\"vector\":[1,{number}],\"payload\":{{\"n\":{number}}}}}\n")
    };
    place.file("vectors.jsonl", (0..50).map(record).collect::<String>());
    place.done(["index", "vectors.jsonl", "--collection", "vectors"]);
    let bus = PrivateBus::start(BusLimits::Raised);
    let served = Served::start(daemon(&place), &bus);
    let connection = bus.connect().await;
    let filter = "n >= 40 and n != 41";
    let options: HashMap<&str, Variant<'_>> =
        [("filter", Variant::from(filter)), ("limit", Variant::from(3_u32))].into();
    let asked = (Variant::from(vec![1.0, 0.0]), &options);
    let answer = call(&connection, "Query1", "Similar", &asked).await.unwrap();
    let hits: Vec<op_dbus_daemon::Hit> = answer.body().deserialize().unwrap();
    let keys: Vec<&str> = hits.iter().map(|(_, key, ..)| &key[..]).collect();
    assert_eq!(keys, ["40", "42", "43"]);
    let _ = served.terminate().succeeded();
}
