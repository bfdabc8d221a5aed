//! Commands that show what a store holds and does, once or again and again.

use std::time::Duration;

use clap::Args;

use super::At;

/// Show what the store holds and has done
///
/// If the service has the store open it is asked, and says how many calls it answered, too. With
/// --watch, counters have how fast they grow beside them from the second time on; records and
/// embeddings are counted again now and then, because that takes time. Ctrl-C ends it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  op-dbus stats
  op-dbus stats --json | jq '.collections[].records'
  op-dbus stats --watch
  op-dbus stats --watch 10 --json | jq -c '[.sequence, .rates.queries]'")]
pub(crate) struct Stats {
    /// Show it again every so many seconds: in place on a terminal, one block or line of JSON after
    /// the other in a pipe
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        default_missing_value = "1",
        value_parser = seconds,
        conflicts_with = "at"
    )]
    pub(crate) watch: Option<Duration>,
    #[command(flatten)]
    pub(crate) at: At,
}

/// Watch what the store does, on the whole terminal
///
/// Shows hit rates, latencies of queries, changes, evictions, memory and where it lies, calls of the
/// service, and the end of the journal. The service is asked if it has the store open; otherwise the
/// store is open here as long as this runs, and nobody else can have it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  op-dbus top
  op-dbus top --period 5
  NO_COLOR=1 op-dbus top --bus system

Keys:
  q, Ctrl-C   end                 Tab         next part: all, arenas, journal
  p, space    pause, go on        Up, Down    move in the part
  +, -        longer, shorter     PgUp, PgDn  the same by ten lines
              period              Home, End   to its beginning, to its end")]
pub(crate) struct Top {
    /// Seconds from one measurement to the next
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub(crate) period: Duration,
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("it must be a number of seconds from 0.1 to 3600".to_owned()),
    }
}
