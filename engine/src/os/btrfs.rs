//! Subvolumes of BTRFS: making, copying, removing and sending them.
//!
//! Creating subvolumes and read-only snapshots needs no capability. Deleting one needs it, or the
//! mount option `user_subvol_rm_allowed`; without, an empty one that can be written to is removed as
//! a directory is. Sending and receiving is for root, and the work of the program `btrfs`: the kernel
//! makes streams, but no library reads them.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;

use btrfsutil::subvolume::{SnapshotFlags, Subvolume};

use super::file::is_btrfs;
use crate::error::{Error, ErrorKind, Result};

/// Inode of the root of every subvolume.
const ROOT_INODE: u64 = 256;

/// Whether this is the root of a subvolume.
pub(crate) fn is_subvolume(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let is_root = fs::symlink_metadata(path)
        .is_ok_and(|status| status.is_dir() && status.ino() == ROOT_INODE);
    is_root && is_btrfs(path)
}

/// What the file system is asked to do with new files of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    /// Leave them as they are.
    None,
    /// Compress what becomes smaller, at the level of the mount.
    Zstd,
}

impl Compression {
    /// As the property has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Zstd => "zstd",
        }
    }
}

/// Asks the file system to compress new files of a directory, or not to; where it cannot, nothing is
/// asked.
pub(crate) fn set_compression(directory: &Path, compression: Compression) {
    if !is_btrfs(directory) {
        return;
    }
    let value = compression.name().as_bytes();
    let flags = rustix::fs::XattrFlags::empty();
    if let Err(error) = rustix::fs::setxattr(directory, "btrfs.compression", value, flags) {
        tracing::debug!(path = %directory.display(), %error, "compression cannot be set");
    }
}

/// What the file system is asked to do with new files of a directory; `None` if nothing.
pub(crate) fn compression(directory: &Path) -> Option<String> {
    let mut value = [0_u8; 32];
    let len = rustix::fs::getxattr(directory, "btrfs.compression", &mut value[..]).ok()?;
    let value = String::from_utf8_lossy(&value[..len]).into_owned();
    Some(value).filter(|value| !value.is_empty())
}

/// Whether new files of a directory are written elsewhere when they change, and have checksums
/// (`chattr +C` takes both away).
pub(crate) fn copies_on_write(directory: &Path) -> bool {
    let flags =
        fs::File::open(directory).and_then(|directory| Ok(rustix::fs::ioctl_getflags(&directory)?));
    flags.is_ok_and(|flags| !flags.contains(rustix::fs::IFlags::NOCOW))
}

/// Makes a subvolume.
pub(crate) fn create(path: &Path) -> Result<()> {
    Subvolume::create(path, None).map(drop).map_err(|error| failed("create subvolume", path, error))
}

/// Makes a read-only copy of a subvolume as it is at one moment, without copying what is in it.
pub(crate) fn snapshot(subvolume: &Path, target: &Path) -> Result<()> {
    copy(subvolume, target, Some(SnapshotFlags::READ_ONLY))
}

/// Makes a copy of a subvolume that can be written to.
pub(crate) fn writable_copy(subvolume: &Path, target: &Path) -> Result<()> {
    copy(subvolume, target, None)
}

fn copy(subvolume: &Path, target: &Path, flags: Option<SnapshotFlags>) -> Result<()> {
    Subvolume::get(subvolume)
        .and_then(|subvolume| subvolume.snapshot(target, flags, None))
        .map(drop)
        .map_err(|error| failed("snapshot to", target, error))
}

/// Removes a subvolume with all that is in it.
pub(crate) fn delete(path: &Path) -> Result<()> {
    let refused = match Subvolume::get(path).and_then(|subvolume| subvolume.delete(None)) {
        Ok(()) => return Ok(()),
        Err(error) => failed("delete subvolume", path, error),
    };
    // Whoever may not delete it may empty it, if it can be made writable.
    let emptied = Subvolume::get(path).and_then(|subvolume| subvolume.set_ro(false)).is_ok()
        && fs::remove_dir_all(path).is_ok();
    if emptied { Ok(()) } else { Err(refused) }
}

/// What a subvolume is known by where it was sent to, and to: the UUID of the one that was first sent.
pub(crate) fn sent_id(subvolume: &Path) -> Result<[u8; 16]> {
    let info = Subvolume::get(subvolume).and_then(|subvolume| subvolume.info());
    let info = info.map_err(|error| failed("look at subvolume", subvolume, error))?;
    Ok(*info.received_uuid.unwrap_or(info.uuid).as_bytes())
}

/// Refuses to go on for anybody but root.
pub(crate) fn require_root(action: &str) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Denied, format!("only root may {action} snapshots of BTRFS"))
        .with_remedy("run it with sudo"))
}

/// The program `btrfs` at work, which ends with this.
struct Program {
    name: &'static str,
    child: Child,
    /// What it says, read all the time so that it never waits.
    said: Option<JoinHandle<String>>,
}

impl Program {
    fn start(name: &'static str, command: &mut Command) -> Result<Self> {
        let mut child = command.stderr(Stdio::piped()).spawn().map_err(|error| {
            Error::new(ErrorKind::Unavailable, "the program btrfs cannot be started")
                .with_source(error)
                .with_remedy("install btrfs-progs")
        })?;
        let said = child.stderr.take().map(|mut stderr| {
            std::thread::spawn(move || {
                let mut said = Vec::new();
                // What it cannot say is not worth a failure of its own.
                let _ = stderr.read_to_end(&mut said);
                String::from_utf8_lossy(&said).trim().replace('\n', "; ")
            })
        });
        Ok(Self { name, child, said })
    }

    /// Waits for its end, after its stream was closed.
    fn finish(mut self) -> Result<()> {
        let name = self.name;
        let status = self.child.wait().map_err(|error| {
            Error::new(ErrorKind::Io, format!("{name} is lost")).with_source(error)
        })?;
        if status.success() {
            return Ok(());
        }
        let said = self.said.take().and_then(|said| said.join().ok()).unwrap_or_default();
        Err(Error::new(ErrorKind::Io, format!("{name}: {said} ({status})")))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It has ended, or nobody wants what it does.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A subvolume on its way out.
pub(crate) struct Sending {
    stream: ChildStdout,
    program: Program,
}

impl Sending {
    /// Begins to send a read-only subvolume, all of it or what it has and its parent has not.
    pub(crate) fn start(subvolume: &Path, parent: Option<&Path>) -> Result<Self> {
        let mut command = Command::new("btrfs");
        command.args(["send", "-q"]);
        parent.inspect(|parent| _ = command.arg("-p").arg(parent));
        command.arg("--").arg(subvolume).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut program = Program::start("btrfs send", &mut command)?;
        let stream = program.child.stdout.take().ok_or_else(|| no_pipe("btrfs send"))?;
        Ok(Self { stream, program })
    }

    /// Whether all of it was sent, after the last was read.
    pub(crate) fn finish(self) -> Result<()> {
        drop(self.stream);
        self.program.finish()
    }
}

impl Read for Sending {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

/// A subvolume on its way in.
pub(crate) struct Receiving {
    stream: ChildStdin,
    program: Program,
}

impl Receiving {
    /// Begins to receive a subvolume, which gets its name in this directory from the stream.
    pub(crate) fn start(directory: &Path) -> Result<Self> {
        let mut command = Command::new("btrfs");
        command
            .args(["receive", "-q", "--"])
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        let mut program = Program::start("btrfs receive", &mut command)?;
        let stream = program.child.stdin.take().ok_or_else(|| no_pipe("btrfs receive"))?;
        Ok(Self { stream, program })
    }

    /// Whether all of it is there, after the last was written.
    pub(crate) fn finish(self) -> Result<()> {
        drop(self.stream);
        self.program.finish()
    }
}

impl Write for Receiving {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

fn no_pipe(program: &str) -> Error {
    Error::new(ErrorKind::Io, format!("{program} has no pipe"))
}

/// Why the library failed, asked at once: it is the number of the last system call.
fn failed(action: &str, path: &Path, error: btrfsutil::error::BtrfsUtilError) -> Error {
    let system = io::Error::last_os_error();
    Error::io(action, path, io::Error::new(system.kind(), error.to_string()))
}
