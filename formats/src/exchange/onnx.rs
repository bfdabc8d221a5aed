//! What must be known of an ONNX file before anything is allowed to run it.
//!
//! The runtime has no call that lists the files a model refers to, and following
//! such references has been a hole more than once (CVE-2024-27318, CVE-2026-27489).
//! So the file's outline is read here, from the protobuf itself: inputs, outputs
//! and every reference to external data, wherever a tensor may stand (initializers,
//! sparse initializers, attributes, subgraphs, functions, training graphs).
//!
//! Invariants: weights are skipped, never read; a length that leaves its message,
//! an unknown wire type, too deep a nesting or too many fields end the reading, so
//! neither memory nor time depends on what a hostile file says about itself. A
//! truncated file is recognised, since its outermost length leaves the file.
//!
//! Deliberately not here: the meaning of nodes (the runtime validates the graph).
//! Source: the field numbers are those of `onnx/onnx.proto` (ONNX 1.x, proto2).

mod graph;
mod quantize;

use std::io::{self, BufRead, BufReader, Read, Seek};

pub use self::quantize::{Quantized, quantize};

/// Nesting of messages allowed: protobuf's own readers stop at 100.
const DEPTH_MAX: u32 = 100;
/// Fields allowed: a graph of a hundred thousand nodes has about a million.
const FIELDS_COUNT_MAX: u64 = 16 << 20;
/// Longest name or location taken from a file.
const STRING_LEN_BYTES_MAX: u64 = 4096;
/// Inputs, outputs, initializers and external locations kept.
const NAMES_COUNT_MAX: usize = 1 << 20;

/// `TensorProto.DataType.FLOAT`.
pub const ELEMENT_FLOAT: u64 = 1;
/// `TensorProto.DataType.INT64`.
pub const ELEMENT_INT64: u64 = 7;
/// `TensorProto.DataLocation.EXTERNAL`.
const LOCATION_EXTERNAL: u64 = 1;

/// Why a file is not an ONNX model that can be trusted.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// The system refused to read.
    #[error("reading failed")]
    Io(#[from] io::Error),
    /// A message is longer than what is left of the file.
    #[error("the file ends inside a message that starts at byte {offset_bytes}")]
    Truncated {
        /// Where the length stands.
        offset_bytes: u64,
    },
    /// The bytes are no protobuf, or no ONNX.
    #[error("{what} at byte {offset_bytes}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
        /// Where it stands.
        offset_bytes: u64,
    },
    /// The file is a protobuf without a graph.
    #[error("there is no graph in it")]
    NoGraph,
}

/// An input or an output of the graph, as the model declares it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// `TensorProto.DataType`, 0 where it is no tensor or says nothing.
    pub element_type: u64,
    /// Dimensions if a shape is declared; `None` for one that varies.
    pub shape: Option<Vec<Option<u64>>>,
}

/// The outline of a model.
#[derive(Debug, Default)]
pub struct Outline {
    /// Inputs a caller must give.
    pub inputs: Vec<Port>,
    /// Outputs a caller can ask for.
    pub outputs: Vec<Port>,
    /// Locations of external data, sorted, each once.
    pub external_locations: Vec<String>,
}

/// Reads the outline of the ONNX model in `file`.
///
/// Cost: proportional to the number of fields, not to the weights.
pub fn read_outline<R: Read + Seek>(file: R, len_bytes: u64) -> Result<Outline, OnnxError> {
    let mut scan = Scan::new(file);
    scan.message(Kind::Model, len_bytes, 0)?;
    let found = scan.found;
    if !found.has_graph {
        return Err(OnnxError::NoGraph);
    }
    // Before IR version 4 every initializer was listed among the inputs too.
    let inputs = found.inputs.into_iter().filter(|input| !found.initializers.contains(&input.name));
    let mut external_locations = found.external_locations;
    external_locations.sort_unstable();
    external_locations.dedup();
    Ok(Outline { inputs: inputs.collect(), outputs: found.outputs, external_locations })
}

/// The messages on the way to what is wanted.
#[derive(Clone, Copy)]
enum Kind {
    Model,
    /// The model's own graph: its ports are the model's ports.
    MainGraph,
    Graph,
    Node,
    Attribute,
    /// A tensor of the model's own graph: its name is no input.
    Initializer,
    Tensor,
    SparseTensor,
    Function,
    Training,
}

impl Kind {
    /// Returns the message kind of `field`, if a tensor can stand below it.
    fn child(self, field: u64) -> Option<Self> {
        match (self, field) {
            (Self::Model, 7) => Some(Self::MainGraph),
            (Self::Model, 20) => Some(Self::Training),
            (Self::Model, 25) => Some(Self::Function),
            (Self::MainGraph | Self::Graph, 1) | (Self::Function, 7) => Some(Self::Node),
            (Self::MainGraph | Self::Graph, 15) | (Self::Attribute, 22 | 23) => {
                Some(Self::SparseTensor)
            }
            (Self::Node, 5) | (Self::Function, 11) => Some(Self::Attribute),
            (Self::MainGraph, 5) => Some(Self::Initializer),
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) | (Self::SparseTensor, 1 | 2) => {
                Some(Self::Tensor)
            }
            (Self::Attribute, 6 | 11) | (Self::Training, 1 | 2) => Some(Self::Graph),
            _ => None,
        }
    }
}

#[derive(Default)]
struct Found {
    has_graph: bool,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    initializers: std::collections::HashSet<String>,
    external_locations: Vec<String>,
}

/// What is known of a tensor.
#[derive(Default)]
struct TensorHead {
    name: String,
    has_location: bool,
    external: bool,
}

/// The value of one field.
enum Value {
    /// A varint.
    Number(u64),
    /// A length-delimited value: where it ends. It has not been read.
    Bytes { end_bytes: u64 },
    /// A fixed32 or fixed64, already skipped.
    Fixed,
}

struct Scan<R> {
    reader: BufReader<R>,
    position_bytes: u64,
    fields_count: u64,
    names_count: usize,
    found: Found,
}

impl<R: Read + Seek> Scan<R> {
    fn new(file: R) -> Self {
        Self {
            reader: BufReader::with_capacity(16 << 10, file),
            position_bytes: 0,
            fields_count: 0,
            names_count: 0,
            found: Found::default(),
        }
    }

    /// Reads a message that ends at `end_bytes`, following the fields that lead to tensors.
    fn message(&mut self, kind: Kind, end_bytes: u64, depth: u32) -> Result<(), OnnxError> {
        if depth > DEPTH_MAX {
            return Err(self.malformed("messages are nested too deeply"));
        }
        let mut tensor = TensorHead::default();
        while let Some((field, value)) = self.field(end_bytes)? {
            match (kind, field, value) {
                (Kind::MainGraph, 11 | 12, Value::Bytes { end_bytes }) => {
                    let port = self.port(end_bytes)?;
                    let ports =
                        if field == 11 { &mut self.found.inputs } else { &mut self.found.outputs };
                    ports.push(port);
                }
                (Kind::Tensor | Kind::Initializer, 8, Value::Bytes { end_bytes }) => {
                    tensor.name = self.string(end_bytes)?;
                }
                (Kind::Tensor | Kind::Initializer, 13, Value::Bytes { end_bytes }) => {
                    tensor.external = true;
                    self.external_entry(end_bytes, &mut tensor)?;
                }
                (Kind::Tensor | Kind::Initializer, 14, Value::Number(location)) => {
                    tensor.external |= location == LOCATION_EXTERNAL;
                }
                (_, _, Value::Bytes { end_bytes }) => match kind.child(field) {
                    Some(child) => {
                        self.found.has_graph |= matches!(child, Kind::MainGraph);
                        self.message(child, end_bytes, depth + 1)?;
                    }
                    None => self.go_to(end_bytes)?,
                },
                (_, _, Value::Number(_) | Value::Fixed) => {}
            }
        }
        if tensor.external && !tensor.has_location {
            return Err(self.malformed("a tensor has external data without a location"));
        }
        if matches!(kind, Kind::Initializer) {
            self.found.initializers.insert(tensor.name);
        }
        Ok(())
    }

    /// Reads a `StringStringEntryProto` of a tensor's `external_data`.
    fn external_entry(&mut self, end_bytes: u64, tensor: &mut TensorHead) -> Result<(), OnnxError> {
        let (mut key, mut text) = (String::new(), String::new());
        while let Some((field, value)) = self.field(end_bytes)? {
            match (field, value) {
                (1, Value::Bytes { end_bytes }) => key = self.string(end_bytes)?,
                (2, Value::Bytes { end_bytes }) => text = self.string(end_bytes)?,
                (_, Value::Bytes { end_bytes }) => self.go_to(end_bytes)?,
                (_, Value::Number(_) | Value::Fixed) => {}
            }
        }
        if key == "location" {
            // Every location is kept: which of two a reader obeys is its own affair.
            self.found.external_locations.push(text);
            tensor.has_location = true;
        }
        Ok(())
    }

    /// Reads a `ValueInfoProto`.
    fn port(&mut self, end_bytes: u64) -> Result<Port, OnnxError> {
        let mut port = Port::default();
        while let Some((field, value)) = self.field(end_bytes)? {
            match (field, value) {
                (1, Value::Bytes { end_bytes }) => port.name = self.string(end_bytes)?,
                (2, Value::Bytes { end_bytes }) => self.port_type(end_bytes, &mut port)?,
                (_, Value::Bytes { end_bytes }) => self.go_to(end_bytes)?,
                (_, Value::Number(_) | Value::Fixed) => {}
            }
        }
        Ok(port)
    }

    /// Reads a `TypeProto`, and in it `TypeProto.Tensor`.
    fn port_type(&mut self, end_bytes: u64, port: &mut Port) -> Result<(), OnnxError> {
        while let Some((field, value)) = self.field(end_bytes)? {
            let Value::Bytes { end_bytes: tensor_end_bytes } = value else { continue };
            if field != 1 {
                self.go_to(tensor_end_bytes)?;
                continue;
            }
            while let Some((field, value)) = self.field(tensor_end_bytes)? {
                match (field, value) {
                    (1, Value::Number(element_type)) => port.element_type = element_type,
                    (2, Value::Bytes { end_bytes }) => port.shape = Some(self.shape(end_bytes)?),
                    (_, Value::Bytes { end_bytes }) => self.go_to(end_bytes)?,
                    (_, Value::Number(_) | Value::Fixed) => {}
                }
            }
        }
        Ok(())
    }

    /// Reads a `TensorShapeProto`.
    fn shape(&mut self, end_bytes: u64) -> Result<Vec<Option<u64>>, OnnxError> {
        let mut shape = Vec::new();
        while let Some((field, value)) = self.field(end_bytes)? {
            let Value::Bytes { end_bytes: dimension_end_bytes } = value else { continue };
            if field != 1 {
                self.go_to(dimension_end_bytes)?;
                continue;
            }
            let mut size = None;
            while let Some((field, value)) = self.field(dimension_end_bytes)? {
                match (field, value) {
                    // Negative sizes stand for "varies" in files of some exporters.
                    (1, Value::Number(number)) => {
                        size = (number <= i64::MAX as u64).then_some(number)
                    }
                    (_, Value::Bytes { end_bytes }) => self.go_to(end_bytes)?,
                    (_, Value::Number(_) | Value::Fixed) => {}
                }
            }
            self.count_name()?;
            shape.push(size);
        }
        Ok(shape)
    }

    /// Reads the next field of a message that ends at `end_bytes`; `None` at its end.
    fn field(&mut self, end_bytes: u64) -> Result<Option<(u64, Value)>, OnnxError> {
        if self.position_bytes == end_bytes {
            return Ok(None);
        }
        self.fields_count += 1;
        if self.fields_count > FIELDS_COUNT_MAX {
            return Err(self.malformed("there are too many fields"));
        }
        let start_bytes = self.position_bytes;
        let tag = self.varint(end_bytes)?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint(end_bytes)?),
            1 => self.fixed(8, end_bytes)?,
            2 => {
                let len_bytes = self.varint(end_bytes)?;
                if len_bytes > end_bytes - self.position_bytes {
                    return Err(OnnxError::Truncated { offset_bytes: start_bytes });
                }
                Value::Bytes { end_bytes: self.position_bytes + len_bytes }
            }
            5 => self.fixed(4, end_bytes)?,
            _ => return Err(self.malformed("a field has no known type")),
        };
        match tag >> 3 {
            0 => Err(self.malformed("a field has the number 0")),
            field => Ok(Some((field, value))),
        }
    }

    fn fixed(&mut self, len_bytes: u64, end_bytes: u64) -> Result<Value, OnnxError> {
        if len_bytes > end_bytes - self.position_bytes {
            return Err(OnnxError::Truncated { offset_bytes: self.position_bytes });
        }
        self.go_to(self.position_bytes + len_bytes)?;
        Ok(Value::Fixed)
    }

    fn varint(&mut self, end_bytes: u64) -> Result<u64, OnnxError> {
        let start_bytes = self.position_bytes;
        let mut number = 0_u64;
        for shift in (0..70).step_by(7) {
            if self.position_bytes == end_bytes {
                return Err(OnnxError::Truncated { offset_bytes: start_bytes });
            }
            let Some(&byte) = self.reader.fill_buf()?.first() else {
                return Err(OnnxError::Truncated { offset_bytes: start_bytes });
            };
            self.reader.consume(1);
            self.position_bytes += 1;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(self.malformed("a number has more than 64 bits"));
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(self.malformed("a number has more than 64 bits"))
    }

    fn string(&mut self, end_bytes: u64) -> Result<String, OnnxError> {
        let len_bytes = end_bytes - self.position_bytes;
        if len_bytes > STRING_LEN_BYTES_MAX {
            return Err(self.malformed("a name is too long"));
        }
        self.count_name()?;
        let mut bytes = Vec::new();
        let read = self.reader.by_ref().take(len_bytes).read_to_end(&mut bytes)?;
        if read as u64 != len_bytes {
            return Err(OnnxError::Truncated { offset_bytes: self.position_bytes });
        }
        let text = String::from_utf8(bytes).map_err(|_| self.malformed("a name is not UTF-8"))?;
        self.position_bytes = end_bytes;
        Ok(text)
    }

    fn count_name(&mut self) -> Result<(), OnnxError> {
        self.names_count += 1;
        if self.names_count > NAMES_COUNT_MAX {
            return Err(self.malformed("there are too many names"));
        }
        Ok(())
    }

    /// Goes to `place_bytes` without reading what lies between, if it is not buffered yet.
    fn go_to(&mut self, place_bytes: u64) -> Result<(), OnnxError> {
        let distance = i64::try_from(i128::from(place_bytes) - i128::from(self.position_bytes))
            .map_err(|_| self.malformed("a length is absurd"))?;
        self.reader.seek_relative(distance)?;
        self.position_bytes = place_bytes;
        Ok(())
    }

    fn malformed(&self, what: &'static str) -> OnnxError {
        OnnxError::Malformed { what, offset_bytes: self.position_bytes }
    }
}

/// A field of bytes, text or a message, as it stands in such a file.
#[must_use]
pub fn bytes_field(field: u64, value: &[u8]) -> Vec<u8> {
    let mut out = varint(field << 3 | 2);
    out.extend(varint(value.len() as u64));
    out.extend(value);
    out
}

/// A field of a number, as it stands in such a file.
#[must_use]
pub fn number_field(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Encodes a `ValueInfoProto`; a dimension of 0 varies.
    fn port(name: &str, element_type: u64, shape: &[u64]) -> Vec<u8> {
        let dimension = |&size: &u64| {
            bytes_field(1, &if size == 0 { bytes_field(2, b"n") } else { number_field(1, size) })
        };
        let shape = shape.iter().flat_map(dimension).collect::<Vec<_>>();
        let tensor = [number_field(1, element_type), bytes_field(2, &shape)].concat();
        [bytes_field(1, name.as_bytes()), bytes_field(2, &bytes_field(1, &tensor))].concat()
    }

    /// Encodes a `TensorProto` with external data.
    fn external_tensor(name: &str, location: &str) -> Vec<u8> {
        let entry = [bytes_field(1, b"location"), bytes_field(2, location.as_bytes())].concat();
        [
            bytes_field(8, name.as_bytes()),
            bytes_field(13, &entry),
            number_field(14, LOCATION_EXTERNAL),
        ]
        .concat()
    }

    fn outline(model: &[u8]) -> Result<Outline, OnnxError> {
        read_outline(io::Cursor::new(model), model.len() as u64)
    }

    #[test]
    fn ports_are_read_and_initializers_are_no_inputs() {
        let graph = [
            bytes_field(5, &[bytes_field(8, b"weight"), bytes_field(9, &[7; 100_000])].concat()),
            bytes_field(11, &port("input_ids", ELEMENT_INT64, &[0, 0])),
            bytes_field(11, &port("weight", ELEMENT_FLOAT, &[384])),
            bytes_field(12, &port("last_hidden_state", ELEMENT_FLOAT, &[0, 0, 384])),
        ];
        let outline =
            outline(&[number_field(1, 8), bytes_field(7, &graph.concat())].concat()).unwrap();
        let names: Vec<_> = outline.inputs.iter().map(|port| port.name.as_str()).collect();
        assert_eq!(names, ["input_ids"]);
        assert_eq!(outline.outputs[0].shape, Some(vec![None, None, Some(384)]));
        assert_eq!(outline.outputs[0].element_type, ELEMENT_FLOAT);
        assert_eq!(outline.external_locations, [""; 0]);
    }

    #[test]
    fn external_data_is_found_wherever_a_tensor_can_stand() {
        let tensor = external_tensor("t", "data.bin");
        let node = |attribute: &[u8]| bytes_field(5, attribute);
        let graph_with = |tensor: &[u8]| bytes_field(5, tensor);
        let homes: [(&str, Vec<u8>); 10] = [
            ("initializer", bytes_field(7, &graph_with(&tensor))),
            ("sparse values", bytes_field(7, &bytes_field(15, &bytes_field(1, &tensor)))),
            ("sparse indices", bytes_field(7, &bytes_field(15, &bytes_field(2, &tensor)))),
            ("attribute", bytes_field(7, &bytes_field(1, &node(&bytes_field(5, &tensor))))),
            ("attribute list", bytes_field(7, &bytes_field(1, &node(&bytes_field(10, &tensor))))),
            (
                "sparse attribute",
                bytes_field(7, &bytes_field(1, &node(&bytes_field(22, &bytes_field(1, &tensor))))),
            ),
            (
                "subgraph",
                bytes_field(7, &bytes_field(1, &node(&bytes_field(6, &graph_with(&tensor))))),
            ),
            (
                "subgraph list",
                bytes_field(7, &bytes_field(1, &node(&bytes_field(11, &graph_with(&tensor))))),
            ),
            ("function", bytes_field(25, &bytes_field(7, &node(&bytes_field(5, &tensor))))),
            ("training", bytes_field(20, &bytes_field(2, &graph_with(&tensor)))),
        ];
        for (home, message) in homes {
            let model = [message, bytes_field(7, &[])].concat();
            assert_eq!(outline(&model).unwrap().external_locations, ["data.bin"], "{home}");
        }
    }

    #[test]
    fn an_external_tensor_without_a_location_is_refused() {
        let model = bytes_field(7, &bytes_field(5, &number_field(14, LOCATION_EXTERNAL)));
        assert!(matches!(outline(&model), Err(OnnxError::Malformed { .. })));
    }

    #[test]
    fn every_truncation_is_refused() {
        let graph = [
            bytes_field(5, &external_tensor("t", "data.bin")),
            bytes_field(12, &port("last_hidden_state", ELEMENT_FLOAT, &[0, 0, 384])),
        ];
        let model = bytes_field(7, &graph.concat());
        assert!(outline(&model).is_ok());
        for len in 0..model.len() {
            let error = outline(&model[..len]).unwrap_err();
            let cut = matches!(error, OnnxError::Truncated { .. });
            assert!(cut || len == 0, "{len}: {error}");
        }
    }

    #[test]
    fn foreign_and_hostile_bytes_are_refused() {
        let mut deep = Vec::new();
        for _ in 0..200 {
            deep = bytes_field(1, &bytes_field(5, &bytes_field(6, &deep)));
        }
        let cases: [(&str, Vec<u8>); 6] = [
            ("empty", Vec::new()),
            ("html", b"<!DOCTYPE html><html></html>".to_vec()),
            ("zeros", vec![0; 4096]),
            ("group", vec![0x0b, 0x0c]),
            ("endless number", vec![0xff; 32]),
            ("deep", bytes_field(7, &deep)),
        ];
        for (name, model) in cases {
            assert!(outline(&model).is_err(), "{name}");
        }
        let long_name = bytes_field(7, &bytes_field(11, &bytes_field(1, &[b'a'; 5000])));
        assert!(matches!(outline(&long_name), Err(OnnxError::Malformed { .. })));
    }
}
