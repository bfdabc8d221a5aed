//! The arguments of the commands about single records: put, get, history, remove.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{ArgGroup, Args};
use op_dbus_engine::STATE_COLLECTION;

use super::At;

/// Put a document under a key, from a file, from standard input or from the command line
///
/// The collection "state" keeps the last ten versions of each document: see op-dbus history. The
/// first record with a text, in any collection, needs the embedding model; documents alone do not.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("content").required(true).multiple(true),
    after_help = "\
Examples:
  op-dbus put hosts/web1 web1.json
  op-dbus put hosts/web1 --payload '{\"role\":\"proxy\"}' --text \"in front\"
  lsblk --json | op-dbus put disks - --expires-in 1h"
)]
pub(crate) struct Put {
    /// The key
    #[arg(value_name = "KEY")]
    pub(crate) key: String,
    /// File with the document as JSON, which is kept as it is in every byte, or - for standard
    /// input
    #[arg(value_name = "FILE|-", group = "content")]
    pub(crate) file: Option<PathBuf>,
    /// The document itself, as JSON
    #[arg(long, value_name = "JSON", group = "content", conflicts_with = "file")]
    pub(crate) payload: Option<String>,
    /// What is in the file is bytes of any kind
    #[arg(long, requires = "file", conflicts_with = "payload")]
    pub(crate) bytes: bool,
    /// Words that the document is found by
    #[arg(long, value_name = "TEXT", group = "content")]
    pub(crate) text: Option<String>,
    /// Collection to put it in
    #[arg(long, short, value_name = "NAME", default_value = STATE_COLLECTION)]
    pub(crate) collection: String,
    #[command(flatten)]
    pub(crate) expiry: Expiry,
}

/// When records stop to exist.
#[derive(Debug, Args)]
pub(crate) struct Expiry {
    /// Let what is written stop to exist after this time: 30s, 15m, 1h, 7d or 2w
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) expires_in: Option<Duration>,
}

impl Expiry {
    /// The moment, counted from now.
    pub(crate) fn at_unix_ms(&self) -> Option<u64> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at = now.saturating_add(self.expires_in?);
        Some(u64::try_from(at.as_millis()).unwrap_or(u64::MAX))
    }
}

/// Write the document under a key to standard output, in every byte as it was put
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  op-dbus get hosts/web1 | jq .role
  op-dbus get hosts/web1 --at-version 17
  op-dbus get hosts/web1 --at 2026-11-26
  op-dbus get hosts/web1 --json

With --json it is the record, key and text included, in the format of op-dbus
cache export.")]
pub(crate) struct Get {
    /// The key
    #[arg(value_name = "KEY")]
    pub(crate) key: String,
    /// Collection to look in
    #[arg(long, short, value_name = "NAME", default_value = STATE_COLLECTION)]
    pub(crate) collection: String,
    /// The document as it was in this version: see op-dbus history
    #[arg(long, value_name = "N")]
    pub(crate) at_version: Option<u64>,
    #[command(flatten)]
    pub(crate) at: At,
}

/// Show the versions of a document that are kept, newest first
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  op-dbus history hosts/web1
  op-dbus history hosts/web1 --json | jq '.versions[0].number'")]
pub(crate) struct History {
    /// The key
    #[arg(value_name = "KEY")]
    pub(crate) key: String,
    /// Collection to look in
    #[arg(long, short, value_name = "NAME", default_value = STATE_COLLECTION)]
    pub(crate) collection: String,
    #[command(flatten)]
    pub(crate) at: At,
}

/// Remove the record under a key; earlier versions that are kept stay
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  op-dbus remove hosts/web1")]
pub(crate) struct Remove {
    /// The key
    #[arg(value_name = "KEY")]
    pub(crate) key: String,
    /// Collection to look in
    #[arg(long, short, value_name = "NAME", default_value = STATE_COLLECTION)]
    pub(crate) collection: String,
}

/// Parses a number and its unit.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let wrong = || "it must be a number and a unit, such as 30s, 15m, 1h, 7d or 2w".to_owned();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?);
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        "w" => 7 * 24 * 60 * 60,
        _ => return Err(wrong()),
    };
    match number.parse::<u64>() {
        Ok(0) => Err("it must be more than nothing".to_owned()),
        // Milliseconds are what is stored.
        Ok(number) => number
            .checked_mul(seconds)
            .filter(|seconds| *seconds <= u64::MAX / 2000)
            .map(Duration::from_secs)
            .ok_or_else(|| "it is too long".to_owned()),
        Err(_) => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        let seconds = |text: &str| time(text).map(|time| time.as_secs());
        let cases = [("30s", 30), ("15m", 900), ("1h", 3600), ("7d", 604_800), ("2w", 1_209_600)];
        for (text, expected) in cases {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for text in ["", "1", "h", "0s", "-1s", "1.5h", "1H", "1 h", "1h30m", "9999999999999999w"] {
            assert!(seconds(text).is_err(), "{text:?}");
        }
    }
}
