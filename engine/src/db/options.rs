//! How RocksDB is set up, and why.

use std::path::Path;

use rocksdb::{BlockBasedOptions, Cache, DBRecoveryMode, LogLevel, Options};

use super::{Access, Creation, DatabaseMemory};
use crate::os::file::is_btrfs;

/// The part of a table's entries that makes it one of removals.
const REMOVALS_RATIO: f64 = 0.5;
/// With so many tables that a read may have to look into, writes wait.
const LEVEL_ZERO_TABLES_MAX: i32 = 36;
const BLOOM_BITS_PER_KEY: f64 = 10.0;
/// Of a write buffer, for its filter: ten bits for each of its smallest entries.
const WRITE_BUFFER_FILTER_PART: f64 = 0.02;

pub(super) fn database_options(creation: Creation, memory: DatabaseMemory) -> Options {
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

/// The same for a database on this file system.
///
/// BTRFS gives room that was allocated in advance back only when the whole file goes, and what it
/// compresses it writes elsewhere. RocksDB's documentation says to do without there. Measured with
/// 62,666 vectors of 384 numbers rounded to f16, with `compress-force=zstd`: 2,600 bytes each, and 1,003 without.
pub(super) fn on_file_system(mut options: Options, directory: &Path) -> Options {
    // It may be about to be made.
    let is_there = |path: &&Path| path.exists();
    if !directory.ancestors().find(is_there).is_some_and(is_btrfs) {
        return options;
    }
    options.get_options_from_string("allow_fallocate=false").unwrap_or_else(|error| {
        tracing::warn!(%error, "RocksDB allocates in advance, which takes room on BTRFS");
        options
    })
}

/// Values lie in tables, in blocks of 4 KiB, as RocksDB has it by itself. The bench `layout` compares:
/// larger blocks take a quarter longer to twice as long to read from the disk, and save 1 % of room.
/// Files beside the tables (blob files) hold less room for what was replaced (1.2 times the values,
/// not 1.5) and read as fast from 784 bytes on; but they write a fifth to a half more, and values of
/// 200 bytes take a fifth more room and two thirds more time.
pub(super) fn options_of_families(
    block_cache: &Cache,
    memory: DatabaseMemory,
    access: Access,
) -> Options {
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
    // Who only reads has next to nothing in buffers, and to clear their filters is a tenth of an opening.
    if access == Access::Write {
        options.set_memtable_whole_key_filtering(true);
        options.set_memtable_prefix_bloom_ratio(WRITE_BUFFER_FILTER_PART);
    }
    // Writes stop where too much is to be compacted; they are not slowed down before, because those
    // that are refused where they would have to wait would be refused again and again.
    options.set_level_zero_slowdown_writes_trigger(LEVEL_ZERO_TABLES_MAX);
    options.set_level_zero_stop_writes_trigger(LEVEL_ZERO_TABLES_MAX);
    options.set_soft_pending_compaction_bytes_limit(0);
    // A table of removals is compacted at once, so that room comes back when it is needed most.
    options.add_compact_on_deletion_collector_factory(0, 0, REMOVALS_RATIO);
    options
}
