//! Runs the `op-dbus` program as its users do: as a process, seen from outside.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::scratch;

/// No command of a test takes longer on a slow machine, and none that hangs holds it up for long.
const TIME_MAX: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(2);
/// Variables that change what the program does or how wide its help is. The user's own must not.
const VARIABLES: [&str; 6] =
    ["COLUMNS", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "FORCE_COLOR", "RUST_LOG"];
const PREFIX: &[u8] = b"OPDBUS_";

type Feed = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + Send>;

/// The program, and a directory with a store of its own.
pub struct Workplace {
    executable: PathBuf,
    directory: TempDir,
}

impl Workplace {
    /// Every command below `command` that does something, as `--help` lists them.
    pub fn commands(&self, command: &[String]) -> Vec<Vec<String>> {
        let help = self.op(command).arguments(["--help"]).run().succeeded().text();
        let listed = help.split("Commands:\n").nth(1).unwrap_or_default();
        // A line's first word at the usual indent is a command; deeper lines go on with its purpose.
        let listed = listed.lines().take_while(|line| line.starts_with("  "));
        let verbs: Vec<&str> = listed
            .filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')))
            .filter_map(|line| line.split(' ').next())
            .filter(|verb| *verb != "help")
            .collect();
        if verbs.is_empty() {
            return vec![command.to_vec()];
        }
        let below = |verb: &&str| self.commands(&[command, &[(*verb).to_owned()]].concat());
        verbs.iter().flat_map(below).collect()
    }

    /// Makes a directory for the program at `executable`; it has no store yet.
    pub fn new(executable: &str) -> Self {
        Self { executable: executable.into(), directory: scratch::on_disk() }
    }

    /// The directory, in which the program runs.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The store's directory.
    pub fn store(&self) -> PathBuf {
        self.path().join("store")
    }

    /// Writes a file into the directory.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().expect("it has a parent"))
            .expect("a directory can be made");
        std::fs::write(&path, content).expect("a file can be written");
        path
    }

    /// Prepares a run with these arguments, on the store.
    pub fn op<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Invocation {
        let mut invocation = Invocation::new(&self.executable)
            .arguments(["--store".as_ref(), self.store().as_os_str()]);
        invocation.directory = Some(self.path().to_owned());
        invocation.arguments(arguments)
    }

    /// Runs with these arguments, on the store, and expects success.
    pub fn done<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Ended {
        self.op(arguments).run().succeeded()
    }
}

/// The program op-dbus that was built beside this one.
pub fn beside_this() -> PathBuf {
    let this = std::env::current_exe().expect("this is a program");
    this.ancestors().nth(2).expect("it is in target/PROFILE/deps").join("op-dbus")
}

/// A run of the program that is being prepared.
pub struct Invocation {
    line: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
    directory: Option<PathBuf>,
    feed: Option<Feed>,
    time_max: Duration,
}

impl Invocation {
    /// Prepares a run of the program at `executable`.
    pub fn new(executable: &Path) -> Self {
        Self {
            line: vec![executable.into()],
            // Nothing is told by what this machine is set to.
            variables: vec![("OPDBUS_CONFIG".into(), "/dev/null".into())],
            directory: None,
            feed: None,
            time_max: TIME_MAX,
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn arguments<I: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = I>) -> Self {
        self.line.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.variables.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Gives standard input; without it there is none.
    #[must_use]
    pub fn input(self, bytes: impl AsRef<[u8]> + Send + 'static) -> Self {
        self.input_from(move |stdin| stdin.write_all(bytes.as_ref()))
    }

    /// Gives standard input from a function, which runs beside the program.
    #[must_use]
    pub fn input_from(
        mut self,
        feed: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
    ) -> Self {
        self.feed = Some(Box::new(feed));
        self
    }

    /// Lets it run so long before it is taken for hanging.
    #[must_use]
    pub fn lasting(mut self, time_max: Duration) -> Self {
        self.time_max = time_max;
        self
    }

    /// Runs a shell script in the program's place, which finds the program as `"$0"` and its
    /// arguments as `"$@"`.
    #[must_use]
    pub fn within(mut self, script: &str) -> Self {
        let shell = ["bash", "-c", script].map(OsString::from);
        self.line.splice(0..0, shell);
        self
    }

    /// Runs to the end.
    pub fn run(self) -> Ended {
        self.start().finish()
    }

    /// Starts to run.
    pub fn start(self) -> Running {
        let words = self.line.iter().map(|word| word.to_string_lossy().into_owned());
        let words = words.collect::<Vec<_>>();
        let shown = words.join(" ");
        let mut command = Command::new(&self.line[0]);
        command.args(&self.line[1..]).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.stdin(if self.feed.is_some() { Stdio::piped() } else { Stdio::null() });
        for (name, _) in std::env::vars_os() {
            let ours = name.as_encoded_bytes().starts_with(PREFIX);
            if ours || VARIABLES.iter().any(|variable| name == *variable) {
                command.env_remove(name);
            }
        }
        command.envs(self.variables);
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{shown}: {error}"));
        if let (Some(feed), Some(stdin)) = (self.feed, child.stdin.take()) {
            std::thread::spawn(move || feed_pipe(feed, stdin));
        }
        let mut stderr = child.stderr.take().expect("it was asked for");
        let stderr = std::thread::spawn(move || {
            let mut text = Vec::new();
            // What was read before an error is all there is.
            let _ = stderr.read_to_end(&mut text);
            text
        });
        let stdout = chunks(child.stdout.take().expect("it was asked for"));
        let deadline = Instant::now() + self.time_max;
        let (buffer, stderr) = (Vec::new(), Some(stderr));
        Running { child, words, shown, stdout, buffer, stderr, deadline, peak_memory_bytes: 0 }
    }
}

fn feed_pipe(feed: Feed, mut stdin: ChildStdin) {
    match feed(&mut stdin) {
        // A program that has read enough closes its end; that is for the test to judge.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            panic!("standard input: {error}")
        }
        _ => {}
    }
}

/// Reads on a thread of its own, so that a full pipe never holds the program up.
fn chunks(mut pipe: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut chunk = vec![0; 64 << 10];
        while let Ok(length @ 1..) = pipe.read(&mut chunk) {
            if sender.send(chunk[..length].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// A run that has begun. Dropped, it is killed.
pub struct Running {
    child: Child,
    words: Vec<String>,
    shown: String,
    stdout: Receiver<Vec<u8>>,
    buffer: Vec<u8>,
    stderr: Option<JoinHandle<Vec<u8>>>,
    deadline: Instant,
    peak_memory_bytes: u64,
}

impl Running {
    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Presses Ctrl-C for this process alone.
    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    /// Sends a signal to this process alone.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the process is there");
    }

    /// Says whether the program has not ended yet.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("its state can be asked for").is_none()
    }

    /// Waits for the next line of standard output; `None` at its end.
    pub fn next_line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            match self.stdout.recv_timeout(self.time_left()) {
                Ok(chunk) => self.buffer.extend(chunk),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => self.give_up(),
            }
        }
    }

    /// Waits for the end. What [`Running::next_line`] has returned is not in the output again.
    pub fn finish(mut self) -> Ended {
        let status = loop {
            self.peak_memory_bytes = self.peak_memory_bytes.max(peak_memory_bytes(self.id()));
            self.buffer.extend(self.stdout.try_iter().flatten());
            match self.child.try_wait().expect("its state can be asked for") {
                Some(status) => break status,
                None if self.time_left().is_zero() => self.give_up(),
                None => std::thread::sleep(POLL),
            }
        };
        self.buffer.extend(self.stdout.iter().flatten());
        let stderr = self.stderr.take().and_then(|reader| reader.join().ok()).unwrap_or_default();
        let ended = Ended {
            shown: std::mem::take(&mut self.shown),
            status,
            stdout: std::mem::take(&mut self.buffer),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
            peak_memory_bytes: self.peak_memory_bytes,
        };
        // Whoever was killed may have written a part.
        #[cfg(feature = "engine")]
        if let Some(code) = ended.code().filter(|_| self.words[0].ends_with("/op-dbus")) {
            crate::schema::check(&self.words[1..], code, &ended.stdout, &ended.stderr);
        }
        ended
    }

    fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    fn give_up(&mut self) -> ! {
        self.kill();
        let stderr = self.stderr.take().and_then(|reader| reader.join().ok()).unwrap_or_default();
        panic!("{} does not end; it said: {}", self.shown, String::from_utf8_lossy(&stderr));
    }

    fn kill(&mut self) {
        // One that has ended already cannot be killed, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether permissions mean nothing to the processes that are run here.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The most memory that a process has had so far; 0 for one that has ended.
fn peak_memory_bytes(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let kibibytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
    kibibytes.unwrap_or(0_u64) << 10
}

/// A run that has ended.
pub struct Ended {
    shown: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: String,
    /// The most memory it was seen to have, which is a little less than it had.
    pub peak_memory_bytes: u64,
}

impl Ended {
    /// The exit code; `None` if a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8(self.stdout.clone())
            .unwrap_or_else(|error| panic!("{}: {error}", self.shown))
    }

    /// Standard output as one JSON value.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|error| panic!("no JSON: {error}\n{}", self.description()))
    }

    /// Expects the exit code 0.
    #[must_use]
    pub fn succeeded(self) -> Self {
        self.exited(0)
    }

    /// Expects an exit code.
    #[must_use]
    pub fn exited(self, code: i32) -> Self {
        assert_eq!(self.code(), Some(code), "{}", self.description());
        self
    }

    /// Expects a run with `--json` to have failed with this exit code, and its message to name
    /// what it is about and its remedy to be there; returns message and remedy.
    pub fn refused(self, code: i32, names: &[&str]) -> String {
        let description = self.description();
        let this = self.exited(code);
        // Notes for people precede the error in some commands; it is the last line.
        let last = this.stderr.lines().last().unwrap_or_default();
        let report: Value = serde_json::from_str(last)
            .unwrap_or_else(|error| panic!("the error is no JSON: {error}\n{description}"));
        let error = &report["error"];
        assert_eq!(error["exit_code"], code, "{description}");
        let message = error["message"].as_str().unwrap_or_default().to_owned();
        for name in names {
            assert!(message.contains(name), "the message must name {name:?}\n{description}");
        }
        let remedy = error["remedy"].as_str().unwrap_or_default();
        assert!(!remedy.is_empty(), "the remedy is missing\n{description}");
        format!("{message}\n{remedy}")
    }

    fn description(&self) -> String {
        const SHOWN_BYTES: usize = 2000;
        let stdout = String::from_utf8_lossy(&self.stdout[..self.stdout.len().min(SHOWN_BYTES)]);
        format!(
            "$ {}\n{}\nstandard output: {stdout}\nstandard error: {}",
            self.shown, self.status, self.stderr
        )
    }
}
