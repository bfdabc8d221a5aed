//! `op-dbus benchmark --compare BASELINE.json`: what has become faster or slower.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use op_dbus_engine::{Error as EngineError, ErrorKind};
use serde::Serialize;
use serde_json::Value;

use super::figures::{Figure, Unit, figures, shown};
use super::results::{Machine, Results, Sizes};
use crate::error::Result;

/// How much less may be found: which vectors are near is no matter of luck, but links that several
/// threads make at once are.
const RECALL_TOLERANCE: f64 = 0.02;
const NAME_COLUMNS: usize = 42;

/// A result that was read.
pub(super) struct Baseline {
    path: PathBuf,
    results: Results,
}

/// A figure in both results, or in one of them.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Change {
    figure: String,
    before: Option<f64>,
    after: Option<f64>,
    /// What is now by what was.
    ratio: Option<f64>,
    /// Whether it is worse by more than the tolerance. What is not ours never is.
    is_regression: bool,
    #[serde(skip)]
    unit: Option<Unit>,
    #[serde(skip)]
    group: String,
    #[serde(skip)]
    name: String,
}

impl Baseline {
    /// Reads one, and refuses one whose figures are no measurements.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let results = Results::read(path)?;
        let is_wrong = |figure: &Figure| !figure.value.is_finite() || figure.value < 0.0;
        if let Some(figure) = figures(&results).iter().find(|figure| is_wrong(figure)) {
            let context = format!(
                "{} is no result of a benchmark: {} cannot be {}",
                path.display(),
                figure.id,
                figure.value
            );
            return Err(EngineError::new(ErrorKind::Invalid, context)
                .with_remedy("make one on this machine: op-dbus benchmark --all --json > FILE")
                .into());
        }
        Ok(Self { path: path.to_owned(), results })
    }

    /// Refuses to be compared with what would be measured otherwise.
    pub(super) fn check(&self, machine: &Machine, sizes: &Sizes) -> Result<()> {
        let was = &self.results.machine;
        if (&was.cpu, was.cpus) != (&machine.cpu, machine.cpus) {
            let problem =
                format!("was measured on {}, and this is {}", was.title(), machine.title());
            return Err(self.refusal(&problem));
        }
        let parts = |sizes: &Sizes| match serde_json::to_value(sizes) {
            Ok(Value::Object(parts)) => parts,
            _ => serde_json::Map::new(),
        };
        let (before, now) = (parts(&self.results.sizes), parts(sizes));
        let mut common_count = 0;
        for (name, now) in &now {
            let Some(before) = before.get(name) else { continue };
            common_count += 1;
            if before != now {
                return Err(self.refusal(&format!("has {name} of {before}, and this is {now}")));
            }
        }
        if common_count == 0 {
            return Err(self.refusal("has nothing of what is to be measured"));
        }
        Ok(())
    }

    /// Whether it has figures of embedding texts.
    pub(super) fn has_embeddings(&self) -> bool {
        self.results.sizes.embeddings.is_some()
    }

    fn refusal(&self, problem: &str) -> crate::error::Error {
        let context = format!("cannot compare with {}: it {problem}", self.path.display());
        EngineError::new(ErrorKind::Invalid, context)
            .with_remedy(
                "make a baseline here with the same options, without --compare and with --json",
            )
            .into()
    }

    /// What has changed, in the order of the table.
    pub(super) fn compare(&self, results: &Results, tolerance_percent: u16) -> Vec<Change> {
        let (before, after) = (figures(&self.results), figures(results));
        let find = |figures: &[Figure], id: &str| {
            figures.iter().find(|figure| figure.id == id).map(|figure| figure.value)
        };
        let mut changes: Vec<Change> = after
            .iter()
            .map(|figure| change(figure, find(&before, &figure.id), Some(figure.value)))
            .collect();
        // Of what was not asked for this time nothing is said.
        let groups: Vec<&str> = after.iter().map(|figure| figure.group.as_str()).collect();
        let gone = before.iter().filter(|figure| {
            groups.contains(&figure.group.as_str()) && find(&after, &figure.id).is_none()
        });
        changes.extend(gone.map(|figure| change(figure, Some(figure.value), None)));
        let judged = after.iter().chain(&before);
        for change in &mut changes {
            let ours = judged.clone().find(|figure| figure.id == change.figure);
            change.is_regression = ours.is_some_and(|figure| figure.is_ours)
                && is_worse(change, f64::from(tolerance_percent) / 100.0);
        }
        changes
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

fn change(figure: &Figure, before: Option<f64>, after: Option<f64>) -> Change {
    let ratio = before.zip(after).filter(|(before, _)| *before > 0.0);
    Change {
        figure: figure.id.clone(),
        before,
        after,
        ratio: ratio.map(|(before, after)| after / before),
        is_regression: false,
        unit: Some(figure.unit),
        group: figure.group.clone(),
        name: figure.name.clone(),
    }
}

fn is_worse(change: &Change, tolerance: f64) -> bool {
    let (Some(before), Some(after)) = (change.before, change.after) else { return false };
    match change.unit {
        Some(Unit::Time) => after > before * (1.0 + tolerance),
        Some(Unit::Rate) => after < before / (1.0 + tolerance),
        Some(Unit::Part) => after < before - RECALL_TOLERANCE,
        // It is made of two others.
        Some(Unit::Times) | None => false,
    }
}

/// How many are worse.
pub(super) fn regressions_count(changes: &[Change]) -> usize {
    changes.iter().filter(|change| change.is_regression).count()
}

pub(super) fn render(
    out: &mut dyn Write,
    baseline: &Baseline,
    changes: &[Change],
    tolerance_percent: u16,
) -> io::Result<()> {
    writeln!(out, "{:NAME_COLUMNS$} {:>11} {:>11} {:>7}", "", "before", "now", "ratio")?;
    let mut group = "";
    for change in changes {
        if change.group != group {
            writeln!(out, "{}", change.group)?;
            group = &change.group;
        }
        let value = |value: Option<f64>| match (value, change.unit) {
            (Some(value), Some(unit)) => shown(unit, value),
            _ => "–".to_owned(),
        };
        let ratio = change.ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"));
        let verdict = if change.is_regression { " worse" } else { "" };
        writeln!(
            out,
            "  {:<40} {:>11} {:>11} {ratio:>7}{verdict}",
            change.name,
            value(change.before),
            value(change.after)
        )?;
    }
    let from = baseline.path().display();
    match regressions_count(changes) {
        0 => writeln!(out, "Nothing is worse than in {from} by more than {tolerance_percent} %."),
        1 => writeln!(out, "1 figure is worse than in {from} by more than {tolerance_percent} %."),
        count => {
            writeln!(
                out,
                "{count} figures are worse than in {from} by more than {tolerance_percent} %."
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(unit: Unit, before: f64, after: f64) -> bool {
        let change = Change {
            figure: String::new(),
            before: Some(before),
            after: Some(after),
            ratio: None,
            is_regression: false,
            unit: Some(unit),
            group: String::new(),
            name: String::new(),
        };
        is_worse(&change, 0.3)
    }

    #[test]
    fn what_is_worse_depends_on_what_is_counted() {
        assert!(!of(Unit::Time, 100.0, 129.0) && of(Unit::Time, 100.0, 131.0));
        assert!(!of(Unit::Rate, 130.0, 101.0) && of(Unit::Rate, 130.0, 99.0));
        assert!(!of(Unit::Part, 0.95, 0.94) && of(Unit::Part, 0.95, 0.92));
        assert!(!of(Unit::Times, 100.0, 1.0) && !of(Unit::Time, 100.0, 1.0));
    }
}
