//! Subvolumes of BTRFS: making, copying and removing them.
//!
//! Creating subvolumes and read-only snapshots needs no capability. Deleting one needs it, or the
//! mount option `user_subvol_rm_allowed`; without, an empty one that can be written to is removed as
//! a directory is.

use std::fs;
use std::io;
use std::path::Path;

use btrfsutil::subvolume::{SnapshotFlags, Subvolume};

use super::file::is_btrfs;
use crate::error::{Error, Result};

/// Inode of the root of every subvolume.
const ROOT_INODE: u64 = 256;

/// Whether this is the root of a subvolume.
pub(crate) fn is_subvolume(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let is_root = fs::symlink_metadata(path)
        .is_ok_and(|status| status.is_dir() && status.ino() == ROOT_INODE);
    is_root && is_btrfs(path)
}

/// What the file system is asked to do with new files of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    /// Leave them as they are.
    None,
    /// Compress what becomes smaller, at the level of the mount.
    Zstd,
}

/// Asks the file system to compress new files of a directory, or not to; where it cannot, nothing is
/// asked.
pub(crate) fn set_compression(directory: &Path, compression: Compression) {
    if !is_btrfs(directory) {
        return;
    }
    let value: &[u8] = match compression {
        Compression::None => b"none",
        Compression::Zstd => b"zstd",
    };
    let flags = rustix::fs::XattrFlags::empty();
    if let Err(error) = rustix::fs::setxattr(directory, "btrfs.compression", value, flags) {
        tracing::debug!(path = %directory.display(), %error, "compression cannot be set");
    }
}

/// Makes a subvolume.
pub(crate) fn create(path: &Path) -> Result<()> {
    Subvolume::create(path, None).map(drop).map_err(|error| failed("create subvolume", path, error))
}

/// Makes a read-only copy of a subvolume as it is at one moment, without copying what is in it.
pub(crate) fn snapshot(subvolume: &Path, target: &Path) -> Result<()> {
    copy(subvolume, target, Some(SnapshotFlags::READ_ONLY))
}

/// Makes a copy of a subvolume that can be written to.
pub(crate) fn writable_copy(subvolume: &Path, target: &Path) -> Result<()> {
    copy(subvolume, target, None)
}

fn copy(subvolume: &Path, target: &Path, flags: Option<SnapshotFlags>) -> Result<()> {
    Subvolume::get(subvolume)
        .and_then(|subvolume| subvolume.snapshot(target, flags, None))
        .map(drop)
        .map_err(|error| failed("snapshot to", target, error))
}

/// Removes a subvolume with all that is in it.
pub(crate) fn delete(path: &Path) -> Result<()> {
    let refused = match Subvolume::get(path).and_then(|subvolume| subvolume.delete(None)) {
        Ok(()) => return Ok(()),
        Err(error) => failed("delete subvolume", path, error),
    };
    // Whoever may not delete it may empty it, if it can be made writable.
    let emptied = Subvolume::get(path).and_then(|subvolume| subvolume.set_ro(false)).is_ok()
        && fs::remove_dir_all(path).is_ok();
    if emptied { Ok(()) } else { Err(refused) }
}

/// Why the library failed, asked at once: it is the number of the last system call.
fn failed(action: &str, path: &Path, error: btrfsutil::error::BtrfsUtilError) -> Error {
    let system = io::Error::last_os_error();
    Error::io(action, path, io::Error::new(system.kind(), error.to_string()))
}
