//! The arguments of the commands about models, and collections embedded by them.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum Model {
    /// List the models in the store, of the user and of the system
    #[command(after_help = "Example:\n  op-dbus model list")]
    List,
    /// Show what a model takes and gives, and its fingerprint
    #[command(after_help = "\
Examples:
  op-dbus model show
  op-dbus model show all-MiniLM-L6-v2 --json | jq -r .fingerprint")]
    Show(ModelNamed),
    /// Read every file of a model, compare it with its pinned hash, and embed a text
    ///
    /// The exit code is 7 if a file is not as it was pinned.
    #[command(after_help = "Example:\n  op-dbus model verify all-MiniLM-L6-v2")]
    Verify(ModelNamed),
    Install(ModelInstall),
    Quantize(ModelQuantize),
}

#[derive(Debug, Args)]
pub(crate) struct ModelNamed {
    /// Name of an installed model, or its directory; the one in use unless given
    #[arg(value_name = "NAME|DIR")]
    pub(crate) named: Option<String>,
}

/// Copy a model into the user's data directory and pin the hashes of its files
///
/// It is opened and embeds a text before it gets its name; one that takes data from outside its
/// directory, is cut off or too large is refused. SHA256SUMS, which sha256sum --check reads, too,
/// says what its files were.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  op-dbus model install ./bge-small-en-v1.5
  op-dbus model install ./download --name minilm --sums SHA256SUMS")]
pub(crate) struct ModelInstall {
    /// Directory with model.onnx and tokenizer.json
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// Name it gets; that of the directory unless given
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Hashes that its files must have, as sha256sum writes them
    #[arg(long, value_name = "FILE")]
    pub(crate) sums: Option<PathBuf>,
}

/// Make a model of 8 bits: a quarter of the size, faster, and nearly the same vectors
///
/// Both models embed the same texts, which shows how near their vectors are and how much faster it
/// is; one that becomes too different is not kept. It is another model: texts in a collection get its
/// vectors by op-dbus collection reembed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  op-dbus model quantize
  op-dbus model quantize all-MiniLM-L6-v2 --name minilm-int8 --texts my.txt")]
pub(crate) struct ModelQuantize {
    /// Name of an installed model, or its directory; the one in use unless given
    #[arg(value_name = "NAME|DIR")]
    pub(crate) named: Option<String>,
    /// Name the new model gets; that of the model and -int8 unless given
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Texts to compare by, one in each line; lines of this program's help unless given
    #[arg(long, value_name = "FILE")]
    pub(crate) texts: Option<PathBuf>,
}
