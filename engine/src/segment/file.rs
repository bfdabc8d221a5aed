//! Reading an arena file: a search in its mapped index, a vector where it lies.
//!
//! No byte of a page is believed before the page's checksum was compared, see `pages`. A damaged
//! file answers nothing any more.

use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::Path;

use op_dbus_formats::arena_file::{
    ArenaFileHeader, ENTRY_LEN_BYTES, Entry, MAGIC, Sections, elements_in_place,
};
use op_dbus_formats::header::checksum;
use op_dbus_formats::manifest::ManifestFile;
use op_dbus_formats::page::PAGE_LEN_MAX_BYTES;

use crate::error::{Error, ErrorKind, Result};
use crate::os::map::MapUse;
use crate::pages::{CheckedMap, PagedFile};

const _: () = assert!(cfg!(target_endian = "little"), "vectors are read where they lie");

const REMEDY: &str = "nothing need be done: its vectors are read from elsewhere";

/// Bytes of vectors that [`ArenaFile::read_rows`] reads at once.
const READ_LEN_BYTES: u64 = 1 << 20;

/// Guesses before the search halves what is left: more than keys that are hashes ever need.
const GUESSES_MAX: u32 = 8;

/// An open arena file.
pub(crate) struct ArenaFile {
    pages: CheckedMap,
    header: ArenaFileHeader,
    sections: Sections,
    description: ManifestFile,
}

/// A vector in a mapped file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct MappedVector<'a> {
    pub(crate) vector: &'a [f32],
    /// 0 for never.
    pub(crate) expires_at_unix_ms: u64,
}

impl ArenaFile {
    /// Opens the file that a manifest describes.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if it is another, or its header or checksums are damaged.
    pub(super) fn open(
        directory: &Path,
        store_id: &[u8; 16],
        description: ManifestFile,
    ) -> Result<Self> {
        let path = directory.join(&description.name);
        let file = File::open(&path).map_err(|error| Error::io("open", &path, error))?;
        let len = file.metadata().map_err(|error| Error::io("open", &path, error))?.len();
        if len != description.len_bytes {
            let expected = description.len_bytes;
            return Err(damaged(&path, format!("it has {len} bytes and had {expected}")));
        }
        let mut start = vec![0; len.min(PAGE_LEN_MAX_BYTES) as usize];
        file.read_exact_at(&mut start, 0).map_err(|error| Error::io("read", &path, error))?;
        let (header, sections) = decode_header(&path, &start, store_id, &description)?;
        let paged = PagedFile {
            magic: MAGIC,
            owner: header.store_id,
            page_len_bytes: header.page_len_bytes,
            table: sections.checksums.clone(),
            table_checksum: header.table_checksum,
            remedy: REMEDY,
        };
        // Places are hashes.
        let pages = CheckedMap::open(file, &path, paged, MapUse::HereAndThere)?;
        Ok(Self { pages, header, sections, description })
    }

    /// Elements of every vector.
    pub(crate) fn dimensions(&self) -> u32 {
        self.header.dimensions
    }

    pub(crate) fn rows_count(&self) -> u32 {
        self.header.rows_count
    }

    /// Sequence of the last committed change that is in the file.
    pub(crate) fn sequence(&self) -> u64 {
        self.header.sequence
    }

    /// Which life of the embedding cache the vectors are from.
    pub(crate) fn cache_generation(&self) -> u64 {
        self.header.cache_generation
    }

    pub(crate) fn path(&self) -> &Path {
        self.pages.path()
    }

    /// What a manifest says of this file.
    pub(super) fn description(&self) -> &ManifestFile {
        &self.description
    }

    /// Whether a page was found to be wrong. Such a file answers nothing.
    pub(crate) fn is_damaged(&self) -> bool {
        self.pages.is_damaged()
    }

    /// Finds the vector of a key.
    ///
    /// Cost: about log log rows pages of the index and one or two of vectors; for each, the first
    /// time, its checksum and perhaps a read from the disk. No lock, no allocation.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] the first time that a page is wrong; after that the file has nothing.
    /// Log it and look elsewhere: what is here lies in a database too.
    pub(crate) fn find(&self, key: u128) -> Result<Option<MappedVector<'_>>> {
        if self.pages.is_damaged() {
            return Ok(None);
        }
        let Some(entry) = self.search(key)? else { return Ok(None) };
        if entry.row >= self.rows_count() {
            return Err(self.pages.damage(
                self.sections.index.start,
                "an entry names no row",
                None,
            ));
        }
        let place = self.sections.vector(entry.row);
        let bytes = self.pages.verified_bytes(place.clone())?;
        let elements = &bytes[..self.dimensions() as usize * size_of::<f32>()];
        match elements_in_place(elements) {
            Some(vector) => {
                let expires_at_unix_ms = entry.expires_at_unix_ms;
                Ok(Some(MappedVector { vector, expires_at_unix_ms }))
            }
            None => Err(self.pages.damage(place.start, "a vector is not aligned", None)),
        }
    }

    /// Keys are hashes, spread evenly: where one lies follows from what it is. Keys that are not
    /// cost a search by halves.
    fn search(&self, key: u128) -> Result<Option<Entry>> {
        let high = |key: u128| (key >> 64) as u64;
        let mut range = 0..self.rows_count();
        // All keys in the range lie between these two.
        let (mut low, mut top) = (0, u128::MAX);
        for step in 0.. {
            if range.is_empty() {
                break;
            }
            let middle = if step < GUESSES_MAX {
                let part = u128::from(high(key) - high(low));
                let whole = u128::from(high(top) - high(low)) + 1;
                range.start + (part * range.len() as u128 / whole) as u32
            } else {
                range.start + range.len() as u32 / 2
            };
            let entry = self.index_entry(middle)?;
            match entry.key.cmp(&key) {
                std::cmp::Ordering::Equal => return Ok(Some(entry)),
                std::cmp::Ordering::Less => (range.start, low) = (middle + 1, entry.key),
                std::cmp::Ordering::Greater => (range.end, top) = (middle, entry.key),
            }
        }
        Ok(None)
    }

    fn index_entry(&self, position: u32) -> Result<Entry> {
        let start = self.sections.index.start + u64::from(position) * ENTRY_LEN_BYTES as u64;
        let bytes = self.pages.verified_bytes(start..start + ENTRY_LEN_BYTES as u64)?;
        self.decode_entry(start, bytes)
    }

    fn decode_entry(&self, offset_bytes: u64, bytes: &[u8]) -> Result<Entry> {
        let bytes = bytes.first_chunk().expect("an entry was read whole");
        Entry::decode(bytes).map_err(|error| {
            self.pages.damage(offset_bytes, "an entry is wrong", Some(error.into()))
        })
    }

    /// Reads rows from this one on, hottest first, through a buffer instead of the map: key, expiry
    /// (0 for never) and vector of each.
    ///
    /// Rows beyond the last are not there; that is no error. Nor are those of a damaged file.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if a page is wrong or cannot be read. Rows before it were handed on.
    pub(crate) fn read_rows(
        &self,
        from_row: u32,
        count: u32,
        mut each: impl FnMut(u128, u64, &[f32]),
    ) -> Result<()> {
        let end = from_row.saturating_add(count).min(self.rows_count());
        let stride = self.sections.stride_bytes;
        let batch_rows = (READ_LEN_BYTES / stride).max(1) as usize;
        let (mut entries, mut vectors) = (Vec::new(), Vec::new());
        let mut vector = Vec::with_capacity(self.dimensions() as usize);
        for first in (from_row..end).step_by(batch_rows) {
            if self.pages.is_damaged() {
                break;
            }
            let last = end.min(first.saturating_add(batch_rows as u32)) - 1;
            let entry_start =
                |row: u32| self.sections.rows.start + u64::from(row) * ENTRY_LEN_BYTES as u64;
            let entries =
                self.pages.read(entry_start(first)..entry_start(last + 1), &mut entries)?;
            let place = self.sections.vector(first).start..self.sections.vector(last).end;
            let vectors = self.pages.read(place, &mut vectors)?;
            let rows = entries.chunks(ENTRY_LEN_BYTES).zip(vectors.chunks(stride as usize));
            for (row, (entry, bytes)) in (first..).zip(rows) {
                let entry = self.decode_entry(entry_start(row), entry)?;
                if entry.row != row {
                    return Err(self.pages.damage(
                        entry_start(row),
                        "an entry is of another row",
                        None,
                    ));
                }
                let elements = bytes.as_chunks().0.iter().take(self.dimensions() as usize);
                vector.clear();
                vector.extend(elements.map(|element| f32::from_le_bytes(*element)));
                each(entry.key, entry.expires_at_unix_ms, &vector);
            }
        }
        Ok(())
    }

    /// Reads the whole file again, and compares everything in it with its checksums; `read` hears of
    /// the bytes and may end it.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if a byte is wrong: the file is then not used any more.
    pub(crate) fn verify(
        &self,
        mut read: impl FnMut(u64) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let page_len = self.header.page_len_bytes;
        let mut page = vec![0; page_len as usize];
        for page_index in 0..=self.pages.pages_count() {
            let start = page_index * page_len;
            self.pages.read_file(start, &mut page)?;
            if page_index > 0 {
                self.pages.check_page(page_index, &page)?;
            } else if checksum(&page) != self.description.header_checksum {
                return Err(self.pages.damage(start, "the header has not its checksum", None));
            }
            if read(page_len).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        self.pages.verify_table()?;
        Ok(ControlFlow::Continue(()))
    }
}

fn decode_header(
    path: &Path,
    start: &[u8],
    store_id: &[u8; 16],
    description: &ManifestFile,
) -> Result<(ArenaFileHeader, Sections)> {
    let wrong = |error| damaged(path, "its header is wrong").with_source(error);
    let header = ArenaFileHeader::decode(start).map_err(wrong)?;
    let sections = header.sections().map_err(wrong)?;
    // The checksum covers the whole header page, so no field need be compared but for what the
    // manifest does not say.
    let page = &start[..header.page_len_bytes as usize];
    if checksum(page) != description.header_checksum || header.store_id != *store_id {
        return Err(damaged(path, "it is not the file that the manifest names"));
    }
    if sections.file_len_bytes() != description.len_bytes {
        return Err(damaged(path, "its length is not what its header says"));
    }
    Ok((header, sections))
}

fn damaged(path: &Path, what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, format!("{} is damaged: {what}", path.display()))
        .with_remedy(REMEDY)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::write::{ArenaContent, ArenaRow, write};
    use super::*;
    use crate::layout::damaged_mark;
    use crate::pages::VERIFICATION_SKIPPED;

    const STORE_ID: [u8; 16] = [9; 16];
    const PAGE_LEN_BYTES: u64 = 512;

    fn key(row: u32) -> u128 {
        u128::from(row).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835)
    }

    fn vector(row: u32, dimensions: u32) -> Vec<f32> {
        (0..dimensions).map(|element| (row * 1000 + element) as f32 / 8.0 - 3.0).collect()
    }

    fn content(dimensions: u32) -> ArenaContent {
        ArenaContent { dimensions, sequence: 5, cache_generation: 6, rows_count_max: u32::MAX }
    }

    fn rows(count: u32, dimensions: u32) -> impl Iterator<Item = ArenaRow<Vec<f32>>> {
        (0..count).map(move |row| ArenaRow {
            key: key(row),
            expires_at_unix_ms: u64::from(row) * 10,
            vector: vector(row, dimensions),
        })
    }

    fn written(directory: &Path, count: u32, dimensions: u32) -> ManifestFile {
        let path = directory.join(format!("1-{dimensions}.arena"));
        let identity = (STORE_ID, PAGE_LEN_BYTES);
        write(&path, identity, &content(dimensions), rows(count, dimensions)).unwrap().unwrap()
    }

    /// Asks for everything: whether each answer was right, and whether any was an error.
    fn ask_all(file: &ArenaFile, count: u32) -> (bool, bool) {
        let (mut right, mut error) = (true, false);
        let dimensions = file.dimensions();
        let mut see = |row: u32, expires: u64, found: &[f32]| {
            right &= expires == u64::from(row) * 10 && found == vector(row, dimensions);
        };
        for row in 0..count {
            match file.find(key(row)) {
                Ok(Some(found)) => see(row, found.expires_at_unix_ms, found.vector),
                Ok(None) => error |= !file.is_damaged(),
                Err(_) => error = true,
            }
        }
        let mut row = 0;
        let read = file.read_rows(0, u32::MAX, |found, expires, vector| {
            see(if found == key(row) { row } else { u32::MAX / 1000 }, expires, vector);
            row += 1;
        });
        (right, error || read.is_err() || (row != count && !file.is_damaged()))
    }

    #[test]
    fn every_row_is_found_and_read_and_no_other_key_is() {
        for (count, dimensions) in [(1, 1), (2, 17), (100, 16), (3000, 3), (70, 1000)] {
            let directory = tempfile::tempdir().unwrap();
            let description = written(directory.path(), count, dimensions);
            let file = ArenaFile::open(directory.path(), &STORE_ID, description).unwrap();
            assert_eq!((file.rows_count(), file.dimensions()), (count, dimensions));
            assert_eq!((file.sequence(), file.cache_generation()), (5, 6));
            assert_eq!(ask_all(&file, count), (true, false), "{count} of {dimensions}");
            for absent in [0, 1, u128::MAX, key(count), key(0) ^ 1, key(count / 2) + 1] {
                let known = (0..count).any(|row| key(row) == absent);
                assert_eq!(file.find(absent).unwrap().is_some(), known, "{absent:x}");
            }
            let mut seen = Vec::new();
            file.read_rows(count / 2, 1, |key, _, _| seen.push(key)).unwrap();
            assert_eq!(seen, [key(count / 2)]);
            file.read_rows(count, 5, |_, _, _| panic!("there is no such row")).unwrap();
        }
    }

    #[test]
    fn keys_that_are_no_hashes_are_found_as_well() {
        let directory = tempfile::tempdir().unwrap();
        let keys: Vec<u128> =
            (0..500).chain((1 << 64)..(1 << 64) + 500).chain([u128::MAX]).collect();
        let rows = keys.iter().map(|key| ArenaRow {
            key: *key,
            expires_at_unix_ms: 0,
            vector: [*key as f32],
        });
        let path = directory.path().join("1-1.arena");
        let description = write(&path, (STORE_ID, 4096), &content(1), rows).unwrap().unwrap();
        let file = ArenaFile::open(directory.path(), &STORE_ID, description).unwrap();
        for key in &keys {
            assert_eq!(file.find(*key).unwrap().unwrap().vector, [*key as f32]);
        }
        assert_eq!(file.find(500).unwrap(), None);
    }

    /// Flips each byte in turn; returns how many flips nobody noticed, and how many gave an answer
    /// that is wrong.
    fn flip_every_byte() -> (usize, usize) {
        let directory = tempfile::tempdir().unwrap();
        let description = written(directory.path(), 12, 20);
        let path = directory.path().join(&description.name);
        let whole = fs::read(&path).unwrap();
        let on_disk = File::options().write(true).open(&path).unwrap();
        let (mut unnoticed, mut wrong) = (0, 0);
        for offset in 0..whole.len() {
            if let Some(before) = offset.checked_sub(1) {
                on_disk.write_all_at(&whole[before..offset], before as u64).unwrap();
            }
            on_disk.write_all_at(&[whole[offset] ^ (1 << (offset % 8))], offset as u64).unwrap();
            let Ok(file) = ArenaFile::open(directory.path(), &STORE_ID, description.clone()) else {
                continue;
            };
            let (right, error) = ask_all(&file, 12);
            wrong += usize::from(!right);
            unnoticed += usize::from(!error);
            let mark = damaged_mark(&path);
            assert_eq!(mark.exists(), file.is_damaged());
            let _ = fs::remove_file(mark);
        }
        (unnoticed, wrong)
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        assert_eq!(flip_every_byte(), (0, 0));
    }

    #[test]
    fn a_reader_that_does_not_verify_is_caught() {
        VERIFICATION_SKIPPED.set(true);
        let (unnoticed, wrong) = flip_every_byte();
        VERIFICATION_SKIPPED.set(false);
        assert!(unnoticed > 1000 && wrong > 500, "{unnoticed} unnoticed, {wrong} wrong");
    }

    #[test]
    fn every_shorter_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let description = written(directory.path(), 12, 20);
        let path = directory.path().join(&description.name);
        let file = File::options().write(true).open(&path).unwrap();
        for len in (0..description.len_bytes).rev() {
            file.set_len(len).unwrap();
            for claimed in [description.len_bytes, len] {
                let description = ManifestFile { len_bytes: claimed, ..description.clone() };
                let error = ArenaFile::open(directory.path(), &STORE_ID, description).err();
                assert_eq!(error.unwrap().kind(), ErrorKind::Corrupt, "{len} bytes");
            }
        }
    }

    #[test]
    fn pages_in_each_others_places_are_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let description = written(directory.path(), 64, 16);
        let path = directory.path().join(&description.name);
        let mut bytes = fs::read(&path).unwrap();
        let (first, second) = bytes[512..1536].split_at_mut(512);
        first.swap_with_slice(second);
        fs::write(&path, bytes).unwrap();
        let file = ArenaFile::open(directory.path(), &STORE_ID, description).unwrap();
        assert_eq!(ask_all(&file, 64), (true, true));
    }

    #[test]
    fn damage_is_said_once_and_then_the_file_has_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let description = written(directory.path(), 12, 20);
        let path = directory.path().join(&description.name);
        let mut bytes = fs::read(&path).unwrap();
        bytes[512] ^= 1;
        fs::write(&path, bytes).unwrap();
        let file = ArenaFile::open(directory.path(), &STORE_ID, description).unwrap();
        let error = file.find(key(0)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        let text = error.to_string();
        assert!(text.contains("1-20.arena") && text.contains("at byte 512"), "{text}");
        assert!(damaged_mark(&path).exists());
        for row in 0..12 {
            assert_eq!(file.find(key(row)).unwrap(), None);
        }
        file.read_rows(0, 12, |_, _, _| panic!("a damaged file has no rows")).unwrap();
    }

    #[test]
    fn a_file_of_another_store_or_another_moment_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let description = written(directory.path(), 2, 3);
        let open = |store_id, description| ArenaFile::open(directory.path(), store_id, description);
        assert!(open(&STORE_ID, description.clone()).is_ok());
        assert!(open(&[8; 16], description.clone()).is_err());
        let header_checksum = description.header_checksum ^ 1;
        assert!(open(&STORE_ID, ManifestFile { header_checksum, ..description }).is_err());
    }

    #[test]
    fn rows_that_cannot_be_in_one_file_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let row = |key, vector: &'static [f32]| ArenaRow { key, expires_at_unix_ms: 0, vector };
        let attempt = |name: &str, rows: Vec<ArenaRow<&'static [f32]>>| {
            let identity = (STORE_ID, PAGE_LEN_BYTES);
            write(&directory.path().join(name), identity, &content(2), rows.into_iter())
        };
        let twice = attempt("a", vec![row(1, &[1.0, 2.0]), row(1, &[3.0, 4.0])]);
        assert_eq!(twice.unwrap_err().kind(), ErrorKind::Invalid);
        let short = attempt("b", vec![row(1, &[1.0])]);
        assert_eq!(short.unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(attempt("c", Vec::new()).unwrap(), None);
    }
}
