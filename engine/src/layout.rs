//! The names of a store's files and directories. Touches none of them.

use std::path::{Path, PathBuf};

/// Where everything of one store lies.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    base: PathBuf,
}

impl Layout {
    pub(crate) fn new(base: impl Into<PathBuf>) -> Self {
        Self { base: base.into() }
    }

    pub(crate) fn base(&self) -> &Path {
        &self.base
    }

    /// Locked while the store is open.
    pub(crate) fn lock(&self) -> PathBuf {
        self.base.join("LOCK")
    }

    /// The authority: what is here is the store.
    pub(crate) fn state(&self) -> PathBuf {
        self.base.join("@state")
    }

    /// Where the authority is made before it takes its name, so that `@state` is whole or absent.
    pub(crate) fn state_unfinished(&self) -> PathBuf {
        self.base.join("@state.new")
    }

    /// Room that is given up when the disk is full.
    pub(crate) fn ballast(&self) -> PathBuf {
        self.base.join("BALLAST")
    }

    /// Embeddings of texts: can be computed again.
    pub(crate) fn cache(&self) -> PathBuf {
        self.base.join("@cache")
    }

    /// What was measured: nothing depends on it.
    pub(crate) fn timing(&self) -> PathBuf {
        self.base.join("@timing")
    }
}

/// The file in `@state` that names the store and the version of its formats.
pub(crate) fn store_file(state: &Path) -> PathBuf {
    state.join("STORE")
}

/// The file in `@state` that says how far writes were acknowledged.
pub(crate) fn acknowledged_file(state: &Path) -> PathBuf {
    state.join("ACKNOWLEDGED")
}

/// The RocksDB directory of `@state` or `@cache`.
pub(crate) fn database(subvolume: &Path) -> PathBuf {
    subvolume.join("db")
}

/// The directory in `@timing` of traces of what was asked for.
pub(crate) fn trace_directory(timing: &Path) -> PathBuf {
    timing.join("trace")
}

/// The trace that is being recorded. That it is there is the wish to record.
pub(crate) fn current_trace(directory: &Path) -> PathBuf {
    directory.join("current")
}

/// Where a trace is made before it takes its name, so that it has its beginning or is absent.
pub(crate) fn unfinished_trace(directory: &Path) -> PathBuf {
    directory.join("current.new")
}

/// The trace that was begun at this time.
pub(crate) fn finished_trace(directory: &Path, started_unix_ms: u64) -> PathBuf {
    directory.join(format!("{started_unix_ms}.trace"))
}
