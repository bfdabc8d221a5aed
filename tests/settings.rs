//! The file of settings: what comes before what, what is refused and where, and what a service that
//! runs takes over.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::time::{Duration, Instant};

use op_dbus_daemon::{BusError, StateProxy};
use rustix::process::Signal;
use serde_json::Value;
use support::bus::{BusLimits, PrivateBus, Served};
use support::crash::campaign::skip;
use support::program::{Workplace, is_root};
use zbus::Connection;

/// Somebody who is not root, and in no group but one.
const UID: u32 = 65534;
const GID: u32 = 65534;
const PATIENCE: Duration = Duration::from_secs(60);

fn workplace() -> Workplace {
    Workplace::new(env!("CARGO_BIN_EXE_op-dbus"))
}

/// A setting as `config show` has it: its value, and where it comes from.
fn shown(shown: &Value, name: &str) -> (String, String) {
    let settings = shown["settings"].as_array().unwrap();
    let setting = settings.iter().find(|setting| setting["name"] == name).unwrap();
    (setting["value"].to_string(), setting["origin"].as_str().unwrap().to_owned())
}

#[test]
fn an_option_comes_before_its_variable_and_that_before_the_file() {
    let place = workplace();
    place.file("config.toml", "[cache]\npolicy = \"s3fifo\"\nmax_size_gb = 2\n");
    let show = |options: &[&str], variable: Option<&str>| {
        let line = ["config", "show", "--json", "--config", "config.toml"];
        let mut run = place.op(line).arguments(options);
        if let Some(value) = variable {
            run = run.variable("OPDBUS_CACHE_POLICY", value);
        }
        shown(&run.run().succeeded().json(), "cache.policy")
    };
    let is = |value: &str, origin: &str| (format!("\"{value}\""), origin.to_owned());
    assert_eq!(show(&[], None), is("s3fifo", "file"));
    assert_eq!(show(&[], Some("tinylfu")), is("tinylfu", "variable"));
    assert_eq!(show(&["--cache-policy", "lru"], Some("tinylfu")), is("lru", "option"));
    let without = place.op(["config", "show", "--json"]).run().succeeded().json();
    assert_eq!(shown(&without, "cache.policy"), is("lru", "default"));
    // What is shown is what counts, and can be read again.
    let text = place.done(["config", "show", "--config", "config.toml"]).text();
    place.file("again.toml", &text);
    place.done(["config", "check", "again.toml"]);
    assert_eq!(place.done(["config", "show", "--config", "again.toml"]).text(), text);
    let origins = place.done(["config", "show", "--origin", "--config", "config.toml"]).text();
    assert!(origins.contains("max_size_gb = 2  # config.toml:3\n"), "{origins}");
}

#[test]
fn the_file_counts_for_what_commands_do() {
    let place = workplace();
    place.file("documents.jsonl", "{\"key\":\"one\",\"payload\":1}\n");
    let store = place.store().parent().unwrap().join("elsewhere");
    let text =
        format!("[btrfs]\nbase_path = {:?}\n[cache]\npolicy = \"tinylfu\"\n", store.display());
    place.file("config.toml", text.replace('\\', ""));
    let run = |line: &[&str]| {
        let op = support::program::Invocation::new(env!("CARGO_BIN_EXE_op-dbus").as_ref());
        let config = store.with_file_name("config.toml");
        op.arguments(line).variable("OPDBUS_CONFIG", config).run().succeeded()
    };
    let documents = store.with_file_name("documents.jsonl");
    run(&["index", documents.to_str().unwrap()]);
    let stats = run(&["stats", "--json"]).json();
    assert_eq!(stats["collections"][0]["records"], 1, "{stats}");
    assert!(store.join("@state").is_dir());
}

#[test]
fn what_is_wrong_is_refused_with_its_place() {
    let place = workplace();
    let cases = [
        (
            "[cache]\nmax_size_gb = \"x\"\n",
            ":2:15: cache.max_size_gb is \"x\": it must be a number",
        ),
        ("[cache]\nmax_size_gb = 0.001\n", ":2:15: cache.max_size_gb is \"0.001\""),
        ("[cache]\npolicy = \"lur\"\n", ":2:10: cache.policy is \"lur\": it must be one of lru"),
        ("log_level = \"loud\"\n", ":1:13: log_level is \"loud\": it must be one of error, warn"),
        ("log_levle = \"info\"\n", ":1:1: unknown key \"log_levle\": did you mean \"log_level\"?"),
        ("config = \"x\"\n", ":1:1: unknown key \"config\""),
        ("[btrfs]\nsubvolumes = [\"@home\"]\n", ":2:14: btrfs.subvolumes is \"@home\""),
        ("[btrfs]\nsubvolumes = \"@cache\"\n", ":2:14: subvolumes in [btrfs] must be an array"),
        ("[btrfs]\ncompression_level = 19\n", "BTRFS takes levels of zstd from 1 to 15"),
        ("[daemon]\ncalls_at_once = 0\n", ":2:17: daemon.calls_at_once is \"0\""),
        ("[daemon.readers]\n\"a b\" = []\n", "cannot name a collection"),
        ("[numa]\nnode = \"0-\"\n", ":2:8: numa.node is \"0-\""),
        ("[numa]\npolicy = \"off\"\nnode = \"0\"\n", "the NUMA policy off goes with no nodes"),
        ("[cache\n", ":1:7: unclosed table"),
    ];
    for (text, problem) in cases {
        place.file("config.toml", text);
        let told = place
            .op(["config", "check", "config.toml", "--json"])
            .run()
            .refused(4, &["config.toml"]);
        assert!(told.contains(problem), "{text}: {told}");
    }
    // It is refused wherever it would count, in JSON where that is asked for.
    place.file("config.toml", "[cache]\npolicy = \"lur\"\n");
    let run = place.op(["stats", "--json", "--config", "config.toml"]).run();
    let error: Value = serde_json::from_str(&run.exited(4).stderr).unwrap();
    assert!(error["error"]["message"].as_str().unwrap().contains("config.toml:2:10"), "{error}");
    place.op(["stats", "--config", "nowhere.toml", "--json"]).run().refused(3, &["nowhere.toml"]);
    place.op(["config", "check", "nowhere.toml", "--json"]).run().refused(3, &["nowhere.toml"]);
    let rest = place.op(["config", "check"]).variable("OPDBUS_CONFIG", "/dev/null").run();
    assert!(rest.succeeded().text().contains("0 settings"));
}

async fn get(connection: &Connection) -> Result<String, BusError> {
    let state = StateProxy::new(connection).await.map_err(BusError::from)?;
    state.get("key".to_owned()).await
}

/// The service reads the file again when it is told to, and a wrong one changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn who_may_read_a_collection_follows_the_file() {
    const TEST: &str = "who_may_read_a_collection_follows_the_file";
    if !is_root() {
        return skip(TEST, &"only root can be somebody else");
    }
    let place = workplace();
    let group = nix_group();
    let settings =
        |readers: &str| format!("[daemon]\ngroup = {group:?}\n[daemon.readers]\n{readers}");
    place.file("config.toml", settings("state = []\n"));
    let bus = PrivateBus::start(BusLimits::Raised);
    let line = ["daemon", "--config", "config.toml", "--model", "no-model", "--plugins", "none"];
    let served = Served::start(place.op(line), &bus);
    let own = StateProxy::new(&bus.connect().await).await.unwrap();
    own.put("key".to_owned(), "{}".to_owned()).await.unwrap();
    let other = bus.connect_as(UID, &[GID]).await;
    let denied = |answer: Result<String, BusError>| {
        answer.is_err_and(|error| error.name() == "org.opdbus.Error.Denied")
    };
    assert!(denied(get(&other).await), "a collection of nobody's is read");
    assert_eq!(own.get("key".to_owned()).await.unwrap(), "{}");

    let until = async |readers: String, is_read: bool| {
        place.file("config.toml", readers);
        served.signal(Signal::HUP);
        let began = Instant::now();
        while get(&other).await.is_ok() != is_read {
            assert!(began.elapsed() < PATIENCE, "the settings are not read again");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    until(settings(&format!("state = [\"@{group}\"]\n")), true).await;
    // A wrong file: all stays as it was.
    place.file("config.toml", "[daemon.readers]\nstate = 1\n");
    served.signal(Signal::HUP);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(get(&other).await.is_ok());
    until(settings("state = [\"root\"]\n"), false).await;
    until(settings(""), true).await;
    let ended = tokio::task::block_in_place(|| served.terminate().succeeded());
    assert!(ended.stderr.contains("the settings stay as they were"), "{}", ended.stderr);
}

/// The name of the group that [`GID`] is.
fn nix_group() -> String {
    let groups = std::fs::read_to_string("/etc/group").unwrap();
    let of = |line: &str| line.split(':').nth(2) == Some(&GID.to_string());
    groups.lines().find(|line| of(line)).unwrap().split(':').next().unwrap().to_owned()
}
