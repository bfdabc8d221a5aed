//! A file of a graph index: written whole, then mapped, every page checked before it is believed.

use std::fs::{self, File};
use std::ops::{ControlFlow, Range};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use op_dbus_formats::FormatError;
use op_dbus_formats::graph_file::{GraphFileHeader, MAGIC, Sections};
use op_dbus_formats::page::PAGE_LEN_MAX_BYTES;

use super::PAGE_LEN_BYTES;
use crate::error::{Error, ErrorKind, Result};
use crate::index::{GraphIndex, GraphOptions, GraphParts, Twin};
use crate::os::file::{remove_if_there, sync_directory};
use crate::os::map::MapUse;
use crate::pages::{CheckedMap, PageWriter, PagedFile};

/// Bytes that are handed to the writer at once.
const WRITTEN_LEN_BYTES: usize = 2 << 20;

const REMEDY: &str = "remove it, so that it is made anew";

/// What a file says beside its graph.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GraphContent {
    /// What the vectors are of.
    pub(crate) owner: [u8; 16],
    /// Sequence of the last committed change that is in the graph.
    pub(crate) sequence: u64,
}

/// The keys of the vertices of a graph, in its file.
pub(crate) struct MappedKeys {
    map: Arc<CheckedMap>,
    ends: Range<u64>,
    keys: Range<u64>,
}

impl MappedKeys {
    /// The key of a vertex.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if the file is damaged.
    pub(crate) fn get(&self, id: u32) -> Result<&[u8]> {
        let start = if id == 0 { 0 } else { self.end(id - 1)? };
        let end = self.end(id)?;
        if start > end || end > self.keys.end - self.keys.start {
            let at = self.ends.start + 8 * u64::from(id);
            return Err(self.map.damage(at, "a key ends nowhere", None));
        }
        self.map.verified_bytes(self.keys.start + start..self.keys.start + end)
    }

    fn end(&self, id: u32) -> Result<u64> {
        let start = self.ends.start + 8 * u64::from(id);
        if start >= self.ends.end {
            return Err(self.map.damage(start, "there is no such key", None));
        }
        let bytes = self.map.verified_bytes(start..start + 8)?;
        Ok(u64::from_le_bytes(bytes.try_into().expect("eight bytes were asked for")))
    }
}

impl GraphIndex {
    /// Writes the graph to a file, durably, in place of what has that name.
    ///
    /// `owner` says what vectors it is of: who opens the file says so again.
    ///
    /// # Errors
    /// What the disk refuses: what had the name is then still there.
    pub fn save(&self, path: &Path, owner: [u8; 16]) -> Result<()> {
        self.save_with_keys(path, GraphContent { owner, sequence: 0 }, None)
    }

    /// As [`GraphIndex::save`], with the key of each row.
    pub(crate) fn save_with_keys(
        &self,
        path: &Path,
        content: GraphContent,
        keys: Option<&dyn Fn(u32) -> Vec<u8>>,
    ) -> Result<()> {
        let unfinished = with_suffix(path, ".new");
        remove_if_there(&unfinished)?;
        let name = || fs::rename(&unfinished, path).map_err(|error| Error::io("name", path, error));
        let written = self.write(&unfinished, content, keys);
        written.and_then(|()| name()).inspect_err(|_| {
            super::remove_or_warn(&unfinished);
        })?;
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent),
            _ => sync_directory(Path::new(".")),
        }
    }

    fn write(
        &self,
        path: &Path,
        content: GraphContent,
        keys: Option<&dyn Fn(u32) -> Vec<u8>>,
    ) -> Result<()> {
        let parts = self.parts();
        let ids = 0..parts.rows_count as u32;
        let keys_len = keys.map_or(0, |keys| ids.clone().map(|id| keys(id).len() as u64).sum());
        let mut header = header_of(&parts, content, keys_len);
        let file = File::create_new(path).map_err(|error| Error::io("create", path, error))?;
        let mut writer = PageWriter::new(&file, path, (MAGIC, content.owner), PAGE_LEN_BYTES);
        for number in &parts.center {
            writer.write(&number.to_le_bytes())?;
        }
        writer.end_section()?;
        writer.write(&parts.hub)?;
        writer.end_section()?;
        for ids in [&parts.apart, &parts.removed] {
            for id in ids {
                writer.write(&id.to_le_bytes())?;
            }
            writer.end_section()?;
        }
        for twin in &parts.twins {
            for id in [twin.vertex, twin.id] {
                writer.write(&id.to_le_bytes())?;
            }
        }
        writer.end_section()?;
        for rows in self.row_bytes().chunks(WRITTEN_LEN_BYTES) {
            writer.write(rows)?;
        }
        writer.end_section()?;
        if let Some(keys) = keys.filter(|_| keys_len > 0) {
            let mut end = 0;
            for id in ids.clone() {
                end += keys(id).len() as u64;
                writer.write(&end.to_le_bytes())?;
            }
            writer.end_section()?;
            for id in ids {
                writer.write(&keys(id))?;
            }
            writer.end_section()?;
        }
        header.table_checksum = writer.table_checksum();
        let page = header.encode().map_err(|error| super::unwritable(path, error))?;
        writer.write_table()?;
        // Last, so that a file that was cut short has none.
        file.write_all_at(&page, 0).map_err(|error| Error::io("write", path, error))?;
        file.sync_all().map_err(|error| Error::io("sync", path, error))
    }

    /// Opens the graph in a file, which is mapped, and read where searches come by; every page is
    /// checked before it is believed.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if a byte is wrong that is looked at now, [`ErrorKind::Unsupported`] if
    /// a later version wrote it, [`ErrorKind::Invalid`] if it is of another owner; what the disk
    /// refuses.
    pub fn open(path: &Path, owner: [u8; 16]) -> Result<Self> {
        Self::open_with_keys(path, owner).map(|(graph, ..)| graph)
    }

    /// As [`GraphIndex::open`], with the sequence and the keys that are in the file.
    pub(crate) fn open_with_keys(
        path: &Path,
        owner: [u8; 16],
    ) -> Result<(Self, u64, Option<MappedKeys>)> {
        let (header, sections, map) = open_file(path)?;
        if header.owner != owner {
            let context = format!("{} is a graph of other vectors", path.display());
            return Err(Error::new(ErrorKind::Invalid, context)
                .with_remedy("remove it, so that it is made anew, or name another place"));
        }
        let numbers =
            |range: &Range<u64>| Ok::<_, Error>(map.verified_bytes(range.clone())?.as_chunks().0);
        let center = numbers(&sections.center)?.iter().map(|bytes| f32::from_le_bytes(*bytes));
        let ids = |range| {
            let ids = numbers(range)?.iter().map(|bytes| u32::from_le_bytes(*bytes));
            Ok::<Vec<u32>, Error>(ids.collect())
        };
        let pairs = ids(&sections.twins)?;
        let twins = pairs.as_chunks::<2>().0;
        let parts = GraphParts {
            dimensions: header.dimensions as usize,
            options: GraphOptions {
                metric: header.metric,
                profile: header.profile,
                seed: header.seed,
            },
            center: center.collect(),
            unit: header.unit,
            norm_max: header.norm_max,
            degree: header.degree.into(),
            rows_count: header.vertices_count as usize,
            live_count: header.live_count as usize,
            hub: map.verified_bytes(sections.hub.clone())?.to_vec(),
            hub_rows_count: header.hub_count as usize,
            hub_of_count: header.hub_of_count as usize,
            apart: ids(&sections.apart)?,
            removed: ids(&sections.removed)?,
            twins: twins.iter().map(|[vertex, id]| Twin { vertex: *vertex, id: *id }).collect(),
            calibration: header.calibration,
            calibrated_of_count: header.calibrated_of_count as usize,
        };
        let keys = (header.keys_len_bytes > 0).then(|| MappedKeys {
            map: Arc::clone(&map),
            ends: sections.key_ends.clone(),
            keys: sections.keys.clone(),
        });
        let opened = Self::from_file(parts, Arc::clone(&map), sections.vertices.start as usize);
        let graph = opened.map_err(|error| match error.remedy() {
            // Every byte was as it had been written, and yet no graph.
            None => map.damage(0, "it holds no graph", Some(error.into())),
            Some(_) => error,
        })?;
        Ok((graph, header.sequence, keys))
    }
}

/// Reads a whole file again, and compares everything in it with its checksums; `read` hears of the
/// bytes and may end it.
///
/// # Errors
/// [`ErrorKind::Corrupt`] if a byte is wrong: the file is then marked.
pub(crate) fn verify(
    path: &Path,
    mut read: impl FnMut(u64) -> ControlFlow<()>,
) -> Result<ControlFlow<()>> {
    let (header, sections, map) = open_file(path)?;
    let mut page = Vec::new();
    let pages = header.page_len_bytes..sections.checksums.start;
    for start in pages.step_by(header.page_len_bytes as usize) {
        map.read(start..start + header.page_len_bytes, &mut page)?;
        if read(header.page_len_bytes).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn header_of(parts: &GraphParts, content: GraphContent, keys_len_bytes: u64) -> GraphFileHeader {
    GraphFileHeader {
        owner: content.owner,
        sequence: content.sequence,
        seed: parts.options.seed,
        dimensions: parts.dimensions as u32,
        vertices_count: parts.rows_count as u32,
        hub_count: parts.hub_rows_count as u32,
        live_count: parts.live_count as u32,
        apart_count: parts.apart.len() as u32,
        removed_count: parts.removed.len() as u32,
        hub_of_count: parts.hub_of_count as u32,
        twins_count: parts.twins.len() as u32,
        degree: parts.degree as u16,
        metric: parts.options.metric,
        profile: parts.options.profile,
        unit: parts.unit,
        norm_max: parts.norm_max,
        keys_len_bytes,
        calibration: parts.calibration,
        calibrated_of_count: parts.calibrated_of_count as u32,
        page_len_bytes: PAGE_LEN_BYTES,
        table_checksum: 0,
    }
}

fn open_file(path: &Path) -> Result<(GraphFileHeader, Sections, Arc<CheckedMap>)> {
    let file = File::open(path).map_err(|error| Error::io("open", path, error))?;
    let unreadable = |error| Error::io("read", path, error);
    let len_bytes = file.metadata().map_err(unreadable)?.len();
    let mut start = vec![0; len_bytes.min(PAGE_LEN_MAX_BYTES) as usize];
    file.read_exact_at(&mut start, 0).map_err(unreadable)?;
    let refuse = |error| undecodable(path, error);
    let header = GraphFileHeader::decode(&start).map_err(refuse)?;
    let sections = header.sections().map_err(refuse)?;
    let paged = PagedFile {
        magic: MAGIC,
        owner: header.owner,
        page_len_bytes: header.page_len_bytes,
        table: sections.checksums.clone(),
        table_checksum: header.table_checksum,
        remedy: REMEDY,
    };
    if sections.file_len_bytes() != len_bytes {
        return Err(paged.damaged(path, "its length is not what its header says"));
    }
    let map = CheckedMap::open(file, path, paged, MapUse::Whole)?;
    Ok((header, sections, Arc::new(map)))
}

fn undecodable(path: &Path, error: FormatError) -> Error {
    let (kind, context, remedy) = match error {
        FormatError::UnsupportedVersion { .. } => {
            (ErrorKind::Unsupported, "is of a later version", "use the newer op-dbus, or remove it")
        }
        _ => (ErrorKind::Corrupt, "is no graph, or damaged", REMEDY),
    };
    Error::new(kind, format!("{} {context}", path.display())).with_source(error).with_remedy(remedy)
}

fn with_suffix(path: &Path, suffix: &str) -> std::path::PathBuf {
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
    use crate::index::{DenseVectors, GraphFilter, GraphSearch, Neighbour, Profile, SearchOptions};

    const OWNER: [u8; 16] = [3; 16];

    fn graph(vectors: &[f32], profile: Profile) -> GraphIndex {
        let options = GraphOptions { metric: Metric::Cosine, profile, seed: 1 };
        let (dimensions, one) = (NonZero::new(16).unwrap(), NonZero::<usize>::MIN);
        GraphIndex::build(vectors, dimensions, options, one, &mut |_| Ok(())).unwrap()
    }

    fn ask(graph: &GraphIndex, vectors: &[f32]) -> Result<Vec<Neighbour>> {
        let mut search = GraphSearch::default();
        let options = SearchOptions { limit: 10, effort: 60, filter: GraphFilter::All };
        let dense = DenseVectors::new(vectors, 16);
        Ok(graph.search(&mut search, &vectors[..16], &options, &dense)?.to_vec())
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
            assert!(read.row_bytes() == graph.row_bytes());
            let ask = |graph: &GraphIndex| ask(graph, &vectors).unwrap();
            assert_eq!(ask(&read), ask(&graph));
        }
        let error = GraphIndex::open(&path, [4; 16]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        let keys = |id: u32| vec![b'k'; id as usize % 3 + 1];
        let content = GraphContent { owner: OWNER, sequence: 77 };
        let graph = graph(&vectors, Profile::Speed);
        graph.save_with_keys(&path, content, Some(&keys)).unwrap();
        let (read, sequence, found) = GraphIndex::open_with_keys(&path, OWNER).unwrap();
        let found = found.unwrap();
        assert_eq!(sequence, 77);
        assert!((0..300).all(|id| found.get(id).unwrap() == keys(id)));
        assert_eq!(found.get(300).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(ask(&read, &vectors).unwrap(), ask(&graph, &vectors).unwrap());
    }

    /// More rows than are worth a thread, in a map that nobody has read.
    #[test]
    fn a_scan_on_many_threads_finds_what_one_finds() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("graph");
        let vectors = Random(2).fractions(13_000 * 16);
        let graph = graph(&vectors, Profile::Compact);
        graph.save(&path, OWNER).unwrap();
        let dense = DenseVectors::new(&vectors, 16);
        let third = (0..13_000).filter(|id| id % 3 == 1).collect();
        for filter in [GraphFilter::All, GraphFilter::Among(&third)] {
            let ask = |graph: &GraphIndex, threads: usize| {
                let mut search = GraphSearch::on_threads(NonZero::new(threads).unwrap());
                let query = &vectors[..16];
                let found = graph.search_exact(&mut search, query, (20, filter), &dense);
                (found.unwrap().to_vec(), search.counts())
            };
            let alone = ask(&graph, 1);
            assert_eq!(alone.0.len(), 20);
            for threads in [2, 3, 64] {
                let together = ask(&GraphIndex::open(&path, OWNER).unwrap(), threads);
                assert_eq!(together.0, alone.0, "{threads} threads, {filter:?}");
                assert_eq!(together.1.scanned, alone.1.scanned);
            }
        }
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
            let asked = GraphIndex::open(&path, OWNER)
                .and_then(|mut graph| ask(&graph, &vectors).and_then(|_| graph.detach()));
            let error = asked.unwrap_err();
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
