//! From words and signs to conditions.

use super::literal::Literal;
use super::token::{Kind, PATTERNS, Problem, Result, Token, shown, tokens};
use super::{Condition, DEPTH_MAX, FIELDS_MAX, Field, Filter, LEN_MAX_BYTES, Path, RESERVED};
use crate::error::TextError;
use crate::spelling;

/// What may follow a field.
const OPERATORS: &str = "=, !=, <, <=, >, >=, in, contains, starts with, and, or";
/// Words of these.
const AFTER_FIELD: [&str; 6] = ["in", "contains", "starts", "not", "and", "or"];
/// What people write who know other languages, or forget a space.
const FOREIGN: [(&str, &str); 10] = [
    ("is", "="),
    ("eq", "="),
    ("ne", "!="),
    ("equals", "="),
    ("startswith", "starts with"),
    ("starts-with", "starts with"),
    ("starts_with", "starts with"),
    ("begins", "starts with"),
    ("has", "contains"),
    ("includes", "contains"),
];
const PATTERN_WORDS: [&str; 5] = ["like", "matches", "match", "glob", "regex"];

pub(super) fn parse(text: &str) -> std::result::Result<Filter, TextError> {
    let at = |(offset, problem): Problem| TextError::at(text.as_bytes(), offset, 1, problem);
    if text.len() > LEN_MAX_BYTES {
        let len = text.len();
        let problem = format!("a filter of {len} bytes; it may have {LEN_MAX_BYTES}");
        return Err(at((text.floor_char_boundary(LEN_MAX_BYTES), problem)));
    }
    let tokens = tokens(text).map_err(at)?;
    let mut parser = Parser { tokens: &tokens, next: 0, paths: Vec::new() };
    if parser.peek().kind == Kind::End {
        let problem = "an empty filter; write a condition such as kind = \"method\"";
        return Err(at((0, problem.to_owned())));
    }
    let condition = parser.any(DEPTH_MAX).map_err(at)?;
    if parser.peek().kind != Kind::End {
        return Err(at(parser.no_conjunction()));
    }
    Ok(Filter { condition, paths: parser.paths })
}

struct Parser<'t> {
    /// The last of them is the end.
    tokens: &'t [Token],
    next: usize,
    paths: Vec<Path>,
}

impl<'t> Parser<'t> {
    fn peek(&self) -> &'t Token {
        &self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    fn take(&mut self) -> &'t Token {
        let token = self.peek();
        self.next += 1;
        token
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(&self.peek().kind, Kind::Word(found) if found == word)
    }

    fn take_word(&mut self, word: &str) -> bool {
        let is_it = self.is_word(word);
        self.next += usize::from(is_it);
        is_it
    }

    fn take_mark(&mut self, mark: char) -> bool {
        let is_it = self.peek().kind == Kind::Mark(mark);
        self.next += usize::from(is_it);
        is_it
    }

    /// Fails at the next token.
    fn refuse<T>(&self, problem: impl Into<String>) -> Result<T> {
        Err((self.peek().start, problem.into()))
    }

    fn any(&mut self, depth: usize) -> Result<Condition> {
        let mut conditions = Vec::new();
        loop {
            match self.all(depth)? {
                Condition::Any(more) => conditions.extend(more),
                one => conditions.push(one),
            }
            if !self.take_word("or") {
                return Ok(alone(conditions, Condition::Any));
            }
        }
    }

    fn all(&mut self, depth: usize) -> Result<Condition> {
        let mut conditions = Vec::new();
        loop {
            match self.one(depth)? {
                Condition::All(more) => conditions.extend(more),
                one => conditions.push(one),
            }
            if !self.take_word("and") {
                return Ok(alone(conditions, Condition::All));
            }
        }
    }

    fn one(&mut self, depth: usize) -> Result<Condition> {
        let token = self.peek();
        let deeper = || {
            let problem = format!("parentheses and \"not\" nest deeper than {DEPTH_MAX}");
            depth.checked_sub(1).ok_or((token.start, problem))
        };
        if self.take_word("not") {
            return Ok(Condition::Not(Box::new(self.one(deeper()?)?)));
        }
        if self.take_mark('(') {
            let condition = self.any(deeper()?)?;
            if !self.take_mark(')') {
                return match self.peek().kind {
                    Kind::End => Err((token.start, "this parenthesis is never closed".to_owned())),
                    _ => Err(self.no_conjunction()),
                };
            }
            return Ok(condition);
        }
        if self.take_word("exists") {
            return self.field("a field").map(Condition::Exists);
        }
        let field = self.field("a condition")?;
        self.about(field, token)
    }

    /// Reads what is said of a field, which stands at a token.
    fn about(&mut self, field: Field, token: &Token) -> Result<Condition> {
        if let Kind::Comparison(comparison) = self.peek().kind {
            self.take();
            let at = self.peek().start;
            let literal = self.literal()?;
            if comparison.asks_for_order() && matches!(literal, Literal::Null | Literal::Bool(_)) {
                return Err((at, format!("{literal} is neither less nor greater than others")));
            }
            return Ok(Condition::Compares(field, comparison, literal));
        }
        let is_negated = self.take_word("not");
        let condition = if self.take_word("in") {
            Condition::IsIn(field, self.list()?)
        } else if self.take_word("contains") {
            Condition::Contains(field, self.literal()?)
        } else if self.take_word("starts") {
            if !self.take_word("with") {
                return self.refuse("\"starts\" is followed by \"with\"");
            }
            let at = self.peek().start;
            match self.literal()? {
                Literal::Text(text) => Condition::StartsWith(field, text),
                other => {
                    return Err((
                        at,
                        format!("no text starts with {other}; write a text in quotes"),
                    ));
                }
            }
        } else if is_negated {
            return self.refuse("\"not\" after a field is followed by in, contains or starts with");
        } else if self.ends_condition() {
            return Ok(Condition::IsTrue(field));
        } else {
            return Err(self.no_operator(token));
        };
        Ok(if is_negated { Condition::Not(Box::new(condition)) } else { condition })
    }

    /// Whether a condition that is a field alone ends here.
    fn ends_condition(&self) -> bool {
        let is_mark = matches!(self.peek().kind, Kind::End | Kind::Mark(')'));
        is_mark || self.is_word("and") || self.is_word("or")
    }

    /// Reads a field where this is expected.
    fn field(&mut self, expected: &str) -> Result<Field> {
        let token = self.peek();
        let path = match &token.kind {
            Kind::OfRecord(field) => {
                self.take();
                return Ok(*field);
            }
            Kind::Word(word) if !RESERVED.contains(&&word[..]) => vec![word.clone()],
            Kind::Path(path) => path.clone(),
            other => return self.refuse(no_field(expected, other)),
        };
        self.take();
        let number = match self.paths.iter().position(|known| *known == path) {
            Some(number) => number,
            None if self.paths.len() == FIELDS_MAX => {
                return Err((token.start, format!("it names more than {FIELDS_MAX} fields")));
            }
            None => {
                self.paths.push(path);
                self.paths.len() - 1
            }
        };
        Ok(Field::Payload(number))
    }

    fn list(&mut self) -> Result<Vec<Literal>> {
        let start = self.peek().start;
        if !self.take_mark('[') {
            return self.refuse("\"in\" is followed by a list: [\"a\", \"b\"]");
        }
        if self.peek().kind == Kind::Mark(']') {
            return self.refuse("nothing is in an empty list; write a value");
        }
        let mut literals = Vec::new();
        loop {
            literals.push(self.literal()?);
            if self.take_mark(']') {
                return Ok(literals);
            }
            if !self.take_mark(',') {
                return match self.peek().kind {
                    Kind::End => Err((start, "this bracket is never closed".to_owned())),
                    _ => self.refuse("between the values of a list stands a comma"),
                };
            }
        }
    }

    fn literal(&mut self) -> Result<Literal> {
        let literal = match &self.peek().kind {
            Kind::Text(text) => Literal::Text(text.clone()),
            Kind::Number(number) => Literal::Number(*number),
            Kind::Word(word) => match &word[..] {
                "true" => Literal::Bool(true),
                "false" => Literal::Bool(false),
                "null" => Literal::Null,
                _ => return self.refuse(no_literal(word)),
            },
            Kind::Path(path) => return self.refuse(no_literal(&path.join("."))),
            Kind::OfRecord(_) => return self.refuse("fields do not compare with each other"),
            Kind::Mark('[') => return self.refuse("a list stands only after in"),
            Kind::End => return self.refuse("a value is missing at the end"),
            Kind::Mark(_) | Kind::Comparison(_) => {
                return self.refuse(
                    "a value is missing here: a text in quotes, a number, true, false or null",
                );
            }
        };
        self.take();
        Ok(literal)
    }

    /// What is wrong if a field is followed by the next token.
    fn no_operator(&self, field: &Token) -> Problem {
        let token = self.peek();
        let Kind::Word(word) = &token.kind else {
            return (token.start, format!("an operator is missing before this: {OPERATORS}"));
        };
        let (lower, word) = (word.to_lowercase(), shown(word));
        let foreign = FOREIGN.iter().find(|(foreign, _)| *foreign == lower);
        let meant = foreign.map(|(_, meant)| *meant);
        let remedy = match meant.or_else(|| spelling::nearest(&lower, &AFTER_FIELD)) {
            _ if PATTERN_WORDS.contains(&&lower[..]) => PATTERNS.to_owned(),
            Some("starts") => "did you mean starts with?".to_owned(),
            Some(meant) => format!("did you mean {meant}?"),
            None => {
                let before = match &field.kind {
                    Kind::Word(before) => spelling::nearest(before, &["exists", "not"]),
                    _ => None,
                };
                if let Some(meant) = before {
                    let problem = "two fields without an operator; did you mean";
                    return (field.start, format!("{problem} {meant}?"));
                }
                format!("there are {OPERATORS}")
            }
        };
        (token.start, format!("\"{word}\" is no operator; {remedy}"))
    }

    /// What is wrong if a condition is followed by the next token.
    fn no_conjunction(&self) -> Problem {
        let token = self.peek();
        let problem = match &token.kind {
            Kind::Mark(')') => "this closes no parenthesis".to_owned(),
            Kind::Word(word) => match spelling::nearest(&word.to_lowercase(), &["and", "or"]) {
                Some(meant) => {
                    format!("\"{}\" joins no conditions; did you mean {meant}?", shown(word))
                }
                None => format!("\"and\" or \"or\" is missing before \"{}\"", shown(word)),
            },
            _ => "a condition ends before this; join the next with \"and\" or \"or\"".to_owned(),
        };
        (token.start, problem)
    }
}

/// One condition as it is, and more of them joined.
fn alone(mut conditions: Vec<Condition>, join: fn(Vec<Condition>) -> Condition) -> Condition {
    match conditions.len() {
        1 => conditions.remove(0),
        _ => join(conditions),
    }
}

fn no_field(expected: &str, found: &Kind) -> String {
    let remedy = match found {
        Kind::End => return format!("{expected} is missing at the end"),
        Kind::Text(text) => {
            format!("not a text; a condition begins with a field: FIELD = \"{}\"", shown(text))
        }
        Kind::Number(_) => "not a number; a condition begins with a field".to_owned(),
        Kind::Word(word) if matches!(&word[..], "true" | "false" | "null") => {
            format!("not {word}; a condition begins with a field: FIELD = {word}")
        }
        Kind::Word(word) => format!("not {word}; a field of this name is written .{word}"),
        Kind::Mark(mark) => format!("not {mark}"),
        _ => "not an operator".to_owned(),
    };
    format!("{expected} is expected here, {remedy}")
}

fn no_literal(word: &str) -> String {
    match spelling::nearest(&word.to_lowercase(), &["true", "false", "null"]) {
        Some(meant) => format!("\"{}\" is no value; did you mean {meant}?", shown(word)),
        None => {
            format!("a value is expected here, and a text stands in quotes: \"{}\"", shown(word))
        }
    }
}
