//! The figures that a result comes to: each with what was promised and what was measured beside it.

use std::io::{self, Write};

use op_dbus_benches::HitRow;

use super::results::{CollectionRow, Embeddings, Results, Searches};
use crate::output::{grouped, wrapped};

const COLUMNS: usize = 80;
const NAME_COLUMNS: usize = 32;

/// What a number counts, and in which direction it is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Nanoseconds; less is better.
    Time,
    /// So many a second; more is better.
    Rate,
    /// A part of what should be found; more is better.
    Part,
    /// So many times as much.
    Times,
}

/// One number.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Figure {
    /// What tells it from the others, in every result of the same sizes.
    pub(super) id: String,
    pub(super) group: String,
    pub(super) name: String,
    pub(super) unit: Unit,
    pub(super) value: f64,
    /// What the guide says.
    pub(super) guide: Option<&'static str>,
    /// What was measured beside it, with the same unit.
    pub(super) beside: Vec<(f64, String)>,
    /// What the machine or a rival did beside it, in the same unit: a busy machine slows both.
    pub(super) reference: Option<f64>,
    /// What it is called in the table, if there is more to say.
    pub(super) table_name: Option<String>,
    /// Whether it is for the table, rather than for comparison alone.
    pub(super) is_main: bool,
    /// Whether it is ours, and not the machine's or a rival's.
    pub(super) is_ours: bool,
}

impl Figure {
    fn new(group: &str, name: String, unit: Unit, value: f64) -> Self {
        Self {
            id: format!("{group}: {name}"),
            group: group.to_owned(),
            name,
            unit,
            value,
            guide: None,
            beside: Vec::new(),
            reference: None,
            table_name: None,
            is_main: false,
            is_ours: true,
        }
    }

    fn main(self, guide: Option<&'static str>) -> Self {
        Self { guide, is_main: true, ..self }
    }

    fn against(self, reference: Option<f64>) -> Self {
        Self { reference, ..self }
    }

    fn beside(mut self, name: &str, value: Option<f64>) -> Self {
        self.beside.extend(value.map(|value| (value, name.to_owned())));
        self
    }

    /// Its name in the table.
    pub(super) fn title(&self) -> &str {
        self.table_name.as_ref().unwrap_or(&self.name)
    }

    /// The value as people read it.
    pub(super) fn shown(&self) -> String {
        shown(self.unit, self.value)
    }
}

/// A number in the unit that shows two or three digits of it.
pub(super) fn shown(unit: Unit, value: f64) -> String {
    let digits = |value: f64, name: &str| match value {
        value if value < 9.995 => format!("{value:.2} {name}"),
        value if value < 99.95 => format!("{value:.1} {name}"),
        value => format!("{value:.0} {name}"),
    };
    match unit {
        Unit::Time if value < 999.5 => format!("{value:.0} ns"),
        Unit::Time if value < 999.5e3 => digits(value / 1e3, "µs"),
        Unit::Time if value < 999.5e6 => digits(value / 1e6, "ms"),
        Unit::Time => digits(value / 1e9, "s"),
        Unit::Rate if value < 100.0 => format!("{value:.1}/s"),
        Unit::Rate => format!("{}/s", grouped(value.round() as u64)),
        Unit::Part => format!("{value:.4}"),
        Unit::Times if value < 10.0 => format!("{value:.1}x"),
        Unit::Times => format!("{}x", grouped(value.round() as u64)),
    }
}

/// All figures of a result, in the order of the table.
pub(super) fn figures(results: &Results) -> Vec<Figure> {
    let measured = &results.measured;
    let mut figures: Vec<Figure> = measured.embeddings.iter().flat_map(of_embeddings).collect();
    figures.extend(of_hits(&measured.cache_hit));
    figures.extend(measured.search.iter().flat_map(of_searches));
    figures.extend(of_file(results));
    figures.extend(of_numa(results));
    figures
}

fn of_embeddings(part: &Embeddings) -> Vec<Figure> {
    let guide = match part.provider.as_str() {
        "cuda" => "2 ms",
        "tensorrt" => "1 ms",
        _ => "10 ms",
    };
    let group = format!("Embedding a text: {} on {}", part.model, part.provider);
    let mut figures = Vec::new();
    for row in &part.rows {
        let name = format!("{:.0} tokens", row.tokens);
        let runtime_ns = Some(row.runtime_p50_ms * 1e6);
        figures.push(
            Figure::new(&group, name.clone(), Unit::Time, row.p50_ms * 1e6)
                .main(Some(guide))
                .beside("ONNX Runtime", runtime_ns)
                .against(runtime_ns),
        );
        let name = format!("{name}, many at once");
        let rate = Figure::new(&group, name, Unit::Rate, row.texts_per_second);
        // The runtime alone runs one text after the other.
        figures.push(rate.against(Some(1e3 / row.runtime_p50_ms.max(1e-6))));
    }
    let cached = &part.cached;
    let name = "a text that is cached".to_owned();
    figures.push(
        Figure::new(&group, name, Unit::Time, cached.p50_ns)
            .main(Some("0.1–0.15 ms"))
            .beside("a plain copy", Some(cached.copy_p50_ns))
            .against(Some(cached.copy_p50_ns)),
    );
    for row in &part.rows {
        let name = format!("uncached / hit, {:.0} tokens", row.tokens);
        let ratio = row.p50_ms * 1e6 / cached.p50_ns.max(1.0);
        figures.push(Figure::new(&group, name, Unit::Times, ratio).main(Some("100–200x")));
    }
    figures
}

fn of_hits(rows: &[HitRow]) -> Vec<Figure> {
    let mut figures = Vec::new();
    for row in rows {
        let other = |engine: &str| {
            let same = |other: &&HitRow| (other.keys, other.threads) == (row.keys, row.threads);
            rows.iter().filter(same).find(|other| other.engine == engine)
        };
        let find = |engine: &str| other(engine).map(|other| other.p50_ns);
        let group = format!("A vector by key: {} of 1,536 bytes", grouped(row.keys.into()));
        let threads = match row.threads {
            1 => String::new(),
            threads => format!(", {threads} threads"),
        };
        let is_ours = row.engine.starts_with("op-dbus");
        let name = row.engine.strip_prefix("op-dbus ").unwrap_or(&row.engine);
        let mut time = Figure::new(&group, format!("{name}{threads}"), Unit::Time, row.p50_ns);
        if is_ours {
            time = match name {
                "borrowed" => time.beside("LMDB", find("LMDB borrowed")),
                _ => {
                    time.beside("a plain copy", find("memcpy")).beside("LMDB", find("LMDB copied"))
                }
            };
            time = time.main(Some("0.1–0.15 ms"));
        }
        let rate = Figure::new(
            &group,
            format!("{name}{threads}, rate"),
            Unit::Rate,
            row.lookups_per_second,
        );
        let time = time.against(find("memcpy"));
        let rate = rate.against(other("memcpy").map(|other| other.lookups_per_second));
        figures.extend([time, rate].map(|figure| Figure { is_ours, ..figure }));
    }
    figures
}

fn of_searches(part: &Searches) -> Vec<Figure> {
    let of = match &part.collection {
        Some(name) => format!("of {name}"),
        None => "that were made".to_owned(),
    };
    let vectors = grouped(part.vectors);
    let group = format!("The nearest {} of {vectors} vectors {of}", part.k);
    let exact = |row: &CollectionRow| {
        (row.threads == part.exact.threads).then_some(part.exact.p50_us * 1e3)
    };
    let mut figures = Vec::new();
    for row in &part.rows {
        let threads = match row.threads {
            1 => String::new(),
            threads => format!(", {threads} threads"),
        };
        let name = format!("recall {}{threads}", row.asked_recall);
        // The same comparison of all vectors, by however many threads the searches are.
        let all_ns = Some(part.exact.p50_us * 1e3);
        figures.push(Figure::new(&group, format!("{name}, found"), Unit::Part, row.recall));
        let time = Figure::new(&group, name.clone(), Unit::Time, row.p50_us * 1e3);
        // What was found is another figure, but in the table people look for it here.
        let found = format!("recall {}, found {:.3}", row.asked_recall, row.recall);
        let shown_name = if threads.is_empty() { found } else { name.clone() };
        let time = time.main(None).beside("all compared", exact(row));
        figures.push(Figure { table_name: Some(shown_name), ..time.against(all_ns) });
        let rate = Figure::new(&group, format!("{name}, rate"), Unit::Rate, row.qps_wall);
        figures.push(rate.against(Some(part.exact.qps_wall)));
    }
    figures
}

fn of_file(results: &Results) -> Vec<Figure> {
    let Some(part) = &results.measured.search_file else { return Vec::new() };
    let vectors = grouped(part.index.vectors as u64);
    let group = format!("The nearest {} of {vectors} vectors of {}", part.k, part.base);
    let mut figures = Vec::new();
    for row in &part.rows {
        let name = format!("effort {}", row.effort);
        let found = format!("{name}, found");
        figures.extend(row.recall.map(|recall| Figure::new(&group, found, Unit::Part, recall)));
        let time = Figure::new(&group, name.clone(), Unit::Time, row.p50_us * 1e3);
        figures.push(time.main(None));
        figures.push(Figure::new(&group, format!("{name}, rate"), Unit::Rate, row.qps_wall));
    }
    figures
}

fn of_numa(results: &Results) -> Vec<Figure> {
    let Some(report) = &results.measured.numa_local else { return Vec::new() };
    let group = "NUMA nodes";
    let local_ns = |cpu_node: u32| {
        let mut own = report.memory.iter().filter(|row| row.cpu_node == cpu_node);
        own.find(|row| row.memory_node == cpu_node).map(|row| row.latency_ns)
    };
    let mut figures = Vec::new();
    for row in &report.memory {
        let name = format!("node {} reads memory of {}", row.cpu_node, row.memory_node);
        let mut time = Figure::new(group, name, Unit::Time, row.latency_ns).main(None);
        if row.memory_node != row.cpu_node {
            time = time.beside("its own", local_ns(row.cpu_node));
        }
        figures.push(Figure { is_ours: false, ..time });
    }
    for row in &report.engine {
        let of = if row.memory_nodes.is_empty() { "all" } else { &row.memory_nodes };
        let name = format!("{} {of}, CPU of {}", row.policy.name(), row.cpu_node);
        let read_ns = local_ns(row.cpu_node);
        figures.push(
            Figure::new(group, name.clone(), Unit::Time, row.hit_ns)
                .main(Some("0.1–0.15 ms"))
                .beside("a plain read", read_ns)
                .against(read_ns),
        );
        let name = format!("{name}, searches");
        let rate = Figure::new(group, name, Unit::Rate, row.searches_per_second);
        figures.push(rate.against(read_ns.map(|ns| 1e9 / ns.max(1e-3))));
    }
    figures
}

/// The table of all that was measured, and what was not.
pub(super) fn render(out: &mut dyn Write, results: &Results) -> io::Result<()> {
    writeln!(out, "{}", results.machine.title())?;
    let head = ("", "guide", "here", "beside it, in this run");
    writeln!(out, "{:NAME_COLUMNS$} {:>11} {:>10}  {}", head.0, head.1, head.2, head.3)?;
    let mut group = String::new();
    for figure in figures(results).into_iter().filter(|figure| figure.is_main) {
        if figure.group != group {
            writeln!(out, "{}", figure.group)?;
            group.clone_from(&figure.group);
        }
        let guide = figure.guide.unwrap_or("–");
        let value = figure.shown();
        write!(out, "  {:<30} {guide:>11} {value:>10}", figure.title())?;
        for (place, (value, name)) in figure.beside.iter().enumerate() {
            if place > 0 {
                write!(out, "\n{:width$}", "", width = NAME_COLUMNS + 23)?;
            }
            write!(out, "  {} {name}", shown(figure.unit, *value))?;
        }
        writeln!(out)?;
    }
    render_not_measured(out, results)
}

/// What was not measured, and why.
pub(super) fn render_not_measured(out: &mut dyn Write, results: &Results) -> io::Result<()> {
    if results.not_measured.is_empty() {
        return Ok(());
    }
    writeln!(out, "Not measured")?;
    for missing in &results.not_measured {
        let mut text = format!("  {}: {}", missing.what, missing.why);
        if let Some(remedy) = &missing.remedy {
            text.push_str(&format!("; {remedy}"));
        }
        writeln!(out, "  {}", wrapped(&text, COLUMNS - 2, 4))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_show_their_unit_and_a_few_digits() {
        let time = |ns| shown(Unit::Time, ns);
        assert_eq!([time(0.4), time(190.0), time(999.6)], ["0 ns", "190 ns", "1.00 µs"]);
        assert_eq!([time(12_340.0), time(999_600.0)], ["12.3 µs", "1.00 ms"]);
        assert_eq!([time(1.7e6), time(132e6), time(2e9)], ["1.70 ms", "132 ms", "2.00 s"]);
        assert_eq!(shown(Unit::Rate, 1_234_567.0), "1,234,567/s");
        assert_eq!([shown(Unit::Times, 1.25), shown(Unit::Times, 4000.0)], ["1.2x", "4,000x"]);
    }
}
