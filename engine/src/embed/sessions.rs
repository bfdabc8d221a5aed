//! The sessions of one model, and the work of those who wait for vectors.
//!
//! One session has all threads: a batch that runs alone is answered soonest by it. Several sessions
//! of one thread do more than one session of several, likely because threads of a session meet after
//! every operator. Measured with all-MiniLM-L6-v2 and two threads, medians of nine pairs of runs: 1,040
//! against 780 short texts and 139 against 108 long ones a second, 1.9 against 2.5 and 14 against 18 CPU
//! milliseconds a text. Each session keeps the weights again, here 120 MB, so their number is limited,
//! and all but the first are loaded only when there is enough to do.
//!
//! A session has threads of its own, so it does not survive `fork`: its use in a child
//! process is an error instead of a wait for threads that are not there.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Embedding;
use super::alone::ModelAlone;
use super::model::Model;
use super::provider::{Device, Provider};
use super::queue::{Queue, Run, Step, Ticket};
use super::runtime::Runtime;
use super::session::Session;
use super::tokenize::{Tokenizer, Tokens};
use crate::error::{Error, ErrorKind, Result};

/// Sessions of less than all threads at most.
const OTHERS_COUNT_MAX: usize = 4;
/// Batches per session from which it is worth its loading, which takes as long as a few.
const BATCHES_PER_SESSION_MIN: usize = 16;
/// Requests that follow each other sooner are one piece of work: what puts many texts does so in parts.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Texts that are tokenized at a time.
const CHUNK_TEXTS_COUNT: usize = 32;
/// Threads beside the caller's that tokenize and run.
const HELPERS_COUNT_MAX: usize = 8;

/// A model that is loaded.
pub(super) struct Sessions {
    runtime: &'static Runtime,
    model: Model,
    device: Device,
    tokenizer: Tokenizer,
    threads_count: NonZeroUsize,
    process_id: u32,
    queue: Queue<Session>,
    /// Others than the first, loaded or being loaded.
    others_count: AtomicUsize,
    /// Batches of the requests of several that followed each other, and when the last was over.
    done: Mutex<(usize, Instant)>,
}

impl Sessions {
    /// The session of all threads, and those that will be loaded beside it.
    pub(super) fn new(
        runtime: &'static Runtime,
        model: &Model,
        (device, first): (Device, Session),
        tokenizer: Tokenizer,
        threads_count: NonZeroUsize,
    ) -> Self {
        let budget_tokens = device.budget_tokens();
        Self {
            runtime,
            model: model.clone(),
            device,
            tokenizer,
            threads_count,
            process_id: std::process::id(),
            queue: Queue::new(first, budget_tokens),
            others_count: AtomicUsize::new(0),
            done: Mutex::new((0, Instant::now())),
        }
    }

    /// What runs the model.
    pub(super) fn provider(&self) -> Provider {
        self.device.provider
    }

    /// One more session of all threads, which nobody else uses.
    pub(super) fn alone(&self) -> Result<ModelAlone> {
        let session = Session::load(self.runtime, &self.model, &self.device, self.threads_count)?;
        Ok(ModelAlone::new(session, self.model.clone()))
    }

    /// Returns the embeddings of texts, in their order.
    ///
    /// # Errors
    /// Those of [`Session::run`] and [`Tokenizer::tokenize`]; [`ErrorKind::Unsupported`] after a
    /// `fork`.
    pub(super) fn embed(&self, texts: &[&str]) -> Result<Vec<Embedding>> {
        if std::process::id() != self.process_id {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the embedding model was loaded before this process was forked",
            )
            .with_remedy("open the model in the process that uses it"));
        }
        let chunks_count = texts.len().div_ceil(CHUNK_TEXTS_COUNT);
        let helpers_count = (chunks_count - 1).min(self.threads_count.get() - 1);
        let ticket = self.queue.enter(texts.len());
        let done_count = if helpers_count > 0 { self.done_count() } else { 0 };
        let taken_count = AtomicUsize::new(0);
        let work = |before: &dyn Fn()| self.work(&ticket, (texts, &taken_count), before);
        std::thread::scope(|scope| {
            for _ in 0..helpers_count.min(HELPERS_COUNT_MAX) {
                scope.spawn(|| work(&|| self.grow(done_count + ticket.batches_count())));
            }
            work(&|| ());
        });
        if helpers_count > 0 {
            self.note_done(done_count + ticket.batches_count());
        }
        ticket.finish()
    }

    /// Batches of the requests just before.
    fn done_count(&self) -> usize {
        let (count, ended) = *self.done.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.elapsed() < PAUSE_MAX { count } else { 0 }
    }

    fn note_done(&self, batches_count: usize) {
        *self.done.lock().unwrap_or_else(PoisonError::into_inner) = (batches_count, Instant::now());
    }

    /// Sessions of fewer threads that there can be.
    fn others_count_max(&self) -> usize {
        match self.threads_count.get() {
            1 => 0,
            _ if self.device.is_accelerator() => 0,
            threads_count => threads_count.min(OTHERS_COUNT_MAX),
        }
    }

    /// Does what there is to do until the request of the ticket is over, and before each step what is
    /// given.
    fn work(
        &self,
        ticket: &Ticket<'_, Session>,
        (texts, taken_count): (&[&str], &AtomicUsize),
        before: &dyn Fn(),
    ) {
        loop {
            before();
            match ticket.next(taken_count.load(Ordering::Relaxed) < texts.len()) {
                Step::End => return,
                Step::Tokenize => self.tokenize_some(ticket, texts, taken_count),
                Step::Run(run) => self.run(run),
            }
        }
    }

    fn tokenize_some(
        &self,
        ticket: &Ticket<'_, Session>,
        texts: &[&str],
        taken_count: &AtomicUsize,
    ) {
        let start = taken_count.fetch_add(CHUNK_TEXTS_COUNT, Ordering::Relaxed).min(texts.len());
        let end = texts.len().min(start + CHUNK_TEXTS_COUNT);
        let tokenized: Result<Vec<(usize, Tokens)>> =
            (start..end).map(|place| Ok((place, self.tokenize(texts[place])?))).collect();
        match tokenized {
            Ok(tokenized) => ticket.add(tokenized),
            Err(error) => ticket.fail(error),
        }
    }

    pub(super) fn tokens_count(&self, text: &str) -> Result<usize> {
        Ok(self.tokenizer.tokenize(text)?.ids.len())
    }

    fn tokenize(&self, text: &str) -> Result<Tokens> {
        let tokens = self.tokenizer.tokenize(text)?;
        if tokens.ids.is_empty() {
            // Only without special tokens: a model cannot be run on nothing.
            let name = self.model.name();
            let context = format!("the model {name} has no tokens for the text {text:?}");
            return Err(
                Error::new(ErrorKind::Invalid, context).with_remedy("give a text with words")
            );
        }
        Ok(tokens)
    }

    /// Runs a batch; should it fail, each request's texts alone, so that nobody suffers for others.
    fn run(&self, mut run: Run<'_, Session>) {
        let mut are_together = true;
        while run.texts_count() > 0 {
            let (all_count, group_count) = (run.texts_count(), run.last_group_count());
            let count = if are_together { all_count } else { group_count };
            let (session, texts) = run.parts();
            let texts = &texts[all_count - count..];
            match session.run(&self.model, texts, self.tokenizer.pad_token_id()) {
                Ok(vectors) => run.deliver(vectors),
                Err(_) if count > group_count => are_together = false,
                Err(error) => run.refuse(count, error),
            }
        }
    }

    /// Loads one more session beside the first, if so many batches are worth it.
    ///
    /// Without it the work takes longer but is done, so a failure is only reported. The
    /// usual one is that the model's files have been replaced since.
    fn grow(&self, batches_count: usize) {
        let most = self.others_count_max();
        // One other session does no more than the first.
        let worth = match batches_count / BATCHES_PER_SESSION_MIN {
            0 | 1 => 0,
            worth => worth.min(most),
        };
        let grown = |before: usize| (before < worth).then_some(before + 1);
        let is_mine =
            self.others_count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).is_ok();
        if !is_mine {
            return;
        }
        let threads_count =
            NonZeroUsize::new(self.threads_count.get() / most).unwrap_or(NonZeroUsize::MIN);
        match Session::load(self.runtime, &self.model, &self.device, threads_count) {
            Ok(session) => self.queue.add_session(session),
            Err(error) => {
                self.others_count.fetch_sub(1, Ordering::Relaxed);
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, cause, "embedding goes on with fewer sessions");
            }
        }
    }
}
