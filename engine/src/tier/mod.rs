//! Which vectors lie in memory: eviction policies, their simulator, and traces of what was asked.

mod policy;
mod simulate;

pub use policy::PolicyKind;
pub use simulate::{SimulationReport, simulate};
