//! Where the embedding model is, for the tests that need one.

use std::path::PathBuf;

use crate::scratch::data_directory;

/// Words, and parts of words, that the installed model knows.
pub const WORD_PIECES_COUNT: usize = 30_522;

/// Returns the directory of the model that `make setup` installs.
///
/// # Panics
/// Where it or the library that runs it is missing: a test that needs them must not pass without.
pub fn installed() -> PathBuf {
    let data = data_directory();
    let directory = data.join("models/all-MiniLM-L6-v2");
    for file in ["model.onnx", "tokenizer.json", "config.json"] {
        let path = directory.join(file);
        assert!(path.is_file(), "{} is missing: run `make setup`", path.display());
    }
    let library = data.join("lib/libonnxruntime.so");
    assert!(
        library.is_file() || std::env::var_os("ORT_DYLIB_PATH").is_some(),
        "{} is missing: run `make setup`, or set ORT_DYLIB_PATH",
        library.display()
    );
    directory
}

/// Returns how to open the installed model.
///
/// # Panics
/// As [`installed`].
#[cfg(feature = "engine")]
pub fn config() -> op_dbus_engine::EmbedderConfig {
    op_dbus_engine::EmbedderConfig::new(installed())
}

/// Writes a small model for the words of the installed one into a directory: of other dimensions,
/// without token types, and with a vector for each token alone.
///
/// # Panics
/// As [`installed`]; if the directory cannot be written.
pub fn write_small(directory: &std::path::Path, dimensions: usize) {
    let model = crate::onnx::text_encoder(WORD_PIECES_COUNT, dimensions, dimensions as u64);
    write(directory, &model);
}

/// Writes a model for the words of the installed one into a directory.
///
/// # Panics
/// As [`installed`]; if the directory cannot be written.
pub fn write(directory: &std::path::Path, model: &[u8]) {
    let tokenizer = installed().join("tokenizer.json");
    let written = std::fs::create_dir_all(directory)
        .and_then(|()| std::fs::write(directory.join("model.onnx"), model))
        .and_then(|()| std::fs::copy(tokenizer, directory.join("tokenizer.json")));
    written.expect("the directory can be written");
}
