//! The interfaces of the service, one a file. Each method lets its caller in by the gate, says what
//! it wants in the engine's words, and turns the answer into the bus's.

mod cache;
mod journal;
mod options;
mod plugins;
mod query;
mod snapshot;
mod state;

use std::sync::Arc;

use zbus::Connection;
use zbus::message::Header;

pub use cache::CacheProxy;
pub use journal::JournalProxy;
pub use plugins::{PluginProxy, PluginRow, PluginsProxy, PreparedCall, object_path};
pub use query::{Hit, QueryProxy};
pub use snapshot::SnapshotProxy;
pub use state::StateProxy;

pub(crate) use cache::Cache;
pub(crate) use journal::Journal;
pub(crate) use plugins::{Plugin, Plugins};
pub(crate) use query::Query;
pub(crate) use snapshot::Snapshot;
pub(crate) use state::State;

use crate::caller::Caller;
use crate::error::Result;
use crate::gate::{Call, Reader};
use crate::service::Service;

/// What a method is called through: the service, and who is at the other end where there is no bus.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) service: Arc<Service>,
    pub(crate) peer: Option<Arc<Caller>>,
}

impl Door {
    fn call<'c>(&self, header: Header<'c>, connection: &'c Connection) -> Call<'c> {
        Call { header, connection, peer: self.peer.clone() }
    }

    async fn admit(&self, header: Header<'_>, connection: &Connection) -> Result<Reader> {
        self.service.gate.admit(&self.call(header, connection)).await
    }

    /// Admits whoever reads a property; nobody reads it where there is no header.
    async fn admit_to_property(
        &self,
        header: Option<Header<'_>>,
        connection: &Connection,
    ) -> Result<()> {
        if let Some(header) = header {
            self.admit(header, connection).await?;
        }
        Ok(())
    }
}
