//! A stand-in for polkit, which answers as it is told and remembers what it was asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use support::bus::PrivateBus;
use zbus::message::{Message, Type};
use zbus::{Connection, MessageStream, Variant};

/// Its name on a bus.
const NAME: &str = "org.freedesktop.PolicyKit1";
/// The one method that the service calls.
const METHOD: &str = "CheckAuthorization";
/// No question that is waited for comes later.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(2);

/// What it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Answer {
    Yes,
    No,
    /// Not without a password.
    Challenge,
    /// An error.
    Error,
    /// Something of another type.
    Garbage,
    /// A yes in an answer of another type.
    YesOfAnotherType,
    /// Nothing, ever.
    Silence,
    /// A yes once it is released.
    Late,
    /// There is no polkit on the bus.
    Absent,
}

/// What it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) subject_kind: String,
    /// All that was said of the subject: names and values.
    pub(crate) subject: Vec<(String, String)>,
    pub(crate) action: String,
    pub(crate) flags: u32,
}

impl Asked {
    /// Whether it is about this member of the bus, and by nothing but its unique name.
    pub(crate) fn is_about(&self, name: &str) -> bool {
        self.subject_kind == "system-bus-name"
            && self.subject == [("name".to_owned(), name.to_owned())]
    }
}

#[derive(Debug, Default)]
struct State {
    /// By unique name.
    answers: HashMap<String, Answer>,
    asked: Vec<Asked>,
    late: Vec<Message>,
}

/// The stand-in.
pub(crate) struct Polkit {
    connection: Connection,
    state: Arc<Mutex<State>>,
    answering: tokio::task::JoinHandle<()>,
}

impl Drop for Polkit {
    fn drop(&mut self) {
        self.answering.abort();
    }
}

impl Polkit {
    pub(crate) async fn start(bus: &PrivateBus) -> Self {
        let connection = bus.connect().await;
        let state: Arc<Mutex<State>> = Arc::default();
        let stream = MessageStream::from(&connection);
        connection.request_name(NAME).await.expect("nobody has the name");
        let answering = tokio::spawn(answer_all(connection.clone(), stream, Arc::clone(&state)));
        Self { connection, state, answering }
    }

    /// What it answers to questions about a member of the bus; no, unless it is told.
    pub(crate) fn answers(&self, name: &str, answer: Answer) {
        lock(&self.state).answers.insert(name.to_owned(), answer);
    }

    /// Leaves the bus, so far as others see.
    pub(crate) async fn leave(&self) {
        self.connection.release_name(NAME).await.expect("it had the name");
    }

    /// Is back on the bus.
    pub(crate) async fn come_back(&self) {
        self.connection.request_name(NAME).await.expect("nobody has the name");
    }

    /// What it was asked about a member of the bus.
    pub(crate) fn asked_about(&self, name: &str) -> Vec<Asked> {
        let is_about = |asked: &&Asked| asked.subject.iter().any(|(_, value)| value == name);
        lock(&self.state).asked.iter().filter(is_about).cloned().collect()
    }

    /// All that it was asked.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        lock(&self.state).asked.clone()
    }

    /// Waits until a question is held that is answered late.
    pub(crate) async fn holds_a_question(&self) {
        let waited = async {
            while lock(&self.state).late.is_empty() {
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::time::timeout(PATIENCE, waited).await.expect("it is asked");
    }

    /// Says yes to all that was held.
    pub(crate) async fn release(&self) {
        let late = std::mem::take(&mut lock(&self.state).late);
        for question in late {
            reply(&self.connection, &question, Answer::Yes).await;
        }
    }
}

async fn answer_all(connection: Connection, mut stream: MessageStream, state: Arc<Mutex<State>>) {
    while let Some(message) = stream.next().await {
        let Ok(message) = message else { continue };
        let is_question = message.message_type() == Type::MethodCall
            && message.header().member().is_some_and(|member| member.as_str() == METHOD);
        if !is_question {
            continue;
        }
        let asked = question(&message);
        let name = asked.subject.first().map(|(_, value)| value.clone()).unwrap_or_default();
        let answer = {
            let mut state = lock(&state);
            state.asked.push(asked);
            let answer = state.answers.get(&name).copied().unwrap_or(Answer::No);
            if answer == Answer::Late {
                state.late.push(message.clone());
            }
            answer
        };
        reply(&connection, &message, answer).await;
    }
}

/// Subject, action, details, flags, and a number to cancel it by.
type Question<'m> =
    ((&'m str, HashMap<&'m str, Variant<'m>>), &'m str, HashMap<&'m str, &'m str>, u32, &'m str);

fn question(message: &Message) -> Asked {
    let body = message.body();
    let question = body.deserialize::<Question<'_>>();
    let ((kind, details), action, _, flags, _) = question.expect("as polkit defines it");
    let shown = |value: &Variant<'_>| match value {
        Variant::Str(text) => text.to_string(),
        other => format!("{other:?}"),
    };
    Asked {
        subject_kind: kind.to_owned(),
        subject: details.iter().map(|(name, value)| ((*name).to_owned(), shown(value))).collect(),
        action: action.to_owned(),
        flags,
    }
}

async fn reply(connection: &Connection, question: &Message, answer: Answer) {
    let header = question.header();
    let result = |is_authorized: bool, is_challenge: bool| {
        ((is_authorized, is_challenge, HashMap::<&str, &str>::new()),)
    };
    let replied = match answer {
        Answer::Yes => connection.reply(&header, &result(true, false)).await,
        Answer::No => connection.reply(&header, &result(false, false)).await,
        Answer::Challenge => connection.reply(&header, &result(false, true)).await,
        Answer::Error => {
            let name = "org.freedesktop.PolicyKit1.Error.Failed";
            connection.reply_error(&header, name, &"it failed").await
        }
        Answer::Garbage => connection.reply(&header, &"yes").await,
        Answer::YesOfAnotherType => connection.reply(&header, &(true, false)).await,
        Answer::Silence | Answer::Late | Answer::Absent => Ok(()),
    };
    replied.expect("the bus takes an answer");
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
