//! A model directory: which files it has, what they promise, and who they are.
//!
//! Job: refuse, before the runtime is even looked for, a directory whose files are
//! missing, cut off or of another kind; and give the model its identity.
//!
//! Two names for the same thing are kept apart. The *fingerprint* is of the content:
//! it goes into the keys of the embedding cache, so two directories with the same
//! bytes share it. The *files identity* is what `stat` says: it only tells whether
//! the fingerprint, which costs reading the whole model, is still known.
//!
//! Invariant: every file that can change an embedding is in both. External data is
//! taken only from inside the model directory.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use op_dbus_formats::collection::ModelFingerprint;
use xxhash_rust::xxh3::Xxh3;

use super::onnx::{self, ELEMENT_FLOAT, ELEMENT_INT64, OnnxError, Outline, Port};
use super::settings::{Settings, TokenPooling};
use crate::error::{Error, ErrorKind, Result};

const MODEL_FILE: &str = "model.onnx";
const TOKENIZER_FILE: &str = "tokenizer.json";
const REMEDY: &str = "fetch the model's files again";

/// The inputs a text encoder may have, in the order they are passed.
pub(super) const INPUT_IDS: &str = "input_ids";
pub(super) const ATTENTION_MASK: &str = "attention_mask";
pub(super) const TOKEN_TYPE_IDS: &str = "token_type_ids";
const SENTENCE_EMBEDDING: &str = "sentence_embedding";
const LAST_HIDDEN_STATE: &str = "last_hidden_state";

/// Everything that decides what vector a text gets, beside the files' bytes.
///
/// The number changes whenever this code computes another vector from the same files.
const FINGERPRINT_DOMAIN: &[u8] = b"op-dbus model fingerprint 1\0";
const IDENTITY_DOMAIN: &[u8] = b"op-dbus model files 1\0";

/// What the last opening learned about a model's files.
///
/// Whoever keeps it saves the next opening from reading the whole model. It is only
/// believed while the files are the same by device, inode, length and times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownModel {
    /// Hash of what the file system says about the files, and of the settings.
    pub files_identity: u128,
    /// The model's fingerprint.
    pub fingerprint: ModelFingerprint,
    /// Dimensions of its vectors, once known.
    pub dimensions: Option<u32>,
}

/// Which output is taken, and what must still be done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pooling {
    /// The model pools: its output is one vector per text.
    Model,
    /// The model gives one vector per token.
    Tokens(TokenPooling),
}

impl Pooling {
    /// A stable number for the fingerprint.
    fn tag(self) -> u8 {
        match self {
            Self::Model => 1,
            Self::Tokens(TokenPooling::Mean) => 2,
            Self::Tokens(TokenPooling::First) => 3,
        }
    }
}

/// A checked model directory.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) directory: PathBuf,
    pub(super) settings: Settings,
    pub(super) output: String,
    pub(super) pooling: Pooling,
    pub(super) takes_token_types: bool,
    /// Dimensions that the graph or the settings declare.
    pub(super) declared_dimensions: Option<u32>,
    /// External data, relative to the directory.
    external_files: Vec<PathBuf>,
}

impl Model {
    /// Checks the files in `directory`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] without a directory, model or tokenizer;
    /// [`ErrorKind::Corrupt`] if one is cut off or something else;
    /// [`ErrorKind::Unsupported`] if the model is no text encoder that can be fed;
    /// [`ErrorKind::Denied`] if it reaches for files outside its directory;
    /// [`ErrorKind::Invalid`] if its files contradict each other.
    pub(super) fn open(directory: &Path) -> Result<Self> {
        let directory = std::path::absolute(directory)
            .map_err(|source| Error::io("resolve", directory, source))?;
        if !directory.is_dir() {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("there is no model directory {}", directory.display()),
            )
            .with_remedy(
                "run `make setup`, or name a directory with model.onnx and tokenizer.json",
            ));
        }
        open_file(&directory.join(TOKENIZER_FILE))?;
        let path = directory.join(MODEL_FILE);
        let outline = read_outline(&open_file(&path)?, &path)?;
        let settings = Settings::read(&directory)?;
        let takes_token_types = check_inputs(&outline.inputs, &path)?;
        let (output, pooling) = choose_output(&outline.outputs, settings.pooling, &path)?;
        let declared_dimensions = declared_dimensions(output, &settings, &path)?;
        let output = output.name.clone();
        let external_files = external_files(&outline.external_locations, &directory)?;
        Ok(Self {
            directory,
            settings,
            output,
            pooling,
            takes_token_types,
            declared_dimensions,
            external_files,
        })
    }

    /// The name of the directory.
    pub(super) fn name(&self) -> &str {
        self.directory.file_name().and_then(|name| name.to_str()).unwrap_or("model")
    }

    pub(super) fn model_path(&self) -> PathBuf {
        self.directory.join(MODEL_FILE)
    }

    pub(super) fn tokenizer_path(&self) -> PathBuf {
        self.directory.join(TOKENIZER_FILE)
    }

    fn files(&self) -> impl Iterator<Item = PathBuf> {
        let external = self.external_files.iter().map(|file| self.directory.join(file));
        [self.model_path(), self.tokenizer_path()].into_iter().chain(external)
    }

    /// Hashes what the file system says about the files, and the settings.
    pub(super) fn files_identity(&self) -> Result<u128> {
        let mut hash = Xxh3::new();
        hash.update(IDENTITY_DOMAIN);
        self.hash_settings(&mut hash);
        for path in self.files() {
            let status =
                std::fs::metadata(&path).map_err(|source| Error::io("examine", &path, source))?;
            for number in [status.dev(), status.ino(), status.len()] {
                hash.update(&number.to_le_bytes());
            }
            for number in [status.mtime(), status.mtime_nsec(), status.ctime(), status.ctime_nsec()]
            {
                hash.update(&number.to_le_bytes());
            }
        }
        Ok(hash.digest128())
    }

    /// Hashes the files' content and the settings.
    ///
    /// Cost: reads every file, so the whole model.
    pub(super) fn fingerprint(&self) -> Result<ModelFingerprint> {
        let mut hash = Xxh3::new();
        hash.update(FINGERPRINT_DOMAIN);
        self.hash_settings(&mut hash);
        for path in self.files() {
            hash_file(&mut hash, &path).map_err(|source| Error::io("read", &path, source))?;
        }
        Ok(ModelFingerprint(hash.digest128().to_le_bytes()))
    }

    fn hash_settings(&self, hash: &mut Xxh3) {
        hash.update(&[self.pooling.tag()]);
        hash.update(&(self.settings.max_tokens as u64).to_le_bytes());
        // Which of a model's outputs is taken follows from the file's bytes, as does
        // the order of its external files. That vectors are normalised is the domain.
    }
}

fn open_file(path: &Path) -> Result<File> {
    let file = File::open(path).map_err(|source| {
        let error = Error::io("open", path, source);
        match error.kind() {
            ErrorKind::NotFound => error.with_remedy(
                "run `make setup`, or name a directory with model.onnx and tokenizer.json",
            ),
            _ => error,
        }
    })?;
    let status = file.metadata().map_err(|source| Error::io("examine", path, source))?;
    if !status.is_file() || status.len() == 0 {
        let what = if status.is_file() { "is empty" } else { "is no file" };
        let context = format!("{} {what}", path.display());
        return Err(Error::new(ErrorKind::Corrupt, context).with_remedy(REMEDY));
    }
    Ok(file)
}

fn read_outline(file: &File, path: &Path) -> Result<Outline> {
    onnx::read_outline(file).map_err(|source| match source {
        OnnxError::Io(source) => Error::io("read", path, source),
        OnnxError::Truncated { .. } | OnnxError::Malformed { .. } | OnnxError::NoGraph => {
            let context = format!("{} is no whole ONNX model: {source}", path.display());
            Error::new(ErrorKind::Corrupt, context).with_remedy(REMEDY).with_source(source)
        }
    })
}

/// Checks that the model takes what a tokenizer gives; says whether token types are asked for.
fn check_inputs(inputs: &[Port], path: &Path) -> Result<bool> {
    let unsupported = |what: String| {
        Err(Error::new(ErrorKind::Unsupported, format!("{} {what}", path.display())).with_remedy(
            "use a text encoder exported with int64 inputs input_ids, attention_mask and, \
             if it has segments, token_type_ids",
        ))
    };
    for input in inputs {
        if ![INPUT_IDS, ATTENTION_MASK, TOKEN_TYPE_IDS].contains(&input.name.as_str()) {
            return unsupported(format!("wants an input {:?}, which is not known", input.name));
        }
        if input.element_type != ELEMENT_INT64 {
            return unsupported(format!("wants {} in a type other than int64", input.name));
        }
    }
    let has = |name: &str| inputs.iter().any(|input| input.name == name);
    for name in [INPUT_IDS, ATTENTION_MASK] {
        if !has(name) {
            return unsupported(format!("takes no {name}"));
        }
    }
    Ok(has(TOKEN_TYPE_IDS))
}

/// Chooses the output that becomes the embedding.
fn choose_output<'p>(
    outputs: &'p [Port],
    token_pooling: TokenPooling,
    path: &Path,
) -> Result<(&'p Port, Pooling)> {
    let rank = |port: &Port| port.shape.as_ref().map(Vec::len);
    let named = |name: &str| outputs.iter().find(|output| output.name == name);
    let chosen = match named(SENTENCE_EMBEDDING) {
        Some(output) => Some((output, Pooling::Model, 2)),
        None => named(LAST_HIDDEN_STATE)
            .or_else(|| outputs.iter().find(|output| rank(output) == Some(3)))
            .map(|output| (output, Pooling::Tokens(token_pooling), 3)),
    };
    let unsupported = |what: String| {
        Error::new(ErrorKind::Unsupported, format!("{} {what}", path.display())).with_remedy(
            "use a text encoder exported with a float32 output sentence_embedding \
             [batch, dimensions] or last_hidden_state [batch, tokens, dimensions]",
        )
    };
    let Some((output, pooling, rank_wanted)) = chosen else {
        return Err(unsupported("has no output that could be an embedding".to_owned()));
    };
    if output.element_type != ELEMENT_FLOAT {
        return Err(unsupported(format!("gives {} in a type other than float32", output.name)));
    }
    match rank(output) {
        Some(found) if found != rank_wanted => Err(unsupported(format!(
            "gives {} with {found} dimensions instead of {rank_wanted}",
            output.name
        ))),
        _ => Ok((output, pooling)),
    }
}

/// Returns how long the vectors will be, if the graph or the settings say so.
fn declared_dimensions(output: &Port, settings: &Settings, path: &Path) -> Result<Option<u32>> {
    let declared = output.shape.as_ref().and_then(|shape| *shape.last()?);
    let declared = declared.and_then(|size| u32::try_from(size).ok()).filter(|&size| size > 0);
    match (declared, settings.hidden_size) {
        (Some(declared), Some(configured)) if declared != configured => Err(Error::new(
            ErrorKind::Invalid,
            format!(
                "{} gives {declared} dimensions, but its config.json says hidden_size {configured}",
                path.display()
            ),
        )
        .with_remedy("take config.json and model.onnx from the same model, or remove config.json")),
        (declared, configured) => Ok(declared.or(configured)),
    }
}

/// Checks that external data lies in the model directory, links resolved.
fn external_files(locations: &[String], directory: &Path) -> Result<Vec<PathBuf>> {
    if locations.is_empty() {
        return Ok(Vec::new());
    }
    let root =
        directory.canonicalize().map_err(|source| Error::io("resolve", directory, source))?;
    let check = |location: &String| {
        let outside = || {
            Error::new(
                ErrorKind::Denied,
                format!(
                    "{} takes data from {location:?}, outside its directory",
                    directory.join(MODEL_FILE).display()
                ),
            )
            .with_remedy("put the data beside the model, or export the model as one file")
        };
        let relative = Path::new(location);
        let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
        if !plain || relative.as_os_str().is_empty() {
            return Err(outside());
        }
        let path = directory.join(relative);
        open_file(&path)?;
        let resolved = path.canonicalize().map_err(|source| Error::io("resolve", &path, source))?;
        if resolved.starts_with(&root) { Ok(relative.to_owned()) } else { Err(outside()) }
    };
    locations.iter().map(check).collect()
}

/// Hashes a file's length and content.
fn hash_file(hash: &mut Xxh3, path: &Path) -> io::Result<()> {
    let mut file = File::open(path)?;
    hash.update(&file.metadata()?.len().to_le_bytes());
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(len) => hash.update(&buffer[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
