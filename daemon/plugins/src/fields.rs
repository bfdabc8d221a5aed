//! Objects of JSON, read key by key: unknown keys and wrong types are refused, and no value is ever
//! repeated in a complaint, because it might be a secret that stands in the wrong place.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// An object whose keys are known.
pub struct Fields<'a> {
    place: &'a str,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// Takes a value as an object that has only these keys. `place` is its path, empty for the
    /// outermost.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) if it is no object, or has another key.
    pub fn of(value: &'a Value, place: &'a str, keys: &[&str]) -> Result<Self> {
        let fields = Self { place, map: object(value, place)? };
        match fields.map.keys().find(|key| !keys.contains(&key.as_str())) {
            None => Ok(fields),
            Some(key) => {
                let shown: String = key.chars().take(64).collect();
                let known = keys.join(", ");
                Err(Error::invalid(format!(
                    "{}: unknown key; there are {known}",
                    fields.path(&shown)
                )))
            }
        }
    }

    /// A value of any type.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key)
    }

    /// True or false.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) if it is something else.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", Value::as_bool)
    }

    /// A text.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) if it is something else.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.typed(key, "text", Value::as_str)
    }

    /// Texts.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) if it is something else.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<String>>> {
        self.typed(key, "a list of texts", texts)
    }

    /// A whole number.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) if it is something else, or out of range.
    pub fn number(&self, key: &str, range: RangeInclusive<u64>) -> Result<Option<u64>> {
        let meant = format!("a whole number from {} to {}", range.start(), range.end());
        let number = |value: &Value| value.as_u64().filter(|number| range.contains(number));
        self.typed(key, &meant, number)
    }

    /// An object with any keys; its path comes with it.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) if it is something else.
    pub fn object(&self, key: &str) -> Result<Option<&'a Map<String, Value>>> {
        self.map.get(key).map(|value| object(value, &self.path(key))).transpose()
    }

    fn typed<T>(
        &self,
        key: &str,
        meant: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.map.get(key) else { return Ok(None) };
        match read(value) {
            Some(read) => Ok(Some(read)),
            None => Err(Error::invalid(format!("{}: it must be {meant}", self.path(key)))),
        }
    }

    fn path(&self, key: &str) -> String {
        if self.place.is_empty() { key.to_owned() } else { format!("{}.{key}", self.place) }
    }
}

/// Returns a list's texts, if it has nothing else.
#[must_use]
pub fn texts(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|text| text.as_str().map(str::to_owned)).collect()
}

fn object<'a>(value: &'a Value, place: &str) -> Result<&'a Map<String, Value>> {
    let whole = if place.is_empty() { "the whole" } else { place };
    value.as_object().ok_or_else(|| Error::invalid(format!("{whole}: it must be an object")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_read_by_their_types() {
        let value = json!({"flag": true, "text": "a", "texts": ["b"], "number": 5, "object": {}});
        let fields =
            Fields::of(&value, "x", &["flag", "text", "texts", "number", "object"]).unwrap();
        assert_eq!(fields.flag("flag"), Ok(Some(true)));
        assert_eq!(fields.text("text"), Ok(Some("a")));
        assert_eq!(fields.texts("texts"), Ok(Some(vec!["b".to_owned()])));
        assert_eq!(fields.number("number", 1..=5), Ok(Some(5)));
        assert_eq!(fields.flag("absent"), Ok(None));
        assert!(fields.object("object").unwrap().is_some_and(Map::is_empty));
    }

    #[test]
    fn complaints_name_the_place_and_not_the_value() {
        let value = json!({"flag": "hunter2", "text": 5, "texts": ["a", 5], "number": 6});
        let fields = Fields::of(&value, "x.y", &["flag", "text", "texts", "number"]).unwrap();
        let complaints = [
            fields.flag("flag").unwrap_err(),
            fields.text("text").unwrap_err(),
            fields.texts("texts").unwrap_err(),
            fields.number("number", 1..=5).unwrap_err(),
            fields.object("flag").unwrap_err(),
            Fields::of(&value, "x.y", &["text"]).err().unwrap(),
            Fields::of(&json!("hunter2"), "x.y", &[]).err().unwrap(),
        ];
        for complaint in complaints {
            assert!(complaint.message.starts_with("x.y"), "{complaint}");
            assert!(!complaint.message.contains("hunter2"), "{complaint}");
        }
    }
}
