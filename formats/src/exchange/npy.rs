//! `npy`: a two-dimensional array as numpy saves it, one vector a row.
//!
//! | offset | size | field | |
//! |---|---|---|---|
//! | 0 | 6 | magic | `\x93NUMPY` |
//! | 6 | 2 | version | 1.0, 2.0 or 3.0 |
//! | 8 | 2 or 4 | header_len | u16 in version 1, u32 later |
//! | | header_len | header | a Python dictionary, then spaces and a line feed |
//! | | | rows | to the end, each `dimensions` elements |
//!
//! The dictionary has exactly the keys `descr`, `fortran_order` and `shape`. Little-
//! endian floats of 4 and of 2 bytes in row order are taken; every other array is
//! refused with the numpy call that makes it one of these. Elements are never Python
//! objects, so nothing here can run code.
//!
//! Source: numpy.lib.format, "NPY format".

mod dictionary;

use thiserror::Error;

use crate::FormatError;
use crate::embedding::{check_dimensions, check_finite, decode_f16};
use dictionary::Scanner;

const MAGIC: [u8; 6] = *b"\x93NUMPY";

/// Longest header that is read. The longest useful one is about 120 bytes.
const HEADER_LEN_MAX_BYTES: usize = 64 << 10;

/// Rows begin at a multiple of this, as numpy itself has it.
const ALIGNMENT_BYTES: usize = 64;

/// Why bytes are not an array that can be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NpyError {
    /// The bytes end within the header.
    #[error("too short for an npy header: {needed} bytes are needed, {given} were given")]
    TooShort {
        /// Bytes that are needed at least.
        needed: u64,
        /// Bytes that were given.
        given: u64,
    },
    /// The bytes do not begin like an array.
    #[error("not an npy file: it does not begin with \\x93NUMPY")]
    NotNpy,
    /// The array has a version that numpy has not defined yet.
    #[error("npy version {major}.{minor} is not supported: 1.0, 2.0 and 3.0 are")]
    UnsupportedVersion {
        /// The part before the point.
        major: u8,
        /// The part after it.
        minor: u8,
    },
    /// The header is longer than one of a two-dimensional array can be.
    #[error("npy header of {found} bytes is over the limit of {limit}")]
    HeaderTooLong {
        /// Its length.
        found: u64,
        /// How long it may be.
        limit: u64,
    },
    /// The dictionary is not one that numpy writes.
    #[error("npy header is wrong at byte {offset_bytes}: {problem}")]
    Header {
        /// Offset in the file.
        offset_bytes: u64,
        /// What is wrong there.
        problem: &'static str,
    },
    /// The elements are of a type that is not taken.
    #[error(
        "npy elements of type {descr} are not supported: save the array with .astype(\"<f4\") or \
         .astype(\"<f2\")"
    )]
    UnsupportedElement {
        /// The type, as the header has it.
        descr: String,
    },
    /// The elements are none where whole numbers are wanted.
    #[error(
        "npy elements of type {descr} are no whole numbers: save the array with .astype(\"<i4\")"
    )]
    NoWholeNumbers {
        /// The type, as the header has it.
        descr: String,
    },
    /// The array is stored column by column.
    #[error("npy array is in Fortran order: save numpy.ascontiguousarray(array)")]
    FortranOrder,
    /// The array is not one of rows.
    #[error("npy array has {axes} axes: two are needed, rows and dimensions")]
    AxesCount {
        /// How many axes it has.
        axes: usize,
    },
    /// A row cannot be a vector, or there are more bytes than can be counted.
    #[error("npy array of {rows} rows and {dimensions} dimensions: {source}")]
    Shape {
        /// Length of the first axis.
        rows: u64,
        /// Length of the second axis.
        dimensions: u64,
        /// What is wrong with them.
        source: FormatError,
    },
}

/// Type of the elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NpyElement {
    /// Floats of 4 bytes, `<f4`.
    F32,
    /// Floats of 2 bytes, `<f2`.
    F16,
}

impl NpyElement {
    /// Length of one element.
    #[must_use]
    pub const fn len_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
}

/// What the start of an npy file says about its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NpyHeader {
    /// How many vectors there are.
    pub rows: u64,
    /// Length of each vector.
    pub dimensions: usize,
    /// Type of its elements.
    pub element: NpyElement,
    /// Where the first row begins.
    pub data_offset_bytes: u64,
}

impl NpyHeader {
    /// Parses the header at the start of `bytes`.
    ///
    /// # Errors
    /// [`NpyError::TooShort`] says how many bytes to try again with; the others say
    /// what is wrong and how to save the array instead.
    pub fn parse(bytes: &[u8]) -> Result<Self, NpyError> {
        let (start, dictionary) = dictionary_of(bytes)?;
        let mut scanner = Scanner { text: dictionary, at: 0, start };
        let fields = scanner.dictionary()?;
        let element = element_of(&fields.descr)?;
        if fields.fortran_order {
            return Err(NpyError::FortranOrder);
        }
        let [rows, dimensions] = fields.shape[..] else {
            return Err(NpyError::AxesCount { axes: fields.shape.len() });
        };
        let wrong_shape = |source| NpyError::Shape { rows, dimensions, source };
        let dimensions = usize::try_from(dimensions).unwrap_or(usize::MAX);
        check_dimensions(dimensions).map_err(wrong_shape)?;
        let row_len = (dimensions * element.len_bytes()) as u64;
        if rows > u64::MAX / 2 / row_len {
            return Err(wrong_shape(FormatError::TooLarge {
                what: "number of rows",
                found: rows,
                limit: u64::MAX / 2 / row_len,
            }));
        }
        let data_offset_bytes = (start + dictionary.len()) as u64;
        Ok(Self { rows, dimensions, element, data_offset_bytes })
    }

    /// Length of one row in bytes.
    #[must_use]
    pub const fn row_len_bytes(&self) -> usize {
        self.dimensions * self.element.len_bytes()
    }

    /// Length of the whole file in bytes.
    #[must_use]
    pub const fn file_len_bytes(&self) -> u64 {
        // Parsing has bounded both terms.
        self.data_offset_bytes + self.rows * self.row_len_bytes() as u64
    }

    /// Decodes one row.
    ///
    /// Shapes: `row` is [`row_len_bytes`](Self::row_len_bytes), `vector` is
    /// `[dimensions]`; after an error its contents are unspecified.
    ///
    /// # Errors
    /// [`FormatError::Mismatch`] on another length, [`FormatError::NotFinite`] on a
    /// NaN or an infinity.
    pub fn decode_row(&self, row: &[u8], vector: &mut [f32]) -> Result<(), FormatError> {
        let mismatch = |what, expected: usize, found: usize| {
            Err(FormatError::Mismatch { what, expected: expected as u64, found: found as u64 })
        };
        if row.len() != self.row_len_bytes() {
            return mismatch("length of a row in bytes", self.row_len_bytes(), row.len());
        }
        if vector.len() != self.dimensions {
            return mismatch("number of dimensions", vector.len(), self.dimensions);
        }
        match self.element {
            NpyElement::F32 => {
                for (number, bytes) in vector.iter_mut().zip(row.as_chunks().0) {
                    *number = f32::from_le_bytes(*bytes);
                }
            }
            NpyElement::F16 => decode_f16(row, vector),
        }
        check_finite(vector)
    }
}

/// Decodes a whole array of whole numbers, `<i4` or `<i8`, with two axes: numbers of rows of another,
/// say. Returns the length of the second axis and the numbers, row after row.
///
/// # Errors
/// As [`NpyHeader::parse`]; [`NpyError::TooShort`] also if the bytes end within the numbers.
pub fn decode_whole_numbers(bytes: &[u8]) -> Result<(usize, Vec<i64>), NpyError> {
    let (start, dictionary) = dictionary_of(bytes)?;
    let fields = Scanner { text: dictionary, at: 0, start }.dictionary()?;
    let number_len: usize = match &fields.descr[..] {
        "<i4" => 4,
        "<i8" => 8,
        other => return Err(NpyError::NoWholeNumbers { descr: format!("'{other}'") }),
    };
    if fields.fortran_order {
        return Err(NpyError::FortranOrder);
    }
    let [rows, columns] = fields.shape[..] else {
        return Err(NpyError::AxesCount { axes: fields.shape.len() });
    };
    let data_offset = (start + dictionary.len()) as u64;
    let len = rows.checked_mul(columns).and_then(|count| count.checked_mul(number_len as u64));
    let needed = len.and_then(|len| len.checked_add(data_offset)).unwrap_or(u64::MAX);
    if (bytes.len() as u64) < needed {
        return Err(NpyError::TooShort { needed, given: bytes.len() as u64 });
    }
    let numbers = bytes[data_offset as usize..needed as usize].chunks_exact(number_len);
    let numbers = numbers.map(|number| match number.try_into() {
        Ok(whole) => i64::from_le_bytes(whole),
        Err(_) => i32::from_le_bytes(number.try_into().unwrap_or_default()).into(),
    });
    // It is no longer than the bytes, unless there is no row.
    Ok((usize::try_from(columns).unwrap_or(usize::MAX), numbers.collect()))
}

/// Renders the header of an array of f32 rows, as numpy itself writes it.
///
/// # Errors
/// [`FormatError::Empty`] or [`FormatError::TooLarge`] if a row cannot be a vector.
pub fn render_header(rows: u64, dimensions: usize) -> Result<Vec<u8>, FormatError> {
    check_dimensions(dimensions)?;
    let dictionary =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dimensions}), }}");
    let fixed_len = MAGIC.len() + 4;
    // One more for the line feed that ends the header.
    let len = (fixed_len + dictionary.len() + 1).next_multiple_of(ALIGNMENT_BYTES);
    let mut header = Vec::with_capacity(len);
    header.extend_from_slice(&MAGIC);
    header.extend_from_slice(&[1, 0]);
    // Two numbers of 20 digits at most: far below 65,536.
    header.extend_from_slice(&((len - fixed_len) as u16).to_le_bytes());
    header.extend_from_slice(dictionary.as_bytes());
    header.resize(len - 1, b' ');
    header.push(b'\n');
    Ok(header)
}

/// Returns where the dictionary begins and the bytes of it.
fn dictionary_of(bytes: &[u8]) -> Result<(usize, &[u8]), NpyError> {
    let too_short =
        |needed: usize| NpyError::TooShort { needed: needed as u64, given: bytes.len() as u64 };
    let prefix = &bytes[..bytes.len().min(MAGIC.len())];
    if prefix != &MAGIC[..prefix.len()] {
        return Err(NpyError::NotNpy);
    }
    let (major, minor) = match bytes.get(MAGIC.len()..MAGIC.len() + 2) {
        Some(version) => (version[0], version[1]),
        None => return Err(too_short(MAGIC.len() + 4)),
    };
    let len_at = MAGIC.len() + 2;
    let (start, len) = match (major, minor) {
        (1, 0) => {
            let len = bytes[len_at..].first_chunk().ok_or_else(|| too_short(len_at + 2))?;
            (len_at + 2, usize::from(u16::from_le_bytes(*len)))
        }
        (2 | 3, 0) => {
            let len = bytes[len_at..].first_chunk().ok_or_else(|| too_short(len_at + 4))?;
            (len_at + 4, u32::from_le_bytes(*len) as usize)
        }
        _ => return Err(NpyError::UnsupportedVersion { major, minor }),
    };
    if len > HEADER_LEN_MAX_BYTES {
        let limit = HEADER_LEN_MAX_BYTES as u64;
        return Err(NpyError::HeaderTooLong { found: len as u64, limit });
    }
    let dictionary = bytes.get(start..start + len).ok_or_else(|| too_short(start + len))?;
    Ok((start, dictionary))
}

fn element_of(descr: &str) -> Result<NpyElement, NpyError> {
    match descr {
        "<f4" => Ok(NpyElement::F32),
        "<f2" => Ok(NpyElement::F16),
        other => Err(NpyError::UnsupportedElement { descr: format!("'{other}'") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(version: u8, dictionary: &str) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&[version, 0]);
        match version {
            1 => bytes.extend_from_slice(&(dictionary.len() as u16).to_le_bytes()),
            _ => bytes.extend_from_slice(&(dictionary.len() as u32).to_le_bytes()),
        }
        bytes.extend_from_slice(dictionary.as_bytes());
        bytes
    }

    fn parse(dictionary: &str) -> Result<NpyHeader, NpyError> {
        NpyHeader::parse(&file(1, dictionary))
    }

    #[test]
    fn every_version_and_every_spelling_is_read() {
        let spellings = [
            "{'descr': '<f2', 'fortran_order': False, 'shape': (3, 4), }   \n",
            "{\"shape\":(3,4,),\"descr\":\"<f2\",\"fortran_order\":False}",
        ];
        for version in 1..=3 {
            for spelling in spellings {
                let bytes = file(version, spelling);
                let header = NpyHeader::parse(&bytes).unwrap();
                assert_eq!((header.rows, header.dimensions), (3, 4));
                assert_eq!(header.element, NpyElement::F16);
                assert_eq!(header.data_offset_bytes, bytes.len() as u64);
                assert_eq!(header.file_len_bytes(), bytes.len() as u64 + 24);
            }
        }
    }

    #[test]
    fn a_rendered_header_is_aligned_and_read_back() {
        for (rows, dimensions) in [(0, 1), (300, 384), (u64::MAX / 2 / (4 * 65_536), 65_536)] {
            let header = render_header(rows, dimensions).unwrap();
            assert_eq!(header.len() % ALIGNMENT_BYTES, 0);
            let parsed = NpyHeader::parse(&header).unwrap();
            assert_eq!((parsed.rows, parsed.dimensions), (rows, dimensions));
            assert_eq!(parsed.element, NpyElement::F32);
            assert_eq!(parsed.data_offset_bytes, header.len() as u64);
        }
        assert_eq!(render_header(1, 0), Err(FormatError::Empty { what: "vector" }));
    }

    #[test]
    fn other_arrays_are_refused_with_a_remedy() {
        let big = parse("{'descr': '>f4', 'fortran_order': False, 'shape': (3, 4), }").unwrap_err();
        assert!(big.to_string().contains(".astype(\"<f4\")"), "{big}");
        let object = "{'descr': '|O', 'fortran_order': False, 'shape': (3, 4), }";
        assert!(matches!(parse(object), Err(NpyError::UnsupportedElement { .. })));
        let structure = "{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (3, 4), }";
        assert!(matches!(parse(structure), Err(NpyError::UnsupportedElement { .. })));
        let fortran = "{'descr': '<f4', 'fortran_order': True, 'shape': (3, 4), }";
        assert_eq!(parse(fortran), Err(NpyError::FortranOrder));
        for (shape, axes) in [("()", 0), ("(3,)", 1), ("(3, 4, 5)", 3)] {
            let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
            assert_eq!(parse(&text), Err(NpyError::AxesCount { axes }));
        }
        for shape in ["(3, 0)", "(3, 65537)", "(18446744073709551615, 4)"] {
            let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
            assert!(matches!(parse(&text), Err(NpyError::Shape { .. })), "{shape}");
        }
    }

    #[test]
    fn a_wrong_header_is_located() {
        let cases = [
            ("", 0),
            ("{'descr' '<f4'}", 9),
            ("{'descr': '<f4', 'descr': '<f4'}", 17),
            ("{'other': 1}", 1),
            ("{'descr': '<f4', 'fortran_order': Maybe}", 34),
            ("{'shape': (3 4)}", 13),
            ("{'shape': (-3, 4)}", 11),
            ("{'shape': (99999999999999999999, 4)}", 11),
            ("{'descr': '<f4}", 10),
            ("{'descr': '<f\\x34'}", 10),
            ("{'descr': '<f4'}", 16),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4)} x", 58),
        ];
        for (dictionary, offset) in cases {
            match parse(dictionary) {
                Err(NpyError::Header { offset_bytes, .. }) => {
                    assert_eq!(offset_bytes, 10 + offset, "{dictionary}");
                }
                other => panic!("{dictionary}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_short_file_says_how_much_is_needed() {
        let bytes = render_header(3, 4).unwrap();
        for len in 0..bytes.len() {
            match NpyHeader::parse(&bytes[..len]) {
                Err(NpyError::TooShort { needed, given }) => {
                    assert!(given == len as u64 && given < needed && needed <= 128);
                }
                other => panic!("{len}: {other:?}"),
            }
        }
        assert_eq!(NpyHeader::parse(b"PK\x03\x04"), Err(NpyError::NotNpy));
        let long = [&MAGIC[..], &[2, 0, 0xFF, 0xFF, 0xFF, 0xFF]].concat();
        assert!(matches!(NpyHeader::parse(&long), Err(NpyError::HeaderTooLong { .. })));
    }

    #[test]
    fn rows_become_vectors() {
        let header = parse("{'descr': '<f2', 'fortran_order': False, 'shape': (1, 2)}").unwrap();
        let mut vector = [0.0; 2];
        // 0x3C00 is 1 and 0xC000 is -2.
        assert_eq!(header.decode_row(&[0x00, 0x3C, 0x00, 0xC0], &mut vector), Ok(()));
        assert_eq!(vector, [1.0, -2.0]);
        assert_eq!(
            header.decode_row(&[0x00, 0x3C, 0x00, 0x7C], &mut vector),
            Err(FormatError::NotFinite { index: 1 })
        );
        assert!(matches!(
            header.decode_row(&[0; 3], &mut vector),
            Err(FormatError::Mismatch { expected: 4, found: 3, .. })
        ));
        assert!(matches!(
            header.decode_row(&[0; 4], &mut [0.0; 3]),
            Err(FormatError::Mismatch { expected: 3, found: 2, .. })
        ));
    }

    #[test]
    fn whole_numbers_are_read_whole() {
        let file = |descr: &str, shape: &str, data: &[u8]| {
            let mut text =
                format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
            text.push_str(&" ".repeat(117 - text.len()));
            text.push('\n');
            [b"\x93NUMPY\x01\x00\x76\x00", text.as_bytes(), data].concat()
        };
        let four = [1_i32, -2, 3, 4, 5, 6].map(i32::to_le_bytes).concat();
        let numbers = decode_whole_numbers(&file("<i4", "(2, 3)", &four));
        assert_eq!(numbers, Ok((3, vec![1, -2, 3, 4, 5, 6])));
        let eight = [1_i64 << 40, -2].map(i64::to_le_bytes).concat();
        assert_eq!(
            decode_whole_numbers(&file("<i8", "(2, 1)", &eight)),
            Ok((1, vec![1 << 40, -2]))
        );
        assert_eq!(decode_whole_numbers(&file("<i8", "(0, 7)", &[])), Ok((7, vec![])));
        let refused = |descr, shape| decode_whole_numbers(&file(descr, shape, &four)).unwrap_err();
        assert!(matches!(refused("<f4", "(2, 3)"), NpyError::NoWholeNumbers { .. }));
        assert!(matches!(refused("<i4", "(6,)"), NpyError::AxesCount { axes: 1 }));
        assert!(matches!(refused("<i4", "(2, 4)"), NpyError::TooShort { needed: 160, .. }));
        let huge = format!("({}, {})", u64::MAX, 3);
        assert!(matches!(refused("<i4", &huge), NpyError::TooShort { needed: u64::MAX, .. }));
    }
}
