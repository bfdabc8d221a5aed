//! A snapshot on its way to another machine: streams of the file system in chunks with checksums.
//!
//! It begins with
//!
//! | offset | size | field | |
//! |---|---|---|---|
//! | 0 | 64 | header | [`crate::header`], magic `opdbSEND`, version 1; its payload is what follows until the first chunk |
//! | 64 | 4 | first_chunk | u32: chunks before it were sent earlier |
//! | 68 | 4 × 16 | ids | UUIDs of the subvolumes of the four parts |
//! | 132 | 4 × 16 | parent_ids | of those that they are increments on; zeros if it is no increment |
//! | 196 | 2 | name_len | u16 |
//! | 198 | 2 | parent_name_len | u16, 0 if it is no increment |
//! | 200 | name_len | name | of the snapshot, UTF-8 |
//! | | parent_name_len | parent_name | UTF-8 |
//! | | | snapshot | the file of [`crate::snapshot_file`] |
//!
//! and goes on with chunks, each of
//!
//! | offset | size | field | |
//! |---|---|---|---|
//! | 0 | 4 | number | u32, from 0 |
//! | 4 | 1 | part | 0 to 3, or 4 for the end |
//! | 5 | 3 | reserved | 0 |
//! | 8 | 4 | content_len | u32, at most 4 MiB |
//! | 12 | 4 | stored_len | u32 |
//! | 16 | 8 | checksum | of a value ([`crate::header`]), magic `opdbSEND` |
//! | 24 | stored_len | stored | the content, compressed by zstd |
//!
//! The last has as its content the XXH3-128 of all content before it.

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::FormatError;
use crate::header::{
    FILE_HEADER_LEN_BYTES, FileHeader, FormatVersion, Magic, check, too_short, value_checksum,
};
use crate::snapshot_file::{SNAPSHOT_FILE_LEN_BYTES_MAX, SnapshotFile};

/// Magic of the format.
pub const MAGIC: Magic = Magic(*b"opdbSEND");

/// Newest version of the format.
pub const VERSION: FormatVersion = FormatVersion(1);

/// Parts of a snapshot.
pub const PARTS_COUNT: usize = 4;

/// Content of a chunk at most.
pub const CONTENT_LEN_BYTES_MAX: usize = 4 << 20;

/// Longest start: [`StreamStart::len_bytes`] says how long one is.
pub const START_LEN_BYTES_MAX: usize = FILE_HEADER_LEN_BYTES
    + size_of::<RawStart>()
    + 2 * NAME_LEN_BYTES_MAX
    + SNAPSHOT_FILE_LEN_BYTES_MAX;

/// Length of the header of a chunk, whose last eight bytes are the checksum.
pub const CHUNK_HEADER_LEN_BYTES: usize = size_of::<RawChunk>();

/// Longest name.
pub const NAME_LEN_BYTES_MAX: usize = 255;

/// What zstd makes of so much is never longer.
const STORED_LEN_BYTES_MAX: usize = CONTENT_LEN_BYTES_MAX + (CONTENT_LEN_BYTES_MAX >> 8) + 64;
/// Faster than most networks.
const ZSTD_LEVEL: i32 = 3;
const PART_END: u8 = PARTS_COUNT as u8;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawStart {
    first_chunk: U32,
    ids: [[u8; 16]; PARTS_COUNT],
    parent_ids: [[u8; 16]; PARTS_COUNT],
    name_len: U16,
    parent_name_len: U16,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawChunk {
    number: U32,
    part: u8,
    reserved: [u8; 3],
    content_len: U32,
    stored_len: U32,
    checksum: U64,
}

const _: () = {
    assert!(size_of::<RawStart>() == 136);
    assert!(offset_of!(RawStart, parent_ids) == 68);
    assert!(offset_of!(RawStart, name_len) == 132);
    assert!(size_of::<RawChunk>() == 24);
    assert!(offset_of!(RawChunk, content_len) == 8);
    assert!(offset_of!(RawChunk, checksum) == 16);
};

/// What is sent, and from where on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamStart {
    /// Chunks before it were sent earlier.
    pub first_chunk: u32,
    /// UUIDs of the subvolumes of the parts.
    pub ids: [[u8; 16]; PARTS_COUNT],
    /// The snapshot that it is an increment on.
    pub parent: Option<StreamParent>,
    /// Name of the snapshot.
    pub name: String,
    /// Its file `SNAPSHOT`.
    pub snapshot: SnapshotFile,
}

/// The snapshot that another is an increment on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamParent {
    /// UUIDs of the subvolumes of its parts.
    pub ids: [[u8; 16]; PARTS_COUNT],
    /// Its name, where it is sent from.
    pub name: String,
}

impl StreamStart {
    /// Returns the bytes that a stream begins with.
    ///
    /// # Errors
    /// [`FormatError::TooLarge`] or [`FormatError::Empty`] for names that are none, or a reason that is
    /// too long.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        let none = StreamParent { ids: [[0; 16]; PARTS_COUNT], name: String::new() };
        let parent = self.parent.as_ref();
        let name_len = name_len(&self.name)?;
        let parent_name_len = parent.map_or(Ok(0), name_len_of_parent)?;
        let parent = parent.unwrap_or(&none);
        let raw = RawStart {
            first_chunk: self.first_chunk.into(),
            ids: self.ids,
            parent_ids: parent.ids,
            name_len: name_len.into(),
            parent_name_len: parent_name_len.into(),
        };
        let snapshot = self.snapshot.encode()?;
        let names = [self.name.as_bytes(), parent.name.as_bytes()];
        let payload = [raw.as_bytes(), names[0], names[1], &snapshot].concat();
        let header = FileHeader::of_payload(MAGIC, VERSION, &payload);
        Ok([&header.encode()[..], &payload].concat())
    }

    /// Returns the length of the start whose header these bytes begin with, so that a reader knows how
    /// much to read; it is one that a start can have.
    ///
    /// # Errors
    /// As [`StreamStart::decode`].
    pub fn len_bytes(header: &[u8; FILE_HEADER_LEN_BYTES]) -> Result<usize, FormatError> {
        let header = FileHeader::decode(header, MAGIC, VERSION)?;
        let limit = (START_LEN_BYTES_MAX - FILE_HEADER_LEN_BYTES) as u64;
        match header.payload_len_bytes {
            found if found > limit => {
                Err(FormatError::TooLarge { what: "length of a start in bytes", found, limit })
            }
            payload_len => Ok(FILE_HEADER_LEN_BYTES + payload_len as usize),
        }
    }

    /// Decodes the start, of which there is no more and no less.
    ///
    /// # Errors
    /// Says what is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let payload = FileHeader::decode(bytes, MAGIC, VERSION)?.verified_payload(bytes)?;
        let (raw, rest) = RawStart::ref_from_prefix(payload)
            .map_err(|_| too_short(FILE_HEADER_LEN_BYTES + size_of::<RawStart>(), bytes))?;
        let (name, rest) = text("the name", rest, raw.name_len.get())?;
        let (parent_name, rest) = text("the name of the parent", rest, raw.parent_name_len.get())?;
        name_len(name)?;
        let parent = match parent_name {
            "" if raw.parent_ids == [[0; 16]; PARTS_COUNT] => None,
            _ => Some(StreamParent { ids: raw.parent_ids, name: parent_name.to_owned() }),
        };
        parent.as_ref().map_or(Ok(0), name_len_of_parent)?;
        Ok(Self {
            first_chunk: raw.first_chunk.get(),
            ids: raw.ids,
            parent,
            name: name.to_owned(),
            snapshot: SnapshotFile::decode(rest)?,
        })
    }
}

fn name_len(name: &str) -> Result<u16, FormatError> {
    let (found, limit) = (name.len() as u64, NAME_LEN_BYTES_MAX as u64);
    match u16::try_from(found) {
        Ok(0) => Err(FormatError::Empty { what: "name of a snapshot" }),
        Ok(len) if found <= limit => Ok(len),
        _ => Err(FormatError::TooLarge { what: "length of a name in bytes", found, limit }),
    }
}

/// One without identity would look like none.
fn name_len_of_parent(parent: &StreamParent) -> Result<u16, FormatError> {
    match parent.ids == [[0; 16]; PARTS_COUNT] {
        true => Err(FormatError::Empty { what: "identity of the parent" }),
        false => name_len(&parent.name),
    }
}

fn text<'a>(
    what: &'static str,
    bytes: &'a [u8],
    len: u16,
) -> Result<(&'a str, &'a [u8]), FormatError> {
    let (text, rest) = bytes
        .split_at_checked(usize::from(len))
        .ok_or_else(|| too_short(usize::from(len), bytes))?;
    let text = std::str::from_utf8(text)
        .map_err(|error| FormatError::InvalidUtf8 { what, offset: error.valid_up_to() as u64 })?;
    Ok((text, rest))
}

/// What a chunk has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// More of the stream of a part.
    Part {
        /// Which of the parts.
        part: u8,
        /// Not empty, and at most [`CONTENT_LEN_BYTES_MAX`].
        content: Vec<u8>,
    },
    /// There are no more.
    End {
        /// XXH3-128 of all content.
        sum: u128,
    },
}

impl Chunk {
    /// Returns the bytes of the chunk with this number.
    ///
    /// # Errors
    /// [`FormatError::UnknownTag`], [`FormatError::Empty`] or [`FormatError::TooLarge`] if it has no
    /// such part, or other content than a chunk can have.
    pub fn encode(&self, number: u32) -> Result<Vec<u8>, FormatError> {
        let sum;
        let (part, content) = match self {
            Self::Part { part, content } => (*part, &content[..]),
            Self::End { sum: of_all } => {
                sum = of_all.to_le_bytes();
                (PART_END, &sum[..])
            }
        };
        if part_of(part)? == PART_END && matches!(self, Self::Part { .. }) {
            return Err(FormatError::UnknownTag { what: "part", found: part });
        }
        check_content_len(content.len() as u64)?;
        let stored = zstd::bulk::compress(content, ZSTD_LEVEL)
            .map_err(|_| FormatError::Zstd { what: "a chunk" })?;
        let mut raw = RawChunk {
            number: number.into(),
            part,
            reserved: [0; 3],
            content_len: (content.len() as u32).into(),
            stored_len: (stored.len() as u32).into(),
            checksum: 0.into(),
        };
        raw.checksum = raw.checksum_with(&stored).into();
        Ok([raw.as_bytes(), &stored].concat())
    }

    /// Returns the length of the chunk that begins with this header, so that a reader knows how much to
    /// read. The header is not verified yet, but the length is one that a chunk can have.
    ///
    /// # Errors
    /// As [`Chunk::decode`].
    pub fn len_bytes(header: &[u8; CHUNK_HEADER_LEN_BYTES]) -> Result<usize, FormatError> {
        let raw: &RawChunk = zerocopy::transmute_ref!(header);
        let (found, limit) = (u64::from(raw.stored_len.get()), STORED_LEN_BYTES_MAX as u64);
        if found > limit {
            return Err(FormatError::TooLarge { what: "length of a chunk in bytes", found, limit });
        }
        Ok(CHUNK_HEADER_LEN_BYTES + raw.stored_len.get() as usize)
    }

    /// Decodes a whole chunk, which must have this number.
    ///
    /// # Errors
    /// Says what is wrong with the bytes.
    pub fn decode(bytes: &[u8], number: u32) -> Result<Self, FormatError> {
        let (raw, stored) = RawChunk::ref_from_prefix(bytes)
            .map_err(|_| too_short(CHUNK_HEADER_LEN_BYTES, bytes))?;
        check(raw.checksum.get(), raw.checksum_with(stored))?;
        mismatch("length of a chunk in bytes", raw.stored_len.get(), stored.len() as u64)?;
        mismatch("number of a chunk", number, raw.number.get().into())?;
        if raw.reserved != [0; 3] {
            return Err(FormatError::NonZeroReserved {
                offset: offset_of!(RawChunk, reserved) as u64,
            });
        }
        let part = part_of(raw.part)?;
        check_content_len(raw.content_len.get().into())?;
        let content = zstd::bulk::decompress(stored, raw.content_len.get() as usize)
            .map_err(|_| FormatError::Zstd { what: "a chunk" })?;
        mismatch("length of content in bytes", raw.content_len.get(), content.len() as u64)?;
        if part != PART_END {
            return Ok(Self::Part { part, content });
        }
        mismatch("length of a sum in bytes", 16, content.len() as u64)?;
        let sum = content.first_chunk().map_or(0, |bytes| u128::from_le_bytes(*bytes));
        Ok(Self::End { sum })
    }
}

fn part_of(part: u8) -> Result<u8, FormatError> {
    match part {
        0..=PART_END => Ok(part),
        found => Err(FormatError::UnknownTag { what: "part", found }),
    }
}

fn check_content_len(found: u64) -> Result<(), FormatError> {
    let limit = CONTENT_LEN_BYTES_MAX as u64;
    match found {
        0 => Err(FormatError::Empty { what: "content of a chunk" }),
        found if found > limit => {
            Err(FormatError::TooLarge { what: "length of content in bytes", found, limit })
        }
        _ => Ok(()),
    }
}

fn mismatch(what: &'static str, expected: u32, found: u64) -> Result<(), FormatError> {
    match u64::from(expected) {
        expected if expected == found => Ok(()),
        expected => Err(FormatError::Mismatch { what, expected, found }),
    }
}

impl RawChunk {
    fn checksum_with(&self, stored: &[u8]) -> u64 {
        value_checksum(MAGIC, &self.as_bytes()[..offset_of!(Self, checksum)], stored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> StreamStart {
        StreamStart {
            first_chunk: 7,
            ids: [[1; 16], [2; 16], [3; 16], [4; 16]],
            parent: Some(StreamParent { ids: [[5; 16]; 4], name: "20261126T120305Z".to_owned() }),
            name: "20261126T130305Z".to_owned(),
            snapshot: SnapshotFile {
                store_id: [7; 16],
                sequence: 42,
                taken_unix_ms: 1_800_000_000_000,
                files_sum: 3,
                files_count: 17,
                is_kept: false,
                reason: "hourly".to_owned(),
            },
        }
    }

    #[test]
    fn a_start_comes_back_and_tells_its_length() {
        let whole = StreamStart { parent: None, ..start() };
        for start in [start(), whole] {
            let bytes = start.encode().unwrap();
            assert_eq!(StreamStart::len_bytes(bytes.first_chunk().unwrap()), Ok(bytes.len()));
            assert_eq!(StreamStart::decode(&bytes), Ok(start));
        }
    }

    #[test]
    fn what_is_no_start_is_refused() {
        let nameless = StreamStart { name: String::new(), ..start() };
        assert_eq!(nameless.encode(), Err(FormatError::Empty { what: "name of a snapshot" }));
        let long = StreamStart { name: "x".repeat(NAME_LEN_BYTES_MAX + 1), ..start() };
        assert!(matches!(long.encode(), Err(FormatError::TooLarge { .. })));
        let parent = Some(StreamParent { ids: [[0; 16]; 4], name: "a".to_owned() });
        assert!(StreamStart { parent, ..start() }.encode().is_err());
        let bytes = start().encode().unwrap();
        for len in 0..bytes.len() {
            assert!(StreamStart::decode(&bytes[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn chunks_come_back_and_tell_their_length() {
        let content = vec![9; CONTENT_LEN_BYTES_MAX];
        for chunk in [Chunk::Part { part: 3, content }, Chunk::End { sum: u128::MAX / 7 }] {
            let bytes = chunk.encode(5).unwrap();
            assert_eq!(Chunk::len_bytes(bytes.first_chunk().unwrap()), Ok(bytes.len()));
            assert_eq!(Chunk::decode(&bytes, 5), Ok(chunk));
            assert!(matches!(Chunk::decode(&bytes, 6), Err(FormatError::Mismatch { .. })));
        }
    }

    #[test]
    fn what_cannot_be_compressed_is_never_longer_than_a_chunk() {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        let content: Vec<u8> = (0..CONTENT_LEN_BYTES_MAX).map(|_| next()).collect();
        let bytes = Chunk::Part { part: 0, content }.encode(0).unwrap();
        assert_eq!(Chunk::len_bytes(bytes.first_chunk().unwrap()), Ok(bytes.len()));
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        for part in [4, 5, 255] {
            assert!(Chunk::Part { part, content: vec![1] }.encode(0).is_err(), "{part}");
        }
        assert!(Chunk::Part { part: 0, content: Vec::new() }.encode(0).is_err());
        let long = vec![0; CONTENT_LEN_BYTES_MAX + 1];
        assert!(Chunk::Part { part: 0, content: long }.encode(0).is_err());
        let mut bytes = Chunk::Part { part: 1, content: vec![1, 2, 3] }.encode(0).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        assert!(matches!(Chunk::decode(&bytes, 0), Err(FormatError::Checksum { .. })));
    }
}
