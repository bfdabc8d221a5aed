//! The service as its clients see it: asked by the proxies that are made with its interfaces.

use std::time::Duration;

use op_dbus_daemon::{Bus, BusError};
use op_dbus_engine::{Error as EngineError, ErrorKind};
use tokio::runtime::Runtime;
use zbus::connection::Builder;
use zbus::proxy::{self, CacheProperties, Defaults};
use zbus::{Connection, Proxy};

use crate::error::Result;

/// How long an answer may take. Embedding many texts takes longest.
const PATIENCE: Duration = Duration::from_secs(300);

/// A connection to the service.
pub(crate) struct Client {
    runtime: Runtime,
    connection: Connection,
}

impl Client {
    /// Connects, without asking anything yet.
    pub(crate) fn connect(bus: &Bus) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| EngineError::new(ErrorKind::Io, "no runtime").with_source(error))?;
        let connection = runtime.block_on(Self::open(bus)).map_err(|error| {
            EngineError::new(ErrorKind::Unavailable, format!("cannot reach the bus {bus}"))
                .with_source(error)
                .with_remedy("start op-dbus daemon there, or leave out --bus to open the store")
        })?;
        Ok(Self { runtime, connection })
    }

    /// Asks something of an object, by its proxy.
    ///
    /// A property is read when it is asked for, once: to keep all of them, and hear when they change, would
    /// be a dozen calls more.
    pub(crate) fn ask<'p, P, T>(
        &self,
        proxy: impl FnOnce(&Connection) -> proxy::Builder<'p, P>,
        ask: impl AsyncFnOnce(P) -> Result<T, BusError>,
    ) -> Result<T>
    where
        P: From<Proxy<'p>> + Defaults,
    {
        let proxy = proxy(&self.connection).cache_properties(CacheProperties::No);
        let asked = self.runtime.block_on(async { ask(proxy.build().await?).await });
        Ok(asked.map_err(EngineError::from)?)
    }

    /// Asks something over the connection.
    pub(crate) fn run<T>(
        &self,
        ask: impl AsyncFnOnce(&Connection) -> Result<T, EngineError>,
    ) -> Result<T> {
        Ok(self.runtime.block_on(ask(&self.connection))?)
    }

    /// Makes a connection, for whoever is asynchronous already.
    pub(crate) async fn open(bus: &Bus) -> zbus::Result<Connection> {
        let builder = match bus {
            Bus::System => Builder::system(),
            Bus::Session => Builder::session(),
            Bus::Address(address) => Builder::address(address.as_str()),
            Bus::Socket(path) => {
                let stream = std::os::unix::net::UnixStream::connect(path)?;
                Builder::unix_stream(stream).p2p()
            }
        };
        builder.method_timeout(PATIENCE).build().await
    }
}
