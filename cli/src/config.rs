//! From raw arguments and the environment to what commands use.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use op_dbus_daemon::Bus;
use op_dbus_engine::{
    EmbedderConfig, Error as EngineError, ErrorKind, NumaConfig, NumaPolicy, PolicyKind, Provider,
    Snapshots, Store, StoreConfig, StorePart, store_address,
};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::args::{At, Btrfs, CONFIG_VARIABLE, Global, LogLevel, Moment, Numa};
use crate::client::Client;
use crate::error::{Error, Result};
use crate::journal::Journal;
use crate::settings::{PREFIX, settables};
use crate::source::Source;

const MODELS: &str = "models";
const MODEL: &str = "all-MiniLM-L6-v2";

/// What the global options and variables come to.
#[derive(Clone)]
pub(crate) struct Config {
    given: Vec<OsString>,
    settings: Option<PathBuf>,
    store: PathBuf,
    bus: Option<Bus>,
    is_bus_said: bool,
    embedder: EmbedderConfig,
    is_model_enabled: bool,
    is_model_chosen: bool,
    capacity_bytes: Option<u64>,
    cache_disk_bytes: Option<u64>,
    policy: PolicyKind,
    numa: NumaConfig,
    subvolumes: Vec<StorePart>,
    log_level: Option<tracing::Level>,
}

impl Config {
    /// Of the command line `given`, which can be read again.
    pub(crate) fn resolve(global: &Global, given: &[OsString]) -> Result<Self> {
        refuse_unknown_variables()?;
        let said = global.said;
        let provider = global.provider;
        let model = global.model.clone().unwrap_or_else(|| find_model(&global.store));
        let threads_count = global.threads;
        let embedder = EmbedderConfig {
            provider,
            threads_count,
            device_id: global.gpu_device_id,
            device_memory_max_bytes: global.gpu_memory_max_gb.map(|bytes| bytes as usize),
            engine_cache_dir: engine_cache(&global.store),
            ..EmbedderConfig::new(model)
        };
        let log_level = global.log_level.map(|level| match level {
            LogLevel::Error => tracing::Level::ERROR,
            LogLevel::Warn => tracing::Level::WARN,
            LogLevel::Info => tracing::Level::INFO,
            LogLevel::Debug => tracing::Level::DEBUG,
            LogLevel::Trace => tracing::Level::TRACE,
        });
        Ok(Self {
            given: given.to_vec(),
            settings: global.config.clone(),
            store: global.store.clone(),
            // Whoever names a store means that one, and not the service that others are to ask.
            bus: global.bus.clone().filter(|_| said.bus || !said.store),
            is_bus_said: said.bus,
            embedder,
            is_model_enabled: global.ml_enable,
            is_model_chosen: global.model.is_some() || provider != Provider::default(),
            capacity_bytes: global.cache_max_size_gb,
            cache_disk_bytes: global.cache_disk_max_gb,
            policy: global.cache_policy,
            numa: numa(&global.numa)?,
            subvolumes: subvolumes(&global.btrfs),
            log_level,
        })
    }

    /// The command line.
    pub(crate) fn given(&self) -> &[OsString] {
        &self.given
    }

    /// The file of settings, if one was named.
    pub(crate) fn settings_path(&self) -> Option<&Path> {
        self.settings.as_deref()
    }

    /// Sends the log to standard error, or a service's to the journal if standard error goes there.
    /// Returns whether it goes to the journal. A second call changes nothing.
    pub(crate) fn start_log(&self, is_service: bool) -> bool {
        // Whoever looks after a service wants to know that it has begun, and with what.
        let unless_told = if is_service { tracing::Level::INFO } else { tracing::Level::WARN };
        let level = LevelFilter::from_level(self.log_level.unwrap_or(unless_told));
        if let Some(journal) = is_service.then(Journal::of_stderr).flatten() {
            let _ = tracing_subscriber::registry().with(journal.with_filter(level)).try_init();
            return true;
        }
        let _ = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .without_time()
            .try_init();
        false
    }

    /// Lets threads of this process run where they should. It has nothing else to do than what its
    /// store does.
    pub(crate) fn bind_threads(&self) -> Result<()> {
        Ok(self.numa.bind_this_thread()?)
    }

    /// The directories that are made as subvolumes.
    pub(crate) fn subvolumes(&self) -> &[StorePart] {
        &self.subvolumes
    }

    /// How NUMA nodes are used.
    pub(crate) fn numa(&self) -> &NumaConfig {
        &self.numa
    }

    /// What models are opened with.
    pub(crate) fn embedder(&self) -> &EmbedderConfig {
        &self.embedder
    }

    /// Whether texts become vectors at all.
    pub(crate) fn is_model_enabled(&self) -> bool {
        self.is_model_enabled
    }

    /// Whether the user has said which model, or what runs it.
    pub(crate) fn is_model_chosen(&self) -> bool {
        self.is_model_chosen
    }

    /// The directories that models are looked for in, first place first.
    pub(crate) fn model_places(&self) -> Vec<PathBuf> {
        model_places(&self.store)
    }

    /// The directory that models of the user are installed in, or of the system if there is no user's.
    pub(crate) fn user_models(&self) -> PathBuf {
        self.model_places().swap_remove(1)
    }

    /// Opens the store, making it if it is missing.
    pub(crate) fn open_or_create(&self) -> Result<Store> {
        self.alone(self.store_config())
    }

    /// Opens the store, making it if it is missing, for long: what was hot becomes hot again.
    pub(crate) fn open_warm(&self) -> Result<Store> {
        Ok(Store::open(self.warm_store_config())?)
    }

    /// The service to ask, if one was named.
    pub(crate) fn bus(&self) -> Option<&Bus> {
        self.bus.as_ref()
    }

    /// Connects to the service: the one that was named, that has the store open, or the system's.
    pub(crate) fn any_service(&self) -> Result<Client> {
        Client::connect(&self.service_bus())
    }

    /// Where that is.
    pub(crate) fn service_bus(&self) -> Bus {
        self.bus.clone().or_else(|| self.holder()).unwrap_or(Bus::System)
    }

    /// Opens the store to read it, or finds who has it open and can be asked.
    pub(crate) fn open_or_ask(&self, at: &At) -> Result<Source> {
        if at.at.is_none() {
            return self.or_ask(|| self.open_at(at));
        }
        if self.is_bus_said {
            return Err(Error::Usage {
                problem: "--at asks a snapshot where it lies, and --bus the service".to_owned(),
                remedy: Some("leave one of them out".to_owned()),
            });
        }
        Ok(Source::Store(Box::new(self.open_at(at)?)))
    }

    /// Opens the store to change it, or finds who has it open and can be asked.
    pub(crate) fn change_or_ask(&self) -> Result<Source> {
        self.or_ask(|| Ok(Store::open(self.store_config().existing())?))
    }

    /// The same of a store that is made if it is missing.
    pub(crate) fn create_or_ask(&self) -> Result<Source> {
        self.or_ask(|| Ok(Store::open(self.store_config())?))
    }

    fn or_ask(&self, open: impl FnOnce() -> Result<Store>) -> Result<Source> {
        if let Some(bus) = &self.bus {
            return Ok(Source::Service(Client::connect(bus)?));
        }
        match open() {
            Err(Error::Engine(error)) if error.kind() == ErrorKind::Busy => match self.holder() {
                Some(bus) => Ok(Source::Service(Client::connect(&bus)?)),
                None => Err(error.into()),
            },
            opened => Ok(Source::Store(Box::new(opened?))),
        }
    }

    /// The service, if one was named or has the store open.
    pub(crate) fn service(&self) -> Result<Option<Client>> {
        self.bus.clone().or_else(|| self.holder()).map(|bus| Client::connect(&bus)).transpose()
    }

    /// Where to ask whoever has the store open.
    pub(crate) fn holder(&self) -> Option<Bus> {
        store_address(&self.store)?.parse().ok()
    }

    /// Opens the store to change it, which must exist.
    pub(crate) fn open(&self) -> Result<Store> {
        self.alone(self.store_config().existing())
    }

    /// Opens the store for what its service cannot be asked to do.
    fn alone(&self, config: StoreConfig) -> Result<Store> {
        self.ask_nobody()?;
        Store::open(config).map_err(Self::needed_alone)
    }

    /// Opens the store, or the snapshot that is asked for, to read what its service does not tell.
    pub(crate) fn open_at_alone(&self, at: &At) -> Result<Store> {
        self.ask_nobody()?;
        self.open_at(at).map_err(|error| match error {
            Error::Engine(error) => Self::needed_alone(error),
            error => error,
        })
    }

    /// Refuses to be told whom to ask.
    ///
    /// # Errors
    /// [`Error::Usage`] if the command line says so.
    pub(crate) fn ask_nobody(&self) -> Result<()> {
        if !self.is_bus_said {
            return Ok(());
        }
        Err(Error::Usage {
            problem: "this command works on the store itself, and asks nobody".to_owned(),
            remedy: Some("leave out --bus, and end the service that has the store".to_owned()),
        })
    }

    /// What is said where somebody has the store open.
    fn needed_alone(error: EngineError) -> Error {
        match error.kind() {
            ErrorKind::Busy => error
                .with_remedy("this command needs the store for itself: wait, or end the service")
                .into(),
            _ => error.into(),
        }
    }

    /// Opens the store, or the snapshot that is asked for, to read it: asking must not create.
    pub(crate) fn open_at(&self, at: &At) -> Result<Store> {
        let snapshots = self.snapshots();
        let snapshot = match &at.at {
            None => return Ok(Store::open(self.store_config().to_read())?),
            Some(Moment::Name(name)) => snapshots.named(name)?,
            Some(Moment::UnixMs(unix_ms)) => snapshots.at(*unix_ms)?,
        };
        Ok(Store::open(self.store_config().at_snapshot(&snapshot))?)
    }

    /// The directory of the store.
    pub(crate) fn store(&self) -> &Path {
        &self.store
    }

    /// The snapshots of the store.
    pub(crate) fn snapshots(&self) -> Snapshots {
        Snapshots::of(&self.store)
    }

    fn store_config(&self) -> StoreConfig {
        self.warm_store_config().cold()
    }

    fn warm_store_config(&self) -> StoreConfig {
        let config = StoreConfig::new(&self.store)
            .with_policy(self.policy)
            .with_numa(self.numa.clone())
            .with_subvolumes(self.subvolumes.clone());
        let config = match self.is_model_enabled {
            true => config.with_embedder(self.embedder.clone()),
            false => config,
        };
        let config = match self.capacity_bytes {
            Some(capacity_bytes) => config.with_capacity_bytes(capacity_bytes),
            None => config,
        };
        match self.cache_disk_bytes {
            Some(cache_disk_bytes) => config.with_cache_disk_bytes(cache_disk_bytes),
            None => config,
        }
    }
}

/// The directories that are made as subvolumes.
fn subvolumes(told: &Btrfs) -> Vec<StorePart> {
    if told.btrfs_enable { told.btrfs_subvolumes.clone() } else { Vec::new() }
}

/// On one node unless told otherwise, and not at all if nothing is told.
fn numa(told: &Numa) -> Result<NumaConfig> {
    let is_told =
        told.numa_policy.is_some() || told.numa_node.is_some() || told.numa_cpu_list.is_some();
    if !told.numa_enable.unwrap_or(is_told) {
        return Ok(NumaConfig::default());
    }
    let has_list = told.numa_node.is_some() || told.numa_cpu_list.is_some();
    if told.numa_policy == Some(NumaPolicy::Off) && has_list {
        return Err(Error::Usage {
            problem: "the NUMA policy off goes with no nodes and no CPUs".to_owned(),
            remedy: Some("leave them out, or use another policy".to_owned()),
        });
    }
    let config = NumaConfig::new(told.numa_policy.unwrap_or(NumaPolicy::Bind));
    let nodes = told.numa_node.clone().unwrap_or(config.nodes);
    Ok(NumaConfig { nodes, cpus: told.numa_cpu_list.clone(), ..config })
}

/// A misspelt variable must not be silence.
fn refuse_unknown_variables() -> Result<()> {
    let names = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    let ours: Vec<String> = names.filter(|name| name.starts_with(PREFIX)).collect();
    if ours.is_empty() {
        return Ok(());
    }
    let mut known: Vec<String> = settables().into_values().map(|it| it.variable).collect();
    known.push(CONFIG_VARIABLE.to_owned());
    match ours.iter().find(|name| !known.contains(name)) {
        None => Ok(()),
        Some(name) => Err(Error::Usage {
            problem: format!("the environment variable {name} means nothing here"),
            remedy: Some(format!("unset it, or use one of {}", known.join(", "))),
        }),
    }
}

/// Where TensorRT keeps what it builds, which can be built again: in a store that is there.
fn engine_cache(store: &Path) -> Option<PathBuf> {
    let cache = store.join("@cache");
    cache.is_dir().then(|| cache.join("engines"))
}

/// The model's directory: the first place that has one, or the first that is no store's.
fn find_model(store: &Path) -> PathBuf {
    let places = model_places(store);
    let found = places.iter().map(|place| place.join(MODEL)).find(|path| has_model(path));
    found.unwrap_or_else(|| places[1].join(MODEL))
}

pub(crate) fn has_model(directory: &Path) -> bool {
    directory.join("model.onnx").exists()
}

/// The directories that models are looked for in: of the store, of the user, of the system, and the one
/// that this program was installed with.
fn model_places(store: &Path) -> Vec<PathBuf> {
    // A relative one does not count: whoever wrote the current directory would choose the model.
    let data_home = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
    let data_home = data_home.filter(|path| path.is_absolute()).or_else(|| {
        let home = PathBuf::from(std::env::var_os("HOME")?);
        Some(home.join(".local/share"))
    });
    let of_user = data_home.map(|data| data.join("op-dbus").join(MODELS));
    let of_system = PathBuf::from("/usr/share/op-dbus").join(MODELS);
    let first = [Some(store.join(MODELS)), of_user, Some(of_system)];
    let mut places: Vec<PathBuf> = first.into_iter().flatten().collect();
    // Where no package is installed below /usr, each has a prefix of its own.
    let executable = std::env::current_exe().ok();
    let beside = executable.and_then(|path| Some(path.parent()?.parent()?.join("share/op-dbus")));
    places.extend(beside.map(|path| path.join(MODELS)).filter(|path| !places.contains(path)));
    places
}
