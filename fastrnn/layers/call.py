"""What `_core.Recurrence` has done in Python: checks that convert, masks, last outputs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn import _core
from fastrnn.checks import check_input
from fastrnn.config import default_gemm
from fastrnn.parameter import Array

if TYPE_CHECKING:
    from fastrnn.layers.recurrent import Recurrent

__all__ = [
    "checked",
    "checked_lengths",
    "checked_step",
    "default_gemm",
    "drawn",
    "final_gradient",
    "last_output",
]

Lengths = NDArray[np.int64]
OnGradient = Callable[[NDArray[np.float64]], object]


def checked(layer: Recurrent, x: Any, lengths: ArrayLike | None) -> tuple[Array, Lengths | None]:
    """``(x, lengths)`` as the kernels take them; raises TypeError, ValueError."""
    if not _core.walkable(x, 3, layer.input_size, layer.double):
        x = check_input(x, (None, None, layer.input_size), layer.dtype, layer.input_axes).copy()
    batch, time = x.shape[:2] if layer.batch_first else x.shape[1::-1]
    return x, None if lengths is None else checked_lengths(lengths, batch, time)


def checked_step(layer: Recurrent, x: Any) -> Array:
    """The x of a single time step as the kernels take it; raises TypeError, ValueError."""
    axes = f"(batch, {layer.input_size})"
    return check_input(x, (None, layer.input_size), layer.dtype, axes).copy()


def checked_lengths(lengths: ArrayLike, batch: int, time: int) -> Lengths:
    """A copy, (batch,) int64 from 0 to time; raises TypeError, ValueError."""
    array = np.array(lengths)  # a copy: the caller's may change
    if array.dtype.kind not in "iu":
        raise TypeError(f"lengths: expected integers, got {array.dtype}")
    if array.shape != (batch,):
        raise ValueError(f"lengths: expected ({batch},), got {array.shape}")
    wrong = np.flatnonzero((array < 0) | (array > time))
    if wrong.size:
        raise ValueError(f"lengths: expected 0 to {time}, got {array[wrong[0]]} for row {wrong[0]}")
    return array.astype(np.int64)


def drawn(layer: Recurrent) -> tuple[int, Callable[[tuple[int, ...]], Array] | None]:
    """Of a training call: the seed of its masks, and what makes a mask between two layers."""
    seeds = layer.next_seed()
    seed = int(seeds.generate_state(1, np.uint64)[0])
    if not layer.dropout:
        return seed, None
    return seed, partial(_dropout_mask, layer, np.random.Generator(np.random.Philox(seeds)))


def _dropout_mask(layer: Recurrent, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    mask = (rng.random(shape, np.float32) >= layer.dropout).astype(layer.dtype)
    mask *= layer.dtype.type(1 / (1 - layer.dropout))
    return mask


def last_output(layer: Recurrent, h_n: Array) -> Array:
    """The last layer's final h, directions side by side: (batch, D * hidden_size)."""
    return np.concatenate(list(h_n[-layer.directions :]), axis=1)


def final_gradient(layer: Recurrent, dy: Array, dh_n: Array | None) -> Array:
    """The gradient of the final states, of `last_output`'s and what else there is."""
    total = np.zeros(layer.state_shapes(len(dy))[0], layer.dtype) if dh_n is None else dh_n.copy()
    for d in range(layer.directions):
        at = d * layer.output_size
        total[d - layer.directions] += dy[:, at : at + layer.output_size]
    return total
