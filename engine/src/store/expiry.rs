//! Collecting what has expired. It is invisible before that; this gives its room back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Store;
use crate::db::state::{Action, Due, Mutation, RecordKey};
use crate::error::Result;
use crate::os::clock::unix_ms;

/// Records removed by one commit, during which other writers wait.
const BATCH_COUNT_MAX: usize = 1024;

/// Removed in passing by a put: more than it puts in most cases, and soon done.
const COLLECTED_BY_PUT_COUNT: u64 = 256;

impl Store {
    /// Removes at most `limit` records that have expired, the earliest first, and returns how many.
    ///
    /// Like other removals these are durable, in the log of changes and in the history. A record
    /// that is put anew at the same time stays. Cost: in proportion to what has expired.
    ///
    /// # Errors
    /// Those of a failed write.
    pub fn collect_expired(&self, limit: u64) -> Result<u64> {
        self.require_writable()?;
        let now_unix_ms = unix_ms();
        let removed_count = Arc::new(AtomicU64::new(0));
        loop {
            let removed = removed_count.load(Ordering::Relaxed);
            let wanted = usize::try_from(limit - removed).unwrap_or(usize::MAX);
            let due = self.state.due(now_unix_ms, wanted.min(BATCH_COUNT_MAX))?;
            if due.is_empty() {
                return Ok(removed);
            }
            let removal = |due| self.expiration(due, &removed_count);
            self.commit(due.into_iter().map(removal).collect())?;
        }
    }

    /// Removes a few records that have expired, so that somebody who puts gets their room back.
    pub(super) fn collect_some_expired(&self) {
        if self.state.has_expiries()
            && let Err(error) = self.collect_expired(COLLECTED_BY_PUT_COUNT)
        {
            tracing::warn!(%error, "expired records are not removed");
        }
    }

    fn expiration(&self, due: Due, removed_count: &Arc<AtomicU64>) -> Mutation<'static> {
        let Due { expires_at_unix_ms, collection, key } = due;
        let removed_count = Arc::clone(removed_count);
        let known = self.all_collections().into_iter().find(|known| known.spec.id == collection);
        Mutation {
            record: RecordKey::new(collection, &key),
            action: Action::Expire { expires_at_unix_ms, removed_count },
            versions_kept: known.map_or(0, |known| known.spec.versions_kept),
        }
    }
}
