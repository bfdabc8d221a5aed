//! Which NUMA nodes a machine has, with which CPUs, and which of them this process may use.

use std::collections::BTreeSet;

use hwlocality::Topology as Hwloc;
use hwlocality::bitmap::Bitmap;
use hwlocality::object::attributes::ObjectAttributes;
use hwlocality::object::types::ObjectType;
use hwlocality::topology::builder::{BuildFlags, TopologyBuilder};

use crate::error::{Error, ErrorKind, Result};

/// Nodes of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Topology {
    /// By number.
    pub(crate) nodes: Vec<Node>,
    /// Nodes that this process may take memory from.
    pub(crate) allowed_nodes: BTreeSet<u32>,
    /// CPUs that this process may run on.
    pub(crate) allowed_cpus: BTreeSet<u32>,
}

/// Memory, and the CPUs that are next to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) number: u32,
    pub(crate) cpus: BTreeSet<u32>,
    pub(crate) memory_bytes: u64,
}

impl Topology {
    /// That of this machine.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the kernel does not tell.
    pub(crate) fn of_machine() -> Result<Self> {
        // hwloc asks for it until it gets an answer.
        let own = super::process_cpus().map_err(|error| unknown("which CPUs it may use", error))?;
        // With what is not allowed, so that a message can tell it from what is not there.
        let builder = Hwloc::builder().with_flags(BuildFlags::INCLUDE_DISALLOWED);
        let builder = builder.map_err(|error| unknown("which NUMA nodes there are", error))?;
        let mut topology = Self::build(builder)?;
        // A call may be refused to this process; then the control group's word must do.
        if let Ok(allowed) = super::allowed_nodes() {
            topology.allowed_nodes.retain(|node| allowed.contains(node));
        }
        // What somebody else has bound this process to stays its bound.
        topology.allowed_cpus.retain(|cpu| own.is_set(*cpu as usize));
        Ok(topology)
    }

    /// One that is described in hwloc's way, such as `numa:2 core:4 pu:1`.
    #[cfg(test)]
    pub(crate) fn synthetic(description: &str) -> Self {
        Self::build(Hwloc::builder().from_synthetic(description).unwrap()).unwrap()
    }

    fn build(builder: TopologyBuilder) -> Result<Self> {
        let hwloc = builder.build();
        let hwloc = hwloc.map_err(|error| unknown("which NUMA nodes there are", error))?;
        let mut nodes: Vec<Node> = hwloc
            .objects_with_type(ObjectType::NUMANode)
            .filter_map(|object| {
                let memory_bytes = match object.attributes() {
                    Some(ObjectAttributes::NUMANode(node)) => {
                        node.local_memory().map_or(0, |bytes| bytes.get())
                    }
                    _ => 0,
                };
                let cpus = object.cpuset().map(|cpus| numbers(&cpus)).unwrap_or_default();
                let number = u32::try_from(object.os_index()?).ok()?;
                Some(Node { number, cpus, memory_bytes })
            })
            .collect();
        nodes.sort_by_key(|node| node.number);
        Ok(Self {
            nodes,
            allowed_nodes: numbers(&hwloc.allowed_nodeset()),
            allowed_cpus: numbers(&hwloc.allowed_cpuset()),
        })
    }

    /// The CPUs next to some nodes that this process may run on.
    pub(crate) fn cpus_of(&self, nodes: &BTreeSet<u32>) -> BTreeSet<u32> {
        let nodes = self.nodes.iter().filter(|node| nodes.contains(&node.number));
        nodes
            .flat_map(|node| &node.cpus)
            .copied()
            .filter(|cpu| self.allowed_cpus.contains(cpu))
            .collect()
    }
}

fn numbers(set: &impl AsRef<Bitmap>) -> BTreeSet<u32> {
    set.as_ref().iter_set().filter_map(|number| u32::try_from(usize::from(number)).ok()).collect()
}

fn unknown(what: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Unavailable, format!("the kernel does not tell {what}"))
        .with_source(error)
        .with_remedy("see to it that /sys is mounted, or use the policy off")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_synthetic_machine_has_what_it_is_said_to_have() {
        let topology = Topology::synthetic("numa:2 core:4 pu:1");
        let cpus: Vec<Vec<u32>> =
            topology.nodes.iter().map(|node| node.cpus.iter().copied().collect()).collect();
        assert_eq!(cpus, [[0, 1, 2, 3], [4, 5, 6, 7]]);
        assert_eq!(topology.allowed_nodes, [0, 1].into());
        assert_eq!(topology.cpus_of(&[1].into()), [4, 5, 6, 7].into());
        assert!(topology.nodes.iter().all(|node| node.memory_bytes > 0));
    }

    #[test]
    fn this_machine_has_a_node_with_a_cpu() {
        let topology = Topology::of_machine().unwrap();
        assert!(topology.nodes.iter().any(|node| !node.cpus.is_empty()));
        assert!(!topology.allowed_nodes.is_empty() && !topology.allowed_cpus.is_empty());
    }
}
