//! Rows of a table, a few at a time, as records.

use std::borrow::Cow;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parquet::column::reader::{ColumnReader, get_column_reader};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::reader::ChunkReader;
use parquet::file::serialized_reader::SerializedPageReader;
use serde_json::{Map, Value};

use super::columns::{Chosen, ParquetColumns, Role, choose};
use super::guard::Guarded;
use super::value::{Levels, One, Values, text};
use super::{FOOTER_LEN_MAX_BYTES, ParquetError, thrift};
use crate::Payload;
use crate::embedding::{check_dimensions, check_finite};
use crate::exchange::jsonl::ExchangeRecord;

const FOOTER_TAIL_LEN_BYTES: usize = 8;

/// So many rows are read at a time at most, and so many numbers of their vectors.
const BATCH_ROWS_MAX: usize = 1024;
const BATCH_NUMBERS_MAX: usize = 1 << 18;

thread_local! {
    static READING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is where a panic becomes an error, of which nobody else need speak.
#[must_use]
pub fn is_reading() -> bool {
    READING.get()
}

/// Does something of the parquet crate's, and says in words what went wrong, a panic included.
fn guarded<T>(work: impl FnOnce() -> parquet::errors::Result<T>) -> Result<T, String> {
    let before = READING.replace(true);
    // What it worked on is not used any more: the iterator ends at the first error.
    let done = catch_unwind(AssertUnwindSafe(work));
    READING.set(before);
    match done {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(format!("the bytes are damaged: {}", said.unwrap_or("they cannot be decoded")))
        }
    }
}

/// The records of a table, in the order of its rows. Ends at the first error.
pub struct ParquetReader<R> {
    input: Arc<Guarded<R>>,
    metadata: ParquetMetaData,
    columns: Vec<Column>,
    rows: u64,
    /// Which row group is read, and how many of its rows are still to be read.
    row_group: usize,
    left_in_group: u64,
    /// Rows of the batch at hand that were not handed on.
    left_in_batch: usize,
    batch_rows: usize,
    /// The row that comes next.
    row: u64,
    has_key: bool,
    has_ended: bool,
}

/// A column, and what of it is at hand.
struct Column {
    chosen: Chosen,
    /// At this level a value is there.
    value_level: i16,
    reader: Option<ColumnReader>,
    levels: Levels,
    values: Values,
    /// How much of both was taken.
    next_level: usize,
    next_value: usize,
}

impl<R: ChunkReader + 'static> ParquetReader<R> {
    /// Opens a table.
    ///
    /// # Errors
    /// [`ParquetError`] if it is none, or has not the columns that are wanted.
    pub fn open(input: R, columns: &ParquetColumns) -> Result<Self, ParquetError> {
        let input = Arc::new(Guarded::new(input));
        let metadata = read_footer(&*input)?;
        let mut rows = 0_u64;
        for group in metadata.row_groups() {
            let count = u64::try_from(group.num_rows()).ok();
            let sum = count.and_then(|count| rows.checked_add(count));
            rows = sum.ok_or_else(|| footer("row groups have a negative number of rows"))?;
        }
        let chosen = guarded(|| Ok(choose(metadata.file_metadata().schema_descr(), columns)));
        let chosen = chosen.map_err(|problem| ParquetError::Footer { problem })??;
        let has_key = chosen.iter().any(|column| column.role == Role::Key);
        let schema = metadata.file_metadata().schema_descr();
        let columns = chosen.into_iter().map(|chosen| Column {
            value_level: schema.column(chosen.leaf).max_def_level(),
            chosen,
            reader: None,
            levels: Levels::default(),
            values: Values::Booleans(Vec::new()),
            next_level: 0,
            next_value: 0,
        });
        Ok(Self {
            columns: columns.collect(),
            input,
            rows,
            row_group: 0,
            left_in_group: 0,
            left_in_batch: 0,
            // The first tells how long its vector is.
            batch_rows: 1,
            row: 0,
            has_key,
            has_ended: false,
            metadata,
        })
    }

    /// How many rows the table says that it has.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Reads the next rows; says whether there are any.
    fn read_batch(&mut self) -> Result<bool, ParquetError> {
        let mut is_first = self.row == 0;
        while self.left_in_group == 0 {
            let next = if is_first { self.row_group } else { self.row_group + 1 };
            is_first = false;
            if next >= self.metadata.num_row_groups() {
                return Ok(false);
            }
            self.row_group = next;
            self.open_row_group()?;
        }
        let rows = self.batch_rows.min(usize::try_from(self.left_in_group).unwrap_or(usize::MAX));
        for column in &mut self.columns {
            // Of each column on its own: its pages are gone when the next one's come.
            self.input.begin_batch();
            column.read(rows).map_err(|problem| ParquetError::Content {
                row_group: self.row_group,
                column: column.chosen.name.clone(),
                problem,
            })?;
        }
        self.left_in_group -= rows as u64;
        self.left_in_batch = rows;
        Ok(true)
    }

    fn open_row_group(&mut self) -> Result<(), ParquetError> {
        let group = self.metadata.row_group(self.row_group);
        // All were added up, so none is negative.
        self.left_in_group = group.num_rows().unsigned_abs();
        let rows = usize::try_from(group.num_rows()).unwrap_or(usize::MAX);
        for column in &mut self.columns {
            let input = Arc::clone(&self.input);
            let opened = guarded(|| {
                let chunk = group.column(column.chosen.leaf);
                let pages = SerializedPageReader::new(input, chunk, rows, None)?;
                Ok(get_column_reader(chunk.column_descr_ptr(), Box::new(pages)))
            });
            column.reader = Some(opened.map_err(|problem| ParquetError::Content {
                row_group: self.row_group,
                column: column.chosen.name.clone(),
                problem,
            })?);
        }
        Ok(())
    }

    fn next_record(&mut self) -> Result<Option<ExchangeRecord<'static>>, ParquetError> {
        if self.left_in_batch == 0 && !self.read_batch()? {
            return Ok(None);
        }
        self.left_in_batch -= 1;
        let row = self.row;
        self.row += 1;
        let mut record = ExchangeRecord {
            key: Cow::Borrowed(b""),
            text: None,
            vector: None,
            payload: Payload::None,
            expires_at_unix_ms: None,
        };
        let mut members = Map::new();
        for column in &mut self.columns {
            column.take(&mut record, &mut members).map_err(|problem| ParquetError::Value {
                row,
                column: column.chosen.name.clone(),
                problem,
            })?;
        }
        if !members.is_empty() {
            record.payload = Payload::Json(Value::Object(members).to_string().into());
        }
        if let Some(vector) = &record.vector {
            self.batch_rows = (BATCH_NUMBERS_MAX / vector.len()).clamp(1, BATCH_ROWS_MAX);
        } else if self.batch_rows == 1 {
            self.batch_rows = 16;
        }
        if record.key.is_empty() {
            if self.has_key {
                let (column, problem) = ("key".to_owned(), "the row has no key".to_owned());
                return Err(ParquetError::Value { row, column, problem });
            }
            record.key = Cow::Owned(row.to_string().into_bytes());
        }
        if record.text.is_none() && record.vector.is_none() && record.payload == Payload::None {
            return Err(ParquetError::EmptyRow { row });
        }
        Ok(Some(record))
    }
}

impl<R: ChunkReader + 'static> Iterator for ParquetReader<R> {
    type Item = Result<ExchangeRecord<'static>, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_ended {
            return None;
        }
        let record = self.next_record().transpose();
        self.has_ended = !matches!(record, Some(Ok(_)));
        record
    }
}

impl Column {
    fn read(&mut self, rows: usize) -> Result<(), String> {
        let Some(reader) = &mut self.reader else { return Err("it was not opened".to_owned()) };
        let (values, levels) = (&mut self.values, &mut self.levels);
        let found = guarded(|| values.read(reader, rows, levels))?;
        (self.next_level, self.next_value) = (0, 0);
        match found == rows {
            true => Ok(()),
            false => Err(format!("it ends {} rows before the row group does", rows - found)),
        }
    }

    /// Takes the next row's value into a record, or among those that are its payload.
    fn take(
        &mut self,
        record: &mut ExchangeRecord<'static>,
        members: &mut Map<String, Value>,
    ) -> Result<(), String> {
        if self.chosen.role == Role::Vector {
            record.vector = self.vector()?;
            return Ok(());
        }
        let (role, scalar) = (self.chosen.role, self.chosen.scalar);
        let Some(value) = self.scalar() else { return Ok(()) };
        match role {
            Role::Key => record.key = Cow::Owned(non_empty(value.key(scalar))?),
            Role::KeyBytes => record.key = Cow::Owned(non_empty(value.bytes().to_vec())?),
            Role::Text => record.text = Some(Cow::Owned(text(value.bytes())?.to_owned())),
            Role::Payload => {
                let json = text(value.bytes())?;
                serde_json::from_str::<serde::de::IgnoredAny>(json)
                    .map_err(|error| format!("it is not JSON: {error}"))?;
                record.payload = Payload::Json(Cow::Owned(json.to_owned()));
            }
            Role::PayloadBytes => {
                record.payload = Payload::Bytes(Cow::Owned(value.bytes().to_vec()));
            }
            Role::ExpiresAt => record.expires_at_unix_ms = Some(value.unix_ms(scalar)?),
            Role::Member => {
                if let Some(json) = value.json(scalar)? {
                    members.insert(self.chosen.name.clone(), json);
                }
            }
            Role::Vector => {}
        }
        Ok(())
    }

    /// The value of the next row; none if it is null.
    fn scalar(&mut self) -> Option<One<'_>> {
        if self.value_level > 0 {
            let level = self.levels.definitions.get(self.next_level).copied();
            self.next_level += 1;
            if level != Some(self.value_level) {
                return None;
            }
        }
        let index = self.next_value;
        self.next_value += 1;
        self.values.get(index)
    }

    /// The list of the next row; none if it is null or empty.
    fn vector(&mut self) -> Result<Option<Vec<f32>>, String> {
        let levels = self.levels.definitions.get(self.next_level..).unwrap_or_default();
        let repetitions = self.levels.repetitions.get(self.next_level..).unwrap_or_default();
        let more = repetitions.iter().skip(1).take_while(|&&repetition| repetition > 0).count();
        let levels = levels.get(..=more).ok_or("its levels end too early")?;
        self.next_level += levels.len();
        // DuckDB writes an array that is null as one of nulls.
        if levels.iter().all(|&level| level < self.value_level) {
            return Ok(None);
        }
        if let Some(index) = levels.iter().position(|&level| level != self.value_level) {
            return Err(format!("element {index} is null"));
        }
        let range = self.next_value..self.next_value + levels.len();
        self.next_value = range.end;
        let vector = self.values.floats(range).ok_or("its values end too early")?;
        check_dimensions(vector.len()).map_err(|error| error.to_string())?;
        check_finite(&vector).map_err(|error| error.to_string())?;
        Ok(Some(vector))
    }
}

fn non_empty(key: Vec<u8>) -> Result<Vec<u8>, String> {
    if key.is_empty() { Err("a key is not empty".to_owned()) } else { Ok(key) }
}

fn footer(problem: impl Into<String>) -> ParquetError {
    ParquetError::Footer { problem: problem.into() }
}

fn read_footer<R: ChunkReader>(input: &R) -> Result<ParquetMetaData, ParquetError> {
    let bytes = |start: u64, len: u64| {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        guarded(|| input.get_bytes(start, len)).map_err(footer)
    };
    let file_len = input.len();
    let Some(tail_start) = file_len.checked_sub(FOOTER_TAIL_LEN_BYTES as u64) else {
        return Err(ParquetError::NotParquet);
    };
    let tail = bytes(tail_start, FOOTER_TAIL_LEN_BYTES as u64)?;
    let Some((len, magic)) = tail.split_first_chunk::<4>() else {
        return Err(ParquetError::NotParquet);
    };
    match magic {
        b"PAR1" => {}
        b"PARE" => return Err(ParquetError::Encrypted),
        _ => return Err(ParquetError::NotParquet),
    }
    let len = u64::from(u32::from_le_bytes(*len));
    if len > FOOTER_LEN_MAX_BYTES {
        let limit = FOOTER_LEN_MAX_BYTES;
        return Err(footer(format!("its length of {len} bytes is over the limit of {limit}")));
    }
    let start = tail_start.checked_sub(len);
    let start = start.ok_or_else(|| footer("it is longer than the file"))?;
    let bytes = bytes(start, len)?;
    thrift::check_footer(&bytes).map_err(footer)?;
    guarded(|| ParquetMetaDataReader::decode_metadata(&bytes)).map_err(footer)
}
