//! Who answers: the service that has the store open, or the store, opened as long as it is needed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use op_dbus_daemon::{Bus, NAME};
use op_dbus_engine::{Error as EngineError, ErrorKind, Store};
use tokio::sync::Mutex;
use zbus::Connection;
use zbus::fdo::DBusProxy;
use zbus::names::BusName;

use crate::client::Client;
use crate::config::Config;
use crate::error::{Error, Result};

/// How long a store stays open that nobody asks: others want it, too.
const IDLE_TIME: Duration = Duration::from_secs(10);

/// Who answers one request.
#[derive(Clone)]
pub(super) enum Source {
    Store(Arc<Store>),
    Service(Connection),
}

/// Who has answered so far.
pub(super) struct Sources {
    config: Config,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    store: Option<Arc<Store>>,
    store_used: Option<Instant>,
    /// One connection for all requests: a confirmation counts for the connection that it was given to.
    service: Option<(Bus, Connection)>,
}

impl Sources {
    pub(super) fn new(config: Config) -> Self {
        Self { config, state: Mutex::default() }
    }

    /// Whoever answers questions: the service that was named, or that has the store open, or the store.
    pub(super) async fn any(self: &Arc<Self>) -> Result<Source> {
        let mut state = self.state.lock().await;
        if let Some(store) = &state.store {
            let store = Arc::clone(store);
            state.store_used = Some(Instant::now());
            return Ok(Source::Store(store));
        }
        if let Some(bus) = self.config.bus() {
            return Ok(Source::Service(state.connection(bus).await?));
        }
        if let Some((bus, connection)) = &state.service
            && is_served(bus, connection).await
            && self.config.holder().as_ref() == Some(bus)
        {
            return Ok(Source::Service(connection.clone()));
        }
        let sources = Arc::clone(self);
        let opened = tokio::task::spawn_blocking(move || sources.config.open()).await;
        match opened.map_err(failed)? {
            Ok(store) => {
                let store = Arc::new(store);
                state.store = Some(Arc::clone(&store));
                state.store_used = Some(Instant::now());
                Ok(Source::Store(store))
            }
            Err(Error::Engine(error)) if error.kind() == ErrorKind::Busy => {
                match self.config.holder() {
                    Some(bus) => Ok(Source::Service(state.connection(&bus).await?)),
                    None => Err(error.into()),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// The service, which methods are called through: the one that was named, that has the store open,
    /// or the system's.
    pub(super) async fn service(&self) -> Result<(Bus, Connection)> {
        let bus = self.config.service_bus();
        let connection = self.state.lock().await.connection(&bus).await?;
        Ok((bus, connection))
    }

    /// Closes a store that is open, once nobody asks it any more.
    pub(super) async fn close(&self) {
        let store = self.state.lock().await.store.take();
        close(store).await;
    }
}

impl State {
    /// The connection to a bus, made anew if it has gone.
    async fn connection(&mut self, bus: &Bus) -> Result<Connection> {
        if let Some((known, connection)) = &self.service
            && known == bus
            && !is_closed(connection).await
        {
            return Ok(connection.clone());
        }
        let connection = Client::open(bus).await.map_err(|error| {
            let remedy = "start op-dbus daemon there: methods are called through the service alone";
            EngineError::new(ErrorKind::Unavailable, format!("cannot reach the bus {bus}"))
                .with_source(error)
                .with_remedy(remedy)
        })?;
        self.service = Some((bus.clone(), connection.clone()));
        Ok(connection)
    }
}

async fn is_closed(connection: &Connection) -> bool {
    tokio::select! {
        biased;
        () = connection.closed() => true,
        () = std::future::ready(()) => false,
    }
}

/// Whether the service is at the other end still.
async fn is_served(bus: &Bus, connection: &Connection) -> bool {
    if matches!(bus, Bus::Socket(_)) {
        return !is_closed(connection).await;
    }
    let asked = async {
        let name = BusName::try_from(NAME)?;
        let bus = DBusProxy::new(connection).await?;
        Ok::<bool, zbus::Error>(bus.name_has_owner(name).await?)
    };
    asked.await.unwrap_or(false)
}

/// Closes the store whenever it was not asked for a while, so that others can have it.
pub(super) async fn release_when_idle(sources: Arc<Sources>) {
    let mut interval = tokio::time::interval(IDLE_TIME / 10);
    loop {
        interval.tick().await;
        let mut state = sources.state.lock().await;
        let is_idle = state.store_used.is_some_and(|used| used.elapsed() >= IDLE_TIME);
        if is_idle && state.store.as_ref().is_some_and(|store| Arc::strong_count(store) == 1) {
            let store = state.store.take();
            // The next who asks waits until it is closed.
            close(store).await;
        }
    }
}

async fn close(store: Option<Arc<Store>>) {
    let Some(store) = store.and_then(Arc::into_inner) else { return };
    // It panics only by a defect, which its own message has told.
    let _ = tokio::task::spawn_blocking(move || store.close()).await;
}

pub(super) fn failed(error: tokio::task::JoinError) -> EngineError {
    EngineError::new(ErrorKind::Io, "it failed").with_source(error)
}
