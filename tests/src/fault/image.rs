//! What a power cut leaves: directories made from a log, with what was not synced kept or dropped.
//!
//! The model is a file system that keeps the order of names, as those with a journal do, and
//! promises for data only what POSIX does. Each page of a file is written to the disk when the
//! file is synced, and besides at any time the kernel likes, or never; a length grows with the
//! pages that reach the disk. Creations, renames and removals become durable in their order, at
//! the latest when a directory is synced: a prefix of them survives. The sync of a file does not
//! make its name durable.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::log::{Change, Entry};
use crate::random::Random;

const PAGE_BYTES: usize = 4096;

/// What stands behind a name: a directory, or a file by its number.
#[derive(Clone, Copy, Debug)]
enum Node {
    Directory,
    File(usize),
}

/// A change of names.
enum Naming {
    Name(PathBuf, Node),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

type Names = BTreeMap<PathBuf, Node>;

/// A file as processes see it, and as it is on the disk.
#[derive(Default)]
struct FileState {
    cached: Vec<u8>,
    durable: Vec<u8>,
    /// Pages that differ, perhaps.
    dirty: BTreeSet<usize>,
}

/// A machine between the first entry of a log and a power cut.
pub struct Machine {
    random: Random,
    /// How eager its kernel is to write dirty pages.
    writes_back_percent: usize,
    names: Names,
    namings: Vec<Naming>,
    /// How many of them are certainly durable.
    durable_namings: usize,
    files: Vec<FileState>,
}

/// What is on the disk after the cut: by name, the bytes of a file or `None` for a directory.
pub struct Image(BTreeMap<PathBuf, Option<Vec<u8>>>);

impl Machine {
    /// Replays a log's entries on a machine with an empty directory.
    #[must_use]
    pub fn replay(entries: &[Entry], mut random: Random) -> Self {
        const EAGERNESS_PERCENT: [usize; 4] = [0, 5, 30, 80];
        let writes_back_percent = EAGERNESS_PERCENT[random.below(EAGERNESS_PERCENT.len())];
        let mut machine = Self {
            random,
            writes_back_percent,
            names: Names::from([(PathBuf::new(), Node::Directory)]),
            namings: Vec::new(),
            durable_namings: 0,
            files: Vec::new(),
        };
        for entry in entries {
            machine.apply(entry);
        }
        machine
    }

    fn apply(&mut self, Entry { path, change }: &Entry) {
        match change {
            Change::Create => {
                self.files.push(FileState::default());
                let file = Node::File(self.files.len() - 1);
                self.rename(Naming::Name(path.clone(), file));
            }
            Change::CreateDirectory => {
                self.rename(Naming::Name(path.clone(), Node::Directory));
            }
            Change::Rename { to } => self.rename(Naming::Rename(path.clone(), to.clone())),
            Change::Link { to } => {
                if let Some(node) = self.names.get(path) {
                    self.rename(Naming::Name(to.clone(), *node));
                }
            }
            Change::Remove => self.rename(Naming::Remove(path.clone())),
            Change::Sync => match self.names.get(path) {
                Some(Node::Directory) => self.durable_namings = self.namings.len(),
                Some(Node::File(file)) => self.files[*file].sync(),
                None => {}
            },
            Change::Write { offset_bytes, data } => {
                // What is written to a removed file concerns nobody.
                let Some(Node::File(file)) = self.names.get(path) else { return };
                let file = &mut self.files[*file];
                file.write(*offset_bytes, data);
                file.write_back(&mut self.random, self.writes_back_percent);
            }
            Change::Truncate { len_bytes } => {
                let Some(Node::File(file)) = self.names.get(path) else { return };
                let reaches_disk = self.random.below(2) == 0;
                self.files[*file].truncate(*len_bytes, reaches_disk);
            }
            Change::Note(_) => {}
        }
    }

    fn rename(&mut self, naming: Naming) {
        naming.apply(&mut self.names);
        self.namings.push(naming);
    }

    /// Cuts the power.
    #[must_use]
    pub fn cut(mut self) -> Image {
        const KEPT_PERCENT: [usize; 4] = [0, 50, 50, 100];
        let kept_percent = KEPT_PERCENT[self.random.below(KEPT_PERCENT.len())];
        for file in &mut self.files {
            file.write_back(&mut self.random, kept_percent);
        }
        let open = self.namings.len() - self.durable_namings;
        let kept = self.durable_namings + self.random.below(open + 1);
        let mut names = Names::new();
        for naming in &self.namings[..kept] {
            naming.apply(&mut names);
        }
        let content = |node: Node| match node {
            Node::Directory => None,
            Node::File(file) => Some(self.files[file].durable.clone()),
        };
        Image(names.into_iter().map(|(path, node)| (path, content(node))).collect())
    }
}

impl Naming {
    fn apply(&self, names: &mut Names) {
        match self {
            Self::Name(path, node) => {
                names.insert(path.clone(), *node);
            }
            Self::Rename(from, to) => {
                names.retain(|path, _| !path.starts_with(to));
                let below = names.keys().filter(|path| path.starts_with(from)).cloned();
                for path in below.collect::<Vec<_>>() {
                    let rest = path.strip_prefix(from).expect("it starts so");
                    // Joining nothing would leave a slash at the end.
                    let moved = if rest == Path::new("") { to.clone() } else { to.join(rest) };
                    let node = names.remove(&path).expect("it was just there");
                    names.insert(moved, node);
                }
            }
            Self::Remove(path) => {
                names.remove(path);
            }
        }
    }
}

impl FileState {
    fn write(&mut self, offset_bytes: usize, data: &[u8]) {
        let end = offset_bytes + data.len();
        if self.cached.len() < end {
            self.cached.resize(end, 0);
        }
        self.cached[offset_bytes..end].copy_from_slice(data);
        self.dirty.extend(offset_bytes / PAGE_BYTES..end.div_ceil(PAGE_BYTES));
    }

    fn truncate(&mut self, len_bytes: usize, reaches_disk: bool) {
        self.cached.resize(len_bytes, 0);
        self.dirty.retain(|page| page * PAGE_BYTES < len_bytes);
        if reaches_disk {
            self.durable.truncate(len_bytes);
        }
    }

    fn sync(&mut self) {
        self.durable.clone_from(&self.cached);
        self.dirty.clear();
    }

    /// Writes each dirty page with this probability.
    fn write_back(&mut self, random: &mut Random, percent: usize) {
        const PERCENT: usize = 100;
        let Self { cached, durable, dirty } = self;
        dirty.retain(|page| {
            if random.below(PERCENT) >= percent {
                return true;
            }
            let start = page * PAGE_BYTES;
            let end = (start + PAGE_BYTES).min(cached.len());
            if durable.len() < end {
                durable.resize(end, 0);
            }
            durable[start..end].copy_from_slice(&cached[start..end]);
            false
        });
    }
}

impl Image {
    /// Writes the image to an empty directory.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        for (path, content) in &self.0 {
            let path = directory.join(path);
            match content {
                None => fs::create_dir_all(path)?,
                Some(bytes) => fs::write(path, bytes)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, change: Change) -> Entry {
        Entry { path: path.into(), change }
    }

    fn write(path: &str, offset_bytes: usize, data: &[u8]) -> Entry {
        entry(path, Change::Write { offset_bytes, data: data.to_vec() })
    }

    /// All images that so many seeds make.
    fn images(entries: &[Entry]) -> Vec<BTreeMap<PathBuf, Option<Vec<u8>>>> {
        (0..200).map(|seed| Machine::replay(entries, Random::new(seed)).cut().0).collect()
    }

    #[test]
    fn what_was_synced_is_in_every_image_and_nothing_else_is_in_all() {
        let entries = [
            entry("a", Change::Create),
            write("a", 0, &[1; 3 * PAGE_BYTES]),
            entry("a", Change::Sync),
            entry("", Change::Sync),
            write("a", 0, &[2; 3 * PAGE_BYTES]),
        ];
        let images = images(&entries);
        let pages: BTreeSet<Vec<u8>> = images
            .iter()
            .map(|image| {
                let bytes = image[Path::new("a")].as_ref().expect("it is a file");
                assert!(bytes.chunks(PAGE_BYTES).all(|page| page.iter().all(|b| *b == page[0])));
                bytes.iter().step_by(PAGE_BYTES).copied().collect()
            })
            .collect();
        assert_eq!(pages.len(), 8, "every subset of three pages: {pages:?}");
    }

    #[test]
    fn names_survive_in_their_order() {
        let entries = [
            entry("d", Change::CreateDirectory),
            entry("", Change::Sync),
            entry("d/x", Change::Create),
            write("d/x", 0, b"new"),
            entry("d/x", Change::Sync),
            entry("d", Change::Rename { to: "e".into() }),
            entry("e/y", Change::Create),
        ];
        let names: BTreeSet<Vec<PathBuf>> =
            images(&entries).iter().map(|image| image.keys().cloned().collect()).collect();
        let expected: [&[&str]; 4] = [&["d"], &["d", "d/x"], &["e", "e/x"], &["e", "e/x", "e/y"]];
        let expected: BTreeSet<Vec<PathBuf>> =
            expected.iter().map(|names| names.iter().map(PathBuf::from).collect()).collect();
        assert_eq!(names, expected);
    }

    #[test]
    fn a_late_page_leaves_a_hole_before_it() {
        let entries = [
            entry("a", Change::Create),
            entry("", Change::Sync),
            write("a", 0, &[1; 2 * PAGE_BYTES]),
        ];
        let hole = [vec![0; PAGE_BYTES], vec![1; PAGE_BYTES]].concat();
        assert!(images(&entries).iter().any(|image| image[Path::new("a")] == Some(hole.clone())));
    }
}
