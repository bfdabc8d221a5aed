//! Files and directories: durable creation, exclusive locks, allocated size.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::error::{Error, ErrorKind, Result};

/// The unit of [`MetadataExt::blocks`].
pub(crate) const SECTOR_BYTES: u64 = 512;

/// Reads a small file whole, refusing one longer than `limit_bytes`.
pub(crate) fn read_bounded(path: &Path, limit_bytes: u64) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(|error| Error::io("open", path, error))?;
    let mut bytes = Vec::new();
    file.take(limit_bytes + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::io("read", path, error))?;
    if bytes.len() as u64 > limit_bytes {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("{} is longer than {limit_bytes} bytes", path.display()),
        ));
    }
    Ok(bytes)
}

/// Lets the kernel forget what it holds of a file, so that reading it asks the disk.
///
/// Advice: what is mapped or not yet written stays.
pub(crate) fn forget_cached(file: &File) {
    // A file system that does not take it answers from memory, as it would without.
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
}

/// Creates a file with these bytes and makes them durable.
///
/// The name itself is durable only after [`sync_directory`] on its parent.
pub(crate) fn create_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create_new(path).map_err(|error| Error::io("create", path, error))?;
    file.write_all(bytes).map_err(|error| Error::io("write", path, error))?;
    file.sync_all().map_err(|error| Error::io("sync", path, error))
}

/// Puts a file with these bytes in the place of another, whole, without waiting for the disk.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let unfinished = path.with_extension("unfinished");
    fs::write(&unfinished, bytes).map_err(|error| Error::io("write", &unfinished, error))?;
    fs::rename(&unfinished, path).map_err(|error| Error::io("replace", path, error))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| Error::io("sync directory", path, error))
}

/// Whether there is a directory itself, and no link to one.
pub(crate) fn is_real_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|status| status.is_dir())
}

/// Puts two directories in each other's place, in one step.
pub(crate) fn exchange(a: &Path, b: &Path) -> Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)
        .map_err(|error| Error::io("exchange with another", b, error.into()))
}

/// Creates a directory and its parents, if missing, and makes their names durable.
pub(crate) fn create_directories(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        create_directories(parent)?;
    }
    // Ours are nobody else's to read: records can be private, and so is the seed of hashes.
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && path.is_dir() => {}
        created => created.map_err(|error| Error::io("create directory", path, error))?,
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    sync_directory(parent.unwrap_or(Path::new(".")))
}

/// Sums the bytes on disk that the files below a directory use.
///
/// A compressed or sparse file uses fewer than its length, and of a file that is allocated in
/// advance, as RocksDB's logs are, only its length is used. A file that vanishes while we look (compaction deletes files at any time) counts as nothing.
pub(crate) fn used_bytes(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let metadata = entry.metadata().ok()?;
            Some(if metadata.is_dir() {
                used_bytes(&entry.path())
            } else {
                metadata.len().min(metadata.blocks() * SECTOR_BYTES)
            })
        })
        .sum()
}

/// How much fits on a file system.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// What this user may still write.
    pub(crate) available_bytes: u64,
    /// The size of the file system.
    pub(crate) total_bytes: u64,
}

/// Asks the file system of a directory for its room.
pub(crate) fn room(directory: &Path) -> Result<Room> {
    let status = rustix::fs::statvfs(directory)
        .map_err(|error| Error::io("ask for the room of", directory, error.into()))?;
    Ok(Room {
        available_bytes: status.f_bavail.saturating_mul(status.f_frsize),
        total_bytes: status.f_blocks.saturating_mul(status.f_frsize),
    })
}

/// Whether a directory's file system lies in memory.
pub(crate) fn is_in_memory(directory: &Path) -> bool {
    /// `TMPFS_MAGIC` in linux/magic.h.
    const TMPFS: u64 = 0x0102_1994;
    has_type(directory, TMPFS)
}

/// Whether a directory's file system does not take off its room what was written, until that is
/// synced (see [`settle`]).
pub(crate) fn counts_late(directory: &Path) -> bool {
    is_btrfs(directory)
}

/// Whether a file or directory lies on BTRFS.
pub(crate) fn is_btrfs(path: &Path) -> bool {
    /// `BTRFS_SUPER_MAGIC` in linux/magic.h.
    const BTRFS: u64 = 0x9123_683E;
    has_type(path, BTRFS)
}

fn has_type(directory: &Path, magic: u64) -> bool {
    // Its type differs between architectures.
    rustix::fs::statfs(directory).is_ok_and(|status| u64::try_from(status.f_type) == Ok(magic))
}

/// The bytes of room that a file holds, whatever its length; 0 if there is none.
pub(crate) fn allocated_bytes(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.blocks() * SECTOR_BYTES)
}

/// Creates an empty file that holds so many bytes of room.
pub(crate) fn allocate(path: &Path, len_bytes: u64) -> Result<()> {
    use rustix::fs::FallocateFlags;
    let file = File::create(path).map_err(|error| Error::io("create", path, error))?;
    rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, len_bytes).map_err(|error| {
        // The error that counts is the first one.
        let _ = fs::remove_file(path);
        Error::io("allocate", path, error.into())
    })
}

/// Removes a file.
pub(crate) fn remove(path: &Path) -> Result<()> {
    fs::remove_file(path).map_err(|error| Error::io("remove", path, error))
}

/// Waits until the room of a file system is what its files leave: BTRFS gives back that of removed
/// ones, and counts that of written ones, when its transaction ends, not before.
pub(crate) fn settle(directory: &Path) -> Result<()> {
    File::open(directory)
        .and_then(|directory| Ok(rustix::fs::syncfs(&directory)?))
        .map_err(|error| Error::io("sync the file system of", directory, error))
}

/// Removes a file; that it is missing is no error.
pub(crate) fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", path, error))
        }
        _ => Ok(()),
    }
}

/// A file of a few bytes that is overwritten in place.
#[derive(Debug)]
pub(crate) struct SmallFile {
    file: File,
}

impl SmallFile {
    /// Opens the file for writing, making it if it is missing.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map(|file| Self { file })
            .map_err(|error| Error::io("open", path, error))
    }

    /// Writes the bytes at the beginning, without waiting for the disk.
    pub(crate) fn overwrite(&self, bytes: &[u8]) -> std::io::Result<()> {
        self.file.write_all_at(bytes, 0)
    }
}

/// Refuses a directory that belongs to another user: what we make there, they could not open.
pub(crate) fn check_owner(directory: &Path) -> Result<()> {
    let metadata = fs::metadata(directory).map_err(|error| Error::io("open", directory, error))?;
    let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner == user {
        return Ok(());
    }
    let path = directory.display();
    Err(Error::new(
        ErrorKind::Denied,
        format!("{path} belongs to user {owner}, and this process runs as user {user}"),
    )
    .with_remedy(format!("run it as user {owner}, for example with sudo -u '#{owner}'")))
}

/// No process id and address are longer.
const HOLDER_LEN_MAX_BYTES: u64 = 4096;

/// A lock on a file, held until dropped or until the process dies.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock at `path`, and waits for whoever holds it.
    pub(crate) fn wait_for(path: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|error| Error::io("open", path, error))?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive)
            .map_err(|error| Error::io("lock", path, error.into()))?;
        Ok(Self { file })
    }

    /// Takes the lock at `path` and writes this process's id into the file.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] with the holder's process id if another process holds it.
    pub(crate) fn acquire(path: &Path) -> Result<Self> {
        Self::take(path, FlockOperation::NonBlockingLockExclusive)
    }

    /// The same with others who share it.
    ///
    /// # Errors
    /// As [`Lock::acquire`] if another process holds it alone.
    pub(crate) fn share(path: &Path) -> Result<Self> {
        Self::take(path, FlockOperation::NonBlockingLockShared)
    }

    /// Makes a shared lock one that is held alone. If others share it, it is lost.
    pub(crate) fn hold_alone(&self) -> bool {
        rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive).is_ok()
    }

    fn take(path: &Path, how: FlockOperation) -> Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|error| Error::io("open", path, error))?;
        match rustix::fs::flock(&file, how) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(held(path, &mut file)),
            Err(error) => return Err(Error::io("lock", path, error.into())),
        }
        // What stands in the file is a courtesy to whoever finds it locked: the lock is the
        // kernel's. A full disk must therefore not keep a store from being opened.
        let lock = Self { file };
        lock.note("");
        Ok(lock)
    }

    /// Writes the process's id into the file, and on the second line where it can be asked.
    pub(crate) fn note(&self, address: &str) {
        let text = format!("{}\n{address}\n", std::process::id());
        let noted = self.file.set_len(0).and_then(|()| self.file.write_all_at(text.as_bytes(), 0));
        if let Err(error) = noted {
            tracing::debug!(%error, "cannot note the lock's holder");
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a process that another thread is just starting has the same file
        // open until its exec, and would hold the lock that long.
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }
}

/// Where whoever has locked `path` can be asked, if it said so.
pub(crate) fn lock_address(path: &Path) -> Option<String> {
    let file = File::open(path).ok()?;
    // What the last holder noted stays in the file.
    let Err(Errno::WOULDBLOCK) = rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared)
    else {
        return None;
    };
    let text = read_bounded(path, HOLDER_LEN_MAX_BYTES).ok()?;
    let text = String::from_utf8(text).ok()?;
    let (holder, address) = text.split_once('\n')?;
    // Whoever was killed has left what it wrote.
    process_name(holder)?;
    Some(address.trim()).filter(|address| !address.is_empty()).map(str::to_owned)
}

fn held(path: &Path, file: &mut File) -> Error {
    let mut holder = String::new();
    // The holder's name is a courtesy; the lock is the fact.
    let _ = file.take(HOLDER_LEN_MAX_BYTES).read_to_string(&mut holder);
    let (holder, address) = holder.split_once('\n').unwrap_or((&holder, ""));
    let (holder, address) = (holder.trim(), address.trim());
    let directory = path.parent().unwrap_or(path).display();
    let who = match process_name(holder) {
        Some(name) => format!("process {holder} ({name})"),
        None if holder.is_empty() => "another process".to_owned(),
        None => format!("process {holder}"),
    };
    let error = Error::new(ErrorKind::Busy, format!("the store at {directory} is in use by {who}"));
    match address {
        "" => error.with_remedy("wait until it has ended, or use another store"),
        address => error.with_remedy(format!("ask it by --bus {address}, or use another store")),
    }
}

fn process_name(pid: &str) -> Option<String> {
    let pid: u32 = pid.parse().ok()?;
    let comm = PathBuf::from(format!("/proc/{pid}/comm"));
    Some(fs::read_to_string(comm).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_names_the_holder() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("LOCK");
        let first = Lock::acquire(&path).unwrap();
        let error = Lock::acquire(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        first.note("system");
        assert_eq!(lock_address(&path).as_deref(), Some("system"));
        drop(first);
        assert_eq!(lock_address(&path), None);
        Lock::acquire(&path).unwrap();
    }

    #[test]
    fn reading_is_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        create_synced(&path, b"12345").unwrap();
        assert_eq!(read_bounded(&path, 5).unwrap(), b"12345");
        assert_eq!(read_bounded(&path, 4).unwrap_err().kind(), ErrorKind::Invalid);
        let missing = read_bounded(&directory.path().join("y"), 4).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
    }
}
