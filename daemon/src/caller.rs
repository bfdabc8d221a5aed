//! Who calls: what the kernel and the bus say of a connection, asked once.
//!
//! A unique name is never given twice, so what was learnt about one stays true. Names of people who
//! left are forgotten when the bus says so.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use op_dbus_engine::{ErrorKind, JournalActor};
use tokio::net::unix::UCred;
use tokio::sync::Semaphore;
use zbus::Connection;
use zbus::fdo::{ConnectionCredentials, DBusProxy};
use zbus::message::Header;
use zbus::names::OwnedUniqueName;

use crate::config::Limits;
use crate::error::{BusError, Result};

/// More connections than a bus has: what is kept beyond is kept by mistake.
const KNOWN_COUNT_MAX: usize = 20_000;

/// How long the bus may take to say who somebody is.
const PATIENCE: Duration = Duration::from_secs(10);

/// Refusals that are held back from one caller; more than a system's bus lets it wait for.
const REFUSALS_COUNT_MAX: usize = 256;

/// A connection that calls.
#[derive(Debug)]
pub(crate) struct Caller {
    /// Its unique name; none where there is no bus.
    pub(crate) name: Option<OwnedUniqueName>,
    pub(crate) uid: u32,
    gids: Vec<u32>,
    executable: String,
    /// Calls that it may have at once.
    pub(crate) slots: Arc<Semaphore>,
    /// Refusals that it waits for.
    pub(crate) refusals: Semaphore,
    /// Whose turn of these it is.
    pub(crate) refusals_turn: tokio::sync::Mutex<()>,
    /// Searches of it that are computed at once.
    pub(crate) computing: Arc<Semaphore>,
    pub(crate) calls: Pace,
    pub(crate) changes: Pace,
    /// Whether it may read, once that was decided.
    pub(crate) may_read: OnceLock<bool>,
    /// Collections that it was refused.
    refused: Mutex<BTreeSet<String>>,
}

/// Spreads what a caller begins over time: whoever calls again and again waits, and is not refused.
#[derive(Debug)]
pub(crate) struct Pace(Mutex<Instant>);

impl Pace {
    fn new() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    /// Waits for the next turn. So many come at once, and so many in a second for long.
    pub(crate) async fn turn(&self, per_second_count: u32, burst_count: u32) {
        let due = self.next(Instant::now(), per_second_count, burst_count);
        if let Some(due) = due {
            tokio::time::sleep_until(due.into()).await;
        }
    }

    /// When the next turn is, if it is not now: a moment that moves on by a period with each turn, as
    /// long as it is not a whole burst ahead.
    fn next(&self, now: Instant, per_second_count: u32, burst_count: u32) -> Option<Instant> {
        let period = Duration::from_secs(1) / per_second_count;
        let mut level = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = (*level).max(now);
        *level = turn + period;
        let ahead = turn.duration_since(now);
        let wait = ahead.saturating_sub(period * burst_count.saturating_sub(1));
        (!wait.is_zero()).then(|| now + wait)
    }
}

impl Caller {
    /// What the bus says of one of its members.
    fn of_member(
        name: OwnedUniqueName,
        credentials: &ConnectionCredentials,
        limits: Limits,
    ) -> Result<Self> {
        let uid = credentials.unix_user_id().ok_or_else(|| {
            let problem = "the bus does not say which user calls";
            BusError::new(ErrorKind::Denied, problem, "use a bus that tells its members' users")
        })?;
        let gids = credentials.unix_group_ids().cloned().unwrap_or_default();
        let executable = credentials.process_id().map(executable).unwrap_or_default();
        Ok(Self::new(Some(name), uid, gids, executable, limits))
    }

    /// What the kernel says of who is at the other end of a socket.
    pub(crate) fn of_peer(credentials: &UCred, limits: Limits) -> Self {
        let pid = credentials.pid().and_then(|pid| u32::try_from(pid).ok());
        let executable = pid.map(executable).unwrap_or_default();
        Self::new(None, credentials.uid(), vec![credentials.gid()], executable, limits)
    }

    pub(crate) fn new(
        name: Option<OwnedUniqueName>,
        uid: u32,
        gids: Vec<u32>,
        executable: String,
        limits: Limits,
    ) -> Self {
        Self {
            name,
            uid,
            gids,
            executable,
            slots: Arc::new(Semaphore::new(limits.calls_at_once_count as usize)),
            refusals: Semaphore::new(REFUSALS_COUNT_MAX),
            refusals_turn: tokio::sync::Mutex::default(),
            computing: Arc::new(Semaphore::new(processors_count().div_ceil(2))),
            calls: Pace::new(),
            changes: Pace::new(),
            may_read: OnceLock::new(),
            refused: Mutex::default(),
        }
    }

    /// Whether it is refused this collection for the first time.
    pub(crate) fn is_first_refused(&self, collection: &str) -> bool {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.insert(collection.to_owned())
    }

    /// Whether the kernel counts it to this group.
    pub(crate) fn is_in_group(&self, gid: u32) -> bool {
        self.gids.contains(&gid)
    }

    /// What the journal says of it.
    pub(crate) fn actor(&self) -> JournalActor {
        JournalActor {
            uid: self.uid,
            sender: self.name.as_ref().map(ToString::to_string).unwrap_or_default(),
            executable: self.executable.clone(),
        }
    }

    /// What tells its tokens from those of others.
    pub(crate) fn identity(&self) -> String {
        match &self.name {
            Some(name) => name.to_string(),
            None => format!("uid:{}", self.uid),
        }
    }
}

/// Processors that this process may use.
pub(crate) fn processors_count() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The path of a process's program, or its name if that is all that may be known. It is for people
/// to read: nothing is decided by it, because a process can end and its number be given anew.
fn executable(pid: u32) -> String {
    std::fs::read_link(format!("/proc/{pid}/exe"))
        .map(|path| path.to_string_lossy().into_owned())
        .or_else(|_| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).map(|name| name.trim().to_owned())
        })
        .unwrap_or_default()
}

/// Those who called and are still there.
#[derive(Debug, Default)]
pub(crate) struct Callers {
    known: RwLock<HashMap<OwnedUniqueName, Arc<Caller>>>,
}

impl Callers {
    /// Finds out who sent a call.
    pub(crate) async fn of(
        &self,
        header: &Header<'_>,
        connection: &Connection,
        limits: Limits,
    ) -> Result<Arc<Caller>> {
        let Some(sender) = header.sender() else {
            let problem = "a call without sender";
            return Err(BusError::new(ErrorKind::Denied, problem, "call through the bus"));
        };
        if let Some(caller) = self.known(sender) {
            return Ok(caller);
        }
        let name = OwnedUniqueName::from(sender.to_owned());
        let asked = async {
            DBusProxy::new(connection).await?.get_connection_credentials(name.clone().into()).await
        };
        let unknown = |error: &dyn std::fmt::Display| {
            let problem = format!("the bus does not know who {name} is: {error}");
            BusError::new(ErrorKind::Denied, problem, "stay connected until the answer comes")
        };
        let credentials = match tokio::time::timeout(PATIENCE, asked).await {
            Ok(asked) => asked.map_err(|error| unknown(&error))?,
            Err(late) => return Err(unknown(&late)),
        };
        let caller = Arc::new(Caller::of_member(name.clone(), &credentials, limits)?);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_COUNT_MAX {
            known.clear();
        }
        // Two calls at the same time must share their limits.
        Ok(Arc::clone(known.entry(name).or_insert(caller)))
    }

    fn known(&self, name: &str) -> Option<Arc<Caller>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Forgets one who left.
    pub(crate) fn forget(&self, name: &str) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_come_in_a_burst_and_then_one_by_one() {
        let (pace, now) = (Pace::new(), Instant::now());
        for _ in 0..5 {
            assert_eq!(pace.next(now, 100, 5), None);
        }
        for number in 1..4 {
            let due = pace.next(now, 100, 5).unwrap();
            assert_eq!(due - now, Duration::from_millis(10) * number);
        }
        // Rest makes room for no more than a burst.
        let later = now + Duration::from_secs(100);
        for _ in 0..5 {
            assert_eq!(pace.next(later, 100, 5), None);
        }
        assert_eq!(pace.next(later, 100, 5), Some(later + Duration::from_millis(10)));
    }
}
