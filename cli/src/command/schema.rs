//! `op-dbus schema`: what answers in JSON keep to.

use op_dbus_engine::{Error as EngineError, ErrorKind};
use serde_json::{Map, Value, json};

use crate::args;
use crate::error::Result;
use crate::exit::Exit;
use crate::output::Output;

/// The schemas of all answers, by command.
const SCHEMAS: &str = include_str!("../../schemas/answers.json");

pub(super) fn run(output: &Output, arguments: &args::Schema) -> Result<Exit> {
    let mut schema: Map<String, Value> = serde_json::from_str(SCHEMAS).map_err(|error| {
        EngineError::new(ErrorKind::Corrupt, "the schemas are no JSON").with_source(error)
    })?;
    if !arguments.command.is_empty() {
        let name = arguments.command.join(" ");
        let names: Vec<&str> = named(&schema).collect();
        if !names.contains(&&name[..]) {
            let problem = format!("no answer is of {name}");
            let remedy = format!("there are: {}", names.join(", "));
            let error = EngineError::new(ErrorKind::NotFound, problem).with_remedy(remedy);
            return Err(error.into());
        }
        schema.insert("title".to_owned(), format!("op-dbus {name} --json").into());
        let pointer = format!("#/$defs/{}", name.replace(' ', "%20"));
        schema.insert("$ref".to_owned(), json!(pointer));
    }
    output.text(|out| {
        serde_json::to_writer_pretty(&mut *out, &schema)?;
        writeln!(out)
    })?;
    Ok(Exit::Success)
}

/// The commands that have answers, and not what several of them have in common.
fn named(schema: &Map<String, Value>) -> impl Iterator<Item = &str> {
    let definitions = schema.get("$defs").and_then(Value::as_object);
    let names = definitions.into_iter().flat_map(|definitions| definitions.keys());
    names.map(String::as_str).filter(|name| !name.starts_with('_'))
}
