//! The arguments of the commands about plugins.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use op_dbus_daemon::DaemonConfig;

#[derive(Debug, Subcommand)]
pub(crate) enum Plugin {
    /// List the plugins, and why those failed that did
    #[command(after_help = "\
Examples:
  op-dbus plugin list
  op-dbus plugin list --json | jq '.plugins[] | select(.state == \"failed\")'")]
    List(PluginDirectory),
    /// Show what a plugin is: its methods, their types, how safe they are
    #[command(after_help = "Example:\n  op-dbus plugin show hostname")]
    Show(PluginNamed),
    /// Check plugins: every file, and that they agree with each other
    ///
    /// The exit code is 4 if one is wrong; the message has the file, the line and the column.
    #[command(after_help = "\
Examples:
  op-dbus plugin validate ./hostname
  op-dbus plugin validate ./lxc/plugin.toml ./hostname
  op-dbus plugin validate ./hostname --live")]
    Validate(PluginValidate),
    Call(PluginCall),
    Create(PluginCreate),
    /// Become the executable of a plugin, confined by Landlock
    #[command(hide = true, after_help = "Example:\n  op-dbus plugin confine ./lxc")]
    Confine {
        /// Directory of the plugin
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// Run a plugin for whoever connects to the socket that is standard input
    #[command(hide = true, after_help = "Example:\n  op-dbus plugin serve lxc")]
    Serve(PluginNamed),
    /// Write what systemd is to know of hand-written plugins into a directory of units
    #[command(hide = true, after_help = "Example:\n  op-dbus plugin units /run/systemd/generator")]
    Units {
        /// Directory of units
        #[arg(value_name = "DIR")]
        units: PathBuf,
        #[command(flatten)]
        directory: PluginDirectory,
    },
}

#[derive(Debug, Args)]
pub(crate) struct PluginDirectory {
    /// Directory of plugins
    #[arg(
        long,
        value_name = "DIR",
        env = "OPDBUS_PLUGINS",
        hide_env_values = true,
        default_value = DaemonConfig::PLUGINS
    )]
    pub(crate) plugins: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct PluginNamed {
    /// Name of the plugin
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) directory: PluginDirectory,
}

#[derive(Debug, Args)]
pub(crate) struct PluginValidate {
    /// Directories with a plugin.toml, or such files
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Compare each with what its service says of itself now, on the system's bus or that of --bus
    #[arg(long)]
    pub(crate) live: bool,
}

/// Call a method of a plugin's D-Bus service, as yourself
///
/// The service checks the call against the plugin, asks whether you may make it, and journals that
/// you are about to. The call itself goes over your own connection, so that whoever is called sees
/// you. Its outcome is journaled, too.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  op-dbus plugin call hostname Describe
  op-dbus plugin call hostname SetPrettyHostname '\"web 1\"' false --confirm
  op-dbus plugin call hostname SetHostname \\
    --arguments '{\"hostname\": \"web1\"}' --confirm

Arguments are JSON; what is no JSON is taken as a string.")]
pub(crate) struct PluginCall {
    /// Name of the plugin
    #[arg(value_name = "PLUGIN")]
    pub(crate) plugin: String,
    /// Method: Member, or interface.Member
    #[arg(value_name = "METHOD")]
    pub(crate) method: String,
    /// Its arguments, in order
    #[arg(value_name = "ARGUMENT", allow_negative_numbers = true)]
    pub(crate) values: Vec<String>,
    /// Its arguments as a JSON list, or as an object by name
    #[arg(long, value_name = "JSON", conflicts_with = "values")]
    pub(crate) arguments: Option<String>,
    /// Object to call, if it is another than the plugin's own: one below it
    #[arg(long, value_name = "PATH")]
    pub(crate) path: Option<String>,
    /// Call the method that tells what this one would do, if the mapping names one
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Confirm that a method is called that is not safe
    #[arg(long)]
    pub(crate) confirm: bool,
}

/// Make a plugin of a live D-Bus service: plugin.toml, introspection.xml and semantic-mapping.toml
///
/// In the mapping nothing is safe. Look at each method, and say which are.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  op-dbus plugin create --from-dbus org.freedesktop.hostname1
  op-dbus plugin create --from-dbus org.freedesktop.login1 --output ./login")]
pub(crate) struct PluginCreate {
    /// Name of the service on the bus: the system's, or that of --bus
    #[arg(long, value_name = "SERVICE")]
    pub(crate) from_dbus: String,
    /// Object of the service [default: its name as a path]
    #[arg(long, value_name = "PATH")]
    pub(crate) path: Option<String>,
    /// Name of the plugin [default: the last part of the service's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Directory to make [default: the plugin's name, here]
    #[arg(long, short, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
}
