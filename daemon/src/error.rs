//! Errors as they go over the bus, and back.
//!
//! Each kind of the engine's errors has a name below `org.opdbus.Error.`. The text is what a person
//! reads; a remedy, where there is one, is its second line.

use std::borrow::Cow;

use op_dbus_engine::{Error, ErrorKind};
use zbus::DBusError;
use zbus::message::{Header, Message};
use zbus::names::ErrorName;

/// A result of what is called over the bus.
pub(crate) type Result<T, E = BusError> = std::result::Result<T, E>;

/// More than one sender may have at once, or in a second.
pub const LIMITS_EXCEEDED: &str = "org.opdbus.Error.LimitsExceeded";
/// Somebody has to confirm it first.
pub const CONFIRMATION_REQUIRED: &str = "org.opdbus.Error.ConfirmationRequired";

/// The name of each kind.
const NAMES: [(ErrorKind, &str); 10] = [
    (ErrorKind::NotFound, "org.opdbus.Error.NotFound"),
    (ErrorKind::Invalid, "org.opdbus.Error.Invalid"),
    (ErrorKind::Busy, "org.opdbus.Error.Busy"),
    (ErrorKind::Full, "org.opdbus.Error.Full"),
    (ErrorKind::Corrupt, "org.opdbus.Error.Corrupt"),
    (ErrorKind::Poisoned, "org.opdbus.Error.Poisoned"),
    (ErrorKind::Denied, "org.opdbus.Error.Denied"),
    (ErrorKind::Unavailable, "org.opdbus.Error.Unavailable"),
    (ErrorKind::Unsupported, "org.opdbus.Error.Unsupported"),
    (ErrorKind::Io, "org.opdbus.Error.Io"),
];

/// An error with a name of its own on the bus.
#[derive(Clone, Debug)]
pub struct BusError {
    name: Cow<'static, str>,
    text: String,
}

impl BusError {
    /// Creates one of a kind.
    #[must_use]
    pub fn new(kind: ErrorKind, problem: impl Into<String>, remedy: &str) -> Self {
        Self { name: name_of(kind).into(), text: text(&problem.into(), remedy) }
    }

    /// Creates one for whoever asks for too much.
    pub(crate) fn limits_exceeded(problem: impl Into<String>, remedy: &str) -> Self {
        Self { name: LIMITS_EXCEEDED.into(), text: text(&problem.into(), remedy) }
    }

    /// Creates one for what has to be confirmed.
    pub(crate) fn confirmation_required(problem: impl Into<String>, remedy: &str) -> Self {
        Self { name: CONFIRMATION_REQUIRED.into(), text: text(&problem.into(), remedy) }
    }

    /// The problem, without the remedy.
    #[must_use]
    pub fn problem(&self) -> &str {
        self.text.split('\n').next().unwrap_or_default()
    }

    /// What can be done about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        kind_of(&self.name)
    }

    /// The name that it has on the bus.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

fn name_of(kind: ErrorKind) -> &'static str {
    NAMES.iter().find(|(known, _)| *known == kind).map_or(NAMES[9].1, |(_, name)| name)
}

/// Both on lines of their own: whatever they quote must not make more of them.
fn text(problem: &str, remedy: &str) -> String {
    let line = |text: &str| text.replace('\n', " ");
    if remedy.is_empty() { line(problem) } else { format!("{}\n{}", line(problem), line(remedy)) }
}

impl From<Error> for BusError {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error.chain(), error.remedy().unwrap_or_default())
    }
}

impl DBusError for BusError {
    fn create_reply(&self, call: &Header<'_>) -> zbus::Result<Message> {
        Message::error(call, &*self.name).build(&self.text)
    }

    fn name(&self) -> ErrorName<'_> {
        ErrorName::from_str_unchecked(&self.name)
    }

    fn description(&self) -> Option<&str> {
        Some(&self.text)
    }
}

/// What came back over the bus.
impl From<zbus::Error> for BusError {
    fn from(error: zbus::Error) -> Self {
        let remedy = "see whether the service runs: systemctl status operation-dbus";
        match error {
            zbus::Error::MethodError(name, text, _) => {
                let text = text.filter(|text| !text.is_empty()).unwrap_or_else(|| name.to_string());
                Self { name: name.to_string().into(), text }
            }
            // Those that D-Bus has names for, of the service or of the bus itself.
            zbus::Error::FDO(error) => {
                let name = error.name().to_string();
                let text = error.description().filter(|text| !text.is_empty()).unwrap_or(&name);
                Self { text: text.to_owned(), name: name.into() }
            }
            other => {
                let problem = format!("the bus does not answer: {other}");
                Self::new(ErrorKind::Unavailable, problem, remedy)
            }
        }
    }
}

impl From<BusError> for Error {
    fn from(error: BusError) -> Self {
        let (problem, remedy) = error.text.split_once('\n').unwrap_or((&error.text, ""));
        let remedy = match remedy {
            "" => format!("see what {} means", error.name),
            remedy => remedy.to_owned(),
        };
        Self::new(error.kind(), problem.to_owned()).with_remedy(remedy)
    }
}

/// The kind that the name of an error stands for: ours, and those of the bus itself.
fn kind_of(name: &str) -> ErrorKind {
    if let Some((kind, _)) = NAMES.iter().find(|(_, known)| *known == name) {
        return *kind;
    }
    match name {
        LIMITS_EXCEEDED | "org.freedesktop.DBus.Error.LimitsExceeded" => ErrorKind::Busy,
        CONFIRMATION_REQUIRED
        | "org.freedesktop.DBus.Error.AccessDenied"
        | "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired" => ErrorKind::Denied,
        "org.freedesktop.DBus.Error.InvalidArgs" => ErrorKind::Invalid,
        "org.freedesktop.DBus.Error.UnknownMethod"
        | "org.freedesktop.DBus.Error.UnknownInterface"
        | "org.freedesktop.DBus.Error.UnknownObject"
        | "org.freedesktop.DBus.Error.UnknownProperty" => ErrorKind::Unsupported,
        "org.freedesktop.DBus.Error.ServiceUnknown"
        | "org.freedesktop.DBus.Error.NameHasNoOwner"
        | "org.freedesktop.DBus.Error.NoReply"
        | "org.freedesktop.DBus.Error.Timeout"
        | "org.freedesktop.DBus.Error.Disconnected" => ErrorKind::Unavailable,
        _ => ErrorKind::Io,
    }
}

#[cfg(test)]
mod tests {
    use zbus::fdo;

    use super::*;

    #[test]
    fn every_kind_has_a_name_and_comes_back() {
        for (kind, name) in NAMES {
            assert_eq!(name_of(kind), name);
            assert_eq!(kind_of(name), kind);
            ErrorName::try_from(name).unwrap();
        }
        assert_eq!(kind_of(LIMITS_EXCEEDED), ErrorKind::Busy);
        assert_eq!(kind_of("com.example.Other"), ErrorKind::Io);
    }

    #[test]
    fn names_that_are_not_ours_stay() {
        let error = BusError::from(zbus::Error::from(fdo::Error::AccessDenied("no".to_owned())));
        assert_eq!(error.name(), "org.freedesktop.DBus.Error.AccessDenied");
        assert_eq!((error.problem(), error.kind()), ("no", ErrorKind::Denied));
    }

    #[test]
    fn a_remedy_is_the_second_line_whatever_a_problem_quotes() {
        let error = Error::new(ErrorKind::Invalid, "key a\nb is wrong").with_remedy("mend it");
        let error = BusError::from(error);
        assert_eq!(error.text, "key a b is wrong\nmend it");
        assert_eq!(error.problem(), "key a b is wrong");
    }
}
