//! Mounts, as the kernel lists them.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use op_dbus_formats::Mount;

use crate::error::{Error, Result};

const LIST: &str = "/proc/self/mountinfo";

/// The mount that a path is in, which must be there; `None` if the kernel does not list it.
pub(crate) fn mount_of(path: &Path) -> Result<Option<Mount>> {
    let path = path.canonicalize().map_err(|error| Error::io("find", path, error))?;
    let list = std::fs::read(LIST).map_err(|error| Error::io("read", Path::new(LIST), error))?;
    Ok(Mount::of_path(&list, path.as_os_str().as_bytes()))
}
