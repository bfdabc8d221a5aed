//! The `op-dbus` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    op_dbus_cli::run(std::env::args_os()).into()
}
