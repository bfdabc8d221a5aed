//! `op-dbus link`: the graphs of collections.

use std::num::NonZero;
use std::time::Instant;

use op_dbus_engine::{ErrorKind, LinkOptions, Store};
use serde::Serialize;

use crate::args::Link;
use crate::config::Config;
use crate::error::Result;
use crate::exit::Exit;
use crate::interrupt;
use crate::output::{Output, bytes, duration, grouped};
use crate::progress::Progress;

#[derive(Serialize)]
struct LinkedJson {
    collection: String,
    vectors: usize,
    bytes: u64,
    took_ms: u64,
}

#[derive(Serialize)]
struct UnlinkedJson {
    collection: String,
    had_graph: bool,
}

pub(super) fn run(config: &Config, output: &Output, arguments: &Link) -> Result<Exit> {
    let store = config.open()?;
    let mut exit = Exit::Success;
    for collection in &arguments.collections {
        if arguments.remove {
            unlink(&store, output, collection)?;
        } else if !link(&store, output, arguments, collection)? {
            exit = Exit::Interrupted;
            break;
        }
    }
    store.close();
    Ok(exit)
}

/// Whether it was done before the user ended it.
fn link(store: &Store, output: &Output, arguments: &Link, collection: &str) -> Result<bool> {
    let threads = std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
    let options =
        LinkOptions { profile: arguments.profile, threads: arguments.threads.unwrap_or(threads) };
    let started = Instant::now();
    let mut progress: Option<(Progress, usize)> = None;
    let mut all_count = 0;
    let mut tell = |done_count: usize, count: usize| {
        all_count = count;
        let (bar, before) = progress.get_or_insert_with(|| {
            let bar = Progress::start(Some(count as u64));
            bar.say(format!("linking {collection}"));
            (bar, 0)
        });
        bar.advance((done_count - *before) as u64);
        *before = done_count;
        match interrupt::is_requested() {
            true => Err(op_dbus_engine::Error::new(ErrorKind::Busy, "ended by a signal")),
            false => Ok(()),
        }
    };
    let linked = store.link(collection, options, &mut tell);
    let linked_count = progress.map_or(0, |(_, linked_count)| linked_count);
    let vectors = match linked {
        Err(_) if interrupt::is_requested() => {
            let [linked, all] = [linked_count, all_count].map(|count| grouped(count as u64));
            output.note(&format!(
                "{collection}: {linked} of {all} vectors are linked; the same command goes on from there"
            ));
            return Ok(false);
        }
        linked => linked?,
    };
    let took = started.elapsed();
    let stats = store.stats()?;
    let graph = stats.collections.iter().find(|known| known.name == collection);
    let graph_bytes = graph.and_then(|known| known.graph).map_or(0, |graph| graph.bytes);
    let linked = LinkedJson {
        collection: collection.to_owned(),
        vectors,
        bytes: graph_bytes,
        took_ms: took.as_millis() as u64,
    };
    output.answer(&linked, |out| {
        let (count, bytes) = (grouped(vectors as u64), bytes(graph_bytes));
        writeln!(out, "{collection}: {count} vectors linked in {}, {bytes}", duration(took))
    })?;
    Ok(true)
}

fn unlink(store: &Store, output: &Output, collection: &str) -> Result<()> {
    let had_graph = store.unlink(collection)?;
    output.answer(&UnlinkedJson { collection: collection.to_owned(), had_graph }, |out| {
        let what = if had_graph { "its graph is removed" } else { "it has no graph" };
        writeln!(out, "{collection}: {what}")
    })
}
