//! What a benchmark has found: as `--json` writes it, so `--compare` reads it.

use std::path::Path;

use op_dbus_benches::latency::Quantile;
use op_dbus_benches::{HitRow, IndexRow, NumaReport, SearchRow};
use op_dbus_engine::distance::kernels;
use op_dbus_engine::{Error as EngineError, ErrorKind, numa_nodes};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Grows when what is there gets another meaning or another name.
pub(super) const VERSION: u32 = 1;

/// Everything that was measured in one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Results {
    pub(super) benchmark_version: u32,
    pub(super) program: String,
    pub(super) measured_at_unix_ms: u64,
    pub(super) machine: Machine,
    pub(super) sizes: Sizes,
    #[serde(flatten)]
    pub(super) measured: Measured,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) not_measured: Vec<NotMeasured>,
}

/// What was asked for and could be measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Measured {
    /// A vector by key: a row for each engine, number of keys and number of threads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) cache_hit: Vec<HitRow>,
    /// Texts into vectors, by each provider that there is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) embeddings: Vec<Embeddings>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) numa_local: Option<NumaReport>,
    /// Searches of a collection, one that was made or one of the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) search: Option<Searches>,
    /// Searches of the vectors of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) search_file: Option<FileSearches>,
}

/// The machine, as far as it decides figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Machine {
    pub(super) cpu: String,
    /// Those that the program may use.
    pub(super) cpus: usize,
    /// The vector instructions that are used.
    pub(super) instructions: String,
    pub(super) memory_bytes: u64,
    pub(super) numa_nodes: usize,
    pub(super) system: String,
    pub(super) kernel: String,
}

/// How much was measured of what: figures of other sizes are other figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Sizes {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cache_hit: Option<HitSizes>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) embeddings: Option<EmbeddingSizes>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) numa_local: Option<NumaSizes>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) search: Option<SearchSizes>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct HitSizes {
    pub(super) lookups: usize,
    pub(super) keys: Vec<u32>,
    pub(super) threads: Vec<usize>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct EmbeddingSizes {
    pub(super) texts: usize,
    pub(super) model: String,
    pub(super) provider: String,
    pub(super) threads: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct NumaSizes {
    pub(super) lookups: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct SearchSizes {
    /// Whose vectors they are, or that they were made.
    pub(super) of: String,
    /// Vectors that were made, or questions of a collection.
    pub(super) count: Option<u32>,
    pub(super) k: usize,
    /// Recalls, or efforts.
    pub(super) asked: Vec<f64>,
    pub(super) threads: Vec<usize>,
}

/// What a provider takes for texts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Embeddings {
    pub(super) model: String,
    pub(super) provider: String,
    /// What the guide says of a text.
    pub(super) promised_ms: f64,
    pub(super) rows: Vec<EmbeddingRow>,
    /// A text whose embedding is known.
    pub(super) cached: CachedRow,
}

/// What texts of one length take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct EmbeddingRow {
    pub(super) texts: usize,
    pub(super) words: usize,
    /// Mean of a text.
    pub(super) tokens: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    /// ONNX Runtime alone with as many tokens, in turns with the whole.
    pub(super) runtime_p50_ms: f64,
    pub(super) texts_per_second: f64,
    pub(super) tokens_per_second: f64,
    /// Of the time of a text alone.
    pub(super) tokenizer_share: f64,
    pub(super) quantiles: Vec<Quantile>,
}

/// What it takes to get the embedding of a text that was embedded before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct CachedRow {
    /// Texts in the cache.
    pub(super) texts: usize,
    pub(super) p50_ns: f64,
    pub(super) p99_ns: f64,
    /// A vector as long, copied from a random place in memory.
    pub(super) copy_p50_ns: f64,
    pub(super) quantiles: Vec<Quantile>,
}

/// Searches of a collection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Searches {
    /// The collection; none if it was made for this.
    pub(super) collection: Option<String>,
    pub(super) vectors: u64,
    pub(super) dimensions: usize,
    pub(super) questions: usize,
    pub(super) k: usize,
    /// All vectors compared.
    pub(super) exact: CollectionRow,
    pub(super) rows: Vec<CollectionRow>,
}

/// What answers to all questions were, and what they cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct CollectionRow {
    pub(super) plan: String,
    pub(super) threads: usize,
    pub(super) asked_recall: f64,
    pub(super) recall: f64,
    pub(super) qps_cpu: f64,
    pub(super) qps_wall: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) expanded: f64,
    pub(super) full_hot: f64,
    pub(super) full_cold: f64,
    pub(super) quantiles: Vec<Quantile>,
}

/// Searches of the vectors of a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct FileSearches {
    pub(super) base: String,
    pub(super) k: usize,
    pub(super) index: IndexRow,
    pub(super) rows: Vec<SearchRow>,
}

/// What cannot be measured here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NotMeasured {
    pub(super) what: String,
    pub(super) why: String,
    pub(super) remedy: Option<String>,
}

impl Results {
    /// Reads what `--json` has written.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).map_err(|error| Error::io("read", path, error))?;
        let refused = |problem: String| {
            let context = format!("{} is no result of a benchmark: {problem}", path.display());
            EngineError::new(ErrorKind::Invalid, context)
                .with_remedy("make one on this machine: op-dbus benchmark --all --json > FILE")
        };
        // The version first: what another one lacks is no damage.
        let Version { benchmark_version } =
            serde_json::from_slice(&text).map_err(|error| refused(told(&error)))?;
        if benchmark_version != VERSION {
            let context = format!(
                "{} is of version {benchmark_version}, and this program reads {VERSION}",
                path.display()
            );
            return Err(EngineError::new(ErrorKind::Unsupported, context)
                .with_remedy("make one with this program: op-dbus benchmark --all --json > FILE")
                .into());
        }
        Ok(serde_json::from_slice(&text).map_err(|error| refused(told(&error)))?)
    }
}

#[derive(Deserialize)]
struct Version {
    benchmark_version: u32,
}

/// What is wrong, and where.
fn told(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let problem = text.strip_suffix(&place).unwrap_or(&text);
    format!("line {}, column {}: {problem}", error.line(), error.column())
}

impl Machine {
    /// This one.
    pub(super) fn here() -> Self {
        let field = |path: &str, name: &str, separator: char| {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let value = text.lines().find_map(|line| {
                let (key, value) = line.split_once(separator)?;
                (key.trim() == name).then(|| value.trim().trim_matches('"').to_owned())
            });
            value.unwrap_or_default()
        };
        let unless = |found: String, otherwise: &str| {
            if found.is_empty() { otherwise.to_owned() } else { found }
        };
        let memory = field("/proc/meminfo", "MemTotal", ':');
        let memory_kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or(0);
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            // ARM does not tell a name there.
            cpu: unless(field("/proc/cpuinfo", "model name", ':'), std::env::consts::ARCH),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            instructions: kernels().name.to_owned(),
            memory_bytes: memory_kib << 10,
            numa_nodes: numa_nodes().map_or(1, |nodes| nodes.len()),
            system: unless(field("/etc/os-release", "PRETTY_NAME", '='), "Linux"),
            kernel: kernel.trim().to_owned(),
        }
    }

    /// In a line.
    pub(super) fn title(&self) -> String {
        let plural = if self.cpus == 1 { "" } else { "s" };
        format!("{} ({} CPU{plural}, {})", self.cpu, self.cpus, self.instructions)
    }
}
