//! What words cost beside meaning: to learn those of 60,000 texts, to find some, and to learn one change.
//!
//! Beside the first stands the reading of all the texts, which nothing can do without; beside each the
//! same by tantivy alone, with its writer on one thread, its own words (which are fewer: names are not
//! taken apart) and its searcher.
//!
//! `cargo bench --profile release -p op-dbus-benches --bench keyword`. The texts are the descriptions of
//! Debian's packages, if the demonstration has fetched them, or words of random letters.

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use op_dbus_engine::{EmbedderConfig, KeywordExplain, Query, Record, Store, StoreConfig};
use support::random::Random;
use support::{model, scratch};
use tantivy::collector::TopDocs;
use tantivy::query::{BooleanQuery, TermQuery};
use tantivy::schema::{Field, IndexRecordOption, STORED, STRING, Schema, TEXT};
use tantivy::{Index, Searcher, TantivyDocument, Term};

const TEXTS_COUNT: usize = 60_000;
const DIMENSIONS: usize = 8;
const RANKS_COUNT: usize = 100;
const WRITER_BYTES: usize = 50_000_000;
const QUESTIONS: [&str; 4] =
    ["compress a directory", "libreoffice", "library for python", "network manager"];

fn texts() -> Vec<(String, String)> {
    let packages = scratch::cache_directory().join("demo/packages.jsonl");
    let Ok(lines) = std::fs::read_to_string(packages) else {
        let mut random = Random::new(1);
        return (0..TEXTS_COUNT).map(|number| (format!("r{number}"), random.words(8))).collect();
    };
    let text = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
        let field = |name: &str| value[name].as_str().expect("a text").to_owned();
        (field("key"), field("text"))
    };
    lines.lines().take(TEXTS_COUNT).map(text).collect()
}

fn config(directory: &Path) -> StoreConfig {
    let embedder = EmbedderConfig::new(directory.join("model"));
    StoreConfig::new(directory.join("store")).with_embedder(embedder)
}

fn fill(directory: &Path, texts: &[(String, String)]) {
    model::write_small(&directory.join("model"), DIMENSIONS);
    let store = Store::open(config(directory)).expect("a store");
    for texts in texts.chunks(1000) {
        let record = |(key, text): &(String, String)| Record::new(key.as_bytes()).with_text(text);
        let records: Vec<Record> = texts.iter().map(record).collect();
        store.put_batch("texts", &records).expect("room");
    }
    store.close();
}

fn ask(store: &Store, text: &str) -> KeywordExplain {
    let answer = store.search(&Query::text(text).keyword()).expect("an answer");
    answer.explain.keyword.expect("words were looked for")
}

/// The same by tantivy alone.
struct Alone {
    searcher: Searcher,
    text: Field,
}

impl Alone {
    fn new(texts: &[(String, String)]) -> tantivy::Result<Self> {
        let mut schema = Schema::builder();
        let (key, text) =
            (schema.add_text_field("key", STRING | STORED), schema.add_text_field("text", TEXT));
        let index = Index::create_in_ram(schema.build());
        let mut writer = index.writer_with_num_threads(1, WRITER_BYTES)?;
        for (own_key, own_text) in texts {
            let mut document = TantivyDocument::default();
            document.add_text(key, own_key);
            document.add_text(text, own_text);
            writer.add_document(document)?;
        }
        writer.commit()?;
        Ok(Self { searcher: index.reader()?.searcher(), text })
    }

    fn ask(&self, text: &str) -> usize {
        let word = |word: &str| -> Box<dyn tantivy::query::Query> {
            let term = Term::from_field_text(self.text, word);
            Box::new(TermQuery::new(term, IndexRecordOption::WithFreqs))
        };
        let query = BooleanQuery::union(text.split(' ').map(word).collect());
        let best = TopDocs::with_limit(RANKS_COUNT).order_by_score();
        self.searcher.search(&query, &best).expect("an answer").len()
    }
}

/// So many times together.
fn sum_of(rounds: u64, mut one: impl FnMut() -> Duration) -> Duration {
    (0..rounds).map(|_| one()).sum()
}

fn keyword(criterion: &mut Criterion) {
    let directory = scratch::on_disk();
    let texts = texts();
    fill(directory.path(), &texts);
    let mut group = criterion.benchmark_group("keyword_60000");
    group.sample_size(10);
    let reader = || Store::open(config(directory.path()).to_read()).expect("a store");
    group.bench_function("learn all words", |bencher| {
        bencher.iter_custom(|rounds| sum_of(rounds, || ask(&reader(), QUESTIONS[0]).load));
    });
    let store = reader();
    group.bench_function("read all texts", |bencher| {
        bencher.iter(|| store.scan("texts", b"").expect("a collection").count());
    });
    store.close();
    group.bench_function("tantivy alone: learn all words", |bencher| {
        bencher.iter(|| Alone::new(&texts).expect("memory").text);
    });
    let store = Store::open(config(directory.path())).expect("a store");
    let alone = Alone::new(&texts).expect("memory");
    for text in QUESTIONS {
        ask(&store, text);
        group.bench_function(format!("find {text}"), |bencher| {
            bencher.iter_custom(|rounds| sum_of(rounds, || ask(&store, text).search));
        });
        group.bench_function(format!("tantivy alone: find {text}"), |bencher| {
            bencher.iter(|| black_box(alone.ask(text)));
        });
    }
    let mut number = 0;
    group.bench_function("learn one change", |bencher| {
        bencher.iter_custom(|rounds| {
            sum_of(rounds, || {
                let (key, text) = &texts[number % texts.len()];
                number += 1;
                let record = Record::new(key.as_bytes()).with_text(text);
                store.put("texts", &record).expect("room");
                ask(&store, QUESTIONS[0]).load
            })
        });
    });
    group.finish();
    store.close();
}

criterion_group!(benches, keyword);
criterion_main!(benches);
