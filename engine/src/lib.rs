//! An embedded vector-and-state storage engine.
//!
//! A [`Store`] keeps named records in collections. A record has a payload, and may have words and
//! a place in an embedding space; the store turns words into such a place itself, with a model of
//! the caller's choice. Records are found by key, in key order, or by meaning ([`Query`]); they may
//! expire, and a collection may keep earlier versions of them.
//!
//! ```no_run
//! use op_dbus_engine::{EmbedderConfig, Query, Record, Store, StoreConfig};
//!
//! # fn main() -> op_dbus_engine::Result<()> {
//! let config = StoreConfig::new("notes").with_embedder(EmbedderConfig::new("all-MiniLM-L6-v2"));
//! let store = Store::open(config)?;
//! store.put("notes", &Record::new("tar").with_text("pack a directory into one file"))?;
//! let answer = store.search(&Query::text("archive a folder"))?;
//! assert_eq!(answer.hits[0].key, b"tar");
//! store.close();
//! # Ok(())
//! # }
//! ```
//!
//! # What holds
//! - A write that returned is on the disk: one RocksDB batch in `@state`, its log synced. Nothing
//!   else is needed to recover it.
//! - What lies in `@cache` can be deleted at any time: embeddings of texts are computed again.
//! - After a failed write the store is poisoned: reads go on, writes are refused until it is
//!   opened again.
//! - Puts are refused before the disk is full, with nothing written. On a full disk reads go on,
//!   and removals too: a ballast of 64 MiB is given up for them, and taken back later.
//! - One process has a store open at a time; the lock is the kernel's and dies with the process.
//!
//! The engine is synchronous, prints nothing and knows no D-Bus. All of it is `Send + Sync`:
//! share a store between threads by reference.

mod arena;
mod cache;
mod db;
pub mod distance;
mod embed;
mod error;
mod heat;
mod index;
mod journal;
#[cfg(feature = "keyword")]
mod keyword;
mod layout;
mod os;
mod pages;
mod query;
mod record;
mod segment;
mod snapshot;
mod store;
mod tier;

pub use arena::{NumaConfig, NumaPolicy};
pub use cache::{CacheActivity, CacheStats, CachedEmbedding, Removed};
pub use embed::{
    Embedder, EmbedderConfig, Embedding, KnownModel, ModelAlone, ModelFile, ModelOutline, Provider,
    QuantizedModel, forbid_telemetry,
};
pub use error::{Error, ErrorKind, Result};
pub use index::{
    DenseVectors, FullVectors, GraphFilter, GraphIndex, GraphOptions, GraphSearch, Neighbour,
    Profile, SearchCounts, SearchOptions, SearchPlan, VectorBuffer, VertexSet,
};
pub use journal::{JournalActor, JournalHead, JournalNote, JournalRecord};
pub use layout::StorePart;
pub use op_dbus_formats::change::Operation;
pub use op_dbus_formats::collection::{Metric, ModelFingerprint};
pub use op_dbus_formats::embedding::Encoding;
pub use op_dbus_formats::filter::Filter;
pub use op_dbus_formats::journal::JournalKind;
pub use op_dbus_formats::numa_list::NumaList;
pub use op_dbus_formats::record::Payload;
pub use op_dbus_formats::trace::TracedAccess;
pub use query::{
    Answer, CollectionExplain, Explain, FilterExplain, FilterPlan, Hit, KeywordExplain, LIMIT_MAX,
    Plan, Query,
};
pub use record::Record;
pub use snapshot::{
    Period, Retention, SendOptions, SnapshotInfo, SnapshotSize, Snapshots, Transfer,
    TransferProgress,
};
pub use store::{
    Activity, ArenaResidency, Change, CollectionInfo, CollectionOptions, CollectionStats,
    Compressor, Difference, Differences, DropProgress, Fault, GraphStats, LayoutReport,
    LinkOptions, MemoryCap, MountCompression, NumaNode, NumaStats, PartKind, PartReport, PutReport,
    QueryStats, RecallStats, ReembedProgress, Reembedded, STATE_COLLECTION, STATE_VERSIONS_KEPT,
    Scan, ScrubOptions, ScrubProgress, ScrubReport, Stats, Store, StoreConfig, Vector, Vectors,
    Version, Watch, WordsStats, WriteStats, examine_layout, migrate_layout, numa_nodes,
    request_compression, store_address,
};
pub use tier::{
    Evictions, PolicyKind, SimulationReport, TierStats, TraceReport, read_trace, simulate,
};
