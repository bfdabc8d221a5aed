//! The crash harness: writers that are killed, and a judge of what they leave behind.
//!
//! A [`workload`] makes operations from a seed. A writer, mostly [`import`], applies them to a
//! store and acknowledges each once the store says that it is durable; then it is killed, or the
//! power is cut below it ([`disk`]). The store is opened again and [`check`]ed against the
//! operations sent and the acknowledgements received. [`aging`] carries one store through many
//! such sessions, so that recovery starts from what recovery left. [`no_sync`] plants the bug
//! that the power cuts must find.
//!
//! What is deliberately not here: damage to bytes that were durable. That is a matter of
//! checksums, and other tests bend files for it.

pub mod aging;
pub mod campaign;
pub mod check;
pub mod disk;
pub mod import;
pub mod no_sync;
pub mod workload;
