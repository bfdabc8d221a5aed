//! The model without anything around it: what embedding would take if the rest took nothing.

use std::time::Duration;

use super::model::Model;
use super::session::Session;
use crate::error::Result;

/// A model that is loaded once more, to be run on ready tokens.
pub struct ModelAlone {
    session: Session,
    model: Model,
}

impl ModelAlone {
    pub(super) fn new(session: Session, model: Model) -> Self {
        Self { session, model }
    }

    /// Runs the model on one text of so many tokens, special tokens included; returns how long the
    /// runtime took.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] if there are more of them than the model can see.
    pub fn run(&mut self, tokens_count: usize) -> Result<Duration> {
        self.session.run_alone(&self.model, tokens_count)
    }
}

impl std::fmt::Debug for ModelAlone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelAlone").field("model", &self.model.name()).finish_non_exhaustive()
    }
}
