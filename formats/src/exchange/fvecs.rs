//! `fvecs`: vectors as the data sets of the nearest-neighbour literature hold them.
//!
//! | size | field | |
//! |---|---|---|
//! | 4 | dimensions | i32, 1 to 65536 |
//! | 4 each | elements | f32, finite |
//!
//! Such rows follow each other to the end of the file; there is no header. Nothing
//! but the file's name tells it from its relatives with other elements, so every
//! length that is not possible is refused.

use crate::FormatError;
use crate::embedding::{check_dimensions, check_finite};
use crate::header::too_short;

const DIMENSIONS_LEN_BYTES: usize = 4;
const ELEMENT_LEN_BYTES: usize = 4;

/// Returns the length in bytes of a row of so many dimensions.
#[must_use]
pub const fn row_len_bytes(dimensions: usize) -> usize {
    DIMENSIONS_LEN_BYTES + dimensions * ELEMENT_LEN_BYTES
}

/// Reads how many dimensions the row at the start of `bytes` has.
///
/// # Errors
/// [`FormatError::TooShort`], [`FormatError::Empty`] or [`FormatError::TooLarge`]; a
/// negative number is too large.
pub fn decode_dimensions(bytes: &[u8]) -> Result<usize, FormatError> {
    let dimensions = bytes.first_chunk().ok_or_else(|| too_short(DIMENSIONS_LEN_BYTES, bytes))?;
    let dimensions = u32::from_le_bytes(*dimensions) as usize;
    check_dimensions(dimensions)?;
    Ok(dimensions)
}

/// Decodes the row at the start of `bytes` into `vector`, and returns its length in
/// bytes.
///
/// Shapes: `vector` becomes `[dimensions]`. After an error its contents are
/// unspecified.
///
/// # Errors
/// As [`decode_dimensions`], and [`FormatError::NotFinite`].
pub fn decode_row(bytes: &[u8], vector: &mut Vec<f32>) -> Result<usize, FormatError> {
    let dimensions = decode_dimensions(bytes)?;
    let len = row_len_bytes(dimensions);
    let elements = bytes.get(DIMENSIONS_LEN_BYTES..len).ok_or_else(|| too_short(len, bytes))?;
    vector.clear();
    vector.extend(elements.as_chunks().0.iter().map(|element| f32::from_le_bytes(*element)));
    check_finite(vector)?;
    Ok(len)
}

/// Appends `vector` to `out` as a row.
///
/// # Errors
/// [`FormatError::Empty`], [`FormatError::TooLarge`] or [`FormatError::NotFinite`];
/// nothing has been appended then.
pub fn encode_row(vector: &[f32], out: &mut Vec<u8>) -> Result<(), FormatError> {
    check_dimensions(vector.len())?;
    check_finite(vector)?;
    out.reserve(row_len_bytes(vector.len()));
    out.extend_from_slice(&(vector.len() as u32).to_le_bytes());
    out.extend(vector.iter().flat_map(|element| element.to_le_bytes()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_follow_each_other() {
        let mut bytes = Vec::new();
        encode_row(&[1.0, -0.0], &mut bytes).unwrap();
        encode_row(&[f32::MIN_POSITIVE], &mut bytes).unwrap();
        let mut vector = Vec::new();
        let first = decode_row(&bytes, &mut vector).unwrap();
        assert_eq!(first, 12);
        assert_eq!(vector, [1.0, 0.0]);
        assert!(vector[1].is_sign_negative());
        assert_eq!(decode_row(&bytes[first..], &mut vector), Ok(8));
        assert_eq!(vector, [f32::MIN_POSITIVE]);
    }

    #[test]
    fn impossible_rows_are_refused() {
        let decode = |bytes: &[u8]| decode_row(bytes, &mut Vec::new());
        assert_eq!(decode(&[1, 0, 0]), Err(FormatError::TooShort { needed: 4, given: 3 }));
        assert_eq!(decode(&[0; 8]), Err(FormatError::Empty { what: "vector" }));
        assert!(matches!(decode(&[0xFF; 8]), Err(FormatError::TooLarge { .. })));
        assert_eq!(
            decode(&[2, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7]),
            Err(FormatError::TooShort { needed: 12, given: 11 })
        );
        let infinite = [&[1, 0, 0, 0], &f32::INFINITY.to_le_bytes()[..]].concat();
        assert_eq!(decode(&infinite), Err(FormatError::NotFinite { index: 0 }));
        let mut out = Vec::new();
        assert!(encode_row(&[1.0, f32::NAN], &mut out).is_err());
        assert!(out.is_empty());
    }
}
