//! Who compresses what: what the engine says, held to what files really take on the disk.
//!
//! On file systems of its own, where there are root, loop devices and the programs that format them.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs::{self, File};
use std::path::Path;

use op_dbus_engine::{Compressor, Record, Store, StoreConfig, StorePart, examine_layout};
use support::crash::campaign::skip;
use support::crash::disk::{Disk, FileSystem};

const DISK_LEN_BYTES: u64 = 1 << 30;
/// Enough that what a file system takes for itself is little beside it.
const TEXT_LEN_BYTES: usize = 16 << 20;

/// Room that is taken, once everything is on the disk.
fn used_bytes(directory: &Path) -> u64 {
    rustix::fs::syncfs(File::open(directory).unwrap()).unwrap();
    let room = rustix::fs::statvfs(directory).unwrap();
    (room.f_blocks - room.f_bfree) * room.f_frsize
}

/// Writes what becomes much smaller, and returns what it takes of what it is.
fn share_on_disk(directory: &Path, mount_point: &Path) -> f64 {
    let before = used_bytes(mount_point);
    let text: Vec<u8> = (0_u64..)
        .flat_map(|n| format!("line {n} of a text\n").into_bytes())
        .take(TEXT_LEN_BYTES)
        .collect();
    fs::write(directory.join("probe"), &text).unwrap();
    (used_bytes(mount_point) - before) as f64 / TEXT_LEN_BYTES as f64
}

fn compressor(base: &Path, part: StorePart) -> Compressor {
    let report = examine_layout(base).unwrap();
    report.parts.into_iter().find(|found| found.part == part).unwrap().compressor
}

/// The compressors of all parts, in the order of [`StorePart::ALL`], after each was held to what is
/// on the disk.
fn compressors(base: &Path, mount_point: &Path, what: &str) -> Vec<Compressor> {
    let store = Store::open(StoreConfig::new(base)).unwrap();
    store.put("notes", &Record::new("a").with_vector([1.0, 2.0])).unwrap();
    store.close();
    let probe = |part: StorePart| {
        let said = compressor(base, part);
        let share = share_on_disk(&base.join(part.name()), mount_point);
        let report = examine_layout(base).unwrap();
        let found = report.parts.into_iter().find(|found| found.part == part).unwrap();
        println!("{what}: {}: {said:?}, {share:.3} of a text", part.name());
        let is_compressed = matches!(said, Compressor::FileSystem | Compressor::Both);
        assert_eq!(share < 0.5, is_compressed, "{what}: {}: {said:?}, {share}", part.name());
        // The kernel says so, too.
        let told = found.compressed_bytes as f64 / TEXT_LEN_BYTES as f64;
        assert_eq!(told > 0.9, is_compressed, "{what}: {}: {found:?}", part.name());
        said
    };
    StorePart::ALL.map(probe).to_vec()
}

#[test]
fn who_compresses_is_who_is_said_to() {
    use Compressor::{Both, Database, FileSystem as ByBtrfs, Nobody};
    let plain = [Nobody, Nobody, Database, Database];
    let asked = [Nobody, ByBtrfs, Both, Database];
    for (file_system, options, expected) in [
        (FileSystem::Ext4, "", plain),
        (FileSystem::Xfs, "", plain),
        (FileSystem::Btrfs, "", asked),
        (FileSystem::Btrfs, "compress=zstd:3", [Nobody, ByBtrfs, Both, Both]),
        (FileSystem::Btrfs, "compress-force=zstd:1", [ByBtrfs, ByBtrfs, Both, Both]),
        (FileSystem::Btrfs, "compress=lzo", [Nobody, ByBtrfs, Both, Both]),
        (FileSystem::Btrfs, "nodatasum", plain),
        (FileSystem::Btrfs, "nodatacow", plain),
    ] {
        let what = format!("{file_system:?} {options}");
        match Disk::create_with(file_system, DISK_LEN_BYTES, options) {
            Ok(disk) => {
                let base = disk.path().join("store");
                assert_eq!(compressors(&base, disk.path(), &what), expected, "{what}");
            }
            Err(reason) => skip(&what, &reason),
        }
    }
}

#[test]
fn directories_that_are_not_to_be_subvolumes_are_none() {
    let disk = match Disk::create_as(FileSystem::Btrfs, DISK_LEN_BYTES) {
        Ok(disk) => disk,
        Err(reason) => return skip("subvolumes", &reason),
    };
    for wanted in [&[][..], &[StorePart::State, StorePart::Cache], &StorePart::ALL] {
        let base = disk.path().join(wanted.len().to_string());
        Store::open(StoreConfig::new(&base).with_subvolumes(wanted)).unwrap().close();
        let report = examine_layout(&base).unwrap();
        assert_eq!((report.parts.len(), &*report.file_system), (4, "btrfs"));
        for part in report.parts {
            assert_eq!(part.is_subvolume, wanted.contains(&part.part), "{part:?}");
            assert!(part.has_checksums);
        }
        // Whatever they are, snapshots of them open.
        let store = Store::open(StoreConfig::new(&base)).unwrap();
        store.put("notes", &Record::new("a").with_text("")).unwrap_err();
        store.put("notes", &Record::new("a").with_vector([1.0])).unwrap();
        let taken = store.take_snapshot("", false).unwrap();
        let snapshot = Store::open(StoreConfig::new(&base).at_snapshot(&taken)).unwrap();
        assert!(snapshot.get("notes", b"a").unwrap().is_some());
    }
}
