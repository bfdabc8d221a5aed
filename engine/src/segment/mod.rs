//! Immutable files of vectors in `@vectors`, and the manifest that says which of them count; files of
//! graphs, wherever they are.
//!
//! | file | job |
//! |---|---|
//! | [`file`] | one arena file: search in the map, read in order, check every page |
//! | [`write`](mod@write) | making one |
//! | [`graph_file`] | one file of a graph index, which is not in the manifest |
//! | this | which file counts for vectors of which length; replacing one; sorting out at open |
//!
//! # What holds
//! - All here can be deleted: open never fails, and what is wrong is logged and means that nothing
//!   is there.
//! - A file counts once the manifest that names it is durable, and its own bytes and name were
//!   durable before. The file that it replaces is removed after that.
//! - A file that is damaged, or that a crash left unnamed, is removed at open, if its name is one
//!   that we write. Files of others stay.
//! - Nobody writes through a map, and a file that is removed lives on for whoever holds it.
//!
//! Deliberately lacking: which vectors are worth a file, and when to write one.

mod file;
pub(crate) mod graph_file;
mod write;

use std::collections::BTreeMap;
use std::fs;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use op_dbus_formats::FormatError;
use op_dbus_formats::arena_file::ArenaFileHeader;
use op_dbus_formats::manifest::{self, Manifest, SLOT_LEN_BYTES, slot_index};

use crate::error::{Error, ErrorKind, Result};
use crate::layout::{
    DAMAGED_SUFFIX, arena_file_name, damaged_mark, manifest_file, parse_arena_file_name,
};
use crate::os::file::{create_directories, read_bounded, remove_if_there, room, sync_directory};

pub(crate) use file::ArenaFile;
pub(crate) use write::{ArenaContent, ArenaRow};

/// Pages of the files we write: a checksum for each is 0.05 % of the file, and a vector that is
/// asked for alone costs the reading of one or two.
const PAGE_LEN_BYTES: u64 = 16_384;

/// No manifest of any version is longer.
const MANIFEST_LEN_MAX_BYTES: u64 = 65_536;

/// The part of a file system that files which can be made again leave free.
const SPACE_FREE_PART: u64 = 10;

/// What becomes of files that do not count.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Useless {
    Removed,
    Left,
}

type Files = BTreeMap<u32, Arc<ArenaFile>>;

/// The directory `@vectors`.
pub(crate) struct SegmentDirectory {
    directory: PathBuf,
    store_id: [u8; 16],
    /// By the number of elements of their vectors.
    files: RwLock<Files>,
    useless: Useless,
    /// Of the manifest on disk. Held by whoever changes what is on disk.
    generation: Mutex<u64>,
}

impl SegmentDirectory {
    /// Opens the directory, and makes it if it is missing and that is possible.
    pub(crate) fn open(directory: &Path, store_id: [u8; 16]) -> Self {
        if let Err(error) = create_directories(directory) {
            warn(&error, "files of vectors cannot be kept");
        }
        Self::read(directory, store_id, Useless::Removed)
    }

    /// Opens a copy of a directory that nobody writes to.
    pub(crate) fn open_to_read(directory: &Path, store_id: [u8; 16]) -> Self {
        Self::read(directory, store_id, Useless::Left)
    }

    fn read(directory: &Path, store_id: [u8; 16], useless: Useless) -> Self {
        let read = read_manifest(directory, store_id, useless);
        let (generation, files) = read.unwrap_or_else(|error| {
            warn(&error, "files of vectors cannot be read");
            (0, Files::new())
        });
        let directory = directory.to_owned();
        let (files, generation) = (RwLock::new(files), Mutex::new(generation));
        Self { directory, store_id, files, useless, generation }
    }

    /// The files that count, one for each length of vectors at most.
    pub(crate) fn arena_files(&self) -> Vec<Arc<ArenaFile>> {
        self.files().values().filter(|file| !file.is_damaged()).map(Arc::clone).collect()
    }

    /// Writes a file of these rows, hottest first, in place of the one there is for vectors of this
    /// many elements. No rows leave no file.
    ///
    /// # Errors
    /// [`ErrorKind::Full`] if the file system would be left with less than a tenth of its space,
    /// before anything is written; what the disk refuses otherwise. What was there stays.
    pub(crate) fn seal<V: AsRef<[f32]>>(
        &self,
        content: &ArenaContent,
        rows: impl Iterator<Item = ArenaRow<V>>,
    ) -> Result<()> {
        let mut generation = self.generation.lock().unwrap_or_else(PoisonError::into_inner);
        create_directories(&self.directory)?;
        self.require_space(content)?;
        let next = generation.saturating_add(1);
        let path = self.directory.join(arena_file_name(next, content.dimensions));
        // A seal that failed may have left one of this name, which no manifest names.
        remove_if_there(&path)?;
        let identity = (self.store_id, PAGE_LEN_BYTES);
        let written = write::write(&path, identity, content, rows);
        if !matches!(written, Ok(Some(_))) {
            remove_or_warn(&path);
        }
        let mut files: Files = self.files().clone();
        files.retain(|_, file| !file.is_damaged());
        match written? {
            Some(description) => {
                let file = sync_directory(&self.directory)
                    .and_then(|()| ArenaFile::open(&self.directory, &self.store_id, description))
                    .inspect_err(|_| _ = remove_or_warn(&path))?;
                files.insert(content.dimensions, Arc::new(file));
            }
            None => {
                files.remove(&content.dimensions);
            }
        }
        // Should this fail, it may have happened or not: the file stays until the next open or
        // seal knows.
        self.write_manifest(next, &files)?;
        *generation = next;
        self.replace(files);
        Ok(())
    }

    /// Forgets all files and removes them.
    ///
    /// # Errors
    /// What the disk refuses. No file is used any more in any case.
    pub(crate) fn discard(&self) -> Result<()> {
        let mut generation = self.generation.lock().unwrap_or_else(PoisonError::into_inner);
        let files = std::mem::take(&mut *self.files_mut());
        if self.useless == Useless::Left || (files.is_empty() && *generation == 0) {
            return Ok(());
        }
        // The files before the manifest: one that names what is missing names nothing, but a file
        // that should be gone must be.
        let removed = files.values().map(|file| remove_if_there(file.path()));
        let removed = removed.fold(Ok(()), Result::and);
        let next = generation.saturating_add(1);
        self.write_manifest(next, &Files::new())?;
        *generation = next;
        removed
    }

    fn files(&self) -> RwLockReadGuard<'_, Files> {
        self.files.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn files_mut(&self) -> RwLockWriteGuard<'_, Files> {
        self.files.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the files that count in the place of those that did, and removes what does not count
    /// any more.
    fn replace(&self, files: Files) {
        let before = std::mem::replace(&mut *self.files_mut(), files);
        let names = |files: &Files| -> Vec<PathBuf> {
            files.values().map(|file| file.path().to_owned()).collect()
        };
        let now = names(&self.files());
        for path in names(&before).iter().filter(|path| !now.contains(path)) {
            remove_or_warn(path);
            remove_or_warn(&damaged_mark(path));
        }
    }

    /// Refuses rows that would leave less free space than files which can be made again may.
    fn require_space(&self, content: &ArenaContent) -> Result<()> {
        if content.rows_count_max == 0 {
            return Ok(());
        }
        let largest = ArenaFileHeader {
            store_id: self.store_id,
            sequence: content.sequence,
            cache_generation: content.cache_generation,
            dimensions: content.dimensions,
            rows_count: content.rows_count_max,
            page_len_bytes: PAGE_LEN_BYTES,
            table_checksum: 0,
        };
        let sections = largest.sections().map_err(|error| unwritable(&self.directory, error))?;
        self.require_room(sections.file_len_bytes())
    }

    /// Refuses a file that would leave less free space than files which can be made again may.
    ///
    /// # Errors
    /// [`ErrorKind::Full`]; what the kernel refuses.
    pub(crate) fn require_room(&self, needed: u64) -> Result<()> {
        create_directories(&self.directory)?;
        let room = room(&self.directory)?;
        let kept_free = room.total_bytes / SPACE_FREE_PART;
        if room.available_bytes >= needed.saturating_add(kept_free) {
            return Ok(());
        }
        let (directory, free) = (self.directory.display(), room.available_bytes);
        Err(Error::new(
            ErrorKind::Full,
            format!(
                "a file of {needed} bytes in {directory} would leave less than a tenth of the file \
                 system free: {free} bytes are"
            ),
        )
        .with_remedy("free space on this file system, or give the store a smaller capacity"))
    }

    /// Makes these files the ones that count. Their bytes and names are durable already.
    fn write_manifest(&self, generation: u64, files: &Files) -> Result<()> {
        let path = manifest_file(&self.directory);
        let files = files.values().map(|file| file.description().clone()).collect();
        let slot = Manifest { generation, store_id: self.store_id, files }
            .encode()
            .map_err(|error| unwritable(&path, error))?;
        let is_new = !path.exists();
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| Error::io("open", &path, error))?;
        let offset_bytes = slot_index(generation) * SLOT_LEN_BYTES;
        file.write_all_at(&slot, offset_bytes as u64)
            .map_err(|error| Error::io("write", &path, error))?;
        file.sync_all().map_err(|error| Error::io("sync", &path, error))?;
        if is_new { sync_directory(&self.directory) } else { Ok(()) }
    }
}

impl std::fmt::Debug for SegmentDirectory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentDirectory").field("path", &self.directory).finish_non_exhaustive()
    }
}

/// Reads the manifest, opens what it names and removes what is ours and does not count.
///
/// An error means that nothing could be looked at, so nothing was removed.
fn read_manifest(directory: &Path, store_id: [u8; 16], useless: Useless) -> Result<(u64, Files)> {
    let path = manifest_file(directory);
    let bytes = match read_bounded(&path, MANIFEST_LEN_MAX_BYTES) {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) if error.kind() == ErrorKind::Invalid => {
            warn(&error, "no file of vectors counts");
            Vec::new()
        }
        bytes => bytes?,
    };
    let (manifest, problems) = manifest::newest(&bytes);
    for problem in problems {
        let path = path.display();
        tracing::warn!(%path, %problem, "part of the list of files of vectors is damaged");
    }
    let generation = manifest.as_ref().map_or(0, |manifest| manifest.generation);
    let names = file_names(directory)?;
    if useless == Useless::Removed {
        remove_damaged(directory, &names);
    }
    let mut counting = Files::new();
    let mut unreadable = Vec::new();
    for description in manifest.map(|manifest| manifest.files).unwrap_or_default() {
        let name = description.name.clone();
        match ArenaFile::open(directory, &store_id, description) {
            Ok(file) => {
                counting.insert(file.dimensions(), Arc::new(file));
            }
            Err(error) => {
                warn(&error, "a file of vectors does not count; it is made again");
                // What we may not read now may be whole.
                if !matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) {
                    unreadable.push(name);
                }
            }
        }
    }
    let removable =
        |name: &&String| useless == Useless::Removed && parse_arena_file_name(name).is_some();
    for name in names.iter().filter(removable) {
        let path = directory.join(name);
        let counts = counting.values().any(|file| file.path() == path);
        if !counts && !unreadable.contains(name) {
            remove_or_warn(&path);
        }
    }
    Ok((generation, counting))
}

/// The names in a directory that are text; ours are.
fn file_names(directory: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(directory).map_err(|error| Error::io("list", directory, error))?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
}

/// Removes the files that are marked, and then their marks.
fn remove_damaged(directory: &Path, names: &[String]) {
    for name in names.iter().filter_map(|name| name.strip_suffix(DAMAGED_SUFFIX)) {
        if parse_arena_file_name(name).is_none() {
            continue;
        }
        let path = directory.join(name);
        tracing::warn!(path = %path.display(), "a file of vectors was damaged and is removed");
        if remove_or_warn(&path) {
            remove_or_warn(&damaged_mark(&path));
        }
    }
}

/// Whether the file is gone. One that stays costs space, and is removed at a later open.
fn remove_or_warn(path: &Path) -> bool {
    remove_if_there(path).inspect_err(|error| warn(error, "a useless file stays")).is_ok()
}

fn warn(error: &Error, consequence: &str) {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    tracing::warn!(%error, cause, "{consequence}");
}

/// Counts or names that no file can have.
fn unwritable(path: &Path, error: FormatError) -> Error {
    Error::new(ErrorKind::Invalid, format!("{} cannot be written", path.display()))
        .with_source(error)
}

#[cfg(test)]
mod tests;
