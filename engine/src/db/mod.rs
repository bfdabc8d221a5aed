//! RocksDB behind our types: families, batches, durability.
//!
//! Two databases: [`state`] is the authority, [`cache`] holds what can be computed again. Neither
//! knows what a record means.

pub(crate) mod cache;
pub(crate) mod check;
pub(crate) mod commit;
mod options;
pub(crate) mod state;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBPinnableSlice,
    DBRawIterator, DEFAULT_COLUMN_FAMILY_NAME, Env, FlushOptions, InfoLogger, LogLevel, Options,
    ReadOptions, Snapshot, WriteBatch, WriteOptions, properties,
};

use crate::error::{Error, ErrorKind, Result};
use options::{database_options, on_file_system, options_of_families};

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

/// Whether a database is written to, or only read where nothing may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Write,
    Read,
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
    access: Access,
    compactions_paused: AtomicBool,
}

/// What is read from a point lookup: bytes that stay pinned in RocksDB's memory while borrowed.
pub(crate) type Pinned<'a> = DBPinnableSlice<'a>;

const BLOCK_CACHE_BYTES_MAX: u64 = 32 << 20;
/// What is in memory when a disk is full must fit into the store's ballast.
const WRITE_BUFFERS_BYTES_MAX: u64 = 32 << 20;
/// With less, every put would make a file.
const WRITE_BUFFERS_BYTES_MIN: u64 = 4 << 20;

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
        let options = on_file_system(database_options(creation, memory), path);
        Self::open_with(path, families, &options, memory, Access::Write)
    }

    /// Bytes in the logs of the database at `path`, of which nothing else is known; allocated ones that
    /// were not written do not count.
    pub(crate) fn log_bytes(path: &Path) -> u64 {
        let Ok(entries) = std::fs::read_dir(path) else { return 0 };
        let logs = entries.flatten().filter(|entry| {
            Path::new(&entry.file_name()).extension().is_some_and(|extension| extension == "log")
        });
        logs.filter_map(|log| Some(log.metadata().ok()?.len())).sum()
    }

    /// Opens a database that nobody writes to, with what its log holds, and writes nothing itself.
    pub(crate) fn open_to_read(
        path: &Path,
        families: &[Family],
        memory: DatabaseMemory,
    ) -> Result<Self> {
        check::check_manifest(path)?;
        check::check_logs(path)?;
        let mut options = database_options(Creation::Refuse, memory);
        // Where nothing is written there is no file for what RocksDB has to say, which is how it is set
        // up: a quarter of an opening.
        options.set_info_logger(InfoLogger::new_stderr_logger::<&str>(LogLevel::Fatal, None));
        Self::open_with(path, families, &options, memory, Access::Read)
    }

    /// Makes an empty database in memory.
    pub(crate) fn in_memory(families: &[Family], memory: DatabaseMemory) -> Result<Self> {
        let path = Path::new("/memory");
        let env = Env::mem_env().map_err(|error| rocksdb_error("make", path, error))?;
        let mut options = database_options(Creation::Create, memory);
        options.set_env(&env);
        Self::open_with(path, families, &options, memory, Access::Write)
    }

    fn open_with(
        path: &Path,
        families: &[Family],
        options_of_database: &Options,
        memory: DatabaseMemory,
        access: Access,
    ) -> Result<Self> {
        let block_cache = Cache::new_lru_cache(memory.block_cache_bytes as usize);
        // Copied for each family: RocksDB's defaults come with a cache that is made to be dropped.
        let options = options_of_families(&block_cache, memory, access);
        let there = match access {
            Access::Write => None,
            Access::Read => Some(
                DB::list_cf(options_of_database, path)
                    .map_err(|error| rocksdb_error("read", path, error))?,
            ),
        };
        let is_there = |family: &&Family| {
            there.as_ref().is_none_or(|there| there.iter().any(|name| name == family.name))
        };
        let descriptors = families.iter().filter(is_there).map(|family| {
            let mut options = options.clone();
            options.set_compression_type(family.compression);
            ColumnFamilyDescriptor::new(family.name, options)
        });
        let opened = match access {
            Access::Write => DB::open_cf_descriptors(options_of_database, path, descriptors),
            Access::Read => {
                DB::open_cf_descriptors_read_only(options_of_database, path, descriptors, false)
            }
        };
        let db = opened.map_err(|error| rocksdb_error("open", path, error))?;
        let compactions_paused = AtomicBool::new(false);
        Ok(Self { db, path: path.to_owned(), block_cache, access, compactions_paused })
    }

    /// A family that a database which is only read has not got yet is as empty as the default one,
    /// in which nothing is ever written.
    fn handle(&self, family: Family) -> &ColumnFamily {
        let default = || self.db.cf_handle(DEFAULT_COLUMN_FAMILY_NAME);
        self.db.cf_handle(family.name).or_else(default).expect("RocksDB always has this one")
    }

    pub(crate) fn is_written(&self) -> bool {
        self.access == Access::Write
    }

    /// Makes a copy of what there is at one moment in a directory that does not exist: of tables by
    /// links, of the rest by bytes.
    pub(crate) fn copy_to(&self, directory: &Path) -> Result<()> {
        Checkpoint::new(&self.db)
            .and_then(|checkpoint| checkpoint.create_checkpoint(directory))
            .map_err(|error| self.error("copy", error))
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
