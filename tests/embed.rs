//! Texts become vectors once however many ask, and collections those of another model at once or not
//! at all.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeMap;
use std::path::Path;

use op_dbus_engine::{
    Embedder, EmbedderConfig, Error, ErrorKind, LinkOptions, Profile, Provider, Query, Record,
    Store, StoreConfig,
};
use support::random::Random;
use support::reference::cosine;
use support::{model, scratch};

const NAME: &str = "notes";
const SMALL_DIMENSIONS: usize = 24;

fn open(path: &Path, embedder: EmbedderConfig) -> Store {
    Store::open(StoreConfig::new(path).with_embedder(embedder)).unwrap()
}

fn small(directory: &Path) -> EmbedderConfig {
    model::write_small(directory, SMALL_DIMENSIONS);
    EmbedderConfig::new(directory)
}

fn texts(count: usize) -> Vec<String> {
    let mut random = Random::new(count as u64);
    (0..count).map(|number| random.words(1 + number % 9)).collect()
}

fn put(store: &Store, texts: &[String]) {
    let record =
        |(number, text): (usize, &String)| Record::new(format!("{number}")).with_text(text);
    let records: Vec<Record> = texts.iter().enumerate().map(record).collect();
    store.put_batch(NAME, &records).unwrap();
}

#[test]
fn a_thousand_callers_for_ten_texts_are_ten_computations() {
    let directory = scratch::on_disk();
    let store = open(directory.path(), model::config());
    let asked = texts(10);
    let vectors: Vec<Vec<f32>> = std::thread::scope(|scope| {
        let ask = |caller: usize| store.embed(&asked[caller % asked.len()]).unwrap().vector;
        let callers: Vec<_> = (0..1000).map(|caller| scope.spawn(move || ask(caller))).collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    for (caller, vector) in vectors.iter().enumerate() {
        assert_eq!(*vector, vectors[caller % asked.len()]);
    }
    let stats = store.cache_stats().unwrap();
    assert_eq!((stats.misses, stats.hits, stats.embeddings), (10, 990, 10));
}

#[test]
fn a_text_has_its_vector_in_any_company_and_order() {
    has_its_vector_in_any_company_and_order(&Embedder::open(&model::config(), None).unwrap());
}

#[test]
fn a_text_has_its_vector_of_eight_bits_in_any_company_and_order() {
    let (directory, compared) = (scratch::on_disk(), texts(40));
    let target = directory.path().join("int8");
    let compared: Vec<&str> = compared.iter().map(String::as_str).collect();
    let embedder = Embedder::open(&model::config(), None).unwrap();
    let report = embedder.quantize(&target, &compared).unwrap();
    assert!(report.cosine_mean > 0.999, "{report:?}");
    let quantized = Embedder::open(&EmbedderConfig::new(target), None).unwrap();
    assert_ne!(quantized.fingerprint(), embedder.fingerprint());
    has_its_vector_in_any_company_and_order(&quantized);
}

fn has_its_vector_in_any_company_and_order(embedder: &Embedder) {
    let asked = texts(200);
    let alone: Vec<Vec<f32>> =
        asked.iter().map(|text| embedder.embed(&[text]).unwrap().remove(0).vector).collect();
    let mut order: Vec<usize> = (0..asked.len()).collect();
    let mut random = Random::new(3);
    for round in 0..4 {
        (1..order.len()).rev().for_each(|end| order.swap(end, random.below(end + 1)));
        // Callers of one to some dozens of texts at the same time.
        std::thread::scope(|scope| {
            for part in order.chunks(1 + 20 * round) {
                let (asked, alone) = (&asked, &alone);
                scope.spawn(move || {
                    let texts: Vec<&str> = part.iter().map(|text| &asked[*text][..]).collect();
                    for (embedding, text) in embedder.embed(&texts).unwrap().iter().zip(part) {
                        let pairs = embedding.vector.iter().zip(&alone[*text]);
                        let farthest = pairs.map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
                        assert!(farthest <= 1e-5, "{farthest} {:?}", asked[*text]);
                    }
                });
            }
        });
    }
}

#[test]
fn a_provider_that_cannot_be_used_is_no_other() {
    for provider in [Provider::Cuda, Provider::TensorRt] {
        let config = EmbedderConfig { provider, ..model::config() };
        let embedder = Embedder::open(&config, None).unwrap();
        let Err(error) = embedder.load() else {
            // This machine has it.
            assert_eq!(embedder.running_provider(), Some(provider));
            continue;
        };
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains(&provider.to_string()), "{error}");
        assert!(error.remedy().unwrap().contains("cpu"));
        assert_eq!(embedder.running_provider(), None);
    }
    let config = EmbedderConfig { provider: Provider::Auto, ..model::config() };
    let embedder = Embedder::open(&config, None).unwrap();
    embedder.load().unwrap();
    assert!(matches!(embedder.running_provider(), Some(Provider::Cpu | Provider::Cuda)));
}

#[test]
fn a_model_of_other_dimensions_and_outputs_works_and_does_not_mix() {
    let directory = scratch::on_disk();
    let embedder = small(&directory.path().join("small"));
    let asked = texts(50);
    {
        let store = open(&directory.path().join("store"), embedder);
        put(&store, &asked);
        let info = &store.collections()[0];
        assert_eq!(info.dimensions as usize, SMALL_DIMENSIONS);
        let found = store.search(&Query::text(&asked[7])).unwrap();
        assert_eq!(found.hits[0].key, b"7");
        assert!(found.hits[0].score > 0.999);
        store.close();
    }
    let store = open(&directory.path().join("store"), model::config());
    let record = Record::new("more").with_text("words");
    for error in [
        store.put(NAME, &record).unwrap_err(),
        store.search(&Query::text("words").collection(NAME)).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.remedy().unwrap().contains("reembed"), "{error:?}");
    }
}

/// The vectors of all records by their keys.
fn vectors(store: &Store) -> BTreeMap<Vec<u8>, Vec<f32>> {
    let vectors = store.vectors(NAME).unwrap();
    let records = store.scan(NAME, b"").unwrap().map(|record| record.unwrap().key);
    records.map(|key| (key.clone(), vectors.get(&key).unwrap().unwrap().to_vec())).collect()
}

#[test]
fn a_collection_is_embedded_anew_at_once_or_not_at_all() {
    let directory = scratch::on_disk();
    let path = directory.path().join("store");
    let (first, second) = (small(&directory.path().join("small")), model::config());
    let asked = texts(1500);
    let before = {
        let store = open(&path, first.clone());
        put(&store, &asked);
        let options = LinkOptions { profile: Profile::Speed, threads: 2.try_into().unwrap() };
        store.link(NAME, options, &mut |_, _| Ok(())).unwrap();
        let before = vectors(&store);
        store.close();
        before
    };
    let expected: Vec<Vec<f32>> = {
        let texts: Vec<&str> = asked.iter().map(String::as_str).collect();
        let embedder = Embedder::open(&second, None).unwrap();
        embedder.embed(&texts).unwrap().into_iter().map(|embedding| embedding.vector).collect()
    };
    {
        let store = open(&path, second.clone());
        let mut tell = |done_count: u64, all_count: u64| {
            assert_eq!(all_count, 1500);
            let end = Error::new(ErrorKind::Busy, "ended");
            if done_count > 0 { Err(end) } else { Ok(()) }
        };
        assert_eq!(store.reembed(NAME, &mut tell).unwrap_err().to_string(), "ended");
        assert_eq!(vectors(&store), before, "something has changed before all was there");
        store.close();
    }
    let store = open(&path, second);
    let report = store.reembed(NAME, &mut |_, _| Ok(())).unwrap();
    assert_eq!((report.texts, report.dimensions, report.had_graph), (1500, 384, true));
    assert!(report.cached >= 1000, "{report:?} computed again what was there");
    assert_eq!(report.cached + report.embedded, 1500);
    let check = |store: &Store| {
        for (key, vector) in vectors(store) {
            let number: usize = String::from_utf8(key).unwrap().parse().unwrap();
            assert!(cosine(&vector, &expected[number]) > 0.9999, "{number}");
        }
        let found = store.search(&Query::text(&asked[7])).unwrap();
        assert_eq!(found.hits[0].key, b"7");
    };
    check(&store);
    // Once more is nothing, and new texts are of the new model.
    assert_eq!(store.reembed(NAME, &mut |_, _| Ok(())).unwrap().texts, 0);
    put(&store, &asked[..3]);
    store.close();
    let store = open(&path, model::config());
    check(&store);
    store.close();
    // And back again, of which everything is in the cache.
    let store = open(&path, first);
    let report = store.reembed(NAME, &mut |_, _| Ok(())).unwrap();
    assert_eq!((report.cached, report.embedded), (1500, 0));
    assert_eq!(vectors(&store), before);
}

#[test]
fn vectors_that_callers_gave_are_not_embedded_anew() {
    let directory = scratch::on_disk();
    let path = directory.path().join("store");
    let store = open(&path, small(&directory.path().join("small")));
    put(&store, &texts(3));
    let given = Record::new("given").with_vector(vec![0.5; SMALL_DIMENSIONS]);
    store.put(NAME, &given).unwrap();
    store.close();
    let store = open(&path, model::config());
    let error = store.reembed(NAME, &mut |_, _| Ok(())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("record given of collection notes"), "{error}");
    assert_eq!(store.get(NAME, b"given").unwrap().unwrap().vector.unwrap().len(), SMALL_DIMENSIONS);
}
