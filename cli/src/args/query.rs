//! `query`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum};
use op_dbus_engine::LIMIT_MAX;

use super::At;

/// Find the records nearest in meaning to a text, or near to a record or a vector
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("target").required(true)))]
#[command(after_help = "\
Examples:
  op-dbus query \"restart the network\"
  op-dbus query \"compress a directory\" -k 3 --collection packages
  op-dbus query \"change the time zone\" --json | jq -r '.hits[].key'
  op-dbus query PowerOff --keyword
  op-dbus query --like tar --collection packages
  op-dbus query --vector vector.json --collection images --format table
  op-dbus query restart --filter 'service = \"org.freedesktop.login1\" and live'
  op-dbus query restart --filter 'kind in [\"method\"] and not risk = \"denied\"'
  op-dbus query \"a list\" --filter 'arguments.0.signature starts with \"a\"'

Filters:
  FIELD                  true if the field of the payload is; a.b, a.0 lead on
  FIELD = VALUE          also != < <= > >=
  FIELD in [VALUE, ...]  one of these
  FIELD contains VALUE   an item of a list, or a part of a text
  FIELD starts with TEXT, exists FIELD
  @key @collection @text of the record itself
  VALUE                  \"text\", 'text', a number, true, false or null
Conditions are joined by and, or, not and parentheses. What is of another
type is not true, and no error.")]
pub(crate) struct Query {
    /// What you are looking for, in your own words
    #[arg(value_name = "TEXT", group = "target")]
    pub(crate) text: Option<String>,
    /// Find what is like the record with this key, which is looked for in the collections searched
    #[arg(long, value_name = "KEY", group = "target")]
    pub(crate) like: Option<String>,
    /// Find what is near to the vector in this file, a JSON array, or - for standard input
    #[arg(long, value_name = "FILE|-", group = "target")]
    pub(crate) vector: Option<PathBuf>,
    /// How many records to show at most
    #[arg(short = 'k', long, value_name = "N", default_value_t = 10, value_parser = limit)]
    pub(crate) limit: usize,
    /// Collection to search; may be repeated [default: all]
    #[arg(long, short, value_name = "NAME")]
    pub(crate) collection: Vec<String>,
    /// Leave out records that score less (-1 to 1)
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true, value_parser = score)]
    pub(crate) min_score: Option<f32>,
    /// Find only records of which this is true, such as 'kind = "method" and live'
    #[arg(long, value_name = "FILTER")]
    pub(crate) filter: Option<String>,
    /// Look for the words of the text in keys and texts, too, as for names; the score then tells of both
    /// ranks: 1 is first by meaning and by words
    #[arg(long, conflicts_with_all = ["like", "vector", "min_score"])]
    pub(crate) keyword: bool,
    /// Find exactly the nearest, also in collections that have a graph
    #[arg(long, conflicts_with = "recall")]
    pub(crate) exact: bool,
    /// The part of the nearest to find in collections that have a graph, as far as their calibration
    /// tells
    #[arg(long, value_name = "PART", default_value_t = 0.99, value_parser = recall)]
    pub(crate) recall: f64,
    /// Say how it was found: plan, vectors compared and read, time of each stage
    #[arg(long)]
    pub(crate) explain: bool,
    /// How to write the answer
    #[arg(long, value_name = "FORMAT", default_value = "text", conflicts_with = "json")]
    pub(crate) format: AnswerFormat,
    #[command(flatten)]
    pub(crate) at: At,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AnswerFormat {
    /// Lines for people: of members of D-Bus interfaces what they do and how they are called
    Text,
    /// One line for each record, in columns
    Table,
    /// One JSON object, as --json
    Json,
    /// A JSON object for each record, on a line
    Jsonl,
}

pub(super) fn limit(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(limit) if (1..=LIMIT_MAX).contains(&limit) => Ok(limit),
        _ => Err(format!("it must be a number from 1 to {LIMIT_MAX}")),
    }
}

pub(super) fn recall(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(recall) if recall > 0.0 && recall <= 1.0 => Ok(recall),
        _ => Err("it must be a number above 0 and at most 1".to_owned()),
    }
}

fn score(text: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(score) if f32::is_finite(score) => Ok(score),
        _ => Err("it must be a number".to_owned()),
    }
}
