//! How far a store has acknowledged writes, kept beside the database.
//!
//! | offset | size | field | |
//! |---|---|---|---|
//! | 0 | 8 | sequence | u64, of the last write that was acknowledged |
//! | 8 | 8 | checksum | XXH3-64 of the sequence |
//!
//! A database log that ends early looks the same whether its end was torn by a crash,
//! which loses nothing acknowledged, or damaged later, which does. This tells them
//! apart. It is overwritten in place, and shorter than any sector, so it is not torn.

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::FormatError;
use crate::header::{Magic, check, too_short, value_checksum};

/// What the checksum begins with; it is not stored.
pub const MAGIC: Magic = Magic(*b"opdbACKD");

/// Length of the encoding.
pub const ACKNOWLEDGED_LEN_BYTES: usize = size_of::<RawAcknowledged>();

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawAcknowledged {
    sequence: U64,
    checksum: U64,
}

const _: () = {
    assert!(size_of::<RawAcknowledged>() == 16);
    assert!(offset_of!(RawAcknowledged, checksum) == 8);
};

/// The sequence of the last acknowledged write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// The sequence.
    pub sequence: u64,
}

impl Acknowledged {
    /// Returns the bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; ACKNOWLEDGED_LEN_BYTES] {
        let sequence = U64::new(self.sequence);
        let checksum = value_checksum(MAGIC, sequence.as_bytes(), &[]).into();
        zerocopy::transmute!(RawAcknowledged { sequence, checksum })
    }

    /// Decodes the bytes.
    ///
    /// # Errors
    /// [`FormatError::TooShort`], [`FormatError::TrailingBytes`] or
    /// [`FormatError::Checksum`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (raw, rest) = RawAcknowledged::ref_from_prefix(bytes)
            .map_err(|_| too_short(ACKNOWLEDGED_LEN_BYTES, bytes))?;
        if !rest.is_empty() {
            return Err(FormatError::TrailingBytes { count: rest.len() as u64 });
        }
        check(raw.checksum.get(), value_checksum(MAGIC, raw.sequence.as_bytes(), &[]))?;
        Ok(Self { sequence: raw.sequence.get() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flip_and_every_cut_is_noticed() {
        let bytes = Acknowledged { sequence: 0x0123_4567_89ab_cdef }.encode();
        assert_eq!(
            Acknowledged::decode(&bytes),
            Ok(Acknowledged { sequence: 0x0123_4567_89ab_cdef })
        );
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Acknowledged::decode(&flipped).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(Acknowledged::decode(&bytes[..len]).is_err(), "{len} bytes");
        }
        assert!(Acknowledged::decode(&[&bytes[..], &[0]].concat()).is_err());
    }
}
