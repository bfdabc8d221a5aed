//! What a user, a program or a disk can get wrong: each has its exit code, a message that names
//! the culprit, a remedy, and leaves the store as it was.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use op_dbus_formats::exchange::npy;
use op_dbus_formats::header::{FILE_HEADER_LEN_BYTES, FileHeader, FormatVersion};
use op_dbus_formats::store_file;
use serde_json::Value;
use support::program::{Ended, Workplace, is_root};
use support::{model, onnx, random::Random};

const INVALID: i32 = 4;
const NOT_FOUND: i32 = 3;
const FULL: i32 = 6;
const CORRUPT: i32 = 7;
const DENIED: i32 = 9;
const UNAVAILABLE: i32 = 10;
const UNSUPPORTED: i32 = 11;

/// What one line may take, with room for the program itself, far below the gigabyte it is sent.
const MEMORY_BYTES_MAX: u64 = 400 << 20;

fn workplace() -> Workplace {
    Workplace::new(env!("CARGO_BIN_EXE_op-dbus"))
}

fn lines_of_vectors(count: usize, dimensions: usize) -> String {
    let mut random = Random::new(17);
    let line = |number| {
        let vector = serde_json::to_string(&random.vector(dimensions)).unwrap();
        format!("{{\"key\":\"{number:06}\",\"vector\":{vector}}}\n")
    };
    (0..count).map(line).collect()
}

/// A workplace whose store has a few records, and what an export of them says.
fn with_records() -> (Workplace, Vec<u8>) {
    let place = workplace();
    place.file("good.jsonl", lines_of_vectors(40, 4));
    let _ = place.done(["cache", "import", "good.jsonl", "--collection", "good"]);
    let exported = export(&place);
    assert_eq!(exported.iter().filter(|byte| **byte == b'\n').count(), 40);
    (place, exported)
}

fn export(place: &Workplace) -> Vec<u8> {
    place.done(["cache", "export", "--collection", "good"]).stdout
}

/// The store opens, counts and tells what it did before.
fn assert_intact(place: &Workplace, exported: &[u8]) {
    let stats = place.done(["stats", "--json"]).json();
    let collections = stats["collections"].as_array().unwrap();
    let names: Vec<_> = collections.iter().map(|known| known["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["good"], "a failed command left something behind");
    assert!(export(place) == exported, "the records have changed");
}

/// Runs a command that must fail on a store with records, which must not notice.
fn refused(arguments: &[&str], input: Option<Vec<u8>>, code: i32, names: &[&str]) -> String {
    let (place, exported) = with_records();
    let told = refused_in(&place, arguments, input, code, names);
    assert_intact(&place, &exported);
    told
}

fn refused_in(
    place: &Workplace,
    arguments: &[&str],
    input: Option<Vec<u8>>,
    code: i32,
    names: &[&str],
) -> String {
    let run = place.op(arguments).arguments(["--json"]);
    let run = match input {
        Some(input) => run.input(input),
        None => run,
    };
    run.run().refused(code, names)
}

/// A directory with links to the files of the installed model, but for those that are given.
fn model_with(place: &Workplace, changes: &[(&str, Option<&[u8]>)]) -> PathBuf {
    let installed = model::installed();
    let directory = place.path().join("changed-model");
    fs::create_dir(&directory).unwrap();
    for name in ["model.onnx", "tokenizer.json", "config.json"] {
        let path = directory.join(name);
        match changes.iter().find(|(changed, _)| *changed == name) {
            Some((_, Some(content))) => fs::write(path, content).unwrap(),
            Some((_, None)) => {}
            None => symlink(installed.join(name), path).unwrap(),
        }
    }
    directory
}

fn refused_model(changes: &[(&str, Option<&[u8]>)], code: i32, names: &[&str]) {
    let (place, exported) = with_records();
    let directory = model_with(&place, changes);
    let arguments = ["cache", "get", "words", "--model", directory.to_str().unwrap()];
    refused_in(&place, &arguments, None, code, names);
    assert_intact(&place, &exported);
}

#[test]
fn a_model_that_is_not_there_is_named() {
    let told =
        refused(&["cache", "get", "words", "--model", "nowhere"], None, NOT_FOUND, &["nowhere"]);
    assert!(told.contains("make setup"), "{told}");
    // A relative base directory does not count, or whoever writes the current one chose the model.
    let (place, _) = with_records();
    let run = place.op(["cache", "get", "words", "--json"]).variable("HOME", place.path());
    let told =
        run.variable("XDG_DATA_HOME", "relative").run().refused(NOT_FOUND, &[".local/share"]);
    assert!(!told.contains("relative"), "{told}");
    refused_model(&[("model.onnx", None)], NOT_FOUND, &["model.onnx"]);
    refused_model(&[("tokenizer.json", None)], NOT_FOUND, &["tokenizer.json"]);
}

#[test]
fn a_model_that_is_cut_off_is_named() {
    let installed = model::installed();
    for name in ["model.onnx", "tokenizer.json"] {
        let whole = fs::read(installed.join(name)).unwrap();
        for len in [0, 1, whole.len() / 2, whole.len() - 1] {
            refused_model(&[(name, Some(&whole[..len]))], CORRUPT, &[name]);
        }
    }
    refused_model(&[("config.json", Some(b"{\"hidden_size\":"))], CORRUPT, &["config.json"]);
}

#[test]
fn a_model_of_another_kind_is_refused() {
    let picture = onnx::model(
        &[("image", onnx::FLOAT, &[1, 3, 224, 224])],
        &[("classes", onnx::FLOAT, &[1, 1000])],
    );
    refused_model(&[("model.onnx", Some(&picture))], UNSUPPORTED, &["model.onnx", "image"]);
    let tokens =
        [("input_ids", onnx::INT64, &[1, 8][..]), ("attention_mask", onnx::INT64, &[1, 8])];
    let classes = onnx::model(&tokens, &[("classes", onnx::FLOAT, &[1, 2])]);
    refused_model(&[("model.onnx", Some(&classes))], UNSUPPORTED, &["model.onnx"]);
    let config = b"{\"hidden_size\": 383}";
    refused_model(&[("config.json", Some(config))], INVALID, &["model.onnx", "384", "383"]);
}

/// Builds a library that says it is ONNX Runtime 1.9.
fn old_runtime(directory: &Path) -> PathBuf {
    const SOURCE: &str = "\
        static const void *api(unsigned version) { return 0; }\n\
        static const char *version(void) { return \"1.9.0\"; }\n\
        static const struct { const void *(*api)(unsigned); const char *(*version)(void); } base =\n\
            { api, version };\n\
        const void *OrtGetApiBase(void) { return &base; }\n";
    let (source, library) = (directory.join("old.c"), directory.join("libonnxruntime.so"));
    fs::write(&source, SOURCE).unwrap();
    let built =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status();
    assert!(built.unwrap().success(), "the C compiler that builds RocksDB is needed");
    library
}

#[test]
fn a_runtime_that_cannot_be_used_is_named() {
    model::installed();
    let (place, exported) = with_records();
    let text = place.file("no-library.so", "not a library");
    let old = old_runtime(place.path());
    let cases = [
        (Path::new("/nowhere/libonnxruntime.so"), "no such file"),
        (&text, "cannot be loaded"),
        (&old, "1.9"),
    ];
    for (path, why) in cases {
        let run = place.op(["cache", "get", "words", "--json"]).variable("ORT_DYLIB_PATH", path);
        let told = run.run().refused(UNAVAILABLE, &[path.to_str().unwrap(), why]);
        assert!(told.contains("make setup"), "{told}");
    }
    assert_intact(&place, &exported);
}

#[test]
fn a_line_of_a_gigabyte_takes_little_memory() {
    for arguments in [&["cache", "import", "-"][..], &["index", "-"]] {
        let (place, exported) = with_records();
        let ended = place
            .op(arguments)
            .arguments(["--json"])
            .input_from(|stdin| {
                let chunk = vec![b'a'; 1 << 20];
                (0..1024).try_for_each(|_| stdin.write_all(&chunk))
            })
            .run();
        assert!(ended.peak_memory_bytes > 0, "it was too fast to be measured");
        assert!(ended.peak_memory_bytes < MEMORY_BYTES_MAX, "{} bytes", ended.peak_memory_bytes);
        ended.refused(INVALID, &["stdin", "line 1"]);
        assert_intact(&place, &exported);
    }
}

#[test]
fn text_that_is_not_utf8_is_named_by_its_place() {
    model::installed();
    let latin = b"plain\ncaf\xe9\n".to_vec();
    let (place, _) = with_records();
    place.file("latin.txt", &latin);
    refused_in(&place, &["index", "latin.txt"], None, INVALID, &["latin.txt", "line 2"]);
    let jsonl = b"{\"key\":\"a\",\"payload\":1}\n{\"key\":\"caf\xe9\",\"payload\":1}\n".to_vec();
    let arguments = ["cache", "import", "-", "--collection", "good"];
    refused_in(&place, &arguments, Some(jsonl), INVALID, &["stdin", "line 2"]);
    // What came before the mistake is kept.
    let kept = place.done(["cache", "export", "--collection", "good"]).text();
    assert!(kept.lines().any(|line| line == "{\"key\":\"a\",\"payload\":1}"), "{kept}");
}

#[test]
fn numbers_that_are_none_are_refused() {
    let import = ["cache", "import", "-", "--collection", "good"];
    for vector in ["[NaN,0,0,0]", "[1e39,0,0,0]", "[-Infinity,0,0,0]", "[\"1\",0,0,0]", "{}", "[]"]
    {
        let line = format!("{{\"key\":\"a\",\"vector\":{vector}}}\n");
        refused(&import, Some(line.into_bytes()), INVALID, &["stdin", "line 1"]);
    }
    let rows = |last: f32| -> Vec<u8> {
        [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, last]
            .iter()
            .flat_map(|x: &f32| x.to_le_bytes())
            .collect()
    };
    let (place, exported) = with_records();
    for last in [f32::NAN, f32::INFINITY] {
        let array = [npy::render_header(2, 4).unwrap(), rows(last)].concat();
        place.file("array.npy", &array);
        let four = 4_u32.to_le_bytes();
        let fvecs = [&four, &rows(last)[..16], &four, &rows(last)[16..]].concat();
        place.file("array.fvecs", fvecs);
        for name in ["array.npy", "array.fvecs"] {
            // The first row is good and would be kept, so it goes elsewhere.
            let elsewhere = ["cache", "import", name, "--collection", "elsewhere"];
            refused_in(&place, &elsewhere, None, INVALID, &[name, "row 1"]);
        }
    }
    assert!(export(&place) == exported);
    place.file("cut.npy", [npy::render_header(2, 4).unwrap(), rows(8.0)[..20].to_vec()].concat());
    refused_in(&place, &["cache", "import", "cut.npy"], None, INVALID, &["cut.npy", "row 1"]);
}

#[test]
fn vectors_of_another_length_are_refused_and_leave_no_collection() {
    let import = ["cache", "import", "-", "--collection", "good"];
    let line = b"{\"key\":\"short\",\"vector\":[1,2,3]}\n".to_vec();
    refused(&import, Some(line), INVALID, &["short", "3", "good", "4"]);
    let lines = b"{\"key\":\"a\",\"vector\":[1,2]}\n{\"key\":\"b\",\"vector\":[1,2,3]}\n".to_vec();
    refused(&["cache", "import", "-", "--collection", "new"], Some(lines), INVALID, &["b", "new"]);
    model::installed();
    let put = ["cache", "put", "words", "--vector", "-"];
    refused(&put, Some(b"[1, 2, 3]".to_vec()), INVALID, &["3", "384"]);
    refused(&put, Some(b"[1, 2".to_vec()), INVALID, &["-"]);
}

#[test]
fn a_mistake_in_a_line_is_explained() {
    let import = ["cache", "import", "-", "--collection", "good"];
    let cases = [
        ("{\"key\":\"a\",\"txt\":\"words\"}", "text"),
        ("{\"text\":\"words\"}", "key"),
        ("{\"key\":\"a\"}", "payload"),
        ("{\"key\":\"\",\"payload\":1}", "key"),
        ("{\"key\":\"a\",\"payload\":1}{", "line 1"),
        ("[1,2]", "line 1"),
    ];
    for (line, named) in cases {
        let input = format!("\n{line}\n").replacen('\n', "", 1).into_bytes();
        refused(&import, Some(input), INVALID, &["stdin", "line 1", named]);
    }
}

#[test]
fn xml_that_is_no_introspection_is_refused() {
    let deep = format!("{}{}", "<node>".repeat(200), "</node>".repeat(200));
    let bomb = "<!DOCTYPE node [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;&a;\">]><node>&b;</node>";
    let cases: [(&str, &str); 6] = [
        ("bomb.xml", bomb),
        ("deep.xml", &deep),
        ("picture.xml", "<svg xmlns=\"http://www.w3.org/2000/svg\"><path d=\"M0 0\"/></svg>"),
        ("cut.xml", "<node><interface name=\"org.example.A\"><method name=\"M\">"),
        (
            "name.xml",
            "<node><interface name=\"not a name\"><method name=\"M\"/></interface></node>",
        ),
        ("empty.xml", ""),
    ];
    let (place, exported) = with_records();
    for (name, content) in cases {
        place.file(name, content);
        refused_in(&place, &["index", name], None, INVALID, &[name, "line 1"]);
        place.file(&format!("directory/{name}"), content);
    }
    // In a directory they are left out by name; alone there they leave nothing to index.
    let ended = place.op(["index", "directory"]).run().exited(INVALID);
    for (name, _) in cases {
        assert!(ended.stderr.contains(name), "{}", ended.stderr);
    }
    assert_intact(&place, &exported);
}

#[test]
fn what_is_not_there_is_named() {
    refused(&["index", "nothing.txt"], None, NOT_FOUND, &["nothing.txt"]);
    refused(&["cache", "import", "nothing.jsonl"], None, NOT_FOUND, &["nothing.jsonl"]);
    let told = refused(&["cache", "export", "--collection", "none"], None, NOT_FOUND, &["none"]);
    assert!(told.contains("good"), "the remedy lists what there is: {told}");
    model::installed();
    let told = refused(&["query", "words", "--collection", "none"], None, NOT_FOUND, &["none"]);
    assert!(told.contains("good"), "{told}");
    refused(&["query", "words"], None, NOT_FOUND, &["collection"]);
    refused(&["query", "words", "--collection", "good"], None, INVALID, &["good", "vectors given"]);
}

#[test]
fn a_directory_is_no_file_and_a_file_no_directory() {
    let (place, exported) = with_records();
    fs::create_dir(place.path().join("directory")).unwrap();
    let elsewhere = place.file("file", "not a directory");
    for arguments in [
        &["cache", "import", "directory"][..],
        &["cache", "import", "directory", "--format", "npy"],
        &["cache", "put", "words", "--vector", "directory"],
        &["index", "directory"],
    ] {
        refused_in(&place, arguments, None, INVALID, &["directory"]);
    }
    let elsewhere = elsewhere.to_str().unwrap();
    // Of two options the last counts.
    refused_in(&place, &["index", "good.jsonl", "--store", elsewhere], None, INVALID, &[elsewhere]);
    refused_in(&place, &["stats", "--store", elsewhere], None, INVALID, &[elsewhere]);
    assert_eq!(fs::read_to_string(elsewhere).unwrap(), "not a directory");
    let onto = ["cache", "export", "--collection", "good", "-o", "file"];
    refused_in(&place, &onto, None, INVALID, &["file"]);
    assert_eq!(fs::read_to_string(elsewhere).unwrap(), "not a directory", "it was overwritten");
    assert_intact(&place, &exported);
}

#[test]
fn nothing_to_read_is_no_failure() {
    for (name, content) in [("empty.txt", ""), ("blank.txt", "\n \n"), ("empty.jsonl", "\n")] {
        let place = workplace();
        place.file(name, content);
        let indexed = place.done(["index", name, "--json"]).json();
        assert_eq!(indexed["records"], 0, "{name}");
        assert_eq!(place.done(["stats", "--json"]).json()["collections"], Value::Array(vec![]));
    }
}

#[test]
fn a_value_that_means_nothing_is_refused() {
    model::installed();
    refused(&["query", "words", "-k", "0"], None, 2, &["0"]);
    refused(&["query", " "], None, INVALID, &["empty"]);
    refused(&["index", "good.jsonl", "--collection", "Bad Name"], None, INVALID, &["Bad Name"]);
    refused(&["query", "words", "--provider", "gpu"], None, 2, &["gpu"]);
    refused(&["cache", "get", "words", "--provider", "cuda"], None, UNAVAILABLE, &["cuda"]);
}

#[test]
fn a_store_of_another_version_is_left_alone() {
    let (place, exported) = with_records();
    let path = place.store().join("@state/STORE");
    let original = fs::read(&path).unwrap();
    let payload = &original[FILE_HEADER_LEN_BYTES..];
    let newer = FormatVersion(store_file::VERSION.0 + 1);
    let header = FileHeader::of_payload(store_file::MAGIC, newer, payload).encode();
    fs::write(&path, [&header[..], payload].concat()).unwrap();
    refused_in(&place, &["stats"], None, UNSUPPORTED, &["STORE", "version"]);
    refused_in(&place, &["cache", "import", "good.jsonl"], None, UNSUPPORTED, &["STORE"]);
    for bit in [0, 8 * 70, 8 * original.len() - 1] {
        let mut damaged = original.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, damaged).unwrap();
        refused_in(&place, &["stats"], None, CORRUPT, &["STORE"]);
    }
    fs::write(&path, &original[..20]).unwrap();
    refused_in(&place, &["stats"], None, CORRUPT, &["STORE"]);
    fs::remove_file(&path).unwrap();
    refused_in(&place, &["stats"], None, CORRUPT, &["STORE"]);
    fs::write(&path, &original).unwrap();
    assert_intact(&place, &exported);
}

/// The files of one of the store's databases, but for those that nobody reads.
fn database_files(place: &Workplace, subvolume: &str) -> Vec<PathBuf> {
    let unread =
        |name: &str| ["LOG", "LOCK", "OPTIONS", "IDENTITY"].iter().any(|n| name.starts_with(n));
    let mut files: Vec<PathBuf> = fs::read_dir(place.store().join(subvolume).join("db"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| !unread(path.file_name().unwrap().to_str().unwrap()))
        .filter(|path| fs::metadata(path).unwrap().len() > 0)
        .collect();
    files.sort();
    files
}

/// Copies a directory tree.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(copied.success());
}

/// Flips a bit in each file of the authority, at several places, and says how an export ended.
fn exports_of_damaged(place: &Workplace) -> Vec<(String, Ended)> {
    const PLACES_COUNT: u64 = 7;
    let whole = place.path().join("whole");
    fs::rename(place.store(), &whole).unwrap();
    let mut ended = Vec::new();
    for number in 1..=PLACES_COUNT {
        copy(&whole, &place.store());
        let files = database_files(place, "@state").len();
        for file in 0..files {
            let _ = fs::remove_dir_all(place.store());
            copy(&whole, &place.store());
            let path = &database_files(place, "@state")[file];
            let mut bytes = fs::read(path).unwrap();
            let at = (bytes.len() as u64 * number / (PLACES_COUNT + 1)) as usize;
            bytes[at] ^= 0x10;
            fs::write(path, bytes).unwrap();
            let shown = format!("byte {at} of {}", path.display());
            let run = place.op(["cache", "export", "--collection", "good", "--json"]).run();
            ended.push((shown, run));
        }
        let _ = fs::remove_dir_all(place.store());
    }
    fs::rename(&whole, place.store()).unwrap();
    ended
}

/// Runs exports of a store with a flipped bit: each must fail and say so, or be whole.
fn assert_damage_is_told(place: &Workplace, exported: &[u8]) {
    let mut told = 0;
    for (shown, ended) in exports_of_damaged(place) {
        if ended.code() == Some(0) {
            // Bytes that nothing depends on: a hint, or padding.
            assert!(ended.stdout == exported, "{shown}: records were lost in silence");
        } else {
            ended.refused(CORRUPT, &["@state"]);
            told += 1;
        }
    }
    assert!(told > 0, "no flipped bit was noticed");
    assert_intact(place, exported);
}

#[test]
fn a_flipped_bit_in_a_table_is_told_and_never_answered_with() {
    // The export opened the store again, which wrote tables from the log.
    let (place, exported) = with_records();
    assert_damage_is_told(&place, &exported);
}

/// The log is all there is of what was written last. Damage in its middle is not its end.
#[test]
fn a_flipped_bit_in_the_log_is_told_and_never_taken_for_its_end() {
    let place = workplace();
    let original = lines_of_vectors(1000, 4);
    place.file("good.jsonl", &original);
    let _ = place.done(["cache", "import", "good.jsonl", "--collection", "good"]);
    assert_damage_is_told(&place, original.as_bytes());
}

#[test]
fn a_damaged_cache_costs_time_and_nothing_else() {
    const QUERY: [&str; 3] = ["query", "an animal", "--json"];
    model::installed();
    let place = workplace();
    place.file("zoo.txt", "the lion sleeps\nthe train is late\nthe bank is closed\n");
    let _ = place.done(["index", "zoo.txt"]);
    let keys = |ended: Ended| -> Vec<Value> {
        ended.json()["hits"].as_array().unwrap().iter().map(|hit| hit["key"].clone()).collect()
    };
    let expected = keys(place.done(QUERY));
    for file in database_files(&place, "@cache") {
        // A replaced cache has other files than the one before.
        let Ok(mut bytes) = fs::read(&file) else { continue };
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        fs::write(&file, bytes).unwrap();
        assert_eq!(keys(place.done(QUERY)), expected, "{}", file.display());
    }
    fs::remove_dir_all(place.store().join("@cache")).unwrap();
    assert_eq!(keys(place.done(QUERY)), expected);
}

#[test]
fn a_full_disk_loses_nothing_that_was_acknowledged() {
    let place = workplace();
    let original = lines_of_vectors(20_000, 64);
    place.file("many.jsonl", &original);
    let ended = place
        .op(["cache", "import", "many.jsonl", "--collection", "good", "--ack", "--json"])
        // In kibibytes, for each file.
        .within("ulimit -f 2048; exec \"$0\" \"$@\"")
        .run();
    let acknowledged = ended.text().lines().count();
    assert!((1..20_000).contains(&acknowledged), "the test needs a limit in between");
    ended.refused(FULL, &["@state"]);
    // Whole batches from the beginning, as they were given, and at least what was acknowledged.
    let kept = export(&place);
    assert!(original.as_bytes().starts_with(&kept), "something was half written");
    let kept = kept.iter().filter(|byte| **byte == b'\n').count();
    assert!(kept >= acknowledged, "{acknowledged} were acknowledged, {kept} are there");
    let rest = place.done(["cache", "import", "many.jsonl", "--collection", "good", "--json"]);
    assert_eq!(rest.json()["skipped"], kept);
    assert!(export(&place) == original.as_bytes());
}

#[test]
fn a_disk_that_is_full_from_the_start_leaves_no_half_store() {
    let place = workplace();
    place.file("good.jsonl", lines_of_vectors(40, 4));
    let import = ["cache", "import", "good.jsonl", "--collection", "good"];
    let limited = place.op(import).arguments(["--json"]).within("ulimit -f 0; exec \"$0\" \"$@\"");
    limited.run().refused(FULL, &[place.store().to_str().unwrap()]);
    let _ = place.done(import);
    assert_eq!(place.done(["stats", "--json"]).json()["collections"][0]["records"], 40);
}

/// A script that runs the program without root's right to ignore permissions.
fn as_nobody_special() -> &'static str {
    if is_root() {
        "exec setpriv --bounding-set=-dac_override,-dac_read_search -- \"$0\" \"$@\""
    } else {
        "exec \"$0\" \"$@\""
    }
}

fn set_writable(path: &Path, writable: bool) {
    let mode = if writable { "u+w" } else { "a-w" };
    assert!(Command::new("chmod").args(["-R", mode]).arg(path).status().unwrap().success());
}

#[test]
fn a_read_only_directory_is_named() {
    let (place, exported) = with_records();
    let locked = place.path().join("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o555)).unwrap();
    let new = locked.join("store");
    let new = new.to_str().unwrap();
    let run =
        place.op(["index", "good.jsonl", "--store", new, "--json"]).within(as_nobody_special());
    run.run().refused(DENIED, &[new]);

    set_writable(&place.store(), false);
    for arguments in [&["stats", "--json"][..], &["index", "good.jsonl", "--json"]] {
        let run = place.op(arguments).within(as_nobody_special()).run();
        run.refused(DENIED, &[place.store().to_str().unwrap()]);
    }
    set_writable(&place.store(), true);
    assert_intact(&place, &exported);
}
