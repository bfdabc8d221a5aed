//! `op-dbus stats`: what the store holds and has done, once or again and again.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use op_dbus_daemon::Traffic;
use op_dbus_engine::{CollectionStats, RecallStats, Stats};
use serde::Serialize;

use super::cache::render_stats;
use super::numa;
use crate::args;
use crate::config::Config;
use crate::error::Result;
use crate::exit::Exit;
use crate::feed::{Feed, POLL};
use crate::interrupt;
use crate::output::{Output, bytes, duration, grouped, growing, per_second, seconds};
use crate::rates::{Rates, Reading};
use crate::screen::Screen;
use crate::source::Source;

/// Counting may take this part of the time of a watch at most.
const COUNTING_PART: u32 = 10;

/// What is shown.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    stats: Stats,
    /// Calls of the service, if that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    bus: Option<Traffic>,
    /// Of a watch, from the second time on.
    #[serde(skip_serializing_if = "Option::is_none")]
    rates: Option<Option<Rates>>,
}

pub(super) fn run(config: &Config, output: &Output, arguments: &args::Stats) -> Result<Exit> {
    if arguments.watch.is_some() {
        interrupt::note();
    }
    let source = config.open_or_ask(&arguments.at)?;
    if let Some(period) = arguments.watch {
        return watch(source, output, period);
    }
    let (stats, bus) = source.stats()?;
    let shown = Shown { stats, bus, rates: None };
    output.answer(&shown, |out| render(out, &shown))?;
    source.close();
    Ok(Exit::Success)
}

fn watch(source: Source, output: &Output, period: Duration) -> Result<Exit> {
    let mut counted = Counted::default();
    let feed = Feed::start(source, move |source| counted.measure(source))?;
    let is_in_place = !output.is_json() && std::io::stdout().is_terminal();
    // Not before there is something to show: an error stands where the command was given.
    let (mut screen, mut before) = (None, None);
    while let Some((stats, now)) = feed.next()? {
        let bus = now.traffic;
        let rates = before.as_ref().map(|before| Rates::between(before, &now));
        let due = now.taken + period;
        before = Some(now);
        let shown = Shown { stats, bus, rates: Some(rates) };
        if is_in_place {
            let screen = match &mut screen {
                Some(screen) => screen,
                None => screen.insert(Screen::enter()?),
            };
            let mut text = Vec::new();
            // Memory takes all that is written to it.
            let _ = render(&mut text, &shown);
            let last = format!("every {}; Ctrl-C ends it", seconds(period));
            screen.show(&String::from_utf8_lossy(&text), &last)?;
        } else {
            output.answer(&shown, |out| {
                render(out, &shown)?;
                // One block from the next.
                writeln!(out)
            })?;
        }
        while Instant::now() < due && !interrupt::is_requested() {
            std::thread::sleep(POLL.min(due.saturating_duration_since(Instant::now())));
        }
    }
    drop(screen);
    Ok(Exit::Success)
}

/// The figures with what was counted last, which is not counted every time.
#[derive(Default)]
struct Counted {
    stats: Option<Stats>,
    due: Option<Instant>,
}

impl Counted {
    fn measure(&mut self, source: &Source) -> Result<(Stats, Reading)> {
        let begun = Instant::now();
        let known = self.stats.take().filter(|_| self.due.is_some_and(|due| begun < due));
        let mut stats = match known {
            Some(stats) => stats,
            None => {
                let (stats, _) = source.stats()?;
                let ended = Instant::now();
                self.due = Some(ended + (ended - begun) * (COUNTING_PART - 1));
                stats
            }
        };
        let (activity, traffic) = source.activity()?;
        stats.refresh(activity.clone());
        self.stats = Some(stats.clone());
        Ok((stats, Reading { activity, traffic, taken: Instant::now() }))
    }
}

fn render(out: &mut dyn Write, shown: &Shown) -> std::io::Result<()> {
    let Shown { stats, bus, rates } = shown;
    let rates = rates.as_ref().and_then(Option::as_ref);
    let counted = |count: u64, rate: fn(&Rates) -> f64| growing(count, rates.map(rate));
    writeln!(out, "store            {}", stats.store)?;
    writeln!(out, "sequence         {}", counted(stats.sequence, |rates| rates.changes))?;
    writeln!(out, "on disk          {}", bytes(stats.bytes_disk))?;
    writeln!(out, "in memory        {}", bytes(stats.bytes_memory))?;
    let why = match (stats.memory.configured_bytes, stats.memory.cgroup_bytes) {
        (_, Some(limit)) if limit == stats.memory.effective_bytes => {
            "70 % of the control group's limit"
        }
        (Some(_), _) => "as configured",
        (None, _) => "a quarter of the machine's memory",
    };
    writeln!(out, "memory cap       {}, {why}", bytes(stats.memory.effective_bytes))?;
    let answered = counted(stats.queries.count, |rates| rates.queries);
    let took = latencies(stats.queries.p50_us, stats.queries.p99_us);
    writeln!(out, "queries          {answered}{took}")?;
    if let Some(traffic) = bus {
        render_traffic(out, traffic, rates)?;
    }
    writeln!(out, "\ncollections")?;
    render_collections(out, "  ", &stats.collections)?;
    writeln!(out, "\nembedding cache")?;
    render_stats(out, "  ", &stats.cache, rates)?;
    numa::render(out, &stats.numa)
}

fn latencies(p50_us: Option<u64>, p99_us: Option<u64>) -> String {
    let (Some(p50), Some(p99)) = (p50_us, p99_us) else { return String::new() };
    let shown = |micros| duration(Duration::from_micros(micros));
    format!(", half in {}, 99 % in {}", shown(p50), shown(p99))
}

fn render_traffic(
    out: &mut dyn Write,
    traffic: &Traffic,
    rates: Option<&Rates>,
) -> std::io::Result<()> {
    let Traffic { answered, refused, seconds } = *traffic;
    let mean =
        |count: u64| format!(", {} since it began", per_second(count as f64 / seconds.max(1.0)));
    let counted = |count: u64, rate: fn(&Rates) -> Option<f64>| match rates.and_then(rate) {
        Some(rate) => growing(count, Some(rate)),
        None => grouped(count) + &mean(count),
    };
    writeln!(out, "calls answered   {}", counted(answered, |rates| rates.answered))?;
    writeln!(out, "calls refused    {}", counted(refused, |rates| rates.refused))
}

/// What audits have found out about a graph.
fn render_recall(
    out: &mut dyn Write,
    indent: &str,
    width: usize,
    recall: RecallStats,
) -> std::io::Result<()> {
    let found = recall.recall().map_or("-".to_owned(), |recall| format!("{recall:.4}"));
    let dropped = match recall.dropped_full + recall.dropped_changed {
        0 => String::new(),
        dropped => format!(", {} dropped", grouped(dropped)),
    };
    let audited = grouped(recall.audited);
    writeln!(out, "{indent}{:width$}  {found:>11} recall   {audited} queries audited{dropped}", "")
}

/// Writes a line for each collection, and more for its graph, that begin with `indent`.
pub(super) fn render_collections(
    out: &mut dyn Write,
    indent: &str,
    collections: &[CollectionStats],
) -> std::io::Result<()> {
    let width = collections.iter().map(|known| known.name.len()).max().unwrap_or(0);
    for collection in collections {
        let model = match &collection.model {
            Some(model) => format!("model {}", &model[..8.min(model.len())]),
            None => format!("vectors given, as {}", collection.encoding),
        };
        let space = match collection.dimensions {
            0 => "documents without vectors".to_owned(),
            dimensions => format!("{dimensions:>5} dimensions  {}  {model}", collection.metric),
        };
        writeln!(
            out,
            "{indent}{:width$}  {:>11} records  {space}",
            collection.name,
            grouped(collection.records),
        )?;
        if let Some(graph) = collection.graph {
            let (count, bytes) = (grouped(graph.vectors), bytes(graph.bytes));
            writeln!(out, "{indent}{:width$}  {count:>11} linked   {bytes}", "")?;
        }
        if let Some(recall) = collection.recall {
            render_recall(out, indent, width, recall)?;
        }
        if let Some(words) = collection.words {
            let (count, bytes) = (grouped(words.records), bytes(words.bytes));
            writeln!(out, "  {:width$}  {count:>11} by words {bytes}", "")?;
        }
    }
    Ok(())
}
