//! What the program says of the machine it is on, and how it is told where to be.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use serde_json::{Value, json};
use support::crash::campaign::skip;
use support::crash::disk::{Disk, FileSystem};
use support::program::Workplace;

const USAGE: i32 = 2;
const INVALID: i32 = 4;
const UNAVAILABLE: i32 = 10;
const DISK_LEN_BYTES: u64 = 1 << 30;

fn workplace() -> Workplace {
    Workplace::new(env!("CARGO_BIN_EXE_op-dbus"))
}

/// The state of each check, by its name.
fn states(answer: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let checks = answer["checks"].as_array().unwrap();
    checks.iter().map(|check| (text(&check["name"]), text(&check["state"]))).collect()
}

fn state_of(answer: &Value, name: &str) -> String {
    let found = states(answer).into_iter().find(|(known, _)| known == name);
    found.unwrap_or_else(|| panic!("no check of {name}: {answer}")).1
}

#[test]
fn the_doctor_names_what_is_wrong_and_what_to_do() {
    let place = workplace();
    let missing = place.op(["doctor", "--json"]).run().exited(UNAVAILABLE).json();
    assert_eq!(state_of(&missing, "store"), "problem");
    let _ = place.done(["put", "host", "--payload", "{}"]);
    let answer = place.done(["doctor", "--json"]).json();
    assert_eq!((&*state_of(&answer, "store"), &*state_of(&answer, "NUMA")), ("ok", "ok"));
    for name in ["processor", "open files", "clock", "settings"] {
        assert_eq!(state_of(&answer, name), "ok", "{answer}");
    }
    for check in answer["checks"].as_array().unwrap() {
        assert_eq!(check["state"] != "ok", check["remedy"].is_string(), "{check}");
    }
    for (level, said) in
        [("19", "from 1 to 15, not those above"), ("0", "from 1 to 15"), ("x", "15")]
    {
        let refused = place.op(["doctor", "--compression-level", level]).run().exited(USAGE);
        assert!(refused.stderr.contains(said), "{}", refused.stderr);
    }
}

#[test]
fn the_doctor_sees_mounts() {
    for (options, warned) in [
        ("compress=zstd:3", &[][..]),
        ("compress=zstd:9", &["compression of the mount"]),
        ("compress-force=zstd:3", &["compression of the mount"]),
        ("nodatasum", &["checksums"]),
    ] {
        let disk = match Disk::create_with(FileSystem::Btrfs, DISK_LEN_BYTES, options) {
            Ok(disk) => disk,
            Err(reason) => return skip("the doctor", &reason),
        };
        let (place, store) = (workplace(), disk.path().join("store"));
        let store = store.to_str().unwrap();
        let _ = place.op(["put", "host", "--payload", "{}", "--store", store]).run().succeeded();
        let answer = place.op(["doctor", "--json", "--store", store]).run().succeeded().json();
        let mut states = states(&answer);
        // What there is around the store is this machine's.
        let around = ["bus", "service", "polkit", "time", "model"];
        states.retain(|(name, state)| state != "ok" && !around.contains(&&name[..]));
        let names: Vec<&str> = states.iter().map(|(name, _)| &name[..]).collect();
        assert_eq!(names, warned, "{options}: {answer}");
    }
}

#[test]
fn the_doctor_changes_what_it_may_if_that_is_asked() {
    let disk = match Disk::create_with(FileSystem::Btrfs, DISK_LEN_BYTES, "compress=zstd:3") {
        Ok(disk) => disk,
        Err(reason) => return skip("the doctor, changing", &reason),
    };
    let (place, store) = (workplace(), disk.path().join("store"));
    let store = store.to_str().unwrap();
    let plain = ["put", "host", "--payload", "{}", "--store", store, "--btrfs-enable=false"];
    let _ = place.op(plain).run().succeeded();
    let set = ["btrfs", "property", "set", &format!("{store}/@vectors"), "compression", "zstd"];
    assert!(std::process::Command::new(set[0]).args(&set[1..]).status().unwrap().success());
    let doctor = |more: &[&str]| {
        let line = [&["doctor", "--json", "--store", store], more].concat();
        place.op(line).run().succeeded().json()
    };
    let before = doctor(&[]);
    for name in ["subvolumes", "compression of @vectors"] {
        assert_eq!(state_of(&before, name), "warning", "{before}");
    }
    assert_eq!(before["fixed"], json!([]));
    let fixed = doctor(&["--fix"]);
    for name in ["subvolumes", "compression of @vectors"] {
        assert_eq!(state_of(&fixed, name), "ok", "{fixed}");
    }
    assert_eq!(fixed["fixed"].as_array().unwrap().len(), 4, "{fixed}");
    assert_eq!(doctor(&["--fix"])["fixed"], json!([]));
    assert!(std::process::Command::new(set[0]).args(&set[1..]).status().unwrap().success());
    let fixed = doctor(&["--fix"]);
    assert_eq!(state_of(&fixed, "compression of @vectors"), "ok", "{fixed}");
    assert_eq!(fixed["fixed"].as_array().unwrap().len(), 1, "{fixed}");
    let _ = place.op(["get", "host", "--store", store]).run().succeeded();
}

#[test]
fn numa_nodes_are_told_by_options_and_variables() {
    let place = workplace();
    let _ = place.done(["put", "host", "--payload", "{}"]);
    let stats = |variables: &[(&str, &str)], arguments: &[&str]| {
        let mut run = place.op([&["stats", "--json"], arguments].concat());
        for (name, value) in variables {
            run = run.variable(name, value);
        }
        run.run()
    };
    let policy = |variables: &[(&str, &str)], arguments: &[&str]| {
        let numa = stats(variables, arguments).succeeded().json()["numa"].clone();
        assert!(numa["machine"].as_array().is_some_and(|nodes| !nodes.is_empty()));
        numa["policy"].as_str().unwrap().to_owned()
    };
    assert_eq!(policy(&[], &[]), "off");
    assert_eq!(policy(&[], &["--numa-node", "0"]), "bind");
    assert_eq!(policy(&[], &["--numa-enable"]), "bind");
    assert_eq!(policy(&[("OPDBUS_NUMA_ENABLE", "true")], &[]), "bind");
    assert_eq!(policy(&[("OPDBUS_NUMA_POLICY", "interleave")], &[]), "interleave");
    let off = [("OPDBUS_NUMA_ENABLE", "false"), ("OPDBUS_NUMA_NODE", "0")];
    assert_eq!(policy(&off, &[]), "off");
    let placed = stats(&[("OPDBUS_NUMA_CPU_LIST", "+0")], &[]).succeeded().json();
    assert_eq!(placed["numa"]["cpus"].as_array().unwrap().len(), 1);

    for (name, value) in [
        ("OPDBUS_NUMA_ENABLE", "perhaps"),
        ("OPDBUS_NUMA_POLICY", "near"),
        ("OPDBUS_NUMA_NODE", "0-"),
        ("OPDBUS_NUMA_CPU_LIST", "0,a"),
        ("OPDBUS_NUMA_NODES", "0"),
    ] {
        let _ = stats(&[(name, value)], &[]).exited(USAGE);
    }
    for option in ["--numa-node", "--numa-cpu-list"] {
        let refused = stats(&[], &[option, "8191"]).exited(INVALID);
        assert!(refused.stderr.contains("use some of "), "{}", refused.stderr);
    }
}

#[test]
fn far_memory_is_measured_or_said_not_to_be_there() {
    let place = workplace();
    let answer = place.done(["benchmark", "--numa-local", "1000", "--json"]).json();
    let answer = &answer["numa_local"];
    let (nodes, memory) = (&answer["nodes"], answer["memory"].as_array().unwrap());
    assert!(memory.iter().all(|row| row["latency_ns"].as_f64().is_some_and(|ns| ns > 0.0)));
    if nodes.as_array().unwrap().len() == 1 {
        assert_eq!(memory.len(), 1);
        let text = place.done(["benchmark", "--numa-local", "1000"]).text();
        assert!(text.contains("nothing is farther"), "{text}");
    }
}
