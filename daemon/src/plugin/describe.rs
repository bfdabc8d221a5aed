//! What a plugin is and can do, as JSON.

use serde_json::{Value, json};

use super::load::LoadedPlugin;

/// All about a plugin, for people and programs.
#[must_use]
pub fn describe(loaded: &LoadedPlugin) -> Value {
    let plugin = &loaded.plugin;
    let mut described = json!({
        "name": plugin.name.as_str(),
        "version": plugin.version,
        "source": plugin.source.name(),
        "description": plugin.description,
        "author": plugin.author,
        "service": plugin.dbus_service(),
        "path": plugin.dbus_path(),
        "capabilities": {
            "query": plugin.capabilities.query,
            "diff": plugin.capabilities.diff,
            "apply": plugin.capabilities.apply,
            "verify": plugin.capabilities.verify,
        },
        "depends_on": plugin.dependencies.plugins.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    let Some(service) = &loaded.service else { return described };
    let methods = service.introspection.interfaces.iter().flat_map(|interface| {
        interface.methods.iter().map(move |method| {
            let mapped = service.mapping.method(&interface.name, &method.name);
            let is_denied = service.mapping.denies(&interface.name, &method.name);
            json!({
                "name": format!("{}.{}", interface.name, method.name),
                "signature": method.input_signature(),
                "returns": method.output_signature(),
                "arguments": mapped.and_then(|mapped| mapped.args.clone()),
                "allowed": mapped.is_some() && !is_denied,
                "safe": mapped.is_some_and(|mapped| mapped.safe),
                "requires_confirmation": mapped.is_none_or(|mapped| mapped.requires_confirmation),
                "idempotent": mapped.map(|mapped| mapped.idempotent),
                "dry_run_method": mapped.and_then(|mapped| mapped.dry_run_method.clone()),
                "side_effects": mapped.map(|mapped| mapped.side_effects.clone()),
                "description": mapped.and_then(|mapped| mapped.description.clone()),
            })
        })
    });
    described["methods"] = methods.collect();
    described
}
