//! Records as rows of a table.

use std::io::Write;
use std::sync::Arc;

use parquet::basic::{
    Compression, ConvertedType, LogicalType, Repetition, TimeUnit, Type, ZstdLevel,
};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, FloatType, Int64Type};
use parquet::errors::ParquetError as CrateError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{ColumnPath, Type as SchemaType, TypePtr};

use super::ParquetError;
use super::arrow_schema;
use crate::Payload;
use crate::exchange::jsonl::ExchangeRecord;

/// So much of records is held until it is written as a row group.
const ROW_GROUP_LEN_BYTES: usize = 16 << 20;
const ROW_GROUP_ROWS_MAX: usize = 64 << 10;

/// Definition levels of an element of a vector: there is none, or there is a number.
const NO_VECTOR: i16 = 0;
const ELEMENT: i16 = 3;

/// Writes records as a table.
///
/// Cost: holds up to 16 MiB of records, and as much again while they are written.
pub struct ParquetWriter<W: Write + Send> {
    file: SerializedFileWriter<W>,
    rows: Rows,
}

/// Rows that wait, by column. Values have no nulls between them.
#[derive(Default)]
struct Rows {
    count: usize,
    len_bytes: usize,
    key: Optional<ByteArray>,
    key_bytes: Optional<ByteArray>,
    text: Optional<ByteArray>,
    vector: Vectors,
    payload: Optional<ByteArray>,
    payload_bytes: Optional<ByteArray>,
    expires_at: Optional<i64>,
}

#[derive(Default)]
struct Vectors {
    numbers: Vec<f32>,
    definitions: Vec<i16>,
    repetitions: Vec<i16>,
}

struct Optional<T> {
    values: Vec<T>,
    definitions: Vec<i16>,
}

impl<T> Default for Optional<T> {
    fn default() -> Self {
        Self { values: Vec::new(), definitions: Vec::new() }
    }
}

impl<T> Optional<T> {
    fn push(&mut self, value: Option<T>) {
        self.definitions.push(i16::from(value.is_some()));
        self.values.extend(value);
    }
}

impl Vectors {
    fn push(&mut self, vector: Option<&[f32]>) {
        let Some(vector) = vector else {
            self.definitions.push(NO_VECTOR);
            self.repetitions.push(0);
            return;
        };
        self.numbers.extend_from_slice(vector);
        self.definitions.extend(vector.iter().map(|_| ELEMENT));
        self.repetitions.extend((0..vector.len()).map(|index| i16::from(index > 0)));
    }
}

impl<W: Write + Send> ParquetWriter<W> {
    /// Begins a table. Vectors must have so many dimensions, if that is known.
    ///
    /// # Errors
    /// [`ParquetError::Write`].
    pub fn new(out: W, dimensions: Option<u32>) -> Result<Self, ParquetError> {
        let vector = ColumnPath::new(["vector", "list", "element"].map(str::to_owned).to_vec());
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_created_by("op-dbus".to_owned())
            // Numbers of vectors are hardly ever the same, and no search asks for their bounds.
            .set_column_dictionary_enabled(vector.clone(), false)
            .set_column_compression(vector.clone(), Compression::UNCOMPRESSED)
            .set_column_statistics_enabled(vector, EnabledStatistics::None);
        if let Some(dimensions) = dimensions {
            let schema = KeyValue::new("ARROW:schema".to_owned(), arrow_schema::of(dimensions));
            properties = properties.set_key_value_metadata(Some(vec![schema]));
        }
        let schema = schema().map_err(write_error)?;
        let file = SerializedFileWriter::new(out, schema, Arc::new(properties.build()));
        Ok(Self { file: file.map_err(write_error)?, rows: Rows::default() })
    }

    /// Adds a record.
    ///
    /// # Errors
    /// [`ParquetError::Record`] if it expires later than a table can say, [`ParquetError::Write`].
    pub fn write(&mut self, record: &ExchangeRecord<'_>) -> Result<(), ParquetError> {
        let expires_at = record.expires_at_unix_ms.map(i64::try_from).transpose();
        let expires_at = expires_at.map_err(|_| ParquetError::Record {
            key: String::from_utf8_lossy(&record.key).into_owned(),
            problem: "it expires later than a timestamp of 64 bits can say".to_owned(),
        })?;
        self.rows.push(record, expires_at);
        if self.rows.len_bytes >= ROW_GROUP_LEN_BYTES || self.rows.count >= ROW_GROUP_ROWS_MAX {
            self.write_row_group()?;
        }
        Ok(())
    }

    /// Ends the table.
    ///
    /// # Errors
    /// [`ParquetError::Write`].
    pub fn finish(mut self) -> Result<(), ParquetError> {
        self.write_row_group()?;
        self.file.close().map(drop).map_err(write_error)
    }

    fn write_row_group(&mut self) -> Result<(), ParquetError> {
        if self.rows.count == 0 {
            return Ok(());
        }
        let rows = std::mem::take(&mut self.rows);
        let mut group = self.file.next_row_group().map_err(write_error)?;
        rows.write(&mut group).and_then(|()| group.close()).map(drop).map_err(write_error)
    }
}

impl Rows {
    fn push(&mut self, record: &ExchangeRecord<'_>, expires_at: Option<i64>) {
        let bytes = |bytes: &[u8]| ByteArray::from(bytes.to_vec());
        let is_text = std::str::from_utf8(&record.key).is_ok();
        self.key.push(is_text.then(|| bytes(&record.key)));
        self.key_bytes.push((!is_text).then(|| bytes(&record.key)));
        self.text.push(record.text.as_deref().map(|text| bytes(text.as_bytes())));
        self.vector.push(record.vector.as_deref());
        let (json, other) = match &record.payload {
            Payload::None => (None, None),
            Payload::Json(json) => (Some(json.as_bytes()), None),
            Payload::Bytes(bytes) => (None, Some(&bytes[..])),
        };
        self.payload.push(json.map(bytes));
        self.payload_bytes.push(other.map(bytes));
        self.expires_at.push(expires_at);
        let payload_bytes = json.or(other).map_or(0, <[u8]>::len);
        let vector_bytes = record.vector.as_ref().map_or(0, |vector| size_of_val(&vector[..]));
        let text_bytes = record.text.as_ref().map_or(0, |text| text.len());
        self.count += 1;
        self.len_bytes += record.key.len() + text_bytes + vector_bytes + payload_bytes;
    }

    /// Writes the columns in the order of [`schema`].
    fn write<W: Write + Send>(
        &self,
        group: &mut SerializedRowGroupWriter<'_, W>,
    ) -> Result<(), CrateError> {
        let bytes = |group: &mut _, column: &Optional<ByteArray>| {
            write_column::<ByteArrayType, W>(group, &column.values, &column.definitions, None)
        };
        bytes(group, &self.key)?;
        bytes(group, &self.key_bytes)?;
        bytes(group, &self.text)?;
        let Vectors { numbers, definitions, repetitions } = &self.vector;
        write_column::<FloatType, W>(group, numbers, definitions, Some(repetitions))?;
        bytes(group, &self.payload)?;
        bytes(group, &self.payload_bytes)?;
        let Optional { values, definitions } = &self.expires_at;
        write_column::<Int64Type, W>(group, values, definitions, None)
    }
}

fn write_column<T: DataType, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &[T::T],
    definitions: &[i16],
    repetitions: Option<&[i16]>,
) -> Result<(), CrateError> {
    let Some(mut column) = group.next_column()? else {
        return Err(CrateError::General("the schema has fewer columns".to_owned()));
    };
    column.typed::<T>().write_batch(values, Some(definitions), repetitions)?;
    column.close()
}

fn schema() -> Result<TypePtr, CrateError> {
    let optional = |name: &str, physical: Type, logical: Option<LogicalType>| {
        SchemaType::primitive_type_builder(name, physical)
            .with_repetition(Repetition::OPTIONAL)
            .with_logical_type(logical)
            .build()
            .map(Arc::new)
    };
    let (string, binary) = (Some(LogicalType::String), Type::BYTE_ARRAY);
    let list = SchemaType::group_type_builder("list")
        .with_repetition(Repetition::REPEATED)
        .with_fields(vec![optional("element", Type::FLOAT, None)?])
        .build()?;
    let vector = SchemaType::group_type_builder("vector")
        .with_repetition(Repetition::OPTIONAL)
        .with_logical_type(Some(LogicalType::List))
        .with_converted_type(ConvertedType::LIST)
        .with_fields(vec![Arc::new(list)])
        .build()?;
    let expires = LogicalType::timestamp(true, TimeUnit::MILLIS);
    let columns = vec![
        optional("key", binary, string.clone())?,
        optional("key_bytes", binary, None)?,
        optional("text", binary, string.clone())?,
        Arc::new(vector),
        optional("payload", binary, string)?,
        optional("payload_bytes", binary, None)?,
        optional("expires_at", Type::INT64, Some(expires))?,
    ];
    SchemaType::group_type_builder("record").with_fields(columns).build().map(Arc::new)
}

/// What went wrong, with the kind of a failed write kept.
fn write_error(error: CrateError) -> ParquetError {
    let error = match error {
        CrateError::External(error) => match error.downcast::<std::io::Error>() {
            Ok(error) => *error,
            Err(error) => std::io::Error::other(error),
        },
        error => std::io::Error::other(error),
    };
    ParquetError::Write(error)
}
