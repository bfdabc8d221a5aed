//! Snapshots on their way to another machine: what arrives is what was sent, an increment is no more
//! than that, and a transfer that breaks off goes on where it did.
//!
//! Two BTRFS of their own stand for the machines, where there are root, loop devices and mkfs.btrfs.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use op_dbus_engine::{
    Error, ErrorKind, Query, Record, Retention, SendOptions, SnapshotInfo, Snapshots, Store,
    StoreConfig, Transfer,
};
use op_dbus_formats::snapshot_stream::{Chunk, StreamStart};
use support::crash::campaign::skip;
use support::crash::disk::{Disk, FileSystem};
use support::random::Random;

const DISK_LEN_BYTES: u64 = 1 << 30;
const DIMENSIONS: usize = 384;
/// 15 MB of vectors: several chunks.
const RECORDS_COUNT: usize = 10_000;
const NEW_COUNT: usize = 50;
/// XXH3-128 of no bytes.
const SUM_OF_NOTHING: u128 = 0x99AA_06D3_0147_98D8_6001_C324_468D_497F;

/// A machine that sends and one that receives; none where there are no such disks.
fn machines(test: &str) -> Option<(Disk, Disk)> {
    let disk = || Disk::create_as(FileSystem::Btrfs, DISK_LEN_BYTES);
    match (disk(), disk()) {
        (Ok(here), Ok(there)) => Some((here, there)),
        (Err(reason), _) | (_, Err(reason)) => {
            skip(test, &reason);
            None
        }
    }
}

fn put(base: &Path, first: usize, count: usize) -> SnapshotInfo {
    let store = Store::open(StoreConfig::new(base)).unwrap();
    for numbers in (first..first + count).collect::<Vec<_>>().chunks(1000) {
        let record =
            |number: &usize| Record::new(format!("{number:06}")).with_vector(vector(*number));
        store.put_batch("vectors", &numbers.iter().map(record).collect::<Vec<_>>()).unwrap();
    }
    // What is in the log goes into a table now, and not into the next increment.
    store.close();
    let store = Store::open(StoreConfig::new(base)).unwrap();
    let taken = store.take_snapshot("for another machine", false).unwrap();
    store.close();
    taken
}

fn vector(number: usize) -> Vec<f32> {
    Random::new(number as u64).vector(DIMENSIONS)
}

fn send(from: &Path, name: &str, parent: Option<&str>, first_chunk: u32) -> (Vec<u8>, Transfer) {
    let options = SendOptions { parent: parent.map(str::to_owned), first_chunk };
    let mut stream = Vec::new();
    let sent = Snapshots::of(from).send(name, &options, &mut stream, &mut |_| Ok(())).unwrap();
    assert_eq!(sent.sent_bytes, stream.len() as u64);
    (stream, sent)
}

fn receive(to: &Path, mut stream: &[u8]) -> Result<SnapshotInfo, Error> {
    Snapshots::of(to).receive(&mut stream, &mut |_| Ok(()))
}

/// Both sides answer alike.
fn assert_same(here: &Path, there: &Path, snapshot: &SnapshotInfo) {
    let open = |base| Store::open(StoreConfig::new(base).at_snapshot(snapshot)).unwrap();
    let (sent, received) = (open(here), open(there));
    let records = |store: &Store| -> Vec<Record> {
        store.scan("vectors", b"").unwrap().collect::<Result<_, _>>().unwrap()
    };
    assert!(records(&sent) == records(&received));
    for number in (0..20).map(|number| number * 97) {
        let query = Query::vector(vector(number)).limit(10);
        assert_eq!(sent.search(&query).unwrap().hits, received.search(&query).unwrap().hits);
    }
}

/// What is below the directory of snapshots and is one, or looks like one.
fn names(base: &Path) -> Vec<String> {
    let entries = fs::read_dir(base.join("snapshots")).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != "LOCK");
    names.sort_unstable();
    names
}

#[test]
fn an_increment_moves_only_the_increment_and_answers_the_same() {
    let Some((here, there)) = machines("an increment") else { return };
    let (here, there) = (here.path().join("store"), there.path().join("copy"));
    let first = put(&here, 0, RECORDS_COUNT);
    let (whole, sent) = send(&here, &first.name, None, 0);
    assert!(sent.chunks > 4 && sent.content_bytes > (RECORDS_COUNT * DIMENSIONS * 4) as u64);
    assert_eq!(receive(&there, &whole).unwrap().sequence, first.sequence);
    assert_same(&here, &there, &first);

    let second = put(&here, RECORDS_COUNT, NEW_COUNT);
    let (increment, sent) = send(&here, &second.name, Some(&first.name), 0);
    let new_bytes = (NEW_COUNT * DIMENSIONS * 4) as u64;
    println!(
        "whole {} bytes, increment {} of {} bytes of content, {new_bytes} of new vectors",
        whole.len(),
        sent.sent_bytes,
        sent.content_bytes
    );
    assert!(sent.sent_bytes < whole.len() as u64 / 10, "{sent:?}");
    let received = receive(&there, &increment).unwrap();
    assert!(received.is_shared && received.sequence == second.sequence);
    assert_same(&here, &there, &second);
    assert_same(&here, &there, &first);
    // Sent twice, it is there already.
    assert_eq!(receive(&there, &increment).unwrap_err().kind(), ErrorKind::Invalid);

    // The last that is shared stays, so that the next can be an increment on it.
    let third = put(&here, RECORDS_COUNT + NEW_COUNT, 1);
    let retention = Retention { free_percent_min: 0, ..Retention::of_count(1) };
    // And the one that it was sent as an increment on, lest it did not arrive.
    assert!(Snapshots::of(&here).prune(&retention).unwrap().is_empty());
    let (increment, _) = send(&here, &third.name, Some(&second.name), 0);
    receive(&there, &increment).unwrap();
    assert_same(&here, &there, &third);
    put(&here, RECORDS_COUNT + NEW_COUNT + 1, 1);
    assert_eq!(Snapshots::of(&here).prune(&retention).unwrap(), [first.name]);

    // A machine that has received sends on.
    let Some((onward, _)) = machines("a third machine") else { return };
    let onward = onward.path().join("copy");
    receive(&onward, &send(&there, &second.name, None, 0).0).unwrap();
    receive(&onward, &send(&there, &third.name, Some(&second.name), 0).0).unwrap();
    assert_same(&here, &onward, &third);
}

#[test]
fn what_breaks_off_or_is_damaged_goes_on_where_it_did() {
    let Some((here, there)) = machines("what breaks off") else { return };
    let (here, there) = (here.path().join("store"), there.path().join("copy"));
    let taken = put(&here, 0, RECORDS_COUNT);
    let (whole, sent) = send(&here, &taken.name, None, 0);
    let mut random = Random::new(3);
    let mut first_chunk = 0;
    let mut breaks_count = 0;
    let received = loop {
        let (mut stream, _) = send(&here, &taken.name, None, first_chunk);
        // Later and later, so that it comes to an end; then as it is.
        let end = stream.len() * (breaks_count + 1) / 6;
        if end >= stream.len() {
            break receive(&there, &stream).unwrap();
        }
        match random.below(2) {
            0 => stream.truncate(end),
            _ => stream[end] ^= 1 << random.below(8),
        }
        let error = receive(&there, &stream).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Io | ErrorKind::Corrupt), "{error:?}");
        assert!(!there.join("snapshots").join(&taken.name).exists());
        if let Some(rest) = error.remedy().and_then(|remedy| remedy.split("--from ").nth(1)) {
            let from: String = rest.chars().take_while(char::is_ascii_digit).collect();
            let from = from.parse().unwrap();
            assert!(from >= first_chunk && from < sent.chunks, "{from}");
            first_chunk = from;
        }
        breaks_count += 1;
    };
    assert!(first_chunk > 0 && received.sequence == taken.sequence);
    assert_same(&here, &there, &taken);
    assert_eq!(names(&there), [taken.name.clone(), format!("{}.shared", taken.name)]);

    // Into a file, too; it becomes what a whole stream is.
    let file = there.join("stream");
    fs::write(&file, &whole[..whole.len() * 3 / 4]).unwrap();
    let snapshots = Snapshots::of(&here);
    let sent = snapshots.send_to_file(&taken.name, None, &file, &mut |_| Ok(())).unwrap();
    assert!(sent.sent_bytes < whole.len() as u64 * 2 / 3);
    assert!(fs::read(&file).unwrap() == whole);
    // What is something else stays, and what only begins like the stream is found out.
    let refused = |content: &[u8]| {
        fs::write(&file, content).unwrap();
        let sent = snapshots.send_to_file(&taken.name, None, &file, &mut |_| Ok(()));
        (sent.unwrap_err().kind(), fs::read(&file).unwrap() == content)
    };
    assert_eq!(refused(b"something else"), (ErrorKind::Invalid, true));
    let start_len = StreamStart::len_bytes(whole.first_chunk().unwrap()).unwrap();
    let end = Chunk::End { sum: SUM_OF_NOTHING }.encode(0).unwrap();
    let other = [&whole[..start_len], &end].concat();
    assert_eq!(refused(&other).0, ErrorKind::Corrupt);
}

#[test]
fn what_was_received_is_on_the_disk() {
    let Some((here, mut there)) = machines("what was received") else { return };
    let here = here.path().join("store");
    let copy = there.path().join("copy");
    let taken = put(&here, 0, 100);
    receive(&copy, &send(&here, &taken.name, None, 0).0).unwrap();
    there.lose_unsynced();
    assert_eq!(Snapshots::of(&copy).list().unwrap().len(), 1);
    assert_same(&here, &copy, &taken);
}

/// A backup has snapshots of one store, whoever owns it, and nothing else.
#[test]
fn a_backup_is_of_one_store_whoever_owns_it() {
    let Some((here, there)) = machines("a backup") else { return };
    let (first, second) = (here.path().join("first"), here.path().join("second"));
    let there = there.path().join("copy");
    let taken = put(&first, 0, 5);
    // What is read-only cannot be given to anybody.
    Snapshots::of(&first).delete(&taken.name).unwrap();
    let is_open_to_all = fs::Permissions::from_mode(0o755);
    fs::set_permissions(here.path().parent().unwrap(), is_open_to_all).unwrap();
    let owned = Command::new("chown").args(["-R", "65534:65534"]).arg(&first).status().unwrap();
    assert!(owned.success());
    // Where another user can start it.
    let this = here.path().join("this");
    fs::copy(std::env::current_exe().unwrap(), &this).unwrap();
    let store = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(this)
        .args(["--exact", "the_child_that_takes_a_snapshot", "--ignored"])
        .env(CHILD_VARIABLE, &first)
        .output()
        .unwrap();
    assert!(store.status.success(), "{}", String::from_utf8_lossy(&store.stdout));
    let taken = Snapshots::of(&first).list().unwrap().pop().unwrap();
    let stream = send(&first, &taken.name, None, 0).0;
    assert_eq!(receive(&there, &stream).unwrap().sequence, taken.sequence);
    let other = put(&second, 0, 5);
    let error = receive(&there, &send(&second, &other.name, None, 0).0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("another store"), "{error}");
    // Where there are snapshots and no store, none is made over them.
    let error = Store::open(StoreConfig::new(&there)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.remedy().unwrap().contains("--to"), "{error:?}");
    let snapshots = Snapshots::of(&there);
    assert_eq!(snapshots.restore_in_place(&taken.name).unwrap_err().kind(), ErrorKind::NotFound);
    for inside in ["new", "snapshots/20260101T000000Z", "new/in/it"] {
        let error = snapshots.restore(&taken.name, &there.join(inside)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{inside}");
    }
    // One that was broken off is gone on with.
    let target = there.with_extension("restored");
    fs::create_dir_all(target.join("@cache")).unwrap();
    assert_eq!(snapshots.restore(&taken.name, &target).unwrap_err().kind(), ErrorKind::Invalid);
    fs::write(target.join("RESTORING"), "").unwrap();
    snapshots.restore(&taken.name, &target).unwrap();
    assert!(!target.join("RESTORING").exists());
}

const CHILD_VARIABLE: &str = "OPDBUS_TEST_CHILD_DIRECTORY";

#[test]
#[ignore = "it is run as another user by a_backup_is_of_one_store_whoever_owns_it"]
fn the_child_that_takes_a_snapshot() {
    let base = std::env::var_os(CHILD_VARIABLE).unwrap();
    let store = Store::open(StoreConfig::new(base).existing()).unwrap();
    store.take_snapshot("as nobody", false).unwrap();
    store.close();
}

#[test]
fn what_cannot_become_a_snapshot_is_refused_and_leaves_nothing() {
    let Some((here, there)) = machines("what cannot become one") else { return };
    let plain = support::scratch::on_disk();
    let other = there.path().join("other");
    let (here, there) = (here.path().join("store"), there.path().join("copy"));
    let first = put(&here, 0, 10);
    let second = put(&here, 10, 10);
    let (whole, _) = send(&here, &first.name, None, 0);
    let (increment, _) = send(&here, &second.name, Some(&first.name), 0);

    let refused = |base: &Path, stream: &[u8], kind, what: &str| {
        let error = receive(base, stream).unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        let told = format!("{error} {}", error.remedy().unwrap_or_default());
        assert!(told.contains(what), "{told}");
    };
    refused(&there, &increment, ErrorKind::NotFound, "is an increment on");
    refused(&there, b"", ErrorKind::Io, "broke off");
    refused(&there, &[7; 1000], ErrorKind::Invalid, "no snapshot that was sent");
    refused(plain.path(), &whole, ErrorKind::Unsupported, "BTRFS");
    let (late, _) = send(&here, &first.name, None, 2);
    refused(&there, &late, ErrorKind::Invalid, "--from 0");
    put(&other, 0, 1);
    refused(&other, &whole, ErrorKind::Invalid, "another store");
    assert_eq!(names(&there), [format!("{}.incoming", first.name)]);
    Snapshots::of(&there).delete(&first.name).unwrap();
    assert!(names(&there).is_empty());

    let snapshots = Snapshots::of(&here);
    let send = |name: &str, parent: Option<&str>| {
        let options = SendOptions { parent: parent.map(str::to_owned), first_chunk: 0 };
        snapshots.send(name, &options, &mut Vec::new(), &mut |_| Ok(())).unwrap_err()
    };
    assert_eq!(send("20200101T000000Z", None).kind(), ErrorKind::NotFound);
    assert_eq!(send(&first.name, Some("20200101T000000Z")).kind(), ErrorKind::NotFound);
    assert_eq!(send(&second.name, Some(&second.name)).kind(), ErrorKind::Invalid);
    let beyond = SendOptions { parent: None, first_chunk: 99 };
    let sent = snapshots.send(&first.name, &beyond, &mut Vec::new(), &mut |_| Ok(()));
    assert_eq!(sent.unwrap_err().kind(), ErrorKind::Invalid);
    // One that is no subvolumes cannot be sent.
    let taken = put(&plain.path().join("store"), 0, 1);
    let error = Snapshots::of(plain.path().join("store"))
        .send(&taken.name, &SendOptions::default(), &mut Vec::new(), &mut |_| Ok(()))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}
