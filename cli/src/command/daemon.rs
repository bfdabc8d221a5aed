//! `op-dbus daemon`: the service.

use std::ffi::OsString;

use op_dbus_daemon::{Bus, DaemonConfig, Limits};
use op_dbus_engine::ErrorKind;

use crate::args;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::settings::{self, Refusal};

pub(super) fn run(config: &Config, arguments: &args::Daemon) -> Result<Exit> {
    let daemon = daemon_config(config.bus(), arguments);
    let store = config.open_warm()?;
    op_dbus_daemon::run(store, daemon, || again(config.given()))?;
    Ok(Exit::Success)
}

fn daemon_config(bus: Option<&Bus>, arguments: &args::Daemon) -> DaemonConfig {
    let limits = Limits {
        calls_at_once_count: arguments.calls_at_once,
        calls_per_second_count: arguments.calls_per_second,
        calls_burst_count: arguments.calls_per_second.div_ceil(10),
        changes_per_second_count: arguments.changes_per_second,
        changes_burst_count: arguments.changes_per_second.saturating_mul(5),
        message_len_max_bytes: arguments.call_max_bytes,
    };
    let unless_told = DaemonConfig::new(bus.cloned().unwrap_or(Bus::System));
    // Whoever says who reads one collection opens no other: the journal stays protected.
    let mut readers = unless_told.readers;
    readers
        .extend(arguments.readers.iter().map(|it| (it.collection.to_string(), it.readers.clone())));
    DaemonConfig {
        group: arguments.group.clone(),
        limits,
        readers,
        plugins: arguments.plugins.plugins.clone(),
        interfaces: arguments.interfaces.clone(),
        is_indexing_live: arguments.index_live,
        metrics: arguments.metrics.clone(),
        recall_audit: arguments.recall_audit,
        ..unless_told
    }
}

/// Reads the command line and the file of settings again.
fn again(given: &[OsString]) -> op_dbus_engine::Result<DaemonConfig> {
    let arguments = settings::arguments(given).map_err(|refusal| match refusal {
        Refusal::File(Error::Engine(error)) => error,
        Refusal::File(error) => op_dbus_engine::Error::new(ErrorKind::Invalid, error.message()),
        Refusal::CommandLine(error) => {
            op_dbus_engine::Error::new(ErrorKind::Invalid, error.to_string())
        }
    })?;
    match &arguments.command {
        args::Command::Daemon(daemon) => Ok(daemon_config(arguments.global.bus.as_ref(), daemon)),
        _ => unreachable!("the command line of a service is one"),
    }
}
