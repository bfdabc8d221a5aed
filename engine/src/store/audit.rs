//! How well graphs find what they should, of queries as they are asked.
//!
//! Some of the queries that a graph has answered wait here until somebody has time to answer them again
//! by comparing all. Nothing of a query is kept beyond that but two numbers: how many records were to be
//! found, and how many of them were. More of them than there is room for, and those whose collection
//! changes before their turn comes, are left out and counted.

use std::cmp::Ordering as Order;
use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use super::collection::Collection;
use super::filter::Passing;
use super::{Store, lock};
use crate::error::Result;
use crate::index::Scored;
use crate::query::Query;

/// Queries that wait at the same time.
const WAITING_COUNT_MAX: usize = 64;
/// What they may take: vectors, and keys of what was found.
const WAITING_BYTES_MAX: usize = 4 << 20;

/// How much of what searches by a graph should have found they have found, of those that were looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecallStats {
    /// Queries that were answered again by comparing all.
    pub audited: u64,
    /// Records that the answers should have held, of each query as many as it asked for.
    pub expected: u64,
    /// Those of them that they held.
    pub found: u64,
    /// Queries that were left out because too many waited.
    pub dropped_full: u64,
    /// Queries that were left out because the collection changed before their turn.
    pub dropped_changed: u64,
}

impl RecallStats {
    /// The part that was found; `None` if nothing was looked at.
    #[must_use]
    pub fn recall(&self) -> Option<f64> {
        (self.expected > 0).then(|| self.found as f64 / self.expected as f64)
    }
}

impl std::ops::AddAssign for RecallStats {
    fn add_assign(&mut self, more: Self) {
        self.audited += more.audited;
        self.expected += more.expected;
        self.found += more.found;
        self.dropped_full += more.dropped_full;
        self.dropped_changed += more.dropped_changed;
    }
}

/// The moment of a query: what was committed by then had to be found.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub(super) sequence: u64,
    pub(super) now_unix_ms: u64,
}

/// A query that waits, and what the graph has found for it.
struct Waiting {
    collection: Arc<Collection>,
    /// Without its text.
    query: Query,
    vector: Vec<f32>,
    found: Vec<Scored>,
    moment: Moment,
}

impl Waiting {
    fn bytes(&self) -> usize {
        let keys: usize =
            self.found.iter().map(|found| size_of::<Scored>() + found.key.len()).sum();
        keys + size_of_val(&self.vector[..])
    }
}

/// Queries that wait for their turn.
#[derive(Default)]
pub(super) struct Audits {
    /// Of the numbers that there are, those up to this are chosen; 0 for none.
    chosen_max: AtomicU64,
    asked_count: AtomicU64,
    waiting: Mutex<VecDeque<Waiting>>,
}

impl Audits {
    /// Whether this query is one of those that are looked at.
    pub(super) fn choose(&self) -> bool {
        let chosen_max = self.chosen_max.load(Ordering::Relaxed);
        chosen_max > 0 && scattered(self.asked_count.fetch_add(1, Ordering::Relaxed)) <= chosen_max
    }

    /// Lets a query wait for its turn.
    pub(super) fn note(
        &self,
        collection: &Arc<Collection>,
        (vector, query): (&[f32], &Query),
        found: &[Scored],
        moment: Moment,
    ) {
        // Its text is nobody's business.
        let query = query.without_target();
        let (vector, found) = (vector.to_vec(), found.to_vec());
        let waits = Waiting { collection: Arc::clone(collection), query, vector, found, moment };
        let mut waiting = lock(&self.waiting);
        let bytes: usize = waiting.iter().map(Waiting::bytes).sum();
        if waiting.len() < WAITING_COUNT_MAX && bytes + waits.bytes() <= WAITING_BYTES_MAX {
            waiting.push_back(waits);
            return;
        }
        drop(waiting);
        lock(&collection.recall).dropped_full += 1;
    }
}

/// Numbers in an order that nobody's queries have (SplitMix64; Steele, Lea & Flood 2014).
fn scattered(number: u64) -> u64 {
    let mut bits = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

impl Store {
    /// Sets which part of the queries that graphs answer is looked at again, from 0 to 1; none unless
    /// set. They wait for [`Store::audit_recall`].
    pub fn set_recall_audit(&self, part: f64) {
        // What a float cannot say exactly is no matter; all of them are, and none.
        let chosen_max = (part.clamp(0.0, 1.0) * u64::MAX as f64) as u64;
        self.audits.chosen_max.store(chosen_max, Ordering::Relaxed);
    }

    /// Answers the query again that waits longest, by comparing all, and counts what of it its graph had
    /// found; `false` if none waits.
    ///
    /// It is done in parts of some milliseconds, before each of which `go_on` is asked: it returns when
    /// there is time for the next, and says whether there will ever be. Neither the heat of vectors nor
    /// the counters of lookups change.
    ///
    /// # Errors
    /// Those of reading vectors and records.
    pub fn audit_recall(&self, go_on: &dyn Fn() -> bool) -> Result<bool> {
        let Some(waiting) = lock(&self.audits.waiting).pop_front() else { return Ok(false) };
        if !go_on() {
            return Ok(true);
        }
        let nearest = self.nearest_of_all(&waiting, go_on)?;
        let mut recall = lock(&waiting.collection.recall);
        match nearest {
            None => recall.dropped_changed += 1,
            Some(nearest) => {
                recall.audited += 1;
                recall.expected += nearest.len() as u64;
                recall.found += among(&waiting.found, &nearest) as u64;
            }
        }
        Ok(true)
    }

    /// What was looked at so far, by the names of collections.
    #[must_use]
    pub fn recall_stats(&self) -> Vec<(String, RecallStats)> {
        let of = |known: &Arc<Collection>| (known.name.to_string(), *lock(&known.recall));
        self.all_collections().iter().map(of).collect()
    }

    /// The nearest as they were at the moment of a query; `None` if that is not known any more.
    fn nearest_of_all(
        &self,
        waiting: &Waiting,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Option<Vec<Scored>>> {
        let Waiting { collection, query, vector, moment, .. } = waiting;
        let (id, Moment { sequence, now_unix_ms }) = (collection.spec.id, *moment);
        // While this lives, the changes are known.
        let Some(_held) = self.hold_changes(sequence) else { return Ok(None) };
        let expired = self.state.expired_keys(now_unix_ms)?;
        let passing = Passing::new(self, collection, query, (expired.of(id), now_unix_ms));
        let nearest = self.compare_all(collection, vector, (query.limit, &passing), go_on)?;
        passing.finish()?;
        let has_changed = !self.state.changed_keys(id, sequence)?.is_empty();
        Ok(nearest.filter(|_| !has_changed))
    }
}

/// How many of the nearest were found. One that is as far as the last of them may stand for it.
fn among(found: &[Scored], nearest: &[Scored]) -> usize {
    let Some(last) = nearest.last() else { return 0 };
    let keys: HashSet<&[u8]> = nearest.iter().map(|near| &near.key[..]).collect();
    let is_among = |found: &&Scored| {
        keys.contains(&found.key[..]) || found.nearness.total_cmp(&last.nearness) == Order::Equal
    };
    found.iter().filter(is_among).count().min(nearest.len())
}

#[cfg(test)]
mod tests {
    use std::num::NonZero;

    use super::*;
    use crate::distance::tests::Random;
    use crate::index::Profile;
    use crate::query::Target;
    use crate::record::Record;
    use crate::store::{LinkOptions, StoreConfig};

    const NAME: &str = "vectors";
    const DIMENSIONS: usize = 32;
    const RECORDS_COUNT: usize = 6000;

    fn linked(directory: &std::path::Path) -> Store {
        let store = Store::open(StoreConfig::new(directory)).unwrap();
        let mut random = Random(5);
        let record =
            |number| Record::new(format!("{number}")).with_vector(random.fractions(DIMENSIONS));
        let records: Vec<Record> = (0..RECORDS_COUNT).map(record).collect();
        store.put_batch(NAME, &records).unwrap();
        let threads = NonZero::new(2).unwrap();
        let options = LinkOptions { profile: Profile::Speed, threads };
        store.link(NAME, options, &mut |_, _| Ok(())).unwrap();
        store
    }

    fn ask(store: &Store, random: &mut Random, count: usize) {
        for _ in 0..count {
            let query = Query::vector(random.fractions(DIMENSIONS)).collection(NAME);
            assert_eq!(store.search(&query).unwrap().hits.len(), 10);
        }
    }

    fn audited(store: &Store) -> RecallStats {
        while store.audit_recall(&|| true).unwrap() {}
        *lock(&store.collection(NAME).unwrap().recall)
    }

    #[test]
    fn nearly_all_are_found_and_of_a_graph_without_good_links_fewer() {
        let directory = tempfile::tempdir().unwrap();
        let store = linked(directory.path());
        let mut random = Random(6);
        ask(&store, &mut random, 5);
        assert_eq!(audited(&store), RecallStats::default(), "nothing unless told");
        store.set_recall_audit(1.0);
        ask(&store, &mut random, 50);
        let whole = audited(&store);
        assert_eq!((whole.audited, whole.expected), (50, 500));
        assert!(whole.recall().unwrap() >= 0.97, "{whole:?}");

        // The planted bug: what vertices know of their neighbours is wrong.
        store.collection(NAME).unwrap().graph.spoil();
        ask(&store, &mut random, 50);
        let all = audited(&store);
        let spoilt = (all.found - whole.found) as f64 / (all.expected - whole.expected) as f64;
        assert_eq!(all.audited, 100);
        assert!(spoilt < 0.8, "{all:?}");
    }

    #[test]
    fn what_does_not_fit_and_what_has_changed_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let store = linked(directory.path());
        let mut random = Random(7);
        store.set_recall_audit(1.0);
        ask(&store, &mut random, WAITING_COUNT_MAX + 3);
        // One beside it is no change.
        store.put("others", &Record::new("a").with_vector([1.0, 0.0])).unwrap();
        let first = audited(&store);
        assert_eq!((first.audited, first.dropped_full), (WAITING_COUNT_MAX as u64, 3));
        ask(&store, &mut random, 4);
        assert!(store.remove(NAME, b"17").unwrap());
        let second = audited(&store);
        assert_eq!((second.audited, second.dropped_changed), (first.audited, 4));
        // Whoever ends does not wait.
        ask(&store, &mut random, 1);
        assert!(store.audit_recall(&|| false).unwrap());
        assert_eq!(audited(&store), second);
    }

    #[test]
    fn a_part_of_the_queries_is_chosen_and_their_texts_are_not_kept() {
        let audits = Audits::default();
        assert!(!audits.choose());
        audits.chosen_max.store(u64::MAX / 10, Ordering::Relaxed);
        let chosen = (0..10_000).filter(|_| audits.choose()).count();
        assert!((900..1100).contains(&chosen), "{chosen}");
        let query = Query::text("a secret").limit(3).without_target();
        assert_eq!((query.target, query.limit), (Target::Vector(Vec::new()), 3));
    }

    #[test]
    fn one_as_far_as_the_last_stands_for_it_once() {
        let scored = |key: &str, nearness| Scored { key: key.as_bytes().into(), nearness };
        let nearest = [scored("a", 3.0), scored("b", 2.0)];
        assert_eq!(among(&[scored("a", 3.0), scored("c", 2.0)], &nearest), 2);
        assert_eq!(among(&[scored("c", 2.0), scored("d", 2.0), scored("e", 2.0)], &nearest), 2);
        assert_eq!(among(&[scored("a", 3.0), scored("c", 1.0)], &nearest), 1);
        assert_eq!(among(&[], &nearest), 0);
    }
}
