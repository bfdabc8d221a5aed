//! `op-dbus collection`: collections as a whole.

use std::time::Instant;

use op_dbus_engine::{
    CollectionOptions, CollectionStats, Error as EngineError, ErrorKind, Reembedded,
};
use serde::Serialize;
use serde_json::json;

use super::cache::warn_of_truncation;
use super::stats::render_collections;
use crate::args::{At, Collection, CollectionCreate, CollectionDrop, CollectionNamed, Reembed};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::interrupt;
use crate::output::{Output, bytes, duration, grouped, utc};
use crate::progress::Progress;

#[derive(Serialize)]
struct ReembeddedJson<'a> {
    collection: &'a str,
    model: String,
    #[serde(flatten)]
    report: Reembedded,
    took_ms: u64,
}

pub(super) fn run(config: &Config, output: &Output, command: Collection) -> Result<Exit> {
    match command {
        Collection::List => list(config, output),
        Collection::Show(arguments) => show(config, output, &arguments),
        Collection::Create(arguments) => create(config, output, &arguments),
        Collection::Drop(arguments) => drop_one(config, output, &arguments),
        Collection::Reembed(arguments) => reembed(config, output, &arguments),
    }
}

fn collections(config: &Config) -> Result<Vec<CollectionStats>> {
    let source = config.open_or_ask(&At::default())?;
    let (stats, _) = source.stats()?;
    source.close();
    Ok(stats.collections)
}

fn list(config: &Config, output: &Output) -> Result<Exit> {
    let collections = collections(config)?;
    output.answer(&json!({ "collections": collections }), |out| {
        render_collections(out, "", &collections)
    })?;
    Ok(if collections.is_empty() { Exit::NothingFound } else { Exit::Success })
}

fn show(config: &Config, output: &Output, arguments: &CollectionNamed) -> Result<Exit> {
    let collections = collections(config)?;
    let name = &arguments.collection;
    let Some(shown) = collections.iter().find(|known| known.name == *name) else {
        let names: Vec<&str> = collections.iter().map(|known| &known.name[..]).collect();
        let remedy = match &names[..] {
            [] => "the store is empty: put something into it first".to_owned(),
            names => format!("there are: {}", names.join(", ")),
        };
        let error = EngineError::new(ErrorKind::NotFound, format!("there is no collection {name}"));
        return Err(error.with_remedy(remedy).into());
    };
    output.answer(shown, |out| {
        writeln!(out, "collection   {name}")?;
        writeln!(out, "records      {}", grouped(shown.records))?;
        match (shown.dimensions, &shown.model) {
            (0, _) => writeln!(out, "vectors      none yet: documents")?,
            (dimensions, Some(model)) => {
                writeln!(out, "vectors      {dimensions} dimensions, of texts by model {model}")?;
            }
            (dimensions, None) => {
                writeln!(
                    out,
                    "vectors      {dimensions} dimensions, given, as {}",
                    shown.encoding
                )?;
            }
        }
        writeln!(out, "nearness     {}", shown.metric)?;
        match shown.versions_kept {
            0 => writeln!(out, "versions     none kept")?,
            count => writeln!(out, "versions     the last {count} of each record")?,
        }
        match shown.graph {
            Some(graph) => {
                let (vectors, size) = (grouped(graph.vectors), bytes(graph.bytes));
                writeln!(out, "graph        {vectors} vectors linked, {size}")?;
            }
            None => writeln!(out, "graph        none")?,
        }
        writeln!(out, "created      {}", utc(shown.created_unix_ms))
    })?;
    Ok(Exit::Success)
}

fn create(config: &Config, output: &Output, arguments: &CollectionCreate) -> Result<Exit> {
    let name = &arguments.collection;
    let options = match arguments.dimensions {
        Some(dimensions) => CollectionOptions::Given {
            dimensions,
            metric: arguments.metric,
            encoding: arguments.encoding,
        },
        None if arguments.of_model => CollectionOptions::OfModel,
        None => CollectionOptions::Documents,
    };
    let store = config.open_or_create()?;
    let is_there = store.collections().iter().any(|known| known.name == *name);
    match arguments.versions {
        None => store.create_collection(name, options)?,
        Some(versions) => store.create_collection_with_versions(name, options, versions)?,
    }
    store.close();
    output.answer(&json!({ "collection": name, "created": !is_there }), |out| {
        writeln!(out, "{name}: {}", if is_there { "it is there already" } else { "created" })
    })?;
    Ok(Exit::Success)
}

fn drop_one(config: &Config, output: &Output, arguments: &CollectionDrop) -> Result<Exit> {
    let name = &arguments.collection;
    if !arguments.confirm {
        return Err(Error::Usage {
            problem: format!("to drop {name} removes all its records and their versions, for good"),
            remedy: Some(
                "add --confirm; op-dbus snapshot create --keep keeps what there is now".to_owned(),
            ),
        });
    }
    interrupt::catch();
    let store = config.open()?;
    let mut progress: Option<(Progress, u64)> = None;
    let dropped = store.drop_collection(name, &mut |removed| {
        let (bar, before) = progress.get_or_insert_with(|| {
            let bar = Progress::start(None);
            bar.say(format!("removing the records of {name}"));
            (bar, 0)
        });
        bar.advance(removed - *before);
        *before = removed;
        match interrupt::is_requested() {
            true => Err(EngineError::new(ErrorKind::Busy, "ended by a signal")),
            false => Ok(()),
        }
    });
    let removed = progress.take().map_or(0, |(_, removed)| removed);
    store.close();
    match dropped {
        Err(_) if interrupt::is_requested() => {
            let removed = grouped(removed);
            output.note(&format!(
                "{name}: {removed} records are removed; the same command goes on from there"
            ));
            Ok(Exit::Interrupted)
        }
        dropped => {
            let records = dropped?;
            output.answer(&json!({ "collection": name, "records": records }), |out| {
                writeln!(out, "{name}: dropped with {} records", grouped(records))
            })?;
            Ok(Exit::Success)
        }
    }
}

fn reembed(config: &Config, output: &Output, arguments: &Reembed) -> Result<Exit> {
    interrupt::catch();
    let store = config.open()?;
    let name = &arguments.collection;
    let started = Instant::now();
    let mut progress: Option<Progress> = None;
    let (mut done_count, mut all_count) = (0, 0);
    let mut tell = |done: u64, all: u64| {
        let bar = progress.get_or_insert_with(|| {
            let bar = Progress::start(Some(all));
            bar.say(format!("embedding {name} anew"));
            bar
        });
        bar.advance(done - done_count);
        (done_count, all_count) = (done, all);
        match interrupt::is_requested() {
            true => Err(EngineError::new(ErrorKind::Busy, "ended by a signal")),
            false => Ok(()),
        }
    };
    let reembedded = store.reembed(name, &mut tell);
    drop(progress);
    let report = match reembedded {
        Err(_) if interrupt::is_requested() => {
            let [done, all] = [done_count, all_count].map(grouped);
            output.note(&format!(
                "{name}: {done} of {all} texts are embedded and nothing is changed yet; the same \
                 command goes on from there"
            ));
            store.close();
            return Ok(Exit::Interrupted);
        }
        reembedded => reembedded?,
    };
    let embedder = store.embedder()?;
    let took = started.elapsed();
    let model = embedder.fingerprint().to_string();
    let answer =
        ReembeddedJson { collection: name, model, report, took_ms: took.as_millis() as u64 };
    output.answer(&answer, |out| {
        let model = embedder.name();
        if report.texts == 0 {
            return writeln!(out, "{name}: it is embedded by {model} already");
        }
        let (texts, dimensions) = (grouped(report.texts), report.dimensions);
        writeln!(
            out,
            "{name}: {texts} texts embedded by {model}, {dimensions} dimensions, in {}",
            duration(took)
        )
    })?;
    warn_of_truncation(output, report.truncated);
    if report.had_graph {
        output.note(&format!(
            "{name}: its graph was of the old vectors; op-dbus link {name} makes another"
        ));
    }
    store.close();
    Ok(Exit::Success)
}
