//! Random numbers from the kernel.

use crate::error::{Error, ErrorKind, Result};

/// As many random bytes as asked for.
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        let flags = rustix::rand::GetRandomFlags::empty();
        filled += rustix::rand::getrandom(&mut bytes[filled..], flags).map_err(|error| {
            Error::new(ErrorKind::Io, "the kernel gives no random numbers")
                .with_source(std::io::Error::from(error))
        })?;
    }
    Ok(bytes)
}
