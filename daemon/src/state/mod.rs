//! Declared state: what plugins are to make of the system, in which order, and back again.
//!
//! A file names plugins and what each is to make true. It is compared with what is, applied plugin by
//! plugin, those that others depend on first, and verified. If one fails, everything that was applied
//! is taken back to what was before, the last first; what became of each is told as it is.

mod apply;
mod handwritten;
mod mapped;
mod order;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use apply::{Context, DECLARED_COLLECTION, DECLARED_KEY, States};

/// Something that is not as it should be, or was not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// What it is, as names joined by points: `containers.web.running`.
    pub path: String,
    /// What it is now.
    #[serde(default)]
    pub from: Value,
    /// What it is to be.
    #[serde(default)]
    pub to: Value,
    /// What is done about it, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub what: String,
}

/// What came of applying something with one plugin.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// What was done, in order.
    pub(crate) changes: Vec<Change>,
    /// Why the rest was not.
    pub(crate) problem: Option<String>,
}

/// How it stands with one plugin at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PluginOutcome {
    /// It would be changed.
    Planned,
    /// It was as declared before.
    Unchanged,
    /// It is as declared now.
    Applied,
    /// It could not be made so, and is what it was before.
    RolledBack,
    /// It could not be made so, and could not be taken back either.
    Failed,
    /// Its turn did not come.
    Untouched,
}

/// What became of one plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PluginReport {
    /// Its name.
    pub plugin: String,
    /// How it stands at the end.
    pub outcome: PluginOutcome,
    /// What was changed, or would be, in order.
    pub changes: Vec<Change>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What became of declared state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StateReport {
    /// Whether everything is as declared now; of a plan, whether it was.
    pub as_declared: bool,
    /// Each plugin, in the order in which they are applied.
    pub plugins: Vec<PluginReport>,
}
