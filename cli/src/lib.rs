//! The command line of Operation D-Bus: a client of the engine's query API.
//!
//! [`run`] parses, resolves and dispatches; a verb is a file in `command`. Answers go to standard
//! output, everything else (progress, notes, errors, the log) to standard error.

mod args;
mod client;
mod command;
mod completion;
mod config;
mod error;
pub mod exit;
mod feed;
mod input;
mod interrupt;
mod journal;
mod output;
mod progress;
mod rates;
mod sample;
mod screen;
mod settings;
mod source;

use std::ffi::OsString;

use args::Command;
use config::Config;
use exit::Exit;
use output::Output;
use settings::Refusal;

/// Runs the program with these arguments, the first of which is its name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    // Before there is a second thread.
    op_dbus_engine::forbid_telemetry();
    let given: Vec<OsString> = arguments.into_iter().collect();
    if completion::answer(&given) {
        return Exit::Success;
    }
    let arguments = match settings::arguments(&given) {
        Ok(arguments) => arguments,
        Err(Refusal::CommandLine(error)) => return refuse(&error, &given),
        Err(Refusal::File(error)) => return Output::new(wants_json(&given)).error(&error),
    };
    let output = Output::new(arguments.global.json || arguments.command.wants_json());
    let config = match Config::resolve(&arguments.global, &given) {
        Ok(config) => config,
        Err(error) => return output.error(&error),
    };
    let is_service = matches!(arguments.command, Command::Daemon(_));
    let is_journaled = config.start_log(is_service);
    interrupt::survive_file_size_limit();
    // The doctor says what is wrong with it, among other things.
    let is_doctor = matches!(arguments.command, Command::Doctor(_));
    if !is_doctor && let Err(error) = config.bind_threads() {
        return output.error(&error);
    }
    let finished = command::run(&config, &output, arguments.command);
    match finished {
        Ok(exit) => exit,
        Err(error) if is_journaled => {
            let remedy = error.remedy().unwrap_or_default();
            tracing::error!(remedy, "{}", error.message());
            error.exit()
        }
        Err(error) => output.error(&error),
    }
}

/// Whether a command line that is not understood asks for JSON.
fn wants_json(given: &[OsString]) -> bool {
    given.iter().any(|argument| argument == "--json")
}

/// Says what is wrong with the command line; help and version are such errors too.
fn refuse(error: &clap::Error, given: &[OsString]) -> Exit {
    if !error.use_stderr() || !wants_json(given) {
        // A closed pipe is no reason to complain.
        let _ = error.print();
        return if error.use_stderr() { Exit::Usage } else { Exit::Success };
    }
    let rendered = error.render().to_string();
    // What is missing stands in lines of its own.
    let lines: Vec<&str> =
        rendered.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    let problem = lines.join(" ").trim_start_matches("error: ").to_owned();
    let remedy = Some("op-dbus --help shows what there is".to_owned());
    Output::new(true).error(&error::Error::Usage { problem, remedy })
}
