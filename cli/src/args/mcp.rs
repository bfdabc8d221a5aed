//! The arguments of the server for language models.

use clap::Args;

use super::plugins::PluginDirectory;

/// Let a language model search the store and call methods of plugins: a server of the Model Context
/// Protocol on standard input and output
///
/// Its tools are search, get, explain, describe and call. A service that has the store open is asked;
/// without one the store is opened while it is asked something. Methods are called through the service
/// alone, as yourself, as by op-dbus plugin call: it checks and journals each call. What is not safe is
/// called when you have agreed, where the client can ask you; otherwise the first call tells what would
/// be done, and gives a confirmation for the second, which counts once, for a minute, and for nothing
/// else. Let the client ask you before each call of call.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  op-dbus mcp
  op-dbus mcp --bus session
  claude mcp add op-dbus -- op-dbus mcp

In a file (mcp.json, claude_desktop_config.json) a client is told so by:
  {\"mcpServers\": {\"op-dbus\": {\"command\": \"op-dbus\", \"args\": [\"mcp\"]}}}

It ends with its input, and by Ctrl-C or SIGTERM. What goes wrong stands on
standard error.")]
pub(crate) struct Mcp {
    #[command(flatten)]
    pub(crate) plugins: PluginDirectory,
}
