//! RocksDB alone, set as it is below our own engine: what the engine adds is the difference.

use std::io;
use std::path::Path;

use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, LogLevel, Options, WriteBatch, WriteOptions,
};
use zerocopy::IntoBytes;

use crate::engine::{Engine, Reader, Room, lost};
use crate::traffic::{DIMENSIONS, key};

/// As our own engine has it.
const WRITE_BUFFERS_BYTES: usize = 32 << 20;
const WRITE_BUFFER_BYTES: usize = WRITE_BUFFERS_BYTES / 4;
const BLOOM_BITS_PER_KEY: f64 = 10.0;
const BACKGROUND_JOBS_COUNT: i32 = 2;

/// A database of one column family.
pub(crate) struct Rocks(DB);

impl Engine for Rocks {
    const NAME: &'static str = "RocksDB";

    type Reader<'a> = &'a Self;

    fn open(directory: &Path, room: Room) -> io::Result<Self> {
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
        options.set_block_based_table_factory(&table);
        options.set_compression_type(DBCompressionType::None);
        options.set_log_level(LogLevel::Warn);
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        DB::open(&options, directory).map(Self).map_err(io::Error::other)
    }

    fn put_batch(&self, first: u32, vectors: &[f32]) -> io::Result<()> {
        let mut batch = WriteBatch::default();
        for (index, vector) in (first..).zip(vectors.chunks_exact(DIMENSIONS)) {
            batch.put(key(index), vector.as_bytes());
        }
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.0.write_opt(batch, &options).map_err(io::Error::other)
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
