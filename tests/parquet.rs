//! Tables of pandas, polars, DuckDB and Arrow are read, and what is damaged is refused.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use op_dbus_formats::Payload;
use op_dbus_formats::exchange::jsonl::ExchangeRecord;
use op_dbus_formats::exchange::parquet::{
    PAGE_LEN_MAX_BYTES, ParquetColumns, ParquetError, ParquetReader, ParquetWriter,
};
use proptest::prelude::*;
use support::random::Random;

type Exchanged = ExchangeRecord<'static>;

/// So often each file is changed.
const FLIPS: usize = 400;

fn foreign_files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("foreign/parquet");
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|name| name == "parquet")).collect();
    paths.sort();
    paths
}

fn read(bytes: &[u8], columns: &ParquetColumns) -> Result<Vec<Exchanged>, ParquetError> {
    ParquetReader::open(Bytes::from(bytes.to_vec()), columns)?.collect()
}

fn written(records: &[Exchanged], dimensions: Option<u32>) -> Vec<u8> {
    let mut table = Vec::new();
    let mut writer = ParquetWriter::new(&mut table, dimensions).unwrap();
    records.iter().for_each(|record| writer.write(record).unwrap());
    writer.finish().unwrap();
    table
}

/// The rows of `foreign/parquet/write.py`.
fn expected() -> Vec<Exchanged> {
    let time = r#""time":"2026-01-31T12:30:15.250Z""#;
    let rows = [
        (
            "a",
            Some("one"),
            Some([0.5, 1.0, -1.5, 2.0]),
            format!(r#"{{"count":1,"score":0.25,"flag":true,"day":"2026-01-31",{time}}}"#),
        ),
        (
            "b",
            Some("two"),
            Some([0.0, 0.5, 0.5, 0.5]),
            format!(r#"{{"count":2,"flag":false,{time}}}"#),
        ),
        (
            "c",
            None,
            Some([4.0, 3.0, 2.0, 1.0]),
            format!(r#"{{"count":3,"score":1e+300,"day":"1969-12-31",{time}}}"#),
        ),
        (
            "d",
            Some("four"),
            None,
            format!(r#"{{"score":-1.0,"flag":true,"day":"2000-02-29",{time}}}"#),
        ),
        (
            "ü",
            Some("five"),
            Some([-0.5, 0.0, 1.0, 8.0]),
            r#"{"count":5,"score":0.1,"flag":false,"day":"9999-12-31"}"#.to_owned(),
        ),
    ];
    let record = |(key, text, vector, payload): (
        &'static str,
        Option<&'static str>,
        Option<[f32; 4]>,
        String,
    )| Exchanged {
        key: Cow::Borrowed(key.as_bytes()),
        text: text.map(Cow::Borrowed),
        vector: vector.map(Vec::from),
        payload: Payload::Json(payload.into()),
        expires_at_unix_ms: None,
    };
    rows.map(record).into()
}

#[test]
fn what_other_programs_write_is_read() {
    let files = foreign_files();
    assert!(files.len() >= 15, "{files:?}");
    for path in files {
        let found = read(&fs::read(&path).unwrap(), &ParquetColumns::default()).unwrap();
        assert_eq!(found, expected(), "{}", path.display());
    }
}

#[test]
fn columns_are_what_they_are_said_to_be() {
    let path = foreign_files().into_iter().find(|path| path.ends_with("duckdb-list.parquet"));
    let table = fs::read(path.unwrap()).unwrap();
    let skipped = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    let columns = ParquetColumns {
        key: Some("text".to_owned()),
        text: Some("key".to_owned()),
        vector: None,
        skipped: skipped(&["count", "score", "flag", "day", "time"]),
    };
    let mut rows = ParquetReader::open(Bytes::from(table.clone()), &columns).unwrap();
    let first = rows.next().unwrap().unwrap();
    assert_eq!((&first.key[..], first.text.as_deref()), (&b"one"[..], Some("a")));
    assert_eq!(first.payload, Payload::None);
    let third = rows.nth(1).unwrap().unwrap_err();
    assert!(matches!(&third, ParquetError::Value { row: 2, .. }), "{third}");
    assert!(rows.next().is_none(), "nothing follows an error");
    let number = ParquetColumns {
        key: Some("count".to_owned()),
        skipped: skipped(&["key"]),
        ..Default::default()
    };
    let keys = ParquetReader::open(Bytes::from(table.clone()), &number).unwrap();
    let keys: Vec<_> = keys.map_while(Result::ok).map(|record| record.key.into_owned()).collect();
    assert_eq!(keys, [b"1", b"2", b"3"]);
    let none = ParquetColumns { skipped: skipped(&["key"]), ..Default::default() };
    let keys: Vec<_> = read(&table, &none).unwrap().into_iter().map(|row| row.key).collect();
    assert_eq!(keys, [b"0", b"1", b"2", b"3", b"4"].map(|key| &key[..]));
    for (columns, word) in [
        (ParquetColumns { key: Some("nowhere".to_owned()), ..Default::default() }, "nowhere"),
        (
            ParquetColumns { vector: Some("text".to_owned()), ..Default::default() },
            "--vector-column",
        ),
        (ParquetColumns { key: Some("score".to_owned()), ..Default::default() }, "whole numbers"),
    ] {
        let error = read(&table, &columns).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn damaged_tables_are_errors_and_no_panics() {
    let mut random = Random::new(11);
    let (mut refused, mut read_anyway, mut panics) = (0, 0, 0);
    std::panic::set_hook(Box::new(|_| {}));
    let mut judge = |table: &[u8]| match read(table, &ParquetColumns::default()) {
        Ok(_) => read_anyway += 1,
        Err(error) => {
            refused += 1;
            panics += u32::from(error.to_string().contains("the bytes are damaged"));
        }
    };
    for path in foreign_files() {
        let table = fs::read(path).unwrap();
        (0..table.len()).step_by(7).for_each(|len| judge(&table[..len]));
        for _ in 0..FLIPS {
            let mut changed = table.clone();
            for _ in 0..=random.below(3) {
                let place = random.below(table.len());
                changed[place] = random.below(256) as u8;
            }
            judge(&changed);
        }
    }
    let _ = std::panic::take_hook();
    println!("{refused} refused, {panics} of them at a panic; {read_anyway} read");
    assert!(refused > 3000 && read_anyway > 100);
}

#[test]
fn pages_that_claim_too_much_are_refused() {
    let record = Exchanged {
        key: Cow::Borrowed(b"a"),
        text: None,
        vector: Some(vec![1.0; 1000]),
        payload: Payload::None,
        expires_at_unix_ms: None,
    };
    let table = written(&vec![record; 100], Some(1000));
    // The page of the vectors: 400,000 bytes of numbers, and their levels.
    let header = |bytes: &[u8]| bytes[..3] == [0x15, 0x00, 0x15] && bytes[3] & 0x80 != 0;
    let place = table.windows(8).position(header).expect("it has a page of more than 64 bytes");
    let mut changed = table.clone();
    let size = ((PAGE_LEN_MAX_BYTES + 1) * 2) as u32;
    let varint = [0, 7, 14, 21, 28].map(|shift| (size >> shift & 0x7F) as u8);
    let old_len = table[place + 3..].iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
    let mut bytes = varint.map(|byte| byte | 0x80);
    bytes[4] &= 0x7F;
    changed.splice(place + 3..place + 3 + old_len, bytes);
    // Behind a header that is longer the footer's places are wrong, but nobody gets so far.
    let error = read(&changed, &ParquetColumns::default()).unwrap_err().to_string();
    assert!(error.contains("over the limit"), "{error}");
}

prop_compose! {
    fn any_record()(
        key in prop_oneof![
            "[a-zü/:]{1,12}".prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 1..20),
        ],
        text in prop::option::of("[^\0]{0,30}"),
        vector in prop::option::of(prop::collection::vec(-1e30_f32..1e30, 5)),
        payload in prop_oneof![
            Just(Payload::None),
            Just(Payload::Json(Cow::Borrowed("{\"a\": [1, 2.50]}"))),
            prop::collection::vec(any::<u8>(), 0..9).prop_map(|bytes| Payload::Bytes(bytes.into())),
        ],
        expires_at_unix_ms in prop::option::of(0..u64::MAX / 2),
    ) -> Exchanged {
        // A record has something beside its key.
        let text = if vector.is_none() && payload == Payload::None {
            Some(text.unwrap_or_default())
        } else {
            text
        };
        Exchanged { key: key.into(), text: text.map(Into::into), vector, payload, expires_at_unix_ms }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn what_is_written_comes_back(records in prop::collection::vec(any_record(), 0..60), known in any::<bool>()) {
        let table = written(&records, known.then_some(5));
        prop_assert_eq!(read(&table, &ParquetColumns::default()).unwrap(), records);
    }
}

#[test]
fn row_groups_end_and_begin() {
    let record = |number: usize| Exchanged {
        key: Cow::Owned(number.to_string().into_bytes()),
        text: None,
        vector: (!number.is_multiple_of(7)).then(|| vec![number as f32; 700]),
        payload: Payload::Json(Cow::Owned(number.to_string())),
        expires_at_unix_ms: Some(number as u64),
    };
    // 28 MB: more than one row group.
    let records: Vec<_> = (0..12_000).map(record).collect();
    let table = written(&records, Some(700));
    assert!(read(&table, &ParquetColumns::default()).unwrap() == records);
}
