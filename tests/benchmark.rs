//! `op-dbus benchmark`: one report of everything, as a table, as JSON, as a page and beside an earlier
//! one. What was measured is never asserted, only that it was.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use support::model;
use support::program::{Invocation, Workplace};

/// Everything, small.
const SMALL: [&str; 11] = [
    "benchmark",
    "--all",
    "--cache-hit",
    "1000",
    "--keys",
    "1000",
    "--embeddings",
    "2",
    "--numa-local",
    "1000",
    "--search=2000",
];
/// What is soon measured.
const SHORT: [&str; 5] = ["benchmark", "--cache-hit", "1000", "--keys", "1000"];
const COLUMNS_MAX: usize = 80;
const REGRESSED: i32 = 14;

fn workplace() -> Workplace {
    let place = Workplace::new(env!("CARGO_BIN_EXE_op-dbus"));
    fs::create_dir(place.path().join("scratch")).unwrap();
    place
}

/// A run that makes what it measures in a directory of the workplace.
fn benchmark(place: &Workplace, command: &[&str], more: &[&str]) -> Invocation {
    place.op(command).arguments(["--directory", "scratch"]).arguments(more)
}

/// Nothing of what was made is left.
fn assert_clean(place: &Workplace) {
    assert_eq!(fs::read_dir(place.path().join("scratch")).unwrap().count(), 0);
}

fn names(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// Multiplies times and divides rates in a result: all of them, or ours alone.
fn slowed(result: &Value, factor: f64, are_all: bool) -> Value {
    let mut slowed = result.clone();
    for row in slowed["cache_hit"].as_array_mut().unwrap() {
        if !are_all && !engine(row).starts_with("op-dbus") {
            continue;
        }
        for (name, value) in row.as_object_mut().unwrap() {
            let number = value.as_f64();
            match (name.as_str(), number) {
                ("p50_ns", Some(ns)) => *value = json!(ns.max(1.0) * factor),
                ("lookups_per_second", Some(rate)) => *value = json!(rate / factor),
                _ => {}
            }
        }
    }
    slowed
}

#[test]
fn everything_is_one_report() {
    model::installed();
    let place = workplace();
    let ended = benchmark(&place, &SMALL, &["--json", "--report", "report.html"]).run();
    let result = ended.succeeded().json();
    assert_clean(&place);
    let fields = names(&result);
    for name in ["benchmark_version", "program", "measured_at_unix_ms", "machine", "sizes"] {
        assert!(fields.contains(&name), "{fields:?}");
    }
    let machine = ["cpu", "cpus", "instructions", "memory_bytes", "numa_nodes", "system", "kernel"];
    assert_eq!(names(&result["machine"]), machine);
    assert_eq!(names(&result["sizes"]), ["cache_hit", "embeddings", "numa_local", "search"]);
    let engines: Vec<&str> = result["cache_hit"].as_array().unwrap().iter().map(engine).collect();
    assert!(engines.starts_with(&["op-dbus borrowed", "op-dbus copied", "memcpy"]), "{engines:?}");
    let embedding = &result["embeddings"][0];
    assert_eq!(embedding["provider"], "cpu");
    assert_eq!(embedding["rows"].as_array().unwrap().len(), 3);
    for figure in ["p50_ms", "runtime_p50_ms", "texts_per_second"] {
        assert!(embedding["rows"][0][figure].as_f64().unwrap() > 0.0, "{embedding}");
    }
    assert!(embedding["cached"]["copy_p50_ns"].as_f64().is_some(), "{embedding}");
    let search = &result["search"];
    assert_eq!((&search["vectors"], &search["exact"]["recall"]), (&json!(2000), &json!(1.0)));
    assert!(search["rows"].as_array().unwrap().iter().all(|row| row["plan"] == "graph"));
    assert!(result["numa_local"]["memory"][0]["latency_ns"].as_f64().unwrap() > 0.0);
    // There is no card where tests run, or it is measured.
    let missing = result["not_measured"].to_string();
    assert!(missing.contains("cuda") || result["embeddings"][1]["provider"] == "cuda", "{missing}");

    let page = fs::read_to_string(place.path().join("report.html")).unwrap();
    let svgs_count = page.matches("<svg").count();
    assert!(svgs_count >= 5, "{svgs_count} plots");
    for part in ["uncached / hit", "prefers-color-scheme: dark", "Not measured", "ONNX Runtime"] {
        assert!(page.contains(part), "{part} is missing");
    }
    // Nothing comes from elsewhere, and nothing runs.
    for word in ["http:", "https:", "<script", "@import", "url(", "NaN", "inf,", "\u{fffd}"] {
        assert!(!page.contains(word), "{word} is in the page");
    }
    in_a_browser(&place.path().join("report.html"), place.path());
}

fn engine(row: &Value) -> &str {
    row["engine"].as_str().unwrap()
}

/// Opens the page, light and dark: nothing is complained about, and it can be seen.
fn in_a_browser(page: &Path, directory: &Path) {
    let browser = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| {
        Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success())
    });
    let Some(browser) = browser else {
        println!("SKIPPED: no browser looks at the page; it takes the package chromium");
        return;
    };
    for (name, scheme) in [("light.png", "1"), ("dark.png", "0")] {
        let picture = directory.join(name);
        let output = Command::new("timeout")
            .args(["120", browser, "--headless=new", "--no-sandbox", "--disable-gpu"])
            .args(["--enable-logging=stderr", "--v=0", "--window-size=1200,2600"])
            .arg(format!("--blink-settings=preferredColorScheme={scheme}"))
            .arg(format!("--user-data-dir={}", directory.join("browser").display()))
            .arg(format!("--screenshot={}", picture.display()))
            .arg(format!("file://{}", page.display()))
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{told}");
        let complaints: Vec<&str> = told.lines().filter(|line| line.contains("CONSOLE")).collect();
        assert!(complaints.is_empty(), "{complaints:?}");
        let bytes = fs::read(&picture).unwrap();
        assert!(bytes.starts_with(b"\x89PNG") && bytes.len() > 50_000, "{} bytes", bytes.len());
    }
    let [light, dark] =
        ["light.png", "dark.png"].map(|name| fs::read(directory.join(name)).unwrap());
    assert_ne!(light, dark, "the reader's colours do not count");
}

#[test]
fn the_table_fits_and_says_what_is_missing() {
    let place = workplace();
    fs::create_dir(place.path().join("empty")).unwrap();
    let empty = place.path().join("empty");
    let without_model = |more: &[&str]| {
        benchmark(&place, &SMALL, more)
            .variable("XDG_DATA_HOME", &empty)
            .variable("ORT_DYLIB_PATH", "")
            .run()
    };
    let text = without_model(&[]).succeeded().text();
    assert_clean(&place);
    for line in text.lines() {
        // The name of a file is as long as it is.
        let is_path = line.contains(place.path().to_str().unwrap());
        assert!(is_path || line.chars().count() <= COLUMNS_MAX, "{line}");
    }
    for part in ["guide", "A vector by key", "The nearest 10 of 2,000", "Not measured"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.contains("embedding texts: ") && text.contains("make setup"), "{text}");
    // Who asks for a model by name, or for nothing else, wants no less.
    without_model(&["--json", "--model", "nowhere"]).refused(3, &["nowhere"]);
    let alone = ["benchmark", "--embeddings", "5", "--json"];
    place.op(alone).variable("XDG_DATA_HOME", &empty).run().refused(3, &["model"]);
}

#[test]
fn an_earlier_result_is_compared_with() {
    let place = workplace();
    let result = benchmark(&place, &SHORT, &["--json"]).run().succeeded().json();
    assert_eq!(names(&result["sizes"]), ["cache_hit"]);
    place.file("slower.json", slowed(&result, 1000.0, true).to_string());
    place.file("faster.json", slowed(&result, 0.001, false).to_string());
    place.file("faster-machine.json", slowed(&result, 1e-6, true).to_string());

    let text = benchmark(&place, &SHORT, &["--compare", "slower.json"]).run().succeeded().text();
    assert!(text.contains("Nothing is worse") && text.contains("30 %"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= COLUMNS_MAX), "{text}");

    let ended = benchmark(&place, &SHORT, &["--compare", "faster.json"]).run().exited(REGRESSED);
    let text = ended.text();
    assert!(text.contains("worse") && text.contains("figures are worse"), "{text}");
    let compare = ["--compare", "faster.json", "--tolerance", "900", "--json"];
    let told = benchmark(&place, &SHORT, &compare).run().exited(REGRESSED).json();
    assert_eq!(names(&told), ["baseline", "tolerance_percent", "changes", "results"]);
    for change in told["changes"].as_array().unwrap() {
        let figure = change["figure"].as_str().unwrap();
        assert_eq!(
            names(change),
            ["figure", "before", "after", "ratio", "reference_ratio", "is_regression"]
        );
        // Neither the machine nor LMDB is ours.
        assert_eq!(change["is_regression"], !figure.contains("memcpy") && !figure.contains("LMDB"));
    }
    // All was faster then: the machine was, or nobody else was on it.
    let compare = ["--compare", "faster-machine.json", "--tolerance", "1000", "--json"];
    let told = benchmark(&place, &SHORT, &compare).run().succeeded().json();
    let changes = told["changes"].as_array().unwrap();
    assert!(changes.iter().all(|change| change["is_regression"] == false), "{told}");
    // What was told can be compared with.
    place.file("again.json", told["results"].to_string());
    let again = benchmark(&place, &SHORT, &["--compare", "again.json", "--tolerance", "1000"]);
    let code = again.run().code();
    assert!(code == Some(0) || code == Some(REGRESSED), "{code:?}");
    assert_clean(&place);
}

#[test]
fn a_baseline_that_tells_nothing_is_refused_before_anything_is_measured() {
    let place = workplace();
    let result = benchmark(&place, &SHORT, &["--json"]).run().succeeded().json();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut changed = result.clone();
        change(&mut changed);
        serde_json::to_string_pretty(&changed).unwrap()
    };
    let cut = result.to_string();
    let cases: [(&str, String, i32, &[&str]); 10] = [
        ("empty", String::new(), 4, &["line 1, column 0", "EOF"]),
        ("cut", cut[..cut.len() / 2].to_owned(), 4, &["line 1, column"]),
        ("text", "\n\n not JSON".to_owned(), 4, &["line 3, column"]),
        ("array", "[]".to_owned(), 4, &["line 1, column"]),
        ("type", with(&|value| value["sizes"] = json!("many")), 4, &["line", "column", "many"]),
        ("lacking", "{\"benchmark_version\": 1}".to_owned(), 4, &["missing field", "column"]),
        ("newer", with(&|value| value["benchmark_version"] = json!(2)), 11, &["version 2"]),
        ("machine", with(&|value| value["machine"]["cpu"] = json!("Z80")), 4, &["Z80"]),
        ("sizes", with(&|value| value["sizes"]["cache_hit"]["lookups"] = json!(7)), 4, &["7"]),
        (
            "less",
            with(&|value| value["cache_hit"][0]["p50_ns"] = json!(-1.0)),
            4,
            &["cannot be -1"],
        ),
    ];
    for (name, content, code, told) in cases {
        let path = format!("{name}.json");
        place.file(&path, content);
        let more = ["--compare", &path, "--json", "--report", "new.html"];
        benchmark(&place, &SHORT, &more).run().refused(code, &[&[&path[..]], told].concat());
        assert!(!place.path().join("new.html").exists(), "{name}");
    }
    benchmark(&place, &SHORT, &["--compare", "nobody.json", "--json"])
        .run()
        .refused(3, &["nobody"]);
    place.file("hits.json", result.to_string());
    let other = ["benchmark", "--numa-local", "1000", "--compare", "hits.json", "--json"];
    place.op(other).run().refused(4, &["nothing of what"]);
    let _ = benchmark(&place, &SHORT, &["--tolerance", "5"]).run().exited(2);
}

#[test]
fn a_page_is_written_once() {
    let place = workplace();
    place.file("there.html", "mine");
    benchmark(&place, &SHORT, &["--json", "--report", "there.html"])
        .run()
        .refused(4, &["there.html"]);
    assert_eq!(fs::read(place.path().join("there.html")).unwrap(), b"mine");
    let nowhere = ["--json", "--report", "nowhere/report.html"];
    benchmark(&place, &SHORT, &nowhere).run().refused(3, &["nowhere/report.html"]);
    let _ = benchmark(&place, &SHORT, &["--report", "report.html"]).run().succeeded();
    let page = fs::read_to_string(place.path().join("report.html")).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    assert_clean(&place);
}

#[test]
fn it_can_be_ended_and_leaves_nothing() {
    let place = workplace();
    let scratch = place.path().join("scratch");
    // Of the hits, while they are filled; of the searches, while vectors are linked.
    let commands: [&[&str]; 2] = [
        &["benchmark", "--cache-hit", "1000", "--keys", "1000000"],
        &["benchmark", "--search", "1000000"],
    ];
    for command in commands {
        let mut running = benchmark(&place, command, &["--report", "report.html"]).start();
        while fs::read_dir(&scratch).unwrap().count() == 0 && running.is_alive() {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(300));
        running.interrupt();
        let ended = running.finish().exited(130);
        assert_eq!(ended.stdout, b"");
        assert_clean(&place);
        assert!(!place.path().join("report.html").exists());
    }
}
