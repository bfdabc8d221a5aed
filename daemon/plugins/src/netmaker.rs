//! Networks of Netmaker, by its client.
//!
//! ```json
//! {"networks": {"office": {"present": true, "connected": true, "token": "…"}}}
//! ```
//!
//! - `present`: false leaves a network. Undeclared, the network must have been joined.
//! - `token`: an enrollment key; it is needed to join, and counts only then. It is handed to the
//!   client as an argument, which is the only way that the client knows: while it joins, others on
//!   the machine may see it in the list of processes. It is never told, written or compared.
//!
//! A network that was left cannot be joined again by a rollback alone, because no token is told.
//!
//! What netclient does (1.x, `netclient list`, `join -t`, `leave`, `connect`, `disconnect`): it ends
//! with code 0 after most failures, so each step is compared with the list afterwards. A network that
//! was joined stands in the list only when its daemon has fetched it, which is waited for. Without
//! any network the list is a sentence. An error of a join may repeat the token.
//!
//! In `[config]`: `path`, directories of programs; `timeout_s`, for each run of netclient; `wait_s`,
//! for a network to appear after it was joined.

mod declared;
mod listing;

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::difference::{Place, Step};
use crate::error::{Error, ErrorKind, Result};
use crate::fields::Fields;
use crate::protocol::{Plugin, Purpose};
use crate::run::{self, Finished, Programs, Run};
use declared::{Network, Token};

const CONFIG_KEYS: [&str; 3] = ["path", "timeout_s", "wait_s"];
const TIMEOUT_MAX_S: u64 = 3600;
/// Between two looks for a network that was joined.
const PAUSE: Duration = Duration::from_millis(500);

/// The plugin.
#[derive(Debug)]
pub struct Netmaker {
    programs: Programs,
    timeout: Duration,
    wait: Duration,
}

/// What is done for one change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Join a network.
    Join(String, Token),
    /// Leave a network.
    Leave(String),
    /// Connect a network that was joined, or disconnect it.
    Connect(String, bool),
}

impl Plugin for Netmaker {
    const NAME: &'static str = "netmaker";
    type Action = Action;

    fn configure(config: &Value) -> Result<Self> {
        let fields = Fields::of(config, "config", &CONFIG_KEYS)?;
        let seconds = |key: &str, default: u64| {
            let number = fields.number(key, 1..=TIMEOUT_MAX_S)?.unwrap_or(default);
            Ok::<_, Error>(Duration::from_secs(number))
        };
        Ok(Self {
            programs: Programs::new(fields.text("path")?)?,
            timeout: seconds("timeout_s", 60)?,
            wait: seconds("wait_s", 30)?,
        })
    }

    fn query(&self, about: Option<&Value>) -> Result<Value> {
        let about = about.map_or_else(|| Ok(Vec::new()), declared::parse)?;
        let joined = self.list()?;
        let state = |connected: bool| json!({"present": true, "connected": connected});
        let mut states: BTreeMap<String, Value> =
            joined.into_iter().map(|(name, connected)| (name, state(connected))).collect();
        for (name, _) in about {
            states.entry(name).or_insert_with(|| json!({"present": false}));
        }
        let states: Map<String, Value> = states.into_iter().collect();
        Ok(json!({"networks": states}))
    }

    fn plan(&self, desired: &Value, purpose: Purpose) -> Result<Vec<Step<Action>>> {
        let desired = declared::parse(desired)?;
        let joined = self.list()?;
        let mut steps = Vec::new();
        for (name, network) in desired {
            steps.extend(plan_one(&name, network, joined.get(&name).copied(), purpose)?);
        }
        Ok(steps)
    }

    fn perform(&self, action: Action) -> Result<()> {
        match action {
            Action::Join(name, token) => self.join(&name, &token),
            Action::Leave(name) => {
                let left = self.netclient(&["leave", &name], false, None)?.checked()?;
                self.compare(&left, "leave", &name, None)
            }
            Action::Connect(name, wanted) => {
                // Joining may have connected it already.
                if self.list()?.get(&name) == Some(&wanted) {
                    return Ok(());
                }
                let verb = if wanted { "connect" } else { "disconnect" };
                let done = self.netclient(&[verb, &name], false, None)?.checked()?;
                self.compare(&done, verb, &name, Some(wanted))
            }
        }
    }
}

impl Netmaker {
    /// The networks that were joined, and whether they are connected.
    fn list(&self) -> Result<BTreeMap<String, bool>> {
        let output = self.netclient(&["list"], true, None)?.checked()?.stdout;
        listing::parse(&output)
    }

    fn join(&self, name: &str, token: &Token) -> Result<()> {
        let secret = token.reveal();
        let said = self.netclient(&["join", "-t", secret], false, Some(secret))?.checked()?;
        let end = Instant::now() + self.wait;
        while !self.list()?.contains_key(name) {
            if Instant::now() >= end {
                let problem = format!(
                    "netclient join: {name} is not in its list after {} s; the key may be for \
                     another network, or the server may have to approve it{}",
                    self.wait.as_secs(),
                    quoted(&said.stderr, &said.stdout)
                );
                return Err(Error::new(ErrorKind::Unavailable, problem));
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Compares a network with what a command should have made of it.
    fn compare(&self, said: &Finished, verb: &str, name: &str, wanted: Option<bool>) -> Result<()> {
        if self.list()?.get(name).copied() == wanted {
            return Ok(());
        }
        let problem =
            format!("netclient {verb}: {name} is as it was{}", quoted(&said.stdout, &said.stderr));
        Err(Error::new(ErrorKind::Io, problem))
    }

    fn netclient(
        &self,
        arguments: &[&str],
        reads_all: bool,
        secret: Option<&str>,
    ) -> Result<Finished> {
        let timeout = self.timeout;
        let program = "netclient";
        self.programs.run(Run { program, arguments, timeout, reads_all, secret, chatter: &[] })
    }
}

/// What a program said last, as the end of a sentence: on the first of two outputs, or the second.
fn quoted(first: &str, second: &str) -> String {
    let said = [first, second].map(|text| run::last_line(text, &[]));
    let words = said.into_iter().find(|words| !words.is_empty());
    words.map_or_else(String::new, |words| format!(" (it said: {words})"))
}

/// `joined` is whether the network is connected, if it was joined.
fn plan_one(
    name: &str,
    network: Network,
    joined: Option<bool>,
    purpose: Purpose,
) -> Result<Vec<Step<Action>>> {
    let place = Place::new(&["networks", name]);
    let owned = || name.to_owned();
    let connection = |wanted: bool| {
        let verb = if wanted { "connect" } else { "disconnect" };
        let what = format!("{verb} the network {name}");
        place.step("connected", (!wanted, wanted), what, Action::Connect(owned(), wanted))
    };
    match (network.present, joined) {
        (Some(false), None) => Ok(Vec::new()),
        (Some(false), Some(_)) => {
            let what = format!("leave the network {name}");
            Ok(vec![place.step("present", (true, false), what, Action::Leave(owned()))])
        }
        (_, Some(connected)) => {
            let wanted = Place::wanted(&connected, network.connected);
            Ok(wanted.map(connection).into_iter().collect())
        }
        (None, None) => {
            let problem = format!("the network {name} was not joined: declare \"present\": true");
            Err(Error::new(ErrorKind::NotFound, problem))
        }
        (Some(true), None) => {
            let token = match (network.token, purpose) {
                (Some(token), _) => token,
                (None, Purpose::Verify) => Token::default(),
                (None, Purpose::Apply) => {
                    let problem =
                        format!("the network {name} was not joined: declare its \"token\"");
                    return Err(Error::invalid(problem));
                }
            };
            let what = format!("join the network {name}");
            let join = place.step("present", (false, true), what, Action::Join(owned(), token));
            // One that was just joined is connected.
            Ok([join].into_iter().chain(network.connected.map(connection)).collect())
        }
    }
}
