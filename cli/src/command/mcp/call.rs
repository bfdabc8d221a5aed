//! Calling a method of a plugin: only through the service, and what is not safe only once somebody has
//! agreed.
//!
//! Whether somebody has is told by the client, if it can ask: it is asked meanwhile, or, as the protocol
//! wants it since 2026-07-28, by an answer that says that there is a question, after which the client
//! calls again. If it cannot ask, there is a second call with a confirmation that the first gave. Where
//! there are two calls, the service has confirmed the first: for that very call, for this connection,
//! once, for a minute.

use std::time::Duration;

use op_dbus_daemon::{Bus, BusError, CONFIRMATION_REQUIRED, PluginProxy};
use op_dbus_engine::{Error as EngineError, ErrorKind};
use rmcp::model::{
    ElicitRequest, ElicitRequestParams, ElicitResult, ElicitationAction, ElicitationSchema,
    ErrorCode, InputRequest, InputRequiredResult, InputResponses, ProtocolVersion,
};
use rmcp::schemars;
use rmcp::service::{ElicitationError, Peer, RequestContext, ServiceError};
use rmcp::{RoleServer, elicit_safe};
use serde::Deserialize;
use serde_json::{Value, json};
use zbus::Connection;

use super::source::Sources;
use crate::command::{call, plugin};
use crate::error::Result;
use crate::output::one_line;

/// How long somebody may think about it.
const THINKING_TIME_MAX: Duration = Duration::from_secs(300);
/// Characters of the arguments that somebody is shown.
const SHOWN_CHARACTERS: usize = 2000;
/// How long a confirmation counts, as the service says.
const CONFIRMATION_SECONDS: u32 = 60;

/// What is asked for.
pub(super) struct Wanted {
    pub(super) plugin: String,
    pub(super) method: String,
    /// JSON: a list, or an object by name.
    pub(super) arguments: Value,
    pub(super) path: String,
    pub(super) confirmation: Option<String>,
}

impl Wanted {
    fn shown(&self) -> Value {
        let Self { plugin, method, arguments, path, .. } = self;
        let path = (!path.is_empty()).then_some(path);
        json!({ "plugin": plugin, "method": method, "arguments": arguments, "path": path })
    }

    fn question(&self) -> String {
        let Self { plugin, method, arguments, path, .. } = self;
        let [plugin, method, path] = [plugin, method, path].map(|text| one_line(text, 200));
        let arguments = one_line(&arguments.to_string(), SHOWN_CHARACTERS);
        let object = if path.is_empty() { String::new() } else { format!(" of {path}") };
        format!("Call {method}{object} by the plugin {plugin}, with {arguments}? It is not safe.")
    }
}

/// What somebody is asked.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
struct Agreed {
    /// Whether it is to be called
    call: bool,
}

elicit_safe!(Agreed);

/// What somebody said.
enum Said {
    Yes,
    No,
    /// The client cannot ask.
    Nobody,
}

/// What became of a call.
pub(super) enum Outcome {
    Told(Value),
    /// There is a question first.
    Asks(InputRequiredResult),
}

/// The client: whether it can be asked, and what it was asked before.
pub(super) struct Asked {
    pub(super) context: RequestContext<RoleServer>,
    /// The confirmation that goes with the question.
    pub(super) state: Option<String>,
    pub(super) responses: Option<InputResponses>,
}

/// The name of the question.
const QUESTION: &str = "agreed";

/// Makes a call, or tells what there is to be confirmed.
pub(super) async fn run(sources: &Sources, asked: Asked, wanted: Wanted) -> Result<Outcome> {
    let (bus, connection) = sources.service().await?;
    let proxy = plugin::proxy(&connection, &wanted.plugin).await.map_err(BusError::from);
    let proxy = proxy.map_err(EngineError::from)?;
    let token = match (&wanted.confirmation, asked.state) {
        (Some(token), _) => token.clone(),
        (None, Some(_)) if !has_agreed(asked.responses) => return Err(declined().into()),
        (None, Some(token)) => token,
        (None, None) if !needs_confirmation(&proxy, &wanted.method).await? => String::new(),
        (None, None) if is_asked_by_answers(&asked.context) => {
            let token = confirm(&proxy, &wanted).await?;
            return Ok(Outcome::Asks(question(&wanted, token)?));
        }
        (None, None) => match ask(&asked.context.peer, &wanted).await? {
            Said::Yes => confirm(&proxy, &wanted).await?,
            Said::No => return Err(declined().into()),
            Said::Nobody => {
                let token = confirm(&proxy, &wanted).await?;
                return Ok(Outcome::Told(to_be_confirmed(&wanted, &token)));
            }
        },
    };
    carry_out((&bus, &connection), &proxy, &wanted, token).await.map(Outcome::Told)
}

/// Whether a client that can ask has to be told so by an answer.
fn is_asked_by_answers(context: &RequestContext<RoleServer>) -> bool {
    let version = context.protocol_version();
    let can_ask = context.client_capabilities().and_then(|able| able.elicitation);
    // One that says no more than that it can has forms.
    version.is_some_and(|version| version >= ProtocolVersion::V_2026_07_28)
        && can_ask.is_some_and(|able| able.form.is_some() || able.url.is_none())
}

fn question(wanted: &Wanted, token: String) -> Result<InputRequiredResult, EngineError> {
    let schema = ElicitationSchema::from_type::<Agreed>().map_err(|error| {
        EngineError::new(ErrorKind::Unsupported, "there is no such question").with_source(error)
    })?;
    let form = ElicitRequestParams::FormElicitationParams {
        meta: None,
        message: wanted.question(),
        requested_schema: schema,
    };
    let asks = [(QUESTION.to_owned(), InputRequest::Elicitation(ElicitRequest::new(form)))].into();
    Ok(InputRequiredResult::new(Some(asks), Some(token)))
}

/// Whether somebody was asked, and said yes.
fn has_agreed(responses: Option<InputResponses>) -> bool {
    let said = responses.and_then(|mut said| said.remove(QUESTION));
    let said = said.and_then(|said| serde_json::from_value::<ElicitResult>(said).ok());
    said.is_some_and(|said| {
        let content = said.content.map(serde_json::from_value::<Agreed>);
        said.action == ElicitationAction::Accept
            && matches!(content, Some(Ok(Agreed { call: true })))
    })
}

async fn carry_out(
    (bus, connection): (&Bus, &Connection),
    proxy: &PluginProxy<'_>,
    wanted: &Wanted,
    token: String,
) -> Result<Value> {
    let Wanted { method, path, arguments, .. } = wanted;
    let prepared =
        proxy.prepare_call(method.clone(), path.clone(), arguments.to_string(), token).await;
    let prepared = prepared.map_err(|error| match error.name() {
        // Of what its description does not list: properties.
        CONFIRMATION_REQUIRED => EngineError::new(ErrorKind::Denied, error.problem().to_owned())
            .with_remedy("call it by op-dbus plugin call --confirm, if you mean it"),
        _ => error.into(),
    })?;
    let answer = call::carry_out(bus, connection, proxy, &prepared).await?;
    Ok(json!({ "called": true, "answer": answer }))
}

/// Whether the plugin says that this method has to be confirmed; what it does not list the service
/// decides about.
async fn needs_confirmation(proxy: &PluginProxy<'_>, method: &str) -> Result<bool, EngineError> {
    let described: Value = serde_json::from_str(&proxy.describe().await?).unwrap_or_default();
    let methods = described["methods"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_meant = |known: &&Value| {
        let name = known["name"].as_str().unwrap_or_default();
        name == method || name.ends_with(&format!(".{method}"))
    };
    // What is denied is refused by the service, and needs no question.
    let needs = |known: &Value| known["allowed"] == true && known["requires_confirmation"] == true;
    Ok(methods.iter().filter(is_meant).any(needs) || is_written_property(method))
}

/// Writing a property may have to be confirmed, and it is always asked about.
fn is_written_property(method: &str) -> bool {
    method == "org.freedesktop.DBus.Properties.Set"
}

async fn confirm(proxy: &PluginProxy<'_>, wanted: &Wanted) -> Result<String, EngineError> {
    let Wanted { method, path, arguments, .. } = wanted;
    Ok(proxy.confirm_call(method.clone(), path.clone(), arguments.to_string()).await?)
}

async fn ask(peer: &Peer<RoleServer>, wanted: &Wanted) -> Result<Said, EngineError> {
    let asked =
        peer.elicit_with_timeout::<Agreed>(wanted.question(), Some(THINKING_TIME_MAX)).await;
    match asked {
        Ok(Some(Agreed { call: true })) => Ok(Said::Yes),
        Ok(_) | Err(ElicitationError::UserDeclined | ElicitationError::UserCancelled) => {
            Ok(Said::No)
        }
        Err(ElicitationError::CapabilityNotSupported) => Ok(Said::Nobody),
        // A client may not know such questions that says it does.
        Err(ElicitationError::Service(ServiceError::McpError(error)))
            if matches!(error.code, ErrorCode::INVALID_REQUEST | ErrorCode::METHOD_NOT_FOUND) =>
        {
            Ok(Said::Nobody)
        }
        Err(error) => Err(EngineError::new(ErrorKind::Denied, "nobody has agreed to the call")
            .with_source(error)
            .with_remedy("call again, and answer the question")),
    }
}

fn declined() -> EngineError {
    EngineError::new(ErrorKind::Denied, "the user does not want it called")
        .with_remedy("do not call it again unless the user asks for it")
}

fn to_be_confirmed(wanted: &Wanted, token: &str) -> Value {
    json!({
        "called": false,
        "would_call": wanted.shown(),
        "confirmation": token,
        "expires_in_seconds": CONFIRMATION_SECONDS,
        "next": "Nothing was called: it is not safe. Show the user what would be called. If they \
                 agree, call again with the same arguments and this confirmation; it counts once.",
    })
}
