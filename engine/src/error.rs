//! The engine's one public error.
//!
//! A caller needs to know what to *do*, so [`ErrorKind`] names remedies, not
//! causes; the cause is in the text and in the source chain. Every error names
//! the thing (path, key, value) it is about.

use std::borrow::Cow;
use std::fmt;

/// A result of the engine.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// What the caller can do about an [`Error`].
///
/// Exhaustive on purpose: clients map every kind in one `match`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The named thing does not exist: create it or correct the name.
    NotFound,
    /// The request or the input is wrong: correct it.
    Invalid,
    /// Somebody else holds it: try again later or go through the holder.
    Busy,
    /// No room: free some space.
    Full,
    /// Stored bytes are damaged: restore them.
    Corrupt,
    /// An earlier write failed: reopen the store.
    Poisoned,
    /// The right is missing: ask for it.
    Denied,
    /// Something needed is not installed or not running: install or start it.
    Unavailable,
    /// This version cannot do it: upgrade or use another one.
    Unsupported,
    /// The operating system refused: see the source.
    Io,
}

/// An error of the engine: what to do, what it was about, and why.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    context: Cow<'static, str>,
    remedy: Option<Cow<'static, str>>,
    source: Option<Source>,
}

impl Error {
    /// Creates an error about `context`: a sentence that names the thing.
    #[must_use]
    pub fn new(kind: ErrorKind, context: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, context: context.into(), remedy: None, source: None }
    }

    /// Adds the exact thing to do, where the kind alone does not say it.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<Cow<'static, str>>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Creates an error from a failed system call on `path`.
    ///
    /// A full disk, quota or file-size limit is [`ErrorKind::Full`] and a missing
    /// right is [`ErrorKind::Denied`], because their remedies differ.
    #[must_use]
    pub fn io(action: &str, path: &std::path::Path, source: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let (kind, remedy) = match source.kind() {
            Io::NotFound => (ErrorKind::NotFound, "check the path"),
            Io::IsADirectory => (ErrorKind::Invalid, "name a file instead of a directory"),
            Io::NotADirectory => (ErrorKind::Invalid, "name a directory instead of a file"),
            Io::AlreadyExists => (ErrorKind::Invalid, "remove it, or name another"),
            Io::PermissionDenied | Io::ReadOnlyFilesystem => {
                (ErrorKind::Denied, "run it as a user who may, or change the permissions")
            }
            Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => (
                ErrorKind::Full,
                "free space on this file system, or raise the file size limit (ulimit -f)",
            ),
            _ => (ErrorKind::Io, "see what the system says, mend it and try again"),
        };
        Self::new(kind, format!("cannot {action} {}", path.display()))
            .with_remedy(remedy)
            .with_source(source)
    }

    /// The error and its causes, in a line.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }

    /// What the caller can do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The exact thing to do, if there is more to say than the kind.
    #[must_use]
    pub fn remedy(&self) -> Option<&str> {
        self.remedy.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
