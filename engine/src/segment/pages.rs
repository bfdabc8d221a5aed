//! Writing files in pages with checksums, whatever is in them.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use op_dbus_formats::header::Magic;
use op_dbus_formats::page::{page_checksum, table_checksum};

use crate::error::{Error, Result};

/// Bytes that are written at once.
const BUFFER_LEN_BYTES: usize = 1 << 20;

/// Writes whole pages, from the second of the file on, and keeps their checksums.
pub(super) struct PageWriter<'a> {
    file: &'a File,
    path: &'a Path,
    magic: Magic,
    owner: [u8; 16],
    page_len_bytes: usize,
    buffer: Vec<u8>,
    /// Where the buffer's first byte belongs.
    offset_bytes: u64,
    /// As they will stand in the file.
    checksums: Vec<u8>,
}

impl<'a> PageWriter<'a> {
    /// Of a file of this format and this owner.
    pub(super) fn new(
        file: &'a File,
        path: &'a Path,
        (magic, owner): (Magic, [u8; 16]),
        page_len_bytes: u64,
    ) -> Self {
        Self {
            file,
            path,
            magic,
            owner,
            page_len_bytes: page_len_bytes as usize,
            buffer: Vec::with_capacity(BUFFER_LEN_BYTES),
            offset_bytes: page_len_bytes,
            checksums: Vec::new(),
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_LEN_BYTES { self.write_pages() } else { Ok(()) }
    }

    /// Fills the last page with zeros, so that the next section begins at a page.
    pub(super) fn end_section(&mut self) -> Result<()> {
        self.buffer.resize(self.buffer.len().next_multiple_of(self.page_len_bytes), 0);
        self.write_pages()
    }

    /// Writes the pages that are full.
    fn write_pages(&mut self) -> Result<()> {
        let len = self.buffer.len() / self.page_len_bytes * self.page_len_bytes;
        let first_page = self.offset_bytes / self.page_len_bytes as u64;
        for (page_index, page) in (first_page..).zip(self.buffer[..len].chunks(self.page_len_bytes))
        {
            let checksum = page_checksum(self.magic, &self.owner, page_index, page);
            self.checksums.extend_from_slice(&checksum.to_le_bytes());
        }
        self.file
            .write_all_at(&self.buffer[..len], self.offset_bytes)
            .map_err(|error| Error::io("write", self.path, error))?;
        self.offset_bytes += len as u64;
        self.buffer.drain(..len);
        Ok(())
    }

    /// The checksum of the checksums of all pages that are written.
    pub(super) fn table_checksum(&self) -> u64 {
        table_checksum(self.magic, &self.owner, &self.checksums)
    }

    /// Writes the checksums after the last page; returns where they end.
    pub(super) fn write_table(self) -> Result<u64> {
        self.file
            .write_all_at(&self.checksums, self.offset_bytes)
            .map_err(|error| Error::io("write", self.path, error))?;
        Ok(self.offset_bytes + self.checksums.len() as u64)
    }
}
