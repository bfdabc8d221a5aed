//! What the argument of a method may be.

use std::cmp::Ordering;

use regex_lite::{Regex, RegexBuilder};
use serde_json::{Number, Value};

/// What a compiled pattern may take.
const COMPILED_LEN_MAX_BYTES: usize = 64 << 10;

/// Rules for one argument. A rule that is absent holds for every value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Validation {
    /// A string must be this from its start to its end.
    pub pattern: Option<Pattern>,
    /// Least characters of a string, or elements of an array.
    pub len_min: Option<u32>,
    /// Most characters of a string, or elements of an array.
    pub len_max: Option<u32>,
    /// The values that are allowed: strings, numbers and booleans.
    pub one_of: Option<Vec<Value>>,
    /// The least number.
    pub min: Option<Number>,
    /// The greatest number.
    pub max: Option<Number>,
}

/// A regular expression that can be compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// Takes a regular expression of the crate regex-lite.
    ///
    /// # Errors
    /// Why it is none.
    pub fn new(text: &str) -> Result<Self, String> {
        // Alone first: a pattern such as `a)|(b` is right only between the parentheses added below.
        compile(text)?;
        let pattern = Self(text.to_owned());
        compile(&pattern.anchored())?;
        Ok(pattern)
    }

    /// The expression as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the whole of a text is what the expression says. Compiles it, because a mapping may
    /// hold a thousand of them and a call needs a few.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        compile(&self.anchored()).is_ok_and(|regex| regex.is_match(text))
    }

    fn anchored(&self) -> String {
        format!("\\A(?:{})\\z", self.0)
    }
}

fn compile(text: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(text).size_limit(COMPILED_LEN_MAX_BYTES).build();
    built.map_err(|error| error.to_string())
}

impl Validation {
    /// Checks the value of the argument `name`. Of a secret value the message shows nothing.
    ///
    /// # Errors
    /// Which rule the value breaks.
    pub fn check(&self, name: &str, value: &Value, is_secret: bool) -> Result<(), String> {
        let broken = |rule: String| match is_secret {
            true => Err(format!("{name} {rule}")),
            false => Err(format!("{name} is {}, it {rule}", shown(value))),
        };
        if let Some(pattern) = &self.pattern {
            match value.as_str() {
                Some(text) if pattern.matches(text) => {}
                _ => return broken(format!("must be a string that matches {}", pattern.as_str())),
            }
        }
        if self.len_min.is_some() || self.len_max.is_some() {
            let (len, unit) = match value {
                Value::String(text) => (text.chars().count(), "characters"),
                Value::Array(elements) => (elements.len(), "elements"),
                _ => return broken("must be a string or an array".to_owned()),
            };
            if let Some(min) = self.len_min.filter(|&min| len < min as usize) {
                return broken(format!("must have at least {min} {unit}"));
            }
            if let Some(max) = self.len_max.filter(|&max| len > max as usize) {
                return broken(format!("must have at most {max} {unit}"));
            }
        }
        if let Some(allowed) = &self.one_of
            && !allowed.iter().any(|one| same(one, value))
        {
            return broken(format!("must be one of {}", shown_some(allowed)));
        }
        if self.min.is_some() || self.max.is_some() {
            let Value::Number(number) = value else {
                return broken("must be a number".to_owned());
            };
            if let Some(min) = self.min.as_ref().filter(|min| order(number, min) == Ordering::Less)
            {
                return broken(format!("must be at least {min}"));
            }
            if let Some(max) =
                self.max.as_ref().filter(|max| order(number, max) == Ordering::Greater)
            {
                return broken(format!("must be at most {max}"));
            }
        }
        Ok(())
    }

    /// What makes it impossible to satisfy: the later key, and the problem.
    pub(super) fn contradiction(&self) -> Option<(&'static str, String)> {
        if let (Some(min), Some(max)) = (self.len_min, self.len_max)
            && min > max
        {
            return Some(("len_max", format!("len_max is {max}, less than len_min, {min}")));
        }
        if let (Some(min), Some(max)) = (&self.min, &self.max)
            && order(min, max) == Ordering::Greater
        {
            return Some(("max", format!("max is {max}, less than min, {min}")));
        }
        None
    }
}

/// As numbers 1 and 1.0 are the same.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => order(one, other) == Ordering::Equal,
        _ => one == other,
    }
}

/// Whole numbers are compared as such, because a float does not hold all of them.
fn order(one: &Number, other: &Number) -> Ordering {
    match (one.as_i128(), other.as_i128()) {
        (Some(one), Some(other)) => one.cmp(&other),
        _ => {
            let float = |number: &Number| number.as_f64().unwrap_or(f64::NAN);
            float(one).total_cmp(&float(other))
        }
    }
}

/// As many values as a message has room for.
fn shown_some(values: &[Value]) -> String {
    const COUNT_MAX: usize = 16;
    let some: Vec<String> = values.iter().take(COUNT_MAX).map(shown).collect();
    match values.len().saturating_sub(COUNT_MAX) {
        0 => some.join(", "),
        more => format!("{} and {more} more", some.join(", ")),
    }
}

/// As much of a value as a message has room for.
fn shown(value: &Value) -> String {
    value.to_string().chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rule(json: &Value) -> Validation {
        let number = |key: &str| json[key].as_number().cloned();
        let len = |key: &str| json[key].as_u64().map(|len| len as u32);
        Validation {
            pattern: json["pattern"].as_str().map(|text| Pattern::new(text).unwrap()),
            len_min: len("len_min"),
            len_max: len("len_max"),
            one_of: json["one_of"].as_array().cloned(),
            min: number("min"),
            max: number("max"),
        }
    }

    #[test]
    fn values_follow_the_rules() {
        let cases = [
            (json!({}), json!([null]), None),
            (json!({"pattern": "[a-z-]+"}), json!("a-b"), None),
            (
                json!({"pattern": "[a-z-]+"}),
                json!("a-B"),
                Some("x is \"a-B\", it must be a string"),
            ),
            (json!({"pattern": "a|ab"}), json!("ab"), None),
            (json!({"pattern": "a"}), json!("a\n"), Some("must be a string that matches a")),
            (json!({"pattern": "1"}), json!(1), Some("must be a string that matches 1")),
            (json!({"len_min": 1, "len_max": 2}), json!("äö"), None),
            (json!({"len_min": 1}), json!(""), Some("must have at least 1 characters")),
            (json!({"len_max": 2}), json!([1, 2, 3]), Some("must have at most 2 elements")),
            (json!({"len_max": 2}), json!(1), Some("must be a string or an array")),
            (json!({"one_of": ["a", 1]}), json!(1.0), None),
            (json!({"one_of": ["a", 1]}), json!("b"), Some("must be one of \"a\", 1")),
            (json!({"min": 0, "max": 10}), json!(10), None),
            (json!({"min": 0.5}), json!(0), Some("x is 0, it must be at least 0.5")),
            (json!({"max": i64::MAX}), json!(u64::MAX), Some("must be at most")),
            (json!({"max": 10}), json!("1"), Some("must be a number")),
        ];
        for (rules, value, problem) in cases {
            let checked = rule(&rules).check("x", &value, false);
            match (&checked, problem) {
                (Ok(()), None) => {}
                (Err(found), Some(problem)) => assert!(found.contains(problem), "{found}"),
                _ => panic!("{rules} {value}: {checked:?}"),
            }
        }
    }

    #[test]
    fn secret_values_are_not_shown() {
        let all = [
            json!({"pattern": "a"}),
            json!({"len_min": 99}),
            json!({"one_of": ["a"]}),
            json!({"min": 1}),
        ];
        for rules in all {
            let problem = rule(&rules).check("passphrase", &json!("hunter2"), true).unwrap_err();
            assert!(problem.starts_with("passphrase must ") && !problem.contains("hunter2"));
        }
    }

    #[test]
    fn patterns_are_bounded_and_whole() {
        for text in ["(", "a)|(b", "(?x)a # b", "a{1000000}", "(((((a{50}){50}){50}){50}){50})"] {
            assert!(Pattern::new(text).is_err(), "{text}");
        }
        assert!(Pattern::new("(?i)a").unwrap().matches("A"));
    }
}
