//! Tables, written so that a value has one spelling.

use std::fmt::Write as _;

use serde_json::{Number, Value};

/// Writes tables one after another, each key on a line of its own.
#[derive(Default)]
pub(crate) struct Writer {
    text: String,
}

impl Writer {
    /// Begins a table.
    pub(crate) fn table(&mut self, path: &[&str]) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push('[');
        for (index, part) in path.iter().enumerate() {
            if index > 0 {
                self.text.push('.');
            }
            push_key(&mut self.text, part);
        }
        self.text.push_str("]\n");
    }

    /// Writes a key of the table.
    pub(crate) fn pair(&mut self, key: &str, value: impl Into<Value>) {
        let value = value.into();
        if value.is_null() {
            return;
        }
        push_key(&mut self.text, key);
        self.text.push_str(" = ");
        push_value(&mut self.text, &value);
        self.text.push('\n');
    }

    /// Says something of the key that was written last, in its line.
    pub(crate) fn note(&mut self, note: &str) {
        if self.text.pop().is_some() {
            push_display(&mut self.text, format_args!("  # {note}\n"));
        }
    }

    /// Writes a key whose value is not the one that its absence means.
    pub(crate) fn pair_unless<T: Into<Value> + PartialEq>(
        &mut self,
        key: &str,
        value: T,
        default: T,
    ) {
        if value != default {
            self.pair(key, value);
        }
    }

    /// Writes a list that is not empty.
    pub(crate) fn list<T: AsRef<str>>(&mut self, key: &str, list: &[T]) {
        if !list.is_empty() {
            let elements: Vec<Value> = list.iter().map(|text| text.as_ref().into()).collect();
            self.pair(key, elements);
        }
    }

    /// The text.
    pub(crate) fn finish(self) -> String {
        self.text
    }
}

fn push_key(out: &mut String, key: &str) {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if !key.is_empty() && key.bytes().all(is_bare) {
        out.push_str(key);
    } else {
        push_string(out, key);
    }
}

fn push_value(out: &mut String, value: &Value) {
    match value {
        // TOML has no null: whoever holds it leaves it out.
        Value::Null => {}
        Value::Bool(boolean) => out.push_str(if *boolean { "true" } else { "false" }),
        Value::Number(number) => push_number(out, number),
        Value::String(string) => push_string(out, string),
        Value::Array(elements) => {
            out.push('[');
            let present = elements.iter().filter(|element| !element.is_null());
            for (index, element) in present.enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                push_value(out, element);
            }
            out.push(']');
        }
        Value::Object(object) => {
            let present = object.iter().filter(|(_, value)| !value.is_null());
            let mut separator = "{ ";
            for (key, value) in present {
                out.push_str(separator);
                push_key(out, key);
                out.push_str(" = ");
                push_value(out, value);
                separator = ", ";
            }
            out.push_str(if separator == "{ " { "{}" } else { " }" });
        }
    }
}

/// Whole numbers of TOML are those of i64; larger ones become floats.
fn push_number(out: &mut String, number: &Number) {
    match (number.as_i64(), number.as_f64()) {
        (Some(integer), _) => push_display(out, integer),
        // As Rust writes it for programs, with a point or an exponent, which makes it a float.
        (None, Some(float)) => push_display(out, format_args!("{float:?}")),
        (None, None) => push_display(out, number),
    }
}

fn push_string(out: &mut String, string: &str) {
    out.push('"');
    for character in string.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\u{1F}' | '\u{7F}' => {
                push_display(out, format_args!("\\u{:04X}", u32::from(character)));
            }
            _ => out.push(character),
        }
    }
    out.push('"');
}

fn push_display(out: &mut String, value: impl std::fmt::Display) {
    write!(out, "{value}").expect("a string takes every character");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::Document;
    use super::*;

    fn values() -> impl Strategy<Value = Value> {
        let text = prop_oneof!["\\PC{0,8}", any::<String>()];
        let finite = any::<f64>().prop_filter("finite", |float| float.is_finite());
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            finite.prop_map(Value::from),
            text.prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((any::<String>(), inner), 0..6)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    fn read(text: &str) -> Value {
        let document = Document::parse(text.as_bytes()).unwrap_or_else(|e| panic!("{text}: {e}"));
        document.root(&["t"]).unwrap().object("t").unwrap().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn what_is_written_is_read(value in values(), key in any::<String>()) {
            let mut writer = Writer::default();
            writer.table(&["t"]);
            writer.pair(&key, value.clone());
            let text = writer.finish();
            prop_assert_eq!(read(&text), json!({ key: value }), "{}", text);
        }
    }

    #[test]
    fn values_have_one_spelling() {
        let mut writer = Writer::default();
        writer.table(&["t"]);
        writer.pair("a", json!({"b c": [1, 2.0, 1e300, null, u64::MAX], "d": {}, "e": null}));
        writer.pair("none", Value::Null);
        writer.pair("text", "a\"\\\n\u{7F}ü");
        writer.table(&["t", "x.y"]);
        writer.pair_unless("on", true, true);
        writer.list::<&str>("list", &[]);
        let expected = "[t]\n\
            a = { \"b c\" = [1, 2.0, 1e300, 1.8446744073709552e19], d = {} }\n\
            text = \"a\\\"\\\\\\n\\u007Fü\"\n\n[t.\"x.y\"]\n";
        assert_eq!(writer.finish(), expected);
    }

    #[test]
    fn what_nests_too_deep_is_refused() {
        let nested = |depth: usize| format!("[t]\na = {}{}", "[".repeat(depth), "]".repeat(depth));
        read(&nested(super::super::VALUE_DEPTH_MAX - 1));
        let deep = nested(super::super::VALUE_DEPTH_MAX);
        let document = Document::parse(deep.as_bytes()).unwrap();
        let error = document.root(&["t"]).unwrap().object("t").unwrap_err();
        assert_eq!((error.line, error.column), (2, 5 + 31));
        assert!(error.problem.contains("nested over 32 deep"), "{error}");
    }
}
