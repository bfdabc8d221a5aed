//! Searching by words beside meaning, and one order of both.
//!
//! What is known of the words of a collection lies in memory, from the first question for words on. It
//! is brought up to date by the questions, from the log of changes: writers neither change it nor wait for
//! it. Where the log was trimmed meanwhile, all records are read again.
//!
//! The two orders are joined by ranks (reciprocal rank fusion), since a cosine and BM25 have no unit in
//! common. Of 30 questions to 8,593 texts about D-Bus (`tests/interfaces.rs`), meaning alone finds 24 first,
//! words alone 22, both 26; of the names of 60 members, 42, 56 and 52, and of the same in small letters 42, 56
//! and 56. Half the weight for words finds as many of the questions and fewer names; to add to the cosine the
//! share of the query's weight that BM25 finds gives 25 and 56, and takes the vectors of all that
//! have a word.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use op_dbus_formats::record as format;

use super::Store;
use super::collection::Collection;
use super::filter::Passing;
use super::search::Found;
use crate::error::{Error, ErrorKind, Result};
use crate::index::Scored;
use crate::keyword::{Documents, KeywordIndex, matches};
use crate::query::{KeywordExplain, Query, Target};

/// Records that are ranked by each order at least: what is further down adds little.
pub(super) const RANKS_MIN: usize = 100;
/// Keeps the first ranks from counting for everything.
///
/// Source: Cormack, Clarke & Büttcher 2009, "Reciprocal Rank Fusion outperforms Condorcet".
const RANK_OFFSET: f32 = 60.0;

/// What is known of the words of a collection, if anything.
#[derive(Default)]
pub(super) struct KeywordSlot(RwLock<Option<Kept>>);

struct Kept {
    index: KeywordIndex,
    /// The last change that it contains.
    sequence: u64,
}

impl KeywordSlot {
    fn read(&self) -> RwLockReadGuard<'_, Option<Kept>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Option<Kept>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of memory, and records; none if nothing is known.
    pub(super) fn measured(&self) -> Option<(usize, usize)> {
        self.read().as_ref().map(|kept| (kept.index.memory_bytes(), kept.index.len()))
    }
}

/// What a record is known by: the place of its collection, and its key or that of what it stands for.
type Identity = (usize, Vec<u8>);

/// A record with the ranks that it has.
struct Ranked {
    identity: Identity,
    key: Arc<[u8]>,
    score: f32,
    orders: u8,
    /// Its rank in the order that came last, that of words.
    rank: u16,
}

/// Two orders on their way to be one.
#[derive(Default)]
struct Joined {
    ranked: Vec<Ranked>,
    places: HashMap<Identity, usize>,
}

impl Store {
    /// Finds the words of a query, and joins what has them with what is near to it.
    pub(super) fn join_keywords(
        &self,
        query: &Query,
        near: Vec<Found>,
        (collections, passings): (&[Arc<Collection>], &[Passing<'_>]),
    ) -> Result<(Vec<Found>, Option<KeywordExplain>)> {
        let Target::Text(text) = &query.target else { return Ok((near, None)) };
        let started = Instant::now();
        collections.iter().try_for_each(|collection| self.learn_words(collection))?;
        let mut explain = KeywordExplain { load: started.elapsed(), ..KeywordExplain::default() };
        let started = Instant::now();
        let mut joined = Joined::default();
        let mut order = Order::default();
        for Found { collection, scored, .. } in near {
            let at = collections.iter().position(|known| Arc::ptr_eq(known, &collection));
            if let Some(at) = at {
                order.add((at, passings[at].stands_for(&scored.key)?), scored.key);
            }
        }
        explain.by_meaning = joined.rank(order);
        let kept: Vec<_> =
            collections.iter().map(|collection| collection.keywords.read()).collect();
        let indexes: Option<Vec<&KeywordIndex>> =
            kept.iter().map(|kept| kept.as_ref().map(|kept| &kept.index)).collect();
        // Somebody else has come between who could not bring it up to date.
        let indexes = indexes.ok_or_else(|| {
            Error::new(ErrorKind::Busy, "the words of records are being read anew")
                .with_remedy("search again")
        })?;
        let mut matches = matches(&indexes, text)?;
        explain.matched = matches.len() as u64;
        let mut order = Order::default();
        while let Some(found) = matches.pop() {
            let (at, key) = (found.index, found.key);
            if passings[at].passes(key) {
                order.add((at, passings[at].stands_for(key)?), key.into());
            }
            if order.0.len() == query.limit {
                break;
            }
        }
        explain.by_words = joined.rank(order);
        explain.by_both = joined.ranked.iter().filter(|ranked| ranked.orders == 2).count() as u64;
        let best_first = joined.best_first().into_iter().zip(0_u16..);
        let found = best_first.map(|(Ranked { identity, key, score, .. }, place)| Found {
            collection: Arc::clone(&collections[identity.0]),
            scored: Scored { key, nearness: -f32::from(place) },
            score,
        });
        let found = found.collect();
        explain.search = started.elapsed();
        Ok((found, Some(explain)))
    }

    /// Brings what is known of the words of a collection up to date.
    fn learn_words(&self, collection: &Collection) -> Result<()> {
        let now = self.commits.last_sequence();
        let is_current =
            |kept: &Option<Kept>| kept.as_ref().is_some_and(|kept| kept.sequence >= now);
        if is_current(&collection.keywords.read()) {
            return Ok(());
        }
        let mut slot = collection.keywords.write();
        if is_current(&slot) {
            return Ok(());
        }
        // Of what failed half-way nothing is left.
        let kept = slot.take();
        let held = kept.as_ref().map(|kept| self.hold_changes(kept.sequence));
        let index = match (kept, held) {
            (Some(Kept { mut index, sequence }), Some(Some(_held))) => {
                let changed = self.state.changed_keys(collection.spec.id, sequence)?;
                if !changed.is_empty() {
                    index.change(&changed, self.documents_of(collection, &changed)?)?;
                }
                index
            }
            _ => {
                let mut index = KeywordIndex::default();
                index.change(&BTreeSet::new(), self.all_documents(collection)?)?;
                index
            }
        };
        *slot = Some(Kept { index, sequence: now });
        Ok(())
    }

    fn documents_of(&self, collection: &Collection, keys: &BTreeSet<Vec<u8>>) -> Result<Documents> {
        let mut documents = Documents::new()?;
        for key in keys {
            if let Some(bytes) = self.state.record(collection.spec.id, key)? {
                self.add_document(collection, key, &bytes, &mut documents)?;
            }
        }
        Ok(documents)
    }

    fn all_documents(&self, collection: &Collection) -> Result<Documents> {
        let mut documents = Documents::new()?;
        let mut records = self.state.records_alone(collection.spec.id);
        while let Some(added) = records
            .next_with(|key, bytes| self.add_document(collection, key, bytes, &mut documents))?
        {
            added?;
        }
        Ok(documents)
    }

    /// What has expired counts until it is collected, so that all who ask count the same.
    fn add_document(
        &self,
        collection: &Collection,
        key: &[u8],
        bytes: &[u8],
        documents: &mut Documents,
    ) -> Result<()> {
        let record = format::Record::decode(bytes)
            .map_err(|error| self.damaged(collection, "record", key, error))?;
        documents.add(key, record.text.as_deref())
    }
}

/// Records in an order, each once.
#[derive(Default)]
struct Order(Vec<(Identity, Arc<[u8]>)>, BTreeSet<Identity>);

impl Order {
    fn add(&mut self, identity: Identity, key: Arc<[u8]>) {
        if self.1.insert(identity.clone()) {
            self.0.push((identity, key));
        }
    }
}

impl Joined {
    /// Adds what the ranks of an order are worth; returns how many it has.
    fn rank(&mut self, order: Order) -> u64 {
        let count = order.0.len() as u64;
        for ((identity, key), rank) in order.0.into_iter().zip(1_u16..) {
            let worth = (RANK_OFFSET + 1.0) / (RANK_OFFSET + f32::from(rank)) / 2.0;
            let at = *self.places.entry(identity.clone()).or_insert(self.ranked.len());
            match self.ranked.get_mut(at) {
                Some(ranked) => {
                    ranked.score += worth;
                    ranked.orders += 1;
                    ranked.rank = rank;
                }
                None => self.ranked.push(Ranked { identity, key, score: worth, orders: 1, rank }),
            }
        }
        count
    }

    /// The best first. Often two records have the same ranks the other way round: then that is better
    /// which has the words, since it may be the very name that was asked for.
    fn best_first(self) -> Vec<Ranked> {
        let mut ranked = self.ranked;
        ranked.sort_by(|a, b| {
            (b.score.total_cmp(&a.score))
                .then_with(|| a.rank.cmp(&b.rank))
                .then_with(|| a.identity.cmp(&b.identity))
        });
        ranked
    }
}
