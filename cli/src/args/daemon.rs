//! The arguments of the service, and where it is asked.

use std::path::PathBuf;

use clap::Args;
use clap::builder::BoolishValueParser;
use op_dbus_daemon::{Bus, DaemonConfig, Limits, Readers};
use op_dbus_formats::{CollectionName, CollectionNameError, MetricsAddress};

use super::plugins::PluginDirectory;

/// Serve the store on D-Bus, as org.opdbus, until SIGTERM or Ctrl-C
///
/// On the system's bus root and the group may read, and polkit decides who may change something; on
/// any other bus that is the user who runs it, and nobody else. Every decision is journaled. SIGHUP
/// reads plugins, interfaces and the members of groups anew. What services offer, plugins, documents
/// of the state and the journal can be searched for. It tells systemd when it is ready, that it is
/// alive, and what it does.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  op-dbus daemon
  op-dbus daemon --bus session --store ~/.local/share/op-dbus/store
  op-dbus daemon --bus socket:/run/user/1000/op-dbus
  op-dbus daemon --metrics 127.0.0.1:9464 --recall-audit 0.01

Without --bus it is on the system's.")]
pub(crate) struct Daemon {
    #[command(flatten)]
    pub(crate) plugins: PluginDirectory,
    /// Directory of interfaces that services describe in XML; several times for several
    ///
    /// In the variable they are parted by colons.
    #[arg(
        long,
        value_name = "DIR",
        env = "OPDBUS_DAEMON_INTERFACES",
        hide_env_values = true,
        default_value = DaemonConfig::INTERFACES,
        value_delimiter = ':'
    )]
    pub(crate) interfaces: Vec<PathBuf>,
    /// Whether the services on the bus are asked for their interfaces, and those that come
    #[arg(
        long,
        value_name = "true|false",
        env = "OPDBUS_DAEMON_INDEX_LIVE",
        hide_env_values = true,
        default_value = "true",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        action = clap::ArgAction::Set,
        value_parser = BoolishValueParser::new()
    )]
    pub(crate) index_live: bool,
    /// Group whose members may read, on the system's bus
    #[arg(
        long,
        value_name = "NAME",
        env = "OPDBUS_DAEMON_GROUP",
        hide_env_values = true,
        default_value = DaemonConfig::GROUP
    )]
    pub(crate) group: String,
    /// Calls of one sender that are answered, or wait to be, at the same time; more are refused
    #[arg(
        long,
        value_name = "N",
        env = "OPDBUS_DAEMON_CALLS_AT_ONCE",
        hide_env_values = true,
        default_value_t = Limits::default().calls_at_once_count,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub(crate) calls_at_once: u32,
    /// Calls of one sender in a second, for long; more wait
    #[arg(
        long,
        value_name = "N",
        env = "OPDBUS_DAEMON_CALLS_PER_SECOND",
        hide_env_values = true,
        default_value_t = Limits::default().calls_per_second_count,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub(crate) calls_per_second: u32,
    /// Changes of one sender in a second, for long; more wait
    #[arg(
        long,
        value_name = "N",
        env = "OPDBUS_DAEMON_CHANGES_PER_SECOND",
        hide_env_values = true,
        default_value_t = Limits::default().changes_per_second_count,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub(crate) changes_per_second: u32,
    /// Bytes of one call; longer ones are refused
    #[arg(
        long,
        value_name = "BYTES",
        env = "OPDBUS_DAEMON_CALL_MAX_BYTES",
        hide_env_values = true,
        default_value_t = Limits::default().message_len_max_bytes,
        value_parser = clap::value_parser!(u32).range(1024..)
    )]
    pub(crate) call_max_bytes: u32,
    /// Who alone may read a collection, beside root and the service's user: users, and groups with an
    /// @ before them; several times for several collections
    #[arg(
        long,
        value_name = "COLLECTION=USER,@GROUP",
        env = "OPDBUS_DAEMON_READERS",
        hide_env_values = true,
        value_delimiter = READERS_DELIMITER,
        value_parser = reader
    )]
    pub(crate) readers: Vec<Reader>,
    /// Tell figures as Prometheus asks for them, at GET /metrics: of this address, or of the socket
    /// unix:PATH, which the group may read
    ///
    /// Who asks at a port is not known: there are sums. At a socket there are figures of each
    /// collection besides that every reader may read. An address that other machines reach has to be
    /// written public:ADDRESS:PORT. The service of the system has no network; its socket is
    /// unix:/run/op-dbus/metrics.sock.
    #[arg(
        long,
        value_name = "ADDRESS:PORT|unix:PATH",
        env = "OPDBUS_DAEMON_METRICS",
        hide_env_values = true
    )]
    pub(crate) metrics: Option<MetricsAddress>,
    /// Answer this part of the queries that graphs have answered again, by comparing all, while
    /// nobody is answered, and count how many records had been found: 0.01 is one in a hundred
    ///
    /// None unless told: each reads all of a collection, which is work that somebody must want.
    /// op-dbus stats and the metrics tell what comes of it.
    #[arg(
        long,
        value_name = "PART",
        env = "OPDBUS_DAEMON_RECALL_AUDIT",
        hide_env_values = true,
        default_value_t = 0.0,
        value_parser = part
    )]
    pub(crate) recall_audit: f64,
}

fn part(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(part) if (0.0..=1.0).contains(&part) => Ok(part),
        _ => Err("it must be a number from 0 to 1".to_owned()),
    }
}

/// What parts collections in the variable.
pub(crate) const READERS_DELIMITER: char = ';';

/// Who may read a collection.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    pub(crate) collection: CollectionName,
    pub(crate) readers: Readers,
}

fn reader(text: &str) -> Result<Reader, String> {
    let (collection, names) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} is not like COLLECTION=USER,@GROUP"))?;
    let collection = collection.parse().map_err(|error: CollectionNameError| error.to_string())?;
    let mut readers = Readers::default();
    for name in names.split(',').filter(|name| !name.is_empty()) {
        match name.strip_prefix('@') {
            Some(group) => readers.groups.push(group.to_owned()),
            None => readers.users.push(name.to_owned()),
        }
    }
    Ok(Reader { collection, readers })
}

pub(super) fn bus(text: &str) -> Result<Bus, String> {
    text.parse().map_err(|error: op_dbus_engine::Error| {
        let remedy = error.remedy().unwrap_or_default();
        format!("{error}; {remedy}")
    })
}
