//! Whether a filter is true of a record.
//!
//! Of a payload only the fields that the filter names are kept; the rest is read over.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::literal::{Literal, Number};
use super::{Comparison, Condition, Field, Filter, Path};
use crate::record::Payload;

/// A record that a filter is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The collection it lies in.
    pub collection: &'a str,
    /// Its key.
    pub key: &'a [u8],
    /// Its text, if it has one.
    pub text: Option<&'a str>,
    /// Its payload. Only one of JSON has fields.
    pub payload: &'a Payload<'a>,
}

/// What a field holds.
#[derive(Clone, Debug)]
enum Found<'a> {
    Missing,
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'a, str>),
    List(Vec<Found<'a>>),
    /// An object, or a list whose items nobody asks for.
    Other,
}

pub(super) fn matches(filter: &Filter, subject: &Subject<'_>) -> bool {
    let mut fields = vec![Found::Missing; filter.paths.len()];
    if let Payload::Json(json) = subject.payload
        && !fields.is_empty()
        && !read(json, &filter.paths, &mut fields)
    {
        // It is no JSON after all.
        fields.fill(Found::Missing);
    }
    Evaluation { subject, fields: &fields }.is_true(&filter.condition)
}

struct Evaluation<'e, 'a> {
    subject: &'e Subject<'a>,
    fields: &'e [Found<'e>],
}

impl<'e> Evaluation<'e, '_> {
    fn is_true(&self, condition: &Condition) -> bool {
        match condition {
            Condition::All(conditions) => conditions.iter().all(|one| self.is_true(one)),
            Condition::Any(conditions) => conditions.iter().any(|one| self.is_true(one)),
            Condition::Not(condition) => !self.is_true(condition),
            Condition::Exists(field) => !matches!(*self.field(*field), Found::Missing),
            Condition::IsTrue(field) => matches!(*self.field(*field), Found::Bool(true)),
            Condition::Compares(field, comparison, literal) => {
                compares(&self.field(*field), *comparison, literal)
            }
            Condition::IsIn(field, literals) => {
                let found = self.field(*field);
                literals.iter().any(|literal| is_equal(&found, literal))
            }
            Condition::Contains(field, literal) => match (&*self.field(*field), literal) {
                (Found::Text(text), Literal::Text(part)) => text.contains(&part[..]),
                (Found::List(items), literal) => items.iter().any(|item| is_equal(item, literal)),
                _ => false,
            },
            Condition::StartsWith(field, start) => {
                matches!(&*self.field(*field), Found::Text(text) if text.starts_with(&start[..]))
            }
        }
    }

    fn field(&self, field: Field) -> Cow<'e, Found<'e>> {
        let text = |text: Cow<'e, str>| Cow::Owned(Found::Text(text));
        match field {
            Field::Payload(number) => Cow::Borrowed(&self.fields[number]),
            Field::Key => text(String::from_utf8_lossy(self.subject.key)),
            Field::Collection => text(self.subject.collection.into()),
            Field::Text => {
                self.subject.text.map_or(Cow::Owned(Found::Missing), |found| text(found.into()))
            }
        }
    }
}

fn is_equal(found: &Found<'_>, literal: &Literal) -> bool {
    compares(found, Comparison::Equal, literal)
}

fn compares(found: &Found<'_>, comparison: Comparison, literal: &Literal) -> bool {
    let order = match (found, literal) {
        (Found::Null, Literal::Null) => Ordering::Equal,
        // Any order that is not equal: the parser lets nobody ask for another with null.
        (Found::Missing, _) => return false,
        (_, Literal::Null) => Ordering::Greater,
        (Found::Bool(found), Literal::Bool(literal)) => found.cmp(literal),
        (Found::Number(found), Literal::Number(literal)) => found.order(*literal),
        (Found::Text(found), Literal::Text(literal)) => (**found).cmp(&literal[..]),
        _ => return false,
    };
    match comparison {
        Comparison::Equal => order.is_eq(),
        Comparison::Different => order.is_ne(),
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
        Comparison::Greater => order.is_gt(),
        Comparison::GreaterOrEqual => order.is_ge(),
    }
}

/// Finds what lies at paths; says whether the payload is JSON.
fn read<'a>(json: &'a str, paths: &[Path], fields: &mut [Found<'a>]) -> bool {
    let mut reader = serde_json::Deserializer::from_str(json);
    let active = u64::MAX >> (u64::BITS as usize - paths.len());
    Value { paths, active, depth: 0, fields }.deserialize(&mut reader).is_ok()
}

/// Reads a value that paths lead to or through.
struct Value<'v, 'a> {
    paths: &'v [Path],
    /// The paths, one bit each.
    active: u64,
    /// Names of these that lead here.
    depth: usize,
    fields: &'v mut [Found<'a>],
}

impl<'a> Value<'_, 'a> {
    /// Of the active paths those whose next name is one that is meant.
    fn next(paths: &[Path], active: u64, depth: usize, is_meant: impl Fn(&str) -> bool) -> u64 {
        bits(active)
            .filter(|number| paths[*number].get(depth).is_some_and(|next| is_meant(next)))
            .fold(0, |mask, number| mask | 1 << number)
    }

    /// The paths that end here.
    fn ending(&self) -> impl Iterator<Item = usize> + use<'_, 'a> {
        bits(self.active).filter(|number| self.paths[*number].len() == self.depth)
    }

    fn end(self, found: Found<'a>) -> Found<'a> {
        let ending: Vec<usize> = self.ending().collect();
        for number in ending {
            self.fields[number] = found.clone();
        }
        found
    }
}

/// Whether a name is this number as one writes it.
fn is_index(name: &str, index: usize) -> bool {
    let is_written_so = name == "0" || name.starts_with(|first: char| matches!(first, '1'..='9'));
    is_written_so && name.parse() == Ok(index)
}

fn bits(mut mask: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let number = (mask != 0).then(|| mask.trailing_zeros() as usize)?;
        mask &= mask - 1;
        Some(number)
    })
}

impl<'de> DeserializeSeed<'de> for Value<'_, 'de> {
    type Value = Found<'de>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Found<'de>, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_, 'de> {
    type Value = Found<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of JSON")
    }

    fn visit_unit<E>(self) -> Result<Found<'de>, E> {
        Ok(self.end(Found::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Found<'de>, E> {
        Ok(self.end(Found::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Found<'de>, E> {
        Ok(self.end(Found::Number(Number::Whole(value.into()))))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Found<'de>, E> {
        Ok(self.end(Found::Number(Number::Whole(value.into()))))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Found<'de>, E> {
        Ok(self.end(Found::Number(Number::Float(value))))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Found<'de>, E> {
        Ok(self.end(Found::Text(value.into())))
    }

    fn visit_str<E>(self, value: &str) -> Result<Found<'de>, E> {
        Ok(self.end(Found::Text(value.to_owned().into())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Found<'de>, A::Error> {
        let Self { paths, active, depth, .. } = self;
        let is_kept = self.ending().next().is_some();
        let mut kept = Vec::new();
        for index in 0_usize.. {
            let next = Self::next(paths, active, depth, |name| is_index(name, index));
            let fields = &mut *self.fields;
            if next != 0 || is_kept {
                let item = Value { paths, active: next, depth: depth + 1, fields };
                let Some(item) = items.next_element_seed(item)? else { break };
                kept.extend(is_kept.then_some(item));
            } else if items.next_element::<IgnoredAny>()?.is_none() {
                break;
            }
        }
        if is_kept {
            self.end(Found::List(kept));
        }
        Ok(Found::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Found<'de>, A::Error> {
        let Self { paths, active, depth, .. } = self;
        while let Some(next) = members.next_key_seed(Name { paths, active, depth })? {
            if next == 0 {
                members.next_value::<IgnoredAny>()?;
                continue;
            }
            // Of an earlier one of this name nothing is left.
            bits(next).for_each(|number| self.fields[number] = Found::Missing);
            let fields = &mut *self.fields;
            members.next_value_seed(Value { paths, active: next, depth: depth + 1, fields })?;
        }
        Ok(self.end(Found::Other))
    }
}

/// Reads the name of a member, and says which paths lead through it.
struct Name<'v> {
    paths: &'v [Path],
    active: u64,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<u64, D::Error> {
        reader.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<u64, E> {
        Ok(Value::next(self.paths, self.active, self.depth, |next| next == name))
    }
}
