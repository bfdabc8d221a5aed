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

use op_dbus_engine::{Embedder, Error, ErrorKind, Store};
use zbus::message::Header;
use zbus::names::InterfaceName;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, Variant, fdo};

pub use cache::CacheProxy;
pub use journal::JournalProxy;
pub use options::OptionValue;
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
use crate::error::{BusError, Result};
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

    /// The model, for what texts are needed for.
    ///
    /// On the bus nobody has asked for the directory that it is not in: it has to be installed.
    fn model(store: &Store) -> op_dbus_engine::Result<Arc<Embedder>> {
        store.embedder().map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                let missing = Error::new(ErrorKind::Unavailable, error.to_string());
                missing.with_remedy(error.remedy().unwrap_or("install a model").to_owned())
            }
            _ => error,
        })
    }

    /// Admits whoever reads a property. Where there is no header nobody knows who reads it: such are
    /// GetManagedObjects, which everybody may call, and signals, which everybody hears.
    async fn admit_to_property(
        &self,
        header: Option<Header<'_>>,
        connection: &Connection,
    ) -> Result<Reader> {
        let Some(header) = header else {
            let problem = "properties are told those alone who ask for them";
            return Err(BusError::new(ErrorKind::Denied, problem, "use Properties.Get or GetAll"));
        };
        self.admit(header, connection).await
    }

    /// Tells others that names are others now.
    async fn tell_names(emitter: &SignalEmitter<'_>, interface: &str, names: Vec<String>) {
        let told = async {
            let changed = [("Names", Variant::from(names))].into();
            let interface = InterfaceName::try_from(interface)?;
            fdo::Properties::properties_changed(emitter, interface, changed, (&[]).into()).await
        };
        if let Err(error) = told.await {
            tracing::warn!(%error, interface, "nobody was told of names");
        }
    }
}
