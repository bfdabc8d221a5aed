//! `op-dbus top`: what the store does, on the whole terminal.
//!
//! `model` is what is shown and what keys change, `view` draws it. Here is the terminal, which is as it
//! was when this ends: by a key, a signal, an error or a panic.

mod model;
mod view;

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use op_dbus_engine::{Error as EngineError, ErrorKind};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};

use super::journal::Tail;
use crate::args::{At, Top};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::feed::{Feed, POLL};
use crate::interrupt;
use crate::output::Output;
use crate::rates::Reading;
use crate::source::Source;
use model::{Model, Sample, Step};
use view::Theme;

pub(super) fn run(config: &Config, output: &Output, arguments: &Top) -> Result<Exit> {
    if output.is_json() || !std::io::stdout().is_terminal() {
        return Err(Error::Usage {
            problem: "top draws on a terminal, and standard output is to be something else"
                .to_owned(),
            remedy: Some("use op-dbus stats --watch, which takes --json, too".to_owned()),
        });
    }
    interrupt::note();
    let source = config.open_or_ask(&At { at: None })?;
    let origin = match source {
        Source::Store(_) => "opened here",
        Source::Service(_) => "told by the service",
    };
    let mut tail = Tail::default();
    let feed = Feed::start(source, move |source| measure(source, &mut tail))?;
    // Before anything is drawn: an error stands where the command was given.
    let Some(first) = feed.next()? else { return Ok(Exit::Success) };
    let mut model = Model::new(origin, arguments.period);
    model.take(first);
    let mut terminal = ratatui::try_init().map_err(|error| {
        // Half of it may have succeeded.
        let _ = ratatui::try_restore();
        terminal_failed(error)
    })?;
    let shown = show(&mut terminal, &feed, &mut model, Theme::of_environment());
    let restored = ratatui::try_restore().map_err(terminal_failed);
    shown.and(restored)?;
    Ok(Exit::Success)
}

fn measure(source: &Source, tail: &mut Tail) -> Result<Sample> {
    let (activity, traffic) = source.activity()?;
    let taken = Instant::now();
    tail.follow(source)?;
    Ok(Sample { reading: Reading { activity, traffic, taken }, journal: tail.clone() })
}

fn show(
    terminal: &mut DefaultTerminal,
    feed: &Feed<Sample>,
    model: &mut Model,
    theme: Theme,
) -> Result<()> {
    let (mut due, mut is_asked) = (Instant::now() + model.period(), false);
    let mut is_changed = true;
    while !interrupt::is_requested() {
        if is_changed {
            terminal.draw(|frame| view::draw(frame, model, theme)).map_err(terminal_failed)?;
            is_changed = false;
        }
        if let Some(event) = next_event()? {
            match step(&event, model) {
                Step::End => return Ok(()),
                Step::Redraw => terminal.clear().map_err(terminal_failed)?,
                Step::Go => {}
            }
            // A longer or shorter period begins with what was shown last.
            due = due.min(Instant::now() + model.period());
            is_changed = true;
        }
        if let Some(sample) = feed.wait(Duration::ZERO)? {
            is_asked = false;
            is_changed |= model.take(sample);
        }
        if !is_asked && !model.is_paused() && Instant::now() >= due {
            feed.ask();
            is_asked = true;
            due = Instant::now() + model.period();
        }
    }
    Ok(())
}

fn step(event: &Event, model: &mut Model) -> Step {
    match event {
        Event::Key(key) if key.kind != KeyEventKind::Release => model.press(*key),
        _ => Step::Go,
    }
}

/// What the terminal tells, if it tells something soon.
fn next_event() -> Result<Option<Event>> {
    let told = event::poll(POLL).and_then(|is_there| is_there.then(event::read).transpose());
    match told {
        // By a signal, which is looked at next.
        Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Ok(None),
        told => told.map_err(terminal_failed),
    }
}

fn terminal_failed(error: std::io::Error) -> Error {
    EngineError::new(ErrorKind::Io, "the terminal does not do what top needs")
        .with_source(error)
        .with_remedy("use another terminal, or op-dbus stats --watch")
        .into()
}
