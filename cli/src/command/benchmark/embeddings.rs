//! `op-dbus benchmark --embeddings N`: what it takes to turn texts into vectors, one by one and many
//! at once, and what it takes when they are known.
//!
//! The texts are those of the program's own help, cut to three lengths.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use op_dbus_benches::hit::percentile;
use op_dbus_benches::latency::{quantiles, time_each};
use op_dbus_benches::traffic::Numbers;
use op_dbus_engine::{Embedder, EmbedderConfig, Provider, Store, StoreConfig};

use super::Work;
use super::results::{CachedRow, EmbeddingRow, Embeddings};
use crate::error::Result;
use crate::interrupt;
use crate::output::grouped;
use crate::sample;

/// Words of a text: they come to about 12, 32 and 128 tokens.
const WORDS_COUNTS: [usize; 3] = [8, 23, 95];
/// Texts that are embedded at a time before Ctrl-C is heard.
const PART_COUNT: usize = 512;
/// Texts in the cache: their embeddings take more than a core's own caches hold.
const CACHED_COUNT: usize = 20_000;
const CACHED_LOOKUPS_COUNT: usize = 100_000;
/// Embeddings come into memory when they are asked for, and not all at the first time.
const HEAT_ROUNDS_COUNT: usize = 3;

/// Measures; none if the user ended it.
pub(super) fn measure(
    work: &Work,
    embedder: &Embedder,
    config: &EmbedderConfig,
    texts_count: usize,
) -> Result<Option<Embeddings>> {
    let provider = embedder.running_provider().unwrap_or_default();
    let lines = sample::lines();
    let words: Vec<&str> = lines.iter().flat_map(|line| line.split_whitespace()).collect();
    let mut rows = Vec::new();
    for words_count in WORDS_COUNTS {
        work.say(&format!("embedding on {provider}: texts of {words_count} words"));
        match measure_length(embedder, &texts(&words, words_count, texts_count), words_count)? {
            Some(row) => rows.push(row),
            None => return Ok(None),
        }
    }
    let Some(cached) = measure_cached(work, config, embedder.dimensions()? as usize)? else {
        return Ok(None);
    };
    Ok(Some(Embeddings {
        model: embedder.name().to_owned(),
        provider: provider.name().to_owned(),
        promised_ms: promised_ms(provider),
        rows,
        cached,
    }))
}

/// What was promised for a text, by provider.
fn promised_ms(provider: Provider) -> f64 {
    match provider {
        Provider::Cpu | Provider::Auto => 10.0,
        Provider::Cuda => 2.0,
        Provider::TensorRt => 1.0,
    }
}

/// Texts of so many words, which begin at different ones.
fn texts(words: &[&str], words_count: usize, texts_count: usize) -> Vec<String> {
    // Coprime to most lengths, so that texts differ as long as they can.
    const STEP: usize = 7;
    let text = |number: usize| {
        let words = words.iter().cycle().skip(number * STEP % words.len()).take(words_count);
        words.copied().collect::<Vec<_>>().join(" ")
    };
    (0..texts_count).map(text).collect()
}

/// Embeds texts one by one, in turns with the runtime alone, and all of them; none if the user ended
/// it.
fn measure_length(
    embedder: &Embedder,
    texts: &[String],
    words: usize,
) -> Result<Option<EmbeddingRow>> {
    let mut bare = embedder.alone()?;
    let (mut alone, mut runtime) = (Vec::new(), Vec::new());
    let (mut tokenizing, mut tokens_count) = (Duration::ZERO, 0);
    for text in texts {
        if interrupt::is_requested() {
            return Ok(None);
        }
        let started = Instant::now();
        let tokens = embedder.tokens_count(text)?;
        tokenizing += started.elapsed();
        tokens_count += tokens;
        let started = Instant::now();
        embedder.embed(&[text])?;
        alone.push(started.elapsed().as_nanos() as f64);
        runtime.push(bare.run(tokens)?.as_secs_f64() * 1e3);
    }
    let started = Instant::now();
    for part in texts.chunks(PART_COUNT) {
        if interrupt::is_requested() {
            return Ok(None);
        }
        embedder.embed(&part.iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    let together = started.elapsed().as_secs_f64();
    let all_alone_s = alone.iter().sum::<f64>() / 1e9;
    Ok(Some(EmbeddingRow {
        texts: texts.len(),
        words,
        tokens: tokens_count as f64 / texts.len() as f64,
        p50_ms: percentile(&mut alone, 50) / 1e6,
        p99_ms: percentile(&mut alone, 99) / 1e6,
        runtime_p50_ms: percentile(&mut runtime, 50),
        texts_per_second: texts.len() as f64 / together,
        tokens_per_second: tokens_count as f64 / together,
        tokenizer_share: tokenizing.as_secs_f64() / all_alone_s,
        quantiles: quantiles(&mut alone),
    }))
}

/// Asks for texts whose embeddings a store has; none if the user ended it.
///
/// Which vectors they are does not matter, so that none has to be computed.
fn measure_cached(
    work: &Work,
    config: &EmbedderConfig,
    dimensions: usize,
) -> Result<Option<CachedRow>> {
    work.say("embeddings that are known");
    let directory = work.directory("cached")?;
    let store_config = StoreConfig::new(directory.path().join("store"));
    let store = Store::open(store_config.with_embedder(config.clone()).cold())?;
    let mut numbers = Numbers::new(1);
    let texts: Vec<String> =
        (0..CACHED_COUNT).map(|number| format!("text number {number}")).collect();
    let mut vectors = Vec::with_capacity(CACHED_COUNT * dimensions);
    for text in &texts {
        if interrupt::is_requested() {
            return Ok(None);
        }
        let vector = unit_vector(&mut numbers, dimensions);
        store.put_embedding(text, &vector)?;
        vectors.extend(vector);
    }
    for text in texts.iter().cycle().take(HEAT_ROUNDS_COUNT * CACHED_COUNT) {
        store.embedding(text)?;
    }
    let asked: Vec<usize> = (0..CACHED_LOOKUPS_COUNT)
        .map(|_| (numbers.next() % CACHED_COUNT as u64) as usize)
        .collect();
    let mut copied = vec![0.0; dimensions];
    let mut lost_count = 0;
    let mut hits = time_each(&asked, |&place| match store.embedding(&texts[place]) {
        Ok(Some(found)) => {
            copied.copy_from_slice(&found);
            u64::from(copied[0].to_bits())
        }
        _ => {
            lost_count += 1;
            0
        }
    });
    if lost_count > 0 {
        let problem = format!("{lost_count} lookups did not find an embedding that was put");
        return Err(op_dbus_engine::Error::new(op_dbus_engine::ErrorKind::Corrupt, problem)
            .with_remedy("look for faults of the disk: op-dbus scrub")
            .into());
    }
    let mut copies = time_each(&asked, |&place| {
        copied.copy_from_slice(&vectors[place * dimensions..][..dimensions]);
        u64::from(copied[0].to_bits())
    });
    store.close();
    Ok(Some(CachedRow {
        texts: CACHED_COUNT,
        p50_ns: percentile(&mut hits, 50),
        p99_ns: percentile(&mut hits, 99),
        copy_p50_ns: percentile(&mut copies, 50),
        quantiles: quantiles(&mut hits),
    }))
}

/// A vector as models give them.
fn unit_vector(numbers: &mut Numbers, dimensions: usize) -> Vec<f32> {
    let vector: Vec<f64> = (0..dimensions).map(|_| numbers.unit() - 0.5).collect();
    let length = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
    vector.iter().map(|x| (x / length) as f32).collect()
}

pub(super) fn render(out: &mut dyn Write, part: &Embeddings) -> io::Result<()> {
    let provider = &part.provider;
    writeln!(out, "{} on {provider}; milliseconds for a text alone, and all at once", part.model)?;
    writeln!(
        out,
        "{:>7} {:>7} {:>8} {:>8} {:>8} {:>10} {:>9} {:>10}",
        "texts", "tokens", "p50", "p99", "runtime", "tokenizer", "texts/s", "tokens/s"
    )?;
    for row in &part.rows {
        writeln!(
            out,
            "{:>7} {:>7.1} {:>8.2} {:>8.2} {:>8.2} {:>8.1} % {:>9.1} {:>10}",
            grouped(row.texts as u64),
            row.tokens,
            row.p50_ms,
            row.p99_ms,
            row.runtime_p50_ms,
            row.tokenizer_share * 100.0,
            row.texts_per_second,
            grouped(row.tokens_per_second as u64)
        )?;
    }
    writeln!(out, "promised for a text on {provider}: {} ms", part.promised_ms)?;
    let cached = &part.cached;
    writeln!(
        out,
        "one of {} that are known: p50 {:.0} ns, p99 {:.0} ns; a copy in memory: {:.0} ns",
        grouped(cached.texts as u64),
        cached.p50_ns,
        cached.p99_ns,
        cached.copy_p50_ns
    )
}
