//! The file of settings: what is neither on the command line nor in the environment.
//!
//! Every option that has a variable has a setting, whose name follows from that of the variable:
//! `OPDBUS_CACHE_MAX_SIZE_GB` is `max_size_gb` in the table `cache`. So there is one list of them, the
//! command line's, and one place that says what a value means.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::error::Error as _;
use std::ffi::OsString;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, CommandFactory, FromArgMatches};
use op_dbus_engine::ErrorKind;
use op_dbus_formats::TextError;
use op_dbus_formats::settings::{self, Form, Known, Setting};

use crate::args::{self, Arguments, CONFIG_VARIABLE, READERS_DELIMITER, Said};
use crate::error::{Error, Result};

/// What variables begin with.
pub(crate) const PREFIX: &str = "OPDBUS_";
/// Where the file is, unless told otherwise.
const PATH: &str = "/etc/operation-dbus/config.toml";
/// The tables of the file.
const TABLES: [&str; 5] = ["btrfs", "cache", "daemon", "ml", "numa"];

/// Why there are no arguments.
pub(crate) enum Refusal {
    /// The command line or a variable is wrong, or help is wanted.
    CommandLine(clap::Error),
    /// The file is wrong.
    File(Error),
}

impl From<clap::Error> for Refusal {
    fn from(error: clap::Error) -> Self {
        Self::CommandLine(error)
    }
}

/// An option that can be set in the environment and in the file.
pub(crate) struct Settable {
    pub(crate) variable: String,
    table: Option<&'static str>,
    key: String,
    argument: Arg,
}

impl Settable {
    fn of(argument: &Arg) -> Option<Self> {
        let variable = argument.get_env()?.to_str()?.to_owned();
        // The file does not say where it is.
        if variable == CONFIG_VARIABLE {
            return None;
        }
        let rest = variable.strip_prefix(PREFIX)?.to_ascii_lowercase();
        let in_table =
            |table: &&str| rest.strip_prefix(*table).is_some_and(|key| key.starts_with('_'));
        let table = TABLES.into_iter().find(in_table);
        let key = rest[table.map_or(0, |table| table.len() + 1)..].to_owned();
        Some(Self { variable, table, key, argument: argument.clone() })
    }

    /// Its name: table and key.
    pub(crate) fn name(&self) -> String {
        self.table.map_or_else(|| self.key.clone(), |table| format!("{table}.{}", self.key))
    }

    fn form(&self) -> Form {
        match self.argument.get_value_delimiter() {
            None => Form::Single,
            Some(READERS_DELIMITER) => Form::Table,
            Some(_) => Form::List,
        }
    }

    fn known(&self) -> Known<'_> {
        Known { table: self.table, key: &self.key, form: self.form() }
    }

    /// Whether the command line would take these values; or why not.
    fn check(&self, values: &[String]) -> Result<(), String> {
        // On a command line and in a variable there are more ways to say so.
        let is_switch = self.argument.get_value_parser().type_id() == TypeId::of::<bool>();
        if is_switch && !values.iter().all(|value| matches!(&value[..], "true" | "false")) {
            return Err("it must be true or false".to_owned());
        }
        // It would become two.
        if let (Form::List, Some(delimiter)) = (self.form(), self.argument.get_value_delimiter())
            && values.iter().any(|value| value.contains(delimiter))
        {
            return Err(format!("there can be no {delimiter:?} in one of a list"));
        }
        let argument = self.argument.clone().global(false).required(false);
        let given: Vec<String> = match argument.get_long() {
            Some(long) => values.iter().map(|value| format!("--{long}={value}")).collect(),
            None => std::iter::once("--".to_owned()).chain(values.iter().cloned()).collect(),
        };
        let probe = Command::new("settings").no_binary_name(true).arg(argument);
        probe.try_get_matches_from(given).map(drop).map_err(|error| why(&error))
    }
}

/// What clap has against a value, without the command line around it.
fn why(error: &clap::Error) -> String {
    if let Some(source) = error.source() {
        return source.to_string();
    }
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(valid)) if !valid.is_empty() => {
            format!("it must be one of {}", valid.join(", "))
        }
        _ if error.kind() == clap::error::ErrorKind::InvalidValue => {
            "it must not be empty".to_owned()
        }
        _ => "it cannot be that".to_owned(),
    }
}

/// The variable of a setting.
pub(crate) fn variable_of(name: &str) -> String {
    format!("{PREFIX}{}", name.replace('.', "_").to_ascii_uppercase())
}

/// All options that can be set, by their names.
pub(crate) fn settables() -> BTreeMap<String, Settable> {
    fn add(command: &Command, settables: &mut BTreeMap<String, Settable>) {
        for settable in command.get_arguments().filter_map(Settable::of) {
            settables.entry(settable.name()).or_insert(settable);
        }
        command.get_subcommands().for_each(|command| add(command, settables));
    }
    let mut settables = BTreeMap::new();
    let mut program = Arguments::command().disable_help_subcommand(true);
    // Made one by one, without what all of them take, which would be copied for each.
    program.get_subcommands_mut().for_each(Command::build);
    add(&program, &mut settables);
    settables
}

/// A file of settings, all of whose values are understood.
pub(crate) struct File {
    pub(crate) path: PathBuf,
    pub(crate) settings: BTreeMap<String, Setting>,
}

impl File {
    /// Reads the file that was named, or the system's, if there is one.
    pub(crate) fn find(named: Option<&Path>) -> Result<Option<Self>> {
        match (named, Path::new(PATH)) {
            (Some(path), _) => Self::read(path).map(Some),
            (None, path) if path.exists() => Self::read(path).map(Some),
            (None, _) => Ok(None),
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] with the line and the column of what is wrong; those of reading.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|error| Error::io("read", path, error))?;
        let settables = settables();
        let known: Vec<Known<'_>> = settables.values().map(Settable::known).collect();
        let parsed =
            settings::parse(&bytes, &known).map_err(|error| wrong(path, &placed(&error)))?;
        let mut settings = BTreeMap::new();
        for setting in parsed {
            if let Some(settable) = settables.get(&setting.name)
                && let Err(problem) = settable.check(&setting.values)
            {
                let shown = setting.values.join(", ");
                let problem = format!("{} is {shown:?}: {problem}", setting.name);
                let (line, column) = (setting.line, setting.column);
                return Err(wrong(path, &placed(&TextError { line, column, problem })));
            }
            settings.insert(setting.name.clone(), setting);
        }
        Ok(Self { path: path.to_owned(), settings })
    }

    /// An error that no line alone is to blame for.
    pub(crate) fn wrong(&self, problem: &dyn Display) -> Error {
        wrong(&self.path, &format_args!(" {problem}"))
    }

    /// Lets settings be what options are that nobody told.
    fn as_defaults(&self, command: Command) -> Command {
        let command = command.mut_args(|argument| {
            let setting = Settable::of(&argument).and_then(|it| self.settings.get(&it.name()));
            match setting {
                Some(setting) => argument.default_values(setting.values.clone()),
                None => argument,
            }
        });
        command.mut_subcommands(|command| self.as_defaults(command))
    }

    /// The arguments of a command line, with what it does not tell from this file.
    pub(crate) fn arguments(
        &self,
        given: &[OsString],
        wanted: &str,
    ) -> Result<Arguments, clap::Error> {
        let mut program = Arguments::command();
        let everywhere: Vec<Arg> =
            program.get_arguments().filter(|argument| argument.is_global_set()).cloned().collect();
        // No other command is needed. This one must be made to be changed, with what all of them take,
        // since it gets nothing more then.
        if let Some(command) = program.find_subcommand_mut(wanted) {
            *command = std::mem::take(command).args(everywhere);
            command.build();
        }
        let matches = self.as_defaults(program).try_get_matches_from(given)?;
        Arguments::from_arg_matches(&matches)
    }
}

/// An error after its line and column.
fn placed(TextError { line, column, problem }: &TextError) -> String {
    format!("{line}:{column}: {problem}")
}

fn wrong(path: &Path, problem: &dyn Display) -> Error {
    let problem = format!("{}:{problem}", path.display());
    let remedy = "correct it; op-dbus config check FILE says whether it is right";
    Error::Engine(op_dbus_engine::Error::new(ErrorKind::Invalid, problem).with_remedy(remedy))
}

/// The arguments of a command line: what it tells, then the environment, then the file.
pub(crate) fn arguments(given: &[OsString]) -> Result<Arguments, Refusal> {
    // Help, and what is said about a mistake, name commands that are not wanted.
    let matches =
        Arguments::command().try_get_matches_from(given).or_else(|error| match error.kind() {
            clap::error::ErrorKind::DisplayVersion => Err(error),
            _ => args::whole().try_get_matches_from(given),
        })?;
    let mut arguments = Arguments::from_arg_matches(&matches)?;
    if arguments.command.takes_settings()
        && let Some(file) = File::find(arguments.global.config.as_deref()).map_err(Refusal::File)?
    {
        arguments = file.arguments(given, matches.subcommand_name().unwrap_or_default())?;
    }
    arguments.global.said = Said::in_matches(&matches);
    Ok(arguments)
}

/// Where a value comes from.
pub(crate) enum Origin {
    Option,
    Variable,
    File,
    Default,
}

/// What is in force, and where it comes from: of each option that can be set. One that is not told and
/// has no default has no values.
pub(crate) fn in_force(given: &[OsString], file: Option<&File>) -> Vec<(Setting, Origin)> {
    let matches = Arguments::command().try_get_matches_from(given).unwrap_or_default();
    let of = |settable: Settable| {
        let name = settable.name();
        let in_file = file.and_then(|file| file.settings.get(&name));
        let (values, origin) = if let Some(values) = told(&matches, &settable) {
            (values, Origin::Option)
        } else if let Some(value) = std::env::var_os(&settable.variable) {
            (parts(&settable, &value.to_string_lossy()), Origin::Variable)
        } else if let Some(setting) = in_file {
            (setting.values.clone(), Origin::File)
        } else {
            let defaults = settable.argument.get_default_values().iter();
            let texts = defaults.flat_map(|text| parts(&settable, &text.to_string_lossy()));
            (texts.collect(), Origin::Default)
        };
        let (line, column) = in_file.map_or((0, 0), |setting| (setting.line, setting.column));
        (Setting { name, form: settable.form(), values, line, column }, origin)
    };
    settables().into_values().map(of).collect()
}

/// What the command line tells of an option.
fn told(matches: &ArgMatches, settable: &Settable) -> Option<Vec<String>> {
    let id = settable.argument.get_id().as_str();
    // One of another command is not there to be told.
    let raw = matches.try_get_raw(id).ok().flatten()?;
    let is_told = matches.value_source(id) == Some(ValueSource::CommandLine);
    is_told.then(|| raw.map(|value| value.to_string_lossy().into_owned()).collect())
}

fn parts(settable: &Settable, text: &str) -> Vec<String> {
    match settable.argument.get_value_delimiter() {
        Some(delimiter) => text.split(delimiter).map(str::to_owned).collect(),
        None => vec![text.to_owned()],
    }
}
