//! How much memory hot vectors may take, all pools together.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::policy::{HIGH_WATER_PERCENT, LOW_WATER_PERCENT};

/// Bytes given and taken, and the bell that calls whoever demotes.
pub(crate) struct Budget {
    capacity_bytes: usize,
    used_bytes: AtomicUsize,
    /// What pools have memory for, used or not.
    granted_bytes: AtomicUsize,
    bell: Mutex<Bell>,
    rung: Condvar,
}

#[derive(Default)]
struct Bell {
    wanted: bool,
    starved: bool,
    closed: bool,
}

/// Why the one who demotes woke up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// Nobody called in time.
    Nobody,
    /// There is too little room for who comes in.
    Room,
    /// A pool was refused memory: take some that others have and do not use.
    Memory,
    /// Go home.
    Closed,
}

impl Budget {
    pub(super) fn new(capacity_bytes: usize) -> Self {
        Self {
            capacity_bytes,
            used_bytes: AtomicUsize::new(0),
            granted_bytes: AtomicUsize::new(0),
            bell: Mutex::default(),
            rung: Condvar::new(),
        }
    }

    pub(crate) fn capacity_bytes(&self) -> usize {
        self.capacity_bytes
    }

    pub(crate) fn used_bytes(&self) -> usize {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Whether demotion is due.
    pub(super) fn is_high(&self) -> bool {
        self.used_bytes() > part(self.capacity_bytes, HIGH_WATER_PERCENT)
    }

    /// Whether whoever comes in takes another's place: see [`Water::is_full`](super::policy::Water).
    pub(crate) fn is_full(&self) -> bool {
        self.used_bytes() >= part(self.capacity_bytes, LOW_WATER_PERCENT)
    }

    /// Whether demotion has to go on.
    pub(super) fn is_above_low(&self) -> bool {
        self.used_bytes() > part(self.capacity_bytes, LOW_WATER_PERCENT)
    }

    pub(super) fn add(&self, bytes: usize) {
        let was_high = self.is_high();
        self.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        if !was_high && self.is_high() {
            self.ask_for_room();
        }
    }

    pub(super) fn subtract(&self, bytes: usize) {
        self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Lets a pool take so much memory, or calls whoever can get it from others.
    pub(super) fn grant(&self, bytes: usize) -> bool {
        let granted =
            self.granted_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |sum| {
                sum.checked_add(bytes).filter(|sum| *sum <= self.capacity_bytes)
            });
        if granted.is_err() {
            self.ring(|bell| bell.starved = true);
        }
        granted.is_ok()
    }

    /// Takes memory back from a pool.
    pub(super) fn take_back(&self, bytes: usize) {
        self.granted_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Calls whoever demotes.
    pub(super) fn ask_for_room(&self) {
        self.ring(|bell| bell.wanted = true);
    }

    /// Sends whoever demotes home.
    pub(super) fn close(&self) {
        self.ring(|bell| bell.closed = true);
    }

    fn ring(&self, change: impl FnOnce(&mut Bell)) {
        change(&mut self.bell.lock().unwrap_or_else(PoisonError::into_inner));
        self.rung.notify_all();
    }

    /// Waits until somebody calls, but no longer than this.
    pub(super) fn wait(&self, longest: Duration) -> Call {
        let bell = self.bell.lock().unwrap_or_else(PoisonError::into_inner);
        let quiet = |bell: &mut Bell| !bell.wanted && !bell.starved && !bell.closed;
        let (mut bell, _) = self
            .rung
            .wait_timeout_while(bell, longest, quiet)
            .unwrap_or_else(PoisonError::into_inner);
        if bell.closed {
            Call::Closed
        } else if std::mem::take(&mut bell.starved) {
            bell.wanted = false;
            Call::Memory
        } else if std::mem::take(&mut bell.wanted) {
            Call::Room
        } else {
            Call::Nobody
        }
    }
}

fn part(bytes: usize, percent: u64) -> usize {
    // Dividing first keeps it in range; what is lost is less than a slot.
    bytes / 100 * percent as usize
}
