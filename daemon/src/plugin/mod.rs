//! Plugins: what they are, where they come from, and what may be asked of them.

pub(crate) mod call;
pub mod create;
mod describe;
mod drift;
mod load;
mod property;
mod registry;
pub mod run;

pub use describe::describe;
pub use drift::drift;
pub use load::{LoadedPlugin, MappedService, check};
pub use registry::{Entry, Plugins};

/// What is told in the place of a secret.
pub(crate) const REDACTED: &str = "(secret)";
