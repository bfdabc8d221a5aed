//! Directories that vanish with the test.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// Where Linux keeps files in memory.
const MEMORY_DIRECTORY: &str = "/dev/shm";

/// Makes an empty directory on a disk, as the user has it.
pub fn on_disk() -> TempDir {
    tempfile::tempdir().expect("a temporary directory can be made")
}

/// Makes an empty directory in memory if the system has such a place.
///
/// For tests of hundreds of stores: each waits for its log to be synced, and what a disk makes of
/// that is not what they are about.
pub fn in_memory() -> TempDir {
    tempfile::tempdir_in(MEMORY_DIRECTORY).unwrap_or_else(|_| on_disk())
}

/// Returns a directory of the user's cache, for what is too expensive to make for each run.
///
/// The same rule as everywhere in this project: `$XDG_CACHE_HOME/op-dbus` if that is absolute,
/// `~/.cache/op-dbus` otherwise.
pub fn cache_directory() -> PathBuf {
    base_directory("XDG_CACHE_HOME", ".cache")
}

/// Returns the directory of installed data, by the same rule with `$XDG_DATA_HOME`.
pub fn data_directory() -> PathBuf {
    base_directory("XDG_DATA_HOME", ".local/share")
}

fn base_directory(variable: &str, default: &str) -> PathBuf {
    std::env::var_os(variable)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| Some(std::env::home_dir()?.join(default)))
        .expect("HOME names a directory")
        .join("op-dbus")
}

/// Returns a file of `tests/data`.
pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name)
}
