//! A child process that judges flips one after the other, and dies of them alone.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use tempfile::TempDir;

use super::flips::{Flip, Outcome};
use super::judge::Judge;
use crate::scratch;

/// The test that a child runs.
const TEST: &str = "judges_flips_for_another_process";
/// Where the whole store is, and where the child may make copies of it.
const STORE: &str = "OPDBUS_TEST_FLIPS_STORE";
const SCRATCH: &str = "OPDBUS_TEST_FLIPS_SCRATCH";
/// Test runners print lines of their own.
const PREFIX: &str = "judged\t";
/// A store of a few kilobytes that takes so long hangs, on however busy a machine.
const TIME_MAX: Duration = Duration::from_secs(180);

/// Judges flips in a process of their own.
pub struct Worker<'a> {
    store: &'a Path,
    running: Option<Running>,
}

struct Running {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
    // The parent's, because a child that dies leaves everything behind.
    _scratch: TempDir,
}

impl<'a> Worker<'a> {
    /// Prepares to judge flips of the store at `store`.
    #[must_use]
    pub fn new(store: &'a Path) -> Self {
        Self { store, running: None }
    }

    /// The id of the process, once there is one.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.child.id())
    }

    /// Judges a flip; a process that dies of it or never ends is a verdict, too.
    ///
    /// # Panics
    /// If a process cannot be started.
    pub fn judge(&mut self, flip: &Flip) -> (Outcome, String) {
        let store = self.store;
        let running = self.running.get_or_insert_with(|| Running::start(store));
        let answer = running.judge(flip);
        match answer {
            Ok(verdict) => verdict,
            Err(end) => {
                let running = self.running.take().expect("it has just been asked");
                (Outcome::Wrong, format!("{end}; {}", running.end()))
            }
        }
    }
}

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.end();
        }
    }
}

impl Running {
    fn start(store: &Path) -> Self {
        let scratch = scratch::in_memory();
        let program = std::env::current_exe().expect("this program has a path");
        let mut child = Command::new(program)
            .args(["--exact", TEST, "--ignored", "--nocapture"])
            .env(STORE, store)
            .env(SCRATCH, scratch.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program can be started");
        let stdin = child.stdin.take().expect("it was asked for");
        let stdout = child.stdout.take().expect("it was asked for");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Nobody listens to a process that is being ended.
                let _ = sender.send(line);
            }
        });
        Self { child, stdin, lines, _scratch: scratch }
    }

    fn judge(&mut self, flip: &Flip) -> Result<(Outcome, String), &'static str> {
        writeln!(self.stdin, "{flip}").map_err(|_| "it has ended before")?;
        loop {
            let line = self.lines.recv_timeout(TIME_MAX).map_err(|error| match error {
                RecvTimeoutError::Timeout => "it hangs",
                RecvTimeoutError::Disconnected => "it died",
            })?;
            // The runner may not have ended the line that it began with the name of the test.
            let Some((_, verdict)) = line.split_once(PREFIX) else { continue };
            let (outcome, why) = verdict.split_once('\t').unwrap_or((verdict, ""));
            let outcome = outcome.parse().map_err(|_| "it says something unknown")?;
            return Ok((outcome, why.to_owned()));
        }
    }

    fn end(mut self) -> String {
        drop(self.stdin);
        // One that has ended already cannot be killed, which is as good.
        let _ = self.child.kill();
        self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string())
    }
}

/// What the child does: judges each line of standard input.
///
/// # Panics
/// If it is run by hand.
pub fn serve() {
    let variable = |name| PathBuf::from(std::env::var_os(name).expect("other tests run this one"));
    let (whole, scratch) = (variable(STORE), variable(SCRATCH));
    let judge = Judge::new(&whole, &scratch);
    for line in std::io::stdin().lines() {
        let flip: Flip = line.expect("lines are text").parse().expect("lines are flips");
        let judged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| judge.judge(&flip)));
        let (outcome, why) = judged.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
            // What is left of the copy would be in the way of the next.
            let _ = std::fs::remove_dir_all(scratch.join("damaged"));
            (Outcome::Wrong, format!("panic: {}", text.unwrap_or_default()))
        });
        let why = why.replace(['\n', '\t'], " ");
        println!("{PREFIX}{}\t{why}", outcome.name());
    }
}
