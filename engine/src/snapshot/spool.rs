//! A stream in a file: what has come so far, so that a transfer that was broken off goes on there.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use op_dbus_formats::FormatError;
use op_dbus_formats::header::FILE_HEADER_LEN_BYTES;
use op_dbus_formats::snapshot_stream::{CHUNK_HEADER_LEN_BYTES, Chunk, StreamStart};
use xxhash_rust::xxh3::Xxh3;

use crate::error::{Error, ErrorKind, Result};

/// What becomes of a file that has something else in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Others {
    Replace,
    Refuse,
}

/// The file of a stream, and how far it goes.
pub(super) struct Spool {
    path: PathBuf,
    file: File,
    pub(super) chunks_count: u32,
    pub(super) is_ended: bool,
    sum: Xxh3,
}

impl Spool {
    /// Opens the file, or makes it. What is there of the same stream counts, up to so many chunks and
    /// to the first that is not whole; the rest is cut off.
    pub(super) fn open(
        path: &Path,
        start: &StreamStart,
        chunks_max: u32,
        others: Others,
    ) -> Result<Self> {
        let failed = |error| Error::io("open", path, error);
        let mut options = File::options();
        // It is nobody else's to read, as the store is.
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(path);
        let file = file.map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            let context = format!("{} is no ordinary file", path.display());
            return Err(Error::new(ErrorKind::Invalid, context)
                .with_remedy("write to standard output, and pipe that"));
        }
        lock(&file, path)?;
        let begun =
            StreamStart { first_chunk: 0, ..start.clone() }.encode().map_err(undescribed)?;
        let mut spool = Self {
            path: path.to_owned(),
            file,
            chunks_count: 0,
            is_ended: false,
            sum: Xxh3::new(),
        };
        let len_bytes = spool.look(&begun, chunks_max).map_err(failed)?;
        let is_other = len_bytes == 0 && spool.file.metadata().map_err(failed)?.len() > 0;
        if is_other && others == Others::Refuse {
            let context = format!("{} is a file, and not of this stream", path.display());
            return Err(
                Error::new(ErrorKind::Invalid, context).with_remedy("remove it, or name another")
            );
        }
        spool.file.set_len(len_bytes).map_err(failed)?;
        spool.file.seek(SeekFrom::End(0)).map_err(failed)?;
        if len_bytes == 0 {
            spool.file.write_all(&begun).map_err(failed)?;
        }
        Ok(spool)
    }

    /// Finds out how many bytes are whole, of this stream and not more than so many chunks.
    fn look(&mut self, begun: &[u8], chunks_max: u32) -> std::io::Result<u64> {
        let mut file = BufReader::new(self.file.try_clone()?);
        let mut found = vec![0; begun.len()];
        if file.read_exact(&mut found).is_err() || found != begun {
            return Ok(0);
        }
        let mut len_bytes = begun.len() as u64;
        while self.chunks_count < chunks_max && !self.is_ended {
            let Ok((bytes, chunk)) = read_chunk(&mut file, self.chunks_count) else { break };
            // An end with another sum is the end of another stream.
            if matches!(chunk, Chunk::End { sum } if sum != self.sum.digest128()) {
                break;
            }
            self.note(&chunk);
            len_bytes += bytes.len() as u64;
        }
        Ok(len_bytes)
    }

    fn note(&mut self, chunk: &Chunk) {
        match chunk {
            Chunk::Part { content, .. } => self.sum.update(content),
            Chunk::End { .. } => self.is_ended = true,
        }
        self.chunks_count += 1;
    }

    /// The sum of all content so far.
    pub(super) fn sum(&self) -> u128 {
        self.sum.digest128()
    }

    /// Adds the next chunk.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if it does not follow what is there; what the disk refuses.
    pub(super) fn append(&mut self, bytes: &[u8], chunk: &Chunk) -> Result<()> {
        let is_fit = match chunk {
            Chunk::Part { .. } => !self.is_ended,
            Chunk::End { sum } => *sum == self.sum(),
        };
        if !is_fit {
            let context = format!("{} begins with another stream", self.path.display());
            return Err(Error::new(ErrorKind::Corrupt, context)
                .with_remedy("send all of it again: remove the file, or leave out --from"));
        }
        self.file.write_all(bytes).map_err(|error| Error::io("write", &self.path, error))?;
        self.note(chunk);
        Ok(())
    }

    /// Sees to it that all of it is on the disk.
    pub(super) fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(|error| Error::io("sync", &self.path, error))
    }

    /// Reads all chunks once more.
    pub(super) fn chunks(&self) -> Result<impl Iterator<Item = Result<Chunk>>> {
        let path = self.path.clone();
        let file = File::open(&path).map_err(|error| Error::io("open", &path, error))?;
        let mut file = BufReader::new(file);
        read_start(&mut file)?;
        let read = move |number| read_chunk(&mut file, number).map(|(_, chunk)| chunk);
        Ok((0..self.chunks_count).map(read))
    }
}

fn lock(file: &File, path: &Path) -> Result<()> {
    let exclusive = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    rustix::fs::flock(file, exclusive).map_err(|error| {
        Error::new(ErrorKind::Busy, format!("somebody else writes {}", path.display()))
            .with_source(std::io::Error::from(error))
            .with_remedy("wait for the other transfer, or end it")
    })
}

/// Removes a file that nobody writes.
pub(super) fn remove(path: &Path) -> Result<()> {
    let file = File::open(path).map_err(|error| Error::io("open", path, error))?;
    lock(&file, path)?;
    std::fs::remove_file(path).map_err(|error| Error::io("remove", path, error))
}

/// Reads what a stream begins with.
pub(super) fn read_start(input: &mut dyn Read) -> Result<StreamStart> {
    const REMEDY: &str = "give it what op-dbus snapshot send wrote, from the beginning";
    let mut bytes = vec![0; FILE_HEADER_LEN_BYTES];
    read_exact(input, &mut bytes).map_err(|error| error.with_remedy(REMEDY))?;
    let header = bytes.first_chunk().expect("it has just been read");
    let none = |error: FormatError| {
        Error::new(ErrorKind::Invalid, "this is no snapshot that was sent")
            .with_source(error)
            .with_remedy(REMEDY)
    };
    let len_bytes = StreamStart::len_bytes(header).map_err(none)?;
    bytes.resize(len_bytes, 0);
    read_exact(input, &mut bytes[FILE_HEADER_LEN_BYTES..])
        .map_err(|error| error.with_remedy(REMEDY))?;
    StreamStart::decode(&bytes).map_err(none)
}

/// Reads the chunk with this number, and its bytes.
pub(super) fn read_chunk(input: &mut dyn Read, number: u32) -> Result<(Vec<u8>, Chunk)> {
    let mut bytes = vec![0; CHUNK_HEADER_LEN_BYTES];
    read_exact(input, &mut bytes)?;
    let header = bytes.first_chunk().expect("it has just been read");
    bytes.resize(Chunk::len_bytes(header).map_err(damaged)?, 0);
    read_exact(input, &mut bytes[CHUNK_HEADER_LEN_BYTES..])?;
    let chunk = Chunk::decode(&bytes, number).map_err(damaged)?;
    Ok((bytes, chunk))
}

fn read_exact(input: &mut dyn Read, bytes: &mut [u8]) -> Result<()> {
    input
        .read_exact(bytes)
        .map_err(|error| Error::new(ErrorKind::Io, "the stream broke off").with_source(error))
}

fn damaged(error: FormatError) -> Error {
    Error::new(ErrorKind::Corrupt, "the stream is damaged").with_source(error)
}

pub(super) fn undescribed(error: FormatError) -> Error {
    Error::new(ErrorKind::Invalid, "this snapshot cannot be sent").with_source(error)
}
