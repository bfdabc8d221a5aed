//! Records that come from files of other programs and go there.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use op_dbus_engine::Encoding;

use super::{At, Expiry, encoding};

/// Read records from a file in an exchange format, or from the cache of an earlier program
///
/// An import that was stopped, by Ctrl-C, by a kill or by a mistake in the file, goes on with the
/// same command: rows that are stored already, the same in every byte, are compared and not written
/// again. So it is also right if the file has changed, or records were removed or overwritten, in
/// between: afterwards the collection has what the file has. (With --expires-in, rows are written
/// again, because they expire later.)
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  op-dbus cache import records.jsonl --collection notes
  op-dbus cache import vectors.npy --collection images
  op-dbus cache import vectors.npy --keys keys.jsonl --collection images
  op-dbus cache import papers.parquet --key-column id --vector-column vec
  producer | op-dbus cache import - --collection notes --ack
  op-dbus cache import - --format npy < vectors.npy
  op-dbus cache import --from-sqlite @cache/embeddings/index.db

JSON lines have \"key\", and \"text\", \"vector\" or both, and may have a \"payload\"
and \"expires_at_unix_ms\", which counts more than --expires-in. The rows of
npy and fvecs files get their numbers, from 0, as keys, unless --keys has
others.

Parquet files have the columns key, text, vector, payload (JSON) and
expires_at, as `cache export` writes them; each may be missing. Keys are
strings or whole numbers, or else the rows' numbers; vectors are lists of
float, double or half, whatever their column is called if there is only one.
All other columns together are the payload, an object. Parquet has its index
at its end: a file can be named or be standard input (`< FILE`), a pipe
cannot.

Of a SQLite database, every table with the columns text_hash, text and
vector_file is read. vector_file names a .vec file, a Vec<f32> as bincode
writes it; the hash becomes the key.")]
pub(crate) struct CacheImport {
    /// The file, or - for standard input
    #[arg(value_name = "FILE|-", required_unless_present = "from_sqlite")]
    pub(crate) source: Option<PathBuf>,
    /// SQLite database of an earlier program's cache, which is only read
    #[arg(long, value_name = "FILE", conflicts_with_all = ["source", "format"])]
    pub(crate) from_sqlite: Option<PathBuf>,
    /// Folder of that cache's .vec files [default: that of the database, or vectors in it]
    #[arg(long, value_name = "DIR", requires = "from_sqlite")]
    pub(crate) vectors: Option<PathBuf>,
    /// Collection to put the records in [default: documents; legacy for --from-sqlite]
    #[arg(long, short, value_name = "NAME")]
    pub(crate) collection: Option<String>,
    /// How to read the source; told from the file name unless given, jsonl for standard input
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<ExchangeFormat>,
    /// Of npy and fvecs: file with the keys of the rows, as `cache export --keys` writes it
    #[arg(long, value_name = "FILE")]
    pub(crate) keys: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) columns: Columns,
    /// How a new collection stores the vectors given: f32, f16 or i8 [default: f32]
    #[arg(long, value_name = "ENCODING", value_parser = encoding)]
    pub(crate) encoding: Option<Encoding>,
    /// Print the key of each record, on a line of its own, once it is durable; control characters
    /// in it are escaped
    #[arg(long)]
    pub(crate) ack: bool,
    #[command(flatten)]
    pub(crate) expiry: Expiry,
}

/// Which columns of a Parquet file are what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub(crate) struct Columns {
    /// Of Parquet: the column that has the keys [default: key, or the row's number]
    #[arg(long, value_name = "NAME")]
    pub(crate) key_column: Option<String>,
    /// Of Parquet: the column that has the texts [default: text]
    #[arg(long, value_name = "NAME")]
    pub(crate) text_column: Option<String>,
    /// Of Parquet: the column that has the vectors [default: vector, or the only one of floats]
    #[arg(long, value_name = "NAME")]
    pub(crate) vector_column: Option<String>,
    /// Of Parquet: a column to leave out; may be given more than once
    #[arg(long, value_name = "NAME")]
    pub(crate) skip_column: Vec<String>,
}

/// Write the records of a collection to a file in an exchange format, in key order
///
/// What npy and fvecs have no place for is left out: they take vectors alone, given ones and those
/// of texts. The keys, in the same order, go to the file that --keys names.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  op-dbus cache export --collection notes > notes.jsonl
  op-dbus cache export --collection notes --output notes.parquet
  op-dbus cache export --collection images -o images.npy --keys keys.jsonl

The file is written under a name of its own and appears when it is whole. The
keys are a line each: a JSON string, or {\"key_base64\": ...} for a key that is
not UTF-8.

Parquet has the columns key, text, vector, payload (JSON) and expires_at;
keys and payloads that are bytes are in key_bytes and payload_bytes. Whatever
a record has not is null.")]
pub(crate) struct CacheExport {
    /// Collection to write
    #[arg(long, short, value_name = "NAME", default_value = "documents")]
    pub(crate) collection: String,
    /// How to write it; told from the file name unless given, jsonl for standard output
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<ExchangeFormat>,
    /// File to write, which must not exist; standard output unless given
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Of npy and fvecs: file to write the keys to, which must not exist
    #[arg(long, value_name = "FILE")]
    pub(crate) keys: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) at: At,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExchangeFormat {
    /// A JSON object on each line
    Jsonl,
    /// NumPy array of shape [rows, dimensions]
    Npy,
    /// Rows of a count and that many f32
    Fvecs,
    /// A table of Apache Parquet
    Parquet,
}
