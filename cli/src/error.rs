//! What can go wrong in a command, and how it ends the program.

use std::path::Path;

use op_dbus_engine::ErrorKind;
use op_dbus_formats::TextError;

use crate::exit::Exit;

/// So much of a text that is wrong is shown.
const PICTURE_CHARACTERS: usize = 76;

/// The result of a command's step.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a command stopped.
#[derive(Debug)]
pub(crate) enum Error {
    /// Whoever reads standard output has gone: nothing more to say, and no failure.
    BrokenPipe,
    /// The command line or the environment is wrong.
    Usage { problem: String, remedy: Option<String> },
    /// A filter on the command line is wrong.
    Filter { filter: String, error: TextError },
    /// The engine, or a file the command was given.
    Engine(op_dbus_engine::Error),
}

impl Error {
    /// Bad content of a file that the user named.
    pub(crate) fn input(path: &Path, problem: &dyn std::fmt::Display) -> Self {
        Self::Engine(
            op_dbus_engine::Error::new(
                ErrorKind::Invalid,
                format!("{}: {problem}", path.display()),
            )
            .with_remedy("correct it and run the same command again; what came before is stored"),
        )
    }

    /// A failed system call on a file that the user named.
    pub(crate) fn io(action: &str, path: &Path, error: std::io::Error) -> Self {
        Self::Engine(op_dbus_engine::Error::io(action, path, error))
    }

    /// A failed write to standard output.
    pub(crate) fn stdout(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::BrokenPipe;
        }
        Self::io("write to", Path::new("standard output"), error)
    }

    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::BrokenPipe => Exit::Success,
            Self::Usage { .. } | Self::Filter { .. } => Exit::Usage,
            Self::Engine(error) => Exit::Failed(error.kind()),
        }
    }

    /// Whether the content of a file is wrong, rather than reaching it.
    pub(crate) fn is_invalid_input(&self) -> bool {
        matches!(self, Self::Engine(error) if error.kind() == ErrorKind::Invalid)
    }

    pub(crate) fn remedy(&self) -> Option<&str> {
        match self {
            Self::BrokenPipe => None,
            Self::Usage { remedy, .. } => remedy.as_deref(),
            Self::Filter { .. } => Some("op-dbus query --help shows how filters are written"),
            Self::Engine(error) => error.remedy(),
        }
    }

    /// The error and its causes on one line.
    pub(crate) fn message(&self) -> String {
        match self {
            Self::BrokenPipe => String::new(),
            Self::Usage { problem, .. } => problem.clone(),
            Self::Filter { filter, error } if !filter.contains('\n') => {
                format!("the filter is wrong at column {}: {}", error.column, error.problem)
            }
            Self::Filter { error, .. } => format!("the filter is wrong at {error}"),
            Self::Engine(error) => error.chain(),
        }
    }

    /// The text that is wrong, and below it a caret where it is.
    pub(crate) fn picture(&self) -> Option<String> {
        let Self::Filter { filter, error } = self else { return None };
        let line = filter.split('\n').nth(error.line.saturating_sub(1) as usize)?;
        let column = error.column.saturating_sub(1) as usize;
        // Of a long filter the part is shown that is about the place.
        let start = column.saturating_sub(PICTURE_CHARACTERS / 2);
        let part = |count: usize| -> String {
            let shown = line.chars().skip(start).take(count);
            shown.map(|next| if next.is_control() { ' ' } else { next }).collect()
        };
        let width = console::measure_text_width(&part(column - start));
        Some(format!("  {}\n  {:width$}^", part(PICTURE_CHARACTERS), ""))
    }
}

impl From<op_dbus_engine::Error> for Error {
    fn from(error: op_dbus_engine::Error) -> Self {
        Self::Engine(error)
    }
}
