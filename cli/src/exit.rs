//! Exit codes: one for each thing a script may want to tell apart.

use std::process::ExitCode;

use op_dbus_engine::ErrorKind;

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Success,
    /// Done, and nothing was found.
    NothingFound,
    /// The command line or an environment variable is wrong.
    Usage,
    /// The command failed.
    Failed(ErrorKind),
    /// The state is not as it is declared.
    NotAsDeclared,
    /// Something takes longer, or finds less, than in the result it was compared with.
    Regressed,
    /// Stopped by Ctrl-C; what was acknowledged is stored.
    Interrupted,
}

/// What `--help` says about exit codes. A test keeps it equal to [`Exit::code`].
pub const HELP: &str = "\
Exit codes:
    0  done                       7  stored bytes are damaged
    1  nothing found              8  the store refuses writes
    2  wrong command line         9  a right is missing
    3  something does not exist  10  something must be installed or started
    4  the input is wrong        11  this version cannot do it
    5  the store is in use       12  the operating system refused
    6  no room on the disk       13  the state is not as declared
   14  slower than the baseline 130  stopped by Ctrl-C";

impl Exit {
    /// The number the shell sees.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::NothingFound => 1,
            Self::Usage => 2,
            Self::Failed(kind) => match kind {
                ErrorKind::NotFound => 3,
                ErrorKind::Invalid => 4,
                ErrorKind::Busy => 5,
                ErrorKind::Full => 6,
                ErrorKind::Corrupt => 7,
                ErrorKind::Poisoned => 8,
                ErrorKind::Denied => 9,
                ErrorKind::Unavailable => 10,
                ErrorKind::Unsupported => 11,
                ErrorKind::Io => 12,
            },
            Self::NotAsDeclared => 13,
            Self::Regressed => 14,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
