//! `op-dbus plugin call`: prepared by the service, made by the caller.

use std::time::Duration;

use op_dbus_daemon::{Bus, BusError, CONFIRMATION_REQUIRED, PluginProxy, PreparedCall, json};
use op_dbus_engine::{Error as EngineError, ErrorKind};
use serde_json::{Value, json};
use zbus::{Connection, Structure};

use super::plugin::proxy;
use crate::args::PluginCall;
use crate::client::Client;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::output::Output;

pub(super) fn run(config: &Config, output: &Output, arguments: &PluginCall) -> Result<Exit> {
    let bus = config.service_bus();
    let client = Client::connect(&bus)?;
    let given = given(arguments)?;
    let answer = client.run(async |connection| {
        let plugin = proxy(connection, &arguments.plugin).await.map_err(BusError::from)?;
        let method = match arguments.dry_run {
            true => dry_run_method(&plugin, &arguments.method).await?,
            false => arguments.method.clone(),
        };
        let call = prepare(&plugin, arguments, method, &given).await?;
        carry_out(&bus, connection, &plugin, &call).await
    })?;
    output.answer(&json!({ "answer": answer }), |out| match &answer {
        Value::Array(values) if values.is_empty() => Ok(()),
        Value::Array(values) => values.iter().try_for_each(|value| match value {
            Value::String(text) => writeln!(out, "{text}"),
            other => writeln!(out, "{other}"),
        }),
        other => writeln!(out, "{other}"),
    })?;
    Ok(Exit::Success)
}

/// The arguments as JSON: as they were given, or each by itself.
fn given(arguments: &PluginCall) -> Result<String> {
    if let Some(text) = &arguments.arguments {
        return match serde_json::from_str::<Value>(text) {
            Ok(_) => Ok(text.clone()),
            Err(error) => Err(Error::Usage {
                problem: format!("--arguments is no JSON: {error}"),
                remedy: Some("give a list, or an object by name".to_owned()),
            }),
        };
    }
    let value = |text: &String| {
        serde_json::from_str::<Value>(text).unwrap_or_else(|_| Value::String(text.clone()))
    };
    Ok(Value::Array(arguments.values.iter().map(value).collect()).to_string())
}

/// Asks the service whether it may be called, and confirms it if the user has.
async fn prepare(
    plugin: &PluginProxy<'_>,
    arguments: &PluginCall,
    method: String,
    given: &str,
) -> Result<PreparedCall, EngineError> {
    let path = arguments.path.clone().unwrap_or_default();
    let given = given.to_owned();
    let token = match arguments.confirm {
        true => plugin.confirm_call(method.clone(), path.clone(), given.clone()).await?,
        false => String::new(),
    };
    plugin.prepare_call(method, path, given, token).await.map_err(|error| match error.name() {
        CONFIRMATION_REQUIRED => EngineError::new(ErrorKind::Denied, error.problem().to_owned())
            .with_remedy("if you mean it, say so by --confirm"),
        _ => error.into(),
    })
}

/// Makes a call that was allowed, and tells the service how it ended.
pub(super) async fn carry_out(
    service: &Bus,
    connection: &Connection,
    plugin: &PluginProxy<'_>,
    call: &PreparedCall,
) -> Result<Value, EngineError> {
    // Whoever is called sees this connection, and nobody else's.
    let made = match service {
        // There is nobody else at a socket.
        Bus::Socket(_) => match Client::open(&Bus::System).await.map_err(BusError::from) {
            Ok(own) => make(&own, call).await,
            Err(error) => Err(error),
        },
        _ => make(connection, call).await,
    };
    let (succeeded, told) = match &made {
        Ok(answer) => (true, answer.to_string()),
        Err(error) => (false, error.problem().to_owned()),
    };
    plugin.finish_call(call.0, succeeded, told).await?;
    Ok(made?)
}

/// The method that tells what another would do.
async fn dry_run_method(plugin: &PluginProxy<'_>, method: &str) -> Result<String, EngineError> {
    let described: Value = serde_json::from_str(&plugin.describe().await?).unwrap_or_default();
    let methods = described["methods"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_meant = |known: &&Value| {
        let name = known["name"].as_str().unwrap_or_default();
        name == method || name.ends_with(&format!(".{method}"))
    };
    let found = methods.iter().find(is_meant).and_then(|known| known["dry_run_method"].as_str());
    found.map(str::to_owned).ok_or_else(|| {
        EngineError::new(ErrorKind::Unsupported, format!("no method tells what {method} would do"))
            .with_remedy("name one by dry_run_method in semantic-mapping.toml")
    })
}

/// Makes a call that was allowed, and returns what it answers: a list.
async fn make(connection: &Connection, call: &PreparedCall) -> Result<Value, BusError> {
    let (_, service, object, interface, member, signature, arguments, timeout_ms) = call;
    let invalid = |problem: String| BusError::new(ErrorKind::Invalid, problem, "report it");
    let arguments: Vec<Value> =
        serde_json::from_str(arguments).map_err(|error| invalid(error.to_string()))?;
    let types = json::complete_types(signature).map_err(invalid)?;
    let types: Vec<&str> = types.iter().map(String::as_str).collect();
    let fields = json::body(&arguments, &types).map_err(invalid)?;
    let asked = async {
        let (service, interface) = (Some(service.as_str()), Some(interface.as_str()));
        let (object, member) = (object.as_ref(), member.as_str());
        if fields.is_empty() {
            return connection.call_method(service, object, interface, member, &()).await;
        }
        let mut body = Structure::builder();
        fields.into_iter().for_each(|field| body.push_value(field));
        connection.call_method(service, object, interface, member, &body.build()?).await
    };
    let patience = Duration::from_millis((*timeout_ms).into());
    let reply = tokio::time::timeout(patience, asked).await.map_err(|_| {
        let problem = format!("{service} did not answer in {timeout_ms} ms");
        BusError::new(ErrorKind::Unavailable, problem, "see [safety] timeout_ms in the mapping")
    })?;
    let reply = reply.map_err(BusError::from)?;
    let body = reply.body();
    if body.is_empty() {
        return Ok(json!([]));
    }
    let answer: Structure<'_> = body.deserialize().map_err(BusError::from)?;
    Ok(answer.fields().iter().map(json::from_variant).collect())
}
