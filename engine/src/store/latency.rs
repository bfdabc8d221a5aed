//! How long queries took: counts in buckets of microseconds, a sixteenth of their lower bound wide.
//!
//! Noting one is two atomic additions, beside a query of ten microseconds at least. Nothing is ever
//! taken out: whoever wants to know about a minute subtracts what there was a minute ago.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Buckets of each power of two, as a power of two.
const PARTS_LOG2: u32 = 4;
const PARTS: u64 = 1 << PARTS_LOG2;
/// Whatever takes longer, more than an hour, counts as this long.
const MICROS_MAX: u64 = u32::MAX as u64;
const BUCKETS_COUNT: usize = bucket(MICROS_MAX) + 1;

/// How many queries there were, and how long they took.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryStats {
    /// Queries that were answered since the store was opened.
    pub count: u64,
    /// Half of them took no longer; `None` without any. It is up to a sixteenth too much, as all here.
    pub p50_us: Option<u64>,
    /// All but the slowest hundredth took no longer.
    pub p99_us: Option<u64>,
    /// How long all of them took together.
    #[serde(default)]
    pub total_us: u64,
    /// How many took so many microseconds at most, and longer than those before.
    pub latencies_us: Vec<(u64, u64)>,
}

impl QueryStats {
    fn new(latencies_us: Vec<(u64, u64)>, total_us: u64) -> Self {
        let count: u64 = latencies_us.iter().map(|(_, count)| count).sum();
        let at_most = |percent: u64| {
            let wanted = (count * percent).div_ceil(100);
            let mut seen = 0;
            let reached = latencies_us.iter().find(|(_, count)| {
                seen += count;
                seen >= wanted
            });
            reached.map(|(micros, _)| *micros)
        };
        Self { count, p50_us: at_most(50), p99_us: at_most(99), total_us, latencies_us }
    }

    /// Those queries of these that were not among the earlier ones.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let counted = |(micros, count): &(u64, u64)| {
            let before = earlier.latencies_us.iter().find(|(known, _)| known == micros);
            let count = count.saturating_sub(before.map_or(0, |(_, count)| *count));
            (count > 0).then_some((*micros, count))
        };
        let total_us = self.total_us.saturating_sub(earlier.total_us);
        Self::new(self.latencies_us.iter().filter_map(counted).collect(), total_us)
    }
}

/// Counts as queries end, on any thread.
pub(super) struct Latencies {
    buckets: Box<[AtomicU64]>,
    total_us: AtomicU64,
}

impl Default for Latencies {
    fn default() -> Self {
        let buckets = (0..BUCKETS_COUNT).map(|_| AtomicU64::new(0)).collect();
        Self { buckets, total_us: AtomicU64::new(0) }
    }
}

impl Latencies {
    pub(super) fn note(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(MICROS_MAX).min(MICROS_MAX);
        self.buckets[bucket(micros)].fetch_add(1, Ordering::Relaxed);
        self.total_us.fetch_add(micros, Ordering::Relaxed);
    }

    pub(super) fn stats(&self) -> QueryStats {
        let counted = |(bucket, count): (usize, &AtomicU64)| {
            let count = count.load(Ordering::Relaxed);
            (count > 0).then(|| (longest(bucket), count))
        };
        let counts = self.buckets.iter().enumerate().filter_map(counted).collect();
        QueryStats::new(counts, self.total_us.load(Ordering::Relaxed))
    }
}

/// The bucket of so many microseconds.
const fn bucket(micros: u64) -> usize {
    if micros < PARTS {
        return micros as usize;
    }
    let shift = micros.ilog2() - PARTS_LOG2;
    (shift as u64 * PARTS + (micros >> shift)) as usize
}

/// The most microseconds that are in a bucket.
const fn longest(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < PARTS {
        return bucket;
    }
    let shift = bucket / PARTS - 1;
    ((PARTS + bucket % PARTS + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_is_in_a_bucket_that_is_little_longer() {
        let mut before = None;
        for bucket_number in 0..BUCKETS_COUNT {
            let most = longest(bucket_number);
            assert_eq!(bucket(most), bucket_number);
            let least = before.map_or(0, |before: u64| before + 1);
            assert_eq!(bucket(least), bucket_number);
            assert!(most - least <= least / PARTS, "{least} to {most}");
            before = Some(most);
        }
        assert_eq!(before, Some(MICROS_MAX));
    }

    #[test]
    fn percentiles_are_those_of_what_was_noted() {
        let latencies = Latencies::default();
        assert_eq!(latencies.stats(), QueryStats::default());
        (1..=98).for_each(|_| latencies.note(Duration::from_micros(10)));
        latencies.note(Duration::from_micros(1000));
        let earlier = latencies.stats();
        assert_eq!((earlier.count, earlier.p50_us, earlier.p99_us), (99, Some(10), Some(1023)));
        latencies.note(Duration::from_secs(1 << 40));
        let all = latencies.stats();
        assert_eq!((all.count, all.p99_us), (100, Some(1023)));
        let later = all.since(&earlier);
        assert_eq!((later.count, later.p50_us), (1, Some(MICROS_MAX)));
        assert_eq!((earlier.total_us, later.total_us), (98 * 10 + 1000, MICROS_MAX));
    }
}
