//! System calls behind safe types. No policy, no formats.

pub(crate) mod clock;
pub(crate) mod file;
