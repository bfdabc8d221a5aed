//! `op-dbus query`: find by meaning.

mod render;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use op_dbus_daemon::vector::Vectors;
use op_dbus_daemon::{Explained, OptionValue, QueryProxy, find};
use op_dbus_engine::{
    Answer, Error as EngineError, ErrorKind, Explain, Filter, Hit, Payload, Query,
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::cache::read_vector;
use crate::args::{self, AnswerFormat};
use crate::client::Client;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::output::Output;
use crate::source::Source;
use render::{render, render_explain, render_table, summary};

#[derive(Serialize)]
struct AnswerJson {
    hits: Vec<HitJson>,
    took_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    explain: Option<Explained>,
}

#[derive(Serialize)]
pub(super) struct HitJson {
    collection: String,
    key: String,
    score: f32,
    text: Option<String>,
    payload: Option<Box<RawValue>>,
}

/// What others are to be near to.
pub(super) enum Target {
    Text(String),
    Vector(Vec<f32>),
    /// By collection and key.
    Record(String, String),
}

pub(super) fn run(config: &Config, output: &Output, arguments: args::Query) -> Result<Exit> {
    if arguments.explain && arguments.format == AnswerFormat::Jsonl {
        return Err(Error::Usage {
            problem: "--format jsonl has a line for each record, and none for --explain".to_owned(),
            remedy: Some("use --format json".to_owned()),
        });
    }
    // Said here whether or not a service runs, and before anything is opened.
    let filter = arguments.filter.as_deref().map(parse_filter).transpose()?;
    let vector = arguments.vector.as_deref().map(read_vector).transpose()?;
    let source = config.open_or_ask(&arguments.at)?;
    let target = match (&arguments.text, vector) {
        (_, Some(vector)) => Target::Vector(vector),
        (Some(text), _) => Target::Text(text.clone()),
        (None, None) => record(&source, &arguments)?,
    };
    let (answer, took) = match &source {
        Source::Store(store) => {
            let started = Instant::now();
            let answer = find(store, &engine_query(&arguments, target, filter))?;
            (answer, started.elapsed())
        }
        Source::Service(client) => ask(client, &arguments, target)?,
    };
    let written = write(output, &arguments, answer, took);
    // After the answer, which nobody should wait for longer than it takes.
    source.close();
    written
}

/// Finds the record that others are to be like: in one of the collections that are searched.
fn record(source: &Source, arguments: &args::Query) -> Result<Target> {
    let key = arguments.like.clone().unwrap_or_default();
    let names = match &arguments.collection[..] {
        [] => source.collection_names()?,
        named => named.to_vec(),
    };
    let mut found = Vec::new();
    for name in &names {
        if source.get(name, &key)?.is_some() {
            found.push(name.clone());
        }
    }
    let error = |kind, problem: String, remedy: &str| {
        Err(EngineError::new(kind, problem).with_remedy(remedy.to_owned()).into())
    };
    match &found[..] {
        [collection] => Ok(Target::Record(collection.clone(), key)),
        [] => {
            let problem = format!("no record has the key {key} in {}", names.join(", "));
            error(ErrorKind::NotFound, problem, "op-dbus query TEXT finds keys")
        }
        several => {
            let problem = format!("the key {key} is in {}", several.join(", "));
            error(ErrorKind::Invalid, problem, "name one of them with --collection")
        }
    }
}

/// Writes what was found, and says whether there was anything.
fn write(output: &Output, arguments: &args::Query, answer: Answer, took: Duration) -> Result<Exit> {
    let found = if answer.hits.is_empty() { Exit::NothingFound } else { Exit::Success };
    let Answer { hits, explain } = answer;
    let format = match arguments.format {
        AnswerFormat::Text if output.is_json() => AnswerFormat::Json,
        format => format,
    };
    match format {
        AnswerFormat::Json => {
            let hits = hits.into_iter().map(hit_json).collect::<Result<_>>()?;
            let explain = arguments.explain.then(|| Explained::from(&explain));
            output.json(&AnswerJson { hits, took_us: took.as_micros() as u64, explain })?;
            return Ok(found);
        }
        AnswerFormat::Jsonl => {
            hits.into_iter().try_for_each(|hit| output.json(&hit_json(hit)?))?;
            return Ok(found);
        }
        AnswerFormat::Text => output.text(|out| render(out, &hits))?,
        AnswerFormat::Table => output.text(|out| render_table(out, &hits))?,
    }
    if arguments.explain {
        output.text(|out| render_explain(out, &explain))?;
    }
    output.note(&summary(&explain, took));
    Ok(found)
}

pub(super) fn parse_filter(filter: &str) -> Result<Filter> {
    filter.parse().map_err(|error| Error::Filter { filter: filter.to_owned(), error })
}

pub(super) fn engine_query(
    arguments: &args::Query,
    target: Target,
    filter: Option<Filter>,
) -> Query {
    let query = match target {
        Target::Text(text) => Query::text(text),
        Target::Vector(vector) => Query::vector(vector),
        Target::Record(collection, key) => Query::like(collection, key),
    };
    let mut query = query.limit(arguments.limit).recall(arguments.recall);
    if arguments.exact {
        query = query.exact();
    }
    if arguments.keyword {
        query = query.keyword();
    }
    for collection in &arguments.collection {
        query = query.collection(collection);
    }
    if let Some(filter) = filter {
        query = query.filter(filter);
    }
    match arguments.min_score {
        Some(score) => query.min_score(score),
        None => query,
    }
}

/// Asks the service, whose answer is the same.
fn ask(client: &Client, arguments: &args::Query, target: Target) -> Result<(Answer, Duration)> {
    let options = service_options(arguments);
    let target = match target {
        Target::Text(text) => Vectors::OfText(text),
        Target::Vector(vector) => Vectors::new(&vector).map_err(EngineError::from)?,
        Target::Record(collection, key) => Vectors::OfRecord(collection, key),
    };
    let started = Instant::now();
    let (hits, explain) =
        client.ask(QueryProxy::builder, async |service| service.explain(target, options).await)?;
    let took = started.elapsed();
    Ok((answer(hits, &explain)?, took))
}

/// What the service has answered, as the engine says it.
pub(super) fn answer(hits: Vec<op_dbus_daemon::Hit>, explain: &str) -> Result<Answer> {
    let hits = hits.into_iter().map(hit).collect();
    Ok(Answer { hits, explain: parse_explain(explain)? })
}

/// The options by which the service is asked the same.
pub(super) fn service_options(arguments: &args::Query) -> HashMap<String, OptionValue> {
    let mut options = options(arguments.limit, &arguments.collection);
    add(&mut options, "recall", arguments.recall.into());
    add(&mut options, "exact", arguments.exact.into());
    if arguments.keyword {
        add(&mut options, "keyword", true.into());
    }
    if let Some(score) = arguments.min_score {
        add(&mut options, "min-score", f64::from(score).into());
    }
    if let Some(filter) = &arguments.filter {
        add(&mut options, "filter", filter.clone().into());
    }
    options
}

/// The options that every search has.
pub(super) fn options(limit: usize, collections: &[String]) -> HashMap<String, OptionValue> {
    let mut options = HashMap::new();
    add(&mut options, "limit", (limit as u32).into());
    if !collections.is_empty() {
        add(&mut options, "collections", collections.to_vec().into());
    }
    options
}

fn add(options: &mut HashMap<String, OptionValue>, name: &str, value: OptionValue) {
    options.insert(name.to_owned(), value);
}

fn hit((collection, key, score, text, payload): op_dbus_daemon::Hit) -> Hit {
    Hit {
        collection,
        key: key.into_bytes(),
        score: score as f32,
        text: Some(text).filter(|text| !text.is_empty()),
        payload: match payload.as_str() {
            "" => Payload::None,
            _ => Payload::Json(payload.into()),
        },
    }
}

fn parse_explain(json: &str) -> Result<Explain, EngineError> {
    let explained: Explained = serde_json::from_str(json).map_err(|error| {
        EngineError::new(ErrorKind::Unsupported, "the service explains in an unknown way")
            .with_source(error)
            .with_remedy("use the same version of op-dbus as the service")
    })?;
    Ok(explained.into())
}

pub(super) fn hit_json(hit: Hit) -> Result<HitJson> {
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
