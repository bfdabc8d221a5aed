//! System calls behind safe types. No policy, no formats.

pub(crate) mod btrfs;
pub(crate) mod clock;
pub(crate) mod cpu;
pub(crate) mod environment;
pub(crate) mod extents;
pub(crate) mod file;
pub(crate) mod limits;
pub(crate) mod map;
pub(crate) mod memory;
pub(crate) mod mount;
pub(crate) mod numa;
pub(crate) mod random;
pub(crate) mod threads;
