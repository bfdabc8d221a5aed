//! How fast counters grow: the difference of two measurements by the time between them.

use std::time::Instant;

use op_dbus_daemon::Traffic;
use op_dbus_engine::Activity;
use serde::Serialize;

/// A measurement.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(crate) activity: Activity,
    /// Calls of the service, if that was asked.
    pub(crate) traffic: Option<Traffic>,
    pub(crate) taken: Instant,
}

/// What happened in a second, between two measurements.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Rates {
    /// The time between them.
    pub(crate) seconds: f64,
    /// Committed mutations.
    pub(crate) changes: f64,
    /// Lookups of embeddings that found them, and that did not.
    pub(crate) hits: f64,
    pub(crate) misses: f64,
    /// Vectors that were asked for and hot, and that were not.
    pub(crate) tier_hits: f64,
    pub(crate) tier_misses: f64,
    pub(crate) promotions: f64,
    /// Vectors that left memory to make room.
    pub(crate) evictions: f64,
    /// Embeddings that were removed from the disk to make room.
    pub(crate) evictions_disk: f64,
    pub(crate) queries: f64,
    /// Latencies of the queries in between; none without any.
    pub(crate) p50_us: Option<u64>,
    pub(crate) p99_us: Option<u64>,
    /// Calls that the service answered and refused; none if it was not asked.
    pub(crate) answered: Option<f64>,
    pub(crate) refused: Option<f64>,
}

impl Rates {
    pub(crate) fn between(before: &Reading, now: &Reading) -> Self {
        let seconds = now.taken.duration_since(before.taken).as_secs_f64().max(1e-9);
        // A service that began anew counts from 0.
        let rate = |before: u64, now: u64| now.saturating_sub(before) as f64 / seconds;
        let (earlier, later) = (&before.activity, &now.activity);
        let (cache_before, cache) = (&earlier.cache, &later.cache);
        let (tier_before, tier) = (&cache_before.tier, &cache.tier);
        let queries = later.queries.since(&earlier.queries);
        let calls = |count: fn(&Traffic) -> u64| {
            let (before, now) = (before.traffic.as_ref()?, now.traffic.as_ref()?);
            Some(rate(count(before), count(now)))
        };
        Self {
            seconds,
            changes: rate(earlier.sequence, later.sequence),
            hits: rate(cache_before.hits, cache.hits),
            misses: rate(cache_before.misses, cache.misses),
            tier_hits: rate(tier_before.hits, tier.hits),
            tier_misses: rate(tier_before.misses, tier.misses),
            promotions: rate(tier_before.promotions, tier.promotions),
            evictions: rate(tier_before.evictions.capacity, tier.evictions.capacity),
            evictions_disk: rate(cache_before.evictions_disk, cache.evictions_disk),
            queries: queries.count as f64 / seconds,
            p50_us: queries.p50_us,
            p99_us: queries.p99_us,
            answered: calls(|traffic| traffic.answered),
            refused: calls(|traffic| traffic.refused),
        }
    }

    /// The part of lookups of embeddings that found them; none without any.
    pub(crate) fn hit_rate(&self) -> Option<f64> {
        part(self.hits, self.misses)
    }

    /// The part of vectors asked for that were hot; none without any.
    pub(crate) fn tier_hit_rate(&self) -> Option<f64> {
        part(self.tier_hits, self.tier_misses)
    }
}

fn part(hits: f64, misses: f64) -> Option<f64> {
    (hits + misses > 0.0).then(|| hits / (hits + misses))
}
