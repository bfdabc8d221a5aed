//! The arguments of the commands about snapshots, and of those that can ask one.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use op_dbus_engine::{Period, Retention};
use op_dbus_formats::calendar::Utc;

use super::documents::time;

/// Which moment is asked about.
#[derive(Debug, Default, Args)]
pub(crate) struct At {
    /// Ask a snapshot instead of the store: by its name, or the last one before a time such as
    /// 2026-11-26, 2026-11-26T12:30 (both UTC) or 2h ago, written 2h
    #[arg(long, value_name = "NAME|TIME", value_parser = moment)]
    pub(crate) at: Option<Moment>,
}

/// A snapshot, by its name or by what it was the last before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    Name(String),
    UnixMs(u64),
}

/// Show which records are others at one moment than at another, or now
///
/// Each line has + for a record that came, - for one that went, ~ for one that changed, then its
/// collection and its key. With --json there is an object for each, with what it was and what it is.
/// Vectors that were computed of a text are not compared; the text is.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  op-dbus diff --at 2h
  op-dbus diff --at 20261126T120305Z --at 20261126T130305Z --collection state
  op-dbus diff --at 2026-11-25 --prefix hosts/ --json | jq .after.payload")]
pub(crate) struct Diff {
    /// A snapshot: by its name, or the last one before a time, as in op-dbus query --at. Given once, it is
    /// compared with the store; given twice, the first with the second
    #[arg(long, required = true, value_name = "NAME|TIME", value_parser = moment)]
    pub(crate) at: Vec<Moment>,
    /// Collection to compare [default: all]
    #[arg(long, short, value_name = "NAME")]
    pub(crate) collection: Option<String>,
    /// Only records whose keys begin so
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) prefix: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Snapshot {
    Create(SnapshotCreate),
    /// List the snapshots of the store, the latest last
    #[command(after_help = "\
Example:
  op-dbus snapshot list --json | jq -r '.snapshots[-1].name'")]
    List,
    Delete(SnapshotDelete),
    Restore(SnapshotRestore),
    Send(SnapshotSend),
    Receive(SnapshotReceive),
}

/// Keep the store as it is now, to ask it later or to go back to it
///
/// On BTRFS this takes a moment and, at first, no room. Elsewhere tables are linked, and what is
/// newer is copied. A snapshot counts once it was opened and everything acknowledged is in it. The
/// earliest go when there are too many.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  op-dbus snapshot create --reason \"before the upgrade\" --keep
  op-dbus snapshot create --retention 4 --schedule \"24h 7d 4w\"
  op-dbus query \"restart the network\" --at 2h")]
pub(crate) struct SnapshotCreate {
    /// Why, for whoever reads the list
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
    /// Keep it until it is deleted by its name
    #[arg(long)]
    pub(crate) keep: bool,
    /// Snapshots that stay, those with --keep not counted
    #[arg(
        long,
        value_name = "N",
        env = "OPDBUS_BTRFS_SNAPSHOT_RETENTION",
        hide_env_values = true,
        default_value_t = 24,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub(crate) retention: u32,
    /// Beside them, the last of each of so many hours, days and weeks stays, such as "24h 7d 4w"
    #[arg(long, value_name = "SCHEDULE", value_parser = schedule, default_value = "")]
    pub(crate) schedule: Schedule,
    /// Part of the file system to leave free: with less, the earliest go before their time
    #[arg(
        long,
        value_name = "PERCENT",
        default_value_t = 10,
        value_parser = clap::value_parser!(u8).range(..=90)
    )]
    pub(crate) min_free: u8,
}

impl SnapshotCreate {
    /// Which snapshots stay.
    pub(crate) fn retention(&self) -> Retention {
        Retention {
            count: self.retention as usize,
            schedule: self.schedule.0.clone(),
            free_percent_min: self.min_free,
        }
    }
}

/// Of how many periods the last snapshot stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Schedule(Vec<(usize, Period)>);

fn schedule(text: &str) -> Result<Schedule, String> {
    let period = |part: &str| {
        let unit = part.chars().last()?;
        let period = match unit {
            'h' => Period::Hour,
            'd' => Period::Day,
            'w' => Period::Week,
            _ => return None,
        };
        Some((part[..part.len() - 1].parse().ok().filter(|count| *count > 0)?, period))
    };
    let parts: Option<Vec<_>> = text.split_whitespace().map(period).collect();
    parts.map(Schedule).ok_or_else(|| "it must be like \"24h 7d 4w\"".to_owned())
}

/// Delete snapshots, also those that are kept
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  op-dbus snapshot delete 20261126T120305Z")]
pub(crate) struct SnapshotDelete {
    /// Their names
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
}

/// Go back to a snapshot, or make another store of it
///
/// What the store is now becomes a snapshot before, so that nothing is lost. Nobody may have it open.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  op-dbus snapshot restore 20261126T120305Z
  op-dbus snapshot restore 20261126T120305Z --to /var/lib/op-dbus-before")]
pub(crate) struct SnapshotRestore {
    /// Its name
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Leave the store as it is, and make another in this directory, which must not exist or be empty
    #[arg(long, value_name = "DIR")]
    pub(crate) to: Option<PathBuf>,
}

/// Send a snapshot to another machine, all of it or what it has and another has not
///
/// On BTRFS, and as root. The stream goes to standard output, for op-dbus snapshot receive on the other
/// machine. If the transfer breaks off, the other side says with which chunk to go on.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  op-dbus snapshot send 20261126T120305Z | ssh backup op-dbus snapshot receive
  op-dbus snapshot send 20261126T130305Z --parent 20261126T120305Z |
    ssh backup op-dbus snapshot receive
  op-dbus snapshot send 20261126T120305Z --output /media/disk/snapshot")]
pub(crate) struct SnapshotSend {
    /// Its name
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// A snapshot that the other machine has: only what is new is sent
    #[arg(long, value_name = "NAME")]
    pub(crate) parent: Option<String>,
    /// Leave out the chunks before this one, which the other machine has
    #[arg(long, value_name = "CHUNK", default_value_t = 0)]
    pub(crate) from: u32,
    /// Write to a file instead, which may have a part of the same stream, but nothing else
    #[arg(long, short, value_name = "FILE|-", conflicts_with = "from")]
    pub(crate) output: Option<PathBuf>,
}

/// Receive a snapshot that op-dbus snapshot send sends
///
/// On BTRFS, and as root. It becomes one of the snapshots of --store, where no store need be, and can be
/// asked with --at. It counts once it was found to be what was sent, and opened. Receive only from where
/// you would let root do anything.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ssh server op-dbus snapshot send 20261126T120305Z |
    op-dbus snapshot receive --store /backup
  op-dbus snapshot receive --store /backup /media/disk/snapshot
  op-dbus query \"restart the network\" --store /backup --at 20261126T120305Z")]
pub(crate) struct SnapshotReceive {
    /// File that the stream was written to, or - for standard input
    #[arg(value_name = "FILE|-", default_value = "-")]
    pub(crate) source: PathBuf,
}

fn moment(text: &str) -> Result<Moment, String> {
    if text.len() >= NAME_LEN && text.as_bytes()[8] == b'T' && text.contains('Z') {
        return Ok(Moment::Name(text.to_owned()));
    }
    if let Ok(ago) = time(text) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at = now.saturating_sub(ago).as_millis();
        return Ok(Moment::UnixMs(u64::try_from(at).unwrap_or(u64::MAX)));
    }
    let unknown = || {
        "it must be a name such as 20261126T120305Z, a time such as 2026-11-26T12:30, or 2h for two \
         hours ago"
            .to_owned()
    };
    date(text).map(Moment::UnixMs).ok_or_else(unknown)
}

/// Letters of a name such as `20261126T120305Z`.
const NAME_LEN: usize = 16;

/// The milliseconds of a date, with a time or without, in UTC.
fn date(text: &str) -> Option<u64> {
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00"));
    let number = |text: &str| text.parse::<u64>().ok().filter(|number| *number <= 9999);
    let mut parts = date.splitn(3, '-');
    let year = parts.next().filter(|year| year.len() == 4).and_then(number)?;
    let (month, day) = (number(parts.next()?)?, number(parts.next()?)?);
    let mut parts = time.trim_end_matches('Z').splitn(3, ':');
    let (hour, minute) = (number(parts.next()?)?, number(parts.next()?)?);
    let second = number(parts.next().unwrap_or("0"))?;
    Utc { year, month, day, hour, minute, second }.unix_ms()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (text, seconds) in [
            ("1970-01-01", Some(0)),
            ("2000-02-29T00:00:00Z", Some(951_782_400)),
            ("2024-02-29 23:59:59", Some(1_709_251_199)),
            ("2027-01-01T00:00", Some(1_798_761_600)),
            ("2100-03-01", Some(4_107_542_400)),
            ("1969-12-31", None),
            ("2026-13-01", None),
            ("2026-02-29", None),
            ("2026-04-31", None),
            ("2026-11-26T24:00", None),
            ("26-11-26", None),
            ("yesterday", None),
        ] {
            assert_eq!(date(text), seconds.map(|seconds: u64| seconds * 1000), "{text}");
        }
    }

    #[test]
    fn schedules_have_numbers_and_units() {
        let expected = vec![(24, Period::Hour), (7, Period::Day), (4, Period::Week)];
        assert_eq!(schedule("24h 7d 4w"), Ok(Schedule(expected)));
        assert_eq!(schedule(""), Ok(Schedule(Vec::new())));
        for text in ["24", "h", "0h", "-1d", "7 d", "3m", "7d4w", "7ü"] {
            assert!(schedule(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn names_and_times_are_told_apart() {
        let name = "20261126T120305Z-2";
        assert_eq!(moment(name), Ok(Moment::Name(name.to_owned())));
        assert!(matches!(moment("2h"), Ok(Moment::UnixMs(_))));
        assert!(matches!(moment("2026-11-26"), Ok(Moment::UnixMs(_))));
        assert!(moment("last week").is_err());
    }
}
