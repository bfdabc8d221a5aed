//! The fault harness: a file layer that fails, tears and records, and what is made of its records.
//!
//! [`story`] is a small fixed workload, run by a child process above [`shim`], which fails or
//! tears one of its file operations. The [`log`] of a run without faults says which operations
//! there are, and from it [`image`] makes the directories that a power cut at any moment could
//! leave, with any subset of the pages that were not synced. The store that is left is judged as
//! after every other crash, by [`crate::crash::check`].
//!
//! Together with the power cuts on a real file system this covers both sides: those show what ext4
//! does, the images what any file system may do that keeps the order of names.

pub mod image;
pub mod log;
pub mod shim;
pub mod story;
