//! Thirty questions to real D-Bus interfaces: does meaning find the member that people mean?
//!
//! The questions and the members that count as answers, in `data/questions.json`, were written before
//! anybody looked at a result, and the phrases that lead to members (`daemon/descriptions`) by others,
//! who had not seen the questions. The interfaces are those of packages of the distribution, and those
//! that a running systemd answers with; both are fetched once, and kept with the store in the user's
//! cache.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use support::program::{Invocation, Workplace, is_root};
use support::{model, scratch};

const QUESTIONS_COUNT: usize = 30;
/// How many questions must have an accepted member first, and among the first five.
const FIRST_MIN: usize = 20;
const FIRST_FIVE_MIN: usize = 27;
const SERVICES_MIN: usize = 25;
/// Names of members that are asked for, and how many must be first if words count.
const NAMES_COUNT: usize = 30;
const NAMES_FIRST_MIN: usize = 24;
/// Services whose interfaces are in no package.
const LIVE: [&str; 6] = ["systemd1", "login1", "hostname1", "timedate1", "locale1", "DBus"];

/// An interface of which the descriptions that come with the program have phrases.
const NAMES: &str = "<node><interface name='org.freedesktop.hostname1'>\
    <method name='SetHostname'><arg name='hostname' type='s' direction='in'/></method>\
    </interface></node>";

#[derive(Deserialize)]
struct Question {
    question: String,
    members: Vec<String>,
    service: String,
}

fn questions() -> Vec<Question> {
    let text = std::fs::read(scratch::data("questions.json")).unwrap();
    let questions: Vec<Question> = serde_json::from_slice(&text).unwrap();
    assert_eq!(questions.len(), QUESTIONS_COUNT);
    questions
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// A directory that a script makes, unless it is there; `None`, and why, if that fails.
fn made_by(script: &str, directory: &Path) -> Option<PathBuf> {
    if directory.exists() {
        return Some(directory.to_owned());
    }
    std::fs::create_dir_all(directory.parent().unwrap()).unwrap();
    let run = Command::new(root().join(script)).arg(directory).output().unwrap();
    if run.status.success() {
        return Some(directory.to_owned());
    }
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    println!("SKIPPED: {script}: {}", said.lines().last().unwrap_or_default());
    None
}

#[test]
fn questions_find_the_members_that_people_mean() {
    let cache = scratch::cache_directory().join("test/interfaces");
    let packaged = made_by("cli/demo/collect_interfaces.py", &cache.join("packaged"));
    let packaged = packaged.expect("interfaces of packages can be downloaded");
    let live =
        is_root().then(|| made_by("tests/live_interfaces.sh", &cache.join("live"))).flatten();
    if live.is_none() {
        println!(
            "SKIPPED: what systemd answers with; it takes root, systemd-container, debootstrap"
        );
    }
    // Another version of the program makes other records; embeddings come from the cache.
    let store = cache.join("store");
    model::installed();
    let directories = [Some(packaged), live.clone()].into_iter().flatten();
    let op_dbus = |arguments: &[&str]| {
        let program = Path::new(env!("CARGO_BIN_EXE_op-dbus"));
        Invocation::new(program)
            .arguments(["--store", store.to_str().unwrap()])
            .arguments(arguments)
    };
    for directory in directories {
        let _ = op_dbus(&["index", directory.to_str().unwrap()]).run().succeeded();
    }
    let asked: Vec<Question> = questions()
        .into_iter()
        .filter(|question| live.is_some() || !LIVE.contains(&question.service.as_str()))
        .collect();
    let part = |count: usize| count * asked.len() / QUESTIONS_COUNT;
    // Words must not lead those astray who describe what they are looking for.
    for more in [&[][..], &["--keyword"]] {
        let (first, first_five) = ask_all(&op_dbus, &asked, more);
        println!("{more:?}: {first} first, {first_five} in the first five, of {}", asked.len());
        assert!(first >= part(FIRST_MIN), "only {first} first");
        assert!(first_five >= part(FIRST_FIVE_MIN), "only {first_five} in the first five");
    }
    let exported = op_dbus(&["cache", "export", "--collection", "dbus"]).run().succeeded().text();
    count_services(&exported);
    let names = names(&exported);
    let [by_meaning, by_both] =
        [&[][..], &["--keyword"]].map(|more| ask_all(&op_dbus, &names, more).0);
    println!("{NAMES_COUNT} names: {by_meaning} first by meaning, {by_both} if words count, too");
    assert!(by_both >= NAMES_FIRST_MIN.max(by_meaning));
}

/// How many questions have an accepted member first, and in the first five.
fn ask_all(
    op_dbus: &dyn Fn(&[&str]) -> Invocation,
    questions: &[Question],
    more: &[&str],
) -> (usize, usize) {
    let (mut first, mut first_five) = (0, 0);
    for Question { question, members, .. } in questions {
        let command = [&["query", question, "-k", "5", "--json"], more].concat();
        let answer = op_dbus(&command).run().succeeded().json();
        let keys: Vec<&str> = answer["hits"]
            .as_array()
            .unwrap()
            .iter()
            .map(|hit| hit["key"].as_str().unwrap())
            .collect();
        let rank = keys.iter().position(|key| members.iter().any(|member| member == key));
        first += usize::from(rank == Some(0));
        first_five += usize::from(rank.is_some());
        match rank {
            Some(rank) => println!("{}  {question}", rank + 1),
            None => println!("-  {question}: not {members:?}, but {keys:?}"),
        }
    }
    (first, first_five)
}

/// Names of some members as questions, each answered by all that have it.
fn names(exported: &str) -> Vec<Question> {
    let records =
        exported.lines().map(|line| -> serde_json::Value { serde_json::from_str(line).unwrap() });
    let mut members: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for record in records {
        if let Some(name) = record["payload"]["member"].as_str() {
            let key = record["key"].as_str().unwrap().to_owned();
            members.entry(name.to_owned()).or_default().push(key);
        }
    }
    let stride = members.len() / NAMES_COUNT;
    let some = members.into_iter().step_by(stride).take(NAMES_COUNT);
    some.map(|(question, members)| Question { question, members, service: String::new() }).collect()
}

/// So many questions to a few services would show little.
fn count_services(exported: &str) {
    let (mut services, mut members) = (std::collections::BTreeSet::new(), 0);
    for line in exported.lines() {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        if let Some(interface) = record["payload"]["interface"].as_str() {
            members += 1;
            services.insert(interface.split('.').take(3).collect::<Vec<_>>().join("."));
        }
    }
    println!("{members} members of {} services", services.len());
    assert!(services.len() >= SERVICES_MIN, "only {} services: {services:?}", services.len());
}

/// Phrases come and go with versions of the descriptions; those of before must lead nobody on.
#[test]
fn phrases_that_a_member_has_no_more_go_when_it_is_indexed_again() {
    model::installed();
    let place = Workplace::new(env!("CARGO_BIN_EXE_op-dbus"));
    place.file("names.xml", NAMES);
    let phrases = || {
        let exported = place.done(["cache", "export", "--collection", "dbus"]).text();
        let keys = exported.lines().map(|line| {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            record["key"].as_str().unwrap().to_owned()
        });
        keys.filter(|key| key.starts_with("phrase:")).collect::<Vec<_>>()
    };
    let _ = place.done(["index", "names.xml"]);
    let described = phrases();
    let member = "method:org.freedesktop.hostname1.SetHostname";
    let count = described.len();
    assert!(described.contains(&format!("phrase:{}:{member}", count - 1)), "{described:?}");
    // Two more, as of an earlier description, and between them one of somebody's own.
    let record = |number: usize, payload: serde_json::Value| {
        let key = format!("phrase:{}:{member}", count + number);
        serde_json::json!({ "key": key, "payload": payload }).to_string()
    };
    let earlier = serde_json::json!({ "kind": "phrase", "of": member });
    let own = serde_json::json!({ "mine": true });
    let more = [record(0, earlier.clone()), record(1, own), record(2, earlier)].join("\n");
    place.file("more.jsonl", more);
    let _ = place.done(["cache", "import", "more.jsonl", "--collection", "dbus"]);
    assert_eq!(phrases().len(), count + 3);
    let _ = place.done(["index", "names.xml"]);
    let mut left = described;
    left.push(format!("phrase:{}:{member}", count + 1));
    left.sort();
    assert_eq!(phrases(), left);
}
