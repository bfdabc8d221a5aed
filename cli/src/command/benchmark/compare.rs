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
const NAME_COLUMNS: usize = 34;

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
    /// The same of what the machine or a rival did beside it.
    reference_ratio: Option<f64>,
    /// Whether it is worse by more than the tolerance, also compared with what was measured beside it:
    /// what slows both is the machine. What is not ours never is.
    is_regression: bool,
    #[serde(skip)]
    unit: Unit,
    #[serde(skip)]
    group: String,
    #[serde(skip)]
    name: String,
    #[serde(skip)]
    is_ours: bool,
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
        let find =
            |figures: &[Figure], id: &str| figures.iter().find(|figure| figure.id == id).cloned();
        let both = after.iter().map(|now| change(find(&before, &now.id), Some(now.clone())));
        // Of what was not asked for this time nothing is said.
        let groups: Vec<&str> = after.iter().map(|figure| figure.group.as_str()).collect();
        let gone = before
            .iter()
            .filter(|was| groups.contains(&was.group.as_str()) && find(&after, &was.id).is_none());
        let mut changes: Vec<Change> =
            both.chain(gone.map(|was| change(Some(was.clone()), None))).flatten().collect();
        let tolerance = f64::from(tolerance_percent) / 100.0;
        for change in &mut changes {
            change.is_regression = change.is_ours && is_worse(change, tolerance);
        }
        changes
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// What became of a figure that at least one of the results has.
fn change(was: Option<Figure>, now: Option<Figure>) -> Option<Change> {
    let value = |figure: &Option<Figure>| figure.as_ref().map(|figure| figure.value);
    let reference = |figure: &Option<Figure>| figure.as_ref().and_then(|found| found.reference);
    let ratio = |before: Option<f64>, after: Option<f64>| {
        before.zip(after).filter(|(before, _)| *before > 0.0).map(|(before, after)| after / before)
    };
    let (before, after) = (value(&was), value(&now));
    let reference_ratio = ratio(reference(&was), reference(&now));
    let Figure { id, group, name, unit, is_ours, .. } = now.or(was)?;
    Some(Change {
        figure: id,
        before,
        after,
        ratio: ratio(before, after),
        reference_ratio,
        is_regression: false,
        unit,
        group,
        name,
        is_ours,
    })
}

fn is_worse(change: &Change, tolerance: f64) -> bool {
    let (Some(before), Some(after)) = (change.before, change.after) else { return false };
    // A faster machine must not make things worse.
    let machine = change.reference_ratio.unwrap_or(1.0);
    match change.unit {
        Unit::Time => after > before * machine.max(1.0) * (1.0 + tolerance),
        Unit::Rate => after < before * machine.min(1.0) / (1.0 + tolerance),
        Unit::Part => after < before - RECALL_TOLERANCE,
        // It is made of two others.
        Unit::Times => false,
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
    let head = ("", "before", "now", "ratio", "beside");
    writeln!(
        out,
        "{:NAME_COLUMNS$} {:>11} {:>11} {:>7} {:>7}",
        head.0, head.1, head.2, head.3, head.4
    )?;
    let mut group = "";
    for change in changes {
        if change.group != group {
            writeln!(out, "{}", change.group)?;
            group = &change.group;
        }
        let value = |value: Option<f64>| {
            value.map_or_else(|| "–".to_owned(), |value| shown(change.unit, value))
        };
        let ratio = |ratio: Option<f64>| {
            ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"))
        };
        let verdict = if change.is_regression { " worse" } else { "" };
        writeln!(
            out,
            "  {:<32} {:>11} {:>11} {:>7} {:>7}{verdict}",
            change.name,
            value(change.before),
            value(change.after),
            ratio(change.ratio),
            ratio(change.reference_ratio)
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

    fn of(unit: Unit, before: f64, after: f64, reference_ratio: Option<f64>) -> bool {
        let change = Change {
            figure: String::new(),
            before: Some(before),
            after: Some(after),
            ratio: None,
            reference_ratio,
            is_regression: false,
            unit,
            group: String::new(),
            name: String::new(),
            is_ours: true,
        };
        is_worse(&change, 0.3)
    }

    #[test]
    fn what_is_worse_depends_on_what_is_counted() {
        let alone = |unit, before, after| of(unit, before, after, None);
        assert!(!alone(Unit::Time, 100.0, 129.0) && alone(Unit::Time, 100.0, 131.0));
        assert!(!alone(Unit::Rate, 130.0, 101.0) && alone(Unit::Rate, 130.0, 99.0));
        assert!(!alone(Unit::Part, 0.95, 0.94) && alone(Unit::Part, 0.95, 0.92));
        assert!(!alone(Unit::Times, 100.0, 1.0) && !alone(Unit::Time, 100.0, 1.0));
    }

    #[test]
    fn what_slows_the_machine_too_is_no_regression() {
        assert!(
            !of(Unit::Time, 100.0, 250.0, Some(2.0)) && of(Unit::Time, 100.0, 270.0, Some(2.0))
        );
        assert!(!of(Unit::Rate, 260.0, 110.0, Some(0.5)) && of(Unit::Rate, 260.0, 90.0, Some(0.5)));
        // Nor does a machine that has become faster make one.
        assert!(!of(Unit::Time, 100.0, 110.0, Some(0.5)));
    }
}
