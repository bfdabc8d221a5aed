//! The store that is damaged, and everything it is asked.

use std::path::Path;

use op_dbus_engine::{
    CollectionOptions, Encoding, Error, Metric, Payload, Query, Record, Result, Store, StoreConfig,
};

use crate::crash::check::LINK;
use crate::model;

/// Records with vectors that callers gave.
const GIVEN: &str = "given";
/// Records with texts, whose embeddings lie in the cache.
const TEXTS: &str = "texts";
/// A collection without records.
const EMPTY: &str = "empty";
const GIVEN_COUNT: u32 = 9;
/// Of the records of [`GIVEN`], how many were written before the store was closed once.
const FLUSHED_COUNT: u32 = 6;
const REMOVED: &str = "key 2";
const SENTENCES: [&str; 2] = ["restart the network", "compress a directory"];

/// What a store said to one question.
#[derive(Debug)]
pub struct Answer {
    /// The question.
    pub question: String,
    /// What it said: words that must be equal and numbers that must be near.
    pub said: Result<(String, Vec<f32>), Error>,
}

fn config(path: &Path) -> StoreConfig {
    // The model is loaded only if an embedding got lost.
    StoreConfig::new(path).with_embedder(model::config())
}

fn given(number: u32) -> Record {
    let vector: Vec<f32> = (0..4_u32).map(|index| (number * 7 + index * 3) as f32 % 11.0).collect();
    let payload = match number % 3 {
        0 => Payload::None,
        1 => Payload::Json(format!("{{\"number\":{number}}}").into()),
        _ => Payload::Bytes(vec![number as u8; 5].into()),
    };
    let record = Record::new(format!("key {number}")).with_vector(vector).with_payload(payload);
    if number.is_multiple_of(2) { record.with_text(format!("text {number}")) } else { record }
}

/// Writes the sample. Opening a store moves what is in its log to tables, of all families.
///
/// # Errors
/// Those of the store.
pub fn write(path: &Path) -> Result<()> {
    let store = Store::open(config(path))?;
    let options = CollectionOptions::Given {
        dimensions: 4,
        metric: Metric::Euclidean,
        encoding: Encoding::F32,
    };
    // All at once: each moves the log to tables, and four tables of a family would be merged.
    store.create_collection(GIVEN, options)?;
    store.create_collection(EMPTY, options)?;
    store.create_collection(TEXTS, CollectionOptions::OfModel)?;
    let records: Vec<_> = (0..FLUSHED_COUNT).map(given).collect();
    store.put_batch(GIVEN, &records)?;
    let sentence = |index: usize| Record::new(format!("{index}")).with_text(SENTENCES[index]);
    store.put(TEXTS, &sentence(0))?;
    // What was read is hot, and only what is hot gets into files of vectors.
    for (collection, key) in [(GIVEN, "key 0"), (GIVEN, "key 3"), (GIVEN, "key 5"), (TEXTS, "0")] {
        assert!(store.vectors(collection)?.get(key.as_bytes())?.is_some(), "{key} was put");
    }
    // What is written later is brought in whenever it is opened.
    store.link(GIVEN, LINK, &mut |_, _| Ok(()))?;
    store.close();

    let store = Store::open(config(path))?;
    for number in FLUSHED_COUNT..GIVEN_COUNT {
        store.put(GIVEN, &given(number))?;
    }
    store.put(GIVEN, &given(0).with_payload(Payload::Json("\"replaced\"".into())))?;
    store.put(TEXTS, &sentence(1))?;
    store.remove(GIVEN, REMOVED.as_bytes())?;
    // Not closed, which would move the newest writes from the log to tables.
    drop(store);
    Ok(())
}

/// Checks that the answers of the whole sample are what was written into it.
///
/// # Panics
/// If they are not: then no comparison with them means anything.
pub fn check(answers: &[Answer]) {
    let said = |question: &str| {
        let answer = answers.iter().find(|answer| answer.question == question);
        let answer = answer.unwrap_or_else(|| panic!("nobody asked {question}"));
        &answer.said.as_ref().unwrap_or_else(|error| panic!("{question}: {error}")).0
    };
    for number in 0..GIVEN_COUNT {
        let record = match number {
            0 => given(0).with_payload(Payload::Json("\"replaced\"".into())),
            _ => given(number),
        };
        let expected = Some(record).filter(|record| record.key != REMOVED.as_bytes());
        assert_eq!(*said(&format!("get key {number}")), format!("{expected:?}"));
    }
    assert_eq!(*said("get absent"), "None");
    assert_eq!(
        (&said("vector given key 0")[..], &said("vector given key 2")[..]),
        ("true", "false")
    );
    assert!(said("collections").contains(EMPTY));
    assert!(said("scan given").contains("replaced"));
    assert!(said("scan texts").contains(SENTENCES[1]));
    assert!(said("search given").starts_with("[\"key 5\""), "{}", said("search given"));
    assert_eq!(said("search texts").matches('"').count(), 2 * SENTENCES.len());
    assert!(answers.iter().all(|answer| answer.said.is_ok()), "{answers:?}");
}

/// Opens a store and asks it everything.
///
/// # Errors
/// If it does not open.
pub fn ask(path: &Path) -> Result<(Store, Vec<Answer>)> {
    let store = Store::open(config(path).existing())?;
    let mut answers = Vec::new();
    let mut say = |question: String, said: Result<(String, Vec<f32>)>| {
        answers.push(Answer { question, said });
    };
    let plain = |text: String| (text, Vec::new());
    let infos = store.collections().into_iter();
    let collections: Vec<_> =
        infos.map(|info| (info.name, info.dimensions, info.metric, info.model)).collect();
    say("collections".into(), Ok(plain(format!("{collections:?}"))));
    let keys = (0..GIVEN_COUNT).map(|number| format!("key {number}"));
    for key in keys.chain(["absent".into()]) {
        let got = store.get(GIVEN, key.as_bytes());
        say(format!("get {key}"), got.map(|record| plain(format!("{record:?}"))));
    }
    for (collection, keys_count) in [(GIVEN, GIVEN_COUNT), (TEXTS, SENTENCES.len() as u32)] {
        for number in 0..keys_count {
            let key =
                if collection == GIVEN { format!("key {number}") } else { number.to_string() };
            let read = || {
                let vectors = store.vectors(collection)?;
                let vector = vectors.get(key.as_bytes())?.map(|vector| vector.to_vec());
                Ok((format!("{}", vector.is_some()), vector.unwrap_or_default()))
            };
            say(format!("vector {collection} {key}"), read());
        }
    }
    for collection in [GIVEN, TEXTS, EMPTY] {
        let scanned =
            store.scan(collection, b"").and_then(Iterator::collect::<Result<Vec<Record>>>);
        say(format!("scan {collection}"), scanned.map(|records| plain(format!("{records:?}"))));
    }
    let model_dimensions = collections.iter().find(|known| known.0 == TEXTS);
    let axis = |dimensions: u32| -> Vec<f32> {
        (0..dimensions).map(|index| if index % 3 == 0 { 1.0 } else { 0.25 }).collect()
    };
    let queries = [
        (GIVEN, given(5).vector.unwrap_or_default()),
        (TEXTS, axis(model_dimensions.map_or(1, |known| known.1))),
    ];
    for (collection, vector) in queries {
        let found = store.search(&Query::vector(vector).collection(collection));
        let said = found.map(|answer| {
            let key = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
            let keys: Vec<_> = answer.hits.iter().map(|hit| key(&hit.key)).collect();
            (format!("{keys:?}"), answer.hits.iter().map(|hit| hit.score).collect())
        });
        say(format!("search {collection}"), said);
    }
    Ok((store, answers))
}
