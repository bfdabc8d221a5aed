//! The records of an interface's members, and which of those that are stored have gone.

use std::collections::BTreeSet;

use op_dbus_engine::{Payload, Record, Result, Store};
use op_dbus_formats::introspection::Interface;
use serde::Deserialize;

use super::writer::found;
use crate::descriptions::Descriptions;
use crate::interfaces::{COLLECTION, Origin, interface_records};
use crate::phrases::{self, Phrases};

/// What keys of members begin with.
const KINDS: [&str; 3] = ["method", "property", "signal"];

/// What is stored of an interface.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Stored {
    /// Whose it is.
    pub(super) service: Option<String>,
    /// Whether that service has said so itself.
    pub(super) is_live: bool,
    keys: BTreeSet<Vec<u8>>,
}

/// What the payload of a member says about where it is from.
#[derive(Default, Deserialize)]
struct Place {
    service: Option<String>,
    #[serde(default)]
    live: bool,
}

impl Stored {
    /// Reads what is stored of an interface.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) fn read(store: &Store, interface: &str) -> Result<Self> {
        let mut stored = Self::default();
        for kind in KINDS {
            let prefix = format!("{kind}:{interface}.");
            let Some(scan) = found(store.scan(COLLECTION, prefix.as_bytes()))? else { break };
            for record in scan {
                let record = record?;
                // Of an interface whose name is longer.
                if record.key[prefix.len()..].contains(&b'.') {
                    continue;
                }
                if stored.keys.is_empty() {
                    let place = place(&record.payload);
                    (stored.service, stored.is_live) = (place.service, place.live);
                }
                stored.keys.insert(record.key);
            }
        }
        Ok(stored)
    }
}

/// What somebody else has put there has no place, and belongs to nobody.
fn place(payload: &Payload<'_>) -> Place {
    let Payload::Json(json) = payload else { return Place::default() };
    serde_json::from_str(json).unwrap_or_default()
}

/// What has to be done about an interface.
#[derive(Debug, Default)]
pub(super) struct Update {
    pub(super) records: Vec<Record>,
    /// Members that are no more, and phrases that lead to them or are no more.
    pub(super) gone: Vec<Vec<u8>>,
    pub(super) members_count: usize,
}

impl Update {
    /// Compares an interface as it is now with what is stored of it.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) fn new(
        store: &Store,
        interface: &Interface,
        descriptions: &Descriptions,
        origin: Origin<'_>,
        stored: &Stored,
    ) -> Result<Self> {
        let mut records = Vec::new();
        interface_records(interface, descriptions, origin, &mut records);
        let present: BTreeSet<&[u8]> = records.iter().map(|record| &record.key[..]).collect();
        let phrases = Phrases::of(&records);
        let mut gone = phrases.stale(store, COLLECTION)?;
        for key in stored.keys.iter().filter(|key| !present.contains(&key[..])) {
            gone.extend(phrases::stored_from(store, COLLECTION, key, 0)?);
            gone.push(key.clone());
        }
        let members_count = phrases.members_count();
        Ok(Self { records, gone, members_count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use op_dbus_engine::StoreConfig;
    use op_dbus_formats::{introspection, semantic_mapping};

    fn interface(members: &str) -> Interface {
        let xml = format!("<node><interface name='x.Lamp'>{members}</interface></node>");
        introspection::parse(xml.as_bytes()).unwrap().interfaces.remove(0)
    }

    fn descriptions(phrases: &str) -> Descriptions {
        let text = format!(
            "[service]\nname = \"x.Lamp\"\n[methods.\"x.Lamp.On\"]\ndescription = \"d\"\n\
             phrases = [{phrases}]\n[methods.\"x.Lamp.Off\"]\ndescription = \"d\"\nphrases = [\"e\"]\n"
        );
        let mut descriptions = Descriptions::default();
        descriptions.add(semantic_mapping::parse(text.as_bytes()).unwrap());
        descriptions
    }

    /// Without a model texts cannot be put.
    fn put(store: &Store, records: &[Record]) {
        let bare: Vec<Record> =
            records.iter().map(|record| Record { text: None, ..record.clone() }).collect();
        store.put_batch(COLLECTION, &bare).unwrap();
    }

    #[test]
    fn members_that_are_no_more_go_with_their_phrases() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(StoreConfig::new(directory.path())).unwrap();
        assert_eq!(Stored::read(&store, "x.Lamp").unwrap(), Stored::default());
        let origin = Origin { service: Some("x.Service"), path: Some("/l"), is_live: true };
        let update = |members: &str, phrases: &str| {
            let stored = Stored::read(&store, "x.Lamp").unwrap();
            let (interface, descriptions) = (interface(members), descriptions(phrases));
            Update::new(&store, &interface, &descriptions, origin, &stored).unwrap()
        };
        let all = "<method name='On'/><method name='Off'/><signal name='Changed'/>";
        let first = update(all, "\"a\", \"b\", \"c\"");
        assert_eq!((first.members_count, first.records.len(), first.gone.len()), (3, 7, 0));
        put(&store, &first.records);
        put(&store, &[Record::new("method:x.Lamp.Inner.Off"), Record::new("method:x.Lam.Off")]);
        let stored = Stored::read(&store, "x.Lamp").unwrap();
        assert_eq!((stored.service.as_deref(), stored.is_live), (Some("x.Service"), true));
        assert_eq!(stored.keys.len(), 3);
        let second = update("<method name='On'/><signal name='Changed'/>", "\"a\"");
        let gone: Vec<_> = second.gone.iter().map(|key| String::from_utf8_lossy(key)).collect();
        assert_eq!(
            gone,
            [
                "phrase:2:method:x.Lamp.On",
                "phrase:1:method:x.Lamp.On",
                "phrase:0:method:x.Lamp.Off",
                "method:x.Lamp.Off"
            ]
        );
        store.close();
    }
}
