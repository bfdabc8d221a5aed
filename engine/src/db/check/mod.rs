//! Checks the files of a database byte by byte, as they lie on the disk.
//!
//! RocksDB checks a block when it reads one, ends at the first that is damaged, goes without a
//! filter that it cannot read, and asks neither its own memory nor the kernel's whether the disk
//! still has what they hold. Here every byte is read and none is believed: what a table or a log
//! says about itself is followed only after its checksum.
//!
//! Deliberately not here: what the values mean. RocksDB's notes (`OPTIONS`, `LOG`) have no
//! checksum and are read by nobody; of them only that they can be read is checked.

mod crc32c;
mod log;
mod lz4;
mod table;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Database;
use crate::error::{Error, ErrorKind, Result};
use crate::os::file::{forget_cached, read_bounded};

/// How much of a file that has no parts is read at a time.
const CHUNK_LEN_BYTES: usize = 1 << 20;
/// A log that is being written grows in less than this.
const WRITE_TIME_MAX: Duration = Duration::from_millis(50);

/// Something wrong with a file.
#[derive(Debug)]
pub(crate) struct Damage {
    /// What, as a person reads it.
    pub(crate) what: String,
    pub(crate) offset_bytes: Option<u64>,
    /// The keys that cannot be read because of it.
    pub(crate) keys: Option<KeyRange>,
}

/// The keys of one family that are greater than the first and not greater than the second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyRange {
    pub(crate) after: Vec<u8>,
    pub(crate) until: Vec<u8>,
}

/// A file of a database.
#[derive(Debug)]
pub(crate) struct DatabaseFile {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// The family whose table it is.
    pub(crate) family: Option<String>,
    kind: FileKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileKind {
    Table,
    Log,
    Current,
    Identity,
    Notes,
}

/// Called with the bytes just read; breaks off the check.
pub(crate) type OnRead<'a> = dyn FnMut(u64) -> ControlFlow<()> + 'a;

/// Why a check ended early.
enum Flaw {
    /// Whoever asked for it wants no more.
    Stopped,
    /// What leads to the rest is damaged.
    Damaged(Damage),
}

/// A file that is being checked.
struct Source<'a> {
    file: File,
    len_bytes: u64,
    on_read: &'a mut OnRead<'a>,
}

impl Damage {
    fn at(offset: u64, what: impl Into<String>) -> Self {
        Self { what: what.into(), offset_bytes: Some(offset), keys: None }
    }

    fn whole(what: impl Into<String>) -> Self {
        Self { what: what.into(), offset_bytes: None, keys: None }
    }
}

impl Source<'_> {
    fn read(&mut self, offset: u64, len: usize) -> Result<Vec<u8>, Flaw> {
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, offset).map_err(|error| {
            Flaw::Damaged(Damage::at(offset, format!("bytes that cannot be read ({error})")))
        })?;
        match (self.on_read)(len as u64) {
            ControlFlow::Continue(()) => Ok(bytes),
            ControlFlow::Break(()) => Err(Flaw::Stopped),
        }
    }

    fn read_through(&mut self) -> Result<(), Flaw> {
        let mut start = 0;
        while start < self.len_bytes {
            let len = (self.len_bytes - start).min(CHUNK_LEN_BYTES as u64) as usize;
            self.read(start, len)?;
            start += len as u64;
        }
        Ok(())
    }
}

impl Database {
    /// Lists the files that make up the database now, by name.
    pub(crate) fn files(&self) -> Result<Vec<DatabaseFile>> {
        let tables = self.tables()?;
        let entries =
            fs::read_dir(&self.path).map_err(|error| Error::io("read", &self.path, error))?;
        let mut files: BTreeMap<String, DatabaseFile> = BTreeMap::new();
        for entry in entries {
            let entry = entry.map_err(|error| Error::io("read", &self.path, error))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // A table that is not in use is about to be removed, or was left by a crash.
            if let Some(kind) = kind(&name) {
                let path = entry.path();
                files.insert(name.clone(), DatabaseFile { name, path, family: None, kind });
            }
        }
        for (name, family) in tables {
            let path = self.path.join(&name);
            let file = DatabaseFile {
                name: name.clone(),
                path,
                family: Some(family),
                kind: FileKind::Table,
            };
            files.insert(name, file);
        }
        Ok(files.into_values().collect())
    }

    /// The tables in use and the family of each.
    fn tables(&self) -> Result<BTreeMap<String, String>> {
        let live = self.db.live_files().map_err(|error| self.error("list the files of", error))?;
        let named = live
            .into_iter()
            .map(|file| (file.name.trim_start_matches('/').to_owned(), file.column_family_name));
        Ok(named.collect())
    }

    /// Reads a file from the disk and hands what is wrong with it to `found`.
    ///
    /// # Errors
    /// If what is in use cannot be listed. A file that cannot be read is damaged.
    pub(crate) fn check(
        &self,
        file: &DatabaseFile,
        on_read: &mut OnRead<'_>,
        found: &mut dyn FnMut(Damage),
    ) -> Result<ControlFlow<()>> {
        let opened = File::open(&file.path).and_then(|opened| {
            let len_bytes = opened.metadata()?.len();
            Ok((opened, len_bytes))
        });
        let (opened, len_bytes) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                if self.is_in_use(file)? {
                    found(Damage::whole(format!("a file that cannot be opened ({error})")));
                }
                return Ok(ControlFlow::Continue(()));
            }
        };
        forget_cached(&opened);
        let mut source = Source { file: opened, len_bytes, on_read };
        let checked = match file.kind {
            FileKind::Table => table::check(&mut source, found),
            FileKind::Log => check_log(&mut source, found),
            FileKind::Current => self.check_current(&mut source, found),
            FileKind::Identity => self.check_identity(&mut source, found),
            FileKind::Notes => source.read_through(),
        };
        match checked {
            Ok(()) => {}
            Err(Flaw::Stopped) => return Ok(ControlFlow::Break(())),
            Err(Flaw::Damaged(damage)) => found(damage),
        }
        Ok(ControlFlow::Continue(()))
    }

    /// A log or a table may have been replaced while others were checked.
    fn is_in_use(&self, file: &DatabaseFile) -> Result<bool> {
        Ok(match file.kind {
            FileKind::Table => self.tables()?.contains_key(&file.name),
            FileKind::Log | FileKind::Notes => file.path.exists(),
            FileKind::Current | FileKind::Identity => true,
        })
    }

    /// `CURRENT` names the manifest; RocksDB replaces it whole.
    fn check_current(
        &self,
        source: &mut Source<'_>,
        found: &mut dyn FnMut(Damage),
    ) -> Result<(), Flaw> {
        let content = source.read(0, source.len_bytes.min(CHUNK_LEN_BYTES as u64) as usize)?;
        if !manifest_name(&content).is_some_and(|name| self.path.join(name).is_file()) {
            found(Damage::whole("the name of the manifest"));
        }
        Ok(())
    }

    fn check_identity(
        &self,
        source: &mut Source<'_>,
        found: &mut dyn FnMut(Damage),
    ) -> Result<(), Flaw> {
        let content = source.read(0, source.len_bytes.min(CHUNK_LEN_BYTES as u64) as usize)?;
        let identity = self
            .db
            .get_db_identity()
            .map_err(|error| Flaw::Damaged(Damage::whole(format!("the identity ({error})"))))?;
        if content.trim_ascii_end() != identity {
            found(Damage::whole("the identity"));
        }
        Ok(())
    }
}

/// Refuses a database whose manifest is damaged, before it is opened.
///
/// RocksDB takes a last record with a damaged length for one whose writing was cut short, and
/// goes on without the tables that it names. That a log is replayed hides it: its last change is
/// there.
pub(super) fn check_manifest(database: &Path) -> Result<()> {
    const CURRENT_LEN_BYTES_MAX: u64 = 64;
    let current = database.join("CURRENT");
    // A database that is not there yet has none.
    if !current.exists() {
        return Ok(());
    }
    let corrupt = |context: String| {
        Error::new(ErrorKind::Corrupt, context).with_remedy("restore the store from an export")
    };
    let content =
        read_bounded(&current, CURRENT_LEN_BYTES_MAX).map_err(|error| match error.kind() {
            ErrorKind::Invalid => corrupt(format!("{} is damaged", current.display())),
            _ => error,
        })?;
    let manifest = manifest_name(&content).map(|name| database.join(name));
    let Some(manifest) = manifest.filter(|manifest| manifest.is_file()) else {
        return Err(corrupt(format!("{} does not name the manifest", current.display())));
    };
    let file = File::open(&manifest).map_err(|error| Error::io("open", &manifest, error))?;
    let len_bytes = file.metadata().map_err(|error| Error::io("open", &manifest, error))?.len();
    let mut on_read = |_| ControlFlow::Continue(());
    let mut source = Source { file, len_bytes, on_read: &mut on_read };
    let mut damages = Vec::new();
    // A manifest that is torn was being written when the process ended: that loses nothing.
    if let Err(Flaw::Damaged(damage)) = log::check(&mut source, &mut |damage| damages.push(damage))
    {
        damages.push(damage);
    }
    match damages.first() {
        None => Ok(()),
        Some(Damage { what, offset_bytes, .. }) => {
            let offset = offset_bytes.unwrap_or(0);
            let manifest = manifest.display();
            Err(corrupt(format!("{manifest} is damaged at byte {offset}: {what}")))
        }
    }
}

/// Refuses a database with a log that RocksDB would never end to read, before it is opened.
///
/// Other damage it finds itself: it goes without what follows.
pub(super) fn check_logs(database: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(database) else { return Ok(()) };
    for entry in entries {
        let path = entry.map_err(|error| Error::io("read", database, error))?.path();
        if path.extension().is_none_or(|extension| extension != "log") {
            continue;
        }
        let file = File::open(&path).map_err(|error| Error::io("open", &path, error))?;
        let len_bytes = file.metadata().map_err(|error| Error::io("open", &path, error))?.len();
        let mut on_read = |_| ControlFlow::Continue(());
        let mut source = Source { file, len_bytes, on_read: &mut on_read };
        let mut first = None;
        // What cannot be read or followed is RocksDB's to tell.
        let _ = log::check(&mut source, &mut |damage| {
            first.get_or_insert(damage);
        });
        if let Some(Damage { what, offset_bytes: Some(offset @ 1..), .. }) = first
            && what == log::OVERWRITING
        {
            let context = format!("{} is damaged at byte {offset}: {what}", path.display());
            return Err(Error::new(ErrorKind::Corrupt, context)
                .with_remedy("restore the store from an export"));
        }
    }
    Ok(())
}

fn manifest_name(current: &[u8]) -> Option<&str> {
    let name = std::str::from_utf8(current.strip_suffix(b"\n")?).ok()?;
    name.starts_with("MANIFEST-").then_some(name)
}

/// What a file of a database is; `None` for tables, which the database itself must name.
fn kind(name: &str) -> Option<FileKind> {
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
    match (name, extension) {
        ("CURRENT", _) => Some(FileKind::Current),
        ("IDENTITY", _) => Some(FileKind::Identity),
        (_, Some("sst")) => None,
        (_, Some("log")) => Some(FileKind::Log),
        _ if name.starts_with("MANIFEST-") => Some(FileKind::Log),
        _ => Some(FileKind::Notes),
    }
}

/// A log that is being written may end in the middle of a record, as long as it grows.
fn check_log(source: &mut Source<'_>, found: &mut dyn FnMut(Damage)) -> Result<(), Flaw> {
    let mut torn = log::check(source, found)?;
    while let Some(offset) = torn {
        std::thread::sleep(WRITE_TIME_MAX);
        let len_bytes = source.file.metadata().map_or(0, |file| file.len());
        if len_bytes <= source.len_bytes {
            found(Damage::at(offset, "a log that ends in the middle of a record"));
            break;
        }
        source.len_bytes = len_bytes;
        // What else is wrong has been told.
        torn = log::check(source, &mut |_| {})?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
