//! Texts that wait for a session, of all callers, and whose turn it is.
//!
//! Callers do the work themselves: whoever waits for vectors and finds a session free runs the
//! batch whose turn it is, be it of its own texts or of others'. So no thread sits between a lone
//! caller and the model, and a thousand callers with a text each share batches.
//!
//! Requests take turns, a batch each, so a query waits for one batch of an indexing run and not for
//! its end. The express session has all threads, and is for requests that are one batch: they do not
//! wait for a long one at all. The other sessions, once there are any, are for those that are more.
//!
//! Invariant: where a session is free and a text waits that may use it, somebody has been woken.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::Embedding;
use super::batch::{Batch, Running};
use super::tokenize::Tokens;
use crate::error::Error;

/// Texts of a request that wait at most: enough that sorting leaves hardly any padding, few enough
/// that their tokens take little memory.
const AHEAD_TEXTS_COUNT: usize = 1024;
/// Tokens of all requests that wait before only those go on tokenizing that have nothing here.
const WAITING_TOKENS_MAX: usize = 1 << 20;

/// What waits and what is free; `S` is a session.
pub(super) struct Queue<S> {
    state: Mutex<State<S>>,
    /// Positions, padding included, that a batch may have.
    budget_tokens: usize,
}

struct State<S> {
    requests: HashMap<u64, Request>,
    /// Requests that have texts waiting, in the order of their turns.
    turns: VecDeque<u64>,
    next_id: u64,
    waiting_tokens_count: usize,
    express: Option<S>,
    others: Vec<S>,
    /// Of the others, free or not.
    others_count: usize,
}

struct Request {
    /// By length, so that the longest come last, and by the text's place.
    waiting: BTreeMap<(usize, usize), Vec<u32>>,
    embeddings: Vec<Embedding>,
    /// Texts that are not tokenized yet.
    missing_count: usize,
    running_count: usize,
    /// Tokens of all its texts so far.
    tokens_count: usize,
    failure: Option<Error>,
    changed: Arc<Condvar>,
    /// Threads that wait for a change and were not told of one.
    sleepers_count: usize,
}

/// A place in the queue, given up when this is dropped.
pub(super) struct Ticket<'q, S> {
    queue: &'q Queue<S>,
    id: u64,
}

/// What whoever waits for a request does next.
pub(super) enum Step<'q, S> {
    /// There is nothing left to wait for.
    End,
    /// Tokenize some more of its texts.
    Tokenize,
    /// Run a batch.
    Run(Run<'q, S>),
}

/// A batch and the session that runs it, which is free again when this is dropped.
pub(super) struct Run<'q, S> {
    queue: &'q Queue<S>,
    session: Option<S>,
    is_express: bool,
    /// Those that have no answer yet, of the same request one after the other.
    texts: Vec<Running>,
}

impl<S> Queue<S> {
    /// An empty one, with the session for requests that are one batch, and for all others as long as
    /// there are no more.
    pub(super) fn new(express: S, budget_tokens: usize) -> Self {
        let state = State {
            requests: HashMap::new(),
            turns: VecDeque::new(),
            next_id: 0,
            waiting_tokens_count: 0,
            express: Some(express),
            others: Vec::new(),
            others_count: 0,
        };
        Self { state: Mutex::new(state), budget_tokens }
    }

    /// Makes room for a request of so many texts.
    pub(super) fn enter(&self, texts_count: usize) -> Ticket<'_, S> {
        let mut state = self.state();
        let id = state.next_id;
        state.next_id += 1;
        let nothing = Embedding { vector: Vec::new(), tokens_count: 0, truncated: false };
        let request = Request {
            waiting: BTreeMap::new(),
            embeddings: vec![nothing; texts_count],
            missing_count: texts_count,
            running_count: 0,
            tokens_count: 0,
            failure: None,
            changed: Arc::default(),
            sleepers_count: 0,
        };
        state.requests.insert(id, request);
        Ticket { queue: self, id }
    }

    /// Takes one more session.
    pub(super) fn add_session(&self, session: S) {
        let mut state = self.state();
        state.others.push(session);
        state.others_count += 1;
        state.wake(self.budget_tokens);
    }

    fn state(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'q, S> Ticket<'q, S> {
    /// Adds texts, by their places in the request.
    pub(super) fn add(&self, texts: impl IntoIterator<Item = (usize, Tokens)>) {
        let mut state = self.queue.state();
        let state = &mut *state;
        let Some(request) = state.requests.get_mut(&self.id) else { return };
        if request.failure.is_some() {
            return;
        }
        for (place, tokens) in texts {
            let count = tokens.ids.len();
            let embedding = &mut request.embeddings[place];
            (embedding.tokens_count, embedding.truncated) = (count, tokens.truncated);
            request.missing_count -= 1;
            request.tokens_count += count;
            state.waiting_tokens_count += count;
            if request.waiting.is_empty() {
                state.turns.push_back(self.id);
            }
            request.waiting.insert((count, place), tokens.ids);
        }
        if request.missing_count == 0 {
            // They have waited for the last.
            request.wake_all();
        }
        state.wake(self.queue.budget_tokens);
    }

    /// Gives the request up, for this reason.
    pub(super) fn fail(&self, error: Error) {
        let mut state = self.queue.state();
        state.fail(self.id, error);
        state.wake(self.queue.budget_tokens);
    }

    /// Waits until there is something to do; `is_more` says whether there are texts that nobody
    /// tokenizes yet.
    pub(super) fn next(&self, is_more: bool) -> Step<'q, S> {
        let mut state = self.queue.state();
        loop {
            let State { requests, waiting_tokens_count, .. } = &*state;
            let Some(request) = requests.get(&self.id) else { return Step::End };
            if request.is_over() {
                return Step::End;
            }
            let wants_more = request.wants_more(*waiting_tokens_count);
            if is_more && wants_more {
                return Step::Tokenize;
            }
            if !wants_more
                && !request.waiting.is_empty()
                && let Some(run) = self.queue.begin(&mut state, self.id)
            {
                return Step::Run(run);
            }
            let Some(request) = state.requests.get_mut(&self.id) else { return Step::End };
            request.sleepers_count += 1;
            let changed = Arc::clone(&request.changed);
            state = changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// About how many batches it is, told from the texts that were added.
    pub(super) fn batches_count(&self) -> usize {
        let state = self.queue.state();
        let request = &state.requests[&self.id];
        let (all_count, missing_count) = (request.embeddings.len(), request.missing_count);
        let tokens_count = request.tokens_count * all_count / (all_count - missing_count).max(1);
        tokens_count.div_ceil(self.queue.budget_tokens)
    }

    /// Ends the request.
    ///
    /// # Errors
    /// Why it failed.
    pub(super) fn finish(self) -> Result<Vec<Embedding>, Error> {
        let mut state = self.queue.state();
        match state.requests.remove(&self.id) {
            Some(Request { failure: Some(error), .. }) => Err(error),
            Some(request) => Ok(request.embeddings),
            None => Ok(Vec::new()),
        }
    }
}

impl<S> Drop for Ticket<'_, S> {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        state.forget_waiting(self.id);
        state.requests.remove(&self.id);
        // It may have been woken for others.
        state.wake(self.queue.budget_tokens);
    }
}

impl Request {
    fn is_over(&self) -> bool {
        let is_done = self.missing_count == 0 && self.waiting.is_empty() && self.running_count == 0;
        is_done || self.failure.is_some()
    }

    /// Whether texts are missing that its batches are better made with.
    fn wants_more(&self, all_waiting_tokens_count: usize) -> bool {
        let has_room =
            self.waiting.len() < AHEAD_TEXTS_COUNT && all_waiting_tokens_count < WAITING_TOKENS_MAX;
        self.missing_count > 0 && (has_room || self.waiting.is_empty())
    }

    fn wake_all(&mut self) {
        self.sleepers_count = 0;
        self.changed.notify_all();
    }

    /// Whether it is one batch.
    fn is_short(&self, budget_tokens: usize) -> bool {
        self.missing_count == 0 && self.tokens_count <= budget_tokens
    }
}

impl<S> Queue<S> {
    /// Begins the batch whose turn it is, if a session is free that the request `id` may use.
    fn begin(&self, state: &mut State<S>, id: u64) -> Option<Run<'_, S>> {
        let (session, is_express, first) = if state.may_use_express(id, self.budget_tokens) {
            let first = state.first_of_express(self.budget_tokens)?;
            (state.express.take()?, true, first)
        } else {
            let first = *state.turns.front()?;
            (state.others.pop()?, false, first)
        };
        let texts = state.take_batch(first, self.budget_tokens);
        // There may be more sessions than one.
        state.wake(self.budget_tokens);
        Some(Run { queue: self, session: Some(session), is_express, texts })
    }
}

impl<S> State<S> {
    fn may_use_express(&self, id: u64, budget_tokens: usize) -> bool {
        let is_short = |id: &u64| self.requests.get(id).is_some_and(|r| r.is_short(budget_tokens));
        self.express.is_some() && (self.others_count == 0 || is_short(&id))
    }

    /// The request whose turn it is among those that may use the express session.
    fn first_of_express(&self, budget_tokens: usize) -> Option<u64> {
        self.turns.iter().copied().find(|id| self.may_use_express(*id, budget_tokens))
    }

    /// Takes the longest texts of a request, and as many of about their length as a batch has room
    /// for, its own first.
    fn take_batch(&mut self, first: u64, budget_tokens: usize) -> Vec<Running> {
        let place = self.turns.iter().position(|id| *id == first).unwrap_or_default();
        let mut order: Vec<u64> = self.turns.drain(place..=place).collect();
        order.extend(self.turns.iter());
        let mut batch = Batch::default();
        for id in order {
            let Some(request) = self.requests.get_mut(&id) else { continue };
            while batch.has_room(budget_tokens)
                && let Some((len, text)) = batch.longest_fitting(&request.waiting)
            {
                let ids = request.waiting.remove(&(len, text)).unwrap_or_default();
                request.running_count += 1;
                self.waiting_tokens_count -= len;
                batch.row_len = batch.row_len.max(len);
                batch.texts.push(Running { request: id, text, ids });
            }
            if request.waiting.is_empty() {
                self.turns.retain(|other| *other != id);
            } else if id == first {
                self.turns.push_back(id);
            }
            if !batch.has_room(budget_tokens) {
                break;
            }
        }
        batch.texts
    }

    /// Wakes those who can use what is free.
    fn wake(&mut self, budget_tokens: usize) {
        let can_run = |id: &u64| {
            let request = self.requests.get(id);
            request.is_some_and(|request| {
                request.sleepers_count > 0 && !request.wants_more(self.waiting_tokens_count)
            })
        };
        let mut sleepers = self.turns.iter().copied().filter(can_run);
        let other = if self.others.is_empty() { None } else { sleepers.next() };
        let express = sleepers.find(|id| self.may_use_express(*id, budget_tokens));
        for id in [express, other].into_iter().flatten() {
            if let Some(request) = self.requests.get_mut(&id) {
                request.sleepers_count -= 1;
                request.changed.notify_one();
            }
        }
    }

    fn fail(&mut self, id: u64, error: Error) {
        self.forget_waiting(id);
        if let Some(request) = self.requests.get_mut(&id) {
            request.failure.get_or_insert(error);
            request.wake_all();
        }
    }

    fn forget_waiting(&mut self, id: u64) {
        if let Some(request) = self.requests.get_mut(&id) {
            let waiting = std::mem::take(&mut request.waiting);
            self.waiting_tokens_count -= waiting.keys().map(|(len, _)| len).sum::<usize>();
            self.turns.retain(|other| *other != id);
        }
    }
}

impl<S> Run<'_, S> {
    /// The session, and what it is to run.
    pub(super) fn parts(&mut self) -> (&mut S, &[Running]) {
        let session = self.session.as_mut().expect("a run has its session until it is dropped");
        (session, &self.texts)
    }

    /// How many texts have no answer yet.
    pub(super) fn texts_count(&self) -> usize {
        self.texts.len()
    }

    /// How many texts at the end are of the same request.
    pub(super) fn last_group_count(&self) -> usize {
        let last = self.texts.last().map(|text| text.request);
        self.texts.iter().rev().take_while(|text| Some(text.request) == last).count()
    }

    /// Hands the vectors of the last texts to those who wait for them.
    pub(super) fn deliver(&mut self, vectors: Vec<Vec<f32>>) {
        let start = self.texts.len() - vectors.len();
        let mut state = self.queue.state();
        for (text, vector) in self.texts.drain(start..).zip(vectors) {
            let Some(request) = state.requests.get_mut(&text.request) else { continue };
            request.embeddings[text.text].vector = vector;
            request.running_count -= 1;
            if request.is_over() {
                request.wake_all();
            }
        }
    }

    /// Tells those who wait for the last texts, so many of one request, that they cannot be had.
    pub(super) fn refuse(&mut self, count: usize, error: Error) {
        let start = self.texts.len() - count;
        let Some(text) = self.texts.drain(start..).next_back() else { return };
        self.queue.state().fail(text.request, error);
    }
}

impl<S> Drop for Run<'_, S> {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        let session = self.session.take();
        if self.is_express {
            state.express = session;
        } else {
            state.others.extend(session);
        }
        // Only if whoever ran them panicked.
        for text in self.texts.drain(..) {
            let context = "the model was broken off on the tokens of a text";
            state.fail(text.request, Error::new(crate::error::ErrorKind::Unavailable, context));
        }
        state.wake(self.queue.budget_tokens);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::error::ErrorKind;

    const BUDGET_TOKENS: usize = 12;

    fn tokens(len: usize) -> Tokens {
        Tokens { ids: vec![len as u32; len], truncated: false }
    }

    /// A request whose texts, of these lengths, all wait.
    fn waiting<'q, S>(queue: &'q Queue<S>, lens: &[usize]) -> Ticket<'q, S> {
        let ticket = queue.enter(lens.len());
        ticket.add(lens.iter().map(|len| tokens(*len)).enumerate());
        ticket
    }

    fn begin<'q, S>(ticket: &Ticket<'q, S>) -> Option<Run<'q, S>> {
        let queue = ticket.queue;
        queue.begin(&mut queue.state(), ticket.id)
    }

    fn lens<S>(run: &Run<'_, S>) -> Vec<usize> {
        run.texts.iter().map(|text| text.ids.len()).collect()
    }

    /// Answers each text with its length.
    fn run<S>(mut run: Run<'_, S>) -> Vec<usize> {
        let lens = lens(&run);
        run.deliver(lens.iter().map(|len| vec![*len as f32]).collect());
        lens
    }

    fn answers<S>(ticket: Ticket<'_, S>) -> Vec<f32> {
        ticket.finish().unwrap().iter().map(|embedding| embedding.vector[0]).collect()
    }

    #[test]
    fn texts_of_like_length_run_together_the_longest_first() {
        let queue = Queue::new((), BUDGET_TOKENS);
        let ticket = waiting(&queue, &[2, 6, 5, 4, 2, 20, 2, 3]);
        let mut ran = Vec::new();
        while let Step::Run(next) = ticket.next(false) {
            ran.push(run(next));
        }
        assert_eq!(ran, [vec![20], vec![6, 5], vec![4, 3], vec![2, 2, 2]]);
        assert_eq!(answers(ticket), [2., 6., 5., 4., 2., 20., 2., 3.]);
    }

    #[test]
    fn texts_of_many_requests_run_together() {
        let queue = Queue::new((), BUDGET_TOKENS);
        let tickets: Vec<_> = [4, 3, 1, 4, 5].map(|len| waiting(&queue, &[len])).into();
        assert_eq!(run(begin(&tickets[2]).unwrap()), [4, 3, 4]);
        assert_eq!(run(begin(&tickets[2]).unwrap()), [1]);
        assert_eq!(run(begin(&tickets[4]).unwrap()), [5]);
        assert!(begin(&tickets[4]).is_none());
        for (ticket, len) in tickets.into_iter().zip([4., 3., 1., 4., 5.]) {
            assert!(matches!(ticket.next(false), Step::End));
            assert_eq!(answers(ticket), [len]);
        }
    }

    #[test]
    fn requests_take_turns() {
        let queue = Queue::new((), BUDGET_TOKENS);
        let long = waiting(&queue, &[6; 8]);
        assert_eq!(run(begin(&long).unwrap()), [6, 6]);
        let query = waiting(&queue, &[9]);
        let other = waiting(&queue, &[8]);
        // The long one goes on, and runs them in between.
        let ran: Vec<_> = (0..4).map(|_| run(begin(&long).unwrap())).collect();
        assert_eq!(ran, [vec![6, 6], vec![9], vec![8], vec![6, 6]]);
        assert_eq!((answers(query), answers(other)), (vec![9.], vec![8.]));
    }

    #[test]
    fn the_express_session_is_for_those_who_are_one_batch() {
        let queue = Queue::new(0, BUDGET_TOKENS);
        let long = waiting(&queue, &[6; 8]);
        queue.add_session(1);
        let ran = begin(&long).unwrap();
        assert_eq!(ran.session, Some(1));
        assert!(begin(&long).is_none());
        let query = waiting(&queue, &[3, 3]);
        let express = begin(&query).unwrap();
        assert_eq!((express.session, lens(&express)), (Some(0), vec![3, 3]));
        drop((ran, express));
        // Both were broken off.
        for ticket in [long, query] {
            assert_eq!(ticket.finish().unwrap_err().kind(), ErrorKind::Unavailable);
        }
        assert_eq!(queue.state().waiting_tokens_count, 0);
        assert!(queue.state().turns.is_empty());
    }

    #[test]
    fn who_fails_fails_alone() {
        let queue = Queue::new((), BUDGET_TOKENS);
        let tickets = [4, 4].map(|len| waiting(&queue, &[len]));
        let mut shared = begin(&tickets[0]).unwrap();
        assert_eq!((shared.texts_count(), shared.last_group_count()), (2, 1));
        shared.refuse(1, Error::new(ErrorKind::Invalid, "bad"));
        shared.deliver(vec![vec![4.0]]);
        drop(shared);
        let [good, bad] = tickets;
        assert_eq!(bad.finish().unwrap_err().to_string(), "bad");
        assert_eq!(answers(good), [4.0]);
        // What is left of a request that is given up is forgotten.
        drop(waiting(&queue, &[4, 4]));
        assert_eq!(queue.state().waiting_tokens_count, 0);
        assert!(queue.state().requests.is_empty() && queue.state().turns.is_empty());
    }

    #[test]
    fn tokenizing_stays_ahead_and_within_bounds() {
        let queue = Queue::new((), BUDGET_TOKENS);
        let ticket = queue.enter(2 * AHEAD_TEXTS_COUNT);
        let mut added_count = 0;
        while let Step::Tokenize = ticket.next(true) {
            ticket.add([(added_count, tokens(1))]);
            added_count += 1;
        }
        assert_eq!(added_count, AHEAD_TEXTS_COUNT);
        // When too much waits, only those who have nothing waiting go on.
        let many = queue.enter(2);
        many.add([(0, tokens(WAITING_TOKENS_MAX))]);
        let other = queue.enter(2);
        assert!(matches!(other.next(true), Step::Tokenize));
        other.add([(0, tokens(1))]);
        assert!(matches!(other.next(true), Step::Run(_)));
    }

    #[test]
    fn all_are_answered_however_many_wait() {
        const CALLERS_COUNT: usize = 24;
        const ROUNDS_COUNT: usize = 50;
        let queue = Queue::new(0, BUDGET_TOKENS);
        queue.add_session(1);
        queue.add_session(2);
        let (runs_count, texts_count) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let call = |caller: usize, round: usize| {
            let lens: Vec<usize> = (0..=(caller * 7 + round) % 19)
                .map(|text| 1 + (text * caller + round) % 9)
                .collect();
            let ticket = waiting(&queue, &lens);
            let work = || {
                while let Step::Run(next) = ticket.next(false) {
                    runs_count.fetch_add(1, Ordering::Relaxed);
                    texts_count.fetch_add(run(next).len(), Ordering::Relaxed);
                }
            };
            std::thread::scope(|scope| {
                (0..caller % 3).for_each(|_| _ = scope.spawn(work));
                work();
            });
            let expected: Vec<f32> = lens.iter().map(|len| *len as f32).collect();
            assert_eq!(answers(ticket), expected);
            lens.len()
        };
        let asked_count: usize = std::thread::scope(|scope| {
            let rounds = |caller| (0..ROUNDS_COUNT).map(|round| call(caller, round)).sum::<usize>();
            let callers: Vec<_> =
                (0..CALLERS_COUNT).map(|caller| scope.spawn(move || rounds(caller))).collect();
            callers.into_iter().map(|caller| caller.join().unwrap()).sum()
        });
        assert_eq!(texts_count.into_inner(), asked_count);
        assert!(runs_count.into_inner() < asked_count);
        assert_eq!(queue.state().waiting_tokens_count, 0);
    }
}
