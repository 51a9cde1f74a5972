"""Source and target sequences of ids side by side, and batches of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn.data.ragged import Ragged
from fastrnn.data.types import Rows
from fastrnn.layers.ragged import unpack

Sequences = list[NDArray[np.int64]]


@dataclass(frozen=True)
class Pairs:
    """Sources and what a decoder is given beside them, a vector of ids each; ``pairs[rows]`` are
    the pairs of a batch."""

    sources: Sequences
    inputs: Sequences

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, rows: Rows) -> Pairs:
        if isinstance(rows, slice):
            return Pairs(self.sources[rows], self.inputs[rows])
        index = rows.tolist()
        return Pairs([self.sources[k] for k in index], [self.inputs[k] for k in index])


def id_sequences(
    ids: Any, size: int, name: str, lengths: ArrayLike | None = None, shortest: int = 0
) -> Sequences:
    """`ids` as vectors of ids from 0 to size - 1, `shortest` or longer.

    ids: a list of vectors, or an array (rows, time) of which `lengths` (rows,) count, None for all.
    Raises TypeError or ValueError, which name the first vector that does not fit, or `name` alone.
    """
    if isinstance(ids, np.ndarray):
        if ids.ndim != 2:
            raise ValueError(
                f"{name}: expected a list of vectors of ids, or (rows, time), got {ids.shape}"
            )
        rows = list(ids) if lengths is None else unpack(ids, lengths)
    elif lengths is not None:
        raise ValueError(f"lengths: expected where {name} is an array alone")
    elif not isinstance(ids, list | tuple | Ragged):
        raise TypeError(f"{name}: expected a list of vectors of ids, got {type(ids).__name__}")
    else:
        given = ids.sequences if isinstance(ids, Ragged) else ids
        rows = [np.asarray(row) for row in given]
    if not rows:
        raise ValueError(f"{name}: expected at least one sequence, got none")
    for k, row in enumerate(rows):
        if row.ndim != 1:
            raise ValueError(f"{name}[{k}]: expected a vector of ids, got shape {row.shape}")
        if row.size and row.dtype.kind not in "iu":
            raise TypeError(f"{name}[{k}]: expected integer ids, got {row.dtype}")
        if len(row) < shortest:
            raise ValueError(f"{name}[{k}]: expected at least {shortest} id, got {len(row)}")
    rows = [row.astype(np.int64, copy=False) for row in rows]
    joined = np.concatenate(rows)
    if joined.size and not 0 <= joined.min() <= joined.max() < size:
        for k, row in enumerate(rows):
            wrong = row[(row < 0) | (row >= size)]
            if wrong.size:
                raise ValueError(f"{name}[{k}]: expected ids from 0 to {size - 1}, got {wrong[0]}")
    return rows
