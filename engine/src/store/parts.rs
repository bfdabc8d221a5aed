//! The four directories of a store: made as subvolumes where BTRFS is, and never anybody else's.
//!
//! Each has a copy of the file `STORE`, which says whose it is. Where it is missing or damaged, the
//! names in the directory must all be ours. Nothing that is there is replaced or removed.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use op_dbus_formats::StoreFile;

use super::compression::property;
use super::open::read_store_file;
use crate::error::{Error, ErrorKind, Result};
use crate::layout::{Layout, StorePart, store_file};
use crate::os::btrfs;
use crate::os::file::{self, create_synced, remove_if_there, sync_directory};

/// Ours are nobody else's to read.
const MODE: u32 = 0o700;

/// What the names of ours begin with or are, by part, where no file says whose it is. `embeddings` is
/// of an earlier program, whose cache can be imported.
const OURS: [(&str, &[&str]); 3] = [
    ("@cache", &["STORE", "COUNTERS", "db", "engines", "embeddings"]),
    ("@timing", &["STORE", "heat", "trace", "latency"]),
    ("@vectors", &["STORE", "MANIFEST"]),
];
/// What the names of ours in `@vectors` end with.
const VECTORS_SUFFIXES: [&str; 4] = [".arena", ".graph", ".damaged", ".unfinished"];

/// Makes a directory of a store: a subvolume where there are any and it is to be one.
pub(super) fn make(part: &Path, is_subvolume: bool) -> Result<()> {
    let parent = part.parent().unwrap_or(Path::new("."));
    if !is_subvolume || !file::is_btrfs(parent) {
        return file::create_directories(part);
    }
    btrfs::create(part)?;
    fs::set_permissions(part, Permissions::from_mode(MODE))
        .map_err(|error| Error::io("protect", part, error))?;
    sync_directory(parent)
}

/// Makes those directories that are missing, and refuses those of others.
pub(super) fn prepare(layout: &Layout, store: &StoreFile, subvolumes: &[StorePart]) -> Result<()> {
    for kind in [StorePart::Cache, StorePart::Timing, StorePart::Vectors] {
        let part = layout.part(kind);
        match fs::symlink_metadata(&part) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                make(&part, subvolumes.contains(&kind))?;
                compress(layout, kind);
            }
            Err(error) => return Err(Error::io("examine", &part, error)),
            Ok(_) => require_directory(&part)?,
        }
        require_ours(&part, store)?;
    }
    Ok(())
}

/// Asks the file system to do with new files of a part what is best for them.
pub(super) fn compress(layout: &Layout, part: StorePart) {
    if let Some(property) = property(part) {
        btrfs::set_compression(&layout.part(part), property);
    }
}

/// Refuses what stands where a directory of the store should be.
pub(super) fn require_directory(part: &Path) -> Result<()> {
    if part.is_dir() {
        return Ok(());
    }
    let context = format!("{} is no directory, and a store has one there", part.display());
    Err(Error::new(ErrorKind::Invalid, context)
        .with_remedy("move it elsewhere, or name another directory for the store"))
}

/// Refuses a directory of another store, or of something else. What says whose it is may be missing or
/// damaged, which keeps no store from being opened.
fn require_ours(part: &Path, store: &StoreFile) -> Result<()> {
    match read_store_file(part) {
        Ok(found) if found.store_id == store.store_id => return Ok(()),
        Ok(_) => return Err(foreign(part, "belongs to another store")),
        Err(error) if error.kind() == ErrorKind::Unsupported => return Err(error),
        Err(error) => tracing::debug!(%error, "told by the names in it"),
    }
    let entries = fs::read_dir(part).map_err(|error| Error::io("list", part, error))?;
    for entry in entries {
        let name = entry.map_err(|error| Error::io("list", part, error))?.file_name();
        let name = name.to_string_lossy();
        if !is_ours(part, &name) {
            return Err(foreign(part, &format!("has {name}, which is no store's")));
        }
    }
    let mark = store_file(part);
    let marked = remove_if_there(&mark).and_then(|()| {
        let bytes = store.encode().map_err(|error| {
            Error::new(ErrorKind::Unsupported, "this store cannot be named").with_source(error)
        })?;
        create_synced(&mark, &bytes)
    });
    if let Err(error) = marked {
        tracing::warn!(%error, "nothing says whose it is; the next opening tries again");
    }
    Ok(())
}

fn is_ours(part: &Path, name: &str) -> bool {
    let is_vectors = part.file_name().is_some_and(|part| part == "@vectors");
    let known = OURS.iter().find(|(known, _)| part.file_name().is_some_and(|part| part == *known));
    let begins = |known: &str| {
        name.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    known.is_some_and(|(_, names)| names.iter().any(|known| begins(known)))
        || (is_vectors && VECTORS_SUFFIXES.iter().any(|suffix| name.ends_with(suffix)))
}

fn foreign(part: &Path, what: &str) -> Error {
    let context = format!("{} {what}, and nothing in it was changed", part.display());
    Error::new(ErrorKind::Invalid, context)
        .with_remedy("move it elsewhere, or name another directory for the store")
}
