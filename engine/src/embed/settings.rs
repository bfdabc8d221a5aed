//! What the small JSON files beside a model say about how to use it.
//!
//! Each file is optional, since model directories come from many exporters. A file
//! that is there is believed, so one that cannot be read is an error.

use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind, Result};

/// Limit where no file names one: that of all-MiniLM-L6-v2 and most small encoders.
const MAX_TOKENS_DEFAULT: usize = 256;
/// Attention takes memory with the square of the tokens: beyond this it is gigabytes.
const MAX_TOKENS_LIMIT: usize = 8192;
/// `tokenizer_config.json` repeats the added tokens; nothing else here is long.
const FILE_LEN_BYTES_MAX: u64 = 16 << 20;

const MODEL_CONFIG: &str = "config.json";
const SENTENCE_CONFIG: &str = "sentence_bert_config.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const POOLING_CONFIG: &str = "1_Pooling/config.json";
/// All that is read, within the model's directory.
pub(super) const SETTINGS_FILES: [&str; 4] =
    [MODEL_CONFIG, SENTENCE_CONFIG, TOKENIZER_CONFIG, POOLING_CONFIG];

/// How a model that gives one vector per token is reduced to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenPooling {
    /// The mean of all tokens' vectors.
    Mean,
    /// The first token's vector.
    First,
}

/// The settings of a model directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// Tokens beyond this are cut off, special tokens included.
    pub(super) max_tokens: usize,
    /// Width of the hidden state, if `config.json` names it.
    pub(super) hidden_size: Option<u32>,
    /// The token that fills a row up, if `config.json` names it.
    pub(super) pad_token_id: Option<u32>,
    /// How to pool, if the model does not do it itself.
    pub(super) pooling: TokenPooling,
}

/// The part of `config.json` used here.
#[derive(Default, Deserialize)]
struct ModelConfig {
    hidden_size: Option<u32>,
    max_position_embeddings: Option<f64>,
    pad_token_id: Option<u32>,
}

/// The part of `sentence_bert_config.json` used here.
#[derive(Default, Deserialize)]
struct SentenceConfig {
    max_seq_length: Option<f64>,
}

/// The part of `tokenizer_config.json` used here.
#[derive(Default, Deserialize)]
struct TokenizerConfig {
    /// Some tokenizers say 1e30 for "no limit", hence the float.
    model_max_length: Option<f64>,
}

/// The part of `1_Pooling/config.json` used here.
#[derive(Default, Deserialize)]
#[serde(default)]
struct PoolingConfig {
    pooling_mode_cls_token: bool,
    pooling_mode_mean_tokens: bool,
    pooling_mode_max_tokens: bool,
    pooling_mode_mean_sqrt_len_tokens: bool,
    pooling_mode_weightedmean_tokens: bool,
    pooling_mode_lasttoken: bool,
}

impl Settings {
    /// Reads the settings in `directory`.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if a file is not what its name says;
    /// [`ErrorKind::Unsupported`] if it asks for a pooling that is not offered.
    pub(super) fn read(directory: &Path) -> Result<Self> {
        let model: ModelConfig = read_json(&directory.join(MODEL_CONFIG))?.unwrap_or_default();
        let sentence: SentenceConfig =
            read_json(&directory.join(SENTENCE_CONFIG))?.unwrap_or_default();
        let tokenizer: TokenizerConfig =
            read_json(&directory.join(TOKENIZER_CONFIG))?.unwrap_or_default();
        let pooling_path = directory.join(POOLING_CONFIG);
        let pooling = match read_json::<PoolingConfig>(&pooling_path)? {
            Some(config) => config.pooling(&pooling_path)?,
            None => TokenPooling::Mean,
        };
        Ok(Self {
            max_tokens: max_tokens(
                sentence.max_seq_length.or(tokenizer.model_max_length),
                model.max_position_embeddings,
            ),
            hidden_size: model.hidden_size,
            pad_token_id: model.pad_token_id,
            pooling,
        })
    }
}

/// Returns the tokens that a text may have: what is asked for, if the positions suffice.
fn max_tokens(asked: Option<f64>, positions: Option<f64>) -> usize {
    let whole = |number: f64| (number >= 1.0).then_some(number as usize);
    let asked = asked.and_then(whole).filter(|&asked| asked <= MAX_TOKENS_LIMIT);
    let positions = positions.and_then(whole).unwrap_or(MAX_TOKENS_LIMIT);
    asked.unwrap_or(MAX_TOKENS_DEFAULT).min(positions).min(MAX_TOKENS_LIMIT)
}

impl PoolingConfig {
    fn pooling(&self, path: &Path) -> Result<TokenPooling> {
        let others = self.pooling_mode_max_tokens
            || self.pooling_mode_mean_sqrt_len_tokens
            || self.pooling_mode_weightedmean_tokens
            || self.pooling_mode_lasttoken;
        match (self.pooling_mode_mean_tokens, self.pooling_mode_cls_token, others) {
            (true, false, false) => Ok(TokenPooling::Mean),
            (false, true, false) => Ok(TokenPooling::First),
            _ => Err(Error::new(
                ErrorKind::Unsupported,
                format!("{} asks for a pooling other than mean or first token", path.display()),
            )
            .with_remedy("export the model with an output named sentence_embedding")),
        }
    }
}

/// Reads a JSON file; `None` if there is none.
fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("open", path, error)),
    };
    let mut bytes = Vec::new();
    file.take(FILE_LEN_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::io("read", path, error))?;
    serde_json::from_slice(&bytes).map(Some).map_err(|source| {
        Error::new(ErrorKind::Corrupt, format!("cannot understand {}", path.display()))
            .with_remedy("fetch the model's files again")
            .with_source(source)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(files: &[(&str, &str)]) -> Result<Settings> {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Settings::read(directory.path())
    }

    #[test]
    fn the_most_specific_limit_wins_within_the_positions() {
        let model = ("config.json", r#"{"hidden_size": 384, "max_position_embeddings": 512}"#);
        let tokenizer = ("tokenizer_config.json", r#"{"model_max_length": 400}"#);
        let endless =
            ("tokenizer_config.json", r#"{"model_max_length": 1000000000000000019884624838656}"#);
        let sentence = ("sentence_bert_config.json", r#"{"max_seq_length": 128}"#);
        let silent = ("sentence_bert_config.json", r#"{"max_seq_length": null}"#);
        let long = ("sentence_bert_config.json", r#"{"max_seq_length": 1024}"#);
        for (files, max_tokens) in [
            (vec![], 256),
            (vec![model], 256),
            (vec![model, tokenizer], 400),
            (vec![model, endless], 256),
            (vec![model, tokenizer, sentence], 128),
            (vec![model, tokenizer, silent], 400),
            (vec![model, long], 512),
            (vec![long], 1024),
        ] {
            assert_eq!(settings(&files).unwrap().max_tokens, max_tokens, "{files:?}");
        }
        assert_eq!(settings(&[model]).unwrap().hidden_size, Some(384));
    }

    #[test]
    fn pooling_is_read_and_unknown_pooling_is_refused() {
        let pooling = |text| settings(&[("1_Pooling/config.json", text)]).map(|s| s.pooling);
        let mean = pooling(r#"{"pooling_mode_mean_tokens": true, "word_embedding_dimension": 4}"#);
        assert_eq!(mean.unwrap(), TokenPooling::Mean);
        let first = pooling(r#"{"pooling_mode_cls_token": true}"#);
        assert_eq!(first.unwrap(), TokenPooling::First);
        for text in [
            "{}",
            r#"{"pooling_mode_max_tokens": true}"#,
            r#"{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": true}"#,
        ] {
            assert_eq!(pooling(text).unwrap_err().kind(), ErrorKind::Unsupported, "{text}");
        }
    }

    #[test]
    fn a_damaged_file_is_named() {
        for name in [
            "config.json",
            "sentence_bert_config.json",
            "tokenizer_config.json",
            "1_Pooling/config.json",
        ] {
            let error = settings(&[(name, r#"{"hidden_size": 3"#)]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.to_string().contains(name), "{error}");
        }
        let wrong_type = settings(&[("config.json", r#"{"hidden_size": "wide"}"#)]);
        assert_eq!(wrong_type.unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
