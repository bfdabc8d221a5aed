//! `collection`.

use clap::{Args, Subcommand};
use op_dbus_engine::{Encoding, Metric};

use super::encoding;

#[derive(Debug, Subcommand)]
pub(crate) enum Collection {
    /// List the collections: how many records each has, and what their vectors are
    #[command(after_help = "\
Examples:
  op-dbus collection list
  op-dbus collection list --json | jq -r '.collections[].name'")]
    List,
    /// Show what a collection is
    #[command(after_help = "Example:\n  op-dbus collection show packages")]
    Show(CollectionNamed),
    Create(CollectionCreate),
    Drop(CollectionDrop),
    Reembed(Reembed),
}

#[derive(Debug, Args)]
pub(crate) struct CollectionNamed {
    /// Collection
    #[arg(value_name = "COLLECTION")]
    pub(crate) collection: String,
}

/// Make a collection before there are records to put into it
///
/// Unless told otherwise it takes what its first record has: texts for the model, or vectors of some
/// length. One that exists and is as asked for is left as it is.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  op-dbus collection create notes --of-model
  op-dbus collection create images --dimensions 512 --metric dot --encoding i8
  op-dbus collection create hosts --versions 20")]
pub(crate) struct CollectionCreate {
    /// Collection
    #[arg(value_name = "COLLECTION")]
    pub(crate) collection: String,
    /// For texts, which the model that --model names makes vectors of
    #[arg(long, conflicts_with = "dimensions")]
    pub(crate) of_model: bool,
    /// For vectors of so many elements, which records are put with
    #[arg(long, value_name = "N")]
    pub(crate) dimensions: Option<u32>,
    /// How nearness of vectors is measured: cosine, euclidean or dot
    #[arg(long, value_name = "METRIC", value_parser = super::benchmark::metric, requires = "dimensions",
          default_value = "cosine")]
    pub(crate) metric: Metric,
    /// How vectors are stored: f32, f16 or i8
    #[arg(long, value_name = "ENCODING", value_parser = encoding, requires = "dimensions",
          default_value = "f32")]
    pub(crate) encoding: Encoding,
    /// How many versions of each record are kept [default: 10 of collection state, none of others]
    #[arg(long, value_name = "N")]
    pub(crate) versions: Option<u16>,
}

/// Remove a collection with all its records and their versions, for good
///
/// Snapshots that were taken before still have it. Ctrl-C stops in between: the same command goes on
/// from there.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  op-dbus snapshot create --reason \"before packages go\" --keep
  op-dbus collection drop packages --confirm")]
pub(crate) struct CollectionDrop {
    /// Collection
    #[arg(value_name = "COLLECTION")]
    pub(crate) collection: String,
    /// Confirm that its records are removed
    #[arg(long)]
    pub(crate) confirm: bool,
}

/// Give the texts of a collection vectors by another model, the one that --model names
///
/// Nothing is changed until all texts are embedded, and then everything at once. Ctrl-C loses
/// nothing that was computed: the same command goes on from there.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  op-dbus collection reembed packages --model /srv/models/bge-small-en-v1.5")]
pub(crate) struct Reembed {
    /// Collection
    #[arg(value_name = "COLLECTION")]
    pub(crate) collection: String,
}
