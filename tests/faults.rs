//! Faults below libc: every file operation of a small workload fails, tears, or is the last one.
//!
//! `OPDBUS_TEST_FAULTS` says how many faults all kinds share (60 unless set; `all` for every
//! operation and kind), `OPDBUS_TEST_IMAGES` how many power cuts are imitated (100 unless set).
//! `OPDBUS_TEST_SEED` repeats both.

use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use op_dbus_engine::{Record, Store, StoreConfig};
use support::crash::aging::AgingStore;
use support::crash::campaign::{Campaign, number};
use support::crash::check::{Finding, Session};
use support::fault::image::Machine;
use support::fault::log::{Change, Entry, operations_count, parse};
use support::fault::shim::{Fault, Kind, Shim, plan_files, plan_log, plan_no_sync};
use support::fault::story::{Story, is_whole};
use support::random::Random;
use support::scratch;
use tempfile::TempDir;

const FAULTS_VARIABLE: &str = "OPDBUS_TEST_FAULTS";
const FAULTS_DEFAULT: u64 = 60;
const FAULTS_ALL: &str = "all";
const IMAGES_VARIABLE: &str = "OPDBUS_TEST_IMAGES";
const IMAGES_DEFAULT: u64 = 100;
/// The store and the notes of [`the_child_that_plays_the_story`].
const CHILD_VARIABLES: [&str; 2] = ["OPDBUS_TEST_CHILD_STORE", "OPDBUS_TEST_CHILD_NOTES"];
const SIGKILL: i32 = 9;
/// The story takes a second or two.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(2);

/// A directory for one run: what is watched, and beside it what is not.
struct Place {
    directory: TempDir,
}

/// How a run ended.
struct Played {
    status: ExitStatus,
    hung: bool,
    stderr: String,
}

impl Display for Played {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { status, hung, stderr } = self;
        let how = if *hung { " after it hung" } else { "" };
        write!(f, "{status}{how}: {stderr}")
    }
}

impl Place {
    fn new() -> Self {
        let place = Self { directory: scratch::in_memory() };
        fs::create_dir(place.watched()).expect("a directory can be made");
        place
    }

    fn watched(&self) -> PathBuf {
        self.directory.path().join("watched")
    }

    fn store(&self) -> PathBuf {
        self.watched().join("store")
    }

    fn notes(&self) -> PathBuf {
        self.directory.path().join("notes")
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    fn keep(&mut self) -> PathBuf {
        self.directory.disable_cleanup(true);
        self.directory.path().to_owned()
    }

    /// Plays the story in this test binary again, above the shim; ends it if it takes too long.
    fn play(&self, shim: &Shim, plan: impl FnOnce(&mut Command)) -> Played {
        let this = std::env::current_exe().expect("a test knows its file");
        let mut command = Command::new(this);
        let [store, notes] = CHILD_VARIABLES;
        command
            .args(["--exact", "the_child_that_plays_the_story", "--ignored", "--nocapture"])
            .env(store, self.store())
            .env(notes, self.notes())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        shim.preload(&mut command, &self.watched(), &self.notes());
        plan(&mut command);
        let mut child = command.spawn().expect("a test can start itself");
        let mut pipe = child.stderr.take().expect("it was asked for");
        std::thread::scope(|scope| {
            let reader = scope.spawn(move || {
                let mut stderr = Vec::new();
                pipe.read_to_end(&mut stderr).expect("a pipe can be read");
                String::from_utf8_lossy(&stderr).into_owned()
            });
            let started = Instant::now();
            let mut hung = false;
            let status = loop {
                if let Some(status) = child.try_wait().expect("it is our child") {
                    break status;
                }
                if started.elapsed() > PATIENCE && !hung {
                    hung = true;
                    child.kill().expect("it is our child");
                }
                std::thread::sleep(PAUSE);
            };
            Played { status, hung, stderr: reader.join().expect("it only reads") }
        })
    }

    /// Plays the story without faults and returns what it did.
    fn record(&self, shim: &Shim, plan: impl FnOnce(&mut Command)) -> Vec<Entry> {
        let played = self.play(shim, |command| {
            plan_log(command, &self.log());
            plan(command);
        });
        let notes = self.read_notes();
        assert!(played.status.success() && is_whole(&notes), "{notes:?} {played}");
        parse(&fs::read(self.log()).expect("there is a log"), &self.watched())
    }

    fn read_notes(&self) -> Vec<u8> {
        // A child that was killed at once has made none.
        fs::read(self.notes()).unwrap_or_default()
    }
}

#[test]
#[ignore = "it is started above the shim by the other tests"]
fn the_child_that_plays_the_story() {
    let [store, notes] =
        CHILD_VARIABLES.map(|name| std::env::var(name).expect("only the other tests start this"));
    Story::new().play(Path::new(&store), Path::new(&notes));
}

/// Judges the store that a run has left, and writes to it.
fn settle(store: &Path, story: &Story, session: &Session) -> Result<usize, Vec<Finding>> {
    let mut aging = AgingStore::new(store, 1);
    aging.settle(std::slice::from_ref(session))?;
    story.check_whole_steps(aging.sequence()).map_err(|finding| vec![finding])?;
    let goes_on = || {
        let store = Store::open(StoreConfig::new(store))?;
        store.put("after", &Record::new("x").with_vector([1.0, 2.0]))
    };
    match goes_on() {
        Ok(_) => Ok(session.acknowledged_count),
        Err(error) => Err(vec![Finding::Writer(format!("cannot go on: {error}"))]),
    }
}

/// Whether a run ended as it may: by itself, also after failures, or killed where planned.
fn check_end(fault: Fault, played: &Played) -> Result<(), Finding> {
    let killed = fault.kind == Kind::Kill && played.status.signal() == Some(SIGKILL);
    if !played.hung && (played.status.success() || killed) {
        return Ok(());
    }
    Err(Finding::Writer(format!("it did not end as it may: {played}")))
}

fn run_fault(
    shim: &Shim,
    story: &Story,
    place: &Place,
    fault: Fault,
) -> Result<usize, Vec<Finding>> {
    let played = place.play(shim, |command| fault.plan(command));
    check_end(fault, &played).map_err(|finding| vec![finding])?;
    settle(&place.store(), story, &story.session(&place.read_notes()))
}

/// Faults of one kind at as many operations as asked for, evenly spread from a random first one.
fn sweep(name: &'static str, kind: Kind, forever: bool) {
    const KINDS_COUNT: u64 = 4;
    let shim = Shim::build();
    let story = Story::new();
    let recorded = Place::new();
    // Threads in the background make the number a little different each time.
    let operations = operations_count(&recorded.record(&shim, |_| {}));
    let all = std::env::var(FAULTS_VARIABLE).is_ok_and(|value| value == FAULTS_ALL);
    let wanted = if all {
        operations
    } else {
        number(FAULTS_VARIABLE).unwrap_or(FAULTS_DEFAULT).div_ceil(KINDS_COUNT).min(operations)
    };
    let mut campaign = Campaign::of(name, wanted);
    let stride = (operations / wanted.max(1)).max(1);
    let first = campaign.random().bits() % stride;
    for step in 0..wanted {
        let fault = Fault { at: 1 + first + step * stride, kind, forever };
        let mut place = Place::new();
        let settled = run_fault(&shim, &story, &place, fault);
        campaign.judge(&fault, settled, || place.keep());
    }
    campaign.finish(&format!(", of {operations} operations"));
}

#[test]
fn an_operation_that_fails_once_loses_nothing_acknowledged() {
    sweep("EIO once", Kind::Eio, false);
}

#[test]
fn operations_that_fail_from_then_on_lose_nothing_acknowledged() {
    sweep("EIO forever", Kind::Eio, true);
}

#[test]
fn an_operation_without_room_loses_nothing_acknowledged() {
    sweep("ENOSPC once", Kind::Enospc, false);
}

#[test]
fn an_operation_torn_by_a_kill_loses_nothing_acknowledged() {
    sweep("torn and killed", Kind::Kill, false);
}

/// Makes the directory that one power cut leaves, at a random moment.
fn random_image(entries: &[Entry], random: &mut Random, place: &Place) -> (usize, Vec<u8>) {
    let moment = random.below(entries.len() + 1);
    let (before, _) = entries.split_at(moment);
    let image = Machine::replay(before, Random::new(random.bits())).cut();
    image.write(&place.watched()).expect("an image can be written");
    let note = |entry: &Entry| match &entry.change {
        Change::Note(bytes) => bytes.clone(),
        _ => Vec::new(),
    };
    (moment, before.iter().flat_map(note).collect())
}

#[test]
fn any_subset_of_unsynced_pages_has_what_was_acknowledged() {
    let shim = Shim::build();
    let story = Story::new();
    let entries = Place::new().record(&shim, |_| {});
    let mut campaign = Campaign::start("images", IMAGES_VARIABLE, IMAGES_DEFAULT, 100);
    let mut random = campaign.random();
    while campaign.goes_on() {
        let mut place = Place::new();
        let (moment, notes) = random_image(&entries, &mut random, &place);
        let settled = settle(&place.store(), &story, &story.session(&notes));
        campaign.judge(&moment, settled, || place.keep());
    }
    campaign.finish(&format!(", of {} moments", entries.len() + 1));
}

/// Whether images of a run show that something acknowledged is lost.
fn is_caught(entries: &[Entry]) -> bool {
    const IMAGES_MAX: usize = 60;
    let story = Story::new();
    let mut random = Random::new(1);
    (0..IMAGES_MAX).any(|_| {
        let place = Place::new();
        let (_, notes) = random_image(entries, &mut random, &place);
        settle(&place.store(), &story, &story.session(&notes)).is_err()
    })
}

/// The planted bugs: syncs that do nothing; those of the log, or of all directories, forgotten.
#[test]
fn a_missing_sync_is_caught() {
    let shim = Shim::build();
    assert!(is_caught(&Place::new().record(&shim, plan_no_sync)), "syncs that do nothing");
    let entries = Place::new().record(&shim, |_| {});
    let without = |forgotten: &dyn Fn(&Entry) -> bool| -> Vec<Entry> {
        let is_left = |entry: &&Entry| entry.change != Change::Sync || !forgotten(entry);
        entries.iter().filter(is_left).cloned().collect()
    };
    let of_log = |entry: &Entry| entry.path.extension().is_some_and(|end| end == "log");
    let parents: BTreeSet<&Path> = entries.iter().filter_map(|entry| entry.path.parent()).collect();
    let of_directory = |entry: &Entry| parents.contains(&*entry.path);
    assert!(is_caught(&without(&of_log)), "syncs of RocksDB's log forgotten");
    assert!(is_caught(&without(&of_directory)), "syncs of directories forgotten");
}

/// The shim is of use only if the store's writes go through it, RocksDB's and our own.
#[test]
fn the_shim_sees_the_writes_of_rocksdb_and_our_own() {
    let shim = Shim::build();
    let entries = Place::new().record(&shim, |_| {});
    let saw = |what: &str, is_it: &dyn Fn(&Entry) -> bool| {
        assert!(entries.iter().any(is_it), "it did not see {what}");
    };
    let name = |entry: &Entry| entry.path.file_name().map(|name| name.to_os_string());
    let extension = |entry: &Entry| entry.path.extension().map(|end| end.to_os_string());
    let writes = |entry: &Entry| matches!(entry.change, Change::Write { .. });
    let syncs = |entry: &Entry| entry.change == Change::Sync;
    saw("writes of the log", &|e| extension(e) == Some("log".into()) && writes(e));
    saw("syncs of the log", &|e| extension(e) == Some("log".into()) && syncs(e));
    saw("tables", &|e| extension(e) == Some("sst".into()) && writes(e));
    saw("the file STORE", &|e| name(e) == Some("STORE".into()) && syncs(e));
    saw("the file ACKNOWLEDGED", &|e| name(e) == Some("ACKNOWLEDGED".into()) && writes(e));
    saw("files of hot vectors", &|e| extension(e) == Some("arena".into()) && syncs(e));
    saw("their manifest", &|e| e.path.ends_with("@vectors/MANIFEST") && writes(e));
    saw("the store's birth", &|e| e.change == Change::Rename { to: "store/@state".into() });
    saw("compaction", &|e| extension(e) == Some("sst".into()) && e.change == Change::Remove);
    // An acknowledged step is one sync of the log, at least.
    let log_syncs = |entry: &&Entry| extension(entry) == Some("log".into()) && syncs(entry);
    let notes = |entry: &&Entry| matches!(entry.change, Change::Note(_));
    let (synced, noted) = (entries.iter().filter(log_syncs).count(), entries.iter().filter(notes));
    assert!(synced >= noted.count(), "{synced} syncs of the log");
}

/// A disk that loses the second half of an acknowledged write without a word.
#[test]
fn a_write_torn_in_silence_is_caught() {
    const LOG_OF_STATE: &str = "*/@state/db/*.log";
    // In sessions that are not closed: what a log loses after that is in tables.
    const AT: [u64; 3] = [10, 20, 50];
    let shim = Shim::build();
    let story = Story::new();
    for at in AT {
        let place = Place::new();
        let played = place.play(&shim, |command| {
            Fault { at, kind: Kind::Tear, forever: false }.plan(command);
            plan_files(command, LOG_OF_STATE);
        });
        assert!(played.status.success(), "{played}");
        let settled = settle(&place.store(), &story, &story.session(&place.read_notes()));
        settled.expect_err("what was acknowledged is torn, and the store must say so");
    }
}
