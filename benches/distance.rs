//! What a distance costs, and how near an exact scan comes to the memory's speed.
//!
//! `dot_384` compares the kernels of each instruction set with the plain loop and
//! with ndarray, from the first-level cache. `scan_62500x384` compares scans of
//! 96 MB with a plain loop that reads the same bytes in order: about what one
//! core gets from the memory, though wider loads can get a little more.
//! At the end stand the ratios of paired measurements: rivals take turns within
//! each round, so that a neighbour who takes the memory's time takes it from all.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ndarray::{ArrayView1, ArrayView2};
use op_dbus_engine::distance;
use std::hint::black_box;
use std::time::Instant;

const DIMENSIONS: usize = 384;
const ROWS_COUNT: usize = 62_500;
const SCAN_BYTES: usize = ROWS_COUNT * DIMENSIONS * size_of::<f32>();
const RATIO_ROUNDS: usize = 41;

/// Repeatable fractions from −1 to 1 (SplitMix64).
fn fractions(len: usize) -> Vec<f32> {
    let mut state = 0_u64;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// A way to spend time, by name.
type Rival<'a> = (String, Box<dyn FnMut() + 'a>);

/// Reads every byte and does next to nothing with it.
fn read(floats: &[f32]) -> u32 {
    floats.iter().fold(0, |sum, float| sum ^ float.to_bits())
}

fn dot(criterion: &mut Criterion) {
    let numbers = fractions(2 * DIMENSIONS);
    let (a, b) = numbers.split_at(DIMENSIONS);
    let mut group = criterion.benchmark_group("dot_384");
    group.throughput(Throughput::Bytes(size_of_val(b) as u64));
    for kernels in distance::available() {
        group.bench_function(BenchmarkId::from_parameter(kernels.name), |bencher| {
            bencher.iter(|| (kernels.dot)(black_box(a), black_box(b)));
        });
    }
    let (a, b) = (ArrayView1::from(a), ArrayView1::from(b));
    group.bench_function("ndarray", |bencher| {
        bencher.iter(|| black_box(&a).dot(black_box(&b)));
    });
    group.finish();
}

/// The scans of the same rows, the plain read first.
fn scans<'a>(query: &'a [f32], rows: &'a [f32]) -> Vec<Rival<'a>> {
    let mut rivals: Vec<Rival<'a>> =
        vec![("read".into(), Box::new(|| _ = black_box(read(black_box(rows)))))];
    for kernels in distance::available() {
        let mut values = vec![0.0; ROWS_COUNT];
        rivals.push((
            format!("{} dot by dot", kernels.name),
            Box::new(move || {
                for (row, value) in rows.chunks_exact(DIMENSIONS).zip(black_box(&mut values)) {
                    *value = (kernels.dot)(query, row);
                }
            }),
        ));
        let mut values = vec![0.0; ROWS_COUNT];
        rivals.push((
            format!("{} dot_rows", kernels.name),
            Box::new(move || (kernels.dot_rows)(query, rows, black_box(&mut values))),
        ));
    }
    if let Ok(matrix) = ArrayView2::from_shape((ROWS_COUNT, DIMENSIONS), rows) {
        let query = ArrayView1::from(query);
        rivals.push((
            "ndarray matrix by vector".into(),
            Box::new(move || _ = black_box(matrix.dot(&query))),
        ));
    }
    rivals
}

fn scan(criterion: &mut Criterion) {
    let numbers = fractions((ROWS_COUNT + 1) * DIMENSIONS);
    let (query, rows) = numbers.split_at(DIMENSIONS);
    let mut group = criterion.benchmark_group("scan_62500x384");
    group.throughput(Throughput::Bytes(SCAN_BYTES as u64)).sample_size(20);
    for (name, mut rival) in scans(query, rows) {
        group.bench_function(name, |bencher| bencher.iter(&mut rival));
    }
    group.finish();
    // A run that only tests or lists the benchmarks measures nothing.
    let given = |flag: &str| std::env::args().any(|argument| argument == flag);
    if given("--bench") && !given("--test") && !given("--list") {
        print_ratios(&mut scans(query, rows));
    }
}

/// Prints each rival's speed beside the first one's in the same round.
fn print_ratios(rivals: &mut [Rival<'_>]) {
    let mut rounds = Vec::with_capacity(RATIO_ROUNDS);
    for _ in 0..RATIO_ROUNDS {
        let seconds = rivals.iter_mut().map(|(_, rival)| {
            let start = Instant::now();
            rival();
            start.elapsed().as_secs_f64()
        });
        rounds.push(seconds.collect::<Vec<_>>());
    }
    println!("scan_62500x384: medians of {RATIO_ROUNDS} rounds in which all take turns");
    for (index, (name, _)) in rivals.iter().enumerate() {
        let bytes_per_ns =
            median(rounds.iter().map(|round| SCAN_BYTES as f64 / round[index] / 1e9));
        let ratio = median(rounds.iter().map(|round| round[0] / round[index]));
        println!("{name:<36} {bytes_per_ns:>6.2} GB/s {ratio:>6.2} of a read");
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

criterion_group!(benches, dot, scan);
criterion_main!(benches);
