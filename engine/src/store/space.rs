//! Room on the disk: puts are refused before it ends, and removals outlive those who took it all.
//!
//! A write that fails for want of room leaves nobody knowing what reached the disk, so that it
//! poisons the store. Therefore no write is tried that is not likely to find room. Puts leave the
//! headroom that RocksDB needs to write out what it holds in memory. Whatever others leave, there
//! is the *ballast*: a file without content whose room is thrown out when a removal, or the next
//! opening, finds none, and taken back before anything is put again.
//!
//! The ballast lies beside `@state`, not in it: a snapshot of `@state` would go on holding its
//! room. It is allocated and never written, because a file system that compresses would make
//! nothing of zeros, and it has no length, so that copies of the store do not carry it.
//!
//! While removals live on the ballast, RocksDB does not compact: it would take the ballast's room
//! for tables that it cannot finish. So on a disk that others have filled, room comes from others.
//!
//! BTRFS says of room only what it has counted, so near the end it is asked to count first.
//!
//! What this lacks: a reservation. Others may take the room between the look and the write; then
//! the write fails, and the store is poisoned as after any failed write.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::lock;
use crate::error::{Error, ErrorKind, Result};
use crate::layout::Layout;
use crate::os::file::{self, Room};

/// What opening takes: both databases write out what their logs hold, and begin new logs.
const OPENING_BYTES: u64 = 96 << 20;
/// What RocksDB needs for that, and for the compaction that it does most, of four new tables into
/// the 256 MiB of the first level. A larger one may fail for want of room; RocksDB tries it again
/// when there is some.
const HEADROOM_MAX_BYTES: u64 = OPENING_BYTES + (320 << 20);
/// What a store without records needs: the logs of both databases are allocated in advance.
const HEADROOM_MIN_BYTES: u64 = 48 << 20;
/// Of a small disk the headroom takes no more than this part.
const HEADROOM_PARTS: u64 = 4;
/// Enough to open a store on a full disk: `@state` writes out 32 MiB, and RocksDB allocates the new
/// log in advance. With 32 MiB the 40th full disk or so was one on which the store did not open.
const BALLAST_MAX_BYTES: u64 = 64 << 20;
/// Less would not carry RocksDB through one flush.
const BALLAST_MIN_BYTES: u64 = 4 << 20;
/// Of a small disk the ballast takes no more than this part.
const BALLAST_PARTS: u64 = 8;
/// Below this the ballast goes: RocksDB needs as much as it writes out at once to recover from a
/// full disk.
const REMOVAL_BYTES: u64 = 20 << 20;
/// A removal writes a few hundred bytes. With less room than this it is not tried.
const REMOVAL_MIN_BYTES: u64 = 256 << 10;

/// What RocksDB may have written that the file system does not count yet: by each of two jobs in
/// the background, a table. (Of 64 MiB that were written and not synced, BTRFS counted nothing.)
const UNCOUNTED_MAX_BYTES: u64 = 128 << 20;

/// Watches the room on the disk of one store.
pub(super) struct Space {
    base: PathBuf,
    ballast_path: PathBuf,
    ballast: Mutex<Ballast>,
    /// Whether a write has found little room since RocksDB was last seen to accept writes.
    short: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ballast {
    There,
    Out,
    /// This file system has no use for it, or cannot allocate.
    Impossible,
}

/// Whether RocksDB has to be asked if it accepts writes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admitted {
    Freely,
    AfterShortage,
}

impl Space {
    /// Makes room for opening the databases: RocksDB writes out what it finds in its log.
    pub(super) fn prepare(layout: &Layout) -> Self {
        let ballast_path = layout.ballast();
        // One that a crash has left without its room is none.
        let is_there = file::allocated_bytes(&ballast_path) >= BALLAST_MIN_BYTES;
        let ballast = Mutex::new(if is_there { Ballast::There } else { Ballast::Out });
        let base = layout.base().to_owned();
        let space = Self { base, ballast_path, ballast, short: AtomicBool::new(false) };
        if space.admit_removal() == Admitted::AfterShortage {
            space.throw_out(&mut lock(&space.ballast));
        }
        space
    }

    /// The room of what nobody writes to.
    pub(super) fn unused(layout: &Layout) -> Self {
        Self {
            base: layout.base().to_owned(),
            ballast_path: layout.ballast(),
            ballast: Mutex::new(Ballast::Impossible),
            short: AtomicBool::new(false),
        }
    }

    /// Refuses to write so many bytes if they would not leave the headroom of a database of this
    /// size, which is asked for only if that matters, and the ballast, which is taken back first.
    pub(super) fn admit_put(
        &self,
        bytes: u64,
        database_bytes: impl FnOnce() -> u64,
    ) -> Result<Admitted> {
        // They lie on the disk twice: in the log and in a table, until the log is removed.
        let put_bytes = bytes.saturating_mul(2);
        let most = |room| {
            let headroom_bytes = headroom_bytes(room, u64::MAX);
            headroom_bytes.saturating_add(put_bytes).saturating_add(ballast_bytes(room))
        };
        let Some(room) = self.room_beyond(most) else { return Ok(Admitted::Freely) };
        let mut ballast = lock(&self.ballast);
        let is_out = *ballast == Ballast::Out;
        let kept_bytes = if is_out { self.possible_bytes(room) } else { 0 };
        let needed = |database_bytes| {
            headroom_bytes(room, database_bytes)
                .saturating_add(put_bytes)
                .saturating_add(kept_bytes)
        };
        let mut needed_bytes = needed(u64::MAX);
        if room.available_bytes < needed_bytes {
            needed_bytes = needed(database_bytes());
        }
        if room.available_bytes < needed_bytes {
            self.short.store(true, Ordering::Relaxed);
            return Err(self.full(room, needed_bytes));
        }
        if is_out {
            self.take(&mut ballast, room);
        }
        Ok(self.admitted())
    }

    /// Says whether a removal can be written at once, or whether room has to be made for it.
    pub(super) fn admit_removal(&self) -> Admitted {
        if !self.is_relaxed() {
            self.short.store(true, Ordering::Relaxed);
        }
        self.admitted()
    }

    /// Gives up the ballast if a removal needs it; says whether it does.
    pub(super) fn relieve(&self) -> bool {
        let needed = !self.has_room_for(REMOVAL_BYTES);
        if needed {
            self.throw_out(&mut lock(&self.ballast));
        }
        needed
    }

    /// Whether there is room enough to work on tables.
    pub(super) fn is_relaxed(&self) -> bool {
        let enough =
            |room: Room| room.available_bytes >= OPENING_BYTES.min(headroom_bytes(room, u64::MAX));
        self.room().is_none_or(enough)
    }

    /// Waits for room that a removal can be written to and that is about to come: a compaction that
    /// found none gives back what it had taken about a second later.
    pub(super) fn await_room(&self) -> Result<()> {
        const PATIENCE: Duration = Duration::from_secs(5);
        const PAUSE: Duration = Duration::from_millis(250);
        let started = Instant::now();
        loop {
            match self.room() {
                Some(room) if room.available_bytes < REMOVAL_MIN_BYTES => {
                    if started.elapsed() > PATIENCE {
                        return Err(self.full(room, REMOVAL_MIN_BYTES));
                    }
                }
                _ => return Ok(()),
            }
            if let Err(error) = file::settle(&self.base) {
                tracing::debug!(%error, "the room of removed files may come later");
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Whether so many bytes can be written.
    pub(super) fn has_room_for(&self, bytes: u64) -> bool {
        self.room_beyond(|_| bytes).is_none_or(|room| room.available_bytes >= bytes)
    }

    /// Remembers what RocksDB has answered after a shortage.
    pub(super) fn note_accepts_writes(&self, accepts: bool) {
        self.short.store(!accepts, Ordering::Relaxed);
    }

    fn admitted(&self) -> Admitted {
        if self.short.load(Ordering::Relaxed) { Admitted::AfterShortage } else { Admitted::Freely }
    }

    /// `None` where the file system does not say: then nothing is refused.
    fn room(&self) -> Option<Room> {
        let room = file::room(&self.base);
        room.inspect_err(|error| tracing::debug!(%error, "cannot tell the room on the disk")).ok()
    }

    /// The room; where it may end before so many bytes, what was written last is counted first.
    fn room_beyond(&self, bytes: impl FnOnce(Room) -> u64) -> Option<Room> {
        let room = self.room()?;
        let is_near = room.available_bytes < bytes(room).saturating_add(UNCOUNTED_MAX_BYTES);
        if !is_near || !file::counts_late(&self.base) {
            return Some(room);
        }
        if let Err(error) = file::settle(&self.base) {
            tracing::debug!(%error, "what was written last is not counted");
        }
        self.room()
    }

    /// The length of the ballast; 0 if there is none here.
    fn possible_bytes(&self, room: Room) -> u64 {
        let bytes = ballast_bytes(room);
        if bytes < BALLAST_MIN_BYTES || file::is_in_memory(&self.base) { 0 } else { bytes }
    }

    fn take(&self, ballast: &mut MutexGuard<'_, Ballast>, room: Room) {
        let bytes = self.possible_bytes(room);
        **ballast = Ballast::Impossible;
        if bytes == 0 {
            return;
        }
        match file::allocate(&self.ballast_path, bytes) {
            Ok(()) => **ballast = Ballast::There,
            // Somebody else has taken the room meanwhile.
            Err(error) if error.kind() == ErrorKind::Full => **ballast = Ballast::Out,
            Err(error) => tracing::debug!(%error, "no room is kept for a full disk"),
        }
    }

    fn throw_out(&self, ballast: &mut MutexGuard<'_, Ballast>) {
        if **ballast != Ballast::There {
            return;
        }
        match self.remove_ballast() {
            Ok(()) => {
                **ballast = Ballast::Out;
                tracing::warn!(store = %self.base.display(), "the disk is full: the ballast is out");
            }
            // Somebody has thrown it out already.
            Err(error) if error.kind() == ErrorKind::NotFound => **ballast = Ballast::Out,
            Err(error) => tracing::warn!(%error, "the ballast cannot be thrown out"),
        }
    }

    fn remove_ballast(&self) -> Result<()> {
        file::remove(&self.ballast_path)?;
        file::settle(&self.base)
    }

    fn full(&self, room: Room, needed_bytes: u64) -> Error {
        let (available, base) = (room.available_bytes, self.base.display());
        Error::new(
            ErrorKind::Full,
            format!("{available} bytes are free on the disk of {base}, and {needed_bytes} needed"),
        )
        .with_remedy(
            "free space on this file system, or remove records: their room comes back when they are \
             compacted away; nothing was written",
        )
    }
}

fn headroom_bytes(room: Room, database_bytes: u64) -> u64 {
    HEADROOM_MIN_BYTES
        .saturating_add(database_bytes)
        .min(HEADROOM_MAX_BYTES)
        .min(room.total_bytes / HEADROOM_PARTS)
}

fn ballast_bytes(room: Room) -> u64 {
    BALLAST_MAX_BYTES.min(room.total_bytes / BALLAST_PARTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn disk(total_bytes: u64) -> Room {
        Room { available_bytes: total_bytes, total_bytes }
    }

    #[test]
    fn small_disks_and_small_stores_need_little() {
        assert_eq!(headroom_bytes(disk(100 * GIB), 50 * GIB), HEADROOM_MAX_BYTES);
        assert_eq!(headroom_bytes(disk(100 * GIB), 1), HEADROOM_MIN_BYTES + 1);
        assert_eq!(headroom_bytes(disk(GIB), u64::MAX), GIB / 4);
        assert_eq!(ballast_bytes(disk(100 * GIB)), BALLAST_MAX_BYTES);
        assert!(ballast_bytes(disk(16 << 20)) < BALLAST_MIN_BYTES);
    }

    #[test]
    fn more_than_the_disk_holds_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let space = Space::prepare(&Layout::new(directory.path()));
        let error = space.admit_put(u64::MAX, || 0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full);
        assert!(error.remedy().is_some());
        assert!(!directory.path().join("BALLAST").exists(), "no room is taken where there is none");
    }

    #[test]
    fn the_ballast_holds_room_until_it_is_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("BALLAST");
        if file::allocate(&path, BALLAST_MIN_BYTES).is_err() {
            // This file system cannot, so that stores on it have no ballast.
            return;
        }
        assert!(file::allocated_bytes(&path) >= BALLAST_MIN_BYTES);
        let space = Space::prepare(&Layout::new(directory.path()));
        // With little room it is out already.
        space.throw_out(&mut lock(&space.ballast));
        assert!(!path.exists() && *lock(&space.ballast) == Ballast::Out);
        space.throw_out(&mut lock(&space.ballast));
    }
}
