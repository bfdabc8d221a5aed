//! A block of heat: how often some vectors were used.
//!
//! | offset | size | field | |
//! |---|---|---|---|
//! | 0 | 1 | marker | `H` |
//! | 1 | 1 | version | 1 |
//! | 2 | 2 | reserved | 0 |
//! | 4 | 4 | counts_count | at least 1 |
//! | 8 | 8 | checksum | of a value ([`crate::header`]), magic `opdbHTBK` |
//! | 16 | to the end | counts | |
//!
//! Count:
//!
//! | offset | size | field | |
//! |---|---|---|---|
//! | 0 | 4 | uses | |
//! | 4 | 2 | locator_len | at least 1 |
//! | 6 | 2 | reserved | 0 |
//! | 8 | locator_len | locator | what the vector is found by |
//!
//! Many counts make one value because the database they are kept in costs kilobytes of memory for
//! each key.

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::FormatError;
use crate::header::{Magic, check, check_limit, check_value_start, too_short, value_checksum};

/// Magic of the format, which seeds the checksum.
pub const MAGIC: Magic = Magic(*b"opdbHTBK");
const MARKER: u8 = b'H';
const VERSION: u8 = 1;

/// Length of the header, whose last eight bytes are the checksum.
pub const HEADER_LEN_BYTES: usize = size_of::<RawBlock>();

/// Length of the longest locator.
pub const LOCATOR_LEN_MAX_BYTES: usize = u16::MAX as usize;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawBlock {
    marker: u8,
    version: u8,
    reserved: U16,
    counts_count: U32,
    checksum: U64,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawCount {
    uses: U32,
    locator_len: U16,
    reserved: U16,
}

const _: () = {
    assert!(size_of::<RawBlock>() == 16);
    assert!(offset_of!(RawBlock, reserved) == 2);
    assert!(offset_of!(RawBlock, counts_count) == 4);
    assert!(offset_of!(RawBlock, checksum) == 8);
    assert!(size_of::<RawCount>() == 8);
    assert!(offset_of!(RawCount, locator_len) == 4);
    assert!(offset_of!(RawCount, reserved) == 6);
};

/// How often one vector was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count<'a> {
    /// What the vector is found by.
    pub locator: &'a [u8],
    /// How often it was used.
    pub uses: u32,
}

impl Count<'_> {
    /// Bytes that this count takes in a block.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        size_of::<RawCount>() + self.locator.len()
    }
}

/// Returns the bytes of a block.
///
/// # Errors
/// [`FormatError::Empty`] or [`FormatError::TooLarge`] if there is no count, or a locator cannot be
/// one.
pub fn encode(counts: &[Count<'_>]) -> Result<Vec<u8>, FormatError> {
    check_limit("number of counts", counts.len(), u32::MAX as usize)?;
    if counts.is_empty() {
        return Err(FormatError::Empty { what: "block of heat" });
    }
    let mut raw = RawBlock {
        marker: MARKER,
        version: VERSION,
        reserved: 0.into(),
        counts_count: (counts.len() as u32).into(),
        checksum: 0.into(),
    };
    let mut bytes = raw.as_bytes().to_vec();
    for count in counts {
        check_limit("length of a locator in bytes", count.locator.len(), LOCATOR_LEN_MAX_BYTES)?;
        if count.locator.is_empty() {
            return Err(FormatError::Empty { what: "locator" });
        }
        let raw = RawCount {
            uses: count.uses.into(),
            locator_len: (count.locator.len() as u16).into(),
            reserved: 0.into(),
        };
        bytes.extend_from_slice(raw.as_bytes());
        bytes.extend_from_slice(count.locator);
    }
    raw.checksum = raw.checksum_with(&bytes[HEADER_LEN_BYTES..]).into();
    bytes[..HEADER_LEN_BYTES].copy_from_slice(raw.as_bytes());
    Ok(bytes)
}

/// Decodes a block; locators stay where they are.
///
/// # Errors
/// Says what is wrong with the bytes.
pub fn decode(bytes: &[u8]) -> Result<Vec<Count<'_>>, FormatError> {
    let (raw, mut rest) =
        RawBlock::ref_from_prefix(bytes).map_err(|_| too_short(HEADER_LEN_BYTES, bytes))?;
    check_value_start("marker of a block of heat", (MARKER, raw.marker), raw.version, VERSION)?;
    check(raw.checksum.get(), raw.checksum_with(rest))?;
    if raw.reserved.get() != 0 {
        let offset = offset_of!(RawBlock, reserved) as u64;
        return Err(FormatError::NonZeroReserved { offset });
    }
    let counts_count = raw.counts_count.get();
    if counts_count == 0 {
        return Err(FormatError::Empty { what: "block of heat" });
    }
    let mut counts = Vec::new();
    for _ in 0..counts_count {
        let offset = bytes.len() - rest.len();
        let missing = |needed: usize| too_short(offset + needed, bytes);
        let (raw, after) =
            RawCount::ref_from_prefix(rest).map_err(|_| missing(size_of::<RawCount>()))?;
        let locator_len = usize::from(raw.locator_len.get());
        if locator_len == 0 {
            return Err(FormatError::Empty { what: "locator" });
        }
        if raw.reserved.get() != 0 {
            let offset = (offset + offset_of!(RawCount, reserved)) as u64;
            return Err(FormatError::NonZeroReserved { offset });
        }
        let (locator, after) = after
            .split_at_checked(locator_len)
            .ok_or_else(|| missing(size_of::<RawCount>() + locator_len))?;
        counts.push(Count { locator, uses: raw.uses.get() });
        rest = after;
    }
    if !rest.is_empty() {
        return Err(FormatError::TrailingBytes { count: rest.len() as u64 });
    }
    Ok(counts)
}

impl RawBlock {
    fn checksum_with(&self, counts: &[u8]) -> u64 {
        value_checksum(MAGIC, &self.as_bytes()[..offset_of!(Self, checksum)], counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNTS: [Count<'_>; 2] =
        [Count { locator: b"ab", uses: 7 }, Count { locator: &[0xFF; 300], uses: u32::MAX }];

    /// A block whose bytes `change` has altered, with a checksum that is right.
    fn altered(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = encode(&COUNTS).unwrap();
        change(&mut bytes);
        let checksum = value_checksum(MAGIC, &bytes[..8], &bytes[HEADER_LEN_BYTES..]);
        bytes[8..16].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    #[test]
    fn a_block_comes_back() {
        let bytes = encode(&COUNTS).unwrap();
        assert_eq!(decode(&bytes), Ok(COUNTS.to_vec()));
        let len_bytes: usize = COUNTS.iter().map(Count::len_bytes).sum();
        assert_eq!(bytes.len(), HEADER_LEN_BYTES + len_bytes);
    }

    #[test]
    fn what_cannot_be_in_a_block_is_refused() {
        assert_eq!(encode(&[]), Err(FormatError::Empty { what: "block of heat" }));
        let with = |locator: &[u8]| encode(&[Count { locator, uses: 1 }]).map(|bytes| bytes.len());
        assert_eq!(with(b""), Err(FormatError::Empty { what: "locator" }));
        assert!(with(&[1; LOCATOR_LEN_MAX_BYTES]).is_ok());
        assert!(with(&[1; LOCATOR_LEN_MAX_BYTES + 1]).is_err());
    }

    #[test]
    fn a_wrong_field_is_named_even_when_the_checksum_is_right() {
        type Change = fn(&mut Vec<u8>);
        let cases: [(Change, &str); 9] = [
            (|bytes| bytes[0] = b'R', "marker of a block of heat"),
            (|bytes| bytes[1] = 2, "version 2"),
            (|bytes| bytes[2] = 1, "offset 2"),
            (|bytes| bytes[4] = 0, "block of heat is empty"),
            (|bytes| bytes[4] = 1, "308 bytes follow"),
            (|bytes| bytes[7] = 255, "too short"),
            (|bytes| bytes[20] = 0, "locator is empty"),
            (|bytes| bytes[22] = 1, "offset 22"),
            (|bytes| bytes.truncate(330), "too short: 334"),
        ];
        for (change, expected) in cases {
            let error = decode(&altered(change)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}, expected {expected}");
        }
    }
}
