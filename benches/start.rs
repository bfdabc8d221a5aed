//! From the start of a process to its answer: what a person waits for, and what is none of ours.
//!
//! `cargo bench --profile release -p op-dbus-benches --bench start -- --model DIR [--runs 100]`. Commands
//! take turns with a process that does nothing and with `op-dbus --version`, so that a busy machine
//! disturbs all alike; medians are told.

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use op_dbus_benches::traffic::{DIMENSIONS, fill_vector};
use op_dbus_engine::{EmbedderConfig, LinkOptions, Profile, Record, Store, StoreConfig};
use support::bus::{BusLimits, PrivateBus, Served};
use support::program::{Invocation, beside_this};

/// Records that are put at once.
const BATCH_COUNT: u32 = 1000;
const TEXT: &str = "restart the network";
/// What a person may wait for the service, and for the store itself without embedding anything.
const SERVICE_TIME_MAX: Duration = Duration::from_millis(15);
const STORE_TIME_MAX: Duration = Duration::from_millis(25);

/// Measures how long commands take from their start.
#[derive(Parser)]
struct Arguments {
    /// Directory of the model, which embeds one text before anything is measured
    #[arg(long)]
    model: Option<PathBuf>,
    /// The program op-dbus; by default that which was built beside this
    #[arg(long)]
    executable: Option<PathBuf>,
    /// How often each command is run
    #[arg(long, default_value_t = 100)]
    runs: usize,
    /// Records in the store
    #[arg(long, default_value_t = 20_000)]
    records: u32,
    /// What `cargo bench` says
    #[arg(long, hide = true)]
    bench: bool,
}

/// A command, and how long it may take.
struct Measured<'a> {
    what: &'a str,
    line: Vec<String>,
    time_max: Option<Duration>,
    times: Vec<Duration>,
}

fn main() {
    let arguments = Arguments::parse();
    let Some(model) = &arguments.model else {
        println!("start: give --model DIR to measure");
        return;
    };
    let directory = tempfile::tempdir().expect("a directory can be made");
    let [direct, served] = ["direct", "served"].map(|name| directory.path().join(name));
    let executable = arguments.executable.clone().unwrap_or_else(beside_this);
    let vector = directory.path().join("vector.json");
    for store in [&direct, &served] {
        fill(store, model, arguments.records, &vector);
    }
    let bus = PrivateBus::start(BusLimits::Raised);
    let daemon =
        ["daemon", "--index-live=false", "--plugins", "/nowhere", "--interfaces", "/nowhere"];
    let line = ["--store".as_ref(), served.as_os_str(), "--model".as_ref(), model.as_os_str()];
    let service = Invocation::new(&executable).arguments(line).arguments(daemon);
    let service = Served::start(service, &bus);
    let program = executable.display().to_string();
    let op = |words: &[&str]| -> Vec<String> {
        let model = model.display().to_string();
        let words = words.iter().map(ToString::to_string);
        [program.clone(), "--model".to_owned(), model].into_iter().chain(words).collect()
    };
    let (direct, address) = (direct.display().to_string(), bus.address());
    let vector = vector.display().to_string();
    let measured = |what, line, time_max| Measured { what, line, time_max, times: Vec::new() };
    let mut all = [
        measured("a process that does nothing", vec!["true".to_owned()], None),
        measured("op-dbus --version", vec![program.clone(), "--version".to_owned()], None),
        measured(
            "query TEXT, by the service",
            op(&["--bus", &address, "query", TEXT]),
            Some(SERVICE_TIME_MAX),
        ),
        measured(
            "query TEXT, known, by the store",
            op(&["--store", &direct, "query", TEXT, "-c", "texts"]),
            Some(STORE_TIME_MAX),
        ),
        measured(
            "query --vector, by the store",
            op(&["--store", &direct, "query", "--vector", &vector, "-c", "vectors"]),
            Some(STORE_TIME_MAX),
        ),
        measured(
            "query --like, by the store",
            op(&["--store", &direct, "query", "--like", "7", "-c", "vectors"]),
            Some(STORE_TIME_MAX),
        ),
        measured(
            "get, by the store",
            op(&["--store", &direct, "get", "7", "-c", "vectors"]),
            Some(STORE_TIME_MAX),
        ),
    ];
    for _ in 0..arguments.runs {
        for measured in &mut all {
            measured.times.push(run(&measured.line));
        }
    }
    let _ = service.terminate().succeeded();
    tell(&arguments, &mut all);
}

fn tell(arguments: &Arguments, all: &mut [Measured<'_>]) {
    println!(
        "{} records, {} runs, in ms: median, 90th percentile, least",
        arguments.records, arguments.runs
    );
    let mut is_kept = true;
    for measured in all {
        is_kept &= report(measured);
    }
    println!("{}", if is_kept { "all bars hold" } else { "NOT all bars hold" });
}

/// Makes a store with a collection of vectors, linked, and one of a text that is embedded.
fn fill(path: &Path, model: &Path, count: u32, vector_file: &Path) {
    let config = StoreConfig::new(path).with_embedder(EmbedderConfig::new(model));
    let store = Store::open(config).expect("the store opens");
    let mut vector = vec![0.0; DIMENSIONS];
    for first in (0..count).step_by(BATCH_COUNT as usize) {
        let records = (first..count.min(first + BATCH_COUNT)).map(|number| {
            fill_vector(number, &mut vector);
            Record::new(number.to_string()).with_vector(vector.clone())
        });
        store.put_batch("vectors", &records.collect::<Vec<_>>()).expect("vectors are put");
    }
    std::fs::write(vector_file, format!("{vector:?}")).expect("a file is written");
    store.put("texts", &Record::new("one").with_text(TEXT)).expect("a text is put");
    let options = LinkOptions { profile: Profile::Speed, threads: NonZero::<usize>::MIN };
    store.link("vectors", options, &mut |_, _| Ok(())).expect("vectors are linked");
    store.close();
}

fn run(line: &[String]) -> Duration {
    let mut command = Command::new(&line[0]);
    command.args(&line[1..]).env("OPDBUS_CONFIG", "/dev/null");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let started = Instant::now();
    let ended = command.status().expect("the command starts");
    let took = started.elapsed();
    assert!(ended.success(), "{line:?}");
    took
}

/// Writes what was measured; says whether it is within its bar.
fn report(measured: &mut Measured<'_>) -> bool {
    measured.times.sort_unstable();
    let times = &measured.times;
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let (median, high, least) = (at(0.5), at(0.9), at(0.0));
    let is_kept = measured.time_max.is_none_or(|max| median <= max);
    let bar = measured.time_max.map_or(String::new(), |max| {
        format!("  at most {:.0}: {}", ms(max), if is_kept { "holds" } else { "BROKEN" })
    });
    let what = measured.what;
    println!("{what:<34}{:>7.1}{:>7.1}{:>7.1}{bar}", ms(median), ms(high), ms(least));
    is_kept
}
