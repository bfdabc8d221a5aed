//! `op-dbus collection`: collections as a whole.

use std::time::Instant;

use op_dbus_engine::{ErrorKind, Reembedded};
use serde::Serialize;

use super::cache::warn_of_truncation;
use crate::args::{Collection, Reembed};
use crate::config::Config;
use crate::error::Result;
use crate::exit::Exit;
use crate::interrupt;
use crate::output::{Output, duration, grouped};
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
        Collection::Reembed(arguments) => reembed(config, output, &arguments),
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
            true => Err(op_dbus_engine::Error::new(ErrorKind::Busy, "ended by a signal")),
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
