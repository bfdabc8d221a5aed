//! A disk of one's own: an image on a loop device. The power of an ext4 can be cut.
//!
//! The cut is ext4's own shutdown: from then on nothing is written, and what no sync had brought
//! to the image is lost with the page cache. Mounting again replays ext4's journal, as after a
//! power failure. Limit: the image keeps every write in the order in which it was issued, so a
//! disk that loses or reorders what is in its own volatile cache is not imitated.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::ioctl;
use tempfile::TempDir;

/// `EXT4_IOC_SHUTDOWN`, the same number as XFS's GOINGDOWN: `_IOR('X', 125, __u32)`.
const SHUTDOWN: ioctl::Opcode = ioctl::opcode::read::<u32>(b'X', 125);
/// `EXT4_GOING_FLAGS_NOLOGFLUSH`: not even ext4's own journal is written out.
const NO_LOG_FLUSH: u32 = 2;

/// What a [`Disk`] is formatted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// Its power can be cut.
    Ext4,
    /// Copies on write: even a removal needs room.
    Btrfs,
    /// Can copy files without copying what is in them, as BTRFS does. Takes 300 MB at least.
    Xfs,
}

impl FileSystem {
    fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Btrfs => "btrfs",
            Self::Xfs => "xfs",
        }
    }

    fn make_command(self) -> Command {
        let mut command = Command::new(format!("mkfs.{}", self.name()));
        command.arg("-q");
        if self == Self::Ext4 {
            // It asks before it formats a plain file.
            command.arg("-F");
        }
        command
    }
}

/// A mounted file system of its own.
pub struct Disk {
    file_system: FileSystem,
    image: PathBuf,
    mount_point: PathBuf,
    options: String,
    mounted: bool,
    // Last, so that what lies in it is unmounted before it is removed.
    directory: TempDir,
}

impl Disk {
    /// Makes and mounts an ext4 of this size; see [`Self::create_as`].
    ///
    /// # Errors
    /// As there.
    pub fn create(len_bytes: u64) -> Result<Self, String> {
        Self::create_as(FileSystem::Ext4, len_bytes)
    }

    /// Makes and mounts a file system of this size; it takes room only for what is written.
    ///
    /// # Errors
    /// Says why this machine has no such disks: the program that formats, loop devices or the
    /// right to mount is missing.
    pub fn create_as(file_system: FileSystem, len_bytes: u64) -> Result<Self, String> {
        Self::create_with(file_system, len_bytes, "")
    }

    /// The same, mounted with options such as `compress=zstd:3`.
    ///
    /// # Errors
    /// As [`Self::create_as`].
    pub fn create_with(
        file_system: FileSystem,
        len_bytes: u64,
        options: &str,
    ) -> Result<Self, String> {
        let directory =
            TempDir::new().map_err(|error| format!("no temporary directory: {error}"))?;
        let image = directory.path().join("image");
        let mount_point = directory.path().join("disk");
        let make = || -> io::Result<()> {
            File::create_new(&image)?.set_len(len_bytes)?;
            std::fs::create_dir(&mount_point)
        };
        make().map_err(|error| format!("cannot make an image: {error}"))?;
        run(file_system.make_command().arg(&image))?;
        let options = ["loop,nosuid,nodev", options].join(",").trim_end_matches(',').to_owned();
        let mut disk = Self { file_system, image, mount_point, options, mounted: false, directory };
        disk.mount()?;
        Ok(disk)
    }

    /// The directory where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.mount_point
    }

    /// Unmounts the disk and leaves its image for people to look at.
    ///
    /// # Panics
    /// If a file is still open below it.
    pub fn keep(&mut self) -> PathBuf {
        self.unmount().expect("nobody uses the disk");
        self.directory.disable_cleanup(true);
        self.image.clone()
    }

    /// Cuts the power: nothing more reaches the disk until [`Self::replug`].
    ///
    /// # Panics
    /// If the kernel refuses, as it does for all but ext4.
    pub fn cut(&self) {
        let root = File::open(&self.mount_point).expect("the mount point is a directory");
        shut_down(&root).expect("ext4 can be shut down by whoever mounted it");
    }

    /// Mounts what the cut has left.
    ///
    /// # Panics
    /// If a file is still open below it, or the kernel cannot mount it again.
    pub fn replug(&mut self) {
        self.unmount().expect("nobody uses the disk");
        self.mount().expect("ext4 recovers by its journal");
    }

    /// Loses what has not been synced: mounts what the image has at this moment.
    ///
    /// # Panics
    /// If a file is still open below it, or the kernel cannot mount what is there.
    pub fn lose_unsynced(&mut self) {
        let copy = self.image.with_extension("copy");
        run(Command::new("cp").arg("--sparse=always").args([&self.image, &copy]))
            .expect("an image can be copied");
        self.unmount().expect("nobody uses the disk");
        std::fs::rename(&copy, &self.image).expect("it can be renamed");
        self.mount().expect("what was synced is whole");
    }

    /// The loop device is made and, at the last unmount, removed by mount itself, so that none of
    /// the image's old blocks stays in a cache.
    fn mount(&mut self) -> Result<(), String> {
        run(Command::new("mount")
            .args(["-t", self.file_system.name(), "-o", &self.options])
            .args([&self.image, &self.mount_point]))?;
        self.mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> Result<(), String> {
        const PATIENCE: Duration = Duration::from_secs(5);
        const PAUSE: Duration = Duration::from_millis(50);
        let started = Instant::now();
        while self.mounted {
            match run(Command::new("umount").arg(&self.mount_point)) {
                Ok(()) => self.mounted = false,
                // Somebody may look at every new mount: a desktop, an indexer.
                Err(_) if started.elapsed() < PATIENCE => std::thread::sleep(PAUSE),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = self.unmount() {
            // A lazy unmount takes the name away now and the rest when its last user ends.
            let lazily = run(Command::new("umount").arg("--lazy").arg(&self.mount_point));
            eprintln!("{error}; unmounted lazily: {lazily:?}");
        }
    }
}

#[expect(unsafe_code, reason = "rustix has no safe call for this ioctl")]
fn shut_down(root: &File) -> io::Result<()> {
    // SAFETY: the kernel's ext4_ioctl reads one u32 of flags for this number.
    let request = unsafe { ioctl::Setter::<SHUTDOWN, u32>::new(NO_LOG_FLUSH) };
    // SAFETY: the request is as above; on other file systems the number is unknown or, on XFS,
    // means the same. It touches no memory of ours but the flags.
    unsafe { ioctl::ioctl(root, request) }?;
    Ok(())
}

fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("cannot run {program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program}: {}: {}", output.status, said.trim()))
}
