//! A plugin as a process, and programs that a test makes up.

#![allow(dead_code, reason = "each test uses its part")]
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

/// A file that is open for writing while another thread starts a process is open in that process for
/// a moment, and cannot be run then. So there is only one of both at a time.
static NO_START_WHILE_WRITING: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    NO_START_WHILE_WRITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A directory of programs, and their state.
pub(crate) struct Programs {
    directory: tempfile::TempDir,
}

impl Programs {
    /// Writes programs in `sh`; they find the directory of their state in `$state`.
    pub(crate) fn new(scripts: &[(&str, &str)]) -> Self {
        let programs = Self { directory: tempfile::tempdir().unwrap() };
        fs::create_dir(programs.bin()).unwrap();
        fs::create_dir(programs.state()).unwrap();
        for (name, script) in scripts {
            programs.write(name, script);
        }
        programs
    }

    /// Writes or replaces a program.
    pub(crate) fn write(&self, name: &str, script: &str) {
        let state = self.state();
        let text = format!("#!/bin/sh\nset -eu\nstate='{}'\n{script}\n", state.display());
        let _alone = alone();
        let path = self.bin().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn bin(&self) -> PathBuf {
        self.directory.path().join("bin")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// Removes what `failing` has made fail.
    pub(crate) fn let_all_work(&self) {
        for file in fs::read_dir(self.state()).unwrap() {
            let path = file.unwrap().path();
            if path.file_name().unwrap().to_str().unwrap().starts_with("fail-") {
                fs::remove_file(path).unwrap();
            }
        }
    }

    /// Makes a program fail that looks for it, with these words.
    pub(crate) fn failing(&self, what: &str, words: &str) {
        fs::write(self.state().join(format!("fail-{what}")), words).unwrap();
    }
}

/// A plugin that was greeted.
pub(crate) struct Running {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// All that it has written so far.
    pub(crate) said: String,
    next_id: u64,
}

impl Running {
    pub(crate) fn start(executable: &str, name: &str, config: &Value) -> Self {
        let mut running = Self::start_ungreeted(executable);
        let greeting = json!({"protocol": 1, "plugin": name, "config": config});
        let answer = running.line(&greeting.to_string());
        assert_eq!((&answer["protocol"], &answer["plugin"]), (&json!(1), &json!(name)), "{answer}");
        running
    }

    pub(crate) fn start_ungreeted(executable: &str) -> Self {
        let _alone = alone();
        let mut child = Command::new(executable)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, input, output, said: String::new(), next_id: 1 }
    }

    /// Writes a line and reads the next one.
    pub(crate) fn line(&mut self, line: &str) -> Value {
        self.write(format!("{line}\n").as_bytes());
        self.read()
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.input.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// The input, for a thread that writes while another reads.
    pub(crate) fn take_input(&mut self) -> ChildStdin {
        self.input.take().unwrap()
    }

    pub(crate) fn give_input(&mut self, input: ChildStdin) {
        self.input = Some(input);
    }

    pub(crate) fn read(&mut self) -> Value {
        let mut line = String::new();
        assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "the plugin has ended");
        self.said.push_str(&line);
        serde_json::from_str(&line).unwrap()
    }

    /// Asks, and reads to the answer; what it says of its progress comes with it.
    pub(crate) fn ask(&mut self, mut request: Value) -> (Vec<String>, Value) {
        let id = self.next_id;
        self.next_id += 1;
        request["id"] = json!(id);
        let mut progress = Vec::new();
        let mut answer = self.line(&request.to_string());
        while let Some(text) = answer.get("progress") {
            progress.push(text.as_str().unwrap().to_owned());
            answer = self.read();
        }
        assert_eq!(answer["id"], json!(id), "{answer}");
        (progress, answer)
    }

    pub(crate) fn query(&mut self, about: Option<&Value>) -> Value {
        let mut request = json!({"verb": "query"});
        if let Some(about) = about {
            request["about"] = about.clone();
        }
        let mut answer = self.ask(request).1;
        assert!(answer.get("error").is_none(), "{answer}");
        answer["state"].take()
    }

    pub(crate) fn diff(&mut self, desired: &Value) -> Value {
        self.ask(json!({"verb": "diff", "desired": desired})).1
    }

    pub(crate) fn verify(&mut self, desired: &Value) -> Value {
        self.ask(json!({"verb": "verify", "desired": desired})).1
    }

    pub(crate) fn apply(&mut self, desired: &Value) -> Value {
        let (progress, answer) = self.ask(json!({"verb": "apply", "desired": desired}));
        let mut told = whats(&answer["applied"]);
        if let Some(change) = answer["error"].get("change") {
            told.push(change["what"].as_str().unwrap().to_owned());
        }
        assert_eq!(progress, told, "progress is told before each step");
        answer
    }

    /// Applies, and checks that all went well and that nothing is left to do.
    pub(crate) fn apply_all(&mut self, desired: &Value) -> Vec<String> {
        let answer = self.apply(desired);
        assert!(answer.get("error").is_none(), "{answer}");
        let left = self.verify(desired);
        assert_eq!(left["differences"], json!([]), "{left}");
        whats(&answer["applied"])
    }

    /// Ends the input; returns the code that the plugin ends with and what it wrote for people.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        drop(self.input.take());
        let mut errors = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        (self.child.wait().unwrap().code(), errors)
    }
}

/// What changes say for people.
pub(crate) fn whats(changes: &Value) -> Vec<String> {
    let changes = changes.as_array().unwrap_or_else(|| panic!("no changes: {changes}"));
    changes.iter().map(|change| change["what"].as_str().unwrap().to_owned()).collect()
}

/// The kind and the message of an error.
pub(crate) fn error(answer: &Value) -> (&str, &str) {
    let text = |key: &str| answer["error"][key].as_str().unwrap_or_else(|| panic!("{answer}"));
    (text("kind"), text("message"))
}

/// Text, its end not counted.
pub(crate) fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap().trim_end().to_owned()
}
