//! The options of stores on BTRFS, and the commands about how a store lies on its file system.

use clap::builder::BoolishValueParser;
use clap::{Args, Subcommand};
use op_dbus_engine::StorePart;

/// How the directories of a store are made.
#[derive(Debug, Args)]
#[command(next_help_heading = "On BTRFS")]
pub(crate) struct Btrfs {
    /// Whether directories of a store that are missing are made as subvolumes
    #[arg(
        long,
        global = true,
        value_name = "true|false",
        env = "OPDBUS_BTRFS_ENABLE",
        hide_env_values = true,
        hide_short_help = true,
        default_value = "true",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        action = clap::ArgAction::Set,
        value_parser = BoolishValueParser::new()
    )]
    pub(crate) btrfs_enable: bool,
    /// Which of them
    #[arg(
        long,
        global = true,
        value_name = "NAME,…",
        env = "OPDBUS_BTRFS_SUBVOLUMES",
        hide_env_values = true,
        hide_short_help = true,
        default_value = "@cache,@timing,@vectors,@state",
        value_delimiter = ',',
        value_parser = part
    )]
    pub(crate) btrfs_subvolumes: Vec<StorePart>,
}

fn part(text: &str) -> Result<StorePart, String> {
    text.parse().map_err(|_| {
        let names = StorePart::ALL.map(StorePart::name);
        format!("it must be one of {}", names.join(", "))
    })
}

#[derive(Debug, Subcommand)]
pub(crate) enum LayoutCommand {
    /// Make subvolumes of the plain directories of a store on BTRFS
    ///
    /// Snapshots then take a moment and no room. Nobody may have the store open. Files are copied
    /// without copying what is in them, and each directory is replaced in one step: a store is whole
    /// whenever this is broken off, and the same command goes on.
    #[command(after_help = "Example:\n  op-dbus layout migrate --store /var/lib/op-dbus")]
    Migrate,
}

/// Say what is well and what is not: file system, compression, NUMA, processor, model, bus, polkit, clock
///
/// Each line is ok, a warning or a problem; what is not ok says what it costs, and the command that
/// changes it. Unless --fix is given nothing is changed, and the store may be in use.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  op-dbus doctor
  op-dbus doctor --fix
  op-dbus doctor --json | jq '.checks[] | select(.state != \"ok\")'

The exit code is 10 if there is a problem, and 0 otherwise.")]
pub(crate) struct Doctor {
    /// Change what this program may change by itself: directories that are no subvolumes (for which
    /// nobody may have the store open), and what is compressed. All else stays a line with its command
    #[arg(long)]
    pub(crate) fix: bool,
    /// Level of zstd that the mount should have, from 1 to 15
    ///
    /// BTRFS has one level for a mount, and none for a directory: its property takes no effective one.
    #[arg(
        long,
        value_name = "LEVEL",
        env = "OPDBUS_BTRFS_COMPRESSION_LEVEL",
        hide_env_values = true,
        default_value = "3",
        value_parser = level
    )]
    pub(crate) compression_level: u32,
}

fn level(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(level) if (1..=15).contains(&level) => Ok(level),
        Ok(16..=22) => Err("BTRFS takes levels of zstd from 1 to 15, not those above".to_owned()),
        _ => Err("it must be a level of zstd that BTRFS takes, from 1 to 15".to_owned()),
    }
}
