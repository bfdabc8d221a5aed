//! `op-dbus journal`: who did what.

use std::collections::VecDeque;
use std::io::Write;

use op_dbus_daemon::{BusError, JournalProxy, QueryProxy};
use op_dbus_engine::{Error as Failure, ErrorKind, Query, Store};
use serde_json::{Value, json};

use crate::args::{At, Journal, JournalSearch, JournalShow, Noted};
use crate::client::Client;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::output::{Output, columns, one_line, utc};
use crate::source::Source;

/// Entries that are asked for at a time.
const PART_COUNT: u32 = 1000;
/// The collection that entries are found in by meaning.
const COLLECTION: &str = "journal";
/// Lines that are kept of its end.
const TAIL_LEN_MAX: usize = 200;

pub(super) fn run(config: &Config, output: &Output, command: Journal) -> Result<Exit> {
    let source = config.open_or_ask(&At { at: None })?;
    match command {
        Journal::Show(arguments) => show(&source, output, &arguments),
        Journal::Search(arguments) => search(&source, output, &arguments),
        Journal::Verify { noted } => verify(&source, output, &noted),
        Journal::Export => export(&source, output),
    }
}

fn show(source: &Source, output: &Output, arguments: &JournalShow) -> Result<Exit> {
    let length = length(source)?;
    let last = length.saturating_sub(u64::from(arguments.count)) + 1;
    let entries = entries(source, arguments.from.unwrap_or(last), arguments.count)?;
    output.answer(&json!({ "entries": entries, "length": length }), |out| {
        entries.iter().try_for_each(|entry| render(out, entry))
    })?;
    Ok(if entries.is_empty() { Exit::NothingFound } else { Exit::Success })
}

fn render(out: &mut dyn Write, entry: &Value) -> std::io::Result<()> {
    writeln!(out, "{}", one_line(&line(entry), columns()))
}

fn line(entry: &Value) -> String {
    let number = entry["number"].as_u64().unwrap_or_default();
    let time = utc(entry["written_at_unix_ms"].as_u64().unwrap_or_default());
    let kind = entry["kind"].as_str().unwrap_or_default();
    let action = entry["action"].as_str().unwrap_or_default();
    let who = match &entry["actor"] {
        Value::Null => "the service".to_owned(),
        actor => format!("user {}", actor["uid"]),
    };
    let of = entry["intent"].as_u64().map(|intent| format!(" of {intent}")).unwrap_or_default();
    format!("{number:>7}  {time}  {kind}{of}  {who}  {action}  {}", entry["details"])
}

/// The end of the journal, followed as it grows.
#[derive(Clone, Debug, Default)]
pub(super) struct Tail {
    /// As `journal show` has them.
    lines: VecDeque<String>,
    /// The number of the next entry, once some were read.
    next: Option<u64>,
    /// Why it is not read.
    refusal: Option<String>,
}

impl Tail {
    pub(super) fn lines(&self) -> &VecDeque<String> {
        &self.lines
    }

    pub(super) fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }

    /// Reads what came since the last time. Whoever may not read it is not refused again and again.
    pub(super) fn follow(&mut self, source: &Source) -> Result<()> {
        if self.refusal.is_some() {
            return Ok(());
        }
        let from = match self.next {
            Some(next) => next,
            None => length(source)?.saturating_sub(TAIL_LEN_MAX as u64) + 1,
        };
        let entries = match entries(source, from, PART_COUNT) {
            Err(Error::Engine(error)) if error.kind() == ErrorKind::Denied => {
                self.refusal = Some(error.to_string());
                return Ok(());
            }
            entries => entries?,
        };
        self.next = Some(from + entries.len() as u64);
        self.take(entries.iter().map(|entry| one_line(&line(entry), usize::MAX)));
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn refused(refusal: &str) -> Self {
        Self { refusal: Some(refusal.to_owned()), ..Self::default() }
    }

    pub(super) fn take(&mut self, lines: impl IntoIterator<Item = String>) {
        self.lines.extend(lines);
        let more = self.lines.len().saturating_sub(TAIL_LEN_MAX);
        self.lines.drain(..more);
    }
}

fn export(source: &Source, output: &Output) -> Result<Exit> {
    let mut from = 1;
    loop {
        let part = entries(source, from, PART_COUNT)?;
        if part.is_empty() {
            return Ok(Exit::Success);
        }
        from += part.len() as u64;
        output.text(|out| part.iter().try_for_each(|entry| writeln!(out, "{entry}")))?;
    }
}

fn verify(source: &Source, output: &Output, noted: &[Noted]) -> Result<Exit> {
    let (entries, hash) = match source {
        Source::Store(store) => {
            let head = store.verify_journal()?;
            (head.entries, head.hash)
        }
        Source::Service(client) => {
            client.ask(JournalProxy::builder, async |journal| journal.verify().await)?
        }
    };
    noted.iter().try_for_each(|noted| compare(source, noted))?;
    output.answer(&json!({ "entries": entries, "hash": hash, "noted": noted.len() }), |out| {
        let as_noted = if noted.is_empty() { "" } else { ", and as noted" };
        writeln!(out, "{entries} entries, whole{as_noted}; the last is\n{entries}:{hash}")
    })?;
    Ok(Exit::Success)
}

/// Refuses a journal whose entry is not what it was.
fn compare(source: &Source, noted: &Noted) -> Result<()> {
    let Noted { number, hash } = noted;
    let found = entries(source, *number, 1)?;
    let problem = match found.first() {
        Some(entry) if entry["hash"] == hash.as_str() => return Ok(()),
        Some(_) => format!("entry {number} of the journal is another than was noted"),
        None => format!("the journal ends before entry {number}, which was noted"),
    };
    let remedy = "it was written anew; compare it with a snapshot of the store";
    Err(Error::Engine(Failure::new(ErrorKind::Corrupt, problem).with_remedy(remedy)))
}

fn search(source: &Source, output: &Output, arguments: &JournalSearch) -> Result<Exit> {
    let found: Vec<(f64, String)> = match source {
        Source::Store(store) => found_in(store, arguments)?,
        Source::Service(client) => found_by(client, arguments)?,
    };
    let hits: Vec<Value> = found
        .iter()
        .filter_map(|(score, payload)| {
            let entry: Value = serde_json::from_str(payload).ok()?;
            Some(json!({ "score": score, "entry": entry }))
        })
        .collect();
    output.answer(&json!({ "hits": hits }), |out| {
        hits.iter().try_for_each(|hit| render(out, &hit["entry"]))
    })?;
    Ok(if hits.is_empty() { Exit::NothingFound } else { Exit::Success })
}

fn found_in(store: &Store, arguments: &JournalSearch) -> Result<Vec<(f64, String)>> {
    let query = Query::text(&arguments.text).collection(COLLECTION).limit(arguments.limit);
    let hits = store.search(&query)?.hits;
    let json = |hit: op_dbus_engine::Hit| match hit.payload {
        op_dbus_engine::Payload::Json(json) => Some((f64::from(hit.score), json.into_owned())),
        _ => None,
    };
    Ok(hits.into_iter().filter_map(json).collect())
}

fn found_by(client: &Client, arguments: &JournalSearch) -> Result<Vec<(f64, String)>> {
    let options = super::query::options(arguments.limit, &[COLLECTION.to_owned()]);
    let text = arguments.text.clone();
    let hits = client.ask(QueryProxy::builder, async |query| query.search(text, options).await)?;
    Ok(hits.into_iter().map(|(_, _, score, _, payload)| (score, payload)).collect())
}

fn length(source: &Source) -> Result<u64> {
    match source {
        Source::Store(store) => Ok(store.journal_len()),
        Source::Service(client) => client.ask(JournalProxy::builder, async |journal| {
            journal.length().await.map_err(BusError::from)
        }),
    }
}

fn entries(source: &Source, from: u64, count: u32) -> Result<Vec<Value>> {
    match source {
        Source::Store(store) => {
            let mut entries = Vec::new();
            if count > 0 {
                store.journal(from, |entry| {
                    entries.push(json!(entry));
                    entries.len() < count as usize
                })?;
            }
            Ok(entries)
        }
        Source::Service(client) => {
            let lines = client
                .ask(JournalProxy::builder, async |journal| journal.read(from, count).await)?;
            Ok(lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect())
        }
    }
}
