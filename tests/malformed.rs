//! A thousand files that are wrong: each is refused, at the right place, in words, and in little
//! memory.
//!
//! They are made of good ones by changes each of which certainly makes a file wrong. Of every kind
//! of change there are several, in places that look random and are the same in every run.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use op_dbus_formats::{TextError, introspection, plugin, semantic_mapping, state_file};
use support::random::Random;

const FILES_OF_EACH: usize = 250;
const MEMORY_GROWTH_MAX_KIB: u64 = 64 << 10;

const PLUGIN: &str = include_str!("corpus/plugin/lxc");
const GENERATED: &str = include_str!("corpus/plugin/hostname");
const MAPPING: &str = include_str!("corpus/semantic_mapping/hostname");
const INTERFACE: &str = include_str!("corpus/introspection/disk");
const STATE: &str = include_str!("corpus/state_file/host");

/// A file that is wrong.
struct Wrong {
    /// The line at which it is, where that is known.
    line: Option<u64>,
    /// Large ones are made when they are needed.
    make: Box<dyn Fn() -> Vec<u8>>,
}

/// Files that are wrong, by what is.
#[derive(Default)]
struct Files(BTreeMap<&'static str, Vec<Wrong>>);

impl Files {
    fn add(&mut self, what: &'static str, line: impl Into<Option<usize>>, text: String) {
        self.add_made(what, line, move || text.clone().into_bytes());
    }

    fn add_made(
        &mut self,
        what: &'static str,
        line: impl Into<Option<usize>>,
        make: impl Fn() -> Vec<u8> + 'static,
    ) {
        let wrong = Wrong { line: line.into().map(|line| line as u64), make: Box::new(make) };
        self.0.entry(what).or_default().push(wrong);
    }

    /// Replaces something that stands in the sample once by other things.
    fn replace(&mut self, what: &'static str, sample: &str, from: &str, others: &[&str]) {
        assert_eq!(sample.matches(from).count(), 1, "{from}");
        let line = line_at(sample, sample.find(from).unwrap());
        for to in others {
            self.add(what, line, sample.replacen(from, to, 1));
        }
    }

    /// A byte that no text has, in random places.
    fn bad_utf_8(&mut self, sample: &str, random: &mut Random) {
        for _ in 0..20 {
            let at = sample.floor_char_boundary(random.below(sample.len()));
            let bytes = [&sample.as_bytes()[..at], b"\xFF", &sample.as_bytes()[at..]].concat();
            self.add_made("not UTF-8", line_at(sample, at), move || bytes.clone());
        }
    }

    /// Removes each quote, of which a line has an even number.
    fn unclosed_strings(&mut self, sample: &str) {
        for (at, _) in sample.match_indices('"') {
            let text = format!("{}{}", &sample[..at], &sample[at + 1..]);
            self.add("unclosed string", line_at(sample, at), text);
        }
    }

    /// Takes of each kind one after another, until there are enough.
    fn take(mut self, random: &mut Random) -> Vec<(&'static str, Wrong)> {
        let mut taken = Vec::new();
        while taken.len() < FILES_OF_EACH {
            self.0.retain(|_, files| !files.is_empty());
            assert!(!self.0.is_empty(), "only {} files", taken.len());
            for (what, files) in &mut self.0 {
                taken.push((*what, files.swap_remove(random.below(files.len()))));
            }
        }
        taken.truncate(FILES_OF_EACH);
        taken
    }
}

fn line_at(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// The sample with other lines in place of one, counted from 1.
fn with_line(sample: &str, line: usize, others: &[&str]) -> String {
    let mut lines: Vec<&str> = sample.lines().collect();
    lines.splice(line - 1..line, others.iter().copied());
    lines.join("\n") + "\n"
}

/// Slips that make another key of it.
fn misspelt(key: &str) -> [String; 3] {
    [key[1..].to_owned(), format!("{key}_"), format!("{}{key}", &key[..1])]
}

/// What can be wrong with TOML of any meaning. In `[config]` everything may stand.
fn toml(files: &mut Files, sample: &str, random: &mut Random) {
    let mut in_config = false;
    for (line, text) in (1..).zip(sample.lines()) {
        if let Some(path) = text.strip_prefix('[') {
            in_config = path.starts_with("config");
            for slip in misspelt(path.split(['.', ']']).next().unwrap()) {
                let end = path.find(['.', ']']).unwrap();
                let changed = format!("[{slip}{}", &path[end..]);
                files.add("misspelt table", line, with_line(sample, line, &[&changed]));
            }
            files.add("open header", line, with_line(sample, line, &[text.trim_end_matches(']')]));
            files.add("table twice", sample.lines().count() + 1, format!("{sample}{text}\n"));
        }
        let Some((key, value)) = text.split_once(" = ") else { continue };
        files.add("key twice", line + 1, with_line(sample, line, &[text, text]));
        files.add("no value", line, with_line(sample, line, &[&format!("{key} =")]));
        files.add("no equals sign", line, with_line(sample, line, &[&format!("{key} {value}")]));
        files.add("stray word", line, with_line(sample, line, &[&format!("{text} x")]));
        if let Some(open) = value.find('"') {
            let start = sample.find(text).unwrap() + key.len() + 3 + open + 1;
            let len = value[open + 1..].find('"').unwrap();
            let at = sample.floor_char_boundary(start + random.below(len + 1));
            files.add("cut", line, sample[..at].to_owned());
        }
        if in_config {
            continue;
        }
        for slip in misspelt(key) {
            let changed = format!("{slip} = {value}");
            files.add("misspelt key", line, with_line(sample, line, &[&changed]));
        }
        let wrong: &[&str] = match value.as_bytes()[0] {
            b'"' => &["7", "true", "[]"],
            b'[' => &["1", "\"x\"", "[1]"],
            b'{' => &["1", "\"x\"", "[]"],
            b't' | b'f' => &["1", "\"yes\""],
            _ => &["\"x\"", "true", "1.5"],
        };
        for wrong in wrong.iter().filter(|wrong| !key.ends_with("args") || **wrong != "[1]") {
            let changed = format!("{key} = {wrong}");
            files.add("wrong type", line, with_line(sample, line, &[&changed]));
        }
    }
    files.bad_utf_8(sample, random);
    files.unclosed_strings(sample);
    let last = sample.lines().count();
    let tables: String = (0..16_000).map(|n| format!("[x{n}]\n")).collect();
    files.add("many tables", last + 1, format!("{sample}{tables}"));
    let dotted = "a.".repeat(38);
    let keys: String = (0..790).map(|n| format!("{dotted}x{n}.x=1\n")).collect();
    files.add("many parts of keys", last + 1, format!("{sample}[x]\n{keys}"));
    let elements = "1,".repeat(32_000);
    files.add("many elements", last + 1, format!("{sample}[x]\na = [{elements}]\n"));
    for extra in 1..4 {
        let comment = || "#".repeat((1 << 20) - 1);
        let small = sample.to_owned();
        files.add_made("too large", 1, move || {
            format!("{}\n{}{small}", comment(), " ".repeat(extra)).into_bytes()
        });
        // As large as may be, and wrong at its end.
        let padding = (1 << 20) - sample.len() - extra - 3;
        let small = sample.to_owned();
        files.add_made("wrong at the end of the largest", sample.lines().count() + 2, move || {
            format!("{small}#{}\n{}!", "x".repeat(padding), " ".repeat(extra)).into_bytes()
        });
    }
}

fn required(files: &mut Files, sample: &str, header: &str, keys: &[&str]) {
    let header_at = sample.find(header).unwrap();
    for key in keys {
        let at = header_at + sample[header_at..].find(&format!("\n{key} = ")).unwrap() + 1;
        let text = with_line(sample, line_at(sample, at), &[]);
        files.add("required key is missing", line_at(sample, header_at), text);
    }
}

fn plugin_files(random: &mut Random) -> Files {
    let mut files = Files::default();
    toml(&mut files, PLUGIN, random);
    toml(&mut files, GENERATED, random);
    required(&mut files, PLUGIN, "[plugin]", &["name", "version", "source"]);
    let keys = ["name", "version", "source", "dbus_service", "dbus_path"];
    required(&mut files, GENERATED, "[plugin]", &keys);
    let values: [(&str, &[&str]); 14] = [
        ("\"lxc\"", &["\"LXC\"", "\"\"", "\"lxc-\"", "\"2lxc\"", "\"lx c\"", "\"lxc_1\""]),
        ("\"1.2.0\"", &["\"\"", "\"1 2\"", "\"1/2\"", "\"v1:2\""]),
        ("\"hand-written\"", &["\"handwritten\"", "\"\"", "\"Hand-written\"", "\"binary\""]),
        ("\"bin/lxc\"", &["\"\"", "\"/bin/lxc\"", "\"../lxc\"", "\"bin//lxc\"", "\"bin/\""]),
        ("\"/org/linuxcontainers\"", &["\"\"", "\"org\"", "\"/org/\"", "\"/org/a-b\""]),
        ("\"org.linuxcontainers.lxc1\"", &["\"lxc\"", "\"org..lxc\"", "\":1.7\"", "\"org.1\""]),
        ("[\"netmaker\"]", &["[\"lxc\"]", "[\"a\", \"a\"]", "[\"A\"]", "[\"\"]"]),
        ("\"lxc-ls\"", &["\"bin/lxc-ls\"", "\"\"", "\"..\""]),
        ("\"root\"", &["\"Root\"", "\"\"", "\"a b\"", "\"0\""]),
        ("\"/etc/lxc\"", &["\"etc\"", "\"/etc/\"", "\"/etc/../lxc\"", "\"/./etc\"", "\"\""]),
        ("\"CAP_SYS_ADMIN\"", &["\"SYS_ADMIN\"", "\"CAP_SYS_ADMN\"", "\"cap_sys_admin\""]),
        ("timeout_s = 120", &["timeout_s = 0", "timeout_s = 3601", "timeout_s = -1"]),
        ("\"containers.*.password\"", &["\"\"", "\"a..b\"", "\".a\"", "\"a.\""]),
        ("mtu = 1500", &["mtu = nan", "mtu = -inf", "mtu = 01", "mtu = 9223372036854775808"]),
    ];
    for (from, others) in values {
        files.replace("bad value", PLUGIN, from, others);
    }
    for depth in [32, 41, 200, 100_000] {
        let deep = format!("mtu = {}{}", "[".repeat(depth), "]".repeat(depth));
        files.replace("too deep", PLUGIN, "mtu = 1500", &[&deep]);
    }
    for (len, from) in [(65_537, "\"A. Uthor"), (4097, "\"bin/lxc"), (65, "\"1.2.0")] {
        let long = format!("\"{}", "a".repeat(len));
        files.replace("too long", PLUGIN, from, &[&long]);
    }
    files.replace(
        "too long",
        PLUGIN,
        "[\"adm\"",
        &[&format!("[{}\"adm\"", "\"a\", ".repeat(1024))],
    );
    let last = GENERATED.lines().count() + 1;
    files.add("sandbox of a generated one", last, format!("{GENERATED}[sandbox]\n"));
    files
}

fn mapping_files(random: &mut Random) -> Files {
    let mut files = Files::default();
    toml(&mut files, MAPPING, random);
    required(&mut files, MAPPING, "[service]", &["name"]);
    for key in ["hostname", "chassis"] {
        required(&mut files, MAPPING, &format!("[state_mapping.{key}]"), &["property"]);
    }
    let values: [(&str, &[&str]); 14] = [
        (
            "[methods.SetHostname]",
            &["[methods.\"Set Hostname\"]", "[methods.\"A.B\"]", "[methods.2]"],
        ),
        ("[properties.Hostname]", &["[properties.\"a\\tB\"]", "[properties.\"\"]"]),
        ("[state_mapping.chassis]", &["[state_mapping.2]", "[state_mapping.\"a b\"]"]),
        ("[\"hostname\", \"interactive\"]", &["[\"hostname\", \"hostname\"]", "[\"\"]"]),
        ("{ interactive = false }", &["{ x = 1 }", "{ interactive = nan }"]),
        ("\"[a-z0-9-]+\"", &["\"[a-z\"", "\"(\"", "\"a{99999}\"", "\"*\"", "\"a)|(b\""]),
        ("len_max = 64", &["len_max = 0", "len_max = -1", "len_max = \"64\"", "maximum = 64"]),
        ("\"Describe\"", &["\"SetHostname\"", "\"Unknown\"", "\"a b\""]),
        ("[\"$value\", false]", &["[false]", "[]", "[\"$value\", \"$value\"]", "[[\"$value\"]]"]),
        (
            "deny = [\"Reboot\"]",
            &["deny = [\"Ping\"]", "deny = [\"a\\tb\"]", "deny = [\"Describe\"]"],
        ),
        ("calls_per_minute_max = 10", &["calls_per_minute_max = 0", "calls_per_minute_max = 6001"]),
        ("timeout_ms = 1000", &["timeout_ms = 0", "timeout_ms = 600001", "timeout_ms = 1e3"]),
        ("\"/org/freedesktop/hostname1\"", &["\"org\"", "\"\"", "\"/a/\"", "\"/a-b\""]),
        (
            "property = \"StaticHostname\"",
            &["property = \"\"", "property = \"a\\tb\"", "property = 1"],
        ),
    ];
    for (from, others) in values {
        files.replace("bad value", MAPPING, from, others);
    }
    let end = MAPPING.lines().count();
    for count in [1024, 1500] {
        let many: String = (0..count).map(|n| format!("[methods.M{n}]\n")).collect();
        files.add("too many methods", end + 1021, format!("{MAPPING}{many}"));
    }
    for depth in [33, 41, 1000] {
        let deep = format!("[{}true{}, \"$value\"]", "[".repeat(depth), "]".repeat(depth));
        files.replace("too deep", MAPPING, "[\"$value\", false]", &[&deep]);
    }
    files
}

fn state_files(random: &mut Random) -> Files {
    let mut files = Files::default();
    for key in ["version", "plugins"] {
        for slip in misspelt(key) {
            files.replace("misspelt key", STATE, &format!("\"{key}\""), &[&format!("\"{slip}\"")]);
        }
    }
    let twice = "\"version\": 1,";
    files.add("key twice", 3, with_line(STATE, 2, &[twice, twice]));
    files.add("key twice", 4, with_line(STATE, 2, &[twice, "\"plugins\": {},"]));
    files.add("required key is missing", 1, with_line(STATE, 2, &[]));
    files.add("required key is missing", 1, "{\n\"version\": \"1.0\"\n}\n".to_owned());
    files.replace("bad version", STATE, "\"1.0\"", &["\"2.0\"", "2", "1.0", "null", "\"\"", "[]"]);
    for name in ["lxc", "network", "users"] {
        let wrong = ["Lxc", "", "2a", "a_b", "a-", "a b"].map(|name| format!("\"{name}\": {{"));
        let wrong: Vec<&str> = wrong.iter().map(String::as_str).collect();
        files.replace("bad name", STATE, &format!("\"{name}\": {{"), &wrong);
        let wrong =
            ["[]", "1", "null", "\"x\"", "true"].map(|v| format!("\"x\": {v}, \"{name}\": {{"));
        let wrong: Vec<&str> = wrong.iter().map(String::as_str).collect();
        files.replace("state is no object", STATE, &format!("\"{name}\": {{"), &wrong);
    }
    for (line, text) in (1..).zip(STATE.lines()) {
        let Some((key, value)) = text.split_once(": ") else { continue };
        files.add("no colon", line, with_line(STATE, line, &[&format!("{key} {value}")]));
        files.add("stray word", line, with_line(STATE, line, &[&format!("x {text}")]));
        if !value.ends_with(['{', '[']) && key.trim_start().starts_with('"') {
            let first = if text.ends_with(',') { text.to_owned() } else { format!("{text},") };
            files.add("member twice", line + 1, with_line(STATE, line, &[&first, text]));
        }
        if value.ends_with(',') {
            let text = text.trim_end_matches(',');
            files.add("no comma", line + 1, with_line(STATE, line, &[text]));
        }
        if value.as_bytes()[0].is_ascii_digit() {
            for wrong in ["01", "1.", ".5", "+1", "0x1", "NaN", "1e400", "--1", "1_0"] {
                let changed =
                    format!("{key}: {wrong}{}", if value.ends_with(',') { "," } else { "" });
                files.add("bad number", line, with_line(STATE, line, &[&changed]));
            }
        }
    }
    for wrong in ["\"\\q\"", "\"\\u12\"", "\"\\ud800\"", "\"\\udc00x\"", "\"\t\"", "'br0'"] {
        files.replace("bad string", STATE, "\"br0\"", &[wrong]);
    }
    files.bad_utf_8(STATE, random);
    files.unclosed_strings(STATE);
    for _ in 0..40 {
        let text = &STATE[..STATE.floor_char_boundary(random.below(STATE.len() - 3))];
        files.add("cut", line_at(text, text.len()), text.to_owned());
    }
    for depth in [62, 128, 1000, 1 << 20] {
        let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        files.replace("too deep", STATE, "\"br0\"", &[&deep]);
    }
    large_state_files(&mut files);
    files
}

/// Files with something large in place of a string.
fn large_state_files(files: &mut Files) {
    const LEN_MAX: usize = 16 << 20;
    let (head, tail) = STATE.split_once("\"br0\"").unwrap();
    let with = move |fill: &dyn Fn(&mut String)| {
        // Made in one piece, because what making it takes counts, too.
        let mut text = String::with_capacity(LEN_MAX + STATE.len());
        text.push_str(head);
        fill(&mut text);
        text.push_str(tail);
        text.into_bytes()
    };
    let line = line_at(head, head.len());
    let room = LEN_MAX - head.len() - tail.len();
    for less in 1..4 {
        let unclosed = move |text: &mut String| {
            text.push('"');
            text.extend(std::iter::repeat_n('x', room - less));
        };
        files.add_made("unclosed string in the largest", line, move || with(&unclosed));
        let open = move |text: &mut String| text.extend(std::iter::repeat_n('[', room - less));
        files.add_made("open arrays in the largest", None, move || with(&open));
        let values = move |text: &mut String| {
            text.push('[');
            text.extend(std::iter::repeat_n("0,", (room - less) / 2 - 2));
            text.push_str("0]");
        };
        files.add_made("too many values", line, move || with(&values));
        let names = move |text: &mut String| {
            text.push('{');
            (0..1_000_000 - less).for_each(|n| write!(text, "\"{n}\":0,").unwrap());
            text.push_str("\"x\":0}");
        };
        files.add_made("too many names", line, move || with(&names));
        let large = move |text: &mut String| text.extend(std::iter::repeat_n(' ', room + less));
        files.add_made("too large", 1, move || with(&large));
    }
}

fn introspection_files(random: &mut Random) -> Files {
    let mut files = Files::default();
    for (line, text) in (1..).zip(INTERFACE.lines()) {
        // Of the declaration and the document type little is read.
        let is_open = !text.contains("</") && text.starts_with("  ");
        if text.contains("</") {
            let changed = text.replace("</", "</x");
            files.add("misspelt end", line, with_line(INTERFACE, line, &[&changed]));
            let changed = text.replace("</", "<");
            files.add("no end", None, with_line(INTERFACE, line, &[&changed]));
        } else if is_open && text.contains('=') {
            let changed = text.replacen('=', " ", 1);
            files.add("no equals sign", line, with_line(INTERFACE, line, &[&changed]));
            let first = text.trim_start().split(' ').nth(1).unwrap();
            let first = first.trim_end_matches(['>', '/']);
            let changed = text.replacen(first, &format!("{first} {first}"), 1);
            files.add("attribute twice", line, with_line(INTERFACE, line, &[&changed]));
            let misplaced = format!("</node>{text}");
            files.add("end too early", None, with_line(INTERFACE, line, &[&misplaced]));
        }
    }
    attributes(&mut files);
    for wrong in ["&nothing;", "&", "<!-- ", "<![CDATA[", "</p>", "&#0;"] {
        let text = INTERFACE.replacen("PLACE", wrong, 1);
        files.add("bad text", None, text);
    }
    let in_node = |text: String| INTERFACE.replacen("<node>", &format!("<node>{text}"), 1);
    for wrong in
        ["<method name=\"A\"/>", "<arg type=\"s\"/>", "<property/>", "<signal name=\"A\"/>"]
    {
        files.add(
            "misplaced element",
            line_at(INTERFACE, INTERFACE.find("<node>").unwrap()),
            in_node(wrong.to_owned()),
        );
    }
    for depth in [32, 100, 100_000] {
        files.add("too deep", None, in_node("<node>".repeat(depth) + &"</node>".repeat(depth)));
    }
    for extra in 1..4 {
        files.add_made("too large", 1, move || {
            format!("{INTERFACE}{}", " ".repeat((4 << 20) - INTERFACE.len() + extra)).into_bytes()
        });
        files.add_made("too many elements", None, move || {
            INTERFACE
                .replacen("<node>", &format!("<node>{}", "<x/>".repeat(100_000 + extra)), 1)
                .into()
        });
        files.add_made("wrong at the end of the largest", None, move || {
            let padding = " ".repeat((4 << 20) - INTERFACE.len() - extra);
            format!("{INTERFACE}{padding}!").into_bytes()
        });
    }
    files.bad_utf_8(INTERFACE, random);
    let start = INTERFACE.find("<node>").unwrap();
    for (at, _) in INTERFACE.match_indices('"').filter(|(at, _)| *at > start) {
        let text = format!("{}{}", &INTERFACE[..at], &INTERFACE[at + 1..]);
        files.add("unclosed string", None, text);
    }
    for _ in 0..40 {
        let end = random.below(INTERFACE.trim_end().len());
        files.add("cut", None, INTERFACE[..INTERFACE.floor_char_boundary(end)].to_owned());
    }
    files
}

fn attributes(files: &mut Files) {
    let values: [(&str, &[&str]); 8] = [
        (" direction=\"in\"", &[" direction=\"inn\"", " direction=\"\"", " direction=\"IN\""]),
        (" access=\"read\"", &[" access=\"none\"", " access=\"r\"", "", " access=\"\""]),
        (" access=\"readwrite\"", &[" access=\"rw\"", " acess=\"readwrite\"", ""]),
        (" type=\"a{sv}\"", &[" type=\"\"", " type=\"ss\"", " type=\"a{vs}\"", " type=\"a\"", ""]),
        (" type=\"(ii)\"", &[" type=\"()\"", " type=\"(i\"", " type=\"i)\"", " type=\"z\""]),
        (" type=\"as\"", &[" type=\"a\"", " type=\"x s\"", "", " type=\"{sv}\""]),
        (" value=\"true\"", &["", " vaule=\"true\""]),
        ("<interface name=", &["<interface nmae=", "<interface title="]),
    ];
    for (from, others) in values {
        // The first of them.
        let at = INTERFACE.find(from).unwrap();
        let line = line_at(INTERFACE, at);
        for to in others {
            let text = format!("{}{to}{}", &INTERFACE[..at], &INTERFACE[at + from.len()..]);
            files.add("bad attribute", line, text);
        }
    }
    let names: [(&str, &[&str]); 4] = [
        ("\"org.example.Disk1\"", &["\"Disk\"", "\"\"", "\"org..Disk\"", "\"org.1\"", "\"a.b-c\""]),
        ("\"Mount\"", &["\"\"", "\"Mo unt\"", "\"2Mount\"", "\"a.b\"", "\"Größe\""]),
        ("\"Ejected\"", &["\"\"", "\"E.jected\"", "\"9\"", "\"a-b\""]),
        ("\"Size\"", &["\"\"", "\"&#1;\"", "\"a&x;\""]),
    ];
    for (from, others) in names {
        files.replace("bad name", INTERFACE, from, others);
    }
}

/// What is wrong with an error.
fn complaint(wrong: &Wrong, bytes: &[u8], error: &TextError) -> Option<String> {
    let line = usize::try_from(error.line - 1).unwrap();
    let line = bytes.split(|&byte| byte == b'\n').nth(line);
    if line.is_none_or(|line| error.column < 1 || error.column > line.len() as u64 + 1) {
        return Some(format!("not a place in the file: {error}"));
    }
    if let Some(line) = wrong.line.filter(|line| *line != error.line) {
        return Some(format!("it is in line {line}: {error}"));
    }
    let signs_of_debug = ["Some(", "Err(", "Error(", "Error {", "kind:", "Utf8Error"];
    let is_debug = signs_of_debug.iter().any(|sign| error.problem.contains(sign));
    if error.problem.trim().is_empty() || is_debug || error.problem.len() > 1000 {
        return Some(format!("not for people: {error}"));
    }
    None
}

fn memory_peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

type Parse = fn(&[u8]) -> Result<(), TextError>;

#[test]
fn a_thousand_wrong_files_are_refused_where_they_are_wrong() {
    let mut random = Random::new(1);
    let all: [(&str, Parse, Files); 4] = [
        ("plugin.toml", |bytes| plugin::parse(bytes).map(drop), plugin_files(&mut random)),
        (
            "introspection XML",
            |bytes| introspection::parse(bytes).map(drop),
            introspection_files(&mut random),
        ),
        (
            "semantic-mapping.toml",
            |bytes| semantic_mapping::parse(bytes).map(drop),
            mapping_files(&mut random),
        ),
        ("state.json", |bytes| state_file::parse(bytes).map(drop), state_files(&mut random)),
    ];
    for sample in [PLUGIN, GENERATED] {
        plugin::parse(sample.as_bytes()).unwrap();
    }
    introspection::parse(INTERFACE.as_bytes()).unwrap();
    semantic_mapping::parse(MAPPING.as_bytes()).unwrap();
    state_file::parse(STATE.as_bytes()).unwrap();
    let before_kib = memory_peak_kib();
    let (mut count, mut complaints) = (0, Vec::new());
    for (name, parse, files) in all {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (what, wrong) in files.take(&mut random) {
            let bytes = (wrong.make)();
            let complaint = match parse(&bytes) {
                Ok(()) => Some("it is taken".to_owned()),
                Err(error) => complaint(&wrong, &bytes, &error),
            };
            if let Some(complaint) = complaint {
                let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(3000)]);
                complaints.push(format!("{name}, {what}: {complaint}\n{shown}"));
            }
            *counts.entry(what).or_default() += 1;
            count += 1;
        }
        println!("{name}: {} files, {counts:?}", counts.values().sum::<usize>());
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert_eq!(count, 4 * FILES_OF_EACH);
    let growth_kib = memory_peak_kib() - before_kib;
    println!("{count} files; peak memory grew by {growth_kib} KiB");
    assert!(growth_kib < MEMORY_GROWTH_MAX_KIB, "{growth_kib} KiB");
}
