//! Texts to embeddings: the model, its tokenizer and the session that runs it.
//!
//! | file | noun |
//! |---|---|
//! | `model` | a directory: which files, what they promise, their fingerprint |
//! | `settings` | the small JSON files beside it |
//! | `runtime` | the ONNX Runtime library: one per process |
//! | `pinned` | the hashes of a model's files, and copies that have them |
//! | `quantize` | a model of eight bits beside that of 32 |
//! | `provider` | which hardware runs it |
//! | `tokenize`, `session`, `pooling` | text → tokens → output → vector |
//! | `queue`, `batch` | whose turn it is, and who runs together |
//! | `sessions` | the work of those who wait |
//! | `alone` | the model with nothing around it, to measure what that costs |
//!
//! Invariants: opening is cheap and loads no library; the first text, or
//! [`Embedder::load`], does. The provider that was asked for is the one that runs. Every
//! vector has length 1 and the model's dimensions; a model that gives anything else
//! is an error, never a stored vector.
//!
//! Deliberately not here: caching (the store's).

mod alone;
mod batch;
mod model;
mod pinned;
mod pooling;
mod provider;
mod quantize;
mod queue;
mod runtime;
mod session;
mod sessions;
mod settings;
mod tokenize;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use op_dbus_formats::collection::ModelFingerprint;
use serde::Serialize;

use self::model::{Model, Pooling};
use self::provider::Device;
use self::session::Session;
use self::sessions::Sessions;
use self::settings::TokenPooling;
use self::tokenize::Tokenizer;
use crate::arena::Placement;
use crate::error::{Error, ErrorKind, Result};

pub use self::alone::ModelAlone;
pub use self::model::KnownModel;
pub use self::pinned::ModelFile;
pub use self::provider::Provider;
pub use self::quantize::QuantizedModel;
pub use self::runtime::forbid_telemetry;

/// Which model to use, and on what.
#[derive(Clone, Debug)]
pub struct EmbedderConfig {
    /// The directory with `model.onnx` and `tokenizer.json`.
    pub model_dir: PathBuf,
    /// The ONNX Runtime library; `None` to look for it.
    pub runtime_library: Option<PathBuf>,
    /// The hardware that runs the model.
    pub provider: Provider,
    /// Threads that run the model; `None` for all that this process may use.
    ///
    /// A session has all of them; up to four more share them once there are many texts. Each
    /// takes about the model file's size in memory.
    pub threads_count: Option<NonZeroUsize>,
    /// Which card, by the number that `nvidia-smi` shows; nothing to the processor.
    pub device_id: u32,
    /// Most memory of the card to take; as much as is needed unless given.
    pub device_memory_max_bytes: Option<usize>,
    /// Where TensorRT keeps what it builds, which takes minutes; nowhere unless given.
    pub engine_cache_dir: Option<PathBuf>,
}

impl EmbedderConfig {
    /// The model in this directory, on the processor, with all threads.
    #[must_use]
    pub fn new(model_dir: impl Into<PathBuf>) -> Self {
        Self {
            model_dir: model_dir.into(),
            runtime_library: None,
            provider: Provider::default(),
            threads_count: None,
            device_id: 0,
            device_memory_max_bytes: None,
            engine_cache_dir: None,
        }
    }
}

/// The embedding of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    /// The vector, of length 1.
    pub vector: Vec<f32>,
    /// Tokens the model saw, special tokens included.
    pub tokens_count: usize,
    /// Whether the text was longer than the model can see.
    pub truncated: bool,
}

/// What a model takes and gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelOutline {
    /// Where its files are.
    pub directory: PathBuf,
    /// The output that becomes the vector.
    pub output: String,
    /// How it becomes one for each text.
    pub pooling: &'static str,
    /// Whether it takes token types, which are all 0.
    pub takes_token_types: bool,
    /// Tokens a text can have, special tokens included.
    pub max_tokens: usize,
    /// Length of the vectors, if its files declare it.
    pub dimensions: Option<u32>,
}

/// A model that turns texts into vectors.
///
/// Shared by reference between threads. One process can have several, of one ONNX
/// Runtime library.
pub struct Embedder {
    config: EmbedderConfig,
    model: Model,
    fingerprint: ModelFingerprint,
    dimensions: OnceLock<u32>,
    loaded: OnceLock<Sessions>,
    /// Held while loading, so that two callers do not load twice.
    loading: Mutex<()>,
    /// Where threads that run it do so.
    placement: Arc<Placement>,
}

impl Embedder {
    /// Opens the model in a directory without loading it.
    ///
    /// `known` is what [`Embedder::known`] said last time, if that was kept.
    /// Cost: reads the model once for its fingerprint, unless `known` is still true.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the directory or a file is missing;
    /// [`ErrorKind::Corrupt`] if a file is cut off or of another kind;
    /// [`ErrorKind::Unsupported`] for a model that this version cannot run;
    /// [`ErrorKind::Denied`] if the model takes data from outside its directory;
    /// [`ErrorKind::Invalid`] if its files contradict each other; [`ErrorKind::Busy`]
    /// if they change meanwhile.
    pub fn open(config: &EmbedderConfig, known: Option<KnownModel>) -> Result<Self> {
        let model = Model::open(&config.model_dir)?;
        let known = known.filter(|known| known.files_identity == model.files_identity);
        let fingerprint = match known {
            Some(known) => known.fingerprint,
            None => model.fingerprint()?,
        };
        let dimensions = OnceLock::new();
        if let Some(declared) =
            model.declared_dimensions.or(known.and_then(|known| known.dimensions))
        {
            dimensions.get_or_init(|| declared);
        }
        Ok(Self {
            config: config.clone(),
            model,
            fingerprint,
            dimensions,
            loaded: OnceLock::new(),
            loading: Mutex::new(()),
            placement: Arc::default(),
        })
    }

    /// Runs where threads of a store do.
    pub(crate) fn placed(self, placement: Arc<Placement>) -> Self {
        Self { placement, ..self }
    }

    /// The name of the model: that of its directory.
    #[must_use]
    pub fn name(&self) -> &str {
        self.model.name()
    }

    /// The hash of everything that decides what vector a text gets: the bytes of the
    /// model and its tokenizer, the pooling, the normalisation and the token limit.
    #[must_use]
    pub fn fingerprint(&self) -> ModelFingerprint {
        self.fingerprint
    }

    /// What to keep for the next [`Embedder::open`].
    #[must_use]
    pub fn known(&self) -> KnownModel {
        KnownModel {
            files_identity: self.model.files_identity,
            fingerprint: self.fingerprint,
            dimensions: self.dimensions.get().copied(),
        }
    }

    /// Tokens a text can have, special tokens included; more are cut off.
    #[must_use]
    pub fn max_tokens(&self) -> usize {
        self.model.settings.max_tokens
    }

    /// The length of the vectors.
    ///
    /// Cost: none if the model's files declare it, else the model is loaded and run once.
    ///
    /// # Errors
    /// Those of [`Embedder::embed`].
    pub fn dimensions(&self) -> Result<u32> {
        if let Some(&dimensions) = self.dimensions.get() {
            return Ok(dimensions);
        }
        let embeddings = self.embed(&["dimensions"])?;
        let len = embeddings.first().map_or(0, |embedding| embedding.vector.len());
        self.check_dimensions(len)
    }

    /// Loads the model now rather than with the first text.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if there is no usable ONNX Runtime library, or it cannot use the
    /// provider that was asked for; [`ErrorKind::Corrupt`], [`ErrorKind::Unsupported`] or
    /// [`ErrorKind::Invalid`] if the tokenizer or the runtime refuses its file; [`ErrorKind::Busy`]
    /// if a file has changed since the model was opened.
    pub fn load(&self) -> Result<()> {
        self.loaded().map(drop)
    }

    /// Returns the embeddings of `texts`, in their order.
    ///
    /// Texts may be any number and any length; the work per text is bounded by
    /// [`Embedder::max_tokens`]. Texts of like length run together, also those of other callers, and
    /// callers take turns batch by batch.
    /// Cost: the first call loads the model.
    ///
    /// # Errors
    /// Those of [`Embedder::load`]; [`ErrorKind::Invalid`] if the tokenizer or the model
    /// refuses a text; [`ErrorKind::Corrupt`] if the model gives no usable vector.
    pub fn embed(&self, texts: &[&str]) -> Result<Vec<Embedding>> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let _visit = self.placement.visit();
        let embeddings = self.loaded()?.embed(texts)?;
        for embedding in &embeddings {
            self.check_dimensions(embedding.vector.len())?;
        }
        Ok(embeddings)
    }

    /// Tokens that the model sees of a text, special tokens included.
    ///
    /// Cost: the first call loads the model.
    ///
    /// # Errors
    /// Those of [`Embedder::load`]; [`ErrorKind::Invalid`] if the tokenizer refuses the text.
    pub fn tokens_count(&self, text: &str) -> Result<usize> {
        self.loaded()?.tokens_count(text)
    }

    /// Loads the model once more, to be run with nothing around it.
    ///
    /// # Errors
    /// Those of [`Embedder::load`].
    pub fn alone(&self) -> Result<ModelAlone> {
        self.loaded()?.alone()
    }

    /// What is known of the model without loading it.
    #[must_use]
    pub fn outline(&self) -> ModelOutline {
        let model = &self.model;
        ModelOutline {
            directory: model.directory.clone(),
            output: model.output.clone(),
            pooling: match model.pooling {
                Pooling::Model => "by the model",
                Pooling::Tokens(TokenPooling::Mean) => "mean of the tokens",
                Pooling::Tokens(TokenPooling::First) => "first token",
            },
            takes_token_types: model.takes_token_types,
            max_tokens: model.settings.max_tokens,
            dimensions: self.dimensions.get().copied(),
        }
    }

    /// What runs the model, once it is loaded.
    #[must_use]
    pub fn running_provider(&self) -> Option<Provider> {
        self.loaded.get().map(Sessions::provider)
    }

    /// Checks a vector's length against the model's, which the first vector may decide.
    fn check_dimensions(&self, len: usize) -> Result<u32> {
        let dimensions = *self.dimensions.get_or_init(|| u32::try_from(len).unwrap_or(0));
        if len == 0 || usize::try_from(dimensions) != Ok(len) {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "{} gives vectors of {len} dimensions instead of {dimensions}",
                    self.model.model_path().display()
                ),
            )
            .with_remedy("take model.onnx and config.json from the same model"));
        }
        Ok(dimensions)
    }

    fn loaded(&self) -> Result<&Sessions> {
        if let Some(loaded) = self.loaded.get() {
            return Ok(loaded);
        }
        let _loading = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = self.loaded.get() {
            return Ok(loaded);
        }
        let loaded = self.load_first()?;
        Ok(self.loaded.get_or_init(|| loaded))
    }

    fn load_first(&self) -> Result<Sessions> {
        let started = std::time::Instant::now();
        // Threads that the runtime starts meanwhile stay.
        let _visit = self.placement.visit();
        let threads_count = match self.config.threads_count {
            Some(count) => count,
            None => std::thread::available_parallelism().map_err(|source| {
                Error::new(ErrorKind::Io, "cannot count this process's processors")
                    .with_remedy("set the number of threads")
                    .with_source(source)
            })?,
        };
        let runtime = runtime::open(self.config.runtime_library.as_deref())?;
        let sessions = self.load_sessions(runtime, threads_count)?;
        tracing::info!(
            model = self.name(),
            runtime = format_args!("1.{}", runtime.library.minor_version),
            library = %runtime.library.path.display(),
            threads = threads_count,
            elapsed_ms = started.elapsed().as_millis() as u64,
            "ML_PROVIDER={}",
            sessions.provider(),
        );
        Ok(sessions)
    }

    /// Loads the model on what was asked for, or the first of several that can be used.
    fn load_sessions(
        &self,
        runtime: &'static runtime::Runtime,
        threads_count: NonZeroUsize,
    ) -> Result<Sessions> {
        let load = |provider| {
            let device = Device {
                provider,
                id: self.config.device_id,
                memory_max_bytes: self.config.device_memory_max_bytes,
                engine_cache_dir: self.config.engine_cache_dir.clone(),
                max_tokens: self.max_tokens(),
                takes_token_types: self.model.takes_token_types,
            };
            let session = Session::load(runtime, &self.model, &device, threads_count)?;
            Ok((device, session))
        };
        let first = match self.config.provider {
            Provider::Auto => load(Provider::Cuda).or_else(|error: Error| {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::info!(%error, cause, "the processor runs the model");
                load(Provider::Cpu)
            })?,
            provider => load(provider)?,
        };
        let model = &self.model;
        let tokenizer = Tokenizer::load(&model.tokenizer_path(), &model.settings)?;
        Ok(Sessions::new(runtime, model, first, tokenizer, threads_count))
    }
}

impl std::fmt::Debug for Embedder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedder")
            .field("config", &self.config)
            .field("fingerprint", &self.fingerprint)
            .field("loaded", &self.loaded.get().is_some())
            .finish_non_exhaustive()
    }
}
