//! A call that somebody asks for: checked here, made by whoever asked, on a connection of their own.
//!
//! The service never calls for others: what it may do, they might not. It compares the call with the
//! plugin's introspection and mapping, says what has to be called, and hears how it ended.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use op_dbus_engine::ErrorKind;
use op_dbus_formats::semantic_mapping::MappedMethod;
use rustix::rand::{GetRandomFlags, getrandom};
use serde_json::{Value, json};

use super::REDACTED;
use super::load::{LoadedPlugin, MappedService};
use super::property::{self, Allowed};
use crate::authority::Action;
use crate::error::{BusError, Result};
use crate::gate::Permit;
use crate::json;

/// How long a confirmation counts.
const CONFIRMATION_TIME: Duration = Duration::from_secs(60);
/// Confirmations that wait at the same time.
const TOKENS_COUNT_MAX: usize = 1000;
/// Calls that were allowed and whose end is not known yet.
const PENDING_COUNT_MAX: usize = 1000;
/// What a caller has to tell how it ended, beyond the time that the call itself may take.
const GRACE: Duration = Duration::from_secs(30);
/// A call that its plugin allows, as far as it can say.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    pub(crate) service: String,
    pub(crate) path: String,
    pub(crate) interface: String,
    pub(crate) member: String,
    /// The types of the arguments, one after the other.
    pub(crate) signature: String,
    pub(crate) arguments: Vec<Value>,
    pub(crate) timeout_ms: u32,
    pub(crate) is_safe: bool,
    pub(crate) requires_confirmation: bool,
    calls_per_minute_max: u32,
    /// The arguments as the journal has them.
    redacted: Value,
    has_secret_args: bool,
    returns_secret: bool,
}

impl Checked {
    /// In a line, as the journal has it.
    pub(crate) fn what(&self) -> String {
        format!("call {}.{}", self.interface, self.member)
    }

    /// What the journal has of it.
    pub(crate) fn details(&self, plugin: &str) -> Value {
        json!({
            "plugin": plugin,
            "service": self.service,
            "path": self.path,
            "arguments": self.redacted,
            "safe": self.is_safe,
        })
    }

    /// What a confirmation is bound to.
    fn hash(&self, plugin: &str) -> blake3::Hash {
        let bound =
            json!([plugin, self.service, self.path, self.interface, self.member, self.arguments]);
        blake3::hash(bound.to_string().as_bytes())
    }

    /// Who has to allow it, once it is confirmed or needs not to be.
    pub(crate) fn action(&self, is_confirmed: bool) -> Action {
        match self.requires_confirmation && !is_confirmed {
            true => Action::CallConfirmed,
            false => Action::Call,
        }
    }
}

/// Compares a call with what its plugin says.
///
/// # Errors
/// [`ErrorKind::Denied`] if the mapping does not name the method or denies it,
/// [`ErrorKind::Invalid`] if the arguments do not fit, [`ErrorKind::Unsupported`] if the plugin calls
/// nothing.
pub(crate) fn check(
    loaded: &LoadedPlugin,
    method: &str,
    path: Option<&str>,
    arguments: &Value,
) -> Result<Checked> {
    let name = &loaded.plugin.name;
    let Some(service) = &loaded.service else {
        let problem = format!("the plugin {name} is hand-written: it has state, and no methods");
        return Err(BusError::new(ErrorKind::Unsupported, problem, "use op-dbus state"));
    };
    if let Some(allowed) = property::check(loaded, service, method, arguments)? {
        return of_property(loaded, service, path, allowed);
    }
    let Some((interface, found)) = service.method(method) else {
        let problem = format!("the plugin {name} has no method {method}, or several");
        return Err(BusError::new(
            ErrorKind::NotFound,
            problem,
            "say interface.Member, as Describe",
        ));
    };
    let mapping = &service.mapping;
    if mapping.denies(&interface.name, &found.name) {
        let problem = format!("the plugin {name} denies {method} to everybody");
        return Err(BusError::new(ErrorKind::Denied, problem, "see [safety] in its mapping"));
    }
    let Some(mapped) = mapping.method(&interface.name, &found.name) else {
        let problem = format!("the mapping of {name} says nothing about {method}");
        return Err(BusError::new(ErrorKind::Denied, problem, "add it to semantic-mapping.toml"));
    };
    let names = argument_names(mapped, found);
    let arguments = complete(arguments, &names, mapped)?;
    validate(&arguments, &names, mapped)?;
    let types: Vec<&str> = found.inputs().map(|input| input.type_signature.as_str()).collect();
    let is_secret = |name: &String| mapped.secret_args.contains(name);
    json::body(&arguments, &types).map_err(|problem| {
        // It quotes the value.
        let problem = match names.iter().any(is_secret) {
            true => "the arguments do not fit".to_owned(),
            false => problem,
        };
        let remedy = format!("give {} values of the types {}", types.len(), types.join(", "));
        BusError::new(ErrorKind::Invalid, format!("{method}: {problem}"), &remedy)
    })?;
    let redacted = names.iter().zip(&arguments).map(|(name, value)| {
        let value = if is_secret(name) { REDACTED.into() } else { value.clone() };
        (name.clone(), value)
    });
    Ok(Checked {
        service: mapping.service.name.clone(),
        path: target_path(loaded, path)?,
        interface: interface.name.clone(),
        member: found.name.clone(),
        signature: found.input_signature(),
        redacted: Value::Object(redacted.collect()),
        arguments,
        timeout_ms: mapping.safety.timeout_ms,
        is_safe: mapped.safe,
        requires_confirmation: mapped.requires_confirmation,
        calls_per_minute_max: mapping.safety.calls_per_minute_max,
        has_secret_args: !mapped.secret_args.is_empty(),
        returns_secret: mapped.returns_secret,
    })
}

/// The call that reads or writes a property.
fn of_property(
    loaded: &LoadedPlugin,
    service: &MappedService,
    path: Option<&str>,
    allowed: Allowed<'_>,
) -> Result<Checked> {
    let Allowed { member, arguments, mapped } = allowed;
    let is_read = member == "Get";
    let mut redacted = arguments.clone();
    if mapped.secret && !is_read {
        redacted[2] = REDACTED.into();
    }
    Ok(Checked {
        service: service.mapping.service.name.clone(),
        path: target_path(loaded, path)?,
        interface: property::INTERFACE.to_owned(),
        member: member.to_owned(),
        signature: if is_read { "ss" } else { "ssv" }.to_owned(),
        redacted: Value::Array(redacted),
        arguments,
        timeout_ms: service.mapping.safety.timeout_ms,
        is_safe: is_read,
        requires_confirmation: !is_read && mapped.requires_confirmation,
        calls_per_minute_max: service.mapping.safety.calls_per_minute_max,
        has_secret_args: mapped.secret && !is_read,
        returns_secret: mapped.secret,
    })
}

/// The object that is called: the plugin's own, or one below it.
fn target_path(loaded: &LoadedPlugin, asked: Option<&str>) -> Result<String> {
    let own = loaded.service_path();
    let Some(asked) = asked else { return Ok(own.to_owned()) };
    let is_below = own == "/" || asked == own || asked.starts_with(&format!("{own}/"));
    if is_below && zbus::ObjectPath::try_from(asked).is_ok() {
        return Ok(asked.to_owned());
    }
    let problem = format!("{asked} is no object of the plugin {}", loaded.plugin.name);
    Err(BusError::new(ErrorKind::Denied, problem, &format!("name {own}, or an object below it")))
}

/// The names of arguments: of the mapping, else of the introspection, else their numbers.
fn argument_names(
    mapped: &MappedMethod,
    method: &op_dbus_formats::introspection::Method,
) -> Vec<String> {
    if let Some(names) = &mapped.args {
        return names.clone();
    }
    let named = method.inputs().enumerate();
    named.map(|(index, input)| input.name.clone().unwrap_or(format!("arg{index}"))).collect()
}

/// Takes a list in order, or an object by name, and adds defaults.
fn complete(given: &Value, names: &[String], mapped: &MappedMethod) -> Result<Vec<Value>> {
    let invalid = |problem: String| {
        let remedy = format!("the arguments are {}", names.join(", "));
        BusError::new(ErrorKind::Invalid, problem, &remedy)
    };
    let given: Vec<Option<Value>> = match given {
        Value::Array(values) if values.len() > names.len() => {
            return Err(invalid(format!("{} arguments are too many", values.len())));
        }
        Value::Array(values) => {
            let missing = names.len() - values.len();
            values.iter().cloned().map(Some).chain(std::iter::repeat_n(None, missing)).collect()
        }
        Value::Object(values) => {
            if let Some(unknown) = values.keys().find(|key| !names.contains(key)) {
                return Err(invalid(format!("there is no argument {unknown}")));
            }
            names.iter().map(|name| values.get(name).cloned()).collect()
        }
        _ => return Err(invalid("arguments are a JSON list or object".to_owned())),
    };
    let complete = names.iter().zip(given).map(|(name, value)| {
        let default = || mapped.defaults.get(name).cloned();
        value.or_else(default).ok_or_else(|| invalid(format!("the argument {name} is missing")))
    });
    complete.collect()
}

fn validate(arguments: &[Value], names: &[String], mapped: &MappedMethod) -> Result<()> {
    for (name, value) in names.iter().zip(arguments) {
        let Some(rules) = mapped.validation.get(name) else { continue };
        let is_secret = mapped.secret_args.contains(name);
        rules.check(name, value, is_secret).map_err(|problem| {
            BusError::new(ErrorKind::Invalid, problem, "see [validation] in the mapping")
        })?;
    }
    Ok(())
}

/// A confirmation that somebody has given and not used yet.
struct Token {
    identity: String,
    bound: blake3::Hash,
    expires: Instant,
}

/// A call that was allowed, until its caller says how it ended.
struct Pending {
    permit: Permit,
    identity: String,
    has_secret_args: bool,
    returns_secret: bool,
    expires: Instant,
}

/// Calls on their way: confirmations, those that were allowed, and how many there were lately.
#[derive(Default)]
pub(crate) struct Calls {
    tokens: Mutex<HashMap<String, Token>>,
    pending: Mutex<HashMap<u64, Pending>>,
    lately: Mutex<HashMap<String, Vec<Instant>>>,
}

impl Calls {
    /// Makes a confirmation of this very call by this caller, to be used once and soon.
    pub(crate) fn confirm(&self, plugin: &str, call: &Checked, identity: &str) -> Result<String> {
        self.confirm_at(Instant::now(), plugin, call, identity)
    }

    fn confirm_at(
        &self,
        now: Instant,
        plugin: &str,
        call: &Checked,
        identity: &str,
    ) -> Result<String> {
        let mut bytes = [0_u8; 32];
        // The kernel's generator, once it is ready, fills 32 bytes at once.
        let filled = getrandom(&mut bytes, GetRandomFlags::empty());
        if !filled.is_ok_and(|count| count == bytes.len()) {
            let problem = "the kernel gives no random numbers";
            return Err(BusError::new(ErrorKind::Io, problem, "try again"));
        }
        let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut tokens = lock(&self.tokens);
        tokens.retain(|_, token| token.expires > now);
        if tokens.len() >= TOKENS_COUNT_MAX {
            let problem = "too many confirmations wait to be used";
            return Err(BusError::limits_exceeded(problem, "try again in a minute"));
        }
        let known = Token {
            identity: identity.to_owned(),
            bound: call.hash(plugin),
            expires: now + CONFIRMATION_TIME,
        };
        tokens.insert(token.clone(), known);
        Ok(token)
    }

    /// Uses a confirmation up. Whoever shows one for something else has lost it.
    pub(crate) fn use_token(
        &self,
        token: &str,
        plugin: &str,
        call: &Checked,
        identity: &str,
    ) -> Result<()> {
        self.use_token_at(Instant::now(), token, plugin, call, identity)
    }

    fn use_token_at(
        &self,
        now: Instant,
        token: &str,
        plugin: &str,
        call: &Checked,
        identity: &str,
    ) -> Result<()> {
        let known = lock(&self.tokens).remove(token);
        let denied = |problem| Err(BusError::new(ErrorKind::Denied, problem, "confirm it anew"));
        match known {
            None => denied("there is no such confirmation, or it was used"),
            Some(known) if known.expires <= now => denied("the confirmation is too old"),
            Some(known) if known.identity != identity => {
                denied("the confirmation was given to somebody else")
            }
            Some(known) if known.bound != call.hash(plugin) => {
                denied("the confirmation is of another call")
            }
            Some(_) => Ok(()),
        }
    }

    /// Counts a call of a plugin, unless there were too many in the last minute.
    pub(crate) fn count(&self, plugin: &str, call: &Checked) -> Result<()> {
        const MINUTE: Duration = Duration::from_secs(60);
        let mut lately = lock(&self.lately);
        let calls = lately.entry(plugin.to_owned()).or_default();
        let now = Instant::now();
        calls.retain(|then| now.duration_since(*then) < MINUTE);
        if calls.len() >= call.calls_per_minute_max as usize {
            let problem =
                format!("{plugin} had {} calls in the last minute", call.calls_per_minute_max);
            return Err(BusError::limits_exceeded(problem, "wait a minute"));
        }
        calls.push(now);
        Ok(())
    }

    /// Keeps what was allowed until its end is known; returns its number.
    pub(crate) fn begin(&self, permit: Permit, call: &Checked, identity: &str) -> Result<u64> {
        let mut pending = lock(&self.pending);
        if pending.len() >= PENDING_COUNT_MAX {
            // The permit's end is journaled as broken off.
            let problem = "too many calls have begun and not ended";
            return Err(BusError::limits_exceeded(problem, "say how they ended, by FinishCall"));
        }
        let number = permit.intent();
        let expires = Instant::now() + Duration::from_millis(call.timeout_ms.into()) + GRACE;
        let identity = identity.to_owned();
        let Checked { has_secret_args, returns_secret, .. } = *call;
        let permit = permit.left_open();
        let call = Pending { permit, identity, has_secret_args, returns_secret, expires };
        pending.insert(number, call);
        Ok(number)
    }

    /// Takes a call that its caller says has ended, and what of its answer may be journaled.
    pub(crate) fn end(
        &self,
        number: u64,
        identity: &str,
        succeeded: bool,
        answer: &str,
    ) -> Result<(Permit, Value)> {
        let mut pending = lock(&self.pending);
        let is_own = pending.get(&number).is_some_and(|call| call.identity == identity);
        // That of somebody else stays theirs.
        let Some(call) = is_own.then(|| pending.remove(&number)).flatten() else {
            let problem = format!("you have begun no call {number}, or it has ended");
            return Err(BusError::new(ErrorKind::NotFound, problem, "begin one by PrepareCall"));
        };
        // An error may quote what was given.
        let is_secret = if succeeded { call.returns_secret } else { call.has_secret_args };
        let answer = if is_secret { REDACTED } else { beginning(answer) };
        Ok((call.permit, json!({ "succeeded": succeeded, "answer": answer })))
    }

    /// Gives up what waits too long, or for somebody who has gone. Each permit that is dropped
    /// journals that nobody knows how it ended.
    pub(crate) fn give_up(&self, gone: Option<&str>) -> Vec<Permit> {
        let now = Instant::now();
        let mut pending = lock(&self.pending);
        let is_over =
            |call: &Pending| call.expires <= now || gone.is_some_and(|gone| gone == call.identity);
        let over: Vec<u64> =
            pending.iter().filter(|(_, call)| is_over(call)).map(|(number, _)| *number).collect();
        if let Some(gone) = gone {
            lock(&self.tokens).retain(|_, token| token.identity != gone);
        }
        over.iter().filter_map(|number| Some(pending.remove(number)?.permit)).collect()
    }
}

/// What the journal keeps of an answer.
fn beginning(answer: &str) -> &str {
    const LEN_MAX_BYTES: usize = 1024;
    &answer[..answer.floor_char_boundary(LEN_MAX_BYTES)]
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(arguments: Value) -> Checked {
        Checked {
            service: "org.example.Thing".to_owned(),
            path: "/org/example/Thing".to_owned(),
            interface: "org.example.Thing1".to_owned(),
            member: "Break".to_owned(),
            signature: "s".to_owned(),
            arguments: vec![arguments],
            timeout_ms: 1000,
            is_safe: false,
            requires_confirmation: true,
            calls_per_minute_max: 2,
            redacted: json!({}),
            has_secret_args: false,
            returns_secret: false,
        }
    }

    #[test]
    fn a_confirmation_counts_for_a_minute() {
        let (calls, now) = (Calls::default(), Instant::now());
        let call = call(json!("a"));
        let token = || calls.confirm_at(now, "thing", &call, ":1.1").unwrap();
        let used = |token: &str, later: Duration| {
            let used = calls.use_token_at(now + later, token, "thing", &call, ":1.1");
            used.map_err(|error| error.problem().to_owned())
        };
        assert_eq!(used(&token(), CONFIRMATION_TIME - Duration::from_millis(1)), Ok(()));
        let old = token();
        assert_eq!(used(&old, CONFIRMATION_TIME), Err("the confirmation is too old".to_owned()));
        // Shown too late, it is spent.
        assert!(used(&old, Duration::ZERO).unwrap_err().contains("no such confirmation"));
    }

    #[test]
    fn a_confirmation_is_bound_to_plugin_caller_and_call() {
        let calls = Calls::default();
        let one = call(json!("a"));
        let token = || calls.confirm("thing", &one, ":1.1").unwrap();
        assert!(calls.use_token(&token(), "other", &one, ":1.1").is_err());
        assert!(calls.use_token(&token(), "thing", &one, ":1.2").is_err());
        assert!(calls.use_token(&token(), "thing", &call(json!("b")), ":1.1").is_err());
        let elsewhere = Checked { path: "/org/example/Other".to_owned(), ..one.clone() };
        assert!(calls.use_token(&token(), "thing", &elsewhere, ":1.1").is_err());
        let other = Checked { member: "Mend".to_owned(), ..one.clone() };
        assert!(calls.use_token(&token(), "thing", &other, ":1.1").is_err());
        let used = token();
        assert!(calls.use_token(&used, "thing", &one, ":1.1").is_ok());
        assert!(calls.use_token(&used, "thing", &one, ":1.1").is_err());
        // Whoever goes takes theirs along.
        let left = token();
        assert!(calls.give_up(Some(":1.1")).is_empty());
        assert!(calls.use_token(&left, "thing", &one, ":1.1").is_err());
    }

    #[test]
    fn calls_in_a_minute_are_counted() {
        let (calls, call) = (Calls::default(), call(json!("a")));
        assert!(calls.count("thing", &call).is_ok() && calls.count("thing", &call).is_ok());
        assert!(calls.count("thing", &call).is_err());
        assert!(calls.count("other", &call).is_ok());
    }
}
