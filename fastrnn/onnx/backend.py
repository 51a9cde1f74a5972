"""The backend: graphs node by node, recurrent ones on the kernels, others in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import checker
from onnx.backend import base

from fastrnn import _core
from fastrnn.checks import check_input
from fastrnn.onnx.cells import LAYERS, Cell
from fastrnn.onnx.graph import FAULTS, attributes, checked, declared, initializers, refuse
from fastrnn.onnx.operators import OPERATORS

Values = tuple[NDArray[Any], ...]
ARRAYS = {1: "W", 2: "R", 3: "B", 7: "P"}  # a recurrent node's inputs that make a layer


class _Recurrent:
    """One recurrent node: a layer for each direction, made once where the weights are known."""

    def __init__(self, node: Any, constants: Mapping[str, NDArray[Any]]) -> None:
        self.cell = Cell.of(node)
        self.layers: list[Any] | None = None
        names = [name for i, name in enumerate(node.input) if i in ARRAYS and name]
        if all(name in constants for name in names):
            self.layers = self._make([constants.get(name) for name in node.input])

    def _make(self, inputs: Sequence[Any]) -> list[Any]:
        arrays = {n: inputs[i] for i, n in ARRAYS.items() if i < len(inputs)}
        arrays = {n: array for n, array in arrays.items() if array is not None}
        self.cell.check(arrays)
        return [self.cell.build([arrays], [d]) for d in range(self.cell.directions)]

    def __call__(self, x: NDArray[Any], *others: Any) -> Values:
        layers = self.layers or self._make((x, *others))
        # Beyond the weights, from B on: none of them need be there.
        lengths, h_0, c_0 = (*others, *[None] * 7)[3:6]
        first, d, layer = self.cell.batch_first, len(layers), layers[0]
        if not _core.walkable(x, 3, layer.input_size, layer.double):
            axes = f"(batch, time, {layer.input_size})" if first else layer.input_axes
            x = check_input(x, (None, None, layer.input_size), layer.dtype, axes).copy()
        batch, time = x.shape[:2] if first else x.shape[1::-1]
        if lengths is not None:
            if lengths.dtype.kind != "i":
                raise ValueError(f"sequence_lens: expected int32, got {lengths.dtype}")
            lengths = np.array(lengths, np.int64)  # C-contiguous, ours
            if lengths.shape != (batch,) or np.any((lengths < 0) | (lengths > time)):
                raise ValueError(f"sequence_lens: expected ({batch},) from 0 to {time}: {lengths}")
        hidden = layer.hidden_size
        y = _core.empty((*x.shape[: 1 + first], d, *x.shape[1 + first : 2], hidden), layer.double)
        states = [_core.empty((d, batch, hidden), layer.double) for _ in range(1 + layer.has_c)]
        h_0, c_0 = (
            h if h is None else np.ascontiguousarray(h.swapaxes(0, 1) if first else h)
            for h in (h_0, c_0)
        )
        for k, (one, reverse) in enumerate(zip(layers, self.cell.reverse, strict=True)):
            _core.forward(
                one.packs(0, False), k, d, x, lengths, reverse, first, h_0, c_0,
                y[:, :, k] if first else y[:, k], states[0], states[1] if layer.has_c else None,
                False,
            )  # fmt: skip
        return (y, *(h.swapaxes(0, 1) if first else h for h in states))


def runner(node: Any, constants: Mapping[str, NDArray[Any]]) -> Callable[..., Values]:
    """What runs a node, by its inputs, None for one left out; ValueError where nothing does.

    `constants`, by name, are those of its inputs that never change.
    """
    try:
        if node.domain not in ("", "ai.onnx"):
            raise ValueError(f"its domain {node.domain!r} is not supported")
        if node.op_type in LAYERS:
            run: Callable[..., Any] = _Recurrent(node, constants)
        elif node.op_type in OPERATORS:
            operator, given = OPERATORS[node.op_type], attributes(node)
            run = lambda *inputs: operator(given, *inputs)  # noqa: E731
        else:
            known = ", ".join(sorted([*LAYERS, *OPERATORS]))
            raise ValueError(f"not supported; there are {known}")
    except FAULTS as error:
        refuse(node, error)

    def checked_run(*inputs: Any) -> Values:
        try:
            found = run(*inputs)
        except FAULTS as error:
            refuse(node, error)
        return found if isinstance(found, tuple) else (found,)

    return checked_run


class Prepared(base.BackendRep):
    """A graph that is ready to run: see `Backend.prepare`."""

    def __init__(self, model: Any) -> None:
        graph = checked(model).graph
        self._defaults = initializers(graph)
        self._inputs = {i.name: declared(i) for i in graph.input}
        # Those without a default come first.
        self._order = sorted(self._inputs, key=lambda name: name in self._defaults)
        self._outputs = [o.name for o in graph.output]
        self._constants = {k: v for k, v in self._defaults.items() if k not in self._inputs}
        self._steps = []
        for node in graph.node:
            run = runner(node, self._constants)
            names = [name for name in node.input if name]
            if all(name in self._constants for name in names):
                found = run(*[self._constants.get(name) for name in node.input])
                self._constants.update(zip(node.output, found, strict=False))
            else:
                self._steps.append((list(node.input), list(node.output), run))

    def run(self, inputs: Any, **kwargs: Any) -> Any:
        """The graph's outputs, a named tuple.

        inputs: arrays by name, or a list: first the inputs without a default, as the graph has
        them, then the others, which may be left out. Raises ValueError for others than it has, and
        with the node's name for what its operator does not take.
        """
        if not isinstance(inputs, Mapping):
            given = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
            if len(given) > len(self._order):
                raise ValueError(f"inputs: expected at most {self._order}, got {len(given)} arrays")
            inputs = dict(zip(self._order, given, strict=False))
        if unknown := sorted(inputs.keys() - self._inputs.keys()):
            raise ValueError(f"inputs: expected {self._order}, got {unknown}")
        values = {**self._defaults, **self._constants}
        for name, (dtype, shape) in self._inputs.items():
            if name not in inputs and name not in values:
                raise ValueError(f"inputs: expected {self._order}, {name!r} is missing")
            if name in inputs:
                values[name] = _checked(name, inputs[name], dtype, shape)
        for names, outputs, run in self._steps:
            found = run(*[values[name] if name else None for name in names])
            values.update(zip(outputs, found, strict=False))
        return base.namedtupledict("Outputs", self._outputs)(*map(values.get, self._outputs))


def _checked(name: str, value: Any, dtype: np.dtype, shape: list[int | str]) -> NDArray[Any]:
    array = np.asarray(value)
    fits = array.ndim == len(shape) and all(
        isinstance(want, str) or got == want for got, want in zip(array.shape, shape, strict=True)
    )
    if not fits or array.dtype != dtype:
        wanted = f"({', '.join(map(str, shape))})"
        raise ValueError(f"{name}: expected {dtype} {wanted}, got {array.dtype} {array.shape}")
    return array


class Backend(base.Backend):
    """`onnx.backend.base.Backend` on fastrnn's kernels, for the CPU.

    It runs RNN, GRU and LSTM in float32 and float64, with all their inputs, outputs and attributes
    but functions that the kernels have not, and the few operators that stand around them in what
    `export` and PyTorch's exporter write.
    """

    @classmethod
    def is_compatible(cls, model: Any, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether `prepare` takes the model."""
        try:
            cls.prepare(model, device)
        except ValueError:
            return False
        return True

    @classmethod
    def prepare(cls, model: Any, device: str = "CPU", **kwargs: Any) -> Prepared:
        """The model (a ModelProto, or a path) made ready; ``.run(inputs)`` runs it, any number of
        times.

        Raises ValueError for a model that is not valid, and with the node's name for an operator,
        or an attribute of it, that is not supported.
        """
        cls._check_device(device)
        return Prepared(model)

    @classmethod
    def run_node(
        cls, node: Any, inputs: Any, device: str = "CPU", outputs_info: Any = None, **kwargs: Any
    ) -> Any:
        """The outputs of one node. inputs: arrays, in the order of those that the node names."""
        cls._check_device(device)
        try:
            super().run_node(node, inputs, device, outputs_info, **kwargs)
        except checker.ValidationError as error:
            refuse(node, error)
        given = iter([inputs] if isinstance(inputs, np.ndarray) else inputs)
        arrays = [next(given, None) if name else None for name in node.input]
        found = runner(node, {})(*[a if a is None else np.asarray(a) for a in arrays])
        named = [(name, a) for name, a in zip(node.output, found, strict=False) if name]
        return base.namedtupledict("Outputs", [n for n, _ in named])(*[a for _, a in named])

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether it is "CPU"."""
        return device.partition(":")[0] == "CPU"

    @classmethod
    def _check_device(cls, device: str) -> None:
        if not cls.supports_device(device):
            raise ValueError(f"device: expected 'CPU', got {device!r}")
