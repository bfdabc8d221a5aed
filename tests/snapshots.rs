//! Snapshots: whole whatever is written meanwhile, open to questions, and never in the way of what
//! others have put where a store's directories are.
//!
//! On plain directories, and on a BTRFS and an XFS of its own where there are root, loop devices,
//! mkfs.btrfs and mkfs.xfs.
//! `OPDBUS_TEST_SNAPSHOTS` says how many are taken under writers (8 unless set).

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZero;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use op_dbus_engine::{
    Answer, ErrorKind, LinkOptions, PartKind, Payload, Profile, Query, Record, Retention,
    ScrubOptions, SnapshotInfo, Snapshots, Store, StoreConfig, StorePart, migrate_layout,
};
use support::crash::campaign::skip;
use support::crash::disk::{Disk, FileSystem};
use support::random::Random;
use support::scratch;

const SNAPSHOTS_VARIABLE: &str = "OPDBUS_TEST_SNAPSHOTS";
const SNAPSHOTS_DEFAULT: u64 = 8;
const DISK_LEN_BYTES: u64 = 1 << 30;
const PAUSE: Duration = Duration::from_millis(1);
const WRITERS_COUNT: usize = 3;
const COLLECTION: &str = "written";
const DIMENSIONS: usize = 16;

/// Runs a test in a plain directory, on BTRFS, and on XFS.
fn everywhere(test: &str, run: impl Fn(&Path)) {
    run(scratch::on_disk().path());
    for file_system in [FileSystem::Btrfs, FileSystem::Xfs] {
        match Disk::create_as(file_system, DISK_LEN_BYTES) {
            Ok(disk) => run(disk.path()),
            Err(reason) => skip(test, &reason),
        }
    }
}

fn open(base: &Path) -> Store {
    Store::open(StoreConfig::new(base)).unwrap()
}

fn open_snapshot(base: &Path, snapshot: &SnapshotInfo) -> Store {
    Store::open(StoreConfig::new(base).at_snapshot(snapshot)).unwrap()
}

/// Whatever is free: what a test's disk has is not asked.
fn last(count: usize) -> Retention {
    Retention { free_percent_min: 0, ..Retention::of_count(count) }
}

/// What is done to a directory.
type Deed<'a> = &'a dyn Fn(&Path);

fn link_options() -> LinkOptions {
    LinkOptions { profile: Profile::Speed, threads: NonZero::<usize>::MIN }
}

fn key(writer: usize, number: u64) -> String {
    format!("{writer}-{number:08}")
}

/// The only record that may stand under its key.
fn record(writer: usize, number: u64) -> Record {
    let mut random = Random::new(number * WRITERS_COUNT as u64 + writer as u64);
    let vector = random.vector(DIMENSIONS);
    let bytes: Vec<u8> = (0..random.below(400)).flat_map(|_| random.bits().to_le_bytes()).collect();
    let payload = Payload::Bytes(bytes.into());
    Record::new(key(writer, number)).with_vector(vector).with_payload(payload)
}

/// Every file below a directory and what is in it.
fn content(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(content(&path));
        } else {
            found.insert(path.clone(), fs::read(path).unwrap());
        }
    }
    found
}

/// A snapshot holds, of each writer, what was acknowledged before and nothing but a beginning of what
/// it wrote.
fn check_beginnings(snapshot: &Store, acknowledged: &[u64]) {
    let mut counts = vec![0; acknowledged.len()];
    let found: Vec<Record> =
        snapshot.scan(COLLECTION, b"").unwrap().collect::<Result<_, _>>().unwrap();
    for found in &found {
        let name = std::str::from_utf8(&found.key).unwrap();
        let writer: usize = name.split('-').next().unwrap().parse().unwrap();
        assert_eq!(*found, record(writer, counts[writer]), "a record is missing before {name}");
        counts[writer] += 1;
    }
    let are_there =
        counts.iter().zip(acknowledged).all(|(found, acknowledged)| found >= acknowledged);
    assert!(are_there, "{acknowledged:?} were acknowledged, {counts:?} are there");
    // What is found by its vector is what is there.
    let some = found.iter().step_by(1 + found.len() / 20);
    for record in some {
        let query = Query::vector(record.vector.clone().unwrap()).exact().limit(1);
        assert_eq!(snapshot.search(&query).unwrap().hits[0].key, record.key);
    }
}

#[test]
fn snapshots_under_writers_are_whole() {
    let count = std::env::var(SNAPSHOTS_VARIABLE).map(|count| count.parse().unwrap());
    let snapshots_count: u64 = count.unwrap_or(SNAPSHOTS_DEFAULT);
    everywhere("snapshots under writers", |directory| {
        let base = directory.join("store");
        let store = open(&base);
        let (is_over, is_paused) = (AtomicBool::new(false), AtomicBool::new(false));
        let counts = [const { AtomicU64::new(0) }; WRITERS_COUNT];
        std::thread::scope(|scope| {
            for (writer, count) in counts.iter().enumerate() {
                let (store, is_over, is_paused) = (&store, &is_over, &is_paused);
                scope.spawn(move || {
                    while !is_over.load(Ordering::Relaxed) {
                        if is_paused.load(Ordering::Relaxed) {
                            std::thread::sleep(PAUSE);
                            continue;
                        }
                        let number = count.load(Ordering::Relaxed);
                        store.put(COLLECTION, &record(writer, number)).unwrap();
                        count.store(number + 1, Ordering::Release);
                    }
                });
            }
            let _ended = Ended(&is_over);
            for number in 0..snapshots_count {
                is_paused.store(false, Ordering::Relaxed);
                let acknowledged = || counts.each_ref().map(|count| count.load(Ordering::Acquire));
                let before = acknowledged();
                while acknowledged().iter().zip(before).any(|(now, before)| *now < before + 10) {
                    std::thread::yield_now();
                }
                if number == 1 {
                    // From here on there is a graph, too.
                    let options = link_options();
                    store.link(COLLECTION, options, &mut |_, _| Ok(())).unwrap();
                }
                let acknowledged = acknowledged();
                let taken = store.take_snapshot("under writers", false).unwrap();
                // It was taken beside them; it is read alone, so that the store does not grow for it.
                is_paused.store(true, Ordering::Relaxed);
                check_beginnings(&open_snapshot(&base, &taken), &acknowledged);
                assert_eq!(
                    Snapshots::of(&base).prune(&last(3)).unwrap().len(),
                    usize::from(number >= 3)
                );
            }
        });
        store.close();
        // The store itself is as it was, and earlier snapshots are still what they were.
        check_beginnings(&open(&base), &counts.map(AtomicU64::into_inner));
        for snapshot in Snapshots::of(&base).list().unwrap() {
            check_beginnings(&open_snapshot(&base, &snapshot), &[0; WRITERS_COUNT]);
        }
    });
}

/// Ends the writers, also if the test fails.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn found(answer: &Answer) -> Vec<(Vec<u8>, f32)> {
    answer.hits.iter().map(|hit| (hit.key.clone(), hit.score)).collect()
}

#[test]
fn a_snapshot_answers_as_the_store_did() {
    everywhere("answers of snapshots", |directory| {
        let base = directory.join("store");
        let store = open(&base);
        let records: Vec<Record> = (0..600).map(|number| record(0, number)).collect();
        let queries: Vec<Query> = (1000..1010)
            .map(|number| Query::vector(record(1, number).vector.unwrap()).collection(COLLECTION))
            .collect();
        let answers = |store: &Store| -> Vec<_> {
            queries.iter().map(|query| found(&store.search(query).unwrap())).collect()
        };
        let mut moments = Vec::new();
        for (number, part) in records.chunks(200).enumerate() {
            store.put_batch(COLLECTION, part).unwrap();
            store.remove(COLLECTION, &records[number].key).unwrap();
            store.put(COLLECTION, &Record { vector: None, ..record(2, 0) }).unwrap();
            let taken = store.take_snapshot(&format!("part {number}"), number == 0).unwrap();
            moments.push((taken, answers(&store)));
        }
        // While the store is open, and once it is closed.
        for is_open in [true, false] {
            for (taken, expected) in &moments {
                let snapshot = open_snapshot(&base, taken);
                assert_eq!(answers(&snapshot), *expected, "{} {is_open}", taken.name);
                assert_eq!(snapshot.stats().unwrap().sequence, taken.sequence);
            }
            if is_open {
                store.remove(COLLECTION, &records[599].key).unwrap();
                assert_eq!(store.get(COLLECTION, &records[599].key).unwrap(), None);
            }
        }
        store.close();
        // One that is restored can be written to, and the snapshot stays as it was.
        let (snapshots, back) = (Snapshots::of(&base), directory.join("back"));
        let (first, expected) = &moments[0];
        snapshots.restore(&first.name, &back).unwrap();
        let restored = open(&back);
        assert_eq!(answers(&restored), *expected);
        restored.put(COLLECTION, &record(2, 7)).unwrap();
        restored.close();
        assert_eq!(answers(&open_snapshot(&base, first)), *expected);
        let again = snapshots.restore(&first.name, &back).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::Invalid);
        // The store itself goes back, and forth again; not while somebody has it open.
        let latest = &moments[2];
        for (taken, expected) in [&moments[1], &moments[0], latest] {
            snapshots.restore_in_place(&taken.name).unwrap();
            let store = open(&base);
            assert_eq!(answers(&store), *expected);
            store.put(COLLECTION, &record(3, taken.sequence)).unwrap();
            let refused = snapshots.restore_in_place(&latest.0.name).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Busy);
            store.close();
        }
        let mut left = fs::read_dir(&base).unwrap().map(|entry| entry.unwrap().path());
        assert!(left.all(|path| path.extension().is_none()));
        // The first is kept, and goes when it is named.
        assert_eq!(snapshots.prune(&last(1)).unwrap(), [moments[1].0.name.clone()]);
        let names = |snapshots: &Snapshots| -> Vec<String> {
            snapshots.list().unwrap().into_iter().map(|info| info.name).collect()
        };
        assert_eq!(names(&snapshots), [first.name.clone(), moments[2].0.name.clone()]);
        assert_eq!(snapshots.at(u64::MAX).unwrap(), moments[2].0);
        assert_eq!(snapshots.at(first.taken_unix_ms - 1).unwrap_err().kind(), ErrorKind::NotFound);
        snapshots.delete(&first.name).unwrap();
        assert_eq!(snapshots.delete(&first.name).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(names(&snapshots), [moments[2].0.name.clone()]);
        assert_eq!(fs::read_dir(base.join("snapshots")).unwrap().count(), 1 + 1, "and the lock");
    });
}

#[test]
fn a_snapshot_cannot_be_changed_and_nothing_in_it_changes() {
    everywhere("changes of snapshots", |directory| {
        let base = directory.join("store");
        let store = open(&base);
        for number in 0..50 {
            store.put(COLLECTION, &record(0, number)).unwrap();
        }
        let taken = store.take_snapshot("", false).unwrap();
        let path = Snapshots::of(&base).path(&taken.name);
        let before = content(&path);
        let snapshot = open_snapshot(&base, &taken);
        let refused = [
            snapshot.put(COLLECTION, &record(0, 50)).map(drop),
            snapshot.put("other", &record(0, 0)).map(drop),
            snapshot.remove(COLLECTION, key(0, 0).as_bytes()).map(drop),
            snapshot.clear_cache(),
            snapshot.clean_cache(Duration::ZERO).map(drop),
            snapshot.collect_expired(10).map(drop),
            snapshot.unlink(COLLECTION).map(drop),
            snapshot.link(COLLECTION, link_options(), &mut |_, _| Ok(())).map(drop),
            snapshot.start_trace().map(drop),
            snapshot.take_snapshot("", false).map(drop),
            snapshot.scrub(&ScrubOptions::default(), &mut |_| ControlFlow::Continue(())).map(drop),
        ];
        for (number, refused) in refused.into_iter().enumerate() {
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::Denied, "{number}");
        }
        // Several may have it open, beside the store.
        let other = open_snapshot(&base, &taken);
        check_beginnings(&other, &[50]);
        snapshot.close();
        drop(other);
        let is_message =
            |path: &&PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("LOG");
        let after = content(&path);
        let changed: Vec<_> =
            after.keys().filter(|file| before.get(*file) != after.get(*file)).collect();
        assert!(changed.iter().all(is_message), "{changed:?}");
        assert_eq!(Snapshots::of(&base).named(&taken.name).unwrap(), taken);
    });
}

#[test]
fn a_snapshot_that_is_damaged_is_none() {
    let directory = scratch::on_disk();
    let store = open(directory.path());
    store.put(COLLECTION, &record(0, 0)).unwrap();
    let snapshots = Snapshots::of(directory.path());
    let damage: [(&str, Deed); 3] = [
        ("SNAPSHOT", &|path| {
            let file = path.join("SNAPSHOT");
            let mut bytes = fs::read(&file).unwrap();
            bytes[70] ^= 1;
            fs::write(file, bytes).unwrap();
        }),
        ("other files", &|path| fs::write(path.join("@vectors/more"), "x").unwrap()),
        ("other files", &|path| fs::remove_file(path.join("@state/STORE")).unwrap()),
    ];
    for (what, damage) in damage {
        let taken = store.take_snapshot("", false).unwrap();
        damage(&snapshots.path(&taken.name));
        let refused = snapshots.named(&taken.name).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Corrupt);
        assert!(refused.to_string().contains(what), "{refused}");
        assert_eq!(snapshots.list().unwrap(), []);
        snapshots.delete(&taken.name).unwrap();
    }
    // Links, and what others have put there, are none, and stay.
    let elsewhere = directory.path().join("elsewhere");
    open(&elsewhere).close();
    let taken = store.take_snapshot("", false).unwrap();
    let place = |name: &str| directory.path().join("snapshots").join(name);
    std::os::unix::fs::symlink(snapshots.path(&taken.name), place("latest")).unwrap();
    std::os::unix::fs::symlink(&elsewhere, place("link.unfinished")).unwrap();
    fs::create_dir_all(place("photos.unfinished/summer")).unwrap();
    fs::create_dir_all(place("photos/summer")).unwrap();
    let before = content(&elsewhere);
    assert_eq!(snapshots.list().unwrap(), [taken]);
    for name in ["latest", "photos"] {
        assert_eq!(snapshots.delete(name).unwrap_err().kind(), ErrorKind::NotFound);
    }
    store.take_snapshot("", false).unwrap();
    for taken in snapshots.list().unwrap() {
        snapshots.delete(&taken.name).unwrap();
    }
    assert!(before.keys().all(|path| path.exists()), "something is gone");
    assert!(place("photos/summer").exists() && place("photos.unfinished/summer").exists());
    // What was broken off is removed by the next.
    let unfinished = directory.path().join("snapshots/20200101T000000Z.unfinished");
    fs::create_dir_all(unfinished.join("@state")).unwrap();
    assert_eq!(snapshots.list().unwrap(), []);
    store.take_snapshot("", false).unwrap();
    assert!(!unfinished.exists());
    for name in ["", ".", "..", "a/b", "a/", "/x", "20200101T000000Z.unfinished"] {
        assert_eq!(snapshots.named(name).unwrap_err().kind(), ErrorKind::Invalid, "{name:?}");
        assert_eq!(snapshots.delete(name).unwrap_err().kind(), ErrorKind::Invalid, "{name:?}");
    }
}

#[test]
fn snapshots_at_the_same_time_are_all_whole() {
    everywhere("snapshots at the same time", |directory| {
        let store = open(directory);
        store.put(COLLECTION, &record(0, 0)).unwrap();
        let snapshots = Snapshots::of(directory);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..4 {
                        let taken = store.take_snapshot("", false).unwrap();
                        assert_eq!(taken.sequence, 1);
                        snapshots.prune(&last(5)).unwrap();
                    }
                });
            }
        });
        let left = snapshots.list().unwrap();
        assert_eq!(left.len(), 5);
        left.iter().for_each(|taken| check_beginnings(&open_snapshot(directory, taken), &[1]));
        assert_eq!(
            fs::read_dir(directory.join("snapshots")).unwrap().count(),
            5 + 1,
            "and the lock"
        );
    });
}

#[test]
fn snapshots_go_before_their_time_where_the_disk_is_full() {
    everywhere("snapshots on full disks", |directory| {
        let store = open(directory);
        let take = |is_kept| store.take_snapshot("", is_kept).unwrap().name;
        let taken = [true, false, false, false].map(take);
        let snapshots = Snapshots::of(directory);
        let retention = |free_percent_min| Retention { free_percent_min, ..Retention::of_count(9) };
        assert_eq!(snapshots.prune(&retention(0)).unwrap(), [""; 0]);
        // Nothing can be as free as that, and one goes each time.
        assert_eq!(snapshots.prune(&retention(100)).unwrap(), taken[1..2]);
        assert_eq!(snapshots.prune(&retention(100)).unwrap(), taken[2..3]);
        assert_eq!(snapshots.prune(&retention(100)).unwrap(), [""; 0]);
        let left = snapshots.list().unwrap().into_iter().map(|info| info.name);
        assert_eq!(left.collect::<Vec<_>>(), [&taken[0][..], &taken[3]]);
    });
}

#[test]
fn asking_for_snapshots_makes_nothing() {
    let directory = scratch::on_disk();
    let snapshots = Snapshots::of(directory.path().join("none"));
    assert_eq!(snapshots.list().unwrap(), []);
    assert_eq!(snapshots.prune(&last(1)).unwrap(), [""; 0]);
    let target = directory.path().join("back");
    for refused in [
        snapshots.named("20200101T000000Z").map(drop),
        snapshots.delete("20200101T000000Z"),
        snapshots.restore("20200101T000000Z", &target),
        snapshots.restore_in_place("20200101T000000Z"),
    ] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotFound);
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "something was made");
}

/// The check of snapshots finds a log without its end, which is what a torn copy has.
#[test]
fn a_copy_that_lacks_what_was_acknowledged_is_found_out() {
    let directory = scratch::on_disk();
    let (base, torn) = (directory.path().join("store"), directory.path().join("torn"));
    let store = open(&base);
    for number in 0..20 {
        store.put(COLLECTION, &record(0, number)).unwrap();
    }
    let copy = |from: &Path| {
        for (path, bytes) in content(from) {
            let target = torn.join(path.strip_prefix(&base).unwrap());
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::write(target, bytes).unwrap();
        }
    };
    // The log first, then more is written, then the rest.
    copy(&base.join("@state/db"));
    for number in 20..40 {
        store.put(COLLECTION, &record(0, number)).unwrap();
    }
    copy(&base.join("@cache"));
    fs::copy(base.join("@state/STORE"), torn.join("@state/STORE")).unwrap();
    fs::copy(base.join("@state/ACKNOWLEDGED"), torn.join("@state/ACKNOWLEDGED")).unwrap();
    let refused = Store::open(StoreConfig::new(&torn).existing()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused}");
}

#[test]
fn what_others_have_put_there_is_refused_and_stays() {
    everywhere("foreign directories", |directory| {
        let other = directory.join("other");
        open(&other).close();
        let foreign: [(&str, Deed); 5] = [
            ("@cache", &|base| {
                fs::create_dir(base.join("@cache")).unwrap();
                fs::write(base.join("@cache/photo.jpg"), "not ours").unwrap();
            }),
            ("@timing", &|base| fs::write(base.join("@timing"), "a file").unwrap()),
            ("@state", &|base| fs::write(base.join("@state"), "a file").unwrap()),
            ("@state", &|base| {
                fs::create_dir(base.join("@state")).unwrap();
                fs::write(base.join("@state/notes"), "not ours").unwrap();
            }),
            ("@vectors", &|base| {
                fs::rename(other.join("@vectors"), base.join("@vectors")).unwrap()
            }),
        ];
        for (number, (part, put)) in foreign.into_iter().enumerate() {
            let base = directory.join(number.to_string());
            fs::create_dir(&base).unwrap();
            put(&base);
            let is_file = base.join(part).is_file();
            let read = || match is_file {
                true => BTreeMap::from([(base.join(part), fs::read(base.join(part)).unwrap())]),
                false => content(&base.join(part)),
            };
            let before = read();
            for _ in 0..2 {
                let refused = Store::open(StoreConfig::new(&base)).unwrap_err();
                assert!(
                    matches!(refused.kind(), ErrorKind::Invalid | ErrorKind::Corrupt),
                    "{refused}"
                );
                assert!(refused.to_string().contains(part), "{refused}");
                assert!(refused.remedy().is_some());
            }
            assert_eq!(read(), before, "{part}");
        }
    });
}

#[test]
fn the_directories_of_a_store_are_subvolumes_where_there_are_any() {
    use std::os::unix::fs::MetadataExt;
    const ROOT_INODE: u64 = 256;
    let disk = match Disk::create_as(FileSystem::Btrfs, DISK_LEN_BYTES) {
        Ok(disk) => disk,
        Err(reason) => return skip("subvolumes", &reason),
    };
    let base = disk.path().join("store");
    open(&base).close();
    let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
    for part in ["@state", "@cache", "@timing", "@vectors"] {
        assert_eq!(inode(base.join(part)), ROOT_INODE, "{part}");
    }
    // Plain directories are as good, and stay what they are.
    let plain = disk.path().join("plain");
    fs::create_dir_all(plain.join("@cache")).unwrap();
    let store = open(&plain);
    store.put(COLLECTION, &record(0, 0)).unwrap();
    let taken = store.take_snapshot("", false).unwrap();
    check_beginnings(&open_snapshot(&plain, &taken), &[1]);
    assert_ne!(inode(plain.join("@cache")), ROOT_INODE);
    // Until they are asked to be more, which an earlier attempt that was broken off does not hinder.
    assert_eq!(migrate_layout(&plain, &StorePart::ALL).unwrap_err().kind(), ErrorKind::Busy);
    store.close();
    fs::create_dir_all(plain.join("@cache.unfinished/db")).unwrap();
    fs::write(plain.join("@cache.unfinished/db/half"), "half").unwrap();
    let kinds = |expected: [PartKind; 4]| {
        let migrated = migrate_layout(&plain, &StorePart::ALL).unwrap();
        assert_eq!(migrated.iter().map(|(_, kind)| *kind).collect::<Vec<_>>(), expected);
        for (part, _) in migrated {
            assert_eq!(inode(part.clone()), ROOT_INODE, "{}", part.display());
        }
        let names: Vec<_> =
            fs::read_dir(&plain).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(names.iter().all(|path| path.extension().is_none()), "{names:?}");
    };
    use PartKind::{Migrated, Subvolume};
    kinds([Subvolume, Subvolume, Migrated, Subvolume]);
    kinds([Subvolume; 4]);
    check_beginnings(&open(&plain), &[1]);
    // What was taken of a plain one is what it was.
    check_beginnings(&open_snapshot(&plain, &taken), &[1]);
    let elsewhere = scratch::on_disk();
    open(elsewhere.path()).close();
    assert_eq!(
        migrate_layout(elsewhere.path(), &StorePart::ALL).unwrap_err().kind(),
        ErrorKind::Unsupported
    );
    assert_eq!(
        migrate_layout(&disk.path().join("none"), &StorePart::ALL).unwrap_err().kind(),
        ErrorKind::NotFound
    );
}
