//! Models that are installed, and collections that are embedded anew, as users of the program see
//! them.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use support::program::{Invocation, Workplace};
use support::random::Random;
use support::{model, onnx, scratch};

const INVALID: i32 = 4;
const UNAVAILABLE: i32 = 10;
const UNSUPPORTED: i32 = 11;
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

#[test]
fn a_model_of_eight_bits_is_near_the_model_it_is_made_of() {
    let place = Workplace::new(env!("CARGO_BIN_EXE_op-dbus"));
    let installed = model::installed();
    place.file("texts", fs::read(scratch::data("reference-texts.txt")).unwrap());
    let quantize = ["model", "quantize", installed.to_str().unwrap(), "--json", "--texts", "texts"];
    let made = run(&place, &quantize).run().succeeded().json();
    let compared = &made["compared"];
    let figure = |name: &str| compared[name].as_f64().unwrap();
    // A third of the way to what is lost when a whole batch has one scale, 0.9947 and 0.91.
    assert!(figure("cosine_mean") > 0.999 && figure("cosine_min") > 0.998, "{compared}");
    assert!(figure("overlap_at_10") > 0.95, "{compared}");
    assert!(figure("len_bytes") < 0.27 * figure("original_len_bytes"), "{compared}");
    assert_eq!((&compared["products_count"], &compared["tables_count"]), (&json!(24), &json!(2)));
    let name = made["name"].as_str().unwrap();
    let verified = run(&place, &["model", "verify", name, "--json"]).run().succeeded().json();
    assert_eq!(verified["dimensions"], 384);
    // It is there now, it cannot become smaller, and a few texts say nothing.
    run(&place, &quantize).run().refused(INVALID, &[name]);
    let again = ["model", "quantize", name, "--name", "again", "--json"];
    run(&place, &again).run().refused(UNSUPPORTED, &[name, "weights"]);
    place.file("few", "one\ntwo\n".repeat(20));
    let few = ["model", "quantize", quantize[2], "--name", "again", "--texts", "few", "--json"];
    run(&place, &few).run().refused(INVALID, &["texts"]);
    let models = place.path().join("data/op-dbus/models");
    assert_eq!(fs::read_dir(models).unwrap().count(), 1, "something is left");
}

#[test]
fn a_model_of_eight_bits_that_becomes_another_is_not_kept() {
    let place = Workplace::new(env!("CARGO_BIN_EXE_op-dbus"));
    // One number of each token is large and comes to nothing: the others share its scale.
    let mut random = Random::new(5);
    let mut fractions = |rows: usize, large: f32| {
        let numbers = (0..rows * SMALL_DIMENSIONS).map(|_| random.fraction());
        let mut numbers: Vec<f32> = numbers.collect();
        numbers.chunks_exact_mut(SMALL_DIMENSIONS).for_each(|row| row[0] = large);
        numbers
    };
    let embeddings = fractions(model::WORD_PIECES_COUNT, 1000.0);
    let mut weights = fractions(SMALL_DIMENSIONS, 0.5);
    weights[..SMALL_DIMENSIONS].fill(0.0);
    let encoder = onnx::text_encoder_with(&embeddings, &weights, SMALL_DIMENSIONS);
    model::write(&place.path().join("odd"), &encoder);
    let refused = run(&place, &["model", "quantize", "odd", "--json"]).run();
    refused.refused(INVALID, &["cosine"]);
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
    // Some are kept, and many are not. More than the first 256 texts, which are one record of the log: of
    // one that is cut short nothing is kept.
    while written_bytes(&place.store()) < before + 600_000 && started.is_alive() {
        assert!(Instant::now() < deadline, "nothing is kept");
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(started);
    let asked = run(&place, &["stats", "--json"]).run().succeeded();
    let stats = asked.json();
    assert_eq!(
        stats["collections"][0]["dimensions"], SMALL_DIMENSIONS,
        "it was not killed in time"
    );
    let report = run(&place, &reembed).run().succeeded().json();
    assert_eq!((&report["texts"], &report["dimensions"]), (&json!(TEXTS_COUNT), &json!(384)));
    let cached = report["cached"].as_u64().unwrap();
    assert!((100..TEXTS_COUNT as u64).contains(&cached), "{report}: {}", asked.stderr);
    let query = ["query", &lines[7], "--json", "--model", other.to_str().unwrap()];
    let found = run(&place, &query).run().succeeded().json();
    assert_eq!(found["hits"][0]["text"], lines[7].as_str());
}

/// Also beside the program, where a package with a prefix of its own has it.
#[test]
fn a_model_is_found_beside_the_program() {
    let place = Workplace::new(env!("CARGO_BIN_EXE_op-dbus"));
    let program = place.path().join("prefix/bin/op-dbus");
    fs::create_dir_all(program.parent().unwrap()).unwrap();
    fs::hard_link(env!("CARGO_BIN_EXE_op-dbus"), &program)
        .or_else(|_| fs::copy(env!("CARGO_BIN_EXE_op-dbus"), &program).map(drop))
        .unwrap();
    let models = place.path().join("prefix/share/op-dbus/models");
    model::write_small(&models.join("small"), SMALL_DIMENSIONS);
    let list = Invocation::new(&program)
        .arguments(["model", "list", "--json", "--store"])
        .arguments([place.store()])
        .variable("XDG_DATA_HOME", place.path().join("data"))
        .run()
        .succeeded()
        .json();
    let listed = list["models"].as_array().unwrap().iter();
    let named: Vec<_> = listed.filter(|model| model["name"] == "small").collect();
    assert_eq!(named.len(), 1, "{list}");
    assert_eq!(
        named[0]["directory"].as_str().map(Path::new),
        Some(&*models.join("small")),
        "{list}"
    );
}

#[test]
fn without_a_model_texts_are_refused_and_documents_are_not() {
    let place = Workplace::new(env!("CARGO_BIN_EXE_op-dbus"));
    let without = |arguments: &[&str]| {
        run(&place, &[arguments, &["--ml-enable=false", "--json"]].concat()).run()
    };
    let _ = without(&["put", "host", "--payload", "{}"]).succeeded();
    let _ = without(&["get", "host"]).succeeded();
    without(&["query", "a text"]).refused(UNAVAILABLE, &["no embedding model is configured"]);
    let doctor = without(&["doctor"]).succeeded().json();
    let checks = doctor["checks"].as_array().unwrap();
    let of_model = checks.iter().find(|check| check["name"] == "model").unwrap();
    assert_eq!(of_model["state"], "ok", "{of_model}");
}
