//! An embedding as it is stored.
//!
//! | offset | size | field | |
//! |---|---|---|---|
//! | 0 | 1 | marker | `E` |
//! | 1 | 1 | version | 1 |
//! | 2 | 1 | encoding | 1 f32, 2 f16, 3 i8 |
//! | 3 | 1 | packing | 1 plain, 2 planes |
//! | 4 | 4 | dimensions | 1 to 65536 |
//! | 8 | 8 | checksum | of a value ([`crate::header`]), magic `opdbEMBD` |
//! | 16 | 4 | scale | f32, only with i8 |
//! | | | elements | to the end |
//!
//! Plain elements are `dimensions` numbers of 4, 2 or 1 bytes. An i8 code from -127
//! to 127 stands for code times scale.
//!
//! Planes are byte planes, each compressed where that makes it shorter:
//!
//! | size | field | |
//! |---|---|---|
//! | 2 each | packed_len | of each plane: 0 if it is raw, else bytes of its zstd frame |
//! | | planes | raw, `dimensions` bytes, or one zstd frame; to the end |
//!
//! # When planes pay
//! For floats that are kept for long and read seldom, where nothing below compresses
//! them. Of normalised sentence embeddings of 384 dimensions, planes save 11.5 % with
//! f32 and 8.4 % with f16, and more with f32 whose values came from shorter floats
//! (40 % from f16). Decoding takes about ten times as long as from plain elements,
//! microseconds instead of tenths; encoding, fifty times. Codes of i8 are all noise:
//! planes have not saved a sixteenth of any of them, so they stay plain.
//!
//! Which bytes a plane compresses to is up to the version of zstd: of all formats of
//! this crate this packing alone may have several encodings of one value.

use std::fmt;
use std::mem::{offset_of, size_of};

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::FormatError;
use crate::header::{Magic, check, check_limit, check_value_start, too_short, value_checksum};

mod elements;
mod planes;

pub(crate) use elements::decode_f16;

/// Most dimensions that a vector may have.
pub const DIMENSIONS_MAX: usize = 65_536;

/// Magic of the format, which seeds the checksum.
pub const MAGIC: Magic = Magic(*b"opdbEMBD");
const MARKER: u8 = b'E';
const VERSION: u8 = 1;

/// Length of the header, whose last eight bytes are the checksum.
pub const HEADER_LEN_BYTES: usize = size_of::<RawEmbedding>();

const SCALE_LEN_BYTES: usize = size_of::<f32>();

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawEmbedding {
    marker: u8,
    version: u8,
    encoding: u8,
    packing: u8,
    dimensions: U32,
    checksum: U64,
}

const _: () = {
    assert!(size_of::<RawEmbedding>() == 16);
    assert!(offset_of!(RawEmbedding, encoding) == 2);
    assert!(offset_of!(RawEmbedding, packing) == 3);
    assert!(offset_of!(RawEmbedding, dimensions) == 4);
    assert!(offset_of!(RawEmbedding, checksum) == 8);
};

/// Key of the embedding of one text by one model in the embedding cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EmbeddingKey(pub u128);

impl fmt::Display for EmbeddingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// How the numbers of a vector are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Encoding {
    /// 32-bit floats: every bit comes back.
    F32 = 1,
    /// 16-bit floats: 11 significant bits, nothing above 65504.
    F16 = 2,
    /// 8-bit codes times one scale for the vector, its largest magnitude / 127.
    I8 = 3,
}

impl Encoding {
    /// All of them, the most exact first.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::I8];

    /// The name that people read and write.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::I8 => "i8",
        }
    }

    /// Length of one number.
    #[must_use]
    pub const fn element_len_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::I8 => 1,
        }
    }

    const fn scale_len_bytes(self) -> usize {
        match self {
            Self::F32 | Self::F16 => 0,
            Self::I8 => SCALE_LEN_BYTES,
        }
    }
}

impl TryFrom<u8> for Encoding {
    type Error = FormatError;

    fn try_from(tag: u8) -> Result<Self, FormatError> {
        match tag {
            1 => Ok(Self::F32),
            2 => Ok(Self::F16),
            3 => Ok(Self::I8),
            found => Err(FormatError::UnknownTag { what: "encoding", found }),
        }
    }
}

/// How the bytes of the numbers are arranged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Packing {
    /// Number after number.
    Plain = 1,
    /// Byte planes, compressed: smaller, slower to read.
    Planes = 2,
}

impl Packing {
    /// The name that people read and write.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Planes => "planes",
        }
    }
}

impl TryFrom<u8> for Packing {
    type Error = FormatError;

    fn try_from(tag: u8) -> Result<Self, FormatError> {
        match tag {
            1 => Ok(Self::Plain),
            2 => Ok(Self::Planes),
            found => Err(FormatError::UnknownTag { what: "packing", found }),
        }
    }
}

/// Returns the bytes of `vector`.
///
/// [`Packing::Planes`] is a wish: if planes do not save a sixteenth of the elements,
/// the vector is stored plain and says so.
///
/// Shapes: `vector` is `[dimensions]`, 1 to [`DIMENSIONS_MAX`].
///
/// # Errors
/// [`FormatError::Empty`], [`FormatError::TooLarge`], [`FormatError::NotFinite`], or
/// [`FormatError::NotRepresentable`] for a number above the largest of
/// [`Encoding::F16`].
pub fn encode(
    vector: &[f32],
    encoding: Encoding,
    packing: Packing,
) -> Result<Vec<u8>, FormatError> {
    check_finite(vector)?;
    let mut bytes = Vec::with_capacity(plain_len_bytes(vector.len(), encoding));
    encode_finite_to(vector, encoding, packing, &mut bytes)?;
    Ok(bytes)
}

/// As [`encode`], in place of what a buffer holds, and of a vector that [`check_finite`] has found
/// to be one: for who encodes many.
///
/// # Errors
/// As [`encode`], without [`FormatError::NotFinite`]; what the buffer holds then is unspecified.
pub fn encode_finite_to(
    vector: &[f32],
    encoding: Encoding,
    packing: Packing,
    bytes: &mut Vec<u8>,
) -> Result<(), FormatError> {
    check_dimensions(vector.len())?;
    debug_assert!(check_finite(vector).is_ok(), "a vector that was not checked");
    let elements_at = HEADER_LEN_BYTES + encoding.scale_len_bytes();
    bytes.clear();
    bytes.resize(HEADER_LEN_BYTES, 0);
    elements::push(vector, encoding, bytes)?;
    let mut packing_used = Packing::Plain;
    if packing == Packing::Planes {
        let elements = &bytes[elements_at..];
        if let Some(packed) = planes::pack(elements, encoding.element_len_bytes()) {
            bytes.truncate(elements_at);
            bytes.extend_from_slice(&packed);
            packing_used = Packing::Planes;
        }
    }
    let mut raw = RawEmbedding {
        marker: MARKER,
        version: VERSION,
        encoding: encoding as u8,
        packing: packing_used as u8,
        dimensions: (vector.len() as u32).into(),
        checksum: 0.into(),
    };
    raw.checksum = raw.checksum_with(&bytes[HEADER_LEN_BYTES..]).into();
    bytes[..HEADER_LEN_BYTES].copy_from_slice(raw.as_bytes());
    Ok(())
}

/// Length of what [`encode`] makes of a vector with [`Packing::Plain`].
#[must_use]
pub const fn plain_len_bytes(dimensions: usize, encoding: Encoding) -> usize {
    HEADER_LEN_BYTES + encoding.scale_len_bytes() + dimensions * encoding.element_len_bytes()
}

/// A stored embedding, checked and not yet decoded.
#[derive(Clone, Copy, Debug)]
pub struct EncodedEmbedding<'a> {
    encoding: Encoding,
    packing: Packing,
    dimensions: usize,
    /// Of the codes, with [`Encoding::I8`]; otherwise 1.
    scale: f32,
    elements: &'a [u8],
}

impl<'a> EncodedEmbedding<'a> {
    /// Checks the bytes of an embedding.
    ///
    /// # Errors
    /// Says what is wrong with the bytes. What only shows in decoding, damage inside
    /// a compressed plane and numbers that are not finite, is left to the decoding.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let (raw, body) =
            RawEmbedding::ref_from_prefix(bytes).map_err(|_| too_short(HEADER_LEN_BYTES, bytes))?;
        check_value_start("marker of an embedding", (MARKER, raw.marker), raw.version, VERSION)?;
        check(raw.checksum.get(), raw.checksum_with(body))?;
        let encoding = Encoding::try_from(raw.encoding)?;
        let packing = Packing::try_from(raw.packing)?;
        let dimensions = raw.dimensions.get() as usize;
        check_dimensions(dimensions)?;
        let (scale, elements) = match encoding {
            Encoding::F32 | Encoding::F16 => (1.0, body),
            Encoding::I8 => {
                let (scale, codes) = body
                    .split_first_chunk::<SCALE_LEN_BYTES>()
                    .ok_or_else(|| too_short(HEADER_LEN_BYTES + SCALE_LEN_BYTES, bytes))?;
                (elements::check_scale(f32::from_le_bytes(*scale))?, codes)
            }
        };
        match packing {
            Packing::Plain => {
                check_len(elements, dimensions * encoding.element_len_bytes())?;
            }
            Packing::Planes => {
                planes::check(elements, dimensions, encoding.element_len_bytes())?;
            }
        }
        Ok(Self { encoding, packing, dimensions, scale, elements })
    }

    /// Length of the vector.
    #[must_use]
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// How the numbers are stored.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// How their bytes are arranged.
    #[must_use]
    pub fn packing(&self) -> Packing {
        self.packing
    }

    /// Decodes into a vector of the caller.
    ///
    /// Shapes: `vector` is `[dimensions]`. After an error its contents are unspecified.
    ///
    /// # Errors
    /// [`FormatError::Mismatch`] if `vector` has another length; otherwise the bytes
    /// were not made by [`encode`].
    pub fn decode_into(&self, vector: &mut [f32]) -> Result<(), FormatError> {
        if vector.len() != self.dimensions {
            return Err(FormatError::Mismatch {
                what: "number of dimensions",
                expected: vector.len() as u64,
                found: self.dimensions as u64,
            });
        }
        match self.packing {
            Packing::Plain => elements::decode(self.elements, self.encoding, self.scale, vector),
            Packing::Planes => {
                let element_len = self.encoding.element_len_bytes();
                let elements = planes::unpack(self.elements, self.dimensions, element_len)?;
                elements::decode(&elements, self.encoding, self.scale, vector)
            }
        }
    }

    /// Decodes into a new vector.
    ///
    /// # Errors
    /// As [`decode_into`](Self::decode_into), without a mismatch.
    pub fn to_vec(&self) -> Result<Vec<f32>, FormatError> {
        let mut vector = vec![0.0; self.dimensions];
        self.decode_into(&mut vector)?;
        Ok(vector)
    }
}

impl RawEmbedding {
    fn checksum_with(&self, body: &[u8]) -> u64 {
        value_checksum(MAGIC, &self.as_bytes()[..offset_of!(Self, checksum)], body)
    }
}

/// Checks that a vector may have so many dimensions.
pub(crate) fn check_dimensions(dimensions: usize) -> Result<(), FormatError> {
    if dimensions == 0 {
        return Err(FormatError::Empty { what: "vector" });
    }
    check_limit("number of dimensions", dimensions, DIMENSIONS_MAX)
}

/// Checks that every number of `vector` is finite.
///
/// # Errors
/// [`FormatError::NotFinite`] with the first that is not.
pub fn check_finite(vector: &[f32]) -> Result<(), FormatError> {
    // A number that is finite times zero is a zero; others, and what they are added to, are no
    // number. A loop that ends early, or that asks each number, is not made vector code.
    const LANES_COUNT: usize = 16;
    let (blocks, rest) = vector.as_chunks::<LANES_COUNT>();
    let mut sums = [0.0_f32; LANES_COUNT];
    for block in blocks {
        for (sum, number) in sums.iter_mut().zip(block) {
            *sum += number * 0.0;
        }
    }
    if sums.iter().chain(rest).all(|number| number.is_finite()) {
        return Ok(());
    }
    let index = vector.iter().position(|number| !number.is_finite()).unwrap_or_default();
    Err(FormatError::NotFinite { index: index as u64 })
}

fn check_len(elements: &[u8], expected: usize) -> Result<(), FormatError> {
    if elements.len() != expected {
        return Err(FormatError::Mismatch {
            what: "length of the elements in bytes",
            expected: expected as u64,
            found: elements.len() as u64,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENCODINGS: [Encoding; 3] = [Encoding::F32, Encoding::F16, Encoding::I8];

    fn altered(bytes: &[u8], change: impl FnOnce(&mut RawEmbedding, &mut Vec<u8>)) -> Vec<u8> {
        let (head, body) = bytes.split_at(HEADER_LEN_BYTES);
        let mut raw = RawEmbedding::read_from_bytes(head).unwrap();
        let mut body = body.to_vec();
        change(&mut raw, &mut body);
        raw.checksum = raw.checksum_with(&body).into();
        [raw.as_bytes(), &body].concat()
    }

    fn smooth(dimensions: usize) -> Vec<f32> {
        (0..dimensions).map(|index| 0.05 * ((index * index) as f32).sin()).collect()
    }

    #[test]
    fn f32_keeps_every_bit() {
        let vector =
            [0.0, -0.0, 1.0e-45, f32::MIN_POSITIVE, f32::MAX, f32::MIN, std::f32::consts::PI];
        for packing in [Packing::Plain, Packing::Planes] {
            let bytes = encode(&vector, Encoding::F32, packing).unwrap();
            let decoded = EncodedEmbedding::parse(&bytes).unwrap().to_vec().unwrap();
            let bits = |vector: &[f32]| vector.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&decoded), bits(&vector));
        }
    }

    #[test]
    fn planes_are_kept_only_where_they_are_smaller() {
        let vector = smooth(384);
        let plain = encode(&vector, Encoding::F32, Packing::Plain).unwrap();
        let packed = encode(&vector, Encoding::F32, Packing::Planes).unwrap();
        let parsed = EncodedEmbedding::parse(&packed).unwrap();
        assert_eq!(parsed.packing(), Packing::Planes);
        assert!(packed.len() <= plain.len() - plain.len() / 16, "{}", packed.len());
        assert_eq!(parsed.to_vec().unwrap(), vector);
        // Three numbers are shorter than any compressed frame.
        let short = encode(&vector[..3], Encoding::F32, Packing::Planes).unwrap();
        assert_eq!(EncodedEmbedding::parse(&short).unwrap().packing(), Packing::Plain);
    }

    #[test]
    fn what_is_lost_is_bounded() {
        let vector = smooth(1000);
        let largest = vector.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        for packing in [Packing::Plain, Packing::Planes] {
            let decode = |encoding| {
                let bytes = encode(&vector, encoding, packing).unwrap();
                EncodedEmbedding::parse(&bytes).unwrap().to_vec().unwrap()
            };
            for (half, number) in decode(Encoding::F16).iter().zip(&vector) {
                // Half a unit in the last of 11 places, or of the smallest subnormal.
                let bound = (number.abs() * 2.0_f32.powi(-11)).max(2.0_f32.powi(-25));
                assert!((half - number).abs() <= bound, "{half} {number}");
            }
            for (coded, number) in decode(Encoding::I8).iter().zip(&vector) {
                assert!((coded - number).abs() <= largest / 127.0 * 0.500_001);
            }
        }
    }

    #[test]
    fn extreme_vectors_become_codes_and_come_back_finite() {
        for vector in [[0.0, 0.0], [1.0e-45, 0.0], [f32::MAX, f32::MIN], [f32::MAX, 1.0e-45]] {
            let bytes = encode(&vector, Encoding::I8, Packing::Plain).unwrap();
            let decoded = EncodedEmbedding::parse(&bytes).unwrap().to_vec().unwrap();
            for (coded, number) in decoded.iter().zip(vector) {
                assert!(coded.is_finite());
                // A scale below the normal numbers has few bits or none.
                let bound = (vector[0] / 127.0).max(f32::MIN_POSITIVE);
                assert!((coded - number).abs() <= bound, "{coded} {number}");
            }
        }
    }

    #[test]
    fn what_is_no_vector_is_refused() {
        for encoding in ENCODINGS {
            let refuse = |vector: &[f32]| encode(vector, encoding, Packing::Plain).unwrap_err();
            assert_eq!(refuse(&[]), FormatError::Empty { what: "vector" });
            assert_eq!(refuse(&[0.0, f32::NAN]), FormatError::NotFinite { index: 1 });
            assert_eq!(refuse(&[f32::NEG_INFINITY]), FormatError::NotFinite { index: 0 });
            assert!(matches!(
                refuse(&vec![0.0; DIMENSIONS_MAX + 1]),
                FormatError::TooLarge { found: 65_537, limit: 65_536, .. }
            ));
            assert!(encode(&vec![0.0; DIMENSIONS_MAX], encoding, Packing::Planes).is_ok());
            let plain = encode(&smooth(7), encoding, Packing::Plain).unwrap();
            assert_eq!(plain.len(), plain_len_bytes(7, encoding));
            let mut reused = vec![1; 1_000];
            encode_finite_to(&smooth(7), encoding, Packing::Plain, &mut reused).unwrap();
            assert_eq!(reused, plain);
        }
        let mut large = vec![0.0; 70];
        large[69] = 65_520.0;
        assert_eq!(
            encode(&large, Encoding::F16, Packing::Plain),
            Err(FormatError::NotRepresentable { index: 69, encoding: "f16" })
        );
        large[69] = 65_504.0;
        assert!(encode(&large, Encoding::F16, Packing::Plain).is_ok());
    }

    #[test]
    fn a_wrong_field_is_named_even_when_the_checksum_is_right() {
        let plain = encode(&smooth(8), Encoding::F32, Packing::Plain).unwrap();
        let error = |bytes: Vec<u8>| match EncodedEmbedding::parse(&bytes) {
            Ok(parsed) => parsed.to_vec().unwrap_err(),
            Err(error) => error,
        };
        for found in [0, 4, 255] {
            assert_eq!(
                error(altered(&plain, |raw, _| raw.encoding = found)),
                FormatError::UnknownTag { what: "encoding", found }
            );
        }
        for found in [0, 3] {
            assert_eq!(
                error(altered(&plain, |raw, _| raw.packing = found)),
                FormatError::UnknownTag { what: "packing", found }
            );
        }
        assert_eq!(
            error(altered(&plain, |raw, _| raw.dimensions = 9.into())),
            FormatError::Mismatch {
                what: "length of the elements in bytes",
                expected: 36,
                found: 32
            }
        );
        assert_eq!(
            error(altered(&plain, |_, body| body[4..8].copy_from_slice(&[0, 0, 0xC0, 0x7F]))),
            FormatError::NotFinite { index: 1 }
        );
        let coded = encode(&smooth(8), Encoding::I8, Packing::Plain).unwrap();
        assert_eq!(
            error(altered(&coded, |_, body| body[11] = 0x80)),
            FormatError::UnknownTag { what: "i8 code", found: 0x80 }
        );
        for scale in [f32::NAN, f32::INFINITY, -1.0, -0.0, f32::MAX] {
            assert_eq!(
                error(altered(&coded, |_, body| body[..4].copy_from_slice(&scale.to_le_bytes()))),
                FormatError::InvalidScale { found_bits: scale.to_bits() }
            );
        }
        assert_eq!(
            error(altered(&coded, |_, body| body.truncate(3))),
            FormatError::TooShort { needed: 20, given: 19 }
        );
    }

    #[test]
    fn a_vector_of_another_length_is_not_filled() {
        let bytes = encode(&[1.0, 2.0], Encoding::F32, Packing::Plain).unwrap();
        let parsed = EncodedEmbedding::parse(&bytes).unwrap();
        assert_eq!(
            parsed.decode_into(&mut [0.0; 3]),
            Err(FormatError::Mismatch { what: "number of dimensions", expected: 3, found: 2 })
        );
    }
}
