//! `op-dbus benchmark --search`: a graph of the vectors of a file, made once, and what it answers.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs;

use serde_json::Value;
use support::program::{Ended, Workplace};
use support::random::Random;

const DIMENSIONS: usize = 48;
const VECTORS_COUNT: usize = 4000;
const QUERIES_COUNT: usize = 50;
const GRAPH: &str = "index/vectors.graph";

fn workplace() -> Workplace {
    let place = Workplace::new(env!("CARGO_BIN_EXE_op-dbus"));
    let mut random = Random::new(41);
    let directions = fractions(&mut random, 6 * DIMENSIONS);
    // They differ in six directions and a little in all.
    let mut vectors = |count: usize| -> Vec<f32> {
        let vector = |_| {
            let mut vector: Vec<f32> =
                fractions(&mut random, DIMENSIONS).iter().map(|x| 0.1 * x).collect();
            for direction in directions.chunks(DIMENSIONS) {
                let amount = fractions(&mut random, 1)[0];
                vector.iter_mut().zip(direction).for_each(|(x, d)| *x += amount * d);
            }
            vector
        };
        (0..count).flat_map(vector).collect()
    };
    place.file("base.npy", npy(&vectors(VECTORS_COUNT), DIMENSIONS));
    place.file("queries.npy", npy(&vectors(QUERIES_COUNT), DIMENSIONS));
    place
}

fn fractions(random: &mut Random, count: usize) -> Vec<f32> {
    (0..count).map(|_| 2.0 * random.fraction() - 1.0).collect()
}

/// An array as numpy saves it.
fn npy(numbers: &[f32], dimensions: usize) -> Vec<u8> {
    let rows = numbers.len() / dimensions;
    let mut header =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dimensions}), }}");
    let len = (10 + header.len() + 1).next_multiple_of(64) - 10;
    header = format!("{header:<width$}\n", width = len - 1);
    let bytes = numbers.iter().flat_map(|number| number.to_le_bytes());
    b"\x93NUMPY\x01\x00"
        .iter()
        .copied()
        .chain((len as u16).to_le_bytes())
        .chain(header.into_bytes())
        .chain(bytes)
        .collect()
}

fn search(place: &Workplace, more: &[&str]) -> Ended {
    let command = ["benchmark", "--search", "--base", "base.npy", "--index", "index", "--json"];
    place.op(command.iter().chain(more)).run()
}

/// What is told of the index, and a row for each effort.
fn rows(ended: Ended) -> Vec<Value> {
    let searches = &ended.succeeded().json()["search_file"];
    let rows = searches["rows"].as_array().unwrap();
    [&searches["index"]].into_iter().chain(rows).cloned().collect()
}

const ASK: [&str; 6] = ["--queries", "queries.npy", "--truth", "exact", "--efforts", "10,200"];

#[test]
fn a_graph_is_made_once_and_finds_more_with_more_effort() {
    let place = workplace();
    for (metric, profile) in
        [("cosine", "speed"), ("cosine", "compact"), ("euclidean", "speed"), ("dot", "compact")]
    {
        let options = ["--metric", metric, "--profile", profile, "--threads", "2"];
        let built = rows(search(&place, &options));
        assert_eq!((built.len(), built[0]["vectors"].as_u64()), (1, Some(VECTORS_COUNT as u64)));
        assert!(built[0]["build_cpu_s"].as_f64().unwrap() > 0.0);
        let bytes = built[0]["bytes_per_vector_disk"].as_f64().unwrap() * VECTORS_COUNT as f64;
        assert_eq!(fs::metadata(place.path().join(GRAPH)).unwrap().len(), bytes.round() as u64);

        let ids = ["--ids", "found.i32", "--passes", "2", "-k", "5"];
        let asked = rows(search(&place, &[&options[..], &ASK, &ids].concat()));
        assert_eq!(asked.len(), 3);
        assert!(asked[0]["build_cpu_s"].is_null(), "it was there: {}", asked[0]);
        let recalls: Vec<f64> =
            asked[1..].iter().map(|row| row["recall"].as_f64().unwrap()).collect();
        assert!(recalls[0] <= recalls[1] && recalls[1] >= 0.98, "{metric} {profile} {recalls:?}");
        assert!(asked[1..].iter().all(|row| row["qps_cpu"].as_f64().unwrap() > 0.0));

        // What was written is a truth to find again.
        assert_eq!(fs::read(place.path().join("found.i32")).unwrap().len(), 4 * 5 * QUERIES_COUNT);
        let again = ["--queries", "queries.npy", "--truth", "found.i32", "--efforts", "200"];
        let again = rows(search(&place, &[&options[..], &again, &["-k", "5"]].concat()));
        assert_eq!(again[1]["recall"].as_f64(), Some(1.0));
        fs::remove_file(place.path().join(GRAPH)).unwrap();
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let place = workplace();
    rows(search(&place, &[]));
    search(&place, &["--metric", "dot"]).refused(4, &["vectors.graph", "metric"]);
    place.file("narrow.npy", npy(&[0.5; 8], 4));
    search(&place, &["--queries", "narrow.npy"]).refused(4, &["4 numbers", "48"]);
    place.file("none.npy", npy(&[], DIMENSIONS));
    search(&place, &["--queries", "none.npy"]).refused(4, &["no queries"]);
    place.file("short.i32", [0; 12]);
    let truth = ["--queries", "queries.npy", "--truth", "short.i32"];
    search(&place, &truth).refused(4, &["short.i32", "12 bytes"]);
    place.file("truth.npy", npy(&[0.5; 8], 4));
    let truth = ["--queries", "queries.npy", "--truth", "truth.npy"];
    search(&place, &truth).refused(4, &["truth.npy", "whole numbers"]);
    place.file("base.npy", npy(&[0.25; 4 * DIMENSIONS], DIMENSIONS));
    search(&place, &[]).refused(4, &["vectors.graph", "other vectors"]);
    place.file("base.npy", npy(&[f32::NAN; DIMENSIONS], DIMENSIONS));
    fs::remove_file(place.path().join(GRAPH)).expect("a graph");
    search(&place, &[]).refused(4, &["base.npy", "row 0"]);
    // An option that would be ignored is none.
    let commands: [&[&str]; 5] = [
        &["benchmark"],
        &["benchmark", "--all", "--base", "b", "--index", "i"],
        &["benchmark", "--cache-hit", "1000", "--metric", "dot"],
        &["benchmark", "--search", "--base", "b", "--index", "i", "--passes", "2"],
        &["benchmark", "--search", "--base", "b", "--index", "i", "--keys", "5"],
    ];
    for command in commands {
        let told = place.op(command).run().exited(2).stderr;
        assert!(told.contains("Usage"), "{told}");
    }
}

#[test]
fn as_much_is_found_as_is_asked_for() {
    let place = workplace();
    for k in ["5", "10", "100"] {
        let asked = ["--queries", "queries.npy", "--truth", "exact", "--recalls", "0.8,0.99"];
        let rows = rows(search(&place, &[&asked[..], &["-k", k]].concat()));
        let found: Vec<f64> = rows[1..].iter().map(|row| row["recall"].as_f64().unwrap()).collect();
        assert!(found.len() == 2 && found[0] >= 0.75 && found[1] >= 0.97, "{k}: {found:?}");
        assert!(rows[1]["effort"].as_u64() < rows[2]["effort"].as_u64(), "{rows:?}");
    }
    let both = search(&place, &["--queries", "queries.npy", "--recalls", "0.9", "--efforts", "9"]);
    both.refused(2, &["--recalls", "--efforts"]);
    search(&place, &["--queries", "queries.npy", "--recalls", "1.5"]).refused(2, &["above 0"]);
}

#[test]
fn the_graph_of_a_collection_is_asked_for_its_own_vectors() {
    let place = workplace();
    let _ = place.op(["cache", "import", "base.npy", "--collection", "notes"]).run().succeeded();
    let ask = |more: &[&str]| {
        let command = ["benchmark", "--search", "300", "--collection", "notes", "--json"];
        let told = place.op(command.iter().chain(more)).run().succeeded().json();
        assert_eq!(told["search"]["exact"]["recall"], 1.0, "{told}");
        told["search"]["rows"].as_array().unwrap().clone()
    };
    let without = ask(&["--recalls", "0.5"]);
    assert_eq!(
        (without[0]["plan"].as_str(), without[0]["recall"].as_f64()),
        (Some("exact"), Some(1.0))
    );
    let _ = place.op(["link", "notes"]).run().succeeded();
    let found = ask(&["--threads", "2"]);
    assert_eq!(found.len(), 3);
    for (row, asked) in found.iter().zip([0.9, 0.95, 0.99]) {
        assert_eq!(
            (row["plan"].as_str(), row["asked_recall"].as_f64()),
            (Some("graph"), Some(asked))
        );
        assert!(row["recall"].as_f64().unwrap() >= asked - 0.03, "{row}");
        assert!(
            row["expanded"].as_f64() > Some(1.0) && row["qps_wall"].as_f64() > Some(0.0),
            "{row}"
        );
    }
    let wrong: [(&[&str], i32, &str); 5] = [
        (&["--search", "--collection", "notes", "--efforts", "9"], 2, "--queries"),
        (&["--search", "--base", "base.npy", "--index", "i", "-k", "5"], 2, "--queries"),
        (&["--search", "5", "--base", "base.npy", "--index", "i"], 2, "how many vectors"),
        (&["--search", "0", "--collection", "notes"], 2, "0"),
        (&["--search", "--collection", "nobody"], 3, "nobody"),
    ];
    for (arguments, code, told) in wrong {
        let command = ["--json", "benchmark"];
        place.op(command.iter().chain(arguments)).run().refused(code, &[told]);
    }
}

#[test]
fn a_damaged_graph_is_named_with_the_remedy() {
    let place = workplace();
    rows(search(&place, &[]));
    let path = place.path().join(GRAPH);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).unwrap();
    // What nobody reads is not looked at, so all is read.
    let all = search(&place, &["--queries", "queries.npy", "--efforts", "4000"]);
    let told = all.refused(7, &["vectors.graph", "damaged"]);
    assert!(told.contains("remove it"), "{told}");
    fs::remove_file(&path).unwrap();
    rows(search(&place, &[]));
}

#[test]
fn an_interrupted_build_leaves_nothing() {
    let place = workplace();
    let mut random = Random::new(5);
    place.file("base.npy", npy(&fractions(&mut random, 40_000 * DIMENSIONS), DIMENSIONS));
    let command = ["benchmark", "--search", "--base", "base.npy", "--index", "index"];
    let mut running = place.op(command).start();
    // It begins to link as soon as the directory is there.
    while !place.path().join("index").exists() && running.is_alive() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    running.interrupt();
    let ended = running.finish().exited(130);
    assert_eq!(ended.stdout, b"");
    assert_eq!(fs::read_dir(place.path().join("index")).unwrap().count(), 0);
}
