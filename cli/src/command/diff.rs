//! `op-dbus diff`: what changed between two moments.

use std::collections::BTreeSet;

use op_dbus_engine::{Difference, Record, Store};
use serde::Serialize;
use serde_json::value::RawValue;

use super::export::render;
use crate::args::{At, Diff};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::interrupt;
use crate::output::{Output, grouped, one_line};

/// A difference as JSON: documents stand there in every byte.
#[derive(Serialize)]
struct Line<'a> {
    collection: &'a str,
    key: &'a str,
    change: &'static str,
    before: Option<Box<RawValue>>,
    after: Option<Box<RawValue>>,
}

/// How often there is what.
#[derive(Default)]
struct Counts {
    added: u64,
    removed: u64,
    changed: u64,
}

pub(super) fn run(config: &Config, output: &Output, arguments: &Diff) -> Result<Exit> {
    interrupt::catch();
    let open =
        |moment: Option<&crate::args::Moment>| config.open_at_alone(&At { at: moment.cloned() });
    let [first, rest @ ..] = &arguments.at[..] else { unreachable!("clap asks for one") };
    if rest.len() > 1 {
        return Err(Error::Usage {
            problem: "two moments can be compared, not more".to_owned(),
            remedy: Some("give --at twice, or once to compare with what is now".to_owned()),
        });
    }
    let before = open(Some(first))?;
    let after = open(rest.first())?;
    let mut counts = Counts::default();
    for collection in collections(&before, &after, arguments) {
        for difference in before.differences(&after, &collection, arguments.prefix.as_bytes())? {
            if interrupt::is_requested() {
                return Ok(Exit::Interrupted);
            }
            tell(output, &collection, difference?, &mut counts)?;
        }
    }
    after.close();
    let Counts { added, removed, changed } = counts;
    let [plus, minus, other] = [added, removed, changed].map(grouped);
    output.note(&format!("{plus} added, {minus} removed, {other} changed"));
    Ok(if added + removed + changed == 0 { Exit::NothingFound } else { Exit::Success })
}

/// The collection that is asked for, or all that there are.
fn collections(before: &Store, after: &Store, arguments: &Diff) -> BTreeSet<String> {
    match &arguments.collection {
        Some(name) => BTreeSet::from([name.clone()]),
        None => {
            let all = before.collections().into_iter().chain(after.collections());
            all.map(|known| known.name).collect()
        }
    }
}

fn tell(
    output: &Output,
    collection: &str,
    difference: Difference,
    counts: &mut Counts,
) -> Result<()> {
    let Difference { key, before, after } = difference;
    let (sign, change, count) = match (&before, &after) {
        (None, _) => ('+', "added", &mut counts.added),
        (_, None) => ('-', "removed", &mut counts.removed),
        _ => ('~', "changed", &mut counts.changed),
    };
    *count += 1;
    let key = String::from_utf8_lossy(&key);
    if output.is_json() {
        return output.json(&Line {
            collection,
            key: &key,
            change,
            before: before.map(as_json).transpose()?,
            after: after.map(as_json).transpose()?,
        });
    }
    let line = format!("{sign} {collection} {key}");
    output.text(|out| writeln!(out, "{}", one_line(&line, usize::MAX)))
}

/// A record as it is exported.
fn as_json(record: Record) -> Result<Box<RawValue>> {
    let mut line = Vec::new();
    render(record, &mut line)?;
    serde_json::from_slice(&line).map_err(|error| Error::stdout(error.into()))
}
