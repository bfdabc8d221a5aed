//! What people read of an answer.

use std::io::Write;
use std::time::Duration;

use op_dbus_engine::{CollectionExplain, Explain, FilterPlan, Hit, KeywordExplain, Payload, Plan};
use serde::Deserialize;

use super::display_key;
use crate::output::{columns, duration, grouped, one_line};

/// A key as wide as this leaves room for its text on the same line.
const KEY_COLUMNS_MAX: usize = 32;

/// Writes a line for each hit; two where a terminal is too narrow for long keys and text.
pub(super) fn render(out: &mut dyn Write, hits: &[Hit]) -> std::io::Result<()> {
    let keys: Vec<String> =
        hits.iter().map(|hit| one_line(&display_key(&hit.key), usize::MAX)).collect();
    let width = keys.iter().map(|key| console::measure_text_width(key)).max().unwrap_or(0);
    let columns = columns();
    for (hit, key) in hits.iter().zip(keys) {
        if let Some(member) = Member::of(hit) {
            member.render(out, hit.score)?;
            continue;
        }
        let text = hit.text.as_deref().unwrap_or_default();
        if width > KEY_COLUMNS_MAX && columns != usize::MAX {
            writeln!(out, "{:>6.3}  {}", hit.score, one_line(&key, columns.saturating_sub(8)))?;
            writeln!(out, "        {}", one_line(text, columns.saturating_sub(8)))?;
        } else {
            let key = console::pad_str(&key, width, console::Alignment::Left, None);
            let text = one_line(text, columns.saturating_sub(10 + width));
            writeln!(out, "{:>6.3}  {key}  {text}", hit.score)?;
        }
    }
    Ok(())
}

/// Of a table, what is left for the text at least; longer keys are cut where that is known.
const TEXT_COLUMNS_MIN: usize = 24;

/// Writes a line for each hit, in columns that fit a terminal.
pub(super) fn render_table(out: &mut dyn Write, hits: &[Hit]) -> std::io::Result<()> {
    let room = columns();
    let keys: Vec<String> =
        hits.iter().map(|hit| one_line(&display_key(&hit.key), usize::MAX)).collect();
    let widest = |names: &mut dyn Iterator<Item = &str>, least: usize| {
        names.map(console::measure_text_width).max().unwrap_or(0).max(least)
    };
    let in_collection = widest(&mut hits.iter().map(|hit| &hit.collection[..]), 10);
    let in_key = widest(&mut keys.iter().map(|key| &key[..]), 3);
    let in_key = in_key.min(room.saturating_sub(10 + in_collection + 2 + TEXT_COLUMNS_MIN).max(8));
    let mut line = |score: &str, collection: &str, key: &str, text: &str| {
        let pad = |text: &str, width| {
            let text = one_line(text, width);
            console::pad_str(&text, width, console::Alignment::Left, None).into_owned()
        };
        let line =
            format!("{score:>6}  {}  {}  {text}", pad(collection, in_collection), pad(key, in_key));
        writeln!(out, "{}", one_line_kept(&line, room))
    };
    line("SCORE", "COLLECTION", "KEY", "TEXT")?;
    for (hit, key) in hits.iter().zip(&keys) {
        let text = one_line(hit.text.as_deref().unwrap_or_default(), usize::MAX);
        line(&format!("{:.3}", hit.score), &hit.collection, key, &text)?;
    }
    Ok(())
}

/// The beginning of a line whose columns are kept, without blanks at its end.
fn one_line_kept(line: &str, columns: usize) -> String {
    console::truncate_str(line, columns, "…").trim_end().to_owned()
}

/// What is shown of a member of a D-Bus interface.
#[derive(Deserialize)]
struct Member {
    kind: String,
    interface: String,
    member: String,
    signature: String,
    #[serde(default)]
    returns: String,
    risk: Option<String>,
    documentation: Option<String>,
    example: String,
}

impl Member {
    /// `None` of any other record.
    fn of(hit: &Hit) -> Option<Self> {
        let Payload::Json(json) = &hit.payload else { return None };
        serde_json::from_str(json).ok()
    }

    /// Writes what it is, what it does, and how it is used, each on a line.
    fn render(&self, out: &mut dyn Write, score: f32) -> std::io::Result<()> {
        let Self { kind, interface, member, signature, .. } = self;
        let types = match kind.as_str() {
            "method" => format!("({signature}) -> ({})", self.returns),
            "signal" => format!("({signature})"),
            _ => format!(" {signature}"),
        };
        let what = match &self.risk {
            Some(risk) => format!("{kind}, {risk}"),
            None => kind.clone(),
        };
        let room = columns().saturating_sub(8);
        let types = types.trim_end_matches(" -> ()");
        writeln!(out, "{score:>6.3}  {}", one_line(&format!("{interface}.{member}{types}"), room))?;
        let about = self.documentation.as_deref().unwrap_or_default();
        writeln!(out, "        {}", one_line(&format!("[{what}] {about}"), room))?;
        writeln!(out, "        {}", one_line(&self.example, usize::MAX))
    }
}

pub(super) fn summary(explain: &Explain, took: Duration) -> String {
    let embedding = match explain.embedding_hit {
        Some(true) => "embedding from the cache".to_owned(),
        Some(false) => format!("embedding {}", duration(explain.embed)),
        None => "vector given".to_owned(),
    };
    let compared = explain.collections.iter().map(|done| match done.plan {
        Plan::Exact => done.full_hot,
        Plan::Scan | Plan::Graph => done.compared.max(done.expanded),
    });
    format!(
        "{}: {} vectors compared in {}, brought in in {}; {embedding}",
        duration(took),
        grouped(compared.sum()),
        duration(explain.search),
        duration(explain.load),
    )
}

pub(super) fn render_explain(out: &mut dyn Write, explain: &Explain) -> std::io::Result<()> {
    writeln!(out)?;
    let mut stages = vec![
        ("embed the text", explain.embed),
        ("bring vectors in", explain.load),
        ("find the nearest", explain.search),
    ];
    if let Some(KeywordExplain { load, search, .. }) = explain.keyword {
        stages.extend([("bring words in", load), ("find the words", search)]);
    }
    stages.push(("read the records", explain.fetch));
    for (what, took) in stages {
        writeln!(out, "{what:<18}{:>10}", duration(took))?;
    }
    for done in &explain.collections {
        let (name, plan) = (&done.name, done.plan.name());
        let [expanded, compared, hot, cold] =
            [done.expanded, done.compared, done.full_hot, done.full_cold].map(grouped);
        writeln!(
            out,
            "{name}: {plan}; {expanded} vertices expanded, {compared} vectors compared by"
        )?;
        writeln!(out, "  their bytes, in full {hot} hot and {cold} cold ones")?;
        render_filter(out, done)?;
    }
    let Some(KeywordExplain { matched, by_meaning, by_words, by_both, .. }) = explain.keyword
    else {
        return Ok(());
    };
    let [matched, meaning, words, both] = [matched, by_meaning, by_words, by_both].map(grouped);
    writeln!(
        out,
        "words: {matched} records have any of the text's; ranked were {meaning} by meaning,"
    )?;
    writeln!(out, "  {words} by words, {both} of them by both")
}

fn render_filter(out: &mut dyn Write, done: &CollectionExplain) -> std::io::Result<()> {
    let Some(filter) = done.filter else { return Ok(()) };
    let [tested, passed] = [filter.tested, filter.passed].map(grouped);
    let how = match filter.plan {
        FilterPlan::Met => "as the search met them",
        FilterPlan::All => "all of the collection before the search",
        FilterPlan::Known => {
            return writeln!(out, "  {passed} records pass the filter, known from a query before");
        }
    };
    writeln!(out, "  the filter was asked about {tested} records, {how}; {passed} passed")
}
