//! Between JSON, which people write, and values of D-Bus, whose types a signature says.
//!
//! Numbers must fit their type; bytes (`ay`) may be a list of numbers; a variant (`v`) takes the
//! type that its JSON looks like, or the one that is said: `{"type": "u", "value": 5}`. Files cannot
//! be written in JSON.

use serde_json::{Map, Number, Value};
use zbus::wire::signature::Fields;
use zbus::{Array, Dict, ObjectPath, Signature, Str, Structure, Variant};

/// How deep values may lie in each other.
const DEPTH_MAX: usize = 32;

/// Why a JSON value does not fit.
type Result<T, E = String> = std::result::Result<T, E>;

/// Takes the types of several arguments apart.
///
/// # Errors
/// If they are no types.
pub fn complete_types(signature: &str) -> Result<Vec<String>> {
    if signature.is_empty() {
        return Ok(Vec::new());
    }
    match Signature::try_from(format!("({signature})").as_str()) {
        Ok(Signature::Structure(fields)) => Ok(fields.iter().map(ToString::to_string).collect()),
        Ok(_) | Err(_) => Err(format!("{signature} are no types of D-Bus")),
    }
}

/// Makes the body of a call whose arguments have these types.
///
/// # Errors
/// Says which argument does not fit, and why.
pub fn body(arguments: &[Value], types: &[&str]) -> Result<Vec<Variant<'static>>> {
    if arguments.len() != types.len() {
        return Err(format!("{} arguments are needed, not {}", types.len(), arguments.len()));
    }
    let pairs = arguments.iter().zip(types).enumerate();
    pairs
        .map(|(index, (argument, text))| {
            let signature = Signature::try_from(*text).map_err(|error| error.to_string())?;
            to_variant(argument, &signature, 0)
                .map_err(|problem| format!("argument {}: {problem}", index + 1))
        })
        .collect()
}

fn to_variant(value: &Value, signature: &Signature, depth: usize) -> Result<Variant<'static>> {
    if depth > DEPTH_MAX {
        return Err(format!("nested over {DEPTH_MAX} deep"));
    }
    let wrong = || Err(format!("{} is no value of type {signature}", shown(value)));
    Ok(match (signature, value) {
        (Signature::U8, Value::Number(number)) => Variant::U8(integer(number, signature)?),
        (Signature::I16, Value::Number(number)) => Variant::I16(integer(number, signature)?),
        (Signature::U16, Value::Number(number)) => Variant::U16(integer(number, signature)?),
        (Signature::I32, Value::Number(number)) => Variant::I32(integer(number, signature)?),
        (Signature::U32, Value::Number(number)) => Variant::U32(integer(number, signature)?),
        (Signature::I64, Value::Number(number)) => Variant::I64(integer(number, signature)?),
        (Signature::U64, Value::Number(number)) => Variant::U64(integer(number, signature)?),
        (Signature::F64, Value::Number(number)) => match number.as_f64() {
            Some(number) => Variant::F64(number),
            None => return wrong(),
        },
        (Signature::Bool, Value::Bool(is_true)) => Variant::Bool(*is_true),
        (Signature::Str, Value::String(text)) if !text.contains('\0') => {
            Variant::Str(Str::from(text.clone()))
        }
        (Signature::ObjectPath, Value::String(text)) => {
            let path = ObjectPath::try_from(text.clone()).map_err(|error| error.to_string())?;
            Variant::ObjectPath(path)
        }
        (Signature::Signature, Value::String(text)) => {
            let signature = Signature::try_from(text.as_str()).map_err(|e| e.to_string())?;
            Variant::Signature(signature)
        }
        (Signature::Variant, value) => Variant::Variant(Box::new(any(value, depth)?)),
        (Signature::Array(element), Value::Array(values)) => {
            let element = element.signature();
            let mut array = Array::new(element);
            for value in values {
                let value = to_variant(value, element, depth + 1)?;
                array.append(value).map_err(|error| error.to_string())?;
            }
            Variant::Array(array)
        }
        (Signature::Dict { key, value }, Value::Object(entries)) => {
            dict(entries, key.signature(), value.signature(), depth)?
        }
        (Signature::Structure(fields), Value::Array(values)) => {
            structure(values, fields, signature, depth)?
        }
        _ => return wrong(),
    })
}

fn integer<T: TryFrom<i128>>(number: &Number, signature: &Signature) -> Result<T> {
    let number = number.as_i128().ok_or_else(|| format!("{number} is no whole number"))?;
    T::try_from(number).map_err(|_| format!("{number} does not fit the type {signature}"))
}

fn dict(
    entries: &Map<String, Value>,
    key: &Signature,
    value: &Signature,
    depth: usize,
) -> Result<Variant<'static>> {
    let mut dict = Dict::new(key, value);
    for (name, entry) in entries {
        // A key of JSON is text whatever its type is on the bus.
        let name = match key {
            Signature::Str | Signature::ObjectPath | Signature::Signature => {
                Value::String(name.clone())
            }
            _ => serde_json::from_str(name).map_err(|_| format!("the key {name} is no {key}"))?,
        };
        let name = to_variant(&name, key, depth + 1)?;
        let entry = to_variant(entry, value, depth + 1)?;
        dict.append(name, entry).map_err(|error| error.to_string())?;
    }
    Ok(Variant::Dict(dict))
}

fn structure(
    values: &[Value],
    fields: &Fields,
    signature: &Signature,
    depth: usize,
) -> Result<Variant<'static>> {
    let fields: Vec<&Signature> = fields.iter().collect();
    if fields.len() != values.len() {
        return Err(format!("{signature} has {} fields, not {}", fields.len(), values.len()));
    }
    let mut structure = Structure::builder();
    for (value, field) in values.iter().zip(fields) {
        structure.push_value(to_variant(value, field, depth + 1)?);
    }
    structure.build().map(Variant::Structure).map_err(|error| error.to_string())
}

/// What a variant holds if nobody says its type.
fn any(value: &Value, depth: usize) -> Result<Variant<'static>> {
    if let Value::Object(said) = value
        && said.len() == 2
        && let (Some(Value::String(text)), Some(value)) = (said.get("type"), said.get("value"))
    {
        let signature = Signature::try_from(text.as_str()).map_err(|error| error.to_string())?;
        return to_variant(value, &signature, depth + 1);
    }
    let text = match value {
        Value::Null => return Err("null is no value of D-Bus".to_owned()),
        Value::Bool(_) => "b",
        Value::Number(number) if number.is_f64() => "d",
        Value::Number(number) if number.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) => "i",
        Value::Number(number) if number.is_i64() => "x",
        Value::Number(_) => "t",
        Value::String(_) => "s",
        Value::Array(values) if values.iter().all(Value::is_string) => "as",
        Value::Array(_) => "av",
        Value::Object(_) => "a{sv}",
    };
    let signature = Signature::try_from(text).map_err(|error| error.to_string())?;
    to_variant(value, &signature, depth + 1)
}

/// The beginning of a value, for a message.
fn shown(value: &Value) -> String {
    const LEN_MAX_BYTES: usize = 80;
    let text = value.to_string();
    match text.len() {
        0..=LEN_MAX_BYTES => text,
        _ => format!("{}…", &text[..text.floor_char_boundary(LEN_MAX_BYTES)]),
    }
}

/// What a value of D-Bus is in JSON.
#[must_use]
pub fn from_variant(variant: &Variant<'_>) -> Value {
    match variant {
        Variant::U8(number) => (*number).into(),
        Variant::Bool(is_true) => (*is_true).into(),
        Variant::I16(number) => (*number).into(),
        Variant::U16(number) => (*number).into(),
        Variant::I32(number) => (*number).into(),
        Variant::U32(number) => (*number).into(),
        Variant::I64(number) => (*number).into(),
        Variant::U64(number) => (*number).into(),
        // JSON has no word for what is no number.
        Variant::F64(number) => Number::from_f64(*number).map_or(Value::Null, Value::Number),
        Variant::Str(text) => text.as_str().into(),
        Variant::Signature(signature) => signature.to_string().into(),
        Variant::ObjectPath(path) => path.as_str().into(),
        Variant::Variant(inner) => from_variant(inner),
        Variant::Array(array) => array.inner().iter().map(from_variant).collect(),
        Variant::Dict(dict) => {
            let entry = |(key, value): (&Variant<'_>, &Variant<'_>)| {
                let key = match from_variant(key) {
                    Value::String(text) => text,
                    other => other.to_string(),
                };
                (key, from_variant(value))
            };
            Value::Object(dict.iter().map(entry).collect())
        }
        Variant::Structure(structure) => structure.fields().iter().map(from_variant).collect(),
        Variant::Fd(_) => "a file".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn comes_back(value: Value, signature: &str) {
        let variants = body(std::slice::from_ref(&value), &[signature]).unwrap();
        assert_eq!(variants[0].value_signature().to_string(), signature);
        assert_eq!(from_variant(&variants[0]), value, "{signature}");
    }

    #[test]
    fn values_come_back() {
        comes_back(json!(255), "y");
        comes_back(json!(-5), "i");
        comes_back(json!(u64::MAX), "t");
        comes_back(json!(i64::MIN), "x");
        comes_back(json!(0.5), "d");
        comes_back(json!(true), "b");
        comes_back(json!("grüßt"), "s");
        comes_back(json!("/a/b"), "o");
        comes_back(json!("a{sv}"), "g");
        comes_back(json!([1, 2]), "ay");
        comes_back(json!([["a", [1, true]]]), "a(s(ib))");
        comes_back(json!({"a": {"b": 1}}), "a{sa{si}}");
        comes_back(json!({"a": "text", "b": 7, "c": ["x"], "d": 0.5}), "a{sv}");
        comes_back(json!({"7": "x"}), "a{us}");
        comes_back(json!([]), "a{sv}".replace("a{sv}", "as").as_str());
    }

    #[test]
    fn types_are_taken_apart() {
        assert_eq!(complete_types("").unwrap(), [""; 0]);
        assert_eq!(complete_types("sa{sv}(ii)u").unwrap(), ["s", "a{sv}", "(ii)", "u"]);
        assert!(complete_types("a{").is_err());
    }

    #[test]
    fn a_variant_takes_the_type_that_is_said() {
        let said = body(&[json!({"type": "u", "value": 5})], &["v"]).unwrap();
        let Variant::Variant(inner) = &said[0] else { panic!("{said:?}") };
        assert_eq!(**inner, Variant::U32(5));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let refused = |value: Value, signature: &str| body(&[value], &[signature]).unwrap_err();
        assert!(refused(json!(256), "y").contains("does not fit"));
        assert!(refused(json!(-1), "u").contains("does not fit"));
        assert!(refused(json!(1.5), "i").contains("no whole number"));
        assert!(refused(json!("x"), "i").contains("\"x\" is no value of type i"));
        assert!(refused(json!("a\u{0}b"), "s").contains("no value"));
        assert!(refused(json!("no path"), "o").starts_with("argument 1:"));
        assert!(refused(json!([1]), "(ii)").contains("has 2 fields, not 1"));
        assert!(refused(json!(null), "v").contains("null"));
        assert!(body(&[], &["s"]).unwrap_err().contains("1 arguments are needed, not 0"));
        let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
        assert!(refused(deep, "v").contains("nested over"));
    }
}
