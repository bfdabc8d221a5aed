#!/usr/bin/env -S python3 -B
"""Builds an ONNX sentence encoder from the weights of a BERT model.

Why: models are published as weights (safetensors), the engine runs graphs (ONNX). The usual
exporters need PyTorch, gigabytes for a graph of 179 operations; this one writes the graph by
hand with Python's standard library, and the same weights always give the same bytes.

Usage: export_onnx.py MODEL_DIR OUT.onnx
  MODEL_DIR   holds config.json and model.safetensors (float32, BERT, gelu, absolute positions)

Graph
  inputs   input_ids, attention_mask, token_type_ids   int64 [batch, seq]
  outputs  last_hidden_state                           float32 [batch, seq, hidden]
           sentence_embedding                          float32 [batch, hidden]: mean over the
                                                       attended tokens, scaled to unit length
"""

import json
import math
import pathlib
import struct
import sys
from array import array

import onnx_file

OPSET = 20  # the first with Gelu, which ONNX Runtime has as one kernel
# Two names in the file without effect on what it computes. They are part of its hash, which
# install.py pins, so they do not change with the name of this script.
GRAPH_NAME, PRODUCER = "minilm", "export_minilm_onnx"
MASKED_SCORE = -10000.0  # added to the score of a padding token: exp() of it is zero in float32


class Weights:
    """The tensors of a safetensors file: u64 header length, JSON header, raw little-endian data."""

    def __init__(self, content):
        (header_bytes,) = struct.unpack_from("<Q", content)
        self._header = json.loads(content[8 : 8 + header_bytes])
        self._data = memoryview(content)[8 + header_bytes :]

    def shape(self, name):
        return tuple(self._header[name]["shape"])

    def floats(self, name):
        entry = self._header[name]
        if entry["dtype"] != "F32":
            raise ValueError(f"{name} is {entry['dtype']}, only F32 is supported")
        begin, end = entry["data_offsets"]
        values = array("f")
        values.frombytes(self._data[begin:end])
        return values


class Graph:
    """Collects operations and constants; every method returns the name of what it added."""

    def __init__(self):
        self.nodes = []
        self.constants = []

    def op(self, operator, inputs, name, outputs=None, **attributes):
        outputs = outputs or [name]
        self.nodes.append(onnx_file.node(operator, inputs, outputs, name, attributes))
        return outputs[0] if len(outputs) == 1 else outputs

    def floats(self, name, shape, values):
        raw = array("f", values).tobytes()
        self.constants.append(onnx_file.tensor(name, shape, onnx_file.FLOAT, raw))
        return name

    def integers(self, name, values):
        """Adds an int64 constant: a scalar for an integer, a vector for a list."""
        shape, items = ((), [values]) if isinstance(values, int) else ((len(values),), values)
        raw = array("q", items).tobytes()
        self.constants.append(onnx_file.tensor(name, shape, onnx_file.INT64, raw))
        return name


class Encoder:
    """Adds the layers of one BERT model to a graph.

    Shapes in comments: B texts, S tokens, H hidden size, N heads, D = H / N.
    """

    def __init__(self, config, weights):
        self.hidden = config["hidden_size"]
        self.heads = config["num_attention_heads"]
        self.layers = config["num_hidden_layers"]
        self.epsilon = config["layer_norm_eps"]
        self.weights = weights
        self.graph = Graph()

    def build(self):
        """Adds the whole encoder, from token numbers to sentence embeddings."""
        graph = self.graph
        mask = graph.op("Cast", ["attention_mask"], "mask_f", to=onnx_file.FLOAT)
        hidden = self.embeddings()
        bias = self.mask_bias(mask)
        shapes = self.attention_shapes()
        for layer in range(self.layers):
            hidden = self.layer(layer, hidden, bias, shapes)
        graph.op("Identity", [hidden], "last_hidden_state")
        self.pooling(mask)

    def embeddings(self):
        """Sums word, token type and position embeddings and normalises them: [B, S, H]."""
        graph = self.graph
        shape = graph.op("Shape", ["input_ids"], "shp")
        length = graph.op("Gather", [shape, graph.integers("one_i", 1)], "seq", axis=0)
        zero, one = graph.integers("zero_s", 0), graph.integers("one_s", 1)
        positions = graph.op("Range", [zero, length, one], "pos")
        word = self.lookup("word", "word_embeddings", "input_ids", "we")
        token_type = self.lookup("type", "token_type_embeddings", "token_type_ids", "te")
        position = self.lookup("posn", "position_embeddings", positions, "pe")
        total = graph.op("Add", [graph.op("Add", [word, token_type], "wte"), position], "esum")
        return self.layer_norm(total, "embeddings.LayerNorm", "eln")

    def lookup(self, constant, table, indices, name):
        weight = f"embeddings.{table}.weight"
        rows = self.graph.floats(constant, self.weights.shape(weight), self.weights.floats(weight))
        return self.graph.op("Gather", [rows, indices], name)

    def mask_bias(self, mask):
        """Turns the mask into what is added to attention scores: [B, 1, 1, S]."""
        graph = self.graph
        inverse = graph.op("Sub", [graph.floats("one_f", (), [1.0]), mask], "inv")
        bias = graph.op("Mul", [inverse, graph.floats("big", (), [MASKED_SCORE])], "neg")
        return graph.op("Unsqueeze", [bias, graph.integers("ax12", [1, 2])], "bias")

    def attention_shapes(self):
        """Adds the constants that every attention block uses (0 keeps a dimension)."""
        graph, size = self.graph, self.hidden // self.heads
        return {
            "split": graph.integers("shp_split", [0, 0, 3, self.heads, size]),
            "merge": graph.integers("shp_merge", [0, 0, self.hidden]),
            "axis": graph.integers("ax0", [0]),
            "thirds": graph.integers("ones3", [1, 1, 1]),
        }

    def layer(self, layer, hidden, bias, shapes):
        """Adds one transformer layer: attention, then two dense layers, each with a residual."""
        prefix, name = f"encoder.layer.{layer}", f"l{layer}"
        attended = self.attention(hidden, bias, shapes, f"{prefix}.attention.self", name)
        hidden = self.residual(attended, hidden, f"{prefix}.attention.output", f"{name}.ao")
        wide = self.dense(hidden, f"{prefix}.intermediate.dense", f"{name}.i")
        wide = self.graph.op("Gelu", [wide], f"{name}.gelu")
        return self.residual(wide, hidden, f"{prefix}.output", f"{name}.fo")

    def attention(self, hidden, bias, shapes, prefix, name):
        """Adds multi-head self-attention: [B, S, H] to [B, S, H]."""
        graph = self.graph
        joined = self.query_key_value(hidden, prefix, f"{name}.qkv")  # [B, S, 3H]
        parts = graph.op("Reshape", [joined, shapes["split"]], f"{name}.r")  # [B, S, 3, N, D]
        parts = graph.op("Transpose", [parts], f"{name}.t", perm=[2, 0, 3, 1, 4])  # [3, B, N, S, D]
        outputs = [f"{name}.sp.{third}" for third in range(3)]
        thirds = graph.op("Split", [parts, shapes["thirds"]], f"{name}.sp", outputs, axis=0)
        query, key, value = [
            graph.op("Squeeze", [third, shapes["axis"]], f"{name}.s{index}")
            for index, third in enumerate(thirds)
        ]
        key = graph.op("Transpose", [key], f"{name}.kt", perm=[0, 1, 3, 2])
        scores = graph.op("MatMul", [query, key], f"{name}.qk")  # [B, N, S, S]
        scores = graph.op("Add", [scores, bias], f"{name}.m")
        scores = graph.op("Softmax", [scores], f"{name}.sm", axis=-1)
        heads = graph.op("MatMul", [scores, value], f"{name}.av")  # [B, N, S, D]
        heads = graph.op("Transpose", [heads], f"{name}.ot", perm=[0, 2, 1, 3])
        return graph.op("Reshape", [heads, shapes["merge"]], f"{name}.o")

    def query_key_value(self, hidden, prefix, name):
        """Adds the three projections as one matrix product.

        The query's part is divided by sqrt(D) here, once, instead of every score at run time.
        """
        size = self.hidden
        scale = math.sqrt(size // self.heads)
        matrices, biases = [], array("f")
        for part in ("query", "key", "value"):
            matrix = self.weights.floats(f"{prefix}.{part}.weight")
            bias = self.weights.floats(f"{prefix}.{part}.bias")
            if part == "query":
                matrix = array("f", [item / scale for item in matrix])
                bias = array("f", [item / scale for item in bias])
            matrices.append(matrix)
            biases.extend(bias)
        joined = array("f")
        for column in range(size):  # stored [out, in], multiplied as [in, out]
            for matrix in matrices:
                joined.extend(matrix[column::size])
        return self.multiply_add(hidden, (size, 3 * size), joined, biases, name)

    def dense(self, hidden, prefix, name):
        """Adds `hidden * weight + bias` with the weight transposed to [in, out]."""
        outputs, inputs = self.weights.shape(f"{prefix}.weight")
        stored = self.weights.floats(f"{prefix}.weight")
        transposed = array("f")
        for column in range(inputs):
            transposed.extend(stored[column::inputs])
        bias = self.weights.floats(f"{prefix}.bias")
        return self.multiply_add(hidden, (inputs, outputs), transposed, bias, name)

    def multiply_add(self, hidden, shape, matrix, bias, name):
        graph = self.graph
        weight = graph.floats(f"{name}.w", shape, matrix)
        product = graph.op("MatMul", [hidden, weight], f"{name}.mm")
        bias = graph.floats(f"{name}.b", (len(bias),), bias)
        return graph.op("Add", [product, bias], f"{name}.out")

    def residual(self, hidden, skipped, prefix, name):
        """Adds a dense layer, what skipped it, and a normalisation."""
        hidden = self.dense(hidden, f"{prefix}.dense", name)
        total = self.graph.op("Add", [hidden, skipped], f"{name}.res")
        return self.layer_norm(total, f"{prefix}.LayerNorm", f"{name}.ln")

    def layer_norm(self, hidden, prefix, name):
        graph, size = self.graph, (self.hidden,)
        gain = graph.floats(f"{name}.g", size, self.weights.floats(f"{prefix}.weight"))
        bias = graph.floats(f"{name}.be", size, self.weights.floats(f"{prefix}.bias"))
        inputs = [hidden, gain, bias]
        return graph.op("LayerNormalization", inputs, name, axis=-1, epsilon=self.epsilon)

    def pooling(self, mask):
        """Averages the attended tokens and scales the result to unit length.

        The two lower bounds keep a text without tokens at zero instead of dividing by zero.
        """
        graph = self.graph
        weight = graph.op("Unsqueeze", [mask, graph.integers("axm1", [-1])], "m3")  # [B, S, 1]
        axis = graph.integers("ax1", [1])
        kept = graph.op("Mul", ["last_hidden_state", weight], "xm")
        total = graph.op("ReduceSum", [kept, axis], "tot", keepdims=0)
        count = graph.op("ReduceSum", [weight, axis], "cnt", keepdims=0)
        count = graph.op("Clip", [count, graph.floats("tiny", (), [1e-9])], "cntc")
        mean = graph.op("Div", [total, count], "mean")
        length = graph.op("ReduceL2", [mean, graph.integers("axl", [-1])], "l2", keepdims=1)
        length = graph.op("Max", [length, graph.floats("tiny2", (), [1e-12])], "l2c")
        graph.op("Div", [mean, length], "sentence_embedding")


def export(config, weights):
    """Returns the ONNX file for a parsed config.json and the bytes of model.safetensors."""
    expected = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
    for key, wanted in expected.items():
        if (found := config.get(key)) != wanted:
            raise ValueError(f"config.json: {key} is {found!r}, only {wanted!r} is supported")
    if sys.byteorder != "little":
        raise ValueError("float32 data is copied as it lies in memory: little-endian only")
    encoder = Encoder(config, Weights(weights))
    encoder.build()
    tokens = ["batch", "seq"]
    names = ("input_ids", "attention_mask", "token_type_ids")
    return onnx_file.model(
        GRAPH_NAME,
        encoder.graph.nodes,
        encoder.graph.constants,
        [onnx_file.value(name, onnx_file.INT64, tokens) for name in names],
        [
            onnx_file.value("last_hidden_state", onnx_file.FLOAT, [*tokens, encoder.hidden]),
            onnx_file.value("sentence_embedding", onnx_file.FLOAT, ["batch", encoder.hidden]),
        ],
        OPSET,
        PRODUCER,
    )


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source, target = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    target.write_bytes(export(config, (source / "model.safetensors").read_bytes()))


if __name__ == "__main__":
    main()
