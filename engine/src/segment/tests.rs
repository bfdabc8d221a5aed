//! What is on disk after each step, each damage and each crash.

use super::*;
use crate::os::map::EXIT_MAP_LOST;

const STORE_ID: [u8; 16] = [4; 16];

impl SegmentDirectory {
    fn arena_file(&self, dimensions: u32) -> Option<Arc<ArenaFile>> {
        self.arena_files().into_iter().find(|file| file.dimensions() == dimensions)
    }
}

fn open(directory: &Path) -> SegmentDirectory {
    SegmentDirectory::open(directory, STORE_ID)
}

fn content(dimensions: u32) -> ArenaContent {
    ArenaContent { dimensions, sequence: 1, cache_generation: 2, rows_count_max: 1000 }
}

/// Vectors whose elements are all the row's number plus `base`.
fn seal(directory: &SegmentDirectory, dimensions: u32, count: u32, base: f32) -> Result<()> {
    let row = |row: u32| ArenaRow {
        key: u128::from(row) << 100,
        expires_at_unix_ms: 0,
        vector: vec![base + row as f32; dimensions as usize],
    };
    directory.seal(&content(dimensions), (0..count).map(row))
}

/// The first element of the vector of row 3, if there is a file that has it.
fn found(directory: &SegmentDirectory, dimensions: u32) -> Option<f32> {
    let file = directory.arena_file(dimensions)?;
    Some(file.find(3 << 100).ok()??.vector[0])
}

fn names(directory: &Path) -> Vec<String> {
    let mut names = file_names(directory).unwrap();
    names.sort();
    names
}

#[test]
fn what_was_sealed_is_there_again_and_replaces_what_was() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("@vectors");
    let directory = open(&path);
    assert!(directory.arena_file(8).is_none());
    seal(&directory, 8, 10, 0.5).unwrap();
    let held = directory.arena_file(8).unwrap();
    seal(&directory, 8, 10, 20.5).unwrap();
    seal(&directory, 16, 10, 40.5).unwrap();
    // A file that was replaced serves whoever holds it.
    assert_eq!(held.find(3 << 100).unwrap().unwrap().vector, [3.5; 8]);
    for directory in [directory, open(&path)] {
        assert_eq!((found(&directory, 8), found(&directory, 16)), (Some(23.5), Some(43.5)));
    }
    assert_eq!(names(&path), ["2-8.arena", "3-16.arena", "MANIFEST"]);
}

#[test]
fn rows_are_taken_up_to_their_limit_and_no_rows_leave_no_file() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = open(temporary.path());
    seal(&directory, 8, 0, 0.0).unwrap();
    assert!(directory.arena_file(8).is_none());
    seal(&directory, 8, 1200, 0.0).unwrap();
    assert_eq!(directory.arena_file(8).unwrap().rows_count(), 1000);
    seal(&directory, 8, 0, 0.0).unwrap();
    assert!(directory.arena_file(8).is_none());
    assert_eq!(names(temporary.path()), ["MANIFEST"]);
    assert!(open(temporary.path()).arena_file(8).is_none());
}

#[test]
fn what_is_discarded_is_gone() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = open(temporary.path());
    directory.discard().unwrap();
    seal(&directory, 8, 10, 0.0).unwrap();
    directory.discard().unwrap();
    assert_eq!(found(&directory, 8), None);
    assert_eq!(names(temporary.path()), ["MANIFEST"]);
    seal(&open(temporary.path()), 8, 10, 0.0).unwrap();
    assert_eq!(found(&open(temporary.path()), 8), Some(3.0));
}

#[test]
fn leftovers_of_ours_are_removed_and_files_of_others_stay() {
    let temporary = tempfile::tempdir().unwrap();
    seal(&open(temporary.path()), 8, 10, 0.0).unwrap();
    let others = ["2-8.arena.bak", "02-8.arena", "notes", "9-9.graph", "x.arena.damaged"];
    let ours = ["2-8.arena", "7-99.arena", "5-5.arena.damaged"];
    for name in others.iter().chain(&ours) {
        fs::write(temporary.path().join(name), "x").unwrap();
    }
    assert_eq!(found(&open(temporary.path()), 8), Some(3.0));
    let mut expected = ["1-8.arena", "MANIFEST"].map(str::to_owned).to_vec();
    expected.extend(others.map(str::to_owned));
    expected.sort();
    assert_eq!(names(temporary.path()), expected);
}

#[test]
fn a_marked_file_does_not_count_and_the_next_seal_does() {
    let temporary = tempfile::tempdir().unwrap();
    seal(&open(temporary.path()), 8, 10, 0.0).unwrap();
    seal(&open(temporary.path()), 16, 10, 0.0).unwrap();
    let marked = temporary.path().join("1-8.arena");
    fs::write(damaged_mark(&marked), "").unwrap();
    let directory = open(temporary.path());
    assert_eq!((found(&directory, 8), found(&directory, 16)), (None, Some(3.0)));
    assert_eq!(names(temporary.path()), ["2-16.arena", "MANIFEST"]);
    seal(&directory, 8, 10, 1.0).unwrap();
    let directory = open(temporary.path());
    assert_eq!((found(&directory, 8), found(&directory, 16)), (Some(4.0), Some(3.0)));
}

#[test]
fn a_file_made_shorter_ends_the_process_and_the_next_one_does_without_it() {
    const CHILD: &str = "OPDBUS_TEST_SEGMENT_CHILD";
    if let Some(path) = std::env::var_os(CHILD) {
        let directory = open(Path::new(&path));
        let file = directory.arena_file(8).unwrap();
        let on_disk = OpenOptions::new().write(true).open(file.path()).unwrap();
        on_disk.set_len(PAGE_LEN_BYTES).unwrap();
        panic!("{:?}", file.find(3 << 100));
    }
    let temporary = tempfile::tempdir().unwrap();
    seal(&open(temporary.path()), 8, 10, 0.0).unwrap();
    let test = "a_file_made_shorter_ends_the_process_and_the_next_one_does_without_it";
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("segment::tests::{test}"), "--nocapture"])
        .env(CHILD, temporary.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(EXIT_MAP_LOST), "{output:?}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("1-8.arena is mapped and cannot be read"), "{stderr}");
    assert_eq!(names(temporary.path()), ["1-8.arena", "1-8.arena.damaged", "MANIFEST"]);
    let directory = open(temporary.path());
    assert_eq!(found(&directory, 8), None);
    assert_eq!(names(temporary.path()), ["MANIFEST"]);
    seal(&directory, 8, 10, 0.0).unwrap();
    assert_eq!(found(&open(temporary.path()), 8), Some(3.0));
}

#[test]
fn a_file_found_damaged_is_not_handed_out_and_the_next_seal_forgets_it() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = open(temporary.path());
    seal(&directory, 8, 10, 0.0).unwrap();
    let path = temporary.path().join("1-8.arena");
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[0xFF], PAGE_LEN_BYTES + 3).unwrap();
    let held = directory.arena_file(8).unwrap();
    assert_eq!(held.find(3 << 100).unwrap_err().kind(), ErrorKind::Corrupt);
    assert!(directory.arena_file(8).is_none());
    assert_eq!(names(temporary.path()), ["1-8.arena", "1-8.arena.damaged", "MANIFEST"]);
    seal(&directory, 16, 10, 0.0).unwrap();
    assert_eq!(names(temporary.path()), ["2-16.arena", "MANIFEST"]);
}

#[test]
fn a_damaged_manifest_falls_back_or_means_that_nothing_is_there() {
    let temporary = tempfile::tempdir().unwrap();
    let manifest = manifest_file(temporary.path());
    let directory = open(temporary.path());
    seal(&directory, 16, 10, 0.0).unwrap();
    seal(&directory, 8, 10, 0.0).unwrap();
    let whole = fs::read(&manifest).unwrap();
    // Generation 2 lies in the first slot, and the one before it names one file of the two.
    let mut damaged = whole.clone();
    damaged[100] ^= 1;
    fs::write(&manifest, &damaged).unwrap();
    let directory = open(temporary.path());
    assert_eq!((found(&directory, 16), found(&directory, 8)), (Some(3.0), None));
    assert_eq!(names(temporary.path()), ["1-16.arena", "MANIFEST"]);
    seal(&directory, 8, 10, 5.0).unwrap();
    assert_eq!(found(&open(temporary.path()), 8), Some(8.0));
    fs::write(&manifest, "nonsense").unwrap();
    let directory = open(temporary.path());
    assert_eq!((found(&directory, 16), found(&directory, 8)), (None, None));
    seal(&directory, 8, 10, 6.0).unwrap();
    assert_eq!(found(&open(temporary.path()), 8), Some(9.0));
    fs::write(&manifest, vec![1; MANIFEST_LEN_MAX_BYTES as usize + 1]).unwrap();
    assert_eq!(found(&open(temporary.path()), 8), None);
}

#[test]
fn a_flipped_byte_of_a_manifest_gives_the_right_vector_or_none() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = open(temporary.path());
    seal(&directory, 16, 10, 0.0).unwrap();
    seal(&directory, 8, 10, 0.0).unwrap();
    drop(directory);
    let arena_files: Vec<_> = ["1-16.arena", "2-8.arena"]
        .map(|name| temporary.path().join(name))
        .map(|path| (fs::read(&path).unwrap(), path))
        .into();
    let manifest = manifest_file(temporary.path());
    let whole = fs::read(&manifest).unwrap();
    // What is in the slots, and samples of the zeros after it: the format's own test flips all.
    let used = |offset: &usize| offset % SLOT_LEN_BYTES < 320 || offset.is_multiple_of(61);
    for offset in (0..whole.len()).filter(used) {
        let mut damaged = whole.clone();
        damaged[offset] ^= 1 << (offset % 8);
        fs::write(&manifest, damaged).unwrap();
        let directory = open(temporary.path());
        let expected = if offset < SLOT_LEN_BYTES { None } else { Some(3.0) };
        let found = (found(&directory, 16), found(&directory, 8));
        assert_eq!(found, (Some(3.0), expected), "byte {offset}");
        for (bytes, path) in &arena_files {
            if !path.exists() {
                fs::write(path, bytes).unwrap();
            }
        }
    }
}

#[test]
fn files_of_another_store_are_not_used_and_are_replaced() {
    let temporary = tempfile::tempdir().unwrap();
    for base in [0.0, 10.0, 20.0] {
        seal(&open(temporary.path()), 8, 10, base).unwrap();
    }
    let other = SegmentDirectory::open(temporary.path(), [5; 16]);
    assert_eq!(found(&other, 8), None);
    seal(&other, 8, 10, 50.0).unwrap();
    assert_eq!(found(&SegmentDirectory::open(temporary.path(), [5; 16]), 8), Some(53.0));
    assert_eq!(names(temporary.path()), ["4-8.arena", "MANIFEST"]);
}

#[test]
fn a_seal_that_fails_leaves_what_was() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = open(temporary.path());
    seal(&directory, 8, 10, 0.0).unwrap();
    let twice = ArenaRow { key: 1, expires_at_unix_ms: 0, vector: [0.0; 8] };
    let error = directory.seal(&content(8), [twice.clone(), twice].into_iter()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let too_many = ArenaContent { rows_count_max: u32::MAX, ..content(65_536) };
    let none = std::iter::empty::<ArenaRow<[f32; 0]>>();
    assert_eq!(directory.seal(&too_many, none).unwrap_err().kind(), ErrorKind::Full);
    // Where the manifest should be, nothing can be written.
    let manifest = manifest_file(temporary.path());
    let bytes = fs::read(&manifest).unwrap();
    fs::remove_file(&manifest).unwrap();
    fs::create_dir(&manifest).unwrap();
    assert!(seal(&directory, 8, 10, 30.0).is_err());
    assert_eq!(found(&directory, 8), Some(3.0));
    fs::remove_dir(&manifest).unwrap();
    fs::write(&manifest, bytes).unwrap();
    assert_eq!(names(temporary.path()), ["1-8.arena", "2-8.arena", "MANIFEST"]);
    assert_eq!(found(&open(temporary.path()), 8), Some(3.0));
    seal(&directory, 8, 10, 30.0).unwrap();
    assert_eq!(found(&open(temporary.path()), 8), Some(33.0));
}

#[test]
fn a_directory_that_cannot_be_is_no_error_until_something_is_written() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("@vectors");
    fs::write(&path, "a file").unwrap();
    let directory = open(&path);
    assert!(directory.arena_file(8).is_none());
    assert!(seal(&directory, 8, 10, 0.0).is_err());
    fs::remove_file(&path).unwrap();
    seal(&directory, 8, 10, 0.0).unwrap();
    assert_eq!(found(&directory, 8), Some(3.0));
}

#[test]
fn more_lengths_than_a_manifest_can_name_are_refused() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = open(temporary.path());
    for dimensions in 1..=manifest::FILES_MAX as u32 {
        seal(&directory, dimensions, 4, 0.0).unwrap();
    }
    assert_eq!(seal(&directory, 1000, 4, 0.0).unwrap_err().kind(), ErrorKind::Invalid);
    let directory = open(temporary.path());
    assert!((1..=manifest::FILES_MAX as u32).all(|length| found(&directory, length) == Some(3.0)));
}
