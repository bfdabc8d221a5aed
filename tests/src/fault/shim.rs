//! Builds `tests/faults/shim.c`, and puts it below a child process.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// What goes wrong with an operation. The names are those that the shim knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It fails: the device does not work.
    Eio,
    /// It fails: no room is left.
    Enospc,
    /// Half of it is written and the process is killed.
    Kill,
    /// The first write from it on is written half, and reported as whole.
    Tear,
}

/// One thing that goes wrong in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Number of the operation, from 1.
    pub at: u64,
    /// What happens to it.
    pub kind: Kind,
    /// Whether it happens to all operations from then on.
    pub forever: bool,
}

/// The compiled shim.
pub struct Shim {
    library: PathBuf,
    _directory: TempDir,
}

impl Shim {
    /// Compiles the shim with `cc`, which is there because RocksDB was compiled.
    ///
    /// # Panics
    /// If it cannot be compiled, with what the compiler says.
    #[must_use]
    pub fn build() -> Self {
        let directory = TempDir::new().expect("a temporary directory can be made");
        let library = directory.path().join("shim.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("faults/shim.c");
        let output = Command::new("cc")
            .args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-o"])
            .args([&library, &source])
            .args(["-ldl", "-lpthread"])
            .output()
            .expect("cc can be run");
        assert!(output.status.success(), "cc: {}", String::from_utf8_lossy(&output.stderr));
        Self { library, _directory: directory }
    }

    /// Puts the shim below a command, for the files below `directory`; what it writes to `notes`
    /// is recorded with them.
    pub fn preload(&self, command: &mut Command, directory: &Path, notes: &Path) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAULT_DIRECTORY", directory)
            .env("FAULT_NOTES", notes);
    }
}

impl Fault {
    /// Plans it for a command above the shim.
    pub fn plan(self, command: &mut Command) {
        let kind = match self.kind {
            Kind::Eio => "eio",
            Kind::Enospc => "enospc",
            Kind::Kill => "kill",
            Kind::Tear => "tear",
        };
        command.env("FAULT_AT", self.at.to_string()).env("FAULT_KIND", kind);
        if self.forever {
            command.env("FAULT_FOREVER", "1");
        }
    }
}

/// Lets the shim number only operations on paths that match a shell pattern.
pub fn plan_files(command: &mut Command, pattern: &str) {
    command.env("FAULT_FILES", pattern);
}

/// Makes every sync of a command above the shim do nothing: the planted bug.
pub fn plan_no_sync(command: &mut Command) {
    command.env("FAULT_KIND", "nosync");
}

/// Makes a command above the shim record its operations in `log`.
pub fn plan_log(command: &mut Command, log: &Path) {
    command.env("FAULT_LOG", log);
}
