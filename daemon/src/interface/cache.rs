//! `org.opdbus.Cache1`: embeddings of texts.

use std::sync::Arc;
use std::time::Duration;

use op_dbus_engine::{CacheStats, ErrorKind, Store};
use serde_json::json;
use zbus::message::Header;
use zbus::{Connection, interface};

use super::Door;
use crate::authority::Action;
use crate::error::{BusError, Result};
use crate::gate::{Request, blocking};
use crate::vector::Vectors;

/// The most texts of one call.
const TEXTS_COUNT_MAX: usize = 10_000;

/// The interface.
pub(crate) struct Cache(pub(crate) Door);

#[interface(
    name = "org.opdbus.Cache1",
    proxy(default_service = "org.opdbus", default_path = "/org/opdbus", visibility = "pub")
)]
impl Cache {
    /// Turns texts into vectors, from the cache or by the model; one after the other, as ay (f32 in
    /// little-endian order) or, above 64 KiB, as h (a sealed memory file).
    #[zbus(out_args("dimensions", "vectors"))]
    async fn embed(
        &self,
        texts: Vec<String>,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(u32, Vectors)> {
        let _reader = self.0.admit(header, connection).await?;
        if texts.len() > TEXTS_COUNT_MAX {
            let problem = format!("{} texts are more than {TEXTS_COUNT_MAX}", texts.len());
            return Err(BusError::new(ErrorKind::Invalid, problem, "embed fewer at once"));
        }
        let store = Arc::clone(&self.0.service.store);
        let embedded = blocking(move || {
            let dimensions = Door::model(&store)?.dimensions()?;
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let embedded = store.embed_all(&texts)?;
            let vectors: Vec<f32> =
                embedded.into_iter().flat_map(|embedding| embedding.vector).collect();
            Ok((dimensions, vectors))
        });
        let (dimensions, vectors) = embedded.await?;
        Ok((dimensions, Vectors::new(&vectors)?))
    }

    /// Returns the vector of a text if it is known, without computing it.
    #[zbus(out_args("vector"))]
    async fn get(
        &self,
        text: String,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vectors> {
        let _reader = self.0.admit(header, connection).await?;
        // Not on a thread of its own: most are in memory, and the rest is one short read.
        let store = &self.0.service.store;
        Door::model(store)?;
        match store.embedding(&text)? {
            Some(vector) => Vectors::new(&vector),
            None => {
                let problem = "the cache has no embedding of this text";
                Err(BusError::new(ErrorKind::NotFound, problem, "let Embed compute it"))
            }
        }
    }

    /// Puts a vector that the same model has made elsewhere, as ad, ay or h.
    #[zbus(proxy(allow_interactive_auth))]
    async fn put(
        &self,
        text: String,
        vector: Vectors,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<()> {
        let vector = vector.read()?;
        let details = json!({ "text_bytes": text.len() });
        let request = Request { action: Action::Cache, what: "put an embedding".into(), details };
        let call = self.0.call(header, connection);
        let put = self.0.service.gate.perform(&call, request, move |store| {
            Door::model(store)?;
            store.put_embedding(&text, &vector)
        });
        put.await
    }

    /// Removes embeddings that were written so many seconds ago or earlier; returns how many, and their
    /// bytes.
    #[zbus(proxy(allow_interactive_auth), out_args("removed", "bytes"))]
    async fn evict(
        &self,
        older_than_s: u64,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(u64, u64)> {
        let details = json!({ "older_than_s": older_than_s });
        let request = Request { action: Action::Cache, what: "evict embeddings".into(), details };
        let call = self.0.call(header, connection);
        let evicted = self.0.service.gate.perform(&call, request, move |store| {
            store.clean_cache(Duration::from_secs(older_than_s))
        });
        let evicted = evicted.await?;
        Ok((evicted.embeddings, evicted.bytes))
    }

    /// Removes all embeddings of texts, which are computed again when they are needed; returns how many,
    /// and the bytes that the disk got back.
    #[zbus(proxy(allow_interactive_auth), out_args("removed", "bytes_freed"))]
    async fn clear(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(u64, u64)> {
        let request =
            Request { action: Action::Cache, what: "clear the cache".into(), details: json!({}) };
        let call = self.0.call(header, connection);
        let clear = |store: &Store| {
            let before = store.cache_stats()?;
            store.clear_cache()?;
            let freed = before.bytes_disk.saturating_sub(store.cache_stats()?.bytes_disk);
            Ok((before.embeddings, freed))
        };
        self.0.service.gate.perform(&call, request, clear).await
    }

    /// The model that makes the embeddings: its name and its fingerprint.
    #[zbus(property(emits_changed_signal = "false"))]
    async fn model(
        &self,
        #[zbus(header)] header: Option<Header<'_>>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(String, String)> {
        self.0.admit_to_property(header, connection).await?;
        let store = Arc::clone(&self.0.service.store);
        blocking(move || {
            let model = Door::model(&store)?;
            Ok((model.name().to_owned(), model.fingerprint().to_string()))
        })
        .await
    }

    /// Embeddings in the cache.
    #[zbus(property(emits_changed_signal = "false"))]
    async fn embeddings(
        &self,
        #[zbus(header)] header: Option<Header<'_>>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<u64> {
        Ok(self.stats(header, connection).await?.embeddings)
    }

    /// The part of lookups that found what they looked for, from 0 to 1; -1 without any.
    #[zbus(property(emits_changed_signal = "false"))]
    async fn hit_rate(
        &self,
        #[zbus(header)] header: Option<Header<'_>>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<f64> {
        Ok(self.stats(header, connection).await?.hit_rate.unwrap_or(-1.0))
    }

    /// Bytes that the cache takes on the disk.
    #[zbus(property(emits_changed_signal = "false"))]
    async fn disk_bytes(
        &self,
        #[zbus(header)] header: Option<Header<'_>>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<u64> {
        Ok(self.stats(header, connection).await?.bytes_disk)
    }

    /// Bytes that the cache takes in memory.
    #[zbus(property(emits_changed_signal = "false"))]
    async fn memory_bytes(
        &self,
        #[zbus(header)] header: Option<Header<'_>>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<u64> {
        let stats = self.stats(header, connection).await?;
        Ok(stats.bytes_memory + stats.tier.memory_bytes)
    }

    /// All figures of the cache, as JSON.
    #[zbus(property(emits_changed_signal = "false"))]
    async fn statistics(
        &self,
        #[zbus(header)] header: Option<Header<'_>>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<String> {
        Ok(json!(self.stats(header, connection).await?).to_string())
    }
}

impl Cache {
    async fn stats(
        &self,
        header: Option<Header<'_>>,
        connection: &Connection,
    ) -> Result<CacheStats> {
        self.0.admit_to_property(header, connection).await?;
        let store = Arc::clone(&self.0.service.store);
        blocking(move || store.cache_stats()).await
    }
}
