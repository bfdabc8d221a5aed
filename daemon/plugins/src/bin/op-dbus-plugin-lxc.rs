//! The plugin for containers of LXC, on standard input and output.

use std::process::ExitCode;

use rustix::fs::Mode;

fn main() -> ExitCode {
    // The first program of a container begins with it; systemd gives plugins 077.
    rustix::process::umask(Mode::from_raw_mode(0o022));
    op_dbus_plugins::main::<op_dbus_plugins::Lxc>()
}
