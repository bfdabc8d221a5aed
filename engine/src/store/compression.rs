//! Who compresses what of a store: one table, asked wherever it matters.
//!
//! RocksDB compresses records, history and changes by LZ4, in blocks of 4 KiB, so that one is read
//! without its neighbours. It leaves embeddings as they are: they look random. BTRFS compresses when it
//! writes, in pieces of 128 KiB, what the directory's property or the mount asks for; of a file whose
//! beginning does not become smaller it leaves the rest, unless the mount forces it. Its level is that
//! of the mount, whatever the property says.
//!
//! | file system | mount | property | `@vectors` | `@cache` | `@timing` | `@state` |
//! |---|---|---|---|---|---|---|
//! | another | | | nobody | RocksDB | nobody | RocksDB |
//! | BTRFS | none | as made | nobody | RocksDB, then BTRFS | BTRFS | RocksDB |
//! | BTRFS | `compress` | as made | nobody | RocksDB, then BTRFS | BTRFS | RocksDB, then BTRFS |
//! | BTRFS | `compress-force` | any | BTRFS | RocksDB, then BTRFS | BTRFS | RocksDB, then BTRFS |
//! | BTRFS | `nodatacow`, `nodatasum` | any | nobody | RocksDB | nobody | RocksDB |
//!
//! The properties that directories are made with: `none` for `@vectors`, because what is mapped is read
//! here and there; `zstd` for `@cache` and `@timing`; nothing for `@state`, because whoever writes there
//! waits for it.

use std::path::Path;

use op_dbus_formats::Mount;
use serde::Serialize;

use crate::error::Result;
use crate::layout::StorePart;
use crate::os::btrfs::{self, Compression};
use crate::os::file::is_btrfs;
use crate::os::mount::mount_of;

/// Who compresses the files of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compressor {
    /// They lie on the disk as they are.
    Nobody,
    /// RocksDB, its tables.
    Database,
    /// BTRFS, what becomes smaller.
    FileSystem,
    /// RocksDB, and then BTRFS what becomes smaller still, its log above all.
    Both,
}

/// What a mount does with all of its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MountCompression {
    /// The algorithm, and its level where one was given: `zstd:3`.
    pub algorithm: String,
    /// Whether what does not become smaller is tried nevertheless, and properties do not count.
    pub is_forced: bool,
}

/// What a directory's file system does with new files in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) is_btrfs: bool,
    pub(crate) mount: Option<MountCompression>,
    /// An algorithm, with or without a level, or `none`.
    pub(crate) property: Option<String>,
    /// Without, there is no compression and no checksum either.
    pub(crate) copies_on_write: bool,
}

impl Place {
    /// That of a directory, which must be there.
    pub(crate) fn of(directory: &Path) -> Result<Self> {
        if !is_btrfs(directory) {
            return Ok(Self::default());
        }
        let mount = mount_of(directory)?;
        let has = |option| mount.as_ref().is_some_and(|mount| mount.option(option).is_some());
        Ok(Self {
            is_btrfs: true,
            copies_on_write: !has("nodatacow")
                && !has("nodatasum")
                && btrfs::copies_on_write(directory),
            mount: mount.as_ref().and_then(MountCompression::of),
            property: btrfs::compression(directory),
        })
    }

    fn compresses(&self) -> bool {
        match (&self.mount, self.property.as_deref()) {
            _ if !self.is_btrfs || !self.copies_on_write => false,
            (Some(mount), _) if mount.is_forced => true,
            (_, Some(property)) => !matches!(property, "none" | "no"),
            (mount, None) => mount.is_some(),
        }
    }
}

impl MountCompression {
    pub(crate) fn of(mount: &Mount) -> Option<Self> {
        let given = |name, is_forced| Some((mount.option(name)?, is_forced));
        let (algorithm, is_forced) =
            given("compress-force", true).or_else(|| given("compress", false))?;
        Some(Self { algorithm: algorithm.to_owned(), is_forced })
    }

    /// The level of zstd; `None` for another algorithm, or where none was given.
    #[must_use]
    pub fn zstd_level(&self) -> Option<u32> {
        self.algorithm.strip_prefix("zstd:")?.parse().ok()
    }
}

/// Who compresses what is in a part.
pub(crate) fn compressor(part: StorePart, place: &Place) -> Compressor {
    let has_database = matches!(part, StorePart::Cache | StorePart::State);
    match (has_database, place.compresses()) {
        (false, false) => Compressor::Nobody,
        (true, false) => Compressor::Database,
        (false, true) => Compressor::FileSystem,
        (true, true) => Compressor::Both,
    }
}

/// What a directory is asked for when it is made.
pub(crate) fn property(part: StorePart) -> Option<Compression> {
    match part {
        StorePart::Vectors => Some(Compression::None),
        StorePart::Timing | StorePart::Cache => Some(Compression::Zstd),
        StorePart::State => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every row of the table above.
    #[test]
    fn the_table_is_what_it_says() {
        use Compressor::{Both, Database, FileSystem, Nobody};
        const PARTS: [StorePart; 4] =
            [StorePart::Vectors, StorePart::Cache, StorePart::Timing, StorePart::State];
        let mount = |algorithm: &str, is_forced| {
            Some(MountCompression { algorithm: algorithm.to_owned(), is_forced })
        };
        let btrfs = Place { is_btrfs: true, copies_on_write: true, ..Place::default() };
        for (place, expected) in [
            (Place::default(), [Nobody, Database, Nobody, Database]),
            (btrfs.clone(), [Nobody, Both, FileSystem, Database]),
            (
                Place { mount: mount("zstd:3", false), ..btrfs.clone() },
                [Nobody, Both, FileSystem, Both],
            ),
            (
                Place { mount: mount("zstd:3", true), ..btrfs.clone() },
                [FileSystem, Both, FileSystem, Both],
            ),
            (
                Place { copies_on_write: false, mount: mount("zstd:3", true), ..btrfs },
                [Nobody, Database, Nobody, Database],
            ),
        ] {
            let found = PARTS.map(|part| {
                compressor(
                    part,
                    &Place {
                        property: property(part).map(|asked| asked.name().to_owned()),
                        ..place.clone()
                    },
                )
            });
            assert_eq!(found, expected, "{place:?}");
        }
    }

    #[test]
    fn a_level_is_that_of_zstd() {
        let level = |algorithm: &str| {
            MountCompression { algorithm: algorithm.to_owned(), is_forced: false }.zstd_level()
        };
        assert_eq!((level("zstd:15"), level("zstd"), level("lzo")), (Some(15), None, None));
    }
}
