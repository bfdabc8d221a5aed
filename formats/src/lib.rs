//! Bytes and text of Operation D-Bus, to values and back.
//!
//! This crate knows what stored and exchanged data looks like and nothing else:
//! it does no I/O, reads no clock, holds no lock and has no unsafe code.
//!
//! # Conventions
//! - Integers and floats are little-endian, and headers have no padding: each is
//!   a `#[repr(C)]` struct whose size and offsets are asserted at compile time.
//! - A *file* begins with a [`header::FileHeader`]: an 8-byte magic, the version
//!   of the format and two checksums. A *value*, which lives under a key in a
//!   family that already names its format, begins with a one-byte marker and a
//!   one-byte version; its checksum is seeded with the 8-byte magic of its format,
//!   so that a value of another format never passes for it.
//! - A version belongs to one format, never to the crate. A change of layout is a
//!   new version beside the old decoder.
//! - Tag 0 is invalid everywhere: zeroed bytes are never a value. Reserved bytes
//!   are zero and are checked.
//! - A decoder is total: any bytes give a value or an error. It never panics, and
//!   it allocates in proportion to the bytes given, never to a length read in them.
//!   Encodings are canonical: what decodes encodes back to the same bytes, compressed
//!   ones and [documents](document) apart. So a value is written in the oldest version
//!   that can say it.
//! - `encode` and `decode` speak bytes; `parse` and `render` speak text.
//!
//! Layout tables stand in the documentation of the modules and nowhere else.

#![forbid(unsafe_code)]

pub mod acknowledged;
pub mod arena_file;
pub mod calendar;
pub mod change;
pub mod collection;
pub mod document;
pub mod embedding;
mod error;
pub mod exchange;
pub mod filter;
pub mod graph_file;
pub mod header;
pub mod heat;
pub mod heat_block;
pub mod history;
pub mod introspection;
pub mod journal;
mod json;
pub mod manifest;
pub mod metrics_address;
pub mod mount_info;
pub mod note_file;
pub mod numa_list;
pub mod page;
pub mod plugin;
pub mod record;
pub mod semantic_mapping;
pub mod settings;
pub mod snapshot_file;
pub mod snapshot_stream;
mod spelling;
pub mod state_file;
pub mod store_file;
mod toml;
pub mod trace;

pub use change::{Change, Operation};
pub use collection::{
    CollectionId, CollectionName, CollectionNameError, CollectionSpec, Metric, ModelFingerprint,
};
pub use embedding::{EmbeddingKey, EncodedEmbedding, Encoding, Packing};
pub use error::{FormatError, TextError};
pub use filter::Filter;
pub use history::HistoryEntry;
pub use journal::{Actor, JournalEntry, JournalKind};
pub use metrics_address::{MetricsAddress, MetricsAddressError};
pub use mount_info::Mount;
pub use numa_list::NumaList;
pub use plugin::{Plugin, PluginName};
pub use record::{EmbeddingSource, Payload, Record};
pub use semantic_mapping::SemanticMapping;
pub use snapshot_file::SnapshotFile;
pub use state_file::StateFile;
pub use store_file::StoreFile;
pub use trace::{TraceStart, TracedAccess};
