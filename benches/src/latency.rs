//! How long many things took: a few of the quantiles, down the tail.

use std::hint::black_box;
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// Of how many of a hundred it is told how long they took at most. Each step is half of what is
/// left, or a little less.
const PERCENTS: [f64; 11] = [0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99];

/// What so many of a hundred do not exceed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantile {
    /// So many of a hundred.
    pub percent: f64,
    /// The time, in nanoseconds.
    pub ns: f64,
}

/// The quantiles of some times, as far into the tail as there are times beyond.
#[must_use]
pub fn quantiles(times_ns: &mut [f64]) -> Vec<Quantile> {
    times_ns.sort_unstable_by(f64::total_cmp);
    let count = times_ns.len();
    let at = |percent: f64| (count as f64 * percent / 100.0) as usize;
    let has_tail = |percent: f64| percent <= 50.0 || count as f64 * (100.0 - percent) > 99.9;
    let known = PERCENTS.into_iter().filter(|percent| count > 0 && has_tail(*percent));
    known.map(|percent| Quantile { percent, ns: times_ns[at(percent).min(count - 1)] }).collect()
}

/// Times each of some things by itself, in nanoseconds, the time to read the clock taken off.
pub fn time_each<T>(things: &[T], mut each: impl FnMut(&T) -> u64) -> Vec<f64> {
    let mut empty = time_raw(things, |_| 0);
    let clock = crate::hit::percentile(&mut empty, 50);
    let mut times = time_raw(things, &mut each);
    times.iter_mut().for_each(|time| *time = (*time - clock).max(0.0));
    times
}

fn time_raw<T>(things: &[T], mut each: impl FnMut(&T) -> u64) -> Vec<f64> {
    let time = |thing| {
        let started = Instant::now();
        black_box(each(thing));
        started.elapsed().as_nanos() as f64
    };
    things.iter().map(time).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_go_as_far_as_there_are_times() {
        let mut times: Vec<f64> = (0..1000).rev().map(f64::from).collect();
        let found = quantiles(&mut times);
        let pairs: Vec<(f64, f64)> = found.iter().map(|found| (found.percent, found.ns)).collect();
        assert_eq!(pairs[..3], [(0.0, 0.0), (25.0, 250.0), (50.0, 500.0)]);
        assert_eq!(pairs.last(), Some(&(99.9, 999.0)));
        let few: Vec<f64> = quantiles(&mut [3.0, 1.0]).iter().map(|found| found.ns).collect();
        assert_eq!(few, [1.0, 1.0, 3.0]);
        assert_eq!(quantiles(&mut []), []);
    }
}
