//! How the directories of a store are copied: by BTRFS, which takes a moment, or by links.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use super::SnapshotSize;
use crate::error::{Error, ErrorKind, Result};
use crate::layout::DAMAGED_SUFFIX;
use crate::os::btrfs;
use crate::os::extents::own_bytes;
use crate::os::file::{create_directories, sync_directory};

/// Names of RocksDB's that tell nothing of what is in a database: its messages, and its lock.
const MESSAGES: [&str; 2] = ["LOG", "LOCK"];

/// What becomes of a file of a directory that is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// It does not change any more: another name for it is a copy.
    Link,
    Copy,
    /// It is left out.
    Skip,
}

/// Copies a directory, each file and directory in it as `how` says. What vanishes meanwhile is left out.
///
/// # Errors
/// [`ErrorKind::Invalid`] if it has something that is neither; what the disk refuses.
pub(crate) fn copy_files(from: &Path, to: &Path, how: fn(&Path) -> How) -> Result<()> {
    create_directories(to)?;
    for entry in fs::read_dir(from).map_err(|error| Error::io("list", from, error))? {
        let path = entry.map_err(|error| Error::io("list", from, error))?.path();
        let Some(name) = path.file_name() else { continue };
        let (target, how_it_is) = (to.join(name), how(&path));
        let Ok(status) = fs::symlink_metadata(&path) else { continue };
        let copied = match how_it_is {
            How::Skip => continue,
            _ if status.is_dir() => match copy_files(&path, &target, how) {
                Err(error) if error.kind() == ErrorKind::NotFound && !path.exists() => continue,
                copied => {
                    copied?;
                    continue;
                }
            },
            _ if !status.is_file() => {
                let context = format!("{} is neither a file nor a directory", path.display());
                return Err(Error::new(ErrorKind::Invalid, context)
                    .with_remedy("move it elsewhere: a store has no such thing"));
            }
            // Another file system, or one that has no links, has copies.
            How::Link => fs::hard_link(&path, &target).or_else(|_| copy_file(&path, &target)),
            How::Copy => copy_file(&path, &target),
        };
        match copied {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            copied => copied.map_err(|error| Error::io("copy", &path, error))?,
        }
    }
    sync_directory(to)
}

/// Copies a file and makes it durable; where the file system can, without copying what is in it.
pub(crate) fn copy_file(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::copy(from, to)?;
    fs::File::open(to)?.sync_all()
}

/// Copies a directory with all that is in it, so that it can be written to.
pub(crate) fn copy_directory(from: &Path, to: &Path) -> Result<()> {
    if btrfs::is_subvolume(from) && btrfs::writable_copy(from, to).is_ok() {
        return Ok(());
    }
    copy_files(from, to, |_| How::Copy)
}

/// Removes a copy, whatever it was made by.
pub(crate) fn remove(path: &Path) -> Result<()> {
    if btrfs::is_subvolume(path) {
        return btrfs::delete(path);
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", path, error))
        }
        _ => Ok(()),
    }
}

/// The files below a directory: how many, and a sum of their names and lengths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) count: u32,
    pub(crate) sum: u128,
}

/// What the files of directories take.
pub(crate) fn size(parts: &[PathBuf]) -> Result<SnapshotSize> {
    let mut size = SnapshotSize::default();
    let mut files = Vec::new();
    for part in parts {
        list_into(part, &mut files)?;
    }
    for (path, len_bytes) in files {
        size.total_bytes += len_bytes;
        size.exclusive_bytes += own_bytes(&path)?.min(len_bytes);
    }
    Ok(size)
}

/// Lists the files of a snapshot, but for those that tell nothing.
pub(crate) fn list(directory: &Path, parts: &[PathBuf]) -> Result<Listed> {
    let mut files = Vec::new();
    for part in parts {
        list_into(part, &mut files)?;
    }
    files.sort_unstable();
    let (mut hasher, mut listed) = (Xxh3::new(), Listed::default());
    for (path, len_bytes) in &files {
        let name = path.strip_prefix(directory).unwrap_or(path);
        hasher.update(name.as_os_str().as_encoded_bytes());
        hasher.update(&[0]);
        hasher.update(&len_bytes.to_le_bytes());
    }
    listed.sum = hasher.digest128();
    listed.count = u32::try_from(files.len())
        .map_err(|_| Error::new(ErrorKind::Invalid, "there are more files than a snapshot has"))?;
    Ok(listed)
}

fn list_into(directory: &Path, files: &mut Vec<(PathBuf, u64)>) -> Result<()> {
    let failed = |error| Error::io("list", directory, error);
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let status = fs::symlink_metadata(&path).map_err(failed)?;
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // Who reads a snapshot may find that a file of vectors is damaged, and mark it.
        let tells_nothing = MESSAGES.contains(&name)
            || name.starts_with("LOG.old.")
            || name.ends_with(DAMAGED_SUFFIX);
        if status.is_dir() {
            list_into(&path, files)?;
        } else if !tells_nothing {
            files.push((path, status.size()));
        }
    }
    Ok(())
}
