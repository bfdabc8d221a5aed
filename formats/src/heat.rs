//! The checksums of a directory of heat: which files another program's database has, and what is
//! in them.
//!
//! | offset | size | field | |
//! |---|---|---|---|
//! | 0 | 64 | header | [`crate::header`], magic `opdbHEAT`, version 1 |
//! | 64 | 4 | files_count | |
//! | 68 | 4 | reserved | 0 |
//! | 72 | | files | ascending by name, no name twice |
//!
//! File:
//!
//! | offset | size | field | |
//! |---|---|---|---|
//! | 0 | 8 | len | bytes in the file |
//! | 8 | 8 | checksum | XXH3-64 of them |
//! | 16 | 2 | name_len | 1 to 255 |
//! | 18 | 6 | reserved | 0 |
//! | 24 | name_len | name | path from the directory: letters, digits, `.`, `_`, `-`, parted by `/` |
//!
//! The database's own checks are not ours to trust: a generation is opened only if every file is
//! what it was when it was closed, and there is no other file.

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::FormatError;
use crate::header::{
    FILE_HEADER_LEN_BYTES, FileHeader, FormatVersion, Magic, check_limit, too_short,
};

/// Magic of the format.
pub const MAGIC: Magic = Magic(*b"opdbHEAT");

/// Newest version of the format.
pub const VERSION: FormatVersion = FormatVersion(1);

/// Files that may be listed.
pub const FILES_MAX: usize = 4096;

/// Length of the longest name.
pub const NAME_LEN_MAX_BYTES: usize = 255;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawList {
    files_count: U32,
    reserved: U32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawFile {
    len: U64,
    checksum: U64,
    name_len: U16,
    reserved: [u8; 6],
}

const _: () = {
    assert!(size_of::<RawList>() == 8);
    assert!(size_of::<RawFile>() == 24);
    assert!(offset_of!(RawFile, name_len) == 16);
    assert!(offset_of!(RawFile, reserved) == 18);
};

/// The files of a directory, ascending by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeatChecksums {
    /// The files.
    pub files: Vec<HeatFile>,
}

/// One file of the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeatFile {
    /// Its path from the directory.
    pub name: String,
    /// Its length.
    pub len_bytes: u64,
    /// [`crate::header::checksum`] of its bytes.
    pub checksum: u64,
}

impl HeatChecksums {
    /// Returns the bytes of the list.
    ///
    /// # Errors
    /// [`FormatError`] if the files are too many or not in order, or a name cannot be one.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        check_limit("number of files", self.files.len(), FILES_MAX)?;
        check_order(&self.files)?;
        let raw = RawList { files_count: (self.files.len() as u32).into(), reserved: 0.into() };
        let mut payload = raw.as_bytes().to_vec();
        for file in &self.files {
            check_name(file.name.as_bytes())?;
            let raw = RawFile {
                len: file.len_bytes.into(),
                checksum: file.checksum.into(),
                name_len: (file.name.len() as u16).into(),
                reserved: [0; 6],
            };
            payload.extend_from_slice(raw.as_bytes());
            payload.extend_from_slice(file.name.as_bytes());
        }
        let header = FileHeader::of_payload(MAGIC, VERSION, &payload);
        Ok([&header.encode()[..], &payload].concat())
    }

    /// Decodes the whole list.
    ///
    /// # Errors
    /// Says what is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let payload = FileHeader::decode(bytes, MAGIC, VERSION)?.verified_payload(bytes)?;
        let (raw, mut rest) = RawList::ref_from_prefix(payload)
            .map_err(|_| too_short(FILE_HEADER_LEN_BYTES + size_of::<RawList>(), bytes))?;
        if raw.reserved.get() != 0 {
            let offset = FILE_HEADER_LEN_BYTES + offset_of!(RawList, reserved);
            return Err(FormatError::NonZeroReserved { offset: offset as u64 });
        }
        let files_count = raw.files_count.get() as usize;
        check_limit("number of files", files_count, FILES_MAX)?;
        let mut files = Vec::new();
        for _ in 0..files_count {
            let missing = |needed: usize| too_short(bytes.len() - rest.len() + needed, bytes);
            let (raw, after) =
                RawFile::ref_from_prefix(rest).map_err(|_| missing(size_of::<RawFile>()))?;
            let name_len = usize::from(raw.name_len.get());
            let (name, after) = after
                .split_at_checked(name_len)
                .ok_or_else(|| missing(size_of::<RawFile>() + name_len))?;
            if raw.reserved != [0; 6] {
                let offset = bytes.len() - rest.len() + offset_of!(RawFile, reserved);
                return Err(FormatError::NonZeroReserved { offset: offset as u64 });
            }
            check_name(name)?;
            files.push(HeatFile {
                // Checked to be ASCII, so each byte is a character.
                name: name.iter().map(|byte| char::from(*byte)).collect(),
                len_bytes: raw.len.get(),
                checksum: raw.checksum.get(),
            });
            rest = after;
        }
        if !rest.is_empty() {
            return Err(FormatError::TrailingBytes { count: rest.len() as u64 });
        }
        check_order(&files)?;
        Ok(Self { files })
    }
}

fn check_order(files: &[HeatFile]) -> Result<(), FormatError> {
    match files.windows(2).position(|pair| pair[0].name >= pair[1].name) {
        None => Ok(()),
        Some(position) => Err(FormatError::Mismatch {
            what: "position of a file in the order of names",
            expected: position as u64,
            found: position as u64 + 1,
        }),
    }
}

/// A path that could leave the directory is none.
fn check_name(name: &[u8]) -> Result<(), FormatError> {
    check_limit("length of a file's name in bytes", name.len(), NAME_LEN_MAX_BYTES)?;
    let allowed =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/');
    if let Some(found) = name.iter().copied().find(|byte| !allowed(byte)) {
        return Err(FormatError::UnknownTag { what: "byte of a file's name", found });
    }
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" => return Err(FormatError::Empty { what: "part of a file's name" }),
            b"." | b".." => {
                return Err(FormatError::UnknownTag { what: "byte of a file's name", found: b'.' });
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> HeatChecksums {
        let file = |name: &&str| HeatFile { name: (*name).to_owned(), len_bytes: 5, checksum: 6 };
        HeatChecksums { files: names.iter().map(file).collect() }
    }

    /// A list of one file whose payload `change` has altered, with right checksums.
    fn altered(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut payload = list(&["conf"]).encode().unwrap().split_off(FILE_HEADER_LEN_BYTES);
        change(&mut payload);
        let header = FileHeader::of_payload(MAGIC, VERSION, &payload).encode();
        [&header[..], &payload].concat()
    }

    #[test]
    fn lists_come_back_in_order_only() {
        for names in [&[][..], &["db"], &["blobs/17", "conf", "db", "snap.0000000A"]] {
            let list = list(names);
            assert_eq!(HeatChecksums::decode(&list.encode().unwrap()), Ok(list));
        }
        for names in [["db", "conf"], ["db", "db"]] {
            let error = list(&names).encode().unwrap_err();
            assert!(matches!(error, FormatError::Mismatch { .. }), "{error}");
        }
    }

    #[test]
    fn a_name_that_leaves_the_directory_is_none() {
        for name in ["", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/..", "a b", "a\0", "é"] {
            assert!(list(&[name]).encode().is_err(), "{name:?}");
        }
        assert!(list(&[&"a".repeat(NAME_LEN_MAX_BYTES)]).encode().is_ok());
        assert!(list(&[&"a".repeat(NAME_LEN_MAX_BYTES + 1)]).encode().is_err());
    }

    #[test]
    fn a_wrong_field_is_named_even_when_the_checksum_is_right() {
        let error = |change: fn(&mut Vec<u8>)| HeatChecksums::decode(&altered(change)).unwrap_err();
        assert_eq!(HeatChecksums::decode(&altered(|_| ())), Ok(list(&["conf"])));
        assert_eq!(error(|bytes| bytes[4] = 1), FormatError::NonZeroReserved { offset: 68 });
        assert_eq!(error(|bytes| bytes[26] = 1), FormatError::NonZeroReserved { offset: 90 });
        assert_eq!(error(|bytes| bytes.push(0)), FormatError::TrailingBytes { count: 1 });
        assert!(matches!(error(|bytes| bytes[0] = 2), FormatError::TooShort { .. }));
        assert!(matches!(error(|bytes| bytes[24] = 5), FormatError::TooShort { .. }));
        assert!(matches!(error(|bytes| bytes[2] = 1), FormatError::TooLarge { .. }));
        assert_eq!(
            error(|bytes| bytes.truncate(4)),
            FormatError::TooShort { needed: 72, given: 68 }
        );
    }
}
