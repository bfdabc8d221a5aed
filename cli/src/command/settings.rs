//! `op-dbus config`: the settings, and where they come from.

use std::ffi::OsString;

use op_dbus_engine::ErrorKind;
use op_dbus_formats::settings::{self, Form, Setting};
use serde_json::{Value, json};

use crate::args;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::output::Output;
use crate::settings::{File, Origin, in_force};

pub(super) fn run(config: &Config, output: &Output, command: args::Settings) -> Result<Exit> {
    let named = config.settings_path();
    match command {
        args::Settings::Show(arguments) => {
            let file = File::find(named)?;
            show(output, &in_force(config.given(), file.as_ref()), file.as_ref(), &arguments)
        }
        args::Settings::Check(arguments) => {
            let file = match &arguments.file {
                Some(path) => File::read(path)?,
                None => File::find(named)?.ok_or_else(no_file)?,
            };
            check(output, &file)
        }
    }
}

fn no_file() -> Error {
    let problem = "there is no file of settings";
    let remedy = "name one: op-dbus config check FILE";
    Error::Engine(op_dbus_engine::Error::new(ErrorKind::NotFound, problem).with_remedy(remedy))
}

fn show(
    output: &Output,
    settings: &[(Setting, Origin)],
    file: Option<&File>,
    arguments: &args::SettingsShow,
) -> Result<Exit> {
    let entries: Vec<Value> = settings.iter().map(|entry| entry_of(entry, file)).collect();
    let path = file.map(|file| file.path.display().to_string());
    output.answer(&json!({ "file": path, "settings": entries }), |out| {
        let told: Vec<_> =
            settings.iter().filter(|(setting, _)| !setting.values.is_empty()).collect();
        let origins: Vec<String> = told.iter().map(|entry| origin_of(entry, file)).collect();
        let notes = origins.iter().map(|origin| arguments.origin.then_some(origin.as_str()));
        let noted = told.iter().map(|(setting, _)| setting).zip(notes);
        out.write_all(settings::render(noted).as_bytes())
    })?;
    Ok(Exit::Success)
}

fn entry_of(entry: &(Setting, Origin), file: Option<&File>) -> Value {
    let (setting, origin) = entry;
    let value: Value = match (setting.form, setting.values.as_slice()) {
        (_, []) => Value::Null,
        (Form::Single, [value, ..]) => value.as_str().into(),
        (_, values) => values.into(),
    };
    let kind = match origin {
        Origin::Option => "option",
        Origin::Variable => "variable",
        Origin::File => "file",
        Origin::Default => "default",
    };
    json!({ "name": setting.name, "value": value, "origin": kind, "from": origin_of(entry, file) })
}

/// Where a setting comes from, for people.
fn origin_of((setting, origin): &(Setting, Origin), file: Option<&File>) -> String {
    match (origin, file) {
        (Origin::Option, _) => "the command line".to_owned(),
        (Origin::Variable, _) => crate::settings::variable_of(&setting.name),
        (Origin::File, Some(file)) => format!("{}:{}", file.path.display(), setting.line),
        _ => "unless told".to_owned(),
    }
}

fn check(output: &Output, file: &File) -> Result<Exit> {
    // Settings can contradict each other, too.
    let wanted = "stats";
    let given = ["op-dbus", wanted].map(OsString::from);
    let contradiction = |problem: String| file.wrong(&problem);
    let arguments =
        file.arguments(&given, wanted).map_err(|error| contradiction(error.to_string()))?;
    Config::resolve(&arguments.global, &given).map_err(|error| contradiction(error.message()))?;
    let (path, count) = (file.path.display().to_string(), file.settings.len());
    output.answer(&json!({ "file": path, "settings": count }), |out| {
        let settings = if count == 1 { "setting" } else { "settings" };
        writeln!(out, "{path} is right: {count} {settings}")
    })?;
    Ok(Exit::Success)
}
