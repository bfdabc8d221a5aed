//! The plugin for Netmaker, with a program that answers as netclient does: it ends with code 0 after
//! most failures, logs among its output, and repeats the token in some errors.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod support;

use std::fs;

use serde_json::{Value, json};
use support::{Programs, Running, error, read, whats};

const PLUGIN: &str = env!("CARGO_BIN_EXE_op-dbus-plugin-netmaker");

/// What a token of the test begins with; behind it stands the name of the network.
const SECRET: &str = "eyJzZWNyZXQiOiJodW50ZXIy";

/// Answers as netclient does; its state is in the directory `$state`.
const NETCLIENT: &str = include_str!("netclient.sh");

struct Netmaker {
    programs: Programs,
    plugin: Running,
}

impl Netmaker {
    fn new() -> Self {
        let programs = Programs::new(&[("netclient", NETCLIENT)]);
        let config = json!({"path": programs.bin(), "timeout_s": 4, "wait_s": 3});
        let plugin = Running::start(PLUGIN, "netmaker", &config);
        Self { programs, plugin }
    }

    fn mark(&self, name: &str, is_there: bool) {
        let path = self.programs.state().join(name);
        if is_there { fs::write(path, "").unwrap() } else { fs::remove_file(path).unwrap() }
    }

    /// What was run, without lists.
    fn log(&self) -> Vec<String> {
        let log = read(&self.programs.state().join("log"));
        log.lines().filter(|line| *line != "list").map(str::to_owned).collect()
    }

    /// Ends, and looks for the secret in all that was written.
    fn end(self) {
        assert!(!self.plugin.said.contains(SECRET), "{}", self.plugin.said);
        assert!(!self.plugin.said.contains(&SECRET[..12]), "{}", self.plugin.said);
        let (code, errors) = self.plugin.end();
        assert_eq!((code, errors.as_str()), (Some(0), ""));
    }
}

fn token(network: &str) -> String {
    format!("{SECRET}.{network}")
}

fn one(network: &str, state: Value) -> Value {
    json!({"networks": {network: state}})
}

#[test]
fn networks_are_joined_connected_and_left() {
    let mut netmaker = Netmaker::new();
    assert_eq!(netmaker.plugin.query(None), json!({"networks": {}}));
    let desired = json!({"networks": {
        "office": {"present": true, "connected": true, "token": token("office")},
        "lab": {"present": true, "connected": false, "token": token("lab")},
    }});
    let change = |path: &str, to: bool, what: &str| json!({"path": format!("networks.{path}"), "from": !to, "to": to, "what": what});
    let expected = json!([
        change("office.present", true, "join the network office"),
        change("office.connected", true, "connect the network office"),
        change("lab.present", true, "join the network lab"),
        change("lab.connected", false, "disconnect the network lab"),
    ]);
    assert_eq!(netmaker.plugin.diff(&desired)["changes"], expected);
    assert_eq!(netmaker.plugin.verify(&desired)["differences"], expected);
    assert_eq!(netmaker.plugin.apply_all(&desired), whats(&expected));
    let (office, lab) =
        (format!("join -t {}", token("office")), format!("join -t {}", token("lab")));
    assert_eq!(netmaker.log(), [&office, &lab, "disconnect lab"], "joining has connected it");
    let state = json!({"networks": {
        "lab": {"present": true, "connected": false},
        "office": {"present": true, "connected": true},
    }});
    assert_eq!(netmaker.plugin.query(None), state);
    assert_eq!(netmaker.plugin.query(Some(&desired)), state);
    // A token that is declared for a network that was joined does not count.
    let again = one("office", json!({"present": true, "token": "another-token"}));
    assert_eq!(netmaker.plugin.apply_all(&again), [""; 0]);

    let connect = one("lab", json!({"connected": true}));
    assert_eq!(netmaker.plugin.apply_all(&connect), ["connect the network lab"]);
    let leave = one("lab", json!({"present": false}));
    assert_eq!(netmaker.plugin.apply_all(&leave), ["leave the network lab"]);
    let state = netmaker.plugin.query(Some(&leave));
    assert_eq!(state["networks"]["lab"], json!({"present": false}));
    assert_eq!(state["networks"]["office"], json!({"present": true, "connected": true}));
    netmaker.end();
}

#[test]
fn what_was_queried_brings_the_old_state_back() {
    let mut netmaker = Netmaker::new();
    let old = one("office", json!({"present": true, "token": token("office")}));
    netmaker.plugin.apply_all(&old);
    let new = json!({"networks": {
        "office": {"connected": false},
        "lab": {"present": true, "token": token("lab")},
    }});
    let before = netmaker.plugin.query(Some(&new));
    netmaker.plugin.apply_all(&new);
    netmaker.plugin.apply_all(&before);
    assert_eq!(netmaker.plugin.query(Some(&new)), before);
    // One that was left needs its token again.
    netmaker.plugin.apply_all(&one("office", json!({"present": false})));
    let answer = netmaker.plugin.apply(&before);
    assert_eq!((error(&answer).0, &answer["applied"]), ("invalid", &json!([])));
    assert!(error(&answer).1.contains("\"token\""), "{answer}");
    let answer = netmaker.plugin.verify(&before);
    assert_eq!(answer["differences"][0]["path"], "networks.office.present");
    netmaker.end();
}

#[test]
fn a_join_is_waited_for_and_its_failures_do_not_tell_the_token() {
    let mut netmaker = Netmaker::new();
    netmaker.mark("slow-join", true);
    netmaker.plugin.apply_all(&one("office", json!({"present": true, "token": token("office")})));
    netmaker.mark("slow-join", false);
    let desired = json!({"networks": {
        "lab": {"present": true, "token": token("lab")},
        "other": {"present": true, "token": token("other")},
    }});
    netmaker.mark("fail-join-other", true);
    let answer = netmaker.plugin.apply(&desired);
    assert_eq!(whats(&answer["applied"]), ["join the network lab"]);
    let (kind, message) = error(&answer);
    assert_eq!(kind, "unavailable");
    assert!(
        message.ends_with("(it said: registration failed: Post https://x/(secret): no host)"),
        "{message}"
    );
    let path = json!({"path": "networks.other.present", "from": false, "to": true,
        "what": "join the network other"});
    assert_eq!(answer["error"]["change"], path);
    netmaker.mark("crash-join", true);
    let answer = netmaker.plugin.apply(&desired);
    let expected = "netclient: exit status: 1: could not read enrollment token (secret)";
    assert_eq!(error(&answer), ("io", expected));
    netmaker.mark("crash-join", false);
    netmaker.mark("fail-join-other", false);
    netmaker.mark("cut-join", true);
    assert_eq!(
        error(&netmaker.plugin.apply(&desired)),
        ("io", "netclient: exit status: 1: (secret)")
    );
    netmaker.end();
}

#[test]
fn a_command_that_ends_well_and_did_nothing_is_a_failure() {
    let mut netmaker = Netmaker::new();
    for name in ["a", "b"] {
        netmaker.plugin.apply_all(&one(name, json!({"present": true, "token": token(name)})));
    }
    netmaker.programs.failing("disconnect-b", "\nnode disconnect failed:  no broker\n");
    let desired = json!({"networks": {"a": {"connected": false}, "b": {"connected": false}}});
    let answer = netmaker.plugin.apply(&desired);
    assert_eq!(whats(&answer["applied"]), ["disconnect the network a"]);
    let expected =
        "netclient disconnect: b is as it was (it said: node disconnect failed:  no broker)";
    assert_eq!(error(&answer), ("io", expected));
    netmaker.programs.failing("leave-a", "error(s) leaving nework\n");
    let answer = netmaker.plugin.apply(&one("a", json!({"present": false})));
    assert!(error(&answer).1.starts_with("netclient leave: a is as it was"), "{answer}");
    netmaker.programs.let_all_work();
    netmaker.plugin.apply_all(&desired);
    netmaker.end();
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_done() {
    let mut netmaker = Netmaker::new();
    let good = json!({"present": true, "token": token("a")});
    let cases = [
        (json!({"connected": true}), "not-found"),
        (json!({"present": true}), "invalid"),
        (json!({"present": true, "token": format!("-{SECRET}")}), "invalid"),
        (json!({"present": true, "token": format!("{SECRET} ")}), "invalid"),
        (json!({"present": SECRET}), "invalid"),
        (json!({"present": true, "tokne": SECRET}), "invalid"),
    ];
    for (wrong, kind) in cases {
        let desired = json!({"networks": {"a": good, "b": wrong}});
        for answer in [netmaker.plugin.apply(&desired), netmaker.plugin.diff(&desired)] {
            assert_eq!(error(&answer).0, kind, "{answer}");
        }
    }
    for name in ["", "-t", "a b", "a/b", "a\n"] {
        let answer = netmaker.plugin.apply(&one(name, good.clone()));
        assert_eq!((error(&answer).0, &answer["applied"]), ("invalid", &json!([])), "{name:?}");
    }
    let cut =
        format!(r#"{{"id":1,"verb":"apply","desired":{{"networks":{{"a":{{"token":"{SECRET}"#);
    assert_eq!(error(&netmaker.plugin.line(&cut)).0, "invalid");
    assert_eq!(netmaker.plugin.query(None), json!({"networks": {}}));
    netmaker.end();
}

#[test]
fn a_client_that_hangs_or_floods_is_an_error() {
    let mut netmaker = Netmaker::new();
    let desired = one("a", json!({"present": false}));
    for (file, kind) in [("hang-list", "unavailable"), ("huge-list", "io")] {
        netmaker.mark(file, true);
        assert_eq!(error(&netmaker.plugin.diff(&desired)).0, kind);
        netmaker.mark(file, false);
    }
    netmaker.programs.write("netclient", "echo something else");
    assert_eq!(error(&netmaker.plugin.diff(&desired)).0, "io");
    netmaker.programs.write("netclient", "echo 'This program must be run as root' >&2; exit 1");
    let answer = netmaker.plugin.diff(&desired);
    assert_eq!(error(&answer).1, "netclient: exit status: 1: This program must be run as root");
    netmaker.end();
}
