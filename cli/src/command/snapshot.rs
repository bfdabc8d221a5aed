//! `op-dbus snapshot`: take, list, delete and restore.

use std::io::Write;

use op_dbus_daemon::SnapshotProxy;
use op_dbus_engine::{ErrorKind, Period, Retention, SnapshotInfo, SnapshotSize};
use serde::Serialize;
use serde_json::json;

use super::transfer;
use crate::args::{Snapshot, SnapshotCreate, SnapshotDelete, SnapshotRestore};
use crate::client::Client;
use crate::config::Config;
use crate::error::Result;
use crate::exit::Exit;
use crate::output::{Output, bytes, columns, grouped, one_line};
use crate::source::Source;

/// Columns of the name of a snapshot.
const NAME_COLUMNS: usize = 16;

/// A snapshot as it is listed.
#[derive(Serialize)]
struct Listed {
    name: String,
    taken_unix_ms: u64,
    sequence: u64,
    reason: String,
    is_kept: bool,
    /// Known to who reads the directory, and not told by the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    is_shared: Option<bool>,
    /// Likewise.
    #[serde(flatten)]
    size: Option<SnapshotSize>,
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
    let retention = arguments.retention();
    let (taken, deleted) = match config.change_or_ask()? {
        Source::Store(store) => {
            let taken = store.take_snapshot(&arguments.reason, arguments.keep)?;
            store.close();
            let deleted = config.snapshots().prune(&retention)?;
            (Listed::of(taken, None), deleted)
        }
        Source::Service(client) => ask_for_one(&client, arguments, &retention)?,
    };
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

/// Has the service take one, and delete those that need not stay.
fn ask_for_one(
    client: &Client,
    arguments: &SnapshotCreate,
    retention: &Retention,
) -> Result<(Listed, Vec<String>)> {
    let name = client.ask(SnapshotProxy::builder, async |proxy| {
        proxy.create(arguments.reason.clone(), arguments.keep).await
    })?;
    // Before others go: it may be gone itself when they have.
    let taken = ask_for_all(client)?.into_iter().find(|listed| listed.name == name);
    let taken = taken.ok_or_else(|| {
        let context = format!("the snapshot {name} was taken, and deleted by somebody else");
        op_dbus_engine::Error::new(ErrorKind::NotFound, context).with_remedy("take another")
    })?;
    let part = |&(count, period): &(usize, Period)| {
        (u32::try_from(count).unwrap_or(u32::MAX), period.name().to_owned())
    };
    let count = u32::try_from(retention.count).unwrap_or(u32::MAX);
    let schedule: Vec<_> = retention.schedule.iter().map(part).collect();
    let deleted = client.ask(SnapshotProxy::builder, async |proxy| {
        proxy.prune(count, schedule, retention.free_percent_min).await
    })?;
    Ok((taken, deleted))
}

/// Has the service list them.
fn ask_for_all(client: &Client) -> Result<Vec<Listed>> {
    let rows = client.ask(SnapshotProxy::builder, async |proxy| proxy.list().await)?;
    let listed = |(name, taken_unix_ms, reason, is_kept, sequence)| Listed {
        name,
        taken_unix_ms,
        sequence,
        reason,
        is_kept,
        is_shared: None,
        size: None,
    };
    Ok(rows.into_iter().map(listed).collect())
}

pub(super) fn list(config: &Config, output: &Output) -> Result<Exit> {
    // Unless told: whoever may read the directory learns more from it, also while the store is in use.
    let snapshots = match config.bus() {
        Some(bus) => ask_for_all(&Client::connect(bus)?)?,
        None => read_all(config)?,
    };
    output.answer(&json!({ "snapshots": snapshots }), |out| render(out, &snapshots))?;
    Ok(if snapshots.is_empty() { Exit::NothingFound } else { Exit::Success })
}

fn read_all(config: &Config) -> Result<Vec<Listed>> {
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
            Ok(size) => snapshots.push(Listed::of(info, Some(size))),
            // Somebody else has deleted it.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(snapshots)
}

impl Listed {
    fn of(info: SnapshotInfo, size: Option<SnapshotSize>) -> Self {
        let SnapshotInfo { name, taken_unix_ms, sequence, reason, is_kept, is_shared } = info;
        Self { name, taken_unix_ms, sequence, reason, is_kept, is_shared: Some(is_shared), size }
    }
}

fn render(out: &mut dyn Write, snapshots: &[Listed]) -> std::io::Result<()> {
    let width = snapshots.iter().map(|listed| listed.name.len()).max().unwrap_or_default();
    let width = width.max(NAME_COLUMNS);
    writeln!(out, "{:width$}  {:>10} {:>10} {:>10}", "name (UTC)", "change", "bytes", "its own")?;
    for Listed { name, sequence, reason, is_kept, is_shared, size, .. } in snapshots {
        let sequence = grouped(*sequence);
        let [total, own] = match size {
            Some(size) => [size.total_bytes, size.exclusive_bytes].map(bytes),
            None => ["–"; 2].map(str::to_owned),
        };
        let mark = match (is_kept, is_shared) {
            (true, _) => "kept",
            (_, Some(true)) => "shared",
            _ => "",
        };
        let line = format!("{name:width$}  {sequence:>10} {total:>10} {own:>10}  {mark:6}");
        let room = columns().saturating_sub(line.chars().count() + 2);
        writeln!(out, "{}", format!("{line}  {}", one_line(reason, room)).trim_end())?;
    }
    Ok(())
}

pub(super) fn delete(config: &Config, output: &Output, arguments: &SnapshotDelete) -> Result<Exit> {
    let (service, snapshots) = (config.service()?, config.snapshots());
    for name in &arguments.names {
        match &service {
            // It tells others, and keeps who did it in its journal.
            Some(client) => client
                .ask(SnapshotProxy::builder, async |proxy| proxy.delete(name.clone()).await)?,
            None => snapshots.delete(name)?,
        }
        output.note(&format!("{name}: deleted"));
    }
    if output.is_json() {
        output.json(&json!({ "deleted": arguments.names }))?;
    }
    Ok(Exit::Success)
}

fn restore(config: &Config, output: &Output, arguments: &SnapshotRestore) -> Result<Exit> {
    config.ask_nobody()?;
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
