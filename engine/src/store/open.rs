//! Opening a store, and making one that is whole or absent.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use op_dbus_formats::FormatError;
use op_dbus_formats::store_file::StoreFile;

use super::collection::Collection;
use super::space::Space;
use super::{Store, StoreConfig};
use crate::cache::EmbeddingCache;
use crate::db::Creation;
use crate::db::commit::CommitQueue;
use crate::db::state::StateDatabase;
use crate::error::{Error, ErrorKind, Result};
use crate::layout::{Layout, database, store_file};
use crate::os::file::{self, Lock};

/// No `STORE` file of any version is longer.
const STORE_FILE_LEN_MAX_BYTES: u64 = 4096;

pub(super) fn open(config: StoreConfig) -> Result<Store> {
    let layout = Layout::new(config.base);
    if config.create {
        file::create_directories(layout.base())?;
    } else {
        require_store(&layout)?;
    }
    let lock = Lock::acquire(&layout.lock())?;
    let space = Space::prepare(&layout);
    if !layout.state().exists() {
        create(&layout)?;
    }
    file::check_owner(&layout.state())?;
    let store_file = read_store_file(&layout.state())?;
    let state = StateDatabase::open(&layout.state(), Creation::Refuse)?;
    if space.relieve() {
        state.pause_compactions();
    }
    let commits = CommitQueue::new(state.last_sequence()?);
    let collections: BTreeMap<_, _> = state
        .collections()?
        .into_iter()
        .map(|(name, spec)| (name.to_string(), Arc::new(Collection::new(name, spec))))
        .collect();
    file::create_directories(&layout.cache())?;
    let cache = EmbeddingCache::open(&database(&layout.cache()), store_file.hash_seed)?;
    Ok(Store {
        layout,
        state,
        cache,
        commits,
        space,
        collections: RwLock::new(collections),
        embedder_config: config.embedder,
        embedder: Mutex::new(None),
        _lock: lock,
    })
}

fn require_store(layout: &Layout) -> Result<()> {
    let state = layout.state();
    match fs::metadata(&state) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::new(
            ErrorKind::NotFound,
            format!("there is no store at {}", layout.base().display()),
        )
        .with_remedy("put something into it first, or name another directory")),
        Err(error) => Err(Error::io("open", &state, error)),
    }
}

/// Makes `@state` under another name and renames it, so that a crash leaves a whole one or none.
fn create(layout: &Layout) -> Result<()> {
    let unfinished = layout.state_unfinished();
    match fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io("remove", &unfinished, error));
        }
        _ => {}
    }
    file::create_directories(&unfinished)?;
    drop(StateDatabase::open(&unfinished, Creation::Create)?);
    let bytes = StoreFile {
        store_id: random_bytes()?,
        hash_seed: u64::from_le_bytes(random_bytes()?),
        created_unix_ms: unix_ms(),
    }
    .encode()
    .map_err(|error| {
        Error::new(ErrorKind::Unsupported, "this store cannot be named").with_source(error)
    })?;
    file::create_synced(&store_file(&unfinished), &bytes)?;
    file::sync_directory(&unfinished)?;
    let state = layout.state();
    fs::rename(&unfinished, &state).map_err(|error| Error::io("create", &state, error))?;
    file::sync_directory(layout.base())
}

fn read_store_file(state: &Path) -> Result<StoreFile> {
    let path = store_file(state);
    let bytes = match file::read_bounded(&path, STORE_FILE_LEN_MAX_BYTES) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("{} is not a store: it has no file STORE", state.display()),
            )
            .with_remedy("name another directory, or restore the store from an export"));
        }
        bytes => bytes?,
    };
    StoreFile::decode(&bytes).map_err(|error| match error {
        FormatError::UnsupportedVersion { .. } => Error::new(
            ErrorKind::Unsupported,
            format!("{} was written by another version", path.display()),
        )
        .with_source(error)
        .with_remedy("use the version of op-dbus that wrote it, or a newer one"),
        error => Error::new(ErrorKind::Corrupt, format!("{} is damaged", path.display()))
            .with_source(error)
            .with_remedy("restore the store from an export"),
    })
}

fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        let flags = rustix::rand::GetRandomFlags::empty();
        filled += rustix::rand::getrandom(&mut bytes[filled..], flags).map_err(|error| {
            Error::new(ErrorKind::Io, "the kernel gives no random numbers")
                .with_source(std::io::Error::from(error))
        })?;
    }
    Ok(bytes)
}

/// Now, in milliseconds since 1970-01-01 UTC; 0 for a clock that stands before.
pub(super) fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
