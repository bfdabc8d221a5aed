//! The state of an auto-generated plugin: properties of its service, set as its mapping says.
//!
//! Here the service itself calls, as its own user, because somebody declared a state; what it calls is
//! only what the mapping of an installed plugin names.

use std::time::Duration;

use op_dbus_engine::ErrorKind;
use op_dbus_formats::semantic_mapping::MappedState;
use serde_json::{Map, Value, json};
use zbus::fdo::PropertiesProxy;
use zbus::names::InterfaceName;
use zbus::{Connection, Structure, Variant};

use super::{Applied, Change};
use crate::error::{BusError, Result};
use crate::json as values;
use crate::plugin::call;
use crate::plugin::{LoadedPlugin, MappedService, REDACTED};

/// The declared state of one service.
pub(super) struct Mapped<'p> {
    pub(super) plugin: &'p LoadedPlugin,
    pub(super) service: &'p MappedService,
    pub(super) connection: &'p Connection,
}

impl Mapped<'_> {
    /// Reads what is: of all that can be declared, without secrets; or of what is mentioned, to make
    /// it so again.
    pub(super) async fn query(&self, about: Option<&Value>) -> Result<Value> {
        let mut state = Map::new();
        for (key, mapped) in &self.service.mapping.state {
            let value = match about {
                Some(about) if about.get(key).is_none() => continue,
                Some(_) => self.read(mapped).await?,
                None if self.is_secret(mapped, key) => REDACTED.into(),
                None => self.read(mapped).await?,
            };
            state.insert(key.clone(), value);
        }
        Ok(Value::Object(state))
    }

    /// Says what is not as declared.
    pub(super) async fn diff(&self, desired: &Value) -> Result<Vec<Change>> {
        let mut changes = Vec::new();
        for (key, wanted) in object(desired)? {
            let mapped = self.mapped(key)?;
            let wanted = self.as_property(mapped, key, wanted)?;
            let is = self.read(mapped).await?;
            if is == wanted {
                continue;
            }
            let what = match &mapped.setter {
                Some(setter) => format!("call {}", setter.method),
                None => format!("set the property {}", mapped.property),
            };
            let is_secret = self.is_secret(mapped, key);
            let shown = |value: Value| if is_secret { REDACTED.into() } else { value };
            changes.push(Change { path: key.clone(), from: shown(is), to: shown(wanted), what });
        }
        Ok(changes)
    }

    /// Makes it so, key by key, until one fails.
    pub(super) async fn apply(&self, desired: &Value) -> Result<Applied> {
        let mut applied = Applied::default();
        for change in self.diff(desired).await? {
            let (key, wanted) = (change.path.as_str(), &desired[change.path.as_str()]);
            let mapped = self.mapped(key)?;
            match self.set(mapped, key, wanted).await {
                Ok(()) => applied.changes.push(change),
                Err(error) => {
                    // Whoever refuses a value may quote it.
                    let problem = match self.is_secret(mapped, key) {
                        true => error.name(),
                        false => error.problem(),
                    };
                    applied.problem = Some(format!("{key}: {problem}"));
                    break;
                }
            }
        }
        Ok(applied)
    }

    /// Whether nobody may read it, by the mapping or by `plugin.toml`.
    fn is_secret(&self, mapped: &MappedState, key: &str) -> bool {
        mapped.secret || self.plugin.plugin.secret.iter().any(|secret| secret.covers(&[key]))
    }

    fn mapped(&self, key: &str) -> Result<&MappedState> {
        let state = &self.service.mapping.state;
        state.get(key).ok_or_else(|| {
            let known: Vec<&str> = state.keys().map(String::as_str).collect();
            let problem = format!("the plugin {} has no state {key}", self.plugin.plugin.name);
            let remedy = match known.as_slice() {
                [] => "add it to [state_mapping]".to_owned(),
                known => format!("it has {}", known.join(", ")),
            };
            BusError::new(ErrorKind::Invalid, problem, &remedy)
        })
    }

    /// The interface and the name of a property, and its type.
    fn property(&self, mapped: &MappedState) -> Result<(&str, &str, &str)> {
        let (interface, found) = self.service.property(&mapped.property).ok_or_else(|| {
            let problem = format!("there is no property {}", mapped.property);
            BusError::new(ErrorKind::Invalid, problem, "correct [state_mapping]")
        })?;
        Ok((&interface.name, &found.name, &found.type_signature))
    }

    /// A declared value as the property would say it.
    fn as_property(&self, mapped: &MappedState, key: &str, wanted: &Value) -> Result<Value> {
        let (_, _, signature) = self.property(mapped)?;
        let body = values::body(std::slice::from_ref(wanted), &[signature]).map_err(|problem| {
            let problem = match self.is_secret(mapped, key) {
                true => "the value does not fit".to_owned(),
                false => problem,
            };
            let remedy = format!("declare a value of the type {signature}");
            BusError::new(ErrorKind::Invalid, format!("{key}: {problem}"), &remedy)
        })?;
        Ok(body.first().map_or(Value::Null, values::from_variant))
    }

    async fn properties(&self) -> Result<PropertiesProxy<'_>> {
        let built = PropertiesProxy::builder(self.connection)
            .destination(self.service.mapping.service.name.as_str())
            .path(self.plugin.service_path())
            .build();
        built.await.map_err(BusError::from)
    }

    async fn read(&self, mapped: &MappedState) -> Result<Value> {
        let (interface, name, _) = self.property(mapped)?;
        let interface = InterfaceName::try_from(interface)?;
        let proxy = self.properties().await?;
        let value =
            self.patient(async { proxy.get(interface, name).await.map_err(zbus::Error::from) });
        let value = value.await?;
        Ok(values::from_variant(&value))
    }

    async fn set(&self, mapped: &MappedState, key: &str, wanted: &Value) -> Result<()> {
        let Some(setter) = &mapped.setter else {
            let (interface, name, signature) = self.property(mapped)?;
            let interface = InterfaceName::try_from(interface)?;
            let body = values::body(std::slice::from_ref(wanted), &[signature])
                .map_err(|problem| BusError::new(ErrorKind::Invalid, problem, key))?;
            let value = body.into_iter().next().unwrap_or(Variant::Bool(false));
            let proxy = self.properties().await?;
            let set = async { proxy.set(interface, name, &value).await.map_err(zbus::Error::from) };
            return self.patient(set).await;
        };
        // By the same rules as a call that somebody asks for.
        let arguments = Value::Array(setter.arguments(wanted));
        let checked = call::check(self.plugin, &setter.method, None, &arguments)?;
        let types = values::complete_types(&checked.signature)
            .map_err(|problem| BusError::new(ErrorKind::Invalid, problem, key))?;
        let types: Vec<&str> = types.iter().map(String::as_str).collect();
        let fields = values::body(&checked.arguments, &types)
            .map_err(|problem| BusError::new(ErrorKind::Invalid, problem, key))?;
        let mut body = Structure::builder();
        fields.into_iter().for_each(|field| body.push_value(field));
        let body = body.build().map_err(BusError::from)?;
        let called = self.connection.call_method(
            Some(checked.service.as_str()),
            checked.path.as_str(),
            Some(checked.interface.as_str()),
            checked.member.as_str(),
            &body,
        );
        self.patient(called).await?;
        Ok(())
    }

    async fn patient<T>(&self, asked: impl Future<Output = zbus::Result<T>>) -> Result<T> {
        let timeout_ms = self.service.mapping.safety.timeout_ms;
        let service = &self.service.mapping.service.name;
        match tokio::time::timeout(Duration::from_millis(timeout_ms.into()), asked).await {
            Ok(answer) => Ok(answer?),
            Err(_) => {
                let problem = format!("{service} did not answer in {timeout_ms} ms");
                Err(BusError::new(ErrorKind::Unavailable, problem, "see whether it runs"))
            }
        }
    }
}

fn object(desired: &Value) -> Result<&Map<String, Value>> {
    desired.as_object().ok_or_else(|| {
        let problem = format!("{} is no object of declared state", json!(desired));
        BusError::new(ErrorKind::Invalid, problem, "declare an object")
    })
}
