//! Killed changes of a store's directories: it is whole at every moment, and the same command goes on.
//!
//! On a BTRFS of its own, where there are root, loop devices and mkfs.btrfs. `OPDBUS_TEST_KILLS` says
//! how many kills all tests of kills share (25 unless set).

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use op_dbus_engine::{Payload, Record, Store, StoreConfig, examine_layout};
use support::crash::campaign::{Campaign, duration_below, skip};
use support::crash::check::Finding;
use support::crash::disk::{Disk, FileSystem};
use support::crash::import::command;
use support::random::Random;

const KILLS_VARIABLE: &str = "OPDBUS_TEST_KILLS";
const KILLS_DEFAULT: u64 = 25;
const DISK_LEN_BYTES: u64 = 1 << 30;
const NAME: &str = "notes";
const RECORDS_COUNT: u64 = 300;

type Content = BTreeMap<Vec<u8>, Record>;

fn disk(test: &str) -> Option<Disk> {
    Disk::create_as(FileSystem::Btrfs, DISK_LEN_BYTES).inspect_err(|reason| skip(test, reason)).ok()
}

/// Writes records of a generation over those of the one before.
fn fill(store: &Store, generation: u64) -> Content {
    let record = |number: u64| {
        let mut random = Random::new(number + generation * RECORDS_COUNT);
        let bytes: Vec<u8> = (0..500).map(|_| random.below(256) as u8).collect();
        Record::new(format!("{number}"))
            .with_vector(random.vector(8))
            .with_payload(Payload::Bytes(bytes.into()))
    };
    let records: Vec<Record> = (generation..RECORDS_COUNT).map(record).collect();
    store.put_batch(NAME, &records).unwrap();
    content(store)
}

fn content(store: &Store) -> Content {
    let records = store.scan(NAME, b"").unwrap().map(Result::unwrap);
    records.map(|record| (record.key.clone(), record)).collect()
}

fn open(base: &Path) -> Store {
    Store::open(StoreConfig::new(base).existing()).unwrap()
}

/// Copies a store that nobody has open.
fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    let copied = Command::new("cp").args(["-a", "--reflink=auto"]).args([from, to]).status();
    assert!(copied.unwrap().success());
}

fn start(base: &Path, arguments: &[&str]) -> std::process::Child {
    let mut command = command(Path::new(env!("CARGO_BIN_EXE_op-dbus")), base, arguments);
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Runs a command to its end; returns how long it took.
fn run(base: &Path, arguments: &[&str]) -> Duration {
    let started = Instant::now();
    let output = start(base, arguments).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    started.elapsed()
}

/// Runs a command and kills it; says whether it was still there.
fn kill(base: &Path, arguments: &[&str], after: Duration) -> bool {
    let mut child = start(base, arguments);
    std::thread::sleep(after);
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    let is_killed = output.status.signal().is_some();
    assert!(is_killed || output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    is_killed
}

fn require(is_so: bool, what: &str) -> Result<(), Vec<Finding>> {
    if is_so { Ok(()) } else { Err(vec![Finding::Unreadable(what.to_owned())]) }
}

/// What was begun is gone once a store was opened.
fn require_nothing_begun(base: &Path) -> Result<(), Vec<Finding>> {
    let entries = fs::read_dir(base)
        .unwrap()
        .chain(fs::read_dir(base.join("snapshots")).into_iter().flatten());
    let names: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    let is_begun = |path: &&PathBuf| path.extension().is_some_and(|end| end == "unfinished");
    require(!names.iter().any(|path| is_begun(&path)), "something that was begun is there")
}

#[test]
fn a_killed_migration_leaves_the_store_whole() {
    let Some(disk) = disk("a killed migration") else { return };
    let (plain, work) = (disk.path().join("plain"), disk.path().join("work"));
    let store = Store::open(StoreConfig::new(&plain).with_subvolumes([])).unwrap();
    let expected = fill(&store, 0);
    store.close();
    copy(&plain, &work);
    let took = run(&work, &["layout", "migrate"]);
    let mut campaign = Campaign::start("migrate", KILLS_VARIABLE, KILLS_DEFAULT, 20);
    let mut random = campaign.random();
    while campaign.goes_on() {
        remove_store(&work);
        copy(&plain, &work);
        let after = duration_below(&mut random, took);
        if !kill(&work, &["layout", "migrate"], after) {
            continue;
        }
        let settled = (|| {
            require(content(&open(&work)) == expected, "other records after a kill")?;
            require_nothing_begun(&work)?;
            run(&work, &["layout", "migrate"]);
            let report = examine_layout(&work).unwrap();
            require(report.parts.iter().all(|part| part.is_subvolume), "no subvolume")?;
            require(content(&open(&work)) == expected, "other records after all")?;
            require_nothing_begun(&work).map(|()| expected.len())
        })();
        campaign.judge(&after, settled, || work.clone());
    }
    campaign.finish("");
}

#[test]
fn a_killed_restore_leaves_what_was_or_what_is_to_be() {
    let Some(disk) = disk("a killed restore") else { return };
    let base = disk.path().join("store");
    let store = Store::open(StoreConfig::new(&base)).unwrap();
    let then = fill(&store, 0);
    let name = store.take_snapshot("", true).unwrap().name;
    let now = fill(&store, 1);
    store.close();
    assert_ne!(then, now);
    let restore = ["snapshot", "restore", &name];
    let took = run(&base, &restore);
    let mut campaign = Campaign::start("restore", KILLS_VARIABLE, KILLS_DEFAULT, 20);
    let mut random = campaign.random();
    let mut restored_count = 0;
    while campaign.goes_on() {
        let store = open(&base);
        fill(&store, 1);
        store.close();
        let after = duration_below(&mut random, took);
        if !kill(&base, &restore, after) {
            continue;
        }
        let settled = (|| {
            let found = content(&open(&base));
            require(found == now || found == then, "neither what was nor what is to be")?;
            restored_count += u64::from(found == then);
            run(&base, &restore);
            require(content(&open(&base)) == then, "other records after all")?;
            require_nothing_begun(&base).map(|()| now.len())
        })();
        campaign.judge(&after, settled, || base.clone());
    }
    campaign.finish(&format!(", {restored_count} times it was done by then"));
}

/// Removes a store of subvolumes and plain directories.
fn remove_store(base: &Path) {
    for part in ["@vectors", "@timing", "@cache", "@state"] {
        for path in [base.join(part), base.join(format!("{part}.unfinished"))] {
            let _ = Command::new("btrfs").args(["-q", "subvolume", "delete"]).arg(path).output();
        }
    }
    let _ = fs::remove_dir_all(base);
}
