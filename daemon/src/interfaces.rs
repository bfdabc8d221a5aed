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

/// Makes the records of a document, those of inner nodes included.
#[must_use]
pub fn records(node: &Node) -> Vec<Record> {
    let mut records = Vec::new();
    add_records(node, &mut records);
    records
}

/// The parser bounds the depth of nodes, and with it that of this recursion.
fn add_records(node: &Node, records: &mut Vec<Record>) {
    for interface in &node.interfaces {
        records.extend(interface.methods.iter().map(|method| method_record(interface, method)));
        let properties = interface.properties.iter();
        records.extend(properties.map(|property| property_record(interface, property)));
        records.extend(interface.signals.iter().map(|signal| signal_record(interface, signal)));
    }
    node.nodes.iter().for_each(|inner| add_records(inner, records));
}

/// What the record of any member is made from.
struct Member<'a> {
    kind: &'static str,
    interface: &'a Interface,
    name: &'a str,
    documentation: Option<&'a str>,
    annotations: &'a [Annotation],
    arguments: &'a [Argument],
    details: Map<String, Value>,
}

fn method_record(interface: &Interface, method: &Method) -> Record {
    let mut details = Map::new();
    details.insert("signature".to_owned(), method.input_signature().into());
    details.insert("returns".to_owned(), method.output_signature().into());
    record(Member {
        kind: "method",
        interface,
        name: &method.name,
        documentation: method.documentation.as_deref(),
        annotations: &method.annotations,
        arguments: &method.arguments,
        details,
    })
}

fn property_record(interface: &Interface, property: &Property) -> Record {
    let access = match property.access {
        Access::Read => "read",
        Access::Write => "write",
        Access::ReadWrite => "readwrite",
    };
    let mut details = Map::new();
    details.insert("signature".to_owned(), property.type_signature.clone().into());
    details.insert("access".to_owned(), access.into());
    record(Member {
        kind: "property",
        interface,
        name: &property.name,
        documentation: property.documentation.as_deref(),
        annotations: &property.annotations,
        arguments: &[],
        details,
    })
}

fn signal_record(interface: &Interface, signal: &Signal) -> Record {
    let mut details = Map::new();
    details.insert("signature".to_owned(), signal.signature().into());
    record(Member {
        kind: "signal",
        interface,
        name: &signal.name,
        documentation: signal.documentation.as_deref(),
        annotations: &signal.annotations,
        arguments: &signal.arguments,
        details,
    })
}

fn record(member: Member<'_>) -> Record {
    let text = text(&member);
    let key = format!("{}:{}.{}", member.kind, member.interface.name, member.name);
    let mut payload = Map::new();
    payload.insert("kind".to_owned(), member.kind.into());
    payload.insert("interface".to_owned(), member.interface.name.clone().into());
    payload.insert("member".to_owned(), member.name.into());
    payload.extend(member.details);
    if !member.arguments.is_empty() {
        payload.insert("arguments".to_owned(), member.arguments.iter().map(argument).collect());
    }
    if let Some(documentation) = member.documentation {
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
    let payload = Value::Object(payload).to_string();
    Record::new(key).with_text(text).with_payload(Payload::Json(payload.into()))
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
fn text(member: &Member<'_>) -> String {
    let words = words(member.name);
    let owner = interface_words(&member.interface.name);
    let mut text = format!("{}: {words} ({owner} {})", member.name, member.kind);
    for part in [member.documentation, member.interface.documentation.as_deref()] {
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
fn interface_words(interface: &str) -> String {
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
        let records = records(&node);
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
