//! What was asked for: a recorded trace, or a key on each line.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use op_dbus_engine::{ErrorKind, read_trace};
use op_dbus_formats::header::checksum;
use op_dbus_formats::trace::MAGIC;

use super::lines::Lines;
use crate::error::{Error, Result};

/// A key on a line may be this long.
const LINE_BYTES_MAX: usize = 64 << 10;
/// Requests are held in memory, eight bytes each: a gibibyte of them.
const REQUESTS_MAX: usize = 1 << 27;

/// Requests in their order.
#[derive(Default)]
pub(crate) struct Requests {
    /// Hashes of the keys that were asked for.
    pub(crate) keys: Vec<u64>,
    /// Mean length of the vectors asked for, if the trace tells and is not empty.
    pub(crate) vector_bytes_mean: Option<f64>,
    /// Bytes at the end of a recorded trace that do not count.
    pub(crate) unfinished_bytes: u64,
}

/// Reads the requests in a file.
pub(crate) fn open(path: &Path) -> Result<Requests> {
    let failed = |error| Error::io("read", path, error);
    let file = File::open(path).map_err(|error| Error::io("open", path, error))?;
    if !file.metadata().map_err(failed)?.is_file() {
        // It is looked at twice.
        return Err(refused(path, "is no regular file", "write it to a file and name that"));
    }
    let mut start = Vec::new();
    file.take(MAGIC.0.len() as u64).read_to_end(&mut start).map_err(failed)?;
    let requests = if start == MAGIC.0 { recorded(path)? } else { lines(path)? };
    if requests.keys.len() > REQUESTS_MAX {
        let problem = format!("has more than {REQUESTS_MAX} requests");
        return Err(refused(path, &problem, "divide it, for example with split"));
    }
    Ok(requests)
}

fn recorded(path: &Path) -> Result<Requests> {
    let mut requests = Requests::default();
    let mut vectors_bytes = 0;
    let report = read_trace(path, |access| {
        vectors_bytes += u64::from(access.vector_len_bytes);
        if requests.keys.len() <= REQUESTS_MAX {
            requests.keys.push(access.key_hash);
        }
    })?;
    requests.vector_bytes_mean =
        (report.accesses > 0).then(|| vectors_bytes as f64 / report.accesses as f64);
    requests.unfinished_bytes = report.unfinished_bytes;
    Ok(requests)
}

fn lines(path: &Path) -> Result<Requests> {
    let mut requests = Requests::default();
    // One more than allowed, to tell "as many as allowed" from "more".
    for line in Lines::open(path, LINE_BYTES_MAX)? {
        let key = line.map_err(nothing_is_stored)?.bytes;
        if !key.is_empty() && requests.keys.len() <= REQUESTS_MAX {
            requests.keys.push(checksum(&key));
        }
    }
    Ok(requests)
}

/// What is wrong with a line, without the word that those before it are stored.
fn nothing_is_stored(error: Error) -> Error {
    if !error.is_invalid_input() {
        return error;
    }
    op_dbus_engine::Error::new(ErrorKind::Invalid, error.message())
        .with_remedy("correct it and run the same command again")
        .into()
}

fn refused(path: &Path, problem: &str, remedy: &'static str) -> Error {
    let problem = format!("{} {problem}", path.display());
    op_dbus_engine::Error::new(ErrorKind::Invalid, problem).with_remedy(remedy).into()
}
