//! Receiving snapshots: chunks are kept until all are there, and then given to BTRFS, part by part.
//!
//! What was received is a snapshot when its subvolumes are those that were sent, its files those that
//! were there when it was taken, and when it has been opened.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use op_dbus_formats::snapshot_stream::{Chunk, StreamStart};

use super::send::{Transfer, TransferProgress};
use super::spool::{Others, Spool, read_chunk, read_start};
use super::{Snapshots, check_name, copy, remove_parts};
use crate::error::{Error, ErrorKind, Result};
use crate::layout::{Layout, snapshot_file, snapshot_incoming, snapshot_unfinished};
use crate::os::btrfs::{self, Receiving};
use crate::os::file::{
    create_directories, create_synced, is_btrfs, remove_if_there, room, settle, sync_directory,
};

/// With less, a file system is full.
const FULL_BYTES: u64 = 16 << 20;

/// Opens a directory as a snapshot, and tells the last change in it.
pub(crate) type Opener = fn(&Path) -> Result<u64>;

impl Snapshots {
    /// Receives a snapshot; returns its name.
    pub(crate) fn receive_with(
        &self,
        input: &mut dyn Read,
        progress: &mut TransferProgress<'_>,
        open: Opener,
    ) -> Result<String> {
        btrfs::require_root("receive")?;
        let start = read_start(input)?;
        check_name(&start.name)?;
        self.check_wanted(&start)?;
        create_directories(&self.layout.snapshots())?;
        let incoming = snapshot_incoming(&self.path(&start.name));
        let mut spool = Spool::open(&incoming, &start, start.first_chunk, Others::Replace)?;
        if spool.chunks_count < start.first_chunk {
            let (there, given) = (spool.chunks_count, start.first_chunk);
            let context = format!("the stream begins with chunk {given}, and {there} are here");
            return Err(Error::new(ErrorKind::Invalid, context)
                .with_remedy(format!("send it with --from {there}")));
        }
        self.take_all(&start, input, &mut spool, progress)?;
        self.apply(&start, &spool, open)?;
        remove_if_there(&incoming)?;
        self.mark_shared(&start.name, None)?;
        Ok(start.name)
    }

    /// Refuses what could not become a snapshot here.
    fn check_wanted(&self, start: &StreamStart) -> Result<()> {
        let directory = self.layout.snapshots();
        // Nothing is made where nothing can be received.
        let there = directory.ancestors().find(|path| path.exists());
        if !there.is_some_and(is_btrfs) {
            let context = format!("{} does not lie on BTRFS", directory.display());
            return Err(Error::new(ErrorKind::Unsupported, context)
                .with_remedy("name a directory on BTRFS with --store"));
        }
        let others = self.list()?;
        let id_of = |name: &str| self.file(name).ok().flatten().map(|file| file.store_id);
        let here = self.store_id().or_else(|| others.iter().find_map(|info| id_of(&info.name)));
        if here.is_some_and(|store_id| store_id != start.snapshot.store_id) {
            let context =
                format!("what is at {} is of another store", self.layout.base().display());
            return Err(Error::new(ErrorKind::Invalid, context).with_remedy(
                "name another directory with --store: snapshots of one store in each",
            ));
        }
        let path = self.path(&start.name);
        if path.exists() {
            let context = format!("the snapshot {} is here already", path.display());
            return Err(Error::new(ErrorKind::Invalid, context)
                .with_remedy("delete it to receive it again"));
        }
        let Some(parent) = &start.parent else { return Ok(()) };
        let has_it = |name: &str| self.ids(name).is_ok_and(|ids| ids == parent.ids);
        if others.iter().any(|info| has_it(&info.name)) {
            return Ok(());
        }
        let (name, parent) = (&start.name, &parent.name);
        let context = format!("{name} is an increment on {parent}, which is not here");
        Err(Error::new(ErrorKind::NotFound, context)
            .with_remedy(format!("send {parent} first, or {name} without --parent")))
    }

    fn take_all(
        &self,
        start: &StreamStart,
        input: &mut dyn Read,
        spool: &mut Spool,
        progress: &mut TransferProgress<'_>,
    ) -> Result<()> {
        let mut done = Transfer { chunks: spool.chunks_count, ..Transfer::default() };
        progress(&done)?;
        while !spool.is_ended {
            let (bytes, chunk) = read_chunk(input, spool.chunks_count).map_err(|error| {
                let (count, name) = (spool.chunks_count, &start.name);
                let context = format!("{count} chunks of {name} are here, and no more");
                Error::new(error.kind(), context)
                    .with_source(error)
                    .with_remedy(format!("send it again with --from {count}; those stay"))
            })?;
            spool.append(&bytes, &chunk)?;
            done.note(&chunk);
            done.sent_bytes += bytes.len() as u64;
            progress(&done)?;
        }
        spool.sync()
    }

    /// Makes a snapshot of chunks, or nothing.
    fn apply(&self, start: &StreamStart, spool: &Spool, open: Opener) -> Result<()> {
        let _lock = self.lock()?;
        self.remove_unfinished()?;
        let path = self.path(&start.name);
        let unfinished = snapshot_unfinished(&path);
        create_directories(&unfinished)?;
        let made = give_parts(spool, &unfinished)
            .and_then(|()| check_received(start, &unfinished, open))
            // Nothing was synced yet but names.
            .and_then(|()| settle(&unfinished))
            .and_then(|()| {
                fs::rename(&unfinished, &path)
                    .map_err(|error| Error::io("rename", &unfinished, error))
            });
        let Err(error) = made else { return sync_directory(&self.layout.snapshots()) };
        let is_full =
            room(&self.layout.snapshots()).is_ok_and(|room| room.available_bytes < FULL_BYTES);
        remove_parts(&unfinished)
            .unwrap_or_else(|error| tracing::warn!(%error, "the next one removes it"));
        if !is_full {
            return Err(error);
        }
        let (name, count) = (&start.name, spool.chunks_count);
        let context = format!("there is no room for {name} at {}", self.layout.base().display());
        Err(Error::new(ErrorKind::Full, context).with_source(error).with_remedy(format!(
            "make room and send it with --from {}; its chunks stay until then, or until op-dbus \
             snapshot delete {name}",
            count.saturating_sub(1)
        )))
    }
}

/// Gives the file system the stream of each part.
fn give_parts(spool: &Spool, directory: &Path) -> Result<()> {
    let mut receiving: Option<(u8, Receiving)> = None;
    for chunk in spool.chunks()? {
        let Chunk::Part { part, content } = chunk? else { break };
        if let Some((_, before)) = receiving.take_if(|(of, _)| *of != part) {
            before.finish()?;
        }
        let (_, stream) = match &mut receiving {
            Some(receiving) => receiving,
            none => none.insert((part, Receiving::start(directory)?)),
        };
        if let Err(error) = stream.write_all(&content) {
            // Why it ended says more than that it did.
            let ended = receiving.map_or(Ok(()), |(_, stream)| stream.finish());
            return ended.and(Err(Error::io("receive in", directory, error)));
        }
    }
    receiving.map_or(Ok(()), |(_, last)| last.finish())
}

/// Requires that what was received is what was sent.
fn check_received(start: &StreamStart, directory: &Path, open: Opener) -> Result<()> {
    let wrong = |what: &str| {
        Error::new(ErrorKind::Corrupt, format!("what was received of {} {what}", start.name))
            .with_remedy("send it again, without --parent")
    };
    let parts = Layout::new(directory).parts();
    for (part, id) in parts.iter().zip(&start.ids) {
        if !btrfs::is_subvolume(part) || btrfs::sent_id(part)? != *id {
            return Err(wrong("has other subvolumes"));
        }
    }
    let (listed, snapshot) = (copy::list(directory, &parts)?, &start.snapshot);
    if (listed.sum, listed.count) != (snapshot.files_sum, snapshot.files_count) {
        return Err(wrong("has other files"));
    }
    if open(directory)? != snapshot.sequence {
        return Err(wrong("ends with another change"));
    }
    let described = snapshot.encode().map_err(super::spool::undescribed)?;
    create_synced(&snapshot_file(directory), &described)?;
    sync_directory(directory)
}
