//! Mappings: what they mean, what is refused and where, and that they are written back.

use proptest::prelude::*;
use serde_json::json;

use super::*;

const FULL: &str = r#"
[service]
name = "org.freedesktop.hostname1"
path = "/org/freedesktop/hostname1"
interface = "org.freedesktop.hostname1"
description = "Names of this machine."

[methods.SetHostname]
requires_confirmation = false
side_effects = ["changes the host name until the next boot"]
idempotent = true
description = "Sets the transient name."
args = ["hostname", "interactive"]
secret_args = ["hostname"]
defaults = { interactive = false }
validation = { hostname = { pattern = "[a-z0-9-]+", len_min = 1, len_max = 64 }, interactive = { one_of = [true, false] } }
dry_run_method = "Describe"
returns_secret = true

[methods.Describe]
safe = true
args = []

[methods."org.freedesktop.DBus.Peer.Ping"]
safe = true
requires_confirmation = true

[properties.Hostname]
writable = true
requires_confirmation = false
secret = true
description = "The name."

[properties."org.freedesktop.hostname1.Chassis"]
readable = false

[state_mapping.hostname]
property = "StaticHostname"
method = "SetStaticHostname"
args = ["$value", false]

[state_mapping.chassis]
property = "Chassis"
secret = true

[safety]
deny = ["Reboot"]
calls_per_minute_max = 10
timeout_ms = 1000
"#;

const SERVICE: &str = "[service]\nname = 'org.example.A'\n";

fn error_of(text: &str) -> (u64, u64, String) {
    let error = parse(text.as_bytes()).expect_err(text);
    (error.line, error.column, error.problem)
}

#[test]
fn everything_that_is_said_is_read() {
    let mapping = parse(FULL.as_bytes()).unwrap();
    let set = &mapping.methods["SetHostname"];
    assert!(!set.safe && !set.requires_confirmation && set.idempotent && set.returns_secret);
    assert_eq!(set.args.as_deref(), Some(&["hostname".to_owned(), "interactive".to_owned()][..]));
    assert_eq!(set.defaults["interactive"], json!(false));
    assert_eq!(set.validation["hostname"].len_max, Some(64));
    assert_eq!(mapping.methods["Describe"].args, Some(Vec::new()));
    assert!(!mapping.methods["Describe"].requires_confirmation);
    assert!(!mapping.properties["org.freedesktop.hostname1.Chassis"].readable);
    let setter = mapping.state["hostname"].setter.as_ref().unwrap();
    assert_eq!(setter.args, [SetterArg::Wanted, SetterArg::Fixed(json!(false))]);
    assert_eq!(setter.arguments(&json!("a")), [json!("a"), json!(false)]);
    assert_eq!((&mapping.state["chassis"].setter, mapping.state["chassis"].secret), (&None, true));
    assert_eq!((mapping.safety.calls_per_minute_max, mapping.safety.timeout_ms), (10, 1000));
    assert_eq!(parse(render(&mapping).as_bytes()).as_ref(), Ok(&mapping));
}

#[test]
fn what_is_left_out_is_careful() {
    let text = format!(
        "{SERVICE}[methods.A]\n[properties.B]\n[state_mapping.c]\nproperty = 'B'\nmethod = 'A'"
    );
    let mapping = parse(text.as_bytes()).unwrap();
    let method = &mapping.methods["A"];
    assert!(!method.safe && method.requires_confirmation && !method.idempotent);
    assert_eq!((&method.args, method.secret_args.len()), (&None, 0));
    assert_eq!(mapping.properties["B"], MappedProperty::default());
    assert_eq!(mapping.state["c"].setter.as_ref().unwrap().args, [SetterArg::Wanted]);
    assert_eq!(mapping.safety, Safety::default());
}

#[test]
fn names_are_looked_up_qualified_first() {
    let mapping = parse(FULL.as_bytes()).unwrap();
    assert!(mapping.method("org.freedesktop.hostname1", "Describe").is_some());
    assert!(mapping.method("org.example.Other", "Describe").is_none());
    assert!(mapping.method("org.freedesktop.DBus.Peer", "Ping").is_some());
    assert!(mapping.method("org.freedesktop.hostname1", "Ping").is_none());
    assert!(mapping.method("org.freedesktop", "DBus.Peer.Ping").is_none());
    assert!(mapping.property("org.freedesktop.hostname1", "Chassis").is_some());
    assert!(mapping.denies("org.example.Other", "Reboot"));
    assert!(!mapping.denies("org.freedesktop.hostname1", "Describe"));
    let text =
        format!("{SERVICE}[methods.A]\n[methods.'a.b.A']\nsafe = true\n[safety]\ndeny = ['c.d.E']");
    let any = parse(text.as_bytes()).unwrap();
    assert!(!any.method("x.y", "A").unwrap().safe);
    assert!(any.method("a.b", "A").unwrap().safe);
    assert!(any.denies("c.d", "E") && !any.denies("a.b", "E"));
}

#[test]
fn what_is_wrong_is_located() {
    let after = |more: &str| format!("{SERVICE}{more}");
    let args = |more: &str| format!("{SERVICE}[methods.A]\nargs = ['x', 'y']\n{more}");
    let cases = [
        (String::new(), 1, 1, "[service] is missing"),
        ("[service]\n".into(), 1, 1, "name is missing in [service]"),
        ("[service]\nname = ':1.2'".into(), 2, 8, "it has the character ':'"),
        (after("path = 'x'"), 3, 8, "does not begin with /"),
        (after("interface = 'x'"), 3, 13, "it has no point"),
        (after("[method.A]"), 3, 2, "did you mean \"methods\"?"),
        (after("[methods.2]"), 3, 10, "it begins with the digit '2'"),
        (after("[methods.'A.B']"), 3, 10, "is no member nor, in quotes,"),
        (after("[methods.A.B]"), 3, 12, "unknown key \"B\" in [methods.A]"),
        (after("[methods.A]\nsaef = true"), 4, 1, "did you mean \"safe\"?"),
        (after("[methods.A]\nside_effects = true"), 4, 16, "must be an array, not a boolean"),
        (after("[methods.A]\nside_effects = ['']"), 4, 17, "it is empty"),
        (args("secret_args = ['z']"), 5, 16, "secret_args has \"z\": it is none of args"),
        (args("defaults = { z = 1 }"), 5, 14, "defaults has \"z\": it is none of args"),
        (args("defaults = { x = nan }"), 5, 18, "has no place in JSON"),
        (args("validation = { z = {} }"), 5, 16, "validation has \"z\": it is none of args"),
        (args("validation.x = { patern = 'a' }"), 5, 18, "did you mean \"pattern\"?"),
        (args("validation.x = { pattern = '(' }"), 5, 28, "pattern is \"(\""),
        (args("validation.x = { len_min = 2, len_max = 1 }"), 5, 41, "less than len_min"),
        (args("validation.x = { min = 2, max = 1.5 }"), 5, 33, "max is 1.5, less than min, 2"),
        (args("validation.x = { min = '2' }"), 5, 24, "min must be a number"),
        (args("validation.x = { len_min = -1 }"), 5, 28, "it may be 0 to"),
        (args("validation.x = { one_of = [] }"), 5, 27, "one_of is empty"),
        (args("validation.x = { one_of = [[]] }"), 5, 27, "may have strings, numbers"),
        (args("defaults.x = 1\nvalidation.x = { max = 0 }"), 6, 12, "the default of x is 1"),
        (args("dry_run_method = 'A'"), 5, 18, "a method is not its own dry run"),
        (args("dry_run_method = 'B'"), 5, 18, "B is no method of this mapping"),
        (after("[methods.A]\nargs = ['x', 'x']"), 4, 14, "args has \"x\" twice"),
        (after("[methods.A]\nargs = ['']"), 4, 9, "it is empty"),
        (after("[properties.A]\nsafe = true"), 4, 1, "unknown key \"safe\" in [properties.A]"),
        (after("[state_mapping.'1']\nproperty = 'A'"), 3, 16, "the key begins with '1'"),
        (after("[state_mapping.a]\n"), 3, 1, "property is missing in [state_mapping.a]"),
        (after("[state_mapping.a]\nproperty = 'A'\nargs = ['$value']"), 5, 1, "without a method"),
        (after("[state_mapping.a]\nproperty = 'A'\nmethod = 'B'\nargs = []"), 6, 8, "0 times"),
        (
            after("[state_mapping.a]\nproperty = 'A'\nmethod = 'B'\nargs = ['$value', '$value']"),
            6,
            8,
            "2 times",
        ),
        (after("[safety]\ndeny = ['B', \"a\\tb\"]"), 4, 14, "it has the character '\\t'"),
        (after("[properties.'']"), 3, 13, "it is empty"),
        (after("[properties.\"a.b.c\\n\"]"), 3, 13, "it has the character '\\n'"),
        (after("[signals.'scan-type']"), 3, 10, "it has the character '-'"),
        (after("[safety]\ncalls_per_minute_max = 0"), 4, 24, "it may be 1 to 6000"),
        (after("[safety]\ntimeout_ms = 600001"), 4, 14, "it may be 1 to 600000"),
        (after("[methods.A]\nsafe = true\n[safety]\ndeny = ['A']"), 6, 9, "says that A is safe"),
        (after("[methods.'a.b.A']\nsafe = true\n[safety]\ndeny = ['A']"), 6, 9, "a.b.A is safe"),
        (after("[methods.A]\nsafe = true\n[safety]\ndeny = ['a.b.A']"), 6, 9, "A is safe"),
    ];
    for (text, line, column, problem) in cases {
        let found = error_of(&text);
        assert!(found.2.contains(problem), "{text}: {found:?}");
        assert_eq!((found.0, found.1), (line, column), "{text}: {found:?}");
    }
    let other = after("interface = 'c.d'\n[methods.A]\nsafe = true\n[safety]\ndeny = ['a.b.A']");
    assert!(parse(other.as_bytes()).is_ok());
}

#[test]
fn properties_have_the_names_that_introspection_has() {
    use crate::introspection;

    let long = "p".repeat(introspection::NAME_LEN_MAX_BYTES);
    let names =
        ["num-enroll-stages", "parent-window 2", "a.b", "größe", ".", "a..b", "2", "'\"#", &long];
    for name in names {
        let escaped = name.replace('"', "&quot;").replace('\'', "&apos;");
        let xml = format!(
            "<node><interface name='x.Reader'><property name='{escaped}' type='s' access='read'/>\
             </interface></node>"
        );
        let node = introspection::parse(xml.as_bytes()).unwrap();
        assert_eq!(node.interfaces[0].properties[0].name, name);
        let quoted = name.replace('"', "\\\"");
        for mapped in [quoted.clone(), format!("x.Reader.{quoted}")] {
            let text = format!(
                "{SERVICE}[properties.\"{mapped}\"]\nreadable = false\n\
                 [state_mapping.a]\nproperty = \"{mapped}\"\n[safety]\ndeny = [\"{mapped}\"]"
            );
            let mapping = parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(parse(render(&mapping).as_bytes()).as_ref(), Ok(&mapping));
            assert!(!mapping.property("x.Reader", name).unwrap().readable, "{mapped}");
            assert!(mapping.denies("x.Reader", name), "{mapped}");
            assert!(mapping.property("x.Reader", "other").is_none());
        }
    }
    for name in ["", "a\nb", &format!("{long}p")] {
        let xml = format!(
            "<node><interface name='x.R'><property name='{name}' type='s' access='read'/>\
             </interface></node>"
        );
        // A line break in an attribute is a blank.
        let is_blank = name.contains('\n');
        assert_eq!(introspection::parse(xml.as_bytes()).is_err(), !is_blank, "{name:?}");
        let text = format!("{SERVICE}[properties.\"{}\"]", name.replace('\n', "\\n"));
        assert!(parse(text.as_bytes()).is_err(), "{name:?}");
    }
}

fn names() -> impl Strategy<Value = String> {
    prop_oneof!["[A-Z][a-z0-9_]{0,6}", "[a-z]{1,3}\\.[a-z]{1,3}\\.[A-Z][a-z]{0,3}"]
}

fn property_names() -> impl Strategy<Value = String> {
    prop_oneof![names(), "\\PC{1,9}", "[a-z]{1,3}\\.[a-z]{1,3}\\.\\PC{1,6}"]
}

fn values() -> impl Strategy<Value = Value> {
    let finite = any::<f64>().prop_filter("finite", |float| float.is_finite());
    prop_oneof![
        any::<String>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        finite.prop_map(Value::from),
        prop::collection::vec((any::<String>(), any::<bool>()), 0..3).prop_map(|pairs| {
            Value::Object(pairs.into_iter().map(|(key, on)| (key, on.into())).collect())
        }),
    ]
}

fn methods() -> impl Strategy<Value = MappedMethod> {
    let text = || "[\\PC\n\"]{1,12}x";
    let maybe_args = prop::option::of(prop::collection::btree_set("\\PC{1,6}", 0..4));
    let rules = (0..9_u32, any::<i32>(), prop::sample::select(vec!["[a-z]+", "\\d{1,3}", "\""]));
    (any::<[bool; 4]>(), prop::option::of(text()), text(), maybe_args, rules, values()).prop_map(
        |([safe, confirm, idempotent, returns_secret], description, effect, args, rules, value)| {
            let args: Option<Vec<String>> = args.map(|args| args.into_iter().collect());
            let first = args.as_ref().and_then(|args| args.first().cloned());
            let last = args.as_ref().and_then(|args| args.get(1).cloned());
            let rules = Validation {
                pattern: Some(Pattern::new(rules.2).unwrap()),
                len_min: Some(rules.0),
                one_of: (rules.0 > 4).then(|| vec![json!(rules.0), json!("a"), json!(0.5)]),
                max: Some(rules.1.into()),
                ..Validation::default()
            };
            MappedMethod {
                safe,
                requires_confirmation: confirm,
                side_effects: vec![effect],
                idempotent,
                description,
                secret_args: first.iter().cloned().collect(),
                defaults: last.into_iter().map(|arg| (arg, value.clone())).collect(),
                validation: first.into_iter().map(|arg| (arg, rules.clone())).collect(),
                args,
                dry_run_method: None,
                returns_secret,
                phrases: Vec::new(),
            }
        },
    )
}

fn properties() -> impl Strategy<Value = MappedProperty> {
    (any::<[bool; 4]>(), prop::option::of("\\PC{0,12}")).prop_map(
        |([readable, writable, requires_confirmation, secret], description)| MappedProperty {
            readable,
            writable,
            requires_confirmation,
            secret,
            description,
            phrases: Vec::new(),
        },
    )
}

fn signals() -> impl Strategy<Value = MappedSignal> {
    prop::option::of("\\PC{0,12}").prop_map(|description| {
        let phrases = description.iter().filter(|text| !text.trim().is_empty()).cloned().collect();
        MappedSignal { description, phrases }
    })
}

fn states() -> impl Strategy<Value = MappedState> {
    let values = prop::collection::vec(values(), 0..3);
    let setter = (names(), values).prop_map(|(method, values)| {
        let fixed = values.into_iter().map(SetterArg::Fixed);
        Setter { method, args: fixed.chain([SetterArg::Wanted]).collect() }
    });
    (property_names(), prop::option::of(setter), any::<bool>())
        .prop_map(|(property, setter, secret)| MappedState { property, setter, secret })
}

fn mappings() -> impl Strategy<Value = SemanticMapping> {
    let methods = prop::collection::btree_map(names(), methods(), 0..4);
    let properties = prop::collection::btree_map(property_names(), properties(), 0..4);
    let state = prop::collection::btree_map("[A-Za-z_][A-Za-z0-9_-]{0,5}", states(), 0..4);
    let safety = (1..=CALLS_PER_MINUTE_MAX, 1..=TIMEOUT_MAX_MS);
    let signals = prop::collection::btree_map(names(), signals(), 0..4);
    let members = (methods, properties, signals);
    (members, state, safety).prop_map(|((mut methods, properties, signals), state, safety)| {
        if methods.len() > 1 {
            let last = methods.keys().last().cloned();
            methods.values_mut().next().unwrap().dry_run_method = last;
        }
        let service = MappedService {
            name: "org.example.A".to_owned(),
            path: (safety.0 % 2 == 0).then(|| "/a".to_owned()),
            interface: (safety.1 % 2 == 0).then(|| "org.example.A".to_owned()),
            description: None,
        };
        let safety = Safety {
            deny: vec!["_Denied".to_owned()],
            calls_per_minute_max: safety.0,
            timeout_ms: safety.1,
        };
        SemanticMapping { service, methods, properties, signals, state, safety }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn what_is_rendered_is_parsed(mapping in mappings()) {
        let text = render(&mapping);
        let parsed = parse(text.as_bytes());
        prop_assert_eq!(parsed.as_ref(), Ok(&mapping), "{}", text);
    }
}
