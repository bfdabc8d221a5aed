//! Finding what a phrase leads to, instead of the phrase.

use std::collections::HashSet;

use op_dbus_engine::{Answer, Hit, LIMIT_MAX, Query, Result, Store};

use crate::interfaces::PHRASE;
use crate::phrases;

/// Searches as [`Store::search`] does, and answers with members where that found phrases that lead to
/// them: each member once, with the score of the nearest of its texts.
///
/// # Errors
/// As [`Store::search`].
pub fn find(store: &Store, query: &Query) -> Result<Answer> {
    let wanted = query.hits_max();
    let mut limit = wanted;
    loop {
        let answer = store.search(&query.clone().limit(limit))?;
        let found_count = answer.hits.len();
        if !answer.hits.iter().any(|hit| target(hit).is_some()) {
            return Ok(Answer { hits: first(answer.hits, wanted), ..answer });
        }
        let hits = led_to(store, answer.hits)?;
        // Several phrases lead to one member: then there may be more behind what was found.
        if hits.len() >= wanted || found_count < limit || limit == LIMIT_MAX {
            return Ok(Answer { hits: first(hits, wanted), explain: answer.explain });
        }
        limit = (limit * 2).min(LIMIT_MAX);
    }
}

fn first(mut hits: Vec<Hit>, count: usize) -> Vec<Hit> {
    hits.truncate(count);
    hits
}

/// Replaces phrases by what they lead to, and leaves out what is there already, nearer.
fn led_to(store: &Store, hits: Vec<Hit>) -> Result<Vec<Hit>> {
    let mut seen = HashSet::new();
    let mut found = Vec::with_capacity(hits.len());
    for hit in hits {
        let hit = if let Some(target) = target(&hit) {
            if seen.contains(&(hit.collection.clone(), target.clone())) {
                continue;
            }
            // A phrase whose member has gone leads nowhere.
            let Some(record) = store.get(&hit.collection, &target)? else { continue };
            Hit { key: target, text: record.text, payload: record.payload, ..hit }
        } else {
            hit
        };
        if seen.insert((hit.collection.clone(), hit.key.clone())) {
            found.push(hit);
        }
    }
    Ok(found)
}

/// The key that a phrase leads to.
fn target(hit: &Hit) -> Option<Vec<u8>> {
    let is_phrase = hit.key.starts_with(PHRASE.as_bytes());
    is_phrase.then(|| phrases::target(&hit.payload)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use op_dbus_engine::{Payload, Record, StoreConfig};

    fn phrase(number: usize, of: &str, vector: [f32; 2]) -> Record {
        let payload = Payload::Json(format!(r#"{{"kind":"phrase","of":"{of}"}}"#).into());
        Record::new(format!("{PHRASE}{number}:{of}")).with_vector(vector).with_payload(payload)
    }

    #[test]
    fn a_phrase_leads_to_its_member_and_no_member_comes_twice() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(StoreConfig::new(directory.path())).unwrap();
        let member = |key: &str, vector: [f32; 2]| Record::new(key).with_vector(vector);
        let mut records = vec![member("a", [0.0, 1.0]), member("b", [0.6, 0.8])];
        records.extend((0..9).map(|number| phrase(number, "a", [1.0, 0.0])));
        records.push(phrase(0, "gone", [1.0, 0.0]));
        store.put_batch("dbus", &records).unwrap();
        let answer = find(&store, &Query::vector([1.0, 0.0]).limit(2)).unwrap();
        let keys: Vec<&[u8]> = answer.hits.iter().map(|hit| &hit.key[..]).collect();
        assert_eq!(keys, [b"a", b"b"]);
        assert!((answer.hits[0].score - 1.0).abs() < 1e-6);
        assert_eq!(answer.hits[0].payload, Payload::None);
        // One whose key only looks like that of a phrase.
        store.put("dbus", &member("phrase:own", [1.0, 0.0])).unwrap();
        let answer = find(&store, &Query::vector([1.0, 0.0]).limit(3)).unwrap();
        assert!(answer.hits.iter().any(|hit| hit.key == b"phrase:own"), "{:?}", answer.hits);
        store.close();
    }
}
