//! `semantic-mapping.toml`: what the members of a D-Bus service mean, and how far they may be used.
//!
//! Introspection says which methods there are and of what types. It does not say which of them
//! change something, what may be asked of them, which of their values nobody may read, or how a
//! declared state is reached by them. That is said here, by a person.
//!
//! | table | what it says |
//! |---|---|
//! | `[service]` | which service, object and interface are meant |
//! | `[methods.NAME]` | whether calling is safe, confirmed, repeatable; what the arguments may be |
//! | `[properties.NAME]` | whether it may be read and written |
//! | `[signals.NAME]` | what it tells |
//! | `[state_mapping.KEY]` | how a key of declared state is read and set |
//! | `[safety]` | what is never called, how often and how long anything else |
//!
//! `NAME` is a member, or in quotes an interface and a member: `"org.example.Thing.Member"`; that of a
//! property may have any character that is no control character. A qualified name goes before a plain one; a plain one means members of `[service] interface`, if
//! that is said. Whatever is not mapped is neither safe nor writable.

mod parse;
mod render;
mod validation;

use std::collections::BTreeMap;

use serde_json::Value;

pub use parse::parse;
pub use render::render;
pub use validation::{Pattern, Validation};

/// Most calls in a minute that may be allowed.
pub const CALLS_PER_MINUTE_MAX: u32 = 6000;
/// Calls in a minute if nothing else is said.
pub const DEFAULT_CALLS_PER_MINUTE: u32 = 60;
/// Longest that a call may be told to take, in milliseconds.
pub const TIMEOUT_MAX_MS: u32 = 600_000;
/// How long a call may take if nothing else is said, in milliseconds.
pub const DEFAULT_TIMEOUT_MS: u32 = 25_000;
/// What stands for the wanted value among the arguments of a state mapping.
pub const WANTED: &str = "$value";

/// What `semantic-mapping.toml` says.
#[derive(Clone, Debug, PartialEq)]
pub struct SemanticMapping {
    /// What is mapped.
    pub service: MappedService,
    /// Methods by their names, plain or qualified.
    pub methods: BTreeMap<String, MappedMethod>,
    /// Properties by their names, plain or qualified.
    pub properties: BTreeMap<String, MappedProperty>,
    /// What signals tell, by name.
    pub signals: BTreeMap<String, MappedSignal>,
    /// Keys of declared state, and how each is read and set.
    pub state: BTreeMap<String, MappedState>,
    /// What holds for every call.
    pub safety: Safety,
}

/// A service, and what of it is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappedService {
    /// Its well-known bus name.
    pub name: String,
    /// The object that is meant where nothing else is said.
    pub path: Option<String>,
    /// The interface of plain names.
    pub interface: Option<String>,
    /// What it is for.
    pub description: Option<String>,
}

/// A method, and how far it may be used.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MappedMethod {
    /// Whether it changes nothing.
    pub safe: bool,
    /// Whether a person must agree to each call.
    pub requires_confirmation: bool,
    /// What a call changes, in words.
    pub side_effects: Vec<String>,
    /// Whether calling it twice is the same as once.
    pub idempotent: bool,
    /// What it is for.
    pub description: Option<String>,
    /// The names of its arguments in order, if they are told.
    pub args: Option<Vec<String>>,
    /// Arguments that are never logged, journaled or embedded.
    pub secret_args: Vec<String>,
    /// Values of arguments that are left out.
    pub defaults: BTreeMap<String, Value>,
    /// What arguments may be.
    pub validation: BTreeMap<String, Validation>,
    /// The method of this mapping that says what this one would do.
    pub dry_run_method: Option<String>,
    /// Whether what it returns is never logged, journaled or embedded.
    pub returns_secret: bool,
    /// Phrases by which people look for it, each in a few words.
    pub phrases: Vec<String>,
}

/// A property, and how far it may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappedProperty {
    /// Whether it may be read.
    pub readable: bool,
    /// Whether it may be written.
    pub writable: bool,
    /// Whether a person must agree to each write.
    pub requires_confirmation: bool,
    /// Whether its value is never logged, journaled or embedded.
    pub secret: bool,
    /// What it is for.
    pub description: Option<String>,
    /// Phrases by which people look for it, each in a few words.
    pub phrases: Vec<String>,
}

impl Default for MappedProperty {
    fn default() -> Self {
        Self {
            readable: true,
            writable: false,
            requires_confirmation: true,
            secret: false,
            description: None,
            phrases: Vec::new(),
        }
    }
}

/// What is said about a signal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MappedSignal {
    /// What it tells.
    pub description: Option<String>,
    /// Phrases by which people look for it, each in a few words.
    pub phrases: Vec<String>,
}

/// How a key of declared state is read and set.
#[derive(Clone, Debug, PartialEq)]
pub struct MappedState {
    /// The property that is read.
    pub property: String,
    /// The method that sets it; without one, the property is written.
    pub setter: Option<Setter>,
    /// Whether its value is never logged, journaled or embedded.
    pub secret: bool,
}

/// A method that sets a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Setter {
    /// Its name, plain or qualified.
    pub method: String,
    /// What it is called with; one of them is the wanted value.
    pub args: Vec<SetterArg>,
}

/// An argument of a setter.
#[derive(Clone, Debug, PartialEq)]
pub enum SetterArg {
    /// The wanted value, written `"$value"`.
    Wanted,
    /// The same in every call.
    Fixed(Value),
}

/// What holds for every call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Safety {
    /// Members that are never called, whatever else is said; plain or qualified.
    pub deny: Vec<String>,
    /// Calls in a minute.
    pub calls_per_minute_max: u32,
    /// How long a call may take, in milliseconds.
    pub timeout_ms: u32,
}

impl Default for Safety {
    fn default() -> Self {
        Self {
            deny: Vec::new(),
            calls_per_minute_max: DEFAULT_CALLS_PER_MINUTE,
            timeout_ms: DEFAULT_TIMEOUT_MS,
        }
    }
}

impl SemanticMapping {
    /// What is said about a method.
    #[must_use]
    pub fn method(&self, interface: &str, member: &str) -> Option<&MappedMethod> {
        self.find(&self.methods, interface, member)
    }

    /// What is said about a property.
    #[must_use]
    pub fn property(&self, interface: &str, member: &str) -> Option<&MappedProperty> {
        self.find_any(&self.properties, interface, member)
    }

    /// What is said about a signal.
    #[must_use]
    pub fn signal(&self, interface: &str, member: &str) -> Option<&MappedSignal> {
        self.find(&self.signals, interface, member)
    }

    /// Whether a member is never called. A plain name in the list denies the members of that name
    /// in every interface.
    #[must_use]
    pub fn denies(&self, interface: &str, member: &str) -> bool {
        let is_meant =
            |denied: &String| denied == member || is_qualified(denied, interface, member);
        self.safety.deny.iter().any(is_meant)
    }

    fn find<'a, T>(
        &self,
        mapped: &'a BTreeMap<String, T>,
        interface: &str,
        member: &str,
    ) -> Option<&'a T> {
        // With a point in it, it would be looked up as that of another interface.
        if member.contains('.') {
            return None;
        }
        self.find_any(mapped, interface, member)
    }

    /// Of a member that there is, since one with points may look like that of another interface.
    fn find_any<'a, T>(
        &self,
        mapped: &'a BTreeMap<String, T>,
        interface: &str,
        member: &str,
    ) -> Option<&'a T> {
        let qualified = mapped.get(&format!("{interface}.{member}"));
        let is_meant = self.service.interface.as_deref().is_none_or(|meant| meant == interface);
        let plain = || mapped.get(member).filter(|_| is_meant);
        qualified.or_else(plain)
    }
}

impl Setter {
    /// What the method is called with to set a value.
    #[must_use]
    pub fn arguments(&self, wanted: &Value) -> Vec<Value> {
        let argument = |arg: &SetterArg| match arg {
            SetterArg::Wanted => wanted.clone(),
            SetterArg::Fixed(value) => value.clone(),
        };
        self.args.iter().map(argument).collect()
    }
}

/// Whether a name is that of a member with its interface before it. This alone tells of a property,
/// whose own name may have points.
#[must_use]
pub fn is_qualified(name: &str, interface: &str, member: &str) -> bool {
    name.strip_suffix(member).and_then(|rest| rest.strip_suffix('.')) == Some(interface)
}

/// The interface and the member of a name of a method or a signal that was checked.
fn split_name(name: &str) -> (Option<&str>, &str) {
    name.rsplit_once('.').map_or((None, name), |(interface, member)| (Some(interface), member))
}

#[cfg(test)]
mod tests;
