//! `state.json`: the state that is declared, plugin by plugin.
//!
//! ```json
//! {"version": "1.0", "plugins": {"lxc": {"containers": {}}}}
//! ```
//!
//! The state of a plugin is any object; its meaning is the plugin's. Around it parsing is strict:
//! other keys are refused, and so is a key that stands twice in an object, however deep, because one
//! of its two values would be lost in silence.
//!
//! The text is read twice. The first time nothing is kept but the names of open objects: whatever is
//! wrong is found there, with its place. Only then values are built. Size, depth and number of
//! values are bounded.

mod scan;

use serde_json::Value;

use crate::json::{offset_in, words_of};
use crate::{PluginName, TextError, spelling};
use scan::{Key, Scan};

/// Largest file.
pub const DOCUMENT_LEN_MAX_BYTES: usize = 16 << 20;
/// Most objects and arrays that may lie in each other, the outermost included.
pub const DEPTH_MAX: usize = 64;
/// Most values of a file: in memory each takes far more than the bytes that it may have.
pub const VALUES_COUNT_MAX: usize = 400_000;

const VERSION: &str = "1.0";
const KEYS: [&str; 2] = ["version", "plugins"];

/// What `state.json` says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StateFile {
    /// The plugins and the state of each, an object; in the order of the file, each name once.
    pub plugins: Vec<(PluginName, Value)>,
}

impl StateFile {
    /// The state that is declared for a plugin.
    #[must_use]
    pub fn get(&self, name: &PluginName) -> Option<&Value> {
        self.plugins.iter().find(|(plugin, _)| plugin == name).map(|(_, state)| state)
    }
}

/// Parses a file.
///
/// # Errors
/// Says what is wrong, in which line and column: text that is not JSON, keys that nobody knows or
/// that stand twice, missing keys, another version, names that are none of a plugin, and whatever is
/// over a limit.
pub fn parse(bytes: &[u8]) -> Result<StateFile, TextError> {
    let located = |(at, problem): (usize, String)| TextError::at(bytes, at, 1, problem);
    if bytes.len() > DOCUMENT_LEN_MAX_BYTES {
        let problem = format!("a file of {} bytes is over the limit of 16 MiB", bytes.len());
        return Err(located((0, problem)));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| located((error.valid_up_to(), "not UTF-8".to_owned())))?;
    serde_json::from_str::<serde::de::IgnoredAny>(text)
        .map_err(|error| located((offset_in(bytes, &error), words_of(&error))))?;
    let found = Found::scan(text).map_err(located)?;
    let mut plugins = Vec::with_capacity(found.plugins.len());
    for (name, state) in found.plugins {
        // Numbers and escapes may be too large or incomplete still.
        let value = serde_json::from_str(&text[state.clone()]).map_err(|error| {
            let at = state.start + offset_in(&bytes[state.clone()], &error);
            located((at, words_of(&error)))
        })?;
        plugins.push((name, value));
    }
    Ok(StateFile { plugins })
}

/// Writes a file that [`parse`] reads as the same state.
#[must_use]
pub fn render(file: &StateFile) -> String {
    let plugins = file.plugins.iter().map(|(name, state)| (name.to_string(), state.clone()));
    let plugins = Value::Object(plugins.collect());
    let document = serde_json::json!({ "version": VERSION, "plugins": plugins });
    format!("{document:#}\n")
}

/// What stands where.
#[derive(Default)]
struct Found {
    has_version: bool,
    has_plugins: bool,
    plugins: Vec<(PluginName, std::ops::Range<usize>)>,
}

impl Found {
    /// Looks through JSON that is valid.
    fn scan(text: &str) -> Result<Self, (usize, String)> {
        let (mut scan, mut found) = (Scan::new(text), Self::default());
        let start = scan.skip_space();
        if scan.kind() != "an object" {
            return Err((start, format!("the file must be an object, not {}", scan.kind())));
        }
        scan.object(|scan, key| match key.name.as_ref() {
            "version" => found.version(scan),
            "plugins" => found.plugins(scan),
            _ => Err((key.at, unknown_key(&key))),
        })?;
        for (is_there, key) in [(found.has_version, "version"), (found.has_plugins, "plugins")] {
            if !is_there {
                return Err((start, format!("{key:?} is missing")));
            }
        }
        Ok(found)
    }

    fn version(&mut self, scan: &mut Scan<'_>) -> Result<(), (usize, String)> {
        let range = scan.value()?;
        let found = scan.text(range.clone());
        // Escapes in a version are nobody's habit.
        if found != "\"1.0\"" && found != "1" {
            let shown: String = found.chars().take(64).collect();
            let problem = format!("version is {shown}, this program reads {VERSION:?}");
            return Err((range.start, problem));
        }
        self.has_version = true;
        Ok(())
    }

    fn plugins(&mut self, scan: &mut Scan<'_>) -> Result<(), (usize, String)> {
        if scan.kind() != "an object" {
            let problem = format!("\"plugins\" must be an object, not {}", scan.kind());
            return Err((scan.at(), problem));
        }
        self.has_plugins = true;
        scan.object(|scan, key| {
            let name = key.name.parse::<PluginName>().map_err(|problem| {
                (key.at, format!("{:?} is no name of a plugin: {problem}", key.shown()))
            })?;
            if scan.kind() != "an object" {
                let problem = format!("the state of {name} must be an object, not {}", scan.kind());
                return Err((scan.at(), problem));
            }
            self.plugins.push((name, scan.value()?));
            Ok(())
        })
    }
}

fn unknown_key(key: &Key<'_>) -> String {
    let shown = key.shown();
    match spelling::nearest(&key.name, &KEYS) {
        Some(meant) => format!("unknown key {shown:?}: did you mean {meant:?}?"),
        None => format!("unknown key {shown:?}: known are {}", KEYS.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn error_of(text: &str) -> (u64, u64, String) {
        let error = parse(text.as_bytes()).expect_err(text);
        (error.line, error.column, error.problem)
    }

    #[test]
    fn order_and_numbers_stay() {
        let text = r#" {"plugins": {"z": {"b": [1, {"a": "\u00e4\n"}], "a": 0.1e-6}, "a": {}}, "version": 1} "#;
        let file = parse(text.as_bytes()).unwrap();
        let names: Vec<&str> = file.plugins.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["z", "a"]);
        let state = file.get(&"z".parse().unwrap()).unwrap();
        assert_eq!(*state, json!({"b": [1, {"a": "ä\n"}], "a": 1e-7}));
        assert_eq!(state.to_string(), r#"{"b":[1,{"a":"ä\n"}],"a":1e-7}"#);
        assert_eq!(file.get(&"b".parse().unwrap()), None);
        assert_eq!(parse(render(&file).as_bytes()), Ok(file));
        let empty = render(&StateFile::default());
        assert_eq!(empty, "{\n  \"version\": \"1.0\",\n  \"plugins\": {}\n}\n");
    }

    #[test]
    fn what_is_wrong_is_located() {
        let state =
            |state: &str| format!("{{\"version\": \"1.0\", \"plugins\": {{\"a\":\n{state}}}}}");
        let cases = [
            (String::new(), 1, 1, "EOF while parsing a value"),
            ("[]".into(), 1, 1, "the file must be an object, not an array"),
            ("{}".into(), 1, 1, "\"version\" is missing"),
            ("\n {\"version\": 1}".into(), 2, 2, "\"plugins\" is missing"),
            ("{\"plugins\": {}}".into(), 1, 1, "\"version\" is missing"),
            (
                "{\n\"versoin\": 1}".into(),
                2,
                1,
                "unknown key \"versoin\": did you mean \"version\"?",
            ),
            ("{\"x\": 1}".into(), 1, 2, "unknown key \"x\": known are version, plugins"),
            (
                "{\"version\": \"2.0\"}".into(),
                1,
                13,
                "version is \"2.0\", this program reads \"1.0\"",
            ),
            ("{\"version\": 1.0}".into(), 1, 13, "version is 1.0"),
            ("{\"version\": 1,\n\"version\": 1}".into(), 2, 1, "\"version\" stands here twice"),
            ("{\"plugins\": []}".into(), 1, 13, "\"plugins\" must be an object, not an array"),
            ("{\"plugins\": {\"A\": {}}}".into(), 1, 14, "\"A\" is no name of a plugin"),
            (state("1"), 2, 1, "the state of a must be an object, not a number"),
            (state("null"), 2, 1, "not null"),
            (state("{}, \"b\": true"), 2, 10, "the state of b must be an object, not a boolean"),
            (state("{}, \"a\": {}"), 2, 5, "\"a\" stands here twice"),
            (state("{\"ä\": {\"x\": 1}, \"\\u00e4\": 1}"), 2, 17, "\"ä\" stands here twice"),
            (state("{\"b\": [{\"x\": 1, \"x\": 1}]}"), 2, 17, "\"x\" stands here twice"),
            (state("{\"b\": 1e400}"), 2, 11, "number out of range"),
            (state("{\"b\": \"\\ud800\"}"), 2, 14, "hex escape"),
            (state("{\"b\": 01}"), 2, 8, "invalid number"),
            (state("{\"b\": 1,}"), 2, 9, "key must be a string"),
            (state("{\"b\" 1}"), 2, 6, "expected `:`"),
            (state("{\"b\": \"x"), 2, 11, "EOF while parsing a string"),
            ("{\"version\": 1, \"plugins\": {}} x".into(), 1, 31, "trailing characters"),
        ];
        for (text, line, column, problem) in cases {
            let found = error_of(&text);
            assert!(found.2.contains(problem), "{text}: {found:?}");
            assert_eq!((found.0, found.1), (line, column), "{text}: {found:?}");
        }
        let error = parse(b"{\"version\":\n \"\xFF\"}").unwrap_err();
        assert_eq!((error.line, error.column, error.problem.as_str()), (2, 3, "not UTF-8"));
    }

    #[test]
    fn everything_is_bounded() {
        let document =
            |state: &str| format!("{{\"version\": 1, \"plugins\": {{\"a\": {{\"x\": {state}}}}}}}");
        let nested = |depth: usize| document(&("[".repeat(depth) + &"]".repeat(depth)));
        assert!(parse(nested(DEPTH_MAX - 3).as_bytes()).is_ok());
        let deep = error_of(&nested(DEPTH_MAX - 2));
        assert_eq!((deep.0, deep.1), (1, 39 + 61));
        assert!(deep.2.contains("nested over 64 deep"), "{deep:?}");
        assert!(error_of(&nested(1_000_000)).2.contains("nested over 64 deep"));
        let wide = |count: usize| document(&format!("[0{}]", ",0".repeat(count - 1)));
        // Beside the elements there are the file, its version, plugins, a state and the array.
        assert!(parse(wide(VALUES_COUNT_MAX - 5).as_bytes()).is_ok());
        assert!(error_of(&wide(VALUES_COUNT_MAX - 4)).2.contains("over 400000 values"));
        let long = " ".repeat(DOCUMENT_LEN_MAX_BYTES + 1);
        assert!(error_of(&long).2.contains("over the limit of 16 MiB"));
        let name = "a".repeat(1_000_000);
        assert!(error_of(&format!("{{\"{name}\": 1}}")).2.len() < 200);
    }
}
