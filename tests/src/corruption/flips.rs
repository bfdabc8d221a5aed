//! Which bytes are changed, and how the changes end.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::fs;
use std::io;
use std::path::Path;
use std::str::FromStr;

use crate::random::Random;

/// One byte of one file, and what it is combined with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flip {
    /// The file, from the store's directory.
    pub file: String,
    /// The byte.
    pub offset: usize,
    /// The bits that are changed.
    pub mask: u8,
}

impl Display for Flip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\t{}\t{}", self.file, self.offset, self.mask)
    }
}

impl FromStr for Flip {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let unreadable = || format!("{line:?} is no flip");
        let mut fields = line.split('\t');
        let mut next = || fields.next().ok_or_else(unreadable);
        Ok(Self {
            file: next()?.to_owned(),
            offset: next()?.parse().map_err(|_| unreadable())?,
            mask: next()?.parse().map_err(|_| unreadable())?,
        })
    }
}

impl Flip {
    /// Changes the byte in the store at `path`.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub fn apply(&self, path: &Path) -> io::Result<()> {
        let path = path.join(&self.file);
        let mut bytes = fs::read(&path)?;
        bytes[self.offset] ^= self.mask;
        fs::write(path, bytes)
    }

    /// The kind of file, as the table of a campaign names it.
    #[must_use]
    pub fn class(&self) -> String {
        let mut parts = self.file.rsplit('/');
        let name = parts.next().unwrap_or_default();
        let kind = match name {
            _ if name.ends_with(".sst") => "table",
            _ if name.ends_with(".log") => "log",
            _ => name.split('-').next().unwrap_or(name),
        };
        let directory = self.file.split('/').next().filter(|first| *first != name);
        directory.map_or_else(|| kind.to_owned(), |directory| format!("{directory} {kind}"))
    }
}

/// Two changes for each byte of each file: all bits of it, and one that `random` chooses.
///
/// # Errors
/// If the files cannot be read.
pub fn all(store: &Path, random: &mut Random) -> io::Result<Vec<Flip>> {
    let mut flips = Vec::new();
    for file in files(store)? {
        let len = fs::metadata(store.join(&file))?.len() as usize;
        for offset in 0..len {
            for mask in [u8::MAX, 1 << random.below(8)] {
                flips.push(Flip { file: file.clone(), offset, mask });
            }
        }
    }
    Ok(flips)
}

/// Chooses flips so that each kind of file gets as many, however large it is.
///
/// # Panics
/// If there are none to choose from.
#[must_use]
pub fn choose(all: &[Flip], count: usize, random: &mut Random) -> Vec<Flip> {
    let mut classes: BTreeMap<String, Vec<&Flip>> = BTreeMap::new();
    for flip in all {
        classes.entry(flip.class()).or_default().push(flip);
    }
    let classes: Vec<Vec<&Flip>> = classes.into_values().collect();
    let of_class = |number: usize| {
        let class = &classes[number % classes.len()];
        class[random.below(class.len())].clone()
    };
    (0..count).map(of_class).collect()
}

/// Whether nobody reads the file: RocksDB's notes for people, which a test removes whole.
#[must_use]
pub fn is_unread(name: &str) -> bool {
    name.starts_with("LOG") || name.starts_with("OPTIONS-")
}

/// The files of a store, from its directory, without those that nobody reads.
fn files(store: &Path) -> io::Result<Vec<String>> {
    let mut files = Vec::new();
    let mut directories = vec![store.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                directories.push(entry.path());
            } else if !entry.file_name().to_str().is_some_and(is_unread) {
                let path = entry.path();
                let shown = path.strip_prefix(store).expect("it lies below it");
                files.push(shown.to_str().expect("names are ours").to_owned());
            }
        }
    }
    // The authority first. Files of vectors are longest, and last.
    const DIRECTORIES: [&str; 4] = ["@state", "@timing", "@cache", "@vectors"];
    files.sort_by_key(|file| {
        let rank = DIRECTORIES.iter().position(|directory| file.starts_with(directory));
        (rank, file.clone())
    });
    Ok(files)
}

/// Copies a store.
///
/// # Errors
/// If something cannot be read or written.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// How a flip ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// An error said what is damaged.
    Detected,
    /// An error said that the end of the log is missing.
    Tail,
    /// All answers were right, and a scrub found the damage or it is gone.
    Harmless,
    /// None of these.
    Wrong,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Detected, Self::Tail, Self::Harmless, Self::Wrong];

    /// The word for it, in tables and between processes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Detected => "detected",
            Self::Tail => "tail",
            Self::Harmless => "harmless",
            Self::Wrong => "wrong",
        }
    }
}

impl FromStr for Outcome {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|outcome| outcome.name() == name);
        known.ok_or_else(|| format!("{name:?} is no outcome"))
    }
}

/// How often flips of each kind of file ended in each way.
#[derive(Default)]
pub struct Tally(BTreeMap<String, [u64; 4]>);

impl Tally {
    /// Counts one.
    pub fn count(&mut self, flip: &Flip, outcome: Outcome) {
        self.0.entry(flip.class()).or_default()[outcome as usize] += 1;
    }

    /// The sums over all kinds of files, in the order of the table.
    #[must_use]
    pub fn sums(&self) -> [u64; 4] {
        let mut sums = [0; 4];
        for counts in self.0.values() {
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        sums
    }
}

impl Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |f: &mut fmt::Formatter<'_>, class: &str, counts: [u64; 4]| {
            write!(f, "{class:<22}{:>9}", counts.iter().sum::<u64>())?;
            counts.iter().try_for_each(|count| write!(f, "{count:>10}"))?;
            writeln!(f)
        };
        write!(f, "{:<22}{:>9}", "file", "flips")?;
        Outcome::ALL.iter().try_for_each(|outcome| write!(f, "{:>10}", outcome.name()))?;
        writeln!(f)?;
        self.0.iter().try_for_each(|(class, counts)| line(f, class, *counts))?;
        line(f, "all", self.sums())
    }
}
