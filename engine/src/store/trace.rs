//! Recording which vectors are asked for.

use std::path::PathBuf;

use super::Store;
use crate::error::Result;
use crate::os::clock::unix_ms;
use crate::tier::TraceReport;

impl Store {
    /// Begins to record which vectors are asked for, here and in every later opening of this store
    /// by any program, until [`Store::stop_trace`]; returns where the trace is.
    ///
    /// A trace holds hashes, not texts. It ends by itself when it is 256 MiB long.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if a trace is being recorded,
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) or [`ErrorKind::Full`](crate::ErrorKind::Full) if
    /// the disk refuses.
    pub fn start_trace(&self) -> Result<PathBuf> {
        self.require_writable()?;
        self.recorder.start(unix_ms())
    }

    /// Ends the trace and tells where it is now and what it holds; see
    /// [`read_trace`](crate::read_trace).
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) if none is being recorded,
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) if it is damaged,
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) or [`ErrorKind::Full`](crate::ErrorKind::Full) if
    /// the disk refuses.
    pub fn stop_trace(&self) -> Result<TraceReport> {
        self.require_writable()?;
        self.recorder.stop()
    }
}
