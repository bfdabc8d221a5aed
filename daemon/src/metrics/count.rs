//! How many records there are. Counting reads every key, so it takes a tenth of the time at most, on a
//! thread that steps back for others, and nobody waits for it for long.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use op_dbus_engine::Store;

use crate::audit::step_back;

/// Of so much time one part is spent counting.
const TIME_PARTS: u32 = 10;
/// How long whoever asks waits for a count.
const PATIENCE: Duration = Duration::from_secs(1);

/// Records of each collection, by name.
pub(super) type Records = Vec<(String, u64)>;

/// What was counted last, and who counts.
#[derive(Default)]
pub(super) struct Counts {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    counted: Condvar,
    is_over: AtomicBool,
}

#[derive(Default)]
struct State {
    records: Option<Records>,
    is_counting: bool,
    /// Not before this they are counted again.
    due: Option<Instant>,
    counting: Option<JoinHandle<()>>,
}

impl Counts {
    /// Records as they were counted last, now if it is time; none as long as the first count goes on.
    pub(super) fn records(&self, store: &Arc<Store>) -> Option<Records> {
        let mut state = self.shared.lock();
        let is_due = state.due.is_none_or(|due| due <= Instant::now());
        if is_due && !state.is_counting {
            let (store, shared) = (Arc::clone(store), Arc::clone(&self.shared));
            let named = std::thread::Builder::new().name("count".to_owned());
            match named.spawn(move || shared.count(&store)) {
                Ok(counting) => (state.counting, state.is_counting) = (Some(counting), true),
                Err(error) => tracing::warn!(%error, "records are not counted"),
            }
        }
        let is_counting = |state: &mut State| state.is_counting;
        let waited = self.shared.counted.wait_timeout_while(state, PATIENCE, is_counting);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.records.clone()
    }
}

impl Drop for Counts {
    /// The store is not needed here any more, and somebody wants to close it.
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        let counting = self.shared.lock().counting.take();
        if let Some(counting) = counting {
            // It panics only by a defect, which its own message has told.
            let _ = counting.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, store: &Store) {
        step_back();
        let begun = Instant::now();
        let counted = store.count_records(&|| !self.is_over.load(Ordering::Relaxed));
        let ended = Instant::now();
        let mut state = self.lock();
        match counted {
            Ok(records) => state.records = records.or_else(|| state.records.take()),
            Err(error) => tracing::warn!(%error, "records are not counted"),
        }
        state.due = Some(ended + (ended - begun) * (TIME_PARTS - 1));
        state.is_counting = false;
        self.counted.notify_all();
    }
}
