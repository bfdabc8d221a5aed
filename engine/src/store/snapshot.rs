//! Taking a snapshot of a store that is in use.
//!
//! On BTRFS nobody waits: each part is copied by the file system as it is at one moment, `@state`
//! last. What RocksDB's tables do not have yet is in its log, of which all that was acknowledged is
//! in the copy. Elsewhere the databases make copies of themselves, of tables by links.

use std::fs;
use std::io::Read;
use std::path::Path;

use op_dbus_formats::SnapshotFile;

use super::open::read_store_file;
use super::{Store, StoreConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::layout::{
    Layout, acknowledged_file, database, manifest_file, snapshot_file, snapshot_unfinished,
    store_file, trace_directory,
};
use crate::os::btrfs;
use crate::os::clock::{unix_ms, utc_name};
use crate::os::file::{create_directories, create_synced, sync_directory};
use crate::snapshot::copy::{self, How};
use crate::snapshot::{SnapshotInfo, Snapshots, TransferProgress, remove_parts};

impl Store {
    /// Takes a snapshot, which counts once it was opened and holds all that was acknowledged before.
    ///
    /// Cost on BTRFS: some tens of milliseconds, most of them for opening it; elsewhere the databases
    /// write out what they hold in memory, and the newest files are copied.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the reason is longer than a kilobyte; [`ErrorKind::Corrupt`] if what
    /// was taken is not whole; what the disk refuses. Nothing is left behind.
    pub fn take_snapshot(&self, reason: &str, is_kept: bool) -> Result<SnapshotInfo> {
        // As for a put: a database that copies itself writes out what it holds.
        self.admit_put(0)?;
        let snapshots = Snapshots::of(self.path());
        let directory = self.layout.snapshots();
        let _lock = snapshots.lock()?;
        snapshots.remove_unfinished()?;
        let taken_unix_ms = unix_ms();
        let name = free_name(&snapshots, taken_unix_ms)?;
        let path = snapshots.path(&name);
        let unfinished = snapshot_unfinished(&path);
        create_directories(&unfinished)?;
        let reason = reason.to_owned();
        let taken = self.fill(&unfinished).and_then(|filled| {
            let info = SnapshotInfo { name, taken_unix_ms, reason, is_kept, ..filled };
            self.describe(&unfinished, &info)?;
            fs::rename(&unfinished, &path)
                .map_err(|error| Error::io("rename", &unfinished, error))?;
            Ok(info)
        });
        match &taken {
            Ok(_) => sync_directory(&directory)?,
            Err(_) => remove_parts(&unfinished)
                .unwrap_or_else(|error| tracing::warn!(%error, "the next one removes it")),
        }
        taken
    }

    /// Copies the parts to a directory, and requires that all that was acknowledged before is there.
    fn fill(&self, directory: &Path) -> Result<SnapshotInfo> {
        let acknowledged = self.commits.last_sequence();
        let target = Layout::new(directory);
        for (part, copy) in self.layout.parts().iter().zip(target.parts()) {
            if !part.exists() {
                create_directories(&copy)?;
            } else if !btrfs::is_subvolume(part) || btrfs::snapshot(part, &copy).is_err() {
                // Another file system has no snapshots that would lie here.
                self.copy_part(part, &copy)?;
            }
        }
        let sequence = last_sequence(directory)?;
        if sequence >= acknowledged {
            return Ok(SnapshotInfo { sequence, ..SnapshotInfo::default() });
        }
        let context = format!(
            "the snapshot {} ends at change {sequence}, and {acknowledged} was acknowledged before",
            directory.display()
        );
        Err(Error::new(ErrorKind::Corrupt, context)
            .with_remedy("report it: this file system breaks its promises, or op-dbus does"))
    }

    /// Writes the file that makes it a snapshot.
    fn describe(&self, directory: &Path, info: &SnapshotInfo) -> Result<()> {
        let listed = copy::list(directory, &Layout::new(directory).parts())?;
        let file = SnapshotFile {
            store_id: read_store_file(&self.layout.state())?.store_id,
            sequence: info.sequence,
            taken_unix_ms: info.taken_unix_ms,
            files_sum: listed.sum,
            files_count: listed.count,
            is_kept: info.is_kept,
            reason: info.reason.clone(),
        };
        let bytes = file.encode().map_err(|error| {
            Error::new(ErrorKind::Invalid, "this snapshot cannot be described")
                .with_source(error)
                .with_remedy("give a shorter reason")
        })?;
        create_synced(&snapshot_file(directory), &bytes)?;
        sync_directory(directory)
    }

    /// Copies a part that is a plain directory.
    fn copy_part(&self, part: &Path, target: &Path) -> Result<()> {
        let (state, cache) = (self.layout.state(), self.layout.cache());
        let database_of = if part == state {
            self.state.database()
        } else if part == cache {
            self.cache.database().database()
        } else {
            return copy::copy_files(part, target, how);
        };
        create_directories(target)?;
        if part == state {
            // How far writes were acknowledged before what the copy of the database will have.
            for (from, to) in [
                (store_file(part), store_file(target)),
                (acknowledged_file(part), acknowledged_file(target)),
            ] {
                if from.exists() {
                    copy::copy_file(&from, &to).map_err(|error| Error::io("copy", &from, error))?;
                }
            }
        }
        database_of.copy_to(&database(target))?;
        sync_directory(target)
    }
}

impl Snapshots {
    /// Receives a snapshot that [`Snapshots::send`] sends, on BTRFS; it takes root. It counts once it was
    /// found to be what was sent, and opened. Nothing else is needed here: no store, and of increments
    /// only the snapshots that they are on.
    ///
    /// What has come of a transfer that broke off stays, and is gone on with.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] for anybody but root; [`ErrorKind::Invalid`] if it is here already, or of
    /// another store than those here; [`ErrorKind::NotFound`] if it is an increment on what is not here;
    /// [`ErrorKind::Unsupported`] elsewhere than on BTRFS; [`ErrorKind::Io`] if the stream breaks off, and
    /// [`ErrorKind::Corrupt`] if it is damaged, both with where to go on; what `progress` returns.
    pub fn receive(
        &self,
        input: &mut dyn Read,
        progress: &mut TransferProgress<'_>,
    ) -> Result<SnapshotInfo> {
        let name = self.receive_with(input, progress, last_sequence)?;
        self.named(&name)
    }
}

/// Opens a directory as a snapshot, which says that it is one.
fn last_sequence(directory: &Path) -> Result<u64> {
    let opened = Store::open(StoreConfig::new("").in_snapshot(directory.to_owned()))?;
    Ok(opened.commits.last_sequence())
}

/// Files of vectors and of heat do not change once they have their names, and what does not is left
/// out; the list of files is written in place, and so is the trace that is being recorded.
fn how(path: &Path) -> How {
    const BEING_MADE: [&str; 4] = ["new", "open", "unfinished", "damaged"];
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let is_list = path.parent().is_some_and(|parent| manifest_file(parent) == path);
    let is_trace = path.parent().is_some_and(|parent| {
        parent.parent().is_some_and(|timing| trace_directory(timing) == parent)
    });
    let is_ordinary =
        std::fs::symlink_metadata(path).is_ok_and(|status| status.is_file() || status.is_dir());
    match () {
        () if BEING_MADE.contains(&extension) || !is_ordinary => How::Skip,
        () if is_list || is_trace => How::Copy,
        () => How::Link,
    }
}

/// The name of the second, with a number if there are others of it: one more than theirs, so that the
/// name of one that was deleted does not come to mean another.
fn free_name(snapshots: &Snapshots, taken_unix_ms: u64) -> Result<String> {
    let second = utc_name(taken_unix_ms);
    let number_of = |name: &String| -> Option<u64> {
        let rest = name.strip_prefix(&second)?;
        if rest.is_empty() { Some(1) } else { rest.strip_prefix('-')?.parse().ok() }
    };
    let last = snapshots.names()?.iter().filter_map(number_of).max();
    // Whoever made a directory may have named it after the largest number.
    let first = last.map_or(1, |last| last.saturating_add(1));
    let mut numbered = (first..).map(|number| match number {
        1 => second.clone(),
        number => format!("{second}-{number}"),
    });
    // What is no snapshot may be in the way.
    let free = numbered.find(|name| !snapshots.path(name).exists());
    Ok(free.unwrap_or_else(|| second.clone()))
}
