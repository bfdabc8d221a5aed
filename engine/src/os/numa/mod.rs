//! On which NUMA node memory lies, and on which CPUs threads run: the kernel's calls.
//!
//! Memory is placed page by page when it is first touched, by the policy of its range if it has one,
//! else by that of the thread that touches it. A policy of a range holds for anonymous memory alone;
//! for maps of files the kernel takes it and does as it would have done without.
//!
//! The published binding of libnuma (libnuma-sys 0.0.9, of 2018) does not build any more and lacks
//! the calls for ranges. So the few functions of libnuma that are needed are bound here
//! ([`libnuma`]), and the calls are made directly. What there is on a machine says [`topology`].

#![expect(unsafe_code, reason = "system calls on ranges of memory have no safe interface")]

mod libnuma;
pub(crate) mod topology;

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use libc::{c_int, c_long, c_ulong};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

pub(crate) use libnuma::{distance, free_bytes};

/// Nodes that a mask has room for: as many as Linux can have.
const NODES_MAX: usize = 1024;
const WORD_BITS: usize = c_ulong::BITS as usize;
/// Pages that are asked about at a time.
const ASKED_COUNT: usize = 1024;

/// Where the kernel takes memory from.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) enum MemoryPolicy {
    /// From the node of the CPU that first touches it.
    #[default]
    Local,
    /// From these nodes alone.
    Bind(Vec<u32>),
    /// From these nodes as long as they have any.
    Preferred(Vec<u32>),
    /// From these nodes in turn.
    Interleave(Vec<u32>),
}

impl MemoryPolicy {
    fn mode(&self) -> c_int {
        match self {
            Self::Local => libc::MPOL_DEFAULT,
            Self::Bind(_) => libc::MPOL_BIND,
            // One node is a mode of its own, which kernels before 5.15 have too.
            Self::Preferred(nodes) if nodes.len() == 1 => libc::MPOL_PREFERRED,
            Self::Preferred(_) => MPOL_PREFERRED_MANY,
            Self::Interleave(_) => libc::MPOL_INTERLEAVE,
        }
    }

    fn mask(&self) -> io::Result<[c_ulong; NODES_MAX / WORD_BITS]> {
        let nodes = match self {
            Self::Local => &[][..],
            Self::Bind(nodes) | Self::Preferred(nodes) | Self::Interleave(nodes) => nodes,
        };
        let mut mask = [0; NODES_MAX / WORD_BITS];
        for &node in nodes {
            let word = mask.get_mut(node as usize / WORD_BITS);
            *word.ok_or(io::ErrorKind::InvalidInput)? |= 1 << (node as usize % WORD_BITS);
        }
        Ok(mask)
    }
}

// What libc has not got, as <linux/mempolicy.h> has it; the first since Linux 5.15.
const MPOL_PREFERRED_MANY: c_int = 5;
const MPOL_F_MEMS_ALLOWED: c_ulong = 1 << 2;
const MPOL_MF_MOVE: c_ulong = 1 << 1;

/// Sets the policy of a range of whole pages, and moves those that are elsewhere.
///
/// # Errors
/// What the kernel refuses: a node that is not there or not allowed, or the call itself.
pub(crate) fn set_range_policy(range: &Range<usize>, policy: &MemoryPolicy) -> io::Result<()> {
    let mask = policy.mask()?;
    // SAFETY: the call changes where pages lie and no byte of them, and reads a mask that is as long
    // as told. An address that is not mapped is refused.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mbind,
            range.start,
            range.len(),
            c_long::from(policy.mode()),
            mask.as_ptr(),
            NODES_MAX as c_ulong,
            MPOL_MF_MOVE,
        )
    };
    checked(result).map(drop)
}

/// Sets the policy of what this thread, and threads that it starts from then on, touch first.
///
/// # Errors
/// As [`set_range_policy`].
pub(crate) fn set_thread_policy(policy: &MemoryPolicy) -> io::Result<()> {
    let mask = policy.mask()?;
    // SAFETY: the call reads a mask that is as long as told, and changes no memory.
    let result = unsafe {
        libc::syscall(
            libc::SYS_set_mempolicy,
            c_long::from(policy.mode()),
            mask.as_ptr(),
            NODES_MAX as c_ulong,
        )
    };
    checked(result).map(drop)
}

/// The policy of this thread, to be set again.
#[derive(Debug)]
pub(crate) struct ThreadPolicy {
    mode: c_int,
    mask: [c_ulong; NODES_MAX / WORD_BITS],
}

impl ThreadPolicy {
    /// Asks for it.
    ///
    /// # Errors
    /// The kernel has no such call, or does not let this process make it.
    pub(crate) fn now() -> io::Result<Self> {
        let (mut mode, mut mask): (c_int, _) = (0, [0; NODES_MAX / WORD_BITS]);
        get_mempolicy(&mut mode, &mut mask, 0)?;
        Ok(Self { mode, mask })
    }

    /// Sets it again.
    ///
    /// # Errors
    /// As [`set_range_policy`].
    pub(crate) fn restore(&self) -> io::Result<()> {
        // SAFETY: as in `set_thread_policy`; the flags in `mode` are those that the kernel gave.
        let result = unsafe {
            libc::syscall(
                libc::SYS_set_mempolicy,
                c_long::from(self.mode),
                self.mask.as_ptr(),
                NODES_MAX as c_ulong,
            )
        };
        checked(result).map(drop)
    }
}

/// The nodes that the kernel lets this process take memory from.
///
/// # Errors
/// As [`ThreadPolicy::now`].
fn allowed_nodes() -> io::Result<Vec<u32>> {
    let (mut mode, mut mask): (c_int, _) = (0, [0; NODES_MAX / WORD_BITS]);
    get_mempolicy(&mut mode, &mut mask, MPOL_F_MEMS_ALLOWED)?;
    let is_set = |node: &usize| mask[node / WORD_BITS] & 1 << (node % WORD_BITS) != 0;
    Ok((0..NODES_MAX).filter(is_set).map(|node| node as u32).collect())
}

fn get_mempolicy(
    mode: &mut c_int,
    mask: &mut [c_ulong; NODES_MAX / WORD_BITS],
    flags: c_ulong,
) -> io::Result<()> {
    // SAFETY: the kernel writes a mode and a mask, which is as long as told.
    let result = unsafe {
        libc::syscall(
            libc::SYS_get_mempolicy,
            mode as *mut c_int,
            mask.as_mut_ptr(),
            NODES_MAX as c_ulong,
            std::ptr::null::<u8>(),
            flags,
        )
    };
    checked(result).map(drop)
}

/// Asks on which nodes some pages of a range lie, about so many and evenly spread; returns how many on
/// each. What was never touched lies nowhere and is not counted.
///
/// # Errors
/// The kernel has no such call, or does not let this process make it.
pub(crate) fn residency(range: &Range<usize>, pages_max: usize) -> io::Result<BTreeMap<u32, u64>> {
    let page_bytes = rustix::param::page_size();
    let pages_count = range.len().div_ceil(page_bytes);
    let step = pages_count.div_ceil(pages_max.max(1)).max(1);
    let addresses: Vec<usize> =
        (0..pages_count).step_by(step).map(|page| range.start + page * page_bytes).collect();
    let mut pages_by_node = BTreeMap::new();
    for asked in addresses.chunks(ASKED_COUNT) {
        let mut nodes = [0 as c_int; ASKED_COUNT];
        // SAFETY: without nodes to move to, the call only tells. It reads and writes arrays that are as
        // long as told.
        let result = unsafe {
            libc::syscall(
                libc::SYS_move_pages,
                0 as c_long,
                asked.len() as c_ulong,
                asked.as_ptr(),
                std::ptr::null::<c_int>(),
                nodes.as_mut_ptr(),
                0 as c_long,
            )
        };
        checked(result)?;
        // A negative number is an error: most often ENOENT, nothing there.
        for node in nodes[..asked.len()].iter().filter_map(|node| u32::try_from(*node).ok()) {
            *pages_by_node.entry(node).or_default() += 1;
        }
    }
    Ok(pages_by_node)
}

/// The CPU that this thread runs on, which may be another in a moment.
#[inline]
pub(crate) fn current_cpu() -> usize {
    rustix::thread::sched_getcpu()
}

/// The CPUs that this thread may run on, to be set again.
///
/// # Errors
/// What the kernel refuses.
pub(crate) fn thread_cpus() -> io::Result<CpuSet> {
    Ok(sched_getaffinity(None)?)
}

/// The CPUs that the first thread of this process may run on, and so what was started without being told
/// anything else.
///
/// # Errors
/// What the kernel refuses.
fn process_cpus() -> io::Result<CpuSet> {
    Ok(sched_getaffinity(Some(rustix::process::getpid()))?)
}

/// Lets this thread, and threads that it starts from then on, run on these CPUs alone.
///
/// # Errors
/// None of them may be used.
pub(crate) fn set_thread_cpus(cpus: &CpuSet) -> io::Result<()> {
    Ok(sched_setaffinity(None, cpus)?)
}

/// A set of these CPUs; those that there is no room for are left out.
pub(crate) fn cpu_set<'a>(cpus: impl IntoIterator<Item = &'a u32>) -> CpuSet {
    let mut set = CpuSet::new();
    let cpus = cpus.into_iter().map(|cpu| *cpu as usize);
    cpus.filter(|cpu| *cpu < CpuSet::MAX_CPU).for_each(|cpu| set.set(cpu));
    set
}

fn checked(result: c_long) -> io::Result<c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Has the kernel refuse the calls of this module to this process from now on, as in a container.
#[cfg(test)]
pub(crate) fn refuse_calls() {
    const CALL_AT: u32 = 0;
    let load = |at| libc::sock_filter {
        code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16,
        jt: 0,
        jf: 0,
        k: at,
    };
    let refused =
        [libc::SYS_mbind, libc::SYS_set_mempolicy, libc::SYS_get_mempolicy, libc::SYS_move_pages];
    let mut program = vec![load(CALL_AT)];
    for (left, call) in (0..refused.len()).rev().zip(refused) {
        let code = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
        program.push(libc::sock_filter { code, jt: left as u8 + 1, jf: 0, k: call as u32 });
    }
    let answer = |k| libc::sock_filter { code: libc::BPF_RET as u16, jt: 0, jf: 0, k };
    program.push(answer(libc::SECCOMP_RET_ALLOW));
    program.push(answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32));
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: it takes from this process the right to get more rights, and reads nothing.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: the kernel copies the program, which is as long as told.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const filter) }, 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::memory::{Pages, REGION_BYTES, Reservation};

    #[test]
    fn memory_bound_to_a_node_lies_there() {
        let reservation = Reservation::new(4 * REGION_BYTES).unwrap();
        let node = allowed_nodes().unwrap()[0];
        set_range_policy(&reservation.addresses(), &MemoryPolicy::Bind(vec![node])).unwrap();
        reservation.commit(0, 2 * REGION_BYTES, Pages::Ordinary).unwrap();
        let untouched = residency(&reservation.addresses(), 100).unwrap();
        assert_eq!(untouched, BTreeMap::new());
        // SAFETY: committed above, and nobody else knows it.
        unsafe { reservation.base().as_ptr().write_bytes(1, REGION_BYTES) };
        let pages_max = 4 * REGION_BYTES / rustix::param::page_size();
        let touched = residency(&reservation.addresses(), pages_max).unwrap();
        let pages_count = (REGION_BYTES / rustix::param::page_size()) as u64;
        assert_eq!(touched, [(node, pages_count)].into());
    }

    #[test]
    fn a_node_that_is_not_there_is_refused() {
        let reservation = Reservation::new(REGION_BYTES).unwrap();
        for policy in [MemoryPolicy::Bind(vec![1023]), MemoryPolicy::Interleave(vec![9999])] {
            let error = set_range_policy(&reservation.addresses(), &policy).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{policy:?}");
        }
    }

    #[test]
    fn a_policy_of_a_thread_comes_and_goes() {
        let node = allowed_nodes().unwrap()[0];
        let before = ThreadPolicy::now().unwrap();
        for policy in [MemoryPolicy::Bind(vec![node]), MemoryPolicy::Preferred(vec![node])] {
            set_thread_policy(&policy).unwrap();
            let now = ThreadPolicy::now().unwrap();
            assert_eq!((now.mode, now.mask), (policy.mode(), policy.mask().unwrap()));
        }
        before.restore().unwrap();
        let after = ThreadPolicy::now().unwrap();
        assert_eq!((before.mode, before.mask), (after.mode, after.mask));
    }
}
