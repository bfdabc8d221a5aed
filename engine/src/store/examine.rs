//! How the directories of a store lie on their file system, without opening it.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::compression::{Compressor, MountCompression, Place, compressor};
use super::open::require_store;
use crate::error::{Error, Result};
use crate::layout::{Layout, StorePart};
use crate::os::btrfs;
use crate::os::extents::compressed_bytes;
use crate::os::file::room;
use crate::os::mount::mount_of;

/// How a store lies on its file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LayoutReport {
    /// The directory of the store.
    pub base: PathBuf,
    /// The type of its file system, such as `btrfs`; empty if the kernel does not say.
    pub file_system: String,
    /// Where that is mounted.
    pub mount_point: PathBuf,
    /// Its size.
    pub total_bytes: u64,
    /// What of it this user may still fill.
    pub available_bytes: u64,
    /// What the mount does with all of its files; `None` if nothing, and elsewhere than on BTRFS.
    pub mount_compression: Option<MountCompression>,
    /// Whether this user can delete subvolumes, and so snapshots, without emptying them first.
    pub deletes_subvolumes: bool,
    /// Its directories, those that are there.
    pub parts: Vec<PartReport>,
}

/// One directory of a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartReport {
    /// Its name.
    pub part: StorePart,
    /// Whether it is a subvolume of BTRFS.
    pub is_subvolume: bool,
    /// Whether the file system has checksums of what is in it.
    pub has_checksums: bool,
    /// What BTRFS is asked to do with new files in it, such as `none` or `zstd`; `None` if what the mount
    /// says.
    pub property: Option<String>,
    /// Who compresses new files in it.
    pub compressor: Compressor,
    /// What its files take on the disk, as they are read.
    pub bytes: u64,
    /// Those of them that the file system has compressed.
    pub compressed_bytes: u64,
}

/// Looks at the directories of the store in `base`. Nothing is opened, and nothing changed.
///
/// Cost: asks the file system about every file.
///
/// # Errors
/// [`NotFound`](crate::ErrorKind::NotFound) if there is no store;
/// [`Denied`](crate::ErrorKind::Denied) if this user may not look.
pub fn examine_layout(base: &Path) -> Result<LayoutReport> {
    let layout = Layout::new(base);
    require_store(&layout)?;
    let mount = mount_of(base)?;
    let of_mount = |option| mount.as_ref().is_some_and(|mount| mount.option(option).is_some());
    let room = room(base)?;
    let there = StorePart::ALL.into_iter().filter(|part| layout.part(*part).is_dir());
    let parts = there.map(|part| examine(part, &layout.part(part))).collect::<Result<_>>()?;
    let file_system = mount.as_ref().map(|mount| mount.file_system.clone()).unwrap_or_default();
    let mount_point = mount.as_ref().map_or(&b"/"[..], |mount| &mount.mount_point);
    Ok(LayoutReport {
        base: base.to_owned(),
        mount_point: PathBuf::from(std::ffi::OsStr::new(&*String::from_utf8_lossy(mount_point))),
        total_bytes: room.total_bytes,
        available_bytes: room.available_bytes,
        mount_compression: match file_system == "btrfs" {
            true => mount.as_ref().and_then(MountCompression::of),
            false => None,
        },
        file_system,
        deletes_subvolumes: btrfs::require_root("delete").is_ok()
            || of_mount("user_subvol_rm_allowed"),
        parts,
    })
}

fn examine(part: StorePart, directory: &Path) -> Result<PartReport> {
    let place = Place::of(directory)?;
    let (mut bytes, mut compressed) = (0, 0);
    for file in files(directory)? {
        // It may be gone by now.
        if let Ok((of_file, all)) = compressed_bytes(&file) {
            bytes += all;
            compressed += of_file;
        }
    }
    Ok(PartReport {
        part,
        is_subvolume: btrfs::is_subvolume(directory),
        has_checksums: place.is_btrfs && place.copies_on_write,
        compressor: compressor(part, &place),
        property: place.property,
        bytes,
        compressed_bytes: compressed,
    })
}

/// All files below a directory.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let (mut files, mut directories) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(directory) = directories.pop() {
        let failed = |error| Error::io("list", &directory, error);
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => directories.push(entry.path()),
                Ok(kind) if kind.is_file() => files.push(entry.path()),
                _ => {}
            }
        }
    }
    Ok(files)
}
