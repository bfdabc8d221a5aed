//! How the service is set up.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use op_dbus_engine::{Error, ErrorKind};
use op_dbus_formats::MetricsAddress;

use crate::indexer;
use crate::state::DECLARED_COLLECTION;

/// Which bus the service is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bus {
    /// That of the system, with polkit to ask.
    System,
    /// That of the user's session.
    Session,
    /// Another one, by its D-Bus address.
    Address(String),
    /// None: a Unix socket at this path, which every client has a connection of its own to.
    Socket(PathBuf),
}

impl FromStr for Bus {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "system" => Ok(Self::System),
            "session" => Ok(Self::Session),
            _ => {
                if let Some(path) = text.strip_prefix("socket:").filter(|path| !path.is_empty()) {
                    return Ok(Self::Socket(path.into()));
                }
                match text.parse::<zbus::Address>() {
                    Ok(_) => Ok(Self::Address(text.to_owned())),
                    Err(error) => Err(Error::new(
                        ErrorKind::Invalid,
                        format!("\"{text}\" is no bus: {error}"),
                    )
                    .with_remedy(
                        "say system, session, a D-Bus address such as unix:path=/run/bus, or \
                         socket:/path for a socket without a bus",
                    )),
                }
            }
        }
    }
}

impl std::fmt::Display for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::System => f.write_str("system"),
            Self::Session => f.write_str("session"),
            Self::Address(address) => f.write_str(address),
            Self::Socket(path) => write!(f, "socket:{}", path.display()),
        }
    }
}

/// What one sender may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Calls that are being answered, or wait to be, at the same time: further ones are refused.
    pub calls_at_once_count: u32,
    /// Calls in a second, for long: further ones wait.
    pub calls_per_second_count: u32,
    /// Calls that may come at once, before that counts.
    pub calls_burst_count: u32,
    /// Calls that change something in a second, for long: further ones wait.
    pub changes_per_second_count: u32,
    /// Calls that change something that may come at once, before that counts.
    pub changes_burst_count: u32,
    /// Bytes of one call.
    pub message_len_max_bytes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            calls_at_once_count: 32,
            calls_per_second_count: 2_000,
            calls_burst_count: 200,
            changes_per_second_count: 20,
            changes_burst_count: 100,
            message_len_max_bytes: 16 << 20,
        }
    }
}

/// Who may read a collection, beside root and the service's own user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readers {
    /// Names of users.
    pub users: Vec<String>,
    /// Names of groups.
    pub groups: Vec<String>,
}

/// How the service is set up.
#[derive(Clone, Debug, PartialEq)]
pub struct DaemonConfig {
    /// Where clients find it.
    pub bus: Bus,
    /// The group whose members may read.
    pub group: String,
    /// What one sender may ask for.
    pub limits: Limits,
    /// Who may read collections that not every reader may.
    pub readers: BTreeMap<String, Readers>,
    /// Where plugins are.
    pub plugins: PathBuf,
    /// Directories of interfaces that services describe in XML.
    pub interfaces: Vec<PathBuf>,
    /// Whether services on the bus are asked for their interfaces.
    pub is_indexing_live: bool,
    /// How long after a change the index follows.
    pub index_delay: Duration,
    /// Where figures are told to programs that watch the service.
    pub metrics: Option<MetricsAddress>,
    /// The part of the queries answered by graphs that is answered again exactly, from 0 to 1.
    pub recall_audit: f64,
}

impl DaemonConfig {
    /// The group whose members may read, unless told otherwise.
    pub const GROUP: &'static str = "op-dbus";
    /// Where plugins are, unless told otherwise.
    pub const PLUGINS: &'static str = "/etc/operation-dbus/plugins";
    /// Where services describe their interfaces, unless told otherwise.
    pub const INTERFACES: &'static str = "/usr/share/dbus-1/interfaces";

    /// On this bus, as the system's packages expect it. Only root and the service's own user read who
    /// did what.
    #[must_use]
    pub fn new(bus: Bus) -> Self {
        Self {
            bus,
            group: Self::GROUP.to_owned(),
            limits: Limits::default(),
            // Neither is for everybody who may search.
            readers: [DECLARED_COLLECTION, indexer::JOURNAL_COLLECTION]
                .map(|name| (name.to_owned(), Readers::default()))
                .into(),
            plugins: Self::PLUGINS.into(),
            interfaces: vec![Self::INTERFACES.into()],
            is_indexing_live: true,
            index_delay: Duration::from_millis(500),
            metrics: None,
            recall_audit: 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buses_are_told_apart() {
        assert_eq!("system".parse::<Bus>().unwrap(), Bus::System);
        let socket: Bus = "socket:/run/a".parse().unwrap();
        assert_eq!(socket, Bus::Socket("/run/a".into()));
        assert_eq!(socket.to_string().parse::<Bus>().unwrap(), socket);
        let address = "unix:path=/run/bus";
        assert_eq!(address.parse::<Bus>().unwrap(), Bus::Address(address.to_owned()));
        let error = "sistem".parse::<Bus>().unwrap_err();
        assert!(error.to_string().contains("sistem") && error.remedy().is_some());
        assert!("socket:".parse::<Bus>().is_err());
    }
}
