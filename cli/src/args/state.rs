//! The arguments of the commands about declared state, and about the journal.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum State {
    /// Show the state of a plugin as it is
    #[command(after_help = "Example:\n  op-dbus state query hostname")]
    Query {
        /// Name of the plugin
        #[arg(value_name = "PLUGIN")]
        plugin: String,
    },
    /// Show what apply would do
    #[command(after_help = "\
Examples:
  op-dbus state diff
  op-dbus state diff state.json --json | jq '.plugins[].changes[].path'")]
    Diff(StateFile),
    Apply(StateApply),
    /// Show what is not as declared: in a file, or in what was applied last
    ///
    /// The exit code is 13 if something is not.
    #[command(after_help = "\
Examples:
  op-dbus state verify
  op-dbus state verify state.json")]
    Verify {
        /// File of declared state; what was applied last unless given
        #[arg(value_name = "FILE|-")]
        file: Option<PathBuf>,
    },
    /// List the files that were applied, the last first
    #[command(after_help = "Example:\n  op-dbus state history")]
    History,
    /// Apply a file again that was applied before
    #[command(after_help = "Example:\n  op-dbus state rollback 17")]
    Rollback {
        /// Its number, as history lists it
        #[arg(value_name = "NUMBER")]
        number: u64,
    },
}

#[derive(Debug, Args)]
pub(crate) struct StateFile {
    /// File of declared state, or - for standard input
    #[arg(
        value_name = "FILE|-",
        env = "OPDBUS_STATE_FILE",
        hide_env_values = true,
        default_value = "/etc/operation-dbus/state.json"
    )]
    pub(crate) file: PathBuf,
}

/// Make declared state true, or leave everything as it was
///
/// Plugins are applied one after the other, those first that others depend on, and verified. If one
/// fails, all that was changed is taken back. The exit code is 13 if it is not as declared at the end.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  op-dbus state apply
  op-dbus state apply state.json --dry-run
  generate-state | op-dbus state apply -")]
pub(crate) struct StateApply {
    #[command(flatten)]
    pub(crate) file: StateFile,
    /// Only show what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Journal {
    /// Show entries, the last ones unless told otherwise
    #[command(after_help = "\
Examples:
  op-dbus journal show
  op-dbus journal show --from 100 --count 50 --json")]
    Show(JournalShow),
    Search(JournalSearch),
    /// Compare every entry with its hash and with the one before
    ///
    /// Prints how many there are, and the hash of the last: worth noting elsewhere, for what was cut
    /// off the end shows nowhere else. The exit code is 7 if the journal is broken.
    #[command(after_help = "\
Examples:
  op-dbus journal verify --json | jq -r .hash
  op-dbus journal verify --noted 1042:3f0c5e…
  journalctl -u operation-dbus -o json |
    jq -r '.JOURNAL_ENTRIES + \":\" + .JOURNAL_HEAD'

The last one shows what the service noted at each start, among empty lines.")]
    Verify {
        /// An entry and its hash as they were noted elsewhere; several times for several
        #[arg(long, value_name = "NUMBER:HASH", value_parser = noted)]
        noted: Vec<Noted>,
    },
    /// Write all entries as JSON lines
    #[command(after_help = "Example:\n  op-dbus journal export > journal.jsonl")]
    Export,
}

/// An entry of the journal as it was once.
#[derive(Clone, Debug)]
pub(crate) struct Noted {
    pub(crate) number: u64,
    pub(crate) hash: String,
}

fn noted(text: &str) -> Result<Noted, String> {
    let is_hash = |hash: &&str| hash.len() == 64 && hash.bytes().all(|it| it.is_ascii_hexdigit());
    let noted = text.split_once(':').and_then(|(number, hash)| {
        let hash = Some(hash).filter(is_hash)?.to_ascii_lowercase();
        Some(Noted { number: number.parse().ok().filter(|number| *number > 0)?, hash })
    });
    noted.ok_or_else(|| "it must be a number, a colon and 64 hexadecimal digits".to_owned())
}

#[derive(Debug, Args)]
pub(crate) struct JournalShow {
    /// Number of the first entry
    #[arg(long, value_name = "NUMBER")]
    pub(crate) from: Option<u64>,
    /// How many
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20)]
    pub(crate) count: u32,
}

/// Find entries by what they mean
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  op-dbus journal search \"who changed the host name\"")]
pub(crate) struct JournalSearch {
    /// What you are looking for, in your own words
    #[arg(value_name = "TEXT")]
    pub(crate) text: String,
    /// How many entries to show at most
    #[arg(short = 'k', long, value_name = "N", default_value_t = 10, value_parser = super::query::limit)]
    pub(crate) limit: usize,
}
