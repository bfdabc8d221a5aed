//! Snapshots: what a store was at a moment, kept beside it and open to questions.
//!
//! | file | job |
//! |---|---|
//! | [`copy`] | how directories are copied, by BTRFS or by links |
//! | [`retention`] | which snapshots stay |
//! | [`send`], [`receive`], [`spool`] | how they come to another machine |
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
//! - A snapshot that is deleted loses its name first. Links, and directories that have something else
//!   in them, are nobody's snapshots.
//! - Whoever takes, deletes or copies one holds a lock; reading one needs none.

pub(crate) mod copy;
pub(crate) mod receive;
mod retention;
mod send;
mod spool;

use std::fs;
use std::path::{Path, PathBuf};

use op_dbus_formats::snapshot_file::SNAPSHOT_FILE_LEN_BYTES_MAX;
use op_dbus_formats::store_file::STORE_FILE_LEN_BYTES;
use op_dbus_formats::{SnapshotFile, StoreFile};
use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::layout::{
    Layout, UNFINISHED_SUFFIX, part_unfinished, restoring_mark, snapshot_file, snapshot_incoming,
    snapshot_shared, snapshot_unfinished, store_file,
};
use crate::os::file::{
    Lock, create_directories, create_synced, exchange, is_real_directory, read_bounded,
    remove_if_there, room, sync_directory,
};

pub use retention::{Period, Retention};
pub use send::{SendOptions, Transfer, TransferProgress};

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
    /// Whether it was sent to another machine, or came from one: the next can be sent as an increment on
    /// it.
    pub is_shared: bool,
}

/// What a snapshot takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SnapshotSize {
    /// Bytes of its files.
    pub total_bytes: u64,
    /// Those of them that it shares with nothing: what its deletion gives back, less what the file
    /// system has compressed.
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
        let finished = self.names()?.into_iter().filter(|name| !name.ends_with(UNFINISHED_SUFFIX));
        for name in finished {
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
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        let directory = self.layout.snapshots();
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| Error::io("list", &directory, error))?,
        };
        let name = |entry: std::io::Result<fs::DirEntry>| {
            // A link is nobody's snapshot.
            let entry =
                entry.ok().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            entry?.file_name().into_string().ok()
        };
        Ok(entries.filter_map(name).collect())
    }

    /// What a snapshot says about itself; `None` if there is none with this name.
    fn file(&self, name: &str) -> Result<Option<SnapshotFile>> {
        let path = self.path(name);
        let bytes = match read_bounded(&snapshot_file(&path), SNAPSHOT_FILE_LEN_BYTES_MAX as u64) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            bytes => bytes?,
        };
        let decoded = SnapshotFile::decode(&bytes);
        decoded
            .map(Some)
            .map_err(|error| damaged(&path, "has a damaged file SNAPSHOT").with_source(error))
    }

    fn read(&self, name: &str) -> Result<Option<SnapshotInfo>> {
        let Some(snapshot) = self.file(name)? else { return Ok(None) };
        let path = self.path(name);
        if self.store_id().is_some_and(|store_id| store_id != snapshot.store_id) {
            let context = format!("the snapshot {} is of another store", path.display());
            return Err(Error::new(ErrorKind::Invalid, context).with_remedy(
                "move it, or the store beside it, to a directory of its own; nothing is damaged",
            ));
        }
        let listed = copy::list(&path, &Layout::new(&path).parts())?;
        if (listed.sum, listed.count) != (snapshot.files_sum, snapshot.files_count) {
            return Err(damaged(&path, "has other files than when it was taken"));
        }
        Ok(Some(SnapshotInfo {
            name: name.to_owned(),
            taken_unix_ms: snapshot.taken_unix_ms,
            sequence: snapshot.sequence,
            reason: snapshot.reason,
            is_kept: snapshot.is_kept,
            is_shared: snapshot_shared(&path).exists(),
        }))
    }

    /// Whether there is any, of whatever store.
    pub(crate) fn are_there(&self) -> bool {
        self.names()
            .is_ok_and(|names| names.iter().any(|name| self.file(name).is_ok_and(|f| f.is_some())))
    }

    /// The store that they are of; none if it is lost.
    fn store_id(&self) -> Option<[u8; 16]> {
        let bytes = read_bounded(&store_file(&self.layout.state()), STORE_FILE_LEN_BYTES as u64);
        Some(StoreFile::decode(&bytes.ok()?).ok()?.store_id)
    }

    /// Waits until nobody else takes, deletes or copies a snapshot.
    pub(crate) fn lock(&self) -> Result<Lock> {
        create_directories(&self.layout.snapshots())?;
        Lock::wait_for(&self.layout.snapshots_lock())
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

    /// Deletes a snapshot, also one that is kept or damaged, or what has come of one that was being
    /// received.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none; [`ErrorKind::Denied`] if this user may not delete
    /// subvolumes and cannot empty them.
    pub fn delete(&self, name: &str) -> Result<()> {
        check_name(name)?;
        // Where there are none, asking makes no place for them.
        if !is_real_directory(&self.path(name)) {
            let incoming = snapshot_incoming(&self.path(name));
            if incoming.exists() {
                return spool::remove(&incoming);
            }
            return Err(self.not_found(&format!("no snapshot {name}")));
        }
        let _lock = self.lock()?;
        self.delete_locked(name)
    }

    fn delete_locked(&self, name: &str) -> Result<()> {
        let path = self.path(name);
        if !is_real_directory(&path) || !has_only_parts(&path) {
            return Err(self.not_found(&format!("no snapshot {name}")));
        }
        let unfinished = snapshot_unfinished(&path);
        fs::rename(&path, &unfinished).map_err(|error| Error::io("rename", &path, error))?;
        remove_if_there(&snapshot_shared(&path))?;
        sync_directory(&self.layout.snapshots())?;
        remove_parts(&unfinished)
    }

    /// Deletes the snapshots that need not stay, and returns their names; those that are kept stay, and
    /// so does the last that was sent, as the next is an increment on it, and the one that it was itself
    /// an increment on, lest it did not arrive.
    ///
    /// Where less than `retention` wants of the file system is free, the earliest of the others goes,
    /// too, unless it is the latest: snapshots hold the room of what was deleted since. It is one each
    /// time, because BTRFS gives its room back later.
    ///
    /// # Errors
    /// As [`Snapshots::delete`].
    pub fn prune(&self, retention: &Retention) -> Result<Vec<String>> {
        if !is_real_directory(&self.layout.snapshots()) {
            return Ok(Vec::new());
        }
        let _lock = self.lock()?;
        let mut others = self.list()?;
        let sent = others.iter().rfind(|info| info.is_shared).map(|info| info.name.clone());
        let its_parent = |name: &String| fs::read_to_string(snapshot_shared(&self.path(name))).ok();
        let parents = [sent.as_ref().and_then(its_parent), sent.clone()];
        others.retain(|info| !info.is_kept && !parents.contains(&Some(info.name.clone())));
        let mut going = retention.surplus(&others);
        others.retain(|info| !going.contains(&info.name));
        let room = room(self.layout.base())?;
        if others.len() > 1 && room.available_bytes < retention.free_bytes_min(room.total_bytes) {
            going.push(others.swap_remove(0).name);
        }
        going.iter().try_for_each(|name| self.delete_locked(name))?;
        Ok(going)
    }

    /// Removes what was begun and is no snapshot.
    pub(crate) fn remove_unfinished(&self) -> Result<()> {
        let names = self.names()?;
        let unfinished = names.iter().filter(|name| name.ends_with(UNFINISHED_SUFFIX));
        // What somebody else has put there stays.
        let ours = unfinished.map(|name| self.path(name)).filter(|path| has_only_parts(path));
        ours.into_iter().try_for_each(|path| remove_parts(&path))
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
        if !self.layout.state().is_dir() {
            let context = format!("there is no store at {}", self.layout.base().display());
            return Err(Error::new(ErrorKind::NotFound, context)
                .with_remedy("make one of the snapshot elsewhere, with --to DIR"));
        }
        let _snapshots_lock = self.lock()?;
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

    /// Makes a store of a snapshot, in a directory that does not exist or is empty, or where the same was
    /// broken off before.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such snapshot; [`ErrorKind::Invalid`] if there is
    /// something in the directory; what the disk refuses. What was made until then is removed.
    pub fn restore(&self, name: &str, target: &Path) -> Result<()> {
        self.named(name)?;
        let _snapshots_lock = self.lock()?;
        self.named(name)?;
        self.refuse_inside(target)?;
        create_directories(target)?;
        let (from, to) = (Layout::new(self.path(name)), Layout::new(target));
        let _lock = Lock::acquire(&to.lock())?;
        let made = [to.vectors(), to.timing(), to.cache(), to.state_unfinished()];
        let mark = restoring_mark(target);
        let is_begun = mark.exists() && !to.state().exists();
        let is_expected = |path: &PathBuf| {
            *path == to.lock() || is_begun && (*path == mark || made.contains(path))
        };
        let mut entries = fs::read_dir(target).map_err(|error| Error::io("list", target, error))?;
        if !entries.all(|entry| entry.is_ok_and(|entry| is_expected(&entry.path()))) {
            let context = format!("there is something in {} already", target.display());
            return Err(Error::new(ErrorKind::Invalid, context)
                .with_remedy("name a directory that does not exist; nothing is replaced"));
        }
        made.iter().try_for_each(|part| copy::remove(part))?;
        if !is_begun {
            create_synced(&mark, b"")?;
            sync_directory(target)?;
        }
        let copied = copy_parts(&from, &to);
        if copied.is_err() && !to.state().exists() {
            for part in &made {
                copy::remove(part).unwrap_or_else(|error| tracing::warn!(%error, "it stays"));
            }
        }
        copied.and(remove_if_there(&mark))
    }

    /// What would be made inside the store would go with it.
    fn refuse_inside(&self, target: &Path) -> Result<()> {
        let absolute =
            |path: &Path| std::path::absolute(path).map_err(|error| Error::io("find", path, error));
        // What is not there yet is where the nearest that is there leads.
        let target = absolute(target)?;
        let there = target.ancestors().find_map(|path| path.canonicalize().ok());
        let base = self.layout.base().canonicalize().or_else(|_| absolute(self.layout.base()))?;
        if !there.is_some_and(|there| there.starts_with(&base)) && !target.starts_with(&base) {
            return Ok(());
        }
        let context = format!("{} is inside the store", target.display());
        Err(Error::new(ErrorKind::Invalid, context).with_remedy("name a directory elsewhere"))
    }
}

fn damaged(snapshot: &Path, what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the snapshot {} {what}", snapshot.display()))
        .with_remedy("delete it, and use another")
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

/// Whether there is nothing in a directory but what a snapshot has.
fn has_only_parts(directory: &Path) -> bool {
    let parts = Layout::new(directory).parts();
    let known = |path: PathBuf| path == snapshot_file(directory) || parts.contains(&path);
    fs::read_dir(directory)
        .is_ok_and(|mut entries| entries.all(|entry| entry.is_ok_and(|entry| known(entry.path()))))
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

/// Refuses what is no name of a snapshot.
fn check_name(name: &str) -> Result<()> {
    // What lies beside a snapshot has its name and a suffix.
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if !name.is_empty() && name.bytes().all(is_of_name) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Invalid, format!("{name:?} is no name of a snapshot"))
        .with_remedy("see op-dbus snapshot list"))
}
