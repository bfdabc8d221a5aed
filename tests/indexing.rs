//! The service indexes what is on its bus, the state and the journal: found by those who ask, kept
//! up to date, and not led astray by services that mean no good.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[path = "indexing/hostile.rs"]
mod hostile;
#[path = "indexing/world.rs"]
mod world;

use std::time::Duration;

use op_dbus_daemon::StateProxy;
use serde_json::{Value, json};
use world::{World, block_on, payloads};
use zbus::interface;

/// How long a name is left alone that was indexed, and some more.
const AGAIN: Duration = Duration::from_secs(90);

/// A lamp.
struct Lamp;

#[interface(name = "com.example.Lamp1")]
impl Lamp {
    /// Makes the lamp shine brighter or darker.
    async fn set_brightness(&self, percent: u32) {
        let _ = percent;
    }

    /// Lets the lamp go on and off a few times.
    async fn blink(&self) {}

    /// How bright the lamp is.
    #[zbus(property)]
    async fn brightness(&self) -> u32 {
        50
    }
}

/// The same lamp, later.
struct LampThatCannotBlink;

#[interface(name = "com.example.Lamp1")]
impl LampThatCannotBlink {
    /// Makes the lamp shine brighter or darker.
    async fn set_brightness(&self, percent: u32) {
        let _ = percent;
    }
}

/// A clock.
struct Clock;

#[interface(name = "com.example.Clock1")]
impl Clock {
    /// Rings every morning at this time.
    async fn set_alarm(&self, _hour: u32) {}
}

#[test]
fn what_is_on_the_bus_is_found_and_followed() {
    let world = World::new("");
    let lamp = world.connect();
    block_on(lamp.object_server().at("/com/example/lamps/1", Lamp)).unwrap();
    block_on(lamp.request_name("com.example.Lamp")).unwrap();
    let served = world.serve(&[]);
    let hit =
        world.wait_for("make the light less bright", "method:com.example.Lamp1.SetBrightness");
    let payload = &hit["payload"];
    assert_eq!(payload["service"], "com.example.Lamp");
    assert_eq!(payload["path"], "/com/example/lamps/1");
    assert_eq!((&payload["risk"], &payload["live"]), (&json!("unknown"), &json!(true)));
    assert_eq!(
        payload["example"],
        "busctl call com.example.Lamp /com/example/lamps/1 com.example.Lamp1 SetBrightness 'u' PERCENT"
    );
    assert_eq!(payload["documentation"], "Makes the lamp shine brighter or darker.");
    // The bus itself, with what is said about it and nowhere else about other objects.
    let hit = world.wait_for("which names are on the bus", "method:org.freedesktop.DBus.ListNames");
    assert_eq!(hit["payload"]["risk"], "safe");

    // Another time it has other objects, and less of the old one.
    block_on(lamp.release_name("com.example.Lamp")).unwrap();
    block_on(async {
        let server = lamp.object_server();
        server.remove::<Lamp, _>("/com/example/lamps/1").await.unwrap();
        server.at("/com/example/lamps/1", LampThatCannotBlink).await.unwrap();
        server.at("/com/example/clock", Clock).await.unwrap();
        lamp.request_name("com.example.Lamp").await.unwrap();
    });
    let alarm = "method:com.example.Clock1.SetAlarm";
    let hit = world.wait_so_long("wake me up in the morning", alarm, AGAIN);
    assert_eq!(hit["payload"]["path"], "/com/example/clock");
    world.end(served);
    let members = payloads(&world.export("dbus"));
    assert!(members.contains_key("method:com.example.Lamp1.SetBrightness"));
    assert!(!members.contains_key("method:com.example.Lamp1.Blink"), "it has gone");
    assert!(!members.contains_key("property:com.example.Lamp1.Brightness"), "it has gone");
    // What every object has is told of once, as the bus has it.
    let peer = &members["method:org.freedesktop.DBus.Peer.Ping"];
    assert_eq!(peer["service"], "org.freedesktop.DBus");

    // Nothing has changed: nothing is embedded, and what is gone from the bus stays.
    drop(lamp);
    let served = world.serve(&[]);
    world.wait_for_pass();
    let log = world.end(served);
    let passes: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("indexed PLUGINS=") || line.contains("indexed SERVICES="))
        .collect();
    assert!(passes.len() >= 2, "{log}");
    assert!(passes.iter().all(|line| line.contains("EMBEDDED=0")), "{passes:?}");
    assert_eq!(payloads(&world.export("dbus")), members);
}

#[test]
fn a_service_that_does_not_run_is_found_by_its_file_and_not_started() {
    let world = World::new("com.example.Sleeper");
    world.place.file(
        "interfaces/sleeper.xml",
        "<node><interface name='com.example.Sleeper.Bed'><!-- Lies down to rest. -->
         <method name='LieDown'/></interface></node>",
    );
    world.place.file("interfaces/broken.xml", "<node><interface");
    world.place.file("interfaces/notes.txt", "no XML");
    let served = world.serve(&[]);
    let hit = world.wait_for("go to sleep", "method:com.example.Sleeper.Bed.LieDown");
    assert_eq!(hit["payload"]["service"], "com.example.Sleeper");
    assert_eq!(hit["payload"]["path"], Value::Null);
    world.wait_for_pass();
    world.end(served);
    assert!(!world.place.path().join("started").exists(), "it was started by being indexed");
}

#[test]
fn services_are_asked_only_if_they_may_be() {
    let world = World::new("");
    let lamp = world.connect();
    block_on(lamp.object_server().at("/lamp", Lamp)).unwrap();
    block_on(lamp.request_name("com.example.Lamp")).unwrap();
    let file =
        "<node><interface name='com.example.Lamp.Bulb'><method name='Glow'/></interface></node>";
    world.place.file("interfaces/lamp.xml", file);
    let served = world.serve(&["--index-live=false"]);
    let hit = world.wait_for("glow", "method:com.example.Lamp.Bulb.Glow");
    assert_eq!(hit["payload"]["service"], "com.example.Lamp");
    world.end(served);
    let members = payloads(&world.export("dbus"));
    assert_eq!(members.len(), 1, "{members:?}");
}

const PLUGIN: &str = "[plugin]\nname = \"hosts\"\nversion = \"1.0.0\"\nsource = \"hand-written\"\n\
    description = \"Names of machines and their addresses.\"\n";

#[test]
fn plugins_documents_and_the_journal_have_their_records() {
    let world = World::new("");
    world.place.file("plugins/hosts/plugin.toml", PLUGIN);
    let document = json!({
        "hostname": "web1", "mtu": 1500,
        "wifi": { "ssid": "attic", "psk": "SECRET1" },
        "database": { "admin_password": "SECRET2", "url": "postgres://a:SECRET3@db/x" },
        "env": [{ "name": "API_TOKEN", "value": "SECRET4" }],
    });
    let put = |key: &str, document: &Value| {
        let _ = world.place.done(["put", key, "--payload", &document.to_string()]);
    };
    put("hosts/web1", &document);
    put("hosts/gone", &json!({ "hostname": "gone" }));
    let served = world.serve(&[]);
    let hit = world.wait_in("state-index", "the machine with the network name attic", "hosts/web1");
    assert_eq!(hit["payload"], json!({ "collection": "state", "key": "hosts/web1" }));
    let hit = world.wait_in("plugins", "addresses of machines", "hosts");
    assert_eq!(hit["payload"]["version"], "1.0.0");
    // What is put while it runs is indexed, and journaled.
    let client = world.connect();
    block_on(async {
        let state = StateProxy::new(&client).await.unwrap();
        let document = json!({ "hostname": "printer", "paper": "empty", "pass-phrase": "SECRET5" });
        state.put("hosts/printer".to_owned(), document.to_string()).await.unwrap();
    });
    world.wait_in("state-index", "no paper left", "hosts/printer");
    let hit =
        world.wait_in("journal", "who put a document into the state", "put state hosts/printer");
    assert_eq!(hit["payload"]["kind"], "outcome");
    let text = hit["text"].as_str().unwrap();
    assert!(text.starts_with("user ") && text.ends_with("; it succeeded"), "{text}");
    world.end(served);
    let exported = world.export("state-index");
    assert!(exported.contains("attic") && exported.contains("1500"), "{exported}");
    for collection in ["state-index", "journal"] {
        assert!(!world.export(collection).contains("SECRET"), "{collection} has secrets");
    }
    assert!(!world.export("journal").contains("\"kind\":\"intent\""));

    // What is removed while it does not run is not found any more.
    let _ = world.place.done(["remove", "hosts/gone"]);
    std::fs::remove_dir_all(world.place.path().join("plugins/hosts")).unwrap();
    let served = world.serve(&[]);
    world.wait_until(AGAIN, || {
        let records = world.query("state-index", "gone");
        (!records.is_empty() && records.iter().all(|hit| hit["key"] != "hosts/gone")).then_some(())
    });
    world.wait_for_pass();
    world.end(served);
    let keys: Vec<String> = payloads(&world.export("state-index")).into_keys().collect();
    assert_eq!(keys, ["hosts/printer", "hosts/web1"]);
    assert_eq!(world.export("plugins"), "");
}

#[test]
fn without_a_model_records_are_there_all_the_same() {
    let world = World::without_model();
    let lamp = world.connect();
    block_on(lamp.object_server().at("/lamp", Lamp)).unwrap();
    block_on(lamp.request_name("com.example.Lamp")).unwrap();
    let served = world.serve(&[]);
    world.wait_for_pass();
    let log = world.end(served);
    assert_eq!(log.matches("until there is a model").count(), 1, "{log}");
    let members = payloads(&world.export("dbus"));
    assert_eq!(members["method:com.example.Lamp1.Blink"]["path"], "/lamp");
    assert!(members.keys().all(|key| !key.starts_with("phrase:")));
}
