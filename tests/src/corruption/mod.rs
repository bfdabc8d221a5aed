//! The corruption harness: stores of which one byte was changed, and a judge of what they answer.
//!
//! A [`sample`] is a small real store: tables of every family of both databases, and a log that
//! holds the newest writes. A [`flips`] changes one byte of one of its files. [`judge`] opens such
//! a store, asks it everything and compares the answers with those of the whole store. It does so
//! in a child process ([`worker`]), so that a crash is seen and named.
//!
//! What is allowed: an error that says what is damaged; or all the right answers, if the byte is
//! one that nobody reads, or belongs to what is computed again, or a scrub finds it. What is not:
//! a wrong or missing answer, a panic, a crash, a hang.
//!
//! What is deliberately not here: more than one byte at a time, and truncation. Both are further
//! from what checksums miss, not nearer.

pub mod flips;
pub mod judge;
pub mod sample;
pub mod worker;
