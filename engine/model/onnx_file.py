"""Writes the few ONNX messages that an exported sentence encoder needs.

An ONNX file is one protocol-buffers message. Encoding it takes three kinds of field and no
library. Without a library the file depends on the weights alone: the same bytes on every machine,
so that its SHA-256 can be pinned. Field numbers are those of onnx.proto (ONNX 1.16); fields are
written in ascending order, as the official encoder does.
"""

import struct

IR_VERSION = 9
FLOAT, INT64 = 1, 7  # TensorProto.DataType
_ATTRIBUTE_FLOAT, _ATTRIBUTE_INT, _ATTRIBUTE_INTS = 1, 2, 7  # AttributeProto.AttributeType
_VARINT, _DELIMITED, _FIXED32 = 0, 2, 5  # wire types


def _varint(value):
    """Encodes an integer in groups of seven bits; negative ones as 64-bit two's complement."""
    value &= (1 << 64) - 1
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _key(field, wire_type):
    return _varint(field << 3 | wire_type)


def _integer(field, value):
    return _key(field, _VARINT) + _varint(value)


def _float32(field, value):
    return _key(field, _FIXED32) + struct.pack("<f", value)


def _message(field, *parts):
    """Encodes a string, a byte array or a nested message: all are a length and then bytes."""
    parts = [part.encode() if isinstance(part, str) else part for part in parts]
    length = sum(len(part) for part in parts)
    return b"".join([_key(field, _DELIMITED), _varint(length), *parts])


def attribute(name, value):
    """Returns one node attribute (AttributeProto); its type follows the Python type."""
    if isinstance(value, float):
        return _message(1, name) + _float32(2, value) + _integer(20, _ATTRIBUTE_FLOAT)
    if isinstance(value, int):
        return _message(1, name) + _integer(3, value) + _integer(20, _ATTRIBUTE_INT)
    values = b"".join(_integer(8, item) for item in value)
    return _message(1, name) + values + _integer(20, _ATTRIBUTE_INTS)


def node(operator, inputs, outputs, name, attributes):
    """Returns one operation of the graph (NodeProto). Attributes are sorted by name."""
    return b"".join(
        [_message(1, item) for item in inputs]
        + [_message(2, item) for item in outputs]
        + [_message(3, name), _message(4, operator)]
        + [_message(5, attribute(key, attributes[key])) for key in sorted(attributes)]
    )


def tensor(name, shape, data_type, raw):
    """Returns one constant (TensorProto); `raw` holds its elements, little-endian, row by row."""
    dimensions = b"".join(_integer(1, size) for size in shape)
    return b"".join([dimensions, _integer(2, data_type), _message(8, name), _message(9, raw)])


def value(name, data_type, shape):
    """Returns the type of a graph input or output (ValueInfoProto). A dimension that is a string
    has a name and may vary."""
    dimensions = b"".join(
        _message(1, _message(2, size) if isinstance(size, str) else _integer(1, size))
        for size in shape
    )
    tensor_type = _integer(1, data_type) + _message(2, dimensions)
    return _message(1, name) + _message(2, _message(1, tensor_type))


def model(graph_name, nodes, constants, inputs, outputs, opset, producer):
    """Returns the whole file (ModelProto around a GraphProto)."""
    graph = b"".join(
        [_message(1, item) for item in nodes]
        + [_message(2, graph_name)]
        + [_message(5, item) for item in constants]
        + [_message(11, item) for item in inputs]
        + [_message(12, item) for item in outputs]
    )
    operators = _message(1, "") + _integer(2, opset)  # "" is ONNX's own set of operators
    parts = [_integer(1, IR_VERSION), _message(2, producer), _message(7, graph)]
    return b"".join([*parts, _message(8, operators)])
