//! Nearest neighbours among vectors in memory: all of them, by comparing all, or most of them, by a
//! graph, which has invariants of its own.
//!
//! Invariants: an order by [`Scored::nearness`], then by key, is total, so equal
//! questions to equal contents have equal answers, in whatever order the vectors
//! came and however many threads look. No nearness is NaN. Nothing here reads a
//! file, knows where a vector is kept besides, or what a record says.

mod buffer;
mod exact;
mod graph;
mod rows;

pub use buffer::VectorBuffer;
pub(crate) use exact::ExactIndex;
pub use graph::{
    DenseVectors, FullVectors, GraphFilter, GraphIndex, GraphOptions, GraphSearch, Neighbour,
    Profile, SearchCounts, SearchOptions, SearchPlan, VertexSet,
};
pub(crate) use graph::{GraphParts, GraphPlan, Linking, Measured, Twin};

use op_dbus_formats::collection::Metric;
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

/// Says of a key whether an answer may hold it.
///
/// It is called for a vector only when that is near enough to enter the answer,
/// from several threads, in no promised order: it must depend on the key alone.
pub(crate) type Filter<'a> = &'a (dyn Fn(&[u8]) -> bool + Sync);

/// One vector of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scored {
    /// The vector's key.
    pub(crate) key: Arc<[u8]>,
    /// What answers are ordered by; larger is nearer under every metric.
    ///
    /// Units: the cosine of the angle, in −1 to 1; the dot product; the negative
    /// squared Euclidean distance, in the space's own unit squared. Infinite
    /// where the value is beyond `f32`.
    pub(crate) nearness: f32,
}

impl Scored {
    /// Returns the score for a reader, larger is better under every metric.
    ///
    /// Cosine and dot product are their own score. A Euclidean distance `d` has
    /// the score `1 / (1 + d²)`, which lies in 0 to 1 and is 1 for equal vectors.
    /// That rounds very near and very far vectors to the same score: order by
    /// [`Self::nearness`].
    ///
    /// Source: the scoring of `l2_norm` vectors in Apache Lucene.
    pub(crate) fn score(&self, metric: Metric) -> f32 {
        match metric {
            Metric::Cosine | Metric::Dot => self.nearness,
            Metric::Euclidean => 1.0 / (1.0 - self.nearness),
        }
    }
}

/// The nearest candidates seen so far, at most a fixed number of them.
struct Nearest<'a> {
    /// The worst candidate is on top.
    heap: BinaryHeap<Candidate<'a>>,
    limit: usize,
}

impl<'a> Nearest<'a> {
    /// `limit` is reserved at once: bound it by the number of candidates.
    fn new(limit: usize) -> Self {
        Self { heap: BinaryHeap::with_capacity(limit), limit }
    }

    /// Whether the candidate would be among the nearest.
    fn admits(&self, candidate: &Candidate<'_>) -> bool {
        self.heap.len() < self.limit || self.heap.peek().is_some_and(|worst| candidate < worst)
    }

    /// Takes a candidate that [`Self::admits`], in place of the worst if full.
    fn take(&mut self, candidate: Candidate<'a>) {
        if self.heap.len() < self.limit {
            self.heap.push(candidate);
        } else if let Some(mut worst) = self.heap.peek_mut() {
            *worst = candidate;
        }
    }

    /// Takes all that another has found.
    fn merge(&mut self, other: Self) {
        for candidate in other.heap {
            if self.admits(&candidate) {
                self.take(candidate);
            }
        }
    }

    /// Returns the candidates, nearest first.
    fn into_scored(self) -> Vec<Scored> {
        let scored = |candidate: Candidate<'_>| Scored {
            key: Arc::clone(candidate.key),
            nearness: candidate.nearness,
        };
        self.heap.into_sorted_vec().into_iter().map(scored).collect()
    }
}

/// A vector's place in the order of an answer; the nearest is the least.
#[derive(Clone, Copy)]
struct Candidate<'a> {
    nearness: f32,
    key: &'a Arc<[u8]>,
}

impl Ord for Candidate<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.nearness.total_cmp(&self.nearness).then_with(|| self.key.cmp(other.key))
    }
}

impl PartialOrd for Candidate<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Candidate<'_> {}
