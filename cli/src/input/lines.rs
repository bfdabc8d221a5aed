//! Lines of bounded length from a file or standard input.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::is_stdin;
use super::stream::Stream;
use crate::error::{Error, Result};

/// A reader of lines that names what it reads.
pub(super) struct Lines {
    input: BufReader<Stream>,
    path: PathBuf,
    limit_bytes: usize,
    number: u64,
}

/// One line without its end.
pub(super) struct Line {
    pub(super) bytes: Vec<u8>,
    /// Counted from 1.
    pub(super) number: u64,
    /// Whether nothing after it is at hand yet.
    pub(super) is_last_at_hand: bool,
}

impl Lines {
    /// Opens a file or standard input.
    pub(super) fn open(path: &Path, limit_bytes: usize) -> Result<Self> {
        let input = BufReader::new(Stream::open(path)?);
        Ok(Self { input, path: path.to_owned(), limit_bytes, number: 0 })
    }

    /// The name for messages and keys.
    pub(super) fn name(&self) -> &Path {
        if is_stdin(&self.path) { Path::new("stdin") } else { &self.path }
    }

    /// Counts the lines of a regular file; `None` for what can be read only once.
    pub(super) fn count(path: &Path) -> Option<u64> {
        let file = Stream::open(path).ok().filter(|stream| !stream.may_wait())?;
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let (mut breaks, mut last) = (0, b'\n');
        loop {
            let chunk = reader.fill_buf().ok()?;
            let Some(&end) = chunk.last() else { break };
            breaks += chunk.iter().filter(|&&byte| byte == b'\n').count() as u64;
            last = end;
            let len = chunk.len();
            reader.consume(len);
        }
        Some(breaks + u64::from(last != b'\n'))
    }

    fn read(&mut self) -> Result<Option<Line>> {
        let mut bytes = Vec::new();
        // One more than the limit and the line's end, to tell "as long as allowed" from "longer".
        let limit = self.limit_bytes as u64 + 2;
        let input = self.input.by_ref().take(limit).read_until(b'\n', &mut bytes);
        let read = input.map_err(|error| Error::io("read", self.name(), error))?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        if bytes.len() > self.limit_bytes {
            let (number, limit) = (self.number, self.limit_bytes);
            let problem = format!("line {number} is longer than {limit} bytes");
            return Err(Error::input(self.name(), &problem));
        }
        let is_last_at_hand = self.input.get_ref().may_wait() && self.input.buffer().is_empty();
        Ok(Some(Line { bytes, number: self.number, is_last_at_hand }))
    }
}

impl Iterator for Lines {
    type Item = Result<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}
