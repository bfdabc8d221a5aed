//! An entry of the journal in a sentence: who did what, and how it ended. No arguments' values and
//! no answers, which may be secret.

use op_dbus_engine::JournalRecord;
use serde::Deserialize;

use super::beginning;
use crate::interfaces::interface_words;

const TEXT_LEN_MAX_BYTES: usize = 1000;

/// The part of an entry's details that is told.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Details {
    plugin: Option<String>,
    denied: Option<String>,
    allowed: Option<bool>,
    succeeded: Option<bool>,
    well: Option<bool>,
    version: Option<String>,
}

/// Says what an entry tells.
pub(super) fn sentence(entry: &JournalRecord) -> String {
    // What somebody else wrote may have other types.
    let details: Details = serde_json::from_str(entry.details.get()).unwrap_or_default();
    let who = match &entry.actor {
        Some(actor) => format!("user {}", actor.uid),
        None => "the service".to_owned(),
    };
    let mut text = format!("{who} {}", past(&entry.action));
    if let Some(version) = &details.version {
        text.push_str(&format!(" version {version}"));
    }
    if let Some(plugin) = &details.plugin {
        text.push_str(&format!(" through the plugin {plugin}"));
    }
    if let Some(program) = entry.actor.as_ref().map(|actor| &actor.executable)
        && !program.is_empty()
    {
        text.push_str(&format!(" by {}", program.rsplit('/').next().unwrap_or(program)));
    }
    text.push_str(&ending(entry.kind, &details));
    beginning(&text, TEXT_LEN_MAX_BYTES).to_owned()
}

fn ending(kind: &str, details: &Details) -> String {
    match (kind, &details.denied, details.succeeded.or(details.well)) {
        (_, Some(reason), _) => format!("; denied: {reason}"),
        ("denial", ..) => "; denied".to_owned(),
        ("outcome", _, Some(true)) => "; it succeeded".to_owned(),
        // Why may quote a value, and stands in the payload.
        (_, _, Some(false)) => "; it failed".to_owned(),
        ("outcome", _, None) => "; nobody knows how it ended".to_owned(),
        _ if details.allowed == Some(true) => "; allowed".to_owned(),
        _ => String::new(),
    }
}

/// `call org.freedesktop.hostname1.SetHostname` as `called hostname1 SetHostname`.
fn past(action: &str) -> String {
    const PAST: &[(&str, &str)] = &[
        ("apply", "applied"),
        ("call", "called"),
        ("clear", "cleared"),
        ("confirm call", "confirmed a call of"),
        ("delete", "deleted"),
        ("evict", "evicted"),
        ("reload", "reloaded"),
        ("start", "started"),
        ("stop", "stopped"),
        ("take", "took"),
    ];
    let begins = |word: &str| match action.strip_prefix(word) {
        Some(rest) if rest.is_empty() || rest.starts_with(' ') => Some(rest.trim_start()),
        _ => None,
    };
    let found = PAST.iter().find_map(|(word, past)| Some((*past, begins(word)?)));
    let (verb, object) = found.unwrap_or(("", action));
    let object = match object.rsplit_once('.') {
        Some((interface, member)) if verb.contains("call") => {
            format!("{} {member}", interface_words(interface))
        }
        _ => object.to_owned(),
    };
    format!("{verb} {object}").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use op_dbus_engine::JournalActor;
    use serde_json::value::RawValue;

    fn entry(kind: &'static str, action: &str, uid: Option<u32>, details: &str) -> JournalRecord {
        JournalRecord {
            number: 1,
            written_at_unix_ms: 0,
            sequence: 0,
            kind,
            intent: None,
            actor: uid.map(|uid| JournalActor {
                uid,
                sender: ":1.7".to_owned(),
                executable: "/usr/bin/busctl".to_owned(),
            }),
            action: action.to_owned(),
            details: RawValue::from_string(details.to_owned()).unwrap(),
            hash: String::new(),
        }
    }

    #[test]
    fn an_entry_becomes_a_sentence_without_values() {
        let call = "call org.freedesktop.hostname1.SetHostname";
        let cases = [
            (
                entry(
                    "denial",
                    call,
                    Some(1000),
                    r#"{"plugin":"hostname","arguments":{"hostname":"hidden"},"denied":"no"}"#,
                ),
                "user 1000 called hostname1 SetHostname through the plugin hostname by busctl; \
                 denied: no",
            ),
            (
                entry("outcome", call, Some(0), r#"{"succeeded":true,"answer":"hidden"}"#),
                "user 0 called hostname1 SetHostname by busctl; it succeeded",
            ),
            (
                entry(
                    "outcome",
                    "put state web1",
                    Some(0),
                    r#"{"succeeded":false,"problem":"hidden"}"#,
                ),
                "user 0 put state web1 by busctl; it failed",
            ),
            (
                entry("outcome", "take a snapshot", None, r#"{"succeeded":null,"problem":"p"}"#),
                "the service took a snapshot; nobody knows how it ended",
            ),
            (
                entry("denial", "read", Some(7), r#"{"allowed":false}"#),
                "user 7 read by busctl; denied",
            ),
            (
                entry("event", "start", None, r#"{"version":"0.1.0","well":true}"#),
                "the service started version 0.1.0",
            ),
            (entry("event", "starting", None, "{\"plugin\":[]}"), "the service starting"),
        ];
        for (entry, expected) in cases {
            assert_eq!(sentence(&entry), expected);
        }
    }
}
