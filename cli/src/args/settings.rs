//! The arguments of the commands about settings.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// The variable that says where the file of settings is.
pub(crate) const CONFIG_VARIABLE: &str = "OPDBUS_CONFIG";

#[derive(Debug, Subcommand)]
pub(crate) enum Settings {
    Show(SettingsShow),
    Check(SettingsCheck),
}

/// Show every setting that is in force, as a file of settings
///
/// An option on the command line comes before its variable, that before the file, and that before
/// what holds unless told.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  op-dbus config show
  op-dbus config show --origin
  op-dbus config show --json | jq '.settings[] | select(.origin != \"default\")'")]
pub(crate) struct SettingsShow {
    /// Say of each where it comes from
    #[arg(long)]
    pub(crate) origin: bool,
}

/// Check a file of settings: every key and every value
///
/// Nothing else is read, so it can be checked where it is made. The exit code is 4 if it is wrong;
/// the message has the line and the column.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  op-dbus config check
  op-dbus config check ./config.toml")]
pub(crate) struct SettingsCheck {
    /// The file [default: that which is used]
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}
