"""Models as ONNX files."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper, numpy_helper

import fastrnn
from fastrnn.layers.base import Layer
from fastrnn.layers.cells import GRU, LSTM, RNN
from fastrnn.layers.dense import Dense
from fastrnn.layers.dropout import Dropout
from fastrnn.layers.embedding import Embedding
from fastrnn.models import Sequential
from fastrnn.onnx.cells import node_arrays, node_attributes
from fastrnn.onnx.graph import IR_VERSION, OPSET
from fastrnn.serialization import replace_file

ACTIVATIONS = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid", "softmax": "Softmax"}
_LARGEST = 2**31 - 2**20  # bytes: protobuf's limit for one message, and room for what is around


def export(
    model: Sequential | Layer,
    path: str | os.PathLike[str],
    *,
    lengths: bool = False,
    states: bool = False,
) -> None:
    """Write a Sequential, or one of its kinds of layers alone, to an ONNX file, for inference.

    The graph has the input ``x`` as the model has it, ids as int64, with open batch and time axes,
    and the output ``y``. `lengths` adds an input ``lengths`` (batch,) of int64, `states` for each
    recurrent layer the inputs ``0.lstm.h_0`` (the layer's place and kind; alone ``lstm.h_0``) and
    ``.c_0`` and the outputs ``.h_n`` and ``.c_n``, shaped as the layer's: what one call gave, the
    next one takes. All these inputs may be left out: for whole sequences, and zeros. (They have
    initializers for that, of which ONNX Runtime may print a warning.)

    Operators are those of opset 22. Dropout is written as such, and does nothing in inference.
    float64 is written too, but ONNX Runtime has no recurrent operators for it; `prepare` has.

    Raises ValueError, naming the layer and the option, for what ONNX cannot express: `layer_norm`,
    `proj_size`, zoneout, ``variant="minimal"``, ``coupled="i=1-f"``, weights of bfloat16, and in
    float64 a clip that is no float32; for arrays of 2 GB together; and where the file cannot be
    written. TypeError for another kind of model.
    """
    alone = not isinstance(model, Sequential)
    layers: tuple[Any, ...] = (model,) if alone else model.layers  # type: ignore[union-attr]
    for layer in layers:
        if type(layer) not in _WRITERS:
            raise TypeError(f"model: expected a Sequential or a layer, got {type(layer).__name__}")
    recurrent = [layer for layer in layers if layer.recurrent]
    for name, wanted in (("lengths", lengths), ("states", states)):
        if wanted and not recurrent:
            raise ValueError(f"{name}: expected False, no layer is recurrent")
    if sum(p.nbytes for p in model.parameters().values()) > _LARGEST:
        raise ValueError("model: expected arrays of less than 2 GB together, as a file holds them")
    dtype = next((p.dtype for p in model.parameters().values()), np.dtype(np.float32))
    graph = _Graph(dtype, alone, lengths, states)
    graph.write(layers)
    replace_file(path, graph.model().SerializeToString())


class _Graph:
    """A graph that grows at its tip; the layout inside is (time, batch, features)."""

    def __init__(self, dtype: np.dtype, alone: bool, lengths: bool, states: bool) -> None:
        self.dtype, self.alone, self.states = dtype, alone, states
        self.lengths = "lengths" if lengths else ""
        self.nodes: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self.prefix = ""  # of the layer at hand
        self.empty = ""  # which rows have no steps, where rows have lengths and states
        self.size: int | None = None  # of the last axis

    def write(self, layers: tuple[Any, ...]) -> None:
        recurrent = [layer for layer in layers if layer.recurrent]
        takes_ids = isinstance(layers[0], Embedding)
        self.size = next(
            (getattr(x, "input_size", getattr(x, "in_features", None)) for x in layers
             if not isinstance(x, Dropout)), None)  # fmt: skip
        first = all(layer.batch_first for layer in recurrent)
        axes = ["batch", "time"] if recurrent or takes_ids else ["batch"]
        axes = axes if first else axes[::-1]
        if takes_ids:
            self.inputs.append(_info("x", np.int64, axes))
        else:
            self.inputs.append(_info("x", self.dtype, [*axes, self.size]))
        tip, swapped = "x", bool(recurrent) and first
        if swapped:
            tip = self.node("Transpose", "x", name="time_first", perm=[1, 0, 2][: 3 - takes_ids])
        if recurrent:
            self.read_lengths(tip)
        for place, layer in enumerate(layers):
            kind = type(layer).__name__.lower()
            self.prefix = kind if self.alone else f"{place}.{kind}"
            tip = _WRITERS[type(layer)](self, layer, tip)
        self.prefix = ""
        ended = any(not layer.return_sequences for layer in recurrent)
        if swapped and not ended:
            self.node("Transpose", tip, name="y", perm=[1, 0, 2])
        else:
            self.node("Identity", tip, name="y")
        axes = ["batch"] if ended else axes
        self.outputs.insert(0, _info("y", self.dtype, [*axes, self.size]))

    def model(self) -> Any:
        initializers = [numpy_helper.from_array(v, name) for name, v in self.constants.items()]
        graph = helper.make_graph(self.nodes, "fastrnn", self.inputs, self.outputs, initializers)
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION,
            producer_name="fastrnn", producer_version=fastrnn.__version__,
        )  # fmt: skip

    # --- Pieces -----------------------------------------------------------------------------------

    def constant(self, name: str, values: Any) -> str:
        self.constants[name] = np.asarray(values)
        return name

    def ints(self, *values: int) -> str:
        return self.constant("_".join(map(str, ("ints", *values))), np.array(values, np.int64))

    def node(self, operator: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """The first output of a new node, which has the node's name."""
        name = f"{self.prefix}.{name or operator}".lstrip(".")
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def read_lengths(self, x: str) -> None:
        """``batch`` and, where they are wanted, ``lengths``: below 0, the default, all steps."""
        if self.lengths or self.states:
            self.batch = self.node("Shape", x, name="batch", start=1, end=2)
        if self.lengths:
            self.inputs.append(_info("lengths", np.int64, ["lengths_batch"]))
            self.constant("lengths", np.array([-1]))
            time = self.node("Shape", x, name="time", start=0, end=1)
            whole = self.node("Less", "lengths", self.ints(0), name="whole")
            steps = self.node("Where", whole, time, "lengths", name="steps")
            steps = self.node("Expand", steps, self.batch, name="rows")
            self.lengths = self.node("Cast", steps, name="sequence_lens", to=6)  # int32
            if self.states:
                none = self.node("Equal", steps, self.ints(0), name="none")
                self.empty = self.node("Unsqueeze", none, self.ints(1), name="empty")

    # --- Layers -----------------------------------------------------------------------------------

    def embedding(self, layer: Embedding, x: str) -> str:
        self.size = layer.embedding_dim
        table = self.constant(f"{self.prefix}.weight", layer.weight.data)
        return self.node("Gather", table, x)

    def dropout(self, layer: Dropout, x: str) -> str:
        return self.node("Dropout", x, self.constant(f"{self.prefix}.p", np.float32(layer.p)))

    def dense(self, layer: Dense, x: str) -> str:
        self.size = layer.out_features
        x = self.node("MatMul", x, self.constant(f"{self.prefix}.weight", layer.weight.data.T))
        if layer.bias is not None:
            x = self.node("Add", x, self.constant(f"{self.prefix}.bias", layer.bias.data))
        return self.node(ACTIVATIONS[layer.activation], x) if layer.activation else x

    def recurrent(self, layer: RNN | GRU | LSTM, x: str) -> str:
        given = node_attributes(layer, self.prefix)
        directions, self.size = layer.directions, layer.output_size * layer.directions
        initial = [self.initial(layer, s) for s in ("h", "c")[: 1 + layer.has_c]]
        finals: list[list[str]] = [[] for _ in initial]
        for k in range(layer.num_layers):
            arrays = {
                name: self.constant(f"{self.prefix}.{name}_l{k}", values)
                for name, values in node_arrays(layer, k).items()
            }
            before = [self.layer_of(h, k, directions, layer.num_layers) for h in initial]
            inputs = [x, arrays["W"], arrays["R"], arrays.get("B", ""), self.lengths, *before]
            if "P" in arrays:
                inputs.append(arrays["P"])
            while not inputs[-1]:
                inputs.pop()
            name = f"{self.prefix}.l{k}"
            outputs = [f"{name}.{o}" for o in ("Y", "Y_h", "Y_c")[: 1 + len(finals)]]
            operator = type(layer).__name__
            self.nodes.append(helper.make_node(operator, inputs, outputs, name=name, **given))
            for final, h, h_0, s in zip(finals, outputs[1:], before, "hc", strict=False):
                if self.empty:  # ONNX Runtime has zeros for rows without steps
                    h = self.node("Where", self.empty, h_0, h, name=f"l{k}.{s}_n")
                final.append(h)
            ended = k == layer.num_layers - 1 and not layer.return_sequences
            x = self.merged(finals[0][-1] if ended else outputs[0], k, directions, ended)
        if self.states:
            for s, final in zip(("h", "c"), finals, strict=False):
                name = f"{self.prefix}.{s}_n"
                self.nodes.append(helper.make_node("Concat", final, [name], axis=0))
                shape = [len(final) * directions, "batch", layer.hidden_size]
                self.outputs.append(_info(name, self.dtype, shape))
        return x

    def initial(self, layer: RNN | GRU | LSTM, state: str) -> str:
        """The initial h or c of all layers, or nothing."""
        if not self.states:
            return ""
        name, count = f"{self.prefix}.{state}_0", layer.num_layers * layer.directions
        size = layer.hidden_size
        self.inputs.append(_info(name, self.dtype, [count, f"{name}_batch", size]))
        self.constant(name, np.zeros((count, 1, size), self.dtype))
        shape = self.ints(count), self.batch, self.ints(size)
        shape_name = self.node("Concat", *shape, name=f"{state}_shape", axis=0)
        return self.node("Expand", name, shape_name, name=state)

    def layer_of(self, state: str, k: int, directions: int, layers: int) -> str:
        if not state or layers == 1:
            return state
        ends = self.ints(k * directions), self.ints((k + 1) * directions)
        return self.node("Slice", state, *ends, name=f"{state.rpartition('.')[2]}_l{k}")

    def merged(self, y: str, k: int, directions: int, ended: bool) -> str:
        """Y (time, D, batch, H), or Y_h without time, with the directions side by side."""
        if directions == 1:
            return self.node("Squeeze", y, self.ints(0 if ended else 1), name=f"y_l{k}")
        y = self.node("Transpose", y, name=f"apart_l{k}", perm=[1, 0, 2] if ended else [0, 2, 1, 3])
        return self.node("Reshape", y, self.ints(*[0] * (1 if ended else 2), -1), name=f"y_l{k}")


def _info(name: str, dtype: Any, shape: list[Any]) -> Any:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, kind, shape)


_WRITERS: dict[type[Layer], Callable[[_Graph, Any, str], str]] = {
    Embedding: _Graph.embedding,
    Dropout: _Graph.dropout,
    Dense: _Graph.dense,
    RNN: _Graph.recurrent,
    GRU: _Graph.recurrent,
    LSTM: _Graph.recurrent,
}
