//! The same with polkit itself: our policy as it is installed, but for the name of the service's user,
//! and a rule by which one member of the group may do everything.
//!
//! polkit looks for policies and rules where the system has them, so it runs in a mount namespace of its
//! own, in which ours are there instead. It needs root.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use support::bus::{BusLimits, PrivateBus, open_directory};
use support::crash::campaign::skip;
use support::program::{Invocation, Running, is_root};
use zbus::fdo::DBusProxy;

use crate::judge;
use crate::matrix::run_in;
use crate::polkit::Answer;
use crate::world::{ADMIN_UID, Decides, World, own_uid};

const TEST: &str = "polkit itself decides";
/// Where distributions have it.
const PLACES: [&str; 3] =
    ["/usr/lib/polkit-1/polkitd", "/usr/libexec/polkitd", "/usr/libexec/polkit-1/polkitd"];
const START_TIME_MAX: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);

#[tokio::test(flavor = "multi_thread")]
async fn every_method_for_everybody_by_polkit_itself() {
    let Some(program) = PLACES.iter().map(Path::new).find(|path| path.exists()) else {
        return skip(TEST, &"polkitd is not installed (package polkitd)");
    };
    if !is_root() {
        return skip(TEST, &"only root can start polkitd");
    }
    let bus = PrivateBus::start(BusLimits::Raised);
    let (_open, directory) = open_directory();
    let _polkitd = match start(program, &directory, &bus).await {
        Ok(polkitd) => polkitd,
        Err(reason) => return skip(TEST, &reason),
    };
    let world = World::start_on(Decides::Polkit, bus).await;
    let rows = run_in(world, Decides::Polkit, &[Answer::Yes]).await;
    judge::assert_sees_a_planted_allow(&rows);
}

/// Starts polkitd on a bus, with our policy and a rule for the test.
async fn start(program: &Path, directory: &Path, bus: &PrivateBus) -> Result<Running, String> {
    let [actions, rules, empty] = ["actions", "rules", "empty"].map(|name| directory.join(name));
    for made in [&actions, &rules, &empty] {
        fs::create_dir(made).unwrap();
    }
    let policy = fs::read_to_string(policy()).unwrap();
    let owner = format!("unix-user:{}", user_name(own_uid()));
    assert!(policy.contains("unix-user:op-dbus"));
    fs::write(actions.join("org.opdbus.policy"), policy.replace("unix-user:op-dbus", &owner))
        .unwrap();
    let rule = format!(
        "polkit.addRule(function (action, subject) {{\n    if (action.id.indexOf(\"org.opdbus.\") \
         === 0 && subject.user === \"{}\") {{\n        return polkit.Result.YES;\n    }}\n}});\n",
        user_name(ADMIN_UID)
    );
    fs::write(rules.join("00-test.rules"), rule).unwrap();
    let mut script = String::from("set -e; mount --make-rprivate /\n");
    let places = [
        (&actions, "/usr/share/polkit-1/actions"),
        (&rules, "/usr/share/polkit-1/rules.d"),
        (&empty, "/etc/polkit-1/rules.d"),
    ];
    for (from, to) in places {
        script.push_str(&format!("mount --bind '{}' {to}\n", from.display()));
    }
    script.push_str("exec \"$0\" \"$@\"\n");
    let script =
        format!("exec unshare --mount bash -c '{}' \"$0\" \"$@\"", script.replace('\'', ""));
    let invocation = Invocation::new(program).arguments(["--no-debug"]).within(&script);
    let mut running = invocation.variable("DBUS_SYSTEM_BUS_ADDRESS", bus.address()).start();
    let watching = bus.connect().await;
    let names = DBusProxy::new(&watching).await.unwrap();
    let deadline = Instant::now() + START_TIME_MAX;
    while !names.name_has_owner("org.freedesktop.PolicyKit1".try_into().unwrap()).await.unwrap() {
        if !running.is_alive() {
            return Err(format!("polkitd cannot run here: {}", running.finish().stderr.trim()));
        }
        if Instant::now() > deadline {
            return Err("polkitd does not come to the bus".to_owned());
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(running)
}

fn policy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../daemon/system/org.opdbus.policy")
}

pub(crate) fn user_name(uid: u32) -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let mut fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = fields.find(|fields| fields.get(2) == Some(&&*uid.to_string()));
    found.unwrap_or_else(|| panic!("there is no user {uid}"))[0].to_owned()
}
