"""One row as a problem: the data and weights that every system gets, and whether results agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.shapes import GATES, AnyRow, Model, Row

Array = NDArray[Any]
Results = Mapping[str, Array]

# Of the largest value; float32 sums of a few thousand terms in two orders stay well below.
_TOLERANCE = {"float32": 1e-4, "float64": 1e-11}

STEPS = 4  # of a stream or a model that are compared
_WINDOWS = 8  # of a model's data, over and over


class Mismatch(Exception):
    """Two systems do not agree, so a comparison of times means nothing."""


class Problem:
    """A layer's data: initial states zero, gradients of the output only.

    x (B, T, I), dy (B, T, D * H), lengths (B,), weights by PyTorch's names and in its shapes, all
    from one seed.
    """

    def __init__(self, row: Row) -> None:
        batch, time, inputs, hidden = row.sizes
        rng = np.random.default_rng(0)
        self.lengths = row.lengths()
        self.x = rng.standard_normal((batch, time, inputs)).astype(row.dtype)
        self.dy = rng.standard_normal((batch, time, hidden * row.directions)).astype(row.dtype)
        self.weights = _weights(row, rng)


class ModelProblem:
    """A character model's data: windows (x, y) of ids (B, T), and its weights.

    The weights are named embedding.weight, lstm.weight_ih_l0, ..., dense.weight, dense.bias.
    """

    def __init__(self, model: Model) -> None:
        rng = np.random.default_rng(0)
        time, hidden, characters = model.time, model.hidden_size, model.characters
        ids = rng.integers(0, characters, (model.batch, _WINDOWS * time + 1))
        starts = range(0, _WINDOWS * time, time)
        self.windows = [(ids[:, t : t + time], ids[:, t + 1 : t + time + 1]) for t in starts]
        self.weights: dict[str, Array] = {
            "embedding.weight": rng.standard_normal((characters, model.embedding), np.float32),
            "dense.weight": _uniform(rng, (characters, hidden), hidden, "float32"),
            "dense.bias": np.zeros(characters, np.float32),
        }
        for layer, row in enumerate(model.rows()):
            for name, weight in _weights(row, rng).items():
                self.weights[f"{model.cell}.{name.replace('_l0', f'_l{layer}')}"] = weight


def _weights(row: Row, rng: np.random.Generator) -> dict[str, Array]:
    hidden, blocks = row.hidden_size, GATES[row.cell] * row.hidden_size
    return {
        name + suffix: _uniform(rng, shape, hidden, row.dtype)
        for suffix in ("_l0", "_l0_reverse")[: row.directions]
        for name, shape in (
            ("weight_ih", (blocks, row.input_size)),
            ("weight_hh", (blocks, hidden)),
            ("bias_ih", (blocks,)),
            ("bias_hh", (blocks,)),
        )
    }


def _uniform(rng: np.random.Generator, shape: tuple[int, ...], fan: int, dtype: str) -> Array:
    bound = 1 / np.sqrt(fan)
    return rng.uniform(-bound, bound, shape).astype(dtype)


def check(who: str, row: AnyRow, kind: str, got: Results, wanted: Results) -> None:
    """Compare results by name, relative to the largest value wanted; raises Mismatch.

    A name that is missing is a mismatch too.
    """
    for name, right in wanted.items():
        if name not in got:
            raise Mismatch(f"{who}, {row.name}, {kind}: {name} is missing")
        shapes = got[name].shape, right.shape
        if shapes[0] != shapes[1]:
            raise Mismatch(f"{who}, {row.name}, {kind}: {name} is {shapes[0]}, not {shapes[1]}")
        difference = np.abs(got[name] - right).max()
        scale = np.abs(right).max()
        if not difference <= _TOLERANCE[row.dtype] * scale:  # a NaN is a mismatch too
            raise Mismatch(
                f"{who}, {row.name}, {kind}: {name} is off by up to {difference:.2g}, "
                f"where the largest value is {scale:.2g}"
            )
