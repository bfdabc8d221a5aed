//! `op-dbus put`, `get`, `history`, `remove`: single records by their keys.

use std::path::Path;

use op_dbus_engine::{Error as EngineError, ErrorKind, Operation, Payload, Record, Version};
use op_dbus_formats::record::PAYLOAD_LEN_MAX_BYTES;
use serde_json::json;

use super::cache::warn_of_truncation;
use super::export::render;
use crate::args::{Get, History, Put, Remove};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::input;
use crate::output::{Output, bytes, utc};
use crate::source::Source;

pub(super) fn put(config: &Config, output: &Output, arguments: Put) -> Result<Exit> {
    let payload = match (&arguments.file, arguments.payload) {
        (Some(file), _) => read_payload(file, arguments.bytes)?,
        (None, Some(json)) => json_payload("--payload", json, "correct it")?,
        (None, None) => Payload::None,
    };
    let record = Record {
        text: arguments.text,
        payload,
        expires_at_unix_ms: arguments.expiry.at_unix_ms(),
        ..Record::new(arguments.key)
    };
    let store = config.open_or_create()?;
    let report = store.put(&arguments.collection, &record)?;
    let is_changed = report.unchanged == 0;
    let answer = json!({ "changed": is_changed, "expires_at_unix_ms": record.expires_at_unix_ms });
    output.answer(&answer, |out| {
        writeln!(out, "{}", if is_changed { "stored" } else { "unchanged" })
    })?;
    warn_of_truncation(output, report.truncated);
    store.close();
    Ok(Exit::Success)
}

fn read_payload(path: &Path, is_bytes: bool) -> Result<Payload<'static>> {
    let bytes = input::read_bounded(path, PAYLOAD_LEN_MAX_BYTES as u64)?;
    if is_bytes {
        return Ok(Payload::Bytes(bytes.into()));
    }
    let remedy = "correct it, or store it as bytes with --bytes";
    let json = String::from_utf8(bytes).map_err(|error| {
        EngineError::new(ErrorKind::Invalid, format!("{} is not UTF-8", path.display()))
            .with_source(error)
            .with_remedy(remedy)
    })?;
    json_payload(&path.display().to_string(), json, remedy)
}

/// Checks what the engine checks too, before a store is made for it and with the name it has here.
fn json_payload(name: &str, json: String, remedy: &'static str) -> Result<Payload<'static>> {
    match serde_json::from_str::<serde::de::IgnoredAny>(&json) {
        Ok(_) => Ok(Payload::Json(json.into())),
        Err(error) => Err(EngineError::new(ErrorKind::Invalid, format!("{name} is not JSON"))
            .with_source(error)
            .with_remedy(remedy)
            .into()),
    }
}

pub(super) fn get(config: &Config, output: &Output, arguments: &Get) -> Result<Exit> {
    let source = config.open_or_ask(&arguments.at)?;
    let found = match (arguments.at_version, &source) {
        (None, source) => source.get(&arguments.collection, &arguments.key)?,
        (Some(number), Source::Store(store)) => {
            store.get_version(&arguments.collection, arguments.key.as_bytes(), number)?
        }
        (Some(_), Source::Service(_)) => {
            let problem = "the service tells no earlier versions".to_owned();
            let remedy = Some("ask a snapshot with --at, or end the service".to_owned());
            return Err(Error::Usage { problem, remedy });
        }
    };
    let exit = match found {
        None => {
            if output.is_json() {
                output.json(&json!(null))?;
            }
            nothing_found(output, &arguments.key, &arguments.collection)
        }
        Some(record) if output.is_json() => {
            let mut line = Vec::new();
            render(record, &mut line)?;
            output.text(|out| out.write_all(&line))?;
            Exit::Success
        }
        Some(record) => {
            let payload = match &record.payload {
                Payload::None => &[],
                Payload::Json(json) => json.as_bytes(),
                Payload::Bytes(bytes) => &bytes[..],
            };
            output.text(|out| out.write_all(payload))?;
            Exit::Success
        }
    };
    source.close();
    Ok(exit)
}

pub(super) fn history(config: &Config, output: &Output, arguments: &History) -> Result<Exit> {
    let store = config.open_at_alone(&arguments.at)?;
    let versions = store.history(&arguments.collection, arguments.key.as_bytes())?;
    let rows: Vec<_> = versions
        .iter()
        .map(|version| {
            json!({
                "number": version.number,
                "written_at_unix_ms": version.written_at_unix_ms,
                "operation": operation(version),
                "bytes": version.len_bytes,
            })
        })
        .collect();
    output.answer(&json!({ "versions": rows }), |out| {
        versions.iter().try_for_each(|version| {
            let Version { number, written_at_unix_ms, len_bytes, .. } = *version;
            let size = if len_bytes > 0 { bytes(len_bytes) } else { String::new() };
            let (time, operation) = (utc(written_at_unix_ms), operation(version));
            let line = format!("{number:>8}  {time}  {operation:6}  {size}");
            writeln!(out, "{}", line.trim_end())
        })
    })?;
    store.close();
    if versions.is_empty() {
        return Ok(nothing_found(output, &arguments.key, &arguments.collection));
    }
    Ok(Exit::Success)
}

fn operation(version: &Version) -> &'static str {
    match version.operation {
        Operation::Put => "put",
        Operation::Remove => "remove",
    }
}

pub(super) fn remove(config: &Config, output: &Output, arguments: &Remove) -> Result<Exit> {
    let store = config.open()?;
    let is_removed = store.remove(&arguments.collection, arguments.key.as_bytes())?;
    store.close();
    if output.is_json() {
        output.json(&json!({ "removed": is_removed }))?;
    } else if is_removed {
        output.text(|out| writeln!(out, "removed"))?;
    }
    if is_removed {
        return Ok(Exit::Success);
    }
    Ok(nothing_found(output, &arguments.key, &arguments.collection))
}

fn nothing_found(output: &Output, key: &str, collection: &str) -> Exit {
    output.note(&format!("nothing found: collection {collection} has no such record: {key}"));
    Exit::NothingFound
}
