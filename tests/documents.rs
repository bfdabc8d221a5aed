//! Documents, their versions and their expiry, as users of the program see them.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use support::model;
use support::program::Workplace;

const NOT_FOUND: i32 = 1;
const USAGE: i32 = 2;
const NO_SUCH_THING: i32 = 3;
const INVALID: i32 = 4;
const SERVICE_START_MAX: Duration = Duration::from_secs(60);

fn workplace() -> Workplace {
    Workplace::new(env!("CARGO_BIN_EXE_op-dbus"))
}

/// Runs without a model.
fn without_model(place: &Workplace, arguments: &[&str]) -> support::program::Ended {
    place.op(arguments).arguments(["--model", "no-model"]).run()
}

fn now_unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

#[test]
fn a_document_comes_back_in_every_byte_from_wherever_it_came() {
    let place = workplace();
    let text = "{ \"b\":1.50,\"a\" : [1E+5,\"\\u00e9\"],\"a\":null }\r\n\n";
    place.file("doc.json", text);
    let _ = without_model(&place, &["put", "from/file", "doc.json"]).succeeded();
    let _ = place.op(["put", "from/stdin", "-"]).input(text).run().succeeded();
    let _ = place.done(["put", "from/line", "--payload", text]);
    for key in ["from/file", "from/stdin", "from/line"] {
        assert_eq!(without_model(&place, &["get", key]).succeeded().text(), text);
    }
    let record = place.done(["get", "from/file", "--json"]).json();
    assert_eq!((&record["key"], &record["payload"]["b"]), (&json!("from/file"), &json!(1.5)));
    place.file("blob", [0xFF, 0, 10]);
    let _ = place.done(["put", "blob", "blob", "--bytes", "--collection", "files"]);
    assert_eq!(place.done(["get", "blob", "-c", "files"]).stdout, [0xFF, 0, 10]);
    let stats = place.done(["stats"]).text();
    assert!(stats.contains("3 records  documents without vectors"), "{stats}");
}

#[test]
fn large_documents_come_back_in_every_byte() {
    let place = workplace();
    let rows: Vec<Value> = (0..30_000)
        .map(|row| json!({ "row": row, "name": format!("name {}", row % 7), "at": [1.25, null] }))
        .collect();
    for (key, text) in [
        ("compact", serde_json::to_string(&rows).unwrap()),
        ("indented", serde_json::to_string_pretty(&rows).unwrap() + "\n"),
    ] {
        assert!(text.len() > 1 << 20);
        place.file("large.json", &text);
        let _ = place.done(["put", key, "large.json"]);
        assert!(place.done(["get", key]).stdout == text.as_bytes(), "{key} is not what it was");
    }
}

#[test]
fn versions_are_listed_and_read_also_after_a_removal() {
    let place = workplace();
    let before = now_unix_ms();
    for number in 0..12 {
        let put = place.done(["put", "doc", "--payload", &number.to_string(), "--json"]).json();
        assert_eq!(put["changed"], json!(true));
    }
    let again = place.done(["put", "doc", "--payload", "11", "--json"]).json();
    assert_eq!(again["changed"], json!(false), "the same again is no version");
    let removed = place.done(["remove", "doc", "--json"]).json();
    assert_eq!(removed, json!({ "removed": true }));
    let history = place.done(["history", "doc", "--json"]).json();
    let versions = history["versions"].as_array().unwrap();
    assert_eq!(versions.len(), 10);
    assert_eq!((&versions[0]["operation"], &versions[0]["bytes"]), (&json!("remove"), &json!(0)));
    assert_eq!((&versions[1]["operation"], &versions[1]["number"]), (&json!("put"), &json!(12)));
    let written = versions[9]["written_at_unix_ms"].as_u64().unwrap();
    assert!((before..=now_unix_ms()).contains(&written));
    let at = |number: &str| place.op(["get", "doc", "--at-version", number]).run();
    assert_eq!(at("12").succeeded().text(), "11");
    assert_eq!(at("4").succeeded().text(), "3");
    assert_eq!(at("3").exited(1).stdout, b"", "it is older than what is kept");
    assert_eq!(at("13").exited(1).stdout, b"", "it is the removal");
    assert_eq!(place.done(["history", "doc"]).text().lines().count(), 10);
}

#[test]
fn what_is_not_there_has_its_exit_code() {
    let place = workplace();
    let _ = place.op(["get", "doc"]).run().exited(3);
    let _ = place.done(["put", "doc", "--payload", "1"]);
    for command in ["get", "history", "remove"] {
        let ended = place.op([command, "other"]).run().exited(1);
        assert!(ended.stdout.is_empty() && ended.stderr.contains("other"), "{}", ended.stderr);
        let told = place.op([command, "doc", "-c", "none", "--json"]).run().refused(3, &["none"]);
        assert!(told.contains("state"), "the remedy names what there is: {told}");
    }
    let _ = place.done(["put", "note", "--payload", "1", "-c", "notes"]);
    place.op(["history", "note", "-c", "notes", "--json"]).run().refused(4, &["notes"]);
}

#[test]
fn a_wrong_document_is_refused_by_its_name() {
    let place = workplace();
    place.file("bad.json", "{\"a\":}");
    place.op(["put", "doc", "bad.json", "--json"]).run().refused(4, &["bad.json", "column 6"]);
    place.op(["put", "doc", "none.json", "--json"]).run().refused(3, &["none.json"]);
    place
        .op(["put", "doc", "--payload", "{", "--json"])
        .run()
        .refused(4, &["--payload", "not JSON"]);
    place.file("large.json", vec![b' '; (16 << 20) + 1]);
    place.op(["put", "doc", "large.json", "--json"]).run().refused(4, &["large.json", "16777216"]);
    let usage: [&[&str]; 5] = [
        &["put", "doc"],
        &["put", "doc", "bad.json", "--payload", "1"],
        &["put", "doc", "--payload", "1", "--bytes"],
        &["put", "doc", "--payload", "1", "--expires-in", "soon"],
        &["put", "doc", "--payload", "1", "--expires-in", "0s"],
    ];
    for arguments in usage {
        let _ = place.op(arguments).run().exited(2);
    }
    assert!(!place.store().exists(), "nothing that is wrong makes a store");
}

#[test]
fn what_has_expired_is_gone_and_what_will_says_when() {
    let place = workplace();
    let lines = "{\"key\":\"past\",\"vector\":[1,0],\"expires_at_unix_ms\":1}\n\
                 {\"key\":\"own\",\"vector\":[1,0],\"expires_at_unix_ms\":9000000000000}\n\
                 {\"key\":\"given\",\"vector\":[0,1]}\n";
    place.file("in.jsonl", lines);
    let before = now_unix_ms();
    let _ = place.done(["cache", "import", "in.jsonl", "--expires-in", "2h"]);
    let exported = place.done(["cache", "export"]).text();
    let exported: Vec<Value> =
        exported.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(exported.len(), 2, "{exported:?}");
    assert_eq!(exported[1]["expires_at_unix_ms"], 9_000_000_000_000_u64);
    let given = exported[0]["expires_at_unix_ms"].as_u64().unwrap();
    let hours = 2 * 60 * 60 * 1000;
    assert!((before + hours..=now_unix_ms() + hours).contains(&given));
    assert_eq!(place.done(["stats", "--json"]).json()["collections"][0]["records"], 2);
    let _ = place.op(["get", "past", "-c", "documents"]).run().exited(1);
    // What is exported goes back in with its time.
    let second = workplace();
    let original = place.done(["cache", "export"]).stdout;
    let _ = second.op(["cache", "import", "-"]).input(original.clone()).run().succeeded();
    assert!(second.done(["cache", "export"]).stdout == original);

    let put = place.done(["put", "doc", "--payload", "1", "--expires-in", "7d", "--json"]).json();
    assert!(put["expires_at_unix_ms"].as_u64().unwrap() > before + 6 * 24 * 60 * 60 * 1000);
    assert_eq!(place.done(["get", "doc"]).text(), "1");
}

/// The first text makes a collection of documents one that is searched.
#[test]
fn a_document_with_words_is_found_by_them() {
    model::installed();
    let place = workplace();
    let _ = without_model(&place, &["put", "plain", "--payload", "1"]).succeeded();
    let refused = without_model(&place, &["put", "cat", "--text", "a cat", "--json"]);
    refused.refused(3, &["no-model"]);
    let text = "the proxy that stands before the web servers";
    let _ = place.done(["put", "proxy", "--payload", "{\"role\":1}", "--text", text]);
    let _ = place.done(["put", "cat", "--text", "a cat asleep on a warm roof"]);
    let answer = place.done(["query", "reverse proxy of a site", "--json"]).json();
    let hit = &answer["hits"][0];
    assert_eq!((&hit["key"], &hit["payload"]["role"]), (&json!("proxy"), &json!(1)));
    assert_eq!(answer["hits"].as_array().unwrap().len(), 2);
    place.file("more.txt", "gone with the wind\n");
    let _ = place.done(["index", "more.txt", "-c", "state", "--expires-in", "1w"]);
    assert_eq!(place.done(["stats", "--json"]).json()["collections"][0]["records"], 4);
    assert_eq!(place.done(["history", "plain", "--json"]).json()["versions"][0]["number"], 1);
}

#[test]
fn documents_are_asked_for_as_they_were_in_snapshots() {
    let place = workplace();
    let _ = place.op(["snapshot", "list"]).run().exited(NO_SUCH_THING);
    let put =
        |state: &str| place.done(["put", "host", "--payload", &format!("{{\"is\":\"{state}\"}}")]);
    let take = |arguments: &[&str]| -> String {
        let taken = place.op(["snapshot", "create", "--json"]).arguments(arguments).run();
        taken.succeeded().json()["snapshot"]["name"].as_str().unwrap().to_owned()
    };
    let at = |name: &str| place.done(["get", "host", "--at", name]).json()["is"].clone();
    let _ = put("old");
    let first = take(&["--reason", "before the upgrade", "--keep"]);
    let _ = put("new");
    let second = take(&[]);
    assert_eq!((at(&first), at(&second)), (json!("old"), json!("new")));
    // The last before now, in every way to say it, and in every command that takes it.
    assert_eq!(at("2100-01-01"), "new");
    assert_eq!(
        place.done(["history", "host", "--at", &first, "--json"]).json()["versions"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(place.done(["stats", "--at", &first, "--json"]).json()["sequence"], 1);
    let exported = place.done(["cache", "export", "-c", "state", "--at", &first]).text();
    assert!(exported.contains("old") && !exported.contains("new"), "{exported}");
    let list = place.done(["snapshot", "list", "--json"]).json();
    let shown = &list["snapshots"][0];
    assert_eq!(
        (&shown["reason"], &shown["is_kept"], &shown["sequence"]),
        (&json!("before the upgrade"), &json!(true), &json!(1))
    );
    assert!(shown["total_bytes"].as_u64() >= shown["exclusive_bytes"].as_u64(), "{shown}");
    assert!(shown["total_bytes"].as_u64() > Some(0), "{shown}");
    let text = place.done(["cache", "snapshots"]).text();
    assert!(text.contains(&first) && text.contains("before the upgrade"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    // Those that are too many go, but for those that are kept.
    let third = take(&["--retention", "1"]);
    let names: Vec<Value> = place.done(["snapshot", "list", "--json"]).json()["snapshots"]
        .as_array()
        .unwrap()
        .iter()
        .map(|shown| shown["name"].clone())
        .collect();
    assert_eq!(names, [json!(first), json!(third)]);
}

#[test]
fn snapshots_are_gone_back_to_and_deleted_and_what_is_wrong_is_said() {
    const MISSING: &str = "20010101T000000Z";
    let place = workplace();
    let take = || -> String {
        let taken = place.done(["snapshot", "create", "--json"]).json();
        taken["snapshot"]["name"].as_str().unwrap().to_owned()
    };
    let _ = place.done(["put", "host", "--payload", r#"{"is":"old"}"#]);
    let first = take();
    let _ = place.done(["put", "host", "--payload", r#"{"is":"new"}"#]);
    let second = take();
    let refused = place.op(["get", "host", "--at", MISSING, "--json"]).run();
    let _ = refused.refused(NO_SUCH_THING, &[MISSING]);
    let refused = place.op(["get", "host", "--at", "2001-01-01", "--json"]).run();
    let _ = refused.refused(NO_SUCH_THING, &["snapshot"]);
    let _ = place.op(["get", "host", "--at", "last week"]).run().exited(USAGE);
    let _ = place.op(["snapshot", "create", "--retention", "0"]).run().exited(USAGE);
    // It comes back in another directory, and is deleted by its name.
    let _ = place.done(["snapshot", "restore", &first, "--to", "back"]);
    let restored = place.op(["get", "host", "--store", "back"]).run().succeeded().json();
    assert_eq!(restored["is"], "old");
    let again = place.op(["snapshot", "restore", &first, "--to", "back", "--json"]).run();
    let _ = again.refused(INVALID, &["back"]);
    // And in its own, from where one can come back.
    let restored = place.done(["snapshot", "restore", &first, "--json"]).json();
    assert_eq!(place.done(["get", "host"]).json()["is"], "old");
    let before = restored["before"]["name"].as_str().unwrap();
    let _ = place.done(["snapshot", "restore", before]);
    assert_eq!(place.done(["get", "host"]).json()["is"], "new");
    let _ = place.op(["snapshot", "restore", MISSING]).run().exited(NO_SUCH_THING);
    let list = place.done(["snapshot", "list", "--json"]).json();
    let list = list["snapshots"].as_array().unwrap();
    let names: Vec<&str> = list.iter().map(|shown| shown["name"].as_str().unwrap()).collect();
    assert_eq!((names.len(), names[1]), (4, &second[..]));
    let _ = place.done([&["cache", "delete-snapshots"], &names[..]].concat());
    let _ = place.op(["snapshot", "list"]).run().exited(NOT_FOUND);
    assert_eq!(place.done(["get", "host"]).json()["is"], "new");
}

#[test]
fn what_changed_between_two_moments_is_shown() {
    let place = workplace();
    let put = |key: &str, number: u32| {
        let _ = place.done(["put", key, "--payload", &json!({ "n": number }).to_string()]);
    };
    let take = || -> String {
        let taken = place.done(["snapshot", "create", "--json"]).json();
        taken["snapshot"]["name"].as_str().unwrap().to_owned()
    };
    ["hosts/a", "hosts/b", "users/c"].iter().for_each(|key| put(key, 1));
    let first = take();
    put("hosts/a", 2);
    let _ = place.done(["remove", "hosts/b"]);
    put("users/d", 4);
    let second = take();
    put("users/c", 5);
    let expected = "~ state hosts/a\n- state hosts/b\n+ state users/d\n";
    assert_eq!(place.done(["diff", "--at", &first, "--at", &second]).text(), expected);
    let now = place.done(["diff", "--at", &first, "--prefix", "users/"]).text();
    assert_eq!(now, "~ state users/c\n+ state users/d\n");
    let told = place.done(["diff", "--at", &second, "--json"]).json();
    let n = |when: &str| &told[when]["payload"]["n"];
    assert_eq!((&told["key"], &told["change"]), (&json!("users/c"), &json!("changed")));
    assert_eq!((n("before"), n("after")), (&json!(1), &json!(5)));
    let same = place.op(["diff", "--at", &second, "--at", &second]).run();
    let _ = same.exited(NOT_FOUND);
    let _ = place.op(["diff"]).run().exited(USAGE);
    let thrice = ["diff", "--at", &first, "--at", &first, "--at", &first];
    let _ = place.op(thrice).run().exited(USAGE);
    let unknown = place.op(["diff", "--at", &first, "-c", "none", "--json"]).run();
    let _ = unknown.refused(NO_SUCH_THING, &["none"]);
}

#[test]
fn the_service_takes_and_deletes_snapshots_for_others() {
    let place = workplace();
    let _ = place.done(["put", "host", "--payload", "{}"]);
    let socket = place.path().join("socket");
    let bus = format!("socket:{}", socket.display());
    let service = place.op(["daemon", "--bus", &bus]).start();
    let started = Instant::now();
    while UnixStream::connect(&socket).is_err() {
        assert!(started.elapsed() < SERVICE_START_MAX, "the service does not start");
        std::thread::sleep(Duration::from_millis(10));
    }
    // Whether it is named or only found to have the store open.
    let asked = ["snapshot", "create", "--reason", "asked", "--keep", "--bus", &bus, "--json"];
    let asked = place.done(asked).json()["snapshot"].clone();
    assert_eq!((&asked["reason"], &asked["is_kept"]), (&json!("asked"), &json!(true)));
    let found = place.done(["snapshot", "create", "--reason", "found", "--json"]).json();
    assert_eq!(found["snapshot"]["reason"], "found");
    let last = ["snapshot", "create", "--retention", "1", "--schedule", "1h", "--json"];
    let last = place.done(last).json();
    assert_eq!(last["deleted"], json!([found["snapshot"]["name"]]));
    // The service does not tell what a snapshot takes; who may read its directory sees it.
    let told = place.done(["snapshot", "list", "--bus", &bus, "--json"]).json();
    let seen = place.done(["snapshot", "list", "--json"]).json();
    assert!(told["snapshots"][0]["total_bytes"].is_null(), "{told}");
    assert!(seen["snapshots"][0]["total_bytes"].is_u64(), "{seen}");
    for (number, name) in [(0, &asked["name"]), (1, &last["snapshot"]["name"])] {
        assert_eq!(
            (&told["snapshots"][number]["name"], &seen["snapshots"][number]["name"]),
            (name, name)
        );
        let _ = place.done(["snapshot", "delete", name.as_str().unwrap()]);
    }
    let _ = place.op(["snapshot", "list", "--bus", &bus]).run().exited(NOT_FOUND);
    let gone = place.op(["snapshot", "delete", last["snapshot"]["name"].as_str().unwrap()]).run();
    let _ = gone.exited(NO_SUCH_THING);
    service.interrupt();
    let _ = service.finish().exited(0);
    // What it has noted of itself means nothing any more.
    let _ = place.done(["snapshot", "create"]);
}
