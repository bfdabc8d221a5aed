//! Plain directories of a store on BTRFS become subvolumes, so that snapshots take a moment.
//!
//! What is in one is copied without copying its bytes, compared by names and lengths, and changes
//! places with the directory in one step. What is begun and broken off is begun again; what was
//! there is removed only once the copy stands in its place.

use std::path::{Path, PathBuf};

use super::compression::property;
use super::parts;
use crate::error::{Error, ErrorKind, Result};
use crate::layout::{Layout, StorePart, part_unfinished};
use crate::os::btrfs;
use crate::os::file::{self, Lock, sync_directory};
use crate::snapshot::copy::{self, How};

/// What stands where a directory of a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartKind {
    /// A subvolume of BTRFS, and no plain directory before.
    Subvolume,
    /// A subvolume now, and a plain directory before.
    Migrated,
    /// A plain directory, which was not to become a subvolume.
    Plain,
}

/// Asks the file system to compress new files of each directory of the store in `base`, or not to, as is
/// best for them; returns those of which that was not asked yet. The store may be open.
#[must_use]
pub fn request_compression(base: &Path) -> Vec<StorePart> {
    let layout = Layout::new(base);
    let is_other = |part: &StorePart| {
        let wanted = property(*part).map(|wanted| wanted.name());
        wanted.is_some() && btrfs::compression(&layout.part(*part)).as_deref() != wanted
    };
    let asked: Vec<StorePart> = StorePart::ALL.into_iter().filter(is_other).collect();
    asked.iter().for_each(|part| parts::compress(&layout, *part));
    // Where it was refused nothing is fixed.
    asked.into_iter().filter(|part| !is_other(part)).collect()
}

/// Makes subvolumes of some of the plain directories of the store in `base`, which nobody may have open;
/// returns what each is.
///
/// # Errors
/// [`ErrorKind::NotFound`] if there is no store; [`ErrorKind::Busy`] if somebody has it open;
/// [`ErrorKind::Unsupported`] if it does not lie on BTRFS; [`ErrorKind::Invalid`] if it has something
/// that is neither a file nor a directory; what the disk refuses. The store is whole
/// in any case.
pub fn migrate_layout(base: &Path, subvolumes: &[StorePart]) -> Result<Vec<(PathBuf, PartKind)>> {
    let layout = Layout::new(base);
    if !layout.state().is_dir() {
        let context = format!("there is no store at {}", base.display());
        return Err(Error::new(ErrorKind::NotFound, context).with_remedy("name its directory"));
    }
    if !file::is_btrfs(base) {
        let context = format!("{} does not lie on BTRFS, which has subvolumes", base.display());
        return Err(Error::new(ErrorKind::Unsupported, context)
            .with_remedy("nothing has to be done: plain directories are as good here"));
    }
    let _lock = Lock::acquire(&layout.lock())?;
    file::check_owner(&layout.state())?;
    let mut migrated = Vec::new();
    for named in StorePart::ALL {
        let part = layout.part(named);
        let unfinished = part_unfinished(&part);
        copy::remove(&unfinished)?;
        let is_wanted = subvolumes.contains(&named);
        if !part.exists() {
            // It can be deleted at any time, and is made again.
            parts::make(&part, is_wanted)?;
        }
        let kind = if btrfs::is_subvolume(&part) {
            PartKind::Subvolume
        } else if !is_wanted {
            PartKind::Plain
        } else {
            migrate(&part, &unfinished)?;
            PartKind::Migrated
        };
        parts::compress(&layout, named);
        migrated.push((part, kind));
    }
    Ok(migrated)
}

fn migrate(part: &Path, unfinished: &Path) -> Result<()> {
    parts::require_directory(part)?;
    parts::make(unfinished, true)?;
    copy::copy_files(part, unfinished, |_| How::Copy)?;
    let content = |directory: &Path| copy::list(directory, &[directory.to_owned()]);
    if content(part)? != content(unfinished)? {
        let context = format!("{} changes while it is copied", part.display());
        return Err(Error::new(ErrorKind::Busy, context)
            .with_remedy("end what writes there, and run it again"));
    }
    file::exchange(unfinished, part)?;
    sync_directory(part.parent().unwrap_or(Path::new(".")))?;
    copy::remove(unfinished)
}
