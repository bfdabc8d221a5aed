//! A bus of one's own, services on it, and the program's service, which is asked by the program.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::model;
use support::program::{Running, Workplace};
use tokio::runtime::Runtime;
use zbus::Connection;
use zbus::connection::Builder;

/// Nothing takes longer on a slow machine that embeds for others, too.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);
const LOG: &str = "service.log";

/// One for all tests: services answer while nobody waits for them.
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap());

pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    RUNTIME.block_on(work)
}

/// A bus, and a directory with a store.
pub(crate) struct World {
    pub(crate) place: Workplace,
    bus: Child,
    address: String,
    has_model: bool,
}

impl World {
    /// Starts a bus, on which a service with this name could be started, if one is named.
    pub(crate) fn new(activatable: &str) -> Self {
        model::installed();
        Self::start(activatable, true)
    }

    /// The same for a service without a model.
    pub(crate) fn without_model() -> Self {
        Self::start("", false)
    }

    fn start(activatable: &str, has_model: bool) -> Self {
        let place = Workplace::new(env!("CARGO_BIN_EXE_op-dbus"));
        let directory = place.path().display().to_string();
        fs::create_dir(place.path().join("interfaces")).unwrap();
        fs::create_dir(place.path().join("services")).unwrap();
        if !activatable.is_empty() {
            let service = format!(
                "[D-BUS Service]\nName={activatable}\nExec=/usr/bin/touch {directory}/started\n"
            );
            place.file(&format!("services/{activatable}.service"), service);
        }
        let config = format!(
            "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\"\n \
             \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\n<busconfig>\n\
             <type>session</type><listen>unix:path={directory}/bus</listen>\n\
             <auth>EXTERNAL</auth><servicedir>{directory}/services</servicedir>\n\
             <policy context=\"default\"><allow user=\"*\"/><allow own=\"*\"/>\n\
             <allow send_destination=\"*\" eavesdrop=\"true\"/>\n\
             <allow receive_sender=\"*\" eavesdrop=\"true\"/></policy></busconfig>\n"
        );
        let config = place.file("bus.conf", config);
        let mut bus = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--nopidfile", "--nosyslog", "--print-address=1"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("dbus-daemon: {error}: run `make setup`"));
        let mut address = String::new();
        // It says where it is once it listens.
        BufReader::new(bus.stdout.take().unwrap()).read_line(&mut address).unwrap();
        assert!(address.starts_with("unix:path="), "{address}");
        Self { place, bus, address: format!("unix:path={directory}/bus"), has_model }
    }

    /// A connection, whose object server is there for the objects of a service.
    pub(crate) fn connect(&self) -> Connection {
        block_on(Builder::address(self.address.as_str()).build()).unwrap()
    }

    /// Starts the service, which writes its log into a file.
    pub(crate) fn serve(&self, arguments: &[&str]) -> Running {
        let _ = fs::remove_file(self.place.path().join(LOG));
        let own = ["daemon", "--bus", &self.address, "--interfaces", "interfaces"];
        let own = [&own[..], &["--plugins", "plugins", "--log-level", "info"]].concat();
        let model: &[&str] = if self.has_model { &[] } else { &["--model", "none"] };
        let served = self
            .place
            .op(own)
            .arguments(model)
            .arguments(arguments)
            .within(&format!("exec \"$0\" \"$@\" 2>{LOG}"))
            .start();
        self.wait_until(PATIENCE, || self.log().contains("answering").then_some(()));
        served
    }

    fn log(&self) -> String {
        fs::read_to_string(self.place.path().join(LOG)).unwrap_or_default()
    }

    /// Ends the service, and returns its log.
    pub(crate) fn end(&self, served: Running) -> String {
        served.interrupt();
        let ended = served.finish();
        let log = self.log();
        assert!(ended.status.success(), "{log}");
        log
    }

    /// Waits until all services that were there at the start were asked.
    pub(crate) fn wait_for_pass(&self) {
        self.wait_until(PATIENCE, || self.log().contains("indexed SERVICES=").then_some(()));
    }

    pub(crate) fn wait_until<T>(&self, patience: Duration, answer: impl Fn() -> Option<T>) -> T {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(answer) = answer() {
                return answer;
            }
            assert!(Instant::now() < deadline, "it does not come; the log says:\n{}", self.log());
            std::thread::sleep(POLL);
        }
    }

    /// What is found; nothing as long as the collection is not there.
    pub(crate) fn query(&self, collection: &str, text: &str) -> Vec<Value> {
        let arguments =
            ["query", text, "-k", "5", "-c", collection, "--json", "--bus", &self.address];
        let ended = self.place.op(arguments).run();
        // Nothing found, and no such collection yet.
        if matches!(ended.code(), Some(1 | 3)) {
            return Vec::new();
        }
        ended.succeeded().json()["hits"].as_array().unwrap().clone()
    }

    /// Waits until a question about interfaces is answered by the record with this key.
    pub(crate) fn wait_for(&self, text: &str, key: &str) -> Value {
        self.wait_so_long(text, key, PATIENCE)
    }

    pub(crate) fn wait_so_long(&self, text: &str, key: &str, patience: Duration) -> Value {
        self.wait_until(patience, || find(self.query("dbus", text), key))
    }

    /// The same in another collection, by the key or by a part of the text.
    pub(crate) fn wait_in(&self, collection: &str, text: &str, key: &str) -> Value {
        self.wait_until(PATIENCE, || find(self.query(collection, text), key))
    }

    /// A collection as JSON lines; nothing runs meanwhile.
    pub(crate) fn export(&self, collection: &str) -> String {
        self.place.done(["cache", "export", "--collection", collection]).text()
    }
}

fn find(hits: Vec<Value>, key: &str) -> Option<Value> {
    let is_it = |hit: &Value| {
        hit["key"] == key || hit["text"].as_str().is_some_and(|text| text.contains(key))
    };
    hits.into_iter().find(is_it)
}

/// The payloads of exported records by their keys, without those of phrases.
pub(crate) fn payloads(exported: &str) -> BTreeMap<String, Value> {
    let records = exported.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let pairs = records
        .map(|record| (record["key"].as_str().unwrap().to_owned(), record["payload"].clone()));
    pairs.filter(|(_, payload)| payload["kind"] != "phrase").collect()
}

impl Drop for World {
    fn drop(&mut self) {
        // One that has ended already cannot be killed, which is as good.
        let _ = self.bus.kill();
        let _ = self.bus.wait();
    }
}
