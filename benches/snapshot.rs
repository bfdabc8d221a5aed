//! How long writers wait while a snapshot is taken, beside one that BTRFS takes of the same
//! subvolumes and nobody opens.
//!
//! `cargo bench -p op-dbus-benches --bench snapshot -- --directory DIR`, where DIR lies on BTRFS.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use op_dbus_benches::hit::percentile;
use op_dbus_engine::{Payload, Record, Retention, Snapshots, Store, StoreConfig};

const WRITERS_COUNT: usize = 2;
const PARTS: [&str; 4] = ["@vectors", "@timing", "@cache", "@state"];
/// Between two snapshots, so that each finds something new.
const PAUSE: Duration = Duration::from_millis(200);

/// Measures writers beside snapshots.
#[derive(Parser)]
struct Arguments {
    /// Directory on BTRFS, where a store is made and removed
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Snapshots of each kind
    #[arg(long, default_value_t = 40)]
    rounds: usize,
    /// Records that the store has before
    #[arg(long, default_value_t = 50_000)]
    records: usize,
    /// What `cargo bench` says
    #[arg(long, hide = true)]
    bench: bool,
}

/// When something began and ended.
type Span = (Instant, Instant);

fn main() {
    let arguments = Arguments::parse();
    let Some(directory) = &arguments.directory else {
        println!("snapshot: give --directory DIR on BTRFS to measure");
        return;
    };
    let base = directory.join("op-dbus-bench-snapshot");
    let store = Store::open(StoreConfig::new(&base)).expect("a store can be made");
    let records: Vec<Record> = (0..arguments.records).map(|number| record(9, number)).collect();
    for part in records.chunks(1000) {
        store.put_batch("records", part).expect("records can be put");
    }
    let is_over = AtomicBool::new(false);
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    let puts: Vec<Span> = std::thread::scope(|scope| {
        let write = |writer: usize| write(&store, writer, &is_over);
        let writers: Vec<_> =
            (0..WRITERS_COUNT).map(|writer| scope.spawn(move || write(writer))).collect();
        for _ in 0..arguments.rounds {
            std::thread::sleep(PAUSE);
            ours.push(span(|| {
                let taken = store.take_snapshot("", false).expect("a snapshot can be taken");
                assert!(!taken.name.is_empty());
            }));
            std::thread::sleep(PAUSE);
            bare.push(span(|| snapshot_by_btrfs(&base)));
            remove_by_btrfs(&base);
            Snapshots::of(&base).prune(&Retention::of_count(1)).expect("snapshots can be deleted");
        }
        is_over.store(true, Ordering::Relaxed);
        writers.into_iter().flat_map(|writer| writer.join().expect("it ends")).collect()
    });
    println!("{WRITERS_COUNT} writers, {} records before; milliseconds", arguments.records);
    println!("{:22} {:>9} {:>7} {:>7} {:>7} {:>7}", "", "snapshot", "puts", "p50", "p99", "most");
    let beside = |spans: &[Span]| -> Vec<f64> {
        let overlaps = |put: &&Span| spans.iter().any(|span| put.0 < span.1 && put.1 > span.0);
        puts.iter().filter(overlaps).map(milliseconds).collect()
    };
    let alone = |put: &&Span| {
        !ours.iter().chain(&bare).any(|span| put.0 < span.1 + PAUSE / 4 && put.1 > span.0)
    };
    show("no snapshot", &[], puts.iter().filter(alone).map(milliseconds).collect());
    show("op-dbus, opened", &ours, beside(&ours));
    show("btrfs, not opened", &bare, beside(&bare));
    drop(store);
    Snapshots::of(&base).prune(&Retention::of_count(0)).expect("snapshots can be deleted");
}

fn record(writer: usize, number: usize) -> Record {
    let payload = Payload::Bytes(vec![number as u8; 512].into());
    Record::new(format!("{writer}-{number}")).with_payload(payload)
}

fn write(store: &Store, writer: usize, is_over: &AtomicBool) -> Vec<Span> {
    let mut spans = Vec::new();
    for number in 0.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let record = record(writer, number);
        spans.push(span(|| {
            store.put("records", &record).expect("a record can be put");
        }));
    }
    spans
}

fn span(work: impl FnOnce()) -> Span {
    let started = Instant::now();
    work();
    (started, Instant::now())
}

fn milliseconds(span: &Span) -> f64 {
    (span.1 - span.0).as_secs_f64() * 1e3
}

fn show(name: &str, snapshots: &[Span], mut puts: Vec<f64>) {
    let mut took: Vec<f64> = snapshots.iter().map(milliseconds).collect();
    let took =
        if took.is_empty() { String::new() } else { format!("{:.1}", percentile(&mut took, 50)) };
    let [p50, p99, most] = [50, 99, 100].map(|percent| percentile(&mut puts, percent));
    println!("{name:22} {took:>9} {:>7} {p50:>7.2} {p99:>7.2} {most:>7.2}", puts.len());
}

fn snapshot_by_btrfs(base: &Path) {
    for part in PARTS {
        let target = base.join(format!("bare-{part}"));
        btrfs(&["snapshot", "-r"], &[&base.join(part), &target]);
    }
}

fn remove_by_btrfs(base: &Path) {
    for part in PARTS {
        btrfs(&["delete"], &[&base.join(format!("bare-{part}"))]);
    }
}

fn btrfs(verb: &[&str], paths: &[&Path]) {
    let output = Command::new("btrfs").arg("subvolume").args(verb).args(paths).output();
    let output = output.expect("btrfs-progs are installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
