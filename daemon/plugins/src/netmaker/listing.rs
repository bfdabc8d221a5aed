//! What `netclient list` writes: an array of objects, after anything that was logged; or, without any
//! network, a sentence.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};
use crate::name;

const NO_NETWORK: &str = "no such network";

/// Returns the networks, and whether each is connected.
///
/// The array begins a line and ends the output: one inside another is never taken for it.
pub(super) fn parse(output: &str) -> Result<BTreeMap<String, bool>> {
    let starts = output.match_indices('[').map(|(at, _)| at);
    let mut lines = starts.filter(|at| output[..*at].is_empty() || output[..*at].ends_with('\n'));
    let array = lines.find_map(|at| serde_json::from_str::<Value>(&output[at..]).ok());
    match array {
        Some(array) => networks(&array).ok_or_else(not_understood),
        None if output.contains(NO_NETWORK) => Ok(BTreeMap::new()),
        None => Err(not_understood()),
    }
}

fn not_understood() -> Error {
    Error::new(ErrorKind::Io, "netclient list: an output that is not understood")
}

fn networks(array: &Value) -> Option<BTreeMap<String, bool>> {
    let mut networks = BTreeMap::new();
    for listed in array.as_array()? {
        let (name, connected) = (listed.get("network")?.as_str()?, listed.get("connected")?);
        let connected = connected.as_bool()?;
        if name::is_name(name) {
            networks.insert(name.to_owned(), connected);
        } else {
            eprintln!("netmaker: the network {name:?} is left out, its name cannot be declared");
        }
    }
    Some(networks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_understood_with_what_was_logged() {
        let array = r#"[
 {"network": "office", "node_id": "1", "connected": true, "ipv4_addr": "10.0.0.1/24",
  "peers": [{"public_key": "k", "endpoint": "", "allowed_ips": ["10.0.0.2/32"]}]},
 {"network": "lab", "node_id": "2", "connected": false, "ipv4_addr": "", "ipv6_addr": ""}
]"#;
        let expected = BTreeMap::from([("lab".to_owned(), false), ("office".to_owned(), true)]);
        for before in ["", "list called\n", "[netclient] 2024-01-01 list [] called [1]\n"] {
            assert_eq!(parse(&format!("{before}{array}\n")), Ok(expected.clone()), "{before}");
        }
        for none in ["[]\n", "\nno such network\n", "[netclient] x\n\nno such network\n"] {
            assert_eq!(parse(none), Ok(BTreeMap::new()), "{none}");
        }
    }

    #[test]
    fn what_is_no_list_is_not_taken_for_an_empty_one() {
        let cut = "[\n {\"network\": \"x\", \"connected\": true, \"peers\": []";
        let wrong = ["", "\n", "usage: netclient", "[{\"name\": \"x\"}]", "[[]]", "{}", cut];
        for output in wrong {
            assert!(parse(output).is_err(), "{output:?}");
        }
    }
}
