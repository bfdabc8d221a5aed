//! The file `STORE`, which says that a directory is a store and which one.
//!
//! | offset | size | field | |
//! |---|---|---|---|
//! | 0 | 64 | header | [`crate::header`], magic `opdbSTOR`, version 1 |
//! | 64 | 16 | store_id | random, not all zero |
//! | 80 | 8 | hash_seed | secret seed of the hashes of this store |
//! | 88 | 8 | created_unix_ms | milliseconds since 1970-01-01 UTC |
//!
//! It is written once and never changed. The seed keeps a stranger from choosing
//! texts whose hashes collide, so whoever may read this file may do that.

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::FormatError;
use crate::header::{FILE_HEADER_LEN_BYTES, FileHeader, FormatVersion, Magic, too_short};

/// Magic of the format.
pub const MAGIC: Magic = Magic(*b"opdbSTOR");

/// Newest version of the format.
pub const VERSION: FormatVersion = FormatVersion(1);

/// Length of an encoded [`StoreFile`].
pub const STORE_FILE_LEN_BYTES: usize = FILE_HEADER_LEN_BYTES + size_of::<RawStoreFile>();

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawStoreFile {
    store_id: [u8; 16],
    hash_seed: U64,
    created_unix_ms: U64,
}

const _: () = {
    assert!(size_of::<RawStoreFile>() == 32);
    assert!(offset_of!(RawStoreFile, hash_seed) == 16);
    assert!(offset_of!(RawStoreFile, created_unix_ms) == 24);
};

/// Identity of a store.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct StoreFile {
    /// Random identity; two stores never share one, copies of a store do.
    pub store_id: [u8; 16],
    /// Seed of the hashes of this store.
    pub hash_seed: u64,
    /// When the store was created, in milliseconds since 1970-01-01 UTC.
    pub created_unix_ms: u64,
}

impl std::fmt::Debug for StoreFile {
    // By hand, so that the secret seed does not reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreFile")
            .field("store_id", &format_args!("{:032x}", u128::from_be_bytes(self.store_id)))
            .field("created_unix_ms", &self.created_unix_ms)
            .finish_non_exhaustive()
    }
}

impl StoreFile {
    /// Returns the bytes of the file.
    ///
    /// # Errors
    /// [`FormatError::Empty`] if the identity is all zero, which means that nobody
    /// has filled it in.
    pub fn encode(&self) -> Result<[u8; STORE_FILE_LEN_BYTES], FormatError> {
        check_identity(&self.store_id)?;
        let raw = RawStoreFile {
            store_id: self.store_id,
            hash_seed: self.hash_seed.into(),
            created_unix_ms: self.created_unix_ms.into(),
        };
        let header = FileHeader::of_payload(MAGIC, VERSION, raw.as_bytes());
        let mut file = [0; STORE_FILE_LEN_BYTES];
        file[..FILE_HEADER_LEN_BYTES].copy_from_slice(&header.encode());
        file[FILE_HEADER_LEN_BYTES..].copy_from_slice(raw.as_bytes());
        Ok(file)
    }

    /// Decodes the whole file.
    ///
    /// # Errors
    /// Says what is wrong with the bytes.
    pub fn decode(file: &[u8]) -> Result<Self, FormatError> {
        let payload = FileHeader::decode(file, MAGIC, VERSION)?.verified_payload(file)?;
        let (raw, rest) = RawStoreFile::ref_from_prefix(payload)
            .map_err(|_| too_short(STORE_FILE_LEN_BYTES, file))?;
        if !rest.is_empty() {
            return Err(FormatError::TrailingBytes { count: rest.len() as u64 });
        }
        check_identity(&raw.store_id)?;
        Ok(Self {
            store_id: raw.store_id,
            hash_seed: raw.hash_seed.get(),
            created_unix_ms: raw.created_unix_ms.get(),
        })
    }
}

fn check_identity(store_id: &[u8; 16]) -> Result<(), FormatError> {
    if *store_id == [0; 16] {
        return Err(FormatError::Empty { what: "identity of the store" });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_not_printed() {
        let store = StoreFile { store_id: [7; 16], hash_seed: 0xDEAD_BEEF, created_unix_ms: 5 };
        let printed = format!("{store:?}").to_lowercase();
        assert!(printed.contains("07070707"), "{printed}");
        assert!(!printed.contains("3735928559") && !printed.contains("deadbeef"), "{printed}");
    }

    #[test]
    fn a_payload_of_another_length_is_refused() {
        for payload in [&[1_u8; 31][..], &[1; 33]] {
            let mut file = FileHeader::of_payload(MAGIC, VERSION, payload).encode().to_vec();
            file.extend_from_slice(payload);
            assert!(StoreFile::decode(&file).is_err(), "{} bytes", payload.len());
        }
    }

    #[test]
    fn an_identity_of_zeros_is_refused() {
        let store = StoreFile { store_id: [0; 16], hash_seed: 1, created_unix_ms: 1 };
        let expected = FormatError::Empty { what: "identity of the store" };
        assert_eq!(store.encode(), Err(expected));
        let payload = [0; 32];
        let mut file = FileHeader::of_payload(MAGIC, VERSION, &payload).encode().to_vec();
        file.extend_from_slice(&payload);
        assert_eq!(StoreFile::decode(&file), Err(expected));
    }
}
