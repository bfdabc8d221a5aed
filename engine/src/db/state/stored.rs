//! Which records are stored already, the same in every byte.

use std::collections::hash_map::Entry;
use std::sync::PoisonError;

use super::mutation::of_each_collection;
use super::{Action, Mutation, RECORDS, RecordKey, StateDatabase, VECTORS, cannot_encode};
use crate::error::Result;

impl StateDatabase {
    /// Says of each record whether it is stored as the mutation would store it; their keys differ,
    /// and are of one collection.
    pub(crate) fn are_stored(&self, mutations: &[Mutation<'_>]) -> Result<Vec<bool>> {
        let mut keys: Vec<(&RecordKey, usize)> =
            mutations.iter().map(|mutation| &mutation.record).zip(0..).collect();
        keys.sort_unstable();
        let mut are_stored = vec![false; mutations.len()];
        if let [(first, _), ..] = keys[..]
            && self.is_behind_all(first)
        {
            return Ok(are_stored);
        }
        let stored = self.db.get_ascending(RECORDS, keys.iter().map(|(key, _)| *key));
        let mut buffer = Vec::new();
        for ((key, index), stored) in keys.iter().zip(stored) {
            let index = *index;
            let Action::Put { record, vector, .. } = &mutations[index].action else {
                continue;
            };
            if stored?.as_deref() != Some(&record[..]) {
                continue;
            }
            let vector = match vector {
                Some(vector) => vector.encoded(&mut buffer).map_err(cannot_encode)?,
                None => None,
            };
            are_stored[index] = match vector {
                None => true,
                Some(vector) => self.db.get(VECTORS, key.as_ref())?.as_deref() == Some(vector),
            };
        }
        Ok(are_stored)
    }

    /// Whether a key lies behind all records of its collection, as those of most imports do.
    ///
    /// Not if the last one cannot be read: what is damaged is no reason to refuse others.
    fn is_behind_all(&self, key: &RecordKey) -> bool {
        let id = key.collection();
        let mut last_keys = self.last_keys.lock().unwrap_or_else(PoisonError::into_inner);
        let last = match last_keys.entry(id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                let prefix = RecordKey::new(id, b"");
                let Ok(last) = self.db.last_key(RECORDS, prefix.as_ref()) else { return false };
                unknown.insert(last.map_or(prefix, RecordKey::of_stored))
            }
        };
        *last < *key
    }

    /// After the write: whoever looks for the last key in the database meanwhile finds it there.
    pub(super) fn note_last_keys(&self, mutations: &[Mutation<'_>]) {
        let mut last_keys = self.last_keys.lock().unwrap_or_else(PoisonError::into_inner);
        for mutations in of_each_collection(mutations) {
            let Some(greatest) = mutations.iter().map(|mutation| &mutation.record).max() else {
                continue;
            };
            let Some(last) = last_keys.get_mut(&greatest.collection()) else { continue };
            if greatest > last {
                last.clone_from(greatest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use op_dbus_formats::collection::CollectionId;

    use super::super::tests::{COLLECTION, put, state};
    use super::*;
    use crate::db::{Creation, DatabaseMemory};

    #[test]
    fn records_that_are_stored_are_found_wherever_they_lie() {
        let (directory, state) = state();
        let other = CollectionId(COLLECTION.0 + 1);
        let of_other = Mutation { record: RecordKey::new(other, b"b"), ..put(b"b", None) };
        state.commit(&mut vec![put(b"b", None), put(b"d", None), of_other], 1, 0).unwrap();
        let ask = |state: &StateDatabase, keys: &[&[u8]]| {
            let asked: Vec<Mutation<'_>> = keys.iter().map(|key| put(key, None)).collect();
            state.are_stored(&asked).unwrap()
        };
        let check = |state: &StateDatabase| {
            assert_eq!(ask(state, &[b"e", b"f"]), [false, false]);
            assert_eq!(ask(state, &[b"e", b"d", b"c"]), [false, true, false]);
            assert_eq!(ask(state, &[b"a", b"b"]), [false, true]);
        };
        check(&state);
        drop(state);
        let open =
            || StateDatabase::open(directory.path(), Creation::Refuse, DatabaseMemory::of(0));
        let state = open().unwrap();
        check(&state);
        // What is written is known at once, also behind what was last.
        let expiring = put(b"f", Some(5));
        state.commit(&mut vec![put(b"g", None), expiring, put(b"e", None)], 4, 0).unwrap();
        assert_eq!(ask(&state, &[b"e", b"f", b"g", b"h"]), [true, false, true, false]);
        assert_eq!(ask(&state, &[b"g", b"h"]), [true, false]);
        // A removal leaves the mark where it is.
        let removal = Mutation { action: Action::Remove, ..put(b"g", None) };
        state.commit(&mut vec![removal], 7, 0).unwrap();
        assert_eq!(ask(&state, &[b"g", b"h"]), [false, false]);
        assert_eq!(ask(&state, &[b"e"]), [true]);
    }
}
