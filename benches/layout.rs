//! How RocksDB had best lay out values as small as a half-precision vector of few elements and as
//! large as a long one: in tables of several block sizes, or beside them in blob files.
//!
//! `cargo bench --profile release -p op-dbus-benches --features rivals --bench layout -- --help`

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Parser;
use op_dbus_benches::traffic::{Numbers, key};
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, Options, WaitForCompactOptions, WriteBatch,
    WriteOptions,
};

/// Measures layouts side by side: puts, cold reads, room on the disk, bytes written for it.
#[derive(Parser)]
struct Arguments {
    /// Values of each size, in MiB
    #[arg(long, default_value = "128")]
    mib: usize,
    /// Lengths of values in bytes
    #[arg(long, value_delimiter = ',', default_value = "200,784,1552,6160")]
    values: Vec<usize>,
    /// Rounds, in which layouts take turns
    #[arg(long, default_value = "3")]
    rounds: u64,
    /// Where files are made, and removed afterwards [default: the system's temporary directory]
    #[arg(long)]
    directory: Option<PathBuf>,
    /// What `cargo bench` passes to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

/// Where a value lies.
#[derive(Clone, Copy)]
enum Layout {
    /// In a table, in blocks of so many KiB.
    Blocks(usize),
    /// In a file of values, and where, in a table.
    Blobs,
}

const LAYOUTS: [Layout; 4] =
    [Layout::Blocks(4), Layout::Blocks(16), Layout::Blocks(64), Layout::Blobs];
const BATCH_COUNT: usize = 1000;
const READS_COUNT: usize = 3000;
/// As our own engine has them.
const WRITE_BUFFERS_BYTES: usize = 32 << 20;
const BLOCK_CACHE_BYTES: usize = 32 << 20;

/// What one layout did in one round.
#[derive(Clone, Copy, Default)]
struct Figures {
    put_us: f64,
    /// A read of what RocksDB has not cached, where the kernel has, and where it has not.
    cached_p50_us: f64,
    disk_p50_us: f64,
    /// Bytes on the disk for each byte of values, and again after half of them were replaced.
    disk: f64,
    disk_after: f64,
    /// Bytes written for each byte of values, in all.
    written: f64,
}

fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
    let base = arguments.directory.clone().unwrap_or_else(std::env::temp_dir);
    println!(
        "medians; put: synced batches of 1,000; cached, disk: a read, from the kernel's cache"
    );
    println!("and from the disk; room, replaced, written: bytes for each byte of values");
    println!(
        "{:>6} {:14} {:>7} {:>9} {:>9} {:>6} {:>9} {:>8}",
        "value", "layout", "put µs", "cached µs", "disk µs", "room", "replaced", "written"
    );
    for &value_bytes in &arguments.values {
        let count = (arguments.mib << 20) / value_bytes;
        let mut figures = LAYOUTS.map(|_| Vec::new());
        for round in 0..arguments.rounds {
            for (layout, figures) in LAYOUTS.iter().zip(&mut figures) {
                let directory =
                    tempfile::Builder::new().prefix("op-dbus-layout-").tempdir_in(&base)?;
                let measured = measure(*layout, value_bytes, count, round, directory.path());
                figures.push(measured.map_err(io::Error::other)?);
            }
        }
        for (layout, figures) in LAYOUTS.iter().zip(figures) {
            let of = |of: fn(&Figures) -> f64| median(figures.iter().map(of).collect());
            println!(
                "{value_bytes:>6} {:14} {:>7.2} {:>9.2} {:>9.2} {:>6.2} {:>9.2} {:>8.2}",
                layout.name(),
                of(|figures| figures.put_us),
                of(|figures| figures.cached_p50_us),
                of(|figures| figures.disk_p50_us),
                of(|figures| figures.disk),
                of(|figures| figures.disk_after),
                of(|figures| figures.written),
            );
        }
    }
    Ok(())
}

impl Layout {
    fn name(self) -> String {
        match self {
            Self::Blocks(kib) => format!("{kib} KiB blocks"),
            Self::Blobs => "blob files".to_owned(),
        }
    }

    fn options(self) -> Options {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&Cache::new_lru_cache(BLOCK_CACHE_BYTES));
        table.set_bloom_filter(10.0, false);
        table.set_cache_index_and_filter_blocks(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        let mut options = Options::default();
        match self {
            Self::Blocks(kib) => table.set_block_size(kib << 10),
            Self::Blobs => {
                options.set_enable_blob_files(true);
                options.set_min_blob_size(0);
                options.set_enable_blob_gc(true);
            }
        }
        options.create_if_missing(true);
        options.set_max_background_jobs(2);
        options.set_db_write_buffer_size(WRITE_BUFFERS_BYTES);
        options.set_write_buffer_size(WRITE_BUFFERS_BYTES / 4);
        options.set_block_based_table_factory(&table);
        options.set_compression_type(DBCompressionType::None);
        options
    }
}

fn measure(
    layout: Layout,
    value_bytes: usize,
    count: usize,
    round: u64,
    directory: &Path,
) -> Result<Figures, Box<dyn std::error::Error + Send + Sync>> {
    let written_before = written_bytes()?;
    let mut numbers = Numbers::new(round);
    let db = DB::open(&layout.options(), directory)?;
    let all: Vec<u32> = (0..count as u32).collect();
    let put_us = put(&db, &all, value_bytes, &mut numbers)?;
    settle(&db)?;
    let values_bytes = (count * value_bytes) as f64;
    let disk = disk_bytes(directory)? / values_bytes;
    drop(db);
    let db = DB::open(&layout.options(), directory)?;
    let cached_p50_us = read(&db, count, &mut numbers)?;
    drop(db);
    evict(directory)?;
    let db = DB::open(&layout.options(), directory)?;
    let disk_p50_us = read(&db, count, &mut numbers)?;
    let replaced: Vec<u32> = all.into_iter().filter(|_| numbers.next().is_multiple_of(2)).collect();
    put(&db, &replaced, value_bytes, &mut numbers)?;
    settle(&db)?;
    Ok(Figures {
        put_us,
        cached_p50_us,
        disk_p50_us,
        disk,
        disk_after: disk_bytes(directory)? / values_bytes,
        written: (written_bytes()? - written_before) / (values_bytes * 1.5),
    })
}

/// Puts random values in synced batches; returns the time for each value, the median of batches.
fn put(
    db: &DB,
    indexes: &[u32],
    value_bytes: usize,
    numbers: &mut Numbers,
) -> Result<f64, rocksdb::Error> {
    let mut synced = WriteOptions::default();
    synced.set_sync(true);
    let mut times = Vec::new();
    let mut value = vec![0; value_bytes];
    for indexes in indexes.chunks(BATCH_COUNT) {
        let mut batch = WriteBatch::default();
        for &index in indexes {
            for bytes in value.chunks_mut(size_of::<u64>()) {
                bytes.copy_from_slice(&numbers.next().to_le_bytes()[..bytes.len()]);
            }
            batch.put(key(index), &value);
        }
        let started = Instant::now();
        db.write_opt(batch, &synced)?;
        times.push(started.elapsed().as_secs_f64() * 1e6 / indexes.len() as f64);
    }
    Ok(median(times))
}

/// Reads some values, each of which the last hardly has cached; returns the median time.
fn read(
    db: &DB,
    count: usize,
    numbers: &mut Numbers,
) -> Result<f64, Box<dyn std::error::Error + Send + Sync>> {
    let mut times = Vec::with_capacity(READS_COUNT);
    for _ in 0..READS_COUNT {
        let index = (numbers.next() % count as u64) as u32;
        let started = Instant::now();
        let found = db.get_pinned(key(index))?.ok_or("a value was lost")?;
        // As a reader does, who touches all of it.
        let sum = found.iter().fold(0_u8, |sum, byte| sum ^ byte);
        times.push(started.elapsed().as_secs_f64() * 1e6);
        std::hint::black_box(sum);
    }
    Ok(median(times))
}

/// Takes files out of the kernel's cache.
fn evict(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let file = File::open(entry?.path())?;
        file.sync_all()?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    }
    Ok(())
}

/// Writes out what is in memory, and waits until nothing is to be merged any more.
fn settle(db: &DB) -> Result<(), rocksdb::Error> {
    db.flush()?;
    db.wait_for_compact(&WaitForCompactOptions::default())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What this process has written to files so far.
fn written_bytes() -> io::Result<f64> {
    let text = fs::read_to_string("/proc/self/io")?;
    let line = text.lines().find_map(|line| line.strip_prefix("wchar: "));
    line.and_then(|bytes| bytes.parse().ok())
        .ok_or_else(|| io::Error::other("/proc/self/io does not tell what was written"))
}

fn disk_bytes(directory: &Path) -> io::Result<f64> {
    let mut sum_bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // The log is not where values stay.
        if entry.path().extension().is_none_or(|extension| extension != "log") {
            sum_bytes += entry.metadata()?.len();
        }
    }
    Ok(sum_bytes as f64)
}
