//! Phrases that lead to members: the keys of their records, and which of those that are stored lead
//! there no more, because whoever described the member has taken them back.

use std::collections::BTreeMap;

use op_dbus_engine::{ErrorKind, Payload, Record, Result, Store};
use serde::Deserialize;

use crate::interfaces::PHRASE;

/// What the record of a phrase says.
#[derive(Deserialize)]
struct Phrase {
    of: String,
}

/// How many phrases each of some members has now, by the members' keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Phrases(BTreeMap<Vec<u8>, usize>);

impl Phrases {
    /// Counts those among records of members.
    #[must_use]
    pub fn of(records: &[Record]) -> Self {
        let mut counts = BTreeMap::new();
        for record in records {
            match record.key.starts_with(PHRASE.as_bytes()).then(|| target(&record.payload)) {
                None => _ = counts.entry(record.key.clone()).or_insert(0),
                Some(Some(member)) => *counts.entry(member).or_insert(0) += 1,
                Some(None) => {}
            }
        }
        Self(counts)
    }

    /// How many members there are.
    pub(crate) fn members_count(&self) -> usize {
        self.0.len()
    }

    /// The keys of phrases that are stored for these members, and that they do not have now.
    ///
    /// # Errors
    /// Those of the store.
    pub fn stale(&self, store: &Store, collection: &str) -> Result<Vec<Vec<u8>>> {
        let mut stale = Vec::new();
        for (member, count) in &self.0 {
            stale.extend(stored_from(store, collection, member, *count)?);
        }
        Ok(stale)
    }
}

/// The key of the member that the record of a phrase leads to. A record of somebody's own may have such
/// a key, too, and leads nowhere: it is one like any other.
pub(crate) fn target(payload: &Payload<'_>) -> Option<Vec<u8>> {
    let Payload::Json(json) = payload else { return None };
    let phrase: Phrase = serde_json::from_str(json).ok()?;
    Some(phrase.of.into_bytes())
}

/// The keys of a member's stored phrases from a number on, the last first: whoever is broken off while
/// they are removed leaves no gap, behind which nobody would look.
pub(crate) fn stored_from(
    store: &Store,
    collection: &str,
    member: &[u8],
    from: usize,
) -> Result<Vec<Vec<u8>>> {
    let mut stored = Vec::new();
    for number in from.. {
        let key = key(number, member);
        let record = match store.get(collection, &key) {
            Ok(Some(record)) => record,
            Ok(None) => break,
            Err(error) if error.kind() == ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        };
        if target(&record.payload).as_deref() == Some(member) {
            stored.push(key);
        }
    }
    stored.reverse();
    Ok(stored)
}

/// The key of a phrase that leads to a member.
pub(crate) fn key(number: usize, member: &[u8]) -> Vec<u8> {
    [format!("{PHRASE}{number}:").as_bytes(), member].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use op_dbus_engine::StoreConfig;

    fn phrase(number: usize, of: &str) -> Record {
        let payload = Payload::Json(format!(r#"{{"kind":"phrase","of":"{of}"}}"#).into());
        Record::new(key(number, of.as_bytes())).with_payload(payload)
    }

    #[test]
    fn phrases_that_a_member_has_no_more_are_stale() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(StoreConfig::new(directory.path())).unwrap();
        let now = Phrases::of(&[phrase(0, "a"), Record::new("a"), Record::new("b")]);
        assert_eq!(now.members_count(), 2);
        assert_eq!(now.stale(&store, "c").unwrap(), <[Vec<u8>; 0]>::default());
        let stored: Vec<Record> = (0..4).map(|number| phrase(number, "a")).collect();
        store.put_batch("c", &stored).unwrap();
        store.put_batch("c", &[phrase(0, "b"), phrase(0, "other"), phrase(5, "a")]).unwrap();
        // One of somebody's own, with such a key.
        store.put("c", &Record::new("phrase:2:a")).unwrap();
        let stale = now.stale(&store, "c").unwrap();
        assert_eq!(stale, [&b"phrase:3:a"[..], b"phrase:1:a", b"phrase:0:b"]);
        store.close();
    }
}
