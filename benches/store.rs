//! What the store's own paths cost: a cached embedding, a record by key, a synced put, a search, and
//! one with a filter beside the same without.
//!
//! The cache hit stands beside a copy of the same bytes from a random place in memory, which no
//! cache can beat.

use std::hint::black_box;
use std::num::NonZero;
use std::path::PathBuf;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use op_dbus_engine::{
    EmbedderConfig, LinkOptions, Payload, Profile, Query, Record, Store, StoreConfig,
};

const TEXTS_COUNT: usize = 20_000;
const DIMENSIONS: usize = 384;

/// Where `make setup` puts the model. Hits need its fingerprint, not its runtime.
fn model_directory() -> PathBuf {
    let data = std::env::var_os("XDG_DATA_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".local/share"),
        PathBuf::from,
    );
    data.join("op-dbus/models/all-MiniLM-L6-v2")
}

/// A repeatable stream of numbers (xorshift64*): benches need no better.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 24) as f32
    }

    /// A vector of length 1, as embeddings are.
    fn vector(&mut self) -> Vec<f32> {
        let mut vector: Vec<f32> = (0..DIMENSIONS).map(|_| self.unit() - 0.5).collect();
        let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        vector.iter_mut().for_each(|x| *x /= length);
        vector
    }
}

fn text(index: usize) -> String {
    format!("text number {index} of the bench, about as long as the description of a package")
}

fn cache_hit(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let config =
        StoreConfig::new(directory.path()).with_embedder(EmbedderConfig::new(model_directory()));
    let store = Store::open(config).expect("a new store");
    let mut numbers = Numbers(1);
    for index in 0..TEXTS_COUNT {
        store.put_embedding(&text(index), &numbers.vector()).expect("make setup was run");
    }
    let texts: Vec<String> = (0..TEXTS_COUNT).map(text).collect();
    let rows: Vec<Vec<f32>> = (0..TEXTS_COUNT).map(|_| numbers.vector()).collect();
    let mut group = criterion.benchmark_group("cache_hit_20k");
    group.throughput(Throughput::Elements(1));
    let mut pick = Numbers(2);
    group.bench_function("store_embed", |bencher| {
        bencher.iter_batched(
            || &texts[pick.next() as usize % TEXTS_COUNT],
            |text| {
                let embedding = store.embed(text).expect("a hit");
                assert!(embedding.hit);
                embedding.vector
            },
            BatchSize::SmallInput,
        );
    });
    let mut pick = Numbers(2);
    group.bench_function("limit_copy_of_a_random_row", |bencher| {
        bencher.iter_batched(
            || &rows[pick.next() as usize % TEXTS_COUNT],
            |row| row.clone(),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn records(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(StoreConfig::new(directory.path())).expect("a new store");
    let mut numbers = Numbers(3);
    let made: Vec<Record> = (0..TEXTS_COUNT)
        .map(|index| {
            Record::new(format!("key {index}"))
                .with_text(text(index))
                .with_vector(numbers.vector())
                .with_payload(Payload::Json(r#"{"section":"utils"}"#.into()))
        })
        .collect();
    for batch in made.chunks(1000) {
        store.put_batch("rows", batch).expect("room on the disk");
    }
    let mut group = criterion.benchmark_group("records_20k");
    let mut pick = Numbers(4);
    group.bench_function("get", |bencher| {
        bencher.iter_batched(
            || &made[pick.next() as usize % TEXTS_COUNT].key,
            |key| store.get("rows", key).expect("a readable store"),
            BatchSize::SmallInput,
        );
    });
    let mut version = 0_u64;
    group.bench_function("put_synced", |bencher| {
        bencher.iter(|| {
            version += 1;
            let payload = Payload::Json(format!("{version}").into());
            store.put("puts", &made[0].clone().with_payload(payload)).expect("room on the disk")
        });
    });
    let query = Query::vector(numbers.vector()).collection("rows").limit(10);
    store.search(&query).expect("a search that loads the vectors");
    group.bench_function("search_exact_top_10", |bencher| {
        bencher.iter(|| black_box(store.search(&query).expect("a search")));
    });
    group.finish();
}

/// Searches by a graph, of records about as large as that of a D-Bus method.
fn filtered(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(StoreConfig::new(directory.path())).expect("a new store");
    let mut numbers = Numbers(5);
    let record = |index: usize| {
        let payload = format!(
            r#"{{"kind":"method","share":{},"service":"org.example.Service","documentation":"{}"}}"#,
            numbers.unit(),
            text(index).repeat(4)
        );
        let record = Record::new(format!("method:org.example.Service.Interface.Member{index}"));
        record.with_vector(numbers.vector()).with_payload(Payload::Json(payload.into()))
    };
    let made: Vec<Record> = (0..TEXTS_COUNT).map(record).collect();
    for batch in made.chunks(1000) {
        store.put_batch("rows", batch).expect("room on the disk");
    }
    let threads = NonZero::new(2).expect("two");
    let options = LinkOptions { profile: Profile::Speed, threads };
    store.link("rows", options, &mut |_, _| Ok(())).expect("vectors to link");
    let mut group = criterion.benchmark_group("filtered_20k");
    group.sample_size(20);
    let query = Query::vector(numbers.vector()).collection("rows").limit(10).recall(0.95);
    let filters = ["", "share < 0.5", "share < 0.1", "share < 0.01", "share < 0.001"];
    for filter in filters {
        let query = match filter {
            "" => query.clone(),
            filter => query.clone().filter(filter.parse().expect("a filter")),
        };
        let name = if filter.is_empty() { "without" } else { filter };
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(store.search(&query).expect("a search")));
        });
    }
    group.finish();
}

criterion_group!(benches, cache_hit, records, filtered);
criterion_main!(benches);
