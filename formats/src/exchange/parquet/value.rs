//! Single values of a table, as JSON and as parts of a record.

use half::f16;
use parquet::basic::{ConvertedType, LogicalType, TimeUnit, Type};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, DataType, FixedLenByteArray};
use parquet::schema::types::ColumnDescriptor;
use serde_json::Value;

use crate::calendar::Utc;

const MS_OF_DAY: i64 = 24 * 60 * 60 * 1000;
/// Five times the 400 years after which the calendar repeats, so that earlier years have one too.
const MS_BEFORE: i64 = 5 * 146_097 * MS_OF_DAY;
const YEARS_BEFORE: u64 = 5 * 400;

/// What the numbers and bytes of a column stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    Boolean,
    Signed,
    Unsigned,
    Float,
    /// Bytes that are a string, unless they are not UTF-8.
    Text,
    Json,
    Date,
    Timestamp {
        per_second: i64,
    },
}

impl Scalar {
    /// Tells what a column has, or what no record has a place for.
    pub(super) fn of(column: &ColumnDescriptor) -> Result<Self, &'static str> {
        let (logical, converted) = (column.logical_type_ref(), column.converted_type());
        match (column.physical_type(), logical) {
            (_, Some(LogicalType::Decimal(_))) => return Err("decimals"),
            (_, Some(LogicalType::Time(_))) => return Err("times of day"),
            (Type::FIXED_LEN_BYTE_ARRAY, Some(LogicalType::Float16)) => return Ok(Self::Float),
            (Type::FIXED_LEN_BYTE_ARRAY, _) => return Err("bytes of fixed length"),
            (Type::INT96, _) => return Err("timestamps of 96 bits"),
            (Type::INT64, Some(LogicalType::Timestamp(timestamp))) => {
                let per_second = match timestamp.unit {
                    TimeUnit::MILLIS => 1_000,
                    TimeUnit::MICROS => 1_000_000,
                    TimeUnit::NANOS => 1_000_000_000,
                };
                return Ok(Self::Timestamp { per_second });
            }
            _ => {}
        }
        match converted {
            ConvertedType::DECIMAL => return Err("decimals"),
            ConvertedType::TIME_MILLIS | ConvertedType::TIME_MICROS => return Err("times of day"),
            _ => {}
        }
        let is_unsigned = match (logical, converted) {
            (Some(LogicalType::Integer(integer)), _) => !integer.is_signed,
            (_, ConvertedType::UINT_8 | ConvertedType::UINT_16) => true,
            (_, ConvertedType::UINT_32 | ConvertedType::UINT_64) => true,
            _ => false,
        };
        Ok(match (column.physical_type(), converted) {
            (Type::BOOLEAN, _) => Self::Boolean,
            (Type::FLOAT | Type::DOUBLE, _) => Self::Float,
            (Type::BYTE_ARRAY, ConvertedType::JSON) => Self::Json,
            (Type::BYTE_ARRAY, _) if logical == Some(&LogicalType::Json) => Self::Json,
            (Type::BYTE_ARRAY, _) => Self::Text,
            (Type::INT32, _) if logical == Some(&LogicalType::Date) => Self::Date,
            (Type::INT32, ConvertedType::DATE) => Self::Date,
            (Type::INT64, ConvertedType::TIMESTAMP_MILLIS) => Self::Timestamp { per_second: 1_000 },
            (Type::INT64, ConvertedType::TIMESTAMP_MICROS) => {
                Self::Timestamp { per_second: 1_000_000 }
            }
            _ if is_unsigned => Self::Unsigned,
            _ => Self::Signed,
        })
    }
}

/// Values of a column, without the nulls between them.
pub(super) enum Values {
    Booleans(Vec<bool>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Floats(Vec<f32>),
    Doubles(Vec<f64>),
    Bytes(Vec<ByteArray>),
    Fixed(Vec<FixedLenByteArray>),
}

/// One value.
pub(super) enum One<'a> {
    Boolean(bool),
    Int32(i32),
    Int64(i64),
    Float(f32),
    Double(f64),
    Bytes(&'a [u8]),
}

/// Levels of a column's values: which are there, and which begin a row.
#[derive(Default)]
pub(super) struct Levels {
    pub(super) definitions: Vec<i16>,
    pub(super) repetitions: Vec<i16>,
}

impl Values {
    /// Reads values of so many rows in place of those that were here; says of how many there were.
    pub(super) fn read(
        &mut self,
        reader: &mut ColumnReader,
        rows: usize,
        levels: &mut Levels,
    ) -> parquet::errors::Result<usize> {
        fn fill<T: DataType>(
            reader: &mut ColumnReaderImpl<T>,
            rows: usize,
            levels: &mut Levels,
        ) -> parquet::errors::Result<(usize, Vec<T::T>)> {
            let mut values = Vec::new();
            levels.definitions.clear();
            levels.repetitions.clear();
            let (definitions, repetitions) = (&mut levels.definitions, &mut levels.repetitions);
            let read =
                reader.read_records(rows, Some(definitions), Some(repetitions), &mut values)?;
            Ok((read.0, values))
        }
        let read = match reader {
            ColumnReader::BoolColumnReader(reader) => {
                fill(reader, rows, levels).map(|(read, values)| (read, Self::Booleans(values)))
            }
            ColumnReader::Int32ColumnReader(reader) => {
                fill(reader, rows, levels).map(|(read, values)| (read, Self::Int32(values)))
            }
            ColumnReader::Int64ColumnReader(reader) => {
                fill(reader, rows, levels).map(|(read, values)| (read, Self::Int64(values)))
            }
            ColumnReader::FloatColumnReader(reader) => {
                fill(reader, rows, levels).map(|(read, values)| (read, Self::Floats(values)))
            }
            ColumnReader::DoubleColumnReader(reader) => {
                fill(reader, rows, levels).map(|(read, values)| (read, Self::Doubles(values)))
            }
            ColumnReader::ByteArrayColumnReader(reader) => {
                fill(reader, rows, levels).map(|(read, values)| (read, Self::Bytes(values)))
            }
            ColumnReader::FixedLenByteArrayColumnReader(reader) => {
                fill(reader, rows, levels).map(|(read, values)| (read, Self::Fixed(values)))
            }
            // No column of these is chosen.
            ColumnReader::Int96ColumnReader(_) => Ok((0, Self::Booleans(Vec::new()))),
        };
        let (rows, values) = read?;
        *self = values;
        Ok(rows)
    }

    pub(super) fn get(&self, index: usize) -> Option<One<'_>> {
        Some(match self {
            Self::Booleans(values) => One::Boolean(*values.get(index)?),
            Self::Int32(values) => One::Int32(*values.get(index)?),
            Self::Int64(values) => One::Int64(*values.get(index)?),
            Self::Floats(values) => One::Float(*values.get(index)?),
            Self::Doubles(values) => One::Double(*values.get(index)?),
            Self::Bytes(values) => One::Bytes(values.get(index)?.data()),
            Self::Fixed(values) => One::Float(half_of(values.get(index)?)),
        })
    }

    /// Copies floats, as they are or as the nearest of four bytes.
    pub(super) fn floats(&self, range: std::ops::Range<usize>) -> Option<Vec<f32>> {
        Some(match self {
            Self::Floats(values) => values.get(range)?.to_vec(),
            Self::Doubles(values) => values.get(range)?.iter().map(|&value| value as f32).collect(),
            Self::Fixed(values) => values.get(range)?.iter().map(half_of).collect(),
            _ => return None,
        })
    }
}

fn half_of(bytes: &FixedLenByteArray) -> f32 {
    match bytes.data() {
        &[low, high] => f16::from_le_bytes([low, high]).to_f32(),
        _ => f32::NAN,
    }
}

impl One<'_> {
    /// The value as JSON; none for a NaN, by which some say that there is nothing.
    pub(super) fn json(&self, scalar: Scalar) -> Result<Option<Value>, String> {
        let float = |value: f64, json: Value| match value {
            _ if value.is_nan() => Ok(None),
            _ if value.is_infinite() => Err("an infinity has no JSON".to_owned()),
            _ => Ok(Some(json)),
        };
        Ok(Some(match (self, scalar) {
            (Self::Boolean(value), _) => Value::from(*value),
            (Self::Int32(days), Scalar::Date) => {
                Value::from(moment(i64::from(*days) * MS_OF_DAY)?[..10].to_owned())
            }
            (Self::Int64(time), Scalar::Timestamp { per_second }) => {
                Value::from(moment(unix_ms(*time, per_second))?)
            }
            (Self::Int32(value), Scalar::Unsigned) => Value::from(*value as u32),
            (Self::Int64(value), Scalar::Unsigned) => Value::from(*value as u64),
            (Self::Int32(value), _) => Value::from(*value),
            (Self::Int64(value), _) => Value::from(*value),
            (Self::Float(value), _) => {
                // Through its shortest decimals, which JSON's double would not have.
                let json = serde_json::from_str(&value.to_string()).unwrap_or(Value::Null);
                return float(f64::from(*value), json);
            }
            (Self::Double(value), _) => return float(*value, Value::from(*value)),
            (Self::Bytes(bytes), Scalar::Json) => {
                serde_json::from_slice(bytes).map_err(|error| format!("it is not JSON: {error}"))?
            }
            (Self::Bytes(bytes), _) => Value::from(text(bytes)?),
        }))
    }

    /// The value as a key.
    pub(super) fn key(&self, scalar: Scalar) -> Vec<u8> {
        match (self, scalar) {
            (Self::Bytes(bytes), _) => bytes.to_vec(),
            (Self::Int32(value), Scalar::Unsigned) => (*value as u32).to_string().into_bytes(),
            (Self::Int64(value), Scalar::Unsigned) => (*value as u64).to_string().into_bytes(),
            (Self::Int32(value), _) => value.to_string().into_bytes(),
            (Self::Int64(value), _) => value.to_string().into_bytes(),
            // Columns of these are refused as keys.
            (Self::Boolean(_) | Self::Float(_) | Self::Double(_), _) => Vec::new(),
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            _ => &[],
        }
    }

    /// The moment that the value tells, in milliseconds since 1970.
    pub(super) fn unix_ms(&self, scalar: Scalar) -> Result<u64, String> {
        match (self, scalar) {
            (Self::Int64(time), Scalar::Timestamp { per_second }) => {
                u64::try_from(unix_ms(*time, per_second))
                    .map_err(|_| "it is before 1970".to_owned())
            }
            _ => Err("it is no timestamp".to_owned()),
        }
    }
}

pub(super) fn text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes)
        .map_err(|error| format!("byte {} is not UTF-8", error.valid_up_to() + 1))
}

fn unix_ms(time: i64, per_second: i64) -> i64 {
    time.div_euclid(per_second / 1_000)
}

/// As RFC 3339 has it.
fn moment(unix_ms: i64) -> Result<String, String> {
    let far = || "a date before the year 0 or after 9999 has no words".to_owned();
    let shifted = unix_ms.checked_add(MS_BEFORE).and_then(|ms| u64::try_from(ms).ok());
    let utc = Utc::from_unix_ms(shifted.ok_or_else(far)?);
    let year = utc.year.checked_sub(YEARS_BEFORE).filter(|year| *year <= 9999).ok_or_else(far)?;
    let Utc { month, day, hour, minute, second, .. } = utc;
    let ms = unix_ms.rem_euclid(1000);
    Ok(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_have_words() {
        assert_eq!(moment(0).unwrap(), "1970-01-01T00:00:00.000Z");
        assert_eq!(moment(-1).unwrap(), "1969-12-31T23:59:59.999Z");
        assert_eq!(moment(951_827_696_789).unwrap(), "2000-02-29T12:34:56.789Z");
        assert!(moment(i64::MAX).is_err());
        assert!(moment(i64::MIN).is_err());
    }

    #[test]
    fn single_floats_keep_their_digits() {
        let json = One::Float(0.1).json(Scalar::Float).unwrap().unwrap();
        assert_eq!(json.to_string(), "0.1");
        assert_eq!(One::Double(f64::NAN).json(Scalar::Float), Ok(None));
        assert!(One::Float(f32::INFINITY).json(Scalar::Float).is_err());
    }
}
