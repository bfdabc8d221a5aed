//! What no compiler checks: the order of modules, the size of files, where `unsafe` may be.
//!
//! Each rule is a function from text to complaints, and has a case below that it must complain
//! about. The first test applies all of them to the repository.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The engine's modules, lowest first: each may name those before it.
const ENGINE_MODULES: [&str; 19] = [
    "error", "os", "layout", "pages", "distance", "arena", "index", "keyword", "db", "embed",
    "segment", "heat", "tier", "cache", "record", "query", "journal", "snapshot", "store",
];
/// Where code may be unsafe: system calls, memory of our own, vector instructions, and the test
/// that replaces system calls to break them.
const UNSAFE_PLACES: [&str; 5] = [
    "engine/src/os/",
    "engine/src/arena/",
    "engine/src/distance/",
    "tests/src/crash/",
    // A rival whose interface is unsafe to open.
    "benches/src/lmdb.rs",
];
/// Which of our packages each may depend on, tests and benchmarks apart.
const PACKAGES: [(&str, &[&str]); 7] = [
    ("formats", &[]),
    ("engine", &["op-dbus-formats"]),
    ("daemon", &["op-dbus-engine", "op-dbus-formats"]),
    ("daemon/plugins", &["op-dbus-formats"]),
    ("cli", &["op-dbus-benches", "op-dbus-daemon", "op-dbus-engine", "op-dbus-formats"]),
    ("tests", &["op-dbus-engine", "op-dbus-formats"]),
    ("benches", &["op-dbus-engine", "op-dbus-formats", "op-dbus-tests"]),
];
/// Words of unfinished work, in two parts so that they do not stand here.
const BANNED: [(&str, &str); 5] =
    [("TO", "DO"), ("FIX", "ME"), ("XX", "X"), ("dbg", "!("), ("todo", "!(")];

/// What is wrong, and where.
type Complaints = Vec<String>;

/// A file of the repository: its path from the root, and what is in it.
struct Source {
    path: String,
    text: String,
}

#[test]
fn the_repository_is_tidy() {
    let (files, large) = repository();
    let rust: Vec<&Source> = files.iter().filter(|file| file.path.ends_with(".rs")).collect();
    assert!(rust.len() > 50, "only {} files of Rust were found", rust.len());
    let mut complaints = large;
    for file in &rust {
        let Source { path, text } = file;
        complaints.extend(long_file(path, text));
        complaints.extend(long_functions(path, text));
        complaints.extend(missing_header(path, text));
        complaints.extend(misplaced_unsafe(path, text));
        if let Some(place) = path.strip_prefix("engine/src/") {
            complaints.extend(upward_imports(place, text));
        }
        if path.starts_with("formats/src/") {
            complaints.extend(native_bytes(path, text));
        }
    }
    for Source { path, text } in &files {
        complaints.extend(banned_words(path, text));
    }
    let manifest = |package: &str| {
        let path = format!("{package}/Cargo.toml");
        files.iter().find(|file| file.path == path).unwrap_or_else(|| panic!("no {path}"))
    };
    for (package, allowed) in PACKAGES {
        complaints.extend(wrong_direction(package, &manifest(package).text, allowed));
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// Reads every file of the repository that is text, and complains about those that are large.
fn repository() -> (Vec<Source>, Complaints) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let ignored: Vec<String> = fs::read_to_string(root.join(".gitignore"))
        .unwrap()
        .lines()
        .chain(["/.git"])
        .map(|line| line.trim_end_matches('/').to_owned())
        .collect();
    let (mut sources, mut complaints) = (Vec::new(), Vec::new());
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let path = entry.path();
            let shown = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if ignored.iter().any(|pattern| is_ignored(&shown, pattern)) {
                continue;
            }
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() {
                directories.push(path);
                continue;
            }
            complaints.extend(large_file(&shown, metadata.len()));
            // What is not UTF-8 is data.
            if let Ok(text) = fs::read_to_string(&path) {
                sources.push(Source { path: shown, text });
            }
        }
    }
    (sources, complaints)
}

/// Of the patterns that git knows only a path from the root and a plain name.
fn is_ignored(path: &str, pattern: &str) -> bool {
    match pattern.strip_prefix('/') {
        Some(pattern) => path == pattern,
        None => path.rsplit('/').next() == Some(pattern),
    }
}

fn large_file(path: &str, len_bytes: u64) -> Option<String> {
    (len_bytes > FILE_BYTES_MAX).then(|| format!("{path}: {len_bytes} bytes"))
}

fn long_file(path: &str, text: &str) -> Option<String> {
    let lines = text.lines().count();
    (lines > FILE_LINES_MAX).then(|| format!("{path}: {lines} lines"))
}

/// Functions are formatted: one ends at the brace that stands under its first letter.
fn long_functions(path: &str, text: &str) -> Complaints {
    let lines: Vec<&str> = text.lines().collect();
    let starts = lines.iter().enumerate().filter(|(_, line)| is_function(line));
    let length = |(start, line): (usize, &&str)| {
        let indent = line.len() - line.trim_start().len();
        let end = format!("{:indent$}}}", "");
        let lines = lines[start..].iter().position(|line| *line == end)? + 1;
        (lines > FUNCTION_LINES_MAX)
            .then(|| format!("{path}:{}: a function of {lines} lines", start + 1))
    };
    starts.filter_map(length).collect()
}

fn is_function(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    let Some(position) = words.iter().position(|word| *word == "fn") else { return false };
    let qualifier = |word: &&str| {
        word.starts_with("pub") || ["const", "unsafe", "async", "extern", "\"C\""].contains(word)
    };
    // A body that ends on the same line has no brace of its own to look for.
    words[..position].iter().all(qualifier) && !line.ends_with('}') && !line.ends_with(';')
}

fn missing_header(path: &str, text: &str) -> Option<String> {
    let first = text.lines().find(|line| !line.starts_with("#![") && !line.is_empty());
    let has = first.is_some_and(|line| line.starts_with("//!"));
    (!has).then(|| format!("{path}: it does not begin with what it is for (//!)"))
}

fn misplaced_unsafe(path: &str, text: &str) -> Complaints {
    if UNSAFE_PLACES.iter().any(|place| path.starts_with(place)) {
        return Vec::new();
    }
    let code = code(text);
    let lines = code.lines().zip(1..);
    let is_unsafe = |line: &str| {
        line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe")
    };
    lines
        .filter(|(line, _)| is_unsafe(line))
        .map(|(_, number)| format!("{path}:{number}: unsafe outside its places"))
        .collect()
}

/// `place` is the path below `engine/src`.
fn upward_imports(place: &str, text: &str) -> Complaints {
    let module = place.split(['/', '.']).next().unwrap_or_default();
    let rank = |name: &str| ENGINE_MODULES.iter().position(|module| *module == name);
    if module == "lib" {
        return Vec::new();
    }
    let Some(own) = rank(module) else {
        return vec![format!("engine/src/{place}: a module whose place in the order nobody gave")];
    };
    let code = code(text);
    let mut complaints = Vec::new();
    for (line, number) in code.lines().zip(1..) {
        for path in line.split("crate::").skip(1) {
            let name = path.split(|c: char| !c.is_alphanumeric() && c != '_').next();
            let problem = match name {
                Some("") => "a list after crate:: cannot be checked; one path a line".to_owned(),
                Some(name) if rank(name).is_some_and(|rank| rank > own) => {
                    format!("{module} must not know {name}")
                }
                _ => continue,
            };
            complaints.push(format!("engine/src/{place}:{number}: {problem}"));
        }
    }
    complaints
}

/// Bytes that depend on the machine have no place in a format.
fn native_bytes(path: &str, text: &str) -> Complaints {
    const NATIVE: [&str; 4] =
        ["_ne_bytes", "usize::to_le_bytes", "usize::from_le_bytes", "size_of::<usize>"];
    let code = code(text);
    let complaint = |(line, number): (&str, usize)| {
        let found = NATIVE.iter().find(|native| line.contains(**native))?;
        Some(format!("{path}:{number}: {found} is not the same on every machine"))
    };
    code.lines().zip(1..).filter_map(complaint).collect()
}

fn banned_words(path: &str, text: &str) -> Complaints {
    let banned: Vec<String> = BANNED.iter().map(|(start, end)| format!("{start}{end}")).collect();
    let complaint = |(line, number): (&str, usize)| {
        let word = banned.iter().find(|word| line.contains(&***word))?;
        Some(format!("{path}:{number}: {word}"))
    };
    // Texts to embed are other people's words.
    let is_data = path.starts_with("tests/data/") && !path.ends_with(".py");
    text.lines().zip(1..).filter(|_| !is_data).filter_map(complaint).collect()
}

/// Of a manifest only the dependencies of the product count: what a test or a build uses is not in
/// it.
fn wrong_direction(package: &str, manifest: &str, allowed: &[&str]) -> Complaints {
    let mut section = "";
    let mut complaints = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        }
        let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
        if section == "[dependencies]" && name.starts_with("op-dbus") && !allowed.contains(&name) {
            complaints.push(format!("{package}/Cargo.toml: {package} must not depend on {name}"));
        }
    }
    complaints
}

/// Returns the text with blanks in place of comments and of what is in strings.
fn code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let length = skipped(rest);
        if length == 0 {
            // A raw string begins with a letter, which another word must not end with.
            let word = rest.iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count();
            at += word.max(1);
            continue;
        }
        let end = (at + length).min(bytes.len());
        for byte in &mut code[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8_lossy(&code).into_owned()
}

/// The length of the comment, string or character at the start of `rest`; 0 if there is none.
fn skipped(rest: &[u8]) -> usize {
    let to = |end: &[u8], from: usize| {
        rest[from..]
            .windows(end.len())
            .position(|window| window == end)
            .map_or(rest.len(), |position| from + position + end.len())
    };
    let raw = rest.strip_prefix(b"b").unwrap_or(rest);
    let hashes = raw.get(1..).unwrap_or_default().iter().take_while(|b| **b == b'#').count();
    match rest {
        [b'/', b'/', ..] => rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => to(b"*/", 2),
        [b'"', ..] => escaped(rest, b'"'),
        [b'b', b'"', ..] => 1 + escaped(&rest[1..], b'"'),
        // A character, not a lifetime: those have no second quote.
        [b'\'', b'\\', ..] => escaped(rest, b'\''),
        [b'\'', b'"' | b'/', b'\'', ..] => 3,
        _ if raw.first() == Some(&b'r') && raw.get(1 + hashes) == Some(&b'"') => {
            let end = [&b"\""[..], &b"#".repeat(hashes)].concat();
            to(&end, rest.len() - raw.len() + hashes + 2)
        }
        _ => 0,
    }
}

/// The length of a literal with escapes, quotes included.
fn escaped(literal: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < literal.len() && literal[at] != quote {
        at += if literal[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

#[test]
fn long_files_and_functions_are_complained_about() {
    assert_eq!(long_file("a.rs", &"\n".repeat(FILE_LINES_MAX)), None);
    assert!(long_file("a.rs", &"\n".repeat(FILE_LINES_MAX + 1)).is_some());
    assert!(large_file("a.bin", FILE_BYTES_MAX + 1).is_some());
    let function = |head: &str, lines: usize| {
        format!("mod m {{\n    {head} {{\n{}    }}\n}}\n", "        x();\n".repeat(lines - 2))
    };
    for head in ["fn f()", "pub(crate) const unsafe fn f()", "fn f(\n        a: A,\n    )"] {
        let lines = head.lines().count() - 1;
        let longest = function(head, FUNCTION_LINES_MAX - lines);
        assert_eq!(long_functions("a.rs", &longest), Complaints::new());
        let complaints = long_functions("a.rs", &function(head, FUNCTION_LINES_MAX + 1 - lines));
        assert_eq!(complaints, ["a.rs:2: a function of 71 lines"]);
    }
}

#[test]
fn a_module_without_its_purpose_is_complained_about() {
    assert_eq!(missing_header("a.rs", "#![allow(x)]\n\n//! Why.\n"), None);
    for text in ["", "use x;\n//! Late.\n", "/// Not of the module.\nfn f() {}\n"] {
        assert!(missing_header("a.rs", text).is_some(), "{text:?}");
    }
}

#[test]
fn unsafe_outside_its_places_is_complained_about() {
    let text = "//! No unsafe here.\nlet x = \"unsafe\";\n#![deny(unsafe_code)]\n";
    assert_eq!(misplaced_unsafe("engine/src/db/mod.rs", text), Complaints::new());
    for text in ["unsafe { f() }\n", "unsafe fn f() {}\n", "let a = '\"'; unsafe { b(\"\") }"] {
        assert_eq!(misplaced_unsafe("engine/src/db/mod.rs", text).len(), 1, "{text:?}");
        assert_eq!(misplaced_unsafe("engine/src/os/map.rs", text), Complaints::new());
    }
}

#[test]
fn an_upward_import_is_complained_about() {
    let cases: BTreeMap<&str, &str> = [
        ("db/state.rs", "use crate::store::Store;\n"),
        ("error.rs", "fn f() -> crate::query::Query {}\n"),
        ("cache.rs", "use crate::{error, db};\n"),
        ("helpers.rs", "//! A module that is not in the order.\n"),
    ]
    .into();
    for (place, text) in cases {
        assert_eq!(upward_imports(place, text).len(), 1, "{place}: {text}");
    }
    let downward = "use crate::db::state;\n// use crate::store;\nuse crate::Metric;\n";
    assert_eq!(upward_imports("store/mod.rs", downward), Complaints::new());
    assert_eq!(upward_imports("cache.rs", downward), Complaints::new());
}

#[test]
fn bytes_of_the_machine_and_banned_words_are_complained_about() {
    for text in ["x.to_ne_bytes()", "u32::from_ne_bytes(b)", "usize::to_le_bytes(n)"] {
        assert_eq!(native_bytes("a.rs", text).len(), 1, "{text}");
    }
    assert_eq!(native_bytes("a.rs", "x.to_le_bytes() // not to_ne_bytes"), Complaints::new());
    for (start, end) in BANNED {
        let text = format!("// ok\n// {start}{end} later");
        assert_eq!(banned_words("a.rs", &text).len(), 1, "{text}");
        assert_eq!(banned_words("tests/data/x-texts.txt", &text), Complaints::new());
    }
}

#[test]
fn a_dependency_against_the_direction_is_complained_about() {
    let manifest = "[package]\nname = \"op-dbus-engine\"\n[dependencies]\n\
         op-dbus-formats.workspace = true\nop-dbus-daemon = { path = \"../daemon\" }\n\
         [dev-dependencies]\nop-dbus-tests = { path = \"../tests\" }\n";
    let complaints = wrong_direction("engine", manifest, &["op-dbus-formats"]);
    assert_eq!(complaints, ["engine/Cargo.toml: engine must not depend on op-dbus-daemon"]);
}

#[test]
fn comments_and_strings_are_not_code() {
    let text = "a/* b */c \"d\\\"e\" r#\"f\"g\"# 'h' '\\'' b\"i\" br\"j\" var\"k\" // l\n'm: n";
    let code = code(text);
    let words: Vec<&str> = code.split_whitespace().collect();
    assert_eq!(words, ["a", "c", "'h'", "var", "'m:", "n"]);
    assert_eq!(code.len(), text.len());
}
