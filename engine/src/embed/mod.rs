//! Texts to embeddings: the model, its tokenizer and the session that runs it.
//!
//! | file | noun |
//! |---|---|
//! | `model` | a directory: which files, what they promise, their fingerprint |
//! | `onnx` | the outline of an ONNX file, read without trusting it |
//! | `settings` | the small JSON files beside it |
//! | `runtime` | the ONNX Runtime library: one per process |
//! | `tokenize`, `batch`, `session`, `pooling` | text → tokens → batch → output → vector |
//! | `sessions` | who may run which session |
//!
//! Invariants: opening is cheap and loads no library; the first text, or
//! [`Embedder::load`], does. The provider that was asked for is the one that runs. Every
//! vector has length 1 and the model's dimensions; a model that gives anything else
//! is an error, never a stored vector.
//!
//! Deliberately not here: caching (the store's), and batches across callers. Callers
//! take turns batch by batch, so a query waits for one batch of an indexing run.

mod batch;
mod model;
mod onnx;
mod pooling;
mod provider;
mod runtime;
mod session;
mod sessions;
mod settings;
mod tokenize;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};

use op_dbus_formats::collection::ModelFingerprint;

use self::model::Model;
use self::sessions::Sessions;
use self::tokenize::{Tokenizer, Tokens};
use crate::error::{Error, ErrorKind, Result};

pub use self::model::KnownModel;
pub use self::provider::Provider;

/// Texts tokenized and sorted at a time: enough that sorting leaves hardly any padding,
/// few enough that their tokens take some megabytes.
const WINDOW_TEXTS_COUNT: usize = 4096;

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
    /// Up to four share them as sessions of their own once there are many texts; each
    /// takes about the model file's size in memory.
    pub threads_count: Option<NonZeroUsize>,
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

/// A model that turns texts into vectors.
///
/// Shared by reference between threads. One process can have several, of one ONNX
/// Runtime library.
pub struct Embedder {
    config: EmbedderConfig,
    model: Model,
    fingerprint: ModelFingerprint,
    dimensions: OnceLock<u32>,
    loaded: OnceLock<Loaded>,
    /// Held while loading, so that two callers do not load twice.
    loading: Mutex<()>,
}

struct Loaded {
    tokenizer: Tokenizer,
    sessions: Sessions,
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
    /// [`ErrorKind::Unsupported`] for a provider or a model that this version cannot
    /// run; [`ErrorKind::Denied`] if the model takes data from outside its directory;
    /// [`ErrorKind::Invalid`] if its files contradict each other; [`ErrorKind::Busy`]
    /// if they change meanwhile.
    pub fn open(config: &EmbedderConfig, known: Option<KnownModel>) -> Result<Self> {
        config.provider.require_supported()?;
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
        })
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
    /// [`ErrorKind::Unavailable`] if there is no usable ONNX Runtime library;
    /// [`ErrorKind::Corrupt`], [`ErrorKind::Unsupported`] or [`ErrorKind::Invalid`] if
    /// the tokenizer or the runtime refuses its file; [`ErrorKind::Busy`] if a file has
    /// changed since the model was opened.
    pub fn load(&self) -> Result<()> {
        self.loaded().map(drop)
    }

    /// Returns the embeddings of `texts`, in their order.
    ///
    /// Texts may be any number and any length; the work per text is bounded by
    /// [`Embedder::max_tokens`]. Texts of like length run together.
    /// Cost: the first call loads the model.
    ///
    /// # Errors
    /// Those of [`Embedder::load`]; [`ErrorKind::Invalid`] if the tokenizer or the model
    /// refuses a text; [`ErrorKind::Corrupt`] if the model gives no usable vector.
    pub fn embed(&self, texts: &[&str]) -> Result<Vec<Embedding>> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let loaded = self.loaded()?;
        let mut embeddings = Vec::with_capacity(texts.len());
        for window in texts.chunks(WINDOW_TEXTS_COUNT) {
            self.embed_window(loaded, window, &mut embeddings)?;
        }
        Ok(embeddings)
    }

    fn embed_window(
        &self,
        loaded: &Loaded,
        texts: &[&str],
        embeddings: &mut Vec<Embedding>,
    ) -> Result<()> {
        let tokens = texts
            .iter()
            .map(|text| loaded.tokenizer.tokenize(text))
            .collect::<Result<Vec<Tokens>>>()?;
        if let Some(index) = tokens.iter().position(|tokens| tokens.ids.is_empty()) {
            // Only without special tokens: a model cannot be run on nothing.
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("the model {} has no tokens for the text {:?}", self.name(), texts[index]),
            )
            .with_remedy("give a text with words"));
        }
        let start = embeddings.len();
        embeddings.extend(tokens.iter().map(|tokens| Embedding {
            vector: Vec::new(),
            tokens_count: tokens.ids.len(),
            truncated: tokens.truncated,
        }));
        let order = batch::by_length(&tokens);
        let batches = batch::batches(&tokens, &order, batch::BUDGET_TOKENS);
        let vectors = loaded.sessions.run(&batches, &tokens)?;
        for (batch, vectors) in batches.iter().zip(vectors) {
            for (&text, vector) in batch.texts.iter().zip(vectors) {
                self.check_dimensions(vector.len())?;
                embeddings[start + text].vector = vector;
            }
        }
        Ok(())
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

    fn loaded(&self) -> Result<&Loaded> {
        if let Some(loaded) = self.loaded.get() {
            return Ok(loaded);
        }
        let _loading = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = self.loaded.get() {
            return Ok(loaded);
        }
        let loaded = self.load_session()?;
        Ok(self.loaded.get_or_init(|| loaded))
    }

    fn load_session(&self) -> Result<Loaded> {
        let started = std::time::Instant::now();
        let model = &self.model;
        let threads_count = match self.config.threads_count {
            Some(count) => count,
            None => std::thread::available_parallelism().map_err(|source| {
                Error::new(ErrorKind::Io, "cannot count this process's processors")
                    .with_remedy("set the number of threads")
                    .with_source(source)
            })?,
        };
        let tokenizer = Tokenizer::load(&model.tokenizer_path(), &model.settings)?;
        let runtime = runtime::open(self.config.runtime_library.as_deref())?;
        let sessions = Sessions::load(runtime, model, threads_count, tokenizer.pad_token_id())?;
        tracing::info!(
            model = self.name(),
            runtime = format_args!("1.{}", runtime.library.minor_version),
            library = %runtime.library.path.display(),
            threads = threads_count,
            elapsed_ms = started.elapsed().as_millis() as u64,
            "ML_PROVIDER={}",
            self.config.provider,
        );
        Ok(Loaded { tokenizer, sessions })
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
