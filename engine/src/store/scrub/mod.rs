//! Scrubbing: reads everything that is stored, and says what of it is damaged.
//!
//! A scrub is a sequence of [`PARTS`]: first the files, byte by byte as they lie on the disk, then
//! the values in them and what they say about each other. It goes on after each fault. What can be
//! computed again is removed, so that it is; of the authority nothing is ever changed.
//!
//! A part goes in steps and notes after each how far it is, so that a scrub can be paced, broken
//! off and resumed, and holds no more than a step in memory. The note lies in `@cache`: lost, it
//! costs a scrub from the start.
//!
//! Deliberately not here: comparing texts with their embeddings, which would compute all of them.

mod derived;
mod journal;
mod pace;
mod values;

use std::fmt::Write;
use std::num::NonZeroU64;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Store;
use super::open::read_store_file;
use crate::db::Database;
use crate::db::check::{Damage, DatabaseFile};
use crate::error::Result;
use crate::layout::{acknowledged_file, store_file};
use pace::Pace;

/// The most faults a report lists; it counts all of them.
const FAULTS_LISTED_MAX: usize = 1000;
/// Read between two notes of how far a scrub is.
const NOTE_BYTES: u64 = 64 << 20;
const NOTE: &str = "scrub";
const RESTORE: &str = "restore the store from an export";
const WRITE_AGAIN: &str = "write the record again, or restore the store from an export";
const RECOMPUTED: &str = "nothing to do: what is gone is computed again when it is needed";

/// How to scrub.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubOptions {
    /// The most bytes read in a second; without it, as many as the disk gives.
    pub rate_bytes_per_second: Option<NonZeroU64>,
    /// Whether to go on where the last scrub was broken off. Without one, it starts anew.
    pub resume: bool,
}

/// How far a scrub is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubProgress {
    /// What is being read.
    pub part: &'static str,
    /// Bytes read so far.
    pub bytes_read: u64,
    /// Faults found so far.
    pub faults_count: u64,
}

/// What a scrub has read, and what it found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScrubReport {
    /// Whether everything was read. One that was broken off can be resumed.
    pub finished: bool,
    /// Whether it went on where an earlier one was broken off, whose figures it includes.
    pub resumed: bool,
    /// Bytes read, of files and again of the values in them.
    pub bytes_read: u64,
    /// Records verified.
    pub records: u64,
    /// Embeddings verified: given by callers, and cached.
    pub embeddings: u64,
    /// Changes verified.
    pub changes: u64,
    /// Faults found.
    pub faults_count: u64,
    /// Of these, faults that were not repaired.
    pub unrepaired_count: u64,
    /// The first thousand of the faults.
    pub faults: Vec<Fault>,
}

/// Something that is not as it was stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What is wrong, in words.
    pub what: String,
    /// The file or the database it is in, from the store's directory.
    pub path: PathBuf,
    /// Where in the file it begins, in bytes.
    pub offset: Option<u64>,
    /// The collection of the record it is about.
    pub collection: Option<String>,
    /// The key of that record.
    pub key: Option<Vec<u8>>,
    /// Whether it was put right: removed, or marked to be replaced when the store is opened next.
    pub repaired: bool,
    /// What to do about it.
    pub remedy: String,
}

/// How far a scrub is: what outlives the process.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Progress {
    /// The name of the part at hand; empty before the first.
    part: String,
    /// Where the part goes on; empty at its start. What it means is up to the part.
    cursor: Vec<u8>,
    report: ScrubReport,
    /// Keys in damaged blocks, which have been told and must be stepped over.
    unreadable: Vec<Unreadable>,
}

/// Keys of a database's family, up to one, that cannot be read.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Unreadable {
    family: String,
    until: Vec<u8>,
}

/// One thing to read: its name, and who reads it.
struct Part {
    name: &'static str,
    run: fn(&mut Scrub<'_>) -> Result<ControlFlow<()>>,
}

/// What there is to read, files before the values in them. Names are noted: a new part gets a new
/// one.
const PARTS: [Part; 10] = [
    Part { name: "STORE and ACKNOWLEDGED", run: |scrub| scrub.identity() },
    Part { name: "files of @state", run: |scrub| scrub.state_files() },
    Part { name: "files of @cache", run: |scrub| scrub.cache_files() },
    Part { name: "files of @vectors", run: |scrub| scrub.vector_files() },
    Part { name: "heat", run: |scrub| scrub.heat() },
    Part { name: "collections", run: |scrub| scrub.collections() },
    Part { name: "records", run: |scrub| scrub.records() },
    Part { name: "changes", run: |scrub| scrub.changes() },
    Part { name: "journal", run: |scrub| scrub.journal() },
    Part { name: "cached embeddings", run: |scrub| scrub.cached_embeddings() },
];

impl Store {
    /// Reads everything in the store, verifies every checksum and reports what is damaged.
    ///
    /// Cached embeddings that are damaged are removed, as they can be computed again; everything
    /// else is only reported. `watch` is told how far it is, at least ten times a second while it
    /// waits for its pace, and can break it off. Reads and writes go on meanwhile.
    ///
    /// # Errors
    /// Faults are no error. [`ErrorKind::Io`](crate::ErrorKind::Io) if it cannot even be said what there is to read.
    pub fn scrub(
        &self,
        options: &ScrubOptions,
        watch: &mut dyn FnMut(ScrubProgress) -> ControlFlow<()>,
    ) -> Result<ScrubReport> {
        // It mends what it can.
        self.require_writable()?;
        let noted = match options.resume {
            true => self.cache.note::<Option<Progress>>(NOTE).flatten(),
            false => None,
        };
        let mut progress = noted.unwrap_or_default();
        progress.report.resumed = !progress.part.is_empty();
        let pace = Pace::start(options.rate_bytes_per_second);
        let scrub = Scrub { store: self, progress, pace, watch, part: PARTS[0].name, unnoted: 0 };
        scrub.run()
    }
}

/// A scrub at work.
struct Scrub<'a> {
    store: &'a Store,
    progress: Progress,
    pace: Pace,
    watch: &'a mut dyn FnMut(ScrubProgress) -> ControlFlow<()>,
    part: &'static str,
    /// Bytes read since the last note.
    unnoted: u64,
}

impl Scrub<'_> {
    fn run(mut self) -> Result<ScrubReport> {
        let noted = PARTS.iter().position(|part| part.name == self.progress.part);
        for part in &PARTS[noted.unwrap_or(0)..] {
            self.part = part.name;
            if self.progress.part != part.name {
                self.progress.part = part.name.to_owned();
                self.progress.cursor.clear();
            }
            if (part.run)(&mut self)?.is_break() {
                self.note();
                return Ok(self.progress.report);
            }
        }
        self.progress.report.finished = true;
        self.store.cache.put_note(NOTE, &None::<Progress>);
        Ok(self.progress.report)
    }

    /// Counts what was read, waits if that was too fast, and asks whether to go on.
    fn read(&mut self, bytes: u64) -> ControlFlow<()> {
        let report = &mut self.progress.report;
        report.bytes_read += bytes;
        self.unnoted += bytes;
        let progress = ScrubProgress {
            part: self.part,
            bytes_read: report.bytes_read,
            faults_count: report.faults_count,
        };
        self.pace.advance(bytes, &mut || (self.watch)(progress))
    }

    /// Moves the cursor after a step, and notes it now and then.
    fn advance(&mut self, cursor: Vec<u8>) {
        self.progress.cursor = cursor;
        if self.unnoted >= NOTE_BYTES {
            self.note();
        }
    }

    fn note(&mut self) {
        self.unnoted = 0;
        self.store.cache.put_note(NOTE, &Some(&self.progress));
    }

    fn fault(&mut self, fault: Fault) {
        let report = &mut self.progress.report;
        report.faults_count += 1;
        report.unrepaired_count += u64::from(!fault.repaired);
        if report.faults.len() < FAULTS_LISTED_MAX {
            report.faults.push(fault);
        }
    }

    /// A path as a report shows it: from the store's directory.
    fn shown(&self, path: &Path) -> PathBuf {
        path.strip_prefix(self.store.layout.base()).unwrap_or(path).to_owned()
    }

    fn identity(&mut self) -> Result<ControlFlow<()>> {
        let state = self.store.layout.state();
        let files = [store_file(&state), acknowledged_file(&state)];
        let lens = files.iter().map(|path| path.metadata().map_or(0, |file| file.len()));
        if self.read(lens.sum()).is_break() {
            return Ok(ControlFlow::Break(()));
        }
        let [store_path, acknowledged_path] = files;
        let checks = [
            (store_path, read_store_file(&state).map(drop)),
            (acknowledged_path, self.store.state.check_acknowledged_file(&state)),
        ];
        for (path, checked) in checks {
            if let Err(error) = checked {
                let fault = Fault {
                    what: error.chain(),
                    path: self.shown(&path),
                    offset: None,
                    collection: None,
                    key: None,
                    repaired: false,
                    remedy: error.remedy().unwrap_or(RESTORE).to_owned(),
                };
                self.fault(fault);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn state_files(&mut self) -> Result<ControlFlow<()>> {
        let store = self.store;
        self.files(store.state.database(), Scrub::state_damage)
    }

    fn cache_files(&mut self) -> Result<ControlFlow<()>> {
        let store = self.store;
        self.files(store.cache.database().database(), Scrub::cache_damage)
    }

    /// Checks the files of a database; the cursor is the name of the last one checked.
    fn files(
        &mut self,
        database: &Database,
        damaged: fn(&mut Self, &DatabaseFile, Damage),
    ) -> Result<ControlFlow<()>> {
        for file in database.files()? {
            if file.name.as_bytes() <= &self.progress.cursor[..] {
                continue;
            }
            let mut damages = Vec::new();
            let flow = database.check(&file, &mut |bytes| self.read(bytes), &mut |damage| {
                damages.push(damage);
            })?;
            if flow.is_break() {
                // The file is read again from its start, so its faults are told then.
                return Ok(flow);
            }
            damages.into_iter().for_each(|damage| damaged(self, &file, damage));
            self.advance(file.name.into_bytes());
        }
        Ok(ControlFlow::Continue(()))
    }

    fn state_damage(&mut self, file: &DatabaseFile, damage: Damage) {
        let mut what = damage.what;
        let mut remedy = RESTORE;
        if let (Some(family), Some(keys)) = (&file.family, damage.keys) {
            let (after, until) =
                (self.shown_key(family, &keys.after), self.shown_key(family, &keys.until));
            // Writing to a string does not fail.
            let _ = write!(what, "; lost: {family} after {after} up to {until}");
            self.progress.unreadable.push(Unreadable { family: family.clone(), until: keys.until });
        }
        if file.name == "IDENTITY" {
            remedy = "remove the file: it is made again";
        }
        let path = self.shown(&file.path);
        let offset = damage.offset_bytes;
        let remedy = remedy.to_owned();
        self.fault(Fault {
            what,
            path,
            offset,
            collection: None,
            key: None,
            repaired: false,
            remedy,
        });
    }

    fn cache_damage(&mut self, file: &DatabaseFile, damage: Damage) {
        let condemned = self.store.cache.database().condemn();
        if let (Some(family), Some(keys)) = (&file.family, damage.keys) {
            self.progress.unreadable.push(Unreadable { family: family.clone(), until: keys.until });
        }
        let remedy = match &condemned {
            Ok(()) => {
                "nothing to do: the cache starts anew when the store is opened next".to_owned()
            }
            Err(error) => format!("remove @cache, which comes back by itself ({error})"),
        };
        let fault = Fault {
            what: damage.what,
            path: self.shown(&file.path),
            offset: damage.offset_bytes,
            collection: None,
            key: None,
            repaired: condemned.is_ok(),
            remedy,
        };
        self.fault(fault);
    }
}
