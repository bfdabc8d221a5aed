//! The functions of libnuma that are needed, bound by hand.

use std::ffi::{c_int, c_longlong};
use std::sync::LazyLock;

#[link(name = "numa")]
unsafe extern "C" {
    safe fn numa_available() -> c_int;
    safe fn numa_distance(node1: c_int, node2: c_int) -> c_int;
    fn numa_node_size64(node: c_int, free_bytes: *mut c_longlong) -> c_longlong;
}

/// What every other function asks for first.
static IS_AVAILABLE: LazyLock<bool> = LazyLock::new(|| numa_available() >= 0);

/// How far the memory of one node is from the CPUs of another, where a node is 10 from itself; `None`
/// if the firmware does not say.
pub(crate) fn distance(from: u32, to: u32) -> Option<u32> {
    if !*IS_AVAILABLE {
        return None;
    }
    let (from, to) = (c_int::try_from(from).ok()?, c_int::try_from(to).ok()?);
    u32::try_from(numa_distance(from, to)).ok().filter(|distance| *distance > 0)
}

/// Memory of a node that nobody uses; `None` if the kernel does not say.
pub(crate) fn free_bytes(node: u32) -> Option<u64> {
    if !*IS_AVAILABLE {
        return None;
    }
    let mut free_bytes: c_longlong = 0;
    // SAFETY: it writes the one number.
    let total_bytes = unsafe { numa_node_size64(c_int::try_from(node).ok()?, &raw mut free_bytes) };
    if total_bytes < 0 { None } else { u64::try_from(free_bytes).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_ten_from_itself_and_has_memory() {
        assert_eq!(distance(0, 0), Some(10));
        assert!(free_bytes(0).unwrap() > 0);
        assert_eq!((distance(0, 1022), free_bytes(1022)), (None, None));
    }
}
