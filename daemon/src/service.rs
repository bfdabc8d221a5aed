//! The service: on the bus while it runs, and off it with nothing lost.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::StreamExt;
use op_dbus_engine::{
    CollectionOptions, Error, ErrorKind, JournalActor, JournalKind, JournalNote, STATE_COLLECTION,
    STATE_VERSIONS_KEPT, Store,
};
use sd_notify::NotifyState;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::JoinSet;
use zbus::connection::Builder;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, MatchRule, MessageStream, fdo};

use crate::audit;
use crate::authority::Authority;
use crate::config::{Bus, DaemonConfig};
use crate::error::BusError;
use crate::gate::{Gate, blocking};
use crate::indexer;
use crate::interface::{self, Cache, Door, Plugin, Query, Snapshot, State, object_path};
use crate::metrics::Endpoint;
use crate::names::{NAME, PATH};
use crate::plugin::Plugins;
use crate::plugin::call::Calls;
use crate::socket::Socket;
use crate::state::{DECLARED_COLLECTION, States};

/// How long calls that are being answered may take when the service ends.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a bus may take to answer when the service begins.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// How long answers may take to be written that are there when the service ends.
pub(crate) const WRITE_PATIENCE: Duration = Duration::from_secs(1);
/// How long the thread that follows changes sleeps at most.
const WATCH_WAIT: Duration = Duration::from_millis(200);
/// How often calls are looked after that were allowed and have not ended.
const CALLS_WAIT: Duration = Duration::from_secs(10);
/// Changes that wait to be told: whoever falls behind further misses some.
const CHANGES_QUEUED_COUNT: usize = 1024;

type Result<T, E = Error> = std::result::Result<T, E>;

/// What all interfaces share.
pub(crate) struct Service {
    pub(crate) store: Arc<Store>,
    pub(crate) gate: Gate,
    pub(crate) calls: Calls,
    pub(crate) states: States,
    /// Is told when the plugins were read anew.
    pub(crate) plugins_changed: Notify,
    plugins_directory: PathBuf,
    plugins: RwLock<Arc<Plugins>>,
}

impl Service {
    /// The names of the collections that there are.
    pub(crate) fn collection_names(&self) -> Vec<String> {
        self.store.collections().into_iter().map(|info| info.name).collect()
    }

    /// The plugins as they were read last.
    pub(crate) fn plugins(&self) -> Arc<Plugins> {
        Arc::clone(&self.plugins.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the plugins anew, and changes the objects of a connection with them.
    pub(crate) async fn reload_plugins(
        &self,
        connection: &Connection,
        door: &Door,
    ) -> Result<(), BusError> {
        let directory = self.plugins_directory.clone();
        let plugins = blocking(move || Ok(Plugins::load(&directory))).await?;
        let before = self.plugins();
        let plugins = Arc::new(plugins);
        *self.plugins.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&plugins);
        let server = connection.object_server();
        for name in before.0.keys().filter(|name| !plugins.0.contains_key(*name)) {
            server.remove::<Plugin, _>(object_path(name)).await?;
        }
        for name in plugins.0.keys() {
            server.at(object_path(name), Plugin::new(door.clone(), name)).await?;
        }
        self.plugins_changed.notify_one();
        Ok(())
    }
}

/// Changes as they come.
pub(crate) type Changes = broadcast::Receiver<StateChange>;

/// A document of the state that changed.
#[derive(Clone, Debug)]
pub(crate) struct StateChange {
    pub(crate) key: Vec<u8>,
    operation: &'static str,
    sequence: u64,
}

/// Serves the store until SIGTERM or SIGINT, and closes it.
///
/// SIGHUP reads plugins, files of interfaces and the members of groups anew, and asks `reload` for the
/// configuration: who may read and the limits follow at once, all else at the next start.
///
/// # Errors
/// [`ErrorKind::Unavailable`] if there is no bus, or it goes; [`ErrorKind::Denied`] if the name may not
/// be had; [`ErrorKind::Busy`] if somebody has it; those of the journal.
pub fn run(
    store: Store,
    config: DaemonConfig,
    reload: impl Fn() -> Result<DaemonConfig> + Send + Sync,
) -> Result<()> {
    check_journal(&store)?;
    make_collections(&store)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("bus")
        .build()
        .map_err(|error| Error::new(ErrorKind::Io, "cannot start threads").with_source(error))?;
    let store = Arc::new(store);
    let served = runtime.block_on(serve(Arc::clone(&store), config, &reload));
    // Whatever still computes for a caller who is no longer answered ends first.
    runtime.shutdown_timeout(PATIENCE);
    let noted = note(&store, "stop", served.is_ok());
    match Arc::try_unwrap(store) {
        Ok(store) => store.close(),
        Err(_) => tracing::warn!("a call is still at work: warmth and counters are not saved"),
    }
    served.and(noted)
}

/// Verifies the journal from its first entry on, and journals of everything that was begun, and of which
/// nobody knows how it ended, that it was broken off: the service was killed, or the machine lost its
/// power.
fn check_journal(store: &Store) -> Result<()> {
    let mut open = BTreeMap::new();
    let (mut entries, mut head) = (0, String::new());
    store.journal(1, |record| {
        entries = record.number;
        record.hash.clone_into(&mut head);
        match (record.kind, record.intent) {
            ("intent", _) => drop(open.insert(record.number, (record.actor, record.action))),
            (_, Some(intent)) => drop(open.remove(&intent)),
            _ => {}
        }
        true
    })?;
    tracing::info!(JOURNAL_ENTRIES = entries, JOURNAL_HEAD = %head, "the journal is whole");
    let problem = "broken off by the end of the service";
    let outcome = |(intent, (actor, action)): (u64, (Option<JournalActor>, String))| {
        tracing::warn!(intent, action, "{problem}; see op-dbus journal show --from {intent}");
        let details = json!({ "succeeded": null, "problem": problem }).to_string();
        JournalNote { kind: JournalKind::Outcome, intent: Some(intent), actor, action, details }
    };
    let outcomes: Vec<JournalNote> = open.into_iter().map(outcome).collect();
    if outcomes.is_empty() { Ok(()) } else { append_if_there_is_room(store, &outcomes) }
}

/// Journals that the service begins or ends.
fn note(store: &Store, action: &str, is_well: bool) -> Result<()> {
    let details = json!({ "version": env!("CARGO_PKG_VERSION"), "well": is_well }).to_string();
    let (kind, action) = (JournalKind::Event, action.to_owned());
    append_if_there_is_room(
        store,
        &[JournalNote { kind, intent: None, actor: None, action, details }],
    )
}

/// Journals what the service has to tell itself. A full disk, which changes nothing else that there is to
/// serve, keeps it from neither beginning nor ending: whoever has to make room needs the service. What was
/// broken off is told at the next start.
fn append_if_there_is_room(store: &Store, notes: &[JournalNote]) -> Result<()> {
    match store.append_journal(notes) {
        Err(error) if error.kind() == ErrorKind::Full => {
            let remedy = error.remedy().unwrap_or_default();
            let actions: Vec<&str> = notes.iter().map(|note| &note.action[..]).collect();
            tracing::warn!(%error, remedy, ?actions, "not journaled");
            Ok(())
        }
        noted => noted.map(drop),
    }
}

/// Makes the collection of declared state, which keeps versions and no embeddings.
fn make_collections(store: &Store) -> Result<()> {
    if store.collections().iter().any(|known| known.name == DECLARED_COLLECTION) {
        return Ok(());
    }
    let options = CollectionOptions::Documents;
    store.create_collection_with_versions(DECLARED_COLLECTION, options, STATE_VERSIONS_KEPT)
}

async fn serve(
    store: Arc<Store>,
    config: DaemonConfig,
    reload: &(dyn Fn() -> Result<DaemonConfig> + Send + Sync),
) -> Result<()> {
    let mut signals = Signals::catch()?;
    let authority = match config.bus {
        Bus::System => Authority::Polkit,
        _ => Authority::Owner { uid: rustix::process::geteuid().as_raw() },
    };
    let gate = Gate::new(Arc::clone(&store), authority, &config);
    let service = Arc::new(Service {
        store: Arc::clone(&store),
        gate,
        calls: Calls::default(),
        states: States::default(),
        plugins_changed: Notify::new(),
        plugins: RwLock::new(Arc::new(Plugins::load(&config.plugins))),
        plugins_directory: config.plugins.clone(),
    });
    let (sender, changes) = broadcast::channel(CHANGES_QUEUED_COUNT);
    let mut tasks = JoinSet::new();
    let stop = Arc::new(AtomicBool::new(false));
    let watching = {
        let (store, stop) = (Arc::clone(&store), Arc::clone(&stop));
        let from = store.last_sequence();
        std::thread::spawn(move || follow(&store, from, &stop, &sender))
    };
    let listening = match &config.bus {
        Bus::Socket(path) => {
            let socket = Socket::bind(path)?;
            let (stop, stopped) = watch::channel(false);
            let accepting = tokio::spawn(socket.accept(Arc::clone(&service), changes, stopped));
            Listening::Socket(accepting, stop)
        }
        bus => {
            let connection = connect(bus, &service).await?;
            indexer::start(&mut tasks, &service, &config, changes.resubscribe());
            tasks.spawn(tell(connection.clone(), changes));
            tasks.spawn(forget(connection.clone(), Arc::clone(&service)));
            Listening::Bus(connection)
        }
    };
    tasks.spawn(look_after_calls(Arc::clone(&service)));
    if let Some(address) = &config.metrics {
        tasks.spawn(Endpoint::bind(address, &service).await?.serve());
    }
    let auditing = (config.recall_audit > 0.0).then(|| {
        store.set_recall_audit(config.recall_audit);
        let (service, stop) = (Arc::clone(&service), Arc::clone(&stop));
        std::thread::spawn(move || audit::run(&service, &stop))
    });
    note(&store, "start", true)?;
    store.note_address(&config.bus.to_string());
    notify(&[NotifyState::Ready, NotifyState::Status("answering")]);
    tracing::info!(BUS = %config.bus, "answering");
    tokio::task::spawn_blocking(move || load_model(&store));
    let ended = until_stopped(&mut signals, &listening, &service, config, reload).await;
    notify(&[NotifyState::Stopping]);
    stop.store(true, Ordering::Relaxed);
    tasks.shutdown().await;
    listening.end(&service).await;
    drop(service);
    // They look every so often.
    let over = move || (watching.join(), auditing.map(std::thread::JoinHandle::join));
    let _ = tokio::task::spawn_blocking(over).await;
    ended
}

/// Loads the model, so that hardly a query waits for it; without one all else works.
fn load_model(store: &Store) {
    if !store.has_model() {
        tracing::info!("texts cannot be searched for: no model is wanted");
        return;
    }
    if let Err(error) = store.embedder().and_then(|embedder| embedder.load()) {
        let remedy = error.remedy().unwrap_or_default();
        tracing::warn!(%error, remedy, "texts cannot be searched for");
    }
}

/// What clients come by.
enum Listening {
    Bus(Connection),
    /// The task that accepts them, and what tells it to end.
    Socket(tokio::task::JoinHandle<()>, watch::Sender<bool>),
}

impl Listening {
    /// Returns when no client can come any more.
    async fn closed(&self) {
        match self {
            Self::Bus(connection) => connection.closed().await,
            Self::Socket(..) => std::future::pending().await,
        }
    }

    /// Reads plugins anew, for all who come from now on, and on a bus for those who are there.
    async fn reload_plugins(&self, service: &Arc<Service>) {
        let Self::Bus(connection) = self else { return };
        let door = Door { service: Arc::clone(service), peer: None };
        if let Err(error) = service.reload_plugins(connection, &door).await {
            tracing::error!(problem = error.problem(), "plugins are not read anew");
        }
    }

    /// Takes no more calls, and lets those end that are being answered.
    async fn end(self, service: &Service) {
        if let Self::Bus(connection) = &self {
            // Without a bus there is no name to give back.
            let _ = tokio::time::timeout(START_PATIENCE, connection.release_name(NAME)).await;
        }
        if tokio::time::timeout(PATIENCE, service.gate.close()).await.is_err() {
            tracing::warn!("some calls got no answer");
        }
        match self {
            // Whoever goes on calling would keep it open for ever.
            Self::Bus(connection) => {
                let _ = tokio::time::timeout(WRITE_PATIENCE, connection.graceful_shutdown()).await;
            }
            Self::Socket(accepting, stop) => {
                let _ = stop.send(true);
                let _ = accepting.await;
            }
        }
    }
}

/// The signals that concern a service.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn catch() -> Result<Self> {
        let catch = |kind| {
            signal(kind).map_err(|error| {
                Error::new(ErrorKind::Io, "cannot listen to signals").with_source(error)
            })
        };
        Ok(Self {
            terminate: catch(SignalKind::terminate())?,
            interrupt: catch(SignalKind::interrupt())?,
            hangup: catch(SignalKind::hangup())?,
        })
    }
}

async fn until_stopped(
    signals: &mut Signals,
    listening: &Listening,
    service: &Arc<Service>,
    mut config: DaemonConfig,
    reload: &(dyn Fn() -> Result<DaemonConfig> + Send + Sync),
) -> Result<()> {
    let mut watchdog =
        sd_notify::watchdog_enabled().map(|period| tokio::time::interval(period / 2));
    loop {
        let tick = async {
            match &mut watchdog {
                Some(watchdog) => drop(watchdog.tick().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = signals.terminate.recv() => return Ok(()),
            _ = signals.interrupt.recv() => return Ok(()),
            _ = signals.hangup.recv() => {
                match NotifyState::monotonic_usec_now() {
                    Ok(now) => notify(&[NotifyState::Reloading, now]),
                    Err(_) => notify(&[NotifyState::Reloading]),
                }
                config = reloaded(config, reload);
                // Groups and users may have other members now.
                service.gate.reload(&config);
                listening.reload_plugins(service).await;
                notify(&[NotifyState::Ready]);
            }
            () = listening.closed() => {
                let remedy = "start the bus, then this service";
                let problem = format!("the bus {} has gone", config.bus);
                return Err(Error::new(ErrorKind::Unavailable, problem).with_remedy(remedy));
            }
            () = tick => {
                // A store that cannot be asked is one that a restart may help.
                let _ = service.store.journal_len();
                notify(&[NotifyState::Watchdog]);
            }
        }
    }
}

/// What of the configuration can change while the service runs, as it is now.
fn reloaded(config: DaemonConfig, reload: &dyn Fn() -> Result<DaemonConfig>) -> DaemonConfig {
    let now = match reload() {
        Ok(now) => now,
        Err(error) => {
            let remedy = error.remedy().unwrap_or_default();
            tracing::error!(%error, remedy, "the settings stay as they were");
            return config;
        }
    };
    let DaemonConfig { group, limits, readers, .. } = now.clone();
    let config = DaemonConfig { group, limits, readers, ..config };
    if config != now {
        tracing::warn!("some settings have changed that count at the next start alone");
    }
    config
}

/// Tells systemd how the service is.
pub(crate) fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "nobody is told how the service is");
    }
}

/// How to connect to a bus.
pub(crate) fn builder_for(bus: &Bus) -> Builder<'_> {
    match bus {
        Bus::System => Builder::system(),
        Bus::Session => Builder::session(),
        Bus::Address(address) => Builder::address(address.as_str()),
        Bus::Socket(_) => unreachable!("a socket is not a bus"),
    }
}

/// Puts the interfaces on the bus, and then the name: whoever finds the name finds them.
async fn connect(bus: &Bus, service: &Arc<Service>) -> Result<Connection> {
    let builder = builder_for(bus);
    let door = Door { service: Arc::clone(service), peer: None };
    let unreachable = |error: zbus::Error| {
        Error::new(ErrorKind::Unavailable, format!("cannot be on the bus {bus}"))
            .with_source(error)
            .with_remedy("start the bus, or name another by --bus")
    };
    let silent = |_| {
        let seconds = START_PATIENCE.as_secs();
        let problem = format!("the bus {bus} did not answer in {seconds} s");
        Error::new(ErrorKind::Unavailable, problem).with_remedy("see whether it works")
    };
    let building = tokio::time::timeout(START_PATIENCE, serve_at(builder, door).build());
    let connection = building.await.map_err(silent)?.map_err(unreachable)?;
    let flags = fdo::RequestNameFlags::DO_NOT_QUEUE;
    let requesting = connection.request_name_with_flags(NAME, flags);
    match tokio::time::timeout(START_PATIENCE, requesting).await.map_err(silent)? {
        Ok(_) => Ok(connection),
        Err(zbus::Error::NameTaken) => Err(Error::new(
            ErrorKind::Busy,
            format!("somebody has the name {NAME} on the bus {bus}"),
        )
        .with_remedy("stop the other service, or be on another bus")),
        Err(error) => Err(Error::new(
            ErrorKind::Denied,
            format!("the bus {bus} does not give the name {NAME}"),
        )
        .with_source(error)
        .with_remedy("install org.opdbus.conf, and run as the user op-dbus")),
    }
}

/// Has a connection serve all interfaces.
pub(crate) fn serve_at<'b>(builder: Builder<'b>, door: Door) -> Builder<'b> {
    let plugins = door.service.plugins();
    let builder = builder
        .serve_at(PATH, fdo::ObjectManager)
        .serve_at(PATH, Query(door.clone()))
        .serve_at(PATH, Cache(door.clone()))
        .serve_at(PATH, interface::Journal(door.clone()))
        .serve_at(PATH, State(door.clone()))
        .serve_at(PATH, Snapshot(door.clone()))
        .serve_at(PATH, interface::Plugins(door.clone()));
    // After the manager of objects, and none of two plugins that would have the same object.
    plugins.0.keys().fold(builder, |builder, name| {
        builder.serve_at(object_path(name), Plugin::new(door.clone(), name))
    })
}

/// Follows the changes of the state, and passes them on: those after a sequence of before anybody could
/// make one, because this thread may begin late.
fn follow(
    store: &Store,
    mut from: u64,
    stop: &AtomicBool,
    sender: &broadcast::Sender<StateChange>,
) {
    while !stop.load(Ordering::Relaxed) {
        let followed = store.watch(None, b"", from).and_then(|mut changes| {
            while !stop.load(Ordering::Relaxed) {
                let Some(change) = changes.next(WATCH_WAIT)? else { continue };
                from = change.sequence;
                if change.collection == STATE_COLLECTION {
                    let operation = match change.operation {
                        op_dbus_engine::Operation::Put => "put",
                        op_dbus_engine::Operation::Remove => "remove",
                    };
                    let (key, sequence) = (change.key, change.sequence);
                    // Without receivers nobody wants to know.
                    let _ = sender.send(StateChange { key, operation, sequence });
                }
            }
            Ok(())
        });
        if let Err(error) = followed {
            tracing::warn!(%error, "some changes are not told");
            from = store.last_sequence();
            std::thread::sleep(WATCH_WAIT);
        }
    }
}

/// Tells a connection of changes.
pub(crate) async fn tell(connection: Connection, mut changes: Changes) {
    let emitter = match SignalEmitter::new(&connection, PATH) {
        Ok(emitter) => emitter,
        Err(error) => return tracing::error!(%error, "changes cannot be told"),
    };
    loop {
        match changes.recv().await {
            Ok(StateChange { key, operation, sequence }) => {
                let key = String::from_utf8_lossy(&key);
                if State::changed(&emitter, &key, operation, sequence).await.is_err() {
                    return;
                }
            }
            Err(RecvError::Lagged(count)) => {
                tracing::warn!(count, "changes came faster than they could be told");
            }
            Err(RecvError::Closed) => return,
        }
    }
}

/// Ends calls that were allowed and whose caller has gone, or says nothing for too long.
async fn give_up(service: &Arc<Service>, gone: Option<String>) {
    let over = service.calls.give_up(gone.as_deref());
    if !over.is_empty() {
        // Each writes into the journal.
        let _ = tokio::task::spawn_blocking(move || drop(over)).await;
    }
}

/// Ends calls whose end nobody tells, now and then.
async fn look_after_calls(service: Arc<Service>) {
    let mut interval = tokio::time::interval(CALLS_WAIT);
    loop {
        interval.tick().await;
        give_up(&service, None).await;
    }
}

/// Forgets connections that go.
async fn forget(connection: Connection, service: Arc<Service>) {
    let rule = MatchRule::builder()
        .msg_type(zbus::message::Type::Signal)
        .sender("org.freedesktop.DBus")
        .interface("org.freedesktop.DBus")
        .member("NameOwnerChanged")
        .arg(2, "")
        .build();
    let stream = match rule {
        Ok(rule) => MessageStream::for_match_rule(rule, &connection, None).await,
        Err(error) => Err(error),
    };
    let mut stream = match stream {
        Ok(stream) => stream,
        Err(error) => return tracing::warn!(%error, "connections that go are remembered"),
    };
    while let Some(message) = stream.next().await {
        let Ok(message) = message else { continue };
        if let Ok((name, _, _)) = message.body().deserialize::<(&str, &str, &str)>() {
            service.gate.forget(name);
            give_up(&service, Some(name.to_owned())).await;
        }
    }
}
