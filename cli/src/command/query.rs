//! `op-dbus query`: find by meaning.

use std::collections::HashMap;
use std::io::Write;
use std::time::{Duration, Instant};

use op_dbus_daemon::{Explained, OptionValue, QueryProxy, find};
use op_dbus_engine::{
    Answer, CollectionExplain, Error as EngineError, ErrorKind, Explain, Filter, FilterPlan, Hit,
    Payload, Plan, Query,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::args;
use crate::client::Client;
use crate::config::{Config, Source};
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::output::{Output, columns, duration, grouped, one_line};

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

pub(super) fn run(config: &Config, output: &Output, arguments: args::Query) -> Result<Exit> {
    // Said here whether or not a service runs, and before anything is opened.
    let filter = arguments.filter.as_deref().map(parse_filter).transpose()?;
    let (answer, took) = match config.open_or_ask(&arguments.at)? {
        Source::Store(store) => {
            let started = Instant::now();
            let answer = find(&store, &engine_query(&arguments, filter))?;
            let took = started.elapsed();
            store.close();
            (answer, took)
        }
        Source::Service(client) => ask(&client, &arguments)?,
    };
    let found = if answer.hits.is_empty() { Exit::NothingFound } else { Exit::Success };
    let Answer { hits, explain } = answer;
    if output.is_json() {
        let hits = hits.into_iter().map(hit_json).collect::<Result<_>>()?;
        let explain = arguments.explain.then(|| Explained::from(&explain));
        output.json(&AnswerJson { hits, took_us: took.as_micros() as u64, explain })?;
    } else {
        output.text(|out| render(out, &hits))?;
        if arguments.explain {
            output.text(|out| render_explain(out, &explain))?;
        }
        output.note(&summary(&explain, took));
    }
    Ok(found)
}

pub(super) fn parse_filter(filter: &str) -> Result<Filter> {
    filter.parse().map_err(|error| Error::Filter { filter: filter.to_owned(), error })
}

pub(super) fn engine_query(arguments: &args::Query, filter: Option<Filter>) -> Query {
    let mut query = Query::text(&arguments.text).limit(arguments.limit).recall(arguments.recall);
    if arguments.exact {
        query = query.exact();
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
fn ask(client: &Client, arguments: &args::Query) -> Result<(Answer, Duration)> {
    let options = service_options(arguments);
    let text = arguments.text.clone();
    let started = Instant::now();
    let (hits, explain) =
        client.ask(QueryProxy::new, async |service| service.explain(text, options).await)?;
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

/// A key as wide as this leaves room for its text on the same line.
const KEY_COLUMNS_MAX: usize = 32;

/// Writes a line for each hit; two where a terminal is too narrow for long keys and text.
fn render(out: &mut dyn Write, hits: &[Hit]) -> std::io::Result<()> {
    let keys: Vec<String> =
        hits.iter().map(|hit| one_line(&display_key(&hit.key), usize::MAX)).collect();
    let width = keys.iter().map(|key| console::measure_text_width(key)).max().unwrap_or(0);
    let columns = columns();
    for (hit, key) in hits.iter().zip(keys) {
        if let Some(member) = Member::of(hit) {
            member.render(out, hit.score)?;
            continue;
        }
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

/// What is shown of a member of a D-Bus interface.
#[derive(Deserialize)]
struct Member {
    kind: String,
    interface: String,
    member: String,
    signature: String,
    #[serde(default)]
    returns: String,
    risk: Option<String>,
    documentation: Option<String>,
    example: String,
}

impl Member {
    /// `None` of any other record.
    fn of(hit: &Hit) -> Option<Self> {
        let Payload::Json(json) = &hit.payload else { return None };
        serde_json::from_str(json).ok()
    }

    /// Writes what it is, what it does, and how it is used, each on a line.
    fn render(&self, out: &mut dyn Write, score: f32) -> std::io::Result<()> {
        let Self { kind, interface, member, signature, .. } = self;
        let types = match kind.as_str() {
            "method" => format!("({signature}) -> ({})", self.returns),
            "signal" => format!("({signature})"),
            _ => format!(" {signature}"),
        };
        let what = match &self.risk {
            Some(risk) => format!("{kind}, {risk}"),
            None => kind.clone(),
        };
        let room = columns().saturating_sub(8);
        let types = types.trim_end_matches(" -> ()");
        writeln!(out, "{score:>6.3}  {}", one_line(&format!("{interface}.{member}{types}"), room))?;
        let about = self.documentation.as_deref().unwrap_or_default();
        writeln!(out, "        {}", one_line(&format!("[{what}] {about}"), room))?;
        writeln!(out, "        {}", one_line(&self.example, usize::MAX))
    }
}

fn summary(explain: &Explain, took: Duration) -> String {
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
        render_filter(out, done)?;
    }
    Ok(())
}

fn render_filter(out: &mut dyn Write, done: &CollectionExplain) -> std::io::Result<()> {
    let Some(filter) = done.filter else { return Ok(()) };
    let how = match filter.plan {
        FilterPlan::Met => "as the search met them",
        FilterPlan::All => "all of the collection before the search",
    };
    let [tested, passed] = [filter.tested, filter.passed].map(grouped);
    writeln!(out, "  the filter was asked about {tested} records, {how}; {passed} passed")
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
