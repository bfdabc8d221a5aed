//! Vectors on the bus.
//!
//! D-Bus has no type for numbers of 32 bits with a fraction. What is sent is `ay`, the numbers one
//! after the other in little-endian order, or, above [`INLINE_LEN_MAX_BYTES`], a memory file (`h`)
//! with the same bytes, sealed so that nobody changes it any more. What is taken is either of them,
//! or `ad`, which is what people write by hand.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use op_dbus_engine::ErrorKind;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};
use zbus::{Fd, OwnedVariant, Variant};

use crate::error::{BusError, Result};

/// The longest vectors that lie in the message itself.
pub const INLINE_LEN_MAX_BYTES: usize = 64 << 10;
/// The longest that are taken at all: a thousand texts' embeddings of the largest models.
pub const LEN_MAX_BYTES: u64 = 64 << 20;

const SEALS: SealFlags =
    SealFlags::WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::SEAL);

/// Makes what is sent of vectors, one after the other.
///
/// # Errors
/// [`ErrorKind::Io`] if there is no memory file to be had.
pub fn to_variant(vectors: &[f32]) -> Result<OwnedVariant> {
    let bytes: Vec<u8> = vectors.iter().flat_map(|number| number.to_le_bytes()).collect();
    let variant = if bytes.len() <= INLINE_LEN_MAX_BYTES {
        Variant::from(bytes)
    } else {
        Variant::Fd(Fd::from(sealed(&bytes).map_err(|error| {
            BusError::new(ErrorKind::Io, format!("cannot make a memory file: {error}"), "try again")
        })?))
    };
    OwnedVariant::try_from(variant)
        .map_err(|error| BusError::new(ErrorKind::Io, error.to_string(), "try again"))
}

fn sealed(bytes: &[u8]) -> std::io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(memfd_create("op-dbus vectors", flags)?);
    file.write_all(bytes)?;
    fcntl_add_seals(&file, SEALS)?;
    Ok(file.into())
}

/// Reads vectors that were sent.
///
/// # Errors
/// [`ErrorKind::Invalid`] if it is of another type, too long, or a file that is not sealed.
pub fn from_variant(variant: &Variant<'_>) -> Result<Vec<f32>> {
    match variant {
        Variant::Variant(inner) => from_variant(inner),
        Variant::Fd(fd) => read_sealed(fd),
        Variant::Array(array) => match array.element_signature().to_string().as_str() {
            "d" => {
                let numbers = array.iter().map(|number| match number {
                    Variant::F64(number) => Ok(*number as f32),
                    _ => Err(wrong_type()),
                });
                numbers.collect()
            }
            "y" => {
                let bytes = array.iter().map(|byte| match byte {
                    Variant::U8(byte) => Ok(*byte),
                    _ => Err(wrong_type()),
                });
                of_bytes(&bytes.collect::<Result<Vec<u8>>>()?)
            }
            _ => Err(wrong_type()),
        },
        _ => Err(wrong_type()),
    }
}

/// Read, not mapped: nothing that its sender does to it can hurt whoever reads.
fn read_sealed(fd: &Fd<'_>) -> Result<Vec<f32>> {
    let refused = |problem: String| {
        BusError::new(ErrorKind::Invalid, problem, "send a memory file that is sealed")
    };
    let fd = fd.as_fd();
    let seals = fcntl_get_seals(fd).map_err(|error| refused(format!("no memory file: {error}")))?;
    if !seals.contains(SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW) {
        return Err(refused("the memory file can still be changed".to_owned()));
    }
    let unreadable = |error: std::io::Error| refused(format!("the memory file: {error}"));
    let file = File::from(fd.try_clone_to_owned().map_err(unreadable)?);
    let len = file.metadata().map_err(unreadable)?.len();
    if len > LEN_MAX_BYTES {
        return Err(refused(format!("{len} bytes of vectors are more than {LEN_MAX_BYTES}")));
    }
    let mut bytes = vec![0; len as usize];
    file.read_exact_at(&mut bytes, 0).map_err(unreadable)?;
    of_bytes(&bytes)
}

fn of_bytes(bytes: &[u8]) -> Result<Vec<f32>> {
    let (numbers, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        let problem = format!("{} bytes are no whole count of numbers of 4 bytes", bytes.len());
        return Err(BusError::new(ErrorKind::Invalid, problem, "send f32 in little-endian order"));
    }
    Ok(numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

fn wrong_type() -> BusError {
    let remedy = "send ad, ay (f32 in little-endian order) or h (a sealed memory file)";
    BusError::new(ErrorKind::Invalid, "a vector of an unknown type", remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_come_back_in_the_message_and_beside_it() {
        for count in [0, 1, INLINE_LEN_MAX_BYTES / 4, INLINE_LEN_MAX_BYTES / 4 + 1] {
            let numbers: Vec<f32> = (0..count).map(|n| n as f32 / 3.0).collect();
            let variant = to_variant(&numbers).unwrap();
            let is_beside = matches!(&*variant, Variant::Fd(_));
            assert_eq!(is_beside, count * 4 > INLINE_LEN_MAX_BYTES);
            assert_eq!(from_variant(&variant).unwrap(), numbers);
        }
        assert_eq!(from_variant(&Variant::from(vec![0.5_f64, 2.0])).unwrap(), [0.5, 2.0]);
    }

    #[test]
    fn what_is_no_vector_is_refused() {
        assert!(from_variant(&Variant::from("text")).is_err());
        assert!(from_variant(&Variant::from(vec![1_u32])).is_err());
        assert!(from_variant(&Variant::from(vec![1_u8, 2, 3])).is_err());
        let flags = MemfdFlags::ALLOW_SEALING;
        let open = memfd_create("open", flags).unwrap();
        let problem = from_variant(&Variant::Fd(Fd::from(open))).unwrap_err();
        assert!(problem.problem().contains("can still be changed"), "{problem:?}");
        let file = File::open("/dev/null").unwrap();
        assert!(from_variant(&Variant::Fd(Fd::from(OwnedFd::from(file)))).is_err());
    }
}
