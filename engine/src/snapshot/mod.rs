//! Snapshots: what a store was at a moment, kept beside it and open to questions.
//!
//! | file | job |
//! |---|---|
//! | [`copy`] | how directories are copied, by BTRFS or by links |
//! | [`retention`] | which snapshots stay |
//! | this | which snapshots there are, which one is of a moment, which go, and how one comes back |
//!
//! A snapshot is a directory of `snapshots`, with the same parts as a store. It opens as the store
//! would have after a crash at that moment: the log of `@state` has what its tables have not, and what
//! is derived is brought up to date by `changes`. Taking one is the store's
//! ([`Store::take_snapshot`](crate::Store::take_snapshot)), since whoever has it open knows what must
//! be in it.
//!
//! # What holds
//! - What has the file `SNAPSHOT` was opened and found whole; what has not is no snapshot, and is
//!   removed when the next is taken.
//! - Nothing here opens the store: snapshots can be listed, read and deleted while it is in use.
//! - A snapshot is deleted in the order in which it stops being one: its name first.

pub(crate) mod copy;
mod retention;

use std::fs;
use std::path::{Component, Path, PathBuf};

use op_dbus_formats::SnapshotFile;
use op_dbus_formats::snapshot_file::SNAPSHOT_FILE_LEN_BYTES_MAX;
use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::layout::{
    Layout, UNFINISHED_SUFFIX, part_unfinished, snapshot_file, snapshot_unfinished,
};
use crate::os::file::{
    Lock, create_directories, exchange, is_btrfs, read_bounded, room, settle, sync_directory,
};

pub use retention::{Period, Retention};

/// A snapshot of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SnapshotInfo {
    /// Its name: the second in which it was taken, in UTC, such as `20261126T120305Z`.
    pub name: String,
    /// When it was taken, in milliseconds since 1970-01-01 UTC.
    pub taken_unix_ms: u64,
    /// The last change in it.
    pub sequence: u64,
    /// Why it was taken.
    pub reason: String,
    /// Whether it stays until it is deleted by its name.
    pub is_kept: bool,
}

/// What a snapshot takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SnapshotSize {
    /// Bytes of its files.
    pub total_bytes: u64,
    /// Those of them that it shares with nothing: what its deletion gives back.
    pub exclusive_bytes: u64,
}

/// The snapshots of one store.
#[derive(Clone, Debug)]
pub struct Snapshots {
    layout: Layout,
}

impl Snapshots {
    /// Those of the store in this directory.
    #[must_use]
    pub fn of(base: impl Into<PathBuf>) -> Self {
        Self { layout: Layout::new(base) }
    }

    /// The directory of a snapshot.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.layout.snapshots().join(name)
    }

    /// All of them, the earliest first.
    ///
    /// Cost: looks at every file of every snapshot.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] or [`ErrorKind::Denied`] if the directory cannot be read. A snapshot that is
    /// damaged is left out, with a warning in the log.
    pub fn list(&self) -> Result<Vec<SnapshotInfo>> {
        let mut found = Vec::new();
        for name in self.names()? {
            match self.read(&name) {
                Ok(Some(info)) => found.push(info),
                Ok(None) => {}
                Err(error) => tracing::warn!(name, %error, "a snapshot is left out"),
            }
        }
        // Names are those of seconds, and may be used again; so may changes, after a restore.
        found.sort_unstable_by_key(|info: &SnapshotInfo| (info.taken_unix_ms, info.sequence));
        Ok(found)
    }

    /// Names of all directories that may be snapshots.
    fn names(&self) -> Result<Vec<String>> {
        let directory = self.layout.snapshots();
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| Error::io("list", &directory, error))?,
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.collect())
    }

    fn read(&self, name: &str) -> Result<Option<SnapshotInfo>> {
        let path = self.path(name);
        let file = snapshot_file(&path);
        let bytes = match read_bounded(&file, SNAPSHOT_FILE_LEN_BYTES_MAX as u64) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            bytes => bytes?,
        };
        let damaged = |what: &str| {
            Error::new(ErrorKind::Corrupt, format!("the snapshot {} {what}", path.display()))
                .with_remedy("delete it, and use another")
        };
        let snapshot = SnapshotFile::decode(&bytes)
            .map_err(|error| damaged("has a damaged file SNAPSHOT").with_source(error))?;
        let listed = copy::list(&path, &Layout::new(&path).parts())?;
        if (listed.sum, listed.count) != (snapshot.files_sum, snapshot.files_count) {
            return Err(damaged("has other files than when it was taken"));
        }
        Ok(Some(SnapshotInfo {
            name: name.to_owned(),
            taken_unix_ms: snapshot.taken_unix_ms,
            sequence: snapshot.sequence,
            reason: snapshot.reason,
            is_kept: snapshot.is_kept,
        }))
    }

    /// Returns the snapshot with this name.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none, with the names of the latest;
    /// [`ErrorKind::Corrupt`] if it is damaged.
    pub fn named(&self, name: &str) -> Result<SnapshotInfo> {
        check_name(name)?;
        self.read(name)?.ok_or_else(|| self.not_found(&format!("no snapshot {name}")))
    }

    /// Returns the last snapshot that was taken at this moment or before.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none.
    pub fn at(&self, unix_ms: u64) -> Result<SnapshotInfo> {
        let before = self.list()?.into_iter().rfind(|info| info.taken_unix_ms <= unix_ms);
        before.ok_or_else(|| self.not_found("no snapshot that is so old"))
    }

    fn not_found(&self, what: &str) -> Error {
        const SHOWN_COUNT: usize = 5;
        let base = self.layout.base().display();
        let known: Vec<String> =
            self.list().unwrap_or_default().into_iter().map(|i| i.name).collect();
        let latest = &known[known.len().saturating_sub(SHOWN_COUNT)..];
        let remedy = match latest {
            [] => "take one first: op-dbus snapshot create".to_owned(),
            latest => format!("use one of them; the latest are {}", latest.join(", ")),
        };
        Error::new(ErrorKind::NotFound, format!("there is {what} of the store at {base}"))
            .with_remedy(remedy)
    }

    /// Returns what a snapshot takes.
    ///
    /// Cost: asks the file system about every file.
    ///
    /// # Errors
    /// As [`Snapshots::named`].
    pub fn size(&self, name: &str) -> Result<SnapshotSize> {
        self.named(name)?;
        let path = self.path(name);
        copy::size(&Layout::new(&path).parts())
    }

    /// Deletes a snapshot, also one that is kept or damaged.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none; [`ErrorKind::Denied`] if this user may not delete
    /// subvolumes and cannot empty them.
    pub fn delete(&self, name: &str) -> Result<()> {
        check_name(name)?;
        let path = self.path(name);
        if !path.is_dir() {
            return Err(self.not_found(&format!("no snapshot {name}")));
        }
        let unfinished = snapshot_unfinished(&path);
        fs::rename(&path, &unfinished).map_err(|error| Error::io("rename", &path, error))?;
        sync_directory(&self.layout.snapshots())?;
        remove_parts(&unfinished)
    }

    /// Deletes the snapshots that need not stay, and returns their names; those that are kept stay.
    ///
    /// Where less than `retention` wants of the file system is free, the earliest of the others go,
    /// too, until it is or there is only the latest: snapshots hold the room of what was deleted since.
    ///
    /// # Errors
    /// As [`Snapshots::delete`].
    pub fn prune(&self, retention: &Retention) -> Result<Vec<String>> {
        let mut others = self.list()?;
        others.retain(|info| !info.is_kept);
        let mut deleted = retention.surplus(&others);
        deleted.iter().try_for_each(|name| self.delete(name))?;
        others.retain(|info| !deleted.contains(&info.name));
        // The latest stays in any case.
        others.pop();
        for SnapshotInfo { name, .. } in others {
            let base = self.layout.base();
            if !deleted.is_empty() && is_btrfs(base) {
                // What was deleted is free once its transaction has ended.
                settle(base)?;
            }
            let room = room(base)?;
            if room.available_bytes >= retention.free_bytes_min(room.total_bytes) {
                break;
            }
            self.delete(&name)?;
            deleted.push(name);
        }
        Ok(deleted)
    }

    /// Removes what was begun and is no snapshot.
    pub(crate) fn remove_unfinished(&self) -> Result<()> {
        let names = self.names()?;
        let unfinished = names.iter().filter(|name| name.ends_with(UNFINISHED_SUFFIX));
        unfinished.map(|name| self.path(name)).try_for_each(|path| remove_parts(&path))
    }

    /// Makes the store what it was in a snapshot; nobody may have it open.
    ///
    /// What it was until then is gone, unless there is a snapshot of it, too. The store is whole
    /// whenever this is broken off: what is derived is replaced first, and `@state` in one step.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such snapshot; [`ErrorKind::Busy`] if somebody has the
    /// store open; what the disk refuses.
    pub fn restore_in_place(&self, name: &str) -> Result<()> {
        self.named(name)?;
        let _lock = Lock::acquire(&self.layout.lock())?;
        let parts = self.layout.parts();
        let copies: Vec<PathBuf> = parts.iter().map(|part| part_unfinished(part)).collect();
        for (from, copy) in Layout::new(self.path(name)).parts().iter().zip(&copies) {
            copy::remove(copy)?;
            copy::copy_directory(from, copy)?;
        }
        for (part, copy) in parts.iter().zip(&copies) {
            exchange(copy, part)?;
            sync_directory(self.layout.base())?;
        }
        copies.iter().try_for_each(|copy| copy::remove(copy))
    }

    /// Makes a store of a snapshot, in a directory that does not exist or is empty.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such snapshot; [`ErrorKind::Invalid`] if there is
    /// something in the directory; what the disk refuses. What was made until then is removed.
    pub fn restore(&self, name: &str, target: &Path) -> Result<()> {
        self.named(name)?;
        let is_empty = match fs::read_dir(target) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
            entries => entries.map_err(|error| Error::io("list", target, error))?.next().is_none(),
        };
        if !is_empty {
            let context = format!("there is something in {} already", target.display());
            return Err(Error::new(ErrorKind::Invalid, context)
                .with_remedy("name a directory that does not exist; nothing is replaced"));
        }
        create_directories(target)?;
        let (from, to) = (Layout::new(self.path(name)), Layout::new(target));
        let copied = copy_parts(&from, &to);
        if copied.is_err() {
            let made = to.parts().into_iter().chain([to.state_unfinished()]);
            made.filter(|part| part.exists()).try_for_each(|part| copy::remove(&part))?;
        }
        copied
    }
}

/// Copies the parts of a store; what makes it one comes last.
fn copy_parts(from: &Layout, to: &Layout) -> Result<()> {
    for (part, target) in from.parts().iter().zip(to.parts()) {
        let target = if target == to.state() { to.state_unfinished() } else { target };
        copy::copy_directory(part, &target)?;
    }
    let state = to.state();
    fs::rename(to.state_unfinished(), &state)
        .map_err(|error| Error::io("create", &state, error))?;
    sync_directory(to.base())
}

/// Removes a directory of parts.
pub(crate) fn remove_parts(directory: &Path) -> Result<()> {
    for part in Layout::new(directory).parts() {
        if part.exists() {
            copy::remove(&part)?;
        }
    }
    copy::remove(directory)
}

/// Refuses what is no single name of a directory.
fn check_name(name: &str) -> Result<()> {
    let mut parts = Path::new(name).components();
    let is_name = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
    if is_name && !name.ends_with(UNFINISHED_SUFFIX) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Invalid, format!("{name:?} is no name of a snapshot"))
        .with_remedy("see op-dbus snapshot list"))
}
