//! What can be wrong with bytes and with text.
//!
//! [`FormatError`] is exact and copyable: it holds the numbers that were found
//! and never a path, because this crate does not know where bytes came from.
//! [`TextError`] is for what people write: it says where to look.

use thiserror::Error;

/// Why bytes are not a value, or a value cannot become bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FormatError {
    /// The bytes end before the value does.
    #[error("too short: {needed} bytes are needed, {given} were given")]
    TooShort {
        /// Bytes that are needed at least.
        needed: u64,
        /// Bytes that were given.
        given: u64,
    },
    /// The bytes go on after the value.
    #[error("{count} bytes follow the end of the value")]
    TrailingBytes {
        /// Bytes after the end.
        count: u64,
    },
    /// The file is of another kind.
    #[error("not a file of this format: it begins with \"{}\"", found.escape_ascii())]
    BadMagic {
        /// The first eight bytes.
        found: [u8; 8],
    },
    /// The value was written by a newer program, or its version is damaged.
    #[error("format version {found} is not supported: versions 1 to {newest} are")]
    UnsupportedVersion {
        /// The version in the bytes.
        found: u16,
        /// The newest version that this crate decodes.
        newest: u16,
    },
    /// The bytes are damaged.
    #[error("damaged: checksum is {found:#018x}, {expected:#018x} was stored")]
    Checksum {
        /// The checksum that was stored with the bytes.
        expected: u64,
        /// The checksum of the bytes as they are.
        found: u64,
    },
    /// A byte that must be zero in this version is not.
    #[error("reserved byte at offset {offset} is not zero")]
    NonZeroReserved {
        /// Offset of the first such byte or field.
        offset: u64,
    },
    /// A tag has no meaning in this version.
    #[error("{found} is not a known {what}")]
    UnknownTag {
        /// What the tag stands for.
        what: &'static str,
        /// The tag in the bytes.
        found: u8,
    },
    /// A length or a count is over its limit.
    #[error("{what} is {found}, the limit is {limit}")]
    TooLarge {
        /// What is too large, with its unit.
        what: &'static str,
        /// How large it is.
        found: u64,
        /// How large it may be.
        limit: u64,
    },
    /// Something that must not be empty is.
    #[error("{what} is empty")]
    Empty {
        /// What is empty.
        what: &'static str,
    },
    /// Two numbers that must agree do not.
    #[error("{what} is {found}, expected {expected}")]
    Mismatch {
        /// What disagrees, with its unit.
        what: &'static str,
        /// What it must be.
        expected: u64,
        /// What it is.
        found: u64,
    },
    /// A number of a vector is NaN or infinite.
    #[error("element {index} of the vector is not a finite number")]
    NotFinite {
        /// Index of the first such element.
        index: u64,
    },
    /// A number of a vector is too large for the encoding asked for.
    #[error("element {index} of the vector is too large for encoding {encoding}")]
    NotRepresentable {
        /// Index of the first such element.
        index: u64,
        /// Name of the encoding.
        encoding: &'static str,
    },
    /// The scale of coded numbers is negative, NaN or too large.
    #[error("scale {} is not one of an encoded vector", f32::from_bits(*found_bits))]
    InvalidScale {
        /// The bits of the scale, because a NaN does not compare.
        found_bits: u32,
    },
    /// Text is not UTF-8.
    #[error("{what} is not UTF-8 at byte {offset}")]
    InvalidUtf8 {
        /// Which text.
        what: &'static str,
        /// Offset of the first wrong byte in it.
        offset: u64,
    },
    /// Text that must be JSON is not.
    #[error("{what} is not JSON at byte {offset}")]
    InvalidJson {
        /// Which text.
        what: &'static str,
        /// Offset in it where parsing stopped.
        offset: u64,
    },
    /// Bytes are no document, or its tokens do not make one.
    #[error("not a document{}", token.map_or(String::new(), |index| format!(": token {index} has no place")))]
    InvalidDocument {
        /// Index of the first token without a place; none if there are no tokens at all.
        token: Option<u64>,
    },
    /// Compressed bytes do not decompress.
    #[error("{what} cannot be decompressed")]
    Zstd {
        /// What was compressed.
        what: &'static str,
    },
    /// Compressed bytes do not decompress to what the header says.
    #[error("compressed plane {plane} is damaged")]
    Compression {
        /// Index of the plane.
        plane: u8,
    },
}

/// Why text is not what it should be, and where to look.
///
/// Lines and columns are counted from 1, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}, column {column}: {problem}")]
pub struct TextError {
    /// Line of the problem.
    pub line: u64,
    /// Column of the problem.
    pub column: u64,
    /// What is wrong and, where there is one, the remedy.
    pub problem: String,
}

impl TextError {
    /// Creates an error at byte `offset` of `text`, whose first line is `first_line`.
    pub(crate) fn at(
        text: &[u8],
        offset: usize,
        first_line: u64,
        problem: impl Into<String>,
    ) -> Self {
        let before = &text[..offset.min(text.len())];
        let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let breaks = before.iter().filter(|&&byte| byte == b'\n').count();
        // Bytes 10xxxxxx continue a character of UTF-8.
        let characters = before[line_start..].iter().filter(|&&byte| byte & 0xC0 != 0x80).count();
        Self {
            line: first_line + breaks as u64,
            column: characters as u64 + 1,
            problem: problem.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_errors_count_lines_and_characters() {
        let text = "first\nzwölf X".as_bytes();
        let offset = text.iter().position(|&byte| byte == b'X').unwrap();
        let error = TextError::at(text, offset, 1, "no X here");
        assert_eq!((error.line, error.column), (2, 7));
        assert_eq!(error.to_string(), "line 2, column 7: no X here");
        let past = TextError::at(text, usize::MAX, 10, "end");
        assert_eq!((past.line, past.column), (11, 8));
    }

    #[test]
    fn binary_errors_name_their_values() {
        let magic = FormatError::BadMagic { found: *b"\x7fELF\x02\x01\x01\0" };
        assert_eq!(
            magic.to_string(),
            r#"not a file of this format: it begins with "\x7fELF\x02\x01\x01\x00""#
        );
        let large = FormatError::TooLarge { what: "text length in bytes", found: 9, limit: 8 };
        assert_eq!(large.to_string(), "text length in bytes is 9, the limit is 8");
    }
}
