//! Killed processes: what was acknowledged is there, whole, and the store opens.
//!
//! `OPDBUS_TEST_KILLS` says how many kills all tests here share (25 unless set), and
//! `OPDBUS_TEST_SEED` repeats the operations of a failure. A kill keeps what the kernel was given;
//! for what happens to bytes that were never synced see `power_cut.rs`.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use op_dbus_engine::{Record, Store, StoreConfig};
use support::crash::aging::AgingStore;
use support::crash::campaign::{Campaign, duration_below};
use support::crash::check::{COLLECTION, Finding, Session, observe};
use support::crash::import::{Import, Moment, command};
use support::crash::workload::{self, State, Workload};
use support::random::Random;
use tempfile::TempDir;

const KILLS_VARIABLE: &str = "OPDBUS_TEST_KILLS";
const KILLS_DEFAULT: u64 = 25;
/// A store is replaced by a new one after so many crashes.
const CRASHES_OF_STORE: u64 = 50;

fn op_dbus() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_op-dbus"))
}

fn directory() -> TempDir {
    TempDir::new().expect("a temporary directory can be made")
}

fn keep(directory: &mut TempDir) -> PathBuf {
    directory.disable_cleanup(true);
    directory.path().to_owned()
}

fn import(random: &mut Random, store: &AgingStore) -> Import {
    Import::start(op_dbus(), store.path(), random, store.session(), store.writer(0))
}

#[test]
fn a_killed_import_loses_nothing_that_it_acknowledged() {
    let mut campaign = Campaign::start("import", KILLS_VARIABLE, KILLS_DEFAULT, 60);
    let mut random = campaign.random();
    while campaign.goes_on() {
        let mut directory = directory();
        let mut store = AgingStore::new(directory.path().join("store"), 1);
        for _ in 0..CRASHES_OF_STORE {
            let moment = Moment::random(&mut random);
            let mut import = import(&mut random, &store);
            import.wait_until(moment);
            let settled = import.kill().map_err(|finding| vec![finding]).and_then(|ended| {
                store.settle(std::slice::from_ref(&ended.session))?;
                Ok(ended.session.acknowledged_count)
            });
            campaign.judge(&moment, settled, || keep(&mut directory));
            if !campaign.goes_on() {
                break;
            }
        }
    }
    campaign.finish("");
}

/// Each kill has a directory of its own, in which the store is then made and used after all.
#[test]
fn a_killed_creation_leaves_a_store_that_can_be_made() {
    let mut campaign = Campaign::start("creation", KILLS_VARIABLE, KILLS_DEFAULT, 15);
    let mut random = campaign.random();
    let creation = creation_time(&mut random);
    let mut unmade_count = 0;
    while campaign.goes_on() {
        let mut directory = directory();
        let mut store = AgingStore::new(directory.path().join("store"), 1);
        let moment = Moment::AfterStart(duration_below(&mut random, creation * 5 / 4));
        let mut import = import(&mut random, &store);
        import.wait_until(moment);
        let killed = import.kill();
        unmade_count += u64::from(!store.path().join("@state").exists());
        let settled = killed.map_err(|finding| vec![finding]).and_then(|ended| {
            store.settle(std::slice::from_ref(&ended.session))?;
            use_store(&mut store, &mut random)?;
            Ok(ended.session.acknowledged_count)
        });
        campaign.judge(&moment, settled, || keep(&mut directory));
    }
    campaign.finish(&format!(", {unmade_count} of them before there was a store"));
}

/// From the start of a process to its first acknowledgement in a new store.
fn creation_time(random: &mut Random) -> Duration {
    let directory = directory();
    let store = AgingStore::new(directory.path().join("store"), 1);
    let started = Instant::now();
    let mut import = import(random, &store);
    import.wait_until(Moment::AfterAcknowledgements { count: 1, more: Duration::ZERO });
    let took = started.elapsed();
    import.kill().expect("the import works until it is killed");
    took
}

/// Writes something and ends as one should.
fn use_store(store: &mut AgingStore, random: &mut Random) -> Result<(), Vec<Finding>> {
    let mut import = import(random, store);
    import.wait_until(Moment::AfterAcknowledgements { count: 10, more: Duration::ZERO });
    let session = import.finish().map_err(|finding| vec![finding])?;
    store.settle(&[session])
}

/// The embeddings go together or not at all, and the records stay.
#[test]
fn a_killed_clear_of_the_cache_leaves_the_records() {
    let mut campaign = Campaign::start("cache clear", KILLS_VARIABLE, KILLS_DEFAULT, 10);
    let mut random = campaign.random();
    let mut directory = directory();
    let mut store = AgingStore::new(directory.path().join("store"), 1);
    use_store(&mut store, &mut random).expect("nothing is wrong yet");
    let clear = |store: &AgingStore| {
        let mut command = command(op_dbus(), store.path(), &["cache", "clear"]);
        command.stdout(Stdio::null()).spawn().expect("the program can be started")
    };
    fill_cache(store.path());
    let started = Instant::now();
    let status = clear(&store).wait().expect("a child can be waited for");
    assert!(status.success(), "cache clear ended with {status}");
    let clearing = started.elapsed();
    let mut cleared_count = 0;
    while campaign.goes_on() {
        fill_cache(store.path());
        let after = duration_below(&mut random, clearing);
        let mut child = clear(&store);
        std::thread::sleep(after);
        child.kill().expect("a child that was not waited for can be killed");
        let status = child.wait().expect("a child can be waited for");
        let settled = store.settle_unchanged().map(|()| 0);
        match status.signal() {
            Some(_) => campaign.judge(&after, settled, || keep(&mut directory)),
            // It was faster this time, so there was no crash to count.
            None => assert!(status.success(), "cache clear ended with {status}"),
        }
        cleared_count += u64::from(is_cache_cleared(store.path()));
    }
    campaign.finish(&format!(", {cleared_count} times the cache was empty after it"));
}

const CACHED_COUNT: u64 = 400;

fn cached(index: u64) -> (String, Vec<f32>) {
    const MODEL_DIMENSIONS: usize = 384;
    let mut vector = Random::new(index).vector(MODEL_DIMENSIONS);
    // The cache takes embeddings of the model, and those have length 1.
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector.iter_mut().for_each(|x| *x /= length);
    (format!("text {index}"), vector)
}

/// The keys of the cache need the model's fingerprint, so it is opened, but it runs nothing.
fn open_with_model(store: &Path) -> Store {
    let config = StoreConfig::new(store).with_embedder(support::model::config());
    Store::open(config).expect("the store opens")
}

fn fill_cache(store: &Path) {
    let store = open_with_model(store);
    for (text, vector) in (0..CACHED_COUNT).map(cached) {
        store.put_embedding(&text, &vector).expect("the cache takes an embedding");
    }
    store.close();
}

/// Whether the embeddings are gone; if not, all of them must be whole.
fn is_cache_cleared(store: &Path) -> bool {
    let store = open_with_model(store);
    let count = store.cache_stats().expect("the cache can be read").embeddings;
    if count == 0 {
        return true;
    }
    assert_eq!(count, CACHED_COUNT, "a clear takes all or none");
    for (text, vector) in (0..CACHED_COUNT).map(cached) {
        let embedding = store.embed(&text).expect("it is in the cache");
        assert!(embedding.hit && embedding.vector == vector, "the embedding of {text} is whole");
    }
    false
}

const WRITERS_COUNT: usize = 4;
/// The directory of [`the_child_with_concurrent_writers`], and its session and seed.
const CHILD_VARIABLES: [&str; 3] =
    ["OPDBUS_TEST_CHILD_DIRECTORY", "OPDBUS_TEST_CHILD_SESSION", "OPDBUS_TEST_CHILD_SEED"];

#[test]
fn killed_concurrent_writers_lose_nothing_that_was_acknowledged() {
    let mut campaign = Campaign::start("concurrent", KILLS_VARIABLE, KILLS_DEFAULT, 15);
    let mut random = campaign.random();
    while campaign.goes_on() {
        let mut directory = directory();
        let mut store = AgingStore::new(directory.path().join("store"), WRITERS_COUNT);
        for _ in 0..CRASHES_OF_STORE {
            let moment = Moment::random(&mut random);
            let seed = random.bits();
            let settled = kill_concurrent_writers(&directory, &store, seed, moment)
                .map_err(|finding| vec![finding])
                .and_then(|sessions| {
                    store.settle(&sessions)?;
                    Ok(sessions.iter().map(|session| session.acknowledged_count).sum())
                });
            campaign.judge(&moment, settled, || keep(&mut directory));
            if !campaign.goes_on() {
                break;
            }
        }
    }
    campaign.finish(&format!(", {WRITERS_COUNT} threads"));
}

fn kill_concurrent_writers(
    directory: &TempDir,
    store: &AgingStore,
    seed: u64,
    moment: Moment,
) -> Result<Vec<Session>, Finding> {
    let logs: Vec<PathBuf> =
        (0..WRITERS_COUNT).map(|writer| log_of(directory.path(), writer)).collect();
    for log in &logs {
        File::create(log).expect("a log can be made");
    }
    let acknowledged_count = |log: &PathBuf| {
        let len_bytes = fs::metadata(log).expect("the log is there").len();
        usize::try_from(len_bytes).expect("a log is short")
    };
    let mut child = start_concurrent_writers(directory.path(), store.session(), seed);
    let started = Instant::now();
    match moment {
        Moment::AfterStart(after) => std::thread::sleep(after),
        Moment::AfterAcknowledgements { count, more } => {
            const PATIENCE: Duration = Duration::from_secs(60);
            const PAUSE: Duration = Duration::from_micros(200);
            while logs.iter().map(acknowledged_count).sum::<usize>() < count
                && started.elapsed() < PATIENCE
                && matches!(child.try_wait(), Ok(None))
            {
                std::thread::sleep(PAUSE);
            }
            std::thread::sleep(more);
        }
    }
    // An error means that it has ended, which its status tells.
    let _ = child.kill();
    let output = child.wait_with_output().expect("a child can be waited for");
    if output.status.signal().is_none() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Finding::Writer(format!("ended with {}: {said}", output.status)));
    }
    let sessions = logs.iter().enumerate().map(|(writer, log)| {
        let acknowledged_count = acknowledged_count(log);
        let before = store.writer(writer).clone();
        // The child sends the next one when it has noted the last.
        let sent = operations(seed, writer, store.session(), &before)
            .take(acknowledged_count + 1)
            .collect();
        Session { before, sent, acknowledged_count }
    });
    Ok(sessions.collect())
}

fn log_of(directory: &Path, writer: usize) -> PathBuf {
    directory.join(format!("acknowledged-{writer}"))
}

fn operations(seed: u64, writer: usize, session: u64, before: &State) -> Workload {
    let random = Random::new(seed ^ writer as u64);
    Workload::new(random, writer, session, before.clone()).with_removes()
}

/// This test binary again, as the process that will be killed.
fn start_concurrent_writers(directory: &Path, session: u64, seed: u64) -> Child {
    let this = std::env::current_exe().expect("a test knows its file");
    let [directory_variable, session_variable, seed_variable] = CHILD_VARIABLES;
    Command::new(this)
        .args(["--exact", "the_child_with_concurrent_writers", "--ignored", "--nocapture"])
        .env(directory_variable, directory)
        .env(session_variable, session.to_string())
        .env(seed_variable, seed.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a test can start itself")
}

#[test]
#[ignore = "it writes until it is killed by killed_concurrent_writers_lose_nothing_that_was_acknowledged"]
fn the_child_with_concurrent_writers() {
    let [directory, session, seed] =
        CHILD_VARIABLES.map(|name| std::env::var(name).expect("only the other test starts this"));
    let directory = Path::new(&directory);
    let (session, seed) = (session.parse().expect("a number"), seed.parse().expect("a number"));
    let store = Store::open(StoreConfig::new(directory.join("store"))).expect("the store opens");
    let before: Vec<State> = (0..WRITERS_COUNT).map(|writer| state_of(&store, writer)).collect();
    std::thread::scope(|scope| {
        for (writer, before) in before.iter().enumerate() {
            let (store, log) = (&store, log_of(directory, writer));
            scope.spawn(move || write(store, operations(seed, writer, session, before), &log));
        }
    });
}

fn state_of(store: &Store, writer: usize) -> State {
    // Before the first write there is no collection.
    let Ok(records) = store.scan(COLLECTION, workload::prefix(writer).as_bytes()) else {
        return State::new();
    };
    let version = |record: Record| {
        let version = workload::whole_version(&record).expect("the parent has looked at it");
        (String::from_utf8(record.key).expect("the workload's keys are UTF-8"), version)
    };
    records.map(|record| version(record.expect("the record can be read"))).collect()
}

/// Applies operations without end, and notes each that is durable with a byte in the log: the
/// kernel keeps what a killed process has written to a file.
fn write(store: &Store, operations: Workload, log: &Path) {
    let mut log = File::options().append(true).open(log).expect("the parent has made the log");
    for operation in operations {
        let done = match operation.version {
            Some(version) => {
                let record = workload::record(&operation.key, version);
                store.put(COLLECTION, &record).map(|_| true)
            }
            None => store.remove(COLLECTION, operation.key.as_bytes()),
        };
        assert!(done.expect("the store writes"), "{} was there to be removed", operation.key);
        log.write_all(b".").expect("the log can be written");
    }
}

/// The harness sees a loss in a real store: proof that the tests above could fail.
#[test]
fn a_lost_record_in_a_real_store_is_found() {
    let directory = directory();
    let mut store = AgingStore::new(directory.path().join("store"), 1);
    use_store(&mut store, &mut Random::new(1)).expect("nothing is wrong yet");
    let key = store.writer(0).keys().next().expect("something was written").clone();
    let acknowledged = store.writer(0)[&key];
    let opened = Store::open(StoreConfig::new(store.path())).expect("the store opens");
    assert!(opened.remove(COLLECTION, key.as_bytes()).expect("the store writes"));
    drop(opened);
    let findings = store.clone().settle_unchanged().expect_err("a record is missing");
    let lost = Finding::Lost { key, acknowledged: Some(acknowledged), found: None };
    assert_eq!(findings, [lost]);

    // Alone, what is left would be of another store.
    for part in ["@state", "@cache", "@timing", "@vectors"] {
        fs::remove_dir_all(store.path().join(part)).expect("it can be removed");
    }
    let findings = store.settle_unchanged().expect_err("all records are missing");
    assert_eq!(findings.len(), store.writer(0).len());

    fs::write(store.path().join("@state/STORE"), b"damaged").expect("it can be written");
    assert!(matches!(observe(store.path()), Err(Finding::Unreadable(_))));
}
