//! The plugin with LXC itself: a container of busybox, in a directory of the test.
//!
//! It needs root, the packages lxc and busybox-static, and a kernel that lets containers be started.
//! What is missing is said, with `SKIPPED`.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod support;

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use support::{Running, error, read, whats};

const PLUGIN: &str = env!("CARGO_BIN_EXE_op-dbus-plugin-lxc");
const NAME: &str = "op-dbus-test";

/// What the test cannot do without, if that is not there.
fn missing() -> Option<String> {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return Some("this is not root".to_owned());
    }
    let is_there = |program: &&str| {
        ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
            .iter()
            .any(|at| Path::new(at).join(program).exists())
    };
    let needed =
        ["lxc-ls", "lxc-info", "lxc-create", "lxc-start", "lxc-stop", "lxc-destroy", "busybox"];
    let absent = needed.iter().find(|program| !is_there(program))?;
    Some(format!("{absent} is not there: install lxc and busybox-static"))
}

/// Says what was not tested, past what cargo captures.
fn skipped(reason: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: the plugin with LXC itself: {reason}");
}

/// A directory of containers; what is left of them at the end goes with it.
struct Containers(tempfile::TempDir);

impl Containers {
    fn config(&self) -> PathBuf {
        self.0.path().join(NAME).join("config")
    }

    /// LXC's own answer, not through the plugin.
    fn lxc(&self, program: &str, arguments: &[&str]) -> Output {
        Command::new(program).arg("-P").arg(self.0.path()).args(arguments).output().unwrap()
    }

    fn state(&self) -> String {
        let info = self.lxc("lxc-info", &["-n", NAME, "-s", "-H"]);
        String::from_utf8(info.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        if self.config().exists() {
            self.lxc("lxc-destroy", &["-f", "-n", NAME]);
        }
    }
}

fn one(container: Value) -> Value {
    json!({"containers": {NAME: container}})
}

fn told(running: bool, autostart: bool) -> Value {
    one(json!({"present": true, "running": running, "autostart": autostart}))
}

#[test]
fn a_container_lives_and_goes() {
    if let Some(reason) = missing() {
        skipped(&reason);
        return;
    }
    let containers = Containers(tempfile::tempdir().unwrap());
    let config = json!({"lxcpath": containers.0.path(), "stop_wait_s": 2});
    let mut plugin = Running::start(PLUGIN, "lxc", &config);
    assert_eq!(plugin.query(None), json!({"containers": {}}));

    let desired = one(json!({"present": true, "template": "busybox",
        "config": {"lxc.net.0.type": "empty", "lxc.apparmor.profile": "unconfined"}}));
    let before = plugin.query(Some(&desired));
    assert_eq!(before, one(json!({"present": false})));
    let done = plugin.apply_all(&desired);
    assert_eq!(done[0], format!("create the container {NAME} from the template busybox"));
    assert_eq!(plugin.query(None), told(false, false));
    let file = read(&containers.config());
    assert!(file.contains("\nlxc.net.0.type = empty\n"), "{file}");
    assert!(file.contains("\n# Uncomment the following line"), "comments stay: {file}");

    let autostart = one(json!({"autostart": true}));
    let old = plugin.query(Some(&one(json!({"config": {"lxc.net.0.type": null}}))));
    plugin.apply_all(&autostart);
    assert_eq!(plugin.query(None), told(false, true));
    assert_eq!(old["containers"][NAME]["template"], "busybox");
    plugin.apply_all(&old);
    assert_eq!(read(&containers.config()).replace("\nlxc.start.auto = 0", ""), file);

    if start_and_stop(&containers, &mut plugin) {
        assert_eq!(plugin.end().0, Some(0));
        plugin = Running::start(PLUGIN, "lxc", &config);
        assert_eq!(containers.state(), "RUNNING", "it goes on without the plugin");
    }
    let whats = plugin.apply_all(&before);
    assert_eq!(
        whats.last().unwrap(),
        &format!("destroy the container {NAME} and all that it holds")
    );
    assert!(!containers.config().exists());
    assert_eq!(plugin.query(None), json!({"containers": {}}));
    assert_eq!(plugin.end(), (Some(0), String::new()));
}

/// Leaves it running, if it can run, which is returned.
fn start_and_stop(containers: &Containers, plugin: &mut Running) -> bool {
    let start = one(json!({"running": true}));
    let answer = plugin.apply(&start);
    if answer.get("error").is_some() {
        let itself = containers.lxc("lxc-start", &["-n", NAME]);
        assert!(!itself.status.success(), "LXC starts it, the plugin does not: {answer}");
        skipped(&format!("starting and stopping: {}", error(&answer).1));
        return false;
    }
    assert_eq!((plugin.query(None), containers.state().as_str()), (told(true, false), "RUNNING"));
    assert_eq!(plugin.verify(&start)["differences"], json!([]));
    let late = one(json!({"config": {"lxc.tty.max": "2"}}));
    assert!(plugin.apply_all(&late)[0].ends_with("; it takes effect at the next start"));
    let stopped = plugin.apply(&one(json!({"running": false})));
    assert_eq!(whats(&stopped["applied"]), [format!("stop the container {NAME}")], "{stopped}");
    assert_eq!((plugin.query(None), containers.state().as_str()), (told(false, false), "STOPPED"));
    plugin.apply_all(&start);
    assert_eq!(containers.state(), "RUNNING");
    true
}
