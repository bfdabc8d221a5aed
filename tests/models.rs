//! Models that are installed, and collections that are embedded anew, as users of the program see
//! them.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use support::program::{Invocation, Workplace};
use support::random::Random;
use support::{model, scratch};

const INVALID: i32 = 4;
const CORRUPT: i32 = 7;
const SMALL_DIMENSIONS: usize = 24;

/// A place whose user has no models, but the library that runs them.
fn run(place: &Workplace, arguments: &[&str]) -> Invocation {
    let library = std::env::var_os("ORT_DYLIB_PATH")
        .unwrap_or_else(|| scratch::data_directory().join("lib/libonnxruntime.so").into());
    place
        .op(arguments)
        .variable("XDG_DATA_HOME", place.path().join("data"))
        .variable("ORT_DYLIB_PATH", library)
}

#[test]
fn a_model_is_installed_whole_pinned_and_found_by_its_name() {
    let place = Workplace::new(env!("CARGO_BIN_EXE_op-dbus"));
    model::write_small(&place.path().join("download"), SMALL_DIMENSIONS);
    let _ = run(&place, &["model", "list"]).run().exited(1);
    let install = ["model", "install", "download", "--name", "small", "--json"];
    let _ = run(&place, &install).run().succeeded();
    run(&place, &install).run().refused(INVALID, &["small"]);
    let list = run(&place, &["model", "list", "--json"]).run().succeeded().json();
    assert_eq!(list["models"][0]["name"], "small");
    let shown = run(&place, &["model", "show", "small", "--json"]).run().succeeded().json();
    assert_eq!(shown["outline"]["pooling"], "mean of the tokens");
    let verified = run(&place, &["model", "verify", "small", "--json"]).run().succeeded().json();
    assert_eq!(verified["dimensions"], SMALL_DIMENSIONS);
    assert_eq!(verified["files"].as_array().unwrap().len(), 2);
    assert!(verified["files"].as_array().unwrap().iter().all(|file| file["is_as_pinned"] == true));
    // What is changed afterwards is found, and not run.
    let installed = place.path().join("data/op-dbus/models/small");
    let mut bytes = fs::read(installed.join("model.onnx")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(installed.join("model.onnx"), bytes).unwrap();
    let text = run(&place, &["model", "verify", "small"]).run().exited(CORRUPT).text();
    assert!(text.contains("NOT as pinned") && text.contains("it is not run"), "{text}");
}

#[test]
fn a_model_that_is_not_the_expected_one_is_not_installed() {
    let place = Workplace::new(env!("CARGO_BIN_EXE_op-dbus"));
    model::write_small(&place.path().join("download"), SMALL_DIMENSIONS);
    place.file("sums", format!("{}  model.onnx\n", "0".repeat(64)));
    place.file("no-sums", "these are none\n");
    for (sums, named) in [("sums", "model.onnx"), ("no-sums", "no-sums")] {
        let install = ["model", "install", "download", "--sums", sums, "--json"];
        run(&place, &install).run().refused(CORRUPT, &[named]);
    }
    let models = place.path().join("data/op-dbus/models");
    assert_eq!(fs::read_dir(models).unwrap().count(), 0, "something is left");
}

/// Bytes of what the embedding cache has written.
fn written_bytes(store: &Path) -> u64 {
    let entries = fs::read_dir(store.join("@cache/db")).into_iter().flatten().flatten();
    let logs = entries.filter(|entry| entry.path().extension().is_some_and(|end| end == "log"));
    logs.map(|log| log.metadata().map_or(0, |status| status.len())).sum()
}

#[test]
fn embedding_anew_goes_on_where_it_was_killed() {
    const TEXTS_COUNT: usize = 1500;
    let place = Workplace::new(env!("CARGO_BIN_EXE_op-dbus"));
    model::write_small(&place.path().join("small"), SMALL_DIMENSIONS);
    let mut random = Random::new(11);
    let lines: Vec<String> = (0..TEXTS_COUNT).map(|_| random.words(4)).collect();
    place.file("lines.txt", lines.join("\n"));
    let _ = run(&place, &["index", "lines.txt", "--model", "small"]).run().succeeded();
    let before = written_bytes(&place.store());
    let other = model::installed();
    let reembed =
        ["collection", "reembed", "documents", "--json", "--model", other.to_str().unwrap()];
    let mut started = run(&place, &reembed).start();
    let deadline = Instant::now() + Duration::from_secs(120);
    // Some are kept, and many are not.
    while written_bytes(&place.store()) < before + 200_000 && started.is_alive() {
        assert!(Instant::now() < deadline, "nothing is kept");
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(started);
    let stats = run(&place, &["stats", "--json"]).run().succeeded().json();
    assert_eq!(
        stats["collections"][0]["dimensions"], SMALL_DIMENSIONS,
        "it was not killed in time"
    );
    let report = run(&place, &reembed).run().succeeded().json();
    assert_eq!((&report["texts"], &report["dimensions"]), (&json!(TEXTS_COUNT), &json!(384)));
    let cached = report["cached"].as_u64().unwrap();
    assert!((100..TEXTS_COUNT as u64).contains(&cached), "{report}");
    let query = ["query", &lines[7], "--json", "--model", other.to_str().unwrap()];
    let found = run(&place, &query).run().succeeded().json();
    assert_eq!(found["hits"][0]["text"], lines[7].as_str());
}
