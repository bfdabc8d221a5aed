//! Plugins: what they are, where they come from, and what may be asked of them.

pub(crate) mod call;
pub mod create;
mod describe;
mod load;
mod registry;
pub mod run;

pub use describe::describe;
pub use load::{LoadedPlugin, MappedService, check};
pub use registry::{Entry, Plugins};
