//! What searches by the graph of a collection cost when a part of the full vectors is hot.
//!
//! `cargo bench -p op-dbus-benches --bench cold -- --base BASE.npy --queries QUERIES.npy`: arrays of
//! f32 vectors, as `numpy.save` writes them.

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use op_dbus_benches::Matrix;
use op_dbus_engine::{LinkOptions, Profile, Query, Record, Store, StoreConfig};

const NAME: &str = "vectors";
/// What a vector takes beside its numbers, and what the databases take of a cap.
const SLOT_BYTES: u64 = 64;
const OTHERS_BYTES: u64 = 24 << 20;

/// Measures searches whose vectors are cold.
#[derive(Parser)]
struct Arguments {
    /// Vectors
    #[arg(long)]
    base: Option<PathBuf>,
    /// What is asked
    #[arg(long)]
    queries: Option<PathBuf>,
    /// What `cargo bench` says
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let arguments = Arguments::parse();
    let (Some(base), Some(queries)) = (&arguments.base, &arguments.queries) else {
        println!("cold: give --base BASE.npy and --queries QUERIES.npy to measure");
        return;
    };
    let (base, queries) = (Matrix::read(base), Matrix::read(queries));
    let dimensions = base.dimensions;
    let (base, queries) = (&base.numbers[..], &queries.numbers[..]);
    let directory = tempfile::tempdir().expect("a directory");
    fill(directory.path(), base, dimensions);
    let all_bytes = size_of_val(base) as u64 + (base.len() / dimensions) as u64 * SLOT_BYTES;
    for percent in [100, 50, 10, 1] {
        let cap = OTHERS_BYTES + all_bytes / 100 * percent * 3 / 2;
        let config = StoreConfig::new(directory.path()).with_capacity_bytes(cap);
        let store = Store::open(config).expect("a store");
        let vectors = store.vectors(NAME).expect("vectors");
        // As many as are to be hot, spread evenly.
        let step = (100 / percent) as usize;
        for row in (0..base.len() / dimensions).step_by(step) {
            vectors.get(&key(row)).expect("a vector");
        }
        let hot = store.cache_stats().expect("figures").tier.hot_vectors;
        let asked = ask(&store, queries, dimensions);
        println!(
            "{percent:>3} % hot ({hot} vectors): {:>6.0} searches/s, {:.1} hot and {:.1} cold read",
            asked.per_second, asked.hot, asked.cold
        );
        drop(store);
    }
}

fn key(row: usize) -> Vec<u8> {
    format!("{row:08}").into_bytes()
}

fn fill(directory: &Path, base: &[f32], dimensions: usize) {
    let store = Store::open(StoreConfig::new(directory)).expect("a store");
    for (batch, vectors) in base.chunks(1000 * dimensions).enumerate() {
        let record = |(row, vector): (usize, &[f32])| {
            Record::new(key(batch * 1000 + row)).with_vector(vector.to_vec())
        };
        let records: Vec<Record> = vectors.chunks(dimensions).enumerate().map(record).collect();
        store.put_batch(NAME, &records).expect("a put");
    }
    let threads = std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
    let options = LinkOptions { profile: Profile::Speed, threads };
    store.link(NAME, options, &mut |_, _| Ok(())).expect("a graph");
    store.close();
}

struct Asked {
    per_second: f64,
    hot: f64,
    cold: f64,
}

/// Asks each question once; counts the time to find, without that to read records.
fn ask(store: &Store, queries: &[f32], dimensions: usize) -> Asked {
    let (mut took, mut hot, mut cold, mut count) = (Duration::ZERO, 0, 0, 0.0);
    for vector in queries.chunks(dimensions) {
        let query = Query::vector(vector).collection(NAME).recall(0.95);
        let explain = store.search(&query).expect("an answer").explain;
        took += explain.search;
        hot += explain.collections[0].full_hot;
        cold += explain.collections[0].full_cold;
        count += 1.0;
    }
    let (hot, cold) = (hot as f64 / count, cold as f64 / count);
    Asked { per_second: count / took.as_secs_f64(), hot, cold }
}
