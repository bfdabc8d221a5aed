//! `.vec`: one vector a file, as serialisers of Rust write a `Vec<f32>`.
//!
//! | size | field | |
//! |---|---|---|
//! | 8, or 1, 3, 5 | dimensions | 1 to 65536: u64, or as below |
//! | 4 each | elements | f32, finite; to the end |
//!
//! There are two such files, both of bincode: with numbers of fixed length, as its
//! first version writes them, and with short numbers, as the second does: a number
//! below 251 is one byte; 251 says that a u16 follows, 252 a u32. The length of the
//! file tells them apart, because only with a u64 in front is it a multiple of four.
//! A file of the first kind that was cut off may look like one of the second: what
//! may be either, such as short numbers before several zeros, is refused as cut off.
//! Source: the specification of bincode 2, "Varint encoding".

use crate::FormatError;
use crate::embedding::{DIMENSIONS_MAX, check_dimensions, check_finite};
use crate::header::too_short;

const ELEMENT_LEN_BYTES: usize = 4;
const FIXED_LEN_BYTES: usize = 8;
/// The first byte says by this that a u16 follows, and by one more that a u32 does.
const U16_FOLLOWS: u8 = 251;
const U32_FOLLOWS: u8 = 252;

/// Length in bytes of the longest file.
pub const FILE_LEN_MAX_BYTES: usize = FIXED_LEN_BYTES + DIMENSIONS_MAX * ELEMENT_LEN_BYTES;

/// Decodes a whole file.
///
/// # Errors
/// Says what is wrong with the bytes. A count that could be written shorter is a
/// [`FormatError::Mismatch`], because no program writes it.
pub fn decode(bytes: &[u8]) -> Result<Vec<f32>, FormatError> {
    let (dimensions, elements) = if bytes.len().is_multiple_of(ELEMENT_LEN_BYTES) {
        let (count, elements) =
            bytes.split_first_chunk().ok_or_else(|| too_short(FIXED_LEN_BYTES, bytes))?;
        (u64::from_le_bytes(*count), elements)
    } else {
        check_not_cut_off(bytes)?;
        split_short_count(bytes)?
    };
    // A count that no memory holds is too large in any case.
    check_dimensions(usize::try_from(dimensions).unwrap_or(usize::MAX))?;
    if elements.len() as u64 != dimensions * ELEMENT_LEN_BYTES as u64 {
        return Err(FormatError::Mismatch {
            what: "length of the elements in bytes",
            expected: dimensions * ELEMENT_LEN_BYTES as u64,
            found: elements.len() as u64,
        });
    }
    let vector: Vec<f32> =
        elements.as_chunks().0.iter().map(|element| f32::from_le_bytes(*element)).collect();
    check_finite(&vector)?;
    Ok(vector)
}

/// Refuses what may be the beginning of a longer file with a u64 in front.
fn check_not_cut_off(bytes: &[u8]) -> Result<(), FormatError> {
    let Some(count) = bytes.first_chunk() else { return Ok(()) };
    let Ok(count) = usize::try_from(u64::from_le_bytes(*count)) else { return Ok(()) };
    if !(1..=DIMENSIONS_MAX).contains(&count) {
        return Ok(());
    }
    let needed = FIXED_LEN_BYTES + count * ELEMENT_LEN_BYTES;
    if bytes.len() < needed { Err(too_short(needed, bytes)) } else { Ok(()) }
}

/// Takes a count of one, three or five bytes off.
fn split_short_count(bytes: &[u8]) -> Result<(u64, &[u8]), FormatError> {
    let (&first, rest) = bytes.split_first().ok_or_else(|| too_short(1, bytes))?;
    let (count, rest) = match first {
        U16_FOLLOWS => {
            let (count, rest) = rest.split_first_chunk().ok_or_else(|| too_short(3, bytes))?;
            (u64::from(u16::from_le_bytes(*count)), rest)
        }
        U32_FOLLOWS => {
            let (count, rest) = rest.split_first_chunk().ok_or_else(|| too_short(5, bytes))?;
            (u64::from(u32::from_le_bytes(*count)), rest)
        }
        first if first < U16_FOLLOWS => (first.into(), rest),
        found => return Err(FormatError::UnknownTag { what: "length of a count", found }),
    };
    let expected = short_count_first_byte(count);
    if first != expected {
        return Err(FormatError::Mismatch {
            what: "first byte of the count",
            expected: expected.into(),
            found: first.into(),
        });
    }
    Ok((count, rest))
}

/// The first byte of the one right encoding of a count.
fn short_count_first_byte(count: u64) -> u8 {
    match u16::try_from(count) {
        Ok(count) if count < U16_FOLLOWS.into() => count as u8,
        Ok(_) => U16_FOLLOWS,
        Err(_) => U32_FOLLOWS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(count: &[u8], elements: &[f32]) -> Vec<u8> {
        let elements = elements.iter().flat_map(|element| element.to_le_bytes());
        count.iter().copied().chain(elements).collect()
    }

    #[test]
    fn counts_of_every_length_are_read() {
        let fixed = |count: usize| (count as u64).to_le_bytes().to_vec();
        let short = |count: usize| match count {
            0..251 => vec![count as u8],
            251..65_536 => [&[251], &(count as u16).to_le_bytes()[..]].concat(),
            _ => [&[252], &(count as u32).to_le_bytes()[..]].concat(),
        };
        for dimensions in [1, 2, 250, 251, 384, 65_535, 65_536] {
            let vector: Vec<f32> = (0..dimensions).map(|index| index as f32 - 7.5).collect();
            assert_eq!(decode(&file(&fixed(dimensions), &vector)).as_deref(), Ok(&vector[..]));
            assert_eq!(decode(&file(&short(dimensions), &vector)).as_deref(), Ok(&vector[..]));
        }
        assert_eq!(file(&fixed(65_536), &[0.0; 65_536]).len(), FILE_LEN_MAX_BYTES);
    }

    #[test]
    fn every_bit_of_an_element_comes_back() {
        let vector = [-0.0, 1.0e-45, f32::MIN_POSITIVE, f32::MAX];
        let decoded = decode(&file(&4_u64.to_le_bytes(), &vector)).unwrap();
        let bits = |vector: &[f32]| vector.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&decoded), bits(&vector));
    }

    #[test]
    fn impossible_files_are_refused() {
        assert_eq!(decode(&[]), Err(FormatError::TooShort { needed: 8, given: 0 }));
        assert_eq!(decode(&[2, 0, 0, 0]), Err(FormatError::TooShort { needed: 8, given: 4 }));
        assert_eq!(decode(&[251, 0]), Err(FormatError::TooShort { needed: 3, given: 2 }));
        assert_eq!(decode(&[0]), Err(FormatError::Empty { what: "vector" }));
        assert_eq!(decode(&[0; 8]), Err(FormatError::Empty { what: "vector" }));
        assert!(matches!(decode(&[0xFF; 8]), Err(FormatError::TooLarge { .. })));
        assert!(matches!(decode(&[253, 0, 0]), Err(FormatError::UnknownTag { .. })));
        // What a shorter count would say.
        let long = file(&[251, 1, 0], &[1.0]);
        assert!(matches!(decode(&long), Err(FormatError::Mismatch { expected: 1, .. })));
        let whole = file(&2_u64.to_le_bytes(), &[1.0, 2.0]);
        for len in 0..whole.len() {
            assert!(decode(&whole[..len]).is_err(), "{len}");
        }
        assert!(decode(&[&whole[..], &[0; 4]].concat()).is_err());
        let infinite = file(&[1], &[f32::INFINITY]);
        assert_eq!(decode(&infinite), Err(FormatError::NotFinite { index: 0 }));
    }
}
