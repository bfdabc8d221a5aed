//! A record as callers give and get it, and what makes one acceptable.

use op_dbus_formats::FormatError;
use op_dbus_formats::record::{
    KEY_LEN_MAX_BYTES, PAYLOAD_LEN_MAX_BYTES, Payload, TEXT_LEN_MAX_BYTES,
};

use crate::error::{Error, ErrorKind, Result};

/// A named thing in a collection: data, words, and where it lies in the embedding space.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its name in the collection: 1 to 4,096 bytes.
    pub key: Vec<u8>,
    /// Its words. Without a vector, the store's model turns them into one.
    pub text: Option<String>,
    /// The caller's own embedding, kept exactly. Shape: `[dimensions]` of the collection.
    pub vector: Option<Vec<f32>>,
    /// Whatever the caller wants back with it.
    pub payload: Payload<'static>,
    /// When it stops to exist, in milliseconds since 1970-01-01 UTC. From then on nothing finds it.
    pub expires_at_unix_ms: Option<u64>,
}

impl Record {
    /// About how many bytes of a database this takes.
    pub(crate) fn stored_bytes(&self) -> u64 {
        let payload = match &self.payload {
            Payload::None => 0,
            Payload::Json(json) => json.len(),
            Payload::Bytes(bytes) => bytes.len(),
        };
        let text = self.text.as_ref().map_or(0, String::len);
        let vector = self.vector.as_ref().map_or(0, |vector| size_of_val(&vector[..]));
        (2 * self.key.len() + payload + text + vector) as u64
    }

    /// Creates a record with a key and nothing else.
    #[must_use]
    pub fn new(key: impl Into<Vec<u8>>) -> Self {
        Self {
            key: key.into(),
            text: None,
            vector: None,
            payload: Payload::None,
            expires_at_unix_ms: None,
        }
    }

    /// Sets the words.
    #[must_use]
    pub fn with_text(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// Sets the caller's embedding.
    #[must_use]
    pub fn with_vector(mut self, vector: impl Into<Vec<f32>>) -> Self {
        self.vector = Some(vector.into());
        self
    }

    /// Sets the payload.
    #[must_use]
    pub fn with_payload(mut self, payload: Payload<'static>) -> Self {
        self.payload = payload;
        self
    }

    /// Sets when the record stops to exist, in milliseconds since 1970-01-01 UTC.
    #[must_use]
    pub fn with_expiry(mut self, unix_ms: u64) -> Self {
        self.expires_at_unix_ms = Some(unix_ms);
        self
    }

    /// The key as a person reads it.
    pub(crate) fn display_key(&self) -> String {
        String::from_utf8_lossy(&self.key).into_owned()
    }

    /// The error for a record that a format cannot hold.
    pub(crate) fn unfit(&self, error: FormatError) -> Error {
        Error::new(ErrorKind::Invalid, format!("record {} cannot be stored", self.display_key()))
            .with_source(error)
            .with_remedy("correct the record")
    }

    /// Refuses what no collection can hold, vectors apart: those are checked when they are encoded.
    pub(crate) fn validate(&self) -> Result<()> {
        validate_key(&self.key)?;
        let invalid = |text: String| {
            let context = format!("record {}: {text}", self.display_key());
            Err(Error::new(ErrorKind::Invalid, context).with_remedy("correct the record"))
        };
        if let Some(text) = &self.text
            && text.len() > TEXT_LEN_MAX_BYTES
        {
            let len = text.len();
            return invalid(format!("the text has {len} bytes, more than {TEXT_LEN_MAX_BYTES}"));
        }
        let payload_bytes = match &self.payload {
            Payload::None => 0,
            Payload::Bytes(bytes) => bytes.len(),
            Payload::Json(json) => {
                if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(json) {
                    return invalid(format!("the payload is not JSON: {error}"));
                }
                json.len()
            }
        };
        if let Err(error) = self.payload.check_depth() {
            return invalid(error.to_string());
        }
        if payload_bytes > PAYLOAD_LEN_MAX_BYTES {
            return invalid(format!(
                "the payload has {payload_bytes} bytes, more than {PAYLOAD_LEN_MAX_BYTES}"
            ));
        }
        Ok(())
    }
}

/// Whether a record that expires then has stopped to exist.
pub(crate) fn is_past(expires_at_unix_ms: Option<u64>, now_unix_ms: u64) -> bool {
    expires_at_unix_ms.is_some_and(|at| at <= now_unix_ms)
}

/// Refuses keys that are empty or too long.
pub(crate) fn validate_key(key: &[u8]) -> Result<()> {
    if (1..=KEY_LEN_MAX_BYTES).contains(&key.len()) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Invalid,
        format!("a key of {} bytes: it must have 1 to {KEY_LEN_MAX_BYTES}", key.len()),
    )
    .with_remedy("use another key"))
}
