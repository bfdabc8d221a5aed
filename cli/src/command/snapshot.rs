//! `op-dbus snapshot`: take, list, delete and restore.

use std::io::Write;

use op_dbus_engine::{ErrorKind, SnapshotInfo, SnapshotSize};
use serde::Serialize;
use serde_json::json;

use super::transfer;
use crate::args::{Snapshot, SnapshotCreate, SnapshotDelete, SnapshotRestore};
use crate::config::Config;
use crate::error::Result;
use crate::exit::Exit;
use crate::output::{Output, bytes, columns, grouped, one_line};

/// Columns of the name of a snapshot.
const NAME_COLUMNS: usize = 16;

#[derive(Serialize)]
struct Listed {
    #[serde(flatten)]
    info: SnapshotInfo,
    #[serde(flatten)]
    size: SnapshotSize,
}

pub(super) fn run(config: &Config, output: &Output, command: Snapshot) -> Result<Exit> {
    match command {
        Snapshot::Create(arguments) => create(config, output, &arguments),
        Snapshot::List => list(config, output),
        Snapshot::Delete(arguments) => delete(config, output, &arguments),
        Snapshot::Restore(arguments) => restore(config, output, &arguments),
        Snapshot::Send(arguments) => transfer::send(config, output, &arguments),
        Snapshot::Receive(arguments) => transfer::receive(config, output, &arguments),
    }
}

pub(super) fn create(config: &Config, output: &Output, arguments: &SnapshotCreate) -> Result<Exit> {
    let store = config.open()?;
    let taken = store.take_snapshot(&arguments.reason, arguments.keep)?;
    store.close();
    let deleted = config.snapshots().prune(&arguments.retention())?;
    output.answer(&json!({ "snapshot": taken, "deleted": deleted }), |out| {
        writeln!(out, "{}", taken.name)
    })?;
    if !deleted.is_empty() {
        output.note(&format!(
            "deleted, by --retention, --schedule and --min-free: {}",
            deleted.join(", ")
        ));
    }
    Ok(Exit::Success)
}

pub(super) fn list(config: &Config, output: &Output) -> Result<Exit> {
    let all = config.snapshots();
    if !config.store().exists() {
        let context = format!("there is no directory {}", config.store().display());
        return Err(op_dbus_engine::Error::new(ErrorKind::NotFound, context)
            .with_remedy("name the directory of a store with --store")
            .into());
    }
    let mut snapshots = Vec::new();
    for info in all.list()? {
        match all.size(&info.name) {
            Ok(size) => snapshots.push(Listed { info, size }),
            // Somebody else has deleted it.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    output.answer(&json!({ "snapshots": snapshots }), |out| render(out, &snapshots))?;
    Ok(if snapshots.is_empty() { Exit::NothingFound } else { Exit::Success })
}

fn render(out: &mut dyn Write, snapshots: &[Listed]) -> std::io::Result<()> {
    let width = snapshots.iter().map(|listed| listed.info.name.len()).max().unwrap_or_default();
    let width = width.max(NAME_COLUMNS);
    writeln!(out, "{:width$}  {:>10} {:>10} {:>10}", "name (UTC)", "change", "bytes", "its own")?;
    for Listed { info, size } in snapshots {
        let SnapshotInfo { name, sequence, reason, is_kept, is_shared, .. } = info;
        let sequence = grouped(*sequence);
        let [total, own] = [size.total_bytes, size.exclusive_bytes].map(bytes);
        let mark = match (is_kept, is_shared) {
            (true, _) => "kept",
            (_, true) => "shared",
            _ => "",
        };
        let line = format!("{name:width$}  {sequence:>10} {total:>10} {own:>10}  {mark:6}");
        let room = columns().saturating_sub(line.len() + 2);
        writeln!(out, "{}", format!("{line}  {}", one_line(reason, room)).trim_end())?;
    }
    Ok(())
}

pub(super) fn delete(config: &Config, output: &Output, arguments: &SnapshotDelete) -> Result<Exit> {
    let snapshots = config.snapshots();
    for name in &arguments.names {
        snapshots.delete(name)?;
        output.note(&format!("{name}: deleted"));
    }
    if output.is_json() {
        output.json(&json!({ "deleted": arguments.names }))?;
    }
    Ok(Exit::Success)
}

fn restore(config: &Config, output: &Output, arguments: &SnapshotRestore) -> Result<Exit> {
    let (name, snapshots) = (&arguments.name, config.snapshots());
    let Some(to) = &arguments.to else { return restore_in_place(config, output, name) };
    snapshots.restore(name, to)?;
    output.answer(&json!({ "name": name, "directory": to }), |out| {
        writeln!(out, "{name}: restored in {}", to.display())
    })?;
    Ok(Exit::Success)
}

fn restore_in_place(config: &Config, output: &Output, name: &str) -> Result<Exit> {
    let snapshots = config.snapshots();
    // Before anything is taken that nobody needs.
    snapshots.named(name)?;
    let store = config.open()?;
    let before = store.take_snapshot(&format!("before going back to {name}"), true)?;
    store.close();
    snapshots.restore_in_place(name)?;
    let directory = config.store();
    let answer = json!({ "name": name, "directory": directory, "before": before });
    output.answer(&answer, |out| {
        writeln!(out, "{name}: restored; what was there before is {}", before.name)
    })?;
    Ok(Exit::Success)
}
