//! The exact answer: all vectors that may be in it are compared by their bytes, and in full those of
//! which bytes do not prove that they are too far.
//!
//! With `e` the length of what bytes lose of a vector, distances by bytes differ from those in full
//! by at most the `e` of the one and of the other. So with `t` such that as many vectors as asked for
//! are certainly not farther, one whose distance less both `e` is more than `t` is none of them.

use std::collections::BinaryHeap;

use super::filter::GraphFilter;
use super::rows::{LIVE, TWIN};
use super::traverse::{Near, Scratch};
use super::view::{RowsView, Vertex};

/// Vectors that are fetched while as many are compared.
const FETCHED_COUNT: usize = 16;
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

impl Scratch {
    /// Finds all vectors that may be among the `limit` nearest to the prepared query.
    pub(super) fn scan(&mut self, rows: RowsView<'_>, limit: usize, filter: &GraphFilter<'_>) {
        self.found.clear();
        let lost = self.query.lost();
        let mut scan = Scan { limit, lost, nearest: BinaryHeap::new(), found: Vec::new() };
        let (mut ahead, mut batch) = (Vec::new(), Vec::new());
        let mut compare = |batch: &[u32]| {
            self.counts.scanned += batch.len() as u64;
            for id in batch.iter().filter(|id| rows.is_ready(**id)) {
                let vertex = rows.vertex(*id);
                if matches!(vertex.header.state, LIVE | TWIN) {
                    let distance = vertex.distance(&self.query.quantized);
                    scan.take(*id, distance, &vertex);
                }
            }
        };
        let all = 0..rows.len() as u32;
        let ids: &mut dyn Iterator<Item = u32> = match filter {
            GraphFilter::All => &mut all.clone(),
            GraphFilter::Among(set) => &mut set.iter().take_while(|id| all.contains(id)),
            GraphFilter::Where(passes) => &mut all.clone().filter(|id| passes(*id)),
        };
        for id in ids {
            rows.prefetch_vertex(id);
            ahead.push(id);
            if ahead.len() == FETCHED_COUNT {
                compare(&batch);
                std::mem::swap(&mut ahead, &mut batch);
                ahead.clear();
            }
        }
        compare(&batch);
        compare(&ahead);
        let Scan { nearest, found, .. } = scan;
        let enough = nearest.peek().filter(|_| nearest.len() == limit);
        let threshold = enough.map_or(f32::INFINITY, |bound| bound.0);
        let may_be = |found: &Scanned| found.least <= threshold;
        self.found.extend(found.iter().filter(|found| may_be(found)).map(|found| found.near));
    }
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
}

impl Scan {
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

impl super::query::PreparedQuery {
    /// As of a vertex, but measured.
    fn lost(&self) -> f32 {
        let numbers = self.quantized.numbers();
        let squares: f32 = self.rotated.iter().zip(numbers).map(|(x, y)| (x - y) * (x - y)).sum();
        (1.0 + ROUNDED_PART) * squares.sqrt()
            + ROUNDED_PART * self.quantized.header.norm_squared.sqrt()
    }
}
