//! What must hold of arrays, tables and keys that come from elsewhere.

use std::sync::Once;

use op_dbus_formats::exchange::keys as keys_format;
use op_dbus_formats::exchange::npy;
use op_dbus_formats::exchange::parquet::{
    ParquetColumns, ParquetReader, ParquetWriter, is_reading,
};

/// More rows of a table that says that it has millions teach nothing.
const ROWS_MAX: usize = 2000;

/// A key that is parsed renders to a line of the same.
pub fn keys(data: &[u8]) {
    let Ok(key) = keys_format::parse_line(data) else { return };
    let mut line = Vec::new();
    keys_format::render_line(&key, &mut line).expect("what was parsed renders");
    assert_eq!(line.iter().position(|&byte| byte == b'\n'), Some(line.len() - 1));
    assert_eq!(keys_format::parse_line(&line), Ok(key));
}

/// A header that is parsed renders to one of the same shape; its rows decode or are
/// refused.
pub fn npy(data: &[u8]) {
    if let Ok((columns, numbers)) = npy::decode_whole_numbers(data) {
        assert!(numbers.len() <= data.len() && (columns == 0 || numbers.len() % columns == 0));
    }
    let Ok(header) = npy::NpyHeader::parse(data) else { return };
    assert!(header.file_len_bytes() >= header.data_offset_bytes);
    let rendered = npy::render_header(header.rows, header.dimensions).expect("a shape that parsed");
    let parsed = npy::NpyHeader::parse(&rendered);
    // Elements of two bytes allow twice the rows that elements of four do.
    if let Ok(parsed) = &parsed {
        assert_eq!((parsed.rows, parsed.dimensions), (header.rows, header.dimensions));
    }
    assert!(parsed.is_ok() || header.rows > u64::MAX / 4 / header.row_len_bytes() as u64);
    let mut vector = vec![0.0; header.dimensions];
    let rows = &data[header.data_offset_bytes as usize..];
    for row in rows.chunks_exact(header.row_len_bytes()).take(header.rows.min(64) as usize) {
        if header.decode_row(row, &mut vector).is_ok() {
            assert!(vector.iter().all(|number| number.is_finite()));
        }
    }
}

/// A table is refused, or has records that are written and come back. What the parquet crate
/// panics at is refused too.
pub fn parquet(data: &[u8]) {
    say_nothing_of_damaged_bytes();
    let open = |bytes: Vec<u8>| ParquetReader::open(bytes::Bytes::from(bytes), &Default::default());
    let Ok(mut reader) = open(data.to_vec()) else { return };
    let records: Vec<_> = reader.by_ref().take(ROWS_MAX).map_while(Result::ok).collect();
    let mut table = Vec::new();
    let mut writer = ParquetWriter::new(&mut table, None).expect("a vector takes every byte");
    for record in &records {
        assert!(!record.key.is_empty());
        assert!(record.vector.iter().flatten().all(|number| number.is_finite()));
        writer.write(record).expect("what a table had it can have");
    }
    writer.finish().expect("a vector takes every byte");
    if records.is_empty() {
        return;
    }
    let again = ParquetReader::open(bytes::Bytes::from(table), &ParquetColumns::default());
    let again = again.expect("what was written is a table").map(Result::unwrap);
    assert!(again.eq(records));
}

/// The fuzzer takes a panic that becomes an error for one that does not.
fn say_nothing_of_damaged_bytes() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !is_reading() {
                before(panic);
            }
        }));
    });
}
