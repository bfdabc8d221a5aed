//! What a store needs around it: processor, model, bus, who decides, limits, clock.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use op_dbus_daemon::Bus;
use op_dbus_engine::{Embedder, distance};
use rustix::process::{Resource, getrlimit};
use zbus::fdo::DBusProxy;
use zbus::{Connection, Proxy};

use super::Check;
use crate::client::Client;
use crate::config::Config;
use crate::output::{duration, utc};

/// The service, and who decides for it.
const SERVICE: &str = "org.opdbus";
const POLKIT: &str = "org.freedesktop.PolicyKit1";
const POLICY: &str = "/usr/share/polkit-1/actions/org.opdbus.policy";
/// Files that a store and the service have open at most, and some more.
const FILES_COUNT_MIN: u64 = 1024;
/// No clock of a machine that runs this is before it: the first of January 2026.
const CLOCK_UNIX_S_MIN: u64 = 1_767_225_600;
/// How long somebody on a bus may take.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn checks(config: &Config) -> Vec<Check> {
    let mut checks = vec![processor(), settings(config), model(config), limits(), clock()];
    checks.extend(bus(config));
    checks
}

fn processor() -> Check {
    let name = distance::kernels().name;
    match name {
        "scalar" => Check::warning(
            "processor",
            "vectors are compared number by number: it has none of the instructions that are used",
            "let the virtual machine see the host's processor, if it is one (qemu: -cpu host)",
        ),
        name => Check::ok("processor", format!("vectors are compared by {name}")),
    }
}

fn settings(config: &Config) -> Check {
    match crate::settings::File::find(config.settings_path()) {
        Ok(Some(file)) => {
            let (count, path) = (file.settings.len(), file.path.display());
            Check::ok("settings", format!("{count} in {path}"))
        }
        Ok(None) => Check::ok("settings", "no file of them"),
        Err(error) => Check::warning(
            "settings",
            error.message(),
            error.remedy().unwrap_or("see op-dbus config check"),
        ),
    }
}

/// Loads the model and computes a vector, as the first query would.
fn model(config: &Config) -> Check {
    const NAME: &str = "model";
    if !config.is_model_enabled() {
        return Check::ok(NAME, "none is wanted, so texts cannot be searched for".to_owned());
    }
    let began = Instant::now();
    let embedded = Embedder::open(config.embedder(), None).and_then(|embedder| {
        let embeddings = embedder.embed(&["restart the network"])?;
        let dimensions_count = embeddings.first().map_or(0, |it| it.vector.len());
        let provider = embedder.running_provider().map(|it| it.to_string()).unwrap_or_default();
        Ok((embedder.name().to_owned(), provider, dimensions_count))
    });
    match embedded {
        Ok((name, provider, dimensions_count)) => {
            let took = duration(began.elapsed());
            let found =
                format!("{name} by {provider}, {dimensions_count} dimensions, ready in {took}");
            Check::ok(NAME, found)
        }
        Err(error) => Check::warning(
            NAME,
            format!("texts cannot be searched for: {}", error.chain()),
            error.remedy().unwrap_or("op-dbus model list"),
        ),
    }
}

fn limits() -> Check {
    const NAME: &str = "open files";
    match getrlimit(Resource::Nofile).current {
        Some(count) if count < FILES_COUNT_MIN => Check::warning(
            NAME,
            format!("no more than {count}, where {FILES_COUNT_MIN} may be needed"),
            format!("ulimit -n {FILES_COUNT_MIN}"),
        ),
        Some(count) => Check::ok(NAME, format!("{count} at most")),
        None => Check::ok(NAME, "as many as there may be"),
    }
}

/// Expiry, snapshots and the journal go by it.
fn clock() -> Check {
    const NAME: &str = "clock";
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let shown = utc(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
    match now.as_secs() < CLOCK_UNIX_S_MIN {
        true => Check::warning(
            NAME,
            format!(
                "{shown}, which is past: records expire late, and snapshots are in wrong order"
            ),
            "timedatectl set-ntp true",
        ),
        false => Check::ok(NAME, shown),
    }
}

/// The bus, the service on it, and polkit if it is the system's.
fn bus(config: &Config) -> Vec<Check> {
    const NAME: &str = "bus";
    let bus = config.bus().cloned().unwrap_or(Bus::System);
    let remedy = "systemctl start dbus, or name another bus by --bus";
    let client = match Client::connect(&bus) {
        Ok(client) => client,
        Err(error) => return vec![Check::warning(NAME, error.message(), remedy)],
    };
    if let Bus::Socket(path) = &bus {
        return vec![Check::ok(NAME, format!("a service answers at {}", path.display()))];
    }
    let asked = client.run(async |connection| {
        let asked = tokio::time::timeout(PATIENCE, ask(connection, bus == Bus::System)).await;
        Ok(asked.unwrap_or_else(|_| Err(zbus::Error::Failure("it does not answer".to_owned()))))
    });
    match asked {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => vec![Check::warning(NAME, format!("{bus}: {error}"), remedy)],
        Err(error) => vec![Check::warning(NAME, error.message(), remedy)],
    }
}

async fn ask(connection: &Connection, is_system: bool) -> zbus::Result<Vec<Check>> {
    let bus = DBusProxy::new(connection).await?;
    let startable = bus.list_activatable_names().await?;
    let is_startable = |name: &str| startable.iter().any(|known| known.as_str() == name);
    let mut checks = Vec::new();
    let is_there = bus.name_has_owner(SERVICE.try_into()?).await?;
    checks.push(match (is_there, is_startable(SERVICE)) {
        (true, _) => Check::ok("service", format!("{SERVICE} runs")),
        (false, true) => Check::ok("service", format!("{SERVICE} is started by who calls it")),
        (false, false) => Check::warning(
            "service",
            format!("nobody is {SERVICE}: programs on the bus find nothing"),
            "systemctl enable --now operation-dbus, or op-dbus daemon",
        ),
    });
    if is_system {
        let is_there = bus.name_has_owner(POLKIT.try_into()?).await? || is_startable(POLKIT);
        checks.push(polkit(is_there, Path::new(POLICY).exists()));
        checks.extend(is_clock_kept(connection).await);
    }
    Ok(checks)
}

fn polkit(is_there: bool, has_actions: bool) -> Check {
    const NAME: &str = "polkit";
    match (is_there, has_actions) {
        (false, _) => Check::warning(
            NAME,
            "nobody can be asked who may change something, so nobody may",
            "install polkit (Debian: apt install polkitd; NixOS: security.polkit.enable = true)",
        ),
        (true, false) => Check::warning(
            NAME,
            format!("it does not know our actions, so it allows none: {POLICY} is missing"),
            format!("install -m 644 daemon/system/org.opdbus.policy {POLICY}"),
        ),
        (true, true) => Check::ok(NAME, "it knows our actions"),
    }
}

/// Whether somebody keeps the clock right; nothing where nobody says.
async fn is_clock_kept(connection: &Connection) -> Option<Check> {
    let (service, path) = ("org.freedesktop.timedate1", "/org/freedesktop/timedate1");
    let proxy = Proxy::new(connection, service, path, service).await.ok()?;
    let is_kept: bool = proxy.get_property("NTPSynchronized").await.ok()?;
    Some(match is_kept {
        true => Check::ok("time", "kept by the network's"),
        false => Check::warning("time", "not kept by the network's", "timedatectl set-ntp true"),
    })
}
