//! The manifest: which files of vectors count, and how each begins.
//!
//! The file holds two slots of 4,096 bytes. A manifest of generation n is written into slot
//! n mod 2, so that the one before it stays whole; the whole slot with the greater generation
//! counts.
//!
//! | offset | size | field | |
//! |---|---|---|---|
//! | 0 | 64 | header | [`crate::header`], magic `opdbMNFT`, version 1; payload up to the slot's end |
//! | 64 | 8 | generation | from 1 |
//! | 72 | 16 | store_id | identity of the store |
//! | 88 | 4 | files_count | 0 to 38 |
//! | 92 | 4 | reserved | 0 |
//! | 96 | 104 each | files | |
//! | after the last | to the slot's end | reserved | 0 |
//!
//! File:
//!
//! | offset | size | field | |
//! |---|---|---|---|
//! | 0 | 64 | name | `a` to `z`, digits, `.`, `-`; not first a `.`; zeros after it |
//! | 64 | 8 | len | bytes in the file |
//! | 72 | 8 | header_checksum | XXH3-64 of the file's header page |
//! | 80 | 8 | sequence | last committed change that is in the file |
//! | 88 | 8 | cache_generation | which life of the embedding cache its vectors are from |
//! | 96 | 4 | dimensions | of its vectors |
//! | 100 | 4 | reserved | 0 |

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::FormatError;
use crate::header::{
    FILE_HEADER_LEN_BYTES, FileHeader, FormatVersion, Magic, check_limit, too_short,
};

/// Magic of the format.
pub const MAGIC: Magic = Magic(*b"opdbMNFT");

/// Newest version of the format.
pub const VERSION: FormatVersion = FormatVersion(1);

/// Length of one slot.
pub const SLOT_LEN_BYTES: usize = 4096;

/// Slots in the file.
pub const SLOTS_COUNT: usize = 2;

/// Files that one manifest can name.
pub const FILES_MAX: usize =
    (SLOT_LEN_BYTES - FILE_HEADER_LEN_BYTES - size_of::<RawManifest>()) / size_of::<RawFile>();

/// Length of the longest name of a file.
pub const NAME_LEN_MAX_BYTES: usize = 64;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawManifest {
    generation: U64,
    store_id: [u8; 16],
    files_count: U32,
    reserved: U32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawFile {
    name: [u8; NAME_LEN_MAX_BYTES],
    len: U64,
    header_checksum: U64,
    sequence: U64,
    cache_generation: U64,
    dimensions: U32,
    reserved: U32,
}

const _: () = {
    assert!(size_of::<RawManifest>() == 32);
    assert!(offset_of!(RawManifest, files_count) == 24);
    assert!(offset_of!(RawManifest, reserved) == 28);
    assert!(size_of::<RawFile>() == 104);
    assert!(offset_of!(RawFile, len) == 64);
    assert!(offset_of!(RawFile, dimensions) == 96);
    assert!(offset_of!(RawFile, reserved) == 100);
    assert!(FILES_MAX == 38);
};

/// The files that count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// From 1; each manifest has the generation of the one before it plus 1.
    pub generation: u64,
    /// Which store it belongs to.
    pub store_id: [u8; 16],
    /// The files.
    pub files: Vec<ManifestFile>,
}

/// One file, and what it must be to be that file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestFile {
    /// Its name.
    pub name: String,
    /// Its length.
    pub len_bytes: u64,
    /// [`crate::header::checksum`] of its header page.
    pub header_checksum: u64,
    /// Sequence of the last committed change that is in it.
    pub sequence: u64,
    /// Which life of the embedding cache its vectors are from.
    pub cache_generation: u64,
    /// Elements of its vectors.
    pub dimensions: u32,
}

/// Returns the slot that a manifest of this generation is written into.
#[must_use]
pub fn slot_index(generation: u64) -> usize {
    (generation % SLOTS_COUNT as u64) as usize
}

/// Returns the manifest that counts, and what is wrong with slots that hold none.
///
/// A slot of zeros, or beyond the file's end, was never written: that is no problem.
#[must_use]
pub fn newest(file: &[u8]) -> (Option<Manifest>, Vec<FormatError>) {
    let (mut newest, mut problems) = (None::<Manifest>, Vec::new());
    if file.len() > SLOT_LEN_BYTES * SLOTS_COUNT {
        let count = (file.len() - SLOT_LEN_BYTES * SLOTS_COUNT) as u64;
        problems.push(FormatError::TrailingBytes { count });
    }
    for (index, slot) in file.chunks(SLOT_LEN_BYTES).take(SLOTS_COUNT).enumerate() {
        if slot.iter().all(|byte| *byte == 0) {
            continue;
        }
        match Manifest::decode(slot) {
            Ok(manifest) if slot_index(manifest.generation) != index => {
                let (expected, found) = (slot_index(manifest.generation) as u64, index as u64);
                problems.push(FormatError::Mismatch { what: "index of a slot", expected, found });
            }
            Ok(manifest) if newest.as_ref().is_none_or(|n| n.generation < manifest.generation) => {
                newest = Some(manifest);
            }
            Ok(_) => {}
            Err(problem) => problems.push(problem),
        }
    }
    (newest, problems)
}

impl Manifest {
    /// Returns the bytes of a slot.
    ///
    /// # Errors
    /// [`FormatError::TooLarge`], [`FormatError::Empty`] or [`FormatError::UnknownTag`] if there
    /// are too many files or one has a name that none can have.
    pub fn encode(&self) -> Result<[u8; SLOT_LEN_BYTES], FormatError> {
        check_counts(self.generation, self.files.len())?;
        let raw = RawManifest {
            generation: self.generation.into(),
            store_id: self.store_id,
            files_count: (self.files.len() as u32).into(),
            reserved: 0.into(),
        };
        let mut payload = raw.as_bytes().to_vec();
        for file in &self.files {
            payload.extend_from_slice(file.raw()?.as_bytes());
        }
        payload.resize(SLOT_LEN_BYTES - FILE_HEADER_LEN_BYTES, 0);
        let mut slot = [0; SLOT_LEN_BYTES];
        let header = FileHeader::of_payload(MAGIC, VERSION, &payload);
        slot[..FILE_HEADER_LEN_BYTES].copy_from_slice(&header.encode());
        slot[FILE_HEADER_LEN_BYTES..].copy_from_slice(&payload);
        Ok(slot)
    }

    /// Decodes a slot.
    ///
    /// # Errors
    /// Says what is wrong with the bytes.
    pub fn decode(slot: &[u8]) -> Result<Self, FormatError> {
        let payload = FileHeader::decode(slot, MAGIC, VERSION)?.verified_payload(slot)?;
        if slot.len() != SLOT_LEN_BYTES {
            let (expected, found) = (SLOT_LEN_BYTES as u64, slot.len() as u64);
            let what = "length of a slot in bytes";
            return Err(FormatError::Mismatch { what, expected, found });
        }
        let (raw, rest) = RawManifest::ref_from_prefix(payload)
            .map_err(|_| too_short(FILE_HEADER_LEN_BYTES + size_of::<RawManifest>(), slot))?;
        if raw.reserved.get() != 0 {
            let offset = FILE_HEADER_LEN_BYTES + offset_of!(RawManifest, reserved);
            return Err(FormatError::NonZeroReserved { offset: offset as u64 });
        }
        let files_count = raw.files_count.get() as usize;
        check_counts(raw.generation.get(), files_count)?;
        let (files, unused) = <[RawFile]>::ref_from_prefix_with_elems(rest, files_count)
            .map_err(|_| too_short(SLOT_LEN_BYTES, slot))?;
        if let Some(position) = unused.iter().position(|byte| *byte != 0) {
            let offset = slot.len() - unused.len() + position;
            return Err(FormatError::NonZeroReserved { offset: offset as u64 });
        }
        let files = files.iter().map(ManifestFile::from_raw).collect::<Result<_, _>>()?;
        Ok(Self { generation: raw.generation.get(), store_id: raw.store_id, files })
    }
}

impl ManifestFile {
    fn raw(&self) -> Result<RawFile, FormatError> {
        check_name(self.name.as_bytes())?;
        let mut name = [0; NAME_LEN_MAX_BYTES];
        name[..self.name.len()].copy_from_slice(self.name.as_bytes());
        Ok(RawFile {
            name,
            len: self.len_bytes.into(),
            header_checksum: self.header_checksum.into(),
            sequence: self.sequence.into(),
            cache_generation: self.cache_generation.into(),
            dimensions: self.dimensions.into(),
            reserved: 0.into(),
        })
    }

    fn from_raw(raw: &RawFile) -> Result<Self, FormatError> {
        let name_len = raw.name.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let name = &raw.name[..name_len];
        check_name(name)?;
        if raw.reserved.get() != 0 {
            let offset = offset_of!(RawFile, reserved) as u64;
            return Err(FormatError::NonZeroReserved { offset });
        }
        Ok(Self {
            // Checked to be ASCII, so each byte is a character.
            name: name.iter().map(|byte| char::from(*byte)).collect(),
            len_bytes: raw.len.get(),
            header_checksum: raw.header_checksum.get(),
            sequence: raw.sequence.get(),
            cache_generation: raw.cache_generation.get(),
            dimensions: raw.dimensions.get(),
        })
    }
}

fn check_counts(generation: u64, files_count: usize) -> Result<(), FormatError> {
    if generation == 0 {
        return Err(FormatError::Empty { what: "generation" });
    }
    check_limit("number of files", files_count, FILES_MAX)
}

/// A name that could leave the directory, or hide in it, is none.
fn check_name(name: &[u8]) -> Result<(), FormatError> {
    check_limit("length of a file's name in bytes", name.len(), NAME_LEN_MAX_BYTES)?;
    let first = *name.first().ok_or(FormatError::Empty { what: "name of a file" })?;
    let allowed = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-');
    let wrong =
        name.iter().copied().find(|byte| !allowed(byte)).or((first == b'.').then_some(first));
    match wrong {
        None => Ok(()),
        Some(found) => Err(FormatError::UnknownTag { what: "byte of a file's name", found }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(generation: u64, files_count: usize) -> Manifest {
        let file = |index: usize| ManifestFile {
            name: format!("{generation}-{index}.arena"),
            len_bytes: 1 << index,
            header_checksum: 5,
            sequence: 6,
            cache_generation: 7,
            dimensions: 8,
        };
        Manifest { generation, store_id: [3; 16], files: (0..files_count).map(file).collect() }
    }

    fn both(even: &[u8], odd: &[u8]) -> Vec<u8> {
        [even, odd].concat()
    }

    /// A slot whose payload `change` has altered, with right checksums.
    fn altered(change: impl FnOnce(&mut [u8])) -> [u8; SLOT_LEN_BYTES] {
        let mut slot = manifest(1, 1).encode().unwrap();
        let (head, payload) = slot.split_at_mut(FILE_HEADER_LEN_BYTES);
        change(payload);
        head.copy_from_slice(&FileHeader::of_payload(MAGIC, VERSION, payload).encode());
        slot
    }

    #[test]
    fn the_greater_generation_counts_and_a_damaged_slot_falls_back() {
        let (older, newer) = (manifest(4, FILES_MAX), manifest(5, 0));
        let file = both(&older.encode().unwrap(), &newer.encode().unwrap());
        assert_eq!(newest(&file), (Some(newer), Vec::new()));
        for offset in SLOT_LEN_BYTES..file.len() {
            let mut damaged = file.clone();
            damaged[offset] ^= 0x10;
            let (found, problems) = newest(&damaged);
            assert_eq!(found.as_ref(), Some(&older), "byte {offset}");
            assert_eq!(problems.len(), 1, "byte {offset}");
            damaged[offset - SLOT_LEN_BYTES] ^= 0x10;
            let (found, problems) = newest(&damaged);
            assert_eq!((found, problems.len()), (None, 2), "byte {offset}");
        }
        for len in 0..file.len() {
            let expected = (len >= SLOT_LEN_BYTES).then_some(&older);
            assert_eq!(newest(&file[..len]).0.as_ref(), expected, "{len} bytes");
        }
    }

    #[test]
    fn slots_in_each_others_places_do_not_count() {
        let file = both(&manifest(5, 1).encode().unwrap(), &manifest(4, 1).encode().unwrap());
        let (found, problems) = newest(&file);
        assert_eq!((found, problems.len()), (None, 2));
    }

    #[test]
    fn a_slot_that_was_never_written_is_no_damage() {
        let only = manifest(1, 2);
        let file = both(&[0; SLOT_LEN_BYTES], &only.encode().unwrap());
        assert_eq!(newest(&file), (Some(only), Vec::new()));
        assert_eq!(newest(&[]), (None, Vec::new()));
        let longer = newest(&[&file[..], &[1]].concat());
        assert_eq!(longer.1, [FormatError::TrailingBytes { count: 1 }]);
    }

    #[test]
    fn a_wrong_field_is_named_even_when_the_checksum_is_right() {
        let error = |change: fn(&mut [u8])| Manifest::decode(&altered(change)).unwrap_err();
        assert_eq!(Manifest::decode(&altered(|_| ())), Ok(manifest(1, 1)));
        assert_eq!(error(|bytes| bytes[0] = 0), FormatError::Empty { what: "generation" });
        assert!(matches!(error(|bytes| bytes[24] = 39), FormatError::TooLarge { limit: 38, .. }));
        assert_eq!(error(|bytes| bytes[28] = 1), FormatError::NonZeroReserved { offset: 92 });
        assert_eq!(error(|bytes| bytes[132] = 1), FormatError::NonZeroReserved { offset: 100 });
        assert_eq!(error(|bytes| bytes[4031] = 1), FormatError::NonZeroReserved { offset: 4095 });
        assert_eq!(error(|bytes| bytes[24] = 2), FormatError::Empty { what: "name of a file" });
    }

    #[test]
    fn a_name_that_leaves_the_directory_is_none() {
        for name in ["", ".", "..", "a/b", "../x", "A", "a\0b", "é", ".a", &"a".repeat(65)] {
            let mut manifest = manifest(1, 1);
            manifest.files[0].name = name.to_owned();
            assert!(manifest.encode().is_err(), "{name:?}");
            if name.len() <= NAME_LEN_MAX_BYTES {
                let slot = altered(|payload| {
                    payload[32..96].fill(0);
                    payload[32..32 + name.len()].copy_from_slice(name.as_bytes());
                });
                assert!(Manifest::decode(&slot).is_err(), "{name:?}");
            }
        }
        let mut longest = manifest(1, 1);
        longest.files[0].name = "a".repeat(64);
        assert_eq!(Manifest::decode(&longest.encode().unwrap()), Ok(longest));
    }
}
