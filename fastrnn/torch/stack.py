"""A stack of layers over the core's pure pair, arrays in and out; weights come with every call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from operator import itemgetter
from typing import Any

import numpy as np

from fastrnn import _core, config
from fastrnn._core import empty
from fastrnn.layers.call import Lengths
from fastrnn.parameter import Array

_CELLS = {"LSTM": "lstm", "GRU": "gru", "RNN_TANH": "rnn_tanh", "RNN_RELU": "rnn_relu"}


class _Layer:
    """One layer of a stack, whose first weight is number `at` of all, and `end` past its last."""

    def __init__(self, stack: Stack, input_size: int, bias: bool, at: int) -> None:
        self.core = _core.Layer(
            stack.cell, input_size, stack.hidden_size, stack.double, proj_size=stack.proj_size
        )
        self.end = at
        # For each direction what makes the core's order of all weights and a last one, which stands
        # for those that there are not.
        self.in_order: list[Any] = []
        for _ in range(stack.directions):
            numbers = dict.fromkeys(_core.WEIGHTS, -1)
            for name in self.core.shapes():
                if bias or not name.startswith("bias"):
                    numbers[name] = self.end
                    self.end += 1
            self.in_order.append(itemgetter(*numbers.values()))


class Stack:
    """What the layers are, in `torch.nn.RNNBase`'s words; `double`: in float64."""

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        proj_size: int,
        num_layers: int,
        bias: bool,
        bidirectional: bool,
        batch_first: bool,
        double: bool,
    ) -> None:
        self.spec = (
            mode, input_size, hidden_size, proj_size, num_layers, bias, bidirectional, batch_first
        )  # fmt: skip
        self.cell, self.has_c = _CELLS[mode], mode == "LSTM"
        self.input_size, self.hidden_size, self.proj_size = input_size, hidden_size, proj_size
        self.batch_first, self.double = batch_first, double
        self.directions = 1 + bidirectional
        self.states = num_layers * self.directions
        self.state_size = proj_size or hidden_size
        self.output_size = self.state_size * self.directions
        self.layers: list[_Layer] = []
        at, inputs = 0, input_size
        for _ in range(num_layers):
            self.layers.append(_Layer(self, inputs, bias, at))
            at, inputs = self.layers[-1].end, self.output_size
        self.weights = at  # how many
        self.numbers: list[int | None] = [*range(at), None]


stack = lru_cache(1024)(Stack)


def _blocks(batch_sizes: Lengths) -> Iterator[tuple[slice, int, slice]]:
    """Of a PackedSequence's rows, runs of steps of one size: (steps, their size, their rows)."""
    row, edges = 0, np.flatnonzero(np.diff(batch_sizes)) + 1
    for start, end in pairwise([0, *edges.tolist(), len(batch_sizes)]):
        size = int(batch_sizes[start])
        rows = size * (end - start)
        yield slice(start, end), size, slice(row, row + rows)
        row += rows


def _pad(rows: Array, batch_sizes: Lengths) -> Array:
    """A PackedSequence's rows (N, F) as (T, B, F), the rest being anything: no kernel reads it."""
    shape = len(batch_sizes), int(batch_sizes[0]), rows.shape[1]
    padded = empty(shape, rows.dtype == np.float64)
    for steps, size, at in _blocks(batch_sizes):
        padded[steps, :size] = rows[at].reshape(-1, size, shape[2])
    return padded


def _pack(padded: Array, batch_sizes: Lengths) -> Array:
    """The inverse of `_pad`."""
    rows = empty((int(batch_sizes.sum()), padded.shape[2]), padded.dtype == np.float64)
    for steps, size, at in _blocks(batch_sizes):
        rows[at] = padded[steps, :size].reshape(-1, padded.shape[2])
    return rows


def forward(
    stack: Stack,
    kept_from: int,
    x: Array,
    batch_sizes: Lengths | None,
    h_0: Array | None,
    c_0: Array | None,
    weights: list[Any],
) -> tuple[Array, Array, Array | None, list[Any]]:
    """``(y, h_n, c_n, tapes)``, a tape for each layer from `kept_from` on.

    x: (B, T, I), (T, B, I) unless batch_first, or with `batch_sizes` (T,) a PackedSequence's rows
    (N, I); y is laid out likewise. States (layers * D, B, P or H), None for zeros, and weights, as
    PyTorch orders them and then a None, are C-contiguous.
    """
    double, lengths = stack.double, None
    if batch_sizes is not None:
        total = batch_sizes.sum()
        if total != len(x) or np.any(np.diff(batch_sizes) > 0) or batch_sizes[-1] < 1:
            raise ValueError(
                f"input: expected batch_sizes above 0 that fall and sum up to {len(x)} rows, "
                f"got {total}"
            )
        x = _pad(x, batch_sizes)
        lengths = np.searchsorted(-batch_sizes, -np.arange(x.shape[1]))
    elif not _core.walkable(x, 3, stack.input_size, double):
        x = x.copy()
    one, two, _ = x.shape
    batch, time = (one, two) if stack.batch_first else (two, one)
    h_n = empty((stack.states, batch, stack.state_size), double)
    c_n = empty((stack.states, batch, stack.hidden_size), double) if stack.has_c else None
    if not batch:
        return empty((one, two, stack.output_size), double), h_n, c_n, []
    numpy_gemm = config.gemm() == "numpy"
    tapes: list[Any] = []
    for k, layer in enumerate(stack.layers):
        training = k >= kept_from
        borrowed = layer.core.worth_borrowing(batch, time)
        packs = []
        for own in layer.in_order:
            packs.append(_core.Pack(layer.core, own(weights), training, numpy_gemm, borrowed))
        y = empty((one, two, stack.output_size), double)
        tape = _core.forward(
            tuple(packs), k * stack.directions, stack.states, x, lengths, False,
            stack.batch_first, h_0, c_0, y, h_n, c_n, training,
        )  # fmt: skip
        if training:
            tapes.append(tape)
        x = y
    return x if batch_sizes is None else _pack(x, batch_sizes), h_n, c_n, tapes


def backward(
    stack: Stack,
    kept_from: int,
    tapes: list[Any],
    batch_sizes: Lengths | None,
    dy: Array | None,
    dh_n: Array | None,
    dc_n: Array | None,
    needs: Sequence[bool],
) -> list[Any]:
    """The gradients of x, h_0, c_0 and the weights, None without a need; uses up the tapes.

    dy is laid out as y was, None for zeros; dh_n and dc_n are C-contiguous or None.
    """
    double = stack.double
    one, two = tapes[0].sequence_shape()
    batch = one if stack.batch_first else two
    if dy is not None and batch_sizes is not None:
        dy = _pad(dy, batch_sizes)
    elif dy is not None and not _core.walkable(dy, 3, stack.output_size, double):
        dy = dy.copy()
    dh_0 = empty((stack.states, batch, stack.state_size), double) if needs[1] else None
    dc_0 = empty((stack.states, batch, stack.hidden_size), double) if needs[2] else None
    needed = stack.numbers
    if False in needs[3:]:
        pairs = zip(needed, (*needs[3:], False), strict=True)
        needed = [i if need else None for i, need in pairs]
    gradients: list[Any] = [None] * stack.weights
    dx: Any = dy
    for k in range(len(stack.layers) - 1, kept_from - 1, -1):
        layer = stack.layers[k]
        wanted = k > kept_from or (k == 0 and needs[0])
        parts, found = _core.backward(
            tapes.pop(), k * stack.directions, stack.states, dx, dh_n, dc_n, wanted, dh_0, dc_0,
            tuple([own(needed) for own in layer.in_order]),
        )  # fmt: skip
        for i, gradient in found:
            gradients[i] = gradient
        dx = parts[0]
        if wanted and stack.directions == 2:
            dx += parts[1]
    if dx is not None and batch_sizes is not None:
        dx = _pack(dx, batch_sizes)
    return [dx, dh_0, dc_0, *gradients]
