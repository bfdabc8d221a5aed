//! The language of filters: what is true of a record, what is refused and where.
//!
//! `golden/filter/refused.txt` shows what is said of each bad filter, with a caret under the
//! column. `UPDATE_GOLDEN=1` writes it anew.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs;
use std::path::Path;

use op_dbus_formats::filter::{DEPTH_MAX, FIELDS_MAX, LEN_MAX_BYTES, Subject};
use op_dbus_formats::{Filter, Payload, TextError};
use proptest::prelude::*;

const PAYLOAD: &str = r#"{
    "service": "org.freedesktop.login1", "safe": true, "risky": false, "size": 5, "half": 0.5,
    "nothing": null, "large": 9007199254740993, "tags": ["power", "seat", 3, null, true, ["deep"]],
    "args": [{"name": "when", "type": "t"}, {"name": "why"}], "nested": {"a": {"b": "deep"}},
    "odd name": 1, "@key": "of the payload", "and": true, "twice": 1, "twice": "last",
    "quoted": "a \"word\"\n", "": "empty", "9": "digit", "naïve": "Zürich", "a.b": "dotted"
}"#;

fn is_true(filter: &str) -> bool {
    let payload = Payload::Json(PAYLOAD.into());
    let subject = Subject {
        collection: "dbus",
        key: b"method:Reboot\xff",
        text: Some("restarts the machine"),
        payload: &payload,
    };
    Filter::parse(filter).unwrap_or_else(|error| panic!("{filter}: {error}")).matches(&subject)
}

/// Conditions and whether they are true of the record above.
const CONDITIONS: [(&str, bool); 93] = [
    ("safe", true),
    ("risky", false),
    ("size", false),
    ("service", false),
    ("nowhere", false),
    (".safe", true),
    (".and", true),
    ("exists safe", true),
    ("exists nothing", true),
    ("exists nowhere", false),
    ("exists nested.a", true),
    ("exists nested.a.b.c", false),
    ("exists @text", true),
    ("exists args.1.name", true),
    ("exists args.2", false),
    ("exists args.01", false),
    ("exists .\"\"", true),
    (r#"service = "org.freedesktop.login1""#, true),
    ("service = 'org.freedesktop.login1'", true),
    (r#"service="org.freedesktop.login1""#, true),
    (r#"service != "org.freedesktop.login1""#, false),
    (r#"service != "another""#, true),
    (r#"service > "org""#, true),
    (r#"service < "org""#, false),
    (r#"service >= "org.freedesktop.login1""#, true),
    (r#"service <= "org.freedesktop.login1""#, true),
    ("size = 5", true),
    ("size = 5.0", true),
    ("size = 50e-1", true),
    ("size < 5", false),
    ("size <= 5", true),
    ("size > 4.999", true),
    ("size >= 6", false),
    ("size != 5", false),
    ("size != 6", true),
    ("size > -1", true),
    ("half = 0.5", true),
    ("half < 1", true),
    ("large = 9007199254740993", true),
    ("large = 9007199254740992", false),
    ("large > 9007199254740992.0", true),
    // Another type is never an error, and never true.
    (r#"size = "5""#, false),
    (r#"size != "5""#, false),
    (r#"size < "6""#, false),
    ("service = 5", false),
    ("service != 5", false),
    ("safe = 1", false),
    ("tags = 3", false),
    ("nested != 3", false),
    ("nowhere = 1", false),
    ("nowhere != 1", false),
    ("not nowhere = 1", true),
    ("safe = true", true),
    ("safe != false", true),
    ("risky = false", true),
    ("nothing = null", true),
    ("nothing != null", false),
    ("nothing = false", false),
    ("nothing != 1", false),
    ("service != null", true),
    ("service = null", false),
    ("nowhere = null", false),
    ("nowhere != null", false),
    ("nested != null", true),
    ("size in [1, 5, 9]", true),
    ("size in ['5']", false),
    ("size not in [1, 5]", false),
    ("nowhere not in [1]", true),
    ("nothing in [null]", true),
    (r#"tags contains "power""#, true),
    (r#"tags contains "pow""#, false),
    ("tags contains 3", true),
    ("tags contains 3.0", true),
    ("tags contains null", true),
    ("tags contains true", true),
    ("tags contains 'deep'", false),
    ("tags not contains 4", true),
    ("tags.5.0 = 'deep'", true),
    (r#"service contains "login""#, true),
    ("service contains 1", false),
    ("nested contains 'a'", false),
    (r#"service starts with "org.""#, true),
    (r#"service starts with "login""#, false),
    (r#"service not starts with "com.""#, true),
    ("args.0.name = 'when' and args.1.name = 'why'", true),
    (r#"."odd name" = 1"#, true),
    (r#"."@key" = "of the payload" and @key starts with "method:""#, true),
    ("@key = 'method:Reboot\u{fffd}' and @collection = 'dbus'", true),
    ("@text contains 'machine'", true),
    ("twice = 'last'", true),
    (r#"quoted = "a \"word\"\n" and quoted = 'a "word"\u000a'"#, true),
    (r#".9 = "digit" and naïve = "Z\u00fcrich" and ."a.b" = 'dotted'"#, true),
    ("nested.a.b = \"deep\" and exists nested and exists nested.a", true),
];

#[test]
fn conditions_are_true_of_what_they_say() {
    for (condition, expected) in CONDITIONS {
        assert_eq!(is_true(condition), expected, "{condition}");
        assert_eq!(is_true(&format!("not ({condition})")), !expected, "{condition}");
    }
}

#[test]
fn not_binds_most_and_or_least() {
    for (filter, expected) in [
        ("safe or safe and risky", true),
        ("(safe or safe) and risky", false),
        ("not risky and safe", true),
        ("not (risky and safe)", true),
        ("not risky or risky", true),
        ("not safe or safe", true),
        ("not not safe", true),
        ("risky and risky or safe", true),
    ] {
        assert_eq!(is_true(filter), expected, "{filter}");
    }
}

#[test]
fn only_json_has_fields() {
    for payload in
        [Payload::None, Payload::Bytes(b"{\"safe\":true}"[..].into()), Payload::Json("true".into())]
    {
        let subject = Subject { collection: "c", key: b"k", text: None, payload: &payload };
        let matches = |filter: &str| Filter::parse(filter).unwrap().matches(&subject);
        assert!(!matches("safe") && !matches("exists safe") && !matches("exists @text"));
        assert!(matches("not safe") && matches("@key = 'k'"));
    }
    let list = Payload::Json("[{\"a\":1}]".into());
    let subject = Subject { collection: "c", key: b"k", text: None, payload: &list };
    assert!(Filter::parse(".0.a = 1").unwrap().matches(&subject));
}

#[test]
fn what_needs_no_record_is_known() {
    for (filter, expected) in [
        ("@key starts with 'a' or @collection = 'b'", true),
        ("@text contains 'a'", false),
        ("safe", false),
        ("not (@key = 'a' and exists x)", false),
    ] {
        assert_eq!(Filter::parse(filter).unwrap().is_of_names_alone(), expected, "{filter}");
    }
}

#[test]
fn canonical_forms_are_short() {
    for (filter, canonical) in [
        ("((a))and(b or(c))", "a and (b or c)"),
        ("a or (b or c) or d and (e and f)", "a or b or c or d and e and f"),
        (".a.\"b\".'c d' = 'x'", "a.b.\"c d\" = \"x\""),
        ("a not in[1,2.50]", "not a in [1, 2.5]"),
        (".in=1 or .\"1\"=1e400", ""),
        (".in=1 or .\"1\"=1E2", ".in = 1 or .1 = 100.0"),
        ("starts starts with 'with'", "starts starts with \"with\""),
        ("not(not a)and not(b or c)", "not not a and not (b or c)"),
        (".\"\" = \"\\u0001\\\"\"", ".\"\" = \"\\u0001\\\"\""),
    ] {
        let parsed = Filter::parse(filter);
        let shown = parsed.as_ref().map(ToString::to_string).unwrap_or_default();
        assert_eq!(shown, canonical, "{filter}: {parsed:?}");
    }
}

/// A filter of conditions above, and whether it is true.
fn filters() -> impl Strategy<Value = (String, bool)> {
    let condition = (0..CONDITIONS.len()).prop_map(|index| {
        let (text, is_true) = CONDITIONS[index];
        // One may be two that are joined.
        (format!("({text})"), is_true)
    });
    condition.prop_recursive(5, 24, 4, |inner| {
        let join = |word: &'static str, is_all: bool| {
            prop::collection::vec((inner.clone(), any::<bool>()), 2..5).prop_map(move |parts| {
                let texts: Vec<String> = parts
                    .iter()
                    .map(|((text, _), is_spread)| match is_spread {
                        true => format!("\n ( {text}\t) "),
                        false => format!("({text})"),
                    })
                    .collect();
                let mut truths = parts.iter().map(|((_, truth), _)| *truth);
                let truth =
                    if is_all { truths.all(|truth| truth) } else { truths.any(|truth| truth) };
                (texts.join(word), truth)
            })
        };
        let negated = inner.clone().prop_map(|(text, is_true)| (format!("not({text})"), !is_true));
        prop_oneof![join(" and ", true), join("or", false), negated]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn filters_mean_what_their_parts_do_and_come_back((filter, expected) in filters()) {
        prop_assume!(filter.len() <= LEN_MAX_BYTES);
        prop_assert_eq!(is_true(&filter), expected);
        let parsed = Filter::parse(&filter).unwrap();
        let canonical = parsed.to_string();
        let again = Filter::parse(&canonical).unwrap();
        prop_assert_eq!(again.to_string(), canonical.clone());
        prop_assert_eq!(is_true(&canonical), expected);
        prop_assert_eq!(again, parsed);
    }

    #[test]
    fn fields_and_texts_of_any_kind_come_back(
        names in prop::collection::vec(any::<String>(), 1..4),
        text in any::<String>(),
        number in any::<f64>(),
    ) {
        let quoted = |text: &str| serde_json::to_string(text).unwrap();
        let path: String = names.iter().map(|name| format!(".{}", quoted(name))).collect();
        let filter = format!("{path} = {} or {path} < {number:e}", quoted(&text));
        match Filter::parse(&filter) {
            Ok(parsed) => {
                prop_assert_eq!(&Filter::parse(&parsed.to_string()).unwrap(), &parsed);
                let payload = names.iter().rev().fold(quoted(&text), |inner, name| {
                    format!("{{{}:{inner}}}", quoted(name))
                });
                let payload = Payload::Json(payload.into());
                let subject = Subject { collection: "", key: b"", text: None, payload: &payload };
                prop_assert!(parsed.matches(&subject));
            }
            Err(error) => prop_assert!(!number.is_finite(), "{filter}: {error}"),
        }
    }

    #[test]
    fn no_text_surprises_the_parser(text in any::<String>()) {
        _ = Filter::parse(&text);
    }
}

/// Filters that are refused.
fn refused() -> Vec<String> {
    let long = format!("a = \"{}\"", "x".repeat(LEN_MAX_BYTES));
    let fields: Vec<String> = (0..=FIELDS_MAX).map(|number| format!("f{number}")).collect();
    let nested = format!("{}a", "not ".repeat(DEPTH_MAX + 1));
    let parentheses = format!("{}a", "(".repeat(DEPTH_MAX + 1));
    let mut refused: Vec<String> = REFUSED.iter().map(|filter| (*filter).to_owned()).collect();
    refused.extend([long, fields.join(" or "), nested, parentheses]);
    refused
}

const REFUSED: [&str; 76] = [
    "",
    "   ",
    "service == \"x\"",
    "service === \"x\"",
    "service <> \"x\"",
    "service =< 5",
    "service => 5",
    "service ~ \"x\"",
    "service =~ \"x\"",
    "service : \"x\"",
    "service =",
    "service = ",
    "service = login1",
    "service = org.freedesktop",
    "service = True",
    "service = nul",
    "service = @key",
    "service = (5)",
    "service = [5]",
    "service = = 5",
    "service \"x\"",
    "service 5",
    "service is 5",
    "service equals 5",
    "service like \"x%\"",
    "service matches \"x\"",
    "service contain \"x\"",
    "service has \"x\"",
    "service startswith \"x\"",
    "service starts \"x\"",
    "service starts with 5",
    "service start with \"x\"",
    "service not \"x\"",
    "service not = 5",
    "service in",
    "service in 5",
    "service in []",
    "service in [5",
    "service in [5 6]",
    "service in [5,]",
    "service in [5, x]",
    "size < null",
    "size >= true",
    "size = 1.2.3",
    "size = 01",
    "size = 1e999",
    "size = -",
    "size = 0x10",
    "5",
    "5 = size",
    "\"service\"",
    "'service' = 5",
    "true",
    "safe and true",
    "safe and null = x",
    "safe && risky",
    "safe || risky",
    "!safe",
    "safe AND risky",
    "safe adn risky",
    "safe risky",
    "size = 5 size = 6",
    "size = 5, safe",
    "safe and",
    "safe and and safe",
    "or safe",
    "in = 5",
    "exist safe",
    "exists",
    "exists = 5",
    "(safe",
    "safe)",
    "@kye = \"x\"",
    "@type = \"x\"",
    "@key.0 = \"x\"",
    "zürich = \"x\" and args. = 5",
];
const REFUSED_TEXTS: [&str; 9] = [
    "service = \"x",
    "service = \"x\\q\"",
    "service = \"\\u12\"",
    "service = \"\\ud800\"",
    "service = \u{201c}x\u{201d}",
    "a$b = 5",
    "/path = 5",
    "safe and\nsize == 5",
    "size = 5;",
];

#[test]
fn what_is_refused_says_where_and_what_to_write() {
    let texts = REFUSED_TEXTS.iter().map(|filter| (*filter).to_owned());
    let mut shown = String::new();
    for filter in refused().into_iter().chain(texts) {
        let error = Filter::parse(&filter).expect_err(&filter);
        assert_eq!(error, filter.parse::<Filter>().unwrap_err());
        shown.push_str(&picture(&filter, &error));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/filter/refused.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &shown).unwrap();
    }
    assert_eq!(shown, fs::read_to_string(&path).unwrap());
}

/// The filter, a caret under its column, and what is said of it.
fn picture(filter: &str, error: &TextError) -> String {
    let line = filter.split('\n').nth(error.line as usize - 1).unwrap();
    let column = error.column as usize;
    assert!(column <= line.chars().count() + 1, "{error}");
    let start = column.saturating_sub(40);
    let part: String = line.chars().skip(start).take(80).collect();
    format!("{part}\n{:>width$}\n{error}\n\n", '^', width = column - start)
}
