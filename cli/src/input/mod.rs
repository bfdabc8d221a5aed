//! Where records come from: files, directories and standard input, by format.
//!
//! Lines and files have strict limits, so that no input takes memory in proportion to itself.

mod exchange;
mod interfaces;
mod lines;
mod parquet;
mod sqlite;
mod stream;
mod text;
mod trace;
mod walk;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use op_dbus_daemon::Phrases;
use op_dbus_engine::Record;

use crate::args::{ExchangeFormat, SourceFormat};
use crate::error::{Error, Result};

pub(crate) use exchange::{format_by_name, read_npy, refuse_unused, to_import};
pub(crate) use sqlite::LegacyCache;
use stream::Stream;
pub(crate) use trace::{Requests, open as trace};

/// The collection that everything else goes to unless told.
const DOCUMENTS_COLLECTION: &str = "documents";
/// The collection that the cache of an earlier program goes to unless told.
pub(crate) const LEGACY_COLLECTION: &str = "legacy";

/// Reasons that an error repeats; a directory may have thousands.
const REASONS_COUNT_MAX: usize = 10;

/// One record read.
pub(crate) struct Read {
    pub(crate) record: Record,
    /// Whether the input has nothing more at hand: a writer may wait for an acknowledgement.
    pub(crate) ends_batch: bool,
}

impl Read {
    /// Lets the record expire, unless it says itself when it does.
    pub(crate) fn expiring(mut self, expires_at_unix_ms: Option<u64>) -> Self {
        self.record.expires_at_unix_ms = self.record.expires_at_unix_ms.or(expires_at_unix_ms);
        self
    }
}

/// The texts of a file, one in each line.
pub(crate) fn texts(path: &Path) -> Result<Vec<String>> {
    let records = text::open(path)?.records;
    records.map(|read| Ok(read?.record.text.unwrap_or_default())).collect()
}

/// Records that go to one collection.
pub(crate) struct Source {
    pub(crate) records: Box<dyn Iterator<Item = Result<Read>>>,
    /// How many records there are, if that can be known before reading them.
    pub(crate) count: Option<u64>,
    pub(crate) default_collection: &'static str,
    /// Of interfaces: the phrases that lead to their members, of which there may have been more.
    pub(crate) phrases: Phrases,
}

/// A source that can be opened when its turn comes: a directory may have more files than a process
/// may have open.
pub(crate) struct Found {
    path: PathBuf,
    format: SourceFormat,
    pub(crate) count: Option<u64>,
}

/// What the user named to index.
#[derive(Default)]
pub(crate) struct Sources {
    pub(crate) found: Vec<Found>,
    /// Files of directories that cannot be read as what their names say, and why.
    pub(crate) left_out: Vec<String>,
}

impl Found {
    /// Opens the source.
    pub(crate) fn open(&self) -> Result<Source> {
        match self.format {
            SourceFormat::Xml => interfaces::open(&self.path),
            SourceFormat::Jsonl => exchange::open(&self.path, ExchangeFormat::Jsonl),
            SourceFormat::Text => text::open(&self.path),
        }
    }
}

impl Source {
    /// Lets records expire that do not say themselves when they do.
    pub(crate) fn expiring(self, expires_at_unix_ms: Option<u64>) -> Self {
        let records =
            self.records.map(move |read| read.map(|read| read.expiring(expires_at_unix_ms)));
        Self { records: Box::new(records), ..self }
    }
}

/// Finds what the user named to index; directories stand for the files in them.
///
/// Each file is opened once, so that a mistake in the last is found before the first is stored.
pub(crate) fn sources(paths: &[PathBuf], format: Option<SourceFormat>) -> Result<Sources> {
    let mut sources = Sources::default();
    for path in paths {
        if !is_stdin(path) && path.is_dir() {
            directory(path, format, &mut sources)?;
        } else {
            let format = format.unwrap_or_else(|| format_of(path));
            let count = if is_stdin(path) { None } else { count(path, format)? };
            sources.found.push(Found { path: path.clone(), format, count });
        }
    }
    Ok(sources)
}

/// Opens a file to see that it can be read; what may wait for a writer is not opened twice.
fn count(path: &Path, format: SourceFormat) -> Result<Option<u64>> {
    if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        return Ok(None);
    }
    Ok(Found { path: path.to_owned(), format, count: None }.open()?.count)
}

/// Whether the user means standard input.
pub(crate) fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// Reads a whole file or standard input, of at most `len_max_bytes`.
pub(crate) fn read_bounded(path: &Path, len_max_bytes: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = Stream::open(path)?.take(len_max_bytes + 1).read_to_end(&mut bytes);
    read.map_err(|error| Error::io("read", path, error))?;
    if bytes.len() as u64 > len_max_bytes {
        return Err(Error::input(path, &format!("it is longer than {len_max_bytes} bytes")));
    }
    Ok(bytes)
}

/// Finds every file below a directory that has a format of ours by its name.
///
/// A bad XML file does not keep the others out: collections of interface files in the wild have
/// some. It is named, and left out.
fn directory(path: &Path, format: Option<SourceFormat>, sources: &mut Sources) -> Result<()> {
    let before = sources.found.len();
    for (path, by_name) in walk::files(path)? {
        if format.is_some_and(|wanted| wanted != by_name) {
            continue;
        }
        match count(&path, by_name) {
            Err(error) if by_name == SourceFormat::Xml && error.is_invalid_input() => {
                sources.left_out.push(error.message());
            }
            count => sources.found.push(Found { path, format: by_name, count: count? }),
        }
    }
    if sources.found.len() == before {
        let none = "no .xml, .jsonl, .ndjson or .txt file that can be read is in it";
        let reasons = std::iter::once(none).chain(sources.left_out.iter().map(String::as_str));
        let reasons = reasons.take(REASONS_COUNT_MAX).collect::<Vec<_>>().join("; ");
        return Err(Error::input(path, &reasons));
    }
    Ok(())
}

fn format_of(path: &Path) -> SourceFormat {
    walk::format_by_name(path).unwrap_or(SourceFormat::Text)
}
