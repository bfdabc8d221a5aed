//! The header that every file begins with, and the checksums of files and values.
//!
//! | offset | size | field | |
//! |---|---|---|---|
//! | 0 | 8 | magic | names the format |
//! | 8 | 2 | version | of the format, from 1 |
//! | 10 | 2 | header_len | 64 |
//! | 12 | 4 | reserved | 0 |
//! | 16 | 8 | payload_len | bytes after the header |
//! | 24 | 8 | payload_checksum | XXH3-64 of the payload |
//! | 32 | 24 | reserved | 0 |
//! | 56 | 8 | header_checksum | XXH3-64 of bytes 0 to 55 |
//!
//! The header is one cache line long, so a payload of aligned numbers stays aligned
//! in a mapped file. The two checksums are apart so that a reader may trust the
//! sizes before it has seen the payload.
//!
//! The checksum of a *value* (see the conventions of the crate) is
//! XXH3-64(body, seed = XXH3-64(header without its checksum, seed = magic)).

use std::mem::{offset_of, size_of};

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::FormatError;

/// The eight bytes that name a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Magic(pub [u8; 8]);

impl Magic {
    const fn seed(self) -> u64 {
        u64::from_le_bytes(self.0)
    }
}

/// Version of one format, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FormatVersion(pub u16);

impl FormatVersion {
    /// Checks that `self` is a version between 1 and `newest`.
    ///
    /// # Errors
    /// [`FormatError::UnsupportedVersion`] if it is not.
    pub fn check_supported(self, newest: Self) -> Result<(), FormatError> {
        if self.0 == 0 || self > newest {
            return Err(FormatError::UnsupportedVersion { found: self.0, newest: newest.0 });
        }
        Ok(())
    }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawFileHeader {
    magic: [u8; 8],
    version: U16,
    header_len: U16,
    reserved_low: U32,
    payload_len: U64,
    payload_checksum: U64,
    reserved_high: [u8; 24],
    header_checksum: U64,
}

const _: () = {
    assert!(size_of::<RawFileHeader>() == 64);
    assert!(offset_of!(RawFileHeader, version) == 8);
    assert!(offset_of!(RawFileHeader, header_len) == 10);
    assert!(offset_of!(RawFileHeader, reserved_low) == 12);
    assert!(offset_of!(RawFileHeader, payload_len) == 16);
    assert!(offset_of!(RawFileHeader, payload_checksum) == 24);
    assert!(offset_of!(RawFileHeader, reserved_high) == 32);
    assert!(offset_of!(RawFileHeader, header_checksum) == 56);
};

/// Length of an encoded [`FileHeader`].
pub const FILE_HEADER_LEN_BYTES: usize = size_of::<RawFileHeader>();

/// What the first bytes of a file say about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHeader {
    /// Which format the file has.
    pub magic: Magic,
    /// Which version of that format.
    pub version: FormatVersion,
    /// Length of everything after the header.
    pub payload_len_bytes: u64,
    /// [`checksum`] of everything after the header.
    pub payload_checksum: u64,
}

impl FileHeader {
    /// Creates the header of a file that holds `payload`.
    #[must_use]
    pub fn of_payload(magic: Magic, version: FormatVersion, payload: &[u8]) -> Self {
        Self {
            magic,
            version,
            payload_len_bytes: payload.len() as u64,
            payload_checksum: checksum(payload),
        }
    }

    /// Returns the bytes that a file begins with.
    #[must_use]
    pub fn encode(&self) -> [u8; FILE_HEADER_LEN_BYTES] {
        let mut raw = RawFileHeader {
            magic: self.magic.0,
            version: self.version.0.into(),
            header_len: (FILE_HEADER_LEN_BYTES as u16).into(),
            reserved_low: 0.into(),
            payload_len: self.payload_len_bytes.into(),
            payload_checksum: self.payload_checksum.into(),
            reserved_high: [0; 24],
            header_checksum: 0.into(),
        };
        raw.header_checksum = raw.checksum().into();
        zerocopy::transmute!(raw)
    }

    /// Decodes the header of a file of format `magic`; more bytes may follow it.
    ///
    /// # Errors
    /// Says what is wrong, the wrong format first and then the wrong version, since
    /// both may change what the rest means.
    pub fn decode(bytes: &[u8], magic: Magic, newest: FormatVersion) -> Result<Self, FormatError> {
        let (raw, _) = RawFileHeader::ref_from_prefix(bytes)
            .map_err(|_| too_short(FILE_HEADER_LEN_BYTES, bytes))?;
        if raw.magic != magic.0 {
            return Err(FormatError::BadMagic { found: raw.magic });
        }
        let version = FormatVersion(raw.version.get());
        version.check_supported(newest)?;
        check(raw.header_checksum.get(), raw.checksum())?;
        let header_len = u64::from(raw.header_len.get());
        if header_len != FILE_HEADER_LEN_BYTES as u64 {
            return Err(FormatError::Mismatch {
                what: "header length in bytes",
                expected: FILE_HEADER_LEN_BYTES as u64,
                found: header_len,
            });
        }
        if raw.reserved_low.get() != 0 {
            let offset = offset_of!(RawFileHeader, reserved_low) as u64;
            return Err(FormatError::NonZeroReserved { offset });
        }
        if raw.reserved_high != [0; 24] {
            let offset = offset_of!(RawFileHeader, reserved_high) as u64;
            return Err(FormatError::NonZeroReserved { offset });
        }
        Ok(Self {
            magic,
            version,
            payload_len_bytes: raw.payload_len.get(),
            payload_checksum: raw.payload_checksum.get(),
        })
    }

    /// Returns the payload of `file`, of which `self` is the header, after checking it.
    ///
    /// # Errors
    /// [`FormatError::TooShort`] or [`FormatError::TrailingBytes`] if `file` has
    /// another length, [`FormatError::Checksum`] if the payload is damaged.
    pub fn verified_payload<'a>(&self, file: &'a [u8]) -> Result<&'a [u8], FormatError> {
        let needed = (FILE_HEADER_LEN_BYTES as u64).saturating_add(self.payload_len_bytes);
        let given = file.len() as u64;
        if given < needed {
            return Err(FormatError::TooShort { needed, given });
        }
        if given > needed {
            return Err(FormatError::TrailingBytes { count: given - needed });
        }
        let payload = &file[FILE_HEADER_LEN_BYTES..];
        check(self.payload_checksum, checksum(payload))?;
        Ok(payload)
    }
}

impl RawFileHeader {
    fn checksum(&self) -> u64 {
        checksum(&self.as_bytes()[..offset_of!(Self, header_checksum)])
    }
}

/// Returns the checksum that files carry: XXH3-64 without a seed.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// Returns the checksum of a value from the part of its header before the checksum
/// and from its body.
///
/// The parts are hashed in a chain instead of as one stream because the one-shot
/// function is several times faster than the streaming one on short values.
#[must_use]
pub fn value_checksum(magic: Magic, head: &[u8], body: &[u8]) -> u64 {
    xxh3_64_with_seed(body, xxh3_64_with_seed(head, magic.seed()))
}

pub(crate) fn check(expected: u64, found: u64) -> Result<(), FormatError> {
    if expected != found {
        return Err(FormatError::Checksum { expected, found });
    }
    Ok(())
}

pub(crate) fn too_short(needed: usize, given: &[u8]) -> FormatError {
    FormatError::TooShort { needed: needed as u64, given: given.len() as u64 }
}

/// Checks the first two bytes of a value: its marker and its version.
pub(crate) fn check_value_start(
    what: &'static str,
    marker: (u8, u8),
    version: u8,
    newest: u8,
) -> Result<(), FormatError> {
    let (expected, found) = marker;
    if found != expected {
        return Err(FormatError::UnknownTag { what, found });
    }
    FormatVersion(version.into()).check_supported(FormatVersion(newest.into()))
}

/// Checks that a value is written in the oldest version that can say it.
pub(crate) fn check_oldest(what: &'static str, found: u8, oldest: u8) -> Result<(), FormatError> {
    if found != oldest {
        return Err(FormatError::Mismatch { what, expected: oldest.into(), found: found.into() });
    }
    Ok(())
}

pub(crate) fn check_limit(
    what: &'static str,
    found: usize,
    limit: usize,
) -> Result<(), FormatError> {
    if found > limit {
        return Err(FormatError::TooLarge { what, found: found as u64, limit: limit as u64 });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: Magic = Magic(*b"opdbtest");
    const NEWEST: FormatVersion = FormatVersion(2);

    /// Encodes a header whose raw fields `change` has altered, with a right checksum.
    fn altered(change: impl FnOnce(&mut RawFileHeader)) -> Vec<u8> {
        let encoded = FileHeader::of_payload(MAGIC, NEWEST, b"payload").encode();
        let mut raw = RawFileHeader::read_from_bytes(&encoded).unwrap();
        change(&mut raw);
        raw.header_checksum = raw.checksum().into();
        raw.as_bytes().to_vec()
    }

    #[test]
    fn a_header_comes_back() {
        let header = FileHeader::of_payload(MAGIC, NEWEST, b"payload");
        let mut file = header.encode().to_vec();
        file.extend_from_slice(b"payload");
        assert_eq!(FileHeader::decode(&file, MAGIC, NEWEST), Ok(header));
        assert_eq!(header.verified_payload(&file), Ok(&b"payload"[..]));
        file.push(0);
        assert_eq!(header.verified_payload(&file), Err(FormatError::TrailingBytes { count: 1 }));
    }

    #[test]
    fn a_wrong_field_is_named_even_when_the_checksum_is_right() {
        let decode = |bytes: &[u8]| FileHeader::decode(bytes, MAGIC, NEWEST);
        assert_eq!(
            decode(&altered(|raw| raw.magic = *b"opdboops")),
            Err(FormatError::BadMagic { found: *b"opdboops" })
        );
        for found in [0, 3, u16::MAX] {
            assert_eq!(
                decode(&altered(|raw| raw.version = found.into())),
                Err(FormatError::UnsupportedVersion { found, newest: 2 })
            );
        }
        assert_eq!(
            decode(&altered(|raw| raw.header_len = 65.into())),
            Err(FormatError::Mismatch { what: "header length in bytes", expected: 64, found: 65 })
        );
        assert_eq!(
            decode(&altered(|raw| raw.reserved_low = 1.into())),
            Err(FormatError::NonZeroReserved { offset: 12 })
        );
        assert_eq!(
            decode(&altered(|raw| raw.reserved_high[23] = 1)),
            Err(FormatError::NonZeroReserved { offset: 32 })
        );
    }

    #[test]
    fn an_untrusted_length_does_not_overflow() {
        let bytes = altered(|raw| raw.payload_len = u64::MAX.into());
        let header = FileHeader::decode(&bytes, MAGIC, NEWEST).unwrap();
        assert_eq!(
            header.verified_payload(&bytes),
            Err(FormatError::TooShort { needed: u64::MAX, given: 64 })
        );
    }

    #[test]
    fn the_checksum_of_a_value_depends_on_magic_and_on_the_border_of_its_parts() {
        let base = value_checksum(MAGIC, b"ab", b"cd");
        assert_ne!(base, value_checksum(Magic(*b"opdbelse"), b"ab", b"cd"));
        assert_ne!(base, value_checksum(MAGIC, b"a", b"bcd"));
    }
}
