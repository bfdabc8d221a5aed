//! The weights of a model in eight bits instead of thirty-two.
//!
//! What is written anew: products of matrices with constant weights become `MatMulNBits`, which
//! ONNX Runtime has beside the standard operators, with a scale for every 64 weights of a column; the
//! tables of embeddings get a scale for each row. Everything else is copied byte for byte.
//!
//! Why not the standard's own `DynamicQuantizeLinear` and `MatMulInteger`: they scale a whole batch
//! at once, so that the vector of a text depends on the texts beside it, and runtimes saturate their
//! sums on processors without VNNI. Measured with all-MiniLM-L6-v2 (300 texts, ONNX Runtime 1.32), as
//! cosine to the vector of 32-bit weights and elements' greatest change with the batch: 0.9947
//! and 3e-2, here 0.9995 and 1e-7; as cosine between an AVX-512 VNNI processor and one of AVX2 alone:
//! 0.993 and 0.9999. That costs speed: 1.2 and 11.4 ms for 12 and 128 tokens where those need 0.6
//! and 6.2, and 32-bit weights 3.0 and 14.9.
//!
//! Invariant: a file that does not say what it must is refused whole.
//! Source: `docs/ContribOperators.md` of ONNX Runtime (`MatMulNBits`).

use std::collections::{HashMap, HashSet};

use super::graph::{Field, Graph, Node, Reading, Tensor};
use super::{ELEMENT_FLOAT, OnnxError, bytes_field, number_field};

/// Weights that share a scale, along the columns of a matrix.
const BLOCK_LEN: usize = 64;
/// What stands for the weight 0; scales are symmetric.
const ZERO: f32 = 128.0;
/// A block is filled up, so that fewer rows would hardly become shorter.
const PRODUCT_ROWS_COUNT_MIN: usize = 16;
/// A table with fewer rows is small, and one of its rows may be part of every token.
const TABLE_ROWS_COUNT_MIN: usize = 256;
/// A scale for fewer numbers would hardly save anything.
const TABLE_COLUMNS_COUNT_MIN: usize = 16;
/// The domain of the runtime's own operators.
const RUNTIME_DOMAIN: &str = "com.microsoft";
/// `TensorProto.DataType` of unsigned and signed bytes.
const ELEMENT_U8: u64 = 2;
const ELEMENT_I8: u64 = 3;
/// `AttributeProto.AttributeType.INT`.
const ATTRIBUTE_INT: u64 = 2;
/// A protobuf file must be shorter than 2 GiB.
const MODEL_LEN_BYTES_MAX: usize = (2 << 30) - 1;

/// A model whose weights have eight bits.
#[derive(Debug)]
pub struct Quantized {
    /// The file.
    pub model: Vec<u8>,
    /// Products of matrices that were replaced.
    pub products_count: usize,
    /// Tables that were replaced.
    pub tables_count: usize,
}

/// Quantizes `model`, if it has weights that can be; `external` gives the files that it takes weights
/// from, by their location.
///
/// Cost: reads every weight; the result is all in memory.
///
/// # Errors
/// Those of [`super::read_outline`]; [`OnnxError::Malformed`] if a weight is not finite or not there,
/// or the result would be too long.
pub fn quantize(
    model: &[u8],
    external: &HashMap<String, Vec<u8>>,
) -> Result<Option<Quantized>, OnnxError> {
    let mut reading = Reading::new(model, external);
    let outer = reading.fields(&(0..model.len()))?;
    let graphs: Vec<&Field> = outer.iter().filter(|field| field.number == 7).collect();
    let graph = match graphs[..] {
        [graph] => graph.content.clone().ok_or(OnnxError::NoGraph)?,
        [] => return Err(OnnxError::NoGraph),
        _ => return Err(reading.malformed("there are two graphs")),
    };
    let graph = Graph::read(&mut reading, &graph)?;
    let plan = Plan::new(&graph);
    if plan.weights.is_empty() {
        return Ok(None);
    }
    let graph = plan.write(&mut reading, &graph)?;
    let mut out = Vec::new();
    let mut has_domain = false;
    for field in &outer {
        match (field.number, &field.content) {
            (7, Some(_)) => out.extend(bytes_field(7, &graph)),
            (8, Some(content)) => {
                has_domain |= reading.text_of(content, 1)?.as_deref() == Some(RUNTIME_DOMAIN);
                out.extend(&model[field.whole.clone()]);
            }
            _ => out.extend(&model[field.whole.clone()]),
        }
    }
    if !has_domain {
        let version = [bytes_field(1, RUNTIME_DOMAIN.as_bytes()), number_field(2, 1)].concat();
        out.extend(bytes_field(8, &version));
    }
    if out.len() > MODEL_LEN_BYTES_MAX {
        return Err(reading.malformed("even in eight bits there are more than 2 GiB"));
    }
    let products_count = plan.count(Role::Product);
    let tables_count = plan.count(Role::Table);
    Ok(Some(Quantized { model: out, products_count, tables_count }))
}

/// How the constant of an operator is used.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Role {
    /// Something is multiplied with it.
    Product,
    /// Rows are taken from it.
    Table,
}

/// The constant of a node, if it can be replaced, and how it is used.
fn replaceable<'g>(graph: &'g Graph, node: &Node) -> Option<(Role, &'g Tensor)> {
    let (role, constant, size_min) = match (&node.operator[..], &node.inputs[..]) {
        ("MatMul", [_, constant]) => (Role::Product, constant, [PRODUCT_ROWS_COUNT_MIN, 1]),
        ("Gather", [constant, _]) if node.axis == 0 => {
            (Role::Table, constant, [TABLE_ROWS_COUNT_MIN, TABLE_COLUMNS_COUNT_MIN])
        }
        _ => return None,
    };
    let tensor = graph.tensors.get(constant)?;
    let [rows_count, columns_count] = tensor.matrix?;
    let is_worth_it = rows_count >= size_min[0] && columns_count >= size_min[1];
    let is_standard = node.domain.is_empty() || node.domain == "ai.onnx";
    let has_output = node.outputs.len() == 1;
    let fits = is_standard && is_worth_it && has_output && tensor.element_type == ELEMENT_FLOAT;
    fits.then_some((role, tensor))
}

/// The names of what a constant is replaced by.
struct Names {
    numbers: String,
    scales: String,
}

/// What is replaced.
struct Plan {
    /// The constants, by how they are used: the order of the file, so that the result is always the same.
    weights: Vec<(Role, String)>,
    names: HashMap<(Role, String), Names>,
    /// Constants that nothing uses any more.
    dropped: HashSet<String>,
}

impl Plan {
    fn new(graph: &Graph) -> Self {
        let (mut weights, mut names, mut left) = (Vec::new(), HashMap::new(), graph.used.clone());
        let nodes = graph.fields.iter().filter_map(|field| graph.nodes.get(&field.whole.start));
        for node in nodes {
            let Some((role, tensor)) = replaceable(graph, node) else { continue };
            if let Some(uses) = left.get_mut(&tensor.name) {
                *uses -= 1;
            }
            let key = (role, tensor.name.clone());
            if names.contains_key(&key) {
                continue;
            }
            let kind = if role == Role::Product { "blocks" } else { "rows" };
            let named = |what: &str| {
                let mut name = format!("{}.{kind}.{what}", tensor.name);
                while graph.has_name(&name) {
                    name.push('_');
                }
                name
            };
            names.insert(key.clone(), Names { numbers: named("numbers"), scales: named("scales") });
            weights.push(key);
        }
        let is_left = |name: &String| left.get(name).is_some_and(|&uses| uses > 0);
        let dropped = weights.iter().map(|(_, name)| name).filter(|name| !is_left(name));
        let dropped = dropped.cloned().collect();
        Self { weights, names, dropped }
    }

    fn count(&self, wanted: Role) -> usize {
        self.weights.iter().filter(|(role, _)| *role == wanted).count()
    }

    /// The graph as it is to be.
    fn write(&self, reading: &mut Reading<'_>, graph: &Graph) -> Result<Vec<u8>, OnnxError> {
        let mut out = Vec::new();
        for field in &graph.fields {
            let whole = &reading.model[field.whole.clone()];
            match (field.number, &field.content) {
                (1, Some(_)) => match self.replaced(graph, &graph.nodes[&field.whole.start]) {
                    Some(nodes) => out.extend(nodes),
                    None => out.extend(whole),
                },
                (5, Some(content)) => {
                    let tensor = Tensor::read(reading, content)?;
                    if !self.dropped.contains(&tensor.name) {
                        out.extend(bytes_field(5, &tensor.with_own_bytes(reading)?));
                    }
                }
                // Old files name their constants among the inputs, and any file may declare them.
                (11 | 13, Some(content)) => {
                    let name = reading.text_of(content, 1)?.unwrap_or_default();
                    if !self.dropped.contains(&name) {
                        out.extend(whole);
                    }
                }
                _ => out.extend(whole),
            }
        }
        for key in &self.weights {
            let (tensor, names) = (&graph.tensors[&key.1], &self.names[key]);
            let floats = tensor.floats(reading)?;
            let [rows_count, columns_count] = tensor.matrix.unwrap_or_default();
            out.extend(match key.0 {
                Role::Product => blocks(&floats, rows_count, columns_count, names),
                Role::Table => rows(&floats, rows_count, columns_count, names),
            });
        }
        Ok(out)
    }

    /// What stands in the place of a node, if it is replaced.
    fn replaced(&self, graph: &Graph, node: &Node) -> Option<Vec<u8>> {
        let (role, tensor) = replaceable(graph, node)?;
        let Names { numbers, scales } = &self.names[&(role, tensor.name.clone())];
        let [rows_count, columns_count] = tensor.matrix?;
        let output = &node.outputs[0];
        if role == Role::Product {
            let attributes = [
                ("K", rows_count),
                ("N", columns_count),
                ("bits", 8),
                ("block_size", BLOCK_LEN),
                // The other factor gets eight bits as well, by blocks of each of its rows.
                ("accuracy_level", 4),
            ];
            return Some(operator(
                ("MatMulNBits", RUNTIME_DOMAIN),
                &[&node.inputs[0], numbers, scales],
                output,
                &node.name,
                &attributes,
            ));
        }
        let part = |what: &str| {
            let mut name = format!("{output}.{what}");
            while graph.has_name(&name) {
                name.push('_');
            }
            name
        };
        let (taken, scale, floats) = (part("taken"), part("scale"), part("floats"));
        let indices = &node.inputs[1];
        let standard = |operator| (operator, "");
        let to_float = [("to", ELEMENT_FLOAT as usize)];
        Some(
            [
                operator(standard("Gather"), &[numbers, indices], &taken, &taken, &[]),
                operator(standard("Gather"), &[scales, indices], &scale, &scale, &[]),
                operator(standard("Cast"), &[&taken], &floats, &floats, &to_float),
                operator(standard("Mul"), &[&floats, &scale], output, &node.name, &[]),
            ]
            .concat(),
        )
    }
}

/// A node of the graph.
fn operator(
    (operator, domain): (&str, &str),
    inputs: &[&str],
    output: &str,
    name: &str,
    attributes: &[(&str, usize)],
) -> Vec<u8> {
    let mut node: Vec<u8> =
        inputs.iter().flat_map(|input| bytes_field(1, input.as_bytes())).collect();
    node.extend(bytes_field(2, output.as_bytes()));
    node.extend(bytes_field(3, name.as_bytes()));
    node.extend(bytes_field(4, operator.as_bytes()));
    for &(name, value) in attributes {
        let value = number_field(3, value as u64);
        let attribute = [bytes_field(1, name.as_bytes()), value, number_field(20, ATTRIBUTE_INT)];
        node.extend(bytes_field(5, &attribute.concat()));
    }
    if !domain.is_empty() {
        node.extend(bytes_field(7, domain.as_bytes()));
    }
    bytes_field(1, &node)
}

/// A constant of the graph.
fn constant(name: &str, element_type: u64, dimensions: &[usize], bytes: &[u8]) -> Vec<u8> {
    let mut tensor: Vec<u8> =
        dimensions.iter().flat_map(|&size| number_field(1, size as u64)).collect();
    tensor.extend(number_field(2, element_type));
    tensor.extend(bytes_field(8, name.as_bytes()));
    tensor.extend(bytes_field(9, bytes));
    bytes_field(5, &tensor)
}

/// What a number of these is to be multiplied with, if it has eight bits.
fn scale(numbers: impl Iterator<Item = f32>) -> f32 {
    let largest = numbers.fold(0.0_f32, |largest, number| largest.max(number.abs()));
    // Of nothing but zeros any scale is right; below this its inverse is infinite.
    if largest < 1e-30 { 1.0 } else { largest / 127.0 }
}

/// The weights of a product: blocks of each column one after the other, the last filled up.
fn blocks(floats: &[f32], rows_count: usize, columns_count: usize, names: &Names) -> Vec<u8> {
    let blocks_count = rows_count.div_ceil(BLOCK_LEN);
    let (mut numbers, mut scales) = (Vec::new(), Vec::new());
    for column in 0..columns_count {
        for start in (0..rows_count).step_by(BLOCK_LEN) {
            let end = rows_count.min(start + BLOCK_LEN);
            let block = (start..end).map(|row| floats[row * columns_count + column]);
            let scale = scale(block.clone());
            scales.extend(scale.to_le_bytes());
            numbers.extend(block.map(|number| ((number / scale).round() + ZERO) as u8));
            numbers.resize(numbers.len() + BLOCK_LEN - (end - start), ZERO as u8);
        }
    }
    let shape = [columns_count, blocks_count, BLOCK_LEN];
    let numbers = constant(&names.numbers, ELEMENT_U8, &shape, &numbers);
    let scales = constant(&names.scales, ELEMENT_FLOAT, &[columns_count * blocks_count], &scales);
    [numbers, scales].concat()
}

/// A table whose rows have a scale each.
fn rows(floats: &[f32], rows_count: usize, columns_count: usize, names: &Names) -> Vec<u8> {
    let (mut numbers, mut scales) = (Vec::with_capacity(floats.len()), Vec::new());
    for row in floats.chunks_exact(columns_count) {
        let scale = scale(row.iter().copied());
        scales.extend(scale.to_le_bytes());
        numbers.extend(row.iter().map(|number| (number / scale).round() as i8 as u8));
    }
    let numbers = constant(&names.numbers, ELEMENT_I8, &[rows_count, columns_count], &numbers);
    [numbers, constant(&names.scales, ELEMENT_FLOAT, &[rows_count, 1], &scales)].concat()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn node(operator: &str, inputs: [&str; 2], output: &str) -> Vec<u8> {
        super::operator((operator, ""), &inputs, output, "", &[])
    }

    fn matrix(name: &str, rows_count: usize, columns_count: usize) -> (Vec<f32>, Vec<u8>) {
        let number = |index: usize| ((index * 7919) % 257) as f32 / 100.0 - 1.0;
        let floats: Vec<f32> = (0..rows_count * columns_count).map(number).collect();
        let bytes: Vec<u8> = floats.iter().flat_map(|float| float.to_le_bytes()).collect();
        (floats, constant(name, ELEMENT_FLOAT, &[rows_count, columns_count], &bytes))
    }

    fn output(name: &str) -> Vec<u8> {
        bytes_field(12, &bytes_field(1, name.as_bytes()))
    }

    fn of_graph(graph: &[Vec<u8>]) -> Vec<u8> {
        [number_field(1, 9), bytes_field(7, &graph.concat())].concat()
    }

    fn quantized(model: &[u8]) -> Quantized {
        quantize(model, &HashMap::new()).unwrap().unwrap()
    }

    /// The bytes of a constant, and its dimensions.
    fn tensor(model: &[u8], name: &str) -> Option<(Vec<u8>, Option<[usize; 2]>)> {
        let external = HashMap::new();
        let mut reading = Reading::new(model, &external);
        let outer = reading.fields(&(0..model.len())).unwrap();
        let graph =
            outer.iter().find_map(|field| field.content.clone().filter(|_| field.number == 7));
        let graph = Graph::read(&mut reading, &graph.unwrap()).unwrap();
        let tensor = graph.tensors.get(name)?;
        Some((tensor.bytes(&mut reading).unwrap(), tensor.matrix))
    }

    fn floats(bytes: &[u8]) -> Vec<f32> {
        bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
    }

    #[test]
    fn blocks_of_columns_give_the_weights_back() {
        // One block and a part of one, in each of three columns.
        let (weights, initializer) = matrix("w", 80, 3);
        let model = of_graph(&[node("MatMul", ["x", "w"], "y"), initializer, output("y")]);
        let quantized = quantized(&model);
        assert_eq!((quantized.products_count, quantized.tables_count), (1, 0));
        assert!(tensor(&quantized.model, "w").is_none());
        let numbers = tensor(&quantized.model, "w.blocks.numbers").unwrap().0;
        let scales = floats(&tensor(&quantized.model, "w.blocks.scales").unwrap().0);
        assert_eq!((numbers.len(), scales.len()), (3 * 2 * BLOCK_LEN, 3 * 2));
        for (index, &number) in numbers.iter().enumerate() {
            let (column, row) = (index / (2 * BLOCK_LEN), index % (2 * BLOCK_LEN));
            let scale = scales[index / BLOCK_LEN];
            let weight = if row < 80 { weights[row * 3 + column] } else { 0.0 };
            let found = (f32::from(number) - ZERO) * scale;
            assert!((found - weight).abs() <= scale * 0.5001, "{row} {column}: {found} {weight}");
        }
    }

    #[test]
    fn rows_of_a_table_give_the_weights_back() {
        let (weights, initializer) = matrix("t", 300, 20);
        let model = of_graph(&[node("Gather", ["t", "ids"], "y"), initializer, output("y")]);
        let quantized = quantized(&model);
        assert_eq!((quantized.products_count, quantized.tables_count), (0, 1));
        let (numbers, size) = tensor(&quantized.model, "t.rows.numbers").unwrap();
        let scales = floats(&tensor(&quantized.model, "t.rows.scales").unwrap().0);
        assert_eq!((size, scales.len()), (Some([300, 20]), 300));
        for (index, (&number, weight)) in numbers.iter().zip(weights).enumerate() {
            let scale = scales[index / 20];
            assert!((f32::from(number as i8) * scale - weight).abs() <= scale * 0.5001, "{index}");
        }
        // There is nothing left to do.
        assert!(quantize(&quantized.model, &HashMap::new()).unwrap().is_none());
    }

    #[test]
    fn what_is_used_otherwise_stays() {
        let (_, initializer) = matrix("w", 300, 32);
        let inner = bytes_field(1, b"then_branch");
        let inner = [inner, bytes_field(6, &node("Add", ["w", "x"], "z"))].concat();
        let branch = bytes_field(1, &[bytes_field(1, b"c"), bytes_field(5, &inner)].concat());
        let product = || node("MatMul", ["x", "w"], "y");
        for other in [node("Add", ["x", "w"], "z"), output("w"), branch] {
            let model = of_graph(&[product(), other, initializer.clone(), output("y")]);
            let quantized = quantized(&model);
            assert!(tensor(&quantized.model, "w").is_some());
            assert!(tensor(&quantized.model, "w.blocks.numbers").is_some());
        }
        // Both uses are replaced, and names that are taken are not used.
        let table = node("Gather", ["w", "ids"], "w.rows.numbers");
        let quantized = quantized(&of_graph(&[product(), table, initializer, output("y")]));
        assert_eq!((quantized.products_count, quantized.tables_count), (1, 1));
        assert!(tensor(&quantized.model, "w").is_none());
        assert!(tensor(&quantized.model, "w.rows.numbers_").is_some());
    }

    #[test]
    fn constants_among_the_inputs_go_with_them() {
        let (_, initializer) = matrix("w", 16, 4);
        let input = |name: &str| bytes_field(11, &bytes_field(1, name.as_bytes()));
        let parts = [input("x"), input("w"), node("MatMul", ["x", "w"], "y"), initializer];
        let model = quantized(&of_graph(&parts)).model;
        let outline = super::super::read_outline(Cursor::new(&model), model.len() as u64).unwrap();
        let names: Vec<_> = outline.inputs.iter().map(|port| port.name.as_str()).collect();
        assert_eq!(names, ["x"]);
    }

    #[test]
    fn weights_in_other_files_come_into_this_one() {
        let (weights, _) = matrix("w", 16, 4);
        let bytes: Vec<u8> = weights.iter().flat_map(|float| float.to_le_bytes()).collect();
        let file = [vec![0xff; 12], bytes.clone(), vec![0xff; 4]].concat();
        let external = HashMap::from([("data.bin".to_owned(), file)]);
        let entry = |key: &str, text: &str| {
            bytes_field(
                13,
                &[bytes_field(1, key.as_bytes()), bytes_field(2, text.as_bytes())].concat(),
            )
        };
        let tensor_at = |name: &str, offset: &str, length: &str| {
            let sizes = [number_field(1, 16), number_field(1, 4), number_field(2, ELEMENT_FLOAT)];
            let place =
                [entry("location", "data.bin"), entry("offset", offset), entry("length", length)];
            let named = [bytes_field(8, name.as_bytes()), number_field(14, 1)];
            bytes_field(5, &[sizes.concat(), place.concat(), named.concat()].concat())
        };
        let model = |offset: &str, length: &str| {
            let nodes = [node("MatMul", ["x", "w"], "y"), node("Add", ["y", "v"], "z")].concat();
            let tensors = [tensor_at("w", offset, length), tensor_at("v", offset, length)].concat();
            of_graph(&[nodes, tensors, output("z")])
        };
        let quantized = quantize(&model("12", "256"), &external).unwrap().unwrap();
        assert_eq!(tensor(&quantized.model, "v").unwrap().0, bytes);
        for (offset, length) in [("12", "1000"), ("x", "256"), ("300", "256"), ("12", "252")] {
            let refused = quantize(&model(offset, length), &external);
            assert!(matches!(refused, Err(OnnxError::Malformed { .. })), "{offset} {length}");
        }
        assert!(quantize(&model("12", "256"), &HashMap::new()).is_err());
    }

    #[test]
    fn numbers_that_are_none_or_too_few_are_refused() {
        let product = node("MatMul", ["x", "w"], "y");
        let with = |bytes: &[u8]| {
            let initializer = constant("w", ELEMENT_FLOAT, &[16, 1], bytes);
            quantize(&of_graph(&[product.clone(), initializer]), &HashMap::new())
        };
        assert!(with(&[0; 64]).unwrap().is_some());
        assert!(with(&f32::NAN.to_le_bytes().repeat(16)).is_err());
        assert!(with(&[0; 60]).is_err());
        assert!(with(&[0; 63]).is_err());
    }
}
