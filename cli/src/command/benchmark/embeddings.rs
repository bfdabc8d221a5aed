//! `op-dbus benchmark --embeddings N`: what it takes to turn texts into vectors, one by one and many
//! at once.
//!
//! The texts are those of the program's own help, cut to three lengths.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use op_dbus_benches::hit::percentile;
use op_dbus_engine::{Embedder, Provider};
use serde::Serialize;
use serde_json::json;

use crate::config::Config;
use crate::error::Result;
use crate::exit::Exit;
use crate::interrupt;
use crate::output::{Output, grouped};
use crate::sample;

/// Words of a text: they come to about 12, 32 and 128 tokens.
const WORDS_COUNTS: [usize; 3] = [8, 23, 95];
/// Texts that are embedded at a time before Ctrl-C is heard.
const PART_COUNT: usize = 512;

#[derive(Serialize)]
struct Row {
    texts: usize,
    /// Mean of a text.
    tokens: f64,
    p50_ms: f64,
    p99_ms: f64,
    texts_per_second: f64,
    tokens_per_second: f64,
    /// Of the time of a text alone.
    tokenizer_share: f64,
}

pub(super) fn run(config: &Config, output: &Output, texts_count: usize) -> Result<Exit> {
    let embedder = Embedder::open(config.embedder(), None)?;
    embedder.load()?;
    let lines = sample::lines();
    let words: Vec<&str> = lines.iter().flat_map(|line| line.split_whitespace()).collect();
    let mut rows = Vec::new();
    for words_count in WORDS_COUNTS {
        match measure(&embedder, &texts(&words, words_count, texts_count))? {
            Some(row) => rows.push(row),
            None => return Ok(Exit::Interrupted),
        }
    }
    let provider = embedder.running_provider().unwrap_or_default();
    let answer = json!({
        "model": embedder.name(),
        "provider": provider.name(),
        "promised_ms": promised_ms(provider),
        "embeddings": rows,
    });
    output.answer(&answer, |out| render(out, &embedder, provider, &rows))?;
    Ok(Exit::Success)
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

/// Embeds texts one by one, and all of them; none if the user ended it.
fn measure(embedder: &Embedder, texts: &[String]) -> Result<Option<Row>> {
    let (mut alone, mut tokenizing, mut tokens_count) = (Vec::new(), Duration::ZERO, 0);
    for text in texts {
        if interrupt::is_requested() {
            return Ok(None);
        }
        let started = Instant::now();
        tokens_count += embedder.tokens_count(text)?;
        tokenizing += started.elapsed();
        let started = Instant::now();
        embedder.embed(&[text])?;
        alone.push(started.elapsed());
    }
    let started = Instant::now();
    for part in texts.chunks(PART_COUNT) {
        if interrupt::is_requested() {
            return Ok(None);
        }
        embedder.embed(&part.iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    let together = started.elapsed().as_secs_f64();
    let all_alone: Duration = alone.iter().sum();
    let mut alone_ms: Vec<f64> = alone.iter().map(|took| took.as_secs_f64() * 1e3).collect();
    Ok(Some(Row {
        texts: texts.len(),
        tokens: tokens_count as f64 / texts.len() as f64,
        p50_ms: percentile(&mut alone_ms, 50),
        p99_ms: percentile(&mut alone_ms, 99),
        texts_per_second: texts.len() as f64 / together,
        tokens_per_second: tokens_count as f64 / together,
        tokenizer_share: tokenizing.as_secs_f64() / all_alone.as_secs_f64(),
    }))
}

fn render(
    out: &mut dyn Write,
    embedder: &Embedder,
    provider: Provider,
    rows: &[Row],
) -> io::Result<()> {
    writeln!(
        out,
        "{} on {provider}; milliseconds for a text alone, and all at once",
        embedder.name()
    )?;
    writeln!(
        out,
        "{:>7} {:>7} {:>8} {:>8} {:>10} {:>9} {:>10}",
        "texts", "tokens", "p50", "p99", "tokenizer", "texts/s", "tokens/s"
    )?;
    for row in rows {
        writeln!(
            out,
            "{:>7} {:>7.1} {:>8.2} {:>8.2} {:>8.1} % {:>9.1} {:>10}",
            grouped(row.texts as u64),
            row.tokens,
            row.p50_ms,
            row.p99_ms,
            row.tokenizer_share * 100.0,
            row.texts_per_second,
            grouped(row.tokens_per_second as u64)
        )?;
    }
    writeln!(out, "promised for a text on {provider}: {} ms", promised_ms(provider))
}
