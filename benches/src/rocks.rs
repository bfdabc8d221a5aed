//! RocksDB alone, set as it is below our own engine: what the engine adds is the difference.

use std::io;
use std::path::Path;

use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, LogLevel, Options, WriteBatch, WriteOptions,
};
use zerocopy::IntoBytes;

use crate::engine::{Batch, Engine, Reader, Room, lost};
use crate::traffic::{DIMENSIONS, key};

/// As our own engine has it.
const WRITE_BUFFERS_BYTES: usize = 32 << 20;
const WRITE_BUFFER_BYTES: usize = WRITE_BUFFERS_BYTES / 4;
const BLOOM_BITS_PER_KEY: f64 = 10.0;
const WRITE_BUFFER_FILTER_PART: f64 = 0.02;
const BACKGROUND_JOBS_COUNT: i32 = 2;

/// Bytes of what our own engine writes in the same batch, beside each vector: the header of the
/// encoded vector, a record without text and payload, and a change before its key; and once a batch
/// the header of the changes.
const VECTOR_HEADER_BYTES: usize = 16;
const RECORD_BYTES: usize = 48;
const CHANGE_HEADER_BYTES: usize = 8;
const CHANGES_HEADER_BYTES: usize = 16;

/// A database of one column family.
pub(crate) struct Rocks(DB);

/// A database of three, that gets the same entries as the one below our own engine: what the
/// engine's work costs without what its guarantees cost.
pub(crate) struct RocksEntries(DB);

const VECTORS: &str = "vectors";
const RECORDS: &str = "records";
const CHANGES: &str = "changes";

impl Engine for Rocks {
    const NAME: &'static str = "RocksDB";

    type Reader<'a> = &'a Self;

    fn open(directory: &Path, room: Room) -> io::Result<Self> {
        DB::open(&options(room)?, directory).map(Self).map_err(io::Error::other)
    }

    fn put_batch(&self, batch: &Batch) -> io::Result<()> {
        let mut writes = WriteBatch::default();
        for (index, vector) in (batch.first..).zip(batch.vectors.chunks_exact(DIMENSIONS)) {
            writes.put(key(index), vector.as_bytes());
        }
        write(&self.0, writes)
    }

    fn reader(&self) -> io::Result<&Self> {
        Ok(self)
    }
}

impl Reader for &Rocks {
    #[inline]
    fn get<T>(&self, index: u32, read: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
        let found = self.0.get_pinned(key(index)).map_err(io::Error::other)?;
        found.map(|value| read(&value)).ok_or_else(|| lost(Rocks::NAME, index))
    }
}

impl Engine for RocksEntries {
    const NAME: &'static str = "RocksDB, our rows";

    type Reader<'a> = &'a Self;

    fn open(directory: &Path, room: Room) -> io::Result<Self> {
        let mut options = options(room)?;
        options.create_missing_column_families(true);
        let families = [VECTORS, RECORDS, CHANGES].map(|name| (name, options.clone()));
        DB::open_cf_with_opts(&options, directory, families).map(Self).map_err(io::Error::other)
    }

    fn put_batch(&self, batch: &Batch) -> io::Result<()> {
        let family = |name| self.0.cf_handle(name).expect("a family that was opened");
        let (vectors, records, changes) = (family(VECTORS), family(RECORDS), family(CHANGES));
        let mut writes = WriteBatch::default();
        let mut changed = vec![0; CHANGES_HEADER_BYTES];
        let mut value = Vec::new();
        for (index, vector) in (batch.first..).zip(batch.vectors.chunks_exact(DIMENSIONS)) {
            value.clear();
            value.extend_from_slice(&[0; VECTOR_HEADER_BYTES]);
            value.extend_from_slice(vector.as_bytes());
            writes.put_cf(vectors, key(index), &value);
        }
        for (index, _) in (batch.first..).zip(batch.vectors.chunks_exact(DIMENSIONS)) {
            let key = key(index);
            writes.put_cf(records, key, [0; RECORD_BYTES]);
            changed.extend_from_slice(&[0; CHANGE_HEADER_BYTES]);
            changed.extend_from_slice(&key);
        }
        writes.put_cf(changes, key(batch.first), changed);
        write(&self.0, writes)
    }

    fn reader(&self) -> io::Result<&Self> {
        Ok(self)
    }
}

impl Reader for &RocksEntries {
    #[inline]
    fn get<T>(&self, index: u32, read: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
        let vectors = self.0.cf_handle(VECTORS).expect("a family that was opened");
        let found = self.0.get_pinned_cf(vectors, key(index)).map_err(io::Error::other)?;
        let found = found.as_deref().and_then(|value| value.get(VECTOR_HEADER_BYTES..));
        found.map(read).ok_or_else(|| lost(RocksEntries::NAME, index))
    }
}

fn options(room: Room) -> io::Result<Options> {
    let cache_bytes = usize::try_from(room.cache_bytes()).map_err(io::Error::other)?;
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(cache_bytes));
    table.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_paranoid_checks(true);
    options.set_max_background_jobs(BACKGROUND_JOBS_COUNT);
    options.set_db_write_buffer_size(WRITE_BUFFERS_BYTES);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_total_wal_size(WRITE_BUFFERS_BYTES as u64);
    options.set_memtable_whole_key_filtering(true);
    options.set_memtable_prefix_bloom_ratio(WRITE_BUFFER_FILTER_PART);
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::None);
    options.set_log_level(LogLevel::Warn);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    Ok(options)
}

fn write(db: &DB, writes: WriteBatch) -> io::Result<()> {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    db.write_opt(writes, &options).map_err(io::Error::other)
}
