//! The engine on the bus, and the bus in the engine.
//!
//! [`run`] serves a store as `org.opdbus`: methods find and read records, change them, take snapshots.
//! Everything comes in by one gate, which knows who calls, asks whether they may, and journals it. A
//! client of the engine like the command line, which is in turn a client of this, by the proxies.
//!
//! Calls that compute or wait for the disk run on threads of their own. There is no storage here, and
//! no word of command lines.

#![forbid(unsafe_code)]

mod audit;
mod authority;
mod caller;
mod config;
mod descriptions;
mod error;
mod explained;
mod find;
mod gate;
mod indexer;
mod interface;
pub mod interfaces;
pub mod json;
mod metrics;
mod names;
mod phrases;
pub mod plugin;
pub mod record;
mod service;
mod socket;
mod state;
mod traffic;
pub mod vector;

pub use config::{Bus, DaemonConfig, Limits, Readers};
pub use descriptions::{Descriptions, Risk};
pub use error::{BusError, CONFIRMATION_REQUIRED, LIMITS_EXCEEDED};
pub use explained::Explained;
pub use find::find;
pub use interface::{
    CacheProxy, Hit, JournalProxy, OptionValue, PluginProxy, PluginRow, PluginsProxy, PreparedCall,
    QueryProxy, SnapshotProxy, StateProxy, object_path,
};
pub use names::{NAME, PATH, PLUGINS_PATH};
pub use phrases::Phrases;
pub use service::run;
pub use state::{Change, PluginOutcome, PluginReport, StateReport};
pub use traffic::Traffic;
