//! Every flip of every byte of real tables and logs must be found, at the right place.

use rocksdb::DBCompressionType;

use super::*;
use crate::db::{Creation, DatabaseMemory, Family, Sync};

const FAMILY: Family = Family { name: "default", compression: DBCompressionType::Lz4 };
const ENTRIES_COUNT: u32 = 400;
/// Longer than all of a table that is not data.
const END_LEN_BYTES: usize = 4096;

fn key(number: u32) -> Vec<u8> {
    format!("the key of entry {number:06}").into_bytes()
}

/// A database with a table, whose index is long enough to be compressed, and a log.
fn database(directory: &Path) -> Database {
    let db = Database::open(directory, &[FAMILY], Creation::Create, DatabaseMemory::of(0)).unwrap();
    let put = |numbers: std::ops::Range<u32>| {
        for number in numbers {
            // Of no regularity that a compressor finds.
            let value: Vec<u8> = (0..40_u32)
                .flat_map(|part| (number * 40 + part).wrapping_mul(0x9E37_79B1).to_le_bytes())
                .collect();
            let entry = || {
                let mut batch = db.batch();
                batch.put(FAMILY, &key(number), &value);
                Ok(batch)
            };
            db.write(Sync::No, entry).unwrap();
        }
    };
    put(0..ENTRIES_COUNT);
    db.reclaim(FAMILY).unwrap();
    // More than a block of the log, so that a record has parts.
    put(ENTRIES_COUNT..ENTRIES_COUNT + 170);
    db
}

fn faults(db: &Database, file: &DatabaseFile) -> Vec<Damage> {
    let mut faults = Vec::new();
    let mut on_read = |_| ControlFlow::Continue(());
    let flow = db.check(file, &mut on_read, &mut |damage| faults.push(damage)).unwrap();
    assert!(flow.is_continue());
    faults
}

fn files(db: &Database, kind: FileKind) -> Vec<DatabaseFile> {
    db.files().unwrap().into_iter().filter(|file| file.kind == kind).collect()
}

/// Checks a copy of the file with one byte changed after the other: every one at the end, where
/// each has a meaning of its own, and some of the many before it.
fn faults_of_flips(db: &Database, file: DatabaseFile, mut judge: impl FnMut(u64, &[Damage])) {
    let bytes = fs::read(&file.path).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let copy = DatabaseFile { path: directory.path().join("copy"), ..file };
    fs::write(&copy.path, &bytes).unwrap();
    assert!(faults(db, &copy).is_empty(), "{copy:?} as it was written");
    let written = File::options().write(true).open(&copy.path).unwrap();
    let end = bytes.len().saturating_sub(END_LEN_BYTES);
    for (offset, byte) in (0..).zip(&bytes) {
        if (offset as usize) < end && offset % 11 != 0 {
            continue;
        }
        let flip = if offset % 2 == 0 { 0xFF } else { 1 << (offset % 8) };
        written.write_all_at(&[byte ^ flip], offset).unwrap();
        judge(offset, &faults(db, &copy));
        written.write_all_at(&[*byte], offset).unwrap();
    }
}

#[test]
fn every_flip_in_a_table_is_found_in_its_block() {
    let directory = tempfile::tempdir().unwrap();
    let db = database(directory.path());
    let table = files(&db, FileKind::Table).remove(0);
    let mut keys_lost = 0;
    faults_of_flips(&db, table, |offset, faults| {
        let [fault] = faults else { panic!("byte {offset}: {faults:?}") };
        let start = fault.offset_bytes.unwrap();
        assert!(start <= offset, "byte {offset}: {fault:?}");
        if let Some(keys) = &fault.keys {
            assert!(offset - start < 8 << 10, "byte {offset}: {fault:?}");
            assert!(keys.after < keys.until, "{keys:?}");
            keys_lost += 1;
        }
    });
    assert!(keys_lost > 5_000, "{keys_lost} bytes of data");
}

#[test]
fn the_keys_of_a_damaged_block_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let db = database(directory.path());
    let table = files(&db, FileKind::Table).remove(0);
    let bytes = fs::read(&table.path).unwrap();
    // The value of one entry in the middle, found by its key.
    let entry = key(200);
    let tail = &entry[entry.len() - 3..];
    let at = bytes.windows(3).position(|window| window == tail).unwrap();
    let file = File::options().write(true).open(&table.path).unwrap();
    file.write_all_at(&[bytes[at] ^ 1], at as u64).unwrap();
    let faults = faults(&db, &table);
    let [Damage { keys: Some(keys), .. }] = &faults[..] else { panic!("{faults:?}") };
    assert!(keys.after < entry && entry <= keys.until, "{keys:?}");
}

#[test]
fn every_flip_in_a_log_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let db = database(directory.path());
    for file in files(&db, FileKind::Log) {
        let len_bytes = fs::metadata(&file.path).unwrap().len();
        if len_bytes == 0 {
            continue;
        }
        faults_of_flips(&db, file, |offset, faults| {
            let start = faults.first().and_then(|fault| fault.offset_bytes);
            assert!(start.is_some_and(|start| start <= offset), "byte {offset}: {faults:?}");
        });
    }
}

/// Without a look at the log before, opening would never end.
#[test]
fn a_type_that_rocksdb_does_not_get_over_is_found_before_it_opens() {
    const HEADER_LEN_BYTES: u64 = 7;
    let directory = tempfile::tempdir().unwrap();
    let db = database(directory.path());
    let mut logs = files(&db, FileKind::Log);
    logs.retain(|file| file.name.ends_with(".log"));
    let log = logs.pop().unwrap();
    drop(db);
    let file = File::options().read(true).write(true).open(&log.path).unwrap();
    let mut len = [0; 2];
    file.read_exact_at(&mut len, 4).unwrap();
    let second = HEADER_LEN_BYTES + u64::from(u16::from_le_bytes(len));
    file.write_all_at(&[5], second + 6).unwrap();
    let memory = DatabaseMemory::of(0);
    let opened = Database::open(directory.path(), &[FAMILY], Creation::Refuse, memory);
    let error = opened.err().expect("it is damaged");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains(&format!("at byte {second}")), "{error}");
}

#[test]
fn current_and_identity_are_compared_with_what_they_name() {
    let directory = tempfile::tempdir().unwrap();
    let db = database(directory.path());
    for kind in [FileKind::Current, FileKind::Identity] {
        let file = files(&db, kind).remove(0);
        let len_bytes = fs::metadata(&file.path).unwrap().len();
        let mut flips_count = 0;
        faults_of_flips(&db, file, |offset, faults| {
            assert_eq!(faults.len(), 1, "byte {offset}");
            flips_count += 1;
        });
        assert_eq!(flips_count, len_bytes);
    }
}

#[test]
fn a_table_that_is_missing_is_damage_and_one_no_longer_used_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let db = database(directory.path());
    let table = files(&db, FileKind::Table).remove(0);
    let gone = DatabaseFile {
        name: "999999.sst".into(),
        path: directory.path().join("999999.sst"),
        family: Some("default".into()),
        kind: FileKind::Table,
    };
    assert!(faults(&db, &gone).is_empty());
    fs::remove_file(&table.path).unwrap();
    assert_eq!(faults(&db, &table).len(), 1);
}

#[test]
fn a_manifest_that_was_torn_is_no_damage_and_one_whose_length_lies_is() {
    let directory = tempfile::tempdir().unwrap();
    drop(database(directory.path()));
    let name = fs::read_to_string(directory.path().join("CURRENT")).unwrap();
    let manifest = directory.path().join(name.trim_end());
    let whole = fs::read(&manifest).unwrap();
    assert!(check_manifest(directory.path()).is_ok());
    for len in 0..whole.len() {
        fs::write(&manifest, &whole[..len]).unwrap();
        check_manifest(directory.path()).unwrap_or_else(|error| panic!("{len} bytes: {error}"));
    }
    for offset in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[offset] ^= 0xFF;
        fs::write(&manifest, &flipped).unwrap();
        let error = check_manifest(directory.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {offset}: {error}");
    }
}
