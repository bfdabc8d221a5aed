//! What is asked for is recorded and simulated, through the program.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::model;
use support::program::Workplace;

const TEXTS: &str = "a crow and a jug\na hare and a tortoise\nan ant in summer\na fox and grapes\n";
const TEXTS_COUNT: u64 = 4;
const COLUMNS_MAX: usize = 80;

fn workplace() -> Workplace {
    Workplace::new(env!("CARGO_BIN_EXE_op-dbus"))
}

fn current(place: &Workplace) -> PathBuf {
    place.store().join("@timing/trace/current")
}

/// Indexes the texts while a trace is recorded, asks one question twice, and stops the trace.
fn recorded(place: &Workplace) -> (PathBuf, Value) {
    model::installed();
    place.file("texts.txt", TEXTS);
    place.done(["cache", "trace", "start"]);
    place.done(["index", "texts.txt"]);
    for _ in 0..2 {
        place.done(["query", "birds"]);
    }
    let stopped = place.done(["cache", "trace", "stop", "--json"]).json();
    (PathBuf::from(stopped["trace"].as_str().unwrap()), stopped)
}

fn simulate(place: &Workplace, trace: &Path, more: &[&str]) -> Value {
    let trace = trace.to_str().unwrap();
    place
        .op(["cache", "simulate", "--json", "--trace", trace])
        .arguments(more)
        .run()
        .succeeded()
        .json()
}

/// The simulations of a capacity, by its name.
fn at<'a>(answer: &'a Value, capacity: &str) -> Vec<&'a Value> {
    let simulations = answer["simulations"].as_array().unwrap().iter();
    let found: Vec<_> = simulations.filter(|one| one["capacity"] == capacity).collect();
    assert!(!found.is_empty(), "{capacity} is not in {answer}");
    found
}

#[test]
fn every_process_records_until_the_trace_is_stopped() {
    let place = workplace();
    let (trace, stopped) = recorded(&place);
    assert_eq!(stopped["accesses"], TEXTS_COUNT + 2, "{stopped}");
    assert_eq!(stopped["bytes"], fs::metadata(&trace).unwrap().len(), "{stopped}");
    assert_eq!((&stopped["full"], &stopped["unfinished_bytes"]), (&false.into(), &0.into()));
    let answer = simulate(&place, &trace, &["--capacity", "100"]);
    assert_eq!((&answer["requests"], &answer["keys"]), (&6.into(), &5.into()), "{answer}");
    let given = at(&answer, "given");
    assert_eq!(given.len(), 3, "{answer}");
    for simulated in given {
        // The second question is all that was there before.
        assert_eq!(simulated["hits"], 1, "{simulated}");
        assert_eq!(simulated["promotions"], 5, "{simulated}");
    }
    // What comes after is in no trace.
    place.done(["query", "beasts"]);
    place.op(["cache", "trace", "stop", "--json"]).run().refused(3, &["@timing/trace"]);
    assert_eq!(simulate(&place, &trace, &[])["requests"], 6);
}

#[test]
fn a_capacity_in_bytes_counts_vectors() {
    let place = workplace();
    let (trace, _) = recorded(&place);
    let embedding = place.done(["cache", "get", "birds", "--json"]).json();
    let vector_bytes = embedding["dimensions"].as_u64().unwrap() * 4;
    let answer = simulate(&place, &trace, &["--capacity", "1MiB", "--policy", "s3fifo"]);
    let given = at(&answer, "1.00 MiB");
    assert_eq!(given.len(), 1, "{answer}");
    assert_eq!(given[0]["capacity_entries"], (1 << 20) / vector_bytes, "{answer}");
    assert_eq!(given[0]["policy"], "s3fifo", "{answer}");
}

#[test]
fn a_second_start_is_refused_and_the_first_goes_on() {
    let place = workplace();
    place.done(["cache", "trace", "start"]);
    let remedy = place
        .op(["cache", "trace", "start", "--json"])
        .run()
        .refused(4, &["@timing/trace/current"]);
    assert!(remedy.contains("stop"), "{remedy}");
    let stopped = place.done(["cache", "trace", "stop", "--json"]).json();
    assert_eq!(stopped["accesses"], 0, "{stopped}");
    let trace = PathBuf::from(stopped["trace"].as_str().unwrap());
    assert_eq!(simulate(&place, &trace, &[])["requests"], 0);
    place.done(["cache", "trace", "start"]);
}

#[test]
fn a_torn_trace_ends_before_its_last_block() {
    let place = workplace();
    let (trace, _) = recorded(&place);
    let whole = fs::read(&trace).unwrap();
    fs::write(&trace, &whole[..whole.len() - 1]).unwrap();
    // The last process asked for one vector.
    assert_eq!(simulate(&place, &trace, &[])["requests"], 5);
    let shown = place.op(["cache", "simulate", "--trace"]).arguments([&trace]).run().succeeded();
    assert!(shown.stderr.contains("unfinished"), "{}", shown.stderr);
}

#[test]
fn a_damaged_trace_keeps_no_store_from_opening() {
    let place = workplace();
    place.done(["cache", "trace", "start"]);
    fs::write(current(&place), "something else").unwrap();
    let stats = place.done(["stats"]);
    assert!(stats.stderr.contains("not recorded"), "{}", stats.stderr);
    let stop = place.op(["cache", "trace", "stop", "--json", "--log-level", "error"]).run();
    let remedy = stop.refused(7, &["@timing/trace/current"]);
    assert!(remedy.contains("remove"), "{remedy}");
}

#[test]
fn keys_on_lines_are_simulated_in_a_table_that_fits() {
    let place = workplace();
    let keys: String = (0..20_000_u64).map(|n| format!("key {}\n", n * n % 997 % 500)).collect();
    let distinct = keys.lines().collect::<std::collections::BTreeSet<_>>().len() as u64;
    let trace = place.file("keys.txt", &keys);
    let answer = simulate(&place, &trace, &["--capacity", "4000000000"]);
    assert_eq!((&answer["requests"], &answer["keys"]), (&20_000.into(), &distinct.into()));
    for simulated in at(&answer, "given") {
        assert_eq!(simulated["hits"], 20_000 - distinct, "{simulated}");
    }
    for (capacity, percent) in [("1 %", 1), ("5 %", 5), ("10 %", 10), ("25 %", 25), ("50 %", 50)] {
        for simulated in at(&answer, capacity) {
            assert_eq!(simulated["capacity_entries"], distinct * percent / 100, "{simulated}");
        }
    }
    let ratio = |capacity| at(&answer, capacity)[0]["hit_ratio"].as_f64().unwrap();
    assert!(ratio("50 %") > ratio("5 %"), "{answer}");
    let table = place.op(["cache", "simulate", "--trace", "keys.txt"]);
    let table = table.arguments(["--capacity", "4000000000"]).run().succeeded().text();
    for line in table.lines() {
        assert!(line.chars().count() <= COLUMNS_MAX, "{line}");
    }
    let shown = format!("{:.1} %", ratio("50 %") * 100.0);
    let row = table.lines().find(|line| line.trim_start().starts_with("50 %")).unwrap();
    assert!(row.contains(&shown), "{row}");
}

#[test]
fn without_requests_there_is_no_ratio() {
    let place = workplace();
    let trace = place.file("empty.txt", "\n\n");
    let answer = simulate(&place, &trace, &["--capacity", "1GiB"]);
    for simulated in answer["simulations"].as_array().unwrap() {
        assert_eq!(simulated["hit_ratio"], Value::Null, "{simulated}");
    }
    let table = place.done(["cache", "simulate", "--trace", "empty.txt"]).text();
    assert_eq!(table.matches('–').count(), 15, "{table}");
    assert!(!table.contains("0.0 %"), "{table}");
}

#[test]
fn what_cannot_be_simulated_is_refused() {
    let place = workplace();
    let keys = place.file("keys.txt", "a\nb\n");
    let refused = |trace: &str, more: &[&str], code: i32, names: &[&str]| {
        let run = place.op(["cache", "simulate", "--json", "--trace", trace]).arguments(more).run();
        run.refused(code, names)
    };
    refused("missing.txt", &[], 3, &["missing.txt"]);
    refused(".", &[], 4, &["regular file"]);
    refused("keys.txt", &["--capacity", "1MiB"], 2, &["size"]);
    refused("keys.txt", &["--capacity", "many"], 2, &["many"]);
    refused("keys.txt", &["--policy", "fifo"], 2, &["fifo"]);
    fs::write(&keys, "x".repeat(1 << 20)).unwrap();
    let remedy = refused("keys.txt", &[], 4, &["keys.txt", "line 1"]);
    assert!(!remedy.contains("stored"), "{remedy}");
    let (trace, _) = recorded(&place);
    let whole = fs::read(&trace).unwrap();
    let altered = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 2;
        fs::write(place.path().join("altered.trace"), bytes).unwrap();
    };
    altered(8);
    refused("altered.trace", &[], 11, &["altered.trace"]);
    altered(70);
    refused("altered.trace", &[], 7, &["altered.trace"]);
}
