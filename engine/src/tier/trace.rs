//! Recording which vectors are asked for, so that policies can be compared on real traffic.
//!
//! The trace that is being recorded lies under a fixed name in its directory. That it is there is
//! the wish to record: every opening of the store goes on with it until [`Recorder::stop`] gives it
//! a name of its own. Off, a recorder costs one load a lookup.
//!
//! # What holds
//! - A trace never makes a lookup fail or a store unopenable: what cannot be recorded is logged, and
//!   recording ends.
//! - It does not grow beyond its limit.
//! - What is on the disk is a trace up to its last whole block. A killed process loses at most the
//!   accesses of one block; a process that ends by itself loses none.
//!
//! What is deliberately lacking: durability (nothing is synced but the name), and times.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use op_dbus_formats::FormatError;
use op_dbus_formats::trace::{
    BLOCK_ACCESSES_MAX, BLOCK_HEADER_LEN_BYTES, BLOCK_LEN_MAX_BYTES, TRACE_START_LEN_BYTES,
    TraceStart, TracedAccess, block_len_bytes, decode_block, encode_block,
};

use crate::error::{Error, ErrorKind, Result};
use crate::layout::{current_trace, finished_trace, unfinished_trace};
use crate::os::file;

/// A trace ends when it could grow beyond this by another block.
const TRACE_LEN_MAX_BYTES: u64 = 256 << 20;

/// What a trace holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceReport {
    /// Where it is.
    pub path: PathBuf,
    /// When recording began, in milliseconds since 1970-01-01 UTC.
    pub started_unix_ms: u64,
    /// Accesses in it.
    pub accesses: u64,
    /// Bytes up to the end of its last whole block.
    pub len_bytes: u64,
    /// Bytes after that, which a process was killed in writing or which are damaged.
    pub unfinished_bytes: u64,
    /// Whether recording ended by itself, because the trace had reached its limit.
    pub full: bool,
}

/// Reads a trace and hands its accesses, in their order, to `read`.
///
/// A trace ends before the first block that is unfinished or damaged.
///
/// # Errors
/// [`ErrorKind::NotFound`] if there is no such file, [`ErrorKind::Corrupt`] if it does not begin as
/// a trace does, [`ErrorKind::Unsupported`] if a newer version wrote it.
pub fn read_trace(path: &Path, read: impl FnMut(TracedAccess)) -> Result<TraceReport> {
    let file = File::open(path).map_err(|error| Error::io("open", path, error))?;
    scan(path, &file, TRACE_LEN_MAX_BYTES, read).map(|scan| scan.report)
}

/// Takes down what is asked for, if somebody wants that.
pub(crate) struct Recorder {
    recording: AtomicBool,
    trace: Mutex<Option<GrowingTrace>>,
    directory: PathBuf,
    store_id: [u8; 16],
    len_max_bytes: u64,
}

/// The trace that is being recorded.
struct GrowingTrace {
    file: File,
    path: PathBuf,
    len_bytes: u64,
    blocks_count: u32,
    accesses: Vec<TracedAccess>,
}

struct Scan {
    report: TraceReport,
    blocks_count: u32,
}

impl Recorder {
    /// Goes on with the trace in this directory, if there is one to go on with.
    pub(crate) fn open(directory: PathBuf, store_id: [u8; 16]) -> Self {
        Self::with_limit(directory, store_id, TRACE_LEN_MAX_BYTES)
    }

    /// One that does not go on with a trace, which lies where nothing is written.
    pub(crate) fn idle(directory: PathBuf, store_id: [u8; 16]) -> Self {
        Self {
            recording: AtomicBool::new(false),
            trace: Mutex::new(None),
            directory,
            store_id,
            len_max_bytes: 0,
        }
    }

    fn with_limit(directory: PathBuf, store_id: [u8; 16], len_max_bytes: u64) -> Self {
        let mut recorder = Self::idle(directory, store_id);
        recorder.len_max_bytes = len_max_bytes;
        if let Err(error) = recorder.resume() {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(%error, cause, "accesses are not recorded");
        }
        recorder
    }

    /// Notes that a vector was asked for. `key_hash` is the low half of its 128-bit key.
    #[inline]
    pub(crate) fn record(&self, key_hash: u64, vector_len_bytes: usize) {
        if self.recording.load(Ordering::Relaxed) {
            self.append(key_hash, vector_len_bytes);
        }
    }

    /// Begins a trace, which later openings of the store go on with; returns where it is.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if one is being recorded, [`ErrorKind::Io`] or [`ErrorKind::Full`] if
    /// the disk refuses.
    pub(crate) fn start(&self, now_unix_ms: u64) -> Result<PathBuf> {
        let mut trace = self.lock();
        let path = current_trace(&self.directory);
        if path.exists() {
            let problem = format!("a trace is being recorded in {}", path.display());
            return Err(Error::new(ErrorKind::Invalid, problem).with_remedy("stop it first"));
        }
        file::create_directories(&self.directory)?;
        let mut started_unix_ms = now_unix_ms;
        // A clock that was set back must not lead to a name that is taken.
        while finished_trace(&self.directory, started_unix_ms).exists() {
            started_unix_ms += 1;
        }
        let unfinished = unfinished_trace(&self.directory);
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &unfinished, error));
            }
            _ => {}
        }
        let start = TraceStart { store_id: self.store_id, started_unix_ms };
        file::create_synced(&unfinished, &start.encode())?;
        fs::rename(&unfinished, &path).map_err(|error| Error::io("create", &path, error))?;
        file::sync_directory(&self.directory)?;
        *trace = self.grow(&path)?;
        self.recording.store(trace.is_some(), Ordering::Relaxed);
        Ok(path)
    }

    /// Ends the trace, gives it a name of its own, and tells what it holds.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if none is being recorded, [`ErrorKind::Corrupt`] if it is damaged,
    /// [`ErrorKind::Io`] or [`ErrorKind::Full`] if the disk refuses.
    pub(crate) fn stop(&self) -> Result<TraceReport> {
        let mut trace = self.lock();
        let path = current_trace(&self.directory);
        if !path.exists() {
            let problem = format!("no trace is being recorded in {}", self.directory.display());
            return Err(Error::new(ErrorKind::NotFound, problem).with_remedy("start one first"));
        }
        self.recording.store(false, Ordering::Relaxed);
        if let Some(mut trace) = trace.take() {
            trace.flush()?;
        }
        let file = File::open(&path).map_err(|error| Error::io("open", &path, error))?;
        let scan = scan(&path, &file, self.len_max_bytes, |_| ())?;
        let finished = finished_trace(&self.directory, scan.report.started_unix_ms);
        fs::rename(&path, &finished).map_err(|error| Error::io("rename", &path, error))?;
        file::sync_directory(&self.directory)?;
        Ok(TraceReport { path: finished, ..scan.report })
    }

    fn resume(&self) -> Result<()> {
        let path = current_trace(&self.directory);
        if !path.exists() {
            return Ok(());
        }
        let mut trace = self.lock();
        *trace = self.grow(&path)?;
        self.recording.store(trace.is_some(), Ordering::Relaxed);
        Ok(())
    }

    /// Opens a trace at the end of its last whole block; `None` if it is full.
    fn grow(&self, path: &Path) -> Result<Option<GrowingTrace>> {
        let failed = |error| Error::io("open", path, error);
        let mut file = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
        let Scan { report, blocks_count } = scan(path, &file, self.len_max_bytes, |_| ())?;
        if report.full {
            tracing::warn!(path = %path.display(), "the trace is full; nothing more is recorded");
            return Ok(None);
        }
        if report.unfinished_bytes > 0 {
            let (path, bytes) = (path.display(), report.unfinished_bytes);
            tracing::warn!(%path, bytes, "the end of the trace is unfinished and goes");
            file.set_len(report.len_bytes).map_err(failed)?;
        }
        file.seek(SeekFrom::Start(report.len_bytes)).map_err(failed)?;
        Ok(Some(GrowingTrace {
            file,
            path: path.to_owned(),
            len_bytes: report.len_bytes,
            blocks_count,
            accesses: Vec::with_capacity(BLOCK_ACCESSES_MAX),
        }))
    }

    #[cold]
    fn append(&self, key_hash: u64, vector_len_bytes: usize) {
        let mut guard = self.lock();
        let Some(trace) = &mut *guard else { return };
        // Nobody has a vector without elements, and none is that long.
        let Some(vector_len_bytes) = u32::try_from(vector_len_bytes).ok().filter(|len| *len > 0)
        else {
            return;
        };
        trace.accesses.push(TracedAccess { key_hash, vector_len_bytes });
        if trace.accesses.len() < BLOCK_ACCESSES_MAX {
            return;
        }
        match trace.flush() {
            Ok(()) if !is_full(trace.len_bytes, self.len_max_bytes) => return,
            Ok(()) => {
                let path = trace.path.display();
                tracing::warn!(%path, "the trace is full; nothing more is recorded");
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, cause, "the trace ends; nothing more is recorded");
            }
        }
        self.recording.store(false, Ordering::Relaxed);
        *guard = None;
    }

    /// Locks; what a panicking thread left behind is at worst a trace with an unfinished end.
    fn lock(&self) -> MutexGuard<'_, Option<GrowingTrace>> {
        self.trace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let trace = self.trace.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(Err(error)) = trace.as_mut().map(GrowingTrace::flush) {
            tracing::warn!(%error, "the last accesses are not in the trace");
        }
    }
}

impl GrowingTrace {
    /// Writes what was noted as a block.
    fn flush(&mut self) -> Result<()> {
        if self.accesses.is_empty() {
            return Ok(());
        }
        let failed = |error| Error::io("write", &self.path, error);
        let block = encode_block(self.blocks_count, &self.accesses)
            .map_err(|error| failed(std::io::Error::other(error)))?;
        self.file.write_all(&block).map_err(failed)?;
        self.accesses.clear();
        self.blocks_count += 1;
        self.len_bytes += block.len() as u64;
        Ok(())
    }
}

fn is_full(len_bytes: u64, len_max_bytes: u64) -> bool {
    len_bytes + BLOCK_LEN_MAX_BYTES as u64 > len_max_bytes
}

/// Reads a trace from its beginning to its last whole block.
fn scan(
    path: &Path,
    file: &File,
    len_max_bytes: u64,
    mut read: impl FnMut(TracedAccess),
) -> Result<Scan> {
    let failed = |error| Error::io("read", path, error);
    let file_len_bytes = file.metadata().map_err(failed)?.len();
    let mut input = BufReader::with_capacity(BLOCK_LEN_MAX_BYTES, file);
    let mut bytes = Vec::with_capacity(BLOCK_LEN_MAX_BYTES);
    fill(&mut input, &mut bytes, TRACE_START_LEN_BYTES).map_err(failed)?;
    let start = TraceStart::decode(&bytes).map_err(|error| not_a_trace(path, error))?;
    let (mut len_bytes, mut blocks_count, mut accesses) = (bytes.len() as u64, 0, 0);
    while let Some(block) = next_block(&mut input, &mut bytes, blocks_count).map_err(failed)? {
        len_bytes += bytes.len() as u64;
        blocks_count += 1;
        accesses += block.len() as u64;
        block.into_iter().for_each(&mut read);
    }
    let report = TraceReport {
        path: path.to_owned(),
        started_unix_ms: start.started_unix_ms,
        accesses,
        len_bytes,
        unfinished_bytes: file_len_bytes.saturating_sub(len_bytes),
        full: is_full(len_bytes, len_max_bytes),
    };
    Ok(Scan { report, blocks_count })
}

/// Reads the block with this number into `bytes` and decodes it; `None` if there is no whole one.
fn next_block(
    input: &mut impl Read,
    bytes: &mut Vec<u8>,
    number: u32,
) -> std::io::Result<Option<Vec<TracedAccess>>> {
    bytes.clear();
    fill(input, bytes, BLOCK_HEADER_LEN_BYTES)?;
    let Some(Ok(len_bytes)) = bytes.first_chunk().map(block_len_bytes) else { return Ok(None) };
    fill(input, bytes, len_bytes)?;
    Ok(decode_block(bytes, number).ok())
}

/// Reads until `bytes` has this length or the input ends.
fn fill(input: &mut impl Read, bytes: &mut Vec<u8>, len_bytes: usize) -> std::io::Result<()> {
    let missing = len_bytes.saturating_sub(bytes.len()) as u64;
    input.take(missing).read_to_end(bytes).map(drop)
}

fn not_a_trace(path: &Path, error: FormatError) -> Error {
    match error {
        FormatError::UnsupportedVersion { .. } => Error::new(
            ErrorKind::Unsupported,
            format!("{} was written by another version", path.display()),
        )
        .with_remedy("use the version of op-dbus that wrote it, or a newer one"),
        _ => Error::new(ErrorKind::Corrupt, format!("{} is no trace", path.display()))
            .with_remedy("remove it and record another"),
    }
    .with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE_ID: [u8; 16] = [7; 16];
    const STARTED: u64 = 1_700_000_000_000;

    fn recorder(directory: &Path) -> Recorder {
        Recorder::open(directory.join("trace"), STORE_ID)
    }

    fn hashes(path: &Path) -> Vec<u64> {
        let mut hashes = Vec::new();
        read_trace(path, |access| {
            assert_eq!(access.vector_len_bytes, 8);
            hashes.push(access.key_hash);
        })
        .unwrap();
        hashes
    }

    #[test]
    fn every_opening_goes_on_until_the_trace_is_stopped() {
        let directory = tempfile::tempdir().unwrap();
        let first = recorder(directory.path());
        first.record(1, 8);
        assert!(!directory.path().join("trace").exists(), "nobody wanted a trace");
        first.start(STARTED).unwrap();
        let accesses = 2 * BLOCK_ACCESSES_MAX as u64 + 5;
        (0..accesses).for_each(|key| first.record(key, 8));
        drop(first);
        let second = recorder(directory.path());
        assert_eq!(second.start(STARTED).unwrap_err().kind(), ErrorKind::Invalid);
        second.record(accesses, 8);
        let report = second.stop().unwrap();
        second.record(u64::MAX, 8);
        assert_eq!((report.accesses, report.started_unix_ms), (accesses + 1, STARTED));
        assert_eq!((report.unfinished_bytes, report.full), (0, false));
        assert_eq!(report.len_bytes, fs::metadata(&report.path).unwrap().len());
        assert_eq!(hashes(&report.path), (0..=accesses).collect::<Vec<_>>());
        assert_eq!(second.stop().unwrap_err().kind(), ErrorKind::NotFound);
        // The same moment again, as after a clock was set back.
        second.start(STARTED).unwrap();
        let empty = second.stop().unwrap();
        assert_eq!((empty.accesses, empty.path == report.path), (0, false));
    }

    #[test]
    fn a_torn_end_is_an_end_and_is_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = recorder(directory.path()).start(STARTED).unwrap();
        for key in [1, 2] {
            recorder(directory.path()).record(key, 8);
        }
        let whole = fs::read(&path).unwrap();
        for len in TRACE_START_LEN_BYTES..whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            let blocks = (len - TRACE_START_LEN_BYTES) / 28;
            assert_eq!(hashes(&path), [1, 2][..blocks], "{len} bytes");
            recorder(directory.path()).record(3, 8);
            assert_eq!(hashes(&path), [&[1, 2][..blocks], &[3]].concat(), "{len} bytes");
        }
        let mut damaged = whole.clone();
        damaged[TRACE_START_LEN_BYTES + 20] ^= 1;
        fs::write(&path, &damaged).unwrap();
        let report = read_trace(&path, |access| panic!("{access:?} is damaged")).unwrap();
        assert_eq!((report.accesses, report.unfinished_bytes), (0, 56));
    }

    #[test]
    fn a_full_trace_ends_by_itself_and_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let len_max_bytes = 3 * BLOCK_LEN_MAX_BYTES as u64;
        let open = || Recorder::with_limit(directory.path().join("trace"), STORE_ID, len_max_bytes);
        let recorder = open();
        recorder.start(STARTED).unwrap();
        (0..10 * BLOCK_ACCESSES_MAX as u64).for_each(|key| recorder.record(key, 8));
        drop(recorder);
        let again = open();
        again.record(1, 8);
        let report = again.stop().unwrap();
        assert!(report.full && report.len_bytes <= len_max_bytes, "{report:?}");
        assert_eq!(report.accesses, 2 * BLOCK_ACCESSES_MAX as u64);
    }

    #[test]
    fn what_is_no_trace_is_left_alone_and_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = current_trace(&directory.path().join("trace"));
        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::write(&path, "something else").unwrap();
        let recorder = recorder(directory.path());
        recorder.record(1, 8);
        let error = recorder.stop().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("current"), "{error}");
        drop(recorder);
        assert_eq!(fs::read(&path).unwrap(), b"something else");
    }

    #[test]
    fn a_disk_that_refuses_ends_the_trace_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let recorder = recorder(directory.path());
        let path = recorder.start(STARTED).unwrap();
        // A file that cannot be written in the place of the one that can.
        recorder.lock().as_mut().unwrap().file = File::open(&path).unwrap();
        (0..3 * BLOCK_ACCESSES_MAX as u64).for_each(|key| recorder.record(key, 8));
        assert!(!recorder.recording.load(Ordering::Relaxed));
        assert_eq!(recorder.stop().unwrap().accesses, 0);
    }
}
