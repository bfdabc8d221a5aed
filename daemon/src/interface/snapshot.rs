//! `org.opdbus.Snapshot1`: what the store was at some moment.

use std::sync::Arc;

use op_dbus_engine::{ErrorKind, Period, Retention, SnapshotInfo, Snapshots};
use serde_json::json;
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, interface};

use super::Door;
use crate::authority::Action;
use crate::error::{BusError, Result};
use crate::gate::{Request, blocking};

/// The most of a file system that may be demanded to be free, in percent.
const FREE_PERCENT_MIN_MAX: u8 = 90;

/// The interface.
pub(crate) struct Snapshot(pub(crate) Door);

#[interface(
    name = "org.opdbus.Snapshot1",
    proxy(default_service = "org.opdbus", default_path = "/org/opdbus", visibility = "pub")
)]
impl Snapshot {
    /// Takes a snapshot, and returns its name. A kept one is not deleted to make room for others.
    #[zbus(proxy(allow_interactive_auth), out_args("name"))]
    async fn create(
        &self,
        reason: String,
        keep: bool,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<String> {
        let details = json!({ "reason": reason, "keep": keep });
        let request = Request { action: Action::Snapshot, what: "take a snapshot".into(), details };
        let call = self.0.call(header, connection);
        let gate = &self.0.service.gate;
        let taken = gate.perform(&call, request, move |store| store.take_snapshot(&reason, keep));
        let name = taken.await?.name;
        self.changed(&emitter).await;
        Ok(name)
    }

    /// Lists the snapshots, oldest first: name, when (milliseconds since 1970), reason, whether it is
    /// kept, and the last change in it.
    #[zbus(out_args("snapshots"))]
    async fn list(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<(String, u64, String, bool, u64)>> {
        let _reader = self.0.admit(header, connection).await?;
        let listed = self.snapshots().await?;
        let row = |info: SnapshotInfo| {
            (info.name, info.taken_unix_ms, info.reason, info.is_kept, info.sequence)
        };
        Ok(listed.into_iter().map(row).collect())
    }

    /// Deletes a snapshot.
    #[zbus(proxy(allow_interactive_auth))]
    async fn delete(
        &self,
        name: String,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<()> {
        let details = json!({ "name": name });
        let request =
            Request { action: Action::Snapshot, what: "delete a snapshot".into(), details };
        let call = self.0.call(header, connection);
        let deleted = self
            .0
            .service
            .gate
            .perform(&call, request, move |store| Snapshots::of(store.path()).delete(&name));
        deleted.await?;
        self.changed(&emitter).await;
        Ok(())
    }

    /// Deletes the snapshots that need not stay, and returns their names. Those stay that are kept, the
    /// last `count`, and of each period (hour, day or week, so many of them) the last; the earliest of
    /// them goes all the same where less than so many percent of the file system are free.
    #[zbus(out_args("deleted"))]
    async fn prune(
        &self,
        count: u32,
        schedule: Vec<(u32, String)>,
        free_percent_min: u8,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<Vec<String>> {
        let details = json!({
            "count": count, "schedule": schedule, "free_percent_min": free_percent_min,
        });
        let retention = retention(count, &schedule, free_percent_min)?;
        let what = "delete snapshots that need not stay".into();
        let request = Request { action: Action::Snapshot, what, details };
        let call = self.0.call(header, connection);
        let pruned =
            self.0.service.gate.perform(&call, request, move |store| {
                Snapshots::of(store.path()).prune(&retention)
            });
        let deleted = pruned.await?;
        if !deleted.is_empty() {
            self.changed(&emitter).await;
        }
        Ok(deleted)
    }

    /// The names of the snapshots, oldest first.
    #[zbus(property)]
    async fn names(
        &self,
        #[zbus(header)] header: Option<Header<'_>>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<String>> {
        self.0.admit_to_property(header, connection).await?;
        Ok(self.snapshots().await?.into_iter().map(|info| info.name).collect())
    }
}

impl Snapshot {
    async fn snapshots(&self) -> Result<Vec<SnapshotInfo>> {
        let store = Arc::clone(&self.0.service.store);
        blocking(move || Snapshots::of(store.path()).list()).await
    }

    /// Tells others; what they are not told they can ask.
    async fn changed(&self, emitter: &SignalEmitter<'_>) {
        if let Err(error) = self.names_changed(emitter).await {
            tracing::warn!(%error, "nobody was told of a snapshot");
        }
    }
}

/// What a caller wants to stay. Nothing at all is a mistake rather than a wish.
fn retention(count: u32, schedule: &[(u32, String)], free_percent_min: u8) -> Result<Retention> {
    let invalid = |problem: String, remedy| BusError::new(ErrorKind::Invalid, problem, remedy);
    if count == 0 {
        return Err(invalid("no snapshot would stay".to_owned(), "let one stay at least"));
    }
    if free_percent_min > FREE_PERCENT_MIN_MAX {
        let problem = format!("{free_percent_min} percent of a file system are never free");
        return Err(invalid(problem, "demand 90 at most"));
    }
    let part = |(count, name): &(u32, String)| {
        let period = Period::ALL.into_iter().find(|period| period.name() == name);
        let unknown = || invalid(format!("\"{name}\" is no period"), "use hour, day or week");
        Ok((*count as usize, period.ok_or_else(unknown)?))
    };
    let schedule = schedule.iter().map(part).collect::<Result<_>>()?;
    Ok(Retention { count: count as usize, schedule, free_percent_min })
}
