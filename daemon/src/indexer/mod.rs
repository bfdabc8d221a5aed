//! What can be asked about without anybody having put it in: interfaces of services, plugins,
//! documents of the state, and the journal, each in a collection of its own that follows what it is
//! made from.
//!
//! Services are asked on a connection of its own, one after the other, and believed as far as the
//! bounds of [`walk`] and the rule of [`claim`] go. What has not changed is neither embedded nor
//! written again. Nothing here answers clients, and nothing that fails here ends the service.

mod catalog;
mod claim;
mod describe;
mod interfaces;
mod journal;
mod live;
mod members;
mod plugins;
mod secrets;
mod state;
mod walk;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::config::{Bus, DaemonConfig};
use crate::service::{Changes, Service};

use writer::Writer;

/// The collection of what the journal says.
pub(crate) const JOURNAL_COLLECTION: &str = "journal";
/// The collection of what documents of the state say, in words.
pub(crate) const STATE_INDEX_COLLECTION: &str = "state-index";
/// The collection of plugins.
const PLUGINS_COLLECTION: &str = "plugins";

/// What indexing needs to know.
struct Indexer {
    service: Arc<Service>,
    writer: Writer,
    bus: Bus,
    interfaces: Vec<PathBuf>,
    is_live: bool,
    delay: Duration,
}

/// Starts to index, in tasks that end when they are told to.
pub(crate) fn start(
    tasks: &mut JoinSet<()>,
    service: &Arc<Service>,
    config: &DaemonConfig,
    changes: Changes,
) {
    let indexer = Arc::new(Indexer {
        service: Arc::clone(service),
        writer: Writer::new(Arc::clone(&service.store)),
        bus: config.bus.clone(),
        interfaces: config.interfaces.clone(),
        is_live: config.is_indexing_live,
        delay: config.index_delay,
    });
    tasks.spawn(interfaces::follow(Arc::clone(&indexer)));
    tasks.spawn(state::follow(Arc::clone(&indexer), changes));
    tasks.spawn(journal::follow(indexer));
}

/// The beginning of a text, cut where a character ends.
fn beginning(text: &str, len_max_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(len_max_bytes)]
}
