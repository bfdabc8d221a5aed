//! A graph file: the vertices of a graph index, as they were once.
//!
//! It is written once, never changed, and read in [pages](crate::page). Sections follow the header
//! page, and each begins at a page:
//!
//! | section | contents |
//! |---|---|
//! | center | little-endian f32, as many as a vector has: what is subtracted from every vector |
//! | hub | rows as of vertices, with signs and 32 neighbours: see below |
//! | apart | u32 each: vertices that no link leads to, as they have no direction |
//! | removed | u32 each: vertices that were removed, and yet lead on |
//! | twins | two u32 each: a vertex, and one with the same vector that no link leads to |
//! | vertices | a row for each vertex |
//! | key_ends | u64 for each vertex: where its key ends in the next section; nothing without keys |
//! | keys | the key of each vertex, one behind the other |
//! | checksums | u64 for each page before it but the first |
//!
//! What is left of a section's last page is zero; the checksums end where the file ends.
//!
//! Header page:
//!
//! | offset | size | field | |
//! |---|---|---|---|
//! | 0 | 64 | header | [`crate::header`], magic `opdbGRPH`, version 1; payload up to the page's end |
//! | 64 | 16 | owner | identity of what the vectors are of |
//! | 80 | 8 | sequence | last committed change that is in the file; 0 outside of a store |
//! | 88 | 8 | seed | of the rotation |
//! | 96 | 4 | dimensions | of every vector, 1 to 65,536 |
//! | 100 | 4 | vertices_count | 1 to 2³¹ |
//! | 104 | 4 | hub_count | rows of the hub, 0 to 65,535 |
//! | 108 | 2 | degree | neighbours of a vertex at most: 32, 64, 96 or 128 |
//! | 110 | 1 | metric | 1 cosine, 2 dot, 3 Euclidean |
//! | 111 | 1 | profile | 1 speed, 2 compact |
//! | 112 | 4 | unit | f32, above 0: what vectors less the center are multiplied with |
//! | 116 | 4 | norm_max | f32, not negative: the longest vector; 0 unless the metric is dot |
//! | 120 | 8 | hub_offset | from the file's beginning, as are the next three |
//! | 128 | 8 | vertices_offset | |
//! | 136 | 8 | key_ends_offset | |
//! | 144 | 8 | checksums_offset | |
//! | 152 | 8 | keys_len | bytes of all keys; 0 for a graph without keys |
//! | 160 | 8 | file_len | bytes in the whole file |
//! | 168 | 8 | table_checksum | of the checksums |
//! | 176 | 4 | live_count | vertices that can be found |
//! | 180 | 4 | apart_count | vertices apart |
//! | 184 | 4 | removed_count | vertices that were removed, and yet lead on |
//! | 188 | 4 | hub_of_count | vertices that were linked when the hub was chosen |
//! | 192 | 4 | twins_count | vertices beside others with the same vector |
//! | 196 | 4 | calibrated_of_count | vertices that were linked when it was measured |
//! | 200 | 2 × 2 × 16 | calibration | u16 each: see [`Calibration`] |
//! | 264 | to the page's end | reserved | 0 |
//!
//! Row of a vertex, with `padded` for the numbers of a vector, one more with the dot product, rounded
//! up to a multiple of 64:
//!
//! | size | part | |
//! |---|---|---|
//! | 4 | scale | f32 |
//! | 4 | norm_squared | f32: of what the vector stands for |
//! | 2 | sketch_step | what plus or minus one in the sketch stands for, in 512ths of the scale |
//! | 2 | upper_step | what products with the upper half are multiplied with, in 32,768ths |
//! | 2 | links_count | neighbours there are; they come first |
//! | 2 | state | 0 a vector; 1 one that was removed, and yet leads on; 2 vacant; 3 apart; 4 a vector that is not linked yet; 5 one beside another; 6 one that was removed, and has others beside it |
//! | padded / 8 | sketch | a bit for each number of the vector, set if it is above 0 |
//! | padded / 2 | upper | upper half of each number of the vector: two of them a byte, the lower one of the first half of the vector |
//! | padded / 2 | lower | lower half of each, in the same order |
//! | 4 × degree | links | u32: numbers of neighbours; 0xFFFF_FFFF where there is none |
//! | 2 × degree | add | f16 |
//! | 2 × degree | multiply | f16 |
//! | | | zeros up to a multiple of 64 |
//! | degree × padded / 8 | signs | of how each neighbour differs, for 32 neighbours after the other |
//! | | | zeros up to a multiple of 64 |
//!
//! A number of the vector is that of the rotated vector divided by the scale, −127 to 127, and 128
//! is added to it before it is halved. Rows of the compact profile have none of add, multiply and
//! signs.
//!
//! The hub is where searches begin. One of 33 of its rows, rounded up, have a vector of zeros and links
//! to the others, by their numbers in the hub; these come behind them, and have the vector of a vertex
//! and links to that vertex and some near it.  A page is never shorter than
//! 512 bytes nor longer than 65,536, and rows may cross pages.

use std::mem::{offset_of, size_of};
use std::ops::Range;

use zerocopy::little_endian::{F32, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::FormatError;
use crate::collection::Metric;
use crate::embedding::DIMENSIONS_MAX;
use crate::header::{FormatVersion, Magic, check_limit};
use crate::page::{CHECKSUM_LEN_BYTES, check_page_len, decode_header_page, encode_header_page};

/// Magic of the format.
pub const MAGIC: Magic = Magic(*b"opdbGRPH");

/// Newest version of the format.
pub const VERSION: FormatVersion = FormatVersion(1);

/// Most vertices of a graph.
pub const VERTICES_MAX: u32 = 1 << 31;

/// Neighbours are known in blocks of so many.
pub const BLOCK_COUNT: u16 = 32;

/// Most neighbours of a vertex.
pub const DEGREE_MAX: u16 = 128;

/// Efforts of searches whose recall a file says.
pub const CALIBRATED_EFFORTS: [u16; 16] =
    [8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536];

/// How many of the nearest these searches asked for.
pub const CALIBRATED_LIMITS: [u16; 2] = [10, 100];

/// Recall of searches for each of [`CALIBRATED_LIMITS`], with each of [`CALIBRATED_EFFORTS`], in parts
/// of 65,535; 0 where it is not known.
pub type Calibration = [[u16; CALIBRATED_EFFORTS.len()]; CALIBRATED_LIMITS.len()];

/// Numbers of a vector in a row are a multiple of this.
pub const PADDED_MULTIPLE: usize = 64;

/// Of the longest keys that there are, and then some.
const KEYS_LEN_MAX_BYTES: u64 = 1 << 48;

const ROW_ALIGNMENT_BYTES: u64 = 64;
const ROW_HEADER_BYTES: u64 = 16;

/// What vertices know besides their own vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Profile {
    /// How their neighbours differ from them, so that 32 are looked at for the price of one.
    Speed = 1,
    /// Nothing: a quarter of the memory.
    Compact = 2,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Speed, Self::Compact];

    /// The name that people read and write.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Speed => "speed",
            Self::Compact => "compact",
        }
    }
}

impl TryFrom<u8> for Profile {
    type Error = FormatError;

    fn try_from(tag: u8) -> Result<Self, FormatError> {
        match tag {
            1 => Ok(Self::Speed),
            2 => Ok(Self::Compact),
            found => Err(FormatError::UnknownTag { what: "profile of a graph", found }),
        }
    }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawGraphFile {
    owner: [u8; 16],
    sequence: U64,
    seed: U64,
    dimensions: U32,
    vertices_count: U32,
    hub_count: U32,
    degree: U16,
    metric: u8,
    profile: u8,
    unit: F32,
    norm_max: F32,
    hub_offset: U64,
    vertices_offset: U64,
    key_ends_offset: U64,
    checksums_offset: U64,
    keys_len: U64,
    file_len: U64,
    table_checksum: U64,
    live_count: U32,
    apart_count: U32,
    removed_count: U32,
    hub_of_count: U32,
    twins_count: U32,
    calibrated_of_count: U32,
    calibration: [[U16; CALIBRATED_EFFORTS.len()]; CALIBRATED_LIMITS.len()],
}

const _: () = {
    assert!(size_of::<RawGraphFile>() == 200);
    assert!(offset_of!(RawGraphFile, dimensions) == 32);
    assert!(offset_of!(RawGraphFile, metric) == 46);
    assert!(offset_of!(RawGraphFile, hub_offset) == 56);
    assert!(offset_of!(RawGraphFile, table_checksum) == 104);
    assert!(offset_of!(RawGraphFile, calibration) == 136);
};

/// What the header page of a graph file says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GraphFileHeader {
    /// What the vectors are of.
    pub owner: [u8; 16],
    /// Sequence of the last committed change that is in the file.
    pub sequence: u64,
    /// Of the rotation.
    pub seed: u64,
    /// Elements of every vector.
    pub dimensions: u32,
    /// Vertices in the file.
    pub vertices_count: u32,
    /// Vertices that searches begin at.
    pub hub_count: u32,
    /// Vertices that can be found.
    pub live_count: u32,
    /// Vertices that no link leads to.
    pub apart_count: u32,
    /// Vertices that were removed, and yet lead on.
    pub removed_count: u32,
    /// Vertices that were linked when the hub was chosen.
    pub hub_of_count: u32,
    /// Vertices beside others with the same vector.
    pub twins_count: u32,
    /// Vertices that were linked when the calibration was measured.
    pub calibrated_of_count: u32,
    /// Neighbours of a vertex at most.
    pub degree: u16,
    /// What near means.
    pub metric: Metric,
    /// What vertices know.
    pub profile: Profile,
    /// What vectors are multiplied with.
    pub unit: f32,
    /// The longest vector; 0 unless the metric is [`Metric::Dot`].
    pub norm_max: f32,
    /// Bytes of all keys; 0 for a graph without keys.
    pub keys_len_bytes: u64,
    /// How much searches find.
    pub calibration: Calibration,
    /// Length of a page.
    pub page_len_bytes: u64,
    /// [`table_checksum`](crate::page::table_checksum) of the pages' checksums.
    pub table_checksum: u64,
}

/// Where the sections of a graph file lie, from its beginning, without what pads them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sections {
    /// Bytes from the beginning of one row to that of the next.
    pub stride_bytes: u64,
    /// What is subtracted from vectors.
    pub center: Range<u64>,
    /// The vertices that searches begin at.
    pub hub: Range<u64>,
    /// The vertices that no link leads to.
    pub apart: Range<u64>,
    /// The vertices that were removed.
    pub removed: Range<u64>,
    /// The vertices beside others.
    pub twins: Range<u64>,
    /// The rows.
    pub vertices: Range<u64>,
    /// Where keys end.
    pub key_ends: Range<u64>,
    /// The keys.
    pub keys: Range<u64>,
    /// The pages' checksums, which end the file.
    pub checksums: Range<u64>,
}

impl GraphFileHeader {
    /// Returns where the sections lie.
    ///
    /// # Errors
    /// [`FormatError::Empty`], [`FormatError::TooLarge`] or [`FormatError::Mismatch`] if there is
    /// no file with these counts.
    pub fn sections(&self) -> Result<Sections, FormatError> {
        check_page_len(self.page_len_bytes)?;
        self.check_counts()?;
        // With the limits above no sum comes near the end of u64.
        let has_signs = self.profile == Profile::Speed;
        let stride_bytes = self.row_bytes(self.degree.into(), has_signs);
        let from = |start: u64, len: u64| start..start + len;
        let after = |section: &Range<u64>| section.end.next_multiple_of(self.page_len_bytes);
        let center =
            from(self.page_len_bytes, u64::from(self.dimensions) * size_of::<f32>() as u64);
        let hub_row_bytes = self.row_bytes(u64::from(BLOCK_COUNT), true);
        let hub = from(after(&center), u64::from(self.hub_count) * hub_row_bytes);
        let numbers = |count: u32| u64::from(count) * size_of::<u32>() as u64;
        let apart = from(after(&hub), numbers(self.apart_count));
        let removed = from(after(&apart), numbers(self.removed_count));
        let twins = from(after(&removed), 2 * numbers(self.twins_count));
        let vertices = from(after(&twins), u64::from(self.vertices_count) * stride_bytes);
        let ends_count = if self.keys_len_bytes > 0 { self.vertices_count } else { 0 };
        let key_ends = from(after(&vertices), u64::from(ends_count) * size_of::<u64>() as u64);
        let keys = from(after(&key_ends), self.keys_len_bytes);
        let pages_count = after(&keys) / self.page_len_bytes - 1;
        let checksums = from(after(&keys), pages_count * CHECKSUM_LEN_BYTES as u64);
        Ok(Sections {
            stride_bytes,
            center,
            hub,
            apart,
            removed,
            twins,
            vertices,
            key_ends,
            keys,
            checksums,
        })
    }

    fn check_counts(&self) -> Result<(), FormatError> {
        if self.dimensions == 0 {
            return Err(FormatError::Empty { what: "vector" });
        }
        check_limit("number of dimensions", self.dimensions as usize, DIMENSIONS_MAX)?;
        if self.vertices_count == 0 {
            return Err(FormatError::Empty { what: "graph file" });
        }
        check_limit("number of vertices", self.vertices_count as usize, VERTICES_MAX as usize)?;
        check_limit("number of rows in the hub", self.hub_count as usize, u16::MAX.into())?;
        for (what, count) in [
            ("number of vertices that can be found", self.live_count),
            ("number of vertices apart", self.apart_count),
            ("number of removed vertices", self.removed_count),
            ("number of vertices of the hub", self.hub_of_count),
            ("number of vertices beside others", self.twins_count),
            ("number of vertices of the calibration", self.calibrated_of_count),
        ] {
            check_limit(what, count as usize, self.vertices_count as usize)?;
        }
        if self.keys_len_bytes > KEYS_LEN_MAX_BYTES {
            let (found, limit) = (self.keys_len_bytes, KEYS_LEN_MAX_BYTES);
            return Err(FormatError::TooLarge { what: "length of all keys", found, limit });
        }
        check_limit("degree", self.degree.into(), DEGREE_MAX.into())?;
        let expected = self.degree.next_multiple_of(BLOCK_COUNT).max(BLOCK_COUNT);
        if self.degree != expected {
            let (expected, found) = (expected.into(), self.degree.into());
            return Err(FormatError::Mismatch { what: "degree", expected, found });
        }
        let is_unit = self.unit.is_finite() && self.unit > 0.0;
        let is_dot = self.metric == Metric::Dot;
        let is_norm = if is_dot { self.norm_max.is_finite() } else { self.norm_max == 0.0 };
        if is_unit && is_norm && self.norm_max.is_sign_positive() {
            return Ok(());
        }
        Err(FormatError::NotFinite { index: u64::from(is_unit) })
    }

    /// Numbers of a vector in a row.
    #[must_use]
    pub fn padded(&self) -> usize {
        let more = usize::from(self.metric == Metric::Dot);
        (self.dimensions as usize + more).next_multiple_of(PADDED_MULTIPLE)
    }

    /// Bytes from one row to the next.
    fn row_bytes(&self, degree: u64, has_signs: bool) -> u64 {
        let padded = self.padded() as u64;
        let (known_bytes, signs_bytes) = match has_signs {
            true => (degree * 2 * size_of::<u16>() as u64, degree * padded / 8),
            false => (0, 0),
        };
        let links_bytes = degree * size_of::<u32>() as u64;
        let head_bytes = ROW_HEADER_BYTES + padded / 8 + padded + links_bytes + known_bytes;
        head_bytes.next_multiple_of(ROW_ALIGNMENT_BYTES) + signs_bytes
    }

    /// Returns the bytes of the header page.
    ///
    /// # Errors
    /// Those of [`GraphFileHeader::sections`].
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        let raw = self.raw(&self.sections()?);
        Ok(encode_header_page(MAGIC, VERSION, self.page_len_bytes, raw.as_bytes()))
    }

    fn raw(&self, sections: &Sections) -> RawGraphFile {
        RawGraphFile {
            owner: self.owner,
            sequence: self.sequence.into(),
            seed: self.seed.into(),
            dimensions: self.dimensions.into(),
            vertices_count: self.vertices_count.into(),
            hub_count: self.hub_count.into(),
            live_count: self.live_count.into(),
            apart_count: self.apart_count.into(),
            removed_count: self.removed_count.into(),
            hub_of_count: self.hub_of_count.into(),
            twins_count: self.twins_count.into(),
            calibrated_of_count: self.calibrated_of_count.into(),
            degree: self.degree.into(),
            metric: self.metric as u8,
            profile: self.profile as u8,
            unit: self.unit.into(),
            norm_max: self.norm_max.into(),
            hub_offset: sections.hub.start.into(),
            vertices_offset: sections.vertices.start.into(),
            key_ends_offset: sections.key_ends.start.into(),
            keys_len: self.keys_len_bytes.into(),
            calibration: self.calibration.map(|recalls| recalls.map(Into::into)),
            checksums_offset: sections.checksums.start.into(),
            file_len: sections.checksums.end.into(),
            table_checksum: self.table_checksum.into(),
        }
    }

    /// Decodes the header page from the beginning of a file; more bytes may follow it.
    ///
    /// # Errors
    /// Says what is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (page_len_bytes, raw) = decode_header_page::<RawGraphFile>(bytes, MAGIC, VERSION)?;
        let header = Self {
            owner: raw.owner,
            sequence: raw.sequence.get(),
            seed: raw.seed.get(),
            dimensions: raw.dimensions.get(),
            vertices_count: raw.vertices_count.get(),
            hub_count: raw.hub_count.get(),
            live_count: raw.live_count.get(),
            apart_count: raw.apart_count.get(),
            removed_count: raw.removed_count.get(),
            hub_of_count: raw.hub_of_count.get(),
            twins_count: raw.twins_count.get(),
            calibrated_of_count: raw.calibrated_of_count.get(),
            degree: raw.degree.get(),
            metric: Metric::try_from(raw.metric)?,
            profile: Profile::try_from(raw.profile)?,
            unit: raw.unit.get(),
            norm_max: raw.norm_max.get(),
            keys_len_bytes: raw.keys_len.get(),
            calibration: raw.calibration.map(|recalls| recalls.map(U16::get)),
            page_len_bytes,
            table_checksum: raw.table_checksum.get(),
        };
        let expected = header.raw(&header.sections()?);
        let agree = |what, expected: U64, found: U64| {
            let (expected, found) = (expected.get(), found.get());
            let mismatch = FormatError::Mismatch { what, expected, found };
            if expected == found { Ok(()) } else { Err(mismatch) }
        };
        agree("offset of the hub", expected.hub_offset, raw.hub_offset)?;
        agree("offset of the vertices", expected.vertices_offset, raw.vertices_offset)?;
        agree("offset of the ends of keys", expected.key_ends_offset, raw.key_ends_offset)?;
        agree("offset of the checksums", expected.checksums_offset, raw.checksums_offset)?;
        agree("file length in bytes", expected.file_len, raw.file_len)?;
        Ok(header)
    }
}

impl Sections {
    /// Length of the whole file.
    #[must_use]
    pub fn file_len_bytes(&self) -> u64 {
        self.checksums.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::{FILE_HEADER_LEN_BYTES, FileHeader};

    const HEADER: GraphFileHeader = GraphFileHeader {
        owner: [7; 16],
        sequence: 9,
        seed: 5,
        dimensions: 100,
        vertices_count: 20,
        hub_count: 3,
        live_count: 19,
        apart_count: 2,
        removed_count: 1,
        hub_of_count: 17,
        twins_count: 4,
        calibrated_of_count: 6,
        degree: 32,
        metric: Metric::Euclidean,
        profile: Profile::Speed,
        unit: 0.5,
        norm_max: 0.0,
        keys_len_bytes: 700,
        calibration: [[9; CALIBRATED_EFFORTS.len()]; 2],
        page_len_bytes: 512,
        table_checksum: 3,
    };

    /// A header page whose raw fields `change` has altered, with right checksums.
    fn altered(change: impl FnOnce(&mut RawGraphFile)) -> Vec<u8> {
        let mut page = HEADER.encode().unwrap();
        let (head, payload) = page.split_at_mut(FILE_HEADER_LEN_BYTES);
        let (raw, _) = RawGraphFile::mut_from_prefix(payload).unwrap();
        change(raw);
        head.copy_from_slice(&FileHeader::of_payload(MAGIC, VERSION, payload).encode());
        page
    }

    #[test]
    fn sections_follow_one_another_at_pages() {
        let sections = HEADER.sections().unwrap();
        // 16 bytes of header, 16 of sketch, 128 of vector, 128 of links, 128 of factors: 448 with what
        // fills the cache line. Then 512 of signs.
        assert_eq!(sections.stride_bytes, 960);
        assert_eq!(sections.center, 512..912);
        assert_eq!(sections.hub, 1024..1024 + 3 * 960);
        assert_eq!(sections.apart, 4096..4104);
        assert_eq!(sections.removed, 4608..4612);
        assert_eq!(sections.twins, 5120..5152);
        assert_eq!(sections.vertices, 5632..5632 + 20 * 960);
        assert_eq!(sections.key_ends, 25_088..25_088 + 20 * 8);
        assert_eq!(sections.keys, 25_600..25_600 + 700);
        assert_eq!(sections.checksums, 26_624..26_624 + 51 * 8);
        let without_keys = GraphFileHeader { keys_len_bytes: 0, ..HEADER }.sections().unwrap();
        assert_eq!(without_keys.checksums, 25_088..25_088 + 48 * 8);
        let compact = GraphFileHeader { profile: Profile::Compact, ..HEADER };
        assert_eq!(compact.sections().unwrap().stride_bytes, 320);
        let longer = GraphFileHeader { dimensions: 128, metric: Metric::Dot, ..HEADER };
        assert_eq!((longer.padded(), HEADER.padded()), (192, 128));
    }

    #[test]
    fn a_wrong_field_is_named_even_when_the_checksums_are_right() {
        assert_eq!(GraphFileHeader::decode(&altered(|_| ())), Ok(HEADER));
        type Change = fn(&mut RawGraphFile);
        let cases: [(Change, &str); 24] = [
            (|raw| raw.dimensions = 0.into(), "vector is empty"),
            (|raw| raw.dimensions = u32::MAX.into(), "number of dimensions"),
            (|raw| raw.vertices_count = 0.into(), "graph file is empty"),
            (|raw| raw.vertices_count = u32::MAX.into(), "number of vertices"),
            (|raw| raw.hub_count = 65_536.into(), "in the hub"),
            (|raw| raw.live_count = 21.into(), "can be found"),
            (|raw| raw.apart_count = 21.into(), "vertices apart"),
            (|raw| raw.removed_count = 21.into(), "removed vertices"),
            (|raw| raw.hub_of_count = 21.into(), "vertices of the hub"),
            (|raw| raw.twins_count = 21.into(), "vertices beside others"),
            (|raw| raw.calibrated_of_count = 21.into(), "vertices of the calibration"),
            (|raw| raw.degree = 0.into(), "degree"),
            (|raw| raw.degree = 33.into(), "degree"),
            (|raw| raw.degree = 160.into(), "degree"),
            (|raw| raw.metric = 0, "metric"),
            (|raw| raw.profile = 3, "profile"),
            (|raw| raw.unit = f32::NAN.into(), "finite"),
            (|raw| raw.norm_max = 1.0.into(), "finite"),
            (|raw| raw.hub_offset = 512.into(), "offset of the hub"),
            (|raw| raw.vertices_offset = u64::MAX.into(), "offset of the vertices"),
            (|raw| raw.key_ends_offset = 0.into(), "offset of the ends of keys"),
            (|raw| raw.keys_len = u64::MAX.into(), "length of all keys"),
            (|raw| raw.checksums_offset = 0.into(), "offset of the checksums"),
            (|raw| raw.file_len = 5191.into(), "file length"),
        ];
        for (change, expected) in cases {
            let error = GraphFileHeader::decode(&altered(change)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}, expected {expected}");
        }
    }

    #[test]
    fn the_rest_of_the_header_page_is_zero() {
        let mut page = HEADER.encode().unwrap();
        let (head, payload) = page.split_at_mut(FILE_HEADER_LEN_BYTES);
        payload[300] = 1;
        head.copy_from_slice(&FileHeader::of_payload(MAGIC, VERSION, payload).encode());
        let error = GraphFileHeader::decode(&page).unwrap_err();
        assert_eq!(error, FormatError::NonZeroReserved { offset: 364 });
    }
}
