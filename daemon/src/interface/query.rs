//! `org.opdbus.Query1`: finding and reading records.

use std::collections::HashMap;
use std::sync::Arc;

use op_dbus_engine::{Answer, ErrorKind, NumaStats, Payload, Query as EngineQuery};
use serde_json::json;
use zbus::message::Header;
use zbus::{Connection, OwnedVariant, interface};

use super::Door;
use super::options::{self, Options};
use crate::error::{BusError, Result};
use crate::explained::Explained;
use crate::find::find;
use crate::gate::{Reader, blocking};
use crate::record;
use crate::vector::Vectors;

/// A record that was found: collection, key, score, text and payload (JSON, or nothing).
pub type Hit = (String, String, f64, String, String);

/// The interface.
pub(crate) struct Query(pub(crate) Door);

#[interface(
    name = "org.opdbus.Query1",
    proxy(default_service = "org.opdbus", default_path = "/org/opdbus", visibility = "pub")
)]
impl Query {
    /// Finds the records nearest in meaning to a text, best first.
    ///
    /// Options: limit (u), min-score (d), recall (d), exact (b), keyword (b), collections (as), filter
    /// (s). A hit is its collection, key, score, text and payload. A filter is a condition on the
    /// payload, such as: service = "org.freedesktop.login1" and live; only records of which it is true
    /// are found. With keyword, the words of keys and texts count, too, and the score, which has no
    /// min-score then, is 1 for what is first by meaning and by words, and 0.5 for what is by one.
    #[zbus(out_args("hits"))]
    async fn search(
        &self,
        text: String,
        options: Options,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<Hit>> {
        let reader = self.0.admit(header, connection).await?;
        let query = self.query(EngineQuery::text(text), &options, &reader).await?;
        Ok(hits(self.run(&reader, query).await?))
    }

    /// Finds the records nearest to a record, given as (ss) collection and key, which is not found
    /// itself, or to a vector, given as ad, ay (f32 in little-endian order) or h (a sealed memory file
    /// with the same).
    ///
    /// Options are those of Search without keyword, for which it takes a text.
    #[zbus(out_args("hits"))]
    async fn similar(
        &self,
        target: Vectors,
        options: Options,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<Hit>> {
        let reader = self.0.admit(header, connection).await?;
        let query = self.query(self.near(target, &reader).await?, &options, &reader).await?;
        Ok(hits(self.run(&reader, query).await?))
    }

    /// Reads a record: its text (s), payload (s, JSON, or ay), vector (ay or h) and when it expires
    /// (t, in milliseconds since 1970), each if it has one.
    #[zbus(out_args("record"))]
    async fn get(
        &self,
        collection: String,
        key: String,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<HashMap<String, OwnedVariant>> {
        let reader = self.0.admit(header, connection).await?;
        self.0.service.gate.require(&reader, &collection).await?;
        let store = Arc::clone(&self.0.service.store);
        let shown = format!("collection {collection} has no record {key}");
        let record = blocking(move || store.get(&collection, key.as_bytes())).await?;
        let record = record.ok_or_else(|| {
            BusError::new(ErrorKind::NotFound, shown, "see Search for what there is")
        })?;
        record::to_fields(record)
    }

    /// Finds as Search does for a text (s), or as Similar does, and says how: a JSON object with the
    /// plan, what was compared, how many records the filter was asked about, how many have words of the
    /// text, if they were looked for, and the microseconds of each stage.
    #[zbus(out_args("hits", "explain"))]
    async fn explain(
        &self,
        target: Vectors,
        options: Options,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(Vec<Hit>, String)> {
        let reader = self.0.admit(header, connection).await?;
        let query = match target {
            Vectors::OfText(text) => EngineQuery::text(text),
            target => self.near(target, &reader).await?,
        };
        let query = self.query(query, &options, &reader).await?;
        let answer = self.run(&reader, query).await?;
        let explain = json!(Explained::from(&answer.explain)).to_string();
        Ok((hits(answer), explain))
    }

    /// Measures the store and the service, without the collections that whoever asks may not read: the
    /// JSON object of `op-dbus stats --json`. Counts records and embeddings, which takes time.
    #[zbus(out_args("stats"))]
    async fn stats(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<String> {
        let reader = self.0.admit(header, connection).await?;
        let store = Arc::clone(&self.0.service.store);
        let mut stats = self.0.service.gate.compute(&reader, move || store.stats()).await?;
        stats.collections.retain(|collection| reader.may_read(&collection.name));
        keep_readable(&mut stats.numa, &reader);
        Ok(self.0.service.gate.traffic().beside(&stats))
    }

    /// Measures what is known without counting, as often as somebody wants to watch it: a JSON object
    /// with counters of lookups, queries, changes and calls, and where memory lies.
    #[zbus(out_args("activity"))]
    async fn activity(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<String> {
        let reader = self.0.admit(header, connection).await?;
        let store = Arc::clone(&self.0.service.store);
        let mut activity = blocking(move || Ok(store.activity())).await?;
        keep_readable(&mut activity.numa, &reader);
        Ok(self.0.service.gate.traffic().beside(&activity))
    }

    /// The collections that there are, and that whoever asks may read.
    #[zbus(property(emits_changed_signal = "false"))]
    async fn collections(
        &self,
        #[zbus(header)] header: Option<Header<'_>>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<String>> {
        let reader = self.0.admit_to_property(header, connection).await?;
        let mut names = self.0.service.collection_names();
        names.retain(|name| reader.may_read(name));
        Ok(names)
    }
}

impl Query {
    /// A query near to a record, which the reader has to be allowed to read, or to a vector.
    async fn near(&self, target: Vectors, reader: &Reader) -> Result<EngineQuery> {
        match target {
            Vectors::OfRecord(collection, key) => {
                self.0.service.gate.require(reader, &collection).await?;
                Ok(EngineQuery::like(collection, key))
            }
            vector => Ok(EngineQuery::vector(vector.read()?)),
        }
    }

    async fn query(
        &self,
        query: EngineQuery,
        options: &Options,
        reader: &Reader,
    ) -> Result<EngineQuery> {
        for name in options::collections(options)? {
            self.0.service.gate.require(reader, name).await?;
        }
        options::search(query, options, reader, || self.0.service.collection_names())
    }

    async fn run(&self, reader: &Reader, query: EngineQuery) -> Result<Answer> {
        let store = Arc::clone(&self.0.service.store);
        let search = move || {
            if query.needs_model() {
                Door::model(&store)?;
            }
            find(&store, &query)
        };
        self.0.service.gate.compute(reader, search).await
    }
}

/// Leaves out where the memory of collections lies that this reader may not read.
fn keep_readable(numa: &mut NumaStats, reader: &Reader) {
    numa.arenas.retain(|arena| arena.collection.as_ref().is_none_or(|name| reader.may_read(name)));
}

fn hits(answer: Answer) -> Vec<Hit> {
    let hit = |hit: op_dbus_engine::Hit| {
        let payload = match hit.payload {
            Payload::Json(json) => json.into_owned(),
            // Text has no place for bytes; Get gives them.
            Payload::None | Payload::Bytes(_) => String::new(),
        };
        let key = String::from_utf8_lossy(&hit.key).into_owned();
        (hit.collection, key, f64::from(hit.score), hit.text.unwrap_or_default(), payload)
    };
    answer.hits.into_iter().map(hit).collect()
}
