//! `op-dbus state`: what is declared, and what is.

use std::io::{Read, Write};
use std::path::Path;

use op_dbus_daemon::{BusError, PluginOutcome, PluginReport, StateProxy, StateReport};
use op_dbus_engine::{Error as EngineError, ErrorKind};
use op_dbus_formats::state_file;
use serde_json::{Value, json};

use crate::args::{State, StateApply};
use crate::client::Client;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::output::{Output, utc};

pub(super) fn run(config: &Config, output: &Output, command: State) -> Result<Exit> {
    match command {
        State::Query { plugin } => query(config, output, plugin),
        State::Diff(arguments) => {
            let state = read(&arguments.file)?;
            let report =
                ask(&config.any_service()?, async |state1| state1.diff(state.clone()).await)?;
            show(output, &report)?;
            Ok(Exit::Success)
        }
        State::Apply(arguments) => apply(config, output, &arguments),
        State::Verify { file } => {
            let state = file.as_deref().map(read).transpose()?.unwrap_or_default();
            let client = config.any_service()?;
            let report = ask(&client, async |state1| state1.verify(state.clone()).await)?;
            show(output, &report)?;
            Ok(exit(&report))
        }
        State::History => history(config, output),
        State::Rollback { number } => {
            let report = ask(&config.any_service()?, async |state1| state1.rollback(number).await)?;
            show(output, &report)?;
            Ok(exit(&report))
        }
    }
}

fn query(config: &Config, output: &Output, plugin: String) -> Result<Exit> {
    let client = config.any_service()?;
    let state = client.ask(StateProxy::builder, async |state1| state1.query(plugin).await)?;
    let state: Value = serde_json::from_str(&state).map_err(|error| unknown(&error))?;
    output.answer(&state, |out| writeln!(out, "{state:#}"))?;
    Ok(Exit::Success)
}

fn apply(config: &Config, output: &Output, arguments: &StateApply) -> Result<Exit> {
    let state = read(&arguments.file.file)?;
    let client = config.any_service()?;
    if arguments.dry_run {
        let report = ask(&client, async |state1| state1.diff(state.clone()).await)?;
        show(output, &report)?;
        return Ok(Exit::Success);
    }
    let report = ask(&client, async |state1| state1.apply(state.clone()).await)?;
    show(output, &report)?;
    Ok(exit(&report))
}

fn history(config: &Config, output: &Output) -> Result<Exit> {
    let client = config.any_service()?;
    let applied = client.ask(StateProxy::builder, async |state1| state1.history().await)?;
    let rows: Vec<Value> = applied
        .iter()
        .map(|(number, unix_ms)| json!({ "number": number, "applied_at_unix_ms": unix_ms }))
        .collect();
    output.answer(&json!({ "applied": rows }), |out| {
        applied
            .iter()
            .try_for_each(|(number, unix_ms)| writeln!(out, "{number:>8}  {}", utc(*unix_ms)))
    })?;
    if applied.is_empty() {
        output.note("no state was applied yet");
        return Ok(Exit::NothingFound);
    }
    Ok(Exit::Success)
}

/// Reads a file, and refuses one that is wrong before anybody else is asked.
fn read(path: &Path) -> Result<String> {
    let limit = state_file::DOCUMENT_LEN_MAX_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    read.map_err(|error| Error::io("read", path, error))?;
    state_file::parse(&bytes).map_err(|error| {
        EngineError::new(ErrorKind::Invalid, format!("{}: {error}", path.display()))
            .with_remedy("correct it; nothing was changed")
    })?;
    // It was parsed, so it is text.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn ask(
    client: &Client,
    ask: impl AsyncFnOnce(StateProxy<'_>) -> Result<String, BusError>,
) -> Result<StateReport> {
    let report = client.ask(StateProxy::builder, ask)?;
    Ok(serde_json::from_str(&report).map_err(|error| unknown(&error))?)
}

fn unknown(error: &serde_json::Error) -> EngineError {
    EngineError::new(ErrorKind::Unsupported, format!("the service reports otherwise: {error}"))
        .with_remedy("use the same version of op-dbus as the service")
}

fn exit(report: &StateReport) -> Exit {
    if report.as_declared { Exit::Success } else { Exit::NotAsDeclared }
}

fn show(output: &Output, report: &StateReport) -> Result<()> {
    output.answer(report, |out| report.plugins.iter().try_for_each(|plugin| render(out, plugin)))
}

fn render(out: &mut dyn Write, report: &PluginReport) -> std::io::Result<()> {
    let outcome = match report.outcome {
        PluginOutcome::Planned => "to be changed",
        PluginOutcome::Unchanged => "as declared",
        PluginOutcome::Applied => "changed",
        PluginOutcome::RolledBack => "taken back",
        PluginOutcome::Failed => "FAILED",
        PluginOutcome::Untouched => "not touched",
    };
    writeln!(out, "{}: {outcome}", report.plugin)?;
    for change in &report.changes {
        writeln!(out, "  {}: {} -> {}", change.path, change.from, change.to)?;
    }
    match &report.problem {
        Some(problem) => writeln!(out, "  {problem}"),
        None => Ok(()),
    }
}
