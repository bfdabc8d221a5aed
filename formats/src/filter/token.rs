//! A filter in words, signs and values, and where each stands.

use super::literal::Number;
use super::{Comparison, Field, begins_path, is_of_name};
use crate::spelling;

/// A part of a filter.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    /// Offset of its first byte.
    pub(super) start: usize,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// One name that neither begins with a dot nor has one: a path, or a word of the language.
    Word(String),
    /// Any other path.
    Path(Vec<String>),
    OfRecord(Field),
    Text(String),
    Number(Number),
    Comparison(Comparison),
    /// One of `()[],`.
    Mark(char),
    End,
}

/// What is wrong, and at which byte.
pub(super) type Problem = (usize, String);
pub(super) type Result<T> = std::result::Result<T, Problem>;

/// What people write who know other languages, and what they mean.
const FOREIGN: [(&str, &str); 12] = [
    ("==", "="),
    ("===", "="),
    ("!==", "!="),
    ("<>", "!="),
    ("=<", "<="),
    ("=>", ">="),
    ("&&", "and"),
    ("&", "and"),
    ("||", "or"),
    ("|", "or"),
    ("!", "not"),
    (":", "="),
];
pub(super) const PATTERNS: &str = "there are no patterns; use contains or starts with";

/// Takes a filter apart; the last token is its end.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>> {
    let mut scanner = Scanner { text, at: 0 };
    let mut tokens = Vec::new();
    loop {
        scanner.skip(char::is_whitespace);
        let start = scanner.at;
        let kind = scanner.kind()?;
        let is_end = kind == Kind::End;
        tokens.push(Token { start, kind });
        if is_end {
            return Ok(tokens);
        }
    }
}

struct Scanner<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Scanner<'t> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    /// Goes over characters of a kind, and returns them.
    fn skip(&mut self, is_one: impl Fn(char) -> bool) -> &'t str {
        let rest = &self.text[self.at..];
        let len = rest.find(|next| !is_one(next)).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    fn kind(&mut self) -> Result<Kind> {
        let start = self.at;
        let Some(first) = self.peek() else { return Ok(Kind::End) };
        match first {
            '(' | ')' | '[' | ']' | ',' => {
                self.at += 1;
                Ok(Kind::Mark(first))
            }
            '"' | '\'' => self.text().map(Kind::Text),
            '.' => self.path(Vec::new()).map(Kind::Path),
            '@' => self.of_record(),
            '-' | '0'..='9' => self.number(),
            _ if begins_path(first) => {
                let word = self.skip(is_of_name).to_owned();
                match self.peek() {
                    Some('.') => self.path(vec![word]).map(Kind::Path),
                    _ => Ok(Kind::Word(word)),
                }
            }
            _ => {
                let sign = self.skip(is_of_sign);
                match Comparison::ALL.iter().find(|(known, _)| *known == sign) {
                    Some((_, comparison)) => Ok(Kind::Comparison(*comparison)),
                    None => Err((start, unknown_sign(sign, first))),
                }
            }
        }
    }

    /// Reads names, each after a dot.
    fn path(&mut self, mut names: Vec<String>) -> Result<Vec<String>> {
        while self.peek() == Some('.') {
            self.at += 1;
            let name = match self.peek() {
                Some('"' | '\'') => self.text()?,
                Some(first) if is_of_name(first) => self.skip(is_of_name).to_owned(),
                _ => return Err((self.at, "a name is missing after the dot".to_owned())),
            };
            names.push(name);
        }
        Ok(names)
    }

    fn of_record(&mut self) -> Result<Kind> {
        let start = self.at;
        self.at += 1;
        self.skip(is_of_name);
        let name = &self.text[start..self.at];
        let known = Field::OF_RECORDS.map(|(known, _)| known);
        if self.peek() == Some('.') && known.contains(&name) {
            return Err((self.at, format!("{name} has no parts")));
        }
        if let Some((_, field)) = Field::OF_RECORDS.iter().find(|(known, _)| *known == name) {
            return Ok(Kind::OfRecord(*field));
        }
        let name = shown(name);
        let remedy = match spelling::nearest(&name, &known) {
            Some(meant) => format!("did you mean {meant}?"),
            None => format!("a record has @key, @collection and @text, its payload .\"{name}\""),
        };
        Err((start, format!("there is no {name}; {remedy}")))
    }

    fn number(&mut self) -> Result<Kind> {
        let start = self.at;
        let text = self.skip(|next| is_of_name(next) || matches!(next, '.' | '+'));
        let number = Number::parse(text).map(Kind::Number);
        number.ok_or_else(|| {
            (start, format!("\"{}\" is no number that can be compared", shown(text)))
        })
    }

    fn text(&mut self) -> Result<String> {
        let start = self.at;
        let quote = self.next();
        let mut text = String::new();
        loop {
            let at = self.at;
            match self.next() {
                None => return Err((start, "this quote is never closed".to_owned())),
                next if next == quote => return Ok(text),
                Some('\\') => text.push(self.escaped(at)?),
                Some(next) => text.push(next),
            }
        }
    }

    /// Reads what follows a backslash, which stands at `start`.
    fn escaped(&mut self, start: usize) -> Result<char> {
        match self.next() {
            Some(same @ ('"' | '\'' | '\\' | '/')) => Ok(same),
            Some('n') => Ok('\n'),
            Some('r') => Ok('\r'),
            Some('t') => Ok('\t'),
            Some('b') => Ok('\u{8}'),
            Some('f') => Ok('\u{c}'),
            Some('u') => self.code_point(start),
            _ => Err((start, "there is no such escape; a backslash is written \\\\".to_owned())),
        }
    }

    /// Reads four digits, or twice four that stand for one character in JSON.
    fn code_point(&mut self, start: usize) -> Result<char> {
        let first = self.unit(start)?;
        let mut units = vec![first];
        if (0xD800..0xDC00).contains(&first) && self.text[self.at..].starts_with("\\u") {
            self.at += 2;
            units.push(self.unit(start)?);
        }
        match char::decode_utf16(units).collect::<std::result::Result<Vec<_>, _>>().as_deref() {
            Ok([one]) => Ok(*one),
            _ => Err((start, "half a character; write the character itself".to_owned())),
        }
    }

    fn unit(&mut self, start: usize) -> Result<u16> {
        let digits = self.text.get(self.at..self.at + 4);
        let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let unit = digits.and_then(|digits| u16::from_str_radix(digits, 16).ok());
        self.at += 4;
        unit.ok_or_else(|| (start, "after \\u four hexadecimal digits follow".to_owned()))
    }
}

fn is_of_sign(character: char) -> bool {
    matches!(character, '=' | '!' | '<' | '>' | '&' | '|' | '~' | '^' | '*' | '%' | '+' | ':')
}

fn unknown_sign(sign: &str, first: char) -> String {
    if sign.is_empty() {
        let remedy = "names of other characters stand in quotes after a dot: .\"odd name\"";
        return format!("\"{}\" has no place here; {remedy}", first.escape_debug());
    }
    let sign_shown = shown(sign);
    if sign.contains(['~', '*', '%', '^']) {
        return format!("\"{sign_shown}\" is no operator; {PATTERNS}");
    }
    match FOREIGN.iter().find(|(foreign, _)| *foreign == sign) {
        Some((_, meant)) => format!("\"{sign_shown}\" is no operator; did you mean {meant}?"),
        None => format!("\"{sign_shown}\" is no operator; there are =, !=, <, <=, > and >="),
    }
}

/// The beginning of a text, on a line.
pub(super) fn shown(text: &str) -> String {
    let start: String = text.chars().take(40).collect();
    let end = if start.len() < text.len() { "…" } else { "" };
    format!("{}{end}", start.escape_debug())
}
