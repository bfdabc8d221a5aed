//! Bytes that every later version must read, and that no damage may change in silence.
//!
//! `golden/<format>/v<version>/` holds encoded values, each beside a dump of what it decodes to.
//! `UPDATE_GOLDEN=1` writes them anew, which is right only for a version that nobody stores in.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use op_dbus_formats::acknowledged::Acknowledged;
use op_dbus_formats::embedding::{self, EncodedEmbedding, Encoding, Packing};
use op_dbus_formats::exchange::jsonl::{self, ExchangeRecord};
use op_dbus_formats::exchange::{fvecs, npy};
use op_dbus_formats::snapshot_stream::{Chunk, StreamParent, StreamStart};
use op_dbus_formats::{
    Actor, Change, CollectionId, CollectionSpec, EmbeddingSource, FormatError, HistoryEntry,
    JournalEntry, JournalKind, Metric, ModelFingerprint, Operation, Payload, Record, SnapshotFile,
    StoreFile, TraceStart, TracedAccess, change, document, introspection, note_file, trace,
};
use support::derived;

/// A golden file: where it lies, what it is made of and how it is read.
struct Golden {
    format: &'static str,
    version: u8,
    name: &'static str,
    bytes: Vec<u8>,
    dump: fn(&[u8]) -> Result<String, String>,
    protection: Protection,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Protection {
    /// Every bit is under a checksum.
    Checksum,
    /// As above, and which bytes a value has is up to a version of zstd.
    ChecksumOfCompressed,
    /// A format of others, without a checksum.
    None,
}

impl Golden {
    fn path(&self, extension: &str) -> PathBuf {
        folder(self.format, self.version).join(format!("{}.{extension}", self.name))
    }
}

fn folder(format: &str, version: u8) -> PathBuf {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    golden.join(format).join(format!("v{version}"))
}

fn goldens() -> Vec<Golden> {
    let mut goldens = values();
    goldens.extend(second_versions());
    goldens.push(journaled());
    goldens.push(noted());
    goldens.extend(documents());
    goldens.extend(embeddings());
    goldens.extend(exchanged());
    goldens.extend(derived::samples().into_iter().map(derived_golden));
    goldens
}

fn noted() -> Golden {
    let bytes = note_file::encode(br#"{"hits":12}"#).unwrap();
    let (format, name, dump) = ("note_file", "counters", dump_note_file as fn(&[u8]) -> _);
    Golden { format, version: 1, name, bytes, dump, protection: Protection::Checksum }
}

fn derived_golden(derived::Sample { format, name, bytes, dump }: derived::Sample) -> Golden {
    Golden { format, version: 1, name, bytes, dump, protection: Protection::Checksum }
}

fn values() -> Vec<Golden> {
    let acknowledged = Acknowledged { sequence: 123_456_789 };
    let store = StoreFile {
        store_id: std::array::from_fn(|index| index as u8 + 1),
        hash_seed: 0x0123_4567_89AB_CDEF,
        created_unix_ms: 1_700_000_000_000,
    };
    let snapshot = taken(store.store_id);
    let full = Record {
        payload: Payload::Json(r#"{"state": "up", "mtu": 1500}"#.into()),
        text: Some("wired network, grüßt".into()),
        embedding: EmbeddingSource::Text,
        expires_at_unix_ms: Some(1_800_000_000_000),
    };
    let given = Record {
        payload: Payload::Bytes(Cow::Borrowed(&[0, 255, 10])),
        text: None,
        embedding: EmbeddingSource::Given,
        expires_at_unix_ms: None,
    };
    let change = removal_of(b"org.\xFF");
    let spec = CollectionSpec {
        id: CollectionId(3),
        dimensions: 384,
        metric: Metric::Cosine,
        encoding: Encoding::F16,
        model: Some(ModelFingerprint(std::array::from_fn(|index| 0xF0 | index as u8))),
        created_unix_ms: 1_700_000_000_000,
        versions_kept: 0,
    };
    let put = HistoryEntry {
        written_at_unix_ms: 1_700_000_000_000,
        record: Some(&Record::default().encode().unwrap()),
    };
    let removal = HistoryEntry { written_at_unix_ms: 1_700_000_000_001, record: None };
    let value = |format, name, bytes, dump| Golden {
        format,
        version: 1,
        name,
        bytes,
        dump,
        protection: Protection::Checksum,
    };
    vec![
        value("acknowledged", "sequence", acknowledged.encode().to_vec(), dump_acknowledged),
        value("snapshot_file", "snapshot", snapshot.encode().unwrap(), dump_snapshot_file),
        value("store_file", "store", store.encode().unwrap().to_vec(), dump_store_file),
        value("record", "empty", Record::default().encode().unwrap(), dump_record),
        value("record", "full", full.encode().unwrap(), dump_record),
        value("record", "given", given.encode().unwrap(), dump_record),
        value("change", "remove", change::encode(&[change]).unwrap(), dump_changes),
        value("collection", "model", spec.encode().unwrap().to_vec(), dump_collection),
        value("history", "put", put.encode().unwrap(), dump_history),
        value("history", "remove", removal.encode().unwrap(), dump_history),
        value("trace", "accesses", traced(), dump_trace),
        Golden {
            format: "snapshot_stream",
            version: 1,
            name: "increment",
            bytes: sent(snapshot),
            dump: dump_snapshot_stream,
            protection: Protection::ChecksumOfCompressed,
        },
    ]
}

fn taken(store_id: [u8; 16]) -> SnapshotFile {
    SnapshotFile {
        store_id,
        sequence: 123_456_789,
        taken_unix_ms: 1_800_000_000_000,
        files_sum: 0x0123_4567_89AB_CDEF_0011_2233_4455_6677,
        files_count: 17,
        is_kept: true,
        reason: "before the upgrade, grüßt".to_owned(),
    }
}

fn removal_of(key: &[u8]) -> Change<'_> {
    Change { operation: Operation::Remove, collection: CollectionId(3), key }
}

/// Values that only the second version of their format can say.
fn second_versions() -> Vec<Golden> {
    let documents = CollectionSpec {
        id: CollectionId(1),
        dimensions: 0,
        metric: Metric::Cosine,
        encoding: Encoding::F32,
        model: None,
        created_unix_ms: 1_700_000_000_000,
        versions_kept: 10,
    };
    let value = |format, name, bytes, dump| Golden {
        format,
        version: 2,
        name,
        bytes,
        dump,
        protection: Protection::Checksum,
    };
    let changes = [
        removal_of(b"org.\xFF"),
        Change { operation: Operation::Put, collection: CollectionId(258), key: b"a" },
        removal_of(b"a"),
    ];
    let large = Record { payload: Payload::Json(large_json().into()), ..Record::default() };
    vec![
        value("collection", "documents", documents.encode().unwrap().to_vec(), dump_collection),
        value("change", "several", change::encode(&changes).unwrap(), dump_changes),
        value("record", "document", large.encode().unwrap(), dump_large_record),
    ]
}

/// JSON that is long enough to be stored as a document, which is short.
fn large_json() -> String {
    let word = "w".repeat(2000);
    let rows: Vec<String> =
        (0..530).map(|row| format!("{{\"row\":{row},\"word\":\"{word}\"}}")).collect();
    format!("[{}]", rows.join(","))
}

const DOCUMENT: &str = r#"{
  "hosts": [
    {"name": "web1", "name": "twice", "load": -0.05, "up": true, "disks": []},
    {"name": "web1", "name": "\u00e9\/", "load": 1.50, "up": null, "disks": {}}
  ],
  "numbers": [0, -0, 1e5, 9223372036854775808, 123456789]
}
"#;

/// The same without white space that no program writes, in three styles that programs do.
fn documents() -> Vec<Golden> {
    let compact: String = DOCUMENT.split_whitespace().collect();
    let spaced = compact.replace(',', ", ").replace(':', ": ");
    let indented = "{\n  \"a\": [\n    \"long enough to be a string\",\n    \
         \"long enough to be a string\",\n    {}\n  ]\n}\n";
    let document = |name, json: &str| Golden {
        format: "document",
        version: 1,
        name,
        bytes: document::encode(json).unwrap(),
        dump: dump_document,
        protection: Protection::None,
    };
    vec![document("compact", &compact), document("spaced", &spaced), document("indented", indented)]
}

fn traced() -> Vec<u8> {
    let start = TraceStart {
        store_id: std::array::from_fn(|index| index as u8 + 1),
        started_unix_ms: 1_700_000_000_000,
    };
    let access = |key_hash, vector_len_bytes| TracedAccess { key_hash, vector_len_bytes };
    let accesses = [access(0x0123_4567_89AB_CDEF, 1536), access(0, 8), access(u64::MAX, u32::MAX)];
    [&start.encode()[..], &trace::encode_block(0, &accesses).unwrap()].concat()
}

fn embeddings() -> Vec<Golden> {
    let short = [0.0, -0.5, 0.25, 1.0, 1.0e-30, -3.0];
    let exponents: Vec<f32> = (0..96).map(|index| ((index % 7) as f32 - 3.0) / 64.0).collect();
    let embedding = |name, vector: &[f32], encoding, packing, protection| Golden {
        format: "embedding",
        version: 1,
        name,
        bytes: embedding::encode(vector, encoding, packing).unwrap(),
        dump: dump_embedding,
        protection,
    };
    let (sealed, compressed) = (Protection::Checksum, Protection::ChecksumOfCompressed);
    vec![
        embedding("f32-plain", &short, Encoding::F32, Packing::Plain, sealed),
        embedding("f16-plain", &short, Encoding::F16, Packing::Plain, sealed),
        embedding("i8-plain", &short, Encoding::I8, Packing::Plain, sealed),
        embedding("f32-planes", &exponents, Encoding::F32, Packing::Planes, compressed),
        embedding("f16-planes", &exponents, Encoding::F16, Packing::Planes, compressed),
        embedding("i8-planes", &exponents, Encoding::I8, Packing::Planes, compressed),
    ]
}

fn exchanged() -> Vec<Golden> {
    let record = ExchangeRecord {
        key: Cow::Borrowed(b"net/eth0"),
        text: Some("wired \"network\"\n".into()),
        vector: Some(vec![0.1, -0.0, 1.0e-45, f32::MAX]),
        payload: Payload::Json(r#"{"b": 1.50, "a": [1e400]}"#.into()),
        expires_at_unix_ms: Some(u64::MAX),
    };
    let mut line = Vec::new();
    jsonl::render_line(&record, &mut line).unwrap();
    let bytes = ExchangeRecord {
        key: Cow::Borrowed(b"\xFF"),
        text: None,
        vector: None,
        payload: Payload::Bytes(Cow::Borrowed(&[0, 1, 2, 3])),
        expires_at_unix_ms: None,
    };
    let mut bytes_line = Vec::new();
    jsonl::render_line(&bytes, &mut bytes_line).unwrap();
    let mut rows = Vec::new();
    fvecs::encode_row(&[1.0, -2.0], &mut rows).unwrap();
    fvecs::encode_row(&[0.5], &mut rows).unwrap();
    let exchanged = |format, name, bytes, dump| Golden {
        format,
        version: 1,
        name,
        bytes,
        dump,
        protection: Protection::None,
    };
    vec![
        exchanged("jsonl", "full", line, dump_jsonl),
        exchanged("jsonl", "bytes", bytes_line, dump_jsonl),
        exchanged("npy", "header", npy::render_header(300, 384).unwrap(), dump_npy),
        exchanged("fvecs", "rows", rows, dump_fvecs),
        exchanged("introspection", "disk", DISK.as_bytes().to_vec(), dump_introspection),
    ]
}

const DISK: &str = r#"<?xml version="1.0"?>
<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">
<!-- Copyright is for this document to have, and not for the node. -->
<node name="/org/example/Disk">
  <!--
      org.example.Disk1:
      @short_description: A disk.

      Can be <emphasis>mounted</emphasis> and watched.
  -->
  <interface name="org.example.Disk1">
    <annotation name="org.freedesktop.DBus.Deprecated" value="true"/>
    <!--
        Mount:
        @target: Where to, such as
            <filename>/mnt</filename>.
        @options: How (see #org.example.Disk1:Options).
        @handle: What to unmount with.

        Mounts the disk &amp; waits until it is there.

        <variablelist>
          <varlistentry><term>read-only b</term><listitem><para>
            Whether %TRUE is enough.
          </para></listitem></varlistentry>
        </variablelist>

        Since: 1.2
    -->
    <method name="Mount">
      <arg name="target" type="s" direction="in"/>
      <arg name="options" type="a{sv}" direction="in"/>
      <arg name="handle" type="(ux)" direction="out"/>
    </method>
    <property name="Options" type="a{sv}" access="readwrite">
      <annotation name="org.gtk.GDBus.DocString" value="What Mount does if not told otherwise."/>
    </property>
    <signal name="Mounted">
      <doc:doc><doc:description><doc:para>After a mount.</doc:para></doc:description></doc:doc>
      <arg type="s"/>
    </signal>
  </interface>
  <node name="partitions"/>
</node>
"#;

/// An increment of one chunk.
fn sent(snapshot: SnapshotFile) -> Vec<u8> {
    let ids = |first: u8| std::array::from_fn(|part| [first + part as u8; 16]);
    let start = StreamStart {
        first_chunk: 0,
        ids: ids(1),
        parent: Some(StreamParent { ids: ids(5), name: "20261126T120305Z".to_owned() }),
        name: "20261126T130305Z".to_owned(),
        snapshot,
    };
    let content = b"what the file system sends ".repeat(9);
    let end = Chunk::End { sum: 0x0123_4567_89AB_CDEF };
    [
        start.encode().unwrap(),
        Chunk::Part { part: 2, content }.encode(0).unwrap(),
        end.encode(1).unwrap(),
    ]
    .concat()
}

fn dump_snapshot_stream(bytes: &[u8]) -> Result<String, String> {
    let failed = |error: FormatError| error.to_string();
    let header = bytes.first_chunk().ok_or("too short")?;
    let len = StreamStart::len_bytes(header).map_err(failed)?;
    let (start, mut rest) = bytes.split_at_checked(len).ok_or("too short")?;
    let mut dump = format!("{:#?}\n", StreamStart::decode(start).map_err(failed)?);
    for number in 0.. {
        let header = rest.first_chunk().ok_or("no end")?;
        let len = Chunk::len_bytes(header).map_err(failed)?;
        let (chunk, after) = rest.split_at_checked(len).ok_or("too short")?;
        rest = after;
        match Chunk::decode(chunk, number).map_err(failed)? {
            Chunk::Part { part, content } => {
                dump += &format!("part {part}: {}\n", content.escape_ascii());
            }
            Chunk::End { sum } => {
                dump += &format!("end: {sum:#x}\n");
                break;
            }
        }
    }
    if rest.is_empty() { Ok(dump) } else { Err("more follows".to_owned()) }
}

fn journaled() -> Golden {
    let entry = JournalEntry {
        number: 2,
        written_at_unix_ms: 1_700_000_000_000,
        sequence: 42,
        kind: JournalKind::Outcome,
        intent: Some(1),
        actor: Some(Actor { uid: 1000, sender: ":1.42", executable: "/usr/bin/op-dbus" }),
        action: "call org.freedesktop.hostname1.SetHostname",
        details: r#"{"succeeded":true,"answer":"grüßt"}"#,
        previous: std::array::from_fn(|index| index as u8),
    };
    Golden {
        format: "journal",
        version: 1,
        name: "outcome",
        bytes: entry.encode().unwrap().0,
        dump: dump_journal,
        protection: Protection::Checksum,
    }
}

fn dump_journal(bytes: &[u8]) -> Result<String, String> {
    JournalEntry::decode(bytes).map(|entry| format!("{entry:#?}\n")).map_err(|e| e.to_string())
}

fn dump_snapshot_file(bytes: &[u8]) -> Result<String, String> {
    let snapshot = SnapshotFile::decode(bytes).map_err(|error| error.to_string())?;
    Ok(format!("{snapshot:#?}\n"))
}

fn dump_store_file(bytes: &[u8]) -> Result<String, String> {
    let store = StoreFile::decode(bytes).map_err(|error| error.to_string())?;
    // The seed of a store that matters is not printed; this one does not.
    Ok(format!("{store:#?}\nhash_seed: {:#018x}\n", store.hash_seed))
}

fn dump_record(bytes: &[u8]) -> Result<String, String> {
    let record = Record::decode(bytes).map_err(|error| error.to_string())?;
    Ok(format!("{record:#?}\n"))
}

/// Dumps of what is long only its length.
fn dump_large_record(bytes: &[u8]) -> Result<String, String> {
    let mut record = Record::decode(bytes).map_err(|error| error.to_string())?;
    let Payload::Json(json) = std::mem::take(&mut record.payload) else { panic!("{record:?}") };
    assert!(json == large_json());
    Ok(format!("{} bytes of JSON\n{record:#?}\n", json.len()))
}

fn dump_document(bytes: &[u8]) -> Result<String, String> {
    document::decode(bytes, 1 << 20).map_err(|error| error.to_string())
}

fn dump_history(bytes: &[u8]) -> Result<String, String> {
    let entry = HistoryEntry::decode(bytes).map_err(|error| error.to_string())?;
    let record = entry.record.map(dump_record).transpose()?.unwrap_or_default();
    Ok(format!("{:?} at {}\n{record}", entry.operation(), entry.written_at_unix_ms))
}

fn dump_note_file(bytes: &[u8]) -> Result<String, String> {
    let note = note_file::decode(bytes).map_err(|error| error.to_string())?;
    Ok(format!("{}\n", String::from_utf8_lossy(note)))
}

fn dump_acknowledged(bytes: &[u8]) -> Result<String, String> {
    let acknowledged = Acknowledged::decode(bytes).map_err(|error| error.to_string())?;
    Ok(format!("{acknowledged:#?}\n"))
}

fn dump_trace(bytes: &[u8]) -> Result<String, String> {
    let split = bytes.split_at_checked(trace::TRACE_START_LEN_BYTES).ok_or("no start")?;
    let start = TraceStart::decode(split.0).map_err(|error| error.to_string())?;
    let accesses = trace::decode_block(split.1, 0).map_err(|error| error.to_string())?;
    Ok(format!("{start:#?}\n{accesses:#?}\n"))
}

fn dump_changes(bytes: &[u8]) -> Result<String, String> {
    let changes = change::decode(bytes).map_err(|error| error.to_string())?;
    Ok(changes.iter().map(|change| format!("{change:#?}\n")).collect())
}

fn dump_collection(bytes: &[u8]) -> Result<String, String> {
    let spec = CollectionSpec::decode(bytes).map_err(|error| error.to_string())?;
    Ok(format!("{spec:#?}\n"))
}

fn dump_embedding(bytes: &[u8]) -> Result<String, String> {
    let parsed = EncodedEmbedding::parse(bytes).map_err(|error| error.to_string())?;
    let vector = parsed.to_vec().map_err(|error| error.to_string())?;
    let name = (parsed.encoding().name(), parsed.packing().name());
    Ok(format!("{} {}\n{vector:?}\n", name.0, name.1))
}

fn dump_jsonl(bytes: &[u8]) -> Result<String, String> {
    let record = jsonl::parse_line(bytes, 1).map_err(|error| error.to_string())?;
    Ok(format!("{record:#?}\n"))
}

fn dump_npy(bytes: &[u8]) -> Result<String, String> {
    let header = npy::NpyHeader::parse(bytes).map_err(|error| error.to_string())?;
    Ok(format!("{header:#?}\n"))
}

fn dump_fvecs(bytes: &[u8]) -> Result<String, String> {
    let (mut dump, mut vector, mut offset) = (String::new(), Vec::new(), 0);
    while offset < bytes.len() {
        offset +=
            fvecs::decode_row(&bytes[offset..], &mut vector).map_err(|error| error.to_string())?;
        dump.push_str(&format!("{vector:?}\n"));
    }
    Ok(dump)
}

fn dump_introspection(bytes: &[u8]) -> Result<String, String> {
    let node = introspection::parse(bytes).map_err(|error| error.to_string())?;
    Ok(format!("{node:#?}\n"))
}

#[test]
fn golden_files_are_read_and_written_as_ever() {
    for golden in goldens() {
        let (bytes_path, dump_path) = (golden.path("bin"), golden.path("txt"));
        if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
            fs::create_dir_all(bytes_path.parent().unwrap()).unwrap();
            fs::write(&bytes_path, &golden.bytes).unwrap();
            fs::write(&dump_path, (golden.dump)(&golden.bytes).unwrap()).unwrap();
        }
        let shown = bytes_path.display();
        let bytes = fs::read(&bytes_path).unwrap_or_else(|error| panic!("{shown}: {error}"));
        let dump = fs::read_to_string(&dump_path).unwrap();
        assert_eq!((golden.dump)(&bytes), Ok(dump), "{shown}");
        if golden.protection != Protection::ChecksumOfCompressed {
            assert_eq!(bytes, golden.bytes, "{shown} is not what is written today");
        }
    }
}

#[test]
fn no_golden_file_is_forgotten() {
    let expected: BTreeSet<PathBuf> =
        goldens().iter().flat_map(|golden| [golden.path("bin"), golden.path("txt")]).collect();
    let folders: BTreeSet<PathBuf> =
        goldens().iter().map(|golden| folder(golden.format, golden.version)).collect();
    let found: BTreeSet<PathBuf> = folders
        .iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn no_truncation_and_no_flipped_bit_passes_for_a_value() {
    let sealed = |golden: &Golden| golden.protection != Protection::None;
    let mut damaged_count = 0;
    for golden in goldens().into_iter().filter(sealed) {
        let bytes = fs::read(golden.path("bin")).unwrap();
        let refuse = |damaged: &[u8], what: &str| {
            if let Ok(dump) = (golden.dump)(damaged) {
                panic!("{}: {what} decodes to\n{dump}", golden.path("bin").display());
            }
        };
        for len in 0..bytes.len() {
            refuse(&bytes[..len], &format!("the first {len} bytes"));
        }
        refuse(&[&bytes[..], &[0]].concat(), "a byte more");
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            refuse(&damaged, &format!("bit {bit} flipped"));
            damaged_count += 1;
        }
    }
    assert!(damaged_count > 5000, "only {damaged_count} bits were flipped");
}

#[test]
fn no_golden_file_of_one_format_passes_for_another() {
    let goldens = goldens();
    let sealed: Vec<&Golden> =
        goldens.iter().filter(|golden| golden.protection != Protection::None).collect();
    for golden in &sealed {
        for other in sealed.iter().filter(|other| other.format != golden.format) {
            let (format, other_format) = (golden.format, other.format);
            assert!((other.dump)(&golden.bytes).is_err(), "{format} passes for {other_format}");
        }
    }
}
