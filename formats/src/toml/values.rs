//! Values of any kind, as JSON.

use serde_json::{Map, Number, Value};
use toml_edit::{Item, TableLike, Value as Toml};

use super::VALUE_DEPTH_MAX;
use crate::TextError;

/// Converts a value that lies in `depth` others. Dates and times become strings.
pub(super) fn json_of(text: &str, value: &Toml, depth: usize) -> Result<Value, TextError> {
    let wrong = |problem: String| {
        let at = value.span().map_or(0, |span| span.start);
        TextError::at(text.as_bytes(), at, 1, problem)
    };
    Ok(match value {
        Toml::String(string) => Value::String(string.value().clone()),
        Toml::Integer(integer) => Value::from(*integer.value()),
        Toml::Float(float) => match Number::from_f64(*float.value()) {
            Some(number) => Value::Number(number),
            None => return Err(wrong(format!("{} has no place in JSON", float.value()))),
        },
        Toml::Boolean(boolean) => Value::Bool(*boolean.value()),
        Toml::Datetime(datetime) => Value::String(datetime.value().to_string()),
        Toml::Array(array) => {
            check_depth(depth).map_err(wrong)?;
            let elements = array.iter().map(|element| json_of(text, element, depth + 1));
            Value::Array(elements.collect::<Result<_, _>>()?)
        }
        Toml::InlineTable(table) => return object_of(text, table, depth),
    })
}

/// Converts a table that lies in `depth` other values.
pub(super) fn object_of(
    text: &str,
    table: &dyn TableLike,
    depth: usize,
) -> Result<Value, TextError> {
    let mut object = Map::new();
    for (name, item) in table.iter() {
        let located = |problem: String| {
            let at = table.key(name).and_then(toml_edit::Key::span).map_or(0, |span| span.start);
            TextError::at(text.as_bytes(), at, 1, problem)
        };
        check_depth(depth).map_err(located)?;
        let value = match item {
            Item::Value(value) => json_of(text, value, depth + 1)?,
            Item::Table(table) => object_of(text, table, depth + 1)?,
            Item::ArrayOfTables(tables) => {
                check_depth(depth + 1).map_err(located)?;
                let elements = tables.iter().map(|table| object_of(text, table, depth + 2));
                Value::Array(elements.collect::<Result<_, _>>()?)
            }
            Item::None => continue,
        };
        object.insert(name.to_owned(), value);
    }
    Ok(Value::Object(object))
}

fn check_depth(depth: usize) -> Result<(), String> {
    match depth < VALUE_DEPTH_MAX {
        true => Ok(()),
        false => Err(format!("a value is nested over {VALUE_DEPTH_MAX} deep")),
    }
}
