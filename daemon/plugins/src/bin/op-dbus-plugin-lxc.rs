//! The plugin for containers of LXC, on standard input and output.

use std::process::ExitCode;

fn main() -> ExitCode {
    op_dbus_plugins::main::<op_dbus_plugins::Lxc>()
}
