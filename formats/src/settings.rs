//! A file of settings: TOML whose keys the program that reads it knows.
//!
//! ```toml
//! log_level = "info"
//!
//! [cache]
//! max_size_gb = 16
//!
//! [daemon.readers]
//! secrets = ["anna", "@operators"]
//! ```
//!
//! A setting is named by its table and its key, `cache.max_size_gb`. Its value is text, or a list of
//! texts: what they mean is told by whoever reads them, in one place with what is given on a command
//! line. Where it stands is kept, for errors.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::TextError;
use crate::toml::{Document, Table, Writer};

/// A setting that there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Known<'a> {
    /// Table that the key is in; none for those before the first table.
    pub table: Option<&'a str>,
    /// Key.
    pub key: &'a str,
    /// What it takes.
    pub form: Form,
}

/// What a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// A string, a number, or true or false.
    Single,
    /// An array of strings.
    List,
    /// A table of arrays of strings, each of which becomes a text `NAME=ELEMENT,ELEMENT`.
    Table,
}

/// A setting that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its table and key, with a point between them; a key alone is of no table.
    pub name: String,
    /// What it takes.
    pub form: Form,
    /// One text, or those of a list.
    pub values: Vec<String>,
    /// Line of the file, from 1.
    pub line: u64,
    /// Column of the line, from 1.
    pub column: u64,
}

/// Parses a file of settings.
///
/// # Errors
/// What is no TOML, unknown or of another form, and where.
pub fn parse(bytes: &[u8], known: &[Known<'_>]) -> Result<Vec<Setting>, TextError> {
    let document = Document::parse(bytes)?;
    let names: Vec<_> = known.iter().filter(|known| known.table.is_none()).collect();
    let outer: BTreeSet<&str> = known.iter().filter_map(|known| known.table).collect();
    let mut allowed: Vec<&str> = names.iter().map(|known| known.key).collect();
    allowed.extend(&outer);
    let root = document.root(&allowed)?;
    let mut settings = Vec::new();
    for known in names {
        settings.extend(setting(&root, known)?);
    }
    for name in outer {
        let inner = || known.iter().filter(|known| known.table == Some(name));
        let keys: Vec<&str> = inner().map(|known| known.key).collect();
        let Some(table) = root.table(name, &keys)? else { continue };
        for known in inner() {
            settings.extend(setting(&table, known)?);
        }
    }
    Ok(settings)
}

fn setting(table: &Table<'_>, known: &Known<'_>) -> Result<Option<Setting>, TextError> {
    let key = known.key;
    if !table.has(key) {
        return Ok(None);
    }
    let values = match known.form {
        Form::Single => table.scalar(key)?.into_iter().collect(),
        Form::List => table.list(key, owned)?,
        Form::Table => named_lists(table, key)?,
    };
    let (line, column) = table.position(key);
    let name = known.table.map_or_else(|| key.to_owned(), |table| format!("{table}.{key}"));
    Ok(Some(Setting { name, form: known.form, values, line, column }))
}

fn owned(text: &str) -> Result<String, std::convert::Infallible> {
    Ok(text.to_owned())
}

fn named_lists(table: &Table<'_>, key: &str) -> Result<Vec<String>, TextError> {
    let mut values = Vec::new();
    for (name, elements) in table.named_lists(key)? {
        if let Some(element) = elements.iter().find(|element| element.contains(',')) {
            return Err(name.wrong(format!("{element:?} has a comma")));
        }
        if name.name.contains('=') {
            return Err(name.wrong("a name with an equals sign"));
        }
        values.push(format!("{}={}", name.name, elements.join(",")));
    }
    Ok(values)
}

/// Writes settings, those of no table first, each with a note in its line if there is one.
#[must_use]
pub fn render<'a>(settings: impl IntoIterator<Item = (&'a Setting, Option<&'a str>)>) -> String {
    let mut sorted: Vec<_> = settings
        .into_iter()
        .map(|(setting, note)| {
            let (table, key) = setting.name.split_once('.').unwrap_or(("", &setting.name));
            (table, key, setting, note)
        })
        .collect();
    sorted.sort_by_key(|(table, key, setting, _)| (*table, setting.form == Form::Table, *key));
    let (mut writer, mut open) = (Writer::default(), "");
    for (table, key, setting, note) in sorted {
        if table != open && setting.form != Form::Table {
            writer.table(&[table]);
            open = table;
        }
        if setting.form == Form::Table {
            let path = [table, key];
            writer.table(if table.is_empty() { &path[1..] } else { &path });
            write_named_lists(&mut writer, &setting.values);
            continue;
        }
        match setting.form {
            Form::Single => {
                setting.values.iter().for_each(|text| writer.pair(key, value_of(text)));
            }
            Form::List | Form::Table => writer.pair(key, setting.values.clone()),
        }
        if let Some(note) = note {
            writer.note(note);
        }
    }
    writer.finish()
}

fn write_named_lists(writer: &mut Writer, values: &[String]) {
    for value in values {
        let (name, elements) = value.split_once('=').unwrap_or((value, ""));
        let elements: Vec<&str> =
            elements.split(',').filter(|element| !element.is_empty()).collect();
        writer.pair(name, elements);
    }
}

/// A text as the kind of value that reads as it.
fn value_of(text: &str) -> Value {
    let number = || -> Option<Value> {
        let value: Value = match text.parse::<i64>() {
            Ok(integer) => integer.into(),
            Err(_) => text.parse::<f64>().ok().filter(|number| number.is_finite())?.into(),
        };
        // As JSON writes it: 0x1 and 1e3 stay texts.
        let written = value.to_string();
        (written.as_str() == text).then_some(value)
    };
    match text.parse::<bool>() {
        Ok(value) => value.into(),
        Err(_) => number().unwrap_or_else(|| text.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [Known<'static>; 5] = [
        Known { table: None, key: "log_level", form: Form::Single },
        Known { table: Some("cache"), key: "max_size_gb", form: Form::Single },
        Known { table: Some("cache"), key: "is_on", form: Form::Single },
        Known { table: Some("daemon"), key: "readers", form: Form::Table },
        Known { table: Some("daemon"), key: "interfaces", form: Form::List },
    ];

    #[test]
    fn settings_are_texts_with_their_place() {
        let text = "log_level = 'info'\n[cache]\nmax_size_gb = 1.5\nis_on = true\n[daemon]\n\
                    interfaces = ['/a', '/b']\n[daemon.readers]\nsecrets = ['anna', '@ops']\nnone = []\n";
        let settings = parse(text.as_bytes(), &KNOWN).unwrap();
        let found: Vec<_> = settings
            .iter()
            .map(|found| (found.name.as_str(), found.values.join(";"), found.line, found.column))
            .collect();
        let expected = [
            ("log_level", "info".to_owned(), 1, 13),
            ("cache.max_size_gb", "1.5".to_owned(), 3, 15),
            ("cache.is_on", "true".to_owned(), 4, 9),
            ("daemon.readers", "secrets=anna,@ops;none=".to_owned(), 7, 1),
            ("daemon.interfaces", "/a;/b".to_owned(), 6, 14),
        ];
        assert_eq!(found, expected);
        assert_eq!(parse(b"", &KNOWN), Ok(Vec::new()));
    }

    #[test]
    fn settings_are_written_as_they_are_read() {
        let text = "log_level = \"0x1\"  # here\n\n[cache]\nmax_size_gb = 1.5\n\n[daemon]\n\
                    interfaces = [\"/a\", \"/b\"]\n\n[daemon.readers]\nnone = []\nsecrets = [\"anna\"]\n";
        let settings = parse(text.as_bytes(), &KNOWN).unwrap();
        let noted = |setting: &Setting| (setting.name == "log_level").then_some("here");
        assert_eq!(render(settings.iter().map(|setting| (setting, noted(setting)))), text);
    }

    #[test]
    fn what_is_wrong_is_located() {
        let cases = [
            ("log_lvel = 'x'", 1, 1, "did you mean \"log_level\"?"),
            ("[cahce]\n", 1, 2, "did you mean \"cache\"?"),
            ("[cache]\nmax_size = 1", 2, 1, "did you mean \"max_size_gb\"?"),
            ("max_size_gb = 1", 1, 1, "unknown key"),
            ("log_level = ['x']", 1, 13, "must be a string, a number, or true or false"),
            ("[cache.is_on]", 1, 1, "must be a string"),
            ("[cache]\nis_on = 1979-05-27", 2, 9, "must be a string"),
            ("[daemon]\ninterfaces = '/a'", 2, 14, "must be an array"),
            ("[daemon]\ninterfaces = [1]", 2, 15, "must be a string"),
            ("[daemon]\nreaders = ['a']", 2, 11, "must be a table"),
            ("[daemon.readers]\na = 'b'", 2, 5, "must be an array"),
            ("[daemon.readers]\na = ['b,c']", 2, 1, "has a comma"),
            ("[daemon.readers]\n'a=b' = ['c']", 2, 1, "equals sign"),
            ("cache = 1", 1, 9, "must be a table"),
        ];
        for (text, line, column, problem) in cases {
            let error = parse(text.as_bytes(), &KNOWN).unwrap_err();
            assert!(error.problem.contains(problem), "{text}: {error}");
            assert_eq!((error.line, error.column), (line, column), "{text}: {error}");
        }
    }
}
