//! What a search of a graph costs, and what its parts do: hot, so that memory is no part of it.
//!
//! Beside the graph stands the comparison with all vectors. Recall is not measured here but by
//! `op-dbus benchmark --search`, on vectors of your own.

use std::hint::black_box;
use std::num::NonZero;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use op_dbus_benches::traffic::{DIMENSIONS, fill_vector};
use op_dbus_engine::distance::kernels;
use op_dbus_engine::{
    DenseVectors, GraphFilter, GraphIndex, GraphOptions, GraphSearch, Metric, Profile,
    SearchOptions,
};

/// Few enough for the processor's last cache.
const VECTORS_COUNT: u32 = 5000;
const QUERIES_COUNT: u32 = 100;
const LIMIT: usize = 10;

fn vectors(first: u32, count: u32) -> Vec<f32> {
    let mut vectors = vec![0.0; count as usize * DIMENSIONS];
    for (index, vector) in (first..).zip(vectors.chunks_exact_mut(DIMENSIONS)) {
        fill_vector(index, vector);
    }
    vectors
}

fn search(criterion: &mut Criterion) {
    let base = vectors(0, VECTORS_COUNT);
    let queries = vectors(VECTORS_COUNT, QUERIES_COUNT);
    let mut queries = queries.chunks_exact(DIMENSIONS).cycle();
    let (dimensions, one) = (NonZero::new(DIMENSIONS).expect("some"), NonZero::<usize>::MIN);
    let mut group = criterion.benchmark_group("search_5000x384");
    for profile in Profile::ALL {
        let options = GraphOptions { metric: Metric::Cosine, profile, seed: 0 };
        let graph = GraphIndex::build(&base, dimensions, options, one, &mut |_| Ok(()))
            .expect("a graph of vectors");
        let mut search = GraphSearch::default();
        for effort in [10, 50, 200] {
            let id = BenchmarkId::new(profile.name(), effort);
            let options = SearchOptions { limit: LIMIT, effort, filter: GraphFilter::All };
            let vectors = DenseVectors::new(&base, DIMENSIONS);
            group.bench_function(id, |bencher| {
                bencher.iter(|| {
                    let query = queries.next().expect("they cycle");
                    let found = graph.search(&mut search, query, &options, &vectors);
                    black_box(found.expect("a query").len())
                });
            });
        }
    }
    let mut values = vec![0.0; VECTORS_COUNT as usize];
    group.bench_function("all", |bencher| {
        bencher.iter(|| {
            let query = queries.next().expect("they cycle");
            (kernels().dot_rows)(query, &base, &mut values);
            black_box(values[0])
        });
    });
    group.finish();
}

fn build(criterion: &mut Criterion) {
    let base = vectors(0, VECTORS_COUNT);
    let (dimensions, one) = (NonZero::new(DIMENSIONS).expect("some"), NonZero::<usize>::MIN);
    let mut group = criterion.benchmark_group("build_5000x384");
    group.sample_size(10);
    for profile in Profile::ALL {
        let options = GraphOptions { metric: Metric::Cosine, profile, seed: 0 };
        group.bench_function(profile.name(), |bencher| {
            bencher.iter(|| {
                GraphIndex::build(&base, dimensions, options, one, &mut |_| Ok(()))
                    .expect("a graph of vectors")
                    .len()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, search, build);
criterion_main!(benches);
