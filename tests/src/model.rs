//! Where the embedding model is, for the tests that need one.

use std::path::PathBuf;

use crate::scratch::data_directory;

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
    op_dbus_engine::EmbedderConfig {
        model_dir: installed(),
        runtime_library: None,
        provider: op_dbus_engine::Provider::Cpu,
        threads_count: None,
    }
}
