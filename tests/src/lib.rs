//! What the tests of Operation D-Bus share, and nothing of what they test.
//!
//! Everything here panics with the reason where something is missing: a test that cannot be run
//! fails, and says what to do about it.

#[cfg(feature = "engine")]
pub mod bus;
#[cfg(feature = "engine")]
pub mod corruption;
#[cfg(feature = "engine")]
pub mod crash;
pub mod derived;
#[cfg(feature = "engine")]
pub mod fault;
pub mod fuzz;
pub mod model;
pub mod onnx;
pub mod program;
pub mod random;
pub mod reference;
#[cfg(feature = "engine")]
pub mod schema;
pub mod scratch;
#[cfg(feature = "engine")]
pub mod thing;
