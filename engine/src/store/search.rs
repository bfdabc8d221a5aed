//! Searching: embed the query, compare, merge, fetch the records found.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use op_dbus_formats::embedding::EmbeddingKey;
use op_dbus_formats::record::{self as format, EmbeddingSource};

use super::audit::Moment;
use super::collection::Collection;
use super::filter::{Passing, SAMPLE_COUNT};
use super::{Store, lock};
use crate::error::{Error, ErrorKind, Result};
use crate::index::{ExactIndex, Filter, Scored};
use crate::os::clock::unix_ms;
use crate::os::threads::in_parts_on;
use crate::query::{Answer, CollectionExplain, Explain, Hit, LIMIT_MAX, Plan, Query, Target};
use crate::record::is_past;

/// Records whose vectors are brought into memory together.
const WALK_COUNT: usize = 1024;

/// A record that a search of one collection found.
pub(super) struct Found {
    pub(super) collection: Arc<Collection>,
    pub(super) scored: Scored,
    /// For a reader.
    pub(super) score: f32,
}

/// Where a record's vector is.
pub(super) enum Place {
    Nowhere,
    Given(Vec<f32>),
    /// That of a text, in the cache, from where it can get lost; the text brings it back.
    Text(String),
}

/// A record whose embedding is no longer in the cache.
struct Lost {
    key: Vec<u8>,
    text: String,
}

/// Takes the key and the vector of a record.
pub(super) type VectorTaker<'a> = dyn FnMut(&[u8], &[f32]) -> Result<()> + 'a;

impl Store {
    /// Finds the records nearest to a text, a vector or a record: by the graph of a collection if it was
    /// [linked](Store::link), else by comparing all of them.
    ///
    /// The first search of a collection without a graph reads its vectors into memory. Embeddings that are no
    /// longer in the cache are computed again then, which takes a while and is logged.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the query does not fit the collections, [`ErrorKind::NotFound`] if
    /// a named collection or the record to be near to does not exist, [`ErrorKind::Unavailable`] if a text has to be embedded
    /// and there is no model.
    pub fn search(&self, query: &Query) -> Result<Answer> {
        let begun = Instant::now();
        query.validate()?;
        let collections = self.searched_collections(query)?;
        let started = Instant::now();
        let (vector, embedding_hit) = match &query.target {
            Target::Vector(vector) => (vector.clone(), None),
            Target::Text(text) => {
                let embedding = self.embed(text)?;
                (embedding.vector, Some(embedding.hit))
            }
            Target::Record { collection, key } => (self.vector_to_search(collection, key)?, None),
        };
        let searched = &query.clone().limit(searched_count(query));
        let embed = started.elapsed();
        let mut explain = Explain {
            collections: Vec::new(),
            embedding_hit,
            embed,
            load: Duration::ZERO,
            search: Duration::ZERO,
            fetch: Duration::ZERO,
            keyword: None,
        };
        let mut found: Vec<Found> = Vec::new();
        let now_unix_ms = unix_ms();
        let expired = self.state.expired_keys(now_unix_ms)?;
        let mut passings = Vec::new();
        for collection in &collections {
            let expired = expired.of(collection.spec.id);
            let passing = Passing::new(self, collection, searched, (expired, now_unix_ms));
            let scored =
                self.search_collection(collection, &vector, (searched, &passing), &mut explain)?;
            let found_there = |scored: Scored| Found {
                collection: Arc::clone(collection),
                score: scored.score(collection.spec.metric),
                scored,
            };
            found.extend(scored.into_iter().map(found_there));
            passings.push(passing);
        }
        #[cfg(feature = "keyword")]
        if query.keyword {
            keep_best(&mut found, searched);
            (found, explain.keyword) =
                self.join_keywords(searched, found, (&collections, &passings))?;
        }
        keep_best(&mut found, query);
        for (done, passing) in explain.collections.iter_mut().zip(passings) {
            done.filter = passing.finish()?;
        }
        let started = Instant::now();
        let hits = found
            .into_iter()
            .filter_map(|found| self.hit(&found, query, now_unix_ms).transpose())
            .collect::<Result<_>>()?;
        explain.fetch = started.elapsed();
        self.latencies.note(begun.elapsed());
        Ok(Answer { hits, explain })
    }

    /// Answers many queries, several at a time, in their order; each as by [`Store::search`].
    ///
    /// # Errors
    /// Those of [`Store::search`], of the first query that has one.
    pub fn search_all(&self, queries: &[Query], threads: NonZeroUsize) -> Result<Vec<Answer>> {
        let settle = |thread| self.placement.visit_as_worker(thread);
        let answers =
            in_parts_on(queries, threads, settle, |query, (): &mut ()| self.search(query));
        answers.into_iter().collect()
    }

    fn search_collection(
        &self,
        collection: &Arc<Collection>,
        vector: &[f32],
        (query, passing): (&Query, &Passing<'_>),
        explain: &mut Explain,
    ) -> Result<Vec<Scored>> {
        let started = Instant::now();
        self.open_graph(collection);
        explain.load += started.elapsed();
        let started = Instant::now();
        let audited = self.audits.choose().then(|| self.moment(passing));
        if let Some((scored, done)) = self.search_graph(collection, vector, query, passing)? {
            explain.search += started.elapsed();
            if let Some(moment) = audited.filter(|_| done.plan == Plan::Graph) {
                self.audits.note(collection, (vector, query), &scored, moment);
            }
            explain.collections.push(done);
            return Ok(scored);
        }
        self.load_index(collection)?;
        explain.load += started.elapsed();
        let started = Instant::now();
        let index = collection.index();
        let Some(index) = &*index else {
            let problem = format!("the vectors of {} are not in memory", collection.name);
            return Err(Error::new(ErrorKind::Io, problem).with_remedy("search again"));
        };
        passing.prepare(index.len(), || self.asks_about_many(index, query, passing))?;
        let passes = |key: &[u8]| passing.passes(key);
        let filter = passing.is_needed().then_some(&passes as Filter<'_>);
        let scored = index.search(vector, query.limit, filter, self.threads)?;
        explain.search += started.elapsed();
        explain.collections.push(CollectionExplain {
            name: collection.name.to_string(),
            plan: Plan::Exact,
            expanded: 0,
            compared: 0,
            full_hot: index.len() as u64,
            full_cold: 0,
            filter: None,
        });
        Ok(scored)
    }

    fn moment(&self, passing: &Passing<'_>) -> Moment {
        Moment { sequence: self.commits.last_sequence(), now_unix_ms: passing.now_unix_ms() }
    }

    /// Whether to compare all would ask about so many that they are better walked.
    fn asks_about_many(&self, index: &ExactIndex, query: &Query, passing: &Passing<'_>) -> bool {
        let part = passing.part(index.some_keys(SAMPLE_COUNT));
        let passing_count = index.len() as f64 * part;
        // Each thread asks about what is among the nearest that it has seen so far: at first about
        // all, and then ever less often.
        let found_count = (query.limit as f64).min(passing_count).max(1.0);
        let rounds = 1.0 + (passing_count / found_count).ln().max(0.0);
        passing.are_many(self.threads.get() as f64 * found_count / part * rounds)
    }

    /// The collections that a query names, or all whose space its target lies in.
    fn searched_collections(&self, query: &Query) -> Result<Vec<Arc<Collection>>> {
        let named = !query.collections.is_empty();
        let mut collections: Vec<_> = if named {
            let names: BTreeSet<_> = query.collections.iter().collect();
            names.into_iter().map(|name| self.collection(name)).collect::<Result<_>>()?
        } else {
            let mut all = self.all_collections();
            all.retain(|known| query.excluded.iter().all(|name| *name != known.name.to_string()));
            all
        };
        let known_count = collections.len();
        match &query.target {
            Target::Vector(vector) => {
                if named {
                    let check = |known: &Arc<Collection>| {
                        known.check_dimensions(|| "the query vector".to_owned(), vector.len())
                    };
                    collections.iter().try_for_each(check)?;
                }
                collections.retain(|known| {
                    known.spec.has_space() && known.spec.dimensions as usize == vector.len()
                });
            }
            Target::Text(_) => {
                let embedder = self.embedder()?;
                if named {
                    collections.iter().try_for_each(|known| known.check_model(&embedder))?;
                }
                collections.retain(|known| known.spec.model == Some(embedder.fingerprint()));
            }
            Target::Record { collection, .. } => {
                let origin = self.collection(collection)?;
                if named {
                    let dimensions = origin.spec.dimensions as usize;
                    let check = |known: &Arc<Collection>| {
                        known.check_dimensions(|| format!("{collection}'s vector"), dimensions)
                    };
                    collections.iter().try_for_each(check)?;
                }
                let space = |known: &Collection| {
                    (known.spec.dimensions, known.spec.metric, known.spec.model)
                };
                let origin = space(&origin);
                collections.retain(|known| known.spec.has_space() && space(known) == origin);
            }
        }
        let Some(first) = collections.first() else { return Err(nothing_to_search(known_count)) };
        let space = |known: &Collection| (known.spec.metric, known.spec.model);
        if collections.iter().any(|known| space(known) != space(first)) {
            return Err(Error::new(
                ErrorKind::Invalid,
                "the collections have different embedding spaces, so their scores do not compare",
            )
            .with_remedy("name the collection to search"));
        }
        Ok(collections)
    }

    /// The vector of a record that others are to be near to.
    fn vector_to_search(&self, collection: &str, key: &[u8]) -> Result<Vec<f32>> {
        let nothing = |what: &str| {
            let key = String::from_utf8_lossy(key);
            Error::new(ErrorKind::NotFound, format!("record {key} of {collection} {what}"))
                .with_remedy("name a record with a text or a vector")
        };
        match self.vectors(collection)?.get(key)? {
            Some(vector) => Ok(vector.to_vec()),
            None if self.get(collection, key)?.is_none() => Err(nothing("does not exist")),
            None => Err(nothing("has no vector")),
        }
    }

    /// Reads the vectors of a collection into memory, unless they are there.
    ///
    /// Writers wait only while what they changed meanwhile is read again, not while embeddings that
    /// got lost are computed.
    fn load_index(&self, collection: &Collection) -> Result<()> {
        if collection.index().is_some() {
            return Ok(());
        }
        let _loading = lock(&collection.loading);
        if collection.index().is_some() {
            return Ok(());
        }
        let since = self.commits.last_sequence();
        let _held = self.hold_changes(since);
        let mut index = collection.new_index(&self.placement)?;
        self.walk_vectors(collection, &mut |key, vector| index.insert(key, vector).map(drop))?;
        let mut loaded = collection.index_mut();
        // A commit that waits for this lock will show its changes again, which changes nothing.
        for key in self.state.changed_keys(collection.spec.id, since)? {
            index.remove(&key);
            if let Some(vector) = self.vector_of_record(collection, &key)? {
                index.insert(&key, &vector)?;
            }
        }
        *loaded = Some(index);
        Ok(())
    }

    /// What the cache knows the embedding of a text by, in a collection whose texts have any.
    pub(super) fn embedding_key(
        &self,
        collection: &Collection,
        text: &str,
    ) -> Option<EmbeddingKey> {
        collection.spec.model.map(|model| self.cache.key(model, text))
    }

    /// Walks the records of a collection and says where their vectors are, some at a time.
    pub(super) fn walk_places(
        &self,
        collection: &Collection,
        mut take: impl FnMut(Vec<(Vec<u8>, Place)>) -> Result<()>,
    ) -> Result<()> {
        let mut records = self.state.records(collection.spec.id, b"");
        let mut places = Vec::new();
        while let Some(place) = records.next_with(|key, record, vector| {
            self.place(collection, key, record, vector).map(|place| (key.to_vec(), place))
        })? {
            places.push(place?);
            if places.len() == WALK_COUNT {
                take(std::mem::take(&mut places))?;
            }
        }
        take(places)
    }

    pub(super) fn place(
        &self,
        collection: &Collection,
        key: &[u8],
        record: &[u8],
        vector: Option<&[u8]>,
    ) -> Result<Place> {
        let record = format::Record::decode(record)
            .map_err(|error| self.damaged(collection, "record", key, error))?;
        Ok(match record.embedding {
            EmbeddingSource::None => Place::Nowhere,
            EmbeddingSource::Given => Place::Given(self.decode_given(collection, key, vector)?),
            EmbeddingSource::Text => Place::Text(record.text.unwrap_or_default().into_owned()),
        })
    }

    /// Hands on the key and the vector of every record that has one.
    pub(super) fn walk_vectors(
        &self,
        collection: &Collection,
        take: &mut VectorTaker<'_>,
    ) -> Result<()> {
        self.walk_places(collection, |places| self.take_places(collection, places, take))
    }

    /// Reads the vector of a record; none if there is no such record, or it has no vector.
    pub(super) fn vector_of_record(
        &self,
        collection: &Collection,
        key: &[u8],
    ) -> Result<Option<Vec<f32>>> {
        let stored = self.state.record_and_vector(collection.spec.id, key)?;
        let Some(stored) = stored else { return Ok(None) };
        let place = self.place(collection, key, &stored.record, stored.vector.as_deref())?;
        let mut found = None;
        self.take_places(collection, vec![(key.to_vec(), place)], &mut |_, vector| {
            found = Some(vector.to_vec());
            Ok(())
        })?;
        Ok(found)
    }

    /// Hands on the vectors of records; embeddings that are no longer in the cache are computed.
    fn take_places(
        &self,
        collection: &Collection,
        places: Vec<(Vec<u8>, Place)>,
        take: &mut VectorTaker<'_>,
    ) -> Result<()> {
        let embedding_key = |text: &str| self.embedding_key(collection, text);
        let keys: Vec<EmbeddingKey> = places
            .iter()
            .filter_map(|(_, place)| match place {
                Place::Text(text) => embedding_key(text),
                Place::Given(_) | Place::Nowhere => None,
            })
            .collect();
        let cached = self.cache.vectors(&keys);
        let dimensions = collection.spec.dimensions as usize;
        let mut lost = Vec::new();
        for (key, place) in places {
            match place {
                Place::Nowhere => {}
                Place::Given(vector) => {
                    take(&key, &vector)?;
                }
                Place::Text(text) => match embedding_key(&text).and_then(|key| cached.get(&key)) {
                    Some(vector) if vector.len() == dimensions => {
                        take(&key, vector)?;
                    }
                    _ => lost.push(Lost { key, text }),
                },
            }
        }
        for (lost, vector) in lost.iter().zip(self.recompute(collection, &lost)?) {
            take(&lost.key, &vector)?;
        }
        Ok(())
    }

    /// Computes the embeddings of records whose cached ones are gone, in their order.
    fn recompute(&self, collection: &Collection, lost: &[Lost]) -> Result<Vec<Vec<f32>>> {
        if lost.is_empty() {
            return Ok(Vec::new());
        }
        let embedder = self.embedder()?;
        collection.check_model(&embedder)?;
        tracing::warn!(
            collection = %collection.name,
            texts = lost.len(),
            "computing embeddings again that are no longer in @cache"
        );
        let texts: Vec<&str> = lost.iter().map(|lost| &lost.text[..]).collect();
        let embeddings = self.cache.get_or_embed(&embedder, &texts)?;
        Ok(embeddings.into_iter().map(|embedding| embedding.vector).collect())
    }

    /// Reads a record found; `None` if it was removed meanwhile, or replaced by one that expired or
    /// that the filter does not let pass.
    fn hit(&self, found: &Found, query: &Query, now_unix_ms: u64) -> Result<Option<Hit>> {
        let Found { collection, scored, score } = found;
        let key = &scored.key;
        let Some(bytes) = self.state.record(collection.spec.id, key)? else { return Ok(None) };
        let record = format::Record::decode(&bytes)
            .map_err(|error| self.damaged(collection, "record", key, error))?;
        if is_past(record.expires_at_unix_ms, now_unix_ms) {
            return Ok(None);
        }
        if query.filter.is_some() {
            let passing = Passing::new(self, collection, query, (None, now_unix_ms));
            if !passing.passes_read(key, &record)? {
                return Ok(None);
            }
        }
        Ok(Some(Hit {
            collection: collection.name.to_string(),
            key: key.to_vec(),
            score: *score,
            text: record.text.map(Into::into),
            payload: record.payload.into_owned(),
        }))
    }
}

fn nothing_to_search(known_count: usize) -> Error {
    let (context, remedy) = match known_count {
        0 => ("the store is empty", "put something into it first"),
        _ => (
            "no collection of the store has the embedding space of the query",
            "use the model that the collections were made with, or query by vector",
        ),
    };
    Error::new(ErrorKind::NotFound, context).with_remedy(remedy)
}

/// How many are looked for to have as many in the end as were asked for.
fn searched_count(query: &Query) -> usize {
    #[cfg(feature = "keyword")]
    if query.keyword {
        return query.limit.max(super::keyword::RANKS_MIN);
    }
    // The record itself is the nearest, and not wanted.
    (query.limit + usize::from(query.origin().is_some())).min(LIMIT_MAX)
}

/// Best first; equal scores by collection and key, so that an answer can be repeated.
fn keep_best(found: &mut Vec<Found>, query: &Query) {
    if let Some((collection, key)) = query.origin() {
        found.retain(|found| {
            *found.scored.key != *key || found.collection.name.as_str() != collection
        });
    }
    if let Some(least) = query.min_score {
        found.retain(|found| found.score >= least);
    }
    found.sort_by(|a, b| {
        // Not by score: a Euclidean one rounds what is very near or very far.
        (b.scored.nearness.total_cmp(&a.scored.nearness))
            .then_with(|| a.collection.name.cmp(&b.collection.name))
            .then_with(|| a.scored.key.cmp(&b.scored.key))
    });
    found.truncate(query.limit);
}
