//! What is shown, and what keys change of it. Nothing here knows a terminal.

use std::collections::VecDeque;
use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::command::journal::Tail;
use crate::rates::{Rates, Reading};

/// As many periods as a wide terminal has columns.
const HISTORY_LEN_MAX: usize = 300;
/// Periods to choose from, in tenths of seconds.
const PERIODS_DS: [u64; 9] = [2, 5, 10, 20, 50, 100, 300, 600, 3000];
/// Lines of a page.
const PAGE_LEN: usize = 10;

/// A measurement, and the end of the journal.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) reading: Reading,
    pub(super) journal: Tail,
}

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing but to show what has changed.
    Go,
    /// Everything anew, because something else has written on the terminal.
    Redraw,
    End,
}

/// What has the rest of the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    All,
    Arenas,
    Journal,
}

impl Part {
    const EACH: [Self; 3] = [Self::All, Self::Arenas, Self::Journal];

    /// The one so many places on.
    fn moved(self, by: usize) -> Self {
        let place = Self::EACH.iter().position(|part| *part == self).unwrap_or_default();
        Self::EACH[(place + by) % Self::EACH.len()]
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Arenas => "arenas",
            Self::Journal => "journal",
        }
    }
}

/// What something was in each period, the last one last; nothing where there was nothing to tell.
pub(super) type History = VecDeque<Option<f64>>;

/// How the figures that can be drawn have been.
#[derive(Debug, Default)]
pub(super) struct Histories {
    pub(super) hit_rate: History,
    pub(super) tier_hit_rate: History,
    pub(super) queries: History,
    pub(super) p50_us: History,
    pub(super) p99_us: History,
    pub(super) changes: History,
    pub(super) evictions: History,
    pub(super) evictions_disk: History,
    pub(super) answered: History,
    pub(super) refused: History,
}

impl Histories {
    fn take(&mut self, rates: &Rates) {
        let push = |history: &mut History, value| {
            history.push_back(value);
            if history.len() > HISTORY_LEN_MAX {
                history.pop_front();
            }
        };
        push(&mut self.hit_rate, rates.hit_rate());
        push(&mut self.tier_hit_rate, rates.tier_hit_rate());
        push(&mut self.queries, Some(rates.queries));
        push(&mut self.p50_us, rates.p50_us.map(|micros| micros as f64));
        push(&mut self.p99_us, rates.p99_us.map(|micros| micros as f64));
        push(&mut self.changes, Some(rates.changes));
        push(&mut self.evictions, Some(rates.evictions));
        push(&mut self.evictions_disk, Some(rates.evictions_disk));
        push(&mut self.answered, rates.answered);
        push(&mut self.refused, rates.refused);
    }
}

/// All that the screen shows.
pub(super) struct Model {
    /// Where the figures come from.
    pub(super) origin: &'static str,
    period: Duration,
    is_paused: bool,
    part: Part,
    /// Lines that the part is moved by: from its beginning, or the journal from its end.
    moved: usize,
    sample: Option<Sample>,
    rates: Option<Rates>,
    pub(super) histories: Histories,
}

impl Model {
    pub(super) fn new(origin: &'static str, period: Duration) -> Self {
        Self {
            origin,
            period,
            is_paused: false,
            part: Part::All,
            moved: 0,
            sample: None,
            rates: None,
            histories: Histories::default(),
        }
    }

    pub(super) fn period(&self) -> Duration {
        self.period
    }

    pub(super) fn is_paused(&self) -> bool {
        self.is_paused
    }

    pub(super) fn part(&self) -> Part {
        self.part
    }

    pub(super) fn moved(&self) -> usize {
        self.moved
    }

    pub(super) fn sample(&self) -> Option<&Sample> {
        self.sample.as_ref()
    }

    /// How fast counters grow; not known after the first measurement.
    pub(super) fn rates(&self) -> Option<&Rates> {
        self.rates.as_ref()
    }

    /// Takes a measurement; says whether it is shown.
    pub(super) fn take(&mut self, sample: Sample) -> bool {
        if self.is_paused {
            // It was asked for before.
            return false;
        }
        if let Some(before) = &self.sample {
            let rates = Rates::between(&before.reading, &sample.reading);
            self.histories.take(&rates);
            self.rates = Some(rates);
        }
        self.sample = Some(sample);
        self.moved = self.moved.min(self.moved_max());
        true
    }

    pub(super) fn press(&mut self, key: KeyEvent) -> Step {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Step::End,
                KeyCode::Char('l') => Step::Redraw,
                _ => Step::Go,
            };
        }
        match key.code {
            KeyCode::Char('q' | 'Q') => return Step::End,
            KeyCode::Char('p' | ' ') => self.is_paused = !self.is_paused,
            KeyCode::Char('+' | '=') => self.period = longer(self.period),
            KeyCode::Char('-' | '_') => self.period = shorter(self.period),
            KeyCode::Tab => self.show(self.part.moved(1)),
            KeyCode::BackTab => self.show(self.part.moved(Part::EACH.len() - 1)),
            KeyCode::Up => self.move_by(true, 1),
            KeyCode::Down => self.move_by(false, 1),
            KeyCode::PageUp => self.move_by(true, PAGE_LEN),
            KeyCode::PageDown => self.move_by(false, PAGE_LEN),
            KeyCode::Home => self.move_by(true, usize::MAX),
            KeyCode::End => self.move_by(false, usize::MAX),
            _ => {}
        }
        Step::Go
    }

    fn show(&mut self, part: Part) {
        (self.part, self.moved) = (part, 0);
    }

    /// The journal is moved from its end, so that up is further there.
    fn move_by(&mut self, is_up: bool, lines: usize) {
        let moved = match is_up == (self.part == Part::Journal) {
            true => self.moved.saturating_add(lines),
            false => self.moved.saturating_sub(lines),
        };
        self.moved = moved.min(self.moved_max());
    }

    /// One line at least stays.
    fn moved_max(&self) -> usize {
        let Some(sample) = &self.sample else { return 0 };
        let len = match self.part {
            Part::All => 0,
            Part::Arenas => sample.reading.activity.numa.arenas.len(),
            Part::Journal => sample.journal.lines().len(),
        };
        len.saturating_sub(1)
    }
}

fn periods() -> impl DoubleEndedIterator<Item = Duration> {
    PERIODS_DS.into_iter().map(|tenths| Duration::from_millis(tenths * 100))
}

fn longer(period: Duration) -> Duration {
    periods().find(|other| *other > period).unwrap_or(period)
}

fn shorter(period: Duration) -> Duration {
    periods().rev().find(|other| *other < period).unwrap_or(period)
}
