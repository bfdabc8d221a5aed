//! The service as a system has it: its units, its place on the bus, its rights, its snapshots, its
//! plugins, in a Debian that systemd has booted in a container. What is asked there, and what is
//! installed first, is in `system.sh` and `system/`.
//!
//! Needs root, systemd-nspawn, debootstrap, loop devices and mkfs.btrfs; says so and does nothing
//! without them. The first run makes a root file system and keeps it; see `container.sh`.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::crash::campaign::skip;
use support::crash::disk::{Disk, FileSystem};
use support::scratch;

const TEST: &str = "the service in a system";
const DISK_LEN_BYTES: u64 = 1 << 30;
/// As a system would mount it: it compresses, and the service's user may delete its snapshots.
const MOUNT_OPTIONS: &str = "compress=zstd:3,user_subvol_rm_allowed";
/// How long it may take; on a machine with nothing else to do it takes 30.
const SECONDS: &str = "240";
/// How container.sh ends where there can be no container.
const CANNOT: i32 = 77;
/// The executables of the shipped plugins.
const PLUGINS: [&str; 2] = ["op-dbus-plugin-lxc", "op-dbus-plugin-netmaker"];
/// Things that must hold, at least: a script that ends early must not pass.
const PASSED_COUNT_MIN: usize = 110;

#[test]
fn the_service_in_a_system() {
    let data = scratch::data_directory();
    let disk = match Disk::create_with(FileSystem::Btrfs, DISK_LEN_BYTES, MOUNT_OPTIONS) {
        Ok(disk) => disk,
        Err(reason) => return skip(TEST, &reason),
    };
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let shared = scratch::on_disk();
    fs::copy(sources.join("tests/system.sh"), shared.path().join("run.sh")).unwrap();
    for part in ["plugins.sh", "holds.sh"] {
        fs::copy(sources.join("tests/system").join(part), shared.path().join(part)).unwrap();
    }
    copy_plugins(sources, shared.path());
    let binds: [(&str, PathBuf, &str); 6] = [
        ("--bind", disk.path().to_owned(), "/var/lib/op-dbus"),
        ("--bind-ro", data.join("lib"), "/usr/lib/op-dbus"),
        ("--bind-ro", data.join("models"), "/usr/share/op-dbus/models"),
        ("--bind-ro", sources.join("daemon/system"), "/op-dbus-test/system"),
        ("--bind-ro", sources.join("daemon/plugins"), "/op-dbus-test/plugins"),
        ("--bind-ro", env!("CARGO_BIN_EXE_op-dbus").into(), "/op-dbus-test/op-dbus"),
    ];
    let binds = binds.into_iter().flat_map(|(kind, from, to)| {
        [OsString::from(kind), from.into_os_string(), OsString::from(to)]
    });
    let output = Command::new(sources.join("tests/container.sh"))
        .args(["--seconds", SECONDS])
        .args(binds)
        .arg(shared.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(CANNOT) {
        return skip(TEST, &said.trim());
    }
    let log = fs::read(shared.path().join("log")).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    println!("{log}");
    if let Some(reason) = log.lines().find_map(|line| line.strip_prefix("SKIPPED: ")) {
        return skip(TEST, &reason);
    }
    assert!(output.status.success(), "{}: {said}", output.status);
    let passed_count = log.lines().filter(|line| line.starts_with("ok ")).count();
    assert!(passed_count >= PASSED_COUNT_MIN, "only {passed_count} things were looked at");
}

/// Copies the executables of the plugins, which are another package's: cargo has no path of those for
/// this test, and may not have built them since they were changed.
fn copy_plugins(sources: &Path, to: &Path) {
    let built = Path::new(env!("CARGO_BIN_EXE_op-dbus")).parent().unwrap();
    let profile = match built.file_name().unwrap().to_str().unwrap() {
        "debug" => "dev",
        profile => profile,
    };
    let output = Command::new(env!("CARGO"))
        .args(["build", "--locked", "--package", "op-dbus-plugins", "--bins", "--profile", profile])
        .arg("--target-dir")
        .arg(built.parent().unwrap())
        .current_dir(sources)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for plugin in PLUGINS {
        fs::copy(built.join(plugin), to.join(plugin)).unwrap();
    }
}
