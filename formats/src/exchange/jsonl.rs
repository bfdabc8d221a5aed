//! JSON lines: one record a line, readable by people and by every language.
//!
//! | field | value |
//! |---|---|
//! | `key` | string; or `key_base64`, if the key is not UTF-8 |
//! | `text` | string, what the embedding stands for |
//! | `vector` | array of numbers |
//! | `payload` | any JSON value; or `payload_base64`, if the payload is bytes |
//! | `expires_at_unix_ms` | whole number, milliseconds since 1970-01-01 UTC |
//!
//! A record has a key, and at least one of a text, a vector and a payload. Parsing is
//! strict: an unknown, repeated or null field is an error, because a misspelt field
//! would otherwise lose data in silence.
//!
//! What is rendered comes back unchanged: numbers of vectors have the fewest digits
//! that give the same f32, and a JSON payload is copied, not parsed and written anew,
//! so the order of its keys and the spelling of its numbers stay. Only line breaks
//! between its tokens become spaces.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::base64;
use crate::embedding::{DIMENSIONS_MAX, check_dimensions, check_finite};
use crate::json::{offset_in, words_of};
use crate::record::{check_key, check_text};
use crate::{FormatError, Payload, TextError, spelling};

/// Longest line. The largest record, in its longest spelling, is shorter.
pub const LINE_LEN_MAX_BYTES: usize = 32 << 20;

/// One record, as it is exchanged.
#[derive(Clone, Debug, PartialEq)]
pub struct ExchangeRecord<'a> {
    /// Under which key it is stored.
    pub key: Cow<'a, [u8]>,
    /// The text that its embedding stands for.
    pub text: Option<Cow<'a, str>>,
    /// Its embedding, if that is not to be computed from the text.
    pub vector: Option<Vec<f32>>,
    /// What it carries for its reader.
    pub payload: Payload<'a>,
    /// When it stops to exist, in milliseconds since 1970-01-01 UTC.
    pub expires_at_unix_ms: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Key,
    KeyBase64,
    Text,
    Vector,
    Payload,
    PayloadBase64,
    ExpiresAtUnixMs,
}

impl Field {
    const ALL: [Self; 7] = [
        Self::Key,
        Self::KeyBase64,
        Self::Text,
        Self::Vector,
        Self::Payload,
        Self::PayloadBase64,
        Self::ExpiresAtUnixMs,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::KeyBase64 => "key_base64",
            Self::Text => "text",
            Self::Vector => "vector",
            Self::Payload => "payload",
            Self::PayloadBase64 => "payload_base64",
            Self::ExpiresAtUnixMs => "expires_at_unix_ms",
        }
    }
}

/// Parses one line, with or without its line break; payload and, where they have no
/// escapes, key and text stay where they are.
///
/// # Errors
/// Says what is wrong and in which column; `line_number` is for that alone.
pub fn parse_line(line: &[u8], line_number: u64) -> Result<ExchangeRecord<'_>, TextError> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let source = Source { line, line_number };
    if line.len() > LINE_LEN_MAX_BYTES {
        let problem = format!("a line of {} bytes is over the limit of 32 MiB", line.len());
        return Err(source.wrong(0, problem));
    }
    let text = std::str::from_utf8(line)
        .map_err(|error| source.wrong(error.valid_up_to(), "not UTF-8"))?;
    if let Some(offset) = line.iter().position(|&byte| byte == b'\n') {
        return Err(source.wrong(offset, "a record must stand on one line"));
    }
    let fields: Fields<'_> = serde_json::from_str(text).map_err(|error| source.json(0, &error))?;
    source.record(&fields)
}

/// Appends `record` to `out` as one line with its line break.
///
/// # Errors
/// Names what [`parse_line`] would refuse; nothing has been appended then.
pub fn render_line(record: &ExchangeRecord<'_>, out: &mut Vec<u8>) -> Result<(), FormatError> {
    check_renderable(record)?;
    match std::str::from_utf8(&record.key) {
        Ok(key) => {
            out.extend_from_slice(b"{\"key\":");
            push_json(key, out);
        }
        Err(_) => {
            out.extend_from_slice(b"{\"key_base64\":\"");
            base64::render(&record.key, out);
            out.push(b'"');
        }
    }
    if let Some(text) = &record.text {
        out.extend_from_slice(b",\"text\":");
        push_json(text.as_ref(), out);
    }
    if let Some(vector) = &record.vector {
        out.extend_from_slice(b",\"vector\":");
        push_json(vector, out);
    }
    match &record.payload {
        Payload::None => {}
        Payload::Json(json) => {
            out.extend_from_slice(b",\"payload\":");
            // No string of JSON has a raw line break, so these stand between tokens.
            let break_to_space = |byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte };
            out.extend(json.trim().bytes().map(break_to_space));
        }
        Payload::Bytes(bytes) => {
            out.extend_from_slice(b",\"payload_base64\":\"");
            base64::render(bytes, out);
            out.push(b'"');
        }
    }
    if let Some(expires_at_unix_ms) = record.expires_at_unix_ms {
        out.extend_from_slice(b",\"expires_at_unix_ms\":");
        push_json(&expires_at_unix_ms, out);
    }
    out.extend_from_slice(b"}\n");
    Ok(())
}

fn check_renderable(record: &ExchangeRecord<'_>) -> Result<(), FormatError> {
    check_key(&record.key)?;
    if let Some(text) = &record.text {
        check_text(text)?;
    }
    if let Some(vector) = &record.vector {
        check_dimensions(vector.len())?;
        check_finite(vector)?;
    }
    record.payload.check_len()?;
    if let Payload::Json(json) = &record.payload {
        serde_json::from_str::<&RawValue>(json).map_err(|error| FormatError::InvalidJson {
            what: "payload",
            offset: offset_in(json.as_bytes(), &error) as u64,
        })?;
    }
    record.payload.check_depth()?;
    if record.text.is_none() && record.vector.is_none() && record.payload == Payload::None {
        return Err(FormatError::Empty { what: "record" });
    }
    Ok(())
}

fn push_json(value: &(impl serde::Serialize + ?Sized), out: &mut Vec<u8>) {
    serde_json::to_writer(out, value)
        .expect("strings, integers and finite floats have JSON, and a vector takes every byte");
}

/// The fields of a line, not yet parsed.
#[derive(Default)]
struct Fields<'a>([Option<&'a RawValue>; Field::ALL.len()]);

impl<'a> Fields<'a> {
    fn get(&self, field: Field) -> Option<&'a RawValue> {
        self.0[field as usize]
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;

        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with the fields of a record")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Fields::default();
                while let Some(field) = map.next_key::<Field>()? {
                    if fields.get(field).is_some() {
                        let name = field.name();
                        return Err(A::Error::custom(format!("field {name:?} stands here twice")));
                    }
                    fields.0[field as usize] = Some(map.next_value()?);
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(FieldsVisitor)
    }
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldVisitor;

        impl Visitor<'_> for FieldVisitor {
            type Value = Field;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a field")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Field, E> {
                let known = Field::ALL.into_iter().find(|field| field.name() == name);
                known.ok_or_else(|| E::custom(unknown_field(name)))
            }
        }

        deserializer.deserialize_str(FieldVisitor)
    }
}

fn unknown_field(name: &str) -> String {
    match spelling::nearest(name, &Field::ALL.map(Field::name)) {
        Some(known) => format!("unknown field {name:?}, did you mean {known:?}?"),
        None => {
            let shown: String = name.chars().take(64).collect();
            let known = Field::ALL.map(Field::name).join(", ");
            format!("unknown field {shown:?}, the fields are {known}")
        }
    }
}

/// Where a record is parsed from, to locate what is wrong.
struct Source<'a> {
    line: &'a [u8],
    line_number: u64,
}

impl<'a> Source<'a> {
    fn record(&self, fields: &Fields<'a>) -> Result<ExchangeRecord<'a>, TextError> {
        let either = |one: Field, other: Field| match (fields.get(one), fields.get(other)) {
            (Some(_), Some(second)) => {
                let (one, other) = (one.name(), other.name());
                Err(self.wrong_in(second, 0, format!("{one} and {other} exclude each other")))
            }
            (one, other) => Ok((one, other)),
        };
        let key = match either(Field::Key, Field::KeyBase64)? {
            (Some(raw), _) => Some((raw, self.key(raw)?)),
            (_, Some(raw)) => Some((raw, self.bytes(raw, Field::KeyBase64)?.into())),
            (None, None) => None,
        };
        let Some((key_raw, key)) = key else {
            return Err(self.wrong(self.line.len(), "the record has no key"));
        };
        self.check(key_raw, check_key(&key))?;
        let payload = match either(Field::Payload, Field::PayloadBase64)? {
            (Some(raw), _) => self.json_payload(raw)?,
            (_, Some(raw)) => {
                let bytes = Payload::Bytes(self.bytes(raw, Field::PayloadBase64)?.into());
                self.check(raw, bytes.check_len())?;
                bytes
            }
            (None, None) => Payload::None,
        };
        let record = ExchangeRecord {
            key,
            text: fields.get(Field::Text).map(|raw| self.text(raw)).transpose()?,
            vector: fields.get(Field::Vector).map(|raw| self.vector(raw)).transpose()?,
            payload,
            expires_at_unix_ms: fields
                .get(Field::ExpiresAtUnixMs)
                .map(|raw| self.milliseconds(raw))
                .transpose()?,
        };
        if record.text.is_none() && record.vector.is_none() && record.payload == Payload::None {
            let problem = "the record has no text, no vector and no payload";
            return Err(self.wrong(self.line.len(), problem));
        }
        Ok(record)
    }

    fn key(&self, raw: &'a RawValue) -> Result<Cow<'a, [u8]>, TextError> {
        Ok(match self.string(raw, Field::Key)? {
            Cow::Borrowed(key) => Cow::Borrowed(key.as_bytes()),
            Cow::Owned(key) => Cow::Owned(key.into_bytes()),
        })
    }

    fn text(&self, raw: &'a RawValue) -> Result<Cow<'a, str>, TextError> {
        let text = self.string(raw, Field::Text)?;
        self.check(raw, check_text(&text))?;
        Ok(text)
    }

    fn string(&self, raw: &'a RawValue, field: Field) -> Result<Cow<'a, str>, TextError> {
        let json = raw.get();
        let content = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        match content {
            None => Err(self.wrong_in(raw, 0, format!("{} must be a string", field.name()))),
            Some(content) if !content.contains('\\') => Ok(Cow::Borrowed(content)),
            Some(_) => serde_json::from_str(json)
                .map(Cow::Owned)
                .map_err(|error| self.json(self.offset_of(raw), &error)),
        }
    }

    fn bytes(&self, raw: &'a RawValue, field: Field) -> Result<Vec<u8>, TextError> {
        let text = self.string(raw, field)?;
        base64::parse(text.as_bytes()).map_err(|offset| {
            let problem = format!("{} must be padded base64 (RFC 4648)", field.name());
            self.wrong_in(raw, offset + 1, problem)
        })
    }

    fn json_payload(&self, raw: &'a RawValue) -> Result<Payload<'a>, TextError> {
        let payload = Payload::Json(raw.get().into());
        self.check(raw, payload.check_len())?;
        self.check(raw, payload.check_depth())?;
        Ok(payload)
    }

    /// Parses the numbers as f32 at once: by way of f64 some would be rounded twice.
    fn vector(&self, raw: &'a RawValue) -> Result<Vec<f32>, TextError> {
        let json = raw.get();
        let Some(numbers) = json.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) else {
            return Err(self.wrong_in(raw, 0, "vector must be an array of numbers"));
        };
        if numbers.trim_ascii().is_empty() {
            return Err(self.wrong_in(raw, 0, "vector is empty"));
        }
        let commas = numbers.bytes().filter(|&byte| byte == b',').count();
        if commas >= DIMENSIONS_MAX {
            let problem = format!("vector has over {DIMENSIONS_MAX} dimensions");
            return Err(self.wrong_in(raw, 0, problem));
        }
        let mut vector = Vec::with_capacity(commas + 1);
        let mut offset = 1;
        for token in numbers.split(',') {
            let number = token.trim_ascii();
            let at = offset + (token.len() - token.trim_ascii_start().len());
            // What JSON lets begin so is a number, and Rust reads every such number.
            let numeric = number.starts_with(|first: char| first == '-' || first.is_ascii_digit());
            match number.parse::<f32>() {
                Ok(number) if numeric && number.is_finite() => vector.push(number),
                Ok(_) if numeric => {
                    let index = vector.len();
                    let problem = format!("element {index} of the vector is too large for f32");
                    return Err(self.wrong_in(raw, at, problem));
                }
                _ => {
                    let problem = format!("element {} of the vector is no number", vector.len());
                    return Err(self.wrong_in(raw, at, problem));
                }
            }
            offset += token.len() + 1;
        }
        Ok(vector)
    }

    fn milliseconds(&self, raw: &'a RawValue) -> Result<u64, TextError> {
        raw.get().parse().map_err(|_| {
            let problem = "expires_at_unix_ms must be a whole number of milliseconds from 0 to \
                           18446744073709551615";
            self.wrong_in(raw, 0, problem)
        })
    }

    fn check(&self, raw: &RawValue, checked: Result<(), FormatError>) -> Result<(), TextError> {
        checked.map_err(|error| self.wrong_in(raw, 0, error.to_string()))
    }

    fn wrong(&self, offset: usize, problem: impl Into<String>) -> TextError {
        TextError::at(self.line, offset, self.line_number, problem)
    }

    fn wrong_in(&self, raw: &RawValue, offset: usize, problem: impl Into<String>) -> TextError {
        self.wrong(self.offset_of(raw) + offset, problem)
    }

    /// Converts an error about the JSON that begins at `start`.
    fn json(&self, start: usize, error: &serde_json::Error) -> TextError {
        self.wrong(start + offset_in(&self.line[start..], error), words_of(error))
    }

    fn offset_of(&self, raw: &RawValue) -> usize {
        // Every raw value borrows from the line.
        raw.get().as_ptr().addr() - self.line.as_ptr().addr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::PAYLOAD_DEPTH_MAX;

    fn error_of(line: &str) -> (u64, String) {
        let error = parse_line(line.as_bytes(), 7).unwrap_err();
        assert_eq!(error.line, 7, "{error}");
        (error.column, error.problem)
    }

    #[test]
    fn what_has_no_escapes_stays_where_it_is() {
        let line = br#"{"key":"a","text":"b","payload":{"z":1.50,"a":[1e400]}}"#;
        let record = parse_line(line, 1).unwrap();
        assert!(matches!(record.key, Cow::Borrowed(b"a")));
        assert!(matches!(record.text, Some(Cow::Borrowed("b"))));
        let Payload::Json(Cow::Borrowed(json)) = record.payload else { panic!("{record:?}") };
        assert_eq!(json, r#"{"z":1.50,"a":[1e400]}"#);
        let escaped = parse_line(br#"{"key":"\u00e4\n","text":"\ud83d\ude00"}"#, 1).unwrap();
        assert_eq!(escaped.key, "ä\n".as_bytes());
        assert_eq!(escaped.text.as_deref(), Some("😀"));
    }

    #[test]
    fn unknown_fields_are_refused_with_the_one_meant() {
        let (column, problem) = error_of(r#"{"key":"a","txt":"b"}"#);
        assert_eq!(problem, r#"unknown field "txt", did you mean "text"?"#);
        assert!((12..=17).contains(&column), "{column}");
        let (_, problem) = error_of(r#"{"key":"a","vectors":[1]}"#);
        assert!(problem.ends_with(r#"did you mean "vector"?"#), "{problem}");
        let (_, problem) = error_of(r#"{"key":"a","embedding":[1]}"#);
        assert!(
            problem.ends_with(
                "key, key_base64, text, vector, payload, payload_base64, \
                                   expires_at_unix_ms"
            ),
            "{problem}"
        );
        let long = format!(r#"{{"{}":1}}"#, "text".repeat(1000));
        assert!(error_of(&long).1.len() < 300);
    }

    #[test]
    fn what_is_wrong_is_located() {
        let cases = [
            (r#"{"key":"a","key":"b"}"#, 16, "twice"),
            (r#"{"text":"a"}"#, 13, "no key"),
            (r#"{"key":"a"}"#, 12, "no text, no vector and no payload"),
            (r#"{"key":"","text":"a"}"#, 8, "key is empty"),
            (r#"{"key":3,"text":"a"}"#, 8, "key must be a string"),
            (r#"{"key":"a","text":null}"#, 19, "text must be a string"),
            (r#"{"key":"ä","vector":[1, x]}"#, 25, "expected value"),
            (r#"{"key":"ä","vector":[1, "2"]}"#, 25, "element 1 of the vector is no number"),
            (r#"{"key":"a","vector":[1,[2]]}"#, 24, "element 1 of the vector is no number"),
            (r#"{"key":"a","vector":[1,-1e39]}"#, 24, "element 1 of the vector is too large"),
            (r#"{"key":"a","vector":[ ]}"#, 21, "vector is empty"),
            (r#"{"key":"a","vector":{}}"#, 21, "vector must be an array"),
            (r#"{"key":"a","payload":1,"expires_at_unix_ms":1.5}"#, 45, "whole number"),
            (r#"{"key":"a","payload":1,"payload_base64":""}"#, 41, "exclude each other"),
            (r#"{"key_base64":"/w=","text":"a"}"#, 19, "padded base64"),
            (r#"{"key":"a","text":"\ud800"}"#, 26, "unexpected end of hex escape"),
            ("[1]", 1, "expected an object with the fields of a record"),
            ("", 1, "EOF while parsing a value"),
            (r#"{"key":"a","text":"b"} {}"#, 24, "trailing characters"),
            ("{\"key\":\"a\",\n\"text\":\"b\"}", 12, "one line"),
        ];
        for (line, column, problem) in cases {
            let found = error_of(line);
            assert!(found.1.contains(problem), "{line}: {found:?}");
            assert_eq!(found.0, column, "{line}: {found:?}");
        }
        let error = parse_line(b"{\"key\":\"\xFF\"}", 3).unwrap_err();
        assert_eq!((error.column, error.problem.as_str()), (9, "not UTF-8"));
    }

    #[test]
    fn numbers_are_rounded_once() {
        // Halfway between two f32 but for a digit that f64 does not hold.
        let line = br#"{"key":"a","vector":[1.00000005960464477540]}"#;
        let vector = parse_line(line, 1).unwrap().vector.unwrap();
        assert_eq!(vector, [1.000_000_1]);
        let by_way_of_f64: f64 = "1.00000005960464477540".parse().unwrap();
        assert_eq!(by_way_of_f64 as f32, 1.0);
    }

    #[test]
    fn depth_is_bounded_and_strings_do_not_count() {
        let nested = |depth: usize| {
            let (open, close) = ("[".repeat(depth), "]".repeat(depth));
            format!(r#"{{"key":"a","payload":{open}"[[\"[["{close}}}"#)
        };
        assert!(parse_line(nested(PAYLOAD_DEPTH_MAX).as_bytes(), 1).is_ok());
        let (column, problem) = error_of(&nested(PAYLOAD_DEPTH_MAX + 1));
        assert_eq!(
            (column, problem.as_str()),
            (22, "nesting of the payload is 129, the limit is 128")
        );
    }

    #[test]
    fn what_could_not_be_parsed_is_not_rendered() {
        let record = ExchangeRecord {
            key: Cow::Borrowed(b"k"),
            text: None,
            vector: None,
            payload: Payload::None,
            expires_at_unix_ms: Some(1),
        };
        let mut out = b"before".to_vec();
        assert_eq!(render_line(&record, &mut out), Err(FormatError::Empty { what: "record" }));
        let json = Payload::Json("{\"a\":\n  }".into());
        let broken = ExchangeRecord { payload: json, ..record.clone() };
        assert_eq!(
            render_line(&broken, &mut out),
            Err(FormatError::InvalidJson { what: "payload", offset: 8 })
        );
        let infinite = ExchangeRecord { vector: Some(vec![0.0, f32::INFINITY]), ..record };
        assert_eq!(render_line(&infinite, &mut out), Err(FormatError::NotFinite { index: 1 }));
        assert_eq!(out, b"before");
    }

    #[test]
    fn breaks_in_a_payload_become_spaces() {
        let record = ExchangeRecord {
            key: Cow::Borrowed(b"k"),
            text: None,
            vector: None,
            payload: Payload::Json("{\r\n\"a\": \"x\\n\"\n}\n".into()),
            expires_at_unix_ms: None,
        };
        let mut out = Vec::new();
        render_line(&record, &mut out).unwrap();
        assert_eq!(out, b"{\"key\":\"k\",\"payload\":{  \"a\": \"x\\n\" }}\n");
    }
}
