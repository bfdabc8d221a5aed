//! Samples of the files that are derived, and what they decode to: vectors, manifest, heat.

use op_dbus_formats::arena_file::{ArenaFileHeader, ENTRY_LEN_BYTES, Entry, MAGIC};
use op_dbus_formats::collection::Metric;
use op_dbus_formats::graph_file::{self, GraphFileHeader, Profile};
use op_dbus_formats::header::Magic;
use op_dbus_formats::heat::{HeatChecksums, HeatFile};
use op_dbus_formats::heat_block::{self, Count};
use op_dbus_formats::manifest::{Manifest, ManifestFile};
use op_dbus_formats::page::{CHECKSUM_LEN_BYTES, page_checksum, table_checksum};

/// Encoded bytes, and how they are read.
pub struct Sample {
    /// Name of the format.
    pub format: &'static str,
    /// What is special about this one.
    pub name: &'static str,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Decodes bytes of this format and says what is in them.
    pub dump: fn(&[u8]) -> Result<String, String>,
}

/// One sample of each derived format.
#[must_use]
pub fn samples() -> Vec<Sample> {
    let manifest = Manifest {
        generation: 7,
        store_id: STORE_ID,
        files: vec![ManifestFile {
            name: "7-384.arena".to_owned(),
            len_bytes: 1 << 30,
            header_checksum: 0x0123_4567_89AB_CDEF,
            sequence: 123_456,
            cache_generation: 2,
            dimensions: 384,
        }],
    };
    let file = |name: &str, len_bytes| HeatFile { name: name.to_owned(), len_bytes, checksum: 9 };
    let heat = HeatChecksums { files: vec![file("blobs/17", 0), file("conf", 62), file("db", 1)] };
    let counts =
        [Count { locator: b"\0\0\0\x01key", uses: 900 }, Count { locator: &[255], uses: 1 }];
    let sample = |format, name, bytes, dump| Sample { format, name, bytes, dump };
    vec![
        sample("arena_file", "rows", arena_file(), dump_arena_file),
        sample("graph_file", "vertices", graph_file(), dump_graph_file),
        sample("manifest", "slot", encoded(manifest.encode()).to_vec(), dump_manifest),
        sample("heat", "files", encoded(heat.encode()), dump_heat),
        sample("heat_block", "counts", encoded(heat_block::encode(&counts)), dump_heat_block),
    ]
}

const STORE_ID: [u8; 16] = [0xA5; 16];

fn encoded<T>(result: Result<T, op_dbus_formats::FormatError>) -> T {
    result.expect("a sample encodes")
}

/// An arena file of three rows, whose order by heat is not that by key.
fn arena_file() -> Vec<u8> {
    let entry = |row: u32, key| Entry { key, expires_at_unix_ms: u64::from(row) * 1000, row };
    let mut entries = [entry(0, u128::MAX - 1), entry(1, 5), entry(2, 1 << 100)];
    let mut header = ArenaFileHeader {
        store_id: STORE_ID,
        sequence: 123_456,
        cache_generation: 2,
        dimensions: 5,
        rows_count: 3,
        page_len_bytes: 512,
        table_checksum: 0,
    };
    let sections = encoded(header.sections());
    let mut bytes = vec![0; sections.file_len_bytes() as usize];
    for row in 0..3 {
        let start = sections.vector(row).start as usize;
        for (element, bytes) in bytes[start..][..20].chunks_mut(4).enumerate() {
            bytes.copy_from_slice(&(row as f32 + element as f32 / 8.0).to_le_bytes());
        }
    }
    for section in [&sections.rows, &sections.index] {
        let places = bytes[section.start as usize..].chunks_mut(ENTRY_LEN_BYTES);
        for (bytes, entry) in places.zip(&entries) {
            bytes.copy_from_slice(&entry.encode());
        }
        entries.sort_by_key(|entry| entry.key);
    }
    header.table_checksum = seal_pages(MAGIC, &mut bytes, sections.checksums.start);
    bytes[..512].copy_from_slice(&encoded(header.encode()));
    bytes
}

fn dump_arena_file(bytes: &[u8]) -> Result<String, String> {
    let header = ArenaFileHeader::decode(bytes).map_err(|error| error.to_string())?;
    let sections = header.sections().map_err(|error| error.to_string())?;
    if bytes.len() as u64 != sections.file_len_bytes() {
        return Err("another length".to_owned());
    }
    let of_table = (header.page_len_bytes, sections.checksums.start, header.table_checksum);
    check_pages(MAGIC, &header.store_id, bytes, of_table)?;
    let mut dump = format!("{header:#?}\n{sections:#?}\n");
    for section in [&sections.rows, &sections.index] {
        let section = &bytes[section.start as usize..section.end as usize];
        for entry in section.as_chunks::<ENTRY_LEN_BYTES>().0 {
            let entry = Entry::decode(entry).map_err(|error| error.to_string())?;
            let vector = sections.vector(entry.row);
            let elements =
                elements_of(&bytes[vector.start as usize..vector.end as usize], header.dimensions);
            dump.push_str(&format!("{entry:?} {elements:?}\n"));
        }
    }
    Ok(dump)
}

/// Writes the checksums of pages of 512 bytes behind them, and returns that of the checksums.
fn seal_pages(magic: Magic, bytes: &mut [u8], checksums_at: u64) -> u64 {
    let (pages, table) = bytes.split_at_mut(checksums_at as usize);
    let checksums = table.chunks_mut(CHECKSUM_LEN_BYTES);
    for ((index, page), checksum) in (0..).zip(pages.chunks(512)).skip(1).zip(checksums) {
        checksum.copy_from_slice(&page_checksum(magic, &STORE_ID, index, page).to_le_bytes());
    }
    table_checksum(magic, &STORE_ID, table)
}

fn check_pages(
    magic: Magic,
    owner: &[u8; 16],
    bytes: &[u8],
    (page_len, checksums_at, expected): (u64, u64, u64),
) -> Result<(), String> {
    let (pages, table) = bytes.split_at(checksums_at as usize);
    if table_checksum(magic, owner, table) != expected {
        return Err("wrong checksums".to_owned());
    }
    let checksums = table.chunks(CHECKSUM_LEN_BYTES);
    let pages = (0..).zip(pages.chunks(page_len as usize)).skip(1);
    for ((index, page), checksum) in pages.zip(checksums) {
        if page_checksum(magic, owner, index, page).to_le_bytes() != checksum {
            return Err(format!("page {index} is damaged"));
        }
    }
    Ok(())
}

/// A graph file of two vertices, each the other's neighbour.
fn graph_file() -> Vec<u8> {
    let mut header = GraphFileHeader {
        owner: STORE_ID,
        sequence: 123_456,
        seed: 7,
        dimensions: 3,
        vertices_count: 2,
        hub_count: 1,
        live_count: 1,
        apart_count: 1,
        removed_count: 1,
        hub_of_count: 1,
        twins_count: 1,
        calibrated_of_count: 2,
        degree: 32,
        metric: Metric::Dot,
        profile: Profile::Compact,
        unit: 0.25,
        norm_max: 5.0,
        keys_len_bytes: 3,
        calibration: [4000, 3000].map(|part| std::array::from_fn(|step| part * (step as u16 + 1))),
        page_len_bytes: 512,
        table_checksum: 0,
    };
    let sections = encoded(header.sections());
    let mut bytes = vec![0; sections.file_len_bytes() as usize];
    for (at, number) in (sections.center.start..).step_by(4).zip([0.5_f32, -1.0, 0.0]) {
        bytes[at as usize..][..4].copy_from_slice(&number.to_le_bytes());
    }
    bytes[sections.hub.start as usize] = 1;
    bytes[sections.apart.start as usize] = 1;
    for vertex in 0..2_u8 {
        let start = (sections.vertices.start + u64::from(vertex) * sections.stride_bytes) as usize;
        let row = &mut bytes[start..][..sections.stride_bytes as usize];
        // The vectors 127, 0, 0 … and -127, 0, 0 …
        row[..4].copy_from_slice(&0.5_f32.to_le_bytes());
        row[4..][..4].copy_from_slice(&4032.25_f32.to_le_bytes());
        row[8..][..2].copy_from_slice(&65_024_u16.to_le_bytes());
        row[10..][..2].copy_from_slice(&33_938_u16.to_le_bytes());
        row[12] = 1;
        row[14] = 3 * vertex;
        row[16] = 1 - vertex;
        let (planes, links) = row[24..].split_at_mut(64);
        planes[..32].fill(0x88);
        planes[0] = 0x8F - 15 * vertex;
        planes[32] = 0x0F - 14 * vertex;
        links[..128].fill(0xFF);
        links[..4].copy_from_slice(&u32::from(1 - vertex).to_le_bytes());
    }
    bytes[sections.key_ends.start as usize] = 2;
    bytes[sections.key_ends.start as usize + 8] = 3;
    bytes[sections.keys.start as usize..][..3].copy_from_slice(b"abc");
    header.table_checksum = seal_pages(graph_file::MAGIC, &mut bytes, sections.checksums.start);
    bytes[..512].copy_from_slice(&encoded(header.encode()));
    bytes
}

fn dump_graph_file(bytes: &[u8]) -> Result<String, String> {
    let header = GraphFileHeader::decode(bytes).map_err(|error| error.to_string())?;
    let sections = header.sections().map_err(|error| error.to_string())?;
    if bytes.len() as u64 != sections.file_len_bytes() {
        return Err("another length".to_owned());
    }
    let of_table = (header.page_len_bytes, sections.checksums.start, header.table_checksum);
    check_pages(graph_file::MAGIC, &header.owner, bytes, of_table)?;
    let section = |range: &std::ops::Range<u64>| &bytes[range.start as usize..range.end as usize];
    let mut dump = format!("{header:#?}\n{sections:#?}\n");
    dump.push_str(&format!("{:?}\n", elements_of(section(&sections.center), header.dimensions)));
    for part in [&sections.hub, &sections.apart, &sections.removed, &sections.twins] {
        dump.push_str(&format!("{:?}\n", section(part)));
    }
    for row in section(&sections.vertices).chunks(sections.stride_bytes as usize) {
        dump.push_str(&format!("{row:?}\n"));
    }
    for part in [&sections.key_ends, &sections.keys] {
        dump.push_str(&format!("{:?}\n", section(part)));
    }
    Ok(dump)
}

fn elements_of(row: &[u8], dimensions: u32) -> Vec<f32> {
    let elements = row.as_chunks().0.iter().take(dimensions as usize);
    elements.map(|element| f32::from_le_bytes(*element)).collect()
}

fn dump_manifest(bytes: &[u8]) -> Result<String, String> {
    let manifest = Manifest::decode(bytes).map_err(|error| error.to_string())?;
    Ok(format!("{manifest:#?}\n"))
}

fn dump_heat(bytes: &[u8]) -> Result<String, String> {
    let heat = HeatChecksums::decode(bytes).map_err(|error| error.to_string())?;
    Ok(format!("{heat:#?}\n"))
}

fn dump_heat_block(bytes: &[u8]) -> Result<String, String> {
    let counts = heat_block::decode(bytes).map_err(|error| error.to_string())?;
    Ok(format!("{counts:#?}\n"))
}
