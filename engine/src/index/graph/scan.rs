//! The exact answer: all vectors that may be in it are compared by their bytes, and in full those of
//! which bytes do not prove that they are too far.
//!
//! With `e` the length of what bytes lose of a vector, distances by bytes differ from those in full
//! by at most the `e` of the one and of the other. So with `t` such that as many vectors as asked for
//! are certainly not farther, one whose distance less both `e` is more than `t` is none of them.

use std::collections::BinaryHeap;
use std::num::NonZero;
use std::ops::Range;

use super::filter::GraphFilter;
use super::query::PreparedQuery;
use super::rows::{LIVE, TWIN};
use super::traverse::{Near, Scratch};
use super::view::{RowsView, Vertex};
use crate::os::threads::in_parts;

/// Vectors that are fetched while as many are compared.
const FETCHED_COUNT: usize = 16;
/// Vectors that are worth a thread.
const THREAD_COUNT: usize = 4096;
/// What rounding adds to a distance at most, as a part of the norms: rotations and sums of `f32`.
const ROUNDED_PART: f32 = 1e-5;

/// A distance that is never NaN.
#[derive(Clone, Copy, PartialEq)]
struct Bound(f32);

impl Eq for Bound {}

impl Ord for Bound {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Bound {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Ids, in order.
type Ids<'a> = &'a mut dyn Iterator<Item = u32>;

impl Scratch {
    /// Finds all vectors that may be among the `limit` nearest to the prepared query, on at most so many
    /// threads. What is found does not depend on their number, nor what a predicate is asked, which one
    /// thread does.
    pub(super) fn scan(
        &mut self,
        rows: RowsView<'_>,
        limit: usize,
        filter: &GraphFilter<'_>,
        threads: NonZero<usize>,
    ) {
        let query = &self.query;
        let scan = |ids: Ids<'_>| Scan::new(limit, query.lost()).over(rows, query, ids);
        let all = 0..rows.len() as u32;
        let scans = match filter {
            GraphFilter::All => in_parts(&parts(&all, all.len(), threads), threads, |ids, ()| {
                scan(&mut populated(rows, ids.clone()))
            }),
            GraphFilter::Among(set) => {
                in_parts(&parts(&all, set.len(), threads), threads, |ids, ()| {
                    let from_start = set.iter().skip_while(|id| *id < ids.start);
                    scan(&mut from_start.take_while(|id| *id < ids.end))
                })
            }
            GraphFilter::Where(passes) => vec![scan(&mut all.filter(|id| passes(*id)))],
        };
        let scanned_count: u64 = scans.iter().map(|scan| scan.compared_count).sum();
        self.counts.scanned += scanned_count;
        keep_possible(scans, limit, &mut self.found);
    }
}

/// Splits rows, of which some are compared, among threads that are worth starting.
fn parts(all: &Range<u32>, compared_count: usize, threads: NonZero<usize>) -> Vec<Range<u32>> {
    let parts_count = (compared_count / THREAD_COUNT).clamp(1, threads.get());
    let step = all.len().div_ceil(parts_count).max(1);
    all.clone().step_by(step).map(|id| id..all.end.min(id.saturating_add(step as u32))).collect()
}

/// Brings in rows before they are read, some at a time.
fn populated(rows: RowsView<'_>, ids: Range<u32>) -> impl Iterator<Item = u32> {
    let mut populated_end = ids.start;
    ids.inspect(move |id| {
        if *id == populated_end {
            populated_end = rows.populate(*id);
        }
    })
}

/// Keeps of what scans of several parts have found what may be among the nearest of all.
fn keep_possible(scans: Vec<Scan>, limit: usize, found: &mut Vec<Near>) {
    let mut nearest: Vec<Bound> =
        scans.iter().flat_map(|scan| scan.nearest.iter().copied()).collect();
    nearest.sort_unstable();
    let threshold = match limit.checked_sub(1) {
        Some(last) => nearest.get(last).map_or(f32::INFINITY, |bound| bound.0),
        None => f32::NEG_INFINITY,
    };
    let may_be = |scanned: &&Scanned| scanned.least <= threshold;
    found.clear();
    found.extend(scans.iter().flat_map(|scan| &scan.found).filter(may_be).map(|it| it.near));
}

struct Scanned {
    near: Near,
    /// It is not nearer than this.
    least: f32,
}

struct Scan {
    limit: usize,
    /// What bytes lose of the query.
    lost: f32,
    /// The least distances that the nearest so far certainly do not exceed.
    nearest: BinaryHeap<Bound>,
    found: Vec<Scanned>,
    compared_count: u64,
}

impl Scan {
    fn new(limit: usize, lost: f32) -> Self {
        let (nearest, found) = (BinaryHeap::new(), Vec::new());
        Self { limit, lost, nearest, found, compared_count: 0 }
    }

    /// Compares vectors with the query, and fetches some while it compares others.
    fn over(mut self, rows: RowsView<'_>, query: &PreparedQuery, ids: Ids<'_>) -> Self {
        let (mut ahead, mut batch) = (Vec::new(), Vec::new());
        for id in ids {
            rows.prefetch_vertex(id);
            ahead.push(id);
            if ahead.len() == FETCHED_COUNT {
                self.compare(rows, query, &batch);
                std::mem::swap(&mut ahead, &mut batch);
                ahead.clear();
            }
        }
        self.compare(rows, query, &batch);
        self.compare(rows, query, &ahead);
        self
    }

    fn compare(&mut self, rows: RowsView<'_>, query: &PreparedQuery, batch: &[u32]) {
        self.compared_count += batch.len() as u64;
        for id in batch.iter().filter(|id| rows.is_ready(**id)) {
            let vertex = rows.vertex(*id);
            if matches!(vertex.header.state, LIVE | TWIN) {
                self.take(*id, vertex.distance(&query.quantized), &vertex);
            }
        }
    }

    #[inline]
    fn take(&mut self, id: u32, squared: f32, vertex: &Vertex<'_>) {
        let lost = self.lost + vertex.lost();
        let threshold = match self.nearest.peek() {
            Some(farthest) if self.nearest.len() == self.limit => farthest.0 + lost,
            _ => f32::INFINITY,
        };
        if squared > threshold * threshold || self.limit == 0 {
            return;
        }
        let distance = squared.sqrt();
        self.nearest.push(Bound(distance + lost));
        if self.nearest.len() > self.limit {
            self.nearest.pop();
        }
        self.found.push(Scanned { near: Near { distance: squared, id }, least: distance - lost });
    }
}

impl Vertex<'_> {
    /// How far what its bytes stand for is from the vector at most.
    #[inline]
    fn lost(&self) -> f32 {
        // Half a step in each direction.
        let rounded = ROUNDED_PART * self.header.norm_squared.sqrt();
        let len = 2 * self.planes.upper.len();
        self.header.scale * 0.5 * (len as f32).sqrt() + rounded
    }
}

impl PreparedQuery {
    /// As of a vertex, but measured.
    fn lost(&self) -> f32 {
        let numbers = self.quantized.numbers();
        let squares: f32 = self.rotated.iter().zip(numbers).map(|(x, y)| (x - y) * (x - y)).sum();
        (1.0 + ROUNDED_PART) * squares.sqrt()
            + ROUNDED_PART * self.quantized.header.norm_squared.sqrt()
    }
}
