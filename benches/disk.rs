//! What vectors take on the disk as f32, f16 and i8, and what is still found.
//!
//! `cargo bench -p op-dbus-benches --bench disk -- --base BASE.npy --queries QUERIES.npy --directory
//! DIR`. Bytes are what the file system of DIR has less afterwards, so nobody else may write there.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::Parser;
use op_dbus_benches::Matrix;
use op_dbus_engine::{CollectionOptions, Encoding, Metric, Query, Record, Store, StoreConfig};
use op_dbus_formats::embedding::{self, Packing};

const NAME: &str = "vectors";
/// Between two looks at what is free.
const PAUSE: Duration = Duration::from_secs(2);
const NEAREST_COUNT: usize = 10;

/// Measures vectors on the disk.
#[derive(Parser)]
struct Arguments {
    /// Vectors
    #[arg(long)]
    base: Option<PathBuf>,
    /// What is asked
    #[arg(long)]
    queries: Option<PathBuf>,
    /// An empty directory on the file system to measure
    #[arg(long)]
    directory: Option<PathBuf>,
    /// What `cargo bench` says
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let arguments = Arguments::parse();
    let (Some(base), Some(queries), Some(directory)) =
        (&arguments.base, &arguments.queries, &arguments.directory)
    else {
        println!("disk: give --base, --queries and --directory to measure");
        return;
    };
    let (base, queries) = (Matrix::read(base), Matrix::read(queries));
    let mut all = None;
    for encoding in Encoding::ALL {
        let path = directory.join(encoding.name());
        let before = free_bytes(directory);
        fill(&path, &base, encoding);
        // Tables that RocksDB was merging when it was closed lie there twice until it is opened again.
        let written = before - without_ballast(&path, free_bytes);
        let found = ask(&path, &queries);
        let taken = written.min(before - without_ballast(&path, free_bytes));
        let exact: &Vec<HashSet<Vec<u8>>> = all.get_or_insert_with(|| found.clone());
        let same: usize = exact.iter().zip(&found).map(|(a, b)| a.intersection(b).count()).sum();
        let recall = same as f64 / (exact.len() * NEAREST_COUNT) as f64;
        let each = taken as f64 / (base.numbers.len() / base.dimensions) as f64;
        let alone = embedding::encode(&base.numbers[..base.dimensions], encoding, Packing::Plain);
        let alone = alone.expect("it was put").len();
        println!(
            "{:4} {alone:>6} bytes a vector, {each:>6.0} with its record, recall@10 {recall:.4}",
            encoding.name()
        );
        std::fs::remove_dir_all(path.join("@state")).expect("it can be removed");
    }
}

/// Asks about a store without the room that it keeps for a full disk.
fn without_ballast(path: &Path, ask: fn(&Path) -> u64) -> u64 {
    std::fs::remove_file(path.join("BALLAST")).unwrap_or_default();
    ask(path)
}

fn fill(path: &Path, base: &Matrix, encoding: Encoding) {
    let store = Store::open(StoreConfig::new(path).cold()).expect("a store");
    let dimensions = base.dimensions as u32;
    let options = CollectionOptions::Given { dimensions, metric: Metric::Cosine, encoding };
    store.create_collection(NAME, options).expect("a collection");
    let rows: Vec<&[f32]> = base.numbers.chunks_exact(base.dimensions).collect();
    for (part, rows) in rows.chunks(1000).enumerate() {
        let record = |(row, vector): (usize, &&[f32])| {
            Record::new(format!("{}", part * 1000 + row)).with_vector(vector.to_vec())
        };
        let records: Vec<Record> = rows.iter().enumerate().map(record).collect();
        store.put_batch(NAME, &records).expect("records can be put");
    }
    store.close();
}

/// Keys of the nearest by comparing all, for each query.
fn ask(path: &Path, queries: &Matrix) -> Vec<HashSet<Vec<u8>>> {
    let store = Store::open(StoreConfig::new(path).cold()).expect("a store");
    let rows = queries.numbers.chunks_exact(queries.dimensions);
    let nearest = |row: &[f32]| {
        let query = Query::vector(row).collection(NAME).limit(NEAREST_COUNT).exact();
        let answer = store.search(&query).expect("an answer");
        answer.hits.into_iter().map(|hit| hit.key).collect()
    };
    rows.map(nearest).collect()
}

/// What is free, once it does not change any more: what was removed is given back later.
fn free_bytes(directory: &Path) -> u64 {
    let mut before = None;
    loop {
        let free = free_bytes_now(directory);
        if before.replace(free) == Some(free) {
            return free;
        }
        std::thread::sleep(PAUSE);
    }
}

fn free_bytes_now(directory: &Path) -> u64 {
    let synced = Command::new("sync").arg("-f").arg(directory).status();
    assert!(synced.is_ok_and(|status| status.success()), "it can be synced");
    let told = Command::new("stat").args(["-f", "-c", "%f %S"]).arg(directory).output();
    let told = String::from_utf8(told.expect("stat is there").stdout).expect("it is text");
    let numbers: Vec<u64> =
        told.split_whitespace().map(|number| number.parse().expect("a number")).collect();
    numbers[0] * numbers[1]
}
