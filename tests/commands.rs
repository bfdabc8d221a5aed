//! Every command: that it has examples, what it writes when it succeeds and when it fails, and that what
//! it writes as JSON keeps to the published schema. The program's runs in all other tests are held to
//! that schema, too.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use support::bus::{BusLimits, PrivateBus, Served};
use support::program::Workplace;
use support::thing::{self, Thing};
use support::{model, schema};

/// How a command succeeds, and how it fails, in words after the command; and the failure's exit code.
struct Use {
    command: &'static str,
    success: &'static [&'static str],
    failure: (&'static [&'static str], i32),
}

const fn by(
    command: &'static str,
    success: &'static [&'static str],
    failure: (&'static [&'static str], i32),
) -> Use {
    Use { command, success, failure }
}

/// On the store itself, in this order. A word SNAPSHOT is the name of the first one, MODEL the directory
/// of the model.
const DIRECT: [Use; 43] = [
    by("index", &["notes.jsonl", "--collection", "notes"], (&["missing.jsonl"], 3)),
    by("cache import", &["vectors.jsonl", "--collection", "v"], (&["broken.npy"], 4)),
    by("put", &["hosts/web1", "--payload", "{}"], (&["hosts/web1", "--payload", "{"], 4)),
    by("get", &["hosts/web1"], (&["hosts/web1", "--collection", "void"], 3)),
    by("history", &["hosts/web1"], (&["hosts/web1", "--collection", "void"], 3)),
    by("query", &["restart", "--explain"], (&["restart", "--filter", "=="], 2)),
    by("link", &["v"], (&["void"], 3)),
    by("stats", &[], (&["--at", "20200101T000000Z"], 3)),
    by("cache stats", &[], (&["--unknown"], 2)),
    by("cache get", &["restart"], (&[], 2)),
    by("cache put", &["another text"], (&["text", "--vector", "broken.npy"], 4)),
    by("cache export", &["--collection", "v"], (&["--collection", "void"], 3)),
    by("cache clean", &["--older-than", "1h"], (&["--older-than", "1x"], 2)),
    by("cache trace start", &[], (&["now"], 2)),
    by("cache trace stop", &[], (&["now"], 2)),
    by("cache simulate", &["--trace", "keys.txt"], (&["--trace", "missing"], 3)),
    by("collection list", &[], (&["--at", "never"], 2)),
    by("collection show", &["v"], (&["void"], 3)),
    by("collection create", &["w", "--dimensions", "3"], (&["v", "--dimensions", "9"], 4)),
    by("collection reembed", &["notes"], (&["v"], 4)),
    by("collection drop", &["w", "--confirm"], (&["v"], 2)),
    by("model list", &[], (&["--unknown"], 2)),
    by("model show", &[], (&["nowhere"], 3)),
    by("model verify", &[], (&["nowhere"], 3)),
    by("model install", &["MODEL", "--name", "copied"], (&["nowhere"], 3)),
    by("snapshot create", &["--reason", "why"], (&["--retention", "x"], 2)),
    by("snapshot list", &[], (&["--unknown"], 2)),
    by("remove", &["hosts/web1"], (&["hosts/web1", "--collection", "void"], 3)),
    by("diff", &["--at", "SNAPSHOT"], (&["--at", "20200101T000000Z"], 3)),
    by("snapshot restore", &["SNAPSHOT", "--to", "restored"], (&["never", "--to", "there"], 3)),
    by("snapshot delete", &["SNAPSHOT"], (&["never"], 3)),
    by("scrub", &[], (&["--rate", "0"], 2)),
    by("doctor", &[], (&["--unknown"], 2)),
    by("config show", &[], (&["--unknown"], 2)),
    by("config check", &["right.toml"], (&["wrong.toml"], 4)),
    by("completions", &["bash"], (&["tcsh"], 2)),
    by("man", &[], (&["--output", "/proc/nowhere"], 3)),
    by("schema", &["query"], (&["nothing"], 3)),
    by("plugin list", &["--plugins", "plugins"], (&["--unknown"], 2)),
    by("plugin show", &["one", "--plugins", "plugins"], (&["two", "--plugins", "plugins"], 3)),
    by("plugin validate", &["plugins/one"], (&["--unknown"], 2)),
    by("journal export", &[], (&["--from", "x"], 2)),
    by("cache clear", &[], (&["all"], 2)),
];

/// Of the service, which has the store and the plugin `one`.
const SERVED: [Use; 13] = [
    by("plugin call", &["one", "Look", "sky"], (&["one", "Never"], 9)),
    by(
        "plugin create",
        &["--from-dbus", "org.freedesktop.DBus", "--output", "made"],
        (&["--from-dbus", "org.opdbus.Nobody", "--output", "no"], 10),
    ),
    by("state query", &["one"], (&["two"], 3)),
    by("state diff", &["state.json"], (&["broken.npy"], 4)),
    by("state apply", &["state.json"], (&["broken.npy"], 4)),
    by("state verify", &["state.json"], (&["broken.npy"], 4)),
    by("state history", &[], (&["--unknown"], 2)),
    by("state rollback", &["APPLIED"], (&["999999"], 3)),
    by("journal show", &[], (&["--count", "x"], 2)),
    by("journal search", &["who put"], (&[], 2)),
    by("journal verify", &[], (&["--noted", "x"], 2)),
    by("query", &["restart"], (&["restart", "--collection", "void"], 3)),
    by("stats", &[], (&["--at", "never"], 2)),
];

/// What succeeds in tests of its own, which need BTRFS, a terminal, or time; by file. How it fails is
/// here.
const ELSEWHERE: [(&str, &str, &[&str], i32); 8] = [
    ("snapshot send", "transfer.rs", &["never", "--output", "sent"], 3),
    ("snapshot receive", "transfer.rs", &["missing"], 3),
    ("layout migrate", "relayout.rs", &["--unknown"], 2),
    ("benchmark", "benchmark.rs", &["--cache-hit", "x"], 2),
    ("daemon", "bus.rs", &["--calls-per-second", "x"], 2),
    ("top", "figures.rs", &["--every", "x"], 2),
    ("mcp", "mcp.rs", &["--unknown"], 2),
    ("model quantize", "models.rs", &["nowhere"], 3),
];

fn place() -> Workplace {
    model::installed();
    let place = Workplace::new(env!("CARGO_BIN_EXE_op-dbus"));
    place.file("notes.jsonl", "{\"key\":\"one\",\"text\":\"restart it\",\"payload\":{\"n\":1}}\n");
    place.file(
        "vectors.jsonl",
        "{\"key\":\"a\",\"vector\":[1,0]}\n{\"key\":\"b\",\"vector\":[0,1]}\n",
    );
    place.file("broken.npy", "no array");
    place.file("keys.txt", "a\nb\na\n");
    place.file("right.toml", "[cache]\nmax_size_gb = 1\n");
    place.file("wrong.toml", "[cash]\n");
    place.file("state.json", json!({ "version": "1.0", "plugins": {} }).to_string());
    thing::write_plugin(&place.path().join("plugins"), "one", thing::Plugin::default());
    place
}

/// Runs a command in both ways; the harness checks what it writes.
fn check(place: &Workplace, global: &[&str], used: &Use, replaced: &dyn Fn(&str) -> String) {
    let run = |words: &[&str]| {
        let words = used.command.split(' ').chain(words.iter().copied());
        let words: Vec<String> = words.map(replaced).collect();
        let line = place.op(global).arguments(words).arguments(["--json"]);
        if used.command != "model install" {
            return line.run();
        }
        // Nothing that the user who runs this has is changed.
        let library = model::installed().ancestors().nth(2).unwrap().join("lib/libonnxruntime.so");
        line.variable("XDG_DATA_HOME", place.path().join("data"))
            .variable("ORT_DYLIB_PATH", library)
            .run()
    };
    let succeeded = run(used.success).succeeded();
    let is_silent = ["journal export"].contains(&used.command);
    assert_eq!(succeeded.stdout.is_empty(), is_silent, "{}", used.command);
    let (failure, code) = used.failure;
    let failed = run(failure).exited(code);
    let last = failed.stderr.lines().last().unwrap_or_default();
    let report: Value = serde_json::from_str(last)
        .unwrap_or_else(|error| panic!("{}: {error}: {}", used.command, failed.stderr));
    assert_eq!(report["error"]["exit_code"], code, "{report}");
    assert!(report["error"]["remedy"].is_string(), "{report}");
}

#[test]
fn every_command_of_the_store_succeeds_and_fails_as_published() {
    let place = place();
    let snapshot = || {
        let listed = place.done(["snapshot", "list", "--json"]).json();
        listed["snapshots"][0]["name"].as_str().unwrap().to_owned()
    };
    let model = model::installed().display().to_string();
    let replaced = |word: &str| match word {
        "SNAPSHOT" => snapshot(),
        "MODEL" => model.clone(),
        word => word.to_owned(),
    };
    for used in &DIRECT {
        check(&place, &["--model", &model], used, &replaced);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_service_succeeds_and_fails_as_published() {
    let place = place();
    place.done(["index", "notes.jsonl", "--collection", "notes"]);
    let bus = PrivateBus::start(BusLimits::Raised);
    let connection = bus.connect().await;
    let _things = Thing::serve(&connection, ["one"]).await;
    let daemon = ["daemon", "--index-live=false", "--plugins", "plugins"];
    let served = Served::start(place.op(daemon), &bus);
    let address = bus.address();
    // The journal is looked through every few seconds, and has no collection before.
    let search = ["--bus", &address, "journal", "search", "start", "--json"];
    for _ in 0..300 {
        if !matches!(place.op(search).run().code(), Some(1 | 3)) {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let applied = || {
        let history = place.done(["--bus", &address, "state", "history", "--json"]).json();
        history["applied"][0]["number"].to_string()
    };
    for used in &SERVED {
        let replaced = |word: &str| match word {
            "APPLIED" => applied(),
            word => word.to_owned(),
        };
        check(&place, &["--bus", &address], used, &replaced);
    }
    let _ = served.terminate().succeeded();
}

#[test]
fn no_command_is_left_out() {
    let place = Workplace::new(env!("CARGO_BIN_EXE_op-dbus"));
    let listed: BTreeSet<String> =
        place.commands(&[]).into_iter().map(|words| words.join(" ")).collect();
    let used = DIRECT.iter().chain(&SERVED).map(|used| used.command.to_owned());
    let elsewhere = ELSEWHERE.iter().map(|(command, ..)| (*command).to_owned());
    let tried: BTreeSet<String> =
        used.chain(elsewhere).filter(|command| listed.contains(command)).collect();
    assert_eq!(tried, listed);
    for (command, file, failure, code) in ELSEWHERE {
        let words = command.split(' ').chain(failure.iter().copied()).chain(["--json"]);
        let _ = place.op(words).run().exited(code);
        let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests").join(file);
        let text = std::fs::read_to_string(&tests).unwrap();
        let word = command.split(' ').next_back().unwrap();
        assert!(text.contains(word), "{command} is not in {file}");
    }
    // What answers has a schema; the rest talks to people, terminals and programs of its own.
    let answers: BTreeSet<String> = schema::commands().into_iter().collect();
    let speaks_otherwise = ["daemon", "mcp", "schema", "top"].map(str::to_owned);
    let expected: BTreeSet<String> = listed
        .into_iter()
        .filter(|command| !speaks_otherwise.contains(command))
        .chain(["error".to_owned()])
        .collect();
    assert_eq!(answers, expected);
}

#[test]
fn what_is_published_is_what_is_checked_and_a_wrong_answer_is_noticed() {
    let place = Workplace::new(env!("CARGO_BIN_EXE_op-dbus"));
    assert_eq!(place.done(["schema"]).json(), schema::published());
    let one = place.done(["schema", "cache", "stats"]).json();
    assert_eq!(one["$ref"], "#/$defs/cache%20stats");
    let right = json!({ "collection": "v", "records": 3 });
    assert_eq!(schema::problem("collection drop", &right), None);
    for wrong in [
        json!({ "collection": "v" }),
        json!({ "collection": "v", "records": "3" }),
        json!({ "collection": "v", "records": 3, "more": 1 }),
        json!({ "collection": "v", "records": -1 }),
        json!([]),
    ] {
        assert!(schema::problem("collection drop", &wrong).is_some(), "{wrong}");
    }
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(schema::command(&words("--store /s cache stats --json")), Some("cache stats"));
    assert_eq!(schema::command(&words("query cache")), Some("query"));
    assert_eq!(schema::command(&words("cache")), None);
}
