//! `op-dbus benchmark --report FILE.html`: the result as a page for a browser.
//!
//! One file: no script, nothing from elsewhere, and the colours that the reader has chosen, light or
//! dark. `plot` draws, `plots` says what.

mod plot;
mod plots;

use std::fmt::Write;
use std::path::Path;

use super::figures::{Figure, figures, shown};
use super::results::{NotMeasured, Results};
use super::{directory_of, write_new};
use crate::error::{Error, Result};
use crate::output::{bytes, utc};

const STYLE: &str = include_str!("style.css");

/// Refuses a file that is there, or cannot be made, before anything is measured.
pub(super) fn check_new(path: &Path) -> Result<()> {
    if path.exists() {
        let exists = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
        return Err(Error::io("create", path, exists));
    }
    let writable = rustix::fs::access(directory_of(path), rustix::fs::Access::WRITE_OK);
    writable.map_err(|error| Error::io("create", path, error.into()))
}

/// Writes the page, whole or not at all.
pub(super) fn write(path: &Path, results: &Results) -> Result<()> {
    write_new(path, page(results).as_bytes())
}

/// A text that is no markup.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // HTML has no way to say them.
            control if control.is_control() => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}

fn page(results: &Results) -> String {
    let machine = &results.machine;
    let mut page = String::new();
    let title = format!("op-dbus benchmark: {}", escaped(&machine.cpu));
    page.push_str("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    page.push_str("<meta name=\"color-scheme\" content=\"light dark\">\n");
    // An icon that is nowhere is not looked for.
    page.push_str("<link rel=\"icon\" href=\"data:,\">\n");
    let _ = writeln!(page, "<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>");
    page.push_str("<h1>What op-dbus does on this machine</h1>\n");
    page.push_str(&of_machine(results));
    page.push_str("<h2>Figures</h2>\n");
    page.push_str(&table(&figures(results)));
    page.push_str(&missing(&results.not_measured));
    let plots = plots::of(results);
    if !plots.is_empty() {
        page.push_str("<h2>Plots</h2>\n<div class=\"plots\">\n");
        for (plot, note) in &plots {
            let _ = writeln!(
                page,
                "<figure>\n{}<figcaption>{}</figcaption>\n</figure>",
                plot.svg(),
                escaped(note)
            );
        }
        page.push_str("</div>\n");
    }
    page.push_str("</body>\n</html>\n");
    page
}

fn of_machine(results: &Results) -> String {
    let machine = &results.machine;
    let facts = [
        ("Processor", format!("{}, {} CPUs", machine.cpu, machine.cpus)),
        ("Vector instructions", machine.instructions.clone()),
        ("Memory", format!("{}, NUMA nodes: {}", bytes(machine.memory_bytes), machine.numa_nodes)),
        ("System", format!("{}, Linux {}", machine.system, machine.kernel)),
        ("Measured", utc(results.measured_at_unix_ms)),
        ("Program", format!("op-dbus {}", results.program)),
    ];
    let rows = facts
        .iter()
        .map(|(name, value)| format!("<dt>{}</dt><dd>{}</dd>\n", escaped(name), escaped(value)));
    format!("<dl>\n{}</dl>\n", rows.collect::<String>())
}

fn table(figures: &[Figure]) -> String {
    let mut table = String::from(
        "<table>\n<thead><tr><th>Median</th><th>Guide</th><th>Here</th>\
         <th>Beside it, in this run</th></tr></thead>\n",
    );
    let mut group = "";
    for figure in figures.iter().filter(|figure| figure.is_main) {
        if figure.group != group {
            let _ = writeln!(
                table,
                "<tr><th class=\"group\" colspan=\"4\">{}</th></tr>",
                escaped(&figure.group)
            );
            group = &figure.group;
        }
        let beside: Vec<String> = figure
            .beside
            .iter()
            .map(|(value, name)| format!("{} {name}", shown(figure.unit, *value)))
            .collect();
        let _ = writeln!(
            table,
            "<tr><td>{}</td><td class=\"number\">{}</td><td class=\"number here\">{}</td>\
             <td>{}</td></tr>",
            escaped(figure.title()),
            figure.guide.unwrap_or("–"),
            figure.shown(),
            escaped(&beside.join("; "))
        );
    }
    table.push_str("</table>\n");
    table
}

fn missing(missing: &[NotMeasured]) -> String {
    if missing.is_empty() {
        return String::new();
    }
    let item = |missing: &NotMeasured| {
        let remedy = missing.remedy.as_ref().map(|remedy| format!("; {remedy}"));
        let text = format!("{}{}", missing.why, remedy.unwrap_or_default());
        format!("<li><b>{}</b>: {}</li>\n", escaped(&missing.what), escaped(&text))
    };
    let items: String = missing.iter().map(item).collect();
    format!("<h2>Not measured</h2>\n<ul>\n{items}</ul>\n")
}
