"""Minibatches of sequences of similar lengths, which leave little to pad."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastrnn.checks import check_size


def bucketed_minibatches(
    lengths: ArrayLike,
    batch_size: int,
    rng: np.random.Generator | None = None,
    *,
    window: int = 50,
) -> Iterator[NDArray[np.int64]]:
    """Which rows each minibatch takes, those of a minibatch having similar lengths.

    lengths: (rows,) integers. All rows are taken once; one batch, anywhere, may be smaller. With
    `rng` rows are shuffled, sorted by length within windows of `window` batches, and the batches
    shuffled: a larger window pads less, a smaller one mixes more. Without it all rows are sorted,
    those of one length as they come, and the batches are in order. Raises ValueError for other
    lengths and for sizes below 1.
    """
    array = np.asarray(lengths)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ValueError(f"lengths: expected a vector of integers, got {array.dtype} {array.shape}")
    size = check_size(batch_size, "batch_size")
    span = check_size(window, "window") * size
    if rng is None:
        order, span = np.arange(len(array)), max(1, len(array))
    else:
        order = rng.permutation(len(array))
    batches: list[NDArray[np.int64]] = []
    for start in range(0, len(order), span):
        rows = order[start : start + span]
        rows = rows[np.argsort(array[rows], kind="stable")]
        batches += [rows[first : first + size] for first in range(0, len(rows), size)]
    if rng is None:
        return iter(batches)
    return iter([batches[k] for k in rng.permutation(len(batches))])
