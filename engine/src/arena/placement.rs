//! On which NUMA nodes hot memory lies, and on which CPUs the threads run that work on it.
//!
//! | policy | arenas of hot vectors | graphs | vectors that are compared one by one |
//! |---|---|---|---|
//! | off | where they are first touched | same | same |
//! | bind | on the nodes alone | same | same |
//! | preferred | on the nodes as long as they have memory | same | same |
//! | interleave | on the nodes in turn | same | a block on each node in turn |
//! | replicate | on the nodes in turn | a copy on each node | a block on each node in turn |
//!
//! A block or a copy whose node has no memory lies on another.
//!
//! Vectors in blocks are compared by threads on the node of the block; a graph that has copies is
//! read where the thread runs that searches.
//!
//! What the kernel refuses is done without, and told: once in the log, and in the figures of the
//! store.

use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use op_dbus_formats::numa_list::{self, NumaList};
use rustix::thread::CpuSet;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::os::memory::Reservation;
use crate::os::numa::topology::Topology;
use crate::os::numa::{self, MemoryPolicy, ThreadPolicy};

/// Where hot memory lies on a machine of several NUMA nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NumaPolicy {
    /// Where the kernel puts it.
    #[default]
    Off,
    /// On the nodes alone.
    Bind,
    /// On the nodes as long as they have memory.
    Preferred,
    /// On the nodes in turn.
    Interleave,
    /// Graphs once on each of the nodes, the rest on the nodes in turn.
    Replicate,
}

impl NumaPolicy {
    /// Every policy.
    pub const ALL: [Self; 5] =
        [Self::Off, Self::Bind, Self::Preferred, Self::Interleave, Self::Replicate];

    /// Its name in configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Bind => "bind",
            Self::Preferred => "preferred",
            Self::Interleave => "interleave",
            Self::Replicate => "replicate",
        }
    }
}

impl Display for NumaPolicy {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for NumaPolicy {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|policy| policy.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::new(ErrorKind::Invalid, format!("\"{name}\" is no NUMA policy"))
                .with_remedy(format!("use one of {names}"))
        })
    }
}

/// How a store uses the NUMA nodes of its machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumaConfig {
    /// Where hot memory lies.
    pub policy: NumaPolicy,
    /// The nodes that the policy speaks of.
    pub nodes: NumaList,
    /// CPUs that threads of the store run on; those of the nodes unless told.
    pub cpus: Option<NumaList>,
}

impl NumaConfig {
    /// With the nodes that one would expect: to be bound to, the first; to be spread over, all.
    #[must_use]
    pub fn new(policy: NumaPolicy) -> Self {
        let nodes = match policy {
            NumaPolicy::Off | NumaPolicy::Interleave | NumaPolicy::Replicate => NumaList::all(),
            NumaPolicy::Bind | NumaPolicy::Preferred => NumaList::of(0),
        };
        Self { policy, nodes, cpus: None }
    }

    /// Lets the calling thread, and threads that it starts from then on, run on the CPUs of the
    /// configuration alone.
    ///
    /// A store does so with its own threads. This is for a program that has nothing else to do.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the machine has not got the nodes or the CPUs.
    pub fn bind_this_thread(&self) -> Result<()> {
        Placement::of_machine(self)?.settle_thread();
        Ok(())
    }

    /// What the kernel refuses to do for this policy; `None` if nothing.
    ///
    /// # Errors
    /// As [`NumaConfig::bind_this_thread`].
    pub fn refusal(&self) -> Result<Option<String>> {
        Ok(Placement::of_machine(self)?.refusal().map(str::to_owned))
    }
}

impl Default for NumaConfig {
    fn default() -> Self {
        Self::new(NumaPolicy::Off)
    }
}

/// A configuration on a machine that has what it names.
#[derive(Debug, Default)]
pub(crate) struct Placement {
    policy: NumaPolicy,
    nodes: Vec<u32>,
    /// Those that threads run on; none are where they are anyway.
    cpus: BTreeSet<u32>,
    /// Of each node those of `cpus` that are next to it.
    cpus_of_nodes: Vec<BTreeSet<u32>>,
    /// The place in `nodes` of each CPU's node; the first for CPUs of other nodes.
    place_of_cpu: Vec<usize>,
    refusal: OnceLock<String>,
}

impl Placement {
    /// Nothing is placed.
    pub(crate) fn off() -> Self {
        Self::default()
    }

    /// # Errors
    /// [`ErrorKind::Invalid`] if this machine has not got the nodes or the CPUs, or this process may
    /// not use them; [`ErrorKind::Unavailable`] if the kernel does not tell.
    pub(crate) fn of_machine(config: &NumaConfig) -> Result<Self> {
        if config.policy == NumaPolicy::Off {
            return Ok(Self::off());
        }
        let placement = Self::on(config, &Topology::of_machine()?)?;
        placement.probe();
        Ok(placement)
    }

    /// On a machine that hwloc describes so, where the kernel may refuse everything.
    #[cfg(test)]
    pub(crate) fn synthetic(machine: &str, policy: NumaPolicy) -> Self {
        Self::on(&NumaConfig::new(policy), &Topology::synthetic(machine)).unwrap()
    }

    fn on(config: &NumaConfig, topology: &Topology) -> Result<Self> {
        let there = topology.nodes.iter().map(|node| node.number).collect();
        let nodes = select("NUMA node", &config.nodes, &there, &topology.allowed_nodes)?;
        let cpus_of_nodes = topology.cpus_of(&nodes);
        let cpus = match &config.cpus {
            None => cpus_of_nodes,
            Some(list) => {
                let there = topology.nodes.iter().flat_map(|node| &node.cpus).copied().collect();
                select("CPU", list, &there, &topology.allowed_cpus)?
            }
        };
        if let Some(cpu) = cpus.iter().find(|cpu| **cpu as usize >= CpuSet::MAX_CPU) {
            let context = format!("threads cannot be bound to CPU {cpu}");
            return Err(Error::new(ErrorKind::Unsupported, context)
                .with_remedy(format!("use CPUs below {}", CpuSet::MAX_CPU)));
        }
        let nodes: Vec<u32> = nodes.into_iter().collect();
        let cpus_max = topology.nodes.iter().flat_map(|node| &node.cpus).max().copied();
        let mut place_of_cpu = vec![0; cpus_max.map_or(0, |cpu| cpu as usize + 1)];
        let mut cpus_of_nodes = Vec::new();
        for (place, number) in nodes.iter().enumerate() {
            let of_node = topology.cpus_of(&[*number].into());
            of_node.iter().for_each(|cpu| place_of_cpu[*cpu as usize] = place);
            cpus_of_nodes.push(of_node.intersection(&cpus).copied().collect());
        }
        let refusal = OnceLock::new();
        Ok(Self { policy: config.policy, nodes, cpus, cpus_of_nodes, place_of_cpu, refusal })
    }

    /// Finds out early what the kernel refuses.
    fn probe(&self) {
        if let Ok(memory) = Reservation::new(1) {
            self.place(&memory, self.memory_policy().as_ref());
        }
    }

    pub(crate) fn policy(&self) -> NumaPolicy {
        self.policy
    }

    /// The nodes that the policy speaks of.
    pub(crate) fn nodes(&self) -> &[u32] {
        &self.nodes
    }

    /// The CPUs that threads run on; none are where they are anyway.
    pub(crate) fn cpus(&self) -> &BTreeSet<u32> {
        &self.cpus
    }

    /// What the kernel refused, if it did.
    pub(crate) fn refusal(&self) -> Option<&str> {
        self.refusal.get().map(String::as_str)
    }

    /// Reserves address space whose memory lies where the policy says.
    ///
    /// # Errors
    /// [`ErrorKind::Full`] if the address space is limited.
    pub(crate) fn reserve(&self, len_bytes: usize) -> Result<Reservation> {
        let memory = Reservation::new(len_bytes)?;
        self.place_shared(&memory);
        Ok(memory)
    }

    /// Moves memory, and what of it is still to come, to where the policy says.
    pub(crate) fn place_shared(&self, memory: &Reservation) {
        self.place(memory, self.memory_policy().as_ref());
    }

    /// Moves one of many blocks of memory to where the policy says.
    pub(crate) fn place_block(&self, memory: &Reservation, index: usize) {
        match self.is_spread() {
            true => self.place_on(memory, index % self.nodes.len()),
            false => self.place_shared(memory),
        }
    }

    /// Moves one of the [copies](Self::copies_count) to where the policy says.
    pub(crate) fn place_copy(&self, memory: &Reservation, copy: usize) {
        match self.copies_count() {
            1 => self.place_shared(memory),
            _ => self.place_on(memory, copy),
        }
    }

    /// Moves memory to the node at this place among the nodes, as long as it has any: on another one it is
    /// slower, and without it the process would be ended.
    fn place_on(&self, memory: &Reservation, place: usize) {
        self.place(memory, Some(&MemoryPolicy::Preferred(vec![self.nodes[place]])));
    }

    /// Copies of what many read and few change: one for each node, or one.
    pub(crate) fn copies_count(&self) -> usize {
        if self.policy == NumaPolicy::Replicate { self.nodes.len() } else { 1 }
    }

    /// The copy that is nearest to the CPU that this thread is on.
    #[inline]
    pub(crate) fn nearest_copy(&self) -> usize {
        self.place_of_cpu.get(numa::current_cpu()).copied().unwrap_or(0)
    }

    /// Nodes that have blocks of their own, which are compared by threads on the node: one if blocks
    /// lie anywhere.
    pub(crate) fn block_nodes_count(&self) -> usize {
        if self.is_spread() { self.nodes.len() } else { 1 }
    }

    fn is_spread(&self) -> bool {
        matches!(self.policy, NumaPolicy::Interleave | NumaPolicy::Replicate)
    }

    fn memory_policy(&self) -> Option<MemoryPolicy> {
        match self.policy {
            NumaPolicy::Off => None,
            NumaPolicy::Bind => Some(MemoryPolicy::Bind(self.nodes.clone())),
            NumaPolicy::Preferred => Some(MemoryPolicy::Preferred(self.nodes.clone())),
            NumaPolicy::Interleave | NumaPolicy::Replicate => {
                Some(MemoryPolicy::Interleave(self.nodes.clone()))
            }
        }
    }

    fn place(&self, memory: &Reservation, policy: Option<&MemoryPolicy>) {
        if let Some(policy) = policy
            && let Err(error) = numa::set_range_policy(&memory.addresses(), policy)
        {
            self.refused("memory cannot be placed (mbind)", &error);
        }
    }

    /// Lets this thread, and threads that it starts from then on, run where threads of the store do,
    /// and take memory near there.
    pub(crate) fn settle_thread(&self) {
        self.settle_on(&numa::cpu_set(&self.cpus));
    }

    fn settle_on(&self, cpus: &CpuSet) {
        // Softer than memory of arenas: with other memory, a thread is better off elsewhere than dead.
        let policy = match self.policy {
            NumaPolicy::Off => return,
            NumaPolicy::Bind | NumaPolicy::Preferred => MemoryPolicy::Preferred(self.nodes.clone()),
            NumaPolicy::Interleave => MemoryPolicy::Interleave(self.nodes.clone()),
            NumaPolicy::Replicate => MemoryPolicy::Local,
        };
        if cpus.count() > 0
            && let Err(error) = numa::set_thread_cpus(cpus)
        {
            self.refused("threads cannot be bound (sched_setaffinity)", &error);
        }
        if let Err(error) = numa::set_thread_policy(&policy) {
            self.refused("memory of threads cannot be placed (set_mempolicy)", &error);
        }
    }

    /// Settles this thread until what is returned is dropped; threads that it starts meanwhile stay
    /// where they are started.
    pub(crate) fn visit(&self) -> Visit {
        self.visit_on(&self.cpus)
    }

    /// The same for one of several threads that share work: where there are several nodes to spread
    /// over, each runs on one.
    pub(crate) fn visit_as_worker(&self, number: usize) -> Visit {
        let of_node = match self.is_spread() {
            true => &self.cpus_of_nodes[number % self.nodes.len()],
            false => &self.cpus,
        };
        self.visit_on(if of_node.is_empty() { &self.cpus } else { of_node })
    }

    fn visit_on(&self, cpus: &BTreeSet<u32>) -> Visit {
        if self.policy == NumaPolicy::Off {
            return Visit { cpus: None, policy: None };
        }
        // What cannot be given back is not taken.
        let (before, cpus) = match numa::thread_cpus() {
            Ok(before) => (Some(before), numa::cpu_set(cpus)),
            Err(error) => {
                self.refused("threads cannot be bound (sched_getaffinity)", &error);
                (None, CpuSet::new())
            }
        };
        let visit = Visit { cpus: before, policy: ThreadPolicy::now().ok() };
        self.settle_on(&cpus);
        visit
    }

    fn refused(&self, what: &str, error: &std::io::Error) {
        /// Once is enough for a process, whatever is refused to it.
        static TOLD: AtomicBool = AtomicBool::new(false);
        let is_first = self.refusal.set(format!("{what}: {error}")).is_ok();
        if is_first && !TOLD.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                policy = %self.policy, %error,
                "{what}; the kernel decides now. In a container, allow mbind, set_mempolicy, \
                 get_mempolicy and move_pages (SYS_NICE); or use the policy off"
            );
        }
    }
}

/// A thread that runs elsewhere for a while.
#[derive(Debug)]
pub(crate) struct Visit {
    cpus: Option<CpuSet>,
    policy: Option<ThreadPolicy>,
}

impl Drop for Visit {
    fn drop(&mut self) {
        let cpus = self.cpus.as_ref().map_or(Ok(()), numa::set_thread_cpus);
        let policy = self.policy.as_ref().map_or(Ok(()), ThreadPolicy::restore);
        if let Err(error) = cpus.and(policy) {
            tracing::warn!(%error, "a thread stays where it was bound for a while");
        }
    }
}

/// The numbers that a list means, all of which must be there and allowed.
fn select(
    what: &str,
    list: &NumaList,
    there: &BTreeSet<u32>,
    allowed: &BTreeSet<u32>,
) -> Result<BTreeSet<u32>> {
    let usable: BTreeSet<u32> = there.intersection(allowed).copied().collect();
    let valid = numa_list::render(&usable);
    let problem = match list.select(&usable) {
        Ok(selected) if !selected.is_empty() => return Ok(selected),
        Ok(_) => format!("the list \"{list}\" leaves no {what}"),
        Err(number) if there.contains(&number) && !list.is_relative() => {
            format!("{what} {number} is outside the cpuset of this process")
        }
        Err(number) if list.is_relative() => {
            format!("there is no {what} at place {number} of those that this process may use")
        }
        Err(number) => format!("this machine has no {what} {number}"),
    };
    Err(Error::new(ErrorKind::Invalid, problem).with_remedy(format!("use some of {valid}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(policy: NumaPolicy, nodes: &str, cpus: Option<&str>) -> NumaConfig {
        let cpus = cpus.map(|cpus| cpus.parse().unwrap());
        NumaConfig { policy, nodes: nodes.parse().unwrap(), cpus }
    }

    fn two_nodes() -> Topology {
        Topology::synthetic("numa:2 core:2 pu:1")
    }

    #[test]
    fn threads_run_on_the_cpus_of_the_nodes_unless_told() {
        let on = |nodes, cpus| {
            Placement::on(&config(NumaPolicy::Bind, nodes, cpus), &two_nodes()).unwrap()
        };
        assert_eq!(on("1", None).cpus, [2, 3].into());
        assert_eq!(on("!0", None).nodes, [1]);
        assert_eq!(on("all", Some("0,2")).cpus, [0, 2].into());
        let spread = Placement::on(&config(NumaPolicy::Replicate, "all", None), &two_nodes());
        let spread = spread.unwrap();
        assert_eq!(spread.cpus_of_nodes, [[0, 1].into(), [2, 3].into()]);
        assert_eq!(spread.copies_count(), 2);
        assert_eq!(spread.place_of_cpu, [0, 0, 1, 1]);
    }

    #[test]
    fn what_is_not_there_is_refused_with_what_is() {
        let mut topology = two_nodes();
        let refused = |topology: &Topology, nodes, cpus| {
            let error = Placement::on(&config(NumaPolicy::Bind, nodes, cpus), topology);
            let error = error.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            (error.to_string(), error.remedy().unwrap().to_owned())
        };
        let (problem, remedy) = refused(&topology, "2", None);
        assert_eq!((&*problem, &*remedy), ("this machine has no NUMA node 2", "use some of 0-1"));
        let (problem, remedy) = refused(&topology, "0", Some("0-4"));
        assert_eq!((&*problem, &*remedy), ("this machine has no CPU 4", "use some of 0-3"));
        topology.allowed_nodes = [0].into();
        let (problem, remedy) = refused(&topology, "0-1", None);
        let expected = "NUMA node 1 is outside the cpuset of this process";
        assert_eq!((&*problem, &*remedy), (expected, "use some of 0"));
        let (problem, _) = refused(&topology, "+1", None);
        assert!(problem.contains("at place 1"), "{problem}");
        let (problem, _) = refused(&topology, "!0", None);
        assert_eq!(problem, "the list \"!0\" leaves no NUMA node");
    }

    #[test]
    fn a_thread_that_visits_comes_back() {
        let before = numa::thread_cpus().unwrap();
        let first = Topology::of_machine().unwrap().allowed_cpus.pop_first().unwrap();
        let only = config(NumaPolicy::Bind, "+0", Some(&first.to_string()));
        let placement = Placement::of_machine(&only).unwrap();
        let visit = placement.visit();
        let meanwhile = std::thread::spawn(|| numa::thread_cpus().unwrap()).join().unwrap();
        assert_eq!(meanwhile, numa::cpu_set(&[first]));
        drop(visit);
        assert_eq!(numa::thread_cpus().unwrap(), before);
        assert_eq!(placement.refusal(), None);
    }
}
