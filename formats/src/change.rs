//! Committed changes: what the change log holds under the sequence number of the last of them.
//!
//! Version 1, one change:
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
//! Version 2, at least two with successive sequences:
//!
//! | offset | size | field | |
//! |---|---|---|---|
//! | 0 | 1 | marker | `C` |
//! | 1 | 1 | version | 2 |
//! | 2 | 2 | changes_count | 2 to [`CHANGES_COUNT_MAX`] |
//! | 4 | 4 | reserved | 0 |
//! | 8 | 8 | checksum | as above |
//! | 16 | | changes | to the end, the first one first |
//!
//! and of each change:
//!
//! | offset | size | field | |
//! |---|---|---|---|
//! | 0 | 1 | operation | as above |
//! | 1 | 1 | reserved | 0 |
//! | 2 | 2 | key_len | 1 to 4096 |
//! | 4 | 4 | collection | identity of the collection |
//! | 8 | key_len | key | |
//!
//! A change says which record changed, not what it became: whoever replays the log
//! reads the record as it is now, so replaying twice does no harm.

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::header::{Magic, check, check_limit, check_value_start, too_short, value_checksum};
use crate::record::{KEY_LEN_MAX_BYTES, check_key};
use crate::{CollectionId, FormatError};

/// Magic of the format, which seeds the checksum.
pub const MAGIC: Magic = Magic(*b"opdbCHNG");
const MARKER: u8 = b'C';
const ONE: u8 = 1;
const SEVERAL: u8 = 2;

/// Most changes that one value holds.
pub const CHANGES_COUNT_MAX: usize = 1024;

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

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawChanges {
    marker: u8,
    version: u8,
    changes_count: U16,
    reserved: U32,
    checksum: U64,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawEntry {
    operation: u8,
    reserved: u8,
    key_len: U16,
    collection: U32,
}

const _: () = {
    assert!(size_of::<RawChange>() == 16);
    assert!(offset_of!(RawChange, operation) == 2);
    assert!(offset_of!(RawChange, reserved) == 3);
    assert!(offset_of!(RawChange, collection) == 4);
    assert!(offset_of!(RawChange, checksum) == 8);
    assert!(size_of::<RawChanges>() == 16);
    assert!(offset_of!(RawChanges, changes_count) == 2);
    assert!(offset_of!(RawChanges, reserved) == 4);
    assert!(offset_of!(RawChanges, checksum) == 8);
    assert!(size_of::<RawEntry>() == 8);
    assert!(offset_of!(RawEntry, key_len) == 2);
    assert!(offset_of!(RawEntry, collection) == 4);
    // The count and the lengths of keys hold what is allowed.
    assert!(CHANGES_COUNT_MAX <= u16::MAX as usize);
    assert!(KEY_LEN_MAX_BYTES <= u16::MAX as usize);
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

/// Returns the bytes of changes with successive sequences.
///
/// # Errors
/// [`FormatError::Empty`] or [`FormatError::TooLarge`] if there are none or too many, or if a key
/// cannot be one.
pub fn encode(changes: &[Change<'_>]) -> Result<Vec<u8>, FormatError> {
    match changes {
        [] => Err(FormatError::Empty { what: "list of changes" }),
        [change] => change.encode(),
        changes => encode_several(changes),
    }
}

fn encode_several(changes: &[Change<'_>]) -> Result<Vec<u8>, FormatError> {
    check_limit("number of changes", changes.len(), CHANGES_COUNT_MAX)?;
    let entries_len: usize =
        changes.iter().map(|change| size_of::<RawEntry>() + change.key.len()).sum();
    let mut bytes = Vec::with_capacity(HEADER_LEN_BYTES + entries_len);
    let mut raw = RawChanges {
        marker: MARKER,
        version: SEVERAL,
        changes_count: (changes.len() as u16).into(),
        reserved: 0.into(),
        checksum: 0.into(),
    };
    bytes.extend_from_slice(raw.as_bytes());
    for change in changes {
        check_key(change.key)?;
        let entry = RawEntry {
            operation: change.operation as u8,
            reserved: 0,
            key_len: (change.key.len() as u16).into(),
            collection: change.collection.0.into(),
        };
        bytes.extend_from_slice(entry.as_bytes());
        bytes.extend_from_slice(change.key);
    }
    // The entries must be in one piece to be hashed, so the checksum comes last.
    raw.checksum = raw.checksum_with(&bytes[HEADER_LEN_BYTES..]).into();
    bytes[..HEADER_LEN_BYTES].copy_from_slice(raw.as_bytes());
    Ok(bytes)
}

/// Decodes changes with successive sequences, the first one first; keys stay where they are.
///
/// # Errors
/// Says what is wrong with the bytes.
pub fn decode(bytes: &[u8]) -> Result<Vec<Change<'_>>, FormatError> {
    // Both versions begin alike.
    let (raw, body) =
        RawChanges::ref_from_prefix(bytes).map_err(|_| too_short(HEADER_LEN_BYTES, bytes))?;
    check_value_start("marker of a change", (MARKER, raw.marker), raw.version, SEVERAL)?;
    check(raw.checksum.get(), raw.checksum_with(body))?;
    if raw.version == ONE { Ok(vec![Change::decode(bytes)?]) } else { decode_several(raw, body) }
}

fn decode_several<'a>(
    raw: &RawChanges,
    mut body: &'a [u8],
) -> Result<Vec<Change<'a>>, FormatError> {
    if raw.reserved.get() != 0 {
        let offset = offset_of!(RawChanges, reserved) as u64;
        return Err(FormatError::NonZeroReserved { offset });
    }
    let count = usize::from(raw.changes_count.get());
    check_limit("number of changes", count, CHANGES_COUNT_MAX)?;
    if count < 2 {
        let found = count as u64;
        return Err(FormatError::Mismatch { what: "number of changes", expected: 2, found });
    }
    let mut changes = Vec::with_capacity(count);
    for _ in 0..count {
        let (change, rest) = Change::decode_entry(body)?;
        changes.push(change);
        body = rest;
    }
    match body.len() as u64 {
        0 => Ok(changes),
        count => Err(FormatError::TrailingBytes { count }),
    }
}

impl<'a> Change<'a> {
    fn encode(&self) -> Result<Vec<u8>, FormatError> {
        check_key(self.key)?;
        let mut raw = RawChange {
            marker: MARKER,
            version: ONE,
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

    /// Decodes a value of version 1, whose checksum is right.
    fn decode(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let (raw, key) =
            RawChange::ref_from_prefix(bytes).map_err(|_| too_short(HEADER_LEN_BYTES, bytes))?;
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

    /// Decodes the first of the entries of version 2, and returns the others.
    fn decode_entry(entries: &'a [u8]) -> Result<(Self, &'a [u8]), FormatError> {
        let (raw, rest) = RawEntry::ref_from_prefix(entries)
            .map_err(|_| too_short(size_of::<RawEntry>(), entries))?;
        if raw.reserved != 0 {
            let offset = offset_of!(RawEntry, reserved) as u64;
            return Err(FormatError::NonZeroReserved { offset });
        }
        let key_len = usize::from(raw.key_len.get());
        let (key, rest) = rest.split_at_checked(key_len).ok_or_else(|| too_short(key_len, rest))?;
        check_key(key)?;
        let collection = CollectionId(raw.collection.get());
        Ok((Self { operation: raw.operation.try_into()?, collection, key }, rest))
    }
}

impl RawChange {
    fn checksum_with(&self, key: &[u8]) -> u64 {
        value_checksum(MAGIC, &self.as_bytes()[..offset_of!(Self, checksum)], key)
    }
}

impl RawChanges {
    fn checksum_with(&self, entries: &[u8]) -> u64 {
        value_checksum(MAGIC, &self.as_bytes()[..offset_of!(Self, checksum)], entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn altered(key: &[u8], change: impl FnOnce(&mut RawChange)) -> Vec<u8> {
        let mut raw = RawChange {
            marker: MARKER,
            version: ONE,
            operation: Operation::Put as u8,
            reserved: 0,
            collection: 1.into(),
            checksum: 0.into(),
        };
        change(&mut raw);
        raw.checksum = raw.checksum_with(key).into();
        [raw.as_bytes(), key].concat()
    }

    /// Two changes, after `change` has altered the header and the entries.
    fn several_altered(change: impl FnOnce(&mut RawChanges, &mut Vec<u8>)) -> Vec<u8> {
        let one = Change { operation: Operation::Put, collection: CollectionId(1), key: b"k" };
        let bytes = encode(&[one, one]).unwrap();
        let (head, entries) = bytes.split_at(HEADER_LEN_BYTES);
        let mut raw = RawChanges::read_from_bytes(head).unwrap();
        let mut entries = entries.to_vec();
        change(&mut raw, &mut entries);
        raw.checksum = raw.checksum_with(&entries).into();
        [raw.as_bytes(), &entries].concat()
    }

    #[test]
    fn a_wrong_field_is_named_even_when_the_checksum_is_right() {
        assert!(decode(&altered(b"k", |_| ())).is_ok());
        let error = |bytes: Vec<u8>| decode(&bytes).unwrap_err();
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
            error(altered(b"k", |raw| raw.version = 3)),
            FormatError::UnsupportedVersion { found: 3, newest: 2 }
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
    fn a_wrong_field_among_several_is_named() {
        assert_eq!(decode(&several_altered(|_, _| ())).map(|changes| changes.len()), Ok(2));
        let error = |change: fn(&mut RawChanges, &mut Vec<u8>)| {
            decode(&several_altered(change)).unwrap_err()
        };
        let count = |found| FormatError::Mismatch { what: "number of changes", expected: 2, found };
        assert_eq!(error(|raw, _| raw.changes_count = 0.into()), count(0));
        assert_eq!(error(|raw, _| raw.changes_count = 1.into()), count(1));
        let too_short = FormatError::TooShort { needed: 8, given: 0 };
        assert_eq!(error(|raw, _| raw.changes_count = 3.into()), too_short);
        assert!(matches!(
            error(|raw, _| raw.changes_count = 1025.into()),
            FormatError::TooLarge { found: 1025, limit: 1024, .. }
        ));
        let reserved = |offset| FormatError::NonZeroReserved { offset };
        assert_eq!(error(|raw, _| raw.reserved = 1.into()), reserved(4));
        assert_eq!(error(|_, entries| entries[1] = 1), reserved(1));
        assert_eq!(
            error(|_, entries| entries[9] = 0),
            FormatError::UnknownTag { what: "operation", found: 0 }
        );
        assert_eq!(error(|_, entries| entries[2] = 0), FormatError::Empty { what: "key" });
        let too_short = FormatError::TooShort { needed: 2, given: 1 };
        assert_eq!(error(|_, entries| entries[11] = 2), too_short);
        assert_eq!(error(|_, entries| entries.push(0)), FormatError::TrailingBytes { count: 1 });
    }

    #[test]
    fn none_and_too_many_are_refused() {
        let one = Change { operation: Operation::Put, collection: CollectionId(1), key: b"k" };
        assert_eq!(encode(&[]), Err(FormatError::Empty { what: "list of changes" }));
        assert!(encode(&[one; CHANGES_COUNT_MAX]).is_ok());
        assert!(matches!(
            encode(&[one; CHANGES_COUNT_MAX + 1]),
            Err(FormatError::TooLarge { found: 1025, .. })
        ));
    }

    #[test]
    fn tags_and_bytes_agree() {
        for operation in [Operation::Put, Operation::Remove] {
            assert_eq!(Operation::try_from(operation as u8), Ok(operation));
        }
    }
}
