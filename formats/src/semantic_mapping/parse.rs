//! From text to a mapping.

use std::collections::BTreeMap;

use serde_json::{Number, Value};

use super::{
    CALLS_PER_MINUTE_MAX, MappedMethod, MappedProperty, MappedService, MappedSignal, MappedState,
    Pattern, Safety, SemanticMapping, Setter, SetterArg, TIMEOUT_MAX_MS, Validation, WANTED,
    split_name,
};
use crate::TextError;
use crate::introspection::{
    NAME_LEN_MAX_BYTES, NameProblem, check_bus_name, check_free_name, check_interface_name,
    check_member_name, check_object_path,
};
use crate::toml::{Document, Name, Table};

const TABLES: &[&str] = &["service", "methods", "properties", "signals", "state_mapping", "safety"];
const SERVICE_KEYS: &[&str] = &["name", "path", "interface", "description"];
const METHOD_KEYS: &[&str] = &[
    "safe",
    "requires_confirmation",
    "side_effects",
    "idempotent",
    "description",
    "args",
    "secret_args",
    "defaults",
    "validation",
    "dry_run_method",
    "returns_secret",
    "phrases",
];
const VALIDATION_KEYS: &[&str] = &["pattern", "len_min", "len_max", "one_of", "min", "max"];
const PROPERTY_KEYS: &[&str] =
    &["readable", "writable", "requires_confirmation", "secret", "description", "phrases"];
const SIGNAL_KEYS: &[&str] = &["description", "phrases"];
const STATE_KEYS: &[&str] = &["property", "method", "args", "secret"];
const SAFETY_KEYS: &[&str] = &["deny", "calls_per_minute_max", "timeout_ms"];

/// Parses a file.
///
/// # Errors
/// Says what is wrong, in which line and column: text that is not TOML, keys that nobody knows,
/// missing keys, wrong types, wrong values, and what contradicts itself.
pub fn parse(bytes: &[u8]) -> Result<SemanticMapping, TextError> {
    let document = Document::parse(bytes)?;
    let root = document.root(TABLES)?;
    let service = service(&root)?;
    let methods = methods(&root)?;
    let properties = named(&root, "properties", PROPERTY_KEYS, check_property, property)?;
    let signals = named(&root, "signals", SIGNAL_KEYS, check_name, signal)?;
    let state = named(&root, "state_mapping", STATE_KEYS, check_state_key, state)?;
    let safety = safety(&root, &service, &methods)?;
    Ok(SemanticMapping { service, methods, properties, signals, state, safety })
}

fn service(root: &Table<'_>) -> Result<MappedService, TextError> {
    let table = root.required("service", root.table("service", SERVICE_KEYS)?)?;
    let name = table.parsed("name", |text| check_bus_name(text).map(|()| text.to_owned()))?;
    Ok(MappedService {
        name: table.required("name", name)?,
        path: table.parsed("path", |text| check_object_path(text).map(|()| text.to_owned()))?,
        interface: table
            .parsed("interface", |text| check_interface_name(text).map(|()| text.to_owned()))?,
        description: table.description("description")?,
    })
}

/// Tables of one kind, by their names.
fn named<T>(
    root: &Table<'_>,
    key: &str,
    allowed: &'static [&'static str],
    check: impl Fn(&str) -> Result<(), String>,
    read: impl Fn(&Table<'_>) -> Result<T, TextError>,
) -> Result<BTreeMap<String, T>, TextError> {
    let mut all = BTreeMap::new();
    for (name, table) in root.tables(key, allowed)? {
        check(name.name).map_err(|problem| name.wrong(problem))?;
        all.insert(name.name.to_owned(), read(&table)?);
    }
    Ok(all)
}

fn methods(root: &Table<'_>) -> Result<BTreeMap<String, MappedMethod>, TextError> {
    let methods = named(root, "methods", METHOD_KEYS, check_name, method)?;
    // Only now is it known which methods there are.
    for (name, table) in root.tables("methods", METHOD_KEYS)? {
        let Some(dry_run) = methods.get(name.name).and_then(|it| it.dry_run_method.as_deref())
        else {
            continue;
        };
        if dry_run == name.name {
            return Err(table.wrong("dry_run_method", "a method is not its own dry run"));
        }
        if !methods.contains_key(dry_run) {
            let problem = format!("{dry_run} is no method of this mapping");
            return Err(table.wrong("dry_run_method", problem));
        }
    }
    Ok(methods)
}

fn method(table: &Table<'_>) -> Result<MappedMethod, TextError> {
    let safe = table.bool("safe")?.unwrap_or(false);
    let args = match table.has("args") {
        true => Some(table.list("args", |text| check_free_name(text).map(|()| text.to_owned()))?),
        false => None,
    };
    let known = args.as_deref().unwrap_or_default();
    let is_known = |text: &str| match known.iter().any(|arg| arg == text) {
        true => Ok(text.to_owned()),
        false => Err("it is none of args"),
    };
    let known_name = |name: &Name<'_>, key: &str| {
        let wrong = |problem| name.wrong(format!("{key} has {:?}: {problem}", name.name));
        is_known(name.name).map_err(wrong)
    };
    let mut defaults = BTreeMap::new();
    for (name, value) in table.named_values("defaults")? {
        defaults.insert(known_name(&name, "defaults")?, value);
    }
    let secret_args = table.list("secret_args", is_known)?;
    let mut validation = BTreeMap::new();
    for (name, rules) in table.tables("validation", VALIDATION_KEYS)? {
        let (arg, rules) = (known_name(&name, "validation")?, self::validation(&rules)?);
        if let Some(value) = defaults.get(&arg) {
            let checked = rules.check(&arg, value, secret_args.contains(&arg));
            checked.map_err(|problem| name.wrong(format!("the default of {problem}")))?;
        }
        validation.insert(arg, rules);
    }
    Ok(MappedMethod {
        safe,
        requires_confirmation: table.bool("requires_confirmation")?.unwrap_or(!safe),
        side_effects: table.list("side_effects", not_empty)?,
        idempotent: table.bool("idempotent")?.unwrap_or(false),
        description: table.description("description")?,
        secret_args,
        defaults,
        validation,
        dry_run_method: member(table, "dry_run_method")?,
        returns_secret: table.bool("returns_secret")?.unwrap_or(false),
        phrases: table.list("phrases", not_empty)?,
        args,
    })
}

fn validation(table: &Table<'_>) -> Result<Validation, TextError> {
    let one_of = table.values("one_of")?;
    if let Some(values) = &one_of {
        if values.is_empty() {
            return Err(table.wrong("one_of", "one_of is empty: no value is allowed"));
        }
        if values.iter().any(|value| value.is_array() || value.is_object()) {
            let problem = "one_of may have strings, numbers, true and false";
            return Err(table.wrong("one_of", problem));
        }
    }
    let rules = Validation {
        pattern: table.parsed("pattern", Pattern::new)?,
        len_min: table.integer("len_min", 0..=u32::MAX)?,
        len_max: table.integer("len_max", 0..=u32::MAX)?,
        one_of,
        min: number(table, "min")?,
        max: number(table, "max")?,
    };
    match rules.contradiction() {
        Some((key, problem)) => Err(table.wrong(key, problem)),
        None => Ok(rules),
    }
}

fn number(table: &Table<'_>, key: &str) -> Result<Option<Number>, TextError> {
    match table.value(key)? {
        None => Ok(None),
        Some(Value::Number(number)) => Ok(Some(number)),
        Some(_) => Err(table.wrong(key, format!("{key} must be a number"))),
    }
}

fn property(table: &Table<'_>) -> Result<MappedProperty, TextError> {
    let default = MappedProperty::default();
    Ok(MappedProperty {
        readable: table.bool("readable")?.unwrap_or(default.readable),
        writable: table.bool("writable")?.unwrap_or(default.writable),
        requires_confirmation: table
            .bool("requires_confirmation")?
            .unwrap_or(default.requires_confirmation),
        secret: table.bool("secret")?.unwrap_or(default.secret),
        description: table.description("description")?,
        phrases: table.list("phrases", not_empty)?,
    })
}

fn signal(table: &Table<'_>) -> Result<MappedSignal, TextError> {
    let description = table.description("description")?;
    Ok(MappedSignal { description, phrases: table.list("phrases", not_empty)? })
}

fn state(table: &Table<'_>) -> Result<MappedState, TextError> {
    let property =
        table.parsed("property", |text| check_property(text).map(|()| text.to_owned()))?;
    let property = table.required("property", property)?;
    let args = table.values("args")?;
    let setter = match (member(table, "method")?, args) {
        (None, Some(_)) => {
            return Err(table.wrong_key("args", "args without a method that takes them"));
        }
        (None, None) => None,
        (Some(method), None) => Some(Setter { method, args: vec![SetterArg::Wanted] }),
        (Some(method), Some(values)) => {
            let arg = |value| match value {
                Value::String(text) if text == WANTED => SetterArg::Wanted,
                value => SetterArg::Fixed(value),
            };
            let args: Vec<SetterArg> = values.into_iter().map(arg).collect();
            let count = args.iter().filter(|arg| **arg == SetterArg::Wanted).count();
            if count != 1 {
                let problem = format!("args has \"{WANTED}\" {count} times, it must be once");
                return Err(table.wrong("args", problem));
            }
            Some(Setter { method, args })
        }
    };
    Ok(MappedState { property, setter, secret: table.bool("secret")?.unwrap_or(false) })
}

fn safety(
    root: &Table<'_>,
    service: &MappedService,
    methods: &BTreeMap<String, MappedMethod>,
) -> Result<Safety, TextError> {
    let default = Safety::default();
    let Some(table) = root.table("safety", SAFETY_KEYS)? else { return Ok(default) };
    let deny = |text: &str| {
        // A method, a signal or a property.
        check_property(text)?;
        let mut safe = methods.iter().filter(|(_, method)| method.safe).map(|(name, _)| name);
        match safe.find(|name| may_mean_the_same(text, name, service.interface.as_deref())) {
            Some(name) => Err(format!("[methods] says that {name} is safe")),
            None => Ok(text.to_owned()),
        }
    };
    Ok(Safety {
        deny: table.list("deny", deny)?,
        calls_per_minute_max: table
            .integer("calls_per_minute_max", 1..=CALLS_PER_MINUTE_MAX)?
            .unwrap_or(default.calls_per_minute_max),
        timeout_ms: table.integer("timeout_ms", 1..=TIMEOUT_MAX_MS)?.unwrap_or(default.timeout_ms),
    })
}

/// Whether a denied name may mean a member that a mapped name means.
fn may_mean_the_same(denied: &str, mapped: &str, interface: Option<&str>) -> bool {
    let ((denied_of, denied), (mapped_of, mapped)) = (split_name(denied), split_name(mapped));
    let interfaces = (denied_of, mapped_of.or(interface));
    denied == mapped && !matches!(interfaces, (Some(one), Some(other)) if one != other)
}

fn member(table: &Table<'_>, key: &str) -> Result<Option<String>, TextError> {
    table.parsed(key, |text| check_name(text).map(|()| text.to_owned()))
}

/// A member, or an interface and a member.
fn check_name(name: &str) -> Result<(), String> {
    let checked = match split_name(name) {
        (None, member) => check_member_name(member),
        (Some(interface), member) => {
            check_interface_name(interface).and_then(|()| check_member_name(member))
        }
    };
    checked.map_err(|problem| match problem {
        NameProblem::NoPoint => format!(
            "{:?} is no member nor, in quotes, an interface and a member",
            name.chars().take(64).collect::<String>()
        ),
        problem => problem.to_string(),
    })
}

/// A property, or an interface and a property. What a service may call its properties is free, points
/// included: fprintd has `scan-type`.
fn check_property(name: &str) -> Result<(), String> {
    let plain = check_free_name(name);
    let mut points = name.match_indices('.').map(|(at, _)| at);
    let is_qualified = points.any(|at| {
        check_interface_name(&name[..at]).is_ok() && check_free_name(&name[at + 1..]).is_ok()
    });
    if is_qualified { Ok(()) } else { plain.map_err(|problem| problem.to_string()) }
}

fn check_state_key(key: &str) -> Result<(), String> {
    let allowed = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    match (key.chars().next(), key.chars().find(|character| !allowed(character))) {
        (None, _) => Err("the key is empty".to_owned()),
        (_, Some(found)) => Err(format!("the key has the character {found:?}")),
        (Some(first), _) if !first.is_ascii_alphabetic() && first != '_' => {
            Err(format!("the key begins with {first:?}"))
        }
        _ if key.len() > NAME_LEN_MAX_BYTES => {
            Err(format!("the key has {} bytes, the limit is {NAME_LEN_MAX_BYTES}", key.len()))
        }
        _ => Ok(()),
    }
}

fn not_empty(text: &str) -> Result<String, &'static str> {
    match text.trim().is_empty() {
        true => Err("it is empty"),
        false => Ok(text.to_owned()),
    }
}
