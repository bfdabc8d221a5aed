//! One committed change: what the change log holds under each sequence number.
//!
//! | offset | size | field | |
//! |---|---|---|---|
//! | 0 | 1 | marker | `C` |
//! | 1 | 1 | version | 1 |
//! | 2 | 1 | operation | 1 put, 2 remove |
//! | 3 | 1 | reserved | 0 |
//! | 4 | 4 | collection | identity of the collection |
//! | 8 | 8 | checksum | of a value ([`crate::header`]), magic `opdbCHNG` |
//! | 16 | 1 to 4096 | key | to the end |
//!
//! A change says which record changed, not what it became: whoever replays the log
//! reads the record as it is now, so replaying twice does no harm.

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::header::{Magic, check, check_value_start, too_short, value_checksum};
use crate::record::check_key;
use crate::{CollectionId, FormatError};

/// Magic of the format, which seeds the checksum.
pub const MAGIC: Magic = Magic(*b"opdbCHNG");
const MARKER: u8 = b'C';
const VERSION: u8 = 1;

/// Length of the header, whose last eight bytes are the checksum.
pub const HEADER_LEN_BYTES: usize = size_of::<RawChange>();

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawChange {
    marker: u8,
    version: u8,
    operation: u8,
    reserved: u8,
    collection: U32,
    checksum: U64,
}

const _: () = {
    assert!(size_of::<RawChange>() == 16);
    assert!(offset_of!(RawChange, operation) == 2);
    assert!(offset_of!(RawChange, reserved) == 3);
    assert!(offset_of!(RawChange, collection) == 4);
    assert!(offset_of!(RawChange, checksum) == 8);
};

/// What happened to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Operation {
    /// It was created or replaced.
    Put = 1,
    /// It was removed.
    Remove = 2,
}

impl TryFrom<u8> for Operation {
    type Error = FormatError;

    fn try_from(tag: u8) -> Result<Self, FormatError> {
        match tag {
            1 => Ok(Self::Put),
            2 => Ok(Self::Remove),
            found => Err(FormatError::UnknownTag { what: "operation", found }),
        }
    }
}

/// One committed change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// What happened.
    pub operation: Operation,
    /// Where.
    pub collection: CollectionId,
    /// To which record.
    pub key: &'a [u8],
}

impl<'a> Change<'a> {
    /// Returns the bytes of the change.
    ///
    /// # Errors
    /// [`FormatError::Empty`] or [`FormatError::TooLarge`] if the key cannot be one.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        check_key(self.key)?;
        let mut raw = RawChange {
            marker: MARKER,
            version: VERSION,
            operation: self.operation as u8,
            reserved: 0,
            collection: self.collection.0.into(),
            checksum: 0.into(),
        };
        raw.checksum = raw.checksum_with(self.key).into();
        let mut bytes = Vec::with_capacity(HEADER_LEN_BYTES + self.key.len());
        bytes.extend_from_slice(raw.as_bytes());
        bytes.extend_from_slice(self.key);
        Ok(bytes)
    }

    /// Decodes a change; the key stays where it is.
    ///
    /// # Errors
    /// Says what is wrong with the bytes.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let (raw, key) =
            RawChange::ref_from_prefix(bytes).map_err(|_| too_short(HEADER_LEN_BYTES, bytes))?;
        check_value_start("marker of a change", (MARKER, raw.marker), raw.version, VERSION)?;
        check(raw.checksum.get(), raw.checksum_with(key))?;
        if raw.reserved != 0 {
            let offset = offset_of!(RawChange, reserved) as u64;
            return Err(FormatError::NonZeroReserved { offset });
        }
        check_key(key)?;
        Ok(Self {
            operation: raw.operation.try_into()?,
            collection: CollectionId(raw.collection.get()),
            key,
        })
    }
}

impl RawChange {
    fn checksum_with(&self, key: &[u8]) -> u64 {
        value_checksum(MAGIC, &self.as_bytes()[..offset_of!(Self, checksum)], key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::KEY_LEN_MAX_BYTES;

    fn altered(key: &[u8], change: impl FnOnce(&mut RawChange)) -> Vec<u8> {
        let mut raw = RawChange {
            marker: MARKER,
            version: VERSION,
            operation: Operation::Put as u8,
            reserved: 0,
            collection: 1.into(),
            checksum: 0.into(),
        };
        change(&mut raw);
        raw.checksum = raw.checksum_with(key).into();
        [raw.as_bytes(), key].concat()
    }

    #[test]
    fn a_wrong_field_is_named_even_when_the_checksum_is_right() {
        assert!(Change::decode(&altered(b"k", |_| ())).is_ok());
        let error = |bytes: Vec<u8>| Change::decode(&bytes).unwrap_err();
        for found in [0, 3, 255] {
            assert_eq!(
                error(altered(b"k", |raw| raw.operation = found)),
                FormatError::UnknownTag { what: "operation", found }
            );
        }
        assert_eq!(
            error(altered(b"k", |raw| raw.marker = b'R')),
            FormatError::UnknownTag { what: "marker of a change", found: b'R' }
        );
        assert_eq!(
            error(altered(b"k", |raw| raw.version = 2)),
            FormatError::UnsupportedVersion { found: 2, newest: 1 }
        );
        assert_eq!(
            error(altered(b"k", |raw| raw.reserved = 1)),
            FormatError::NonZeroReserved { offset: 3 }
        );
        assert_eq!(error(altered(b"", |_| ())), FormatError::Empty { what: "key" });
        assert!(matches!(
            error(altered(&[1; KEY_LEN_MAX_BYTES + 1], |_| ())),
            FormatError::TooLarge { limit: 4096, .. }
        ));
    }

    #[test]
    fn tags_and_bytes_agree() {
        for operation in [Operation::Put, Operation::Remove] {
            assert_eq!(Operation::try_from(operation as u8), Ok(operation));
        }
    }
}
