//! Files of plugins: what they mean, what is refused and where, and that they are written back.

use proptest::prelude::*;
use serde_json::json;

use super::*;

const FULL: &str = r#"
[plugin]
name = "lxc"
version = "1.2.0"
source = "hand-written"
description = "Containers.\nOf LXC."
author = "A. Uthor <a@example.org>"
executable = "bin/lxc"
dbus_service = "org.linuxcontainers.lxc1"
dbus_path = "/org/linuxcontainers"
dbus_interface = "org.linuxcontainers.lxc1.Manager"

[capabilities]
verify = false

[dependencies]
plugins = ["netmaker"]
services = ["org.freedesktop.NetworkManager"]
programs = ["lxc-ls"]

[sandbox]
user = "root"
groups = ["adm"]
read = ["/"]
write = ["/var/lib/lxc"]
network = true
capabilities = ["CAP_SYS_ADMIN"]
timeout_s = 120

[state]
secret = ["containers.*.password"]

[config]
since = 2024-05-01
bridge = { name = "br0", mtu = 1500, share = 0.5 }
"#;

const MINIMAL: &str = "[plugin]\nname = 'a'\nversion = '1'\nsource = 'hand-written'\n";
const GENERATED: &str = "[plugin]\nname = 'a'\nversion = '1'\nsource = 'auto-generated'\n\
    dbus_service = 'org.example.A'\ndbus_path = '/'\n";

fn error_of(text: &str) -> (u64, u64, String) {
    let error = parse(text.as_bytes()).expect_err(text);
    (error.line, error.column, error.problem)
}

#[test]
fn everything_that_is_said_is_read() {
    let plugin = parse(FULL.as_bytes()).unwrap();
    assert_eq!((plugin.name.as_str(), plugin.version.as_str()), ("lxc", "1.2.0"));
    assert_eq!(plugin.description.as_deref(), Some("Containers.\nOf LXC."));
    assert_eq!(plugin.dbus_service(), Some("org.linuxcontainers.lxc1"));
    assert_eq!(plugin.dbus_path(), Some("/org/linuxcontainers"));
    assert_eq!(plugin.dbus_interface(), Some("org.linuxcontainers.lxc1.Manager"));
    let PluginSource::HandWritten { executable, sandbox, .. } = &plugin.source else { panic!() };
    assert_eq!(executable, "bin/lxc");
    assert_eq!((sandbox.user.as_str(), sandbox.network, sandbox.timeout_s), ("root", true, 120));
    assert_eq!(
        (&sandbox.read[..], &sandbox.write[..]),
        (&["/".to_owned()][..], &["/var/lib/lxc".to_owned()][..])
    );
    assert!(plugin.capabilities.apply && !plugin.capabilities.verify);
    assert_eq!(plugin.dependencies.plugins, ["netmaker".parse().unwrap()]);
    let config =
        json!({"since": "2024-05-01", "bridge": {"name": "br0", "mtu": 1500, "share": 0.5}});
    assert_eq!(plugin.config, config);
    assert_eq!(parse(render(&plugin).as_bytes()).as_ref(), Ok(&plugin));
}

#[test]
fn what_is_left_out_takes_the_least_rights() {
    let plugin = parse(MINIMAL.as_bytes()).unwrap();
    let all = Capabilities { query: true, diff: true, apply: true, verify: true };
    assert_eq!(plugin.capabilities, all);
    assert_eq!(plugin.config, json!({}));
    let PluginSource::HandWritten { executable, sandbox, .. } = &plugin.source else { panic!() };
    assert_eq!((executable.as_str(), sandbox), ("plugin", &Sandbox::default()));
    assert_eq!((sandbox.user.as_str(), sandbox.network), ("op-dbus-plugin", false));
    assert_eq!(render(&plugin), MINIMAL.replace('\'', "\""));
    let generated = parse(GENERATED.as_bytes()).unwrap();
    let only_query = Capabilities { query: true, diff: false, apply: false, verify: false };
    assert_eq!(generated.capabilities, only_query);
    assert_eq!(generated.dbus_path(), Some("/"));
    assert_eq!(render(&generated), GENERATED.replace('\'', "\""));
}

#[test]
fn what_is_wrong_is_located() {
    let after = |more: &str| format!("{MINIMAL}{more}");
    let generated = |more: &str| format!("{GENERATED}{more}");
    let cases = [
        (String::new(), 1, 1, "[plugin] is missing"),
        ("[plugin]\nname = 'a'\nversoin = '1'".into(), 3, 1, "did you mean \"version\"?"),
        ("[plugin]\nname = 'a'".into(), 1, 1, "version is missing in [plugin]"),
        ("[plugin]\nname = 'a'\nversion = 1".into(), 3, 11, "must be a string, not an integer"),
        ("[plugin]\nname = 'a'\nversion = '1'".into(), 1, 1, "source is missing in [plugin]"),
        ("[plugin]\nname = 'A'".into(), 2, 8, "name is \"A\": it has the character 'A'"),
        (MINIMAL.replace("hand", "band"), 4, 10, "it may be hand-written or auto-generated"),
        (MINIMAL.replace("'1'", "'1 2'"), 3, 11, "it has the character ' '"),
        (after("executable = '../x'"), 5, 14, "a component of it is .."),
        (after("dbus_service = 'a'"), 5, 16, "it has no point"),
        (after("dbus_path = 'a'"), 5, 13, "it does not begin with /"),
        (after("dbus_interface = 'a'"), 5, 18, "it has no point"),
        (after("[capabilities]\nqurey = true"), 6, 1, "did you mean \"query\"?"),
        (after("[capabilities]\nquery = 1"), 6, 9, "must be true or false, not an integer"),
        (after("[dependencies]\nplugins = ['b', 'a']"), 6, 17, "does not depend on itself"),
        (after("[dependencies]\nplugins = ['b', 'b']"), 6, 17, "plugins has \"b\" twice"),
        (after("[dependencies]\nplugins = ['B']"), 6, 12, "plugins has \"B\""),
        (after("[dependencies]\nservices = ['b']"), 6, 13, "it has no point"),
        (after("[dependencies]\nprograms = ['b/c']"), 6, 13, "a name without /"),
        (after("[sandbox]\nuser = 'Root'"), 6, 8, "it begins with 'R'"),
        (after("[sandbox]\ngroups = ['a', 'b c']"), 6, 16, "it has the character ' '"),
        (after("[sandbox]\nread = ['a']"), 6, 9, "it must be an absolute path"),
        (after("[sandbox]\nwrite = ['/a/']"), 6, 10, "a component of it is empty"),
        (after("[sandbox]\ncapabilities = ['CAP_X']"), 6, 17, "no capability of the kernel"),
        (after("[sandbox]\ntimeout_s = 0"), 6, 13, "timeout_s is 0, it may be 1 to 3600"),
        (after("[sandbox]\ntimeout_s = 3601"), 6, 13, "it may be 1 to 3600"),
        (after("[state]\nsecret = ['a..b']"), 6, 11, "a part of it is empty"),
        (after("[config]\na = [1, inf]"), 6, 9, "inf has no place in JSON"),
        (after("config = 1"), 5, 1, "unknown key \"config\" in [plugin]"),
        (after("description = \"\\u001b\""), 5, 15, "it has the character"),
        (generated("[sandbox]"), 7, 2, "no executable that needs a sandbox"),
        (generated("executable = 'x'"), 7, 1, "has no executable"),
        (GENERATED.replace("dbus_path = '/'", ""), 1, 1, "dbus_path is missing in [plugin]"),
        (GENERATED.replace("dbus_s", "#"), 1, 1, "dbus_service is missing in [plugin]"),
    ];
    for (text, line, column, problem) in cases {
        let found = error_of(&text);
        assert!(found.2.contains(problem), "{text}: {found:?}");
        assert_eq!((found.0, found.1), (line, column), "{text}: {found:?}");
    }
}

#[test]
fn secret_paths_cover_what_they_lead_to() {
    let path: SecretPath = "containers.*.password".parse().unwrap();
    assert!(path.covers(&["containers", "web", "password"]));
    assert!(path.covers(&["containers", "web", "password", "salt"]));
    assert!(!path.covers(&["containers", "web"]));
    assert!(!path.covers(&["containers", "web", "name"]));
}

fn names() -> impl Strategy<Value = String> {
    "[a-z]([a-z0-9-]{0,8}[a-z0-9])?"
}

fn sandboxes() -> impl Strategy<Value = Sandbox> {
    let paths = || prop::collection::btree_set("(/[a-z\" ü\\\\]{1,5}x){1,3}", 0..3);
    let accounts = prop::collection::btree_set("[a-z_][a-z0-9_-]{0,31}", 0..3);
    let capabilities = prop::sample::subsequence(vec!["CAP_BPF", "CAP_KILL", "CAP_MKNOD"], 0..3);
    (accounts, paths(), paths(), any::<bool>(), capabilities, 1..=TIMEOUT_MAX_S).prop_map(
        |(groups, read, write, network, capabilities, timeout_s)| Sandbox {
            user: groups.first().cloned().unwrap_or_else(|| DEFAULT_USER.to_owned()),
            groups: groups.into_iter().collect(),
            read: read.into_iter().collect(),
            write: write.into_iter().collect(),
            network,
            capabilities: capabilities.into_iter().map(str::to_owned).collect(),
            timeout_s,
        },
    )
}

fn sources() -> impl Strategy<Value = PluginSource> {
    let name = || "[a-z_]{1,5}(\\.[a-z_][a-z0-9_]{0,5}){1,3}";
    let path = || "(/[A-Za-z0-9_]{1,5}){1,3}";
    let maybe = prop::option::of::<&'static str>;
    prop_oneof![
        ("[a-z]{1,4}(/[a-z]{1,4})?", sandboxes(), maybe(name()), maybe(path()), maybe(name()))
            .prop_map(|(executable, sandbox, dbus_service, dbus_path, dbus_interface)| {
                PluginSource::HandWritten {
                    executable,
                    sandbox,
                    dbus_service,
                    dbus_path,
                    dbus_interface,
                }
            }),
        (name(), path(), maybe(name())).prop_map(|(dbus_service, dbus_path, dbus_interface)| {
            PluginSource::AutoGenerated { dbus_service, dbus_path, dbus_interface }
        }),
    ]
}

fn plugins() -> impl Strategy<Value = Plugin> {
    let text = || prop::option::of("[\\PC\n\t]{0,20}");
    let capabilities = any::<[bool; 4]>().prop_map(|[query, diff, apply, verify]| Capabilities {
        query,
        diff,
        apply,
        verify,
    });
    let dependencies = (prop::collection::btree_set(names(), 0..3), "[a-z]{1,3}\\.[a-z-]{1,9}")
        .prop_map(|(plugins, service)| Dependencies {
            plugins: plugins.iter().map(|name| name.parse().unwrap()).collect(),
            services: vec![service],
            programs: plugins.into_iter().collect(),
        });
    let config = prop::collection::vec((any::<String>(), any::<i64>()), 0..4)
        .prop_map(|pairs| Value::Object(pairs.into_iter().map(|(k, v)| (k, v.into())).collect()));
    (sources(), text(), text(), capabilities, dependencies, "[^.]{1,9}(\\.\\*)?", config).prop_map(
        |(source, description, author, capabilities, dependencies, secret, config)| Plugin {
            // No name of a dependency is as long.
            name: "a".repeat(20).parse().unwrap(),
            version: "1.0".to_owned(),
            source,
            description,
            author,
            capabilities,
            dependencies,
            secret: vec![secret.parse().unwrap()],
            config,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn what_is_rendered_is_parsed(plugin in plugins()) {
        let text = render(&plugin);
        let parsed = parse(text.as_bytes());
        prop_assert_eq!(parsed.as_ref(), Ok(&plugin), "{}", text);
    }
}
