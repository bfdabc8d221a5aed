//! A hand-written plugin that runs confined: it reaches what it declares, and nothing else.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;
use support::program::{Ended, Invocation};
use support::scratch;

/// What the program ends with where the kernel confines nothing.
const DENIED: i32 = 9;
/// Its state is whether it can write to a directory, and read a file there.
const PLUGIN: &str = r#"#!/bin/sh
read -r greeting
echo '{"protocol":1,"plugin":"thief","version":"1"}'
while read -r request; do
    writes=false reads=false
    if (: >"DIRECTORY/stolen") 2>/dev/null; then writes=true; fi
    if cat "DIRECTORY/secret" >/dev/null 2>&1; then reads=true; fi
    echo "{\"id\":1,\"state\":{\"writes\":$writes,\"reads\":$reads}}"
done
"#;

/// Makes the plugin with a sandbox, and asks it.
fn asked(place: &Path, sandbox: &str) -> Ended {
    let plugin = place.join("thief");
    let directory = place.join("strongroom");
    fs::create_dir_all(&plugin).unwrap();
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("secret"), "x").unwrap();
    let sandbox = sandbox.replace("DIRECTORY", directory.to_str().unwrap());
    let text =
        "[plugin]\nname = \"thief\"\nversion = \"1\"\nsource = \"hand-written\"\n[sandbox]\n";
    fs::write(plugin.join("plugin.toml"), format!("{text}{sandbox}\n")).unwrap();
    let script = plugin.join("plugin");
    fs::write(&script, PLUGIN.replace("DIRECTORY", directory.to_str().unwrap())).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    Invocation::new(Path::new(env!("CARGO_BIN_EXE_op-dbus")))
        .arguments(["plugin", "confine", plugin.to_str().unwrap()])
        .input("{\"protocol\":1}\n{\"id\":1,\"verb\":\"query\"}\n")
        .run()
}

fn state(ended: &Ended) -> (bool, bool) {
    let text = ended.text();
    let answer: Value = serde_json::from_str(text.lines().nth(1).unwrap()).unwrap();
    let state = &answer["state"];
    (state["writes"].as_bool().unwrap(), state["reads"].as_bool().unwrap())
}

#[test]
fn a_plugin_reaches_what_it_declares_and_nothing_else() {
    let place = scratch::on_disk();
    let nothing = asked(place.path(), "");
    if nothing.code() == Some(DENIED) {
        println!("SKIPPED: this kernel has no Landlock: {}", nothing.stderr);
        return;
    }
    assert_eq!(state(&nothing.succeeded()), (false, false));
    let reading = asked(place.path(), "read = [\"DIRECTORY\"]").succeeded();
    assert_eq!(state(&reading), (false, true));
    // That it could is what shows that it could not.
    let writing = asked(place.path(), "write = [\"DIRECTORY\"]").succeeded();
    assert_eq!(state(&writing), (true, true));
}
