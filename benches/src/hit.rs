//! What a hit costs: one engine a row, all in the same run.

use std::hint::black_box;
use std::io;
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::memory::Array;
use crate::ours;
use crate::traffic::{DIMENSIONS, fill_vector, key, zipf};

/// Zipf's exponent: that of the YCSB core workloads (Cooper et al., SoCC 2010).
const EXPONENT: f64 = 0.99;
const ROUNDS_COUNT: usize = 7;
/// Keys whose whole vectors are compared before anything is measured.
const VERIFIED_COUNT: usize = 10_000;

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
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HitRow {
    /// Which engine, and whether the vector was borrowed or copied.
    pub engine: &'static str,
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
}

/// Looks keys up and answers with something of the value, so that it must have been read.
type Lookup<'a> = &'a (dyn Fn(&[u32], &mut [f32]) -> f32 + Sync);

/// Hears what is being done, and may end it.
pub type Step<'a> = &'a mut dyn FnMut(&str) -> io::Result<()>;

struct Engine<'a> {
    name: &'static str,
    lookup: Lookup<'a>,
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
        let (ours_path, other_path) = (directory.join("ours"), directory.join("lmdb"));
        let store = ours::fill(&ours_path, keys_count, step)?;
        let vectors = ours::vectors(&store).map_err(io::Error::other)?;
        let array = Array::fill(keys_count);
        let borrowed = |indexes: &[u32], _: &mut [f32]| {
            let get = |&index: &u32| {
                let vector = vectors.get(&key(index)).ok().flatten().expect("it was verified");
                vector[0] + vector[DIMENSIONS - 1]
            };
            indexes.iter().map(get).sum()
        };
        let copied = |indexes: &[u32], out: &mut [f32]| {
            let get = |&index: &u32| {
                let vector = vectors.get(&key(index)).ok().flatten().expect("it was verified");
                out.copy_from_slice(&vector);
                black_box(&*out)[0]
            };
            indexes.iter().map(get).sum()
        };
        let memcpy = |indexes: &[u32], out: &mut [f32]| {
            let get = |&index: &u32| {
                out.copy_from_slice(array.get(index));
                black_box(&*out)[0]
            };
            indexes.iter().map(get).sum()
        };
        let mut engines = vec![
            Engine { name: "op-dbus borrowed", lookup: &borrowed },
            Engine { name: "op-dbus copied", lookup: &copied },
            Engine { name: "memcpy", lookup: &memcpy },
        ];
        step("verifying what the store answers")?;
        self.verify(|index, out| {
            let found = vectors.get(&key(index)).map_err(io::Error::other)?;
            let found = found.ok_or_else(|| io::Error::other(format!("key {index} is lost")))?;
            if !found.is_hot() {
                return Err(io::Error::other(format!("key {index} is not hot")));
            }
            out.copy_from_slice(&found);
            Ok(())
        })?;
        #[cfg(feature = "rivals")]
        {
            step(&format!("filling LMDB with {keys_count} vectors"))?;
            std::fs::create_dir(&other_path)?;
            let environment = crate::lmdb::Environment::open(&other_path)?;
            let lmdb = crate::lmdb::Lmdb::fill(&environment, keys_count)?;
            let first_and_last = |bytes: &[u8]| {
                let float =
                    |at: usize| bytes.as_chunks().0.get(at).copied().map(f32::from_le_bytes);
                float(0).unwrap_or(0.0) + float(DIMENSIONS - 1).unwrap_or(0.0)
            };
            let copy = |bytes: &[u8], out: &mut [f32]| {
                for (element, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                    *element = f32::from_le_bytes(*bytes);
                }
            };
            self.verify(|index, out| lmdb.get(index, |bytes| copy(bytes, out)))?;
            let lmdb_borrowed = |indexes: &[u32], _: &mut [f32]| {
                let get = |&index: &u32| lmdb.get(index, first_and_last).expect("it was verified");
                indexes.iter().map(get).sum()
            };
            let lmdb_copied = |indexes: &[u32], out: &mut [f32]| {
                let get = |&index: &u32| {
                    lmdb.get(index, |bytes| copy(bytes, out)).expect("it was verified");
                    black_box(&*out)[0]
                };
                indexes.iter().map(get).sum()
            };
            engines.push(Engine { name: "LMDB borrowed", lookup: &lmdb_borrowed });
            engines.push(Engine { name: "LMDB copied", lookup: &lmdb_copied });
            self.measure(&engines, step)
        }
        #[cfg(not(feature = "rivals"))]
        {
            let _ = other_path;
            self.measure(&engines, step)
        }
    }

    /// Compares whole vectors.
    fn verify(&self, mut read: impl FnMut(u32, &mut [f32]) -> io::Result<()>) -> io::Result<()> {
        let (mut found, mut expected) = (vec![0.0; DIMENSIONS], vec![0.0; DIMENSIONS]);
        let step = (self.keys_count as usize / VERIFIED_COUNT).max(1);
        for index in (0..self.keys_count).step_by(step) {
            read(index, &mut found)?;
            fill_vector(index, &mut expected);
            if found != expected {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("key {index} has another vector than it was given"),
                ));
            }
        }
        Ok(())
    }

    fn measure(&self, engines: &[Engine<'_>], step: Step<'_>) -> io::Result<Vec<HitRow>> {
        let mut rows = Vec::new();
        for &threads in &self.threads_counts {
            let mut rounds = vec![Vec::new(); engines.len()];
            for round in 0..ROUNDS_COUNT {
                step(&format!("{threads} threads, round {} of {ROUNDS_COUNT}", round + 1))?;
                for (engine, rounds) in engines.iter().zip(&mut rounds) {
                    rounds.push(self.round(engine.lookup, threads, round as u64));
                }
            }
            rows.extend(engines.iter().zip(rounds).map(|(engine, rounds)| {
                let figure = |of: fn(&Round) -> f64| median(rounds.iter().map(of).collect());
                HitRow {
                    engine: engine.name,
                    keys: self.keys_count,
                    threads,
                    p50_ns: figure(|round| round.p50_ns),
                    p99_ns: figure(|round| round.p99_ns),
                    cpu_ns: figure(|round| round.cpu_ns),
                    lookups_per_second: figure(|round| round.lookups_per_second),
                }
            }));
        }
        Ok(rows)
    }

    /// One engine's turn: all lookups at once for processor time, then one by one for quantiles.
    fn round(&self, lookup: Lookup<'_>, threads: usize, round: u64) -> Round {
        let barrier = Barrier::new(threads);
        let one = |thread: usize| {
            let seed = round * 1000 + thread as u64;
            let indexes = zipf(self.keys_count, self.lookups_count, EXPONENT, seed);
            let mut out = vec![0.0; DIMENSIONS];
            barrier.wait();
            let (wall, cpu) = (Instant::now(), thread_cpu());
            black_box(lookup(&indexes, &mut out));
            let (cpu, wall) = (thread_cpu() - cpu, wall.elapsed());
            barrier.wait();
            let empty = quantiles(&indexes, |_| 0.0).0;
            let (p50_ns, p99_ns) =
                quantiles(&indexes, |index| lookup(std::slice::from_ref(index), &mut out));
            let count = indexes.len() as f64;
            Round {
                p50_ns: (p50_ns - empty).max(0.0),
                p99_ns: (p99_ns - empty).max(0.0),
                cpu_ns: cpu.as_nanos() as f64 / count,
                lookups_per_second: count / wall.as_secs_f64(),
            }
        };
        let of_threads: Vec<Round> = std::thread::scope(|scope| {
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
        }
    }
}

#[derive(Clone, Copy)]
struct Round {
    p50_ns: f64,
    p99_ns: f64,
    cpu_ns: f64,
    lookups_per_second: f64,
}

/// Times each lookup by itself; returns the median and the 99th percentile.
fn quantiles(indexes: &[u32], mut lookup: impl FnMut(&u32) -> f32) -> (f64, f64) {
    let mut nanos: Vec<u64> = indexes
        .iter()
        .map(|index| {
            let started = Instant::now();
            black_box(lookup(index));
            started.elapsed().as_nanos() as u64
        })
        .collect();
    nanos.sort_unstable();
    let at = |percent: usize| nanos[(nanos.len() * percent / 100).min(nanos.len() - 1)] as f64;
    (at(50), at(99))
}

fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    figures[figures.len() / 2]
}
