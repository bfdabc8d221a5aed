//! Figures for programs that watch services, as Prometheus asks for them: `GET /metrics`.
//!
//! They are read from the store and the gate when somebody asks, and counted nowhere else. Who asks is
//! not known here, as the gate knows it of a call: so a port tells sums, and a socket, whose file says who
//! may, the names of those collections besides that its group may read. HTTP is the library's; a
//! connection has one request, some seconds, and few others beside it.

mod count;
mod figures;
mod process;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use op_dbus_engine::{Error, ErrorKind};
use op_dbus_formats::MetricsAddress;
use rustix::fs::{Mode, fchmod};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixSocket, UnixStream};
use tokio::task::JoinSet;

use crate::gate::blocking;
use crate::service::Service;
use crate::socket::{SocketFile, remove_abandoned};
use count::Counts;
use figures::{Figures, Form};

/// Connections at the same time; more are closed at once.
const CONNECTIONS_COUNT_MAX: usize = 8;
/// How long a request may take to come.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a connection may be open.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(15);
/// Bytes of a request.
const REQUEST_LEN_MAX_BYTES: usize = 8192;
/// Connections that wait to be accepted.
const BACKLOG_COUNT: u32 = 16;
const PATH: &str = "/metrics";

/// Where figures are told.
pub(crate) struct Endpoint {
    listener: Listener,
    figures: Arc<Sources>,
}

enum Listener {
    Port(TcpListener),
    Socket(UnixListener, SocketFile),
}

/// What figures come from.
struct Sources {
    service: Arc<Service>,
    counts: Counts,
    /// Whether names of collections are told.
    tells_names: bool,
}

impl Endpoint {
    /// Listens at an address.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] if somebody else does; what the system refuses.
    pub(crate) async fn bind(
        address: &MetricsAddress,
        service: &Arc<Service>,
    ) -> Result<Self, Error> {
        let listener = match address {
            MetricsAddress::Local(at) => Listener::Port(listen(*at).await?),
            MetricsAddress::Public(at) => {
                tracing::warn!(ADDRESS = %at, "whoever reaches this address is told figures");
                Listener::Port(listen(*at).await?)
            }
            MetricsAddress::Socket(path) => listen_at(path, service.gate.gid())?,
        };
        let tells_names = matches!(listener, Listener::Socket(..));
        let (service, counts) = (Arc::clone(service), Counts::default());
        let figures = Arc::new(Sources { service, counts, tells_names });
        Ok(Self { listener, figures })
    }

    /// Answers whoever asks, until it is dropped.
    pub(crate) async fn serve(self) {
        let Self { listener, figures } = self;
        match &listener {
            Listener::Port(port) => tracing::info!(
                ADDRESS = ?port.local_addr().map(|at| at.to_string()).unwrap_or_default(),
                "telling figures"
            ),
            Listener::Socket(_, file) => {
                tracing::info!(SOCKET = %file.path().display(), "telling figures");
            }
        }
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                Some(_) = connections.join_next() => continue,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                // Whoever keeps the others busy gets no more.
                Ok(_) if connections.len() >= CONNECTIONS_COUNT_MAX => {}
                Ok(Stream::Port(stream)) => drop(connections.spawn(attend(stream, &figures))),
                Ok(Stream::Socket(stream)) => drop(connections.spawn(attend(stream, &figures))),
                Err(error) => {
                    tracing::warn!(%error, "nobody can ask for figures");
                    // Most often there are no files left, and trying at once has none either.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

enum Stream {
    Port(TcpStream),
    Socket(UnixStream),
}

impl Listener {
    async fn accept(&self) -> std::io::Result<Stream> {
        match self {
            Self::Port(port) => Ok(Stream::Port(port.accept().await?.0)),
            Self::Socket(socket, _) => Ok(Stream::Socket(socket.accept().await?.0)),
        }
    }
}

async fn listen(at: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(at).await.map_err(|error| {
        let kind = match error.kind() {
            std::io::ErrorKind::AddrInUse => ErrorKind::Busy,
            std::io::ErrorKind::PermissionDenied => ErrorKind::Denied,
            _ => ErrorKind::Io,
        };
        Error::new(kind, format!("cannot tell figures at {at}")).with_source(error).with_remedy(
            "name another address by --metrics; the service of the system has no network, and \
                 needs unix:/run/op-dbus/metrics.sock",
        )
    })
}

/// Makes a socket for the service's own user, and for the group if it can be given to that.
fn listen_at(path: &Path, gid: Option<u32>) -> Result<Listener, Error> {
    remove_abandoned(path)?;
    let io = |error| Error::io("listen at", path, error);
    let socket = UnixSocket::new_stream().map_err(io)?;
    // Its file has these rights from the beginning: what is asked here is asked by nobody known.
    fchmod(socket.as_fd(), Mode::RUSR | Mode::WUSR).map_err(|errno| io(errno.into()))?;
    socket.bind(path).map_err(io)?;
    let file = SocketFile::new(path);
    let listener = socket.listen(BACKLOG_COUNT).map_err(io)?;
    match gid.map(|gid| std::os::unix::fs::chown(path, None, Some(gid))) {
        Some(Ok(())) => {
            let rights = std::fs::Permissions::from_mode(0o660);
            std::fs::set_permissions(path, rights).map_err(io)?;
        }
        Some(Err(error)) => tracing::warn!(%error, "figures are for the service's user alone"),
        None => {}
    }
    Ok(Listener::Socket(listener, file))
}

/// Answers the one request of a connection.
fn attend(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    figures: &Arc<Sources>,
) -> impl Future<Output = ()> + Send + 'static {
    let figures = Arc::clone(figures);
    async move {
        let answering = service_fn(move |request| {
            let figures = Arc::clone(&figures);
            async move { Ok::<_, Infallible>(answer(&request, figures).await) }
        });
        let connection = http1::Builder::new()
            .keep_alive(false)
            .timer(TokioTimer::new())
            .header_read_timeout(REQUEST_TIME_MAX)
            .max_buf_size(REQUEST_LEN_MAX_BYTES)
            .serve_connection(TokioIo::new(stream), answering);
        match tokio::time::timeout(CONNECTION_TIME_MAX, connection).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a request for figures"),
            Err(_) => tracing::debug!("a request for figures took too long"),
        }
    }
}

async fn answer(request: &Request<Incoming>, figures: Arc<Sources>) -> Response<Full<Bytes>> {
    if request.uri().path() != PATH {
        return plain(StatusCode::NOT_FOUND, "figures are at /metrics\n");
    }
    if request.method() != Method::GET {
        let mut refusal = plain(StatusCode::METHOD_NOT_ALLOWED, "figures can only be read\n");
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return refusal;
    }
    let form = form_of(request.headers());
    let rendered = blocking(move || {
        let Sources { service, counts, tells_names } = &*figures;
        Figures::measure(service, counts, *tells_names).render(form)
    });
    match rendered.await {
        Ok(text) => {
            let mut answer = Response::new(Full::from(text));
            let content = HeaderValue::from_static(form.content_type());
            answer.headers_mut().insert(CONTENT_TYPE, content);
            answer
        }
        Err(error) => {
            tracing::warn!(problem = error.problem(), "no figures");
            plain(
                StatusCode::INTERNAL_SERVER_ERROR,
                "there are no figures; see the service's log\n",
            )
        }
    }
}

/// OpenMetrics for those who know it, and what everybody knows for the rest.
fn form_of(headers: &HeaderMap) -> Form {
    let mut ranges = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|accepted| accepted.to_str().ok())
        .flat_map(|accepted| accepted.split(','))
        .map(|range| range.split(';').next().unwrap_or_default().trim());
    match ranges.any(|range| range.eq_ignore_ascii_case("application/openmetrics-text")) {
        true => Form::OpenMetrics,
        false => Form::Prometheus,
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::from(text));
    *answer.status_mut() = status;
    let content = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, content);
    answer
}
