//! The graph of a model that is in memory: its operators, and its constants.
//!
//! Everything is kept as a place in the file, so that what is not understood can be copied.

use std::collections::HashMap;
use std::io::Cursor;
use std::ops::Range;

use super::{DEPTH_MAX, OnnxError, Scan, Value, bytes_field};

/// A field of a message, as places in the file.
pub(super) struct Field {
    pub(super) number: u64,
    /// All of it.
    pub(super) whole: Range<usize>,
    /// The number, if it is one.
    pub(super) value: Option<u64>,
    /// What it holds, if that is bytes.
    pub(super) content: Option<Range<usize>>,
}

/// The file, and where its other files are.
pub(super) struct Reading<'m> {
    pub(super) model: &'m [u8],
    external: &'m HashMap<String, Vec<u8>>,
    pub(super) scan: Scan<Cursor<&'m [u8]>>,
}

impl<'m> Reading<'m> {
    pub(super) fn new(model: &'m [u8], external: &'m HashMap<String, Vec<u8>>) -> Self {
        Self { model, external, scan: Scan::new(Cursor::new(model)) }
    }

    /// Reads the fields of the message that is there.
    pub(super) fn fields(&mut self, message: &Range<usize>) -> Result<Vec<Field>, OnnxError> {
        self.scan.go_to(message.start as u64)?;
        let mut fields = Vec::new();
        let mut start = message.start;
        while let Some((number, value)) = self.scan.field(message.end as u64)? {
            let read_to = self.scan.position_bytes as usize;
            let (end, value, content) = match value {
                Value::Number(value) => (read_to, Some(value), None),
                Value::Fixed => (read_to, None, None),
                Value::Bytes { end_bytes } => {
                    let end = end_bytes as usize;
                    self.scan.go_to(end_bytes)?;
                    (end, None, Some(read_to..end))
                }
            };
            fields.push(Field { number, whole: start..end, value, content });
            start = end;
        }
        Ok(fields)
    }

    fn text(&mut self, place: &Range<usize>) -> Result<String, OnnxError> {
        self.scan.go_to(place.start as u64)?;
        self.scan.string(place.end as u64)
    }

    /// The text of the field `number` of a message; the last, if there are several.
    pub(super) fn text_of(
        &mut self,
        message: &Range<usize>,
        number: u64,
    ) -> Result<Option<String>, OnnxError> {
        let fields = self.fields(message)?;
        let field = fields.iter().rfind(|field| field.number == number);
        field.and_then(|field| field.content.clone()).map(|place| self.text(&place)).transpose()
    }

    pub(super) fn malformed(&self, what: &'static str) -> OnnxError {
        self.scan.malformed(what)
    }
}

/// What is known of an operator of the graph.
#[derive(Default)]
pub(super) struct Node {
    pub(super) inputs: Vec<String>,
    pub(super) outputs: Vec<String>,
    pub(super) name: String,
    pub(super) operator: String,
    pub(super) domain: String,
    /// Its attribute `axis`, if it has one.
    pub(super) axis: u64,
}

impl Node {
    /// Reads the node that is there; what graphs within it use goes to `used`.
    fn read(
        reading: &mut Reading<'_>,
        message: &Range<usize>,
        used: &mut HashMap<String, usize>,
        depth: u32,
    ) -> Result<Self, OnnxError> {
        let mut node = Self::default();
        for field in reading.fields(message)? {
            let Some(content) = field.content else { continue };
            match field.number {
                1 => node.inputs.push(reading.text(&content)?),
                2 => node.outputs.push(reading.text(&content)?),
                3 => node.name = reading.text(&content)?,
                4 => node.operator = reading.text(&content)?,
                5 => node.read_attribute(reading, &content, used, depth)?,
                7 => node.domain = reading.text(&content)?,
                _ => {}
            }
        }
        Ok(node)
    }

    fn read_attribute(
        &mut self,
        reading: &mut Reading<'_>,
        message: &Range<usize>,
        used: &mut HashMap<String, usize>,
        depth: u32,
    ) -> Result<(), OnnxError> {
        let is_axis = reading.text_of(message, 1)?.as_deref() == Some("axis");
        for field in reading.fields(message)? {
            match (field.number, field.value, field.content) {
                (3, Some(value), _) if is_axis => self.axis = value,
                (6 | 11, _, Some(graph)) => note_uses(reading, &graph, used, depth + 1)?,
                _ => {}
            }
        }
        Ok(())
    }
}

/// Counts what a graph within an operator uses, of the graphs around it as well.
fn note_uses(
    reading: &mut Reading<'_>,
    graph: &Range<usize>,
    used: &mut HashMap<String, usize>,
    depth: u32,
) -> Result<(), OnnxError> {
    if depth > DEPTH_MAX {
        return Err(reading.malformed("messages are nested too deeply"));
    }
    for field in reading.fields(graph)? {
        match (field.number, field.content) {
            (1, Some(content)) => {
                let node = Node::read(reading, &content, used, depth)?;
                node.inputs.into_iter().for_each(|name| *used.entry(name).or_default() += 1);
            }
            (12, Some(content)) => {
                let name = reading.text_of(&content, 1)?.unwrap_or_default();
                *used.entry(name).or_default() += 1;
            }
            _ => {}
        }
    }
    Ok(())
}

/// A constant of the graph.
pub(super) struct Tensor {
    pub(super) message: Range<usize>,
    pub(super) name: String,
    pub(super) element_type: u64,
    /// Rows and columns, if it is a matrix.
    pub(super) matrix: Option<[usize; 2]>,
}

/// The model's graph.
pub(super) struct Graph {
    pub(super) fields: Vec<Field>,
    /// By the place of the field.
    pub(super) nodes: HashMap<usize, Node>,
    pub(super) tensors: HashMap<String, Tensor>,
    /// How often each name is used.
    pub(super) used: HashMap<String, usize>,
}

impl Graph {
    pub(super) fn read(
        reading: &mut Reading<'_>,
        message: &Range<usize>,
    ) -> Result<Self, OnnxError> {
        let fields = reading.fields(message)?;
        let (mut nodes, mut tensors, mut used) = (HashMap::new(), HashMap::new(), HashMap::new());
        for field in &fields {
            match (field.number, &field.content) {
                (1, Some(content)) => {
                    let node = Node::read(reading, content, &mut used, 0)?;
                    for name in &node.inputs {
                        *used.entry(name.clone()).or_default() += 1;
                    }
                    nodes.insert(field.whole.start, node);
                }
                (5, Some(content)) => {
                    let tensor = Tensor::read(reading, content)?;
                    tensors.insert(tensor.name.clone(), tensor);
                }
                (12, Some(content)) => {
                    let name = reading.text_of(content, 1)?.unwrap_or_default();
                    *used.entry(name).or_default() += 1;
                }
                _ => {}
            }
        }
        Ok(Self { fields, nodes, tensors, used })
    }

    /// Whether a name is in the graph.
    pub(super) fn has_name(&self, name: &str) -> bool {
        self.used.contains_key(name)
            || self.tensors.contains_key(name)
            || self.nodes.values().any(|node| node.outputs.iter().any(|output| output == name))
    }
}

impl Tensor {
    pub(super) fn read(
        reading: &mut Reading<'_>,
        message: &Range<usize>,
    ) -> Result<Self, OnnxError> {
        let (mut dimensions, mut element_type, mut name) = (Vec::new(), 0, String::new());
        for field in reading.fields(message)? {
            match (field.number, field.value, field.content) {
                (1, Some(size), _) => dimensions.push(size),
                // Numbers can stand one after the other in one field.
                (1, None, Some(packed)) => {
                    reading.scan.go_to(packed.start as u64)?;
                    while reading.scan.position_bytes < packed.end as u64 {
                        dimensions.push(reading.scan.varint(packed.end as u64)?);
                    }
                }
                (2, Some(value), _) => element_type = value,
                (8, _, Some(content)) => name = reading.text(&content)?,
                _ => {}
            }
        }
        let matrix = match dimensions[..] {
            [rows, columns] => usize::try_from(rows)
                .ok()
                .zip(usize::try_from(columns).ok())
                .map(<[usize; 2]>::from),
            _ => None,
        };
        Ok(Self { message: message.clone(), name, element_type, matrix })
    }

    /// Its numbers, row by row.
    pub(super) fn floats(&self, reading: &mut Reading<'_>) -> Result<Vec<f32>, OnnxError> {
        let bytes = self.bytes(reading)?;
        let count = self.matrix.and_then(|[rows, columns]| rows.checked_mul(columns));
        let (floats, rest) = bytes.as_chunks();
        if !rest.is_empty() || count != Some(floats.len()) {
            return Err(reading.malformed("a tensor has not as many numbers as its dimensions say"));
        }
        let floats: Vec<f32> = floats.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        match floats.iter().all(|number| number.is_finite()) {
            true => Ok(floats),
            false => Err(reading.malformed("a weight is not finite")),
        }
    }

    /// The bytes of its numbers, wherever they are.
    pub(super) fn bytes(&self, reading: &mut Reading<'_>) -> Result<Vec<u8>, OnnxError> {
        let (mut bytes, mut entries) = (Vec::new(), HashMap::new());
        for field in reading.fields(&self.message)? {
            match (field.number, field.content) {
                (4 | 9, Some(content)) => bytes.extend(&reading.model[content]),
                // A number in a field of its own.
                (4, None) if field.value.is_none() => {
                    bytes.extend(&reading.model[field.whole.end - 4..field.whole.end]);
                }
                (13, Some(content)) => {
                    let key = reading.text_of(&content, 1)?.unwrap_or_default();
                    entries.insert(key, reading.text_of(&content, 2)?.unwrap_or_default());
                }
                _ => {}
            }
        }
        let Some(location) = entries.get("location") else { return Ok(bytes) };
        let number = |key: &str| entries.get(key).map(|text| text.parse::<usize>()).transpose();
        let range =
            number("offset").and_then(|offset| Ok((offset.unwrap_or(0), number("length")?)));
        let part =
            reading.external.get(location).zip(range.ok()).and_then(|(file, (start, len))| {
                let end = len.map_or(Some(file.len()), |len| start.checked_add(len))?;
                file.get(start..end)
            });
        part.map(<[u8]>::to_vec)
            .ok_or_else(|| reading.malformed("a tensor is not in the file that it names"))
    }

    /// The whole tensor, with its numbers in it.
    pub(super) fn with_own_bytes(&self, reading: &mut Reading<'_>) -> Result<Vec<u8>, OnnxError> {
        let fields = reading.fields(&self.message)?;
        let is_elsewhere = fields.iter().any(|field| field.number == 13);
        if !is_elsewhere {
            return Ok(reading.model[self.message.clone()].to_vec());
        }
        let kept = fields.iter().filter(|field| ![13, 14].contains(&field.number));
        let mut out: Vec<u8> =
            kept.flat_map(|field| &reading.model[field.whole.clone()]).copied().collect();
        out.extend(bytes_field(9, &self.bytes(reading)?));
        Ok(out)
    }
}
