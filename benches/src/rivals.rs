//! All engines side by side: hits, synced batches, cold reads, opening, room on the disk.
//!
//! Engines take turns, so that a busy machine disturbs them alike. Every value that is read for the
//! first time is compared with what was put. Compression is off everywhere: embeddings look random.

use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use crate::engine::{Batch, Engine, Reader, Room, check, open, verify};
use crate::fjall::Fjall;
use crate::foyer::{self, Foyer};
use crate::hit::{Contestant, HitBenchmark, HitRow, Step, median, percentile, thread_cpu};
use crate::lmdb::Lmdb;
use crate::memory::Array;
use crate::ours::Ours;
use crate::redb::Redb;
use crate::rocks::{Rocks, RocksEntries};
use crate::sled::Sled;
use crate::traffic::{DIMENSIONS, Numbers, VALUE_BYTES};

/// Values that an engine puts in its turn, in batches.
const PUT_TURN_COUNT: u32 = 10_000;
const ROUNDS_COUNT: u64 = 7;
/// Cold reads of a round, each of another key; of fewer keys the half.
const COLD_READS_COUNT: usize = 5000;
/// What `st_blocks` counts in.
const DISK_BLOCK_BYTES: u64 = 512;

/// What to measure: as [`HitBenchmark`], and the same keys put, read cold and found again.
#[derive(Clone, Debug)]
pub struct RivalBenchmark {
    /// The keys, and how they are looked up.
    pub hits: HitBenchmark,
    /// Values that are put together, and synced.
    pub batch_count: u32,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct RivalReport {
    /// Hits: everything is in memory.
    pub hits: Vec<HitRow>,
    /// What engines cost that keep values in files.
    pub durable: Vec<DurableRow>,
}

/// One engine's figures, as far as they have to do with files.
#[derive(Clone, Debug, Serialize)]
pub struct DurableRow {
    /// Which engine.
    pub engine: &'static str,
    /// Values in it.
    pub keys: u32,
    /// Time of a synced batch for each value in it: the median of the batches.
    pub put_us: f64,
    /// The same in processor time of the thread that puts.
    pub put_cpu_us: f64,
    /// Values put a second, in megabytes, over all batches.
    pub put_mb_per_second: f64,
    /// Reading a value for the first time after opening: the median of rounds of the medians.
    pub cold_p50_ns: f64,
    /// 99 of 100 took no longer.
    pub cold_p99_ns: f64,
    /// From opening to the first value: the median. What was read from the disk before is in the
    /// system's memory.
    pub open_ms: f64,
    /// What lies on the disk in the end, divided by the values.
    pub disk_bytes_per_value: f64,
}

/// An engine, by what it does in its turn.
struct Contender {
    name: &'static str,
    put: fn(&Path, Range<u32>, u32) -> io::Result<Vec<Put>>,
    settle: fn(&Path, u32) -> io::Result<()>,
    read_cold: fn(&Path, &[u32]) -> io::Result<Vec<f64>>,
    find_first: fn(&Path, u32, u32) -> io::Result<f64>,
}

const CONTENDERS: [Contender; 7] = [
    Contender::new::<Ours>(),
    Contender::new::<Lmdb>(),
    Contender::new::<Redb>(),
    Contender::new::<Rocks>(),
    Contender::new::<RocksEntries>(),
    Contender::new::<Sled>(),
    Contender::new::<Fjall>(),
];

/// One batch that was put.
struct Put {
    values_count: u32,
    wall_s: f64,
    cpu_s: f64,
}

impl RivalBenchmark {
    /// Fills the engines in `directory`, which is empty, and measures them.
    ///
    /// `step` hears what is being done, and ends it with an error.
    ///
    /// # Errors
    /// Those of the disk and of the engines; [`io::ErrorKind::InvalidData`] if one of them answers
    /// with another value than it was given.
    pub fn run(&self, directory: &Path, step: Step<'_>) -> io::Result<RivalReport> {
        let durable = self.measure_files(directory, step)?;
        let hits = self.measure_hits(directory, step)?;
        Ok(RivalReport { hits, durable })
    }

    fn measure_files(&self, directory: &Path, step: Step<'_>) -> io::Result<Vec<DurableRow>> {
        let keys_count = self.hits.keys_count;
        let puts = self.put_all(directory, step)?;
        for Contender { name, settle, .. } in &CONTENDERS {
            step(&format!("reading all that {name} has"))?;
            settle(directory, keys_count)?;
        }
        let mut cold = CONTENDERS.map(|_| Vec::new());
        let mut opened = CONTENDERS.map(|_| Vec::new());
        let mut numbers = Numbers::new(1);
        for round in 0..ROUNDS_COUNT {
            step(&format!("cold reads and opening, round {} of {ROUNDS_COUNT}", round + 1))?;
            let indexes = distinct(keys_count, &mut numbers);
            for (contender, (cold, opened)) in
                CONTENDERS.iter().zip(cold.iter_mut().zip(&mut opened))
            {
                cold.push((contender.read_cold)(directory, &indexes)?);
                opened.push((contender.find_first)(directory, keys_count, indexes[0])?);
            }
        }
        let mut rows = Vec::new();
        for (((contender, puts), mut cold), opened) in
            CONTENDERS.iter().zip(puts).zip(cold).zip(opened)
        {
            let mut of_rounds =
                |percent| median(cold.iter_mut().map(|nanos| percentile(nanos, percent)).collect());
            let per_value = |of: fn(&Put) -> f64| {
                median(puts.iter().map(|put| of(put) * 1e6 / f64::from(put.values_count)).collect())
            };
            let wall_s: f64 = puts.iter().map(|put| put.wall_s).sum();
            let disk_bytes = disk_bytes(&directory.join(contender.name))?;
            rows.push(DurableRow {
                engine: contender.name,
                keys: keys_count,
                put_us: per_value(|put| put.wall_s),
                put_cpu_us: per_value(|put| put.cpu_s),
                put_mb_per_second: f64::from(keys_count) * VALUE_BYTES as f64 / 1e6 / wall_s,
                cold_p50_ns: of_rounds(50),
                cold_p99_ns: of_rounds(99),
                open_ms: median(opened),
                disk_bytes_per_value: disk_bytes as f64 / f64::from(keys_count),
            });
        }
        Ok(rows)
    }

    /// Returns the batches of each contender.
    fn put_all(&self, directory: &Path, step: Step<'_>) -> io::Result<Vec<Vec<Put>>> {
        let keys_count = self.hits.keys_count;
        let mut puts: Vec<Vec<Put>> = CONTENDERS.iter().map(|_| Vec::new()).collect();
        for first in (0..keys_count).step_by(PUT_TURN_COUNT as usize) {
            let turn = first..keys_count.min(first.saturating_add(PUT_TURN_COUNT));
            for (contender, puts) in CONTENDERS.iter().zip(&mut puts) {
                step(&format!("filling {}: {first} of {keys_count} values", contender.name))?;
                puts.extend((contender.put)(directory, turn.clone(), self.batch_count)?);
            }
        }
        Ok(puts)
    }

    fn measure_hits(&self, directory: &Path, step: Step<'_>) -> io::Result<Vec<HitRow>> {
        let keys_count = self.hits.keys_count;
        let room = Room::ForAll(keys_count);
        step("bringing all values into memory")?;
        let (ours, lmdb) = (open::<Ours>(directory, room)?, open::<Lmdb>(directory, room)?);
        let (redb, rocks) = (open::<Redb>(directory, room)?, open::<Rocks>(directory, room)?);
        let (sled, fjall) = (open::<Sled>(directory, room)?, open::<Fjall>(directory, room)?);
        let (foyer, array) = (Foyer::fill(keys_count)?, Array::fill(keys_count));
        let (ours_reader, lmdb_reader) = (ours.reader()?, lmdb.reader()?);
        let (redb, rocks, sled, fjall) = (&redb, &rocks, &sled, &fjall);
        verify(&ours_reader, keys_count)?;
        ours.heat(keys_count)?;
        verify(&lmdb_reader, keys_count)?;
        verify(&redb, keys_count)?;
        verify(&rocks, keys_count)?;
        verify(&sled, keys_count)?;
        verify(&fjall, keys_count)?;
        verify(&foyer, keys_count)?;
        let contestants = [
            Contestant::borrowed("op-dbus borrowed", &ours_reader),
            Contestant::borrowed("LMDB borrowed", &lmdb_reader),
            Contestant::copied(Ours::NAME, &ours_reader),
            Contestant::copied(Lmdb::NAME, &lmdb_reader),
            Contestant::copied(Redb::NAME, &redb),
            Contestant::copied(Rocks::NAME, &rocks),
            Contestant::copied(Sled::NAME, &sled),
            Contestant::copied(Fjall::NAME, &fjall),
            Contestant::copied(foyer::NAME, &foyer),
            Contestant::copied("memcpy", &array),
        ];
        self.hits.measure(&contestants, step)
    }
}

impl Contender {
    const fn new<E: Engine>() -> Self {
        Self {
            name: E::NAME,
            put: put::<E>,
            settle: settle::<E>,
            read_cold: read_cold::<E>,
            find_first: find_first::<E>,
        }
    }
}

/// Puts the values of these keys, a batch at a time.
fn put<E: Engine>(directory: &Path, keys: Range<u32>, batch_count: u32) -> io::Result<Vec<Put>> {
    let engine = open::<E>(directory, Room::ForAll(keys.end))?;
    let mut puts = Vec::new();
    for first in keys.clone().step_by(batch_count as usize) {
        let values_count = batch_count.min(keys.end - first);
        let batch = Batch::new(first, values_count);
        let (wall, cpu) = (Instant::now(), thread_cpu());
        engine.put_batch(&batch)?;
        let (cpu, wall) = (thread_cpu() - cpu, wall.elapsed());
        puts.push(Put { values_count, wall_s: wall.as_secs_f64(), cpu_s: cpu.as_secs_f64() });
    }
    Ok(puts)
}

/// Verifies all values, and closes the engine as it is closed in use.
fn settle<E: Engine>(directory: &Path, keys_count: u32) -> io::Result<()> {
    let engine = open::<E>(directory, Room::ForAll(keys_count))?;
    verify(&engine.reader()?, keys_count)?;
    engine.close();
    Ok(())
}

/// Opens the engine with little room and times reads of these keys, in nanoseconds.
fn read_cold<E: Engine>(directory: &Path, indexes: &[u32]) -> io::Result<Vec<f64>> {
    let engine = open::<E>(directory, Room::Little)?;
    let reader = engine.reader()?;
    let mut found = [0.0; DIMENSIONS];
    let mut time = |&index: &u32| {
        let started = Instant::now();
        reader.copy(index, &mut found)?;
        let nanos = started.elapsed().as_nanos() as f64;
        check(index, &found)?;
        Ok(nanos)
    };
    indexes.iter().map(&mut time).collect()
}

/// Times how long it takes to open the engine and to read a value, in milliseconds.
fn find_first<E: Engine>(directory: &Path, keys_count: u32, index: u32) -> io::Result<f64> {
    let mut found = [0.0; DIMENSIONS];
    let started = Instant::now();
    let engine = open::<E>(directory, Room::ForAll(keys_count))?;
    engine.reader()?.copy(index, &mut found)?;
    let elapsed = started.elapsed();
    check(index, &found)?;
    Ok(elapsed.as_secs_f64() * 1e3)
}

/// Draws keys of which no two are equal.
fn distinct(keys_count: u32, numbers: &mut Numbers) -> Vec<u32> {
    let mut keys: Vec<u32> = (0..keys_count).collect();
    let count = COLD_READS_COUNT.min(keys.len().div_ceil(2));
    for drawn in 0..count {
        let other = numbers.next() % (keys.len() - drawn) as u64;
        keys.swap(drawn, drawn + other as usize);
    }
    keys.truncate(count);
    keys
}

/// What the files below a directory take, holes not counted.
fn disk_bytes(directory: &Path) -> io::Result<u64> {
    let mut sum_bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        sum_bytes += metadata.blocks() * DISK_BLOCK_BYTES;
        if metadata.is_dir() {
            sum_bytes += disk_bytes(&entry.path())?;
        }
    }
    Ok(sum_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_engine_keeps_what_it_is_given_and_is_measured() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let hits =
            HitBenchmark { keys_count: 1_200, lookups_count: 100, threads_counts: vec![1, 2] };
        let report = RivalBenchmark { hits, batch_count: 500 }
            .run(directory.path(), &mut |_| Ok(()))
            .expect("engines that work");
        assert_eq!((report.hits.len(), report.durable.len()), (20, CONTENDERS.len()));
        for row in report.durable {
            let least_bytes = VALUE_BYTES as f64;
            assert!(row.disk_bytes_per_value >= least_bytes, "{row:?}");
            assert!(row.put_us > 0.0 && row.cold_p50_ns > 0.0 && row.open_ms > 0.0, "{row:?}");
            assert!(row.cold_p50_ns <= row.cold_p99_ns, "{row:?}");
        }
    }

    #[test]
    fn a_value_that_was_not_put_is_noticed() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        put::<Lmdb>(directory.path(), 0..10, 5).expect("a file that can be written");
        let engine = open::<Lmdb>(directory.path(), Room::Little).expect("what was put");
        let batch = Batch { first: 3, ..Batch::new(4, 1) };
        engine.put_batch(&batch).expect("a file that can be written");
        let error = verify(&engine.reader().expect("a reader"), 10).expect_err("another value");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let error = verify(&engine.reader().expect("a reader"), 3).err();
        assert!(error.is_none(), "{error:?}");
    }

    #[test]
    fn drawn_keys_are_distinct() {
        let mut keys = distinct(1001, &mut Numbers::new(3));
        assert_eq!(keys.len(), 501);
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 501);
    }
}
