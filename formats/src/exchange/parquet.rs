//! Parquet: tables with named columns, as pandas, polars, DuckDB and Arrow write them.
//!
//! | column | type | |
//! |---|---|---|
//! | `key` | string | null, if the key is not UTF-8 |
//! | `key_bytes` | binary | the key, if it is not UTF-8 |
//! | `text` | string | |
//! | `vector` | list of float | of fixed length for Arrow |
//! | `payload` | string, JSON | |
//! | `payload_bytes` | binary | the payload, if it is bytes |
//! | `expires_at` | timestamp, ms UTC | |
//!
//! So they are written; whatever has no value is null. What others write may have other columns
//! and types ([`ParquetColumns`]): keys that are whole numbers, or none, in which case the row's
//! number is the key; vectors of doubles or halves; any further columns, which make the payload.
//!
//! Columns are read as they lie in the file, where lists of fixed or of any length, short or large
//! strings and views of them are the same. Nothing is taken on trust: see `thrift` for what is
//! looked at before the parquet crate is. What it does not bear all the same, and panics at, is an
//! error like any other.

mod arrow_schema;
mod columns;
mod guard;
mod read;
mod thrift;
mod value;
mod write;

use thiserror::Error;

pub use columns::ParquetColumns;
pub use guard::{PAGE_LEN_MAX_BYTES, PAGE_VALUES_MAX};
pub use read::{ParquetReader, is_reading};
pub use write::ParquetWriter;

/// Longest description of a file's columns and row groups that is read.
pub const FOOTER_LEN_MAX_BYTES: u64 = 16 << 20;

/// Why a table cannot be read or written.
#[derive(Debug, Error)]
pub enum ParquetError {
    /// The bytes do not end as a table does.
    #[error("not a Parquet file, or cut off: it does not end with PAR1")]
    NotParquet,
    /// The table can be read with a key only.
    #[error("the file is encrypted: write it without encryption")]
    Encrypted,
    /// The description of the columns and row groups is wrong.
    #[error("the file's footer is wrong: {problem}")]
    Footer {
        /// What is wrong with it.
        problem: String,
    },
    /// A column is missing, or is not what it is wanted for.
    #[error("column {column}: {problem}")]
    Column {
        /// Its name.
        column: String,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// Nothing in the table makes a record.
    #[error("no column has vectors, texts or anything else to store")]
    NoColumns,
    /// The bytes of a column are wrong.
    #[error("row group {row_group}, column {column}: {problem}")]
    Content {
        /// Counted from 0.
        row_group: usize,
        /// Its name.
        column: String,
        /// What is wrong.
        problem: String,
    },
    /// A value cannot be stored.
    #[error("row {row}, column {column}: {problem}")]
    Value {
        /// Counted from 0.
        row: u64,
        /// The column's name.
        column: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A row has nothing to store.
    #[error("row {row} has neither text nor vector nor anything else beside its key")]
    EmptyRow {
        /// Counted from 0.
        row: u64,
    },
    /// A table cannot hold a record.
    #[error("record {key} cannot be written to a table: {problem}")]
    Record {
        /// Its key.
        key: String,
        /// Why not.
        problem: String,
    },
    /// The output refused.
    #[error("cannot write: {0}")]
    Write(#[source] std::io::Error),
}
