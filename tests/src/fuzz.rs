//! What must hold of every decoder and parser of the formats, whatever the bytes.
//!
//! Each function takes bytes of any kind and panics if something does not hold. The
//! fuzz targets call them with bytes that they search for, the corpus test with bytes
//! that somebody chose. A value whose checksum is wrong is soon refused, so the bytes
//! of values are also tried with a checksum that is right.

mod addresses;
mod exchange;
mod filter;
mod note_file;
mod settings;

use op_dbus_formats::arena_file::{self as arena_file_format, ArenaFileHeader, Entry};
use op_dbus_formats::embedding::{self, EncodedEmbedding, Encoding, Packing};
use op_dbus_formats::exchange::{fvecs, jsonl, onnx as onnx_format, vec_file as vec_file_format};
use op_dbus_formats::graph_file::{self as graph_file_format, GraphFileHeader, Sections};
use op_dbus_formats::header::{FILE_HEADER_LEN_BYTES, FileHeader, Magic, value_checksum};
use op_dbus_formats::heat::{self as heat_format, HeatChecksums};
use op_dbus_formats::heat_block as heat_block_format;
use op_dbus_formats::introspection::{
    self, Argument, Node, check_complete_type, check_interface_name, check_member_name,
};
use op_dbus_formats::manifest::{self as manifest_format, Manifest};
use op_dbus_formats::page;
use op_dbus_formats::{
    CollectionSpec, EmbeddingSource, HistoryEntry, JournalEntry, Mount, Payload, Record,
    SnapshotFile, StoreFile, TextError, acknowledged as acknowledged_format,
    acknowledged::Acknowledged,
    change as change_format, collection as collection_format, document as document_format,
    history as history_format, plugin as plugin_format, record as record_format,
    semantic_mapping as semantic_mapping_format, snapshot_file as snapshot_file_format,
    snapshot_stream::{self as snapshot_stream_format, Chunk, StreamStart},
    state_file as state_file_format, store_file as store_file_format,
    trace::{self as trace_format, TraceStart},
};

pub use addresses::{metrics_address, numa_list};
pub use exchange::{keys, npy, parquet};
pub use filter::filter;
pub use note_file::note_file;
pub use settings::settings;

/// A function that must not panic.
pub type Target = fn(&[u8]);

/// Every target, by the name of its folder in the corpus.
pub const TARGETS: [(&str, Target); 34] = [
    ("acknowledged", acknowledged),
    ("arena_file", arena_file),
    ("change", change),
    ("collection", collection),
    ("document", document),
    ("embedding", embedding),
    ("filter", filter),
    ("fvecs", fvecs),
    ("graph_file", graph_file),
    ("heat", heat),
    ("heat_block", heat_block),
    ("history", history),
    ("introspection", introspection),
    ("journal", journal),
    ("jsonl", jsonl),
    ("keys", keys),
    ("manifest", manifest),
    ("metrics_address", metrics_address),
    ("mount_info", mount_info),
    ("note_file", note_file),
    ("npy", npy),
    ("numa_list", numa_list),
    ("onnx", onnx),
    ("parquet", parquet),
    ("plugin", plugin),
    ("record", record),
    ("semantic_mapping", semantic_mapping),
    ("settings", settings),
    ("snapshot_file", snapshot_file),
    ("snapshot_stream", snapshot_stream),
    ("state_file", state_file),
    ("store_file", store_file),
    ("trace", trace),
    ("vec_file", vec_file),
];

/// What decodes encodes to the same bytes.
pub fn acknowledged(data: &[u8]) {
    let header_len = acknowledged_format::ACKNOWLEDGED_LEN_BYTES;
    for bytes in [data, &sealed(data, acknowledged_format::MAGIC, header_len)] {
        if let Ok(acknowledged) = Acknowledged::decode(bytes) {
            assert_eq!(acknowledged.encode(), bytes);
        }
    }
}

/// A header page that decodes encodes to the same bytes, and its sections lie one after the other.
pub fn arena_file(data: &[u8]) {
    let page_len = page::PAGE_LEN_MIN_BYTES as usize;
    let page = sealed_file(data, arena_file_format::MAGIC, page_len);
    for bytes in [data, &page] {
        let Ok(header) = ArenaFileHeader::decode(bytes) else { continue };
        let encoded = header.encode().expect("what decoded encodes");
        assert_eq!(encoded, bytes[..header.page_len_bytes as usize]);
        let sections = header.sections().expect("what decoded has sections");
        assert_eq!(sections.vector(header.rows_count - 1).end, sections.vectors.end);
        let ends = [header.page_len_bytes, sections.vectors.end, sections.rows.end];
        let starts = [sections.vectors.start, sections.rows.start, sections.index.start];
        assert!(ends.iter().zip(starts).all(|(end, start)| *end <= start));
        assert!(sections.index.end <= sections.checksums.start);
    }
    if let Some(bytes) = data.first_chunk()
        && let Ok(entry) = Entry::decode(bytes)
    {
        assert_eq!(entry.encode(), *bytes);
    }
}

/// What decodes encodes to the same bytes.
pub fn change(data: &[u8]) {
    for bytes in [data, &sealed(data, change_format::MAGIC, change_format::HEADER_LEN_BYTES)] {
        if let Ok(changes) = change_format::decode(bytes) {
            assert_eq!(change_format::encode(&changes).as_deref(), Ok(bytes));
        }
    }
}

/// What decodes encodes to the same bytes.
pub fn collection(data: &[u8]) {
    let header_len = collection_format::COLLECTION_SPEC_LEN_BYTES;
    for bytes in [data, &sealed(data, collection_format::MAGIC, header_len)] {
        if let Ok(spec) = CollectionSpec::decode(bytes) {
            assert_eq!(spec.encode().as_ref().map(|encoded| &encoded[..]), Ok(bytes));
        }
    }
    if let Ok(name) = std::str::from_utf8(data) {
        match name.parse::<op_dbus_formats::CollectionName>() {
            Ok(parsed) => assert_eq!(parsed.as_str(), name),
            Err(error) => assert!(error.to_string().len() < 2000),
        }
    }
}

/// A text becomes a document only if it comes back in every byte; what decodes from any bytes
/// keeps to its limit.
pub fn document(data: &[u8]) {
    const LEN_MAX_BYTES: usize = 1 << 16;
    if let Ok(json) = std::str::from_utf8(data)
        && let Some(bytes) = document_format::encode(json)
    {
        assert!(bytes.len() < json.len());
        assert_eq!(document_format::decode(&bytes, json.len()).as_deref(), Ok(json));
        assert!(document_format::decode(&bytes, json.len() - 1).is_err());
    }
    if let Ok(text) = document_format::decode(data, LEN_MAX_BYTES) {
        assert!(text.len() <= LEN_MAX_BYTES);
        if let Some(bytes) = document_format::encode(&text) {
            assert_eq!(document_format::decode(&bytes, text.len()), Ok(text));
        }
    }
}

/// What decodes is finite; plain floats encode to the same bytes; any finite vector
/// comes back, and from f32 with every bit.
pub fn embedding(data: &[u8]) {
    for bytes in [data, &sealed(data, embedding::MAGIC, embedding::HEADER_LEN_BYTES)] {
        let Ok(parsed) = EncodedEmbedding::parse(bytes) else { continue };
        let Ok(vector) = parsed.to_vec() else { continue };
        assert_eq!(vector.len(), parsed.dimensions());
        assert!(vector.iter().all(|number| number.is_finite()));
        if parsed.packing() == Packing::Plain && parsed.encoding() != Encoding::I8 {
            let encoded = embedding::encode(&vector, parsed.encoding(), Packing::Plain);
            assert_eq!(encoded.as_deref(), Ok(bytes));
        }
    }
    let vector: Vec<f32> =
        data.as_chunks().0.iter().map(|number| f32::from_le_bytes(*number)).collect();
    for encoding in [Encoding::F32, Encoding::F16, Encoding::I8] {
        for packing in [Packing::Plain, Packing::Planes] {
            encode_and_decode(&vector, encoding, packing);
        }
    }
}

fn encode_and_decode(vector: &[f32], encoding: Encoding, packing: Packing) {
    let Ok(bytes) = embedding::encode(vector, encoding, packing) else {
        let largest = vector.iter().fold(0.0_f32, |largest, number| largest.max(number.abs()));
        let finite = vector.iter().all(|number| number.is_finite());
        assert!(vector.is_empty() || !finite || largest > 65_504.0, "{encoding:?} {vector:?}");
        return;
    };
    let parsed = EncodedEmbedding::parse(&bytes).expect("what was encoded parses");
    assert_eq!((parsed.encoding(), parsed.dimensions()), (encoding, vector.len()));
    let decoded = parsed.to_vec().expect("what was encoded decodes");
    let again = embedding::encode(&decoded, encoding, packing).expect("what decoded encodes");
    let parsed_again = EncodedEmbedding::parse(&again).expect("what was encoded parses");
    let decoded_again = parsed_again.to_vec().expect("what was encoded decodes");
    match encoding {
        Encoding::F32 => assert_eq!(bits(&decoded), bits(vector)),
        Encoding::F16 => assert_eq!(bits(&decoded), bits(&decoded_again)),
        Encoding::I8 => {
            let largest = vector.iter().fold(0.0_f32, |largest, number| largest.max(number.abs()));
            // Half a step, and what rounding adds; scales below the normal numbers
            // have few bits or none.
            let bound = largest / 127.0 * 0.5001 + 128.0 * f32::MIN_POSITIVE;
            for (number, decoded) in vector.iter().zip(&decoded) {
                assert!((number - decoded).abs() <= bound, "{number} {decoded} {bound}");
            }
        }
    }
}

/// A header page that decodes encodes to the same bytes, and its sections lie one after the other.
pub fn graph_file(data: &[u8]) {
    let page_len = page::PAGE_LEN_MIN_BYTES as usize;
    let sealed = sealed_file(data, graph_file_format::MAGIC, page_len);
    for bytes in [data, &sealed] {
        let Ok(header) = GraphFileHeader::decode(bytes) else { continue };
        let encoded = header.encode().expect("what decoded encodes");
        assert_eq!(encoded, bytes[..header.page_len_bytes as usize]);
        let sections = header.sections().expect("what decoded has sections");
        let Sections { center, hub, apart, removed, twins, vertices, key_ends, .. } =
            sections.clone();
        let Sections { keys, checksums, .. } = sections;
        let mut end = header.page_len_bytes;
        for section in [center, hub, apart, removed, twins, vertices, key_ends, keys, checksums] {
            assert!(end <= section.start && section.start <= section.end);
            end = section.end;
        }
    }
}

/// Rows that decode encode to the bytes they were decoded from.
pub fn fvecs(data: &[u8]) {
    let (mut vector, mut encoded, mut offset) = (Vec::new(), Vec::new(), 0);
    while let Ok(len) = fvecs::decode_row(&data[offset..], &mut vector) {
        assert_eq!(len, fvecs::row_len_bytes(vector.len()));
        fvecs::encode_row(&vector, &mut encoded).expect("what decoded encodes");
        offset += len;
    }
    assert_eq!(encoded, data[..offset]);
}

/// Elements that decode are the bytes after a count of them.
pub fn vec_file(data: &[u8]) {
    let Ok(vector) = vec_file_format::decode(data) else { return };
    let elements: Vec<u8> = vector.iter().flat_map(|element| element.to_le_bytes()).collect();
    let count = data.strip_suffix(&elements[..]).expect("the elements end the file");
    let fixed = (vector.len() as u64).to_le_bytes();
    assert!(count == fixed || [1, 3, 5].contains(&count.len()), "{count:?}");
}

/// A list that decodes encodes to the same bytes.
pub fn heat(data: &[u8]) {
    let len = data.len().max(FILE_HEADER_LEN_BYTES);
    for bytes in [data, &sealed_file(data, heat_format::MAGIC, len)] {
        if let Ok(list) = HeatChecksums::decode(bytes) {
            assert_eq!(list.encode().as_deref(), Ok(bytes));
        }
    }
}

/// What decodes encodes to the same bytes.
pub fn heat_block(data: &[u8]) {
    let header_len = heat_block_format::HEADER_LEN_BYTES;
    for bytes in [data, &sealed(data, heat_block_format::MAGIC, header_len)] {
        if let Ok(counts) = heat_block_format::decode(bytes) {
            assert_eq!(heat_block_format::encode(&counts).as_deref(), Ok(bytes));
        }
    }
}

/// What decodes encodes to the same bytes.
pub fn history(data: &[u8]) {
    for bytes in [data, &sealed(data, history_format::MAGIC, history_format::HEADER_LEN_BYTES)] {
        if let Ok(entry) = HistoryEntry::decode(bytes) {
            assert_eq!(entry.encode().as_deref(), Ok(bytes));
        }
    }
}

/// What decodes encodes to the same bytes, and has the hash that it came with.
pub fn journal(data: &[u8]) {
    if let Ok((entry, hash)) = JournalEntry::decode(data) {
        assert_eq!(entry.encode(), Ok((data.to_vec(), hash)));
    }
}

/// What is parsed has valid names and types, and documentation without loose ends.
pub fn introspection(data: &[u8]) {
    match introspection::parse(data) {
        Ok(node) => check_node(&node),
        Err(error) => assert!(error.line > 0 && error.column > 0 && error.problem.len() < 2000),
    }
}

fn check_node(node: &Node) {
    node.nodes.iter().for_each(check_node);
    for interface in &node.interfaces {
        check_interface_name(&interface.name).expect("a valid interface");
        check_text(interface.documentation.as_deref());
        for method in &interface.methods {
            check_member_name(&method.name).expect("a valid method");
            check_text(method.documentation.as_deref());
            method.arguments.iter().for_each(check_argument);
        }
        for signal in &interface.signals {
            check_member_name(&signal.name).expect("a valid signal");
            check_text(signal.documentation.as_deref());
            signal.arguments.iter().for_each(check_argument);
        }
        for property in &interface.properties {
            check_complete_type(&property.type_signature).expect("a valid type");
            check_text(property.documentation.as_deref());
        }
    }
}

fn check_argument(argument: &Argument) {
    check_complete_type(&argument.type_signature).expect("a valid type");
    check_text(argument.documentation.as_deref());
}

fn check_text(text: Option<&str>) {
    let Some(text) = text else { return };
    assert!(!text.is_empty() && text.trim() == text, "{text:?}");
    assert!(!text.contains("  ") && !text.contains("\n\n\n"), "{text:?}");
    assert!(text.chars().all(|character| character == '\n' || !character.is_control()), "{text:?}");
}

/// What is parsed renders to a line that is parsed to the same record, and that line
/// renders to itself.
pub fn jsonl(data: &[u8]) {
    let Ok(mut record) = jsonl::parse_line(data, 1) else { return };
    let mut line = Vec::new();
    jsonl::render_line(&record, &mut line).expect("what was parsed renders");
    assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
    let parsed = jsonl::parse_line(&line, 1).expect("what was rendered parses");
    let vectors = [&record, &parsed].map(|record| record.vector.as_deref().map(bits));
    assert_eq!(vectors[0], vectors[1]);
    // Between the tokens of a payload a line break is white space as any other.
    if let Payload::Json(json) = &mut record.payload {
        *json = json.replace('\r', " ").into();
    }
    assert_eq!(parsed, record);
    let mut again = Vec::new();
    jsonl::render_line(&parsed, &mut again).expect("what was parsed renders");
    assert_eq!(again, line);
}

/// A slot that decodes encodes to the same bytes, and counts where its generation belongs.
pub fn manifest(data: &[u8]) {
    let slot = sealed_file(data, manifest_format::MAGIC, manifest_format::SLOT_LEN_BYTES);
    for bytes in [data, &slot] {
        let Ok(manifest) = Manifest::decode(bytes) else { continue };
        assert_eq!(manifest.encode().as_ref().map(|slot| &slot[..]), Ok(bytes));
        let before = vec![0; manifest_format::slot_index(manifest.generation) * bytes.len()];
        let (newest, problems) = manifest_format::newest(&[&before, bytes].concat());
        assert_eq!((newest, problems.len()), (Some(manifest), 0));
    }
    if let (Some(newest), _) = manifest_format::newest(data) {
        assert!(newest.generation > 0);
    }
}

/// A mount that is found is above the path.
pub fn mount_info(data: &[u8]) {
    const PATH: &[u8] = b"/var/lib/op-dbus";
    if let Some(mount) = Mount::of_path(data, PATH) {
        assert!(PATH.starts_with(&mount.mount_point));
        for option in &mount.options {
            let name = option.split('=').next().expect("a text has a beginning");
            assert!(name.is_empty() || mount.option(name).is_some(), "{option}");
        }
    }
}

/// What is read of a model lies in the file, and nothing of it has no name.
pub fn onnx(data: &[u8]) {
    let read = onnx_format::read_outline(std::io::Cursor::new(data), data.len() as u64);
    if let Ok(outline) = read {
        let lies_inside =
            |text: &str| data.windows(text.len().max(1)).any(|bytes| bytes == text.as_bytes());
        let ports = outline.inputs.iter().chain(&outline.outputs).map(|port| &port.name);
        let texts = ports.chain(&outline.external_locations).filter(|text| !text.is_empty());
        texts.for_each(|text| assert!(lies_inside(text), "{text:?}"));
        assert!(outline.external_locations.is_sorted());
    }
    quantized_onnx(data);
}

/// A model in eight bits has the ports of the model, and nothing more to quantize.
fn quantized_onnx(data: &[u8]) {
    let none = std::collections::HashMap::new();
    let Ok(Some(quantized)) = onnx_format::quantize(data, &none) else { return };
    let ports = |model: &[u8]| {
        let outline =
            onnx_format::read_outline(std::io::Cursor::new(model), model.len() as u64).ok()?;
        Some((outline.inputs, outline.outputs))
    };
    let before = ports(data);
    assert!(before.is_none() || ports(&quantized.model) == before);
    let again = onnx_format::quantize(&quantized.model, &none);
    assert!(matches!(again, Ok(None)), "{again:?}");
}

/// What is parsed renders to a file that is parsed to the same plugin.
pub fn plugin(data: &[u8]) {
    match plugin_format::parse(data) {
        Ok(plugin) => {
            let text = plugin_format::render(&plugin);
            assert_eq!(plugin_format::parse(text.as_bytes()), Ok(plugin), "{text}");
        }
        Err(error) => check_place(data, &error),
    }
}

/// What is parsed renders to a file that is parsed to the same mapping; its patterns match or do
/// not.
pub fn semantic_mapping(data: &[u8]) {
    match semantic_mapping_format::parse(data) {
        Ok(mapping) => {
            let text = semantic_mapping_format::render(&mapping);
            for method in mapping.methods.values() {
                for (arg, rules) in &method.validation {
                    let secret = rules.check(arg, &"text".into(), true);
                    let shown = rules.check(arg, &"text".into(), false);
                    assert_eq!(secret.is_ok(), shown.is_ok());
                }
            }
            assert_eq!(semantic_mapping_format::parse(text.as_bytes()), Ok(mapping), "{text}");
        }
        Err(error) => check_place(data, &error),
    }
}

/// What is parsed renders to a file that is parsed to the same state.
pub fn state_file(data: &[u8]) {
    match state_file_format::parse(data) {
        Ok(file) => {
            let text = state_file_format::render(&file);
            assert_eq!(state_file_format::parse(text.as_bytes()), Ok(file), "{text}");
        }
        Err(error) => check_place(data, &error),
    }
}

/// The place of an error lies in the text or at its end.
fn check_place(text: &[u8], error: &TextError) {
    let lines: Vec<&[u8]> = text.split(|&byte| byte == b'\n').collect();
    let line = usize::try_from(error.line - 1).ok().and_then(|index| lines.get(index));
    let line = line.unwrap_or_else(|| panic!("no such line: {error}"));
    assert!(error.column >= 1 && error.column <= line.len() as u64 + 1, "{error}");
    assert!(!error.problem.is_empty() && error.problem.len() < 10_000, "{error}");
}

/// What decodes encodes to the same bytes, unless its payload is a document, or an earlier version
/// wrote the key of its text's embedding; and to the same record in any case.
pub fn record(data: &[u8]) {
    const VERSION_OF_DOCUMENTS: u8 = 2;
    for bytes in [data, &sealed(data, record_format::MAGIC, record_format::HEADER_LEN_BYTES)] {
        if let Ok(record) = Record::decode(bytes) {
            let encoded = record.encode().expect("what decoded encodes");
            let is_of_text = record.embedding == EmbeddingSource::Text;
            assert!(encoded == bytes || bytes[1] == VERSION_OF_DOCUMENTS || is_of_text);
            assert_eq!(Record::decode(&encoded).as_ref(), Ok(&record));
            assert_eq!(Record::decode_expiry(bytes), Ok(record.expires_at_unix_ms));
            assert_eq!(record.clone().into_owned(), record);
        }
    }
}

/// What decodes encodes to the same bytes.
pub fn snapshot_file(data: &[u8]) {
    let payload = data.get(FILE_HEADER_LEN_BYTES..).unwrap_or_default();
    let header =
        FileHeader::of_payload(snapshot_file_format::MAGIC, snapshot_file_format::VERSION, payload);
    let resealed = [&header.encode(), payload].concat();
    for bytes in [data, &resealed] {
        if let Ok(snapshot) = SnapshotFile::decode(bytes) {
            assert_eq!(snapshot.encode().as_ref().map(|encoded| &encoded[..]), Ok(bytes));
        }
    }
}

/// A start that decodes encodes to the same bytes, and a chunk to one that decodes to the same.
pub fn snapshot_stream(data: &[u8]) {
    let payload = data.get(FILE_HEADER_LEN_BYTES..).unwrap_or_default();
    let (magic, version) = (snapshot_stream_format::MAGIC, snapshot_stream_format::VERSION);
    let header = FileHeader::of_payload(magic, version, payload);
    for bytes in [data, &[&header.encode(), payload].concat()] {
        if let Ok(start) = StreamStart::decode(bytes) {
            assert_eq!(start.encode().as_ref().map(|encoded| &encoded[..]), Ok(bytes));
            let header = bytes.first_chunk().expect("it has a header");
            assert_eq!(StreamStart::len_bytes(header), Ok(bytes.len()));
        }
    }
    let header_len = snapshot_stream_format::CHUNK_HEADER_LEN_BYTES;
    for bytes in [data, &sealed(data, magic, header_len)] {
        let Some(header) = bytes.first_chunk() else { return };
        let number = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        if let Ok(chunk) = Chunk::decode(bytes, number) {
            assert_eq!(Chunk::len_bytes(header), Ok(bytes.len()));
            let again = chunk.encode(number).expect("what was decoded can be encoded");
            assert_eq!(Chunk::decode(&again, number), Ok(chunk));
        }
    }
}

/// What decodes encodes to the same bytes.
pub fn store_file(data: &[u8]) {
    let payload = data.get(FILE_HEADER_LEN_BYTES..).unwrap_or_default();
    let header =
        FileHeader::of_payload(store_file_format::MAGIC, store_file_format::VERSION, payload);
    let resealed = [&header.encode(), payload].concat();
    for bytes in [data, &resealed] {
        if let Ok(store) = StoreFile::decode(bytes) {
            assert_eq!(store.encode().as_ref().map(|encoded| &encoded[..]), Ok(bytes));
        }
    }
}

/// What decodes encodes to the same bytes, and a block has the length that its header tells.
pub fn trace(data: &[u8]) {
    let payload = data.get(FILE_HEADER_LEN_BYTES..).unwrap_or_default();
    let header = FileHeader::of_payload(trace_format::MAGIC, trace_format::VERSION, payload);
    for bytes in [data, &[&header.encode(), payload].concat()] {
        if let Ok(start) = TraceStart::decode(bytes) {
            assert_eq!(start.encode(), bytes);
        }
    }
    let header_len = trace_format::BLOCK_HEADER_LEN_BYTES;
    for bytes in [data, &sealed(data, trace_format::MAGIC, header_len)] {
        let Some(header) = bytes.first_chunk() else { return };
        let number = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        if let Ok(accesses) = trace_format::decode_block(bytes, number) {
            assert_eq!(trace_format::block_len_bytes(header), Ok(bytes.len()));
            assert_eq!(trace_format::encode_block(number, &accesses).as_deref(), Ok(bytes));
            assert!(trace_format::decode_block(bytes, number.wrapping_add(1)).is_err());
        }
    }
}

/// Returns the bytes with a header of this format in place of their first ones, cut or filled up
/// with zeros to this length.
fn sealed_file(data: &[u8], magic: Magic, len_bytes: usize) -> Vec<u8> {
    let mut bytes = data.to_vec();
    bytes.resize(len_bytes, 0);
    let (header, payload) = bytes.split_at_mut(FILE_HEADER_LEN_BYTES);
    let version = op_dbus_formats::header::FormatVersion(1);
    header.copy_from_slice(&FileHeader::of_payload(magic, version, payload).encode());
    bytes
}

/// Returns the bytes of a value with a checksum that is right: the last eight bytes of
/// its header.
fn sealed(data: &[u8], magic: Magic, header_len_bytes: usize) -> Vec<u8> {
    let mut bytes = data.to_vec();
    if let Some((header, body)) = bytes.split_at_mut_checked(header_len_bytes) {
        let (head, checksum) = header.split_at_mut(header_len_bytes - 8);
        checksum.copy_from_slice(&value_checksum(magic, head, body).to_le_bytes());
    }
    bytes
}

fn bits(vector: &[f32]) -> Vec<u32> {
    vector.iter().map(|number| number.to_bits()).collect()
}
