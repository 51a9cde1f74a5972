"""Time series: windows that slide over them, and a split in time, as views of the series."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from fastrnn.checks import check_size


def windows(
    series: ArrayLike,
    input_steps: int,
    target_steps: int = 1,
    *,
    stride: int = 1,
    targets: int | Sequence[int] | None = None,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Windows of a time series, and for each the steps right after it, which are to be predicted.

    series: (time, features), or (time,) for one feature. Returns ``(x, y)``: x
    (n, input_steps, features), windows that start every `stride` steps, and y
    (n, target_steps, features), or the columns `targets` alone, a number or a list of them (-1 is
    the last). Both are read-only views of the series, which may be larger than memory (``np.load``
    with ``mmap_mode="r"``); only of columns that are not evenly spaced is y a view of a copy.

    Raises TypeError or ValueError for a series of another shape or too short for one window and its
    targets, for sizes below 1, and for columns that are not there.
    """
    array = np.asarray(series)
    if array.ndim not in (1, 2):
        raise ValueError(f"series: expected (time, features) or (time,), got {array.shape}")
    array = array[:, None] if array.ndim == 1 else array
    before, after = check_size(input_steps, "input_steps"), check_size(target_steps, "target_steps")
    step = check_size(stride, "stride")
    if len(array) < before + after:
        raise ValueError(
            f"series: expected {before + after} steps or more, {before} of input and {after} of "
            f"target, got {len(array)}"
        )
    predicted = array if targets is None else array[:, _columns(targets, array.shape[1])]
    return _slide(array[:-after], before, step), _slide(predicted[before:], after, step)


def _slide(series: NDArray[Any], steps: int, stride: int) -> NDArray[Any]:
    """The views (n, steps, features) of `series` (time, features)."""
    return sliding_window_view(series, steps, axis=0)[::stride].swapaxes(1, 2)


def _columns(targets: int | Sequence[int], features: int) -> slice | NDArray[np.int64]:
    """`targets` as an index of the last axis: a slice, which copies nothing, where one will do."""
    given = np.atleast_1d(np.asarray(targets))
    if given.ndim != 1 or given.dtype.kind not in "iu":
        raise TypeError(f"targets: expected a column or a list of columns, got {targets!r}")
    columns = given.astype(np.int64)
    if not -features <= columns.min() <= columns.max() < features:
        raise ValueError(
            f"targets: expected columns from {-features} to {features - 1}, got {targets!r}"
        )
    columns %= features
    steps = np.diff(columns)
    step = int(steps[0]) if steps.size else 1
    if step == 0 or np.any(steps != step):
        return columns
    stop = int(columns[-1]) + step
    return slice(int(columns[0]), stop if stop >= 0 else None, step)


def split_in_time(series: ArrayLike, fraction: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """The first `fraction` of a series (time, ...), and what comes after it, as views.

    `windows` of each then share no step. Raises ValueError where one of the two would be empty.
    """
    array = np.asarray(series)
    if array.ndim == 0:
        raise ValueError("series: expected (time, ...), got ()")
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"fraction: expected a number between 0 and 1, got {fraction}")
    end = round(len(array) * fraction)
    if not 0 < end < len(array):
        raise ValueError(f"fraction: {fraction} of {len(array)} steps leaves one part empty")
    return array[:end], array[end:]
