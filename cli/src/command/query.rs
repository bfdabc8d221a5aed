//! `op-dbus query`: find by meaning.

use std::io::Write;
use std::time::Instant;

use op_dbus_engine::{Answer, CollectionExplain, Explain, Hit, Payload, Plan, Query};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::args;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::output::{Output, columns, duration, grouped, one_line};

#[derive(Serialize)]
struct AnswerJson {
    hits: Vec<HitJson>,
    took_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    explain: Option<ExplainJson>,
}

#[derive(Serialize)]
struct ExplainJson {
    embedding_hit: Option<bool>,
    embed_us: u64,
    load_us: u64,
    search_us: u64,
    fetch_us: u64,
    collections: Vec<CollectionJson>,
}

#[derive(Serialize)]
struct CollectionJson {
    name: String,
    plan: &'static str,
    expanded: u64,
    compared: u64,
    full_hot: u64,
    full_cold: u64,
}

#[derive(Serialize)]
struct HitJson {
    collection: String,
    key: String,
    score: f32,
    text: Option<String>,
    payload: Option<Box<RawValue>>,
}

pub(super) fn run(config: &Config, output: &Output, arguments: args::Query) -> Result<Exit> {
    let mut query = Query::text(&arguments.text).limit(arguments.limit).recall(arguments.recall);
    if arguments.exact {
        query = query.exact();
    }
    for collection in arguments.collection {
        query = query.collection(collection);
    }
    if let Some(score) = arguments.min_score {
        query = query.min_score(score);
    }
    let store = config.open_at(&arguments.at)?;
    let started = Instant::now();
    let answer = store.search(&query)?;
    let took = started.elapsed();
    let found = if answer.hits.is_empty() { Exit::NothingFound } else { Exit::Success };
    let Answer { hits, explain } = answer;
    if output.is_json() {
        let hits = hits.into_iter().map(hit_json).collect::<Result<_>>()?;
        let explain = arguments.explain.then(|| explain_json(&explain));
        output.json(&AnswerJson { hits, took_us: took.as_micros() as u64, explain })?;
    } else {
        output.text(|out| render(out, &hits))?;
        if arguments.explain {
            output.text(|out| render_explain(out, &explain))?;
        }
        output.note(&summary(&explain, took));
    }
    store.close();
    Ok(found)
}

/// A key as wide as this leaves room for its text on the same line.
const KEY_COLUMNS_MAX: usize = 32;

/// Writes a line for each hit; two where a terminal is too narrow for long keys and text.
fn render(out: &mut dyn Write, hits: &[Hit]) -> std::io::Result<()> {
    let keys: Vec<String> =
        hits.iter().map(|hit| one_line(&display_key(&hit.key), usize::MAX)).collect();
    let width = keys.iter().map(|key| console::measure_text_width(key)).max().unwrap_or(0);
    let columns = columns();
    for (hit, key) in hits.iter().zip(keys) {
        let text = hit.text.as_deref().unwrap_or_default();
        if width > KEY_COLUMNS_MAX && columns != usize::MAX {
            writeln!(out, "{:>6.3}  {}", hit.score, one_line(&key, columns.saturating_sub(8)))?;
            writeln!(out, "        {}", one_line(text, columns.saturating_sub(8)))?;
        } else {
            let key = console::pad_str(&key, width, console::Alignment::Left, None);
            let text = one_line(text, columns.saturating_sub(10 + width));
            writeln!(out, "{:>6.3}  {key}  {text}", hit.score)?;
        }
    }
    Ok(())
}

fn summary(explain: &Explain, took: std::time::Duration) -> String {
    let embedding = match explain.embedding_hit {
        Some(true) => "embedding from the cache".to_owned(),
        Some(false) => format!("embedding {}", duration(explain.embed)),
        None => "vector given".to_owned(),
    };
    let compared = explain.collections.iter().map(|done| match done.plan {
        Plan::Exact => done.full_hot,
        Plan::Scan | Plan::Graph => done.compared.max(done.expanded),
    });
    format!(
        "{}: {} vectors compared in {}, brought in in {}; {embedding}",
        duration(took),
        grouped(compared.sum()),
        duration(explain.search),
        duration(explain.load),
    )
}

fn explain_json(explain: &Explain) -> ExplainJson {
    let collection = |done: &CollectionExplain| CollectionJson {
        name: done.name.clone(),
        plan: done.plan.name(),
        expanded: done.expanded,
        compared: done.compared,
        full_hot: done.full_hot,
        full_cold: done.full_cold,
    };
    let us = |time: std::time::Duration| time.as_micros() as u64;
    ExplainJson {
        embedding_hit: explain.embedding_hit,
        embed_us: us(explain.embed),
        load_us: us(explain.load),
        search_us: us(explain.search),
        fetch_us: us(explain.fetch),
        collections: explain.collections.iter().map(collection).collect(),
    }
}

fn render_explain(out: &mut dyn Write, explain: &Explain) -> std::io::Result<()> {
    writeln!(out)?;
    for (what, took) in [
        ("embed the text", explain.embed),
        ("bring vectors in", explain.load),
        ("find the nearest", explain.search),
        ("read the records", explain.fetch),
    ] {
        writeln!(out, "{what:<18}{:>10}", duration(took))?;
    }
    for done in &explain.collections {
        let (name, plan) = (&done.name, done.plan.name());
        let [expanded, compared, hot, cold] =
            [done.expanded, done.compared, done.full_hot, done.full_cold].map(grouped);
        writeln!(
            out,
            "{name}: {plan}; {expanded} vertices expanded, {compared} vectors compared by"
        )?;
        writeln!(out, "  their bytes, in full {hot} hot and {cold} cold ones")?;
    }
    Ok(())
}

fn hit_json(hit: Hit) -> Result<HitJson> {
    let key = display_key(&hit.key);
    let payload = match hit.payload {
        Payload::None => None,
        Payload::Json(json) => Some(RawValue::from_string(json.into_owned()).map_err(|error| {
            Error::from(
                op_dbus_engine::Error::new(
                    op_dbus_engine::ErrorKind::Corrupt,
                    format!("the payload of {key} is not JSON"),
                )
                .with_source(error),
            )
        })?),
        // Only a program that links the engine can have put bytes; JSON has no place for them.
        Payload::Bytes(_) => None,
    };
    Ok(HitJson { collection: hit.collection, key, score: hit.score, text: hit.text, payload })
}

fn display_key(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}
