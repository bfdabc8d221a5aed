//! `op-dbus layout`: how the directories of a store lie on its file system.

use op_dbus_engine::{PartKind, migrate_layout};
use serde_json::json;

use crate::config::Config;
use crate::error::Result;
use crate::exit::Exit;
use crate::output::Output;

pub(super) fn migrate(config: &Config, output: &Output) -> Result<Exit> {
    config.ask_nobody()?;
    let parts = migrate_layout(config.store(), config.subvolumes())?;
    let row = |(directory, kind): &(_, PartKind)| {
        json!({
            "directory": directory,
            "subvolume": *kind != PartKind::Plain,
            "migrated": *kind == PartKind::Migrated,
        })
    };
    let rows: Vec<_> = parts.iter().map(row).collect();
    output.answer(&json!({ "parts": rows }), |out| {
        parts.iter().try_for_each(|(directory, kind)| {
            let state = match kind {
                PartKind::Migrated => "is a subvolume now",
                PartKind::Subvolume => "is a subvolume",
                PartKind::Plain => "stays a plain directory, as was told",
            };
            writeln!(out, "{}: {state}", directory.display())
        })
    })?;
    Ok(Exit::Success)
}
