//! Nearest neighbours: what a graph over vectors of a file costs to make, to hold and to ask.

use std::io;
use std::num::NonZero;
use std::path::Path;
use std::time::Instant;

use op_dbus_engine::distance::kernels;
use op_dbus_engine::{
    DenseVectors, Error, ErrorKind, GraphFilter, GraphIndex, GraphOptions, GraphSearch, Metric,
    Neighbour, SearchOptions, VectorBuffer,
};
use op_dbus_formats::exchange::npy::NpyHeader;
use op_dbus_formats::header::checksum;
use serde::{Deserialize, Serialize};
use zerocopy::IntoBytes;

use crate::hit::{percentile, process_cpu};
use crate::latency::{Quantile, quantiles};

/// Rows that tell one file of vectors from another.
const IDENTITY_ROWS: usize = 1000;

/// Vectors of one length, one behind the other.
#[derive(Debug)]
pub struct Matrix {
    /// Elements of each.
    pub dimensions: usize,
    /// Shape: `[len, dimensions]`.
    pub numbers: VectorBuffer,
}

impl Matrix {
    /// Reads vectors of f32 from a file as `numpy.save` writes them.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).expect("a file of vectors");
        let header = NpyHeader::parse(&bytes).expect("an npy file");
        let (dimensions, rows) = (header.dimensions, header.rows as usize);
        let start = header.data_offset_bytes as usize;
        let mapped = VectorBuffer::map(path, start, dimensions, rows).expect("a map");
        Self { dimensions, numbers: mapped.expect("vectors of f32") }
    }

    /// Number of vectors.
    #[must_use]
    pub fn len(&self) -> usize {
        self.numbers.len() / self.dimensions.max(1)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// The vectors.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> + Clone {
        self.numbers.chunks_exact(self.dimensions.max(1))
    }

    /// Tells these vectors from others, by some of them.
    fn identity(&self) -> [u8; 16] {
        let step = self.len().div_ceil(IDENTITY_ROWS).max(1);
        let sample: Vec<u8> =
            self.rows().step_by(step).flat_map(IntoBytes::as_bytes).copied().collect();
        let mut identity = [0; 16];
        identity[..8].copy_from_slice(&checksum(&sample).to_le_bytes());
        identity[8..12].copy_from_slice(&(self.dimensions as u32).to_le_bytes());
        identity[12..].copy_from_slice(&(self.len() as u32).to_le_bytes());
        identity
    }
}

/// The graph of some vectors, and what it cost.
#[derive(Debug)]
pub struct SearchBenchmark<'a> {
    base: &'a Matrix,
    graph: GraphIndex,
    row: IndexRow,
}

/// What an index costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IndexRow {
    /// Vectors in it.
    pub vectors: usize,
    /// Processor time that it took to make; none if it was there.
    pub build_cpu_s: Option<f64>,
    /// Bytes of memory it takes for each vector, the full vectors not counted.
    pub bytes_per_vector_memory: f64,
    /// Bytes of its file for each vector.
    pub bytes_per_vector_disk: f64,
    /// Time to read it from its file, which was written or read just before.
    pub open_ms: f64,
}

/// What searches with one effort cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchRow {
    /// Vertices that each search expands.
    pub effort: usize,
    /// The part of the nearest that was found; none if they are not known.
    pub recall: Option<f64>,
    /// Queries for each second of processor time, of all threads.
    pub qps_cpu: f64,
    /// Queries a second by the clock.
    pub qps_wall: f64,
    /// Half of the queries took no longer.
    pub p50_us: f64,
    /// 99 of 100 took no longer.
    pub p99_us: f64,
    /// Vertices that a query expanded, on average.
    pub expanded: f64,
    /// Vectors that a query compared by their bytes, on average.
    pub compared: f64,
    /// Vectors that a query compared in full, on average.
    pub full: f64,
    /// What queries took, as [`SearchRow::p50_us`].
    pub quantiles: Vec<Quantile>,
}

/// What to ask.
#[derive(Clone, Copy, Debug)]
pub struct Questions<'a> {
    /// As long as the vectors.
    pub queries: &'a Matrix,
    /// Of each, the numbers of the nearest vectors: `[queries, limit]`.
    pub truth: Option<&'a [i32]>,
    /// How many are asked for.
    pub limit: usize,
    /// How often all are asked.
    pub passes_count: usize,
    /// Threads that share the queries.
    pub threads: NonZero<usize>,
}

impl<'a> SearchBenchmark<'a> {
    /// Opens the graph of these vectors at `path`, or makes it there.
    ///
    /// # Errors
    /// What building, writing and reading refuse, a file of another graph among it; what `progress`
    /// returns.
    pub fn prepare(
        base: &'a Matrix,
        path: &Path,
        options: GraphOptions,
        threads: NonZero<usize>,
        progress: &mut dyn FnMut(usize) -> op_dbus_engine::Result<()>,
    ) -> op_dbus_engine::Result<Self> {
        let identity = base.identity();
        let mut build_cpu_s = None;
        let is_there = path.try_exists().map_err(|error| unreadable(path, error))?;
        if !is_there {
            let dimensions = NonZero::new(base.dimensions).ok_or_else(no_vectors)?;
            let cpu = process_cpu();
            let graph = GraphIndex::build(&base.numbers, dimensions, options, threads, progress)?;
            build_cpu_s = Some((process_cpu() - cpu).as_secs_f64());
            graph.save(path, identity)?;
        }
        let started = Instant::now();
        let graph = GraphIndex::open(path, identity)?;
        let open_ms = started.elapsed().as_secs_f64() * 1e3;
        if (graph.options().metric, graph.options().profile) != (options.metric, options.profile) {
            let context = format!("{} has another metric or profile", path.display());
            return Err(Error::new(ErrorKind::Invalid, context)
                .with_remedy("name another directory, or remove it, so that it is made anew"));
        }
        let file_bytes = path.metadata().map_err(|error| unreadable(path, error))?.len();
        let row = IndexRow {
            vectors: graph.len(),
            build_cpu_s,
            bytes_per_vector_memory: graph.memory_bytes() as f64 / graph.len() as f64,
            bytes_per_vector_disk: file_bytes as f64 / graph.len() as f64,
            open_ms,
        };
        Ok(Self { base, graph, row })
    }

    /// What the index costs.
    #[must_use]
    pub fn index_row(&self) -> &IndexRow {
        &self.row
    }

    /// The effort that is to find this part of the nearest.
    #[must_use]
    pub fn effort_for(&self, recall: f64, limit: usize) -> usize {
        self.graph.effort_for(recall, limit)
    }

    /// Asks all questions; returns what that cost and, of the last pass, the numbers of what was
    /// found: `[queries, limit]`, with -1 where there is less.
    ///
    /// # Errors
    /// What a search refuses, and no queries at all.
    pub fn measure(
        &self,
        questions: &Questions<'_>,
        effort: usize,
    ) -> op_dbus_engine::Result<(SearchRow, Vec<i32>)> {
        if questions.queries.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, "there are no queries")
                .with_remedy("give a file with a row for each"));
        }
        let (cpu, wall) = (process_cpu(), Instant::now());
        let mut asked = Asked::default();
        for _ in 0..questions.passes_count {
            asked.join(self.pass(questions, effort)?);
        }
        let (cpu, wall) = (process_cpu() - cpu, wall.elapsed());
        let Asked { mut times_us, counts, ids } = asked;
        let count = times_us.len() as f64;
        let row = SearchRow {
            effort,
            recall: questions.truth.map(|truth| recall(&ids, truth, questions.limit)),
            qps_cpu: count / cpu.as_secs_f64(),
            qps_wall: count / wall.as_secs_f64(),
            p50_us: percentile(&mut times_us, 50),
            p99_us: percentile(&mut times_us, 99),
            expanded: counts[0] as f64 / count,
            compared: counts[1] as f64 / count,
            full: counts[2] as f64 / count,
            quantiles: of_microseconds(&times_us),
        };
        Ok((row, ids))
    }

    fn pass(&self, questions: &Questions<'_>, effort: usize) -> op_dbus_engine::Result<Asked> {
        let dimensions = questions.queries.dimensions.max(1);
        let part_len = questions.queries.len().div_ceil(questions.threads.get()).max(1);
        let mut parts = questions.queries.numbers.chunks(part_len * dimensions);
        let ask = |part: &[f32]| self.ask(part.chunks_exact(dimensions), questions.limit, effort);
        let Some(first) = parts.next() else { return Ok(Asked::default()) };
        std::thread::scope(|scope| {
            let others: Vec<_> = parts.map(|part| scope.spawn(move || ask(part))).collect();
            let mut asked = ask(first)?;
            for other in others {
                let more = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
                asked.times_us.extend(more.times_us);
                asked.ids.extend(more.ids);
                asked.add(more.counts);
            }
            Ok(asked)
        })
    }

    fn ask<'q>(
        &self,
        queries: impl Iterator<Item = &'q [f32]>,
        limit: usize,
        effort: usize,
    ) -> op_dbus_engine::Result<Asked> {
        let mut search = GraphSearch::default();
        let options = SearchOptions { limit, effort, filter: GraphFilter::All };
        let vectors = DenseVectors::new(&self.base.numbers, self.base.dimensions);
        let mut asked = Asked::default();
        for query in queries {
            let started = Instant::now();
            let found = self.graph.search(&mut search, query, &options, &vectors)?;
            asked.times_us.push(started.elapsed().as_secs_f64() * 1e6);
            let ids = found.iter().map(|Neighbour { id, .. }| *id as i32);
            asked.ids.extend(ids.chain(std::iter::repeat(-1)).take(limit));
        }
        let counts = search.counts();
        let compared = counts.compared + counts.scanned;
        asked.counts = [counts.expanded, compared, counts.full];
        Ok(asked)
    }
}

/// The quantiles of times in microseconds.
#[must_use]
pub fn of_microseconds(times_us: &[f64]) -> Vec<Quantile> {
    quantiles(&mut times_us.iter().map(|us| us * 1e3).collect::<Vec<_>>())
}

/// What was asked, and how long it took.
#[derive(Default)]
struct Asked {
    times_us: Vec<f64>,
    counts: [u64; 3],
    ids: Vec<i32>,
}

impl Asked {
    fn join(&mut self, pass: Self) {
        self.times_us.extend(pass.times_us);
        self.add(pass.counts);
        self.ids = pass.ids;
    }

    fn add(&mut self, counts: [u64; 3]) {
        self.counts.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
}

/// Finds the nearest by comparing all: the numbers of the nearest vectors of each query.
///
/// Shape of the answer: `[queries, limit]`, with -1 where there are fewer vectors.
#[must_use]
pub fn truth(base: &Matrix, queries: &Matrix, metric: Metric, limit: usize) -> Vec<i32> {
    let dimensions = base.dimensions.max(1);
    let square = |vector: &[f32]| (kernels().dot)(vector, vector);
    let squares: Vec<f32> = base.rows().map(square).collect();
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let part_len = queries.len().div_ceil(threads).max(1);
    let nearest_of = |queries: &[f32]| -> Vec<i32> {
        let mut nearest: Vec<Vec<(f32, i32)>> = vec![Vec::new(); queries.len() / dimensions];
        // A block of vectors stays in the cache for all queries.
        for (block, rows) in base.numbers.chunks(BLOCK_ROWS * dimensions).enumerate() {
            let mut values = vec![0.0; rows.len() / dimensions];
            for (query, nearest) in queries.chunks_exact(dimensions).zip(&mut nearest) {
                (kernels().dot_rows)(query, rows, &mut values);
                for (dot, id) in values.iter().zip(block * BLOCK_ROWS..) {
                    let near = match metric {
                        Metric::Dot => *dot,
                        Metric::Euclidean => 2.0 * dot - squares[id],
                        Metric::Cosine => dot / squares[id].sqrt().max(f32::MIN_POSITIVE),
                    };
                    nearest.push((near, id as i32));
                }
                nearest.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
                nearest.truncate(limit);
            }
        }
        let ids = |nearest: Vec<(f32, i32)>| {
            let ids = nearest.into_iter().map(|(_, id)| id);
            ids.chain(std::iter::repeat(-1)).take(limit).collect::<Vec<_>>()
        };
        nearest.into_iter().flat_map(ids).collect()
    };
    std::thread::scope(|scope| {
        let parts = queries.numbers.chunks(part_len * dimensions);
        let parts: Vec<_> = parts.map(|part| scope.spawn(|| nearest_of(part))).collect();
        let join = |part: std::thread::ScopedJoinHandle<'_, Vec<i32>>| {
            part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        parts.into_iter().flat_map(join).collect()
    })
}

/// Vectors that are compared with all queries before the next.
const BLOCK_ROWS: usize = 256;

/// The part of what should have been found that was.
fn recall(ids: &[i32], truth: &[i32], limit: usize) -> f64 {
    let limit = limit.max(1);
    let hits = |(found, expected): (&[i32], &[i32])| {
        expected.iter().filter(|id| **id >= 0 && found.contains(id)).count()
    };
    let hits_count: usize = ids.chunks(limit).zip(truth.chunks(limit)).map(hits).sum();
    hits_count as f64 / truth.iter().filter(|id| **id >= 0).count().max(1) as f64
}

fn unreadable(path: &Path, error: io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("cannot read {}", path.display())).with_source(error)
}

fn no_vectors() -> Error {
    Error::new(ErrorKind::Invalid, "there are no vectors")
}

#[cfg(test)]
mod tests {
    use op_dbus_engine::Profile;

    use super::*;

    fn matrix(count: usize) -> Matrix {
        let number = |index: usize| ((index * 2_654_435_761) % 1009) as f32 / 1009.0 - 0.5;
        let all: Vec<f32> = (0..count * 8).map(number).collect();
        let mut numbers = VectorBuffer::with_capacity(8, count).expect("memory");
        all.chunks(8).for_each(|vector| numbers.push(vector).expect("memory"));
        Matrix { dimensions: 8, numbers }
    }

    #[test]
    fn a_graph_is_made_once_and_asked() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("graph");
        let (base, queries) = (matrix(500), matrix(20));
        let one = NonZero::<usize>::MIN;
        for profile in Profile::ALL {
            for metric in [Metric::Cosine, Metric::Dot, Metric::Euclidean] {
                let options = GraphOptions { metric, profile, seed: 0 };
                let prepare = || {
                    SearchBenchmark::prepare(&base, &path, options, one, &mut |_| Ok(()))
                        .expect("a graph")
                };
                assert!(prepare().index_row().build_cpu_s.is_some());
                let benchmark = prepare();
                assert!(benchmark.index_row().build_cpu_s.is_none());
                let truth = truth(&base, &queries, metric, 10);
                let (queries, truth) = (&queries, Some(&truth[..]));
                let threads = NonZero::new(3).expect("three");
                let questions = Questions { queries, truth, limit: 10, passes_count: 2, threads };
                // So many are as good as all, which are compared without following links.
                for (effort, recall, are_all) in [(30, 0.8, false), (200, 0.999, true)] {
                    let (row, ids) = benchmark.measure(&questions, effort).expect("answers");
                    assert_eq!((ids.len(), row.expanded == 0.0), (200, are_all), "{row:?}");
                    assert!(row.recall > Some(recall) && row.compared > 0.0, "{row:?}");
                    assert!(row.p50_us > 0.0, "{row:?}");
                }
                std::fs::remove_file(&path).expect("a file");
            }
        }
    }

    #[test]
    fn a_graph_of_other_vectors_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("graph");
        let options = GraphOptions { metric: Metric::Dot, profile: Profile::Compact, seed: 0 };
        let prepare = |base: &Matrix, options| {
            SearchBenchmark::prepare(base, &path, options, NonZero::<usize>::MIN, &mut |_| Ok(()))
                .map(drop)
        };
        prepare(&matrix(50), options).expect("a graph");
        let others = prepare(&matrix(51), options).expect_err("other vectors");
        let other = GraphOptions { metric: Metric::Cosine, ..options };
        let metric = prepare(&matrix(50), other).expect_err("another metric");
        assert_eq!((others.kind(), metric.kind()), (ErrorKind::Invalid, ErrorKind::Invalid));
    }
}
