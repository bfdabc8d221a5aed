//! Records from files of other programs and to them: whole, resumed, bounded, through the program.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use op_dbus_formats::exchange::{keys, npy};
use rustix::process::Signal;
use support::program::{Invocation, Running, Workplace};
use support::random::Random;

const DIMENSIONS: usize = 384;
/// The store's own memory, in the tests that measure it.
const CAP_GB: &str = "0.064";
const CAP_BYTES: u64 = 64_000_000;
/// A campaign of a million takes minutes.
const TIME_MAX: Duration = Duration::from_secs(3600);

fn workplace() -> Workplace {
    Workplace::new(env!("CARGO_BIN_EXE_op-dbus"))
}

fn vectors_count() -> u64 {
    let given = std::env::var("OPDBUS_TEST_IMPORT_VECTORS").ok();
    given.map_or(20_000, |count| count.parse().unwrap())
}

/// The cap and, for a million vectors, 200 MiB: what holds the file, or a part of it, has more.
fn anonymous_bytes_max(rows: u64) -> u64 {
    CAP_BYTES + (200 << 20) * rows / 1_000_000
}

fn vector(row: u64) -> Vec<f32> {
    Random::new(row + 1).vector(DIMENSIONS)
}

/// An array of vectors, each of which follows from its row's number.
fn write_npy(path: &Path, rows: u64) {
    let mut out = BufWriter::with_capacity(1 << 20, fs::File::create(path).unwrap());
    out.write_all(&npy::render_header(rows, DIMENSIONS).unwrap()).unwrap();
    for row in 0..rows {
        let bytes: Vec<u8> = vector(row).iter().flat_map(|number| number.to_le_bytes()).collect();
        out.write_all(&bytes).unwrap();
    }
    out.into_inner().unwrap().sync_all().unwrap();
}

/// Records of every kind that an exchange format has a place for.
fn records() -> String {
    let mut random = Random::new(3);
    let mut lines = String::new();
    for number in 0..300 {
        let vector = random.vector(8);
        let key = match number % 10 {
            // Four characters are three bytes, of which the first is no UTF-8.
            0 => format!(r#""key_base64":"/w{}""#, 10 + number / 10),
            1 => format!(r#""key":"line\nbreak {number}""#),
            _ => format!(r#""key":"key {number}""#),
        };
        let rest = match number % 4 {
            0 => r#","payload":{"a": [1, 2.50]}"#.to_owned(),
            1 => r#","payload_base64":"AAEC""#.to_owned(),
            2 => format!(r#","text":"text {number}","expires_at_unix_ms":99999999999999"#),
            _ => String::new(),
        };
        lines += &format!("{{{key},\"vector\":{vector:?}{rest}}}\n");
    }
    lines
}

fn exported(place: &Workplace, collection: &str, format: &str) -> Vec<u8> {
    place.done(["cache", "export", "-c", collection, "--format", format]).stdout
}

fn count(place: &Workplace, collection: &str) -> u64 {
    let stats = place.done(["stats", "--json"]).json();
    let known = stats["collections"].as_array().unwrap();
    let known = known.iter().find(|known| known["name"] == collection).unwrap();
    known["records"].as_u64().unwrap()
}

/// The most memory a process had while it was watched.
#[derive(Clone, Copy, Debug, Default)]
struct Peak {
    anonymous_bytes: u64,
    file_bytes: u64,
    all_bytes: u64,
}

struct Watch {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<Peak>,
}

impl Watch {
    fn of(running: &Running) -> Self {
        let path = format!("/proc/{}/status", running.id());
        let ended = Arc::<AtomicBool>::default();
        let is_over = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            let mut peak = Peak::default();
            while !is_over.load(Relaxed) {
                let status = fs::read_to_string(&path).unwrap_or_default();
                let read = |name: &str| {
                    let line = status.lines().find_map(|line| line.strip_prefix(name));
                    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
                    kib.unwrap_or(0_u64) << 10
                };
                peak.anonymous_bytes = peak.anonymous_bytes.max(read("RssAnon:"));
                peak.file_bytes = peak.file_bytes.max(read("RssFile:"));
                peak.all_bytes = peak.all_bytes.max(read("VmHWM:"));
                std::thread::sleep(Duration::from_millis(20));
            }
            peak
        });
        Self { ended, thread }
    }

    fn peak(self) -> Peak {
        self.ended.store(true, Relaxed);
        self.thread.join().unwrap()
    }
}

fn import(place: &Workplace, path: &Path, more: &[&str]) -> Invocation {
    let import = place.op(["cache", "import"]).arguments([path]).arguments(["-c", "rows"]);
    import.arguments(more).variable("OPDBUS_CACHE_MAX_SIZE_GB", CAP_GB).lasting(TIME_MAX)
}

/// Kills an import in the middle, lets it go on, and compares what is stored with the file.
fn kill_and_resume(place: &Workplace, path: &Path, rows: u64, what: &str) {
    let mut running = import(place, path, &["--ack"]).start();
    let watch = Watch::of(&running);
    let started = Instant::now();
    (0..rows / 2).for_each(|_| assert!(running.next_line().is_some()));
    running.signal(Signal::KILL);
    let first = started.elapsed();
    let status = running.finish().status;
    assert!(!status.success());
    let first_peak = watch.peak();
    let stored = count(place, "rows");
    assert!((rows / 2..rows).contains(&stored), "{stored} of {rows} when it was killed");

    let running = import(place, path, &["--json"]).start();
    let watch = Watch::of(&running);
    let report = running.finish().succeeded().json();
    let peak = watch.peak();
    assert_eq!((&report["records"], &report["skipped"]), (&rows.into(), &stored.into()));
    assert_eq!(count(place, "rows"), rows);
    let seconds = report["seconds"].as_f64().unwrap();
    println!(
        "{what}: killed at {stored} of {rows} after {:.1} s, the rest and {stored} compared in \
         {seconds:.1} s; {first_peak:?}, {peak:?}",
        first.as_secs_f64()
    );
    for peak in [first_peak, peak] {
        assert!(peak.anonymous_bytes <= anonymous_bytes_max(rows), "{peak:?}");
    }

    let started = Instant::now();
    let running = import(place, path, &["--json"]).start();
    let report = running.finish().succeeded().json();
    assert_eq!(report["skipped"], rows);
    println!("{what}: all {rows} compared in {:.1} s", started.elapsed().as_secs_f64());
    check_rows(place, rows);
}

/// Every row is there, under its number, once.
fn check_rows(place: &Workplace, rows: u64) {
    let (out, names) = (place.path().join("out.fvecs"), place.path().join("keys.jsonl"));
    let running = place
        .op(["cache", "export", "-c", "rows", "--output", "out.fvecs", "--keys", "keys.jsonl"])
        .variable("OPDBUS_CACHE_MAX_SIZE_GB", CAP_GB)
        .lasting(TIME_MAX)
        .start();
    let watch = Watch::of(&running);
    let _ = running.finish().succeeded();
    let peak = watch.peak();
    assert!(peak.anonymous_bytes <= anonymous_bytes_max(rows), "{peak:?}");
    println!("export: {peak:?}");
    let row_len = 4 + 4 * DIMENSIONS;
    let mut file = std::io::BufReader::new(fs::File::open(&out).unwrap());
    let mut seen = vec![false; rows as usize];
    for line in std::io::BufRead::lines(std::io::BufReader::new(fs::File::open(&names).unwrap())) {
        let key = keys::parse_line(line.unwrap().as_bytes()).unwrap();
        let row: u64 = String::from_utf8(key).unwrap().parse().unwrap();
        assert!(!std::mem::replace(&mut seen[row as usize], true), "row {row} twice");
        let mut bytes = vec![0; row_len];
        std::io::Read::read_exact(&mut file, &mut bytes).unwrap();
        let numbers = bytes[4..].as_chunks().0.iter().map(|number| f32::from_le_bytes(*number));
        assert!(numbers.eq(vector(row)), "row {row}");
    }
    assert!(seen.iter().all(|seen| *seen));
    for path in [out, names] {
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn an_import_that_was_killed_goes_on() {
    let place = workplace();
    let path = place.path().join("rows.npy");
    let rows = vectors_count();
    write_npy(&path, rows);
    kill_and_resume(&place, &path, rows, "without a graph");
}

#[test]
fn an_import_into_a_graph_that_was_killed_goes_on() {
    let place = workplace();
    let path = place.path().join("rows.npy");
    let rows = vectors_count() / 4;
    write_npy(&path, 500);
    let _ = import(&place, &path, &[]).run().succeeded();
    place.done(["link", "rows"]);
    write_npy(&path, rows);
    kill_and_resume(&place, &path, rows, "with a graph");
}

#[test]
fn an_import_that_was_interrupted_goes_on() {
    let place = workplace();
    let path = place.path().join("rows.npy");
    write_npy(&path, 20_000);
    let mut running = import(&place, &path, &["--ack"]).start();
    (0..100).for_each(|_| assert!(running.next_line().is_some()));
    running.interrupt();
    let ended = running.finish().exited(130);
    assert!(ended.stderr.contains("goes on from there"), "{}", ended.stderr);
    let stored = count(&place, "rows");
    let report = import(&place, &path, &["--json"]).run().succeeded().json();
    assert_eq!(report["skipped"], stored);
    // What was changed and what is missing comes back; another collection gets all.
    place.done(["remove", "-c", "rows", "7"]);
    place.done(["put", "-c", "rows", "8", "--payload", "{}"]);
    let report = import(&place, &path, &["--json"]).run().succeeded().json();
    assert_eq!(report["skipped"], 19_998);
    let other = place.done(["cache", "import", "rows.npy", "-c", "other", "--json"]).json();
    assert_eq!((&other["records"], &other["skipped"]), (&20_000.into(), &0.into()));
    check_rows(&place, 20_000);
}

#[test]
fn ctrl_c_ends_a_stream_in_the_middle_of_a_row() {
    let place = workplace();
    let mut start = npy::render_header(1000, 4).unwrap();
    start.extend([0_u8; 4 * 4 * 10 + 7]);
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let import = place.op(["cache", "import", "-", "--format", "npy"]).input_from(move |stdin| {
        stdin.write_all(&start)?;
        // Open until the test is over.
        let _ = receiver.recv_timeout(Duration::from_secs(20));
        Ok(())
    });
    let running = import.start();
    std::thread::sleep(Duration::from_millis(1500));
    running.interrupt();
    let _ = running.finish().exited(130);
    drop(sender);
    assert_eq!(count(&place, "documents"), 10);
}

#[test]
fn every_format_brings_back_what_it_took() {
    let place = workplace();
    place.file("records.jsonl", records());
    place.done(["cache", "import", "records.jsonl", "-c", "first"]);
    let lines = exported(&place, "first", "jsonl");
    for format in ["jsonl", "parquet"] {
        let file = format!("out.{format}");
        let to_file = place.done(["cache", "export", "-c", "first", "-o", &file]);
        assert!(to_file.stdout.is_empty());
        let table = exported(&place, "first", format);
        assert_eq!(fs::read(place.path().join(&file)).unwrap(), table, "{format}");
        place.done(["cache", "import", &file, "-c", format]);
        assert_eq!(exported(&place, format, "jsonl"), lines, "{format}");
    }
    // Standard input that is a file.
    let import = place.op(["cache", "import", "-", "--format", "parquet", "-c", "stdin"]);
    let _ = import.within(r#""$0" "$@" < out.parquet"#).run().succeeded();
    assert_eq!(exported(&place, "stdin", "jsonl"), lines);

    let vectors_of = |lines: Vec<u8>| -> BTreeMap<String, String> {
        let lines = String::from_utf8(lines).unwrap();
        let record = |line| {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            let key = record.get("key").unwrap_or(&record["key_base64"]);
            (key.to_string(), record["vector"].to_string())
        };
        lines.lines().map(record).collect()
    };
    for format in ["npy", "fvecs"] {
        let (file, names) = (format!("out.{format}"), format!("{format}.keys"));
        place.done(["cache", "export", "-c", "first", "-o", &file, "--keys", &names]);
        let array = exported(&place, "first", format);
        assert_eq!(fs::read(place.path().join(&file)).unwrap(), array, "{format}");
        let collection = format!("of-{format}");
        let import = ["cache", "import", "-", "--format", format, "-c", &collection];
        let import = place.op(import).arguments(["--keys", &names]).input(array);
        let _ = import.run().succeeded();
        let back = vectors_of(exported(&place, &collection, "jsonl"));
        assert_eq!(back, vectors_of(lines.clone()), "{format}");
    }
}

#[test]
fn what_others_wrote_is_stored() {
    let place = workplace();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/foreign/parquet");
    for name in ["pandas", "polars-array", "duckdb-list"] {
        let file = folder.join(format!("{name}.parquet"));
        let import = place.op(["cache", "import"]).arguments([&file]).arguments(["-c", name]);
        // The fourth row has a text alone.
        let report = import.arguments(["--json"]).run().refused(4, &["vectors given by callers"]);
        assert!(!report.is_empty());
        let import = place.op(["cache", "import"]).arguments([&file]).arguments(["-c", name]);
        let import = import.arguments(["--skip-column", "text", "--json"]).run().succeeded();
        assert_eq!(import.json()["records"], 5);
        let row = place.done(["get", "-c", name, "a"]).text();
        assert!(row.contains(r#""day":"2026-01-31""#), "{row}");
    }
}

#[test]
fn damage_and_wrong_options_are_refused() {
    let place = workplace();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/foreign/parquet");
    let table = fs::read(folder.join("arrow-fixed.parquet")).unwrap();
    place.file("cut.parquet", &table[..table.len() - 9]);
    let mut changed = table.clone();
    changed[10..40].fill(0xFF);
    place.file("changed.parquet", &changed);
    place.file("good.parquet", &table);
    place.file("keys", "\"a\"\n");
    place.file("wrong-keys", "a\n");
    write_npy(&place.path().join("two.npy"), 2);
    let refused = |code, names: &[&str], line: &[&str]| {
        place
            .op(["cache", "import"])
            .arguments(line)
            .arguments(["--json"])
            .run()
            .refused(code, names)
    };
    refused(4, &["cut.parquet", "PAR1"], &["cut.parquet"]);
    refused(4, &["changed.parquet", "row group 0", "column key"], &["changed.parquet"]);
    refused(4, &["good.parquet", "nowhere"], &["good.parquet", "--key-column", "nowhere"]);
    refused(2, &["columns"], &["two.npy", "--key-column", "id"]);
    refused(2, &["keys"], &["good.parquet", "--keys", "keys"]);
    refused(4, &["keys", "fewer"], &["two.npy", "--keys", "keys"]);
    refused(4, &["wrong-keys", "line 1"], &["two.npy", "--keys", "wrong-keys"]);
    let pipe = place.op(["cache", "import", "-", "--format", "parquet", "--json"]);
    pipe.input(table).run().refused(11, &["pipe"]);
}

#[test]
fn an_export_is_whole_or_absent() {
    let place = workplace();
    write_npy(&place.path().join("rows.npy"), 20_000);
    place.done(["cache", "import", "rows.npy", "-c", "rows"]);
    for format in ["jsonl", "npy", "fvecs", "parquet"] {
        let out = format!("out.{format}");
        let export = ["cache", "export", "-c", "rows", "--output", &out];
        let running = place.op(export).start();
        let part: PathBuf = place.path().join(format!("{out}.part"));
        while !part.metadata().is_ok_and(|file| file.len() > 0) {
            std::thread::sleep(Duration::from_millis(1));
        }
        running.signal(Signal::KILL);
        assert!(!running.finish().status.success(), "{format}: it was killed in the middle");
        assert!(!place.path().join(&out).exists());
        // What was left is in nobody's way.
        place.done(export);
        assert!(!part.exists());
        place.op(export).arguments(["--json"]).run().refused(4, &[&out]);
        // Whoever reads goes away.
        let piped = place.op(["cache", "export", "-c", "rows", "--format", format]);
        let piped = piped.within(r#"set -o pipefail; "$0" "$@" | head -c 100000 | wc -c"#).run();
        let piped = piped.succeeded();
        assert_eq!((piped.text().trim(), &piped.stderr[..]), ("100000", ""), "{format}");
    }
}
