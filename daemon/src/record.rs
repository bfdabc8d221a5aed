//! Records on the bus: `a{sv}` with what a record has of `text` (s), `payload` (s, JSON, or ay), `vector`
//! (ay or h) and `expires-at-unix-ms` (t).

use std::collections::HashMap;
use std::os::fd::AsFd;

use op_dbus_engine::{ErrorKind, Payload, Record};
use zbus::{OwnedVariant, Variant};

use crate::error::{BusError, Result};
use crate::vector::{self, Vectors};

const TEXT: &str = "text";
const PAYLOAD: &str = "payload";
const VECTOR: &str = "vector";
const EXPIRES: &str = "expires-at-unix-ms";

/// A record without its key, as it is sent.
pub(crate) fn to_fields(record: Record) -> Result<HashMap<String, OwnedVariant>> {
    let mut fields = HashMap::new();
    let mut add = |name: &str, value: Variant<'_>| -> Result<()> {
        let value = OwnedVariant::try_from(value)
            .map_err(|error| BusError::new(ErrorKind::Io, error.to_string(), ""))?;
        fields.insert(name.to_owned(), value);
        Ok(())
    };
    if let Some(text) = record.text {
        add(TEXT, text.into())?;
    }
    match record.payload {
        Payload::None => {}
        Payload::Json(json) => add(PAYLOAD, json.into_owned().into())?,
        Payload::Bytes(bytes) => add(PAYLOAD, bytes.into_owned().into())?,
    }
    if let Some(expires_at_unix_ms) = record.expires_at_unix_ms {
        add(EXPIRES, expires_at_unix_ms.into())?;
    }
    if let Some(vector) = record.vector {
        fields.insert(VECTOR.to_owned(), vector::to_variant(&vector)?);
    }
    Ok(fields)
}

/// The record with this key that was sent so. What a newer service tells besides is passed over.
///
/// # Errors
/// [`ErrorKind::Unsupported`] if a field is of another type.
pub fn of_fields(key: impl Into<Vec<u8>>, fields: HashMap<String, OwnedVariant>) -> Result<Record> {
    let mut record = Record::new(key);
    for (name, value) in fields {
        let odd = |error: &dyn std::fmt::Display| {
            let problem = format!("the service tells of a record a {name} that is none: {error}");
            BusError::new(ErrorKind::Unsupported, problem, "let both be of the same version")
        };
        match (&name[..], &*value) {
            (TEXT, Variant::Str(text)) => record.text = Some(text.to_string()),
            (PAYLOAD, Variant::Str(json)) => {
                record.payload = Payload::Json(json.to_string().into())
            }
            (PAYLOAD, _) => record.payload = Payload::Bytes(bytes(value)?.into()),
            (EXPIRES, Variant::U64(unix_ms)) => record.expires_at_unix_ms = Some(*unix_ms),
            (VECTOR, Variant::Fd(file)) => {
                let file = file.as_fd().try_clone_to_owned().map_err(|error| odd(&error))?;
                record.vector = Some(Vectors::File(file.into()).read()?);
            }
            (VECTOR, _) => record.vector = Some(Vectors::Bytes(bytes(value)?).read()?),
            (TEXT | EXPIRES, other) => return Err(odd(&other.value_signature())),
            _ => {}
        }
    }
    Ok(record)
}

fn bytes(value: OwnedVariant) -> Result<Vec<u8>> {
    Vec::try_from(value).map_err(|error| {
        let problem = format!("the service tells no bytes: {error}");
        BusError::new(ErrorKind::Unsupported, problem, "let both be of the same version")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_comes_back() {
        let all = Record {
            text: Some("a text".to_owned()),
            payload: Payload::Json("{\"a\":1}".into()),
            vector: Some(vec![0.5; 3]),
            expires_at_unix_ms: Some(1_800_000_000_000),
            ..Record::new("key")
        };
        let bytes = Record { payload: Payload::Bytes(vec![0, 255].into()), ..Record::new("key") };
        let long = Record { vector: Some(vec![0.25; 20_000]), ..Record::new("key") };
        for record in [all, bytes, long, Record::new("key")] {
            let fields = to_fields(record.clone()).unwrap();
            assert_eq!(of_fields("key", fields).unwrap(), record);
        }
    }

    #[test]
    fn what_is_of_another_type_is_refused() {
        for name in [TEXT, PAYLOAD, VECTOR, EXPIRES] {
            let fields = HashMap::from([(name.to_owned(), OwnedVariant::from(1_i16))]);
            let error = op_dbus_engine::Error::from(of_fields("key", fields).unwrap_err());
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{name}: {error}");
        }
    }
}
