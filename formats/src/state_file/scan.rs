//! Places in JSON that is known to be valid: where keys and values stand, and keys that do so twice.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use super::{DEPTH_MAX, VALUES_COUNT_MAX};
use crate::json::{offset_in, words_of};

/// Where something is wrong, and what.
type Problem = (usize, String);

/// A key and where it stands.
pub(super) struct Key<'a> {
    /// The key without quotes and escapes.
    pub(super) name: Cow<'a, str>,
    /// Offset of its first quote.
    pub(super) at: usize,
}

impl Key<'_> {
    /// As much of it as a message has room for.
    pub(super) fn shown(&self) -> String {
        self.name.chars().take(64).collect()
    }
}

/// A place in the text.
pub(super) struct Scan<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    values_count: usize,
}

impl<'a> Scan<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0, depth: 0, values_count: 0 }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn text(&self, range: Range<usize>) -> &'a str {
        &self.text[range]
    }

    /// Goes to the next token and returns its offset.
    pub(super) fn skip_space(&mut self) -> usize {
        let is_space = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        self.at += self.text.as_bytes()[self.at..].iter().take_while(is_space).count();
        self.at
    }

    /// What kind of value begins here.
    pub(super) fn kind(&self) -> &'static str {
        match self.peek() {
            b'{' => "an object",
            b'[' => "an array",
            b'"' => "a string",
            b't' | b'f' => "a boolean",
            b'n' => "null",
            _ => "a number",
        }
    }

    /// Reads the object that begins here; `member` reads each value.
    pub(super) fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, Key<'a>) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        self.enter()?;
        let mut names = HashSet::new();
        while self.goes_on(b'}') {
            let at = self.at;
            let name = self.name()?;
            if !names.insert(name.clone()) {
                let key = Key { name, at };
                return Err((at, format!("{:?} stands here twice", key.shown())));
            }
            self.skip_space();
            self.at += 1;
            self.skip_space();
            member(self, Key { name, at })?;
        }
        self.depth -= 1;
        Ok(())
    }

    /// Reads the value that begins here and returns where it stands.
    pub(super) fn value(&mut self) -> Result<Range<usize>, Problem> {
        let start = self.at;
        match self.peek() {
            b'{' => self.object(|scan, _| scan.value().map(|_| ()))?,
            b'[' => {
                self.enter()?;
                while self.goes_on(b']') {
                    self.value()?;
                }
                self.depth -= 1;
            }
            b'"' => {
                self.count()?;
                self.skip_string();
            }
            _ => {
                self.count()?;
                let is_inside =
                    |byte: &&u8| !matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r');
                self.at += self.text.as_bytes()[self.at..].iter().take_while(is_inside).count();
            }
        }
        Ok(start..self.at)
    }

    /// Goes to the next member or element; or behind the end, if there is none.
    fn goes_on(&mut self, end: u8) -> bool {
        self.skip_space();
        if self.peek() == b',' {
            self.at += 1;
            self.skip_space();
        }
        let goes_on = self.peek() != end;
        self.at += usize::from(!goes_on);
        goes_on
    }

    fn enter(&mut self) -> Result<(), Problem> {
        self.count()?;
        if self.depth == DEPTH_MAX {
            return Err((self.at, format!("nested over {DEPTH_MAX} deep")));
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    fn count(&mut self) -> Result<(), Problem> {
        self.values_count += 1;
        match self.values_count > VALUES_COUNT_MAX {
            true => Err((self.at, format!("the file has over {VALUES_COUNT_MAX} values"))),
            false => Ok(()),
        }
    }

    fn name(&mut self) -> Result<Cow<'a, str>, Problem> {
        let start = self.at;
        self.skip_string();
        let quoted = &self.text[start..self.at];
        if !quoted.contains('\\') {
            return Ok(Cow::Borrowed(&quoted[1..quoted.len() - 1]));
        }
        let unescaped: Result<String, _> = serde_json::from_str(quoted);
        unescaped
            .map(Cow::Owned)
            .map_err(|error| (start + offset_in(quoted.as_bytes(), &error), words_of(&error)))
    }

    fn skip_string(&mut self) {
        self.at += 1;
        while self.peek() != b'"' {
            self.at += if self.peek() == b'\\' { 2 } else { 1 };
        }
        self.at += 1;
    }

    /// The next byte; behind the end a quote, which ends a string.
    fn peek(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or(b'"')
    }
}
