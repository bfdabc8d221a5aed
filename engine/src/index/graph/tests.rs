//! What holds of a graph as a whole: recall, repetition, refusals.

use std::collections::HashSet;

use super::*;
use crate::distance::tests::Random;

const METRICS: [Metric; 3] = [Metric::Cosine, Metric::Dot, Metric::Euclidean];

fn count(count: usize) -> NonZero<usize> {
    NonZero::new(count).unwrap()
}

fn options(metric: Metric, profile: Profile) -> GraphOptions {
    GraphOptions { metric, profile, seed: 7 }
}

fn built(vectors: &[f32], dimensions: usize, options: GraphOptions, threads: usize) -> GraphIndex {
    GraphIndex::build(vectors, count(dimensions), options, count(threads), &mut |_| Ok(())).unwrap()
}

/// Vectors that differ in few directions, as those of texts do, however many numbers they have.
struct Subject {
    dimensions: usize,
    /// Shape: `[DIRECTIONS_COUNT, dimensions]`.
    directions: Vec<f32>,
}

const DIRECTIONS_COUNT: usize = 8;

impl Subject {
    fn new(random: &mut Random, dimensions: usize) -> Self {
        Self { dimensions, directions: random.fractions(DIRECTIONS_COUNT * dimensions) }
    }

    fn vectors(&self, random: &mut Random, count: usize) -> Vec<f32> {
        let vector = |_| {
            let mut vector = random.fractions(self.dimensions);
            vector.iter_mut().for_each(|number| *number *= 0.1);
            let amounts = random.fractions(DIRECTIONS_COUNT);
            for (direction, amount) in self.directions.chunks(self.dimensions).zip(amounts) {
                vector.iter_mut().zip(direction).for_each(|(x, d)| *x += amount * d);
            }
            vector
        };
        (0..count).flat_map(vector).collect()
    }
}

fn nearness(metric: Metric, a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    match metric {
        Metric::Dot => dot(a, b),
        Metric::Euclidean => 2.0 * dot(a, b) - dot(a, a) - dot(b, b),
        Metric::Cosine => dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f64::MIN_POSITIVE),
    }
}

fn nearest(metric: Metric, vectors: &[f32], query: &[f32], limit: usize) -> HashSet<u32> {
    let mut all: Vec<(f64, u32)> = vectors
        .chunks(query.len())
        .zip(0..)
        .map(|(vector, id)| (-nearness(metric, query, vector), id))
        .collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    all.into_iter().take(limit).map(|(_, id)| id).collect()
}

/// The part of the ten nearest that is found.
fn recall(index: &GraphIndex, vectors: &[f32], queries: &[f32], effort: usize) -> f64 {
    let dimensions = index.dimensions();
    let mut search = GraphSearch::default();
    let mut hits_count = 0;
    for query in queries.chunks(dimensions) {
        let found = index.search(&mut search, query, (10, effort), vectors).unwrap();
        assert!(found.is_sorted_by(|a, b| a.nearness >= b.nearness));
        let expected = nearest(index.options.metric, vectors, query, 10);
        hits_count += found.iter().filter(|found| expected.contains(&found.id)).count();
    }
    hits_count as f64 / (queries.len() / dimensions * 10) as f64
}

#[test]
fn most_of_the_nearest_are_found_under_every_metric() {
    let mut random = Random(1);
    for dimensions in [8, 100, 384] {
        let subject = Subject::new(&mut random, dimensions);
        let vectors = subject.vectors(&mut random, 3000);
        let queries = subject.vectors(&mut random, 20);
        for metric in METRICS {
            for profile in Profile::ALL {
                let index = built(&vectors, dimensions, options(metric, profile), 2);
                let found = [20, 200].map(|effort| recall(&index, &vectors, &queries, effort));
                let what = format!("{dimensions} {metric:?} {profile:?}: {found:?}");
                assert!(found[1] >= 0.98 && found[0] <= found[1], "{what}");
            }
        }
    }
}

#[test]
fn links_to_nowhere_near_are_found_out() {
    let mut random = Random(2);
    let subject = Subject::new(&mut random, 64);
    let (vectors, queries) = (subject.vectors(&mut random, 3000), subject.vectors(&mut random, 20));
    let mut index = built(&vectors, 64, options(Metric::Cosine, Profile::Speed), 1);
    assert!(recall(&index, &vectors, &queries, 50) >= 0.9);
    // What vertices know of their neighbours is wrong.
    for id in 0..index.len() as u32 {
        index.rows.neighbourhood(id).signs.fill(0x5A);
    }
    assert!(recall(&index, &vectors, &queries, 50) < 0.7);
}

#[test]
fn neither_threads_nor_time_change_a_graph() {
    let mut random = Random(3);
    let vectors = Subject::new(&mut random, 40).vectors(&mut random, 2000);
    for profile in Profile::ALL {
        let options = options(Metric::Euclidean, profile);
        let index = built(&vectors, 40, options, 1);
        for threads in [2, 3] {
            let other = built(&vectors, 40, options, threads);
            assert!(other.row_bytes() == index.row_bytes() && other.hub_ids() == index.hub_ids());
        }
        let seeded = GraphOptions { seed: 8, ..options };
        assert!(built(&vectors, 40, seeded, 1).row_bytes() != index.row_bytes());
    }
}

#[test]
fn few_equal_and_zero_vectors_are_found() {
    for metric in METRICS {
        for profile in Profile::ALL {
            let options = options(metric, profile);
            for vectors_count in [1, 2, 31, 33, 100] {
                // Every vector three times, and one without length.
                let vectors: Vec<f32> = (0..vectors_count)
                    .flat_map(|id| [(id / 3) as f32, 1.0, (id % 2) as f32].map(|x| x * 0.5))
                    .chain([0.0; 3])
                    .collect();
                let index = built(&vectors, 3, options, 1);
                let mut search = GraphSearch::default();
                let limit = vectors_count + 1;
                let found =
                    index.search(&mut search, &[1.0, 0.5, 0.0], (limit, limit), &vectors).unwrap();
                let ids: HashSet<u32> = found.iter().map(|found| found.id).collect();
                assert_eq!(ids.len(), limit, "{metric:?} {profile:?}");
                assert!(found.iter().all(|found| found.nearness.is_finite()));
            }
            let equal = [0.25_f32; 3 * 200];
            let index = built(&equal, 3, options, 1);
            let mut search = GraphSearch::default();
            let found = index.search(&mut search, &[1.0, 0.5, 0.0], (10, 10), &equal).unwrap();
            assert_eq!(found.len(), 10);
        }
    }
}

#[test]
fn numbers_of_any_size_keep_their_order() {
    let mut random = Random(4);
    for scale in [1e-18, 1e-6, 1e6, 1e15] {
        let subject = Subject::new(&mut random, 16);
        let mut scaled = |count| -> Vec<f32> {
            subject.vectors(&mut random, count).into_iter().map(|x| x * scale).collect()
        };
        let (vectors, queries) = (scaled(500), scaled(10));
        for metric in METRICS {
            let index = built(&vectors, 16, options(metric, Profile::Speed), 1);
            let found = recall(&index, &vectors, &queries, 100);
            assert!(found >= 0.95, "{metric:?} {scale}: {found}");
        }
    }
}

#[test]
fn what_is_no_vector_is_refused() {
    let build = |vectors: &[f32]| {
        let options = options(Metric::Cosine, Profile::Speed);
        GraphIndex::build(vectors, count(2), options, count(1), &mut |_| Ok(()))
    };
    for wrong in [&[][..], &[1.0], &[1.0, 2.0, 3.0], &[1.0, f32::NAN]] {
        assert_eq!(build(wrong).unwrap_err().kind(), ErrorKind::Invalid);
    }
    let vectors = [1.0, 2.0, 2.0, 1.0];
    let index = build(&vectors).unwrap();
    let mut search = GraphSearch::default();
    for (query, vectors) in
        [(&[1.0][..], &vectors[..]), (&[1.0, f32::INFINITY], &vectors), (&[1.0, 2.0], &[1.0; 2])]
    {
        let error = index.search(&mut search, query, (1, 1), vectors).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}

#[test]
fn a_build_can_be_ended() {
    let vectors = Random(5).fractions(1000 * 4);
    let mut heard = Vec::new();
    let result = GraphIndex::build(
        &vectors,
        count(4),
        options(Metric::Dot, Profile::Compact),
        count(1),
        &mut |done| {
            heard.push(done);
            if done >= 500 { Err(Error::new(ErrorKind::Busy, "enough")) } else { Ok(()) }
        },
    );
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Busy);
    assert!(heard.is_sorted() && heard.last().is_some_and(|last| (500..1000).contains(last)));
}
