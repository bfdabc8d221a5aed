//! What a system gets from the module: its units and files, really built, and started in a container.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::crash::campaign::skip;
use support::crash::disk::{Disk, FileSystem};
use support::scratch;

use super::nix::{Nixpkgs, sources};

/// Configurations whose units are looked at.
const CONFIGURATIONS: [&str; 6] =
    ["minimal", "full", "dual-socket-gpu", "single-socket", "small", "vm"];
const UNITS: [&str; 6] = [
    "operation-dbus.service",
    "operation-dbus-state.service",
    "op-dbus-snapshot.service",
    "op-dbus-snapshot.timer",
    "op-dbus-plugin@.service",
    "op-dbus-plugin@.socket",
];
/// Those that systemd says how exposed they are, of 100: more is too much.
const SERVICES: [&str; 3] = [UNITS[0], UNITS[1], UNITS[2]];
const EXPOSURE_MAX: &str = "--threshold=10";
/// What each configuration is refused by, when the system is built.
const BADLY_BUILT: [(&str, &str); 7] = [
    ("setting-unknown", "unknown key \"max_size\" in [cache]: did you mean \"max_size_gb\"?"),
    ("setting-wrong", "cache.policy is \"lur\": it must be one of lru"),
    ("variable-unknown", "the environment variable OPDBUS_CACHE_MAX_SIZE means nothing here"),
    ("variable-wrong", "it must be a number of gigabytes"),
    ("plugin-twice", "two plugins are called lamp; leave one out"),
    ("plugin-misspelt", "unknown key \"versoin\" in [plugin]"),
    ("plugin-without-file", "plugin.toml: No such file"),
];

const DISK_LEN_BYTES: u64 = 1 << 30;
const MOUNT_OPTIONS: &str = "compress=zstd:3,user_subvol_rm_allowed";
const SECONDS: &str = "240";
/// How container.sh ends where there can be no container.
const CANNOT: i32 = 77;
/// Things that must hold, at least: a script that ends early must not pass.
const PASSED_COUNT_MIN: usize = 50;

/// nixpkgs, where something can be built with it.
fn builder() -> Result<Nixpkgs, String> {
    let nixpkgs = Nixpkgs::find()?;
    if !scratch::data_directory().join("models/all-MiniLM-L6-v2/model.onnx").exists() {
        return Err("no model: make setup".to_owned());
    }
    plugins_beside(Path::new(env!("CARGO_BIN_EXE_op-dbus")).parent().unwrap());
    Ok(nixpkgs)
}

/// Builds the executables of the plugins, which are another package's: cargo may not have built them since
/// they were changed.
fn plugins_beside(directory: &Path) {
    let profile = match directory.file_name().unwrap().to_str().unwrap() {
        "debug" => "dev",
        profile => profile,
    };
    let output = Command::new(env!("CARGO"))
        .args(["build", "--locked", "--package", "op-dbus-plugins", "--bins", "--profile", profile])
        .arg("--target-dir")
        .arg(directory.parent().unwrap())
        .current_dir(sources())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn built(nixpkgs: &Nixpkgs, configuration: &str) -> PathBuf {
    let attribute = format!("systems.{configuration}.files");
    nixpkgs.build(&nixpkgs.module(&attribute)).unwrap_or_else(|said| panic!("{said}"))
}

/// Runs systemd-analyze on units of a directory; it must say nothing. Its exit code says less.
fn analyze(units: &Path, verb: &[&str], names: &[&str]) -> String {
    let mut path = OsString::from(units);
    // And where systemd looks otherwise.
    path.push(":");
    let output = Command::new("systemd-analyze")
        .args(verb)
        .args(names)
        .env("SYSTEMD_UNIT_PATH", path)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{verb:?}: {said}");
    said
}

/// All with one store: much is copied into it.
#[test]
fn what_a_system_gets_is_right() {
    let nixpkgs = match builder() {
        Ok(nixpkgs) => nixpkgs,
        Err(reason) => return skip("what a system gets from the module", &reason),
    };
    units_are_the_shipped_ones(&nixpkgs);
    systemd_has_nothing_against_the_units(&nixpkgs);
    what_is_wrong_in_files_is_refused(&nixpkgs);
    the_service_runs_as_it_is_configured(&nixpkgs);
}

fn systemd_has_nothing_against_the_units(nixpkgs: &Nixpkgs) {
    for configuration in CONFIGURATIONS {
        let units = built(nixpkgs, configuration).join("etc/systemd/system");
        // One alone is never right, and each may have another on its way.
        for unit in UNITS {
            assert_eq!(analyze(&units, &["verify"], &[unit]), "", "{configuration}: {unit}");
        }
        let verb = ["security", "--offline=true", "--no-pager", EXPOSURE_MAX];
        let said = analyze(&units, &verb, &SERVICES);
        for line in said.lines().filter(|line| line.contains("Overall exposure")) {
            println!("{configuration}: {line}");
        }
    }
}

/// The units of the package are those of every distribution, but for paths.
fn units_are_the_shipped_ones(nixpkgs: &Nixpkgs) {
    let directory = built(nixpkgs, "minimal").join("etc/systemd/system");
    for unit in UNITS.iter().filter(|unit| **unit != "operation-dbus-state.service") {
        let packaged = fs::read_to_string(directory.join(unit)).unwrap();
        let shipped = fs::read_to_string(sources().join("daemon/system").join(unit)).unwrap();
        // Of a path to a program its name.
        let plain_word = |word: &str| word.rsplit("/bin/").next().unwrap_or_default().to_owned();
        let plain_line =
            |line: &str| line.split_inclusive([' ', '=']).map(plain_word).collect::<String>();
        let plain = |text: &str| text.lines().map(plain_line).collect::<Vec<_>>();
        assert_eq!(plain(&packaged), plain(&shipped), "{unit}");
        let code = packaged.lines().filter(|line| !line.starts_with('#'));
        let foreign = |line: &&str| line.contains("=/usr/") || line.contains("=/bin/");
        assert_eq!(code.filter(foreign).collect::<Vec<_>>(), Vec::<&str>::new(), "{unit}");
    }
}

/// What evaluates, and is refused when a system is built.
fn what_is_wrong_in_files_is_refused(nixpkgs: &Nixpkgs) {
    for (name, says) in BADLY_BUILT {
        let attribute = format!("badly-built.{name}");
        match nixpkgs.build(&nixpkgs.module(&attribute)) {
            Ok(path) => panic!("{name} is built: {}", path.display()),
            Err(said) => assert!(said.contains(says), "{name}: {said}"),
        }
    }
}

/// The full configuration, as systemd has it: what each option does is looked at in `system.sh`.
fn the_service_runs_as_it_is_configured(nixpkgs: &Nixpkgs) {
    const TEST: &str = "the configured service in a system";
    let disk = match Disk::create_with(FileSystem::Btrfs, DISK_LEN_BYTES, MOUNT_OPTIONS) {
        Ok(disk) => disk,
        Err(reason) => return skip(TEST, &reason),
    };
    let system = built(nixpkgs, "full");
    let shared = scratch::on_disk();
    fs::copy(sources().join("tests/nixos/system.sh"), shared.path().join("run.sh")).unwrap();
    copy_parts(&system, shared.path());
    let output = Command::new(sources().join("tests/container.sh"))
        .args(["--seconds", SECONDS, "--bind"])
        .args([disk.path(), Path::new("/var/lib/op-dbus")])
        .arg("--bind-ro")
        .args([nixpkgs.store(), nixpkgs.store()])
        .arg(shared.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(CANNOT) {
        return skip(TEST, &said.trim());
    }
    let log = fs::read(shared.path().join("log")).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    println!("{log}");
    if let Some(reason) = log.lines().find_map(|line| line.strip_prefix("SKIPPED: ")) {
        return skip(TEST, &reason);
    }
    assert!(output.status.success(), "{}: {said}", output.status);
    let passed_count = log.lines().filter(|line| line.starts_with("ok ")).count();
    assert!(passed_count >= PASSED_COUNT_MIN, "only {passed_count} things were looked at");
}

/// What both scripts need beside them.
fn copy_parts(system: &Path, to: &Path) {
    fs::copy(sources().join("tests/system/holds.sh"), to.join("holds.sh")).unwrap();
    fs::copy(sources().join("tests/nixos/activate.sh"), to.join("activate.sh")).unwrap();
    fs::write(to.join("system"), system.to_str().unwrap()).unwrap();
}

/// The service on the second node of a machine of two, which `OPDBUS_TEST_NUMA_MACHINE` starts as for
/// `numa.rs`: where it runs and where its memory lies.
#[test]
fn a_machine_of_two_nodes() {
    const TEST: &str = "the configured service on a machine of two nodes";
    let Some(machine) = std::env::var_os("OPDBUS_TEST_NUMA_MACHINE").map(PathBuf::from) else {
        return skip(TEST, &"OPDBUS_TEST_NUMA_MACHINE names none");
    };
    let nixpkgs = match builder() {
        Ok(nixpkgs) => nixpkgs,
        Err(reason) => return skip(TEST, &reason),
    };
    let system = built(&nixpkgs, "two-nodes");
    let directory = scratch::on_disk();
    let (payload, out) = (directory.path().join("payload"), directory.path().join("out"));
    fs::create_dir_all(payload.join("lib")).unwrap();
    copy_parts(&system, &payload);
    fs::copy(sources().join("tests/nixos/machine.sh"), payload.join("test.sh")).unwrap();
    fs::write(payload.join("store-path"), nixpkgs.store().to_str().unwrap()).unwrap();
    copy_closure(&nixpkgs, &system, &payload.join("store"));
    let program = Path::new(env!("CARGO_BIN_EXE_op-dbus"));
    for library in libraries(program) {
        fs::copy(&library, payload.join("lib").join(library.file_name().unwrap())).unwrap();
    }
    let status = Command::new("sh")
        .arg(machine.join("run-systemd.sh"))
        .args([&payload, &out])
        .env("T", "1500")
        .status()
        .unwrap();
    let log = fs::read_to_string(out.join("out/log")).unwrap_or_default();
    println!("{log}");
    assert!(status.success(), "{status}");
    let passed = fs::read_to_string(out.join("out/passed")).unwrap_or_default();
    assert_eq!(passed.trim(), "yes");
}

/// Copies what a path of the store needs, programs without what only debuggers read: the machine's disk is
/// small.
fn copy_closure(nixpkgs: &Nixpkgs, path: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for path in nixpkgs.needed_by(path) {
        let copied = to.join(path.file_name().unwrap());
        run(Command::new("cp").args(["-r", "--no-dereference"]).arg(&path).arg(&copied));
        let program = copied.join("bin/op-dbus");
        if program.exists() && !copied.is_symlink() {
            run(Command::new("chmod").args(["-R", "u+w"]).arg(&copied));
            run(Command::new("strip").arg(&program));
        }
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// The shared libraries of a program.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let paths = text.lines().filter_map(|line| line.split_whitespace().nth(2).map(PathBuf::from));
    paths.filter(|path| path.is_absolute()).collect()
}
