//! What can go wrong: a kind, which says what to do about it, and a sentence.

/// The result of what a plugin does.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A refusal or a failure. The message is shown to people: there are no secrets in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What to do about it.
    pub kind: ErrorKind,
    /// What happened.
    pub message: String,
}

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Create it.
    NotFound,
    /// Correct what was declared.
    Invalid,
    /// Try again.
    Busy,
    /// Ask for the right.
    Denied,
    /// Start or install what is missing.
    Unavailable,
    /// Use another version.
    Unsupported,
    /// See the message.
    Io,
}

impl ErrorKind {
    /// The kind as the protocol has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotFound => "not-found",
            Self::Invalid => "invalid",
            Self::Busy => "busy",
            Self::Denied => "denied",
            Self::Unavailable => "unavailable",
            Self::Unsupported => "unsupported",
            Self::Io => "io",
        }
    }
}

impl Error {
    /// An error of a kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// Something that was declared or asked for is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// Something that the system refused.
    #[must_use]
    pub fn of_system(doing: &str, error: &std::io::Error) -> Self {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::PermissionDenied => ErrorKind::Denied,
            std::io::ErrorKind::ResourceBusy => ErrorKind::Busy,
            _ => ErrorKind::Io,
        };
        Self::new(kind, format!("{doing}: {error}"))
    }
}
