//! Filters: conditions on records, as people write them.
//!
//! ```text
//! service = "org.freedesktop.login1" and live
//! kind in ["method", "signal"] and not (risk = "denied" or arguments.0.name starts with "un")
//! exists documentation and @key contains "Reboot" and size >= 1.5
//! ```
//!
//! | syntax | true if |
//! |---|---|
//! | `FIELD` | the field is `true` |
//! | `exists FIELD` | there is such a field, `null` or not |
//! | `FIELD = VALUE`, `!=`, `<`, `<=`, `>`, `>=` | it compares so; texts by their code points |
//! | `FIELD in [VALUE, …]` | it is one of these |
//! | `FIELD contains VALUE` | a text has this in it, or a list has this item |
//! | `FIELD starts with TEXT` | a text begins so |
//! | `not C`, `C and C`, `C or C`, `(C)` | as always; `not` binds most, `or` least |
//!
//! Instead of `not FIELD in …` one may write `FIELD not in …`, and so with the two after it.
//!
//! **A field** is a path into the JSON payload of a record: names and numbers of list items, each
//! after a dot. Names are letters, digits, `_` and `-`; others stand in quotes after a dot:
//! `args."odd name"`. A path may begin with a dot, and must where its first name is in quotes, begins
//! with a digit, or is a word of this language: `."odd name" = 1`, `.0.name`, `.in`. What begins with
//! `@` is of the record itself: `@key`, `@collection`, `@text`, and nothing else, so that no field of
//! a payload is taken for one of these: `."@key"` is a field of the payload.
//!
//! **A value** is a text in `"` or `'`, with the escapes of JSON and `\'`; a number of JSON; `true`,
//! `false` or `null`.
//!
//! **Another type is never an error.** What compares a text with a number, or a field that there is
//! not with anything, is false, with `!=` too; `not a = 1` is true of all that is not 1. Only `null`
//! is of every type: `a != null` is true of a field that there is and that is not `null`. Whole
//! numbers compare exactly, and with others as what they are. Of two fields of one name the last
//! counts. A key that is not UTF-8 is compared as it is shown, with U+FFFD.
//!
//! Deliberately lacking: patterns, arithmetic, comparing fields with each other.

mod evaluate;
mod literal;
mod parse;
mod render;
mod token;

use std::str::FromStr;

pub use evaluate::Subject;
use literal::Literal;

use crate::error::TextError;

/// The longest filter.
pub const LEN_MAX_BYTES: usize = 4096;
/// How deep parentheses and `not` may nest.
pub const DEPTH_MAX: usize = 32;
/// How many fields of the payload one filter may name.
pub const FIELDS_MAX: usize = u64::BITS as usize;

/// Words that begin no path, unless after a dot.
const RESERVED: [&str; 9] =
    ["and", "or", "not", "in", "contains", "exists", "true", "false", "null"];

/// A condition on records. [`Display`](std::fmt::Display) gives its canonical form, which parses to
/// the same filter unless it is too long.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    condition: Condition,
    /// Paths into the payload, each once, in the order in which they are named.
    paths: Vec<Path>,
}

/// Names and numbers that lead to a field.
type Path = Vec<String>;

#[derive(Clone, Debug, PartialEq)]
enum Condition {
    /// Two or more, none of which is another `All`.
    All(Vec<Condition>),
    /// Two or more, none of which is another `Any`.
    Any(Vec<Condition>),
    Not(Box<Condition>),
    Exists(Field),
    IsTrue(Field),
    Compares(Field, Comparison, Literal),
    /// One or more.
    IsIn(Field, Vec<Literal>),
    Contains(Field, Literal),
    StartsWith(Field, String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Key,
    Collection,
    Text,
    /// The number of a path.
    Payload(usize),
}

impl Field {
    const OF_RECORDS: [(&str, Self); 3] =
        [("@key", Self::Key), ("@collection", Self::Collection), ("@text", Self::Text)];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    Different,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    const ALL: [(&str, Self); 6] = [
        ("=", Self::Equal),
        ("!=", Self::Different),
        ("<", Self::Less),
        ("<=", Self::LessOrEqual),
        (">", Self::Greater),
        (">=", Self::GreaterOrEqual),
    ];

    fn asks_for_order(self) -> bool {
        !matches!(self, Self::Equal | Self::Different)
    }
}

impl Filter {
    /// Reads a filter.
    ///
    /// # Errors
    /// What is wrong and where; with a remedy where one is known.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        parse::parse(text)
    }

    /// Whether it is true of a record.
    ///
    /// Cost: the payload is read once, and nothing of it is copied but texts with escapes and lists
    /// that are fields.
    #[must_use]
    pub fn matches(&self, subject: &Subject<'_>) -> bool {
        evaluate::matches(self, subject)
    }

    /// Whether it asks for nothing but the key and the collection.
    #[must_use]
    pub fn is_of_names_alone(&self) -> bool {
        self.paths.is_empty() && !self.condition.asks_for_text()
    }
}

impl Condition {
    fn asks_for_text(&self) -> bool {
        match self {
            Self::All(conditions) | Self::Any(conditions) => {
                conditions.iter().any(Self::asks_for_text)
            }
            Self::Not(condition) => condition.asks_for_text(),
            Self::Exists(field)
            | Self::IsTrue(field)
            | Self::Compares(field, ..)
            | Self::IsIn(field, _)
            | Self::Contains(field, _)
            | Self::StartsWith(field, _) => *field == Field::Text,
        }
    }
}

impl FromStr for Filter {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        Self::parse(text)
    }
}

/// Whether a character may be in a name without quotes.
fn is_of_name(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '-')
}

/// Whether a character may begin a path that does not begin with a dot.
fn begins_path(character: char) -> bool {
    character.is_alphabetic() || character == '_'
}
