//! Everything that lies under a key, of all collections: what a check of the whole store walks.

use op_dbus_formats::collection::CollectionId;

use super::super::Walk;
use super::{RECORDS, StateDatabase, VECTORS};
use crate::error::Result;

impl StateDatabase {
    /// Walks what lies under the full keys from `key` on, of all collections.
    pub(crate) fn pairs_from(&self, key: &[u8]) -> Pairs<'_> {
        let make = |family| self.db.iterate_from(family, key);
        let [records, vectors] = self.db.at_one_moment(|| [RECORDS, VECTORS].map(make));
        Pairs { records, vectors }
    }
}

/// Records and given vectors of all collections in the order of their keys, each with the other of
/// its key if there is one, as they were when the walk began.
pub(crate) struct Pairs<'a> {
    records: Walk<'a>,
    vectors: Walk<'a>,
}

/// What lies under one key, as it is stored.
#[derive(Clone, Copy)]
pub(crate) struct Pair<'p> {
    pub(crate) collection: CollectionId,
    pub(crate) key: &'p [u8],
    pub(crate) record: Option<&'p [u8]>,
    pub(crate) vector: Option<&'p [u8]>,
}

impl Pairs<'_> {
    /// Hands what lies under the next key to `read`, with the full key; `None` at the end.
    pub(crate) fn next_with<T>(
        &mut self,
        read: impl FnOnce(&[u8], Option<Pair<'_>>) -> T,
    ) -> Result<Option<T>> {
        let (record, vector) = (self.records.item()?, self.vectors.item()?);
        let full_key = match (record, vector) {
            (None, None) => return Ok(None),
            (Some((key, _)), None) | (None, Some((key, _))) => key,
            (Some((record, _)), Some((vector, _))) => record.min(vector),
        };
        let (record, vector) = (value_of(full_key, record), value_of(full_key, vector));
        let pair = full_key.split_first_chunk().map(|(id, key)| {
            let collection = CollectionId(u32::from_be_bytes(*id));
            Pair { collection, key, record, vector }
        });
        let answer = read(full_key, pair);
        let (has_record, has_vector) = (record.is_some(), vector.is_some());
        if has_record {
            self.records.step();
        }
        if has_vector {
            self.vectors.step();
        }
        Ok(Some(answer))
    }
}

/// The value of an item, if it has this key.
fn value_of<'v>(key: &[u8], item: Option<(&[u8], &'v [u8])>) -> Option<&'v [u8]> {
    item.filter(|(found, _)| *found == key).map(|(_, value)| value)
}
