//! Copying a graph out of its file to where hot memory is to lie. Searches go on in the file meanwhile,
//! and so do commits.

use std::sync::Arc;

use super::super::collection::Collection;
use super::super::lock;
use super::GraphSlot;
use crate::error::Result;

impl GraphSlot {
    /// Returns when the graph lies where it is to lie.
    pub(in super::super) fn wait_until_placed(&self) {
        if let Some(placing) = lock(&self.placing).take() {
            // It panics only by a defect, which its own message has told.
            let _ = placing.join();
        }
    }
}

/// Copies the graph of a collection on a thread of its own, if it lies in its file.
pub(super) fn place_beside_searches(collection: &Arc<Collection>) {
    let placed = Arc::clone(collection);
    let spawned = std::thread::Builder::new().name("op-dbus-place".to_owned()).spawn(move || {
        placed.graph.read().as_ref().inspect(|graph| graph.index.placement().settle_thread());
        if let Err(error) = place(&placed.graph) {
            tracing::warn!(collection = %placed.name, %error, "its graph stays in its file");
        }
    });
    match spawned {
        Ok(placing) => *lock(&collection.graph.placing) = Some(placing),
        Err(error) => tracing::warn!(%error, "cannot start a thread; a graph stays in its file"),
    }
}

fn place(slot: &GraphSlot) -> Result<()> {
    let attached = slot.read().as_ref().and_then(|graph| {
        let attached = graph.index.attached()?;
        Some((graph.identity, attached))
    });
    let Some((identity, attached)) = attached else { return Ok(()) };
    let detached = attached.copy()?;
    let _changing = lock(&slot.changing);
    if let Some(graph) = &mut *slot.write()
        // A commit may have copied it, or another graph come in its place.
        && graph.identity == identity
        && graph.index.attached().is_some()
    {
        graph.index.go_on_with(detached);
    }
    Ok(())
}
