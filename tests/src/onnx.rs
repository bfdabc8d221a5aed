//! Makes ONNX files: with inputs and outputs and nothing between them, and a small text encoder.
//!
//! Source: the field numbers are those of `onnx/onnx.proto` (ONNX 1.x, proto2).

use op_dbus_formats::exchange::onnx::{bytes_field as message, number_field as integer};

use crate::random::Random;

/// Element type of 4-byte floats.
pub const FLOAT: u64 = 1;
/// Element type of 8-byte integers.
pub const INT64: u64 = 7;

/// An input or output: its name, element type and shape, with 0 for any size.
pub type Port<'a> = (&'a str, u64, &'a [u64]);

/// Returns the bytes of a model with these inputs and outputs.
pub fn model(inputs: &[Port<'_>], outputs: &[Port<'_>]) -> Vec<u8> {
    let ports = |field, ports: &[Port<'_>]| -> Vec<u8> {
        ports.iter().flat_map(|one| message(field, &port(one))).collect()
    };
    let graph = [message(2, b"graph"), ports(11, inputs), ports(12, outputs)].concat();
    of_graph(&graph)
}

/// Returns the bytes of a text encoder for the tokens `0..tokens_count`: without token types, and
/// with an output for each token, of so many dimensions.
pub fn text_encoder(tokens_count: usize, dimensions: usize, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut fractions =
        |rows| (0..rows * dimensions).map(|_| random.fraction()).collect::<Vec<_>>();
    let (embeddings, weights) = (fractions(tokens_count), fractions(dimensions));
    text_encoder_with(&embeddings, &weights, dimensions)
}

/// Returns the bytes of such an encoder with these embeddings of tokens, and the weights that these
/// are multiplied with.
pub fn text_encoder_with(embeddings: &[f32], weights: &[f32], dimensions: usize) -> Vec<u8> {
    let matrix = |name: &str, numbers: &[f32]| {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        let rows = numbers.len() / dimensions;
        let sizes = [integer(1, rows as u64), integer(1, dimensions as u64)].concat();
        let named = [integer(2, FLOAT), message(8, name.as_bytes())].concat();
        message(5, &[sizes, named, message(9, &bytes)].concat())
    };
    let initializers = [matrix("embeddings", embeddings), matrix("weights", weights)].concat();
    let node = |inputs: [&str; 2], output: &str, operator: &str| {
        let inputs = inputs.map(|input| message(1, input.as_bytes())).concat();
        let output = message(2, output.as_bytes());
        message(1, &[inputs, output, message(4, operator.as_bytes())].concat())
    };
    let nodes = [
        node(["embeddings", "input_ids"], "embedded", "Gather"),
        node(["embedded", "weights"], "last_hidden_state", "MatMul"),
    ]
    .concat();
    let input = |name| message(11, &port(&(name, INT64, &[0, 0])));
    let inputs = [input("input_ids"), input("attention_mask")].concat();
    let output = port(&("last_hidden_state", FLOAT, &[0, 0, dimensions as u64]));
    let named = message(2, b"graph");
    of_graph(&[nodes, named, initializers, inputs, message(12, &output)].concat())
}

fn of_graph(graph: &[u8]) -> Vec<u8> {
    let operators = integer(2, 20);
    [integer(1, 9), message(7, graph), message(8, &operators)].concat()
}

fn port(&(name, element_type, shape): &Port<'_>) -> Vec<u8> {
    let size = |(axis, &size): (usize, &u64)| match size {
        0 => message(1, &message(2, format!("{name}_{axis}").as_bytes())),
        size => message(1, &integer(1, size)),
    };
    let dimensions: Vec<u8> = shape.iter().enumerate().flat_map(size).collect();
    let tensor = [integer(1, element_type), message(2, &dimensions)].concat();
    [message(1, name.as_bytes()), message(2, &message(1, &tensor))].concat()
}
