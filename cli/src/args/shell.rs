//! The arguments of the commands that make the program at home in a shell.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Print what lets a shell complete commands, options, and names of collections, snapshots and plugins
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  echo 'source <(op-dbus completions bash)' >> ~/.bashrc
  echo 'source <(op-dbus completions zsh)' >> ~/.zshrc
  op-dbus completions fish > ~/.config/fish/completions/op-dbus.fish")]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: Shell,
}

/// A shell that completions are made for.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Fish,
    Zsh,
}

impl Shell {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Fish => "fish",
            Self::Zsh => "zsh",
        }
    }
}

/// Print the manual page of the program, or write one for each command into a directory
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  op-dbus man | man -l -
  op-dbus man --output /usr/local/share/man/man1")]
pub(crate) struct Man {
    /// Directory to write the pages of all commands to
    #[arg(long, short, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
}

/// Show the JSON Schema of what --json writes: of all commands, or of one
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  op-dbus schema query
  op-dbus schema cache stats | jq .properties
  op-dbus schema > op-dbus.schema.json

Every answer keeps to it, and so does every error, whose schema is that of
`error`. What a version adds to an answer, the next keep; a field that is
taken away or means something else is said in the notes of the version.")]
pub(crate) struct Schema {
    /// The command, such as: cache stats
    #[arg(value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}
