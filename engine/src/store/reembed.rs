//! Embedding a collection anew, by another model.
//!
//! The embeddings of all texts by the new model are computed into the cache first, where they lie
//! beside those of the old one; who is broken off finds them there again. Then the collection's
//! entry, which names the model, is written: with that one write all its records have the new
//! vectors. Searches go on until then.

use std::sync::{Arc, PoisonError};

use serde::Serialize;

use super::Store;
use super::collection::{Collection, encode};
use super::search::Place;
use crate::embed::Embedder;
use crate::error::{Error, ErrorKind, Result};
use crate::layout::graph_unfinished;
use crate::os::file::remove_if_there;

/// What embedding a collection anew has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reembedded {
    /// Texts that have a vector by the new model.
    pub texts: u64,
    /// Of these, computed now.
    pub embedded: u64,
    /// Of these, found in the cache.
    pub cached: u64,
    /// Of those computed now, cut off at the model's limit.
    pub truncated: u64,
    /// Elements of every vector from now on.
    pub dimensions: u32,
    /// Whether the collection had a graph, which is gone.
    pub had_graph: bool,
}

/// What is told of the work: texts that have their vector, and texts there are.
pub type ReembedProgress<'a> = dyn FnMut(u64, u64) -> Result<()> + 'a;

impl Store {
    /// Gives the texts of a collection vectors by the store's model, instead of the one that made
    /// those they have. Nothing is changed until all are there, and then everything at once.
    ///
    /// `progress` may end it with an error; who asks again goes on from there.
    /// Cost: every text is embedded that is not in the cache, which keeps the old vectors, too, until
    /// they are the oldest.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such collection; [`ErrorKind::Invalid`] if callers
    /// gave vectors in it, which nobody can compute; [`ErrorKind::Unavailable`] if there is no model;
    /// what `progress` returns; those of a failed write.
    pub fn reembed(&self, name: &str, progress: &mut ReembedProgress<'_>) -> Result<Reembedded> {
        self.require_writable()?;
        let collection = self.collection(name)?;
        let embedder = self.embedder()?;
        let mut report = Reembedded { dimensions: embedder.dimensions()?, ..Reembedded::default() };
        if collection.spec.model == Some(embedder.fingerprint()) {
            return Ok(report);
        }
        if collection.spec.model.is_none() {
            return Err(given(&collection, None));
        }
        let texts_count = self.count_texts(&collection)?;
        let since = self.commits.last_sequence();
        let _held = self.hold_changes(since);
        self.walk_places(&collection, |places| {
            progress(report.texts, texts_count)?;
            self.embed_places(&collection, &embedder, places, &mut report)
        })?;
        progress(report.texts, texts_count.max(report.texts))?;
        self.switch(&collection, &embedder, since, &mut report)?;
        Ok(report)
    }

    fn count_texts(&self, collection: &Collection) -> Result<u64> {
        let mut count = 0;
        self.walk_places(collection, |places| {
            for (key, place) in &places {
                match place {
                    Place::Nowhere => {}
                    Place::Given(_) => return Err(given(collection, Some(key))),
                    Place::Text(_) => count += 1,
                }
            }
            Ok(())
        })?;
        Ok(count)
    }

    fn embed_places(
        &self,
        collection: &Collection,
        embedder: &Embedder,
        places: Vec<(Vec<u8>, Place)>,
        report: &mut Reembedded,
    ) -> Result<()> {
        let mut texts = Vec::new();
        for (key, place) in &places {
            match place {
                Place::Nowhere => {}
                Place::Given(_) => return Err(given(collection, Some(key))),
                Place::Text(text) => texts.push(&text[..]),
            }
        }
        for embedding in self.cache.get_or_embed(embedder, &texts)? {
            report.texts += 1;
            report.cached += u64::from(embedding.hit);
            report.embedded += u64::from(!embedding.hit);
            report.truncated += u64::from(embedding.truncated);
        }
        Ok(())
    }

    /// Makes the collection one of the new model, with what was written since then.
    fn switch(
        &self,
        collection: &Arc<Collection>,
        embedder: &Embedder,
        since: u64,
        report: &mut Reembedded,
    ) -> Result<()> {
        let mut is_current = collection.is_current.write().unwrap_or_else(PoisonError::into_inner);
        if !*is_current {
            let context = format!("somebody else embeds collection {} anew", collection.name);
            return Err(Error::new(ErrorKind::Busy, context).with_remedy("wait until it is done"));
        }
        for key in self.state.changed_keys(collection.spec.id, since)? {
            let Some(stored) = self.state.record_and_vector(collection.spec.id, &key)? else {
                continue;
            };
            let place = self.place(collection, &key, &stored.record, stored.vector.as_deref())?;
            self.embed_places(collection, embedder, vec![(key, place)], report)?;
        }
        let mut spec = collection.spec;
        (spec.dimensions, spec.model) = (report.dimensions, Some(embedder.fingerprint()));
        let encoded = encode(collection.name.as_str(), &spec)?;
        let path = self.graph_path(collection);
        report.had_graph = path.exists() || collection.graph.is_open();
        let mut collections = self.collections.write().unwrap_or_else(PoisonError::into_inner);
        self.commits.write_besides(|| self.state.put_collection(&collection.name, &encoded))?;
        let anew = Collection::new(collection.name.clone(), spec, self.hash_seed);
        collections.insert(collection.name.to_string(), Arc::new(anew));
        *is_current = false;
        drop(collections);
        // It says itself that it is of other vectors, should it stay.
        for path in [&path, &graph_unfinished(&path)] {
            if let Err(error) = remove_if_there(path) {
                tracing::warn!(%error, "a useless file stays");
            }
        }
        Ok(())
    }
}

fn given(collection: &Collection, key: Option<&[u8]>) -> Error {
    let name = &collection.name;
    let which = match key {
        Some(key) => format!("record {} of collection {name}", String::from_utf8_lossy(key)),
        None => format!("collection {name}"),
    };
    let context = format!("the vectors of {which} were given by callers, and cannot be computed");
    Error::new(ErrorKind::Invalid, context)
        .with_remedy("put its records into another collection, with vectors of the other model")
}
