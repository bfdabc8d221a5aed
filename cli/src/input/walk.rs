//! The files below a directory that have a format of ours, in the order of their names.

use std::fs;
use std::path::{Path, PathBuf};

use crate::args::SourceFormat;
use crate::error::{Error, Result};

/// Directories may lie this deep; a loop made by mounts ends here.
const DEPTH_MAX: usize = 64;

pub(super) fn files(directory: &Path) -> Result<Vec<(PathBuf, SourceFormat)>> {
    let mut files = Vec::new();
    walk(directory, 0, &mut files)?;
    files.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(files)
}

/// Links to files are followed, links to directories are not, so there are no loops.
fn walk(directory: &Path, depth: usize, files: &mut Vec<(PathBuf, SourceFormat)>) -> Result<()> {
    let failed = |error| Error::io("read directory", directory, error);
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        if entry.file_type().map_err(failed)?.is_dir() {
            if depth < DEPTH_MAX {
                walk(&path, depth + 1, files)?;
            }
        } else if let Some(format) = format_by_name(&path)
            && path.is_file()
        {
            files.push((path, format));
        }
    }
    Ok(())
}

pub(super) fn format_by_name(path: &Path) -> Option<SourceFormat> {
    match path.extension()?.to_str()? {
        "xml" => Some(SourceFormat::Xml),
        "jsonl" | "ndjson" => Some(SourceFormat::Jsonl),
        "txt" => Some(SourceFormat::Text),
        _ => None,
    }
}
