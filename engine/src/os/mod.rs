//! System calls behind safe types. No policy, no formats.

pub(crate) mod file;
pub(crate) mod map;
