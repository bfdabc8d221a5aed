//! From a document back to its text.

use prost::Message;

use super::{
    ARRAY, DECIMAL, DIGITS_MAX, Document, END, FALSE, INTEGER, NAMES, NULL, NUMBER, OBJECT, STRING,
    STRING_AGAIN, TRUE,
};
use crate::FormatError;
use crate::header::check_limit;
use crate::record::PAYLOAD_DEPTH_MAX;

/// Returns the text of a document, which has at most `len_max_bytes`.
///
/// That strings and numbers are those of JSON is what [`super::encode`] saw to; here only the
/// structure is checked.
///
/// # Errors
/// [`FormatError::InvalidDocument`] if the bytes are none, [`FormatError::TooLarge`] if the text
/// would be longer or deeper than allowed.
pub fn decode(bytes: &[u8], len_max_bytes: usize) -> Result<String, FormatError> {
    let document =
        Document::decode(bytes).map_err(|_| FormatError::InvalidDocument { token: None })?;
    let text = String::with_capacity(bytes.len().min(len_max_bytes));
    let columns = Columns {
        strings: document.strings.iter(),
        numbers: document.numbers.iter(),
        integers: document.integers.iter(),
    };
    let renderer = Renderer {
        document: &document,
        columns,
        text,
        len_max_bytes,
        open: Vec::new(),
        is_done: false,
        named: false,
    };
    renderer.render()
}

/// Puts a number together from its digits and how many of them stand behind the point.
pub(super) fn number(digits: i64, behind: usize) -> String {
    if behind == 0 {
        return digits.to_string();
    }
    let sign = if digits < 0 { "-" } else { "" };
    let digits = format!("{:0>least$}", digits.unsigned_abs(), least = behind + 1);
    let (whole, fraction) = digits.split_at(digits.len() - behind);
    format!("{sign}{whole}.{fraction}")
}

/// What tokens speak of, as far as they have not yet.
struct Columns<'a> {
    strings: std::slice::Iter<'a, String>,
    numbers: std::slice::Iter<'a, String>,
    integers: std::slice::Iter<'a, i64>,
}

/// An array or object that has begun.
struct Open {
    is_object: bool,
    is_empty: bool,
}

struct Renderer<'a> {
    document: &'a Document,
    columns: Columns<'a>,
    text: String,
    len_max_bytes: usize,
    open: Vec<Open>,
    /// Whether the outermost value has ended.
    is_done: bool,
    /// Whether a name waits for its value.
    named: bool,
}

impl Renderer<'_> {
    fn render(mut self) -> Result<String, FormatError> {
        let document = self.document;
        let mut tokens = document.tokens.iter().copied().enumerate();
        while let Some((index, token)) = tokens.next() {
            let argument = matches!(token, DECIMAL | STRING_AGAIN)
                .then(|| tokens.next().map_or(u32::MAX, |(_, argument)| argument));
            let invalid = FormatError::InvalidDocument { token: Some(index as u64) };
            self.token(token, argument.unwrap_or(0) as usize)?.ok_or(invalid)?;
        }
        let Columns { strings, numbers, integers } = &self.columns;
        if !self.is_done || strings.len() + numbers.len() + integers.len() > 0 {
            let token = Some(document.tokens.len() as u64);
            return Err(FormatError::InvalidDocument { token });
        }
        self.push(&document.end)?;
        Ok(self.text)
    }

    /// Renders one token; `None` if it has no place here.
    fn token(&mut self, token: u32, argument: usize) -> Result<Option<()>, FormatError> {
        let document = self.document;
        if token == END {
            return self.end();
        }
        if let Some(name) = token.checked_sub(NAMES) {
            return match document.names.get(name as usize) {
                Some(name) => self.name(name),
                None => Ok(None),
            };
        }
        if !self.begin_value()? {
            return Ok(None);
        }
        let integer = matches!(token, INTEGER | DECIMAL).then(|| self.columns.integers.next());
        match (token, integer.flatten()) {
            (NULL, _) => self.push("null")?,
            (FALSE, _) => self.push("false")?,
            (TRUE, _) => self.push("true")?,
            (INTEGER, Some(digits)) => self.push(&number(*digits, 0))?,
            (DECIMAL, Some(digits)) if (1..=DIGITS_MAX).contains(&argument) => {
                self.push(&number(*digits, argument))?;
            }
            (NUMBER, _) => match self.columns.numbers.next() {
                Some(number) => self.push(number)?,
                None => return Ok(None),
            },
            (STRING, _) => match self.columns.strings.next() {
                Some(string) => self.string(string)?,
                None => return Ok(None),
            },
            (STRING_AGAIN, _) => {
                let seen = document.strings.len() - self.columns.strings.len();
                match document.strings[..seen].get(argument) {
                    Some(string) => self.string(string)?,
                    None => return Ok(None),
                }
            }
            (ARRAY, _) => return self.open(false).map(Some),
            (OBJECT, _) => return self.open(true).map(Some),
            _ => return Ok(None),
        }
        self.is_done = self.open.is_empty();
        Ok(Some(()))
    }

    fn open(&mut self, is_object: bool) -> Result<(), FormatError> {
        check_limit("nesting of the document", self.open.len() + 1, PAYLOAD_DEPTH_MAX)?;
        self.push(if is_object { "{" } else { "[" })?;
        self.open.push(Open { is_object, is_empty: true });
        Ok(())
    }

    fn end(&mut self) -> Result<Option<()>, FormatError> {
        if self.named {
            return Ok(None);
        }
        let Some(ended) = self.open.pop() else { return Ok(None) };
        if !ended.is_empty {
            self.line()?;
        }
        self.push(if ended.is_object { "}" } else { "]" })?;
        self.is_done = self.open.is_empty();
        Ok(Some(()))
    }

    fn name(&mut self, name: &str) -> Result<Option<()>, FormatError> {
        let document = self.document;
        if self.named || !self.open.last().is_some_and(|open| open.is_object) {
            return Ok(None);
        }
        self.separate()?;
        self.string(name)?;
        self.push(":")?;
        self.push(&document.after_colon)?;
        self.named = true;
        Ok(Some(()))
    }

    /// Goes where a value stands; says whether one may stand there.
    fn begin_value(&mut self) -> Result<bool, FormatError> {
        match self.open.last() {
            None => Ok(!self.is_done),
            Some(open) if open.is_object => Ok(std::mem::take(&mut self.named)),
            Some(_) => self.separate().map(|()| true),
        }
    }

    /// Goes from one item to the next.
    fn separate(&mut self) -> Result<(), FormatError> {
        let document = self.document;
        let Some(open) = self.open.last_mut() else { return Ok(()) };
        if !std::mem::take(&mut open.is_empty) {
            self.push(",")?;
            self.push(&document.after_comma)?;
        }
        self.line()
    }

    fn line(&mut self) -> Result<(), FormatError> {
        let Some(indent) = &self.document.indent else { return Ok(()) };
        self.push("\n")?;
        (0..self.open.len()).try_for_each(|_| self.push(indent))
    }

    fn string(&mut self, string: &str) -> Result<(), FormatError> {
        self.push("\"")?;
        self.push(string)?;
        self.push("\"")
    }

    fn push(&mut self, piece: &str) -> Result<(), FormatError> {
        check_limit(
            "length of the document in bytes",
            self.text.len() + piece.len(),
            self.len_max_bytes,
        )?;
        self.text.push_str(piece);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(tokens: &[u32], change: impl FnOnce(&mut Document)) -> Result<String, FormatError> {
        let mut document = Document { tokens: tokens.to_vec(), ..Document::default() };
        change(&mut document);
        decode(&document.encode_to_vec(), 1000)
    }

    #[test]
    fn a_token_without_its_place_is_named() {
        let invalid = |token| Err(FormatError::InvalidDocument { token: Some(token) });
        let cases: [(&[u32], u64); 15] = [
            (&[], 0),
            (&[0], 0),
            (&[END], 0),
            (&[NULL, NULL], 1),
            (&[ARRAY], 1),
            (&[ARRAY, END, END], 2),
            (&[ARRAY, NAMES], 1),
            (&[OBJECT, NULL], 1),
            (&[OBJECT, NAMES, END], 2),
            (&[OBJECT, NAMES, NAMES], 2),
            (&[OBJECT, NAMES + 1], 1),
            (&[INTEGER], 0),
            (&[STRING], 0),
            (&[NUMBER], 0),
            (&[STRING_AGAIN, 0], 0),
        ];
        for (tokens, token) in cases {
            let found = rendered(tokens, |document| document.names.push("n".into()));
            assert_eq!(found, invalid(token), "{tokens:?}");
        }
        let one = |document: &mut Document| document.integers.push(1);
        for digits in [0, 19, u32::MAX] {
            assert_eq!(rendered(&[DECIMAL, digits], one), invalid(0));
        }
        assert_eq!(rendered(&[DECIMAL], one), invalid(0));
        assert_eq!(rendered(&[NULL], one), invalid(1), "a number that no token speaks of");
        assert_eq!(decode(&[0xFF], 10), Err(FormatError::InvalidDocument { token: None }));
    }

    #[test]
    fn depth_and_length_are_bounded() {
        let nested = |depth: usize| [vec![ARRAY; depth], vec![END; depth]].concat();
        assert!(rendered(&nested(PAYLOAD_DEPTH_MAX), |_| ()).is_ok());
        let too_deep = rendered(&nested(PAYLOAD_DEPTH_MAX + 1), |_| ());
        assert!(matches!(too_deep, Err(FormatError::TooLarge { found: 129, limit: 128, .. })));
        let mut tokens = vec![ARRAY, STRING];
        tokens.extend([STRING_AGAIN, 0].repeat(100));
        tokens.push(END);
        let long = rendered(&tokens, |document| document.strings.push("x".repeat(20)));
        assert!(matches!(long, Err(FormatError::TooLarge { limit: 1000, .. })));
    }

    #[test]
    fn digits_are_put_around_the_point() {
        assert_eq!(number(-5, 2), "-0.05");
        assert_eq!(number(150, 2), "1.50");
        assert_eq!(number(0, 1), "0.0");
        assert_eq!(number(i64::MIN, 0), "-9223372036854775808");
    }
}
