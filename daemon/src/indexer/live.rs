//! The bus: which names there are, which come, and what is behind one.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::Notify;
use zbus::fdo::DBusProxy;
use zbus::names::{BusName, OwnedUniqueName};
use zbus::proxy::{Builder, CacheProperties, MethodFlags};
use zbus::{Connection, MatchRule, MessageStream, Proxy};

use super::claim::Names;
use super::walk::{self, Found};
use crate::config::Bus;
use crate::names::NAME;
use crate::service::builder_for;

/// The bus itself.
const BUS_NAME: &str = "org.freedesktop.DBus";
const INTROSPECTABLE: &str = "org.freedesktop.DBus.Introspectable";
/// How long the bus may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// More names than a bus has: what comes beyond comes to fill the memory.
const ARRIVED_COUNT_MAX: usize = 10_000;

/// Connects for indexing alone, so that nobody who answers badly is in the way of clients.
pub(super) async fn connect(bus: &Bus) -> zbus::Result<Connection> {
    let connecting = builder_for(bus).method_timeout(PATIENCE).build();
    match tokio::time::timeout(PATIENCE, connecting).await {
        Ok(connected) => connected,
        Err(late) => Err(zbus::Error::Failure(format!("the bus does not answer: {late}"))),
    }
}

/// Asks for the names that there are, but for that of this service and those of connections.
pub(super) async fn names(connection: &Connection) -> zbus::Result<Names> {
    let bus = DBusProxy::new(connection).await?;
    let wanted = |name: &String| !name.starts_with(':') && name != NAME;
    let names = |names: Vec<zbus::names::OwnedBusName>| {
        names.iter().map(ToString::to_string).filter(wanted).collect()
    };
    let owned: BTreeSet<String> = names(bus.list_names().await?);
    Ok(Names { owned, activatable: names(bus.list_activatable_names().await?) })
}

/// Walks the objects of whoever has a name. Nobody is started by that, and one who takes the name
/// over meanwhile is not asked in the other's place.
pub(super) async fn walk(connection: &Connection, name: &str) -> Found {
    let owner = match owner(connection, name).await {
        Ok(owner) => owner,
        Err(error) => {
            tracing::debug!(%error, name, "nobody has the name any more");
            return Found::default();
        }
    };
    let ask = |path: String| {
        let (connection, owner) = (connection.clone(), owner.clone());
        async move {
            let asked = introspect(&connection, &owner, &path).await;
            asked
                .inspect_err(|error| tracing::debug!(%error, path, "an object is not described"))
                .ok()
        }
    };
    walk::walk(name, name == BUS_NAME, walk::PATIENCE, ask).await
}

/// Who has a name; the bus has no other.
async fn owner(connection: &Connection, name: &str) -> zbus::Result<BusName<'static>> {
    let name = BusName::try_from(name.to_owned())?;
    if name == BUS_NAME {
        return Ok(name);
    }
    let owner: OwnedUniqueName = DBusProxy::new(connection).await?.get_name_owner(name).await?;
    Ok(owner.into_inner().into())
}

async fn introspect(
    connection: &Connection,
    owner: &BusName<'static>,
    path: &str,
) -> zbus::Result<String> {
    let proxy: Proxy<'_> = Builder::new(connection)
        .destination(owner)
        .path(path.to_owned())
        .interface(INTROSPECTABLE)
        .cache_properties(CacheProperties::No)
        .build()
        .await?;
    let flags = MethodFlags::NO_AUTO_START;
    let answer = proxy.call_with_flags("Introspect", flags, &()).await?;
    answer.ok_or_else(|| zbus::Error::Failure("no answer".to_owned()))
}

/// Names that somebody has got since they were asked for last.
#[derive(Default)]
pub(super) struct Arrivals {
    names: Mutex<BTreeSet<String>>,
    arrived: Notify,
}

impl Arrivals {
    /// Collects names until the connection ends. Nothing else is awaited here: whoever does not take
    /// messages off its queue holds up the whole connection.
    pub(super) async fn collect(&self, mut stream: MessageStream) {
        while let Some(message) = stream.next().await {
            let Ok(message) = message else { continue };
            let body = message.body();
            let Ok((name, _, owner)) = body.deserialize::<(&str, &str, &str)>() else { continue };
            if owner.is_empty() || name.starts_with(':') || name == NAME {
                continue;
            }
            let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
            if names.len() < ARRIVED_COUNT_MAX {
                names.insert(name.to_owned());
            }
            drop(names);
            self.arrived.notify_one();
        }
    }

    /// Waits for some, and takes them.
    pub(super) async fn take(&self) -> BTreeSet<String> {
        self.arrived.notified().await;
        std::mem::take(&mut *self.names.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Subscribes to changes of owners.
pub(super) async fn owner_changes(connection: &Connection) -> zbus::Result<MessageStream> {
    let rule = MatchRule::builder()
        .msg_type(zbus::message::Type::Signal)
        .sender(BUS_NAME)
        .interface(BUS_NAME)
        .member("NameOwnerChanged")
        .build()?;
    MessageStream::for_match_rule(rule, connection, None).await
}
