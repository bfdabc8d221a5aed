//! Vectors on the bus.
//!
//! D-Bus has no type for numbers of 32 bits with a fraction. What is sent is `ay`, the numbers one
//! after the other in little-endian order, or, above [`INLINE_LEN_MAX_BYTES`], a memory file (`h`)
//! with the same bytes, sealed so that nobody changes it any more. What is taken is either of them,
//! or `ad`, which is what people write by hand.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use op_dbus_engine::ErrorKind;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zbus::wire::{Signature, Type, as_variant};
use zbus::{OwnedFd, OwnedVariant, Variant};

use crate::error::{BusError, Result};

/// The longest vectors that lie in the message itself.
pub const INLINE_LEN_MAX_BYTES: usize = 64 << 10;
/// The longest that are taken at all: a thousand texts' embeddings of the largest models.
pub const LEN_MAX_BYTES: u64 = 64 << 20;

const SEALS: SealFlags =
    SealFlags::WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::SEAL);

/// What a variant has of vectors, one after the other. Read and written without a value for each of
/// its elements, which would take a hundred times the room.
#[derive(Debug)]
pub enum Vectors {
    /// In the message itself, as f32 in little-endian order.
    Bytes(Vec<u8>),
    /// In a memory file beside it, in the same way.
    File(OwnedFd),
    /// As people write them.
    Numbers(Vec<f64>),
    /// Not themselves, but collection and key of the record that has one.
    OfRecord(String, String),
    /// Not themselves, but the text that they are made of.
    OfText(String),
    /// Of a type that stands for no vectors.
    Other,
}

impl Vectors {
    /// What is sent of vectors, one after the other.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if there is no memory file to be had.
    pub fn new(vectors: &[f32]) -> Result<Self> {
        let bytes: Vec<u8> = vectors.iter().flat_map(|number| number.to_le_bytes()).collect();
        if bytes.len() <= INLINE_LEN_MAX_BYTES {
            return Ok(Self::Bytes(bytes));
        }
        let file = sealed(&bytes).map_err(|error| {
            BusError::new(ErrorKind::Io, format!("cannot make a memory file: {error}"), "try again")
        })?;
        Ok(Self::File(file.into()))
    }

    /// Reads vectors that were sent.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if it is of another type, too long, or a file that is not sealed.
    pub fn read(&self) -> Result<Vec<f32>> {
        match self {
            Self::Bytes(bytes) => of_bytes(bytes),
            Self::File(file) => read_sealed(file),
            Self::Numbers(numbers) => Ok(numbers.iter().map(|number| *number as f32).collect()),
            Self::OfRecord(..) | Self::OfText(_) | Self::Other => {
                let remedy = "send ad, ay (f32 in little-endian order) or h (a sealed memory file)";
                Err(BusError::new(ErrorKind::Invalid, "a vector of an unknown type", remedy))
            }
        }
    }
}

impl Type for Vectors {
    const SIGNATURE: &'static Signature = &Signature::Variant;
}

impl Serialize for Vectors {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::Bytes(bytes) => as_variant::serialize(&Bytes(bytes), serializer),
            Self::File(file) => as_variant::serialize(file, serializer),
            Self::Numbers(numbers) => as_variant::serialize(numbers, serializer),
            Self::OfRecord(collection, key) => {
                as_variant::serialize(&(collection, key), serializer)
            }
            Self::OfText(text) => as_variant::serialize(text, serializer),
            Self::Other => Err(serde::ser::Error::custom("no vectors")),
        }
    }
}

impl<'de> Deserialize<'de> for Vectors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_struct("Variant", &["signature", "value"], VectorsVisitor)
    }
}

struct VectorsVisitor;

impl<'de> Visitor<'de> for VectorsVisitor {
    type Value = Vectors;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a variant")
    }

    fn visit_seq<A: SeqAccess<'de>>(
        self,
        mut variant: A,
    ) -> std::result::Result<Vectors, A::Error> {
        let missing = || serde::de::Error::invalid_length(1, &"a variant");
        let signature: Signature = variant.next_element()?.ok_or_else(missing)?;
        Ok(match signature.to_string().as_str() {
            "ay" => {
                let bytes: Bytes<'de> = variant.next_element()?.ok_or_else(missing)?;
                Vectors::Bytes(bytes.0.to_owned())
            }
            "h" => Vectors::File(variant.next_element()?.ok_or_else(missing)?),
            "ad" => Vectors::Numbers(variant.next_element()?.ok_or_else(missing)?),
            "(ss)" => {
                let (collection, key) = variant.next_element()?.ok_or_else(missing)?;
                Vectors::OfRecord(collection, key)
            }
            "s" => Vectors::OfText(variant.next_element()?.ok_or_else(missing)?),
            // One in another.
            "v" => variant.next_element()?.ok_or_else(missing)?,
            _ => {
                let _: IgnoredAny = variant.next_element()?.ok_or_else(missing)?;
                Vectors::Other
            }
        })
    }
}

/// Bytes that are one value, not one for each.
struct Bytes<'b>(&'b [u8]);

impl Type for Bytes<'_> {
    const SIGNATURE: &'static Signature = <[u8] as Type>::SIGNATURE;
}

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct BytesVisitor;
        impl<'de> Visitor<'de> for BytesVisitor {
            type Value = &'de [u8];

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_borrowed_bytes<E>(
                self,
                bytes: &'de [u8],
            ) -> std::result::Result<&'de [u8], E> {
                Ok(bytes)
            }
        }
        deserializer.deserialize_bytes(BytesVisitor).map(Self)
    }
}

/// Makes a value of vectors, for where they are one of many.
///
/// # Errors
/// [`ErrorKind::Io`] if there is no memory file to be had.
pub(crate) fn to_variant(vectors: &[f32]) -> Result<OwnedVariant> {
    let variant = match Vectors::new(vectors)? {
        Vectors::File(file) => Variant::Fd(std::os::fd::OwnedFd::from(file).into()),
        Vectors::Bytes(bytes) => Variant::from(bytes),
        _ => unreachable!("they are sent as bytes or as a file"),
    };
    OwnedVariant::try_from(variant)
        .map_err(|error| BusError::new(ErrorKind::Io, error.to_string(), "try again"))
}

fn sealed(bytes: &[u8]) -> std::io::Result<std::os::fd::OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(memfd_create("op-dbus vectors", flags)?);
    file.write_all(bytes)?;
    fcntl_add_seals(&file, SEALS)?;
    Ok(file.into())
}

/// Read, not mapped: nothing that its sender does to it can hurt whoever reads.
fn read_sealed(fd: &OwnedFd) -> Result<Vec<f32>> {
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

#[cfg(test)]
mod tests {
    use zbus::wire::serialized::{Context, Data};
    use zbus::wire::{LE, to_bytes};

    use super::*;

    fn over_the_bus(sent: &(impl Serialize + Type)) -> Vectors {
        let data: Data<'_, '_> = to_bytes(Context::new(LE, 0), sent).unwrap();
        let (vectors, read_bytes): (Vectors, usize) = data.deserialize().unwrap();
        // Whatever it was, nothing of it is left for what comes next.
        assert_eq!(read_bytes, data.len());
        vectors
    }

    #[test]
    fn vectors_come_back_in_the_message_and_beside_it() {
        for count in [0, 1, INLINE_LEN_MAX_BYTES / 4, INLINE_LEN_MAX_BYTES / 4 + 1] {
            let numbers: Vec<f32> = (0..count).map(|n| n as f32 / 3.0).collect();
            let vectors = Vectors::new(&numbers).unwrap();
            let is_beside = matches!(vectors, Vectors::File(_));
            assert_eq!(is_beside, count * 4 > INLINE_LEN_MAX_BYTES);
            assert_eq!(over_the_bus(&vectors).read().unwrap(), numbers);
            assert_eq!(over_the_bus(&to_variant(&numbers).unwrap()).read().unwrap(), numbers);
        }
        let by_hand = Variant::from(vec![0.5_f64, 2.0]);
        assert_eq!(over_the_bus(&by_hand).read().unwrap(), [0.5, 2.0]);
        let nested = Variant::Variant(Box::new(by_hand));
        assert_eq!(over_the_bus(&nested).read().unwrap(), [0.5, 2.0]);
        let record = over_the_bus(&Variant::from(("collection", "key")));
        assert!(
            matches!(record, Vectors::OfRecord(collection, key) if (&*collection, &*key) == ("collection", "key"))
        );
    }

    #[test]
    fn what_is_no_vector_is_refused() {
        let text = "text".to_owned();
        for other in [
            Variant::from(vec![1_u32]),
            Variant::from(("text", 1_u32)),
            Variant::from(std::collections::HashMap::from([("a", Variant::from(vec![""]))])),
            Variant::from(true),
        ] {
            assert!(matches!(over_the_bus(&other), Vectors::Other), "{other:?}");
        }
        assert!(Vectors::Other.read().is_err());
        let of_text = over_the_bus(&Variant::from(&text));
        assert!(matches!(of_text, Vectors::OfText(_)) && of_text.read().is_err());
        assert!(Vectors::OfRecord(text.clone(), text).read().is_err());
        assert!(Vectors::Bytes(vec![1, 2, 3]).read().is_err());
        let open = memfd_create("open", MemfdFlags::ALLOW_SEALING).unwrap();
        let problem = Vectors::File(open.into()).read().unwrap_err();
        assert!(problem.problem().contains("can still be changed"), "{problem:?}");
        let file = std::os::fd::OwnedFd::from(File::open("/dev/null").unwrap());
        assert!(Vectors::File(file.into()).read().is_err());
    }
}
