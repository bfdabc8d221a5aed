//! Hits measured side by side: what a vector by key costs here, in a rival, and in plain memory.
//!
//! The benches and `op-dbus benchmark` run the same code, so that anybody can repeat on their own
//! machine what was claimed. All engines hold the same vectors in the same run and take turns, a
//! round each, so that a busy machine disturbs them alike; figures are medians of rounds.

pub mod hit;
#[cfg(feature = "rivals")]
mod lmdb;
mod memory;
mod ours;
pub mod traffic;

pub use hit::{HitBenchmark, HitRow};
