//! The packages: what their `plugin.toml` says can be read, and fits the executables.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod support;

use std::fs;
use std::path::Path;

use op_dbus_formats::plugin::{self, Plugin, PluginSource};
use serde_json::json;
use support::{Programs, Running, error};

fn package(name: &str) -> Plugin {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name).join("plugin.toml");
    plugin::parse(&fs::read(&path).unwrap()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn each_package_names_its_executable_and_what_it_needs() {
    for (name, executable) in [
        ("lxc", env!("CARGO_BIN_EXE_op-dbus-plugin-lxc")),
        ("netmaker", env!("CARGO_BIN_EXE_op-dbus-plugin-netmaker")),
    ] {
        let plugin = package(name);
        assert_eq!(
            (plugin.name.as_str(), plugin.version.as_str()),
            (name, env!("CARGO_PKG_VERSION"))
        );
        let PluginSource::HandWritten { executable: named, sandbox, .. } = &plugin.source else {
            panic!("{name} was written by hand");
        };
        assert_eq!(Path::new(executable).file_name().unwrap().to_str().unwrap(), named);
        assert_eq!((sandbox.user.as_str(), sandbox.network), ("root", true));
        assert!(sandbox.capabilities.iter().any(|capability| capability == "CAP_NET_ADMIN"));
        assert!(!plugin.dependencies.programs.is_empty());
        let can = plugin.capabilities;
        assert!(can.query && can.diff && can.apply && can.verify);
    }
    let tokens = &package("netmaker").secret;
    assert!(tokens[0].covers(&["networks", "office", "token"]));
}

/// The configuration of a package is one that its executable takes.
#[test]
fn each_configuration_is_taken() {
    use op_dbus_plugins::{Lxc, Netmaker, Plugin as _};

    assert!(Lxc::configure(&package("lxc").config).is_ok());
    assert!(Netmaker::configure(&package("netmaker").config).is_ok());
    let wrong = serde_json::json!({"lxcpath": "relative"});
    assert!(Lxc::configure(&wrong).is_err());
}

/// What the README shows works as it says.
#[test]
fn the_example_of_the_readme_is_a_plugin() {
    let readme = include_str!("../README.md");
    let block = |language: &str| {
        let start = readme.split_once(&format!("```{language}\n")).unwrap().1;
        start.split_once("\n```").unwrap().0
    };
    let plugin = plugin::parse(block("toml").as_bytes()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(plugin.name.as_str(), "motd");
    let programs = Programs::new(&[]);
    let (script, motd) = (programs.state().join("motd.py"), programs.state().join("motd"));
    fs::write(&script, block("python")).unwrap();
    fs::write(&motd, "old").unwrap();
    programs.write("motd", &format!("exec python3 '{}'", script.display()));
    let executable = programs.bin().join("motd");
    let mut plugin =
        Running::start(executable.to_str().unwrap(), "motd", &json!({"file": motd.to_str()}));
    let before = plugin.query(None);
    assert_eq!(before, json!({"text": "old"}));
    let desired = json!({"text": "new"});
    let changes = plugin.diff(&desired)["changes"].take();
    assert_eq!(changes, plugin.verify(&desired)["differences"]);
    let answer = plugin.ask(json!({"verb": "apply", "desired": desired})).1;
    assert_eq!(answer["applied"], changes);
    assert_eq!(plugin.verify(&desired)["differences"], json!([]));
    assert_eq!(error(&plugin.line("nonsense")).0, "invalid");
    plugin.ask(json!({"verb": "apply", "desired": before}));
    assert_eq!(plugin.query(None), before);
    fs::remove_file(&motd).unwrap();
    assert_eq!(error(&plugin.ask(json!({"verb": "query"})).1).0, "io");
    assert_eq!(plugin.end(), (Some(0), String::new()));
}
