//! What the user reads: text for people, JSON for programs.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use console::{Style, truncate_str};
use op_dbus_formats::calendar::Utc;
use serde::Serialize;
use serde_json::json;

use crate::error::{Error, Result};
use crate::exit::Exit;

/// Where answers and errors go, and in which form.
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether the user wants JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Writes an answer: `value` as JSON, or what `text` writes.
    pub(crate) fn answer(
        &self,
        value: &impl Serialize,
        text: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
    ) -> Result<()> {
        if self.json { self.json(value) } else { self.text(text) }
    }

    /// Writes an answer as a line of JSON.
    pub(crate) fn json(&self, value: &impl Serialize) -> Result<()> {
        self.text(|stdout| {
            serde_json::to_writer(&mut *stdout, value)?;
            writeln!(stdout)
        })
    }

    /// Writes an answer for people.
    pub(crate) fn text(
        &self,
        write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
    ) -> Result<()> {
        let mut stdout = std::io::stdout().lock();
        write(&mut stdout).and_then(|()| stdout.flush()).map_err(Error::stdout)
    }

    /// Writes something people like to know and programs do not need.
    pub(crate) fn note(&self, text: &str) {
        if !self.json {
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    /// Reports why the program stops, and says how it ends.
    pub(crate) fn error(&self, error: &Error) -> Exit {
        let exit = error.exit();
        if exit == Exit::Success {
            return exit;
        }
        let mut stderr = std::io::stderr().lock();
        // With standard error gone there is nobody to tell.
        let _ = if self.json {
            let report = json!({ "error": {
                "exit_code": exit.code(), "message": error.message(), "remedy": error.remedy(),
            }});
            writeln!(stderr, "{report}")
        } else {
            let label = Style::new().for_stderr().red().bold().apply_to("error:");
            let mut text = format!("{label} {}\n", error.message());
            error.picture().iter().for_each(|picture| text.push_str(&format!("{picture}\n")));
            if let Some(remedy) = error.remedy() {
                let label = Style::new().for_stderr().bold().apply_to("remedy:");
                text.push_str(&format!("{label} {remedy}\n"));
            }
            stderr.write_all(text.as_bytes())
        };
        exit
    }
}

/// Columns that a line may fill: those of the terminal, or any number in a pipe.
pub(crate) fn columns() -> usize {
    if std::io::stdout().is_terminal() {
        usize::from(console::Term::stdout().size().1)
    } else {
        usize::MAX
    }
}

/// The beginning of a text on one line of at most `columns`.
///
/// Control characters go: a text from somewhere else must not talk to the terminal.
pub(crate) fn one_line(text: &str, columns: usize) -> String {
    let text = text.replace(|character: char| character.is_control(), " ");
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    truncate_str(&line, columns, "…").into_owned()
}

/// A text on lines of at most `columns`, those after the first indented.
pub(crate) fn wrapped(text: &str, columns: usize, indent: usize) -> String {
    let (mut lines, mut room) = (String::new(), columns.saturating_sub(indent));
    for word in text.split_whitespace() {
        let len = word.chars().count() + 1;
        if len > room + 1 && !lines.is_empty() {
            lines.push_str(&format!("\n{:indent$}", ""));
            room = columns.saturating_sub(indent);
        } else if !lines.is_empty() {
            lines.push(' ');
        }
        lines.push_str(word);
        room = room.saturating_sub(len);
    }
    lines
}

/// A count with its thousands apart.
pub(crate) fn grouped(count: u64) -> String {
    indicatif::HumanCount(count).to_string()
}

/// How fast a count grows.
pub(crate) fn per_second(rate: f64) -> String {
    if rate < 10.0 { format!("{rate:.1}/s") } else { format!("{}/s", grouped(rate.round() as u64)) }
}

/// A count and, where that is known, how fast it grows, in columns.
pub(crate) fn growing(count: u64, rate: Option<f64>) -> String {
    match rate {
        Some(rate) => format!("{:<14} {:>9}", grouped(count), per_second(rate)),
        None => grouped(count),
    }
}

/// A number of seconds that somebody has chosen.
pub(crate) fn seconds(period: Duration) -> String {
    format!("{} s", period.as_secs_f64())
}

/// A duration in the unit that shows three digits of it.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 1e-3 {
        format!("{:.0} µs", seconds * 1e6)
    } else if seconds < 1.0 {
        format!("{:.1} ms", seconds * 1e3)
    } else if seconds < 100.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{:.0} min {:02.0} s", (seconds / 60.0).floor(), seconds % 60.0)
    }
}

/// A moment as people read it, in UTC.
pub(crate) fn utc(unix_ms: u64) -> String {
    let Utc { year, month, day, hour, minute, second } = Utc::from_unix_ms(unix_ms);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// A size in binary units.
pub(crate) fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_show_their_unit() {
        let shown = |micros| duration(Duration::from_micros(micros));
        assert_eq!(shown(12), "12 µs");
        assert_eq!(shown(12_340), "12.3 ms");
        assert_eq!(shown(1_234_000), "1.2 s");
        assert_eq!(shown(125_000_000), "2 min 05 s");
    }

    #[test]
    fn moments_are_those_of_the_calendar() {
        // As `date -u -d @…` shows them.
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_782_400_999), "2000-02-29 00:00:00 UTC");
        assert_eq!(utc(951_868_799_000), "2000-02-29 23:59:59 UTC");
        assert_eq!(utc(1_735_689_599_000), "2024-12-31 23:59:59 UTC");
        assert_eq!(utc(4_107_542_400_000), "2100-03-01 00:00:00 UTC");
    }

    #[test]
    fn a_text_becomes_one_line() {
        assert_eq!(one_line("a\n  b\tc", 80), "a b c");
        assert_eq!(one_line("abcdef", 4), "abc…");
        assert_eq!(one_line("a\u{1b}[2Jb", 80), "a [2Jb");
    }
}
