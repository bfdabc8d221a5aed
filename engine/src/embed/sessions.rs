//! The sessions of one model, and who may run which.
//!
//! Several sessions of one thread do more than one session of several. Measured with
//! all-MiniLM-L6-v2 and two threads on two cores that had other work too, six pairs of
//! runs: 5.2 to 5.8 against 6.4 to 7.1 CPU milliseconds a text, and 5 to 47 % more texts
//! a second. The likely reason is that threads of a session meet after every operator.
//! Each session keeps the weights again, so their number is limited, they share the
//! threads there are, and all but the first are loaded only when there is enough to do.
//!
//! Invariant: whoever waits for a session gets the next that is free, so a query waits
//! for one batch of an indexing run, not for its end.
//!
//! A session has threads of its own, so it does not survive `fork`: its use in a child
//! process is an error instead of a wait for threads that are not there.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::batch::Batch;
use super::model::Model;
use super::runtime::Runtime;
use super::session::Session;
use super::tokenize::Tokens;
use crate::error::{Error, ErrorKind, Result};

const SESSIONS_COUNT_MAX: usize = 4;
/// Batches per session from which it is worth its loading, which takes as long as a few.
const BATCHES_PER_SESSION_MIN: usize = 16;

/// The loaded sessions of a model.
pub(super) struct Sessions {
    runtime: &'static Runtime,
    model: Model,
    pad_token_id: u32,
    /// How many there can be.
    count_max: usize,
    /// Threads of each.
    threads_count: NonZeroUsize,
    process_id: u32,
    /// Held while waiting for a free session. Without it a caller with many batches
    /// would take its session back before a woken waiter gets to it.
    turn: Mutex<()>,
    state: Mutex<State>,
    freed: Condvar,
}

struct State {
    free: Vec<Session>,
    /// Loaded or being loaded.
    count: usize,
}

/// A session in use; it is free again when this is dropped.
struct Lease<'s> {
    sessions: &'s Sessions,
    session: Option<Session>,
}

impl Sessions {
    /// Loads the first session of `model`, of `threads_count` threads in all.
    ///
    /// # Errors
    /// Those of [`Session::load`].
    pub(super) fn load(
        runtime: &'static Runtime,
        model: &Model,
        threads_count: NonZeroUsize,
        pad_token_id: u32,
    ) -> Result<Self> {
        let count_max = threads_count.get().min(SESSIONS_COUNT_MAX);
        let threads_count =
            NonZeroUsize::new(threads_count.get() / count_max).unwrap_or(NonZeroUsize::MIN);
        let first = Session::load(runtime, model, threads_count)?;
        Ok(Self {
            runtime,
            model: model.clone(),
            pad_token_id,
            count_max,
            threads_count,
            process_id: std::process::id(),
            turn: Mutex::new(()),
            state: Mutex::new(State { free: vec![first], count: 1 }),
            freed: Condvar::new(),
        })
    }

    /// Runs `batches` of `tokens`: the vectors of each, in the order of the batches.
    ///
    /// # Errors
    /// Those of [`Session::run`], and of [`Session::load`] for further sessions;
    /// [`ErrorKind::Unsupported`] after a `fork`.
    pub(super) fn run(
        &self,
        batches: &[Batch<'_>],
        tokens: &[Tokens],
    ) -> Result<Vec<Vec<Vec<f32>>>> {
        if std::process::id() != self.process_id {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the embedding model was loaded before this process was forked",
            )
            .with_remedy("open the model in the process that uses it"));
        }
        let workers_count = (batches.len() / BATCHES_PER_SESSION_MIN).clamp(1, self.count_max);
        let left = AtomicUsize::new(batches.len());
        let work = || self.work(batches, tokens, &left);
        let done = std::thread::scope(|scope| {
            let help = || if self.grow(workers_count) { work() } else { Ok(Vec::new()) };
            let helpers: Vec<_> = (1..workers_count).map(|_| scope.spawn(help)).collect();
            let mut done = vec![work()];
            for helper in helpers {
                done.push(helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            done
        });
        let mut vectors = vec![Vec::new(); batches.len()];
        for worker in done {
            for (batch, of_batch) in worker? {
                vectors[batch] = of_batch;
            }
        }
        Ok(vectors)
    }

    /// Runs batches until none is left, the last first.
    ///
    /// The last are the longest: taken first, they do not keep one worker busy while
    /// the others have nothing left to do.
    fn work(
        &self,
        batches: &[Batch<'_>],
        tokens: &[Tokens],
        left: &AtomicUsize,
    ) -> Result<Vec<(usize, Vec<Vec<f32>>)>> {
        let mut done = Vec::new();
        let take = |left: usize| left.checked_sub(1);
        while let Ok(before) = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            let index = before - 1;
            let mut lease = self.lease();
            match lease.session().run(&self.model, &batches[index], tokens, self.pad_token_id) {
                Ok(vectors) => done.push((index, vectors)),
                Err(error) => {
                    // The answer is this error, so the other workers can stop too.
                    left.store(0, Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
        Ok(done)
    }

    /// Sees to it that there are `count` sessions, loading one if need be; says whether
    /// there is one more to use.
    ///
    /// Without it the work takes longer but is done, so a failure is only reported. The
    /// usual one is that the model's files have been replaced since.
    fn grow(&self, count: usize) -> bool {
        {
            let mut state = self.state();
            if state.count >= count {
                return true;
            }
            state.count += 1;
        }
        match Session::load(self.runtime, &self.model, self.threads_count) {
            Ok(session) => {
                self.state().free.push(session);
                self.freed.notify_one();
                true
            }
            Err(error) => {
                self.state().count -= 1;
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, cause, "embedding goes on with fewer sessions");
                false
            }
        }
    }

    /// Waits for a free session.
    fn lease(&self) -> Lease<'_> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.state();
        loop {
            if let Some(session) = state.free.pop() {
                return Lease { sessions: self, session: Some(session) };
            }
            state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease<'_> {
    fn session(&mut self) -> &mut Session {
        self.session.as_mut().expect("a lease has its session until it is dropped")
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.sessions.state().free.extend(self.session.take());
        self.sessions.freed.notify_one();
    }
}
