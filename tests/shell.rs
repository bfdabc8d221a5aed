//! Completions in real shells, and manual pages as real programs show them.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use support::crash::campaign::skip;
use support::program::Workplace;

const PROGRAM: &str = env!("CARGO_BIN_EXE_op-dbus");

/// A store with a collection, a document and a snapshot, and a plugin.
fn workplace() -> Workplace {
    let place = Workplace::new(PROGRAM);
    place.file("things.jsonl", "{\"key\":\"one\",\"vector\":[1.0,0.0]}\n");
    place.done(["index", "things.jsonl", "--collection", "things"]);
    place.file("document.json", "{}");
    place.done(["put", "key", "document.json"]);
    fs::create_dir_all(place.path().join("plugins/hostname")).unwrap();
    place
}

fn has(tool: &str) -> bool {
    let mut asked = Command::new(tool);
    asked.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// What a shell offers at the end of a line, told by a script of its own.
fn offered(place: &Workplace, shell: &str, script: &str, line: &str) -> BTreeSet<String> {
    let directory = Path::new(PROGRAM).parent().unwrap();
    let path = format!("{}:{}", directory.display(), std::env::var("PATH").unwrap());
    let output = Command::new(shell)
        .args(if shell == "zsh" { &["-f", "-c"][..] } else { &["-c"] })
        .arg(script)
        .env("PATH", path)
        .env("OPDBUS_BTRFS_BASE_PATH", place.store())
        .env("OPDBUS_PLUGINS", place.path().join("plugins"))
        .env("OPDBUS_CONFIG", "/dev/null")
        .env("HOME", place.path())
        .env("TERM", "dumb")
        .env("LINE", line)
        .current_dir(place.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).replace(['\r', '\u{b}'], "\n");
    // What zsh tells stands in brackets, as far as it has not redrawn the line over it.
    let text = text.replace(['<', '>'], "\n");
    let words = text.lines().filter_map(|line| line.split(['\t', ' ']).next());
    let words: BTreeSet<String> =
        words.filter(|word| !word.is_empty()).map(str::to_owned).collect();
    assert!(output.status.success(), "{shell}: {}", String::from_utf8_lossy(&output.stderr));
    words
}

/// Lines, and what each must be offered.
fn assert_offers(place: &Workplace, shell: &str, script: &str) {
    let snapshot = place.done(["snapshot", "list", "--json"]).json();
    let snapshot = snapshot["snapshots"][0]["name"].as_str().unwrap().to_owned();
    let cases: [(&str, &[&str]); 8] = [
        ("op-dbus que", &["query"]),
        ("op-dbus snapshot re", &["receive", "restore"]),
        ("op-dbus query text --expl", &["--explain"]),
        ("op-dbus query text --collection th", &["things"]),
        ("op-dbus query text --at ", &[&snapshot]),
        ("op-dbus snapshot delete ", &[&snapshot]),
        ("op-dbus plugin show host", &["hostname"]),
        ("op-dbus --log-level in", &["info"]),
    ];
    for (line, expected) in cases {
        let offered = offered(place, shell, script, line);
        for word in expected {
            let is_there = offered.iter().any(|it| it.trim_end() == *word);
            assert!(is_there, "{shell}: {line:?} offers {offered:?}, not {word}");
        }
    }
    // What no word begins with is not offered.
    let none = offered(place, shell, script, "op-dbus query text --collection zz");
    assert!(none.iter().all(|word| word != "things"), "{shell}: {none:?}");
}

#[test]
fn bash_completes() {
    // What readline does at Tab: the words, the place, and the function.
    const SCRIPT: &str = r#"
        source <(op-dbus completions bash)
        COMP_LINE=$LINE COMP_POINT=${#LINE} COMP_TYPE=9
        read -ra COMP_WORDS <<< "$LINE"
        [[ $LINE == *' ' ]] && COMP_WORDS+=('')
        COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
        _clap_complete_op_dbus op-dbus "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}" 2>/dev/null
        printf '%s\n' "${COMPREPLY[@]}""#;
    let place = workplace();
    place.done(["snapshot", "create"]);
    assert_offers(&place, "bash", SCRIPT);
}

#[test]
fn fish_completes() {
    if !has("fish") {
        return skip("fish_completes", &"there is no fish");
    }
    let place = workplace();
    place.done(["snapshot", "create"]);
    let script = "op-dbus completions fish | source; complete -C \"$LINE\"; true";
    assert_offers(&place, "fish", script);
}

#[test]
fn zsh_completes() {
    if !has("zsh") {
        return skip("zsh_completes", &"there is no zsh");
    }
    // A zsh of its own in a terminal of its own, which lists what Tab offers.
    const SCRIPT: &str = r#"
        zmodload zsh/zpty
        zpty shell 'zsh -f -i'
        zpty -w shell "PS1=; unsetopt zle_bracketed_paste; autoload -U compinit && compinit -u -D"
        zpty -w shell 'source <(op-dbus completions zsh)'
        zpty -w shell 'comppostfuncs=(list_all); list_all() { print -r -- "<${(F)_offers}>" }'
        zpty -w shell 'compadd() { local -a found; builtin compadd -A found -O found "$@"; _offers+=($found); builtin compadd "$@" }'
        zpty -w shell 'print ready-$((1 + 1))'
        while zpty -r shell line; do [[ $line == *ready-2* ]] && break; done
        zpty -n -w shell "$LINE"$'\t'
        integer left=300
        while (( left-- )); do
            if zpty -r -t shell line; then
                told+=$line
                [[ $told == *'<'*'>'* ]] && break
            else
                sleep 0.1
            fi
        done
        print -r -- "$told"
        true"#;
    let place = workplace();
    place.done(["snapshot", "create"]);
    assert_offers(&place, "zsh", SCRIPT);
}

#[test]
fn manual_pages_are_shown_without_a_warning() {
    if !has("man") {
        return skip("manual_pages_are_shown_without_a_warning", &"there is no man");
    }
    let place = workplace();
    let written = place.done(["man", "--output", "pages", "--json"]).json();
    let pages = written["pages"].as_array().unwrap();
    assert!(pages.len() > 50, "{} pages", pages.len());
    for page in pages {
        let page = place.path().join("pages").join(page.as_str().unwrap());
        let shown = Command::new("man")
            .args(["--warnings", "-E", "UTF-8", "-l"])
            .arg(&page)
            .env("MANWIDTH", "80")
            .env("LC_ALL", "C.UTF-8")
            .output()
            .unwrap();
        let complaints = String::from_utf8_lossy(&shown.stderr);
        assert!(
            shown.status.success() && complaints.is_empty(),
            "{}: {complaints}",
            page.display()
        );
        let text = String::from_utf8_lossy(&shown.stdout);
        for section in ["NAME", "SYNOPSIS"] {
            assert!(text.lines().any(|line| line == section), "{}: {text}", page.display());
        }
        // Examples stand as they are.
        let examples = text.find("\nEXAMPLES\n").unwrap_or(text.len());
        let wide = text[..examples].lines().find(|line| line.chars().count() > 80);
        assert!(wide.is_none(), "{}: {wide:?}", page.display());
    }
    let of_program = place.done(["man"]).text();
    assert_eq!(of_program, fs::read_to_string(place.path().join("pages/op-dbus.1")).unwrap());
    // A page that is wrong is complained about.
    place.file("wrong.1", ".TH wrong 1\n.SH NAME\n\\fXwrong\\h'99z'\n");
    let mut wrong = Command::new("man");
    wrong.args(["--warnings", "-l"]).arg(place.path().join("wrong.1"));
    assert!(!wrong.env("LC_ALL", "C.UTF-8").output().unwrap().stderr.is_empty());
}
