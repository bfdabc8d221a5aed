//! Searching: embed the query, compare, merge, fetch the records found.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use op_dbus_formats::embedding::EmbeddingKey;
use op_dbus_formats::record::{self as format, EmbeddingSource};

use super::Store;
use super::collection::{Collection, decode_vector};
use crate::error::{Error, ErrorKind, Result};
use crate::index::{ExactIndex, Scored};
use crate::query::{Answer, Explain, Hit, Query, Target};

/// Texts whose lost embeddings are computed between two notes in the log.
const RECOMPUTE_BATCH_COUNT: usize = 256;

/// A record that a search of one collection found.
struct Found {
    collection: Arc<Collection>,
    scored: Scored,
}

/// Where a record's vector is.
enum Place {
    Cached(EmbeddingKey),
    Given(Vec<f32>),
}

impl Store {
    /// Finds the records nearest to a text or a vector by comparing all of them.
    ///
    /// The first search of a collection reads its vectors into memory. Embeddings that are no
    /// longer in the cache are computed again then, which takes a while and is logged.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the query does not fit the collections, [`ErrorKind::NotFound`] if
    /// a named collection does not exist, [`ErrorKind::Unavailable`] if a text has to be embedded
    /// and there is no model.
    pub fn search(&self, query: &Query) -> Result<Answer> {
        query.validate()?;
        let collections = self.searched_collections(query)?;
        let started = Instant::now();
        let (vector, embedding_hit) = match &query.target {
            Target::Vector(vector) => (vector.clone(), None),
            Target::Text(text) => {
                let embedding = self.embed(text)?;
                (embedding.vector, Some(embedding.hit))
            }
        };
        let embed = started.elapsed();
        let mut explain = Explain {
            compared_count: 0,
            embedding_hit,
            embed,
            load: Duration::ZERO,
            search: Duration::ZERO,
            fetch: Duration::ZERO,
        };
        let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let mut found: Vec<Found> = Vec::new();
        for collection in collections {
            let started = Instant::now();
            self.load_index(&collection)?;
            explain.load += started.elapsed();
            let started = Instant::now();
            if let Some(index) = &*collection.index() {
                explain.compared_count += index.len();
                let scored = index.search(&vector, query.limit, None, threads)?;
                found.extend(
                    scored
                        .into_iter()
                        .map(|scored| Found { collection: Arc::clone(&collection), scored }),
                );
            }
            explain.search += started.elapsed();
        }
        keep_best(&mut found, query);
        let started = Instant::now();
        let hits = found
            .into_iter()
            .filter_map(|found| self.hit(&found).transpose())
            .collect::<Result<_>>()?;
        explain.fetch = started.elapsed();
        Ok(Answer { hits, explain })
    }

    /// The collections that a query names, or all whose space its target lies in.
    fn searched_collections(&self, query: &Query) -> Result<Vec<Arc<Collection>>> {
        let named = !query.collections.is_empty();
        let mut collections = if named {
            query.collections.iter().map(|name| self.collection(name)).collect::<Result<_>>()?
        } else {
            self.all_collections()
        };
        match &query.target {
            Target::Vector(vector) => {
                let dimensions = vector.len();
                if named {
                    for collection in &collections {
                        collection.check_dimensions("the query vector", dimensions)?;
                    }
                }
                collections.retain(|known| known.spec.dimensions as usize == dimensions);
            }
            Target::Text(_) => {
                let embedder = self.embedder()?;
                if named {
                    for collection in &collections {
                        collection.check_model(&embedder)?;
                    }
                }
                collections.retain(|known| known.spec.model == Some(embedder.fingerprint()));
            }
        }
        let Some(first) = collections.first() else {
            return Err(Error::new(
                ErrorKind::NotFound,
                "no collection of this store fits the query",
            )
            .with_remedy("index something into the store first, or name a collection"));
        };
        if collections.iter().any(|known| known.spec.metric != first.spec.metric) {
            return Err(Error::new(
                ErrorKind::Invalid,
                "the collections measure nearness differently, so their scores do not compare",
            )
            .with_remedy("name the collection to search"));
        }
        Ok(collections)
    }

    /// Reads the vectors of a collection into memory, unless they are there.
    fn load_index(&self, collection: &Collection) -> Result<()> {
        if collection.index().is_some() {
            return Ok(());
        }
        // Commits wait for this lock when they come to show their change, and then show it again:
        // whatever the walk below has seen already is inserted twice, which changes nothing.
        let mut loaded = collection.index_mut();
        if loaded.is_some() {
            return Ok(());
        }
        let places = self.places(collection)?;
        let mut index = collection.new_index()?;
        let keys: Vec<EmbeddingKey> = places
            .iter()
            .filter_map(|(_, place)| match place {
                Place::Cached(key) => Some(*key),
                Place::Given(_) => None,
            })
            .collect();
        let cached = self.cache.vectors(&keys)?;
        let mut lost = Vec::new();
        for (key, place) in places {
            match place {
                Place::Given(vector) => {
                    index.insert(&key, &vector)?;
                }
                Place::Cached(embedding) => match cached.get(&embedding) {
                    Some(vector) if vector.len() == collection.spec.dimensions as usize => {
                        index.insert(&key, vector)?;
                    }
                    _ => lost.push(key),
                },
            }
        }
        self.recompute(collection, &lost, &mut index)?;
        *loaded = Some(index);
        Ok(())
    }

    /// Says where the vector of each record lies, for those that have one.
    fn places(&self, collection: &Collection) -> Result<Vec<(Vec<u8>, Place)>> {
        let mut places = Vec::new();
        let mut records = self.state.records(collection.spec.id, b"");
        let mut read = |key: &[u8], bytes: &[u8]| -> Result<()> {
            let record = format::Record::decode(bytes)
                .map_err(|error| self.damaged(collection, "record", key, error))?;
            let place = match record.embedding {
                EmbeddingSource::None => return Ok(()),
                EmbeddingSource::Cached(embedding) => Place::Cached(embedding),
                EmbeddingSource::Given => {
                    let bytes = self.state.vector(collection.spec.id, key)?;
                    let Some(bytes) = bytes else { return Ok(()) };
                    Place::Given(
                        decode_vector(&bytes)
                            .map_err(|error| self.damaged(collection, "vector", key, error))?,
                    )
                }
            };
            places.push((key.to_vec(), place));
            Ok(())
        };
        while let Some(read) = records.next_with(&mut read)? {
            read?;
        }
        Ok(places)
    }

    /// Computes the embeddings of records whose cached ones are gone.
    fn recompute(
        &self,
        collection: &Collection,
        lost: &[Vec<u8>],
        index: &mut ExactIndex,
    ) -> Result<()> {
        if lost.is_empty() {
            return Ok(());
        }
        let embedder = self.embedder()?;
        collection.check_model(&embedder)?;
        for (batch, keys) in lost.chunks(RECOMPUTE_BATCH_COUNT).enumerate() {
            tracing::warn!(
                collection = %collection.name,
                done = batch * RECOMPUTE_BATCH_COUNT,
                of = lost.len(),
                "computing embeddings again that are no longer in @cache"
            );
            let mut texts = Vec::with_capacity(keys.len());
            for key in keys {
                let Some(bytes) = self.state.record(collection.spec.id, key)? else { continue };
                let record = format::Record::decode(&bytes)
                    .map_err(|error| self.damaged(collection, "record", key, error))?;
                texts.extend(record.text.map(|text| (key, text.into_owned())));
            }
            let only_texts: Vec<&str> = texts.iter().map(|(_, text)| &text[..]).collect();
            let embeddings = self.cache.get_or_embed(&embedder, &only_texts)?;
            for ((key, _), embedding) in texts.iter().zip(embeddings) {
                index.insert(key, &embedding.vector)?;
            }
        }
        Ok(())
    }

    /// Reads a record found; `None` if it was removed meanwhile.
    fn hit(&self, found: &Found) -> Result<Option<Hit>> {
        let Found { collection, scored } = found;
        let key = &scored.key;
        let Some(bytes) = self.state.record(collection.spec.id, key)? else { return Ok(None) };
        let record = format::Record::decode(&bytes)
            .map_err(|error| self.damaged(collection, "record", key, error))?;
        Ok(Some(Hit {
            collection: collection.name.to_string(),
            key: key.to_vec(),
            score: scored.score(collection.spec.metric),
            text: record.text.map(Into::into),
            payload: record.payload.into_owned(),
        }))
    }
}

/// Best first; equal scores by collection and key, so that an answer can be repeated.
fn keep_best(found: &mut Vec<Found>, query: &Query) {
    if let Some(least) = query.min_score {
        found.retain(|found| found.scored.score(found.collection.spec.metric) >= least);
    }
    found.sort_by(|a, b| {
        // Not by score: a Euclidean one rounds what is very near or very far.
        (b.scored.nearness.total_cmp(&a.scored.nearness))
            .then_with(|| a.collection.name.cmp(&b.collection.name))
            .then_with(|| a.scored.key.cmp(&b.scored.key))
    });
    found.truncate(query.limit);
}
