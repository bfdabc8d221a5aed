//! Options that a method takes as `a{sv}`: by name and type, and none that is not known.

use std::collections::HashMap;
use std::fmt;

use op_dbus_engine::{ErrorKind, Filter, Query};
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zbus::wire::{Signature, Type, as_variant};

use crate::error::{BusError, Result};
use crate::gate::Reader;

/// Options as they come.
pub(crate) type Options = HashMap<String, OptionValue>;

/// The value of an option. What no option has is read over: it takes no room, however long it is.
#[derive(Clone, Debug, PartialEq)]
pub enum OptionValue {
    /// A count.
    Count(u32),
    /// A number.
    Number(f64),
    /// Whether or not.
    Flag(bool),
    /// Words.
    Text(String),
    /// Names.
    Names(Vec<String>),
    /// Anything else.
    Other,
}

impl From<u32> for OptionValue {
    fn from(count: u32) -> Self {
        Self::Count(count)
    }
}

impl From<f64> for OptionValue {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for OptionValue {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<String> for OptionValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Vec<String>> for OptionValue {
    fn from(names: Vec<String>) -> Self {
        Self::Names(names)
    }
}

impl Type for OptionValue {
    const SIGNATURE: &'static Signature = &Signature::Variant;
}

impl Serialize for OptionValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::Count(count) => as_variant::serialize(count, serializer),
            Self::Number(number) => as_variant::serialize(number, serializer),
            Self::Flag(flag) => as_variant::serialize(flag, serializer),
            Self::Text(text) => as_variant::serialize(text, serializer),
            Self::Names(names) => as_variant::serialize(names, serializer),
            Self::Other => Err(serde::ser::Error::custom("no option has such a value")),
        }
    }
}

impl<'de> Deserialize<'de> for OptionValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_struct("Variant", &["signature", "value"], ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = OptionValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a variant")
    }

    fn visit_seq<A: SeqAccess<'de>>(
        self,
        mut variant: A,
    ) -> std::result::Result<OptionValue, A::Error> {
        let missing = || serde::de::Error::invalid_length(1, &"a variant");
        let signature: Signature = variant.next_element()?.ok_or_else(missing)?;
        Ok(match signature.to_string().as_str() {
            "u" => OptionValue::Count(variant.next_element()?.ok_or_else(missing)?),
            "d" => OptionValue::Number(variant.next_element()?.ok_or_else(missing)?),
            "b" => OptionValue::Flag(variant.next_element()?.ok_or_else(missing)?),
            "s" => OptionValue::Text(variant.next_element()?.ok_or_else(missing)?),
            "as" => OptionValue::Names(variant.next_element()?.ok_or_else(missing)?),
            _ => {
                let _: IgnoredAny = variant.next_element()?.ok_or_else(missing)?;
                OptionValue::Other
            }
        })
    }
}

/// The collections that are asked for by name, each of which has to be required of the reader.
pub(super) fn collections(options: &Options) -> Result<Vec<&str>> {
    let Some(value) = options.get("collections") else { return Ok(Vec::new()) };
    let OptionValue::Names(names) = value else { return Err(wrong("collections", "as")) };
    Ok(names.iter().map(String::as_str).collect())
}

/// Applies the options of a search; unless they name collections, leaves out what this reader may not
/// read.
pub(super) fn search(
    mut query: Query,
    options: &Options,
    reader: &Reader,
    known: impl FnOnce() -> Vec<String>,
) -> Result<Query> {
    let mut has_collections = false;
    for (name, value) in options {
        query = match (name.as_str(), value) {
            ("limit", OptionValue::Count(limit)) => query.limit(*limit as usize),
            ("min-score", OptionValue::Number(score)) => query.min_score(*score as f32),
            ("recall", OptionValue::Number(recall)) => query.recall(*recall),
            ("exact", OptionValue::Flag(true)) => query.exact(),
            ("keyword", OptionValue::Flag(true)) => query.keyword(),
            ("exact" | "keyword", OptionValue::Flag(false)) => query,
            ("filter", OptionValue::Text(text)) => query.filter(filter(text)?),
            ("collections", OptionValue::Names(names)) => {
                for name in names {
                    query = query.collection(name.as_str());
                    has_collections = true;
                }
                query
            }
            ("limit", _) => return Err(wrong("limit", "u")),
            ("min-score", _) => return Err(wrong("min-score", "d")),
            ("recall", _) => return Err(wrong("recall", "d")),
            ("exact", _) => return Err(wrong("exact", "b")),
            ("keyword", _) => return Err(wrong("keyword", "b")),
            ("filter", _) => return Err(wrong("filter", "s")),
            ("collections", _) => return Err(wrong("collections", "as")),
            (unknown, _) => {
                let remedy = "use limit, min-score, recall, exact, keyword, filter or collections";
                let problem = format!("there is no option \"{unknown}\"");
                return Err(BusError::new(ErrorKind::Invalid, problem, remedy));
            }
        };
    }
    if has_collections {
        return Ok(query);
    }
    // Not by naming the others: those that do not fit the query would be an error then.
    Ok(known().into_iter().filter(|name| !reader.may_read(name)).fold(query, Query::except))
}

fn filter(text: &str) -> Result<Filter> {
    text.parse().map_err(|error| {
        let remedy = "op-dbus query --help shows how filters are written";
        BusError::new(ErrorKind::Invalid, format!("the filter is wrong at {error}"), remedy)
    })
}

fn wrong(name: &str, signature: &str) -> BusError {
    let problem = format!("the option \"{name}\" is of another type");
    BusError::new(ErrorKind::Invalid, problem, &format!("give it as {signature}"))
}
