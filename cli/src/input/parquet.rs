//! Tables of Parquet: a file is read where it is wanted, so a pipe cannot be one.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Once;

use op_dbus_engine::{ErrorKind, Record};
use op_dbus_formats::exchange::parquet::{ParquetColumns, ParquetError, ParquetReader, is_reading};

use super::{Read, Source, is_stdin};
use crate::args::Columns;
use crate::error::{Error, Result};

pub(super) fn open(path: &Path, columns: &Columns) -> Result<Source> {
    say_nothing_of_damaged_bytes();
    let failed = |error| Error::io("open", path, error);
    let file = match is_stdin(path) {
        true => File::from(std::io::stdin().as_fd().try_clone_to_owned().map_err(failed)?),
        false => File::open(path).map_err(failed)?,
    };
    let name = if is_stdin(path) { Path::new("standard input") } else { path };
    if !file.metadata().map_err(failed)?.is_file() {
        let problem = format!("{}: Parquet cannot be read from a pipe", name.display());
        return Err(op_dbus_engine::Error::new(ErrorKind::Unsupported, problem)
            .with_remedy("its index is at its end: write it to a file and name that, or use jsonl")
            .into());
    }
    let columns = ParquetColumns {
        key: columns.key_column.clone(),
        text: columns.text_column.clone(),
        vector: columns.vector_column.clone(),
        skipped: columns.skip_column.clone(),
    };
    let name = name.to_owned();
    let reader = ParquetReader::open(file, &columns).map_err(|error| refused(&name, &error))?;
    let rows = reader.rows();
    let records = reader.map(move |record| {
        let exchanged = record.map_err(|error| refused(&name, &error))?;
        let record = Record {
            key: exchanged.key.into_owned(),
            text: exchanged.text.map(Into::into),
            vector: exchanged.vector,
            payload: exchanged.payload.into_owned(),
            expires_at_unix_ms: exchanged.expires_at_unix_ms,
        };
        Ok(Read { record, ends_batch: false })
    });
    Ok(super::exchange::source(Some(rows), records))
}

/// The remedy by what is wrong: the file, or how it is asked for.
fn refused(path: &Path, error: &ParquetError) -> Error {
    let remedy = match error {
        ParquetError::NotParquet | ParquetError::Footer { .. } | ParquetError::Content { .. } => {
            "write or copy the file once more; rows before the damage are stored"
        }
        ParquetError::Encrypted => "write the file without encryption",
        ParquetError::Column { .. } | ParquetError::NoColumns => {
            "say which columns are what (op-dbus cache import --help), or write the file otherwise"
        }
        ParquetError::Value { .. } | ParquetError::EmptyRow { .. } => {
            "correct it and run the same command again; what came before is stored"
        }
        ParquetError::Record { .. } | ParquetError::Write(_) => "write it otherwise",
    };
    op_dbus_engine::Error::new(ErrorKind::Invalid, format!("{}: {error}", path.display()))
        .with_remedy(remedy)
        .into()
}

/// A panic over damaged bytes becomes an error; what it prints by itself is nothing for a user.
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
