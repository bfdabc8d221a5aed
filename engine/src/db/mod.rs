//! RocksDB behind our types: families, batches, durability.
//!
//! Two databases: [`state`] is the authority, [`cache`] holds what can be computed again. Neither
//! knows what a record means.

pub(crate) mod cache;
pub(crate) mod check;
pub(crate) mod commit;
pub(crate) mod state;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType,
    DBPinnableSlice, DBRawIterator, DBRecoveryMode, FlushOptions, LogLevel, Options, ReadOptions,
    Snapshot, WriteBatch, WriteOptions, properties,
};

use crate::error::{Error, ErrorKind, Result};

/// A column family: its name in the database and what its values look like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Family {
    name: &'static str,
    compression: DBCompressionType,
}

/// Whether a missing database is made or refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Creation {
    Create,
    Refuse,
}

/// Memory that one database may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DatabaseMemory {
    block_cache_bytes: u64,
    write_buffers_bytes: u64,
}

impl DatabaseMemory {
    /// Divides so many bytes between blocks that were read and writes that are not yet in files.
    pub(crate) fn of(bytes: u64) -> Self {
        Self {
            block_cache_bytes: (bytes / 3).min(BLOCK_CACHE_BYTES_MAX),
            write_buffers_bytes: (bytes / 3 * 2)
                .clamp(WRITE_BUFFERS_BYTES_MIN, WRITE_BUFFERS_BYTES_MAX),
        }
    }

    /// What the database takes at most.
    pub(crate) fn total_bytes(self) -> u64 {
        self.block_cache_bytes + self.write_buffers_bytes
    }
}

/// One RocksDB database with a fixed set of families.
pub(crate) struct Database {
    db: DB,
    path: PathBuf,
    block_cache: Cache,
    compactions_paused: AtomicBool,
}

/// What is read from a point lookup: bytes that stay pinned in RocksDB's memory while borrowed.
pub(crate) type Pinned<'a> = DBPinnableSlice<'a>;

const BLOCK_CACHE_BYTES_MAX: u64 = 32 << 20;
/// What is in memory when a disk is full must fit into the store's ballast.
const WRITE_BUFFERS_BYTES_MAX: u64 = 32 << 20;
/// With less, every put would make a file.
const WRITE_BUFFERS_BYTES_MIN: u64 = 4 << 20;
/// The part of a table's entries that makes it one of removals.
const REMOVALS_RATIO: f64 = 0.5;
/// With so many tables that a read may have to look into, writes wait.
const LEVEL_ZERO_TABLES_MAX: i32 = 36;
const BLOOM_BITS_PER_KEY: f64 = 10.0;
/// Of a write buffer, for its filter: ten bits for each of its smallest entries.
const WRITE_BUFFER_FILTER_PART: f64 = 0.02;

impl Database {
    /// Opens the database at `path` with exactly these families; those that it has not got, because
    /// an earlier version made it, are made.
    pub(crate) fn open(
        path: &Path,
        families: &[Family],
        creation: Creation,
        memory: DatabaseMemory,
    ) -> Result<Self> {
        check::check_manifest(path)?;
        check::check_logs(path)?;
        let block_cache = Cache::new_lru_cache(memory.block_cache_bytes as usize);
        // Copied for each family: RocksDB's defaults come with a cache that is made to be dropped.
        let options = options_of_families(&block_cache, memory);
        let descriptors = families.iter().map(|family| {
            let mut options = options.clone();
            options.set_compression_type(family.compression);
            ColumnFamilyDescriptor::new(family.name, options)
        });
        let db = DB::open_cf_descriptors(&database_options(creation, memory), path, descriptors)
            .map_err(|error| rocksdb_error("open", path, error))?;
        let compactions_paused = AtomicBool::new(false);
        Ok(Self { db, path: path.to_owned(), block_cache, compactions_paused })
    }

    fn handle(&self, family: Family) -> &ColumnFamily {
        self.db.cf_handle(family.name).expect("open_cf_descriptors opened every family")
    }

    /// Fixes what is read through it to this moment.
    pub(crate) fn view(&self) -> View<'_> {
        View { database: self, snapshot: self.db.snapshot() }
    }

    pub(crate) fn get(&self, family: Family, key: &[u8]) -> Result<Option<Pinned<'_>>> {
        self.db.get_pinned_cf(self.handle(family), key).map_err(|error| self.error("read", error))
    }

    /// Looks up many keys, which must ascend: one pass over the files instead of one per key.
    pub(crate) fn get_ascending<'k, K>(
        &self,
        family: Family,
        keys: impl IntoIterator<Item = &'k K>,
    ) -> impl Iterator<Item = Result<Option<Pinned<'_>>>>
    where
        K: AsRef<[u8]> + 'k,
    {
        self.db
            .batched_multi_get_cf(self.handle(family), keys, true)
            .into_iter()
            .map(|value| value.map_err(|error| self.error("read", error)))
    }

    /// Walks the keys of a family that start with `prefix`, in order, over one consistent view.
    pub(crate) fn iterate(&self, family: Family, prefix: &[u8]) -> Walk<'_> {
        let mut options = ReadOptions::default();
        if let Some(end) = prefix_end(prefix) {
            options.set_iterate_upper_bound(end);
        }
        let mut iterator = self.db.raw_iterator_cf_opt(self.handle(family), options);
        iterator.seek(prefix);
        Walk { database: self, iterator }
    }

    /// Walks the keys of a family from `key` on, in order.
    pub(crate) fn iterate_from(&self, family: Family, key: &[u8]) -> Walk<'_> {
        let mut iterator = self.db.raw_iterator_cf(self.handle(family));
        iterator.seek(key);
        Walk { database: self, iterator }
    }

    /// Walks two families at the same moment.
    pub(crate) fn iterate_both(&self, families: [Family; 2], prefix: &[u8]) -> [Walk<'_>; 2] {
        self.at_one_moment(|| families.map(|family| self.iterate(family, prefix)))
    }

    /// Makes walks until nothing was written meanwhile: one sees what there is when it is made.
    pub(crate) fn at_one_moment<T>(&self, make: impl Fn() -> T) -> T {
        loop {
            let before = self.db.latest_sequence_number();
            let walks = make();
            if self.db.latest_sequence_number() == before {
                return walks;
            }
        }
    }

    /// Returns the last key of a family that starts with `prefix`.
    pub(crate) fn last_key(&self, family: Family, prefix: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(prefix);
        if let Some(end) = prefix_end(prefix) {
            options.set_iterate_upper_bound(end);
        }
        let mut iterator = self.db.raw_iterator_cf_opt(self.handle(family), options);
        iterator.seek_to_last();
        iterator.status().map_err(|error| self.error("read", error))?;
        Ok(iterator.key().map(<[u8]>::to_vec))
    }

    /// Writes a batch whole or not at all; with [`Sync::Yes`] it is durable when this returns.
    ///
    /// Waits while RocksDB is behind with its tables, and then has the batch made again. It must
    /// not wait in RocksDB: there it holds up the thread that recovers from a full disk, for which
    /// it would wait.
    pub(crate) fn write<'a>(
        &'a self,
        sync: Sync,
        mut make: impl FnMut() -> Result<Batch<'a>>,
    ) -> Result<()> {
        const PAUSE: Duration = Duration::from_millis(1);
        let mut options = write_options();
        options.set_sync(sync == Sync::Yes);
        loop {
            match self.db.write_opt(make()?.batch, &options) {
                Err(error) if is_stall(&error) => {}
                written => return written.map_err(|error| self.error("write", error)),
            }
            while self.write_nothing().is_err_and(|error| is_stall(&error)) {
                std::thread::sleep(PAUSE);
            }
        }
    }

    fn write_nothing(&self) -> std::result::Result<(), rocksdb::Error> {
        let mut options = write_options();
        options.disable_wal(true);
        self.db.write_opt(WriteBatch::default(), &options)
    }

    pub(crate) fn batch(&self) -> Batch<'_> {
        self.batch_with_capacity(0)
    }

    /// Begins a batch that takes so many bytes without growing.
    pub(crate) fn batch_with_capacity(&self, capacity_bytes: usize) -> Batch<'_> {
        let batch = WriteBatch::with_capacity_bytes(capacity_bytes);
        Batch { database: self, batch, handles: Vec::new() }
    }

    /// Asks whether writes are accepted, by one of nothing: after an error in the background, such
    /// as a full disk, RocksDB refuses them all until it has recovered.
    pub(crate) fn check_accepts_writes(&self) -> Result<()> {
        self.write_nothing().map_err(|error| self.error("write to", error))
    }

    /// Writes what the families hold in memory to tables.
    pub(crate) fn flush(&self, families: &[Family]) -> Result<()> {
        let handles: Vec<_> = families.iter().map(|family| self.handle(*family)).collect();
        self.db
            .flush_cfs_opt(&handles, &FlushOptions::default())
            .map_err(|error| self.error("flush", error))
    }

    /// Writes out what is in memory, so that the next opening need not. Without it the log has it.
    pub(crate) fn write_out(&self, families: &[Family]) {
        if let Err(error) = self.flush(families) {
            tracing::debug!(%error, "what is in the log stays there");
        }
    }

    /// Gives the space of removed entries back to the file system.
    pub(crate) fn reclaim(&self, family: Family) -> Result<()> {
        self.flush(&[family])?;
        self.db.compact_range_cf(self.handle(family), None::<&[u8]>, None::<&[u8]>);
        Ok(())
    }

    /// Bytes of memory the database holds for blocks and unflushed writes.
    pub(crate) fn memory_bytes(&self, families: &[Family]) -> u64 {
        self.unflushed_bytes(families) + self.block_cache.get_usage() as u64
    }

    /// Bytes of memory for writes that are in the log and not in tables.
    pub(crate) fn unflushed_bytes(&self, families: &[Family]) -> u64 {
        self.sum(families, properties::CUR_SIZE_ALL_MEM_TABLES)
    }

    /// Bytes on disk of the tables, those included that are about to be removed.
    pub(crate) fn tables_bytes(&self, families: &[Family]) -> u64 {
        self.sum(families, properties::TOTAL_SST_FILES_SIZE)
    }

    fn sum(&self, families: &[Family], property: &properties::PropName) -> u64 {
        let value = |family: &Family| {
            self.db.property_int_value_cf(self.handle(*family), property).ok().flatten()
        };
        families.iter().filter_map(value).sum()
    }

    /// Begins no more compactions, and waits a little for one that runs.
    pub(crate) fn pause_compactions(&self, families: &[Family]) {
        const PATIENCE: Duration = Duration::from_secs(5);
        const PAUSE: Duration = Duration::from_millis(20);
        if self.compactions_paused.swap(true, Ordering::Relaxed) {
            return;
        }
        self.set_compactions(families, false);
        let started = Instant::now();
        let running = || self.db.property_int_value(properties::NUM_RUNNING_COMPACTIONS);
        while running().is_ok_and(|count| count > Some(0)) && started.elapsed() < PATIENCE {
            std::thread::sleep(PAUSE);
        }
    }

    /// Lets compactions begin again.
    pub(crate) fn resume_compactions(&self, families: &[Family]) {
        if self.compactions_paused.swap(false, Ordering::Relaxed) {
            self.set_compactions(families, true);
        }
    }

    fn set_compactions(&self, families: &[Family], enabled: bool) {
        let disabled = if enabled { "false" } else { "true" };
        for family in families {
            let option = [("disable_auto_compactions", disabled)];
            if let Err(error) = self.db.set_options_cf(self.handle(*family), &option) {
                // They then go on as they did, which costs time.
                tracing::warn!(family = family.name, %error, "compactions cannot be switched");
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn error(&self, action: &str, error: rocksdb::Error) -> Error {
        rocksdb_error(action, &self.path, error)
    }
}

/// The database as it was at one moment, whatever is written meanwhile.
pub(crate) struct View<'a> {
    database: &'a Database,
    snapshot: Snapshot<'a>,
}

impl View<'_> {
    pub(crate) fn get(&self, family: Family, key: &[u8]) -> Result<Option<Pinned<'_>>> {
        self.snapshot
            .get_pinned_cf(self.database.handle(family), key)
            .map_err(|error| self.database.error("read", error))
    }
}

/// Whether a write waits until it is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    Yes,
    No,
}

/// Changes that take effect together.
pub(crate) struct Batch<'a> {
    database: &'a Database,
    batch: WriteBatch,
    /// Of the families that were asked for: to look one up costs as much as to put a short value.
    handles: Vec<(&'static str, &'a ColumnFamily)>,
}

impl<'a> Batch<'a> {
    pub(crate) fn put(&mut self, family: Family, key: &[u8], value: &[u8]) {
        let handle = self.handle(family);
        self.batch.put_cf(handle, key, value);
    }

    pub(crate) fn remove(&mut self, family: Family, key: &[u8]) {
        let handle = self.handle(family);
        self.batch.delete_cf(handle, key);
    }

    pub(crate) fn remove_range(&mut self, family: Family, from: &[u8], to: &[u8]) {
        let handle = self.handle(family);
        self.batch.delete_range_cf(handle, from, to);
    }

    fn handle(&mut self, family: Family) -> &'a ColumnFamily {
        // A name that lies in memory twice is looked up twice.
        let known = self.handles.iter().find(|(name, _)| std::ptr::eq(*name, family.name));
        if let Some((_, handle)) = known {
            return handle;
        }
        let handle = self.database.handle(family);
        self.handles.push((family.name, handle));
        handle
    }
}

/// Keys and values of a family, in key order.
pub(crate) struct Walk<'a> {
    database: &'a Database,
    iterator: DBRawIterator<'a>,
}

impl Walk<'_> {
    /// The key and the value at which the walk stands; `None` at the end.
    pub(crate) fn item(&self) -> Result<Option<(&[u8], &[u8])>> {
        let item = self.iterator.item();
        if item.is_none() {
            self.iterator.status().map_err(|error| self.database.error("read", error))?;
        }
        Ok(item)
    }

    /// Goes on to the next key.
    pub(crate) fn step(&mut self) {
        self.iterator.next();
    }

    /// Steps to the first key that is `key` or comes after it, and returns the value of `key`.
    pub(crate) fn value_at(&mut self, key: &[u8]) -> Result<Option<&[u8]>> {
        while self.iterator.key().is_some_and(|found| found < key) {
            self.iterator.next();
        }
        self.iterator.status().map_err(|error| self.database.error("read", error))?;
        Ok(self.iterator.item().filter(|(found, _)| *found == key).map(|(_, value)| value))
    }

    /// Hands the next key and value to `read` and returns its answer; `None` at the end.
    ///
    /// A borrowing iterator: nothing is copied that `read` does not copy.
    pub(crate) fn next_with<T>(
        &mut self,
        read: impl FnOnce(&[u8], &[u8]) -> T,
    ) -> Result<Option<T>> {
        let Some((key, value)) = self.item()? else { return Ok(None) };
        let answer = read(key, value);
        self.step();
        Ok(Some(answer))
    }
}

/// Of a write that is refused, and not begun, where it would have to wait.
fn write_options() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_no_slowdown(true);
    options
}

/// Whether a write was refused because it would have had to wait.
fn is_stall(error: &rocksdb::Error) -> bool {
    error.kind() == rocksdb::ErrorKind::Incomplete && error.as_ref().contains("Write stall")
}

/// The first key after all keys that start with `prefix`; `None` if there is none.
fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.last_mut() {
        if *last < u8::MAX {
            *last += 1;
            return Some(end);
        }
        end.pop();
    }
    None
}

fn database_options(creation: Creation, memory: DatabaseMemory) -> Options {
    let mut options = Options::default();
    options.create_if_missing(creation == Creation::Create);
    // Only a version can lack a family: their names stand in one file, which has checksums.
    options.create_missing_column_families(true);
    options.set_paranoid_checks(true);
    // An unfinished record at the end of the log was never acknowledged and is dropped. So is what
    // follows a damaged one, which the store notices by the sequence it has acknowledged.
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_track_and_verify_wals_in_manifest(true);
    // Families are written out one by one, as what they hold together is in the log. (To write all
    // of them out at once, RocksDB 11.8 waits for itself for ever once a directory could not be
    // synced for want of room.) Those that get little must not keep the log from being removed.
    options.set_max_total_wal_size(memory.write_buffers_bytes);
    options.set_max_background_jobs(2);
    // Otherwise 15 threads begin and end for each family, twice: more than half of an opening.
    options.set_max_file_opening_threads(1);
    options.set_db_write_buffer_size(memory.write_buffers_bytes as usize);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(4);
    options.set_max_log_file_size(1 << 20);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options
}

/// Values lie in tables, in blocks of 4 KiB, as RocksDB has it by itself. The bench `layout` compares:
/// larger blocks take a quarter longer to twice as long to read from the disk, and save 1 % of room.
/// Files beside the tables (blob files) hold less room for what was replaced (1.2 times the values,
/// not 1.5) and read as fast from 784 bytes on; but they write a fifth to a half more, and values of
/// 200 bytes take a fifth more room and two thirds more time.
fn options_of_families(block_cache: &Cache, memory: DatabaseMemory) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(block_cache);
    table.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size((memory.write_buffers_bytes / 4) as usize);
    // A key that is not in a write buffer is found out by its filter, not by a search: a put asks
    // whether its record is there, and a read of what is in a table begins with the buffer.
    options.set_memtable_whole_key_filtering(true);
    options.set_memtable_prefix_bloom_ratio(WRITE_BUFFER_FILTER_PART);
    // Writes stop where too much is to be compacted; they are not slowed down before, because those
    // that are refused where they would have to wait would be refused again and again.
    options.set_level_zero_slowdown_writes_trigger(LEVEL_ZERO_TABLES_MAX);
    options.set_level_zero_stop_writes_trigger(LEVEL_ZERO_TABLES_MAX);
    options.set_soft_pending_compaction_bytes_limit(0);
    // A table of removals is compacted at once, so that room comes back when it is needed most.
    options.add_compact_on_deletion_collector_factory(0, 0, REMOVALS_RATIO);
    options
}

/// RocksDB's C interface reports only a status class and a text; the text tells a full disk.
fn rocksdb_error(action: &str, path: &Path, error: rocksdb::Error) -> Error {
    use rocksdb::ErrorKind as Rocks;
    let text = error.as_ref();
    let kind = match error.kind() {
        Rocks::Corruption => ErrorKind::Corrupt,
        Rocks::NotSupported => ErrorKind::Unsupported,
        Rocks::IOError | Rocks::Incomplete if is_no_room(text) => ErrorKind::Full,
        Rocks::IOError if text.contains("ermission denied") => ErrorKind::Denied,
        Rocks::IOError if text.contains("While lock file") => ErrorKind::Busy,
        Rocks::InvalidArgument if text.contains("does not exist") => ErrorKind::Corrupt,
        Rocks::InvalidArgument if text.contains("families not opened") => ErrorKind::Unsupported,
        Rocks::Busy | Rocks::TimedOut | Rocks::TryAgain => ErrorKind::Busy,
        Rocks::Incomplete if is_stall(&error) => ErrorKind::Busy,
        _ => ErrorKind::Io,
    };
    let error_out = Error::new(kind, format!("cannot {action} the database {}", path.display()))
        .with_source(error);
    match kind {
        ErrorKind::Full => error_out.with_remedy(
            "free space on this file system, or raise the file size limit (ulimit -f), and try again",
        ),
        ErrorKind::Corrupt => error_out.with_remedy("restore the store from an export"),
        ErrorKind::Unsupported => {
            error_out.with_remedy("use the version of op-dbus that wrote it, or a newer one")
        }
        _ => error_out,
    }
}

fn is_no_room(text: &str) -> bool {
    ["No space left", "File too large", "quota exceeded"].iter().any(|sign| text.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAMILY: Family = Family { name: "default", compression: DBCompressionType::None };

    #[test]
    fn a_write_that_has_to_wait_is_made_again_and_done_once() {
        const ENTRY_BYTES: usize = 2 << 20;
        let directory = tempfile::tempdir().unwrap();
        let memory = DatabaseMemory::of(0);
        let db = Database::open(directory.path(), &[FAMILY], Creation::Create, memory).unwrap();
        // Each fills a write buffer, so that they are written out one behind the other.
        let (mut written, mut made) = (0_u32, 0_u32);
        while made == written {
            assert!(written < 1000, "no write had to wait");
            let make = || {
                made += 1;
                let mut batch = db.batch();
                batch.put(FAMILY, &written.to_be_bytes(), &vec![made as u8; ENTRY_BYTES]);
                Ok(batch)
            };
            db.write(Sync::No, make).unwrap();
            written += 1;
        }
        assert_eq!(db.db.latest_sequence_number(), u64::from(written));
        let last = db.get(FAMILY, &(written - 1).to_be_bytes()).unwrap().unwrap();
        assert_eq!((last.len(), last[0]), (ENTRY_BYTES, made as u8));
    }

    #[test]
    fn the_end_of_a_prefix_is_the_next_sibling() {
        assert_eq!(prefix_end(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(prefix_end(&[1, 0xff]), Some(vec![2]));
        assert_eq!(prefix_end(&[0xff, 0xff]), None);
        assert_eq!(prefix_end(b""), None);
    }
}
