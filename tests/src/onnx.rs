//! Makes ONNX files with inputs and outputs and nothing between them.
//!
//! Source: the field numbers are those of `onnx/onnx.proto` (ONNX 1.x, proto2).

/// Element type of 4-byte floats.
pub const FLOAT: u64 = 1;
/// Element type of 8-byte integers.
pub const INT64: u64 = 7;

/// An input or output: its name, element type and shape.
pub type Port<'a> = (&'a str, u64, &'a [u64]);

/// Returns the bytes of a model with these inputs and outputs.
pub fn model(inputs: &[Port<'_>], outputs: &[Port<'_>]) -> Vec<u8> {
    let ports = |field, ports: &[Port<'_>]| -> Vec<u8> {
        ports.iter().flat_map(|one| message(field, &port(one))).collect()
    };
    let graph = [message(2, b"graph"), ports(11, inputs), ports(12, outputs)].concat();
    let operators = integer(2, 20);
    [integer(1, 9), message(7, &graph), message(8, &operators)].concat()
}

fn port(&(name, element_type, shape): &Port<'_>) -> Vec<u8> {
    let dimensions: Vec<u8> =
        shape.iter().flat_map(|&size| message(1, &integer(1, size))).collect();
    let tensor = [integer(1, element_type), message(2, &dimensions)].concat();
    [message(1, name.as_bytes()), message(2, &message(1, &tensor))].concat()
}

/// A field of bytes, text or a message.
fn message(field: u64, content: &[u8]) -> Vec<u8> {
    [&varint(field << 3 | 2)[..], &varint(content.len() as u64), content].concat()
}

fn integer(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_seven_bits_a_byte() {
        // The example of the Protocol Buffers documentation.
        assert_eq!(integer(1, 150), [0x08, 0x96, 0x01]);
        assert_eq!(message(2, b"testing"), [&[0x12, 0x07][..], b"testing"].concat());
    }
}
