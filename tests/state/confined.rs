//! A hand-written plugin that the service runs itself, confined by Landlock: what it declares it can
//! make so, and what it tries beside that fails, is told, and is taken back.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use op_dbus_daemon::PluginOutcome;
use serde_json::json;
use support::program::Invocation;

use crate::{NOT_AS_DECLARED, World, file, outcomes, report, story};

/// What the program ends with where the kernel confines nothing.
const DENIED: i32 = 9;

/// Its state is the text of two files: one where it may write, and one that it may only read. It says
/// itself that it can write to both.
const KEEPER: &str = r#"#!/usr/bin/env python3
import json, sys

FILES = {"kept": "OWN/kept", "stolen": "OTHERS/stolen"}

def read(name):
    with open(FILES[name]) as file:
        return file.read()

def answer(request):
    if request["verb"] == "query":
        return {"state": {name: read(name) for name in FILES}}
    changes = [
        {"path": name, "from": read(name), "to": text, "what": "write " + name}
        for name, text in request["desired"].items()
        if read(name) != text
    ]
    if request["verb"] != "apply":
        return {{"diff": "changes", "verify": "differences"}[request["verb"]]: changes}
    done = []
    for change in changes:
        try:
            with open(FILES[change["path"]], "w") as file:
                file.write(change["to"])
        except OSError as error:
            failed = {"kind": "denied", "message": str(error), "change": change}
            return {"applied": done, "error": failed}
        done.append(change)
    return {"applied": done}

for line in sys.stdin:
    request = json.loads(line)
    if "protocol" in request:
        print(json.dumps({"protocol": 1, "plugin": "keeper", "version": "1"}), flush=True)
    else:
        print(json.dumps({"id": request["id"]} | answer(request)), flush=True)
"#;

/// The plugin as it is installed.
struct Keeper {
    package: PathBuf,
    /// Where it may write.
    own: PathBuf,
    /// Where it may only read.
    others: PathBuf,
}

impl Keeper {
    /// Installs it for the user who runs the service.
    fn install(world: &World) -> Self {
        let made = |path: PathBuf| {
            fs::create_dir(&path).unwrap();
            path
        };
        let place = world.place.path();
        let keeper = Self {
            package: made(world.plugins.join("keeper")),
            own: made(place.join("own")),
            others: made(place.join("others")),
        };
        fs::write(keeper.own.join("kept"), "old").unwrap();
        fs::write(keeper.others.join("stolen"), "theirs").unwrap();
        let script = KEEPER.replace("OWN", keeper.own.to_str().unwrap());
        let script = script.replace("OTHERS", keeper.others.to_str().unwrap());
        let executable = keeper.package.join("keeper");
        fs::write(&executable, script).unwrap();
        fs::set_permissions(&executable, fs::Permissions::from_mode(0o755)).unwrap();
        keeper.declare(world, &[&keeper.others], &[&keeper.own]);
        keeper
    }

    /// Says what it may read and write, and has the service read that.
    fn declare(&self, world: &World, read: &[&Path], write: &[&Path]) {
        let user = Invocation::new("id".as_ref()).arguments(["-un"]).run().succeeded().text();
        let user = user.trim();
        let manifest = format!(
            "[plugin]\nname = \"keeper\"\nversion = \"1\"\nsource = \"hand-written\"\n\
             executable = \"keeper\"\n\
             [sandbox]\nuser = {user:?}\nread = {read:?}\nwrite = {write:?}\n"
        );
        fs::write(self.package.join("plugin.toml"), manifest).unwrap();
        let address = format!("--address={}", world.bus.address());
        let reload = ["call", "org.opdbus", "/org/opdbus", "org.opdbus.Plugins1", "Reload"];
        let busctl = Invocation::new("busctl".as_ref()).arguments([&*address]);
        let _ = busctl.arguments(reload).run().succeeded();
    }

    fn texts(&self) -> [String; 2] {
        [self.own.join("kept"), self.others.join("stolen")]
            .map(|path| fs::read_to_string(path).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confined_plugin_makes_so_what_it_may_and_nothing_else() {
    use PluginOutcome::{Applied, Planned, RolledBack, Unchanged};
    let world = World::start().await;
    let keeper = Keeper::install(&world);
    let queried = world.state(&["query", "keeper"]).run();
    if queried.code() != Some(0) && !has_landlock(&keeper) {
        println!("SKIPPED: this kernel has no Landlock: {}", queried.stderr);
        return;
    }
    assert_eq!(queried.succeeded().json(), json!({ "kept": "old", "stolen": "theirs" }));

    let allowed = file(&json!({ "one": { "color": "blue" }, "keeper": { "kept": "new" } }));
    let planned = report(&world.with_file(&["apply", "--dry-run"], &allowed).succeeded());
    assert_eq!(outcomes(&planned), [("one", Planned), ("keeper", Planned)]);
    assert_eq!(keeper.texts(), ["old", "theirs"]);
    let applied = report(&world.with_file(&["apply"], &allowed).succeeded());
    assert_eq!(outcomes(&applied), [("one", Applied), ("keeper", Applied)]);
    assert_eq!(keeper.texts(), ["new", "theirs"]);

    // What it may comes first, and is taken back with what it may not.
    let told = story(&world.journal()).len();
    let more = file(&json!({
        "one": { "color": "red" },
        "keeper": { "kept": "newer", "stolen": "mine" },
    }));
    let failed = report(&world.with_file(&["apply"], &more).exited(NOT_AS_DECLARED));
    assert_eq!(outcomes(&failed), [("one", RolledBack), ("keeper", RolledBack)]);
    let of_keeper = &failed.plugins[1];
    let changed: Vec<&str> = of_keeper.changes.iter().map(|change| &*change.path).collect();
    assert_eq!(changed, ["kept"], "what it has changed, not what it would have");
    let problem = of_keeper.problem.as_deref().unwrap();
    assert!(problem.contains("Permission denied") && problem.contains("stolen"), "{problem}");
    assert_eq!(keeper.texts(), ["new", "theirs"]);
    assert_eq!(world.things[0].values().color, "blue");
    let verified = report(&world.state(&["verify"]).run().succeeded());
    assert_eq!(outcomes(&verified), [("one", Unchanged), ("keeper", Unchanged)]);
    let expected = [
        "outcome apply state of one true",
        "outcome apply state of keeper false",
        "outcome take back state of keeper true",
        "outcome take back state of one true",
        "outcome apply state false",
    ];
    let story = story(&world.journal()).split_off(told);
    let outcomes_of = story.iter().filter(|part| part.starts_with("outcome "));
    assert_eq!(outcomes_of.collect::<Vec<_>>(), expected);

    // That it could is what shows that it could not.
    keeper.declare(&world, &[], &[&keeper.own, &keeper.others]);
    let _ = world.with_file(&["apply"], &more).succeeded();
    assert_eq!(keeper.texts(), ["newer", "mine"]);
    let _ = world.end();
}

/// Whether the kernel confines the plugin, or lets it not run.
fn has_landlock(keeper: &Keeper) -> bool {
    let confine = Invocation::new(env!("CARGO_BIN_EXE_op-dbus").as_ref());
    let package = keeper.package.to_str().unwrap();
    confine.arguments(["plugin", "confine", package]).run().code() != Some(DENIED)
}
