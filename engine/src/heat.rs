//! What was used how often, kept over the end of the process in sled.
//!
//! A *generation* is a directory with one sled database, from numbers to blocks of counts, hottest
//! first, and with the list of all its files' lengths and checksums. It is made under another name, synced
//! and renamed, and never opened again: opening would change it. Reading one copies it, compares
//! each file with the list on the way, and opens the copy. So sled, which is beta and has opened
//! damaged databases with a panic or forever, only ever opens what it closed itself.
//!
//! # What holds
//! - Heat that is missing, damaged or cannot be opened costs warmth and nothing else: it is logged,
//!   removed if it is damaged, and an older generation or none is taken.
//! - When a function here returns, sled has closed its files. Its pool of threads stays: sled 0.34
//!   starts seven for the process when first used, which wait and never end.
//!
//! Deliberately lacking: counting. Whoever counts gives the counts, and gets them back. And a key of
//! sled for each vector: measured on two busy cores, a million of 20 bytes cost 3 GB of memory, 38 s
//! to write and 22 s to read, and 220 MB of disk. In blocks of 4 KiB they cost 60 MB over what the
//! counts themselves take, 3 s, 0.7 s and 53 MB.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use op_dbus_formats::heat::{FILES_MAX, HeatChecksums, HeatFile, NAME_LEN_MAX_BYTES};
use op_dbus_formats::heat_block;
use rustix::fs::FlockOperation;
use sled::{Db, Mode};
use xxhash_rust::xxh3::Xxh3;

use crate::error::{Error, ErrorKind, Result};
use crate::layout::{HEAT_CHECKSUMS, heat_generation, heat_opened, heat_unfinished};
use crate::os::file::{create_directories, create_synced, read_bounded, sync_directory};

/// Counts that are kept, the greatest.
const COUNTS_MAX: usize = 1_000_000;

/// Generations that are kept: the newest, and one in case it is damaged.
const GENERATIONS_KEPT: usize = 2;

/// What a block is filled to. A longer value than some 8 KiB would be a file of its own to sled.
const BLOCK_LEN_BYTES: usize = 4096;

/// What sled may hold of pages that it could read again.
const SLED_CACHE_BYTES: u64 = 16 << 20;

/// How long sled may take to close what it was told to.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(10);

/// The file that sled holds a lock on while anything of the database is open.
const SLED_FILE: &str = "db";

const COPY_LEN_BYTES: usize = 1 << 20;

/// What a vector is found by, and how often it was used.
pub(crate) type Count = (Vec<u8>, u32);

/// Reads the newest counts that are whole, the greatest first. Nothing if there are none.
pub(crate) fn load(directory: &Path) -> Vec<Count> {
    let generations = match tidy(directory) {
        Ok(generations) => generations,
        Err(error) if error.kind() == ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            warn(&error, "what was hot is not known");
            return Vec::new();
        }
    };
    for generation in generations.into_iter().rev() {
        match load_generation(directory, generation) {
            Ok(counts) => return counts,
            Err(error) => {
                warn(&error, "a generation of heat is not used");
                // What cannot be read now may be whole.
                if error.kind() == ErrorKind::Corrupt {
                    remove_or_warn(&heat_generation(directory, generation));
                }
            }
        }
    }
    Vec::new()
}

/// Reads every generation whole, removes those that are damaged and says which they were.
///
/// Nobody else may be at it meanwhile.
pub(crate) fn check(directory: &Path) -> Result<Vec<(PathBuf, Error)>> {
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for generation in tidy(directory)? {
        match load_generation(directory, generation) {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                let path = heat_generation(directory, generation);
                remove_or_warn(&path);
                found.push((path, error));
            }
            read => drop(read?),
        }
    }
    Ok(found)
}

/// Writes a generation of these counts, which takes the place of those there are.
///
/// The million greatest are kept. Each locator is to come once.
///
/// # Errors
/// [`ErrorKind::Invalid`] if a locator is empty or longer than 64 KiB; what the disk or sled
/// refuses. What was there stays.
pub(crate) fn save(directory: &Path, counts: impl Iterator<Item = Count>) -> Result<()> {
    create_directories(directory)?;
    let generations = tidy(directory)?;
    let generation = generations.last().map_or(1, |newest| newest.saturating_add(1));
    let unfinished = heat_unfinished(directory, generation);
    let made = guarded(&unfinished, || write_database(&unfinished, counts))
        .and_then(|()| await_closed(&unfinished))
        .and_then(|()| write_checksums(&unfinished))
        .and_then(|()| {
            let path = heat_generation(directory, generation);
            fs::rename(&unfinished, &path).map_err(|error| Error::io("create", &path, error))
        });
    if let Err(error) = made {
        remove_or_warn(&unfinished);
        return Err(error);
    }
    sync_directory(directory)?;
    let kept_before = GENERATIONS_KEPT - 1;
    for old in generations.iter().rev().skip(kept_before) {
        remove_or_warn(&heat_generation(directory, *old));
    }
    Ok(())
}

/// Removes what a crash left unfinished; returns the generations, oldest first.
fn tidy(directory: &Path) -> Result<Vec<u64>> {
    let entries = fs::read_dir(directory).map_err(|error| Error::io("list", directory, error))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut generations = Vec::new();
    for name in names {
        let (number, rest) = name.split_once('.').unwrap_or((&name, ""));
        // Numbers have other spellings, which we do not write.
        let Some(number) = number.parse::<u64>().ok().filter(|n| n.to_string() == number) else {
            continue;
        };
        match rest {
            "" if name == number.to_string() => generations.push(number),
            "new" | "open" => remove_or_warn(&directory.join(&name)),
            _ => {}
        }
    }
    generations.sort_unstable();
    Ok(generations)
}

fn load_generation(directory: &Path, generation: u64) -> Result<Vec<Count>> {
    let copy = heat_opened(directory, generation);
    let counts = copy_verified(&heat_generation(directory, generation), &copy)
        .and_then(|()| guarded(&copy, || read_database(&copy)));
    if let Err(error) = await_closed(&copy) {
        warn(&error, "sled still works on a copy that is removed");
    }
    remove_or_warn(&copy);
    counts
}

/// Calls what calls sled. A panic there is damage here.
fn guarded<T>(path: &Path, call: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| {
        let path = path.display();
        Err(Error::new(ErrorKind::Corrupt, format!("sled panicked over {path}")))
    })
}

fn open_database(path: &Path) -> Result<Db> {
    sled::Config::new()
        .path(path)
        .mode(Mode::HighThroughput)
        .cache_capacity(SLED_CACHE_BYTES)
        .flush_every_ms(None)
        .open()
        .map_err(|error| sled_error("open", path, error))
}

/// The greatest counts, the greatest first.
fn hottest(counts: impl Iterator<Item = Count>) -> Vec<Count> {
    let hotter = |(locator, uses): &Count, (other, other_uses): &Count| {
        other_uses.cmp(uses).then_with(|| locator.cmp(other))
    };
    let mut kept = Vec::new();
    for count in counts {
        kept.push(count);
        // Now and then, so that neither memory nor time depends much on how many come.
        if kept.len() == 2 * COUNTS_MAX {
            kept.select_nth_unstable_by(COUNTS_MAX, hotter);
            kept.truncate(COUNTS_MAX);
        }
    }
    kept.sort_unstable_by(hotter);
    kept.truncate(COUNTS_MAX);
    kept
}

fn write_database(path: &Path, counts: impl Iterator<Item = Count>) -> Result<()> {
    let counts = hottest(counts);
    let db = open_database(path)?;
    let (mut written, mut block, mut block_len_bytes) = (0_u32, Vec::new(), 0);
    let mut write = |block: &mut Vec<heat_block::Count<'_>>| {
        let encoded = heat_block::encode(block).map_err(|error| {
            Error::new(ErrorKind::Invalid, format!("heat cannot be kept in {}", path.display()))
                .with_source(error)
        })?;
        // In order, so that sled fills one page after the other.
        db.insert(written.to_be_bytes(), encoded)
            .map_err(|error| sled_error("write", path, error))?;
        written += 1;
        block.clear();
        Ok::<_, Error>(())
    };
    for (locator, uses) in &counts {
        let count = heat_block::Count { locator, uses: *uses };
        block_len_bytes += count.len_bytes();
        block.push(count);
        if block_len_bytes >= BLOCK_LEN_BYTES {
            write(&mut block)?;
            block_len_bytes = 0;
        }
    }
    if !block.is_empty() {
        write(&mut block)?;
    }
    db.flush().map(|_| ()).map_err(|error| sled_error("write", path, error))
}

fn read_database(path: &Path) -> Result<Vec<Count>> {
    let db = open_database(path)?;
    let mut counts = Vec::new();
    for entry in &*db {
        let (_, block) = entry.map_err(|error| sled_error("read", path, error))?;
        let block = heat_block::decode(&block)
            .map_err(|error| damaged(path, "a block is wrong").with_source(error))?;
        counts.extend(block.iter().map(|count| (count.locator.to_vec(), count.uses)));
    }
    Ok(counts)
}

/// Waits until nothing of sled's has the database open any more: its threads write and truncate
/// files after the last handle was dropped, and each of them holds the file that is locked.
fn await_closed(path: &Path) -> Result<()> {
    let path = path.join(SLED_FILE);
    let file = match File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        file => file.map_err(|error| Error::io("open", &path, error))?,
    };
    let started = Instant::now();
    while let Err(error) = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        if started.elapsed() > CLOSE_TIME_MAX {
            return Err(Error::io("lock", &path, error.into()));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Lists the files of a closed database, and makes them and the list durable.
fn write_checksums(generation: &Path) -> Result<()> {
    let mut files = Vec::new();
    for name in file_names(generation)? {
        let path = generation.join(&name);
        let mut file = File::open(&path).map_err(|error| Error::io("open", &path, error))?;
        let (len_bytes, checksum) =
            checksum_of(&mut file, |_| Ok(())).map_err(|error| Error::io("read", &path, error))?;
        file.sync_all().map_err(|error| Error::io("sync", &path, error))?;
        files.push(HeatFile { name, len_bytes, checksum });
    }
    let encoded = HeatChecksums { files }.encode().map_err(|error| {
        let generation = generation.display();
        Error::new(ErrorKind::Unsupported, format!("the files in {generation} cannot be listed"))
            .with_source(error)
    })?;
    create_synced(&generation.join(HEAT_CHECKSUMS), &encoded)?;
    for directory in directories(generation)? {
        sync_directory(&directory)?;
    }
    Ok(())
}

/// Copies the files of a generation if they are what its list says.
fn copy_verified(generation: &Path, copy: &Path) -> Result<()> {
    let wrong = |what: String| damaged(generation, what);
    let checksums = generation.join(HEAT_CHECKSUMS);
    let limit_bytes = (FILES_MAX * 2 * NAME_LEN_MAX_BYTES) as u64;
    let encoded = match read_bounded(&checksums, limit_bytes) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Invalid) => {
            return Err(wrong(format!("{HEAT_CHECKSUMS} is not there whole")).with_source(error));
        }
        encoded => encoded?,
    };
    let listed = HeatChecksums::decode(&encoded)
        .map_err(|error| wrong(format!("{HEAT_CHECKSUMS} is wrong")).with_source(error))?;
    let names = file_names(generation)?;
    if !names.iter().eq(listed.files.iter().map(|file| &file.name)) {
        return Err(wrong("it has not the files that are listed".to_owned()));
    }
    for expected in &listed.files {
        let (from, to) = (generation.join(&expected.name), copy.join(&expected.name));
        let parent = to.parent().unwrap_or(copy);
        fs::create_dir_all(parent).map_err(|error| Error::io("create directory", parent, error))?;
        let mut source = File::open(&from).map_err(|error| Error::io("open", &from, error))?;
        let mut target = File::create_new(&to).map_err(|error| Error::io("create", &to, error))?;
        let found = checksum_of(&mut source, |bytes| target.write_all(bytes))
            .map_err(|error| Error::io("copy", &from, error))?;
        if found != (expected.len_bytes, expected.checksum) {
            return Err(wrong(format!("{} is not what it was", expected.name)));
        }
    }
    Ok(())
}

/// The length and the checksum of what is read, which is handed on as well.
fn checksum_of(
    file: &mut File,
    mut each: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> std::io::Result<(u64, u64)> {
    let (mut hasher, mut len_bytes) = (Xxh3::new(), 0);
    let mut buffer = vec![0; COPY_LEN_BYTES];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((len_bytes, hasher.digest()));
        }
        hasher.update(&buffer[..read]);
        each(&buffer[..read])?;
        len_bytes += read as u64;
    }
}

/// The names of all files below a generation but the list itself, in order.
fn file_names(generation: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for directory in directories(generation)? {
        for (path, kind) in entries(&directory)? {
            if kind.is_dir() {
                continue;
            }
            let name = path.strip_prefix(generation).ok().and_then(Path::to_str);
            let name = name.filter(|_| kind.is_file());
            let unexpected = || damaged(generation, format!("{} is no file", path.display()));
            names.push(name.ok_or_else(unexpected)?.to_owned());
        }
    }
    names.retain(|name| name != HEAT_CHECKSUMS);
    names.sort_unstable();
    Ok(names)
}

/// A generation's directory and all below it.
fn directories(generation: &Path) -> Result<Vec<PathBuf>> {
    let mut directories = vec![generation.to_owned()];
    let mut next = 0;
    while let Some(directory) = directories.get(next) {
        let below = entries(directory)?.into_iter().filter(|(_, kind)| kind.is_dir());
        directories.extend(below.map(|(path, _)| path));
        next += 1;
    }
    Ok(directories)
}

fn entries(directory: &Path) -> Result<Vec<(PathBuf, fs::FileType)>> {
    fs::read_dir(directory)
        .and_then(|entries| {
            let entry = |entry: std::io::Result<fs::DirEntry>| {
                let entry = entry?;
                Ok((entry.path(), entry.file_type()?))
            };
            entries.map(entry).collect()
        })
        .map_err(|error| Error::io("list", directory, error))
}

fn sled_error(action: &str, path: &Path, error: sled::Error) -> Error {
    match error {
        sled::Error::Io(error) => Error::io(action, path, error),
        error => damaged(path, format!("sled cannot {action} it")).with_source(error),
    }
}

fn damaged(path: &Path, what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, format!("{} is damaged: {what}", path.display()))
        .with_remedy("nothing need be done: what is hot is learned again")
}

fn remove_or_warn(path: &Path) {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            warn(&Error::io("remove", path, error), "a useless directory stays");
        }
        _ => {}
    }
}

fn warn(error: &Error, consequence: &str) {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    tracing::warn!(%error, cause, "{consequence}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(count: u32) -> Vec<Count> {
        (0..count).map(|n| (format!("locator-{n:05}").into_bytes(), n * 3 % 1000 + 1)).collect()
    }

    fn sorted(mut counts: Vec<Count>) -> Vec<Count> {
        counts.sort();
        counts
    }

    fn saved(directory: &Path, count: u32) {
        save(directory, counts(count).into_iter()).unwrap();
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = entries(directory).unwrap().into_iter();
        let mut names: Vec<String> = entries
            .map(|(path, _)| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_was_saved_is_loaded_hottest_first_as_often_as_asked() {
        let directory = tempfile::tempdir().unwrap();
        saved(directory.path(), 10_000);
        for _ in 0..3 {
            let loaded = load(directory.path());
            assert!(loaded.windows(2).all(|pair| pair[0].1 >= pair[1].1));
            assert_eq!(sorted(loaded), counts(10_000));
            assert_eq!(names(directory.path()), ["1"]);
        }
    }

    #[test]
    fn nothing_is_loaded_from_nothing() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(load(&directory.path().join("missing")), []);
        assert_eq!(load(directory.path()), []);
        save(directory.path(), std::iter::empty()).unwrap();
        assert_eq!(load(directory.path()), []);
    }

    #[test]
    fn the_greatest_counts_are_kept() {
        let count = COUNTS_MAX as u32 * 2 + 10;
        let uses = |n: u32| n.wrapping_mul(0x9E37_79B9);
        let counts = (0..count).map(|n| (n.to_be_bytes().to_vec(), uses(n)));
        let mut expected: Vec<u32> = (0..count).map(uses).collect();
        expected.sort_unstable_by(|uses, other| other.cmp(uses));
        expected.truncate(COUNTS_MAX);
        assert!(hottest(counts).iter().map(|(_, uses)| *uses).eq(expected));
    }

    #[test]
    fn locators_of_any_length_come_back_and_none_of_no_length() {
        let directory = tempfile::tempdir().unwrap();
        let mut counts: Vec<Count> =
            (1..60).map(|n| (vec![n as u8; n * n * 18], 100 - n as u32)).collect();
        save(directory.path(), counts.clone().into_iter()).unwrap();
        assert_eq!(load(directory.path()), counts);
        counts.push((Vec::new(), 1));
        let error = save(directory.path(), counts.into_iter()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert_eq!(names(directory.path()), ["1"]);
    }

    #[test]
    fn two_generations_are_kept_and_what_is_unfinished_or_foreign_is_known() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["9.new", "3.open", "7.old", "07", "notes"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        for count in 1..=4 {
            saved(directory.path(), count);
        }
        assert_eq!(names(directory.path()), ["07", "3", "4", "7.old", "notes"]);
        assert_eq!(load(directory.path()).len(), 4);
    }

    #[test]
    fn a_damaged_generation_is_removed_and_the_one_before_it_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        saved(directory.path(), 10);
        let damages: [fn(&Path); 6] = [
            |generation| fs::remove_file(generation.join(HEAT_CHECKSUMS)).unwrap(),
            |generation| fs::write(generation.join(HEAT_CHECKSUMS), "").unwrap(),
            |generation| fs::remove_file(generation.join("conf")).unwrap(),
            |generation| fs::write(generation.join("more"), "").unwrap(),
            |generation| {
                File::options()
                    .write(true)
                    .open(generation.join(SLED_FILE))
                    .unwrap()
                    .set_len(5)
                    .unwrap()
            },
            |generation| std::os::unix::fs::symlink("db", generation.join("link")).unwrap(),
        ];
        for (damage, number) in damages.iter().zip(1..) {
            saved(directory.path(), 20);
            damage(&heat_generation(directory.path(), 2));
            assert_eq!(load(directory.path()).len(), 10, "damage {number}");
            assert_eq!(names(directory.path()), ["1"], "damage {number}");
        }
    }

    /// Sled never sees damage, so it is enough that the copy is refused.
    #[test]
    fn every_flipped_byte_and_every_cut_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        saved(directory.path(), 200);
        let generation = heat_generation(directory.path(), 1);
        let copy = heat_opened(directory.path(), 1);
        let refused = |what: &str| {
            let error = copy_verified(&generation, &copy).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}");
            fs::remove_dir_all(&copy).unwrap_or_default();
        };
        let mut tried = 0;
        for name in file_names(&generation).unwrap().into_iter().chain([HEAT_CHECKSUMS.to_owned()])
        {
            let path = generation.join(&name);
            let whole = fs::read(&path).unwrap();
            // Sled's file is mostly the zeros of a segment that is hardly used.
            let step = 1 + whole.len() / 2000;
            let used = whole.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            for offset in (0..used).chain((used..whole.len()).step_by(step)) {
                let mut flipped = whole.clone();
                flipped[offset] ^= 1 << (offset % 8);
                fs::write(&path, flipped).unwrap();
                refused(&format!("{name}, byte {offset}"));
                tried += 1;
            }
            for len in (0..whole.len()).step_by(step) {
                fs::write(&path, &whole[..len]).unwrap();
                refused(&format!("{name}, {len} bytes"));
            }
            fs::write(&path, whole).unwrap();
        }
        assert!(tried > 2000, "only {tried} bytes were flipped");
        copy_verified(&generation, &copy).unwrap();
    }

    #[test]
    fn a_panic_is_damage() {
        let error = guarded::<()>(Path::new("x"), || panic!("as sled does")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn a_directory_that_cannot_be_written_keeps_what_was() {
        let directory = tempfile::tempdir().unwrap();
        saved(directory.path(), 5);
        // Where the next generation would be made.
        fs::write(heat_unfinished(directory.path(), 2), "a file").unwrap();
        assert!(save(directory.path(), counts(9).into_iter()).is_err());
        assert_eq!(load(directory.path()).len(), 5);
    }

    #[test]
    fn sled_closes_its_files_and_starts_no_thread_twice() {
        let directory = tempfile::tempdir().unwrap();
        let threads = || {
            let tasks = fs::read_dir("/proc/self/task").unwrap();
            let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).ok();
            let names = tasks.filter_map(|task| name(task.ok()?));
            names.filter(|name| name.starts_with("sled") || name.starts_with("log flusher")).count()
        };
        for _ in 0..5 {
            saved(directory.path(), 2000);
            load(directory.path());
        }
        let before = threads();
        for _ in 0..5 {
            saved(directory.path(), 2000);
            load(directory.path());
            assert!(threads() <= before.max(7), "{} threads, {before} before", threads());
        }
        let below = directory.path().to_str().unwrap().to_owned();
        let open = fs::read_dir("/proc/self/fd").unwrap();
        let targets = open.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
        assert_eq!(targets.filter(|target| target.starts_with(&below)).count(), 0);
    }
}
