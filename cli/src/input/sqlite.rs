//! The cache of an earlier program: a SQLite database of texts, and a file for each vector.
//!
//! Tables are told by their columns, `text_hash`, `text` and `vector_file`; others do not matter.
//! All is read in one transaction, so that a program that still writes does not mix two states.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use op_dbus_engine::{ErrorKind, Record};
use op_dbus_formats::exchange::vec_file;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row, Rows};

use super::{Read, read_bounded};
use crate::error::{Error, Result};

/// How long a program that writes is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// Where that program kept the files, beside its database.
const VECTORS_FOLDER: &str = "vectors";

const TABLES: &str = "\
    SELECT t.name FROM pragma_table_list AS t JOIN pragma_table_info(t.name) AS c \
    WHERE t.schema = 'main' AND t.type = 'table' AND NOT t.wr \
    AND c.name IN ('text_hash', 'text', 'vector_file') \
    GROUP BY t.name HAVING count(*) = 3 ORDER BY t.name";

/// A database that was opened to be read.
pub(crate) struct LegacyCache {
    connection: Connection,
    path: PathBuf,
    /// Where to look for the files of vectors, first to last.
    folders: Vec<PathBuf>,
    /// Names of tables, in their order.
    tables: Vec<String>,
    pub(crate) count: u64,
}

impl LegacyCache {
    /// Opens a database; the vectors' files lie in `vectors`, or beside it.
    pub(crate) fn open(path: &Path, vectors: Option<&Path>) -> Result<Self> {
        // SQLite does not say why it cannot open a file.
        let file = fs::File::open(path).map_err(|error| Error::io("open", path, error))?;
        if !file.metadata().map_err(|error| Error::io("read", path, error))?.is_file() {
            return Err(Error::input(path, &"it is no regular file"));
        }
        let beside = path.parent().unwrap_or(Path::new(""));
        let folders = match vectors {
            Some(folder) => vec![folder.to_owned()],
            None => vec![beside.to_owned(), beside.join(VECTORS_FOLDER)],
        };
        let failed = |error| refused(path, error);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        connection.busy_timeout(PATIENCE).map_err(failed)?;
        connection.execute_batch("BEGIN").map_err(failed)?;
        let tables = tables(&connection).map_err(failed)?;
        if tables.is_empty() {
            let problem = "no table in it has the columns text_hash, text and vector_file";
            return Err(Error::input(path, &problem));
        }
        let counts =
            tables.iter().map(|table| format!("SELECT count(*) AS n FROM {}", quoted(table)));
        let counts = counts.collect::<Vec<_>>().join(" UNION ALL ");
        let count = connection
            .query_row(&format!("SELECT sum(n) FROM ({counts})"), [], |row| row.get::<_, i64>(0))
            .map_err(failed)?;
        Ok(Self { connection, path: path.to_owned(), folders, tables, count: count.unsigned_abs() })
    }

    /// Hands records to `read`, in the order in which SQLite finds them. Returns what is left out because its
    /// vector's file is missing, and what `read` returns.
    pub(crate) fn read(
        &self,
        read: impl FnOnce(&mut dyn Iterator<Item = Result<Read>>) -> Result<()>,
    ) -> (Vec<String>, Result<()>) {
        let mut left_out = Vec::new();
        let selects = self.tables.iter().enumerate().map(|(number, table)| {
            format!("SELECT {number}, rowid, text_hash, text, vector_file FROM {}", quoted(table))
        });
        let sql = selects.collect::<Vec<_>>().join(" UNION ALL ");
        let failed = |error| refused(&self.path, error);
        let result = self.connection.prepare(&sql).map_err(failed).and_then(|mut statement| {
            let rows = statement.query([]).map_err(failed)?;
            let mut records =
                Records { cache: self, rows, dimensions: None, left_out: &mut left_out };
            read(&mut records)
        });
        (left_out, result)
    }

    /// The file, in the first folder that has it.
    fn find(&self, vector_file: &str) -> Result<Option<PathBuf>> {
        for folder in &self.folders {
            let path = folder.join(vector_file);
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_file() => return Ok(Some(path)),
                Ok(_) => return Err(Error::input(&path, &"it is no regular file")),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("read", &path, error)),
            }
        }
        Ok(None)
    }
}

/// The records of all tables.
struct Records<'a> {
    cache: &'a LegacyCache,
    rows: Rows<'a>,
    /// Of the first vector, and so of all.
    dimensions: Option<usize>,
    left_out: &'a mut Vec<String>,
}

/// What a row holds, apart from its vector.
struct Entry {
    /// Where it stands, for those who must mend it.
    place: String,
    key: Vec<u8>,
    text: String,
    vector_file: String,
}

impl Iterator for Records<'_> {
    type Item = Result<Read>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let entry = match self.rows.next() {
                Ok(row) => entry(self.cache, row?),
                Err(error) => Err(refused(&self.cache.path, error)),
            };
            // A row that is left out is followed by the next.
            match entry.and_then(|entry| self.record(entry)).transpose() {
                None => {}
                read => return read,
            }
        }
    }
}

impl Records<'_> {
    fn record(&mut self, entry: Entry) -> Result<Option<Read>> {
        let Entry { place, key, text, vector_file } = entry;
        let Some(path) = self.cache.find(&vector_file)? else {
            self.left_out.push(format!("{place}: there is no file {vector_file}"));
            return Ok(None);
        };
        let wrong = |problem: &dyn std::fmt::Display| {
            Error::input(&self.cache.path, &format!("{place}: {}: {problem}", path.display()))
        };
        let bytes = read_bounded(&path, vec_file::FILE_LEN_MAX_BYTES as u64)?;
        let vector = vec_file::decode(&bytes).map_err(|error| wrong(&error))?;
        let dimensions = *self.dimensions.get_or_insert(vector.len());
        if vector.len() != dimensions {
            let found = vector.len();
            return Err(wrong(&format!("{found} elements; those before have {dimensions}")));
        }
        let record = Record::new(key).with_text(text).with_vector(vector);
        Ok(Some(Read { record, ends_batch: false }))
    }
}

fn entry(cache: &LegacyCache, row: &Row<'_>) -> Result<Entry> {
    let failed = |error| refused(&cache.path, error);
    let table = &cache.tables[row.get::<_, u32>(0).map_err(failed)? as usize];
    let row_id: i64 = row.get(1).map_err(failed)?;
    let place = format!("row {row_id} of table {table}");
    let wrong = |problem: String| Error::input(&cache.path, &format!("{place}: {problem}"));
    let text_of = |index: usize, name: &str| match row.get_ref(index).map_err(failed)? {
        ValueRef::Text(text) => String::from_utf8(text.to_vec()).map_err(|error| {
            let byte = error.utf8_error().valid_up_to() + 1;
            wrong(format!("{name}: byte {byte} is not UTF-8"))
        }),
        other => Err(wrong(format!("{name} is {} instead of text", other.data_type()))),
    };
    let key = match row.get_ref(2).map_err(failed)? {
        // Unlike a hash, it is unique in its table only.
        ValueRef::Null => format!("{table}:{row_id}").into_bytes(),
        ValueRef::Text(hash) | ValueRef::Blob(hash) => hash.to_vec(),
        other => return Err(wrong(format!("text_hash is {} instead of text", other.data_type()))),
    };
    let (text, vector_file) = (text_of(3, "text")?, text_of(4, "vector_file")?);
    let is_below = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if vector_file.is_empty() || !Path::new(&vector_file).components().all(is_below) {
        let problem = format!("vector_file {vector_file:?} is no path below the vectors' folder");
        return Err(wrong(problem));
    }
    Ok(Entry { place, key, text, vector_file })
}

fn tables(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(TABLES)?;
    statement.query_map([], |row| row.get(0))?.collect()
}

fn quoted(table: &str) -> String {
    format!("\"{}\"", table.replace('"', "\"\""))
}

/// What SQLite refuses, by what the user can do about it.
fn refused(path: &Path, error: rusqlite::Error) -> Error {
    use rusqlite::ErrorCode as Code;
    let (kind, remedy) = match error.sqlite_error_code() {
        Some(Code::NotADatabase) => (ErrorKind::Invalid, "name a SQLite database"),
        Some(Code::DatabaseCorrupt) => {
            (ErrorKind::Corrupt, "recover it with `sqlite3 FILE .recover`, and import the result")
        }
        Some(Code::DatabaseBusy | Code::DatabaseLocked) => {
            (ErrorKind::Busy, "end the program that writes it, and try again")
        }
        // Whoever reads beside a log shares an index of it with those who write.
        Some(Code::CannotOpen | Code::ReadOnly | Code::PermissionDenied) => (
            ErrorKind::Denied,
            "copy it, with the -wal file beside it, to a directory that you can write",
        ),
        _ => (ErrorKind::Io, "see what SQLite says, mend it and try again"),
    };
    op_dbus_engine::Error::new(kind, format!("cannot read the database {}", path.display()))
        .with_source(error)
        .with_remedy(remedy)
        .into()
}
