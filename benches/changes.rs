//! What a graph costs while vectors come and go, and what filters cost: recall beside each figure.
//!
//! `cargo bench -p op-dbus-benches --bench changes -- --base BASE.npy --queries QUERIES.npy`: arrays
//! of f32 vectors, as `numpy.save` writes them.

use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use op_dbus_benches::Matrix;
use op_dbus_benches::hit::process_cpu;
use op_dbus_engine::{
    DenseVectors, GraphFilter, GraphIndex, GraphOptions, GraphSearch, Metric, Profile,
    SearchOptions, SearchPlan, VertexSet,
};

const LIMIT: usize = 10;
/// Efforts that are measured between rounds.
const CHURN_EFFORTS: [usize; 3] = [12, 24, 96];
/// All queries are asked so often; the median counts.
const PASSES_COUNT: usize = 9;
const ONE: NonZero<usize> = NonZero::<usize>::MIN;

/// Measures a graph that changes.
#[derive(Parser)]
struct Arguments {
    /// Vectors
    #[arg(long)]
    base: Option<PathBuf>,
    /// What is asked
    #[arg(long)]
    queries: Option<PathBuf>,
    /// Whether vertices know of their neighbours no more than who they are
    #[arg(long)]
    compact: bool,
    /// How often a tenth goes and as many come
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// What `cargo bench` says
    #[arg(long, hide = true)]
    bench: bool,
}

impl Arguments {
    fn options(&self) -> GraphOptions {
        let profile = if self.compact { Profile::Compact } else { Profile::Speed };
        GraphOptions { metric: Metric::Cosine, profile, seed: 0 }
    }
}

fn main() {
    let arguments = Arguments::parse();
    let (Some(base), Some(queries)) = (&arguments.base, &arguments.queries) else {
        println!("changes: give --base BASE.npy and --queries QUERIES.npy to measure");
        return;
    };
    let (base, queries) = (Matrix::read(base), Matrix::read(queries));
    let dimensions = base.dimensions;
    let (base, queries) = (&base.numbers[..], &queries.numbers[..]);
    let mut changing = inserts(base, dimensions, &arguments);
    churn(&mut changing, queries, arguments.rounds);
    filters(base, queries, dimensions, &arguments);
}

/// Vectors by their numbers, and which of them are in the graph.
struct Changing {
    index: GraphIndex,
    dense: Vec<f32>,
    live: Vec<u32>,
    /// Vectors that are not in it.
    waiting: Vec<f32>,
}

/// Numbers that look random. Source: SplitMix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((bits ^ (bits >> 31)) % end as u64) as usize
    }
}

fn per_second(count: usize, cpu: Duration) -> f64 {
    count as f64 / cpu.as_secs_f64()
}

/// Builds a graph of nine tenths, and inserts the rest one by one.
fn inserts(base: &[f32], dimensions: usize, arguments: &Arguments) -> Changing {
    let count = base.len() / dimensions;
    let first = count * 9 / 10 * dimensions;
    let dims = NonZero::new(dimensions).expect("dimensions");
    let cpu = process_cpu();
    let mut index =
        GraphIndex::build(&base[..first], dims, arguments.options(), ONE, &mut |_| Ok(()))
            .expect("a graph");
    println!(
        "build   {:>9} vectors  {:>8.0}/s of processor time",
        index.len(),
        per_second(index.len(), process_cpu() - cpu)
    );
    let cpu = process_cpu();
    for vector in base[first..].chunks(dimensions) {
        index.insert(vector, ONE).expect("an insert");
    }
    let inserted = (base.len() - first) / dimensions;
    let rate = per_second(inserted, process_cpu() - cpu);
    println!("insert  {inserted:>9} one by one  {rate:>5.0}/s");
    let live = (0..count as u32).collect();
    Changing { index, dense: base.to_vec(), live, waiting: Vec::new() }
}

/// Removes a random tenth and inserts as many that were removed before, again and again.
fn churn(changing: &mut Changing, queries: &[f32], rounds_count: usize) {
    let dimensions = changing.index.dimensions();
    let mut random = Random(1);
    let tenth = changing.live.len() / 10;
    // The first that leave wait for their turn to come back.
    for round in 0..=rounds_count {
        let (rows, len) = (changing.index.rows_count(), changing.index.len());
        print!("round {round:>2}  {len} vectors in {rows} rows");
        for effort in CHURN_EFFORTS {
            let (recall, qps) = measure(changing, queries, effort);
            print!("  {effort}: {recall:.4} {qps:>7.0}/s");
        }
        println!();
        if round == rounds_count {
            break;
        }
        let mut removed = Vec::new();
        for _ in 0..tenth {
            let id = changing.live.swap_remove(random.below(changing.live.len()));
            changing.index.remove(id).expect("a removal");
            removed.extend_from_slice(&changing.dense[id as usize * dimensions..][..dimensions]);
        }
        changing.waiting.extend(removed);
        // What comes back is a mixture of what left lately and before.
        for _ in 0..tenth {
            let count = changing.waiting.len() / dimensions;
            let place = random.below(count) * dimensions;
            let vector = changing.waiting[place..place + dimensions].to_vec();
            let last = changing.waiting.len() - dimensions;
            changing.waiting.copy_within(last.., place);
            changing.waiting.truncate(last);
            let id = changing.index.insert(&vector, ONE).expect("an insert")[0];
            let end = changing.index.rows_count() * dimensions;
            changing.dense.resize(end.max(changing.dense.len()), 0.0);
            changing.dense[id as usize * dimensions..][..dimensions].copy_from_slice(&vector);
            changing.live.push(id);
        }
    }
}

/// Recall and queries for each second of processor time.
fn measure(changing: &Changing, queries: &[f32], effort: usize) -> (f64, f64) {
    let filter = GraphFilter::All;
    let vectors = DenseVectors::new(&changing.dense, changing.index.dimensions());
    let (recall, qps, _) = ask(&changing.index, &vectors, queries, effort, filter);
    (recall, qps)
}

fn ask(
    index: &GraphIndex,
    vectors: &DenseVectors<'_>,
    queries: &[f32],
    effort: usize,
    filter: GraphFilter<'_>,
) -> (f64, f64, SearchPlan) {
    let mut search = GraphSearch::default();
    let (mut hits_count, mut all_count) = (0, 0);
    let options = SearchOptions { limit: LIMIT, effort, filter };
    let queries: Vec<&[f32]> = queries.chunks(index.dimensions()).collect();
    for query in &queries {
        let exact = index.search_exact(&mut search, query, (LIMIT, filter), vectors);
        let expected: Vec<u32> = exact.expect("an answer").iter().map(|near| near.id).collect();
        let found = index.search(&mut search, query, &options, vectors).expect("an answer");
        hits_count += found.iter().filter(|near| expected.contains(&near.id)).count();
        all_count += expected.len();
    }
    let mut rates = [0.0; PASSES_COUNT];
    for rate in &mut rates {
        let cpu = process_cpu();
        for query in &queries {
            index.search(&mut search, query, &options, vectors).expect("an answer");
        }
        *rate = per_second(queries.len(), process_cpu() - cpu);
    }
    rates.sort_by(f64::total_cmp);
    let recall = hits_count as f64 / all_count.max(1) as f64;
    (recall, rates[PASSES_COUNT / 2], search.plan())
}

/// Asks with filters that let this part pass: at random, near the query, and far from it.
fn filters(base: &[f32], queries: &[f32], dimensions: usize, arguments: &Arguments) {
    let dims = NonZero::new(dimensions).expect("dimensions");
    let index =
        GraphIndex::build(base, dims, arguments.options(), ONE, &mut |_| Ok(())).expect("a graph");
    let vectors = DenseVectors::new(base, dimensions);
    let query = &queries[..dimensions];
    let dot = |vector: &[f32]| -> f32 { vector.iter().zip(query).map(|(x, y)| x * y).sum() };
    let mut by_nearness: Vec<(f32, u32)> = base.chunks(dimensions).map(dot).zip(0..).collect();
    by_nearness.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut at_random = by_nearness.clone();
    let mut random = Random(2);
    for end in (1..at_random.len()).rev() {
        at_random.swap(end, random.below(end + 1));
    }
    let far: Vec<(f32, u32)> = by_nearness.iter().rev().copied().collect();
    // Queries that are near what the filters are about.
    let mut near_queries: Vec<(f32, &[f32])> =
        queries.chunks(dimensions).map(|query| (dot(query), query)).collect();
    near_queries.sort_by(|a, b| b.0.total_cmp(&a.0));
    let near_queries: Vec<f32> =
        near_queries.iter().take(200).flat_map(|(_, query)| query.iter().copied()).collect();
    let some_queries = &queries[..queries.len().min(200 * dimensions)];
    for part in [0.001, 0.01, 0.1, 0.5] {
        for (what, order, queries) in [
            ("random", &at_random, some_queries),
            ("correlated", &by_nearness, &near_queries),
            ("anti-correlated", &far, &near_queries),
        ] {
            let count = (order.len() as f64 * part) as usize;
            let set: VertexSet = order[..count].iter().map(|(_, id)| *id).collect();
            let best = [12, 24, 48, 96, 192, 384]
                .map(|effort| ask(&index, &vectors, queries, effort, GraphFilter::Among(&set)))
                .into_iter()
                .find(|(recall, ..)| *recall >= 0.95);
            match best {
                Some((recall, qps, plan)) => println!(
                    "filter {what:<15} {:>5.1} %  recall {recall:.4}  {qps:>8.0}/s  {plan:?}",
                    100.0 * part
                ),
                None => println!("filter {what:<15} {:>5.1} %  below 0.95", 100.0 * part),
            }
        }
    }
}
