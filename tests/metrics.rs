//! Figures for programs that watch the service: what is told, to whom, how requests are bounded; and
//! what audits of recall find out.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[path = "metrics/exposition.rs"]
mod exposition;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use exposition::Exposition;
use op_dbus_daemon::{OptionValue, QueryProxy, StateProxy};
use serde_json::Value;
use support::bus::{BusLimits, NAME, PATH, PrivateBus, Served, connect_to_socket};
use support::crash::campaign::skip;
use support::program::{Invocation, Workplace, is_root};
use support::random::Random;
use zbus::Connection;

const DIMENSIONS: usize = 16;
const RECORDS_COUNT: usize = 4000;
const BUILD: [(&str, &str); 1] = [("version", env!("CARGO_PKG_VERSION"))];

/// A service at a socket without a bus, which tells figures at another.
struct Place {
    place: Workplace,
    served: Served,
}

/// A store with a linked collection.
fn linked() -> Workplace {
    let place = Workplace::new(env!("CARGO_BIN_EXE_op-dbus"));
    let mut random = Random::new(11);
    let line =
        |number| format!("{{\"key\":\"{number}\",\"vector\":{:?}}}\n", random.vector(DIMENSIONS));
    place.file("vectors.jsonl", (0..RECORDS_COUNT).map(line).collect::<String>());
    place.done(["index", "vectors.jsonl", "--collection", "vectors"]);
    place.done(["link", "vectors"]);
    place
}

fn daemon(place: &Workplace) -> Invocation {
    place.op(["daemon", "--model", "no-model", "--plugins", "no-plugins"])
}

impl Place {
    fn start(arguments: &[&str]) -> Self {
        let place = linked();
        let figures = format!("unix:{}", place.path().join("figures").display());
        let daemon = daemon(&place).arguments(["--metrics", &figures]).arguments(arguments);
        let served = Served::at_socket(daemon, &place.path().join("socket"));
        let it = Self { place, served };
        let deadline = Instant::now() + Duration::from_secs(20);
        while UnixStream::connect(it.socket()).is_err() {
            assert!(Instant::now() < deadline, "no figures");
            std::thread::sleep(Duration::from_millis(10));
        }
        it
    }

    fn socket(&self) -> PathBuf {
        self.place.path().join("figures")
    }

    /// Sends bytes, and returns whatever comes until the end.
    fn send(&self, request: &str) -> String {
        exchange(UnixStream::connect(self.socket()).unwrap(), request)
    }

    fn figures(&self) -> Exposition {
        Exposition::parse(&body(&self.send("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")))
    }

    /// Does something as a client.
    fn ask<T: Send>(&self, ask: impl AsyncFnOnce(Connection) -> T + Send) -> T {
        let socket = self.place.path().join("socket");
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime
                    .unwrap()
                    .block_on(async { ask(connect_to_socket(&socket).await.unwrap()).await })
            });
            asked.join().unwrap()
        })
    }

    /// Asks for what is near to some vectors; how each is asked is told by the options.
    fn search(&self, seed: u64, count: usize, options: &[(&str, f64)]) {
        self.ask(async |connection| {
            let query = QueryProxy::new(&connection).await.unwrap();
            let mut random = Random::new(seed);
            for _ in 0..count {
                let wide = random.vector(DIMENSIONS).into_iter().map(f64::from).collect();
                let mut told: HashMap<String, OptionValue> =
                    [("collections".to_owned(), vec!["vectors".to_owned()].into())].into();
                for (name, value) in options {
                    let value = match *name {
                        "exact" => true.into(),
                        "limit" => (*value as u32).into(),
                        _ => (*value).into(),
                    };
                    told.insert((*name).to_owned(), value);
                }
                let near =
                    query.similar(op_dbus_daemon::vector::Vectors::Numbers(wide), told).await;
                assert!(!near.unwrap().is_empty());
            }
        });
    }
}

fn exchange(mut stream: impl Read + Write, request: &str) -> String {
    // It may be refused before all of it is written.
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

fn body(answer: &str) -> String {
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

fn header<'a>(answer: &'a str, name: &str) -> &'a str {
    let is_meant = |line: &&str| line.to_ascii_lowercase().starts_with(&format!("{name}:"));
    answer.lines().find(is_meant).map_or("", |line| line.split_once(": ").unwrap().1)
}

#[test]
fn the_figures_say_what_was_done() {
    let it = Place::start(&[]);
    let before = it.figures();
    assert_eq!(before.value("opdbus_build_info", &BUILD), 1.0);
    it.search(1, 25, &[]);
    it.ask(async |connection| {
        let state = StateProxy::new(&connection).await.unwrap();
        for number in 0..7 {
            state.put(format!("hosts/web{number}"), "{}".to_owned()).await.unwrap();
        }
        assert!(state.get("nothing".to_owned()).await.is_err());
    });
    let after = it.figures();
    let grown = |name: &str, labels: &[(&str, &str)]| {
        (after.value(name, labels) - before.value(name, labels)) as u64
    };
    assert_eq!(grown("opdbus_query_duration_seconds_count", &[]), 25);
    assert_eq!(grown("opdbus_writes_total", &[("operation", "put")]), 7);
    assert_eq!(grown("opdbus_sequence", &[]), 7);
    assert_eq!(grown("opdbus_records", &[]), 7);
    let calls =
        |class, ending| grown("opdbus_bus_calls_total", &[("class", class), ("ending", ending)]);
    assert_eq!((calls("query", "answered"), calls("query", "denied")), (25, 0));
    assert_eq!((calls("state", "answered"), calls("state", "refused")), (8, 0));
    // Whoever puts has an intent and an outcome, and the first that reads is noted.
    assert_eq!(grown("opdbus_journal_entries", &[]), 1 + 2 * 7);
    let hot = |result| grown("opdbus_tier_lookups_total", &[("tier", "hot"), ("result", result)]);
    assert!(hot("hit") + hot("miss") > 25 * 10);
    assert!(after.value("process_resident_memory_bytes", &[]) > 1e6);
    assert!(after.value("process_cpu_seconds_total", &[]) > 0.0);
    let collections: Value = it.place.done(["stats", "--json"]).json()["collections"].clone();
    assert_eq!(
        after.value("opdbus_collections", &[]),
        collections.as_array().unwrap().len() as f64
    );
    let of = |name| after.value("opdbus_collection_records", &[("collection", name)]);
    assert_eq!((of("vectors"), of("state")), (RECORDS_COUNT as f64, 7.0));
    let _ = it.served.terminate().succeeded();
}

/// Every family that there is, so that README.md can be held to it.
#[test]
fn every_family_is_in_the_readme_and_nothing_else() {
    let it = Place::start(&["--recall-audit=1"]);
    it.search(2, 1, &[]);
    let wait = || it.figures().0.contains_key("opdbus_collection_recall_found_total");
    until("an audit", wait);
    let told = it.figures();
    let readme = include_str!("../README.md");
    let lines = readme.lines().filter_map(|line| line.strip_prefix("| `"));
    let named: Vec<&str> = lines
        .filter(|line| line.starts_with("opdbus_") || line.starts_with("process_"))
        .map(|line| line.split(['`', '{']).next().unwrap())
        .collect();
    let families: Vec<&str> = told.0.keys().map(String::as_str).collect();
    let mut sorted = named.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, families);
}

fn until(what: &str, is_there: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_there() {
        assert!(Instant::now() < deadline, "{what} does not come");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn promtool_has_nothing_against_it() {
    let it = Place::start(&["--recall-audit=1"]);
    it.search(3, 10, &[]);
    let request = "GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: text/plain\r\n\r\n";
    let answer = it.send(request);
    assert_eq!(header(&answer, "content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let _ = Exposition::parse(&body(&answer));
    let open = it.send(&request.replace(
        "text/plain",
        "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
    ));
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(header(&open, "content-type"), kind);
    assert!(open.ends_with("\n# EOF\n"), "{open}");
    assert!(open.contains("\n# TYPE opdbus_writes counter\n"), "{open}");
    let checking =
        Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).spawn();
    let Ok(mut checking) = checking else {
        return skip("promtool_has_nothing_against_it", &"there is no promtool");
    };
    checking.stdin.take().unwrap().write_all(body(&answer).as_bytes()).unwrap();
    assert!(checking.wait().unwrap().success());
}

#[test]
fn only_figures_are_told_and_only_for_so_long() {
    let it = Place::start(&[]);
    for (request, status) in [
        ("GET / HTTP/1.1", "404"),
        ("GET /metrics/ HTTP/1.1", "404"),
        ("GET /../etc/passwd HTTP/1.1", "404"),
        ("POST /metrics HTTP/1.1", "405"),
        ("HEAD /metrics HTTP/1.1", "405"),
        ("DELETE /metrics HTTP/1.1", "405"),
        ("GET /metrics?a=b HTTP/1.1", "200"),
        ("GET /metrics HTTP/3.7", "400"),
        ("nonsense", "400"),
        ("\0\u{1}\u{7f}", "400"),
    ] {
        let answer = it.send(&format!("{request}\r\nHost: a\r\n\r\n"));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        assert!(status != "405" || header(&answer, "allow") == "GET", "{answer}");
    }
    let long = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n", "a".repeat(1 << 20));
    let answer = it.send(&long);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    // One request a connection.
    let twice = "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2);
    assert_eq!(it.send(&twice).matches("HTTP/1.1 200").count(), 1);

    // Whoever says nothing is left after some seconds, and keeps others from nothing but their places.
    let begun = Instant::now();
    let silent: Vec<UnixStream> =
        (0..8).map(|_| UnixStream::connect(it.socket()).unwrap()).collect();
    until("a refusal", || it.send("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").is_empty());
    for mut stream in silent {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    let _ = it.figures();
    // It ends at once while somebody is connected.
    let _open = UnixStream::connect(it.socket()).unwrap();
    let begun = Instant::now();
    let socket = it.socket();
    let _ = it.served.terminate().succeeded();
    assert!(begun.elapsed() < Duration::from_secs(5) && !socket.exists());
}

#[test]
fn names_are_told_to_those_alone_who_may_read_them() {
    let it = Place::start(&["--readers", "vectors=root"]);
    let mode = std::fs::metadata(it.socket()).unwrap().permissions().mode() & 0o777;
    assert!(mode == 0o600 || mode == 0o660, "{mode:o}");
    let answer = it.send("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(!answer.contains("vectors\"") && !answer.contains("declared"), "{answer}");
    let all = Exposition::parse(&body(&answer));
    assert!(all.value("opdbus_records", &[]) >= RECORDS_COUNT as f64);

    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let place = linked();
    let socket = place.path().join("socket");
    let daemon = daemon(&place).variable("OPDBUS_DAEMON_METRICS", port.to_string());
    let served = Served::at_socket(daemon, &socket);
    until("a port", || TcpStream::connect(port).is_ok());
    let answer = exchange(TcpStream::connect(port).unwrap(), "GET /metrics HTTP/1.0\r\n\r\n");
    assert!(answer.contains("\nopdbus_records ") && !answer.contains("collection="), "{answer}");
    // A second has no place there.
    let second = Workplace::new(env!("CARGO_BIN_EXE_op-dbus"));
    let bus = format!("socket:{}", second.path().join("socket").display());
    let line = ["daemon", "--json", "--bus", &bus, "--metrics", &port.to_string()];
    second.op(line).run().refused(5, &[&port.to_string()]);
    let _ = served.terminate().succeeded();
}

#[test]
fn an_address_is_refused_that_tells_everybody_or_nobody() {
    let place = Workplace::new(env!("CARGO_BIN_EXE_op-dbus"));
    let run = |address: &str| place.op(["daemon", "--metrics", address]).run().exited(2).stderr;
    let public = run("0.0.0.0:9464");
    assert!(public.contains("public:0.0.0.0:9464"), "{public}");
    assert!(run("localhost:9464").contains("127.0.0.1:9464"));
    let part = place.op(["daemon", "--recall-audit", "1.5"]).run().exited(2).stderr;
    assert!(part.contains("from 0 to 1"), "{part}");
    let file = place.file("config.toml", "[daemon]\nmetrics = \"0.0.0.0:1\"\nrecall_audit = 0.5\n");
    let check =
        |code| place.op(["config".as_ref(), "check".as_ref(), file.as_os_str()]).run().exited(code);
    let wrong = check(4).stderr;
    assert!(wrong.contains(":2:11:") && wrong.contains("public:0.0.0.0:1"), "{wrong}");
    place.file("config.toml", "[daemon]\nmetrics = \"public:0.0.0.0:1\"\nrecall_audit = 0.5\n");
    let _ = check(0);
}

#[test]
fn who_is_denied_is_counted_as_that() {
    if !is_root() {
        return skip("who_is_denied_is_counted_as_that", &"only root can be somebody else");
    }
    let (place, bus) = (linked(), PrivateBus::start(BusLimits::Raised));
    let figures = place.path().join("figures");
    let address = format!("unix:{}", figures.display());
    let line = ["--metrics", &address, "--call-max-bytes", "1024"];
    let served = Served::start(daemon(&place).arguments(line), &bus);
    until("figures", || UnixStream::connect(&figures).is_ok());
    let to = format!("--address={}", bus.address());
    let call = |user: &[&str], key: &str| {
        let put = ["call", NAME, PATH, "org.opdbus.State1", "Put", "ss", key, "1"];
        let line = [user, &["busctl", &to], &put].concat();
        Command::new(line[0]).args(&line[1..]).output().unwrap().status.success()
    };
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    assert!(call(&[], "a") && !call(&nobody, "b") && !call(&nobody, "c"));
    assert!(!call(&[], &"d".repeat(2000)));
    let stream = UnixStream::connect(&figures).unwrap();
    let request = "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
    let told = Exposition::parse(&body(&exchange(stream, request)));
    let calls =
        |ending| told.value("opdbus_bus_calls_total", &[("class", "state"), ("ending", ending)]);
    assert_eq!(["answered", "denied", "refused"].map(calls), [1.0, 2.0, 1.0]);
    let _ = served.terminate().succeeded();
}

#[test]
fn audits_tell_what_graphs_do_not_find() {
    let it = Place::start(&["--recall-audit", "1"]);
    let audited = || it.figures().value("opdbus_recall_audits_total", &[("result", "done")]);
    let recall = || {
        let told = it.figures();
        let [found, expected] = ["opdbus_recall_found_total", "opdbus_recall_expected_total"]
            .map(|name| told.value(name, &[]));
        (found, expected)
    };
    assert_eq!(recall(), (0.0, 0.0));
    it.search(4, 20, &[("recall", 0.99), ("limit", 10.0)]);
    until("the audits", || audited() == 20.0);
    let (found, expected) = recall();
    assert_eq!(expected, 200.0);
    assert!(found / expected > 0.95, "{found} of {expected}");

    // Little effort finds less; all are compared where that is asked for, and there is nothing to audit.
    it.search(5, 40, &[("recall", 0.01), ("limit", 1.0)]);
    it.search(5, 40, &[("exact", 1.0)]);
    until("the audits", || audited() == 60.0);
    let (found_little, expected_little) = recall();
    let (found_little, expected_little) = (found_little - found, expected_little - expected);
    assert_eq!(expected_little, 40.0);
    assert!(found_little < expected_little, "{found_little} of {expected_little}");

    let stats = it.place.done(["stats", "--json"]).json();
    let of = |name: &str| {
        let collections = stats["collections"].as_array().unwrap();
        collections.iter().find(|known| known["name"] == name).unwrap()["recall"].clone()
    };
    assert_eq!((&of("vectors")["audited"], of("declared")), (&60.into(), Value::Null));
    let lines = it.place.done(["stats"]).text();
    assert!(lines.contains(" recall   60 queries audited\n"), "{lines}");
    let by_name = it.figures();
    let name = [("collection", "vectors")];
    assert_eq!(by_name.value("opdbus_collection_recall_expected_total", &name), 240.0);
    let _ = it.served.terminate().succeeded();
}

/// Whoever asks does not wait for those that were asked before.
#[test]
fn audits_give_way_to_calls() {
    let it = Place::start(&["--recall-audit", "1"]);
    let audits = |result| it.figures().value("opdbus_recall_audits_total", &[("result", result)]);
    let deadline = Instant::now() + Duration::from_secs(2);
    let mut asked = 0.0;
    while Instant::now() < deadline {
        it.search(6, 100, &[]);
        asked += 100.0;
    }
    // While somebody asks all the time hardly anything is audited, and only so many wait:
    // 64, and the one whose turn it is.
    let (full, done) = (audits("full"), audits("done"));
    assert!(done <= asked / 20.0 && full >= asked - done - 65.0, "{done} {full} of {asked}");
    until("the rest", || audits("done") + full == asked);
    // What waits keeps nobody from ending.
    it.search(7, 64, &[]);
    let begun = Instant::now();
    let _ = it.served.terminate().succeeded();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}
