//! `org.opdbus.Plugins1`: all plugins; `org.opdbus.Plugin1`: one of them, at an object of its own.

use std::sync::Arc;

use op_dbus_engine::ErrorKind;
use serde_json::{Value, json};
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, OwnedObjectPath, interface};

use super::Door;
use crate::authority::Action;
use crate::error::{BusError, Result};
use crate::gate::{Reader, Request};
use crate::names::PLUGINS_PATH;
use crate::plugin::call::{self, Checked};
use crate::plugin::{Entry, LoadedPlugin, describe};

/// A plugin in a list: name, version, source, state (loaded or failed) and what is wrong with it.
pub type PluginRow = (String, String, String, String, String);
/// What has to be called: the number of the call, service, object, interface, member, types of the
/// arguments, the arguments (a JSON list), and how long to wait in milliseconds.
pub type PreparedCall = (u64, String, OwnedObjectPath, String, String, String, String, u32);

/// The interface of all plugins.
pub(crate) struct Plugins(pub(crate) Door);

/// The interface of one plugin.
pub(crate) struct Plugin {
    door: Door,
    name: String,
}

/// The object of a plugin; names have letters, digits and hyphens.
pub fn object_path(name: &str) -> String {
    let element: String = name
        .chars()
        .map(|character| if character.is_ascii_alphanumeric() { character } else { '_' })
        .collect();
    format!("{PLUGINS_PATH}/{element}")
}

#[interface(
    name = "org.opdbus.Plugins1",
    proxy(default_service = "org.opdbus", default_path = "/org/opdbus", visibility = "pub")
)]
impl Plugins {
    /// Lists the plugins: name, version, source, state (loaded or failed), and why it failed.
    #[zbus(out_args("plugins"))]
    async fn list(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<PluginRow>> {
        let _reader = self.0.admit(header, connection).await?;
        let plugins = self.0.service.plugins();
        Ok(plugins.0.iter().map(|(name, entry)| row(name, entry)).collect())
    }

    /// Reads the directory of plugins anew; returns how many there are.
    #[zbus(proxy(allow_interactive_auth), out_args("count"))]
    async fn reload(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<u32> {
        let request =
            Request { action: Action::Reload, what: "reload plugins".into(), details: json!({}) };
        let permit = self.0.service.gate.permit(&self.0.call(header, connection), request).await?;
        self.0.service.reload_plugins(connection, &self.0).await?;
        let count = self.0.service.plugins().0.len();
        permit.finish(json!({ "succeeded": true, "count": count })).await?;
        let names = self.0.service.plugins().0.keys().cloned().collect();
        Door::tell_names(&emitter, "org.opdbus.Plugins1", names).await;
        Ok(count as u32)
    }

    /// The names of the plugins.
    #[zbus(property)]
    async fn names(
        &self,
        #[zbus(header)] header: Option<Header<'_>>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<String>> {
        self.0.admit_to_property(header, connection).await?;
        Ok(self.0.service.plugins().0.keys().cloned().collect())
    }
}

fn row(name: &str, entry: &Entry) -> PluginRow {
    match &entry.loaded {
        Ok(loaded) => (
            name.to_owned(),
            loaded.plugin.version.clone(),
            loaded.plugin.source.name().to_owned(),
            "loaded".to_owned(),
            String::new(),
        ),
        Err(problem) => {
            (name.to_owned(), String::new(), String::new(), "failed".to_owned(), problem.clone())
        }
    }
}

#[interface(
    name = "org.opdbus.Plugin1",
    proxy(default_service = "org.opdbus", visibility = "pub", assume_defaults = false)
)]
impl Plugin {
    /// Says all about the plugin: a JSON object, with its methods, their types and how safe they are.
    #[zbus(out_args("description"))]
    async fn describe(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<String> {
        let _reader = self.door.admit(header, connection).await?;
        Ok(describe(&*self.loaded()?).to_string())
    }

    /// Checks a call, asks whether the caller may make it, and journals that they are about to.
    ///
    /// The arguments are a JSON list, or an object by name. An empty path is the plugin's object. With
    /// the token of ConfirmCall a call that has to be confirmed is. The caller makes the call on a
    /// connection of their own, and says by FinishCall how it ended.
    #[zbus(
        proxy(allow_interactive_auth),
        out_args(
            "call",
            "service",
            "object",
            "interface",
            "member",
            "signature",
            "arguments",
            "timeout_ms"
        )
    )]
    async fn prepare_call(
        &self,
        method: String,
        path: String,
        arguments: String,
        token: String,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<PreparedCall> {
        let (reader, checked) =
            self.checked(&method, &path, &arguments, header.clone(), connection).await?;
        let service = &self.door.service;
        let identity = reader.caller().identity();
        let is_confirmed = !token.is_empty();
        if is_confirmed
            && let Err(error) = service.calls.use_token(&token, &self.name, &checked, &identity)
        {
            return Err(self.denied(&reader, &checked, error).await);
        }
        if checked.requires_confirmation && !is_confirmed && !service.gate.asks_people() {
            let problem = format!("{} is not safe", checked.what());
            let error = BusError::confirmation_required(problem, "confirm it by ConfirmCall");
            return Err(self.denied(&reader, &checked, error).await);
        }
        // The permit has a reader of its own.
        drop(reader);
        let request = Request {
            action: checked.action(is_confirmed),
            what: checked.what(),
            details: checked.details(&self.name),
        };
        let permit = service.gate.permit(&self.door.call(header, connection), request).await?;
        // Not before: whoever may not call must not use up what others may.
        if let Err(error) = service.calls.count(&self.name, &checked) {
            permit.finish(json!({ "succeeded": false, "problem": error.problem() })).await?;
            return Err(error);
        }
        let number = service.calls.begin(permit, &checked, &identity)?;
        let object = OwnedObjectPath::try_from(checked.path).map_err(|error| {
            BusError::new(ErrorKind::Invalid, error.to_string(), "name another object")
        })?;
        let arguments = Value::Array(checked.arguments).to_string();
        Ok((
            number,
            checked.service,
            object,
            checked.interface,
            checked.member,
            checked.signature,
            arguments,
            checked.timeout_ms,
        ))
    }

    /// Says how a call ended that PrepareCall has allowed: its answer, or the error.
    async fn finish_call(
        &self,
        call: u64,
        succeeded: bool,
        answer: String,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<()> {
        let reader = self.door.admit(header, connection).await?;
        let identity = reader.caller().identity();
        let (permit, outcome) = self.door.service.calls.end(call, &identity, succeeded, &answer)?;
        permit.finish(outcome).await
    }

    /// Confirms a call that is not safe. On the system's bus an administrator is asked. The token
    /// counts for this call by this caller, once, for a minute.
    #[zbus(proxy(allow_interactive_auth), out_args("token"))]
    async fn confirm_call(
        &self,
        method: String,
        path: String,
        arguments: String,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<String> {
        let (reader, checked) =
            self.checked(&method, &path, &arguments, header.clone(), connection).await?;
        let identity = reader.caller().identity();
        drop(reader);
        let request = Request {
            action: Action::CallConfirmed,
            what: format!("confirm {}", checked.what()),
            details: checked.details(&self.name),
        };
        let service = &self.door.service;
        let permit = service.gate.permit(&self.door.call(header, connection), request).await?;
        let token = service.calls.confirm(&self.name, &checked, &identity)?;
        permit.finish(json!({ "succeeded": true })).await?;
        Ok(token)
    }

    /// The plugin's name.
    #[zbus(property(emits_changed_signal = "const"))]
    async fn name(
        &self,
        #[zbus(header)] header: Option<Header<'_>>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<String> {
        self.door.admit_to_property(header, connection).await?;
        Ok(self.name.clone())
    }

    /// loaded or failed.
    #[zbus(property)]
    async fn state(
        &self,
        #[zbus(header)] header: Option<Header<'_>>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<String> {
        self.door.admit_to_property(header, connection).await?;
        Ok(if self.loaded().is_ok() { "loaded" } else { "failed" }.to_owned())
    }

    /// Why it failed; empty if it did not.
    #[zbus(property)]
    async fn problem(
        &self,
        #[zbus(header)] header: Option<Header<'_>>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<String> {
        self.door.admit_to_property(header, connection).await?;
        Ok(self.loaded().err().map(|error| error.problem().to_owned()).unwrap_or_default())
    }
}

impl Plugin {
    pub(crate) fn new(door: Door, name: &str) -> Self {
        Self { door, name: name.to_owned() }
    }

    fn loaded(&self) -> Result<Arc<LoadedPlugin>> {
        self.door.service.plugins().loaded(&self.name).cloned()
    }

    /// Lets the caller in, and compares the call with the plugin; what it denies is journaled.
    async fn checked(
        &self,
        method: &str,
        path: &str,
        arguments: &str,
        header: Header<'_>,
        connection: &Connection,
    ) -> Result<(Reader, Checked)> {
        let reader = self.door.admit(header, connection).await?;
        let arguments: Value = serde_json::from_str(arguments).map_err(|error| {
            let problem = format!("the arguments are no JSON: {error}");
            BusError::new(ErrorKind::Invalid, problem, "give a list, or an object by name")
        })?;
        let path = Some(path).filter(|path| !path.is_empty());
        match call::check(&*self.loaded()?, method, path, &arguments) {
            Ok(checked) => Ok((reader, checked)),
            Err(error) if error.kind() == ErrorKind::Denied => {
                let details = json!({ "plugin": self.name, "denied": error.problem() });
                let what = format!("call {method}");
                self.door.service.gate.deny(&reader, &what, &details).await?;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    async fn denied(&self, reader: &Reader, checked: &Checked, error: BusError) -> BusError {
        let mut details = checked.details(&self.name);
        details["denied"] = error.problem().into();
        let journaled = self.door.service.gate.deny(reader, &checked.what(), &details).await;
        journaled.err().unwrap_or(error)
    }
}
