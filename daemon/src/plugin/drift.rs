//! How a service is other than its plugin's introspection says.

use std::collections::BTreeMap;

use op_dbus_formats::introspection::Node;

use super::create::is_standard;

/// Lists the members that came, went or changed their types since a plugin was made, in words.
#[must_use]
pub fn drift(packaged: &Node, live: &Node) -> Vec<String> {
    let (packaged, live) = (members(packaged), members(live));
    let mut differences = Vec::new();
    for (name, types) in &packaged {
        match live.get(name) {
            None => differences.push(format!("{name} is gone")),
            Some(now) if now != types => {
                differences.push(format!("{name} has the types {now}, and had {types}"));
            }
            Some(_) => {}
        }
    }
    let new = live.keys().filter(|name| !packaged.contains_key(*name));
    differences.extend(new.map(|name| format!("{name} is new")));
    differences
}

/// Members by kind and name, and their types.
fn members(node: &Node) -> BTreeMap<String, String> {
    let mut members = BTreeMap::new();
    for interface in node.interfaces.iter().filter(|interface| !is_standard(&interface.name)) {
        let name = &interface.name;
        for method in &interface.methods {
            let types =
                format!("({}) -> ({})", method.input_signature(), method.output_signature());
            members.insert(format!("the method {name}.{}", method.name), types);
        }
        for property in &interface.properties {
            let types = property.type_signature.clone();
            members.insert(format!("the property {name}.{}", property.name), types);
        }
        for signal in &interface.signals {
            members.insert(format!("the signal {name}.{}", signal.name), signal.signature());
        }
    }
    members
}

#[cfg(test)]
mod tests {
    use super::*;
    use op_dbus_formats::introspection::parse;

    #[test]
    fn what_came_went_and_changed_is_told() {
        let node = |members: &str| {
            let xml = format!("<node><interface name='a.B'>{members}</interface></node>");
            parse(xml.as_bytes()).unwrap()
        };
        let packaged = node(
            "<method name='Stay'/><method name='Go'/>
             <method name='Change'><arg type='s' direction='in'/></method>",
        );
        let live = node(
            "<method name='Stay'/><signal name='Come'/>
             <method name='Change'><arg type='u' direction='in'/></method>",
        );
        assert_eq!(
            drift(&packaged, &live),
            [
                "the method a.B.Change has the types (u) -> (), and had (s) -> ()",
                "the method a.B.Go is gone",
                "the signal a.B.Come is new",
            ]
        );
        assert_eq!(drift(&live, &live), [""; 0]);
    }
}
