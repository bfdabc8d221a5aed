//! Every method and property of the service: who may use it, a call of it, and how to see that it did
//! something.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use op_dbus_daemon::{
    BusError, CONFIRMATION_REQUIRED, CacheProxy, PluginProxy, PluginsProxy, SnapshotProxy,
    StateProxy, object_path,
};
use op_dbus_formats::introspection;
use serde_json::json;
use support::bus::NAME;
use support::thing;
use zbus::fdo::IntrospectableProxy;
use zbus::proxy::CacheProperties;
use zbus::{Connection, Message, Variant};

use crate::world::{Decides, World, call, path_of, property};

pub(crate) const DENIED: &str = "org.opdbus.Error.Denied";
const INVALID: &str = "org.opdbus.Error.Invalid";
const NOT_FOUND: &str = "org.opdbus.Error.NotFound";
const INTERFACES: [&str; 7] =
    ["Cache1", "Journal1", "Plugin1", "Plugins1", "Query1", "Snapshot1", "State1"];

/// Who may do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    /// Whoever may read.
    Read,
    /// Root and the service's own user.
    ReadProtected,
    /// Whoever may read and may do this, too.
    Change(&'static str),
    /// Nobody: readers get this error.
    Nobody(&'static str),
}

/// Something that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) interface: &'static str,
    pub(crate) member: &'static str,
    /// What is special about it; `property` for what is no method.
    pub(crate) variant: &'static str,
    pub(crate) right: Right,
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{} {}", self.interface, self.member, self.variant)
    }
}

const fn case(
    interface: &'static str,
    member: &'static str,
    variant: &'static str,
    right: Right,
) -> Case {
    Case { interface, member, variant, right }
}

const CACHE: Right = Right::Change("org.opdbus.cache");
const STATE: Right = Right::Change("org.opdbus.state");
const SNAPSHOT: Right = Right::Change("org.opdbus.snapshot");
const CALL: Right = Right::Change("org.opdbus.call");
const CONFIRMED: Right = Right::Change("org.opdbus.call-confirmed");
const PREPARE: &str = "PrepareCall";
/// The first entry of the journal, in the collection that it can be searched in.
const JOURNAL_KEY: &str = "000000000001";

/// A method that is not here fails the test, until somebody has said who may call it.
const CASES: [Case; 67] = [
    case("Cache1", "Embed", "", Right::Read),
    case("Cache1", "Get", "", Right::Read),
    case("Cache1", "Put", "", CACHE),
    case("Cache1", "Evict", "", CACHE),
    case("Cache1", "Clear", "", CACHE),
    case("Cache1", "Embeddings", "property", Right::Read),
    case("Cache1", "Model", "property", Right::Read),
    case("Cache1", "HitRate", "property", Right::Read),
    case("Cache1", "DiskBytes", "property", Right::Read),
    case("Cache1", "MemoryBytes", "property", Right::Read),
    case("Cache1", "Statistics", "property", Right::Read),
    case("Journal1", "Read", "", Right::ReadProtected),
    case("Journal1", "Verify", "", Right::ReadProtected),
    case("Journal1", "Length", "property", Right::Read),
    case("Plugin1", "Describe", "", Right::Read),
    case("Plugin1", PREPARE, "safe", CALL),
    case("Plugin1", PREPARE, "not safe", CONFIRMED),
    case("Plugin1", PREPARE, "confirmed", CALL),
    case("Plugin1", PREPARE, "safe, with a forged token", Right::Nobody(DENIED)),
    case("Plugin1", PREPARE, "with a forged token", Right::Nobody(DENIED)),
    case("Plugin1", PREPARE, "not mapped", Right::Nobody(DENIED)),
    case("Plugin1", PREPARE, "denied", Right::Nobody(DENIED)),
    case("Plugin1", PREPARE, "outside", Right::Nobody(DENIED)),
    case("Plugin1", PREPARE, "beside", Right::Nobody(DENIED)),
    case("Plugin1", PREPARE, "wrong arguments", Right::Nobody(INVALID)),
    case("Plugin1", PREPARE, "unknown", Right::Nobody(NOT_FOUND)),
    case("Plugin1", "ConfirmCall", "", CONFIRMED),
    case("Plugin1", "ConfirmCall", "not mapped", Right::Nobody(DENIED)),
    case("Plugin1", "ConfirmCall", "denied", Right::Nobody(DENIED)),
    case("Plugin1", "FinishCall", "of another", Right::Nobody(NOT_FOUND)),
    case("Plugin1", "Name", "property", Right::Read),
    case("Plugin1", "State", "property", Right::Read),
    case("Plugin1", "Problem", "property", Right::Read),
    case("Plugins1", "List", "", Right::Read),
    case("Plugins1", "Reload", "", Right::Change("org.opdbus.reload")),
    case("Plugins1", "Names", "property", Right::Read),
    case("Query1", "Search", "all", Right::Read),
    case("Query1", "Search", "all by words", Right::Read),
    case("Query1", "Search", "journal", Right::ReadProtected),
    case("Query1", "Search", "open and journal", Right::ReadProtected),
    case("Query1", "Explain", "all", Right::Read),
    case("Query1", "Explain", "journal", Right::ReadProtected),
    case("Query1", "Explain", "to a record of journal", Right::ReadProtected),
    case("Query1", "Similar", "all", Right::Read),
    case("Query1", "Similar", "journal", Right::ReadProtected),
    case("Query1", "Similar", "to a record of journal", Right::ReadProtected),
    case("Query1", "Get", "open", Right::Read),
    case("Query1", "Get", "journal", Right::ReadProtected),
    case("Query1", "Get", "declared", Right::ReadProtected),
    case("Query1", "Get", "checkpoint", Right::ReadProtected),
    case("Query1", "Stats", "", Right::Read),
    case("Query1", "Activity", "", Right::Read),
    case("Query1", "Collections", "property", Right::Read),
    case("Snapshot1", "Create", "", SNAPSHOT),
    case("Snapshot1", "List", "", Right::Read),
    case("Snapshot1", "Delete", "", SNAPSHOT),
    case("Snapshot1", "Prune", "", SNAPSHOT),
    case("Snapshot1", "Names", "property", Right::Read),
    case("State1", "Get", "", Right::Read),
    case("State1", "Put", "", STATE),
    case("State1", "Query", "", Right::Read),
    case("State1", "Diff", "", Right::Read),
    case("State1", "Apply", "", STATE),
    case("State1", "Verify", "a file", Right::Read),
    case("State1", "Verify", "what was declared", Right::ReadProtected),
    case("State1", "History", "", Right::Read),
    case("State1", "Rollback", "", STATE),
];

/// All that can be asked for, as it is where this decides.
pub(crate) fn cases(decides: Decides) -> Vec<Case> {
    let mut cases = CASES.to_vec();
    if decides == Decides::Owner {
        // Where no person can be asked a token is needed.
        let unsafe_calls = cases.iter_mut().filter(|case| case.variant == "not safe");
        unsafe_calls.for_each(|case| case.right = Right::Nobody(CONFIRMATION_REQUIRED));
    }
    cases
}

/// Every method and property that the service says it has is in the cases, and the other way round.
pub(crate) async fn assert_complete(connection: &Connection) {
    let mut said = BTreeSet::new();
    for path in [path_of("State1"), path_of("Plugin1")] {
        let introspectable = IntrospectableProxy::builder(connection).destination(NAME);
        let introspectable = introspectable.path(path).build().await.unwrap();
        let xml = introspectable.introspect().await.unwrap();
        let node = introspection::parse(xml.as_bytes()).unwrap();
        for interface in &node.interfaces {
            let Some(own) = interface.name.strip_prefix(&format!("{NAME}.")) else { continue };
            let methods = interface.methods.iter().map(|method| &method.name);
            let properties = interface.properties.iter().inspect(|property| {
                assert_eq!(property.access, introspection::Access::Read, "{property:?}");
            });
            let members = methods.chain(properties.map(|property| &property.name));
            said.extend(members.map(|member| (own.to_owned(), member.clone())));
        }
    }
    let known = CASES.iter().map(|case| (case.interface.to_owned(), case.member.to_owned()));
    assert_eq!(said, known.collect(), "what the service has, and what is looked at here");
    assert!(CASES.iter().all(|case| INTERFACES.contains(&case.interface)));
}

/// What a call needs that was made for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prepared {
    /// A word that nothing else has.
    pub(crate) word: String,
    name: String,
    number: u64,
    token: String,
}

/// Looks and changes on behalf of the test, and may do everything.
pub(crate) struct Observer {
    pub(crate) connection: Connection,
}

impl Observer {
    async fn plugin(&self) -> PluginProxy<'_> {
        plugin(&self.connection).await
    }

    async fn state(&self) -> StateProxy<'_> {
        StateProxy::new(&self.connection).await.unwrap()
    }

    async fn cache(&self) -> CacheProxy<'_> {
        CacheProxy::new(&self.connection).await.unwrap()
    }

    async fn snapshots(&self) -> Vec<String> {
        let snapshot = SnapshotProxy::new(&self.connection).await.unwrap();
        snapshot.list().await.unwrap().into_iter().map(|listed| listed.0).collect()
    }

    async fn has_snapshots(&self, count: usize) -> Vec<String> {
        let snapshot = SnapshotProxy::new(&self.connection).await.unwrap();
        while self.snapshots().await.len() < count {
            let _ = snapshot.create("to be deleted".to_owned(), false).await.unwrap();
        }
        self.snapshots().await
    }

    pub(crate) async fn declare(&self, color: &str) {
        let report = self.state().await.apply(declared(color)).await.unwrap();
        assert!(report.contains("\"as_declared\":true"), "{report}");
    }

    /// Makes what a case is about.
    pub(crate) async fn prepare(&self, world: &World, case: Case, word: String) -> Prepared {
        let mut prepared = Prepared { word, ..Prepared::default() };
        match (case.interface, case.member) {
            ("Cache1", "Evict" | "Clear") => {
                let body = (prepared.word.as_str(), Variant::from(vector()));
                call(&self.connection, "Cache1", "Put", &body).await.unwrap();
            }
            ("Plugin1", "FinishCall") => {
                let plugin = self.plugin().await;
                let call = plugin.prepare_call(
                    "Look".to_owned(),
                    String::new(),
                    "[\"x\"]".to_owned(),
                    String::new(),
                );
                prepared.number = call.await.unwrap().0;
            }
            ("Plugins1", "Reload") => {
                let other = thing::Plugin { thing: Some("one"), ..thing::Plugin::default() };
                thing::write_plugin(&world.plugins, &prepared.word, other);
            }
            ("Snapshot1", "Delete") => {
                prepared.name = self.has_snapshots(1).await.swap_remove(0);
            }
            ("Snapshot1", "Prune") => {
                prepared.number = self.has_snapshots(2).await.len() as u64;
            }
            ("State1", "Rollback") => {
                self.declare(&prepared.word).await;
                prepared.number = self.state().await.history().await.unwrap()[0].0;
                self.declare("another").await;
            }
            _ => {}
        }
        prepared
    }

    /// Whether what was asked for is so.
    pub(crate) async fn has_effect(&self, world: &World, case: Case, prepared: &Prepared) -> bool {
        let word = prepared.word.clone();
        match (case.interface, case.member) {
            ("Cache1", "Put") => self.cache().await.get(word).await.is_ok(),
            ("Cache1", "Evict" | "Clear") => self.cache().await.get(word).await.is_err(),
            ("Plugin1", "FinishCall") => {
                let plugin = self.plugin().await;
                plugin.finish_call(prepared.number, true, "[]".to_owned()).await.is_err()
            }
            ("Plugins1", "Reload") => {
                let plugins = PluginsProxy::new(&self.connection).await.unwrap();
                plugins.list().await.unwrap().iter().any(|row| row.0 == word)
            }
            ("Snapshot1", "Create") => {
                let snapshot = SnapshotProxy::new(&self.connection).await.unwrap();
                snapshot.list().await.unwrap().iter().any(|row| row.2 == word)
            }
            ("Snapshot1", "Delete") => !self.snapshots().await.contains(&prepared.name),
            ("Snapshot1", "Prune") => (self.snapshots().await.len() as u64) < prepared.number,
            ("State1", "Put") => self.state().await.get(word).await.is_ok(),
            ("State1", "Apply" | "Rollback") => world.thing.values().color == word,
            _ => false,
        }
    }
}

/// Waits until the journal can be searched, as it can be a little after it was written.
pub(crate) async fn journal_is_found(connection: &Connection) {
    let found = async {
        while call(connection, "Query1", "Get", &("journal", JOURNAL_KEY)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), found).await.unwrap();
}

/// Whether an answer has something of what not every reader may read.
pub(crate) fn leaks(answer: &Message) -> bool {
    let body = answer.body();
    let text = format!("{:?}", body.deserialize::<zbus::Structure<'_>>());
    ["journal", "declared"].iter().any(|name| text.contains(&format!("\"{name}")))
}

pub(crate) async fn plugin(connection: &Connection) -> PluginProxy<'_> {
    let builder = PluginProxy::builder(connection).destination(NAME).path(object_path("one"));
    builder.cache_properties(CacheProperties::No).build().await.unwrap()
}

/// A file of declared state.
pub(crate) fn declared(color: &str) -> String {
    json!({ "version": "1.0", "plugins": { "one": { "color": color } } }).to_string()
}

fn vector() -> Vec<f64> {
    let mut vector = vec![0.0; 384];
    vector[7] = 1.0;
    vector
}

/// A confirmation of an unsafe call, of this caller's own.
pub(crate) async fn confirm(connection: &Connection, what: &str) -> Result<String, BusError> {
    let arguments = json!([what]).to_string();
    plugin(connection).await.confirm_call("Break".to_owned(), String::new(), arguments).await
}

impl Prepared {
    /// Adds a confirmation that the caller was given, or something that looks like one.
    pub(crate) fn with_token(mut self, token: Option<String>) -> Self {
        self.token = token.unwrap_or_else(|| "0".repeat(64));
        self
    }
}

/// Asks for it, as somebody.
pub(crate) async fn attempt(
    connection: &Connection,
    case: Case,
    prepared: &Prepared,
) -> Result<Message, BusError> {
    let (interface, member) = (case.interface, case.member);
    if case.variant == "property" {
        return property(connection, interface, member).await;
    }
    let word = prepared.word.as_str();
    match interface {
        "Plugin1" => attempt_call(connection, case, prepared).await,
        "Query1" => attempt_query(connection, case).await,
        "Cache1" => match member {
            "Embed" => call(connection, interface, member, &vec!["a hare"]).await,
            "Get" => call(connection, interface, member, &"a hare").await,
            "Put" => call(connection, interface, member, &(word, Variant::from(vector()))).await,
            "Evict" => call(connection, interface, member, &0_u64).await,
            _ => call(connection, interface, member, &()).await,
        },
        "Snapshot1" => match member {
            "Create" => call(connection, interface, member, &(word, false)).await,
            "Delete" => call(connection, interface, member, &prepared.name).await,
            "Prune" => {
                let schedule: Vec<(u32, &str)> = Vec::new();
                call(connection, interface, member, &(1_u32, schedule, 0_u8)).await
            }
            _ => call(connection, interface, member, &()).await,
        },
        "State1" => match (member, case.variant) {
            ("Get", _) => call(connection, interface, member, &"known").await,
            ("Put", _) => call(connection, interface, member, &(word, "{}")).await,
            ("Query", _) => call(connection, interface, member, &"one").await,
            ("Verify", "what was declared") => call(connection, interface, member, &"").await,
            ("Diff" | "Verify" | "Apply", _) => {
                call(connection, interface, member, &declared(word)).await
            }
            ("Rollback", _) => call(connection, interface, member, &prepared.number).await,
            _ => call(connection, interface, member, &()).await,
        },
        "Journal1" if member == "Read" => {
            call(connection, interface, member, &(1_u64, 10_u32)).await
        }
        _ => call(connection, interface, member, &()).await,
    }
}

async fn attempt_call(
    connection: &Connection,
    case: Case,
    prepared: &Prepared,
) -> Result<Message, BusError> {
    let word = json!([prepared.word]).to_string();
    let (method, path, arguments) = match case.variant {
        "not mapped" => ("Hidden", "", "[]"),
        "denied" => ("Never", "", "[]"),
        "unknown" => ("Nothing", "", "[]"),
        "outside" => ("Look", "/org/example/Other", word.as_str()),
        "beside" => ("Look", "/org/example/Things/one2", word.as_str()),
        "wrong arguments" => ("Look", "", "[1, 2]"),
        "safe" | "safe, with a forged token" => ("Look", "", word.as_str()),
        _ => ("Break", "", word.as_str()),
    };
    match case.member {
        PREPARE => {
            let body = (method, path, arguments, prepared.token.as_str());
            call(connection, case.interface, PREPARE, &body).await
        }
        "ConfirmCall" => {
            call(connection, case.interface, case.member, &(method, path, arguments)).await
        }
        "FinishCall" => {
            let body = (prepared.number, true, "[]");
            call(connection, case.interface, case.member, &body).await
        }
        member => call(connection, case.interface, member, &()).await,
    }
}

async fn attempt_query(connection: &Connection, case: Case) -> Result<Message, BusError> {
    let (interface, member) = (case.interface, case.member);
    let collections = match case.variant {
        "journal" => Some(vec!["journal"]),
        "open and journal" => Some(vec!["open", "journal"]),
        _ => None,
    };
    let collections = collections.map(|names| ("collections", Variant::from(names)));
    let words = (case.variant == "all by words").then(|| ("keyword", Variant::from(true)));
    let options: HashMap<&str, Variant<'_>> = collections.into_iter().chain(words).collect();
    match (member, case.variant) {
        ("Stats" | "Activity", _) => call(connection, interface, member, &()).await,
        ("Get", "declared") => {
            call(connection, interface, member, &("declared", "state.json")).await
        }
        ("Get", "checkpoint") => {
            call(connection, interface, member, &("declared", "checkpoint")).await
        }
        ("Get", "journal") => call(connection, interface, member, &("journal", JOURNAL_KEY)).await,
        ("Get", collection) => call(connection, interface, member, &(collection, "one")).await,
        ("Similar" | "Explain", "to a record of journal") => {
            let target = Variant::from(("journal", JOURNAL_KEY));
            call(connection, interface, member, &(target, &options)).await
        }
        ("Explain", _) => {
            let text = Variant::from("a hare under a tree");
            call(connection, interface, member, &(text, &options)).await
        }
        ("Similar", _) => {
            call(connection, interface, member, &(Variant::from(vector()), &options)).await
        }
        _ => call(connection, interface, member, &("a hare under a tree", &options)).await,
    }
}
