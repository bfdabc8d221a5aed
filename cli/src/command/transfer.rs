//! `op-dbus snapshot send` and `receive`: a snapshot from one machine to another.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Read};
use std::path::Path;

use op_dbus_engine::{ErrorKind, SendOptions, Transfer};
use serde_json::json;

use crate::args::{SnapshotReceive, SnapshotSend};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::interrupt;
use crate::output::{Output, bytes, grouped};
use crate::progress::Progress;

pub(super) fn send(config: &Config, output: &Output, arguments: &SnapshotSend) -> Result<Exit> {
    config.ask_nobody()?;
    interrupt::catch();
    let SnapshotSend { name, parent, from, output: target } = arguments;
    let target = target.as_ref().filter(|path| *path != Path::new("-"));
    let snapshots = config.snapshots();
    if target.is_none() {
        refuse_standard_output(output)?;
    }
    let progress = Progress::start_bytes();
    progress.say(format!("sending {name}"));
    let mut tell = teller(&progress);
    let sent = match target {
        Some(path) => snapshots.send_to_file(name, parent.as_deref(), path, &mut tell),
        None => {
            let options = SendOptions { parent: parent.clone(), first_chunk: *from };
            let mut out = BufWriter::new(io::stdout().lock());
            snapshots.send(name, &options, &mut out, &mut tell)
        }
    };
    drop(tell);
    drop(progress);
    let sent = match sent {
        Err(error) if error.kind() == ErrorKind::Busy && interrupt::is_requested() => {
            return Ok(Exit::Interrupted);
        }
        sent => sent?,
    };
    let line = line("sent", name, &sent);
    match target {
        None => output.note(&line),
        Some(path) => {
            let answer = json!({ "name": name, "parent": parent, "file": path, "transfer": sent });
            output.answer(&answer, |out| writeln!(out, "{line}"))?;
        }
    }
    Ok(Exit::Success)
}

/// It is for a program, and for nothing beside the stream.
fn refuse_standard_output(output: &Output) -> Result<()> {
    let problem = match () {
        () if output.is_json() => "the stream and JSON cannot both go to standard output",
        () if io::stdout().is_terminal() => "a stream is nothing for a terminal",
        () => return Ok(()),
    };
    Err(Error::Usage {
        problem: problem.to_owned(),
        remedy: Some("pipe it to op-dbus snapshot receive, or give --output FILE".to_owned()),
    })
}

pub(super) fn receive(
    config: &Config,
    output: &Output,
    arguments: &SnapshotReceive,
) -> Result<Exit> {
    config.ask_nobody()?;
    interrupt::catch();
    let source = &arguments.source;
    let mut input: Box<dyn Read> = match source == Path::new("-") {
        true => Box::new(io::stdin().lock()),
        false => Box::new(File::open(source).map_err(|error| Error::io("open", source, error))?),
    };
    let progress = Progress::start_bytes();
    progress.say("receiving");
    let mut received = Transfer::default();
    let mut tell = teller(&progress);
    let info = config.snapshots().receive(&mut input, &mut |done| {
        received = *done;
        tell(done)
    });
    drop(tell);
    drop(progress);
    let info = match info {
        Err(error) if error.kind() == ErrorKind::Busy && interrupt::is_requested() => {
            output.note(&format!(
                "{} chunks are here and stay; send again with --from {}",
                grouped(received.chunks.into()),
                received.chunks
            ));
            return Ok(Exit::Interrupted);
        }
        info => info?,
    };
    let answer = json!({ "snapshot": info, "transfer": received });
    output.answer(&answer, |out| writeln!(out, "{}", line("received", &info.name, &received)))?;
    Ok(Exit::Success)
}

fn teller(progress: &Progress) -> impl FnMut(&Transfer) -> op_dbus_engine::Result<()> {
    let mut told_bytes = 0;
    move |done: &Transfer| {
        progress.advance(done.sent_bytes - told_bytes);
        told_bytes = done.sent_bytes;
        match interrupt::is_requested() {
            true => Err(op_dbus_engine::Error::new(ErrorKind::Busy, "ended by a signal")),
            false => Ok(()),
        }
    }
}

fn line(done: &str, name: &str, transfer: &Transfer) -> String {
    let (chunks, content) = (grouped(transfer.chunks.into()), bytes(transfer.content_bytes));
    format!("{name}: {done}, {chunks} chunks, {content} as {}", bytes(transfer.sent_bytes))
}
