//! Which vectors are hot: a bounded number in arenas, everything in RocksDB.
//!
//! Vectors of one length form a [`Pool`]. All pools share one [`Budget`]: above nine tenths of it
//! a thread of its own demotes until the low-water mark is reached. The policy chooses who goes, in
//! the pool whose vectors were not used for longest by the clock that all pools share. To demote is
//! to free a slot, and nothing else: what is in an arena was in RocksDB before. A slot that is free
//! serves its own pool; when another one has none, the same thread moves what lies at the end of an
//! arena to its free slots and gives the memory of the end back.

mod budget;
mod counters;
mod policy;
mod pool;
mod simulate;
mod trace;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub(crate) use budget::Budget;
pub(crate) use counters::Counter;
pub(crate) use policy::Access;
pub use policy::PolicyKind;
pub(crate) use pool::{Departure, Fence, Pool, Resident};
pub use simulate::{SimulationReport, simulate};
pub(crate) use trace::Recorder;
pub use trace::{TraceReport, read_trace};

use serde::{Deserialize, Serialize};

use crate::arena::{self, Placement};
use crate::error::{Error, ErrorKind, Result};
use budget::Call;

/// Coarse time goes on at least this often, also while nothing is promoted.
const TICK: Duration = Duration::from_secs(1);
/// Demoted at a time; who wants to promote finds the desk taken for so long.
const DEMOTE_BATCH_COUNT: usize = 16;
/// Demoted from one pool before all are compared again.
const DEMOTE_BYTES: usize = 1 << 20;

/// What the tier holds and has done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TierStats {
    /// Who leaves memory when it is full.
    pub policy: String,
    /// What hot vectors may take.
    pub capacity_bytes: u64,
    /// What they take now.
    pub used_bytes: u64,
    /// What the arenas have taken from the kernel.
    pub memory_bytes: u64,
    /// Vectors in memory.
    pub hot_vectors: u64,
    /// Vectors that were asked for and in memory.
    pub hits: u64,
    /// Vectors that were asked for and not in memory.
    pub misses: u64,
    /// Vectors that came into memory.
    pub promotions: u64,
    /// Vectors that the policy kept out.
    pub refusals: u64,
    /// Vectors that did not come in because somebody else was at it, or there was no room yet.
    pub skipped: u64,
    /// Why vectors left memory.
    pub evictions: Evictions,
}

/// Why vectors left memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evictions {
    /// To make room.
    pub capacity: u64,
    /// They were replaced or removed.
    pub change: u64,
    /// Their time was over.
    pub expiry: u64,
}

impl TierStats {
    /// Hits by lookups; `None` when there were none.
    #[must_use]
    pub fn hit_rate(&self) -> Option<f64> {
        let lookups = self.hits + self.misses;
        (lookups > 0).then(|| self.hits as f64 / lookups as f64)
    }

    /// Adds what an earlier process counted; what is held now stays.
    pub(crate) fn add_counts(&mut self, earlier: &Self) {
        self.hits += earlier.hits;
        self.misses += earlier.misses;
        self.promotions += earlier.promotions;
        self.refusals += earlier.refusals;
        self.skipped += earlier.skipped;
        self.evictions.capacity += earlier.evictions.capacity;
        self.evictions.change += earlier.evictions.change;
        self.evictions.expiry += earlier.evictions.expiry;
    }
}

/// The hot vectors of a store.
pub(crate) struct Tier {
    shared: Arc<Shared>,
    demoter: Option<JoinHandle<()>>,
}

struct Shared {
    budget: Budget,
    policy: PolicyKind,
    clock: Arc<AtomicU32>,
    recorder: Arc<Recorder>,
    placement: Arc<Placement>,
    pools: RwLock<BTreeMap<usize, Arc<Pool>>>,
}

impl Tier {
    /// Makes an empty tier and starts the thread that demotes.
    pub(crate) fn new(
        (capacity_bytes, policy): (usize, PolicyKind),
        recorder: Arc<Recorder>,
        placement: Arc<Placement>,
    ) -> Result<Self> {
        let budget = Budget::new(capacity_bytes);
        let (clock, pools) = (Arc::default(), RwLock::default());
        let shared = Arc::new(Shared { budget, policy, clock, recorder, placement, pools });
        let demoter = std::thread::Builder::new()
            .name("op-dbus-demote".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.demote_when_called()
            })
            .map_err(|error| {
                Error::new(ErrorKind::Full, "cannot start a thread")
                    .with_source(error)
                    .with_remedy("raise the limit of processes (ulimit -u, TasksMax)")
            })?;
        Ok(Self { shared, demoter: Some(demoter) })
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.shared.budget
    }

    /// The pool of vectors of so many elements, made when first asked for.
    pub(crate) fn pool(&self, dimensions: usize) -> Result<Arc<Pool>> {
        let pools = self.shared.pools.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get(&dimensions) {
            return Ok(Arc::clone(pool));
        }
        drop(pools);
        let mut pools = self.shared.pools.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get(&dimensions) {
            return Ok(Arc::clone(pool));
        }
        let Shared { budget, policy, clock, recorder, placement, .. } = &*self.shared;
        let (clock, recorder) = (Arc::clone(clock), Arc::clone(recorder));
        let placement = Arc::clone(placement);
        let pool = Pool::new(dimensions, budget, *policy, clock, recorder, placement)?;
        let pool = Arc::new(pool);
        pools.insert(dimensions, Arc::clone(&pool));
        Ok(pool)
    }

    /// The pool of one length, if anybody reads vectors of it.
    ///
    /// A change need not be told to a pool that is made after it was committed.
    pub(crate) fn existing_pool(&self, dimensions: usize) -> Option<Arc<Pool>> {
        let pools = self.shared.pools.read().unwrap_or_else(PoisonError::into_inner);
        pools.get(&dimensions).cloned()
    }

    pub(crate) fn pools(&self) -> Vec<Arc<Pool>> {
        self.shared.pools()
    }

    /// What the tier holds and has done since it was made.
    pub(crate) fn stats(&self) -> TierStats {
        let mut stats = TierStats {
            policy: self.shared.policy.to_string(),
            capacity_bytes: self.shared.budget.capacity_bytes() as u64,
            used_bytes: self.shared.budget.used_bytes() as u64,
            ..TierStats::default()
        };
        self.pools().iter().for_each(|pool| pool.add_to(&mut stats));
        stats
    }

    /// Forgets every hot vector.
    pub(crate) fn clear(&self) {
        for pool in self.pools() {
            pool.clear(&self.shared.budget);
        }
    }
}

impl Drop for Tier {
    fn drop(&mut self) {
        self.shared.budget.close();
        if let Some(demoter) = self.demoter.take() {
            // It panics only by a defect, which its own message has told.
            let _ = demoter.join();
        }
    }
}

impl Shared {
    fn pools(&self) -> Vec<Arc<Pool>> {
        let pools = self.pools.read().unwrap_or_else(PoisonError::into_inner);
        pools.values().cloned().collect()
    }

    fn demote_when_called(&self) {
        let mut ticks_at = Instant::now() + TICK;
        loop {
            let call = self.budget.wait(ticks_at.saturating_duration_since(Instant::now()));
            if call == Call::Closed {
                return;
            }
            if Instant::now() >= ticks_at {
                self.clock.fetch_add(1, Ordering::Relaxed);
                ticks_at = Instant::now() + TICK;
            }
            if self.budget.is_high() {
                self.demote();
            }
            if call == Call::Memory {
                self.release_unused();
            }
        }
    }

    /// Takes some memory from the pool that has most that it does not use.
    fn release_unused(&self) {
        if let Some(pool) = self.pools().into_iter().max_by_key(|pool| pool.unused_bytes()) {
            pool.release(&self.budget);
        }
    }

    /// Demotes until the low-water mark.
    fn demote(&self) {
        while self.budget.is_above_low() {
            if self.coldest().is_none_or(|pool| self.demote_from(&pool) == 0) {
                return;
            }
        }
    }

    /// Demotes some vectors of one pool; returns how many.
    fn demote_from(&self, pool: &Pool) -> usize {
        let count_max = (DEMOTE_BYTES / arena::slot_bytes(pool.dimensions())).max(1);
        let mut demoted_count = 0;
        while demoted_count < count_max && self.budget.is_above_low() {
            let count = pool.demote(DEMOTE_BATCH_COUNT, &self.budget);
            demoted_count += count;
            if count < DEMOTE_BATCH_COUNT {
                break;
            }
        }
        demoted_count
    }

    /// The pool whose vectors were not used for longest; `None` if there are no vectors.
    fn coldest(&self) -> Option<Arc<Pool>> {
        let mut pools = self.pools();
        pools.retain(|pool| pool.residents_count() > 0);
        match pools.len() {
            // Nothing to compare.
            0 | 1 => pools.pop(),
            _ => pools.into_iter().max_by_key(|pool| pool.mean_age()),
        }
    }
}
