//! Files in pages with checksums, whatever is in them: writing them, and reading them in a map.
//!
//! No byte of a page is believed before the page's checksum was compared: in the map once for each
//! page and open file, because what the kernel has mapped it does not read again while there is
//! memory; by [`CheckedMap::read`] each time. What is wrong makes the whole file useless: it is
//! marked on disk, and whoever opens it next leaves it out.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use op_dbus_formats::header::Magic;
use op_dbus_formats::page::{CHECKSUM_LEN_BYTES, page_checksum, table_checksum};

use crate::error::{Error, ErrorKind, Result};
use crate::layout::damaged_mark;
use crate::os::map::{Map, MapUse};

/// What tells a file from others, and where its checksums lie.
#[derive(Clone, Debug)]
pub(crate) struct PagedFile {
    pub(crate) magic: Magic,
    pub(crate) owner: [u8; 16],
    pub(crate) page_len_bytes: u64,
    /// The checksums of all pages but the first, which follow the last page.
    pub(crate) table: Range<u64>,
    pub(crate) table_checksum: u64,
    /// What to do about damage.
    pub(crate) remedy: &'static str,
}

/// A mapped file whose pages are compared with their checksums before they are read.
pub(crate) struct CheckedMap {
    path: PathBuf,
    file: File,
    map: Map,
    paged: PagedFile,
    /// Of each page but the first.
    checksums: Vec<u64>,
    /// A bit for each of them: whether the page in the map was found to be right.
    verified: Vec<AtomicU64>,
    damaged: AtomicBool,
}

impl CheckedMap {
    /// Maps the pages of a file that is as long as it should be.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if the checksums are damaged; what the kernel refuses.
    pub(crate) fn open(file: File, path: &Path, paged: PagedFile, access: MapUse) -> Result<Self> {
        let checksums = paged.read_table(&file, path)?;
        let map_len = usize::try_from(paged.table.start).map_err(|error| {
            Error::new(ErrorKind::Unsupported, format!("{} is too large to map", path.display()))
                .with_source(error)
        })?;
        let map = Map::open(&file, path, Some(&damaged_mark(path)), map_len, access)?;
        let verified = (0..checksums.len().div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let (path, damaged) = (path.to_owned(), AtomicBool::new(false));
        Ok(Self { path, file, map, paged, checksums, verified, damaged })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether something was found to be wrong.
    pub(crate) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    /// All mapped bytes, which nobody may believe whose pages were not [verified](Self::verify).
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        self.map.bytes()
    }

    /// Brings in these bytes before they are read one after the other.
    pub(crate) fn populate(&self, range: Range<usize>) {
        self.map.populate(range);
    }

    /// Compares the pages that these bytes are in with their checksums, each once.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if one is wrong.
    pub(crate) fn verify(&self, range: Range<u64>) -> Result<()> {
        let page_len = self.paged.page_len_bytes;
        for page_index in range.start / page_len..range.end.div_ceil(page_len) {
            let position = (page_index - 1) as usize;
            let (word, bit) = (&self.verified[position / 64], 1 << (position % 64));
            // Nothing else is published by this bit: the pages never change.
            if word.load(Ordering::Relaxed) & bit != 0 {
                continue;
            }
            let start = (page_index * page_len) as usize;
            let page = &self.map.bytes()[start..start + page_len as usize];
            self.check_page(page_index, page)?;
            word.fetch_or(bit, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Returns bytes of the map, of which every page was compared with its checksum.
    ///
    /// # Errors
    /// As [`CheckedMap::verify`].
    pub(crate) fn verified_bytes(&self, range: Range<u64>) -> Result<&[u8]> {
        self.verify(range.clone())?;
        Ok(&self.map.bytes()[range.start as usize..range.end as usize])
    }

    pub(crate) fn check_page(&self, page_index: u64, page: &[u8]) -> Result<()> {
        #[cfg(test)]
        if VERIFICATION_SKIPPED.get() {
            return Ok(());
        }
        let expected = self.checksums[(page_index - 1) as usize];
        if page_checksum(self.paged.magic, &self.paged.owner, page_index, page) == expected {
            return Ok(());
        }
        let offset_bytes = page_index * self.paged.page_len_bytes;
        Err(self.damage(offset_bytes, "a page has not its checksum", None))
    }

    /// Reads bytes with all of the pages they are in from the file, and compares those with their
    /// checksums.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if one is wrong or cannot be read.
    pub(crate) fn read<'b>(&self, range: Range<u64>, buffer: &'b mut Vec<u8>) -> Result<&'b [u8]> {
        let page_len = self.paged.page_len_bytes;
        let first_page = range.start / page_len;
        let start = first_page * page_len;
        buffer.resize((range.end.next_multiple_of(page_len) - start) as usize, 0);
        self.read_file(start, buffer)?;
        for (page_index, page) in (first_page..).zip(buffer.chunks(page_len as usize)) {
            self.check_page(page_index, page)?;
        }
        Ok(&buffer[(range.start - start) as usize..(range.end - start) as usize])
    }

    /// Fills a buffer from the file, and believes what is there.
    pub(crate) fn read_file(&self, start: u64, buffer: &mut [u8]) -> Result<()> {
        self.file
            .read_exact_at(buffer, start)
            .map_err(|error| self.damage(start, "it cannot be read", Some(error.into())))
    }

    /// Reads the list of checksums again.
    pub(crate) fn verify_table(&self) -> Result<()> {
        self.paged.read_table(&self.file, &self.path).map(drop).map_err(|error| {
            let start = self.paged.table.start;
            self.damage(start, "the list of checksums is wrong", Some(error.into()))
        })
    }

    /// Pages with checksums.
    pub(crate) fn pages_count(&self) -> u64 {
        self.checksums.len() as u64
    }

    /// Marks the file as damaged, here and on disk, and returns what to tell.
    pub(crate) fn damage(
        &self,
        offset_bytes: u64,
        what: &str,
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        self.damaged.store(true, Ordering::Relaxed);
        let mark = damaged_mark(&self.path);
        if let Err(error) = File::create(&mark) {
            // Whoever opens the file again finds the same.
            tracing::warn!(mark = %mark.display(), %error, "cannot mark a damaged file");
        }
        let error = self.paged.damaged(&self.path, format!("at byte {offset_bytes}: {what}"));
        match source {
            Some(source) => error.with_source(source),
            None => error,
        }
    }
}

impl PagedFile {
    fn read_table(&self, file: &File, path: &Path) -> Result<Vec<u64>> {
        // The file is as long as the header says, so this is no larger than what is there.
        let mut table = vec![0; (self.table.end - self.table.start) as usize];
        file.read_exact_at(&mut table, self.table.start)
            .map_err(|error| Error::io("read", path, error))?;
        if table_checksum(self.magic, &self.owner, &table) != self.table_checksum {
            return Err(self.damaged(path, "its checksums are wrong"));
        }
        let checksums = table.as_chunks::<CHECKSUM_LEN_BYTES>().0;
        Ok(checksums.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect())
    }

    pub(crate) fn damaged(&self, path: &Path, what: impl std::fmt::Display) -> Error {
        Error::new(ErrorKind::Corrupt, format!("{} is damaged: {what}", path.display()))
            .with_remedy(self.remedy)
    }
}

#[cfg(test)]
thread_local! {
    /// The planted bug: pages are believed unseen.
    pub(crate) static VERIFICATION_SKIPPED: std::cell::Cell<bool> =
        const { std::cell::Cell::new(false) };
}

/// Bytes that are written at once, at a multiple of so many: the kernel then keeps them in huge
/// pages where its file system can, and maps them as such.
const BUFFER_LEN_BYTES: usize = 2 << 20;

/// Writes whole pages, from the second of the file on, and keeps their checksums.
pub(crate) struct PageWriter<'a> {
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
    pub(crate) fn new(
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

    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let in_buffer = self.offset_bytes as usize % BUFFER_LEN_BYTES + self.buffer.len();
            let (now, later) = bytes.split_at(bytes.len().min(BUFFER_LEN_BYTES - in_buffer));
            self.buffer.extend_from_slice(now);
            if in_buffer + now.len() == BUFFER_LEN_BYTES {
                self.write_pages()?;
            }
            bytes = later;
        }
        Ok(())
    }

    /// Fills the last page with zeros, so that the next section begins at a page.
    pub(crate) fn end_section(&mut self) -> Result<()> {
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
    pub(crate) fn table_checksum(&self) -> u64 {
        table_checksum(self.magic, &self.owner, &self.checksums)
    }

    /// Writes the checksums after the last page; returns where they end.
    pub(crate) fn write_table(self) -> Result<u64> {
        self.file
            .write_all_at(&self.checksums, self.offset_bytes)
            .map_err(|error| Error::io("write", self.path, error))?;
        Ok(self.offset_bytes + self.checksums.len() as u64)
    }
}
