//! Writing an arena file: one pass over the rows, one buffer, the header last.
//!
//! The header is written when all else is, so a file that was cut short has none. Nothing here
//! makes the file count: that is the manifest's.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use op_dbus_formats::arena_file::{ArenaFileHeader, ENTRY_LEN_BYTES, Entry, MAGIC, stride_bytes};
use op_dbus_formats::header::checksum;
use op_dbus_formats::manifest::ManifestFile;

use super::unwritable;
use crate::error::{Error, ErrorKind, Result};
use crate::pages::PageWriter;

/// What an arena file is to say of all its rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ArenaContent {
    /// Elements of every vector.
    pub(crate) dimensions: u32,
    /// Sequence of the last committed change that is in the rows.
    pub(crate) sequence: u64,
    /// Which life of the embedding cache the vectors are from.
    pub(crate) cache_generation: u64,
    /// Rows are taken up to this number, and space for so many must be free beforehand.
    pub(crate) rows_count_max: u32,
}

/// One row to write. The vector may be a slice, or a guard of one, or a copy.
#[derive(Clone, Debug)]
pub(crate) struct ArenaRow<V> {
    pub(crate) key: u128,
    /// 0 for never.
    pub(crate) expires_at_unix_ms: u64,
    pub(crate) vector: V,
}

/// Writes a new file and makes its bytes durable, but not its name. `None` if there are no rows:
/// the file is then empty.
///
/// Cost: 32 bytes of memory for each row, and a buffer.
pub(super) fn write<V: AsRef<[f32]>>(
    path: &Path,
    (store_id, page_len_bytes): ([u8; 16], u64),
    content: &ArenaContent,
    rows: impl Iterator<Item = ArenaRow<V>>,
) -> Result<Option<ManifestFile>> {
    let file = File::create_new(path).map_err(|error| Error::io("create", path, error))?;
    let mut writer = PageWriter::new(&file, path, (MAGIC, store_id), page_len_bytes);
    let mut entries = write_vectors(&mut writer, content, rows)?;
    if entries.is_empty() {
        return Ok(None);
    }
    writer.end_section()?;
    write_entries(&mut writer, &entries)?;
    entries.sort_unstable_by_key(|entry| entry.key);
    if let Some(pair) = entries.windows(2).find(|pair| pair[0].key == pair[1].key) {
        let key = pair[0].key;
        let context = format!("two rows of {} have the key {key:032x}", path.display());
        return Err(Error::new(ErrorKind::Invalid, context));
    }
    write_entries(&mut writer, &entries)?;
    let header = ArenaFileHeader {
        store_id,
        sequence: content.sequence,
        cache_generation: content.cache_generation,
        dimensions: content.dimensions,
        rows_count: entries.len() as u32,
        page_len_bytes,
        table_checksum: writer.table_checksum(),
    };
    let len_bytes = writer.write_table()?;
    let page = header.encode().map_err(|error| unwritable(path, error))?;
    file.write_all_at(&page, 0).map_err(|error| Error::io("write", path, error))?;
    file.sync_all().map_err(|error| Error::io("sync", path, error))?;
    Ok(Some(ManifestFile {
        name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        len_bytes,
        header_checksum: checksum(&page),
        sequence: content.sequence,
        cache_generation: content.cache_generation,
        dimensions: content.dimensions,
    }))
}

fn write_vectors<V: AsRef<[f32]>>(
    writer: &mut PageWriter<'_>,
    content: &ArenaContent,
    rows: impl Iterator<Item = ArenaRow<V>>,
) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut bytes = vec![0; stride_bytes(content.dimensions) as usize];
    for (row, item) in (0..content.rows_count_max).zip(rows) {
        let vector = item.vector.as_ref();
        if vector.len() != content.dimensions as usize {
            let (found, expected) = (vector.len(), content.dimensions);
            let key = item.key;
            let context = format!("the vector of {key:032x} has {found} elements, not {expected}");
            return Err(Error::new(ErrorKind::Invalid, context));
        }
        for (bytes, element) in bytes.as_chunks_mut().0.iter_mut().zip(vector) {
            *bytes = element.to_le_bytes();
        }
        writer.write(&bytes)?;
        let (key, expires_at_unix_ms) = (item.key, item.expires_at_unix_ms);
        entries.push(Entry { key, expires_at_unix_ms, row });
    }
    Ok(entries)
}

fn write_entries(writer: &mut PageWriter<'_>, entries: &[Entry]) -> Result<()> {
    for entry in entries {
        let bytes: [u8; ENTRY_LEN_BYTES] = entry.encode();
        writer.write(&bytes)?;
    }
    writer.end_section()
}
