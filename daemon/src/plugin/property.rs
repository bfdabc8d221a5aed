//! A property that somebody asks for through a plugin: read and written by the rules of its mapping.

use op_dbus_engine::ErrorKind;
use op_dbus_formats::introspection::{Access, Property};
use op_dbus_formats::semantic_mapping::MappedProperty;
use serde_json::Value;

use super::load::{LoadedPlugin, MappedService};
use crate::error::{BusError, Result};
use crate::json;

/// The interface of all properties.
pub(super) const INTERFACE: &str = "org.freedesktop.DBus.Properties";

/// A property that may be asked for.
pub(super) struct Allowed<'m> {
    /// `Get` or `Set`.
    pub(super) member: &'static str,
    /// What it is called with: interface and name, and the value for `Set`.
    pub(super) arguments: Vec<Value>,
    pub(super) mapped: &'m MappedProperty,
}

/// Compares reading or writing a property with what its plugin says; `None` if the call is another.
pub(super) fn check<'m>(
    loaded: &LoadedPlugin,
    service: &'m MappedService,
    method: &str,
    arguments: &Value,
) -> Result<Option<Allowed<'m>>> {
    let member = match method.strip_prefix(INTERFACE).and_then(|name| name.strip_prefix('.')) {
        Some("Get") => "Get",
        Some("Set") => "Set",
        _ => return Ok(None),
    };
    let plugin = &loaded.plugin.name;
    let wrong = || {
        let remedy = "give interface and property, and for Set a value";
        BusError::new(ErrorKind::Invalid, format!("{member}: other arguments"), remedy)
    };
    let given = arguments.as_array().ok_or_else(wrong)?;
    let (interface, name, value) = match (member, given.as_slice()) {
        ("Get", [Value::String(interface), Value::String(name)]) => (interface, name, None),
        ("Set", [Value::String(interface), Value::String(name), value]) => {
            (interface, name, Some(value))
        }
        _ => return Err(wrong()),
    };
    let found = property(service, interface, name).ok_or_else(|| {
        let problem = format!("the plugin {plugin} has no property {interface}.{name}");
        BusError::new(ErrorKind::NotFound, problem, "see op-dbus plugin show")
    })?;
    let denied = |what: &str| {
        let problem = format!("the mapping of {plugin} does not let {interface}.{name} be {what}");
        BusError::new(ErrorKind::Denied, problem, "see [properties] in semantic-mapping.toml")
    };
    let mapped = service.mapping.property(interface, name).ok_or_else(|| denied("asked for"))?;
    if service.mapping.denies(interface, name) {
        return Err(denied("asked for"));
    }
    let mut arguments = vec![interface.as_str().into(), name.as_str().into()];
    match value {
        None if mapped.readable && found.access != Access::Write => {}
        None => return Err(denied("read")),
        Some(value) if mapped.writable && found.access != Access::Read => {
            let signature = found.type_signature.as_str();
            json::body(std::slice::from_ref(value), &[signature]).map_err(|problem| {
                let problem = if mapped.secret { "it does not fit".to_owned() } else { problem };
                BusError::new(ErrorKind::Invalid, problem, &format!("give a {signature}"))
            })?;
            // As a variant of the very type that the property has.
            arguments.push(serde_json::json!({ "type": signature, "value": value }));
        }
        Some(_) => return Err(denied("written")),
    }
    Ok(Some(Allowed { member, arguments, mapped }))
}

fn property<'s>(service: &'s MappedService, interface: &str, name: &str) -> Option<&'s Property> {
    let interfaces = &service.introspection.interfaces;
    let interface = interfaces.iter().find(|known| known.name == interface)?;
    interface.properties.iter().find(|property| property.name == name)
}
