//! Samples of the files that are derived, and what they decode to: vectors, manifest, heat.

use op_dbus_formats::arena_file::{
    ArenaFileHeader, CHECKSUM_LEN_BYTES, ENTRY_LEN_BYTES, Entry, page_checksum, table_checksum,
};
use op_dbus_formats::heat::{HeatChecksums, HeatFile};
use op_dbus_formats::heat_block::{self, Count};
use op_dbus_formats::manifest::{Manifest, ManifestFile};

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
    let (pages, table) = bytes.split_at_mut(sections.checksums.start as usize);
    for ((index, page), checksum) in
        (0..).zip(pages.chunks(512)).skip(1).zip(table.chunks_mut(CHECKSUM_LEN_BYTES))
    {
        checksum.copy_from_slice(&page_checksum(&STORE_ID, index, page).to_le_bytes());
    }
    header.table_checksum = table_checksum(&STORE_ID, table);
    bytes[..512].copy_from_slice(&encoded(header.encode()));
    bytes
}

fn dump_arena_file(bytes: &[u8]) -> Result<String, String> {
    let header = ArenaFileHeader::decode(bytes).map_err(|error| error.to_string())?;
    let sections = header.sections().map_err(|error| error.to_string())?;
    if bytes.len() as u64 != sections.file_len_bytes() {
        return Err("another length".to_owned());
    }
    let (pages, table) = bytes.split_at(sections.checksums.start as usize);
    if table_checksum(&header.store_id, table) != header.table_checksum {
        return Err("wrong checksums".to_owned());
    }
    let page_len = header.page_len_bytes as usize;
    let checksums = table.chunks(CHECKSUM_LEN_BYTES);
    for ((index, page), checksum) in (0..).zip(pages.chunks(page_len)).skip(1).zip(checksums) {
        if page_checksum(&header.store_id, index, page).to_le_bytes() != checksum {
            return Err(format!("page {index} is damaged"));
        }
    }
    let mut dump = format!("{header:#?}\n{sections:#?}\n");
    for section in [&sections.rows, &sections.index] {
        let section = &bytes[section.start as usize..section.end as usize];
        for bytes in section.as_chunks::<ENTRY_LEN_BYTES>().0 {
            let entry = Entry::decode(bytes).map_err(|error| error.to_string())?;
            let vector = sections.vector(entry.row);
            let elements =
                elements_of(&pages[vector.start as usize..vector.end as usize], header.dimensions);
            dump.push_str(&format!("{entry:?} {elements:?}\n"));
        }
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
