//! `op-dbus benchmark`: what this machine does with the engine, beside what else it could use.
//!
//! What is asked for is measured one after the other and comes to one [`Results`], whatever it was:
//! the tables, the page, `--json` and the comparison are all made of that.

mod collection;
mod compare;
mod embeddings;
mod figures;
mod hits;
mod made;
mod numa;
mod page;
mod plan;
mod results;
mod search;

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use op_dbus_engine::Error as EngineError;
use serde_json::json;
use tempfile::TempDir;

use self::compare::{Baseline, regressions_count};
use self::plan::Plan;
use self::results::{Machine, Measured, Results, VERSION};
use crate::args::Benchmark;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::interrupt;
use crate::output::Output;
use crate::progress::Progress;

pub(super) fn run(config: &Config, output: &Output, arguments: &Benchmark) -> Result<Exit> {
    if let Some(path) = &arguments.report {
        page::check_new(path)?;
    }
    let baseline = arguments.compare.as_deref().map(Baseline::read).transpose()?;
    interrupt::catch();
    let machine = Machine::here();
    let plan = Plan::make(config, arguments, baseline.as_ref())?;
    if let Some(baseline) = &baseline {
        baseline.check(&machine, &plan.sizes)?;
    }
    let work = Work::start(arguments.directory.clone());
    let Some(measured) = plan.measure(&work, config, arguments)? else {
        return Ok(Exit::Interrupted);
    };
    drop(work);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let not_measured = plan.not_measured(&measured);
    let results = Results {
        benchmark_version: VERSION,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        measured_at_unix_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        machine,
        sizes: plan.sizes,
        measured,
        not_measured,
    };
    if let Some(path) = &arguments.report {
        page::write(path, &results)?;
    }
    tell(output, arguments, &results, baseline.as_ref())
}

/// Shows what was found, or how it compares.
fn tell(
    output: &Output,
    arguments: &Benchmark,
    results: &Results,
    baseline: Option<&Baseline>,
) -> Result<Exit> {
    let Some(baseline) = baseline else {
        output.answer(results, |out| render(out, results))?;
        return Ok(Exit::Success);
    };
    let tolerance = arguments.tolerance;
    let changes = baseline.compare(results, tolerance);
    let answer = json!({
        "baseline": baseline.path(),
        "tolerance_percent": tolerance,
        "changes": changes,
        "results": results,
    });
    output.answer(&answer, |out| {
        compare::render(out, baseline, &changes, tolerance)?;
        figures::render_not_measured(out, results)
    })?;
    Ok(if regressions_count(&changes) > 0 { Exit::Regressed } else { Exit::Success })
}

/// One thing with all its rows, or several with what matters of each.
fn render(out: &mut dyn io::Write, results: &Results) -> io::Result<()> {
    let Measured { cache_hit, embeddings, numa_local, search, search_file } = &results.measured;
    match (&cache_hit[..], &embeddings[..], numa_local, search, search_file) {
        (rows, [], None, None, None) if !rows.is_empty() => hits::render(out, rows),
        ([], [part], None, None, None) => embeddings::render(out, part),
        ([], [], Some(report), None, None) => numa::render(out, report),
        ([], [], None, Some(part), None) => collection::render(out, part),
        ([], [], None, None, Some(part)) => search::render(out, part),
        _ => return figures::render(out, results),
    }?;
    figures::render_not_measured(out, results)
}

/// Where the work is done, and who hears of it.
struct Work {
    base: PathBuf,
    progress: Progress,
}

impl Work {
    fn start(directory: Option<PathBuf>) -> Self {
        let base = directory.unwrap_or_else(std::env::temp_dir);
        Self { base, progress: Progress::start(None) }
    }

    /// A directory that is removed when it goes out of scope, also after Ctrl-C.
    fn directory(&self, what: &str) -> Result<TempDir> {
        let prefix = format!("op-dbus-benchmark-{what}-");
        let made = tempfile::Builder::new().prefix(&prefix).tempdir_in(&self.base);
        made.map_err(|error| Error::io("measure in", &self.base, error))
    }

    /// Says what is being done.
    fn say(&self, doing: &str) {
        self.progress.say(doing);
    }

    /// The same, and an error if the user wants it to end.
    fn step(&self, doing: &str) -> io::Result<()> {
        self.say(doing);
        if interrupt::is_requested() { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    }
}

/// The directory that a file is in.
fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Writes a file that must not exist, whole or not at all.
fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |error| Error::io("write", path, error);
    // Who may read it is for the user's mask to say.
    let rights = std::fs::Permissions::from_mode(0o666);
    let mut file = tempfile::Builder::new()
        .permissions(rights)
        .tempfile_in(directory_of(path))
        .map_err(failed)?;
    io::Write::write_all(&mut file, bytes).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist_noclobber(path).map(drop).map_err(|refused| failed(refused.error))
}

/// What stands in the table for something that cannot be measured.
fn not_measured(what: &str, error: &EngineError) -> results::NotMeasured {
    results::NotMeasured {
        what: what.to_owned(),
        why: error.chain(),
        remedy: error.remedy().map(str::to_owned),
    }
}
