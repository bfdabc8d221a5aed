//! `op-dbus cache trace`: recording which vectors are asked for.

use serde_json::json;

use crate::args::CacheTrace;
use crate::config::Config;
use crate::error::Result;
use crate::exit::Exit;
use crate::output::{Output, bytes, grouped};

pub(super) fn run(config: &Config, output: &Output, command: &CacheTrace) -> Result<Exit> {
    match command {
        CacheTrace::Start => start(config, output),
        CacheTrace::Stop => stop(config, output),
    }
}

fn start(config: &Config, output: &Output) -> Result<Exit> {
    let store = config.open_or_create()?;
    let path = store.start_trace()?.display().to_string();
    store.close();
    output.answer(&json!({ "trace": path }), |out| writeln!(out, "recording to {path}"))?;
    output.note("op-dbus cache trace stop ends it");
    Ok(Exit::Success)
}

fn stop(config: &Config, output: &Output) -> Result<Exit> {
    let store = config.open()?;
    let report = store.stop_trace()?;
    store.close();
    let path = report.path.display().to_string();
    let answer = json!({
        "trace": path,
        "accesses": report.accesses,
        "bytes": report.len_bytes,
        "started_unix_ms": report.started_unix_ms,
        "full": report.full,
        "unfinished_bytes": report.unfinished_bytes,
    });
    output.answer(&answer, |out| {
        writeln!(out, "trace     {path}")?;
        writeln!(out, "accesses  {}", grouped(report.accesses))?;
        writeln!(out, "length    {}", bytes(report.len_bytes))
    })?;
    if report.full {
        output
            .note("the trace reached its limit and ended by itself; what came later is not in it");
    }
    note_unfinished(output, report.unfinished_bytes);
    output.note("op-dbus cache simulate --trace FILE compares policies on it");
    Ok(Exit::Success)
}

/// Says that the end of a trace does not count.
pub(super) fn note_unfinished(output: &Output, unfinished_bytes: u64) {
    if unfinished_bytes > 0 {
        output.note(&format!(
            "the last {} of the trace are unfinished or damaged and do not count",
            bytes(unfinished_bytes)
        ));
    }
}
