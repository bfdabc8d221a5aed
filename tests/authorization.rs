//! Who may do what: every method and property of the service for every kind of caller, whatever polkit
//! answers, and judged by what happened as well as by what was said.
//!
//! The service is on a bus of its own that it takes for the system's. A stand-in answers for polkit, or
//! polkit itself where it is installed. Callers of other users need root; without it the service is
//! asked by its own user alone, and the rest prints `SKIPPED`.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[path = "authorization/cases.rs"]
mod cases;
#[path = "authorization/judge.rs"]
mod judge;
#[path = "authorization/matrix.rs"]
mod matrix;
#[path = "authorization/polkit.rs"]
mod polkit;
#[path = "authorization/real.rs"]
mod real;
#[path = "authorization/single.rs"]
mod single;
#[path = "authorization/world.rs"]
mod world;
