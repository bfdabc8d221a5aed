//! `op-dbus plugin`: what may be asked of other services, and asking it.

use std::io::Write;
use std::path::Path;

use op_dbus_daemon::plugin::{self, Entry, LoadedPlugin, Plugins, create, run};
use op_dbus_daemon::{Bus, PluginProxy, object_path};
use op_dbus_engine::{Error as EngineError, ErrorKind};
use op_dbus_formats::PluginName;
use op_dbus_formats::introspection;
use serde_json::{Value, json};

use crate::args::{Plugin, PluginCreate, PluginNamed, PluginValidate};
use crate::client::Client;
use crate::command::call;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::output::{Output, columns, one_line};

pub(super) fn run(config: &Config, output: &Output, command: Plugin) -> Result<Exit> {
    match command {
        Plugin::List(arguments) => list(output, &arguments.plugins),
        Plugin::Show(arguments) => show(output, &arguments),
        Plugin::Validate(arguments) => validate(config, output, &arguments),
        Plugin::Call(arguments) => call::run(config, output, &arguments),
        Plugin::Create(arguments) => create(config, output, &arguments),
        Plugin::Confine { directory } => match run::confine(&directory)? {},
        Plugin::Serve(arguments) => {
            run::serve(&arguments.directory.plugins, &arguments.name)?;
            Ok(Exit::Success)
        }
        Plugin::Units { units, directory } => {
            run::units(&directory.plugins, &units)?;
            Ok(Exit::Success)
        }
    }
}

fn list(output: &Output, directory: &Path) -> Result<Exit> {
    let plugins = Plugins::load(directory);
    let rows: Vec<Value> = plugins.0.iter().map(|(name, entry)| row(name, entry)).collect();
    output.answer(&json!({ "plugins": rows }), |out| {
        let width = plugins.0.keys().map(|name| name.len()).max().unwrap_or(0);
        for (name, entry) in &plugins.0 {
            let what = match &entry.loaded {
                Ok(loaded) => {
                    let plugin = &loaded.plugin;
                    let about = plugin.description.as_deref().or(plugin.dbus_service());
                    let about = about.unwrap_or_default();
                    format!("{:<8} {:<14}  {about}", plugin.version, plugin.source.name())
                }
                Err(problem) => format!("failed   {problem}"),
            };
            let room = columns().saturating_sub(width + 2);
            // What is wrong with one is worth a line of any length.
            let what = if entry.loaded.is_ok() { one_line(&what, room) } else { what };
            writeln!(out, "{name:<width$}  {}", what.trim_end())?;
        }
        Ok(())
    })?;
    if plugins.0.is_empty() {
        output.note(&format!("there are no plugins in {}", directory.display()));
        return Ok(Exit::NothingFound);
    }
    Ok(Exit::Success)
}

pub(super) fn row(name: &str, entry: &Entry) -> Value {
    match &entry.loaded {
        Ok(loaded) => json!({
            "name": name,
            "state": "loaded",
            "version": loaded.plugin.version,
            "source": loaded.plugin.source.name(),
            "service": loaded.plugin.dbus_service(),
            "description": loaded.plugin.description,
            "path": entry.path,
        }),
        Err(problem) => {
            json!({ "name": name, "state": "failed", "problem": problem, "path": entry.path })
        }
    }
}

fn show(output: &Output, arguments: &PluginNamed) -> Result<Exit> {
    let plugins = Plugins::load(&arguments.directory.plugins);
    let described = plugin::describe(plugins.loaded(&arguments.name).map_err(EngineError::from)?);
    output.answer(&described, |out| render(out, &described))?;
    Ok(Exit::Success)
}

fn render(out: &mut dyn Write, described: &Value) -> std::io::Result<()> {
    for key in ["name", "version", "source", "description", "author", "service", "path"] {
        if let Some(text) = described[key].as_str() {
            writeln!(out, "{key:<13}{text}")?;
        }
    }
    let able = described["capabilities"].as_object().into_iter().flatten();
    let able: Vec<&str> =
        able.filter(|(_, can)| **can == true).map(|(name, _)| name.as_str()).collect();
    writeln!(out, "{:<13}{}", "can", able.join(", "))?;
    let methods = described["methods"].as_array().map(Vec::as_slice).unwrap_or_default();
    for method in methods {
        let risk = match (&method["allowed"], &method["safe"], &method["requires_confirmation"]) {
            (Value::Bool(false), ..) => "never",
            (_, Value::Bool(true), Value::Bool(false)) => "safe",
            (_, _, Value::Bool(true)) => "confirm",
            _ => "unsafe",
        };
        let text = |key: &str| method[key].as_str().unwrap_or_default().to_owned();
        let call = format!("{}({}) -> {}", text("name"), text("signature"), text("returns"));
        writeln!(out, "{risk:<9}{}", one_line(call.trim_end_matches(" -> "), usize::MAX))?;
    }
    Ok(())
}

/// Checks a plugin, and if that is wanted compares it with its service as it is.
fn checked(config: &Config, path: &Path, is_live: bool) -> Result<LoadedPlugin> {
    let loaded = plugin::check(path)?;
    let Some(service) = loaded.service.as_ref().filter(|_| is_live) else { return Ok(loaded) };
    let name = service.mapping.service.name.as_str();
    let object = loaded.service_path();
    let client = Client::connect(config.bus().unwrap_or(&Bus::System))?;
    let xml = client.run(async |connection| create::introspect(connection, name, object).await)?;
    let live = introspection::parse(xml.as_bytes()).map_err(|error| Error::input(path, &error))?;
    let differences = plugin::drift(&service.introspection, &live);
    if differences.is_empty() {
        return Ok(loaded);
    }
    let problem = format!("{}: {name} is other now: {}", path.display(), differences.join("; "));
    Err(EngineError::new(ErrorKind::Invalid, problem)
        .with_remedy("make the plugin anew by op-dbus plugin create, and look at its mapping")
        .into())
}

fn validate(config: &Config, output: &Output, arguments: &PluginValidate) -> Result<Exit> {
    let mut failure = None;
    let mut rows = Vec::new();
    for path in &arguments.paths {
        match checked(config, path, arguments.live) {
            Ok(loaded) => {
                rows.push(
                    json!({ "path": path, "valid": true, "name": loaded.plugin.name.as_str() }),
                );
                if !output.is_json() {
                    let (path, name) = (path.display(), &loaded.plugin.name);
                    output.text(|out| writeln!(out, "{path}: plugin {name} is right"))?;
                }
            }
            Err(error) => {
                rows.push(json!({ "path": path, "valid": false, "problem": error.message() }));
                if !output.is_json() {
                    output.note(&error.message());
                }
                failure.get_or_insert(error.exit());
            }
        }
    }
    if output.is_json() {
        output.json(&json!({ "plugins": rows }))?;
    }
    Ok(failure.unwrap_or(Exit::Success))
}

fn create(config: &Config, output: &Output, arguments: &PluginCreate) -> Result<Exit> {
    let service = &arguments.from_dbus;
    let path = arguments.path.clone().unwrap_or_else(|| format!("/{}", service.replace('.', "/")));
    let name: PluginName = match &arguments.name {
        Some(name) => name.parse(),
        None => name_of(service).parse(),
    }
    .map_err(|problem| {
        Error::from(
            EngineError::new(ErrorKind::Invalid, format!("no name for a plugin: {problem}"))
                .with_remedy("name it by --name"),
        )
    })?;
    let directory = arguments.output.clone().unwrap_or_else(|| name.as_str().into());
    let client = Client::connect(config.bus().unwrap_or(&Bus::System))?;
    let xml =
        client.run(async |connection| create::introspect(connection, service, &path).await)?;
    let written = create::write(&directory, name, service, &path, &xml)?;
    output.answer(&json!({ "files": written }), |out| {
        written.iter().try_for_each(|file| writeln!(out, "{}", file.display()))
    })?;
    output.note("nothing in it is safe yet: look at semantic-mapping.toml");
    Ok(Exit::Success)
}

/// The last part of a service's name, as a plugin may be called: `hostname` of
/// `org.freedesktop.hostname1`.
fn name_of(service: &str) -> String {
    let last = service.rsplit('.').next().unwrap_or(service).to_lowercase();
    let last = last.trim_end_matches(|character: char| character.is_ascii_digit());
    last.replace('_', "-")
}

/// The proxy of a plugin.
pub(super) async fn proxy<'c>(
    connection: &'c zbus::Connection,
    name: &str,
) -> zbus::Result<PluginProxy<'c>> {
    PluginProxy::builder(connection)
        .destination(op_dbus_daemon::NAME)
        .path(object_path(name))
        .cache_properties(zbus::proxy::CacheProperties::No)
        .build()
        .await
}
