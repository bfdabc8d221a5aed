//! A note in a file of its own: a few figures that nothing depends on.
//!
//! | offset | size | field | |
//! |---|---|---|---|
//! | 0 | 64 | header | [`crate::header`], magic `opdbNOTE`, version 1 |
//! | 64 | payload_len | note | JSON |
//!
//! What the JSON says is its writer's. It is replaced as a whole, and not synced.

use crate::FormatError;
use crate::header::{FILE_HEADER_LEN_BYTES, FileHeader, FormatVersion, Magic};

/// Magic of the format.
pub const MAGIC: Magic = Magic(*b"opdbNOTE");

/// Newest version of the format.
pub const VERSION: FormatVersion = FormatVersion(1);

/// Longest file.
pub const NOTE_FILE_LEN_BYTES_MAX: usize = 64 << 10;

/// Returns the bytes of a file with this note.
///
/// # Errors
/// [`FormatError::TooLarge`] if it is too long.
pub fn encode(json: &[u8]) -> Result<Vec<u8>, FormatError> {
    let max = NOTE_FILE_LEN_BYTES_MAX - FILE_HEADER_LEN_BYTES;
    if json.len() > max {
        let (limit, found) = (max as u64, json.len() as u64);
        return Err(FormatError::TooLarge { what: "note in bytes", limit, found });
    }
    let header = FileHeader::of_payload(MAGIC, VERSION, json);
    Ok([&header.encode()[..], json].concat())
}

/// Returns the note of a file, whole as it was written.
///
/// # Errors
/// Says what is wrong with the bytes.
pub fn decode(file: &[u8]) -> Result<&[u8], FormatError> {
    FileHeader::decode(file, MAGIC, VERSION)?.verified_payload(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flip_and_every_cut_is_noticed() {
        let file = encode(br#"{"hits":12}"#).unwrap();
        assert_eq!(decode(&file), Ok(&br#"{"hits":12}"#[..]));
        for bit in 0..file.len() * 8 {
            let mut flipped = file.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&flipped).is_err(), "bit {bit}");
        }
        for len in 0..file.len() {
            assert!(decode(&file[..len]).is_err(), "{len} bytes");
        }
        assert!(decode(&[&file[..], &[0]].concat()).is_err());
    }

    #[test]
    fn a_note_has_a_longest_length() {
        let longest = vec![b' '; NOTE_FILE_LEN_BYTES_MAX - FILE_HEADER_LEN_BYTES];
        assert_eq!(encode(&longest).unwrap().len(), NOTE_FILE_LEN_BYTES_MAX);
        let longer = [&longest[..], b" "].concat();
        assert!(matches!(encode(&longer), Err(FormatError::TooLarge { .. })));
    }
}
