"""Inputs and targets side by side, and the minibatches that are taken from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn.data.ragged import Ragged
from fastrnn.data.types import Rows


@dataclass(frozen=True)
class Examples:
    """Inputs and targets side by side, a row of each, perhaps a length and a weight for each row.

    `x` and `y` are arrays (memory-mapped ones are read batch by batch) or `Ragged`, y perhaps None;
    ``examples[rows]`` are the examples of a batch, of arrays alone. `lengths` are those of `x`,
    `y_lengths` those of `y`, where it was ragged; `sample_weight` is (rows,) or (rows, time).
    Batches are converted to `x_dtype` and `y_dtype`, where these are given.
    """

    x: Any
    y: Any = None
    lengths: NDArray[np.int64] | None = None
    sample_weight: NDArray[Any] | None = None
    y_lengths: NDArray[np.int64] | None = None
    x_dtype: np.dtype | None = None
    y_dtype: np.dtype | None = None

    def __post_init__(self) -> None:
        """ValueError where the numbers of rows differ or are zero."""
        rows = _rows(self.x)
        if rows == 0:
            raise ValueError(f"x: expected at least one row, got {_shape(self.x)}")
        for name in ("y", "lengths", "sample_weight", "y_lengths"):
            array = getattr(self, name)
            if array is not None and _rows(array) != rows:
                raise ValueError(f"{name}: expected {rows} rows as x has, got {_shape(array)}")

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: Rows) -> Examples:
        x, lengths = _take(self.x, self.lengths, rows, self.x_dtype)
        y, y_lengths = _take(self.y, self.y_lengths, rows, self.y_dtype)
        weight = None if self.sample_weight is None else self.sample_weight[rows]
        return Examples(x, y, lengths, weight, y_lengths)

    def split(self, at: int) -> tuple[Examples, Examples]:
        """The first `at` rows and the others, nothing read or copied."""
        return self._part(slice(at)), self._part(slice(at, None))

    def _part(self, rows: slice) -> Examples:
        x, y, lengths, weight, y_lengths = (
            _part(field, rows)
            for field in (self.x, self.y, self.lengths, self.sample_weight, self.y_lengths)
        )
        return Examples(x, y, lengths, weight, y_lengths, self.x_dtype, self.y_dtype)

    @property
    def row_lengths(self) -> NDArray[np.int64] | None:
        """The lengths that make batches of similar ones, of `x` or else `y`, where it is ragged."""
        for field in (self.x, self.y):
            if isinstance(field, Ragged):
                return field.lengths
        return None

    def mask(self, y_pred: NDArray[Any], aligned: bool = True) -> NDArray[np.bool_] | None:
        """Which time steps of `y_pred` (rows, time, ...) count, None for all.

        They are those within a row's length: the targets' own where they are `aligned` with the
        predictions and have lengths, else the inputs'.
        """
        lengths = self.y_lengths if aligned and self.y_lengths is not None else self.lengths
        if lengths is None or y_pred.ndim < 3:
            return None
        return np.arange(y_pred.shape[1]) < lengths[:, None]

    def windows(self, steps: int) -> Iterator[Examples]:
        """The same rows in windows of `steps` time steps, the last one perhaps shorter.

        Raises ValueError unless there is a target for every time step.
        """
        shape, wanted = np.shape(self.y), np.shape(self.x)[:2]
        if len(wanted) < 2 or shape[:2] != wanted:
            raise ValueError(
                f"y: expected {wanted}, a target for every time step of x, got {shape}; without "
                "them the gradient cannot be cut at windows"
            )
        end = wanted[1] if self.lengths is None else max(1, int(self.lengths.max()))
        for start in range(0, end, steps):
            part = slice(start, start + steps)
            lengths, weight = self.lengths, self.sample_weight
            if lengths is not None:
                lengths = (lengths - start).clip(0, min(steps, wanted[1] - start))
            if weight is not None and weight.ndim > 1 and weight.shape[1] == wanted[1]:
                weight = weight[:, part]
            yield Examples(self.x[:, part], self.y[:, part], lengths, weight)


def _rows(array: Any) -> int:
    return 0 if getattr(array, "ndim", 1) == 0 else len(array)


def _shape(array: Any) -> Any:
    return array.shape if hasattr(array, "shape") else f"{len(array)} of {type(array).__name__}"


def _take(
    field: Any, lengths: NDArray[np.int64] | None, rows: Rows, dtype: np.dtype | None
) -> tuple[Any, NDArray[np.int64] | None]:
    """A batch of a field and its lengths: a ragged one brings its own."""
    if field is None:
        return None, None
    if isinstance(field, Ragged):
        array, lengths = field[rows]
    else:
        array, lengths = field[rows], None if lengths is None else lengths[rows]
    return array if dtype is None else array.astype(dtype, copy=False), lengths


def _part(field: Any, rows: slice) -> Any:
    if isinstance(field, Ragged):
        return Ragged(field.sequences[rows])
    return None if field is None else field[rows]


def minibatches(
    rows: int, batch_size: int, rng: np.random.Generator | None = None
) -> Iterator[Rows]:
    """Which of `rows` rows each minibatch takes: all once, the last batch may be smaller.

    Shuffled with `rng`, else in order (as slices, which copy nothing).
    """
    order = None if rng is None else rng.permutation(rows)
    for start in range(0, rows, batch_size):
        batch = slice(start, min(start + batch_size, rows))
        yield batch if order is None else order[batch]
