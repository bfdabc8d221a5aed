//! The loop, with a plugin that counts.

use std::cell::Cell;

use super::*;
use crate::difference::Place;

/// Its state is `{"count": N}`; each step adds one, and none is made beyond the limit.
struct Counter {
    count: Cell<u64>,
    limit: u64,
}

impl Plugin for Counter {
    const NAME: &'static str = "counter";
    type Action = ();

    fn configure(config: &Value) -> Result<Self> {
        let fields = Fields::of(config, "config", &["limit"])?;
        let limit = fields.number("limit", 0..=100)?.unwrap_or(100);
        Ok(Self { count: Cell::new(0), limit })
    }

    fn query(&self, about: Option<&Value>) -> Result<Value> {
        match about {
            Some(Value::String(text)) => Ok(json!({"long": text.repeat(1000)})),
            _ => Ok(json!({"count": self.count.get()})),
        }
    }

    fn plan(&self, desired: &Value, _: Purpose) -> Result<Vec<Step<()>>> {
        let fields = Fields::of(desired, "", &["count"])?;
        let wanted = fields.number("count", 0..=100)?.unwrap_or(0);
        let step = |from: u64| Place::new(&["all"]).step("count", (from, from + 1), "count", ());
        Ok((self.count.get()..wanted).map(step).collect())
    }

    fn perform(&self, (): ()) -> Result<()> {
        if self.count.get() == self.limit {
            return Err(Error::new(ErrorKind::Busy, "no further"));
        }
        self.count.set(self.count.get() + 1);
        Ok(())
    }
}

const GREETING: &str = r#"{"protocol":1,"plugin":"counter","config":{"limit":2}}"#;

fn served(input: &[u8]) -> Vec<Value> {
    let mut output = Vec::new();
    serve::<Counter>(input, &mut output).unwrap();
    let text = String::from_utf8(output).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The answers to requests after a greeting.
fn asked(requests: &[Value]) -> Vec<Value> {
    let lines: Vec<String> = requests.iter().map(Value::to_string).collect();
    served(format!("{GREETING}\n{}", lines.join("\n")).as_bytes()).split_off(1)
}

fn kind(answer: &Value) -> &str {
    answer["error"]["kind"].as_str().unwrap()
}

#[test]
fn each_verb_is_answered() {
    let desired = json!({"count": 1});
    let change = json!({"path": "all.count", "from": 0, "to": 1, "what": "count"});
    let answers = asked(&[
        json!({"id": 1, "verb": "query"}),
        json!({"id": 2, "verb": "diff", "desired": desired}),
        json!({"id": 3, "verb": "apply", "desired": desired}),
        json!({"id": 4, "verb": "verify", "desired": desired}),
        json!({"id": 5, "verb": "query", "about": {}}),
    ]);
    let expected = [
        json!({"id": 1, "state": {"count": 0}}),
        json!({"id": 2, "changes": [change]}),
        json!({"id": 3, "progress": "count"}),
        json!({"id": 3, "applied": [change]}),
        json!({"id": 4, "differences": []}),
        json!({"id": 5, "state": {"count": 1}}),
    ];
    assert_eq!(answers, expected);
}

#[test]
fn a_failure_tells_what_was_done_and_what_was_not() {
    let answers = asked(&[json!({"id": 7, "verb": "apply", "desired": {"count": 9}})]);
    let last = answers.last().unwrap();
    assert_eq!(last["applied"].as_array().unwrap().len(), 2);
    assert_eq!((kind(last), &last["error"]["change"]["from"]), ("busy", &json!(2)));
    let answers = asked(&[json!({"id": 8, "verb": "apply", "desired": {"cuont": 9}})]);
    assert_eq!(answers[0]["applied"], json!([]));
    assert_eq!((kind(&answers[0]), answers[0]["error"].get("change")), ("invalid", None));
}

#[test]
fn a_greeting_is_answered_with_the_version_or_why_not() {
    let cases = [
        (r#"{"protocol":2,"plugin":"counter","config":{}}"#, "unsupported"),
        (r#"{"protocol":1,"plugin":"lxc","config":{}}"#, "unsupported"),
        (r#"{"protocol":1,"plugin":"counter","config":{"limit":"x"}}"#, "invalid"),
        (r#"{"protocol":1,"plugin":"counter","config":7}"#, "invalid"),
        (r#"{"protocol":1,"plugin":"counter","colour":7}"#, "invalid"),
        (r#"{"protocol":"1","plugin":"counter"}"#, "invalid"),
        (r#"{"id":1,"verb":"query"}"#, "invalid"),
    ];
    for (line, expected) in cases {
        assert_eq!(kind(&served(line.as_bytes())[0]), expected, "{line}");
    }
    let answers = served(format!("{{}}\n{GREETING}\n{GREETING}\n").as_bytes());
    assert_eq!(kind(&answers[0]), "invalid");
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(answers[1], json!({"protocol": 1, "plugin": "counter", "version": version}));
    assert_eq!(kind(&answers[2]), "invalid");
}

#[test]
fn wrong_lines_are_answered_and_the_next_is_read() {
    let wrong: [&[u8]; 11] = [
        b"",
        b"{",
        b"[]",
        b"7",
        b"\xff\xfe",
        br#"{"id":1}"#,
        br#"{"id":1,"verb":"sing"}"#,
        br#"{"id":-1,"verb":"query"}"#,
        br#"{"id":1,"verb":"query","desired":{}}"#,
        br#"{"id":1,"verb":"apply"}"#,
        br#"{"verb":"query"}"#,
    ];
    for line in wrong {
        let query: &[u8] = br#"{"id":2,"verb":"query"}"#;
        let answers = served(&[GREETING.as_bytes(), line, query].join(&b'\n'));
        assert_eq!(answers.len(), 3, "{line:?}");
        assert_eq!(kind(&answers[1]), "invalid", "{line:?}");
        assert_eq!(answers[2], json!({"id": 2, "state": {"count": 0}}), "{line:?}");
    }
}

#[test]
fn lines_are_bounded_in_both_directions() {
    let query = r#"{"id":2,"verb":"query"}"#;
    let line = |len: usize| [query, &" ".repeat(len - query.len())].concat();
    let (longest, longer) = (line(LINE_LEN_MAX_BYTES), line(LINE_LEN_MAX_BYTES + 1));
    let answers = served(format!("{GREETING}\n{longest}\n{longer}\n{query}").as_bytes());
    assert_eq!(answers[1], json!({"id": 2, "state": {"count": 0}}));
    assert_eq!((kind(&answers[2]), answers[2].get("id")), ("invalid", None));
    assert_eq!(answers[3], answers[1]);
    let about = "x".repeat(LINE_LEN_MAX_BYTES / 1000 + 1);
    let answers = asked(&[json!({"id": 9, "verb": "query", "about": about})]);
    assert_eq!((kind(&answers[0]), &answers[0]["id"]), ("io", &json!(9)));
}

#[test]
fn depth_is_bounded() {
    let deep = "[".repeat(100_000);
    assert_eq!(kind(&served(deep.as_bytes())[0]), "invalid");
}
