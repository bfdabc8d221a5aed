//! `op-dbus daemon`: the service.

use op_dbus_daemon::{Bus, DaemonConfig, Limits};

use crate::args;
use crate::config::Config;
use crate::error::Result;
use crate::exit::Exit;

pub(super) fn run(config: &Config, arguments: &args::Daemon) -> Result<Exit> {
    let bus = config.bus().cloned().unwrap_or(Bus::System);
    let limits = Limits {
        calls_at_once_count: arguments.calls_at_once,
        calls_per_second_count: arguments.calls_per_second,
        calls_burst_count: arguments.calls_per_second.div_ceil(10),
        ..Limits::default()
    };
    let daemon = DaemonConfig {
        group: arguments.group.clone(),
        limits,
        plugins: arguments.plugins.plugins.clone(),
        interfaces: arguments.interfaces.clone(),
        is_indexing_live: arguments.index_live,
        ..DaemonConfig::new(bus)
    };
    let store = config.open_warm()?;
    op_dbus_daemon::run(store, daemon)?;
    Ok(Exit::Success)
}
