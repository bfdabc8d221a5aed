//! The screen as a terminal of some size has it, compared with text files.
//!
//! `UPDATE_GOLDEN=1` writes them anew; then look at what has changed.

use std::path::Path;
use std::time::Instant;

use op_dbus_daemon::Traffic;
use op_dbus_engine::Activity;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::{Value, json};

use super::super::model::Step;
use super::*;
use crate::command::journal::Tail;
use crate::rates::Reading;

const PLAIN: Theme = Theme { has_colors: false, has_unicode: true };
const SECOND: Duration = Duration::from_secs(1);

/// What there was after so many seconds of a store that is more and more busy.
fn figures(second: u64) -> Value {
    let (hits, queries) = (second * second * 10, second * 100);
    let arena = |name: &str, bytes: u64, pages: [u64; 2]| {
        let [first, other] = pages;
        json!({ "arena": name, "collection": null, "bytes": bytes,
                "pages_by_node": { "0": first, "1": other }, "refused": null })
    };
    let node = |node: u32| {
        json!({ "node": node, "cpus": "0-1", "memory_bytes": 8_u64 << 30, "free_bytes": null,
                "distances": [10, 20], "is_allowed": true })
    };
    json!({
        "store": "/var/lib/op-dbus", "sequence": 1_200_000 + second * 3,
        "bytes_memory": 2_u64 << 30, "bytes_mapped": 96 << 20, "bytes_disk": 30_u64 << 30,
        "memory": { "configured_bytes": null, "cgroup_bytes": null, "effective_bytes": 8_u64 << 30 },
        "cache": {
            "bytes_memory": 64 << 20, "bytes_disk": 1_u64 << 30, "evictions_disk": 7,
            "hits": hits, "misses": second * 20,
            "tier": {
                "policy": "lru", "capacity_bytes": 4_u64 << 30, "used_bytes": 1_300_000_000,
                "memory_bytes": 1_400_000_000, "hot_vectors": 812_345, "hits": hits, "misses": 50,
                "promotions": 800, "refusals": 0, "skipped": 0,
                "evictions": { "capacity": second / 5 * 16, "change": 3, "expiry": 1 },
            },
        },
        "numa": {
            "policy": "bind", "refused": null, "nodes": [0, 1], "cpus": [0, 1],
            "machine": [node(0), node(1)],
            "arenas": [
                arena("hot vectors of 384 dimensions", 1_300_000_000, [3000, 1000]),
                arena("keys of 384 dimensions", 33 << 20, [10, 0]),
                arena("graph of packages, copy 1", 140 << 20, [0, 0]),
            ],
        },
        "queries": {
            "count": queries, "p50_us": 319, "p99_us": 4_607,
            "latencies_us": [[319, queries - second], [1_000 * second, second]],
        },
    })
}

/// A model that has watched it for so many seconds.
fn watched(seconds: u64, is_service: bool) -> Model {
    let mut model = Model::new("told by the service", SECOND);
    let begun = Instant::now();
    let mut journal = Tail::default();
    for second in 1..=seconds {
        let activity: Activity = serde_json::from_value(figures(second)).unwrap();
        let seconds = second as f64;
        let traffic = Traffic { answered: second * 250, refused: second / 7, seconds };
        let traffic = is_service.then_some(traffic);
        journal.take([format!(
            "{second} 2026-11-26 12:00:{second:02} UTC intent user 1000 put hosts/web{second} {{}}"
        )]);
        let taken = begun + SECOND * u32::try_from(second).unwrap();
        let reading = Reading { activity, traffic, taken };
        assert!(model.take(Sample { reading, journal: journal.clone() }));
    }
    model
}

fn drawn(model: &Model, width: u16, height: u16, theme: Theme) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, model, theme)).unwrap();
    let buffer = terminal.backend().buffer();
    let rows = (0..height).map(|row| {
        let text: String = (0..width).map(|column| buffer[(column, row)].symbol()).collect();
        format!("{}\n", text.trim_end())
    });
    rows.collect()
}

fn press(model: &mut Model, code: KeyCode) -> Step {
    model.press(KeyEvent::new(code, KeyModifiers::NONE))
}

/// Compares with the file, or writes it.
fn assert_golden(name: &str, drawn: &str) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/top").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        std::fs::create_dir_all(golden.parent().unwrap()).unwrap();
        std::fs::write(&golden, drawn).unwrap();
    }
    let before = std::fs::read_to_string(&golden).unwrap();
    assert_eq!(drawn, before, "{} is not what is drawn today:\n{drawn}", golden.display());
}

#[test]
fn the_screen_is_as_ever() {
    let model = watched(40, true);
    assert_golden("80x24.txt", &drawn(&model, 80, 24, PLAIN));
    assert_golden("40x10.txt", &drawn(&model, 40, 10, PLAIN));
    let ascii = drawn(&model, 80, 24, Theme::default());
    assert!(ascii.is_ascii(), "{ascii}");
    assert_golden("80x24-ascii.txt", &ascii);
    // Without the service there are no calls, and after one measurement no rates.
    assert_golden("80x24-first.txt", &drawn(&watched(1, false), 80, 24, PLAIN));
}

#[test]
fn parts_have_the_screen_and_are_moved() {
    let mut model = watched(40, true);
    assert_eq!(press(&mut model, KeyCode::Tab), Step::Go);
    let arenas = drawn(&model, 80, 24, PLAIN);
    assert!(arenas.contains("copy 1") && !arenas.contains("Tiers"), "{arenas}");
    let _ = press(&mut model, KeyCode::Down);
    let moved = drawn(&model, 80, 24, PLAIN);
    assert!(!moved.contains("hot vectors of") && moved.contains("keys of 384"), "{moved}");
    let _ = press(&mut model, KeyCode::End);
    assert!(drawn(&model, 80, 24, PLAIN).contains("copy 1"), "one stays");
    let _ = press(&mut model, KeyCode::Tab);
    assert_golden("80x24-journal.txt", &drawn(&model, 80, 24, PLAIN));
    let _ = press(&mut model, KeyCode::Home);
    let first = drawn(&model, 80, 24, PLAIN);
    assert!(first.contains("hosts/web1 ") && !first.contains("hosts/web2 "), "{first}");
    let _ = press(&mut model, KeyCode::BackTab);
    assert_eq!(model.part(), Part::Arenas);
}

#[test]
fn keys_pause_change_the_period_and_end() {
    let mut model = watched(3, true);
    let _ = press(&mut model, KeyCode::Char('p'));
    let later = watched(4, true).sample().unwrap().clone();
    assert!(!model.take(later.clone()), "it is paused");
    assert!(drawn(&model, 80, 24, PLAIN).contains("paused, every 1 s"));
    let _ = press(&mut model, KeyCode::Char('p'));
    assert!(model.take(later));
    let _ = press(&mut model, KeyCode::Char('+'));
    assert_eq!(model.period(), SECOND * 2);
    (0..20).for_each(|_| _ = press(&mut model, KeyCode::Char('-')));
    assert_eq!(model.period(), Duration::from_millis(200));
    (0..20).for_each(|_| _ = press(&mut model, KeyCode::Char('+')));
    assert_eq!(model.period(), SECOND * 300);
    assert_eq!(press(&mut model, KeyCode::Char('q')), Step::End);
    let control = |letter| KeyEvent::new(KeyCode::Char(letter), KeyModifiers::CONTROL);
    assert_eq!(model.press(control('c')), Step::End);
    assert_eq!(model.press(control('l')), Step::Redraw);
}

#[test]
fn no_size_is_too_small_or_too_large() {
    for part in 0..3 {
        for mut model in [Model::new("opened here", SECOND), watched(1, false), watched(9, true)] {
            (0..part).for_each(|_| _ = press(&mut model, KeyCode::Tab));
            for (width, height) in [(1, 1), (2, 30), (90, 1), (17, 3), (40, 2), (63, 9), (300, 90)]
            {
                let shown = drawn(&model, width, height, PLAIN);
                assert_eq!(shown.lines().count(), usize::from(height));
            }
        }
    }
}

#[test]
fn a_journal_that_may_not_be_read_says_so() {
    let refused: Tail = Tail::refused("you may not read the collection journal");
    let reading = watched(1, true).sample().unwrap().reading.clone();
    let mut model = Model::new("told by the service", SECOND);
    assert!(model.take(Sample { reading, journal: refused }));
    assert!(drawn(&model, 80, 24, PLAIN).contains(" you may not read the collection journal"));
}

#[test]
fn a_spark_is_as_high_as_its_figure() {
    let history: History = [None, Some(0.0), Some(0.5), Some(1.0)].into();
    assert_eq!(spark(&history, Some(1.0), 6), "   ▁▄▇");
    assert_eq!(spark(&history, Some(2.0), 2), "▃▄");
    assert_eq!(spark(&history, None, 4), " ▁▄▇");
    assert_eq!(spark(&[Some(0.0)].into(), None, 1), "▁");
    assert_eq!(spark(&history, None, 0), "");
}
