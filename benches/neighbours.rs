//! Nearest neighbours by us and by the graphs of Rust's registry: usearch, hnsw_rs and hannoy.
//!
//! `cargo bench --profile release -p op-dbus-benches --features rivals --bench neighbours -- --base
//! BASE.npy --queries QUERIES.npy`: arrays of f32 vectors, as `numpy.save` writes them. All are made
//! and asked on one thread, with vectors of length one; hannoy reads its through LMDB, from memory.
//! usearch and ours hold what they compare as bytes.

use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use hannoy::distances::Cosine;
use heed::CommitOrAbort;
use hnsw_rs::prelude::{DistL2, Hnsw};
use op_dbus_benches::hit::process_cpu;
use op_dbus_benches::search::truth;
use op_dbus_benches::{Matrix, lmdb};
use op_dbus_engine::{
    DenseVectors, GraphFilter, GraphIndex, GraphOptions, GraphSearch, Metric, Profile,
    SearchOptions,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use usearch::{IndexOptions, MetricKind, ScalarKind};

const LIMIT: usize = 10;
/// What hnswlib's benchmarks take.
const CONNECTIONS: usize = 16;
const BUILD_EFFORT: usize = 200;
const LAYERS: usize = 16;
const EFFORTS: [usize; 10] = [10, 16, 24, 32, 48, 64, 96, 128, 192, 320];
const RECALLS: [f64; 3] = [0.90, 0.95, 0.99];
/// The best of so many passes counts.
const PASSES_COUNT: usize = 3;

/// Measures our graphs beside those of others.
#[derive(Parser)]
struct Arguments {
    /// Vectors
    #[arg(long)]
    base: Option<PathBuf>,
    /// What is asked
    #[arg(long)]
    queries: Option<PathBuf>,
    /// What `cargo bench` passes to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

/// Answers a query with an effort by the numbers of vectors.
type Ask<'a> = Box<dyn FnMut(&[f32], usize) -> Vec<u32> + 'a>;

/// The questions, and what should be found.
struct Exam<'a> {
    queries: &'a [Vec<f32>],
    truth: &'a [i32],
}

fn main() {
    let arguments = Arguments::parse();
    let (Some(base), Some(queries)) = (&arguments.base, &arguments.queries) else {
        println!("neighbours: give --base BASE.npy and --queries QUERIES.npy to measure");
        return;
    };
    let (base, queries) = (Matrix::read(base), Matrix::read(queries));
    let truth = truth(&base, &queries, Metric::Cosine, LIMIT);
    let vectors: Vec<Vec<f32>> = base.rows().map(normalized).collect();
    let queries: Vec<Vec<f32>> = queries.rows().map(normalized).collect();
    let exam = Exam { queries: &queries, truth: &truth };
    println!("{:<18} {:>8} {:>9} {:>9} {:>9}", "", "made in", "0.90", "0.95", "0.99");
    for profile in Profile::ALL {
        ours(&vectors, profile, &exam);
    }
    for kind in [ScalarKind::F32, ScalarKind::I8] {
        by_usearch(&vectors, kind, &exam);
    }
    by_hnsw_rs(&vectors, &exam);
    by_hannoy(&vectors, &exam);
}

fn normalized(vector: &[f32]) -> Vec<f32> {
    let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    vector.iter().map(|x| x / norm).collect()
}

/// Asks with ever more effort, and prints queries for each second of processor time at each recall,
/// between those of the efforts before and after it.
fn examine(name: &str, made: Duration, exam: &Exam<'_>, mut ask: Ask<'_>) {
    let mut measured = vec![(0.0, f64::INFINITY)];
    for effort in EFFORTS {
        let mut best = f64::INFINITY;
        let mut found = Vec::new();
        for _ in 0..PASSES_COUNT {
            let cpu = process_cpu();
            found = exam.queries.iter().map(|query| ask(query, effort)).collect();
            best = best.min((process_cpu() - cpu).as_secs_f64());
        }
        let hits = |(found, truth): (&Vec<u32>, &[i32])| {
            truth.iter().filter(|id| found.contains(&(**id as u32))).count()
        };
        let hits_count: usize = found.iter().zip(exam.truth.chunks(LIMIT)).map(hits).sum();
        measured
            .push((hits_count as f64 / exam.truth.len() as f64, exam.queries.len() as f64 / best));
    }
    let at = |recall: f64| {
        let (before, after) =
            measured.iter().zip(&measured[1..]).find(|(_, after)| after.0 >= recall)?;
        let part = (recall - before.0) / (after.0 - before.0);
        Some(1.0 / (before.1.recip() + (after.1.recip() - before.1.recip()) * part))
    };
    let shown =
        RECALLS.map(|recall| at(recall).map_or("–".to_owned(), |qps| format!("{qps:.0}")));
    let [a, b, c] = shown;
    println!("{name:<18} {:>6.1} s {a:>9} {b:>9} {c:>9}", made.as_secs_f64());
}

fn ours(vectors: &[Vec<f32>], profile: Profile, exam: &Exam<'_>) {
    let dense = vectors.concat();
    let dimensions = NonZero::new(vectors[0].len()).expect("dimensions");
    let options = GraphOptions { metric: Metric::Cosine, profile, seed: 0 };
    let cpu = process_cpu();
    let one = NonZero::<usize>::MIN;
    let index =
        GraphIndex::build(&dense, dimensions, options, one, &mut |_| Ok(())).expect("a graph");
    let made = process_cpu() - cpu;
    let mut search = GraphSearch::default();
    let full = DenseVectors::new(&dense, dimensions.get());
    let ask = move |query: &[f32], effort| {
        let options = SearchOptions { limit: LIMIT, effort, filter: GraphFilter::All };
        let found = index.search(&mut search, query, &options, &full).expect("an answer");
        found.iter().map(|near| near.id).collect()
    };
    examine(&format!("ours, {}", profile.name()), made, exam, Box::new(ask));
}

fn by_usearch(vectors: &[Vec<f32>], quantization: ScalarKind, exam: &Exam<'_>) {
    let options = IndexOptions {
        dimensions: vectors[0].len(),
        metric: MetricKind::Cos,
        quantization,
        connectivity: CONNECTIONS,
        expansion_add: BUILD_EFFORT,
        ..Default::default()
    };
    let index = usearch::Index::new(&options).expect("an index");
    index.reserve(vectors.len()).expect("memory");
    let cpu = process_cpu();
    for (id, vector) in (0..).zip(vectors) {
        index.add(id, vector).expect("a vector");
    }
    let made = process_cpu() - cpu;
    let ask = move |query: &[f32], effort| {
        index.change_expansion_search(effort);
        let found = index.search(query, LIMIT).expect("an answer");
        found.keys.iter().map(|id| *id as u32).collect()
    };
    let kind = if quantization == ScalarKind::F32 { "f32" } else { "i8" };
    examine(&format!("usearch, {kind}"), made, exam, Box::new(ask));
}

fn by_hnsw_rs(vectors: &[Vec<f32>], exam: &Exam<'_>) {
    // Of vectors of length one these distances are in the order of cosines.
    let index = Hnsw::new(CONNECTIONS, vectors.len(), LAYERS, BUILD_EFFORT, DistL2 {});
    let cpu = process_cpu();
    for (id, vector) in vectors.iter().enumerate() {
        index.insert((vector, id));
    }
    let made = process_cpu() - cpu;
    let ask = move |query: &[f32], effort| {
        let found = index.search(query, LIMIT, effort);
        found.iter().map(|near| near.d_id as u32).collect()
    };
    examine("hnsw_rs", made, exam, Box::new(ask));
}

fn by_hannoy(vectors: &[Vec<f32>], exam: &Exam<'_>) {
    const FIRST_CONNECTIONS: usize = 2 * CONNECTIONS;
    let directory = tempfile::tempdir().expect("a directory");
    let env = lmdb::open(directory.path()).expect("an environment");
    let made: CommitOrAbort<_, ()> = env
        .create_databases_and_commit(
            env.write_txn().expect("a transaction"),
            |databases, transaction| -> heed::Result<_> {
                databases.create_database(transaction, None).map(CommitOrAbort::Commit)
            },
        )
        .expect("a database");
    let database: hannoy::Database<'_, Cosine> = made.unwrap_commit();
    let mut transaction = env.write_txn().expect("a transaction");
    let writer = hannoy::Writer::new(database, 0, vectors[0].len());
    let cpu = process_cpu();
    for (id, vector) in (0..).zip(vectors) {
        writer.add_item(&mut transaction, id, vector).expect("a vector");
    }
    let mut random = StdRng::seed_from_u64(0);
    let mut builder = writer.builder(&mut random);
    builder
        .ef_construction(BUILD_EFFORT)
        .build::<CONNECTIONS, FIRST_CONNECTIONS>(&mut transaction)
        .expect("a graph");
    transaction.commit().expect("a commit");
    let made = process_cpu() - cpu;
    let transaction = env.read_txn().expect("a transaction");
    let reader = hannoy::Reader::<Cosine>::open(&transaction, 0, database).expect("a graph");
    let ask = |query: &[f32], effort| {
        let found = reader.nns(LIMIT).ef_search(effort).by_vector(&transaction, query);
        found.expect("an answer").into_nns().iter().map(|(id, _)| *id).collect()
    };
    examine("hannoy", made, exam, Box::new(ask));
}
