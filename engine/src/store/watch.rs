//! Following what changes: every committed mutation by its sequence, once, in order.
//!
//! The log of changes says which record changed and whether it was put or removed, not what it
//! became: whoever follows reads the record. Changes are kept for whoever follows now, and the last
//! [`CHANGES_KEPT_COUNT`] for whoever comes back; earlier ones are trimmed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use op_dbus_formats::change::Operation;
use op_dbus_formats::collection::CollectionId;

use super::collection::Collection;
use super::{Store, lock};
use crate::error::{Error, ErrorKind, Result};

/// Changes that stay for followers who are away: some megabytes.
const CHANGES_KEPT_COUNT: u64 = 100_000;
/// Trimmed at a time, so that few commits pay for it.
const TRIMMED_COUNT: u64 = 10_000;
/// Changes that a follower reads ahead.
const READ_COUNT: usize = 256;

/// A committed change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its number; those of one store have no gaps.
    pub sequence: u64,
    /// Where.
    pub collection: String,
    /// To which record.
    pub key: Vec<u8>,
    /// What happened.
    pub operation: Operation,
}

/// Follows the changes of a store. Made by [`Store::watch`].
///
/// While it lives, no change that it has not seen is trimmed.
pub struct Watch<'a> {
    store: &'a Store,
    collection: Option<Arc<Collection>>,
    prefix: Vec<u8>,
    place: Place<'a>,
    read: VecDeque<Change>,
}

/// How far each follower is, and what is no longer there.
#[derive(Default)]
pub(super) struct Followers {
    places: Mutex<Places>,
    /// Every change with this number or a smaller one is gone, or may go.
    trimmed: AtomicU64,
}

#[derive(Default)]
struct Places {
    next: u64,
    /// The last change that each has seen.
    seen: BTreeMap<u64, u64>,
}

/// The place of one follower: what comes after it stays.
pub(super) struct Place<'a> {
    followers: &'a Followers,
    number: u64,
    seen: u64,
}

impl Followers {
    /// `trimmed` is the last change that is not there.
    pub(super) fn new(trimmed: u64) -> Self {
        Self { places: Mutex::default(), trimmed: trimmed.into() }
    }

    /// Takes a place behind this change; `None` if some that come after it are gone.
    pub(super) fn follow(&self, seen: u64) -> Option<Place<'_>> {
        let mut places = lock(&self.places);
        // Under the lock: whoever trims asks for all places under it first.
        if seen < self.trimmed.load(Ordering::SeqCst) {
            return None;
        }
        let number = places.next;
        places.next += 1;
        places.seen.insert(number, seen);
        Some(Place { followers: self, number, seen })
    }

    /// Says up to which change to trim now, if that is worth it, and forbids to ask for those.
    fn trim(&self, last_sequence: u64) -> Option<u64> {
        let kept_after = last_sequence.saturating_sub(CHANGES_KEPT_COUNT);
        if kept_after < self.trimmed.load(Ordering::Relaxed) + TRIMMED_COUNT {
            return None;
        }
        let places = lock(&self.places);
        let slowest = places.seen.values().min().copied().unwrap_or(u64::MAX);
        let until = kept_after.min(slowest);
        (self.trimmed.fetch_max(until, Ordering::SeqCst) < until).then_some(until)
    }
}

impl Place<'_> {
    fn advance(&mut self, seen: u64) {
        self.seen = seen;
        lock(&self.followers.places).seen.insert(self.number, seen);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        lock(&self.followers.places).seen.remove(&self.number);
    }
}

impl Store {
    /// Follows the changes after the one with this number, of all collections or of one, to records
    /// whose keys start with `prefix`.
    ///
    /// From [`Stats::sequence`](super::Stats::sequence) on it hears of what comes; a follower who
    /// was away goes on from the last change it has dealt with.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such collection, or if changes after that one are no
    /// longer kept; [`ErrorKind::Invalid`] if there was no such change yet.
    pub fn watch(&self, collection: Option<&str>, prefix: &[u8], after: u64) -> Result<Watch<'_>> {
        let collection = collection.map(|name| self.collection(name)).transpose()?;
        let last = self.commits.last_sequence();
        if after > last {
            let problem = format!("there is no change {after} yet; the last is {last}");
            return Err(Error::new(ErrorKind::Invalid, problem)
                .with_remedy("watch from the last change on"));
        }
        let place = self.followers.follow(after).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("changes after {after} are no longer kept"))
                .with_remedy(format!("read the records anew, and watch from change {last} on"))
        })?;
        Ok(Watch { store: self, collection, prefix: prefix.to_vec(), place, read: VecDeque::new() })
    }

    /// Holds the changes after this one while the answer lives.
    pub(super) fn hold_changes(&self, after: u64) -> Option<Place<'_>> {
        self.followers.follow(after)
    }

    /// Removes changes that nobody needs, now and then.
    pub(super) fn trim_changes(&self) {
        if let Some(until) = self.followers.trim(self.commits.last_sequence())
            && let Err(error) = self.state.trim_changes(until)
        {
            // They go with the next ones.
            tracing::warn!(%error, "old changes are not trimmed");
        }
    }
}

impl Watch<'_> {
    /// Returns the next change, waiting for one as long as this; `None` if none came.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] or [`ErrorKind::Io`] if the changes cannot be read.
    pub fn next(&mut self, wait: Duration) -> Result<Option<Change>> {
        let started = Instant::now();
        loop {
            if let Some(change) = self.read.pop_front() {
                return Ok(Some(change));
            }
            let last = self.store.commits.last_sequence();
            if last > self.place.seen {
                self.read_up_to(last)?;
                continue;
            }
            let left = wait.saturating_sub(started.elapsed());
            if left.is_zero() || !self.store.commits.wait_beyond(last, left) {
                return Ok(None);
            }
        }
    }

    /// The last change that was returned or passed over: where to go on after a restart.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.read.front().map_or(self.place.seen, |change| change.sequence - 1)
    }

    /// Reads some changes, and passes over those that do not concern it.
    fn read_up_to(&mut self, last: u64) -> Result<()> {
        let known = self.store.all_collections();
        let name = |id: CollectionId| known.iter().find(|known| known.spec.id == id);
        let wanted = self.collection.as_ref().map(|collection| collection.spec.id);
        let (prefix, read) = (&self.prefix, &mut self.read);
        let seen = self.store.state.read_changes(self.place.seen, last, |sequence, change| {
            let of_wanted = wanted.is_none_or(|wanted| wanted == change.collection);
            if of_wanted
                && change.key.starts_with(prefix)
                && let Some(collection) = name(change.collection)
            {
                read.push_back(Change {
                    sequence,
                    collection: collection.name.to_string(),
                    key: change.key.to_vec(),
                    operation: change.operation,
                });
            }
            read.len() < READ_COUNT
        })?;
        self.place.advance(seen);
        Ok(())
    }
}

impl std::fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("seen", &self.seen()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_follower_holds_what_it_has_not_seen() {
        let followers = Followers::new(0);
        let last = CHANGES_KEPT_COUNT + 5 * TRIMMED_COUNT;
        let mut slow = followers.follow(7).unwrap();
        assert_eq!(followers.trim(last), Some(7));
        slow.advance(2 * TRIMMED_COUNT);
        assert_eq!(followers.trim(last), Some(2 * TRIMMED_COUNT));
        drop(slow);
        assert_eq!(followers.trim(last), Some(5 * TRIMMED_COUNT));
        assert_eq!(followers.trim(last), None);
        assert!(followers.follow(5 * TRIMMED_COUNT - 1).is_none());
        assert!(followers.follow(5 * TRIMMED_COUNT).is_some());
    }

    #[test]
    fn little_is_not_trimmed() {
        let followers = Followers::new(0);
        assert_eq!(followers.trim(CHANGES_KEPT_COUNT + TRIMMED_COUNT - 1), None);
        assert_eq!(followers.trim(CHANGES_KEPT_COUNT + TRIMMED_COUNT), Some(TRIMMED_COUNT));
    }
}
