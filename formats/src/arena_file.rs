//! An arena file: the full-precision vectors of one length that were hot, as they were once.
//!
//! It is written once, never changed, and read in pages. Four sections follow the header page, and
//! each begins at a page:
//!
//! | section | contents |
//! |---|---|
//! | vectors | a row for each vector, hottest first: little-endian f32, zeros up to the stride |
//! | rows | an entry for each row, in the order of rows |
//! | index | the same entries, ascending by key |
//! | checksums | u64 for each page before it but the first: [`crate::page`] |
//!
//! What is left of a section's last page is zero; the checksums end where the file ends. They are
//! themselves under a checksum in the header page, which is under its own: whoever trusts the header
//! may check any page alone.
//!
//! Header page:
//!
//! | offset | size | field | |
//! |---|---|---|---|
//! | 0 | 64 | header | [`crate::header`], magic `opdbARNA`, version 1; payload up to the page's end |
//! | 64 | 16 | store_id | identity of the store |
//! | 80 | 8 | sequence | last committed change that is in the file |
//! | 88 | 8 | cache_generation | which life of the embedding cache the vectors are from |
//! | 96 | 4 | dimensions | of every vector, 1 to 65,536 |
//! | 100 | 4 | rows_count | at least 1 |
//! | 104 | 4 | stride | bytes from row to row: 4 × dimensions, rounded up to 64 |
//! | 108 | 4 | reserved | 0 |
//! | 112 | 8 | rows_offset | from the file's beginning, as are the next two |
//! | 120 | 8 | index_offset | |
//! | 128 | 8 | checksums_offset | |
//! | 136 | 8 | file_len | bytes in the whole file |
//! | 144 | 8 | table_checksum | of the checksums: [`crate::page`] |
//! | 152 | to the page's end | reserved | 0 |
//!
//! The page length is a power of two from 512 to 65,536. Vectors begin at the second page, so a row
//! is aligned to 64 bytes in a mapped file. The offsets follow from the counts; they are stored for
//! whoever reads the file by hand, and checked.
//!
//! Entry:
//!
//! | offset | size | field | |
//! |---|---|---|---|
//! | 0 | 16 | key | u128, a seeded hash: nobody chooses it |
//! | 16 | 8 | expires_at_unix_ms | 0 for never |
//! | 24 | 4 | row | |
//! | 28 | 4 | reserved | 0 |

use std::mem::{offset_of, size_of};
use std::ops::Range;

use zerocopy::little_endian::{U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::FormatError;
use crate::embedding::DIMENSIONS_MAX;
use crate::header::{FILE_HEADER_LEN_BYTES, FormatVersion, Magic, check_limit};
use crate::page::{CHECKSUM_LEN_BYTES, check_page_len, decode_header_page, encode_header_page};

/// Magic of the format.
pub const MAGIC: Magic = Magic(*b"opdbARNA");

/// Newest version of the format.
pub const VERSION: FormatVersion = FormatVersion(1);

/// Length of an encoded [`Entry`].
pub const ENTRY_LEN_BYTES: usize = size_of::<RawEntry>();

const ROW_ALIGNMENT_BYTES: u64 = 64;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawArenaFile {
    store_id: [u8; 16],
    sequence: U64,
    cache_generation: U64,
    dimensions: U32,
    rows_count: U32,
    stride: U32,
    reserved: U32,
    rows_offset: U64,
    index_offset: U64,
    checksums_offset: U64,
    file_len: U64,
    table_checksum: U64,
}

const _: () = {
    assert!(size_of::<RawArenaFile>() == 88);
    assert!(offset_of!(RawArenaFile, dimensions) == 32);
    assert!(offset_of!(RawArenaFile, reserved) == 44);
    assert!(offset_of!(RawArenaFile, rows_offset) == 48);
    assert!(offset_of!(RawArenaFile, table_checksum) == 80);
};

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawEntry {
    key: U128,
    expires_at_unix_ms: U64,
    row: U32,
    reserved: U32,
}

const _: () = {
    assert!(size_of::<RawEntry>() == 32);
    assert!(offset_of!(RawEntry, expires_at_unix_ms) == 16);
    assert!(offset_of!(RawEntry, row) == 24);
    assert!(offset_of!(RawEntry, reserved) == 28);
};

/// What the header page of an arena file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArenaFileHeader {
    /// Which store the file belongs to.
    pub store_id: [u8; 16],
    /// Sequence of the last committed change that is in the file.
    pub sequence: u64,
    /// Which life of the embedding cache the vectors are from.
    pub cache_generation: u64,
    /// Elements of every vector.
    pub dimensions: u32,
    /// Vectors in the file.
    pub rows_count: u32,
    /// Length of a page.
    pub page_len_bytes: u64,
    /// [`table_checksum`](crate::page::table_checksum) of the pages' checksums.
    pub table_checksum: u64,
}

/// Where the sections of an arena file lie, from its beginning, without what pads them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sections {
    /// Bytes from the beginning of one row to that of the next.
    pub stride_bytes: u64,
    /// The vectors.
    pub vectors: Range<u64>,
    /// The entries in the order of rows.
    pub rows: Range<u64>,
    /// The entries in the order of keys.
    pub index: Range<u64>,
    /// The pages' checksums, which end the file.
    pub checksums: Range<u64>,
}

impl ArenaFileHeader {
    /// Returns where the sections lie.
    ///
    /// # Errors
    /// [`FormatError::Empty`], [`FormatError::TooLarge`] or [`FormatError::Mismatch`] if there is
    /// no file with these counts.
    pub fn sections(&self) -> Result<Sections, FormatError> {
        check_page_len(self.page_len_bytes)?;
        if self.dimensions == 0 {
            return Err(FormatError::Empty { what: "vector" });
        }
        check_limit("number of dimensions", self.dimensions as usize, DIMENSIONS_MAX)?;
        if self.rows_count == 0 {
            return Err(FormatError::Empty { what: "arena file" });
        }
        // With the limits above no sum comes near the end of u64.
        let stride_bytes = stride_bytes(self.dimensions);
        let entries_len = u64::from(self.rows_count) * ENTRY_LEN_BYTES as u64;
        let from = |start: u64, len: u64| start..start + len;
        let after = |section: &Range<u64>| section.end.next_multiple_of(self.page_len_bytes);
        let vectors = from(self.page_len_bytes, u64::from(self.rows_count) * stride_bytes);
        let rows = from(after(&vectors), entries_len);
        let index = from(after(&rows), entries_len);
        let pages_count = after(&index) / self.page_len_bytes - 1;
        let checksums = from(after(&index), pages_count * CHECKSUM_LEN_BYTES as u64);
        Ok(Sections { stride_bytes, vectors, rows, index, checksums })
    }

    /// Returns the bytes of the header page.
    ///
    /// # Errors
    /// Those of [`ArenaFileHeader::sections`].
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        let raw = self.raw(&self.sections()?);
        Ok(encode_header_page(MAGIC, VERSION, self.page_len_bytes, raw.as_bytes()))
    }

    fn raw(&self, sections: &Sections) -> RawArenaFile {
        RawArenaFile {
            store_id: self.store_id,
            sequence: self.sequence.into(),
            cache_generation: self.cache_generation.into(),
            dimensions: self.dimensions.into(),
            rows_count: self.rows_count.into(),
            stride: (sections.stride_bytes as u32).into(),
            reserved: 0.into(),
            rows_offset: sections.rows.start.into(),
            index_offset: sections.index.start.into(),
            checksums_offset: sections.checksums.start.into(),
            file_len: sections.checksums.end.into(),
            table_checksum: self.table_checksum.into(),
        }
    }

    /// Decodes the header page from the beginning of a file; more bytes may follow it.
    ///
    /// # Errors
    /// Says what is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (page_len_bytes, raw) = decode_header_page::<RawArenaFile>(bytes, MAGIC, VERSION)?;
        if raw.reserved.get() != 0 {
            let offset = FILE_HEADER_LEN_BYTES + offset_of!(RawArenaFile, reserved);
            return Err(FormatError::NonZeroReserved { offset: offset as u64 });
        }
        let header = Self {
            store_id: raw.store_id,
            sequence: raw.sequence.get(),
            cache_generation: raw.cache_generation.get(),
            dimensions: raw.dimensions.get(),
            rows_count: raw.rows_count.get(),
            page_len_bytes,
            table_checksum: raw.table_checksum.get(),
        };
        let expected = header.raw(&header.sections()?);
        let agree = |what, expected: u64, found: u64| {
            let mismatch = FormatError::Mismatch { what, expected, found };
            if expected == found { Ok(()) } else { Err(mismatch) }
        };
        agree("stride in bytes", expected.stride.get().into(), raw.stride.get().into())?;
        agree("offset of the rows", expected.rows_offset.get(), raw.rows_offset.get())?;
        agree("offset of the index", expected.index_offset.get(), raw.index_offset.get())?;
        let (offset, found) = (expected.checksums_offset.get(), raw.checksums_offset.get());
        agree("offset of the checksums", offset, found)?;
        agree("file length in bytes", expected.file_len.get(), raw.file_len.get())?;
        Ok(header)
    }
}

impl Sections {
    /// Length of the whole file.
    #[must_use]
    pub fn file_len_bytes(&self) -> u64 {
        self.checksums.end
    }

    /// Where the elements and the padding of one row lie, which must exist.
    #[must_use]
    pub fn vector(&self, row: u32) -> Range<u64> {
        let start = self.vectors.start + u64::from(row) * self.stride_bytes;
        start..start + self.stride_bytes
    }
}

/// Returns the bytes from one row of this many elements to the next.
#[must_use]
pub fn stride_bytes(dimensions: u32) -> u64 {
    (u64::from(dimensions) * size_of::<f32>() as u64).next_multiple_of(ROW_ALIGNMENT_BYTES)
}

/// Returns a row's elements as they lie, or nothing if they are not aligned as f32 are.
///
/// Only a little-endian machine can read them in place.
#[must_use]
pub fn elements_in_place(bytes: &[u8]) -> Option<&[f32]> {
    if cfg!(target_endian = "big") {
        return None;
    }
    <[f32]>::ref_from_bytes(bytes).ok()
}

/// What a file says of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Key of the vector.
    pub key: u128,
    /// When it expires, in milliseconds since 1970-01-01 UTC; 0 for never.
    pub expires_at_unix_ms: u64,
    /// Where it lies among the vectors.
    pub row: u32,
}

impl Entry {
    /// Returns the bytes of the entry.
    #[must_use]
    pub fn encode(&self) -> [u8; ENTRY_LEN_BYTES] {
        zerocopy::transmute!(RawEntry {
            key: self.key.into(),
            expires_at_unix_ms: self.expires_at_unix_ms.into(),
            row: self.row.into(),
            reserved: 0.into(),
        })
    }

    /// Decodes an entry.
    ///
    /// # Errors
    /// [`FormatError::NonZeroReserved`].
    pub fn decode(bytes: &[u8; ENTRY_LEN_BYTES]) -> Result<Self, FormatError> {
        let raw: &RawEntry = zerocopy::transmute_ref!(bytes);
        if raw.reserved.get() != 0 {
            let offset = offset_of!(RawEntry, reserved) as u64;
            return Err(FormatError::NonZeroReserved { offset });
        }
        Ok(Self {
            key: raw.key.get(),
            expires_at_unix_ms: raw.expires_at_unix_ms.get(),
            row: raw.row.get(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::FileHeader;
    use crate::page::{PAGE_LEN_MAX_BYTES, page_checksum};

    const HEADER: ArenaFileHeader = ArenaFileHeader {
        store_id: [7; 16],
        sequence: 9,
        cache_generation: 2,
        dimensions: 17,
        rows_count: 20,
        page_len_bytes: 512,
        table_checksum: 3,
    };

    /// A header page whose raw fields `change` has altered, with right checksums.
    fn altered(change: impl FnOnce(&mut RawArenaFile)) -> Vec<u8> {
        let mut page = HEADER.encode().unwrap();
        let (head, payload) = page.split_at_mut(FILE_HEADER_LEN_BYTES);
        let (raw, _) = RawArenaFile::mut_from_prefix(payload).unwrap();
        change(raw);
        head.copy_from_slice(&FileHeader::of_payload(MAGIC, VERSION, payload).encode());
        page
    }

    #[test]
    fn sections_follow_one_another_at_pages() {
        let sections = HEADER.sections().unwrap();
        // 17 elements are 68 bytes; 20 rows of 128 fill 5 pages, 20 entries of 32 two.
        assert_eq!(sections.stride_bytes, 128);
        assert_eq!(sections.vectors, 512..3072);
        assert_eq!(sections.rows, 3072..3712);
        assert_eq!(sections.index, 4096..4736);
        assert_eq!(sections.checksums, 5120..5192);
        assert_eq!(sections.vector(19), 2944..3072);
    }

    #[test]
    fn a_wrong_field_is_named_even_when_the_checksums_are_right() {
        assert_eq!(ArenaFileHeader::decode(&altered(|_| ())), Ok(HEADER));
        type Change = fn(&mut RawArenaFile);
        let cases: [(Change, &str); 9] = [
            (|raw| raw.dimensions = 0.into(), "vector is empty"),
            (|raw| raw.dimensions = u32::MAX.into(), "number of dimensions"),
            (|raw| raw.rows_count = 0.into(), "arena file is empty"),
            (|raw| raw.stride = 64.into(), "stride"),
            (|raw| raw.reserved = 1.into(), "offset 108"),
            (|raw| raw.rows_offset = 512.into(), "offset of the rows"),
            (|raw| raw.index_offset = u64::MAX.into(), "offset of the index"),
            (|raw| raw.checksums_offset = 0.into(), "offset of the checksums"),
            (|raw| raw.file_len = 5191.into(), "file length"),
        ];
        for (change, expected) in cases {
            let error = ArenaFileHeader::decode(&altered(change)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}, expected {expected}");
        }
    }

    #[test]
    fn the_rest_of_the_header_page_is_zero() {
        let mut page = HEADER.encode().unwrap();
        page[511] = 1;
        let header = FileHeader::of_payload(MAGIC, VERSION, &page[FILE_HEADER_LEN_BYTES..]);
        page[..FILE_HEADER_LEN_BYTES].copy_from_slice(&header.encode());
        let expected = FormatError::NonZeroReserved { offset: 511 };
        assert_eq!(ArenaFileHeader::decode(&page), Err(expected));
    }

    #[test]
    fn an_untrusted_page_length_is_limited() {
        for payload_len_bytes in [0, 447, 449, 65_473, u64::MAX] {
            let payload = vec![0; 1 << 17];
            let mut header = FileHeader::of_payload(MAGIC, VERSION, &payload);
            header.payload_len_bytes = payload_len_bytes;
            let error = ArenaFileHeader::decode(&[&header.encode()[..], &payload].concat());
            let error = error.unwrap_err().to_string();
            assert!(error.contains("page length"), "{payload_len_bytes}: {error}");
        }
    }

    #[test]
    fn the_largest_file_does_not_overflow() {
        let largest = ArenaFileHeader {
            dimensions: DIMENSIONS_MAX as u32,
            rows_count: u32::MAX,
            page_len_bytes: PAGE_LEN_MAX_BYTES,
            ..HEADER
        };
        assert!(largest.sections().unwrap().file_len_bytes() > 1 << 49);
        assert_eq!(ArenaFileHeader::decode(&largest.encode().unwrap()), Ok(largest));
    }

    #[test]
    fn a_page_in_the_place_of_another_has_another_checksum() {
        let page = [5; 512];
        let base = page_checksum(MAGIC, &[1; 16], 3, &page);
        assert_ne!(base, page_checksum(MAGIC, &[1; 16], 4, &page));
        assert_ne!(base, page_checksum(MAGIC, &[2; 16], 3, &page));
    }

    #[test]
    fn an_entry_comes_back() {
        let entry = Entry { key: u128::MAX - 5, expires_at_unix_ms: 8, row: 77 };
        let mut bytes = entry.encode();
        assert_eq!(Entry::decode(&bytes), Ok(entry));
        bytes[31] = 1;
        assert_eq!(Entry::decode(&bytes), Err(FormatError::NonZeroReserved { offset: 28 }));
    }

    #[test]
    fn elements_are_read_in_place_only_when_aligned() {
        let numbers = [1.0_f32, -2.0, 3.5];
        let bytes = numbers.as_bytes();
        assert_eq!(elements_in_place(bytes), Some(&numbers[..]));
        assert_eq!(elements_in_place(&bytes[1..9]), None);
        assert_eq!(elements_in_place(&bytes[..7]), None);
    }
}
