//! A trace: which vectors were asked for, in order.
//!
//! A file that grows. It begins with
//!
//! | offset | size | field | |
//! |---|---|---|---|
//! | 0 | 64 | header | [`crate::header`], magic `opdbTRCE`, version 1; its payload is the next 24 bytes |
//! | 64 | 16 | store_id | the store that was asked |
//! | 80 | 8 | started_unix_ms | milliseconds since 1970-01-01 UTC |
//!
//! and goes on with blocks, each of
//!
//! | offset | size | field | |
//! |---|---|---|---|
//! | 0 | 4 | accesses_count | 1 to 4096 |
//! | 4 | 4 | number | of the block, from 0 |
//! | 8 | 8 | checksum | of a value ([`crate::header`]), magic `opdbTRCE` |
//! | 16 | 12 × accesses_count | accesses | |
//!
//! | offset | size | field | |
//! |---|---|---|---|
//! | 0 | 8 | key_hash | hash of what was asked for, under the seed of the store |
//! | 8 | 4 | vector_len | bytes of its vector at full precision, not 0 |
//!
//! The seed is not in the file, so a trace does not tell which texts were asked for. A block is
//! written whole or was never finished: a file whose end is no block ends before it.

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::FormatError;
use crate::header::{
    FILE_HEADER_LEN_BYTES, FileHeader, FormatVersion, Magic, check, too_short, value_checksum,
};

/// Magic of the format.
pub const MAGIC: Magic = Magic(*b"opdbTRCE");

/// Newest version of the format.
pub const VERSION: FormatVersion = FormatVersion(1);

/// Length of an encoded [`TraceStart`].
pub const TRACE_START_LEN_BYTES: usize = FILE_HEADER_LEN_BYTES + size_of::<RawTraceStart>();

/// Most accesses of a block.
pub const BLOCK_ACCESSES_MAX: usize = 4096;

/// Length of the header of a block, whose last eight bytes are the checksum.
pub const BLOCK_HEADER_LEN_BYTES: usize = size_of::<RawBlockHeader>();

/// Length of the longest block.
pub const BLOCK_LEN_MAX_BYTES: usize =
    BLOCK_HEADER_LEN_BYTES + BLOCK_ACCESSES_MAX * size_of::<RawAccess>();

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawTraceStart {
    store_id: [u8; 16],
    started_unix_ms: U64,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawBlockHeader {
    accesses_count: U32,
    number: U32,
    checksum: U64,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawAccess {
    key_hash: U64,
    vector_len: U32,
}

const _: () = {
    assert!(size_of::<RawTraceStart>() == 24);
    assert!(offset_of!(RawTraceStart, started_unix_ms) == 16);
    assert!(size_of::<RawBlockHeader>() == 16);
    assert!(offset_of!(RawBlockHeader, number) == 4);
    assert!(offset_of!(RawBlockHeader, checksum) == 8);
    assert!(size_of::<RawAccess>() == 12);
    assert!(offset_of!(RawAccess, vector_len) == 8);
};

/// What a trace says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceStart {
    /// Identity of the store that was asked.
    pub store_id: [u8; 16],
    /// When recording began, in milliseconds since 1970-01-01 UTC.
    pub started_unix_ms: u64,
}

/// One vector that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TracedAccess {
    /// Hash of what was asked for.
    pub key_hash: u64,
    /// Length of its vector at full precision, not 0.
    pub vector_len_bytes: u32,
}

impl TraceStart {
    /// Returns the bytes that a trace begins with.
    #[must_use]
    pub fn encode(&self) -> [u8; TRACE_START_LEN_BYTES] {
        let raw =
            RawTraceStart { store_id: self.store_id, started_unix_ms: self.started_unix_ms.into() };
        let header = FileHeader::of_payload(MAGIC, VERSION, raw.as_bytes());
        let mut bytes = [0; TRACE_START_LEN_BYTES];
        bytes[..FILE_HEADER_LEN_BYTES].copy_from_slice(&header.encode());
        bytes[FILE_HEADER_LEN_BYTES..].copy_from_slice(raw.as_bytes());
        bytes
    }

    /// Decodes the first [`TRACE_START_LEN_BYTES`] of a trace.
    ///
    /// # Errors
    /// Says what is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let payload = FileHeader::decode(bytes, MAGIC, VERSION)?.verified_payload(bytes)?;
        let (raw, rest) = RawTraceStart::ref_from_prefix(payload)
            .map_err(|_| too_short(TRACE_START_LEN_BYTES, bytes))?;
        if !rest.is_empty() {
            return Err(FormatError::TrailingBytes { count: rest.len() as u64 });
        }
        Ok(Self { store_id: raw.store_id, started_unix_ms: raw.started_unix_ms.get() })
    }
}

/// Returns the bytes of the block with this number.
///
/// # Errors
/// [`FormatError::Empty`] or [`FormatError::TooLarge`] for more accesses than a block has, or none;
/// [`FormatError::Empty`] for an access without a vector.
pub fn encode_block(number: u32, accesses: &[TracedAccess]) -> Result<Vec<u8>, FormatError> {
    check_count(accesses.len() as u64)?;
    let mut block = vec![0; BLOCK_HEADER_LEN_BYTES];
    for access in accesses {
        access.check()?;
        let raw = RawAccess {
            key_hash: access.key_hash.into(),
            vector_len: access.vector_len_bytes.into(),
        };
        block.extend_from_slice(raw.as_bytes());
    }
    let mut header = RawBlockHeader {
        accesses_count: (accesses.len() as u32).into(),
        number: number.into(),
        checksum: 0.into(),
    };
    header.checksum = header.checksum_with(&block[BLOCK_HEADER_LEN_BYTES..]).into();
    block[..BLOCK_HEADER_LEN_BYTES].copy_from_slice(header.as_bytes());
    Ok(block)
}

/// Returns the length of the block that begins with this header, so that a reader knows how much
/// to read. The header is not verified yet, but the length is one that a block can have.
///
/// # Errors
/// As [`decode_block`].
pub fn block_len_bytes(header: &[u8; BLOCK_HEADER_LEN_BYTES]) -> Result<usize, FormatError> {
    let raw: &RawBlockHeader = zerocopy::transmute_ref!(header);
    let count = raw.accesses_count.get();
    check_count(count.into())?;
    Ok(BLOCK_HEADER_LEN_BYTES + count as usize * size_of::<RawAccess>())
}

/// Decodes a whole block, which must have this number.
///
/// # Errors
/// Says what is wrong with the bytes.
pub fn decode_block(block: &[u8], number: u32) -> Result<Vec<TracedAccess>, FormatError> {
    let (raw, body) = RawBlockHeader::ref_from_prefix(block)
        .map_err(|_| too_short(BLOCK_HEADER_LEN_BYTES, block))?;
    check(raw.checksum.get(), raw.checksum_with(body))?;
    let count = raw.accesses_count.get();
    check_count(count.into())?;
    let body_len = u64::from(count) * size_of::<RawAccess>() as u64;
    if body.len() as u64 != body_len {
        return Err(FormatError::Mismatch {
            what: "length of a block's accesses in bytes",
            expected: body_len,
            found: body.len() as u64,
        });
    }
    if raw.number.get() != number {
        return Err(FormatError::Mismatch {
            what: "number of a block",
            expected: number.into(),
            found: raw.number.get().into(),
        });
    }
    let decode = |bytes: &[u8; size_of::<RawAccess>()]| {
        let raw: &RawAccess = zerocopy::transmute_ref!(bytes);
        let access =
            TracedAccess { key_hash: raw.key_hash.get(), vector_len_bytes: raw.vector_len.get() };
        access.check().map(|()| access)
    };
    body.as_chunks().0.iter().map(decode).collect()
}

fn check_count(count: u64) -> Result<(), FormatError> {
    let limit = BLOCK_ACCESSES_MAX as u64;
    match count {
        0 => Err(FormatError::Empty { what: "block of a trace" }),
        found if found > limit => {
            Err(FormatError::TooLarge { what: "number of accesses in a block", found, limit })
        }
        _ => Ok(()),
    }
}

impl TracedAccess {
    fn check(&self) -> Result<(), FormatError> {
        match self.vector_len_bytes {
            0 => Err(FormatError::Empty { what: "vector of an access" }),
            _ => Ok(()),
        }
    }
}

impl RawBlockHeader {
    fn checksum_with(&self, body: &[u8]) -> u64 {
        value_checksum(MAGIC, &self.as_bytes()[..offset_of!(Self, checksum)], body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCESS: TracedAccess =
        TracedAccess { key_hash: 0x0123_4567_89AB_CDEF, vector_len_bytes: 4 };

    /// A block with a right checksum, whatever else is wrong.
    fn sealed(accesses_count: u32, number: u32, body: &[u8]) -> Vec<u8> {
        let mut raw = RawBlockHeader {
            accesses_count: accesses_count.into(),
            number: number.into(),
            checksum: 0.into(),
        };
        raw.checksum = raw.checksum_with(body).into();
        [raw.as_bytes(), body].concat()
    }

    #[test]
    fn a_block_comes_back_and_tells_its_length() {
        for count in [1, 2, BLOCK_ACCESSES_MAX] {
            let block = encode_block(7, &vec![ACCESS; count]).unwrap();
            let header: &[u8; BLOCK_HEADER_LEN_BYTES] = block.first_chunk().unwrap();
            assert_eq!(block_len_bytes(header), Ok(block.len()));
            assert_eq!(decode_block(&block, 7), Ok(vec![ACCESS; count]));
            assert!(block.len() <= BLOCK_LEN_MAX_BYTES);
        }
    }

    #[test]
    fn what_is_no_block_is_not_written() {
        let empty = |what| Err(FormatError::Empty { what });
        assert_eq!(encode_block(0, &[]), empty("block of a trace"));
        assert!(encode_block(0, &vec![ACCESS; BLOCK_ACCESSES_MAX + 1]).is_err());
        let no_vector = TracedAccess { vector_len_bytes: 0, ..ACCESS };
        assert_eq!(encode_block(0, &[no_vector]), empty("vector of an access"));
    }

    #[test]
    fn a_wrong_field_is_named_even_when_the_checksum_is_right() {
        let one = [1; size_of::<RawAccess>()];
        assert!(decode_block(&sealed(1, 3, &one), 3).is_ok());
        let error = |block: &[u8]| decode_block(block, 3).unwrap_err();
        assert_eq!(error(&sealed(0, 3, &[])), FormatError::Empty { what: "block of a trace" });
        let found = BLOCK_ACCESSES_MAX as u64 + 1;
        assert!(matches!(
            error(&sealed(found as u32, 3, &one)),
            FormatError::TooLarge { found: f, .. } if f == found
        ));
        assert!(matches!(
            error(&sealed(2, 3, &one)),
            FormatError::Mismatch { expected: 24, found: 12, .. }
        ));
        assert!(matches!(
            error(&sealed(1, 4, &one)),
            FormatError::Mismatch { expected: 3, found: 4, .. }
        ));
        let no_vector = [1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0];
        let expected = FormatError::Empty { what: "vector of an access" };
        assert_eq!(error(&sealed(1, 3, &no_vector)), expected);
    }

    #[test]
    fn a_start_of_another_length_is_refused() {
        for payload in [&[1_u8; 23][..], &[1; 25]] {
            let mut bytes = FileHeader::of_payload(MAGIC, VERSION, payload).encode().to_vec();
            bytes.extend_from_slice(payload);
            assert!(TraceStart::decode(&bytes).is_err(), "{} bytes", payload.len());
        }
    }
}
