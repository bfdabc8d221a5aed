//! Documents of the state in words, so that they are found by what they say.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use op_dbus_engine::{Payload, Record, Result, STATE_COLLECTION, Store};
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep, timeout_at};

use super::secrets::{has_secret, is_labelled_secret, is_secret_name};
use super::writer::{found, keys};
use super::{Indexer, STATE_INDEX_COLLECTION, beginning};
use crate::service::Changes;

const TEXT_LEN_MAX_BYTES: usize = 2000;
/// Longer words are no words.
const VALUE_LEN_MAX_BYTES: usize = 200;
/// Documents that are read at a time.
const READ_COUNT: usize = 64;
/// Until it is tried again after an error.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// Indexes all documents, and then those that change, as long as there are changes.
pub(super) async fn follow(indexer: Arc<Indexer>, mut changes: Changes) {
    let mut is_all_due = true;
    let mut changed = BTreeSet::new();
    loop {
        let done = match is_all_due {
            true => index_all(&indexer).await,
            false => index(&indexer, std::mem::take(&mut changed)).await,
        };
        is_all_due = done.is_err();
        if let Err(error) = done {
            tracing::warn!(%error, "documents of the state are not indexed now");
            sleep(RETRY_AFTER).await;
            continue;
        }
        // The first is waited for, and what comes soon after it comes with it.
        let mut until = None;
        loop {
            let change = match until {
                None => changes.recv().await,
                Some(until) => match timeout_at(until, changes.recv()).await {
                    Ok(change) => change,
                    Err(_) => break,
                },
            };
            match change {
                Ok(change) => drop(changed.insert(change.key)),
                Err(RecvError::Lagged(_)) => is_all_due = true,
                Err(RecvError::Closed) => return,
            }
            until.get_or_insert_with(|| Instant::now() + indexer.delay);
        }
    }
}

/// Indexes every document, and removes what is there of others.
async fn index_all(indexer: &Indexer) -> Result<()> {
    let present = indexer.writer.with(|store| keys(store, STATE_COLLECTION)).await?;
    let mut gone = indexer.writer.with(|store| keys(store, STATE_INDEX_COLLECTION)).await?;
    let present: BTreeSet<Vec<u8>> = present.into_iter().collect();
    gone.retain(|key| !present.contains(key));
    indexer.writer.remove(STATE_INDEX_COLLECTION, gone).await?;
    index(indexer, present).await
}

/// Indexes documents as they are now, or removes what is there of one that is no more.
async fn index(indexer: &Indexer, keys: BTreeSet<Vec<u8>>) -> Result<()> {
    let keys: Vec<Vec<u8>> = keys.into_iter().collect();
    for keys in keys.chunks(READ_COUNT) {
        let keys = keys.to_vec();
        let (records, gone) = indexer.writer.with(move |store| read(store, keys)).await?;
        indexer.writer.put(STATE_INDEX_COLLECTION, records).await?;
        indexer.writer.remove(STATE_INDEX_COLLECTION, gone).await?;
    }
    Ok(())
}

/// Records of those that are there, and the keys of the others that are still indexed.
fn read(store: &Store, keys: Vec<Vec<u8>>) -> Result<(Vec<Record>, Vec<Vec<u8>>)> {
    let (mut records, mut gone) = (Vec::new(), Vec::new());
    for key in keys {
        match found(store.get(STATE_COLLECTION, &key))?.flatten() {
            Some(document) => records.push(record(document)),
            None if found(store.get(STATE_INDEX_COLLECTION, &key))?.flatten().is_some() => {
                gone.push(key);
            }
            None => {}
        }
    }
    Ok((records, gone))
}

fn record(document: Record) -> Record {
    let shown = String::from_utf8_lossy(&document.key).into_owned();
    let payload = json!({ "collection": STATE_COLLECTION, "key": shown });
    let said = match &document.payload {
        Payload::Json(json) => serde_json::from_str(json).map(|value| words(&value)),
        Payload::None | Payload::Bytes(_) => Ok(String::new()),
    };
    // What is nested too deep for a parser says nothing.
    let text = format!("{shown}: {}", said.unwrap_or_default());
    Record {
        key: document.key,
        text: Some(beginning(&text, TEXT_LEN_MAX_BYTES).to_owned()),
        vector: None,
        payload: Payload::Json(payload.to_string().into()),
        expires_at_unix_ms: document.expires_at_unix_ms,
    }
}

/// A document as people would read it out: `hostname: web1, network mtu: 1500`. Secrets are left out.
fn words(document: &Value) -> String {
    let mut words = String::new();
    add_words(document, "", &mut words);
    words
}

fn add_words(value: &Value, name: &str, words: &mut String) {
    if words.len() > TEXT_LEN_MAX_BYTES {
        return;
    }
    match value {
        Value::Object(members) if is_labelled_secret(members) => {}
        Value::Object(members) => {
            for (member, value) in members.iter().filter(|(member, _)| !is_secret_name(member)) {
                let member = member.replace(['_', '-'], " ");
                let name = if name.is_empty() { member } else { format!("{name} {member}") };
                add_words(value, beginning(&name, VALUE_LEN_MAX_BYTES), words);
            }
        }
        Value::Array(values) => {
            for value in values {
                add_words(value, name, words);
            }
        }
        Value::String(text) if has_secret(text) => {}
        Value::String(text) => add(name, beginning(text, VALUE_LEN_MAX_BYTES), words),
        Value::Null => {}
        Value::Bool(_) | Value::Number(_) => add(name, &value.to_string(), words),
    }
}

fn add(name: &str, value: &str, words: &mut String) {
    if !words.is_empty() {
        words.push_str(", ");
    }
    if !name.is_empty() {
        words.push_str(name);
        words.push_str(": ");
    }
    words.push_str(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_becomes_words_without_its_secrets() {
        let document = json!({
            "hostname": "web1",
            "network": { "mtu": 1500, "dns_servers": ["1.1.1.1", "9.9.9.9"], "dhcp": true },
            "wifi": { "ssid": "home", "psk": "hidden", "private_key": { "data": "hidden" } },
            "env": [{ "name": "DB_PASSWORD", "value": "hidden" }, "TOKEN=hidden", "LANG=C"],
            "none": null,
        });
        assert_eq!(
            words(&document),
            "hostname: web1, network mtu: 1500, network dns servers: 1.1.1.1, \
             network dns servers: 9.9.9.9, network dhcp: true, wifi ssid: home, env: LANG=C"
        );
    }

    #[test]
    fn a_record_has_the_documents_key_and_expiry_and_a_bounded_text() {
        let long = json!({ "a": "ä".repeat(5000), "b": vec!["word"; 5000] }).to_string();
        let document = Record::new("host").with_payload(Payload::Json(long.into()));
        let record = record(Record { expires_at_unix_ms: Some(7), ..document });
        let text = record.text.unwrap();
        assert!(text.starts_with("host: a: ää") && text.contains("b: word"), "{text}");
        assert!(text.len() <= TEXT_LEN_MAX_BYTES);
        let expected = r#"{"collection":"state","key":"host"}"#;
        assert_eq!(record.payload, Payload::Json(expected.into()));
        assert_eq!(record.expires_at_unix_ms, Some(7));
        let nested = "[".repeat(120) + "1" + &"]".repeat(120);
        let document = Record::new("deep").with_payload(Payload::Json(nested.into()));
        assert!(super::record(document).text.unwrap().starts_with("deep: "));
    }
}
