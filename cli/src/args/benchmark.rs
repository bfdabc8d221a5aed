//! The command line of `op-dbus benchmark`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{ArgGroup, Args};
use op_dbus_engine::{LIMIT_MAX, Metric, Profile};

/// Measure this machine: hits, embedding, searches and NUMA nodes, beside what else it could do
///
/// Everything that is measured has beside it, in the same run, a limit of the machine or a rival:
/// memory that is only copied, LMDB, ONNX Runtime alone, the comparison of all vectors. Data is made
/// in a temporary directory (about 4 KB for each key) and removed, also by Ctrl-C; searches can also
/// be of vectors or a collection of your own. --all takes one to three minutes on two CPUs, and says
/// what cannot be measured here and why (no model, no card, one NUMA node), which is no failure.
#[derive(Debug, Args)]
#[command(
    override_usage = "op-dbus benchmark [OPTIONS] <WHAT>, which is --all, or some of --cache-hit <N>,\n       --embeddings <N>, --search [<N>] and --numa-local <N>",
    group = ArgGroup::new("what").required(true).multiple(true)
        .args(["all", "cache_hit", "embeddings", "search", "numa_local"]),
    group = ArgGroup::new("hits").multiple(true).args(["all", "cache_hit"]),
    after_help = "\
Examples:
  op-dbus benchmark --all --report report.html
  op-dbus benchmark --all --json > baseline.json
  op-dbus benchmark --all --compare baseline.json
  op-dbus benchmark --cache-hit 300000 --keys 100000 --threads-at-once 1,2
  op-dbus benchmark --embeddings 200
  op-dbus benchmark --numa-local 1000000
  op-dbus benchmark --search 100000
  op-dbus benchmark --search --base base.npy --index /tmp/index \\
    --queries queries.npy --truth exact --efforts 10,20,50,100
  op-dbus --store /var/lib/opdbus benchmark --search 1000 --collection notes

--compare ends with exit code 14 if something is slower than in the baseline
by more than the tolerance, or 0.02 less is found. What is slower only as
much as the limit or the rival beside it is not: then the machine was busy. A
baseline of another machine or of other sizes is refused before anything is
measured, as is an existing file for --report."
)]
pub(crate) struct Benchmark {
    /// Everything; with --cache-hit, --keys, --embeddings, --search or --numa-local beside it, with
    /// these sizes
    #[arg(long, conflicts_with_all = ["base", "collection"])]
    pub(crate) all: bool,
    /// Lookups of a vector by key in each of the rounds
    #[arg(long, value_name = "N", value_parser = lookups)]
    pub(crate) cache_hit: Option<usize>,
    /// Texts of each length to turn into vectors, one by one and all at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) embeddings: Option<u32>,
    /// Reads of memory, and lookups of a vector by key, in each of the rounds
    #[arg(long, value_name = "N", value_parser = lookups)]
    pub(crate) numa_local: Option<usize>,
    /// Write a page for a browser, with tables and plots, to this file, which must not exist
    #[arg(long, value_name = "FILE.html")]
    pub(crate) report: Option<PathBuf>,
    /// Compare with this result, which --json wrote on this machine with the same sizes
    #[arg(long, value_name = "BASELINE.json")]
    pub(crate) compare: Option<PathBuf>,
    /// By how much a figure may be worse than in the baseline: machines are never quite alone
    #[arg(long, value_name = "PERCENT", default_value = "30", requires = "compare",
        value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) tolerance: u16,
    /// Vectors in each engine, several numbers for several runs [default: 100000]
    #[arg(long, value_name = "N,…", value_delimiter = ',', requires = "hits",
        value_parser = clap::value_parser!(u32).range(1..=100_000_000), help_heading = "Hits")]
    pub(crate) keys: Vec<u32>,
    /// Threads that look up at the same time, several numbers for several rows [default: 1; with
    /// --all also as many as there are CPUs, and powers of two between]
    #[arg(long, value_name = "N,…", value_delimiter = ',', requires = "hits",
        value_parser = threads_at_once, help_heading = "Hits")]
    pub(crate) threads_at_once: Vec<usize>,
    /// Where to make what is measured; the system's temporary directory unless told
    #[arg(long, value_name = "DIR", conflicts_with_all = ["base", "collection"])]
    pub(crate) directory: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) search: Search,
}

/// What to search, and how.
#[derive(Debug, Args)]
#[command(
    next_help_heading = "Searches",
    group = ArgGroup::new("searched").args(["base", "collection"]),
    group = ArgGroup::new("threaded").multiple(true).args(["all", "embeddings", "search"]),
)]
pub(crate) struct Search {
    /// Search so many vectors that are made, 50,000 unless told; or those of a file; or a collection,
    /// with so many of its vectors, 1,000 unless told
    #[arg(long, value_name = "N", num_args = 0..=1,
        value_parser = clap::value_parser!(u32).range(1..=10_000_000), help_heading = None)]
    pub(crate) search: Option<Option<u32>>,
    /// Ask the graph of this collection of the store
    #[arg(long, value_name = "NAME", requires = "search")]
    pub(crate) collection: Option<String>,
    /// The vectors: an npy file of 32-bit or 16-bit floats
    #[arg(long, value_name = "BASE.npy", requires_all = ["search", "index"])]
    pub(crate) base: Option<PathBuf>,
    /// Where the graph is, or is made
    #[arg(long, value_name = "DIR", requires = "base")]
    pub(crate) index: Option<PathBuf>,
    /// What to search for: an npy file; without it the graph is only made
    #[arg(long, value_name = "QUERIES.npy", requires = "base")]
    pub(crate) queries: Option<PathBuf>,
    /// What should be found, for the recall: "exact", to find out by comparing all, or a file as
    /// --ids writes it, or an array of whole numbers with a row for each query
    #[arg(long, value_name = "exact|FILE.i32|FILE.npy", requires = "queries")]
    pub(crate) truth: Option<Truth>,
    /// Vectors to find for each query [default: 10]
    #[arg(short, value_name = "N", value_parser = neighbours, requires = "search")]
    pub(crate) k: Option<usize>,
    /// Vertices that a search expands, several numbers for several rows
    #[arg(long, value_name = "N,…", value_delimiter = ',',
        default_value = "10,16,24,32,48,64,96,128,192,256", value_parser = effort,
        requires = "queries")]
    pub(crate) efforts: Vec<usize>,
    /// Instead of efforts: the part of the nearest to find, by the effort that the graph's calibration
    /// gives; several numbers for several rows. Of a collection 0.9,0.95,0.99 unless told, of vectors
    /// that are made also 0.8 and 0.999
    #[arg(long, value_name = "R,…", value_delimiter = ',', value_parser = super::query::recall,
        requires = "search", conflicts_with = "efforts")]
    pub(crate) recalls: Vec<f64>,
    /// Write what was found with the last effort here: numbers of vectors as little-endian i32, a row
    /// for each query
    #[arg(long, value_name = "OUT.i32", requires = "queries")]
    pub(crate) ids: Option<PathBuf>,
    /// How near two vectors are: cosine, euclidean or dot
    #[arg(long, value_name = "METRIC", default_value = "cosine", value_parser = metric,
        requires = "base")]
    pub(crate) metric: Metric,
    /// speed, or compact for a quarter of the memory
    #[arg(long, value_name = "PROFILE", default_value = "speed", value_parser = profile,
        requires = "base")]
    pub(crate) profile: Profile,
    /// Threads that make the graph of a file, and that share the queries, one unless told; those of
    /// the model where texts are embedded
    #[arg(long, value_name = "N", requires = "threaded")]
    pub(crate) threads: Option<NonZeroUsize>,
    /// How often to ask all queries
    #[arg(long, value_name = "N", default_value = "1", requires = "queries")]
    pub(crate) passes: NonZeroUsize,
}

/// Vectors to find unless told.
const NEIGHBOURS_COUNT: usize = 10;

impl Search {
    /// Vectors to find.
    pub(crate) fn neighbours_count(&self) -> usize {
        self.k.unwrap_or(NEIGHBOURS_COUNT)
    }

    /// Threads of searches.
    pub(crate) fn threads_count(&self) -> NonZeroUsize {
        self.threads.unwrap_or(NonZeroUsize::MIN)
    }
}

/// From where it is known what should be found.
#[derive(Clone, Debug)]
pub(crate) enum Truth {
    Exact,
    File(PathBuf),
}

impl From<std::ffi::OsString> for Truth {
    fn from(text: std::ffi::OsString) -> Self {
        if text == "exact" { Self::Exact } else { Self::File(text.into()) }
    }
}

fn lookups(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (1000..=100_000_000).contains(&count) => Ok(count),
        _ => Err("it must be a number from 1000, so that quantiles mean something".to_owned()),
    }
}

fn threads_at_once(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (1..=1024).contains(&count) => Ok(count),
        _ => Err("it must be a number from 1 to 1024".to_owned()),
    }
}

fn neighbours(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (1..=LIMIT_MAX).contains(&count) => Ok(count),
        _ => Err(format!("it must be a number from 1 to {LIMIT_MAX}")),
    }
}

fn effort(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (1..=1_000_000).contains(&count) => Ok(count),
        _ => Err("it must be a number from 1 to 1000000".to_owned()),
    }
}

pub(super) fn metric(text: &str) -> Result<Metric, String> {
    let all = [Metric::Cosine, Metric::Euclidean, Metric::Dot];
    let names = all.map(Metric::name).join(", ");
    all.into_iter().find(|known| known.name() == text).ok_or(format!("it must be one of {names}"))
}

pub(super) fn profile(text: &str) -> Result<Profile, String> {
    let all = Profile::ALL;
    let names = all.map(Profile::name).join(", ");
    all.into_iter().find(|known| known.name() == text).ok_or(format!("it must be one of {names}"))
}
