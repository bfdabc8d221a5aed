//! TOML that people write: read strictly, written canonically.
//!
//! A [`Table`] is opened with the keys that it may have, so that a misspelt key is refused before
//! anything is said to be missing. Every error says where: a wrong value at the value, a wrong key
//! at the key, a missing key at the header of its table.
//!
//! Everything is bounded before it is built: the length of the file, the number of its tokens, how
//! deep brackets nest and how many parts a key has.

mod table;
mod values;
mod writer;

use toml_parser::lexer::TokenKind;

use crate::TextError;

pub(crate) use table::{Name, Table};
pub(crate) use writer::Writer;

/// Largest file.
pub(crate) const DOCUMENT_LEN_MAX_BYTES: usize = 1 << 20;
/// Longest string that is not said to be longer.
pub(crate) const STRING_LEN_MAX_BYTES: usize = 4096;
/// Longest text that describes something.
pub(crate) const DESCRIPTION_LEN_MAX_BYTES: usize = 64 << 10;
/// Longest list, and most tables of one kind.
pub(crate) const LIST_LEN_MAX: usize = 1024;
/// Tokens of a file: a few bytes may take a thousand in memory.
const TOKENS_COUNT_MAX: usize = 1 << 16;
/// Brackets that may be open at once, and parts of a dotted key.
const NESTING_MAX: usize = 40;
/// Tables and arrays of a free value that may lie in each other; fewer than brackets, so that a
/// value that is read can be written on one line.
const VALUE_DEPTH_MAX: usize = 32;

/// A file whose syntax is right.
pub(crate) struct Document<'a> {
    text: &'a str,
    parsed: toml_edit::Document<&'a str>,
}

impl<'a> Document<'a> {
    /// Parses a file.
    ///
    /// # Errors
    /// What is too large, no text or no TOML, and where.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, TextError> {
        if bytes.len() > DOCUMENT_LEN_MAX_BYTES {
            let problem = format!("a file of {} bytes is over the limit of 1 MiB", bytes.len());
            return Err(TextError::at(bytes, 0, 1, problem));
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|error| TextError::at(bytes, error.valid_up_to(), 1, "not UTF-8"))?;
        check_tokens(text).map_err(|(at, problem)| TextError::at(bytes, at, 1, problem))?;
        let parsed = toml_edit::Document::parse(text).map_err(|error| {
            let at = error.span().map_or(text.len(), |span| span.start);
            TextError::at(bytes, at, 1, error.message())
        })?;
        Ok(Self { text, parsed })
    }

    /// The whole of it, which may have these tables.
    ///
    /// # Errors
    /// A table that it must not have.
    pub(crate) fn root(&self, allowed: &[&str]) -> Result<Table<'_>, TextError> {
        Table::open(self.text, String::new(), 0, self.parsed.as_table(), allowed)
    }
}

/// Bounds what the parser will build; or where it is too much.
///
/// Strings that are not closed are refused here, too: the parser would go on behind them and point
/// to what it makes of the rest.
fn check_tokens(text: &str) -> Result<(), (usize, String)> {
    let (mut open, mut parts) = (0_usize, 1);
    for (count, token) in toml_parser::Source::new(text).lex().enumerate() {
        match token.kind() {
            TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => {
                (open, parts) = (open + 1, 1)
            }
            TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket => {
                (open, parts) = (open.saturating_sub(1), 1);
            }
            TokenKind::Equals | TokenKind::Comma | TokenKind::Newline => parts = 1,
            TokenKind::Dot => parts += 1,
            _ => {}
        }
        let problem = if !is_closed(token.kind(), &text[token.span().start()..token.span().end()]) {
            "a string without its closing quote".to_owned()
        } else if count == TOKENS_COUNT_MAX {
            format!("the file has over {TOKENS_COUNT_MAX} words and signs")
        } else if open > NESTING_MAX {
            format!("nested over {NESTING_MAX} deep")
        } else if parts > NESTING_MAX {
            format!("a key of over {NESTING_MAX} parts")
        } else {
            continue;
        };
        return Err((token.span().start(), problem));
    }
    Ok(())
}

/// Whether a token that is a string ends with a quote that no backslash escapes.
fn is_closed(kind: TokenKind, raw: &str) -> bool {
    let quote = match kind {
        TokenKind::BasicString => "\"",
        TokenKind::LiteralString => "'",
        TokenKind::MlBasicString => "\"\"\"",
        TokenKind::MlLiteralString => "'''",
        _ => return true,
    };
    let inside = raw.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    let has_escapes = quote.starts_with('"');
    inside.is_some_and(|inside| {
        let backslashes = inside.len() - inside.trim_end_matches('\\').len();
        !has_escapes || backslashes % 2 == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(bytes: &[u8]) -> (u64, u64, String) {
        let error = Document::parse(bytes).err().unwrap();
        (error.line, error.column, error.problem)
    }

    #[test]
    fn what_is_no_toml_is_located() {
        let cases: [(&[u8], u64, u64, &str); 16] = [
            (b"a = \"\xFF\"", 1, 6, "not UTF-8"),
            (b"\xEF\xBB\xBFa = \n", 1, 6, "quoted"),
            ("ä = 1".as_bytes(), 1, 1, "key"),
            (b"a = 1\nb = \"x\nc = 2\n", 2, 5, "a string without its closing quote"),
            (b"a = ['x]\nb = 2\n", 1, 6, "a string without its closing quote"),
            (b"a = 'x'\nb = \"x\\\"\n", 2, 5, "a string without its closing quote"),
            (b"a = \"x\\\\\"\nb = '''x''\n", 2, 5, "a string without its closing quote"),
            (b"\na = \"\"\"x\\\"\"\"", 2, 5, "a string without its closing quote"),
            (b"a = 1\na = 2\n", 2, 1, "duplicate key"),
            (b"[a]\n[b]\n[a]\n", 3, 2, "duplicate key"),
            (b"a = [1, 2\nb = 3\n", 2, 1, "array"),
            (b"a = { b = 1\n", 1, 12, "unclosed inline table"),
            (b"[a\nb = 1\n", 1, 3, "unclosed table"),
            (b"a 1\n", 1, 3, "="),
            (b"a = 01\n", 1, 5, ""),
            (b"a = truth\n", 1, 5, ""),
        ];
        for (bytes, line, column, problem) in cases {
            let found = error_of(bytes);
            let shown = bytes.escape_ascii();
            println!("{shown}: {found:?}");
            assert!(found.2.contains(problem) && !found.2.is_empty(), "{shown}: {found:?}");
            assert_eq!((found.0, found.1), (line, column), "{shown}: {found:?}");
        }
    }

    #[test]
    fn everything_is_bounded() {
        let long = vec![b' '; DOCUMENT_LEN_MAX_BYTES + 1];
        assert!(error_of(&long).2.contains("over the limit of 1 MiB"));
        assert!(Document::parse(&long[1..]).is_ok());
        let nested = |open: &str, close: &str, depth: usize| {
            format!("a = {}{}", open.repeat(depth), close.repeat(depth))
        };
        assert!(Document::parse(nested("[", "]", NESTING_MAX).as_bytes()).is_ok());
        let deep = error_of(nested("[", "]", NESTING_MAX + 1).as_bytes());
        assert_eq!(deep, (1, 5 + NESTING_MAX as u64, "nested over 40 deep".to_owned()));
        let parts = |count: usize| format!("{}a = 1", "a.".repeat(count - 1));
        assert!(Document::parse(parts(NESTING_MAX).as_bytes()).is_ok());
        assert!(error_of(parts(NESTING_MAX + 1).as_bytes()).2.contains("a key of over 40 parts"));
        let many = format!("a = [\n{}]", "1,\n".repeat(TOKENS_COUNT_MAX / 3));
        assert!(error_of(many.as_bytes()).2.contains("over 65536 words"));
        // As deep as tables get: each bracket has a key of as many parts as may be.
        let key = format!("{}a = ", "a.".repeat(NESTING_MAX - 1));
        let deepest = format!(
            "[{}a]\n{key}{}1{}",
            "a.".repeat(NESTING_MAX - 1),
            format!("{{{key}").repeat(NESTING_MAX),
            "}".repeat(NESTING_MAX)
        );
        assert!(Document::parse(deepest.as_bytes()).is_ok());
    }
}
