//! Which plots a result has: latencies down the tail, recall against throughput, and threads.

use op_dbus_benches::HitRow;
use op_dbus_benches::latency::Quantile;

use super::super::figures::{Unit, shown};
use super::super::results::{Measured, Results, Searches};
use super::plot::{Axis, Line, Plot, Scale};
use crate::output::grouped;

/// The plots that there is something for, each with what one should know about it.
pub(super) fn of(results: &Results) -> Vec<(Plot, String)> {
    let measured = &results.measured;
    let mut plots = vec![hit_latencies(measured)];
    plots.extend(measured.embeddings.iter().map(|part| {
        let mut lines: Vec<Line> = part
            .rows
            .iter()
            .enumerate()
            .map(|(number, row)| {
                tail(format!("{:.0} tokens", row.tokens), &row.quantiles, number + 1)
            })
            .collect();
        lines.push(tail("cached text".to_owned(), &part.cached.quantiles, 0));
        let title = format!("Embedding a text: {} on {}", part.model, part.provider);
        let texts = part.rows.first().map_or(0, |row| row.texts);
        (latencies(title, lines), format!("{texts} texts of each length, one after the other"))
    }));
    plots.push(search_latencies(measured));
    plots.extend(measured.search.iter().map(recall_of_collection));
    plots.push(recall_of_file(measured));
    plots.push(threads_of_hits(measured));
    plots.extend(measured.search.iter().map(threads_of_searches));
    plots.retain(|(plot, _)| !plot.is_empty());
    plots
}

fn time(ns: f64) -> String {
    // Ticks are round: what follows the point says nothing.
    let text = shown(Unit::Time, ns);
    text.replace(".00 ", " ").replace(".0 ", " ")
}

fn rate(value: f64) -> String {
    // Three digits are more than can be seen.
    let digits = |value: f64| (value * 100.0).round() / 100.0;
    match value {
        value if value >= 1e6 => format!("{} M", digits(value / 1e6)),
        value if value >= 1e3 => format!("{} k", digits(value / 1e3)),
        value => format!("{}", digits(value)),
    }
}

fn percent(value: f64) -> String {
    format!("{value} %")
}

fn count(value: f64) -> String {
    grouped(value.round() as u64)
}

fn tail(name: String, quantiles: &[Quantile], number: usize) -> Line {
    // What the clock cannot tell from nothing has no place among decades.
    let points = quantiles.iter().map(|quantile| (quantile.percent, quantile.ns.max(1.0)));
    Line { name, points: points.collect(), number, is_ideal: false }
}

fn latencies(title: String, lines: Vec<Line>) -> Plot {
    let axis =
        |title: &str, scale, show| Axis { title: title.to_owned(), scale, show, ticks: vec![] };
    Plot {
        title,
        x: axis("so many took no longer", Scale::Tail, percent),
        y: axis("time", Scale::Log, time),
        lines,
    }
}

/// The rows of the first number of keys.
fn first_keys(rows: &[HitRow]) -> impl Iterator<Item = &HitRow> {
    let keys = rows.first().map(|row| row.keys);
    rows.iter().filter(move |row| Some(row.keys) == keys)
}

/// As in the plots: what was copied is what can be compared.
fn shown_engine(engine: &str) -> String {
    match engine {
        "memcpy" => "a plain copy".to_owned(),
        engine => engine.replace(" copied", ", copied").replace(" borrowed", ", borrowed"),
    }
}

/// What tells engines apart in every plot.
fn engine_number(engine: &str) -> usize {
    let known = ["op-dbus copied", "memcpy", "LMDB copied", "op-dbus borrowed", "LMDB borrowed"];
    known.iter().position(|known| *known == engine).unwrap_or(known.len())
}

fn hit_latencies(measured: &Measured) -> (Plot, String) {
    let rows = || first_keys(&measured.cache_hit).filter(|row| row.threads == 1);
    let line =
        |row: &HitRow| tail(shown_engine(&row.engine), &row.quantiles, engine_number(&row.engine));
    let lines = rows().map(line).collect();
    let keys = rows().next().map_or(0, |row| row.keys);
    let note = format!(
        "{} vectors of 1,536 bytes, by Zipf's law with exponent 0.99; the time to read the clock is \
         taken off",
        grouped(keys.into())
    );
    (latencies("A vector by key, one thread".to_owned(), lines), note)
}

fn search_latencies(measured: &Measured) -> (Plot, String) {
    let mut lines = Vec::new();
    let mut note = String::new();
    if let Some(part) = &measured.search {
        let threads = part.exact.threads;
        for row in part.rows.iter().filter(|row| row.threads == threads) {
            let name = format!("recall {} asked", row.asked_recall);
            lines.push(tail(name, &row.quantiles, lines.len()));
        }
        lines.push(tail("all compared".to_owned(), &part.exact.quantiles, lines.len()));
        note = about(part);
    }
    if let Some(part) = &measured.search_file {
        // More would be a thicket.
        let step = part.rows.len().div_ceil(5).max(1);
        let rows = part.rows.iter().step_by(step);
        lines.extend(
            rows.enumerate().map(|(number, row)| {
                tail(format!("effort {}", row.effort), &row.quantiles, number)
            }),
        );
        note = format!("{} vectors of {}", grouped(part.index.vectors as u64), part.base);
    }
    (latencies("Searches".to_owned(), lines), note)
}

fn about(part: &Searches) -> String {
    let of = match &part.collection {
        Some(name) => format!("of the collection {name}"),
        None => "that were made".to_owned(),
    };
    format!(
        "the nearest {} of {} vectors of {} dimensions {of}; {} questions",
        part.k,
        grouped(part.vectors),
        part.dimensions,
        grouped(part.questions as u64)
    )
}

fn recall_plot(lines: Vec<Line>) -> Plot {
    Plot {
        title: "Recall against throughput, one after the other".to_owned(),
        x: Axis {
            title: "of the nearest, found".to_owned(),
            scale: Scale::Linear,
            show: percent_of_part,
            ticks: Vec::new(),
        },
        y: Axis {
            title: "searches a second".to_owned(),
            scale: Scale::Log,
            show: rate,
            ticks: Vec::new(),
        },
        lines,
    }
}

fn percent_of_part(value: f64) -> String {
    format!("{} %", (value * 1000.0).round() / 10.0)
}

fn recall_of_collection(part: &Searches) -> (Plot, String) {
    let threads = part.exact.threads;
    let rows = part.rows.iter().filter(|row| row.threads == threads);
    let line = |name: &str, points, number| Line {
        name: name.to_owned(),
        points,
        number,
        is_ideal: false,
    };
    let lines = vec![
        line("by the graph", rows.map(|row| (row.recall, row.qps_wall)).collect(), 0),
        line("all compared", vec![(part.exact.recall, part.exact.qps_wall)], 1),
    ];
    (recall_plot(lines), about(part))
}

fn recall_of_file(measured: &Measured) -> (Plot, String) {
    let rows = measured.search_file.iter().flat_map(|part| &part.rows);
    let points: Vec<(f64, f64)> =
        rows.filter_map(|row| Some((row.recall?, row.qps_wall))).collect();
    let lines = vec![Line { name: "by the graph".to_owned(), points, number: 0, is_ideal: false }];
    (recall_plot(lines), "each point is an effort".to_owned())
}

fn threads_plot(title: &str, what: &str, lines: Vec<Line>, counts: &[f64]) -> Plot {
    Plot {
        title: title.to_owned(),
        x: Axis {
            title: "threads".to_owned(),
            scale: Scale::Log,
            show: count,
            ticks: counts.to_vec(),
        },
        y: Axis { title: what.to_owned(), scale: Scale::Log, show: rate, ticks: Vec::new() },
        lines,
    }
}

/// The line of what would be if each thread did as much as one alone.
fn ideal(of: &[(f64, f64)]) -> Option<Line> {
    let (threads, rate) = of.first()?;
    let points = of.iter().map(|(count, _)| (*count, rate * count / threads)).collect();
    Some(Line { name: "if each did as much".to_owned(), points, number: 0, is_ideal: true })
}

fn counts_of(lines: &[Line]) -> Vec<f64> {
    let mut counts: Vec<f64> =
        lines.iter().flat_map(|line| &line.points).map(|point| point.0).collect();
    counts.sort_by(f64::total_cmp);
    counts.dedup();
    counts
}

fn threads_of_hits(measured: &Measured) -> (Plot, String) {
    let rows = || first_keys(&measured.cache_hit);
    let mut lines: Vec<Line> = Vec::new();
    for row in rows().filter(|row| !row.engine.ends_with("borrowed")) {
        let name = shown_engine(&row.engine);
        let point = (row.threads as f64, row.lookups_per_second);
        match lines.iter_mut().find(|line| line.name == name) {
            Some(line) => line.points.push(point),
            None => {
                let number = engine_number(&row.engine);
                lines.push(Line { name, points: vec![point], number, is_ideal: false });
            }
        }
    }
    finish_threads("A vector by key, copied: threads", "lookups a second", lines)
}

fn threads_of_searches(part: &Searches) -> (Plot, String) {
    // The recall that was asked for by several numbers of threads.
    let several = part.rows.iter().rev().find(|row| row.threads != part.exact.threads);
    let asked = several.map(|row| row.asked_recall);
    let rows = part.rows.iter().filter(|row| Some(row.asked_recall) == asked);
    let points: Vec<(f64, f64)> = rows.map(|row| (row.threads as f64, row.qps_wall)).collect();
    let name = asked.map_or_else(String::new, |asked| format!("recall {asked} asked"));
    let lines = vec![Line { name, points, number: 0, is_ideal: false }];
    finish_threads("Searches: threads", "searches a second", lines)
}

/// With one number of threads there is nothing to see.
fn finish_threads(title: &str, what: &str, mut lines: Vec<Line>) -> (Plot, String) {
    lines.retain(|line| line.points.len() > 1);
    let counts = counts_of(&lines);
    let ideal = lines.first().and_then(|line| ideal(&line.points));
    lines.extend(ideal);
    let note = "by the clock, all threads together";
    (threads_plot(title, what, lines, &counts), note.to_owned())
}
