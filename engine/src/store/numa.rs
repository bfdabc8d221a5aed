//! Where hot memory really lies, as the kernel tells.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use op_dbus_formats::numa_list;
use serde::{Deserialize, Serialize};

use super::Store;
use crate::arena::NumaPolicy;
use crate::error::Result;
use crate::os::numa::topology::Topology;
use crate::os::numa::{self, residency};

/// Pages of an arena that the kernel is asked about: it takes about a millisecond.
const SAMPLED_COUNT: usize = 4096;

/// NUMA nodes of the machine, and what of the store lies where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumaStats {
    /// The policy that was asked for.
    pub policy: NumaPolicy,
    /// What the kernel refused of it, which is done without; `None` if nothing.
    pub refused: Option<String>,
    /// The nodes that it speaks of.
    pub nodes: Vec<u32>,
    /// The CPUs that threads of the store run on; none are where they are started.
    pub cpus: BTreeSet<u32>,
    /// What the machine has; nothing if the kernel does not tell.
    pub machine: Vec<NumaNode>,
    /// Where memory lies.
    pub arenas: Vec<ArenaResidency>,
}

/// A NUMA node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumaNode {
    /// Its number.
    pub node: u32,
    /// Those of its CPUs that this process may use, as a list.
    pub cpus: String,
    /// Its memory.
    pub memory_bytes: u64,
    /// What of it nobody uses; `None` if the kernel does not say.
    pub free_bytes: Option<u64>,
    /// How far each of the nodes is, in their order, where it is 10 from itself; empty if the firmware
    /// does not say.
    pub distances: Vec<u32>,
    /// Whether this process may take memory from it.
    pub is_allowed: bool,
}

/// Where the memory of an arena lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArenaResidency {
    /// What is in it.
    pub arena: String,
    /// The collection that it belongs to; `None` for what several share.
    pub collection: Option<String>,
    /// Address space in use.
    pub bytes: u64,
    /// Of the pages that the kernel was asked about and that were ever touched, those on each node.
    pub pages_by_node: BTreeMap<u32, u64>,
    /// Why the kernel does not tell; `None` if it does.
    pub refused: Option<String>,
}

/// What there is on this machine.
///
/// # Errors
/// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the kernel does not tell.
pub fn numa_nodes() -> Result<Vec<NumaNode>> {
    let topology = Topology::of_machine()?;
    let numbers: Vec<u32> = topology.nodes.iter().map(|node| node.number).collect();
    let described = topology.nodes.iter().map(|node| NumaNode {
        node: node.number,
        cpus: numa_list::render(node.cpus.intersection(&topology.allowed_cpus)),
        memory_bytes: node.memory_bytes,
        free_bytes: numa::free_bytes(node.number),
        distances: numbers.iter().filter_map(|to| numa::distance(node.number, *to)).collect(),
        is_allowed: topology.allowed_nodes.contains(&node.number),
    });
    Ok(described.collect())
}

impl Store {
    /// Asks the kernel where the hot memory of the store lies. Graphs that are being brought there are
    /// waited for.
    #[must_use]
    pub fn numa_stats(&self) -> NumaStats {
        let mut arenas = Vec::new();
        for pool in self.tier.pools() {
            let name = format!("hot vectors of {} dimensions", pool.dimensions());
            let [slots, table] = pool.addresses();
            arenas.push(lies(name, None, &[slots]));
            arenas.push(lies(format!("keys of {} dimensions", pool.dimensions()), None, &[table]));
        }
        for collection in self.all_collections() {
            let of = || Some(collection.name.to_string());
            collection.graph.wait_until_placed();
            for (copy, addresses) in (1..).zip(collection.graph.addresses()) {
                let name = match self.placement.copies_count() {
                    1 => format!("graph of {}", collection.name),
                    _ => format!("graph of {}, copy {copy}", collection.name),
                };
                arenas.push(lies(name, of(), &[addresses]));
            }
            if let Some(index) = &*collection.index() {
                let addresses: Vec<_> = index.addresses().collect();
                arenas.push(lies(format!("vectors of {}", collection.name), of(), &addresses));
            }
        }
        NumaStats {
            policy: self.placement.policy(),
            refused: self.placement.refusal().map(str::to_owned),
            nodes: self.placement.nodes().to_vec(),
            cpus: self.placement.cpus().clone(),
            machine: numa_nodes().unwrap_or_default(),
            arenas,
        }
    }
}

fn lies(arena: String, collection: Option<String>, ranges: &[Range<usize>]) -> ArenaResidency {
    let bytes: usize = ranges.iter().map(Range::len).sum();
    let mut lies = ArenaResidency {
        arena,
        collection,
        bytes: bytes as u64,
        pages_by_node: BTreeMap::new(),
        refused: None,
    };
    for range in ranges {
        // As many of each as of all.
        let share = (SAMPLED_COUNT as f64 * range.len() as f64 / bytes.max(1) as f64).ceil();
        match residency(range, share as usize) {
            Ok(pages_by_node) => {
                for (node, count) in pages_by_node {
                    *lies.pages_by_node.entry(node).or_default() += count;
                }
            }
            Err(error) => lies.refused = Some(format!("move_pages: {error}")),
        }
    }
    lies
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::arena::NumaConfig;
    use crate::query::Query;
    use crate::record::Record;
    use crate::store::StoreConfig;

    const CHILD: &str = "OPDBUS_TEST_CHILD";
    const TEST: &str = "store::numa::tests::what_the_kernel_refuses_is_told_and_done_without";

    #[test]
    fn what_the_kernel_refuses_is_told_and_done_without() {
        if std::env::var_os(CHILD).is_none() {
            let test = std::env::current_exe().unwrap();
            let child =
                Command::new(test).args(["--exact", TEST]).env(CHILD, "1").output().unwrap();
            let said = String::from_utf8_lossy(&child.stdout);
            assert!(child.status.success() && said.contains("1 passed"), "{said}");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        numa::refuse_calls();
        for policy in [NumaPolicy::Bind, NumaPolicy::Interleave, NumaPolicy::Replicate] {
            let path = directory.path().join(policy.name());
            let config = StoreConfig::new(path).with_numa(NumaConfig::new(policy));
            let store = Store::open(config).unwrap();
            let record = Record::new("a").with_vector([1.0, 2.0]);
            store.put("notes", &record).unwrap();
            let found = store.search(&Query::vector([1.0, 2.0])).unwrap();
            assert_eq!(found.hits[0].key, b"a");
            let stats = store.numa_stats();
            assert_eq!(stats.policy, policy);
            let refused = stats.refused.unwrap();
            assert!(refused.contains("mbind") && refused.contains("not permitted"), "{refused}");
            let arena =
                stats.arenas.iter().find(|arena| arena.arena == "vectors of notes").unwrap();
            assert!(arena.refused.as_ref().is_some_and(|why| why.starts_with("move_pages")));
        }
    }
}
