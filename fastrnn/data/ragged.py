"""Sequences of different lengths as rows that minibatches are taken from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn.data.types import Rows
from fastrnn.layers.ragged import as_sequences, pack


class Ragged:
    """Sequences of different lengths, one a row; a batch is padded when it is asked for.

    ``ragged[rows]`` is ``(x, lengths)`` of those rows alone, as `fastrnn.pack` makes it: x
    (rows, longest of them, ...), zero past each length, and lengths (rows,). ``dtype`` is that of
    all rows, ``lengths`` (all rows,) has their lengths. Arrays are kept, not copied.
    """

    def __init__(self, sequences: Sequence[ArrayLike]) -> None:
        """sequences: at least one, (time, ...) of one dtype that differ in time alone; it may be 0.

        Raises ValueError or TypeError, naming the first that differs, as `fastrnn.pack` does.
        """
        self.sequences = as_sequences(sequences)
        self.dtype = self.sequences[0].dtype
        self.lengths = np.array([len(sequence) for sequence in self.sequences], np.int64)

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, rows: Rows) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """rows: a slice or a vector of indices, which takes at least one row.

        Raises TypeError for another kind of index, ValueError where no row is taken, IndexError for
        a row that is not there.
        """
        if isinstance(rows, slice):
            taken = self.sequences[rows]
        else:
            index = np.asarray(rows)
            if index.ndim != 1 or (index.size and index.dtype.kind not in "iu"):
                raise TypeError(
                    f"rows: expected a slice or a vector of integers, got {index.dtype} "
                    f"{index.shape}"
                )
            taken = [self.sequences[row] for row in index.tolist()]
        if not taken:
            raise ValueError("rows: expected at least one, got none")
        return pack(taken)
