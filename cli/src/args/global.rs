//! The options of every command.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, ValueEnum};
use op_dbus_daemon::Bus;
use op_dbus_engine::{PolicyKind, Provider};

use super::layout::Btrfs;
use super::numa::Numa;

/// What the command line itself says, and not only its surroundings: variables, and the file of settings.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Said {
    pub(crate) store: bool,
    pub(crate) bus: bool,
}

impl Said {
    pub(crate) fn in_matches(matches: &ArgMatches) -> Self {
        let is_said = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
        Self { store: is_said("store"), bus: is_said("bus") }
    }
}

/// Options of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// File of settings, for whatever is told neither here nor by a variable [default:
    /// /etc/operation-dbus/config.toml, if it is there]
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = super::CONFIG_VARIABLE,
        hide_env_values = true
    )]
    pub(crate) config: Option<PathBuf>,
    /// Directory of the store
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "OPDBUS_BTRFS_BASE_PATH",
        hide_env_values = true,
        default_value = "/var/lib/op-dbus"
    )]
    pub(crate) store: PathBuf,
    /// Ask the service instead of opening the store: system, session, or the address of a bus
    ///
    /// socket:PATH is a service without a bus. Unless told, the store is opened, and if the service
    /// has it open, that is asked.
    #[arg(
        long,
        global = true,
        value_name = "BUS",
        env = "OPDBUS_BUS",
        hide_env_values = true,
        value_parser = super::daemon::bus
    )]
    pub(crate) bus: Option<Bus>,
    /// Which of them the command line says.
    #[arg(skip)]
    pub(crate) said: Said,
    /// Whether texts become vectors by a model; without one, records and queries with texts are refused
    #[arg(
        long,
        global = true,
        value_name = "true|false",
        env = "OPDBUS_ML_ENABLE",
        hide_env_values = true,
        hide_short_help = true,
        default_value = "true",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        action = clap::ArgAction::Set,
        value_parser = BoolishValueParser::new()
    )]
    pub(crate) ml_enable: bool,
    /// Directory of the embedding model: model.onnx and tokenizer.json
    ///
    /// Without it, models/all-MiniLM-L6-v2 in the store is tried, then in the data directory
    /// (~/.local/share/op-dbus), where `make setup` puts it.
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "OPDBUS_ML_MODEL_PATH",
        hide_env_values = true
    )]
    pub(crate) model: Option<PathBuf>,
    /// What runs the model: cpu, cuda, tensorrt, or auto for cuda if it can be used and cpu otherwise
    ///
    /// cuda and tensorrt need the library of a GPU build of ONNX Runtime. What is asked for is what
    /// runs: there is no other in its place. With --log-level info, ML_PROVIDER= says which it is.
    #[arg(
        long,
        global = true,
        value_name = "PROVIDER",
        env = "OPDBUS_ML_EXECUTION_PROVIDER",
        hide_env_values = true,
        default_value = "cpu",
        value_parser = provider
    )]
    pub(crate) provider: Provider,
    /// Which card runs the model, by the number that nvidia-smi shows; nothing to the CPU
    #[arg(
        long,
        global = true,
        value_name = "N",
        env = "OPDBUS_ML_GPU_DEVICE_ID",
        hide_env_values = true,
        default_value_t = 0
    )]
    pub(crate) gpu_device_id: u32,
    /// Most memory of the card that the model may take; as much as it needs unless told
    #[arg(
        long,
        global = true,
        value_name = "GB",
        env = "OPDBUS_ML_GPU_MEMORY_MAX_GB",
        hide_env_values = true,
        value_parser = gigabytes
    )]
    pub(crate) gpu_memory_max_gb: Option<u64>,
    /// Threads that run the model; all CPUs unless told
    #[arg(
        long,
        global = true,
        value_name = "N",
        env = "OPDBUS_ML_NUM_THREADS",
        hide_env_values = true,
        value_parser = super::threads
    )]
    pub(crate) threads: Option<NonZeroUsize>,
    /// Memory for hot vectors and the databases' buffers; a quarter of the machine's unless told
    ///
    /// Where a control group limits memory, 70 % of its limit is the most.
    #[arg(
        long,
        global = true,
        value_name = "GB",
        env = "OPDBUS_CACHE_MAX_SIZE_GB",
        hide_env_values = true,
        value_parser = gigabytes
    )]
    pub(crate) cache_max_size_gb: Option<u64>,
    /// Disk for cached embeddings of texts, of which the oldest leave; no limit unless told
    #[arg(
        long,
        global = true,
        value_name = "GB",
        env = "OPDBUS_CACHE_DISK_MAX_GB",
        hide_env_values = true,
        value_parser = gigabytes
    )]
    pub(crate) cache_disk_max_gb: Option<u64>,
    /// Who leaves memory when it is full: lru, s3fifo or tinylfu
    #[arg(
        long,
        global = true,
        value_name = "POLICY",
        env = "OPDBUS_CACHE_POLICY",
        hide_env_values = true,
        default_value = "lru",
        value_parser = policy
    )]
    pub(crate) cache_policy: PolicyKind,
    /// What is logged to standard error [default: warn; info for the service]
    #[arg(
        long,
        global = true,
        value_name = "LEVEL",
        env = "OPDBUS_LOG_LEVEL",
        hide_env_values = true
    )]
    pub(crate) log_level: Option<LogLevel>,
    /// Write JSON: the answer on standard output, an error on standard error
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) btrfs: Btrfs,
    #[command(flatten)]
    pub(crate) numa: Numa,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

fn provider(text: &str) -> Result<Provider, String> {
    text.parse().map_err(|_| "it must be cpu, cuda, tensorrt or auto".to_owned())
}

/// Decimal gigabytes, as bytes. Less than 16 MB would hold nothing beside the databases' buffers.
fn gigabytes(text: &str) -> Result<u64, String> {
    const BYTES: f64 = 1e9;
    match text.parse::<f64>() {
        Ok(count) if (0.016..=1e6).contains(&count) => Ok((count * BYTES) as u64),
        _ => Err("it must be a number of gigabytes from 0.016".to_owned()),
    }
}

pub(super) fn policy(text: &str) -> Result<PolicyKind, String> {
    text.parse().map_err(|_| {
        let names = PolicyKind::ALL.map(|policy| policy.to_string());
        format!("it must be one of {}", names.join(", "))
    })
}
