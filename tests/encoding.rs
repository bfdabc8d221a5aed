//! Vectors stored with fewer bits: what is lost is bounded, and everybody sees the same of them.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use op_dbus_engine::{
    CollectionOptions, Encoding, ErrorKind, Metric, Query, Record, Store, StoreConfig,
};
use support::random::Random;
use support::scratch;

const DIMENSIONS: usize = 96;
const COUNT: usize = 2000;
const NAME: &str = "vectors";
/// A little more than the halves below: the products are rounded too.
const ROUNDING: f32 = 1.000_01;

fn options(encoding: Encoding) -> CollectionOptions {
    CollectionOptions::Given { dimensions: DIMENSIONS as u32, metric: Metric::Cosine, encoding }
}

fn vectors(seed: u64, count: usize) -> Vec<Vec<f32>> {
    let mut random = Random::new(seed);
    (0..count).map(|_| random.vector(DIMENSIONS)).collect()
}

fn key(number: usize) -> Vec<u8> {
    format!("{number:05}").into_bytes()
}

fn put(store: &Store, collection: &str, vectors: &[Vec<f32>]) {
    let record =
        |(number, vector): (usize, &Vec<f32>)| Record::new(key(number)).with_vector(&vector[..]);
    let records: Vec<_> = vectors.iter().enumerate().map(record).collect();
    store.put_batch(collection, &records).unwrap();
}

fn bits(vector: &[f32]) -> Vec<u32> {
    vector.iter().map(|element| element.to_bits()).collect()
}

/// Vectors by key, as bits, and how many were hot.
fn read(store: &Store) -> (Vec<Vec<u32>>, usize) {
    let open = store.vectors(NAME).unwrap();
    let found: Vec<_> = (0..COUNT).map(|number| open.get(&key(number)).unwrap().unwrap()).collect();
    let hot = found.iter().filter(|vector| vector.is_hot()).count();
    (found.iter().map(|vector| bits(vector)).collect(), hot)
}

/// The nearest ten, with the bits of their scores.
fn nearest(store: &Store, collection: &str, query: &[f32]) -> Vec<(Vec<u8>, u32)> {
    let query = Query::vector(query).collection(collection).limit(10);
    let hits = store.search(&query).unwrap().hits;
    hits.into_iter().map(|hit| (hit.key, hit.score.to_bits())).collect()
}

fn check_loss(encoding: Encoding, given: &[f32], stored: &[u32]) {
    let largest = given.iter().fold(0.0_f32, |largest, element| largest.max(element.abs()));
    for (element, stored) in given.iter().zip(stored) {
        let bound = match encoding {
            Encoding::F32 => 0.0,
            // Half a unit in the last of 11 places, or of the smallest subnormal.
            Encoding::F16 => (element.abs() * 2.0_f32.powi(-11)).max(2.0_f32.powi(-25)),
            Encoding::I8 => largest / 127.0 / 2.0 * ROUNDING,
        };
        let loss = (element - f32::from_bits(*stored)).abs();
        assert!(loss <= bound, "{encoding:?}: {element} lost {loss}, more than {bound}");
    }
}

#[test]
fn hot_cold_and_found_vectors_are_the_same_and_lose_no_more_than_they_may() {
    let given = vectors(3, COUNT);
    for encoding in Encoding::ALL {
        let directory = scratch::on_disk();
        let store = Store::open(StoreConfig::new(directory.path()).cold()).unwrap();
        store.create_collection(NAME, options(encoding)).unwrap();
        // Loaded before they come, so that what commits show to searches is tried too.
        assert!(nearest(&store, NAME, &given[0]).is_empty());
        // What replaces a hot vector is hot at once, and was not read from the database.
        put(&store, NAME, &vectors(4, COUNT));
        read(&store);
        put(&store, NAME, &given);
        let (hot, hot_count) = read(&store);
        assert!(hot_count > COUNT / 2, "{hot_count} are hot");
        let found: Vec<_> = given[..50].iter().map(|query| nearest(&store, NAME, query)).collect();
        for (given, stored) in given.iter().zip(&hot) {
            check_loss(encoding, given, stored);
        }
        let differs = given.iter().zip(&hot).filter(|(given, hot)| bits(given) != **hot).count();
        assert_eq!(differs > COUNT / 2, encoding != Encoding::F32, "{encoding:?} {differs}");
        let again = Record::new(key(7)).with_vector(&given[7][..]);
        assert_eq!(store.put(NAME, &again).unwrap().unchanged, 1);
        store.close();
        let store = Store::open(StoreConfig::new(directory.path()).cold()).unwrap();
        let (cold, hot_count) = read(&store);
        assert_eq!(hot_count, 0);
        assert!(cold == hot, "{encoding:?}: cold vectors differ from hot ones");
        let (promoted, _) = read(&store);
        assert!(promoted == hot, "{encoding:?}: promoted vectors differ from those put");
        let scanned: Vec<_> = store.scan(NAME, b"").unwrap().map(Result::unwrap).collect();
        assert!(
            scanned
                .iter()
                .zip(&hot)
                .all(|(record, hot)| bits(record.vector.as_ref().unwrap()) == *hot)
        );
        for (query, found) in given.iter().zip(&found) {
            assert_eq!(nearest(&store, NAME, query), *found, "{encoding:?} after reopening");
        }
    }
}

#[test]
fn searches_find_nearly_the_same() {
    let directory = scratch::on_disk();
    let store = Store::open(StoreConfig::new(directory.path()).cold()).unwrap();
    let (given, queries) = (vectors(3, COUNT), vectors(4, 100));
    for encoding in Encoding::ALL {
        store.create_collection(encoding.name(), options(encoding)).unwrap();
        put(&store, encoding.name(), &given);
    }
    for (encoding, least) in [(Encoding::F16, 0.99), (Encoding::I8, 0.9)] {
        let mut same = 0;
        for query in &queries {
            let exact = nearest(&store, "f32", query);
            let found = nearest(&store, encoding.name(), query);
            same += found.iter().filter(|(key, _)| exact.iter().any(|(k, _)| k == key)).count();
        }
        let recall = same as f64 / (10 * queries.len()) as f64;
        println!("recall at 10 with {}: {recall}", encoding.name());
        assert!(recall >= least, "{encoding:?}: {recall}");
    }
    let stats = store.stats().unwrap();
    let encodings: Vec<_> = stats.collections.iter().map(|known| known.encoding.as_str()).collect();
    assert_eq!(encodings, ["f16", "f32", "i8"]);
}

#[test]
fn an_encoding_is_for_good_and_what_it_cannot_hold_is_refused() {
    let directory = scratch::on_disk();
    let store = Store::open(StoreConfig::new(directory.path()).cold()).unwrap();
    store.create_collection(NAME, options(Encoding::F16)).unwrap();
    store.create_collection(NAME, options(Encoding::F16)).unwrap();
    store.create_collection(NAME, CollectionOptions::Documents).unwrap();
    for other in [Encoding::F32, Encoding::I8] {
        let error = store.create_collection(NAME, options(other)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("f16, not"), "{error}");
        let versions = store.create_collection_with_versions(NAME, options(other), 0);
        assert_eq!(versions.unwrap_err().kind(), ErrorKind::Invalid);
    }
    let mut vector = vec![1.0; DIMENSIONS];
    vector[5] = 65_536.0;
    let error = store.put(NAME, &Record::new("large").with_vector(vector)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(store.get(NAME, b"large").unwrap().is_none());
    assert_eq!(store.collections()[0].encoding, Encoding::F16);
}

#[test]
fn a_vector_is_copied_as_it_is_got_whether_it_is_hot_or_cold() {
    let given = vectors(4, COUNT);
    let directory = scratch::on_disk();
    put(&Store::open(StoreConfig::new(directory.path()).cold()).unwrap(), NAME, &given);
    let store = Store::open(StoreConfig::new(directory.path()).cold()).unwrap();
    let open = store.vectors(NAME).unwrap();
    let mut copied = vec![0.0; DIMENSIONS];
    for (number, vector) in given.iter().enumerate() {
        assert!(open.copy_to(&key(number), &mut copied).unwrap());
        assert_eq!(bits(&copied), bits(vector));
        assert!(open.get(&key(number)).unwrap().unwrap().is_hot());
        copied.fill(0.0);
        assert!(open.copy_to(&key(number), &mut copied).unwrap());
        assert_eq!(bits(&copied), bits(vector));
    }
    let before = bits(&copied);
    assert!(!open.copy_to(&key(COUNT), &mut copied).unwrap());
    for room in [DIMENSIONS - 1, DIMENSIONS + 1] {
        let error = open.copy_to(&key(0), &mut vec![0.0; room]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(&format!("{DIMENSIONS} elements")), "{error}");
    }
    assert_eq!(bits(&copied), before);
}
