//! `org.opdbus.State1`: documents of the state, and what becomes of them.

use std::sync::Arc;

use op_dbus_engine::{ErrorKind, Payload, Record, STATE_COLLECTION};
use op_dbus_formats::state_file::{self, StateFile};
use serde_json::json;
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, interface};

use super::Door;
use crate::authority::Action;
use crate::error::{BusError, Result};
use crate::gate::{Request, blocking};
use crate::plugin::Plugins;
use crate::state::{Context, DECLARED_COLLECTION, DECLARED_KEY};

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

    /// Reads what the state of a plugin is: JSON.
    #[zbus(out_args("state"))]
    async fn query(
        &self,
        plugin: String,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<String> {
        let _reader = self.0.admit(header, connection).await?;
        let (service, plugins) = (&self.0.service, self.0.service.plugins());
        let state = service.states.query(&self.context(&plugins, connection), &plugin).await?;
        Ok(state.to_string())
    }

    /// Says what Apply would do with a file of declared state: JSON, plugin by plugin.
    #[zbus(out_args("report"))]
    async fn diff(
        &self,
        state: String,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<String> {
        let _reader = self.0.admit(header, connection).await?;
        let (service, plugins) = (&self.0.service, self.0.service.plugins());
        let file = parsed(&state)?;
        let report = service.states.plan(&self.context(&plugins, connection), &file).await?;
        Ok(json!(report).to_string())
    }

    /// Makes a file of declared state true, or leaves everything as it was, and says what became of
    /// each plugin: JSON.
    #[zbus(proxy(allow_interactive_auth), out_args("report"))]
    async fn apply(
        &self,
        state: String,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<String> {
        let file = parsed(&state)?;
        self.apply_file(file, "apply state", header, connection).await
    }

    /// Says what of a file of declared state is not true: JSON, plugin by plugin. Of an empty text it
    /// is the file that was applied last.
    #[zbus(out_args("report"))]
    async fn verify(
        &self,
        state: String,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<String> {
        let _reader = self.0.admit(header, connection).await?;
        let (service, plugins) = (&self.0.service, self.0.service.plugins());
        let file = match state.as_str() {
            "" => self.applied(None).await?,
            state => parsed(state)?,
        };
        let report = service.states.verify(&self.context(&plugins, connection), &file).await?;
        Ok(json!(report).to_string())
    }

    /// Lists the files that were applied, the last first: number, and when in milliseconds since
    /// 1970.
    #[zbus(out_args("applied"))]
    async fn history(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<(u64, u64)>> {
        let _reader = self.0.admit(header, connection).await?;
        let store = Arc::clone(&self.0.service.store);
        let versions =
            blocking(move || store.history(DECLARED_COLLECTION, DECLARED_KEY.as_bytes())).await?;
        Ok(versions.iter().map(|version| (version.number, version.written_at_unix_ms)).collect())
    }

    /// Applies a file again that was applied before, by its number in History.
    #[zbus(proxy(allow_interactive_auth), out_args("report"))]
    async fn rollback(
        &self,
        number: u64,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<String> {
        // Whether there is one is told to those alone who may read.
        self.0.admit(header.clone(), connection).await?;
        let file = self.applied(Some(number)).await?;
        let what = format!("roll back to state {number}");
        self.apply_file(file, &what, header, connection).await
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

impl State {
    fn context<'c>(&'c self, plugins: &'c Plugins, connection: &'c Connection) -> Context<'c> {
        // Without a bus a connection leads to its client, and to no service.
        let connection = Some(connection).filter(|_| self.0.peer.is_none());
        Context { store: &self.0.service.store, plugins, connection }
    }

    async fn apply_file(
        &self,
        file: StateFile,
        what: &str,
        header: Header<'_>,
        connection: &Connection,
    ) -> Result<String> {
        let named: Vec<String> = file.plugins.iter().map(|(name, _)| name.to_string()).collect();
        let details = json!({ "plugins": named });
        let request = Request { action: Action::State, what: what.to_owned(), details };
        let service = &self.0.service;
        let permit = service.gate.permit(&self.0.call(header, connection), request).await?;
        let plugins = service.plugins();
        let context = self.context(&plugins, connection);
        match service.states.apply(&context, &file, permit.intent()).await {
            Ok(report) => {
                let outcomes: Vec<_> = report
                    .plugins
                    .iter()
                    .map(|plugin| json!({ "plugin": plugin.plugin, "outcome": plugin.outcome }))
                    .collect();
                let outcome = json!({ "succeeded": report.as_declared, "plugins": outcomes });
                permit.finish(outcome).await?;
                Ok(json!(report).to_string())
            }
            Err(error) => {
                let outcome = json!({ "succeeded": false, "problem": error.problem() });
                permit.finish(outcome).await?;
                Err(error)
            }
        }
    }

    /// A file that was applied: the last, or the one with this number.
    async fn applied(&self, number: Option<u64>) -> Result<StateFile> {
        let store = Arc::clone(&self.0.service.store);
        let key = DECLARED_KEY.as_bytes();
        let record = blocking(move || match number {
            Some(number) => store.get_version(DECLARED_COLLECTION, key, number),
            None => store.get(DECLARED_COLLECTION, key),
        });
        match record.await?.map(|record| record.payload) {
            Some(Payload::Json(json)) => parsed(&json),
            _ => {
                let problem = match number {
                    Some(number) => format!("no state {number} was applied, or it is too old"),
                    None => "no state was applied yet".to_owned(),
                };
                Err(BusError::new(ErrorKind::NotFound, problem, "see op-dbus state history"))
            }
        }
    }
}

fn parsed(text: &str) -> Result<StateFile> {
    state_file::parse(text.as_bytes()).map_err(|error| {
        let problem = format!("the declared state is wrong: {error}");
        BusError::new(ErrorKind::Invalid, problem, "correct it")
    })
}
