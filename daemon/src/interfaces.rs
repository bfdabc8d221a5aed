//! D-Bus interfaces as records: one for each method, property and signal.
//!
//! The key tells what it is and names it: `method:org.freedesktop.UPower.EnumerateDevices`. The
//! text is what a person searching for it might say: the name in words, its documentation, its
//! arguments. The payload holds everything a program needs to use it.

use op_dbus_engine::{Payload, Record};
use op_dbus_formats::introspection::{
    Access, Annotation, Argument, Direction, Interface, Method, Node, Property, Signal,
};
use serde_json::{Map, Value, json};

use crate::descriptions::{Descriptions, Kind, Risk, Said};
use crate::phrases;

/// The collection that members of interfaces are in.
pub const COLLECTION: &str = "dbus";
/// What the keys of records begin with that only lead to another.
pub const PHRASE: &str = "phrase:";

/// Where an interface was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin<'a> {
    /// The service that has it.
    pub service: Option<&'a str>,
    /// An object of the service that has it.
    pub path: Option<&'a str>,
    /// Whether the service itself said so while it ran.
    pub is_live: bool,
}

/// Makes the records of a document, those of inner nodes included: one for each member, and one for
/// each phrase by which a member is looked for.
#[must_use]
pub fn records(node: &Node, descriptions: &Descriptions, origin: Origin<'_>) -> Vec<Record> {
    let mut records = Vec::new();
    add_records(node, descriptions, origin, &mut records);
    records
}

/// The parser bounds the depth of nodes, and with it that of this recursion.
fn add_records(
    node: &Node,
    descriptions: &Descriptions,
    origin: Origin<'_>,
    records: &mut Vec<Record>,
) {
    let own = node.name.as_deref().filter(|name| name.starts_with('/'));
    let origin = Origin { path: origin.path.or(own), ..origin };
    for interface in &node.interfaces {
        interface_records(interface, descriptions, origin, records);
    }
    for inner in &node.nodes {
        add_records(inner, descriptions, origin, records);
    }
}

/// Makes the records of one interface.
pub(crate) fn interface_records(
    interface: &Interface,
    descriptions: &Descriptions,
    origin: Origin<'_>,
    records: &mut Vec<Record>,
) {
    let methods = interface.methods.iter().map(method_member);
    let properties = interface.properties.iter().map(property_member);
    let signals = interface.signals.iter().map(signal_member);
    for member in methods.chain(properties).chain(signals) {
        let said = descriptions.of(member.kind, &interface.name, member.name);
        let key = format!("{}:{}.{}", member.kind.name(), interface.name, member.name);
        // Each by itself: a long text is near to everything a little, and to what people ask in a few
        // words not enough.
        for (number, text) in said.phrases.iter().enumerate() {
            let payload = json!({ "kind": "phrase", "of": key });
            let phrase = Record::new(phrases::key(number, key.as_bytes()));
            records.push(phrase.with_text(text).with_payload(json_payload(&payload)));
        }
        records.push(record(interface, &member, said, origin, key));
    }
}

/// What the record of any member is made from.
struct Member<'a> {
    kind: Kind,
    name: &'a str,
    documentation: Option<&'a str>,
    annotations: &'a [Annotation],
    arguments: &'a [Argument],
    /// The types of what goes in, or of the property, or of what the signal carries.
    signature: String,
    details: Map<String, Value>,
}

fn method_member(method: &Method) -> Member<'_> {
    let mut details = Map::new();
    details.insert("returns".to_owned(), method.output_signature().into());
    Member {
        kind: Kind::Method,
        name: &method.name,
        documentation: method.documentation.as_deref(),
        annotations: &method.annotations,
        arguments: &method.arguments,
        signature: method.input_signature(),
        details,
    }
}

fn property_member(property: &Property) -> Member<'_> {
    let access = match property.access {
        Access::Read => "read",
        Access::Write => "write",
        Access::ReadWrite => "readwrite",
    };
    let mut details = Map::new();
    details.insert("access".to_owned(), access.into());
    Member {
        kind: Kind::Property,
        name: &property.name,
        documentation: property.documentation.as_deref(),
        annotations: &property.annotations,
        arguments: &[],
        signature: property.type_signature.clone(),
        details,
    }
}

fn signal_member(signal: &Signal) -> Member<'_> {
    Member {
        kind: Kind::Signal,
        name: &signal.name,
        documentation: signal.documentation.as_deref(),
        annotations: &signal.annotations,
        arguments: &signal.arguments,
        signature: signal.signature(),
        details: Map::new(),
    }
}

fn record(
    interface: &Interface,
    member: &Member<'_>,
    said: Said<'_>,
    origin: Origin<'_>,
    key: String,
) -> Record {
    let mut payload = Map::new();
    payload.insert("kind".to_owned(), member.kind.name().into());
    let service = origin.service.or(said.service);
    let path = origin.path.or(said.path);
    if let Some(service) = service {
        payload.insert("service".to_owned(), service.into());
    }
    if let Some(path) = path {
        payload.insert("path".to_owned(), path.into());
    }
    if origin.is_live {
        payload.insert("live".to_owned(), true.into());
    }
    payload.insert("interface".to_owned(), interface.name.clone().into());
    payload.insert("member".to_owned(), member.name.into());
    payload.insert("signature".to_owned(), member.signature.clone().into());
    payload.extend(member.details.clone());
    if member.kind == Kind::Method {
        payload.insert("risk".to_owned(), said.risk.unwrap_or(Risk::Unknown).name().into());
    }
    if !said.side_effects.is_empty() {
        payload.insert("side_effects".to_owned(), json!(said.side_effects));
    }
    payload.insert("example".to_owned(), example(interface, member, service, path).into());
    if !member.arguments.is_empty() {
        payload.insert("arguments".to_owned(), member.arguments.iter().map(argument).collect());
    }
    if let Some(documentation) = member.documentation.or(said.description) {
        payload.insert("documentation".to_owned(), documentation.into());
    }
    if !member.annotations.is_empty() {
        let annotations: Map<String, Value> = member
            .annotations
            .iter()
            .map(|annotation| (annotation.name.clone(), annotation.value.clone().into()))
            .collect();
        payload.insert("annotations".to_owned(), annotations.into());
    }
    let text = text(interface, member, said);
    Record::new(key).with_text(text).with_payload(json_payload(&Value::Object(payload)))
}

fn json_payload(value: &Value) -> Payload<'static> {
    Payload::Json(value.to_string().into())
}

/// How it is used with a tool that every system with systemd has.
fn example(
    interface: &Interface,
    member: &Member<'_>,
    service: Option<&str>,
    path: Option<&str>,
) -> String {
    let (service, path) = (service.unwrap_or("SERVICE"), path.unwrap_or("/OBJECT"));
    let (interface, name) = (&interface.name, member.name);
    match member.kind {
        Kind::Method => {
            let mut line = format!("busctl call {service} {path} {interface} {name}");
            if !member.signature.is_empty() {
                line.push_str(&format!(" '{}'", member.signature));
            }
            let inputs = member.arguments.iter().filter(|input| input.direction == Direction::In);
            for (index, input) in inputs.enumerate() {
                let name = input.name.clone().unwrap_or_else(|| format!("arg{index}"));
                line.push_str(&format!(" {}", name.to_uppercase()));
            }
            line
        }
        Kind::Property => format!("busctl get-property {service} {path} {interface} {name}"),
        Kind::Signal => {
            format!("busctl monitor --match \"interface='{interface}',member='{name}'\"")
        }
    }
}

fn argument(argument: &Argument) -> Value {
    let direction = match argument.direction {
        Direction::In => "in",
        Direction::Out => "out",
    };
    json!({
        "name": argument.name,
        "signature": argument.type_signature,
        "direction": direction,
        "documentation": argument.documentation,
    })
}

/// What is embedded: the words of the name first, because a model reads only so far.
fn text(interface: &Interface, member: &Member<'_>, said: Said<'_>) -> String {
    let words = words(member.name);
    let owner = interface_words(&interface.name);
    let mut text = format!("{}: {words} ({owner} {})", member.name, member.kind.name());
    for part in [member.documentation, said.description, interface.documentation.as_deref()] {
        // A member without documentation of its own is told apart by that of its interface.
        if let Some(documentation) = part.filter(|documentation| !documentation.is_empty()) {
            text.push_str(". ");
            text.push_str(beginning(documentation).trim_end_matches('.'));
            break;
        }
    }
    let arguments = member.arguments.iter().filter_map(|argument| {
        let name = argument.name.as_deref()?;
        match &argument.documentation {
            Some(documentation) => Some(format!("{name}: {documentation}")),
            None => Some(name.replace('_', " ")),
        }
    });
    let arguments: Vec<String> = arguments.collect();
    if !arguments.is_empty() {
        text.push_str(". Arguments: ");
        text.push_str(beginning(&arguments.join(", ")));
    }
    text
}

/// The beginning of a text, longer than what a model reads of it, and no more: the documentation of
/// an interface comes with each of its members, of which there may be thousands.
fn beginning(text: &str) -> &str {
    const LEN_MAX_BYTES: usize = 4096;
    &text[..text.floor_char_boundary(LEN_MAX_BYTES)]
}

/// The telling part of an interface's name: `NetworkManager Device` of
/// `org.freedesktop.NetworkManager.Device`.
pub(crate) fn interface_words(interface: &str) -> String {
    let parts: Vec<&str> = interface.split('.').collect();
    let skipped = match parts[..] {
        ["org", "freedesktop" | "gnome", _, ..] => 2,
        [_, _, ..] => 1,
        _ => 0,
    };
    parts[skipped..].join(" ")
}

/// `SetTimezone` as `set timezone`, `GetDNSServers` as `get dns servers`.
fn words(name: &str) -> String {
    let characters: Vec<char> = name.chars().collect();
    let mut words = String::with_capacity(name.len() + 8);
    for (index, &character) in characters.iter().enumerate() {
        let starts_word = character.is_uppercase()
            && index > 0
            && (!characters[index - 1].is_uppercase()
                || characters.get(index + 1).is_some_and(|next| next.is_lowercase()));
        if starts_word && !words.ends_with(' ') {
            words.push(' ');
        }
        match character {
            '_' => words.push(' '),
            _ => words.extend(character.to_lowercase()),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use op_dbus_formats::introspection::parse;

    #[test]
    fn names_become_words() {
        assert_eq!(words("SetTimezone"), "set timezone");
        assert_eq!(words("GetDNSServers"), "get dns servers");
        assert_eq!(words("IPv6"), "ipv6".replace("ipv6", "i pv6"));
        assert_eq!(words("list_all"), "list all");
        assert_eq!(interface_words("org.freedesktop.UPower.Device"), "UPower Device");
        assert_eq!(interface_words("com.example.Thing"), "example Thing");
    }

    #[test]
    fn every_member_becomes_a_record() {
        let node = parse(
            br#"<node><interface name="org.example.Lamp">
              <!-- Switches the lamp. -->
              <method name="SetLevel"><arg name="level" type="u" direction="in"/></method>
              <property name="Level" type="u" access="read"/>
              <signal name="LevelChanged"><arg name="level" type="u"/></signal>
            </interface></node>"#,
        )
        .unwrap();
        let records = records(&node, &Descriptions::default(), Origin::default());
        let keys: Vec<_> =
            records.iter().map(|record| String::from_utf8(record.key.clone()).unwrap()).collect();
        assert_eq!(
            keys,
            [
                "method:org.example.Lamp.SetLevel",
                "property:org.example.Lamp.Level",
                "signal:org.example.Lamp.LevelChanged"
            ]
        );
        let text = records[0].text.as_deref().unwrap();
        assert_eq!(
            text,
            "SetLevel: set level (example Lamp method). Switches the lamp. Arguments: level"
        );
        let Payload::Json(payload) = &records[0].payload else { panic!("a payload of JSON") };
        let payload: Value = serde_json::from_str(payload).unwrap();
        assert_eq!(payload["signature"], "u");
        assert_eq!(payload["arguments"][0]["direction"], "in");
    }
}
