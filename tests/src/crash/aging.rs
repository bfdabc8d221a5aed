//! One store through many sessions: recovery of what recovery left.

use std::path::{Path, PathBuf};

use super::check::{Finding, Session, check, observe};
use super::workload::State;

/// A store and what it must hold.
#[derive(Clone, Debug)]
pub struct AgingStore {
    path: PathBuf,
    /// By writer, its keys.
    writers: Vec<State>,
    sequence: u64,
    sessions_count: u64,
}

impl AgingStore {
    /// A store that does not exist yet, with so many writers.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, writers_count: usize) -> Self {
        let writers = vec![State::new(); writers_count];
        Self { path: path.into(), writers, sequence: 0, sessions_count: 0 }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The keys of a writer.
    #[must_use]
    pub fn writer(&self, writer: usize) -> &State {
        &self.writers[writer]
    }

    /// The sequence of its last mutation.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The number of the next session.
    #[must_use]
    pub fn session(&self) -> u64 {
        self.sessions_count
    }

    /// Opens the store after one session of every writer, judges it, and takes what it holds for
    /// what it must hold from now on.
    ///
    /// # Errors
    /// All promises that were broken; the store is of no more use then.
    pub fn settle(&mut self, sessions: &[Session]) -> Result<(), Vec<Finding>> {
        assert_eq!(sessions.len(), self.writers.len(), "one session for each writer");
        let observed = observe(&self.path).map_err(|finding| vec![finding])?;
        self.writers = check(&observed, self.sequence, sessions)?;
        self.sequence = observed.sequence;
        self.sessions_count += 1;
        Ok(())
    }

    /// [`Self::settle`] after a session in which nobody wrote.
    ///
    /// # Errors
    /// As there.
    pub fn settle_unchanged(&mut self) -> Result<(), Vec<Finding>> {
        let idle = |before: &State| Session { before: before.clone(), ..Session::default() };
        let sessions: Vec<Session> = self.writers.iter().map(idle).collect();
        self.settle(&sessions)
    }
}
