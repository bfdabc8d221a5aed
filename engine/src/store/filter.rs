//! Which records may be in an answer: those that have not expired, and that pass the query's filter.
//!
//! A record is read and tested when a search comes by it. Where few pass, a search comes by nearly
//! all, and reads them one by one; so from some number on all records of the collection are walked
//! instead, in their order, which costs a third for each. Either way the answer is the same, and costs
//! at most about twice what the better way had cost. What a walk found out is [kept](super::passed) until
//! the collection changes.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use op_dbus_formats::filter::{Filter, Subject};
use op_dbus_formats::record as format;

use super::collection::Collection;
use super::passed::Keys;
use super::{Store, lock};
use crate::error::{Error, Result};
use crate::query::{FilterExplain, FilterPlan, Query, Standing};
use crate::record::is_past;

/// Records that are walked in the time that one is read by its key.
const WALKED_PER_READ: u64 = 3;
/// Records that are tested to learn how many pass.
pub(super) const SAMPLE_COUNT: usize = 256;
/// As many are walked at once: a sample of them would cost as much.
const FEW_COUNT: usize = SAMPLE_COUNT * WALKED_PER_READ as usize;

/// Says which records of one collection may be in the answer to a query.
pub(super) struct Passing<'a> {
    store: &'a Store,
    collection: &'a Collection,
    expired: Option<&'a HashSet<Vec<u8>>>,
    filter: Option<&'a Filter>,
    standing: Option<Standing>,
    now_unix_ms: u64,
    /// Records there are, about.
    records_count: AtomicU64,
    /// What is known of records themselves, not of what they stand for.
    known: Mutex<HashMap<Vec<u8>, bool>>,
    /// All that pass, once all were walked or it was known.
    all: OnceLock<Arc<Keys>>,
    /// Whether it was known, from a query before.
    was_known: bool,
    /// Held by whoever walks them.
    walking: Mutex<()>,
    failure: Mutex<Option<Error>>,
    tested_count: AtomicU64,
    passed_count: AtomicU64,
}

impl<'a> Passing<'a> {
    pub(super) fn new(
        store: &'a Store,
        collection: &'a Collection,
        query: &'a Query,
        (expired, now_unix_ms): (Option<&'a HashSet<Vec<u8>>>, u64),
    ) -> Self {
        let known = query
            .filter
            .as_ref()
            .and_then(|filter| collection.passed.find((filter, query.standing), now_unix_ms));
        Self {
            store,
            collection,
            expired,
            was_known: known.is_some(),
            all: known.map_or_else(OnceLock::new, OnceLock::from),
            filter: query.filter.as_ref(),
            standing: query.standing,
            now_unix_ms,
            records_count: AtomicU64::new(0),
            known: Mutex::default(),
            walking: Mutex::default(),
            failure: Mutex::default(),
            tested_count: AtomicU64::new(0),
            passed_count: AtomicU64::new(0),
        }
    }

    /// What has expired by then may not be in it.
    pub(super) fn now_unix_ms(&self) -> u64 {
        self.now_unix_ms
    }

    /// Whether there is anybody to ask.
    pub(super) fn is_needed(&self) -> bool {
        self.expired.is_some() || self.filter.is_some()
    }

    /// Hears how many records there are, and walks all if the search would read too many one by one;
    /// says whether it did.
    pub(super) fn prepare(
        &self,
        records_count: usize,
        reads_many: impl FnOnce() -> bool,
    ) -> Result<bool> {
        let Some(filter) = self.filter else { return Ok(false) };
        self.records_count.store(records_count as u64, Ordering::Relaxed);
        if filter.is_of_names_alone() && self.standing.is_none() {
            return Ok(false);
        }
        let is_few = records_count <= FEW_COUNT && !self.was_known;
        if !is_few && !reads_many() {
            return Ok(false);
        }
        self.walk(filter)?;
        Ok(true)
    }

    /// Which part of some records passes, about.
    pub(super) fn part<'k>(&self, sample: impl Iterator<Item = &'k [u8]>) -> f64 {
        let (asked_count, passing_count) = sample.fold((0, 0), |(asked, passing), key| {
            (asked + 1, passing + usize::from(self.passes(key)))
        });
        // Where nobody of the sample passes, somebody else may.
        (passing_count as f64).max(0.5) / f64::from(asked_count.max(1))
    }

    /// Whether so many reads take longer than a walk.
    pub(super) fn are_many(&self, reads_count: f64) -> bool {
        let walked_count = self.records_count.load(Ordering::Relaxed) as f64;
        reads_count * WALKED_PER_READ as f64 > walked_count
    }

    /// Whether the record of this key may be in the answer.
    ///
    /// What cannot be read does not pass; [`Passing::finish`] tells.
    pub(super) fn passes(&self, key: &[u8]) -> bool {
        if self.expired.is_some_and(|expired| expired.contains(key)) {
            return false;
        }
        let Some(filter) = self.filter else { return true };
        if let Some(all) = self.all.get() {
            return all.contains(key);
        }
        self.test(filter, key).unwrap_or_else(|error| {
            lock(&self.failure).get_or_insert(error);
            false
        })
    }

    /// Says what was tested, and what could not be.
    pub(super) fn finish(self) -> Result<Option<FilterExplain>> {
        if let Some(error) = lock(&self.failure).take() {
            return Err(error);
        }
        let [tested, passed] =
            [&self.tested_count, &self.passed_count].map(|count| count.load(Ordering::Relaxed));
        let (plan, passed) = match self.all.get() {
            Some(all) if self.was_known => (FilterPlan::Known, all.len() as u64),
            Some(_) => (FilterPlan::All, passed),
            None => (FilterPlan::Met, passed),
        };
        Ok(self.filter.map(|_| FilterExplain { plan, tested, passed }))
    }

    fn test(&self, filter: &Filter, key: &[u8]) -> Result<bool> {
        if key.is_empty() {
            return Ok(false);
        }
        let stands = self.standing.filter(|standing| standing.may_be_of(key));
        if stands.is_none() && filter.is_of_names_alone() {
            let payload = &format::Payload::None;
            return Ok(self.count(self.is_true(filter, key, None, payload)));
        }
        if self.are_many(self.tested_count.load(Ordering::Relaxed) as f64) {
            self.walk(filter)?;
            return Ok(self.all.get().is_some_and(|all| all.contains(key)));
        }
        if stands.is_none() {
            return self.test_itself(filter, key);
        }
        let target = self.read(key, |record| self.target(key, record))?;
        target
            .map_or(Ok(false), |target| self.test_itself(filter, target.as_deref().unwrap_or(key)))
    }

    /// Whether a record that was read passes, now.
    pub(super) fn passes_read(&self, key: &[u8], record: &format::Record<'_>) -> Result<bool> {
        let Some(filter) = self.filter else { return Ok(true) };
        match self.target(key, record) {
            Some(target) => self.test_itself(filter, &target),
            None => Ok(self.is_true(filter, key, record.text.as_deref(), &record.payload)),
        }
    }

    /// The key of the record that one stands for.
    fn target(&self, key: &[u8], record: &format::Record<'_>) -> Option<Vec<u8>> {
        let standing = self.standing.filter(|standing| standing.may_be_of(key))?;
        standing.target(&record.payload)
    }

    /// The key of the record that the one of this key stands for, or its own.
    #[cfg(feature = "keyword")]
    pub(super) fn stands_for(&self, key: &[u8]) -> Result<Vec<u8>> {
        if !self.standing.is_some_and(|standing| standing.may_be_of(key)) {
            return Ok(key.to_vec());
        }
        let target = self.read(key, |record| self.target(key, record))?.flatten();
        Ok(target.unwrap_or_else(|| key.to_vec()))
    }

    /// Tests a record, whether it stands for another or not.
    fn test_itself(&self, filter: &Filter, key: &[u8]) -> Result<bool> {
        if let Some(known) = lock(&self.known).get(key) {
            return Ok(*known);
        }
        let tested = self.read(key, |record| {
            self.is_true(filter, key, record.text.as_deref(), &record.payload)
        })?;
        let passes = self.count(tested.unwrap_or(false));
        lock(&self.known).insert(key.to_vec(), passes);
        Ok(passes)
    }

    /// Reads a record, unless there is none any more.
    fn read<T>(
        &self,
        key: &[u8],
        read: impl FnOnce(&format::Record<'_>) -> T,
    ) -> Result<Option<T>> {
        let Some(bytes) = self.store.state.record(self.collection.spec.id, key)? else {
            return Ok(None);
        };
        let record = self.decode(key, &bytes)?;
        let is_there = !is_past(record.expires_at_unix_ms, self.now_unix_ms);
        Ok(is_there.then(|| read(&record)))
    }

    fn decode<'b>(&self, key: &[u8], bytes: &'b [u8]) -> Result<format::Record<'b>> {
        format::Record::decode(bytes)
            .map_err(|error| self.store.damaged(self.collection, "record", key, error))
    }

    fn is_true(
        &self,
        filter: &Filter,
        key: &[u8],
        text: Option<&str>,
        payload: &format::Payload<'_>,
    ) -> bool {
        let collection = self.collection.name.as_str();
        filter.matches(&Subject { collection, key, text, payload })
    }

    fn count(&self, passes: bool) -> bool {
        self.tested_count.fetch_add(1, Ordering::Relaxed);
        self.passed_count.fetch_add(passes.into(), Ordering::Relaxed);
        passes
    }

    /// Tests all records of the collection, unless that was done.
    fn walk(&self, filter: &Filter) -> Result<()> {
        // Whoever comes meanwhile waits for the result.
        let _walking = lock(&self.walking);
        if self.all.get().is_some() {
            return Ok(());
        }
        let changes_count = self.collection.passed.changes_count();
        let Walked { mut passing, standing_for, until_unix_ms } = self.test_all(filter)?;
        let mut leading = Vec::new();
        for (key, target) in &standing_for {
            // One that stands for one that itself stands for another leads no further.
            let passes = match standing_for.contains_key(target) {
                true => self.test_itself(filter, target)?,
                false => passing.contains(target),
            };
            leading.extend(passes.then(|| key.clone()));
        }
        passing.extend(leading);
        let passing = Arc::new(passing);
        let kept = (changes_count, until_unix_ms);
        self.collection.passed.keep((filter, self.standing), &passing, kept);
        let is_new = self.all.set(passing).is_ok();
        debug_assert!(is_new, "only one walks");
        Ok(())
    }

    /// Tests all records that stand for themselves, in their order.
    fn test_all(&self, filter: &Filter) -> Result<Walked> {
        let mut walked = Walked {
            passing: HashSet::new(),
            standing_for: HashMap::new(),
            until_unix_ms: u64::MAX,
        };
        let mut tested_count = 0;
        let mut records = self.store.state.records_alone(self.collection.spec.id);
        while let Some(tested) = records.next_with(|key, bytes| -> Result<()> {
            let record = self.decode(key, bytes)?;
            if is_past(record.expires_at_unix_ms, self.now_unix_ms) {
                return Ok(());
            }
            let expires_at_unix_ms = record.expires_at_unix_ms.unwrap_or(u64::MAX);
            walked.until_unix_ms = walked.until_unix_ms.min(expires_at_unix_ms);
            if let Some(target) = self.target(key, &record) {
                walked.standing_for.insert(key.to_vec(), target);
                return Ok(());
            }
            tested_count += 1;
            if self.is_true(filter, key, record.text.as_deref(), &record.payload) {
                walked.passing.insert(key.to_vec());
            }
            Ok(())
        })? {
            tested?;
        }
        // Those tested before were walked again.
        self.tested_count.store(tested_count, Ordering::Relaxed);
        self.passed_count.store(walked.passing.len() as u64, Ordering::Relaxed);
        Ok(walked)
    }
}

/// What a walk over a collection came by.
struct Walked {
    passing: Keys,
    /// Records that stand for others, and for which.
    standing_for: HashMap<Vec<u8>, Vec<u8>>,
    /// None expires before.
    until_unix_ms: u64,
}
