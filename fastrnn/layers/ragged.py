"""Sequences of different lengths: lists as one padded array and back, and boolean masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn.checks import check_input
from fastrnn.parameter import Array

if TYPE_CHECKING:
    from fastrnn.layers.recurrent import Recurrent


def as_sequences(sequences: Sequence[ArrayLike]) -> list[NDArray[Any]]:
    """`sequences` as arrays, which are kept as they are; refuses what `pack` refuses."""
    arrays = [np.asarray(sequence) for sequence in sequences]
    if not arrays:
        raise ValueError("sequences: expected at least one, got none")
    first = arrays[0]
    for k, array in enumerate(arrays):
        if array.ndim < 1 or array.shape[1:] != first.shape[1:]:
            wanted = ", ".join(["time", *map(str, first.shape[1:])])
            raise ValueError(f"sequences[{k}]: expected ({wanted}), got {array.shape}")
        if array.dtype != first.dtype:
            raise TypeError(f"sequences[{k}]: expected {first.dtype}, got {array.dtype}")
    return arrays


def pack(
    sequences: Sequence[ArrayLike], *, batch_first: bool = True
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Sequences of any lengths as one array and their lengths, as the recurrent layers take them.

    sequences: arrays (time, ...) of one dtype that differ in time alone, which may be 0. Returns
    ``(x, lengths)``: x (batch, longest, ...), or (longest, batch, ...) without `batch_first`, zero
    past each length, and lengths (batch,). Raises ValueError for no sequence and for other axes
    that differ, TypeError for dtypes that do.
    """
    arrays = as_sequences(sequences)
    lengths = np.array([len(array) for array in arrays], np.int64)
    shape = (len(arrays), max(1, int(lengths.max())))
    x = np.zeros((*(shape if batch_first else shape[::-1]), *arrays[0].shape[1:]), arrays[0].dtype)
    for row, array in zip(x if batch_first else x.swapaxes(0, 1), arrays, strict=True):
        row[: len(array)] = array
    return x, lengths


def unpack(x: ArrayLike, lengths: ArrayLike, *, batch_first: bool = True) -> list[NDArray[Any]]:
    """The sequences of `pack`, or of an output that a layer made of them, as views of x.

    x: (batch, time, ...), or (time, batch, ...) without `batch_first`; lengths: (batch,) integers
    from 0 to time. Raises TypeError or ValueError for others.
    """
    rows = np.asarray(x)
    if rows.ndim < 2:
        raise ValueError(f"x: expected (batch, time, ...), got {rows.shape}")
    rows = rows if batch_first else rows.swapaxes(0, 1)
    ends = np.asarray(lengths)
    if ends.dtype.kind not in "iu":
        raise TypeError(f"lengths: expected integers, got {ends.dtype}")
    if ends.shape != (len(rows),) or np.any((ends < 0) | (ends > rows.shape[1])):
        raise ValueError(
            f"lengths: expected ({len(rows)},) integers from 0 to {rows.shape[1]}, got {ends}"
        )
    return [row[:end] for row, end in zip(rows, ends, strict=True)]


class Mask:
    """Which steps of a batch count, as Keras has it: the others carry the state, and repeat the
    output of the last step that counts, zeros where none is; of two directions they are zero.

    valid: (batch, time). The steps that count are run as a ragged batch, from its start on.
    """

    def __init__(self, valid: NDArray[np.bool_], repeats: bool) -> None:
        self.valid = valid
        self.lengths = valid.sum(axis=1)
        self._repeats = repeats
        self._sources = valid.cumsum(axis=1) - 1  # of each step, that of the ragged batch
        self._rows = np.arange(len(valid))

    def gather(self, x: Array) -> Array:
        """x (batch, time, features) with the steps that count first, zeros after them."""
        gathered = np.zeros_like(x)
        for to, row, valid in zip(gathered, x, self.valid, strict=True):
            to[: valid.sum()] = row[valid]
        return gathered

    def scatter(self, gathered: Array) -> Array:
        """`gather`'s inverse, zeros at the other steps."""
        x = np.zeros_like(gathered)
        for to, row, valid in zip(x, gathered, self.valid, strict=True):
            to[valid] = row[: valid.sum()]
        return x

    def scatter_flow(self, flow: NDArray[np.float64]) -> NDArray[np.float64]:
        """Likewise flow (layers, batch, time)."""
        return np.stack([self.scatter(layer) for layer in flow])

    def output(self, gathered: Array) -> Array:
        """The output of all steps, of that of the ragged batch."""
        if not self._repeats:
            return self.scatter(gathered)
        output = np.take_along_axis(gathered, np.maximum(self._sources, 0)[..., None], axis=1)
        output[self._sources < 0] = 0
        return output

    def output_transposed(self, doutput: Array) -> Array:
        """The gradient of the ragged batch's output."""
        if not self._repeats:
            return self.gather(doutput)
        total = np.zeros_like(doutput)
        for step in range(doutput.shape[1]):
            rows = self._rows[self._sources[:, step] >= 0]
            total[rows, self._sources[rows, step]] += doutput[rows, step]
        return total


def run_masked(
    layer: Recurrent,
    run: Callable[..., tuple[tuple[Array, Any], Any]],
    x: Array,
    state: Any,
    mask: ArrayLike,
    training: bool,
    checkpoint_every: int,
) -> tuple[tuple[Array, Any], Any]:
    """`run`, `Recurrence.forward`, over the steps that `mask` has, whose axes are x's first two."""
    x = check_input(x, (None, None, layer.input_size), layer.dtype, layer.input_axes)
    valid = np.array(mask)  # a copy: the caller's may change before the way back
    if valid.dtype != np.bool_:
        raise TypeError(f"mask: expected booleans, got {valid.dtype}")
    if valid.shape != x.shape[:2]:
        raise ValueError(f"mask: expected {x.shape[:2]}, x's first two axes, got {valid.shape}")

    def rows_first(array: NDArray[Any]) -> NDArray[Any]:
        return array if layer.batch_first else array.swapaxes(0, 1)

    steps = Mask(rows_first(valid), repeats=not layer.bidirectional)
    gathered = rows_first(steps.gather(rows_first(x)))
    (output, final), back = run(layer, gathered, state, steps.lengths, training, checkpoint_every)
    sequences = layer.return_sequences
    if sequences:
        output = rows_first(steps.output(rows_first(output)))
    if back is None:
        return (output, final), None
    way_back = back
    way_back.mask = steps

    def pullback(
        doutput: Array | None, dstate: Any = None, **wanted: bool
    ) -> tuple[Array | None, Any]:
        if sequences and doutput is not None:
            way_back.check_output(doutput)
            doutput = rows_first(steps.output_transposed(rows_first(np.asarray(doutput))))
        dx, dinitial = way_back(doutput, dstate, **wanted)
        return None if dx is None else rows_first(steps.scatter(rows_first(dx))), dinitial

    return (output, final), pullback
