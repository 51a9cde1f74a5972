"""The golden vectors made with PyTorch (tests/data/golden.npz), as test cases.

The file holds for each configuration NAME two flat float arrays, ``NAME/given`` (float32) and
``NAME/expected`` (float64): the values of `given_shapes` and `expected_shapes`, one after the
other, each in C order. ``configs`` is the JSON of all configurations, a list of `Config`'s fields.
Expected values are those of PyTorch in float64; given values are exact in float32, so that the
same numbers serve both dtypes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Shapes = dict[str, tuple[int, ...]]

PATH = Path(__file__).parent / "data" / "golden.npz"
GATES = {"rnn_tanh": 1, "rnn_relu": 1, "gru": 3, "lstm": 4}


@dataclass(frozen=True)
class Config:
    """A recurrent layer, named as in PyTorch, and the sizes of a batch for it."""

    name: str
    cell: str  # one of GATES
    input_size: int
    hidden_size: int
    batch: int
    time: int
    num_layers: int = 1
    bidirectional: bool = False
    bias: bool = True
    initial_state: bool = True  # False: none was given, and dh0 is the gradient at zeros
    lengths: list[int] | None = None  # None: all `time`

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    def weight_shapes(self) -> Shapes:
        """The weights by PyTorch's names."""
        rows, hidden = GATES[self.cell] * self.hidden_size, self.hidden_size
        shapes: Shapes = {}
        for layer in range(self.num_layers):
            inputs = self.directions * hidden if layer else self.input_size
            for suffix in ("", "_reverse")[: self.directions]:
                shapes[f"weight_ih_l{layer}{suffix}"] = (rows, inputs)
                shapes[f"weight_hh_l{layer}{suffix}"] = (rows, hidden)
                if self.bias:
                    shapes[f"bias_ih_l{layer}{suffix}"] = (rows,)
                    shapes[f"bias_hh_l{layer}{suffix}"] = (rows,)
        return shapes

    def given_shapes(self) -> Shapes:
        """Inputs, states and gradients given to the layer, and its weights."""
        x = {"x": (self.batch, self.time, self.input_size)}
        start = self._state_shapes("h0", "c0") if self.initial_state else {}
        ends = {"dy": self._y_shape(), **self._state_shapes("dh_n", "dc_n")}
        return {**x, **start, **ends, **self.weight_shapes()}

    def expected_shapes(self) -> Shapes:
        """Outputs, final states and all gradients; a weight's gradient has the weight's name."""
        x = {"dx": (self.batch, self.time, self.input_size)}
        states = {**self._state_shapes("h_n", "c_n"), **self._state_shapes("dh0", "dc0")}
        return {"y": self._y_shape(), **states, **x, **self.weight_shapes()}

    def _y_shape(self) -> tuple[int, ...]:
        return (self.batch, self.time, self.directions * self.hidden_size)

    def _state_shapes(self, h: str, c: str) -> Shapes:
        shape = (self.num_layers * self.directions, self.batch, self.hidden_size)
        return {h: shape, c: shape} if self.cell == "lstm" else {h: shape}


@dataclass(frozen=True)
class Case:
    """A configuration in one dtype: what to give to a layer, and what it is to return.

    `dy`, `dh_n` and `dc_n` are the gradients given to the backward pass. `expected` has the keys y,
    h_n, c_n, dx, dh0, dc0 and the names of the weights, for their gradients; the c's of an LSTM
    alone.
    """

    config: Config
    x: Array
    h0: Array | None
    c0: Array | None
    weights: dict[str, Array]
    dy: Array
    dh_n: Array
    dc_n: Array | None
    expected: dict[str, Array]

    @property
    def lengths(self) -> NDArray[np.int64] | None:
        return None if self.config.lengths is None else np.array(self.config.lengths)

    def check(self, name: str, got: Array) -> None:
        """Assert that `got` has the dtype, shape and, to rounding, the values of expected[name]."""
        want = self.expected[name]
        assert got.dtype == want.dtype, f"{name}: {got.dtype}"
        tolerance = 2e-5 if want.dtype == np.float32 else 1e-12
        np.testing.assert_allclose(got, want, tolerance, tolerance, err_msg=name, strict=True)

    def __str__(self) -> str:
        return f"{self.config.name}-{self.x.dtype}"


def pack(arrays: dict[str, Array], shapes: Shapes) -> Array:
    """The arrays named in `shapes`, one after the other."""
    for name, shape in shapes.items():
        assert arrays[name].shape == shape, (name, arrays[name].shape, shape)
    return np.concatenate([arrays[name].ravel() for name in shapes])


def unpack(flat: Array, shapes: Shapes) -> dict[str, Array]:
    """The inverse of `pack`."""
    sizes = [int(np.prod(shape)) for shape in shapes.values()]
    assert flat.shape == (sum(sizes),), (flat.shape, sum(sizes))
    parts = np.split(flat, np.cumsum(sizes)[:-1])
    return {
        name: part.reshape(shape).copy()
        for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }


def cases(*dtypes: str) -> list[Case]:
    """Every configuration in each of `dtypes`, which are float32 and float64 unless given."""
    found = []
    with np.load(PATH) as file:
        for fields in json.loads(str(file["configs"])):
            config = Config(**fields)
            for dtype in dtypes or ("float32", "float64"):
                flat = file[f"{config.name}/given"].astype(dtype)
                given = unpack(flat, config.given_shapes())
                flat = file[f"{config.name}/expected"].astype(dtype)
                expected = unpack(flat, config.expected_shapes())
                weights = {name: given[name] for name in config.weight_shapes()}
                case = Case(
                    config,
                    given["x"],
                    given.get("h0"),
                    given.get("c0"),
                    weights,
                    given["dy"],
                    given["dh_n"],
                    given.get("dc_n"),
                    expected,
                )
                found.append(case)
    return found
