//! A terminal that shows one block of text again and again, in place, and is as it was afterwards.

use std::io::{Write, stdout};

use console::truncate_str;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen};

use crate::error::{Error, Result};

/// To the first place.
const HOME: &str = "\x1b[H";
/// Nothing more in this line.
const CLEAR_LINE: &str = "\x1b[K";
/// Nothing more below.
const CLEAR_BELOW: &str = "\x1b[J";

/// The other screen of the terminal. Dropped, it is left.
pub(crate) struct Screen;

impl Screen {
    /// Begins, on a terminal.
    pub(crate) fn enter() -> Result<Self> {
        // Made first, so that it is left again if only half of it succeeds.
        let screen = Self;
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            leave();
            before(panic);
        }));
        execute!(stdout(), EnterAlternateScreen, Hide).map_err(Error::stdout)?;
        Ok(screen)
    }

    /// Shows a text in place of the one before: written over it, so that nothing flickers.
    pub(crate) fn show(&self, text: &str, last: &str) -> Result<()> {
        let (rows, columns) = console::Term::stdout().size();
        let frame = frame(text, last, rows.into(), columns.into());
        let mut stdout = stdout().lock();
        stdout.write_all(frame.as_bytes()).and_then(|()| stdout.flush()).map_err(Error::stdout)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
    }
}

fn leave() {
    // A terminal that has gone needs nothing.
    let _ = execute!(stdout(), Show, LeaveAlternateScreen);
}

/// What fits of a text on so many rows, the last of which is another's.
fn frame(text: &str, last: &str, rows: usize, columns: usize) -> String {
    let mut frame = HOME.to_owned();
    let room = rows.saturating_sub(1);
    let lines: Vec<&str> = text.lines().collect();
    let cut = (lines.len() > room).then(|| format!("… {} more lines", lines.len() + 1 - room));
    let shown_count = if cut.is_some() { room.saturating_sub(1) } else { lines.len() };
    for line in lines.iter().take(shown_count).copied().chain(cut.as_deref()) {
        frame.push_str(&truncate_str(line, columns, "…"));
        frame.push_str(CLEAR_LINE);
        frame.push_str("\r\n");
    }
    frame.push_str(&truncate_str(last, columns, "…"));
    frame.push_str(CLEAR_LINE);
    frame.push_str(CLEAR_BELOW);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str, rows: usize, columns: usize) -> Vec<String> {
        let frame = frame(text, "last", rows, columns);
        let sequences = [HOME, CLEAR_LINE, CLEAR_BELOW].into_iter();
        let frame = sequences.fold(frame, |frame, sequence| frame.replace(sequence, ""));
        frame.split("\r\n").map(str::to_owned).collect()
    }

    #[test]
    fn a_frame_has_what_fits() {
        assert_eq!(lines("one\ntwo", 24, 80), ["one", "two", "last"]);
        assert_eq!(lines("one\ntwo\nthree", 4, 80), ["one", "two", "three", "last"]);
        assert_eq!(lines("one\ntwo\nthree", 3, 80), ["one", "… 2 more lines", "last"]);
        assert_eq!(lines("a long line", 24, 5), ["a lo…", "last"]);
        // Whatever the terminal says its size is.
        assert_eq!(lines("one", 0, 80).last().unwrap(), "last");
    }
}
