//! The file `SNAPSHOT`, which says that a snapshot is whole and what it is of.
//!
//! | offset | size | field | |
//! |---|---|---|---|
//! | 0 | 64 | header | [`crate::header`], magic `opdbSNAP`, version 1 |
//! | 64 | 16 | store_id | of the store that it was taken of |
//! | 80 | 8 | sequence | u64, of the last change in it |
//! | 88 | 8 | taken_unix_ms | milliseconds since 1970-01-01 UTC |
//! | 96 | 16 | files_sum | XXH3-128 of the names and lengths of its files |
//! | 112 | 4 | files_count | u32 |
//! | 116 | 1 | flags | bit 0: it is kept until somebody deletes it |
//! | 117 | 1 | reserved | 0 |
//! | 118 | 2 | reason_len_bytes | u16 |
//! | 120 | reason_len_bytes | reason | UTF-8 |
//!
//! It is written last, and never changed: a snapshot without it is none.

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::FormatError;
use crate::header::{FILE_HEADER_LEN_BYTES, FileHeader, FormatVersion, Magic, too_short};

/// Magic of the format.
pub const MAGIC: Magic = Magic(*b"opdbSNAP");

/// Newest version of the format.
pub const VERSION: FormatVersion = FormatVersion(1);

/// Longest reason.
pub const REASON_LEN_BYTES_MAX: usize = 1024;

/// Longest file.
pub const SNAPSHOT_FILE_LEN_BYTES_MAX: usize =
    FILE_HEADER_LEN_BYTES + size_of::<RawSnapshot>() + REASON_LEN_BYTES_MAX;

const FLAG_KEPT: u8 = 1;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawSnapshot {
    store_id: [u8; 16],
    sequence: U64,
    taken_unix_ms: U64,
    files_sum: [u8; 16],
    files_count: U32,
    flags: u8,
    reserved: u8,
    reason_len_bytes: U16,
}

const _: () = {
    assert!(size_of::<RawSnapshot>() == 56);
    assert!(offset_of!(RawSnapshot, files_sum) == 32);
    assert!(offset_of!(RawSnapshot, reason_len_bytes) == 54);
};

/// What a snapshot is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFile {
    /// The store that it was taken of.
    pub store_id: [u8; 16],
    /// The last change in it.
    pub sequence: u64,
    /// When it was taken, in milliseconds since 1970-01-01 UTC.
    pub taken_unix_ms: u64,
    /// XXH3-128 of the names and lengths of its files.
    pub files_sum: u128,
    /// How many files it has.
    pub files_count: u32,
    /// Whether it is kept until somebody deletes it.
    pub is_kept: bool,
    /// Why it was taken.
    pub reason: String,
}

impl SnapshotFile {
    /// Returns the bytes of the file.
    ///
    /// # Errors
    /// [`FormatError::TooLarge`] if the reason is too long.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        let len = self.reason.len();
        let fitting = u16::try_from(len).ok().filter(|_| len <= REASON_LEN_BYTES_MAX);
        let reason_len_bytes = fitting.ok_or(too_long(len))?;
        let raw = RawSnapshot {
            store_id: self.store_id,
            sequence: self.sequence.into(),
            taken_unix_ms: self.taken_unix_ms.into(),
            files_sum: self.files_sum.to_le_bytes(),
            files_count: self.files_count.into(),
            flags: if self.is_kept { FLAG_KEPT } else { 0 },
            reserved: 0,
            reason_len_bytes: reason_len_bytes.into(),
        };
        let payload = [raw.as_bytes(), self.reason.as_bytes()].concat();
        let header = FileHeader::of_payload(MAGIC, VERSION, &payload);
        Ok([&header.encode()[..], &payload].concat())
    }

    /// Decodes the whole file.
    ///
    /// # Errors
    /// Says what is wrong with the bytes.
    pub fn decode(file: &[u8]) -> Result<Self, FormatError> {
        let payload = FileHeader::decode(file, MAGIC, VERSION)?.verified_payload(file)?;
        let (raw, reason) = RawSnapshot::ref_from_prefix(payload)
            .map_err(|_| too_short(FILE_HEADER_LEN_BYTES + size_of::<RawSnapshot>(), file))?;
        let len = usize::from(raw.reason_len_bytes.get());
        if reason.len() > len {
            return Err(FormatError::TrailingBytes { count: (reason.len() - len) as u64 });
        }
        if reason.len() < len {
            return Err(too_short(file.len() + len - reason.len(), file));
        }
        let reserved = [(raw.flags & !FLAG_KEPT, 52), (raw.reserved, 53)];
        if let Some((_, place)) = reserved.iter().find(|(bits, _)| *bits != 0) {
            let offset = (FILE_HEADER_LEN_BYTES + place) as u64;
            return Err(FormatError::NonZeroReserved { offset });
        }
        if len > REASON_LEN_BYTES_MAX {
            return Err(too_long(len));
        }
        let reason = std::str::from_utf8(reason).map_err(|error| FormatError::InvalidUtf8 {
            what: "the reason of the snapshot",
            offset: error.valid_up_to() as u64,
        })?;
        Ok(Self {
            store_id: raw.store_id,
            sequence: raw.sequence.get(),
            taken_unix_ms: raw.taken_unix_ms.get(),
            files_sum: u128::from_le_bytes(raw.files_sum),
            files_count: raw.files_count.get(),
            is_kept: raw.flags & FLAG_KEPT != 0,
            reason: reason.to_owned(),
        })
    }
}

fn too_long(len: usize) -> FormatError {
    FormatError::TooLarge {
        what: "length of the reason in bytes",
        found: len as u64,
        limit: REASON_LEN_BYTES_MAX as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_decodes_and_what_is_too_long_is_refused() {
        let mut snapshot = SnapshotFile {
            store_id: [7; 16],
            sequence: 42,
            taken_unix_ms: 1_800_000_000_000,
            files_sum: u128::MAX / 3,
            files_count: 17,
            is_kept: true,
            reason: "before the upgrade, grüßt".to_owned(),
        };
        assert_eq!(SnapshotFile::decode(&snapshot.encode().unwrap()), Ok(snapshot.clone()));
        snapshot.reason = "x".repeat(REASON_LEN_BYTES_MAX);
        let longest = snapshot.encode().unwrap();
        assert_eq!(longest.len(), SNAPSHOT_FILE_LEN_BYTES_MAX);
        assert_eq!(SnapshotFile::decode(&longest), Ok(snapshot.clone()));
        snapshot.reason.push('x');
        assert!(snapshot.encode().is_err());
    }
}
