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
use op_dbus_formats::exchange::onnx::{
    self, ELEMENT_FLOAT, ELEMENT_INT64, OnnxError, Outline, Port,
};
use xxhash_rust::xxh3::Xxh3;

use super::settings::{SETTINGS_FILES, Settings, TokenPooling};
use crate::error::{Error, ErrorKind, Result};

pub(super) const MODEL_FILE: &str = "model.onnx";
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
    pub(super) external_files: Vec<PathBuf>,
    /// What the file system said about the files when they were checked.
    pub(super) files_identity: u128,
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
        let mut model = Self {
            directory,
            settings,
            output,
            pooling,
            takes_token_types,
            declared_dimensions,
            external_files,
            files_identity: 0,
        };
        model.files_identity = model.current_identity()?;
        Ok(model)
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

    /// Paths of all files that there are, within the directory, settings among them.
    pub(super) fn all_files(&self) -> Vec<PathBuf> {
        let weights = [PathBuf::from(MODEL_FILE)].into_iter().chain(self.external_files.clone());
        weights.chain(self.files_beside_weights()).collect()
    }

    /// Paths of the files that tell how the weights are used.
    pub(super) fn files_beside_weights(&self) -> Vec<PathBuf> {
        let settings = SETTINGS_FILES.map(PathBuf::from);
        let settings = settings.into_iter().filter(|file| self.directory.join(file).is_file());
        [PathBuf::from(TOKENIZER_FILE)].into_iter().chain(settings).collect()
    }

    /// Checks that the files are still those that were opened.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] if not.
    pub(super) fn require_unchanged(&self) -> Result<()> {
        if self.current_identity()? == self.files_identity {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Busy,
            format!(
                "the files in {} have changed since they were opened",
                self.directory.display()
            ),
        )
        .with_remedy("open the model again"))
    }

    /// Hashes what the file system says about the files, and the settings.
    fn current_identity(&self) -> Result<u128> {
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
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] if a file changes meanwhile.
    pub(super) fn fingerprint(&self) -> Result<ModelFingerprint> {
        let mut hash = Xxh3::new();
        hash.update(FINGERPRINT_DOMAIN);
        self.hash_settings(&mut hash);
        for path in self.files() {
            hash_file(&mut hash, &path).map_err(|source| Error::io("read", &path, source))?;
        }
        self.require_unchanged()?;
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
    let len = file.metadata().map_err(|source| Error::io("examine", path, source))?.len();
    onnx::read_outline(file, len).map_err(|source| match source {
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
        open_file(&path).map_err(|error| error.with_remedy(REMEDY))?;
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

#[cfg(test)]
mod tests {
    use op_dbus_formats::exchange::onnx::{bytes_field as bytes, number_field as number};

    use super::*;

    const FLOAT16: u64 = 10;

    /// Encodes a model with these ports and initializers.
    fn model(inputs: &[Vec<u8>], outputs: &[Vec<u8>], initializers: &[Vec<u8>]) -> Vec<u8> {
        let field = |number: u64, messages: &[Vec<u8>]| -> Vec<u8> {
            messages.iter().flat_map(|message| bytes(number, message)).collect()
        };
        let graph = [field(5, initializers), field(11, inputs), field(12, outputs)].concat();
        [number(1, 9), bytes(7, &graph)].concat()
    }

    /// Encodes a `ValueInfoProto`; a dimension of 0 varies.
    fn port(name: &str, element_type: u64, shape: &[u64]) -> Vec<u8> {
        let dimension =
            |&size: &u64| bytes(1, &if size == 0 { bytes(2, b"n") } else { number(1, size) });
        let shape = shape.iter().flat_map(dimension).collect::<Vec<_>>();
        let tensor = [number(1, element_type), bytes(2, &shape)].concat();
        [bytes(1, name.as_bytes()), bytes(2, &bytes(1, &tensor))].concat()
    }

    /// Encodes a `TensorProto` with external data.
    fn external_tensor(name: &str, location: &str) -> Vec<u8> {
        let entry = [bytes(1, b"location"), bytes(2, location.as_bytes())].concat();
        [bytes(8, name.as_bytes()), bytes(13, &entry), number(14, 1)].concat()
    }

    fn inputs() -> Vec<Vec<u8>> {
        [INPUT_IDS, ATTENTION_MASK].map(|name| port(name, ELEMENT_INT64, &[0, 0])).to_vec()
    }

    fn hidden_state() -> Vec<u8> {
        port(LAST_HIDDEN_STATE, ELEMENT_FLOAT, &[0, 0, 4])
    }

    fn directory(model: &[u8]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(MODEL_FILE), model).unwrap();
        std::fs::write(directory.path().join(TOKENIZER_FILE), "{}").unwrap();
        directory
    }

    fn open(bytes: &[u8]) -> Result<Model> {
        Model::open(directory(bytes).path())
    }

    #[test]
    fn outputs_are_chosen_by_name_then_by_shape() {
        let pooled = port(SENTENCE_EMBEDDING, ELEMENT_FLOAT, &[0, 8]);
        let other = port("other", ELEMENT_FLOAT, &[0, 0, 6]);
        let flat = port("flat", ELEMENT_FLOAT, &[0, 2]);
        let mean = Pooling::Tokens(TokenPooling::Mean);
        for (outputs, name, pooling, dimensions) in [
            (vec![hidden_state(), pooled], SENTENCE_EMBEDDING, Pooling::Model, Some(8)),
            (vec![other.clone(), hidden_state()], LAST_HIDDEN_STATE, mean, Some(4)),
            (vec![flat, other], "other", mean, Some(6)),
            (vec![port("x", ELEMENT_FLOAT, &[0, 0, 0])], "x", mean, None),
        ] {
            let model = open(&model(&inputs(), &outputs, &[])).unwrap();
            assert_eq!((model.output.as_str(), model.pooling), (name, pooling));
            assert_eq!(model.declared_dimensions, dimensions);
            assert!(!model.takes_token_types);
        }
    }

    #[test]
    fn token_types_are_found() {
        let mut inputs = inputs();
        inputs.insert(0, port(TOKEN_TYPE_IDS, ELEMENT_INT64, &[0, 0]));
        assert!(open(&model(&inputs, &[hidden_state()], &[])).unwrap().takes_token_types);
    }

    #[test]
    fn a_model_that_is_no_text_encoder_is_refused() {
        let with =
            |name: &str, element_type| [inputs(), vec![port(name, element_type, &[0, 0])]].concat();
        let narrow = vec![inputs()[0].clone(), port(ATTENTION_MASK, ELEMENT_FLOAT, &[0, 0])];
        for (inputs, outputs, what) in [
            (with("position_ids", ELEMENT_INT64), vec![hidden_state()], "position_ids"),
            (with(TOKEN_TYPE_IDS, ELEMENT_FLOAT), vec![hidden_state()], TOKEN_TYPE_IDS),
            (narrow, vec![hidden_state()], ATTENTION_MASK),
            (inputs()[..1].to_vec(), vec![hidden_state()], ATTENTION_MASK),
            (inputs()[1..].to_vec(), vec![hidden_state()], INPUT_IDS),
            (inputs(), vec![], "no output"),
            (inputs(), vec![port("flat", ELEMENT_FLOAT, &[0, 4])], "no output"),
            (inputs(), vec![port(LAST_HIDDEN_STATE, FLOAT16, &[0, 0, 4])], "float32"),
            (inputs(), vec![port(SENTENCE_EMBEDDING, ELEMENT_FLOAT, &[4])], "1 dimensions"),
        ] {
            let error = open(&model(&inputs, &outputs, &[])).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.to_string().contains(what), "{what}: {error}");
            assert!(error.remedy().is_some());
        }
    }

    #[test]
    fn missing_empty_and_cut_files_are_named() {
        let whole = model(&inputs(), &[hidden_state()], &[]);
        let missing = Model::open(Path::new("/nowhere/model")).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        for file in [MODEL_FILE, TOKENIZER_FILE] {
            let directory = directory(&whole);
            let path = directory.path().join(file);
            std::fs::write(&path, "").unwrap();
            let empty = Model::open(directory.path()).unwrap_err();
            std::fs::remove_file(&path).unwrap();
            let missing = Model::open(directory.path()).unwrap_err();
            std::fs::create_dir(&path).unwrap();
            let no_file = Model::open(directory.path()).unwrap_err();
            let kinds = [empty, missing, no_file].map(|error| {
                assert!(error.to_string().contains(file), "{error}");
                error.kind()
            });
            assert_eq!(kinds, [ErrorKind::Corrupt, ErrorKind::NotFound, ErrorKind::Corrupt]);
        }
        for len in 1..whole.len() {
            assert_eq!(open(&whole[..len]).unwrap_err().kind(), ErrorKind::Corrupt, "{len}");
        }
    }

    #[test]
    fn a_config_of_another_model_is_refused() {
        let directory = directory(&model(&inputs(), &[hidden_state()], &[]));
        let config = directory.path().join("config.json");
        std::fs::write(&config, r#"{"hidden_size": 4}"#).unwrap();
        assert!(Model::open(directory.path()).is_ok());
        std::fs::write(&config, r#"{"hidden_size": 5}"#).unwrap();
        assert_eq!(Model::open(directory.path()).unwrap_err().kind(), ErrorKind::Invalid);
    }

    #[test]
    fn external_data_stays_in_the_directory() {
        let outside = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(outside.path(), "weights").unwrap();
        let with = |location: &str| {
            let model = model(&inputs(), &[hidden_state()], &[external_tensor("w", location)]);
            let directory = directory(&model);
            std::fs::create_dir(directory.path().join("sub")).unwrap();
            std::fs::write(directory.path().join("sub/data.bin"), "weights").unwrap();
            std::os::unix::fs::symlink(outside.path(), directory.path().join("link")).unwrap();
            std::os::unix::fs::symlink("sub/data.bin", directory.path().join("inner")).unwrap();
            Model::open(directory.path())
        };
        let absolute = outside.path().to_str().unwrap();
        for location in
            [absolute, "../data.bin", "sub/../sub/data.bin", "./sub/data.bin", "", "link"]
        {
            let error = with(location).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied, "{location}");
            assert!(error.to_string().contains(&format!("{location:?}")), "{error}");
        }
        // A location by which the runtime means an address in its own memory.
        for missing in ["data.bin", "*/_ORT_MEM_ADDR_/*"] {
            assert_eq!(with(missing).unwrap_err().kind(), ErrorKind::NotFound);
        }
        for inside in ["sub/data.bin", "inner"] {
            assert_eq!(with(inside).unwrap().external_files, [Path::new(inside)]);
        }
    }

    #[test]
    fn the_fingerprint_is_of_everything_that_decides_a_vector() {
        let bytes = model(&inputs(), &[hidden_state()], &[external_tensor("w", "data.bin")]);
        let directory = directory(&bytes);
        let file = |name: &str| directory.path().join(name);
        std::fs::write(file("data.bin"), "weights").unwrap();
        let fingerprint = || Model::open(directory.path()).unwrap().fingerprint().unwrap();
        let original = fingerprint();
        assert_eq!(original, fingerprint());
        for (name, text) in [
            ("data.bin", "weightz"),
            (TOKENIZER_FILE, "{ }"),
            ("sentence_bert_config.json", r#"{"max_seq_length": 128}"#),
        ] {
            let before = std::fs::read(file(name)).ok();
            std::fs::write(file(name), text).unwrap();
            assert_ne!(fingerprint(), original, "{name}");
            match before {
                Some(before) => std::fs::write(file(name), before).unwrap(),
                None => std::fs::remove_file(file(name)).unwrap(),
            }
            assert_eq!(fingerprint(), original, "{name}");
        }
        // Pooling decides, and what decides nothing does not.
        std::fs::create_dir(file("1_Pooling")).unwrap();
        let pooling = r#"{"pooling_mode_cls_token": true}"#;
        std::fs::write(file("1_Pooling/config.json"), pooling).unwrap();
        assert_ne!(fingerprint(), original);
        std::fs::remove_dir_all(file("1_Pooling")).unwrap();
        std::fs::write(file("README.md"), "words").unwrap();
        assert_eq!(fingerprint(), original);
    }

    #[test]
    fn a_file_that_is_replaced_is_noticed() {
        let bytes = model(&inputs(), &[hidden_state()], &[]);
        let directory = directory(&bytes);
        let model = Model::open(directory.path()).unwrap();
        assert!(model.require_unchanged().is_ok());
        let copy = directory.path().join("copy");
        std::fs::write(&copy, &bytes).unwrap();
        std::fs::rename(&copy, directory.path().join(MODEL_FILE)).unwrap();
        assert_eq!(model.require_unchanged().unwrap_err().kind(), ErrorKind::Busy);
        assert_eq!(model.fingerprint().unwrap_err().kind(), ErrorKind::Busy);
        assert_ne!(Model::open(directory.path()).unwrap().files_identity, model.files_identity);
    }
}
