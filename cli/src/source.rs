//! Who answers what a command asks: the store, opened here, or the service that has it open.

use op_dbus_daemon::{CacheProxy, QueryProxy, Traffic, record};
use op_dbus_engine::{
    Activity, CachedEmbedding, Error as EngineError, ErrorKind, Record, Stats, Store,
};
use serde::de::DeserializeOwned;

use crate::client::Client;
use crate::error::{Error, Result};

/// Who answers.
pub(crate) enum Source {
    /// The store itself, opened here.
    Store(Box<Store>),
    /// The service that has it open.
    Service(Client),
}

/// The embedding of a text, and where it is from.
pub(crate) struct Embedded {
    /// Name and fingerprint.
    pub(crate) model: (String, String),
    pub(crate) vector: Vec<f32>,
    /// Whether it was known.
    pub(crate) hit: bool,
    /// Whether the model saw only the beginning of the text, as far as that is known.
    pub(crate) truncated: bool,
}

impl Source {
    /// Saves what a store has learnt; a service goes on.
    pub(crate) fn close(self) {
        if let Self::Store(store) = self {
            store.close();
        }
    }

    /// The names of the collections that there are, and that may be read.
    pub(crate) fn collection_names(&self) -> Result<Vec<String>> {
        match self {
            Self::Store(store) => Ok(store.collections().into_iter().map(|it| it.name).collect()),
            Self::Service(client) => {
                client.ask(QueryProxy::builder, async |query| Ok(query.collections().await?))
            }
        }
    }

    /// Reads a record; `None` if there is no such record.
    pub(crate) fn get(&self, collection: &str, key: &str) -> Result<Option<Record>> {
        let client = match self {
            Self::Store(store) => return Ok(store.get(collection, key.as_bytes())?),
            Self::Service(client) => client,
        };
        let get = async |query: QueryProxy<'_>| query.get(collection.into(), key.into()).await;
        match client.ask(QueryProxy::builder, get) {
            // Of a record; that of a collection says what there is.
            Err(Error::Engine(error))
                if error.kind() == ErrorKind::NotFound
                    && self.collection_names()?.iter().any(|known| known == collection) =>
            {
                Ok(None)
            }
            fields => Ok(Some(record::of_fields(key, fields?).map_err(EngineError::from)?)),
        }
    }

    /// The embedding of a text, computed by the model if nobody knows it.
    pub(crate) fn embed(&self, text: &str) -> Result<Embedded> {
        let client = match self {
            Self::Store(store) => {
                let CachedEmbedding { vector, hit, truncated, .. } = store.embed(text)?;
                let model = store.embedder()?;
                let model = (model.name().to_owned(), model.fingerprint().to_string());
                return Ok(Embedded { model, vector, hit, truncated });
            }
            Self::Service(client) => client,
        };
        let told = client.ask(CacheProxy::builder, async |cache| {
            let model = cache.model().await?;
            let (vector, hit) = match cache.get(text.to_owned()).await.map_err(EngineError::from) {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    (cache.embed(vec![text.to_owned()]).await?.1, false)
                }
                known => (known?, true),
            };
            Ok((model, vector, hit))
        });
        let (model, vector, hit) = told?;
        let vector = vector.read().map_err(EngineError::from)?;
        // The service does not say what the model has not seen.
        Ok(Embedded { model, vector, hit, truncated: false })
    }

    /// Figures with all that is counted, and the calls of the service if that is asked.
    pub(crate) fn stats(&self) -> Result<(Stats, Option<Traffic>)> {
        match self {
            Self::Store(store) => Ok((store.stats()?, None)),
            Self::Service(client) => {
                let told = client.ask(QueryProxy::builder, async |query| query.stats().await)?;
                with_traffic(&told)
            }
        }
    }

    /// The figures that are known without counting.
    pub(crate) fn activity(&self) -> Result<(Activity, Option<Traffic>)> {
        match self {
            Self::Store(store) => Ok((store.activity(), None)),
            Self::Service(client) => {
                let told = client.ask(QueryProxy::builder, async |query| query.activity().await)?;
                with_traffic(&told)
            }
        }
    }
}

fn with_traffic<T: DeserializeOwned>(told: &str) -> Result<(T, Option<Traffic>)> {
    let (figures, traffic) = Traffic::parse(told).map_err(strange)?;
    Ok((figures, Some(traffic)))
}

/// Reads figures that the service has told.
pub(crate) fn parsed<T: DeserializeOwned>(told: &str) -> Result<T> {
    Ok(serde_json::from_str(told).map_err(strange)?)
}

fn strange(error: serde_json::Error) -> EngineError {
    let problem = "the service tells figures that this program does not know";
    EngineError::new(ErrorKind::Unsupported, problem)
        .with_source(error)
        .with_remedy("let both be of the same version")
}
