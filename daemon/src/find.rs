//! Finding what a phrase leads to, instead of the phrase.

use std::collections::HashSet;

use op_dbus_engine::{Answer, Hit, LIMIT_MAX, Query, Record, Result, Store};

use crate::interfaces::PHRASE;
use crate::phrases::target;

/// Searches as [`Store::search`] does, and answers with members where that found phrases that lead to
/// them: each member once, with the score of the nearest of its texts. A filter is asked about the
/// members, never about phrases.
///
/// # Errors
/// As [`Store::search`].
pub fn find(store: &Store, query: &Query) -> Result<Answer> {
    let query = query.clone().standing(PHRASE.as_bytes(), target);
    let wanted = query.hits_max();
    let mut limit = wanted;
    loop {
        let answer = store.search(&query.clone().limit(limit))?;
        let found_count = answer.hits.len();
        if !answer.hits.iter().any(|hit| led_from(hit).is_some()) {
            return Ok(Answer { hits: first(answer.hits, wanted), ..answer });
        }
        let hits = led_to(store, &query, answer.hits)?;
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
fn led_to(store: &Store, query: &Query, hits: Vec<Hit>) -> Result<Vec<Hit>> {
    // What others are to be like is not found, not by its phrases either.
    let origin = query.origin().map(|(collection, key)| (collection.to_owned(), key.to_owned()));
    let mut seen: HashSet<_> = origin.into_iter().collect();
    let mut found = Vec::with_capacity(hits.len());
    for hit in hits {
        let hit = if let Some(target) = led_from(&hit) {
            if seen.contains(&(hit.collection.clone(), target.clone())) {
                continue;
            }
            // A phrase whose member has gone leads nowhere.
            let Some(record) = store.get(&hit.collection, &target)? else { continue };
            // It may have been replaced since the filter was asked.
            if !query.lets_pass(&hit.collection, &record) {
                continue;
            }
            let Record { text, payload, .. } = record;
            Hit { key: target, text, payload, ..hit }
        } else {
            hit
        };
        if seen.insert((hit.collection.clone(), hit.key.clone())) {
            found.push(hit);
        }
    }
    Ok(found)
}

/// The key that a phrase leads to. A record of somebody's own may have such a key, too, and leads
/// nowhere: it is one like any other.
fn led_from(hit: &Hit) -> Option<Vec<u8>> {
    if hit.key.starts_with(PHRASE.as_bytes()) { target(&hit.payload) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use op_dbus_engine::{LinkOptions, Payload, Profile, StoreConfig};
    use std::num::NonZero;

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

    /// The keys that are found of those that a filter lets pass, with a graph and without.
    fn keys(store: &Store, filter: &str) -> Vec<String> {
        let filter = filter.parse().unwrap();
        let answer = find(store, &Query::vector([1.0, 0.0]).limit(3).filter(filter)).unwrap();
        let key = |hit: Hit| String::from_utf8(hit.key).unwrap();
        answer.hits.into_iter().map(key).collect()
    }

    #[test]
    fn a_filter_is_asked_about_the_member_that_a_phrase_leads_to() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(StoreConfig::new(directory.path())).unwrap();
        let member = |key: &str, vector: [f32; 2], is_safe: bool| {
            let payload = Payload::Json(format!(r#"{{"kind":"method","safe":{is_safe}}}"#).into());
            Record::new(key).with_vector(vector).with_payload(payload)
        };
        let mut records = vec![
            member("safe", [0.0, 1.0], true),
            member("risky", [0.8, 0.6], false),
            member("near", [0.9, 0.436], true),
            phrase(0, "safe", [1.0, 0.0]),
            phrase(0, "risky", [0.99, 0.141]),
            phrase(1, "risky", [0.98, 0.199]),
            phrase(0, "gone", [1.0, 0.0]),
            member("phrase:own", [0.7, 0.714], true),
            // One that leads to a phrase leads no further.
            phrase(2, "phrase:0:safe", [0.1, 0.995]),
        ];
        // Enough that they are not all walked.
        let far = |number: usize| member(&format!("far {number}"), [-1.0, number as f32], true);
        records.extend((0..2000).map(far));
        store.put_batch("dbus", &records).unwrap();
        for has_graph in [false, true] {
            if has_graph {
                let options =
                    LinkOptions { profile: Profile::Speed, threads: NonZero::<usize>::MIN };
                store.link("dbus", options, &mut |_, _| Ok(())).unwrap();
            }
            assert_eq!(keys(&store, "safe"), ["safe", "near", "phrase:own"], "{has_graph}");
            assert_eq!(keys(&store, "safe = false"), ["risky"]);
            assert_eq!(keys(&store, "kind = 'phrase'"), ["phrase:0:safe"]);
            assert_eq!(keys(&store, "@key in ['risky', 'safe']"), ["safe", "risky"]);
            assert_eq!(keys(&store, "@key = 'phrase:0:risky'"), [""; 0]);
            assert_eq!(keys(&store, "exists of and @key = 'gone'"), [""; 0]);
        }
        store.close();
    }
}
