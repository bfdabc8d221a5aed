//! The names of a store's files and directories. Touches none of them.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};

/// One of the directories of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum StorePart {
    /// Files of vectors and graphs, which are mapped: derived from the others.
    #[serde(rename = "@vectors")]
    Vectors,
    /// What was measured: nothing depends on it.
    #[serde(rename = "@timing")]
    Timing,
    /// Embeddings of texts: can be computed again.
    #[serde(rename = "@cache")]
    Cache,
    /// The authority: what is here is the store.
    #[serde(rename = "@state")]
    State,
}

impl StorePart {
    /// All of them, in the order in which they are taken for a snapshot: what others are derived from
    /// last.
    pub const ALL: [Self; 4] = [Self::Vectors, Self::Timing, Self::Cache, Self::State];

    /// The name of its directory.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Vectors => "@vectors",
            Self::Timing => "@timing",
            Self::Cache => "@cache",
            Self::State => "@state",
        }
    }
}

impl FromStr for StorePart {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|part| part.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::new(ErrorKind::Invalid, format!("\"{name}\" is no directory of a store"))
                .with_remedy(format!("use some of {names}"))
        })
    }
}

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

    /// One of its directories.
    pub(crate) fn part(&self, part: StorePart) -> PathBuf {
        self.base.join(part.name())
    }

    /// The authority: what is here is the store.
    pub(crate) fn state(&self) -> PathBuf {
        self.part(StorePart::State)
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
        self.part(StorePart::Cache)
    }

    /// What the embedding cache has counted.
    pub(crate) fn cache_counters(&self) -> PathBuf {
        self.cache().join("COUNTERS")
    }

    /// What was measured: nothing depends on it.
    pub(crate) fn timing(&self) -> PathBuf {
        self.part(StorePart::Timing)
    }

    /// Files of vectors that are mapped: derived from the two above.
    pub(crate) fn vectors(&self) -> PathBuf {
        self.part(StorePart::Vectors)
    }

    /// What a snapshot is of, in the order of [`StorePart::ALL`].
    pub(crate) fn parts(&self) -> [PathBuf; 4] {
        StorePart::ALL.map(|part| self.part(part))
    }

    pub(crate) fn snapshots(&self) -> PathBuf {
        self.base.join("snapshots")
    }

    /// Held by whoever takes, deletes or copies a snapshot.
    pub(crate) fn snapshots_lock(&self) -> PathBuf {
        self.snapshots().join("LOCK")
    }

    /// What was used how often: worth keeping, and nothing depends on it.
    pub(crate) fn heat(&self) -> PathBuf {
        self.timing().join("heat")
    }
}

/// Where a part is made anew before it takes the place of the one that is there.
pub(crate) fn part_unfinished(part: &Path) -> PathBuf {
    part.with_extension("unfinished")
}

/// The file that says that a snapshot is whole.
pub(crate) fn snapshot_file(snapshot: &Path) -> PathBuf {
    snapshot.join("SNAPSHOT")
}

/// Where a snapshot is taken before it takes its name.
pub(crate) fn snapshot_unfinished(snapshot: &Path) -> PathBuf {
    with_suffix(snapshot, UNFINISHED_SUFFIX)
}

/// The file whose presence says that a store is being made of a snapshot in this directory.
pub(crate) fn restoring_mark(base: &Path) -> PathBuf {
    base.join("RESTORING")
}

/// The file whose presence says that another machine has the snapshot, too.
pub(crate) fn snapshot_shared(snapshot: &Path) -> PathBuf {
    with_suffix(snapshot, ".shared")
}

/// What has come of a snapshot that is being received.
pub(crate) fn snapshot_incoming(snapshot: &Path) -> PathBuf {
    with_suffix(snapshot, ".incoming")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// What the name of a snapshot that is being taken, or was when its maker ended, ends with.
pub(crate) const UNFINISHED_SUFFIX: &str = ".unfinished";

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

/// The file in `@vectors` that says which of the others count.
pub(crate) fn manifest_file(vectors: &Path) -> PathBuf {
    vectors.join("MANIFEST")
}

/// The name of the arena file of a generation, for vectors of this many elements.
pub(crate) fn arena_file_name(generation: u64, dimensions: u32) -> String {
    format!("{generation}-{dimensions}.arena")
}

/// The generation and the dimensions in the name of an arena file; `None` if it is none of ours.
pub(crate) fn parse_arena_file_name(name: &str) -> Option<(u64, u32)> {
    let (generation, dimensions) = name.strip_suffix(".arena")?.split_once('-')?;
    let parsed = (generation.parse().ok()?, dimensions.parse().ok()?);
    // Numbers have other spellings, which we do not write.
    (arena_file_name(parsed.0, parsed.1) == name).then_some(parsed)
}

/// The file of the graph of a collection.
pub(crate) fn graph_file(vectors: &Path, collection: u32) -> PathBuf {
    vectors.join(format!("{collection}.graph"))
}

/// The file of a graph that is being made, beside the one that it will be.
pub(crate) fn graph_unfinished(file: &Path) -> PathBuf {
    file.with_extension("unfinished")
}

/// What the name of a file that must not be used again ends with.
pub(crate) const DAMAGED_SUFFIX: &str = ".damaged";

/// The file whose presence says that the one beside it must not be used again.
pub(crate) fn damaged_mark(file: &Path) -> PathBuf {
    with_suffix(file, DAMAGED_SUFFIX)
}

/// The directory of a generation of heat.
pub(crate) fn heat_generation(heat: &Path, generation: u64) -> PathBuf {
    heat.join(generation.to_string())
}

/// Where a generation of heat is made before it takes its name.
pub(crate) fn heat_unfinished(heat: &Path, generation: u64) -> PathBuf {
    heat.join(format!("{generation}.new"))
}

/// Where a generation of heat is copied to be opened, which changes it.
pub(crate) fn heat_opened(heat: &Path, generation: u64) -> PathBuf {
    heat.join(format!("{generation}.open"))
}

/// The file in a generation of heat that lists the others.
pub(crate) const HEAT_CHECKSUMS: &str = "CHECKSUMS";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_we_write_are_ours() {
        assert_eq!(parse_arena_file_name("17-384.arena"), Some((17, 384)));
        for name in ["017-384.arena", "+1-2.arena", "1-2-3.arena", "1.arena", "1-2.arena.damaged"] {
            assert_eq!(parse_arena_file_name(name), None, "{name}");
        }
        let mark = damaged_mark(Path::new("/x/17-384.arena"));
        assert_eq!(mark, Path::new("/x/17-384.arena.damaged"));
    }
}
