//! Draws the screen: lines of text, cut where they do not fit. Whatever the size, nothing panics.

use std::time::Duration;

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;

use super::model::{History, Model, Part, Sample};
use crate::output::{bytes, duration, grouped, one_line, per_second, seconds};
use crate::rates::Rates;

/// Columns of a table of figures, its first one after the label.
const LABEL_LEN: usize = 17;
const FIGURE_LEN: usize = 10;
const COUNT_LEN: usize = 15;
/// Narrower than this, what there was before and in all is left out.
const WIDE_LEN: usize = 64;
const GAUGE_LEN: usize = 20;
/// Lines that one part at least has when it has the screen.
const PART_LEN_MIN: usize = 6;
/// From nothing to all. The whole block is left out: lines would grow together.
const LEVELS: [char; 7] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇'];
/// The same where there are no others than ASCII.
const LEVELS_ASCII: [char; 7] = ['_', '.', ':', '-', '=', '*', '#'];

/// How it is drawn.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Theme {
    /// Whether there are colours.
    has_colors: bool,
    /// Whether there are letters beyond ASCII.
    has_unicode: bool,
}

impl Theme {
    /// As `NO_COLOR` and the locale say.
    pub(super) fn of_environment() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(variable);
        let locale = locale.unwrap_or_default().to_ascii_lowercase();
        let has_unicode = locale.contains("utf-8") || locale.contains("utf8");
        Self { has_colors: variable("NO_COLOR").is_none(), has_unicode }
    }

    fn colored(self, color: Color) -> Style {
        if self.has_colors { Style::new().fg(color) } else { Style::new() }
    }

    fn heading(self) -> Style {
        self.colored(Color::Cyan).add_modifier(Modifier::BOLD)
    }
}

pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, theme: Theme) {
    let area = frame.area();
    let buffer = frame.buffer_mut();
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    let mut lines = vec![title(model, width)];
    lines.extend(body(model, theme, width, height.saturating_sub(2)));
    for (line, row) in lines.iter().zip(0..area.height.saturating_sub(1)) {
        line.render(Rect::new(area.x, area.y + row, area.width, 1), buffer);
    }
    if height > 0 {
        let last = Rect::new(area.x, area.bottom() - 1, area.width, 1);
        keys(model, width).render(last, buffer);
    }
    if !theme.has_unicode {
        to_ascii(buffer);
    }
}

fn reversed(text: String, width: usize) -> Line<'static> {
    let style = Style::new().add_modifier(Modifier::REVERSED);
    Line::from(Span::styled(format!("{text:width$}"), style))
}

fn title(model: &Model, width: usize) -> Line<'static> {
    let store = model.sample().map_or("", |sample| &sample.reading.activity.store);
    let state = if model.is_paused() { "paused" } else { model.origin };
    let period = format!("every {} ", seconds(model.period()));
    let right = match width < WIDE_LEN && !model.is_paused() {
        true => period,
        false => format!("{state}, {period}"),
    };
    let left = format!(" op-dbus top  {store}");
    let left = cut(&left, width.saturating_sub(right.len() + 1));
    reversed(format!("{left:room$}{right}", room = width.saturating_sub(right.len())), width)
}

fn keys(model: &Model, width: usize) -> Line<'static> {
    let pause = if model.is_paused() { "p go on" } else { "p pause" };
    let moves = match model.part() {
        Part::All => "",
        Part::Arenas | Part::Journal => "  up/down move",
    };
    if width < WIDE_LEN {
        return reversed(format!(" q quit  {pause}  +/- period  Tab part"), width);
    }
    let part = model.part().name();
    reversed(format!(" q quit  {pause}  +/- period  Tab part: {part}{moves}"), width)
}

/// What is between the first line and the last.
fn body(model: &Model, theme: Theme, width: usize, height: usize) -> Vec<Line<'static>> {
    let Some(sample) = model.sample() else { return Vec::new() };
    let mut lines = figures(model, sample, theme, width);
    if model.part() != Part::All {
        // It is what was asked for: what is above goes first.
        if lines.len() + PART_LEN_MIN > height {
            lines.clear();
        }
        let room = height.saturating_sub(lines.len());
        lines.extend(match model.part() {
            Part::Journal => journal(sample, theme, width, room, model.moved()),
            Part::All | Part::Arenas => arenas(sample, theme, width, room, model.moved()),
        });
        return lines;
    }
    let memory = memory(sample, theme, width);
    if lines.len() + memory.len() <= height {
        lines.extend(memory);
    }
    let room = height.saturating_sub(lines.len());
    // What arenas do not need is the journal's.
    let arenas = arenas(sample, theme, width, room / 2, 0);
    lines.extend(arenas);
    let room = height.saturating_sub(lines.len());
    lines.extend(journal(sample, theme, width, room, 0));
    lines
}

/// A line of the table of figures.
struct Figure<'m> {
    label: &'static str,
    now: String,
    total: String,
    rate: Option<f64>,
    history: &'m History,
    /// What is drawn highest; what was highest if nothing is said.
    highest: Option<f64>,
    is_bad: bool,
}

impl Figure<'_> {
    fn line(&self, theme: Theme, width: usize) -> Line<'static> {
        let Self { label, now, total, .. } = self;
        let rate = self.rate.map(per_second).unwrap_or_default();
        let mut text = format!(" {label:LABEL_LEN$}{now:>FIGURE_LEN$}");
        if width >= WIDE_LEN {
            text.push_str(&format!("{total:>COUNT_LEN$}"));
        }
        text.push_str(&format!("{rate:>FIGURE_LEN$}  "));
        let room = width.saturating_sub(text.chars().count() + 1);
        let color = if self.is_bad { Color::Red } else { Color::Green };
        let drawn = spark(self.history, self.highest, room);
        Line::from(vec![Span::raw(text), Span::styled(drawn, theme.colored(color))])
    }
}

/// A figure's last periods, each a letter; as many as there is room for, the last one at the right.
fn spark(history: &History, highest: Option<f64>, room: usize) -> String {
    let shown = history.iter().skip(history.len().saturating_sub(room));
    let most = shown.clone().flatten().copied().fold(0.0, f64::max);
    let highest = highest.unwrap_or(most).max(f64::MIN_POSITIVE);
    let level = |value: &Option<f64>| match value {
        None => ' ',
        Some(value) => {
            let level = (value / highest * (LEVELS.len() - 1) as f64).round() as usize;
            LEVELS[level.min(LEVELS.len() - 1)]
        }
    };
    let drawn: String = shown.map(level).collect();
    format!("{drawn:>room$}")
}

fn heading(text: &str, theme: Theme) -> Line<'static> {
    Line::from(Span::styled(text.to_owned(), theme.heading()))
}

fn figures(model: &Model, sample: &Sample, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let mut columns = format!("{:len$}{:>FIGURE_LEN$}", "Activity", "now", len = LABEL_LEN + 1);
    if width >= WIDE_LEN {
        columns.push_str(&format!("{:>COUNT_LEN$}", "in all"));
    }
    columns.push_str(&format!("{:>FIGURE_LEN$}", "a second"));
    let room = width.saturating_sub(columns.len() + 3);
    let periods = format!("the last {room} periods");
    if periods.len() <= room {
        columns.push_str(&format!("  {periods:>room$}"));
    }
    let figures = activity(model, sample).into_iter().chain(calls(model, sample));
    let lines = figures.map(|figure| figure.line(theme, width));
    std::iter::once(heading(&columns, theme)).chain(lines).collect()
}

fn activity<'m>(model: &'m Model, sample: &Sample) -> Vec<Figure<'m>> {
    let (rates, histories) = (model.rates(), &model.histories);
    let activity = &sample.reading.activity;
    let (cache, queries) = (&activity.cache, &activity.queries);
    let rate = |of: fn(&Rates) -> f64| rates.map(of);
    let percents = |of: fn(&Rates) -> Option<f64>| percent(rates.and_then(of));
    let micros = |of: fn(&Rates) -> Option<u64>| latency(rates.and_then(of));
    let share = |label, now, total, rate, history| Figure {
        label,
        now,
        total: percent(total),
        rate,
        history,
        highest: Some(1.0),
        is_bad: false,
    };
    let time = |label, now, total, history| Figure {
        label,
        now,
        total: latency(total),
        rate: None,
        history,
        highest: None,
        is_bad: false,
    };
    vec![
        share(
            "embeddings found",
            percents(Rates::hit_rate),
            cache.hit_rate(),
            rate(|rates| rates.hits),
            &histories.hit_rate,
        ),
        share(
            "vectors hot",
            percents(Rates::tier_hit_rate),
            cache.tier.hit_rate(),
            rate(|rates| rates.tier_hits),
            &histories.tier_hit_rate,
        ),
        count("queries", queries.count, rate(|rates| rates.queries), &histories.queries),
        time("  half within", micros(|rates| rates.p50_us), queries.p50_us, &histories.p50_us),
        time("  99 % within", micros(|rates| rates.p99_us), queries.p99_us, &histories.p99_us),
        count("changes", activity.sequence, rate(|rates| rates.changes), &histories.changes),
        count(
            "evicted, memory",
            cache.tier.evictions.capacity,
            rate(|rates| rates.evictions),
            &histories.evictions,
        ),
        count(
            "evicted, disk",
            cache.evictions_disk,
            rate(|rates| rates.evictions_disk),
            &histories.evictions_disk,
        ),
    ]
}

/// What the service was called, if that was asked.
fn calls<'m>(model: &'m Model, sample: &Sample) -> Vec<Figure<'m>> {
    let Some(traffic) = sample.reading.traffic else { return Vec::new() };
    let (rates, histories) = (model.rates(), &model.histories);
    let rate = |of: fn(&Rates) -> Option<f64>| rates.and_then(of);
    let refused =
        count("calls refused", traffic.refused, rate(|rates| rates.refused), &histories.refused);
    vec![
        count("calls", traffic.answered, rate(|rates| rates.answered), &histories.answered),
        Figure { is_bad: true, ..refused },
    ]
}

fn count<'m>(
    label: &'static str,
    total: u64,
    rate: Option<f64>,
    history: &'m History,
) -> Figure<'m> {
    let total = grouped(total);
    Figure { label, now: String::new(), total, rate, history, highest: None, is_bad: false }
}

fn memory(sample: &Sample, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let activity = &sample.reading.activity;
    let (tier, cap) = (&activity.cache.tier, activity.memory.effective_bytes);
    let row = |label: &str, used: u64, of: Option<u64>, note: String| {
        let gauge = match of {
            _ if width < WIDE_LEN => String::new(),
            Some(of) => gauge(used as f64 / of.max(1) as f64),
            None => " ".repeat(GAUGE_LEN + 2),
        };
        let text = format!(" {label:6} {:>FIGURE_LEN$} ", bytes(used));
        let note = one_line(&note, width.saturating_sub(text.len() + gauge.len() + 2));
        let gauge = Span::styled(gauge, theme.colored(Color::Green));
        Line::from(vec![Span::raw(text), gauge, Span::raw(format!("  {note}"))])
    };
    let (hot, policy) = (grouped(tier.hot_vectors), &tier.policy);
    let (room, all) = (tier.capacity_bytes, activity.bytes_memory);
    vec![
        heading("Tiers", theme),
        row(
            "hot",
            tier.used_bytes,
            Some(room),
            format!("of {}: {hot} vectors, {policy}", bytes(room)),
        ),
        row("warm", activity.bytes_mapped, None, "vectors in mapped files".to_owned()),
        row("memory", all, Some(cap), format!("of {}, with graphs, RocksDB", bytes(cap))),
        row(
            "disk",
            activity.bytes_disk,
            None,
            format!("{} of it embeddings", bytes(activity.cache.bytes_disk)),
        ),
    ]
}

fn gauge(part: f64) -> String {
    let full_len = (part.clamp(0.0, 1.0) * GAUGE_LEN as f64).round() as usize;
    format!("[{:GAUGE_LEN$}]", "|".repeat(full_len))
}

/// Where the memory of arenas lies; `moved` of them are above.
fn arenas(
    sample: &Sample,
    theme: Theme,
    width: usize,
    room: usize,
    moved: usize,
) -> Vec<Line<'static>> {
    if room < 2 {
        return Vec::new();
    }
    let numa = &sample.reading.activity.numa;
    let touched = numa.arenas.iter().flat_map(|arena| arena.pages_by_node.keys());
    let nodes: std::collections::BTreeSet<u32> =
        numa.machine.iter().map(|node| node.node).chain(touched.copied()).collect();
    let name_len = if width >= WIDE_LEN { 34 } else { 16 };
    let mut text = format!("{:len$}{:>FIGURE_LEN$}", "Arenas", "in use", len = name_len + 1);
    for node in &nodes {
        text.push_str(&format!("{:>9}", format!("node {node}")));
    }
    let mut lines = vec![heading(&text, theme)];
    if numa.arenas.is_empty() {
        lines.push(Line::from(" no memory is hot"));
    }
    for arena in numa.arenas.iter().skip(moved).take(room - 1) {
        let name = one_line(&arena.arena, name_len - 1);
        let mut text = format!(" {name:name_len$}{:>FIGURE_LEN$}", bytes(arena.bytes));
        let pages_count: u64 = arena.pages_by_node.values().sum();
        for node in &nodes {
            let pages = arena.pages_by_node.get(node).copied().unwrap_or_default();
            let part = (pages_count > 0).then(|| pages as f64 / pages_count as f64);
            text.push_str(&format!("{:>9}", percent(part)));
        }
        lines.push(Line::from(text));
    }
    lines
}

/// The end of the journal; `moved` entries are below.
fn journal(
    sample: &Sample,
    theme: Theme,
    width: usize,
    room: usize,
    moved: usize,
) -> Vec<Line<'static>> {
    if room < 2 {
        return Vec::new();
    }
    let mut lines = vec![heading("Journal", theme)];
    if let Some(refusal) = sample.journal.refusal() {
        lines.push(Line::from(format!(" {}", one_line(refusal, width.saturating_sub(1)))));
        return lines;
    }
    let entries = sample.journal.lines();
    if entries.is_empty() {
        lines.push(Line::from(" nothing was done yet"));
    }
    let end = entries.len().saturating_sub(moved);
    let begin = end.saturating_sub(room - 1);
    let shown = entries.iter().skip(begin).take(end - begin);
    lines.extend(shown.map(|entry| Line::from(cut(&format!(" {entry}"), width))));
    lines
}

/// What fits of a line.
fn cut(text: &str, width: usize) -> String {
    console::truncate_str(text, width, "…").into_owned()
}

fn percent(part: Option<f64>) -> String {
    part.map_or_else(|| "–".to_owned(), |part| format!("{:.1} %", part * 100.0))
}

fn latency(micros: Option<u64>) -> String {
    let shown = |micros| duration(Duration::from_micros(micros));
    micros.map_or_else(|| "–".to_owned(), shown)
}

/// Replaces what a terminal may not have.
fn to_ascii(buffer: &mut Buffer) {
    for cell in &mut buffer.content {
        let Some(letter) = cell.symbol().chars().next().filter(|letter| !letter.is_ascii()) else {
            continue;
        };
        let level = LEVELS.iter().position(|level| *level == letter);
        let replaced = match letter {
            '–' => '-',
            '…' => '~',
            'µ' => 'u',
            _ => level.map_or('?', |level| LEVELS_ASCII[level]),
        };
        cell.set_char(replaced);
    }
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
