//! Texts to token ids.
//!
//! A `tokenizer.json` carries the padding and truncation of whoever saved it (128
//! tokens of padding for a text of twelve is common), so both are switched off and
//! done here: padding when a batch is formed, truncation at the model's limit.
//!
//! The work per text is bounded by that limit, not by the text: see
//! [`Tokenizer::tokenize`]. A text that spells a special token, such as `[SEP]`, gets
//! that token, as in every other user of these files; vectors stay comparable.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use tokenizers::{Encoding, PostProcessor, TruncationDirection};

use super::settings::Settings;
use crate::error::{Error, ErrorKind, Result};

/// A tokenizer of 250,000 pieces is 17 MB; this bounds what a wrong file can take.
const FILE_LEN_BYTES_MAX: u64 = 256 << 20;
/// Bytes of text first looked at per token that can be used. English has four or five
/// bytes a token, so one look nearly always settles a long text.
const PREFIX_BYTES_PER_TOKEN: usize = 16;
/// How much further each next look goes, so that all looks together cost little more
/// than the last.
const PREFIX_GROWTH: usize = 4;
/// Bytes of text looked at per token at most. Only what is no language has fewer
/// tokens: an endless word, or blanks.
const TEXT_BYTES_PER_TOKEN_MAX: usize = 1024;

/// A text as the model sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tokens {
    /// Token ids, special tokens included; at most the model's limit.
    pub(super) ids: Vec<u32>,
    /// Whether the text had more.
    pub(super) truncated: bool,
}

/// The tokenizer of a model.
pub(super) struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// Tokens left for the text beside the special ones.
    text_tokens_max: usize,
    pad_token_id: u32,
}

impl Tokenizer {
    /// Loads the tokenizer in the file `path`.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if the file is cut off or something else;
    /// [`ErrorKind::Invalid`] if the special tokens alone exceed the limit.
    pub(super) fn load(path: &Path, settings: &Settings) -> Result<Self> {
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(FILE_LEN_BYTES_MAX).read_to_end(&mut bytes))
            .map_err(|source| Error::io("read", path, source))?;
        let corrupt = |source| {
            let context = format!("{} is no whole tokenizer", path.display());
            Error::new(ErrorKind::Corrupt, context)
                .with_remedy("fetch the model's files again")
                .with_source(source)
        };
        let mut inner = tokenizers::Tokenizer::from_bytes(&bytes).map_err(corrupt)?;
        // A model whose positions are counted from the padding needs its own pad token.
        let pad_token_id = inner
            .get_padding()
            .map(|padding| padding.pad_id)
            .or(settings.pad_token_id)
            .unwrap_or_default();
        inner.with_padding(None);
        inner.with_truncation(None).map_err(corrupt)?;
        let special_count =
            inner.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
        let text_tokens_max = settings.max_tokens.saturating_sub(special_count);
        if text_tokens_max == 0 {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "{} adds {special_count} special tokens, but the model takes only {}",
                    path.display(),
                    settings.max_tokens
                ),
            ));
        }
        Ok(Self { inner, text_tokens_max, pad_token_id })
    }

    /// The token that fills the rows of a batch up.
    pub(super) fn pad_token_id(&self) -> u32 {
        self.pad_token_id
    }

    /// Returns the tokens of `text`, cut at the model's limit.
    ///
    /// Of a long text only a prefix is looked at, then a longer one until it is long
    /// enough. There is no length that is always enough: a word beyond the tokenizer's
    /// limit is one token however long it is, and blanks are none. A prefix is enough
    /// once the tokens kept end before its last word, since only that word can be an
    /// effect of the cut. At the last prefix the text ends, as if the limit were reached.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the tokenizer refuses the text.
    pub(super) fn tokenize(&self, text: &str) -> Result<Tokens> {
        let len_bytes_max = self.text_tokens_max.saturating_mul(TEXT_BYTES_PER_TOKEN_MAX);
        let looked_at = &text[..text.floor_char_boundary(len_bytes_max)];
        let mut prefix_len_bytes = self.text_tokens_max.saturating_mul(PREFIX_BYTES_PER_TOKEN);
        while prefix_len_bytes < looked_at.len() {
            let prefix = &looked_at[..looked_at.floor_char_boundary(prefix_len_bytes)];
            let encoding = self.inner.encode(prefix, false).map_err(refused)?;
            if ends_before_last_word(&encoding, self.text_tokens_max) {
                return self.finish(encoding);
            }
            prefix_len_bytes = prefix_len_bytes.saturating_mul(PREFIX_GROWTH);
        }
        let mut tokens = self.finish(self.inner.encode_fast(looked_at, false).map_err(refused)?)?;
        tokens.truncated |= looked_at.len() < text.len();
        Ok(tokens)
    }

    fn finish(&self, mut encoding: Encoding) -> Result<Tokens> {
        let truncated = encoding.len() > self.text_tokens_max;
        encoding.truncate(self.text_tokens_max, 0, TruncationDirection::Right);
        // What was cut off would get its special tokens too.
        encoding.take_overflowing();
        let encoding = self.inner.post_process(encoding, None, true).map_err(refused)?;
        Ok(Tokens { ids: encoding.get_ids().to_vec(), truncated })
    }
}

/// Says whether the first `count` tokens, at least one, end before the last word begins.
fn ends_before_last_word(encoding: &Encoding, count: usize) -> bool {
    let words = encoding.get_word_ids();
    match (words.get(count - 1), words.last()) {
        (Some(kept), Some(last)) => kept < last,
        _ => false,
    }
}

fn refused(source: tokenizers::Error) -> Error {
    Error::new(ErrorKind::Invalid, "the model's tokenizer refuses the text").with_source(source)
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::settings::TokenPooling;
    use super::*;

    /// A word-piece tokenizer as BERT has it, with the padding and truncation of a
    /// saved one.
    pub(in super::super) const TOKENIZER_JSON: &str = r###"{
        "version": "1.0",
        "truncation": {"max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 16}, "direction": "Right", "pad_to_multiple_of": null,
                    "pad_id": 3, "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": [],
        "normalizer": {"type": "BertNormalizer", "clean_text": true,
                       "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                       {"Sequence": {"id": "A", "type_id": 0}},
                       {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}},
                     {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [1], "tokens": ["[CLS]"]},
                               "[SEP]": {"id": "[SEP]", "ids": [2], "tokens": ["[SEP]"]}}},
        "decoder": null,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100,
                  "vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "[PAD]": 3,
                            "disk": 4, "##s": 5, "net": 6, "##work": 7, "a": 8, "##a": 9}}
    }"###;

    fn tokenizer_from(text: &str, max_tokens: usize) -> Result<Tokenizer> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let settings = Settings {
            max_tokens,
            hidden_size: None,
            pad_token_id: Some(9),
            pooling: TokenPooling::Mean,
        };
        Tokenizer::load(file.path(), &settings)
    }

    fn tokenizer(max_tokens: usize) -> Tokenizer {
        tokenizer_from(TOKENIZER_JSON, max_tokens).unwrap()
    }

    #[test]
    fn the_files_padding_and_truncation_are_overridden() {
        let tokenizer = tokenizer(16);
        let tokens = tokenizer.tokenize("Disks network disk NETWORK").unwrap();
        assert_eq!(tokens.ids, [1, 4, 5, 6, 7, 4, 6, 7, 2]);
        assert!(!tokens.truncated);
        assert_eq!(tokenizer.pad_token_id(), 3);
    }

    #[test]
    fn truncation_starts_at_the_first_token_too_many() {
        let tokenizer = tokenizer(5);
        let full = tokenizer.tokenize("disk disk disk").unwrap();
        assert_eq!(full, Tokens { ids: vec![1, 4, 4, 4, 2], truncated: false });
        let over = tokenizer.tokenize("disk disk disk net").unwrap();
        assert_eq!(over, Tokens { ids: vec![1, 4, 4, 4, 2], truncated: true });
    }

    #[test]
    fn texts_without_words_have_only_special_tokens() {
        for text in ["", " ", "\n\t  \u{3000}", "\u{0}\u{1}"] {
            let tokens = tokenizer(16).tokenize(text).unwrap();
            assert_eq!(tokens, Tokens { ids: vec![1, 2], truncated: false }, "{text:?}");
        }
    }

    /// The prefixes must not change a single token, wherever they happen to cut.
    #[test]
    fn a_long_text_has_the_tokens_of_the_whole_text() {
        let whole = |tokenizer: &Tokenizer, text: &str| {
            tokenizer.finish(tokenizer.inner.encode_fast(text, false).unwrap()).unwrap()
        };
        let words = "disk networks ".repeat(400);
        let blanks =
            format!("{}disk net{}network disks disks", " ".repeat(3000), "\t".repeat(3000));
        let endless_word = format!("{} disk net disk net", "a".repeat(5000));
        let no_blanks = "磁盘é\u{301}".repeat(700);
        let accents = format!("dis{}k network {}", "\u{301}".repeat(900), "disk ".repeat(900));
        for max_tokens in 9..18 {
            let tokenizer = tokenizer(max_tokens);
            for text in [&words, &blanks, &endless_word, &no_blanks, &accents] {
                for start in (0..40).filter(|&start| text.is_char_boundary(start)) {
                    let text = &text[start..];
                    assert_eq!(tokenizer.tokenize(text).unwrap(), whole(&tokenizer, text));
                }
            }
        }
    }

    #[test]
    fn a_text_without_end_ends_at_the_last_prefix() {
        let tokenizer = tokenizer(3);
        let blanks = " ".repeat(TEXT_BYTES_PER_TOKEN_MAX - 4);
        let inside = tokenizer.tokenize(&format!("{blanks}disk")).unwrap();
        assert_eq!(inside, Tokens { ids: vec![1, 4, 2], truncated: false });
        let outside = tokenizer.tokenize(&format!("{blanks} disk")).unwrap();
        assert!(outside.truncated);
        let beyond = tokenizer.tokenize(&format!("{blanks}    disk")).unwrap();
        assert_eq!(beyond, Tokens { ids: vec![1, 2], truncated: true });
    }

    #[test]
    fn a_damaged_file_is_named() {
        for len in [0, 1, 200, TOKENIZER_JSON.len() - 1] {
            let error = tokenizer_from(&TOKENIZER_JSON[..len], 16).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(std::error::Error::source(&error).is_some());
        }
    }

    #[test]
    fn a_limit_without_room_for_text_is_refused() {
        assert_eq!(tokenizer_from(TOKENIZER_JSON, 2).err().unwrap().kind(), ErrorKind::Invalid);
    }
}
