//! Sending snapshots: the streams of BTRFS in chunks, of which those that are there already are left
//! out. The same snapshot makes the same chunks each time.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use op_dbus_formats::snapshot_stream::{
    CONTENT_LEN_BYTES_MAX, Chunk, PARTS_COUNT, StreamParent, StreamStart,
};
use serde::Serialize;
use xxhash_rust::xxh3::Xxh3;

use super::Snapshots;
use super::spool::{Others, Spool, undescribed};
use crate::error::{Error, ErrorKind, Result};
use crate::layout::{Layout, snapshot_shared};
use crate::os::btrfs::{self, Sending};
use crate::os::file::sync_directory;

/// How to send a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SendOptions {
    /// A snapshot that the other machine has: only what is new is sent.
    pub parent: Option<String>,
    /// Chunks before this one were sent earlier.
    pub first_chunk: u32,
}

/// How far a transfer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Transfer {
    /// Chunks, those that were there already among them.
    pub chunks: u32,
    /// What the file system made of the snapshot; of a receiver, what came now.
    pub content_bytes: u64,
    /// Bytes that went from here to there now.
    pub sent_bytes: u64,
}

/// Hears how far a transfer is, and may end it with an error.
pub type TransferProgress<'a> = dyn FnMut(&Transfer) -> Result<()> + 'a;

impl Snapshots {
    /// Sends a snapshot of a store on BTRFS to [`Snapshots::receive`] elsewhere. It takes root.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] for anybody but root; [`ErrorKind::NotFound`] if there is no such snapshot
    /// or parent; [`ErrorKind::Unsupported`] if one is not made of subvolumes;
    /// [`ErrorKind::Unavailable`] without the program `btrfs`; what `out` refuses, and `progress`.
    pub fn send(
        &self,
        name: &str,
        options: &SendOptions,
        out: &mut dyn Write,
        progress: &mut TransferProgress<'_>,
    ) -> Result<Transfer> {
        let start = self.start(name, options)?;
        let lost = |error| Error::io("write", Path::new("the stream"), error);
        let begun = start.encode().map_err(undescribed)?;
        out.write_all(&begun).map_err(lost)?;
        let mut done = Transfer { sent_bytes: begun.len() as u64, ..Transfer::default() };
        self.each_chunk(name, options, &mut |number, chunk| {
            if number >= options.first_chunk {
                let bytes = chunk.encode(number).map_err(undescribed)?;
                out.write_all(&bytes).map_err(lost)?;
                done.sent_bytes += bytes.len() as u64;
            }
            done.note(&chunk);
            progress(&done)
        })?;
        out.flush().map_err(lost)?;
        if options.first_chunk >= done.chunks {
            let (given, chunks) = (options.first_chunk, done.chunks);
            let context = format!("there is no chunk {given}: {name} has {chunks}");
            return Err(Error::new(ErrorKind::Invalid, context)
                .with_remedy("give --from the number that the other side says"));
        }
        self.mark_shared(name, options.parent.as_deref())?;
        Ok(done)
    }

    /// The same into a file: what of the same stream is in it already is not written again.
    ///
    /// # Errors
    /// As [`Snapshots::send`]; [`ErrorKind::Invalid`] if something else is in the file;
    /// [`ErrorKind::Corrupt`] if what is there is not what is sent now.
    pub fn send_to_file(
        &self,
        name: &str,
        parent: Option<&str>,
        path: &Path,
        progress: &mut TransferProgress<'_>,
    ) -> Result<Transfer> {
        let options = SendOptions { parent: parent.map(str::to_owned), first_chunk: 0 };
        let start = self.start(name, &options)?;
        let mut spool = Spool::open(path, &start, u32::MAX, Others::Refuse)?;
        let there_count = spool.chunks_count;
        let mut done = Transfer::default();
        self.each_chunk(name, &options, &mut |number, chunk| {
            let is_end = matches!(chunk, Chunk::End { sum } if sum != spool.sum());
            // The end of what is there says whether it is of what is sent now.
            if number >= there_count || is_end {
                let bytes = chunk.encode(number).map_err(undescribed)?;
                spool.append(&bytes, &chunk)?;
                done.sent_bytes += bytes.len() as u64;
            }
            done.note(&chunk);
            progress(&done)
        })?;
        spool.sync()?;
        self.mark_shared(name, parent)?;
        Ok(done)
    }

    fn start(&self, name: &str, options: &SendOptions) -> Result<StreamStart> {
        btrfs::require_root("send")?;
        self.named(name)?;
        if options.parent.as_deref() == Some(name) {
            let context = format!("{name} cannot be an increment on itself");
            return Err(Error::new(ErrorKind::Invalid, context)
                .with_remedy("name an earlier one as --parent, or none"));
        }
        let parent = options.parent.as_ref().map(|parent| {
            self.named(parent)?;
            Ok(StreamParent { ids: self.ids(parent)?, name: parent.clone() })
        });
        Ok(StreamStart {
            first_chunk: options.first_chunk,
            ids: self.ids(name)?,
            parent: parent.transpose()?,
            name: name.to_owned(),
            snapshot: self
                .file(name)?
                .ok_or_else(|| self.not_found(&format!("no snapshot {name}")))?,
        })
    }

    /// What the parts of a snapshot are known by on all machines.
    pub(super) fn ids(&self, name: &str) -> Result<[[u8; 16]; PARTS_COUNT]> {
        let mut ids = [[0; 16]; PARTS_COUNT];
        for (part, id) in self.parts(name).iter().zip(&mut ids) {
            if !btrfs::is_subvolume(part) {
                let context = format!("{} is no subvolume of BTRFS", part.display());
                return Err(Error::new(ErrorKind::Unsupported, context).with_remedy(
                    "run op-dbus layout migrate, and take another; elsewhere than on BTRFS, copy the \
                     directory of the snapshot",
                ));
            }
            *id = btrfs::sent_id(part)?;
        }
        Ok(ids)
    }

    fn parts(&self, name: &str) -> [PathBuf; PARTS_COUNT] {
        Layout::new(self.path(name)).parts()
    }

    /// Hands on all chunks of a snapshot, from the first.
    fn each_chunk(
        &self,
        name: &str,
        options: &SendOptions,
        take: &mut dyn FnMut(u32, Chunk) -> Result<()>,
    ) -> Result<()> {
        let parents = options.parent.as_ref().map(|parent| self.parts(parent));
        let (mut number, mut sum) = (0, Xxh3::new());
        for (place, part) in self.parts(name).iter().enumerate() {
            let parent = parents.as_ref().map(|parents| &*parents[place]);
            let mut sending = Sending::start(part, parent)?;
            loop {
                let mut content = Vec::new();
                let limit = CONTENT_LEN_BYTES_MAX as u64;
                sending
                    .by_ref()
                    .take(limit)
                    .read_to_end(&mut content)
                    .map_err(|error| Error::io("send", part, error))?;
                if content.is_empty() {
                    break;
                }
                sum.update(&content);
                take(number, Chunk::Part { part: place as u8, content })?;
                number += 1;
            }
            sending.finish()?;
        }
        take(number, Chunk::End { sum: sum.digest128() })
    }

    /// From now on the next can be sent as an increment on it. Whether it arrived is not known here: so the
    /// one that it was an increment on stays as well, whose name the mark has.
    pub(crate) fn mark_shared(&self, name: &str, parent: Option<&str>) -> Result<()> {
        let mark = snapshot_shared(&self.path(name));
        std::fs::write(&mark, parent.unwrap_or_default())
            .map_err(|error| Error::io("write", &mark, error))?;
        sync_directory(&self.layout.snapshots())
    }
}

impl Transfer {
    pub(super) fn note(&mut self, chunk: &Chunk) {
        self.chunks += 1;
        if let Chunk::Part { content, .. } = chunk {
            self.content_bytes += content.len() as u64;
        }
    }
}
