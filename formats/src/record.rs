//! A record: what is stored under a key of a collection.
//!
//! | offset | size | field | |
//! |---|---|---|---|
//! | 0 | 1 | marker | `R` |
//! | 1 | 1 | version | 2 for a document, 1 otherwise |
//! | 2 | 1 | payload_tag | 1 none, 2 JSON, 3 bytes; in version 2: 4 document |
//! | 3 | 1 | embedding_tag | 1 none, 2 of the text, 3 given |
//! | 4 | 1 | text_tag | 1 none, 2 text |
//! | 5 | 1 | expiry_tag | 1 never, 2 at `expires_at_unix_ms` |
//! | 6 | 2 | reserved | 0 |
//! | 8 | 4 | text_len | bytes, 0 without text |
//! | 12 | 4 | payload_len | bytes, 0 without payload |
//! | 16 | 8 | expires_at_unix_ms | or 0 |
//! | 24 | 16 | embedding_key | 0; what stands here with embedding_tag 2 is not read |
//! | 40 | 8 | checksum | of a value ([`crate::header`]), magic `opdbRECD` |
//! | 48 | text_len | text | UTF-8 |
//! | | payload_len | payload | |
//!
//! A JSON payload over [`JSON_TEXT_LEN_MAX_BYTES`] is stored as a
//! [`document`], unless its text would then not come back in every byte.
//! Readers do not notice: they get JSON.
//!
//! That a JSON payload is JSON is for whoever accepts it to check, once: decoding
//! checks only that it is UTF-8, because the checksum says that it is what was stored.

use std::borrow::Cow;
use std::mem::{offset_of, size_of};

use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::header::{
    Magic, check, check_limit, check_oldest, check_value_start, too_short, value_checksum,
};
use crate::{FormatError, document};

/// Longest key of a record.
pub const KEY_LEN_MAX_BYTES: usize = 4096;

/// Longest text of a record.
pub const TEXT_LEN_MAX_BYTES: usize = 1 << 20;

/// Longest payload of a record.
pub const PAYLOAD_LEN_MAX_BYTES: usize = 16 << 20;

/// Deepest nesting of a JSON payload: what JSON parsers commonly take.
pub const PAYLOAD_DEPTH_MAX: usize = 128;

/// Longest JSON payload that is always stored as the text that it is.
pub const JSON_TEXT_LEN_MAX_BYTES: usize = 1 << 20;

/// Magic of the format, which seeds the checksum.
pub const MAGIC: Magic = Magic(*b"opdbRECD");
const MARKER: u8 = b'R';
const VERSION: u8 = 2;

/// Length of the header, whose last eight bytes are the checksum.
pub const HEADER_LEN_BYTES: usize = size_of::<RawRecord>();

const NONE: u8 = 1;
const TEXT: u8 = 2;
const EXPIRES: u8 = 2;
const PAYLOAD_JSON: u8 = 2;
const PAYLOAD_BYTES: u8 = 3;
const PAYLOAD_DOCUMENT: u8 = 4;
const EMBEDDING_OF_TEXT: u8 = 2;
const EMBEDDING_GIVEN: u8 = 3;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawRecord {
    marker: u8,
    version: u8,
    payload_tag: u8,
    embedding_tag: u8,
    text_tag: u8,
    expiry_tag: u8,
    reserved: U16,
    text_len: U32,
    payload_len: U32,
    expires_at_unix_ms: U64,
    embedding_key: U128,
    checksum: U64,
}

const _: () = {
    assert!(size_of::<RawRecord>() == 48);
    assert!(offset_of!(RawRecord, payload_tag) == 2);
    assert!(offset_of!(RawRecord, embedding_tag) == 3);
    assert!(offset_of!(RawRecord, text_tag) == 4);
    assert!(offset_of!(RawRecord, expiry_tag) == 5);
    assert!(offset_of!(RawRecord, reserved) == 6);
    assert!(offset_of!(RawRecord, text_len) == 8);
    assert!(offset_of!(RawRecord, payload_len) == 12);
    assert!(offset_of!(RawRecord, expires_at_unix_ms) == 16);
    assert!(offset_of!(RawRecord, embedding_key) == 24);
    assert!(offset_of!(RawRecord, checksum) == 40);
    // The length fields hold every allowed length.
    assert!(TEXT_LEN_MAX_BYTES <= u32::MAX as usize);
    assert!(PAYLOAD_LEN_MAX_BYTES <= u32::MAX as usize);
};

/// What a record carries for its reader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Payload<'a> {
    /// Nothing.
    #[default]
    None,
    /// A JSON value, as it was written.
    Json(Cow<'a, str>),
    /// Bytes of any kind.
    Bytes(Cow<'a, [u8]>),
}

impl Payload<'_> {
    /// Copies what is borrowed.
    #[must_use]
    pub fn into_owned(self) -> Payload<'static> {
        match self {
            Self::None => Payload::None,
            Self::Json(json) => Payload::Json(json.into_owned().into()),
            Self::Bytes(bytes) => Payload::Bytes(bytes.into_owned().into()),
        }
    }

    /// Checks that the payload is not too long to be stored.
    ///
    /// # Errors
    /// [`FormatError::TooLarge`] if it is over [`PAYLOAD_LEN_MAX_BYTES`].
    pub fn check_len(&self) -> Result<(), FormatError> {
        check_limit("payload length in bytes", self.as_bytes().len(), PAYLOAD_LEN_MAX_BYTES)
    }

    /// Checks that a payload of valid JSON is not nested too deep to be read by everybody.
    ///
    /// # Errors
    /// [`FormatError::TooLarge`] if it is deeper than [`PAYLOAD_DEPTH_MAX`].
    pub fn check_depth(&self) -> Result<(), FormatError> {
        let Self::Json(json) = self else { return Ok(()) };
        check_limit("nesting of the payload", depth_of(json), PAYLOAD_DEPTH_MAX)
    }

    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::None => &[],
            Self::Json(json) => json.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }

    /// The tag and the bytes that are stored.
    fn stored(&self) -> (u8, Cow<'_, [u8]>) {
        match self {
            Self::None => (NONE, Cow::Borrowed(&[])),
            Self::Bytes(bytes) => (PAYLOAD_BYTES, Cow::Borrowed(bytes)),
            Self::Json(json) => {
                let is_long = json.len() > JSON_TEXT_LEN_MAX_BYTES;
                match is_long.then(|| document::encode(json)).flatten() {
                    Some(document) => (PAYLOAD_DOCUMENT, document.into()),
                    None => (PAYLOAD_JSON, Cow::Borrowed(json.as_bytes())),
                }
            }
        }
    }
}

/// The oldest version that knows a payload's tag.
const fn version_of(payload_tag: u8) -> u8 {
    if payload_tag == PAYLOAD_DOCUMENT { 2 } else { 1 }
}

/// Where the embedding of a record is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EmbeddingSource {
    /// Nowhere: the record is found by its key only.
    #[default]
    None,
    /// It is that of the text by the collection's model, and can be computed again.
    Text,
    /// Among the vectors that callers gave; it cannot be computed again.
    Given,
}

impl EmbeddingSource {
    const fn tag(self) -> u8 {
        match self {
            Self::None => NONE,
            Self::Text => EMBEDDING_OF_TEXT,
            Self::Given => EMBEDDING_GIVEN,
        }
    }
}

/// What is stored under a key of a collection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record<'a> {
    /// What the record carries for its reader.
    pub payload: Payload<'a>,
    /// The text that its embedding stands for.
    pub text: Option<Cow<'a, str>>,
    /// Where its embedding is found.
    pub embedding: EmbeddingSource,
    /// When it stops to exist, in milliseconds since 1970-01-01 UTC.
    pub expires_at_unix_ms: Option<u64>,
}

impl<'a> Record<'a> {
    /// Returns the bytes of the record.
    ///
    /// # Errors
    /// [`FormatError::TooLarge`] if the text or the payload is over its limit.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        let text = self.text.as_deref().unwrap_or_default();
        check_text(text)?;
        self.payload.check_len()?;
        let (payload_tag, payload) = self.payload.stored();
        let mut raw = RawRecord {
            marker: MARKER,
            version: version_of(payload_tag),
            payload_tag,
            embedding_tag: self.embedding.tag(),
            text_tag: if self.text.is_some() { TEXT } else { NONE },
            expiry_tag: if self.expires_at_unix_ms.is_some() { EXPIRES } else { NONE },
            reserved: 0.into(),
            text_len: (text.len() as u32).into(),
            payload_len: (payload.len() as u32).into(),
            expires_at_unix_ms: self.expires_at_unix_ms.unwrap_or(0).into(),
            embedding_key: 0.into(),
            checksum: 0.into(),
        };
        let mut bytes = Vec::with_capacity(HEADER_LEN_BYTES + text.len() + payload.len());
        bytes.extend_from_slice(raw.as_bytes());
        bytes.extend_from_slice(text.as_bytes());
        bytes.extend_from_slice(&payload);
        // The body must be in one piece to be hashed, so the checksum comes last.
        raw.checksum = raw.checksum_with(&bytes[HEADER_LEN_BYTES..]).into();
        bytes[..HEADER_LEN_BYTES].copy_from_slice(raw.as_bytes());
        Ok(bytes)
    }

    /// Decodes a record; text and payload stay where they are, a document's text apart.
    ///
    /// # Errors
    /// Says what is wrong with the bytes.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let (raw, body) = RawRecord::verified(bytes)?;
        let (text, payload) = raw.split(body)?;
        check_oldest("version of a record", raw.version, version_of(raw.payload_tag))?;
        Ok(Self {
            payload: raw.payload(payload)?,
            text: raw.text(text)?,
            embedding: raw.embedding()?,
            expires_at_unix_ms: raw.expires_at_unix_ms()?,
        })
    }

    /// Decodes only when a record stops to exist.
    ///
    /// # Errors
    /// Says what is wrong with the bytes, as far as that makes the time doubtful.
    pub fn decode_expiry(bytes: &[u8]) -> Result<Option<u64>, FormatError> {
        RawRecord::verified(bytes)?.0.expires_at_unix_ms()
    }

    /// Copies what is borrowed.
    #[must_use]
    pub fn into_owned(self) -> Record<'static> {
        Record {
            payload: self.payload.into_owned(),
            text: self.text.map(|text| text.into_owned().into()),
            embedding: self.embedding,
            expires_at_unix_ms: self.expires_at_unix_ms,
        }
    }
}

impl RawRecord {
    /// Splits a value into its header and its body, whose checksum is right.
    fn verified(bytes: &[u8]) -> Result<(&Self, &[u8]), FormatError> {
        let (raw, body) =
            Self::ref_from_prefix(bytes).map_err(|_| too_short(HEADER_LEN_BYTES, bytes))?;
        check_value_start("marker of a record", (MARKER, raw.marker), raw.version, VERSION)?;
        check(raw.checksum.get(), raw.checksum_with(body))?;
        if raw.reserved.get() != 0 {
            return Err(zero_expected(offset_of!(Self, reserved)));
        }
        Ok((raw, body))
    }

    fn checksum_with(&self, body: &[u8]) -> u64 {
        value_checksum(MAGIC, &self.as_bytes()[..offset_of!(Self, checksum)], body)
    }

    /// Splits the body into text and payload, which must fill it.
    fn split<'a>(&self, body: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), FormatError> {
        let text_len = self.text_len.get() as usize;
        let payload_len = self.payload_len.get() as usize;
        check_limit("text length in bytes", text_len, TEXT_LEN_MAX_BYTES)?;
        check_limit("payload length in bytes", payload_len, PAYLOAD_LEN_MAX_BYTES)?;
        // Both are under their limits, so the sum does not overflow.
        let needed = text_len + payload_len;
        if body.len() < needed {
            return Err(FormatError::TooShort {
                needed: (HEADER_LEN_BYTES + needed) as u64,
                given: (HEADER_LEN_BYTES + body.len()) as u64,
            });
        }
        if body.len() > needed {
            return Err(FormatError::TrailingBytes { count: (body.len() - needed) as u64 });
        }
        Ok(body.split_at(text_len))
    }

    fn payload<'a>(&self, payload: &'a [u8]) -> Result<Payload<'a>, FormatError> {
        match self.payload_tag {
            NONE if !payload.is_empty() => Err(zero_expected(offset_of!(Self, payload_len))),
            NONE => Ok(Payload::None),
            PAYLOAD_JSON => Ok(Payload::Json(utf8("payload", payload)?.into())),
            PAYLOAD_BYTES => Ok(Payload::Bytes(payload.into())),
            PAYLOAD_DOCUMENT => {
                let json = document::decode(payload, PAYLOAD_LEN_MAX_BYTES)?;
                Ok(Payload::Json(json.into()))
            }
            found => Err(FormatError::UnknownTag { what: "payload tag", found }),
        }
    }

    fn text<'a>(&self, text: &'a [u8]) -> Result<Option<Cow<'a, str>>, FormatError> {
        match self.text_tag {
            NONE if !text.is_empty() => Err(zero_expected(offset_of!(Self, text_len))),
            NONE => Ok(None),
            TEXT => Ok(Some(utf8("text", text)?.into())),
            found => Err(FormatError::UnknownTag { what: "text tag", found }),
        }
    }

    fn embedding(&self) -> Result<EmbeddingSource, FormatError> {
        let key = self.embedding_key.get();
        match self.embedding_tag {
            NONE | EMBEDDING_GIVEN if key != 0 => {
                Err(zero_expected(offset_of!(Self, embedding_key)))
            }
            NONE => Ok(EmbeddingSource::None),
            EMBEDDING_OF_TEXT => Ok(EmbeddingSource::Text),
            EMBEDDING_GIVEN => Ok(EmbeddingSource::Given),
            found => Err(FormatError::UnknownTag { what: "embedding tag", found }),
        }
    }

    fn expires_at_unix_ms(&self) -> Result<Option<u64>, FormatError> {
        let at = self.expires_at_unix_ms.get();
        match self.expiry_tag {
            NONE if at != 0 => Err(zero_expected(offset_of!(Self, expires_at_unix_ms))),
            NONE => Ok(None),
            EXPIRES => Ok(Some(at)),
            found => Err(FormatError::UnknownTag { what: "expiry tag", found }),
        }
    }
}

/// Checks that `key` may be the key of a record.
///
/// # Errors
/// [`FormatError::Empty`] if it is empty, [`FormatError::TooLarge`] if it is over
/// [`KEY_LEN_MAX_BYTES`].
pub fn check_key(key: &[u8]) -> Result<(), FormatError> {
    if key.is_empty() {
        return Err(FormatError::Empty { what: "key" });
    }
    check_limit("key length in bytes", key.len(), KEY_LEN_MAX_BYTES)
}

/// Checks that `text` is not too long to be the text of a record.
///
/// # Errors
/// [`FormatError::TooLarge`] if it is over [`TEXT_LEN_MAX_BYTES`].
pub fn check_text(text: &str) -> Result<(), FormatError> {
    check_limit("text length in bytes", text.len(), TEXT_LEN_MAX_BYTES)
}

/// Returns how deeply the arrays and objects of valid JSON are nested.
fn depth_of(json: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut in_string = false;
    let mut bytes = json.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => in_string = !in_string,
            // Whatever is escaped does not end the string.
            b'\\' => {
                bytes.next();
            }
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn utf8<'a>(what: &'static str, bytes: &'a [u8]) -> Result<&'a str, FormatError> {
    std::str::from_utf8(bytes)
        .map_err(|error| FormatError::InvalidUtf8 { what, offset: error.valid_up_to() as u64 })
}

const fn zero_expected(offset: usize) -> FormatError {
    FormatError::NonZeroReserved { offset: offset as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn altered(body: &[u8], change: impl FnOnce(&mut RawRecord)) -> Vec<u8> {
        let encoded = Record::default().encode().unwrap();
        let mut raw = RawRecord::read_from_bytes(&encoded).unwrap();
        change(&mut raw);
        raw.checksum = raw.checksum_with(body).into();
        [raw.as_bytes(), body].concat()
    }

    fn error_of(body: &[u8], change: impl FnOnce(&mut RawRecord)) -> FormatError {
        Record::decode(&altered(body, change)).unwrap_err()
    }

    #[test]
    fn unknown_tags_are_refused() {
        for found in [0, 5, 255] {
            let unknown = |what| FormatError::UnknownTag { what, found };
            assert_eq!(error_of(b"", |raw| raw.payload_tag = found), unknown("payload tag"));
            assert_eq!(error_of(b"", |raw| raw.embedding_tag = found), unknown("embedding tag"));
            assert_eq!(error_of(b"", |raw| raw.text_tag = found), unknown("text tag"));
            assert_eq!(error_of(b"", |raw| raw.expiry_tag = found), unknown("expiry tag"));
        }
    }

    #[test]
    fn what_a_tag_denies_must_be_zero() {
        let zero = |offset| FormatError::NonZeroReserved { offset };
        assert_eq!(error_of(b"", |raw| raw.reserved = 1.into()), zero(6));
        assert_eq!(error_of(b"x", |raw| raw.text_len = 1.into()), zero(8));
        assert_eq!(error_of(b"x", |raw| raw.payload_len = 1.into()), zero(12));
        assert_eq!(error_of(b"", |raw| raw.expires_at_unix_ms = 1.into()), zero(16));
        assert_eq!(error_of(b"", |raw| raw.embedding_key = 1.into()), zero(24));
        let given = |raw: &mut RawRecord| {
            raw.embedding_tag = EMBEDDING_GIVEN;
            raw.embedding_key = 1.into();
        };
        assert_eq!(error_of(b"", given), zero(24));
        // Earlier versions wrote the key of the text's embedding.
        let of_text = |raw: &mut RawRecord| {
            raw.embedding_tag = EMBEDDING_OF_TEXT;
            raw.embedding_key = 1.into();
        };
        assert_eq!(
            Record::decode(&altered(b"", of_text)).unwrap().embedding,
            EmbeddingSource::Text
        );
    }

    #[test]
    fn lengths_must_fill_the_value() {
        let text = |len: u32| {
            move |raw: &mut RawRecord| {
                raw.text_tag = TEXT;
                raw.text_len = len.into();
            }
        };
        assert_eq!(error_of(b"ab", text(3)), FormatError::TooShort { needed: 51, given: 50 });
        assert_eq!(error_of(b"ab", text(1)), FormatError::TrailingBytes { count: 1 });
        assert!(matches!(error_of(b"ab", text(u32::MAX)), FormatError::TooLarge { .. }));
    }

    #[test]
    fn text_and_json_are_utf8() {
        let text = |raw: &mut RawRecord| {
            raw.text_tag = TEXT;
            raw.text_len = 2.into();
        };
        assert_eq!(error_of(b"a\xFF", text), FormatError::InvalidUtf8 { what: "text", offset: 1 });
        let json = |raw: &mut RawRecord| {
            raw.payload_tag = PAYLOAD_JSON;
            raw.payload_len = 2.into();
        };
        assert_eq!(
            error_of(b"\xFF1", json),
            FormatError::InvalidUtf8 { what: "payload", offset: 0 }
        );
    }

    #[test]
    fn only_long_json_is_stored_as_a_document() {
        let json = |len: usize| format!("[{}0]", "1234567, ".repeat((len - 3) / 9));
        for (len, version, tag) in [(1 << 20, 1, PAYLOAD_JSON), (9 << 20, 2, PAYLOAD_DOCUMENT)] {
            let json = json(len);
            let payload = Payload::Json(json.as_str().into());
            let record = Record { payload, ..Record::default() };
            let bytes = record.encode().unwrap();
            assert_eq!((bytes[1], bytes[2]), (version, tag), "{len}");
            assert!(tag == PAYLOAD_JSON || bytes.len() < json.len() * 2 / 3, "{}", bytes.len());
            assert_eq!(Record::decode(&bytes), Ok(record));
            // Irregular white space is kept by keeping the text.
            let uneven = json.replacen(", ", ",", 2);
            let payload = Payload::Json(uneven.into());
            let record = Record { payload, ..Record::default() };
            let bytes = record.encode().unwrap();
            assert_eq!((bytes[1], bytes[2]), (1, PAYLOAD_JSON));
            assert_eq!(Record::decode(&bytes), Ok(record));
        }
    }

    #[test]
    fn a_version_that_its_payload_does_not_need_is_refused() {
        let what = "version of a record";
        let error = error_of(b"", |raw| raw.version = 2);
        assert_eq!(error, FormatError::Mismatch { what, expected: 1, found: 2 });
        let error = error_of(b"", |raw| raw.payload_tag = PAYLOAD_DOCUMENT);
        assert_eq!(error, FormatError::Mismatch { what, expected: 2, found: 1 });
        let document = |raw: &mut RawRecord| {
            (raw.version, raw.payload_tag, raw.payload_len) = (2, PAYLOAD_DOCUMENT, 1.into());
        };
        assert_eq!(error_of(b"\xFF", document), FormatError::InvalidDocument { token: None });
    }

    #[test]
    fn absent_and_empty_differ() {
        let absent = Record::default();
        let empty = Record {
            payload: Payload::Bytes(Cow::Borrowed(&[])),
            text: Some("".into()),
            embedding: EmbeddingSource::Text,
            expires_at_unix_ms: Some(0),
        };
        let (absent_bytes, empty_bytes) = (absent.encode().unwrap(), empty.encode().unwrap());
        assert_ne!(absent_bytes, empty_bytes);
        assert_eq!(Record::decode(&absent_bytes), Ok(absent));
        assert_eq!(Record::decode(&empty_bytes), Ok(empty));
    }

    #[test]
    fn limits_are_kept() {
        let text = "x".repeat(TEXT_LEN_MAX_BYTES + 1);
        let long_text = Record { text: Some(text.as_str().into()), ..Record::default() };
        assert!(matches!(long_text.encode(), Err(FormatError::TooLarge { .. })));
        let payload = vec![0; PAYLOAD_LEN_MAX_BYTES + 1];
        let long_payload = Record { payload: Payload::Bytes(payload.into()), ..Record::default() };
        assert!(matches!(long_payload.encode(), Err(FormatError::TooLarge { .. })));
        assert!(check_key(&[0; KEY_LEN_MAX_BYTES]).is_ok());
    }
}
