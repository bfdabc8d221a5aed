//! Hot and cold: what a policy promises is what the store does, memory stays below the cap, and what
//! was hot is hot again.
//!
//! Campaigns: `OPDBUS_TEST_WARM_VECTORS=1000000`, and `OPDBUS_TEST_TIER_SECONDS=3600` with
//! `OPDBUS_TEST_TIER_POLICY`.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use op_dbus_benches::traffic::{DIMENSIONS, fill_vector, key, zipf};
use op_dbus_engine::{
    PolicyKind, Record, Store, StoreConfig, TierStats, Vectors, read_trace, simulate,
};
use support::scratch;

/// Vectors of one length.
#[derive(Clone, Copy)]
struct Kind {
    collection: &'static str,
    dimensions: usize,
    /// A header and a vector, in whole cache lines.
    slot_bytes: u64,
}

const SHORT: Kind = Kind { collection: "short", dimensions: DIMENSIONS, slot_bytes: 1600 };
const LONG: Kind = Kind { collection: "long", dimensions: 2 * DIMENSIONS, slot_bytes: 3136 };

impl Kind {
    /// So many vectors take five times these bytes.
    fn five_times(self, bytes: u64) -> u32 {
        (5 * bytes / self.slot_bytes) as u32
    }
}

const EXPONENT: f64 = 0.9;
/// Tells the child of a test that it is one: the directory of its store.
const CHILD: &str = "OPDBUS_TEST_TIER_CHILD";
/// The smallest cap that a command line accepts leaves room for hot vectors.
const CAP_BYTES: u64 = 48 << 20;
const MEASURED_COUNT: usize = 50_000;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect(variable))
}

fn config(directory: &Path) -> StoreConfig {
    StoreConfig::new(directory).with_capacity_bytes(CAP_BYTES)
}

/// Puts vectors that follow from their keys and `version`.
fn fill(store: &Store, kind: Kind, indexes: impl Iterator<Item = u32>, version: f32) {
    let indexes: Vec<u32> = indexes.collect();
    for indexes in indexes.chunks(1000) {
        let vector = |index| expected(kind, index, version);
        let record = |&index: &u32| Record::new(key(index)).with_vector(vector(index));
        let batch: Vec<Record> = indexes.iter().map(record).collect();
        store.put_batch(kind.collection, &batch).unwrap();
    }
}

fn expected(kind: Kind, index: u32, version: f32) -> Vec<f32> {
    let mut vector = vec![0.0; kind.dimensions];
    fill_vector(index, &mut vector);
    vector[0] = version;
    vector
}

/// Reads, and compares every vector's beginning and end, and some as a whole.
fn read(kind: Kind, vectors: &Vectors<'_>, indexes: &[u32], version: impl Fn(u32) -> f32) -> u64 {
    let mut hits = 0;
    for (count, &index) in indexes.iter().enumerate() {
        let vector = vectors.get(&key(index)).unwrap().expect("it was put");
        hits += u64::from(vector.is_hot());
        if count % 64 == 0 {
            assert_eq!(*vector, expected(kind, index, version(index)), "key {index}");
        } else {
            assert_eq!((vector.len(), vector[0]), (kind.dimensions, version(index)), "key {index}");
        }
    }
    hits
}

fn tier(store: &Store) -> TierStats {
    store.cache_stats().unwrap().tier
}

#[test]
fn a_store_hits_as_often_as_its_simulation() {
    for policy in PolicyKind::ALL {
        let directory = scratch::in_memory();
        let keys_count = 60_000;
        let store = Store::open(config(directory.path())).unwrap();
        fill(&store, SHORT, 0..keys_count, 1.0);
        store.close();
        // A new process begins with nothing, as a simulation does.
        let store = Store::open(config(directory.path()).with_policy(policy).cold()).unwrap();
        store.start_trace().unwrap();
        let vectors = store.vectors(SHORT.collection).unwrap();
        let before = tier(&store);
        read(SHORT, &vectors, &zipf(keys_count, 300_000, EXPONENT, 5), |_| 1.0);
        let report = store.stop_trace().unwrap();
        let mut hashes = Vec::new();
        read_trace(&report.path, |access| hashes.push(access.key_hash)).unwrap();
        assert_eq!(hashes.len(), 300_000);
        let stats = tier(&store);
        let capacity_slots = u32::try_from(stats.capacity_bytes / SHORT.slot_bytes).unwrap();
        assert!(stats.evictions.capacity > before.evictions.capacity, "nothing was demoted");
        let simulated = simulate(hashes, capacity_slots, policy).hit_ratio.unwrap();
        let (hits, misses) = (stats.hits - before.hits, stats.misses - before.misses);
        let measured = hits as f64 / (hits + misses) as f64;
        println!("{policy}: measured {measured:.4}, simulated {simulated:.4}, {stats:?}");
        assert!((measured - simulated).abs() < 0.01, "{policy}: {measured} and {simulated}");
    }
}

#[test]
fn memory_goes_to_the_vectors_that_are_asked_for() {
    for policy in PolicyKind::ALL {
        let directory = scratch::in_memory();
        let open = || Store::open(config(directory.path()).with_policy(policy).cold()).unwrap();
        let store = open();
        for kind in [SHORT, LONG] {
            fill(&store, kind, 0..kind.five_times(CAP_BYTES / 4), 1.0);
        }
        store.close();
        let hits = |store: &Store, kind: Kind| {
            let keys_count = kind.five_times(CAP_BYTES / 4);
            let vectors = store.vectors(kind.collection).unwrap();
            read(kind, &vectors, &zipf(keys_count, 200_000, EXPONENT, 1), |_| 1.0);
            read(kind, &vectors, &zipf(keys_count, MEASURED_COUNT, EXPONENT, 2), |_| 1.0)
        };
        let alone = hits(&open(), LONG);
        let store = open();
        hits(&store, SHORT);
        let capacity_bytes = tier(&store).capacity_bytes;
        let after_others = hits(&store, LONG);
        let stats = tier(&store);
        println!("{policy}: {alone} hits alone, {after_others} after others; {stats:?}");
        assert!(stats.evictions.capacity > 0, "all fit");
        assert!(after_others * 10 >= alone * 9, "{after_others} hits, and {alone} alone");
        // The tables of two pools, the ends of their last regions, and what names vectors.
        let beside_bytes = 12 << 20;
        assert!(stats.memory_bytes <= capacity_bytes + beside_bytes, "{stats:?}");
    }
}

#[test]
fn what_was_hot_is_hot_again() {
    let vectors_count = number("OPDBUS_TEST_WARM_VECTORS", 20_000) as u32;
    let directory = scratch::on_disk();
    let capacity_bytes = u64::from(vectors_count) * SHORT.slot_bytes / 2 + (256 << 20);
    let config = || StoreConfig::new(directory.path()).with_capacity_bytes(capacity_bytes);
    let store = Store::open(config()).unwrap();
    fill(&store, SHORT, 0..vectors_count, 1.0);
    let traffic = zipf(vectors_count, 4 * vectors_count as usize, EXPONENT, 1);
    let vectors = store.vectors(SHORT.collection).unwrap();
    read(SHORT, &vectors, &traffic, |_| 1.0);
    let sample = zipf(vectors_count, MEASURED_COUNT, EXPONENT, 2);
    let before = read(SHORT, &vectors, &sample, |_| 1.0);
    drop(vectors);
    let started = Instant::now();
    store.close();
    let closed = started.elapsed();

    // Changes that the file does not know, by a process that leaves it alone.
    let store = Store::open(config().cold()).unwrap();
    let changed = |index: u32| index.is_multiple_of(10) && index < 10_000;
    fill(&store, SHORT, (0..vectors_count).filter(|&index| changed(index)), 2.0);
    let removed = vectors_count - 1;
    assert!(store.remove(SHORT.collection, &key(removed)).unwrap());
    store.close();

    let started = Instant::now();
    let store = Store::open(config()).unwrap();
    let vectors = store.vectors(SHORT.collection).unwrap();
    let first = vectors.get(&key(sample[0])).unwrap().unwrap().to_vec();
    let opened = started.elapsed();
    let version = |index: u32| if changed(index) { 2.0 } else { 1.0 };
    assert_eq!(first, expected(SHORT, sample[0], version(sample[0])));
    while !store.is_warm() {
        std::thread::sleep(Duration::from_millis(10));
    }
    let warm = started.elapsed();
    assert!(vectors.get(&key(removed)).unwrap().is_none());
    let sample: Vec<u32> = sample.into_iter().filter(|&index| index != removed).collect();
    let again = read(SHORT, &vectors, &sample, version);
    println!(
        "warmth: {vectors_count} vectors, closed in {closed:?}, first answer after {opened:?}, \
         warm after {warm:?}, hits {before} before and {again} after"
    );
    assert!(again * 10 >= before * 9, "{again} of {before} hits are back");
}

#[test]
fn what_is_derived_can_be_lost() {
    type Loss = fn(&Path);
    let losses: [(&str, Loss); 4] = [
        ("@vectors", |store| fs::remove_dir_all(store.join("@vectors")).unwrap()),
        ("@timing", |store| fs::remove_dir_all(store.join("@timing")).unwrap()),
        ("@cache", |store| fs::remove_dir_all(store.join("@cache")).unwrap()),
        ("half of a file of vectors", |store| {
            let file =
                fs::read_dir(store.join("@vectors")).unwrap().map(|entry| entry.unwrap().path());
            let file =
                file.filter(|path| path.extension().is_some_and(|end| end == "arena")).last();
            let file = fs::OpenOptions::new().write(true).open(file.unwrap()).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        }),
    ];
    for (what, lose) in losses {
        let directory = scratch::in_memory();
        let store = Store::open(config(directory.path())).unwrap();
        fill(&store, SHORT, 0..3000, 1.0);
        read(
            SHORT,
            &store.vectors(SHORT.collection).unwrap(),
            &zipf(3000, 10_000, EXPONENT, 3),
            |_| 1.0,
        );
        store.close();
        assert!(directory.path().join("@vectors/MANIFEST").exists());
        lose(directory.path());
        let store = Store::open(config(directory.path())).unwrap();
        let vectors = store.vectors(SHORT.collection).unwrap();
        let all: Vec<u32> = (0..3000).collect();
        read(SHORT, &vectors, &all, |_| 1.0);
        println!("without {what}: {:?}", tier(&store));
    }
}

/// A control group with a memory limit, of whichever hierarchy there is.
struct Group {
    directory: PathBuf,
}

impl Group {
    fn create(limit_bytes: u64) -> Result<Self, String> {
        let name = format!("op-dbus-test-{}", std::process::id());
        let hierarchies =
            [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        let mut why = String::from("there is no control group file system");
        for (root, file) in hierarchies {
            let directory = Path::new(root).join(&name);
            if !Path::new(root).join("cgroup.procs").exists() {
                continue;
            }
            let made = fs::create_dir(&directory)
                .and_then(|()| fs::write(directory.join(file), limit_bytes.to_string()));
            match made {
                Ok(()) => return Ok(Self { directory }),
                Err(error) => {
                    why = format!("{}: {error}", directory.display());
                    let _ = fs::remove_dir(&directory);
                }
            }
        }
        Err(why)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.directory);
    }
}

/// Anonymous memory of a process that is in use.
fn anonymous_bytes(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[test]
fn memory_stays_below_the_cap() {
    if let Some(directory) = std::env::var_os(CHILD) {
        return read_for_a_while(Path::new(&directory));
    }
    let cap_bytes = number("OPDBUS_TEST_TIER_CAP_MB", 64) << 20;
    let group = match Group::create(cap_bytes / 10 * 13) {
        Ok(group) => group,
        Err(why) => return println!("SKIPPED: {why}"),
    };
    let directory = scratch::on_disk();
    let store = Store::open(config(directory.path()).cold()).unwrap();
    for kind in [SHORT, LONG] {
        fill(&store, kind, 0..kind.five_times(cap_bytes), 1.0);
    }
    store.close();
    let enter =
        format!("echo $$ > {}/cgroup.procs && exec \"$0\" \"$@\"", group.directory.display());
    let mut child = Command::new("sh")
        .args(["-c", &enter])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "memory_stays_below_the_cap", "--nocapture"])
        .env(CHILD, directory.path())
        .env("OPDBUS_TEST_TIER_CAP_BYTES", cap_bytes.to_string())
        .spawn()
        .unwrap();
    let mut most_bytes = 0;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        most_bytes = most_bytes.max(anonymous_bytes(child.id()).unwrap_or(0));
        std::thread::sleep(Duration::from_millis(50));
    };
    drop(group);
    println!(
        "memory: {} vectors, cap {cap_bytes}, at most {most_bytes} anonymous, {:.2}",
        SHORT.five_times(cap_bytes) + LONG.five_times(cap_bytes),
        most_bytes as f64 / cap_bytes as f64
    );
    assert!(status.success(), "the child was killed: {status}");
    assert!(most_bytes > cap_bytes / 4, "it was not measured");
    assert!(most_bytes <= cap_bytes / 100 * 115, "{most_bytes} of {cap_bytes}");
}

fn read_for_a_while(directory: &Path) {
    let cap_bytes = number("OPDBUS_TEST_TIER_CAP_BYTES", 0);
    let seconds = number("OPDBUS_TEST_TIER_SECONDS", 6);
    let policy = std::env::var("OPDBUS_TEST_TIER_POLICY").unwrap_or_else(|_| "lru".to_owned());
    let config = StoreConfig::new(directory)
        .with_capacity_bytes(cap_bytes)
        .with_policy(policy.parse().unwrap())
        .cold();
    let store = Store::open(config).unwrap();
    let mut round = 0;
    // What one kind has taken, another one needs.
    for kinds in [&[SHORT][..], &[LONG], &[SHORT, LONG]] {
        let started = Instant::now();
        let mut lookups_count = 0;
        while started.elapsed() * 3 < Duration::from_secs(seconds) {
            for &kind in kinds {
                round += 1;
                lookups_count += MEASURED_COUNT;
                let keys_count = kind.five_times(cap_bytes);
                let traffic = zipf(keys_count, MEASURED_COUNT, EXPONENT, round);
                read(kind, &store.vectors(kind.collection).unwrap(), &traffic, |_| 1.0);
            }
        }
        println!("traffic: {lookups_count} lookups, {:?}", tier(&store));
    }
}
