//! Pages of files that are read in parts: each has a checksum, and the checksums have one.
//!
//! A page's checksum is seeded with the format, with its number and with what the file belongs to,
//! so that a page in the place of another, or from another file, is noticed.

use crate::FormatError;
use crate::header::{Magic, value_checksum};

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
