"""ONNX files as Sequential models: the graph is walked with the shapes of one input, constants are
worked out, and what comes of the input is followed from layer to layer.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from fastrnn.checks import check_dtype
from fastrnn.layers.base import Layer
from fastrnn.layers.dense import Dense
from fastrnn.layers.dropout import Dropout
from fastrnn.layers.embedding import Embedding
from fastrnn.models import Sequential
from fastrnn.onnx.backend import ARRAYS, runner
from fastrnn.onnx.cells import LAYERS, Cell
from fastrnn.onnx.flows import BATCH, DIRECTIONS, FEATURES, MOVES, TIME, UNITS, Flow, Part
from fastrnn.onnx.graph import FAULTS, attributes, checked, declared, initializers, refuse
from fastrnn.onnx.writer import ACTIVATIONS

Array = NDArray[Any]
_OPEN = (1009, 1013)  # for the input's first axes where their sizes are open


def load(path: str | os.PathLike[str] | Any) -> Sequential:
    """The Sequential that computes what an ONNX file (or an `onnx.ModelProto`) does.

    It reads what `export` writes, and others' graphs that are a chain of an embedding (Gather),
    RNN, GRU or LSTM nodes (forward or bidirectional), affine maps of the last axis (Gemm, or MatMul
    and Add) with Relu, Tanh, Sigmoid or Softmax, and Dropout, with what PyTorch's exporters put
    between them. Recurrent nodes alike, one after the other, become one layer of several. Lengths
    must be all steps and initial states zeros, or inputs with such defaults; outputs after the
    first must be final states: `Sequential.run` takes and gives its own. Its arrays have the batch
    first, even where the file's have time first.

    Raises OSError where the file cannot be read, TypeError for neither a path nor a model, and
    ValueError that names the node, its operator and the reason where the graph is of another kind.
    """
    return _Reader(checked(path).graph).read()


@dataclass
class _Stack:
    """Recurrent nodes that make one layer."""

    cell: Cell
    arrays: list[dict[str, Array]]
    return_sequences: bool = True

    def goes_on_with(self, cell: Cell, arrays: dict[str, Array]) -> bool:
        """Whether another node is as these are, whatever layout it has."""
        same = replace(cell, batch_first=self.cell.batch_first) == self.cell
        first = self.arrays[0]
        return same and first.keys() == arrays.keys() and first["R"].shape == arrays["R"].shape

    def layer(self) -> Layer:
        directions = range(self.cell.directions)
        return self.cell.build(self.arrays, directions, return_sequences=self.return_sequences)


@dataclass
class _Affine:
    weight: Array  # (out, in)
    bias: Array | None = None
    activation: str | None = None

    def layer(self) -> Layer:
        state = {"weight": self.weight} | ({} if self.bias is None else {"bias": self.bias})
        out, into = self.weight.shape
        dense = Dense(into, out, self.activation, bias="bias" in state, dtype=self.weight.dtype)
        dense.load_state_dict(state)
        return dense


class _Reader:
    """One walk over a graph."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.values: dict[str, Array | Flow] = dict(initializers(graph))
        self.layers: list[_Stack | _Affine | Layer] = []
        self.tip: tuple[Part, ...] = ((0, 0),)  # the parts of the newest output
        self.order: tuple[str, ...] = ()  # the input's first axes, once they are known

    def read(self) -> Sequential:
        inputs = [i for i in self.graph.input if i.name not in self.values]
        if not inputs:
            raise ValueError("model: it has no input")
        self._start(inputs[0])
        for node in self.graph.node:
            try:
                for name in filter(None, node.input):
                    if name not in self.values:  # an input, or of a node that was not run
                        raise ValueError(
                            f"{name!r}: expected the input {inputs[0].name!r} or a constant"
                        )
                found = self._follow(node, [self.values.get(name) for name in node.input])
            except FAULTS as error:
                refuse(node, error)
            found = found if isinstance(found, tuple) else (found,)
            self.values.update(zip(node.output, found, strict=False))
        for place, output in enumerate(self.graph.output):
            self._end(output.name, self.values.get(output.name), place)
        return Sequential([x if isinstance(x, Layer) else x.layer() for x in self.layers])

    def _start(self, value: Any) -> None:
        dtype, shape = declared(value)
        self.takes_ids = dtype.kind == "i"
        axes = ("0", "1") if self.takes_ids else (*("0", "1")[: len(shape) - 1], FEATURES)
        if not 1 < len(shape) == len(axes) or not (self.takes_ids or isinstance(shape[-1], int)):
            raise ValueError(
                f"input {value.name!r}: expected ids (batch, time), or (batch, features) or (batch,"
                f" time, features) of known features, got {dtype} {tuple(shape)}"
            )
        sizes = tuple(n if isinstance(n, int) else _OPEN[i] for i, n in enumerate(shape))
        self.order = axes if self.takes_ids else axes[:-1]
        self.values[value.name] = Flow(axes, sizes, self.tip)

    def _end(self, name: str, flow: Any, place: int) -> None:
        if not isinstance(flow, Flow) or (
            place and (TIME in flow.axes or DIRECTIONS not in flow.axes)
        ):
            wanted = "final states after the first one" if place else "what comes of the input"
            raise ValueError(f"output {name!r}: expected {wanted}")
        if place:
            return
        try:
            self._take(flow)
        except ValueError as error:
            raise ValueError(f"output {name!r}: {error}") from None
        if flow.axes not in ((*self.order, FEATURES), (BATCH, FEATURES)):
            raise ValueError(f"output {name!r}: expected the input's order of axes: {flow.axes}")

    # --- Nodes ------------------------------------------------------------------------------------

    def _follow(self, node: Any, inputs: list[Any]) -> Any:
        """The node's outputs: constants of constants, else layers are added and flows go on."""
        flows = [value for value in inputs if isinstance(value, Flow)]
        if not flows:
            return runner(node, {})(*inputs)
        operator = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}."
        if operator in LAYERS:
            return self._recurrent(node, *inputs)
        if operator in _STEPS and not (operator == "Gather" and flows[0] is inputs[0]):
            return _STEPS[operator](self, attributes(node), *inputs)
        if operator in MOVES and (operator in ("Concat", "Where") or flows[0] is inputs[0]):
            return MOVES[operator](attributes(node), *inputs)
        raise ValueError("not supported on what comes of the input")

    def _take(self, flow: Any) -> None:
        """Go on from here, which must be the whole of the newest output."""
        if (
            not isinstance(flow, Flow)
            or flow.parts != self.tip
            or flow.is_c
            or {*UNITS} & {*flow.axes}
        ):
            raise ValueError("expected a chain: layers on the whole output of the one before")
        if BATCH in self.order and TIME not in flow.axes:
            stacks = [layer for layer in self.layers if isinstance(layer, _Stack)]
            stacks[-1].return_sequences = False

    def _next(self, flow: Flow, features: int, *layers: _Stack | _Affine | Layer) -> Flow:
        """The output after one more layer, or after a change of the newest."""
        self.layers += layers
        self.tip = ((self.tip[0][0] + 1, 0),)
        return replace(flow, sizes=(*flow.sizes[:-1], features), parts=self.tip)

    def _embedding(self, a: dict[str, Any], table: Any, ids: Flow) -> Flow:
        if not self.takes_ids or self.layers or a["axis"] or np.ndim(table) != 2:
            raise ValueError("expected a table of rows, for ids")
        layer = Embedding(*table.shape, dtype=table.dtype)
        layer.load_state_dict({"weight": table})
        longer = replace(ids, axes=(*ids.axes, FEATURES), sizes=(*ids.sizes, 0))
        self.takes_ids = False
        return self._next(longer, table.shape[1], layer)

    def _affine(self, flow: Any, weight: Any) -> Flow:
        self._take(flow)
        if flow.axes[-1] != FEATURES or np.shape(weight)[1:] != flow.sizes[-1:]:
            raise ValueError(f"expected a matrix for {flow.axes}, {flow.sizes}")
        check_dtype(weight.dtype)
        return self._next(flow, len(weight), _Affine(weight))

    def _matmul(self, a: dict[str, Any], flow: Any, weight: Any) -> Flow:
        return self._affine(flow, np.transpose(weight))

    def _gemm(self, a: dict[str, Any], flow: Any, weight: Any, bias: Any = None) -> Flow:
        if a["transA"] or a["alpha"] != 1 or (a["beta"] != 1 and bias is not None):
            raise ValueError("expected transA=0, alpha=1, beta=1")
        y = self._affine(flow, weight if a["transB"] else np.transpose(weight))
        return y if bias is None else self._add(a, y, bias)

    def _add(self, a: dict[str, Any], x: Any, y: Any) -> Flow:
        flow, bias = (x, y) if isinstance(x, Flow) else (y, x)
        layer = self._dense(flow)
        size, shape = len(layer.weight), np.shape(bias)
        vector = shape[-1:] == (size,) == (np.size(bias),) and len(shape) <= len(flow.axes)
        if layer.bias is not None or not vector:
            raise ValueError(f"expected a bias after a product, got {shape}")
        layer.bias = np.reshape(bias, -1)
        return self._next(flow, size)

    def _dense(self, flow: Any) -> _Affine:
        """The affine map that the flow is the output of, without activation so far."""
        self._take(flow)
        layer = self.layers[-1] if self.layers else None
        if not isinstance(layer, _Affine) or layer.activation is not None:
            raise ValueError("expected to stand after an affine map")
        if flow.axes[-1] != FEATURES:
            raise ValueError(f"expected features last, got {flow.axes}")
        return layer

    def _activation(self, name: str, a: dict[str, Any], flow: Flow) -> Flow:
        if a.get("axis", -1) not in (-1, len(flow.axes) - 1):
            raise ValueError(f"axis: expected the last, got {a['axis']}")
        self._dense(flow).activation = name
        return self._next(flow, flow.sizes[-1])

    def _dropout(
        self, a: dict[str, Any], flow: Flow, ratio: Any = None, training: Any = None
    ) -> Flow:
        self._take(flow)
        if FEATURES not in flow.axes or (training is not None and training):
            raise ValueError("expected features, in inference")
        p = 0.5 if ratio is None else float(ratio)
        return self._next(flow, flow.sizes[-1], Dropout(p))

    def _cast(self, a: dict[str, Any], flow: Flow) -> Flow:
        if not self.takes_ids or helper.tensor_dtype_to_np_dtype(a["to"]).kind != "i":
            raise ValueError("expected ids, to integers")
        return flow

    def _recurrent(self, node: Any, x: Any, *others: Any) -> tuple[Flow, ...]:
        cell = Cell.of(node)
        if cell.reverse == (True,):
            raise ValueError("direction: expected forward or bidirectional, got reverse")
        if any(options != cell.options[0] for options in cell.options):
            raise ValueError("activations: expected the same for both directions")
        lengths, *initial = (*others, *[None] * 7)[3:6]
        given = dict(enumerate((x, *others)))
        arrays = {n: given[i] for i, n in ARRAYS.items() if given.get(i) is not None}
        if any(isinstance(value, Flow) for value in (lengths, *initial, *arrays.values())):
            raise ValueError("expected constants, but for X")
        cell.check(arrays)
        self._take(x)
        if len(x.axes) != 3 or x.axes[-1] != FEATURES:
            raise ValueError(f"X: expected sequences of features, got {x.axes}")
        if x.sizes[-1] != arrays["W"].shape[2]:
            raise ValueError(f"X: expected {arrays['W'].shape[2]} features, got {x.sizes[-1]}")
        names = (BATCH, TIME) if cell.batch_first else (TIME, BATCH)
        if BATCH not in self.order:  # the first one says which axis is which
            self.order = tuple(names[x.axes.index(axis)] for axis in self.order)
        elif x.axes[:2] != names:
            raise ValueError(f"X: expected {names} as before, got {x.axes[:2]}")
        d, first = cell.directions, cell.batch_first
        sizes = dict(zip(names, x.sizes, strict=False))
        sizes |= {DIRECTIONS: d, FEATURES: arrays["R"].shape[2]}
        y = (*names, DIRECTIONS, FEATURES) if first else (TIME, DIRECTIONS, BATCH, FEATURES)
        h = (BATCH, DIRECTIONS, FEATURES) if first else (DIRECTIONS, BATCH, FEATURES)
        h_shape = tuple(sizes[axis] for axis in h)
        if lengths is not None:
            if np.shape(lengths) != (sizes[BATCH],) or np.any(lengths != sizes[TIME]):
                raise ValueError("sequence_lens: expected all steps; Sequential.run takes lengths")
        for state in initial:
            if state is not None and (np.shape(state) != h_shape or np.any(state)):
                raise ValueError("initial states: expected zeros; Sequential.run takes a state")
        last = self.layers[-1] if self.layers else None
        if isinstance(last, _Stack) and last.goes_on_with(cell, arrays):
            last.arrays.append(arrays)
            self._next(x, 0)
        else:
            self._next(x, 0, _Stack(cell, [arrays]))
        self.tip = tuple((self.tip[0][0], k) for k in range(d))
        final = Flow(h, h_shape, self.tip, is_one_way=d == 1)
        every = replace(final, axes=y, sizes=tuple(sizes[axis] for axis in y))
        return every, final, replace(final, is_c=True)


_STEPS: dict[str, Callable[..., Any]] = {
    "Add": _Reader._add,
    "Cast": _Reader._cast,
    "Dropout": _Reader._dropout,
    "Gather": _Reader._embedding,
    "Gemm": _Reader._gemm,
    "MatMul": _Reader._matmul,
    **{
        operator: (lambda reader, a, x, name=name: reader._activation(name, a, x))
        for name, operator in ACTIVATIONS.items()
    },
}
