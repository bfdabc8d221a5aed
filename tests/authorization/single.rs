//! What is no cell of the matrix: confirmations shown by the wrong people, callers who go, a polkit
//! that says nothing.

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use op_dbus_daemon::{BusError, PreparedCall, SnapshotProxy, StateProxy};
use serde_json::json;
use support::bus::{BusLimits, NAME, PATH, PrivateBus};
use support::crash::campaign::skip;
use support::program::is_root;
use zbus::fdo::{DBusProxy, ObjectManagerProxy, PropertiesProxy};
use zbus::{Connection, MatchRule, MessageStream};

use crate::cases::{DENIED, confirm, plugin};
use crate::polkit::Answer;
use crate::real::user_name;
use crate::world::{Decides, Entry, GROUP, JournalReader, Who, World, call, name_of, own_uid};

/// How long the service waits for a polkit that asks nobody.
const POLKIT_PATIENCE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(5);
/// The interface of the signal that ends a test of signals.
const OVER: &str = "org.example.Over1";

/// Somebody who may confirm.
fn confirmer() -> Who {
    if is_root() { Who::Admin } else { Who::Own }
}

async fn prepare(
    connection: &Connection,
    method: &str,
    path: &str,
    what: &str,
    token: &str,
) -> Result<PreparedCall, BusError> {
    let arguments = json!([what]).to_string();
    let (method, path, token) = (method.to_owned(), path.to_owned(), token.to_owned());
    plugin(connection).await.prepare_call(method, path, arguments, token).await
}

fn is_denied(prepared: Result<PreparedCall, BusError>, reason: &str) {
    let error = prepared.expect_err(reason);
    assert_eq!(error.name(), DENIED);
    assert!(error.problem().contains(reason), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confirmation_counts_for_one_call_by_one_caller_once() {
    let world = World::start(Decides::StandIn).await;
    let own = world.connect(Who::Own).await;
    let mut journal = JournalReader::new(own).await;
    let one = world.connect_with(confirmer(), Answer::Yes).await;
    let other = world.connect_with(confirmer(), Answer::Yes).await;
    let _ = journal.news().await;

    let token = confirm(&one, "a").await.unwrap();
    is_denied(prepare(&other, "Break", "", "a", &token).await, "given to somebody else");
    // Whoever shows it wrongly has spent it.
    is_denied(prepare(&one, "Break", "", "a", &token).await, "no such confirmation");
    let token = confirm(&one, "a").await.unwrap();
    is_denied(prepare(&one, "SetColor", "", "a", &token).await, "of another call");
    let token = confirm(&one, "a").await.unwrap();
    is_denied(prepare(&one, "Break", "", "b", &token).await, "of another call");
    let token = confirm(&one, "a").await.unwrap();
    let below = "/org/example/Things/one/part";
    is_denied(prepare(&one, "Break", below, "a", &token).await, "of another call");
    is_denied(prepare(&one, "Break", "", "a", &"f".repeat(64)).await, "no such confirmation");
    is_denied(prepare(&one, "Break", "", "a", "x").await, "no such confirmation");
    let token = confirm(&one, "a").await.unwrap();
    let allowed = prepare(&one, "Break", "", "a", &token).await.unwrap();
    is_denied(prepare(&one, "Break", "", "a", &token).await, "no such confirmation");
    plugin(&one).await.finish_call(allowed.0, true, "[]".to_owned()).await.unwrap();

    // That of somebody who has gone, by the same user.
    let leaving = world.connect_with(confirmer(), Answer::Yes).await;
    let token = confirm(&leaving, "a").await.unwrap();
    leaves(&world, leaving).await;
    is_denied(prepare(&one, "Break", "", "a", &token).await, "confirmation");

    let news = journal.news().await;
    let denials = news.iter().filter(|entry| entry.kind == "denial");
    assert_eq!(denials.count(), 9, "{news:?}");
    let calls = |kind: &str| {
        let is_call = |entry: &&Entry| entry.kind == kind && entry.action.starts_with("call ");
        news.iter().filter(is_call).count()
    };
    assert_eq!((calls("intent"), calls("outcome")), (1, 1), "{news:?}");
    // polkit was asked about the confirmation as such, and then about the call.
    let asked = world.polkit.as_ref().unwrap().asked_about(&name_of(&one));
    let last_two: Vec<&str> = asked[asked.len() - 2..].iter().map(|a| a.action.as_str()).collect();
    assert_eq!(last_two, ["org.opdbus.call-confirmed", "org.opdbus.call"]);
    let _ = world.end();
}

/// Closes a connection, and waits until the bus has forgotten it.
async fn leaves(world: &World, connection: Connection) {
    let name = name_of(&connection);
    let watching = world.bus.connect().await;
    let bus = DBusProxy::new(&watching).await.unwrap();
    connection.close().await.unwrap();
    let gone = async {
        while bus.name_has_owner(name.as_str().try_into().unwrap()).await.unwrap() {
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
}

/// Waits until the journal has what became of somebody's question.
async fn decided(journal: &mut JournalReader, sender: &str) -> Vec<Entry> {
    let mut all = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let news = journal.news().await;
        all.extend(news.into_iter().filter(|entry| entry.sender == sender));
        if all.iter().any(|entry: &Entry| entry.kind == "denial" || entry.kind == "outcome") {
            return all;
        }
        assert!(Instant::now() < deadline, "nothing became of it: {all:?}");
        tokio::time::sleep(POLL).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn for_a_caller_who_has_gone_while_polkit_was_asked_nothing_is_done() {
    let world = World::start(Decides::StandIn).await;
    let own = world.connect_with(Who::Own, Answer::Yes).await;
    let polkit = world.polkit.as_ref().unwrap();
    let before = world.thing.values();
    for (number, what) in ["put", "apply", "prepare", "confirm", "snapshot"].into_iter().enumerate()
    {
        let mut journal = JournalReader::new(own.clone()).await;
        let caller = world.connect_with(confirmer(), Answer::Late).await;
        let asking = caller.clone();
        let asked = tokio::spawn(async move {
            let file = crate::cases::declared("late");
            match what {
                "put" => call(&asking, "State1", "Put", &("late", "{}")).await.err(),
                "apply" => call(&asking, "State1", "Apply", &file).await.err(),
                "prepare" => prepare(&asking, "Look", "", "x", "").await.err(),
                "confirm" => confirm(&asking, "x").await.err(),
                _ => call(&asking, "Snapshot1", "Create", &("late", false)).await.err(),
            }
        });
        polkit.holds_a_question().await;
        let sender = name_of(&caller);
        leaves(&world, caller).await;
        polkit.release().await;
        let entries = decided(&mut journal, &sender).await;
        let entries: Vec<_> = entries.iter().filter(|entry| entry.kind != "event").collect();
        let [denial] = entries.as_slice() else { panic!("{number} {what}: {entries:?}") };
        assert_eq!(denial.kind, "denial", "{what}: {denial:?}");
        assert!(denial.details.to_string().contains("has gone"), "{what}: {denial:?}");
        assert!(asked.await.unwrap().is_some(), "{what}");
    }
    assert_eq!(world.thing.values(), before);
    let state = StateProxy::new(&own).await.unwrap();
    assert!(state.get("late".to_owned()).await.is_err());
    assert_eq!(state.history().await.unwrap(), []);
    let snapshot = SnapshotProxy::new(&own).await.unwrap();
    assert_eq!(snapshot.list().await.unwrap(), []);
    let _ = world.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_polkit_that_says_nothing_is_a_no() {
    let world = World::start(Decides::StandIn).await;
    let own = world.connect_with(Who::Own, Answer::Yes).await;
    let mut journal = JournalReader::new(own.clone()).await;
    let caller = world.connect_with(confirmer(), Answer::Silence).await;
    let began = Instant::now();
    let refused = call(&caller, "State1", "Put", &("silence", "{}")).await.unwrap_err();
    let took = began.elapsed();
    assert_eq!(refused.name(), DENIED);
    assert!(refused.problem().contains("did not answer"), "{refused:?}");
    assert!(took >= POLKIT_PATIENCE && took < POLKIT_PATIENCE * 2, "{took:?}");
    let entries = decided(&mut journal, &name_of(&caller)).await;
    assert!(entries.iter().all(|entry| entry.kind != "intent"), "{entries:?}");
    // Others were not held up, and are not now.
    call(&own, "State1", "Put", &("other", "{}")).await.unwrap();
    assert!(call(&own, "State1", "Get", &"silence").await.is_err());
    let _ = world.end();
}

/// A person is asked for a password by callers who say so, and by no others.
#[tokio::test(flavor = "multi_thread")]
async fn people_are_asked_where_the_caller_lets_them_be() {
    let world = World::start(Decides::StandIn).await;
    let caller = world.connect_with(confirmer(), Answer::Yes).await;
    let state = StateProxy::new(&caller).await.unwrap();
    state.put("a".to_owned(), "{}".to_owned()).await.unwrap();
    call(&caller, "State1", "Put", &("b", "{}")).await.unwrap();
    let asked = world.polkit.as_ref().unwrap().asked_about(&name_of(&caller));
    let flags: Vec<u32> = asked.iter().map(|asked| asked.flags).collect();
    assert_eq!(flags, [1, 0]);
    let _ = world.end();
}

/// What a system's bus is told of the service, with the names of this test's user and group.
fn installed_policies() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../daemon/system/org.opdbus.conf");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, policies) = text.split_once("<busconfig>").unwrap();
    let (policies, _) = policies.split_once("</busconfig>").unwrap();
    let policies = policies.replace("group=\"op-dbus\"", &format!("group=\"{GROUP}\""));
    let user = format!("user=\"{}\"", user_name(own_uid()));
    assert_eq!(policies.matches("user=\"op-dbus\"").count(), 1);
    policies.replace("user=\"op-dbus\"", &user)
}

/// The signals that somebody hears of the service, and of this test.
async fn signals(connection: &Connection) -> MessageStream {
    let rule = MatchRule::builder().msg_type(zbus::message::Type::Signal).build().unwrap();
    let stream = MessageStream::for_match_rule(rule, connection, None).await;
    stream.unwrap()
}

/// What is heard until the test says that it is over.
async fn heard(stream: &mut MessageStream) -> Vec<String> {
    let mut heard = Vec::new();
    let listening = async {
        while let Some(message) = stream.next().await {
            let message = message.unwrap();
            let header = message.header();
            match header.interface().map(|interface| interface.as_str()) {
                Some(OVER) => return,
                Some("org.freedesktop.DBus") | None => {}
                Some(interface) => heard.push(format!("{interface}.{}", header.member().unwrap())),
            }
        }
    };
    tokio::time::timeout(PATIENCE, listening).await.unwrap();
    heard
}

/// With the policies that are installed for a system's bus.
#[tokio::test(flavor = "multi_thread")]
async fn the_bus_keeps_strangers_from_calling_and_from_hearing() {
    if !is_root() {
        let test = "the_bus_keeps_strangers_from_calling_and_from_hearing";
        return skip(test, &"only root can be a stranger");
    }
    let bus = PrivateBus::with_policies(BusLimits::Raised, &installed_policies());
    let world = World::start_on(Decides::StandIn, bus).await;
    let own = world.connect_with(Who::Own, Answer::Yes).await;
    let mut clients = Vec::new();
    for who in [Who::Root, Who::User, Who::Stranger] {
        let connection = world.connect(who).await;
        clients.push((who, signals(&connection).await, connection));
    }
    call(&own, "State1", "Put", &("key", "{}")).await.unwrap();
    call(&own, "Snapshot1", "Create", &("why", false)).await.unwrap();
    call(&own, "Plugins1", "Reload", &()).await.unwrap();
    let watching = world.connect(Who::User).await;
    let mut told = signals(&watching).await;
    // Changes of documents are told a little later.
    let later = async {
        for number in 0.. {
            let _ = call(&own, "State1", "Put", &(format!("key{number}"), "{}")).await;
            let next = tokio::time::timeout(Duration::from_millis(500), told.next()).await;
            let Ok(Some(Ok(message))) = next else { continue };
            if message.header().member().is_some_and(|member| member.as_str() == "Changed") {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, later).await.unwrap();
    own.emit_signal(None::<zbus::names::BusName<'_>>, "/", OVER, "Over", &()).await.unwrap();
    for (who, stream, connection) in &mut clients {
        let heard = heard(stream).await;
        assert_eq!(heard.is_empty(), !who.may_read(), "{who:?} heard {heard:?}");
        let read = call(connection, "State1", "Get", &"key").await;
        let expected = (!who.may_read()).then_some("org.freedesktop.DBus.Error.AccessDenied");
        assert_eq!(read.err().as_ref().map(BusError::name), expected, "{who:?}");
        let named = connection.request_name(NAME).await;
        assert!(named.is_err(), "{who:?} may not be the service");
        for part in ["org.opdbus.State1.Changed", "org.freedesktop.DBus.Properties.Prop"] {
            let has = heard.iter().any(|signal| signal.starts_with(part));
            assert_eq!(has, who.may_read(), "{who:?} heard {heard:?}");
        }
    }
    let _ = world.end();
}

/// What D-Bus itself has for all properties gives a stranger none, and lets nobody write one.
#[tokio::test(flavor = "multi_thread")]
async fn properties_are_read_by_readers_and_written_by_nobody() {
    const TEST: &str = "properties_are_read_by_readers_and_written_by_nobody";
    let world = World::start(Decides::StandIn).await;
    for who in Who::all() {
        let caller = world.connect_with(*who, Answer::Yes).await;
        let properties = PropertiesProxy::builder(&caller).destination(NAME).path(PATH);
        let properties = properties.build().await.unwrap();
        for interface in ["Cache1", "Journal1", "Plugins1", "Query1", "Snapshot1"] {
            let name = format!("{NAME}.{interface}");
            let name = zbus::names::InterfaceName::try_from(name).unwrap();
            let all = properties.get_all(name.clone()).await.unwrap();
            assert_eq!(all.is_empty(), !who.may_read(), "{who:?} {interface}: {all:?}");
            for property in all.keys() {
                let value = zbus::Variant::from("changed");
                let written = properties.set(name.clone(), property, &value).await;
                assert!(written.is_err(), "{who:?} {interface}.{property}");
            }
        }
        let objects = ObjectManagerProxy::builder(&caller).destination(NAME).path(PATH);
        let objects = objects.build().await.unwrap().get_managed_objects().await.unwrap();
        let mut values = objects.values().flat_map(|interfaces| interfaces.values());
        // It is asked of D-Bus rather than of us, and nobody knows by whom.
        assert!(values.all(|properties| properties.is_empty()), "{who:?}: {objects:?}");
    }
    if !is_root() {
        skip(TEST, &"only root can be a stranger");
    }
    let _ = world.end();
}
