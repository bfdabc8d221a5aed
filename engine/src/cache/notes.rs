//! Notes beside the embeddings: what is known of models, figures, how far long work is.
//!
//! They make things faster or tell figures; none is needed.

use std::path::Path;

use op_dbus_formats::collection::ModelFingerprint;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::EmbeddingCache;
use crate::db::cache::CacheDatabase;
use crate::embed::KnownModel;
use crate::error::{Error, ErrorKind};

/// A [`KnownModel`] as it lies in the database.
#[derive(Serialize, Deserialize)]
struct SavedModel {
    files_identity: u128,
    fingerprint: [u8; 16],
    dimensions: Option<u32>,
}

impl EmbeddingCache {
    /// Reads a note that [`EmbeddingCache::put_note`] has kept.
    pub(crate) fn note<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        read_meta(&self.db, name)
    }

    /// Keeps a note for a later process; one that is lost costs time.
    pub(crate) fn put_note(&self, name: &str, note: &impl Serialize) {
        let written = serde_json::to_vec(note)
            .map_err(|error| Error::new(ErrorKind::Invalid, "it is no JSON").with_source(error))
            .and_then(|bytes| match self.db.database().is_written() {
                true => self.db.put_meta(name, &bytes),
                false => {
                    self.pending.add_note(name, bytes);
                    Ok(())
                }
            });
        if let Err(error) = written {
            tracing::warn!(name, %error, "cannot keep a note");
        }
    }

    /// What an earlier open learned about the model in this directory.
    pub(crate) fn known_model(&self, directory: &Path) -> Option<KnownModel> {
        let saved: SavedModel = read_meta(&self.db, &model_meta(directory))?;
        Some(KnownModel {
            files_identity: saved.files_identity,
            fingerprint: ModelFingerprint(saved.fingerprint),
            dimensions: saved.dimensions,
        })
    }

    pub(crate) fn put_known_model(&self, directory: &Path, known: &KnownModel) {
        let saved = SavedModel {
            files_identity: known.files_identity,
            fingerprint: known.fingerprint.0,
            dimensions: known.dimensions,
        };
        self.put_note(&model_meta(directory), &saved);
    }
}

fn model_meta(directory: &Path) -> String {
    format!("model {}", directory.display())
}

/// Notes make things faster or tell figures: one that cannot be read or kept is no failure.
pub(super) fn read_meta<T: DeserializeOwned>(db: &CacheDatabase, name: &str) -> Option<T> {
    let warn = |error: &dyn std::fmt::Display| tracing::warn!(name, %error, "cannot read a note");
    let bytes = db.meta(name).inspect_err(|error| warn(error)).ok()??;
    serde_json::from_slice(&bytes).inspect_err(|error| warn(error)).ok()
}
