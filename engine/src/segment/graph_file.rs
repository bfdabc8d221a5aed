//! A file of a graph index: written whole, read whole, every page checked.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use op_dbus_formats::FormatError;
use op_dbus_formats::graph_file::{GraphFileHeader, MAGIC, Sections};
use op_dbus_formats::page::{
    CHECKSUM_LEN_BYTES, PAGE_LEN_MAX_BYTES, page_checksum, table_checksum,
};

use super::PAGE_LEN_BYTES;
use super::pages::PageWriter;
use crate::error::{Error, ErrorKind, Result};
use crate::index::{GraphIndex, GraphOptions, GraphParts};
use crate::os::file::{remove_if_there, sync_directory};

/// Bytes that are read and checked at once.
const READ_LEN_BYTES: usize = 1 << 20;

impl GraphIndex {
    /// Writes the graph to a file, durably, in place of what has that name.
    ///
    /// `owner` says what vectors it is of: who opens the file says so again.
    ///
    /// # Errors
    /// What the disk refuses: what had the name is then still there.
    pub fn save(&self, path: &Path, owner: [u8; 16]) -> Result<()> {
        let unfinished = with_suffix(path, ".new");
        remove_if_there(&unfinished)?;
        let name = || fs::rename(&unfinished, path).map_err(|error| Error::io("name", path, error));
        self.write(&unfinished, owner).and_then(|()| name()).inspect_err(|_| {
            super::remove_or_warn(&unfinished);
        })?;
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent),
            _ => sync_directory(Path::new(".")),
        }
    }

    fn write(&self, path: &Path, owner: [u8; 16]) -> Result<()> {
        let parts = self.parts();
        let file = File::create_new(path).map_err(|error| Error::io("create", path, error))?;
        let mut writer = PageWriter::new(&file, path, (MAGIC, owner), PAGE_LEN_BYTES);
        for number in &parts.center {
            writer.write(&number.to_le_bytes())?;
        }
        writer.end_section()?;
        for id in self.hub_ids() {
            writer.write(&id.to_le_bytes())?;
        }
        writer.end_section()?;
        for rows in self.row_bytes().chunks(READ_LEN_BYTES) {
            writer.write(rows)?;
        }
        writer.end_section()?;
        let header = GraphFileHeader {
            owner,
            sequence: 0,
            seed: parts.options.seed,
            dimensions: parts.dimensions as u32,
            vertices_count: parts.vertices_count as u32,
            hub_count: self.hub_ids().len() as u32,
            degree: parts.degree as u16,
            metric: parts.options.metric,
            profile: parts.options.profile,
            unit: parts.unit,
            norm_max: parts.norm_max,
            page_len_bytes: PAGE_LEN_BYTES,
            table_checksum: writer.table_checksum(),
        };
        let page = header.encode().map_err(|error| super::unwritable(path, error))?;
        writer.write_table()?;
        // Last, so that a file that was cut short has none.
        file.write_all_at(&page, 0).map_err(|error| Error::io("write", path, error))?;
        file.sync_all().map_err(|error| Error::io("sync", path, error))
    }

    /// Reads a graph from a file, all of which is checked.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if a byte is wrong, [`ErrorKind::Unsupported`] if a later version wrote
    /// it, [`ErrorKind::Invalid`] if it is of another owner; what the disk refuses.
    pub fn open(path: &Path, owner: [u8; 16]) -> Result<Self> {
        let reader = GraphReader::open(path)?;
        let header = &reader.header;
        if header.owner != owner {
            let context = format!("{} is a graph of other vectors", path.display());
            return Err(Error::new(ErrorKind::Invalid, context)
                .with_remedy("remove it, so that it is made anew, or name another place"));
        }
        let center = reader.read(&reader.sections.center)?;
        let center = center.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let hub = reader.read(&reader.sections.hub)?;
        let hub: Vec<u32> =
            hub.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
        let parts = GraphParts {
            dimensions: header.dimensions as usize,
            options: GraphOptions {
                metric: header.metric,
                profile: header.profile,
                seed: header.seed,
            },
            center,
            unit: header.unit,
            norm_max: header.norm_max,
            degree: header.degree.into(),
            vertices_count: header.vertices_count as usize,
        };
        let fill = |rows: &mut [u8]| reader.read_into(reader.sections.vertices.start, rows);
        Self::from_parts(parts, &hub, fill).map_err(|error| match error.remedy() {
            // Every byte was as it had been written, and yet no graph.
            None if error.kind() == ErrorKind::Corrupt => {
                reader.damaged("what it says").with_source(error)
            }
            _ => error,
        })
    }
}

/// An open file, and what its pages must have for checksums.
struct GraphReader {
    file: File,
    path: PathBuf,
    header: GraphFileHeader,
    sections: Sections,
    checksums: Vec<u8>,
}

impl GraphReader {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| Error::io("open", path, error))?;
        let unreadable = |error| Error::io("read", path, error);
        let len_bytes = file.metadata().map_err(unreadable)?.len();
        let mut start = vec![0; len_bytes.min(PAGE_LEN_MAX_BYTES) as usize];
        file.read_exact_at(&mut start, 0).map_err(unreadable)?;
        let refuse = |error| undecodable(path, error);
        let header = GraphFileHeader::decode(&start).map_err(refuse)?;
        let sections = header.sections().map_err(refuse)?;
        let mut reader =
            Self { file, path: path.to_owned(), header, sections, checksums: Vec::new() };
        if reader.sections.file_len_bytes() != len_bytes {
            return Err(reader.damaged("its length"));
        }
        let range = reader.sections.checksums.clone();
        let mut table = vec![0; (range.end - range.start) as usize];
        reader.file.read_exact_at(&mut table, range.start).map_err(unreadable)?;
        if table_checksum(MAGIC, &reader.header.owner, &table) != reader.header.table_checksum {
            return Err(reader.damaged("the list of checksums"));
        }
        reader.checksums = table;
        Ok(reader)
    }

    /// Reads a section.
    fn read(&self, range: &std::ops::Range<u64>) -> Result<Vec<u8>> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        self.read_into(range.start, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads from the beginning of a section, and checks all pages that are read.
    fn read_into(&self, start: u64, bytes: &mut [u8]) -> Result<()> {
        let page_len = self.header.page_len_bytes as usize;
        let mut pages = vec![0; READ_LEN_BYTES];
        for (part, bytes) in (0..).zip(bytes.chunks_mut(READ_LEN_BYTES)) {
            let offset = start + part * READ_LEN_BYTES as u64;
            let pages = &mut pages[..bytes.len().next_multiple_of(page_len)];
            self.file
                .read_exact_at(pages, offset)
                .map_err(|error| Error::io("read", &self.path, error))?;
            for (index, page) in (offset / page_len as u64..).zip(pages.chunks(page_len)) {
                self.check(index, page)?;
            }
            bytes.copy_from_slice(&pages[..bytes.len()]);
        }
        Ok(())
    }

    fn check(&self, page_index: u64, page: &[u8]) -> Result<()> {
        let (checksums, _) = self.checksums.as_chunks::<CHECKSUM_LEN_BYTES>();
        let expected =
            checksums.get(page_index as usize - 1).map(|bytes| u64::from_le_bytes(*bytes));
        if Some(page_checksum(MAGIC, &self.header.owner, page_index, page)) == expected {
            return Ok(());
        }
        let at = page_index * self.header.page_len_bytes;
        Err(self.damaged(&format!("the page at byte {at}")))
    }

    fn damaged(&self, what: &str) -> Error {
        let path = self.path.display();
        Error::new(ErrorKind::Corrupt, format!("{path} is damaged: {what} is wrong"))
            .with_remedy("remove it, so that it is made anew")
    }
}

fn undecodable(path: &Path, error: FormatError) -> Error {
    let (kind, context, remedy) = match error {
        FormatError::UnsupportedVersion { .. } => {
            (ErrorKind::Unsupported, "is of a later version", "use the newer op-dbus, or remove it")
        }
        _ => (ErrorKind::Corrupt, "is no graph, or damaged", "remove it, so that it is made anew"),
    };
    Error::new(kind, format!("{} {context}", path.display())).with_source(error).with_remedy(remedy)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use std::num::NonZero;

    use op_dbus_formats::collection::Metric;

    use super::*;
    use crate::distance::tests::Random;
    use crate::index::{GraphSearch, Profile};

    const OWNER: [u8; 16] = [3; 16];

    fn graph(vectors: &[f32], profile: Profile) -> GraphIndex {
        let options = GraphOptions { metric: Metric::Cosine, profile, seed: 1 };
        let (dimensions, one) = (NonZero::new(16).unwrap(), NonZero::<usize>::MIN);
        GraphIndex::build(vectors, dimensions, options, one, &mut |_| Ok(())).unwrap()
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("graph");
        let vectors = Random(1).fractions(300 * 16);
        for profile in Profile::ALL {
            let graph = graph(&vectors, profile);
            graph.save(&path, OWNER).unwrap();
            let read = GraphIndex::open(&path, OWNER).unwrap();
            assert!(read.row_bytes() == graph.row_bytes() && read.hub_ids() == graph.hub_ids());
            let ask = |graph: &GraphIndex| {
                let mut search = GraphSearch::default();
                graph.search(&mut search, &vectors[..16], (10, 20), &vectors).unwrap().to_vec()
            };
            assert_eq!(ask(&read), ask(&graph));
        }
        let error = GraphIndex::open(&path, [4; 16]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn every_damage_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("graph");
        let vectors = Random(2).fractions(40 * 16);
        graph(&vectors, Profile::Compact).save(&path, OWNER).unwrap();
        let bytes = fs::read(&path).unwrap();
        // The bytes that pad the last page have its checksum as others have.
        let step = 1 + bytes.len() / 3000;
        for at in (0..bytes.len()).step_by(step).chain([bytes.len() - 1]) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            fs::write(&path, &damaged).unwrap();
            let error = GraphIndex::open(&path, OWNER).unwrap_err();
            let is_told = matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported);
            assert!(is_told && error.remedy().is_some(), "{at}: {error:?}");
        }
        for len in [0, 1, 63, 4096, 16_384, bytes.len() - 1] {
            fs::write(&path, &bytes[..len]).unwrap();
            assert_eq!(GraphIndex::open(&path, OWNER).unwrap_err().kind(), ErrorKind::Corrupt);
        }
        fs::write(&path, [&bytes[..], &[0]].concat()).unwrap();
        assert_eq!(GraphIndex::open(&path, OWNER).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
