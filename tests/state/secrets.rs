//! What nobody may read: values that a plugin or its mapping calls secret are in what was declared, which
//! the service's user alone may read, and nowhere else.

use op_dbus_engine::{Store, StoreConfig};
use serde_json::{Value, json};
use support::program::Ended;
use support::thing::Answer::{Fails, Quotes, Well};
use support::thing::{Plugin, Values};

use crate::{INVALID, NOT_AS_DECLARED, World, file};

/// In every secret value, and in nothing else.
const MARKER: &str = "MARKER";

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_in_no_report_journal_log_or_other_collection() {
    // The mapping calls `secret` so, and this plugin `label`, too.
    let world = World::with(&[("one", Plugin { secret: &["label"], ..Plugin::default() })]).await;
    let thing = &world.things[0];
    let secret = |what: &str| format!("{MARKER}-{what}");
    let is = |what: &str| Values {
        secret: secret(&format!("secret-{what}")),
        label: secret(&format!("label-{what}")),
        ..Values::default()
    };
    let wants = |what: &str| {
        file(&json!({ "one": {
            "label": secret(&format!("label-{what}")),
            "secret": secret(&format!("secret-{what}")),
        } }))
    };
    thing.turn_into(is("before"));
    let mut said: Vec<Ended> = vec![
        world.state(&["query", "one"]).run().succeeded(),
        world.with_file(&["diff"], &wants("wanted")).succeeded(),
        world.with_file(&["apply", "--dry-run"], &wants("wanted")).succeeded(),
        world.with_file(&["apply"], &wants("wanted")).succeeded(),
    ];
    assert_eq!(thing.values(), is("wanted"));
    thing.turn_into(is("meanwhile"));
    said.push(world.state(&["verify"]).run().exited(NOT_AS_DECLARED));
    // A service that quotes what it was given, and one that cannot be set back.
    for script in [vec![Quotes], vec![Fails, Quotes], vec![Well, Quotes]] {
        thing.script(script);
        said.push(world.with_file(&["apply"], &wants("again")).exited(NOT_AS_DECLARED));
        thing.script([]);
    }
    for wrong in [json!({ "secret": [MARKER] }), json!({ "label": { "of": MARKER } })] {
        said.push(world.with_file(&["apply"], &file(&json!({ "one": wrong }))).exited(INVALID));
    }
    let history = world.state(&["history"]).run().succeeded();
    let number = history.json()["applied"][0]["number"].to_string();
    said.push(history);
    said.push(world.state(&["rollback", &number]).run().succeeded());
    // Of a call by somebody they know what they gave; nobody else does.
    let address = world.bus.address();
    let call = ["--bus", &address, "plugin", "call", "one", "SetSecret", "--confirm"];
    let value = format!("\"{MARKER}-called\"");
    let _ = world.place.op(call).arguments([&value]).run().succeeded();
    assert_eq!(thing.values().secret, secret("called"));
    thing.script([Quotes]);
    let refused = world.place.op(call).arguments([&value]).run();
    assert!(refused.code() != Some(0) && refused.stderr.contains(MARKER), "{}", refused.stderr);

    says_no_secret(&said, world);
}

/// Nothing that was said has one, nor what is stored.
fn says_no_secret(said: &[Ended], world: World) {
    for ended in said {
        let text = String::from_utf8_lossy(&ended.stdout);
        assert!(!text.contains(MARKER), "{text}");
        assert!(!ended.stderr.contains(MARKER), "{}", ended.stderr);
    }
    let (ended, place) = world.end();
    assert!(!ended.stderr.contains(MARKER), "{}", ended.stderr);
    let journal = place.done(["journal", "export"]).text();
    assert!(journal.contains("SetSecret") && !journal.contains(MARKER), "{journal}");
    let checkpoint = place.done(["get", "checkpoint", "--collection", "declared"]).text();
    assert!(checkpoint.contains("\"label\"") && !checkpoint.contains(MARKER), "{checkpoint}");
    // Where they have to be, so that they can be applied again.
    let declared: Value = place.done(["get", "state.json", "--collection", "declared"]).json();
    assert!(declared.to_string().contains(MARKER), "{declared}");
    let store = Store::open(StoreConfig::new(place.store()).existing()).unwrap();
    let names: Vec<String> = store.collections().into_iter().map(|info| info.name).collect();
    drop(store);
    for name in names.iter().filter(|name| *name != "declared") {
        let exported = place.done(["cache", "export", "--collection", name]).text();
        assert!(!exported.contains(MARKER), "{name}: {exported}");
    }
}
