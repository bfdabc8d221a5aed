//! The state of a hand-written plugin: its executable is asked, in lines of JSON.
//!
//! It runs as the user and in the sandbox that its `plugin.toml` declares: by systemd, which listens at
//! a socket of its own for each plugin, or, where there is none, by this program, confined by Landlock.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use op_dbus_engine::ErrorKind;
use op_dbus_formats::plugin::{PluginSource, Sandbox};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::{Applied, Change};
use crate::error::{BusError, Result};
use crate::plugin::LoadedPlugin;

/// Where systemd listens for plugins.
const SOCKETS: &str = "/run/op-dbus-plugins";
/// The version of what is said.
const PROTOCOL: u64 = 1;
/// No line is longer.
const LINE_LEN_MAX_BYTES: u64 = 4 << 20;
/// Lines that tell how far it is, before an answer.
const PROGRESS_COUNT_MAX: usize = 10_000;

/// A plugin's executable, at work.
pub(super) struct HandWritten {
    name: String,
    reader: BufReader<Box<dyn AsyncRead + Send + Sync + Unpin>>,
    writer: Box<dyn AsyncWrite + Send + Sync + Unpin>,
    /// Killed with this, if it was started here.
    _child: Option<Child>,
    patience: Duration,
    next: u64,
}

/// What it answers.
#[derive(Debug, Default, Deserialize)]
struct Answer {
    id: Option<u64>,
    protocol: Option<u64>,
    progress: Option<String>,
    state: Option<Value>,
    changes: Option<Vec<Change>>,
    applied: Option<Vec<Change>>,
    differences: Option<Vec<Change>>,
    error: Option<Refusal>,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    kind: String,
    message: String,
}

impl HandWritten {
    /// Starts it, or has systemd start it, and greets it.
    pub(super) async fn start(loaded: &LoadedPlugin) -> Result<Self> {
        let plugin = &loaded.plugin;
        let PluginSource::HandWritten { executable, sandbox, .. } = &plugin.source else {
            let problem = format!("the plugin {} has no executable", plugin.name);
            return Err(BusError::new(ErrorKind::Unsupported, problem, "see [state_mapping]"));
        };
        let name = plugin.name.to_string();
        let socket = Path::new(SOCKETS).join(format!("{name}.sock"));
        let mut this = if socket.exists() {
            Self::by_systemd(&name, &socket, sandbox).await?
        } else {
            Self::directly(loaded, executable, sandbox)?
        };
        let greeting = json!({ "protocol": PROTOCOL, "plugin": name, "config": plugin.config });
        let answer = this.say(&greeting).await?;
        match (answer.error, answer.protocol) {
            (None, Some(PROTOCOL)) => Ok(this),
            (Some(Refusal { message, .. }), _) => Err(this.broken(&message)),
            (None, _) => Err(this.broken("it does not speak protocol 1")),
        }
    }

    async fn by_systemd(name: &str, socket: &Path, sandbox: &Sandbox) -> Result<Self> {
        let stream = UnixStream::connect(socket).await.map_err(|error| {
            let problem = format!("the plugin {name} cannot be reached: {error}");
            let remedy = format!("see systemctl status op-dbus-plugin@{name}.socket");
            BusError::new(ErrorKind::Unavailable, problem, &remedy)
        })?;
        let (reader, writer) = stream.into_split();
        Ok(Self::new(name, Box::new(reader), Box::new(writer), None, sandbox))
    }

    /// Runs it as this user, if that is the one that it declares.
    fn directly(loaded: &LoadedPlugin, executable: &str, sandbox: &Sandbox) -> Result<Self> {
        let name = loaded.plugin.name.as_str();
        let own = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
        let own = own.map(|user| user.name).unwrap_or_default();
        if own != sandbox.user {
            let problem =
                format!("the plugin {name} runs as {}, and this service is {own}", sandbox.user);
            let remedy = format!("systemctl enable --now op-dbus-plugin@{name}.socket");
            return Err(BusError::new(ErrorKind::Denied, problem, &remedy));
        }
        let executable = executable_of(loaded, executable)?;
        let unstartable = |error: std::io::Error| {
            let problem = format!("{} cannot be started: {error}", executable.display());
            BusError::new(ErrorKind::Unavailable, problem, "install it, and make it executable")
        };
        let runner = std::env::current_exe().map_err(unstartable)?;
        let directory = loaded.directory.clone().unwrap_or_default();
        let mut child = Command::new(runner)
            .args(["plugin", "confine", "--"])
            .arg(directory)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .map_err(unstartable)?;
        let pipes = (child.stdout.take(), child.stdin.take());
        let (Some(reader), Some(writer)) = pipes else {
            return Err(unstartable(std::io::ErrorKind::BrokenPipe.into()));
        };
        Ok(Self::new(name, Box::new(reader), Box::new(writer), Some(child), sandbox))
    }

    fn new(
        name: &str,
        reader: Box<dyn AsyncRead + Send + Sync + Unpin>,
        writer: Box<dyn AsyncWrite + Send + Sync + Unpin>,
        child: Option<Child>,
        sandbox: &Sandbox,
    ) -> Self {
        Self {
            name: name.to_owned(),
            reader: BufReader::new(reader),
            writer,
            _child: child,
            patience: Duration::from_secs(sandbox.timeout_s.into()),
            next: 1,
        }
    }

    /// What is; with `about`, of what is mentioned there, too, if it is not.
    pub(super) async fn query(&mut self, about: Option<&Value>) -> Result<Value> {
        let request = match about {
            Some(about) => json!({ "verb": "query", "about": about }),
            None => json!({ "verb": "query" }),
        };
        let answer = self.ask(request).await?;
        answer.state.ok_or_else(|| self.broken("an answer without state"))
    }

    pub(super) async fn diff(&mut self, desired: &Value) -> Result<Vec<Change>> {
        let answer = self.ask(json!({ "verb": "diff", "desired": desired })).await?;
        answer.changes.ok_or_else(|| self.broken("an answer without changes"))
    }

    pub(super) async fn apply(&mut self, desired: &Value) -> Result<Applied> {
        let request = self.numbered(json!({ "verb": "apply", "desired": desired }));
        let answer = self.say(&request).await?;
        let problem = answer.error.map(|error| format!("{} ({})", error.message, error.kind));
        Ok(Applied { changes: answer.applied.unwrap_or_default(), problem })
    }

    pub(super) async fn verify(&mut self, desired: &Value) -> Result<Vec<Change>> {
        let answer = self.ask(json!({ "verb": "verify", "desired": desired })).await?;
        answer.differences.ok_or_else(|| self.broken("an answer without differences"))
    }

    /// Asks something whose refusal is an error.
    async fn ask(&mut self, request: Value) -> Result<Answer> {
        let request = self.numbered(request);
        let answer = self.say(&request).await?;
        match answer.error {
            None => Ok(answer),
            Some(Refusal { kind, message }) => {
                let problem = format!("the plugin {}: {message}", self.name);
                Err(BusError::new(kind_of(&kind), problem, "correct what is declared for it"))
            }
        }
    }

    fn numbered(&mut self, mut request: Value) -> Value {
        request["id"] = self.next.into();
        self.next += 1;
        request
    }

    async fn say(&mut self, request: &Value) -> Result<Answer> {
        let patience = self.patience;
        let number = request["id"].as_u64();
        match tokio::time::timeout(patience, self.exchange(request, number)).await {
            Ok(answer) => answer,
            Err(_) => Err(self.broken(&format!("no answer in {} s", patience.as_secs()))),
        }
    }

    async fn exchange(&mut self, request: &Value, number: Option<u64>) -> Result<Answer> {
        let line = format!("{request}\n");
        let written = async {
            self.writer.write_all(line.as_bytes()).await?;
            self.writer.flush().await
        };
        written.await.map_err(|error| self.broken(&format!("it does not listen: {error}")))?;
        for _ in 0..PROGRESS_COUNT_MAX {
            let mut line = Vec::new();
            let mut limited = (&mut self.reader).take(LINE_LEN_MAX_BYTES);
            let read = limited.read_until(b'\n', &mut line).await;
            read.map_err(|error| self.broken(&error.to_string()))?;
            if line.last() != Some(&b'\n') {
                let problem = if line.is_empty() { "it has ended" } else { "a line without end" };
                return Err(self.broken(problem));
            }
            let answer: Answer = serde_json::from_slice(&line)
                .map_err(|error| self.broken(&format!("its answer is wrong: {error}")))?;
            match &answer.progress {
                Some(progress) => tracing::info!(plugin = self.name, progress),
                None if answer.id == number => return Ok(answer),
                None => return Err(self.broken("it answers something else")),
            }
        }
        Err(self.broken("it tells how far it is, and never answers"))
    }

    fn broken(&self, problem: &str) -> BusError {
        let problem = format!("the plugin {}: {problem}", self.name);
        BusError::new(ErrorKind::Unavailable, problem, "see its log, and mend the plugin")
    }
}

/// The path of a plugin's executable, which must be in its package.
fn executable_of(loaded: &LoadedPlugin, executable: &str) -> Result<PathBuf> {
    let name = &loaded.plugin.name;
    let Some(directory) = &loaded.directory else {
        let problem = format!("the plugin {name} is a file alone, without an executable");
        return Err(BusError::new(ErrorKind::Unavailable, problem, "install the whole package"));
    };
    Ok(directory.join(executable))
}

fn kind_of(name: &str) -> ErrorKind {
    match name {
        "not-found" => ErrorKind::NotFound,
        "invalid" => ErrorKind::Invalid,
        "busy" => ErrorKind::Busy,
        "denied" => ErrorKind::Denied,
        "unsupported" => ErrorKind::Unsupported,
        "io" => ErrorKind::Io,
        _ => ErrorKind::Unavailable,
    }
}
