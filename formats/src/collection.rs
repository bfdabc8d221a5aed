//! What a collection is: its name, its embedding space and how vectors are stored.
//!
//! | offset | size | field | |
//! |---|---|---|---|
//! | 0 | 1 | marker | `K` |
//! | 1 | 1 | version | 1 or 2 |
//! | 2 | 1 | metric | 1 cosine, 2 dot, 3 euclidean |
//! | 3 | 1 | encoding | 1 f32, 2 f16, 3 i8 |
//! | 4 | 1 | model_tag | 1 no model, 2 model in `model` |
//! | 5 | 1 | reserved | 0 |
//! | 6 | 2 | versions_kept | of each record; 0 in version 1 |
//! | 8 | 4 | id | identity of the collection |
//! | 12 | 4 | dimensions | 1 to 65536; in version 2 also 0, with metric 1, encoding 1 and no model |
//! | 16 | 8 | created_unix_ms | milliseconds since 1970-01-01 UTC |
//! | 24 | 16 | model | fingerprint, or 0 without a model |
//! | 40 | 8 | checksum | of a value ([`crate::header`]), magic `opdbCOLL` |
//!
//! Version 2 is written only for what version 1 cannot say: versions that are kept, and
//! a collection that has no embedding space yet.
//!
//! The name is the key under which the value is stored and is not repeated in it.

use std::fmt;
use std::mem::{offset_of, size_of};
use std::str::FromStr;

use thiserror::Error;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::embedding::check_dimensions;
use crate::header::{Magic, check, check_oldest, check_value_start, too_short, value_checksum};
use crate::{Encoding, FormatError};

/// Magic of the format, which seeds the checksum.
pub const MAGIC: Magic = Magic(*b"opdbCOLL");
const MARKER: u8 = b'K';
const VERSION: u8 = 2;
const MODEL_NONE: u8 = 1;
const MODEL_SOME: u8 = 2;

/// Length of an encoded [`CollectionSpec`].
pub const COLLECTION_SPEC_LEN_BYTES: usize = size_of::<RawCollection>();

/// Longest name of a collection.
pub const COLLECTION_NAME_LEN_MAX_BYTES: usize = 64;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawCollection {
    marker: u8,
    version: u8,
    metric: u8,
    encoding: u8,
    model_tag: u8,
    reserved: u8,
    versions_kept: U16,
    id: U32,
    dimensions: U32,
    created_unix_ms: U64,
    model: [u8; 16],
    checksum: U64,
}

const _: () = {
    assert!(size_of::<RawCollection>() == 48);
    assert!(offset_of!(RawCollection, metric) == 2);
    assert!(offset_of!(RawCollection, encoding) == 3);
    assert!(offset_of!(RawCollection, model_tag) == 4);
    assert!(offset_of!(RawCollection, reserved) == 5);
    assert!(offset_of!(RawCollection, versions_kept) == 6);
    assert!(offset_of!(RawCollection, id) == 8);
    assert!(offset_of!(RawCollection, dimensions) == 12);
    assert!(offset_of!(RawCollection, created_unix_ms) == 16);
    assert!(offset_of!(RawCollection, model) == 24);
    assert!(offset_of!(RawCollection, checksum) == 40);
};

/// Identity of a collection within its store; never used again after a removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CollectionId(pub u32);

impl fmt::Display for CollectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How near two vectors are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Metric {
    /// By the angle between them.
    Cosine = 1,
    /// By their dot product, larger is nearer.
    Dot = 2,
    /// By the distance between their ends.
    Euclidean = 3,
}

impl Metric {
    /// The name that people read and write.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::Dot => "dot",
            Self::Euclidean => "euclidean",
        }
    }
}

impl TryFrom<u8> for Metric {
    type Error = FormatError;

    fn try_from(tag: u8) -> Result<Self, FormatError> {
        match tag {
            1 => Ok(Self::Cosine),
            2 => Ok(Self::Dot),
            3 => Ok(Self::Euclidean),
            found => Err(FormatError::UnknownTag { what: "metric", found }),
        }
    }
}

/// Which model, with which tokenizer and pooling, made an embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ModelFingerprint(pub [u8; 16]);

impl fmt::Display for ModelFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// What a collection is, apart from its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CollectionSpec {
    /// Identity within the store.
    pub id: CollectionId,
    /// Length of every vector of the collection; 0 while it has no embedding space.
    pub dimensions: u32,
    /// How near two of them are.
    pub metric: Metric,
    /// How they are stored.
    pub encoding: Encoding,
    /// The model that embeds texts, or none if all vectors are given by callers.
    pub model: Option<ModelFingerprint>,
    /// When the collection was created, in milliseconds since 1970-01-01 UTC.
    pub created_unix_ms: u64,
    /// How many versions of each record are kept, the newest among them; 0 for no history.
    pub versions_kept: u16,
}

impl CollectionSpec {
    /// Whether records of the collection can have vectors.
    #[must_use]
    pub const fn has_space(&self) -> bool {
        self.dimensions > 0
    }

    /// The oldest version that can say this.
    const fn version(&self) -> u8 {
        if self.versions_kept > 0 || !self.has_space() { 2 } else { 1 }
    }

    fn check_space(&self) -> Result<(), FormatError> {
        let default = (Metric::Cosine, Encoding::F32, None);
        if !self.has_space() && (self.metric, self.encoding, self.model) == default {
            return Ok(());
        }
        check_dimensions(self.dimensions as usize)
    }

    /// Returns the bytes of the value.
    ///
    /// # Errors
    /// [`FormatError::Empty`] or [`FormatError::TooLarge`] if there can be no vectors
    /// of so many dimensions.
    pub fn encode(&self) -> Result<[u8; COLLECTION_SPEC_LEN_BYTES], FormatError> {
        self.check_space()?;
        let mut raw = RawCollection {
            marker: MARKER,
            version: self.version(),
            metric: self.metric as u8,
            encoding: self.encoding as u8,
            model_tag: if self.model.is_some() { MODEL_SOME } else { MODEL_NONE },
            reserved: 0,
            versions_kept: self.versions_kept.into(),
            id: self.id.0.into(),
            dimensions: self.dimensions.into(),
            created_unix_ms: self.created_unix_ms.into(),
            model: self.model.map_or([0; 16], |model| model.0),
            checksum: 0.into(),
        };
        raw.checksum = raw.checksum_now().into();
        Ok(zerocopy::transmute!(raw))
    }

    /// Decodes a value.
    ///
    /// # Errors
    /// Says what is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (raw, rest) = RawCollection::ref_from_prefix(bytes)
            .map_err(|_| too_short(COLLECTION_SPEC_LEN_BYTES, bytes))?;
        if !rest.is_empty() {
            return Err(FormatError::TrailingBytes { count: rest.len() as u64 });
        }
        check_value_start("marker of a collection", (MARKER, raw.marker), raw.version, VERSION)?;
        check(raw.checksum.get(), raw.checksum_now())?;
        if raw.reserved != 0 {
            let offset = offset_of!(RawCollection, reserved) as u64;
            return Err(FormatError::NonZeroReserved { offset });
        }
        let spec = Self {
            id: CollectionId(raw.id.get()),
            dimensions: raw.dimensions.get(),
            metric: raw.metric.try_into()?,
            encoding: raw.encoding.try_into()?,
            model: raw.model()?,
            created_unix_ms: raw.created_unix_ms.get(),
            versions_kept: raw.versions_kept.get(),
        };
        spec.check_space()?;
        check_oldest("version of a collection", raw.version, spec.version())?;
        Ok(spec)
    }
}

impl RawCollection {
    fn checksum_now(&self) -> u64 {
        value_checksum(MAGIC, &self.as_bytes()[..offset_of!(Self, checksum)], &[])
    }

    fn model(&self) -> Result<Option<ModelFingerprint>, FormatError> {
        match self.model_tag {
            MODEL_NONE if self.model != [0; 16] => {
                Err(FormatError::NonZeroReserved { offset: offset_of!(Self, model) as u64 })
            }
            MODEL_NONE => Ok(None),
            MODEL_SOME => Ok(Some(ModelFingerprint(self.model))),
            found => Err(FormatError::UnknownTag { what: "model tag", found }),
        }
    }
}

/// Name of a collection.
///
/// It has 1 to 64 characters, begins with a letter from a to z and goes on with
/// letters from a to z, digits, `_` and `-`. Valid: `notes`, `dbus-methods`,
/// `state_2`. Invalid: the empty name, `2state`, `Notes`, `a/b`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CollectionName(String);

impl CollectionName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn check(name: &str) -> Result<(), CollectionNameProblem> {
        if name.len() > COLLECTION_NAME_LEN_MAX_BYTES {
            return Err(CollectionNameProblem::TooLong { len_bytes: name.len() });
        }
        let Some(first) = name.chars().next() else { return Err(CollectionNameProblem::Empty) };
        if !first.is_ascii_lowercase() {
            return Err(CollectionNameProblem::Start { found: first });
        }
        let allowed = |character: char| {
            character.is_ascii_lowercase()
                || character.is_ascii_digit()
                || matches!(character, '_' | '-')
        };
        match name.chars().find(|&character| !allowed(character)) {
            Some(found) => Err(CollectionNameProblem::Character { found }),
            None => Ok(()),
        }
    }
}

impl TryFrom<String> for CollectionName {
    type Error = CollectionNameError;

    fn try_from(name: String) -> Result<Self, CollectionNameError> {
        match Self::check(&name) {
            Ok(()) => Ok(Self(name)),
            Err(problem) => Err(CollectionNameError::new(&name, problem)),
        }
    }
}

impl FromStr for CollectionName {
    type Err = CollectionNameError;

    fn from_str(name: &str) -> Result<Self, CollectionNameError> {
        Self::check(name).map_err(|problem| CollectionNameError::new(name, problem))?;
        Ok(Self(name.to_owned()))
    }
}

impl AsRef<str> for CollectionName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CollectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Why a name cannot be the name of a collection.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "\"{name}\" cannot name a collection: {problem}; a name has 1 to 64 characters, begins with \
     a letter from a to z and goes on with letters from a to z, digits, _ and -"
)]
pub struct CollectionNameError {
    /// The name as given, cut after 64 characters.
    pub name: String,
    /// What is wrong with it.
    pub problem: CollectionNameProblem,
}

impl CollectionNameError {
    fn new(name: &str, problem: CollectionNameProblem) -> Self {
        let mut shown: String =
            name.chars().take(COLLECTION_NAME_LEN_MAX_BYTES).flat_map(char::escape_debug).collect();
        if name.chars().nth(COLLECTION_NAME_LEN_MAX_BYTES).is_some() {
            shown.push('…');
        }
        Self { name: shown, problem }
    }
}

/// What is wrong with the name of a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CollectionNameProblem {
    /// There is none.
    #[error("it is empty")]
    Empty,
    /// It has too many bytes.
    #[error("it has {len_bytes} bytes")]
    TooLong {
        /// Its length.
        len_bytes: usize,
    },
    /// It does not begin with a letter from a to z.
    #[error("it begins with {found:?}")]
    Start {
        /// The first character.
        found: char,
    },
    /// It has a character that no name may have.
    #[error("it has the character {found:?}")]
    Character {
        /// The first such character.
        found: char,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: CollectionSpec = CollectionSpec {
        id: CollectionId(7),
        dimensions: 384,
        metric: Metric::Cosine,
        encoding: Encoding::F16,
        model: None,
        created_unix_ms: 1_700_000_000_000,
        versions_kept: 0,
    };

    fn altered(change: impl FnOnce(&mut RawCollection)) -> Vec<u8> {
        let mut raw = RawCollection::read_from_bytes(&SPEC.encode().unwrap()).unwrap();
        change(&mut raw);
        raw.checksum = raw.checksum_now().into();
        raw.as_bytes().to_vec()
    }

    #[test]
    fn a_wrong_field_is_named_even_when_the_checksum_is_right() {
        let error = |bytes: Vec<u8>| CollectionSpec::decode(&bytes).unwrap_err();
        for found in [0, 4, 255] {
            assert_eq!(
                error(altered(|raw| raw.metric = found)),
                FormatError::UnknownTag { what: "metric", found }
            );
            assert_eq!(
                error(altered(|raw| raw.encoding = found)),
                FormatError::UnknownTag { what: "encoding", found }
            );
            assert_eq!(
                error(altered(|raw| raw.model_tag = found)),
                FormatError::UnknownTag { what: "model tag", found }
            );
        }
        assert_eq!(
            error(altered(|raw| raw.reserved = 1)),
            FormatError::NonZeroReserved { offset: 5 }
        );
        assert_eq!(
            error(altered(|raw| raw.model[0] = 1)),
            FormatError::NonZeroReserved { offset: 24 }
        );
        assert_eq!(
            error(altered(|raw| raw.dimensions = 0.into())),
            FormatError::Empty { what: "vector" }
        );
        assert!(matches!(
            error(altered(|raw| raw.dimensions = 65_537.into())),
            FormatError::TooLarge { found: 65_537, limit: 65_536, .. }
        ));
    }

    #[test]
    fn each_version_says_what_the_one_before_cannot() {
        let documents = CollectionSpec { dimensions: 0, encoding: Encoding::F32, ..SPEC };
        let versioned = CollectionSpec { versions_kept: 10, ..SPEC };
        for (spec, version) in [(SPEC, 1), (documents, 2), (versioned, 2)] {
            let bytes = spec.encode().unwrap();
            assert_eq!((bytes[1], CollectionSpec::decode(&bytes)), (version, Ok(spec)));
        }
        let mismatch = |expected, found| {
            Err(FormatError::Mismatch { what: "version of a collection", expected, found })
        };
        assert_eq!(CollectionSpec::decode(&altered(|raw| raw.version = 2)), mismatch(1, 2));
        let kept = |raw: &mut RawCollection| raw.versions_kept = 1.into();
        assert_eq!(CollectionSpec::decode(&altered(kept)), mismatch(2, 1));
    }

    #[test]
    fn a_model_of_zeros_is_a_model() {
        let spec = CollectionSpec { model: Some(ModelFingerprint([0; 16])), ..SPEC };
        assert_eq!(CollectionSpec::decode(&spec.encode().unwrap()), Ok(spec));
    }

    #[test]
    fn names_follow_the_rule() {
        let longest = "a".repeat(64);
        for name in ["a", "notes", "dbus-methods", "state_2", &longest] {
            assert_eq!(name.parse::<CollectionName>().unwrap().as_str(), name);
        }
        let too_long = "a".repeat(65);
        let cases = [
            ("", CollectionNameProblem::Empty),
            (too_long.as_str(), CollectionNameProblem::TooLong { len_bytes: 65 }),
            ("2state", CollectionNameProblem::Start { found: '2' }),
            ("-x", CollectionNameProblem::Start { found: '-' }),
            ("Notes", CollectionNameProblem::Start { found: 'N' }),
            ("a/b", CollectionNameProblem::Character { found: '/' }),
            ("größe", CollectionNameProblem::Character { found: 'ö' }),
            ("a\0", CollectionNameProblem::Character { found: '\0' }),
        ];
        for (name, problem) in cases {
            assert_eq!(name.parse::<CollectionName>().unwrap_err().problem, problem, "{name:?}");
        }
        let error = "a\n".parse::<CollectionName>().unwrap_err().to_string();
        assert!(error.starts_with(r#""a\n" cannot name a collection: it has"#), "{error}");
        assert!(error.ends_with("digits, _ and -"), "{error}");
    }
}
