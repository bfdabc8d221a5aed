//! What may be declared for containers.

use serde_json::{Value, json};

use super::AUTOSTART;
use crate::error::{Error, Result};
use crate::fields::{self, Fields};
use crate::name;

const KEYS: [&str; 6] = ["present", "running", "autostart", "template", "template_args", "config"];
/// Longest key of a configuration.
const KEY_LEN_MAX_BYTES: usize = 128;

/// What is declared for a container; what is not declared is left as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) present: Option<bool>,
    pub(super) running: Option<bool>,
    pub(super) autostart: Option<bool>,
    pub(super) template: Option<String>,
    pub(super) template_args: Vec<String>,
    /// Keys, and the values of their lines.
    pub(super) config: Vec<(String, Vec<String>)>,
}

/// Reads what is declared, in its order.
pub(super) fn parse(desired: &Value) -> Result<Vec<(String, Container)>> {
    let Some(containers) = Fields::of(desired, "", &["containers"])?.object("containers")? else {
        return Ok(Vec::new());
    };
    let named = |(name, value): (&String, &Value)| {
        name::check("container", name)?;
        Ok((name.clone(), container(value, &format!("containers.{name}"))?))
    };
    containers.iter().map(named).collect()
}

fn container(value: &Value, place: &str) -> Result<Container> {
    let fields = Fields::of(value, place, &KEYS)?;
    let template = fields.text("template")?;
    if let Some(template) = template {
        name::check("template", template)?;
    }
    let template_args = fields.texts("template_args")?.unwrap_or_default();
    if template_args.iter().any(|text| text.contains('\0')) {
        return Err(Error::invalid(format!("{place}.template_args: a byte of value 0")));
    }
    let mut config = Vec::new();
    for (key, value) in fields.object("config")?.into_iter().flatten() {
        check_key(key, place)?;
        config.push((key.clone(), lines(value, &format!("{place}.config.{key}"))?));
    }
    Ok(Container {
        present: fields.flag("present")?,
        running: fields.flag("running")?,
        autostart: fields.flag("autostart")?,
        template: template.map(str::to_owned),
        template_args,
        config,
    })
}

fn check_key(key: &str, place: &str) -> Result<()> {
    let shown: String = key.chars().take(KEY_LEN_MAX_BYTES).collect();
    let wrong =
        |problem: &str| Err(Error::invalid(format!("{place}.config: {shown:?}: {problem}")));
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if key == AUTOSTART {
        return wrong("declare \"autostart\" instead");
    }
    if key.len() > KEY_LEN_MAX_BYTES || !key.starts_with("lxc.") || !key.chars().all(allowed) {
        return wrong("no key of LXC: they are like lxc.net.0.type");
    }
    if key.split('.').any(str::is_empty) {
        return wrong("a part of it is empty");
    }
    Ok(())
}

/// The values of a key's lines.
fn lines(value: &Value, place: &str) -> Result<Vec<String>> {
    let lines = match value {
        Value::Null => Vec::new(),
        Value::String(line) => vec![line.clone()],
        _ => fields::texts(value).ok_or_else(|| {
            Error::invalid(format!("{place}: it must be text, a list of texts, or null"))
        })?,
    };
    for line in &lines {
        if line.chars().any(|c| c.is_control() && c != '\t') {
            return Err(Error::invalid(format!(
                "{place}: a line break or another control character"
            )));
        }
        if line.trim() != line {
            return Err(Error::invalid(format!("{place}: a blank at its start or end")));
        }
    }
    Ok(lines)
}

/// The values of a key's lines as they are declared.
pub(super) fn value<T: AsRef<str>>(lines: &[T]) -> Value {
    match lines {
        [] => Value::Null,
        [line] => json!(line.as_ref()),
        lines => lines.iter().map(AsRef::as_ref).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(container: Value) -> Result<Container> {
        let mut parsed = parse(&json!({"containers": {"web": container}}))?;
        Ok(parsed.remove(0).1)
    }

    #[test]
    fn what_is_declared_is_read() {
        let read = one(json!({
            "present": true,
            "template": "busybox",
            "template_args": ["--x"],
            "config": {"lxc.a": "1", "lxc.mount.entry": ["x y", ""], "lxc.hook.pre-start": null},
        }));
        let texts =
            |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let expected = Container {
            present: Some(true),
            template: Some("busybox".to_owned()),
            template_args: texts(&["--x"]),
            config: vec![
                ("lxc.a".to_owned(), texts(&["1"])),
                ("lxc.mount.entry".to_owned(), texts(&["x y", ""])),
                ("lxc.hook.pre-start".to_owned(), Vec::new()),
            ],
            ..Container::default()
        };
        assert_eq!(read, Ok(expected));
        assert_eq!(parse(&json!({})), Ok(Vec::new()));
    }

    #[test]
    fn what_cannot_be_declared_is_refused() {
        let long = format!("lxc.{}", "a".repeat(KEY_LEN_MAX_BYTES));
        let wrong = [
            json!([]),
            json!({"present": 1}),
            json!({"colour": "red"}),
            json!({"template": "/tmp/evil"}),
            json!({"template": "-x"}),
            json!({"template_args": "x"}),
            json!({"template_args": ["a\u{0}"]}),
            json!({"config": {"lxc.start.auto": "1"}}),
            json!({"config": {"net.0.type": "empty"}}),
            json!({"config": {"lxc..x": "empty"}}),
            json!({"config": {"lxc.x = y\nlxc.z": "empty"}}),
            json!({"config": {long: "x"}}),
            json!({"config": {"lxc.x": "a\nlxc.y = b"}}),
            json!({"config": {"lxc.x": "a\r"}}),
            json!({"config": {"lxc.x": ["a", "b\n"]}}),
            json!({"config": {"lxc.x": " a"}}),
            json!({"config": {"lxc.x": 7}}),
        ];
        for container in wrong {
            assert!(one(container.clone()).is_err(), "{container}");
        }
        assert!(parse(&json!({"containers": {"../x": {}}})).is_err());
        assert!(parse(&json!({"networks": {}})).is_err());
    }
}
