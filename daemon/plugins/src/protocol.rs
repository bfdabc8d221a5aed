//! The loop of a plugin: lines in, lines out. What the lines say is in the documentation of the crate.
//!
//! The loop ends only at the end of its input, or when nobody reads its output any more. Lines are
//! bounded in both directions.

use std::io::{self, BufRead, Read, Write};

use serde_json::{Map, Value, json};

use crate::difference::{self, Applied, Change, Step};
use crate::error::{Error, ErrorKind, Result};
use crate::fields::Fields;

/// The version of the protocol.
pub const PROTOCOL: u64 = 1;
/// Longest line, its end not counted.
pub const LINE_LEN_MAX_BYTES: usize = 4 << 20;

const VERBS: [&str; 4] = ["query", "diff", "apply", "verify"];

/// What a plan is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To be carried out: what is missing for that is an error.
    Apply,
    /// To be looked at: what is missing for carrying it out does not matter.
    Verify,
}

/// What a plugin has to do itself.
pub trait Plugin: Sized {
    /// The name, as in `plugin.toml`.
    const NAME: &'static str;
    /// What is done for one change. It may have secrets in it: it is never shown.
    type Action;

    /// Begins, with the table `[config]` of `plugin.toml`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if something in it is wrong.
    fn configure(config: &Value) -> Result<Self>;

    /// Returns the state as it is, and all about the things in `about`, which is like `desired`.
    ///
    /// # Errors
    /// Whatever keeps it from knowing.
    fn query(&self, about: Option<&Value>) -> Result<Value>;

    /// Returns what has to be done, in order, and changes nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if what is declared is wrong, and whatever keeps it from knowing.
    fn plan(&self, desired: &Value, purpose: Purpose) -> Result<Vec<Step<Self::Action>>>;

    /// Does what one change needs.
    ///
    /// # Errors
    /// Whatever keeps it from being done.
    fn perform(&self, action: Self::Action) -> Result<()>;
}

/// Answers requests until the input ends.
///
/// # Errors
/// Those of reading the input and of writing the output.
pub fn serve<P: Plugin>(mut input: impl BufRead, mut output: impl Write) -> io::Result<()> {
    let mut plugin: Option<P> = None;
    let mut line = Vec::new();
    while let Some(fits) = read_line(&mut input, &mut line)? {
        let answer = match fits {
            true => answer(&mut plugin, &line, &mut output)?,
            false => {
                let problem = format!("a line is over the limit of {LINE_LEN_MAX_BYTES} bytes");
                failed(None, &Error::invalid(problem))
            }
        };
        write_line(&mut output, &answer)?;
    }
    Ok(())
}

/// Reads a line without its end. Returns whether it fits; none at the end of the input.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Option<bool>> {
    line.clear();
    let limit = LINE_LEN_MAX_BYTES as u64 + 1;
    if input.by_ref().take(limit).read_until(b'\n', line)? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        return Ok(Some(true));
    }
    if line.len() <= LINE_LEN_MAX_BYTES {
        return Ok(Some(true));
    }
    input.skip_until(b'\n')?;
    Ok(Some(false))
}

fn write_line(output: &mut impl Write, answer: &Value) -> io::Result<()> {
    let mut line = answer.to_string();
    if line.len() > LINE_LEN_MAX_BYTES {
        let problem = format!("the answer has {} bytes, over the limit", line.len());
        line = failed(answer["id"].as_u64(), &Error::new(ErrorKind::Io, problem)).to_string();
    }
    line.push('\n');
    output.write_all(line.as_bytes())?;
    output.flush()
}

fn answer<P: Plugin>(
    plugin: &mut Option<P>,
    line: &[u8],
    output: &mut impl Write,
) -> io::Result<Value> {
    let message = match serde_json::from_slice::<Value>(line) {
        Ok(message @ Value::Object(_)) => message,
        Ok(_) => return Ok(failed(None, &Error::invalid("the line is no JSON object"))),
        Err(error) => {
            let problem = format!("the line is no JSON: {error}");
            return Ok(failed(None, &Error::invalid(problem)));
        }
    };
    if message.get("protocol").is_some() {
        return Ok(match greeted(plugin.is_some(), &message) {
            Ok(greeted) => {
                *plugin = Some(greeted);
                let version = env!("CARGO_PKG_VERSION");
                json!({"protocol": PROTOCOL, "plugin": P::NAME, "version": version})
            }
            Err(error) => failed(None, &error),
        });
    }
    let id = message["id"].as_u64();
    match (request(&message), plugin) {
        (Err(error), _) => Ok(failed(id, &error)),
        (Ok(_), None) => Ok(failed(id, &Error::invalid("a greeting must come first"))),
        (Ok(request), Some(plugin)) => carry_out(plugin, &request, output),
    }
}

fn greeted<P: Plugin>(is_again: bool, message: &Value) -> Result<P> {
    let fields = Fields::of(message, "", &["protocol", "plugin", "config"])?;
    if is_again {
        return Err(Error::invalid("a second greeting"));
    }
    let unsupported = |problem: String| Err(Error::new(ErrorKind::Unsupported, problem));
    match fields.number("protocol", 0..=u64::MAX)? {
        Some(PROTOCOL) => (),
        _ => return unsupported(format!("this plugin speaks version {PROTOCOL} of the protocol")),
    }
    if fields.text("plugin")? != Some(P::NAME) {
        return unsupported(format!("this is the plugin {}", P::NAME));
    }
    let empty = Value::Object(Map::new());
    P::configure(fields.value("config").unwrap_or(&empty))
}

/// A request whose form is right.
struct Request<'a> {
    id: u64,
    verb: &'a str,
    /// What `about` or `desired` has.
    state: Option<&'a Value>,
}

fn request(message: &Value) -> Result<Request<'_>> {
    let missing = |key: &str| Error::invalid(format!("{key}: it is missing"));
    let verb = message.get("verb").ok_or_else(|| missing("verb"))?;
    let verb = verb.as_str().filter(|verb| VERBS.contains(verb)).ok_or_else(|| {
        Error::invalid(format!("verb: an unknown one; there are {}", VERBS.join(", ")))
    })?;
    let key = if verb == "query" { "about" } else { "desired" };
    let fields = Fields::of(message, "", &["id", "verb", key])?;
    let id = fields.number("id", 0..=u64::MAX)?.ok_or_else(|| missing("id"))?;
    let state = fields.value(key);
    if state.is_none() && verb != "query" {
        return Err(missing("desired"));
    }
    Ok(Request { id, verb, state })
}

fn carry_out<P: Plugin>(
    plugin: &P,
    request: &Request<'_>,
    output: &mut impl Write,
) -> io::Result<Value> {
    let id = request.id;
    let nothing = Value::Null;
    let desired = request.state.unwrap_or(&nothing);
    let listed = |key: &str, purpose: Purpose| {
        let steps = plugin.plan(desired, purpose)?;
        let changes: Vec<Value> = steps.iter().map(|step| step.change.to_json()).collect();
        Ok(json!({"id": id, key: changes}))
    };
    let answer = match request.verb {
        "query" => plugin.query(request.state).map(|state| json!({"id": id, "state": state})),
        "diff" => listed("changes", Purpose::Apply),
        "verify" => listed("differences", Purpose::Verify),
        _ => return apply(plugin, id, desired, output),
    };
    Ok(answer.unwrap_or_else(|error| failed(Some(id), &error)))
}

fn apply<P: Plugin>(
    plugin: &P,
    id: u64,
    desired: &Value,
    output: &mut impl Write,
) -> io::Result<Value> {
    let mut told = Ok(());
    let applied = match plugin.plan(desired, Purpose::Apply) {
        Err(error) => Applied { done: Vec::new(), failure: Some((error, None)) },
        Ok(steps) => {
            let mut tell = |change: &Change| {
                if told.is_ok() {
                    told = write_line(output, &json!({"id": id, "progress": change.what}));
                }
            };
            difference::in_order(steps, &mut tell, |action| plugin.perform(action))
        }
    };
    told?;
    let done: Vec<Value> = applied.done.iter().map(Change::to_json).collect();
    let mut answer = json!({"id": id, "applied": done});
    if let Some((error, change)) = applied.failure {
        answer["error"] = failed(None, &error)["error"].take();
        if let Some(change) = change {
            answer["error"]["change"] = change.to_json();
        }
    }
    Ok(answer)
}

/// An error as the protocol has it, without a number if none could be read.
fn failed(id: Option<u64>, error: &Error) -> Value {
    let told = json!({"kind": error.kind.name(), "message": error.message});
    match id {
        Some(id) => json!({"id": id, "error": told}),
        None => json!({"error": told}),
    }
}

#[cfg(test)]
mod tests;
