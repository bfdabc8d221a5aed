//! `op-dbus cache export`: records to files of other programs, a few in memory at a time.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use op_dbus_engine::{Error as EngineError, ErrorKind, Record, Store, Vectors};
use op_dbus_formats::exchange::jsonl::{self, ExchangeRecord};
use op_dbus_formats::exchange::parquet::{ParquetError, ParquetWriter};
use op_dbus_formats::exchange::{fvecs, keys, npy};

use crate::args::{CacheExport, ExchangeFormat};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::input::format_by_name;
use crate::output::{Output, grouped};

pub(super) fn run(config: &Config, output: &Output, arguments: &CacheExport) -> Result<Exit> {
    let by_name = arguments.output.as_deref().map(format_by_name);
    let format = arguments.format.or(by_name).unwrap_or(ExchangeFormat::Jsonl);
    check(arguments, format)?;
    let store = config.open_at_alone(&arguments.at)?;
    let written = Export::of(&store, &arguments.collection, format)
        .and_then(|export| export.write(arguments.output.as_deref(), arguments.keys.as_deref()))?;
    store.close();
    output.note(&format!("{} records written", grouped(written.records)));
    if written.left_out > 0 {
        let left_out = grouped(written.left_out);
        output.note(&format!("{left_out} records without a vector left out"));
    }
    Ok(Exit::Success)
}

fn check(arguments: &CacheExport, format: ExchangeFormat) -> Result<()> {
    let refused = |problem: &str, remedy: &str| {
        Err(Error::Usage { problem: problem.to_owned(), remedy: Some(remedy.to_owned()) })
    };
    let has_rows = matches!(format, ExchangeFormat::Npy | ExchangeFormat::Fvecs);
    if arguments.keys.is_some() && !has_rows {
        return refused("only npy and fvecs have no place for keys", "leave --keys out");
    }
    let is_text = format == ExchangeFormat::Jsonl;
    if !is_text && arguments.output.is_none() && io::stdout().is_terminal() {
        return refused("bytes are nothing for a terminal", "give --output FILE, or pipe it");
    }
    Ok(())
}

/// What is to be written.
struct Export<'a> {
    store: &'a Store,
    collection: &'a str,
    format: ExchangeFormat,
    /// Of vectors; 0 if the collection has none.
    dimensions: usize,
}

#[derive(Default)]
struct Written {
    records: u64,
    left_out: u64,
}

/// Where bytes go, for messages about it.
#[derive(Clone, Copy)]
enum Place<'a> {
    Stdout,
    File(&'a Path),
}

impl Place<'_> {
    fn failed(self, error: io::Error) -> Error {
        match self {
            Self::Stdout => Error::stdout(error),
            Self::File(path) => Error::io("write", path, error),
        }
    }
}

impl<'a> Export<'a> {
    fn of(store: &'a Store, collection: &'a str, format: ExchangeFormat) -> Result<Self> {
        let known = store.collections().into_iter().find(|known| known.name == collection);
        let dimensions = known.map_or(0, |known| known.dimensions as usize);
        let has_rows = matches!(format, ExchangeFormat::Npy | ExchangeFormat::Fvecs);
        if has_rows && dimensions == 0 {
            // One that does not exist is for the engine to refuse.
            store.scan(collection, b"")?;
            let problem = format!("collection {collection} has no vectors");
            return Err(EngineError::new(ErrorKind::Invalid, problem)
                .with_remedy("export it as jsonl or parquet")
                .into());
        }
        Ok(Self { store, collection, format, dimensions })
    }

    fn write(&self, output: Option<&Path>, keys: Option<&Path>) -> Result<Written> {
        let mut keys = keys.map(Unfinished::create).transpose()?;
        let mut file = output.map(Unfinished::create).transpose()?;
        let written = match &mut file {
            Some(file) => self.write_file(file, keys.as_mut())?,
            None => {
                let out = BufWriter::new(io::stdout());
                self.write_stream(out, Place::Stdout, keys.as_mut())?
            }
        };
        // The keys first: who sees the vectors finds them.
        let keys_path = keys.map(Unfinished::finish).transpose()?;
        if let Some(file) = file {
            file.finish().inspect_err(|_| {
                // They were made by this export, and belong to nothing.
                keys_path.as_ref().map(std::fs::remove_file);
            })?;
        }
        Ok(written)
    }

    /// An array says first how many rows it has: in a file, where they are counted when written.
    fn write_file(&self, file: &mut Unfinished, keys: Option<&mut Unfinished>) -> Result<Written> {
        let part = file.part.clone();
        let place = Place::File(&part);
        let written = self.write_rows(0, &mut file.out, place, keys)?;
        if self.format == ExchangeFormat::Npy {
            file.out.flush().map_err(|error| place.failed(error))?;
            let header = self.npy_header(written.records)?;
            let patched = file.out.get_ref().write_all_at(&header, 0);
            patched.map_err(|error| place.failed(error))?;
        }
        Ok(written)
    }

    /// The same to a stream, for which they are counted before.
    fn write_stream(
        &self,
        out: impl Write + Send,
        place: Place<'_>,
        keys: Option<&mut Unfinished>,
    ) -> Result<Written> {
        if self.format != ExchangeFormat::Npy {
            return self.write_rows(0, out, place, keys);
        }
        let mut rows = 0;
        for record in self.store.scan(self.collection, b"")? {
            let record = record?;
            rows += u64::from(record.vector.is_some() || record.text.is_some());
        }
        let written = self.write_rows(rows, out, place, keys)?;
        if written.records != rows {
            let problem = format!("{rows} rows were announced and {} written", written.records);
            return Err(EngineError::new(ErrorKind::Busy, problem)
                .with_remedy("records have expired meanwhile: try again, or give --output FILE")
                .into());
        }
        Ok(written)
    }

    fn npy_header(&self, rows: u64) -> Result<Vec<u8>> {
        npy::render_header(rows, self.dimensions)
            .map_err(|error| unfit(self.collection.as_bytes(), "an npy file", error))
    }

    fn write_rows<W: Write + Send>(
        &self,
        rows: u64,
        out: W,
        place: Place<'_>,
        mut keys: Option<&mut Unfinished>,
    ) -> Result<Written> {
        let mut sink = self.sink(rows, out, place)?;
        let vectors = match self.dimensions {
            0 => None,
            _ => Some(self.store.vectors(self.collection)?),
        };
        let mut written = Written::default();
        for record in self.store.scan(self.collection, b"")? {
            let mut record = record?;
            if matches!(sink, Sink::Npy(..) | Sink::Fvecs(..)) {
                record.vector = vector_of(&mut record, vectors.as_ref())?;
                if record.vector.is_none() {
                    written.left_out += 1;
                    continue;
                }
            }
            if let Some(keys) = &mut keys {
                keys.write_key(&record.key)?;
            }
            sink.write(record, place)?;
            written.records += 1;
        }
        sink.finish(place)?;
        Ok(written)
    }

    fn sink<W: Write + Send>(&self, rows: u64, mut out: W, place: Place<'_>) -> Result<Sink<W>> {
        Ok(match self.format {
            ExchangeFormat::Jsonl => Sink::Jsonl(out, Vec::new()),
            ExchangeFormat::Fvecs => Sink::Fvecs(out, Vec::new()),
            ExchangeFormat::Npy => {
                let header = self.npy_header(rows)?;
                out.write_all(&header).map_err(|error| place.failed(error))?;
                Sink::Npy(out, Vec::new())
            }
            ExchangeFormat::Parquet => {
                let dimensions = u32::try_from(self.dimensions).ok().filter(|&count| count > 0);
                let writer = ParquetWriter::new(out, dimensions);
                Sink::Parquet(Box::new(writer.map_err(|error| table_error(error, place))?))
            }
        })
    }
}

/// The vector that was given with a record, or made of its text.
fn vector_of(record: &mut Record, vectors: Option<&Vectors<'_>>) -> Result<Option<Vec<f32>>> {
    match (record.vector.take(), vectors) {
        (None, Some(vectors)) if record.text.is_some() => {
            Ok(vectors.get(&record.key)?.map(|vector| vector.to_vec()))
        }
        (vector, _) => Ok(vector),
    }
}

/// Writes records in a format; all but the table with a buffer for one.
enum Sink<W: Write + Send> {
    Jsonl(W, Vec<u8>),
    Npy(W, Vec<u8>),
    Fvecs(W, Vec<u8>),
    Parquet(Box<ParquetWriter<W>>),
}

impl<W: Write + Send> Sink<W> {
    fn write(&mut self, record: Record, place: Place<'_>) -> Result<()> {
        let (out, buffer) = match self {
            Self::Parquet(writer) => {
                let written = writer.write(&exchanged(record));
                return written.map_err(|error| table_error(error, place));
            }
            Self::Jsonl(out, buffer) => {
                buffer.clear();
                render(record, buffer)?;
                (out, buffer)
            }
            Self::Npy(out, buffer) => {
                buffer.clear();
                let vector = record.vector.unwrap_or_default();
                buffer.extend(vector.iter().flat_map(|number| number.to_le_bytes()));
                (out, buffer)
            }
            Self::Fvecs(out, buffer) => {
                buffer.clear();
                let vector = record.vector.unwrap_or_default();
                fvecs::encode_row(&vector, buffer)
                    .map_err(|error| unfit(&record.key, "an fvecs file", error))?;
                (out, buffer)
            }
        };
        out.write_all(buffer).map_err(|error| place.failed(error))
    }

    fn finish(self, place: Place<'_>) -> Result<()> {
        match self {
            Self::Jsonl(mut out, _) | Self::Npy(mut out, _) | Self::Fvecs(mut out, _) => {
                out.flush().map_err(|error| place.failed(error))
            }
            Self::Parquet(writer) => writer.finish().map_err(|error| table_error(error, place)),
        }
    }
}

fn table_error(error: ParquetError, place: Place<'_>) -> Error {
    match error {
        ParquetError::Write(error) => place.failed(error),
        error => EngineError::new(ErrorKind::Unsupported, error.to_string())
            .with_remedy("export the collection as jsonl")
            .into(),
    }
}

fn exchanged(record: Record) -> ExchangeRecord<'static> {
    ExchangeRecord {
        key: record.key.into(),
        text: record.text.map(Into::into),
        vector: record.vector,
        payload: record.payload,
        expires_at_unix_ms: record.expires_at_unix_ms,
    }
}

/// Appends a record as a line of JSON.
pub(super) fn render(record: Record, line: &mut Vec<u8>) -> Result<()> {
    let exchanged = exchanged(record);
    jsonl::render_line(&exchanged, line).map_err(|error| unfit(&exchanged.key, "JSON", error))
}

fn unfit(key: &[u8], what: &str, error: op_dbus_formats::FormatError) -> Error {
    let key = String::from_utf8_lossy(key);
    EngineError::new(ErrorKind::Unsupported, format!("record {key} cannot be written as {what}"))
        .with_source(error)
        .into()
}

/// A file under another name until it is whole.
struct Unfinished {
    path: PathBuf,
    part: PathBuf,
    out: BufWriter<File>,
    line: Vec<u8>,
}

impl Unfinished {
    fn create(path: &Path) -> Result<Self> {
        if path.exists() {
            let exists = io::Error::from(io::ErrorKind::AlreadyExists);
            return Err(Error::io("create", path, exists));
        }
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let file = File::create(&part).map_err(|error| Error::io("write", &part, error))?;
        Ok(Self { path: path.to_owned(), part, out: BufWriter::new(file), line: Vec::new() })
    }

    fn write_key(&mut self, key: &[u8]) -> Result<()> {
        self.line.clear();
        keys::render_line(key, &mut self.line)
            .map_err(|error| unfit(key, "a line of its own", error))?;
        self.out.write_all(&self.line).map_err(|error| Error::io("write", &self.part, error))
    }

    /// Gives the file its name once it is on the disk, and returns it.
    fn finish(mut self) -> Result<PathBuf> {
        let failed = |error| Error::io("write", &self.part, error);
        self.out.flush().map_err(failed)?;
        self.out.get_ref().sync_all().map_err(failed)?;
        // Unlike a rename, a link does not take the place of a file that came meanwhile.
        std::fs::hard_link(&self.part, &self.path)
            .map_err(|error| Error::io("create", &self.path, error))?;
        Ok(self.path.clone())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // What the user must hear of is the result.
        let _ = std::fs::remove_file(&self.part);
    }
}
