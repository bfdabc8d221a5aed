//! A child `op-dbus cache import - --ack`, fed and listened to until it is killed.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::campaign::{duration_below, magnitude_below};
use super::check::{COLLECTION, Finding, Session};
use super::workload::{State, Workload, record, render};
use crate::random::Random;

/// The signal that [`Child::kill`] sends.
const SIGKILL: i32 = 9;

/// When a writer is killed, or its power cut.
#[derive(Clone, Copy, Debug)]
pub enum Moment {
    /// So long after its start.
    AfterStart(Duration),
    /// So long after so many acknowledgements.
    AfterAcknowledgements {
        /// Acknowledgements to wait for.
        count: usize,
        /// How long to wait then.
        more: Duration,
    },
}

impl Moment {
    /// A moment of a random kind.
    pub fn random(random: &mut Random) -> Self {
        const EARLY_OF: usize = 5;
        const START_MAX: Duration = Duration::from_millis(60);
        const MORE_MAX: Duration = Duration::from_millis(8);
        const COUNT_BITS_MAX: usize = 11;
        if random.below(EARLY_OF) == 0 {
            return Self::AfterStart(duration_below(random, START_MAX));
        }
        let count = magnitude_below(random, COUNT_BITS_MAX);
        Self::AfterAcknowledgements { count, more: duration_below(random, MORE_MAX) }
    }
}

/// The program with arguments, and without variables that are meant for the tests.
#[must_use]
pub fn command(program: &Path, store: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OPDBUS_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).arg("--store").arg(store);
    command
}

/// A running import.
pub struct Import {
    child: Child,
    started: Instant,
    before: State,
    progress: Arc<Progress>,
    feeder: JoinHandle<()>,
    listener: JoinHandle<()>,
    stderr: File,
}

/// What has been sent and acknowledged, and who still works.
#[derive(Default)]
struct Progress {
    shared: Mutex<Shared>,
    changed: Condvar,
}

#[derive(Default)]
struct Shared {
    session: Session,
    /// An acknowledgement of something else than what was due.
    mistake: Option<String>,
    /// The child's output has ended.
    ended: bool,
    /// No more is to be sent.
    stopping: bool,
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(
        &self,
        shared: MutexGuard<'a, Shared>,
        timeout: Duration,
        while_so: impl Fn(&Shared) -> bool,
    ) -> MutexGuard<'a, Shared> {
        let waited = self.changed.wait_timeout_while(shared, timeout, |shared| while_so(shared));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// How an import ended, and what it did.
#[derive(Debug)]
pub struct Ended {
    /// What was sent and acknowledged.
    pub session: Session,
    /// How the process ended.
    pub status: ExitStatus,
    /// What it wrote to standard error.
    pub stderr: String,
    mistake: Option<String>,
}

impl Import {
    /// Starts the program and feeds it with the writer 0 of a workload.
    ///
    /// # Panics
    /// If the program cannot be started.
    #[must_use]
    pub fn start(
        program: &Path,
        store: &Path,
        random: &mut Random,
        session: u64,
        before: &State,
    ) -> Self {
        let arguments = ["cache", "import", "-", "--ack", "--format", "jsonl"];
        let mut command = command(program, store, &arguments);
        // A file, not a pipe: nobody has to read it for the child to go on.
        let stderr = tempfile::tempfile().expect("a temporary file can be made");
        let started = Instant::now();
        let mut child = command
            .args(["--collection", COLLECTION])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr.try_clone().expect("the descriptor can be duplicated"))
            .spawn()
            .expect("the program can be started");
        let stdin = child.stdin.take().expect("it is piped");
        let stdout = child.stdout.take().expect("it is piped");
        let progress = Arc::new(Progress::default());
        let workload = Workload::new(Random::new(random.bits()), 0, session, before.clone());
        let (feeding, listening) = (Arc::clone(&progress), Arc::clone(&progress));
        let bursts = Random::new(random.bits());
        let feeder = std::thread::spawn(move || feed(stdin, workload, bursts, &feeding));
        let listener = std::thread::spawn(move || listen(stdout, &listening));
        Self { child, started, before: before.clone(), progress, feeder, listener, stderr }
    }

    /// Waits until the moment has come; says whether the child was still at work then.
    pub fn wait_until(&mut self, moment: Moment) -> bool {
        const PATIENCE: Duration = Duration::from_secs(60);
        match moment {
            Moment::AfterStart(after) => {
                std::thread::sleep(after.saturating_sub(self.started.elapsed()));
            }
            Moment::AfterAcknowledgements { count, more } => {
                let shared = self.progress.wait(self.progress.lock(), PATIENCE, |shared| {
                    shared.session.acknowledged_count < count && !shared.ended
                });
                drop(shared);
                std::thread::sleep(more);
            }
        }
        matches!(self.child.try_wait(), Ok(None))
    }

    /// How many operations have been acknowledged until now.
    #[must_use]
    pub fn acknowledged_count(&self) -> usize {
        self.progress.lock().session.acknowledged_count
    }

    /// Kills the child and says what it had done.
    ///
    /// # Errors
    /// [`Finding::Writer`] if it had ended by itself or made a mistake.
    pub fn kill(self) -> Result<Ended, Finding> {
        let ended = self.end();
        match (&ended.mistake, ended.status.signal()) {
            (None, Some(SIGKILL)) => Ok(ended),
            (Some(mistake), _) => Err(Finding::Writer(mistake.clone())),
            (None, _) => {
                Err(Finding::Writer(format!("ended with {}: {}", ended.status, ended.stderr)))
            }
        }
    }

    /// Kills the child if it has not ended by itself, as it may after its power was cut.
    #[must_use]
    pub fn end(mut self) -> Ended {
        // An error means that it has ended already.
        let _ = self.child.kill();
        self.collect()
    }

    /// Ends the input and waits for the child to acknowledge all of it and to end.
    ///
    /// # Errors
    /// [`Finding::Writer`] if it does anything else.
    pub fn finish(self) -> Result<Session, Finding> {
        self.progress.lock().stopping = true;
        self.progress.changed.notify_all();
        let ended = self.collect();
        let Session { sent, acknowledged_count, .. } = &ended.session;
        let all = sent.len() == *acknowledged_count;
        if ended.status.success() && all && ended.mistake.is_none() {
            return Ok(ended.session);
        }
        Err(Finding::Writer(format!(
            "sent {}, acknowledged {acknowledged_count}, {:?}, ended with {}: {}",
            sent.len(),
            ended.mistake,
            ended.status,
            ended.stderr
        )))
    }

    fn collect(mut self) -> Ended {
        // The listener first: it ends with the child, and tells the feeder.
        self.listener.join().expect("the listener does not panic");
        self.feeder.join().expect("the feeder does not panic");
        let status = self.child.wait().expect("a child can be waited for");
        let mut stderr = String::new();
        let mut read = || -> std::io::Result<usize> {
            self.stderr.rewind()?;
            self.stderr.read_to_string(&mut stderr)
        };
        read().expect("standard error is UTF-8 in a file");
        let mut shared = self.progress.lock();
        let session = Session { before: self.before, ..std::mem::take(&mut shared.session) };
        Ended { session, status, stderr, mistake: shared.mistake.take() }
    }
}

/// Sends bursts of all sizes, after half of which it waits for all acknowledgements.
///
/// A pause lets the child write what it has, so that batches of every size are made.
fn feed(mut stdin: ChildStdin, mut workload: Workload, mut random: Random, progress: &Progress) {
    const BURST_BITS_MAX: usize = 9;
    const PATIENCE: Duration = Duration::from_secs(60);
    let mut lines = Vec::new();
    loop {
        let count = magnitude_below(&mut random, BURST_BITS_MAX) + 1;
        lines.clear();
        let mut shared = progress.lock();
        if shared.ended || shared.stopping {
            return;
        }
        for operation in workload.by_ref().take(count) {
            let version = operation.version.expect("imports remove nothing");
            render(&record(&operation.key, version), &mut lines);
            shared.session.sent.push(operation);
        }
        drop(shared);
        // The child may be dead.
        if stdin.write_all(&lines).is_err() {
            return;
        }
        if random.below(2) == 0 {
            drop(progress.wait(progress.lock(), PATIENCE, |shared| {
                shared.session.acknowledged_count < shared.session.sent.len()
                    && !shared.ended
                    && !shared.stopping
            }));
        }
    }
}

/// Counts acknowledgements until the child's end, and checks that each is the one that is due.
fn listen(stdout: ChildStdout, progress: &Progress) {
    let mut stdout = BufReader::new(stdout);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = stdout.read_until(b'\n', &mut line);
        let mut shared = progress.lock();
        // What has no end was not written whole, so it was not acknowledged.
        if read.is_err() || line.pop() != Some(b'\n') {
            shared.ended = true;
            progress.changed.notify_all();
            return;
        }
        let Shared { session, mistake, .. } = &mut *shared;
        match session.sent.get(session.acknowledged_count) {
            Some(due) if due.key.as_bytes() == line => session.acknowledged_count += 1,
            due => {
                let line = String::from_utf8_lossy(&line);
                mistake.get_or_insert_with(|| format!("acknowledged {line}, due was {due:?}"));
            }
        }
        progress.changed.notify_all();
    }
}
