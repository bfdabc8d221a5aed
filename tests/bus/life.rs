//! How the service begins and ends, and what is left of it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use op_dbus_daemon::BusError;
use op_dbus_engine::{ErrorKind, STATE_COLLECTION, Store, StoreConfig};
use rustix::process::Signal;
use support::bus::{BusLimits, NAME, PATH, PrivateBus, Served, open_directory};
use support::program::Workplace;
use zbus::Connection;

use crate::{World, call, daemon, put, state, workplace};

/// No answer takes longer that comes at all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The store that a service has left.
pub(crate) fn open(place: &Workplace) -> Store {
    Store::open(StoreConfig::new(place.store()).existing()).unwrap()
}

/// Whether a store has a document.
pub(crate) fn has(store: &Store, key: &str) -> bool {
    match store.get(STATE_COLLECTION, key.as_bytes()) {
        Ok(found) => found.is_some(),
        // Nothing was ever put.
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => panic!("{key}: {error}"),
    }
}

/// Puts one document after the other until the service is no longer there, and notes those that
/// were acknowledged. Every put ends with an answer or an error.
async fn put_until_it_ends(
    connection: Connection,
    client: usize,
    acknowledged: Arc<Mutex<BTreeSet<String>>>,
    count: Arc<AtomicU64>,
) {
    for number in 0.. {
        let key = format!("{client}/{number}");
        let put = tokio::time::timeout(PATIENCE, put(&connection, &key)).await;
        match put.unwrap_or_else(|_| panic!("the put of {key} has no answer")) {
            Ok(()) => {
                acknowledged.lock().unwrap().insert(key);
                count.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) if error.name() == crate::LIMITS_EXCEEDED => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(_) => return,
        }
    }
}

/// Has clients put until there are many puts, ends the service, and returns what was acknowledged.
pub(crate) async fn end_while_clients_put(
    clients: Vec<Connection>,
    end: impl FnOnce(),
) -> BTreeSet<String> {
    let (acknowledged, count) = (Arc::default(), Arc::new(AtomicU64::new(0)));
    let mut putting = tokio::task::JoinSet::new();
    for (number, client) in clients.into_iter().enumerate() {
        let (acknowledged, count) = (Arc::clone(&acknowledged), Arc::clone(&count));
        putting.spawn(put_until_it_ends(client, number, acknowledged, count));
    }
    while count.load(Ordering::Relaxed) < 100 {
        assert!(!putting.is_empty(), "the clients are still there");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::task::block_in_place(end);
    while let Some(ended) = putting.join_next().await {
        ended.unwrap();
    }
    std::mem::take(&mut *acknowledged.lock().unwrap())
}

pub(crate) fn assert_holds(store: &Store, acknowledged: &BTreeSet<String>) {
    let lost: Vec<_> = acknowledged.iter().filter(|key| !has(store, key)).collect();
    assert!(lost.is_empty(), "of {} acknowledged: {lost:?}", acknowledged.len());
    let _ = store.verify_journal().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_ended_answers_or_refuses_every_call_and_loses_nothing() {
    let World { served, bus, place } = World::plain();
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(bus.connect().await);
    }
    let acknowledged = end_while_clients_put(clients, || {
        let ended = served.terminate().succeeded();
        assert!(!ended.stderr.contains("no answer"), "{}", ended.stderr);
    });
    let acknowledged = acknowledged.await;
    let store = open(&place);
    assert_holds(&store, &acknowledged);
    crate::journal::assert_every_intent_has_an_outcome(&store);
}

/// Who goes on calling, by the unique name that does not go with the service's, holds nothing up.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_stop_calling_does_not_keep_the_service_from_ending() {
    let World { served, bus, place: _place } = World::with(&["--calls-per-second", "1000000"]);
    let connection = bus.connect().await;
    let names = zbus::fdo::DBusProxy::new(&connection).await.unwrap();
    let owner = names.get_name_owner(NAME.try_into().unwrap()).await.unwrap();
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (connection, owner) = (connection.clone(), owner.clone());
        callers.spawn(async move {
            let (service, interface) = (Some(owner.as_str()), Some("org.opdbus.State1"));
            loop {
                let called = connection.call_method(service, PATH, interface, "Get", &"no").await;
                match BusError::from(called.unwrap_err()).name().rsplit('.').next().unwrap() {
                    "ServiceUnknown" | "NoReply" => return,
                    "NotFound" | "LimitsExceeded" | "Unavailable" => {}
                    other => panic!("{other}"),
                }
            }
        });
    }
    put(&connection, "key").await.unwrap();
    let ended = tokio::task::block_in_place(|| served.terminate().succeeded());
    assert!(!ended.stderr.contains("no answer"), "{}", ended.stderr);
    tokio::time::timeout(PATIENCE, callers.join_all()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_killed_comes_back_with_all_that_was_acknowledged() {
    let World { served, bus, place } = World::plain();
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(bus.connect().await);
    }
    let acknowledged = end_while_clients_put(clients, || {
        served.signal(Signal::KILL);
        assert_eq!(served.finish().code(), None);
    });
    let acknowledged = acknowledged.await;
    assert!(!bus.has_service());

    let served = Served::start(daemon(&place), &bus);
    let connection = bus.connect().await;
    let state = state(&connection).await;
    for key in &acknowledged {
        assert_eq!(state.get(key.clone()).await.unwrap(), "{}", "{key}");
    }
    let _ = served.terminate().succeeded();
    assert_holds(&open(&place), &acknowledged);
}

#[test]
fn a_bus_that_goes_ends_the_service_which_names_it() {
    let World { served, bus, place } = World::plain();
    let address = bus.address();
    drop(bus);
    let said = served.finish().refused(10, &[&address]);
    assert!(said.contains("start the bus"), "{said}");
    // It was closed well.
    let store = open(&place);
    crate::journal::assert_ends_with_stop(&store);
}

#[test]
fn a_bus_that_is_not_there_or_gives_no_name_is_named() {
    let place = workplace();
    let nowhere = "unix:path=/nonexistent/bus";
    let _ = daemon(&place).arguments(["--bus", nowhere]).run().refused(10, &[nowhere]);

    // One that takes connections and says nothing.
    let (_directory, path) = open_directory();
    let socket = path.join("bus");
    let _silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let silent = format!("unix:path={}", socket.display());
    let _ = daemon(&place).arguments(["--bus", &silent]).run().refused(10, &[&silent]);

    let rules = r#"<allow user="*"/><allow send_destination="*"/><allow receive_sender="*"/><deny own="*"/>"#;
    let bus = PrivateBus::with_policy(BusLimits::OfSystem, rules);
    let address = bus.address();
    let _ = daemon(&place).arguments(["--bus", &address]).run().refused(9, &[NAME, &address]);
}

#[test]
fn a_second_service_is_refused_by_the_bus_and_by_the_store() {
    let World { served, bus, place } = World::plain();
    let address = bus.address();
    let elsewhere = workplace();
    let _ = daemon(&elsewhere).arguments(["--bus", &address]).run().refused(5, &[NAME, &address]);

    let other = PrivateBus::start(BusLimits::OfSystem);
    let said = daemon(&place).arguments(["--bus", &other.address()]).run().refused(5, &["in use"]);
    assert!(said.contains(&format!("--bus {address}")), "{said}");
    // Neither has hurt the first.
    assert!(bus.has_service());
    let _ = served.terminate().succeeded();
}

#[tokio::test]
async fn a_service_that_reads_its_configuration_anew_goes_on() {
    let World { mut served, bus, place: _place } = World::plain();
    let connection = bus.connect().await;
    for number in 0..5 {
        served.signal(Signal::HUP);
        put(&connection, &format!("{number}")).await.unwrap();
    }
    assert!(served.is_alive());
    assert!(call(&connection, "State1", "Get", &"4").await.is_ok());
    let _ = served.terminate().succeeded();
}
