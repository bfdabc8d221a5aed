//! How much memory a store may take, and who gets it.

use serde::{Deserialize, Serialize};

use crate::db::DatabaseMemory;
use crate::os::limits;

/// Share of the machine's memory, where nobody has said how much: a quarter.
const OF_MACHINE: u64 = 4;
/// Used where the kernel does not say how much there is.
const FALLBACK_BYTES: u64 = 1 << 30;
/// RocksDB's two databases get a quarter at most.
const OF_DATABASES: u64 = 4;
/// Beyond hot vectors themselves: the table, what names them, and what the policy remembers.
const OVERHEAD_PERCENT: u64 = 7;

/// Memory of a store: what was asked for, what it may be, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryCap {
    /// What was configured; `None` if nothing was.
    pub configured_bytes: Option<u64>,
    /// 70 % of the smallest limit of the control groups; `None` without a limit.
    pub cgroup_bytes: Option<u64>,
    /// What is in force: the smaller of the two, or a quarter of the machine's memory.
    pub effective_bytes: u64,
}

impl MemoryCap {
    pub(super) fn find(configured_bytes: Option<u64>) -> Self {
        let cgroup_bytes = limits::memory_limit_bytes().map(|limit| limit / 10 * 7);
        let wanted = configured_bytes.unwrap_or_else(|| {
            limits::memory_total_bytes().map_or(FALLBACK_BYTES, |total| total / OF_MACHINE)
        });
        let effective_bytes = cgroup_bytes.map_or(wanted, |limit| limit.min(wanted));
        Self { configured_bytes, cgroup_bytes, effective_bytes }
    }

    /// What one of the two databases gets.
    pub(super) fn database(&self) -> DatabaseMemory {
        DatabaseMemory::of(self.effective_bytes / OF_DATABASES / 2)
    }

    /// What hot vectors get.
    pub(super) fn tier_bytes(&self) -> usize {
        let rest = self.effective_bytes.saturating_sub(2 * self.database().total_bytes());
        usize::try_from(rest / 100 * (100 - OVERHEAD_PERCENT)).unwrap_or(usize::MAX)
    }
}
