//! Which vectors lie in memory: eviction policies, their simulator, and traces of what was asked.

mod policy;
mod simulate;
mod trace;

pub use policy::PolicyKind;
pub use simulate::{SimulationReport, simulate};
pub(crate) use trace::Recorder;
pub use trace::{TraceReport, read_trace};
