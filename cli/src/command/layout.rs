//! `op-dbus layout`: how the directories of a store lie on its file system.

use op_dbus_engine::{PartKind, migrate_layout};
use serde_json::json;

use crate::config::Config;
use crate::error::Result;
use crate::exit::Exit;
use crate::output::Output;

pub(super) fn migrate(config: &Config, output: &Output) -> Result<Exit> {
    let parts = migrate_layout(config.store())?;
    let is_migrated = |kind| kind == PartKind::Migrated;
    let rows: Vec<_> = parts
        .iter()
        .map(|(directory, kind)| json!({ "directory": directory, "migrated": is_migrated(*kind) }))
        .collect();
    output.answer(&json!({ "parts": rows }), |out| {
        parts.iter().try_for_each(|(directory, kind)| {
            let state = if is_migrated(*kind) { "is a subvolume now" } else { "is a subvolume" };
            writeln!(out, "{}: {state}", directory.display())
        })
    })?;
    Ok(Exit::Success)
}
