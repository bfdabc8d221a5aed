//! The service at a socket without a bus: the same calls, for its owner alone.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use futures_util::StreamExt;
use op_dbus_daemon::SnapshotProxy;
use support::bus::{Served, connect_to_socket, open_directory};
use support::program::Workplace;

use crate::life::open;
use crate::{DENIED, as_nobody, call, can_be_nobody, daemon, put, python, state, tool, workplace};

/// The service at a socket in a directory that everybody may enter.
struct AtSocket {
    served: Served,
    path: PathBuf,
    place: Workplace,
    _directory: tempfile::TempDir,
}

impl AtSocket {
    fn start() -> Self {
        let place = workplace();
        let (directory, path) = open_directory();
        let path = path.join("socket");
        let served = Served::at_socket(daemon(&place), &path);
        Self { served, path, place, _directory: directory }
    }
}

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

#[tokio::test]
async fn all_that_can_be_called_on_a_bus_can_be_called_without() {
    let AtSocket { served, path, place, _directory } = AtSocket::start();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let connection = connect_to_socket(&path).await.unwrap();
    let other = connect_to_socket(&path).await.unwrap();
    let state = state(&other).await;
    let mut changes = state.receive_changed().await.unwrap();
    put(&connection, "key").await.unwrap();
    let change = changes.next().await.unwrap();
    let change = change.args().unwrap();
    assert_eq!((change.key(), change.operation()), (&"key", &"put"));
    assert_eq!(state.get("key".to_owned()).await.unwrap(), "{}");
    let missing = call(&connection, "State1", "Get", &"nothing").await.unwrap_err();
    assert_eq!(missing.name(), "org.opdbus.Error.NotFound");
    let snapshots = SnapshotProxy::new(&connection).await.unwrap();
    let name = snapshots.create("why".to_owned(), false).await.unwrap();
    assert_eq!(snapshots.list().await.unwrap()[0].0, name);
    let _ = served.terminate().succeeded();
    assert!(!path.exists());
    connection.closed().await;
    let store = open(&place);
    crate::journal::assert_every_intent_has_an_outcome(&store);
    crate::journal::assert_ends_with_stop(&store);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_ended_answers_or_refuses_every_call_and_loses_nothing() {
    let AtSocket { served, path, place, _directory } = AtSocket::start();
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(connect_to_socket(&path).await.unwrap());
    }
    let ending = crate::life::end_while_clients_put(clients, || {
        let ended = served.terminate().succeeded();
        assert!(!ended.stderr.contains("no answer"), "{}", ended.stderr);
    });
    let acknowledged = ending.await;
    assert!(!path.exists());
    let store = open(&place);
    crate::life::assert_holds(&store, &acknowledged);
    crate::journal::assert_every_intent_has_an_outcome(&store);
    crate::journal::assert_none_was_broken_off(&store);
}

/// Even where somebody has let others reach the socket. They are not told of changes, either.
#[test]
fn another_user_is_refused_and_hears_nothing() {
    if !can_be_nobody("another_user_is_refused_and_hears_nothing") {
        return;
    }
    let AtSocket { served, path, place: _place, _directory } = AtSocket::start();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let address = path.to_str().unwrap();
    let mut nobody = tool(&as_nobody(&python(&["peer", "@BUS@"])), address).start();
    assert_eq!(nobody.next_line().unwrap(), DENIED);
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let connection = connect_to_socket(&path).await.unwrap();
        let mut changes = state(&connection).await.receive_changed().await.unwrap();
        put(&connection, "secret").await.unwrap();
        // Whoever would be told has been told, too.
        assert!(changes.next().await.is_some());
    });
    let _ = served.terminate().succeeded();
    assert_eq!(nobody.next_line(), None);
    let _ = nobody.finish().succeeded();
}

#[test]
fn an_abandoned_socket_is_replaced_and_nothing_else() {
    let place = workplace();
    let (_directory, path) = open_directory();
    let socket = path.join("socket");
    let argument = format!("--bus=socket:{}", socket.display());
    let refused = |code| {
        let start = daemon(&place).arguments([&argument]);
        let _ = start.run().refused(code, &[socket.to_str().unwrap()]);
    };

    fs::write(&socket, "somebody's").unwrap();
    refused(4);
    assert_eq!(fs::read_to_string(&socket).unwrap(), "somebody's");
    fs::remove_file(&socket).unwrap();

    std::os::unix::fs::symlink("elsewhere", &socket).unwrap();
    refused(4);
    assert!(socket.is_symlink());
    fs::remove_file(&socket).unwrap();

    let listener = UnixListener::bind(&socket).unwrap();
    refused(5);
    assert!(UnixStream::connect(&socket).is_ok());
    // Its file stays, and nobody listens.
    drop(listener);
    assert!(is_socket(&socket) && UnixStream::connect(&socket).is_err());
    let served = Served::at_socket(daemon(&place), &socket);
    let _ = served.terminate().succeeded();
    assert!(!socket.exists());

    // As a service leaves it that is killed.
    let served = Served::at_socket(daemon(&place), &socket);
    served.signal(rustix::process::Signal::KILL);
    assert_eq!(served.finish().code(), None);
    assert!(is_socket(&socket));
    let served = Served::at_socket(daemon(&place), &socket);
    let _ = served.terminate().succeeded();
}
