//! Epochs: when nobody can read any more what was taken out.
//!
//! A reader notes the current epoch in a cache line of its own thread, reads, and takes the note
//! away. The writer takes something out, ends the epoch, and uses its memory again when no thread
//! has a note of that epoch or an earlier one.
//!
//! Why it is right: a reader notes, passes a full fence and looks; the writer takes out, passes a
//! full fence and looks for notes. So either the writer sees the note, or the reader sees that the
//! thing is gone. And whoever notes a later epoch has seen its beginning, so also what was taken
//! out before it. (The scheme is that of quiescent states, McKenney & Slingwine 1998, and of
//! epochs, Fraser 2004.)
//!
//! Why not crossbeam-epoch, whose readers are as fast: there, whoever reads cleans up now and then,
//! so that a lookup may free memory, and nobody can ask whether what he took out is free by now.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Mutex, PoisonError};

/// No note: epochs begin with 1.
const NOT_READING: u64 = 0;

/// The current epoch, of all arenas of the process.
static CURRENT: AtomicU64 = AtomicU64::new(1);
/// Every note there is. Kept forever, because a reader's note has to outlive nothing but the
/// process; one whose thread has ended serves the next thread.
static NOTES: Mutex<Vec<&'static Note>> = Mutex::new(Vec::new());

thread_local! {
    static OWN: Own = const { Own(Cell::new(None)) };
}

/// What one thread says about its reading. Two cache lines, as processors fetch them in pairs.
#[repr(align(128))]
struct Note {
    epoch: AtomicU64,
    /// Guards of the thread. Only the owner touches it.
    depth: AtomicU32,
    owned: AtomicBool,
}

/// The note of a thread, which is free for another when the thread ends.
struct Own(Cell<Option<&'static Note>>);

/// While it lives, what its thread finds stays.
pub(super) struct Guard {
    note: &'static Note,
    /// Whether the note is the guard's alone and not its thread's.
    borrowed: bool,
    // Its note belongs to the thread.
    _not_send: PhantomData<*const ()>,
}

/// Begins to read.
#[inline]
pub(super) fn pin() -> Guard {
    match OWN.try_with(|own| own.0.get()) {
        Ok(Some(note)) => Guard::new(note, false),
        own => pin_first(own.is_ok()),
    }
}

/// The first time in a thread, or when the thread is ending and has no note any more.
#[cold]
fn pin_first(thread_lives: bool) -> Guard {
    let note = Note::take();
    if thread_lives {
        OWN.with(|own| own.0.set(Some(note)));
    }
    Guard::new(note, !thread_lives)
}

impl Guard {
    #[inline]
    fn new(note: &'static Note, borrowed: bool) -> Self {
        let depth = note.depth.load(Ordering::Relaxed);
        note.depth.store(depth + 1, Ordering::Relaxed);
        if depth == 0 {
            note.epoch.store(CURRENT.load(Ordering::Acquire), Ordering::Relaxed);
            // The note comes before whatever is read.
            fence(Ordering::SeqCst);
        }
        Self { note, borrowed, _not_send: PhantomData }
    }
}

impl Drop for Guard {
    #[inline]
    fn drop(&mut self) {
        let depth = self.note.depth.load(Ordering::Relaxed) - 1;
        self.note.depth.store(depth, Ordering::Relaxed);
        if depth == 0 {
            // After whatever was read.
            self.note.epoch.store(NOT_READING, Ordering::Release);
        }
        if self.borrowed {
            self.note.owned.store(false, Ordering::Release);
        }
    }
}

impl Note {
    fn take() -> &'static Self {
        let mut notes = NOTES.lock().unwrap_or_else(PoisonError::into_inner);
        let free = notes.iter().find(|note| !note.owned.swap(true, Ordering::Acquire));
        if let Some(note) = free {
            return note;
        }
        let note: &'static Self = Box::leak(Box::new(Self {
            epoch: AtomicU64::new(NOT_READING),
            depth: AtomicU32::new(0),
            owned: AtomicBool::new(true),
        }));
        notes.push(note);
        note
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Some(note) = self.0.get() {
            note.owned.store(false, Ordering::Release);
        }
    }
}

/// Ends the current epoch and returns it: what was taken out before belongs to it.
pub(super) fn end() -> u64 {
    CURRENT.fetch_add(1, Ordering::SeqCst)
}

/// The epoch of which, and of all before, nobody reads any more.
pub(super) fn last_unread() -> u64 {
    let newest = CURRENT.load(Ordering::SeqCst) - 1;
    // What was taken out comes before looking for notes.
    fence(Ordering::SeqCst);
    let notes = NOTES.lock().unwrap_or_else(PoisonError::into_inner);
    let noted = notes.iter().map(|note| note.epoch.load(Ordering::Acquire));
    noted.filter(|&epoch| epoch != NOT_READING).map(|epoch| epoch - 1).fold(newest, u64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tests of other modules run at the same time, but none holds a guard for long.
    fn becomes_unread(epoch: u64) -> bool {
        (0..1000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(1));
            last_unread() >= epoch
        })
    }

    #[test]
    fn a_guard_keeps_its_epoch_and_later_ones() {
        let outer = pin();
        let inner = pin();
        let epoch = end();
        drop(inner);
        assert!(last_unread() < epoch);
        drop(outer);
        assert!(becomes_unread(epoch));
    }

    #[test]
    fn a_later_guard_does_not_keep_an_earlier_epoch() {
        let epoch = end();
        let _later = pin();
        assert!(becomes_unread(epoch));
    }

    #[test]
    fn a_thread_that_ends_leaves_its_note_to_the_next() {
        let notes_count = || NOTES.lock().unwrap().len();
        std::thread::spawn(|| drop(pin())).join().unwrap();
        let before = notes_count();
        for _ in 0..100 {
            std::thread::spawn(|| drop(pin())).join().unwrap();
        }
        // Other tests have threads of their own.
        assert!(notes_count() < before + 50);
    }
}
