//! What was found out about filters: which records of a collection pass them, for as long as none of it
//! changes. Filters are asked again and again, and to read all records for one costs more than the search.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use op_dbus_formats::filter::Filter;

use super::lock;
use crate::query::Standing;

/// Keys of records.
pub(super) type Keys = HashSet<Vec<u8>>;

/// Filters of a collection that are known.
const FILTERS_MAX: usize = 8;
/// Memory of what passes them.
const KEYS_MAX_BYTES: usize = 8 << 20;

/// Which records pass a filter.
struct Passed {
    filter: Filter,
    standing: Option<Standing>,
    /// None of the collection expires before.
    until_unix_ms: u64,
    keys: Arc<Keys>,
    len_bytes: usize,
}

/// The filters of a collection whose records are known, the one that was asked last in front.
#[derive(Default)]
pub(super) struct PassedFilters {
    changes_count: AtomicU64,
    known: Mutex<Vec<Passed>>,
}

impl PassedFilters {
    /// How often the collection has changed: to be asked before its records are read.
    pub(super) fn changes_count(&self) -> u64 {
        self.changes_count.load(Ordering::SeqCst)
    }

    /// The records that pass now, if that is known.
    pub(super) fn find(
        &self,
        (filter, standing): (&Filter, Option<Standing>),
        now_unix_ms: u64,
    ) -> Option<Arc<Keys>> {
        let mut known = lock(&self.known);
        known.retain(|passed| now_unix_ms < passed.until_unix_ms);
        let is_same = |passed: &Passed| passed.filter == *filter && passed.standing == standing;
        let place = known.iter().position(is_same)?;
        known[..=place].rotate_right(1);
        Some(Arc::clone(&known[0].keys))
    }

    /// Keeps what was read since so many changes, unless there was another meanwhile or it is too much.
    pub(super) fn keep(
        &self,
        (filter, standing): (&Filter, Option<Standing>),
        keys: &Arc<Keys>,
        (changes_count, until_unix_ms): (u64, u64),
    ) {
        let entry_bytes = size_of::<Vec<u8>>() + 1;
        let len_bytes = keys.capacity() * entry_bytes + keys.iter().map(Vec::len).sum::<usize>();
        let mut known = lock(&self.known);
        if changes_count != self.changes_count() || len_bytes > KEYS_MAX_BYTES {
            return;
        }
        let (filter, keys) = (filter.clone(), Arc::clone(keys));
        known.insert(0, Passed { filter, standing, until_unix_ms, keys, len_bytes });
        let mut all_bytes = 0;
        known.retain(|passed| {
            all_bytes += passed.len_bytes;
            all_bytes <= KEYS_MAX_BYTES
        });
        known.truncate(FILTERS_MAX);
    }

    /// Hears that the collection has changed, before anybody is told so.
    pub(super) fn forget(&self) {
        let mut known = lock(&self.known);
        self.changes_count.fetch_add(1, Ordering::SeqCst);
        known.clear();
    }

    /// Bytes of memory.
    pub(super) fn memory_bytes(&self) -> usize {
        lock(&self.known).iter().map(|passed| passed.len_bytes).sum()
    }
}
