//! The plugin for LXC, with programs that do as LXC's do but only write files.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod support;

use std::fs;

use serde_json::{Value, json};
use support::{Programs, Running, error, read, whats};

const PLUGIN: &str = env!("CARGO_BIN_EXE_op-dbus-plugin-lxc");

/// What all of them begin with: `fail VERB NAME` ends with the words of a failure, and the arguments
/// are read as LXC's programs read them.
const START: &str = r#"
fail() { if [ -e "$state/fail-$1-$2" ]; then cat "$state/fail-$1-$2" >&2; exit 1; fi; }
echo "$(basename "$0") $*" >> "$state/log"
[ "$1" = -P ]; lxc="$2"; shift 2
name=; template=; wait=
while [ $# -gt 0 ]; do case "$1" in
    -n) name="$2"; shift 2;; -t) template="$2"; wait="$2"; shift 2;;
    --) shift; break;; *) shift;; esac; done
"#;
const LS: &str = r#"
[ ! -e "$state/hang-ls" ] || sleep 30
[ ! -e "$state/huge-ls" ] || head -c 3000000 /dev/zero | tr '\0' x
fail ls all
for c in "$lxc"/*/config; do
    [ -e "$c" ] || exit 0
    [ "${header-}" ] || { echo "NAME STATE   AUTOSTART "; header=1; }
    n=$(basename "$(dirname "$c")"); s=STOPPED; [ ! -e "$lxc/$n/running" ] || s=RUNNING
    a=$(sed -n 's/^lxc.start.auto = //p' "$c"); echo "$n  $s ${a:-0} "
done"#;
const CREATE: &str = r##"
fail create "$name"
[ ! -e "$state/hang-create" ] || sleep 30
head -c 3000000 /dev/zero | tr '\0' x
mkdir "$lxc/$name"
echo "# Template used to create this container: /usr/share/lxc/templates/lxc-$template
# Parameters passed to the template: $*
# mine
lxc.net.0.type = veth
lxc.uts.name = \"$name\"
lxc.mount.entry = a
lxc.mount.entry = b" > "$lxc/$name/config""##;
const AUTOSTART: &str = r#"echo "lxc.start.auto = 1" >> "$lxc/$name/config""#;
const INFO: &str = r#"s=STOPPED; [ ! -e "$lxc/$name/running" ] || s=RUNNING; echo $s"#;
const BEGIN: &str = r#"
fail start "$name"; [ -e "$lxc/$name/config" ]; [ -e "$state/dies" ] || touch "$lxc/$name/running""#;
const STOP: &str = r#"
fail stop "$name"; [ "$wait" = 3 ]; [ -e "$lxc/$name/running" ] || exit 2; rm "$lxc/$name/running""#;
const DESTROY: &str = r#"
fail destroy "$name"; [ ! -e "$lxc/$name/running" ]; rm -r "$lxc/$name""#;

struct Lxc {
    programs: Programs,
    plugin: Running,
}

impl Lxc {
    fn new() -> Self {
        let programs = Programs::new(&[]);
        for (name, script) in [
            ("lxc-ls", LS),
            ("lxc-info", INFO),
            ("lxc-create", CREATE),
            ("lxc-start", BEGIN),
            ("lxc-stop", STOP),
            ("lxc-destroy", DESTROY),
        ] {
            programs.write(name, &format!("{START}{script}"));
        }
        fs::create_dir(programs.state().join("lxc")).unwrap();
        let config = json!({"path": programs.bin(), "lxcpath": programs.state().join("lxc"),
            "timeout_s": 4, "create_timeout_s": 4, "stop_wait_s": 3});
        let plugin = Running::start(PLUGIN, "lxc", &config);
        Self { programs, plugin }
    }

    fn config_of(&self, name: &str) -> String {
        read(&self.programs.state().join("lxc").join(name).join("config"))
    }

    /// The programs that were run, without those that only look.
    fn log(&self) -> Vec<String> {
        let lxc = format!("-P {} ", self.programs.state().join("lxc").display());
        let log = read(&self.programs.state().join("log")).replace(&lxc, "");
        let looks = |line: &&str| line.starts_with("lxc-ls") || line.starts_with("lxc-info");
        log.lines().filter(|line| !looks(line)).map(str::to_owned).collect()
    }
}

fn one(name: &str, container: Value) -> Value {
    json!({"containers": {name: container}})
}

#[test]
fn a_container_is_created_changed_and_destroyed() {
    let mut lxc = Lxc::new();
    assert_eq!(lxc.plugin.query(None), json!({"containers": {}}));
    let desired = one(
        "web",
        json!({"present": true, "running": true, "autostart": true, "template": "busybox",
            "template_args": ["--a b", "$x"], "config": {"lxc.net.0.type": "empty"}}),
    );
    let diff = lxc.plugin.diff(&desired);
    let change = |path: &str, from: Value, to: Value, what: &str| {
        let path = format!("containers.web.{path}");
        json!({"path": path, "from": from, "to": to, "what": what})
    };
    let expected = json!([
        change(
            "present",
            json!(false),
            json!(true),
            "create the container web from the template busybox"
        ),
        change(
            "config.lxc.net.0.type",
            Value::Null,
            json!("empty"),
            "set lxc.net.0.type in the configuration of web"
        ),
        change(
            "autostart",
            json!(false),
            json!(true),
            "let the container web start with the system"
        ),
        change("running", json!(false), json!(true), "start the container web"),
    ]);
    assert_eq!(diff["changes"], expected);
    assert_eq!(lxc.plugin.verify(&desired)["differences"], expected);
    assert_eq!(lxc.plugin.query(None), json!({"containers": {}}), "a diff changes nothing");
    assert_eq!(lxc.plugin.apply_all(&desired), whats(&expected));
    assert_eq!(lxc.log(), ["lxc-create -n web -t busybox -- --a b $x", "lxc-start -n web"],);
    let config = lxc.config_of("web");
    assert!(config.contains("# mine\nlxc.net.0.type = empty\nlxc.uts.name"), "{config}");
    assert!(config.ends_with("\nlxc.start.auto = 1"), "{config}");

    let listed = json!({"present": true, "running": true, "autostart": true});
    assert_eq!(lxc.plugin.query(None), one("web", listed));
    let change =
        one("web", json!({"config": {"lxc.net.0.type": "none", "lxc.mount.entry": ["b"]}}));
    let expected = [
        "set lxc.net.0.type in the configuration of web; it takes effect at the next start",
        "set lxc.mount.entry in the configuration of web; it takes effect at the next start",
    ];
    assert_eq!(lxc.plugin.apply_all(&change), expected);
    let stopped = one("web", json!({"running": false, "autostart": false}));
    assert_eq!(
        lxc.plugin.apply_all(&stopped),
        ["stop the container web", "let the container web not start with the system"]
    );
    lxc.plugin.apply_all(&one("web", json!({"running": true})));
    let gone = one("web", json!({"present": false, "running": true}));
    assert_eq!(
        lxc.plugin.apply_all(&gone),
        ["stop the container web", "destroy the container web and all that it holds"]
    );
    assert_eq!(lxc.plugin.query(Some(&gone)), one("web", json!({"present": false})));
    assert_eq!(lxc.plugin.end(), (Some(0), String::new()));
}

#[test]
fn only_what_is_declared_is_touched() {
    let mut lxc = Lxc::new();
    for name in ["a", "b"] {
        lxc.plugin
            .apply_all(&one(name, json!({"present": true, "template": "t", "running": true})));
    }
    let before = (lxc.config_of("a"), lxc.config_of("b"));
    for desired in [
        json!({}),
        json!({"containers": {}}),
        one("a", json!({})),
        one("a", json!({"present": true})),
    ] {
        assert_eq!(lxc.plugin.apply_all(&desired), [""; 0]);
    }
    lxc.plugin.apply_all(&one("a", json!({"present": false})));
    assert_eq!(before.1, lxc.config_of("b"));
    let listed = json!({"present": true, "running": true, "autostart": false});
    assert_eq!(lxc.plugin.query(None), one("b", listed));
}

#[test]
fn what_was_queried_brings_the_old_state_back() {
    let mut lxc = Lxc::new();
    let old = json!({"containers": {
        "a": {"present": true, "template": "t", "template_args": ["x", "y"], "running": true},
        "b": {"present": true, "template": "t", "autostart": true},
    }});
    lxc.plugin.apply_all(&old);
    let config = lxc.config_of("b");
    let new = json!({"containers": {
        "a": {"present": false, "config": {"lxc.net.0.type": null}},
        "b": {"running": true, "autostart": false, "config": {
            "lxc.mount.entry": "z", "lxc.new": "1", "lxc.uts.name": "web"}},
        "c": {"present": true, "template": "t", "running": true},
    }});
    let before = lxc.plugin.query(Some(&new));
    let expected = json!({"containers": {
        "a": {"present": true, "running": true, "autostart": false,
            "template": "t", "template_args": ["x", "y"], "config": {"lxc.net.0.type": "veth"}},
        "b": {"present": true, "running": false, "autostart": true,
            "template": "t", "template_args": [], "config": {
            "lxc.mount.entry": ["a", "b"], "lxc.new": null, "lxc.uts.name": "\"b\""}},
        "c": {"present": false},
    }});
    assert_eq!(before, expected);
    lxc.plugin.apply_all(&new);
    assert_ne!(lxc.config_of("b"), config);
    lxc.plugin.apply_all(&before);
    assert_eq!(lxc.plugin.query(Some(&new)), before);
    assert_eq!(lxc.config_of("b"), config);
    assert!(lxc.log().contains(&"lxc-create -n a -t t -- x y".to_owned()), "{:?}", lxc.log());
}

#[test]
fn a_failure_in_the_middle_tells_what_was_done() {
    let mut lxc = Lxc::new();
    let container = json!({"present": true, "running": true, "template": "t"});
    let desired = json!({"containers": {"a": container, "b": container, "c": container}});
    lxc.programs.failing("start-b", "lxc-start: b: it cannot\nTo get more details, run it\n");
    let answer = lxc.plugin.apply(&desired);
    let done = [
        "create the container a from the template t",
        "start the container a",
        "create the container b from the template t",
    ];
    assert_eq!(whats(&answer["applied"]), done);
    assert_eq!(error(&answer), ("io", "lxc-start: exit status: 1: lxc-start: b: it cannot"));
    assert_eq!(answer["error"]["change"]["path"], "containers.b.running");
    let state = lxc.plugin.query(None);
    assert_eq!(state["containers"]["b"]["running"], false);
    assert_eq!(state["containers"].get("c"), None, "later steps are not tried");
    lxc.programs.let_all_work();
    assert_eq!(lxc.plugin.apply_all(&desired)[0], "start the container b");

    fs::write(lxc.programs.state().join("dies"), "").unwrap();
    let answer = lxc.plugin.apply(&one("d", container));
    assert_eq!(error(&answer), ("io", "the container d was started and ended at once"));
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_done() {
    let mut lxc = Lxc::new();
    let good = json!({"present": true, "template": "t"});
    let cases = [
        (json!({"running": true}), "not-found"),
        (json!({"present": true}), "invalid"),
        (json!({"present": true, "template": "/bin/sh"}), "invalid"),
        (json!({"present": true, "template": "t", "config": {"lxc.x": "a\nlxc.y = b"}}), "invalid"),
        (json!({"present": true, "templaet": "t"}), "invalid"),
    ];
    for (wrong, kind) in cases {
        let desired = json!({"containers": {"a": good, "b": wrong}});
        for answer in [lxc.plugin.apply(&desired), lxc.plugin.diff(&desired)] {
            assert_eq!(error(&answer).0, kind, "{desired}: {answer}");
        }
    }
    for name in ["", "-n", "../../etc", "a/b", "a b", "a\n", &"a".repeat(64)] {
        let answer = lxc.plugin.apply(&one(name, good.clone()));
        assert_eq!((error(&answer).0, &answer["applied"]), ("invalid", &json!([])), "{name:?}");
    }
    assert_eq!(lxc.plugin.query(None), json!({"containers": {}}));
    // Whether it is as declared can be told without a template.
    let differences = lxc.plugin.verify(&one("a", json!({"present": true})));
    assert_eq!(differences["differences"][0]["path"], "containers.a.present");
}

#[test]
fn programs_that_hang_or_flood_or_are_not_there_are_errors() {
    let mut lxc = Lxc::new();
    let desired = one("a", json!({"present": true, "template": "t"}));
    for (file, kind) in [("hang-ls", "unavailable"), ("huge-ls", "io")] {
        let file = lxc.programs.state().join(file);
        fs::write(&file, "").unwrap();
        assert_eq!(error(&lxc.plugin.diff(&desired)).0, kind);
        fs::remove_file(&file).unwrap();
    }
    let file = lxc.programs.state().join("hang-create");
    fs::write(&file, "").unwrap();
    let answer = lxc.plugin.apply(&desired);
    assert_eq!(
        error(&answer),
        ("unavailable", "lxc-create: it took longer than 4 s and was ended")
    );
    fs::remove_file(&file).unwrap();
    lxc.programs.failing("ls-all", "lxc-ls: Permission denied");
    assert_eq!(error(&lxc.plugin.diff(&desired)).0, "denied");
    lxc.programs.let_all_work();
    lxc.programs.write("lxc-ls", "echo NAME; echo x");
    assert_eq!(error(&lxc.plugin.diff(&desired)).0, "unsupported");
    lxc.programs.write("lxc-ls", "echo NAME STATE AUTOSTART; echo x");
    assert_eq!(error(&lxc.plugin.diff(&desired)).0, "io");
    lxc.programs
        .write("lxc-ls", "echo NAME STATE AUTOSTART; echo a-+- STOPPED 0; echo b STOPPED 1");
    let listed = json!({"present": true, "running": false, "autostart": true});
    assert_eq!(lxc.plugin.query(None), one("b", listed));
    let (code, errors) = lxc.plugin.end();
    assert_eq!(code, Some(0));
    assert!(errors.contains("\"a-+-\" is left out"), "{errors}");
}

/// lxc-ls writes nothing then, not even names of columns.
#[test]
fn a_directory_that_is_not_there_has_no_containers() {
    let programs = Programs::new(&[("lxc-ls", "exit 0")]);
    let config = json!({"path": programs.bin(), "lxcpath": "/nowhere"});
    let mut plugin = Running::start(PLUGIN, "lxc", &config);
    assert_eq!(plugin.query(None), json!({"containers": {}}));
    assert_eq!(plugin.end(), (Some(0), String::new()));
}

#[test]
fn malformed_lines_are_answered_and_it_goes_on() {
    let mut lxc = Lxc::new();
    for line in ["", "{", "nonsense", "[1]", r#"{"id":1}"#, r#"{"id":1,"verb":"destroy"}"#] {
        assert_eq!(error(&lxc.plugin.line(line)).0, "invalid", "{line}");
    }
    lxc.plugin.write(b"\xff\xfe\n");
    assert_eq!(error(&lxc.plugin.read()).0, "invalid");
    let long = [b" ".repeat(5 << 20), b"\n".to_vec()].concat();
    lxc.plugin.write(&long);
    assert_eq!(error(&lxc.plugin.read()).0, "invalid");
    assert_eq!(lxc.plugin.query(None), json!({"containers": {}}));
}

/// What a new container begins with, by LXC's defaults and its template, shows only when it is there.
#[test]
fn a_container_is_created_without_what_is_declared_to_be_none() {
    let mut lxc = Lxc::new();
    lxc.programs.write("lxc-create", &format!("{START}{CREATE}\n{AUTOSTART}"));
    let config = json!({"lxc.net.0.type": null, "lxc.mount.entry": null, "lxc.none": null,
        "lxc.uts.name": "web"});
    let desired = one(
        "web",
        json!({"present": true, "autostart": false, "template": "busybox", "config": config}),
    );
    let created = "create the container web from the template busybox";
    let done = [created, "set lxc.uts.name in the configuration of web"];
    assert_eq!(lxc.plugin.apply_all(&desired), done);
    let file = lxc.config_of("web");
    for gone in ["lxc.net.0.type", "lxc.mount.entry", "lxc.start.auto"] {
        assert!(!file.contains(gone), "{file}");
    }
    assert!(file.contains("# mine"), "{file}");
    assert_eq!(lxc.plugin.end(), (Some(0), String::new()));
}
