//! The exact index: it compares a query with every vector.
//!
//! Invariants: vectors are kept as they were given, bit for bit, and a cosine
//! needs only the inverse of each norm beside them, so that nothing
//! of a vector is lost; rows are dense, as a removal moves the last row into
//! the gap; vectors of finite numbers alone get in, which with
//! [`ExactIndex::nearness`] keeps NaN out of the answers.

use super::rows::Rows;
use super::{Candidate, Filter, Nearest, Scored};
use crate::arena::Placement;
use crate::distance::{self, scalar};
use crate::error::{Error, ErrorKind, Result};
use crate::os::threads::in_parts_on;
use op_dbus_formats::collection::Metric;
use std::collections::HashMap;
use std::num::NonZero;
use std::ops::Range;
use std::sync::Arc;

/// Rows that one call of a kernel compares.
const BATCH_ROWS: usize = 64;
/// The least that is worth a thread: starting one takes about 70 µs, which is a
/// third of the time to read this from cache and a tenth of that from memory.
const THREAD_BYTES: usize = 8 << 20;
/// Between these norms neither the dot product with a vector of norm one nor the
/// norm's inverse leaves the range of `f32`, and what is lost below it is
/// nothing beside the norm.
const ORDINARY_NORMS: Range<f64> = 1e-18..1e36;

/// One collection's vectors in memory, compared one by one.
///
/// Shapes: every vector and every query is `[dimensions]`.
pub(crate) struct ExactIndex {
    metric: Metric,
    rows: Rows,
    placement: Arc<Placement>,
    /// The key of each row.
    keys: Vec<Arc<[u8]>>,
    /// What makes a kernel's value a nearness, for each row: see [`Self::weight`].
    weights: Vec<f32>,
    row_by_key: HashMap<Arc<[u8]>, u32>,
    keys_bytes: usize,
}

impl ExactIndex {
    /// Creates an empty index.
    pub(crate) fn new(
        dimensions: NonZero<usize>,
        metric: Metric,
        placement: Arc<Placement>,
    ) -> Self {
        Self {
            metric,
            rows: Rows::new(dimensions.get(), Arc::clone(&placement)),
            placement,
            keys: Vec::new(),
            weights: Vec::new(),
            row_by_key: HashMap::new(),
            keys_bytes: 0,
        }
    }

    /// Returns the number of vectors.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// About so many of its keys, from everywhere.
    pub(crate) fn some_keys(&self, count: usize) -> impl Iterator<Item = &[u8]> {
        self.keys.iter().step_by(self.len().div_ceil(count).max(1)).map(|key| &**key)
    }

    /// Where the memory of its vectors lies.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = Range<usize>> {
        self.rows.addresses()
    }

    /// Returns the bytes the index has taken.
    ///
    /// The blocks and the keys are exact; the hash table is reckoned as one
    /// control byte and one entry for each of its buckets.
    pub(crate) fn memory_bytes(&self) -> usize {
        let entry_bytes = size_of::<(Arc<[u8]>, u32)>() + 1;
        // The standard table fills seven buckets of eight.
        let buckets_count = self.row_by_key.capacity() / 7 * 8;
        let counters_bytes = 2 * size_of::<usize>();
        self.rows.memory_bytes()
            + self.keys.capacity() * size_of::<Arc<[u8]>>()
            + self.weights.capacity() * size_of::<f32>()
            + buckets_count * entry_bytes
            + self.keys_bytes
            + self.keys.len() * counters_bytes
    }

    /// Returns the vector of `key`, exactly as it was inserted.
    #[cfg(test)]
    pub(crate) fn get(&self, key: &[u8]) -> Option<&[f32]> {
        let row = *self.row_by_key.get(key)?;
        Some(self.rows.get(row as usize))
    }

    /// Inserts the vector of `key`, in place of the one it had; returns whether
    /// it had one.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the length differs from the index's dimensions
    /// or a number is not finite; [`ErrorKind::Full`] beyond 2³² vectors, or if
    /// there is no memory. The index is then as before.
    pub(crate) fn insert(&mut self, key: &[u8], vector: &[f32]) -> Result<bool> {
        self.check(vector)?;
        let weight = self.weight(vector);
        if let Some(&row) = self.row_by_key.get(key) {
            let row = row as usize;
            self.rows.set(row, vector);
            self.weights[row] = weight;
            return Ok(true);
        }
        let row = u32::try_from(self.len()).map_err(|source| {
            let context = format!("an exact index holds no more than {} vectors", self.len());
            Error::new(ErrorKind::Full, context).with_source(source)
        })?;
        self.rows.push(vector)?;
        let key: Arc<[u8]> = key.into();
        self.keys_bytes += key.len();
        self.weights.push(weight);
        self.keys.push(Arc::clone(&key));
        self.row_by_key.insert(key, row);
        Ok(false)
    }

    /// Removes the vector of `key`; returns whether there was one.
    pub(crate) fn remove(&mut self, key: &[u8]) -> bool {
        let Some(row) = self.row_by_key.remove(key) else {
            return false;
        };
        self.keys_bytes -= key.len();
        self.rows.swap_remove(row as usize);
        self.weights.swap_remove(row as usize);
        self.keys.swap_remove(row as usize);
        if let Some(moved) = self.keys.get(row as usize) {
            self.row_by_key.insert(Arc::clone(moved), row);
        }
        true
    }

    /// Returns the vectors nearest to `query` that pass `filter`, nearest first.
    ///
    /// Vectors as near as each other stand in the order of their keys. A zero
    /// vector has the cosine 0 to every other.
    ///
    /// Shapes: `query` is `[dimensions]`; the answer holds at most `limit` items,
    /// and fewer only if fewer pass.
    /// Cost: reads all vectors once, on at most `threads` threads (one at least for
    /// each NUMA node that has vectors of its own), of which each has at least
    /// [`THREAD_BYTES`] to read; the filter is asked only about a vector that would
    /// enter the answer. The answer does not depend on `threads`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the length differs from the index's dimensions
    /// or a number is not finite.
    ///
    /// # Panics
    /// If the filter does.
    pub(crate) fn search(
        &self,
        query: &[f32],
        limit: usize,
        filter: Option<Filter<'_>>,
        threads: NonZero<usize>,
    ) -> Result<Vec<Scored>> {
        self.check(query)?;
        let limit = limit.min(self.len());
        if limit == 0 {
            return Ok(Vec::new());
        }
        let query = self.prepare(query);
        let parts = self.parts(threads);
        let settle = |part: usize| match parts.len() {
            1 => None,
            _ => Some(self.placement.visit_as_worker(part)),
        };
        let scan = |rows: &Vec<Range<usize>>, (): &mut ()| {
            let rows_count = rows.iter().map(Range::len).sum();
            let mut nearest = Nearest::new(limit.min(rows_count));
            rows.iter().for_each(|rows| self.scan(&query, rows.clone(), filter, &mut nearest));
            nearest
        };
        let threads = NonZero::new(parts.len()).unwrap_or(NonZero::<usize>::MIN);
        // A part may have less than what is asked for.
        let mut nearest = Nearest::new(limit);
        for found in in_parts_on(&parts, threads, settle, scan) {
            nearest.merge(found);
        }
        Ok(nearest.into_scored())
    }

    /// Refuses what is no vector of this index.
    fn check(&self, vector: &[f32]) -> Result<()> {
        if vector.len() != self.rows.dimensions() {
            let expected = self.rows.dimensions();
            let context = format!("a vector has {} dimensions, not {expected}", vector.len());
            return Err(Error::new(ErrorKind::Invalid, context));
        }
        if let Some(index) = vector.iter().position(|number| !number.is_finite()) {
            let context = format!("number {index} of a vector is {}", vector[index]);
            return Err(
                Error::new(ErrorKind::Invalid, context).with_remedy("give finite numbers only")
            );
        }
        Ok(())
    }

    /// Returns what makes the kernel's value for this row a nearness.
    ///
    /// For a cosine that is the inverse norm; NaN, where no `f32` will do, sends
    /// [`Self::nearness`] to double precision.
    fn weight(&self, vector: &[f32]) -> f32 {
        match self.metric {
            Metric::Dot => 1.0,
            Metric::Euclidean => -1.0,
            Metric::Cosine => {
                let norm = norm(vector);
                if norm == 0.0 {
                    0.0
                } else if ORDINARY_NORMS.contains(&norm) {
                    norm.recip() as f32
                } else {
                    f32::NAN
                }
            }
        }
    }

    /// Returns the query padded to a row, and of norm one for a cosine.
    fn prepare(&self, query: &[f32]) -> Vec<f32> {
        let mut padded = vec![0.0; self.rows.stride()];
        padded[..query.len()].copy_from_slice(query);
        if self.metric == Metric::Cosine {
            let norm = norm(query);
            if norm > 0.0 {
                padded.iter_mut().for_each(|number| *number = (f64::from(*number) / norm) as f32);
            }
        }
        padded
    }

    /// Splits the rows among threads that are worth starting: those of each block among threads on
    /// the node that the block lies on.
    fn parts(&self, threads: NonZero<usize>) -> Vec<Vec<Range<usize>>> {
        let rows_count = self.len();
        let row_bytes = self.rows.stride() * size_of::<f32>();
        let worth = rows_count.saturating_mul(row_bytes) / THREAD_BYTES;
        let threads_count = threads.get().min(worth).max(1);
        let nodes_count = self.placement.block_nodes_count();
        if nodes_count == 1 || worth < nodes_count {
            let part = rows_count.div_ceil(threads_count).max(1);
            let starts = (0..rows_count).step_by(part);
            let rows = |start| std::iter::once(start..rows_count.min(start + part));
            return starts.map(|start| rows(start).collect()).collect();
        }
        // Of threads as of blocks, each is on the next node.
        let threads_count = threads_count.next_multiple_of(nodes_count);
        let block_rows = self.rows.block_rows();
        let mut parts = vec![Vec::new(); threads_count];
        for (block, start) in (0..rows_count).step_by(block_rows).enumerate() {
            parts[block % threads_count].push(start..rows_count.min(start + block_rows));
        }
        parts
    }

    /// Looks for the nearest to a prepared query among some rows.
    fn scan<'a>(
        &'a self,
        query: &[f32],
        mut rows: Range<usize>,
        filter: Option<Filter<'_>>,
        nearest: &mut Nearest<'a>,
    ) {
        let kernel = match self.metric {
            Metric::Cosine | Metric::Dot => distance::kernels().dot_rows,
            Metric::Euclidean => distance::kernels().squared_euclidean_rows,
        };
        let mut values = [0.0; BATCH_ROWS];
        while !rows.is_empty() {
            let batch = self.rows.run(rows.start, rows.len().min(BATCH_ROWS));
            let values = &mut values[..batch.len() / self.rows.stride()];
            kernel(query, batch, values);
            // The values come first: the longer of the two would lose an item.
            for (&value, row) in values.iter().zip(rows.by_ref()) {
                let nearness = self.nearness(query, row, value);
                let candidate = Candidate { nearness, key: &self.keys[row] };
                if nearest.admits(&candidate) && filter.is_none_or(|passes| passes(candidate.key)) {
                    nearest.take(candidate);
                }
            }
        }
    }

    /// Returns the nearness of a row from the value the kernel gave it.
    ///
    /// It is never NaN, and never the negative zero, which would order before
    /// its equal.
    fn nearness(&self, query: &[f32], row: usize, value: f32) -> f32 {
        let nearness = value * self.weights[row];
        let nearness = if nearness.is_finite() { nearness } else { self.nearness_wide(query, row) };
        let nearness = match self.metric {
            Metric::Cosine => nearness.clamp(-1.0, 1.0),
            Metric::Dot | Metric::Euclidean => nearness,
        };
        nearness + 0.0
    }

    /// Computes a nearness whose `f32` sums overflow, or might underflow.
    #[cold]
    fn nearness_wide(&self, query: &[f32], row: usize) -> f32 {
        let row = self.rows.get(row);
        let query = &query[..row.len()];
        let nearness = match self.metric {
            Metric::Cosine => scalar::dot_wide(query, row) / norm(row),
            Metric::Dot => scalar::dot_wide(query, row),
            // A sum of squares has no other way out of range than this.
            Metric::Euclidean => f64::NEG_INFINITY,
        };
        nearness as f32
    }
}

impl std::fmt::Debug for ExactIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExactIndex")
            .field("metric", &self.metric)
            .field("dimensions", &self.rows.dimensions())
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// Returns the Euclidean norm; no finite vector's overflows or vanishes.
fn norm(vector: &[f32]) -> f64 {
    scalar::dot_wide(vector, vector).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::NumaPolicy;
    use crate::distance::tests::Random;
    use std::collections::{BTreeMap, BTreeSet};

    const METRICS: [Metric; 3] = [Metric::Cosine, Metric::Dot, Metric::Euclidean];

    type Model = BTreeMap<Vec<u8>, Vec<f32>>;

    fn count(count: usize) -> NonZero<usize> {
        NonZero::new(count).unwrap()
    }

    fn filled(metric: Metric, model: &Model) -> ExactIndex {
        let mut index =
            ExactIndex::new(count(model.values().next().unwrap().len()), metric, Arc::default());
        for (key, vector) in model {
            index.insert(key, vector).unwrap();
        }
        index
    }

    /// Small whole numbers: their dot products and distances are exact in any
    /// order, and often equal.
    fn whole_vectors(random: &mut Random, vectors: usize, dimensions: usize) -> Model {
        let key = |random: &mut Random| random.below(10 * vectors).to_be_bytes().to_vec();
        (0..vectors).map(|_| (key(random), random.whole(dimensions))).collect()
    }

    fn nearness_f64(metric: Metric, a: &[f32], b: &[f32]) -> f64 {
        let pairs = || a.iter().zip(b).map(|(&x, &y)| (f64::from(x), f64::from(y)));
        let dot: f64 = pairs().map(|(x, y)| x * y).sum();
        match metric {
            Metric::Dot => dot,
            Metric::Euclidean => -pairs().map(|(x, y)| (x - y) * (x - y)).sum::<f64>(),
            Metric::Cosine => {
                let norms = norm(a) * norm(b);
                if norms == 0.0 { 0.0 } else { dot / norms }
            }
        }
    }

    /// What a full sort in double precision answers.
    fn sorted(metric: Metric, model: &Model, query: &[f32]) -> Vec<(Vec<u8>, f64)> {
        let mut all: Vec<_> = model
            .iter()
            .map(|(key, vector)| (key.clone(), nearness_f64(metric, query, vector) + 0.0))
            .collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        all
    }

    /// Dot and Euclidean answers must equal the model's, a cosine's only in
    /// value, as it is rounded.
    fn assert_answer(metric: Metric, found: &[Scored], expected: &[(Vec<u8>, f64)]) {
        assert_eq!(found.len(), expected.len());
        for (found, (key, nearness)) in found.iter().zip(expected) {
            if metric == Metric::Cosine {
                assert!((f64::from(found.nearness) - nearness).abs() < 1e-6);
            } else {
                assert_eq!((&*found.key, f64::from(found.nearness)), (&**key, *nearness));
            }
        }
    }

    #[test]
    fn answers_equal_a_full_sort() {
        let mut random = Random(1);
        for dimensions in [1, 3, 16, 17, 40] {
            let mut model = whole_vectors(&mut random, 300, dimensions);
            model.insert(b"zero".to_vec(), vec![0.0; dimensions]);
            let query = random.whole(dimensions);
            for metric in METRICS {
                let index = filled(metric, &model);
                let expected = sorted(metric, &model, &query);
                for limit in [0, 1, 2, 63, 64, 65, model.len(), 10_000] {
                    let found = index.search(&query, limit, None, count(1)).unwrap();
                    assert_answer(metric, &found, &expected[..limit.min(model.len())]);
                }
            }
        }
    }

    #[test]
    fn a_filter_costs_no_neighbour() {
        let mut random = Random(2);
        let model = whole_vectors(&mut random, 500, 8);
        let query = random.whole(8);
        let even = |key: &[u8]| key.last().is_some_and(|byte| byte % 2 == 0);
        for metric in [Metric::Dot, Metric::Euclidean] {
            let index = filled(metric, &model);
            let mut expected = sorted(metric, &model, &query);
            expected.retain(|(key, _)| even(key));
            for limit in [1, 20, 500] {
                let found = index.search(&query, limit, Some(&even), count(2)).unwrap();
                assert_answer(metric, &found, &expected[..limit.min(expected.len())]);
            }
            let none = index.search(&query, 20, Some(&|_| false), count(2)).unwrap();
            assert_eq!(none, []);
        }
    }

    #[test]
    fn churn_leaves_what_a_map_holds() {
        let mut random = Random(3);
        // Rows so long that a block has few: removals cross blocks and free them.
        let dimensions = 70_000;
        for metric in [Metric::Dot, Metric::Cosine] {
            let mut index = ExactIndex::new(count(dimensions), metric, Arc::default());
            let mut model = Model::new();
            for step in 0..150 {
                let key = vec![random.below(if step < 80 { 24 } else { 3 }) as u8];
                if random.below(5) < 3 {
                    let vector = random.whole(dimensions);
                    assert_eq!(index.insert(&key, &vector).unwrap(), model.contains_key(&key));
                    model.insert(key, vector);
                } else {
                    assert_eq!(index.remove(&key), model.remove(&key).is_some());
                }
                assert_eq!(index.len(), model.len());
                assert!(model.iter().all(|(key, vector)| index.get(key) == Some(&vector[..])));
            }
            let query = random.whole(dimensions);
            let found = index.search(&query, 24, None, count(3)).unwrap();
            assert_answer(metric, &found, &sorted(metric, &model, &query));
            let full_bytes = index.memory_bytes();
            model.keys().for_each(|key| assert!(index.remove(key)));
            assert!(
                index.len() == 0 && index.search(&query, 1, None, count(1)).unwrap().is_empty()
            );
            assert!(index.memory_bytes() < full_bytes);
        }
    }

    #[test]
    fn neither_threads_nor_order_of_insertion_change_an_answer() {
        let mut random = Random(4);
        let dimensions = 1000;
        let vectors_count = 3 * THREAD_BYTES / (dimensions * size_of::<f32>());
        let model: Model = (0..vectors_count)
            .map(|number| (number.to_be_bytes().to_vec(), random.fractions(dimensions)))
            .collect();
        let query = random.fractions(dimensions);
        for metric in METRICS {
            let index = filled(metric, &model);
            assert_eq!(index.parts(count(4)).len(), 3, "the test must start threads");
            let mut backwards = ExactIndex::new(count(dimensions), metric, Arc::default());
            for (key, vector) in model.iter().rev() {
                backwards.insert(key, vector).unwrap();
            }
            // The last is more than a part has.
            for limit in [100, vectors_count - 1] {
                let search = |index: &ExactIndex, threads| {
                    index.search(&query, limit, None, count(threads)).unwrap()
                };
                let expected = search(&index, 1);
                assert_eq!(expected.len(), limit);
                for threads in [2, 3, 4, 7] {
                    assert_eq!(search(&index, threads), expected);
                    assert_eq!(search(&backwards, threads), expected);
                }
            }
        }
    }

    #[test]
    fn parts_cover_every_row_once() {
        let mut index = ExactIndex::new(count(THREAD_BYTES / 8), Metric::Dot, Arc::default());
        for rows in 0..12_u8 {
            for threads in 1..8 {
                let covered: Vec<_> =
                    index.parts(count(threads)).concat().into_iter().flatten().collect();
                assert_eq!(covered, (0..rows.into()).collect::<Vec<_>>());
                let worth = usize::from(rows) / 2;
                assert!(index.parts(count(threads)).len() <= threads.min(worth.max(1)));
            }
            index.insert(&[rows], &vec![1.0; THREAD_BYTES / 8]).unwrap();
        }
    }

    #[test]
    fn blocks_are_compared_where_they_lie() {
        let two_nodes =
            Arc::new(Placement::synthetic("numa:2 core:2 pu:1", NumaPolicy::Interleave));
        let (mut random, dimensions) = (Random(5), 1 << 16);
        let mut index = ExactIndex::new(count(dimensions), Metric::Dot, two_nodes);
        let mut model = Model::new();
        for number in 0..100_u32 {
            let vector = random.whole(dimensions);
            index.insert(&number.to_be_bytes(), &vector).unwrap();
            model.insert(number.to_be_bytes().to_vec(), vector);
        }
        let block_rows = index.rows.block_rows();
        for threads in 1..=6 {
            let parts = index.parts(count(threads));
            assert_eq!(parts.len(), threads.min(3).next_multiple_of(2), "{threads}");
            for (part, rows) in parts.iter().enumerate() {
                let is_there = |range: &Range<usize>| range.start / block_rows % 2 == part % 2;
                assert!(rows.iter().all(is_there));
            }
            let mut covered: Vec<_> = parts.concat().into_iter().flatten().collect();
            covered.sort_unstable();
            assert_eq!(covered, (0..100).collect::<Vec<_>>());
        }
        let query = random.whole(dimensions);
        let found = index.search(&query, 20, None, count(4)).unwrap();
        assert_answer(Metric::Dot, &found, &sorted(Metric::Dot, &model, &query)[..20]);
    }

    #[test]
    fn numbers_beyond_the_range_keep_their_order() {
        let huge = f32::MAX;
        let tiny = f32::from_bits(1);
        let rows: [(&[u8], [f32; 3]); 6] = [
            (b"huge", [huge, huge, huge]),
            (b"huge, mixed", [huge, -huge, huge]),
            (b"one", [1.0, 1.0, 1.0]),
            (b"opposite", [-huge, -huge, -huge]),
            (b"tiny", [tiny, tiny, tiny]),
            (b"zero", [0.0, 0.0, 0.0]),
        ];
        let model: Model = rows.iter().map(|(key, row)| (key.to_vec(), row.to_vec())).collect();
        for (_, query) in rows {
            let cosine = filled(Metric::Cosine, &model);
            for found in cosine.search(&query, 9, None, count(1)).unwrap() {
                let expected = nearness_f64(Metric::Cosine, &query, &model[&*found.key]);
                assert!((f64::from(found.nearness) - expected).abs() < 1e-6, "{found:?}");
            }
            for metric in [Metric::Dot, Metric::Euclidean] {
                let found = filled(metric, &model).search(&query, 9, None, count(1)).unwrap();
                let expected = sorted(metric, &model, &query);
                let keys: BTreeSet<_> = found.iter().map(|found| found.key.clone()).collect();
                assert_eq!(keys.len(), rows.len());
                for (found, (_, nearness)) in found.iter().zip(expected) {
                    assert_eq!(found.nearness, nearness as f32, "{metric:?} {query:?}");
                }
            }
        }
    }

    #[test]
    fn a_wrong_vector_is_refused_and_changes_nothing() {
        let mut index = ExactIndex::new(count(2), Metric::Cosine, Arc::default());
        index.insert(b"a", &[1.0, 2.0]).unwrap();
        for wrong in [&[1.0][..], &[1.0, 2.0, 3.0], &[f32::NAN, 0.0], &[0.0, f32::INFINITY]] {
            let insertion = index.insert(b"a", wrong).unwrap_err();
            let question = index.search(wrong, 1, None, count(1)).unwrap_err();
            assert_eq!(
                (insertion.kind(), question.kind()),
                (ErrorKind::Invalid, ErrorKind::Invalid)
            );
            assert_eq!((index.len(), index.get(b"a")), (1, Some(&[1.0, 2.0][..])));
        }
    }
}
