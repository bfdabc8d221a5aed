//! The only way in: who calls, whether they may, and that it is journaled.
//!
//! Reading takes a [`Reader`], changing takes a [`Permit`]; both are made here alone, so no method can
//! forget to ask. A permit stands for an intent in the journal, which was durable before the permit
//! was made, and its end is journaled too, whatever becomes of it.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use op_dbus_engine::{ErrorKind, JournalActor, JournalKind, JournalNote, STATE_COLLECTION, Store};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zbus::Connection;
use zbus::message::{Flags, Header};

use crate::authority::{Action, Authority, Decision};
use crate::caller::{Caller, Callers, processors_count};
use crate::config::{DaemonConfig, Limits, Readers};
use crate::error::{BusError, Result};
use crate::indexer::STATE_INDEX_COLLECTION;
use crate::traffic::{Class, Counted, Counters, Ending, Traffic};

/// Grants of reading that are remembered, so that they are journaled once.
const NOTED_COUNT_MAX: usize = 10_000;
/// Calls of all senders that are answered at the same time.
const CALLS_AT_ONCE_COUNT_MAX: u32 = 1 << 16;

/// How far apart the refusals are of one who asks for too much.
const REFUSALS_PERIOD: Duration = Duration::from_millis(10);

/// A call, and the connection it came by.
pub(crate) struct Call<'c> {
    pub(crate) header: Header<'c>,
    pub(crate) connection: &'c Connection,
    /// Who is at the other end of a connection without a bus.
    pub(crate) peer: Option<Arc<Caller>>,
}

/// What somebody wants to change.
pub(crate) struct Request {
    pub(crate) action: Action,
    /// In a line, as the journal has it.
    pub(crate) what: String,
    /// A JSON object without secrets.
    pub(crate) details: Value,
}

/// Decides about everything that comes in.
pub(crate) struct Gate {
    store: Arc<Store>,
    callers: Callers,
    authority: Authority,
    rules: RwLock<Arc<Rules>>,
    /// Users and programs whose reading has been journaled.
    noted: Mutex<HashSet<(u32, String)>>,
    /// What searches hold that are being computed.
    computing: Arc<Semaphore>,
    /// What calls hold that are being answered.
    answering: Arc<Semaphore>,
    /// Whether no more calls are let in.
    is_closing: AtomicBool,
    /// What became of calls.
    counters: Arc<Counters>,
}

/// The part of the configuration that can be read anew.
struct Rules {
    limits: Limits,
    own_uid: u32,
    /// The group whose members may read; none if there is no such group.
    gid: Option<u32>,
    readers: BTreeMap<String, ReaderIds>,
}

/// Who may read a collection, by number.
#[derive(Clone, Debug, Default)]
struct ReaderIds {
    uids: Vec<u32>,
    gids: Vec<u32>,
}

impl Rules {
    fn new(config: &DaemonConfig) -> Self {
        let ids = |(name, readers): (&String, &Readers)| {
            let uids = readers.users.iter().filter_map(|user| uid_of(user)).collect();
            let gids = readers.groups.iter().filter_map(|group| gid_of(group)).collect();
            (name.clone(), ReaderIds { uids, gids })
        };
        let mut readers: BTreeMap<String, ReaderIds> = config.readers.iter().map(ids).collect();
        // What was made from the documents is for those who may read them.
        if !readers.contains_key(STATE_INDEX_COLLECTION)
            && let Some(own) = readers.get(STATE_COLLECTION).cloned()
        {
            readers.insert(STATE_INDEX_COLLECTION.to_owned(), own);
        }
        Self {
            limits: config.limits,
            own_uid: rustix::process::geteuid().as_raw(),
            gid: gid_of(&config.group),
            readers,
        }
    }

    fn is_owner(&self, caller: &Caller) -> bool {
        caller.uid == 0 || caller.uid == self.own_uid
    }

    fn may_read(&self, caller: &Caller) -> bool {
        self.is_owner(caller) || self.gid.is_some_and(|gid| caller.is_in_group(gid))
    }

    /// Whether one who may read may read this collection, too.
    fn may_read_collection(&self, caller: &Caller, collection: &str) -> bool {
        let Some(readers) = self.readers.get(collection) else { return true };
        self.is_owner(caller)
            || readers.uids.contains(&caller.uid)
            || readers.gids.iter().any(|gid| caller.is_in_group(*gid))
    }
}

/// A name that nobody has stands for nobody: it lets nobody in.
fn uid_of(name: &str) -> Option<u32> {
    let found = nix::unistd::User::from_name(name).ok().flatten().map(|user| user.uid.as_raw());
    if found.is_none() {
        tracing::warn!(user = name, "there is no such user");
    }
    found
}

fn gid_of(name: &str) -> Option<u32> {
    let found = nix::unistd::Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw());
    if found.is_none() {
        tracing::warn!(group = name, "there is no such group");
    }
    found
}

/// One who may read, while a call is answered.
pub(crate) struct Reader {
    caller: Arc<Caller>,
    rules: Arc<Rules>,
    _slot: OwnedSemaphorePermit,
    answering: Option<OwnedSemaphorePermit>,
    counted: Counted,
}

impl Reader {
    /// Whether this collection may be read, too.
    pub(crate) fn may_read(&self, collection: &str) -> bool {
        self.rules.may_read_collection(&self.caller, collection)
    }

    pub(crate) fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }
}

/// One who may do what was asked for. Whatever becomes of it is journaled.
pub(crate) struct Permit {
    store: Arc<Store>,
    actor: JournalActor,
    what: String,
    /// The number of the intent in the journal.
    intent: u64,
    /// One call of its caller's, until it has ended.
    reader: Reader,
    is_finished: bool,
}

impl Permit {
    /// The number of the intent in the journal.
    pub(crate) fn intent(&self) -> u64 {
        self.intent
    }

    /// Is kept beyond the answer, until another call ends it: the service's end does not wait for it.
    pub(crate) fn left_open(mut self) -> Self {
        self.reader.answering = None;
        self
    }

    /// Journals how it ended.
    pub(crate) async fn finish(mut self, outcome: Value) -> Result<()> {
        self.is_finished = true;
        let (store, note) = (Arc::clone(&self.store), self.outcome(&outcome));
        blocking(move || store.append_journal(&[note])).await?;
        Ok(())
    }

    fn outcome(&self, outcome: &Value) -> JournalNote {
        JournalNote {
            kind: JournalKind::Outcome,
            intent: Some(self.intent),
            actor: Some(self.actor.clone()),
            action: self.what.clone(),
            details: outcome.to_string(),
        }
    }
}

impl Drop for Permit {
    /// What is broken off, by the service's end or otherwise, has an outcome, too: nobody knows.
    fn drop(&mut self) {
        if self.is_finished {
            return;
        }
        let outcome = json!({ "succeeded": null, "problem": "it was broken off" });
        if let Err(error) = self.store.append_journal(&[self.outcome(&outcome)]) {
            tracing::error!(%error, intent = self.intent, "an outcome is not in the journal");
        }
    }
}

impl Gate {
    pub(crate) fn new(store: Arc<Store>, authority: Authority, config: &DaemonConfig) -> Self {
        let rules = RwLock::new(Arc::new(Rules::new(config)));
        let (callers, noted) = (Callers::default(), Mutex::default());
        let answering = Arc::new(Semaphore::new(CALLS_AT_ONCE_COUNT_MAX as usize));
        let computing = Arc::new(Semaphore::new(processors_count()));
        let is_closing = AtomicBool::new(false);
        let counters = Arc::new(Counters::new());
        Self { store, callers, authority, rules, noted, computing, answering, is_closing, counters }
    }

    /// Lets nobody in any more, and waits until all are out.
    pub(crate) async fn close(&self) {
        self.is_closing.store(true, Ordering::Relaxed);
        // It is never closed, so this cannot fail.
        let _ = self.answering.acquire_many(CALLS_AT_ONCE_COUNT_MAX).await;
    }

    /// Lets what is in the configuration now be the rules.
    pub(crate) fn reload(&self, config: &DaemonConfig) {
        let rules = Arc::new(Rules::new(config));
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    /// Whether there is somebody who can be asked when it comes to a decision.
    pub(crate) fn asks_people(&self) -> bool {
        matches!(self.authority, Authority::Polkit)
    }

    pub(crate) fn limits(&self) -> Limits {
        self.rules().limits
    }

    fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Forgets a connection that has gone.
    pub(crate) fn forget(&self, name: &str) {
        self.callers.forget(name);
    }

    /// Whether somebody may be told of changes of the state without having asked.
    pub(crate) fn may_be_told(&self, caller: &Caller) -> bool {
        let rules = self.rules();
        rules.may_read(caller) && rules.may_read_collection(caller, STATE_COLLECTION)
    }

    /// What became of the calls so far.
    pub(crate) fn traffic(&self) -> Traffic {
        self.counters.sum()
    }

    /// The same by what they were about.
    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether no call is being answered, or waits to be.
    pub(crate) fn is_idle(&self) -> bool {
        self.answering.available_permits() == CALLS_AT_ONCE_COUNT_MAX as usize
    }

    /// Whether everybody who may read may read this collection, too.
    pub(crate) fn is_for_all_readers(&self, collection: &str) -> bool {
        !self.rules().readers.contains_key(collection)
    }

    /// The number of the group whose members may read, if there is such a group.
    pub(crate) fn gid(&self) -> Option<u32> {
        self.rules().gid
    }

    /// Lets somebody in who may read.
    pub(crate) async fn admit(&self, call: &Call<'_>) -> Result<Reader> {
        let class = Class::of(call.header.interface().map(|interface| interface.as_str()));
        self.decide(call, class).await.inspect_err(|error| {
            let is_denied = error.kind() == ErrorKind::Denied;
            let ending = if is_denied { Ending::Denied } else { Ending::Refused };
            self.counters.count(class, ending);
        })
    }

    async fn decide(&self, call: &Call<'_>, class: Class) -> Result<Reader> {
        let rules = self.rules();
        let answering = self.begin()?;
        let caller = match &call.peer {
            Some(peer) => Arc::clone(peer),
            None => self.callers.of(&call.header, call.connection, rules.limits).await?,
        };
        let slot = match self.take_slot(&caller, call, rules.limits) {
            Ok(slot) => slot,
            Err(refusal) => return Err(slowly(refusal, &caller, call).await),
        };
        let Limits { calls_per_second_count, calls_burst_count, .. } = rules.limits;
        caller.calls.turn(calls_per_second_count, calls_burst_count).await;
        let may_read = match caller.may_read.get() {
            Some(may_read) => *may_read,
            None => self.decide_reading(&caller, &rules).await?,
        };
        if !may_read {
            let problem = format!("user {} may not use this service", caller.uid);
            let remedy = "ask the administrator to add you to the group op-dbus";
            return Err(BusError::new(ErrorKind::Denied, problem, remedy));
        }
        let counted = Counted::new(&self.counters, class);
        Ok(Reader { caller, rules, _slot: slot, answering: Some(answering), counted })
    }

    /// Counts a call, as long as there may be another.
    fn begin(&self) -> Result<OwnedSemaphorePermit> {
        let begun = Arc::clone(&self.answering).try_acquire_owned();
        if self.is_closing.load(Ordering::Relaxed) {
            let (problem, remedy) = ("the service ends", "call again once it is back");
            return Err(BusError::new(ErrorKind::Unavailable, problem, remedy));
        }
        begun.map_err(|_| {
            let problem = format!("over {CALLS_AT_ONCE_COUNT_MAX} calls of all at once");
            BusError::limits_exceeded(problem, "wait a moment, and call again")
        })
    }

    /// Refuses unless this collection may be read, too. Only those are refused that have readers of
    /// their own, so that what is remembered is bounded.
    pub(crate) async fn require(&self, reader: &Reader, collection: &str) -> Result<()> {
        if reader.may_read(collection) {
            return Ok(());
        }
        reader.counted.deny();
        let caller = reader.caller();
        if caller.is_first_refused(collection) {
            let details = json!({ "allowed": false });
            self.deny(reader, &format!("read {collection}"), &details).await?;
        }
        let problem = format!("you may not read the collection {collection}");
        Err(BusError::new(
            ErrorKind::Denied,
            problem,
            "ask root, or the service's user, for what is in it",
        ))
    }

    /// Runs what keeps a processor busy. As many run as there are processors, and of one caller half
    /// as many: whoever asks for much waits for themselves, and leaves others some.
    pub(crate) async fn compute<T: Send + 'static>(
        &self,
        reader: &Reader,
        work: impl FnOnce() -> op_dbus_engine::Result<T> + Send + 'static,
    ) -> Result<T> {
        // They are never closed, so these cannot fail.
        let own = Arc::clone(&reader.caller.computing).acquire_owned().await;
        let of_all = Arc::clone(&self.computing).acquire_owned().await;
        blocking(move || {
            let _turn = (own, of_all);
            work()
        })
        .await
    }

    fn take_slot(
        &self,
        caller: &Caller,
        call: &Call<'_>,
        limits: Limits,
    ) -> Result<OwnedSemaphorePermit> {
        let len_bytes = call.header.primary().body_len();
        if len_bytes > limits.message_len_max_bytes {
            let problem = format!(
                "a call of {len_bytes} bytes is longer than {}",
                limits.message_len_max_bytes
            );
            return Err(BusError::limits_exceeded(problem, "send less at once"));
        }
        Arc::clone(&caller.slots).try_acquire_owned().map_err(|_| {
            let problem = format!("over {} calls at once", limits.calls_at_once_count);
            BusError::limits_exceeded(problem, "wait for answers before you call again")
        })
    }

    /// Decides once for each connection, and journals it: refusals each time, and the first of each
    /// user and program that may.
    async fn decide_reading(&self, caller: &Arc<Caller>, rules: &Rules) -> Result<bool> {
        let may_read = rules.may_read(caller);
        let actor = caller.actor();
        let is_new = !may_read || {
            let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
            if noted.len() >= NOTED_COUNT_MAX {
                noted.clear();
            }
            noted.insert((actor.uid, actor.executable.clone()))
        };
        if is_new {
            let note = JournalNote {
                kind: if may_read { JournalKind::Event } else { JournalKind::Denial },
                intent: None,
                actor: Some(actor),
                action: "read".to_owned(),
                details: json!({ "allowed": may_read }).to_string(),
            };
            let store = Arc::clone(&self.store);
            blocking(move || store.append_journal(&[note])).await?;
        }
        // Another call may have decided meanwhile, by the same rules.
        let _ = caller.may_read.set(may_read);
        Ok(may_read)
    }

    /// Permits a change, if whoever has a say in it does.
    pub(crate) async fn permit(&self, call: &Call<'_>, request: Request) -> Result<Permit> {
        let reader = self.admit(call).await?;
        let limits = reader.rules.limits;
        let caller = Arc::clone(&reader.caller);
        caller.changes.turn(limits.changes_per_second_count, limits.changes_burst_count).await;
        let decision =
            self.authority.decide(&caller, request.action, &call.header, call.connection).await;
        let Request { action, what, details } = request;
        if let Decision::Denied(reason) = decision {
            let mut details = details;
            details["denied"] = reason.clone().into();
            self.deny(&reader, &what, &details).await?;
            let problem = format!("{what}: {reason}");
            let remedy = format!("ask the administrator for the right {}", action.id());
            return Err(BusError::new(ErrorKind::Denied, problem, &remedy));
        }
        let actor = caller.actor();
        let note = JournalNote {
            kind: JournalKind::Intent,
            intent: None,
            actor: Some(actor.clone()),
            action: what.clone(),
            details: details.to_string(),
        };
        let store = Arc::clone(&self.store);
        // Whoever goes while this is written leaves an intent, and the permit an outcome.
        let writing = tokio::task::spawn_blocking(move || {
            let intent = store.append_journal(&[note])?;
            Ok(Permit { store, actor, what, intent, reader, is_finished: false })
        });
        writing.await.map_err(panicked)?.map_err(|error: op_dbus_engine::Error| error.into())
    }

    /// Journals that something was asked for and is not done.
    pub(crate) async fn deny(&self, reader: &Reader, what: &str, details: &Value) -> Result<()> {
        reader.counted.deny();
        let note = JournalNote {
            kind: JournalKind::Denial,
            intent: None,
            actor: Some(reader.caller.actor()),
            action: what.to_owned(),
            details: details.to_string(),
        };
        let store = Arc::clone(&self.store);
        blocking(move || store.append_journal(&[note])).await?;
        Ok(())
    }

    /// Does what somebody asks for, if it is permitted.
    pub(crate) async fn perform<T: Send + 'static>(
        &self,
        call: &Call<'_>,
        request: Request,
        work: impl FnOnce(&Store) -> op_dbus_engine::Result<T> + Send + 'static,
    ) -> Result<T> {
        let permit = self.permit(call, request).await?;
        let store = Arc::clone(&self.store);
        let done = blocking(move || work(&store)).await;
        let outcome = match &done {
            Ok(_) => json!({ "succeeded": true }),
            Err(error) => json!({ "succeeded": false, "problem": error.problem() }),
        };
        permit.finish(outcome).await?;
        done
    }
}

/// Lets whoever asks for too much wait for the refusals, one after the other.
///
/// A bus lets a member wait for few answers at the same time, and refuses the next call itself: so
/// most of a flood never comes here, where the calls of all others would wait behind it. What does
/// comes evenly, because no two refusals make room for more at the same time.
async fn slowly(refusal: BusError, caller: &Caller, call: &Call<'_>) -> BusError {
    let awaits_answer = !call.header.primary().flags().contains(Flags::NO_REPLY_EXPECTED);
    if awaits_answer && let Ok(_waiting) = caller.refusals.try_acquire() {
        let _turn = caller.refusals_turn.lock().await;
        tokio::time::sleep(REFUSALS_PERIOD).await;
    }
    refusal
}

/// Runs what waits for the disk or computes where nobody else waits for it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> op_dbus_engine::Result<T> + Send + 'static,
) -> Result<T> {
    Ok(tokio::task::spawn_blocking(work).await.map_err(panicked)??)
}

fn panicked(error: tokio::task::JoinError) -> BusError {
    let problem = format!("the service failed: {error}");
    BusError::new(ErrorKind::Io, problem, "see its log, and report it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Bus;
    use crate::indexer::JOURNAL_COLLECTION;

    fn member(gid: u32) -> Caller {
        Caller::new(None, u32::MAX - 1, vec![gid], String::new(), Limits::default())
    }

    fn rules(readers: &[(&str, &str)]) -> Rules {
        let mut config =
            DaemonConfig { group: "root".to_owned(), ..DaemonConfig::new(Bus::System) };
        for (collection, group) in readers {
            let readers = Readers { groups: vec![(*group).to_owned()], ..Readers::default() };
            config.readers.insert((*collection).to_owned(), readers);
        }
        Rules::new(&config)
    }

    #[test]
    fn a_member_of_the_group_may_read_but_not_the_journal() {
        let rules = rules(&[]);
        let (member, stranger) = (member(0), member(4_000_000));
        assert!(rules.may_read(&member) && !rules.may_read(&stranger));
        assert!(rules.may_read_collection(&member, STATE_INDEX_COLLECTION));
        assert!(!rules.may_read_collection(&member, JOURNAL_COLLECTION));
        let own = Caller::new(None, rules.own_uid, vec![], String::new(), Limits::default());
        assert!(rules.may_read_collection(&own, JOURNAL_COLLECTION));
    }

    #[test]
    fn whoever_may_not_read_documents_may_not_read_what_was_made_from_them() {
        let rules = rules(&[(STATE_COLLECTION, "daemon")]);
        assert!(!rules.may_read_collection(&member(0), STATE_INDEX_COLLECTION));
        let gid = gid_of("daemon").expect("every system has it");
        assert!(rules.may_read_collection(&member(gid), STATE_INDEX_COLLECTION));
    }
}
