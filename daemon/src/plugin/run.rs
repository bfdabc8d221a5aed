//! Running the executable of a plugin: confined by Landlock, or by systemd in what the plugin declares.
//!
//! The service never runs one itself. [`confine`] becomes the executable, with no more rights than
//! `[sandbox]` leaves it. [`serve`] answers at a socket that systemd listens to; as whom, and how
//! confined, the drop-ins say that [`units`] writes.

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use landlock::{
    ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, path_beneath_rules,
};
use op_dbus_engine::{Error, ErrorKind};
use op_dbus_formats::plugin::{PluginSource, Sandbox};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::load::{LoadedPlugin, check};
use super::registry::Plugins;

type Result<T, E = Error> = std::result::Result<T, E>;

/// Protections of the template that a plugin is without if it declares a capability. They are inherited
/// by all that it starts, containers, too, and keep it from the very thing that the capability is for.
const GIVEN_UP: [(&str, &str); 7] = [
    // Names of a machine, those of containers, too.
    ("CAP_SYS_ADMIN", "ProtectHostname"),
    // Containers of other architectures.
    ("CAP_SYS_ADMIN", "LockPersonality"),
    // Programs in containers that become another user.
    ("CAP_SETUID", "NoNewPrivileges"),
    // Files that make such programs, when systems are unpacked.
    ("CAP_FSETID", "RestrictSUIDSGID"),
    ("CAP_SYS_NICE", "RestrictRealtime"),
    ("CAP_SYS_TIME", "ProtectClock"),
    ("CAP_SYSLOG", "ProtectKernelLogs"),
];
/// Where directories are gone after each boot.
const RUN: &str = "/run/";
/// Where programs are looked for; nothing of the caller's environment is passed on.
pub(crate) const PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/current-system/sw/bin";
/// What any program reads: libraries, the loader's lists, time zones, users' names.
const READABLE: [&str; 9] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib64",
    "/etc",
    "/nix/store",
    "/dev",
    "/run/current-system",
];
/// What any program may write to.
const WRITABLE: [&str; 1] = ["/dev/null"];
/// How long a plugin's service waits for the next to ask; systemd starts it again for that one.
const IDLE: Duration = Duration::from_secs(60);
/// The template that plugins' sockets are instances of.
const SOCKET_UNIT: &str = "op-dbus-plugin@.socket";
/// Where it may be: the first place is that of packages, the second that of a system which puts its own
/// units together.
const UNITS: [&str; 2] = ["/usr/lib/systemd/system", "/etc/systemd/system"];

/// Becomes the executable of a plugin, confined to what it declares. Returns only if that fails.
///
/// # Errors
/// [`ErrorKind::Denied`] if the kernel confines nothing: then it must not run.
pub fn confine(directory: &Path) -> Result<Infallible> {
    let loaded = check(directory)?;
    let (executable, sandbox) = executable(&loaded)?;
    let restricted = restrict(&loaded, sandbox).map_err(|error| {
        Error::new(ErrorKind::Denied, format!("{} cannot be confined", loaded.plugin.name))
            .with_source(error)
            .with_remedy("let systemd run it: op-dbus-plugin@.socket")
    })?;
    if restricted == RulesetStatus::NotEnforced {
        let problem = format!("the kernel does not confine {} by Landlock", loaded.plugin.name);
        return Err(Error::new(ErrorKind::Denied, problem)
            .with_remedy("let systemd run it: op-dbus-plugin@.socket"));
    }
    let error = Command::new(&executable).env_clear().env("PATH", PATH).exec();
    Err(Error::io("run", &executable, error))
}

fn restrict(loaded: &LoadedPlugin, sandbox: &Sandbox) -> Result<RulesetStatus, RulesetError> {
    const FILES: ABI = ABI::V5;
    const NETWORK: ABI = ABI::V4;
    let ruleset = Ruleset::default().handle_access(AccessFs::from_all(FILES))?;
    let ruleset = match sandbox.network {
        true => ruleset,
        false => ruleset.handle_access(AccessNet::from_all(NETWORK))?,
    };
    let own = loaded.directory.iter().map(PathBuf::as_path);
    let read = READABLE.iter().map(Path::new).chain(sandbox.read.iter().map(Path::new)).chain(own);
    let written = WRITABLE.iter().map(Path::new).chain(sandbox.write.iter().map(Path::new));
    // What is not there needs no rule.
    let restricted = ruleset
        .create()?
        .add_rules(path_beneath_rules(read, AccessFs::from_read(FILES)))?
        .add_rules(path_beneath_rules(written, AccessFs::from_all(FILES)))?
        .restrict_self()?;
    Ok(restricted.ruleset)
}

fn executable(loaded: &LoadedPlugin) -> Result<(PathBuf, &Sandbox)> {
    let name = &loaded.plugin.name;
    match (&loaded.plugin.source, &loaded.directory) {
        (PluginSource::HandWritten { executable, sandbox, .. }, Some(directory)) => {
            Ok((directory.join(executable), sandbox))
        }
        _ => Err(Error::new(ErrorKind::Unsupported, format!("the plugin {name} runs nothing"))
            .with_remedy("name a hand-written one, with its directory")),
    }
}

/// Runs a plugin for each who connects to the socket that is standard input, until nobody has for a
/// while.
///
/// # Errors
/// [`ErrorKind::Invalid`] if there is no such socket; those of the plugin.
pub fn serve(plugins: &Path, name: &str) -> Result<()> {
    let plugins = Plugins::load(plugins);
    let (executable, _) = executable(plugins.loaded(name)?)?;
    let socket = Path::new("standard input");
    let listen = |error| Error::io("listen at", socket, error);
    let listener: OwnedFd = std::io::stdin().as_fd().try_clone_to_owned().map_err(listen)?;
    let listener = UnixListener::from(listener);
    listener.set_nonblocking(true).map_err(listen)?;
    let mut running = Vec::new();
    loop {
        running.retain_mut(|child: &mut std::process::Child| {
            child.try_wait().is_ok_and(|ended| ended.is_none())
        });
        if !wait(&listener).map_err(listen)? {
            if running.is_empty() {
                return Ok(());
            }
            continue;
        }
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(listen(error)),
        };
        stream.set_nonblocking(false).map_err(listen)?;
        let output: OwnedFd = stream.try_clone().map_err(listen)?.into();
        let child = Command::new(&executable)
            .env_clear()
            .env("PATH", PATH)
            .stdin(Stdio::from(OwnedFd::from(stream)))
            .stdout(Stdio::from(output))
            .spawn()
            .map_err(|error| Error::io("run", &executable, error))?;
        running.push(child);
    }
}

/// Waits for somebody to connect; says whether that came in time.
fn wait(listener: &UnixListener) -> std::io::Result<bool> {
    let timeout = Timespec { tv_sec: IDLE.as_secs() as i64, tv_nsec: 0 };
    let mut polled = [PollFd::new(listener, PollFlags::IN)];
    match poll(&mut polled, Some(&timeout)) {
        Ok(count) => Ok(count > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Writes what systemd is to know of hand-written plugins into a directory of units: as whom each runs,
/// what it may reach, and that its socket is listened to.
///
/// # Errors
/// Those of the file system.
pub fn units(plugins: &Path, directory: &Path) -> Result<Vec<String>> {
    let wants = directory.join("sockets.target.wants");
    let mut written = Vec::new();
    for (name, entry) in &Plugins::load(plugins).0 {
        let Ok(loaded) = &entry.loaded else { continue };
        let PluginSource::HandWritten { sandbox, .. } = &loaded.plugin.source else { continue };
        let drop_ins = directory.join(format!("op-dbus-plugin@{name}.service.d"));
        make(&drop_ins)?;
        make(&wants)?;
        let path = drop_ins.join("50-plugin.conf");
        std::fs::write(&path, drop_in(sandbox))
            .map_err(|error| Error::io("write", &path, error))?;
        let link = wants.join(format!("op-dbus-plugin@{name}.socket"));
        match symlink(socket_unit(), &link) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(Error::io("create", &link, error));
            }
            _ => written.push(name.clone()),
        }
    }
    Ok(written)
}

fn socket_unit() -> PathBuf {
    let mut places = UNITS.iter().map(|place| Path::new(place).join(SOCKET_UNIT));
    places.find(|path| path.exists()).unwrap_or_else(|| Path::new(UNITS[0]).join(SOCKET_UNIT))
}

fn make(directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory).map_err(|error| Error::io("create", directory, error))
}

/// Every value was checked when the plugin was read: names of users and capabilities, and absolute
/// paths. In a unit, paths have more characters with a meaning.
fn drop_in(sandbox: &Sandbox) -> String {
    let paths = |paths: &[String]| {
        let quoted = paths.iter().map(|path| {
            let path = path.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%");
            format!("\"-{path}\"")
        });
        quoted.collect::<Vec<_>>().join(" ")
    };
    let capabilities = sandbox.capabilities.join(" ");
    let declares = |wanted: &str| sandbox.capabilities.iter().any(|declared| declared == wanted);
    let given_up = GIVEN_UP.iter().filter(|(capability, _)| declares(capability));
    let given_up: String = given_up.map(|(_, protection)| format!("{protection}=no\n")).collect();
    // Root has them without, and what it starts would have them to hand on to other users.
    let ambient = if sandbox.user == "root" { "" } else { &capabilities };
    let network = if sandbox.network { "no" } else { "yes" };
    format!(
        "[Service]\nUser={}\nSupplementaryGroups={}\nCapabilityBoundingSet={capabilities}\n\
         AmbientCapabilities={ambient}\nReadOnlyPaths={}\nReadWritePaths={}\n\
         PrivateNetwork={network}\nRuntimeMaxSec=infinity\n{given_up}{}",
        sandbox.user,
        sandbox.groups.join(" "),
        paths(&sandbox.read),
        paths(&sandbox.write),
        made(sandbox),
    )
}

/// Makes directories directly in `/run` that a plugin of root writes to, before it is confined: what is
/// not there then cannot be written to, and root's own programs make theirs when they need them. For
/// other users that is up to whoever installs what the directory is for.
fn made(sandbox: &Sandbox) -> String {
    let is_plain = |name: &&str| {
        name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let names = sandbox.write.iter().filter_map(|path| path.strip_prefix(RUN)).filter(is_plain);
    let names = names.filter(|name| !name.is_empty() && sandbox.user == "root");
    let mkdir = program("mkdir");
    let make = |name| format!("ExecStartPre=+{mkdir} --parents --mode=755 {RUN}{name}\n");
    names.map(make).collect()
}

/// Where a program is. systemd wants it named in full, and not every system has a `/bin` of them.
fn program(name: &str) -> String {
    let mut places = PATH.rsplit(':').map(|directory| format!("{directory}/{name}"));
    places.find(|path| Path::new(path).exists()).unwrap_or_else(|| format!("/bin/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn units_say_what_a_plugin_declares() {
        let directory = tempfile::tempdir().unwrap();
        let plugins = directory.path().join("plugins/lamp");
        fs::create_dir_all(&plugins).unwrap();
        let text = "[plugin]\nname = \"lamp\"\nversion = \"1\"\nsource = \"hand-written\"\n\
                    [sandbox]\nuser = \"lamp\"\ngroups = [\"video\"]\nwrite = [\"/var/lib/a%b\"]\n\
                    capabilities = [\"CAP_NET_ADMIN\"]\n";
        fs::write(plugins.join("plugin.toml"), text).unwrap();
        let out = directory.path().join("units");
        let written = units(&directory.path().join("plugins"), &out).unwrap();
        assert_eq!(written, ["lamp"]);
        // Once more is no other.
        units(&directory.path().join("plugins"), &out).unwrap();
        let drop_in = out.join("op-dbus-plugin@lamp.service.d/50-plugin.conf");
        let drop_in = fs::read_to_string(drop_in).unwrap();
        for line in [
            "User=lamp",
            "SupplementaryGroups=video",
            "AmbientCapabilities=CAP_NET_ADMIN",
            "ReadWritePaths=\"-/var/lib/a%%b\"",
            "PrivateNetwork=yes",
        ] {
            assert!(drop_in.lines().any(|found| found == line), "{line}\n{drop_in}");
        }
        assert!(!drop_in.contains("=no") && !drop_in.contains("mkdir"), "{drop_in}");
        assert!(out.join("sockets.target.wants/op-dbus-plugin@lamp.socket").is_symlink());
    }

    #[test]
    fn a_plugin_that_makes_containers_can() {
        let text = include_str!("../../plugins/lxc/plugin.toml");
        let plugin = op_dbus_formats::plugin::parse(text.as_bytes()).unwrap();
        let PluginSource::HandWritten { mut sandbox, .. } = plugin.source else { panic!("{text}") };
        let drop_in = super::drop_in(&sandbox);
        for line in [
            "ProtectHostname=no",
            "LockPersonality=no",
            "NoNewPrivileges=no",
            "RestrictSUIDSGID=no",
            "AmbientCapabilities=",
            "ExecStartPre=+/bin/mkdir --parents --mode=755 /run/lxc",
        ] {
            assert!(drop_in.lines().any(|found| found == line), "{line}\n{drop_in}");
        }
        for protection in ["RestrictRealtime", "ProtectClock", "ProtectKernelLogs"] {
            assert!(!drop_in.contains(protection), "{drop_in}");
        }
        sandbox.write =
            ["/run", "/run/", "/run/a/b", "/run/a b", "/running"].map(String::from).into();
        assert_eq!(made(&sandbox), "");
        sandbox.write = vec!["/run/a".to_owned()];
        sandbox.user = "lamp".to_owned();
        assert_eq!(made(&sandbox), "");
    }
}
