//! Measured side by side: what a vector by key costs here, in a rival, and in plain memory; and what
//! it costs to find the nearest.
//!
//! The benches and `op-dbus benchmark` run the same code, so that anybody can repeat on their own
//! machine what was claimed. All engines hold the same vectors in the same run and take turns, a
//! round each, so that a busy machine disturbs them alike; figures are medians of rounds.

mod engine;
#[cfg(feature = "rivals")]
mod fjall;
#[cfg(feature = "rivals")]
mod foyer;
pub mod hit;
pub mod latency;
#[cfg(feature = "lmdb")]
pub mod lmdb;
mod memory;
pub mod numa;
mod ours;
#[cfg(feature = "rivals")]
mod redb;
#[cfg(feature = "rivals")]
mod rivals;
#[cfg(feature = "rivals")]
mod rocks;
pub mod search;
#[cfg(feature = "rivals")]
mod sled;
pub mod traffic;

pub use hit::{HitBenchmark, HitRow};
pub use numa::{NumaBenchmark, NumaReport};
#[cfg(feature = "rivals")]
pub use rivals::{DurableRow, RivalBenchmark, RivalReport};
pub use search::{IndexRow, Matrix, Questions, SearchBenchmark, SearchRow};
