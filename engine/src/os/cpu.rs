//! The processor: whether it has the instructions that RocksDB was compiled for, and hints to it.
//!
//! RocksDB's checksums use what the build allows without asking. Where that is not there, a process
//! dies at its first checksum, so the store asks before.

use std::fs::File;
use std::io::Read;

use crate::error::{Error, ErrorKind, Result};

/// What `.cargo/config.toml` allows, by the kernel's names.
#[cfg(all(target_arch = "x86_64", target_feature = "sse4.2", target_feature = "pclmulqdq"))]
const NEEDED: &[&str] = &["sse4_2", "pclmulqdq"];
#[cfg(not(all(target_arch = "x86_64", target_feature = "sse4.2", target_feature = "pclmulqdq")))]
const NEEDED: &[&str] = &[];

/// What memory is fetched in.
pub(crate) const CACHE_LINE_BYTES: usize = 64;

/// Holds what is said of the first processor; the kernel writes no more than is read.
const DESCRIPTION_BYTES: u64 = 8192;

/// Refuses a processor that lacks instructions which this program needs.
///
/// # Errors
/// [`ErrorKind::Unsupported`] names them. Where nobody tells what there is, nothing is refused.
pub(crate) fn check() -> Result<()> {
    let mut description = Vec::new();
    let read = File::open("/proc/cpuinfo")
        .and_then(|file| file.take(DESCRIPTION_BYTES).read_to_end(&mut description));
    let missing = match read {
        Ok(_) => missing(&String::from_utf8_lossy(&description), NEEDED),
        Err(_) => Vec::new(),
    };
    if missing.is_empty() {
        return Ok(());
    }
    let what =
        format!("this processor lacks {}, which op-dbus was built to use", missing.join(", "));
    Err(Error::new(ErrorKind::Unsupported, what)
        .with_remedy("build op-dbus without the target features in .cargo/config.toml"))
}

/// Says that the cache line at an address will be read soon; no more than a hint.
#[inline]
pub(crate) fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    #[expect(unsafe_code, reason = "an instruction of the processor")]
    // SAFETY: it reads nothing, and does nothing where there is no memory.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

fn missing<'a>(description: &str, needed: &[&'a str]) -> Vec<&'a str> {
    let flags = description.lines().find_map(|line| line.strip_prefix("flags")?.split_once(':'));
    let Some((_, flags)) = flags else { return Vec::new() };
    let has = |flag: &&str| flags.split_ascii_whitespace().any(|had| had == *flag);
    needed.iter().copied().filter(|flag| !has(flag)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let description = "model\t\t: 6\nflags\t\t: fpu sse4_2x avx\nbugs\t\t: sse4_2\n";
        assert_eq!(missing(description, &["fpu", "sse4_2", "avx"]), ["sse4_2"]);
        assert_eq!(missing("Features\t: fp asimd\n", &["sse4_2"]), [""; 0]);
        check().unwrap();
    }
}
