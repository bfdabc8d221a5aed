//! The published schema of answers in JSON, which all that the program writes keeps to.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use jsonschema::Validator;
use serde_json::{Value, json};

const SCHEMAS: &str = include_str!("../../cli/schemas/answers.json");

/// The schemas as they are published.
pub fn published() -> Value {
    serde_json::from_str(SCHEMAS).expect("the schemas are JSON")
}

/// The commands that have schemas; `error` is one.
pub fn commands() -> Vec<String> {
    validators().keys().cloned().collect()
}

fn validators() -> &'static BTreeMap<String, Validator> {
    static VALIDATORS: OnceLock<BTreeMap<String, Validator>> = OnceLock::new();
    VALIDATORS.get_or_init(|| {
        let schemas = published();
        let definitions = schemas["$defs"].as_object().expect("definitions");
        let names = definitions.keys().filter(|name| !name.starts_with('_'));
        let validator = |name: &String| {
            let mut schema = schemas.clone();
            schema["$ref"] = json!(format!("#/$defs/{}", name.replace(' ', "%20")));
            let validator = jsonschema::validator_for(&schema)
                .unwrap_or_else(|error| panic!("the schema of {name}: {error}"));
            (name.clone(), validator)
        };
        names.map(validator).collect()
    })
}

/// What is wrong with an answer of this command; `None` if nothing is.
pub fn problem(command: &str, answer: &Value) -> Option<String> {
    let validator = validators().get(command)?;
    let problems: Vec<String> = validator
        .iter_errors(answer)
        .map(|error| format!("{} at {}", error, error.instance_path()))
        .collect();
    (!problems.is_empty()).then(|| format!("{command}: {}\n{answer}", problems.join("\n")))
}

/// The command of a line: the first of its words that are one, and as many as belong to it.
pub fn command(words: &[String]) -> Option<&'static str> {
    let names = validators().keys();
    (0..words.len()).find_map(|start| {
        let begins = |name: &&String| {
            name.split(' ')
                .zip(words[start..].iter().map(Some).chain(std::iter::repeat(None)))
                .all(|(word, given)| given.is_some_and(|given| given == word))
        };
        names.clone().filter(begins).max_by_key(|name| name.len()).map(String::as_str)
    })
}

/// Checks all that a run with `--json` has written.
///
/// # Panics
/// If it does not keep to the schema, or there is none for its command.
pub fn check(words: &[String], code: i32, stdout: &[u8], stderr: &str) {
    let has = |word: &str| words.iter().any(|given| given == word);
    // A schema keeps to none of these.
    if !has("--json") || ["--help", "--ack", "schema"].into_iter().any(has) {
        return;
    }
    let shown = words.join(" ");
    let name = command(words);
    let text = String::from_utf8_lossy(stdout);
    let answers: Vec<Value> = match serde_json::from_str(&text) {
        Ok(one) => vec![one],
        Err(_) => text
            .lines()
            .map(|line| {
                serde_json::from_str(line)
                    .unwrap_or_else(|error| panic!("{shown}: {error}: {line}"))
            })
            .collect(),
    };
    for answer in &answers {
        let name = name.unwrap_or_else(|| panic!("no schema is of {shown}"));
        if let Some(problem) = problem(name, answer) {
            panic!("{shown}: {problem}");
        }
    }
    // Found nothing, not as declared, slower than before, and ended by a signal are no errors.
    if !matches!(code, 0 | 1 | 13 | 14 | 130) {
        let last = stderr.lines().last().unwrap_or_default();
        if let Ok(report) = serde_json::from_str(last)
            && let Some(problem) = problem("error", &report)
        {
            panic!("{shown}: {problem}");
        }
    }
}
