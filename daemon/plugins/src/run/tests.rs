//! Programs that every system has, and `sh` as one that misbehaves.

use super::*;

fn sh<'a>(arguments: &'a [&'a str], timeout_ms: u64, secret: Option<&'a str>) -> Run<'a> {
    let timeout = Duration::from_millis(timeout_ms);
    Run { program: "sh", arguments, timeout, reads_all: true, secret, chatter: &["hint"] }
}

fn ran(script: &str) -> Result<Finished> {
    Programs::new(None).unwrap().run(sh(&["-c", script], 10_000, None))
}

#[test]
fn a_program_gets_its_arguments_and_nothing_else() {
    let run = sh(&["-c", "echo \"$1\"; cat; env", "sh", "a b; $HOME"], 10_000, None);
    let finished = Programs::new(Some("/x:/y")).unwrap().run(run).unwrap().checked().unwrap();
    let mut lines: Vec<&str> = finished.stdout.lines().collect();
    assert_eq!(lines.remove(0), "a b; $HOME");
    lines.retain(|line| {
        !["PWD=", "OLDPWD=", "SHLVL=", "_="].iter().any(|own| line.starts_with(own))
    });
    lines.sort_unstable();
    assert_eq!(lines, ["LC_ALL=C", &format!("PATH=/x:/y:{PATH}")]);
}

#[test]
fn a_failure_has_the_last_line_that_tells_something() {
    let error = ran("echo first >&2; echo 'no room' >&2; echo a hint >&2; exit 3").unwrap();
    let error = error.checked().unwrap_err();
    assert_eq!(
        (error.kind, error.message.as_str()),
        (ErrorKind::Io, "sh: exit status: 3: no room")
    );
    let error = ran("echo 'x: Permission denied' >&2; exit 1").unwrap().checked().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Denied);
    let error = ran("exit 1").unwrap().checked().unwrap_err();
    assert_eq!(error.message, "sh: exit status: 1");
    assert_eq!(last_line("a\nb\u{7}\n\n c\n", &["c"]), "b");
}

#[test]
fn what_is_not_there_is_unavailable() {
    let programs = Programs::new(None).unwrap();
    let run = Run { program: "op-dbus-no-such-program", ..sh(&[], 1, None) };
    assert_eq!(programs.run(run).unwrap_err().kind, ErrorKind::Unavailable);
    assert_eq!(Programs::new(Some("bin")).unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(Programs::new(Some("/bin:")).unwrap_err().kind, ErrorKind::Invalid);
}

#[test]
fn a_program_that_takes_too_long_is_ended_with_its_children() {
    let directory = tempfile::tempdir().unwrap();
    let mark = directory.path().join("mark");
    let script = format!("(sleep 2; touch {}) & wait", mark.display());
    let start = Instant::now();
    let arguments = ["-c", &script];
    let run = sh(&arguments, 300, None);
    let error = Programs::new(None).unwrap().run(run).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    thread::sleep(Duration::from_millis(2500));
    assert!(!mark.exists(), "the child went on");
}

#[test]
fn output_is_bounded() {
    let error = ran("while :; do echo 0123456789012345678901234567890123456789; done").unwrap_err();
    assert_eq!(error.kind, ErrorKind::Io);
    let script = "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end; echo fault >&2";
    let arguments = ["-c", script];
    let run = Run { reads_all: false, ..sh(&arguments, 10_000, None) };
    let finished = Programs::new(None).unwrap().run(run).unwrap().checked().unwrap();
    assert_eq!(finished.stdout.len(), TAIL_LEN_MAX_BYTES);
    assert!(finished.stdout.ends_with("x\nend\n"));
    assert_eq!(finished.stderr, "fault\n");
}

#[test]
fn a_daemon_that_stays_is_not_waited_for() {
    let start = Instant::now();
    let finished = ran("sleep 5 & echo started").unwrap().checked().unwrap();
    assert_eq!(finished.stdout, "started\n");
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[test]
fn secrets_and_parts_of_them_are_left_out() {
    let secret = "abcdefghijklmnop";
    let said = |text: &str| redacted(text.as_bytes(), Some(secret));
    assert_eq!(
        said("fine\nPost https://x/abcdefghijklmnop: no"),
        "fine\nPost https://x/(secret): no"
    );
    assert_eq!(said("cut: abcdefgh\nfine"), "(secret)\nfine");
    assert_eq!(said("abcdefg is too short a part"), "abcdefg is too short a part");
    assert_eq!(redacted(b"a xyz b", Some("xyz")), "a (secret) b");
    assert_eq!(redacted(b"same\n", None), "same\n");
}
