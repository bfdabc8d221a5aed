//! Running programs: an argument vector and no shell, a clean environment, an end in time.
//!
//! A program gets `PATH` and `LC_ALL=C` and nothing else, no input, and a process group of its own,
//! which is ended with it when it takes too long. What it writes is read up to a limit. A daemon
//! that it leaves behind may hold its output open: that is waited for only for a moment.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};

/// Most that a program may write if all of it is read.
pub const OUTPUT_LEN_MAX_BYTES: usize = 1 << 20;

/// Where programs are.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin:/run/current-system/sw/bin";
/// How much is kept of output of which only the end counts.
const TAIL_LEN_MAX_BYTES: usize = 64 << 10;
/// Longest line of a program's output in an error.
const QUOTED_LEN_MAX_CHARS: usize = 300;
/// How long the output may stay open after the program has ended.
const PATIENCE: Duration = Duration::from_millis(200);
/// What stands for a secret.
const REDACTED: &str = "(secret)";
/// As many characters of a secret in a row are still one.
const SECRET_PART_LEN_CHARS: usize = 8;

/// Programs, and where they are looked for.
#[derive(Clone, Debug)]
pub struct Programs {
    path: String,
}

/// One run of a program.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// Its name, without a directory.
    pub program: &'a str,
    /// Its arguments.
    pub arguments: &'a [&'a str],
    /// How long it may take.
    pub timeout: Duration,
    /// Whether all that it writes to its standard output counts, or only the end.
    pub reads_all: bool,
    /// What is replaced in all that it writes.
    pub secret: Option<&'a str>,
    /// Parts of lines that say nothing about why it failed.
    pub chatter: &'static [&'static str],
}

/// What a program left.
#[derive(Clone, Debug)]
pub struct Finished {
    program: String,
    chatter: &'static [&'static str],
    status: ExitStatus,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// The end of what it wrote to its standard error.
    pub stderr: String,
}

impl Programs {
    /// Programs in directories of one's own, parted by colons, before those of the system.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if a directory is no absolute path.
    pub fn new(path: Option<&str>) -> Result<Self> {
        let Some(path) = path else { return Ok(Self { path: PATH.to_owned() }) };
        match path.split(':').all(|directory| directory.starts_with('/')) {
            true => Ok(Self { path: format!("{path}:{PATH}") }),
            false => Err(Error::invalid("config.path: absolute paths, parted by colons")),
        }
    }

    /// Runs a program to its end, whatever code it ends with.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if it is not there, or takes too long; [`ErrorKind::Io`] if it
    /// writes more than may be read.
    pub fn run(&self, run: Run<'_>) -> Result<Finished> {
        let Run { program, arguments, .. } = run;
        let mut command = Command::new(self.find(program)?);
        command.args(arguments).env_clear().env("PATH", &self.path).env("LC_ALL", "C");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).current_dir("/");
        let mut child = command.spawn().map_err(|error| Error::of_system(program, &error))?;
        let stdout = Output::of(child.stdout.take(), run.reads_all);
        let stderr = Output::of(child.stderr.take(), false);
        let status = wait(&mut child, &stdout, run)?;
        let end = Instant::now() + PATIENCE;
        let (stdout, stderr) = (stdout.take(end), stderr.take(end));
        if run.reads_all && stdout.len() > OUTPUT_LEN_MAX_BYTES {
            return Err(over_limit(program));
        }
        let (stdout, stderr) = (redacted(&stdout, run.secret), redacted(&stderr, run.secret));
        let (program, chatter) = (program.to_owned(), run.chatter);
        Ok(Finished { program, chatter, status, stdout, stderr })
    }

    fn find(&self, program: &str) -> Result<PathBuf> {
        let is_program = |path: &Path| {
            fs::metadata(path)
                .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
        };
        let mut candidates =
            self.path.split(':').map(|directory| Path::new(directory).join(program));
        candidates.find(|path| is_program(path)).ok_or_else(|| {
            let problem =
                format!("{program} is not there: install it, or name its directory in path");
            Error::new(ErrorKind::Unavailable, problem)
        })
    }
}

/// Waits until a program has ended, or ends it.
fn wait(child: &mut Child, stdout: &Output, run: Run<'_>) -> Result<ExitStatus> {
    let program = run.program;
    let deadline = Instant::now() + run.timeout;
    let mut pause = Duration::from_millis(1);
    let problem = loop {
        let status = child.try_wait().map_err(|error| Error::of_system(program, &error))?;
        if let Some(status) = status {
            return Ok(status);
        }
        if stdout.is_over_limit() {
            break over_limit(program);
        }
        if Instant::now() >= deadline {
            let seconds = run.timeout.as_secs();
            let problem = format!("{program}: it took longer than {seconds} s and was ended");
            break Error::new(ErrorKind::Unavailable, problem);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    };
    end(child);
    Err(problem)
}

/// Ends a program and what it has started. Not yet waited for, it still holds the number of its
/// group, so that no other can be hit.
fn end(child: &mut Child) {
    let kill = Command::new("/bin/sh")
        .args(["-c", "kill -s KILL -- \"-$1\"", "sh", &child.id().to_string()])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !kill.is_ok_and(|status| status.success()) {
        // There is no shell: itself at least.
        let _ = child.kill();
    }
    let _ = child.wait();
}

fn over_limit(program: &str) -> Error {
    let problem = format!("{program}: it wrote more than {OUTPUT_LEN_MAX_BYTES} bytes");
    Error::new(ErrorKind::Io, problem)
}

impl Finished {
    /// The program ended well.
    ///
    /// # Errors
    /// Otherwise, with the last line that it wrote to its standard error.
    pub fn checked(self) -> Result<Self> {
        if self.status.success() {
            return Ok(self);
        }
        let said = last_line(&self.stderr, self.chatter);
        let is_denied =
            ["ermission denied", "not permitted"].iter().any(|words| said.contains(words));
        let kind = if is_denied { ErrorKind::Denied } else { ErrorKind::Io };
        let problem = format!("{}: {}: {said}", self.program, self.status);
        Err(Error::new(kind, problem.trim_end_matches(": ")))
    }
}

/// The last line that tells something, in a length that can be quoted.
#[must_use]
pub fn last_line(text: &str, chatter: &[&str]) -> String {
    let is_telling =
        |line: &&str| !line.is_empty() && !chatter.iter().any(|part| line.contains(part));
    let line = text.lines().rev().map(str::trim).find(is_telling).unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(QUOTED_LEN_MAX_CHARS).collect()
}

/// Bytes as text without the secret. A line that still has a part of it goes as a whole.
fn redacted(bytes: &[u8], secret: Option<&str>) -> String {
    let text = String::from_utf8_lossy(bytes);
    let Some(secret) = secret.filter(|secret| !secret.is_empty()) else { return text.into_owned() };
    let text = text.replace(secret, REDACTED);
    let letters: Vec<char> = secret.chars().collect();
    let parts = letters.windows(SECRET_PART_LEN_CHARS.min(letters.len()));
    let parts: std::collections::HashSet<&[char]> = parts.collect();
    let clean = |line: &str| {
        let letters: Vec<char> = line.chars().collect();
        let has_part = parts
            .iter()
            .next()
            .is_some_and(|part| letters.windows(part.len()).any(|window| parts.contains(window)));
        if has_part { REDACTED.to_owned() } else { line.to_owned() }
    };
    text.lines().map(clean).collect::<Vec<_>>().join("\n")
}

/// Output of a program while it is read.
struct Output {
    captured: Arc<Mutex<Captured>>,
    reader: Option<JoinHandle<()>>,
}

struct Captured {
    bytes: VecDeque<u8>,
    reads_all: bool,
    is_over_limit: bool,
}

impl Output {
    fn of(pipe: Option<impl Read + Send + 'static>, reads_all: bool) -> Self {
        let captured = Captured { bytes: VecDeque::new(), reads_all, is_over_limit: false };
        let captured = Arc::new(Mutex::new(captured));
        let reader = pipe.map(|pipe| {
            let captured = Arc::clone(&captured);
            thread::spawn(move || read(pipe, &captured))
        });
        Self { captured, reader }
    }

    fn is_over_limit(&self) -> bool {
        locked(&self.captured).is_over_limit
    }

    /// What was written, and until `end` what still comes.
    fn take(self, end: Instant) -> Vec<u8> {
        if let Some(reader) = self.reader {
            while !reader.is_finished() && Instant::now() < end {
                thread::sleep(Duration::from_millis(1));
            }
        }
        std::mem::take(&mut locked(&self.captured).bytes).into()
    }
}

fn read(mut pipe: impl Read, captured: &Mutex<Captured>) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let len_bytes = match pipe.read(&mut buffer) {
            Ok(0) => return,
            Ok(len_bytes) => len_bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        let mut captured = locked(captured);
        captured.bytes.extend(&buffer[..len_bytes]);
        let over = |limit: usize| captured.bytes.len().saturating_sub(limit);
        if captured.reads_all {
            if over(OUTPUT_LEN_MAX_BYTES) > 0 {
                captured.is_over_limit = true;
                return;
            }
        } else {
            let excess = over(TAIL_LEN_MAX_BYTES);
            captured.bytes.drain(..excess);
        }
    }
}

fn locked(captured: &Mutex<Captured>) -> MutexGuard<'_, Captured> {
    captured.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
