//! The sessions of one model, and the work of those who wait for vectors.
//!
//! One session has all threads: a batch that runs alone is answered soonest by it. Several sessions
//! of one thread do more than one session of several. Measured with all-MiniLM-L6-v2 and two threads
//! on two cores that had other work too, six pairs of runs: 5.2 to 5.8 against 6.4 to 7.1 CPU
//! milliseconds a text, and 5 to 47 % more texts a second, when no thread waited busily. The likely
//! reason is that threads of a session meet after every operator. Each session keeps the weights again, so their number is
//! limited, and all but the first are loaded only when there is enough to do.
//!
//! A session has threads of its own, so it does not survive `fork`: its use in a child
//! process is an error instead of a wait for threads that are not there.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Embedding;
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
}

impl Sessions {
    /// Loads the first session of `model`.
    ///
    /// # Errors
    /// Those of [`Session::load`].
    pub(super) fn load(
        runtime: &'static Runtime,
        model: &Model,
        device: Device,
        tokenizer: Tokenizer,
        threads_count: NonZeroUsize,
    ) -> Result<Self> {
        let first = Session::load(runtime, model, &device, threads_count)?;
        let budget_tokens = device.budget_tokens();
        Ok(Self {
            runtime,
            model: model.clone(),
            device,
            tokenizer,
            threads_count,
            process_id: std::process::id(),
            queue: Queue::new(first, budget_tokens),
            others_count: AtomicUsize::new(0),
        })
    }

    /// What runs the model.
    pub(super) fn provider(&self) -> Provider {
        self.device.provider
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
        let ticket = self.queue.enter(texts.len());
        let taken_count = AtomicUsize::new(0);
        let work = |before: &dyn Fn()| self.work(&ticket, (texts, &taken_count), before);
        let chunks_count = texts.len().div_ceil(CHUNK_TEXTS_COUNT);
        let helpers_count = (chunks_count - 1).min(self.threads_count.get() - 1);
        std::thread::scope(|scope| {
            for _ in 0..helpers_count.min(HELPERS_COUNT_MAX) {
                scope.spawn(|| work(&|| self.grow(ticket.batches_count())));
            }
            work(&|| ());
        });
        ticket.finish()
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
