//! Group commit: callers that write at the same time share one batch and one sync.
//!
//! The first caller to find nobody leading leads: it takes every lot that waits, writes them as
//! one batch, applies them to the indexes and wakes their owners. Lots are committed in the order
//! in which they joined the queue, and only what is committed gets a sequence. A caller who finds
//! nobody at all does not join: what it wants written may stay where it lies.
//!
//! After a failed write nothing is known about what reached the disk, so the queue is *poisoned*:
//! every later write is refused until the store is opened again. (Rebello et al., "Can
//! Applications Recover from fsync Failures?", USENIX ATC 2020.)

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::state::Mutation;
use crate::error::{Error, ErrorKind, Result};

/// The most bytes one batch holds; RocksDB's own limit is 4 GiB.
const BATCH_BYTES_MAX: usize = 1 << 30;

/// Mutations that one caller wants committed together.
struct Lot {
    ticket: u64,
    mutations: Vec<Mutation<'static>>,
}

/// What one leader commits as one batch.
struct Group<'v> {
    last_ticket: u64,
    first_sequence: u64,
    mutations: Vec<Mutation<'v>>,
}

/// The queue of lots that wait to be committed.
pub(crate) struct CommitQueue {
    state: Mutex<State>,
    committed: Condvar,
}

struct State {
    waiting: VecDeque<Lot>,
    next_ticket: u64,
    /// Every lot with a smaller ticket has been committed.
    committed_before: u64,
    committed_sequence: u64,
    leading: bool,
    poison: Option<Poison>,
}

#[derive(Clone)]
struct Poison {
    kind: ErrorKind,
    cause: String,
}

impl CommitQueue {
    pub(crate) fn new(last_sequence: u64) -> Self {
        let state = State {
            waiting: VecDeque::new(),
            next_ticket: 0,
            committed_before: 0,
            committed_sequence: last_sequence,
            leading: false,
            poison: None,
        };
        Self { state: Mutex::new(state), committed: Condvar::new() }
    }

    /// Commits one caller's mutations; without any, waits for those that came before.
    ///
    /// `write` makes a batch durable, and may drop mutations whose condition does not hold;
    /// `apply` then shows it to readers. Both run on the thread of whichever caller leads, one
    /// batch at a time, in sequence order.
    pub(crate) fn commit(
        &self,
        mutations: Vec<Mutation<'_>>,
        write: impl Fn(&mut Vec<Mutation<'_>>, u64) -> Result<()>,
        apply: impl Fn(&[Mutation<'_>]),
    ) -> Result<()> {
        let mut state = self.lock_unpoisoned()?;
        let ticket;
        if state.leading || !state.waiting.is_empty() {
            drop(state);
            let mutations = mutations.into_iter().map(Mutation::into_owned).collect();
            state = self.lock_unpoisoned()?;
            ticket = state.join(mutations);
        } else {
            ticket = state.take_ticket();
            let first_sequence = state.committed_sequence + 1;
            let group = Group { last_ticket: ticket, first_sequence, mutations };
            state = self.lead(state, group, &write, &apply);
        }
        loop {
            if state.committed_before > ticket {
                return Ok(());
            }
            if let Some(poison) = &state.poison {
                return Err(failed(poison));
            }
            if state.leading {
                state = self.committed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let group = state.take_group().expect("a lot that is not committed waits");
            state = self.lead(state, group, &write, &apply);
        }
    }

    /// Commits a group without the lock, and returns with it.
    fn lead<'q>(
        &'q self,
        mut state: MutexGuard<'q, State>,
        mut group: Group<'_>,
        write: impl Fn(&mut Vec<Mutation<'_>>, u64) -> Result<()>,
        apply: impl Fn(&[Mutation<'_>]),
    ) -> MutexGuard<'q, State> {
        state.leading = true;
        drop(state);
        let mut lead = Lead { queue: self, last_ticket: group.last_ticket, outcome: None };
        lead.outcome = Some(group.commit(write, apply));
        drop(lead);
        self.lock()
    }

    /// Does another write of the same database, whose failure poisons like that of a commit.
    pub(crate) fn write_besides(&self, write: impl FnOnce() -> Result<()>) -> Result<()> {
        let mut state = self.lock_unpoisoned()?;
        write().inspect_err(|error| state.poison_by(error))
    }

    /// The sequence of the last mutation that was committed.
    pub(crate) fn last_sequence(&self) -> u64 {
        self.lock().committed_sequence
    }

    /// Waits until something is committed after this sequence; says whether that came in time.
    pub(crate) fn wait_beyond(&self, sequence: u64, wait: Duration) -> bool {
        let state = self.lock();
        let nothing_new = |state: &mut State| state.committed_sequence <= sequence;
        let (state, _) = self
            .committed
            .wait_timeout_while(state, wait, nothing_new)
            .unwrap_or_else(PoisonError::into_inner);
        state.committed_sequence > sequence
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_unpoisoned(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.lock();
        match &state.poison {
            Some(poison) => Err(refused(poison)),
            None => Ok(state),
        }
    }
}

impl State {
    fn take_ticket(&mut self) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        ticket
    }

    fn join(&mut self, mutations: Vec<Mutation<'static>>) -> u64 {
        let ticket = self.take_ticket();
        self.waiting.push_back(Lot { ticket, mutations });
        ticket
    }

    fn poison_by(&mut self, error: &Error) {
        let cause = std::error::Error::source(error)
            .map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
        self.poison = Some(Poison { kind: error.kind(), cause });
        self.waiting.clear();
    }

    /// Takes the lots that wait, as many as fit one batch, as one group.
    fn take_group(&mut self) -> Option<Group<'static>> {
        let first = self.waiting.pop_front()?;
        let mut batch_bytes = first.batch_bytes();
        let mut group = Group {
            last_ticket: first.ticket,
            first_sequence: self.committed_sequence + 1,
            mutations: first.mutations,
        };
        while let Some(lot) = self.waiting.front() {
            batch_bytes += lot.batch_bytes();
            if batch_bytes > BATCH_BYTES_MAX {
                break;
            }
            let Some(lot) = self.waiting.pop_front() else { break };
            group.last_ticket = lot.ticket;
            group.mutations.extend(lot.mutations);
        }
        Some(group)
    }
}

impl Group<'_> {
    /// Writes and shows the mutations, and returns how many there were.
    fn commit(
        &mut self,
        write: impl Fn(&mut Vec<Mutation<'_>>, u64) -> Result<()>,
        apply: impl Fn(&[Mutation<'_>]),
    ) -> Result<u64> {
        write(&mut self.mutations, self.first_sequence)?;
        apply(&self.mutations);
        Ok(self.mutations.len() as u64)
    }
}

impl Lot {
    fn batch_bytes(&self) -> usize {
        self.mutations.iter().map(Mutation::batch_bytes).sum()
    }
}

/// Ends a term of leading, also when `write` or `apply` panicked: nobody may wait forever.
struct Lead<'a> {
    queue: &'a CommitQueue,
    last_ticket: u64,
    /// How many mutations were committed.
    outcome: Option<Result<u64>>,
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.leading = false;
        match self.outcome.take() {
            Some(Ok(mutations_count)) => {
                state.committed_before = self.last_ticket + 1;
                state.committed_sequence += mutations_count;
            }
            Some(Err(error)) => state.poison_by(&error),
            None => state.poison_by(&Error::new(ErrorKind::Poisoned, "a write panicked")),
        }
        self.queue.committed.notify_all();
    }
}

/// For a caller whose own mutations were in the batch that failed.
fn failed(poison: &Poison) -> Error {
    Error::new(poison.kind, format!("the write was not acknowledged: {}", poison.cause))
        .with_remedy("mend the cause, open the store again and repeat what was not acknowledged")
}

/// For a caller who comes after the failure.
fn refused(poison: &Poison) -> Error {
    Error::new(
        ErrorKind::Poisoned,
        format!("writes are refused since an earlier one failed: {}", poison.cause),
    )
    .with_remedy("mend the cause and open the store again; reads go on")
}
