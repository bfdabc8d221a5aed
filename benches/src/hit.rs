//! What a hit costs: one engine a row, all in the same run.

use std::hint::black_box;
use std::io;
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::engine::{Copied, Engine, Reader, Room, fill, open, verify};
use crate::latency::{Quantile, quantiles, time_each};
#[cfg(feature = "lmdb")]
use crate::lmdb::Lmdb;
use crate::memory::Array;
use crate::ours::Ours;
use crate::traffic::{DIMENSIONS, VALUE_BYTES, zipf};

/// Zipf's exponent: that of the YCSB core workloads (Cooper et al., SoCC 2010).
const EXPONENT: f64 = 0.99;
const ROUNDS_COUNT: usize = 7;

/// What to measure.
#[derive(Clone, Debug)]
pub struct HitBenchmark {
    /// Vectors in each engine, of 1,536 bytes.
    pub keys_count: u32,
    /// Lookups in each round, by Zipf's law with exponent 0.99.
    pub lookups_count: usize,
    /// Threads that look up at the same time: a row for each number.
    pub threads_counts: Vec<usize>,
}

/// One engine's figures: medians of the rounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HitRow {
    /// Which engine, and whether the vector was borrowed or copied.
    pub engine: String,
    /// Vectors in it.
    pub keys: u32,
    /// Threads that looked up at the same time.
    pub threads: usize,
    /// Half of the lookups took no longer, the time to read the clock taken off.
    pub p50_ns: f64,
    /// 99 of 100 took no longer.
    pub p99_ns: f64,
    /// Processor time of one lookup, measured over a whole round.
    pub cpu_ns: f64,
    /// Lookups a second, all threads together, by the wall clock.
    pub lookups_per_second: f64,
    /// What lookups took, as [`HitRow::p50_ns`].
    pub quantiles: Vec<Quantile>,
}

/// Hears what is being done, and may end it.
pub type Step<'a> = &'a mut dyn FnMut(&str) -> io::Result<()>;

/// Looks keys up and answers with something of the values, so that they must have been read.
type Lookup<'a> = Box<dyn Fn(&[u32], &mut Copied) -> u64 + Sync + 'a>;

/// One row's way to look up.
pub(crate) struct Contestant<'a> {
    name: &'static str,
    lookup: Lookup<'a>,
}

impl<'a> Contestant<'a> {
    /// One that looks at the ends of a value where it lies.
    pub(crate) fn borrowed(name: &'static str, reader: &'a impl Reader) -> Self {
        let ends = |bytes: &[u8]| u64::from(bytes[0]) + u64::from(bytes[VALUE_BYTES - 1]);
        let lookup = move |indexes: &[u32], _: &mut Copied| {
            indexes.iter().map(|&index| reader.get(index, ends).expect("it was verified")).sum()
        };
        Self { name, lookup: Box::new(lookup) }
    }

    /// One that wants a value for itself.
    pub(crate) fn copied(name: &'static str, reader: &'a impl Reader) -> Self {
        let lookup = move |indexes: &[u32], out: &mut Copied| {
            let get = |&index: &u32| {
                reader.copy(index, out).expect("it was verified");
                u64::from(black_box(&*out)[0].to_bits())
            };
            indexes.iter().map(get).sum()
        };
        Self { name, lookup: Box::new(lookup) }
    }
}

impl HitBenchmark {
    /// Fills the engines in `directory`, which is empty, and measures them.
    ///
    /// `step` hears what is being done, and ends it with an error.
    ///
    /// # Errors
    /// Those of the disk and of the engines; [`io::ErrorKind::InvalidData`] if one of them answers
    /// with another vector than it was given.
    pub fn run(&self, directory: &Path, step: Step<'_>) -> io::Result<Vec<HitRow>> {
        let keys_count = self.keys_count;
        let room = Room::ForAll(keys_count);
        let ours = open::<Ours>(directory, room)?;
        fill(&ours, keys_count, step)?;
        step("verifying what the store answers")?;
        let vectors = ours.reader()?;
        verify(&vectors, keys_count)?;
        ours.heat(keys_count)?;
        let array = Array::fill(keys_count);
        let contestants = vec![
            Contestant::borrowed("op-dbus borrowed", &vectors),
            Contestant::copied("op-dbus copied", &vectors),
            Contestant::copied("memcpy", &array),
        ];
        #[cfg(feature = "lmdb")]
        let lmdb = open::<Lmdb>(directory, room)?;
        #[cfg(feature = "lmdb")]
        let values = lmdb.reader()?;
        #[cfg(feature = "lmdb")]
        let contestants = {
            fill(&lmdb, keys_count, step)?;
            verify(&values, keys_count)?;
            let lmdb = [
                Contestant::borrowed("LMDB borrowed", &values),
                Contestant::copied("LMDB copied", &values),
            ];
            contestants.into_iter().chain(lmdb).collect::<Vec<_>>()
        };
        self.measure(&contestants, step)
    }

    /// Lets the contestants take turns, a round each.
    pub(crate) fn measure(
        &self,
        contestants: &[Contestant<'_>],
        step: Step<'_>,
    ) -> io::Result<Vec<HitRow>> {
        let mut rows = Vec::new();
        for &threads in &self.threads_counts {
            let mut rounds = vec![Vec::new(); contestants.len()];
            for round in 0..ROUNDS_COUNT {
                step(&format!("{threads} threads, round {} of {ROUNDS_COUNT}", round + 1))?;
                for (contestant, rounds) in contestants.iter().zip(&mut rounds) {
                    rounds.push(self.round(&contestant.lookup, threads, round as u64));
                }
            }
            rows.extend(contestants.iter().zip(rounds).map(|(contestant, rounds)| {
                let figure = |of: fn(&Round) -> f64| median(rounds.iter().map(of).collect());
                HitRow {
                    engine: contestant.name.to_owned(),
                    keys: self.keys_count,
                    threads,
                    p50_ns: figure(|round| round.p50_ns),
                    p99_ns: figure(|round| round.p99_ns),
                    cpu_ns: figure(|round| round.cpu_ns),
                    lookups_per_second: figure(|round| round.lookups_per_second),
                    quantiles: medians(&rounds),
                }
            }));
        }
        Ok(rows)
    }

    /// One engine's turn: all lookups at once for processor time, then one by one for quantiles.
    fn round(&self, lookup: &Lookup<'_>, threads: usize, round: u64) -> Round {
        let barrier = Barrier::new(threads);
        let one = |thread: usize| {
            let seed = round * 1000 + thread as u64;
            let indexes = zipf(self.keys_count, self.lookups_count, EXPONENT, seed);
            let mut out = [0.0; DIMENSIONS];
            barrier.wait();
            let (wall, cpu) = (Instant::now(), thread_cpu());
            black_box(lookup(&indexes, &mut out));
            let (cpu, wall) = (thread_cpu() - cpu, wall.elapsed());
            barrier.wait();
            let mut nanos =
                time_each(&indexes, |index| lookup(std::slice::from_ref(index), &mut out));
            let count = indexes.len() as f64;
            Round {
                p50_ns: percentile(&mut nanos, 50),
                p99_ns: percentile(&mut nanos, 99),
                quantiles: quantiles(&mut nanos),
                cpu_ns: cpu.as_nanos() as f64 / count,
                lookups_per_second: count / wall.as_secs_f64(),
            }
        };
        let of_threads: Vec<Round> = std::thread::scope(|scope| {
            let one = &one;
            let spawned: Vec<_> =
                (0..threads).map(|thread| scope.spawn(move || one(thread))).collect();
            spawned.into_iter().map(|thread| thread.join().expect("lookups do not panic")).collect()
        });
        let figure = |of: fn(&Round) -> f64| median(of_threads.iter().map(of).collect());
        Round {
            p50_ns: figure(|round| round.p50_ns),
            p99_ns: figure(|round| round.p99_ns),
            cpu_ns: figure(|round| round.cpu_ns),
            lookups_per_second: of_threads.iter().map(|round| round.lookups_per_second).sum(),
            quantiles: medians(&of_threads),
        }
    }
}

#[derive(Clone)]
struct Round {
    p50_ns: f64,
    p99_ns: f64,
    cpu_ns: f64,
    lookups_per_second: f64,
    quantiles: Vec<Quantile>,
}

/// The median of each quantile.
fn medians(rounds: &[Round]) -> Vec<Quantile> {
    let Some(first) = rounds.first() else { return Vec::new() };
    let at = |place: usize| {
        let found = rounds.iter().filter_map(|round| round.quantiles.get(place));
        median(found.map(|quantile| quantile.ns).collect())
    };
    let places = first.quantiles.iter().enumerate();
    places.map(|(place, quantile)| Quantile { ns: at(place), ..*quantile }).collect()
}

/// The figure that `percent` of all do not exceed.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn percentile(figures: &mut [f64], percent: usize) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    figures[(figures.len() * percent / 100).min(figures.len() - 1)]
}

pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    percentile(&mut figures, 50)
}

/// Processor time that this thread has taken.
pub(crate) fn thread_cpu() -> Duration {
    clock(ClockId::ThreadCPUTime)
}

/// Processor time that all threads of this process have taken.
pub fn process_cpu() -> Duration {
    clock(ClockId::ProcessCPUTime)
}

fn clock(id: ClockId) -> Duration {
    let time = clock_gettime(id);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
