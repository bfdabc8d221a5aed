//! The service on a bus that it takes for the system's, and everybody who may come there.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use op_dbus_daemon::{BusError, JournalProxy};
use op_dbus_engine::{Store, StoreConfig};
use serde::Serialize;
use serde_json::Value;
use support::bus::{BusLimits, NAME, PATH, PrivateBus, Served, open_directory};
use support::model;
use support::program::{Workplace, is_root};
use support::scratch::data_directory;
use support::thing::{self, Thing};
use tempfile::TempDir;
use zbus::{Connection, DynamicType, Message};

use crate::polkit::{Answer, Polkit};

/// The user of the service, where it can be another than who runs the tests.
const OWN_UID: u32 = 3;
/// The group whose members may read: there is one of this name on every system.
pub(crate) const GROUP: &str = "daemon";
/// A member of the group about whom polkit is asked for most.
pub(crate) const ADMIN_UID: u32 = 2;
const USER_UID: u32 = 4;
const STRANGER_UID: u32 = 65534;

/// Somebody on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Who {
    Root,
    /// The service's own user.
    Own,
    /// A member of the group.
    Admin,
    /// A member of the group.
    User,
    /// Somebody else.
    Stranger,
}

impl Who {
    /// Those who can be had.
    pub(crate) fn all() -> &'static [Self] {
        match is_root() {
            true => &[Self::Root, Self::Own, Self::Admin, Self::User, Self::Stranger],
            false => &[Self::Own],
        }
    }

    pub(crate) fn may_read(self) -> bool {
        self != Self::Stranger
    }

    /// Whether it may read what not every reader may.
    pub(crate) fn is_owner(self) -> bool {
        matches!(self, Self::Root | Self::Own)
    }

    pub(crate) fn uid(self) -> u32 {
        match self {
            Self::Root => 0,
            Self::Own => own_uid(),
            Self::Admin => ADMIN_UID,
            Self::User => USER_UID,
            Self::Stranger => STRANGER_UID,
        }
    }
}

pub(crate) fn own_uid() -> u32 {
    if is_root() { OWN_UID } else { rustix::process::geteuid().as_raw() }
}

/// Who decides about changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decides {
    /// A stand-in for polkit, on the system's bus.
    StandIn,
    /// polkit itself, which is started by the test.
    Polkit,
    /// The service's own user, on another bus.
    Owner,
}

/// The service, its bus, and a service that has plugins.
pub(crate) struct World {
    pub(crate) served: Served,
    pub(crate) polkit: Option<Polkit>,
    pub(crate) thing: Thing,
    pub(crate) plugins: PathBuf,
    _things: Connection,
    pub(crate) bus: PrivateBus,
    place: Workplace,
    _open: TempDir,
    _shared: Arc<Shared>,
}

impl World {
    pub(crate) async fn start(decides: Decides) -> Self {
        Self::start_on(decides, PrivateBus::start(BusLimits::Raised)).await
    }

    pub(crate) async fn start_on(decides: Decides, bus: PrivateBus) -> Self {
        let _ = model::installed();
        let shared = Shared::get();
        let program = shared.directory.join("op-dbus");
        let data = shared.directory.join("data");
        let (open, directory) = open_directory();
        let plugins = directory.join("plugins");
        thing::write_plugin(&plugins, "one", thing::Plugin::default());
        let place = Workplace::new(program.to_str().unwrap());
        let line = serde_json::json!({ "key": "one", "text": "The hare slept under a tree." });
        place.file("text.jsonl", format!("{line}\n"));
        place.done(["index", "text.jsonl", "--collection", "open"]);
        let things = bus.connect().await;
        let [thing] = Thing::serve(&things, ["one"]).await;
        let polkit = match decides {
            Decides::StandIn => Some(Polkit::start(&bus).await),
            Decides::Polkit | Decides::Owner => None,
        };
        let daemon = place
            .op(["daemon", "--json", "--group", GROUP, "--index-live=false", "--plugins"])
            .arguments([&plugins])
            .arguments(["--interfaces", "no-interfaces"])
            .variable("XDG_DATA_HOME", data);
        let daemon = match is_root() {
            true => {
                give(place.path(), OWN_UID);
                let user = format!("--reuid {OWN_UID} --regid {OWN_UID} --clear-groups");
                daemon.within(&format!("exec setpriv {user} -- \"$0\" \"$@\""))
            }
            false => daemon,
        };
        let served = match decides {
            Decides::Owner => Served::start(daemon, &bus),
            Decides::StandIn | Decides::Polkit => Served::on_system_bus(daemon, &bus),
        };
        Self {
            served,
            polkit,
            thing,
            plugins,
            _things: things,
            bus,
            place,
            _open: open,
            _shared: shared,
        }
    }

    /// A connection of somebody, about whom polkit says no until it is told otherwise.
    pub(crate) async fn connect(&self, who: Who) -> Connection {
        let uid = who.uid();
        if uid == rustix::process::geteuid().as_raw() {
            return self.bus.connect().await;
        }
        let group = group_gid();
        match who {
            Who::Admin | Who::User => self.bus.connect_as(uid, &[STRANGER_UID, group]).await,
            Who::Root | Who::Own | Who::Stranger => self.bus.connect_as(uid, &[uid]).await,
        }
    }

    /// The same, with what the stand-in for polkit says about it.
    pub(crate) async fn connect_with(&self, who: Who, answer: Answer) -> Connection {
        let connection = self.connect(who).await;
        self.says(&connection, answer);
        connection
    }

    /// Has the stand-in for polkit, if there is one, say this about a connection.
    pub(crate) fn says(&self, connection: &Connection, answer: Answer) {
        if let Some(polkit) = &self.polkit {
            polkit.answers(&name_of(connection), answer);
        }
    }

    /// Ends the service, and returns its store, whose journal is whole.
    pub(crate) fn end(self) -> (Store, Workplace) {
        let Self { served, place, .. } = self;
        let _ = served.terminate().succeeded();
        if is_root() {
            give(place.path(), 0);
        }
        let store = Store::open(StoreConfig::new(place.store()).existing()).unwrap();
        let head = store.verify_journal().unwrap();
        assert_eq!(head.entries, store.journal_len());
        (store, place)
    }
}

/// The program and what is installed for a user, where everybody may read it. As long as one test
/// uses it, others share it.
struct Shared {
    directory: PathBuf,
    _kept: TempDir,
}

static SHARED: Mutex<Weak<Shared>> = Mutex::new(Weak::new());

impl Shared {
    fn get() -> Arc<Self> {
        let mut known = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = known.upgrade() {
            return shared;
        }
        let (kept, directory) = open_directory();
        fs::copy(env!("CARGO_BIN_EXE_op-dbus"), directory.join("op-dbus")).unwrap();
        let (from, to) = (data_directory(), directory.join("data/op-dbus"));
        for part in ["lib", "models/all-MiniLM-L6-v2"] {
            fs::create_dir_all(to.join(part)).unwrap();
            for entry in fs::read_dir(from.join(part)).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    fs::copy(&path, to.join(part).join(path.file_name().unwrap())).unwrap();
                }
            }
        }
        let shared = Arc::new(Self { directory, _kept: kept });
        *known = Arc::downgrade(&shared);
        shared
    }
}

/// Makes a directory, and what is in it, somebody's.
fn give(directory: &Path, uid: u32) {
    let given = Command::new("chown").arg("-R").arg(format!("{uid}:{uid}")).arg(directory).status();
    assert!(given.unwrap().success());
}

fn group_gid() -> u32 {
    let groups = fs::read_to_string("/etc/group").unwrap();
    let line = groups.lines().find(|line| line.starts_with(&format!("{GROUP}:"))).unwrap();
    line.split(':').nth(2).unwrap().parse().unwrap()
}

/// The unique name of a connection.
pub(crate) fn name_of(connection: &Connection) -> String {
    connection.unique_name().unwrap().to_string()
}

/// Calls a method of the service's object, or of a plugin's, by its names.
pub(crate) async fn call(
    connection: &Connection,
    interface: &str,
    member: &str,
    body: &(impl Serialize + DynamicType),
) -> Result<Message, BusError> {
    let path = path_of(interface);
    let interface = format!("{NAME}.{interface}");
    Ok(connection.call_method(Some(NAME), path, Some(&*interface), member, body).await?)
}

/// Reads a property.
pub(crate) async fn property(
    connection: &Connection,
    interface: &str,
    name: &str,
) -> Result<Message, BusError> {
    let path = path_of(interface);
    let body = (format!("{NAME}.{interface}"), name);
    let properties = Some("org.freedesktop.DBus.Properties");
    Ok(connection.call_method(Some(NAME), path, properties, "Get", &body).await?)
}

/// The object that has an interface.
pub(crate) fn path_of(interface: &str) -> &'static str {
    if interface == "Plugin1" { "/org/opdbus/plugins/one" } else { PATH }
}

/// The journal, as the service's user may read it.
pub(crate) struct JournalReader {
    connection: Connection,
    read: u64,
}

/// An entry, as far as it matters here.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) number: u64,
    pub(crate) kind: String,
    pub(crate) uid: Option<u64>,
    pub(crate) sender: String,
    pub(crate) action: String,
    pub(crate) details: Value,
}

impl JournalReader {
    /// Begins at the end.
    pub(crate) async fn new(connection: Connection) -> Self {
        let mut this = Self { connection, read: 0 };
        let _ = this.news().await;
        this
    }

    /// What was added since it was asked last.
    pub(crate) async fn news(&mut self) -> Vec<Entry> {
        let journal = JournalProxy::new(&self.connection).await.unwrap();
        let mut news = Vec::new();
        loop {
            let part = journal.read(self.read + 1, 1000).await.unwrap();
            if part.is_empty() {
                return news;
            }
            self.read += part.len() as u64;
            news.extend(part.iter().map(|line| entry(line)));
        }
    }
}

fn entry(line: &str) -> Entry {
    let value: HashMap<String, Value> = serde_json::from_str(line).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Entry {
        number: value["number"].as_u64().unwrap(),
        kind: text(&value["kind"]),
        uid: value["actor"]["uid"].as_u64(),
        sender: text(&value["actor"]["sender"]),
        action: text(&value["action"]),
        details: value["details"].clone(),
    }
}
