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

/// Asks the file system to compress new files of a directory, or not to; where it cannot, nothing is
/// asked.
pub(crate) fn set_compression(directory: &Path, compression: Compression) {
    if !is_btrfs(directory) {
        return;
    }
    let value: &[u8] = match compression {
        Compression::None => b"none",
        Compression::Zstd => b"zstd",
    };
    let flags = rustix::fs::XattrFlags::empty();
    if let Err(error) = rustix::fs::setxattr(directory, "btrfs.compression", value, flags) {
        tracing::debug!(path = %directory.display(), %error, "compression cannot be set");
    }
}

/// What the file system is asked to do with new files of a directory; `None` if nothing, or by another
/// algorithm.
pub(crate) fn compression(directory: &Path) -> Option<Compression> {
    let mut value = [0_u8; 16];
    let len = rustix::fs::getxattr(directory, "btrfs.compression", &mut value[..]).ok()?;
    match &value[..len] {
        b"none" | b"no" => Some(Compression::None),
        b"zstd" => Some(Compression::Zstd),
        _ => None,
    }
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

/// A subvolume on its way out.
pub(crate) struct Sending {
    child: Child,
    stream: ChildStdout,
}

impl Sending {
    /// Begins to send a read-only subvolume, all of it or what it has and its parent has not.
    pub(crate) fn start(subvolume: &Path, parent: Option<&Path>) -> Result<Self> {
        let mut command = Command::new("btrfs");
        command.args(["send", "-q"]);
        parent.inspect(|parent| _ = command.arg("-p").arg(parent));
        command.arg(subvolume).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = spawn(command)?;
        let stream = child.stdout.take().ok_or_else(|| no_pipe("btrfs send"))?;
        Ok(Self { child, stream })
    }

    /// Whether all of it was sent, after the last was read.
    pub(crate) fn finish(self) -> Result<()> {
        drop(self.stream);
        finish("btrfs send", self.child)
    }
}

impl Read for Sending {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

/// A subvolume on its way in.
pub(crate) struct Receiving {
    child: Child,
    stream: ChildStdin,
}

impl Receiving {
    /// Begins to receive a subvolume, which gets its name in this directory from the stream.
    pub(crate) fn start(directory: &Path) -> Result<Self> {
        let mut command = Command::new("btrfs");
        command.args(["receive", "-q"]).arg(directory).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = spawn(command)?;
        let stream = child.stdin.take().ok_or_else(|| no_pipe("btrfs receive"))?;
        Ok(Self { child, stream })
    }

    /// Whether all of it is there, after the last was written.
    pub(crate) fn finish(self) -> Result<()> {
        drop(self.stream);
        finish("btrfs receive", self.child)
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

fn spawn(mut command: Command) -> Result<Child> {
    command.stderr(Stdio::piped()).spawn().map_err(|error| {
        Error::new(ErrorKind::Unavailable, "the program btrfs cannot be started")
            .with_source(error)
            .with_remedy("install btrfs-progs")
    })
}

fn no_pipe(program: &str) -> Error {
    Error::new(ErrorKind::Io, format!("{program} has no pipe"))
}

fn finish(program: &str, child: Child) -> Result<()> {
    let output = child.wait_with_output().map_err(|error| {
        Error::new(ErrorKind::Io, format!("{program} is lost")).with_source(error)
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    Err(Error::new(ErrorKind::Io, format!("{program}: {said} ({})", output.status)))
}

/// Why the library failed, asked at once: it is the number of the last system call.
fn failed(action: &str, path: &Path, error: btrfsutil::error::BtrfsUtilError) -> Error {
    let system = io::Error::last_os_error();
    Error::io(action, path, io::Error::new(system.kind(), error.to_string()))
}
