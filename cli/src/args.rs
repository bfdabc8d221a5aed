//! The command line as clap sees it. Nothing here is resolved or checked against the world.

mod benchmark;
mod collections;
mod daemon;
mod documents;
mod exchange;
mod figures;
mod global;
mod layout;
mod mcp;
mod models;
mod numa;
mod plugins;
mod query;
mod settings;
mod shell;
mod snapshots;
mod state;

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use op_dbus_engine::{Encoding, PolicyKind, Profile};

use crate::exit;

pub(crate) use benchmark::{Benchmark, Search, Truth};
pub(crate) use collections::{
    Collection, CollectionCreate, CollectionDrop, CollectionNamed, Reembed,
};
pub(crate) use daemon::{Daemon, READERS_DELIMITER};
pub(crate) use documents::{Expiry, Get, History, Put, Remove};
pub(crate) use exchange::{CacheExport, CacheImport, Columns, ExchangeFormat};
pub(crate) use figures::{Stats, Top};
use global::policy;
pub(crate) use global::{Global, LogLevel, Said};
pub(crate) use layout::{Btrfs, Doctor, LayoutCommand};
pub(crate) use mcp::Mcp;
pub(crate) use models::{Model, ModelInstall, ModelNamed, ModelQuantize};
pub(crate) use numa::Numa;
pub(crate) use plugins::{Plugin, PluginCall, PluginCreate, PluginNamed, PluginValidate};
pub(crate) use query::{AnswerFormat, Query};
pub(crate) use settings::{CONFIG_VARIABLE, Settings, SettingsShow};
pub(crate) use shell::{Completions, Man, Schema};
pub(crate) use snapshots::{
    At, Diff, Moment, Snapshot, SnapshotCreate, SnapshotDelete, SnapshotReceive, SnapshotRestore,
    SnapshotSend,
};
pub(crate) use state::{Journal, JournalSearch, JournalShow, Noted, State, StateApply};

/// Find D-Bus methods, packages and your own records by what they mean.
#[derive(Debug, Parser)]
#[command(
    name = "op-dbus",
    version,
    max_term_width = 100,
    after_help = exit::HELP,
    arg_required_else_help = true,
    subcommand_required = true
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The command line with all of its commands, for whoever looks at those that are not wanted.
pub(crate) fn whole() -> clap::Command {
    let mut command = Arguments::command();
    command.build();
    command
}

/// How much a cache may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Capacity {
    Entries(u32),
    Bytes(u64),
}

fn capacity(text: &str) -> Result<Capacity, String> {
    const UNITS: [(&str, u32); 4] = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];
    let size = UNITS.iter().find_map(|(unit, shift)| {
        let count: u64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
        count.checked_mul(1 << shift).map(Capacity::Bytes)
    });
    size.or_else(|| text.parse().ok().map(Capacity::Entries))
        .ok_or_else(|| "it must be a number of entries, or a size such as 64MiB".to_owned())
}

fn encoding(text: &str) -> Result<Encoding, String> {
    Encoding::ALL.into_iter().find(|encoding| encoding.name() == text).ok_or_else(|| {
        format!("it must be one of {}", Encoding::ALL.map(Encoding::name).join(", "))
    })
}

/// Threads are made at once, and each takes memory.
fn threads(text: &str) -> Result<NonZeroUsize, String> {
    const COUNT_MAX: usize = 1024;
    let count = text.parse().ok().filter(|count: &NonZeroUsize| count.get() <= COUNT_MAX);
    count.ok_or_else(|| format!("it must be a number from 1 to {COUNT_MAX}"))
}

fn rate(text: &str) -> Result<NonZeroU64, String> {
    const UNITS: [(char, u32); 3] = [('K', 10), ('M', 20), ('G', 30)];
    let unit =
        UNITS.iter().find(|(letter, _)| text.ends_with([*letter, letter.to_ascii_lowercase()]));
    let (digits, shift) = unit.map_or((text, 0), |(_, shift)| (&text[..text.len() - 1], *shift));
    let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes.and_then(NonZeroU64::new).ok_or_else(|| "it must be like 500K, 50M or 1G".to_owned())
}

/// What is wanted. Of a command that is not, its name alone is made: all of them are a third of the time in
/// which the program starts. See [`whole`].
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum Command {
    Index(Index),
    Query(Query),
    Link(Link),
    Put(Put),
    Get(Get),
    History(History),
    Remove(Remove),
    Cache {
        #[command(subcommand)]
        command: Cache,
    },
    /// Collections as a whole: listed, made, dropped, embedded anew
    Collection {
        #[command(subcommand)]
        command: Collection,
    },
    /// Embedding models: which there are, whether they are whole, and more of them
    Model {
        #[command(subcommand)]
        command: Model,
    },
    /// What the store was at some moment: taken, listed, deleted, restored
    Snapshot {
        #[command(subcommand)]
        command: Snapshot,
    },
    /// How the directories of a store lie on its file system
    Layout {
        #[command(subcommand)]
        command: LayoutCommand,
    },
    Daemon(Daemon),
    Mcp(Mcp),
    Diff(Diff),
    /// Who did what: every decision, every change, and how it ended
    Journal {
        #[command(subcommand)]
        command: Journal,
    },
    /// Declared state: compared with what is, applied, verified, taken back
    State {
        #[command(subcommand)]
        command: State,
    },
    /// Plugins: what may be asked of other services
    Plugin {
        #[command(subcommand)]
        command: Plugin,
    },
    /// Settings: what is in force, and whether a file of them is right
    #[command(name = "config")]
    Settings {
        #[command(subcommand)]
        command: Settings,
    },
    Completions(Completions),
    Man(Man),
    Schema(Schema),
    Doctor(Doctor),
    Scrub(Scrub),
    Stats(Stats),
    Top(Top),
    Benchmark(Box<Benchmark>),
}

impl Command {
    /// Whether the file of settings counts. Whoever checks one names it.
    pub(crate) fn takes_settings(&self) -> bool {
        !matches!(self, Self::Settings { .. })
    }

    /// Whether it is to answer in JSON, by an option of its own.
    pub(crate) fn wants_json(&self) -> bool {
        matches!(self, Self::Query(Query { format: AnswerFormat::Json | AnswerFormat::Jsonl, .. }))
    }
}

/// Read files into the store, so that they are found by meaning
///
/// Takes D-Bus introspection XML (a record for each method, property and signal, with its
/// documentation), JSON lines, and plain text (a record for each line). Text that was embedded
/// before is not computed again. What was indexed when you press Ctrl-C stays.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  op-dbus index /usr/share/dbus-1/interfaces
  op-dbus index packages.jsonl --collection packages
  apt-cache search . | op-dbus index - --collection packages

The key of a text line is FILE:LINE, that of standard input stdin:LINE.
A JSON line has a \"key\" and at least one of \"text\", \"vector\" and \"payload\":
  {\"key\":\"tar\",\"text\":\"GNU tar archives\",\"payload\":{\"section\":\"utils\"}}")]
pub(crate) struct Index {
    /// Files, directories (walked for .xml, .jsonl, .ndjson and .txt), or - for standard input
    #[arg(required = true, value_name = "FILE|DIR|-")]
    pub(crate) sources: Vec<PathBuf>,
    /// Collection to put the records in [default: dbus for XML, documents otherwise]
    #[arg(long, short, value_name = "NAME")]
    pub(crate) collection: Option<String>,
    /// How to read the sources; told from the file name unless given, text for standard input.
    /// Of directories, only files of this format are read
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<SourceFormat>,
    /// How a new collection stores the vectors that JSON lines give: f32, f16 or i8 [default: f32]
    #[arg(long, value_name = "ENCODING", value_parser = encoding)]
    pub(crate) encoding: Option<Encoding>,
    #[command(flatten)]
    pub(crate) expiry: Expiry,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SourceFormat {
    /// D-Bus introspection XML
    Xml,
    /// A JSON object on each line
    Jsonl,
    /// A text on each line
    Text,
}

/// Make the graphs that find the nearest fast
///
/// Without a graph all vectors of a collection are compared. With one a search looks at some dozens
/// of them, and finds nearly all of the nearest. A graph is made once, kept with the store, and
/// brought up to date with every change. It can be made again or removed at any time. Ctrl-C keeps
/// what was linked, and the same command goes on from there.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  op-dbus link packages
  op-dbus link packages --profile compact --threads 1
  op-dbus link packages --remove")]
pub(crate) struct Link {
    /// Collections
    #[arg(required = true, value_name = "COLLECTION")]
    pub(crate) collections: Vec<String>,
    /// speed knows of each vector how its neighbours differ, compact takes a quarter of the memory
    #[arg(long, value_name = "PROFILE", default_value = "speed", value_parser = benchmark::profile)]
    pub(crate) profile: Profile,
    /// Threads that work on it [default: as many as there are processors]
    #[arg(long, value_name = "N", value_parser = threads)]
    pub(crate) threads: Option<NonZeroUsize>,
    /// Remove the graphs instead
    #[arg(long, conflicts_with_all = ["profile", "threads"])]
    pub(crate) remove: bool,
}

/// The embedding cache, and records in exchange formats
#[derive(Debug, Subcommand)]
pub(crate) enum Cache {
    /// Show how large the embedding cache is and how well it works
    #[command(after_help = "Example:\n  op-dbus cache stats --json | jq .hit_rate")]
    Stats,
    Get(CacheGet),
    Put(CachePut),
    Import(CacheImport),
    Export(CacheExport),
    Simulate(CacheSimulate),
    /// Record which vectors are asked for, to simulate caches with
    Trace {
        #[command(subcommand)]
        command: CacheTrace,
    },
    Clean(CacheClean),
    /// As op-dbus snapshot create
    #[command(hide = true)]
    Snapshot(SnapshotCreate),
    /// As op-dbus snapshot list
    #[command(hide = true)]
    Snapshots,
    /// As op-dbus snapshot delete
    #[command(hide = true)]
    DeleteSnapshots(SnapshotDelete),
    /// Remove cached embeddings of texts, which can be computed again
    ///
    /// Records and the vectors that callers gave stay.
    #[command(after_help = "Example:\n  op-dbus cache clear")]
    Clear,
}

/// Show the embedding of a text, computing it if the cache has not got it
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  op-dbus cache get \"restart the network\" --json | jq .vector")]
pub(crate) struct CacheGet {
    /// The text
    #[arg(value_name = "TEXT")]
    pub(crate) text: String,
}

/// Put the embedding of a text into the cache: computed here, or elsewhere by the same model
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  op-dbus cache put \"restart the network\"
  op-dbus cache put \"restart the network\" --vector vector.json")]
pub(crate) struct CachePut {
    /// The text
    #[arg(value_name = "TEXT")]
    pub(crate) text: String,
    /// File with the embedding as a JSON array, or - for standard input; computed unless given
    #[arg(long, value_name = "FILE|-")]
    pub(crate) vector: Option<PathBuf>,
}

/// Remove cached embeddings of texts that were written long ago, and can be computed again
///
/// Records and the vectors that callers gave stay.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  op-dbus cache clean --older-than 30d")]
pub(crate) struct CacheClean {
    /// How long ago at least: 30s, 15m, 1h, 7d or 2w
    #[arg(long, value_name = "TIME", value_parser = documents::time)]
    pub(crate) older_than: Duration,
}

/// Show how often caches of several sizes and policies would have had what was asked for
///
/// The capacities are 1, 5, 10, 25 and 50 % of the keys in the trace, and the one given. A cache is
/// kept between 85 and 90 % full, as vectors in memory are.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  op-dbus cache simulate --trace @timing/trace/1763851200000.trace
  op-dbus cache simulate --trace keys.txt --capacity 10000 --policy s3fifo

The trace is one that `op-dbus cache trace` has recorded, or a text file with
a key on each line.")]
pub(crate) struct CacheSimulate {
    /// File with what was asked for
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: PathBuf,
    /// One more capacity: entries, or a size of vectors (KiB, MiB, GiB, TiB) for a recorded trace
    #[arg(long, value_name = "ENTRIES|SIZE", value_parser = capacity)]
    pub(crate) capacity: Option<Capacity>,
    /// lru, s3fifo or tinylfu; all of them unless given
    #[arg(long, value_name = "POLICY", value_parser = policy)]
    pub(crate) policy: Option<PolicyKind>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CacheTrace {
    /// Record from now on, in every command and program that opens the store
    ///
    /// A trace holds hashes, not texts. It ends by itself when it is 256 MiB long.
    #[command(after_help = "Example:\n  op-dbus cache trace start")]
    Start,
    /// Stop recording, and show where the trace is and what it holds
    #[command(after_help = "Example:\n  op-dbus cache trace stop --json | jq -r .trace")]
    Stop,
}

/// Read everything in the store and say what is damaged
///
/// Reads every file from the disk and verifies every checksum, then every record, vector, change
/// and cached embedding, and what they say about each other. Cached embeddings that are damaged
/// are removed and computed again when needed; of records nothing is changed. Without faults, or
/// if all were repaired, the exit code is 0; otherwise 7.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  op-dbus scrub
  op-dbus scrub --rate 50M
  op-dbus scrub --resume
  op-dbus scrub --json | jq '.faults[].path'")]
pub(crate) struct Scrub {
    /// Most bytes to read in a second, such as 500K or 50M (of 1024 * 1024); all speed unless given
    #[arg(long, value_name = "BYTES", value_parser = rate)]
    pub(crate) rate: Option<NonZeroU64>,
    /// Go on where the last scrub was broken off, by Ctrl-C or otherwise
    #[arg(long)]
    pub(crate) resume: bool,
}

#[cfg(test)]
mod tests {
    use super::whole;

    /// Help is wrapped at the width of a terminal; what is to be copied must not be.
    #[test]
    fn notes_below_help_fit_a_terminal() {
        const COLUMNS: usize = 78;
        let mut commands = vec![whole()];
        while let Some(command) = commands.pop() {
            let notes = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in notes.lines() {
                let width = line.chars().count();
                assert!(width <= COLUMNS, "{}: {width} columns: {line}", command.get_name());
            }
            commands.extend(command.get_subcommands().cloned());
        }
    }
}
