//! What a shell offers when somebody presses Tab: commands and options, and the collections, snapshots
//! and plugins that there are.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::{Arg, Command};
use clap_complete::{ArgValueCompleter, CompleteEnv, CompletionCandidate};
use op_dbus_daemon::DaemonConfig;

use crate::args::{self, At};
use crate::config::Config;
use crate::error::Result;
use crate::settings;

/// The variable by which a shell's script says that it wants to know, and for which shell.
pub(crate) const VARIABLE: &str = "COMPLETE";
/// The program, as it is called.
pub(crate) const PROGRAM: &str = "op-dbus";

/// Answers a shell, if that is who asks. Returns whether it was.
pub(crate) fn answer(given: &[OsString]) -> bool {
    let directory = std::env::current_dir().ok();
    let environment = CompleteEnv::with_factory(command).var(VARIABLE).bin(PROGRAM);
    let answered = environment.try_complete(given, directory.as_deref());
    // A shell can do nothing with an error.
    answered.unwrap_or(true)
}

fn command() -> Command {
    with_values(args::whole(), None)
}

/// Adds what the values of arguments can be, as far as only the store knows.
fn with_values(command: Command, parent: Option<&str>) -> Command {
    let own = command.get_name().to_owned();
    let command = command.mut_args(|argument| match values_of(&argument, parent) {
        Some(completer) => argument.add(completer),
        None => argument,
    });
    command.mut_subcommands(|command| with_values(command, Some(&own)))
}

fn values_of(argument: &Arg, parent: Option<&str>) -> Option<ArgValueCompleter> {
    match (argument.get_id().as_str(), parent) {
        ("collection" | "collections", _) => Some(ArgValueCompleter::new(collections)),
        ("at", _) | ("name" | "names" | "parent", Some("snapshot")) => {
            Some(ArgValueCompleter::new(snapshots))
        }
        ("plugin" | "name", Some("plugin")) => Some(ArgValueCompleter::new(plugins)),
        _ => None,
    }
}

fn collections(current: &OsStr) -> Vec<CompletionCandidate> {
    candidates(current, |config| {
        let source = config.open_or_ask(&At { at: None })?;
        let names = source.collection_names();
        source.close();
        names
    })
}

fn snapshots(current: &OsStr) -> Vec<CompletionCandidate> {
    candidates(current, |config| {
        Ok(config.snapshots().list()?.into_iter().map(|info| info.name).collect())
    })
}

fn plugins(current: &OsStr) -> Vec<CompletionCandidate> {
    candidates(current, |config| {
        let in_file = || {
            let file = settings::File::find(config.settings_path()).ok().flatten()?;
            file.settings.get("plugins")?.values.first().map(OsString::from)
        };
        let told =
            told("--plugins").or_else(|| std::env::var_os("OPDBUS_PLUGINS")).or_else(in_file);
        let directory = told.map_or_else(|| PathBuf::from(DaemonConfig::PLUGINS), PathBuf::from);
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let directories = entries.filter(|entry| entry.path().is_dir());
        Ok(directories.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
    })
}

/// What begins as what is there already. Where nobody knows, there is nothing.
fn candidates(
    current: &OsStr,
    names: impl FnOnce(&Config) -> Result<Vec<String>>,
) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    let mut names = config().and_then(|config| names(&config).ok()).unwrap_or_default();
    names.retain(|name| name.starts_with(&*current));
    names.sort_unstable();
    names.into_iter().map(CompletionCandidate::new).collect()
}

/// What the line that is being written says of the store.
fn config() -> Option<Config> {
    let mut given = vec![OsString::from(PROGRAM)];
    for option in ["--store", "--bus", "--config"] {
        given.extend(told(option).into_iter().flat_map(|value| [option.into(), value]));
    }
    given.push("stats".into());
    let arguments = settings::arguments(&given).ok()?;
    Config::resolve(&arguments.global, &given).ok()
}

/// The value of an option on the line that is being written.
fn told(option: &str) -> Option<OsString> {
    let words: Vec<String> =
        std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    words.iter().enumerate().rev().find_map(|(index, word)| {
        let rest = word.strip_prefix(option)?;
        match rest.strip_prefix('=') {
            Some(value) => Some(value.into()),
            None if rest.is_empty() => words.get(index + 1).map(Into::into),
            None => None,
        }
    })
}
