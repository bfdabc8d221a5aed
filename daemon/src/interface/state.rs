//! `org.opdbus.State1`: documents of the state, and what becomes of them.

use std::sync::Arc;

use op_dbus_engine::{ErrorKind, Payload, Record, STATE_COLLECTION};
use serde_json::json;
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, interface};

use super::Door;
use crate::authority::Action;
use crate::error::{BusError, Result};
use crate::gate::{Request, blocking};

/// The interface.
pub(crate) struct State(pub(crate) Door);

#[interface(
    name = "org.opdbus.State1",
    proxy(default_service = "org.opdbus", default_path = "/org/opdbus", visibility = "pub")
)]
impl State {
    /// Reads a document: JSON.
    #[zbus(out_args("document"))]
    async fn get(
        &self,
        key: String,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<String> {
        let reader = self.0.admit(header, connection).await?;
        reader.require(STATE_COLLECTION)?;
        let store = Arc::clone(&self.0.service.store);
        let shown = format!("there is no document {key}");
        let record = blocking(move || store.get(STATE_COLLECTION, key.as_bytes())).await;
        let not_found = || BusError::new(ErrorKind::NotFound, shown, "put it first");
        match record?.ok_or_else(not_found)?.payload {
            Payload::Json(json) => Ok(json.into_owned()),
            Payload::None => Ok("null".to_owned()),
            Payload::Bytes(_) => {
                let problem = "the document is bytes, not JSON";
                Err(BusError::new(ErrorKind::Unsupported, problem, "read it by Query1.Get"))
            }
        }
    }

    /// Writes a document: JSON. Earlier versions of it are kept.
    #[zbus(proxy(allow_interactive_auth))]
    async fn put(
        &self,
        key: String,
        document: String,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<()> {
        let details = json!({ "key": key, "bytes": document.len() });
        let request = Request { action: Action::State, what: format!("put state {key}"), details };
        let call = self.0.call(header, connection);
        let put = self.0.service.gate.perform(&call, request, move |store| {
            let record = Record::new(key).with_payload(Payload::Json(document.into()));
            store.put(STATE_COLLECTION, &record)
        });
        put.await?;
        Ok(())
    }

    /// Tells of a document that was put or removed, with the number of the change.
    #[zbus(signal)]
    pub(crate) async fn changed(
        emitter: &SignalEmitter<'_>,
        key: &str,
        operation: &str,
        sequence: u64,
    ) -> zbus::Result<()>;
}
