//! The command line as clap sees it. Nothing here is resolved or checked against the world.

mod benchmark;
mod daemon;
mod documents;
mod figures;
mod global;
mod layout;
mod models;
mod numa;
mod plugins;
mod settings;
mod shell;
mod snapshots;
mod state;

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use op_dbus_engine::{Encoding, LIMIT_MAX, PolicyKind, Profile};

use crate::exit;

pub(crate) use benchmark::{Benchmark, Search, Truth};
pub(crate) use daemon::{Daemon, READERS_DELIMITER};
pub(crate) use documents::{Expiry, Get, History, Put, Remove};
pub(crate) use figures::{Stats, Top};
use global::policy;
pub(crate) use global::{Global, LogLevel};
pub(crate) use layout::{Btrfs, Doctor, LayoutCommand};
pub(crate) use models::{Collection, Model, ModelInstall, ModelNamed, ModelQuantize, Reembed};
pub(crate) use numa::Numa;
pub(crate) use plugins::{Plugin, PluginCall, PluginCreate, PluginNamed, PluginValidate};
pub(crate) use settings::{CONFIG_VARIABLE, Settings, SettingsShow};
pub(crate) use shell::{Completions, Man};
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

fn limit(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(limit) if (1..=LIMIT_MAX).contains(&limit) => Ok(limit),
        _ => Err(format!("it must be a number from 1 to {LIMIT_MAX}")),
    }
}

fn rate(text: &str) -> Result<NonZeroU64, String> {
    const UNITS: [(char, u32); 3] = [('K', 10), ('M', 20), ('G', 30)];
    let unit =
        UNITS.iter().find(|(letter, _)| text.ends_with([*letter, letter.to_ascii_lowercase()]));
    let (digits, shift) = unit.map_or((text, 0), |(_, shift)| (&text[..text.len() - 1], *shift));
    let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes.and_then(NonZeroU64::new).ok_or_else(|| "it must be like 500K, 50M or 1G".to_owned())
}

fn recall(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(recall) if recall > 0.0 && recall <= 1.0 => Ok(recall),
        _ => Err("it must be a number above 0 and at most 1".to_owned()),
    }
}

fn score(text: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(score) if f32::is_finite(score) => Ok(score),
        _ => Err("it must be a number".to_owned()),
    }
}

#[derive(Debug, Subcommand)]
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
    /// Collections as a whole
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
  {\"key\":\"tar\",\"text\":\"GNU version of the tar archiving utility\",\"payload\":{\"section\":\"utils\"}}")]
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

/// Find the records nearest in meaning to a text
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  op-dbus query \"restart the network\"
  op-dbus query \"compress a directory\" -k 3 --collection packages
  op-dbus query \"change the time zone\" --json | jq -r '.hits[].key'
  op-dbus query \"restart\" --filter 'service = \"org.freedesktop.login1\" and live'
  op-dbus query \"restart\" --filter 'kind in [\"method\", \"signal\"] and not risk = \"denied\"'
  op-dbus query \"a list\" --filter 'arguments.0.signature starts with \"a\"'

Filters:
  FIELD                  true if the field of the payload is true; a.b and a.0 lead into it
  FIELD = VALUE          also != < <= > >=; a value is \"text\", 'text', a number, true, false, null
  FIELD in [VALUE, ...]  FIELD contains VALUE, FIELD starts with \"TEXT\", exists FIELD
  @key @collection @text are of the record itself; and, or, not and parentheses join conditions.
  What is of another type is not true, and no error.")]
pub(crate) struct Query {
    /// What you are looking for, in your own words
    #[arg(value_name = "TEXT")]
    pub(crate) text: String,
    /// How many records to show at most
    #[arg(short = 'k', long, value_name = "N", default_value_t = 10, value_parser = limit)]
    pub(crate) limit: usize,
    /// Collection to search; may be repeated [default: all]
    #[arg(long, short, value_name = "NAME")]
    pub(crate) collection: Vec<String>,
    /// Leave out records that score less (-1 to 1)
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true, value_parser = score)]
    pub(crate) min_score: Option<f32>,
    /// Find only records of which this is true, such as 'kind = "method" and live'
    #[arg(long, value_name = "FILTER")]
    pub(crate) filter: Option<String>,
    /// Find exactly the nearest, also in collections that have a graph
    #[arg(long, conflicts_with = "recall")]
    pub(crate) exact: bool,
    /// The part of the nearest to find in collections that have a graph, as far as their calibration
    /// tells
    #[arg(long, value_name = "PART", default_value_t = 0.99, value_parser = recall)]
    pub(crate) recall: f64,
    /// Say how it was found: plan, vectors compared and read, time of each stage
    #[arg(long)]
    pub(crate) explain: bool,
    #[command(flatten)]
    pub(crate) at: At,
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
    #[arg(long, value_name = "N")]
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

/// Read records from a file in an exchange format, or from the cache of an earlier program
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  op-dbus cache import records.jsonl --collection notes
  op-dbus cache import vectors.npy --collection images
  producer | op-dbus cache import - --collection notes --ack
  op-dbus cache import --from-sqlite /var/lib/op-dbus/@cache/embeddings/index.db

JSON lines have \"key\", and \"text\", \"vector\" or both, and may have a \"payload\" and
\"expires_at_unix_ms\", which counts more than --expires-in. The rows of npy and fvecs files get
their numbers, from 0, as keys.

Of a SQLite database, every table with the columns text_hash, text and vector_file is read.
vector_file names a .vec file, a Vec<f32> as bincode writes it; the hash becomes the key.")]
pub(crate) struct CacheImport {
    /// The file, or - for standard input
    #[arg(value_name = "FILE|-", required_unless_present = "from_sqlite")]
    pub(crate) source: Option<PathBuf>,
    /// SQLite database of an earlier program's cache, which is only read
    #[arg(long, value_name = "FILE", conflicts_with_all = ["source", "format"])]
    pub(crate) from_sqlite: Option<PathBuf>,
    /// Folder of that cache's .vec files [default: that of the database, or vectors in it]
    #[arg(long, value_name = "DIR", requires = "from_sqlite")]
    pub(crate) vectors: Option<PathBuf>,
    /// Collection to put the records in [default: documents; legacy for --from-sqlite]
    #[arg(long, short, value_name = "NAME")]
    pub(crate) collection: Option<String>,
    /// How to read the source; told from the file name unless given, jsonl for standard input
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<ExchangeFormat>,
    /// How a new collection stores the vectors given: f32, f16 or i8 [default: f32]
    #[arg(long, value_name = "ENCODING", value_parser = encoding)]
    pub(crate) encoding: Option<Encoding>,
    /// Print the key of each record, on a line of its own, once it is durable; control characters
    /// in it are escaped
    #[arg(long)]
    pub(crate) ack: bool,
    #[command(flatten)]
    pub(crate) expiry: Expiry,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExchangeFormat {
    /// A JSON object on each line
    Jsonl,
    /// NumPy array of shape [rows, dimensions]
    Npy,
    /// Rows of a count and that many f32
    Fvecs,
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

/// Write the records of a collection as JSON lines, in key order
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  op-dbus cache export --collection notes > notes.jsonl")]
pub(crate) struct CacheExport {
    /// Collection to write
    #[arg(long, short, value_name = "NAME", default_value = "documents")]
    pub(crate) collection: String,
    /// How to write it
    #[arg(long, value_name = "FORMAT", default_value = "jsonl")]
    pub(crate) format: ExportFormat,
    /// File to write, which must not exist; standard output unless given
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) at: At,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// A JSON object on each line
    Jsonl,
}

/// Show how often caches of several sizes and policies would have had what was asked for
///
/// The capacities are 1, 5, 10, 25 and 50 % of the keys in the trace, and the one given. A cache is
/// kept between 85 and 90 % full, as vectors in memory are.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  op-dbus cache simulate --trace /var/lib/op-dbus/@timing/trace/1763851200000.trace
  op-dbus cache simulate --trace keys.txt --capacity 10000 --policy s3fifo

The trace is one that `op-dbus cache trace` has recorded, or a text file with a key on each line.")]
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
