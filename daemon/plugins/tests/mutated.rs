//! Request lines that were changed at random: each is answered, and the plugin goes on.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod support;

use std::fs;
use std::thread;

use serde_json::json;
use support::{Programs, Running};

const LINES_COUNT: usize = 2000;
const SEEDS: [&str; 8] = [
    r#"{"protocol":1,"plugin":"lxc","config":{"lxcpath":"/nowhere","timeout_s":5}}"#,
    r#"{"id":1,"verb":"query"}"#,
    r#"{"id":2,"verb":"query","about":{"containers":{"a":{"config":{"lxc.net.0.type":null}}}}}"#,
    r#"{"id":3,"verb":"diff","desired":{"containers":{"web":{"present":true,"running":true,"template":"busybox","template_args":["-x"],"config":{"lxc.mount.entry":["a","b"]}}}}}"#,
    r#"{"id":4,"verb":"apply","desired":{"containers":{"a":{"running":false,"autostart":true}}}}"#,
    r#"{"id":5,"verb":"verify","desired":{"networks":{"office":{"present":true,"connected":true,"token":"abc"}}}}"#,
    r#"{"id":6,"verb":"diff","desired":{"networks":{"office":{"present":false},"lab":{"connected":false}}}}"#,
    r#"{"id":7,"verb":"apply","desired":{"networks":{"lab":{"present":true,"token":"abc"}}}}"#,
];
const PIECES: [&str; 14] = [
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "null",
    "\\u0000",
    "-1",
    "1e999",
    "\u{fffd}",
    "\"id\"",
    "99999999999999999999",
];

/// Marsaglia's xorshift: the same lines on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }
}

fn mutated(random: &mut Random) -> Vec<u8> {
    let mut line = SEEDS[random.below(SEEDS.len())].as_bytes().to_vec();
    for _ in 0..random.below(5) {
        let at = random.below(line.len().max(1)).min(line.len());
        let end = (at + random.below(12)).min(line.len());
        match random.below(6) {
            0 => drop(line.drain(at..end)),
            1 => line.truncate(at),
            2 => drop(line.splice(at..at, PIECES[random.below(PIECES.len())].bytes())),
            3 => drop(line.splice(at..end, PIECES[random.below(PIECES.len())].bytes())),
            4 if at < line.len() => line[at] = u8::try_from(random.below(256)).unwrap(),
            _ => drop(line.splice(at..at, line[at..end].to_vec())),
        }
    }
    line.retain(|byte| *byte != b'\n');
    line
}

/// Writes all lines at once, and counts the answers.
fn answer_all(executable: &str, name: &str, programs: &Programs, seed: u64) {
    let config = json!({"path": programs.bin(), "timeout_s": 10});
    let mut plugin = Running::start(executable, name, &config);
    let mut random = Random(seed);
    let lines: Vec<Vec<u8>> = (0..LINES_COUNT).map(|_| mutated(&mut random)).collect();
    let mut refused = 0;
    thread::scope(|scope| {
        let mut input = plugin.take_input();
        let writer = scope.spawn(move || {
            for line in &lines {
                std::io::Write::write_all(&mut input, line).unwrap();
                std::io::Write::write_all(&mut input, b"\n").unwrap();
            }
            input
        });
        for _ in 0..LINES_COUNT {
            let mut answer = plugin.read();
            while answer.get("progress").is_some() {
                answer = plugin.read();
            }
            refused += usize::from(answer.get("error").is_some());
        }
        plugin.give_input(writer.join().unwrap());
    });
    assert!((LINES_COUNT / 4..LINES_COUNT).contains(&refused), "{refused} were refused");
    let (_, answer) = plugin.ask(json!({"verb": "query"}));
    assert!(answer["state"].is_object(), "{answer}");
    assert_eq!(plugin.end().0, Some(0));
}

#[test]
fn mutated_lines_are_answered_by_the_plugin_for_lxc() {
    let list = "echo NAME STATE AUTOSTART; echo a RUNNING 1";
    let rest = ["lxc-info", "lxc-create", "lxc-start", "lxc-stop", "lxc-destroy"];
    let mut scripts = vec![("lxc-ls", list)];
    scripts.extend(rest.map(|name| (name, "exit 0")));
    let programs = Programs::new(&scripts);
    fs::create_dir(programs.state().join("a")).unwrap();
    answer_all(env!("CARGO_BIN_EXE_op-dbus-plugin-lxc"), "lxc", &programs, 0x5eed_0001);
}

#[test]
fn mutated_lines_are_answered_by_the_plugin_for_netmaker() {
    let list = r#"echo '[{"network":"lab","connected":true}]'"#;
    let programs = Programs::new(&[("netclient", list)]);
    answer_all(env!("CARGO_BIN_EXE_op-dbus-plugin-netmaker"), "netmaker", &programs, 0x5eed_0002);
}
