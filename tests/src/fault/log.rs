//! What the shim has recorded: every operation that succeeded, in the order in which it happened.

use std::path::{Path, PathBuf};

/// Bytes of a record before its paths and data; `struct record` in the shim is the layout.
const HEAD_BYTES: usize = 32;

/// One recorded operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The file or directory, relative to the directory that was watched.
    pub path: PathBuf,
    /// What happened to it.
    pub change: Change,
}

/// What an operation does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Makes an empty file.
    Create,
    /// Makes a directory.
    CreateDirectory,
    /// Writes bytes at an offset.
    Write {
        /// Where.
        offset_bytes: usize,
        /// What.
        data: Vec<u8>,
    },
    /// Sets the length. Preallocations are recorded so too, and mostly leave it as it is.
    Truncate {
        /// The new length.
        len_bytes: usize,
    },
    /// Makes the file's bytes, or the directory's names, durable.
    Sync,
    /// Gives it another name.
    Rename {
        /// The new name.
        to: PathBuf,
    },
    /// Gives it a second name.
    Link {
        /// The second name.
        to: PathBuf,
    },
    /// Removes the name.
    Remove,
    /// No operation: the process wrote this to its notes.
    Note(Vec<u8>),
}

/// Reads a log. An unfinished record at the end, of a process that was killed, is left out.
///
/// # Panics
/// If it is none.
#[must_use]
pub fn parse(bytes: &[u8], directory: &Path) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut rest = bytes;
    while let Some((entry, after)) = parse_entry(rest, directory) {
        entries.push(entry);
        rest = after;
    }
    entries
}

fn parse_entry<'a>(bytes: &'a [u8], directory: &Path) -> Option<(Entry, &'a [u8])> {
    let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
    let number = |at: usize, len: usize| -> usize {
        let mut number = [0; 8];
        number[..len].copy_from_slice(&head[at..at + len]);
        usize::try_from(u64::from_ne_bytes(number)).expect("64 bits")
    };
    let (path_bytes, other_bytes) = (number(8, 4), number(12, 4));
    let (offset_bytes, data_bytes) = (number(16, 8), number(24, 8));
    let (path, rest) = rest.split_at_checked(path_bytes)?;
    let (other, rest) = rest.split_at_checked(other_bytes)?;
    let (data, rest) = rest.split_at_checked(data_bytes)?;
    let relative = |path: &[u8]| {
        let path = Path::new(std::str::from_utf8(path).expect("the store's paths are UTF-8"));
        path.strip_prefix(directory).unwrap_or(path).to_owned()
    };
    let data = data.to_vec();
    let change = match head[0] {
        b'C' => Change::Create,
        b'D' => Change::CreateDirectory,
        b'W' => Change::Write { offset_bytes, data },
        b'T' => Change::Truncate { len_bytes: offset_bytes },
        b'S' => Change::Sync,
        b'R' => Change::Rename { to: relative(other) },
        b'L' => Change::Link { to: relative(other) },
        b'U' => Change::Remove,
        b'A' => Change::Note(data),
        kind => panic!("the shim records nothing of the kind {kind}"),
    };
    Some((Entry { path: relative(path), change }, rest))
}

/// How many of the entries are operations that the shim counts.
#[must_use]
pub fn operations_count(entries: &[Entry]) -> u64 {
    entries.iter().filter(|entry| !matches!(entry.change, Change::Note(_))).count() as u64
}
