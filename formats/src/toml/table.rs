//! Tables, read key by key.

use std::fmt::Display;
use std::ops::RangeInclusive;

use serde_json::Value;
use toml_edit::{Item, TableLike, Value as Toml};

use super::values::{json_of, object_of};
use super::{DESCRIPTION_LEN_MAX_BYTES, LIST_LEN_MAX, STRING_LEN_MAX_BYTES};
use crate::{TextError, spelling};

/// A table whose keys are all known.
pub(crate) struct Table<'a> {
    text: &'a str,
    /// As in its header; empty for the whole file.
    path: String,
    at: usize,
    entries: &'a dyn TableLike,
}

/// The name of a table among tables of one kind, and where it stands.
#[derive(Clone, Copy)]
pub(crate) struct Name<'a> {
    text: &'a str,
    /// The name.
    pub(crate) name: &'a str,
    at: usize,
}

impl Name<'_> {
    /// An error that is at the name.
    pub(crate) fn wrong(&self, problem: impl Into<String>) -> TextError {
        TextError::at(self.text.as_bytes(), self.at, 1, problem)
    }
}

impl<'a> Table<'a> {
    pub(super) fn open(
        text: &'a str,
        path: String,
        at: usize,
        entries: &'a dyn TableLike,
        allowed: &[&str],
    ) -> Result<Self, TextError> {
        let table = Self { text, path, at, entries };
        let unknown = entries.iter().find(|(key, _)| !allowed.contains(key));
        match unknown {
            Some((key, _)) => Err(table.wrong_key(key, table.unknown_key(key, allowed))),
            None => Ok(table),
        }
    }

    fn unknown_key(&self, key: &str, allowed: &[&str]) -> String {
        let (key, place) = (shown(key), self.place());
        match spelling::nearest(key, allowed) {
            Some(meant) => format!("unknown key {key:?}{place}: did you mean {meant:?}?"),
            None => format!("unknown key {key:?}{place}: known are {}", allowed.join(", ")),
        }
    }

    /// Whether the key is there.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// An error that is at the value of a key.
    pub(crate) fn wrong(&self, key: &str, problem: impl Into<String>) -> TextError {
        let at = self.entries.get(key).and_then(Item::span).map(|span| span.start);
        self.error(at.unwrap_or_else(|| self.key_at(key)), problem)
    }

    /// An error that is at a key.
    pub(crate) fn wrong_key(&self, key: &str, problem: impl Into<String>) -> TextError {
        self.error(self.key_at(key), problem)
    }

    /// What must be there, or an error that is at the header.
    pub(crate) fn required<T>(&self, key: &str, found: Option<T>) -> Result<T, TextError> {
        found.ok_or_else(|| {
            let problem = match self.path.is_empty() {
                true => format!("[{key}] is missing"),
                false => format!("{key} is missing{}", self.place()),
            };
            self.error(self.at, problem)
        })
    }

    /// A string that means something.
    pub(crate) fn parsed<T, E: Display>(
        &self,
        key: &str,
        parse: impl FnOnce(&'a str) -> Result<T, E>,
    ) -> Result<Option<T>, TextError> {
        self.parsed_within(key, STRING_LEN_MAX_BYTES, parse)
    }

    fn parsed_within<T, E: Display>(
        &self,
        key: &str,
        len_max_bytes: usize,
        parse: impl FnOnce(&'a str) -> Result<T, E>,
    ) -> Result<Option<T>, TextError> {
        let Some(item) = self.entries.get(key) else { return Ok(None) };
        let text = item.as_str().ok_or_else(|| self.wrong_type(key, "a string", item))?;
        check_len(text, len_max_bytes).map_err(|problem| self.wrong(key, problem))?;
        let parsed = parse(text);
        let described =
            |problem: E| self.wrong(key, format!("{key} is {:?}: {problem}", shown(text)));
        parsed.map(Some).map_err(described)
    }

    /// A text of some lines for people.
    pub(crate) fn description(&self, key: &str) -> Result<Option<String>, TextError> {
        self.parsed_within(key, DESCRIPTION_LEN_MAX_BYTES, |text| {
            let is_wrong =
                |found: &char| found.is_control() && !matches!(found, '\n' | '\t' | '\r');
            match text.chars().find(is_wrong) {
                Some(found) => Err(format!("it has the character {found:?}")),
                None => Ok(text.to_owned()),
            }
        })
    }

    /// True or false.
    pub(crate) fn bool(&self, key: &str) -> Result<Option<bool>, TextError> {
        let Some(item) = self.entries.get(key) else { return Ok(None) };
        let value = item.as_bool().ok_or_else(|| self.wrong_type(key, "true or false", item))?;
        Ok(Some(value))
    }

    /// A whole number of these.
    pub(crate) fn integer(
        &self,
        key: &str,
        allowed: RangeInclusive<u32>,
    ) -> Result<Option<u32>, TextError> {
        let Some(item) = self.entries.get(key) else { return Ok(None) };
        let found =
            item.as_integer().ok_or_else(|| self.wrong_type(key, "a whole number", item))?;
        match u32::try_from(found) {
            Ok(number) if allowed.contains(&number) => Ok(Some(number)),
            _ => {
                let (first, last) = (allowed.start(), allowed.end());
                let problem = format!("{key} is {found}, it may be {first} to {last}");
                Err(self.wrong(key, problem))
            }
        }
    }

    /// A string, a number, or true or false, as text.
    pub(crate) fn scalar(&self, key: &str) -> Result<Option<String>, TextError> {
        let Some(item) = self.entries.get(key) else { return Ok(None) };
        let text = match item.as_value() {
            Some(Toml::String(text)) => text.value().clone(),
            Some(Toml::Integer(number)) => number.value().to_string(),
            Some(Toml::Float(number)) => number.value().to_string(),
            Some(Toml::Boolean(value)) => value.value().to_string(),
            _ => return Err(self.wrong_type(key, "a string, a number, or true or false", item)),
        };
        check_len(&text, STRING_LEN_MAX_BYTES).map_err(|problem| self.wrong(key, problem))?;
        Ok(Some(text))
    }

    /// The line and the column of a key's value, or of its header.
    pub(crate) fn position(&self, key: &str) -> (u64, u64) {
        let error = self.wrong(key, "");
        (error.line, error.column)
    }

    /// Strings that mean something, each once; none if the key is not there.
    pub(crate) fn list<T: PartialEq, E: Display>(
        &self,
        key: &str,
        mut parse: impl FnMut(&'a str) -> Result<T, E>,
    ) -> Result<Vec<T>, TextError> {
        let Some(item) = self.entries.get(key) else { return Ok(Vec::new()) };
        let mut list = Vec::new();
        for element in self.array(key, item)? {
            let at = element.span().map_or(self.at, |span| span.start);
            let text = element.as_str().ok_or_else(|| {
                let found = with_article(element.type_name());
                self.error(at, format!("an element of {key} must be a string, not {found}"))
            })?;
            check_len(text, STRING_LEN_MAX_BYTES).map_err(|problem| self.error(at, problem))?;
            let parsed = parse(text).map_err(|problem| {
                self.error(at, format!("{key} has {:?}: {problem}", shown(text)))
            })?;
            if list.contains(&parsed) {
                return Err(self.error(at, format!("{key} has {:?} twice", shown(text))));
            }
            list.push(parsed);
        }
        Ok(list)
    }

    /// Values of any kind.
    pub(crate) fn values(&self, key: &str) -> Result<Option<Vec<Value>>, TextError> {
        let Some(item) = self.entries.get(key) else { return Ok(None) };
        let values = self.array(key, item)?;
        let json = |value| json_of(self.text, value, 1);
        values.iter().map(json).collect::<Result<_, _>>().map(Some)
    }

    /// A value of any kind.
    pub(crate) fn value(&self, key: &str) -> Result<Option<Value>, TextError> {
        let Some(item) = self.entries.get(key) else { return Ok(None) };
        let Some(value) = item.as_value() else {
            return Err(self.wrong_type(key, "a value", item));
        };
        json_of(self.text, value, 0).map(Some)
    }

    /// A table of values of any kind.
    pub(crate) fn object(&self, key: &str) -> Result<Option<Value>, TextError> {
        let Some(item) = self.entries.get(key) else { return Ok(None) };
        let entries = item.as_table_like().ok_or_else(|| self.wrong_type(key, "a table", item))?;
        object_of(self.text, entries, 0).map(Some)
    }

    /// A table that may have these keys.
    pub(crate) fn table(&self, key: &str, allowed: &[&str]) -> Result<Option<Self>, TextError> {
        let Some(item) = self.entries.get(key) else { return Ok(None) };
        self.table_of(key, item, allowed).map(Some)
    }

    /// Tables by their names, each of which may have these keys; none if the key is not there.
    pub(crate) fn tables(
        &self,
        key: &str,
        allowed: &[&str],
    ) -> Result<Vec<(Name<'a>, Self)>, TextError> {
        let Some((outer, names)) = self.names(key)? else { return Ok(Vec::new()) };
        let open = |name: Name<'a>| match outer.entries.get(name.name) {
            Some(item) => Ok((name, outer.table_of(name.name, item, allowed)?)),
            None => Err(name.wrong("a table without content")),
        };
        names.into_iter().map(open).collect()
    }

    /// Values of any kind by their names; none if the key is not there.
    pub(crate) fn named_values(&self, key: &str) -> Result<Vec<(Name<'a>, Value)>, TextError> {
        let Some((outer, names)) = self.names(key)? else { return Ok(Vec::new()) };
        let read = |name: Name<'a>| {
            let value = outer.value(name.name)?;
            Ok((name, outer.required(name.name, value)?))
        };
        names.into_iter().map(read).collect()
    }

    /// Lists of strings by their names; none if the key is not there.
    pub(crate) fn named_lists(&self, key: &str) -> Result<Vec<(Name<'a>, Vec<String>)>, TextError> {
        let Some((outer, names)) = self.names(key)? else { return Ok(Vec::new()) };
        let owned = |text: &str| Ok::<_, std::convert::Infallible>(text.to_owned());
        names.into_iter().map(|name| Ok((name, outer.list(name.name, owned)?))).collect()
    }

    /// The table of a key whose own keys are names.
    fn names(&self, key: &str) -> Result<Option<(Self, Vec<Name<'a>>)>, TextError> {
        let Some(item) = self.entries.get(key) else { return Ok(None) };
        let entries = item.as_table_like().ok_or_else(|| self.wrong_type(key, "a table", item))?;
        let at = item.span().map_or_else(|| self.key_at(key), |span| span.start);
        let outer = Self { text: self.text, path: self.path_of(key), at, entries };
        let names: Vec<_> = entries
            .iter()
            .map(|(name, _)| Name { text: self.text, name, at: outer.key_at(name) })
            .collect();
        match names.get(LIST_LEN_MAX) {
            Some(name) => Err(name.wrong(format!("{key} has over {LIST_LEN_MAX} entries"))),
            None => Ok(Some((outer, names))),
        }
    }

    fn table_of(&self, key: &str, item: &'a Item, allowed: &[&str]) -> Result<Self, TextError> {
        let entries = item.as_table_like().ok_or_else(|| self.wrong_type(key, "a table", item))?;
        let at = item.span().map_or_else(|| self.key_at(key), |span| span.start);
        Self::open(self.text, self.path_of(key), at, entries, allowed)
    }

    fn array(&self, key: &str, item: &'a Item) -> Result<&'a toml_edit::Array, TextError> {
        let array = item.as_array().ok_or_else(|| self.wrong_type(key, "an array", item))?;
        match array.len() > LIST_LEN_MAX {
            true => Err(self.wrong(key, format!("{key} has over {LIST_LEN_MAX} elements"))),
            false => Ok(array),
        }
    }

    fn path_of(&self, key: &str) -> String {
        match self.path.is_empty() {
            true => shown(key).to_owned(),
            false => format!("{}.{}", self.path, shown(key)),
        }
    }

    fn place(&self) -> String {
        match self.path.is_empty() {
            true => String::new(),
            false => format!(" in [{}]", self.path),
        }
    }

    fn wrong_type(&self, key: &str, expected: &str, found: &Item) -> TextError {
        let (name, found) = (shown(key), with_article(found.type_name()));
        self.wrong(key, format!("{name}{} must be {expected}, not {found}", self.place()))
    }

    fn key_at(&self, key: &str) -> usize {
        let span = self.entries.key(key).and_then(toml_edit::Key::span);
        span.map_or(self.at, |span| span.start)
    }

    fn error(&self, at: usize, problem: impl Into<String>) -> TextError {
        TextError::at(self.text.as_bytes(), at, 1, problem)
    }
}

fn check_len(text: &str, len_max_bytes: usize) -> Result<(), String> {
    match text.len() > len_max_bytes {
        true => Err(format!("a string of {} bytes, the limit is {len_max_bytes}", text.len())),
        false => Ok(()),
    }
}

fn with_article(type_name: &str) -> String {
    let article = if type_name.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("{article} {type_name}")
}

/// As much of it as a message has room for.
fn shown(text: &str) -> &str {
    text.char_indices().nth(64).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::super::Document;
    use super::*;

    const KEYS: &[&str] = &["name", "on", "count", "list", "sub", "free", "many"];

    fn error_of<T>(
        text: &str,
        read: impl Fn(&Table<'_>) -> Result<T, TextError>,
    ) -> (u64, u64, String) {
        let document = Document::parse(text.as_bytes()).unwrap();
        let error = document
            .root(&["t"])
            .and_then(|root| root.required("t", root.table("t", KEYS)?))
            .and_then(|table| read(&table))
            .err()
            .unwrap_or_else(|| panic!("{text} is taken"));
        (error.line, error.column, error.problem)
    }

    fn read_all(table: &Table<'_>) -> Result<(), TextError> {
        let upper = |text: &str| match text.chars().all(|c| c.is_ascii_lowercase()) {
            true => Ok(text.to_owned()),
            false => Err("not in lower case"),
        };
        let name = table.parsed("name", upper)?;
        table.required("name", name)?;
        table.bool("on")?;
        table.integer("count", 1..=10)?;
        table.list("list", upper)?;
        table.table("sub", &["x"])?;
        table.object("free")?;
        for (name, many) in table.tables("many", &["y"])? {
            upper(name.name).map_err(|problem| name.wrong(problem))?;
            many.description("y")?;
        }
        Ok(())
    }

    #[test]
    fn what_is_wrong_is_located() {
        let cases = [
            ("", 1, 1, "[t] is missing"),
            ("\n[tt]\n", 2, 2, "unknown key \"tt\": known are t"),
            ("t = 1", 1, 5, "t must be a table, not an integer"),
            ("[[t]]", 1, 1, "t must be a table, not an array of tables"),
            ("\n[t]\non = true\n", 2, 1, "name is missing in [t]"),
            ("[t]\nnmae = 'a'", 2, 1, "unknown key \"nmae\" in [t]: did you mean \"name\"?"),
            ("[t]\nname = 1.5", 2, 8, "name in [t] must be a string, not a float"),
            ("[t]\nname = 'B'", 2, 8, "name is \"B\": not in lower case"),
            (
                "t = { on = 1, name = 'a' }",
                1,
                12,
                "on in [t] must be true or false, not an integer",
            ),
            ("[t]\nname = 'a'\ncount = '1'", 3, 9, "must be a whole number, not a string"),
            ("[t]\nname = 'a'\ncount = 11", 3, 9, "count is 11, it may be 1 to 10"),
            ("[t]\nname = 'a'\ncount = -1", 3, 9, "count is -1, it may be 1 to 10"),
            ("[t]\nname = 'a'\nlist = 'b'", 3, 8, "list in [t] must be an array, not a string"),
            ("[t]\nname = 'a'\nlist = [\n 'b',\n 2]", 5, 2, "an element of list must be a string"),
            ("[t]\nname = 'a'\nlist = ['b', 'B']", 3, 14, "list has \"B\": not in lower case"),
            ("[t]\nname = 'a'\nlist = ['b', 'b']", 3, 14, "list has \"b\" twice"),
            ("[t]\nname = 'a'\n[t.sub]\ny = 1", 4, 1, "unknown key \"y\" in [t.sub]"),
            ("[t]\nname = 'a'\nsub.x.z = 1\nsub.y = 2", 4, 5, "unknown key \"y\" in [t.sub]"),
            ("[t]\nname = 'a'\n[t.free]\na = [1, nan]", 4, 9, "NaN has no place"),
            ("[t]\nname = 'a'\n[t.many.B]", 3, 9, "not in lower case"),
            ("[t]\nname = 'a'\nmany.b = 3", 3, 10, "b in [t.many] must be a table"),
            ("[t]\nname = 'a'\n[t.many.b]\ny = \"\\u0007\"", 4, 5, "it has the character"),
        ];
        for (text, line, column, problem) in cases {
            let found = error_of(text, read_all);
            assert!(found.2.contains(problem), "{text}: {found:?}");
            assert_eq!((found.0, found.1), (line, column), "{text}: {found:?}");
        }
    }

    #[test]
    fn lists_and_strings_are_bounded() {
        let text = format!("[t]\nname = '{}'", "a".repeat(STRING_LEN_MAX_BYTES + 1));
        assert!(error_of(&text, read_all).2.contains("a string of 4097 bytes, the limit is 4096"));
        let elements: String = (0..=LIST_LEN_MAX).map(|n| format!("'{n}',")).collect();
        let text = format!("[t]\nname = 'a'\nlist = [{elements}]");
        assert_eq!(error_of(&text, read_all).2, "list has over 1024 elements");
        let tables: String = (0..=LIST_LEN_MAX).map(|n| format!("[t.many.{n}]\n")).collect();
        let found = error_of(&format!("[t]\nname = 'a'\n{tables}"), read_all);
        assert_eq!((found.0, found.1), (LIST_LEN_MAX as u64 + 3, 9));
        let long = format!("[t]\n{} = 1", "name".repeat(1000));
        assert!(error_of(&long, read_all).2.len() < 300);
    }
}
