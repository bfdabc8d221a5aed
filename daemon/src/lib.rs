//! What the engine knows of D-Bus: interfaces as records that can be found by meaning.
//!
//! The service on the bus will be another module here; the command line already indexes interface
//! files through this one, so that both make the same records.

pub mod interfaces;
