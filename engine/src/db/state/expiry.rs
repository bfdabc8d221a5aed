//! When records expire, in the order of time.
//!
//! Invariant: there is an entry for exactly the records that expire, and its time is the record's
//! own. So whatever is due is at the beginning, and nobody has to look at other records.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

use op_dbus_formats::collection::CollectionId;
use op_dbus_formats::record::Record;

use super::{Action, EXPIRIES, Mutation, RECORDS, RecordKey, StateDatabase};
use crate::error::Result;

const TIME_LEN_BYTES: usize = size_of::<u64>();

/// A record that has expired and is still stored.
pub(crate) struct Due {
    pub(crate) expires_at_unix_ms: u64,
    pub(crate) collection: CollectionId,
    pub(crate) key: Vec<u8>,
}

/// The keys of all records that have expired and are still stored.
#[derive(Default)]
pub(crate) struct ExpiredKeys {
    by_collection: HashMap<CollectionId, HashSet<Vec<u8>>>,
}

/// What is known of the mutations of a batch before it is written.
pub(super) struct Settled {
    /// For each mutation, when the record before it expires.
    pub(super) expired_before: Vec<Option<u64>>,
    /// Entries to remove besides.
    pub(super) stale: Vec<Vec<u8>>,
}

impl ExpiredKeys {
    /// The keys of one collection; `None` if there are none.
    pub(crate) fn of(&self, id: CollectionId) -> Option<&HashSet<Vec<u8>>> {
        self.by_collection.get(&id)
    }
}

impl StateDatabase {
    /// Finds records that expire at `now_unix_ms` or before, the earliest first.
    pub(crate) fn due(&self, now_unix_ms: u64, limit: usize) -> Result<Vec<Due>> {
        let mut due = Vec::new();
        if !self.has_expiries.load(Ordering::Relaxed) {
            return Ok(due);
        }
        let mut walk = self.db.iterate(EXPIRIES, b"");
        while due.len() < limit
            && let Some(entry) = walk.next_with(|key, _| self.parse(key))?
        {
            let entry = entry?;
            if entry.expires_at_unix_ms > now_unix_ms {
                break;
            }
            due.push(entry);
        }
        Ok(due)
    }

    /// Finds all records that expire at `now_unix_ms` or before.
    pub(crate) fn expired_keys(&self, now_unix_ms: u64) -> Result<ExpiredKeys> {
        let mut expired = ExpiredKeys::default();
        for due in self.due(now_unix_ms, usize::MAX)? {
            expired.by_collection.entry(due.collection).or_default().insert(due.key);
        }
        Ok(expired)
    }

    fn parse(&self, key: &[u8]) -> Result<Due> {
        let parts = key.split_first_chunk().and_then(|(time, rest)| {
            let (id, key) = rest.split_first_chunk()?;
            Some((u64::from_be_bytes(*time), CollectionId(u32::from_be_bytes(*id)), key))
        });
        let (expires_at_unix_ms, collection, key) =
            parts.ok_or_else(|| self.corrupt("the time at which a record expires"))?;
        Ok(Due { expires_at_unix_ms, collection, key: key.to_vec() })
    }

    /// Finds the expiries that mutations replace, and drops the expirations of records that were
    /// themselves replaced or removed since they were found.
    ///
    /// Nobody else commits meanwhile, so what it finds out stays true.
    pub(super) fn settle(&self, mutations: &mut Vec<Mutation<'_>>) -> Result<Settled> {
        let expires = |mutation: &Mutation<'_>| {
            matches!(mutation.action, Action::Put { expires_at_unix_ms: Some(_), .. })
        };
        if mutations.iter().any(expires) {
            self.has_expiries.store(true, Ordering::Relaxed);
        }
        if !self.has_expiries.load(Ordering::Relaxed) {
            return Ok(Settled { expired_before: vec![None; mutations.len()], stale: Vec::new() });
        }
        // What the mutations before make of a key.
        let mut changed: HashMap<RecordKey, Option<u64>> = HashMap::new();
        let mut expired_before = Vec::with_capacity(mutations.len());
        let mut stale = Vec::new();
        let mut settled = Vec::with_capacity(mutations.len());
        for mutation in mutations.drain(..) {
            let key = &mutation.record;
            let expiry = match changed.get(key) {
                Some(expiry) => *expiry,
                None => self.stored_expiry(key.as_ref())?,
            };
            let after = match &mutation.action {
                Action::Put { expires_at_unix_ms, .. } => *expires_at_unix_ms,
                Action::Expire { expires_at_unix_ms, .. }
                    if expiry != Some(*expires_at_unix_ms) =>
                {
                    // Gone already, unless the database is damaged; it must not be found for ever.
                    stale.push(expiry_key(*expires_at_unix_ms, key.as_ref()));
                    continue;
                }
                Action::Expire { removed_count, .. } => {
                    removed_count.fetch_add(1, Ordering::Relaxed);
                    None
                }
                Action::Remove => None,
            };
            changed.insert(key.clone(), after);
            expired_before.push(expiry);
            settled.push(mutation);
        }
        *mutations = settled;
        Ok(Settled { expired_before, stale })
    }

    fn stored_expiry(&self, key: &[u8]) -> Result<Option<u64>> {
        let Some(record) = self.db.get(RECORDS, key)? else { return Ok(None) };
        match Record::decode_expiry(&record) {
            Ok(expires_at_unix_ms) => Ok(expires_at_unix_ms),
            // A damaged record must be replaceable, and its entry must not outlive it.
            Err(_) => self.find_expiry(key),
        }
    }

    /// Looks through all entries for that of one record.
    fn find_expiry(&self, key: &[u8]) -> Result<Option<u64>> {
        let mut walk = self.db.iterate(EXPIRIES, b"");
        while let Some(entry) = walk.next_with(|entry, _| {
            (entry.get(TIME_LEN_BYTES..) == Some(key)).then(|| self.parse(entry))
        })? {
            if let Some(due) = entry {
                return Ok(Some(due?.expires_at_unix_ms));
            }
        }
        Ok(None)
    }
}

/// The key of the entry for a record that expires; `record_key` begins with its collection's id.
pub(super) fn expiry_key(expires_at_unix_ms: u64, record_key: &[u8]) -> Vec<u8> {
    [&expires_at_unix_ms.to_be_bytes()[..], record_key].concat()
}
