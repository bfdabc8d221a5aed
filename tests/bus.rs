//! The service on a bus: real tools, a client in Python, errors by name, and the XML of its object.
//!
//! Each test has a bus of its own, whose members may do everything unless it is about that.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[path = "bus/bounds.rs"]
mod bounds;
#[path = "bus/filter.rs"]
mod filter;
#[path = "bus/journal.rs"]
mod journal;
#[path = "bus/keyword.rs"]
mod keyword;
#[path = "bus/life.rs"]
mod life;
#[path = "bus/socket.rs"]
mod socket;

use std::fs;
use std::path::Path;

use op_dbus_daemon::{BusError, StateProxy};
use op_dbus_engine::{JournalKind, JournalNote, Store, StoreConfig};
use op_dbus_formats::introspection;
use serde::Serialize;
use support::bus::{BusLimits, NAME, PATH, PrivateBus, Served};
use support::crash::campaign::skip;
use support::crash::disk::Disk;
use support::model;
use support::program::{Ended, Invocation, Workplace, is_root};
use support::random::Random;
use zbus::{Connection, DynamicType, Message};

/// Texts that a query can tell apart, one a line.
const FABLE: &str = "\
The hare slept under a tree while the race went on.
A crow dropped pebbles into the jug until the water rose.
";
/// A user who owns nothing.
const NOBODY: &str = "65534";
const DENIED: &str = "org.opdbus.Error.Denied";
const INVALID: &str = "org.opdbus.Error.Invalid";
const LIMITS_EXCEEDED: &str = "org.opdbus.Error.LimitsExceeded";

/// The service on a bus of its own.
struct World {
    served: Served,
    bus: PrivateBus,
    place: Workplace,
}

impl World {
    /// Without a model, which is soon there.
    fn plain() -> Self {
        Self::with(&[])
    }

    /// The same with more arguments of `op-dbus daemon`.
    fn with(arguments: &[&str]) -> Self {
        let (place, bus) = (workplace(), PrivateBus::start(BusLimits::Raised));
        let served = Served::start(daemon(&place).arguments(arguments), &bus);
        Self { served, bus, place }
    }

    /// With a collection of a vector, but no model.
    fn with_vector() -> Self {
        let (place, bus) = (workplace(), PrivateBus::start(BusLimits::Raised));
        place.file("vectors.jsonl", "{\"key\":\"one\",\"vector\":[1.0,0.0]}\n");
        place.done(["index", "vectors.jsonl", "--collection", "vectors"]);
        let served = Served::start(daemon(&place), &bus);
        Self { served, bus, place }
    }

    /// With the texts of [`FABLE`] and the model that embedded them.
    fn with_fable(arguments: &[&str]) -> Self {
        model::installed();
        let place = workplace();
        place.file("fable.txt", FABLE);
        place.done(["index", "fable.txt"]);
        let bus = PrivateBus::start(BusLimits::Raised);
        let served = Served::start(
            place.op(["daemon", "--plugins", "no-plugins"]).arguments(arguments),
            &bus,
        );
        Self { served, bus, place }
    }

    /// Prepares a tool that is told the bus's address.
    fn tool(&self, line: &[&str]) -> Invocation {
        tool(line, &self.bus.address())
    }
}

fn workplace() -> Workplace {
    Workplace::new(env!("CARGO_BIN_EXE_op-dbus"))
}

/// The service without a model.
fn daemon(place: &Workplace) -> Invocation {
    place.op(["daemon", "--json", "--model", "no-model", "--plugins", "no-plugins"])
}

/// Prepares a tool, with each `@BUS@` of its line replaced by the address of a bus.
fn tool(line: &[&str], address: &str) -> Invocation {
    let words = line.iter().map(|word| word.replace("@BUS@", address));
    let mut words = words.collect::<Vec<_>>().into_iter();
    Invocation::new(Path::new(&words.next().unwrap())).arguments(words)
}

/// The line of `bus_client.py`, which others must be able to read who may not read this directory.
fn python<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    // Not the first python3 of the path: the packages of the system belong to this one.
    let script = include_str!("bus_client.py");
    [&["/usr/bin/python3", "-c", script], arguments].concat()
}

/// The line of a tool that another user runs.
fn as_nobody<'a>(line: &[&'a str]) -> Vec<&'a str> {
    let user = ["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"];
    [&user, line].concat()
}

/// Whether processes of other users can be had; says that a test is left out otherwise.
fn can_be_nobody(test: &str) -> bool {
    if !is_root() {
        skip(test, &"only root can be somebody else");
    }
    is_root()
}

async fn state(connection: &Connection) -> StateProxy<'_> {
    StateProxy::new(connection).await.unwrap()
}

async fn put(connection: &Connection, key: &str) -> Result<(), BusError> {
    state(connection).await.put(key.to_owned(), "{}".to_owned()).await
}

/// Calls a method of the service by its names, with a body of any type.
async fn call(
    connection: &Connection,
    interface: &str,
    method: &str,
    body: &(impl Serialize + DynamicType),
) -> Result<Message, BusError> {
    let interface = format!("{NAME}.{interface}");
    let called = connection.call_method(Some(NAME), PATH, Some(&*interface), method, body);
    Ok(called.await?)
}

/// What a tool was told, which must be an error.
fn failure(ended: Ended) -> String {
    assert_ne!(ended.code(), Some(0), "{}", ended.text());
    ended.stderr
}

/// `UPDATE_GOLDEN=1` writes the file anew: clients that are there rely on what was in it.
#[test]
fn the_object_is_described_as_ever_and_every_method_is_documented() {
    let world = World::plain();
    let line = ["busctl", "--address=@BUS@", "--xml-interface", "introspect", NAME, PATH];
    let xml = world.tool(&line).run().succeeded().text();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/service/opdbus.xml");
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        fs::create_dir_all(golden.parent().unwrap()).unwrap();
        fs::write(&golden, &xml).unwrap();
    }
    let before = fs::read_to_string(&golden).unwrap();
    assert_eq!(xml, before, "{} is not what the service says today", golden.display());

    let node = introspection::parse(xml.as_bytes()).unwrap();
    let ours: Vec<_> =
        node.interfaces.iter().filter(|interface| interface.name.starts_with(NAME)).collect();
    assert!(ours.len() >= 4, "{ours:?}");
    for interface in ours {
        let methods = interface.methods.iter().map(|method| (&method.name, &method.documentation));
        let properties = interface.properties.iter();
        let properties = properties.map(|property| (&property.name, &property.documentation));
        let signals = interface.signals.iter().map(|signal| (&signal.name, &signal.documentation));
        for (name, documentation) in methods.chain(properties).chain(signals) {
            let text = documentation.as_deref().unwrap_or_default();
            assert!(text.len() > 10, "{}.{name}: {documentation:?}", interface.name);
        }
    }
}

#[test]
fn busctl_sees_it_calls_it_and_hears_it() {
    let world = World::plain();
    let busctl = |line: &[&str]| world.tool(&[&["busctl", "--address=@BUS@"], line].concat());
    let shown = busctl(&["introspect", NAME, PATH]).run().succeeded().text();
    for member in [".Search", ".Embed", ".Put", ".Changed", ".Create", ".Names"] {
        assert!(shown.lines().any(|line| line.starts_with(&format!("{member} "))), "{shown}");
    }
    let call = ["call", NAME, PATH, "org.opdbus.State1"];
    let _ = busctl(&[&call[..], &["Put", "ss", "hosts/web1", "[1]"]].concat()).run().succeeded();
    let got = busctl(&[&call[..], &["Get", "s", "hosts/web1"]].concat()).run().succeeded();
    assert_eq!(got.text(), "s \"[1]\"\n");
    let names = ["get-property", NAME, PATH, "org.opdbus.Query1", "Collections"];
    // The index of the bus may have begun.
    let names = busctl(&names).run().succeeded().text();
    assert!(names.starts_with("as ") && names.contains("\"declared\""), "{names}");
    assert!(names.contains("\"state\""), "{names}");
    let missing = failure(busctl(&[&call[..], &["Get", "s", "nothing"]].concat()).run());
    assert!(missing.contains("there is no document nothing"), "{missing}");

    let monitor = busctl(&["monitor", "--json=short", NAME]).start();
    let heard = heard(&world, monitor, |line| line.contains("\"member\":\"Changed\""));
    let heard: serde_json::Value = serde_json::from_str(&heard).unwrap();
    assert_eq!(heard["interface"], "org.opdbus.State1", "{heard}");
    assert_eq!(heard["payload"]["type"], "sst", "{heard}");
    assert_eq!(heard["payload"]["data"][1], "put", "{heard}");
}

#[test]
fn gdbus_sees_it_calls_it_and_hears_it() {
    let world = World::plain();
    let gdbus = |verb: &str, line: &[&str]| {
        let to = ["--address=@BUS@", "--dest", NAME, "--object-path", PATH];
        world.tool(&[&["gdbus", verb], &to[..], line].concat())
    };
    let shown = gdbus("introspect", &[]).run().succeeded().text();
    for part in ["interface org.opdbus.Query1", "Put(in  s key", "Changed(s key", "as Names"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let put = ["--method", "org.opdbus.State1.Put", "hosts/web1", "{\"role\": \"proxy\"}"];
    assert_eq!(gdbus("call", &put).run().succeeded().text(), "()\n");
    let get = ["--method", "org.opdbus.State1.Get", "hosts/web1"];
    assert_eq!(gdbus("call", &get).run().succeeded().text(), "('{\"role\": \"proxy\"}',)\n");
    let similar = ["--method", "org.opdbus.Query1.Similar", "<[1.0, 2.0]>", "{'limt': <uint32 1>}"];
    let unknown = failure(gdbus("call", &similar).run());
    assert!(unknown.contains(INVALID) && unknown.contains("\"limt\""), "{unknown}");

    let heard = heard(&world, gdbus("monitor", &[]).start(), |line| line.contains(".Changed "));
    assert!(heard.starts_with("/org/opdbus: org.opdbus.State1.Changed ('key"), "{heard}");
}

/// Puts until a monitor, which says not when it begins to listen, has a line like this.
fn heard(
    world: &World,
    mut monitor: support::program::Running,
    is_wanted: impl Fn(&str) -> bool,
) -> String {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let connection = runtime.block_on(world.bus.connect());
    let putting = runtime.spawn(async move {
        for number in 0.. {
            // The hundredth may be one too many in a second.
            let _ = put(&connection, &format!("key{number}")).await;
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    });
    let heard = loop {
        let line = monitor.next_line().expect("it goes on until it is ended");
        if is_wanted(&line) {
            break line;
        }
    };
    putting.abort();
    heard
}

#[test]
fn a_client_in_python_gets_all_it_needs() {
    let world = World::with_fable(&[]);
    let ended = world.tool(&python(&["all", "@BUS@"])).run().succeeded();
    let done: Vec<_> = ended.text().lines().map(str::to_owned).collect();
    assert_eq!(done, ["search", "embed", "memory", "changed", "snapshot", "errors"]);
    let _ = world.served.terminate().succeeded();
}

#[tokio::test]
async fn errors_have_the_name_of_their_kind() {
    let place = workplace();
    place.file("bytes", b"\xff\x00");
    place.done(["put", "raw", "bytes", "--bytes"]);
    model::installed();
    place.file("fable.txt", FABLE);
    place.done(["index", "fable.txt"]);
    let bus = PrivateBus::start(BusLimits::Raised);
    let served = Served::start(daemon(&place), &bus);
    let connection = bus.connect().await;
    let none: std::collections::HashMap<&str, zbus::Variant<'_>> = [].into();
    let name = |answered: Result<Message, BusError>| answered.unwrap_err().name().to_owned();
    let is = |kind: &str| format!("org.opdbus.Error.{kind}");
    assert_eq!(name(call(&connection, "State1", "Get", &"nothing").await), is("NotFound"));
    assert_eq!(name(call(&connection, "Query1", "Get", &("no", "no")).await), is("NotFound"));
    assert_eq!(name(call(&connection, "Snapshot1", "Delete", &"no").await), is("NotFound"));
    assert_eq!(name(call(&connection, "State1", "Put", &("key", "{")).await), is("Invalid"));
    assert_eq!(name(call(&connection, "State1", "Put", &("", "{}")).await), is("Invalid"));
    let search = call(&connection, "Query1", "Search", &("a text", &none)).await;
    assert_eq!(name(search), is("Unavailable"));
    assert_eq!(name(call(&connection, "Cache1", "Embed", &vec!["text"]).await), is("Unavailable"));
    assert_eq!(name(call(&connection, "State1", "Get", &"raw").await), is("Unsupported"));
    // What D-Bus has names for keeps them.
    let bus_is = |kind: &str| format!("org.freedesktop.DBus.Error.{kind}");
    assert_eq!(name(call(&connection, "State1", "No", &()).await), bus_is("UnknownMethod"));
    assert_eq!(name(call(&connection, "No1", "No", &()).await), bus_is("UnknownInterface"));
    assert_eq!(name(call(&connection, "State1", "Get", &1_u32).await), bus_is("InvalidArgs"));
    // A remedy is the second line.
    let problem = call(&connection, "State1", "Get", &"nothing").await.unwrap_err();
    let error = op_dbus_engine::Error::from(problem);
    assert_eq!(
        (error.to_string().as_str(), error.remedy()),
        ("there is no document nothing", Some("put it first"))
    );
    let _ = served.terminate().succeeded();
}

#[tokio::test]
async fn a_full_disk_has_its_name_and_can_be_read() {
    let disk = match Disk::create(256 << 20) {
        Ok(disk) => disk,
        Err(reason) => return skip("a_full_disk_has_its_name_and_can_be_read", &reason),
    };
    let bus = PrivateBus::start(BusLimits::Raised);
    let store = disk.path().join("store");
    let start = || {
        let daemon = Invocation::new(Path::new(env!("CARGO_BIN_EXE_op-dbus")));
        let daemon = daemon.arguments(["--store".as_ref(), store.as_os_str()]);
        let line = ["daemon", "--model", "no-model", "--plugins", "no-plugins"];
        Served::start(daemon.arguments(line), &bus)
    };
    let served = start();
    let connection = bus.connect().await;
    let state = state(&connection).await;
    put(&connection, "small").await.unwrap();
    let mut random = Random::new(3);
    let refused = loop {
        // Random, so that compression makes no room.
        let words = (0..(1 << 18)).map(|_| format!("{:016x}", random.bits()));
        let document = format!("\"{}\"", words.collect::<String>());
        if let Err(error) = state.put("large".to_owned(), document).await {
            break error;
        }
    };
    assert_eq!(refused.name(), "org.opdbus.Error.Full", "{refused:?}");
    assert_eq!(state.get("small".to_owned()).await.unwrap(), "{}");
    // It ends and begins on a full disk, which whoever makes room will want.
    let _ = served.terminate().succeeded();
    // Of a change that was broken off there is no room to tell either. It may not have got into the journal.
    let broken_off = JournalNote {
        kind: JournalKind::Intent,
        intent: None,
        actor: None,
        action: "put state large".to_owned(),
        details: "{}".to_owned(),
    };
    let opened = Store::open(StoreConfig::new(&store)).unwrap();
    let is_broken_off = opened.append_journal(&[broken_off]).is_ok();
    opened.close();
    let mut filled = std::fs::File::create(disk.path().join("filled")).unwrap();
    while std::io::Write::write_all(&mut filled, &[1; 1 << 16]).is_ok() {}
    let served = start();
    // Whoever comes first is decided about, of which the journal has no room to tell.
    let refused = state.get("small".to_owned()).await.unwrap_err();
    assert_eq!(refused.name(), "org.opdbus.Error.Full", "{refused:?}");
    let told = served.terminate().succeeded().stderr;
    assert!(told.contains("not journaled"), "{told}");
    assert!(!is_broken_off || told.contains("broken off by the end of the service"), "{told}");
}

#[test]
fn others_may_not_read_and_readers_may_not_change() {
    if !can_be_nobody("others_may_not_read_and_readers_may_not_change") {
        return;
    }
    let attempt = |world: &World, line: &[&str]| {
        let gdbus =
            ["gdbus", "call", "--address=@BUS@", "--dest", NAME, "--object-path", PATH, "--method"];
        world.tool(&as_nobody(&[&gdbus, line].concat())).run()
    };
    let world = World::plain();
    for line in [
        &["org.opdbus.State1.Get", "key"][..],
        &["org.opdbus.State1.Put", "key", "{}"],
        &["org.opdbus.Snapshot1.List"],
        &["org.freedesktop.DBus.Properties.Get", "org.opdbus.Query1", "Collections"],
    ] {
        let problem = failure(attempt(&world, line));
        assert!(problem.contains(DENIED), "{line:?}: {problem}");
    }
    // Of all properties those are given that may be read.
    let all = ["org.freedesktop.DBus.Properties.GetAll", "org.opdbus.Snapshot1"];
    assert_eq!(attempt(&world, &all).succeeded().text(), "(@a{sv} {},)\n");

    let world = World::with(&["--group", "nogroup"]);
    let names = ["org.freedesktop.DBus.Properties.Get", "org.opdbus.Query1", "Collections"];
    let _ = attempt(&world, &names).succeeded();
    // What is told of collections is told of those alone that may be read.
    let own = world.tool(&["busctl", "--address=@BUS@", "call", NAME, PATH]);
    let own = own.arguments(["org.opdbus.Query1", "Stats"]).run().succeeded().text();
    assert!(own.contains("declared"), "{own}");
    let stats = attempt(&world, &["org.opdbus.Query1.Stats"]).succeeded().text();
    assert!(!stats.contains("declared") && stats.contains("\"bus\":{\"answered\":"), "{stats}");
    for line in [
        &["org.opdbus.State1.Put", "key", "{}"][..],
        &["org.opdbus.Snapshot1.Create", "why", "false"],
        &["org.opdbus.Cache1.Clear"],
    ] {
        let problem = failure(attempt(&world, line));
        assert!(problem.contains(DENIED), "{line:?}: {problem}");
    }
}
