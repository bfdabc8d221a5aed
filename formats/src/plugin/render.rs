//! `plugin.toml` as it is written for people to go on with.

use serde_json::Value;

use super::{
    Capabilities, DEFAULT_EXECUTABLE, Dependencies, Plugin, PluginSource, Sandbox, SecretPath,
};
use crate::toml::Writer;

/// Writes a file that [`parse`](super::parse) reads as the same plugin. What has the value that its
/// absence means is left out, and so is a null in the configuration, which TOML lacks.
#[must_use]
pub fn render(plugin: &Plugin) -> String {
    let mut out = Writer::default();
    out.table(&["plugin"]);
    out.pair("name", plugin.name.as_str());
    out.pair("version", plugin.version.as_str());
    out.pair("source", plugin.source.name());
    out.pair("description", plugin.description.clone());
    out.pair("author", plugin.author.clone());
    if let PluginSource::HandWritten { executable, .. } = &plugin.source {
        out.pair_unless("executable", executable.as_str(), DEFAULT_EXECUTABLE);
    }
    out.pair("dbus_service", plugin.dbus_service());
    out.pair("dbus_path", plugin.dbus_path());
    out.pair("dbus_interface", plugin.dbus_interface());
    capabilities(&mut out, plugin.capabilities, plugin.source.default_capabilities());
    dependencies(&mut out, &plugin.dependencies);
    if let PluginSource::HandWritten { sandbox: told, .. } = &plugin.source {
        sandbox(&mut out, told);
    }
    if !plugin.secret.is_empty() {
        out.table(&["state"]);
        out.list::<SecretPath>("secret", &plugin.secret);
    }
    if let Value::Object(config) = &plugin.config
        && !config.is_empty()
    {
        out.table(&["config"]);
        config.iter().for_each(|(key, value)| out.pair(key, value.clone()));
    }
    out.finish()
}

fn capabilities(out: &mut Writer, told: Capabilities, default: Capabilities) {
    if told == default {
        return;
    }
    out.table(&["capabilities"]);
    out.pair_unless("query", told.query, default.query);
    out.pair_unless("diff", told.diff, default.diff);
    out.pair_unless("apply", told.apply, default.apply);
    out.pair_unless("verify", told.verify, default.verify);
}

fn dependencies(out: &mut Writer, told: &Dependencies) {
    if *told == Dependencies::default() {
        return;
    }
    out.table(&["dependencies"]);
    out.list("plugins", &told.plugins);
    out.list("services", &told.services);
    out.list("programs", &told.programs);
}

fn sandbox(out: &mut Writer, told: &Sandbox) {
    let default = Sandbox::default();
    if *told == default {
        return;
    }
    out.table(&["sandbox"]);
    out.pair_unless("user", told.user.as_str(), default.user.as_str());
    out.list("groups", &told.groups);
    out.list("read", &told.read);
    out.list("write", &told.write);
    out.pair_unless("network", told.network, default.network);
    out.list("capabilities", &told.capabilities);
    out.pair_unless("timeout_s", told.timeout_s, default.timeout_s);
}
