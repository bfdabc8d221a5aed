//! Says whether what a damaged store answers is allowed.

use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use op_dbus_engine::{Error, ErrorKind, ScrubOptions, Store};
use op_dbus_formats::manifest;

use super::flips::{Flip, Outcome, copy};
use super::sample::{self, Answer};

/// How far a score may be from that of the whole store: what computing an embedding again costs.
const SCORE_TOLERANCE: f32 = 1e-3;

/// A store that is whole, and what it answers.
pub struct Judge<'a> {
    whole: &'a Path,
    /// Where damaged copies are made.
    scratch: &'a Path,
    expected: Vec<Answer>,
}

impl<'a> Judge<'a> {
    /// Asks the whole store everything.
    ///
    /// # Panics
    /// If it is not what was written.
    pub fn new(whole: &'a Path, scratch: &'a Path) -> Self {
        let path = scratch.join("whole");
        copy(whole, &path).expect("a store can be copied");
        let (store, expected) = sample::ask(&path).expect("the whole store opens");
        sample::check(&expected);
        drop(store);
        fs::remove_dir_all(&path).expect("a copy can be removed");
        Self { whole, scratch, expected }
    }

    /// Judges the store with one byte changed.
    ///
    /// # Panics
    /// If the copy cannot be made.
    pub fn judge(&self, flip: &Flip) -> (Outcome, String) {
        let path = self.scratch.join("damaged");
        copy(self.whole, &path).expect("a store can be copied");
        flip.apply(&path).expect("a byte can be changed");
        let damaged = Damaged::open(path.join(&flip.file)).expect("it was just written");
        let (outcome, why) = self.judge_store(&path, |store| prove(store, &path, flip, &damaged));
        fs::remove_dir_all(&path).expect("a copy can be removed");
        (outcome, why)
    }

    /// Judges a store, which it opens. If all its answers are right, `prove` says why that may be.
    pub fn judge_store(
        &self,
        path: &Path,
        prove: impl FnOnce(&Store) -> Result<String, String>,
    ) -> (Outcome, String) {
        let (store, answers) = match sample::ask(path) {
            Ok(asked) => asked,
            Err(error) => return of_error("open", &error),
        };
        let mut detected = None;
        for (answer, expected) in answers.iter().zip(&self.expected) {
            let question = &expected.question;
            let expected = expected.said.as_ref().expect("the whole store answers everything");
            match &answer.said {
                Ok(said) if is_near(said, expected) => {}
                Ok(said) => {
                    return (Outcome::Wrong, format!("{question}: {said:?}, not {expected:?}"));
                }
                Err(error) => match of_error(question, error) {
                    wrong @ (Outcome::Wrong, _) => return wrong,
                    other => detected = Some(other),
                },
            }
        }
        detected.unwrap_or_else(|| match prove(&store) {
            Ok(why) => (Outcome::Harmless, why),
            Err(why) => (Outcome::Wrong, why),
        })
    }
}

fn is_near(said: &(String, Vec<f32>), expected: &(String, Vec<f32>)) -> bool {
    let near = |(a, b): (&f32, &f32)| (a - b).abs() <= SCORE_TOLERANCE;
    said.0 == expected.0
        && said.1.len() == expected.1.len()
        && said.1.iter().zip(&expected.1).all(near)
}

/// An error is right if it says that the store is damaged, or that it cannot be read at all.
fn of_error(question: &str, error: &Error) -> (Outcome, String) {
    let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    let text = format!("{question}: {:?}: {error}: {source}", error.kind());
    let is_tail = error.to_string().contains("was acknowledged");
    match error.kind() {
        ErrorKind::Corrupt if error.remedy().is_none() => {
            (Outcome::Wrong, format!("{text}: without a remedy"))
        }
        ErrorKind::Corrupt if is_tail => (Outcome::Tail, text),
        ErrorKind::Corrupt | ErrorKind::Unsupported => (Outcome::Detected, text),
        _ => (Outcome::Wrong, format!("{text}: not what it is")),
    }
}

/// A file that was changed. It is held open, so that no other file can be taken for it: the
/// `CURRENT` of a new cache may by chance say what the changed one said.
struct Damaged {
    path: PathBuf,
    file: File,
    bytes: Vec<u8>,
}

impl Damaged {
    fn open(path: PathBuf) -> io::Result<Self> {
        Ok(Self { file: File::open(&path)?, bytes: fs::read(&path)?, path })
    }

    /// Whether another file has its name, or other bytes are in it.
    fn is_replaced(&self) -> bool {
        let (Ok(held), Ok(named)) = (self.file.metadata(), fs::metadata(&self.path)) else {
            return true;
        };
        (held.dev(), held.ino()) != (named.dev(), named.ino())
            || fs::read(&self.path).ok().as_ref() != Some(&self.bytes)
    }
}

/// Says why a changed byte may change nothing.
fn prove(store: &Store, path: &Path, flip: &Flip, damaged: &Damaged) -> Result<String, String> {
    let name = flip.file.rsplit('/').next().unwrap_or_default();
    if name == "LOCK" {
        return Ok("nobody reads it".to_owned());
    }
    // What was hot before is read by a thread of its own, which removes what is damaged.
    while !store.is_warm() {
        std::thread::sleep(Duration::from_millis(1));
    }
    if path.join(format!("{}.damaged", flip.file)).exists() {
        return Ok("it was found to be damaged, and is not used again".to_owned());
    }
    if flip.file == "@vectors/MANIFEST" {
        return prove_manifest(&damaged.bytes);
    }
    if damaged.is_replaced() {
        return Ok("it was replaced".to_owned());
    }
    let report = store
        .scrub(&ScrubOptions::default(), &mut |_| ControlFlow::Continue(()))
        .map_err(|error| format!("scrub: {error}"))?;
    match report.faults.iter().find(|fault| fault.path == Path::new(&flip.file)) {
        Some(fault) => Ok(format!("a scrub finds it: {}", fault.what)),
        // Tables are merged at any time, and a damaged filter does not hinder that. One that was
        // merged is no part of the store from then on, and removed a little later.
        None if happens_soon(|| damaged.is_replaced()) => {
            Ok("it was replaced meanwhile".to_owned())
        }
        None => Err(format!("right answers, and a scrub finds nothing: {:?}", report.faults)),
    }
}

fn happens_soon(happens: impl Fn() -> bool) -> bool {
    const PATIENCE: Duration = Duration::from_secs(5);
    const PAUSE: Duration = Duration::from_millis(10);
    let started = Instant::now();
    while !happens() {
        if started.elapsed() > PATIENCE {
            return false;
        }
        std::thread::sleep(PAUSE);
    }
    true
}

/// A list of derived files has two parts: one is wrong and says so, or the byte is in neither.
fn prove_manifest(damaged: &[u8]) -> Result<String, String> {
    match manifest::newest(damaged) {
        (_, problems) if !problems.is_empty() => Ok(format!("its reader finds it: {problems:?}")),
        (Some(newest), _) => {
            Ok(format!("no part holds the byte: generation {}", newest.generation))
        }
        (None, _) => Err("it names nothing, and nobody says why".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_by_another_with_the_same_bytes_and_by_other_bytes() -> io::Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("CURRENT");
        fs::write(&path, "MANIFEST-000005")?;
        let damaged = Damaged::open(path.clone())?;
        assert!(!damaged.is_replaced());

        let new = directory.path().join("new");
        fs::write(&new, "MANIFEST-000005")?;
        fs::rename(&new, &path)?;
        assert!(damaged.is_replaced());

        let damaged = Damaged::open(path.clone())?;
        fs::write(&path, "MANIFEST-000007")?;
        assert!(damaged.is_replaced());
        fs::remove_file(&path)?;
        assert!(damaged.is_replaced());
        Ok(())
    }
}
