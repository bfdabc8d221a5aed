//! Exchange formats: JSON lines, and the rows of npy and fvecs files, with keys of their own.

use std::io::{BufReader, Read as _};
use std::path::Path;

use op_dbus_benches::Matrix;
use op_dbus_daemon::Phrases;
use op_dbus_engine::{Record, VectorBuffer};
use op_dbus_formats::exchange::npy::{NpyElement, NpyError, NpyHeader};
use op_dbus_formats::exchange::{fvecs, jsonl, keys};

use super::lines::{Line, Lines};
use super::stream::Stream;
use super::{DOCUMENTS_COLLECTION, Read, Source, parquet};
use crate::args::{CacheImport, Columns, ExchangeFormat};
use crate::error::{Error, Result};
use crate::interrupt;

/// The header of an npy file is far shorter; what is longer is something else.
const NPY_HEADER_LEN_MAX_BYTES: usize = 1 << 20;

/// Opens what an import names.
pub(crate) fn to_import(arguments: &CacheImport) -> Result<Source> {
    let path = arguments.source.as_deref().expect("clap asks for it without --from-sqlite");
    let format = arguments.format.unwrap_or_else(|| format_by_name(path));
    refuse_unused(arguments, Some(format))?;
    let source = match format {
        ExchangeFormat::Parquet => parquet::open(path, &arguments.columns)?,
        format => open(path, format)?,
    };
    match &arguments.keys {
        Some(keys) => with_keys(source, path, keys),
        None => Ok(source),
    }
}

/// Refuses options that say something of other formats.
pub(crate) fn refuse_unused(arguments: &CacheImport, format: Option<ExchangeFormat>) -> Result<()> {
    let refused = |problem: &str, remedy: &str| {
        Err(Error::Usage { problem: problem.to_owned(), remedy: Some(remedy.to_owned()) })
    };
    if arguments.columns != Columns::default() && format != Some(ExchangeFormat::Parquet) {
        return refused("only Parquet has columns", "leave the options of columns out");
    }
    let has_rows = matches!(format, Some(ExchangeFormat::Npy | ExchangeFormat::Fvecs));
    if arguments.keys.is_some() && !has_rows {
        return refused("only rows of npy and fvecs get keys from a file", "leave --keys out");
    }
    Ok(())
}

/// Opens a source in a format that is read from its beginning to its end.
pub(super) fn open(path: &Path, format: ExchangeFormat) -> Result<Source> {
    match format {
        ExchangeFormat::Jsonl => open_jsonl(path),
        ExchangeFormat::Npy => open_npy(path),
        ExchangeFormat::Fvecs => open_fvecs(path),
        ExchangeFormat::Parquet => parquet::open(path, &Columns::default()),
    }
}

/// The format that a file's name tells.
pub(crate) fn format_by_name(path: &Path) -> ExchangeFormat {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("npy") => ExchangeFormat::Npy,
        Some("fvecs") => ExchangeFormat::Fvecs,
        Some("parquet" | "pq") => ExchangeFormat::Parquet,
        _ => ExchangeFormat::Jsonl,
    }
}

/// Gives the rows the keys of a file, of which there must be as many.
fn with_keys(source: Source, path: &Path, keys_path: &Path) -> Result<Source> {
    let mut keys = Lines::open(keys_path, keys::LINE_LEN_MAX_BYTES)?;
    let (path, keys_path) = (path.to_owned(), keys_path.to_owned());
    let mut records = source.records;
    let records = std::iter::from_fn(move || {
        let fewer = |what: &Path, other: &Path| {
            let problem = format!("it has fewer rows than {}", other.display());
            Some(Err(Error::input(what, &problem)))
        };
        let (key, read) = match (keys.next(), records.next()) {
            (None, None) => return None,
            // Ctrl-C ends what is read.
            _ if interrupt::is_requested() => return None,
            (None, Some(_)) => return fewer(&keys_path, &path),
            (Some(_), None) => return fewer(&path, &keys_path),
            (Some(key), Some(read)) => (key, read),
        };
        let read = key.and_then(|line| {
            let key = keys::parse_line(&line.bytes).map_err(|problem| {
                Error::input(&keys_path, &format!("line {}: {problem}", line.number))
            })?;
            let mut read = read?;
            read.record.key = key;
            Ok(read)
        });
        Some(read)
    });
    Ok(Source { records: Box::new(records), ..source })
}

pub(super) fn source(
    count: Option<u64>,
    records: impl Iterator<Item = Result<Read>> + 'static,
) -> Source {
    let default_collection = DOCUMENTS_COLLECTION;
    let phrases = Phrases::default();
    Source { records: Box::new(records), count, default_collection, phrases }
}

fn open_jsonl(path: &Path) -> Result<Source> {
    let count = Lines::count(path);
    let lines = Lines::open(path, jsonl::LINE_LEN_MAX_BYTES)?;
    let name = lines.name().to_owned();
    let records = lines.filter_map(move |line| {
        let line = match line {
            Ok(line) if line.bytes.trim_ascii().is_empty() => return None,
            line => line,
        };
        Some(line.and_then(|line| parse_line(&name, &line)))
    });
    Ok(source(count, records))
}

fn parse_line(name: &Path, line: &Line) -> Result<Read> {
    let parsed =
        jsonl::parse_line(&line.bytes, line.number).map_err(|error| Error::input(name, &error))?;
    let record = Record {
        key: parsed.key.into_owned(),
        text: parsed.text.map(Into::into),
        vector: parsed.vector,
        payload: parsed.payload.into_owned(),
        expires_at_unix_ms: parsed.expires_at_unix_ms,
    };
    Ok(Read { record, ends_batch: line.is_last_at_hand })
}

/// Rows of several thousand numbers take few reads of so many bytes.
const BUFFER_LEN_BYTES: usize = 256 << 10;

/// Bytes that are read so many at a time.
struct Bytes(BufReader<Stream>);

impl Bytes {
    fn open(path: &Path) -> Result<Self> {
        Ok(Self(BufReader::with_capacity(BUFFER_LEN_BYTES, Stream::open(path)?)))
    }

    /// Appends up to `wanted` bytes to `bytes`; fewer only at the end of the input.
    fn read_up_to(&mut self, path: &Path, wanted: usize, bytes: &mut Vec<u8>) -> Result<()> {
        let read = self.0.by_ref().take(wanted as u64).read_to_end(bytes);
        read.map(drop).map_err(|error| Error::io("read", path, error))
    }
}

fn open_npy(path: &Path) -> Result<Source> {
    let path = path.to_owned();
    let mut bytes = Bytes::open(&path)?;
    let header = read_npy_header(&path, &mut bytes)?;
    let mut encoded = Vec::with_capacity(header.row_len_bytes());
    let rows = (0..header.rows).map_while(move |row| {
        encoded.clear();
        if let Err(error) = bytes.read_up_to(&path, header.row_len_bytes(), &mut encoded) {
            return Some(Err(error));
        }
        if encoded.len() < header.row_len_bytes() && interrupt::is_requested() {
            return None;
        }
        let mut vector = vec![0.0; header.dimensions];
        let decoded = header.decode_row(&encoded, &mut vector);
        let wrong = |error| Error::input(&path, &format!("row {row}: {error}"));
        Some(decoded.map_err(wrong).map(|()| numbered(row, vector)))
    });
    Ok(source(Some(header.rows), rows))
}

/// Reads all vectors of an npy file.
pub(crate) fn read_npy(path: &Path) -> Result<Matrix> {
    let mut bytes = Bytes::open(path)?;
    let header = read_npy_header(path, &mut bytes)?;
    if let Some(numbers) = map_npy(path, &header)? {
        return Ok(Matrix { dimensions: header.dimensions, numbers });
    }
    // Memory is taken as rows come, so that a header that says too much takes none.
    let rows_count = usize::try_from(header.rows).unwrap_or(usize::MAX);
    let mut numbers = VectorBuffer::with_capacity(header.dimensions, rows_count)?;
    let (mut encoded, mut vector) = (Vec::new(), vec![0.0; header.dimensions]);
    for row in 0..header.rows {
        encoded.clear();
        bytes.read_up_to(path, header.row_len_bytes(), &mut encoded)?;
        header
            .decode_row(&encoded, &mut vector)
            .map_err(|error| Error::input(path, &format!("row {row}: {error}")))?;
        numbers.push(&vector)?;
    }
    Ok(Matrix { dimensions: header.dimensions, numbers })
}

/// Maps vectors that lie in a file as they would in memory.
fn map_npy(path: &Path, header: &NpyHeader) -> Result<Option<VectorBuffer>> {
    let is_file = path.metadata().is_ok_and(|metadata| metadata.is_file());
    if !is_file || header.element != NpyElement::F32 {
        return Ok(None);
    }
    let Ok(rows_count) = usize::try_from(header.rows) else { return Ok(None) };
    let needed = header.rows.saturating_mul(header.row_len_bytes() as u64);
    let needed = needed.saturating_add(header.data_offset_bytes);
    if path.metadata().is_ok_and(|file| file.len() < needed) {
        // Whoever reads the rows says where they end.
        return Ok(None);
    }
    let start_bytes = header.data_offset_bytes as usize;
    Ok(VectorBuffer::map(path, start_bytes, header.dimensions, rows_count)?)
}

/// Reads just the header, so that the rows follow; a header says itself how long it is.
fn read_npy_header(path: &Path, bytes: &mut Bytes) -> Result<NpyHeader> {
    let mut start = Vec::new();
    loop {
        match NpyHeader::parse(&start) {
            Err(NpyError::TooShort { needed, .. })
                if (start.len() + 1..=NPY_HEADER_LEN_MAX_BYTES).contains(&(needed as usize)) =>
            {
                let before = start.len();
                bytes.read_up_to(path, needed as usize - before, &mut start)?;
                if start.len() == before {
                    return Err(Error::input(path, &"the file ends inside the npy header"));
                }
            }
            header => return header.map_err(|error| Error::input(path, &error)),
        }
    }
}

fn open_fvecs(path: &Path) -> Result<Source> {
    let path = path.to_owned();
    let count = count_fvecs(&path);
    let mut bytes = Bytes::open(&path)?;
    let mut row = 0;
    let mut encoded = Vec::new();
    let rows = std::iter::from_fn(move || {
        let read = read_fvecs_row(&path, &mut bytes, &mut encoded, row).transpose();
        row += 1;
        read
    });
    Ok(source(count, rows))
}

/// How many rows a regular file has, if all are as long as the first.
fn count_fvecs(path: &Path) -> Option<u64> {
    let file_len = path.metadata().ok().filter(std::fs::Metadata::is_file)?.len();
    let mut start = Vec::new();
    Bytes::open(path).ok()?.read_up_to(path, size_of::<i32>(), &mut start).ok()?;
    let dimensions = fvecs::decode_dimensions(&start).ok()?;
    Some(file_len / fvecs::row_len_bytes(dimensions) as u64)
}

fn read_fvecs_row(
    path: &Path,
    bytes: &mut Bytes,
    encoded: &mut Vec<u8>,
    row: u64,
) -> Result<Option<Read>> {
    let wrong = |error| Error::input(path, &format!("row {row}: {error}"));
    encoded.clear();
    bytes.read_up_to(path, size_of::<i32>(), encoded)?;
    if encoded.is_empty() || encoded.len() < size_of::<i32>() && interrupt::is_requested() {
        return Ok(None);
    }
    let dimensions = fvecs::decode_dimensions(encoded).map_err(wrong)?;
    let rest = fvecs::row_len_bytes(dimensions) - encoded.len();
    bytes.read_up_to(path, rest, encoded)?;
    if encoded.len() < fvecs::row_len_bytes(dimensions) && interrupt::is_requested() {
        return Ok(None);
    }
    let mut vector = Vec::new();
    fvecs::decode_row(encoded, &mut vector).map_err(wrong)?;
    Ok(Some(numbered(row, vector)))
}

fn numbered(row: u64, vector: Vec<f32>) -> Read {
    Read { record: Record::new(row.to_string()).with_vector(vector), ends_batch: false }
}
