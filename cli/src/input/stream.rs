//! Bytes of a file, of standard input, or of a pipe with a name.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::is_stdin;
use crate::error::{Error, Result};
use crate::interrupt;

/// How long a reader waits before it looks whether the user wants it to stop.
const WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// An input that ends when the user presses Ctrl-C, so that what was read is kept.
pub(super) struct Stream {
    file: File,
    may_wait: bool,
}

impl Stream {
    /// Opens a file, or standard input for `-`.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let failed = |error| Error::io("open", path, error);
        let file = if is_stdin(path) {
            File::from(std::io::stdin().as_fd().try_clone_to_owned().map_err(failed)?)
        } else {
            File::open(path).map_err(failed)?
        };
        let may_wait = !file.metadata().map_err(failed)?.is_file();
        Ok(Self { file, may_wait })
    }

    /// Waits for something to read; says whether it came before the user wanted to stop.
    fn wait(&self) -> std::io::Result<bool> {
        while !interrupt::is_requested() {
            match poll(&mut [PollFd::new(&self.file, PollFlags::IN)], Some(&WAIT)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
    }

    /// Whether a read may have to wait for somebody who writes.
    pub(super) fn may_wait(&self) -> bool {
        self.may_wait
    }
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        if self.may_wait && !self.wait()? {
            return Ok(0);
        }
        self.file.read(bytes)
    }
}
