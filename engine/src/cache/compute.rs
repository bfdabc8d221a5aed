//! Embeddings of texts: those that are known, and those that are computed because they are not.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::time::Instant;

use op_dbus_formats::embedding::EmbeddingKey;

use super::flights::Claim;
use super::{CachedEmbedding, EmbeddingCache};
use crate::embed::Embedder;
use crate::error::Result;

/// Texts that are computed before what came of them is kept: what a process loses that is killed.
const KEPT_TEXTS_COUNT: usize = 256;

impl EmbeddingCache {
    /// Returns the embeddings of `texts`, in their order, computing those that are missing.
    ///
    /// A text that occurs twice is computed once, also where somebody else asks for it at the same
    /// time; who has not computed it counts a hit.
    pub(crate) fn get_or_embed(
        &self,
        embedder: &Embedder,
        texts: &[&str],
    ) -> Result<Vec<CachedEmbedding>> {
        let model = embedder.fingerprint();
        let keys: Vec<EmbeddingKey> = texts.iter().map(|text| self.key(model, text)).collect();
        let mut found = self.find_all(embedder, &keys);
        let mut computed = HashMap::new();
        if found.len() < keys.len() {
            let texts = keys.iter().copied().zip(texts.iter().copied()).collect();
            self.find_missing(embedder, &texts, (&mut found, &mut computed))?;
        }
        let embedding_of = |key: EmbeddingKey| {
            // Only the first of equal texts takes the computed one and leaves it to the rest.
            let embedding = computed.remove(&key).unwrap_or_else(|| CachedEmbedding {
                vector: found[&key].clone(),
                hit: true,
                truncated: false,
                key,
            });
            self.count(embedding.hit);
            found.entry(key).or_insert_with(|| embedding.vector.clone());
            embedding
        };
        Ok(keys.into_iter().map(embedding_of).collect())
    }

    /// Computes what is missing of texts, or waits for those who do.
    fn find_missing(
        &self,
        embedder: &Embedder,
        texts: &HashMap<EmbeddingKey, &str>,
        (found, computed): (
            &mut HashMap<EmbeddingKey, Vec<f32>>,
            &mut HashMap<EmbeddingKey, CachedEmbedding>,
        ),
    ) -> Result<()> {
        loop {
            let is_missing =
                |key: &&EmbeddingKey| !found.contains_key(key) && !computed.contains_key(key);
            let missing: Vec<EmbeddingKey> = texts.keys().filter(is_missing).copied().collect();
            if missing.is_empty() {
                return Ok(());
            }
            let mut claim = self.flights.claim(&missing);
            // Those who computed them may have ended between the two questions, of which the second is
            // no lookup.
            let mine: Vec<_> = claim.mine.iter().copied().collect();
            for (key, vector) in self.vectors(&mine) {
                claim.land(key, &vector);
                found.insert(key, vector);
            }
            while !claim.mine.is_empty() {
                let part: Vec<_> = claim.mine.iter().take(KEPT_TEXTS_COUNT).copied().collect();
                match self.compute(embedder, texts, &part) {
                    Ok(embeddings) => land(&mut claim, embeddings, computed),
                    Err(error) => {
                        claim.fail(&error);
                        return Err(error);
                    }
                }
            }
            for (key, flight) in std::mem::take(&mut claim.others) {
                found.extend(flight.wait()?.map(|vector| (key, vector)));
            }
        }
    }

    fn compute(
        &self,
        embedder: &Embedder,
        texts: &HashMap<EmbeddingKey, &str>,
        keys: &[EmbeddingKey],
    ) -> Result<Vec<CachedEmbedding>> {
        let texts: Vec<&str> = keys.iter().map(|key| texts[key]).collect();
        let started = Instant::now();
        let embeddings = embedder.embed(&texts)?;
        let nanos = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.counters.computed.fetch_add(keys.len() as u64, Ordering::Relaxed);
        self.counters.compute_nanos.fetch_add(nanos, Ordering::Relaxed);
        let computed: Vec<CachedEmbedding> = keys
            .iter()
            .zip(embeddings)
            .map(|(key, embedding)| {
                let (vector, truncated) = (embedding.vector, embedding.truncated);
                CachedEmbedding { vector, hit: false, truncated, key: *key }
            })
            .collect();
        let vectors: Vec<(EmbeddingKey, &[f32])> =
            computed.iter().map(|embedding| (embedding.key, &embedding.vector[..])).collect();
        if let Err(error) = self.put(&vectors, &HashSet::new()) {
            // One that cannot be kept costs time later, nothing else. It does not become hot either:
            // what is hot is in RocksDB.
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(%error, cause, "embeddings are not kept and will be computed again");
        }
        Ok(computed)
    }
}

/// Hands on what was computed and kept.
fn land(
    claim: &mut Claim<'_>,
    embeddings: Vec<CachedEmbedding>,
    computed: &mut HashMap<EmbeddingKey, CachedEmbedding>,
) {
    for embedding in embeddings {
        claim.land(embedding.key, &embedding.vector);
        computed.insert(embedding.key, embedding);
    }
}
