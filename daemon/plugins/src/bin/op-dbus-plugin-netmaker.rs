//! The plugin for networks of Netmaker, on standard input and output.

use std::process::ExitCode;

fn main() -> ExitCode {
    op_dbus_plugins::main::<op_dbus_plugins::Netmaker>()
}
