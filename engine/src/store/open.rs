//! Opening a store, and making one that is whole or absent.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZero;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use op_dbus_formats::FormatError;
use op_dbus_formats::collection::{CollectionName, CollectionSpec};
use op_dbus_formats::store_file::StoreFile;

use super::audit::Audits;
use super::collection::Collection;
use super::journal::JournalEnd;
use super::latency::Latencies;
use super::memory::MemoryCap;
use super::space::Space;
use super::stats::Writes;
use super::warmth::Sources;
use super::watch::Followers;
use super::{Access, Store, StoreConfig, parts};
use crate::arena::Placement;
use crate::cache::{CacheConfig, EmbeddingCache};
use crate::db::cache::CacheDatabase;
use crate::db::commit::CommitQueue;
use crate::db::state::StateDatabase;
use crate::db::{Creation, Database};
use crate::error::{Error, ErrorKind, Result};
use crate::layout::{Layout, StorePart, database, part_unfinished, store_file, trace_directory};
use crate::os::clock::unix_ms;
use crate::os::cpu;
use crate::os::file::{self, Lock};
use crate::os::random;
use crate::segment::SegmentDirectory;
use crate::snapshot::{Snapshots, copy};
use crate::tier::{Recorder, Tier};

/// No `STORE` file of any version is longer.
const STORE_FILE_LEN_MAX_BYTES: u64 = 4096;
/// A log that is longer is written to tables by whoever opens the store next: each reader would read it
/// again, for about 2 ms a MiB.
const READ_LOG_BYTES_MAX: u64 = 1 << 20;

pub(super) fn open(config: StoreConfig) -> Result<Store> {
    cpu::check()?;
    let placement = Arc::new(Placement::of_machine(&config.numa)?);
    // Threads that are started meanwhile stay.
    let _visit = placement.visit();
    let layout = Layout::new(config.base);
    find(&layout, config.create)?;
    let access = needed_access(config.access, &layout);
    let lock = lock(&layout, access)?;
    let is_written = access == Access::Write;
    let space = if is_written { Space::prepare(&layout) } else { Space::unused(&layout) };
    let store_file = prepare(&layout, access, &config.subvolumes)?;
    let memory = MemoryCap::find(config.capacity_bytes);
    let recorder = Arc::new(open_recorder(&layout, &store_file, access));
    let size = (memory.tier_bytes(), config.policy);
    let tier = Arc::new(Tier::new(size, Arc::clone(&recorder), Arc::clone(&placement))?);
    let was_relieved = is_written && space.relieve();
    let cache = CacheConfig {
        path: &database(&layout.cache()),
        counters: &layout.cache_counters(),
        seed: store_file.hash_seed,
        memory: memory.database(),
        disk_max_bytes: config.cache_disk_bytes,
        tier: Arc::clone(&tier),
    };
    let (state, cache) = open_databases(&layout, memory, is_written, cache)?;
    if was_relieved {
        state.pause_compactions();
    }
    let commits = CommitQueue::new(state.last_sequence()?);
    let collections = collections(&state, store_file.hash_seed)?;
    let sources = Sources {
        state: Arc::clone(&state),
        cache: Arc::clone(&cache),
        tier: Arc::clone(&tier),
        segments: Arc::new(open_segments(&layout, &store_file, is_written)),
        heat: layout.heat(),
    };
    let segments = Arc::clone(&sources.segments);
    let known: Vec<_> = collections.values().cloned().collect();
    sources.map_files(&known, commits.last_sequence());
    let warm_up = if config.warm { Some(sources.warm_up(known)?) } else { None };
    Ok(Store {
        warm_up,
        segments,
        layout,
        followers: followers(&state),
        journal_end: Mutex::new(JournalEnd::new(state.journal_head()?)),
        state,
        cache,
        tier,
        memory,
        hash_seed: store_file.hash_seed,
        threads: processors_count(),
        recorder,
        latencies: Latencies::default(),
        writes: Writes::default(),
        audits: Audits::default(),
        commits,
        space,
        collections: RwLock::new(collections),
        embedder_config: config.embedder,
        embedder: OnceLock::new(),
        opening_embedder: Mutex::new(()),
        access: config.access,
        lock,
        placement,
        taken_unix_ms: config.taken_unix_ms,
    })
}

/// Whoever recovers a store that is asked to be read has it alone, which nobody else sees of it.
fn needed_access(asked: Access, layout: &Layout) -> Access {
    let recovers = asked == Access::Read && has_to_recover(layout);
    if recovers { Access::Write } else { asked }
}

fn open_databases(
    layout: &Layout,
    memory: MemoryCap,
    is_written: bool,
    cache: CacheConfig<'_>,
) -> Result<(Arc<StateDatabase>, Arc<EmbeddingCache>)> {
    let open_cache = || match is_written {
        true => EmbeddingCache::open(cache),
        false => EmbeddingCache::open_to_read(cache),
    };
    let (state, cache) = at_the_same_time(|| open_state(layout, memory, is_written), open_cache);
    Ok((Arc::new(state?), Arc::new(cache?)))
}

/// Those that this process may use.
fn processors_count() -> NonZero<usize> {
    std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN)
}

/// Where whoever has the store at `base` open can be asked instead, if it said so; nobody if it is not
/// open.
#[must_use]
pub fn store_address(base: &Path) -> Option<String> {
    file::lock_address(&Layout::new(base).lock())
}

/// Makes the directory of a store that may be made, or requires that it is there.
fn find(layout: &Layout, may_create: bool) -> Result<()> {
    if may_create { file::create_directories(layout.base()) } else { require_store(layout) }
}

/// Takes the lock that this access needs.
fn lock(layout: &Layout, access: Access) -> Result<Option<Lock>> {
    match access {
        Access::Write => Lock::acquire(&layout.lock()).map(Some),
        Access::Read => Lock::share(&layout.lock()).map(Some),
        Access::Snapshot => Ok(None),
    }
}

/// Whether something is missing or unfinished, or so much lies in a log that every reader would have to
/// read it anew.
fn has_to_recover(layout: &Layout) -> bool {
    let is_whole = |part: &Path| part.is_dir() && !part_unfinished(part).exists();
    let databases = [layout.state(), layout.cache()].map(|part| database(&part));
    let log_bytes = databases.iter().map(|database| Database::log_bytes(database)).sum::<u64>();
    !layout.parts().iter().all(|part| is_whole(part))
        || CacheDatabase::is_condemned(&databases[1])
        || log_bytes > READ_LOG_BYTES_MAX
}

/// Makes what is missing, refuses what is somebody else's, and says which store it is.
fn prepare(layout: &Layout, access: Access, subvolumes: &[StorePart]) -> Result<StoreFile> {
    match layout.state().exists() {
        true => parts::require_directory(&layout.state())?,
        false if access == Access::Write => {
            create(layout, subvolumes.contains(&StorePart::State))?;
        }
        // It was deleted meanwhile.
        false => require_store(layout)?,
    }
    // Whoever receives a snapshot is root, and it belongs to whom it belonged to where it comes from.
    if !(access == Access::Snapshot && rustix::process::geteuid().is_root()) {
        file::check_owner(&layout.state())?;
    }
    let store_file = read_store_file(&layout.state())?;
    if access == Access::Write {
        remove_begun(layout);
        parts::prepare(layout, &store_file, subvolumes)?;
    }
    Ok(store_file)
}

/// Removes what a migration or a restore that was broken off has left: a copy that did not get its place,
/// or what had the place before.
fn remove_begun(layout: &Layout) {
    for begun in layout.parts().map(|part| part_unfinished(&part)) {
        if let Err(error) = copy::remove(&begun) {
            tracing::warn!(%error, "what was begun stays");
        }
    }
}

fn open_recorder(layout: &Layout, store: &StoreFile, access: Access) -> Recorder {
    let open = if access == Access::Snapshot { Recorder::idle } else { Recorder::open };
    open(trace_directory(&layout.timing()), store.store_id)
}

fn open_segments(layout: &Layout, store: &StoreFile, is_written: bool) -> SegmentDirectory {
    let open = if is_written { SegmentDirectory::open } else { SegmentDirectory::open_to_read };
    open(&layout.vectors(), store.store_id)
}

fn open_state(layout: &Layout, memory: MemoryCap, is_written: bool) -> Result<StateDatabase> {
    let (path, memory) = (layout.state(), memory.database());
    match is_written {
        true => StateDatabase::open(&path, Creation::Refuse, memory),
        false => StateDatabase::open_to_read(&path, memory),
    }
}

/// Opens both, each of which waits for the disk most of its time.
fn at_the_same_time<A, B: Send>(a: impl FnOnce() -> A, b: impl FnOnce() -> B + Send) -> (A, B) {
    std::thread::scope(|scope| {
        let b = scope.spawn(b);
        let a = a();
        (a, b.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

fn collections(state: &StateDatabase, hash_seed: u64) -> Result<BTreeMap<String, Arc<Collection>>> {
    let named = |(name, spec): (CollectionName, CollectionSpec)| {
        (name.to_string(), Arc::new(Collection::new(name, spec, hash_seed)))
    };
    Ok(state.collections()?.into_iter().map(named).collect())
}

fn followers(state: &StateDatabase) -> Followers {
    Followers::new(state.last_trimmed().unwrap_or_else(|error| {
        // Whoever reads those changes hears of it; the rest can be used, and scrubbed.
        tracing::warn!(%error, "the oldest changes cannot be read");
        0
    }))
}

pub(super) fn require_store(layout: &Layout) -> Result<()> {
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
fn create(layout: &Layout, is_subvolume: bool) -> Result<()> {
    if Snapshots::of(layout.base()).are_there() {
        let context = format!("{} has snapshots of a store, and no store", layout.base().display());
        return Err(Error::new(ErrorKind::Invalid, context).with_remedy(
            "ask them with --at, make a store of one elsewhere with op-dbus snapshot restore --to DIR, \
             or name another directory",
        ));
    }
    let unfinished = layout.state_unfinished();
    copy::remove(&unfinished)?;
    parts::make(&unfinished, is_subvolume)?;
    let memory = MemoryCap::find(None).database();
    drop(StateDatabase::open(&unfinished, Creation::Create, memory)?);
    let bytes = StoreFile {
        store_id: random::bytes()?,
        hash_seed: u64::from_le_bytes(random::bytes()?),
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

pub(super) fn read_store_file(state: &Path) -> Result<StoreFile> {
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
