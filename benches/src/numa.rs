//! What it costs to reach memory of another NUMA node: for plain reads, for hits and for searches.

use std::hint::black_box;
use std::io;
use std::num::NonZero;
use std::path::Path;
use std::time::Instant;

use op_dbus_engine::{
    CollectionOptions, Encoding, LinkOptions, Metric, NumaConfig, NumaNode, NumaPolicy, Profile,
    Query, Record, Store, StoreConfig, numa_nodes,
};
use op_dbus_formats::NumaList;
use serde::{Deserialize, Serialize};

use crate::hit::{Step, median};
use crate::traffic::{DIMENSIONS, Numbers, fill_vector, key, zipf};

const COLLECTION: &str = "vectors";
/// More than any cache holds.
const BUFFER_BYTES: usize = 256 << 20;
const LINE_NUMBERS: usize = 8;
const ROUNDS_COUNT: usize = 5;
/// A round of these opens a store under each policy.
const STORE_ROUNDS_COUNT: usize = 3;
const SEARCHES_COUNT: usize = 500;
const EXPONENT: f64 = 0.99;

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct NumaBenchmark {
    /// Reads of memory, and lookups of vectors, in each round.
    pub lookups_count: usize,
    /// Vectors in the store, of 1,536 bytes.
    pub keys_count: u32,
}

/// What was found; medians of rounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NumaReport {
    /// The nodes of this machine.
    pub nodes: Vec<NumaNode>,
    /// Plain memory, for each pair of nodes.
    pub memory: Vec<MemoryRow>,
    /// The engine under each policy; nothing on a machine of one node.
    pub engine: Vec<EngineRow>,
}

/// Plain memory of one node, read by a CPU of one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemoryRow {
    /// Node of the CPU.
    pub cpu_node: u32,
    /// Node of the memory.
    pub memory_node: u32,
    /// What a read takes whose address the one before told.
    pub latency_ns: f64,
    /// What one thread reads in order, in a second.
    pub bytes_per_second: f64,
}

/// The engine, asked by a CPU of one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EngineRow {
    /// Where hot memory lies.
    pub policy: NumaPolicy,
    /// The nodes that the policy speaks of.
    pub memory_nodes: String,
    /// Node of the CPU.
    pub cpu_node: u32,
    /// What it takes to copy a vector by key.
    pub hit_ns: f64,
    /// Searches of a graph by one thread, in a second.
    pub searches_per_second: f64,
}

impl NumaBenchmark {
    /// Measures plain memory, and the engine in `directory`, which is empty.
    ///
    /// # Errors
    /// Those of the disk and of the engine; what `step` returns, which hears what is being done.
    pub fn run(&self, directory: &Path, step: Step<'_>) -> io::Result<NumaReport> {
        let nodes = numa_nodes().map_err(io::Error::other)?;
        let usable: Vec<&NumaNode> = nodes.iter().filter(|node| node.is_allowed).collect();
        let memory = self.memory(&usable, step)?;
        let engine = match usable.len() {
            0 | 1 => Vec::new(),
            _ => self.engine(&usable, directory, step)?,
        };
        Ok(NumaReport { nodes, memory, engine })
    }

    fn memory(&self, nodes: &[&NumaNode], step: Step<'_>) -> io::Result<Vec<MemoryRow>> {
        let mut buffers = Vec::new();
        for node in nodes {
            step(&format!("filling memory of node {}", node.node))?;
            buffers.push((node.node, on_node(None, node.node, chain)?));
        }
        let pairs: Vec<_> = nodes
            .iter()
            .filter(|node| !node.cpus.is_empty())
            .flat_map(|node| buffers.iter().map(move |(memory, chain)| (*node, *memory, chain)))
            .collect();
        let mut rounds = vec![(Vec::new(), Vec::new()); pairs.len()];
        for round in 1..=ROUNDS_COUNT {
            step(&format!("reading memory, round {round} of {ROUNDS_COUNT}"))?;
            for ((node, memory, chain), (latencies, rates)) in pairs.iter().zip(&mut rounds) {
                let (latency, rate) =
                    on_node(Some(node), *memory, || (self.follow(chain), read(chain)))?;
                latencies.push(latency);
                rates.push(rate);
            }
        }
        let row =
            |((node, memory_node, _), (latencies, rates)): (&(&NumaNode, u32, _), _)| MemoryRow {
                cpu_node: node.node,
                memory_node: *memory_node,
                latency_ns: median(latencies),
                bytes_per_second: median(rates),
            };
        Ok(pairs.iter().zip(rounds).map(row).collect())
    }

    /// What a step along a chain takes, in nanoseconds.
    fn follow(&self, chain: &[u64]) -> f64 {
        let (started, mut at) = (Instant::now(), 0);
        for _ in 0..self.lookups_count {
            at = chain[at as usize * LINE_NUMBERS];
        }
        black_box(at);
        started.elapsed().as_nanos() as f64 / self.lookups_count as f64
    }

    fn engine(
        &self,
        nodes: &[&NumaNode],
        directory: &Path,
        step: Step<'_>,
    ) -> io::Result<Vec<EngineRow>> {
        self.make(directory, step).map_err(io::Error::other)?;
        let bind = |node: &&NumaNode| NumaConfig {
            nodes: NumaList::of(node.node),
            ..NumaConfig::new(NumaPolicy::Bind)
        };
        let spread = [NumaPolicy::Interleave, NumaPolicy::Replicate].map(NumaConfig::new);
        let configs: Vec<NumaConfig> = nodes.iter().map(bind).chain(spread).collect();
        let cpu_nodes: Vec<&NumaNode> =
            nodes.iter().filter(|node| !node.cpus.is_empty()).copied().collect();
        let mut rounds = vec![(Vec::new(), Vec::new()); configs.len() * cpu_nodes.len()];
        for round in 1..=STORE_ROUNDS_COUNT {
            for (config, rounds) in configs.iter().zip(rounds.chunks_mut(cpu_nodes.len())) {
                step(&format!("{}, round {round} of {STORE_ROUNDS_COUNT}", config.policy))?;
                let config = StoreConfig::new(directory).with_numa(config.clone()).cold();
                let store = Store::open(config).map_err(io::Error::other)?;
                self.heat(&store)?;
                for (node, (hits, searches)) in cpu_nodes.iter().zip(rounds) {
                    let measured =
                        on_node(Some(node), node.node, || self.ask(&store, round as u64))?;
                    let (hit_ns, searches_per_second) = measured.map_err(io::Error::other)?;
                    hits.push(hit_ns);
                    searches.push(searches_per_second);
                }
            }
        }
        let asked =
            configs.iter().flat_map(|config| cpu_nodes.iter().map(move |node| (config, node)));
        let row = |((config, node), (hits, searches)): ((&NumaConfig, &&NumaNode), _)| EngineRow {
            policy: config.policy,
            memory_nodes: config.nodes.to_string(),
            cpu_node: node.node,
            hit_ns: median(hits),
            searches_per_second: median(searches),
        };
        Ok(asked.zip(rounds).map(row).collect())
    }

    fn make(&self, directory: &Path, step: Step<'_>) -> op_dbus_engine::Result<()> {
        const BATCH_COUNT: u32 = 1000;
        let store = Store::open(StoreConfig::new(directory).cold())?;
        let options = CollectionOptions::Given {
            dimensions: DIMENSIONS as u32,
            metric: Metric::Cosine,
            encoding: Encoding::F32,
        };
        store.create_collection(COLLECTION, options)?;
        for start in (0..self.keys_count).step_by(BATCH_COUNT as usize) {
            let record = |index| Record::new(key(index)).with_vector(vector(index));
            let end = self.keys_count.min(start + BATCH_COUNT);
            let records: Vec<Record> = (start..end).map(record).collect();
            store.put_batch(COLLECTION, &records)?;
        }
        let threads = std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
        let options = LinkOptions { profile: Profile::Speed, threads };
        store.link(COLLECTION, options, &mut |linked, of| {
            step(&format!("linking vectors, {linked} of {of}")).map_err(|error| {
                op_dbus_engine::Error::new(op_dbus_engine::ErrorKind::Busy, "it was ended")
                    .with_source(error)
            })
        })?;
        store.close();
        Ok(())
    }

    /// Brings everything to where it is to lie.
    fn heat(&self, store: &Store) -> io::Result<()> {
        let vectors = store.vectors(COLLECTION).map_err(io::Error::other)?;
        for index in 0..self.keys_count {
            vectors.get(&key(index)).map_err(io::Error::other)?;
        }
        store.search(&query(0)).map_err(io::Error::other)?;
        // It waits for the graph.
        drop(store.numa_stats());
        Ok(())
    }

    /// Nanoseconds of a hit, and searches in a second.
    fn ask(&self, store: &Store, seed: u64) -> op_dbus_engine::Result<(f64, f64)> {
        let vectors = store.vectors(COLLECTION)?;
        let indexes = zipf(self.keys_count, self.lookups_count, EXPONENT, seed);
        let mut copied = [0.0; DIMENSIONS];
        let started = Instant::now();
        for index in indexes {
            vectors.copy_to(&key(index), &mut copied)?;
            black_box(&copied);
        }
        let hit_ns = started.elapsed().as_nanos() as f64 / self.lookups_count as f64;
        let queries: Vec<Query> =
            (0..SEARCHES_COUNT as u32).map(|number| query(number + 1_000_000)).collect();
        let started = Instant::now();
        for query in &queries {
            black_box(store.search(query)?);
        }
        Ok((hit_ns, SEARCHES_COUNT as f64 / started.elapsed().as_secs_f64()))
    }
}

fn vector(index: u32) -> Vec<f32> {
    let mut vector = vec![0.0; DIMENSIONS];
    fill_vector(index, &mut vector);
    vector
}

fn query(index: u32) -> Query {
    Query::vector(vector(index)).collection(COLLECTION)
}

/// Does something on a thread that runs on CPUs of one node, or of the node of the memory, and takes
/// memory from that.
fn on_node<T: Send>(
    cpus_of: Option<&NumaNode>,
    memory_of: u32,
    work: impl FnOnce() -> T + Send,
) -> io::Result<T> {
    let cpus = cpus_of.map(|node| node.cpus.parse()).transpose().map_err(io::Error::other)?;
    let nodes = NumaList::of(memory_of);
    let there = NumaConfig { policy: NumaPolicy::Bind, nodes, cpus };
    std::thread::scope(|scope| {
        let done = scope.spawn(|| {
            there.bind_this_thread().map_err(io::Error::other)?;
            Ok(work())
        });
        done.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A chain through all cache lines of a buffer, in no order: each says which is next.
fn chain() -> Vec<u64> {
    let lines_count = BUFFER_BYTES / (LINE_NUMBERS * size_of::<u64>());
    let (mut order, mut numbers) = ((0..lines_count as u64).collect::<Vec<_>>(), Numbers::new(1));
    for end in (1..lines_count).rev() {
        order.swap(end, (numbers.next() % (end as u64 + 1)) as usize);
    }
    let mut chain = vec![0; lines_count * LINE_NUMBERS];
    for (line, next) in order.iter().zip(order.iter().cycle().skip(1)) {
        chain[*line as usize * LINE_NUMBERS] = *next;
    }
    chain
}

/// Bytes that are read in order in a second.
fn read(buffer: &[u64]) -> f64 {
    let started = Instant::now();
    black_box(buffer.iter().fold(0_u64, |sum, number| sum.wrapping_add(*number)));
    size_of_val(buffer) as f64 / started.elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_leads_through_every_line() {
        let chain = chain();
        let (mut at, mut count) = (0, 0);
        loop {
            at = chain[at as usize * LINE_NUMBERS];
            count += 1;
            if at == 0 {
                break;
            }
        }
        assert_eq!(count, chain.len() / LINE_NUMBERS);
    }
}
