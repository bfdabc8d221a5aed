//! Words beside meaning on the command line and over the bus: the same answers, and the same words of
//! what is wrong.

use std::collections::HashMap;

use serde_json::Value;
use support::bus::{BusLimits, PrivateBus, Served};
use support::model;
use support::program::Workplace;
use zbus::Variant;

use crate::{call, workplace};

/// Members with phrases that lead to them, of a service that is known.
const INTERFACE: &str = "<node><interface name='org.freedesktop.login1.Manager'>\
    <method name='Reboot'><arg name='interactive' type='b' direction='in'/></method>\
    <method name='PowerOff'><arg name='interactive' type='b' direction='in'/></method>\
    <method name='CanPowerOff'><arg name='result' type='s' direction='out'/></method>\
    <method name='ListSessions'><arg name='sessions' type='a(susso)' direction='out'/></method>\
    <property name='IdleHint' type='b' access='read'/></interface></node>";
const NOTES: &str = r#"{"key":"one","text":"restart the old machine","payload":{"n":1}}
{"key":"libfoo2-dev","text":"headers of a library that nobody knows","payload":{"n":2}}
{"key":"GetFooBar","text":"something","payload":{"n":3}}
"#;
const QUESTIONS: [(&str, &str); 6] = [
    ("PowerOff", "method:org.freedesktop.login1.Manager.PowerOff"),
    ("poweroff", "method:org.freedesktop.login1.Manager.PowerOff"),
    ("login1 list sessions", "method:org.freedesktop.login1.Manager.ListSessions"),
    ("idlehint", "property:org.freedesktop.login1.Manager.IdleHint"),
    ("libfoo2-dev", "libfoo2-dev"),
    ("get_foo_bar", "GetFooBar"),
];

fn indexed() -> Workplace {
    model::installed();
    let place = workplace();
    place.file("login1.xml", INTERFACE);
    place.file("notes.jsonl", NOTES);
    place.done(["index", "login1.xml"]);
    place.done(["index", "notes.jsonl", "--collection", "notes"]);
    place
}

/// What every question finds, without what depends on the moment.
fn answers(place: &Workplace, more: &[&str]) -> Vec<Value> {
    let answer = |(text, expected): &(&str, &str)| {
        let command = ["query", text, "--keyword", "--json", "--explain"];
        let mut answer = place.op(command.iter().chain(more)).run().succeeded().json();
        assert_eq!(answer["hits"][0]["key"], *expected, "{text}: {answer}");
        let keys = answer["hits"].as_array().unwrap().iter().map(|hit| hit["key"].to_string());
        let keys: Vec<String> = keys.collect();
        let unlike: std::collections::BTreeSet<&String> = keys.iter().collect();
        assert_eq!(unlike.len(), keys.len(), "each once: {keys:?}");
        assert!(!keys.iter().any(|key| key.contains("phrase:")), "{keys:?}");
        let mut explained = answer["explain"]["keyword"].take();
        assert!(explained["matched"].as_u64().unwrap() >= 1, "{explained}");
        for time in ["load_us", "search_us"] {
            explained[time].take();
        }
        serde_json::json!([answer["hits"], explained])
    };
    QUESTIONS.iter().map(answer).collect()
}

#[test]
fn words_find_the_same_through_the_service_and_without_it() {
    let place = indexed();
    let alone = answers(&place, &[]);
    let told = place.op(["query", "PowerOff", "--keyword", "--explain"]).run().succeeded().text();
    assert!(told.contains("words: ") && told.contains(" by meaning,\n"), "{told}");
    let words = told.lines().skip_while(|line| !line.starts_with("words: "));
    assert!(words.take(2).all(|line| line.chars().count() <= 80), "{told}");
    let filtered = ["query", "PowerOff", "--keyword", "--json", "--filter", "n >= 2"];
    let filtered = place.op(filtered).run().succeeded().json();
    assert_eq!(filtered["hits"].as_array().unwrap().len(), 2);

    let bus = PrivateBus::start(BusLimits::Raised);
    let line = ["daemon", "--plugins", "no-plugins", "--index-live=false"];
    let served = Served::start(place.op(line), &bus);
    let address = bus.address();
    assert_eq!(answers(&place, &["--bus", &address]), alone);
    let _ = served.terminate().succeeded();
}

#[test]
fn words_are_looked_for_in_texts_alone() {
    let place = workplace();
    for more in [&["--like", "a"][..], &["--vector", "v.json"], &["text", "--min-score", "0.5"]] {
        let told = place.op(["query", "--keyword"].iter().chain(more)).run().exited(2).stderr;
        assert!(told.contains("--keyword"), "{told}");
    }
}

#[tokio::test]
async fn the_option_is_of_one_type_and_for_texts() {
    let place = indexed();
    let bus = PrivateBus::start(BusLimits::Raised);
    let served =
        Served::start(place.op(["daemon", "--plugins", "no-plugins", "--index-live=false"]), &bus);
    let connection = bus.connect().await;
    let ask = async |options: HashMap<&str, Variant<'_>>| {
        call(&connection, "Query1", "Search", &("PowerOff", &options)).await
    };
    let answer = ask([("keyword", Variant::from(true))].into()).await.unwrap();
    let hits: Vec<op_dbus_daemon::Hit> = answer.body().deserialize().unwrap();
    assert_eq!(hits[0].1, QUESTIONS[0].1);
    let one = ask([("keyword", Variant::from(false))].into()).await.unwrap();
    let hits: Vec<op_dbus_daemon::Hit> = one.body().deserialize().unwrap();
    assert!(hits.iter().all(|(.., score, _, _)| *score < 1.0));
    for (options, part) in [
        ([("keyword", Variant::from(1_u32))].into(), "is of another type"),
        (
            [("keyword", Variant::from(true)), ("min-score", Variant::from(0.5))].into(),
            "hits have ranks",
        ),
    ] {
        let refused = ask(options).await.unwrap_err();
        let refused = refused.problem();
        assert!(refused.contains(part), "{refused}");
    }
    let options: HashMap<&str, Variant<'_>> = [("keyword", Variant::from(true))].into();
    let asked = (Variant::from(vec![1.0, 0.0]), &options);
    let refused = call(&connection, "Query1", "Similar", &asked).await.unwrap_err();
    let refused = refused.problem();
    assert!(refused.contains("only a text has words"), "{refused}");
    let _ = served.terminate().succeeded();
}
