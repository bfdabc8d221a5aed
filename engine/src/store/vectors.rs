//! Vectors by key: hot ones borrowed from an arena, cold ones read from RocksDB and promoted.

use std::ops::Deref;
use std::sync::Arc;

use op_dbus_formats::record::{self as format, EmbeddingSource};
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::Store;
use super::collection::Collection;
use super::warmth::record_locator;
use crate::arena::{Contents, HotVector, NEVER, Wanted};
use crate::error::{Error, ErrorKind, Result};
use crate::os::clock::unix_ms;
use crate::record::{is_past, validate_key};
use crate::tier::{Fence, Pool};

/// Reads vectors of one collection by key. Made by [`Store::vectors`].
///
/// What is looked up once for all reads is looked up when this is made: keep it.
pub struct Vectors<'a> {
    store: &'a Store,
    collection: Arc<Collection>,
    pool: Arc<Pool>,
}

/// A vector, where it was found. Shape: `[dimensions]` of the collection or the model.
///
/// A hot one is borrowed: until it is dropped, memory of vectors that were demoted is not used
/// again, so copy what is kept for long.
pub struct Vector<'a>(Residence<'a>);

enum Residence<'a> {
    Hot(HotVector<'a>),
    Cold(Vec<f32>),
}

impl<'a> Vector<'a> {
    pub(super) fn hot(vector: HotVector<'a>) -> Self {
        Self(Residence::Hot(vector))
    }

    pub(super) fn cold(vector: Vec<f32>) -> Self {
        Self(Residence::Cold(vector))
    }

    /// Whether it was in memory.
    #[must_use]
    pub fn is_hot(&self) -> bool {
        matches!(self.0, Residence::Hot(_))
    }
}

impl Deref for Vector<'_> {
    type Target = [f32];

    #[inline]
    fn deref(&self) -> &[f32] {
        match &self.0 {
            Residence::Hot(vector) => vector,
            Residence::Cold(vector) => vector,
        }
    }
}

impl std::fmt::Debug for Vector<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vector")
            .field("is_hot", &self.is_hot())
            .field("elements", &&**self)
            .finish()
    }
}

impl Store {
    /// Opens the way to the vectors of a collection.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such collection.
    pub fn vectors(&self, collection: &str) -> Result<Vectors<'_>> {
        self.vectors_of(self.collection(collection)?)
    }

    pub(super) fn vectors_of(&self, collection: Arc<Collection>) -> Result<Vectors<'_>> {
        let pool = self.tier.pool(collection.spec.dimensions as usize)?;
        Ok(Vectors { store: self, collection, pool })
    }
}

impl Vectors<'_> {
    /// Returns the vector of the record with this key, given by a caller or made of its text.
    ///
    /// Cost of a hot one: two or three reads of memory, no lock, no allocation, no system call.
    ///
    /// # Errors
    /// Those of reading a cold one: [`ErrorKind::Corrupt`] if it is damaged,
    /// [`ErrorKind::Unavailable`] if its text has to be embedded again and there is no model.
    #[inline]
    pub fn get(&self, key: &[u8]) -> Result<Option<Vector<'_>>> {
        let tier_key = self.collection.tier_key(key);
        match self.pool.get(tier_key, Wanted::Part) {
            Some(hot) if !has_expired(hot.expires_at_unix_ms()) => Ok(Some(Vector::hot(hot))),
            // It stays where it is until it is collected.
            Some(_) => Ok(None),
            None => self.get_cold(key, tier_key),
        }
    }

    /// Copies the vector of the record with this key; `false` if there is none. Shape:
    /// `[dimensions]`, as [`Vectors::get`] returns it.
    ///
    /// Cost of a hot one: less than to get it and to copy it then, because it is fetched from memory
    /// while it is looked up.
    ///
    /// # Errors
    /// As [`Vectors::get`]; [`ErrorKind::Invalid`] if `vector` has another length.
    #[inline]
    pub fn copy_to(&self, key: &[u8], vector: &mut [f32]) -> Result<bool> {
        let tier_key = self.collection.tier_key(key);
        match self.pool.get(tier_key, Wanted::Whole) {
            Some(hot) if !has_expired(hot.expires_at_unix_ms()) => copy(key, &hot, vector),
            Some(_) => Ok(false),
            None => {
                let found = self.get_cold(key, tier_key)?;
                found.map_or(Ok(false), |found| copy(key, &found, vector))
            }
        }
    }

    /// Finds a hot vector, expired or not.
    pub(super) fn get_hot(&self, key: &[u8]) -> Option<HotVector<'_>> {
        self.pool.get(self.collection.tier_key(key), Wanted::Whole)
    }

    /// Reads cold vectors of keys, which ascend, and hands each on with what stands beside its key.
    /// Records that are gone, or have no vector, are left out.
    pub(super) fn read_cold(
        &self,
        keys: &[(&[u8], usize)],
        take: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<()> {
        let (store, collection) = (self.store, &*self.collection);
        let id = collection.spec.id;
        let is_simple = collection.spec.model.is_none() && !store.state.has_expiries();
        let mut rest = Vec::new();
        if is_simple {
            let fence = |key: &[u8]| self.pool.fence(collection.tier_key(key));
            let fences: Vec<Fence> = keys.iter().map(|(key, _)| fence(key)).collect();
            let given = store.state.vectors(id, keys.iter().map(|(key, _)| *key));
            for (((key, place), fence), given) in keys.iter().zip(fences).zip(given) {
                let Some(bytes) = given? else {
                    rest.push((*key, *place));
                    continue;
                };
                let vector = store.decode_given(collection, key, Some(&bytes))?;
                take(*place, &vector);
                self.promoted(key, collection.tier_key(key), fence, vector, NEVER);
            }
        } else {
            rest.extend_from_slice(keys);
        }
        for (key, place) in rest {
            if let Some(vector) = self.get_cold(key, collection.tier_key(key))? {
                take(place, &vector);
            }
        }
        Ok(())
    }

    #[cold]
    fn get_cold(&self, key: &[u8], tier_key: u128) -> Result<Option<Vector<'_>>> {
        validate_key(key)?;
        let (store, collection) = (self.store, &*self.collection);
        let fence = self.pool.fence(tier_key);
        if let Some((vector, expires_at_unix_ms)) = self.pool.mapped(tier_key) {
            return Ok(self.promoted(key, tier_key, fence, vector, expires_at_unix_ms));
        }
        let given = store.state.vector(collection.spec.id, key)?;
        // Only the record knows when it expires, but reading it costs as much again.
        let needs_record = given.is_none() || store.state.has_expiries();
        let record = if needs_record { store.record_of(collection, key)? } else { None };
        if needs_record && record.is_none() {
            return Ok(None);
        }
        let expires_at_unix_ms = record.as_ref().and_then(|record| record.expires_at_unix_ms);
        let vector = match (given, record) {
            (Some(bytes), _) => store.decode_given(collection, key, Some(&bytes))?,
            (None, Some(record)) => match store.vector_of_text(collection, record)? {
                Some(vector) => vector,
                None => return Ok(None),
            },
            (None, None) => return Ok(None),
        };
        let expires_at_unix_ms = expires_at_unix_ms.unwrap_or(NEVER);
        Ok(self.promoted(key, tier_key, fence, vector, expires_at_unix_ms))
    }

    /// Offers a cold vector to the tier and returns it, unless it has expired.
    fn promoted(
        &self,
        key: &[u8],
        tier_key: u128,
        fence: Fence,
        vector: Vec<f32>,
        expires_at_unix_ms: u64,
    ) -> Option<Vector<'_>> {
        if has_expired(expires_at_unix_ms) {
            return None;
        }
        let contents = Contents { key: tier_key, expires_at_unix_ms, vector: &vector };
        let locator = record_locator(self.collection.spec.id, key);
        self.pool.promote(&contents, Some(&locator), fence, self.store.tier.budget());
        Some(Vector::cold(vector))
    }
}

impl Store {
    fn record_of(
        &self,
        collection: &Collection,
        key: &[u8],
    ) -> Result<Option<format::Record<'static>>> {
        let Some(bytes) = self.state.record(collection.spec.id, key)? else { return Ok(None) };
        let record = format::Record::decode(&bytes)
            .map_err(|error| self.damaged(collection, "record", key, error))?;
        Ok(Some(record.into_owned()))
    }

    /// The embedding of a record's text; `None` if it has none.
    fn vector_of_text(
        &self,
        collection: &Collection,
        record: format::Record<'_>,
    ) -> Result<Option<Vec<f32>>> {
        if record.embedding != EmbeddingSource::Text {
            return Ok(None);
        }
        let text = record.text.unwrap_or_default();
        let dimensions = collection.spec.dimensions as usize;
        if let Some(embedding) = self.embedding_key(collection, &text)
            && let Some(vector) = self.cache.vectors(&[embedding]).remove(&embedding)
            && vector.len() == dimensions
        {
            return Ok(Some(vector));
        }
        let embedder = self.embedder()?;
        collection.check_model(&embedder)?;
        let mut embeddings = self.cache.get_or_embed(&embedder, &[&text])?;
        Ok(embeddings.pop().map(|embedding| embedding.vector))
    }
}

#[inline]
fn copy(key: &[u8], found: &[f32], vector: &mut [f32]) -> Result<bool> {
    if vector.len() != found.len() {
        return Err(unfit(key, found.len(), vector.len()));
    }
    vector.copy_from_slice(found);
    Ok(true)
}

#[cold]
fn unfit(key: &[u8], dimensions: usize, room: usize) -> Error {
    let key = String::from_utf8_lossy(key);
    let what = format!("the vector of record {key} has {dimensions} elements, the room {room}");
    Error::new(ErrorKind::Invalid, what).with_remedy("give room for the whole vector")
}

/// Asks the clock only if it ever does.
#[inline]
fn has_expired(expires_at_unix_ms: u64) -> bool {
    expires_at_unix_ms != NEVER && is_past(Some(expires_at_unix_ms), unix_ms())
}

impl Collection {
    /// What the tier knows the vector of a record by.
    #[inline]
    pub(super) fn tier_key(&self, key: &[u8]) -> u128 {
        xxh3_128_with_seed(key, self.tier_seed)
    }
}
