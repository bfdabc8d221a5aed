//! The program as its users see it: help, answers, exit codes, and what stays on the disk.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeSet;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use op_dbus_cli::exit::Exit;
use op_dbus_engine::ErrorKind;
use serde_json::{Value, json};
use support::program::{Ended, Workplace};
use support::{model, random::Random};

const HELP_COLUMNS_MAX: usize = 100;

/// Texts that a query can tell apart, one a line.
const FABLE: &str = "\
The hare slept under a tree while the race went on.
A crow dropped pebbles into the jug until the water rose.
The ant carried grain into its store all summer long.
Nobody believed the shepherd boy when the wolf came at last.
The fox said that the grapes were sour anyway.
";

fn workplace() -> Workplace {
    Workplace::new(env!("CARGO_BIN_EXE_op-dbus"))
}

/// A workplace with the texts of [`FABLE`] indexed, which needs the model.
fn with_fable() -> Workplace {
    model::installed();
    let place = workplace();
    place.file("fable.txt", FABLE);
    let indexed = place.done(["index", "fable.txt", "--json"]).json();
    assert_eq!(indexed["embedded"], 5, "{indexed}");
    place
}

fn names(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// The hits of an answer: key and score, in order.
fn hits(answer: &Value) -> Vec<(String, f64)> {
    let hit =
        |hit: &Value| (hit["key"].as_str().unwrap().to_owned(), hit["score"].as_f64().unwrap());
    answer["hits"].as_array().unwrap().iter().map(hit).collect()
}

fn assert_same_hits(found: &[(String, f64)], expected: &[(String, f64)]) {
    // Embeddings computed in other company differ in their last bits.
    let same = found.len() == expected.len()
        && found.iter().zip(expected).all(|(a, b)| a.0 == b.0 && (a.1 - b.1).abs() < 1e-5);
    assert!(same, "found {found:?}\nexpected {expected:?}");
}

fn json_lines(text: &[u8]) -> Vec<Value> {
    let lines = std::str::from_utf8(text).unwrap().lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn help_of_every_command_has_examples_and_fits() {
    let place = workplace();
    let commands = place.commands(&[]);
    assert!(commands.len() >= 9, "found only {commands:?}");
    for command in &commands {
        let help = place.op(command).arguments(["--help"]).run().succeeded().text();
        let example = format!("  op-dbus {}", command.join(" "));
        let has_example = help.split_once("Example").is_some_and(|(_, end)| end.contains(&example));
        assert!(has_example, "the help of {command:?} shows no use of it:\n{help}");
    }
    for command in commands.iter().chain([&Vec::new(), &vec!["cache".to_owned()]]) {
        let help = place.op(command).arguments(["--help"]).run().succeeded().text();
        for line in help.lines() {
            let columns = line.chars().count();
            assert!(columns <= HELP_COLUMNS_MAX, "{columns} columns: {line}");
        }
    }
}

/// What the help says about an exit code. A new kind of error does not compile without.
fn meaning(exit: Exit) -> &'static str {
    match exit {
        Exit::Success => "done",
        Exit::NothingFound => "nothing found",
        Exit::Usage => "wrong command line",
        Exit::NotAsDeclared => "the state is not as declared",
        Exit::Regressed => "slower than the baseline",
        Exit::Interrupted => "stopped by Ctrl-C",
        Exit::Failed(kind) => match kind {
            ErrorKind::NotFound => "something does not exist",
            ErrorKind::Invalid => "the input is wrong",
            ErrorKind::Busy => "the store is in use",
            ErrorKind::Full => "no room on the disk",
            ErrorKind::Corrupt => "stored bytes are damaged",
            ErrorKind::Poisoned => "the store refuses writes",
            ErrorKind::Denied => "a right is missing",
            ErrorKind::Unavailable => "something must be installed or started",
            ErrorKind::Unsupported => "this version cannot do it",
            ErrorKind::Io => "the operating system refused",
        },
    }
}

#[test]
fn the_table_of_exit_codes_is_what_the_program_returns() {
    let help = workplace().op(["--help"]).run().succeeded().text();
    let table = help.split("Exit codes:").nth(1).unwrap();
    // Two columns, each a number and its meaning, parted by blanks in a row.
    let mut cells: Vec<(u8, String)> = Vec::new();
    for word in table.split_whitespace() {
        match (word.parse(), cells.last_mut()) {
            (Ok(code), _) => cells.push((code, String::new())),
            (Err(_), Some((_, meaning))) => *meaning += &format!(" {word}"),
            (Err(_), None) => panic!("no number before {word}"),
        }
    }
    let told: BTreeSet<_> =
        cells.iter().map(|(code, meaning)| (*code, meaning.trim_start())).collect();
    let kinds = [
        ErrorKind::NotFound,
        ErrorKind::Invalid,
        ErrorKind::Busy,
        ErrorKind::Full,
        ErrorKind::Corrupt,
        ErrorKind::Poisoned,
        ErrorKind::Denied,
        ErrorKind::Unavailable,
        ErrorKind::Unsupported,
        ErrorKind::Io,
    ];
    let others = [
        Exit::Success,
        Exit::NothingFound,
        Exit::Usage,
        Exit::NotAsDeclared,
        Exit::Regressed,
        Exit::Interrupted,
    ];
    let exits = kinds.map(Exit::Failed).into_iter().chain(others);
    let expected: BTreeSet<_> = exits.map(|exit| (exit.code(), meaning(exit))).collect();
    assert_eq!(told, expected);
}

#[test]
fn answers_have_exactly_the_fields_that_programs_rely_on() {
    let place = with_fable();
    place.file(
        "more.jsonl",
        "{\"key\":\"wolf\",\"text\":\"a grey wolf\",\"payload\":{\"paws\":4}}\n",
    );
    let indexed = place.done(["index", "more.jsonl", "--json"]).json();
    assert_eq!(
        names(&indexed),
        ["records", "embedded", "cached", "skipped", "seconds", "bytes", "truncated", "left_out"]
    );
    let imported = place.done(["cache", "import", "more.jsonl", "--json"]).json();
    assert_eq!(names(&imported), names(&indexed));
    assert_eq!(
        (&imported["records"], &imported["cached"], &imported["skipped"]),
        (&json!(1), &json!(1), &json!(1))
    );

    let answer = place.done(["query", "wild dog", "-k", "2", "--json"]).json();
    assert_eq!(names(&answer), ["hits", "took_us"]);
    assert_eq!(answer["hits"].as_array().unwrap().len(), 2);
    let best = &answer["hits"][0];
    assert_eq!(names(best), ["collection", "key", "score", "text", "payload"]);
    assert_eq!(
        (&best["collection"], &best["key"], &best["text"], &best["payload"]),
        (&json!("documents"), &json!("wolf"), &json!("a grey wolf"), &json!({ "paws": 4 }))
    );
    assert_eq!(answer["hits"][1]["payload"], Value::Null);
    assert!(answer["took_us"].is_u64());

    let first = place.done(["cache", "get", "an unseen text", "--json"]).json();
    assert_eq!(names(&first), ["model", "dimensions", "vector", "hit"]);
    assert_eq!((&first["dimensions"], &first["hit"]), (&json!(384), &json!(false)));
    let second = place.done(["cache", "get", "an unseen text", "--json"]).json();
    assert_eq!(second["hit"], json!(true));
    assert_eq!(first["vector"], second["vector"], "the cache keeps every bit");
    assert_eq!(first["vector"].as_array().unwrap().len(), 384);
}

#[test]
fn figures_of_the_cache_are_null_without_traffic_and_right_with_it() {
    const FIELDS: [&str; 12] = [
        "embeddings",
        "bytes_memory",
        "bytes_disk",
        "bytes_disk_max",
        "evictions_disk",
        "hits",
        "misses",
        "hit_rate",
        "compression_ratio",
        "embed_seconds_saved",
        "tier",
        "tier_hit_rate",
    ];
    let empty = workplace();
    empty.file("vector.jsonl", "{\"key\":\"a\",\"vector\":[1,2]}\n");
    let _ = empty.done(["cache", "import", "vector.jsonl"]);
    let stats = empty.done(["cache", "stats", "--json"]).json();
    assert_eq!(names(&stats), FIELDS);
    assert_eq!((&stats["hit_rate"], &stats["compression_ratio"]), (&Value::Null, &Value::Null));
    assert_eq!(stats["embed_seconds_saved"], 0.0);

    let place = with_fable();
    let _ = place.done(["index", "fable.txt"]);
    let stats = place.done(["cache", "stats", "--json"]).json();
    assert_eq!(names(&stats), FIELDS);
    assert_eq!((&stats["embeddings"], &stats["hits"]), (&json!(5), &json!(5)));
    assert_eq!((&stats["misses"], &stats["hit_rate"]), (&json!(5), &json!(0.5)));
    assert!(stats["embed_seconds_saved"].as_f64().unwrap() > 0.0);
    assert!(stats["bytes_disk"].as_u64().unwrap() > 5 * 384 * 4);
}

/// Lines as the program writes them, in the order of their keys, with everything that a careless
/// reader would change.
fn records_to_keep() -> String {
    let mut lines: Vec<String> = [
        r#"{"key":"a","payload":{"b":1,"a":2,"é":[1.0,1e3,1E+2,-0.0,12345678901234567890123]}}"#,
        r#"{"key":"b","payload":"\u00e9 and é, \ud83d\ude00 and 😀"}"#,
        r#"{"key":"c","vector":[0.1,-0.0,1e-45,3.4028235e38],"payload":null}"#,
        r#"{"key":"d \"quoted\" \\ \n","text":"línea\tuno\nзвезда 星","vector":[1.0,2.0,3.0,4.0]}"#,
        r#"{"key":"e","vector":[0.33333334,16777216.0,1.1754944e-38,-2.5e-7],"payload":[ ]}"#,
    ]
    .map(str::to_owned)
    .into();
    let mut random = Random::new(11);
    for number in 0..200 {
        let vector = serde_json::to_string(&random.vector(4)).unwrap();
        lines.push(format!("{{\"key\":\"r{number:03}\",\"vector\":{vector}}}"));
    }
    lines.join("\n") + "\n"
}

#[test]
fn records_survive_import_and_export_in_every_byte() {
    let (first, second) = (workplace(), workplace());
    let original = records_to_keep();
    first.file("in.jsonl", &original);
    // The first record has no vector to say how long they are.
    first.file("space.jsonl", "{\"key\":\"c\",\"vector\":[1,2,3,4]}\n");
    let _ = first.done(["cache", "import", "space.jsonl"]);
    let _ = first.done(["cache", "import", "in.jsonl"]);
    let exported = first.done(["cache", "export"]);
    let parsed = json_lines(&exported.stdout);
    assert_eq!(parsed.len(), original.lines().count());
    for (exported, original) in exported.text().lines().zip(original.lines()) {
        let bits = |line: &str| -> Vec<u32> {
            let record: Value = serde_json::from_str(line).unwrap();
            let vector = record["vector"].as_array().cloned().unwrap_or_default();
            vector.iter().map(|x| (x.as_f64().unwrap() as f32).to_bits()).collect()
        };
        assert_eq!(bits(exported), bits(original));
        let payload = |line: &str| line.split_once("\"payload\":").map(|(_, end)| end.to_owned());
        assert_eq!(payload(exported), payload(original), "payloads are kept as they were written");
    }
    second.file("space.jsonl", "{\"key\":\"c\",\"vector\":[1,2,3,4]}\n");
    let _ = second.done(["cache", "import", "space.jsonl"]);
    let _ = second.op(["cache", "import", "-"]).input(exported.stdout.clone()).run().succeeded();
    assert!(
        second.done(["cache", "export"]).stdout == exported.stdout,
        "the second export differs"
    );
    let _ = second.done(["cache", "export", "-o", "out.jsonl"]);
    assert!(std::fs::read(second.path().join("out.jsonl")).unwrap() == exported.stdout);
}

#[test]
fn indexing_again_computes_nothing() {
    let place = with_fable();
    let again = place.done(["index", "fable.txt", "--json"]).json();
    let counts = ["records", "embedded", "cached", "skipped"].map(|name| again[name].as_u64());
    assert_eq!(counts, [5, 0, 5, 5].map(Some));
    // Another key, the same words.
    let other = place.done(["index", "fable.txt", "--collection", "copy", "--json"]).json();
    assert_eq!((&other["embedded"], &other["skipped"]), (&json!(0), &json!(0)));
}

#[test]
fn answers_are_the_same_without_the_cache() {
    const QUERY: [&str; 5] = ["query", "a liar is not trusted", "-k", "5", "--json"];
    let place = with_fable();
    let before = hits(&place.done(QUERY).json());
    assert_eq!(before[0].0, "fable.txt:4");
    let records = place.done(["cache", "export"]).stdout;

    let cleared = place.done(["cache", "clear", "--json"]).json();
    assert!(cleared["removed"].as_u64() >= Some(5), "{cleared}");
    let stats = place.done(["stats", "--json"]).json();
    assert_eq!(stats["cache"]["embeddings"], 0);
    assert_eq!(stats["collections"][0]["records"], 5);
    assert_same_hits(&hits(&place.done(QUERY).json()), &before);

    std::fs::remove_dir_all(place.store().join("@cache")).unwrap();
    assert_same_hits(&hits(&place.done(QUERY).json()), &before);
    assert!(place.done(["cache", "export"]).stdout == records, "records are not in the cache");
}

#[test]
fn a_text_longer_than_the_model_reads_is_reported() {
    let place = workplace();
    model::installed();
    let long = vec!["mountain"; 600].join(" ");
    let ended = place.done(["cache", "get", &long]);
    assert!(ended.stderr.contains("longer than the model reads"), "{}", ended.stderr);
    let short = place.done(["cache", "get", "mountain"]);
    assert!(!short.stderr.contains("longer"), "{}", short.stderr);
}

fn many_vectors(count: usize) -> String {
    let mut random = Random::new(3);
    let line = |number| {
        let vector = serde_json::to_string(&random.vector(16)).unwrap();
        format!("{{\"key\":\"{number:06}\",\"vector\":{vector}}}\n")
    };
    (0..count).map(line).collect()
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let place = workplace();
    // Far more than a pipe holds.
    place.file("many.jsonl", many_vectors(5000));
    let _ = place.done(["cache", "import", "many.jsonl"]);
    let script = "\"$0\" \"$@\" | head -n 1; exit \"${PIPESTATUS[0]}\"";
    let ended = place.op(["cache", "export"]).within(script).run().succeeded();
    assert_eq!(ended.text().lines().count(), 1);
    assert_eq!(ended.stderr, "");
    let ended = place.op(["stats"]).within("\"$0\" \"$@\" | true; exit \"${PIPESTATUS[0]}\"").run();
    assert_eq!(ended.succeeded().stderr, "");
}

#[test]
fn a_pipe_gets_no_colours_and_no_progress_bar() {
    let place = with_fable();
    let plain = |ended: &Ended| {
        assert!(!ended.stdout.contains(&0x1b), "{}", ended.text());
        assert!(!ended.stderr.contains(['\u{1b}', '\r']), "{:?}", ended.stderr);
    };
    plain(&place.done(["index", "fable.txt", "--log-level", "debug"]));
    plain(&place.done(["query", "grapes"]));
    plain(&place.done(["stats"]));
    plain(&place.done(["--help"]));
    plain(&place.op(["query", "grapes", "--collection", "none"]).run().exited(3));
    plain(&place.op(["query", "--no-such-option"]).run().exited(2));
}

/// What was indexed may come from strangers; a terminal obeys what it is sent.
#[test]
fn stored_text_does_not_reach_the_terminal_as_commands() {
    model::installed();
    let place = workplace();
    let hostile = r#"{"key":"k\u001b]0;owned\u0007","text":"red \u001b[31malert\u009b2J"}"#;
    place.file("hostile.jsonl", format!("{hostile}\n"));
    let _ = place.done(["index", "hostile.jsonl"]);
    let shown = place.done(["query", "red alert"]).text();
    assert!(shown.contains("alert"), "{shown:?}");
    let commands = |c: char| c.is_control() && c != '\n';
    assert!(!shown.contains(commands), "{shown:?}");
    // Programs get it as it is.
    let answer = place.done(["query", "red alert", "--json"]).json();
    assert_eq!(answer["hits"][0]["text"], "red \u{1b}[31malert\u{9b}2J");
}

/// Each is allowed, and together they are more than the store takes in one write.
#[test]
fn large_payloads_are_written_in_several_batches() {
    const RECORDS_COUNT: usize = 18;
    const PAYLOAD_BYTES: usize = 15 << 20;
    let place = workplace();
    place.file("space.jsonl", "{\"key\":\"a\",\"vector\":[1,2]}\n");
    let _ = place.done(["cache", "import", "space.jsonl"]);
    let import = place.op(["cache", "import", "-", "--json"]).input_from(|stdin| {
        // So that no write ends with a line: what has nothing after it is a batch of its own.
        let mut stdin = BufWriter::new(stdin);
        let payload = vec![b'x'; PAYLOAD_BYTES];
        for number in 0..RECORDS_COUNT {
            write!(stdin, "{{\"key\":\"large {number}\",\"payload\":\"")?;
            stdin.write_all(&payload)?;
            stdin.write_all(b"\"}\n")?;
        }
        stdin.flush()
    });
    assert_eq!(import.run().succeeded().json()["records"], RECORDS_COUNT);
    let stats = place.done(["stats", "--json"]).json();
    assert_eq!(stats["collections"][0]["records"], RECORDS_COUNT + 1);
}

#[test]
fn errors_are_json_on_standard_error_if_asked() {
    let place = workplace();
    let ended = place.op(["query", "anything", "--json"]).run();
    assert_eq!(ended.stdout, b"");
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    let report: Value = serde_json::from_str(&ended.stderr).unwrap();
    assert_eq!(names(&report["error"]), ["exit_code", "message", "remedy"]);
    ended.refused(3, &["no store", place.store().to_str().unwrap()]);
    assert!(!place.store().exists(), "asking must not create");
    let text = place.op(["query", "anything"]).run().exited(3).stderr;
    assert!(text.starts_with("error: ") && text.contains("\nremedy: "), "{text}");
}

#[test]
fn nothing_found_has_its_own_exit_code() {
    let place = with_fable();
    let ended = place.op(["query", "wolf", "--min-score", "0.999", "--json"]).run().exited(1);
    assert_eq!(ended.json()["hits"], json!([]));
}

#[test]
fn a_misspelt_variable_is_refused_by_its_name() {
    let place = workplace();
    let run = place.op(["stats", "--json"]).variable("OPDBUS_BTRFS_BASE_PAHT", "/x").run();
    let told = run.refused(2, &["OPDBUS_BTRFS_BASE_PAHT"]);
    assert!(told.contains("OPDBUS_BTRFS_BASE_PATH"), "the remedy names the right ones: {told}");
    let place = with_fable();
    let store = place.store();
    let known = place.op(["stats"]).variable("OPDBUS_BTRFS_BASE_PATH", store).run();
    assert_eq!(known.succeeded().stderr, "");
}

fn keys_in(place: &Workplace) -> BTreeSet<String> {
    let exported = place.done(["cache", "export"]);
    let key = |record: &Value| record["key"].as_str().unwrap().to_owned();
    json_lines(&exported.stdout).iter().map(key).collect()
}

fn texts(count: usize) -> String {
    let mut random = Random::new(29);
    let line = |number| format!("{{\"key\":\"{number:05}\",\"text\":\"{}\"}}\n", random.words(12));
    (0..count).map(line).collect()
}

#[test]
fn an_interrupted_import_keeps_what_it_acknowledged_and_goes_on() {
    const RECORDS_COUNT: usize = 1500;
    model::installed();
    let place = workplace();
    place.file("texts.jsonl", texts(RECORDS_COUNT));
    const IMPORT: [&str; 4] = ["cache", "import", "texts.jsonl", "--ack"];
    let mut running = place.op(IMPORT).start();
    let mut acknowledged = BTreeSet::from([running.next_line().unwrap()]);
    running.interrupt();
    acknowledged.extend(std::iter::from_fn(|| running.next_line()));
    let ended = running.finish().exited(130);
    assert!(ended.stderr.contains("interrupted"), "{}", ended.stderr);
    assert!(acknowledged.len() < RECORDS_COUNT, "it was over before it was interrupted");
    assert_eq!(keys_in(&place), acknowledged);

    let rest = place.done(["cache", "import", "texts.jsonl", "--json"]).json();
    assert_eq!(rest["skipped"], acknowledged.len());
    assert_eq!(rest["embedded"], RECORDS_COUNT - acknowledged.len());
    assert_eq!(keys_in(&place).len(), RECORDS_COUNT);
}

/// Bytes of the log of the authority: it grows with the first batch.
fn log_bytes(store: &Path) -> u64 {
    let files = std::fs::read_dir(store.join("@state/db")).into_iter().flatten().flatten();
    files
        .filter(|file| file.path().extension().is_some_and(|extension| extension == "log"))
        .map(|file| file.metadata().map_or(0, |metadata| metadata.len()))
        .sum()
}

#[test]
fn an_interrupted_index_goes_on_where_it_was() {
    const BATCH_BYTES_MIN: u64 = 10_000;
    model::installed();
    let place = workplace();
    place.file("texts.jsonl", texts(1500));
    let mut running = place.op(["index", "texts.jsonl"]).start();
    while log_bytes(&place.store()) < BATCH_BYTES_MIN {
        assert!(running.is_alive(), "it ended early");
        std::thread::sleep(Duration::from_millis(5));
    }
    running.interrupt();
    let ended = running.finish().exited(130);
    assert!(ended.stderr.contains("interrupted"), "{}", ended.stderr);
    let stored = keys_in(&place).len();
    assert!(stored > 0, "a batch was in the log");
    let rest = place.done(["index", "texts.jsonl", "--json"]).json();
    assert_eq!((&rest["records"], &rest["skipped"]), (&json!(1500), &json!(stored)));
}

#[test]
fn a_second_process_is_told_who_has_the_store() {
    let place = workplace();
    let (release, held) = std::sync::mpsc::channel::<()>();
    let mut holder = place
        .op(["cache", "import", "-", "--ack"])
        .input_from(move |stdin| {
            stdin.write_all(b"{\"key\":\"held\",\"vector\":[1,2]}\n")?;
            // Until the test lets go.
            let _ = held.recv();
            Ok(())
        })
        .start();
    assert_eq!(holder.next_line().as_deref(), Some("held"));
    let id = holder.id().to_string();
    place.op(["stats", "--json"]).run().refused(5, &[&id, "op-dbus"]);
    place.op(["index", "-", "--json"]).input("a").run().refused(5, &[&id]);
    drop(release);
    let _ = holder.finish().succeeded();
    assert_eq!(place.done(["stats", "--json"]).json()["collections"][0]["records"], 1);
}

/// The last table of the authority: what the program moved out of its log when it was last run.
/// Which the vectors are in.
fn largest_table(store: &Path) -> PathBuf {
    let files = std::fs::read_dir(store.join("@state/db")).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    let tables = paths.filter(|path| path.extension().is_some_and(|found| found == "sst"));
    tables.max_by_key(|path| path.metadata().unwrap().len()).unwrap()
}

#[test]
fn a_scrub_finds_nothing_or_names_the_fault_and_can_be_interrupted() {
    let place = workplace();
    place.file("vectors.jsonl", many_vectors(200));
    place.done(["cache", "import", "vectors.jsonl"]);
    let clean = place.done(["scrub", "--json"]).json();
    assert_eq!((&clean["records"], &clean["embeddings"]), (&json!(200), &json!(200)));
    assert_eq!((&clean["finished"], &clean["faults"]), (&json!(true), &json!([])));

    // At this pace it would take half a minute.
    let rate = (clean["bytes_read"].as_u64().unwrap() / 30).to_string();
    let running = place.op(["scrub", "--rate", &rate, "--json"]).start();
    std::thread::sleep(Duration::from_secs(2));
    running.interrupt();
    let broken_off = running.finish().exited(130).json();
    assert_eq!(broken_off["finished"], false);
    let resumed = place.done(["scrub", "--resume", "--json"]).json();
    assert_eq!((&resumed["resumed"], &resumed["finished"]), (&json!(true), &json!(true)));
    assert_eq!(resumed["records"], clean["records"]);

    let table = largest_table(&place.store());
    let mut bytes = std::fs::read(&table).unwrap();
    bytes[5] ^= 1;
    std::fs::write(&table, bytes).unwrap();
    let name = table.file_name().unwrap().to_str().unwrap();
    let ended = place.op(["scrub", "--json"]).run().exited(7);
    let fault = &ended.json()["faults"][0];
    assert!(fault["path"].as_str().unwrap().ends_with(name), "{fault}");
    assert_eq!((&fault["offset"], &fault["repaired"]), (&json!(0), &json!(false)));
    ended.refused(7, &["not repaired"]);
    let text = place.op(["scrub"]).run().exited(7).text();
    assert!(text.starts_with("damaged   @state/db/") && text.contains(name), "{text}");
    place.op(["scrub", "--rate", "fast"]).run().exited(2).text();
}
