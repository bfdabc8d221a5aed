//! Clients without a bus: a Unix socket, and a connection for each of them.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use op_dbus_engine::{Error, ErrorKind};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use zbus::connection::Builder;
use zbus::{Connection, Guid, OwnedGuid};

use crate::caller::Caller;
use crate::interface::Door;
use crate::service::{Changes, Service, WRITE_PATIENCE, serve_at, tell};

/// Clients at the same time.
const CLIENTS_COUNT_MAX: usize = 1000;

/// A socket that is listened to. Its file goes with it.
pub(crate) struct Socket {
    listener: UnixListener,
    _file: SocketFile,
    guid: OwnedGuid,
}

/// The file of a socket, which goes with it.
pub(crate) struct SocketFile(PathBuf);

impl SocketFile {
    pub(crate) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Socket {
    /// Makes the socket, for its owner alone.
    pub(crate) fn bind(path: &Path) -> Result<Self, Error> {
        remove_abandoned(path)?;
        let io = |error| Error::io("listen at", path, error);
        let listener = UnixListener::bind(path).map_err(io)?;
        let file = SocketFile::new(path);
        // Whoever came before this is refused by who they are.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(io)?;
        Ok(Self { listener, _file: file, guid: Guid::generate().into() })
    }

    /// Serves whoever connects until it is told to stop, and lets answers be written that are there.
    pub(crate) async fn accept(
        self,
        service: Arc<Service>,
        changes: Changes,
        stopped: watch::Receiver<bool>,
    ) {
        let mut clients = JoinSet::new();
        let mut stop = stopped.clone();
        loop {
            tokio::select! {
                () = told_to(&mut stop) => break,
                Some(_) = clients.join_next() => {}
                accepted = self.listener.accept() => match accepted {
                    Ok(_) if clients.len() >= CLIENTS_COUNT_MAX => {
                        tracing::warn!("over {CLIENTS_COUNT_MAX} clients: another is turned away");
                    }
                    Ok((stream, _)) => {
                        let (service, guid) = (Arc::clone(&service), self.guid.clone());
                        let (changes, stopped) = (changes.resubscribe(), stopped.clone());
                        clients.spawn(attend(stream, guid, service, changes, stopped));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a client could not connect");
                        // Most often there are no files left, and trying at once has none either.
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    }
                }
            }
        }
        while clients.join_next().await.is_some() {}
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::debug!(%error, "the socket's file stays");
        }
    }
}

/// Removes the file of a socket that nobody listens to, and nothing else.
pub(crate) fn remove_abandoned(path: &Path) -> Result<(), Error> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(()) };
    let is_answered = std::os::unix::net::UnixStream::connect(path).is_ok();
    if metadata.file_type().is_socket() && !is_answered {
        return std::fs::remove_file(path).map_err(|error| Error::io("remove", path, error));
    }
    let (kind, problem) = match is_answered {
        true => (ErrorKind::Busy, "somebody listens at"),
        false => (ErrorKind::Invalid, "there is something else at"),
    };
    Err(Error::new(kind, format!("{problem} {}", path.display())).with_remedy("name another path"))
}

async fn attend(
    stream: UnixStream,
    guid: OwnedGuid,
    service: Arc<Service>,
    changes: Changes,
    mut stopped: watch::Receiver<bool>,
) {
    let (connection, peer) = match connect(stream, guid, &service).await {
        Ok(connected) => connected,
        Err(error) => return tracing::debug!(%error, "a client did not stay"),
    };
    let mut telling = JoinSet::new();
    // Who may not read is not told, either.
    if service.gate.may_be_told(&peer) {
        telling.spawn(tell(connection.clone(), changes));
    }
    tokio::select! {
        () = connection.closed() => {}
        () = told_to(&mut stopped) => {
            telling.shutdown().await;
            let _ = tokio::time::timeout(WRITE_PATIENCE, connection.graceful_shutdown()).await;
        }
    }
}

/// Returns when whoever has the other end says stop, or is no longer there.
async fn told_to(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|is_stopped| *is_stopped).await;
}

async fn connect(
    stream: UnixStream,
    guid: OwnedGuid,
    service: &Arc<Service>,
) -> Result<(Connection, Arc<Caller>), Box<dyn std::error::Error + Send + Sync>> {
    // The caller has to be known before its first call is taken.
    let credentials = stream.peer_cred()?;
    let peer = Arc::new(Caller::of_peer(&credentials, service.gate.limits()));
    let door = Door { service: Arc::clone(service), peer: Some(Arc::clone(&peer)) };
    let builder = Builder::unix_stream(stream.into_std()?).server(guid).p2p();
    Ok((serve_at(builder, door).build().await?, peer))
}
