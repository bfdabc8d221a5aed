//! Bytes of a Parquet file, of which no page is handed on that claims too much.

use std::io::{self, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, Length};

use super::thrift;

/// Longest page. DuckDB's have up to 100 MB, those of others about one.
pub const PAGE_LEN_MAX_BYTES: u64 = 256 << 20;

/// Most values of the pages that are opened for one batch of rows, nulls among them: each takes
/// some bytes in memory, and may take none in the file.
pub const PAGE_VALUES_MAX: u64 = 32 << 20;

/// The header of a page is far shorter.
const PAGE_HEADER_LEN_MAX_BYTES: u64 = 64 << 10;

/// Where a file's bytes come from, with every page header looked at before it is used.
pub(super) struct Guarded<R> {
    input: R,
    /// Values of the pages that were opened for the batch at hand.
    values: Arc<AtomicU64>,
}

/// The bytes from some place on. It is looked at when it is first read: some are asked for and not.
pub(super) struct PageStart<T> {
    rest: T,
    head: Option<Cursor<Vec<u8>>>,
    values: Arc<AtomicU64>,
}

impl<R: ChunkReader> Guarded<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, values: Arc::default() }
    }

    /// Forgets the pages so far, of which no values are kept.
    pub(super) fn begin_batch(&self) {
        self.values.store(0, Ordering::Relaxed);
    }
}

impl<R: ChunkReader> Length for Guarded<R> {
    fn len(&self) -> u64 {
        self.input.len()
    }
}

impl<R: ChunkReader> ChunkReader for Guarded<R> {
    type T = PageStart<R::T>;

    /// Begins to read a page, which is all that the parquet crate reads in this way.
    fn get_read(&self, start: u64) -> Result<Self::T> {
        let rest = self.input.get_read(start)?;
        Ok(PageStart { rest, head: None, values: Arc::clone(&self.values) })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        // Memory is taken for no more than there is.
        let end = start.checked_add(length as u64);
        if length as u64 > PAGE_LEN_MAX_BYTES || end.is_none_or(|end| end > self.len()) {
            let problem = format!("there are no {length} bytes at offset {start}");
            return Err(ParquetError::General(problem));
        }
        self.input.get_bytes(start, length)
    }
}

impl<T: Read> Read for PageStart<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.head.is_none() {
            let mut head = Vec::new();
            self.rest.by_ref().take(PAGE_HEADER_LEN_MAX_BYTES).read_to_end(&mut head)?;
            check(&head, &self.values).map_err(io::Error::other)?;
            self.head = Some(Cursor::new(head));
        }
        match &mut self.head {
            Some(head) if head.position() < head.get_ref().len() as u64 => head.read(bytes),
            _ => self.rest.read(bytes),
        }
    }
}

fn check(head: &[u8], values: &AtomicU64) -> std::result::Result<(), String> {
    let claim = match thrift::page_claim(head) {
        Ok(claim) => claim,
        Err(problem) => return Err(format!("a page's header is wrong: {problem}")),
    };
    let largest = claim.content_bytes.max(claim.stored_bytes);
    if largest > PAGE_LEN_MAX_BYTES {
        return Err(format!("a page of {largest} bytes is over the limit of {PAGE_LEN_MAX_BYTES}"));
    }
    if claim.is_dictionary && claim.values > claim.content_bytes {
        let (values, bytes) = (claim.values, claim.content_bytes);
        return Err(format!("a dictionary of {bytes} bytes cannot have {values} values"));
    }
    let values = claim.values + values.fetch_add(claim.values, Ordering::Relaxed);
    if values > PAGE_VALUES_MAX {
        return Err(format!(
            "{values} values for a few rows are over the limit of {PAGE_VALUES_MAX}"
        ));
    }
    Ok(())
}
