//! What the cache has counted: in this process, and by a [note](note_file) in those before it.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use op_dbus_formats::note_file::{self, NOTE_FILE_LEN_BYTES_MAX};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::os::file;
use crate::tier::{Counter, TierStats};

#[derive(Default)]
pub(super) struct Counters {
    pub(super) hits: Counter,
    pub(super) misses: Counter,
    pub(super) computed: AtomicU64,
    pub(super) compute_nanos: AtomicU64,
    pub(super) evicted: AtomicU64,
    /// Counted by earlier processes.
    before: Saved,
}

/// The counters as they lie in the file.
#[derive(Default, Serialize, Deserialize)]
struct Saved {
    hits: u64,
    misses: u64,
    computed: u64,
    compute_nanos: u64,
    #[serde(default)]
    evicted: u64,
    #[serde(default)]
    tier: TierStats,
}

impl Counters {
    /// Goes on from what the file says; one that is not there or cannot be read says nothing.
    pub(super) fn go_on(path: &Path) -> Self {
        let before = match read(path) {
            Ok(saved) => saved,
            Err(error) if error.kind() == ErrorKind::NotFound => Saved::default(),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, cause, "the cache counts from nothing again");
                Saved::default()
            }
        };
        Self {
            computed: before.computed.into(),
            compute_nanos: before.compute_nanos.into(),
            evicted: before.evicted.into(),
            before,
            ..Self::default()
        }
    }

    /// Whether the file can be read, or is not there.
    pub(super) fn check(path: &Path) -> Result<()> {
        match read(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Keeps them, with those of the tier, for a later process; what cannot be kept is lost.
    pub(super) fn save(&self, path: &Path, tier: TierStats) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let saved = Saved {
            hits: self.hits(),
            misses: self.misses(),
            computed: load(&self.computed),
            compute_nanos: load(&self.compute_nanos),
            evicted: load(&self.evicted),
            tier,
        };
        let damaged = |problem: String| Error::new(ErrorKind::Invalid, problem);
        let written = serde_json::to_vec(&saved)
            .map_err(|error| damaged(error.to_string()))
            .and_then(|json| note_file::encode(&json).map_err(|error| damaged(error.to_string())))
            .and_then(|bytes| file::replace(path, &bytes));
        if let Err(error) = written {
            tracing::warn!(%error, "what the cache has counted is not kept");
        }
    }

    pub(super) fn hits(&self) -> u64 {
        self.before.hits + self.hits.sum()
    }

    pub(super) fn misses(&self) -> u64 {
        self.before.misses + self.misses.sum()
    }

    /// What the tier had counted before this process.
    pub(super) fn tier_before(&self) -> &TierStats {
        &self.before.tier
    }
}

fn read(path: &Path) -> Result<Saved> {
    let bytes = file::read_bounded(path, NOTE_FILE_LEN_BYTES_MAX as u64)?;
    let damaged = || Error::new(ErrorKind::Corrupt, format!("{} is damaged", path.display()));
    let json = note_file::decode(&bytes).map_err(|error| damaged().with_source(error))?;
    serde_json::from_slice(json).map_err(|error| damaged().with_source(error))
}
