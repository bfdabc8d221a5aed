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

impl GraphIndex {
    /// A bug to be planted: what vertices know of their neighbours is wrong.
    pub(crate) fn spoil(&mut self) {
        for id in 0..self.rows_count() as u32 {
            self.rows.neighbourhood(id).signs.fill(0x5A);
        }
    }
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

fn ask<'s>(
    index: &GraphIndex,
    search: &'s mut GraphSearch,
    query: &[f32],
    (limit, effort): (usize, usize),
    vectors: &[f32],
) -> Result<&'s [Neighbour]> {
    let options = SearchOptions { limit, effort, filter: GraphFilter::All };
    index.search(search, query, &options, &DenseVectors::new(vectors, index.dimensions()))
}

/// The part of the ten nearest that is found.
fn recall(
    index: &GraphIndex,
    vectors: &[f32],
    queries: &[f32],
    (limit, effort): (usize, usize),
) -> f64 {
    let dimensions = index.dimensions();
    let mut search = GraphSearch::default();
    let mut hits_count = 0;
    for query in queries.chunks(dimensions) {
        let found = ask(index, &mut search, query, (limit, effort), vectors).unwrap();
        assert!(found.is_sorted_by(|a, b| a.nearness >= b.nearness));
        let expected = nearest(index.options.metric, vectors, query, limit);
        hits_count += found.iter().filter(|found| expected.contains(&found.id)).count();
    }
    hits_count as f64 / (queries.len() / dimensions * limit) as f64
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
                let found =
                    [20, 200].map(|effort| recall(&index, &vectors, &queries, (10, effort)));
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
    assert!(recall(&index, &vectors, &queries, (10, 50)) >= 0.9);
    index.spoil();
    assert!(recall(&index, &vectors, &queries, (10, 50)) < 0.7);
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
            assert!(
                other.row_bytes() == index.row_bytes()
                    && other.hub.as_bytes() == index.hub.as_bytes()
            );
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
                    ask(&index, &mut search, &[1.0, 0.5, 0.0], (limit, limit), &vectors).unwrap();
                let ids: HashSet<u32> = found.iter().map(|found| found.id).collect();
                assert_eq!(ids.len(), limit, "{metric:?} {profile:?}");
                assert!(found.iter().all(|found| found.nearness.is_finite()));
                let all = (usize::MAX, usize::MAX);
                let found = ask(&index, &mut search, &[1.0, 0.5, 0.0], all, &vectors).unwrap();
                assert_eq!(found.len(), limit);
            }
            let equal = [0.25_f32; 3 * 200];
            let index = built(&equal, 3, options, 1);
            let mut search = GraphSearch::default();
            let found = ask(&index, &mut search, &[1.0, 0.5, 0.0], (10, 10), &equal).unwrap();
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
            let found = recall(&index, &vectors, &queries, (10, 100));
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
        let error = ask(&index, &mut search, query, (2, 1), vectors).unwrap_err();
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

fn exact(index: &GraphIndex, query: &[f32], limit: usize, vectors: &[f32]) -> Vec<Neighbour> {
    let mut search = GraphSearch::default();
    let vectors = DenseVectors::new(vectors, index.dimensions());
    index.search_exact(&mut search, query, (limit, GraphFilter::All), &vectors).unwrap().to_vec()
}

#[test]
fn a_scan_finds_exactly_the_nearest_and_compares_few_in_full() {
    let mut random = Random(6);
    for dimensions in [8, 60, 384] {
        let subject = Subject::new(&mut random, dimensions);
        let mut vectors = subject.vectors(&mut random, 2000);
        vectors[5 * dimensions..7 * dimensions].fill(0.0);
        let queries = subject.vectors(&mut random, 20);
        for metric in METRICS {
            let index = built(&vectors, dimensions, options(metric, Profile::Compact), 1);
            let mut search = GraphSearch::default();
            let dense = DenseVectors::new(&vectors, dimensions);
            for query in queries.chunks(dimensions) {
                let all = (10, GraphFilter::All);
                let found = index.search_exact(&mut search, query, all, &dense).unwrap();
                let found: HashSet<u32> = found.iter().map(|found| found.id).collect();
                assert_eq!(found, nearest(metric, &vectors, query, 10), "{metric:?}");
            }
            let full = search.counts().full / 20;
            assert!((10..400).contains(&full), "{dimensions} {metric:?}: {full}");
        }
    }
}

#[test]
fn as_many_are_found_as_pass_and_nearly_the_nearest() {
    let mut random = Random(7);
    let subject = Subject::new(&mut random, 48);
    let (vectors, queries) = (subject.vectors(&mut random, 6000), subject.vectors(&mut random, 20));
    for profile in Profile::ALL {
        let index = built(&vectors, 48, options(Metric::Euclidean, profile), 2);
        let dense = DenseVectors::new(&vectors, 48);
        for parts in [2, 10, 100, 1000, 5999] {
            let is_wanted = |id: u32| id % parts == 1;
            let set: VertexSet = (0..6000).filter(|id| is_wanted(*id)).collect();
            let mut others = vectors.clone();
            for (vector, id) in others.chunks_mut(48).zip(0..) {
                if !is_wanted(id) {
                    vector.fill(1e9);
                }
            }
            for filter in [GraphFilter::Among(&set), GraphFilter::Where(&is_wanted)] {
                let (mut hits_count, mut all_count) = (0, 0);
                for query in queries.chunks(48) {
                    let mut search = GraphSearch::default();
                    let options = SearchOptions { limit: 10, effort: 60, filter };
                    let found = index.search(&mut search, query, &options, &dense).unwrap();
                    assert_eq!(found.len(), set.len().min(10));
                    assert!(found.iter().all(|found| is_wanted(found.id)));
                    let mut expected = nearest(Metric::Euclidean, &others, query, 10);
                    expected.retain(|id| is_wanted(*id));
                    all_count += expected.len();
                    hits_count += found.iter().filter(|f| expected.contains(&f.id)).count();
                }
                let recall = hits_count as f64 / all_count as f64;
                assert!(recall >= 0.95, "{profile:?} 1/{parts} {filter:?}: {recall}");
            }
        }
        let none = GraphFilter::Among(&VertexSet::new());
        let options = SearchOptions { limit: 10, effort: 60, filter: none };
        let mut search = GraphSearch::default();
        assert!(index.search(&mut search, &queries[..48], &options, &dense).unwrap().is_empty());
    }
}

/// Filters that let pass only what is far from the query.
#[test]
fn what_is_wanted_may_be_far_away() {
    let mut random = Random(8);
    let subject = Subject::new(&mut random, 32);
    let (vectors, query) = (subject.vectors(&mut random, 4000), subject.vectors(&mut random, 1));
    let index = built(&vectors, 32, options(Metric::Euclidean, Profile::Speed), 1);
    let dense = DenseVectors::new(&vectors, 32);
    let mut search = GraphSearch::default();
    let all = index.search_exact(&mut search, &query, (4000, GraphFilter::All), &dense).unwrap();
    let far: VertexSet = all[2500..].iter().map(|far| far.id).collect();
    let expected: HashSet<u32> = all[2500..2510].iter().map(|far| far.id).collect();
    let filter = GraphFilter::Among(&far);
    let options = SearchOptions { limit: 10, effort: 40, filter };
    let found = index.search(&mut search, &query, &options, &dense).unwrap();
    let hits_count = found.iter().filter(|found| expected.contains(&found.id)).count();
    assert!(found.len() == 10 && hits_count >= 9, "{hits_count}");
}

/// What a graph that changes must be like: vectors by their numbers.
struct Changing {
    index: GraphIndex,
    dense: Vec<f32>,
    live: Vec<u32>,
}

impl Changing {
    fn insert(&mut self, vectors: &[f32]) {
        let dimensions = self.index.dimensions();
        let ids = self.index.insert(vectors, count(2)).unwrap();
        self.dense.resize(self.index.rows_count() * dimensions, 0.0);
        for (id, vector) in ids.iter().zip(vectors.chunks(dimensions)) {
            self.dense[*id as usize * dimensions..][..dimensions].copy_from_slice(vector);
        }
        self.live.extend(ids);
        assert_eq!(self.live.iter().collect::<HashSet<_>>().len(), self.live.len());
    }

    fn remove(&mut self, random: &mut Random, removed_count: usize) {
        for _ in 0..removed_count {
            let id = self.live.swap_remove(random.below(self.live.len()));
            assert!(self.index.remove(id).unwrap() && !self.index.remove(id).unwrap());
        }
    }

    fn recall(&self, queries: &[f32], effort: usize) -> f64 {
        let dimensions = self.index.dimensions();
        let mut search = GraphSearch::default();
        let (mut hits_count, mut all_count) = (0, 0);
        for query in queries.chunks(dimensions) {
            let found = ask(&self.index, &mut search, query, (10, effort), &self.dense).unwrap();
            assert!(found.iter().all(|found| self.live.contains(&found.id)));
            let expected = exact(&self.index, query, 10, &self.dense);
            all_count += expected.len();
            let is_found = |expected: &&Neighbour| found.iter().any(|f| f.id == expected.id);
            hits_count += expected.iter().filter(is_found).count();
        }
        hits_count as f64 / all_count as f64
    }
}

#[test]
fn what_comes_is_found_and_what_goes_is_not_and_recall_stays() {
    let mut random = Random(9);
    let subject = Subject::new(&mut random, 48);
    let (vectors, queries) = (subject.vectors(&mut random, 3000), subject.vectors(&mut random, 40));
    for profile in Profile::ALL {
        let index = built(&vectors, 48, options(Metric::Cosine, profile), 2);
        let mut changing = Changing { index, dense: vectors.clone(), live: (0..3000).collect() };
        let before = changing.recall(&queries, 30);
        for _ in 0..10 {
            changing.remove(&mut random, 300);
            for part in subject.vectors(&mut random, 300).chunks(48 * 50) {
                changing.insert(part);
            }
        }
        let after = changing.recall(&queries, 30);
        assert!(after >= before - 0.02, "{profile:?}: {before} {after}");
        // Rows are used again.
        assert!(changing.index.rows_count() < 3000 * 12 / 10, "{}", changing.index.rows_count());
        assert_eq!(changing.index.len(), 3000);
        changing.remove(&mut random, 3000);
        assert!(changing.index.is_empty());
        let mut search = GraphSearch::default();
        let found = ask(&changing.index, &mut search, &queries[..48], (10, 10), &changing.dense);
        assert!(found.unwrap().is_empty());
        for vector in subject.vectors(&mut random, 60).chunks(48) {
            changing.insert(vector);
        }
        assert!(changing.recall(&queries, 60) > 0.95);
        // All at once: the first of them are linked while none of the others is.
        changing.remove(&mut random, 60);
        changing.insert(&subject.vectors(&mut random, 1000));
        assert!(changing.recall(&queries, 30) > 0.95);
        changing.check();
        assert!(changing.index.rows_count() < 3000 * 12 / 10);
    }
}

/// How much is found when most vectors went, with or without others in the place of links to them.
fn recall_after_removals(is_repaired: bool) -> f64 {
    let mut random = Random(10);
    let subject = Subject::new(&mut random, 48);
    let vectors = subject.vectors(&mut random, 6000);
    let queries = subject.vectors(&mut random, 100);
    let index = built(&vectors, 48, options(Metric::Cosine, Profile::Speed), 2);
    let mut changing = Changing { index, dense: vectors, live: (0..6000).collect() };
    for _ in 0..9 {
        changing.remove(&mut random, 600);
        if is_repaired {
            changing.index.repair(count(2)).unwrap();
            continue;
        }
        let index = &mut changing.index;
        let removed = index.removed();
        for id in 0..6000 {
            let mut links = index.rows.view().links(id).to_vec();
            links.retain(|link| index.rows.view().header(*link).state != rows::REMOVED);
            index.apply(&build::Plan::of_linked(vec![(id, links)]));
        }
        index.end_repair(&removed).unwrap();
    }
    changing.recall(&queries, 10)
}

#[test]
fn links_that_are_not_repaired_are_found_out() {
    let (repaired, cut) = (recall_after_removals(true), recall_after_removals(false));
    assert!(repaired > 0.95 && cut < 0.85, "{repaired} {cut}");
}

#[test]
fn vectors_without_direction_come_last_but_come() {
    let vectors = [1.0, 0.0, 0.0, 0.0, 0.5, 0.5, -1.0, 0.0, 0.0, 0.0];
    let mut index = built(&vectors, 2, options(Metric::Cosine, Profile::Speed), 1);
    let ids = |index: &GraphIndex, query: &[f32], limit| -> Vec<u32> {
        let mut search = GraphSearch::default();
        let found = ask(index, &mut search, query, (limit, 10), &vectors).unwrap();
        let ids: Vec<u32> = found.iter().map(|found| found.id).collect();
        assert_eq!(exact(index, query, limit, &vectors), found);
        ids
    };
    assert_eq!(ids(&index, &[1.0, 0.1], 5), [0, 2, 1, 4, 3]);
    assert_eq!(ids(&index, &[1.0, 0.1], 3), [0, 2, 1]);
    assert_eq!(ids(&index, &[0.0, 0.0], 2), [0, 1]);
    assert!(index.remove(1).unwrap());
    assert_eq!(ids(&index, &[1.0, 0.1], 5), [0, 2, 4, 3]);
    assert_eq!(index.insert(&[0.0, 0.0], count(1)).unwrap(), [1]);
    assert_eq!(ids(&index, &[1.0, 0.1], 5), [0, 2, 1, 4, 3]);
}

#[test]
fn what_does_not_fit_a_graph_is_not_inserted() {
    let vectors = [1.0, 0.0, 0.0, 2.0];
    let mut index = built(&vectors, 2, options(Metric::Dot, Profile::Speed), 1);
    for wrong in [&[1.0][..], &[f32::NAN, 0.0], &[0.0, 0.0, 2.0, 2.0]] {
        assert_eq!(index.insert(wrong, count(1)).unwrap_err().kind(), ErrorKind::Invalid);
    }
    assert_eq!((index.len(), index.rows_count()), (2, 2));
    assert!(!index.remove(7).unwrap());
}

#[test]
fn effort_for_a_recall_is_known() {
    let mut random = Random(11);
    let subject = Subject::new(&mut random, 48);
    let (vectors, queries) =
        (subject.vectors(&mut random, 5000), subject.vectors(&mut random, 100));
    let index = built(&vectors, 48, options(Metric::Cosine, Profile::Speed), 2);
    for limit in [1, 10, 40, 100, 150] {
        let efforts = [0.8, 0.9, 0.99].map(|recall| index.effort_for(recall, limit));
        assert!(efforts.is_sorted() && efforts[0] > 0, "{efforts:?}");
        let found = efforts.map(|effort| recall(&index, &vectors, &queries, (limit, effort)));
        // What is asked for, less what a hundred questions and other limits may miss of it.
        assert!(found[1] >= 0.85 && found[2] >= 0.975, "{limit} {efforts:?} {found:?}");
    }
}

impl Changing {
    /// What must be true of links and twins whatever happened.
    fn check(&mut self) {
        let rows = self.index.rows.view();
        let counts = &self.index.in_links_counts;
        assert_eq!(counts, &links::count_links(rows));
        for id in 0..rows.len() as u32 {
            let state = rows.header(id).state;
            assert!(
                counts[id as usize] == 0
                    || matches!(state, rows::LIVE | rows::HOLLOW | rows::REMOVED),
                "{id}"
            );
            let has_twins = !self.index.twins.of(id).is_empty();
            let is_possible = match state {
                rows::LIVE => true,
                rows::HOLLOW => has_twins,
                _ => !has_twins,
            };
            assert!(is_possible, "{id} has twins: {has_twins}, and its state is {state}");
        }
        for twin in self.index.twins.iter() {
            assert_eq!(rows.vertex(twin.id).identity(), rows.vertex(twin.vertex).identity());
            assert_eq!(rows.header(twin.id).state, rows::TWIN);
        }
    }

    /// How many of the nearest to a vector that many have are as near as that.
    fn equal_count(&self, vector: &[f32], limit: usize, filter: GraphFilter<'_>) -> usize {
        let mut search = GraphSearch::default();
        let options = SearchOptions { limit, effort: 10, filter };
        let dense = DenseVectors::new(&self.dense, self.index.dimensions());
        let found = self.index.search(&mut search, vector, &options, &dense).unwrap();
        found.iter().filter(|found| found.nearness > 0.9999).count()
    }
}

/// Most are equal to one of three, one of which is far from everything; all are found, whatever goes.
#[test]
fn vectors_that_are_equal_are_found_whatever_their_number() {
    let mut random = Random(13);
    let mut padded = |count: usize| -> Vec<f32> {
        let vectors = Subject::new(&mut random, 32).vectors(&mut random, count);
        vectors.chunks(32).flat_map(|vector| [&[0.0], vector].concat()).collect()
    };
    let (others, mut shared) = (padded(3000), padded(3));
    shared[..33].fill(0.0);
    shared[0] = 1.0;
    let shared: Vec<&[f32]> = shared.chunks(33).collect();
    for profile in Profile::ALL {
        let mut vectors = others.clone();
        (0..900).for_each(|index| vectors.extend_from_slice(shared[index % 3]));
        let index = built(&vectors, 33, options(Metric::Cosine, profile), 2);
        let mut changing = Changing { index, dense: vectors, live: (0..3900).collect() };
        let mut random = Random(14);
        for round in 0..6 {
            changing.check();
            let copies_count = changing.live.iter().filter(|id| (3000..3900).contains(*id)).count();
            for vector in &shared {
                for limit in [10, 100] {
                    let found_count = changing.equal_count(vector, limit, GraphFilter::All);
                    assert!(found_count == limit || copies_count < 600, "{round}: {found_count}");
                }
                let some: VertexSet =
                    changing.live.iter().filter(|id| *id % 2 == 0).copied().collect();
                assert_eq!(changing.equal_count(vector, 10, GraphFilter::Among(&some)), 10);
            }
            // The vertex that others are beside goes first, and stays for them.
            let first = changing.index.twins.vertices()[0];
            let is_there = changing.live.contains(&first);
            changing.live.retain(|id| *id != first);
            assert_eq!(changing.index.remove(first).unwrap(), is_there);
            changing.remove(&mut random, 300);
            changing.insert(&shared.concat());
        }
        changing.index.repair(count(2)).unwrap();
        changing.check();
        shared.iter().for_each(|vector| {
            assert_eq!(changing.equal_count(vector, 10, GraphFilter::All), 10);
        });
        for id in changing.live.split_off(0) {
            assert!(changing.index.remove(id).unwrap());
        }
        changing.check();
        assert!(changing.index.is_empty() && changing.index.twins.is_empty());
    }
}

#[test]
fn effort_for_a_recall_is_known_of_a_graph_that_has_grown() {
    let mut random = Random(15);
    let subject = Subject::new(&mut random, 48);
    let (vectors, queries) =
        (subject.vectors(&mut random, 4000), subject.vectors(&mut random, 100));
    for profile in Profile::ALL {
        let (few, rest) = vectors.split_at(48 * 10);
        let mut index = built(few, 48, options(Metric::Cosine, profile), 1);
        let at_first = index.effort_for(0.9, 10);
        rest.chunks(48 * 500).for_each(|part| _ = index.insert(part, count(2)).unwrap());
        let efforts = [0.9, 0.99].map(|recall| index.effort_for(recall, 10));
        let found = efforts.map(|effort| recall(&index, &vectors, &queries, (10, effort)));
        assert!(found[0] >= 0.85 && found[1] >= 0.975, "{at_first} {efforts:?} {found:?}");
    }
}
