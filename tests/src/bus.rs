//! A bus of one's own, and the service on it: nothing here touches the system's bus or the user's.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Gid, Signal, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use tempfile::TempDir;
use zbus::Connection;
use zbus::connection::Builder;
use zbus::fdo::DBusProxy;

use crate::program::{Ended, Invocation, Running};
use crate::scratch;

/// The name that the service has on a bus.
pub const NAME: &str = "org.opdbus";
/// Its object.
pub const PATH: &str = "/org/opdbus";

/// No service of a test takes longer to be there, on a slow machine and with a model to load.
const START_TIME_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

/// Everybody may do everything.
const PERMISSIVE: &str = r#"
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow receive_sender="*" eavesdrop="true"/>"#;

/// How much a bus lets its members do at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BusLimits {
    /// As on a system's bus: what dbus-daemon has unless it is told otherwise.
    OfSystem,
    /// As on a session's bus, more than any test needs.
    Raised,
}

impl BusLimits {
    fn elements(self) -> &'static str {
        match self {
            Self::OfSystem => "",
            Self::Raised => {
                r#"
  <limit name="max_incoming_bytes">1000000000</limit>
  <limit name="max_outgoing_bytes">1000000000</limit>
  <limit name="max_message_size">134217728</limit>
  <limit name="max_completed_connections">10000</limit>
  <limit name="max_incomplete_connections">10000</limit>
  <limit name="max_connections_per_user">10000</limit>
  <limit name="max_replies_per_connection">50000</limit>"#
            }
        }
    }
}

/// A dbus-daemon with a configuration and a directory of its own. Dropped, it is ended.
pub struct PrivateBus {
    daemon: Child,
    directory: TempDir,
}

impl PrivateBus {
    /// Starts one on which everybody may do everything.
    pub fn start(limits: BusLimits) -> Self {
        Self::with_policy(limits, PERMISSIVE)
    }

    /// Starts one with these rules for everybody.
    pub fn with_policy(limits: BusLimits, rules: &str) -> Self {
        Self::with_elements(limits, rules, "")
    }

    /// Starts one on which everybody may do everything that these policies do not deny, written as in
    /// the configuration of a bus.
    pub fn with_policies(limits: BusLimits, policies: &str) -> Self {
        Self::with_elements(limits, PERMISSIVE, policies)
    }

    /// # Panics
    /// Where there is no dbus-daemon.
    fn with_elements(limits: BusLimits, rules: &str, policies: &str) -> Self {
        let directory = scratch::on_disk();
        let (config, log) = (directory.path().join("bus.conf"), directory.path().join("log"));
        // Others than its owner may connect, for tests of who may do what.
        std::fs::set_permissions(directory.path(), permissions(0o755)).expect("it is ours");
        let text = format!(
            "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\"\n \
             \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\n<busconfig>\n  \
             <listen>unix:path={}</listen>\n  <auth>EXTERNAL</auth>\n  \
             <policy context=\"default\">{rules}\n  </policy>{policies}{}\n</busconfig>\n",
            directory.path().join("bus").display(),
            limits.elements(),
        );
        std::fs::write(&config, text).expect("a file can be written");
        let mut daemon = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--nopidfile", "--nosyslog", "--print-address=1"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).expect("a file can be made"))
            .spawn()
            .unwrap_or_else(|error| panic!("dbus-daemon: {error}: run `make setup`"));
        let mut stdout = BufReader::new(daemon.stdout.take().expect("it was asked for"));
        let bus = Self { daemon, directory };
        // It says where it is once it listens.
        let mut address = String::new();
        stdout.read_line(&mut address).expect("a pipe can be read");
        let said = std::fs::read_to_string(log).unwrap_or_default();
        assert!(address.starts_with("unix:path="), "dbus-daemon said {address:?}, and: {said}");
        bus
    }

    /// Its address.
    pub fn address(&self) -> String {
        format!("unix:path={}", self.directory.path().join("bus").display())
    }

    /// A client of it.
    ///
    /// # Panics
    /// If it cannot be reached.
    pub async fn connect(&self) -> Connection {
        let builder = Builder::address(self.address().as_str());
        builder.method_timeout(START_TIME_MAX).build().await.expect("the bus can be reached")
    }

    /// A client of it that is another user, in these groups, of which the first is its own. Only root
    /// can be one.
    ///
    /// # Panics
    /// If it cannot be one, or the bus cannot be reached.
    pub async fn connect_as(&self, uid: u32, gids: &[u32]) -> Connection {
        let path = self.directory.path().join("bus");
        let (uid_to_be, gids) = (Uid::from_raw(uid), gids.iter().copied().map(Gid::from_raw));
        let gids: Vec<Gid> = gids.collect();
        // The kernel asks who a thread is, so that all others stay who they are.
        let connecting = std::thread::spawn(move || {
            let own = gids.first().copied().ok_or(Errno::INVAL)?;
            set_thread_groups(&gids)?;
            set_thread_res_gid(own, own, own)?;
            set_thread_res_uid(uid_to_be, uid_to_be, uid_to_be)?;
            UnixStream::connect(path)
        });
        let stream =
            connecting.join().expect("it does not panic").expect("only root can be others");
        let builder = Builder::unix_stream(stream).user_id(uid).method_timeout(START_TIME_MAX);
        builder.build().await.expect("the bus lets everybody in")
    }

    /// Whether somebody has the service's name.
    pub fn has_service(&self) -> bool {
        block_on(async {
            let bus = DBusProxy::new(&self.connect().await).await.expect("the bus is an object");
            bus.name_has_owner(NAME.try_into().expect("a name")).await.expect("the bus answers")
        })
    }
}

impl Drop for PrivateBus {
    fn drop(&mut self) {
        // One that has ended already cannot be killed, which is as good.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// The service while it runs. Dropped, it is killed.
pub struct Served {
    running: Running,
}

impl Served {
    /// Runs `op-dbus daemon`, prepared by the caller without `--bus`, and waits until its name is
    /// on the bus.
    ///
    /// # Panics
    /// If it ends instead.
    pub fn start(daemon: Invocation, bus: &PrivateBus) -> Self {
        let daemon = daemon.arguments(["--bus", &bus.address()]);
        Self::when(daemon, || bus.has_service())
    }

    /// The same, with the bus as that of the system.
    ///
    /// # Panics
    /// If it ends instead.
    pub fn on_system_bus(daemon: Invocation, bus: &PrivateBus) -> Self {
        let daemon = daemon.variable("DBUS_SYSTEM_BUS_ADDRESS", bus.address());
        Self::when(daemon.arguments(["--bus", "system"]), || bus.has_service())
    }

    /// Runs `op-dbus daemon` for a socket without a bus, and waits until it listens.
    ///
    /// # Panics
    /// If it ends instead.
    pub fn at_socket(daemon: Invocation, path: &Path) -> Self {
        let daemon = daemon.arguments([format!("--bus=socket:{}", path.display())]);
        Self::when(daemon, || UnixStream::connect(path).is_ok())
    }

    fn when(daemon: Invocation, is_there: impl Fn() -> bool) -> Self {
        let mut running = daemon.start();
        let deadline = Instant::now() + START_TIME_MAX;
        while !is_there() {
            if !running.is_alive() {
                panic!("the service ended: {}", running.finish().stderr);
            }
            assert!(Instant::now() < deadline, "the service does not come");
            std::thread::sleep(POLL);
        }
        Self { running }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.running.id()
    }

    /// Whether it has not ended yet.
    pub fn is_alive(&mut self) -> bool {
        self.running.is_alive()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.running.signal(signal);
    }

    /// Ends it by SIGTERM, and returns how it ended.
    pub fn terminate(self) -> Ended {
        self.signal(Signal::TERM);
        self.running.finish()
    }

    /// Waits until it ends by itself.
    pub fn finish(self) -> Ended {
        self.running.finish()
    }
}

/// A client of the service at a socket without a bus.
///
/// # Panics
/// If nobody listens there.
pub async fn connect_to_socket(path: &Path) -> zbus::Result<Connection> {
    let stream = UnixStream::connect(path).expect("somebody listens");
    Builder::unix_stream(stream).p2p().method_timeout(START_TIME_MAX).build().await
}

/// Where a file of a private bus's world may lie that others than its owner must reach.
pub fn open_directory() -> (TempDir, PathBuf) {
    let directory = scratch::on_disk();
    std::fs::set_permissions(directory.path(), permissions(0o755)).expect("it is ours");
    let path = directory.path().to_owned();
    (directory, path)
}

fn permissions(mode: u32) -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(mode)
}

/// Runs something to its end on a runtime of its own. Not for what runs on one already.
pub fn block_on<T: Send>(work: impl Future<Output = T> + Send) -> T {
    // A thread has one runtime at most; the caller's may be one.
    std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime can be made")
                .block_on(work)
        });
        running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
