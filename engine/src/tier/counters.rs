//! Counters that readers on many threads add to without disturbing each other.
//!
//! An atomic addition would make the processor wait until everything before it is done, which is
//! as long as the rest of a hit. So each thread has a cache line of its own in each counter, which
//! nobody else writes; threads beyond the number of lines share one and add atomically.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// Lines that belong to one thread each: as many as a word has bits.
const OWNED_COUNT: usize = u64::BITS as usize;
/// The line of all others.
const SHARED: usize = OWNED_COUNT;

/// The lines that have an owner, a bit each.
static OWNED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static LINE: Line = const { Line(Cell::new(None)) };
}

/// The line of a thread, which it gives back when it ends.
struct Line(Cell<Option<usize>>);

impl Line {
    #[inline]
    fn get(&self) -> usize {
        match self.0.get() {
            Some(line) => line,
            None => self.take(),
        }
    }

    #[cold]
    fn take(&self) -> usize {
        let first_free = |owned: u64| (owned != u64::MAX).then(|| owned | (owned + 1));
        let taken = OWNED.fetch_update(Ordering::Acquire, Ordering::Relaxed, first_free);
        let line = taken.map_or(SHARED, |owned| owned.trailing_ones() as usize);
        self.0.set(Some(line));
        line
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(line) = self.0.get().filter(|&line| line != SHARED) {
            // What was counted is seen by the next owner.
            OWNED.fetch_and(!(1 << line), Ordering::Release);
        }
    }
}

/// Two cache lines, because processors fetch lines in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Part(AtomicU64);

/// A sum whose parts lie in cache lines of their own.
pub(crate) struct Counter {
    parts: Box<[Part]>,
}

impl Default for Counter {
    fn default() -> Self {
        Self { parts: (0..=OWNED_COUNT).map(|_| Part::default()).collect() }
    }
}

impl Counter {
    #[inline]
    pub(crate) fn add_one(&self) {
        // A thread that is ending has no line any more.
        let line = LINE.try_with(Line::get).unwrap_or(SHARED);
        let part = &self.parts[line].0;
        if line == SHARED {
            part.fetch_add(1, Ordering::Relaxed);
        } else {
            part.store(part.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }

    pub(crate) fn sum(&self) -> u64 {
        self.parts.iter().map(|part| part.0.load(Ordering::Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn nothing_is_lost_between_threads() {
        let counter = Counter::default();
        // More than there are lines, at the same time and one after the other.
        let all_begin = Barrier::new(OWNED_COUNT + 20);
        let count = || {
            counter.add_one();
            // Each has its line by now, and keeps it.
            all_begin.wait();
            (1..1000).for_each(|_| counter.add_one());
        };
        for _ in 0..3 {
            std::thread::scope(|scope| {
                (0..OWNED_COUNT + 20).for_each(|_| _ = scope.spawn(count));
            });
        }
        assert_eq!(counter.sum(), 3000 * (OWNED_COUNT as u64 + 20));
    }
}
