//! Declared state, applied through plugins of a service in this process: in order, and back again when
//! something goes wrong in the middle. What is true is asked of the service, not of the report alone.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[path = "state/broken.rs"]
mod broken;
#[path = "state/confined.rs"]
mod confined;
#[path = "state/secrets.rs"]
mod secrets;

use std::path::PathBuf;

use op_dbus_daemon::{PluginOutcome, StateReport};
use serde_json::{Value, json};
use support::bus::{BusLimits, PrivateBus, Served};
use support::program::{Ended, Invocation, Workplace};
use support::thing::{self, Plugin, Thing, Values};
use zbus::Connection;

/// Exit codes of the program.
const NOTHING_FOUND: i32 = 1;
const NOT_FOUND: i32 = 3;
const INVALID: i32 = 4;
const BUSY: i32 = 5;
const UNSUPPORTED: i32 = 11;
const NOT_AS_DECLARED: i32 = 13;

/// The service on a bus of its own, and another with three things that have plugins.
struct World {
    served: Served,
    things: [Thing; 3],
    plugins: PathBuf,
    _things: Connection,
    bus: PrivateBus,
    place: Workplace,
}

impl World {
    /// With a plugin for each thing, the second depending on the first, and the third on the second.
    async fn start() -> Self {
        Self::with(&[]).await
    }

    /// With more plugins, or others.
    async fn with(plugins: &[(&str, Plugin<'_>)]) -> Self {
        let place = Workplace::new(env!("CARGO_BIN_EXE_op-dbus"));
        let directory = place.path().join("plugins");
        thing::write_plugin(&directory, "one", Plugin::default());
        for (name, on) in [("two", "one"), ("three", "two")] {
            thing::write_plugin(
                &directory,
                name,
                Plugin { depends_on: &[on], ..Plugin::default() },
            );
        }
        for (name, plugin) in plugins {
            thing::write_plugin(&directory, name, *plugin);
        }
        let bus = PrivateBus::start(BusLimits::Raised);
        let connection = bus.connect().await;
        let things = Thing::serve(&connection, ["one", "two", "three"]).await;
        let served = Served::start(daemon(&place), &bus);
        Self { served, things, plugins: directory, _things: connection, bus, place }
    }

    /// Prepares `op-dbus state`, as JSON.
    fn state(&self, arguments: &[&str]) -> Invocation {
        let address = self.bus.address();
        self.place.op(["--json", "--bus", &address, "state"]).arguments(arguments)
    }

    /// Runs `op-dbus state` with a file.
    fn with_file(&self, arguments: &[&str], file: &Value) -> Ended {
        self.prepared(arguments, file).run()
    }

    fn prepared(&self, arguments: &[&str], file: &Value) -> Invocation {
        self.state(arguments).arguments(["-"]).input(file.to_string())
    }

    /// What everything is.
    fn values(&self) -> [Values; 3] {
        [0, 1, 2].map(|number: usize| self.things[number].values())
    }

    /// What was tried to be set of each.
    fn take_sets(&self) -> [Vec<&'static str>; 3] {
        [0, 1, 2].map(|number: usize| self.things[number].take_sets())
    }

    /// The journal, as the service has it.
    fn journal(&self) -> Vec<Value> {
        let exported = self.place.op(["--bus", &self.bus.address(), "journal", "export"]).run();
        lines(&exported.succeeded())
    }

    /// Ends the service; its journal is whole.
    fn end(self) -> (Ended, Workplace) {
        let Self { served, place, .. } = self;
        let ended = served.terminate().succeeded();
        place.done(["journal", "verify"]);
        (ended, place)
    }
}

fn daemon(place: &Workplace) -> Invocation {
    let line = ["--log-level", "debug", "--model", "no-model", "daemon", "--index-live=false"];
    let line = place.op(line).arguments(["--interfaces", "no-interfaces", "--plugins"]);
    line.arguments([place.path().join("plugins")])
}

fn lines(ended: &Ended) -> Vec<Value> {
    ended.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn file(plugins: &Value) -> Value {
    json!({ "version": "1.0", "plugins": plugins })
}

fn report(ended: &Ended) -> StateReport {
    serde_json::from_value(ended.json()).unwrap()
}

fn outcomes(report: &StateReport) -> Vec<(&str, PluginOutcome)> {
    report.plugins.iter().map(|plugin| (plugin.plugin.as_str(), plugin.outcome)).collect()
}

fn colors(values: &[Values; 3]) -> [&str; 3] {
    [&values[0].color, &values[1].color, &values[2].color]
}

/// What each journal entry of state is: kind, action, and of outcomes whether it went well.
fn story(journal: &[Value]) -> Vec<String> {
    let told = |entry: &Value| {
        let action = entry["action"].as_str().unwrap();
        let is_told = action.contains("state") || action == "checkpoint";
        let succeeded = match &entry["details"]["succeeded"] {
            Value::Null => String::new(),
            succeeded => format!(" {succeeded}"),
        };
        is_told.then(|| format!("{} {action}{succeeded}", entry["kind"].as_str().unwrap()))
    };
    journal.iter().filter_map(told).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_declared_is_compared_applied_verified_and_taken_back() {
    use PluginOutcome::{Applied, Planned, Unchanged};
    let world = World::start().await;
    let _ = world.state(&["history"]).run().exited(NOTHING_FOUND);
    let _ = world.state(&["verify"]).run().refused(NOT_FOUND, &["no state was applied"]);
    let queried = world.state(&["query", "one"]).run().succeeded().json();
    assert_eq!(queried, json!({ "color": "", "label": "", "secret": "(secret)", "size": 0 }));

    // Named in the wrong order.
    let first = file(&json!({
        "three": { "color": "c1" },
        "two": { "color": "b1", "size": 7 },
        "one": { "color": "a1", "label": "first" },
    }));
    let order = |outcome| [("one", outcome), ("two", outcome), ("three", outcome)];
    for arguments in [&["diff"][..], &["apply", "--dry-run"]] {
        let planned = report(&world.with_file(arguments, &first).succeeded());
        assert_eq!(outcomes(&planned), order(Planned));
        assert!(!planned.as_declared);
        assert_eq!(planned.plugins[1].changes[1].from, json!(0));
        assert_eq!(planned.plugins[1].changes[1].to, json!(7));
    }
    let _ = world.with_file(&["verify"], &first).exited(NOT_AS_DECLARED);
    assert_eq!(world.take_sets(), <[Vec<&str>; 3]>::default());
    assert_eq!(world.values(), <[Values; 3]>::default());

    let applied = report(&world.with_file(&["apply"], &first).succeeded());
    assert_eq!(outcomes(&applied), order(Applied));
    assert!(applied.as_declared);
    assert_eq!(world.take_sets(), [vec!["color", "label"], vec!["color", "size"], vec!["color"]]);
    let is = world.values();
    assert_eq!((colors(&is), is[1].size, is[0].label.as_str()), (["a1", "b1", "c1"], 7, "first"));
    // Nothing is done again that is so.
    let again = report(&world.with_file(&["apply"], &first).succeeded());
    assert_eq!(outcomes(&again), order(Unchanged));
    assert_eq!(world.take_sets(), <[Vec<&str>; 3]>::default());

    let _ = world.state(&["verify"]).run().succeeded();
    world.things[1].turn_into(Values { size: 8, ..is[1].clone() });
    let verified = report(&world.state(&["verify"]).run().exited(NOT_AS_DECLARED));
    assert_eq!(outcomes(&verified)[1], ("two", Planned));
    assert_eq!(verified.plugins[1].changes[0].path, "size");

    let second = file(&json!({ "one": { "color": "a2" }, "two": { "size": 9 } }));
    let _ = world.with_file(&["apply"], &second).succeeded();
    let history = world.state(&["history"]).run().succeeded().json();
    let numbers = history["applied"].as_array().unwrap().iter();
    let numbers: Vec<u64> = numbers.map(|row| row["number"].as_u64().unwrap()).collect();
    // The same once more is no other version.
    assert_eq!(numbers.len(), 2, "{history}");
    assert!(numbers.is_sorted_by(|later, earlier| later > earlier), "{history}");
    let oldest = numbers[1].to_string();
    let _ = world.state(&["rollback", &oldest]).run().succeeded();
    let is = world.values();
    assert_eq!((colors(&is), is[1].size), (["a1", "b1", "c1"], 7));
    let _ = world.state(&["rollback", "999"]).run().refused(NOT_FOUND, &["999"]);
    let _ = world.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_applied_is_refused_before_anything_is_touched() {
    let on = |plugins: &'static [&'static str], thing| Plugin {
        depends_on: plugins,
        thing: Some(thing),
        ..Plugin::default()
    };
    let reader = Plugin { reads_only: true, thing: Some("two"), ..Plugin::default() };
    let (east, west) = (on(&["west"], "two"), on(&["east"], "three"));
    let gone = Plugin { thing: Some("nowhere"), ..Plugin::default() };
    let more = [("reader", reader), ("east", east), ("west", west), ("gone", gone)];
    let world = World::with(&more).await;
    std::fs::create_dir(world.plugins.join("odd")).unwrap();
    std::fs::write(world.plugins.join("odd/plugin.toml"), "[plugin]\nname = 1\n").unwrap();
    let reload = ["org.opdbus.Plugins1", "Reload"];
    let address = format!("--address={}", world.bus.address());
    let busctl = Invocation::new("busctl".as_ref()).arguments([&*address, "call", "org.opdbus"]);
    let _ = busctl.arguments(["/org/opdbus"]).arguments(reload).run().succeeded();
    let cases = [
        (json!({ "nothing": {} }), NOT_FOUND, "nothing"),
        (json!({ "two": { "colour": "x" } }), INVALID, "colour"),
        (json!({ "two": { "size": "large" } }), INVALID, "size"),
        (json!({ "two": { "size": -1 } }), INVALID, "size"),
        (json!({ "two": { "size": 1_u64 << 40 } }), INVALID, "size"),
        (json!({ "two": { "color": null } }), INVALID, "color"),
        (json!({ "reader": { "color": "x" } }), UNSUPPORTED, "reader"),
        (
            json!({ "east": { "color": "x" }, "west": { "color": "x" } }),
            INVALID,
            "east, west, east",
        ),
        (json!({ "odd": {} }), INVALID, "odd"),
    ];
    let cases_count = cases.len();
    for (plugins, code, problem) in cases {
        let mut plugins = plugins;
        // One that is right comes first.
        plugins["one"] = json!({ "color": "x" });
        for arguments in [&["diff"][..], &["verify"], &["apply"]] {
            let refused = world.with_file(arguments, &file(&plugins));
            let _ = refused.refused(code, &[problem]);
        }
    }
    // An object that is not there.
    let plugins = json!({ "one": { "color": "x" }, "gone": { "color": "x" } });
    let refused = world.with_file(&["apply"], &file(&plugins));
    assert!(!matches!(refused.code(), Some(0 | NOT_AS_DECLARED) | None), "{}", refused.stderr);
    for text in
        ["", "{", "{\"version\": \"1.0\"}", "{\"version\": \"1.0\", \"plugins\": {\"one\": 1}}"]
    {
        let refused = world.state(&["apply", "-"]).input(text).run();
        let _ = refused.refused(INVALID, &[]);
    }
    assert_eq!(world.take_sets(), <[Vec<&str>; 3]>::default());
    assert_eq!(world.values(), <[Values; 3]>::default());
    let _ = world.state(&["history"]).run().exited(NOTHING_FOUND);
    // Each that the service was asked for has its intent, and an outcome that says it failed.
    let story = story(&world.journal());
    let expected = ["intent apply state", "outcome apply state false"].repeat(cases_count + 1);
    assert_eq!(story, expected);
    let _ = world.end();
}
