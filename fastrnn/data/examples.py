"""Examples, rows of inputs and targets, and minibatches of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn.data.types import Rows


@dataclass(frozen=True)
class Examples:
    """Inputs and targets side by side, a row of each and perhaps a length per example."""

    x: NDArray[Any]
    y: NDArray[Any]
    lengths: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        """ValueError where the numbers of rows differ or are zero."""
        if self.x.ndim == 0 or len(self.x) == 0:
            raise ValueError(f"x: expected at least one row, got {self.x.shape}")
        for name, array in (("y", self.y), ("lengths", self.lengths)):
            if array is not None and (array.ndim == 0 or len(array) != len(self.x)):
                raise ValueError(f"{name}: expected {len(self.x)} rows as x has, got {array.shape}")

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: Rows) -> Examples:
        lengths = None if self.lengths is None else self.lengths[rows]
        return Examples(self.x[rows], self.y[rows], lengths)


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
