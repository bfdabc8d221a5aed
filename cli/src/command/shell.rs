//! `op-dbus completions` and `op-dbus man`: what makes the program at home in a shell.

use std::io::Write;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::env::Shells;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use op_dbus_engine::{Error as Failure, ErrorKind};
use serde_json::json;

use crate::args::{self, Arguments};
use crate::completion::{PROGRAM, VARIABLE};
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::output::Output;

pub(super) fn completions(output: &Output, arguments: &args::Completions) -> Result<Exit> {
    let name = arguments.shell.name();
    let shells = Shells::builtins();
    let shell = shells.completer(name).ok_or_else(|| {
        Error::Engine(Failure::new(ErrorKind::Unsupported, format!("there is nothing for {name}")))
    })?;
    let mut script = Vec::new();
    let written = shell.write_registration(VARIABLE, PROGRAM, PROGRAM, PROGRAM, &mut script);
    written.map_err(Error::stdout)?;
    let text = String::from_utf8_lossy(&script);
    output
        .answer(&json!({ "shell": name, "script": text }), |out| out.write_all(text.as_bytes()))?;
    Ok(Exit::Success)
}

pub(super) fn man(output: &Output, arguments: &args::Man) -> Result<Exit> {
    let mut command = Arguments::command().disable_help_subcommand(true);
    command.build();
    match &arguments.output {
        None => {
            let mut page = Vec::new();
            render(&command, &mut page).map_err(Error::stdout)?;
            let text = String::from_utf8_lossy(&page);
            output.answer(&json!({ "page": text }), |out| out.write_all(text.as_bytes()))?;
        }
        Some(directory) => {
            let io = |error| Error::io("write pages to", directory, error);
            std::fs::create_dir_all(directory).map_err(io)?;
            let mut names = Vec::new();
            write_all(&command, directory, &mut names).map_err(io)?;
            output.answer(&json!({ "directory": directory, "pages": names }), |out| {
                writeln!(out, "{} pages in {}", names.len(), directory.display())
            })?;
        }
    }
    Ok(Exit::Success)
}

/// Writes the pages of a command and of those below it that are shown.
fn write_all(command: &Command, directory: &Path, names: &mut Vec<String>) -> std::io::Result<()> {
    let name = format!("{}.1", command.get_display_name().unwrap_or(command.get_name()));
    let mut page = Vec::new();
    render(command, &mut page)?;
    std::fs::write(directory.join(&name), page)?;
    names.push(name);
    let mut shown = command.get_subcommands().filter(|command| !command.is_hide_set());
    shown.try_for_each(|command| write_all(command, directory, names))
}

/// Writes the page of a command. What every command takes stands in the page of the program alone.
fn render(command: &Command, out: &mut dyn Write) -> std::io::Result<()> {
    let is_program = command.get_name() == PROGRAM;
    let shown = command.clone().mut_args(|argument| {
        let is_elsewhere = argument.is_global_set() && !is_program;
        // The page has room for what a short help leaves out.
        argument.hide_short_help(false).hide(is_elsewhere)
    });
    let name = shown.get_display_name().unwrap_or(PROGRAM).to_owned();
    let source = concat!("op-dbus ", env!("CARGO_PKG_VERSION"));
    let after = shown.get_after_help().map(ToString::to_string).unwrap_or_default();
    let has_commands = shown.get_subcommands().any(|command| !command.is_hide_set());
    // A page without a date: a blank, so that what follows keeps its place.
    let page = Man::new(shown).title(name).date(" ").source(source).manual("Operation D-Bus");
    page.render_title(out)?;
    page.render_name_section(out)?;
    page.render_synopsis_section(out)?;
    page.render_description_section(out)?;
    page.render_options_section(out)?;
    if has_commands {
        page.render_subcommands_section(out)?;
    }
    render_after(&after, is_program, out)
}

/// Writes what stands after the help of a command, as it stands: a heading where a paragraph begins with
/// one.
fn render_after(after: &str, is_program: bool, out: &mut dyn Write) -> std::io::Result<()> {
    let mut page = Roff::new();
    for paragraph in after.split("\n\n").filter(|paragraph| !paragraph.is_empty()) {
        let (heading, rest) = match paragraph.split_once('\n') {
            Some(("Example:" | "Examples:", rest)) => ("EXAMPLES", rest),
            Some(("Exit codes:", rest)) => ("EXIT STATUS", rest),
            _ => ("NOTES", paragraph),
        };
        page.control("SH", [heading]).control("nf", []);
        let indent = |line: &str| line.len() - line.trim_start().len();
        let least = rest.lines().map(indent).min().unwrap_or(0);
        for line in rest.lines() {
            page.text([roman(&line[least..])]);
        }
        page.control("fi", []);
    }
    if !is_program {
        page.control("SH", ["SEE ALSO"]);
        page.text([bold("op-dbus"), roman("(1) for what every command takes, and for exit codes")]);
    }
    page.to_writer(out)
}
