//! Full disks: puts are refused in time, all else goes on, and room that comes back is used.
//!
//! Needs root, loop devices and mkfs.btrfs; says so and does nothing without them.
//! `OPDBUS_TEST_FILLS` says how often a disk is filled (3 unless set), `OPDBUS_TEST_SEED` repeats
//! the operations.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use op_dbus_engine::{ErrorKind, Payload, Query, Record, Store, StoreConfig};
use support::crash::campaign::{Campaign, skip};
use support::crash::disk::{Disk, FileSystem};
use support::random::Random;

const FILLS_VARIABLE: &str = "OPDBUS_TEST_FILLS";
const FILLS_DEFAULT: u64 = 3;
/// A disk is replaced by a new one after so many fills: the store's list of changes only grows.
const FILLS_OF_DISK: u64 = 20;
const DISK_LEN_BYTES: u64 = 512 << 20;
const COLLECTION: &str = "full";
const DIMENSIONS: usize = 16;

/// Who takes the last room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filler {
    /// The store itself, until it refuses.
    Puts,
    /// The store first; then somebody else takes what it has left.
    Outsider,
    /// Somebody else, while the store is written to.
    OutsiderAtOnce,
}

const FILLERS: [Filler; 3] = [Filler::Puts, Filler::Outsider, Filler::OutsiderAtOnce];

/// A store and what it must hold: by key, the version acknowledged last.
struct Full {
    store: Option<Store>,
    path: PathBuf,
    held: BTreeMap<String, u64>,
    /// A batch that the disk refused: it may be there, whole.
    unknown: BTreeMap<String, u64>,
    next_version: u64,
    /// Removals that found the room taken after they had looked, and were repeated.
    repeated_count: u64,
    random: Random,
}

fn record(key: &str, version: u64) -> Record {
    let mut random = Random::new(version);
    let vector = random.vector(DIMENSIONS);
    let words = 256 + random.below(8192);
    // Random, so that neither LZ4 nor the file system makes it smaller.
    let bytes: Vec<u8> = (0..words).flat_map(|_| random.bits().to_le_bytes()).collect();
    Record::new(key).with_vector(vector).with_payload(Payload::Bytes(bytes.into()))
}

impl Full {
    fn new(path: PathBuf, random: Random) -> Self {
        let (held, unknown) = (BTreeMap::new(), BTreeMap::new());
        Self { store: None, path, held, unknown, next_version: 1, repeated_count: 0, random }
    }

    #[track_caller]
    fn store(&mut self) -> &Store {
        if self.store.is_none() {
            let before = described(&self.path);
            match Store::open(StoreConfig::new(&self.path)) {
                Ok(store) => self.store = Some(store),
                Err(error) => panic!(
                    "the store opens: {error}: {:?}\nbefore: {before}\nafter: {}",
                    cause(&error),
                    described(&self.path)
                ),
            }
        }
        self.store.as_ref().expect("it was just opened")
    }

    #[track_caller]
    fn reopen(&mut self) {
        if let Some(store) = self.store.take() {
            store.close();
        }
        self.store();
    }

    /// Puts a batch of records, new and old; `Err` is how it was refused.
    fn put(&mut self) -> Result<(), ErrorKind> {
        const BATCH_COUNT: usize = 64;
        const KEYS_COUNT: usize = 20_000;
        let batch: BTreeMap<String, u64> = (0..BATCH_COUNT)
            .map(|_| {
                self.next_version += 1;
                (format!("key-{:05}", self.random.below(KEYS_COUNT)), self.next_version)
            })
            .collect();
        let records: Vec<Record> =
            batch.iter().map(|(key, version)| record(key, *version)).collect();
        match self.store().put_batch(COLLECTION, &records) {
            Ok(_) => {
                self.held.extend(batch);
                // A store that takes this one was not poisoned by the last one.
                self.unknown.clear();
                Ok(())
            }
            Err(error) => {
                if error.kind() == ErrorKind::Full {
                    self.unknown = batch;
                }
                assert!(
                    matches!(error.kind(), ErrorKind::Full | ErrorKind::Poisoned),
                    "{error}: {:?}",
                    cause(&error)
                );
                Err(error.kind())
            }
        }
    }

    /// Puts until the store refuses for want of room.
    fn put_all(&mut self) {
        while self.put().is_ok() {}
        assert_ne!(self.put(), Err(ErrorKind::Poisoned), "a put refused in time poisons nothing");
    }

    /// Removes so many records, each of which must be there.
    fn remove(&mut self, count: usize) {
        const REPEATS_MAX: usize = 2;
        // Evenly from all of them.
        let step = (self.held.len() / count.max(1)).max(1);
        let keys: Vec<String> = self.held.keys().step_by(step).take(count).cloned().collect();
        for key in keys {
            let mut removed = self.store().remove(COLLECTION, key.as_bytes());
            for _ in 0..REPEATS_MAX {
                if !removed.as_ref().is_err_and(|error| error.kind() == ErrorKind::Full) {
                    break;
                }
                // RocksDB itself may take the room between the look and the write. Then the store
                // has to be opened again, as after any write that failed.
                self.repeated_count += 1;
                self.reopen();
                let is_there = self.store().get(COLLECTION, key.as_bytes()).expect("reads work");
                removed = match is_there {
                    Some(_) => self.store().remove(COLLECTION, key.as_bytes()),
                    // It was done, and only not acknowledged.
                    None => Ok(true),
                };
            }
            let removed = removed.unwrap_or_else(|error| {
                panic!("{key} can be removed: {error}: {:?}", cause(&error))
            });
            assert!(removed, "{key} was there");
            self.held.remove(&key);
        }
    }

    /// Reads everything.
    fn check(&mut self) {
        let scan = self.store().scan(COLLECTION, b"").expect("there is the collection");
        let found: BTreeMap<String, Record> = scan
            .map(|record| record.expect("reads work"))
            .map(|record| (String::from_utf8(record.key.clone()).expect("UTF-8"), record))
            .collect();
        let holds = |state: &BTreeMap<String, u64>| {
            found.keys().eq(state.keys())
                && state.iter().all(|(key, version)| found[key] == record(key, *version))
        };
        if !holds(&self.held) {
            let mut after = self.held.clone();
            after.extend(std::mem::take(&mut self.unknown));
            assert!(holds(&after), "neither what was acknowledged nor that and the last batch");
            self.held = after;
        }
        self.unknown.clear();
        let Some((key, version)) = self.held.first_key_value() else { return };
        let vector = record(key, *version).vector.expect("it has one");
        let query = Query::vector(vector).collection(COLLECTION).limit(1);
        let answer = self.store.as_ref().expect("open").search(&query).expect("searches work");
        assert_eq!(answer.hits[0].key, key.as_bytes());
    }

    /// After room was made: puts are taken again, soon.
    fn put_again(&mut self) {
        const PATIENCE: Duration = Duration::from_secs(30);
        const PAUSE: Duration = Duration::from_millis(200);
        let started = Instant::now();
        while let Err(kind) = self.put() {
            assert_eq!(kind, ErrorKind::Full);
            assert!(started.elapsed() < PATIENCE, "puts are refused though there is room");
            std::thread::sleep(PAUSE);
        }
    }
}

/// What lies on the disk of a store, and what its file system says of it.
fn described(path: &Path) -> String {
    let print = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).arg(path).output();
        output.map_or_else(
            |error| format!("{program}: {error}"),
            |output| String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    };
    print("btrfs", &["filesystem", "usage"]) + &print("ls", &["-lRs"])
}

fn cause(error: &op_dbus_engine::Error) -> Option<String> {
    std::error::Error::source(error).map(ToString::to_string)
}

/// Takes every byte of the disk.
fn take_all(path: &Path) {
    let mut random = Random::new(1);
    let mut file = File::create(path).expect("a file can be made");
    for chunk_bytes in [1 << 20, 4096, 64] {
        loop {
            let bytes: Vec<u8> =
                (0..chunk_bytes / 8).flat_map(|_| random.bits().to_le_bytes()).collect();
            if file.write_all(&bytes).is_err() {
                break;
            }
        }
        // It may be refused too: the disk is full.
        let _ = file.sync_all();
    }
}

/// One fill: what happens on the full disk, and after it.
fn fill_and_free(full: &mut Full, filler: Filler, outsider: &Path) {
    const REMOVED_ON_FULL_COUNT: usize = 30;
    match filler {
        Filler::Puts => full.put_all(),
        Filler::Outsider => {
            full.put_all();
            take_all(outsider);
        }
        Filler::OutsiderAtOnce => std::thread::scope(|scope| {
            full.put_again();
            let taking = scope.spawn(|| take_all(outsider));
            while full.put().is_ok() {}
            taking.join().expect("it takes what it can");
            // The last put may have been under way when the room went; then only reopening tells.
            full.reopen();
        }),
    }
    full.check();
    full.remove(REMOVED_ON_FULL_COUNT);
    full.check();
    full.reopen();
    full.check();
    full.remove(REMOVED_ON_FULL_COUNT);
    // A compaction may have made room meanwhile.
    assert_ne!(full.put(), Err(ErrorKind::Poisoned));
    if filler == Filler::Puts {
        full.remove(full.held.len() * 3 / 4);
    } else {
        fs::remove_file(outsider).expect("it can be removed");
    }
    full.remove(full.held.len() / 2);
    full.put_again();
    full.check();
}

#[test]
fn a_full_disk_loses_nothing_and_refuses_only_puts() {
    let mut campaign = Campaign::start("full disk", FILLS_VARIABLE, FILLS_DEFAULT, 100);
    let mut random = campaign.random();
    let (mut fill, mut repeated_count) = (0, 0);
    while campaign.goes_on() {
        let mut disk = match Disk::create_as(FileSystem::Btrfs, DISK_LEN_BYTES) {
            Ok(disk) => disk,
            Err(reason) => return skip("full disks", &reason),
        };
        let outsider = disk.path().join("outsider");
        let mut full = Full::new(disk.path().join("store"), Random::new(random.bits()));
        for _ in 0..FILLS_OF_DISK {
            let filler = FILLERS[fill % FILLERS.len()];
            fill += 1;
            fill_and_free(&mut full, filler, &outsider);
            let acknowledged = full.held.len();
            campaign.judge(&filler, Ok(acknowledged), || disk.keep());
            if !campaign.goes_on() {
                break;
            }
        }
        repeated_count += full.repeated_count;
        drop(full);
    }
    campaign.finish(&format!(", 512 MiB of btrfs, {repeated_count} removals repeated"));
}
