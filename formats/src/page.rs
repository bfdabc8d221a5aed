//! Pages of files that are read in parts: each has a checksum, and the checksums have one.
//!
//! A page's checksum is seeded with the format, with its number and with what the file belongs to,
//! so that a page in the place of another, or from another file, is noticed.

use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::FormatError;
use crate::header::{
    FILE_HEADER_LEN_BYTES, FileHeader, FormatVersion, Magic, too_short, value_checksum,
};

/// Length of the shortest page.
pub const PAGE_LEN_MIN_BYTES: u64 = 512;

/// Length of the longest page, and so of the beginning of a file that decoding its header may need.
pub const PAGE_LEN_MAX_BYTES: u64 = 65_536;

/// Length of a page's checksum.
pub const CHECKSUM_LEN_BYTES: usize = size_of::<u64>();

/// Returns the checksum of the page at this place in a file of this owner.
#[must_use]
pub fn page_checksum(magic: Magic, owner: &[u8; 16], page_index: u64, page: &[u8]) -> u64 {
    let mut place = [0; 24];
    place[..16].copy_from_slice(owner);
    place[16..].copy_from_slice(&page_index.to_le_bytes());
    value_checksum(magic, &place, page)
}

/// Returns the checksum of the checksums of a file of this owner.
#[must_use]
pub fn table_checksum(magic: Magic, owner: &[u8; 16], checksums: &[u8]) -> u64 {
    value_checksum(magic, owner, checksums)
}

pub(crate) fn check_page_len(found: u64) -> Result<(), FormatError> {
    let what = "page length in bytes";
    if found > PAGE_LEN_MAX_BYTES {
        return Err(FormatError::TooLarge { what, found, limit: PAGE_LEN_MAX_BYTES });
    }
    let expected = found.next_power_of_two().max(PAGE_LEN_MIN_BYTES);
    if found == expected { Ok(()) } else { Err(FormatError::Mismatch { what, expected, found }) }
}

/// Returns a file's first page: the file header, what the format says, and zeros.
pub(crate) fn encode_header_page(
    magic: Magic,
    version: FormatVersion,
    page_len_bytes: u64,
    raw: &[u8],
) -> Vec<u8> {
    let mut page = vec![0; page_len_bytes as usize];
    let (head, payload) = page.split_at_mut(FILE_HEADER_LEN_BYTES);
    payload[..raw.len()].copy_from_slice(raw);
    head.copy_from_slice(&FileHeader::of_payload(magic, version, payload).encode());
    page
}

/// Finds what the format says in a file's first page, and how long pages are; more bytes may follow.
pub(crate) fn decode_header_page<T>(
    bytes: &[u8],
    magic: Magic,
    newest: FormatVersion,
) -> Result<(u64, &T), FormatError>
where
    T: FromBytes + KnownLayout + Immutable + Unaligned,
{
    let file_header = FileHeader::decode(bytes, magic, newest)?;
    let page_len_bytes =
        (FILE_HEADER_LEN_BYTES as u64).saturating_add(file_header.payload_len_bytes);
    check_page_len(page_len_bytes)?;
    let page = bytes
        .get(..page_len_bytes as usize)
        .ok_or_else(|| too_short(page_len_bytes as usize, bytes))?;
    let payload = file_header.verified_payload(page)?;
    let (raw, rest) = T::ref_from_prefix(payload)
        .map_err(|_| too_short(FILE_HEADER_LEN_BYTES + size_of::<T>(), bytes))?;
    if let Some(position) = rest.iter().position(|byte| *byte != 0) {
        let offset = page.len() - rest.len() + position;
        return Err(FormatError::NonZeroReserved { offset: offset as u64 });
    }
    Ok((page_len_bytes, raw))
}
