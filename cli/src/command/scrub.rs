//! `op-dbus scrub`: read everything, say what is damaged.

use std::io::Write;
use std::ops::ControlFlow;
use std::time::Instant;

use op_dbus_engine::{ErrorKind, Fault, ScrubOptions, ScrubReport};
use serde_json::{Value, json};

use crate::args;
use crate::config::Config;
use crate::error::Result;
use crate::exit::Exit;
use crate::interrupt;
use crate::output::{Output, bytes, duration, grouped, one_line};
use crate::progress::Progress;

pub(super) fn run(config: &Config, output: &Output, arguments: &args::Scrub) -> Result<Exit> {
    let store = config.open()?;
    let options = ScrubOptions { rate_bytes_per_second: arguments.rate, resume: arguments.resume };
    interrupt::catch();
    let started = Instant::now();
    let progress = Progress::start_bytes();
    let mut shown_bytes = None;
    let report = store.scrub(&options, &mut |now| {
        // What was read before this run is not part of its rate.
        let before = shown_bytes.replace(now.bytes_read).unwrap_or(now.bytes_read);
        progress.say(match now.faults_count {
            0 => now.part.to_owned(),
            count => format!("{}, {} faults so far", now.part, grouped(count)),
        });
        progress.advance(now.bytes_read - before);
        match interrupt::is_requested() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    drop(progress);
    let report = report?;
    if arguments.resume && !report.resumed {
        output.note("no scrub was broken off; this one began at the start");
    }
    output.answer(&report_json(&report), |out| render(out, &report))?;
    output.note(&format!("read {} in {}", bytes(report.bytes_read), duration(started.elapsed())));
    let path = store.path().display().to_string();
    store.close();
    if !report.finished {
        output.note("interrupted: op-dbus scrub --resume goes on from there");
        return Ok(Exit::Interrupted);
    }
    match report.unrepaired_count {
        0 => Ok(Exit::Success),
        count => Err(op_dbus_engine::Error::new(
            ErrorKind::Corrupt,
            format!("{} faults in {path} were not repaired", grouped(count)),
        )
        .with_remedy("do what is said about each; export what can still be read first")
        .into()),
    }
}

fn render(out: &mut dyn Write, report: &ScrubReport) -> std::io::Result<()> {
    for fault in &report.faults {
        render_fault(out, fault)?;
    }
    let unlisted = report.faults_count - report.faults.len() as u64;
    if unlisted > 0 {
        writeln!(out, "and {} more", grouped(unlisted))?;
    }
    let verdict = match (report.faults_count, report.unrepaired_count) {
        (0, _) => "no fault".to_owned(),
        (faults, 0) => format!("{} faults, all repaired", grouped(faults)),
        (faults, unrepaired) => {
            format!("{} faults, {} not repaired", grouped(faults), grouped(unrepaired))
        }
    };
    writeln!(
        out,
        "{verdict}: {} records, {} embeddings, {} changes",
        grouped(report.records),
        grouped(report.embeddings),
        grouped(report.changes),
    )
}

fn render_fault(out: &mut dyn Write, fault: &Fault) -> std::io::Result<()> {
    let mark = if fault.repaired { "repaired" } else { "damaged " };
    let offset = fault.offset.map_or(String::new(), |offset| format!(", byte {offset}"));
    writeln!(out, "{mark}  {}{offset}", fault.path.display())?;
    if let Some(collection) = &fault.collection {
        writeln!(out, "          collection {}", shown(collection))?;
    }
    if let Some(key) = &fault.key {
        writeln!(out, "          key {}", shown(&String::from_utf8_lossy(key)))?;
    }
    writeln!(out, "          {}", shown(&fault.what))?;
    writeln!(out, "          {}", fault.remedy)
}

fn shown(text: &str) -> String {
    one_line(text, usize::MAX)
}

fn report_json(report: &ScrubReport) -> Value {
    let fault = |fault: &Fault| {
        json!({
            "what": fault.what,
            "path": fault.path.to_string_lossy(),
            "offset": fault.offset,
            "collection": fault.collection,
            "key": fault.key.as_deref().map(String::from_utf8_lossy),
            "repaired": fault.repaired,
            "remedy": fault.remedy,
        })
    };
    json!({
        "finished": report.finished,
        "resumed": report.resumed,
        "bytes_read": report.bytes_read,
        "records": report.records,
        "embeddings": report.embeddings,
        "changes": report.changes,
        "faults_count": report.faults_count,
        "unrepaired_count": report.unrepaired_count,
        "faults": report.faults.iter().map(fault).collect::<Vec<_>>(),
    })
}
