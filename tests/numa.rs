//! Memory proven to lie where it should, and threads to run where they should: on this machine, with
//! however many NUMA nodes it has, and on one of two nodes that is started for it.
//!
//! With `OPDBUS_TEST_NUMA_MACHINE` a directory with an executable `run-systemd.sh PAYLOAD OUT` is
//! named, which boots a machine of two nodes with two CPUs each, runs `PAYLOAD/test.sh` there as root,
//! and copies the directory `out` that it leaves into `OUT`. This program is then run on it.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use op_dbus_engine::{
    ArenaResidency, CollectionOptions, EmbedderConfig, Encoding, ErrorKind, LinkOptions, Metric,
    NumaConfig, NumaNode, NumaPolicy, NumaStats, Plan, Profile, Query, Record, Store, StoreConfig,
    numa_nodes,
};
use op_dbus_formats::NumaList;
use support::crash::campaign::skip;
use support::model;
use support::random::Random;
use support::scratch;

/// With 1,600 bytes each, 61 MiB: so many huge pages that two nodes in turn have between 48 and 52 %.
const VECTORS_COUNT: usize = 40_000;
const DIMENSIONS: usize = 384;
/// A graph of these is made soon, even by an emulated processor.
const LINKED_COUNT: usize = 12_000;
const LINKED_DIMENSIONS: usize = 16;
/// Set on the machine of two nodes, which has no model.
const WITHOUT_MODEL: &str = "OPDBUS_TEST_WITHOUT_MODEL";
/// What is smaller is not looked at: it may be in one page.
const FEW_BYTES: u64 = 1 << 20;
/// Most of a graph's few huge pages that may be on one of two nodes.
const GRAPH_SHARE_MAX: f64 = 0.65;

/// Threads of RocksDB are those of the process, and stay where the first store started them. So each
/// test is run in a process of its own; says whether this is it.
fn is_alone(test: &str) -> bool {
    const CHILD: &str = "OPDBUS_TEST_CHILD";
    if std::env::var(CHILD).is_ok_and(|child| child == test) {
        return true;
    }
    let mut alone = Command::new(std::env::current_exe().unwrap());
    let output = alone.args(["--exact", test, "--nocapture"]).env(CHILD, test).output().unwrap();
    println!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let is_run = String::from_utf8_lossy(&output.stdout).contains("1 passed");
    assert!(output.status.success() && is_run, "{test}: {}", output.status);
    false
}

fn put(store: &Store, name: &str, dimensions: usize, count: usize) {
    let options = CollectionOptions::Given {
        dimensions: dimensions as u32,
        metric: Metric::Cosine,
        encoding: Encoding::F32,
    };
    store.create_collection(name, options).unwrap();
    let mut random = Random::new(dimensions as u64);
    let numbers: Vec<usize> = (0..count).collect();
    for numbers in numbers.chunks(1000) {
        let record =
            |number: &usize| Record::new(number.to_string()).with_vector(random.vector(dimensions));
        let records: Vec<Record> = numbers.iter().map(record).collect();
        store.put_batch(name, &records).unwrap();
    }
}

fn make(path: &Path, numa: NumaConfig) {
    let store = Store::open(StoreConfig::new(path).with_numa(numa)).unwrap();
    put(&store, "many", DIMENSIONS, VECTORS_COUNT);
    put(&store, "linked", LINKED_DIMENSIONS, LINKED_COUNT);
    let options = LinkOptions { profile: Profile::Speed, threads: NonZero::new(4).unwrap() };
    store.link("linked", options, &mut |_, _| Ok(())).unwrap();
    store.close();
}

/// Brings everything into memory that can be there, and searches it.
fn warm(store: &Store) {
    let vectors = store.vectors("many").unwrap();
    for number in 0..VECTORS_COUNT {
        let key = number.to_string();
        // Who promotes another is not waited for.
        while !vectors.get(key.as_bytes()).unwrap().unwrap().is_hot() {}
    }
    let mut random = Random::new(7);
    let many = Query::vector(random.vector(DIMENSIONS)).collection("many");
    assert_eq!(store.search(&many).unwrap().hits.len(), 10);
    let linked = Query::vector(random.vector(LINKED_DIMENSIONS)).collection("linked");
    let answer = store.search(&linked).unwrap();
    assert_eq!(answer.explain.collections[0].plan, Plan::Graph);
}

fn config(policy: NumaPolicy, nodes: &str, cpus: Option<&str>) -> NumaConfig {
    let (nodes, cpus) = (nodes.parse().unwrap(), cpus.map(|cpus| cpus.parse().unwrap()));
    NumaConfig { policy, nodes, cpus }
}

fn open(path: &Path, numa: NumaConfig) -> Store {
    Store::open(StoreConfig::new(path).with_numa(numa)).unwrap()
}

/// Of the pages that were asked about, the part on each node.
fn shares(arena: &ArenaResidency) -> BTreeMap<u32, f64> {
    let sampled: u64 = arena.pages_by_node.values().sum();
    assert!(sampled > 0 && arena.refused.is_none(), "{arena:?}");
    let share = |(node, count): (&u32, &u64)| (*node, *count as f64 / sampled as f64);
    arena.pages_by_node.iter().map(share).collect()
}

/// Where everything lies: vectors under keys, vectors that are compared one by one, and the graph with
/// its copies.
struct Lies {
    stats: NumaStats,
}

impl Lies {
    fn of(store: &Store, policy: NumaPolicy) -> Self {
        let stats = store.numa_stats();
        assert_eq!((stats.policy, &stats.refused), (policy, &None));
        for arena in stats.arenas.iter().filter(|arena| arena.bytes > FEW_BYTES) {
            println!("{policy}: {}: {} bytes, {:.4?}", arena.arena, arena.bytes, shares(arena));
        }
        Self { stats }
    }

    fn shares(&self, name: &str) -> Vec<BTreeMap<u32, f64>> {
        let is_meant =
            |arena: &&ArenaResidency| arena.arena.starts_with(name) && arena.bytes > FEW_BYTES;
        let found: Vec<_> = self.stats.arenas.iter().filter(is_meant).map(shares).collect();
        assert!(!found.is_empty(), "no {name}");
        found
    }

    fn bytes(&self) -> u64 {
        self.stats.arenas.iter().map(|arena| arena.bytes).sum()
    }
}

/// A thread of this process.
struct Thread {
    name: String,
    /// Those that it may run on.
    cpus: String,
}

/// The threads of this process, by number.
fn threads() -> BTreeMap<PathBuf, Thread> {
    let mut threads = BTreeMap::new();
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let task = task.unwrap().path();
        // It may end meanwhile.
        let Ok(status) = fs::read_to_string(task.join("status")) else { continue };
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line[name.len()..].trim().to_owned()
        };
        threads.insert(task, Thread { name: field("Name:"), cpus: field("Cpus_allowed_list:") });
    }
    threads
}

/// The CPUs that threads may run on, by their names.
fn cpus_of_threads() -> BTreeMap<String, BTreeSet<String>> {
    let mut cpus = BTreeMap::<_, BTreeSet<_>>::new();
    for Thread { name, cpus: on } in threads().into_values() {
        cpus.entry(name).or_default().insert(on);
    }
    cpus
}

fn assert_threads_run_on(cpus: &str) {
    let all = cpus_of_threads();
    println!("threads: {all:?}");
    let own = all.iter().filter(|(name, _)| {
        name.starts_with("op-dbus") || name.starts_with("rocksdb") || name.starts_with("sled")
    });
    let mut count = 0;
    for (name, on) in own {
        assert_eq!(on, &[cpus.to_owned()].into(), "{name}");
        count += 1;
    }
    assert!(count > 1, "no thread of the store was found: {all:?}");
}

/// What numastat says of this process: megabytes on each node.
fn numastat() -> Option<Vec<f64>> {
    let output = Command::new("numastat").arg("-p").arg(std::process::id().to_string()).output();
    let text = String::from_utf8(output.ok()?.stdout).unwrap();
    println!("{text}");
    let private = text.lines().find(|line| line.starts_with("Private"))?;
    let mut megabytes: Vec<f64> =
        private.split_whitespace().skip(1).map(|number| number.parse().unwrap()).collect();
    // The last is the sum.
    megabytes.pop();
    Some(megabytes)
}

#[test]
fn bound_memory_and_threads_are_where_they_should_be() {
    if !is_alone("bound_memory_and_threads_are_where_they_should_be") {
        return;
    }
    let directory = scratch::on_disk();
    let path = directory.path().join("store");
    let last = numa_nodes().unwrap().into_iter().rfind(|node| node.is_allowed).unwrap();
    let node = last.node.to_string();
    make(&path, config(NumaPolicy::Bind, &node, None));
    for policy in [NumaPolicy::Bind, NumaPolicy::Preferred] {
        let store = open(&path, config(policy, &node, None));
        warm(&store);
        let lies = Lies::of(&store, policy);
        for name in ["hot vectors", "keys", "vectors of many", "graph of linked"] {
            for shares in lies.shares(name) {
                assert!(shares.get(&last.node).is_some_and(|share| *share >= 0.99), "{shares:?}");
            }
        }
        assert_threads_run_on(&last.cpus);
        if let Some(megabytes) = numastat() {
            let there = megabytes[last.node as usize];
            assert!(there * 1048576.0 >= lies.bytes() as f64 * 0.99, "{megabytes:?}");
        }
        store.close();
    }
    // The thread that opened it is where it was.
    let before = fs::read_to_string("/proc/thread-self/status").unwrap();
    let allowed = fs::read_to_string("/proc/self/status").unwrap();
    let list = |status: &str| {
        status.lines().find(|line| line.starts_with("Cpus_allowed_list")).unwrap().to_owned()
    };
    assert_eq!(list(&before), list(&allowed));
}

#[test]
fn threads_run_on_the_cpus_that_are_named() {
    if !is_alone("threads_run_on_the_cpus_that_are_named") {
        return;
    }
    let directory = scratch::on_disk();
    let path = directory.path().join("store");
    let allowed: BTreeSet<u32> = numa_nodes()
        .unwrap()
        .iter()
        .flat_map(|node| NumaList::parse(&node.cpus).unwrap().select(&(0..8192).collect()).unwrap())
        .collect();
    let last = allowed.last().unwrap().to_string();
    let numa = config(NumaPolicy::Preferred, "+0", Some(&last));
    let has_model = std::env::var_os(WITHOUT_MODEL).is_none();
    let embedder = || EmbedderConfig { threads_count: NonZero::new(2), ..model::config() };
    let config = StoreConfig::new(&path).with_numa(numa);
    let config = if has_model { config.with_embedder(embedder()) } else { config };
    let store = Store::open(config).unwrap();
    put(&store, "few", 8, 10);
    if has_model {
        let before = threads();
        assert_eq!(store.embed("restart the network").unwrap().vector.len(), DIMENSIONS);
        let mut new = threads();
        new.retain(|task, _| !before.contains_key(task));
        let on: BTreeSet<String> = new.into_values().map(|thread| thread.cpus).collect();
        assert_eq!(on, [last.clone()].into(), "threads that run the model");
    }
    assert_eq!(store.vectors("few").unwrap().get(b"0").unwrap().unwrap().len(), 8);
    assert_threads_run_on(&last);
}

#[test]
fn spread_memory_is_spread_and_threads_run_where_it_is() {
    let machine = numa_nodes().unwrap();
    if machine.iter().filter(|node| node.is_allowed).count() < 2 {
        return skip("spread_memory", &"this machine has one NUMA node: nothing can be spread");
    }
    if !is_alone("spread_memory_is_spread_and_threads_run_where_it_is") {
        return;
    }
    let directory = scratch::on_disk();
    let path = directory.path().join("store");
    make(&path, NumaConfig::default());
    let even = 1.0 / machine.len() as f64;
    memory_on_another_node_is_seen(&path, &machine);
    for policy in [NumaPolicy::Interleave, NumaPolicy::Replicate] {
        let store = open(&path, config(policy, "all", None));
        warm(&store);
        let lies = Lies::of(&store, policy);
        for name in ["hot vectors", "vectors of many"] {
            for shares in lies.shares(name) {
                assert!(shares.values().all(|share| (share - even).abs() <= 0.02), "{shares:?}");
            }
        }
        let graph = lies.shares("graph of linked");
        match policy {
            NumaPolicy::Replicate => {
                assert_eq!(graph.len(), machine.len());
                for (shares, node) in graph.iter().zip(&machine) {
                    assert!(shares.get(&node.node).is_some_and(|share| *share >= 0.99));
                }
            }
            _ => assert!(graph[0].values().all(|share| *share < GRAPH_SHARE_MAX), "{graph:?}"),
        }
        if let Some(megabytes) = numastat() {
            let least = megabytes.iter().copied().fold(f64::INFINITY, f64::min);
            assert!(least * 1048576.0 >= lies.bytes() as f64 * even * 0.9, "{megabytes:?}");
        }
        changed_copies_are_like_the_first(&store);
        searches_run_on_all_nodes(
            &store,
            &machine.iter().map(|node| &*node.cpus).collect::<Vec<_>>(),
        );
        store.close();
    }
}

/// What would be found if memory did not lie where it should.
fn memory_on_another_node_is_seen(path: &Path, machine: &[NumaNode]) {
    let (first, last) = (machine[0].node, machine[machine.len() - 1].node);
    let store = open(path, config(NumaPolicy::Bind, &first.to_string(), None));
    warm(&store);
    for shares in Lies::of(&store, NumaPolicy::Bind).shares("hot vectors") {
        assert_eq!((shares.get(&first), shares.get(&last)), (Some(&1.0), None));
    }
    store.close();
}

/// A vector that comes is found from each node.
fn changed_copies_are_like_the_first(store: &Store) {
    let mut random = Random::new(9);
    for number in 0..50 {
        let (key, vector) = (format!("new {number}"), random.vector(LINKED_DIMENSIONS));
        store.put("linked", &Record::new(key.clone()).with_vector(vector.clone())).unwrap();
        let query = Query::vector(vector).collection("linked").limit(1);
        for node in numa_nodes().unwrap() {
            std::thread::scope(|scope| {
                let found = scope.spawn(|| {
                    let cpus = Some(node.cpus.parse().unwrap());
                    let there = NumaConfig { cpus, ..NumaConfig::new(NumaPolicy::Interleave) };
                    there.bind_this_thread().unwrap();
                    store.search(&query).unwrap().hits.remove(0).key
                });
                assert_eq!(found.join().unwrap(), key.as_bytes());
            });
        }
    }
}

/// Of threads that share searches, each runs on one node.
fn searches_run_on_all_nodes(store: &Store, cpus_of_nodes: &[&str]) {
    let mut random = Random::new(11);
    let query = || Query::vector(random.vector(LINKED_DIMENSIONS)).collection("linked");
    let queries: Vec<Query> = std::iter::repeat_with(query).take(500).collect();
    let (is_over, threads) = (AtomicBool::new(false), NonZero::new(cpus_of_nodes.len()).unwrap());
    let seen = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut seen = BTreeSet::new();
            while !is_over.load(Ordering::Relaxed) {
                seen.extend(cpus_of_threads().into_values().flatten());
            }
            seen
        });
        for _ in 0..20 {
            assert_eq!(store.search_all(&queries, threads).unwrap().len(), queries.len());
        }
        is_over.store(true, Ordering::Relaxed);
        watch.join().unwrap()
    });
    println!("threads ran on {seen:?}");
    assert!(cpus_of_nodes.iter().all(|cpus| seen.contains(*cpus)), "{seen:?}");
}

#[test]
fn nodes_and_cpus_that_are_not_there_are_refused() {
    let directory = scratch::on_disk();
    let there: Vec<u32> = numa_nodes().unwrap().iter().map(|node| node.node).collect();
    let missing = there.last().unwrap() + 1;
    for (nodes, cpus) in [(&*missing.to_string(), None), ("+0", Some("8191"))] {
        let numa = config(NumaPolicy::Bind, nodes, cpus);
        let error = Store::open(StoreConfig::new(directory.path()).with_numa(numa)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.remedy().unwrap().starts_with("use some of "), "{error:?}");
    }
}

/// Runs the tests above on a machine of two nodes.
#[test]
fn a_machine_of_two_nodes() {
    let Some(machine) = std::env::var_os("OPDBUS_TEST_NUMA_MACHINE").map(PathBuf::from) else {
        return skip("a_machine_of_two_nodes", &"OPDBUS_TEST_NUMA_MACHINE names none");
    };
    let directory = scratch::on_disk();
    let (payload, out) = (directory.path().join("payload"), directory.path().join("out"));
    fs::create_dir_all(payload.join("lib")).unwrap();
    let program = std::env::current_exe().unwrap();
    let copied = payload.join("numa");
    run(Command::new("strip").arg("-o").arg(&copied).arg(&program));
    for library in libraries(&program) {
        fs::copy(&library, payload.join("lib").join(library.file_name().unwrap())).unwrap();
    }
    fs::write(payload.join("test.sh"), include_str!("src/numa_machine.sh")).unwrap();
    let status = Command::new("sh")
        .arg(machine.join("run-systemd.sh"))
        .args([&payload, &out])
        .env("T", "1500")
        .status()
        .unwrap();
    let out = out.join("out");
    let log = fs::read_to_string(out.join("log")).unwrap_or_default();
    println!("{log}");
    assert!(status.success(), "{status}");
    let passed = fs::read_to_string(out.join("passed")).unwrap_or_default();
    assert_eq!(passed.trim(), "yes", "the tests failed on the machine of two nodes");
    assert!(log.contains("interleave: hot vectors") && !log.contains("SKIPPED: spread_memory"));
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// The shared libraries of a program, but for those of every system.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let paths = text.lines().filter_map(|line| line.split_whitespace().nth(2).map(PathBuf::from));
    let is_everywhere = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        ["libc.so", "libm.so", "libdl.so", "libpthread.so"].iter().any(|own| name.starts_with(own))
    };
    paths.filter(|path| path.is_absolute() && !is_everywhere(path)).collect()
}
