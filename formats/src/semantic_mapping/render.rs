//! From a mapping to text.

use serde_json::{Map, Value};

use super::{
    MappedMethod, MappedProperty, MappedState, Safety, SemanticMapping, SetterArg, Validation,
    WANTED,
};
use crate::toml::Writer;

/// Writes a file that [`parse`](super::parse) reads as the same mapping. What has the value that
/// its absence means is left out.
#[must_use]
pub fn render(mapping: &SemanticMapping) -> String {
    let mut out = Writer::default();
    out.table(&["service"]);
    out.pair("name", mapping.service.name.as_str());
    out.pair("path", mapping.service.path.clone());
    out.pair("interface", mapping.service.interface.clone());
    out.pair("description", mapping.service.description.clone());
    for (name, method) in &mapping.methods {
        out.table(&["methods", name]);
        render_method(&mut out, method);
    }
    for (name, property) in &mapping.properties {
        out.table(&["properties", name]);
        render_property(&mut out, property);
    }
    for (name, signal) in &mapping.signals {
        out.table(&["signals", name]);
        out.pair("description", signal.description.clone());
    }
    for (key, state) in &mapping.state {
        out.table(&["state_mapping", key]);
        render_state(&mut out, state);
    }
    let default = Safety::default();
    if mapping.safety != default {
        out.table(&["safety"]);
        out.list("deny", &mapping.safety.deny);
        out.pair_unless(
            "calls_per_minute_max",
            mapping.safety.calls_per_minute_max,
            default.calls_per_minute_max,
        );
        out.pair_unless("timeout_ms", mapping.safety.timeout_ms, default.timeout_ms);
    }
    out.finish()
}

fn render_method(out: &mut Writer, method: &MappedMethod) {
    out.pair("description", method.description.clone());
    // Said even if it is the default: whoever goes on with the file looks for it.
    out.pair("safe", method.safe);
    out.pair_unless("requires_confirmation", method.requires_confirmation, !method.safe);
    out.pair_unless("idempotent", method.idempotent, false);
    out.list("side_effects", &method.side_effects);
    // No arguments are not the same as arguments that are not told.
    out.pair("args", method.args.clone().map(Value::from));
    out.list("secret_args", &method.secret_args);
    if !method.defaults.is_empty() {
        let defaults = method.defaults.iter().map(|(arg, value)| (arg.clone(), value.clone()));
        out.pair("defaults", Value::Object(defaults.collect()));
    }
    if !method.validation.is_empty() {
        let rules = method.validation.iter().map(|(arg, rules)| (arg.clone(), rules_of(rules)));
        out.pair("validation", Value::Object(rules.collect()));
    }
    out.pair("dry_run_method", method.dry_run_method.clone());
    out.pair_unless("returns_secret", method.returns_secret, false);
}

fn rules_of(rules: &Validation) -> Value {
    let mut object = Map::new();
    let mut insert = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            object.insert(key.to_owned(), value);
        }
    };
    insert("pattern", rules.pattern.as_ref().map(|pattern| pattern.as_str().into()));
    insert("len_min", rules.len_min.map(Value::from));
    insert("len_max", rules.len_max.map(Value::from));
    insert("one_of", rules.one_of.clone().map(Value::from));
    insert("min", rules.min.clone().map(Value::Number));
    insert("max", rules.max.clone().map(Value::Number));
    Value::Object(object)
}

fn render_property(out: &mut Writer, property: &MappedProperty) {
    let default = MappedProperty::default();
    out.pair("description", property.description.clone());
    out.pair_unless("readable", property.readable, default.readable);
    out.pair_unless("writable", property.writable, default.writable);
    out.pair_unless(
        "requires_confirmation",
        property.requires_confirmation,
        default.requires_confirmation,
    );
    out.pair_unless("secret", property.secret, default.secret);
}

fn render_state(out: &mut Writer, state: &MappedState) {
    out.pair("property", state.property.as_str());
    if let Some(setter) = &state.setter {
        out.pair("method", setter.method.as_str());
        let arg = |arg: &SetterArg| match arg {
            SetterArg::Wanted => Value::from(WANTED),
            SetterArg::Fixed(value) => value.clone(),
        };
        if setter.args != [SetterArg::Wanted] {
            out.pair("args", setter.args.iter().map(arg).collect::<Vec<_>>());
        }
    }
    out.pair_unless("secret", state.secret, false);
}
