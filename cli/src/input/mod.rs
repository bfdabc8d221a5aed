//! Where records come from: files, directories and standard input, by format.
//!
//! Lines and files have strict limits, so that no input takes memory in proportion to itself.

mod exchange;
mod interfaces;
mod lines;
mod text;
mod walk;

use std::path::{Path, PathBuf};

use op_dbus_engine::Record;

use crate::args::{ExchangeFormat, SourceFormat};
use crate::error::{Error, Result};
use crate::output::Output;

pub(crate) use exchange::open as exchange;

/// The collection that introspection XML goes to unless told.
const INTERFACES_COLLECTION: &str = "dbus";
/// The collection that everything else goes to unless told.
const DOCUMENTS_COLLECTION: &str = "documents";

/// One record read.
pub(crate) struct Read {
    pub(crate) record: Record,
    /// Whether the input has nothing more at hand: a writer may wait for an acknowledgement.
    pub(crate) ends_batch: bool,
}

/// Records that go to one collection.
pub(crate) struct Source {
    pub(crate) records: Box<dyn Iterator<Item = Result<Read>>>,
    /// How many records there are, if that can be known before reading them.
    pub(crate) count: Option<u64>,
    pub(crate) default_collection: &'static str,
}

/// Opens what the user named to index; directories stand for the files in them.
pub(crate) fn sources(
    paths: &[PathBuf],
    format: Option<SourceFormat>,
    output: &Output,
) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for path in paths {
        if !is_stdin(path) && path.is_dir() {
            sources.extend(directory(path, format, output)?);
        } else {
            sources.push(file(path, format.unwrap_or_else(|| format_of(path)))?);
        }
    }
    Ok(sources)
}

/// Whether the user means standard input.
pub(crate) fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

fn file(path: &Path, format: SourceFormat) -> Result<Source> {
    match format {
        SourceFormat::Xml => interfaces::open(path),
        SourceFormat::Jsonl => {
            let source = exchange::open(path, Some(ExchangeFormat::Jsonl))?;
            Ok(Source { default_collection: DOCUMENTS_COLLECTION, ..source })
        }
        SourceFormat::Text => text::open(path),
    }
}

/// Opens every file below a directory that has a format of ours by its name.
///
/// A bad XML file does not keep the others out: collections of interface files in the wild have
/// some. It is named, and left out.
fn directory(path: &Path, format: Option<SourceFormat>, output: &Output) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for (path, found) in walk::files(path)? {
        if format.is_some_and(|wanted| wanted != found) {
            continue;
        }
        match file(&path, found) {
            Err(error) if found == SourceFormat::Xml => {
                output.note(&format!("left out: {}", error.message()));
            }
            source => sources.push(source?),
        }
    }
    if sources.is_empty() {
        let wanted = "no .xml, .jsonl, .ndjson or .txt file that can be read is in it";
        return Err(Error::input(path, &wanted));
    }
    Ok(sources)
}

fn format_of(path: &Path) -> SourceFormat {
    walk::format_by_name(path).unwrap_or(SourceFormat::Text)
}
