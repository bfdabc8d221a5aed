//! The cache of an earlier program comes in: a SQLite database, and a file for each vector.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};
use serde_json::Value;
use support::program::Workplace;
use support::random::Random;

const DIMENSIONS: usize = 24;
const NOT_FOUND: i32 = 3;
const INVALID: i32 = 4;
const BUSY: i32 = 5;

const TABLE: &str = "CREATE TABLE embeddings (
    text_hash TEXT PRIMARY KEY, text TEXT NOT NULL, vector_file TEXT NOT NULL,
    created_at INTEGER NOT NULL, access_count INTEGER NOT NULL DEFAULT 1)";

fn workplace() -> Workplace {
    Workplace::new(env!("CARGO_BIN_EXE_op-dbus"))
}

fn vec_file(vector: &[f32]) -> Vec<u8> {
    let elements = vector.iter().flat_map(|element| element.to_le_bytes());
    (vector.len() as u64).to_le_bytes().into_iter().chain(elements).collect()
}

/// A cache as the earlier program left it.
struct Legacy {
    folder: PathBuf,
    connection: Connection,
    vectors: Vec<Vec<f32>>,
}

impl Legacy {
    /// Makes one with so many texts, whose files lie in `vectors` beside the database.
    fn new(place: &Workplace, count: usize) -> Self {
        let folder = place.path().join("embeddings");
        fs::create_dir_all(folder.join("vectors")).unwrap();
        let connection = Connection::open(folder.join("index.db")).unwrap();
        connection.execute_batch(TABLE).unwrap();
        let mut legacy = Self { folder, connection, vectors: Vec::new() };
        let mut random = Random::new(5);
        for number in 0..count {
            let vector = random.vector(DIMENSIONS);
            legacy.add(&format!("{number:04}"), &format!("text {number}"), &vector);
            legacy.vectors.push(vector);
        }
        legacy
    }

    fn add(&self, hash: &str, text: &str, vector: &[f32]) {
        fs::write(self.vector(hash), vec_file(vector)).unwrap();
        self.row(hash, text, &format!("{hash}.vec"));
    }

    fn row(&self, hash: &str, text: &str, file: &str) {
        let sql = "INSERT INTO embeddings (text_hash, text, vector_file, created_at)
            VALUES (?1, ?2, ?3, 0)";
        self.connection.execute(sql, params![hash, text, file]).unwrap();
    }

    fn vector(&self, hash: &str) -> PathBuf {
        self.folder.join("vectors").join(format!("{hash}.vec"))
    }

    fn database(&self) -> PathBuf {
        self.folder.join("index.db")
    }
}

fn arguments(database: &Path) -> [String; 4] {
    let database = database.to_str().unwrap().to_owned();
    ["cache".to_owned(), "import".to_owned(), "--from-sqlite".to_owned(), database]
}

fn import(place: &Workplace, database: &Path) -> Value {
    place.op(arguments(database)).arguments(["--json"]).run().succeeded().json()
}

fn exported(place: &Workplace, collection: &str) -> Vec<Value> {
    let lines = place.done(["cache", "export", "--collection", collection]).text();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn vector_of(record: &Value) -> Vec<f32> {
    let elements = record["vector"].as_array().unwrap();
    elements.iter().map(|element| element.as_f64().unwrap() as f32).collect()
}

#[test]
fn what_the_cache_held_becomes_records_bit_for_bit() {
    let place = workplace();
    let legacy = Legacy::new(&place, 700);
    let answer = import(&place, &legacy.database());
    assert_eq!(answer["records"], 700);
    assert_eq!(answer["left_out"].as_array().unwrap().len(), 0);
    let records = exported(&place, "legacy");
    assert_eq!(records.len(), 700);
    for (number, (record, vector)) in records.iter().zip(&legacy.vectors).enumerate() {
        assert_eq!(record["key"], format!("{number:04}"));
        assert_eq!(record["text"], format!("text {number}"));
        assert_eq!(vector_of(record), *vector);
    }
    let again = import(&place, &legacy.database());
    assert_eq!((&again["records"], &again["skipped"]), (&700.into(), &700.into()));
}

#[test]
fn what_is_in_the_log_beside_the_database_counts() {
    let place = workplace();
    let legacy = Legacy::new(&place, 3);
    legacy.connection.pragma_update(None, "journal_mode", "wal").unwrap();
    legacy.connection.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
    legacy.add("9999", "only in the log", &[0.5; DIMENSIONS]);
    let mut log = legacy.database().into_os_string();
    log.push("-wal");
    assert!(fs::metadata(log).unwrap().len() > 0, "the row has left the log");
    // The earlier program still has it open, and then is gone without closing it.
    assert_eq!(import(&place, &legacy.database())["records"], 4);
    let copy = place.path().join("copy");
    fs::create_dir(&copy).unwrap();
    for name in ["index.db", "index.db-wal"] {
        fs::copy(legacy.folder.join(name), copy.join(name)).unwrap();
    }
    let vectors = legacy.folder.join("vectors");
    let run = place.op(arguments(&copy.join("index.db"))).arguments(["--json", "--collection"]);
    let run = run.arguments(["copied", "--vectors", vectors.to_str().unwrap()]);
    assert_eq!(run.run().succeeded().json()["records"], 4);
    assert_eq!(exported(&place, "copied"), exported(&place, "legacy"));
}

#[test]
fn a_missing_file_is_named_and_the_others_come_in() {
    let place = workplace();
    let legacy = Legacy::new(&place, 30);
    for number in [0, 7, 29] {
        fs::remove_file(legacy.vector(&format!("{number:04}"))).unwrap();
    }
    let answer = import(&place, &legacy.database());
    assert_eq!(answer["records"], 27);
    let left_out = answer["left_out"].as_array().unwrap();
    assert_eq!(left_out.len(), 3);
    for (reason, name) in left_out.iter().zip(["0000.vec", "0007.vec", "0029.vec"]) {
        let reason = reason.as_str().unwrap();
        assert!(reason.contains(name) && reason.contains("row"), "{reason}");
    }
    let noted = place.op(arguments(&legacy.database())).run().succeeded();
    assert!(noted.stderr.contains("0007.vec"), "{}", noted.stderr);
}

#[test]
fn a_row_that_is_wrong_is_named_and_what_came_before_is_whole() {
    let long = vec_file(&[0.25; DIMENSIONS + 1]);
    let cut = vec_file(&[0.25; DIMENSIONS])[..40].to_vec();
    let infinite = vec_file(&[f32::INFINITY; DIMENSIONS]);
    let huge = vec![0; 300 << 10];
    for (content, why) in
        [(long, "25 elements"), (cut, "0300.vec"), (infinite, "finite"), (huge, "longer than")]
    {
        let place = workplace();
        let legacy = Legacy::new(&place, 300);
        legacy.row("0300", "wrong", "0300.vec");
        fs::write(legacy.vector("0300"), content).unwrap();
        legacy.add("0301", "after it", &[0.5; DIMENSIONS]);
        let run = place.op(arguments(&legacy.database())).arguments(["--json"]).run();
        let told = run.refused(INVALID, &["0300.vec", why]);
        assert!(told.contains("what came before is stored"), "{told}");
        assert_eq!(exported(&place, "legacy").len(), 300);
    }
}

#[test]
fn a_path_out_of_the_folder_is_refused() {
    for file in ["../outside.vec", "/etc/hostname", ""] {
        let place = workplace();
        let legacy = Legacy::new(&place, 1);
        fs::write(place.path().join("outside.vec"), vec_file(&[0.5; DIMENSIONS])).unwrap();
        legacy.row("9999", "outside", file);
        let run = place.op(arguments(&legacy.database())).arguments(["--json"]).run();
        let _ = run.refused(INVALID, &["index.db", "row 2", file]);
    }
}

#[test]
fn what_is_no_such_database_is_refused_and_no_store_is_made() {
    let place = workplace();
    let _ = place.file("text.db", "not a database, but long enough to look at: ".repeat(100));
    let other = place.path().join("other.db");
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE t (text, text_hash)").unwrap();
    for (name, code, why) in [
        ("text.db", INVALID, "not a database"),
        ("other.db", INVALID, "vector_file"),
        ("nowhere.db", NOT_FOUND, "nowhere.db"),
        (".", INVALID, "regular file"),
    ] {
        let run = place.op(arguments(Path::new(name))).arguments(["--json"]).run();
        let _ = run.refused(code, &[name, why]);
    }
    assert!(!place.store().exists());
    let run = place.op(["cache", "import", "a.jsonl", "--from-sqlite", "b.db"]).run();
    assert_eq!(run.code(), Some(2));
    assert_eq!(place.op(["cache", "import"]).run().code(), Some(2));
}

#[test]
fn rows_of_any_table_come_in_with_or_without_a_hash() {
    let place = workplace();
    let legacy = Legacy::new(&place, 1);
    let sql = "CREATE TABLE \"older \"\" ones\" (id INTEGER PRIMARY KEY, text TEXT,
        text_hash BLOB, vector_file TEXT, dimension INT);
        INSERT INTO \"older \"\" ones\" VALUES (7, 'no hash', NULL, 'vectors/0000.vec', 24),
            (8, 'a hash', x'6162', './0000.vec', 24)";
    legacy.connection.execute_batch(sql).unwrap();
    assert_eq!(import(&place, &legacy.database())["records"], 3);
    let records = exported(&place, "legacy");
    let found: Vec<_> = records.iter().map(|record| record["key"].as_str().unwrap()).collect();
    assert_eq!(found, ["0000", "ab", "older \" ones:7"]);
    assert!(records.iter().all(|record| vector_of(record) == legacy.vectors[0]));
}

#[test]
fn a_database_that_somebody_holds_is_busy() {
    let place = workplace();
    let legacy = Legacy::new(&place, 1);
    legacy.connection.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let run = place.op(arguments(&legacy.database())).arguments(["--json"]).run();
    let _ = run.refused(BUSY, &["index.db"]);
}

#[test]
fn an_encoding_asked_for_is_the_collections_or_refused() {
    let place = workplace();
    let legacy = Legacy::new(&place, 10);
    let import = |collection: &str, encoding: &str| {
        let run = place.op(arguments(&legacy.database())).arguments(["--json"]);
        run.arguments(["--collection", collection, "--encoding", encoding]).run()
    };
    for encoding in ["f32", "f16", "i8"] {
        assert_eq!(import(encoding, encoding).succeeded().json()["records"], 10);
        assert_eq!(import(encoding, encoding).succeeded().json()["skipped"], 10);
    }
    let stats = place.done(["stats", "--json"]).json();
    for collection in stats["collections"].as_array().unwrap() {
        assert_eq!(collection["encoding"], collection["name"]);
    }
    let halves = exported(&place, "f16");
    assert_ne!(halves, exported(&place, "f32"));
    let told = import("f16", "i8").refused(INVALID, &["collection f16", "f16, not i8"]);
    assert!(told.contains("another name"), "{told}");
    assert_eq!(exported(&place, "f16"), halves);
    place.file("texts.txt", "a text\n");
    let run = place.op(["index", "texts.txt", "--encoding", "f16", "--json"]).run();
    let _ = run.refused(INVALID, &["texts.txt:1", "f16"]);
    assert_eq!(import("new", "f64").code(), Some(2));
}
