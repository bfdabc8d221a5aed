//! Values that filters compare with.

use std::cmp::Ordering;
use std::fmt::{self, Display, Formatter, Write};

/// A value of a filter.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
}

/// A number of JSON.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    /// What an `i64` or a `u64` holds.
    Whole(i128),
    /// A finite one.
    Float(f64),
}

impl Number {
    /// Reads a number as JSON writes it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let number: serde_json::Number = serde_json::from_str(text).ok()?;
        let signed = number.as_i64().map(i128::from);
        match signed.or_else(|| number.as_u64().map(i128::from)) {
            Some(whole) => Some(Self::Whole(whole)),
            None => number.as_f64().filter(|float| float.is_finite()).map(Self::Float),
        }
    }

    pub(super) fn order(self, other: Self) -> Ordering {
        match (self, other) {
            (Self::Whole(one), Self::Whole(other)) => one.cmp(&other),
            (Self::Float(one), Self::Float(other)) => {
                one.partial_cmp(&other).unwrap_or(Ordering::Equal)
            }
            (Self::Whole(one), Self::Float(other)) => order_mixed(one, other),
            (Self::Float(one), Self::Whole(other)) => order_mixed(other, one).reverse(),
        }
    }
}

/// Compares exactly: not every whole number is an `f64`.
fn order_mixed(whole: i128, float: f64) -> Ordering {
    // One that is too large for it becomes the greatest, which no whole number here reaches.
    let floor = float.floor();
    whole.cmp(&(floor as i128)).then(if float > floor { Ordering::Less } else { Ordering::Equal })
}

impl Display for Literal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(Number::Whole(number)) => write!(f, "{number}"),
            // With a point or an exponent, so that it is read as one again.
            Self::Number(Number::Float(number)) => write!(f, "{number:?}"),
            Self::Text(text) => write_quoted(f, text),
        }
    }
}

/// Writes a text in quotes, as JSON does.
pub(super) fn write_quoted(f: &mut Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for character in text.chars() {
        match character {
            '"' | '\\' => write!(f, "\\{character}")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            control if control < ' ' => write!(f, "\\u{:04x}", u32::from(control))?,
            other => f.write_char(other)?,
        }
    }
    f.write_char('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_compare_as_what_they_are() {
        let number = |text: &str| Number::parse(text).unwrap();
        let ascending = [
            "-1e300",
            "-9223372036854775808",
            "-1.5",
            "-1",
            "0",
            "0.5",
            "1",
            "9007199254740992",
            "9007199254740993",
            "9007199254740994.0",
            "18446744073709551615",
            "18446744073709551616",
            "1e300",
        ];
        for (place, one) in ascending.iter().enumerate() {
            for (other_place, other) in ascending.iter().enumerate() {
                let order = number(one).order(number(other));
                assert_eq!(order, place.cmp(&other_place), "{one} and {other}");
            }
        }
        assert_eq!(number("1").order(number("1.0")), Ordering::Equal);
        assert_eq!(number("-0").order(number("0")), Ordering::Equal);
        assert_eq!(Number::parse("1e999"), None);
    }
}
