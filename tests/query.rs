//! What is searched near to, and how answers are written: the same from the store and from the service.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use support::bus::Served;
use support::model;
use support::program::{Invocation, Workplace};

const VECTORS: &str = r#"{"key":"north","vector":[0,1],"text":"up","payload":{"n":1}}
{"key":"north-east","vector":[1,1],"text":"up and to the right"}
{"key":"east","vector":[1,0.2]}
{"key":"south","vector":[0,-1]}
"#;
const NOTES: &str = r#"{"key":"north","text":"a cold wind"}
{"key":"sea","text":"a cold wave on the shore"}
{"key":"bread","text":"flour, water, salt"}
"#;

fn place() -> Workplace {
    model::installed();
    let place = Workplace::new(env!("CARGO_BIN_EXE_op-dbus"));
    place.file("vectors.jsonl", VECTORS);
    place.file("notes.jsonl", NOTES);
    place.file("vector.json", "[0.1, 1]");
    place.done(["index", "vectors.jsonl", "--collection", "vectors"]);
    place.done(["index", "notes.jsonl", "--collection", "notes"]);
    place
}

fn socket(place: &Workplace) -> PathBuf {
    place.path().join("socket")
}

/// Has the service take the store.
fn serve(place: &Workplace) -> Served {
    let daemon = ["daemon", "--plugins", "no-plugins"];
    let served = Served::at_socket(place.op(daemon), &socket(place));
    while place.op(["journal", "show"]).run().code() == Some(5) {
        std::thread::sleep(Duration::from_millis(20));
    }
    served
}

/// Asks the store, then the service, both of which must answer so.
fn ask_both(place: &Workplace, check: impl Fn(&Workplace)) {
    check(place);
    let served = serve(place);
    check(place);
    let _ = served.terminate().succeeded();
}

fn keys(answer: &Value) -> Vec<&str> {
    answer["hits"].as_array().unwrap().iter().map(|hit| hit["key"].as_str().unwrap()).collect()
}

#[test]
fn who_is_named_is_asked() {
    let (place, other) = (place(), Workplace::new(env!("CARGO_BIN_EXE_op-dbus")));
    place.done(["put", "k", "--payload", "2"]);
    other.done(["put", "k", "--payload", "1"]);
    // A key may look like an option.
    other.done(["put", "--payload", "1", "--", "--bus"]);
    let snapshot = other.done(["snapshot", "create", "--json"]).json();
    let snapshot = snapshot["snapshot"]["name"].as_str().unwrap();
    let served = serve(&place);
    let bus = format!("socket:{}", socket(&place).display());
    // The store of the command line comes before a bus of the surroundings, for whoever changes, too.
    let near = |line: &[&str]| other.op(line).variable("OPDBUS_BUS", &bus).run().succeeded();
    assert_eq!(near(&["get", "k"]).text(), "1");
    let listed = near(&["snapshot", "list", "--json"]).json();
    assert_eq!(listed["snapshots"].as_array().unwrap().len(), 1, "{listed}");
    // And what both say in the surroundings is the bus's, but for what is asked of a snapshot.
    let program = || {
        let program = Invocation::new(Path::new(env!("CARGO_BIN_EXE_op-dbus")));
        let program = program.variable("OPDBUS_BTRFS_BASE_PATH", other.store());
        program.variable("OPDBUS_BUS", &bus)
    };
    assert_eq!(program().arguments(["get", "k"]).run().succeeded().text(), "2");
    let at = program().arguments(["get", "k", "--at", snapshot]).run().succeeded();
    assert_eq!(at.text(), "1");
    assert_eq!(other.done(["get", "k", "--bus", &bus]).text(), "2");
    let alone: [&[&str]; 7] = [
        &["history", "k"],
        &["cache", "export", "-c", "state"],
        &["diff", "--at", snapshot],
        &["layout", "migrate"],
        &["snapshot", "restore", snapshot],
        &["put", "k", "--payload", "3"],
        &["get", "k", "--at", snapshot],
    ];
    for line in alone {
        let ended = other.op(line).arguments(["--json", "--bus", &bus]).run();
        assert!(ended.refused(2, &[]).contains("--bus"), "{line:?}");
    }
    let refused = place.op(["history", "k", "--json"]).run().refused(5, &["in use"]);
    assert!(refused.contains("needs the store for itself"), "{refused}");
    let _ = served.terminate().succeeded();
}

#[test]
fn near_to_a_record_is_everything_but_itself() {
    ask_both(&place(), |place| {
        let like = ["query", "--like", "north", "--collection", "vectors", "--json"];
        let answer = place.done(like).json();
        assert_eq!(keys(&answer), ["north-east", "east", "south"]);
        assert!((answer["hits"][0]["score"].as_f64().unwrap() - 0.5_f64.sqrt()).abs() < 1e-6);
        let one = place.done([&like[..], &["-k", "1", "--explain"]].concat()).json();
        assert_eq!(keys(&one), ["north-east"]);
        assert_eq!(one["explain"]["collections"][0]["name"], "vectors");
        // Of a text's vector, in the collection that alone has this key.
        let answer = place.done(["query", "--like", "sea", "--json", "-k", "1"]).json();
        assert_eq!(keys(&answer), ["north"], "{answer}");
        let ended = place.op(["query", "--like", "north", "--json"]).run();
        let _ = ended.refused(4, &["north is in notes, vectors"]);
        let ended = place.op(["query", "--like", "nowhere", "--json"]).run();
        let _ = ended.refused(3, &["no record has the key nowhere in"]);
        let ended = place.op(["query", "--like", "north", "-c", "void", "--json"]).run();
        let _ = ended.refused(3, &["void"]);
    });
}

#[test]
fn near_to_a_vector_is_what_fits_it() {
    ask_both(&place(), |place| {
        let answer = place.done(["query", "--vector", "vector.json", "--json"]).json();
        assert_eq!(keys(&answer), ["north", "north-east", "east", "south"]);
        assert_eq!(answer["hits"][0]["payload"], json!({ "n": 1 }));
        let piped = place.op(["query", "--vector", "-", "--json"]).input("[0.1, 1]").run();
        assert_eq!(piped.succeeded().json()["hits"], answer["hits"]);
        let command = ["query", "--vector", "-", "--collection", "vectors", "--json"];
        let _ = place.op(command).input("[1, 2, 3]").run().refused(4, &["3 elements"]);
        let _ = place.op(command).input("[1, \"2\"]").run().refused(4, &["-"]);
        let missing = ["query", "--vector", "missing.json", "--json"];
        let _ = place.op(missing).run().refused(3, &["missing.json"]);
    });
}

#[test]
fn exactly_one_thing_is_searched_near_to() {
    let place = Workplace::new(env!("CARGO_BIN_EXE_op-dbus"));
    for command in [
        &["query"][..],
        &["query", "text", "--like", "key"],
        &["query", "--like", "key", "--vector", "vector.json"],
        &["query", "text", "--format", "yaml"],
        &["query", "text", "--format", "table", "--json"],
        &["query", "text", "--format", "jsonl", "--explain"],
    ] {
        let _ = place.op(command).run().exited(2);
    }
}

#[test]
fn an_answer_has_the_form_that_is_asked_for() {
    ask_both(&place(), |place| {
        let ask = |format: &str| {
            place.done(["query", "--vector", "vector.json", "-k", "2", "--format", format])
        };
        let as_json = place.done(["query", "--vector", "vector.json", "-k", "2", "--json"]).json();
        let (object, lines) = (ask("json").json(), ask("jsonl").text());
        assert_eq!(object["hits"], as_json["hits"]);
        let lines: Vec<Value> =
            lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(Value::from(lines), as_json["hits"]);
        assert_eq!(
            ask("table").text(),
            " SCORE  COLLECTION  KEY         TEXT
 0.995  vectors     north       up
 0.774  vectors     north-east  up and to the right
"
        );
        assert_eq!(
            ask("text").text(),
            " 0.995  north       up\n 0.774  north-east  up and to the right\n"
        );
        // Nothing found is no lines, and has its exit code.
        let none = ["query", "--vector", "vector.json", "--min-score", "1", "--format", "jsonl"];
        assert_eq!(place.op(none).run().exited(1).text(), "");
        let filter = ["query", "text", "--filter", "==", "--format", "json"];
        let told = place.op(filter).run().exited(2).stderr;
        assert!(serde_json::from_str::<Value>(&told).unwrap()["error"].is_object(), "{told}");
    });
}

#[test]
fn a_record_and_the_cache_are_the_same_from_the_service() {
    let place = place();
    let get = |line: &[&str]| place.done([line, &["--json"]].concat()).json();
    let records = || {
        let of = |key| get(&["get", key, "--collection", "vectors"]);
        [of("north"), of("east")]
    };
    let embedded = || get(&["cache", "get", "a cold wind"]);
    let (alone, vector) = (records(), embedded());
    assert_eq!(vector["hit"], true);
    let served = serve(&place);
    assert_eq!(records(), alone);
    assert_eq!(embedded(), vector);
    assert_eq!(get(&["cache", "get", "never seen"])["hit"], false);
    assert_eq!(get(&["cache", "get", "never seen"])["hit"], true);
    place.file("embedding.json", vector["vector"].to_string());
    let put = get(&["cache", "put", "another", "--vector", "embedding.json"]);
    assert_eq!(put, json!({ "stored": true, "computed": false }));
    assert_eq!(get(&["cache", "get", "another"])["vector"], vector["vector"]);
    let cleaned = get(&["cache", "clean", "--older-than", "1h"]);
    assert_eq!(cleaned, json!({ "removed": 0, "bytes_freed": 0 }));
    assert!(get(&["cache", "clear"])["removed"].as_u64().unwrap() >= 5);
    assert_eq!(get(&["cache", "get", "another"])["hit"], false);
    let _ = place.op(["get", "nowhere", "--collection", "vectors"]).run().exited(1);
    let earlier = ["get", "north", "--collection", "vectors", "--at-version", "1", "--json"];
    let _ = place.op(earlier).run().refused(2, &["the service tells no earlier versions"]);
    // What only the store itself does says so.
    let link = place.op(["link", "vectors", "--json"]).run();
    assert!(link.refused(5, &["is in use by process"]).contains("needs the store for itself"));
    let _ = served.terminate().succeeded();
    let bus = format!("socket:{}", socket(&place).display());
    let told = place.op(["--bus", &bus, "link", "vectors", "--json"]).run();
    let _ = told.refused(2, &["this command works on the store itself"]);
}
