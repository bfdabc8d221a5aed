//! One version of a record: what the history holds under each sequence number of a key.
//!
//! | offset | size | field | |
//! |---|---|---|---|
//! | 0 | 1 | marker | `H` |
//! | 1 | 1 | version | 1 |
//! | 2 | 1 | operation | 1 put, 2 remove |
//! | 3 | 5 | reserved | 0 |
//! | 8 | 8 | written_at_unix_ms | milliseconds since 1970-01-01 UTC |
//! | 16 | 8 | checksum | of a value ([`crate::header`]), magic `opdbHIST` |
//! | 24 | | record | encoded [record](crate::record); empty after a removal |
//!
//! The record is not decoded here: it has a version and a checksum of its own. A vector
//! that a caller gave lies beside a record, not in it, so the history has none.

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::header::{Magic, check, check_value_start, too_short, value_checksum};
use crate::{FormatError, Operation};

/// Magic of the format, which seeds the checksum.
pub const MAGIC: Magic = Magic(*b"opdbHIST");
const MARKER: u8 = b'H';
const VERSION: u8 = 1;

/// Length of the header, whose last eight bytes are the checksum.
pub const HEADER_LEN_BYTES: usize = size_of::<RawEntry>();

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawEntry {
    marker: u8,
    version: u8,
    operation: u8,
    reserved: [u8; 5],
    written_at_unix_ms: U64,
    checksum: U64,
}

const _: () = {
    assert!(size_of::<RawEntry>() == 24);
    assert!(offset_of!(RawEntry, operation) == 2);
    assert!(offset_of!(RawEntry, reserved) == 3);
    assert!(offset_of!(RawEntry, written_at_unix_ms) == 8);
    assert!(offset_of!(RawEntry, checksum) == 16);
};

/// What a record was after one change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryEntry<'a> {
    /// When the change was committed, by the clock of that moment.
    pub written_at_unix_ms: u64,
    /// The encoded record; `None` if it was removed.
    pub record: Option<&'a [u8]>,
}

impl<'a> HistoryEntry<'a> {
    /// What happened.
    #[must_use]
    pub const fn operation(&self) -> Operation {
        match self.record {
            Some(_) => Operation::Put,
            None => Operation::Remove,
        }
    }

    /// Returns the bytes of the entry.
    ///
    /// # Errors
    /// [`FormatError::Empty`] if there is a record of no bytes, which is none.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        let record = self.record.unwrap_or_default();
        check_record(self.operation(), record)?;
        let mut raw = RawEntry {
            marker: MARKER,
            version: VERSION,
            operation: self.operation() as u8,
            reserved: [0; 5],
            written_at_unix_ms: self.written_at_unix_ms.into(),
            checksum: 0.into(),
        };
        raw.checksum = raw.checksum_with(record).into();
        let mut bytes = Vec::with_capacity(HEADER_LEN_BYTES + record.len());
        bytes.extend_from_slice(raw.as_bytes());
        bytes.extend_from_slice(record);
        Ok(bytes)
    }

    /// Decodes an entry; the record stays where it is.
    ///
    /// # Errors
    /// Says what is wrong with the bytes.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let (raw, record) =
            RawEntry::ref_from_prefix(bytes).map_err(|_| too_short(HEADER_LEN_BYTES, bytes))?;
        check_value_start("marker of a version", (MARKER, raw.marker), raw.version, VERSION)?;
        check(raw.checksum.get(), raw.checksum_with(record))?;
        if raw.reserved != [0; 5] {
            let offset = offset_of!(RawEntry, reserved) as u64;
            return Err(FormatError::NonZeroReserved { offset });
        }
        let operation = raw.operation.try_into()?;
        check_record(operation, record)?;
        Ok(Self {
            written_at_unix_ms: raw.written_at_unix_ms.get(),
            record: (operation == Operation::Put).then_some(record),
        })
    }
}

fn check_record(operation: Operation, record: &[u8]) -> Result<(), FormatError> {
    match operation {
        Operation::Put if record.is_empty() => Err(FormatError::Empty { what: "record" }),
        Operation::Remove if !record.is_empty() => {
            Err(FormatError::TrailingBytes { count: record.len() as u64 })
        }
        Operation::Put | Operation::Remove => Ok(()),
    }
}

impl RawEntry {
    fn checksum_with(&self, record: &[u8]) -> u64 {
        value_checksum(MAGIC, &self.as_bytes()[..offset_of!(Self, checksum)], record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn altered(record: &[u8], change: impl FnOnce(&mut RawEntry)) -> Vec<u8> {
        let encoded = HistoryEntry { written_at_unix_ms: 7, record: Some(b"x") }.encode().unwrap();
        let mut raw = RawEntry::read_from_bytes(&encoded[..HEADER_LEN_BYTES]).unwrap();
        change(&mut raw);
        raw.checksum = raw.checksum_with(record).into();
        [raw.as_bytes(), record].concat()
    }

    #[test]
    fn a_wrong_field_is_named_even_when_the_checksum_is_right() {
        assert!(HistoryEntry::decode(&altered(b"record", |_| ())).is_ok());
        let error = |bytes: Vec<u8>| HistoryEntry::decode(&bytes).unwrap_err();
        for found in [0, 3, 255] {
            let unknown = FormatError::UnknownTag { what: "operation", found };
            assert_eq!(error(altered(b"r", |raw| raw.operation = found)), unknown);
        }
        assert_eq!(
            error(altered(b"r", |raw| raw.marker = b'C')),
            FormatError::UnknownTag { what: "marker of a version", found: b'C' }
        );
        assert_eq!(
            error(altered(b"r", |raw| raw.version = 2)),
            FormatError::UnsupportedVersion { found: 2, newest: 1 }
        );
        assert_eq!(
            error(altered(b"r", |raw| raw.reserved[4] = 1)),
            FormatError::NonZeroReserved { offset: 3 }
        );
        assert_eq!(error(altered(b"", |_| ())), FormatError::Empty { what: "record" });
        assert_eq!(
            error(altered(b"r", |raw| raw.operation = Operation::Remove as u8)),
            FormatError::TrailingBytes { count: 1 }
        );
    }
}
