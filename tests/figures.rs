//! What the program tells of a store: once, again and again, and on the whole terminal; from the store
//! itself, and from the service that has it open.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[path = "figures/terminal.rs"]
mod terminal;

use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::bus::Served;
use support::crash::campaign::skip;
use support::program::{Running, Workplace};
use terminal::Terminal;

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_op-dbus");

/// A store with a collection of two vectors.
fn place() -> Workplace {
    let place = Workplace::new(EXECUTABLE);
    place.file(
        "vectors.jsonl",
        "{\"key\":\"one\",\"vector\":[1,0]}\n{\"key\":\"two\",\"vector\":[0,1]}\n",
    );
    place.done(["index", "vectors.jsonl", "--collection", "vectors"]);
    place
}

fn socket(place: &Workplace) -> PathBuf {
    place.path().join("socket")
}

fn serve(place: &Workplace) -> Served {
    let daemon = ["daemon", "--model", "no-model", "--plugins", "no-plugins"];
    let served = Served::at_socket(place.op(daemon), &socket(place));
    // A little after it listens, whoever finds the store in use finds whom to ask.
    while place.op(["journal", "show"]).run().code() == Some(5) {
        std::thread::sleep(Duration::from_millis(20));
    }
    served
}

fn names(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn the_service_tells_what_the_store_itself_does() {
    let place = place();
    let direct = place.done(["stats", "--json"]).json();
    let direct_cache = place.done(["cache", "stats", "--json"]).json();
    let direct_lines = place.done(["stats"]).text();
    let served = serve(&place);

    let told = place.done(["stats", "--json"]).json();
    let expected = [names(&direct), vec!["bus"]].concat();
    assert_eq!(names(&told), expected);
    let collection = |stats: &Value| {
        let collections = stats["collections"].as_array().unwrap();
        collections.iter().find(|known| known["name"] == "vectors").unwrap().clone()
    };
    assert_eq!(collection(&told), collection(&direct));
    assert_eq!(told["store"], direct["store"]);
    let told_cache = place.done(["cache", "stats", "--json"]).json();
    assert_eq!(names(&told_cache), names(&direct_cache));
    assert_eq!(told_cache["tier"]["policy"], direct_cache["tier"]["policy"]);

    // The same lines, and two of calls.
    let labels = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with("  declared"));
        lines.map(|line| line.chars().take(17).collect()).collect()
    };
    let mut lines = labels(&place.done(["stats"]).text());
    lines.retain(|line| !line.starts_with("calls "));
    assert_eq!(lines, labels(&direct_lines));
    let later = place.done(["stats", "--json"]).json();
    let answered = |stats: &Value| stats["bus"]["answered"].as_u64().unwrap();
    assert!(answered(&later) >= answered(&told) + 3, "{told} {later}");
    assert_eq!(later["bus"]["refused"], 0);
    let _ = served.terminate().succeeded();
}

#[test]
fn a_watch_in_a_pipe_has_a_line_for_each_period() {
    let place = place();
    let next = |watch: &mut Running| -> Value {
        serde_json::from_str(&watch.next_line().unwrap()).unwrap()
    };
    let watched = |is_served: bool| {
        let mut watch = place.op(["stats", "--watch", "0.2", "--json"]).start();
        let (first, second) = (next(&mut watch), next(&mut watch));
        assert_eq!(
            (&first["rates"], &first["collections"][0]["name"]),
            (&Value::Null, &second["collections"][0]["name"])
        );
        let rates = &second["rates"];
        assert!(rates["seconds"].as_f64().unwrap() >= 0.2, "{rates}");
        assert_eq!((&rates["changes"], &rates["p50_us"]), (&0.0.into(), &Value::Null));
        assert_eq!(rates["answered"].is_number(), is_served, "{rates}");
        if is_served {
            let socket = socket(&place);
            let put = support::bus::block_on(async move {
                let connection = support::bus::connect_to_socket(&socket).await.unwrap();
                let state = op_dbus_daemon::StateProxy::new(&connection).await.unwrap();
                state.put("hosts/web1".to_owned(), "{}".to_owned()).await
            });
            put.unwrap();
            let mut has_changed = |_| next(&mut watch)["rates"]["changes"].as_f64() > Some(0.0);
            assert!((0..20).any(&mut has_changed), "a change is seen");
        }
        watch.interrupt();
        let _ = watch.finish().succeeded();
    };
    watched(false);
    let served = serve(&place);
    watched(true);

    let mut watch = place.op(["stats", "--watch"]).start();
    let mut block = || -> Vec<String> {
        // An empty line stands before each part, too; the next block begins with the store.
        let mut lines = Vec::new();
        while let Some(line) = watch.next_line() {
            lines.push(line);
            if lines.last().is_some_and(|line| line.trim_start().starts_with("evicted  ")) {
                break;
            }
        }
        lines
    };
    let (first, second) = (block(), block());
    assert!(first[0].starts_with("store  ") && !first[1].contains("/s"), "{first:?}");
    let sequence = second.iter().find(|line| line.starts_with("sequence ")).unwrap();
    assert!(sequence.ends_with("0.0/s"), "{second:?}");
    watch.interrupt();
    let _ = watch.finish().succeeded();
    let _ = served.terminate().succeeded();
}

#[test]
fn whoever_reads_no_more_ends_a_watch() {
    let place = place();
    let watch = place.op(["stats", "--watch", "0.2", "--json"]);
    let watch =
        watch.within("\"$0\" \"$@\" | head -n 2; exit \"${PIPESTATUS[0]}\"").run().succeeded();
    assert_eq!(watch.text().lines().count(), 2);
}

#[test]
fn what_cannot_be_shown_is_refused() {
    let place = place();
    place.op(["top", "--json"]).run().refused(2, &["terminal"]);
    let piped = place.op(["top"]).run().exited(2);
    assert!(piped.stderr.contains("op-dbus stats --watch"), "{}", piped.stderr);
    for arguments in [["stats", "--watch=0"], ["stats", "--watch=x"], ["top", "--period=-1"]] {
        place.op(arguments).arguments(["--json"]).run().refused(2, &["seconds"]);
    }
    place.op(["stats", "--watch", "--at", "2h", "--json"]).run().refused(2, &["--at"]);
    let nothing = Workplace::new(EXECUTABLE);
    nothing.op(["stats", "--watch", "--json"]).run().refused(3, &["store"]);
}

/// A terminal, or a word that a test is left out.
fn terminal(place: &Workplace, test: &str, variables: &[&str]) -> Option<Terminal> {
    if Terminal::is_there() {
        return Some(Terminal::start(place, variables));
    }
    skip(test, &"there is no tmux");
    None
}

fn restored(terminal: &Terminal, code: i32) {
    let ended = format!("ended {code}");
    let screen = terminal.until(&ended, |screen| screen.lines().any(|line| line == ended));
    assert!(screen.contains("before it"), "the screen is as it was:\n{screen}");
    assert!(!screen.contains("Activity") && !screen.contains("Ctrl-C ends it"), "{screen}");
    // What is typed is shown again.
    terminal.enter("echo $((6 * 7))");
    let _ = terminal.until("an answer", |screen| {
        screen.contains("echo $((6 * 7))") && screen.lines().any(|line| line == "42")
    });
    terminal.enter("clear");
}

fn begin(terminal: &Terminal, command: &str) {
    terminal.enter("echo before it");
    let program = format!("{EXECUTABLE} --store store {command}");
    terminal.enter(&format!("bash -c 'echo $$ > id; exec {program}'; echo ended $?"));
}

#[test]
fn top_has_the_terminal_and_gives_it_back() {
    let place = place();
    let unicode = ["LANG=C.UTF-8"];
    let test = "top_has_the_terminal_and_gives_it_back";
    let Some(terminal) = terminal(&place, test, &unicode) else { return };
    let mut served = serve(&place);
    begin(&terminal, "top --period 0.2");
    let parts =
        ["op-dbus top  ", "Activity ", " vectors hot", " calls ", "Tiers", "Arenas", "Journal"];
    let screen = terminal.until("screen", |screen| {
        parts.iter().all(|part| screen.contains(part)) && screen.contains("0.0/s")
    });
    assert!(screen.contains("told by the service, every 0.2 s"), "{screen}");
    assert!(screen.contains(" the service start {"), "the journal is there:\n{screen}");
    assert!(screen.contains('▁') && screen.contains(" q quit  p pause"), "{screen}");
    terminal.press("Tab");
    terminal.press("Tab");
    let _ = terminal.until("journal", |screen| {
        screen.contains("Tab part: journal") && !screen.contains("Tiers")
    });
    terminal.press("p");
    let _ = terminal.until("pause", |screen| screen.contains("paused, every"));
    terminal.resize(40, 10);
    let _ = terminal.until("small screen", |screen| {
        screen.lines().last().is_some_and(|line| line.starts_with(" q quit  p go on"))
    });
    terminal.resize(80, 24);
    terminal.press("q");
    restored(&terminal, 0);

    begin(&terminal, "top");
    let _ = terminal.until("screen", |screen| screen.contains("Journal"));
    terminal.press("C-c");
    restored(&terminal, 0);

    // Without the service there is nothing more to show.
    begin(&terminal, "top --period 0.2");
    let _ = terminal.until("screen", |screen| screen.contains("Journal"));
    served.signal(Signal::KILL);
    restored(&terminal, 10);
    assert!(!served.is_alive());
}

#[test]
fn top_opens_the_store_where_nobody_has_it_and_needs_no_more_than_ascii() {
    let place = place();
    let test = "top_opens_the_store_where_nobody_has_it_and_needs_no_more_than_ascii";
    let Some(terminal) = terminal(&place, test, &["NO_COLOR=1"]) else { return };
    begin(&terminal, "top --period 0.2");
    let screen = terminal.until("screen", |screen| {
        screen.contains("opened here, every 0.2 s") && screen.contains("0.0/s    ")
    });
    assert!(screen.is_ascii() && !screen.contains(" calls "), "{screen}");
    // Others may read beside it, and nobody writes.
    place.done(["stats", "--json"]);
    place.op(["put", "key", "--payload", "{}", "--json"]).run().refused(5, &["in use by process"]);
    let id = std::fs::read_to_string(place.path().join("id")).unwrap();
    let id = id.trim().parse().ok().and_then(Pid::from_raw).unwrap();
    kill_process(id, Signal::INT).unwrap();
    restored(&terminal, 0);
}

#[test]
fn a_watch_on_a_terminal_stays_in_place() {
    let place = place();
    let test = "a_watch_on_a_terminal_stays_in_place";
    let Some(terminal) = terminal(&place, test, &["LANG=C.UTF-8"]) else { return };
    begin(&terminal, "stats --watch 0.2");
    let screen = terminal.until("second block", |screen| screen.contains("0.0/s"));
    assert_eq!(screen.matches("sequence  ").count(), 1, "{screen}");
    assert!(screen.starts_with("store  ") && screen.contains("every 0.2 s; Ctrl-C ends it"));
    terminal.press("C-c");
    restored(&terminal, 0);
}
